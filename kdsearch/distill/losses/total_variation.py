"""Total variation distance (Wen et al., ACL 2023, arXiv 2307.15190)."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, at_temperatures, mixed, scaled
from kdsearch.search import TotalVariation


@loss_of(TotalVariation)
def total_variation(objective: TotalVariation, units: Units) -> Tensor:
    """½·Σ|p_t − p_s| over the classes; the mean over units."""
    student_NC, teacher_NC = (
        logits_NC.softmax(dim=-1) for logits_NC in at_temperatures(objective, units)
    )
    loss = units.mean(0.5 * (teacher_NC - student_NC).abs().sum(dim=-1))
    return mixed(units, objective.alpha, scaled(objective, loss))
