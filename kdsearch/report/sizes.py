"""Size, speed and score of a study's models: a table and a chart of each data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kdsearch.analysis import Analysis, SizedModel, Sizes
from kdsearch.analysis.sizes import Kind
from kdsearch.report.markdown import NOTHING, escape, megabytes, score, table
from kdsearch.report.marks import metric_name

TITLE = "Size, speed and score"
FRONT = (
    "A model is on the front if none of its data set outdoes it: every smaller one has a lower "
    "test score, and every better one is larger. Which of two close scores is higher may be noise. "
    "A teacher has a checkpoint of the highest score (t_hs) and one of the lowest loss (t_ll). "
    "Chosen and stable are students of a search, ERM is the student without a teacher."
)
HEADERS = ("model", "test", "on the front", "parameters", "examples/s", "MB")


def sizes_section(analysis: Analysis) -> list[str]:
    """The section of report.md; empty where no model's size is known."""
    if not analysis.sizes:
        return []
    sections = [f"## {TITLE}", FRONT]
    for found in analysis.sizes:
        sections += [f"### {escape(found.dataset)}", timed(found), table(HEADERS, rows(found))]
    return sections


def rows(found: Sizes) -> Iterator[tuple[object, ...]]:
    """The table of a data set, under `HEADERS`."""
    for model in found.models:
        size = model.size
        spread = f" ± {score(model.spread, found.digits)}" if model.spread is not None else ""
        yield (
            model.name,
            score(model.test, found.digits) + spread,
            "yes" if model.on_front else "",
            f"{size.parameters:,}",
            f"{size.examples_per_second:,.0f}" if size.examples_per_second else NOTHING,
            megabytes(size.bytes),
        )


def timed(found: Sizes) -> str:
    """How the speeds of a data set came about."""
    text = f"Scores are {metric_name(found.metric)}."
    if found.device is None:
        return f"{text} No model was timed."
    text += (
        f" Speeds are those of {found.device}, scoring the test split: of a model the median over "
        "all that was timed of it."
    )
    if any(model.size.examples_per_second is None for model in found.models):
        text += " A model without a speed was not timed on that device."
    return text


def sizes_charts(analysis: Analysis) -> list[dict[str, Any]]:
    """What the page's script draws of each data set."""
    return [
        {
            "metric": metric_name(found.metric),
            "digits": found.digits,
            "models": [
                _point(model) | {"label": label}
                for model, label in zip(found.models, _labels(found.models), strict=True)
            ],
        }
        for found in analysis.sizes
    ]


def _labels(models: Sequence[SizedModel]) -> list[str]:
    """What stands beside each point: without the student's name where there is only one."""
    names = [model.name.split("; ") for model in models if model.kind is not Kind.TEACHER]
    students = {part.rpartition(", ")[0] for parts in names for part in parts}
    only = f"{students.pop()}, " if len(students) == 1 else ""
    return [model.name.removeprefix(only) for model in models]


def _point(model: SizedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind.value,
        "parameters": model.size.parameters,
        "speed": model.size.examples_per_second,
        "test": float(f"{model.test:.6g}"),
        "spread": model.spread,
        "front": model.on_front,
    }
