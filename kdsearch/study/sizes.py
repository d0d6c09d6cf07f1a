"""How large models and a teacher's cached outputs are, before anything is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsearch.study.layers import kept_layers
from kdsearch.study.schema import Model
from kdsearch.study.settings import TrainingSettings
from kdsearch.study.tasks import SPECS

_ITEM_BYTES = {"fp32": 4, "bf16": 2}
_KNOWN = {
    # (width of the last hidden state, vocabulary), where only the Hub could say it
    "facebook/mbart-large-cc25": (1024, 250_027),
    "facebook/mbart-large-50": (1024, 250_054),
    "facebook/nllb-200-distilled-600M": (1024, 256_206),
    "google-t5/t5-small": (512, 32_128),
    "google-t5/t5-base": (768, 32_128),
    "google-t5/t5-large": (1024, 32_128),
}
_ASSUMED = (1024, 250_027)
_WIDTHS = ("d_model", "hidden_size", "n_embd", "dim")
_PARTS = (("encoder_layers", "decoder_layers"), ("num_layers", "num_decoder_layers"))
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_SHAPES = {
    # (layers, width), where only the Hub could say it
    "FacebookAI/roberta-base": (12, 768),
    "FacebookAI/roberta-large": (24, 1024),
    "facebook/mbart-large-cc25": (24, 1024),
}
_BASE = (12, 768)


def cache_bytes(
    settings: TrainingSettings,
    task: str,
    model: Model,
    rows: float,
    labels: int,
    path: str | None = None,
) -> int:
    """About how many bytes one checkpoint's outputs on all splits take.

    `rows` are those of the outputs, `model` is the teacher, `settings` are its outputs', and
    `path` is its folder, where that is known. Translation keeps hidden states, and the head that
    makes logits of them; of a model of the Hub that is not known here a width of 1,024 is assumed.
    """
    width_of = SPECS[task].width
    if width_of is None:
        width, vocabulary = _sizes(model, path)
        dtype = settings.for_task(task).hidden_dtype
        assert dtype is not None  # `for_task` filled it in
        return round(rows * width * _ITEM_BYTES[dtype] + vocabulary * width * _ITEM_BYTES["fp32"])
    return round(rows * width_of(labels) * _ITEM_BYTES["fp32"])


def _shape(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The layers and the width of a transformers configuration, where it names them."""
    numbers = {n: v for n, v in config.items() if isinstance(v, int) and v > 0}
    parts = (numbers[a] + numbers[b] for a, b in _PARTS if a in numbers and b in numbers)
    layers = next(parts, None) or _first(numbers, _LAYERS)
    width = _first(numbers, _WIDTHS)
    return (layers, width) if layers and width else None


def passed_weights(model: Model, layers: int | str | None = None) -> float:
    """About how many weights a token passes, embeddings aside, in some layers of a model.

    It serves to compare models, and reads no file: one of which the study says nothing is taken to
    be a base model.
    """
    found = _shape(model.config) if model.config else _SHAPES.get(model.hub or "")
    depth, width = found or _BASE
    return 12.0 * width**2 * (depth if layers is None else len(kept_layers(layers, depth)))


def readable_size(count: float) -> str:
    """A number of bytes as a person reads it, such as 1.5 GB."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _sizes(model: Model, path: str | None) -> tuple[int, int]:
    fields: dict[str, Any] = model.config or {}
    folder = path or model.path
    if folder is not None:
        try:
            config = Path(os.path.expanduser(folder)) / "config.json"
            found = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None  # an estimate does without; resolving the model says what is wrong
        fields = found if isinstance(found, dict) else {}
    fields = {name: value for name, value in fields.items() if isinstance(value, int)}
    width, vocabulary = _KNOWN.get(model.hub or "", _ASSUMED)
    if model.config is not None:
        vocabulary = 30_004  # of the tokenizer of words, at most
    width = _first(fields, _WIDTHS) or width
    return width, fields.get("vocab_size", vocabulary)


def _first(fields: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((fields[name] for name in names if name in fields), None)
