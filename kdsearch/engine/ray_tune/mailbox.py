"""Where slots wait for their next training: an actor beside the driver."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.engine.boxes import Boxes

_MOST_SLOTS = 100_000
"""How many may wait at once. A waiting slot costs a coroutine."""

_NO_ONE = ""


class MailboxError(Exception):
    """The actor has died: slots would wait for ever."""


class Mailbox:
    """The driver's side of the actor, which has no name and ends with the driver."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(
            node_id=ray.get_runtime_context().get_node_id(), soft=False
        )
        actor_class: Any = ray.remote(Boxes)
        self.actor: Any = actor_class.options(
            num_cpus=0, max_concurrency=_MOST_SLOTS, scheduling_strategy=here
        ).remote()
        # Answered only if the actor has died.
        self._watch = self.actor.take.remote(_NO_ONE)

    def put(self, slot: str, order: str | None) -> None:
        """Give the slot an order; None has it end."""
        self.actor.put.remote(slot, order)

    def check(self) -> None:
        """Raise `MailboxError` if the actor has died."""
        if ray.wait([self._watch], timeout=0)[0]:
            raise MailboxError("the process that hands out trainings has died")

    def close(self) -> None:
        """End the actor."""
        with suppress(RayError):  # it ends with the driver anyway
            ray.kill(self.actor)
