"""What the losses of all objectives share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdsearch.search import Softened
from kdsearch.tasks import IGNORED


@dataclass(frozen=True, kw_only=True)
class Units:
    """N scored units of C classes: what student, teacher and labels say of them."""

    student: Tensor
    """Logits, [N, C], in single precision; as are the teacher's."""
    labels: Tensor
    """Class numbers, [N], or `IGNORED`."""
    teacher: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of an objective without a teacher, nothing."""
    real: Tensor | None = None
    """Where units have different classes, which of the C each has, [N, C]."""
    epoch: int = 1
    """Which this is of the training, from 1."""


def mixed(units: Units, alpha: float, loss: Tensor) -> Tensor:
    """(1 − α)·L1(q, p_s) + α·`loss`, where L1 is the cross-entropy on the labels (Eq. 1).

    The student's softmax has no temperature in it. At α = 1 the labels may be none.
    """
    if alpha == 1:
        return loss
    own = label_loss(units.student, units.labels, units.real)
    return (1 - alpha) * own + alpha * loss


def at_temperatures(objective: Softened, units: Units) -> tuple[Tensor, Tensor]:
    """The logits of student and teacher, each over its temperature, [N, C]."""
    return (
        masked(units.student / float(objective.student_temperature), units.real),
        masked(units.teacher / objective.temperature, units.real),
    )


def scaled(objective: Softened, loss: Tensor) -> Tensor:
    """The loss times τ_s², where that is asked for (Hinton et al., 2015)."""
    if objective.gradient_scale == "none":
        return loss
    return loss * float(objective.student_temperature) ** 2


def label_loss(student_NC: Tensor, labels_N: Tensor, real_NC: Tensor | None = None) -> Tensor:
    """L1: cross-entropy on the labels, the mean over the units that have one; 0 if none has."""
    logits_NC = masked(student_NC.float(), real_NC)
    total = F.cross_entropy(logits_NC, labels_N, ignore_index=IGNORED, reduction="sum")
    return total / (labels_N != IGNORED).sum().clamp(min=1)


def in_chunks(loss: Callable[[Tensor, Tensor], Tensor], values_RW: Tensor, chunk: int) -> Tensor:
    """The mean over rows of `loss`, computed `chunk` rows at a time.

    `loss` is given some of the values and the indices of their rows, and returns their mean (or
    several means, as a vector). What
    it makes of them, such as logits of a wide vocabulary, is computed again for the gradient
    instead of being kept.
    """
    total = values_RW.new_zeros((), dtype=torch.float32)
    for indices in torch.arange(len(values_RW), device=values_RW.device).split(chunk):
        part: Tensor = checkpoint(loss, values_RW[indices], indices, use_reentrant=False)
        total = total + part * len(indices)
    return total / len(values_RW)


def masked(logits_NC: Tensor, real_NC: Tensor | None) -> Tensor:
    """With a finite logit that no softmax sees: 0 · log 0 would be no number."""
    if real_NC is None:
        return logits_NC
    return logits_NC.masked_fill(~real_NC, torch.finfo(logits_NC.dtype).min / 2)
