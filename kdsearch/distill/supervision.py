"""What keeps only some of what a teacher says: controls of distillation at a temperature.

"A Unified Revisit of Temperature in Classification-Based Knowledge Distillation", §4.2 and Figure
5. Each is made once, of a teacher's outputs on the training split: logits whose softmax at the
temperature is what is learnt. The student's side and the loss stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.search import SMOOTHED, SMOOTHED_EACH, SOFTMAX, Ce, permuted_after, significant

_ROWS = 2**14
"""So many are there at once in double precision."""
_SUREST = 800.0
"""A logit so far above the others leaves an entropy that is 0 in double precision."""
_HALVINGS = 64
"""Of a range of logits that wide, until no number lies between."""


@torch.no_grad()
def supervised(
    objective: Ce, outputs: CachedOutputs, seed: int
) -> tuple[Ce, CachedOutputs, float | None]:
    """An objective that learns all of its teacher's outputs, and those that it learns so.

    `outputs` are the teacher's own, logits of the same classes in each row. Beside them the
    coefficient of label smoothing, the share that is spread over all classes, of several the mean;
    None where nothing is smoothed.
    """
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    values_RC = outputs.values
    kept = permuted_after(objective.supervision)
    if kept is not None:
        rows = torch.arange(len(values_RC), device=values_RC.device).split(_ROWS)
        every = zip(values_RC.split(_ROWS), rows, strict=True)
        made, smoothing = torch.cat([permuted(*some, kept, seed).float() for some in every]), None
    else:
        gap_R = _gaps(objective, values_RC)
        made = torch.zeros_like(values_RC, dtype=torch.float32)
        top_R1 = values_RC.argmax(dim=1, keepdim=True)
        made.scatter_(1, top_R1, (gap_R * objective.temperature).float()[:, None])
        smoothing = significant(float(coefficient(gap_R, values_RC.shape[1]).mean()))
    plain = replace(objective, supervision=SOFTMAX)
    return plain, replace(outputs, values=made), smoothing


def _gaps(objective: Ce, values_RC: Tensor) -> Tensor:
    """[R]: how far the highest of two values of logits lies above the other, at temperature 1."""
    logs = (
        (some.double() / objective.temperature).log_softmax(dim=1)
        for some in values_RC.split(_ROWS)
    )
    rows, classes = values_RC.shape
    if objective.supervision == SMOOTHED_EACH:
        return peak(
            torch.cat([torch.special.entr(each.exp()).sum(dim=1) for each in logs]), classes
        )
    assert objective.supervision == SMOOTHED
    totals = [each.exp().sort(dim=1, descending=True).values.sum(dim=0) for each in logs]
    mean_C = torch.stack(totals).sum(dim=0) / rows
    return peak(torch.special.entr(mean_C).sum(), classes).expand(rows)


def peak(entropies: Tensor, classes: int) -> Tensor:
    """How far one logit lies above all others, which are equal, where softmax has such an entropy.

    In nats and double precision, of any shape. The entropy falls as that logit rises, from
    ln C to 0, so that halving finds it.
    """
    low, high = torch.zeros_like(entropies), torch.full_like(entropies, _SUREST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        others = (classes - 1) * (-middle).exp()  # beside the one's 1
        above = others.log1p() + middle * others / (1 + others) > entropies
        low, high = middle.where(above, low), high.where(above, middle)
    return (low + high) / 2


def coefficient(gaps: Tensor, classes: int) -> Tensor:
    """Of label smoothing: the share that is spread evenly over all classes, of such a softmax."""
    others = (-gaps).exp()
    return classes * others / (1 + (classes - 1) * others)


def permuted(logits_RC: Tensor, rows_R: Tensor, kept: int, seed: int) -> Tensor:
    """The logits with those behind the `kept` highest of each row permuted among their classes.

    A permutation is a function of the seed and of the row's number, which is that of a view of an
    example: no batch, no epoch and no device enters.
    """
    sorted_RC, order_RC = logits_RC.sort(dim=1, descending=True, stable=True)
    below_RC, classes_RC = sorted_RC[:, kept:], order_RC[:, kept:]
    count = classes_RC.shape[1]
    places_C = torch.arange(count, device=logits_RC.device)
    keys_RC = _hash(_hash(_hash(rows_R) + seed)[:, None] + places_C)
    return logits_RC.scatter(1, classes_RC, below_RC.gather(1, keys_RC.argsort(dim=1)))


def _hash(numbers: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014), a bijection of 64-bit integers."""
    numbers = numbers + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ _shifted(numbers, shift)) * _signed(factor)
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    return torch.bitwise_and(numbers >> by, 2 ** (64 - by) - 1)  # >> alone repeats the sign


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
