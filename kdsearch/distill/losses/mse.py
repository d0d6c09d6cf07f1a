"""Squared difference of raw logits: the other L2 of Eq. 1 of arXiv 2401.06356."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, mixed
from kdsearch.search import Mse


@loss_of(Mse)
def mse(objective: Mse, units: Units) -> Tensor:
    """(z_s − z_t)², the mean over units and classes (§2)."""
    return mixed(units, objective.alpha, _mean_square(units))


def _mean_square(units: Units) -> Tensor:
    if units.real is None:
        return units.mean(((units.student - units.teacher) ** 2).mean(dim=-1))
    differences_NC = (units.student - units.teacher).masked_fill(~units.real, 0.0)
    return units.mean((differences_NC**2).sum(dim=-1) / units.real.sum(dim=-1).clamp(min=1))
