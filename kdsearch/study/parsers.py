"""Checking a data set's raw rows and bringing them to their task's form.

    classification  {"texts": [sentence] or [first, second], "label": number}
    ner             {"words": [word, ...], "tags": [number, ...]}
    qa              {"question": text, "context": text, "answers": [{"text": text, "start": 0}]}
                    without answers, where the data set has unanswerable questions
    translation     {"source": text, "target": text}

A row of the training split may lack its gold label (None), though not the column of it, nor a
reference translation, on which the teacher's outputs depend.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from kdsearch.errors import InputError, Problem, shortened
from kdsearch.study.cells import BadRowError as _BadRowError
from kdsearch.study.cells import listed, literal
from kdsearch.study.labels import is_whole, numbers_of, short_label
from kdsearch.study.tags import OUTSIDE, Scheme, follows, to_iob2

Row = dict[str, Any]
GOLD = {"classification": "label", "ner": "tags", "qa": "answers", "translation": "target"}
"""The field of a row that holds what a model should say, by task."""
_BAD_SHARE = 0.01
_HEAD = 100  # rows that are looked at for a column
_MOST_PROBLEMS = 5  # of one split; more of the same would hide the others


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What to read of a data set, and how its scores are computed."""

    task: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    """Of ner, empty until they have been collected from the data."""
    metric: str
    languages: tuple[str, str] | None = None
    collected: bool = False
    """Whether the labels were collected from the data, so that numbers mean nothing."""
    group: str | None = None
    """The column that says which training rows belong together; None: what the task says."""
    written: tuple[str, ...] = ()
    """Of ner: the tags of the data in the order of their numbers, where IOB2 is made of them."""
    scheme: Scheme = "IOB2"
    """Of ner: that of the data's tags."""
    unanswerable: bool = False
    """Of qa: whether a question may have no answer."""
    published: bool = False
    """Whether the rows are somebody else's, and stay as they were when first read."""


class _NoAnswerError(_BadRowError):
    """A question without an answer, in a data set whose questions have one."""


def parse_rows(
    place: str, raw: Iterable[Row], columns: Columns, *, labelled: bool, published: bool = False
) -> list[Row]:
    """The checked rows of a split read from `place`; raises `InputError`.

    `labelled`: every row must have its gold label. `published`: of a data set that its reader
    cannot mend, one bad row in a hundred is left out. Of one's own, questions without an answer
    are.
    """
    pairs = parsed_rows(place, raw, columns, labelled=labelled, published=published)
    return [row for _, row in pairs if row is not None]


def parsed_rows(
    place: str, raw: Iterable[Row], columns: Columns, *, labelled: bool, published: bool = False
) -> Iterator[tuple[Row, Row | None]]:
    """Each raw row and its checked form, None where it is bad, one at a time; see `parse_rows`.

    What is wrong with rows is raised at the end, once all have been looked at.
    """
    rows = iter(raw)
    head = list(islice(rows, _HEAD))
    if not head:
        raise InputError.one(place, "has no rows", "a split needs at least one row")
    if missing := missing_columns(place, head, columns, labelled=labelled):
        raise InputError(missing)
    parse = _PARSERS[columns.task](replace(columns, published=published))
    gold = GOLD[columns.task]
    problems: list[Problem] = []
    number = good = bad = 0
    has_label = False
    for number, row in enumerate(chain(head, rows), start=1):
        has_label = has_label or _find(row, columns.label) is not _ABSENT
        try:
            parsed = parse([_get(row, column) for column in columns.text], _get(row, columns.label))
            if parsed[gold] is None and labelled:
                raise _BadRowError(f"its {columns.label} is missing")
        except _BadRowError as found:
            if published or not isinstance(found, _NoAnswerError):
                bad += 1
                if bad <= _MOST_PROBLEMS:
                    where = f"{place}: row {number}"
                    problems.append(Problem(place=where, what=found.what, mend=found.mend))
            yield row, None
        else:
            good += 1
            yield row, parsed
    if not has_label:
        raise InputError([_no_column(place, head, columns, columns.label, labelled=labelled)])
    if bad and not (published and bad <= number * _BAD_SHARE):
        raise InputError(_first_of(problems, bad, place))
    if not good and not bad:
        mend = "let the data set say unanswerable: true, if they are to be kept"
        raise InputError.one(place, "none of its questions has an answer", mend)


def missing_columns(
    place: str, head: list[Row], columns: Columns, *, labelled: bool
) -> list[Problem]:
    """The columns that none of a split's first rows has.

    Not `labelled`, the labels may come later, but not in no row: where rows have none, the column
    is there and empty, so that a misspelt name is never taken for rows without labels.
    """
    wanted = [*columns.text]
    if labelled or columns.task == "translation" or not all(_has(head, text) for text in wanted):
        wanted.append(columns.label)
    if columns.group is not None and not labelled:
        wanted.append(columns.group)
    return [
        _no_column(place, head, columns, column, labelled=labelled)
        for column in wanted
        if not _has(head, column)
    ]


def _no_column(
    place: str, head: list[Row], columns: Columns, column: str, *, labelled: bool
) -> Problem:
    names = [*dict.fromkeys(name for row in head for name in row)]
    shown = (shortened(name) for name in names[:20])
    there = ", ".join(
        text if name != name.strip() else text[1:-1]
        for name, text in zip(names, shown, strict=False)
    )
    mend = f"there are: {there}{', …' * (len(names) > 20)}"
    others = {_plain(name): name for name in names if name not in (*columns.text, columns.label)}
    near = difflib.get_close_matches(_plain(column), others, n=1, cutoff=0.75)
    if near and "." not in column:
        name = others[near[0]]
        mend += f"; did you mean {name if name == name.strip() else shortened(name)}?"
    elif column == columns.label and not labelled and columns.task != "translation":
        mend += "; in rows without a label it is empty"
    return Problem(place=place, what=f"has no column {column}", mend=mend)


def _plain(name: str) -> str:
    return name.strip().casefold()


def group_value(row: Row, columns: Columns) -> str | None:
    """What a raw row has in the column of groups, where the study names one and it is filled."""
    value = _get(row, columns.group) if columns.group is not None else None
    return None if _missing(value) else str(value)


def named_tags(raw: Sequence[Iterable[Row]], columns: Columns) -> Iterator[list[str]]:
    """The tags of each row, as far as they are names."""
    for row in (row for rows in raw for row in rows):
        tags = listed(_get(row, columns.label))
        if isinstance(tags, list | tuple):
            yield [tag for tag in tags if isinstance(tag, str) and _may_be_tag(tag)]


def _may_be_tag(tag: str) -> bool:
    return not tag.isdigit() and _encodable(tag)


def nameless(raw: Sequence[Iterable[Row]], columns: Columns) -> tuple[str, str] | None:
    """What is wrong with a data set in which no tag has a name; None where its rows will say it."""
    if not any(_has(rows, columns.label) for rows in raw):
        return None
    cells = (_get(row, columns.label) for rows in raw for row in rows)
    if any(isinstance(cell, str) and listed(cell) is None for cell in cells):
        return None
    return "its tags have no names", "name them in their order: labels: [O, B-PER, ...]"


def units_of(task: str, row: Row, *, unanswerable: bool = False) -> float:
    """About how many rows of a teacher's outputs a row of data has: what the cache's size needs."""
    if task == "ner":
        return len(row["words"])
    if task == "qa":
        return len(row["context"]) / 4 + unanswerable  # [CLS]
    if task == "translation":
        return len(row["target"]) / 3.5 + 2
    return 1


def _first_of(problems: list[Problem], count: int, place: str) -> Iterator[Problem]:
    yield from problems
    if count > _MOST_PROBLEMS:
        rest = count - _MOST_PROBLEMS
        yield Problem(place=place, what=f"{rest} more row{'s' * (rest > 1)} like these")


def one_class(place: str, rows: list[Row], columns: Columns) -> Iterator[Problem]:
    """A split in which every answer is the same teaches and tells nothing."""
    golds = [row[GOLD[columns.task]] for row in rows]
    known = [gold for gold in golds if gold is not None]
    if columns.task == "classification" and len(known) > 1 and len(set(known)) == 1:
        what = f"every row has the label {columns.labels[known[0]]}"
        yield Problem(place=place, what=what, mend="give more rows, or a file for this split")
    outside = columns.labels.index(OUTSIDE) if columns.task == "ner" and known else None
    if outside is not None and all(tag == outside for tags in known for tag in tags):
        mend = "give more rows, or a file for this split"
        yield Problem(place=place, what=f"every word has the tag {OUTSIDE}", mend=mend)


def _classification(columns: Columns) -> Callable[[list[Any], Any], Row]:
    number_of = numbers_of(columns.labels, "label")
    verb = "is" if len(columns.text) == 1 else "are"

    def parse(texts: list[Any], label: Any) -> Row:
        for column, text in zip(columns.text, texts, strict=True):
            _text(text, column)
        if not any(text.strip() for text in texts):
            raise _BadRowError(f"{' and '.join(columns.text)} {verb} empty", "leave the row out")
        return {"texts": texts, "label": None if _missing(label) else number_of(label)}

    return parse


def _ner(columns: Columns) -> Callable[[list[Any], Any], Row]:
    written = columns.written or columns.labels
    number_of = numbers_of(written, "tag", names_only=columns.collected)

    def numbers(tags: list[Any]) -> list[int]:
        found = [number_of(tag) for tag in tags]
        names = [written[number] for number in found]
        if not columns.written:
            if not follows(names, columns.scheme):
                what = f"its tags are not in {columns.scheme}: {shortened(names)}"
                raise _BadRowError(what, "write them as its given teacher has them")
            return found
        converted = to_iob2(names)
        missing = next((tag for tag in converted if tag not in columns.labels), None)
        if missing is not None:
            there = ", ".join(map(short_label, columns.labels[:50]))
            raise _BadRowError(f"its tags make {missing} in IOB2", f"there are: {there}")
        return [columns.labels.index(tag) for tag in converted]

    def parse(texts: list[Any], tags: Any) -> Row:
        words = _items(texts[0], columns.text[0])
        for word in words:
            _text(word, columns.text[0])
        if not any(word.strip() for word in words):
            raise _BadRowError("has no words", "leave the row out")
        if _missing(tags):
            return {"words": words, "tags": None}
        given = _items(tags, columns.label)
        if len(given) != len(words):
            what = f"has {len(words)} words in {columns.text[0]} and {len(given)} tags"
            raise _BadRowError(f"{what} in {columns.label}", "each word needs one tag")
        return {"words": words, "tags": numbers(given)}

    return parse


def _qa(columns: Columns) -> Callable[[list[Any], Any], Row]:
    def parse(texts: list[Any], answers: Any) -> Row:
        for column, text in zip(columns.text, texts, strict=True):
            _text(text, column)
            if not text.strip():
                raise _BadRowError(f"its {column} is empty", "leave the row out")
        question, context = texts
        row: Row = {"question": question, "context": context, "answers": None}
        if _missing(answers):
            return row
        given = _answers(answers)
        if not columns.published:
            given = [(text, start) for text, start in given if not _empty(text)]
        row["answers"] = [_answer(context, text, start) for text, start in given]
        if not row["answers"] and not columns.unanswerable:
            mend = "leave the row out, or let the data set say unanswerable: true"
            raise _NoAnswerError("its context has no answer", mend)
        return row

    return parse


def _answers(value: Any) -> list[tuple[Any, Any]]:
    """SQuAD's {"text": [...], "answer_start": [...]}, or a list of one of these per answer."""
    mend = 'give {"text": [...], "answer_start": [...]}'
    if isinstance(value, str):
        try:
            read = json.loads(value)  # as a cell of a .csv has it
        except (ValueError, RecursionError):
            read = literal(value)  # as pandas writes it there
        if read is None:
            raise _BadRowError(f"its answers are text: {value[:40]!r}", mend)
        value = read
    if hasattr(value, "tolist"):
        value = value.tolist()  # of a .parquet
    if isinstance(value, dict):
        given: tuple[Any, Any] = (value.get("text"), value.get("answer_start"))
        texts, starts = (part.tolist() if hasattr(part, "tolist") else part for part in given)
        if isinstance(texts, list) and isinstance(starts, list):
            if len(texts) == len(starts):
                return list(zip(texts, starts, strict=True))
            raise _BadRowError(f"has {len(texts)} answers and {len(starts)} offsets", mend)
    if isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        return [(answer.get("text"), answer.get("answer_start")) for answer in value]
    raise _BadRowError("its answers are not in SQuAD's form", mend)


def _answer(context: str, text: Any, start: Any) -> Row:
    _text(text, "answer")
    if not text.strip():
        raise _BadRowError("one of its answers is empty", "leave the answer out")
    if not is_whole(start):
        raise _BadRowError(
            f"the offset of its answer {shortened(text)} is {shortened(start)}",
            "give a whole number",
        )
    start = int(start)
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        at = context.find(text)
        mend = f"the context has it at {at}" if at >= 0 else _nowhere(context, text)
        raise _BadRowError(
            f"its answer {shortened(text)} is not at the offset {shortened(start)}, "
            f"where {shortened(found)} is",
            mend,
        )
    return {"text": text, "start": start}


def _nowhere(context: str, text: str) -> str:
    """That a context lacks an answer; or has it in characters that look the same."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        if unicodedata.normalize(form, text) in unicodedata.normalize(form, context):
            written = next((f for f in ("NFC", "NFD") if unicodedata.is_normalized(f, context)), "")
            other = f" ({written})" if written else ""
            return f"the context has it in another Unicode form{other}: write both in one"
    return "it is nowhere in the context"


def _translation(columns: Columns) -> Callable[[list[Any], Any], Row]:
    names = (columns.text[0], columns.label)

    def parse(texts: list[Any], target: Any) -> Row:
        for column, text in zip(names, (texts[0], target), strict=True):
            _text(text, column)
            if not text.strip():
                raise _BadRowError(f"its {column} is empty", "leave the row out")
        return {"source": texts[0], "target": target}

    return parse


_PARSERS: dict[str, Callable[[Columns], Callable[[list[Any], Any], Row]]] = {
    "classification": _classification,
    "ner": _ner,
    "qa": _qa,
    "translation": _translation,
}


def _items(value: Any, column: str) -> list[Any]:
    """The parts of a list, in any of the forms it may have."""
    items = listed(value)
    if items is None and isinstance(value, str):
        what = f"its {column} is in brackets, but neither JSON nor a list of Python: "
        raise _BadRowError(what + shortened(value), 'give ["a", "b"], or words with spaces between')
    if not isinstance(items, list | tuple):
        mend = "give a list, or text with spaces between words"
        raise _BadRowError(f"its {column} is no list", mend)
    return list(items)


def _text(value: Any, column: str) -> None:
    """Refuse what is no text, or holds the halves of characters that JSON can spell."""
    if not isinstance(value, str):
        raise _BadRowError(f"its {column} is missing or not text")
    if not _encodable(value):
        raise _BadRowError(f"its {column} holds half a character")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _missing(value: Any) -> bool:
    """None, an empty cell of a .csv, or the NaN that pandas puts in its place."""
    return value is None or _empty(value) or (isinstance(value, float) and value != value)


def _empty(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _has(raw: Iterable[Row], column: str) -> bool:
    """Whether some of the first rows has the column, which may be a field of another: `a.b`."""
    return any(_find(row, column) is not _ABSENT for row in islice(raw, _HEAD))


_ABSENT = object()


def _get(row: Row, column: str) -> Any:
    found = _find(row, column)
    return None if found is _ABSENT else found


def _find(row: Row, column: str) -> Any:
    while column not in row:
        name, _, column = column.partition(".")
        row = row.get(name)  # type: ignore[assignment]
        if not column or not isinstance(row, dict):
            return _ABSENT
    return row[column]
