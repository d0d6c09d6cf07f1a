"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, Eq. 7)."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.decoupled import apart, binary_kl, class_of, one_hot, with_labels
from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, compared, masked
from kdsearch.search import Dkd


@loss_of(Dkd)
def dkd(objective: Dkd, units: Units) -> Tensor:
    """label_weight·L1 + ramp·τ²·mean(target·TCKD + non_target·NCKD), over the units with a class.

    The ramp rises to 1 over the first epochs.
    """
    return with_labels(objective, units, each(objective, units))


def each(objective: Dkd, units: Units) -> Tensor:
    """[N]: τ²·(target·TCKD + non_target·NCKD).

    TCKD is the KL divergence of the class against the rest, NCKD that of the softmaxes over the
    rest. KL = TCKD + (1 − p_t of the class)·NCKD.
    """
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    student_NC, teacher_NC = compared(objective, units)
    class_NC = one_hot(class_of(objective, units, teacher_NC), student_NC)
    (own_N, others_N, rest_NC), (t_own_N, t_others_N, t_rest_NC) = (
        apart(masked(logits_NC / objective.temperature, units.real), class_NC)
        for logits_NC in (student_NC, teacher_NC)
    )
    target_N = binary_kl(own_N, others_N, t_own_N, t_others_N)
    non_target_N = (t_rest_NC.exp() * (t_rest_NC - rest_NC)).masked_fill(class_NC, 0).sum(dim=-1)
    loss_N = objective.target * target_N + objective.non_target * non_target_N
    return loss_N * objective.temperature**2
