"""How a teacher or a student is trained: the settings, changes of them, and those that are axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_type_hints

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from kdsearch.search import Value, Written
from kdsearch.study.augmentation import (
    NONE,
    OR_NONE,
    SPELT_OUT,
    Augmentation,
    Named,
    RandAugment,
    at_name,
)
from kdsearch.study.cache import HIDDEN, Cache
from kdsearch.study.layers import Layers
from kdsearch.study.section import (
    LATER,
    STRICT,
    VALUES,
    Positive,
    PositiveInt,
    Section,
    Unread,
    as_far_as_read,
    whole,
)
from kdsearch.study.tasks import SPECS

FORWARD = ("batch_size", "max_length", "stride", "beams", "hidden_dtype", "cache", "precision")
"""The settings that a forward pass has too: all that a given teacher needs."""

Beta = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
# A list too, as `Adam.betas`.
Stops = Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)]
Optimizer = Literal["adamw", "sgd"]
Module = Annotated[str, Field(min_length=1, max_length=100)]


class Adam(Section):
    """AdamW. It nearly cancels a constant factor of the loss at α = 1, but not where ε matters."""

    # A list too: what a validator saw before comes as Python's, not as JSON's.
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    epsilon: Positive = 1e-8
    weight_decay: Decay = 0.01


class Sgd(Section):
    """Stochastic gradient descent with momentum, as torch has it (no dampening)."""

    momentum: Beta = 0.9
    nesterov: bool = False
    weight_decay: Decay = 0.0
    """Times the weights, added to the gradient: unlike AdamW's, it passes through the momentum."""

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        if self.nesterov and self.momentum == 0:
            yield "nesterov needs a momentum above 0"


class Lora(Section):
    """Low-rank adapters (Hu et al., 2021, arXiv 2106.09685): W + (α/r)·B·A, of which A and B learn.

    The model's own weights stay as they are; a head that the task draws anew is trained whole.
    """

    r: PositiveInt = 8
    """The rank of B·A."""
    alpha: Positive = 16.0
    """It is not to be tuned beside the learning rate (§4.1), and stays when `r` is an axis."""
    modules: Annotated[tuple[Module, ...], Field(min_length=1, strict=False)] | None = None
    """The last part of the names of linear layers: [q_proj, v_proj]. Default: all in the blocks."""
    dropout: Dropout = 0.0
    """Of what the adapters read."""


SECTIONS: Mapping[Optimizer, tuple[str, type[Section]]] = {
    "adamw": ("adam", Adam),
    "sgd": ("sgd", Sgd),
}
"""Of each optimizer, the section of `training` with its settings."""


WRITTEN = ("hidden_dtype", "cache", "sequences")
"""The settings of what a teacher writes, which its students share."""


class Sequences(Section):
    """How a teacher writes the texts that students learn on, under `targets` other than data."""

    beams: PositiveInt = 5
    """Of `beam`."""
    samples: PositiveInt | None = None
    """Texts that are drawn for each row. Default: 1 of `sample`, 8 of `rejection`."""
    temperature: Positive = 1.0
    """At which they are drawn."""

    def texts(self, how: Written) -> int:
        """How many are written for each row."""
        if how in ("greedy", "beam"):
            return 1
        return self.samples or (8 if how == "rejection" else 1)


class TrainingSettings(Section):
    """How a teacher or a student is trained; all of it is part of a training's key."""

    epochs: PositiveInt = 10
    """Of one run; the epoch of the best validation score is kept."""
    stops: Annotated[Stops | None, LATER] = None
    """The epochs of which the best is kept, the last one among them. Default: all.

    At a constant rate the first epochs of a training are a training of that many epochs, so that
    one training stands for several that differ in their epochs. What diverges keeps those before.
    """
    batch_size: PositiveInt = 32
    max_length: PositiveInt | None = None
    """In tokens. Longer inputs are cut, contexts read in windows. Default: the task's."""
    stride: PositiveInt | None = None
    """qa: how many tokens two windows of a context share. Default: 128, at most half a window."""
    beams: PositiveInt | None = None
    """translation: of the beam search. Default: 5."""
    hidden_dtype: Literal["bf16", "fp32"] | None = None
    """translation, lm: of the teacher's hidden states in the cache. Default: bf16."""
    cache: Annotated[Cache, LATER] = HIDDEN
    """translation, lm: what is kept of the teacher's outputs on the training split."""
    optimizer: Annotated[Optimizer, LATER] = "adamw"
    adam: Adam = Adam()
    """Of the optimizer adamw."""
    sgd: Annotated[Sgd | None, LATER] = None
    """Of the optimizer sgd. Default: that section's own defaults."""
    dropout: Annotated[Dropout | None, LATER] = None
    """Every share of dropout in the model's configuration. Default: the model's own."""
    lora: Annotated[Lora | None, LATER] = None
    """Adapters in place of the weights, where peft is installed. Default: all weights learn."""
    gradient_checkpointing: bool = False
    """Activations are computed again for the gradient, in less memory. No key covers it: the
    gradient is the same."""
    sequences: Annotated[Sequences, LATER] = Sequences()
    """translation, lm: of what a teacher writes for its students."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the steps over which the learning rate rises from 0."""
    clip: Positive | None = None
    """The largest norm of the gradient; default: no clipping."""
    clip_per: Annotated[Literal["all", "layer"], LATER] = "all"
    """Whose norm that is: of the gradients of all weights together, or of each layer's own.

    A layer is a tensor of weights here, as Keras's `clipnorm` and a loop of `clip_grad_norm_` over
    the parameters have it: a matrix and its bias are two.
    """
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """fp32, or mixed precision."""
    cpu_threads: PositiveInt = 1
    augmentation: Annotated[Augmentation | None, SPELT_OUT, LATER] = None
    """image_classification: none, light, full, or parts, how training images are changed."""

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        stops = (self._stops_ascend(), self._stops_end(), self._stops_are_trainings())
        return as_far_as_read(*stops, self._clips())

    def _stops_ascend(self) -> Iterator[str]:
        if self.stops is not None and list(self.stops) != sorted(set(self.stops)):
            yield "stops must ascend, without repeats"

    def _stops_end(self) -> Iterator[str]:
        if self.stops is not None and max(self.stops) != self.epochs:
            yield f"the last of stops is {max(self.stops)}, but epochs is {self.epochs}"

    def _stops_are_trainings(self) -> Iterator[str]:
        if self.stops is not None and (self.schedule != "constant" or self.warmup):
            yield (
                "stops need a constant schedule without warmup: otherwise the first epochs of a "
                "training are not a training of that many epochs"
            )

    def _clips(self) -> Iterator[str]:
        if self.clip_per != "all" and self.clip is None:
            yield f"clip_per: {self.clip_per} needs a clip, the largest norm of a layer's gradient"

    def for_task(self, task: str) -> TrainingSettings:
        """With every default of `task` filled in, and without what is not used.

        So a key covers what its training depends on, no more.
        """
        own = None if SPECS[task].reads == "pixels" else self.max_length
        length = own or SPECS[task].max_length
        sgd, wide = self.optimizer == "sgd", SPECS[task].width is None
        update = {
            "max_length": length,
            "stride": (self.stride or min(128, length // 2)) if task == "qa" else None,
            "beams": (self.beams or 5) if task == "translation" else None,
            "hidden_dtype": (self.hidden_dtype or "bf16") if wide else None,
            "cache": self.cache if wide else HIDDEN,
            "augmentation": self.augmentation if SPECS[task].reads == "pixels" else None,
            "adam": Adam() if sgd else self.adam,
            "sgd": (self.sgd or Sgd()) if sgd else None,
        }
        return self.model_copy(update=update)

    def but(self, *changes: Mapping[str, Any]) -> TrainingSettings:
        """The same with `changes`, those of its sections field by field, the last one winning.

        Raises pydantic's `ValidationError` where the result cannot be.
        """
        if not any(changes):
            return self
        for section in (self, self.adam, self.sgd, self.lora, self.augmentation):
            whole(section)
        content = self.model_dump()
        for change in changes:
            for name, value in read(change).items():
                within = isinstance(value, Mapping)
                content[name] = {**(content[name] or {}), **value} if within else value
        return type(self).model_validate(content)

    def at(self, values: Mapping[str, Value]) -> TrainingSettings:
        """The same at these values of `AXES`; those of another optimizer than the one used rest.

        Raises pydantic's `ValidationError` where they do not go together.
        """
        values = {name: None if v == WORDS.get(name) else v for name, v in values.items()}
        section, kind = SECTIONS[values.get("optimizer", self.optimizer)]
        rank = values.get(LORA_RANK)
        adapters = {"lora": rank and {"r": rank}} if LORA_RANK in values else {}
        own: dict[str, Any] = {
            name: value for name, value in values.items() if name in type(self).model_fields
        }
        if AUGMENTATION in own:
            own[AUGMENTATION] = at_name(own[AUGMENTATION] or NONE, self.augmentation)
        of_section = {name: value for name, value in values.items() if name in kind.model_fields}
        return self.but(own, adapters, {section: of_section} if of_section else {})


def _changes(section: type[Section], *left_out: str) -> Any:
    """The type of what changes a section: any of its fields. A key that is absent changes nothing,
    where a value of null would be one."""
    fields = {}
    hints = get_type_hints(section, include_extras=True)
    for name, field in section.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        nested = next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)
        if name not in left_out:
            fields[name] = _changes(nested) if nested else hints[name]
            if nested in (Lora, Augmentation, RandAugment):  # which a student may have turned off
                fields[name] |= None
            if nested is Augmentation:
                fields[name] = Annotated[fields[name], SPELT_OUT]
            if nested is RandAugment:
                fields[name] = Annotated[fields[name], OR_NONE]
    kind: Any = TypedDict  # which type checkers know with literals alone
    made = kind(f"{section.__name__}Changes", fields, total=False)
    made.__pydantic_config__ = STRICT
    return made


if TYPE_CHECKING:
    TrainingChanges = dict[str, Any]
    StudentChanges = dict[str, Any]
else:
    # A training's threads are what Ray sets CPUs aside for, so that they are the study's.
    TrainingChanges = _changes(TrainingSettings, "cpu_threads")
    # A student reads what its teacher wrote.
    StudentChanges = _changes(TrainingSettings, "cpu_threads", *WRITTEN)


UNREAD: Final = object()
"""Stands in changes of settings for a value that cannot be read."""


def read(change: Mapping[str, Any]) -> Mapping[str, Any]:
    """A change of settings; raises `Unread` where a value of it cannot be read."""
    if UNREAD in change.values():
        raise Unread
    return change


AUGMENTATION = "augmentation"
LORA_RANK = "lora_rank"
"""The axis whose values are those of `lora.r`, or `none` for no adapters."""
WORDS = {"clip": "none", "dropout": "own", LORA_RANK: "none", AUGMENTATION: NONE}
"""How an axis writes what is None in the settings: of an axis, None is the value of none."""
_PLAIN = ("optimizer", "batch_size", "epochs", "schedule", "warmup", "clip_per", "precision")
_OF_OPTIMIZER = ("momentum", "nesterov", "weight_decay")


def _axes() -> Mapping[str, TypeAdapter[Any]]:
    hints = get_type_hints(TrainingSettings, include_extras=True)
    of_optimizer = get_type_hints(Sgd, include_extras=True)
    found: dict[str, Any] = {
        "learning_rate": Positive,
        "layers": Layers,
        "clip": Positive | Literal["none"],
        "dropout": Dropout | Literal["own"],
        LORA_RANK: PositiveInt | Literal["none"],
        AUGMENTATION: Named,
        **{name: hints[name] for name in _PLAIN},
        **{name: of_optimizer[name] for name in _OF_OPTIMIZER},
    }
    return {name: TypeAdapter(hint, config=VALUES) for name, hint in found.items()}


AXES = _axes()
"""What of a student's training may be an axis of a space, with the type of its values: settings,
fields of the optimizer's section by their plain names, its learning rate, and the layers kept."""
