"""Runs trainings one after the other in this process: for debugging, and for a single slot."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.engine.base import Queue, Worker


@dataclass(frozen=True, kw_only=True)
class InProcessEngine:
    """See `Engine`. An exception of a training passes through, so that a debugger stops there."""

    worker: Worker

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, one at a time."""
        while not queue.complete:
            request = queue.take()
            if request is None:  # nothing runs, so something could start: the search drains
                continue
            self.worker(request.training)
            queue.done(request.training.key)
