"""Image classification.

A row: {"pixels": uint8 [S, S, 3] in RGB, "label": 1}
Images stay bytes until a batch of them is read, which is when they are normalised. Scored as
classification is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from kdsearch.agenda import DataSpec
from kdsearch.tasks.base import IGNORED, PIXELS, Batch, Encoded, Settings
from kdsearch.tasks.classification import Classification
from kdsearch.tasks.images import normalised

_PATCH, _MOST_PATCHES = 8, 256
"""The side of what counts as a token of an image, and the most tokens that one has. A CPU takes
some fifty images of 32 × 32 at once in the least time for each, a few of 224 × 224."""


class ImageClassification(Classification):
    """See `Task`."""

    head: Any = AutoModelForImageClassification
    reads_pixels = True

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """None."""
        return ()

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """The images as they are, whatever the model."""
        labels = [IGNORED if row["label"] is None else row["label"] for row in rows]
        size = len(rows[0]["pixels"])
        images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for image, row in zip(images, rows, strict=True):
            image.copy_(torch.from_numpy(np.array(row["pixels"])).permute(2, 0, 1))
        return Encoded(
            inputs={PIXELS: images},
            lengths=torch.full((len(rows),), min((size // _PATCH) ** 2, _MOST_PATCHES)),
            counted=torch.ones(len(rows), 1, dtype=torch.bool),
            labels=torch.tensor(labels),
            references=() if training else labels,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[examples, labels]."""
        logits: Tensor = model(pixel_values=normalised(model, batch.arguments[PIXELS])).logits
        return logits
