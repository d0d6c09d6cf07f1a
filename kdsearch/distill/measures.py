"""What is measured of a model's predictions beside the score.

A measure is a function that is registered by its own name; it appears in outcomes and in reports
by that name. It is given some of a split's units and returns sums over them, since the logits of
a wide vocabulary are never all there at once; `value` makes the measure of the sums over the
whole split. Units without a label do not count. No search sees one, and no key covers one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdsearch.distill.losses import Units, masked
from kdsearch.tasks import IGNORED

_BINS = 15
"""Of the calibration error, as Guo et al. (2017) have them."""


@dataclass(frozen=True, kw_only=True)
class Posteriors:
    """What a model says of U units with C classes, in single precision or better."""

    units: Units

    @cached_property
    def counted(self) -> Tensor:
        """[U]: whether a unit has a label."""
        return self.units.labels != IGNORED

    @cached_property
    def logits(self) -> Tensor:
        """[U, C]: of classes that a unit does not have, so low that no softmax sees them."""
        return masked(_exact(self.units.student), self.units.real)

    @cached_property
    def probabilities(self) -> Tensor:
        """[U, C]."""
        return self.logits.softmax(dim=1)

    @cached_property
    def entropy(self) -> Tensor:
        """[U]: in nats."""
        return _entropies(self.probabilities)

    @cached_property
    def classes(self) -> Tensor:
        """[U]: how many classes each unit has."""
        units = self.units
        if units.real is not None:
            return units.real.sum(dim=1).double()
        classes = units.student.shape[1]
        return torch.full_like(units.labels, classes, dtype=torch.float64)

    @cached_property
    def predicted(self) -> Tensor:
        """[U]: the class of the highest logit."""
        return self.logits.argmax(dim=1)


Sums = Callable[[Posteriors], Tensor | None]
"""Sums over units, of any shape; None where what they are of is not there."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about a split."""

    sums: Sums
    value: Callable[[Tensor], Tensor]
    """Of the sums over all units. What is not finite is undefined, and is left out."""


MEASURES: dict[str, Measure] = {}
"""By name."""


def _mean(sums: Tensor) -> Tensor:
    return sums[0] / sums[1]


def measure(value: Callable[[Tensor], Tensor] = _mean) -> Callable[[Sums], Sums]:
    """Register a measure; by default the mean of what `_sum` gives."""

    def register(sums: Sums) -> Sums:
        MEASURES[sums.__name__] = Measure(sums=sums, value=value)
        return sums

    return register


def _sum(values_U: Tensor, counted_U: Tensor) -> Tensor:
    """[2]: the sum of the values that count, and how many these are."""
    counted = torch.where(counted_U, values_U.double(), 0.0)
    return torch.stack([counted.sum(), counted_U.double().sum()])


@measure()
def posterior_entropy(said: Posteriors) -> Tensor:
    """H(p), in nats."""
    return _sum(said.entropy, said.counted)


@measure()
def relative_entropy(said: Posteriors) -> Tensor:
    """H(p) / ln C: 1 of a model that prefers nothing."""
    return _sum(said.entropy / said.classes.log(), said.counted & (said.classes > 1))


@measure()
def relative_entropy_without_top(said: Posteriors) -> Tensor:
    """H(q) / ln(C − 1), where q is p without its most probable class, and sums to 1."""
    lowest = torch.finfo(said.logits.dtype).min / 2
    rest_UC = said.logits.scatter(1, said.predicted[:, None], lowest).softmax(dim=1)
    entropy_U = _entropies(rest_UC)
    others_U = said.classes - 1
    return _sum(entropy_U / others_U.log(), said.counted & (others_U > 1))


def _binned_error(sums: Tensor) -> Tensor:
    gaps = (sums[2] - sums[1]).abs()
    return gaps.sum() / sums[0].sum()


@measure(_binned_error)
def calibration_error(said: Posteriors) -> Tensor:
    """Expected calibration error: the mean gap between being sure and being right.

    Units are in bins of equal width by their highest probability (Guo et al. 2017, Eq. 3).
    """
    sure_U = said.probabilities.amax(dim=1).double().clamp(max=1)
    right_U = said.predicted == said.units.labels
    bins_U = (sure_U * _BINS).ceil().long() - 1
    in_bin_UB = bins_U[:, None] == torch.arange(_BINS, device=bins_U.device)
    in_bin_UB = (in_bin_UB & said.counted[:, None]).double()
    return torch.stack([torch.ones_like(sure_U), sure_U, right_U.double()]) @ in_bin_UB


@measure()
def agreement(said: Posteriors) -> Tensor | None:
    """The share of units of which student and teacher predict the same class."""
    teacher_UC = said.units.teacher
    if not len(teacher_UC):
        return None
    taught_U = masked(_exact(teacher_UC), said.units.real).argmax(dim=1)
    return _sum(said.predicted == taught_U, said.counted)


class Tally:
    """The measures of a split, of which some units come at a time; a device is not waited for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, some: Iterable[Units]) -> None:
        """Count units in."""
        for units in some:
            said = Posteriors(units=units)
            for name, each in MEASURES.items():
                sums = each.sums(said)
                if sums is not None:
                    self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def values(self) -> dict[str, float]:
        """The measures by name; one that is undefined on these units is absent."""
        found = {name: float(MEASURES[name].value(sums)) for name, sums in self._sums.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def mean_entropy(units: Units) -> Tensor:
    """The mean posterior entropy over all units, those without a label included, in nats."""
    with torch.no_grad():
        return Posteriors(units=units).entropy.mean()


def _entropies(p_UC: Tensor) -> Tensor:
    """[U]: in nats."""
    terms_UC: Tensor = torch.special.entr(p_UC)
    return terms_UC.sum(dim=1)


def _exact(logits_UC: Tensor) -> Tensor:
    return logits_UC if logits_UC.dtype == torch.float64 else logits_UC.float()
