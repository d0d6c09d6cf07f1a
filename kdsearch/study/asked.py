"""What a data set says of how a language model is asked and its answers are read: its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kdsearch.study.tasks import SPECS
from kdsearch.study.tasks.choices import choice_problem
from kdsearch.study.tasks.lm import pattern_problem
from kdsearch.study.tasks.templates import columns_in

if TYPE_CHECKING:
    from kdsearch.study.entry import Entry
    from kdsearch.study.schema import Dataset


def as_catalogued(dataset: Dataset, entry: Entry) -> Dataset:
    """A data set of the catalogue, with what that says where the study says nothing."""
    said = {"choices": entry.choices, "metric": entry.metric}
    if dataset.text is None:
        said["prompt"] = entry.prompt
    return dataset.model_copy(
        update={name: value for name, value in said.items() if getattr(dataset, name) is None}
    )


def _of_another_task(dataset: Dataset, task: str) -> Iterator[str]:
    given = [n for n in ("prompt", "choices", "answer") if getattr(dataset, n) is not None]
    if task != "lm" and given:
        yield f"{' and '.join(given)} only go{'es' * (len(given) == 1)} with the task lm"


def _prompt(dataset: Dataset, task: str) -> Iterator[str]:
    if dataset.prompt is None:
        return
    if dataset.text is not None:
        yield "prompt and text both say what a model reads; keep one"
    try:
        columns_in(dataset.prompt)
    except ValueError as error:
        yield f"prompt: {error}"


def _choices(dataset: Dataset, task: str) -> Iterator[str]:
    if isinstance(dataset.choices, tuple):
        if problem := choice_problem(dataset.choices):
            yield f"choices: {problem}"
        elif len({*dataset.choices}) < len(dataset.choices):
            yield "choices: one is there twice"
    if "multiple_choice" in _metrics(dataset, task) and dataset.choices is None:
        yield "multiple_choice needs choices: a column, or a list of texts"


def _answer(dataset: Dataset, task: str) -> Iterator[str]:
    if dataset.answer is None:
        return
    if task == "lm" and "exact_match" not in _metrics(dataset, task):
        yield "answer says what exact_match compares: make it the metric, or name it under also"
    if (problem := pattern_problem(dataset.answer)) is not None:
        yield f"answer: {problem}"


def _metrics(dataset: Dataset, task: str) -> tuple[str, ...]:
    return (dataset.metric or SPECS[task].metrics[0], *dataset.also)


ASKED: tuple[Callable[[Dataset, str], Iterator[str]], ...] = (
    _of_another_task,
    _prompt,
    _choices,
    _answer,
)
"""Each is given a data set and its task, and says what is wrong."""
