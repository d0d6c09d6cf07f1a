"""The Hugging Face Hub: asked once whether it can be reached, then only if it can."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from kdsearch.errors import InputError, first_line
from kdsearch.study.catalogue import Entry

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


def hub_rows(entry: Entry, split: str) -> list[dict[str, Any]]:
    """The rows of a split of a data set of the catalogue. Raises `InputError`."""
    place = f"{entry.hub} ({entry.config})"
    if not reachable():
        raise InputError.one(
            f"{place}: {split}",
            "the Hugging Face Hub cannot be reached from here",
            "give the files: --data-dir DIR with DIR/NAME/{train,validation,test}.jsonl.gz",
        )
    from datasets import load_dataset

    try:
        data = load_dataset(entry.hub, entry.config, revision=entry.revision, split=split)
    except Exception as error:  # datasets raises whatever its readers raise
        raise InputError.one(f"{place}: {split}", f"cannot be loaded: {error}") from None
    return [dict(row) for row in data]


def hub_model(hub: str, revision: str | None, place: str) -> Path:
    """The folder of a model of the Hub, downloaded if it is not in the local cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub,
                revision=revision,
                local_files_only=not reachable(),
                allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
            )
        )
    except Exception as error:  # its errors have no common class
        what = f"cannot be had from the Hub: {first_line(error)}"
        if not reachable():
            what = "is not in the local cache, and the Hugging Face Hub cannot be reached from here"
        raise InputError.one(f"{place} ({hub})", what, "give a folder: --model NAME=PATH") from None
