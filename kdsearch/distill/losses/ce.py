"""Cross-entropy between softened probabilities: L2 of Eq. 1 of arXiv 2401.06356."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, masked, mixed
from kdsearch.search import Ce


@loss_of(Ce)
def ce(objective: Ce, units: Units) -> Tensor:
    """−Σ_c softmax(z_t / τ_t)_c · log softmax(z_s / τ_s)_c, the mean over units.

    Its gradient is that of the KL divergence: they differ by the teacher's entropy.
    """
    own = float(objective.student_temperature)
    probabilities_NC = masked(units.teacher / objective.temperature, units.real).softmax(-1)
    log_probabilities_NC = masked(units.student / own, units.real).log_softmax(-1)
    loss = -(probabilities_NC * log_probabilities_NC).sum(dim=-1).mean()
    if objective.gradient_scale == "tau_squared":
        loss = loss * own**2
    return mixed(units, objective.alpha, loss)
