"""What a search chooses between, in the paper's terms (arXiv 2401.06356, §2 and Table 2).

A `Choice` fixes the paper's four parameters. A `Configuration` is a choice at a temperature, in
canonical form, so that equal students compare equal. A `Trial` is a configuration at a learning
rate: the thing that has a validation score.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from kdsearch.search.objectives import TIED, Ce, Mse, Objective, Tied

ValidationScore = NewType("ValidationScore", float)
"""A score on the validation split, higher is better. The only kind of score a search accepts."""

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


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A point of the grid: what a student minimises, and which teacher checkpoint teaches it."""

    objective: Objective
    teacher: Checkpoint

    @property
    def temperature(self) -> float | None:
        """The teacher's, τ_t; None under an objective without one."""
        return self.objective.parameters.get("temperature")

    def __str__(self) -> str:
        return f"{self.objective} {self.teacher.value}"


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
        objective: Objective = Mse(alpha=self.alpha)
        if temperature is not None:
            assert self.student_temperature is not None
            objective = Ce(
                temperature=temperature,
                student_temperature=self.student_temperature,
                alpha=self.alpha,
            )
        return Configuration(objective=objective, teacher=self.teacher)

    def includes(self, configuration: Configuration) -> bool:
        """Whether `configuration` is this choice at some temperature."""
        temperature = configuration.temperature
        active = temperature is not None
        return active == self.has_temperature and self.at(temperature) == configuration

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
