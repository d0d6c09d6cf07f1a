"""Trainings: values that hold everything that determines their result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    Discriminator,
    PlainValidator,
    Tag,
    TypeAdapter,
    model_validator,
)

from kdsearch.search import Ce, Checkpoint, Labels, LabelSmoothing, Mse, Objective, Written
from kdsearch.study import HIDDEN, LATER, Augmentation, Record, ResolvedDataset, TrainingSettings

VERSION = 3
"""Of the training code. Raise it when the same training would give another result.

What another CPU would round otherwise too is no other result.
"""

# What a training carries for readers and workers, and what its key leaves out: no result has it.
_NAMES: dict[str, Any] = {
    "data": {"also"},
    "model": {"name", "tokenizer_name"},
    "checkpoint": {"model": {"name", "tokenizer_name"}},
    "start": {"model": {"name", "tokenizer_name"}},
    "teaching": {"teacher": {"model": {"name", "tokenizer_name"}}, "checkpoint_name": True},
    "settings": {"gradient_checkpointing"},
}


class DataSpec(Record):
    """A data set: the digest of each split's rows, its labels and its metric."""

    task: str
    metric: str
    labels: tuple[str, ...]
    languages: tuple[str, str] | None = None
    train: str
    validation: str
    test: str
    unanswerable: Annotated[bool, LATER] = False
    """Of qa: whether a question may have no answer, whose place is [CLS]."""
    answer: Annotated[str | None, LATER] = None
    """Of lm: the pattern of a final answer; None for what stands behind ####."""
    also: tuple[str, ...] = ()
    """Further metrics, which are measured on test; no part of a key."""

    @classmethod
    def of(cls, dataset: ResolvedDataset) -> DataSpec:
        """That of a data set as it was read."""
        return cls(
            task=dataset.task,
            metric=dataset.metric,
            labels=dataset.labels,
            languages=dataset.languages,
            train=dataset.splits["train"].digest,
            validation=dataset.splits["validation"].digest,
            test=dataset.splits["test"].digest,
            unanswerable=dataset.unanswerable,
            answer=dataset.answer,
            also=dataset.also,
        )


class ModelSpec(Record):
    """A model before training: a pretrained one by its digest, or a configuration at random."""

    name: str
    """In the study, which tells where the model lies; no part of a key."""
    weights: str | None
    config: dict[str, Any] | None
    tokenizer: str
    """`words`, or the digest of the model whose tokenizer it is."""
    tokenizer_name: str | None
    """That model's name in the study; no part of a key."""
    layers: int | str | None
    """Those to keep, as `study.layers` has them; None for all."""
    random: Annotated[bool, LATER] = False
    """Of a pretrained one: whether its weights are drawn, so that only the rest of it is used."""


class CheckpointSpec(Record):
    """A teacher's checkpoint: of a training of this study, or a given model."""

    model: ModelSpec
    training: str | None
    """The key of the teacher's training; None for a given one."""
    epoch: int | None
    """Of the teacher's training; None for a given one, and for a student at its best epoch."""
    labels: tuple[str, ...]
    """The names of its outputs, in their order."""


class ForwardSettings(Record):
    """How a teacher's outputs are computed."""

    batch_size: int
    max_length: int
    stride: int | None
    beams: int | None
    hidden_dtype: str | None
    cache: Annotated[str, LATER] = HIDDEN
    """Of the training split: what of the outputs is kept, as `study.cache` has it."""
    temperature: Annotated[float | None, LATER] = None
    """At which tokens are drawn or the likeliest are kept; None where all is."""
    precision: Literal["fp32", "bf16", "fp16"]
    cpu_threads: int
    augmentation: Annotated[Augmentation | None, LATER] = None
    """Of the training split: the outputs on each of its views, one view after another."""
    views_seed: Annotated[int | None, LATER] = None
    """Of the study, from which its views follow; None without."""


class WritingSettings(ForwardSettings):
    """How a teacher's texts are written; what the way that it writes does not use is None."""

    samples: int | None
    """Texts of each row, which are drawn."""
    temperature: float | None
    """At which they are drawn."""


class Keyed(Record):
    """A record with a key: the digest of everything in it but names."""

    version: int = 2
    """Of the training code that is meant; of what does not say so, 2."""

    @cached_property
    def key(self) -> str:
        """24 hexadecimal digits, equal for trainings whose results are equal."""
        content = _plain(self, exclude=_NAMES)
        _leave_out_later(self, content)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @property
    def reads(self) -> tuple[str, ...]:
        """The keys of the trainings whose products it reads, beside a teacher's checkpoint."""
        return ()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same with other values; its key is its own, whether or not this one's is known."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied


def _leave_out_later(record: BaseModel, content: dict[str, Any]) -> None:
    """Remove from the `content` of a record the fields marked `LATER` that have their default."""
    later, records = _fields(type(record))
    for name, default in later.items():
        if getattr(record, name) == default:
            del content[name]
    for name in records:
        part = getattr(record, name)
        if part is not None:
            # The fields of a part that is written beside those of its record stand there.
            _leave_out_later(part, content.get(name, content))


@cache
def _fields(kind: type[BaseModel]) -> tuple[dict[str, Any], frozenset[str]]:
    """Of a kind of record: the fields marked `LATER`, with their defaults; records with such."""
    fields = kind.model_fields
    later = {name: field.default for name, field in fields.items() if LATER in field.metadata}
    records = (
        name
        for name, field in fields.items()
        for part in (field.annotation, *get_args(field.annotation))
        if isinstance(part, type) and issubclass(part, BaseModel) and any(_fields(part))
    )
    return later, frozenset(records)


class TeacherTraining(Keyed):
    """Fine-tuning a teacher.

    The epochs of the highest score and of the lowest loss are kept, and those that a search names.
    """

    kind: Literal["teacher"] = "teacher"
    data: DataSpec
    model: ModelSpec
    learning_rate: float
    settings: TrainingSettings
    seed: int
    kept_epochs: Annotated[tuple[int, ...], LATER] = ()
    """Those that a search names, ascending."""
    smoothing: Annotated[float, LATER] = 0.0
    """The share of its labels that is spread evenly over all classes."""

    @property
    def objective(self) -> Objective:
        """What it minimises."""
        return LabelSmoothing(smoothing=self.smoothing) if self.smoothing else Labels()

    def __str__(self) -> str:
        smoothed = f" smoothing={self.smoothing:g}" if self.smoothing else ""
        return f"teacher {self.model.name} lr={self.learning_rate:g}{smoothed}"


SignalName = Literal["hidden_states", "cls_states", "attention", "relations"]


class Signal(Record):
    """What a model computes inside of it, in some of its layers, which are counted from 0."""

    name: SignalName
    """Of attention queries and keys, of relations queries, keys and values: what both are made
    of, at any number of heads, takes less than they do where texts are long."""
    layers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} of layers {'+'.join(map(str, self.layers))}"


SIGNALS: Mapping[str, SignalName] = {
    "hint": "hidden_states",
    "hidden_states": "hidden_states",
    "cls_states": "cls_states",
    "attention": "attention",
    "relations": "relations",
}
"""What each term of an objective compares."""


class OutputsTraining(Keyed):
    """Computing a checkpoint's outputs on one split, and its score there; or instead a signal."""

    kind: Literal["outputs"] = "outputs"
    data: DataSpec
    checkpoint: CheckpointSpec
    split: Literal["train", "validation", "test"]
    settings: ForwardSettings
    sequences: Annotated[str | None, LATER] = None
    """The key of the training that wrote the rows in the place of the training split's."""
    signal: Annotated[Signal | None, LATER] = None
    """What is kept in place of the outputs, of the training split."""

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Keyed`."""
        return (self.sequences,) if self.sequences else ()

    def __str__(self) -> str:
        what = self.signal or "outputs"
        where: str = "what it wrote" if self.sequences else self.split
        if self.settings.augmentation is not None:
            where = f"{self.settings.augmentation.views} views of {where}"
        return f"{what} of {_shown(self.checkpoint)} on {where}"


class SequencesTraining(Keyed):
    """Having a checkpoint write a text in the place of each training row's label.

    Its product are rows as the training split has them (Kim & Rush, EMNLP 2016, §3.2).
    """

    kind: Literal["sequences"] = "sequences"
    data: DataSpec
    checkpoint: CheckpointSpec
    how: Written
    settings: WritingSettings
    seed: int | None
    """Of what is drawn; None where nothing is."""

    def __str__(self) -> str:
        return f"{self.how} sequences of {_shown(self.checkpoint)}"


def _shown(checkpoint: CheckpointSpec) -> str:
    epoch = f" epoch {checkpoint.epoch}" if checkpoint.epoch is not None else ""
    return f"{checkpoint.model.name}{epoch}"


_SPREAD = ("distance", "temperature", "student_temperature", "alpha", "gradient_scale")
"""The fields of a student in which CE and MSE are written, beside the others. Of their parameters
those that came later stand in a part of their own."""


def _objective(content: Any) -> Objective:
    """An objective, or what is written of one. Raises `ValueError`."""
    if isinstance(content, Objective):
        return content
    try:
        kind = Objective.kinds[content["kind"]]
        return kind(**{name: value for name, value in content.items() if name != "kind"})
    except (KeyError, TypeError) as error:
        raise ValueError(f"is not an objective: {error}") from None


class Teaching(Record):
    """What a student learns from, beside labels."""

    teacher: CheckpointSpec
    outputs: str
    """The key of the teacher's outputs on the rows that are learnt on: those of the training split,
    or what the teacher wrote. Where the objective reads none, on the training split: what they say
    of the other splits is compared with the student."""
    sequences: Annotated[str | None, LATER] = None
    """The key of the training that wrote the rows that are learnt on; None: the data's own."""
    checkpoint_name: Checkpoint
    """What the search calls the checkpoint (two names may mean one); no part of a key."""
    weak: Annotated[str | None, LATER] = None
    """Of an objective that takes two views of each example, the key of the teacher's outputs on the
    weak one; `outputs` are those on the other."""
    signals: Annotated[dict[str, str] | None, LATER] = None
    """By the terms of the objective, the keys of the teacher's signals that they compare."""


class StudentTraining(Keyed):
    """Training a student with one objective and learning rate, taught or on labels alone."""

    kind: Literal["student"] = "student"
    data: DataSpec
    model: ModelSpec
    teaching: Teaching | None
    """None under an objective without a teacher."""
    objective: Annotated[Objective, PlainValidator(_objective)]
    learning_rate: float
    settings: TrainingSettings
    seed: int
    start: Annotated[CheckpointSpec | None, LATER] = None
    """The checkpoint of its own model whose weights it starts from; None: the model's own."""

    @property
    def taught(self) -> Teaching:
        """What a student that has a teacher learns from."""
        assert self.teaching is not None
        return self.teaching

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Keyed`."""
        if self.teaching is None:
            return ()
        taught = self.teaching
        written = (taught.sequences,) if taught.sequences else ()
        weak = (taught.weak,) if taught.weak else ()
        return (*written, *weak, taught.outputs, *(taught.signals or {}).values())

    def under(self, seeds: Iterable[int]) -> tuple[StudentTraining, ...]:
        """The same training under each of `seeds`."""
        return tuple(
            self if seed == self.seed else self.model_copy(update={"seed": seed}) for seed in seeds
        )

    def __str__(self) -> str:
        whom = self.teaching.checkpoint_name.value if self.teaching else self.model.name
        return f"{self.objective.shown(whom)} lr={self.learning_rate:g}"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        """Take what `_spread` wrote."""
        if not isinstance(content, dict) or "teaching" in content:
            return content
        if content.get("kind") == "erm":
            return {**content, "kind": "student", "teaching": None, "objective": {"kind": "labels"}}
        parts = (*Teaching.model_fields, *_SPREAD)
        found = {name: value for name, value in content.items() if name not in parts}
        found["teaching"] = {name: content.get(name) for name in Teaching.model_fields}
        match content.get("distance"):
            case None:
                pass
            case "mse":
                own = {"alpha": content.get("alpha")}
                found["objective"] = {"kind": "mse", **own, **content.get("objective", {})}
            case kind:
                own = {name: content.get(name) for name in _SPREAD[1:]}
                found["objective"] = {"kind": kind, **own, **content.get("objective", {})}
        return found


def written(training: Training) -> dict[str, Any]:
    """What is kept of a training, in what JSON has; `parse_training` reads it."""
    return _plain(training)


def _plain(training: BaseModel, exclude: dict[str, Any] | None = None) -> dict[str, Any]:
    # No function of ours runs within pydantic's: a signal that came there would seem its error.
    content = training.model_dump(mode="json", exclude=exclude)
    return _spread(training, content) if isinstance(training, StudentTraining) else content


def _spread(training: StudentTraining, content: dict[str, Any]) -> dict[str, Any]:
    """The content as it was when there were CE, MSE and ERM alone, so that keys stay."""
    objective = content["objective"]
    for name in training.objective.spared:
        del objective[name]
    objective["kind"] = training.objective.kind
    if training.teaching is not None:
        content |= content.pop("teaching")
    match training.objective:
        case Labels():
            del content["teaching"], content["objective"]
            content["kind"] = "erm"
        case Ce() | Mse():
            objective["distance"] = objective.pop("kind")
            later = {name: objective.pop(name) for name in objective.keys() - {*_SPREAD}}
            content |= {**dict.fromkeys(_SPREAD), "gradient_scale": "none", **objective}
            del content["objective"]
            content |= {"objective": later} if later else {}
    return content


def _kind(training: Any) -> str:
    """Of a training, or of what was written of one."""
    kind = training.get("kind") if isinstance(training, dict) else training.kind
    return "student" if kind == "erm" else str(kind)


Training = TeacherTraining | OutputsTraining | SequencesTraining | StudentTraining
AnyTraining = Annotated[
    Annotated[TeacherTraining, Tag("teacher")]
    | Annotated[OutputsTraining, Tag("outputs")]
    | Annotated[SequencesTraining, Tag("sequences")]
    | Annotated[StudentTraining, Tag("student")],
    Discriminator(_kind),
]
"""A training as a field of a record, read as it was written."""
_ADAPTER: TypeAdapter[Training] = TypeAdapter(AnyTraining)


def parse_training(plain: dict[str, Any]) -> Training:
    """The training that `written` wrote. Raises `ValidationError`."""
    return _ADAPTER.validate_json(json.dumps(plain))
