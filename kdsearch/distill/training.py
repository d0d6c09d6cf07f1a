"""The training loop, the same for teachers and students."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint

from kdsearch.agenda import DataSpec, Epoch
from kdsearch.distill.batch_loss import BatchLoss, batch_loss
from kdsearch.search import Labels, ValidationScore
from kdsearch.study import TrainingSettings
from kdsearch.tasks import IGNORED, Batch, Encoded, Settings, Task

State = dict[str, Tensor]

_BATCHES_PER_GROUP = 50
_EVALUATION_FACTOR = 4  # no gradients are held, so that more examples fit


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
    diverged: bool = False


def train(
    model: nn.Module,
    task: Task,
    tokenizer: Any,
    data: DataSpec,
    examples: Encoded,
    validation: Encoded,
    loss_of: BatchLoss,
    *,
    settings: TrainingSettings,
    learning_rate: float,
    seed: int,
    keep_lowest_loss: bool = False,
    parts: int = 1,
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train `model` in place with AdamW, scoring it on `validation` after each epoch.

    A loss that is not finite ends the training: it diverged, and has no score. With `parts`, the
    gradient of a batch is accumulated over that many parts of it: the same gradient, in less
    memory and more time. A training that has `checkpoints` goes on from the last of them, as if it
    had never been interrupted.
    """
    device = examples.labels.device
    optimizer = _optimizer(model, settings, learning_rate)
    steps = settings.epochs * math.ceil(len(examples) / settings.batch_size)
    schedule = LambdaLR(optimizer, _schedule(settings, steps))
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    history = History()
    total = torch.zeros((), device=device)
    moving = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    resumed = checkpoints.load() if checkpoints is not None else None
    done = 0
    if resumed is not None:
        done = _restore(resumed, moving, history, total)
    steps_per_epoch = math.ceil(len(examples) / settings.batch_size)
    for number in range(1 + done // steps_per_epoch, settings.epochs + 1):
        model.train()
        behind = max(0, done - (number - 1) * steps_per_epoch)
        if behind == 0:
            total.zero_()
        order = batches(examples.lengths, settings.batch_size, seed, number)
        for step, indices in enumerate(islice(order, behind, None), behind + 1):
            batch = examples.batch(indices)
            with autocast(device, settings.precision):
                loss = loss_of(_outputs(model, task, examples, indices, parts), batch, number)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if settings.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            total += loss.detach() * len(indices)
            if checkpoints is not None and checkpoints.due and step < steps_per_epoch:
                taken = (number - 1) * steps_per_epoch + step
                checkpoints.save(taken, _snapshot(moving, history, total))
        optimizer.zero_grad(set_to_none=True)  # their memory is of use to the evaluation
        train_loss = float(total) / len(examples)
        scored = evaluate(model, task, tokenizer, validation, data, settings, parts=parts)
        epoch = _epoch(number, train_loss, scored)
        history.epochs.append(epoch)
        if epoch.train_loss is None or epoch.validation_loss is None:
            history.diverged = True
            return history
        _keep(history, epoch, model, keep_lowest_loss)
        if checkpoints is not None and checkpoints.due and number < settings.epochs:
            checkpoints.save(number * steps_per_epoch, _snapshot(moving, history, total))
    return history


def _outputs(
    model: nn.Module, task: Task, examples: Encoded, indices: Tensor, parts: int
) -> Tensor:
    """What the model says of a batch, [R, W], of which only one part's activations are held."""
    if parts == 1:
        return task.outputs(model, examples.batch(indices))
    outputs: list[Tensor] = [
        checkpoint(task.outputs, model, examples.batch(part), use_reentrant=False)
        for part in indices.chunk(parts)
    ]
    return torch.cat(outputs)


def _snapshot(moving: Mapping[str, Any], history: History, total: Tensor) -> dict[str, Any]:
    """All that a training goes on from; tensors, numbers and texts only."""
    return {
        "moving": {name: part.state_dict() for name, part in moving.items()},
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if total.is_cuda else [],
        "total": total,
        "epochs": [epoch.model_dump() for epoch in history.epochs],
        "best": _plain(history.best),
        "lowest_loss": _plain(history.lowest_loss),
    }


def _restore(
    found: tuple[int, dict[str, Any]], moving: Mapping[str, Any], history: History, total: Tensor
) -> int:
    """Go on from a `_snapshot`: how many steps are done."""
    done, state = found
    for name, part in moving.items():
        part.load_state_dict(state["moving"][name])
    torch.set_rng_state(state["random"])
    if total.is_cuda:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    total.copy_(state["total"])
    history.epochs = [Epoch.model_validate(epoch) for epoch in state["epochs"]]
    history.best, history.lowest_loss = map(_parsed, (state["best"], state["lowest_loss"]))
    return done


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
    groups = order.split(size * _BATCHES_PER_GROUP)
    sorted_groups = [group[lengths[group].argsort(stable=True)] for group in groups]
    every = [batch for group in sorted_groups for batch in group.split(size)]
    for position in torch.randperm(len(every), generator=generator).tolist():
        yield every[position]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model is worth on a split."""

    score: float | None
    """None where its loss is not finite."""
    loss: float
    """Cross-entropy on the labels, the mean over the units that have one."""
    examples_per_second: float
    """Rows over the time from the first batch to the last prediction, decoding included."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    tokenizer: Any,
    examples: Encoded,
    data: DataSpec,
    settings: Settings,
    *,
    order: Sequence[int] = (),
    parts: int = 1,
) -> Evaluation:
    """Score a model on a split whose rows all have labels; `order`, `parts`: see `predict`."""
    started = time.perf_counter()
    device = examples.labels.device
    loss_of = batch_loss(task, model, Labels())
    predictions: list[Any] = [None] * len(examples)
    total, units = torch.zeros((), dtype=torch.float64, device=device), 0
    for indices, batch, values in predict(
        model, task, examples, settings, order=order, parts=parts
    ):
        labelled = int((task.labels(batch) != IGNORED).sum())
        with autocast(device, settings.precision):
            loss = loss_of(values, batch)
            decoded = task.decode(model, tokenizer, batch, values, data, settings)
        total += loss.double() * labelled
        units += labelled
        for index, prediction in zip(indices.tolist(), decoded, strict=True):
            predictions[index] = prediction
    mean = float(total) / max(1, units)
    speed = len(examples.references) / (time.perf_counter() - started)
    score = task.score(predictions, examples.references, data) if math.isfinite(mean) else None
    return Evaluation(score=score, loss=mean, examples_per_second=round(speed, 1))


@torch.no_grad()
def predict(
    model: nn.Module,
    task: Task,
    examples: Encoded,
    settings: Settings,
    *,
    order: Sequence[int] = (),
    parts: int = 1,
) -> Iterator[tuple[Tensor, Batch, Tensor]]:
    """What the model says of every example, those of similar length together.

    Gives the numbers of some examples, their batch and its rows [R, W]. `order` are the numbers
    that the data's labels have in the model, where it has them in another order. With `parts`,
    so many times fewer examples are held at once.
    """
    model.eval()
    device = examples.labels.device
    # Beams multiply what a batch takes. Groups keep the order roughly, for rows written to a disk.
    size = max(1, settings.batch_size * _EVALUATION_FACTOR // ((settings.beams or 1) * parts))
    groups = torch.arange(len(examples)).split(size * _BATCHES_PER_GROUP)
    by_length = torch.cat([group[examples.lengths[group].argsort(stable=True)] for group in groups])
    for indices in by_length.split(size):
        batch = examples.batch(indices)
        with autocast(device, settings.precision):
            values = task.outputs(model, batch)
        yield indices, batch, values[:, list(order)] if order else values


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision, unless `precision` is fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def _optimizer(
    model: nn.Module, settings: TrainingSettings, learning_rate: float
) -> torch.optim.AdamW:
    """AdamW; biases and norms (everything of one dimension) do not decay, as is usual."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=learning_rate,
        betas=settings.adam.betas,
        eps=settings.adam.epsilon,
        weight_decay=settings.adam.weight_decay,
    )


def _schedule(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step."""
    warmup = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        rest = (step - warmup) / max(1, steps - warmup)
        if settings.schedule == "linear":
            return max(0.0, 1 - rest)
        if settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
        return 1.0

    return factor


def _epoch(number: int, train_loss: float, scored: Evaluation) -> Epoch:
    finite = math.isfinite(train_loss) and scored.score is not None
    return Epoch(
        epoch=number,
        train_loss=train_loss if math.isfinite(train_loss) else None,
        validation=ValidationScore(scored.score) if finite and scored.score is not None else None,
        validation_loss=scored.loss if math.isfinite(scored.loss) else None,
    )


def _keep(history: History, epoch: Epoch, model: nn.Module, keep_lowest_loss: bool) -> None:
    better = history.best is None or _score(epoch) > _score(history.best[0])
    lower = keep_lowest_loss and (
        history.lowest_loss is None or _loss(epoch) < _loss(history.lowest_loss[0])
    )
    if better or lower:
        state = {name: value.cpu().clone() for name, value in model.state_dict().items()}
        if better:
            history.best = (epoch, state)
        if lower:
            history.lowest_loss = (epoch, state)


def _score(epoch: Epoch) -> float:
    assert epoch.validation is not None
    return epoch.validation


def _loss(epoch: Epoch) -> float:
    assert epoch.validation_loss is not None
    return epoch.validation_loss
