"""What a model says of a split, and how well."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdsearch.agenda import DataSpec, Softmax
from kdsearch.distill.batch_loss import TeacherOutputs, batch_loss, units_of
from kdsearch.distill.layers import text_config
from kdsearch.distill.measures import Tally
from kdsearch.distill.softmax import SoftmaxTally
from kdsearch.search import Labels
from kdsearch.tasks import GENERATING, IGNORED, Batch, Encoded, Settings, Task

BATCHES_PER_GROUP = 50
"""Of so many batches the examples are sorted by length."""
_EVALUATION_FACTOR = 4  # no gradients are held, so that more examples fit
_OF_TEXTS = GENERATING | {"bleu", "chrf"}
"""The metrics of what a model writes: it writes once for all of them."""
_CPU_NUMBERS = 2**20
"""Of a batch that is evaluated on a CPU, the hidden states of one layer: fewer are overhead, and
more leave its caches."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model is worth on a split."""

    score: float | None
    """None where its loss is not finite."""
    loss: float
    """Cross-entropy on the labels, the mean over the units that have one."""
    measures: dict[str, float]
    """By name; see `measures`."""
    softmax: tuple[Softmax, ...]
    """At the temperatures that were asked for; nothing where classes are many, or vary."""
    predictions: Sequence[Any]
    """Of each example, as `Task.decode` has them."""
    examples_per_second: float | None
    """Examples over the time that their batches took, from inputs to predictions: what is done
    with these for scores and measures is not of the model's. None of a pass that was not timed."""


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
    teacher: TeacherOutputs | None = None,
    also: Sequence[str] = (),
    timed: bool = False,
    cold: bool = False,
    temperatures: Sequence[float] = (),
) -> Evaluation:
    """Score and measure a model on a split whose examples all have labels.

    `teacher` are a teacher's outputs there; `also` are further metrics, whose scores are measures.
    Of a model that is `cold`, as a teacher often is that a process begins with, a batch is run
    before, so that the time is not that of first steps. A pass that is not `timed` does not wait
    for the device at every batch. `order` and `parts`: see `predict`. The softmax is
    measured at `temperatures`.
    """
    device = examples.labels.device

    def predicted() -> Iterator[tuple[Tensor, Batch, Tensor, Sequence[Any]]]:
        passes = predict(model, task, examples, settings, order=order, parts=parts)
        for indices, batch, values in passes:
            with autocast(device, settings.precision):
                decoded = task.decode(model, tokenizer, batch, values, data, settings)
            yield indices, batch, values, decoded

    if cold:
        next(predicted())
    loss_of = batch_loss(task, model, Labels())
    predictions = _Predictions(task, data, len(examples), also)
    total, units = torch.zeros((), dtype=torch.float64, device=device), 0
    tally, softmax = Tally(), SoftmaxTally(temperatures)
    seconds, started = 0.0, _now(device, timed=timed)
    for indices, batch, values, decoded in predicted():
        seconds += _now(device, timed=timed) - started
        labelled = int((task.labels(batch) != IGNORED).sum())
        with autocast(device, settings.precision):
            loss = loss_of(values, batch)
            decode = partial(task.decode, model, tokenizer, batch, values, settings=settings)
            predictions.add(indices, decoded, decode)
        found = units_of(task, model, values, batch, teacher)
        tally.add(softmax.watching(found) if temperatures and not task.wide else found)
        total += loss.double() * labelled
        units += labelled
        started = _now(device, timed=timed)
    mean = float(total) / max(1, units)
    scores = predictions.scores(examples.references) if math.isfinite(mean) else None
    return Evaluation(
        score=scores.pop(data.metric) if scores is not None else None,
        loss=mean,
        measures=tally.values() | scores if scores is not None else {},
        softmax=softmax.values() if scores is not None else (),
        predictions=predictions.of(data.metric),
        examples_per_second=round(len(examples.references) / seconds, 1) if timed else None,
    )


class _Predictions:
    """What a model makes of each example, for the metric of the data and for further ones."""

    def __init__(self, task: Task, data: DataSpec, examples: int, also: Sequence[str]) -> None:
        self._task, self._own = task, data.metric
        further = {metric: data.model_copy(update={"metric": metric}) for metric in also}
        self._data = {data.metric: data, **further}
        self._made: dict[str, list[Any]] = {metric: [None] * examples for metric in self._data}

    def add(
        self, indices: Tensor, decoded: Sequence[Any], decode: Callable[..., Sequence[Any]]
    ) -> None:
        """Take in some examples as `decoded` for the data's metric; `decode` makes the others."""
        texts = None
        for metric, data in self._data.items():
            written = metric in _OF_TEXTS
            found = decoded if metric == self._own else texts if written else None
            if found is None:
                found = decode(data=data)
            texts = found if written else texts
            for index, prediction in zip(indices.tolist(), found, strict=True):
                self._made[metric][index] = prediction

    def of(self, metric: str) -> Sequence[Any]:
        """Those of all examples for a metric."""
        return self._made[metric]

    def scores(self, references: Sequence[Any]) -> dict[str, float]:
        """By metric."""
        return {
            metric: self._task.score(self._made[metric], references, data)
            for metric, data in self._data.items()
        }


def _now(device: torch.device, *, timed: bool) -> float:
    """In seconds; where it is `timed`, once the device has done what it was given."""
    if timed and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def predict(
    model: nn.Module,
    task: Task,
    examples: Encoded,
    settings: Settings,
    *,
    order: Sequence[int] = (),
    parts: int = 1,
    epoch: int = 1,
) -> Iterator[tuple[Tensor, Batch, Tensor]]:
    """What the model says of every example, those of similar length together.

    Gives the numbers of some examples, their batch and its rows [R, W]. `order` are the numbers
    that the data's labels have in the model, where it has them in another order. With `parts`,
    so many times fewer examples are held at once. What is in views is seen as in an `epoch`.
    """
    model.eval()
    device = examples.labels.device
    for indices in predicted_together(model, examples, settings, parts):
        batch = examples.batch(indices, epoch)
        with autocast(device, settings.precision):
            values = task.outputs(model, batch)
        yield indices, batch, values[:, list(order)] if order else values


def predicted_together(
    model: nn.Module, examples: Encoded, settings: Settings, parts: int
) -> Iterator[Tensor]:
    """The numbers of the examples that a model passes at once, where it does not learn."""
    on_cpu = examples.labels.device.type == "cpu"
    tokens = _CPU_NUMBERS // _width(model) if on_cpu else None
    yield from passes(examples.lengths, settings, parts, tokens)


def passes(lengths: Tensor, settings: Settings, parts: int, tokens: int | None) -> Iterator[Tensor]:
    """The numbers of the examples of each batch of an evaluation, by the tokens that each has.

    So many `tokens` at once, with padding; without a limit, as many examples as a GPU has room for.
    """
    # Beams multiply what a batch takes. Groups keep the order roughly, for rows written to a disk.
    share = (settings.beams or 1) * parts
    size = max(1, settings.batch_size * _EVALUATION_FACTOR // share)
    for group in torch.arange(len(lengths)).split(size * BATCHES_PER_GROUP):
        by_length = group[lengths[group].argsort(stable=True)]
        if tokens is None:
            yield from by_length.split(size)
            continue
        first = 0
        for end, length in enumerate(lengths[by_length].tolist()):
            if end > first and (end + 1 - first) * length * share > tokens:
                yield by_length[first:end]
                first = end
        yield by_length[first:]


def _width(model: Any) -> int:
    """How many numbers a hidden state has, or about so many."""
    config = getattr(model, "config", None)
    return int(getattr(config and text_config(config), "hidden_size", 768))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision, unless `precision` is fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
