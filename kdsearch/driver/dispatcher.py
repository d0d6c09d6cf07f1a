"""Between agenda, ledger and engine: hands out trainings and takes in what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from kdsearch.agenda import (
    Agenda,
    Attempt,
    Bundle,
    Bundling,
    Failure,
    Request,
    Speculation,
    failed_for_good,
    share_of,
)
from kdsearch.driver.deadline import Deadline
from kdsearch.driver.watch import Watch
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Role

_SECONDS_BETWEEN_TICKS = 1.0


class Dispatcher:
    """The queue of an engine (see `kdsearch.engine.Queue`)."""

    def __init__(
        self,
        agenda: Agenda,
        ledger: Ledger,
        watches: tuple[Watch, ...] = (),
        deadline: Deadline | None = None,
        room: Callable[[], int] = lambda: 1,
        speculation: Speculation | None = None,
    ) -> None:
        """`room`: how many students could run at once on the machines there are.

        `speculation`: what may run where a slot would be idle, ahead of the decisions.
        """
        self._deadline = deadline
        self._drains = False
        self._agenda = agenda
        self._ledger = ledger
        self._watches = watches
        self._room = room
        self._speculation = speculation
        self._running: dict[str, Request] = {}
        self._bundles: dict[str, Bundle] = {}
        """Of each training that runs, what its slot was given at once."""
        self._ahead: set[str] = set()
        """Of what runs, what nothing had asked for when that was looked at last."""
        self._failed = set(ledger.attempts())
        """What has failed before, here or under an earlier driver."""
        self._bundling = Bundling(agenda.resolved, self._failed)
        self._attempts: dict[str, int] = {}
        self._tries = agenda.resolved.study.tries
        self._finished = 0
        self._ticked = time.monotonic()

    @property
    def running(self) -> tuple[Request, ...]:
        """What the engine has in hand."""
        return tuple(self._running.values())

    @property
    def finished(self) -> int:
        """How many trainings ended since the start."""
        return self._finished

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run, or may be started, and nothing is running.

        Nobody waits for what runs ahead: it is given up.
        """
        return not self._needed_run and (self._drains or self._agenda.complete)

    @property
    def _needed_run(self) -> bool:
        """Whether anything runs that is asked for."""
        return len(self._running) > len(self.ahead)

    @property
    def wanted(self) -> int:
        """How many bundles could run at once now: those that run, and those that could start.

        Without those that run ahead, for which no slot is held or asked for.
        """
        firsts = {bundle[0].training.key for bundle in self._bundles.values()}
        running = len(firsts.difference(self.ahead))
        if not self._bundling:
            return running + self._agenda.count(self._startable(), but=self._running)
        return running + sum(1 for _ in self.ready)

    @property
    def ahead(self) -> Collection[str]:
        """The keys of what runs ahead of a decision that may ask for it."""
        self._ahead = {key for key in self._ahead if not self._agenda.asks_for(key)}
        return self._ahead

    @property
    def ready(self) -> Iterator[Role]:
        """The role of each bundle that could start now, the most urgent first."""
        roles = self._startable()
        startable = (request for request in self._ready() if request.role in roles)
        return self._bundling.roles(startable, self._share())

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        """The most urgent training of these roles that is not running; () while none can start.

        Further ones come with it that may run in one pass. While nothing waits, one that may be
        asked for later. Nothing starts that would not end before the deadline. Nothing for good
        once the search drains.
        """
        self._see_whether_it_drains()
        self._tick()
        able = set(roles).intersection(self._in_time())
        ready = self._ready()
        first = next((request for request in ready if request.role in able), None)
        if first is None:
            bundle = self._next_ahead(able)
        else:
            bundle = self._bundling.take(first, ready, self._share())
        for request in bundle:
            key = request.training.key
            self._running[key] = request
            self._bundles[key] = bundle
            self._attempts[key] = len(self._ledger.attempts_of(key))
            for watch in self._watches:
                watch.started(request)
        return bundle

    def _next_ahead(self, roles: Collection[Role]) -> Bundle:
        """The likeliest that may be asked for later, if nothing waits that is; it runs from now."""
        waits = self._agenda.count(but=self._running) > 0
        if self._speculation is None or self._drains or waits or "student" not in roles:
            return ()
        for request in self._speculation:
            key = request.training.key
            known = key in self._running or key in self._agenda.results
            if not known and key not in self._failed:  # that is tried again when it is needed
                self._ahead.add(key)
                return (request,)
        return ()

    def _share(self) -> int:
        """How many trainings of all that run and could start are a slot's."""
        if not self._bundling:
            return 1
        startable = self._agenda.count(self._in_time(), but=self._running)
        asked_for = len(self._running) - len(self.ahead) + startable
        return share_of(asked_for, self._room())

    def _tick(self) -> None:
        """Tell that time has passed: an engine asks for work once a second, whatever happens."""
        if time.monotonic() - self._ticked >= _SECONDS_BETWEEN_TICKS:
            self._ticked = time.monotonic()
            self._see_whether_it_drains()  # no more slots are waited for then
            for watch in self._watches:
                watch.tick()

    def _see_whether_it_drains(self) -> None:
        if self._deadline is not None and not self._needed_run:
            # What runs may be followed by something shorter.
            roles = {request.role for request in self._ready()}
            if roles and roles.isdisjoint(self._in_time()):
                self._ledger.ask_to_stop(drain=True, person=False)
        self._drains = self._drains or self._ledger.stop_asked() is not None

    def _startable(self) -> Collection[Role]:
        """The roles whose trainings could start now."""
        if not self._needed_run:  # while the first slot is waited for, nothing is taken
            self._see_whether_it_drains()
        self._tick()
        return () if self._drains else self._in_time()

    def _in_time(self) -> Collection[Role]:
        """The roles whose trainings may start as far as the deadline goes."""
        return ROLES if self._deadline is None else self._deadline.in_time(self._agenda)

    def _ready(self) -> Iterator[Request]:
        """What could start now but for the deadline, the most urgent first."""
        if not self._drains:
            for request in self._agenda.by_urgency():
                if request.training.key not in self._running:
                    yield request

    def done(self, key: str) -> None:
        """A training ended: take in the outcome, or the failed attempt, that the ledger has.

        Raises `StorageError` or `InputError` where the disk or the files failed the training: the
        others would fare no better, so the search must stop until that is fixed.
        """
        outcome = self._ledger.outcome(key)
        attempts = self._ledger.attempts_of(key)
        if outcome is None and len(attempts) <= self._attempts[key]:
            if self._ledger.stop_asked():  # it was not begun
                self._drains = True
                self.release(key)
                return
            self._write_lost(key, "it ended without an outcome", "worker_lost")
            attempts = self._ledger.attempts_of(key)
        self._ledger.forget_watchdog(key)
        request = self._running.pop(key)
        del self._bundles[key]
        self._ahead.discard(key)
        if self._speculation is not None:
            self._speculation.forget(request.case)
        self._finished += 1
        if outcome is not None:
            self._agenda.add(key, outcome)
            for watch in self._watches:
                watch.finished(request, outcome)
            return
        self._failed.add(key)
        for_good = failed_for_good(attempts, self._tries)
        if for_good:
            self._agenda.add(key, None)
        for watch in self._watches:
            watch.failed(request, attempts[-1], for_good=for_good)
        if attempts[-1].failure == "storage":
            raise StorageError(attempts[-1].message)
        if attempts[-1].failure == "input":
            raise InputError.one(request.training, attempts[-1].message)

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        """A training ended without a word to the engine; the worker may have committed one."""
        told = len(self._ledger.attempts_of(key)) > self._attempts[key]
        if self._ledger.outcome(key) is None and not told:
            self._write_lost(key, message, failure, node)
        self.done(key)

    def _write_lost(self, key: str, message: str, failure: Failure, node: str = "") -> None:
        """Record a try whose worker could not. Its watchdog, if it ended it, says where it hung."""
        hung = self._ledger.hung(key)
        if hung:
            failure, message = "timeout", "it took longer than resources.hours and was ended"
        self._ledger.write_attempt(
            Attempt(
                key=key,
                number=0,
                failure=failure,
                message=message,
                traceback=hung,
                host=node,
                fused=len(self._bundles[key]),
            )
        )

    def release(self, key: str) -> None:
        """A training was given up through no fault of its own; it will be given out again."""
        self._running.pop(key, None)
        self._bundles.pop(key, None)
        self._ahead.discard(key)
