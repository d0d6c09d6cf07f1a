"""The values of an axis as a study file writes them: a list, a range, or one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from kdsearch.search import Value, significant
from kdsearch.study.section import Section

Place = tuple[str | int, ...]
"""Keys and positions within a search."""


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


def _listed(value: Any) -> Any:
    """The values of a list, of a range {from, to, count}, or of one value."""
    if isinstance(value, dict) and value.keys() & {"from", "to", "count"}:
        try:
            return _Range.model_validate(value).values
        except ValidationError as error:
            words = "; ".join(f"{d['loc'][0]}: {d['msg']}" for d in error.errors())
            raise ValueError(f"a range is {{from, to, count}}: {words}") from None
    # What comes from JSON has lists, which a strict tuple does not take from here.
    return tuple(value) if isinstance(value, list) else value


LISTED = BeforeValidator(_listed)
"""Of a field that takes a range too."""


def axis_values(value: Any, adapter: TypeAdapter[Any]) -> tuple[Value, ...]:
    """The values of an axis, in canonical form as far as they have the right type."""
    listed = _listed(value)
    return tuple(
        _canonical(each, adapter) for each in (listed if isinstance(listed, tuple) else (listed,))
    )


def _canonical(value: Any, adapter: TypeAdapter[Any]) -> Value:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return value  # the search says so


def wrong(adapter: TypeAdapter[Any], value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """What is wrong with a value, at its place within a search."""
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        yield place, _words(error)


def _words(error: ValidationError) -> str:
    return "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
