"""The KD objective, Eq. 1 of arXiv 2401.06356.

L_KD = (1 − α)·L1(q, p_s) + α·L2(o_t(τ_t), o_s(τ_s)),   α ∈ (0, 1]
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from kdsearch.search import Distance


def kd_loss(
    student_NC: Tensor,
    teacher_NC: Tensor,
    labels_N: Tensor,
    *,
    distance: Distance,
    alpha: float,
    temperature: float | None,
    student_temperature: float | None,
    gradient_scale: str = "none",
) -> Tensor:
    """L_KD of N scored units with C classes, a scalar.

    `student_NC` and `teacher_NC` are logits; `labels_N` are class numbers, used where α < 1. L1 is
    the cross-entropy of the student's softmax without temperature. L2 is `ce` or `mse` below.
    """
    student_NC, teacher_NC = student_NC.float(), teacher_NC.float()
    if distance is Distance.MSE:
        loss = mse(student_NC, teacher_NC)
    else:
        assert temperature is not None
        assert student_temperature is not None
        loss = ce(student_NC, teacher_NC, temperature, student_temperature)
        if gradient_scale == "tau_squared":
            loss = loss * student_temperature**2
    if alpha == 1:
        return loss
    return (1 - alpha) * F.cross_entropy(student_NC, labels_N) + alpha * loss


def ce(
    student_NC: Tensor, teacher_NC: Tensor, temperature: float, student_temperature: float
) -> Tensor:
    """−Σ_c softmax(z_t / τ_t)_c · log softmax(z_s / τ_s)_c, the mean over units.

    Its gradient is that of the KL divergence: they differ by the teacher's entropy.
    """
    probabilities_NC = (teacher_NC / temperature).softmax(dim=-1)
    log_probabilities_NC = (student_NC / student_temperature).log_softmax(dim=-1)
    return -(probabilities_NC * log_probabilities_NC).sum(dim=-1).mean()


def mse(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    """(z_s − z_t)², the mean over units and classes; raw logits, no temperature (§2)."""
    return F.mse_loss(student_NC, teacher_NC)
