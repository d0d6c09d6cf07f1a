"""Keeping some layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdsearch.errors import InputError
from kdsearch.study import fewest_layers, kept_layers, shown_layers
from kdsearch.tasks import PIXELS


def truncate(model: Any, layers: int | str) -> None:
    """Keep some layers of a model, in place: see `study.layers`.

    Evenly spaced ones are the skip-layer strategy (§3), of which an encoder-decoder keeps half in
    its encoder and half in its decoder (§4); of layers that are named each side keeps the same. The
    layers are found by the configuration's count, not by a model's name.
    """
    if not model.config.is_encoder_decoder:
        # CLIP's classifier reads images alone; its configuration knows of texts too.
        of_images = model.main_input_name == PIXELS and hasattr(model.config, "vision_config")
        config = model.config.vision_config if of_images else text_config(model.config)
        if _in_stages(config):
            raise InputError.one(
                type(model).__name__,
                f"{config.model_type} has no layers of one kind and size, of which to keep some",
                "a smaller student is another model, or the same at random with another config",
            )
        whole = of_images or config is model.config
        stack = model if whole else model.get_decoder()
        field = _depth(config, _DEPTHS)
        _truncate_stack(stack, config, field, getattr(config, field), layers)
        return
    if isinstance(layers, int) and layers % 2:
        raise InputError.one(
            type(model).__name__,
            f"{layers} layers cannot be split evenly between its encoder and its decoder",
            "give an even number: 6 is 3 of each",
        )
    fields = _depth(model.config, _ENCODER_DEPTHS), _depth(model.config, _DECODER_DEPTHS)
    # Both counts are read before any is changed: some models have one for the two.
    depths = [getattr(model.config, field) for field in fields]
    for stack, field, depth in zip(
        (model.get_encoder(), model.get_decoder()), fields, depths, strict=True
    ):
        each = layers // 2 if isinstance(layers, int) else layers
        _truncate_stack(stack, model.config, field, depth, each)


def _in_stages(config: Any) -> bool:
    """Whether layers follow one another in several widths, as in most models of images."""
    named = any(getattr(config, field, None) is not None for field in _DEPTHS)
    return not named or getattr(config, "depths", None) is not None


def text_config(config: Any) -> Any:
    """Of a configuration of several parts that of the one that reads text, as Gemma 3's; else it.

    An encoder-decoder's two sides are no such parts.
    """
    return config if config.is_encoder_decoder else config.get_text_config()


_DEPTHS = ("num_hidden_layers",)
_ENCODER_DEPTHS = ("encoder_layers", "num_encoder_layers", "num_layers")
_DECODER_DEPTHS = ("decoder_layers", "num_decoder_layers", "num_layers")


def _depth(config: Any, fields: Sequence[str]) -> str:
    """The field of a configuration that has the number of layers."""
    return next(field for field in fields if getattr(config, field, None) is not None)


def _truncate_stack(stack: Any, config: Any, field: str, total: int, layers: int | str) -> None:
    kept = kept_layers(layers, total)
    if fewest_layers(layers) > total:
        what = f"has {total} layers, 0 to {total - 1}, but {shown_layers(layers)} are asked for"
        raise InputError.one(type(stack).__name__, what)
    holder, name = _layer_list(stack, total)
    every = getattr(holder, name)
    setattr(holder, name, nn.ModuleList(every[i] for i in kept))
    _hand_on_positions(every[0], every[kept[0]])
    for number, layer in enumerate(getattr(holder, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # by which attention finds its cache
                module.layer_idx = number
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kinds[i] for i in kept]
    stages = getattr(config, "stage_names", None)
    if stages is not None:  # a layer each, behind the stem: what DINOv2 as a backbone would say
        config.stage_names = stages[: len(kept) + 1]
        config.out_indices = [len(kept)]
    # A stack may have a configuration of its own, and the whole model the same field.
    for own in (config, getattr(stack, "config", config)):
        for alike in (field, "num_hidden_layers", "num_layers"):
            if getattr(own, alike, None) == total:
                setattr(own, alike, len(kept))


def _hand_on_positions(first: nn.Module, kept: nn.Module) -> None:
    """Give the first layer that is kept what only the first of all has.

    T5's first layer of each stack holds the relative positions for all of them.
    """
    for path, module in first.named_modules():
        if getattr(module, "has_relative_attention_bias", False):
            heir = kept.get_submodule(path)
            heir.has_relative_attention_bias = True  # type: ignore[assignment]
            heir.relative_attention_bias = module.relative_attention_bias


def _layer_list(stack: nn.Module, total: int) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name there.

    A layer may be a list of as many parts (T5's is of 2 or 3): lists within a list are none.
    """
    within = {
        part
        for each in stack.modules()
        if isinstance(each, nn.ModuleList) and len(each) == total
        for layer in each
        for part in layer.modules()
    }
    found = [
        (holder, name)
        for holder in stack.modules()
        if holder not in within
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(found) != 1:
        raise InputError.one(
            type(stack).__name__,
            f"has {len(found)} lists of {total} layers; it is unclear which to cut",
            "use the whole model, or a smaller pretrained one",
        )
    return found[0]
