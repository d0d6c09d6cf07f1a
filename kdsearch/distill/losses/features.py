"""Terms alone: the labels' cross-entropy, to which they are added."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, label_loss
from kdsearch.search import Features


@loss_of(Features)
def features(objective: Features, units: Units) -> Tensor:
    """L1; `distill.terms` adds what the weights are of."""
    return label_loss(units)
