"""Following a search: a progress display for people, a log, a note for `kdsearch status`."""

from __future__ import annotations

import contextlib
import json
import logging
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from kdsearch.agenda import Agenda, Attempt, Outcome, Request, best_so_far
from kdsearch.analysis import Facts, at_floor, floor_of
from kdsearch.analysis.floor import ROUNDING
from kdsearch.driver.estimate import estimate
from kdsearch.engine import Engine
from kdsearch.errors import StorageError, shown
from kdsearch.ledger import Ledger, layout, open_own
from kdsearch.study import TestCase

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_NOTES = 1.0
_LONGEST_MESSAGE = 300


class Watch(Protocol):
    """Someone who follows a search. A class that derives from it need not heed everything."""

    def started(self, request: Request) -> None:
        """A training was handed to the engine."""
        return

    def finished(self, request: Request, outcome: Outcome) -> None:
        """A training has its outcome."""
        return

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """A training failed; `for_good` if it will not be tried again."""
        return

    def tick(self) -> None:
        """Time has passed: about a second, unless a training blocks the driver itself."""
        return


class _Lines(logging.StreamHandler[IO[str]]):
    """A log file that is no reason to stop or to shout when its disk is full."""

    def format(self, record: logging.LogRecord) -> str:
        """A line without what would control a terminal."""
        return shown(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line."""


class Log(Watch):
    """Writes a line per event to `launch.log`, with the test case, the stage and the key."""

    def __init__(self, folder: Path) -> None:
        self._log = logging.getLogger("kdsearch.search")
        self._file = open_own(folder / layout.LOG, "a")
        self._handler = _Lines(self._file)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.addHandler(self._handler)
        self._log.setLevel(logging.INFO)
        self._log.propagate = False

    def close(self) -> None:
        """Close the file."""
        self._log.removeHandler(self._handler)
        with contextlib.suppress(OSError):  # what a full disk did not take
            self._file.close()

    def started(self, request: Request) -> None:
        """See `Watch`."""
        self._log.info("%s started: %s", request, request.training)

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        score = outcome.validation
        without = outcome.wrote_nothing or outcome.state
        scored = without if score is None else f"validation={score:.4f}"
        if outcome.test is not None and not any(map(layout.is_tested, outcome.digests)):
            scored += ", but no test rows are kept, so that its noise is not known"
        self._log.info("%s finished in %.1f s: %s", request, outcome.cost.seconds, scored)

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""
        self._log.error("%s %s", request, _failure(attempt, for_good=for_good))

    def warn(self, line: str) -> None:
        """Write a line about what is perhaps wrong."""
        self._log.warning("%s", line)


class FloorWatch(Watch):
    """Warns, once, of each test case whose first students are all at the floor."""

    def __init__(self, agenda: Agenda, facts: Facts, warn: Iterable[Callable[[str], None]]) -> None:
        self._agenda = agenda
        self._facts = facts
        self._warn = tuple(warn)
        self._known: set[TestCase] = set()
        """Those that were warned of, or have left the floor."""

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        case, name = request.case, request.case.dataset
        if request.role != "student" or outcome.validation is None or case in self._known:
            return
        best = best_so_far(self._agenda, case)
        floor = floor_of(self._agenda.resolved.datasets[name], self._facts.get(name))
        if best is not None and best > floor + ROUNDING:
            self._known.add(case)
            return
        view = next(view for view in self._agenda.views() if view.case == case)
        found = at_floor(self._agenda, view, self._facts)
        if found is not None:
            self._known.add(case)
            for warn in self._warn:
                warn(str(found))


class Note(Watch):
    """Keeps `running.json`: the slots, and what runs since when, for `kdsearch status`.

    It is written once a second at most: on a network disk each time takes a while.
    """

    def __init__(self, ledger: Ledger, engine: Engine) -> None:
        self._ledger = ledger
        self._engine = engine
        self._running: dict[str, dict[str, object]] = {}
        self._text = ""
        self._due = 0.0
        self._between = False
        """Whether a training has just ended, and what its slot runs next is not told yet."""
        self.close()

    def started(self, request: Request) -> None:
        """See `Watch`."""
        self._running[request.training.key] = {
            "case": str(request.case),
            "stage": request.stage,
            "training": str(request.training),
            "since": time.time(),
        }
        self._between = False
        self._write()

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        self._running.pop(request.training.key, None)
        self._between = True

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""
        self._running.pop(request.training.key, None)
        self._between = True

    def tick(self) -> None:
        """See `Watch`."""
        if self._between:  # a slot that is idle for a moment would look so for a second
            self._between = False
            return
        self._write()

    def close(self) -> None:
        """Write what holds now."""
        self._due = 0.0
        self._write()

    def _write(self) -> None:
        """Write the note if it says anything new, and is due."""
        now = time.monotonic()
        if now < self._due:
            return
        fleet = self._engine.fleet
        note = {
            "slots": max(1, len(fleet.slots)),
            "fleet": {**vars(fleet), "slots": [vars(slot) for slot in fleet.slots]},
            "running": self._running,
        }
        text = json.dumps(note, indent=1, ensure_ascii=False)
        if text == self._text:
            return
        # One slot may be this process itself, for which no time passes while it trains.
        self._due = now + _SECONDS_BETWEEN_NOTES if len(fleet.slots) > 1 else 0.0
        with contextlib.suppress(StorageError):  # the outcomes say when the disk is full
            self._ledger.write(layout.RUNNING, text)
            self._text = text


def note_launch(ledger: Ledger, what: str) -> None:
    """Have `kdsearch status` say what a launch does whose search has not begun."""
    with contextlib.suppress(StorageError):  # see `Note`
        ledger.write(layout.RUNNING, json.dumps({"launching": what}, ensure_ascii=False))


class Display(Watch):
    """A progress bar in a terminal; elsewhere a line every ten seconds."""

    def __init__(self, agenda: Agenda, engine: Engine, console: Console) -> None:
        self._agenda = agenda
        self._engine = engine
        self._console = console
        self._running = 0
        self._last_line = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, left="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, request: Request) -> None:
        """See `Watch`."""
        self._running += 1
        self._show(f"{request.case} · {request.stage}")

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        self._running -= 1

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""
        self._running -= 1
        self._bar.console.print(
            shown(
                f"{request.case} · {request.stage} · {request.training} "
                f"{_failure(attempt, for_good=for_good)}"
            ),
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def warn(self, line: str) -> None:
        """Print a line about what is perhaps wrong."""
        self._bar.console.print(
            shown(f"warning: {line}"), style="yellow", highlight=False, markup=False, soft_wrap=True
        )

    def _show(self, doing: str) -> None:
        now = time.monotonic()
        between = 1.0 if self._console.is_terminal else _SECONDS_BETWEEN_LINES
        if now - self._last_line < between:
            return
        self._last_line = now
        slots = len(self._engine.fleet.slots)
        state = estimate(self._agenda, max(1, slots))
        total = state.done + state.left.most
        fewest = state.done + state.left.fewest
        of = f"{fewest}" if fewest == total else f"{fewest} to {total}"
        text = f"{state.done} of {of} students"
        if self._console.is_terminal:
            left = f"{state.in_words()} · {doing}"
            self._bar.update(
                self._task, description=text, completed=state.done, total=total, left=left
            )
        else:
            self._console.print(
                f"{text} · {self._running} running · {state.in_words()} · {doing}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def _failure(attempt: Attempt, *, for_good: bool) -> str:
    """What a failed try was, on one line: its class, where it ran, and where its traceback is."""
    what = "failed for good" if for_good else "failed, will be tried again"
    message = textwrap.shorten(attempt.message, _LONGEST_MESSAGE, placeholder=" …")
    return f"{what} ({attempt.what}): {message}; see {layout.file_of(attempt)}"
