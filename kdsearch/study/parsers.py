"""Checking a data set's raw rows and bringing them to their task's form.

    classification  {"texts": [sentence] or [first, second], "label": number}
    ner             {"words": [word, ...], "tags": [number, ...]}
    qa              {"question": text, "context": text, "answers": [{"text": text, "start": 0}]}
                    without answers, where the data set has unanswerable questions
    translation     {"source": text, "target": text}

A row of the training split may lack its gold label (None), but not a reference translation, on
which the teacher's outputs depend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdsearch.errors import InputError, Problem, shortened

Row = dict[str, Any]
GOLD = {"classification": "label", "ner": "tags", "qa": "answers", "translation": "target"}
"""The field of a row that holds what a model should say, by task."""
OUTSIDE = "O"
_BAD_SHARE = 0.01
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
    unanswerable: bool = False
    """Of qa: whether a question may have no answer."""
    published: bool = False
    """Whether the rows are somebody else's, and stay as they were when first read."""


class _BadRowError(Exception):
    """What is wrong with a row, and how to mend it."""

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


class _NoAnswerError(_BadRowError):
    """A question without an answer, in a data set whose questions have one."""


def parse_rows(
    place: str, raw: list[Row], columns: Columns, *, labelled: bool, published: bool = False
) -> list[Row]:
    """The checked rows of a split read from `place`; raises `InputError`.

    `labelled`: every row must have its gold label. `published`: of a data set that its reader
    cannot mend, one bad row in a hundred is left out. Of one's own, questions without an answer
    are.
    """
    if not raw:
        raise InputError.one(place, "has no rows", "a split needs at least one row")
    there = shortened([*raw[0]])[1:-1].replace("'", "")
    missing = [c for c in columns.text if not _has(raw, c)]
    if (labelled or columns.task == "translation") and not _has(raw, columns.label):
        missing.append(columns.label)
    if missing:
        raise InputError(
            Problem(place=place, what=f"has no column {column}", mend=f"there are: {there}")
            for column in missing
        )
    parse = _PARSERS[columns.task](replace(columns, published=published))
    gold = GOLD[columns.task]
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, row in enumerate(raw, start=1):
        try:
            parsed = parse([_get(row, column) for column in columns.text], _get(row, columns.label))
            if parsed[gold] is None and labelled:
                raise _BadRowError(f"its {columns.label} is missing")
            rows.append(parsed)
        except _BadRowError as bad:
            if isinstance(bad, _NoAnswerError) and not published:
                continue
            where = f"{place}: row {number}"
            problems.append(Problem(place=where, what=bad.what, mend=bad.mend))
    if published and len(problems) <= len(raw) * _BAD_SHARE:
        problems = []
    if problems:
        raise InputError(_first_of(problems, place))
    if not rows:
        mend = "let the data set say unanswerable: true, if they are to be kept"
        raise InputError.one(place, "none of its questions has an answer", mend)
    return rows


def collect_tags(raw: Sequence[list[Row]], columns: Columns) -> tuple[str, ...]:
    """The tags that occur in some splits of a data set for ner, O first."""
    found = set()
    for row in (row for rows in raw for row in rows):
        tags = _listed(_get(row, columns.label))
        if isinstance(tags, list | tuple):
            found |= {tag for tag in tags if isinstance(tag, str) and _may_be_tag(tag)}
    return (OUTSIDE, *sorted(found - {OUTSIDE}, key=lambda tag: (tag[2:], tag))) if found else ()


def _may_be_tag(tag: str) -> bool:
    return not tag.isdigit() and _encodable(tag)


def expand_tags(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of ner: as they are, or made of the kinds of entity: PER → O, B-PER, I-PER."""
    if OUTSIDE in labels or any(label.startswith(("B-", "I-")) for label in labels):
        return labels
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in labels for prefix in "BI"))


def tag_problem(raw: Sequence[list[Row]], columns: Columns) -> tuple[str, str] | None:
    """What is wrong with the tags of a data set for ner, and how to mend it."""
    if not columns.labels:
        there = any(_has(rows, columns.label) for rows in raw)
        what = "its tags have no names" if there else f"has no column {columns.label}"
        return what, "name them in their order: labels: [O, B-PER, ...]" if there else ""
    if OUTSIDE not in columns.labels:
        return f"its labels lack the tag {OUTSIDE}", "name every tag: labels: [O, B-PER, ...]"
    other = [tag for tag in columns.labels if tag != OUTSIDE and tag[:2] not in ("B-", "I-")]
    if other and columns.metric == "f1":
        mend = "write O, B-X and I-X, or take metric: accuracy"
        unlike = ", ".join(map(_label, other[:5]))
        return f"the F1 of entities needs tags in IOB2, unlike {unlike}", mend
    return None


def units_of(task: str, row: Row, *, unanswerable: bool = False) -> float:
    """About how many rows of a teacher's outputs a row of data has: what the cache's size needs."""
    if task == "ner":
        return len(row["words"])
    if task == "qa":
        return len(row["context"]) / 4 + unanswerable  # [CLS]
    if task == "translation":
        return len(row["target"]) / 3.5 + 2
    return 1


def _first_of(problems: list[Problem], place: str) -> Iterator[Problem]:
    yield from problems[:_MOST_PROBLEMS]
    if len(problems) > _MOST_PROBLEMS:
        rest = len(problems) - _MOST_PROBLEMS
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
    number_of = _numbers(columns.labels, "label")
    verb = "is" if len(columns.text) == 1 else "are"

    def parse(texts: list[Any], label: Any) -> Row:
        for column, text in zip(columns.text, texts, strict=True):
            _text(text, column)
        if not any(text.strip() for text in texts):
            raise _BadRowError(f"{' and '.join(columns.text)} {verb} empty", "leave the row out")
        return {"texts": texts, "label": None if _missing(label) else number_of(label)}

    return parse


def _ner(columns: Columns) -> Callable[[list[Any], Any], Row]:
    number_of = _numbers(columns.labels, "tag", names_only=columns.collected)

    def parse(texts: list[Any], tags: Any) -> Row:
        words = _items(texts[0], columns.text[0])
        if not words:
            raise _BadRowError("has no words", "leave the row out")
        for word in words:
            _text(word, columns.text[0])
            if not word.strip():
                raise _BadRowError("one of its words is empty", "remove the word and its tag")
        if _missing(tags):
            return {"words": words, "tags": None}
        given = _items(tags, columns.label)
        if len(given) != len(words):
            what = f"has {len(words)} words in {columns.text[0]} and {len(given)} tags"
            raise _BadRowError(f"{what} in {columns.label}", "each word needs one tag")
        return {"words": words, "tags": [number_of(tag) for tag in given]}

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
            value = json.loads(value)  # as a cell of a .csv has it
        except (ValueError, RecursionError):
            raise _BadRowError(f"its answers are text: {value[:40]!r}", mend) from None
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
    if not _whole(start):
        raise _BadRowError(
            f"the offset of its answer {shortened(text)} is {shortened(start)}",
            "give a whole number",
        )
    start = int(start)
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        at = context.find(text)
        mend = f"the context has it at {at}" if at >= 0 else "it is nowhere in the context"
        raise _BadRowError(
            f"its answer {shortened(text)} is not at the offset {shortened(start)}, "
            f"where {shortened(found)} is",
            mend,
        )
    return {"text": text, "start": start}


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


def _numbers(
    labels: tuple[str, ...], noun: str, *, names_only: bool = False
) -> Callable[[Any], int]:
    """From a label's name or number in the data to its number."""
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
    if not names_only and not any(name.lstrip("-").isdigit() for name in labels):
        numbers |= {str(number): number for number in range(len(labels))}

    def number_of(value: Any) -> int:
        # pandas writes whole numbers as 1.0 where a column once lacked a value
        name = str(int(value)) if _whole(value) else value
        found = numbers.get(str(name) if isinstance(name, str | int | float) else None)
        if found is None:
            known = ", ".join(f"{i} {_label(name)}" for i, name in enumerate(labels[:50]))
            known += ", …" if len(labels) > 50 else ""
            raise _BadRowError(f"unknown {noun} {shortened(value)}", f"there are: {known}")
        return found

    return number_of


def _label(name: str) -> str:
    return name if len(name) <= 50 else f"{name[:50]}…"


def _listed(value: Any) -> Any:
    """A list as a file may hold it: of a .parquet, as JSON, or as text with spaces between."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value.split()
        return value.split()
    return value.tolist() if hasattr(value, "tolist") else value


def _items(value: Any, column: str) -> list[Any]:
    """The parts of a list, in any of the forms it may have."""
    listed = _listed(value)
    if not isinstance(listed, list | tuple):
        mend = "give a list, or text with spaces between words"
        raise _BadRowError(f"its {column} is no list", mend)
    return list(listed)


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


def _whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or hasattr(value, "__index__")


def _has(raw: list[Row], column: str) -> bool:
    """Whether some of the first rows has the column, which may be a field of another: `a.b`."""
    return any(_find(row, column) is not _ABSENT for row in raw[:100])


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
