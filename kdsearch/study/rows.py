"""Reading a data set's rows: from files, from the Hub or from the grammar, checked and cut."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pandas as pd

from kdsearch.errors import InputError, Problem, first_line
from kdsearch.study import grammar
from kdsearch.study.catalogue import CATALOGUE, Entry
from kdsearch.study.hub import HubUnreachableError, hub_rows
from kdsearch.study.parsers import (
    Columns,
    Row,
    collect_tags,
    expand_tags,
    one_class,
    parse_rows,
    tag_problem,
)
from kdsearch.study.schema import METRICS, SPLITS, Dataset

SUFFIXES = (".jsonl.gz", ".jsonl", ".csv", ".parquet")
_USUAL_COLUMNS = {"qa": (("question", "context"), "answers")}
"""Of one's own files, by task, where nearly all data sets have the same."""
_GRAMMAR_COLUMNS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "classification": (("sentence",), "label", grammar.LABELS),
    "ner": (("tokens",), "ner_tags", grammar.TAGS),
    "qa": (("question", "context"), "answers", ()),
    "translation": (("source",), "target", ()),
}


def task_of(name: str, dataset: Dataset) -> str:
    """The task of a study's data set: its own, else the catalogue's."""
    if dataset.task is not None or dataset.files is not None or dataset.grammar is not None:
        return dataset.task or "classification"
    return CATALOGUE[dataset.catalogue or name].task


def columns_of(name: str, dataset: Dataset) -> Columns:
    """The columns, labels and metric of a study's data set: its own, else the catalogue's."""
    task = task_of(name, dataset)
    languages = None
    if dataset.grammar is not None:
        text, label, labels = _GRAMMAR_COLUMNS[task]
        metric = METRICS[task][0]
    elif dataset.files is not None:
        text, label = _USUAL_COLUMNS.get(task, ((), ""))
        labels, metric = (), METRICS[task][0]
    else:
        entry = CATALOGUE[dataset.catalogue or name]
        text, label, labels, metric = entry.text, entry.label, entry.labels, entry.metric
        languages = entry.languages
    labels = dataset.labels or labels
    return Columns(
        task=task,
        text=dataset.text or text,
        label=dataset.label or label,
        labels=expand_tags(labels) if task == "ner" and labels else labels,
        metric=dataset.metric or metric,
        languages=dataset.languages or languages,
        unanswerable=dataset.unanswerable,
    )


@dataclass(frozen=True, kw_only=True)
class DataRows:
    """A data set as it was read: checked, its missing splits cut, limited."""

    splits: Mapping[str, list[Row]]
    labels: tuple[str, ...]
    """Those of its columns; of ner, collected from the data where the study names none."""
    cut: Mapping[str, int]
    """How many rows were cut off the training split for a split that had no source."""
    left_out: Mapping[str, int]
    """How many rows were left out, where any were: of a published data set those that cannot be
    used, of one's own the questions without an answer."""


def read_dataset(name: str, dataset: Dataset, *, data_dir: Path | None, seed: int) -> DataRows:
    """The rows of each split, checked and cut to the study's limit.

    Looks in `data_dir/NAME/` first, then where the study says. A split without a source is drawn
    from the training split by the seed. Raises `InputError` with the problems of all splits.
    """
    columns = columns_of(name, dataset)
    source = _source(name, dataset, data_dir)
    problems: list[Problem] = []
    raw: dict[str, tuple[str, list[Row]]] = {}
    for split in SPLITS:
        try:
            if (read := source.readers.get(split)) is not None:
                raw[split] = read()
        except HubUnreachableError:
            raise HubUnreachableError.of([f"datasets.{name}"]) from None
        except InputError as error:
            problems += error.problems
    if columns.task == "ner" and raw:
        every = [rows for _, rows in raw.values()]
        if not columns.labels:
            columns = replace(columns, labels=collect_tags(every, columns), collected=True)
        if (problem := tag_problem(every, columns)) is not None:
            what, mend = problem
            problems.append(Problem(place=f"datasets.{name}", what=what, mend=mend))
            raw = {}
    splits: dict[str, list[Row]] = {}
    left_out: dict[str, int] = {}
    for split, (place, rows) in raw.items():
        try:
            splits[split] = parse_rows(
                place, rows, columns, labelled=split != SPLITS[0], published=source.published
            )
            left_out[split] = len(rows) - len(splits[split])
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    cut = _cut_off(splits, source.cut, name, seed)
    for split in SPLITS:
        limit = getattr(dataset.limit, split) or source.limit.get(split)
        splits[split] = _limited(splits[split], limit, f"{seed}/{name}/{split}")
        place = raw[split][0] if split in raw else f"datasets.{name}: {split}"
        problems += one_class(place, splits[split], columns)
    if problems:
        raise InputError(problems)
    return DataRows(
        splits={split: splits[split] for split in SPLITS},
        labels=columns.labels,
        cut=cut,
        left_out={split: count for split, count in left_out.items() if count},
    )


def digest_rows(rows: list[Row]) -> str:
    """The digest of parsed rows, whatever file and format they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a data set's splits are read; one that is not there is cut off the training split."""

    readers: Mapping[str, Callable[[], tuple[str, list[Row]]]]
    cut: Mapping[str, int]
    """How many rows to cut off for a missing split. Default: a tenth."""
    limit: Mapping[str, int]
    """The most rows of a split, where the study sets no limit of its own."""
    published: bool = False
    """Whether its rows are somebody else's: a few bad ones are left out."""


def _source(name: str, dataset: Dataset, data_dir: Path | None) -> _Source:
    if dataset.grammar is not None:
        readers = {split: partial(_generated, dataset, name, split) for split in SPLITS}
        return _Source(readers=readers, cut={}, limit={})
    entry = CATALOGUE[dataset.catalogue or name] if dataset.files is None else None
    cut, limit = (entry.cut, entry.limit) if entry else ({}, {})
    public = entry is not None and bool(entry.parts)
    if data_dir is not None:
        names = (name, dataset.catalogue or name)
        folder = next((data_dir / n for n in names if (data_dir / n).is_dir()), None)
        if folder is not None:
            found = _folder_readers(folder)
            return _Source(readers=found, cut=cut, limit=limit, published=public)
    if dataset.files is not None:
        paths = {s: p for s in SPLITS if (p := getattr(dataset.files, s)) is not None}
        readers = {split: partial(_from_file, Path(path)) for split, path in paths.items()}
    else:
        assert entry is not None
        if not entry.parts:
            what = "is no public data set"
            mend = f"give its files: --data-dir DIR with DIR/{name}/train.jsonl.gz. {entry.note}"
            raise InputError.one(f"datasets.{name}", what, mend)
        readers = {split: partial(_from_hub, entry, split) for split in entry.parts}
    return _Source(readers=readers, cut=cut, limit=limit, published=public)


def _generated(dataset: Dataset, name: str, split: str) -> tuple[str, list[Row]]:
    sizes = dataset.grammar
    assert sizes is not None
    noise = sizes.noise if split == SPLITS[0] else 0.0
    seed = f"{sizes.seed}/{split}"
    rows = grammar.generate(getattr(sizes, split), seed, noise, task_of(name, dataset))
    return f"grammar: {split}", rows


def _from_hub(entry: Entry, split: str) -> tuple[str, list[Row]]:
    return f"{entry.parts[split][0].hub}: {split}", list(hub_rows(entry, split))


def _folder_readers(folder: Path) -> dict[str, Callable[[], tuple[str, list[Row]]]]:
    """Of a folder's files by their names; the training split must be there."""
    readers: dict[str, Callable[[], tuple[str, list[Row]]]] = {}
    for split in SPLITS:
        paths = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").exists()]
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise InputError.one(folder, f"has {names}, which are one split", "keep one of them")
        if paths or split == SPLITS[0]:
            readers[split] = partial(_from_file, paths[0]) if paths else partial(_nothing, folder)
    return readers


def _nothing(folder: Path) -> NoReturn:
    names = ", ".join(SPLITS[0] + suffix for suffix in SUFFIXES)
    raise InputError.one(folder, "has no train split", f"put one of {names}")


def _from_file(path: Path) -> tuple[str, list[Row]]:
    if not path.name.endswith(SUFFIXES):
        raise InputError.one(path, "unknown kind of file", f"use one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            path.open("rb").close()  # pandas reads a folder as a table, an empty one too
            return str(path), pd.read_parquet(path).to_dict("records")  # type: ignore[return-value]
        if path.suffix == ".csv":
            return str(path), list(_csv_rows(path))
        return str(path), list(_json_lines(path))
    except FileNotFoundError:
        raise InputError.one(path, "no such file") from None
    except InputError:
        raise
    except Exception as error:  # the readers' own errors have no common class
        raise InputError.one(path, f"cannot be read: {first_line(error)}") from None


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # of a cell; a context may be long
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = reader.fieldnames or []
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            mend = "rename one of them"
            raise InputError.one(f"{path}:1", f"has the column {', '.join(twice)} twice", mend)
        for row in reader:
            if None in row or None in row.values():  # more fields, or fewer
                what = f"has more or fewer fields than the {len(columns)} of the first line"
                raise InputError.one(f"{path}:{reader.line_num}", what, "is the file whole?")
            yield row


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _json_lines(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                raise InputError.one(f"{path}:{number}", f"not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError.one(f"{path}:{number}", "not a JSON object")
            yield row


def _cut_off(
    splits: dict[str, list[Row]], sizes: Mapping[str, int], name: str, seed: int
) -> dict[str, int]:
    """Move rows of the training split that have labels to each split that is missing."""
    missing = [split for split in SPLITS if split not in splits]
    tenth = max(1, len(splits[SPLITS[0]]) // 10)
    cut = {split: sizes.get(split, tenth) for split in missing}
    for split, size in cut.items():
        train = splits[SPLITS[0]]
        labelled = [i for i, row in enumerate(train) if None not in row.values()]
        if size >= len(labelled):
            what = f"{len(labelled)} labelled rows are too few to cut {size} off for {split}"
            raise InputError.one(f"datasets.{name}", what, f"give a {split} split")
        drawn = set(random.Random(f"{seed}/{name}/cut/{split}").sample(labelled, size))
        splits[split] = [train[index] for index in sorted(drawn)]
        splits[SPLITS[0]] = [row for index, row in enumerate(train) if index not in drawn]
    return cut


def _limited(rows: list[Row], limit: int | None, seed: str) -> list[Row]:
    if limit is None or limit >= len(rows):
        return rows
    kept = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[index] for index in kept]


def known_rows(name: str, dataset: Dataset) -> dict[str, int] | None:
    """How many rows each split will have, as far as that is known without reading any."""
    known: Mapping[str, int] = {}
    if dataset.grammar is not None:
        counts: Mapping[str, int] = {s: getattr(dataset.grammar, s) for s in SPLITS}
    elif dataset.files is None:
        entry = CATALOGUE[dataset.catalogue or name]
        counts, known = entry.rows, entry.limit
    else:
        return None
    limits = {split: getattr(dataset.limit, split) or known.get(split) for split in SPLITS}
    return {split: min(counts[split], limits[split] or counts[split]) for split in SPLITS}


def units_per_row(name: str, dataset: Dataset) -> float | None:
    """About how many scored units a row has, as far as that is known without reading any."""
    if dataset.grammar is not None:
        return 1.0 if task_of(name, dataset) == "classification" else 16.0
    return CATALOGUE[dataset.catalogue or name].units if dataset.files is None else None


def label_count(name: str, dataset: Dataset) -> int:
    """How many labels a data set has; 0 where that is known only when it is read."""
    labels = columns_of(name, dataset).labels
    entry = CATALOGUE.get(dataset.catalogue or name) if dataset.files is None else None
    return len(labels) or (entry.label_count or 0 if entry else 0)
