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
"""The first time; twice as long each time that it was in vain."""
_LONGEST_UNTIL_TRIED_AGAIN = 24 * 3600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    name: str
    why: str
    seconds: float
    until: float


def it_lacks(lacks: Sequence[str]) -> str:
    """What a node lacks, in words, as what is said of a node that is left out."""
    return f"it {', and '.join(lacks)}"


class LeftOut:
    """The nodes that are left out. One that was repaired is found out by a slot that tries it.

    `looked_at` are the ids of those that `watch_nodes` leaves out, and `told` what it has said of
    which node: both change all the time.
    Raises `EngineError` when of the nodes that have room for trainings of some role none is left.
    """

    def __init__(
        self,
        needed: Needed,
        nodes: Callable[[], list[dict[str, Any]]] = ray.nodes,
        looked_at: Collection[str] = (),
        told: set[tuple[str, str]] | None = None,
    ) -> None:
        self._needed = needed
        self._nodes = nodes
        self._looked_at = looked_at
        self._entries: dict[str, _Entry] = {}
        self._stillborn: Counter[str | None] = Counter()
        self._told: set[tuple[str, str]] = set() if told is None else told

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the nodes."""
        now = time.monotonic()
        found = {
            node
            for node, each in self._entries.items()
            # What was told is taken back once the node has been looked at and lacks it no more.
            if each.until > now and (each.name, each.why) in self._told
        }
        return tuple(sorted({*found, *self._looked_at}))

    @property
    def reasons(self) -> dict[str, str]:
        """Why each node is left out, by its name."""
        return {
            self._entries[node].name: self._entries[node].why
            for node in self.ids
            if node in self._entries
        }

    def lacks(self, node_id: str, lacks: Sequence[str]) -> None:
        """A slot found that its node lacks something."""
        self._leave_out("NodeID", node_id, it_lacks(lacks))

    def stillborn(self, address: str | None, reason: str) -> None:
        """A process on the node at this address died before it could begin a training."""
        self._stillborn[address] += 1
        if self._stillborn[address] < _MOST_STILLBORN:
            return
        why = f"worker processes die on start: {reason}"
        if address is None:  # it cannot be said which node to avoid
            raise EngineError(why)
        self._leave_out("NodeManagerAddress", address, f"its {why}")

    def works(self, address: str) -> None:
        """A training ended on the node at this address."""
        for each in (address, None):  # nor do all die whose node is not known
            self._stillborn.pop(each, None)

    def _leave_out(self, key: str, value: str, why: str) -> None:
        """Leave out the nodes for which Ray says so."""
        alive = self.alive()
        for node in alive:
            if node[key] == value:
                self._enter(node, why)
        for needs in self._needed.values():
            fitting = {node["NodeID"] for node in alive if needs.room(node)}
            if fitting and fitting <= set(self.ids):  # with none, some may be on their way
                raise EngineError(
                    f"no node is left to train on; the last was left out because {why}"
                )

    def _enter(self, node: Mapping[str, Any], why: str) -> None:
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        now, before = time.monotonic(), self._entries.get(node["NodeID"])
        seconds = before.seconds if before else _SECONDS_UNTIL_TRIED_AGAIN
        if before and before.until <= now:
            seconds = min(2 * seconds, _LONGEST_UNTIL_TRIED_AGAIN)
        self._entries[node["NodeID"]] = _Entry(name, why, seconds, now + seconds)
        if (name, why) not in self._told:
            self._told.add((name, why))
            _log.warning("node %s is left out: %s", name, why)

    def alive(self) -> list[dict[str, Any]]:
        """The nodes that are there, those left out among them."""
        return [node for node in self._nodes() if node["Alive"]]
