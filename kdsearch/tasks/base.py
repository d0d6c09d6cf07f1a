"""The contract of a task: all that differs between kinds of data, in one short file each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A split as tensors, ready to be indexed: N examples of at most L tokens."""

    inputs: Mapping[str, Tensor]
    """By the model's argument names, [N, L] integers, padded at the end."""
    lengths: Tensor
    """[N]: how many tokens of each example are no padding."""
    labels: Tensor
    """[N] integers."""

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """The model's arguments for the examples `indices`, no wider than the longest of them."""
        lengths = self.lengths[indices]
        width = int(lengths.max())
        arguments = {name: values[indices, :width] for name, values in self.inputs.items()}
        positions = torch.arange(width, device=lengths.device)
        arguments["attention_mask"] = (positions < lengths[:, None]).long()
        return arguments


class Task(Protocol):
    """One kind of data: how it is encoded, which head the model has, what is scored and how."""

    head: Any
    """The transformers auto class that gives a model this task's head."""

    def encode(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Encoded:
        """The rows as tensors, in their order."""

    def logits(self, model: nn.Module, arguments: Mapping[str, Tensor]) -> Tensor:
        """The model's outputs for a batch, [units, classes]: what is distilled and scored."""

    def score(
        self, metric: str, logits_NC: Tensor, labels_N: Tensor, labels: Sequence[str]
    ) -> float:
        """The score of a whole split, higher is better."""
