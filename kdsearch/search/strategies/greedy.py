"""The greedy search of arXiv 2401.06356, §3: one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.search.space import OBJECTIVE, Axis, Held, Space, is_active
from kdsearch.search.strategy import (
    Alternatives,
    Comparing,
    Decision,
    Progress,
    Strategy,
    compare,
)
from kdsearch.search.tuning import Scores, rounds


@dataclass(frozen=True)
class Greedy(Strategy, name="greedy"):
    """Flips the axes in their order; each keeps the value that won.

    An axis of one value, and one that is inactive under what is held, is passed over. The last
    (the paper's α) is always compared, so that a space of one point is evaluated too.
    """

    flips = True

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        held = space.defaults()
        done: list[Decision] = []
        for axis in space.compared:
            found = alternatives(space, held, axis)
            if not found:
                continue
            step = compare(space, scores, axis.name, found)
            if not isinstance(step, Decision):
                later = rounds_after(space, held, axis)
                return Progress(
                    decisions=tuple(done),
                    comparing=Comparing(axis=axis.name, alternatives=found),
                    wanted={trial: left + later for trial, left in step.trials.items()},
                )
            done.append(step)
            held = {**held, axis.name: step.winner.value}
        return Progress(decisions=tuple(done))


def alternatives(space: Space, held: Held, axis: Axis) -> Alternatives:
    """What is compared on an axis, the value held first; () where there is nothing to compare."""
    last = axis == space.compared[-1]
    if not last and (len(axis.values) == 1 or not is_active(axis.name, held[OBJECTIVE])):
        return ()
    return tuple((value, space.choice({**held, axis.name: value})) for value in axis.values)


def rounds_after(space: Space, held: Held, axis: Axis) -> int:
    """How many rounds of trials follow the comparison of `axis`, if what is held stays.

    What is held was tuned before; its alternatives are tuned side by side.
    """
    later = space.compared[space.compared.index(axis) + 1 :]
    others = (alternatives(space, held, other)[1:] for other in later)
    return sum(max((rounds(choice, space) for _, choice in some), default=0) for some in others)
