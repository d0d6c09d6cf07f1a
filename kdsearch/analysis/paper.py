"""The paper's own numbers, to print beside a study's: arXiv 2401.06356, Figures 1 to 3 and Table 3.

Percent, as printed. A row is found by its figure and label, so it stands beside the same
comparison only: a study with other values or other defaults has none.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "https://arxiv.org/abs/2401.06356"
SOURCE = "arXiv 2401.06356, Figures 1–3 and Table 3"
CASES = 39
AT_LEAST_AS_GOOD = 0.40
"""The share of test cases in which the stable configuration is at least as good as the best."""

MAXIMUM = "maximum by test over all α"
MAXIMUM_OVER_ALPHA = f"{MAXIMUM}, over α = 1"
"""The paper's α row has no negative value, so it looks like a maximum that includes α = 1."""


OVER_RANDOM = "best over random (first draw)"
"""Figure 1's: one candidate is drawn in each case."""
OVER_ANOTHER_RANDOM = "best over random (second draw)"
"""Figure 3's, another one."""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """The deciles D0 to D10 of a comparison, in percent, over 39 test cases."""

    figure: int
    label: str
    percent: tuple[float, ...]


ROWS = tuple(
    PaperRow(figure=figure, label=label, percent=percent)
    for figure, label, percent in (
        (1, "best over worst", (0.3, 0.6, 0.9, 0.9, 1.2, 1.6, 1.8, 2.1, 2.7, 4.3, 9.7)),
        (1, OVER_RANDOM, (0.0, 0.0, 0.0, 0.0, 0.2, 0.4, 0.5, 0.7, 0.8, 1.4, 3.0)),
        (2, MAXIMUM_OVER_ALPHA, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.4, 0.5, 0.8, 1.2)),
        (2, "MSE over CE", (-5.0, -1.3, -0.9, -0.6, -0.3, -0.2, 0.1, 0.2, 0.4, 0.5, 1.8)),
        (2, "t_ll over t_hs", (-2.5, -1.0, -0.4, -0.3, -0.1, 0.3, 0.5, 0.7, 1.2, 1.6, 6.4)),
        (2, "τ_s = 1 over τ_s = τ_t", (-5.9, -0.6, -0.4, -0.1, 0.0, 0.0, 0.1, 0.3, 0.7, 1.1, 3.4)),
        (3, "best over lazy", (-0.1, 0.0, 0.3, 0.6, 0.8, 0.9, 1.4, 1.6, 1.9, 3.7, 11.8)),
        (3, OVER_ANOTHER_RANDOM, (0.0, 0.0, 0.0, 0.2, 0.3, 0.6, 0.8, 1.1, 1.5, 1.6, 4.2)),
        (3, "best over stable", (-1.8, -0.8, -0.1, 0.0, 0.0, 0.2, 0.4, 0.6, 0.7, 1.1, 4.8)),
    )
)

REWARDS = {"t_ll over t_hs": 11, "MSE over CE": -5, "τ_s = 1 over τ_s = τ_t": 1}
"""R of Table 3, by comparison, over the 39 test cases."""


def paper_row(figure: int | None, label: str) -> PaperRow | None:
    """The paper's row of a comparison, if it makes it."""
    return next((row for row in ROWS if (row.figure, row.label) == (figure, label)), None)
