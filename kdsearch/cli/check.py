"""`check`: looking at a study's rows and models before anything is trained."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kdsearch.agenda import Agenda
from kdsearch.cli.code import name_own_code, preflight_trusting
from kdsearch.cli.options import (
    DataDir,
    Json,
    Models,
    StudyFile,
    check_folder,
    console,
    count,
    example,
    home,
    print_doubts,
    say_of_data,
    study_models,
)
from kdsearch.driver import check_disk, preflight_once
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import (
    SAMPLE,
    SPLITS,
    DatasetFacts,
    Preflight,
    Reading,
    Resolved,
    ResolvedDataset,
    Study,
    changed_sources,
    differences,
    load_study,
    resolve,
)

_MOST_LABELS = 20


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch check my-study.yaml --data-dir data"))(check)


def check(
    study_file: StudyFile,
    data_dir: DataDir = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="The study's folder, where the result is kept for `launch`, and on whose disk "
            "there must be room. Default: nothing is kept.",
            callback=home,
        ),
    ] = None,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Check a study's data and models, as `launch` does first. Trains nothing.

    Needs the data and the models; `validate` checks the file alone.
    """
    study = load_study(study_file, models=study_models(study_file, data_dir, model))
    out = console()
    name_own_code(study, str(study_file), partial(typer.echo, err=True) if as_json else out.print)
    with _ledger(folder) as ledger:
        begins = folder is not None and not ledger.exists
        say = (lambda line: None) if as_json else out.print
        resolved = _resolved(ledger, study, study_file, data_dir, say)
        found = preflight_once(
            resolved,
            ledger,
            place=str(study_file),
            look=preflight_trusting(study),
            say=say,
        )
        if as_json:
            typer.echo(json.dumps(_facts(resolved, found), indent=1))
        else:
            say_of_data(resolved, out)
            _show(out, resolved, found)
        if begins:  # `launch` looks at the disk no more where a study goes on
            check_disk(Agenda(resolved, ledger.results(study.tries)), ledger.folder)
    if as_json:
        return
    verdict = count(len(found.doubts), "doubt") if found.doubts else "fine"
    out.print(f"{study_file}: {verdict}")


@contextmanager
def _ledger(folder: Path | None) -> Iterator[Ledger]:
    """The ledger in `folder`; without one, in a folder that is removed again."""
    if folder is None:
        with TemporaryDirectory(prefix="kdsearch-check-") as temporary:
            ledger = Ledger(Path(temporary))
            ledger.prepare()
            yield ledger
        return
    ledger = Ledger(folder.resolve())
    check_folder(ledger)
    ledger.prepare()
    yield ledger


def _resolved(
    ledger: Ledger,
    study: Study,
    place: Path,
    data_dir: Path | None,
    say: Callable[[str], None],
) -> Resolved:
    """The study as it was launched in the ledger's folder, else as it is now."""
    if not ledger.exists:
        return resolve(
            study, data_dir=data_dir, store=ledger.write_rows, images=ledger, place=str(place)
        )
    before = ledger.resolved()
    if changed := differences(before.study, study):
        other = "a different study" if before.study.name != study.name else "a different version"
        what = f"holds {other}: {changed[0]}"
        remedy = "leave out --folder, or launch, which says what the change means"
        raise InputError.one(f"--folder {ledger.folder}", what, remedy)
    changes = changed_sources(before, study, data_dir=data_dir)
    for line in changes.said:
        say(line)
    if changes.changed:
        remedy = "leave out --folder, or launch, which says what the change means"
        raise InputError(
            Problem(place=file, what=what, remedy=remedy)
            for files in changes.changed.values()
            for file, what in files.items()
        )
    return before.model_copy(update={"study": study})  # which says whose code may run


def _facts(resolved: Resolved, found: Preflight) -> dict[str, Any]:
    facts = found.model_dump(mode="json", exclude={"digest"})
    for name, data in facts["datasets"].items():
        data["drawn"] = dict(resolved.datasets[name].cut)
        data["left_out"] = dict(resolved.datasets[name].left_out)
    return {"name": resolved.study.name, **facts}


def _show(out: Console, resolved: Resolved, found: Preflight) -> None:
    for name, facts in found.datasets.items():
        out.print(_data_table(name, resolved.datasets[name], facts))
        out.print()
    if found.readings:
        out.print(_readings_table(found))
        out.print()
    if found.samples:
        out.print(_samples_table(found))
        out.print()
    if not found.forward:
        out.print("the models are too large to run here: a worker will run them first after launch")
    print_doubts(out, found.doubts)


def _data_table(name: str, data: ResolvedDataset, facts: DatasetFacts) -> Table:
    """A data set's rows by split, and by label those that have the fewest splits first."""
    table = Table(title=f"{name}: {data.task}, {data.metric}", box=None, title_justify="left")
    table.add_column("", overflow="fold")
    for split in SPLITS:
        table.add_column(split, justify="right")
    splits = [facts.splits[split] for split in SPLITS]
    _add(table, "rows", [split.rows for split in splits])
    if any(data.cut.values()):
        _add(table, "  drawn from train", [data.cut.get(split, 0) for split in SPLITS])
    if any(data.left_out.values()):
        _add(table, "  left out", [data.left_out.get(split, 0) for split in SPLITS])
    if any(split.unlabelled for split in splits):
        _add(table, "  without a label", [split.unlabelled for split in splits])
    for earlier in SPLITS[:2]:
        shared = [facts.shared.get(f"{split} in {earlier}", 0) for split in SPLITS]
        if any(shared):
            _add(table, f"  in {earlier} too", shared)
    counts = {label: [split.labels[label] for split in splits] for label in splits[0].labels}
    lacking = [label for label in counts if 0 in counts[label]]
    shown = [*lacking, *(label for label in counts if label not in lacking)][:_MOST_LABELS]
    for label in (label for label in counts if label in shown):
        _add(table, label, counts[label])
    if len(counts) > len(shown):
        table.add_row(f"and {len(counts) - len(shown)} more, present in every split")
    return table


def _add(table: Table, name: str, numbers: list[int]) -> None:
    table.add_row(name, *(f"{number:,}" for number in numbers))


def _readings_table(found: Preflight) -> Table:
    """A row for the models that read a data set alike."""
    title = (
        "Tokenizers: % in train / validation / test,\n"
        f"in at most {SAMPLE:,} rows per split, drawn by the seed"
    )
    table = Table(title=title, box=None, title_justify="left")
    for column in ("data set", "models"):
        table.add_column(column, overflow="fold")
    for column in ("unknown tokens", "cut rows", "beyond a window"):
        table.add_column(column, justify="right")
    read: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for each in found.readings:
        read[each.dataset, each.model].append(each)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (dataset, model), splits in read.items():
        shares = zip(*((each.unknown, each.cut, each.beyond) for each in splits), strict=True)
        alike[dataset, *(" / ".join(map(_percent, share)) for share in shares)].append(model)
    for (dataset, *cells), models in alike.items():
        table.add_row(dataset, ", ".join(models), *cells)
    return table


def _samples_table(found: Preflight) -> Table:
    title = "Given teachers on labelled rows of validation"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("data set", "teacher", "model"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "score", "by chance"):
        table.add_column(column, justify="right")
    for each in found.samples:
        scores = ("–" if s is None else f"{s:.4f}" for s in (each.score, each.chance))
        table.add_row(each.dataset, each.teacher, each.model, f"{each.rows:,}", *scores)
    return table


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    return "< 0.1" if 0 < share < 0.001 else f"{100 * share:.1f}"
