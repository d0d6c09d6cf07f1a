"""The choices of a question: a list of texts, and which of them is the right one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from kdsearch.errors import shortened
from kdsearch.study.cells import BadRowError, literal
from kdsearch.study.labels import is_whole
from kdsearch.study.tasks.base import encodable, is_missing

_LABELLED = re.compile(r"\(?([A-Z])[).:]\s*")
_TRUTHS = {"yes": True, "true": True, "no": False, "false": False}
_SHAPE = 'give a list of texts, or {"text": [...], "label": [...]}'
_LEAVE_OUT = "leave the row out"


def right_choice(offered: Any, column: str, said: Any, label: str) -> tuple[list[str], str]:
    """The texts of the choices `offered` in a `column`, and the one that `said` means.

    Choices are a list, or ARC's {"text": [...], "label": [...]}; where all begin with their letters
    (`A)`, `B)`, …), these are left out. What is said is a label, a text, a letter, or a number
    counted from 0; true and false mean yes and no. A wrong choice that stands there twice counts
    once. Raises `BadRowError`.
    """
    texts, labels = _offered(offered, column)
    if is_missing(said):
        raise BadRowError(f"its {label} is missing", _LEAVE_OUT)
    found = _meant(said, texts, labels)
    if len(found) == 1:
        right, different = texts[found.pop()], list(dict.fromkeys(texts))
        if texts.count(right) > 1:
            raise BadRowError(f"the right one of its {column} is there twice", _LEAVE_OUT)
        return different, right
    if found:
        raise BadRowError(
            f"its {label}, {shortened(said)}, is the text of one of its {column} and stands for "
            "another",
            'give them with their labels: {"text": [...], "label": [...]}',
        )
    raise BadRowError(
        f"its {label}, {shortened(said)}, is none of its {len(texts)} {column}",
        "give a choice's text, its letter, or its number, counted from 0",
    )


def choice_problem(texts: Sequence[str]) -> str | None:
    """What is wrong with some choices."""
    if len(texts) < 2:
        return "there is only one" if texts else "there are none"
    return None if all(texts) else "one is empty"


def _offered(value: Any, column: str) -> tuple[list[str], list[str]]:
    """The texts of choices, without space around them, and their labels if they have some."""
    if isinstance(value, str):
        try:
            value = json.loads(value)  # as a cell of a .csv has it
        except (ValueError, RecursionError):
            value = literal(value)  # as pandas writes it there
    labels: Any = []
    if isinstance(value, dict):
        value, labels = _plain(value.get("text")), _plain(value.get("label"))
    value = _plain(value)
    if not isinstance(value, list | tuple) or not isinstance(labels, list):
        raise BadRowError(f"its {column} are no list of texts", _SHAPE)
    numbers = (float, int)
    if not all(isinstance(each, (str, *numbers)) and encodable(str(each)) for each in value):
        raise BadRowError(f"one of its {column} is no text", _SHAPE)
    texts = [str(each).strip() for each in value]
    if labels and len(labels) != len(texts):
        raise BadRowError(f"has {len(texts)} {column} and {len(labels)} labels for them", _SHAPE)
    marks = [_LABELLED.match(text) for text in texts]
    letters = [mark[1] for mark in marks if mark]
    if texts and letters == list(ascii_uppercase[: len(texts)]):
        labels = labels or letters
        texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]
    if (problem := choice_problem(texts)) is not None:
        raise BadRowError(f"its {column}: {problem}", _LEAVE_OUT)
    return texts, [str(each) for each in labels]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value  # of a .parquet


def _meant(said: Any, texts: list[str], labels: list[str]) -> set[int]:
    """The numbers of the choices that may be meant."""
    written = str(int(said) if is_whole(said) else said).strip()
    truth = said if isinstance(said, bool) else _TRUTHS.get(written.lower())
    if written in labels:
        return {labels.index(written)}
    if written in texts and isinstance(said, str):
        found = {texts.index(written)}
    elif truth is not None:  # whatever order yes and no stand in
        return {n for n, text in enumerate(texts) if _TRUTHS.get(text.lower()) is truth}
    else:
        found = set()
    if len(written) == 1 and written in ascii_uppercase:
        found.add(ascii_uppercase.index(written))
    if written.isdecimal():
        found.add(int(written))
    return {number for number in found if number < len(texts)}
