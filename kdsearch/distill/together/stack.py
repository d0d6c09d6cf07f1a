"""One model that computes several students of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdsearch.distill.same import ROUNDING, alike
from kdsearch.distill.together.modules import ATTENTION, MODULES, Pass, UnlikeError
from kdsearch.tasks import Batch, Task

_APART = 0.1
"""By what share of its weights a student differs from the next while they are compared."""


class Stack:
    """K students that are computed at once.

    Each remains a model of its own: its weights are a part of the stack's from now on, so that
    what loads, moves or saves the one does it to the other.
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        """`students` are alike but for their weights. Raises `UnlikeError`."""
        self._pass = Pass(students=len(students))
        self._students = students
        self._gradients: list[Tensor] = []
        self.model: Any = deepcopy(students[0])
        stacked: dict[int, nn.Parameter] = {}
        self._parts: list[tuple[nn.Parameter, tuple[nn.Parameter, ...]]] = []
        every = zip(*(student.parameters() for student in students), strict=True)
        for copied, parts in zip(list(self.model.parameters()), every, strict=True):
            together = nn.Parameter(torch.stack([p.data for p in parts]), copied.requires_grad)
            for part, own in zip(parts, together.data, strict=True):
                part.data = own
            stacked[id(copied)] = together
            self._parts.append((together, parts))
        for module in list(self.model.modules()):
            _swap(module, stacked, self._pass)
        config: Any = self.model.config
        if config._attn_implementation in ("sdpa", "eager"):
            config._attn_implementation = ATTENTION

    def outputs(self, task: Task, batch: Batch) -> Tensor:
        """[K, R, W]: what each student says of a batch."""
        count = self._pass.students
        self._pass.examples = len(batch.counted)
        arguments = {name: _repeated(values, count) for name, values in batch.arguments.items()}
        targets = None if batch.targets is None else _repeated(batch.targets, count)
        counted = _repeated(batch.counted, count)
        repeated = replace(batch, arguments=arguments, counted=counted, targets=targets)
        values = task.outputs(self.model, repeated)
        return values.view(count, -1, values.shape[-1])

    def backward(self, loss: Tensor) -> None:
        """Give each student the gradient of the loss of all.

        Weights that a first loss does not reach have none, then and later.
        """
        if self._gradients:
            torch._foreach_zero_(self._gradients)
        loss.backward()
        if not self._gradients:
            self._gradients = [each.grad for each, _ in self._parts if each.grad is not None]
            self.hand_out_gradients()

    def hand_out_gradients(self) -> None:
        """Let the gradient of each student be its part of the stack's."""
        for together, parts in self._parts:
            if together.grad is not None:
                for part, gradient in zip(parts, together.grad.unbind(), strict=True):
                    part.grad = gradient

    def check(self, task: Task, batch: Batch) -> None:
        """Raise `UnlikeError` unless students say the same of a batch together and alone.

        In training too, where they draw the same random numbers. Nothing is left changed.
        """
        # Students begin alike: of those one could say what another should, and would not be seen.
        before = [together.detach().clone() for together, _ in self._parts]
        for number, (_, parts) in enumerate(self._parts):
            for student, part in enumerate(parts):
                part.data.mul_(1 + _APART * ((student + number) % len(parts)))
        try:
            self._compare(task, batch)
        finally:
            for (together, _), values in zip(self._parts, before, strict=True):
                together.data.copy_(values)

    def _compare(self, task: Task, batch: Batch) -> None:
        device = batch.labels.device
        devices = [device] if device.type == "cuda" else []
        for training in (False, True):
            for model in (self.model, *self._students):
                model.train(training)
            with torch.random.fork_rng(devices), torch.no_grad():
                before = _random_state(device)
                together, after = self.outputs(task, batch), _random_state(device)
                _set_random_state(device, before)
                alone = self._alone(task, batch)
                drawn = torch.equal(after, _random_state(device))
            if not (drawn and alike([alone], [together], ROUNDING)):
                raise UnlikeError(f"{type(self._students[0]).__name__}: says something else")

    def _alone(self, task: Task, batch: Batch) -> Tensor:
        state = _random_state(batch.labels.device)
        said = []
        for student in self._students:
            _set_random_state(batch.labels.device, state)
            said.append(task.outputs(student, batch))
        return torch.stack(said)


def _swap(module: nn.Module, stacked: dict[int, nn.Parameter], shared: Pass) -> None:
    kind = MODULES.get(type(module))
    if kind is None and module._parameters:
        raise UnlikeError(f"{type(module).__name__} has weights")
    for name, parameter in module._parameters.items():
        module._parameters[name] = None if parameter is None else stacked[id(parameter)]
    if kind is not None:
        module.__class__ = kind
    module.together = shared  # type: ignore[assignment]


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat(times, *(1,) * (values.dim() - 1))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
