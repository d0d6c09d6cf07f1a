"""What goes with what over the students and the teachers of a study."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from fakes import World, a_study, memory_ledger, resolved_of, search_through
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_measures_report import measured
from test_page import data_of

from kdsearch.agenda import Agenda, StudentTraining
from kdsearch.analysis import analyse
from kdsearch.analysis.correlation import spearman
from kdsearch.analysis.measures import CaseMeasures, Measured, ModelMeasures
from kdsearch.analysis.trends import Absent, Of, trends
from kdsearch.ledger import Ledger
from kdsearch.report import trends as words
from kdsearch.report.write import report_files

FEW = st.lists(
    st.tuples(*[st.lists(st.integers(0, 6), min_size=5, max_size=5)] * 2), min_size=1, max_size=3
)


def arrays(blocks: list[Any]) -> tuple[Any, Any]:
    return tuple(np.array([block[side] for block in blocks], dtype=float) for side in (0, 1))


@given(FEW)
@settings(max_examples=10)
def test_rho_and_p_are_those_of_all_ways_to_deal_by_scipys_rho(blocks: list[Any]) -> None:
    varied = [(x, y) for x, y in blocks if len(set(x)) > 1 and len(set(y)) > 1]
    found = spearman(*arrays(blocks))
    if not varied:
        assert found is None
        return

    def mean(way: tuple[int, ...]) -> float:
        rhos = [stats.spearmanr([x[i] for i in way], y).statistic for x, y in varied]
        return float(np.mean(rhos))

    rho = mean(tuple(range(5)))
    as_far = [abs(mean(way)) >= abs(rho) - 1e-9 for way in permutations(range(5))]
    assert found is not None
    assert found.rho == pytest.approx(rho)
    assert found.p == pytest.approx(np.mean(as_far))
    assert (found.units, found.blocks, found.exact) == (5, len(varied), True)


def test_five_in_order_have_a_p_of_2_in_120_and_four_have_none() -> None:
    five = spearman(np.array([[1.0, 2, 3, 4, 5]]), np.array([[9.0, 8, 7, 6, 5]]))
    assert five is not None
    assert five.rho == pytest.approx(-1)
    assert five.p == pytest.approx(2 / 120)
    four = spearman(np.array([[1.0, 2, 3, 4]]), np.array([[9.0, 8, 7, 6]]))
    assert four is not None
    assert (four.rho, four.p) == (pytest.approx(-1), None)


def test_a_block_once_more_is_no_more_evidence() -> None:
    x, y = np.array([[1.0, 2, 3, 4, 5]]), np.array([[2.0, 1, 4, 3, 5]])
    once, often = spearman(x, y), spearman(np.repeat(x, 6, axis=0), np.repeat(y, 6, axis=0))
    assert once is not None
    assert often is not None
    assert (often.rho, often.p) == (pytest.approx(once.rho), once.p)


def test_of_many_units_ways_are_drawn_and_the_same_at_each_call() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(2, 9)), draw.normal(size=(2, 9))
    found = spearman(x, y)
    assert found is not None
    assert not found.exact
    assert found == spearman(x, y)
    ordered = spearman(x[:1], x[:1])
    assert ordered is not None
    assert ordered.p is not None
    assert 0 < ordered.p < 1e-4  # 2 in 9! ways, and the one that is


def model(layers: int) -> dict[str, Any]:
    return {"config": {"model_type": "bert", "num_hidden_layers": layers}}


def finished(
    students: int,
    teachers: int,
    world: World,
    further: dict[str, Any] | None = None,
    **sections: Any,
) -> tuple[Ledger, Agenda]:
    """A finished, measured study of two data sets; a student of n layers has n million weights."""
    grammar = {"train": 20, "validation": 10, "test": 10}
    tuned = {"fine_tune": {"learning_rate": [1e-5]}}
    named = {f"t{n}": {"model": f"m{9 - n}", **tuned} for n in range(teachers)}
    rates = {"strategy": "exhaustive", "objective": "ce", "teacher": "t_hs", "alpha": 1}
    rates |= {"temperature": [1, 2], "learning_rate": [1e-5, 3e-5]}
    named |= further or {}
    sections = {"erm": True, "search": rates, "teachers": named, **sections}
    resolved = resolved_of(
        a_study(
            datasets={name: {"grammar": {**grammar, "seed": n}} for n, name in enumerate("ab")},
            models={f"m{n}": model(n) for n in range(1, 10)},
            students={f"s{n}": {"model": f"m{n}"} for n in range(1, students + 1)},
            **sections,
        )
    )
    ledger = memory_ledger(resolved)
    results = {}
    for key, outcome in search_through(resolved, ledger, world).results.items():
        if outcome is not None:
            outcome = measured(outcome)
            training = outcome.training
            if isinstance(training, StudentTraining) and training.model.config:
                weights = 10**6 * training.model.config["num_hidden_layers"]
                outcome = outcome.model_copy(update={"parameters": weights})
        results[key] = outcome
    return ledger, Agenda(resolved, results)


def test_gains_go_by_size_and_scores_by_agreement_within_a_data_set_and_a_teacher() -> None:
    _, agenda = finished(students=5, teachers=1, world=World(seed=1))
    analysis = analyse(agenda)
    size, teacher, agreement = analysis.trends
    taught = [case for case in analysis.cases if case.case.teacher]
    for trend in (size, agreement):
        assert [point.case for point in trend.points] == [case.case for case in taught]
        found = trend.correlation
        assert found is not None
        assert (found.units, found.blocks, trend.left_out) == (5, 2, 0)
    rhos = [
        stats.spearmanr(
            [1, 2, 3, 4, 5], [case.over_erm_points for case in taught if case.case.dataset == name]
        ).statistic
        for name in "ab"
    ]
    assert size.correlation is not None
    assert size.correlation.rho == pytest.approx(np.mean(rhos))
    assert [point.y for point in agreement.points] == [
        100 * case.winner.test for case in taught if case.winner and case.winner.test is not None
    ]
    assert (teacher.correlation, teacher.absent) == (None, Absent.ONE)


def test_gains_go_by_the_teachers_score_within_a_data_set_and_a_student() -> None:
    _, agenda = finished(students=1, teachers=3, world=World(seed=2))
    analysis = analyse(agenda)
    size, teacher, _ = analysis.trends
    assert teacher.correlation is not None
    assert (teacher.correlation.units, teacher.correlation.p) == (3, None)
    assert [point.x for point in teacher.points] == [
        100 * case.taught_by.test
        for case in analysis.cases
        if case.taught_by and case.taught_by.test is not None
    ]
    assert size.absent is Absent.ONE


def test_a_block_that_lacks_a_student_is_left_out_and_counted() -> None:
    blocks = [{"dataset": "a"}, {"dataset": "b", "student": ["s1", "s2"]}]
    _, agenda = finished(students=5, teachers=1, world=World(seed=1), test_cases=blocks)
    size, *_ = analyse(agenda).trends
    assert size.correlation is not None
    assert (size.correlation.blocks, size.left_out, len(size.points)) == (1, 1, 7)


def test_a_block_in_which_all_agree_alike_with_their_teacher_is_left_out_and_counted() -> None:
    _, agenda = finished(students=3, teachers=1, world=World(seed=1))
    cases = analyse(agenda).cases
    agreeing = {"a": 0.5}  # and on b, each another
    found = [
        CaseMeasures(
            case=case.case,
            models=(
                ModelMeasures(
                    model="student, as chosen",
                    validation={},
                    test={
                        "agreement": Measured(
                            mean=agreeing.get(case.case.dataset, int(case.case.student[1:]) / 10),
                            spread=None,
                        )
                    },
                ),
            ),
        )
        for case in cases
        if case.case.teacher
    ]
    _, _, agreement = trends(agenda, cases, found)
    assert agreement.correlation is not None
    assert (agreement.correlation.blocks, agreement.left_out) == (1, 1)


def test_students_that_teach_are_no_further_teachers() -> None:
    later = {"g1": {"student_of": "t0"}, "g2": {"student_of": "g1"}}
    _, agenda = finished(students=2, teachers=1, world=World(seed=1), further=later)
    size, teacher, _ = analyse(agenda).trends
    assert {point.case.teacher for point in size.points} == {"t0", "g1", "g2"}
    assert {point.case.teacher for point in teacher.points} == {"t0"}
    assert teacher.absent is Absent.ONE


def test_without_students_without_a_teacher_there_is_no_gain_to_go_by_anything() -> None:
    _, agenda = finished(students=2, teachers=1, world=World(seed=1), erm=False)
    size, _, agreement = analyse(agenda).trends
    assert (size.absent, size.points) == (Absent.NO_ERM, ())
    assert agreement.correlation is not None
    assert any("`erm: true`" in line for line in words.absent(analyse(agenda)))


def test_a_study_of_one_student_and_one_teacher_has_none() -> None:
    ledger, agenda = finished(students=1, teachers=1, world=World(seed=1))
    assert analyse(agenda).trends == ()
    files = report_files(ledger, agenda)
    assert words.TITLE not in files["report/report.md"]
    assert 'id="trends"' not in files["report/report.html"]
    assert '"trends"' not in files["report/report.json"]


def test_the_reports_have_the_correlations_the_points_and_what_is_not_measured() -> None:
    ledger, agenda = finished(students=5, teachers=1, world=World(seed=1))
    files, analysis = report_files(ledger, agenda), analyse(agenda)
    size = analysis.trends[0]
    assert size.correlation is not None
    rho = f"{size.correlation.rho:+.2f}".replace("-", "−")
    for name in ("report/report.md", "report/report.html"):
        assert "the fidelity of its rationale, is not measured" in files[name]
        assert "gain by the student’s parameters" in files[name]
        assert rho in files[name]
        assert "No gain by the teacher’s score: there is one teacher." in files[name]
    charts = data_of(files["report/report.html"])["trends"]
    assert [chart["title"] for chart in charts] == [
        words.LABELS[of] for of in (Of.SIZE, Of.AGREEMENT)
    ]
    drawn = {name: (x, y) for line in charts[0]["lines"] for x, y, name in line["points"]}
    assert drawn == {str(p.case): (p.x, pytest.approx(p.y, rel=1e-5)) for p in size.points}
    rows = files["report/tables/trends.csv"].splitlines()
    assert len(rows) == 1 + sum(len(trend.points) for trend in analysis.trends)


def test_every_trend_and_every_reason_that_there_is_none_has_words() -> None:
    assert set(words.LABELS) == set(words.X) == set(Of)
    assert {Absent.ONE, *words._ABSENT} == set(Absent)
