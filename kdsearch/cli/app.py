"""The commands, and how their errors reach a person: in words, with an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

import kdsearch
from kdsearch.cli import (
    care,
    check,
    data,
    explain,
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
from kdsearch.cli.failing import Commands, fail
from kdsearch.errors import InputError, Problem, StorageError, shown, shown_name
from kdsearch.ledger import storage_error

BAD_INPUT = 2
STORAGE = 3
_COMPLETE = "_KDSEARCH_COMPLETE"
"""What a shell sets to have a command line completed, or to learn how."""

app = typer.Typer(
    name="kdsearch",
    cls=Commands,
    help="Find out, on a GPU cluster, how best to distil a large model into a small one.",
    no_args_is_help=True,
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
explain.add_to(app)
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
    shell, _, source = os.environ.get(_COMPLETE, "").partition("_")
    if source == "source":  # as click says it, where typer says source_bash
        os.environ[_COMPLETE] = f"source_{shell}"
    try:
        check_versions(os.environ)
        app(prog_name="kdsearch")
    except InputError as error:
        fail(error.problems, BAD_INPUT)
    except StorageError as error:
        _fail_to_store(error)
    except PermissionError as error:
        remedy = "its owner can allow it: chmod -R g+rX, or o+rX"
        place, what = error.filename or "a file", "you have no permission to read or write it"
        fail([Problem(place=str(place), what=what, remedy=remedy)], BAD_INPUT)
    except OSError as error:
        if error.filename is None:
            raise
        _fail_to_store(storage_error(Path(shown_name(error.filename)), error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _fail_to_store(error: StorageError) -> NoReturn:
    text = shown(error)
    fail([Problem(place="the study's folder", what=text)], STORAGE, text)
