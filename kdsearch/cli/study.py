"""`new` and `validate`: beginning with a study file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from kdsearch.cli.options import Json, Models, StudyFile, count, example, parse_models
from kdsearch.errors import InputError
from kdsearch.study import load_study, shipped_studies, test_cases

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a study's, which is that of its file


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=example("kdsearch new my-study --from mrpc"))(new)
    app.command(epilog=example("kdsearch validate search_spaces/mrpc.yaml"))(validate)


def new(
    name: Annotated[str, typer.Argument(help="Writes NAME.yaml here.", metavar="NAME")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="The shipped study to copy. Default: NAME, else quickstart."),
    ] = None,
) -> None:
    """Copy a shipped study file to start from."""
    shipped = shipped_studies()
    chosen = source or (name if name in shipped else "quickstart")
    if chosen not in shipped:
        raise InputError.one(
            "--from", f"{chosen} is not a shipped study", f"available: {', '.join(shipped)}"
        )
    target = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if not _NAME.fullmatch(target.stem):
        remedy = "use letters, digits and . _ -, beginning with a letter or a digit"
        raise InputError.one("NAME", f"{name!r} is not a name for a study", remedy)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(shipped[chosen].read_text(encoding="utf-8"))
    except FileExistsError:
        raise InputError.one(target, "already exists", "choose another name") from None
    except OSError as error:
        raise InputError.one(target, f"cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {target}, a copy of {chosen}; next: kdsearch validate {target}")


def validate(study_file: StudyFile, model: Models = None, as_json: Json = False) -> None:
    """Check a study file: every problem at once, each with its place. Needs no data or network.

    `check` looks at the data and the models too.
    """
    study = load_study(study_file, models=parse_models(model))
    cases = test_cases(study)
    if as_json:
        typer.echo(json.dumps({"name": study.name, "cases": [str(case) for case in cases]}))
    else:
        typer.echo(f"{study_file}: fine; {count(len(cases), 'test case')}:")
        for case in cases:
            typer.echo(f"  {case}")
