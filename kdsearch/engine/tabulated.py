"""Looks results up instead of training, on a simulated clock: whole studies in milliseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from kdsearch.agenda import Training
from kdsearch.engine.base import Fleet, Queue, Slot


@dataclass(kw_only=True)
class TabulatedEngine:
    """See `Engine`. `look_up` commits what a training comes to; `seconds` is how long it takes."""

    look_up: Callable[[Training], None]
    seconds: Callable[[Training], float]
    slots: int = 1
    clock: float = 0.0
    """The simulated seconds since the start."""
    busy: float = field(default=0.0, init=False)
    """The sum of the simulated seconds of all slots at work."""

    @property
    def fleet(self) -> Fleet:
        """As many slots as were asked for; what they run is not told."""
        names = (f"slot-{number}" for number in range(1, self.slots + 1))
        return Fleet(slots=tuple(Slot(name=name, node="simulated", key=None) for name in names))

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives on `slots` simulated slots."""
        running: list[tuple[float, int, Training]] = []
        order = count()
        while not queue.complete:
            while len(running) < self.slots and (request := queue.take()) is not None:
                seconds = self.seconds(request.training)
                self.busy += seconds
                heapq.heappush(running, (self.clock + seconds, next(order), request.training))
            if not running:  # the search drains
                continue
            self.clock, _, training = heapq.heappop(running)
            self.look_up(training)
            queue.done(training.key)
