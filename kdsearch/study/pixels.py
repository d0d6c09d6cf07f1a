"""The pixels of a data set of images while its rows are read: one size, and a file per split.

Rows are looked at once to know their labels, the images' sizes by their headers, and the digests of
their files; then those that are kept are decoded, one at a time, into the file of their split.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kdsearch.errors import Problem, StorageError
from kdsearch.study.cells import BadRowError
from kdsearch.study.images import encoded, pixels
from kdsearch.study.labels import is_whole, two_spellings
from kdsearch.study.parsers import first_of, value_in
from kdsearch.study.tasks import Columns, Row
from kdsearch.study.tasks.base import is_missing
from kdsearch.study.tasks.image_classification import class_name

MOST_SIZE = 224
"""The size that is kept where the study does not say it, and images differ or are larger."""


class Pixels:
    """What becomes of the images of a data set."""

    def __init__(self, column: str, size: int | None, scratch: Path | None) -> None:
        self.files: dict[str, Path] = {}
        """By split: an array of uint8 [rows, size, size, 3], as NumPy keeps one (.npy)."""
        self.enlarged: Counter[str] = Counter()
        """By split: how many images are less than half as large as they are kept."""
        self._column = column
        self._size = size
        self._scratch = scratch
        self._sizes: set[tuple[int, int]] = set()
        self._open: dict[str, BinaryIO] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._bad: Counter[str] = Counter()

    def look(self, size: tuple[int, int]) -> None:
        """Take note of the size of an image, before any is kept."""
        if len(self._sizes) < 2:
            self._sizes.add(size)

    @property
    def size(self) -> int:
        """That of all images as they are kept: the study's, else their own if it is one, or 224."""
        if self._size is None:
            alike = len(self._sizes) == 1
            self._size = min(MOST_SIZE, *next(iter(self._sizes))) if alike else MOST_SIZE
        return self._size

    def begin(self, rows: Mapping[str, int]) -> None:
        """Make a file for each split with so many rows, where they are to be kept."""
        for split, count in rows.items():
            if self._scratch is None:
                continue
            self.files[split] = self._scratch / f".{uuid.uuid4().hex}.tmp"
            shape = (count, self.size, self.size, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            with self._writing(split):
                self._open[split] = self.files[split].open("xb")
                np.lib.format.write_array_header_1_0(self._open[split], header)

    def keep(self, split: str, place: str, raw: Row, row: Row) -> None:
        """Decode the image of a row, which then has the digest of its pixels."""
        size = row.pop("size")
        try:
            decoded = pixels(encoded(value_in(raw, self._column), self._column), self.size)
        except BadRowError as found:
            self._bad[split] += 1
            problems = self._problems.setdefault(split, [])
            problems.append(Problem(place=place, what=found.what, remedy=found.remedy))
            return
        content = decoded.tobytes()
        row["pixels"] = hashlib.sha256(content).hexdigest()
        if 2 * min(size) <= self.size:
            self.enlarged[split] += 1
        if split in self._open:
            with self._writing(split):
                self._open[split].write(content)

    def end(self) -> Iterator[Problem]:
        """Close the files; the images that could not be decoded."""
        for split, file in self._open.items():
            with self._writing(split):
                file.close()
        for split, found in self._problems.items():
            place = found[0].place.rpartition(": row")[0]
            yield from first_of(found, self._bad[split], place)

    def discard(self) -> None:
        """Remove the files, which are not wanted any more."""
        for split, file in self._open.items():
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                self.files[split].unlink(missing_ok=True)

    @contextmanager
    def _writing(self, split: str) -> Iterator[None]:
        """Turns what goes wrong in writing to a `StorageError`."""
        try:
            yield
        except OSError as error:
            what = f"{self.files[split].parent}: the pixels of {split} cannot be written"
            raise StorageError(f"{what}: {error.strerror}; make room and launch again") from None


def with_classes(
    raw: Sequence[Iterable[Row]], columns: Columns, place: str
) -> tuple[Columns, list[Problem]]:
    """The columns with the classes of a data set, where the study names none: those that occur.

    Names in their order, numbers by their value; and those that are spelt alike.
    """
    found = dict.fromkeys(_names(raw, columns))
    problems = []
    for names in two_spellings(found):
        alike = len({*map(class_name, names)}) < len(names)
        written = " and ".join(map(ascii if alike else str, names))
        what = f"has the classes {written}, which are spelt alike"
        problems.append(
            Problem(place=place, what=what, remedy="rename one, or name both under labels")
        )
    numbers = all(name.isdecimal() for name in found)
    labels = sorted(dict.fromkeys(map(class_name, found)), key=int if numbers else str)
    return replace(columns, labels=tuple(labels)), problems


def _names(raw: Sequence[Iterable[Row]], columns: Columns) -> Iterator[str]:
    for row in (row for rows in raw for row in rows):
        label: Any = value_in(row, columns.label)
        if isinstance(label, str | int | float) and not is_missing(label):
            yield str(int(label)) if is_whole(label) else str(label)
