"""`mirror`: a study's results in an Optuna storage."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from kdsearch.api import open_folder
from kdsearch.cli.options import StudyFolder, console, count, example
from kdsearch.errors import InputError


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch mirror runs/quickstart sqlite:///quickstart.db"))(mirror)


def mirror(
    folder: StudyFolder,
    url: Annotated[
        str | None,
        typer.Argument(
            help="sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME; @FILE reads it from a "
            "file. Default: KDSEARCH_OPTUNA.",
            metavar="[URL]",
        ),
    ] = None,
) -> None:
    """Bring an Optuna storage up to date with a study, for optuna-dashboard."""
    # Optuna takes a second to import, which other commands do not need.
    from kdsearch.mirror import VARIABLE, WARNING, Mirror, storage_url

    ledger, agenda = open_folder(folder)
    found = storage_url(url)
    if found is None:
        raise InputError.one("URL", "is missing", f"give it, or set {VARIABLE}")
    storage = Mirror(found)
    added = storage.update(agenda, ledger)
    dashboard = f"optuna-dashboard {shlex.quote(storage.url)}"  # its passwords are hidden
    out = console()
    out.print(f"{count(added, 'trial')} added; to see them: {dashboard}")
    if any(view.search.flips for view in agenda.views()):
        out.print(WARNING)
