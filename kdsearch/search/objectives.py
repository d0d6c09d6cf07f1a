"""What a student minimises: values whose fields are the parameters that are active under each.

MSE has no temperature because `Mse` has no such field. An objective is in canonical form once it
is made, so that equal objectives compare equal. What each computes lies in `distill/losses/`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

Tied = Literal["tied"]
TIED: Final[Tied] = "tied"
"""The student's temperature equals the teacher's: τ_s = τ_t."""

SYMBOLS = {"temperature": "τ_t", "student_temperature": "τ_s", "alpha": "α"}
"""How a parameter is written where there is little room; the others by their names."""

GradientScale = Literal["none", "tau_squared"]
AttentionHeads = Literal["each", "mean"]
TEACHERS: Final = "teacher"
"""As many relation heads as the teacher has attention heads."""
MAPPINGS = ("uniform", "first", "last")
"""The layer mappings of every layer of the student."""
MAPPED = ("hidden_states", "attention", "cls_states")
"""The terms that compare layers of the student with those that are mapped to them."""
TERMS = ("hint", *MAPPED, "relations")
"""The terms that compare what student and teacher compute between their layers; each is a weight,
a field of `Taught`."""
OF_TERMS: Mapping[str, tuple[str, ...]] = {
    "layer_mapping": MAPPED,
    "attention_heads": ("attention",),
    "relation_heads": ("relations",),
}
"""The parameters that only some terms need, with these terms."""

DATA: Final = "data"
Written = Literal["greedy", "beam", "sample", "rejection"]
"""How a teacher writes: the likeliest token each time; the likeliest text that a beam search finds;
drawn from its probabilities; several drawn, of which those are kept whose answer is right."""
Targets = Literal["data"] | Written
TemperatureUnit = Literal["none", "logit_scale"]
"""What a temperature of 1 is: 1, or the teacher's logit scale (`distill.scale`)."""
SOFTMAX: Final = "softmax"
SMOOTHED: Final = "smoothed"
SMOOTHED_EACH: Final = "smoothed each"
SUPERVISIONS = (SOFTMAX, SMOOTHED, SMOOTHED_EACH)
"""What CE may learn of a teacher, beside `permuted after N`."""


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
    unlabelled_at: ClassVar[tuple[tuple[str, Any], ...] | None] = None
    """The values at which, all of them together, no label is learnt from; None: at none."""
    reads_outputs: ClassVar[bool] = True
    """Whether its loss takes what the teacher says of each row, where it has one."""
    fewest_classes: ClassVar[int] = 2
    """Of so few it still is a loss of its own."""
    across_units: ClassVar[bool] = False
    """Whether it compares what is said of the units of a batch with one another, class by class."""
    learns_temperature: ClassVar[bool] = False
    """Whether its temperature is a parameter of the training (see `distill.learnt_temperature`)."""
    sparse: ClassVar[frozenset[str]] = frozenset()
    """The parameters that came later than the keys, which leave them out at their defaults."""
    kinds: ClassVar[dict[str, type[Objective]]] = {}
    """Every objective there is, by its name."""

    def __init_subclass__(cls, *, kind: str = "", title: str = "") -> None:
        """Without a `kind`, a part that several objectives share."""
        cls.sparse = frozenset().union(*(vars(part).get("sparse", ()) for part in cls.__mro__))
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

    @property
    def chosen(self) -> dict[str, Any]:
        """The parameters that differ from their defaults."""
        defaults = self._defaults
        return {n: value for n, value in self.parameters.items() if value != defaults[n]}

    def shown(self, *more: str) -> str:
        """Its title, `more`, and the parameters that differ from their defaults."""
        values = [
            f"{SYMBOLS.get(name, name)}={self._shown(name, value)}"
            for name, value in self.chosen.items()
        ]
        return " ".join([self.title, *more, *values])

    def _shown(self, name: str, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
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
    """What every objective with a teacher may have beside its own parameters: targets, and terms.

    A weight of 0 leaves a term out, and what only terms need then has its default. Raises
    `ValueError` for a value out of range.
    """

    sparse = frozenset({"targets", *TERMS, "layer_mapping", "attention_heads", "relation_heads"})
    targets: Targets = DATA
    """Whose texts the student learns on: the data's own, or what the teacher writes in the place
    of each label. The loss on labels is then that on the teacher's words."""
    hint: float = 0.0
    """Weight of FitNets' hint (Romero et al., ICLR 2015, Eq. 3): the middle layer's hidden states,
    by a learnt projection."""
    hidden_states: float = 0.0
    """Weight of the hidden states of mapped layers, by a learnt projection (TinyBERT, Jiao et al.,
    EMNLP Findings 2020, Eq. 8)."""
    attention: float = 0.0
    """Weight of the attention scores of mapped layers, before their softmax (TinyBERT, Eq. 7)."""
    cls_states: float = 0.0
    """Weight of the normalised states of [CLS] in mapped layers (PKD, Sun et al., EMNLP
    2019)."""
    relations: float = 0.0
    """Weight of the last layer's self-attention relations (MiniLMv2, Wang et al., ACL Findings
    2021)."""
    layer_mapping: str = "uniform"
    """Which of the teacher's layers are mapped to the student's: see `study.mapping`."""
    attention_heads: AttentionHeads = "each"
    """Whether `attention` compares each head's scores, or their mean over the heads."""
    relation_heads: int | Literal["teacher"] = TEACHERS
    """Into how many heads `relations` divides the widths of student and teacher."""

    def __post_init__(self) -> None:
        for name in TERMS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(name, "must be at least 0 and finite")
        _check_mapping(self.layer_mapping)
        if self.relation_heads != TEACHERS and self.relation_heads < 1:
            raise ParameterError("relation_heads", "must be at least 1, or teacher")
        defaults = self._defaults
        for name, terms in OF_TERMS.items():
            if not any(getattr(self, term) for term in terms):
                object.__setattr__(self, name, defaults[name])

    @property
    def terms(self) -> dict[str, float]:
        """The weights above 0, by their terms."""
        return {name: weight for name in TERMS if (weight := getattr(self, name))}


@dataclass(frozen=True, kw_only=True)
class Features(Taught, kind="features", title="features"):
    """Terms alone: the cross-entropy on the labels, and what is added to it.

    Raises `ValueError` without a term.
    """

    reads_outputs = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.terms:
            what = "needs a weight above 0 of one of them, or nothing would be distilled"
            raise ValueError(f"{what}: {', '.join(TERMS)}")


@dataclass(frozen=True, kw_only=True)
class SequenceKd(Taught, kind="sequence", title="SeqKD"):
    """Cross-entropy on the texts that the teacher writes (Kim & Rush, EMNLP 2016, §3.2).

    Raises `ValueError` for a value out of range.
    """

    unlabelled_at = ()
    reads_outputs = False
    targets: Targets = "greedy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets == DATA:
            what = "must be what the teacher writes; the data’s own texts are learnt by `labels`"
            raise ParameterError("targets", what)


@dataclass(frozen=True, kw_only=True)
class Compared(Taught):
    """Logits that may be standardised before they are compared."""

    sparse = Taught.sparse | {"standardise"}
    standardise: bool = False
    """Whether the logits of a unit, the student's and the teacher's, are compared with their mean
    subtracted and divided by their standard deviation (Sun et al., CVPR 2024). The labels'
    cross-entropy takes them as they are."""


@dataclass(frozen=True, kw_only=True)
class Tempered(Compared):
    """Logits divided by temperatures. Both have one unit, the teacher's logit scale if it is that:
    two teachers whose logits differ by a factor then say the same at one temperature.

    Where logits are standardised their scale is 1, and so is that unit.
    """

    sparse = Compared.sparse | {"temperature_unit"}
    temperatures: ClassVar[tuple[str, ...]] = ("temperature",)
    """The parameters that are some."""
    temperature_unit: TemperatureUnit = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.standardise:
            object.__setattr__(self, "temperature_unit", "none")

    def at_scale(self, logit_scale: float) -> Self:
        """The same with temperatures as logits are divided by them, for a teacher of that scale.

        Raises `ValueError` where the scale is 0: nothing that such a teacher says depends on τ.
        """
        if self.temperature_unit == "none":
            return self
        values = {name: getattr(self, name) * logit_scale for name in self.temperatures}
        return dataclasses.replace(self, temperature_unit="none", **values)


@dataclass(frozen=True, kw_only=True)
class Softened(Tempered):
    """A distance between probabilities at temperatures, mixed with the labels' loss (Eq. 1).

    Raises `ValueError` for a value out of range.
    """

    unlabelled_at = (("alpha", 1),)
    temperatures = ("temperature", "student_temperature")
    temperature: float
    student_temperature: float | Tied
    alpha: float
    gradient_scale: GradientScale = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        temperature, student = self.temperature, self.student_temperature
        if student == TIED:
            student = temperature
        check_temperature("temperature", temperature)
        check_temperature("student_temperature", student)
        check_alpha(self.alpha)
        object.__setattr__(self, "temperature", significant(temperature))
        object.__setattr__(self, "student_temperature", significant(student))

    def _shown(self, name: str, value: Any) -> str:
        # Tied or given as the same number: one training, shown as one.
        equal = name == "student_temperature" and value == self.temperature
        return SYMBOLS["temperature"] if equal else super()._shown(name, value)


@dataclass(frozen=True, kw_only=True)
class Ce(Softened, kind="ce"):
    """Cross-entropy of the student's probabilities under the teacher's.

    Or under what keeps only some of what a teacher says, as controls (see `distill.supervision`).
    Raises `ValueError` for a value out of range.
    """

    sparse = Softened.sparse | {"supervision"}
    supervision: str = SOFTMAX
    """Whose probabilities are learnt: `softmax`, the teacher's; `smoothed`, those of a smoothed
    label, its likeliest class, with one coefficient for all; `smoothed each`, with one for each
    unit; `permuted after N`, the teacher's with those behind the N highest permuted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.supervision not in SUPERVISIONS and permuted_after(self.supervision) is None:
            what = f"must be {', '.join(SUPERVISIONS)}, or such as permuted after 1"
            raise ParameterError("supervision", what)
        if self.supervision != SOFTMAX and self.standardise:
            what = "must be softmax where logits are standardised; give the other a search of its "
            raise ParameterError("supervision", f"{what}own")


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
class Mse(Taught, kind="mse"):
    """Squared difference of the raw logits, mixed with the labels' cross-entropy (Eq. 1)."""

    unlabelled_at = (("alpha", 1),)
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)


def significant(value: float) -> float:
    """`value` rounded to the 6 significant digits that temperatures have in keys."""
    return float(f"{value:.6g}")


def permuted_after(supervision: str) -> int | None:
    """The N of `permuted after N`; None of another."""
    found = re.fullmatch("permuted after ([1-9][0-9]{0,5})", supervision)
    return int(found[1]) if found else None


def check_temperature(name: str, temperature: float) -> None:
    """Raise `ParameterError` for one that cannot be."""
    if not 0 < temperature < math.inf:
        raise ParameterError(name, "must be positive and finite")


def check_alpha(alpha: float) -> None:
    """Raise `ParameterError` for one that cannot be."""
    if not 0 < alpha <= 1:
        raise ParameterError("alpha", "must be above 0 and at most 1 (Eq. 1)")


def _check_mapping(mapping: str) -> None:
    if mapping in MAPPINGS:
        return
    if not re.fullmatch(r"(0|[1-9][0-9]{0,3})(\+(0|[1-9][0-9]{0,3}))*", mapping):
        names = ", ".join(MAPPINGS)
        what = f"must be {names}, or layers of the teacher, counted from 0, such as 3+7+11"
        raise ParameterError("layer_mapping", what)
    numbers = [*map(int, mapping.split("+"))]
    if numbers != sorted(set(numbers)):
        raise ParameterError("layer_mapping", "must name its layers in ascending order, once each")
