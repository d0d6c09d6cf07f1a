"""The configuration that is stable everywhere, and the lazy baseline (§4, Table 3 and Fig. 3)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdsearch.search.configuration import Choice, Parameter, ParameterValue
from kdsearch.search.space import Held, Space, choice_of
from kdsearch.search.traversal import Traversal

LAZY_TEMPERATURE = 1.0
"""τ_t of the lazy baseline, which does not tune it."""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """How often an alternative beat its default by validation score (Table 3)."""

    parameter: Parameter
    default: ParameterValue
    alternative: ParameterValue
    better: int
    worse: int
    equal: int
    unscored: int
    """Comparisons left out since one side, or both, has no score."""

    @property
    def reward(self) -> int:
        """R = (cases where it is better) − (cases where it is worse)."""
        return self.better - self.worse


def rewards(traversals: Sequence[Traversal], order: Iterable[Parameter]) -> tuple[Reward, ...]:
    """The reward of each alternative to a default, over the comparisons that exist."""
    found = []
    for parameter in order:
        decisions = [d for t in traversals if (d := t.decision(parameter)) is not None]
        pairs: dict[tuple[ParameterValue, ParameterValue], list[int | None]] = {}
        for decision in decisions:
            default = decision.candidates[0]
            for alternative in decision.candidates[1:]:
                a, b = alternative.tuned.score, default.tuned.score
                sign = None if a is None or b is None else (a > b) - (a < b)
                pairs.setdefault((default.value, alternative.value), []).append(sign)
        found += [
            Reward(
                parameter=parameter,
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


def stable_values(found: Iterable[Reward]) -> dict[Parameter, ParameterValue]:
    """For each parameter with a reward above 0, the alternative of the highest one.

    Parameters are assumed independent. R = 0 keeps the default; so does α, which stays 1.
    """
    values: dict[Parameter, tuple[int, ParameterValue]] = {}
    for reward in found:
        if reward.reward > values.get(reward.parameter, (0, None))[0]:
            values[reward.parameter] = (reward.reward, reward.alternative)
    return {parameter: value for parameter, (_, value) in values.items()}


def stable_choice(space: Space, values: Mapping[Parameter, ParameterValue]) -> Choice:
    """The stable choice in `space`, which may lack a value (a teacher of one checkpoint)."""
    held: Held = space.defaults() | {
        parameter: value for parameter, value in values.items() if value in space.values(parameter)
    }
    return choice_of(held)


def lazy_choice(space: Space, seed: str) -> Choice:
    """Teacher, distance and τ_s drawn uniformly, α at its default; one draw per `seed`."""
    draw = random.Random(seed)
    held = space.defaults()
    for parameter in (Parameter.TEACHER, Parameter.DISTANCE, Parameter.STUDENT_TEMPERATURE):
        held[parameter] = draw.choice(space.values(parameter))
    return choice_of(held)
