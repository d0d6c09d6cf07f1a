"""`data check` and `fetch`: the data sets of the catalogue, and bringing a study's to a disk."""

from __future__ import annotations

import gzip
import json
import shlex
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kdsearch.cli.options import (
    Json,
    Models,
    StudyFile,
    console,
    count,
    example,
    home,
    parse_models,
)
from kdsearch.errors import InputError, Problem
from kdsearch.study import (
    CATALOGUE,
    SPLITS,
    DataRows,
    Dataset,
    Entry,
    Model,
    Study,
    hub_model,
    hub_rows,
    load_study,
    pixel_bytes,
    reachable,
    read_dataset,
    readable_size,
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        callback=home,
        help="A folder with NAME/{train,validation,test}.jsonl, or files of other kinds.",
    ),
]


Jobs = dict[str, tuple[Path, Callable[[Path], None]]]
"""What to bring: where to, and how."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    data = typer.Typer(help="The data sets that kdsearch knows by name.", no_args_is_help=True)
    data.command(epilog=example("kdsearch data check mrpc --data-dir data"))(check)
    app.add_typer(data, name="data")
    app.command(epilog=example("kdsearch fetch search_spaces/paper.yaml --data-dir data"))(fetch)


def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"One of {', '.join(sorted(CATALOGUE))}.")
    ],
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits that are drawn from another.")] = 0,
    as_json: Json = False,
) -> None:
    """Read a data set as a study does, and show its counts next to the published ones."""
    if name not in CATALOGUE:
        known = ", ".join(sorted(CATALOGUE))
        raise InputError.one("NAME", f"{name} is not in the catalogue", f"available: {known}")
    entry = CATALOGUE[name]
    data = read_dataset(name, Dataset(), data_dir=data_dir, seed=seed)
    facts: dict[str, Any] = {
        "name": name,
        "task": entry.task,
        "metric": entry.metric,
        "labels": data.labels,
        "rows": {split: len(rows) for split, rows in data.splits.items()},
        "published": dict(entry.rows),
        "limit": dict(entry.limit),
        "cut": dict(data.cut),
        "shared": dict(data.shared),
        "left_out": dict(data.left_out),
        "image_size": data.image_size,
        "note": entry.note,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    _show(name, entry, data, seed)


def _show(name: str, entry: Entry, data: DataRows, seed: int) -> None:
    table = Table("split", title=f"{name}: {entry.task}, {entry.metric}", box=None)
    for column in ("rows here", "published"):
        table.add_column(column, justify="right")
    for split in SPLITS:
        table.add_row(split, f"{len(data.splits[split]):,}", f"{entry.rows[split]:,}")
    out = console()
    out.print(table)
    for split, limit in entry.limit.items():
        out.print(f"{split} is limited to {limit:,} rows, unless the study sets a limit")
    for split in data.cut:
        out.print(f"{split} is drawn from train, by the seed {seed}")
    for split, rows in data.shared.items():
        share = f"{rows:,} of {len(data.splits[split]):,} rows"
        out.print(f"{share} of {split} share their text or context with train")
    for split, rows in data.left_out.items():
        out.print(f"{count(rows, 'row')} of {split} cannot be used and were left out")
    if data.image_size is not None:
        taken = pixel_bytes(data.image_size, sum(map(len, data.splits.values())))
        kept = f"{data.image_size} × {data.image_size} pixels are kept of each image"
        out.print(f"{kept}: {readable_size(taken)}")
    if data.labels:
        out.print(f"{len(data.labels)} labels: {', '.join(data.labels)}")
    out.print(entry.note)


def fetch(
    study_file: StudyFile,
    data_dir: Annotated[
        Path,
        typer.Option(
            callback=home, help="Destination: NAME/ for data sets, models/NAME/ for models."
        ),
    ],
    model: Models = None,
) -> None:
    """Download a study's data and models from the Hub, for machines without a network.

    What is already there is not downloaded again.
    """
    study = load_study(study_file, models=parse_models(model))
    wanted, problems = _wanted(study, data_dir)
    out = console()
    missing: Jobs = {what: job for what, job in wanted.items() if not job[0].exists()}
    out.print(f"{len(wanted) - len(missing)} of {len(wanted)} already there")
    if missing and not reachable():
        remedy = "run this where it can be reached, such as on a login node of the cluster"
        what = f"{len(missing)} are missing, and the Hugging Face Hub cannot be reached from here"
        raise InputError([*problems, Problem(place=str(study_file), what=what, remedy=remedy)])
    for number, (what, (target, bring)) in enumerate(missing.items(), start=1):
        out.print(f"{number} of {len(missing)}: {what} to {target}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            bring(target)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    launch = ["kdsearch", "launch", str(study_file), "--data-dir", str(data_dir)]
    out.print(f"all there; next, with or without a network: {shlex.join(launch)}")


def _wanted(study: Study, data_dir: Path) -> tuple[Jobs, list[Problem]]:
    """Everything of a study that is on the Hub, and what is neither there nor in `data_dir`."""
    wanted: Jobs = {}
    problems: list[Problem] = []
    for name, dataset in study.datasets.items():
        if dataset.files is not None or dataset.grammar is not None:
            continue
        entry = CATALOGUE[dataset.catalogue or name]
        target = data_dir / name
        if entry.parts:
            wanted[f"datasets.{name}"] = (target, partial(_bring_rows, entry))
        elif not target.is_dir():
            remedy = f"put its files into {target}/: {entry.note}"
            problems.append(Problem(place=f"datasets.{name}", what="is not public", remedy=remedy))
    for name, source in study.models.items():
        if source.hub is not None:
            model_to = partial(_bring_model, source, f"models.{name}")
            wanted[f"models.{name}"] = (data_dir / "models" / name, model_to)
    return wanted, problems


def _bring_rows(entry: Entry, target: Path) -> None:
    """All splits or none: a missing one would be taken for one to cut off the training split."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.mkdir(exist_ok=True)
    for split in entry.parts:
        with gzip.open(temporary / f"{split}.jsonl.gz", "wt", 1, encoding="utf-8") as file:
            for row in hub_rows(entry, split):
                file.write(json.dumps(row, ensure_ascii=False, default=_base64) + "\n")
    temporary.replace(target)


def _base64(value: bytes) -> str:
    """Of what JSON has no form for, there are the bytes of images alone."""
    return b64encode(value).decode()


def _bring_model(model: Model, place: str, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.part")  # a broken download goes on there
    hub_model(model.hub or "", model.revision, place, temporary, code=model.trust_remote_code)
    temporary.replace(target)
