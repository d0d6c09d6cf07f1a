"""Resolving a study, once: everything outside of its file that a training's result depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdsearch.errors import InputError, Problem, shortened_list
from kdsearch.search import Objective
from kdsearch.study.cases import TestCase, teacher_of, test_cases
from kdsearch.study.effective import (
    asked_layers,
    effective_settings,
    place_of,
    search_of,
    setting_axes,
    space_of,
)
from kdsearch.study.given import label_problems, labels_given
from kdsearch.study.hub import HubUnreachableError, hub_model
from kdsearch.study.layers import named_layers, shown_layers
from kdsearch.study.rows import columns_of, digest_rows, read_dataset, source_paths
from kdsearch.study.schema import ROLES, Model, Study
from kdsearch.study.sources import NOT_WEIGHTS, combined, data_digests, model_digests
from kdsearch.study.standin import stand_in
from kdsearch.study.tasks import SPECS, Row
from kdsearch.study.versions import installed_versions

FORMAT: Literal[2] = 2
"""Of resolved.json. Raise it when an older kdsearch could not read it."""
READABLE = (1, 2)
"""The formats that this kdsearch reads; the first did not tell the files that were read."""

_LAYER_FIELDS = ("encoder_layers", "num_hidden_layers", "n_layers", "num_layers", "n_layer")
_DECODER_FIELDS = ("decoder_layers", "num_decoder_layers")
_SMALL_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


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
    files: dict[str, str] | None = None
    """The SHA-256 of each local file it was read from; None in folders that did not tell."""


_UNTOLD: dict[str, Any] = {
    "cut": {},
    "left_out": {},
    "drawn": None,
    "shared": {},
    "converted": None,
    "files": None,
}
"""A data set without what is told of its rows, which trainings do not see."""


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


class Resolved(Record):
    """A study and the digests of what it names. Keys of trainings come only from here."""

    format: Literal[1, 2] = FORMAT
    training_version: int = 2
    """Of the training code (see `agenda.VERSION`); of a folder that does not say so, 2."""
    study: Study
    datasets: dict[str, ResolvedDataset]
    models: dict[str, ResolvedModel]
    versions: dict[str, str]
    """For the record; no part of any key."""

    @property
    def content(self) -> dict[str, ResolvedDataset | ResolvedModel]:
        """What trainings see of the data sets and models, `datasets.NAME` and `models.NAME`."""
        return {
            **{f"datasets.{n}": d.model_copy(update=_UNTOLD) for n, d in self.datasets.items()},
            **{f"models.{n}": m.model_copy(update={"files": None}) for n, m in self.models.items()},
        }


def resolve(
    study: Study,
    *,
    data_dir: Path | None,
    store: Callable[[str, list[Row]], None],
    place: str,
    known: Resolved | None = None,
    anew: Collection[str] = (),
) -> Resolved:
    """Resolve `study`, read from the file `place`; `store` is given each split by its digest.

    The data sets and models that `known`, an earlier version of the study, has just so are as they
    were then, and not read again, but for those of `anew`, called `datasets.NAME` and
    `models.NAME`. Raises `InputError` with the problems of all the others.
    """
    problems: list[Problem] = []
    if data_dir is not None and not data_dir.is_dir():
        raise InputError.one(data_dir, "no such folder", "give --data-dir a folder")
    unreachable: list[str] = []
    models, of_models, away = _resolve_models(study, place, known, anew)
    datasets = {}
    for name, dataset in study.datasets.items():
        given = labels_given(study, name, models)
        if known and f"datasets.{name}" not in anew and _as_before(study, name, given, known):
            datasets[name] = known.datasets[name]
            continue
        try:
            # Before the rows: what changes between the two is then noticed at the next launch.
            files = data_digests(source_paths(name, dataset, data_dir))
            data = read_dataset(
                name,
                dataset,
                data_dir=data_dir,
                seed=study.seed,
                given=given,
                fair=not _drawn_before(study, name, known),
            )
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
                unlabelled=sum(row[SPECS[columns.task].gold] is None for row in rows),
                units=round(
                    sum(SPECS[columns.task].units(row, columns.unanswerable) for row in rows)
                ),
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
            drawn=data.drawn,
            shared=dict(data.shared),
            converted=data.converted,
            files=files,
            unanswerable=columns.unanswerable,
        )
    problems += of_models
    unreachable += away
    if unreachable:
        problems += HubUnreachableError.of([f"{place}: {', '.join(unreachable)}"]).problems
    problems += _too_many_layers(study, models, place)
    if not problems:
        problems += label_problems(study, datasets, models, place)
        problems += _unlabelled_problems(study, datasets, place)
        problems += _class_problems(study, datasets, place)
        problems += _equal_cases(study, datasets, models, place)
    if problems:
        raise InputError(problems)
    return Resolved(study=study, datasets=datasets, models=models, versions=installed_versions())


def _drawn_before(study: Study, name: str, known: Resolved | None) -> bool:
    """Whether a data set's splits were drawn when labels and groups did not count yet.

    While the study says the same of it, its rows stay as they were drawn.
    """
    if known is None or not _same_rows(known.study, study, name):
        return False
    before = known.datasets[name]
    return bool(before.cut) and before.drawn is None


def _as_before(study: Study, name: str, given: list[tuple[str, ...]], known: Resolved) -> bool:
    """Whether a data set's rows are those that an earlier version of the study has."""
    before = known.study
    if before.seed != study.seed or not _same_rows(before, study, name):
        return False
    depends = known.datasets[name].task == "ner" and study.datasets[name].labels is None
    return not depends or given == labels_given(before, name, known.models)


def _same_rows(before: Study, study: Study, name: str) -> bool:
    """Whether two studies say the same of a data set, how it is trained on aside."""
    sections = (each.datasets.get(name) for each in (before, study))
    old, new = (
        section and section.model_copy(update={"training": {}, "learning_rate": None})
        for section in sections
    )
    return old == new


def _resolve_models(
    study: Study, place: str, known: Resolved | None, anew: Collection[str]
) -> tuple[dict[str, ResolvedModel], list[Problem], list[str]]:
    """The models of a study, what is wrong with others, and those that the Hub has and is away."""
    models: dict[str, ResolvedModel] = {}
    problems: list[Problem] = []
    unreachable = []
    for name, model in study.models.items():
        same = known and known.study.models.get(name) == model
        if known and same and f"models.{name}" not in anew:
            models[name] = known.models[name]
            continue
        try:
            models[name] = _resolve_model(model, f"{place}: models.{name}")
        except HubUnreachableError:
            unreachable.append(f"models.{name}")
        except InputError as error:
            problems += error.problems
    return models, problems, unreachable


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
    _check_files(folder, place)
    config = _config(folder)
    if (method := _quantised(config)) is not None:
        mend = "give the model that it was made from"
        raise InputError.one(place, f"is quantised ({method}), which is not supported", mend)
    try:
        names = config.get("id2label") or {}
        labels = tuple(str(names[key]) for key in sorted(names, key=int)) or None
    except (TypeError, ValueError):
        what = "has an id2label that does not map numbers to names"
        mend = "save the model with save_pretrained, which writes one"
        raise InputError.one(folder / "config.json", what, mend) from None
    if labels and labels == tuple(f"LABEL_{i}" for i in range(len(labels))):
        labels = None  # transformers' placeholders name nothing
    files = model_digests(folder, code=model.trust_remote_code)
    return ResolvedModel(
        path=str(folder.resolve()),
        digest=combined(files),
        revision=folder.name if model.hub is not None else None,  # as the Hub's cache names it
        labels=labels,
        files=files if model.hub is None else None,
    )


def _check_files(folder: Path, place: str) -> None:
    """Raise `InputError` where a model's files are not all there, or others in their place."""
    weights = _listed(folder)
    if not (folder / "config.json").is_file() or not weights:
        raise InputError.one(
            place,
            f"{folder} holds no model",
            "a folder as save_pretrained writes it: config.json and model.safetensors",
        )
    if missing := [file.name for file in weights if not file.is_file()]:
        what = f"{folder} lacks {shortened_list(missing)}, of {len(weights)} files of weights"
        raise InputError.one(place, what, "fetch them, or wait until the folder is written")
    for name in _SMALL_JSON:
        if (folder / name).is_file():
            _json_object(folder / name)
    texts = {path for pattern in NOT_WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    if problems := [found for path in (*weights, *sorted(texts)) if (found := stand_in(path))]:
        raise InputError(problems)


def _refuse_adapter(folder: Path, place: str) -> None:
    """Raise `InputError` for a folder that holds what was added to a model, and not the model."""
    if (folder / "adapter_config.json").is_file():
        what = f"{folder} is an adapter, as LoRA makes it, and not the model it adapts"
        mend = (
            "merge the two with peft, by merge_and_unload(), and give what save_pretrained writes"
        )
        raise InputError.one(place, what, mend)


def _config(folder: Path) -> dict[str, Any]:
    return _json_object(folder / "config.json")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError.one(path, f"not JSON: {error}", "fetch it again") from None
    if not isinstance(content, dict):
        raise InputError.one(path, "not a JSON object", "fetch it again")
    return content


def _quantised(config: dict[str, Any]) -> str | None:
    """The method by which a model was quantised, if it was."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else None
    return str(method or "bitsandbytes")  # which once left its name out


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's folder that transformers reads its weights from."""
    return [file for file in _listed(folder) if file.is_file()]


def _listed(folder: Path) -> list[Path]:
    """Those files, and those that the index of the shards names and that are missing."""
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            shards = _json_object(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise InputError.one(index, "has no weight_map", "fetch it again")
            return [folder / shard for shard in sorted(set(map(str, shards.values())))]
    return []


def _too_many_layers(study: Study, models: dict[str, ResolvedModel], place: str) -> list[Problem]:
    problems = []
    axes = {case: setting_axes(space_of(study, case)) for case in test_cases(study)}
    for where, model, wanted in dict.fromkeys(asked_layers(study, axes)):
        donor = models.get(model)
        sides = None if donor is None or donor.path is None else _sides(_config(Path(donor.path)))
        if sides is None:
            continue
        named, least = named_layers(wanted), min(sides)
        if (wanted > len(sides) * least) if named is None else (named[-1] >= least):
            each = " on a side" if named is not None and len(sides) > 1 else ""
            has = least if named is not None else len(sides) * least
            what = f"asks for {shown_layers(wanted)} of {model}, which has {has}{each}"
            mend = f"these are 0 to {least - 1}" if named is not None else ""
            problems.append(Problem(place=f"{place}: {where}", what=what, mend=mend))
    return problems


def _sides(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The layers of a model; of an encoder-decoder those of its encoder and its decoder."""
    numbers = {field: value for field, value in config.items() if isinstance(value, int)}
    encoder = next((numbers[f] for f in _LAYER_FIELDS if f in numbers), None)
    if encoder is None or not config.get("is_encoder_decoder"):
        return None if encoder is None else (encoder,)
    return encoder, next((numbers[f] for f in _DECODER_FIELDS if f in numbers), encoder)


def _unlabelled_problems(
    study: Study, datasets: dict[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Training rows without labels, where the labels are asked for after all."""
    problems = {}
    for case in test_cases(study):
        train = datasets[case.dataset].splits["train"]
        where = f"{place}: datasets.{case.dataset}"
        what = f"{train.unlabelled} of {train.rows} training rows have no label"
        teacher = teacher_of(study, case)
        search = search_of(study, case)
        if train.unlabelled and search.taught and search.learns_labels:
            mend = f"leave only 1 in {place_of(case)}.alpha, or leave these rows out"
            needs = "α < 1" if search.alpha else ", ".join(search.distance)
            problems[where] = Problem(
                place=where, what=f"{what}, and {needs} needs them", mend=mend
            )
        if train.unlabelled == train.rows and teacher is None:
            mend = f"leave {case.search} out, or give labelled rows"
            problem = Problem(
                place=where, what=f"{what}, which is all that {case.search} learns from", mend=mend
            )
            problems[f"{where} {case.search}"] = problem
        if train.unlabelled == train.rows and teacher is not None and not teacher.given:
            mend = "give a teacher that is fine-tuned already, or labelled rows"
            what = f"{what}, so that {case.teacher} cannot be fine-tuned"
            problems[f"{where} {case.teacher}"] = Problem(place=where, what=what, mend=mend)
    return list(problems.values())


def _class_problems(
    study: Study, datasets: dict[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Objectives that are no loss of their own with so few classes."""
    problems: dict[Problem, None] = {}
    for case in test_cases(study):
        labels = datasets[case.dataset].labels
        for kind in search_of(study, case).distance:
            fewest = Objective.kinds[kind].fewest_classes
            if labels and len(labels) < fewest:
                what = (
                    f"{kind} needs {fewest} classes at least, and {case.dataset} has {len(labels)}"
                )
                mend = f"leave {kind} out, or give it data sets of its own by test_cases"
                where = f"{place}: {place_of(case)}.distance"
                problems[Problem(place=where, what=what, mend=mend)] = None
    return list(problems)


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
        teacher, student = teacher_of(study, case), study.students[case.student]
        names = teacher and (teacher.model, teacher.checkpoint, teacher.t_hs, teacher.t_ll)
        same = repr(
            (
                datasets[case.dataset].model_copy(update={"files": None}),
                [content(name) for name in names or ()],
                teacher and (teacher.fine_tune, teacher.labels, teacher.layers),
                (content(student.model), student.layers, space_of(study, case)),
                [effective_settings(study, case, role) for role in ROLES],
                search_of(study, case).walk,
            )
        )
        if same in first:
            what = f"{case} is {first[same]} under another name"
            problems.append(Problem(place=f"{place}: test_cases", what=what, mend="keep one"))
        first.setdefault(same, case)
    return problems
