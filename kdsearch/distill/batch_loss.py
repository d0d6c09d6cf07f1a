"""What a training minimises: from what a model says of a batch to the loss of its units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

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
    """[rows of the split, W]; on disk, where they are wide."""
    head: Head | None
    """Of wide ones: the teacher's."""

    def of(self, batch: Batch) -> Tensor:
        """[R, W]: those of a batch, where the batch is."""
        rows = batch.rows.to(self.values.device)
        return self.values[rows].to(batch.labels.device)


class CachedTokens(Protocol):
    """Of a wide teacher's outputs on a split, some tokens of each row."""

    def kept(self, batch: Batch) -> KeptClasses:
        """Those of a batch, where the batch is."""


TeacherOutputs = CachedOutputs | CachedTokens


def batch_loss(
    task: Task, model: Any, objective: Objective, teacher: TeacherOutputs | None = None
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
        return wide_loss(objective, _wide_units(model, values_RW, batch, teacher, epoch), watch)

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
