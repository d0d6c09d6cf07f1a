"""Distillation from a stronger teacher (Huang et al., NeurIPS 2022).

After hunto/image_classification_sota@6f7a70a, `dist_kd.py`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, label_loss, softened
from kdsearch.search import Dist


@loss_of(Dist)
def dist(objective: Dist, units: Units) -> Tensor:
    """label_weight·L1 + τ²·(inter_class·(1 − mean of ρ over units) + intra_class·(1 − mean over
    classes)).

    ρ is Pearson's correlation between student and teacher: of a unit over the classes, of a class
    over the units.
    """
    # What is correlated differs little where a student says much the same of every unit.
    exact = replace(units, student=units.student.double(), teacher=units.teacher.double())
    logs = softened(objective, exact, objective.temperature)
    student_NC, teacher_NC = (log_p_NC.exp() for log_p_NC in logs)
    inter = 1 - _correlations(student_NC, teacher_NC).mean()
    intra = 1 - _correlations(student_NC.T, teacher_NC.T).mean()
    apart = objective.inter_class * inter + objective.intra_class * intra
    return objective.label_weight * label_loss(units) + objective.temperature**2 * apart.float()


def _correlations(first_RC: Tensor, second_RC: Tensor) -> Tensor:
    """[R]: of each row."""
    first_RC, second_RC = (each - each.mean(dim=1, keepdim=True) for each in (first_RC, second_RC))
    norms: list[Tensor] = [torch.linalg.vector_norm(each, dim=1) for each in (first_RC, second_RC)]
    return (first_RC * second_RC).sum(dim=1) / (norms[0] * norms[1] + 1e-8)
