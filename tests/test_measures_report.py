"""The measures of a study in its analysis, its report and its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

import pytest
from fakes import World, a_study, memory_ledger, resolved_of, search_through, uniform
from test_page import Elements, data_of

from kdsearch.agenda import (
    Agenda,
    Epoch,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TrainingCurve,
)
from kdsearch.analysis import analyse
from kdsearch.analysis.measures import CaseMeasures, Measured, case_measures
from kdsearch.ledger import Ledger
from kdsearch.report.write import report_files

NAMES = ("posterior_entropy", "calibration_error", "agreement")
SEEDS = [0, 1, 2]


def is_taught(outcome: Outcome) -> bool:
    training = outcome.training
    return isinstance(training, StudentTraining) and training.teaching is not None


def measures_of(outcome: Outcome, where: object) -> dict[str, float]:
    names = NAMES if is_taught(outcome) else NAMES[:2]
    return {name: uniform(outcome.key, where, name) for name in names}


def measured(outcome: Outcome) -> Outcome:
    """The same outcome, measured: two epochs, of which the first is the best."""
    if outcome.state == "diverged":
        return outcome
    if isinstance(outcome.training, OutputsTraining):
        return outcome.model_copy(update={"measures": measures_of(outcome, "split")})
    epochs = tuple(
        Epoch(
            epoch=number,
            train_loss=1.0,
            validation=outcome.validation,
            validation_loss=1.0,
            measures=measures_of(outcome, number),
        )
        for number in (1, 2)
    )
    curve = TrainingCurve(steps=5, every=2, posterior_entropy=(1.5, None, 0.5))
    changes: dict[str, Any] = {"epochs": epochs, "curve": curve}
    if isinstance(outcome.training, StudentTraining):
        changes |= {"best_epoch": 1, "measures": measures_of(outcome, "test")}
    return outcome.model_copy(update=changes)


def study(change: Callable[[Outcome], Outcome], under: str = "seeds") -> tuple[Ledger, Agenda]:
    """A finished study of two students under three seeds, whose outcomes are changed."""
    grammar = {"train": 20, "validation": 10, "test": 10}
    resolved = resolved_of(
        a_study(datasets={"apples": {"grammar": grammar}}, erm=True, **{under: SEEDS})
    )
    ledger = memory_ledger(resolved)
    agenda = search_through(resolved, ledger, World(seed=1))
    results = {key: change(result) if result else None for key, result in agenda.results.items()}
    return ledger, Agenda(resolved, results)


def unmeasured(outcome: Outcome) -> Outcome:
    return outcome


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return report_files(*study(measured))


def models(agenda: Agenda) -> dict[str, Any]:
    found: tuple[CaseMeasures, ...] = case_measures(agenda, analyse(agenda).cases)
    return {model.model: model for model in found[0].models}


def test_what_a_case_chose_has_the_mean_and_the_spread_over_its_seeds() -> None:
    _, agenda = study(measured)
    [view, *_] = agenda.views()
    assert view.progress is not None
    best = view.progress.winner.best
    assert best is not None
    keys = [training.key for training in agenda.trainings(view, best)]
    assert len(keys) == 3
    chosen = models(agenda)["student, as chosen"]
    for name in NAMES:
        tests = [uniform(key, "test", name) for key in keys]
        assert chosen.test[name] == Measured(mean=fmean(tests), spread=stdev(tests))
        epochs = [uniform(key, 1, name) for key in keys]
        assert chosen.validation[name] == Measured(mean=fmean(epochs), spread=stdev(epochs))


def test_what_a_case_chose_is_measured_over_its_winner_seeds() -> None:
    _, agenda = study(measured, under="winner_seeds")
    found = models(agenda)
    for case, name in zip(agenda.cases, ("as chosen", "no teacher (ERM)"), strict=True):
        tests = [uniform(t.key, "test", "posterior_entropy") for t in agenda.winners(case)]
        expected = Measured(mean=fmean(tests), spread=stdev(tests))
        assert len(tests) == 3
        assert found[f"student, {name}"].test["posterior_entropy"] == expected


def test_where_a_winner_seed_has_no_score_the_measures_are_the_searchs() -> None:
    def without(outcome: Outcome) -> Outcome:
        training = outcome.training
        if isinstance(training, StudentTraining) and training.seed == SEEDS[-1]:
            return outcome.model_copy(update={"state": "diverged", "validation": None})
        return measured(outcome)

    _, agenda = study(without, under="winner_seeds")
    chosen = agenda.winners(agenda.views()[0].case)[0]
    value = uniform(chosen.key, "test", "posterior_entropy")
    expected = Measured(mean=value, spread=None)
    assert models(agenda)["student, as chosen"].test["posterior_entropy"] == expected


def test_a_teachers_checkpoint_has_what_its_passes_over_the_splits_measured() -> None:
    _, agenda = study(measured)
    [view, *_] = agenda.views()
    for checkpoint, (_, validation, test) in (view.outputs or {}).items():
        found = models(agenda)[f"teacher {checkpoint}"]
        for by_name, training in ((found.validation, validation), (found.test, test)):
            value = uniform(training.key, "split", "posterior_entropy")
            assert by_name["posterior_entropy"] == Measured(mean=value, spread=None)


def test_what_no_teacher_taught_has_no_agreement_and_lacks_none() -> None:
    found = models(study(measured)[1])
    assert set(found["student, no teacher (ERM)"].test) == set(NAMES[:2])
    assert set(found["student, as chosen"].test) == set(NAMES)


def test_a_model_that_ran_before_measures_is_not_measured() -> None:
    def partly(outcome: Outcome) -> Outcome:
        return measured(outcome) if is_taught(outcome) else outcome

    ledger, agenda = study(partly)
    found = models(agenda)
    assert found["student, no teacher (ERM)"].test == dict.fromkeys(NAMES)
    assert None not in found["student, as chosen"].test.values()
    assert "| not measured |" in report_files(ledger, agenda)["report/report.md"]


def test_agreement_is_not_measured_where_the_teachers_outputs_were_not_kept() -> None:
    def without(outcome: Outcome) -> Outcome:
        content = measured(outcome)
        kept = {name: value for name, value in content.measures.items() if name != "agreement"}
        return content.model_copy(update={"measures": kept})

    found = models(study(without)[1])["student, as chosen"]
    assert found.test["agreement"] is None
    assert found.test["posterior_entropy"] is not None


def test_one_seed_without_a_measure_leaves_no_mean() -> None:
    def two_of_three(outcome: Outcome) -> Outcome:
        seed = getattr(outcome.training, "seed", None)
        return outcome if is_taught(outcome) and seed == SEEDS[-1] else measured(outcome)

    assert models(study(two_of_three)[1])["student, as chosen"].test == dict.fromkeys(NAMES)


def test_a_study_without_measures_has_the_report_that_it_had() -> None:
    ledger, agenda = study(unmeasured)
    assert case_measures(agenda, analyse(agenda).cases) == ()
    found = report_files(ledger, agenda)
    assert "Measures" not in found["report/report.md"]
    assert "measures" not in json.loads(found["report/report.json"])
    assert "report/tables/measures.csv" not in found
    page = found["report/report.html"]
    assert "posterior entropy" not in Elements(page).text
    assert all("measured" not in case for case in data_of(page)["cases"])


def test_every_file_of_the_report_has_the_same_measures(files: dict[str, str]) -> None:
    [case, *_] = json.loads(files["report/report.json"])["measures"]
    chosen = next(model for model in case["models"] if model["model"] == "student, as chosen")
    entropy = chosen["test"]["posterior_entropy"]
    cell = f"{entropy['mean']:.3f} ± {entropy['spread']:.3f}"
    assert cell in files["report/report.md"].partition("## Measures")[2].partition("## Cost")[0]
    assert cell in Elements(files["report/report.html"]).text
    assert f"{entropy['mean']!r}" in files["report/tables/measures.csv"]
    assert "report/tables/measures.tex" in files


def test_the_page_has_the_entropy_along_training_in_epochs(files: dict[str, str]) -> None:
    [case, *_] = data_of(files["report/report.html"])["cases"]
    runs = {run["name"]: run for run in case["measured"]}
    assert set(runs) == {"student, as chosen", "student, labels alone (ERM)", "teacher"}
    for run in runs.values():
        places = [place for place, _ in run["curve"]]
        # Of five steps the middle of the first two, of the next two, and of the last.
        assert places == pytest.approx([places[0] * n for n in (1, 3, 4.5)])
        assert [entropy for _, entropy in run["curve"]] == [1.5, None, 0.5]
        assert [row[0] for row in run["epochs"]] == [1, 2]
