"""`mirror`: a study's results in an Optuna storage."""

from __future__ import annotations

from typing import Annotated

import typer

from kdsearch.cli.options import StudyFolder, console, count, example, open_folder


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch mirror runs/quickstart sqlite:///quickstart.db"))(mirror)


def mirror(
    folder: StudyFolder,
    url: Annotated[
        str,
        typer.Argument(
            help="sqlite:///FILE, or postgresql+psycopg://USER:PASSWORD@HOST/NAME.", metavar="URL"
        ),
    ],
) -> None:
    """Bring an Optuna storage in step with a study, for optuna-dashboard."""
    # Optuna takes a second to import, which other commands do not need.
    from kdsearch.mirror import WARNING, Mirror

    ledger, agenda = open_folder(folder)
    storage = Mirror(url)
    added = storage.update(agenda, ledger)
    out = console()
    out.print(f"{count(added, 'trial')} added to {storage.url}; look: optuna-dashboard URL")
    out.print(WARNING)
