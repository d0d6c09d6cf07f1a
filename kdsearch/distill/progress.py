"""The checkpoints of a training that runs: written every few minutes, gone once it has ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from kdsearch.ledger import Ledger, discard, layout, storage_error, sync_and_digest


class DiskCheckpoints:
    """See `Checkpoints`: in the study's folder, under the training's key."""

    def __init__(self, ledger: Ledger, key: str, minutes: float) -> None:
        self._ledger = ledger
        self._key = key
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self._saved: set[Path] = set()

    @property
    def due(self) -> bool:
        """See `Checkpoints`."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, steps: int, state: dict[str, Any]) -> None:
        """See `Checkpoints`. Raises `StorageError`."""
        folder = self._ledger.path(layout.progress(self._key))
        temporary = folder / layout.half_file()
        older = self._ledger.progress(self._key)
        try:
            self._ledger.make_folder(folder)
            torch.save(state, temporary)
            digest = sync_and_digest(temporary)
            final = self._ledger.path(layout.saved(self._key, steps, digest))
            if not final.exists():
                self._saved.add(final)
            self._ledger.put(temporary, final)
        except (OSError, RuntimeError) as error:  # torch's own, where a write fails
            discard(temporary)
            raise storage_error(folder, error) from None
        for progress in older:
            name = str(progress.path.relative_to(self._ledger.folder))
            if not self._ledger.remove(name) and progress.path in self._saved:
                discard(progress.path)  # behind a link, and still our own
        self._last = time.monotonic()

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """See `Checkpoints`. A damaged one is passed over."""
        for progress in self._ledger.progress(self._key):
            if self._ledger.is_whole(progress):
                state = torch.load(progress.path, map_location="cpu", weights_only=True)
                return progress.steps, state
        return None
