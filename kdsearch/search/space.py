"""The values a search may choose from, and their enumeration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from kdsearch.search.configuration import (
    Checkpoint,
    Choice,
    Configuration,
    Distance,
    Parameter,
    ParameterValue,
    StudentTemperature,
)
from kdsearch.search.objectives import significant
from kdsearch.search.temperature import local_temperatures


class Inner(StrEnum):
    """How the learning rate and the temperature are tuned under a choice."""

    JOINT = "joint"
    COORDINATE = "coordinate"


Held = Mapping[Parameter, ParameterValue]
"""The value a traversal holds for each parameter, also for one that is inactive."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The grid of one test case. The first value of each parameter is its default.

    `order` is the order of the flips; α always comes last (§3, step 3).
    """

    distances: tuple[Distance, ...]
    teachers: tuple[Checkpoint, ...]
    student_temperatures: tuple[StudentTemperature, ...]
    alphas: tuple[float, ...]
    broad: tuple[float, ...]
    learning_rates: tuple[float, ...]
    inner: Inner
    order: tuple[Parameter, ...] = (
        Parameter.TEACHER,
        Parameter.STUDENT_TEMPERATURE,
        Parameter.DISTANCE,
    )

    def __post_init__(self) -> None:
        # As configurations hold them, so that the best one is found again among these.
        object.__setattr__(self, "broad", tuple(map(significant, self.broad)))
        if len(self.broad) < 2 or list(self.broad) != sorted(set(self.broad)):
            raise ValueError("the broad temperatures are at least two, and ascend")
        if sorted(self.order) != sorted(set(Parameter) - {Parameter.ALPHA}):
            raise ValueError("the order names teacher, student_temperature and distance once each")
        if not all((*map(self.values, Parameter), self.learning_rates)):
            raise ValueError("every parameter has at least one value")

    def values(self, parameter: Parameter) -> tuple[ParameterValue, ...]:
        """The values of `parameter`, the default first."""
        values: dict[Parameter, tuple[ParameterValue, ...]] = {
            Parameter.DISTANCE: self.distances,
            Parameter.TEACHER: self.teachers,
            Parameter.STUDENT_TEMPERATURE: self.student_temperatures,
            Parameter.ALPHA: self.alphas,
        }
        return values[parameter]

    def defaults(self) -> dict[Parameter, ParameterValue]:
        """The default of each parameter: where the traversal starts."""
        return {parameter: self.values(parameter)[0] for parameter in Parameter}


def choice_of(held: Held) -> Choice:
    """The canonical choice for one value per parameter: what is inactive is left out."""
    distance: Distance = held[Parameter.DISTANCE]  # type: ignore[assignment]
    teacher: Checkpoint = held[Parameter.TEACHER]  # type: ignore[assignment]
    student: StudentTemperature = held[Parameter.STUDENT_TEMPERATURE]  # type: ignore[assignment]
    return Choice(
        distance=distance,
        teacher=teacher,
        student_temperature=student if distance is Distance.CE else None,
        alpha=float(held[Parameter.ALPHA]),
    )


def choices(space: Space) -> Iterator[Choice]:
    """Every distinct choice of the grid."""
    grid = product(*(space.values(parameter) for parameter in Parameter))
    yield from dict.fromkeys(
        choice_of(dict(zip(Parameter, values, strict=True))) for values in grid
    )


def configurations(space: Space, best_broad: float) -> Iterator[Configuration]:
    """Every distinct configuration of the grid, given the outcome of the broad stage.

    With the paper's grid these are 440 for any `best_broad` (§2, "roughly 440"): 420 under CE and
    20 under MSE, before learning rates.
    """
    temperatures = (*space.broad, *local_temperatures(space.broad, best_broad))
    yield from dict.fromkeys(
        choice.at(temperature)
        for choice in choices(space)
        for temperature in (temperatures if choice.has_temperature else (None,))
    )
