"""Keeping a mirror in step with a search that runs. A database that is away stops nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from kdsearch.agenda import Agenda, Attempt, Outcome, Request
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.mirror.mirror import Mirror

SECONDS_AT_THE_END = 20.0
"""How long a search that ended waits for what is still to be written."""
_SECONDS_BETWEEN = 10.0
"""A dashboard need not be newer."""

_Result = tuple[str, Outcome | None]


class MirrorWatch:
    """A `kdsearch.driver.Watch` that brings a mirror up to date now and then, and at the end.

    A thread of its own writes, with an agenda of its own: a database that hangs holds nothing up.
    """

    def __init__(
        self, mirror: Mirror, agenda: Agenda, ledger: Ledger, say: Callable[[str], None]
    ) -> None:
        self._mirror = mirror
        self._agenda = Agenda(agenda.resolved, agenda.results)
        self._ledger = ledger
        self._say = say
        self._behind = True
        self._warned = False
        self._results: queue.Queue[_Result | None] = queue.Queue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def started(self, request: Request) -> None:
        """See `Watch`."""

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        self._results.put((outcome.key, outcome))

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""
        if for_good:
            self._results.put((attempt.key, None))

    def tick(self) -> None:
        """See `Watch`."""

    def close(self, seconds: float = SECONDS_AT_THE_END) -> None:
        """Write what is left, for so long at the most, and say so where the mirror is behind."""
        self._results.put(None)
        self._ending.set()
        self._thread.join(seconds)
        if self._behind:
            self._say(
                f"the mirror {self._mirror.url} is behind; "
                f"`kdsearch mirror {self._ledger.folder} URL` catches up"
            )

    def _follow(self) -> None:
        result = self._results.get()
        while result is not None:
            self._behind = True
            self._agenda.add(*result)
            if self._results.empty():
                self._update()
                self._ending.wait(_SECONDS_BETWEEN)
            result = self._results.get()
        if self._behind:
            self._update()

    def _update(self) -> None:
        """Bring the mirror up to date; the first failure is told."""
        try:
            self._mirror.update(self._agenda, self._ledger)
            self._behind = False
        except (InputError, OSError) as error:
            if not self._warned:
                self._say(
                    f"the mirror {error}; the search continues, and the mirror will be tried again"
                )
            self._warned = True
