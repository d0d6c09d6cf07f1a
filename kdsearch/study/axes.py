"""The values of an axis as a study file writes them: a list, a range, or one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from kdsearch.search import Value, significant
from kdsearch.study.section import Section

Place = tuple[str | int, ...]
"""Keys and positions within a search."""
SearchProblem = tuple[Place, str]
"""A place within a search, and what is wrong there."""


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


def wrong(adapter: TypeAdapter[Any], value: Any, place: Place) -> Iterator[SearchProblem]:
    """What is wrong with a value, at its place within a search."""
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        yield place, _words(error)


def _words(error: ValidationError) -> str:
    return "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())


def detail_of(problem: SearchProblem) -> InitErrorDetails:
    """A problem as pydantic tells it."""
    place, what = problem
    return InitErrorDetails(
        type=PydanticCustomError("search", "{what}", {"what": what}), loc=place, input={}
    )


def again(details: Iterable[Any], keys: Sequence[str]) -> list[InitErrorDetails]:
    """What pydantic told, to be raised again; of an unknown key with the `keys` that there are."""
    found = []
    for each in details:
        known = {"keys": tuple(keys)} if len(each["loc"]) == 1 else {}
        words = {**known, **each.get("ctx", {}), "msg": each["msg"]}
        kind = PydanticCustomError(each["type"], "{msg}", words)
        found.append(InitErrorDetails(type=kind, loc=each["loc"], input=each["input"]))
    return found
