"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, Eq. 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, label_loss, masked
from kdsearch.search import Dkd
from kdsearch.tasks import IGNORED


@loss_of(Dkd)
def dkd(objective: Dkd, units: Units) -> Tensor:
    """label_weight·L1 + ramp·τ²·mean(target·TCKD + non_target·NCKD), over the units with a label.

    TCKD is the KL divergence of the label against the rest, NCKD that of the softmaxes over the
    rest. KL = TCKD + (1 − p_t of the label)·NCKD. The ramp rises to 1 over the first epochs.
    """
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    labels_N = units.labels.where(units.labels != IGNORED, 0)
    label_NC = F.one_hot(labels_N, units.student.shape[-1]).bool()
    (own_N, others_N, rest_NC), (t_own_N, t_others_N, t_rest_NC) = (
        _parts(masked(logits_NC / objective.temperature, units.real), label_NC)
        for logits_NC in (units.student, units.teacher)
    )
    target_N = t_own_N.exp() * (t_own_N - own_N) + t_others_N.exp() * (t_others_N - others_N)
    non_target_N = (t_rest_NC.exp() * (t_rest_NC - rest_NC)).masked_fill(label_NC, 0).sum(dim=-1)
    loss_N = objective.target * target_N + objective.non_target * non_target_N
    distilled = units.labelled_mean(loss_N) * objective.temperature**2
    ramp = min(units.epoch / objective.warmup_epochs, 1.0) if objective.warmup_epochs else 1.0
    own = label_loss(units)
    return objective.label_weight * own + ramp * distilled


def _parts(logits_NC: Tensor, label_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p of the label, and of all others together, [N]; log softmax among the others, [N, C].

    The sum over the others is taken of their logits: 1 − p of the label may be rounded to 0.
    """
    log_p_NC = logits_NC.log_softmax(dim=-1)
    lowest = torch.finfo(logits_NC.dtype).min / 2
    others_NC = log_p_NC.masked_fill(label_NC, lowest)
    return (log_p_NC * label_NC).sum(dim=-1), others_NC.logsumexp(-1), others_NC.log_softmax(-1)
