"""Reading a data set's rows: from files, from the Hub or from the grammar, checked and cut.

A classification row is `{"texts": [sentence] or [first, second], "label": number}`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdsearch.errors import InputError, Problem, first_line
from kdsearch.study import grammar
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.hub import hub_rows
from kdsearch.study.schema import SPLITS, Dataset

Row = dict[str, Any]
SUFFIXES = (".jsonl.gz", ".jsonl", ".csv", ".parquet")
_MOST_PROBLEMS = 5  # of one split; more of the same would hide the others


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What to read of a data set, and how its scores are computed."""

    task: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metric: str


def columns_of(name: str, dataset: Dataset) -> Columns:
    """The columns, labels and metric of a study's data set: its own, else the catalogue's."""
    if dataset.grammar is not None:
        known: tuple[Any, ...] = (("sentence",), "label", grammar.LABELS, "f1")
    elif dataset.files is not None:
        known = ((), "", (), "f1")
    else:
        entry = CATALOGUE[dataset.catalogue or name]
        known = (entry.text, entry.label, entry.labels, entry.metric)
    text, label, labels, metric = known
    return Columns(
        task=dataset.task,
        text=dataset.text or text,
        label=dataset.label or label,
        labels=dataset.labels or labels,
        metric=dataset.metric or metric,
    )


def read_dataset(
    name: str, dataset: Dataset, *, data_dir: Path | None, seed: int
) -> dict[str, list[Row]]:
    """The rows of each split, checked and cut to the study's limit.

    Looks in `data_dir/NAME/` first, then where the study says. Raises `InputError` with the
    problems of all splits.
    """
    columns = columns_of(name, dataset)
    read = _source(name, dataset, data_dir)
    problems: list[Problem] = []
    splits: dict[str, list[Row]] = {}
    for split in SPLITS:
        try:
            place, raw = read(split)
            splits[split] = PARSERS[columns.task](place, raw, columns)
        except InputError as error:
            problems += error.problems
            continue
        limit = getattr(dataset.limit, split)
        splits[split] = _cut(splits[split], limit, f"{seed}/{name}/{split}")
    if problems:
        raise InputError(problems)
    return splits


def digest_rows(rows: list[Row]) -> str:
    """The digest of parsed rows, whatever file and format they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:32]


def _source(
    name: str, dataset: Dataset, data_dir: Path | None
) -> Callable[[str], tuple[str, list[Row]]]:
    if dataset.grammar is not None:
        sizes = dataset.grammar

        def generated(split: str) -> tuple[str, list[Row]]:
            noise = sizes.noise if split == "train" else 0.0
            rows = grammar.generate(getattr(sizes, split), f"{sizes.seed}/{split}", noise)
            return f"grammar: {split}", rows

        return generated
    catalogue = dataset.catalogue or name
    if data_dir is not None:
        folder = next(
            (f for f in (data_dir / name, data_dir / catalogue) if f.is_dir()), data_dir / name
        )
        if folder.is_dir():
            return lambda split: _from_folder(folder, split)
    if dataset.files is not None:
        files = dataset.files
        return lambda split: _from_file(Path(getattr(files, split)))
    entry = CATALOGUE[catalogue]
    return lambda split: (f"{entry.hub}: {split}", hub_rows(entry, split))


def _from_folder(folder: Path, split: str) -> tuple[str, list[Row]]:
    found = [path for s in SUFFIXES if (path := folder / f"{split}{s}").exists()]
    if not found:
        raise InputError.one(
            folder, f"has no {split} split", f"put one of {', '.join(split + s for s in SUFFIXES)}"
        )
    return _from_file(found[0])


def _from_file(path: Path) -> tuple[str, list[Row]]:
    if not path.name.endswith(SUFFIXES):
        raise InputError.one(path, "unknown kind of file", f"use one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            return str(path), pd.read_parquet(path).to_dict("records")  # type: ignore[return-value]
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            return str(path), frame.to_dict("records")  # type: ignore[return-value]
        return str(path), list(_json_lines(path))
    except FileNotFoundError:
        raise InputError.one(path, "no such file") from None
    except InputError:
        raise
    except Exception as error:  # the readers' own errors have no common class
        raise InputError.one(path, f"cannot be read: {first_line(error)}") from None


def _json_lines(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError.one(f"{path}:{number}", f"not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError.one(f"{path}:{number}", "not a JSON object")
            yield row


def _parse_classification(place: str, raw: list[Row], columns: Columns) -> list[Row]:
    if not raw:
        raise InputError.one(place, "has no rows", "a split needs at least one row")
    missing = [c for c in (*columns.text, columns.label) if c not in raw[0]]
    if missing:
        there = ", ".join(map(str, raw[0]))
        raise InputError(
            Problem(place=place, what=f"has no column {column}", mend=f"there are: {there}")
            for column in missing
        )
    numbers = {name: number for number, name in enumerate(columns.labels)}
    if not any(name.lstrip("-").isdigit() for name in columns.labels):
        numbers |= {str(number): number for number in range(len(columns.labels))}
    rows: list[Row] = []
    problems: list[Problem] = []
    for index, row in enumerate(raw):
        texts = [row.get(column) for column in columns.text]
        label = numbers.get(_label_text(row.get(columns.label)))
        where = f"{place}: row {index + 1}"
        if not all(map(_is_text, texts)):
            problems.append(Problem(place=where, what="its text is missing or not text"))
        elif label is None:
            known = ", ".join(f"{i} {name}" for i, name in enumerate(columns.labels))
            given = row.get(columns.label)
            problems.append(
                Problem(place=where, what=f"unknown label {given!r}", mend=f"there are: {known}")
            )
        else:
            rows.append({"texts": texts, "label": label})
    if problems:
        rest = len(problems) - _MOST_PROBLEMS
        shown = problems[:_MOST_PROBLEMS]
        if rest > 0:
            shown.append(Problem(place=place, what=f"{rest} more rows like these"))
        raise InputError(shown)
    return rows


def _is_text(value: object) -> bool:
    """Whether `value` is text, without the halves of characters that JSON can spell."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


PARSERS: dict[str, Callable[[str, list[Row], Columns], list[Row]]] = {
    "classification": _parse_classification
}
"""By task: from the raw rows of a place to checked ones. Raises `InputError`."""


def _label_text(value: object) -> str:
    """A label as text; pandas writes whole numbers as 1.0 where a column once lacked a value."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _cut(rows: list[Row], limit: int | None, seed: str) -> list[Row]:
    if limit is None or limit >= len(rows):
        return rows
    kept = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[index] for index in kept]


def known_rows(name: str, dataset: Dataset) -> dict[str, int] | None:
    """How many rows each split will have, as far as that is known without reading any."""
    if dataset.grammar is not None:
        counts = {split: getattr(dataset.grammar, split) for split in SPLITS}
    elif dataset.files is None:
        counts = CATALOGUE[dataset.catalogue or name].rows
    else:
        return None
    limits = {split: getattr(dataset.limit, split) for split in SPLITS}
    return {split: min(counts[split], limits[split] or counts[split]) for split in SPLITS}


def label_count(name: str, dataset: Dataset) -> int:
    """How many labels a data set has."""
    return len(columns_of(name, dataset).labels)
