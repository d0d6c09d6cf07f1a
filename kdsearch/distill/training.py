"""The training loop, the same for teachers and students."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint

from kdsearch.agenda import Epoch, TrainingCurve
from kdsearch.distill.batch_loss import BatchLoss
from kdsearch.distill.curve import EntropyCurve
from kdsearch.distill.embedding import rows_in_use
from kdsearch.distill.evaluation import BATCHES_PER_GROUP, Evaluation, autocast
from kdsearch.distill.learnt_temperature import LearntTemperature
from kdsearch.distill.optimizer import clip_gradients, optimizer_of, schedule_of
from kdsearch.distill.terms import Terms
from kdsearch.search import ValidationScore
from kdsearch.study import TrainingSettings
from kdsearch.tasks import Batch, Encoded, Task

State = dict[str, Tensor]


class Checkpoints(Protocol):
    """Where a training saves how far it is."""

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""

    def save(self, steps: int, state: dict[str, Any]) -> None:
        """Keep the state after `steps` steps, in place of an older one."""

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The steps and the state to go on from, if there is one."""


@dataclass(kw_only=True)
class History:
    """What a training went through, and the weights of the epochs worth keeping."""

    epochs: list[Epoch] = field(default_factory=list)
    best: tuple[Epoch, State] | None = None
    """The epoch of the highest validation score; the earlier one of equals."""
    lowest_loss: tuple[Epoch, State] | None = None
    named: dict[int, State] = field(default_factory=dict)
    """Those that were asked for by their numbers."""
    diverged: bool = False
    curve: TrainingCurve | None = None
    """None before the end."""
    smoothing: float | None = None
    """Of labels that are learnt in a teacher's place: see `distill.supervision`."""


class TrainingState:
    """A training on its way: what each step moves, and all that it goes on from elsewhere."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        examples: Encoded,
        loss_of: BatchLoss,
        settings: TrainingSettings,
        *,
        learning_rate: float,
        parts: int = 1,
        evaluated_on: Sequence[Encoded] | None = None,
        terms: Terms | None = None,
        temperature: LearntTemperature | None = None,
    ) -> None:
        """`model` is trained in place on `examples`; `terms` are added to the loss.

        `temperature` is what its objective learns of itself, if anything.

        With `parts`, the gradient of a batch is accumulated over that many parts of it: the same
        gradient, in less memory and more time. `evaluated_on` is all that the model is evaluated on
        before `finish`; where that is told, the model is until then without the rows of its input
        embedding that no example uses: see `rows_in_use`.
        """
        self.model, self.examples, self.settings = model, examples, settings
        self.steps_per_epoch = steps_per_epoch(examples, settings)
        self.done = 0
        """How many steps are taken."""
        self.history = History()
        self._task, self._loss_of, self._parts = task, loss_of, parts
        self._device = examples.labels.device
        self._rows = None
        if evaluated_on is not None:
            self._rows = rows_in_use(model, task, (examples, *evaluated_on))
        self._terms, self._temperature = terms, temperature
        more = () if terms is None else (terms,)
        self._learnt = (model, *more)
        self.optimizer = optimizer_of(model, settings, learning_rate, *more)
        steps = settings.epochs * self.steps_per_epoch
        self._schedule = LambdaLR(self.optimizer, schedule_of(settings, steps))
        enabled = settings.precision == "fp16"
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=enabled)
        self.total = torch.zeros((), device=self._device)
        """Of the epoch so far: the sum of its examples' losses, on the device."""
        self._curve = EntropyCurve(steps, self._device)

    @property
    def _moving(self) -> dict[str, Any]:
        terms = {} if self._terms is None else {"terms": self._terms}
        temperature = {} if self._temperature is None else self._temperature.moving
        return {
            **terms,
            **temperature,
            "optimizer": self.optimizer,
            "schedule": self._schedule,
            "scaler": self._scaler,
        }

    def steps_of(self, epoch: int) -> int:
        """How many of an epoch's steps are taken, of one that is next or under way."""
        return self.done - (epoch - 1) * self.steps_per_epoch

    def begin(self, epoch: int) -> None:
        """Go on with an epoch, or begin it."""
        self.model.train()
        if self.steps_of(epoch) == 0:
            self.total.zero_()

    def step(self, indices: Tensor, epoch: int) -> None:
        """Learn from the examples `indices`."""
        batch = self.examples.batch(indices, epoch)
        with autocast(self._device, self.settings.precision):
            values_RW, added = self._said(indices, batch, epoch)
            loss = self.loss(values_RW, batch, epoch)
            if added is not None:
                loss = loss + added
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self.learn(loss, len(indices))

    def _said(self, indices: Tensor, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """What the model says of a batch, [R, W], and what terms add to its loss.

        Of several parts, only one's activations are held.
        """

        def said(part: Tensor, of_part: Batch | None = None) -> tuple[Tensor, Tensor | None]:
            of_part = of_part or self.examples.batch(part, epoch)
            run = partial(self._task.outputs, self.model, of_part)
            if self._terms is None:
                return run(), None
            return self._terms.added(self.model, run, part, indices)

        if self._parts == 1:
            return said(indices, batch)
        parts = indices.chunk(self._parts)
        found = [checkpoint(said, part, use_reentrant=False) for part in parts]
        added = [each for _, each in found if each is not None]
        views = max(1, len(self.examples.views))
        of_views = zip(*(values.chunk(views) for values, _ in found), strict=True)
        outputs = torch.cat([values for of_view in of_views for values in of_view])
        return outputs, torch.stack(added).sum() if added else None

    def loss(self, values_RW: Tensor, batch: Batch, epoch: int) -> Tensor:
        """Of what the model said of a batch, [R, W]."""
        return self._loss_of(values_RW, batch, epoch, partial(self._curve.add, self.done))

    def learn(self, loss: Tensor, examples: int, take: Callable[[], object] | None = None) -> None:
        """Move the weights by the gradient of the loss of so many examples.

        `take` does it in place of the optimizer's own step.
        """
        if self.settings.clip is not None:
            self._scaler.unscale_(self.optimizer)
            learnt = [p for module in self._learnt for p in module.parameters()]
            clip_gradients(learnt, self.settings.clip, per_layer=self.settings.clip_per == "layer")
        if take is not None:
            take()
        else:
            self._scaler.step(self.optimizer)
        if self._temperature is not None:
            self._temperature.learn(self._scaler)
        if take is None:
            self._scaler.update()
        self._schedule.step()
        self.total += loss.detach() * examples
        self.done += 1

    def end(self) -> float:
        """End an epoch: the mean of its loss over the examples."""
        self.optimizer.zero_grad(set_to_none=True)  # their memory is of use to the evaluation
        return float(self.total) / len(self.examples)

    @property
    def ended(self) -> bool:
        """Whether its last epoch had a loss that is not finite: no epoch follows."""
        last = self.history.epochs[-1:]
        return any(epoch.train_loss is None or epoch.validation_loss is None for epoch in last)

    def conclude(
        self,
        train_loss: float,
        scored: Evaluation,
        *,
        keep_lowest_loss: bool = False,
        keep_epochs: Collection[int] = (),
    ) -> None:
        """Write an epoch down, and keep its weights if they are worth it or it is one to keep."""
        history, stops = self.history, self.settings.stops
        number = len(history.epochs) + 1
        learnt_temperature = None if self._temperature is None else self._temperature.value
        history.epochs.append(_epoch(number, train_loss, scored, learnt_temperature))
        if self.ended:
            history.diverged = stops is None or history.best is None
        elif stops is None or number in stops:
            _keep(history, history.epochs[-1], self.model, keep_lowest_loss, keep_epochs)

    def finish(self) -> History:
        """What the training went through. Its model is whole again, and so are the weights kept."""
        history = self.history
        history.curve = self._curve.points()
        if self._rows is not None:
            history.best = self._whole(history.best)
            history.lowest_loss = self._whole(history.lowest_loss)
            history.named = {n: self._rows.whole(state) for n, state in history.named.items()}
            self._rows.put_back()
        return history

    def _whole(self, kept: tuple[Epoch, State] | None) -> tuple[Epoch, State] | None:
        assert self._rows is not None
        return None if kept is None else (kept[0], self._rows.whole(kept[1]))

    def snapshot(self) -> dict[str, Any]:
        """All that a training goes on from; tensors, numbers and texts only."""
        return {
            "model": learnt(self.model),
            "moving": {name: part.state_dict() for name, part in self._moving.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.total.is_cuda else [],
            "total": self.total,
            "curve": self._curve.sums,
            "epochs": [epoch.model_dump() for epoch in self.history.epochs],
            "best": _plain(self.history.best),
            "lowest_loss": _plain(self.history.lowest_loss),
            "named": self.history.named,
        }

    def restore(self, done: int, state: dict[str, Any]) -> None:
        """Go on from the `snapshot` after `done` steps."""
        self.done = done
        # Snapshots of earlier versions have the model among what moves.
        put_back(self.model, state["model"] if "model" in state else state["moving"]["model"])
        for name, part in self._moving.items():
            part.load_state_dict(state["moving"][name])
        torch.set_rng_state(state["random"])
        if self.total.is_cuda:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.total.copy_(state["total"])
        if "curve" in state:  # snapshots of earlier versions have none: it begins here
            self._curve.sums.copy_(state["curve"])
        history = self.history
        history.epochs = [Epoch.model_validate(epoch) for epoch in state["epochs"]]
        history.best, history.lowest_loss = map(_parsed, (state["best"], state["lowest_loss"]))
        history.named = state.get("named", {})  # which those of earlier versions do not have


def train(
    state: TrainingState,
    validate: Callable[[], Evaluation],
    *,
    seed: int,
    keep_lowest_loss: bool = False,
    keep_epochs: Collection[int] = (),
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train from `state` to the last epoch, each of which `validate` scores.

    A loss that is not finite ends the training: it diverged, and has no score, unless it passed one
    of the settings' `stops` before. A training that has `checkpoints` goes on from the last of
    them, as if it had never been interrupted.
    """
    examples, settings = state.examples, state.settings
    resumed = checkpoints.load() if checkpoints is not None else None
    if resumed is not None:
        state.restore(*resumed)
    for number in range(1 + state.done // state.steps_per_epoch, settings.epochs + 1):
        if state.ended:
            break
        state.begin(number)
        order = batches(examples.lengths, settings.batch_size, seed, number)
        for indices in islice(order, state.steps_of(number), None):
            state.step(indices, number)
            within = state.steps_of(number) < state.steps_per_epoch
            if checkpoints is not None and checkpoints.due and within:
                checkpoints.save(state.done, state.snapshot())
        state.conclude(
            *(state.end(), validate()), keep_lowest_loss=keep_lowest_loss, keep_epochs=keep_epochs
        )
        if checkpoints is not None and checkpoints.due and number < settings.epochs:
            checkpoints.save(state.done, state.snapshot())
    return state.finish()


def steps_per_epoch(examples: Encoded, settings: TrainingSettings) -> int:
    """How many batches the examples are."""
    return math.ceil(len(examples) / settings.batch_size)


def learnt(model: nn.Module) -> State:
    """The weights of a model that learn, and its buffers: all else is as it was built."""
    return {
        name: value.detach()
        for name, value in model.state_dict(keep_vars=True).items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


def put_back(model: nn.Module, state: State) -> None:
    """Give a model, built as that one was, the weights that `learnt` found."""
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown, unknown


def _plain(kept: tuple[Epoch, State] | None) -> tuple[dict[str, Any], State] | None:
    return None if kept is None else (kept[0].model_dump(), kept[1])


def _parsed(kept: tuple[dict[str, Any], State] | None) -> tuple[Epoch, State] | None:
    return None if kept is None else (Epoch.model_validate(kept[0]), kept[1])


def batches(lengths: Tensor, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The examples of an epoch in random batches whose members are of similar length.

    The order depends on the seed and the epoch alone, so that a training could go on from any
    epoch. Every example comes exactly once.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator)
    groups = order.split(size * BATCHES_PER_GROUP)
    sorted_groups = [group[lengths[group].argsort(stable=True)] for group in groups]
    every = [batch for group in sorted_groups for batch in group.split(size)]
    for position in torch.randperm(len(every), generator=generator).tolist():
        yield every[position]


def _epoch(
    number: int, train_loss: float, scored: Evaluation, learnt_temperature: float | None
) -> Epoch:
    finite = math.isfinite(train_loss) and scored.score is not None
    return Epoch(
        epoch=number,
        train_loss=train_loss if math.isfinite(train_loss) else None,
        validation=ValidationScore(scored.score) if finite and scored.score is not None else None,
        validation_loss=scored.loss if math.isfinite(scored.loss) else None,
        measures=scored.measures,
        learnt_temperature=learnt_temperature,
    )


def _keep(
    history: History,
    epoch: Epoch,
    model: nn.Module,
    keep_lowest_loss: bool,
    keep_epochs: Collection[int],
) -> None:
    better = history.best is None or _score(epoch) > _score(history.best[0])
    lower = keep_lowest_loss and (
        history.lowest_loss is None or _loss(epoch) < _loss(history.lowest_loss[0])
    )
    named = epoch.epoch in keep_epochs
    if better or lower or named:
        state = {name: value.cpu().clone() for name, value in learnt(model).items()}
        if better:
            history.best = (epoch, state)
        if lower:
            history.lowest_loss = (epoch, state)
        if named:
            history.named[epoch.epoch] = state


def _score(epoch: Epoch) -> float:
    assert epoch.validation is not None
    return epoch.validation


def _loss(epoch: Epoch) -> float:
    assert epoch.validation_loss is not None
    return epoch.validation_loss
