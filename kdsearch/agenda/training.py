"""Trainings: values that hold everything that determines their result."""

from __future__ import annotations

import hashlib
import json
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from kdsearch.search import Ce, Checkpoint, Mse, Objective
from kdsearch.study import LATER, Record, TrainingSettings

VERSION = 2
"""Of the training code. Raise it when the same training would give another result."""

# What a training carries for readers and workers, and what its key leaves out.
_NAMES: dict[str, Any] = {
    "model": {"name", "tokenizer_name"},
    "checkpoint": {"model": {"name", "tokenizer_name"}},
    "teacher": {"model": {"name", "tokenizer_name"}},
    "checkpoint_name": True,
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
    layers: int | None
    """Evenly spaced layers to keep; None for all."""


class CheckpointSpec(Record):
    """A teacher's checkpoint: an epoch of a training of this study, or a given model."""

    model: ModelSpec
    training: str | None
    """The key of the teacher's training; None for a given one."""
    epoch: int | None
    labels: tuple[str, ...]
    """The names of its outputs, in their order."""


class ForwardSettings(Record):
    """How a teacher's outputs are computed."""

    batch_size: int
    max_length: int
    stride: int | None
    beams: int | None
    hidden_dtype: str | None
    precision: Literal["fp32", "bf16", "fp16"]
    cpu_threads: int


class Keyed(Record):
    """A record with a key: the digest of everything in it but names."""

    @cached_property
    def key(self) -> str:
        """24 hexadecimal digits, equal for trainings whose results are equal."""
        content = self.model_dump(mode="json", exclude=_NAMES)
        _leave_out_later(self, content)
        content["version"] = VERSION
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _leave_out_later(record: BaseModel, content: dict[str, Any]) -> None:
    """Remove from the `content` of a record the fields marked `LATER` that have their default."""
    later, records = _fields(type(record))
    for name, default in later.items():
        if getattr(record, name) == default:
            del content[name]
    for name in records & content.keys():
        _leave_out_later(getattr(record, name), content[name])


@cache
def _fields(kind: type[BaseModel]) -> tuple[dict[str, Any], frozenset[str]]:
    """Of a kind of record: the fields marked `LATER`, with their defaults; records with such."""
    fields = kind.model_fields
    later = {name: field.default for name, field in fields.items() if LATER in field.metadata}
    records = (
        name
        for name, field in fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and any(_fields(field.annotation))
    )
    return later, frozenset(records)


class TeacherTraining(Keyed):
    """Fine-tuning a teacher; the epochs of the highest score and of the lowest loss are kept."""

    kind: Literal["teacher"] = "teacher"
    data: DataSpec
    model: ModelSpec
    learning_rate: float
    settings: TrainingSettings
    seed: int

    def __str__(self) -> str:
        return f"teacher {self.model.name} lr={self.learning_rate:g}"


class OutputsTraining(Keyed):
    """Computing a checkpoint's outputs on one split, and its score there."""

    kind: Literal["outputs"] = "outputs"
    data: DataSpec
    checkpoint: CheckpointSpec
    split: Literal["train", "validation", "test"]
    settings: ForwardSettings

    def __str__(self) -> str:
        epoch = f" epoch {self.checkpoint.epoch}" if self.checkpoint.epoch is not None else ""
        return f"outputs of {self.checkpoint.model.name}{epoch} on {self.split}"


_SPREAD = ("distance", "temperature", "student_temperature", "alpha", "gradient_scale")
"""The fields of a training in which CE and MSE are written, beside the others."""


def _plain(objective: Objective) -> dict[str, Any]:
    return {"kind": objective.kind, **objective.parameters}


def _objective(content: Any) -> Objective:
    """What `_plain` wrote. Raises `ValueError`."""
    if isinstance(content, Objective):
        return content
    try:
        kind = Objective.kinds[content["kind"]]
        return kind(**{name: value for name, value in content.items() if name != "kind"})
    except (KeyError, TypeError) as error:
        raise ValueError(f"is no objective: {error}") from None


class StudentTraining(Keyed):
    """Distilling a student with one configuration and learning rate."""

    kind: Literal["student"] = "student"
    data: DataSpec
    model: ModelSpec
    teacher: CheckpointSpec
    outputs: str
    """The key of the teacher's outputs on the training split."""
    checkpoint_name: Checkpoint
    """What the search calls the checkpoint (two names may mean one); no part of the key."""
    objective: Annotated[Objective, PlainValidator(_objective), PlainSerializer(_plain)]
    learning_rate: float
    settings: TrainingSettings
    seed: int

    def __str__(self) -> str:
        return f"{self.objective} {self.checkpoint_name.value} lr={self.learning_rate:g}"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        """Take what `_spread` wrote."""
        if not isinstance(content, dict) or "distance" not in content:
            return content
        given = {name: content[name] for name in _SPREAD if content[name] is not None}
        kind = given.pop("distance")
        if kind == "mse":
            del given["gradient_scale"]
        rest = {name: value for name, value in content.items() if name not in _SPREAD}
        return {**rest, "objective": {"kind": kind, **given}}

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """CE and MSE are written as they were when there was no other, so that keys stay."""
        content: dict[str, Any] = handler(self)
        if not isinstance(self.objective, Ce | Mse):
            return content
        objective: dict[str, Any] = content.pop("objective")
        objective["distance"] = objective.pop("kind")
        return {**content, **dict.fromkeys(_SPREAD), "gradient_scale": "none", **objective}


class ErmTraining(Keyed):
    """Training a student without a teacher, on the labels alone (empirical risk minimisation)."""

    kind: Literal["erm"] = "erm"
    data: DataSpec
    model: ModelSpec
    learning_rate: float
    settings: TrainingSettings
    seed: int

    def __str__(self) -> str:
        return f"ERM {self.model.name} lr={self.learning_rate:g}"


Training = TeacherTraining | OutputsTraining | StudentTraining | ErmTraining
_ADAPTER: TypeAdapter[Training] = TypeAdapter(Annotated[Training, Field(discriminator="kind")])


def parse_training(plain: dict[str, Any]) -> Training:
    """The training that `model_dump(mode="json")` wrote."""
    return _ADAPTER.validate_json(json.dumps(plain))
