"""Checking a data set's raw rows and bringing them to their task's form, of `tasks/`.

A row of the training split may lack its gold label (None), though not the column of it, nor a
reference translation or a completion, on which the teacher's outputs depend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from kdsearch.errors import InputError, Problem, shortened
from kdsearch.study.cells import BadRowError, listed
from kdsearch.study.tags import OUTSIDE
from kdsearch.study.tasks import SPECS, Columns, NoAnswerError, Row
from kdsearch.study.tasks.base import encodable, is_missing

_BAD_SHARE = 0.01
_HEAD = 100  # rows that are looked at for a column
_FEW = 10  # of images, which may have megabytes each
_MOST_PROBLEMS = 5  # of one split; more of the same would hide the others


def parse_rows(
    place: str, raw: Iterable[Row], columns: Columns, *, labelled: bool, published: bool = False
) -> list[Row]:
    """The checked rows of a split read from `place`; raises `InputError`.

    `labelled`: every row must have its gold label. `published`: of a data set that its reader
    cannot remedy, one bad row in a hundred is left out. Of one's own, questions without an answer
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
    head = list(islice(rows, _HEAD if SPECS[columns.task].reads == "text" else _FEW))
    if not head:
        raise InputError.one(place, "has no rows", "a split needs at least one row")
    if missing := missing_columns(place, head, columns, labelled=labelled):
        raise InputError(missing)
    parse = SPECS[columns.task].parser(replace(columns, published=published))
    gold = SPECS[columns.task].gold
    problems: list[Problem] = []
    number = good = bad = 0
    has_label = False
    for number, row in enumerate(chain(head, rows), start=1):
        has_label = has_label or _find(row, columns.label) is not _ABSENT
        try:
            texts = [value_in(row, column) for column in columns.text]
            parsed = parse(texts, value_in(row, columns.label))
            if parsed[gold] is None and labelled:
                raise BadRowError(f"its {columns.label} is missing")
        except BadRowError as found:
            if published or not isinstance(found, NoAnswerError):
                bad += 1
                if bad <= _MOST_PROBLEMS:
                    where = f"{place}: row {number}"
                    problems.append(Problem(place=where, what=found.what, remedy=found.remedy))
            yield row, None
        else:
            good += 1
            yield row, parsed
    if not has_label:
        raise InputError([_no_column(place, head, columns, columns.label, labelled=labelled)])
    if bad and not (published and bad <= number * _BAD_SHARE):
        raise InputError(first_of(problems, bad, place))
    if not good and not bad:
        remedy = "set unanswerable: true to keep them"
        raise InputError.one(place, "none of its questions has an answer", remedy)


def missing_columns(
    place: str, head: list[Row], columns: Columns, *, labelled: bool
) -> list[Problem]:
    """The columns that none of a split's first rows has.

    Not `labelled`, the labels may come later, but not in no row: where rows have none, the column
    is there and empty, so that a misspelt name is never taken for rows without labels.
    """
    wanted = [*columns.text]
    if (
        labelled
        or SPECS[columns.task].width is None
        or not all(_has(head, text) for text in wanted)
    ):
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
    remedy = f"available: {there}{', …' * (len(names) > 20)}"
    others = {_plain(name): name for name in names if name not in (*columns.text, columns.label)}
    near = difflib.get_close_matches(_plain(column), others, n=1, cutoff=0.75)
    if near and "." not in column:
        name = others[near[0]]
        remedy += f"; did you mean {name if name == name.strip() else shortened(name)}?"
    elif column == columns.label and not labelled and SPECS[columns.task].width:
        remedy += "; leave it empty in rows without a label"
    return Problem(place=place, what=f"has no column {column}", remedy=remedy)


def _plain(name: str) -> str:
    return name.strip().casefold()


def group_value(row: Row, columns: Columns) -> str | None:
    """What a raw row has in the column of groups, where the study names one and it is filled."""
    value = value_in(row, columns.group) if columns.group is not None else None
    return None if is_missing(value) else str(value)


def named_tags(raw: Sequence[Iterable[Row]], columns: Columns) -> Iterator[list[str]]:
    """The tags of each row, as far as they are names."""
    for row in (row for rows in raw for row in rows):
        tags = listed(value_in(row, columns.label))
        if isinstance(tags, list | tuple):
            yield [tag for tag in tags if isinstance(tag, str) and _may_be_tag(tag)]


def _may_be_tag(tag: str) -> bool:
    return not tag.isdigit() and encodable(tag)


def nameless(raw: Sequence[Iterable[Row]], columns: Columns) -> tuple[str, str] | None:
    """What is wrong with a data set in which no tag has a name; None where its rows will say it."""
    if not any(_has(rows, columns.label) for rows in raw):
        return None
    cells = (value_in(row, columns.label) for rows in raw for row in rows)
    if any(isinstance(cell, str) and listed(cell) is None for cell in cells):
        return None
    return "its tags have no names", "name them in order: labels: [O, B-PER, ...]"


def first_of(problems: list[Problem], count: int, place: str) -> Iterator[Problem]:
    """The first of `count` problems of a split's rows, and how many more there are."""
    yield from problems[:_MOST_PROBLEMS]
    if count > _MOST_PROBLEMS:
        rest = count - _MOST_PROBLEMS
        yield Problem(place=place, what=f"{rest} more row{'s' * (rest > 1)} like these")


def one_class(place: str, rows: list[Row], columns: Columns) -> Iterator[Problem]:
    """A split in which every answer is the same teaches and tells nothing."""
    golds = [row[SPECS[columns.task].gold] for row in rows]
    known = [gold for gold in golds if gold is not None]
    if SPECS[columns.task].one_label and len(known) > 1 and len(set(known)) == 1:
        what = f"every row has the label {columns.labels[known[0]]}"
        yield Problem(place=place, what=what, remedy="give more rows, or a file for this split")
    outside = columns.labels.index(OUTSIDE) if columns.task == "ner" and known else None
    if outside is not None and all(tag == outside for tags in known for tag in tags):
        remedy = "give more rows, or a file for this split"
        yield Problem(place=place, what=f"every word has the tag {OUTSIDE}", remedy=remedy)


def _has(raw: Iterable[Row], column: str) -> bool:
    """Whether some of the first rows has the column, which may be a field of another: `a.b`."""
    return any(_find(row, column) is not _ABSENT for row in islice(raw, _HEAD))


_ABSENT = object()


def value_in(row: Row, column: str) -> Any:
    """What a raw row has in a column, which may be a field of another: `a.b`; else None."""
    found = _find(row, column)
    return None if found is _ABSENT else found


def _find(row: Row, column: str) -> Any:
    while column not in row:
        name, _, column = column.partition(".")
        row = row.get(name)  # type: ignore[assignment]
        if not column or not isinstance(row, dict):
            return _ABSENT
    return row[column]
