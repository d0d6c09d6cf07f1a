"""Resolving a study, once: everything outside of its file that a training's result depends on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import kdsearch
from kdsearch.errors import InputError, Problem
from kdsearch.search import Checkpoint
from kdsearch.study.hub import HubUnreachableError, hub_model
from kdsearch.study.load import TestCase, test_cases
from kdsearch.study.parsers import GOLD, Row, units_of
from kdsearch.study.rows import columns_of, digest_rows, read_dataset
from kdsearch.study.schema import Model, Study, Teacher

FORMAT: Literal[1] = 1
"""Of resolved.json. Raise it when an older kdsearch could not read it."""

_LAYER_FIELDS = ("encoder_layers", "num_hidden_layers", "n_layers", "num_layers", "n_layer")
_DECODER_FIELDS = ("decoder_layers", "num_decoder_layers")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_MODEL_FILES = (*_WEIGHTS, "*.json", "*.txt", "*.model", "*.spm")
_NOT_CONTENT = ("README", "modules.json", "config_sentence_transformers", "data_config")


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
    """About how many rows a teacher's outputs on the split have."""


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
    """How many rows of a published data set cannot be used, by split."""


class ResolvedModel(Record):
    """A pretrained model by the digest of its files; `path` is where it was found."""

    path: str | None
    digest: str | None
    revision: str | None = None
    """The Hub's commit that it came from."""
    labels: tuple[str, ...] | None
    """The names of its outputs, of a model that was fine-tuned for classification."""


class Resolved(Record):
    """A study and the digests of what it names. Keys of trainings come only from here."""

    format: Literal[1] = FORMAT
    training_version: int = 2
    """Of the training code (see `agenda.VERSION`); of a folder that does not say so, 2."""
    study: Study
    datasets: dict[str, ResolvedDataset]
    models: dict[str, ResolvedModel]
    versions: dict[str, str]
    """For the record; no part of any key."""


def resolve(
    study: Study,
    *,
    data_dir: Path | None,
    store: Callable[[str, list[Row]], None],
    place: str,
    known: Resolved | None = None,
) -> Resolved:
    """Resolve `study`, read from the file `place`; `store` is given each split by its digest.

    The data sets and models that `known`, an earlier version of the study, has just so are as they
    were then, and not read again. Raises `InputError` with the problems of all the others.
    """
    problems: list[Problem] = []
    if data_dir is not None and not data_dir.is_dir():
        raise InputError.one(data_dir, "no such folder", "give --data-dir a folder")
    unreachable: list[str] = []
    datasets = {}
    for name, dataset in study.datasets.items():
        if known and (known.study.seed, known.study.datasets.get(name)) == (study.seed, dataset):
            datasets[name] = known.datasets[name]
            continue
        try:
            data = read_dataset(name, dataset, data_dir=data_dir, seed=study.seed)
        except HubUnreachableError:
            unreachable.append(f"datasets.{name}")
            continue
        except InputError as error:
            problems += error.problems
            continue
        columns = columns_of(name, dataset)
        resolved = {}
        for split, rows in data.splits.items():
            resolved[split] = ResolvedSplit(
                digest=digest_rows(rows),
                rows=len(rows),
                unlabelled=sum(row[GOLD[columns.task]] is None for row in rows),
                units=round(sum(units_of(columns.task, row) for row in rows)),
            )
            store(resolved[split].digest, rows)
        datasets[name] = ResolvedDataset(
            task=columns.task,
            metric=columns.metric,
            labels=data.labels,
            languages=columns.languages,
            splits=resolved,
            cut=dict(data.cut),
            left_out=dict(data.left_out),
        )
    models = {}
    for name, model in study.models.items():
        if known and known.study.models.get(name) == model:
            models[name] = known.models[name]
            continue
        try:
            models[name] = _resolve_model(model, f"{place}: models.{name}")
        except HubUnreachableError:
            unreachable.append(f"models.{name}")
        except InputError as error:
            problems += error.problems
    if unreachable:
        problems += HubUnreachableError.of([f"{place}: {', '.join(unreachable)}"]).problems
    problems += _too_many_layers(study, models, place)
    if not problems:
        problems += _label_problems(study, datasets, models, place)
        problems += _unlabelled_problems(study, datasets, place)
        problems += _equal_cases(study, datasets, models, place)
    if problems:
        raise InputError(problems)
    return Resolved(study=study, datasets=datasets, models=models, versions=_versions())


def given_labels(teacher: Teacher, model: ResolvedModel) -> tuple[str, ...] | None:
    """The names of a given teacher's outputs: the study's, else those of its configuration."""
    return teacher.labels or model.labels


def _resolve_model(model: Model, place: str) -> ResolvedModel:
    if model.config is not None:
        return ResolvedModel(path=None, digest=None, labels=None)
    if model.hub is not None:
        folder = hub_model(model.hub, model.revision, place, code=model.trust_remote_code)
    else:
        folder = Path(os.path.expanduser(model.path or ""))  # Path's own raises for ~nobody
        if not os.path.isdir(folder):
            raise InputError.one(place, f"{folder} is no folder", "give --model NAME=PATH")
    _refuse_adapter(folder, place)
    if not (folder / "config.json").is_file() or not weight_files(folder):
        raise InputError.one(
            place,
            f"{folder} holds no model",
            "a folder as save_pretrained writes it: config.json and model.safetensors",
        )
    config = _config(folder)
    try:
        names = config.get("id2label") or {}
        labels = tuple(str(names[key]) for key in sorted(names, key=int)) or None
    except (TypeError, ValueError):
        mend = "it maps numbers to names, as save_pretrained writes it"
        raise InputError.one(folder / "config.json", "has an odd id2label", mend) from None
    if labels and labels == tuple(f"LABEL_{i}" for i in range(len(labels))):
        labels = None  # transformers' placeholders name nothing
    return ResolvedModel(
        path=str(folder.resolve()),
        digest=digest_model(folder, code=model.trust_remote_code),
        revision=folder.name if model.hub is not None else None,  # as the Hub's cache names it
        labels=labels,
    )


def _refuse_adapter(folder: Path, place: str) -> None:
    """Raise `InputError` for a folder that holds what was added to a model, and not the model."""
    if (folder / "adapter_config.json").is_file():
        what = f"{folder} is an adapter, as LoRA makes it, and not the model it adapts"
        mend = (
            "merge the two with peft, by merge_and_unload(), and give what save_pretrained writes"
        )
        raise InputError.one(place, what, mend)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError.one(folder / "config.json", f"not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError.one(folder / "config.json", "not a JSON object")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's folder that hold its weights."""
    found = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])


def digest_model(folder: Path, *, code: bool = False) -> str:
    """The digest of a model's files: weights, configuration and tokenizer, and `code` that runs."""
    patterns = (*_MODEL_FILES, "*.py") if code else _MODEL_FILES
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.name.startswith(_NOT_CONTENT):
            continue
        with path.open("rb") as content:
            digest.update(path.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _too_many_layers(study: Study, models: dict[str, ResolvedModel], place: str) -> list[Problem]:
    problems = []
    for name, student in study.students.items():
        donor = models.get(student.model)
        if student.layers is None or donor is None or donor.path is None:
            continue
        layers = _layers(_config(Path(donor.path)))
        if layers is not None and student.layers > layers:
            what = f"asks for {student.layers} layers of {student.model}, which has {layers}"
            problems.append(Problem(place=f"{place}: students.{name}.layers", what=what))
    return problems


def _layers(config: dict[str, Any]) -> int | None:
    """The layers of a model, of an encoder-decoder those of both sides."""
    numbers = {field: value for field, value in config.items() if isinstance(value, int)}
    encoder = next((numbers[f] for f in _LAYER_FIELDS if f in numbers), None)
    if encoder is None or not config.get("is_encoder_decoder"):
        return encoder
    decoder = next((numbers[f] for f in _DECODER_FIELDS if f in numbers), encoder)
    return 2 * min(encoder, decoder)


def _label_problems(
    study: Study,
    datasets: dict[str, ResolvedDataset],
    models: dict[str, ResolvedModel],
    place: str,
) -> list[Problem]:
    """Given teachers whose outputs cannot be matched by name to the labels of their data."""
    problems = []
    for block in study.test_cases:
        for teacher_name in block.teacher or study.teachers:
            teacher = study.teachers[teacher_name]
            for checkpoint, model_name in teacher.given.items():
                labels = given_labels(teacher, models[model_name])
                for dataset in block.dataset or study.datasets:
                    wanted = datasets[dataset].labels
                    what = _mismatch(labels, wanted, dataset) if wanted else None
                    if what:
                        where = f"{place}: teachers.{teacher_name}.{_field(checkpoint)}"
                        mend = f"name its outputs in order: teachers.{teacher_name}.labels"
                        problems.append(Problem(place=where, what=what, mend=mend))
    return list(dict.fromkeys(problems))


def _unlabelled_problems(
    study: Study, datasets: dict[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Training rows without labels, where the labels are asked for after all."""
    problems = {}
    for case in test_cases(study):
        train = datasets[case.dataset].splits["train"]
        where = f"{place}: datasets.{case.dataset}"
        what = f"{train.unlabelled} of {train.rows} training rows have no label"
        if train.unlabelled and any(alpha < 1 for alpha in study.search.alpha):
            mend = "leave only 1 in search.alpha, or leave these rows out"
            problems[where] = Problem(place=where, what=f"{what}, and α < 1 needs them", mend=mend)
        if train.unlabelled == train.rows and study.erm:
            mend = "leave erm out, or give labelled rows"
            problem = Problem(
                place=where, what=f"{what}, which is all that erm learns from", mend=mend
            )
            problems[f"{where} erm"] = problem
        if train.unlabelled == train.rows and not study.teachers[case.teacher].given:
            mend = "give a teacher that is fine-tuned already, or labelled rows"
            what = f"{what}, so that {case.teacher} cannot be fine-tuned"
            problems[f"{where} {case.teacher}"] = Problem(place=where, what=what, mend=mend)
    return list(problems.values())


def _equal_cases(
    study: Study,
    datasets: dict[str, ResolvedDataset],
    models: dict[str, ResolvedModel],
    place: str,
) -> list[Problem]:
    """Test cases that are one under two names: they would count twice in every comparison."""

    def content(name: str | None) -> object:
        if name is None:
            return None
        model = study.models[name]
        tokenizer = model.tokenizer if model.config is None or model.tokenizer == "words" else ""
        return models[name].digest, model.config, tokenizer or models[model.tokenizer].digest

    problems = []
    first: dict[str, TestCase] = {}
    for case in test_cases(study):
        teacher, student = study.teachers[case.teacher], study.students[case.student]
        names = (teacher.model, teacher.checkpoint, teacher.t_hs, teacher.t_ll)
        same = repr(
            (
                datasets[case.dataset],
                [content(name) for name in names],
                (teacher.fine_tune, teacher.labels),
                (content(student.model), student.layers),
            )
        )
        if same in first:
            what = f"{case} is {first[same]} under another name"
            problems.append(Problem(place=f"{place}: test_cases", what=what, mend="keep one"))
        first.setdefault(same, case)
    return problems


def _field(checkpoint: Checkpoint) -> str:
    return "checkpoint" if checkpoint is Checkpoint.GIVEN else checkpoint.value


def _mismatch(labels: tuple[str, ...] | None, wanted: tuple[str, ...], dataset: str) -> str | None:
    if labels is None:
        return f"its configuration does not name its outputs; {dataset} has {', '.join(wanted)}"
    if sorted(labels) != sorted(wanted):
        return f"its labels are {', '.join(labels)}; those of {dataset} are {', '.join(wanted)}"
    return None


def _versions() -> dict[str, str]:
    found = {"kdsearch": kdsearch.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "ray", "datasets", "tokenizers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
