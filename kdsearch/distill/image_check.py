"""Models of images before a search: run without weights on images of the data's size."""

from __future__ import annotations

from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from kdsearch.distill.images import TIMM, has_batch_norm, processor_in
from kdsearch.errors import InputError
from kdsearch.study import Resolved
from kdsearch.study.model_files import config_of


def kind_problem(config: Any, dataset: str) -> str | None:
    """What is wrong with the kind of a model that is to read the images of a data set."""
    auto = getattr(config, "auto_map", None) or {}
    known = type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if not known and "AutoModelForImageClassification" not in auto:
        return (
            f"{config.model_type} classifies no images, which {dataset} has: take another model, "
            "such as a resnet, a convnext or a vit"
        )
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        return f"reads images of {channels} channels, and those of {dataset} have 3"
    return None


def lacks_timm(resolved: Resolved, name: str) -> bool:
    """Whether a model is one of timm's, which is not installed."""
    found, fields = resolved.models[name], resolved.study.models[name].config
    config = fields or (config_of(Path(found.path)) if found.path is not None else {})
    of_timm = config.get("model_type", TIMM if "pretrained_cfg" in config else "") == TIMM
    return of_timm and find_spec("timm") is None


def size_problem(resolved: Resolved, name: str, dataset: str, model: Any) -> str | None:
    """What is wrong with the images of a data set for a model without weights: their size."""
    size = resolved.datasets[dataset].image_size
    if size is None or (error := failure(model.eval(), size)) is None:
        return None
    wanted = _own_size(model)
    other = f"cannot read images of {size} × {size}, as {dataset} has them: {error}"
    if wanted in (None, size) or failure(model, wanted or 0) is not None:
        return other
    what = f"reads images of {wanted} × {wanted}, and those of {dataset} are {size} × {size}: set "
    if resolved.study.models[name].config is None:
        return f"{what}datasets.{dataset}.image_size: {wanted}"
    field = _resized(model, size)
    return other if field is None else f"{what}models.{name}.config.{field}"


def _resized(model: Any, size: int) -> str | None:
    """What of a configuration at random has it read images of another size."""
    config = deepcopy(model.config)
    field = f"image_size: {size}"
    if config.model_type == TIMM:
        config.model_args = {**(config.model_args or {}), "img_size": size}
        field = f"model_args: {{img_size: {size}}}"
    else:
        config.image_size = size
    try:
        with torch.device("meta"):
            other = type(model)(config)
    except Exception:  # whatever it raises for a size
        return None
    return field if failure(other.eval(), size) is None else None


def recomputing_problem(model: Any) -> str | None:
    """Why activations of a model are not to be computed twice."""
    if not has_batch_norm(model):
        return None
    return (
        f"{model.config.model_type} normalises by batches and keeps a mean of them, to which an "
        "activation that is computed again would be added twice"
    )


def processor_problem(resolved: Resolved, name: str) -> str | None:
    """What is wrong with how a model's images are normalised, as its folder says it."""
    path = resolved.models[name].path
    if path is None:
        return None
    trusted = resolved.study.models[name].trust_remote_code
    try:
        processor_in(Path(path), 1, trusted=trusted)
    except InputError as error:
        return "; ".join(f"its {p.what} ({p.remedy})" for p in error.problems)
    return None


def failure(model: Any, size: int, *, images: int = 2) -> str | None:
    """What a model without weights raises for so many images of a size; None where it runs."""
    try:
        model(pixel_values=torch.zeros(images, 3, size, size, device="meta"))
    except Exception as error:  # whatever a model raises
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _own_size(model: Any) -> int | None:
    """The size of images that a model names."""
    size = getattr(model.config, "image_size", None)
    if model.config.model_type == TIMM:
        size = model.timm_model.pretrained_cfg.get("input_size")
    size = size[-1] if isinstance(size, list | tuple) and size else size
    return size if isinstance(size, int) else None
