"""The training loop of several students at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor

from kdsearch.distill.evaluation import Evaluation, autocast
from kdsearch.distill.together.stack import Stack
from kdsearch.distill.training import Checkpoints, History, TrainingState, batches
from kdsearch.tasks import Task


def train_together(
    states: Sequence[TrainingState],
    task: Task,
    validates: Sequence[Callable[[], Evaluation]],
    *,
    seed: int,
    checkpoints: Sequence[Checkpoints],
) -> list[History]:
    """Train students that learn from the same batches; see `train`, which each is equal to.

    Their models become parts of one stack. They go on from checkpoints where each has one, behind
    the same number of steps, that either function wrote. Raises `UnlikeError`.
    """
    first = states[0]
    examples, settings = first.examples, first.settings
    stack = Stack([state.model for state in states])
    stack.check(task, examples.batch(torch.arange(min(len(examples), settings.batch_size))))
    resumed = [each.load() for each in checkpoints]
    if len({found and found[0] for found in resumed}) == 1:
        for state, found in zip(states, resumed, strict=True):
            if found is not None:
                state.restore(*found)
    for number in range(1 + first.done // first.steps_per_epoch, settings.epochs + 1):
        if all(state.ended for state in states):
            break
        stack.model.train()
        for state in states:
            state.begin(number)
        order = batches(examples.lengths, settings.batch_size, seed, number)
        for indices in islice(order, first.steps_of(number), None):
            _step(stack, states, task, indices, number)
            if first.steps_of(number) < first.steps_per_epoch:
                _save(checkpoints, states)
        for state, validate in zip(states, validates, strict=True):
            train_loss = state.end()
            if not state.ended:
                state.conclude(train_loss, validate())
        if number < settings.epochs:
            _save(checkpoints, states)
    return [state.finish() for state in states]


def _step(
    stack: Stack, states: Sequence[TrainingState], task: Task, indices: Tensor, epoch: int
) -> None:
    """Have each student learn from the examples `indices`; no student's loss moves another."""
    first = states[0]
    batch = first.examples.batch(indices)
    with autocast(batch.labels.device, first.settings.precision):
        values_KRW = stack.outputs(task, batch)
        losses = [
            state.loss(values_RW, batch, epoch)
            for state, values_RW in zip(states, values_KRW, strict=True)
        ]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    stack.hand_out_gradients()
    for state, loss in zip(states, losses, strict=True):
        state.learn(loss, len(indices))


def _save(checkpoints: Sequence[Checkpoints], states: Sequence[TrainingState]) -> None:
    if checkpoints[0].due:
        for each, state in zip(checkpoints, states, strict=True):
            each.save(state.done, state.snapshot())
