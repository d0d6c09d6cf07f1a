"""Cross-entropy between softened probabilities: L2 of Eq. 1 of arXiv 2401.06356."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, at_temperatures, mixed, scaled
from kdsearch.search import SOFTMAX, Ce


@loss_of(Ce)
def ce(objective: Ce, units: Units) -> Tensor:
    """−Σ_c softmax(z_t / τ_t)_c · log softmax(z_s / τ_s)_c, the mean over units.

    Its gradient is that of the KL divergence: they differ by the teacher's entropy.
    """
    assert objective.supervision == SOFTMAX  # else see `distill.supervision`
    student_NC, teacher_NC = at_temperatures(objective, units)
    log_p_NC = student_NC.log_softmax(dim=-1)
    if units.kept is not None:
        loss_N = units.kept.cross_entropy(log_p_NC)
    else:
        loss_N = -(teacher_NC.softmax(dim=-1) * log_p_NC).sum(dim=-1)
    return mixed(units, objective.alpha, scaled(objective, units.mean(loss_N)))
