"""Differences under every seed, and when one is seen: what claims about temperature rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

from kdsearch.analysis.temperature_lines import TemperatureLine, TemperaturePoint

SEEDS = 5
"""Of fewer nothing is told."""
_DIGITS = 12
"""Of a difference: one of equal scores is 0, whatever floats make of it."""
BySeed = tuple[float, ...]
Statistic = Callable[[TemperatureLine, Sequence[float]], BySeed]
"""Of a line at some of its temperatures, ascending; under each seed."""
Made = Callable[[Sequence[float]], BySeed]
"""The same, of one or more lines that are fixed."""


class Verdict(StrEnum):
    """What became of a claim."""

    HELD = "held"
    NOT_HELD = "did not hold"
    OPEN = "cannot be told"
    UNTESTED = "cannot be tested here"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A difference under each seed, in points; above 0 where the claim holds."""

    what: str
    by_seed: BySeed
    two_sided: bool = False
    """Whether one below 0 is the claim's too."""
    of: int = 1
    """Among how many differences it is, where any of them suffices."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return round(fmean(self.by_seed), _DIGITS) + 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, for all differences `of` which it is together
        (Bonferroni); None of a single seed."""
        count = len(self.by_seed)
        if count < 2:
            return None
        from scipy.special import stdtrit  # it takes as long as many a command

        apart = round(stdev(self.by_seed), _DIGITS)
        half = float(stdtrit(count - 1, 1 - 0.025 / self.of)) * apart / math.sqrt(count)
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> Verdict:
        """Whether it was seen."""
        found = self.interval
        if found is None or len(self.by_seed) < SEEDS or found[0] <= 0 <= found[1]:
            return Verdict.OPEN
        return Verdict.HELD if found[0] > 0 or self.two_sided else Verdict.NOT_HELD


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One comparison that a claim is about."""

    where: Mapping[str, Any]
    """The factors that both sides have, and by which comparisons differ."""
    parts: tuple[Paired, ...]
    """All that it takes; nothing while scores are missing."""
    missing: str | None = None
    """Why there is nothing."""

    @property
    def verdict(self) -> Verdict:
        """Of all parts together."""
        return together(self.parts)


def shared_temperatures(*lines: TemperatureLine) -> list[float]:
    """The temperatures at which all of them have scores, ascending."""
    found = set.intersection(*({t for t in line.scored if t is not None} for line in lines))
    return sorted(found)


def _mean_at(line: TemperatureLine, temperatures: Sequence[float]) -> BySeed:
    points = [line.on_points(line.scored[temperature]) for temperature in temperatures]
    return tuple(map(fmean, zip(*points, strict=True)))


def favour(line: TemperatureLine, temperatures: Sequence[float]) -> BySeed:
    """What the large ones have more than the small ones, under each seed."""
    half = len(temperatures) // 2
    return less(_mean_at(line, temperatures[-half:]), _mean_at(line, temperatures[:half]))


def reach(line: TemperatureLine, temperatures: Sequence[float]) -> BySeed:
    """What the best temperature has more than the worst, as the other seeds tell them apart."""
    points = [(line, line.scored[temperature]) for temperature in temperatures]
    return less(picked(points), picked(points, worst=True))


def picked(
    points: Sequence[tuple[TemperatureLine, TemperaturePoint]], *, worst: bool = False
) -> BySeed:
    """Under each seed the test score of the best of some points by validation of the other seeds.

    Picked by the same seed, the best would be the luckiest too: the scores of one training on two
    splits go together, so that there would always be an effect.
    """

    def under(seed: int) -> float:
        pick = min if worst else max
        line, point = pick(points, key=lambda each: by_others(each[1], seed))
        return line.on_points(point)[seed]

    return tuple(under(seed) for seed in range(len(points[0][1].tests)))


def by_others(point: TemperaturePoint, seed: int) -> float:
    """Its mean validation score under the other seeds; of a single seed, under that."""
    scores = point.validations
    return fmean(scores[:seed] + scores[seed + 1 :] or scores)


def less(one: BySeed, other: BySeed) -> BySeed:
    """The differences under each seed."""
    return tuple(a - b for a, b in zip(one, other, strict=True))


def mean_by_seed(*several: BySeed) -> BySeed:
    """Of several scores, or differences, their mean under each seed."""
    return tuple(map(fmean, zip(*several, strict=True)))


def against(line: TemperatureLine, temperatures: Sequence[float]) -> BySeed:
    """What the small ones have more than the large ones."""
    return tuple(-each for each in favour(line, temperatures))


def at_large(line: TemperatureLine, temperatures: Sequence[float]) -> BySeed:
    """The mean over the large ones, under each seed."""
    return _mean_at(line, temperatures[-(len(temperatures) // 2) :])


def apart_by(of: Statistic, one: TemperatureLine, other: TemperatureLine) -> Made:
    """What a statistic of one line has more than that of another."""
    return lambda temperatures: less(of(one, temperatures), of(other, temperatures))


def mean_of(several: Sequence[Made]) -> Made:
    """The mean of statistics."""
    return lambda temperatures: mean_by_seed(*(each(temperatures) for each in several))


def compared(
    lines: Sequence[TemperatureLine], where: Mapping[str, Any], *parts: tuple[str, Made]
) -> Compared:
    """A comparison of lines; of each part what it is, and what makes it of shared temperatures."""
    if any(line.unfinished for line in lines):
        return Compared(where=where, parts=(), missing="trials are not finished")
    temperatures = shared_temperatures(*lines)
    if len(temperatures) < 2:
        return Compared(where=where, parts=(), missing="fewer than two temperatures have scores")
    made = (Paired(what=what, by_seed=make(temperatures)) for what, make in parts)
    return Compared(where=where, parts=tuple(made))


def together(parts: Sequence[Paired]) -> Verdict:
    """Held where every part was, not where one went the other way."""
    verdicts = {part.verdict for part in parts}
    if Verdict.NOT_HELD in verdicts:
        return Verdict.NOT_HELD
    return Verdict.HELD if verdicts == {Verdict.HELD} else Verdict.OPEN
