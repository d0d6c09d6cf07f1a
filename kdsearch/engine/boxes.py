"""What the mailbox's process runs. Outside of `ray_tune`, which takes a second to import."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Boxes:
    """A box per slot. A slot that asks waits here, so that its process stays and its node is held.

    The driver puts and never asks; slots ask and never put. What was done comes to the driver as
    Tune's result.
    """

    def __init__(self) -> None:
        self._boxes: defaultdict[str, asyncio.Queue[str | None]] = defaultdict(asyncio.Queue)

    def __repr__(self) -> str:
        return "kdsearch mailbox"

    async def put(self, slot: str, order: str | None) -> None:
        """Give a slot an order; None has it end."""
        self._boxes[slot].put_nowait(order)

    async def take(self, slot: str) -> str | None:
        """The next order of a slot, once there is one."""
        return await self._boxes[slot].get()
