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


class ParameterError(ValueError):
    """A parameter's value is out of range."""

    def __init__(self, name: str, what: str) -> None:
        """`what` must be of the value: `must be at least 1`."""
        super().__init__(f"{name} {what}")
        self.name, self.what = name, what


class Objective:
    """A loss with its parameters, under the name `kind`. Its subclasses are frozen dataclasses."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """How its kind is written where it is read."""
    taught: ClassVar[bool] = True
    """Whether a teacher's outputs are learnt from."""
    labelled: ClassVar[bool] = True
    """Whether labels are always learnt from; else only where `alpha` is below 1."""
    fewest_classes: ClassVar[int] = 2
    """Of so few it still is a loss of its own."""
    sparse: ClassVar[frozenset[str]] = frozenset()
    """The parameters that came later than the keys, which leave them out at their defaults."""
    kinds: ClassVar[dict[str, type[Objective]]] = {}
    """Every objective there is, by its name."""

    def __init_subclass__(cls, *, kind: str = "", title: str = "") -> None:
        """Without a `kind`, a part that several objectives share."""
        if kind:
            cls.kind, cls.title = kind, title or kind.upper()
            Objective.kinds[kind] = cls

    @property
    def spared(self) -> frozenset[str]:
        """The parameters that its key leaves out."""
        defaults = self._defaults
        return frozenset(name for name in self.sparse if getattr(self, name) == defaults[name])

    @property
    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of its fields, by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def shown(self, *more: str) -> str:
        """Its title, `more`, and the parameters that differ from their defaults."""
        defaults = self._defaults
        values = [
            f"{SYMBOLS.get(name, name)}={self._shown(name, value)}"
            for name, value in self.parameters.items()
            if value != defaults[name]
        ]
        return " ".join([self.title, *more, *values])

    def _shown(self, name: str, value: Any) -> str:
        return value if isinstance(value, str) else f"{value:g}"

    def __str__(self) -> str:
        return self.shown()


@dataclass(frozen=True, kw_only=True)
class Labels(Objective, kind="labels", title="ERM"):
    """Cross-entropy on the labels alone: empirical risk minimisation, without a teacher."""

    taught = False


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Objective, kind="label_smoothing", title="LS"):
    """Cross-entropy on labels of which a share is spread evenly over all classes.

    Raises `ValueError` for a value out of range.
    """

    taught = False
    smoothing: float
    """The share, in (0, 1)."""

    def __post_init__(self) -> None:
        if not 0 < self.smoothing < 1:
            what = "must lie between 0 and 1 (0 would be the labels alone, 1 would ignore them)"
            raise ParameterError("smoothing", what)


@dataclass(frozen=True, kw_only=True)
class Taught(Objective):
    """What every objective with a teacher may have beside its own parameters."""


@dataclass(frozen=True, kw_only=True)
class Softened(Taught):
    """A distance between probabilities at temperatures, mixed with the labels' loss (Eq. 1).

    Raises `ValueError` for a value out of range.
    """

    labelled = False
    temperature: float
    student_temperature: float | Tied
    alpha: float
    gradient_scale: GradientScale = "none"

    def __post_init__(self) -> None:
        temperature, student = self.temperature, self.student_temperature
        if student == TIED:
            student = temperature
        _check_temperature("temperature", temperature)
        _check_temperature("student_temperature", student)
        _check_alpha(self.alpha)
        object.__setattr__(self, "temperature", significant(temperature))
        object.__setattr__(self, "student_temperature", significant(student))

    def _shown(self, name: str, value: Any) -> str:
        # Tied or given as the same number: one training, shown as one.
        equal = name == "student_temperature" and value == self.temperature
        return SYMBOLS["temperature"] if equal else super()._shown(name, value)


@dataclass(frozen=True, kw_only=True)
class Ce(Softened, kind="ce"):
    """Cross-entropy of the student's probabilities under the teacher's."""


@dataclass(frozen=True, kw_only=True)
class ReverseKl(Softened, kind="reverse_kl", title="reverse KL"):
    """KL divergence of the student's probabilities from the teacher's: KL(p_s‖p_t)."""


@dataclass(frozen=True, kw_only=True)
class Jsd(Softened, kind="jsd"):
    """Generalised Jensen–Shannon divergence: both probabilities' KL from their mixture."""

    beta: float
    """The teacher's share of the mixture, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < 1:
            what = "must lie between 0 and 1 (at 0 and at 1 the divergence is 0)"
            raise ParameterError("beta", what)


@dataclass(frozen=True, kw_only=True)
class TotalVariation(Softened, kind="total_variation", title="TVD"):
    """Total variation distance: half of what the probabilities differ by, over all classes."""


@dataclass(frozen=True, kw_only=True)
class Dkd(Taught, kind="dkd"):
    """Decoupled KD (Zhao et al., CVPR 2022): the label's share of KL, and that of the others.

    Of two classes there is one other, so that its second part is 0. Raises `ValueError` for a
    value out of range.
    """

    fewest_classes = 3
    temperature: float
    target: float
    """Weight of the label's part, the paper's α."""
    non_target: float
    """Weight of the other classes' part, the paper's β."""
    label_weight: float = 1.0
    """Weight of the cross-entropy on the labels."""
    warmup_epochs: int = 0
    """Over which the distillation grows linearly to its whole weight."""

    def __post_init__(self) -> None:
        _check_temperature("temperature", self.temperature)
        for name in ("target", "non_target", "label_weight", "warmup_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(name, "must be at least 0 and finite")
        if self.target == self.non_target == 0:
            what = "must be above 0 where non_target is 0, or nothing would be distilled"
            raise ParameterError("target", what)
        object.__setattr__(self, "temperature", significant(self.temperature))


@dataclass(frozen=True, kw_only=True)
class Mse(Taught, kind="mse"):
    """Squared difference of the raw logits, mixed with the labels' cross-entropy (Eq. 1)."""

    labelled = False
    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)


def significant(value: float) -> float:
    """`value` rounded to the 6 significant digits that temperatures have in keys."""
    return float(f"{value:.6g}")


def _check_temperature(name: str, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ParameterError(name, "must be positive and finite")


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise ParameterError("alpha", "must be above 0 and at most 1 (Eq. 1)")
