"""What became of a training: an outcome, written once, or attempts that failed."""

from __future__ import annotations

from typing import Annotated, Literal, NewType

from pydantic import Field

from kdsearch.agenda.training import (
    ErmTraining,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
)
from kdsearch.search import ValidationScore
from kdsearch.study import Record

TestScore = NewType("TestScore", float)
"""A score on the test split. Nothing in `search/` accepts one."""
TestScore.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name


class Epoch(Record):
    """One epoch of a training, counted from 1."""

    epoch: int
    train_loss: float | None
    """The mean of the loss that was minimised; None where it was not finite."""
    validation: ValidationScore | None
    validation_loss: float | None
    """Cross-entropy on the labels; None where it was not finite."""


class Cost(Record):
    """What a training took. The only part of an outcome that differs between equal runs."""

    seconds: float
    device: str
    host: str
    bytes_written: int = 0
    """Of checkpoints or outputs kept on disk."""
    examples_per_second: float | None = None
    """Of a model that scored the test split: rows there, over the time that scoring them took."""


class Outcome(Record):
    """The result of a training. One that diverged is a result too: it has no score."""

    key: str
    training: Annotated[
        TeacherTraining | OutputsTraining | StudentTraining | ErmTraining,
        Field(discriminator="kind"),
    ]
    state: Literal["scored", "diverged"]
    validation: ValidationScore | None = None
    test: TestScore | None = None
    epochs: tuple[Epoch, ...] = ()
    best_epoch: int | None = None
    """Of the highest validation score: the one that is scored, and a teacher's t_hs."""
    lowest_loss_epoch: int | None = None
    """Of the lowest validation loss: a teacher's t_ll."""
    parameters: int | None = None
    """How many weights the model has."""
    model_bytes: int | None = None
    """What its weights take in memory, in full precision."""
    metric: str = ""
    """How exactly the scores are computed, as a publication would state it."""
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file that was kept, by its path in the study's folder."""
    cost: Cost


class Attempt(Record):
    """A try that ended without an outcome."""

    key: str
    number: int
    failure: Literal["error", "worker_lost", "storage", "input"]
    """`storage` and `input`: the disk or the files failed it, not the training; no try of it."""
    message: str
    traceback: str = ""
    host: str

    @property
    def counts(self) -> bool:
        """Whether it is one of the tries that a study grants."""
        return self.failure not in ("storage", "input")
