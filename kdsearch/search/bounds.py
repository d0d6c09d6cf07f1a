"""How many students a test case needs: the fewest and the most, over everything that may happen.

A traversal's size depends on its results: which value wins, where the best temperature lies,
which configurations turn out equal. Failures are left out: they can only make a search shorter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from kdsearch.search.configuration import (
    Checkpoint,
    Choice,
    Parameter,
    ParameterValue,
    Trial,
    ValidationScore,
)
from kdsearch.search.inner import Evaluate, tune
from kdsearch.search.space import Held, Inner, Space, choice_of
from kdsearch.search.stable import LAZY_TEMPERATURE
from kdsearch.search.traversal import next_stage

TrialSet = frozenset[Trial]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The fewest and the most of something."""

    fewest: int
    most: int

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(fewest=self.fewest + other.fewest, most=self.most + other.most)


def count_bounds(
    space: Space,
    *,
    decided: Mapping[Parameter, ParameterValue] | None = None,
    lazy: Choice | None = None,
    coincide: bool | None = False,
) -> Bounds:
    """The fewest and the most distinct trials of a traversal.

    `decided` holds the winners that are known already. With the `lazy` choice the second phase is
    counted too: lazy itself, and any choice as the stable one. `coincide`: whether the two teacher
    checkpoints are one; None while only the teacher's training can tell.
    """
    counter = _Counter(space, lazy)
    every: list[Bounds] = []
    for visited in set(_paths(space, decided or {})):
        for stable in _stable_choices(space) if lazy is not None else (None,):
            wanted = visited | ({stable} if stable else frozenset())
            if coincide is not True:
                every.append(counter.count(wanted))
            if coincide is not False:
                merged = {replace(c, teacher=Checkpoint.HIGHEST_SCORE) for c in wanted}
                every.append(counter.count(frozenset(merged), coincide=True))
    return Bounds(
        fewest=min(bounds.fewest for bounds in every), most=max(bounds.most for bounds in every)
    )


def _paths(
    space: Space, decided: Mapping[Parameter, ParameterValue]
) -> Iterator[frozenset[Choice]]:
    """The choices visited on each way through the stages that `decided` leaves open."""

    def walk(
        order: tuple[Parameter, ...], held: Held, visited: frozenset[Choice]
    ) -> Iterator[frozenset[Choice]]:
        if not order:
            yield visited
            return
        stage = next_stage(space, held, order[0])
        if stage is None:
            yield from walk(order[1:], held, visited)
            return
        seen = visited | {choice for _, choice in stage.candidates}
        last = order[0] is Parameter.ALPHA
        for value, _ in stage.candidates[:1] if last else stage.candidates:
            if last or decided.get(order[0], value) == value:
                yield from walk(order[1:], {**held, order[0]: value}, seen)

    yield from walk((*space.order, Parameter.ALPHA), space.defaults(), frozenset())


def _stable_choices(space: Space) -> Iterator[Choice]:
    for values in product(*(space.values(parameter) for parameter in space.order)):
        yield choice_of(space.defaults() | dict(zip(space.order, values, strict=True)))


class _Counter:
    """Counts distinct trials. Only choices of one distance, teacher and α can share any."""

    def __init__(self, space: Space, lazy: Choice | None) -> None:
        self._space = space
        self._lazy = lazy

    def count(self, wanted: frozenset[Choice], *, coincide: bool = False) -> Bounds:
        groups: dict[tuple[object, ...], set[Choice]] = defaultdict(set)
        for choice in wanted:
            groups[choice.distance, choice.teacher, choice.alpha].add(choice)
        lazy = self._lazy
        lazy_group = None
        if lazy is not None:
            if coincide:
                lazy = replace(lazy, teacher=Checkpoint.HIGHEST_SCORE)
            lazy_group = (lazy.distance, lazy.teacher, lazy.alpha)
            groups[lazy_group]  # it may be a group of its own
        total = Bounds(fewest=0, most=0)
        for name, members in groups.items():
            if lazy and name == lazy_group:
                total += _group(self._space, frozenset(members), self._lazy_trials(lazy))
            else:  # of any teacher and α there are as many: count them once
                alike = {replace(c, teacher=Checkpoint.HIGHEST_SCORE, alpha=1.0) for c in members}
                total += _group(self._space, frozenset(alike), frozenset())
        return total

    def _lazy_trials(self, lazy: Choice) -> TrialSet:
        temperature = LAZY_TEMPERATURE if lazy.has_temperature else None
        return frozenset(
            Trial(configuration=lazy.at(temperature), learning_rate=rate)
            for rate in self._space.learning_rates
        )


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
    """The sets of trials that tuning `choice` may come to, by which (τ_t, rate) is best."""
    rates = space.learning_rates if space.inner is Inner.COORDINATE else space.learning_rates[:1]
    temperatures = space.broad if choice.has_temperature else space.broad[:1]
    return frozenset(
        _tuned_towards(choice, space, rate, temperature)
        for rate, temperature in product(rates, temperatures)
    )


def _tuned_towards(choice: Choice, space: Space, rate: float, temperature: float) -> TrialSet:
    """The trials of `choice` when the best learning rate and broad temperature are these."""
    scores: dict[Trial, ValidationScore | None] = {}
    while isinstance(step := tune(choice, space, scores), Evaluate):
        for trial in step.missing:
            hits = (trial.learning_rate == rate) + (trial.configuration.temperature == temperature)
            scores[trial] = ValidationScore(float(hits))
    return frozenset(step.trials)
