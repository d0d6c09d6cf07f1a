"""Further objectives that match a teacher's outputs; see `objectives`.

Their defaults are those of the papers. Where a paper's code differs, the field says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from kdsearch.search.objectives import (
    TIED,
    Compared,
    ParameterError,
    Tempered,
    Tied,
    check_alpha,
    check_temperature,
    significant,
)

ClassOf = Literal["label", "teacher"]
EntropyBound = Literal["log_classes", "published"]


@dataclass(frozen=True, kw_only=True)
class Decoupled(Tempered):
    """What sets one class of a unit apart from the others.

    Beside it the labels are learnt with a weight, and distillation may grow over the first epochs.
    """

    unlabelled_at = (("label_weight", 0), ("class_of", "teacher"))
    fewest_classes = 3
    sparse = Tempered.sparse | {"class_of"}
    temperature: float
    label_weight: float = 1.0
    """Weight of the cross-entropy on the labels."""
    warmup_epochs: int = 0
    """Over which the distillation grows linearly to its whole weight."""
    class_of: ClassOf = "label"
    """Whose class is set apart: the label's, or the teacher's likeliest, which needs no label. The
    latter is ours, in no paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("temperature", self.temperature)
        _check_weights(self, "label_weight", "warmup_epochs")
        object.__setattr__(self, "temperature", significant(self.temperature))


@dataclass(frozen=True, kw_only=True)
class Dkd(Decoupled, kind="dkd"):
    """Decoupled KD (Zhao et al., CVPR 2022): the label's share of KL, and that of the others.

    Of two classes there is one other, so that its second part is 0. Raises `ValueError` for a
    value out of range.
    """

    target: float
    """Weight of the label's part, the paper's α."""
    non_target: float
    """Weight of the other classes' part, the paper's β."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self, "target", "non_target")
        _check_one_of(self, "target", "non_target")


@dataclass(frozen=True, kw_only=True)
class Rld(Decoupled, kind="rld"):
    """Refined logit distillation (Sun et al., ICCV 2025): how sure the teacher is of its class,
    and its opinion of the classes that it finds less likely than the label's.

    Of two classes there is at most one such, so that its second part is 0. Raises `ValueError`
    for a value out of range.
    """

    temperatures = ("temperature", "confidence_temperature")
    sample_confidence: float = 1.0
    """Weight of the teacher's highest probability, which the label's class learns; the paper's
    α."""
    masked_correlation: float
    """Weight of the less likely classes, the paper's β."""
    confidence_temperature: float | Tied = 1.0
    """Of the highest probability; tied: the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.confidence_temperature == TIED:
            object.__setattr__(self, "confidence_temperature", self.temperature)
        check_temperature("confidence_temperature", float(self.confidence_temperature))
        _check_weights(self, "sample_confidence", "masked_correlation")
        _check_one_of(self, "sample_confidence", "masked_correlation")


@dataclass(frozen=True, kw_only=True)
class EntropyWeighted(Tempered):
    """Units count by how undecided the teacher is of them, and then the student (EA-KD, Su et al.,
    ICCV 2025)."""

    temperatures = ("temperature", "entropy_temperature")
    entropy_temperature: float = 3.0
    """Of the probabilities whose entropies make the weights."""
    entropy_bound: EntropyBound = "log_classes"
    """What the student's entropy is divided by: ln C, its largest value, as in the paper; or 100,
    as in the published code for CIFAR-100, which makes the student's part of a weight small."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("entropy_temperature", self.entropy_temperature)


@dataclass(frozen=True, kw_only=True)
class EaKd(EntropyWeighted, kind="ea_kd", title="EA-KD"):
    """KL divergence times τ², each unit with its weight, mixed with the labels' loss.

    Raises `ValueError` for a value out of range.
    """

    unlabelled_at = (("alpha", 1),)
    temperature: float
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("temperature", self.temperature)
        check_alpha(self.alpha)
        object.__setattr__(self, "temperature", significant(self.temperature))


@dataclass(frozen=True, kw_only=True)
class EaDkd(EntropyWeighted, Dkd, kind="ea_dkd", title="EA-DKD"):
    """Decoupled KD, each unit with its weight. Raises `ValueError` for a value out of range."""


@dataclass(frozen=True, kw_only=True)
class Ctkd(Tempered, kind="ctkd"):
    """Curriculum temperature (Li et al., AAAI 2023), the global one: KL divergence times τ² at a
    temperature that is learnt against the student, mixed with the labels' loss.

    τ = `temperature_start` + `temperature_span` · σ(θ). θ has an SGD of its own, whose rate
    follows the student's schedule. Raises `ValueError` for a value out of range.
    """

    unlabelled_at = (("alpha", 1),)
    learns_temperature = True
    temperatures = ("temperature_start", "temperature_span")
    alpha: float
    temperature_start: float = 1.0
    """The lowest that τ can become."""
    temperature_span: float = 20.0
    """By how much more at most."""
    first_theta: float = 1.0
    """θ at the start: at 1, τ is 15.6 with these."""
    adversary_epochs: int = 10
    """Over which the gradient against the student grows to its whole size, along a cosine."""
    adversary_rate: float = 0.05
    """Learning rate of θ; in the paper that of the student, which was this."""
    adversary_decay: float = 5e-4
    """Weight decay of θ; in the paper that of the student, which was this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        for name in self.temperatures:
            check_temperature(name, getattr(self, name))
        if not math.isfinite(self.first_theta):
            raise ParameterError("first_theta", "must be finite")
        _check_weights(self, "adversary_epochs", "adversary_rate", "adversary_decay")


@dataclass(frozen=True, kw_only=True)
class Dist(Tempered, kind="dist"):
    """Distillation from a stronger teacher (Huang et al., NeurIPS 2022): the correlation of what
    both say of the classes of a unit, and of the units of a batch for a class; times τ².

    Of two classes the first is always 1 or −1. Raises `ValueError` for a value out of range.
    """

    unlabelled_at = (("label_weight", 0),)
    fewest_classes = 3
    across_units = True
    temperature: float
    inter_class: float = 2.0
    """Weight of the correlation over the classes: in the code β = 1, times a weight of 2."""
    intra_class: float = 2.0
    """Weight of the correlation over the units, the same."""
    label_weight: float = 1.0
    """Weight of the cross-entropy on the labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("temperature", self.temperature)
        _check_weights(self, "inter_class", "intra_class", "label_weight")
        _check_one_of(self, "inter_class", "intra_class")
        object.__setattr__(self, "temperature", significant(self.temperature))


@dataclass(frozen=True, kw_only=True)
class Mlkd(Compared, kind="mlkd"):
    """Multi-level logit distillation (Jin et al., CVPR 2023), as its authors' code has it: KL at
    five temperatures, and the correlations of units and of classes at each.

    Raises `ValueError` for a value out of range.
    """

    unlabelled_at = (("label_weight", 0),)
    across_units = True
    temperature: float
    """One of the five. The others are 2, 3, 5 and 6, as in the code, whose own is 4."""
    kd_weight: float = 0.9
    """Of all three levels."""
    label_weight: float = 0.1
    """Weight of the cross-entropy on the labels; of two views, on each."""
    two_views: bool = False
    """Whether each example is seen in two views, weakly and strongly augmented, as in the paper;
    else in one, as in the code of RLD."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("temperature", self.temperature)
        _check_weights(self, "kd_weight", "label_weight")
        if not self.kd_weight:
            raise ParameterError("kd_weight", "must be above 0, or nothing would be distilled")
        object.__setattr__(self, "temperature", significant(self.temperature))


def _check_weights(objective: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(objective, name) < math.inf:
            raise ParameterError(name, "must be at least 0 and finite")


def _check_one_of(objective: Any, first: str, second: str) -> None:
    if getattr(objective, first) == getattr(objective, second) == 0:
        what = f"must be above 0 where {second} is 0, or nothing would be distilled"
        raise ParameterError(first, what)
