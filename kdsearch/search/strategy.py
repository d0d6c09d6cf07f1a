"""How a search walks a space: pure functions of it and of validation scores.

What they decided is all that is known of them outside: `Progress`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from kdsearch.search.space import Choice, Space, Trial, ValidationScore, Value
from kdsearch.search.tuning import Candidate, Scores, Wanted, tune

Alternatives = tuple[tuple[Value, Choice], ...]
"""What is compared: values of an axis, or nothing, and the choices that they stand for."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Candidates, of which the first is what was held before, and the winner."""

    axis: str | None
    """What they differ in; None where whole choices are compared."""
    candidates: tuple[Candidate, ...]
    winner: Candidate


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A decision that lacks scores."""

    axis: str | None
    alternatives: Alternatives


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search has come."""

    decisions: tuple[Decision, ...]
    pending: Pending | None = None
    """The decision that comes next; None once the search is finished."""
    wanted: Wanted = field(default_factory=dict)
    """What it lacks, with the rounds of trials that follow to the search's end."""
    open_rounds: tuple[frozenset[Trial], ...] = ()
    """The same by what waits for it: until one of these is known as a whole, nothing follows but
    that less is lacking. Empty where nothing is said of that."""

    @property
    def finished(self) -> bool:
        """Whether everything is decided."""
        return self.pending is None

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
        return next((each for each in self.decisions if each.axis == axis), None)


NOT_BEGUN = Progress(decisions=(), pending=Pending(axis=None, alternatives=()))
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

    def asks(self, size: int) -> int:
        """How many trials it may ask for in a grid of `size` points, if it flips nothing.

        More than these are its parameters' mistake, and mean all of them.
        """
        return size


def possible(space: Space, strategy: Strategy) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """The first round of a strategy that flips nothing, and every trial that it may ask for.

    The latter is the whole grid if the first round is not its only one.
    """
    first = tuple(strategy(space, {}).wanted)
    if strategy(space, dict.fromkeys(first, ValidationScore(0.0))).finished:
        return first, first
    return first, tuple(trial for choice in space.choices() for trial in space.trials(choice))


def decide(
    space: Space, scores: Scores, axis: str | None, alternatives: Alternatives
) -> Decision | tuple[Wanted, ...]:
    """Tune each alternative, and choose the best: ties keep the earlier one, as held before.

    No score loses to any score. While scores are missing: what each alternative lacks that is not
    tuned yet.
    """
    candidates: list[Candidate] = []
    lacks: list[Wanted] = []
    for value, choice in alternatives:
        found = tune(choice, space, scores)
        if isinstance(found, Candidate):
            candidates.append(replace(found, value=value))
        else:
            lacks.append(found)
    if lacks:
        return tuple(lacks)
    return Decision(axis=axis, candidates=tuple(candidates), winner=best_of(candidates))


def lacking(
    lacks: Iterable[Wanted], pending: Pending, *, decided: Iterable[Decision] = (), later: int = 0
) -> Progress:
    """A walk that stands at `pending`, whose alternatives lack this; `later` rounds follow it."""
    each = tuple(lacks)
    wanted: dict[Trial, int] = {}
    for lack in each:
        for trial, left in lack.items():
            wanted[trial] = max(wanted.get(trial, 0), left + later)
    return Progress(
        decisions=tuple(decided),
        pending=pending,
        wanted=wanted,
        open_rounds=tuple(map(frozenset, each)),
    )


def best_of(candidates: list[Candidate]) -> Candidate:
    """The candidate of the highest score, the earlier one of equals."""
    winner = candidates[0]
    for candidate in candidates[1:]:
        score, best = candidate.score, winner.score
        if score is not None and (best is None or score > best):
            winner = candidate
    return winner
