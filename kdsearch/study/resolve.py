"""Resolving a study, once: everything outside of its file that a training's result depends on."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from kdsearch.errors import InputError, Problem
from kdsearch.study.fitting import (
    equal_cases,
    too_many_layers,
    unlabelled_problems,
    writing_problems,
)
from kdsearch.study.given import label_problems, labels_given
from kdsearch.study.hub import HubUnreachableError, hub_model
from kdsearch.study.known import columns_of
from kdsearch.study.model_files import check_files, config_of, quantised, refuse_adapter
from kdsearch.study.objectives import objective_problems
from kdsearch.study.resolved import Resolved, ResolvedDataset, ResolvedModel, ResolvedSplit
from kdsearch.study.rows import DataRows, digest_rows, read_dataset
from kdsearch.study.schema import Model, Study
from kdsearch.study.sizes import depth_in
from kdsearch.study.sources import combined, data_digests, model_digests
from kdsearch.study.tasks import SPECS, Columns, Row
from kdsearch.study.terms import term_problems
from kdsearch.study.versions import installed_versions

_BYTES_PER_TOKEN = 4
"""About, of UTF-8 in most languages."""


class ImageStore(Protocol):
    """Where the pixels of images are kept."""

    @property
    def scratch(self) -> Path:
        """The folder in which they are written."""

    def write_pixels(self, digest: str, written: Path) -> None:
        """Keep those of the rows with this digest, in a file of that folder."""


def resolve(
    study: Study,
    *,
    data_dir: Path | None,
    store: Callable[[str, list[Row]], None],
    images: ImageStore | None = None,
    place: str,
    known: Resolved | None = None,
    anew: Collection[str] = (),
) -> Resolved:
    """Resolve `study`, read from the file `place`; `store` is given each split by its digest.

    `images` is given the pixels before that; without it they are decoded and not kept.

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
    for name in study.datasets:
        given = labels_given(study, name, models)
        if known and f"datasets.{name}" not in anew and _as_before(study, name, given, known):
            datasets[name] = known.datasets[name]
            continue
        fair = not _drawn_before(study, name, known)
        try:
            datasets[name] = _resolve_dataset(
                study, name, data_dir, given, store, images, fair=fair
            )
        except HubUnreachableError:
            unreachable.append(f"datasets.{name}")
        except InputError as error:
            problems += error.problems
    problems += of_models
    unreachable += away
    if unreachable:
        problems += HubUnreachableError.of([f"{place}: {', '.join(unreachable)}"]).problems
    problems += too_many_layers(study, models, place)
    if not problems:
        problems += label_problems(study, datasets, models, place)
        problems += unlabelled_problems(study, datasets, place)
        problems += objective_problems(study, datasets, place)
        problems += writing_problems(study, datasets, place)
        problems += term_problems(study, datasets, models, place)
        problems += equal_cases(study, datasets, models, place)
    if problems:
        raise InputError(problems)
    return Resolved(study=study, datasets=datasets, models=models, versions=installed_versions())


def _resolve_dataset(
    study: Study,
    name: str,
    data_dir: Path | None,
    given: list[tuple[str, ...]],
    store: Callable[[str, list[Row]], None],
    images: ImageStore | None,
    *,
    fair: bool,
) -> ResolvedDataset:
    """A data set of the study, whose rows are read and given to `store`. Raises `InputError`."""
    dataset = study.datasets[name]
    # Before the rows: what changes between the two is then noticed at the next launch.
    files = data_digests(name, dataset, data_dir)
    data = read_dataset(
        name,
        dataset,
        data_dir=data_dir,
        seed=study.seed,
        given=given,
        fair=fair,
        scratch=images.scratch if images else None,
    )
    columns = columns_of(name, dataset)
    splits, groups = _stored(data, columns, store, images)
    return ResolvedDataset(
        task=columns.task,
        metric=columns.metric,
        labels=data.labels,
        languages=columns.languages,
        splits=splits,
        cut=dict(data.cut),
        left_out=dict(data.left_out),
        drawn=data.drawn,
        shared=dict(data.shared),
        converted=data.converted,
        files=files,
        test_groups=groups,
        unanswerable=columns.unanswerable,
        answer=columns.answer,
        also=columns.also,
        messages=any(
            isinstance(row["prompt"], list)
            for rows in data.splits.values()
            for row in rows
            if columns.task == "lm"
        ),
        tokens=round(sum(map(_bytes, data.splits["train"])) / _BYTES_PER_TOKEN)
        if SPECS[columns.task].reads == "text"
        else 0,
        image_size=data.image_size,
        enlarged=dict(data.enlarged),
    )


def _stored(
    data: DataRows,
    columns: Columns,
    store: Callable[[str, list[Row]], None],
    images: ImageStore | None,
) -> tuple[dict[str, ResolvedSplit], str | None]:
    """The splits of a data set and the digest of its groups, once all is kept that is of them."""
    spec, splits = SPECS[columns.task], {}
    for split, rows in data.splits.items():
        splits[split] = ResolvedSplit(
            digest=digest_rows(rows),
            rows=len(rows),
            unlabelled=sum(row[spec.gold] is None for row in rows),
            units=round(sum(spec.output_rows(row, columns.unanswerable) for row in rows)),
        )
        if images is not None and split in data.pixels:
            images.write_pixels(splits[split].digest, data.pixels[split])
        store(splits[split].digest, rows)
    if data.test_groups is None:
        return splits, None
    numbered: list[Row] = [{"group": number} for number in data.test_groups]
    store(groups := digest_rows(numbered), numbered)
    return splits, groups


def _bytes(value: object) -> int:
    """Of all text in a row."""
    if isinstance(value, str):
        return len(value.encode()) + 1
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


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
            models[name] = _with_depth(model, known.models[name])
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
        depth = depth_in(model.config)
        return ResolvedModel(path=None, digest=None, labels=None, depth=depth)
    if model.hub is not None:
        folder = hub_model(model.hub, model.revision, place, code=model.trust_remote_code)
    else:
        folder = Path(os.path.expanduser(model.path or ""))  # Path's own raises for ~nobody
        if not os.path.isdir(folder):
            raise InputError.one(place, f"{folder} is not a folder", "give --model NAME=PATH")
    refuse_adapter(folder, place)
    check_files(folder, place)
    config = config_of(folder)
    if (method := quantised(config)) is not None:
        remedy = "give the model it was made from"
        raise InputError.one(place, f"is quantised ({method}), which is not supported", remedy)
    try:
        names = config.get("id2label") or dict(enumerate(config.get("label_names") or ()))  # timm's
        labels = tuple(str(names[key]) for key in sorted(names, key=int)) or None
    except (TypeError, ValueError):
        what = "has an id2label that does not map numbers to names"
        remedy = "save the model with save_pretrained, which writes one"
        raise InputError.one(folder / "config.json", what, remedy) from None
    if labels and labels == tuple(f"LABEL_{i}" for i in range(len(labels))):
        labels = None  # transformers' placeholders name nothing
    files = model_digests(folder, code=model.trust_remote_code)
    return ResolvedModel(
        path=str(folder.resolve()),
        digest=combined(files),
        revision=folder.name if model.hub is not None else None,  # as the Hub's cache names it
        labels=labels,
        files=files if model.hub is None else None,
        depth=depth_in(config),
    )


def _with_depth(model: Model, known: ResolvedModel) -> ResolvedModel:
    """A model as it was resolved by a version that may not have looked at its depth."""
    config = model.config
    if config is None and known.path is not None and os.path.isdir(known.path):
        config = config_of(Path(known.path))
    if known.depth is not None or config is None:
        return known
    return known.model_copy(update={"depth": depth_in(config)})
