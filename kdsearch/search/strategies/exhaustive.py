"""Every choice of a space, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.search.space import Space
from kdsearch.search.strategy import Decision, Pending, Progress, Strategy, decide, lacking
from kdsearch.search.tuning import Scores


@dataclass(frozen=True)
class Exhaustive(Strategy, name="exhaustive"):
    """Tunes every choice, and compares them all."""

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        every = tuple((None, choice) for choice in space.choices())
        found = decide(space, scores, None, every)
        if isinstance(found, Decision):
            return Progress(decisions=(found,))
        return lacking(found, Pending(axis=None, alternatives=every))
