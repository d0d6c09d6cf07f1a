"""The files of a pretrained model's folder, as `save_pretrained` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdsearch.errors import InputError, shortened_list
from kdsearch.study.sources import NOT_WEIGHTS
from kdsearch.study.standin import stand_in

_SMALL_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def check_files(folder: Path, place: str) -> None:
    """Raise `InputError` where a model's files are not all there, or others in their place."""
    weights = _listed(folder)
    if not (folder / "config.json").is_file() or not weights:
        raise InputError.one(
            place,
            f"{folder} holds no model",
            "give a folder as save_pretrained writes it: config.json and model.safetensors",
        )
    if missing := [file.name for file in weights if not file.is_file()]:
        what = f"{folder} lacks {shortened_list(missing)}, of {len(weights)} weight files"
        raise InputError.one(place, what, "fetch them, or wait until the folder is complete")
    for name in _SMALL_JSON:
        if (folder / name).is_file():
            _json_object(folder / name)
    texts = {path for pattern in NOT_WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    if problems := [found for path in (*weights, *sorted(texts)) if (found := stand_in(path))]:
        raise InputError(problems)


def refuse_adapter(folder: Path, place: str) -> None:
    """Raise `InputError` for a folder that holds what was added to a model, and not the model."""
    if (folder / "adapter_config.json").is_file():
        what = f"{folder} is an adapter, such as LoRA makes, without the model it adapts"
        remedy = (
            "merge the two with merge_and_unload() of peft, and give what save_pretrained writes"
        )
        raise InputError.one(place, what, remedy)


def config_of(folder: Path) -> dict[str, Any]:
    """What its config.json says. Raises `InputError` where that is no JSON object."""
    return _json_object(folder / "config.json")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError.one(path, f"not JSON: {error}", "fetch it again") from None
    if not isinstance(content, dict):
        raise InputError.one(path, "not a JSON object", "fetch it again")
    return content


def quantised(config: dict[str, Any]) -> str | None:
    """The method by which a model was quantised, if it was."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else None
    return str(method or "bitsandbytes")  # which once left its name out


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's folder that transformers reads its weights from."""
    return [file for file in _listed(folder) if file.is_file()]


def _listed(folder: Path) -> list[Path]:
    """Those files, and those that the index of the shards names and that are missing."""
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            shards = _json_object(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise InputError.one(index, "has no weight_map", "fetch it again")
            return [folder / shard for shard in sorted(set(map(str, shards.values())))]
    return []
