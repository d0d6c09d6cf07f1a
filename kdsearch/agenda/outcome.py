"""What became of a training: an outcome, written once, or attempts that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NewType

from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from kdsearch.agenda.training import AnyTraining, SequencesTraining, written
from kdsearch.search import ValidationScore
from kdsearch.study import Record

TestScore = NewType("TestScore", float)
"""A score on the test split. Nothing in `search/` accepts one."""


class Finite(Record):
    """A record whose numbers are finite: JSON has no NaN and no Infinity."""

    model_config = ConfigDict(allow_inf_nan=False)


# Wide enough for all that was ever measured, and small enough that sums and means are finite.
_Score = Field(ge=-1e6, le=1e6)
_Measured = Annotated[float, Field(ge=-1e6, le=1e6)]
_Temperature = Annotated[float, Field(ge=0, le=1e30)]
Measures = dict[Annotated[str, Field(pattern="^[a-z_][a-z0-9_]{0,59}$")], _Measured]
"""By name. Empty where nothing was measured; a measure that was not, or is undefined, is absent."""
_Count = Annotated[int, Field(ge=0, le=2**63)]


def _or_unknown(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """A worker's clock may be wrong, and no result is worth less for that."""
    try:
        return read(value)
    except ValidationError:
        return None


# Every time zone can say these.
_Time = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(3000, 1, 1, tzinfo=UTC))
]
_TimeIfKnown = Annotated[_Time | None, WrapValidator(_or_unknown)]


class Epoch(Finite):
    """One epoch of a training, counted from 1."""

    epoch: int
    train_loss: float | None
    """The mean of the loss that was minimised; None where it was not finite."""
    validation: Annotated[ValidationScore, _Score] | None
    validation_loss: float | None
    """Cross-entropy on the labels; None where it was not finite."""
    measures: Measures = Field(default_factory=dict)
    """On validation."""
    learnt_temperature: _Temperature | None = None
    """What the objective's was behind it, where it learns one."""


class TrainingCurve(Finite):
    """What a training's batches had on average, as they were trained on."""

    steps: Annotated[int, Field(ge=1, le=2**63)]
    """Of the whole training."""
    every: Annotated[int, Field(ge=1, le=2**63)]
    """Over how many steps a point is the mean; the last one may have fewer."""
    posterior_entropy: tuple[_Measured | None, ...]
    """In nats; None where it was not measured, or not finite."""

    @model_validator(mode="after")
    def _reaches_the_end(self) -> TrainingCurve:
        if len(self.posterior_entropy) != -(-self.steps // self.every):
            raise ValueError(f"{len(self.posterior_entropy)} points of {self.every} steps each")
        return self


MOST_RANKS = 100
"""Of a sorted softmax so many are kept."""
_Share = Annotated[float, Field(ge=0, le=1.001)]


class Softmax(Finite):
    """A model's softmax at one temperature, over a split: means over the units."""

    temperature: Annotated[float, Field(gt=0, le=1e6)]
    classes: Annotated[int, Field(ge=1, le=2**31)]
    relative_entropy: _Share | None
    """H(p) / ln C; None of one class."""
    relative_entropy_without_top: _Share | None
    """H(q) / ln(C − 1), q being p without its most probable class; None of two classes."""
    ranks: Annotated[tuple[_Share, ...], Field(max_length=MOST_RANKS)]
    """The probability of the most probable class of each unit, the second, and so on."""
    lowest: _Share
    """That of the least probable one."""


class WrittenRows(Finite):
    """What became of the texts that a teacher wrote."""

    texts: _Count
    """All that it wrote."""
    unfinished: _Count = 0
    """Of these, those that had not ended after the most tokens; they are not learnt from."""
    empty: _Count = 0
    """Those without a word, which are not learnt from either."""
    wrong: _Count = 0
    """Of `rejection`, those whose answer is not that of the label."""
    repeated: _Count = 0
    """Those that it had written before for the same row."""
    without: _Count = 0
    """The rows of the training split for which nothing is left."""

    @property
    def left_out(self) -> dict[str, int]:
        """Those that are not learnt from, by why."""
        names = ("unfinished", "empty", "wrong", "repeated")
        return {name: getattr(self, name) for name in names}

    @property
    def rows(self) -> int:
        """Those that are learnt from."""
        return self.texts - sum(self.left_out.values())


class Cost(Finite):
    """What a training took. The only part of an outcome that differs between equal runs."""

    seconds: Annotated[float, Field(ge=0, le=1e10)]
    started: _TimeIfKnown = None
    """When its last try began; None in outcomes that did not tell. In UTC, as `ended` is."""
    ended: _TimeIfKnown = None
    device: str
    host: str
    bytes_written: _Count = 0
    """Of checkpoints or outputs kept on disk."""
    examples_per_second: Annotated[float, Field(ge=0, le=1e18)] | None = None
    """Of a model that scored the test split: its examples over the time that scoring them took."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what it ran on, such as torch; `device` says on which GPU."""


class Outcome(Finite):
    """The result of a training. One that diverged is a result too: it has no score."""

    key: str
    training: AnyTraining
    state: Literal["scored", "diverged"]
    validation: Annotated[ValidationScore, _Score] | None = None
    test: Annotated[TestScore, _Score] | None = None
    epochs: tuple[Epoch, ...] = ()
    curve: TrainingCurve | None = None
    """None where it was not measured."""
    measures: Measures = Field(default_factory=dict)
    """On test; of a checkpoint's outputs, on their split."""
    softmax: tuple[Softmax, ...] = ()
    """Of a checkpoint's outputs on their split at several temperatures, of a student on test at 1.
    Empty where it was not measured: in earlier versions, and where classes are many or vary."""
    wrote: WrittenRows | None = None
    """Of a checkpoint's sequences alone."""
    best_epoch: int | None = None
    """Of the highest validation score: the one that is scored, and a teacher's t_hs."""
    lowest_loss_epoch: int | None = None
    """Of the lowest validation loss: a teacher's t_ll."""
    parameters: _Count | None = None
    """How many weights the model has."""
    trained_parameters: _Count | None = None
    """How many weights were trained, adapters among them; None where all of the model's were."""
    model_bytes: _Count | None = None
    """What its weights take in memory, in full precision."""
    logit_scale: Annotated[float, Field(ge=0, le=1e30)] | None = None
    """The teacher's on the training split: of its outputs there, and of a student with temperatures
    in units of it. None elsewhere, and of outputs before it was measured."""
    learnt_temperature: _Temperature | None = None
    """What the objective's was behind the epoch that is scored, where it learns one."""
    smoothing: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of a student that learns smoothed labels in a teacher's place: the coefficient, or the mean
    of those of all rows."""
    parts: int = 1
    """In how many parts each batch was computed: more than one after a GPU's memory ran out."""
    fused: Annotated[int, Field(ge=1, le=2**31)] = 1
    """How many students were trained in one pass, this one among them. What several learn is what
    each learns alone to rounding, not to the bit."""
    metric: str = ""
    """How exactly the scores are computed, as a publication would state it."""
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file that was kept, by its path in the study's folder."""
    cost: Cost

    @property
    def wrote_nothing(self) -> str | None:
        """Of a teacher that wrote no text to learn from: what became of them, and what helps."""
        wrote, training = self.wrote, self.training
        if wrote is None or wrote.rows or not isinstance(training, SequencesTraining):
            return None
        longest, none = training.settings.max_length, f"none of its {wrote.texts} texts"
        if wrote.unfinished == wrote.texts:
            what = f"{none} ended under a max_length of {longest}"
            return f"{what}; raise it, or train the teacher longer"
        if wrote.wrong == wrote.texts:
            return f"{none} had the right answer; train the teacher longer"
        why = ", ".join(f"{number} {name}" for name, number in wrote.left_out.items() if number)
        what = f"{none} can be learnt from ({why})"
        return f"{what}; train the teacher longer, or raise max_length from {longest}"


def written_outcome(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome, in what JSON has."""
    return {**outcome.model_dump(mode="json"), "training": written(outcome.training)}


Failure = Literal[
    "error",
    "gpu_oom",
    "host_oom",
    "timeout",
    "preempted",
    "worker_lost",
    "storage",
    "input",
]
"""Why a try has no outcome. A training that diverges has one: that is a result.

error: the training raised. gpu_oom, host_oom: memory ran out. timeout: the watchdog ended it.
preempted: its node went away. worker_lost: its process ended without a word. storage, input: the
disk or the files failed it.
"""

FAILURES: dict[Failure, str] = {
    "error": "an error",
    "gpu_oom": "its GPU ran out of memory",
    "host_oom": "its host ran out of memory",
    "timeout": "it exceeded its time limit",
    "preempted": "its node went away",
    "worker_lost": "its worker was lost",
    "storage": "the disk could not be written",
    "input": "its files could not be used",
}
"""Each class as a reader of a report is told of it."""

LOST_WITHOUT_PROGRESS = 3
PREEMPTED_WITHOUT_PROGRESS = 10
_GPU_OOM_TRIES = 2


class Attempt(Record):
    """A try that ended without an outcome."""

    key: str
    number: int
    failure: Failure
    message: str
    traceback: str = ""
    host: str
    """Of the node where it ran; empty if that is not known."""
    fused: int = 1
    """How many trainings its slot had in hand, this one among them."""
    steps: int = 0
    """Of the training's last checkpoint: where the next try goes on."""
    ended: _TimeIfKnown = None
    """When it was written down, in UTC; None where that was not told."""

    @property
    def what(self) -> str:
        """Its class, and the node if that is known: `worker_lost on kdw2`."""
        return f"{self.failure} on {self.host}" if self.host else self.failure


def failed_for_good(attempts: Sequence[Attempt], tries: int) -> bool:
    """Whether a training with these failed tries is not tried again; `tries` is the study's.

    Errors, timeouts and a host's want of memory share the study's tries. A GPU's want of memory is
    tried once more, with each batch in parts. A process that is lost, or a node, is no fault of
    the training while its checkpoints get on; so are the disk and the files never. Nobody knows
    whose fault it was in one pass with others: that try counts for nothing, and the next is alone.
    """
    alone = [attempt for attempt in attempts if attempt.fused == 1]
    count = Counter(attempt.failure for attempt in alone)
    furthest = max((attempt.steps for attempt in alone), default=0)
    stuck = Counter(attempt.failure for attempt in alone if attempt.steps == furthest)
    return (
        count["error"] + count["timeout"] + count["host_oom"] >= tries
        or count["gpu_oom"] >= _GPU_OOM_TRIES
        or stuck["worker_lost"] >= LOST_WITHOUT_PROGRESS
        or stuck["preempted"] >= PREEMPTED_WITHOUT_PROGRESS
    )
