"""The values of an axis as a study file writes them: a list, a range, or one."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from kdsearch.search import Value, significant
from kdsearch.study.section import Place, PlacedProblem, Section, detail_of


class _Range(Section):
    """So many values from one to another, evenly spaced."""

    first: Annotated[float, Field(alias="from")]
    last: Annotated[float, Field(alias="to")]
    count: Annotated[int, Field(ge=2, le=10_000)]

    @property
    def values(self) -> tuple[float, ...]:
        step = (self.last - self.first) / (self.count - 1)
        found = (significant(self.first + step * i) for i in range(self.count))
        return tuple(int(value) if value.is_integer() else value for value in found)


_RANGE = ("from", "to", "count")


def is_range(value: object) -> bool:
    """Whether a range is meant."""
    return isinstance(value, dict) and bool(value.keys() & {*_RANGE})


def _listed(value: Any) -> Any:
    """The values of a list, of a range {from, to, count}, or of one value."""
    if is_range(value):
        try:
            return _Range.model_validate(value).values
        except ValidationError as error:
            details = again(error.errors(), _RANGE)
            raise ValidationError.from_exception_data(error.title, details) from None
    # What comes from JSON has lists, which a strict tuple does not take from here.
    return tuple(value) if isinstance(value, list) else value


LISTED = BeforeValidator(_listed)
"""Of a field that takes a range too."""


def axis_values(value: Any, adapter: TypeAdapter[Any]) -> tuple[Value, ...]:
    """The values of an axis, in canonical form as far as they have the right type.

    Raises pydantic's `ValidationError` for a range that is none.
    """
    listed = _listed(value)
    return tuple(
        _canonical(each, adapter) for each in (listed if isinstance(listed, tuple) else (listed,))
    )


def _canonical(value: Any, adapter: TypeAdapter[Any]) -> Value:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return value  # the search says so


def wrong(adapter: TypeAdapter[Any], value: Any, place: Place) -> Iterator[PlacedProblem]:
    """What is wrong with a value, at its place within a search."""
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        yield place, _words(error, value)


def _words(error: ValidationError, value: Any) -> str:
    """Of a value that may be of several types, what each of them would have."""
    first, *others = error.errors()
    expected = [expectation(each).removeprefix("must be ") for each in others]
    what = " or ".join([expectation(first), *expected])
    near = nearest(first)
    return f"{what}, not {quoted(value)}" + (f" (did you mean {near}?)" if near else "")


def expectation(detail: Any) -> str:
    """What a value must be by what pydantic tells of one that is not."""
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_type":
            return "must be a number"
        case "finite_number":
            return "must be finite"
        case "string_type":
            return "must be text"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {limits['max_length']} characters"
        case "bool_type":
            return "must be true or false"
        case "literal_error":
            return f"must be {limits['expected']}".replace("'", "")
        case "greater_than":
            return f"must be above {_number(limits['gt'])}"
        case "greater_than_equal":
            return f"must be at least {_number(limits['ge'])}"
        case "less_than":
            return f"must be below {_number(limits['lt'])}"
        case "less_than_equal":
            return f"must be at most {_number(limits['le'])}"
    words: str = detail["msg"]
    return words.removeprefix("Value error, ")


def _number(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def nearest(detail: Any) -> str | None:
    """The name that was meant, where one of several is expected and another found."""
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return None
    names = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    return next(iter(difflib.get_close_matches(detail["input"], names, n=1, cutoff=0.5)), None)


def quoted(value: object) -> str:
    """A value as a message shows it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}…"


def distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Raise pydantic's `ValidationError`, with the place, where a value appears twice."""
    if problems := [*twice(values)]:
        raise ValidationError.from_exception_data("distinct", [*map(detail_of, problems)])
    return values


def twice(values: tuple[Value, ...], *place: str) -> Iterator[PlacedProblem]:
    """The values that were there before, at their places."""
    seen = set()
    for i, value in enumerate(values):
        if value in seen:
            yield (*place, i), f"{quoted(value)} appears twice; keep one"
        seen.add(value)


def again(details: Iterable[Any], keys: Sequence[str]) -> list[InitErrorDetails]:
    """What pydantic told, to be raised again; of an unknown key with the `keys` that there are."""
    found = []
    for each in details:
        known = {"keys": tuple(keys)} if len(each["loc"]) == 1 else {}
        words = {**known, **each.get("ctx", {}), "msg": each["msg"]}
        kind = PydanticCustomError(each["type"], "{msg}", words)
        found.append(InitErrorDetails(type=kind, loc=each["loc"], input=each["input"]))
    return found
