"""Every choice of a space, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.search.space import Space
from kdsearch.search.strategy import Comparing, Decision, Progress, Strategy, compare
from kdsearch.search.tuning import Scores


@dataclass(frozen=True)
class Exhaustive(Strategy, name="exhaustive"):
    """Tunes every choice, and compares them all."""

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        every = tuple((None, choice) for choice in space.choices())
        step = compare(space, scores, None, every)
        if isinstance(step, Decision):
            return Progress(decisions=(step,))
        comparing = Comparing(axis=None, alternatives=every)
        return Progress(decisions=(), comparing=comparing, wanted=step.trials)
