"""The contract of a task: all that differs between kinds of data, in one short file each.

A model reads *examples*: sentences, pairs of them, windows of a context. What is distilled and
scored are *units*: the examples of classification, the words of ner, the target tokens of
translation, the completions' tokens of lm; of qa two distributions per window. What a model says is
kept as *rows* of outputs, those of an example next to each other: one per unit, but for qa, where a
row is a position of the context. Data has rows too, those of its files: `encode` makes examples of
them.

Shapes: N examples, B of them in a batch, L tokens, T target tokens, R rows of W numbers, U units
with C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdsearch.agenda import DataSpec, ForwardSettings
from kdsearch.study import TrainingSettings
from kdsearch.tasks.views import Views

IGNORED = -100
"""The class number of a unit without a label, as torch's cross-entropy has it."""

PIXELS = "pixel_values"
"""The argument of models that read images."""

_MOST_BYTES = 4 * 10**9
"""Of images that lie on a GPU beside models: more would be a large part of what small ones have."""
_MOST_MADE = 2**30
"""Bytes of views that are kept as they were made."""
_MADE_AT_ONCE = 256
"""Images of a view."""

Settings = TrainingSettings | ForwardSettings


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some examples, as a model takes them."""

    arguments: dict[str, Tensor]
    """By the model's argument names, [B, L]; of images, uint8 [B, 3, S, S]."""
    counted: Tensor
    """[B, L], [B, T] of translation, [B, 1] of classification: the positions that give rows."""
    counts: Tensor
    """[B]: the rows of each example; on the CPU."""
    rows: Tensor
    """[R]: the numbers of these rows among all of the split, of a split in views among those of all
    views, one view after another; on the CPU."""
    labels: Tensor
    """[R] class numbers; of qa [R, 2], 1 where an answer starts and where it ends."""
    targets: Tensor | None
    """[B, T] tokens of the reference translations, IGNORED behind their ends."""
    choices: tuple[Batch, ...] = ()
    """Of lm: the wrong choices, one of each example at a time."""
    classes: int | None = None
    """Of wide outputs, how many of the head's classes there are: what else its table has is padding
    that no token stands for. None for all."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A split as tensors, ready to be indexed: N examples of at most L tokens.

    What says where something is stays on the CPU, so that a GPU need not be waited for.
    """

    inputs: Mapping[str, Tensor]
    """By the model's argument names, [N, L] integers, padded at the end; of images, uint8
    [N, 3, S, S]."""
    lengths: Tensor
    """[N]: how many tokens of each example are no padding; of images, alike for all."""
    counted: Tensor
    """[N, L], [N, T] or [N, 1]; see `Batch`."""
    labels: Tensor
    """[R] or [R, 2]; see `Batch`."""
    references: Sequence[Any]
    """Of each example: what its prediction is scored against. None of the training split."""
    targets: Tensor | None = None
    """[N, T]; see `Batch`."""
    choices: tuple[Encoded, ...] = ()
    """N examples each; see `Batch`. An example with fewer has its last one several times."""
    classes: int | None = None
    """See `Batch`."""
    views: tuple[Views, ...] = ()
    """Of images to learn from: the views that a batch has of each example, one or the weak and the
    strong one; none where each epoch sees the images as they are."""
    made: dict[tuple[Views, int], Tensor] = field(default_factory=dict, compare=False)
    """Whole views as they were made, for later epochs and trainings, as far as there is room."""

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def offsets(self) -> Tensor:
        """[N + 1]: the number of each example's first row, and that of all rows; on the CPU."""
        counts = self.counted.sum(dim=1).cpu()
        return torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device; of many images, these follow batch by batch."""
        there = {
            name: values if name == PIXELS and values.nbytes > _MOST_BYTES else values.to(device)
            for name, values in self.inputs.items()
        }
        return replace(
            self,
            inputs=there,
            counted=self.counted.to(device),
            labels=self.labels.to(device),
            targets=None if self.targets is None else self.targets.to(device),
            choices=tuple(each.to(device) for each in self.choices),
        )

    def batch(self, indices: Tensor, epoch: int = 1) -> Batch:
        """The examples `indices`, on the CPU, no wider than the longest of them.

        In views, as an epoch sees them: of two, the weak ones of all examples first.
        """
        batch = self._batch(indices)
        if not self.views:
            return batch
        return _joined([self._seen(batch, views, indices, epoch) for views in self.views])

    def _seen(self, batch: Batch, views: Views, indices: Tensor, epoch: int) -> Batch:
        """A batch in its view of an epoch. Mixed images have no label."""
        view = (epoch - 1) % len(views)
        images = self._view(views, view, indices)
        labels = batch.labels
        if views.augmentation.mixes:
            labels = torch.full_like(labels, IGNORED)
        return replace(
            batch,
            arguments={**batch.arguments, PIXELS: images},
            rows=batch.rows + view * int(self.offsets[-1]),
            labels=labels,
        )

    def _view(self, views: Views, view: int, indices: Tensor) -> Tensor:
        """Images in a view. Making one takes about as long as a small model does to learn it."""
        images, device = self.inputs[PIXELS], self.labels.device
        if (views, view) not in self.made:
            room = _MOST_MADE // images.nbytes
            if len(self.made) >= room:  # those of other trainings go first
                for other in [each for each in self.made if each[0] not in self.views]:
                    del self.made[other]
            if len(self.made) >= room:
                return views.of(images, indices, view, device)
            every = torch.arange(len(images)).split(_MADE_AT_ONCE)
            made = [views.of(images, some, view, device) for some in every]
            self.made[views, view] = torch.cat(made)
        return self.made[views, view][indices.to(device)]

    def _batch(self, indices: Tensor) -> Batch:
        device = self.labels.device
        there = indices.to(device)
        lengths = self.lengths[indices]
        width = int(lengths.max())
        arguments: dict[str, Tensor]
        if PIXELS in self.inputs:
            images = self.inputs[PIXELS]
            arguments = {} if self.views else {PIXELS: images[indices.to(images.device)]}
        else:
            arguments = {name: values[there, :width] for name, values in self.inputs.items()}
            mask = torch.arange(width) < lengths[:, None]
            arguments["attention_mask"] = mask.long().to(device)
        starts = self.offsets[indices]
        counts = self.offsets[indices + 1] - starts
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        rows = starts.repeat_interleave(counts) + within
        targets = None
        if self.targets is not None:  # each of its tokens is a row
            width = int(counts.max())
            targets = self.targets[there, :width]
        return Batch(
            arguments=arguments,
            counted=self.counted[there, :width],
            counts=counts,
            rows=rows,
            labels=self.labels[rows.to(device)],
            targets=targets,
            choices=tuple(each.batch(indices) for each in self.choices),
            classes=self.classes,
        )


def _joined(batches: Sequence[Batch]) -> Batch:
    """Batches of the same examples, one after another."""
    first, *others = batches
    if not others:
        return first
    return replace(
        first,
        arguments={
            name: torch.cat([batch.arguments[name] for batch in batches])
            for name in first.arguments
        },
        counted=torch.cat([batch.counted for batch in batches]),
        counts=torch.cat([batch.counts for batch in batches]),
        rows=torch.cat([batch.rows for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
    )


class Task(Protocol):
    """One kind of data: how it is encoded, which head the model has, what is scored and how."""

    head: Any
    """The transformers auto class that gives a model this task's head."""
    reads_pixels: bool
    """Whether its models read images: in the place of a tokenizer there is an `ImageProcessor`."""
    per_token: bool
    """Whether a row belongs to a token, so that teacher and student need one tokenizer."""
    wide: bool
    """Whether rows are hidden states, from which the model's head computes the logits when they
    are needed: for outputs too wide to be kept."""

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """The texts of a row, for a tokenizer of the words of a training split."""

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """The rows of data as tensors, in their order; `training`: of the training split."""

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model says of a batch, [R, W]."""

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The logits in `values_RW` as units, [U, C]; which classes are real, None for all."""

    def labels(self, batch: Batch) -> Tensor:
        """[U]: the class of each unit, or IGNORED."""

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[Any]:
        """The model's prediction for each example of a batch."""

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """The score of all the predictions for a split, higher is better."""

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """What the score follows from, of each row of data: a column by name, N numbers each.

        `analysis.row_scores` has the score of their sums.
        """

    def signature(self, data: DataSpec) -> str:
        """How exactly the score is computed, as a publication would state it."""


def padded(lists: Sequence[Sequence[int]], value: int) -> Tensor:
    """[N, longest]: lists of different lengths, filled up at the end."""
    width = max(map(len, lists))
    return torch.tensor([[*items, *[value] * (width - len(items))] for items in lists])


def model_inputs(encoding: Any, tokenizer: Any) -> dict[str, Tensor]:
    """What a tokenizer says of some texts, padded: by the model's argument names, [N, L]."""
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": 0}
    return {
        name: padded(encoding[name], value) for name, value in padding.items() if name in encoding
    }
