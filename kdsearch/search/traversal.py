"""The greedy traversal of one test case (§3): one parameter at a time, then α."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdsearch.search.configuration import Choice, Distance, Parameter, ParameterValue, Trial
from kdsearch.search.inner import Evaluate, Scores, Tuned, rounds, tune
from kdsearch.search.space import Held, Space, choice_of


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A value that a stage considered, and the choice it stands for, tuned."""

    value: ParameterValue
    choice: Choice
    tuned: Tuned


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The values that one step compares: the value held first, then its alternatives."""

    parameter: Parameter
    candidates: tuple[tuple[ParameterValue, Choice], ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A stage that is fully scored. The first candidate is the value that was held before."""

    parameter: Parameter
    candidates: tuple[Candidate, ...]
    winner: Candidate


@dataclass(frozen=True, kw_only=True)
class Traversal:
    """How far a traversal has come: its decisions, and the stage that lacks scores, if any."""

    decisions: tuple[Decision, ...]
    stage: Stage | None
    held: Held
    missing: Evaluate | None
    """Of that stage; its rounds are counted to the traversal's end."""

    @property
    def finished(self) -> bool:
        """Whether every stage is decided."""
        return self.missing is None

    @property
    def winner(self) -> Candidate:
        """The candidate that the last stage chose; only of a finished traversal."""
        assert self.finished
        return self.decisions[-1].winner

    def candidates(self) -> Iterator[Candidate]:
        """Every candidate evaluated so far, each choice once, in the order of the stages."""
        seen = set()
        for decision in self.decisions:
            for candidate in decision.candidates:
                if candidate.choice not in seen:
                    seen.add(candidate.choice)
                    yield candidate

    def decision(self, parameter: Parameter) -> Decision | None:
        """The decision on `parameter`, or None where the comparison does not exist (yet)."""
        return next((d for d in self.decisions if d.parameter is parameter), None)


def traverse(space: Space, scores: Scores) -> Traversal:
    """Walk the stages as far as `scores` reach; stop at the first that lacks one.

    All candidates of a stage are wanted at once: none waits for another.
    """
    held = space.defaults()
    decisions: list[Decision] = []
    for parameter in (*space.order, Parameter.ALPHA):
        stage = next_stage(space, held, parameter)
        if stage is None:
            continue
        candidates = []
        missing: list[Evaluate] = []
        for value, choice in stage.candidates:
            tuned = tune(choice, space, scores)
            if isinstance(tuned, Evaluate):
                missing.append(tuned)
            else:
                candidates.append(Candidate(value=value, choice=choice, tuned=tuned))
        if missing:
            later = rounds_after(space, held, parameter)
            wanted: dict[Trial, int] = {}
            for part in missing:
                for trial, left in part.missing.items():
                    wanted[trial] = max(wanted.get(trial, 0), left + later)
            return Traversal(
                decisions=tuple(decisions),
                stage=stage,
                held=held,
                missing=Evaluate(missing=wanted),
            )
        winner = _best(candidates)
        decisions.append(Decision(parameter=parameter, candidates=tuple(candidates), winner=winner))
        held = {**held, parameter: winner.value}
    return Traversal(decisions=tuple(decisions), stage=None, held=held, missing=None)


def next_stage(space: Space, held: Held, parameter: Parameter) -> Stage | None:
    """The stage of `parameter`, or None where there is nothing to compare.

    That is a parameter of one value, and one that is inactive under what is held. The α stage is
    always walked, so that a grid of one point is evaluated too.
    """
    inactive = (
        parameter is Parameter.STUDENT_TEMPERATURE and held[Parameter.DISTANCE] is Distance.MSE
    )
    values = space.values(parameter)
    if parameter is not Parameter.ALPHA and (inactive or len(values) == 1):
        return None
    return Stage(
        parameter=parameter,
        candidates=tuple((value, choice_of({**held, parameter: value})) for value in values),
    )


def rounds_after(space: Space, held: Held, parameter: Parameter) -> int:
    """How many rounds of trials follow the stage of `parameter`, if what is held stays.

    What is held was tuned before; its alternatives are tuned side by side.
    """
    parameters = (*space.order, Parameter.ALPHA)
    later = parameters[parameters.index(parameter) + 1 :]
    stages = (stage for p in later if (stage := next_stage(space, held, p)) is not None)
    return sum(
        max((rounds(choice, space) for _, choice in stage.candidates[1:]), default=0)
        for stage in stages
    )


def traversal_rounds(space: Space) -> int:
    """How many rounds of trials follow one another in a traversal that keeps the defaults."""
    missing = traverse(space, {}).missing
    assert missing is not None  # α is always walked
    return max(missing.missing.values())


def _best(candidates: list[Candidate]) -> Candidate:
    """The highest score wins, ties keep the earlier one, no score loses to any score."""
    winner = candidates[0]
    for candidate in candidates[1:]:
        score, best = candidate.tuned.score, winner.tuned.score
        if score is not None and (best is None or score > best):
            winner = candidate
    return winner
