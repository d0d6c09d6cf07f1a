"""Entropy-based adaptive distillation (Su et al., ICCV 2025; cpsu00/EA-KD@6fb4c06, `get_w`)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.distill.losses import dkd
from kdsearch.distill.losses.decoupled import with_labels
from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, kl, mixed, softened
from kdsearch.search import EaDkd, EaKd, EntropyWeighted

_PUBLISHED = 100.0
"""The bound in the published code for CIFAR-100, in the place of ln C."""


@loss_of(EaKd)
def ea_kd(objective: EaKd, units: Units) -> Tensor:
    """(1 − α)·L1 + α·mean of w·τ²·KL."""
    student_NC, teacher_NC = softened(objective, units, objective.temperature)
    loss_N = weights(objective, units) * kl(teacher_NC, student_NC) * objective.temperature**2
    return mixed(units, objective.alpha, units.mean(loss_N))


@loss_of(EaDkd)
def ea_dkd(objective: EaDkd, units: Units) -> Tensor:
    """DKD, each unit times its w."""
    loss_N = weights(objective, units) * dkd.each(objective, units)
    return with_labels(objective, units, loss_N)


@torch.no_grad()
def weights(objective: EntropyWeighted, units: Units) -> Tensor:
    """[N]: w = H(teacher)·(1 + H(student) / bound) / 2, without a gradient; entropies in nats."""
    student_NC, teacher_NC = softened(objective, units, objective.entropy_temperature)
    own_N, theirs_N = (-(log_p.exp() * log_p).sum(dim=-1) for log_p in (student_NC, teacher_NC))
    if objective.entropy_bound == "published":
        return theirs_N * (1 + own_N / _PUBLISHED) / 2
    real_NC = torch.ones_like(student_NC) if units.real is None else units.real
    classes_N = real_NC.sum(dim=-1).clamp(min=2)  # of one, all entropies are 0
    return theirs_N * (1 + own_N / classes_N.log()) / 2
