"""What is known of a model of images before anything is loaded: its cost, a guess, and its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsearch.errors import Problem
from kdsearch.study.cases import TestCase, known_cases, teacher_of
from kdsearch.study.known import has_images, known_image_size
from kdsearch.study.schema import Model, Study
from kdsearch.study.section import as_far_as_read
from kdsearch.study.sizes import config_in

_USUAL = 224
"""The side of the images for which models are described."""
_KNOWN = {  # billions of multiplications for one of these, by what their names have in common
    "mobilenetv4_conv_small": 0.2,
    "mobilenetv4": 0.8,
    "mobilenetv3_small": 0.06,
    "mobilenet": 0.3,
    "mobilevitv2_050": 0.4,
    "mobilevitv2_150": 3.1,
    "efficientnet_b0": 0.4,
    "resnet18": 1.8,
    "resnet34": 3.7,
    "resnet50": 4.1,
    "resnet101": 7.8,
    "regnety_064": 6.4,
    "convnext_pico": 1.4,
    "convnext_tiny": 4.5,
    "convnext_base": 15.4,
    "vit_tiny": 1.3,
    "vit_small": 4.6,
    "deit_small": 4.6,
    "vit_base": 17.6,
    "vit_large": 61.6,
    "swin_tiny": 4.5,
}
_UNKNOWN = 4.1
"""A ResNet-50's."""
_FIXED = ("vit", "deit")
"""Types of models that read images of one size alone."""
_BASIC, _BOTTLENECK, _CONVNEXT = 18.0, 1.1, 8.0
"""Of a block, the products for a position by the square of its width."""


def image_products(model: Model, side: int, folder: str | None = None) -> float | None:
    """About how many multiplications an image of so many pixels a side takes.

    By the model's configuration, by that in its `folder`, or by its name; None where none of these
    says it.
    """
    config = model.config or (config_in(folder) if folder else {})
    found = _by_blocks(config, side)
    if found is not None:
        return found
    name = str(config.get("architecture") or config.get("model_type") or model.hub or "")
    name = name.lower().replace("-", "_").replace("resnet_", "resnet")
    known = next((count for part, count in _KNOWN.items() if part in name), None)
    if known is None:
        return None
    width: float = config.get("depth_multiplier", 1.0)
    return known * 1e9 * width**2 * (side / _USUAL) ** 2


def unknown_products(side: int) -> float:
    """What a model of unknown size is taken to be."""
    return _UNKNOWN * 1e9 * (side / _USUAL) ** 2


def _by_blocks(config: Mapping[str, Any], side: int) -> float | None:
    """By the widths and numbers of a configuration's blocks, where it names them."""
    widths, depths = config.get("hidden_sizes"), config.get("depths")
    if isinstance(widths, list) and isinstance(depths, list):
        each, first = _BASIC, 4
        if "convnext" in str(config.get("model_type")):
            each, first = _CONVNEXT, config.get("patch_size", 4)
        elif config.get("layer_type", "bottleneck") == "bottleneck":
            each = _BOTTLENECK
        stages = enumerate(zip(widths, depths, strict=False))
        return float(sum(each * d * w**2 * (side / first / 2**n) ** 2 for n, (w, d) in stages))
    width, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if isinstance(width, int) and isinstance(layers, int):
        patches = (side / config.get("patch_size", 16)) ** 2
        return float(layers * (12 * width**2 * patches + 2 * width * patches**2))
    return None


def size_problems(study: Study, place: str) -> Iterator[Problem]:
    """Models at random of images of another size than the data's, as far as the study tells.

    Whatever else a model can read is found out by running it, in `distill/image_check.py`.
    """
    checks = (_of_case(study, case, place) for case in known_cases(study))
    yield from dict.fromkeys(as_far_as_read(*checks))


def _of_case(study: Study, case: TestCase, place: str) -> Iterator[Problem]:
    dataset = study.datasets[case.dataset]
    if not has_images(case.dataset, dataset):
        return
    side = known_image_size(case.dataset, dataset)
    teacher = teacher_of(study, case)
    names = (study.students[case.student].model, teacher.model if teacher else None)
    for name in names if side is not None else ():
        model = study.models.get(name or "")
        config = (model and model.config) or {}
        if config.get("model_type") not in _FIXED:
            continue
        if (own := config.get("image_size", _USUAL)) != side:
            what = f"reads images of {own} × {own}, and those of {case.dataset} are {side} × "
            remedy = f"set models.{name}.config.image_size: {side}"
            yield Problem(place=f"{place}: models.{name}", what=f"{what}{side}", remedy=remedy)
