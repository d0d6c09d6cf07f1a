"""The slots of a search as the driver sees them: what each runs, and how many there should be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from kdsearch.agenda import Request
from kdsearch.engine.base import Fleet, Queue, Slot
from kdsearch.engine.ray_tune.left_out import LeftOut
from kdsearch.engine.ray_tune.losses import MESSAGES, address_of, failure_of, last_line
from kdsearch.engine.ray_tune.slot import config, order

_SECONDS_BETWEEN_LOOKS = 1.0
"""How often the queue is asked though nothing has happened: it may have been told to drain."""
_SURPLUS_SECONDS = 10.0
"""How long more slots are asked for than there is work, before some of them are not any more."""
_IDLE_SECONDS = 60.0
"""How long a slot holds its node without work. Rounds of a search are seconds apart."""


class Post(Protocol):
    """How slots get what they are to do."""

    def put(self, slot: str, order: str | None) -> None:
        """Give the slot an order; None has it end."""

    def check(self) -> None:
        """Raise `MailboxError` if slots would wait for ever."""


@dataclass
class _Slot:
    name: str
    without: tuple[str, ...]
    node: str | None = None
    """None while it waits for room on a node, or its process starts."""
    address: str | None = None
    request: Request | None = None
    since: float = field(default_factory=time.monotonic)
    """When it was asked for; once it is up, when it came up or its last training ended."""
    ends: bool = False

    @property
    def idle(self) -> bool:
        return self.node is not None and self.request is None and not self.ends


class Pool:
    """Slots, each of which is a trial of Tune's, known here by its id.

    The number of slots is what the queue has use for, so that those which wait for room are what
    an autoscaler sees. All is driven by Tune's loop in the driver's thread: what a slot reports
    is taken in, and its next training goes to the mailbox, before Tune asks the slot to go on.

    Nothing here raises, since Tune would take that for its own end: an error is kept in `error`,
    no training is given out any more, and when none runs the search is over.
    """

    def __init__(
        self,
        queue: Queue,
        post: Post,
        left_out: LeftOut,
        *,
        resources: Mapping[str, float],
        begun: Callable[[str], bool],
        most: int | None = None,
    ) -> None:
        """`begun` tells of a key whether a worker process has begun its training."""
        self.error: Exception | None = None
        self._queue = queue
        self._post = post
        self._left_out = left_out
        self._resources = resources
        self._begun = begun
        self._most = most
        self._slots: dict[str, _Slot] = {}
        self._named = 0
        self._wanted = 0
        self._looked = -math.inf
        self._surplus_since: float | None = None

    @property
    def fleet(self) -> Fleet:
        """The slots there are now."""
        up = [slot for slot in self._slots.values() if slot.node is not None]
        return Fleet(
            slots=tuple(
                Slot(
                    name=slot.name,
                    node=slot.node or "",
                    key=slot.request.training.key if slot.request else None,
                )
                for slot in up
            ),
            waiting=len(self._slots) - len(up),
            left_out=self._left_out.reasons,
        )

    @property
    def in_hand(self) -> tuple[str, ...]:
        """The keys of the trainings that slots have in hand."""
        return tuple(s.request.training.key for s in self._slots.values() if s.request is not None)

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing will."""
        return not self.in_hand and (self.error is not None or self._queue.complete)

    def grow(self, trial: str) -> dict[str, Any] | None:
        """The configuration of one more slot; None while there are enough."""
        self.look()
        if self.error is not None or len(self._slots) >= self._wanted:
            return None
        self._named += 1
        without = self._left_out.ids
        self._slots[trial] = _Slot(f"slot-{self._named}", without)
        return config(self._slots[trial].name, self._resources, without)

    def look(self) -> None:
        """To be called again and again: see whether the queue wants something else by now."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        with self._keeping():
            self._post.check()
            self._serve()
            self._shrink()

    def reported(self, trial: str, result: Mapping[str, Any]) -> None:
        """A slot came up, or a training ended there."""
        slot = self._slots[trial]
        slot.ends = slot.ends or bool(result.get("done"))
        with self._keeping():
            if "node" in result:
                slot.node, slot.address = result["node"], result["node_ip"]
                slot.since = time.monotonic()
                if result["lacks"]:
                    self._left_out.lacks(result["node_id"], result["node"], result["lacks"])
            if "key" in result:
                slot.request, slot.since = None, time.monotonic()
                if slot.address and not result["failed"]:
                    self._left_out.works(slot.address)
                self._queue.done(result["key"])
        with self._keeping():
            self._serve()

    def gone(self, trial: str, reason: str | None = None) -> None:
        """A slot ended; because of what Ray says in `reason`, or as it was told to."""
        slot = self._slots.pop(trial, None)
        if slot is None or reason is None:
            return
        with self._keeping():
            self._lost(slot, reason)
        with self._keeping():
            self._serve()

    def superfluous(self, waiting: Sequence[str]) -> list[str]:
        """Which of the slots that wait for room are not to be waited for, the oldest kept."""
        now, out = time.monotonic(), self._left_out.ids
        # Those that may go elsewhere by now, or not where they might. Who waits for less long may
        # be starting; if on a node that is left out, it will find out for itself.
        old = [t for t in waiting if self._slots[t].since < now - _IDLE_SECONDS]
        stale = [trial for trial in old if self._slots[trial].without != out]
        surplus = len(self._slots) - self._wanted
        if surplus <= 0:
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        elif now - self._surplus_since > _SURPLUS_SECONDS:
            return [*stale, *[t for t in waiting[::-1][:surplus] if t not in stale]]
        return stale

    def close(self) -> None:
        """Have the slots end that wait for work."""
        for slot in self._slots.values():
            self._end(slot)

    def _serve(self) -> None:
        """Give each idle slot a training, as far as there are any."""
        if self.error is not None:
            return
        for slot in self._slots.values():
            if slot.idle:
                slot.request = self._queue.take()
                if slot.request is None:
                    break
                self._post.put(slot.name, order(slot.request))
        # Slots of several kinds of resources will each have a number of their own here; those of
        # a kind that is wanted less then end at once, if idle, in favour of the others.
        self._wanted = min(self._queue.wanted, self._most or self._queue.wanted)

    def _shrink(self) -> None:
        """Have slots end for which there has been no work in a long time."""
        surplus = len(self._slots) - self._wanted
        long_ago = time.monotonic() - _IDLE_SECONDS
        idle = [slot for slot in self._slots.values() if slot.idle and slot.since < long_ago]
        for slot in idle[: max(surplus, 0)]:
            self._end(slot)

    def _end(self, slot: _Slot) -> None:
        if slot.idle:
            slot.ends = True
            self._post.put(slot.name, None)

    def _lost(self, slot: _Slot, reason: str) -> None:
        """A process ended. If it had not begun a training, that is no try of it."""
        failure = failure_of(reason)
        key = slot.request.training.key if slot.request else None
        if key is not None and (failure != "worker_lost" or self._begun(key)):
            self._queue.lost(key, MESSAGES[failure], failure, slot.node or "")
            return
        if key is not None:
            self._queue.release(key)
        if failure == "worker_lost" and (key is not None or slot.node is None):
            self._left_out.stillborn(slot.address or address_of(reason), last_line(reason))

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error
