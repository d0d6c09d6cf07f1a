"""Images as a model takes them: bytes, normalised by what the model was trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SCALE, _SHIFT = "kdsearch_scale", "kdsearch_shift"
_BICUBIC = 3
"""Pillow's number of it."""


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """What stands in the place of a tokenizer: a model is given (x / 255 - mean) / std."""

    mean: Sequence[float]
    """Of red, green and blue."""
    std: Sequence[float]
    size: int
    """Of the data set's images, in pixels."""

    def attach(self, model: Any) -> None:
        """Have a model know how its images are normalised; that is no part of its weights."""
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        model.register_buffer(_SCALE, 1 / (255 * std), persistent=False)
        model.register_buffer(_SHIFT, -mean / std, persistent=False)

    def as_timm(self) -> dict[str, Any]:
        """The same as `save_pretrained` writes, as timm describes it."""
        return {
            "input_size": [3, self.size, self.size],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def save_pretrained(self, folder: Path) -> None:
        """Write how an image becomes what a model was trained on, as transformers reads it."""
        size = {"height": self.size, "width": self.size}
        content = {
            "image_processor_type": "ViTImageProcessor",  # its fields say all that it does
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.size},
            "resample": _BICUBIC,
            "do_center_crop": True,
            "crop_size": size,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        text = json.dumps(content, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def normalised(model: Any, images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] as a model that an `ImageProcessor` is attached to takes it."""
    scale: Tensor = getattr(model, _SCALE)
    shift: Tensor = getattr(model, _SHIFT)
    return images.to(scale.device) * scale + shift
