"""Sequence classification of one sentence or of a pair.

A row: {"texts": ["He said so .", "So he said ."], "label": 1}
The teacher's outputs are one row of logits per example, so that teacher and student may have
different tokenizers. Scored by binary F1 of the second label where there are two labels, by macro
F1 of more; or by accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from kdsearch.agenda import DataSpec
from kdsearch.tasks.base import IGNORED, Batch, Encoded, Settings, model_inputs
from kdsearch.tasks.heads import said_by


class Classification:
    """See `Task`."""

    head: Any = AutoModelForSequenceClassification
    reads_pixels = False
    per_token = False
    wide = False

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """The sentence, or the two of a pair."""
        texts: list[str] = row["texts"]
        return texts

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """The sentences, or the pairs as the tokenizer joins them, cut to the most tokens."""
        columns = list(zip(*(row["texts"] for row in rows), strict=True))
        encoding = tokenizer(*map(list, columns), truncation=True, max_length=settings.max_length)
        labels = [IGNORED if row["label"] is None else row["label"] for row in rows]
        return Encoded(
            inputs=model_inputs(encoding, tokenizer),
            lengths=torch.tensor([len(ids) for ids in encoding["input_ids"]]),
            counted=torch.ones(len(rows), 1, dtype=torch.bool),
            labels=torch.tensor(labels),
            references=() if training else labels,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[examples, labels]."""
        logits: Tensor = said_by(model, batch.arguments).logits
        return logits

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """An example each."""
        return values_RW, None

    def labels(self, batch: Batch) -> Tensor:
        """[examples]."""
        return batch.labels

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[int]:
        """The label of the highest logit."""
        numbers: list[int] = values_RW.argmax(dim=1).tolist()
        return numbers

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """F1 (binary of the second of two labels, else macro over all of them) or accuracy."""
        # It takes a second to import, which only what trains should.
        from sklearn.metrics import accuracy_score, f1_score

        if data.metric == "accuracy":
            return float(accuracy_score(references, predictions))
        if len(data.labels) == 2:
            return float(f1_score(references, predictions, average="binary", zero_division=0.0))
        every = list(range(len(data.labels)))
        return float(
            f1_score(references, predictions, labels=every, average="macro", zero_division=0.0)
        )

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """The number of the label that is right, and of the one predicted."""
        return {"label": list(references), "predicted": list(predictions)}

    def signature(self, data: DataSpec) -> str:
        """Such as: binary F1 of `equivalent`."""
        if data.metric == "accuracy":
            return "accuracy"
        if len(data.labels) == 2:
            return f"binary F1 of {data.labels[1]}"
        return f"macro F1 of {len(data.labels)} labels"
