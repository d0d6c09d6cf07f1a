"""What a study resolves to: everything outside of its file that a training's result depends on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdsearch.study.schema import Study

FORMAT: Literal[3] = 3
"""Of resolved.json. Raise it when an older kdsearch could not read it."""
READABLE = (1, 2, 3)
"""The formats that this kdsearch reads. The first did not tell the files that were read, the second
had the paper's search alone."""


class Record(BaseModel):
    """What is kept in the study's folder: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ResolvedSplit(Record):
    """The rows of a split, by their digest."""

    digest: str
    rows: int
    unlabelled: int = 0
    """Rows of the training split without a gold label; only a teacher can say what they are."""
    units: int = 0
    """About how many rows of a teacher's outputs there are; the name is older than the word."""


class ResolvedDataset(Record):
    """A data set as it was read, cut and checked."""

    task: str
    metric: str
    labels: tuple[str, ...]
    languages: tuple[str, str] | None = None
    splits: dict[str, ResolvedSplit]
    cut: dict[str, int] = {}
    """How many rows were cut off the training split for a split that had no source."""
    left_out: dict[str, int] = {}
    """How many rows were left out, by split: of a published data set those that cannot be used, of
    one's own the questions without an answer."""
    drawn: str | None = None
    """How splits were drawn off the training rows of one's own files, in words.

    None: without regard to labels and groups, as the catalogue's are and as all once were.
    """
    shared: dict[str, int] = {}
    """How many rows of a split that was cut off have their context, premise or text in train."""
    converted: str | None = None
    """Of ner: the scheme of the tags that were made into IOB2."""
    unanswerable: bool = False
    """Whether its questions may have no answer."""
    answer: str | None = None
    """Of lm: the pattern of a final answer."""
    also: tuple[str, ...] = ()
    """Further metrics."""
    messages: bool = True
    """Of lm: whether a prompt is one of messages, which a chat template writes; True in folders
    that did not tell."""
    files: dict[str, str] | None = None
    """The SHA-256 of each local file it was read from; None in folders that did not tell."""
    test_groups: str | None = None
    """The digest of rows that number the group of each test row, by a column that the study names;
    None where it names none that they have, and in folders that did not tell."""

    tokens: int = 0
    """About how many tokens the training rows have, for what is kept of each; 0 where it was not
    looked at."""
    image_size: int | None = None
    """Of images: the side of what is kept of each."""
    enlarged: dict[str, int] = {}
    """How many images of a split are less than half as large as they are kept."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all that is kept of its rows."""
        groups = () if self.test_groups is None else (self.test_groups,)
        return (*(split.digest for split in self.splits.values()), *groups)


_UNTOLD: dict[str, Any] = {
    "cut": {},
    "left_out": {},
    "drawn": None,
    "shared": {},
    "converted": None,
    "files": None,
    "test_groups": None,
    "also": (),
    "messages": True,
    "tokens": 0,
    "image_size": None,
    "enlarged": {},
}
"""A data set without what is told of its rows, which trainings do not see."""


_UNTOLD_OF_MODEL: dict[str, Any] = {"files": None, "depth": None}


class ResolvedModel(Record):
    """A pretrained model by the digest of its files; `path` is where it was found."""

    path: str | None
    digest: str | None
    revision: str | None = None
    """The Hub's commit that it came from."""
    labels: tuple[str, ...] | None
    """The names of its outputs, of a model that was fine-tuned for classification."""
    files: dict[str, str] | None = None
    """The SHA-256 of each file of its folder; None of the Hub's, and where none was recorded."""
    depth: int | None = None
    """How many layers it has; None where its configuration does not say, and of an
    encoder-decoder."""


class Fused(Record):
    """How many students of a kind are trained in one pass, as the first launch found it out."""

    asked: Literal["auto"] | int
    """`resources.fuse` then."""
    most: dict[str, dict[str, Annotated[int, Field(ge=1, le=2**31)]]]
    """By student and data set; 1 where each is trained alone."""


class Resolved(Record):
    """A study and the digests of what it names. Keys of trainings come only from here."""

    format: Literal[1, 2, 3] = FORMAT
    training_version: int = 2
    """Of the training code (see `agenda.VERSION`); of a folder that does not say so, 2."""
    study: Study
    datasets: dict[str, ResolvedDataset]
    models: dict[str, ResolvedModel]
    versions: dict[str, str]
    """For the record; no part of any key."""
    fused: Fused | None = None
    """None before the first launch found it out, and in folders that trained each student alone."""

    @property
    def content(self) -> dict[str, ResolvedDataset | ResolvedModel]:
        """What trainings see of the data sets and models, `datasets.NAME` and `models.NAME`."""
        return {
            **{f"datasets.{n}": d.model_copy(update=_UNTOLD) for n, d in self.datasets.items()},
            **{
                f"models.{n}": m.model_copy(update=_UNTOLD_OF_MODEL) for n, m in self.models.items()
            },
        }
