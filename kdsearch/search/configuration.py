"""What a search chooses between, in the paper's terms (arXiv 2401.06356, §2 and Table 2).

A `Choice` fixes the paper's four parameters. A `Configuration` is a choice at a temperature, in
canonical form, so that equal students compare equal. A `Trial` is a configuration at a learning
rate: the thing that has a validation score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NewType

ValidationScore = NewType("ValidationScore", float)
"""A score on the validation split, higher is better. The only kind of score a search accepts."""

Tied = Literal["tied"]
TIED: Final[Tied] = "tied"
"""The student's temperature equals the teacher's: τ_s = τ_t."""

StudentTemperature = float | Tied


class Distance(StrEnum):
    """L2 of Eq. 1: between probabilities at a temperature (CE) or between raw logits (MSE)."""

    CE = "ce"
    MSE = "mse"


class Checkpoint(StrEnum):
    """Which of the teacher's checkpoints teaches."""

    HIGHEST_SCORE = "t_hs"
    LOWEST_LOSS = "t_ll"
    GIVEN = "given"
    """A teacher that came already fine-tuned, with a single checkpoint."""


class Parameter(StrEnum):
    """The four parameters of Table 2, by their names in a study file."""

    TEACHER = "teacher"
    STUDENT_TEMPERATURE = "student_temperature"
    DISTANCE = "distance"
    ALPHA = "alpha"


ParameterValue = Distance | Checkpoint | StudentTemperature


def significant(value: float) -> float:
    """`value` rounded to the 6 significant digits that temperatures have in keys."""
    return float(f"{value:.6g}")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A point of the grid in canonical form: under MSE no temperature is active, so none is held.

    Raises `ValueError` for a configuration that is not canonical or out of range.
    """

    distance: Distance
    teacher: Checkpoint
    temperature: float | None
    student_temperature: float | None
    alpha: float

    def __post_init__(self) -> None:
        temperatures = (self.temperature, self.student_temperature)
        if self.distance is Distance.MSE and temperatures != (None, None):
            raise ValueError("MSE compares raw logits: it has no temperatures")
        if self.distance is Distance.CE and not all(
            t is not None and 0 < t < math.inf for t in temperatures
        ):
            raise ValueError("CE needs two positive, finite temperatures")
        if not 0 < self.alpha <= 1:
            raise ValueError("alpha lies in (0, 1] (Eq. 1)")

    def __str__(self) -> str:
        parts = [self.distance.upper(), self.teacher.value]
        if self.temperature is not None:
            parts.append(f"τ_t={self.temperature:g}")
            parts.append(f"τ_s={self.student_temperature:g}")
        return " ".join([*parts, f"α={self.alpha:g}"])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One value for each of the four parameters; under MSE `student_temperature` is None."""

    distance: Distance
    teacher: Checkpoint
    student_temperature: StudentTemperature | None
    alpha: float

    def __post_init__(self) -> None:
        if (self.student_temperature is None) != (self.distance is Distance.MSE):
            raise ValueError("the student's temperature is inactive under MSE, and only there")

    @property
    def has_temperature(self) -> bool:
        """Whether a temperature is active, so that it must be tuned."""
        return self.distance is Distance.CE

    def at(self, temperature: float | None) -> Configuration:
        """This choice at the teacher's temperature τ_t (None where it is inactive)."""
        if temperature is not None:
            temperature = significant(temperature)
        student = self.student_temperature
        if isinstance(student, float | int):
            student = significant(student)
        return Configuration(
            distance=self.distance,
            teacher=self.teacher,
            temperature=temperature,
            student_temperature=temperature if student == TIED else student,
            alpha=self.alpha,
        )

    def value(self, parameter: Parameter) -> ParameterValue | None:
        """This choice's value of `parameter`; None where it is inactive."""
        values: dict[Parameter, ParameterValue | None] = {
            Parameter.DISTANCE: self.distance,
            Parameter.TEACHER: self.teacher,
            Parameter.STUDENT_TEMPERATURE: self.student_temperature,
            Parameter.ALPHA: self.alpha,
        }
        return values[parameter]

    def __str__(self) -> str:
        parts = [self.distance.upper(), self.teacher.value]
        if self.student_temperature is not None:
            student = self.student_temperature
            parts.append("τ_s=τ_t" if student == TIED else f"τ_s={student:g}")
        return " ".join([*parts, f"α={self.alpha:g}"])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A configuration at a learning rate."""

    configuration: Configuration
    learning_rate: float

    def __str__(self) -> str:
        return f"{self.configuration} lr={self.learning_rate:g}"
