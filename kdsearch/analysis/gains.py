"""Relative gains over test cases, and their deciles: the rows of Figures 1 to 3.

A comparison that cannot be made in a case is left out of its row with the reason counted; nothing
is ever filled in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kdsearch.agenda import CaseView, TestScore
from kdsearch.analysis.paper import PaperRow, paper_row
from kdsearch.study import TestCase


class LeftOut(StrEnum):
    """Why a case is not in a row."""

    ABSENT = "absent"
    """The case has no such comparison: a value it lacks, or an inactive parameter."""
    BLOCKED = "blocked"
    """The case cannot go on."""
    UNFINISHED = "unfinished"
    """The case has not come so far."""
    UNSCORED = "unscored"
    """A side has no score: its trainings diverged or failed."""
    ZERO_BASELINE = "zero_baseline"
    """A gain over 0 is not defined."""


Gain = float | LeftOut


@dataclass(frozen=True, kw_only=True)
class CaseGain:
    """The relative gain in one test case."""

    case: TestCase
    gain: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row of Figure 1, 2 or 3, over the test cases that have it."""

    figure: int | None
    """The paper's figure; None for a comparison that it does not make."""
    label: str
    n: int
    deciles: tuple[float, ...] | None
    """D0 (the minimum) to D10 (the maximum); None when no case has the comparison."""
    gains: tuple[CaseGain, ...]
    left_out: dict[LeftOut, int]
    """How many cases are not in the row, by reason; reasons that do not occur are absent."""
    paper: PaperRow | None
    """The paper's own row."""

    @property
    def median(self) -> float | None:
        """D5."""
        return self.deciles[5] if self.deciles else None


def gain(target: TestScore | None, baseline: TestScore | None) -> Gain:
    """(target − baseline) / baseline on the test set (§4), or why there is none."""
    if target is None or baseline is None:
        return LeftOut.UNSCORED
    if float(baseline) == 0:
        return LeftOut.ZERO_BASELINE
    return (target - baseline) / baseline


def deciles(values: Iterable[float]) -> tuple[float, ...] | None:
    """D0 to D10 with linear interpolation; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return tuple(_decile(ordered, k) for k in range(11))


def _decile(ordered: Sequence[float], k: int) -> float:
    below, tenths = divmod(k * (len(ordered) - 1), 10)
    low = ordered[below]
    return low + (ordered[below + 1] - low) * tenths / 10 if tenths else low


def compare(
    label: str,
    views: Iterable[CaseView],
    in_case: Callable[[CaseView], Gain],
    *,
    figure: int | None = None,
) -> Comparison:
    """The row of the comparison that `in_case` makes in each test case."""
    gains = []
    left_out: dict[LeftOut, int] = {}
    for view in views:
        found = in_case(view)
        if isinstance(found, LeftOut):
            left_out[found] = left_out.get(found, 0) + 1
        else:
            gains.append(CaseGain(case=view.case, gain=found))
    return Comparison(
        figure=figure,
        label=label,
        n=len(gains),
        deciles=deciles(each.gain for each in gains),
        gains=tuple(gains),
        left_out=left_out,
        paper=paper_row(figure, label),
    )
