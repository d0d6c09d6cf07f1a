"""The loss of outputs too wide to be there at once: of hidden states, and heads that make logits.

One pass makes the loss and its gradients, some rows at a time: the logits of both heads, the loss,
its gradient in place of the student's logits, and what that adds to the gradients of hidden states,
head and bias. The logits of all rows are never there at once, none are made twice, and there is one
gradient as large as the head (as in Liger-Kernel; Hsu et al., 2024, arXiv 2410.10989, §3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdsearch.distill.losses import Counts, KeptClasses, Units, compute
from kdsearch.distill.measures import mean_entropy
from kdsearch.search import Objective
from kdsearch.tasks import IGNORED

Watch = Callable[[Tensor, int], object]
"""Is told the mean posterior entropy of a batch, in nats, and over how many units."""
Head = tuple[Tensor, Tensor | None]
"""The weights [C, W] and the bias [C] that make logits of a hidden state."""

_CLASSES = 2**14
"""Of so many at once a gradient is brought to single precision."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many bytes of logits are there at once."""

    made: int
    """Of both heads together. Where a quarter of the head's gradient is more, that is held."""
    scored: int
    """In single precision; computing their loss takes several times as much."""


_CPU = Room(made=2**27, scored=2**20)  # what is scored stays in the cache
_GPU = Room(made=2**28, scored=2**27)


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Logits that are not made yet."""

    states: Tensor
    """[R, W]."""
    head: Head
    classes: int | None = None
    """How many of the head's count, None for all. The others are made, since a GPU is faster with
    the table as it is, and are neither seen nor learnt."""

    def to(self, dtype: torch.dtype) -> Hidden:
        """To be made in `dtype`."""
        weight, bias = self.head
        head = weight.to(dtype), None if bias is None else bias.to(dtype)
        return replace(self, states=self.states.to(dtype), head=head)

    def logits(self, rows: slice) -> Tensor:
        """[rows, C]."""
        weight, bias = self.head
        return F.linear(self.states[rows].to(weight.dtype), weight, bias)[:, : self.classes]


@dataclass(frozen=True, kw_only=True)
class WideUnits:
    """R units: what student, teacher and labels say of them."""

    student: Hidden
    labels: Tensor
    """Class numbers, [R], or `IGNORED`."""
    teacher: Hidden | None = None
    kept: KeptClasses | None = None
    """What is kept of a teacher in place of its hidden states."""
    epoch: int = 1
    """Which this is of the training, from 1."""
    room: Room | None = None
    """None for what suits the device."""

    def to(self, dtype: torch.dtype) -> WideUnits:
        """With logits in `dtype`."""
        teacher = None if self.teacher is None else self.teacher.to(dtype)
        return replace(self, student=self.student.to(dtype), teacher=teacher)

    def some(self) -> Iterator[Units]:
        """All units, some at a time."""
        for rows in self.chunks():
            for _, some in self.blocks(rows, *self.made(rows)):
                yield some

    def chunks(self) -> Iterator[slice]:
        """Rows whose logits are made at once."""
        row_bytes = self.student.head[0].dtype.itemsize * (1 if self.teacher is None else 2)
        return self._slices(len(self.labels), self._room.made // row_bytes)

    def made(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The logits of student and teacher, [rows, C]; without a teacher, none of it."""
        student_NC = self.student.logits(rows)
        none = student_NC.new_empty(0)
        return student_NC, none if self.teacher is None else self.teacher.logits(rows)

    def blocks(
        self, rows: slice, student_NC: Tensor, teacher_NC: Tensor
    ) -> Iterator[tuple[slice, Units]]:
        """Those of the rows that are scored at once, and the units that they are."""
        labels_N = self.labels[rows]
        for some in self._slices(len(labels_N), self._room.scored // 4):
            units = Units(
                student=student_NC[some],
                teacher=teacher_NC[some],
                labels=labels_N[some],
                kept=None if self.kept is None else self.kept[rows][some],
                epoch=self.epoch,
                of=self._counts,
            )
            yield some, units

    @cached_property
    def _counts(self) -> Counts:
        return Counts(units=len(self.labels), labelled=(self.labels != IGNORED).sum())

    @property
    def _room(self) -> Room:
        if self.room is not None:
            return self.room
        room = _CPU if self.labels.device.type == "cpu" else _GPU
        # A wide head is read for each chunk: the wider it is, the more rows a product should have.
        quarter = self.student.head[0].numel()  # in bytes, of the head's gradient
        return replace(room, made=max(room.made, quarter))

    def _slices(self, rows: int, logits: int) -> Iterator[slice]:
        size = max(1, logits // len(self.student.head[0]))
        return (slice(first, first + size) for first in range(0, rows, size))


def wide_loss(objective: Objective, units: WideUnits, watch: Watch | None = None) -> Tensor:
    """The loss of all units under an objective, a scalar, for at most one backward pass.

    Logits are made in the precision of the heads, or in that of autocast. Gradients are those of
    the student's states and head; the latter is accumulated in single precision.
    """
    device = units.labels.device.type
    mixed, learning = torch.is_autocast_enabled(device), torch.is_grad_enabled()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        made = units.to(torch.get_autocast_dtype(device)) if mixed else units
        gradients = _Gradients(units.student, made.student) if learning else None
        sums_2 = torch.stack(
            [_one_pass(objective, made, rows, gradients, watch) for rows in made.chunks()]
        ).sum(dim=0)
    if watch is not None:
        watch(sums_2[1], len(units.labels))
    if gradients is None:
        return sums_2[0]
    inputs = units.student.states, *units.student.head
    found: Tensor = _Made.apply(sums_2[0], gradients.found, *inputs)  # type: ignore[no-untyped-call]
    return found


def _one_pass(
    objective: Objective,
    units: WideUnits,
    rows: slice,
    gradients: _Gradients | None,
    watch: Watch | None,
) -> Tensor:
    """[2]: what some rows add to the loss, and to the mean entropy if it is watched."""
    student_NC, teacher_NC = units.made(rows)
    # In place of the logits, where they have its type.
    gradient_NC = student_NC if gradients is None else student_NC.to(gradients.dtype)
    sums = torch.zeros(2, device=student_NC.device)
    for some, block in units.blocks(rows, student_NC, teacher_NC):
        if watch is not None:
            sums[1] += mean_entropy(block) * len(block.labels) / len(units.labels)
        if gradients is None:
            sums[0] += compute(objective, block)
            continue
        leaf_NC = block.student.detach().float().requires_grad_()
        with torch.enable_grad():
            loss = compute(objective, replace(block, student=leaf_NC))
        (gradient_NC[some],) = torch.autograd.grad(loss, leaf_NC)
        sums[0] += loss.detach()
    if gradients is not None:
        gradients.add(rows, gradient_NC)
    return sums


class _Gradients:
    """Those of what makes a student's logits, as far as they are asked for."""

    def __init__(self, student: Hidden, made: Hidden) -> None:
        """Of `student`, as `made` in the precision of its logits."""
        # The range of fp16 is too small for what GradScaler has not scaled yet.
        self.dtype = made.head[0].dtype
        if self.dtype == torch.float16:
            self.dtype, made = torch.float32, student
        self._student = made.to(self.dtype)
        self.found = [
            None
            if each is None or not each.requires_grad
            else torch.zeros_like(each, dtype=torch.float32)
            for each in (student.states, *student.head)
        ]

    def add(self, rows: slice, logits_NC: Tensor) -> None:
        """Add what the gradient of some rows' logits makes."""
        states, weight, bias = self.found
        classes = self._student.classes
        if states is not None:
            states[rows] = logits_NC @ self._student.head[0][:classes]
        if weight is not None:
            _add_product(weight[:classes], logits_NC, self._student.states[rows])
        if bias is not None:
            bias[:classes] += logits_NC.sum(dim=0, dtype=torch.float32)


def _add_product(sum_CW: Tensor, logits_NC: Tensor, states_NW: Tensor) -> None:
    """Add logitsᵀ · states, in single precision whatever theirs is."""
    if logits_NC.dtype == torch.float32:
        sum_CW.addmm_(logits_NC.T, states_NW)
    elif sum_CW.is_cuda:
        torch.addmm(sum_CW, logits_NC.T, states_NW, out_dtype=torch.float32, out=sum_CW)
    else:  # where no such product is offered
        states_NW = states_NW.float()
        for sum_c, some_NC in zip(
            sum_CW.split(_CLASSES), logits_NC.split(_CLASSES, dim=1), strict=True
        ):
            sum_c.addmm_(some_NC.float().T, states_NW)


class _Made(torch.autograd.Function):
    """A value whose gradients, of each input or None, were made with it."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor | None
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Given away, and scaled in place, so that there is no second one.
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(each if each is None else each.mul_(upstream[0]) for each in gradients)
