"""What a walk would want next, under answers that nobody knows yet."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple, NoReturn

from kdsearch.search.space import Space, Trial, ValidationScore
from kdsearch.search.strategy import Strategy
from kdsearch.search.tuning import Remembered, Scores

ROUNDS, WORLDS = 2, 16
"""So many rounds of answers are made up at most, and so many sets of answers looked at. In
simulated searches on 64 slots a third round made them longer, since what it trains is needed less
often, and more sets changed nothing."""
_WORST = ValidationScore(-math.inf)
_BEST = 1e300
"""Above every score."""


class _World(NamedTuple):
    """Answers that are made up: after some before, of `lacked` which one is `best`."""

    unlikelihood: float
    """Minus the likelihood."""
    number: int
    """Of equally likely ones the first comes first."""
    rounds: int
    before: dict[Trial, ValidationScore | None]
    lacked: tuple[Trial, ...]
    best: Trial | None
    """None where what is held stays."""


def ahead(walk: Strategy, space: Space, scores: Scores, known: int) -> Iterator[Trial]:
    """The trials without a score that a walk may want after those that it lacks, likeliest first.

    An answer says which trial comes out best: one of those that the walk lacks, or one of the
    `known` that have a score, so that what is held stays. Each is taken to be as likely as any
    other. Nothing else is known of a strategy than how it walks under such made-up scores.
    """
    order = count()
    told: set[Trial] = set()
    stood: set[tuple[Trial, ...]] = set()
    """What was lacking in the worlds so far: another one where the same is goes on like them."""
    worlds = [_World(-1.0, next(order), 0, {}, (), None)]
    for _ in range(WORLDS):
        if not worlds:
            return
        world = heapq.heappop(worlds)
        made_up = world.before | dict.fromkeys(world.lacked, _WORST)
        if world.best is not None:
            made_up[world.best] = ValidationScore(world.rounds * _BEST)
        wanted = walk(space, _Overlay(made_up, scores)).wanted
        lacked = tuple(wanted)
        if world.rounds:
            yield from (trial for trial in lacked if trial not in told)
        told.update(lacked)
        more = max(wanted.values(), default=0) > 1
        if world.rounds == ROUNDS or not more or lacked in stood:
            continue
        stood.add(lacked)
        stays = known + len(made_up)
        each = world.unlikelihood / (stays + len(lacked))
        answers: list[tuple[float, Trial | None]] = [(stays * each, None)] if stays else []
        answers += [(each, trial) for trial in lacked]
        for unlikelihood, best in answers:
            after = (unlikelihood, next(order), world.rounds + 1, made_up, lacked, best)
            heapq.heappush(worlds, _World(*after))


class _Overlay(Remembered):
    """Scores, and made-up ones over them."""

    def __init__(self, made_up: Scores, scores: Scores) -> None:
        super().__init__()
        self._made_up = made_up
        self._scores = scores
        if isinstance(scores, Remembered):
            self.tunings = {key: tuning.copy() for key, tuning in scores.tunings.items()}

    def __getitem__(self, trial: Trial) -> ValidationScore | None:
        return self._made_up[trial] if trial in self._made_up else self._scores[trial]

    def __contains__(self, trial: object) -> bool:
        return trial in self._made_up or trial in self._scores

    def __iter__(self) -> NoReturn:
        raise TypeError("scores are looked up, not listed")

    __len__ = __iter__
