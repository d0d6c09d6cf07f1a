"""A split's raw rows, looked at once, and read again where not all of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kdsearch.errors import InputError, Problem
from kdsearch.study.hub import HubUnreachableError
from kdsearch.study.parsers import parsed_rows
from kdsearch.study.pixels import Pixels
from kdsearch.study.split import Drawing
from kdsearch.study.tasks import Columns, Row


class Raw(Protocol):
    """A split's raw rows, read anew by each iteration, and what messages call it."""

    @property
    def place(self) -> str:
        """Its file or folder, or where else it is from."""

    def __iter__(self) -> Iterator[Row]: ...


@dataclass(frozen=True)
class Made:
    """Raw rows that a function makes anew each time."""

    place: str
    rows: Callable[[], Iterable[Row]]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows())


@dataclass(frozen=True)
class Readable:
    """Raw rows as far as they can be read; what ends them is added to the problems."""

    raw: Raw
    problems: list[Problem]

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self.raw
        except InputError as error:
            self.problems.extend(error.problems)


class Scan:
    """A split's rows, looked at once to know how many are good, and read again if too many."""

    def __init__(
        self,
        raw: Raw,
        columns: Columns,
        images: Pixels | None,
        *,
        labelled: bool,
        published: bool,
    ) -> None:
        self.place = raw.place
        self.count = 0
        """Of rows that can be used."""
        self.left_out = 0
        self._parsed = partial(parsed_rows, columns=columns, labelled=labelled, published=published)
        self._raw, self._images = raw, images
        self._problems: list[Problem] = []
        self._held: list[Row] | None = []
        self._bad: set[int] = set()

    def run(self, keep: int | None, drawing: Drawing | None) -> None:
        """Count the rows, hold those of a split of at most `keep`; `drawing` sees each.

        Raises `InputError` with what is wrong with them, but for what shows when images are
        decoded.
        """
        try:
            self._run(keep, drawing)
        except HubUnreachableError:
            raise
        except InputError as error:
            seen = self.count + self.left_out > 0 or not self._problems
            raise InputError([*self._problems, *(error.problems if seen else ())]) from None
        if self._problems:
            raise InputError(self._problems)

    def _run(self, keep: int | None, drawing: Drawing | None) -> None:
        for at, (raw, row) in enumerate(self._pairs()):
            if row is None:
                self.left_out += 1
                self._bad.add(at)
                continue
            self.count += 1
            if self._images is not None:
                self._images.look(row["size"])
            if drawing is not None:
                drawing.add(raw, row)
            if keep is not None and self.count > keep and self._images is None:
                self._held = None
            if self._held is not None:
                self._held.append(row)

    def _pairs(self) -> Iterator[tuple[Row, Row | None]]:
        return self._parsed(self.place, self._readable() if self._images else self._raw)

    def _readable(self) -> Iterator[Row]:
        """The raw rows of images as far as they can be read, so that these are looked at too."""
        try:
            yield from self._raw
        except HubUnreachableError:
            raise
        except InputError as error:
            self._problems += error.problems

    def rows(self, chosen: Mapping[str, Sequence[int]]) -> dict[str, list[Row]]:
        """The rows of each split by their numbers, which ascend; images are decoded."""
        split_of = {number: split for split, own in chosen.items() for number in own}
        if self._held is not None:
            if self._images is not None:
                self._decode(self._images, self._held, split_of)
            return {s: [self._held[number] for number in own] for s, own in chosen.items()}
        found: dict[str, list[Row]] = {split: [] for split in chosen}
        number = 0
        for _, row in self._pairs():
            if row is not None:
                if number in split_of:
                    found[split_of[number]].append(row)
                number += 1
        self._same(number)
        return found

    def decode_all(self, split: str) -> None:
        """Decode every image, of rows that are refused anyway, so that all that is wrong is known.

        What is wrong is noted where images are decoded.
        """
        assert self._images is not None
        with suppress(InputError):  # what it says of the rows is known
            every = dict.fromkeys(range(self.count), split)
            self._decode(self._images, self._held or [], every)

    def _decode(self, images: Pixels, rows: list[Row], split_of: Mapping[int, str]) -> None:
        number = 0
        for at, raw in enumerate(self._raw):
            if at not in self._bad:
                if number in split_of:
                    place = f"{self.place}: row {at + 1}"
                    images.keep(split_of[number], place, raw, rows[number])
                number += 1
        self._same(number)

    def _same(self, count: int) -> None:
        if count != self.count:
            raise InputError.one(self.place, "changed while it was read", "launch again")
