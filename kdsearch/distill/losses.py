"""The KD objective, Eq. 1 of arXiv 2401.06356.

L_KD = (1 − α)·L1(q, p_s) + α·L2(o_t(τ_t), o_s(τ_s)),   α ∈ (0, 1]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdsearch.search import Distance
from kdsearch.tasks import IGNORED


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
    real_NC: Tensor | None = None,
) -> Tensor:
    """L_KD of N scored units with C classes, a scalar.

    `student_NC` and `teacher_NC` are logits; `labels_N` are class numbers, used where α < 1. L1 is
    the cross-entropy of the student's softmax without temperature. L2 is `ce` or `mse` below.
    Where units have different classes, `real_NC` says which of the C each has.
    """
    student_NC, teacher_NC = student_NC.float(), teacher_NC.float()
    if distance is Distance.MSE:
        loss = mse(student_NC, teacher_NC, real_NC)
    else:
        assert temperature is not None
        assert student_temperature is not None
        loss = ce(student_NC, teacher_NC, temperature, student_temperature, real_NC)
        if gradient_scale == "tau_squared":
            loss = loss * student_temperature**2
    if alpha == 1:
        return loss
    return (1 - alpha) * label_loss(student_NC, labels_N, real_NC) + alpha * loss


def ce(
    student_NC: Tensor,
    teacher_NC: Tensor,
    temperature: float,
    student_temperature: float,
    real_NC: Tensor | None = None,
) -> Tensor:
    """−Σ_c softmax(z_t / τ_t)_c · log softmax(z_s / τ_s)_c, the mean over units.

    Its gradient is that of the KL divergence: they differ by the teacher's entropy.
    """
    probabilities_NC = _masked(teacher_NC / temperature, real_NC).softmax(dim=-1)
    log_probabilities_NC = _masked(student_NC / student_temperature, real_NC).log_softmax(dim=-1)
    return -(probabilities_NC * log_probabilities_NC).sum(dim=-1).mean()


def mse(student_NC: Tensor, teacher_NC: Tensor, real_NC: Tensor | None = None) -> Tensor:
    """(z_s − z_t)², the mean over units and classes; raw logits, no temperature (§2)."""
    if real_NC is None:
        return F.mse_loss(student_NC, teacher_NC)
    differences_NC = (student_NC - teacher_NC).masked_fill(~real_NC, 0.0)
    return ((differences_NC**2).sum(dim=-1) / real_NC.sum(dim=-1).clamp(min=1)).mean()


def label_loss(student_NC: Tensor, labels_N: Tensor, real_NC: Tensor | None = None) -> Tensor:
    """L1: cross-entropy on the labels, the mean over the units that have one; 0 if none has."""
    logits_NC = _masked(student_NC.float(), real_NC)
    total = F.cross_entropy(logits_NC, labels_N, ignore_index=IGNORED, reduction="sum")
    return total / (labels_N != IGNORED).sum().clamp(min=1)


def in_chunks(loss: Callable[[Tensor, Tensor], Tensor], values_RW: Tensor, chunk: int) -> Tensor:
    """The mean over rows of `loss`, computed `chunk` rows at a time.

    `loss` is given some of the values and the indices of their rows, and returns their mean. What
    it makes of them, such as logits of a wide vocabulary, is computed again for the gradient
    instead of being kept.
    """
    total = values_RW.new_zeros((), dtype=torch.float32)
    for indices in torch.arange(len(values_RW), device=values_RW.device).split(chunk):
        part: Tensor = checkpoint(loss, values_RW[indices], indices, use_reentrant=False)
        total = total + part * len(indices)
    return total / len(values_RW)


def _masked(logits_NC: Tensor, real_NC: Tensor | None) -> Tensor:
    """With a finite logit that no softmax sees: 0 · log 0 would be no number."""
    if real_NC is None:
        return logits_NC
    return logits_NC.masked_fill(~real_NC, torch.finfo(logits_NC.dtype).min / 2)
