"""Prompts made of several columns: `{context}\\n{query}\\nAnswer:`."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from kdsearch.study.cells import BadRowError
from kdsearch.study.tasks.base import check_text

_BRACES = "a column stands in it as {column}; write {{ and }} for braces"
_KINDS = {bool: "true or false", dict: "an object", list: "a list"}


def columns_in(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once. Raises `ValueError` for what is none."""
    names: dict[str, None] = {}
    try:
        parts = [*Formatter().parse(template)]
    except ValueError:  # a brace without its other one
        raise ValueError(_BRACES) from None
    for _, name, how, conversion in parts:
        if name is None:
            continue
        if not name or how or conversion:
            raise ValueError(_BRACES)
        names[name] = None
    if not names:
        raise ValueError("names no column; write {column} where its text is to stand")
    return tuple(names)


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A template with the `values` of its columns: texts, numbers, and lists of these, an item a
    line. Raises `BadRowError`."""
    texts = {column: _text(value, column) for column, value in values.items()}
    if not any(text.strip() for text in texts.values()):
        raise BadRowError(f"its {', '.join(texts)} are empty", "leave the row out")
    parts = Formatter().parse(template)
    return "".join(text + (texts[name] if name is not None else "") for text, name, _, _ in parts)


def _text(value: Any, column: str) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()  # of a .parquet
    if isinstance(value, list) and value:
        return "\n".join(_text_of_one(each, f"item of {column}") for each in value)
    return _text_of_one(value, column)


def _text_of_one(value: Any, column: str) -> str:
    if value is None:
        raise BadRowError(f"its {column} is missing", "leave the row out")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise BadRowError(
            f"its {column} is {_KINDS.get(type(value), type(value).__name__)}, not text",
            "name a column of text, of numbers, or of lists of these; of an object one of its "
            "fields: {column.field}",
        )
    number = isinstance(value, int | float)
    text = str(value) if number else value
    check_text(text, column)
    return str(text)
