"""What each decision of a greedy search brought: its path, from the default to what it chose.

On validation, by which it chose, no step loses: ties keep what was held before, and a candidate
without a score loses to any. On test a step may.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.noise import Noise, Noises
from kdsearch.analysis.scores import candidate_on_test, difference_spread, value_label
from kdsearch.search import Candidate, ValidationScore


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What one candidate's scores have more than another's, as scores are; None of no score."""

    validation: float | None
    test: float | None
    noise: Noise | None
    """Of `test`; None where it is not known, and of what did not change."""
    spread: float | None
    """The standard deviation of `test` between the seeds; None of a single one."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A decision on one axis: the value that won over the one held before."""

    parameter: str
    value: str
    kept: bool
    """Whether it is the one held before."""
    validation: ValidationScore | None
    """Of what is held after it."""
    test: TestScore | None
    gain: Difference


def steps(agenda: Agenda, view: CaseView, noises: Noises) -> tuple[Step, ...]:
    """The path of a case so far; () of a search that compares whole choices."""
    found = []
    for decision in view.progress.decisions:
        if decision.axis is None:
            return ()
        held, winner = decision.candidates[0], decision.winner
        test = candidate_on_test(agenda, view, winner)
        found.append(
            Step(
                parameter=decision.axis,
                value=value_label(decision.axis, winner.value),
                kept=winner is held,
                validation=winner.score,
                test=test.mean if test else None,
                gain=_difference(agenda, view, noises, winner, held),
            )
        )
    return tuple(found)


def over_default(agenda: Agenda, view: CaseView, noises: Noises) -> Difference | None:
    """What the path has brought in all so far; None where there is none."""
    decisions = view.progress.decisions
    if not decisions or decisions[0].axis is None:
        return None
    winner, default = decisions[-1].winner, decisions[0].candidates[0]
    return _difference(agenda, view, noises, winner, default)


def _difference(
    agenda: Agenda, view: CaseView, noises: Noises, target: Candidate, baseline: Candidate
) -> Difference:
    validation = None
    if target.score is not None and baseline.score is not None:
        validation = target.score - baseline.score
    one, other = (candidate_on_test(agenda, view, each) for each in (target, baseline))
    if one is None or other is None:
        return Difference(validation=validation, test=None, noise=None, spread=None)
    same = one.keys == other.keys
    return Difference(
        validation=validation,
        test=one.mean - other.mean,
        noise=None if same else noises.of_difference(one, other),
        spread=difference_spread(one, other),
    )
