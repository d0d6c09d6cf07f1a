"""How a search walks a space: pure functions of it and of validation scores.

What they compared is all that is known of them outside: `Progress`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from kdsearch.search.space import Choice, Space, Trial, Value
from kdsearch.search.tuning import Missing, Scores, Tuned, tune

Alternatives = tuple[tuple[Value, Choice], ...]
"""What is compared: values of an axis, or nothing, and the choices that they stand for."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A value that was considered, and the choice it stands for, tuned."""

    value: Value
    """Of the axis; None where whole choices are compared."""
    choice: Choice
    tuned: Tuned


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Candidates that are fully scored. The first is what was held before."""

    axis: str | None
    """What they differ in; None where whole choices are compared."""
    candidates: tuple[Candidate, ...]
    winner: Candidate


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """A comparison that lacks scores."""

    axis: str | None
    alternatives: Alternatives


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search has come."""

    decisions: tuple[Decision, ...]
    comparing: Comparing | None = None
    """What lacks scores; None once the search is finished."""
    wanted: Mapping[Trial, int] = field(default_factory=dict)
    """What it lacks, with how many rounds of trials follow from it on to the search's end."""

    @property
    def finished(self) -> bool:
        """Whether everything is compared."""
        return self.comparing is None

    @property
    def winner(self) -> Candidate:
        """What the search chose; only of a finished one."""
        assert self.finished
        return self.decisions[-1].winner

    def candidates(self) -> Iterator[Candidate]:
        """Every candidate so far, each choice once, in the order of the decisions."""
        found: dict[Choice, Candidate] = {}
        for decision in self.decisions:
            for candidate in decision.candidates:
                found.setdefault(candidate.choice, candidate)
        yield from found.values()

    def decision(self, axis: str) -> Decision | None:
        """That of an axis, or None where it does not exist (yet)."""
        return next((c for c in self.decisions if c.axis == axis), None)


NOT_BEGUN = Progress(decisions=(), comparing=Comparing(axis=None, alternatives=()))
"""Of a search that nothing is known of yet."""


class Strategy(ABC):
    """A way to walk a space, under a `name`. Its subclasses are frozen dataclasses, whose fields
    are its parameters. Raises `ValueError` for a value out of range."""

    name: ClassVar[str]
    flips: ClassVar[bool] = False
    """Whether axes are flipped one by one from their defaults: then alternatives have rewards, and
    there are a stable choice and a lazy one (Table 3, Fig. 3)."""
    named: ClassVar[dict[str, type[Strategy]]] = {}
    """Every strategy there is, by its name."""

    def __init_subclass__(cls, *, name: str) -> None:
        cls.name = name
        Strategy.named[name] = cls

    @abstractmethod
    def __call__(self, space: Space, scores: Scores) -> Progress:
        """How far a search of `space` has come by these scores, in whatever order they came.

        Trials that can run side by side are wanted at once.
        """


def compare(
    space: Space, scores: Scores, axis: str | None, alternatives: Alternatives
) -> Decision | Missing:
    """Tune each alternative, and choose the best: ties keep the earlier one, as held before.

    No score loses to any score.
    """
    candidates: list[Candidate] = []
    missing: dict[Trial, int] = {}
    for value, choice in alternatives:
        tuned = tune(choice, space, scores)
        if isinstance(tuned, Tuned):
            candidates.append(Candidate(value=value, choice=choice, tuned=tuned))
            continue
        for trial, left in tuned.trials.items():
            missing[trial] = max(missing.get(trial, 0), left)
    if missing:
        return Missing(trials=missing)
    return Decision(axis=axis, candidates=tuple(candidates), winner=best_of(candidates))


def best_of(candidates: list[Candidate]) -> Candidate:
    """The candidate of the highest score, the earlier one of equals."""
    winner = candidates[0]
    for candidate in candidates[1:]:
        score, best = candidate.tuned.score, winner.tuned.score
        if score is not None and (best is None or score > best):
            winner = candidate
    return winner
