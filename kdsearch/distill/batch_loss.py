"""What a training minimises: from what a model says of a batch to the loss of its units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from kdsearch.distill.losses import KeptClasses, Units, compute
from kdsearch.distill.measures import mean_entropy
from kdsearch.distill.wide import Head, Hidden, Watch, WideUnits, wide_loss
from kdsearch.search import Objective
from kdsearch.tasks import Batch, Task, head_weights


class BatchLoss(Protocol):
    """What a training minimises of a batch."""

    def __call__(
        self, values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None
    ) -> Tensor:
        """The loss, from the rows that a model says of `batch`, [R, W]."""


@dataclass(frozen=True, kw_only=True)
class CachedOutputs:
    """A teacher's outputs on a split."""

    values: Tensor
    """[rows of the split, W], of a split in views those of all views; on disk, where they are
    wide or many."""
    head: Head | None
    """Of wide ones: the teacher's."""
    weak: Tensor | None = None
    """Where a batch has two views of each example: the same on the weak ones."""

    def of(self, batch: Batch) -> Tensor:
        """[R, W]: those of a batch, where the batch is; of views in single precision."""
        if self.weak is None:
            return _rows(self.values, batch.rows, batch.labels.device)
        halves = zip((self.weak, self.values), batch.rows.chunk(2), strict=True)
        return torch.cat([_rows(values, rows, batch.labels.device) for values, rows in halves])


def _rows(values: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    found = values[rows.to(values.device)].to(device)
    return found.float() if found.dtype == torch.float16 else found


class CachedTokens(Protocol):
    """Of a wide teacher's outputs on a split, some tokens of each row."""

    def kept(self, batch: Batch) -> KeptClasses:
        """Those of a batch, where the batch is."""


TeacherOutputs = CachedOutputs | CachedTokens


def batch_loss(
    task: Task,
    model: Any,
    objective: Objective,
    teacher: TeacherOutputs | None = None,
    temperature: Callable[[int], Tensor] | None = None,
) -> BatchLoss:
    """The loss of a model's batches under an objective, taught by a teacher's outputs or not.

    `temperature` says what an objective's learnt one is in an epoch; no wide task has one.
    """

    def narrow(
        values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None
    ) -> Tensor:
        units = _narrow_units(task, values_RW, batch, teacher, epoch)
        if temperature is not None:
            units = replace(units, temperature=temperature(epoch))
        if watch is not None:
            watch(mean_entropy(units), len(units.labels))
        return compute(objective, units)

    def wide(values_RW: Tensor, batch: Batch, epoch: int = 1, watch: Watch | None = None) -> Tensor:
        return wide_loss(objective, _wide_units(model, values_RW, batch, teacher, epoch), watch)

    assert temperature is None or not task.wide
    return wide if task.wide else narrow


def units_of(
    task: Task, model: Any, values_RW: Tensor, batch: Batch, teacher: TeacherOutputs | None = None
) -> Iterator[Units]:
    """The units of a batch; those of a wide vocabulary some at a time."""
    if not task.wide:
        yield _narrow_units(task, values_RW, batch, teacher)
        return
    yield from _wide_units(model, values_RW, batch, teacher).some()


def _narrow_units(
    task: Task, values_RW: Tensor, batch: Batch, teacher: TeacherOutputs | None, epoch: int = 1
) -> Units:
    student_UC, real_UC = task.units(values_RW, batch)
    units = Units(student=student_UC, labels=task.labels(batch), real=real_UC, epoch=epoch)
    if teacher is not None:
        assert isinstance(teacher, CachedOutputs)
        teacher_UC, _ = task.units(teacher.of(batch), batch)
        units = replace(units, teacher=teacher_UC)
    return units


def _wide_units(
    model: Any, values_RW: Tensor, batch: Batch, teacher: TeacherOutputs | None, epoch: int = 1
) -> WideUnits:
    head, classes = head_weights(model), batch.classes
    if classes is not None and isinstance(teacher, CachedOutputs):
        assert teacher.head is not None
        # A tokenizer may know more tokens than there is room for, if no text has them.
        classes = min(classes, len(head[0]), len(teacher.head[0]))
    student = Hidden(states=values_RW, head=head, classes=classes)
    units = WideUnits(student=student, labels=batch.labels, epoch=epoch)
    if isinstance(teacher, CachedOutputs):
        assert teacher.head is not None
        taught = Hidden(states=teacher.of(batch), head=teacher.head, classes=classes)
        units = replace(units, teacher=taught)
    elif teacher is not None:
        units = replace(units, kept=teacher.kept(batch))
    return units
