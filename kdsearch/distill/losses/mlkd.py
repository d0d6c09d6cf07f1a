"""Multi-level logit distillation (Jin et al., CVPR 2023), as it was published in code.

Of two views Jin-Ying/Multi-Level-Logit-Distillation@5ee473f, `KD_ours.py`; of one
zju-SWJ/RLD@d54578f, `MLKD_NOAUG.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kdsearch.distill.losses.registry import loss_of
from kdsearch.distill.losses.units import Units, compared, kl, label_loss
from kdsearch.search import Mlkd

_FURTHER = (3.0, 5.0, 2.0, 6.0)
"""The temperatures beside the objective's."""
_OF_STRONG = 3
"""So many of the temperatures are the strong view's; in the code the others are the weak one's."""

Pair = tuple[Tensor, Tensor]
"""Logits of student and teacher, [N, C]."""


@loss_of(Mlkd)
def mlkd(objective: Mlkd, units: Units) -> Tensor:
    """label_weight·L1 + kd_weight·(instances + m_c·Σ classes + m·Σ batch), over five temperatures.

    The instances are m·Σ τ²·KL; of two views, that of the weak one and Σ τ²·KL without the m, at
    the first three temperatures of the strong one and at the last two of the weak one. The labels'
    loss is then that of both views. The correlations are of the weak view, of logits that are not
    standardised.

    m is the share of units of which the teacher is no surer than of their median, m_c the share of
    classes whose probabilities sum to no more than their median. In the code they are masks, which
    are applied to what is reduced to a number already: so they are shares.

    Of two views the units are 2U: those of the weak view, then the same of the strong one.
    """
    temperatures = (objective.temperature, *_FURTHER)
    raw = units.student, units.teacher
    weak, strong = _views(objective, compared(objective, units))
    student_NC, teacher_NC = _views(objective, raw)[0]
    likely_NC = teacher_NC.softmax(dim=-1)
    m, m_c = _share(likely_NC.amax(dim=1)), _share(likely_NC.sum(dim=0))
    instances = m * _instances(weak, temperatures)
    own = label_loss(units)
    if objective.two_views:
        own = 2 * own  # the sum of the means over each view
        instances = instances + _instances(strong, temperatures[:_OF_STRONG])
        instances = instances + _instances(weak, temperatures[_OF_STRONG:])
    batch, classes = zip(
        *(_correlations((student_NC, teacher_NC), each) for each in temperatures), strict=True
    )
    levels = instances + m_c * torch.stack(classes).sum() + m * torch.stack(batch).sum()
    return objective.label_weight * own + objective.kd_weight * levels


def _views(objective: Mlkd, logits: Pair) -> tuple[Pair, Pair]:
    """Those of the weak view and of the strong one; of one view twice the same."""
    if not objective.two_views:
        return logits, logits
    (weak_s, strong_s), (weak_t, strong_t) = (each.chunk(2) for each in logits)
    return (weak_s, weak_t), (strong_s, strong_t)


def _share(values_N: Tensor) -> Tensor:
    """The share of values that are at most their median."""
    return (values_N <= values_N.median()).float().mean()


def _instances(logits: Pair, temperatures: Iterable[float]) -> Tensor:
    """The sum of τ²·KL over the temperatures, each the mean over units."""
    student_NC, teacher_NC = logits
    found = [
        kl((teacher_NC / tau).log_softmax(-1), (student_NC / tau).log_softmax(-1)).mean() * tau**2
        for tau in temperatures
    ]
    return torch.stack(found).sum()


def _correlations(logits: Pair, temperature: float) -> Pair:
    """How far apart P·Pᵀ of both are, over N; and Pᵀ·P, over C."""
    own_NC, theirs_NC = ((each / temperature).softmax(dim=-1) for each in logits)
    units, classes = own_NC.shape
    batch = ((theirs_NC @ theirs_NC.T - own_NC @ own_NC.T) ** 2).sum() / units
    return batch, ((theirs_NC.T @ theirs_NC - own_NC.T @ own_NC) ** 2).sum() / classes
