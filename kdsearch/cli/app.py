"""The commands, and how their errors reach a person: in words, with an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path

import typer

import kdsearch
from kdsearch.cli import (
    care,
    check,
    data,
    export,
    job,
    launch,
    look,
    mirror,
    plan,
    replay,
    stop,
    study,
)
from kdsearch.cli.automatic import INTERRUPTED, check_versions
from kdsearch.errors import InputError, Problem, StorageError, shown, shown_name
from kdsearch.ledger import storage_error

BAD_INPUT = 2
STORAGE = 3

app = typer.Typer(
    name="kdsearch",
    help="Find out, on a GPU cluster, how best to distil a large model into a small one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=(
        "Exit codes: 0 done; 1 something is missing or wrong at the end; 2 bad input; "
        "3 the disk cannot be written; 130 interrupted."
    ),
)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Find out, on a GPU cluster, how best to distil a large model into a small one."""
    if show:
        typer.echo(f"kdsearch {kdsearch.__version__}")
        raise typer.Exit


study.add_to(app)
check.add_to(app)
plan.add_to(app)
data.add_to(app)
launch.add_to(app)
look.add_to(app)
replay.add_to(app)
export.add_to(app)
care.add_to(app)
mirror.add_to(app)
stop.add_to(app)
job.add_to(app)


def main() -> None:
    """Run a command; what a user can cause ends in words and an exit code, not in a traceback."""
    # Twenty thousand outcomes are millions of objects, none of them garbage: looking through them
    # again and again took more than half of the time.
    gc.set_threshold(100_000, 50, 50)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # as τ and · are not in every encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        check_versions(os.environ)
        app()
    except InputError as error:
        for problem in error.problems:
            print(f"kdsearch: {problem}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except StorageError as error:
        print(f"kdsearch: {shown(error)}", file=sys.stderr)
        sys.exit(STORAGE)
    except PermissionError as error:
        remedy = "its owner can allow it: chmod -R g+rX, or o+rX"
        place, what = error.filename or "a file", "you have no permission to read or write it"
        print(f"kdsearch: {Problem(place=str(place), what=what, remedy=remedy)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.filename is None:
            raise
        place = Path(shown_name(error.filename))
        print(f"kdsearch: {storage_error(place, error)}", file=sys.stderr)
        sys.exit(STORAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
