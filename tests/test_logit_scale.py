"""Temperatures in units of the teacher's logit scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from models import (
    begin,
    data_of,
    everything,
    kind_for,
    model_in,
    reader_in,
    rows_of,
    run_study,
    save_model,
    settings_of,
    task_study,
)
from typer.testing import CliRunner

from kdsearch.agenda import Agenda, Outcome, StudentTraining
from kdsearch.cli.app import app
from kdsearch.distill import run_training
from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.scale import logit_scale
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.report import write_report
from kdsearch.search import Ce, Dkd, Jsd, ReverseKl, Tempered, TotalVariation
from kdsearch.study import parse_study
from kdsearch.tasks import TASKS, head_weights

UNIT: dict[str, Any] = {"temperature_unit": "logit_scale"}
OBJECTIVES: list[Tempered] = [
    Ce(temperature=2, student_temperature=0.5, alpha=1, **UNIT),
    ReverseKl(temperature=0.5, student_temperature="tied", alpha=1, **UNIT),
    Jsd(temperature=1, student_temperature=1, alpha=1, beta=0.3, **UNIT),
    TotalVariation(temperature=3, student_temperature=1, alpha=1, **UNIT),
]


# -- the scale -----------------------------------------------------------------------------------


def outputs_of(task: str, folder: Path, **fields: Any) -> tuple[CachedOutputs, Any, Any]:
    """A teacher's outputs on some rows, the examples of these and the teacher."""
    save_model(folder, kind_for(task), task=task, **fields)
    model, tokenizer = model_in(task, folder), reader_in(task, folder)
    data, settings = data_of(task), settings_of(task)
    examples = TASKS[task].encode(rows_of(task)[:7], tokenizer, data, settings, training=True)
    with torch.no_grad():
        values = TASKS[task].outputs(model, everything(examples))
    head = head_weights(model) if TASKS[task].wide else None
    return CachedOutputs(values=values, head=head), examples, model


@pytest.mark.parametrize("task", TASKS)
def test_the_scale_is_the_mean_deviation_over_the_classes_of_each_unit(
    task: str, tmp_path: Path
) -> None:
    outputs, examples, model = outputs_of(task, tmp_path)
    batch = everything(examples)
    if task in ("translation", "lm"):
        with torch.no_grad():
            logits = model(**batch.arguments, labels=batch.targets).logits[batch.counted]
        real = None
    else:
        logits, real = TASKS[task].units(outputs.values, batch)
    classes = real if real is not None else torch.ones_like(logits, dtype=torch.bool)
    expected = np.mean(
        [np.std(unit[some].numpy()) for unit, some in zip(logits, classes, strict=True)]
    )
    assert logit_scale(TASKS[task], outputs, examples) == pytest.approx(expected, rel=1e-4)


def test_padding_has_no_part_in_the_scale(tmp_path: Path) -> None:
    outputs, examples, model = outputs_of("lm", tmp_path / "a")
    expected = logit_scale(TASKS["lm"], outputs, examples)
    head = torch.cat([head_weights(model)[0], torch.full((9, 16), 50.0)])
    padded = CachedOutputs(values=outputs.values, head=(head, None))
    assert logit_scale(TASKS["lm"], padded, examples) == expected


# -- the losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_teachers_and_students_whose_logits_differ_by_a_factor_are_as_far_apart(
    objective: Tempered,
) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7).double()
    labels = torch.randint(7, (5,))
    found = []
    for factor in (0.2, 1, 5):
        units = Units(student=student * factor, teacher=teacher * factor, labels=labels)
        scale = float((teacher * factor).std(dim=1, correction=0).mean())
        found.append(float(compute(objective.at_scale(scale), units)))
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_probabilities_are_of_logits_over_the_temperature_times_the_scale() -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 5, 7).double()
    objective = Ce(temperature=2, student_temperature=0.5, alpha=1, **UNIT).at_scale(2.5)
    units = Units(student=student, teacher=teacher, labels=torch.zeros(5, dtype=torch.long))
    expected = -((teacher / 5).softmax(1) * (student / 1.25).log_softmax(1)).sum(1).mean()
    assert float(compute(objective, units)) == pytest.approx(float(expected), rel=1e-6)


def test_a_temperature_in_units_is_that_many_scales() -> None:
    objective = Ce(temperature=2, student_temperature=0.5, alpha=0.5, **UNIT)
    expected = Ce(temperature=5, student_temperature=1.25, alpha=0.5)
    assert objective.at_scale(2.5) == expected
    assert expected.at_scale(2.5) == expected
    dkd = Dkd(temperature=2, target=1, non_target=3, **UNIT)
    assert dkd.at_scale(0.5) == Dkd(temperature=1, target=1, non_target=3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        dkd.at_scale(0)


def test_a_loss_is_not_computed_before_the_scale_is_known() -> None:
    units = Units(student=torch.ones(1, 3), teacher=torch.ones(1, 3), labels=torch.tensor([0]))
    for objective in (OBJECTIVES[0], Dkd(temperature=2, target=1, non_target=3, **UNIT)):
        with pytest.raises(AssertionError):
            compute(objective, units)


# -- a study -------------------------------------------------------------------------------------


def students_of(ledger: Ledger) -> list[tuple[StudentTraining, Outcome]]:
    return [
        (outcome.training, outcome)
        for outcome in ledger.outcomes()
        if isinstance(outcome.training, StudentTraining)
    ]


def searched(task: str, folder: Path) -> tuple[Ledger, Agenda]:
    """A search in two rounds, of few short trainings."""
    axes = {"distance": ["ce"], "student_temperature": [1], "alpha": [1], **UNIT}
    teachers = {"big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 1}}}
    search = {**axes, "temperature": {"broad": [0.25, 1]}}
    study = task_study(task, search=search, teachers=teachers)
    ledger, agenda = begin(folder, study)
    run_study(ledger, agenda, run_training)
    return ledger, agenda


@pytest.fixture(scope="module", params=["classification", "lm"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return searched(request.param, tmp_path_factory.mktemp("study") / "run")


def test_students_learn_at_their_temperatures_times_the_scale_of_the_outputs(study: Any) -> None:
    ledger, _ = study
    students = students_of(ledger)
    assert {cast(Ce, each.objective).temperature for each, _ in students} >= {0.25, 1}
    for training, outcome in students[:2]:
        of_outputs = ledger.outcome(training.taught.outputs)
        assert of_outputs is not None
        assert outcome.logit_scale == of_outputs.logit_scale
        assert outcome.logit_scale is not None
        objective = cast(Ce, training.objective).at_scale(outcome.logit_scale)
        assert objective.temperature_unit == "none"
        explicit = training.model_copy(update={"objective": objective})
        assert explicit.key != training.key
        assert run_training(explicit, ledger.folder).epochs == outcome.epochs


def test_the_scale_of_outputs_that_were_kept_without_it_is_computed_from_them(study: Any) -> None:
    ledger, _ = study
    training, outcome = students_of(ledger)[0]
    path = ledger.folder / layout.outcome(training.taught.outputs)
    whole = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(whole), "logit_scale": None}))
        again = run_training(training, ledger.folder)
    finally:
        path.write_text(whole)
    assert again.logit_scale == pytest.approx(outcome.logit_scale, rel=1e-4)
    assert again.validation == pytest.approx(outcome.validation, rel=1e-3)


def test_reports_say_the_unit_and_what_temperatures_come_to(study: Any) -> None:
    ledger, agenda = study
    write_report(ledger, agenda)
    (view,) = agenda.views()
    best = view.chosen
    assert best is not None
    scale = ledger.outcome(agenda.training(view, best).key).logit_scale
    texts = [(ledger.folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html")]
    texts.append(CliRunner().invoke(app, ["explain", str(ledger.folder)]).output)
    for text in texts:
        words = " ".join(text.split())
        assert f"units of the teacher’s logit scale ({scale:.3g} of t_hs)" in words
        tau = best.get("temperature")
        assert f"{tau:.3g} ({tau * scale:.3g})" in words or f"{tau:g} ({tau * scale:.6g})" in words
    assert "- **temperature unit**: " in texts[0]
    explained = CliRunner().invoke(app, ["explain", str(ledger.folder), "--json"]).output
    [case] = json.loads(explained)
    assert case["logit_scales"] == {"t_hs": scale}


# -- what a study file says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"objective": "labels"}, "labels has no such parameter; remove it"),
        (
            {"objective": ["mse", "label_smoothing"], "smoothing": 0.1},
            "has such a parameter; remove it",
        ),
        ({"objective": "ce", "temperature": 1, "temperature_unit": "scale"}, "none or logit_scale"),
    ],
)
def test_a_unit_of_temperatures_that_there_are_not_is_refused(
    search: dict[str, Any], said: str
) -> None:
    one = {"strategy": "exhaustive", **UNIT, **search}
    study = task_study("classification", searches={"one": one})
    del study["search"]
    with pytest.raises(InputError, match=f"searches.one.temperature_unit: .*{said}"):
        parse_study(study, place="study.yaml")
