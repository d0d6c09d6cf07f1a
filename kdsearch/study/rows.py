"""Reading a data set's rows: from files, from the Hub or from the grammar, checked and cut."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kdsearch.errors import InputError, Problem
from kdsearch.study import grammar
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.files import (
    RawFiles,
    expanded,
    folder_files,
    named_files,
    named_images,
)
from kdsearch.study.hub import HubUnreachableError, hub_rows
from kdsearch.study.known import columns_of, task_of
from kdsearch.study.parsers import one_class
from kdsearch.study.pixels import Pixels, with_classes
from kdsearch.study.scan import Made, Raw, Readable, Scan
from kdsearch.study.schema import SPLITS, Dataset, Files
from kdsearch.study.split import Drawing, group_of, hash_of
from kdsearch.study.tagging import settle_tags
from kdsearch.study.tasks import SPECS, Columns, Row


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
    image_size: int | None = None
    """Of images: the side of what is kept of each."""
    pixels: Mapping[str, Path] = field(default_factory=dict)
    """Of images: the file with those of each split, in the order of its rows; see `Pixels`."""
    enlarged: Mapping[str, int] = field(default_factory=dict)
    """How many images of a split are less than half as large as they are kept."""


def read_dataset(
    name: str,
    dataset: Dataset,
    *,
    data_dir: Path | None,
    seed: int,
    given: Sequence[tuple[str, ...]] = (),
    fair: bool = True,
    scratch: Path | None = None,
) -> DataRows:
    """The rows of each split, checked and cut to the study's limit.

    Looks in `data_dir/NAME/` first, then where the study says. A split without a source is drawn
    from the training split by the seed. Where a limit leaves rows out, files are read twice, so
    that only rows that are kept are held. `given` are the labels of its given teachers, for tags
    that the study does not name; not `fair`, splits are drawn as they once were, without regard to
    labels and groups. The pixels of images are written into the folder `scratch`, if there is one.
    Raises `InputError` with the problems of all splits.
    """
    columns = columns_of(name, dataset)
    source = _source(name, dataset, columns, data_dir)
    fair = fair and source.fair
    problems = [*source.problems]
    images = None
    if columns.task == "ner":
        columns = _with_tags(name, source, columns, given, problems)
    elif SPECS[columns.task].reads == "pixels":
        images = Pixels(columns.text[0], dataset.image_size, scratch)
        columns = _with_classes(name, source, columns, problems)
    missing = [split for split in SPLITS if split not in source.splits]
    limits = {s: getattr(dataset.limit, s) or source.limit.get(s) for s in SPLITS}
    drawing = Drawing(columns)
    seen = {SPLITS[0]: drawing} if missing else {}
    if columns.group is not None:
        seen.setdefault("test" if "test" in source.splits else SPLITS[0], Drawing(columns))
    scans = _scans(name, source, columns, limits, seen, problems, images)
    chosen: dict[str, Sequence[int]] = {split: range(scan.count) for split, scan in scans.items()}
    if missing and fair:
        chosen |= drawing.draw(missing, f"datasets.{name}", f"{seed}/{name}/cut")
    elif missing:
        chosen |= _cut_off(drawing.labelled, missing, source.cut, name, seed)
    cut = {split: len(chosen[split]) for split in missing}
    chosen = {s: _limited(chosen[s], limits[s], f"{seed}/{name}/{s}") for s in SPLITS}
    grouped = seen.get("test" if "test" in scans else SPLITS[0])
    splits = _kept(name, scans, chosen, missing, columns, images, problems)
    return DataRows(
        splits={split: splits[split] for split in SPLITS},
        labels=columns.labels,
        cut=cut,
        left_out={split: scan.left_out for split, scan in scans.items() if scan.left_out},
        drawn=drawing.rule if missing and fair else None,
        shared=_shared(splits, missing, columns),
        converted=columns.scheme if columns.written else None,
        test_groups=grouped.groups(chosen["test"]) if grouped else None,
        image_size=images.size if images else None,
        pixels=images.files if images else {},
        enlarged=dict(images.enlarged) if images else {},
    )


def source_paths(name: str, dataset: Dataset, data_dir: Path | None) -> tuple[Path, ...]:
    """Every local file that a data set is read from, sorted; none of the Hub or a grammar.

    Images that a table names are not among them; see `images_by_table`. Raises `InputError` where a
    study's pattern or folder has no file.
    """
    files = _local(name, dataset, data_dir).values()
    return tuple(sorted({path for raw in files for path in raw.paths}))


def images_by_table(
    name: str, dataset: Dataset, data_dir: Path | None
) -> dict[str, Iterator[Path]]:
    """The image files that the tables of each split name by their paths; raises when iterated."""
    return {
        f"{raw.place} (with its images)": named_images(raw)
        for raw in _local(name, dataset, data_dir).values()
        if not any(path.is_dir() for path in raw.paths)
    }


def _local(name: str, dataset: Dataset, data_dir: Path | None) -> dict[str, RawFiles]:
    source = _source(name, dataset, columns_of(name, dataset), data_dir)
    if source.problems:
        raise InputError(source.problems)
    return {split: raw for split, raw in source.splits.items() if isinstance(raw, RawFiles)}


def digest_rows(rows: list[Row]) -> str:
    """The digest of parsed rows, whatever file and format they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a data set's splits are read; one that is not there is cut off the training split."""

    splits: Mapping[str, Raw]
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
        made = {s: Made(f"grammar: {s}", partial(_generated, dataset, name, s)) for s in SPLITS}
        return _Source(splits=made)
    entry = CATALOGUE[dataset.catalogue or name] if dataset.files is None else None
    cut, limit = (entry.cut, entry.limit) if entry else ({}, {})
    of_entry = _Source(
        splits={},
        cut=cut,
        limit=limit,
        fair=entry is None or entry.fair,
        published=bool(entry and entry.parts),
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
        split: Made(f"{parts[0].hub}: {split}", partial(hub_rows, entry, split))
        for split, parts in entry.parts.items()
    }
    return replace(of_entry, splits=parts)


def _own_files(files: Files, columns: Columns) -> _Source:
    splits: dict[str, Raw] = {}
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
    every = [Readable(raw, problems) for raw in source.splits.values()]
    columns, wrong = settle_tags(every, columns, given)
    if wrong is not None:
        what, remedy = wrong
        problems.append(Problem(place=f"datasets.{name}", what=what, remedy=remedy))
        raise InputError(dict.fromkeys(problems))
    return columns


def _with_classes(name: str, source: _Source, columns: Columns, problems: list[Problem]) -> Columns:
    """`columns` with the classes of images, as the rows have them where the study names none.

    Adds to `problems` what ends the rows, and classes that are spelt alike.
    """
    if columns.labels:
        return columns
    every = [Readable(raw, problems) for raw in source.splits.values()]
    columns, alike = with_classes(every, columns, f"datasets.{name}")
    problems += alike
    return columns


def _kept(
    name: str,
    scans: Mapping[str, Scan],
    chosen: Mapping[str, Sequence[int]],
    missing: Sequence[str],
    columns: Columns,
    images: Pixels | None,
    problems: Sequence[Problem],
) -> dict[str, list[Row]]:
    """The chosen rows of each split; those that are `missing` are of the training split's scan.

    Raises `InputError` with what is wrong with them, and the `problems` known before.
    """
    problems = [*problems]
    splits: dict[str, list[Row]] = {}
    try:
        if images is not None:
            images.begin({split: len(rows) for split, rows in chosen.items()})
        for split, scan in scans.items():
            own = [split, *missing] if split == SPLITS[0] else [split]
            splits |= scan.rows({s: chosen[s] for s in own})
        for split in SPLITS:
            place = scans[split].place if split in scans else f"datasets.{name}: {split}"
            problems += one_class(place, splits[split], columns)
        if images is not None:
            problems += images.end()
        if problems:
            raise InputError(problems)
    except BaseException:
        if images is not None:
            images.discard()
        raise
    return splits


def _scans(
    name: str,
    source: _Source,
    columns: Columns,
    limits: Mapping[str, int | None],
    seen: Mapping[str, Drawing],
    problems: Sequence[Problem],
    images: Pixels | None,
) -> dict[str, Scan]:
    """The splits, each looked at once; the drawings of those `seen` are given their rows.

    Raises `InputError` with the `problems` known before and those of all splits.
    """
    problems = [*problems]
    scans: dict[str, Scan] = {}
    for split, raw in source.splits.items():
        labelled = split != SPLITS[0]
        scan = Scan(raw, columns, images, labelled=labelled, published=source.published)
        try:
            scans[split] = scan
            scan.run(limits[split], seen.get(split))
        except HubUnreachableError:
            raise HubUnreachableError.of([f"datasets.{name}"]) from None
        except InputError as error:
            problems += error.problems
    if problems:
        if images is not None:
            for split, scan in scans.items():
                scan.decode_all(split)
            problems += images.end()
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
