"""The slots of a search as the driver sees them: what each runs, and how many there should be."""

from __future__ import annotations

import math
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from kdsearch.engine.base import Fleet, Queue, Slot
from kdsearch.engine.ray_tune.left_out import LeftOut
from kdsearch.engine.ray_tune.losses import MESSAGES, address_of, failure_of
from kdsearch.engine.ray_tune.making_room import Held, MakingRoom
from kdsearch.engine.ray_tune.room import Needed, kinds
from kdsearch.engine.ray_tune.slot import config, order
from kdsearch.errors import last_line

MOST_WAITING = 200
"""How many slots of a kind may wait for room at once: that many an autoscaler sees."""
_SECONDS_BETWEEN_LOOKS = 1.0
"""How often the queue is asked though nothing has happened: it may have been told to drain."""
_SECONDS_TO_ANSWER = 0.5
"""How long Ray's head may take to say which nodes go away: Tune's loop waits for it."""
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


Placed = Callable[[Collection[str]], Mapping[str, str]]
"""Of placement groups those that have found room, each with the id of its node."""


def placed(groups: Collection[str]) -> dict[str, str]:
    """What Ray says; see `Placed`."""
    space, found = ray.get_runtime_context().namespace, {}
    for name in groups:
        group = ray._private.state.state.get_placement_group_by_name(name, space)
        if group is not None and group["state"] == "CREATED":
            [found[name]] = group["bundles_to_node_id"].values()
    return found


def draining() -> Collection[str]:
    """The ids of the nodes that Ray is about to take away. Raises `RayError`."""
    return list(internal_kv_get_gcs_client().get_draining_nodes(timeout=_SECONDS_TO_ANSWER))


class Pool:
    """Slots, each of which is a trial of Tune's, known here by its id.

    The number of slots is what the queue has use for, so that those which wait for room are what
    an autoscaler sees. All is driven by Tune's loop in the driver's thread: what a slot reports
    is taken in, and its next training goes to the mailbox, before Tune asks the slot to go on.

    Where trainings of different roles take different resources, a slot is of one kind of these
    and runs those roles. Of each kind there are as many as the most urgent trainings need.

    Nothing here raises, since Tune would take that for its own end: an error is kept in `error`,
    no training is given out any more, and when none runs the search is over.
    """

    def __init__(
        self,
        queue: Queue,
        post: Post,
        left_out: LeftOut,
        *,
        needed: Needed,
        begun: Callable[[str], bool],
        most: int | None = None,
        placed: Placed = placed,
        draining: Callable[[], Collection[str]] = draining,
        scales: bool = False,
    ) -> None:
        """`begun` tells of a key whether a worker process has begun its training.

        `scales`: whether a node goes, and costs no more, when its slots have ended.
        """
        self.error: Exception | None = None
        self._queue = queue
        self._post = post
        self._left_out = left_out
        self._begun = begun
        self._most = most
        self._scales = scales
        self._roles = kinds(needed)
        self._needs = {kind: needed[roles[0]] for kind, roles in self._roles.items()}
        self._kinds = {role: kind for kind, roles in self._roles.items() for role in roles}
        self._draining: Collection[str] = ()
        self._room = MakingRoom(self._needs, self._staying, placed)
        self._slots: dict[str, Held] = {}
        self._named = 0
        self._id = uuid.uuid4().hex[:8]
        self._wanted: Counter[str] = Counter()
        """Of each kind, how many bundles could run at once."""
        self._order: list[str] = []
        """The kinds, the most urgent first."""
        self._ask_draining = draining
        self._known_room, self._asked_room = 0, -math.inf
        self._looked = -math.inf
        self._surplus_since: dict[str, float] = {}

    @property
    def fleet(self) -> Fleet:
        """The slots there are now."""
        up = [slot for slot in self._slots.values() if slot.node is not None]
        return Fleet(
            slots=tuple(Slot(name=slot.name, node=slot.node or "", keys=slot.keys) for slot in up),
            waiting=len(self._slots) - len(up),
            left_out=self._left_out.reasons,
        )

    @property
    def in_hand(self) -> tuple[str, ...]:
        """The keys of the trainings that slots have in hand."""
        return tuple(key for slot in self._slots.values() for key in slot.keys)

    @property
    def room(self) -> int:
        """How many students could run at once on the nodes that are there and stay."""
        if time.monotonic() - self._asked_room >= _SECONDS_BETWEEN_LOOKS:
            self._asked_room = time.monotonic()
            needs, out = self._needs[self._kinds["student"]], self._left_out.ids
            with suppress(RayError, RuntimeError):  # it is asked again in a second
                there = (node for node in self._staying() if node["NodeID"] not in out)
                self._known_room = sum(needs.room(node) for node in there)
        return min(max(1, self._known_room), self._most or sys.maxsize)

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing will. What runs ahead is not waited for."""
        return not self._needed() and (self.error is not None or self._queue.complete)

    def grow(self, trial: str) -> dict[str, Any] | None:
        """The configuration of one more slot; None while there are enough."""
        self.look()
        kind = self._lacking()
        if self.error is not None or kind is None or len(self._slots) >= (self._most or math.inf):
            return None
        self._named += 1
        name, without = f"slot-{self._named}", self._left_out.ids
        slot = Held(name, kind, group=f"{name}-{self._id}", without=without)
        self._slots[trial] = slot
        return config(name, slot.group, self._needs[kind], without)

    def look(self) -> None:
        """To be called again and again: see whether the queue wants something else by now."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        with self._keeping():
            self._post.check()
        with self._keeping(), suppress(RayError):
            self._draining = self._ask_draining()
        with self._keeping():
            self._serve()
            self._leave()
            if len(self._roles) > 1:
                self._room.look(self._slots.values(), self._ready())
                self._clear()
            self._shrink()

    def reported(self, trial: str, result: Mapping[str, Any]) -> None:
        """A slot came up, or a bundle ended there."""
        slot = self._slots[trial]
        slot.ends = slot.ends or bool(result.get("done"))
        with self._keeping():
            if "node" in result:
                slot.node, slot.address = result["node"], result["node_ip"]
                slot.node_id, slot.gpus = result["node_id"], result["gpus"]
                slot.since = time.monotonic()
                if result["lacks"]:
                    self._left_out.lacks(result["node_id"], result["lacks"])
            if "keys" in result:
                if not (self._scales and set(slot.keys).issubset(self._queue.ahead)):
                    slot.since = time.monotonic()
                slot.bundle = ()
                if slot.address and not result["failed"]:
                    self._left_out.works(slot.address)
        for key in result.get("keys", ()):
            with self._keeping():
                self._queue.done(key)
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
        # Those that may not go where they might. Who waits for less long may be starting; if on a
        # node that is left out, it will find out for itself.
        old = {t for t in waiting if self._slots[t].since < now - _IDLE_SECONDS}
        given_up = [t for t in waiting if t in old and set(out) - set(self._slots[t].without)]
        given_up += [t for t in waiting if self._slots[t].name in self._room.ending]
        for kind in self._roles:
            of_kind = [t for t in waiting[::-1] if self._slots[t].kind == kind]
            if all(self._slots[t].without != out for t in of_kind):
                # They may go elsewhere by now: to a node that is tried again, by one at a time.
                given_up += [t for t in of_kind if t in old][:1]
            if kind in self._room.blocked:
                # Those that start have their room already.
                given_up += [t for t in of_kind if self._slots[t].name not in self._room.starting]
            elif self._has_surplus(kind, now):
                given_up += of_kind[: self._surplus(kind)]
        return list(dict.fromkeys(given_up))

    def close(self) -> None:
        """Have the slots end that wait for work."""
        for slot in self._slots.values():
            self._end(slot)

    def _serve(self) -> None:
        """Give each idle slot a bundle, as far as there are any."""
        self._want()
        if self.error is not None:
            return
        if self._room.ending:  # what just ended may have made them needed
            self._room.decide(self._slots.values(), self._ready())
        self._clear()
        running = Counter(slot.kind for slot in self._needed())
        for slot in self._slots.values():
            if slot.node_id in self._draining:
                continue  # what began there now would be cut off
            needed = running[slot.kind] < self._wanted[slot.kind]
            if slot.idle and (needed or self._may_run_ahead(slot)):
                slot.bundle = self._queue.take(self._roles[slot.kind])
                if not slot.bundle:  # the search drains, or there is nothing to run ahead
                    self._want()
                    break
                running[slot.kind] += needed
                self._post.put(slot.name, order(slot.bundle))

    def _needed(self) -> list[Held]:
        """The slots that run what is asked for."""
        ahead, slots = self._queue.ahead, self._slots.values()
        return [slot for slot in slots if not set(slot.keys).issubset(ahead)]

    def _may_run_ahead(self, slot: Held) -> bool:
        """Whether a slot may run what nothing asks for yet, since nothing else could start.

        Where nodes go that are idle, none is kept by one such training after the other: the slot
        must have had work lately.
        """
        waits = next(iter(self._queue.ready), None) is not None
        if waits or "student" not in self._roles[slot.kind]:
            return False
        return not self._scales or slot.since > time.monotonic() - _IDLE_SECONDS

    def _want(self) -> None:
        """See how many slots of each kind there should be."""
        running = [slot.kind for slot in self._needed()]
        most = self._most or sys.maxsize
        if self.error is not None:
            most = len(running)
        if len(self._roles) == 1:
            self._order = list(self._roles)
            self._wanted = Counter({self._order[0]: min(self._queue.wanted, most)})
            return
        ready = self._ready()[: max(0, most - len(running))]
        self._order = list(dict.fromkeys(ready))
        self._wanted = Counter([*running, *ready])

    def _ready(self) -> list[str]:
        """The kinds of the trainings that could start now, the most urgent first.

        None after an error; the queue is asked all the same, by which it sees that time passes.
        """
        ready = [self._kinds[role] for role in self._queue.ready]
        return ready if self.error is None else []

    def _lacking(self) -> str | None:
        """The most urgent kind of which there are too few slots."""
        waits = Counter(slot.kind for slot in self._slots.values() if slot.node is None)
        return next(
            (
                kind
                for kind in self._order
                if self._surplus(kind) < 0
                and waits[kind] < MOST_WAITING
                and kind not in self._room.blocked
            ),
            None,
        )

    def _surplus(self, kind: str) -> int:
        """How many slots of a kind there are too many; below 0: too few."""
        there = sum(slot.kind == kind and not slot.ends for slot in self._slots.values())
        return there - self._wanted[kind]

    def _has_surplus(self, kind: str, now: float) -> bool:
        """Whether there are too many of a kind, and for a while; or another must have their place.

        The work that comes next may be theirs.
        """
        if self._surplus(kind) <= 0:
            self._surplus_since.pop(kind, None)
            return False
        since = self._surplus_since.setdefault(kind, now)
        return now - since > _SURPLUS_SECONDS or self._full()

    def _full(self) -> bool:
        """Whether slots of one kind keep those of another from being asked for."""
        full = len(self._slots) >= (self._most or math.inf)
        return full and self._lacking() is not None

    def _clear(self) -> None:
        """Have idle slots end that are in the way of those of another kind."""
        if len(self._roles) == 1:
            return
        ending, full = self._room.ending, self._full()
        for slot in self._slots.values():
            if slot.name in ending or (full and self._surplus(slot.kind) > 0):
                self._end(slot)

    def _staying(self) -> list[dict[str, Any]]:
        """The nodes that are there, but for those that go away: Ray places nothing on these."""
        return [node for node in self._left_out.alive() if node["NodeID"] not in self._draining]

    def _leave(self) -> None:
        """Have idle slots end on nodes that go away."""
        for slot in self._slots.values():
            if slot.node_id in self._draining:
                self._end(slot)

    def _shrink(self) -> None:
        """Have slots end for which there has been no work in a long time."""
        long_ago = time.monotonic() - _IDLE_SECONDS
        for slot in self._slots.values():
            if slot.idle and slot.since < long_ago and self._surplus(slot.kind) > 0:
                self._end(slot)

    def _end(self, slot: Held) -> None:
        if slot.idle:
            slot.ends = True
            self._post.put(slot.name, None)

    def _lost(self, slot: Held, reason: str) -> None:
        """A process ended. If it had not begun a training, that is no try of it."""
        failure = failure_of(reason)
        begun = [key for key in slot.keys if failure != "worker_lost" or self._begun(key)]
        for key in slot.keys:
            with self._keeping():
                if key in begun:
                    self._queue.lost(key, MESSAGES[failure], failure, slot.node or "")
                else:
                    self._queue.release(key)
        if failure == "worker_lost" and not begun and (slot.bundle or slot.node is None):
            address = slot.address or address_of(reason)
            self._left_out.stillborn(address, last_line(reason) or "no word")

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error
