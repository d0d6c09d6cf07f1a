"""Nodes on which no slot is placed for a while, and why."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from kdsearch.engine.base import EngineError
from kdsearch.engine.ray_tune.room import Needed

_MOST_STILLBORN = 5
_SECONDS_UNTIL_TRIED_AGAIN = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    name: str
    why: str
    until: float


class LeftOut:
    """The nodes that are left out. One that was mended is found out by a slot that tries it.

    `looked_at` are the ids of those that `watch_nodes` leaves out, which change all the time.
    Raises `EngineError` when of the nodes that have room for trainings of some role none is left.
    """

    def __init__(
        self,
        needed: Needed,
        nodes: Callable[[], list[dict[str, Any]]] = ray.nodes,
        looked_at: Collection[str] = (),
    ) -> None:
        self._needed = needed
        self._nodes = nodes
        self._looked_at = looked_at
        self._entries: dict[str, _Entry] = {}
        self._stillborn: Counter[str | None] = Counter()
        self._told: set[tuple[str, str]] = set()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the nodes."""
        now = time.monotonic()
        found = {node for node, entry in self._entries.items() if entry.until > now}
        return tuple(sorted({*found, *self._looked_at}))

    @property
    def reasons(self) -> dict[str, str]:
        """Why each node is left out, by its name."""
        return {
            self._entries[node].name: self._entries[node].why
            for node in self.ids
            if node in self._entries
        }

    def lacks(self, node_id: str, name: str, lacks: Sequence[str]) -> None:
        """A slot found that its node lacks something."""
        self._leave_out({node_id: name}, "; ".join(lacks))

    def stillborn(self, address: str | None, reason: str) -> None:
        """A process on the node at this address died before it could begin a training."""
        self._stillborn[address] += 1
        if self._stillborn[address] < _MOST_STILLBORN:
            return
        why = f"worker processes die at their start: {reason}"
        if address is None:  # it cannot be said which node to avoid
            raise EngineError(why)
        nodes = [node for node in self.alive() if node["NodeManagerAddress"] == address]
        self._leave_out({node["NodeID"]: node["NodeManagerHostname"] for node in nodes}, why)

    def works(self, address: str) -> None:
        """A training ended on the node at this address."""
        self._stillborn.pop(address, None)

    def _leave_out(self, nodes: Mapping[str, str], why: str) -> None:
        until = time.monotonic() + _SECONDS_UNTIL_TRIED_AGAIN
        for node, name in nodes.items():
            self._entries[node] = _Entry(name, why, until)
            if (name, why) not in self._told:
                self._told.add((name, why))
                _log.warning("%s is left out of the search: %s", name, why)
        alive = self.alive()
        for needs in self._needed.values():
            fitting = {node["NodeID"] for node in alive if needs.room(node)}
            if fitting and fitting <= set(self.ids):  # with none, some may be on their way
                raise EngineError(f"no node is left to train on: {why}")

    def alive(self) -> list[dict[str, Any]]:
        """The nodes that are there, those left out among them."""
        return [node for node in self._nodes() if node["Alive"]]
