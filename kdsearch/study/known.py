"""What a study and the catalogue say of a data set, before any of its rows is read."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.study.asked import as_catalogued
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.grammar_images import SIDE
from kdsearch.study.pixels import MOST_SIZE
from kdsearch.study.schema import SPLITS, Dataset
from kdsearch.study.section import Unread
from kdsearch.study.tags import expand_tags
from kdsearch.study.tasks import SPECS, Columns
from kdsearch.study.tasks.templates import columns_in


def task_of(name: str, dataset: Dataset) -> str:
    """The task of a study's data set: its own, else the catalogue's."""
    if dataset.task is not None or dataset.files is not None or dataset.grammar is not None:
        return dataset.task or "classification"
    return CATALOGUE[dataset.catalogue or name].task


def has_images(name: str, dataset: Dataset) -> bool:
    """Whether a study's data set is of images.

    Raises `Unread` for one that the catalogue does not have, which is said of it.
    """
    try:
        return SPECS[task_of(name, dataset)].reads == "pixels"
    except KeyError:
        raise Unread from None


def columns_of(name: str, dataset: Dataset) -> Columns:
    """The columns, labels and metric of a study's data set: its own, else the catalogue's."""
    task = task_of(name, dataset)
    languages = None
    if dataset.grammar is not None:
        text, label, labels = SPECS[task].generated
        metric = SPECS[task].metrics[0]
    elif dataset.files is not None:
        text, label = SPECS[task].usual
        labels, metric = (), SPECS[task].metrics[0]
    else:
        entry = CATALOGUE[dataset.catalogue or name]
        dataset = as_catalogued(dataset, entry)
        text, label, labels, metric = entry.text, entry.label, entry.labels, entry.metric
        languages = entry.languages
    labels = dataset.labels or labels
    text = columns_in(dataset.prompt) if dataset.prompt is not None else dataset.text or text
    if isinstance(dataset.choices, str):
        text = (*text, dataset.choices)
    return Columns(
        task=task,
        text=text,
        label=dataset.label or label,
        labels=expand_tags(labels) if task == "ner" and labels else labels,
        metric=dataset.metric or metric,
        languages=dataset.languages or languages,
        group=dataset.group,
        unanswerable=dataset.unanswerable,
        prompt=dataset.prompt,
        choices=dataset.choices,
        answer=dataset.answer,
        also=dataset.also,
    )


def known_rows(name: str, dataset: Dataset) -> dict[str, int] | None:
    """How many rows each split will have, as far as that is known without reading any."""
    known: Mapping[str, int] = {}
    if dataset.grammar is not None:
        counts: Mapping[str, int] = {s: getattr(dataset.grammar, s) for s in SPLITS}
    elif dataset.files is None:
        entry = CATALOGUE[dataset.catalogue or name]
        counts, known = entry.rows, entry.limit
    else:
        return None
    limits = {split: getattr(dataset.limit, split) or known.get(split) for split in SPLITS}
    return {split: min(counts[split], limits[split] or counts[split]) for split in SPLITS}


def known_image_size(name: str, dataset: Dataset) -> int | None:
    """The side of what is kept of each image, as far as that is known without reading any."""
    if dataset.grammar is not None:
        return dataset.image_size or SIDE
    if dataset.files is not None:
        return dataset.image_size
    entry = CATALOGUE.get(dataset.catalogue or name)
    return None if entry is None else dataset.image_size or entry.image_size or MOST_SIZE


def output_rows_per_row(name: str, dataset: Dataset) -> float | None:
    """About how many rows of outputs a row of data has, where that is known without reading any."""
    if dataset.grammar is not None:
        return 1.0 if SPECS[task_of(name, dataset)].one_label else 16.0
    return CATALOGUE[dataset.catalogue or name].output_rows if dataset.files is None else None


def label_count(name: str, dataset: Dataset) -> int:
    """How many labels a data set has; 0 where that is known only when it is read."""
    labels = columns_of(name, dataset).labels
    entry = CATALOGUE.get(dataset.catalogue or name) if dataset.files is None else None
    return len(labels) or (entry.label_count or 0 if entry else 0)
