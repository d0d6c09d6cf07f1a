"""Reading a data set's rows: from files, from the Hub or from the grammar, checked and cut."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from kdsearch.errors import InputError, Problem
from kdsearch.study import grammar
from kdsearch.study.asked import as_catalogued
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.files import RawFiles, expanded, folder_files, named_files
from kdsearch.study.hub import HubUnreachableError, hub_rows
from kdsearch.study.parsers import (
    one_class,
    parsed_rows,
)
from kdsearch.study.schema import SPLITS, Dataset, Files
from kdsearch.study.split import Drawing, group_of, hash_of
from kdsearch.study.tagging import settle_tags
from kdsearch.study.tags import expand_tags
from kdsearch.study.tasks import SPECS, Columns, Row
from kdsearch.study.tasks.templates import columns_in


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
        text, label, labels = SPECS[task].generated
        metric = SPECS[task].metrics[0]
    elif dataset.files is not None:
        text, label = SPECS[task].usual
        labels, metric = (), SPECS[task].metrics[0]
    else:
        entry = CATALOGUE[dataset.catalogue or name]
        dataset = as_catalogued(dataset, entry)
        text, label, labels, metric = entry.text, entry.label, entry.labels, entry.metric
        languages = entry.languages
    labels = dataset.labels or labels
    text = columns_in(dataset.prompt) if dataset.prompt is not None else dataset.text or text
    if isinstance(dataset.choices, str):
        text = (*text, dataset.choices)
    return Columns(
        task=task,
        text=text,
        label=dataset.label or label,
        labels=expand_tags(labels) if task == "ner" and labels else labels,
        metric=dataset.metric or metric,
        languages=dataset.languages or languages,
        group=dataset.group,
        unanswerable=dataset.unanswerable,
        prompt=dataset.prompt,
        choices=dataset.choices,
        answer=dataset.answer,
        also=dataset.also,
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
    drawn: str | None = None
    """How splits were drawn off one's own files; None: without regard to labels and groups."""
    shared: Mapping[str, int] = field(default_factory=dict)
    """How many rows of a split that was cut off have their context, premise or text in train."""
    converted: str | None = None
    """Of ner: the scheme of the tags that were made into IOB2."""
    test_groups: Sequence[int] | None = None
    """A number for the group of each test row, where the study names a column that they have."""


def read_dataset(
    name: str,
    dataset: Dataset,
    *,
    data_dir: Path | None,
    seed: int,
    given: Sequence[tuple[str, ...]] = (),
    fair: bool = True,
) -> DataRows:
    """The rows of each split, checked and cut to the study's limit.

    Looks in `data_dir/NAME/` first, then where the study says. A split without a source is drawn
    from the training split by the seed. Where a limit leaves rows out, files are read twice, so
    that only rows that are kept are held. `given` are the labels of its given teachers, for tags
    that the study does not name; not `fair`, splits are drawn as they once were, without regard to
    labels and groups. Raises `InputError` with the problems of all splits.
    """
    columns = columns_of(name, dataset)
    source = _source(name, dataset, columns, data_dir)
    fair = fair and source.fair
    problems = [*source.problems]
    if columns.task == "ner":
        columns = _with_tags(name, source, columns, given, problems)
    missing = [split for split in SPLITS if split not in source.splits]
    limits = {s: getattr(dataset.limit, s) or source.limit.get(s) for s in SPLITS}
    drawing = Drawing(columns)
    seen = {SPLITS[0]: drawing} if missing else {}
    if columns.group is not None:
        seen.setdefault("test" if "test" in source.splits else SPLITS[0], Drawing(columns))
    scans = _scans(name, source, columns, limits, seen, problems)
    chosen: dict[str, Sequence[int]] = {split: range(scan.count) for split, scan in scans.items()}
    if missing and fair:
        chosen |= drawing.draw(missing, f"datasets.{name}", f"{seed}/{name}/cut")
    elif missing:
        chosen |= _cut_off(drawing.labelled, missing, source.cut, name, seed)
    cut = {split: len(chosen[split]) for split in missing}
    chosen = {s: _limited(chosen[s], limits[s], f"{seed}/{name}/{s}") for s in SPLITS}
    grouped = seen.get("test" if "test" in scans else SPLITS[0])
    splits: dict[str, list[Row]] = {}
    for split, scan in scans.items():
        own = [split, *missing] if split == SPLITS[0] else [split]
        splits |= scan.rows({s: chosen[s] for s in own})
    for split in SPLITS:
        place = scans[split].place if split in scans else f"datasets.{name}: {split}"
        problems += one_class(place, splits[split], columns)
    if problems:
        raise InputError(problems)
    return DataRows(
        splits={split: splits[split] for split in SPLITS},
        labels=columns.labels,
        cut=cut,
        left_out={split: scan.left_out for split, scan in scans.items() if scan.left_out},
        drawn=drawing.rule if missing and fair else None,
        shared=_shared(splits, missing, columns),
        converted=columns.scheme if columns.written else None,
        test_groups=grouped.groups(chosen["test"]) if grouped else None,
    )


def source_paths(name: str, dataset: Dataset, data_dir: Path | None) -> tuple[Path, ...]:
    """Every local file that a data set is read from, sorted; none of the Hub or a grammar.

    Raises `InputError` where a study's pattern or folder has no file.
    """
    source = _source(name, dataset, columns_of(name, dataset), data_dir)
    if source.problems:
        raise InputError(source.problems)
    files = (raw for raw in source.splits.values() if isinstance(raw, RawFiles))
    return tuple(sorted({path for raw in files for path in raw.paths}))


def digest_rows(rows: list[Row]) -> str:
    """The digest of parsed rows, whatever file and format they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:32]


class _Raw(Protocol):
    """A split's raw rows, read anew by each iteration, and what messages call it."""

    @property
    def place(self) -> str: ...

    def __iter__(self) -> Iterator[Row]: ...


@dataclass(frozen=True)
class _Made:
    """Raw rows that a function makes anew each time."""

    place: str
    rows: Callable[[], Iterable[Row]]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows())


@dataclass(frozen=True)
class _Readable:
    """Raw rows as far as they can be read; what ends them is added to the problems."""

    raw: _Raw
    problems: list[Problem]

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self.raw
        except InputError as error:
            self.problems.extend(error.problems)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a data set's splits are read; one that is not there is cut off the training split."""

    splits: Mapping[str, _Raw]
    fair: bool = False
    """Whether a missing split is drawn by label and group, as of one's own files."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """How many rows to cut off for a missing split otherwise. Default: a tenth."""
    limit: Mapping[str, int] = field(default_factory=dict)
    """The most rows of a split, where the study sets no limit of its own."""
    published: bool = False
    """Whether its rows are somebody else's: a few bad ones are left out."""
    problems: tuple[Problem, ...] = ()
    """Of splits whose files cannot be found."""


def _source(name: str, dataset: Dataset, columns: Columns, data_dir: Path | None) -> _Source:
    if dataset.grammar is not None:
        made = {s: _Made(f"grammar: {s}", partial(_generated, dataset, name, s)) for s in SPLITS}
        return _Source(splits=made)
    entry = CATALOGUE[dataset.catalogue or name] if dataset.files is None else None
    cut, limit = (entry.cut, entry.limit) if entry else ({}, {})
    of_entry = _Source(
        splits={}, cut=cut, limit=limit, fair=entry is None, published=bool(entry and entry.parts)
    )
    if data_dir is not None:
        names = (name, dataset.catalogue or name)
        folders = (expanded(data_dir) / n for n in names)
        if (folder := next(filter(Path.is_dir, folders), None)) is not None:
            return replace(of_entry, splits=folder_files(folder, columns))
    if dataset.files is not None:
        return _own_files(dataset.files, columns)
    assert entry is not None
    if not entry.parts:
        what = "is not a public data set"
        remedy = f"give its files: --data-dir DIR with DIR/{name}/train.jsonl.gz. {entry.note}"
        raise InputError.one(f"datasets.{name}", what, remedy)
    parts = {
        split: _Made(f"{parts[0].hub}: {split}", partial(hub_rows, entry, split))
        for split, parts in entry.parts.items()
    }
    return replace(of_entry, splits=parts)


def _own_files(files: Files, columns: Columns) -> _Source:
    splits: dict[str, _Raw] = {}
    problems: list[Problem] = []
    for split in SPLITS:
        if (named := getattr(files, split)) is None:
            continue
        try:
            splits[split] = named_files(named, split, columns)
        except InputError as error:
            problems += error.problems
    return _Source(splits=splits, fair=True, problems=tuple(problems))


def _generated(dataset: Dataset, name: str, split: str) -> list[Row]:
    sizes = dataset.grammar
    assert sizes is not None
    noise = sizes.noise if split == SPLITS[0] else 0.0
    seed = f"{sizes.seed}/{split}"
    return grammar.generate(getattr(sizes, split), seed, noise, task_of(name, dataset))


class _Scan:
    """A split's rows, looked at once to know how many are good, and read again if too many."""

    def __init__(self, raw: _Raw, columns: Columns, *, labelled: bool, published: bool) -> None:
        self.place = raw.place
        self.count = 0
        """Of rows that can be used."""
        self.left_out = 0
        self._pairs = partial(
            parsed_rows, raw.place, raw, columns, labelled=labelled, published=published
        )
        self._held: list[Row] | None = []

    def run(self, keep: int | None, drawing: Drawing | None) -> None:
        """Count the rows, hold those of a split of at most `keep`; `drawing` sees each."""
        for raw, row in self._pairs():
            if row is None:
                self.left_out += 1
                continue
            self.count += 1
            if drawing is not None:
                drawing.add(raw, row)
            if keep is not None and self.count > keep:
                self._held = None
            if self._held is not None:
                self._held.append(row)

    def rows(self, chosen: Mapping[str, Sequence[int]]) -> dict[str, list[Row]]:
        """The rows of each split by their numbers, which ascend."""
        if self._held is not None:
            return {s: [self._held[number] for number in own] for s, own in chosen.items()}
        split_of = {number: split for split, own in chosen.items() for number in own}
        found: dict[str, list[Row]] = {split: [] for split in chosen}
        number = 0
        for _, row in self._pairs():
            if row is not None:
                if number in split_of:
                    found[split_of[number]].append(row)
                number += 1
        if number != self.count:
            raise InputError.one(self.place, "changed while it was read", "launch again")
        return found


def _with_tags(
    name: str,
    source: _Source,
    columns: Columns,
    given: Sequence[tuple[str, ...]],
    problems: list[Problem],
) -> Columns:
    """`columns` with the tags and their scheme, as the rows have them.

    Adds to `problems` what ends the rows; raises `InputError` with them where the tags are wrong.
    """
    every = [_Readable(raw, problems) for raw in source.splits.values()]
    columns, wrong = settle_tags(every, columns, given)
    if wrong is not None:
        what, remedy = wrong
        problems.append(Problem(place=f"datasets.{name}", what=what, remedy=remedy))
        raise InputError(dict.fromkeys(problems))
    return columns


def _scans(
    name: str,
    source: _Source,
    columns: Columns,
    limits: Mapping[str, int | None],
    seen: Mapping[str, Drawing],
    problems: Sequence[Problem],
) -> dict[str, _Scan]:
    """The splits, each looked at once; the drawings of those `seen` are given their rows.

    Raises `InputError` with the `problems` known before and those of all splits.
    """
    problems = [*problems]
    scans: dict[str, _Scan] = {}
    for split, raw in source.splits.items():
        labelled = split != SPLITS[0]
        scan = _Scan(raw, columns, labelled=labelled, published=source.published)
        try:
            scan.run(limits[split], seen.get(split))
            scans[split] = scan
        except HubUnreachableError:
            raise HubUnreachableError.of([f"datasets.{name}"]) from None
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(dict.fromkeys(problems))
    return scans


def _cut_off(
    labelled: Sequence[bool], missing: Sequence[str], sizes: Mapping[str, int], name: str, seed: int
) -> dict[str, Sequence[int]]:
    """The rows with labels that each missing split takes, and those that are left to train."""
    train = [*range(len(labelled))]
    tenth = max(1, len(train) // 10)
    chosen: dict[str, Sequence[int]] = {}
    for split in missing:
        size = sizes.get(split, tenth)
        may = [place for place, number in enumerate(train) if labelled[number]]
        if size >= len(may):
            what = f"{len(may)} labelled rows are too few to draw {size} for {split}"
            raise InputError.one(f"datasets.{name}", what, f"give a {split} split")
        drawn = set(random.Random(f"{seed}/{name}/cut/{split}").sample(may, size))
        chosen[split] = [train[place] for place in sorted(drawn)]
        train = [number for place, number in enumerate(train) if place not in drawn]
    return {**chosen, SPLITS[0]: train}


def _limited(rows: Sequence[int], limit: int | None, seed: str) -> Sequence[int]:
    if limit is None or limit >= len(rows):
        return rows
    kept = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[place] for place in kept]


def _shared(
    splits: Mapping[str, list[Row]], missing: Sequence[str], columns: Columns
) -> dict[str, int]:
    if not missing:
        return {}
    train = {hash_of(group_of(columns, row)) for row in splits[SPLITS[0]]}
    counts = {
        split: sum(hash_of(group_of(columns, row)) in train for row in splits[split])
        for split in missing
    }
    return {split: count for split, count in counts.items() if count}


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


def output_rows_per_row(name: str, dataset: Dataset) -> float | None:
    """About how many rows of outputs a row of data has, where that is known without reading any."""
    if dataset.grammar is not None:
        return 1.0 if task_of(name, dataset) == "classification" else 16.0
    return CATALOGUE[dataset.catalogue or name].output_rows if dataset.files is None else None


def label_count(name: str, dataset: Dataset) -> int:
    """How many labels a data set has; 0 where that is known only when it is read."""
    labels = columns_of(name, dataset).labels
    entry = CATALOGUE.get(dataset.catalogue or name) if dataset.files is None else None
    return len(labels) or (entry.label_count or 0 if entry else 0)
