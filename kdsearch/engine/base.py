"""The contract of an engine: it takes trainings from a queue, runs them, and says when one ended.

An engine carries no results: a worker commits its outcome to the ledger, and the queue reads it
there. So the order in which trainings end, and what gets lost on the way, cannot change a result.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kdsearch.agenda import Attempt, Outcome, Request, Training
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Ledger

RunTraining = Callable[[Training, Path], Outcome]
"""Runs a training with the files of the study's folder, and returns its outcome."""


class Queue(Protocol):
    """Where an engine gets its trainings."""

    def take(self) -> Request | None:
        """The most urgent training that is not running; None while none can start."""

    def done(self, key: str) -> None:
        """A training ended: its outcome, or a failed attempt, is in the ledger."""

    def lost(self, key: str, message: str) -> None:
        """A training ended without a word: its worker died."""

    def release(self, key: str) -> None:
        """A training was given up through no fault of its own; it will be given out again."""

    @property
    def finished(self) -> int:
        """How many trainings ended since the start."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run, and nothing is running."""


class Engine(Protocol):
    """Something that runs trainings."""

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, until it is complete."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Runs one training where the engine puts it, and commits what became of it.

    Picklable, and small: it is sent to every worker process.
    """

    folder: Path
    run_training: RunTraining

    def __call__(self, training: Training) -> None:
        """Run `training` and commit its outcome. An exception passes through."""
        ledger = Ledger(self.folder)
        if ledger.outcome(training.key) is None:
            ledger.write_outcome(self.run_training(training, self.folder))

    def fail(self, training: Training, error: BaseException) -> None:
        """Commit a failed attempt."""
        kinds: dict[type[BaseException], Literal["storage", "input"]] = {
            StorageError: "storage",
            InputError: "input",
        }
        Ledger(self.folder).write_attempt(
            Attempt(
                key=training.key,
                number=0,
                failure=kinds.get(type(error), "error"),
                message=str(error) if type(error) in kinds else f"{type(error).__name__}: {error}",
                traceback="".join(traceback.format_exception(error)),
                host=socket.gethostname(),
            )
        )
