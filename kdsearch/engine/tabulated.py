"""Looks results up instead of training, on a simulated clock: whole studies in milliseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from kdsearch.agenda import Bundle, Training
from kdsearch.engine.base import Fleet, Queue, Slot


@dataclass(kw_only=True)
class TabulatedEngine:
    """See `Engine`. `look_up` commits what a training comes to; `seconds` is how long it takes."""

    look_up: Callable[[Training], None]
    seconds: Callable[[Training], float]
    together: Callable[[Sequence[float]], float] = sum
    """How long a bundle takes of trainings that take so long alone."""
    slots: int = 1
    clock: float = 0.0
    """The simulated seconds since the start."""
    busy: float = field(default=0.0, init=False)
    """The sum of the simulated seconds of all slots at work."""

    @property
    def fleet(self) -> Fleet:
        """As many slots as were asked for; what they run is not told."""
        names = (f"slot-{number}" for number in range(1, self.slots + 1))
        return Fleet(slots=tuple(Slot(name=name, node="simulated") for name in names))

    @property
    def room(self) -> int:
        """Its slots."""
        return self.slots

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives on `slots` simulated slots."""
        running: list[tuple[float, int, Bundle]] = []
        order = count()
        while not queue.complete:
            while len(running) < self.slots and (bundle := queue.take()):
                seconds = self.together([self.seconds(request.training) for request in bundle])
                self.busy += seconds
                heapq.heappush(running, (self.clock + seconds, next(order), bundle))
            if not running:  # the search drains
                continue
            self.clock, _, bundle = heapq.heappop(running)
            for request in bundle:
                self.look_up(request.training)
            for request in bundle:
                queue.done(request.training.key)
