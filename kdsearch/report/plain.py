"""An analysis as JSON: the same numbers, under the same names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from kdsearch.agenda import Agenda
from kdsearch.analysis import Analysis
from kdsearch.analysis.measures import CaseMeasures
from kdsearch.analysis.paper import AT_LEAST_AS_GOOD, CASES, REWARDS, SOURCE
from kdsearch.analysis.smoothing import Smoothing
from kdsearch.analysis.statistics import Chance
from kdsearch.analysis.temperature import Temperatures
from kdsearch.analysis.temperature_lines import TemperatureLine, TemperaturePoint
from kdsearch.analysis.temperature_paired import Paired
from kdsearch.report.choices import in_words
from kdsearch.report.practice import export_line, usual_folder
from kdsearch.search import Choice
from kdsearch.study import Doubt, Record

FORMAT = 5
"""Of report.json. Raise it when a name in it changes."""
_ONLY_IF_ANY = (
    "winner_seeds",
    "winner_under_seeds",
    "further_tuned",
    "generations",
    "levels",
    "trends",
    "start",
)
"""Names that stand in a report.json only where there is something under them."""
_PAPERS = ("distance", "teacher", "student_temperature", "alpha")


_DERIVED: Mapping[type, Sequence[str]] = {
    Chance: ("told_apart",),
    Paired: ("mean", "interval", "verdict"),
    TemperatureLine: ("plateau",),
    TemperaturePoint: ("test", "spread"),
}
"""What stands in a report.json beside the fields of a value."""


def to_json(
    analysis: Analysis,
    agenda: Agenda,
    messages: Mapping[str, str],
    doubts: Iterable[Doubt] = (),
    measured: Sequence[CaseMeasures] = (),
    smoothed: Smoothing | None = None,
    tempered: Temperatures | None = None,
) -> str:
    """The content of report.json; `messages` says by key why a training failed.

    `doubts` are the preflight's about data and models; `measured` is what was measured beside the
    scores, `smoothed` distillation beside label smoothing, `tempered` students over the
    temperature.
    """
    content = {
        "format": FORMAT,
        **plain(analysis),
        "answer": _answer(analysis),
        **({"measures": plain(measured)} if measured else {}),
        **({"smoothing": plain(smoothed)} if smoothed else {}),
        **({"temperature": plain(tempered)} if tempered else {}),
        "complete": analysis.status.complete,
        "searches": [
            {"name": name, **search.model_dump(mode="json")}
            for name, search in agenda.resolved.study.every_search.items()
        ],
        "doubts": [doubt.model_dump() for doubt in doubts],
        "failure_messages": dict(messages),
        "paper": {
            "source": SOURCE,
            "cases": CASES,
            "at_least_as_good": AT_LEAST_AS_GOOD,
            "rewards": REWARDS,
        },
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _answer(analysis: Analysis) -> Any:
    """The answer; what each case chose also in words, and the command that exports its student."""
    found = plain(analysis.answer)
    place = usual_folder(analysis)
    for content, case in zip(found["cases"], analysis.answer.cases, strict=True):
        content["in_words"] = in_words(case.choice) if case.choice else None
        content["export"] = export_line(case, case.take, place) if case.take else None
    return found


def plain(value: object) -> Any:
    """`value` in what JSON has; a number that is not finite becomes null."""
    if isinstance(value, Choice):
        # With nothing for an axis of the paper's that is inactive.
        return {name: plain(value.get(name)) for name in dict.fromkeys((*_PAPERS, *value.names))}
    if is_dataclass(value):
        derived = {name: getattr(value, name) for name in _DERIVED.get(type(value), ())}
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            name: plain(each)
            for name, each in (named | derived).items()
            if each or name not in _ONLY_IF_ANY
        }
    if isinstance(value, Record):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
