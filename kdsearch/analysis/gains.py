"""Relative gains over test cases, and their deciles: the rows of Figures 1 to 3.

A comparison that cannot be made in a case is left out of its row with the reason counted; nothing
is ever filled in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from kdsearch.agenda import CaseView
from kdsearch.analysis.noise import Noise, Noises
from kdsearch.analysis.paper import PaperRow, paper_row
from kdsearch.analysis.scores import TestScores, gain_spread
from kdsearch.analysis.statistics import (
    Chance,
    Interval,
    block_of,
    decile_intervals,
    wilcoxon,
)
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
    SMALL_BASELINE = "small_baseline"
    """A gain over less than one row of the test split is worth says nothing: k rows vary by √k."""


class NoGainError(Exception):
    """A case has no such comparison; `reason` says why."""

    def __init__(self, reason: LeftOut) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Relative:
    """A relative gain: that of the mean scores, and what it compares."""

    gain: float
    target: TestScores
    baseline: TestScores
    largest: float
    """The largest score that the metric can give."""

    @property
    def points(self) -> float:
        """The difference in points, of which the largest score has 100."""
        return 100 * float(self.target.mean - self.baseline.mean) / self.largest

    @property
    def spread(self) -> float | None:
        """The standard deviation of the gains under each seed; None of a single seed."""
        return gain_spread(self.target, self.baseline)


@dataclass(frozen=True, kw_only=True)
class CaseGain:
    """The relative gain in one test case."""

    case: TestCase
    gain: float
    points: float
    """The difference of the two scores, of which the largest has 100."""
    spread: float | None
    """The standard deviation of the gain between the seeds; None of a single seed."""
    noise: Noise | None
    """Over test rows, and over seeds where there are several; None where it is not known."""


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
    intervals: tuple[Interval, ...] | None
    """A 95 % bootstrap interval of each decile; None of too few blocks of cases."""
    chance: Chance | None
    """Wilcoxon's signed-rank test that the gains lie around 0; None where none can be below."""
    spread: float | None
    """The median over the cases of the gain's standard deviation between seeds."""
    paper: PaperRow | None
    """The paper's own row."""

    @property
    def interval(self) -> Interval | None:
        """Of the median."""
        return self.intervals[5] if self.intervals else None

    @property
    def median(self) -> float | None:
        """D5."""
        return self.deciles[5] if self.deciles else None


def gain(
    target: TestScores | None,
    baseline: TestScores | None,
    *,
    largest: float,
    least: float = 0.0,
) -> Relative:
    """(target − baseline) / baseline on the test set (§4). Raises `NoGainError`.

    So it does for a baseline below `least`, over which a gain would have no ground. `largest` is
    the largest score of the metric.
    """
    if target is None or baseline is None:
        raise NoGainError(LeftOut.UNSCORED)
    if float(baseline.mean) == 0:
        raise NoGainError(LeftOut.ZERO_BASELINE)
    if baseline.mean < least:
        raise NoGainError(LeftOut.SMALL_BASELINE)
    return Relative(
        gain=(target.mean - baseline.mean) / baseline.mean,
        target=target,
        baseline=baseline,
        largest=largest,
    )


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
    in_case: Callable[[CaseView], Relative],
    noises: Noises,
    *,
    figure: int | None = None,
    maximum: bool = False,
) -> Comparison:
    """The row of the comparison that `in_case` makes in each test case, or raises why not.

    Of a `maximum` over what it is compared with no gain can be below 0.
    """
    gains, blocks = [], []
    left_out: dict[LeftOut, int] = {}
    for view in views:
        try:
            found = in_case(view)
        except NoGainError as error:
            left_out[error.reason] = left_out.get(error.reason, 0) + 1
        else:
            blocks.append(block_of(view))
            gains.append(
                CaseGain(
                    case=view.case,
                    gain=found.gain,
                    points=found.points,
                    spread=found.spread,
                    noise=noises.of_gain(found.target, found.baseline),
                )
            )
    values = [each.gain for each in gains]
    spreads = [each.spread for each in gains if each.spread is not None]
    return Comparison(
        figure=figure,
        label=label,
        n=len(gains),
        deciles=deciles(values),
        gains=tuple(gains),
        left_out=left_out,
        intervals=decile_intervals(values, blocks),
        chance=None if maximum else wilcoxon(values, blocks),
        spread=median(spreads) if spreads else None,
        paper=paper_row(figure, label),
    )
