"""What the sections of a study file are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
LATER = "came after keys were pinned"
"""Marks a field that keys would cover and that older trainings did not have. Its default is what
they did, and while it has that it is left out of the digest: `Annotated[bool, LATER] = False`."""

VALUES = ConfigDict(strict=True, allow_inf_nan=False)
STRICT = ConfigDict(extra="forbid", **VALUES)

Place = tuple[str | int, ...]
"""Keys and positions within a section."""
PlacedProblem = tuple[Place, str]
"""A place within a section, and what is wrong there."""
_Found = TypeVar("_Found")


class Unread(Exception):  # noqa: N818 -- nothing is wrong with what asks
    """What was asked for stands in a part of the study file that cannot be read.

    What is wrong with that part is said at its place. What follows from it would be said for
    nothing, so that whoever checks a study leaves out what ends in this.
    """


def as_far_as_read(*checks: Iterable[_Found]) -> Iterator[_Found]:
    """What generators find, each until it comes to what could not be read."""
    for check in checks:
        with suppress(Unread):
            yield from check


class Section(BaseModel):
    """A section of a study file: frozen, strict, without unknown keys.

    Of one that has problems, `sound` makes what is right; the other fields raise `Unread`.
    """

    model_config = ConfigDict(frozen=True, **STRICT)

    def problems(self) -> Iterator[str]:
        """What is wrong between its fields, each of which is right."""
        return iter(())

    @model_validator(mode="after")
    def _without_problems(self) -> Self:
        if found := [((), what) for what in self.problems()]:
            title = type(self).__name__
            raise ValidationError.from_exception_data(title, [*map(detail_of, found)])
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise Unread
            return super().__getattr__(name)


def detail_of(problem: PlacedProblem) -> InitErrorDetails:
    """A problem as pydantic tells it."""
    place, what = problem
    return InitErrorDetails(
        type=PydanticCustomError("section", "{what}", {"what": what}), loc=place, input={}
    )


def without(section: Section, lost: Iterable[str]) -> None:
    """Make these fields of a section ones that could not be read."""
    for name in lost:
        section.__dict__.pop(name, None)


def whole(section: Section | None) -> None:
    """Raise `Unread` where any field of a section could not be read."""
    if section is not None and type(section).model_fields.keys() - section.__dict__.keys():
        raise Unread
