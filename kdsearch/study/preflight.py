"""What is found out about a study's real rows and models before its students are trained.

What cannot be right is an `InputError`; what is only doubtful is a `Doubt`, kept in the study's
folder and shown in its report.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field

import kdsearch
from kdsearch.errors import shown_name
from kdsearch.study.cases import taught_cases
from kdsearch.study.effective import space_of
from kdsearch.study.resolved import Record, Resolved
from kdsearch.study.terms import asked_terms

SAMPLE = 2_000
"""The most rows of a split that are given to a tokenizer, drawn by the study's seed."""


_OF_MODELS = {"layers", "lora_rank", "dropout"}
"""The axes that not every model has."""

_TOLD_LATER = ("test_groups", "image_size", "enlarged")
"""Of a data set: what earlier versions did not look at."""

Shown = Annotated[str, AfterValidator(shown_name)]


class Doubt(Record):
    """Something that is perhaps wrong: where, what, and what to do about it."""

    place: Shown
    what: Shown
    remedy: Annotated[Shown, Field(validation_alias=AliasChoices("remedy", "mend"))] = ""
    """Was `mend` in the files of earlier versions."""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class SplitFacts(Record):
    """What a split holds."""

    rows: int
    unlabelled: int
    labels: dict[str, Annotated[int, Field(ge=0)]]
    """How often each label occurs; of ner each kind of entity. Empty for the other tasks."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of right answers that takes no learning, of rows with choices."""


class DatasetFacts(Record):
    """What a data set holds."""

    splits: dict[str, SplitFacts]
    shared: dict[str, int]
    """By `validation in train`, …: how many rows of the one have their texts in the other too."""


class Reading(Record):
    """How a model's tokenizer reads a split, over `SAMPLE` rows at most. Shares are from 0 to 1."""

    dataset: str
    model: str
    split: str
    rows: int
    """How many were looked at."""
    unknown: float
    """Of the tokens that are not special ones: those that stand for anything."""
    cut: float
    """Of the rows: those longer than `max_length`. Of qa: questions cut to a quarter of it."""
    beyond: float | None
    """Of the entities, or of the answers: those of which no window holds all. None for others."""


class TeacherSample(Record):
    """How a given teacher does on some labelled rows of the validation split."""

    teacher: str
    model: str
    dataset: str
    rows: int
    score: float | None
    """By the data set's metric; None where what it says is not finite."""
    chance: float | None
    """The best score of one and the same label for all of them; None where nothing is so simple."""


class Preflight(Record):
    """All that was found, and the digest of what was looked at."""

    digest: str
    datasets: dict[str, DatasetFacts] = Field(default_factory=dict)
    readings: tuple[Reading, ...] = ()
    samples: tuple[TeacherSample, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    forward: bool = False
    """Whether every model was run on real rows: else that is left to a worker."""


def preflight_digest(resolved: Resolved) -> str:
    """The digest of all that a preflight looks at: rows, models' content, settings, packages.

    Where the files lie is no part of it.
    """
    own = ("temperature", "student_temperature", "temperature_unit")
    temperatures: dict[str, Any] = {
        **dict.fromkeys(own, True),
        "axes": {"temperature", *_OF_MODELS},
    }
    study = resolved.study.model_dump(
        mode="json",
        include={
            **dict.fromkeys(("seed", "datasets", "models", "teachers", "students"), True),
            **dict.fromkeys(("test_cases", "training", "erm"), True),
            "search": {"alpha": True, **temperatures},
            "searches": {"__all__": {"distance": True, "alpha": True, **temperatures}},
        },
        exclude={
            "datasets": {"__all__": {"files"}},
            "models": {"__all__": {"path", "hub", "revision"}},
        },
    )
    spaces = (space_of(resolved.study, case) for case in taught_cases(resolved.study))
    terms = [vars(asked) for space in spaces if (asked := asked_terms(space))]
    content: dict[str, Any] = {
        "study": study,
        "datasets": {
            name: data.model_dump(exclude={"files", *(n for n in _TOLD_LATER if not vars(data)[n])})
            for name, data in resolved.datasets.items()
        },
        "models": {name: (model.digest, model.labels) for name, model in resolved.models.items()},
        "kdsearch": kdsearch.__version__,
        "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "peft": bool(find_spec("peft")),
    }
    if terms:
        content["terms"] = terms
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
