"""The pixels of rows of images: beside the rows of a split, memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.errors import InputError
from kdsearch.ledger.reading import UnreadableError, open_plain

_COPY = "restore it from a copy of the folder"
Pixels = npt.NDArray[np.uint8]


def with_pixels(path: Path, rows: Sequence[dict[str, Any]], *, whole: bool) -> list[dict[str, Any]]:
    """The rows with their pixels, uint8 [S, S, 3], in the place of the digests of these.

    Not `whole`, they are the first of the file at `path`. What is mapped takes no memory until it
    is used. Raises `InputError` where a file is not there, or holds other pixels than these.
    """
    try:
        found = path.stat()
        every = _mapped(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except FileNotFoundError:
        raise InputError.one(path, "is not there, with the pixels of its images", _COPY) from None
    except ValueError as error:
        raise InputError.one(path, f"holds no images: {error}", _COPY) from None
    if len(every) < len(rows) or (whole and len(every) > len(rows)):
        what = f"holds {len(every):,} images for {len(rows):,} rows"
        raise InputError.one(path, what, _COPY)
    digests = tuple(row["pixels"] for row in rows)
    if (other := _other(path, found.st_mtime_ns, found.st_size, found.st_ino, digests)) is not None:
        what = f"holds another image in the place of row {other + 1}"
        raise InputError.one(path, what, _COPY)
    return [{**row, "pixels": each} for row, each in zip(rows, every, strict=False)]


@lru_cache(maxsize=64)
def _mapped(path: Path, changed: int, size: int, inode: int) -> Pixels:
    """The array in a file, for as long as the file does not change."""
    with open_plain(path) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise UnreadableError("it is no array of NumPy's format 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    count = shape[0] if len(shape) == 4 else 0
    square = shape[1:] == (*shape[1:2] * 2, 3)
    if not (count and square and dtype == np.uint8) or size - start != np.prod(shape):
        raise UnreadableError("it is no whole array of uint8 [rows, size, size, 3]")
    mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=shape)
    return np.asarray(mapped)  # whose rows are plain views, which are made faster


@lru_cache(maxsize=8)
def _other(path: Path, changed: int, size: int, inode: int, digests: tuple[str, ...]) -> int | None:
    """The first image that has another digest; looked at once while the file does not change."""
    every = _mapped(path, changed, size, inode)
    pairs = enumerate(zip(every, digests, strict=False))
    return next((i for i, (each, d) in pairs if hashlib.sha256(each).hexdigest() != d), None)
