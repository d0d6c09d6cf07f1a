"""Runs trainings one after the other in this process: for debugging, and for a single slot."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from kdsearch.engine.base import Fleet, Queue, Slot, Worker


@dataclass(kw_only=True)
class InProcessEngine:
    """See `Engine`. An exception of a training passes through, so that a debugger stops there."""

    worker: Worker
    _key: str | None = field(default=None, init=False)

    @property
    def fleet(self) -> Fleet:
        """This process is the one slot."""
        return Fleet(slots=(Slot(name="slot-1", node=socket.gethostname(), key=self._key),))

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, one at a time."""
        while not queue.complete:
            request = queue.take()
            if request is None:  # nothing runs, so something could start: the search drains
                continue
            self._key = request.training.key
            self.worker(request.training)
            self._key = None
            queue.done(request.training.key)
