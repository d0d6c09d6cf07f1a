"""Low-rank adapters: a model of which these learn, and a head that its task draws anew.

W + (α/r)·B·A in place of W, of which A and B are trained (Hu et al., 2021, arXiv 2106.09685). peft
makes them within the model, whose class, arguments and names of modules stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kdsearch.distill.models import of_the_head
from kdsearch.errors import InputError
from kdsearch.study import Lora, Model
from kdsearch.tasks import Task

FOLDER = "adapter"
"""Of a kept model: where its adapter lies, without the model that it adapts."""
TASK_TYPES: dict[str, str | None] = {
    "classification": "SEQ_CLS",
    "ner": "TOKEN_CLS",
    "qa": "QUESTION_ANS",
    "translation": "SEQ_2_SEQ_LM",
    "lm": "CAUSAL_LM",
    "image_classification": None,
}
"""peft's names of the tasks, where it has one."""
_NAME = "default"
_IN_A_BLOCK = re.compile(r"(^|\.)\d+\.")


def adapted_layers(model: nn.Module, modules: tuple[str, ...] | None) -> list[str]:
    """The names of a model's linear layers that get adapters: all in its blocks, or `modules`.

    Raises `InputError` for those of `modules` that are no such layer's last part.
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _IN_A_BLOCK.search(name)
    ]
    there = {name: name.rpartition(".")[2] for name in linear}
    unknown = sorted({*(modules or ())} - {*there.values()})
    if unknown or not linear:
        called = f" called {', '.join(unknown)}" if unknown else ""
        what = f"{type(model).__name__} has no linear layers{called} in its blocks"
        available = ", ".join(dict.fromkeys(there.values())) or "none"
        raise InputError.one("lora.modules", what, f"available: {available}")
    return [name for name, part in there.items() if modules is None or part in modules]


def adapt(model: Any, lora: Lora, task: Task) -> None:
    """Add adapters to a model, in place; its own weights learn no more, but for a head drawn anew.

    What is drawn comes from torch's global generator. At first the model says what it said.
    """
    from peft import LoraConfig, inject_adapter_in_model  # which is optional

    names = adapted_layers(model, lora.modules)
    convolved = any(isinstance(model.get_submodule(name), Conv1D) for name in names)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # of which peft takes any number
        lora_dropout=lora.dropout,
        target_modules=names,
        fan_in_fan_out=convolved,
    )
    inject_adapter_in_model(config, model, _NAME)
    for name, parameter in model.named_parameters():
        if not task.wide and of_the_head(model, name):
            parameter.requires_grad_()


def is_adapter(name: str) -> bool:
    """Whether a weight of this name is an adapter's."""
    return f".{_NAME}." in name and ".lora_" in name


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within, a model's adapters are added to the weights that they adapt: it is a plain one."""
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "lora_A", None), nn.ModuleDict)
    ]
    own: list[Tensor] = []
    for name, layer in layers:
        weight: Tensor = layer.get_base_layer().weight.data
        own.append(weight.to("cpu", copy=True))  # a GPU may have no room for two
        weight += layer.get_delta_weight(_NAME).detach()
        model.set_submodule(name, layer.get_base_layer())
    try:
        yield
    finally:
        for (name, layer), weight in zip(layers, own, strict=True):
            layer.get_base_layer().weight.data.copy_(weight)
            model.set_submodule(name, layer)


def write_adapter(
    folder: Path, model: Any, state: Mapping[str, Tensor], name: str, source: Model, task: str
) -> None:
    """Write the adapter in `state` as peft does: `PeftModel.from_pretrained` reads it.

    `model` is the study's model `name`, from `source`, with adapters.
    """
    learnt = {name for name, weight in model.named_parameters() if weight.requires_grad}
    weights = {
        f"base_model.model.{name.replace(f'.{_NAME}', '')}": value.contiguous()
        for name, value in state.items()
        if name in learnt
    }
    heads = {_module_of(name) for name in learnt if not is_adapter(name)}
    config: Any = model.peft_config[_NAME]
    config.base_model_name_or_path = source.hub or name  # a path would say where it lay
    config.revision = source.revision
    config.task_type = TASK_TYPES[task]
    config.modules_to_save = sorted(heads) or None
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)


def _module_of(name: str) -> str:
    """The module of a head that a weight is of: `classifier` of `classifier.dense.weight`.

    That of one of timm's models is a part of the model.
    """
    parts = name.split(".")
    if parts[0] == "timm_model":
        return ".".join(parts[:-1])
    return "pooler" if "pooler" in parts else parts[0]
