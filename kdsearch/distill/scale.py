"""How far apart a teacher's logits lie: the unit in which temperatures may be given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.wide import Hidden
from kdsearch.search import significant
from kdsearch.tasks import Encoded, Task, head_weights

_WIDE_UNITS = 2**12
"""So many of a wide vocabulary's, evenly spaced over the split, stand for all."""
_LOGITS = 2**22
"""So many are there at once."""


@torch.no_grad()
def logit_scale(task: Task, outputs: CachedOutputs, examples: Encoded) -> float:
    """The mean over a split's units of the standard deviation of the logits over the classes.

    Probabilities do not change with what is added to all logits, nor does this; and it grows with
    the logits, so that softmax(z / (τ · scale)) is the same for z and for any multiple of z.
    """
    deviations = [_deviations(*some) for some in written_logits(task, outputs, examples)]
    return significant(float(torch.cat(deviations).mean()))


def written_outputs(path: Path, model: Any, task: Task) -> CachedOutputs:
    """What a teacher has written to `path` of a split, and the head that it has."""
    values = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    if values.dtype == torch.int16:  # numpy has no bfloat16
        values = values.view(torch.bfloat16)
    return CachedOutputs(values=values, head=head_weights(model) if task.wide else None)


def written_logits(
    task: Task, outputs: CachedOutputs, examples: Encoded
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The logits of units, some at a time, and which classes are real."""
    if outputs.head is None:
        for numbers in torch.arange(len(examples)).split(2**10):
            batch = examples.batch(numbers)
            for first in range(0, len(outputs.values), int(examples.offsets[-1])):  # of each view
                seen = replace(batch, rows=batch.rows + first)
                yield task.units(outputs.of(seen), seen)
        return
    weight, _bias = outputs.head
    rows = len(outputs.values)
    some = min(rows, _WIDE_UNITS)
    numbers = torch.linspace(0, rows - 1, some, dtype=torch.float64).round().long()
    states = outputs.values[numbers].to(weight.device)
    hidden = Hidden(states=states, head=outputs.head, classes=examples.classes)
    size = max(1, _LOGITS // len(weight))
    for first in range(0, len(numbers), size):
        yield hidden.logits(slice(first, first + size)), None


def _deviations(logits_UC: Tensor, real_UC: Tensor | None) -> Tensor:
    """[U]: of the real classes of each unit."""
    logits_UC = logits_UC.double()
    if real_UC is None:
        return logits_UC.std(dim=1, correction=0)
    counts_U1 = real_UC.sum(dim=1, keepdim=True)
    means_U1 = logits_UC.masked_fill(~real_UC, 0).sum(dim=1, keepdim=True) / counts_U1
    squares_UC = ((logits_UC - means_U1) ** 2).masked_fill(~real_UC, 0)
    return (squares_UC.sum(dim=1) / counts_U1[:, 0]).sqrt()
