"""A folder of images by class: each folder in it is called after a class and has its images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdsearch.errors import InputError, Problem, shortened_list

_NOTES = ("Thumbs.db", "desktop.ini")
"""What a desktop writes into folders, beside hidden files."""
_SPLITS = {"train", "training", "validation", "valid", "val", "dev", "test"}
_MOST_NAMED = 5


def is_class_folder(path: Path) -> bool:
    """Whether it is a folder, other than one that `datasets` saved."""
    notes = ("state.json", "dataset_dict.json")
    return path.is_dir() and not any((path / note).exists() for note in notes)


def class_images(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file below a folder's class folders with its class, in the order of their names.

    Raises `InputError` at the end, with all that is wrong with the folder, so that what is wrong
    with its images can be said too.
    """
    problems: list[Problem] = []
    classes = []
    loose = []
    for path in _entries(folder, problems):
        if path.is_dir():
            classes.append(path)
        else:
            loose.append(path.name)
    problems += _misplaced(folder, [path.name for path in classes], loose)
    for path in classes:
        images = [*_files(path, (_identity(folder),), problems)]
        if not images:
            remedy = "remove it, or put the images of its class there"
            problems.append(Problem(place=str(path), what="has no images", remedy=remedy))
        yield from ((image, path.name) for image in images)
    if problems:
        raise InputError(problems)


def folder_digest(folder: Path) -> str:
    """The SHA-256 of what lies below a folder: the files' names and content. Raises `OSError`."""
    digest = hashlib.sha256()
    for path in _files(folder, (), []):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _misplaced(folder: Path, classes: Sequence[str], loose: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with what lies directly in a folder of classes."""
    place = str(folder)
    if not classes:
        remedy = "give each class a folder with its images: cat/1.jpg, dog/2.jpg"
        yield Problem(place=place, what="has no class folders", remedy=remedy)
    elif {*map(str.lower, classes)} <= _SPLITS:
        names = " and ".join(classes)
        remedy = f"name the folders of the splits: files: {{train: {folder}/{classes[-1]}, …}}"
        what = f"has {names}, which are splits and no classes"
        yield Problem(place=place, what=what, remedy=remedy)
    if loose:
        what = f"has files outside of its class folders: {shortened_list(loose, _MOST_NAMED)}"
        remedy = "move each into the folder of its class, or away"
        yield Problem(place=place, what=what, remedy=remedy)


def _files(
    folder: Path, above: tuple[tuple[int, int], ...], problems: list[Problem]
) -> Iterator[Path]:
    """Every file below a folder; links are followed, but none back to a folder `above`."""
    here = (*above, _identity(folder))
    for path in _entries(folder, problems):
        if not path.is_dir():
            yield path
        elif _identity(path) in here:
            what = "is a link to a folder that it lies in"
            problems.append(Problem(place=str(path), what=what, remedy="remove the link"))
        else:
            yield from _files(path, here, problems)


def _entries(folder: Path, problems: list[Problem]) -> list[Path]:
    """What lies in a folder and is not hidden, by name."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        problems.append(Problem(place=str(folder), what=f"cannot be listed: {error.strerror}"))
        return []
    return [folder / name for name in names if not name.startswith(".") and name not in _NOTES]


def _identity(folder: Path) -> tuple[int, int]:
    found: Any = folder.stat()
    return found.st_dev, found.st_ino
