"""Refined logit distillation (Sun et al., ICCV 2025; zju-SWJ/RLD@d54578f, `RLD.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.distill.losses.decoupled import apart, binary_kl, class_of, one_hot, with_labels
from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, compared, masked
from kdsearch.search import Rld


@loss_of(Rld)
def rld(objective: Rld, units: Units) -> Tensor:
    """label_weight·L1 + ramp·mean(sample_confidence·SCD + masked_correlation·MCD).

    SCD = τ_c²·KL of two pairs: the teacher's highest probability and the rest, the student's of the
    class and the rest. MCD = τ²·KL of the softmaxes over the classes that the teacher finds less
    likely than the class; 0 where there is none. The means are over the units with a class.
    """
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    student_NC, teacher_NC = compared(objective, units)
    class_N = class_of(objective, units, teacher_NC)
    confidence_N = _confidence(objective, units, student_NC, teacher_NC, class_N)
    own_N1 = teacher_NC.gather(1, class_N[:, None])
    less_NC = teacher_NC < own_N1 if units.real is None else (teacher_NC < own_N1) & units.real
    temperature, lowest = objective.temperature, torch.finfo(student_NC.dtype).min / 2
    log_s_NC, log_t_NC = (
        (logits_NC / temperature).masked_fill(~less_NC, lowest).log_softmax(dim=-1)
        for logits_NC in (student_NC, teacher_NC)
    )
    correlation_N = (log_t_NC.exp() * (log_t_NC - log_s_NC)).masked_fill(~less_NC, 0).sum(dim=-1)
    loss_N = objective.sample_confidence * confidence_N
    loss_N = loss_N + objective.masked_correlation * temperature**2 * correlation_N
    return with_labels(objective, units, loss_N)


def _confidence(
    objective: Rld, units: Units, student_NC: Tensor, teacher_NC: Tensor, class_N: Tensor
) -> Tensor:
    temperature = float(objective.confidence_temperature)
    top_N = masked(teacher_NC, units.real).argmax(dim=-1)
    (own_N, others_N, _), (t_own_N, t_others_N, _) = (
        apart(masked(logits_NC / temperature, units.real), one_hot(each_N, logits_NC))
        for logits_NC, each_N in ((student_NC, class_N), (teacher_NC, top_N))
    )
    return temperature**2 * binary_kl(own_N, others_N, t_own_N, t_others_N)
