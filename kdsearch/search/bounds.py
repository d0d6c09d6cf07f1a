"""How many students a test case needs: the fewest and the most, over everything that may happen.

A greedy search's size depends on its results: which value wins, where the best temperature lies,
which trials turn out equal. Failures are left out: they can only make a search shorter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from kdsearch.search.objectives import OF_TERMS, TERMS, TIED
from kdsearch.search.space import (
    CHECKPOINT,
    OBJECTIVE,
    Checkpoint,
    Choice,
    Held,
    Inner,
    Space,
    Trial,
    ValidationScore,
)
from kdsearch.search.stable import LAZY_VALUES
from kdsearch.search.strategies.greedy import alternatives
from kdsearch.search.tuning import NOTHING, Candidate, tune

TrialSet = frozenset[Trial]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The fewest and the most of something."""

    fewest: int
    most: int

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(fewest=self.fewest + other.fewest, most=self.most + other.most)


Coincidence = frozenset[tuple[Checkpoint, Checkpoint]]
"""Checkpoints that are other names of one, each with that one."""
DIFFER: Coincidence = frozenset()


def coincidences(names: Iterable[Checkpoint]) -> tuple[Coincidence, ...]:
    """Every way in which these checkpoints of one training may be the same, first that none is."""
    epochs = [name for name in names if name.epoch is not None]
    others = [name for name in names if name.epoch is None]
    may_be = ((name, *epochs, *others[:place]) for place, name in enumerate(others))
    ways = (dict(zip(others, each, strict=True)) for each in product(*may_be))
    return tuple(
        frozenset((name, one) for name, one in way.items() if name is not one)
        for way in ways
        if all(way.get(one, one) is one for one in way.values())  # which is no other's name itself
    )


def count_bounds(
    space: Space,
    *,
    decided: Held = NOTHING,
    lazy: Choice | None = None,
    coincide: Iterable[Coincidence] = (DIFFER,),
) -> Bounds:
    """The fewest and the most distinct trials of a greedy search.

    `decided` holds the winners that are known already. With the `lazy` choice the second phase is
    counted too: lazy itself, and any choice as the stable one. `coincide` has the ways in which the
    teacher's checkpoints may be the same.
    """
    asked = {
        (
            frozenset(_merged(space, choice, way) for choice in wanted),
            lazy and _merged(space, lazy, way),
        )
        for visited in set(_paths(space, decided))
        for stable in (_stable_choices(space) if lazy is not None else (None,))
        for wanted in (visited | ({stable} if stable else frozenset()),)
        for way in coincide
    }
    counters = {lazy: _Counter(space, lazy) for _, lazy in asked}
    every = [counters[lazy].count(wanted) for wanted, lazy in asked]
    return Bounds(
        fewest=min(bounds.fewest for bounds in every), most=max(bounds.most for bounds in every)
    )


def _merged(space: Space, choice: Choice, way: Coincidence) -> Choice:
    """One choice of all that have the same trials, however they are tuned."""
    one = dict(way).get(choice.get(CHECKPOINT))
    merged = choice if one is None else choice.but(**{CHECKPOINT: one})
    idle = {
        name: space.values(name)[0]
        for name, terms in OF_TERMS.items()
        if name in choice.names and not any(_may_weigh(space, choice, term) for term in terms)
    }
    return merged.but(**idle)


def _may_weigh(space: Space, choice: Choice, term: str) -> bool:
    """Whether a term may have a weight above 0 under a choice."""
    if term in choice.names:
        return bool(choice.get(term))
    return term in space.names and any(space.values(term))


def _paths(space: Space, decided: Held) -> Iterator[frozenset[Choice]]:
    """The choices visited on each way through the decisions that `decided` leaves open."""

    def walk(place: int, held: Held, visited: frozenset[Choice]) -> Iterator[frozenset[Choice]]:
        if place == len(space.compared):
            yield visited
            return
        axis = space.compared[place]
        found = alternatives(space, held, axis)
        if not found:
            yield from walk(place + 1, held, visited)
            return
        seen = visited | {choice for _, choice in found}
        last = place == len(space.compared) - 1
        for value, _ in found[:1] if last else found:
            if last or decided.get(axis.name, value) == value:
                yield from walk(place + 1, {**held, axis.name: value}, seen)

    yield from walk(0, space.defaults(), frozenset())


def _stable_choices(space: Space) -> Iterator[Choice]:
    names = [axis.name for axis in space.voted]
    for values in product(*map(space.values, names)):
        named = zip(names, values, strict=True)
        yield space.choice(space.defaults() | dict(named))


class _Counter:
    """Counts distinct trials. Choices can share some only if they differ in tied axes alone."""

    def __init__(self, space: Space, lazy: Choice | None) -> None:
        self._space = space
        self._lazy = lazy
        self._tied = {axis.name for axis in space.compared if TIED in axis.values}

    def count(self, wanted: frozenset[Choice]) -> Bounds:
        groups: dict[Choice, set[Choice]] = defaultdict(set)
        for choice in wanted:
            groups[self._untied(choice)].add(choice)
        lazy = self._lazy
        lazy_group = None
        if lazy is not None:
            lazy_group = self._untied(lazy)
            groups[lazy_group]  # it may be a group of its own
        total = Bounds(fewest=0, most=0)
        for name, members in groups.items():
            if lazy and name == lazy_group:
                own = tune(lazy, self._space, {}, fixed=LAZY_VALUES)
                assert not isinstance(own, Candidate)
                total += _group(self._space, frozenset(members), frozenset(own))
            else:  # under any values of the other axes there are as many: count them once
                alike = frozenset(map(self._at_defaults, members))
                total += _group(self._space, alike, frozenset())
        return total

    def _untied(self, choice: Choice) -> Choice:
        return Choice(frozenset(pair for pair in choice.values if pair[0] not in self._tied))

    def _at_defaults(self, choice: Choice) -> Choice:
        # A term's weight of 0 has fewer, where what it needs is an axis.
        names = {name for name, _ in choice.values} - self._tied - {OBJECTIVE, *TERMS}
        return choice.but(**{name: self._space.values(name)[0] for name in names})


@lru_cache(maxsize=4096)
def _group(space: Space, members: frozenset[Choice], extra: TrialSet) -> Bounds:
    """The distinct trials of some choices that may share them, and of `extra`."""
    outcomes = [_possible(choice, space) for choice in members]
    outcomes.append(frozenset({extra}))
    everything = [frozenset().union(*sets) for sets in outcomes]
    # What only one member can hold adds up; what several may hold is united.
    reduced: list[set[tuple[int, TrialSet]]] = []
    for i, sets in enumerate(outcomes):
        others = frozenset().union(*(e for j, e in enumerate(everything) if j != i))
        reduced.append({(len(trials - others), trials & others) for trials in sets})
    sizes = [
        sum(own for own, _ in combination)
        + len(frozenset().union(*(shared for _, shared in combination)))
        for combination in product(*reduced)
    ]
    return Bounds(fewest=min(sizes), most=max(sizes))


@lru_cache(maxsize=4096)
def _possible(choice: Choice, space: Space) -> frozenset[TrialSet]:
    """The sets of trials that tuning `choice` may come to, by which values are best."""
    axes = space.tunes(choice)
    every = space.inner is Inner.COORDINATE
    grid = product(
        *(axis.values if every or axis.name == space.refined else axis.values[:1] for axis in axes)
    )
    names = [axis.name for axis in axes]
    return frozenset(
        _tuned_towards(choice, space, dict(zip(names, values, strict=True))) for values in grid
    )


def _tuned_towards(choice: Choice, space: Space, best: Held) -> TrialSet:
    """The trials of `choice` when the best values, of the broad ones, are these."""
    scores: dict[Trial, ValidationScore | None] = {}
    while not isinstance(found := tune(choice, space, scores), Candidate):
        for trial in found:
            hits = sum(trial.get(name) == value for name, value in best.items())
            scores[trial] = ValidationScore(float(hits))
    return frozenset(found.trials)
