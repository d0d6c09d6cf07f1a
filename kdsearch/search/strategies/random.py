"""Trials that are drawn from a space."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kdsearch.search.objectives import ParameterError
from kdsearch.search.space import Choice, Space, Trial
from kdsearch.search.strategy import Decision, Pending, Progress, Strategy, best_of, lacking
from kdsearch.search.tuning import Candidate, Scores

_WHOLE = 100_000
"""So many points at most are all made, to draw from them; of a larger grid those that are drawn."""


@dataclass(frozen=True, kw_only=True)
class Random(Strategy, name="random"):
    """Compares choices by so many of their trials, drawn uniformly without replacement."""

    trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ParameterError("trials", "must be at least 1")

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        drawn = _drawn(space, self.trials, self.seed)
        missing = [t for trials in drawn.values() for t in trials if t not in scores]
        if missing:
            pending = Pending(axis=None, alternatives=tuple((None, c) for c in drawn))
            return lacking([dict.fromkeys(missing, 1)], pending)
        candidates = [Candidate.of(choice, trials, scores) for choice, trials in drawn.items()]
        winner = best_of(candidates)
        decision = Decision(axis=None, candidates=tuple(candidates), winner=winner)
        return Progress(decisions=(decision,))

    def asks(self, size: int) -> int:
        """See `Strategy`."""
        return self.trials


@lru_cache(maxsize=64)
def _drawn(space: Space, trials: int, seed: int) -> Mapping[Choice, Sequence[Trial]]:
    """So many trials, each once, by their choices."""
    draw, size = random.Random(seed), space.size
    points: Iterable[tuple[Choice, Trial]]
    if size <= _WHOLE:
        every = [(c, trial) for c in space.choices() for trial in space.trials(c)]
        points = draw.sample(every, min(trials, len(every)))
    else:
        indices: dict[int, None] = {}
        while len(indices) < min(trials, size):
            indices[draw.randrange(size)] = None
        points = map(space.point, indices)
    drawn: dict[Choice, list[Trial]] = defaultdict(list)
    for choice, trial in points:
        drawn[choice].append(trial)
    return drawn
