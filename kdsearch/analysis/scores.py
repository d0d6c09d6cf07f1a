"""Test scores: of trainings, of a candidate, and of the candidates of a test case (Figure 1)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev

from kdsearch.agenda import Agenda, CaseView, TestScore, Training
from kdsearch.search import (
    CHECKPOINT,
    OBJECTIVE,
    SYMBOLS,
    Candidate,
    Decision,
    Objective,
    Progress,
    Trial,
    Value,
    best_trial,
    shown_value,
)
from kdsearch.study import SPECS


@dataclass(frozen=True, kw_only=True)
class TestScores:
    """The test score under each seed of the study."""

    by_seed: tuple[TestScore, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    """Of the trainings whose mean it is under each seed: one, but for an expectation; () where
    there are none."""

    @property
    def mean(self) -> TestScore:
        """The score: the mean over the seeds."""
        return TestScore(fmean(self.by_seed))

    @property
    def spread(self) -> float | None:
        """The standard deviation between the seeds; None of a single one."""
        return stdev(self.by_seed) if len(self.by_seed) > 1 else None


@dataclass(frozen=True, kw_only=True)
class CaseCandidates:
    """The candidates of a finished traversal that Figures 1 and 3 compare, by their test scores."""

    scored: tuple[TestScores, ...]
    """In the order of the traversal; choices whose best student is the same training count once."""
    choices: int
    """How many choices there are, without a score or of the same training ones included."""
    unscored: int
    """How many of the choices have no score."""

    @property
    def comparable(self) -> bool:
        """Whether two choices have a score, so that one can be compared with the other."""
        return self.choices - self.unscored >= 2

    @property
    def best(self) -> TestScores | None:
        """The highest test score: known to the analysis alone, never to a search."""
        return max(self.scored, key=_mean, default=None)

    @property
    def worst(self) -> TestScores | None:
        """The lowest test score."""
        return min(self.scored, key=_mean, default=None)

    @property
    def expectation(self) -> TestScores | None:
        """The mean test score: what a draw gives on average."""
        if not self.scored:
            return None
        seeds = zip(*(test.by_seed for test in self.scored), strict=True)
        keys = zip(*(test.keys for test in self.scored), strict=True)
        return TestScores(
            by_seed=tuple(TestScore(fmean(scores)) for scores in seeds),
            keys=tuple(tuple(chain(*each)) for each in keys),
        )

    def drawn(self, seed: str) -> TestScores | None:
        """The test score of a candidate drawn uniformly; one draw per `seed`."""
        return random.Random(seed).choice(self.scored) if self.scored else None


def leading_trial(agenda: Agenda, view: CaseView) -> Trial | None:
    """What a case chose; while its search goes on, the best by validation so far."""
    if view.traversed:
        return view.chosen
    scored = agenda.scored(view)
    return best_trial(scored, scored)


def _mean(test: TestScores) -> float:
    return test.mean


def gain_spread(target: TestScores, baseline: TestScores) -> float | None:
    """The standard deviation of the gains under each seed; None of a single one, or over 0."""
    pairs = list(zip(target.by_seed, baseline.by_seed, strict=True))
    several = len(pairs) > 1 and all(baseline.by_seed)
    return stdev((t - b) / b for t, b in pairs) if several else None


def difference_spread(target: TestScores, baseline: TestScores) -> float | None:
    """The standard deviation of the differences under each seed; None of a single one.

    A side with one seed, as a teacher has, goes with all of the other's.
    """
    sides = (target.by_seed, baseline.by_seed)
    seeds = max(map(len, sides))
    pairs = zip(*(side * (seeds // len(side)) for side in sides), strict=True)
    return stdev(t - b for t, b in pairs) if seeds > 1 else None


def on_test(agenda: Agenda, trainings: Iterable[Training]) -> TestScores | None:
    """The test scores of trainings that differ in the seed alone; None where one has none."""
    keys = [training.key for training in trainings]
    outcomes = [agenda.results.get(key) for key in keys]
    scores = [outcome.test if outcome else None for outcome in outcomes]
    scored = tuple(score for score in scores if score is not None and math.isfinite(score))
    if not scored or len(scored) < len(scores):
        return None
    return TestScores(by_seed=scored, keys=tuple((key,) for key in keys))


def candidate_on_test(agenda: Agenda, view: CaseView, candidate: Candidate) -> TestScores | None:
    """The test scores of a candidate's best trial (best by validation); None if there is none."""
    return on_test(agenda, agenda.trainings(view, candidate.best)) if candidate.best else None


def tied_trials(agenda: Agenda, view: CaseView, candidate: Candidate) -> int:
    """How many trainings of a candidate share its validation score; 0 without one.

    More than one were told apart by their order alone.
    """
    if candidate.score is None:
        return 0
    found = set()
    for trial in candidate.trials:
        first, *_ = trainings = agenda.trainings(view, trial)
        outcomes = [agenda.results.get(training.key) for training in trainings]
        scores = [o.validation for o in outcomes if o is not None and o.validation is not None]
        if len(scores) == len(outcomes) and fmean(scores) == candidate.score:
            found.add(first.key)
    return len(found)


def tied_candidates(agenda: Agenda, view: CaseView, decision: Decision) -> int:
    """How many trainings of a decision's candidates share its winner's score; 0 without one."""
    score = decision.winner.score
    bests = [c.best for c in decision.candidates if c.score == score]
    return len({agenda.training(view, best).key for best in bests if best is not None})


def case_candidates(agenda: Agenda, view: CaseView) -> CaseCandidates | None:
    """The candidates of Figure 1: the choices at the default α and the one of the best α.

    The best α is that of the highest validation score. None while the traversal is unfinished.
    """
    if not view.traversed:
        return None
    scored: dict[str, TestScores] = {}
    candidates = {candidate.choice: candidate for candidate in _of_figure_1(view.progress)}
    unscored = 0
    for candidate in candidates.values():
        test = candidate_on_test(agenda, view, candidate)
        if test is None or candidate.best is None:
            unscored += 1
            continue
        scored.setdefault(agenda.training(view, candidate.best).key, test)
    return CaseCandidates(scored=tuple(scored.values()), choices=len(candidates), unscored=unscored)


def _of_figure_1(progress: Progress) -> Iterator[Candidate]:
    for decision in progress.decisions:
        if decision.axis == "alpha":
            yield decision.candidates[0]
            yield decision.winner
        else:
            yield from decision.candidates


def points(task: str, target: float, baseline: float) -> float:
    """What a score has more than another, in points of which the largest score has 100."""
    return 100 * (target - baseline) / SPECS[task].largest_score


def row_worth(agenda: Agenda, view: CaseView) -> float:
    """What one row of a case's test split is worth: the largest score over the number of rows.

    So it is of accuracy and exact match. Of the other metrics it is a yardstick: what lies within
    it is no difference that the split can tell.
    """
    data = agenda.resolved.datasets[view.case.dataset]
    return SPECS[data.task].largest_score / max(data.splits["test"].rows, 1)


def score_digits(agenda: Agenda, view: CaseView) -> int:
    """How many decimals a score of a test case is shown with: as many as one row's worth has.

    A likelihood is no share of rows, and small.
    """
    if agenda.resolved.datasets[view.case.dataset].metric == "likelihood":
        return 4
    return max(1, math.ceil(-math.log10(row_worth(agenda, view))))


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
