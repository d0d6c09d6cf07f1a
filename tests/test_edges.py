"""What ended at an end of what was tried: in the analysis, the report and `status`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import a_study, outcome_of, resolved_of
from test_analysis import searched

from kdsearch.agenda import Agenda, Outcome, StudentTraining, TeacherTraining, Training
from kdsearch.analysis import Edge, TeacherEdge, analyse, edges, teacher_edges, unconverged
from kdsearch.analysis.edges import end_of
from kdsearch.cli.look import _status
from kdsearch.ledger import Ledger
from kdsearch.report import answer, write_report
from kdsearch.search import ValidationScore

Score = Callable[[StudentTraining], float | None]


def tried(**scores: float | None) -> dict[float, ValidationScore | None]:
    """By value, `_` for the point: v0_5=0.7."""
    return {
        float(name[1:].replace("_", ".")): None if score is None else ValidationScore(score)
        for name, score in scores.items()
    }


def study(
    score: Score, *, late: Callable[[StudentTraining], bool] = lambda t: False, **sections: Any
) -> Agenda:
    """A small study searched to its end; of students that are `late` the third epoch is best."""
    raw = a_study(**sections)
    if "searches" in raw:
        del raw["search"]
    agenda = Agenda(resolved_of(raw))
    while requests := agenda.requests():
        for request in requests:
            agenda.add(request.training.key, outcome(request.training, score, late))
    return agenda


def outcome(training: Training, score: Score, late: Callable[[StudentTraining], bool]) -> Outcome:
    if not isinstance(training, StudentTraining):
        return outcome_of(training, 0.9, test=0.9, best_epoch=1, lowest_loss_epoch=1)
    found = score(training)
    return outcome_of(training, found, test=found, best_epoch=3 if late(training) else 1)


def by_rate(training: StudentTraining) -> float:
    return 0.5 + 100 * training.learning_rate


def by_temperature(training: StudentTraining) -> float:
    return 0.5 + training.objective.parameters.get("temperature", 0.0) / 1000


# -- ends of axes ------------------------------------------------------------------------------


def test_the_best_of_several_values_is_at_an_end_or_within() -> None:
    assert end_of("learning_rate", tried(v1=0.1, v2=0.2, v3=0.3)) == "largest"
    assert end_of("learning_rate", tried(v1=0.3, v2=0.2, v3=0.1)) == "smallest"
    assert end_of("learning_rate", tried(v1=0.1, v2=0.3, v3=0.2)) is None


def test_one_value_has_no_end() -> None:
    assert end_of("learning_rate", tried(v1=0.1)) is None


def test_nothing_is_said_where_the_value_beyond_diverged() -> None:
    assert end_of("learning_rate", tried(v1=0.1, v2=0.2, v3=None)) is None
    assert end_of("learning_rate", tried(v1=None, v2=None)) is None


def test_nothing_is_said_where_another_value_is_as_good() -> None:
    assert end_of("learning_rate", tried(v1=0.2, v2=0.1, v3=0.2)) is None
    assert end_of("learning_rate", tried(v1=0.0, v2=0.0)) is None


@pytest.mark.parametrize(
    ("axis", "scores"),
    [
        ("alpha", {"v0_5": 0.1, "v1": 0.2}),
        ("smoothing", {"v0_9": 0.1, "v0_9991": 0.2}),
        ("dropout", {"v0": 0.2, "v0_1": 0.1}),
        ("temperature", {"v1": 0.2, "v2": 0.1}),
        ("student_temperature", {"v1": 0.2, "v2": 0.1}),
        ("batch_size", {"v1": 0.2, "v8": 0.1}),
        ("weight_decay", {"v0": 0.2, "v0_01": 0.1}),
    ],
)
def test_a_natural_end_of_an_axis_is_none(axis: str, scores: dict[str, float]) -> None:
    assert end_of(axis, tried(**scores)) is None


@pytest.mark.parametrize(
    ("axis", "scores"),
    [
        ("alpha", {"v0_5": 0.2, "v1": 0.1}),
        ("smoothing", {"v0_1": 0.1, "v0_2": 0.2}),
        ("temperature", {"v2": 0.2, "v4": 0.1}),
        ("weight_decay", {"v0": 0.1, "v0_01": 0.2}),
    ],
)
def test_an_end_that_is_not_natural_is_one(axis: str, scores: dict[str, float]) -> None:
    assert end_of(axis, tried(**scores)) is not None


def test_the_cases_whose_rate_is_the_largest_are_counted() -> None:
    students = {"small": {"model": "small"}, "big": {"model": "big"}}

    def score(training: StudentTraining) -> float:
        return by_rate(training) * (1 if training.model.name == "small" else -1) + 0.5

    agenda = study(score, students=students)
    small, big = agenda.cases
    key = "search.learning_rate"
    assert edges(agenda) == (
        Edge(axis="learning_rate", end="largest", key=key, cases=(small,), of=2, fewest=2),
        Edge(axis="learning_rate", end="smallest", key=key, cases=(big,), of=2, fewest=2),
    )


def test_a_refined_temperature_ends_where_its_last_round_did() -> None:
    [edge] = edges(study(by_temperature))
    assert (edge.axis, edge.end, edge.key) == ("temperature", "largest", "search.temperature.broad")
    peak = study(lambda t: -abs(t.objective.parameters.get("temperature", 0) - 4))
    assert edges(peak) == ()


def test_a_rate_beyond_which_trainings_diverge_is_no_edge() -> None:
    diverging: Score = lambda t: None if t.learning_rate > 2e-5 else by_rate(t)  # noqa: E731
    search = {"learning_rate": [1e-5, 2e-5, 4e-5]}
    assert edges(study(diverging, search=search)) == ()


def test_the_key_is_the_one_that_the_study_file_has() -> None:
    rates = [1e-5, 2e-5]
    kd = {"strategy": "exhaustive", "objective": "ce", "temperature": [2]}
    grammar = {"train": 20, "validation": 10, "test": 10}
    own: list[tuple[dict[str, Any], str]] = [
        ({"students": {"s": {"model": "small", "learning_rate": rates}}}, "students.s."),
        ({"datasets": {"d": {"grammar": grammar, "learning_rate": rates}}}, "datasets.d."),
        ({"learning_rate": rates, "search": {"alpha": [1]}}, ""),
        ({"learning_rate": rates, "searches": {"kd": kd}, "erm": True}, ""),
        ({"searches": {"kd": {**kd, "learning_rate": rates}}}, "searches.kd."),
    ]
    for sections, key in own:
        found = edges(study(by_rate, **sections))
        assert {edge.key for edge in found} == {f"{key}learning_rate"}


def test_the_students_without_a_teacher_name_the_rates_that_they_share() -> None:
    [edge] = edges(study(by_rate, erm=True))
    assert (edge.key, len(edge.cases), edge.of) == ("search.learning_rate", 2, 2)


def test_every_axis_of_a_search_that_compares_whole_choices_has_ends() -> None:
    searches = {
        "kd": {
            "strategy": "exhaustive",
            "objective": ["ce", "mse"],
            "temperature": [1, 2, 4],
            "alpha": [0.5, 1],
            "learning_rate": [1e-5],
        }
    }
    [edge] = edges(study(by_temperature, searches=searches))
    assert (edge.axis, edge.end, edge.key) == ("temperature", "largest", "searches.kd.temperature")


def test_a_study_that_has_decided_nothing_has_no_edges() -> None:
    agenda = Agenda(study(by_rate).resolved)
    assert edges(agenda) == unconverged(agenda) == ()


# -- teachers ----------------------------------------------------------------------------------


def teachers(
    score: Callable[[TeacherTraining], float | None], best_epoch: int = 1, **sections: Any
) -> tuple[TeacherEdge, ...]:
    """The ends of the teacher `big`, as far as it is trained, on two data sets unless told."""
    grammar = {"train": 20, "validation": 10, "test": 10}
    datasets = {name: {"grammar": {**grammar, "seed": i}} for i, name in enumerate("ab")}
    fine_tune = {"learning_rate": [1e-5, 2e-5, 3e-5], "epochs": 3, **sections.pop("fine_tune", {})}
    big = {"big": {"model": "big", "fine_tune": fine_tune}}
    agenda = Agenda(resolved_of(a_study(datasets=datasets, teachers=big, **sections)))
    for request in agenda.requests():
        training = request.training
        assert isinstance(training, TeacherTraining)
        found = outcome_of(training, score(training), best_epoch=best_epoch, lowest_loss_epoch=1)
        agenda.add(training.key, found)
    assert unconverged(agenda) == edges(agenda) == ()
    return teacher_edges(agenda)


def test_a_teacher_whose_rate_is_the_largest_is_named_with_its_data_sets() -> None:
    key = "teachers.big.fine_tune.learning_rate"
    named = TeacherEdge(teacher="big", end="largest", key=key, datasets=("a", "b"), of=2)
    assert teachers(lambda t: 0.5 + 1000 * t.learning_rate) == (named,)
    first = teachers(lambda t: 0.5 - t.learning_rate if "seed=0" in t.data.train else 0.5)
    assert first == (replace(named, end="smallest", datasets=("a",)),)


def test_a_teacher_that_is_best_within_its_rates_or_has_one_is_not_named() -> None:
    assert teachers(lambda t: -abs(t.learning_rate - 2e-5)) == ()
    assert teachers(lambda t: 0.5, fine_tune={"learning_rate": [1e-5]}) == ()
    assert teachers(lambda t: None if t.learning_rate > 2e-5 else t.learning_rate) == ()


def test_a_teacher_that_is_best_at_its_last_epoch_is_named() -> None:
    one = {"learning_rate": [1e-5]}
    [found] = teachers(lambda t: 0.5, best_epoch=3, fine_tune=one)
    assert (found.end, found.key) == ("last", "teachers.big.fine_tune.epochs")
    assert found.datasets == ("a", "b")
    assert teachers(lambda t: 0.5, fine_tune={**one, "epochs": 1}) == ()
    linear = {"schedule": "linear"}
    assert teachers(lambda t: 0.5, best_epoch=3, fine_tune=one, training=linear) == ()


# -- the last epoch ----------------------------------------------------------------------------

TRAINING = {"training": {"epochs": 3}}


def test_students_that_are_best_at_their_last_epoch_are_counted_once() -> None:
    agenda = study(by_rate, late=lambda t: True, **TRAINING)
    [found] = unconverged(agenda)
    scored = {t.key for case in agenda.cases for s in agenda.students(case).values() for t in s}
    assert (found.key, found.every) == ("training.epochs", True)
    assert found.last == found.students == len(scored)


@pytest.mark.parametrize(
    ("late", "training"),
    [(False, {"epochs": 3}), (False, {"epochs": 1}), (True, {"epochs": 3, "schedule": "linear"})],
)
def test_students_that_converged_or_cannot_tell_are_not_named(
    late: bool, training: dict[str, Any]
) -> None:
    assert unconverged(study(by_rate, late=lambda t: late, training=training)) == ()


def test_the_cases_are_named_where_the_study_has_converged() -> None:
    students = {name: {"model": name} for name in ("small", "big", "middle")}
    models = a_study()["models"]
    models["middle"] = {"config": {"model_type": "bert", "num_hidden_layers": 2}}
    sections = {"students": students, "models": models, **TRAINING}
    agenda = study(by_rate, late=lambda t: t.model.name == "small", **sections)
    [found] = unconverged(agenda)
    assert not found.every
    assert [case.student for case in found.cases] == ["small"]
    text = answer(analyse(agenda))
    assert f"in sentences/big/small {found.last} of {found.students} students were best" in text


def test_of_an_axis_of_epochs_that_is_nested_its_own_key_is_named() -> None:
    searches = {"kd": {"strategy": "exhaustive", "objective": "labels", "epochs": [2, 3]}}
    [found] = unconverged(study(by_rate, late=lambda t: True, searches=searches))
    assert found.key == "searches.kd.epochs"


# -- where it is said --------------------------------------------------------------------------


def test_the_report_and_status_say_what_to_change(tmp_path: Path) -> None:
    def look(training: Training) -> Outcome:
        if isinstance(training, TeacherTraining):
            score = 0.5 + training.learning_rate
            return outcome_of(training, score, best_epoch=3, lowest_loss_epoch=1)
        return outcome(training, by_rate, lambda t: True)

    big = {"model": "big", "fine_tune": {"learning_rate": [1e-5, 2e-5]}}
    ledger, agenda = searched(tmp_path, look, a_study(**TRAINING, teachers={"big": big}))
    students = analyse(agenda).unconverged[0].students
    lines = [
        "the chosen learning rate of teacher big is the largest that was tried on 1 of 1 data set: "
        "try larger values in teachers.big.fine_tune.learning_rate",
        "teacher big was best at its last epoch on 1 of 1 data set: train longer, with a higher "
        "teachers.big.fine_tune.epochs",
        "the chosen learning rate is the largest that was tried, of 2 only, in 1 of 1 case: try "
        "larger values in search.learning_rate",
        f"{students} of {students} students were best at their last epoch: train longer, with a "
        "higher training.epochs",
    ]
    assert _status(ledger, agenda)["hints"] == lines
    page = write_report(ledger, agenda)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert all(line in text for line in lines)
    assert '"key": "search.learning_rate"' in page.with_suffix(".json").read_text()


def test_status_says_nothing_before_a_case_has_decided(tmp_path: Path) -> None:
    agenda = Agenda(study(by_rate).resolved)
    assert _status(Ledger(tmp_path), agenda)["hints"] == []
