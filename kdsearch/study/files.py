"""Data files as people have them: finding those that a study means, opening them, reading rows.

A split's rows come from one file, from several shards, from lines of parallel text files, from a
folder that `datasets` saved, or from a folder of images by class. `study/formats.py` takes their
content apart, `study/rows.py` makes splits of it.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import lzma
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from kdsearch.errors import InputError, first_line
from kdsearch.study import formats
from kdsearch.study.class_folders import class_images, is_class_folder
from kdsearch.study.images import placed
from kdsearch.study.parsers import value_in
from kdsearch.study.schema import SPLITS, FileSource
from kdsearch.study.standin import stand_in
from kdsearch.study.tasks import SPECS, Columns, Row

_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TEXT: dict[str, Callable[[Path, TextIO, Columns], Iterator[Row]]] = {
    ".jsonl": formats.json_lines,
    ".json": formats.json_file,
    ".csv": formats.delimited(","),
    ".tsv": formats.delimited("\t"),
    ".conll": formats.conll,
    ".bio": formats.conll,
    ".iob": formats.conll,
    ".iob2": formats.conll,
}
KINDS = (*_TEXT, ".parquet")
KINDS_IN_WORDS = f"{', '.join(KINDS)}, each also as .gz, .bz2 or .xz"
_DAMAGED = (gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
"""What a file or folder of each split may be called where the study does not name it."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")
_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_PACKED = re.compile(
    rb"(?P<gzip>\x1f\x8b)|(?P<bzip2>BZh\d1AY&SY)|(?P<xz>\xfd7zXZ\0)|(?P<zip>PK\x03\x04)"
)
_HELD = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
_BOMS = {b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, kw_only=True)
class RawFiles:
    """Where the rows of a split are; iterating reads them, each time anew. Raises `InputError`."""

    place: str
    """What messages call it."""
    paths: tuple[Path, ...]
    """Files in the order of their rows; of a folder that `datasets` saved, those in it; a folder
    of images by class itself."""
    columns: Columns
    parallel: tuple[str, ...] = ()
    """The columns whose lines are in `paths`, where these belong together line by line."""

    def __iter__(self) -> Iterator[Row]:
        if self.parallel:
            yield from _parallel(dict(zip(self.parallel, self.paths, strict=True)))
            return
        for path in self.paths:
            yield from _file(path, self.columns)


def named_files(source: FileSource, split: str, columns: Columns) -> RawFiles:
    """The files of a split as a study names them: a path, a pattern, a list, parallel texts.

    Raises `InputError` where they are not there.
    """
    if isinstance(source, Mapping):
        paths = tuple(expanded(path) for path in source.values())
        place = ", ".join(map(str, paths))
        return RawFiles(place=place, paths=paths, columns=columns, parallel=tuple(source))
    names = (source,) if isinstance(source, str) else source
    found = [path for name in names for path in _matching(name, split, columns)]
    for path, times in Counter(found).items():
        if times > 1:
            raise InputError.one(path, "appears twice among the files of a split", "name it once")
    place = str(expanded(names[0])) if len(names) == 1 else f"{names[0]} … {names[-1]}"
    return RawFiles(place=place, paths=tuple(found), columns=columns)


def named_images(raw: RawFiles) -> Iterator[Path]:
    """The image files of a split that rows name, or that a folder of images has."""
    if _of_images(raw.columns):
        cells = (value_in(row, raw.columns.text[0]) for row in raw)
        yield from (cell for cell in cells if isinstance(cell, Path))


def folder_files(folder: Path, columns: Columns) -> dict[str, RawFiles]:
    """The files of each split by their names in a folder. Raises `InputError`."""
    found: dict[str, RawFiles] = {}
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    its_split = {path: _split_named(path) for path in there if path.name not in _NO_DATA}
    known = {path for path in its_split if path.is_dir() or _kind(path)[0] in KINDS}
    for split in SPLITS:
        paths = [path for path, its in its_split.items() if its == split and path in known]
        names = dict.fromkeys(_shard_name(path) for path in paths)
        if len(names) > 1:
            what = f"has {' and '.join(names)}, which name the same split"
            raise InputError.one(folder, what, "keep one of them")
        if paths:
            _all_shards(paths)
            place = str(folder / next(iter(names)))
            every = tuple(part for path in paths for part in _parts(path, split, columns))
            found[split] = RawFiles(place=place, paths=every, columns=columns)
    for path, its in its_split.items():  # what may be meant for a split that is missing
        if path.is_file() and its is None and path in known and len(found) < len(SPLITS):
            what = f"has {path.name}, which is not a split"
            remedy = "rename it to train, validation or test, or move it away"
            raise InputError.one(folder, what, remedy)
        if path.is_file() and its is not None and its not in found:
            what, remedy = f"{path.name} is an unknown kind of file", f"use one of {KINDS_IN_WORDS}"
            raise InputError.one(folder, what, remedy)
    if SPLITS[0] not in found:
        remedy = f"put train.jsonl or train.csv there, or another of {KINDS_IN_WORDS}"
        raise InputError.one(folder, f"has no {SPLITS[0]} split", remedy)
    return found


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder."""
    return Path(os.path.expanduser(path))  # Path's own raises for ~nobody


# -- finding ---------------------------------------------------------------------------------------


def _matching(name: str, split: str, columns: Columns) -> Iterator[Path]:
    path = expanded(name)
    if glob.has_magic(str(path)) and not path.exists():
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found:
            raise InputError.one(path, "no file matches this pattern")
        _all_shards(found)
    else:
        found = [path]
    for each in found:
        yield from _parts(each, split, columns)


def _parts(path: Path, split: str, columns: Columns) -> list[Path]:
    """The file itself, or a folder of images; of one that `datasets` saved, the files in it."""
    if not path.is_dir() or (_of_images(columns) and is_class_folder(path)):
        return [path]
    if (path / "dataset_dict.json").exists():
        inner = [path / name for name in _NAMES[split] if (path / name).is_dir()]
        if len(inner) != 1:
            what = f"has {' and '.join(p.name for p in inner) or f'no {split} split'}"
            raise InputError.one(path, what, f"name the folder of one split: {path}/…")
        path = inner[0]
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        names = [str(part["filename"]) for part in state["_data_files"]]
    except FileNotFoundError:
        what = "is a folder that save_to_disk of datasets did not write"
        raise InputError.one(path, what, f"name its files: {path}/*.jsonl") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError.one(path / "state.json", f"cannot be read: {first_line(error)}") from None
    for name in names:
        if Path(name).name != name:  # it may come from someone else, and would be sent along
            what = f"names {name}, which is not a file in this folder"
            raise InputError.one(path / "state.json", what, "have save_to_disk write it again")
    return [path / name for name in names]


def _kind(path: Path) -> tuple[str, str]:
    """The kind of a file by its name, and how it is compressed."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _OPENERS else ""
    return (suffixes[-1] if suffixes else "", packed)


def _split_named(path: Path) -> str | None:
    """The split that a file or folder is called after, train-00000-of-00003.parquet too."""
    stem = path.name.partition(".")[0]
    if (shard := _SHARD.fullmatch(stem)) is not None:
        stem = shard[1]
    return next((split for split, names in _NAMES.items() if stem in names), None)


def _shard_name(path: Path) -> str:
    stem, dot, rest = path.name.partition(".")
    shard = _SHARD.fullmatch(stem)
    return f"{shard[1]}-*-of-{shard[3]}{dot}{rest}" if shard else path.name


def _all_shards(paths: Sequence[Path]) -> None:
    """Raise `InputError` where files that are called parts of one split are not all of them."""
    there: dict[Path, set[int]] = defaultdict(set)
    for path in paths:
        if (shard := _SHARD.fullmatch(path.name.partition(".")[0])) is not None:
            there[path.with_name(_shard_name(path))].add(int(shard[2]))
    for name, numbers in there.items():
        every = int(name.name.partition("-of-")[2][:5])
        if missing := sorted({*range(every)} - numbers):
            what = f"{len(missing)} of {every} shards are missing, {missing[0]:05} among them"
            raise InputError.one(name, what, "fetch them, or list the ones to use")


# -- reading ---------------------------------------------------------------------------------------


def _file(path: Path, columns: Columns) -> Iterator[Row]:
    rows, image = _table(path, columns), columns.text[0]
    if not _of_images(columns):
        yield from rows
    elif path.is_dir():
        yield from ({image: each, columns.label: name} for each, name in class_images(path))
    elif not path.exists():
        raise InputError.one(path, "no such file or folder")
    else:
        for row in rows:
            cell = value_in(row, image)
            yield row if cell is None else {**row, image: placed(cell, path.parent)}


def _of_images(columns: Columns) -> bool:
    return SPECS[columns.task].reads == "pixels"


def _table(path: Path, columns: Columns) -> Iterator[Row]:
    kind, packed = _kind(path)
    if kind == ".arrow":
        yield from formats.arrow(path, columns)
        return
    if kind not in KINDS:
        texts = f"{{{', '.join(f'{name}: FILE' for name in (*columns.text, columns.label))}}}"
        remedy = f"use one of {KINDS_IN_WORDS}; or "
        if _of_images(columns):
            remedy += "name a folder with a folder of images for each class: cat/1.jpg, dog/2.jpg"
        else:
            remedy += f"a text file per column: {texts}"
        raise InputError.one(path, "unknown kind of file", remedy)
    with _in_words(path), ExitStack() as stack:
        file = stack.enter_context(closing(_opened(path, kind, packed)))
        if kind == ".parquet":
            if packed:
                file = stack.enter_context(formats.unpacked(file))
            yield from formats.parquet(path, file, columns)
        else:
            text = _decoded(path, file, newline="" if kind in (".csv", ".tsv") else None)
            yield from _TEXT[kind](path, text, columns)


def _parallel(files: Mapping[str, Path]) -> Iterator[Row]:
    with ExitStack() as stack:
        opened = {}
        for column, path in files.items():
            kind, packed = _kind(path)
            if kind in KINDS:
                remedy = "give plain text files with one row per line"
                raise InputError.one(
                    path, "is not a plain text file that can be paired line by line", remedy
                )
            stack.enter_context(_in_words(path))
            file = stack.enter_context(closing(_opened(path, kind, packed)))
            opened[column] = (path, _decoded(path, file, newline="\n"))
        yield from formats.parallel(opened)


def _opened(path: Path, kind: str, packed: str) -> Any:
    """The bytes of a file, decompressed. Raises `InputError` where it is not what its name says."""
    if path.exists() and not path.is_file():
        raise InputError.one(path, "is not a regular file", "name a file")
    if (problem := stand_in(path)) is not None:
        raise InputError([problem])
    with path.open("rb") as file:
        start = file.read(16)
    held = (match := _PACKED.match(start)) and match.lastgroup
    if packed:
        if start and held != _HELD[packed]:
            what = "is not compressed the way its name says"
            raise InputError.one(path, what, "rename it to match its content")
        return _OPENERS[packed](path)
    if start.startswith(b"PAR1") and kind != ".parquet":
        held = "parquet"
    if held:
        raise InputError.one(
            path, f"holds {held}, unlike its name", "rename it to match its content"
        )
    return path.open("rb")


def _decoded(path: Path, file: Any, newline: str | None) -> TextIO:
    """The text of a file in UTF-8, or in what its byte-order mark says."""
    start = file.peek(64)[:64]
    encoding = next((e for bom, e in _BOMS.items() if start.startswith(bom)), "utf-8-sig")
    if encoding == "utf-8-sig" and len(start) > 3 and any(start):
        halves = {"utf-16le": start[1::2], "utf-16be": start[::2]}
        for name, half in halves.items():
            if not any(half):
                what = "is UTF-16 without a byte-order mark"
                raise InputError.one(path, what, _iconv(path, name))
    return _Text(path, file, encoding=encoding, newline=newline)


class _Text(io.TextIOWrapper):
    """Text by lines of a bounded length: a small compressed file may hold one of gigabytes."""

    def __init__(self, path: Path, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self._path, self._number = path, 0

    def __next__(self) -> str:  # type: ignore[override]  # as TextIOWrapper itself does
        line = self.readline(formats.MOST_LINE)
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) == formats.MOST_LINE:
            what = f"is a line of more than {formats.MOST_LINE // 10**6} million characters"
            raise InputError.one(
                f"{self._path}:{self._number}", what, "put each row on its own line"
            )
        return line


def _iconv(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t utf-8 {path.name} > utf8-{path.name}"


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turns what goes wrong in reading a file to an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError.one(path, "no such file") from None
    except UnicodeDecodeError as error:
        what, remedy = _undecodable(path, error)
        raise InputError.one(path, what, remedy) from None
    except EOFError:
        what = "is cut off: its compressed content is incomplete"
        raise InputError.one(path, what, "fetch it again") from None
    except _DAMAGED as error:
        what = f"is damaged: {first_line(error)}"
        raise InputError.one(path, what, "fetch it again") from None
    except Exception as error:  # the readers' own errors have no common class
        raise InputError.one(path, f"cannot be read: {first_line(error)}") from None


def _undecodable(path: Path, error: UnicodeDecodeError) -> tuple[str, str]:
    if error.encoding != "utf-8":
        return f"is not valid {error.encoding}", "is the file complete?"
    with suppress(OSError, EOFError, *_DAMAGED), closing(_raw_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                byte = f"the byte 0x{line[found.start]:02x} in line {number}"
                if b"\0" in line:
                    return f"is not text: it has {byte}", "is it what its name says?"
                windows = f"if it is from Windows: {_iconv(path, 'cp1252')}"
                return f"is not UTF-8: it has {byte}", windows
    return f"is not UTF-8: {first_line(error)}", ""


def _raw_lines(path: Path) -> Any:
    packed = _kind(path)[1]
    return _OPENERS[packed](path) if packed else path.open("rb")
