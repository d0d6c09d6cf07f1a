"""One class of each unit, and the others: what decoupled losses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from kdsearch.distill.losses.units import Units, label_loss, masked, ramp
from kdsearch.search import Decoupled
from kdsearch.tasks import IGNORED


def class_of(objective: Decoupled, units: Units, teacher_NC: Tensor) -> Tensor:
    """[N]: the class that is set apart; of a unit without a label, any."""
    if objective.class_of == "teacher":
        return masked(teacher_NC, units.real).argmax(dim=-1)
    return units.labels.where(units.labels != IGNORED, 0)


def one_hot(class_N: Tensor, logits_NC: Tensor) -> Tensor:
    """[N, C]: where each unit's class is."""
    return F.one_hot(class_N, logits_NC.shape[-1]).bool()


def apart(logits_NC: Tensor, class_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p of a class, and of all others together, [N]; log softmax among the others, [N, C].

    The sum over the others is taken of their logits: 1 − p of the class may be rounded to 0.
    """
    log_p_NC = logits_NC.log_softmax(dim=-1)
    lowest = torch.finfo(logits_NC.dtype).min / 2
    others_NC = log_p_NC.masked_fill(class_NC, lowest)
    return (log_p_NC * class_NC).sum(dim=-1), others_NC.logsumexp(-1), others_NC.log_softmax(-1)


def binary_kl(own_N: Tensor, others_N: Tensor, t_own_N: Tensor, t_others_N: Tensor) -> Tensor:
    """[N]: KL divergence between a class against the rest, of log probabilities."""
    return t_own_N.exp() * (t_own_N - own_N) + t_others_N.exp() * (t_others_N - others_N)


def with_labels(objective: Decoupled, units: Units, loss_N: Tensor) -> Tensor:
    """label_weight·L1 + ramp·mean of the loss, over the units that have a class."""
    mean = units.mean if objective.class_of == "teacher" else units.labelled_mean
    return objective.label_weight * label_loss(units) + ramp(objective, units) * mean(loss_N)
