"""How large models and a teacher's cached outputs are, before anything is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdsearch.study.cache import HIDDEN, SAMPLED, kept_tokens
from kdsearch.study.layers import kept_layers
from kdsearch.study.schema import Model
from kdsearch.study.settings import TrainingSettings
from kdsearch.study.tasks import SPECS

_ITEM_BYTES = {"fp32": 4, "bf16": 2}
_TOP_BYTES = 6
"""Of a likeliest token: its number and its probability, of which there is one more for the rest."""
_DRAW_BYTES = 6
"""Of a drawn token: its number and how often it was drawn."""
_PLACE_BYTES = 10
"""Of where a row's draws are, and how many."""


class Shape(NamedTuple):
    """What a model's size follows from."""

    layers: int
    """Of both stacks of an encoder-decoder."""
    width: int
    """Of a hidden state."""
    vocabulary: int | None = None
    """None where it is that of the training rows."""


BASE = Shape(12, 768)
"""What a model of unknown size is taken to be."""
_HUB = {  # where only the Hub could say it
    "FacebookAI/roberta-base": Shape(12, 768, 50_265),
    "FacebookAI/roberta-large": Shape(24, 1024, 50_265),
    "FacebookAI/xlm-roberta-base": Shape(12, 768, 250_002),
    "FacebookAI/xlm-roberta-large": Shape(24, 1024, 250_002),
    "distilbert/distilbert-base-uncased": Shape(6, 768, 30_522),
    "distilbert/distilroberta-base": Shape(6, 768, 50_265),
    "facebook/mbart-large-50": Shape(24, 1024, 250_054),
    "facebook/mbart-large-cc25": Shape(24, 1024, 250_027),
    "facebook/nllb-200-distilled-600M": Shape(24, 1024, 256_206),
    "google-bert/bert-base-cased": Shape(12, 768, 28_996),
    "google-bert/bert-base-uncased": Shape(12, 768, 30_522),
    "google-bert/bert-large-uncased": Shape(24, 1024, 30_522),
    "google-t5/t5-base": Shape(24, 768, 32_128),
    "google-t5/t5-large": Shape(48, 1024, 32_128),
    "google-t5/t5-small": Shape(12, 512, 32_128),
    "sentence-transformers/all-MiniLM-L6-v2": Shape(6, 384, 30_522),
}
_ASSUMED = Shape(24, 1024, 250_027)
_OF_WORDS = 30_004
"""The most that the tokenizer of a model at random knows: the words of the training rows."""
_WIDTHS = ("d_model", "hidden_size", "n_embd", "dim")
_PARTS = (("encoder_layers", "decoder_layers"), ("num_layers", "num_decoder_layers"))
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


def cache_bytes(
    settings: TrainingSettings,
    task: str,
    model: Model,
    rows: float,
    labels: int,
    path: str | None = None,
    *,
    others: float = 0,
) -> int:
    """About how many bytes one checkpoint's outputs on all splits take; of sampled ones, at most.

    `rows` are those of the outputs on the training split, `others` on the others, where all is
    kept. `model` is the teacher, `settings` are its outputs', and `path` is its folder, where that
    is known. Of hidden states there is also the head that makes logits of them.
    """
    whole = settings.model_copy(update={"cache": HIDDEN})
    each, every = (row_bytes(s, task, model, labels, path) for s in (settings, whole))
    head = 0
    if SPECS[task].width is None:
        shape = _wide_shape(model, path)
        head = (shape.vocabulary or 0) * shape.width * _ITEM_BYTES["fp32"]
    return round(rows * each + others * every + head)


def pixel_bytes(size: int, rows: int) -> int:
    """How many bytes the pixels of so many images take, `size` pixels wide and high."""
    return rows * size * size * 3


def row_bytes(
    settings: TrainingSettings, task: str, model: Model, labels: int, path: str | None = None
) -> int:
    """How many bytes a row of outputs on the training split takes, a token's where they are wide.

    Of sampled tokens, at most: what is drawn twice is kept once. See `cache_bytes`; of a model of
    the Hub that is not known here a width of 1,024 is assumed.
    """
    width_of = SPECS[task].width
    if width_of is not None:
        return width_of(labels) * _ITEM_BYTES["fp32"]
    if settings.cache == HIDDEN:
        dtype = settings.for_task(task).hidden_dtype
        assert dtype is not None  # `for_task` filled it in
        return _wide_shape(model, path).width * _ITEM_BYTES[dtype]
    kind, count = kept_tokens(settings.cache)
    return _PLACE_BYTES + _DRAW_BYTES * count if kind == SAMPLED else _TOP_BYTES * count + 2


def _wide_shape(model: Model, path: str | None) -> Shape:
    """That of a teacher whose vocabulary is wide."""
    shape = shape_of(model, path or model.path) or _ASSUMED
    vocabulary = shape.vocabulary or (_OF_WORDS if model.config else _ASSUMED.vocabulary)
    return shape._replace(vocabulary=vocabulary)


def shape_of(model: Model, folder: str | None = None) -> Shape | None:
    """A model's shape by its configuration, by that in its `folder`, or because it is well known.

    None where none of these says it.
    """
    config = model.config or (config_in(folder) if folder else {})
    part = config.get("text_config")  # of several, as Gemma 3's, the one that reads text
    if isinstance(part, dict):
        config = {**config, **part}
    numbers = {n: v for n, v in config.items() if isinstance(v, int) and v > 0}
    parts = (numbers[a] + numbers[b] for a, b in _PARTS if a in numbers and b in numbers)
    layers = next(parts, None) or _first(numbers, _LAYERS)
    width = _first(numbers, _WIDTHS)
    if layers or width:
        return Shape(layers or BASE.layers, width or BASE.width, numbers.get("vocab_size"))
    return _HUB.get(model.hub or "")


def depth_in(config: Mapping[str, Any]) -> int | None:
    """How many layers a configuration says a model of one stack has; None where it does not."""
    numbers = {name: value for name, value in config.items() if isinstance(value, int)}
    split = config.get("is_encoder_decoder") or any({*names} <= numbers.keys() for names in _PARTS)
    return None if split else _first(numbers, _LAYERS)


def config_in(folder: str) -> dict[str, Any]:
    """What a model's folder has as its configuration; nothing where it has none."""
    path = Path(os.path.expanduser(folder)) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        found = None  # an estimate does without; resolving the model says what is wrong
    return found if isinstance(found, dict) else {}


def passed_weights(shape: Shape, layers: int | str | None = None) -> float:
    """About how many weights a token passes, embeddings aside, in some layers of a model."""
    kept = shape.layers if layers is None else len(kept_layers(layers, shape.layers))
    return 12.0 * shape.width**2 * kept


def readable_size(count: float) -> str:
    """A number of bytes as a person reads it, such as 1.5 GB."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _first(fields: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((fields[name] for name in names if name in fields), None)
