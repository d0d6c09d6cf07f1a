"""The test scores of what a traversal evaluated, and the candidates of a test case (Figure 1)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

from kdsearch.agenda import Agenda, CaseView, StudentTraining, TestScore
from kdsearch.search import (
    CHECKPOINT,
    OBJECTIVE,
    SYMBOLS,
    Candidate,
    Choice,
    Objective,
    Progress,
    Tuned,
    Value,
    shown_value,
)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A test score under each seed of the study."""

    by_seed: tuple[TestScore, ...]

    @property
    def mean(self) -> TestScore:
        """The score: the mean over the seeds."""
        return TestScore(fmean(self.by_seed))

    @property
    def spread(self) -> float | None:
        """The standard deviation between the seeds; None of a single one."""
        return stdev(self.by_seed) if len(self.by_seed) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A candidate that has a test score: a choice at its tuned τ_t and learning rate."""

    choice: Choice
    key: str
    """Of the training under the first seed."""
    test: Tested


@dataclass(frozen=True, kw_only=True)
class Contenders:
    """The candidates of one finished traversal, in the order in which it came to them."""

    scored: tuple[Contender, ...]
    """Those with a test score; choices whose best student is the same training count once."""
    choices: int
    """How many choices there were, without a score or of the same training ones included."""
    unscored: int
    """How many of the choices have no score."""

    @property
    def comparable(self) -> bool:
        """Whether two choices have a score, so that one can be compared with the other."""
        return self.choices - self.unscored >= 2

    @property
    def best(self) -> Tested | None:
        """The highest test score: known to the analysis alone, never to a search."""
        return max((c.test for c in self.scored), key=_mean, default=None)

    @property
    def worst(self) -> Tested | None:
        """The lowest test score."""
        return min((c.test for c in self.scored), key=_mean, default=None)

    @property
    def expectation(self) -> Tested | None:
        """The mean test score: what a draw gives on average."""
        if not self.scored:
            return None
        seeds = zip(*(c.test.by_seed for c in self.scored), strict=True)
        return Tested(by_seed=tuple(TestScore(fmean(scores)) for scores in seeds))

    def drawn(self, seed: str) -> Tested | None:
        """The test score of a candidate drawn uniformly; one draw per `seed`."""
        return random.Random(seed).choice(self.scored).test if self.scored else None


def _mean(tested: Tested) -> float:
    return tested.mean


def tested(agenda: Agenda, trainings: Iterable[StudentTraining]) -> Tested | None:
    """The test scores of trainings that differ in the seed alone; None where one has none."""
    outcomes = [agenda.results.get(training.key) for training in trainings]
    scores = [outcome.test if outcome else None for outcome in outcomes]
    scored = tuple(score for score in scores if score is not None and math.isfinite(score))
    return Tested(by_seed=scored) if scored and len(scored) == len(scores) else None


def score_on_test(agenda: Agenda, view: CaseView, tuned: Tuned | None) -> Tested | None:
    """The test score of a choice's best trial (best by validation); None if there is none."""
    if tuned is None or tuned.best is None:
        return None
    return tested(agenda, agenda.trainings(view, tuned.best))


def contenders(agenda: Agenda, view: CaseView) -> Contenders | None:
    """The candidates of Figure 1: the choices at the default α and the one of the best α.

    The best α is that of the highest validation score. None while the traversal is unfinished.
    """
    if not view.traversed:
        return None
    found: dict[str, Contender] = {}
    evaluated = {candidate.choice: candidate for candidate in _evaluated(view.progress)}
    unscored = 0
    for choice, candidate in evaluated.items():
        test = score_on_test(agenda, view, candidate.tuned)
        if test is None or candidate.tuned.best is None:
            unscored += 1
            continue
        key = agenda.training(view, candidate.tuned.best).key
        found.setdefault(key, Contender(choice=choice, key=key, test=test))
    return Contenders(scored=tuple(found.values()), choices=len(evaluated), unscored=unscored)


def _evaluated(progress: Progress) -> Iterator[Candidate]:
    for decision in progress.decisions:
        if decision.axis == "alpha":
            yield decision.candidates[0]
            yield decision.winner
        else:
            yield from decision.candidates


def value_label(axis: str, value: Value) -> str:
    """An axis's value as the paper writes it: MSE, t_ll, τ_s = 1, α = 0.5."""
    if axis == OBJECTIVE:
        return Objective.kinds[value].title
    if axis == CHECKPOINT:
        return str(value)
    return f"{SYMBOLS.get(axis, axis)} = {shown_value(value)}"


def over_label(axis: str, target: Value, baseline: Value) -> str:
    """The name of a comparison of two values: MSE over CE."""
    return f"{value_label(axis, target)} over {value_label(axis, baseline)}"
