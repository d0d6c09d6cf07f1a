"""Cross-entropy on the labels alone, and on smoothed ones."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, label_loss, masked
from kdsearch.search import Labels, LabelSmoothing, SequenceKd


@loss_of(Labels)
def labels(objective: Labels, units: Units) -> Tensor:
    """L1: −log p of the label, the mean over the units that have one."""
    return label_loss(units)


@loss_of(SequenceKd)
def sequence(objective: SequenceKd, units: Units) -> Tensor:
    """The same of the teacher's tokens: the rows that are learnt on have its texts for labels."""
    return label_loss(units)


@loss_of(LabelSmoothing)
def label_smoothing(objective: LabelSmoothing, units: Units) -> Tensor:
    """(1 − α)·H(q, p) + α·KL(u‖p), the mean over the units that have a label.

    u is uniform over the classes of a unit (Sultan, 2023, Eq. 1, after Szegedy et al., 2016).
    """
    log_p_NC = masked(units.student, units.real).log_softmax(dim=-1)
    real_NC = torch.ones_like(log_p_NC, dtype=torch.bool) if units.real is None else units.real
    count_N = real_NC.sum(dim=-1).clamp(min=1)
    uniform_N = -log_p_NC.masked_fill(~real_NC, 0).sum(dim=-1) / count_N - count_N.log()
    spread = units.labelled_mean(uniform_N)
    return (1 - objective.smoothing) * label_loss(units) + objective.smoothing * spread
