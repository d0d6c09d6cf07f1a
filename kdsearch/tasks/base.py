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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdsearch.agenda import DataSpec, ForwardSettings
from kdsearch.study import TrainingSettings

IGNORED = -100
"""The class number of a unit without a label, as torch's cross-entropy has it."""

Settings = TrainingSettings | ForwardSettings


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some examples, as a model takes them."""

    arguments: dict[str, Tensor]
    """By the model's argument names, [B, L]."""
    counted: Tensor
    """[B, L], [B, T] of translation, [B, 1] of classification: the positions that give rows."""
    counts: Tensor
    """[B]: the rows of each example; on the CPU."""
    rows: Tensor
    """[R]: the numbers of these rows among all of the split; on the CPU."""
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
    """By the model's argument names, [N, L] integers, padded at the end."""
    lengths: Tensor
    """[N]: how many tokens of each example are no padding."""
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

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def offsets(self) -> Tensor:
        """[N + 1]: the number of each example's first row, and that of all rows; on the CPU."""
        counts = self.counted.sum(dim=1).cpu()
        return torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device."""
        return replace(
            self,
            inputs={name: values.to(device) for name, values in self.inputs.items()},
            counted=self.counted.to(device),
            labels=self.labels.to(device),
            targets=None if self.targets is None else self.targets.to(device),
            choices=tuple(each.to(device) for each in self.choices),
        )

    def batch(self, indices: Tensor) -> Batch:
        """The examples `indices`, on the CPU, no wider than the longest of them."""
        device = self.labels.device
        there = indices.to(device)
        lengths = self.lengths[indices]
        width = int(lengths.max())
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


class Task(Protocol):
    """One kind of data: how it is encoded, which head the model has, what is scored and how."""

    head: Any
    """The transformers auto class that gives a model this task's head."""
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
