"""`stop` and `retry`; and how a launch that runs is stopped."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, get_args

import typer
from rich.console import Console

from kdsearch.agenda import Failure, used
from kdsearch.api import open_folder
from kdsearch.cli.automatic import INCOMPLETE, INTERRUPTED, in_job, stopped_by_person
from kdsearch.cli.job import Dashboard, run_there
from kdsearch.cli.options import StudyFolder, console, count, example
from kdsearch.cli.reporting import start_report
from kdsearch.driver import Deadline
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_lock, driver_of, leave

_GRACE_SECONDS = 1.0
"""To clean up in: what stops a job, such as `ray job stop`, kills it a moment later."""
_SECONDS_BETWEEN = 1.0
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=example("kdsearch stop runs/quickstart --drain"))(stop)
    app.command(epilog=example("kdsearch retry runs/quickstart --class gpu_oom"))(retry)


def stop(
    folder: StudyFolder,
    drain: Annotated[
        bool, typer.Option("--drain", help="Let running trainings finish, and start nothing new.")
    ] = False,
    address: Dashboard = None,
) -> None:
    """Stop the search that is running in a folder, on whatever machine."""
    if address is not None:
        run_there(address, "stop", folder, *["--drain"] * drain)
        return
    ledger, _ = open_folder(folder)
    driver = driver_of(ledger.folder)
    if driver is None:
        raise InputError.one(folder, "has no running search", "there is nothing to stop")
    ledger.ask_to_stop(drain=drain, person=stopped_by_person(os.environ))
    who = f"process {driver['pid']} on {driver['host']}"
    console().print(f"asked {who} to stop{' once what is running has finished' if drain else ''}")


def retry(
    folder: StudyFolder,
    kind: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="Only those whose last try failed in this way."
        ),
    ] = None,
    address: Dashboard = None,
) -> None:
    """Have the trainings that failed for good tried again at the next launch."""
    if kind is not None and kind not in get_args(Failure):
        raise InputError.one(
            "--class", f"{kind} is not a class", f"available: {', '.join(get_args(Failure))}"
        )
    if address is not None:
        run_there(address, "retry", folder, *[f"--class={kind}"] * (kind is not None))
        return
    ledger, agenda = open_folder(folder)
    with driver_lock(ledger.folder):
        attempts = ledger.attempts()
        failed = [
            key
            for key, result in used(agenda).items()
            if result is None and kind in (None, attempts[key][-1].failure)
        ]
        for key in failed:
            ledger.forgive(key)
    out = console()
    out.print(f"{count(len(failed), 'training')} will be tried again")
    if failed:
        out.print("to resume, run the command that launched the search")


def parse_deadline(text: str) -> Deadline:
    """What `--deadline` says: a time from now, or a moment. Raises `InputError`."""
    if span := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        seconds = float(span[1]) * _SECONDS[span[2]]
    else:
        try:
            seconds = datetime.fromisoformat(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            remedy = "give one such as 90m, 11.5h, 2d or 2026-12-24T08:00"
            raise InputError.one("--deadline", f"{text!r} is not a time", remedy) from None
    if seconds <= 0:
        raise InputError.one("--deadline", f"{text} is in the past", "give a later time")
    return Deadline(at=time.monotonic() + seconds)


@contextmanager
def stoppable(ledger: Ledger, out: Console, deadline: Deadline | None) -> Iterator[None]:
    """Have signals, `kdsearch stop` and a deadline stop what runs inside; say how to go on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stopping = stop_on_signals(out, ledger)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN):
            late = deadline is not None and time.monotonic() >= deadline.at
            if late:
                out.print("the deadline has been reached")
            if late or ledger.stop_asked() == "now":
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        # Raised within a library's callback, an interrupt may come out as another exception.
        if not (stopping.is_set() or isinstance(error, KeyboardInterrupt)):
            raise
        if _stop_code(ledger) == 0:
            raise typer.Exit from None
        raise KeyboardInterrupt from None
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_signals(out: Console, ledger: Ledger) -> threading.Event:
    """Stop on SIGTERM and Ctrl-C, within seconds; drain on SIGUSR1. Says whether it is stopping."""
    stopping = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if stopping.is_set():  # once is enough
            return
        stopping.set()
        # What is still to be cleaned up then is Ray's, which ends with this process.
        timer = threading.Timer(_GRACE_SECONDS, _end, (ledger, _stop_code(ledger)))
        timer.daemon = True
        timer.start()
        out.print("\nstopped; what was finished is kept")
        resume_hint(out)
        _report(ledger)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    # It is how schedulers say that a job is nearly over; the next one is not bound by it.
    signal.signal(
        signal.SIGUSR1, lambda number, frame: ledger.ask_to_stop(drain=True, person=False)
    )
    return stopping


def _stop_code(ledger: Ledger) -> int:
    """The exit code of a launch that is cut off now: see `exit_code`."""
    return 0 if in_job(os.environ) and ledger.stopped_by_person() else INTERRUPTED


def give_up(ledger: Ledger, out: Console, what: str) -> None:
    """End this process, whatever its main thread is blocked in; from another thread."""
    out.print(f"\nkdsearch: {what}; what was finished is kept")
    resume_hint(out)
    _report(ledger)
    _end(ledger, INCOMPLETE)


def _report(ledger: Ledger) -> None:
    """Have the report written by a process of its own: this one must be gone in a second or two."""
    if ledger.exists:
        start_report(ledger.folder)


def resume_hint(out: Console) -> None:
    """Say how to go on. There is no password in it: `storage_url` refused it."""
    how = f": kdsearch {shlex.join(sys.argv[1:])}"
    # In a job it is the command that submitted it, which is not known here.
    out.print(f"to resume, run the same command{'' if in_job(os.environ) else how}")


def _end(ledger: Ledger, code: int) -> None:
    leave(ledger.folder)
    sys.stdout.flush()
    os._exit(code)
