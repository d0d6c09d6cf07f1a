"""Runs bundles one after the other in this process: for debugging, and for a single slot."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from kdsearch.engine.base import Fleet, Queue, Slot, Worker


@dataclass(kw_only=True)
class InProcessEngine:
    """See `Engine`. An exception of a training passes through, so that a debugger stops there."""

    worker: Worker
    _keys: tuple[str, ...] = field(default=(), init=False)

    @property
    def fleet(self) -> Fleet:
        """This process is the one slot."""
        return Fleet(slots=(Slot(name="slot-1", node=socket.gethostname(), keys=self._keys),))

    @property
    def room(self) -> int:
        """This process is the one slot."""
        return 1

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, one bundle at a time."""
        while not queue.complete:
            trainings = [request.training for request in queue.take()]
            if not trainings:  # nothing runs, so something could start: the search drains
                continue
            self._keys = tuple(training.key for training in trainings)
            self.worker(*trainings)
            self._keys = ()
            for training in trainings:
                queue.done(training.key)
