"""The names and shapes of the weights in a model's files, without the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdsearch.errors import InputError, first_line
from kdsearch.study import weight_files

Shapes = Mapping[str, tuple[int, ...]]

_CUT_OFF = ("incomplete metadata", "invalid header length", "header too small")
"""What safetensors says of a file whose end is missing."""


def read_shapes(folder: str) -> Shapes:
    """The shape of each weight of a model by its name; no code of the files is run.

    Raises `InputError` where a file is no file of weights.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(Path(folder)):
        try:
            shapes |= _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        except InputError:
            raise
        except Exception as error:  # torch's and safetensors' have no common class
            raise _unreadable(file, error) from None
    return shapes


def _safetensors(file: Path) -> Shapes:
    with safe_open(file, framework="pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118


def _pickled(file: Path) -> Shapes:
    found = torch.load(file, map_location="meta", weights_only=True)
    shapes = {
        name: tuple(value.shape) for name, value in found.items() if isinstance(value, Tensor)
    }
    if not shapes and isinstance(found.get("state_dict"), dict):
        what = f"{file.name} is a training checkpoint: its weights are inside, as state_dict"
        raise InputError.one(file, what, "save the model with save_pretrained")
    return shapes


def _unreadable(file: Path, error: Exception) -> InputError:
    if _is_cut_off(file, error):
        remedy = "fetch it again, or wait until it is complete"
        return InputError.one(file, f"{file.name} is cut off", remedy)
    what = f"{file.name} holds no plain weights: {first_line(error)}"
    return InputError.one(file, what, "give model.safetensors")


def _is_cut_off(file: Path, error: Exception) -> bool:
    if isinstance(error, SafetensorError):
        return any(words in str(error) for words in _CUT_OFF)
    with file.open("rb") as content:
        archive = content.read(2) == b"PK"  # as torch.save writes it today; its index is at the end
    if archive:
        return not is_zipfile(file)
    return isinstance(error, EOFError) or "unexpected EOF" in str(error)
