"""The contract of an engine: it takes trainings from a queue, runs them, and says when one ended.

An engine carries no results: a worker commits its outcome to the ledger, and the queue reads it
there. So the order in which trainings end, and what gets lost on the way, cannot change a result.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kdsearch.agenda import Attempt, Bundle, Failure, Outcome, Training
from kdsearch.errors import InputError, MemoryExhaustedError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Role


class EngineError(Exception):
    """The machines do not let the search go on; what was finished is kept."""


RunTraining = Callable[[Training, Path], Outcome]
"""Runs a training with the files of the study's folder, and returns its outcome."""
RunTogether = Callable[[Sequence[Any], Path], Sequence[Outcome]]
"""Runs several that are alike in one pass, and returns their outcomes."""


def no_limit(gpus: float) -> None:
    """Let a process have what it finds."""


class Queue(Protocol):
    """Where an engine gets its trainings."""

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        """The most urgent training of these roles that is not running; () if none can start.

        Further ones come with it that may run in one pass. While none waits, it may be one that may
        be asked for later: see `ahead`.
        """

    def done(self, key: str) -> None:
        """A training ended: its outcome, or a failed attempt, is in the ledger."""

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        """A training ended without a word: its worker died, on the node of this host name."""

    def release(self, key: str) -> None:
        """A training was given up through no fault of its own; it will be given out again."""

    @property
    def finished(self) -> int:
        """How many trainings ended since the start, with an outcome or a failed try."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run, and nothing is running but `ahead`."""

    @property
    def wanted(self) -> int:
        """How many bundles could run at once now: those that run, and those that could start.

        Without those that run `ahead`.
        """

    @property
    def ready(self) -> Iterable[Role]:
        """The role of each bundle that could start now, the most urgent first."""

    @property
    def ahead(self) -> Collection[str]:
        """The keys of trainings that run where a slot would be idle, and that nothing asks for.

        No slot is held or asked for to run them, and at the end they are given up.
        """


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where one bundle runs at a time."""

    name: str
    node: str
    keys: tuple[str, ...] = ()
    """Of the trainings that it runs; none while it waits for some."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The slots of an engine at a moment."""

    slots: tuple[Slot, ...] = ()
    """Those that can run a training."""
    waiting: int = 0
    """How many more were asked for, and wait for room or start."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Nodes that get no slot, by name, and why."""


class Engine(Protocol):
    """Something that runs trainings."""

    @property
    def fleet(self) -> Fleet:
        """The slots there are now."""

    @property
    def room(self) -> int:
        """How many students could run at once on the machines there are, as far as it is known."""

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, until it is complete."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Runs a bundle of trainings where the engine puts it, and commits what became of each.

    Picklable, and small: it is sent to every worker process.
    """

    folder: Path
    run_training: RunTraining
    run_together: RunTogether | None = None
    """Runs several in one pass; without it they run one after the other."""
    limit: Callable[[float], None] = no_limit
    """Called in each process before its first training with the GPUs that are its own: to leave
    the others what is theirs."""

    def __call__(self, *trainings: Training) -> None:
        """Run those that have no outcome, and commit theirs. An exception passes through.

        Nothing is started of a search that is to drain.
        """
        ledger = Ledger(self.folder)
        left = _without_outcome(ledger, trainings)
        if left and ledger.stop_asked():
            return
        for outcome in self._outcomes(left):
            ledger.write_outcome(outcome)
        for training in trainings:
            ledger.remove_progress(training.key)

    def _outcomes(self, trainings: Sequence[Training]) -> Iterable[Outcome]:
        if len(trainings) > 1 and self.run_together is not None:
            return self.run_together(trainings, self.folder)
        return (self.run_training(training, self.folder) for training in trainings)

    def fail(self, error: BaseException, *trainings: Training) -> None:
        """Commit a failed attempt of each that has no outcome."""
        failure, message = _failure(error)
        ledger = Ledger(self.folder)
        for training in _without_outcome(ledger, trainings):
            ledger.write_attempt(
                Attempt(
                    key=training.key,
                    number=0,
                    failure=failure,
                    message=message,
                    traceback="".join(traceback.format_exception(error)),
                    host=socket.gethostname(),
                    fused=len(trainings),
                )
            )


def _without_outcome(ledger: Ledger, trainings: Iterable[Training]) -> list[Training]:
    return [training for training in trainings if ledger.outcome(training.key) is None]


def _failure(error: BaseException) -> tuple[Failure, str]:
    """The class of a failure, and what to say of it."""
    match error:
        case StorageError():
            return "storage", str(error)
        case InputError():
            return "input", str(error)
        case MemoryExhaustedError():
            return ("gpu_oom" if error.gpu else "host_oom"), str(error)
        case _:
            return "error", f"{type(error).__name__}: {error}"
