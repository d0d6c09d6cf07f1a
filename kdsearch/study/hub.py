"""The Hugging Face Hub: asked once whether it can be reached, then only if it can."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from kdsearch.errors import InputError, Problem, first_line
from kdsearch.study.entry import Entry, Part
from kdsearch.study.tasks import SPECS

_PROBE_SECONDS = 3.0


@cache
def reachable() -> bool:
    """Whether the Hub answers; one quick probe, since its own client retries for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if "https" in getproxies():
        return True  # a direct connection would say nothing
    url = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    address = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
    try:
        with socket.create_connection(address, timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


class HubUnreachableError(InputError):
    """The Hub is needed and cannot be reached. Said once, for all that needs it."""

    @classmethod
    def of(cls, wanted: Iterable[str]) -> HubUnreachableError:
        """The error for all of `wanted`."""
        problem = Problem(
            place=", ".join(wanted),
            what="not on this machine, and the Hugging Face Hub cannot be reached from here",
            remedy="where it can be: kdsearch fetch STUDY --data-dir DIR; then launch with "
            "--data-dir DIR. Or put files there: DIR/NAME/{train,validation,test}.jsonl, "
            "DIR/models/NAME/",
        )
        return cls([problem])


def hub_rows(entry: Entry, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split of a data set of the catalogue. Raises `InputError`."""
    for part in entry.parts[split]:
        place = f"{part.hub}{f' ({part.config})' if part.config else ''}: {part.split}"
        if not reachable():
            raise HubUnreachableError.of([place])
        try:
            rows = _load(part)
            if SPECS[entry.task].reads == "pixels":
                rows = _encoded(rows, entry)
            for row in rows:
                yield part.convert(row) if part.convert is not None else row
        except Exception as error:  # datasets raises whatever its readers raise
            raise InputError.one(place, f"cannot be loaded: {first_line(error)}") from None


def _load(part: Part) -> Any:
    from datasets import load_dataset

    if part.data_files is None:
        data = load_dataset(part.hub, part.config, revision=part.revision, split=part.split)
    else:
        files = f"hf://datasets/{part.hub}@{part.revision}/{part.data_files}"
        # by its files, since the repository itself may be a script, which no longer loads
        data = load_dataset("parquet", data_files={part.split: files}, split=part.split)
    if part.keep is not None:
        column, wanted = part.keep
        data = data.filter(lambda value: value == wanted, input_columns=column)
    return data


def _encoded(data: Any, entry: Entry) -> Iterator[dict[str, Any]]:
    """Rows of images as the bytes of their files, whose classes the catalogue or the Hub names."""
    from datasets import ClassLabel, Image

    [column], label = entry.text, entry.label
    classes = data.features[label]
    for row in data.cast_column(column, Image(decode=False)):
        if not entry.labels and isinstance(classes, ClassLabel):
            row = {**row, label: classes.int2str(row[label])}
        yield row


def hub_model(
    hub: str, revision: str | None, place: str, to: Path | None = None, *, code: bool = False
) -> Path:
    """The folder of a model of the Hub, downloaded if it is not in the local cache.

    With `to` it is downloaded into that folder instead; with `code` its Python files come too.
    """
    from huggingface_hub import snapshot_download

    def download(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                hub,
                revision=revision,
                local_files_only=not reachable(),
                local_dir=to,
                allow_patterns=["*.json", "*.txt", "*.model", "*.spm", *patterns] + ["*.py"] * code,
            )
        )

    try:
        folder = download("*.safetensors")
        return folder if any(folder.glob("*.safetensors")) else download("pytorch_model*.bin")
    except Exception as error:  # its errors have no common class
        if os.path.isdir(hub):
            what = "is taken for a model of the Hub, and cannot be fetched from there"
            remedy = f"did you mean ./{hub}?"
            raise InputError.one(f"{place} ({hub})", what, remedy) from None
        if not reachable():
            raise HubUnreachableError.of([f"{place} ({hub})"]) from None
        what = f"cannot be fetched from the Hub: {first_line(error)}"
        raise InputError.one(f"{place} ({hub})", what, "give a folder: --model NAME=PATH") from None
