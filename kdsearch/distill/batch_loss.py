"""What a training minimises: from what a model says of a batch to the loss of its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdsearch.agenda import StudentTraining
from kdsearch.distill.losses import Units, compute, in_chunks, label_loss
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


def label_batch_loss(task: Task, model: Any) -> BatchLoss:
    """L1 alone: cross-entropy on the labels, as teachers are fine-tuned."""

    def narrow(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        logits_UC, real_UC = task.units(values_RW, batch)
        return label_loss(logits_UC, task.labels(batch), real_UC)

    def wide(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        head = head_weights(model)

        def loss(chunk_RW: Tensor, indices: Tensor) -> Tensor:
            return label_loss(_logits(chunk_RW, head), batch.labels[indices])

        return in_chunks(loss, values_RW, _chunk(head))

    return wide if task.wide else narrow


def kd_batch_loss(
    task: Task, model: Any, teacher: CachedOutputs, training: StudentTraining
) -> BatchLoss:
    """The objective of a student, with the teacher's cached outputs."""

    def narrow(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        student_UC, real_UC = task.units(values_RW, batch)
        teacher_UC, _ = task.units(teacher.of(batch), batch)
        units = Units(
            student=student_UC,
            teacher=teacher_UC,
            labels=task.labels(batch),
            real=real_UC,
            epoch=epoch,
        )
        return compute(training.objective, units)

    def wide(values_RW: Tensor, batch: Batch, epoch: int = 1) -> Tensor:
        head = head_weights(model)
        hidden_RW = teacher.of(batch)
        assert teacher.head is not None
        teacher_head = teacher.head

        def loss(chunk_RW: Tensor, indices: Tensor) -> Tensor:
            teacher_UC = _logits(hidden_RW[indices].to(teacher_head[0].dtype), teacher_head)
            units = Units(
                student=_logits(chunk_RW, head),
                teacher=teacher_UC,
                labels=batch.labels[indices],
                epoch=epoch,
            )
            return compute(training.objective, units)

        return in_chunks(loss, values_RW, _chunk(head))

    return wide if task.wide else narrow


def _logits(hidden_RW: Tensor, head: Head) -> Tensor:
    return F.linear(hidden_RW, *head)


def _chunk(head: Head) -> int:
    return max(1, _MOST_LOGITS // len(head[0]))
