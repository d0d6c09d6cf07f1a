"""What a training minimises: from what a model says of a batch to the loss of its units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdsearch.distill.losses import Units, compute, in_chunks
from kdsearch.distill.measures import mean_entropy
from kdsearch.search import Objective
from kdsearch.tasks import Batch, Task, head_weights

Watch = Callable[[Tensor, int], object]
"""Is told the mean posterior entropy of a batch, in nats, and over how many units."""


class BatchLoss(Protocol):
    """What a training minimises of a batch."""

    def __call__(
        self, values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None
    ) -> Tensor:
        """The loss, from the rows that a model says of `batch`, [R, W]."""


_MOST_LOGITS = 2**25
"""At once, of a wide vocabulary: 128 MB in single precision, a few times over."""

Head = tuple[Tensor, Tensor | None]
"""The weights [C, W] and the bias [C] that make logits of a hidden state."""


@dataclass(frozen=True, kw_only=True)
class CachedOutputs:
    """A teacher's outputs on a split."""

    values: Tensor
    """[rows of the split, W]; on disk, where they are wide."""
    head: Head | None
    """Of wide ones: the teacher's."""

    def of(self, batch: Batch) -> Tensor:
        """[R, W]: those of a batch, where the batch is."""
        rows = batch.rows.to(self.values.device)
        return self.values[rows].to(batch.labels.device)


def batch_loss(
    task: Task, model: Any, objective: Objective, teacher: CachedOutputs | None = None
) -> BatchLoss:
    """The loss of a model's batches under an objective, taught by a teacher's outputs or not."""

    def narrow(
        values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None
    ) -> Tensor:
        units = _narrow_units(task, values_RW, batch, teacher, epoch)
        if watch is not None:
            watch(mean_entropy(units), len(units.labels))
        return compute(objective, units)

    def wide(values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None) -> Tensor:
        head = head_weights(model)
        hidden_RW = None if teacher is None else teacher.of(batch)

        def means(chunk_RW: Tensor, indices: Tensor) -> Tensor:
            units = _wide_units(chunk_RW, indices, batch, head, teacher, hidden_RW, epoch)
            loss = compute(objective, units)
            # Behind the loss, so that it is not computed again for the gradient.
            return loss[None] if watch is None else torch.stack([loss, mean_entropy(units)])

        found = in_chunks(means, values_RW, _chunk(head))
        if watch is not None:
            watch(found[1].detach(), len(values_RW))
        return found[0]

    return wide if task.wide else narrow


def units_of(
    task: Task, model: Any, values_RW: Tensor, batch: Batch, teacher: CachedOutputs | None = None
) -> Iterator[Units]:
    """The units of a batch; those of a wide vocabulary some at a time."""
    if not task.wide:
        yield _narrow_units(task, values_RW, batch, teacher)
        return
    head = head_weights(model)
    hidden_RW = None if teacher is None else teacher.of(batch)
    values_RW = values_RW.to(head[0].dtype)
    for indices in torch.arange(len(values_RW), device=values_RW.device).split(_chunk(head)):
        yield _wide_units(values_RW[indices], indices, batch, head, teacher, hidden_RW)


def _narrow_units(
    task: Task, values_RW: Tensor, batch: Batch, teacher: CachedOutputs | None, epoch: int = 1
) -> Units:
    student_UC, real_UC = task.units(values_RW, batch)
    units = Units(student=student_UC, labels=task.labels(batch), real=real_UC, epoch=epoch)
    if teacher is not None:
        teacher_UC, _ = task.units(teacher.of(batch), batch)
        units = replace(units, teacher=teacher_UC)
    return units


def _wide_units(
    chunk_RW: Tensor,
    indices: Tensor,
    batch: Batch,
    head: Head,
    teacher: CachedOutputs | None,
    hidden_RW: Tensor | None,
    epoch: int = 1,
) -> Units:
    """Some rows of a batch; `hidden_RW` are the teacher's of all of them."""
    student_UC = _logits(chunk_RW, head)
    units = Units(student=student_UC, labels=batch.labels[indices], epoch=epoch)
    if hidden_RW is not None:
        assert teacher is not None
        assert teacher.head is not None
        hidden = hidden_RW[indices].to(teacher.head[0].dtype)
        units = replace(units, teacher=_logits(hidden, teacher.head))
    return units


def _logits(hidden_RW: Tensor, head: Head) -> Tensor:
    return F.linear(hidden_RW, *head)


def _chunk(head: Head) -> int:
    return max(1, _MOST_LOGITS // len(head[0]))
