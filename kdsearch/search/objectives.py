"""What a student minimises: values whose fields are the parameters that are active under each.

MSE has no temperature because `Mse` has no such field. An objective is in canonical form once it
is made, so that equal objectives compare equal. What each computes lies in `distill/losses/`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

Tied = Literal["tied"]
TIED: Final[Tied] = "tied"
"""The student's temperature equals the teacher's: τ_s = τ_t."""

SYMBOLS = {"temperature": "τ_t", "student_temperature": "τ_s", "alpha": "α"}
"""How a parameter is written where there is little room; the others by their names."""

GradientScale = Literal["none", "tau_squared"]


class Objective:
    """A loss with its parameters, under the name `kind`. Its subclasses are frozen dataclasses."""

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Objective]]] = {}
    """Every objective there is, by its name."""

    def __init_subclass__(cls, *, kind: str) -> None:
        cls.kind = kind
        Objective.kinds[kind] = cls

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of its fields, by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        values = {
            SYMBOLS.get(name, name): value if isinstance(value, str) else f"{value:g}"
            for name, value in self.parameters.items()
            if value != defaults[name]
        }
        return " ".join([self.kind.upper(), *(f"{name}={value}" for name, value in values.items())])


@dataclass(frozen=True, kw_only=True)
class Ce(Objective, kind="ce"):
    """Cross-entropy between the softened probabilities, mixed with the labels' (Eq. 1).

    Raises `ValueError` for a value out of range.
    """

    temperature: float
    student_temperature: float | Tied
    alpha: float
    gradient_scale: GradientScale = "none"

    def __post_init__(self) -> None:
        temperature, student = self.temperature, self.student_temperature
        if student == TIED:
            student = temperature
        if not all(0 < t < math.inf for t in (temperature, student)):
            raise ValueError("CE needs two positive, finite temperatures")
        _check_alpha(self.alpha)
        object.__setattr__(self, "temperature", significant(temperature))
        object.__setattr__(self, "student_temperature", significant(student))


@dataclass(frozen=True, kw_only=True)
class Mse(Objective, kind="mse"):
    """Squared difference of the raw logits, mixed with the labels' cross-entropy (Eq. 1)."""

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)


def significant(value: float) -> float:
    """`value` rounded to the 6 significant digits that temperatures have in keys."""
    return float(f"{value:.6g}")


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError("alpha lies in (0, 1] (Eq. 1)")
