"""How far a difference of two test scores may lie from what other test rows and seeds would give.

A paired bootstrap: both sides of a difference are scored on the same draws of the test rows, so
that what is hard for both cancels out (Efron & Tibshirani 1993; Berg-Kirkpatrick et al. 2012). Rows
that belong together, such as the questions about one context or those that a study's own column
puts together, are drawn together. Where each side
is a mean over seeds, the variance between these is added, less what the draws of rows have of it:
the variance components of rows crossed with seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.agenda import Agenda, Outcome
from kdsearch.analysis.row_scores import Columns, Floats, RowScores, row_scores
from kdsearch.analysis.scores import TestScores, difference_spread, gain_spread
from kdsearch.errors import InputError
from kdsearch.study import SPECS, Row, largest_score

DRAWS = 1_000
DEVIATIONS = 2
"""So many standard deviations a difference must have, to be more than noise."""
_AT_ONCE = 25
"""So many draws' weights are held as floats."""
_ROUNDING = 1e-9
"""Of a score, as a share of the largest: rows that give another one are not its own."""


class NoiseOf(StrEnum):
    """What a difference was drawn over."""

    ROWS = "rows"
    """Of the test split."""
    BOTH = "rows and seeds"
    SEEDS = "seeds"
    """The rows are not known."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The standard deviation of a gain, or of a share, over what it was drawn over."""

    deviation: float
    of: NoiseOf


class Noises:
    """The noise of gains in a study, as far as its test rows are known.

    `columns` gives what is kept of the rows behind an outcome's test score, None where nothing is;
    `rows` gives what is kept of a split by its digest, its data or the numbers of its groups, from
    which follows what belongs together. It raises `InputError` or `OSError` where they cannot be
    read.
    """

    def __init__(
        self,
        agenda: Agenda,
        columns: Callable[[Outcome], Columns | None] = lambda outcome: None,
        rows: Callable[[str], Sequence[Row]] = lambda digest: (),
    ) -> None:
        self._agenda, self._columns, self._rows = agenda, columns, rows
        self._groups = cache(self._group)
        datasets = agenda.resolved.datasets.values()
        self._numbered: dict[str, set[str | None]] = defaultdict(set)
        """Of each test split, by which column of the study its rows are grouped, if by any."""
        for each in datasets:
            self._numbered[each.splits["test"].digest].add(each.test_groups)
        self._weights = lru_cache(maxsize=2)(draw_weights)  # a case's rows are met together
        self._drawn = cache(self._draw)

    def of_gain(self, target: TestScores, baseline: TestScores) -> Noise | None:
        """That of (target − baseline) / baseline, of a baseline above 0; None where not known.

        It is not guessed from the scores alone: how the errors of two models go together can only
        be seen row by row.
        """
        # To first order, since a draw may have a baseline of 0.
        found = self._of_sum((1.0, target), (-float(target.mean / baseline.mean), baseline))
        if found is None:
            return _between_seeds(gain_spread(target, baseline), target, baseline)
        return replace(found, deviation=found.deviation / float(baseline.mean))

    def of_difference(self, target: TestScores, baseline: TestScores) -> Noise | None:
        """That of target − baseline, in the metric's own units; None where not known."""
        found = self._of_sum((1.0, target), (-1.0, baseline))
        return found or _between_seeds(difference_spread(target, baseline), target, baseline)

    def of_share(self, student: TestScores, erm: TestScores, teacher: TestScores) -> Noise | None:
        """That of (student − erm) / (teacher − erm), of a teacher above `erm`, to first order.

        None where rows are not known. A teacher has one seed: another teacher may lie elsewhere.
        """
        gap = float(teacher.mean - erm.mean)
        share = float(student.mean - erm.mean) / gap
        found = self._of_sum((1.0, student), (share - 1, erm), (-share, teacher))
        return found and replace(found, deviation=found.deviation / gap)

    def _of_sum(self, *parts: tuple[float, TestScores]) -> Noise | None:
        """That of a sum of scores times weights; one of a single seed goes with all of another's.

        None where the rows of any are not known.
        """
        drawn: Floats = np.zeros((1, 1))
        observed: Floats = np.zeros(1)
        for weight, tested in parts:
            by_seed = self._by_seed(tested)
            if len(by_seed) < len(tested.by_seed):
                return None
            drawn = drawn + weight * np.stack(by_seed, axis=1)
            observed = observed + weight * np.array(tested.by_seed)
        variance = difference_variance(drawn, observed)
        of = NoiseOf.BOTH if len(observed) > 1 else NoiseOf.ROWS
        return Noise(deviation=math.sqrt(variance), of=of)

    def _by_seed(self, tested: TestScores) -> list[Floats]:
        """The score under each seed on each draw of the rows, [D]; of those that are known."""
        known = []
        for keys in tested.keys:
            drawn = [found for key in keys if (found := self._drawn(key)) is not None]
            if len(drawn) == len(keys):
                known.append(np.mean(drawn, axis=0))
        return known

    def _draw(self, key: str) -> Floats | None:
        """[D]: the test score of a training on each draw of the rows; None if not known."""
        outcome = self._agenda.results.get(key)
        columns = self._columns(outcome) if outcome else None
        if outcome is None or outcome.test is None or columns is None:
            return None
        data = outcome.training.data
        groups = self._groups(data.task, data.test)
        try:
            found = row_scores(columns, data)
            if groups is None or found.terms.shape[0] != len(groups):
                return None
            # Of other rows than the outcome's score they would be someone else's.
            score = float(found.of_sums(np.ones(len(groups))))
        except (KeyError, TypeError, ValueError, OverflowError):  # a folder may come from anyone
            return None
        if not abs(score - outcome.test) <= _ROUNDING * largest_score(data.metric):
            return None
        by_group = RowScores(terms=_summed(found.terms, groups), score=found.score)
        weights = self._weights(by_group.terms.shape[0])
        parts = np.array_split(weights, DRAWS // _AT_ONCE)
        return np.concatenate([by_group.of_sums(part.astype(np.float64)) for part in parts])

    def _group(self, task: str, digest: str) -> npt.NDArray[np.int64] | None:
        """[N]: the number of each test row's group; None where that cannot be told."""
        several = self._numbered.get(digest, {None})
        if len(several) > 1:  # one training is in data sets that group its rows differently
            return None
        [numbered] = several
        group_of = SPECS[task].group if numbered is None else itemgetter("group")
        numbers: dict[object, int] = {}
        try:
            rows = self._rows(numbered or digest)
            return np.array([numbers.setdefault(group_of(row), len(numbers)) for row in rows])
        except (InputError, OSError, KeyError, TypeError):  # a folder may come from anyone
            return None


def _between_seeds(spread: float | None, *sides: TestScores) -> Noise | None:
    """That of a mean over the seeds of `sides`, from the `spread` between them."""
    if spread is None:
        return None
    seeds = max(len(side.by_seed) for side in sides)
    return Noise(deviation=spread / math.sqrt(seeds), of=NoiseOf.SEEDS)


def draw_weights(groups: int) -> npt.NDArray[np.uint8]:
    """[D, groups]: how often each is drawn where as many as there are are drawn with replacement.

    Seeded: the same for all that is compared.
    """
    draw = np.random.default_rng(0)
    weights = np.empty((DRAWS, groups), dtype=np.uint8)
    for row in weights:
        row[:] = np.bincount(draw.integers(groups, size=groups), minlength=groups)
    return weights


def difference_variance(drawn: Floats, observed: Floats) -> float:
    """The variance of a mean over seeds: `drawn` [D, S] on draws of the rows, `observed` [S].

    What rows and seeds have together is in the variance over the draws already, so that it is taken
    out of that between the seeds.
    """
    seeds = len(observed)
    variance = float(np.var(drawn.mean(axis=1)))
    if seeds > 1:
        together = float(np.var(drawn - observed, axis=1, ddof=1).mean())
        variance += max(0.0, float(np.var(observed, ddof=1)) - together) / seeds
    return variance


def _summed(terms: Any, groups: npt.NDArray[np.int64]) -> Any:
    """[groups, K]: terms summed over the rows of each group."""
    from scipy.sparse import csr_array

    where = (groups, np.arange(len(groups)))
    return csr_array((np.ones(len(groups)), where), shape=(groups.max() + 1, len(groups))) @ terms
