"""Keeping a mirror in step with a search that runs. A database that is away stops nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.agenda import Agenda, Attempt, Outcome, Request
from kdsearch.mirror.mirror import Mirror

SECONDS_BETWEEN = 10.0
"""A dashboard need not be newer, and a search must not wait for a database."""
_log = logging.getLogger(__name__)


class MirrorWatch:
    """A `kdsearch.driver.Watch` that brings a mirror up to date now and then, and at the end."""

    def __init__(
        self, mirror: Mirror, agenda: Agenda, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._mirror = mirror
        self._agenda = agenda
        self._folder = folder
        self._say = say
        self._due = time.monotonic() + SECONDS_BETWEEN
        self._warned = False

    def started(self, request: Request) -> None:
        """See `Watch`."""

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        if time.monotonic() >= self._due:
            self.update()

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""

    def update(self) -> None:
        """Bring the mirror up to date; of failures in a row the first is told."""
        try:
            self._mirror.update(self._agenda, self._folder)
            self._warned = False
        except (OptunaError, SQLAlchemyError, OSError) as error:
            _log.warning("the mirror could not be written: %s", error)
            if not self._warned:
                self._say(
                    f"the mirror {self._mirror.url} could not be written; the search goes on, and "
                    f"`kdsearch mirror {self._folder} URL` catches up"
                )
            self._warned = True
        self._due = time.monotonic() + SECONDS_BETWEEN
