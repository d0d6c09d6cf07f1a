"""The greedy search of arXiv 2401.06356, §3: one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.search.space import OBJECTIVE, Axis, Held, Space, is_active
from kdsearch.search.strategy import (
    Alternatives,
    Decision,
    Pending,
    Progress,
    Strategy,
    decide,
    lacking,
)
from kdsearch.search.tuning import Scores, rounds


@dataclass(frozen=True)
class Greedy(Strategy, name="greedy"):
    """Flips the axes in their order; each keeps the value that won.

    An axis of one value, and one that is inactive under what is held, is passed over. The last
    (the paper's α) is always decided on, so that a space of one choice is tuned too.
    """

    flips = True

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        held = space.defaults()
        done: list[Decision] = []
        for axis in space.compared:
            options = alternatives(space, held, axis)
            if not options:
                continue
            found = decide(space, scores, axis.name, options)
            if not isinstance(found, Decision):
                pending = Pending(axis=axis.name, alternatives=options)
                later = rounds_after(space, held, axis)
                return lacking(found, pending, decided=done, later=later)
            done.append(found)
            held = {**held, axis.name: found.winner.value}
        return Progress(decisions=tuple(done))


def alternatives(space: Space, held: Held, axis: Axis) -> Alternatives:
    """What is compared on an axis, the value held first; () where there is nothing to compare."""
    last = axis == space.compared[-1]
    if not last and (len(axis.values) == 1 or not is_active(axis.name, held[OBJECTIVE])):
        return ()
    return tuple((value, space.choice({**held, axis.name: value})) for value in axis.values)


def rounds_after(space: Space, held: Held, axis: Axis) -> int:
    """How many rounds of trials follow the decision on `axis`, if what is held stays.

    What is held was tuned before; its alternatives are tuned side by side.
    """
    later = space.compared[space.compared.index(axis) + 1 :]
    others = (alternatives(space, held, other)[1:] for other in later)
    return sum(max((rounds(choice, space) for _, choice in some), default=0) for some in others)
