"""Curriculum temperature (Li et al., AAAI 2023; zhengli97/CTKD@7d52522, `DistillKL`)."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, compared, kl, masked, mixed
from kdsearch.search import Ctkd


@loss_of(Ctkd)
def ctkd(objective: Ctkd, units: Units) -> Tensor:
    """(1 − α)·L1 + α·τ²·mean KL, at the τ that is learnt (see `distill.learnt_temperature`).

    The KL is whole: its gradient with respect to τ is also that of the teacher's entropy.
    """
    assert units.temperature is not None
    tau = units.temperature
    student_NC, teacher_NC = (
        masked(logits_NC / tau, units.real).log_softmax(dim=-1)
        for logits_NC in compared(objective, units)
    )
    return mixed(units, objective.alpha, units.mean(kl(teacher_NC, student_NC)) * tau**2)
