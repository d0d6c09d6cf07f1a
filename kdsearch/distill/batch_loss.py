"""What a training minimises: from what a model says of a batch to the loss of its units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdsearch.distill.losses import Units, compute, in_chunks
from kdsearch.search import Objective
from kdsearch.tasks import Batch, Task, head_weights


class BatchLoss(Protocol):
    """What a training minimises of a batch."""

    def __call__(self, values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        """The loss, from the rows that a model says of `batch`, [R, W]."""


_MOST_LOGITS = 2**25
"""At once, of a wide vocabulary: 128 MB in single precision, a few times over."""

Head = tuple[Tensor, Tensor | None]
"""The weights [C, W] and the bias [C] that make logits of a hidden state."""


@dataclass(frozen=True, kw_only=True)
class CachedOutputs:
    """A teacher's outputs on the training split."""

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

    def narrow(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        student_UC, real_UC = task.units(values_RW, batch)
        units = Units(student=student_UC, labels=task.labels(batch), real=real_UC, epoch=epoch)
        if teacher is not None:
            teacher_UC, _ = task.units(teacher.of(batch), batch)
            units = replace(units, teacher=teacher_UC)
        return compute(objective, units)

    def wide(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        head = head_weights(model)
        hidden_RW = None if teacher is None else teacher.of(batch)

        def loss(chunk_RW: Tensor, indices: Tensor) -> Tensor:
            student_UC = _logits(chunk_RW, head)
            units = Units(student=student_UC, labels=batch.labels[indices], epoch=epoch)
            if hidden_RW is not None:
                assert teacher is not None
                assert teacher.head is not None
                hidden = hidden_RW[indices].to(teacher.head[0].dtype)
                units = replace(units, teacher=_logits(hidden, teacher.head))
            return compute(objective, units)

        return in_chunks(loss, values_RW, _chunk(head))

    return wide if task.wide else narrow


def _logits(hidden_RW: Tensor, head: Head) -> Tensor:
    return F.linear(hidden_RW, *head)


def _chunk(head: Head) -> int:
    return max(1, _MOST_LOGITS // len(head[0]))
