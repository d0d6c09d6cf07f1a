"""The choice that is stable everywhere, and the lazy baseline (§4, Table 3 and Fig. 3)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdsearch.search.space import Choice, Held, Space, Value
from kdsearch.search.strategy import Progress

LAZY_TEMPERATURE = 1.0
LAZY_VALUES: Held = {"temperature": LAZY_TEMPERATURE}
"""τ_t of the lazy baseline, which does not tune it."""


_DRAWN_FIRST = ("teacher", "distance", "student_temperature")
"""In this order, whatever that of the search is."""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """How often an alternative beat its default by validation score (Table 3)."""

    axis: str
    default: Value
    alternative: Value
    better: int
    worse: int
    equal: int
    unscored: int
    """Cases left out since one side, or both, has no score."""

    @property
    def reward(self) -> int:
        """R = (cases where it is better) − (cases where it is worse)."""
        return self.better - self.worse


def rewards(searches: Sequence[Progress], axes: Iterable[str]) -> tuple[Reward, ...]:
    """The reward of each alternative to a default, over the decisions that exist."""
    found = []
    for axis in axes:
        decisions = [d for s in searches if (d := s.decision(axis)) is not None]
        pairs: dict[tuple[Value, Value], list[int | None]] = {}
        for decision in decisions:
            default = decision.candidates[0]
            for alternative in decision.candidates[1:]:
                a, b = alternative.score, default.score
                sign = None if a is None or b is None else (a > b) - (a < b)
                pairs.setdefault((default.value, alternative.value), []).append(sign)
        found += [
            Reward(
                axis=axis,
                default=default_value,
                alternative=value,
                better=signs.count(1),
                worse=signs.count(-1),
                equal=signs.count(0),
                unscored=signs.count(None),
            )
            for (default_value, value), signs in pairs.items()
        ]
    return tuple(found)


def stable_values(found: Iterable[Reward]) -> dict[str, Value]:
    """For each axis with a reward above 0, the alternative of the highest one.

    Axes are assumed independent. R = 0 keeps the default; so does α, which stays 1.
    """
    values: dict[str, tuple[int, Value]] = {}
    for reward in found:
        if reward.reward > values.get(reward.axis, (0, None))[0]:
            values[reward.axis] = (reward.reward, reward.alternative)
    return {axis: value for axis, (_, value) in values.items()}


def stable_choice(space: Space, values: Held) -> Choice:
    """The stable configuration in `space`, which may lack a value (a teacher of one checkpoint)."""
    known = {axis: value for axis, value in values.items() if axis in space.names}
    there = {axis: value for axis, value in known.items() if value in space.values(axis)}
    return space.choice(space.defaults() | there)


def lazy_choice(space: Space, seed: str) -> Choice:
    """Every axis but α, which has its default, drawn uniformly; one draw per `seed`."""
    draw = random.Random(seed)
    held = space.defaults()
    names = [axis.name for axis in space.voted]
    first = [name for name in _DRAWN_FIRST if name in names]
    for axis in dict.fromkeys((*first, *sorted(names))):
        held[axis] = draw.choice(space.values(axis))
    return space.choice(held)
