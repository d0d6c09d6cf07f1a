"""The test scores of what a traversal evaluated, and the candidates of a test case (Figure 1)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.search import Candidate, Choice, Parameter, ParameterValue, Traversal, Tuned


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A candidate that has a test score: a choice at its tuned τ_t and learning rate."""

    choice: Choice
    key: str
    test: TestScore


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
    def best(self) -> TestScore | None:
        """The highest test score: known to the analysis alone, never to a search."""
        return max((contender.test for contender in self.scored), default=None)

    @property
    def worst(self) -> TestScore | None:
        """The lowest test score."""
        return min((contender.test for contender in self.scored), default=None)

    @property
    def expectation(self) -> TestScore | None:
        """The mean test score: what a draw gives on average."""
        return TestScore(fmean(c.test for c in self.scored)) if self.scored else None

    def drawn(self, seed: str) -> TestScore | None:
        """The test score of a candidate drawn uniformly; one draw per `seed`."""
        return random.Random(seed).choice(self.scored).test if self.scored else None


def score_on_test(agenda: Agenda, view: CaseView, tuned: Tuned | None) -> TestScore | None:
    """The test score of a choice's best trial (best by validation); None if there is none."""
    if tuned is None or tuned.best is None:
        return None
    outcome = agenda.results.get(agenda.training(view, tuned.best).key)
    if outcome is None or outcome.test is None or not math.isfinite(outcome.test):
        return None
    return outcome.test


def contenders(agenda: Agenda, view: CaseView) -> Contenders | None:
    """The candidates of Figure 1: the choices at the default α and the one of the best α.

    The best α is that of the highest validation score. None while the traversal is unfinished.
    """
    if view.traversal is None or not view.traversal.finished:
        return None
    found: dict[str, Contender] = {}
    evaluated = {candidate.choice: candidate for candidate in _evaluated(view.traversal)}
    unscored = 0
    for choice, candidate in evaluated.items():
        test = score_on_test(agenda, view, candidate.tuned)
        if test is None or candidate.tuned.best is None:
            unscored += 1
            continue
        key = agenda.training(view, candidate.tuned.best).key
        found.setdefault(key, Contender(choice=choice, key=key, test=test))
    return Contenders(scored=tuple(found.values()), choices=len(evaluated), unscored=unscored)


def _evaluated(traversal: Traversal) -> Iterator[Candidate]:
    for decision in traversal.decisions:
        if decision.parameter is Parameter.ALPHA:
            yield decision.candidates[0]
            yield decision.winner
        else:
            yield from decision.candidates


def value_label(parameter: Parameter, value: ParameterValue) -> str:
    """A parameter's value as the paper writes it: MSE, t_ll, τ_s = 1, α = 0.5."""
    if parameter is Parameter.DISTANCE:
        return str(value).upper()
    if parameter is Parameter.TEACHER:
        return str(value)
    symbol = "α" if parameter is Parameter.ALPHA else "τ_s"
    return f"{symbol} = τ_t" if isinstance(value, str) else f"{symbol} = {value:g}"


def over_label(parameter: Parameter, target: ParameterValue, baseline: ParameterValue) -> str:
    """The name of a comparison of two values: MSE over CE."""
    return f"{value_label(parameter, target)} over {value_label(parameter, baseline)}"
