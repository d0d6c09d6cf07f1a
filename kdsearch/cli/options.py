"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from kdsearch.agenda import Agenda
from kdsearch.errors import InputError, shown
from kdsearch.ledger import Ledger
from kdsearch.report import analyse_folder, answer
from kdsearch.report.markdown import count as count
from kdsearch.study import Doubt, Resolved, load_study, test_cases


def home(path: Path | None) -> Path | None:
    """A path of an option with its `~` expanded, which a shell leaves alone after `=`."""
    return Path(os.path.expanduser(path)) if path is not None else None


StudyFile = Annotated[Path, typer.Argument(help="A study file.", metavar="STUDY")]
StudyFolder = Annotated[
    Path, typer.Argument(help="A study's folder, such as runs/NAME.", metavar="FOLDER")
]


def case_names(context: typer.Context, incomplete: str) -> list[str]:
    """For a shell to complete: the test cases of FOLDER; none where that cannot be read."""
    try:
        study = Ledger(Path(context.params["folder"]).expanduser()).resolved().study
    except (InputError, OSError):
        return []
    return [name for name in map(str, test_cases(study)) if name.startswith(incomplete)]


DataDir = Annotated[
    Path | None,
    typer.Option(
        callback=home,
        help="A folder with NAME/{train,validation,test}.jsonl, or files of other kinds, for data "
        "sets, and models/NAME/ for models.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=PATH",
        help="Take a model of the study from this folder or Hub id. May be given several times.",
    ),
]


def say_of_data(resolved: Resolved, out: Console) -> None:
    """Print what became of a data set's rows that its reader may not expect."""
    for name, data in resolved.datasets.items():
        for split, rows in data.cut.items():
            how = f", {data.drawn}" if data.drawn else ""
            out.print(f"{name}: no {split} split; drawn from train: {count(rows, 'row')}{how}")
        for split, rows in data.shared.items():
            what = f"{count(rows, 'row')} of {split} share their text or context with train"
            out.print(f"{name}: {what}, of {data.splits[split].rows}")
        if data.converted:
            out.print(
                f"{name}: its tags are {data.converted}; read as IOB2, with the same entities"
            )
        train = data.splits["train"]
        if train.unlabelled:
            out.print(f"{name}: {train.unlabelled} of {train.rows} rows of train have no label")


def example(text: str) -> str:
    """The epilog of a command's help."""
    return f"Example:  {text}"


def parse_models(given: list[str] | None) -> dict[str, str]:
    """The `--model NAME=PATH` options. Raises `InputError`."""
    models = {}
    for entry in given or []:
        name, equals, location = entry.partition("=")
        if not (name and equals and location):
            raise InputError.one("--model", f"{entry!r} is not NAME=PATH")
        path = os.path.expanduser(location)
        models[name] = os.path.realpath(path) if os.path.isdir(path) else location
    return models


def study_models(
    study_file: Path, data_dir: Path | None, given: list[str] | None
) -> dict[str, str]:
    """Where a study's models are: as `--model` says, else where `fetch` brought them.

    That is DIR/models/, under their names in the study. Raises `InputError`.
    """
    chosen = parse_models(given)
    if data_dir is None or not (data_dir / "models").is_dir():
        return chosen
    known = load_study(study_file).models
    folders = {path.name: path for path in (data_dir / "models").iterdir() if path.is_dir()}
    fetched = {
        name: str(folders[name].resolve())
        for name, source in known.items()
        if name in folders and source.hub is not None
    }
    return fetched | chosen


def check_folder(ledger: Ledger) -> None:
    """Refuse a folder in which a study would mix with other files."""
    if ledger.folder.exists() and not ledger.folder.is_dir():
        raise InputError.one(f"--folder {ledger.folder}", "is a file", "give a folder")
    strangers = ledger.strangers() if ledger.folder.is_dir() and not ledger.exists else []
    if strangers:
        what = f"holds other files, such as {strangers[0]}"
        raise InputError.one(f"--folder {ledger.folder}", what, "give a new or empty folder")


def print_doubts(out: Console, doubts: Iterable[Doubt]) -> None:
    """Print a line for each doubt about a study's data and models."""
    for doubt in doubts:
        out.print(f"doubtful: {doubt}")


class _Console(Console):
    """A console that shows what texts hold, and lets none of them control the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`; cells of tables pass here too."""
        return super().render_str(shown(text), **options)


def console(*, soft_wrap: bool = True) -> Console:
    """Where commands print for people; lines are cut by `soft_wrap`, or else at its edge."""
    return _Console(highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)


def print_answer(agenda: Agenda, ledger: Ledger) -> None:
    """Print what a report has on top, its commands in lines that can be copied."""
    text = shown(answer(analyse_folder(ledger, agenda), str(ledger.folder)))
    for part in text.split("\n\n"):
        if part.startswith("```"):
            for line in part.splitlines()[1:-1]:
                console().print(f"  {line}")
        else:
            Console().print(Markdown(part))
        console().print()
