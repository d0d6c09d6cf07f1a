"""Models of images: how their images are normalised, and how their weights lie in memory."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor

from kdsearch.errors import InputError
from kdsearch.tasks import ImageProcessor

TIMM = "timm_wrapper"
"""The type of model by which transformers has timm's."""
_AT_RANDOM = (0.5, 0.5, 0.5)
"""Mean and deviation for a model at random: it is given numbers from -1 to 1."""
_SHADES = (0, 128, 255)


def fit_images(model: Any, processor: ImageProcessor) -> None:
    """Have a model know how its images are normalised, and compute as fast as it may.

    Convolutions between batch normalisations take a third less time where the channels of a pixel
    lie beside each other; among other layers, which want these elsewhere, they do not.
    """
    processor.attach(model)
    if model.config.model_type == TIMM:  # whose pipeline reads nothing else
        said = getattr(model.config, "pretrained_cfg", None) or {}
        model.config.pretrained_cfg = {**said, **processor.as_timm()}
    if has_batch_norm(model):
        model.to(memory_format=torch.channels_last)


def draw_as_timm(model: Any) -> None:
    """Draw the weights of one of timm's models by timm's own rules; of another nothing.

    Transformers draws those of every layer from one normal distribution of deviation 0.02, where
    the first convolutions of a ResNet should have 0.08 to 0.12.
    """
    if model.config.model_type != TIMM:
        return
    timm: Any = import_module("timm")  # which is optional
    config = model.config
    settings = {"num_classes": config.num_labels, **(config.model_args or {})}
    drawn = timm.create_model(config.architecture, pretrained=False, **settings)
    model.timm_model.load_state_dict(drawn.state_dict())


def has_batch_norm(model: nn.Module) -> bool:
    """Whether what a model says of an example in training depends on the others of its batch."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def check_parts(model: nn.Module, batch_size: int) -> None:
    """Raise `InputError` for a model that learns otherwise from a batch that comes in parts."""
    if has_batch_norm(model):
        what = f"a batch of {batch_size} does not fit, and parts of it would each be normalised"
        what += " by themselves: another training"
        raise InputError.one("training.batch_size", what, "make it smaller, or share no GPU")


def processor_at_random(size: int) -> ImageProcessor:
    """Of a model that nothing was trained with before, for images of so many pixels a side."""
    return ImageProcessor(mean=_AT_RANDOM, std=_AT_RANDOM, size=size)


def processor_in(folder: Path, size: int, *, trusted: bool) -> ImageProcessor:
    """What the model in a folder was trained with, for images of so many pixels a side.

    Raises `InputError`, whose words go on from `its`, where the folder does not say it.
    """
    mean, std = _normalisation(folder, trusted=trusted)
    return ImageProcessor(mean=mean, std=std, size=size)


def _normalisation(folder: Path, *, trusted: bool) -> tuple[list[float], list[float]]:
    """Mean and deviation of red, green and blue."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    said = getattr(config, "pretrained_cfg", None) or {}
    of_timm, file = config.model_type == TIMM, folder / "preprocessor_config.json"
    if of_timm and {"mean", "std"} <= said.keys():
        return list(said["mean"]), list(said["std"])
    if of_timm or not file.is_file():
        where = "pretrained_cfg in config.json" if of_timm else file.name
        what = "folder does not say how its images are normalised"
        raise InputError.one(folder, what, f"copy {where} from the model it was trained from")
    processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=trusted)
    # Fields differ from class to class; what becomes of images of one colour does not.
    shades = [np.full((64, 64, 3), shade, dtype=np.uint8) for shade in _SHADES]
    seen = [processor(images=shade, return_tensors="np")["pixel_values"][0] for shade in shades]
    black, grey, white = (each.reshape(3, -1).astype(np.float64) for each in seen)
    low, middle, high = (each.mean(axis=1) for each in (black, grey, white))
    alike = all(np.allclose(each, each[:, :1], atol=1e-4) for each in (black, grey, white))
    if not alike or not np.allclose(low + (high - low) * 128 / 255, middle, atol=1e-3):
        what = "image processor does more than to normalise each channel"
        raise InputError.one(folder, what, "take another model")
    std = 1 / (high - low)
    return [float(x) for x in np.round(-low * std, 6)], [float(x) for x in np.round(std, 6)]
