"""Tasks whose models write texts, on which a teacher's students learn; how texts are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

from kdsearch.agenda import DataSpec, WritingSettings
from kdsearch.tasks.base import Batch, Task


class Gumbel(LogitsProcessor):
    """Noise with which the likeliest token is one that is drawn from the model's probabilities.

    The Gumbel-max trick: softmax(z / T) is drawn from by the largest of z / T + g (see Maddison et
    al., NeurIPS 2014, §2). Each text has noise of its own, so that what is drawn for a row does not
    depend on the rows beside it.
    """

    def __init__(self, temperature: float, texts: Sequence[object], device: torch.device) -> None:
        """`texts` say which ones are written, each as often and wherever the same."""
        self._temperature = temperature
        self._random = [torch.Generator(device).manual_seed(_seed(text)) for text in texts]

    def some(self, texts: Sequence[int]) -> Gumbel:
        """The same of some of the texts."""
        found = copy(self)
        found._random = [self._random[text] for text in texts]
        return found

    def noisy(self, logits_BC: Tensor, texts: Sequence[int]) -> Tensor:
        """[B, C]: the logits of the next token of some of the texts, with the noise."""
        noise = [
            logits_BC.new_empty(logits_BC.shape[1], dtype=torch.float32).exponential_(
                generator=self._random[text]
            )
            for text in texts
        ]
        return logits_BC.float() / self._temperature - torch.stack(noise).log()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """As transformers asks for it."""
        return self.noisy(scores, range(len(scores)))


def _seed(text: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(text).encode(), digest_size=7).digest())


class Writer(Task, Protocol):
    """A task whose models write texts."""

    def write(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        data: DataSpec,
        settings: WritingSettings,
        noise: Gumbel | None,
    ) -> list[str | None]:
        """What the model writes for each example; None where that had not ended in time.

        The likeliest token each time, with the `noise` if there is any, or by a beam search.
        """

    def written(self, row: Mapping[str, Any], text: str, reference: Any) -> dict[str, Any] | None:
        """A row of data with a text in the place of its label; None for one without a word.

        `reference` is that of the row, as `encode` has it.
        """

    def is_right(self, text: str, reference: Any, data: DataSpec) -> bool:
        """Whether the answer that a text comes to is that of an example's reference."""
