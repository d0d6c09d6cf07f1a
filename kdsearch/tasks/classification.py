"""Sequence classification of one sentence or of a pair.

A row: {"texts": ["He said so .", "So he said ."], "label": 1}
The teacher's outputs are one row of logits per example, so that teacher and student may have
different tokenizers. Scored by binary F1 of the second label where there are two labels, by macro
F1 of more; or by accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from kdsearch.tasks.base import Encoded


class Classification:
    """See `Task`."""

    head = AutoModelForSequenceClassification

    def encode(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Encoded:
        """The sentences, or the pairs as the tokenizer joins them, cut to `max_length` tokens."""
        columns = list(zip(*(row["texts"] for row in rows), strict=True))
        encoding = tokenizer(*map(list, columns), truncation=True, max_length=max_length)
        ids = encoding["input_ids"]
        width = max(map(len, ids))
        padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": 0}
        inputs = {
            name: torch.tensor(
                [values + [pad] * (width - len(values)) for values in encoding[name]]
            )
            for name, pad in padding.items()
            if name in encoding
        }
        return Encoded(
            inputs=inputs,
            lengths=torch.tensor([len(values) for values in ids]),
            labels=torch.tensor([row["label"] for row in rows]),
        )

    def logits(self, model: nn.Module, arguments: Mapping[str, Tensor]) -> Tensor:
        """[examples, labels]."""
        logits: Tensor = model(**arguments).logits
        return logits

    def score(
        self, metric: str, logits_NC: Tensor, labels_N: Tensor, labels: Sequence[str]
    ) -> float:
        """F1 (binary of the second of two labels, else macro over `labels`) or accuracy."""
        predicted, gold = logits_NC.argmax(dim=1).numpy(), labels_N.numpy()
        if metric == "accuracy":
            return float(accuracy_score(gold, predicted))
        if len(labels) == 2:
            return float(f1_score(gold, predicted, average="binary", zero_division=0.0))
        every = list(range(len(labels)))
        return float(f1_score(gold, predicted, labels=every, average="macro", zero_division=0.0))
