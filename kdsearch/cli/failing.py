"""How a command fails: in words for a person, under `--json` also as JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from kdsearch.errors import Problem

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""click's, which typer gives no name of its own."""
FAILED = "kdsearch: "
"""How a line begins that says what is wrong."""


def fail(problems: Iterable[Problem], code: int, text: str | None = None) -> NoReturn:
    """End with what is wrong: on standard error, `text` or a line each; what `--json` wants too."""
    problems = list(problems)
    for line in map(str, problems) if text is None else [text]:
        print(f"{FAILED}{line}", file=sys.stderr)
    _tell_programs(problems)
    sys.exit(code)


def _tell_programs(problems: Iterable[Problem]) -> None:
    """Print the problems as one JSON object on one line, if the command line asks for JSON."""
    if "--json" in sys.argv:
        print(json.dumps({"error": {"problems": [asdict(problem) for problem in problems]}}))


class Commands(TyperGroup):
    """The commands; a command line that cannot be understood is told to programs too."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """See `TyperGroup`."""
        try:
            return super().invoke(ctx)
        except _USAGE_ERROR as error:
            where = getattr(error, "ctx", None) or ctx
            what = error.format_message()  # type: ignore[attr-defined]
            remedy = f"{where.command_path} --help"
            _tell_programs([Problem(place=where.command_path, what=what, remedy=remedy)])
            raise  # typer prints it for people
