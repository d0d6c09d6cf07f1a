"""What the trainings of a worker process share: it is read and encoded once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from kdsearch.agenda import DataSpec, ModelSpec
from kdsearch.distill.models import load_tokenizer
from kdsearch.ledger import Ledger, layout
from kdsearch.study import SPECS, Row
from kdsearch.tasks import TASKS, Encoded, Settings


class _Hashed:
    """A cache key that carries the values it was made from."""

    def __init__(self, key: tuple[object, ...], *values: Any) -> None:
        self.key = key
        self.values = values

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.key == other.key


def tokenizer_of(spec: ModelSpec, data: DataSpec, folder: Path) -> Any:
    """The tokenizer of a model of the study in `folder`."""
    return _tokenizer(_Hashed(_tokenizer_key(spec, data), spec, data, folder))


def _tokenizer_key(spec: ModelSpec, data: DataSpec) -> tuple[object, ...]:
    of_rows = spec.tokenizer_name is None or SPECS[data.task].reads == "pixels"
    return spec.tokenizer, data.train if of_rows else ""


@lru_cache(maxsize=8)
def _tokenizer(wanted: _Hashed) -> Any:
    spec, data, folder = wanted.values
    ledger = Ledger(folder)
    train = partial(ledger.rows, data.train)
    return load_tokenizer(spec, TASKS[data.task], train, ledger.resolved())


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split as tensors on a device: all that they depend on."""

    spec: ModelSpec
    data: DataSpec
    split: str
    settings: Settings
    labelled: bool
    folder: Path
    device: str
    sequences: str | None = None
    """The key of the training whose rows stand in the place of the split's."""

    @property
    def digest(self) -> str | None:
        """Of its rows; of those that a teacher wrote, of their file."""
        if self.sequences:
            return Ledger(self.folder).digest(layout.sequences(self.sequences))
        digest: str = getattr(self.data, self.split)
        return digest

    @property
    def rows(self) -> list[Row]:
        """Its rows."""
        ledger = Ledger(self.folder)
        if self.sequences:
            return ledger.sequences(self.sequences)
        return ledger.rows(getattr(self.data, self.split))

    @property
    def key(self) -> tuple[object, ...]:
        """What the tensors differ by."""
        settings = self.settings
        images = SPECS[self.data.task].reads == "pixels"  # which are the same for all models
        return (
            *(() if images else _tokenizer_key(self.spec, self.data)),
            (self.data.task, self.data.languages, self.data.unanswerable),
            (self.digest, self.split, self.labelled),
            (settings.max_length, settings.stride, self.device),
        )


def encoded(split: Split) -> Encoded:
    """A split as a model's tokenizer reads it."""
    return _encoded(_Hashed(split.key, split))


@lru_cache(maxsize=6)
def _encoded(wanted: _Hashed) -> Encoded:
    (split,) = wanted.values
    task, gold = TASKS[split.data.task], SPECS[split.data.task].gold
    rows = split.rows
    if split.labelled:
        known = [row for row in rows if row[gold] is not None]
        if len(known) == len(rows):  # images take much memory, so that one copy serves both
            return encoded(replace(split, labelled=False))
        rows = known
    tokenizer = tokenizer_of(split.spec, split.data, split.folder)
    training = split.split == "train"
    found = task.encode(rows, tokenizer, split.data, split.settings, training=training)
    return found.to(split.device)
