"""The KL divergence that a student that seeks the teacher's modes minimises."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, at_temperatures, mixed, scaled
from kdsearch.search import ReverseKl


@loss_of(ReverseKl)
def reverse_kl(objective: ReverseKl, units: Units) -> Tensor:
    """Σ_c p_s · (log p_s − log p_t), each at its temperature, the mean over units."""
    logits = at_temperatures(objective, units)
    student_NC, teacher_NC = (logits_NC.log_softmax(dim=-1) for logits_NC in logits)
    loss_N = (student_NC.exp() * (student_NC - teacher_NC)).sum(dim=-1)
    return mixed(units, objective.alpha, scaled(objective, units.mean(loss_N)))
