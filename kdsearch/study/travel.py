"""Which files go along with a study that is launched on another machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kdsearch.errors import InputError, Problem
from kdsearch.study.files import named_files, named_images
from kdsearch.study.known import columns_of
from kdsearch.study.schema import SPLITS, Dataset, FileSource, Study
from kdsearch.study.sizes import readable_size

MOST_BYTES = 50_000_000
"""Of all files together; Ray takes half of a request to its dashboard for them, 100 MiB."""
_PUT = "put it where the cluster sees it, and give its absolute path"
_OUTSIDE = "lies outside the folder in which this command runs, which is all the job gets"
_NOTES = ("state.json", "dataset_info.json", "dataset_dict.json")
"""What `datasets` writes beside the rows of a folder."""


def travelling_files(study: Study, place: str) -> tuple[Path, ...]:
    """The data files that the study, in the file `place`, names by paths of the working folder.

    A path that begins with / or ~ is one of the other machine, and nothing is looked for here.
    Models do not travel. Raises `InputError` with every problem.
    """
    problems = [
        Problem(
            place=f"{place}: models.{name}",
            what=f"{model.path} is a folder on this machine, and models are not sent along",
            remedy=f"{_PUT}, or give an id of the Hub",
        )
        for name, model in study.models.items()
        if model.path is not None and not _stays(model.path)
    ]
    found: set[Path] = set()
    for name, dataset in study.datasets.items():
        for split, path in _named(dataset):
            try:
                found |= set(_files(name, dataset, split, path))
            except InputError as error:
                problems += error.problems
    problems += _too_large(found)
    if problems:
        raise InputError(problems)
    return tuple(sorted(found))


def _named(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """The splits of a data set with the paths that it names of this machine."""
    for split in SPLITS:
        source: FileSource | None = getattr(dataset.files, split, None)
        match source:
            case None:
                paths: tuple[str, ...] = ()
            case str():
                paths = (source,)
            case dict():
                paths = tuple(source.values())
            case tuple():
                paths = source
        yield from ((split, path) for path in paths if not _stays(path))


def _stays(path: str) -> bool:
    return path.startswith(("/", "~"))


def _files(name: str, dataset: Dataset, split: str, path: str) -> Iterator[Path]:
    folder = Path(os.path.normpath(path))
    if folder.parts[:1] == ("..",):
        raise InputError.one(path, _OUTSIDE, f"run it from a folder above, or {_PUT}")
    raw = named_files(str(folder), split, columns_of(name, dataset))
    for file in raw.paths:
        if file.is_dir():
            continue
        if not file.is_file():
            remedy = "give the absolute path of a file that is on the cluster"
            raise InputError.one(file, "no such file here", remedy)
        yield file
        if folder.is_dir():
            beside = (where / note for where in (folder, file.parent) for note in _NOTES)
            yield from (note for note in beside if note.is_file())
    for image in named_images(raw):
        inside = Path(os.path.normpath(image))
        if inside.parts[:1] == ("..",):
            raise InputError.one(inside, _OUTSIDE, f"run it from a folder above, or {_PUT}")
        if not inside.is_absolute() and inside.is_file():
            yield inside


def _too_large(files: set[Path]) -> list[Problem]:
    sizes = {file: file.stat().st_size for file in files}
    if sum(sizes.values()) <= MOST_BYTES:
        return []
    largest = max(sizes, key=lambda file: sizes[file])
    what = (
        f"has {readable_size(sizes[largest])}, and all files together "
        f"{readable_size(sum(sizes.values()))}: at most {readable_size(MOST_BYTES)} is sent along"
    )
    return [Problem(place=str(largest), what=what, remedy=_PUT)]
