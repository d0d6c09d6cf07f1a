"""What was measured beside the scores: a section of report.md, a table, the page's charts.

All of it is empty for a study of which nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdsearch.agenda import Agenda, CaseView, Outcome, StudentTraining, TeacherTraining
from kdsearch.analysis import CaseResult
from kdsearch.analysis.measures import ByName, CaseMeasures, measured_runs
from kdsearch.report.glossary import METRICS
from kdsearch.report.markdown import NOTHING, score, table

if TYPE_CHECKING:
    import pandas as pd

NOT_MEASURED = "not measured"
_DIGITS = 3
"""More decimals of a mean over some hundred test rows say nothing."""
MEASURES = (
    "Beside the scores, on test. Posterior entropy is how undecided a model is, in nats; relative "
    "entropy is its share of ln C, the highest with C classes; “without top” leaves out "
    "the most probable class and is a share of ln(C − 1), undefined for two classes. "
    "The calibration error is the mean gap between how sure a model is and how often it is right, "
    "over 15 bins. Agreement is how often student and teacher predict the same. Of texts, "
    "multiple choice too, all of this is of the tokens of the right one, and not of the answer "
    "that is chosen or written. Metrics that a data set has beside its own stand here too. “Not "
    "measured” marks trainings that ran before this was measured."
)


def words(name: str) -> str:
    """A measure's name as it is read, or that of a further metric."""
    return METRICS.get(name, (name.replace("_", " "), ""))[0]


def names_of(measured: Sequence[CaseMeasures]) -> list[str]:
    """The measures that any model has."""
    models = [model for case in measured for model in case.models]
    return list(dict.fromkeys(name for m in models for name in (*m.test, *m.validation)))


def model_name(name: str) -> str:
    """A measured model's name as the report has it elsewhere."""
    return name.replace("no teacher (ERM)", "labels alone (ERM)")


def cell(found: ByName, name: str) -> str:
    """A measure of a model with the spread between its seeds."""
    if name not in found:
        return NOTHING
    value = found[name]
    if value is None:
        return NOT_MEASURED
    spread = "" if value.spread is None else f" ± {score(value.spread, _DIGITS)}"
    return score(value.mean, _DIGITS) + spread


def measures_section(measured: Sequence[CaseMeasures]) -> list[str]:
    """The section of report.md."""
    if not measured:
        return []
    names = names_of(measured)
    rows = [
        (case.case, model_name(model.model), *(cell(model.test, name) for name in names))
        for case in measured
        for model in case.models
    ]
    return ["## Measures", MEASURES, table(["test case", "model", *map(words, names)], rows)]


def measures_tables(measured: Sequence[CaseMeasures]) -> dict[str, pd.DataFrame]:
    """A row per model and split, by the name of the table's file."""
    if not measured:
        return {}
    import pandas as pd

    names = names_of(measured)
    rows: list[dict[str, object]] = [
        asdict(case.case) | {"model": model.model, "split": split} | _columns(found, names)
        for case in measured
        for model in case.models
        for split, found in (("validation", model.validation), ("test", model.test))
    ]
    return {"measures": pd.DataFrame(rows)}


def _columns(found: ByName, names: Sequence[str]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name in names:
        value = found.get(name)
        columns[name] = value.mean if value else None
        columns[f"{name}_spread"] = value.spread if value else None
    return columns


def measures_charts(
    agenda: Agenda, view: CaseView, case: CaseResult, names: Sequence[str]
) -> dict[str, Any]:
    """What the charts show of a case's measured trainings: each as it went, and its epochs."""
    runs = [
        run_for_chart(model_name(run.model), run.outcome, names, _ROLES[run.model])
        for run in measured_runs(agenda, view, case)
    ]
    return {"measured": runs} if runs else {}


_ROLES = {
    "student, as chosen": "chosen",
    "student, no teacher (ERM)": "ERM",
    "teacher": "teacher",
}
"""What a chart shows a model as."""


def run_for_chart(
    name: str, outcome: Outcome, names: Sequence[str], role: str | None = None
) -> dict[str, Any]:
    """A training as it went, and the measures of its epochs by their `names`.

    `role` is what it is in a test case, which has a colour of its own.
    """
    return {
        "name": name,
        "role": role,
        "curve": _curve(outcome),
        "epochs": [
            [epoch.epoch, *(_short(epoch.measures.get(name)) for name in names)]
            for epoch in outcome.epochs
            if epoch.measures
        ],
    }


def _curve(outcome: Outcome) -> list[tuple[float, float | None]]:
    """The posterior entropy at the middle of each point's steps, in epochs."""
    curve = outcome.curve
    if curve is None:
        return []
    training = outcome.training
    assert isinstance(training, TeacherTraining | StudentTraining)
    in_epochs = training.settings.epochs / curve.steps
    firsts = range(0, curve.steps, curve.every)
    return [
        ((first + min(first + curve.every, curve.steps)) / 2 * in_epochs, _short(entropy))
        for first, entropy in zip(firsts, curve.posterior_entropy, strict=True)
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
