"""Between agenda, ledger and engine: hands out trainings and takes in what became of them."""

from __future__ import annotations

import socket
from typing import Protocol

from kdsearch.agenda import Agenda, Attempt, Outcome, Request
from kdsearch.ledger import Ledger


class Watch(Protocol):
    """Someone who follows a search: a progress display, a log, a monitor."""

    def started(self, request: Request) -> None:
        """A training was handed to the engine."""

    def finished(self, request: Request, outcome: Outcome) -> None:
        """A training has its outcome."""

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """A training failed; `for_good` if it will not be tried again."""


class Dispatcher:
    """The queue of an engine (see `kdsearch.engine.Queue`)."""

    def __init__(self, agenda: Agenda, ledger: Ledger, watches: tuple[Watch, ...] = ()) -> None:
        self._agenda = agenda
        self._ledger = ledger
        self._watches = watches
        self._running: dict[str, Request] = {}
        self._tries = agenda.resolved.study.tries
        self._waiting: list[Request] | None = None

    @property
    def running(self) -> tuple[Request, ...]:
        """What the engine has in hand."""
        return tuple(self._running.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run, and nothing is running."""
        return not self._running and self._agenda.complete

    def take(self) -> Request | None:
        """The most urgent training that is not running; None while none can start."""
        if self._waiting is None:
            requests = self._agenda.requests()
            self._waiting = [r for r in reversed(requests) if r.training.key not in self._running]
        if not self._waiting:
            return None
        request = self._waiting.pop()
        self._running[request.training.key] = request
        for watch in self._watches:
            watch.started(request)
        return request

    def done(self, key: str) -> None:
        """A training ended: take in the outcome, or the failed attempt, that the ledger has."""
        request = self._running.pop(key)
        self._waiting = None
        outcome = self._ledger.outcome(key)
        if outcome is not None:
            self._agenda.add(key, outcome)
            for watch in self._watches:
                watch.finished(request, outcome)
            return
        attempts = self._ledger.attempts_of(key)
        for_good = len(attempts) >= self._tries
        if for_good:
            self._agenda.add(key, None)
        for watch in self._watches:
            watch.failed(request, attempts[-1], for_good=for_good)

    def lost(self, key: str, message: str) -> None:
        """A training ended without a word; its outcome may have been committed all the same."""
        if self._ledger.outcome(key) is None:
            attempt = Attempt(
                key=key,
                number=0,
                failure="worker_lost",
                message=message,
                host=socket.gethostname(),
            )
            self._ledger.write_attempt(attempt)
        self.done(key)
