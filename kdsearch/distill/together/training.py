"""The training loop of several students at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.optim import AdamW

from kdsearch.distill.evaluation import Evaluation, autocast
from kdsearch.distill.together.optimizer import Steps
from kdsearch.distill.together.stack import Stack
from kdsearch.distill.training import Checkpoints, History, TrainingState, batches
from kdsearch.tasks import Encoded, Task


class Together:
    """Trainings on their way in one pass. The model of each is a part of a stack from now on."""

    def __init__(self, states: Sequence[TrainingState], task: Task) -> None:
        """Of students of one model, data and settings. Raises `UnlikeError`."""
        self.states, self.task = states, task
        self.stack = Stack([state.model for state in states])
        self._steps: list[Steps] = []

    def begin(self, epoch: int) -> None:
        """See `TrainingState`."""
        self.stack.model.train()
        for state in self.states:
            state.begin(epoch)
        self.stack.hand_out_gradients()  # which the last epoch's end took away

    def step(self, indices: Tensor, epoch: int) -> None:
        """Have each learn from the examples `indices`; no student's loss moves another."""
        first = self.states[0]
        batch = first.examples.batch(indices, epoch)
        with autocast(batch.labels.device, first.settings.precision):
            values_KRW = self.stack.outputs(self.task, batch)
            losses = [
                state.loss(values_RW, batch, epoch)
                for state, values_RW in zip(self.states, values_KRW.unbind(), strict=True)
            ]
        self.stack.backward(torch.stack(losses).sum())
        if not self._steps:
            optimizers = [state.optimizer for state in self.states]
            self._steps = [Steps(each) for each in optimizers if isinstance(each, AdamW)]
        for number, (state, loss) in enumerate(zip(self.states, losses, strict=True)):
            state.learn(loss, len(indices), self._steps[number].take if self._steps else None)

    def save(self, checkpoints: Sequence[Checkpoints]) -> None:
        """Write a checkpoint of each if it is time."""
        if checkpoints[0].due:
            for steps in self._steps:
                steps.note()
            for each, state in zip(checkpoints, self.states, strict=True):
                each.save(state.done, state.snapshot())


def train_together(
    states: Sequence[TrainingState],
    task: Task,
    validates: Sequence[Callable[[], Evaluation]],
    *,
    seed: int,
    checkpoints: Sequence[Checkpoints],
) -> list[History]:
    """Train students that learn from the same batches; see `train`, to which each is equal.

    They go on from checkpoints where each has one, behind the same number of steps: `train` has
    written it, or this. Raises `UnlikeError`.
    """
    first, every = states[0], Together(states, task)
    examples, settings = first.examples, first.settings
    every.stack.check(task, examples.batch(_compared(examples, settings.batch_size)))
    resumed = [each.load() for each in checkpoints]
    if len({found and found[0] for found in resumed}) == 1:
        for state, found in zip(states, resumed, strict=True):
            if found is not None:
                state.restore(*found)
    for number in range(1 + first.done // first.steps_per_epoch, settings.epochs + 1):
        if all(state.ended for state in states):
            break
        every.begin(number)
        order = batches(examples.lengths, settings.batch_size, seed, number)
        for indices in islice(order, first.steps_of(number), None):
            every.step(indices, number)
            if first.steps_of(number) < first.steps_per_epoch:
                every.save(checkpoints)
        for state, validate in zip(states, validates, strict=True):
            train_loss = state.end()
            if not state.ended:
                state.conclude(train_loss, validate())
        if number < settings.epochs:
            every.save(checkpoints)
    return [state.finish() for state in states]


def _compared(examples: Encoded, size: int) -> Tensor:
    """The numbers of the shortest and the longest example, and of so many more.

    What padding does shows where it is long.
    """
    by_length = examples.lengths.argsort(stable=True)
    return torch.cat([by_length[[0, -1]], torch.arange(min(len(examples), size))])
