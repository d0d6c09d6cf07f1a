"""Test cases whose students have learnt nothing that their scores show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from fakes import a_study, resolved_of
from rich.console import Console
from test_edges import outcome, study

from kdsearch.agenda import Agenda, StudentTraining
from kdsearch.analysis import analyse, at_floor, floor_of
from kdsearch.cli.look import _status
from kdsearch.driver import run_search
from kdsearch.engine import TabulatedEngine
from kdsearch.ledger import Ledger, layout
from kdsearch.report import answer, write_report
from kdsearch.study import DatasetFacts, ResolvedDataset, ResolvedSplit, SplitFacts


def facts(**labels: int) -> DatasetFacts:
    found = SplitFacts(rows=sum(labels.values()), unlabelled=0, labels=labels)
    return DatasetFacts(splits=dict.fromkeys(("train", "validation", "test"), found), shared={})


def data(task: str, metric: str, *labels: str) -> ResolvedDataset:
    splits = {s: ResolvedSplit(digest=s, rows=1) for s in ("train", "validation", "test")}
    return ResolvedDataset(task=task, metric=metric, labels=labels, splits=splits)


def poor(training: StudentTraining) -> float:
    """By the rate and the loss; of one student 0."""
    if training.model.name == "poor":
        return 0.0
    return 0.7 + 1000 * training.learning_rate + 0.1 * (training.objective.kind == "mse")


def with_a_poor_one() -> dict[str, Any]:
    models = a_study()["models"] | {
        "poor": {"config": {"model_type": "bert", "num_hidden_layers": 2}}
    }
    students = {"small": {"model": "small"}, "poor": {"model": "poor"}}
    return {"models": models, "students": students}


def nothing(training: StudentTraining) -> float:
    return 0.0


# -- where the floor is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "labels", "floor"),
    [
        ("accuracy", {"no": 30, "yes": 10}, 0.75),
        ("f1", {"no": 30, "yes": 10}, 2 * 0.25 / 1.25),
        ("f1", {"a": 10, "b": 10, "c": 20}, 2 * 0.5 / 1.5 / 3),
    ],
)
def test_of_classification_the_floor_is_one_label_for_all(
    metric: str, labels: dict[str, int], floor: float
) -> None:
    found = floor_of(data("classification", metric, *labels), facts(**labels))
    assert found == pytest.approx(floor)


@pytest.mark.parametrize(
    ("task", "metric", "floor"),
    [
        ("classification", "accuracy", 0.01),
        ("ner", "f1", 0.01),
        ("qa", "f1", 0.01),
        ("translation", "bleu", 1.0),
    ],
)
def test_elsewhere_it_is_a_hundredth_of_the_largest_score(
    task: str, metric: str, floor: float
) -> None:
    assert floor_of(data(task, metric, "no", "yes"), None) == floor


# -- which cases are there ---------------------------------------------------------------------


def test_a_case_is_at_the_floor_once_each_of_its_rates_was_tried() -> None:
    agenda = Agenda(resolved_of(a_study()))
    rates = set()
    while not (found := at_floor(agenda, agenda.views()[0], {})):
        assert rates < {1e-5, 2e-5}
        training = agenda.requests()[0].training
        agenda.add(training.key, outcome(training, nothing, lambda t: False))
        if isinstance(training, StudentTraining):
            rates.add(training.learning_rate)
    assert rates == {1e-5, 2e-5}
    assert not agenda.views()[0].progress.decisions
    assert str(found) == (
        "sentences/big/small: every student so far scores 0.00; its teacher has 0.90: more "
        "epochs, or another learning rate (training.epochs, search.learning_rate)"
    )


def test_one_score_above_the_floor_is_enough() -> None:
    lucky = study(lambda t: 0.02 * (t.objective.kind == "mse"))
    assert at_floor(lucky, lucky.views()[0], {}) is None
    none = study(lambda t: None)
    assert at_floor(none, none.views()[0], {}) is None


def test_a_score_that_one_label_for_all_has_is_at_the_floor() -> None:
    agenda = study(lambda t: 0.65)
    [view] = agenda.views()
    found = at_floor(agenda, view, {"sentences": facts(no=10, yes=10)})
    assert found is not None
    assert "the best student so far scores 0.65, and up to 0.67 takes no learning" in str(found)
    assert at_floor(agenda, view, {}) is None


# -- where it is said --------------------------------------------------------------------------


def test_a_case_at_the_floor_is_marked_and_still_counts() -> None:
    agenda = study(poor, **with_a_poor_one())
    analysis = analyse(agenda)
    small, low = analysis.cases
    assert small.at_floor is None
    assert low.at_floor is not None
    rewards = {row.label: row for row in analysis.table_3.rows}
    mse = rewards["MSE over CE"]
    assert (mse.better, mse.equal) == (1, 1)
    without = {row.label: row for row in analysis.without_floor if row.reward}["MSE over CE"]
    assert (without.value, without.n, without.without, without.n_without) == (1, 2, 1, 1)
    text = answer(analysis)
    assert "**At the floor**: 1 test case of 2. Without them" in text
    assert " % against lazy and " in text


def test_a_study_without_such_cases_says_nothing_of_a_floor() -> None:
    analysis = analyse(study(poor))
    assert analysis.without_floor == ()
    assert "floor" not in answer(analysis)


def test_medians_and_rewards_without_the_cases_at_the_floor_stand_beside_those_of_all() -> None:
    def worse(training: StudentTraining) -> float:
        if training.model.name == "poor":
            return 0.3 * (1 + (training.objective.kind == "ce"))
        return poor(training)

    agenda = study(worse, **with_a_poor_one())
    found = analyse(agenda, facts={"sentences": facts(no=10, yes=10)}).without_floor
    reward, *_ = (row for row in found if row.label == "MSE over CE" and row.reward)
    assert (reward.value, reward.without) == (0, 1)
    median, *_ = (row for row in found if row.label == "MSE over CE" and not row.reward)
    assert (median.n, median.n_without) == (2, 1)
    assert median.value is not None
    assert median.without is not None
    assert median.value < 0 < median.without


def test_a_launch_warns_before_the_grid_is_spent_and_every_file_has_the_mark(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    ledger.prepare()
    ledger.write_resolved(resolved_of(a_study()))
    agenda, console = Agenda(ledger.resolved()), Console(file=io.StringIO(), width=200)
    run = lambda t: ledger.write_outcome(outcome(t, nothing, lambda t: False))  # noqa: E731
    run_search(
        agenda,
        ledger,
        TabulatedEngine(look_up=run, seconds=lambda t: 1.0, slots=1),
        console=console,
    )
    line = str(at_floor(agenda, agenda.views()[0], {}))
    log = (tmp_path / layout.LOG).read_text().splitlines()
    [place] = [number for number, each in enumerate(log) if each.endswith(f"WARNING {line}")]
    assert "stage=distance" in "".join(log[place:])
    assert "stage=distance" not in "".join(log[:place])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(f"warning: {line}\n") == 1
    assert line in _status(ledger, agenda)["hints"]
    page = write_report(ledger, agenda)
    assert '<td class="text verdict">at the floor' in page.read_text()
    text = page.with_suffix(".md").read_text()
    assert line in text
    assert "## Without the cases at the floor" in text
    assert '"at_floor": {' in page.with_suffix(".json").read_text()
