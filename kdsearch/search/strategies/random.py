"""Trials that are drawn from a space."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

from kdsearch.search.space import Choice, Space, Trial
from kdsearch.search.strategy import Decision, Pending, Progress, Strategy, best_of
from kdsearch.search.tuning import Candidate, Scores


@dataclass(frozen=True, kw_only=True)
class Random(Strategy, name="random"):
    """Compares choices by so many of their trials, drawn uniformly without replacement."""

    trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError("trials is at least 1")

    def __call__(self, space: Space, scores: Scores) -> Progress:
        """See `Strategy`."""
        every = [(choice, trial) for choice in space.choices() for trial in space.trials(choice)]
        drawn: dict[Choice, list[Trial]] = defaultdict(list)
        for choice, trial in random.Random(self.seed).sample(every, min(self.trials, len(every))):
            drawn[choice].append(trial)
        missing = [t for trials in drawn.values() for t in trials if t not in scores]
        if missing:
            pending = Pending(axis=None, alternatives=tuple((None, c) for c in drawn))
            return Progress(decisions=(), pending=pending, wanted=dict.fromkeys(missing, 1))
        candidates = [Candidate.of(choice, trials, scores) for choice, trials in drawn.items()]
        winner = best_of(candidates)
        decision = Decision(axis=None, candidates=tuple(candidates), winner=winner)
        return Progress(decisions=(decision,))
