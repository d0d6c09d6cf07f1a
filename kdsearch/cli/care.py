"""`gc` and `verify`: looking after a study's folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from kdsearch.agenda import Agenda
from kdsearch.api import open_folder
from kdsearch.cli.options import Json, StudyFolder, console, count, example
from kdsearch.driver import Left, garbage
from kdsearch.errors import InputError, shown_name
from kdsearch.ledger import CANNOT_KNOW, Ledger, Verified, driver_lock, driver_of
from kdsearch.ledger import verify as verify_files
from kdsearch.report import check_report
from kdsearch.study import readable_size

_WRONG = 1


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=example("kdsearch gc runs/quickstart --delete"))(gc)
    app.command(epilog=example("kdsearch verify runs/quickstart"))(verify)


def gc(
    folder: StudyFolder,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    as_json: Json = False,
) -> None:
    """List what the study no longer needs, such as outcomes left behind by an edit.

    Files that kdsearch did not write stay, and so does anything behind a link, which another
    study may use.
    """
    ledger, agenda = open_folder(folder)
    if delete:
        with driver_lock(ledger.folder):
            gone, left = garbage(ledger, Agenda(ledger.resolved(), ledger.results()))
            listed, gone = gone, [each for each in gone if ledger.remove(each.name, each.known)]
            why = "could not be removed"
            left += [Left(name=each.name, why=why) for each in listed if each not in gone]
    else:
        gone, left = garbage(ledger, agenda)
    total = sum(each.bytes for each in gone)
    if as_json:
        files = [{"name": each.name, "why": each.why, "bytes": each.bytes} for each in gone]
        kept = [{"name": each.name, "why": each.why} for each in left]
        facts = {"found": files, "bytes": total, "deleted": delete, "left": kept}
        typer.echo(json.dumps(facts, indent=1))
        return
    out = console()
    if not gone:
        out.print(
            "nothing to delete" if left else "nothing to delete: the study needs everything here"
        )
    for why, names in _by_reason((each.why, each.name) for each in gone):
        size = readable_size(sum(each.bytes for each in gone if each.why == why))
        out.print(f"{why}, {size}:")
        _print_names(out, names)
    for why, names in _by_reason((each.why, each.name) for each in left):
        out.print(f"left in place ({why}):")
        _print_names(out, names)
    if not gone:
        return
    if delete:
        out.print(f"deleted: {readable_size(total)}")
        return
    if driver_of(ledger.folder):
        out.print("a search is running here: these may include what it is about to finish")
    out.print(f"{readable_size(total)} in all; `kdsearch gc {folder} --delete` deletes this")


def _by_reason(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for why, name in pairs:
        groups[why].append(name)
    return list(groups.items())


def _print_names(out: Console, names: Iterable[str]) -> None:
    for name in names:
        out.print(f"  {shown_name(name)}")


def verify(folder: StudyFolder, as_json: Json = False) -> None:
    """Check every file against its digest, and every decision against the outcomes.

    Repairs nothing. Exits with 1 if something is wrong.
    """
    ledger = _ledger(folder)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("checking", total=None)
        found = verify_files(
            ledger, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if not found.blind:
        problems, notes = check_report(ledger, found.agenda, whole=not found.problems)
        found.problems += problems
        found.notes += notes
    if as_json:
        typer.echo(json.dumps(_facts(found), indent=1))
    else:
        out = console()
        for problem in found.problems:
            out.print(str(problem))
        for note in found.notes:
            out.print(f"note: {note}")
        if found.unneeded:
            what = count(found.unneeded, "result")
            out.print(f"the study no longer needs {what}: see `kdsearch gc {folder}`")
        verdict = count(len(found.problems), "problem") if found.problems else "no problems"
        kept = f"{count(found.files, 'kept file')} of {readable_size(found.bytes)}"
        out.print(f"{CANNOT_KNOW}.")
        out.print(f"{count(found.outcomes, 'outcome')} and {kept}: {verdict}")
    if found.problems:
        raise typer.Exit(_WRONG)


def _ledger(folder: Path) -> Ledger:
    if not folder.is_dir():
        raise InputError.one(
            folder, "is not a folder", "give the one that `kdsearch launch` printed"
        )
    return Ledger(folder.resolve())


def _facts(found: Verified) -> dict[str, Any]:
    return {
        "outcomes": found.outcomes,
        "files": found.files,
        "bytes": found.bytes,
        "unneeded": found.unneeded,
        "problems": list(map(asdict, found.problems)),
        "notes": list(map(asdict, found.notes)),
        "not_known": CANNOT_KNOW,
    }
