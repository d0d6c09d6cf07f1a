"""The kinds of data file, each as an iterator of raw rows that holds one row at a time.

`study/files.py` finds the files and opens them; here their content is taken apart. Of a delimited
file every cell is text, of the others a value is what the file says. What a reader refuses is an
`InputError` with the line.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any, TextIO

from kdsearch.errors import InputError, first_line, shortened
from kdsearch.study.tasks import SPECS, Columns, Row

MOST_JSON = 200_000_000
"""Characters of a .json file that is one value, which can only be read as a whole."""
MOST_LINE = 20_000_000
"""Characters of a line of any file, and of a cell."""
_BATCH = {"text": 1_000, "pixels": 20}
"""Rows of a .parquet file that are held at a time; an image may have megabytes."""
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


# -- JSON ------------------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice")
    return found


def json_lines(path: Path, lines: TextIO, columns: Columns) -> Iterator[Row]:
    """One object a line; empty lines are no rows."""
    yield from _objects(path, lines)


def _objects(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            if line.strip() in ("{", "["):
                what = "not JSON line by line: an object spans several lines"
                wanted = "." if "{" in line else "'.[]'"
                remedy = f"jq -c {wanted} {path.name} > lines.jsonl"
                raise InputError.one(place, what, remedy) from None
            raise InputError.one(place, f"not JSON: {error}") from None
        if not isinstance(row, dict):
            remedy = (
                "rename it to .json if it is an array of objects" if isinstance(row, list) else ""
            )
            raise InputError.one(place, "not a JSON object", remedy)
        yield row


def json_file(path: Path, text: TextIO, columns: Columns) -> Iterator[Row]:
    """An array of objects, SQuAD's own form, or objects by line, which `datasets` calls .json."""
    first = ""
    while not first.strip() and (line := text.readline(MOST_JSON)):
        first += line
    if first.lstrip().startswith("{"):
        try:
            alone = isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            alone = False
        line = ""
        while not line.strip() and (line := text.readline(MOST_JSON)):
            first += line
        if alone and line:
            yield from _objects(path, chain(io.StringIO(first), text))
            return
    content = first + text.read(max(0, MOST_JSON - len(first)))
    if text.read(1):
        what = f"is one JSON value of over {MOST_JSON // 10**6} MB, which must be split into lines"
        raise InputError.one(path, what, f"jq -c '.[]' {path.name} > {path.stem}.jsonl")
    if not content.strip():
        return
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except ValueError as error:
        line_number = getattr(error, "lineno", 0)
        place = f"{path}:{line_number}" if line_number else str(path)
        raise InputError.one(place, f"not JSON: {error}") from None
    except RecursionError as error:
        raise InputError.one(path, f"not JSON: {error}") from None
    yield from _rows_in(path, value)


def _rows_in(path: Path, value: object) -> Iterator[Row]:
    if isinstance(value, dict):
        data = value.get("data")
        if isinstance(data, list):
            if any(isinstance(entry, dict) and "paragraphs" in entry for entry in data):
                yield from _squad(path, data)
                return
            value = data
        elif value and all(map(_numbered, value.values())):
            what = "holds a table column by column, as pandas writes it by default"
            remedy = f'df.to_json("{path.stem}.jsonl", orient="records", lines=True)'
            raise InputError.one(path, what, remedy)
        else:
            value = [value]
    if not isinstance(value, list):
        raise InputError.one(path, "is not an array of JSON objects")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise InputError.one(f"{path}: [{number}]", "not a JSON object")
        yield row


def _numbered(column: object) -> bool:
    return isinstance(column, dict) and all(key.isdigit() for key in column)


def _squad(path: Path, data: list[Any]) -> Iterator[Row]:
    """The questions of {"data": [{"paragraphs": [{"context": …, "qas": […]}]}]}, v1 or v2."""
    for i, article in enumerate(data):
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    title = {"title": article["title"]} if "title" in article else {}
                    yield {**title, **question, "context": paragraph["context"]}
        except (KeyError, TypeError):
            what = "is not in SQuAD's form: paragraphs, each with context and qas"
            raise InputError.one(f"{path}: data[{i}]", what) from None


# -- text with separators --------------------------------------------------------------------------


def delimited(usual: str) -> Callable[[Path, TextIO, Columns], Iterator[Row]]:
    """The reader of .csv or .tsv: `usual` separates, unless the header says another does."""

    def read(path: Path, text: TextIO, columns: Columns) -> Iterator[Row]:
        csv.field_size_limit(MOST_LINE)  # of a cell; a context may be long
        lines = _Lines(text)
        head = [next(lines, "")]
        while head[-1].isspace():
            head.append(next(lines, ""))
        separator = _separator(head[-1], usual, columns)
        reader = csv.reader(chain(head, lines), delimiter=separator, strict=True)
        start = 1
        names: list[str] = []
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise _bad_quotes(path, start, lines, error) from None
            if cells is None:
                return
            place, lines.held, start = f"{path}:{start}", "", reader.line_num + 1
            if not names:
                names = _header(place, cells)
            elif cells:
                yield _row(place, cells, names, separator)

    return read


class _Lines(Iterator[str]):
    """Lines that remember those of the row that is being read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.held = ""

    def __next__(self) -> str:
        line = next(self._lines)
        if len(self.held) < 10_000:
            self.held += line
        return line


def _separator(header: str, usual: str, columns: Columns) -> str:
    """The separator under which the header has the most of the study's columns.

    Where it has none of them, the one that gives the most names, which the error then lists.
    """
    wanted = {*columns.text, columns.label, columns.group}

    def found(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            return (0, 0)
        hits = len(wanted.intersection(names))
        return (hits, 0 if hits else len(names))

    return max([usual, *(d for d in _DELIMITERS if d != usual)], key=found)


def _header(place: str, cells: list[str]) -> list[str]:
    twice = sorted({name for name in cells if name.strip() and cells.count(name) > 1})
    if twice:
        what = f"has the column {', '.join(twice)} twice"
        raise InputError.one(place, what, "rename one of them")
    return cells


def _row(place: str, cells: list[str], names: list[str], separator: str) -> Row:
    if len(cells) != len(names):
        what = f"does not have the {len(names)} fields of the first line"
        raise InputError.one(place, what, "is the file complete?")
    row = {}
    for number, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if name.strip():
            row[name] = cell
        elif cell and number:  # the first column may be pandas' index
            what = f"has {shortened(cell)} in a column without a name"
            raise InputError.one(place, what, "name it, or quote the cell that holds a separator")
    if separator == "\t" and any("\n" in cell for cell in cells):
        what = "has a quoted cell that spans several lines"
        remedy = "use .jsonl if quotes are plain characters or cells have line breaks"
        raise InputError.one(place, what, remedy)
    return row


def _bad_quotes(path: Path, start: int, lines: _Lines, error: csv.Error) -> InputError:
    place = f"{path}:{start}"
    if any(words in str(error) for words in ("expected after", "unexpected end", "field limit")):
        what = "has a quoted cell that does not end at its closing quote"
        slash = ', not \\"' if '\\"' in lines.held else ""
        return InputError.one(place, what, f'double the quotes within a cell: ""{slash}')
    return InputError.one(place, f"cannot be read: {error}")


# -- CoNLL and lines of text -----------------------------------------------------------------------


def conll(path: Path, text: TextIO, columns: Columns) -> Iterator[Row]:
    """A word and its tag a line, in the first column and the last; empty lines end a sentence.

    Lines that begin with `#` and have another number of columns are comments.
    """
    lines = _columns(path, text)
    early = []  # comments, or words that begin with #
    for number, parts in lines:
        early.append((number, parts))
        if parts and not parts[0].startswith("#"):
            break
    width = next((len(parts) for _, parts in reversed(early) if parts), 0)
    words: list[str] = []
    tags: list[str] = []
    for number, parts in chain(early, lines, [(0, [])]):
        if not parts and words:
            _not_numbered(path, words)
            yield {columns.text[0]: words, columns.label: tags}
            words, tags = [], []
        elif parts and len(parts) == width > 1:
            words.append(parts[0])
            tags.append(parts[-1])
        elif parts and not parts[0].startswith("#"):
            what = f"has {len(parts)} column{'s' * (len(parts) > 1)}"
            unlike = f", where the others have {width}" if width > 1 else ""
            remedy = "give each line a word and its tag, with or without columns in between"
            raise InputError.one(f"{path}:{number}", what + unlike, remedy)


def _columns(path: Path, text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Each line's number and columns; of an end of a sentence or document, none."""
    for number, line in enumerate(text, start=1):
        bare = line.strip(" \t\n")
        if bare.startswith("#begin document"):
            what = "is in the format of CoNLL-2012, whose first column is not the word"
            raise InputError.one(
                f"{path}:{number}", what, "keep only the columns of words and tags"
            )
        if not bare or bare.startswith("-DOCSTART-"):
            yield number, []
        else:
            yield number, bare.split("\t") if "\t" in bare else [p for p in bare.split(" ") if p]


def _not_numbered(path: Path, words: Sequence[str]) -> None:
    if len(words) > 2 and all(
        word == str(i) for i, word in enumerate(words, start=words[0] == "1")
    ):
        what = "has word numbers in its first column, where the words should be"
        raise InputError.one(path, what, "drop it with cut -f2-")


def parallel(files: dict[str, tuple[Path, TextIO]]) -> Iterator[Row]:
    """Lines of several text files that belong together, by the names of their columns."""
    counts = dict.fromkeys(files, 0)
    whole = True
    for lines in zip_longest(*(text for _, text in files.values())):
        for column, line in zip(files, lines, strict=True):
            counts[column] += line is not None
        whole = whole and None not in lines
        if whole:
            yield {
                column: line.removesuffix("\n").removesuffix("\r")
                for column, line in zip(files, lines, strict=True)
            }
    if not whole:
        sizes = ", ".join(f"{files[column][0]} has {n:,} lines" for column, n in counts.items())
        place = next(iter(files.values()))[0]
        raise InputError.one(place, f"does not match line by line: {sizes}")


# -- tables ----------------------------------------------------------------------------------------


def parquet(path: Path, file: IO[bytes], columns: Columns) -> Iterator[Row]:
    """The rows of a .parquet file, a batch at a time."""
    from pyarrow.parquet import ParquetFile

    try:
        # Else a row group's columns are held, or the whole file.
        table = ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        names = table.schema_arrow.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if not twice:
            for batch in table.iter_batches(batch_size=_held(columns)):
                yield from batch.to_pylist()
    except Exception as error:  # pyarrow raises whatever its readers raise
        what = f"cannot be read as parquet: {first_line(error)}"
        raise InputError.one(path, what, "is the file complete?") from None
    if twice:
        what = f"has the column {', '.join(twice)} twice"
        raise InputError.one(path, what, "rename one of them")


@contextmanager
def unpacked(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The content of a compressed stream as a file that one can seek in."""
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(file, whole)
        whole.seek(0)
        yield whole


def _held(columns: Columns) -> int:
    return _BATCH[SPECS[columns.task].reads]


def arrow(path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file as `datasets` keeps them: a stream of Arrow batches."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                for start in range(0, batch.num_rows, _held(columns)):
                    yield from batch.slice(start, _held(columns)).to_pylist()
    except FileNotFoundError:
        raise InputError.one(path, "no such file") from None
    except Exception as error:  # as above
        what = f"cannot be read as Arrow: {first_line(error)}"
        raise InputError.one(path, what, "is the file complete?") from None
