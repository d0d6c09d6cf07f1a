"""The report of a search that runs: every few minutes, and however it ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kdsearch.agenda import Agenda
from kdsearch.errors import first_line, shown
from kdsearch.ledger import Ledger
from kdsearch.report import write_report

SECONDS_BETWEEN = 300.0


def start_report(folder: Path) -> subprocess.Popen[bytes]:
    """A process that writes the report of a study's folder.

    It outlives this one, which may have no time to write it, and what goes wrong there goes wrong
    nowhere else.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "report", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is meant for this one
    )


@contextmanager
def reporting(
    ledger: Ledger, say: Callable[[str], None], seconds: float = SECONDS_BETWEEN
) -> Iterator[None]:
    """Have the report written every so many `seconds`, and when an error ends what runs inside.

    The first time that it cannot be written, `say` is told.
    """
    over = threading.Event()

    def write() -> None:
        told = False
        while not over.wait(seconds):
            process = start_report(ledger.folder)
            while process.poll() is None and not over.wait(0.2):
                pass
            if process.poll() is None:  # the last one is written by others, and must stand
                process.kill()
                process.wait()
            elif process.returncode and not told:
                told = True
                say(f"the report cannot be written; to see why: kdsearch report {ledger.folder}")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        start_report(ledger.folder)
        raise
    finally:
        over.set()
        thread.join()


def report_so_far(ledger: Ledger, agenda: Agenda) -> tuple[Path, Agenda]:
    """Write the report of a study that may be searched right now; its page, and what it is of.

    A launch that completed the study in the meantime has written its own report, which an older
    one must not replace: then it is written again.
    """
    page = write_report(ledger, agenda)
    if agenda.complete:
        return page, agenda
    now = Agenda(ledger.resolved(), ledger.results())
    return (write_report(ledger, now), now) if now.complete else (page, agenda)


def last_report(ledger: Ledger, agenda: Agenda) -> Path | None:
    """Write the report of a search that has ended; None, and a line, if that fails.

    The search is none the worse for it.
    """
    try:
        return write_report(ledger, agenda)
    except Exception as error:
        print(
            f"kdsearch: the report could not be written: {shown(first_line(error))}; "
            f"to try again: kdsearch report {ledger.folder}",
            file=sys.stderr,
        )
        return None
