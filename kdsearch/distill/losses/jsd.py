"""Generalised Jensen–Shannon divergence (Agarwal et al., ICLR 2024, Eq. 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, at_temperatures, mixed, scaled
from kdsearch.search import Jsd


@loss_of(Jsd)
def jsd(objective: Jsd, units: Units) -> Tensor:
    """β·KL(p_t‖m) + (1 − β)·KL(p_s‖m), where m = β·p_t + (1 − β)·p_s; the mean over units."""
    logits = at_temperatures(objective, units)
    student_NC, teacher_NC = (logits_NC.log_softmax(dim=-1) for logits_NC in logits)
    beta = objective.beta
    mixture_NC = torch.logaddexp(teacher_NC + math.log(beta), student_NC + math.log1p(-beta))
    of_teacher = (teacher_NC.exp() * (teacher_NC - mixture_NC)).sum(dim=-1)
    of_student = (student_NC.exp() * (student_NC - mixture_NC)).sum(dim=-1)
    loss = units.mean(beta * of_teacher + (1 - beta) * of_student)
    return mixed(units, objective.alpha, scaled(objective, loss))
