"""What the catalogue says of a data set; see `catalogue`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Convert = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one split of a repository of the Hub."""

    hub: str
    config: str | None = None
    split: str
    revision: str
    """A commit; a branch for the repositories of `UNPINNED`."""
    data_files: str | None = None
    """Paths within the repository, where its own layout does not do or would load too much."""
    keep: tuple[str, str] | None = None
    """Keep only the rows whose column (first) has this value (second)."""
    convert: Convert | None = None
    """Brings a row to the entry's columns."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set: what its columns mean, and which rows of the Hub are its splits."""

    task: str
    text: tuple[str, ...]
    """Columns; `a.b` is the field b of the column a."""
    label: str
    labels: tuple[str, ...] = ()
    """In the order of their numbers; of klue3 collected from the data."""
    metric: str
    rows: Mapping[str, int]
    """The counts that were published with the study's results, before any `limit`."""
    parts: Mapping[str, tuple[Part, ...]]
    """By split. One without an entry is cut off train; none at all: bring your own files."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """How many rows the study's seed draws from train for a split without parts."""
    fair: bool = False
    """Whether a split without parts is drawn as of one's own files: a tenth, by label and group."""
    output_rows: float
    """Of a teacher's outputs, the mean per row of data; an estimate for their size: words of ner,
    tokens of qa's context, tokens of a translation or a completion."""
    label_count: int | None = None
    """Where `labels` does not say it."""
    prompt: str | None = None
    """Of lm: the template of a prompt, where it is not the text alone; see `Dataset`."""
    choices: str | tuple[str, ...] | None = None
    """Of lm: a question's choices; see `Dataset`."""
    languages: tuple[str, str] | None = None
    """Of translation: the source's and the target's code in mBART's tokenizer."""
    image_size: int | None = None
    """Of images that all have one size: that."""
    limit: Mapping[str, int] = field(default_factory=dict)
    """The most rows of a split, drawn by the study's seed, where the study sets no limit."""
    note: str = ""
    """Where the splits come from, and what differs from the published ones."""
