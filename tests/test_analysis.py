from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.agenda import (
    VERSION,
    Agenda,
    Attempt,
    Cost,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
)
from kdsearch.analysis import (
    Analysis,
    CaseCandidates,
    Comparison,
    LeftOut,
    State,
    TestScores,
    analyse,
    case_candidates,
    deciles,
    gain,
    share_not_above_zero,
)
from kdsearch.analysis.gains import NoGainError
from kdsearch.analysis.paper import REWARDS, ROWS, paper_row
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.ledger import Ledger
from kdsearch.report.write import report_files
from kdsearch.search import Checkpoint, Mse, ValidationScore
from kdsearch.study import parse_study, resolve
from kdsearch.study.grammar import LABELS

# -- a study small enough to work out by hand -------------------------------------------------

HS, LL = 3, 2  # the epochs of the teacher's two checkpoints
Scores = dict[tuple[str, int, str | None, float], tuple[float, float] | None]

SMALL: Scores = {  # distance, teacher's epoch, τ_s, α: validation and test, at τ_t = 4
    ("ce", HS, "tied", 1.0): (0.70, 0.80),
    ("ce", LL, "tied", 1.0): (0.72, 0.84),
    ("ce", LL, "1", 1.0): (0.74, 0.82),
    ("mse", LL, None, 1.0): (0.71, 0.60),
    ("ce", LL, "1", 0.5): (0.73, 0.90),
}
TINY: Scores = {
    ("ce", HS, "tied", 1.0): (0.60, 0.50),
    ("ce", LL, "tied", 1.0): (0.65, 0.55),
    ("ce", LL, "1", 1.0): (0.62, 0.66),
    ("mse", LL, None, 1.0): (0.66, 0.44),
    ("mse", LL, None, 0.5): (0.70, 0.40),
}
AWAY = (0.10, 0.30)  # at any other τ_t, and of choices not named above


def two_cases(**changes: Any) -> dict[str, Any]:
    return {
        "name": "by-hand",
        "datasets": {"g": {"grammar": {"train": 20, "validation": 10, "test": 10}}},
        "models": {
            name: {"config": {"model_type": "bert", "num_hidden_layers": layers}}
            for name, layers in (("big", 4), ("small", 2), ("tiny", 1))
        },
        "teachers": {"t": {"model": "big", "fine_tune": {"learning_rate": [1e-5]}}},
        "students": {"small": {"model": "small"}, "tiny": {"model": "tiny"}},
        "search": {
            "temperature": {"broad": [1.0, 4.0]},
            "learning_rate": [1e-5],
            "alpha": [1.0, 0.5],
        },
        **changes,
    }


def choice_in(training: StudentTraining) -> tuple[str, int, str | None, float]:
    values = training.objective.parameters
    epoch = training.taught.teacher.epoch or 0  # of a given teacher
    student = None
    if "temperature" in values:
        student = "tied" if values["student_temperature"] == values["temperature"] else "1"
    return training.objective.kind, epoch, student, values["alpha"]


def by_hand(
    training: Training, *, small: Scores = SMALL, tiny: Scores = TINY, lowest: int = LL
) -> Outcome:
    """The made-up outcome of a training: a score of None diverges."""
    cost = Cost(seconds=2.0, device="none", host="here")
    validation, test = 0.9, 0.8
    if isinstance(training, StudentTraining) and training.teaching is not None:
        table = {"small": small, "tiny": tiny}[training.model.name]
        found = table.get(choice_in(training), AWAY)
        temperature = training.objective.parameters.get("temperature")
        if found is not None and temperature not in (None, 4.0):
            found = AWAY
        if found is None:
            return Outcome(key=training.key, training=training, state="diverged", cost=cost)
        validation, test = found
    return Outcome(
        key=training.key,
        training=training,
        state="scored",
        validation=ValidationScore(validation),
        test=TestScore(test),
        best_epoch=HS,
        lowest_loss_epoch=lowest,
        cost=cost,
    )


def searched(
    folder: Path,
    look: Callable[[Training], Outcome | None] = by_hand,
    raw: dict[str, Any] | None = None,
) -> tuple[Ledger, Agenda]:
    """A study searched to its end; a training whose `look` is None fails for good."""
    ledger = Ledger(folder)
    ledger.prepare()
    study = parse_study(raw or two_cases(), place="x")
    resolved = resolve(study, data_dir=None, store=ledger.write_rows, place="x")
    ledger.write_resolved(resolved.model_copy(update={"training_version": VERSION}))
    agenda = Agenda(ledger.resolved(), ledger.results())

    def look_up(training: Training) -> None:
        outcome = look(training)
        if outcome is not None:
            ledger.write_outcome(outcome)
        else:
            message = "RuntimeError: no <room> | left"
            ledger.write_attempt(
                Attempt(key=training.key, number=0, failure="error", message=message, host="here")
            )

    engine = TabulatedEngine(look_up=look_up, seconds=lambda training: 1.0, slots=2)
    engine.run(Dispatcher(agenda, ledger))
    return ledger, Agenda(ledger.resolved(), ledger.results())


def without(agenda: Agenda, dropped: Callable[[Training], bool]) -> Agenda:
    """The same study before the trainings that are `dropped`."""
    results = {k: o for k, o in agenda.results.items() if o is None or not dropped(o.training)}
    return Agenda(agenda.resolved, results)


def before_tiny_met_mse(training: Training) -> bool:
    if not isinstance(training, StudentTraining) or training.model.name != "tiny":
        return False
    return isinstance(training.objective, Mse)


def blocked_study() -> dict[str, Any]:
    """Two teachers, one of which `failing_teacher` fails, and one student."""
    raw = two_cases(students={"small": {"model": "small"}})
    tuning = {"learning_rate": [1e-5]}
    raw["teachers"]["u"] = {"model": "tiny", "fine_tune": tuning}
    return raw


def failing_teacher(training: Training) -> Outcome | None:
    failing = isinstance(training, TeacherTraining) and training.model.name == "tiny"
    return None if failing else by_hand(training)


def diverging(training: Training) -> Outcome:
    """τ_s = 1 diverges in tiny, but at τ_t = 1, where it is the tied configuration."""
    return by_hand(training, tiny={**TINY, ("ce", LL, "1", 1.0): None})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Agenda:
    return searched(tmp_path_factory.mktemp("whole"))[1]


@pytest.fixture(scope="module")
def analysis(whole: Agenda) -> Analysis:
    return analyse(whole)


def row(rows: tuple[Comparison, ...], label: str) -> Comparison:
    return next(each for each in rows if each.label == label)


def gains(rows: tuple[Comparison, ...], label: str) -> list[float]:
    return [each.gain for each in row(rows, label).gains]


# -- deciles and gains ---------------------------------------------------------------------------


def test_deciles_of_eleven_values_are_these_values() -> None:
    assert deciles([float(v) for v in (3, 1, 2, 0, 4, 10, 9, 8, 7, 6, 5)]) == tuple(range(11))


def test_deciles_of_two_values_lie_evenly_between_them() -> None:
    assert deciles([2.0, 1.0]) == pytest.approx([1 + k / 10 for k in range(11)])


def test_deciles_of_one_value_are_that_value() -> None:
    assert deciles([0.3]) == (0.3,) * 11


def test_deciles_of_nothing_are_none() -> None:
    assert deciles([]) is None


def test_deciles_of_four_values_by_hand() -> None:
    # D1 at 0.3 of the way from 0 to 10; D5 halfway between 10 and 20; D9 at .7 from 20 to 100
    found = deciles([0.0, 10.0, 20.0, 100.0])
    assert found is not None
    assert (found[1], found[5], found[9]) == pytest.approx((3.0, 15.0, 76.0))


def test_deciles_agree_with_the_inclusive_quantiles_of_the_standard_library() -> None:
    values = [math.sin(i) for i in range(39)]
    found = deciles(values)
    assert found is not None
    assert found[1:10] == pytest.approx(statistics.quantiles(values, n=10, method="inclusive"))
    assert (found[0], found[10]) == (min(values), max(values))


def reason(target: TestScores | None, baseline: TestScores | None) -> LeftOut:
    with pytest.raises(NoGainError) as caught:
        gain(target, baseline, largest=1.0)
    return caught.value.reason


def test_a_gain_is_relative_to_the_baseline() -> None:
    assert gain(at(0.75), at(0.5), largest=1.0).gain == 0.5


def test_the_points_of_a_gain_are_of_the_largest_score() -> None:
    assert gain(at(0.75), at(0.5), largest=1.0).points == pytest.approx(25.0)
    assert gain(at(20.0), at(50.0), largest=100.0).points == pytest.approx(-30.0)


def test_a_gain_without_a_score_on_a_side_is_left_out() -> None:
    assert reason(None, at(0.5)) is LeftOut.UNSCORED
    assert reason(at(0.5), None) is LeftOut.UNSCORED


def test_a_gain_over_zero_is_left_out() -> None:
    assert reason(at(0.5), at(0.0)) is LeftOut.ZERO_BASELINE


def test_a_gain_over_less_than_the_least_baseline_is_left_out() -> None:
    assert gain(at(0.2), at(0.1), least=0.1, largest=1.0).gain == pytest.approx(1.0)
    with pytest.raises(NoGainError) as caught:
        gain(at(0.2), at(0.09), least=0.1, largest=1.0)
    assert caught.value.reason is LeftOut.SMALL_BASELINE


def test_a_share_counts_gains_of_exactly_zero() -> None:
    assert share_not_above_zero([-0.1, 0.0, 0.1, 0.2]) == 0.5
    assert share_not_above_zero([]) is None


# -- candidates ----------------------------------------------------------------------------------


def at(score: float) -> TestScores:
    return TestScores(by_seed=(TestScore(score),))


def some_candidates(*tests: float) -> CaseCandidates:
    return CaseCandidates(scored=tuple(map(at, tests)), choices=len(tests), unscored=0)


def test_a_draw_is_a_candidate_and_the_same_for_the_same_seed() -> None:
    candidates = some_candidates(0.1, 0.2, 0.3)
    draws = [candidates.drawn(str(seed)) for seed in range(100)]
    assert set(draws) == {at(0.1), at(0.2), at(0.3)}
    assert draws == [candidates.drawn(str(seed)) for seed in range(100)]


def test_the_expectation_is_the_mean_over_candidates() -> None:
    expectation = some_candidates(0.1, 0.2, 0.6).expectation
    assert expectation is not None
    assert expectation.mean == pytest.approx(0.3)


def test_candidates_are_the_choices_at_the_default_alpha_and_the_best_alpha(whole: Agenda) -> None:
    small, tiny = (case_candidates(whole, view) for view in whole.views())
    assert small is not None
    assert tiny is not None
    assert [c.mean for c in small.scored] == [0.80, 0.84, 0.82, 0.60]  # the best α is 1
    assert [c.mean for c in tiny.scored] == [0.50, 0.55, 0.66, 0.44, 0.40]  # the best α is .5


def test_candidates_of_coinciding_teachers_count_once(tmp_path: Path) -> None:
    same: Scores = {("ce", HS, "tied", 1.0): (0.7, 0.8)}
    look = lambda t: by_hand(t, small=same, tiny=same, lowest=HS)  # noqa: E731
    _, agenda = searched(tmp_path, look)
    found = case_candidates(agenda, agenda.views()[0])
    assert found is not None
    assert (found.choices, len(found.scored)) == (4, 3)


# -- the study worked out by hand ----------------------------------------------------------------


def test_best_over_worst_and_expectation_by_hand(analysis: Analysis) -> None:
    assert gains(analysis.figure_1, "best over worst") == pytest.approx(
        [0.84 / 0.60 - 1, 0.66 / 0.40 - 1]
    )
    assert gains(analysis.figure_1, "best over the expectation") == pytest.approx(
        [0.84 / 0.765 - 1, 0.66 / 0.51 - 1]
    )


def test_best_over_random_is_a_gain_over_some_candidate(analysis: Analysis) -> None:
    for rows, label in (
        (analysis.figure_1, "best over random (first draw)"),
        (analysis.figure_3, "best over random (second draw)"),
    ):
        small, tiny = gains(rows, label)
        assert any(small == pytest.approx(0.84 / t - 1) for t in (0.80, 0.84, 0.82, 0.60))
        assert any(tiny == pytest.approx(0.66 / t - 1) for t in (0.50, 0.55, 0.66, 0.44, 0.40))


@pytest.mark.parametrize(
    ("label", "small", "tiny"),
    [
        ("MSE over CE", 0.60 / 0.82 - 1, 0.44 / 0.55 - 1),
        ("t_ll over t_hs", 0.84 / 0.80 - 1, 0.55 / 0.50 - 1),
        ("τ_s = 1 over τ_s = τ_t", 0.82 / 0.84 - 1, 0.66 / 0.55 - 1),
        ("best α by validation over α = 1", 0.0, 0.40 / 0.44 - 1),
        ("maximum by test over all α, over α = 1", 0.90 / 0.82 - 1, 0.0),
    ],
)
def test_a_parameters_gains_by_hand(
    analysis: Analysis, label: str, small: float, tiny: float
) -> None:
    assert gains(analysis.figure_2, label) == pytest.approx([small, tiny])


def test_rewards_by_hand(analysis: Analysis) -> None:
    found = {r.label: (r.reward, r.better, r.worse, r.equal) for r in analysis.table_3.rows}
    assert found == {
        "t_ll over t_hs": (2, 2, 0, 0),
        "τ_s = 1 over τ_s = τ_t": (0, 1, 1, 0),
        "MSE over CE": (0, 1, 1, 0),
    }


def test_the_stable_configuration_has_a_value_for_each_parameter(analysis: Analysis) -> None:
    stable = analysis.stable
    assert stable is not None
    assert str(stable.choice) == "CE t_ll τ_s=τ_t α=1"
    assert dict(stable.deviations) == {"teacher": Checkpoint.LOWEST_LOSS}
    assert not stable.provisional


def test_best_over_stable_by_hand(analysis: Analysis) -> None:
    assert gains(analysis.figure_3, "best over stable") == pytest.approx([0.0, 0.66 / 0.55 - 1])
    assert analysis.at_least_as_good == 0.5


def test_best_over_lazy_by_hand(analysis: Analysis) -> None:
    # Lazy's draw is MSE of t_hs in small, which no traversal visits, and MSE of t_ll in tiny.
    lazy = [case.lazy for case in analysis.cases]
    assert [each.test for each in lazy if each] == [0.30, 0.44]
    assert gains(analysis.figure_3, "best over lazy") == pytest.approx(
        [0.84 / 0.30 - 1, 0.66 / 0.44 - 1]
    )


def test_stable_over_lazy_by_hand(analysis: Analysis) -> None:
    assert [each.gain for each in analysis.stable_over_lazy.gains] == pytest.approx(
        [0.84 / 0.30 - 1, 0.55 / 0.44 - 1]
    )


def test_a_path_holds_each_candidates_tuning_and_scores(analysis: Analysis) -> None:
    path = analysis.cases[1].path
    assert [each.candidates[each.winner].value for each in path] == [
        "t_ll",
        "τ_s = τ_t",
        "MSE",
        "α = 0.5",
    ]
    first = path[0].candidates[0]
    found = (first.validation, first.test, first.temperature, first.learning_rate)
    assert found == (0.60, 0.50, 4.0, 1e-5)


def test_a_teachers_checkpoints_have_their_scores(analysis: Analysis) -> None:
    found = [(t.checkpoint, t.epoch, t.validation, t.test) for t in analysis.cases[0].teachers]
    assert found == [("t_hs", HS, 0.9, 0.8), ("t_ll", LL, 0.9, 0.8)]


def test_the_cost_counts_each_training_once(whole: Agenda, analysis: Analysis) -> None:
    assert sum(each.trainings for each in analysis.cost) == len(whole.results)
    assert [each.trainings for each in analysis.cost[:2]] == [1, 6]
    assert sum(each.seconds for each in analysis.cost) == 2.0 * len(whole.results)


def test_a_cases_students_are_all_students_of_the_study(analysis: Analysis) -> None:
    assert sum(case.cost[2].trainings for case in analysis.cases) == analysis.cost[2].trainings


def test_a_complete_study_is_complete(analysis: Analysis) -> None:
    assert analysis.status.complete
    assert {case.state for case in analysis.cases} == {State.FINISHED}


def test_coinciding_checkpoints_are_counted_and_their_gain_is_zero(tmp_path: Path) -> None:
    found = analyse(searched(tmp_path, lambda t: by_hand(t, lowest=HS))[1])
    assert found.table_3.coinciding == 2
    assert gains(found.figure_2, "t_ll over t_hs") == [0.0, 0.0]


def test_a_flip_of_a_configuration_to_itself_is_counted(tmp_path: Path) -> None:
    look = lambda t: by_hand(t, small={}, tiny={})  # noqa: E731  # all τ_t tie, so the first, 1
    found = analyse(searched(tmp_path, look)[1])
    assert found.table_3.same_student_temperature == 2


def test_how_many_trainings_shared_the_best_score_is_counted(tmp_path: Path) -> None:
    look = lambda t: by_hand(t, small={}, tiny={})  # noqa: E731  # everything ties
    _, agenda = searched(tmp_path, look)
    [small, _] = analyse(agenda).cases
    for step in small.path:
        assert step.tied == len({each.key for each in step.candidates})
        for each in step.candidates:
            assert each.tied == len({tried.key for tried in each.tried})
    # The τ_s flip has one training on both sides: that is no tie.
    assert [step.tied for step in small.path] == [2, 1, 2, 2]
    assert small.path[0].candidates[0].tied > 1


def test_a_best_score_of_its_own_is_no_tie(analysis: Analysis) -> None:
    small, _ = analysis.cases
    assert {step.tied for step in small.path} == {1}
    assert small.winner is not None
    assert small.winner.tied == 1


def test_a_report_says_what_a_tie_decided(tmp_path: Path) -> None:
    look = lambda t: by_hand(t, small={}, tiny={})  # noqa: E731
    ledger, agenda = searched(tmp_path, look)
    files = report_files(ledger, agenda)
    [small, _] = analyse(agenda).cases
    step = next(step for step in small.path if step.tied > 1)
    trials = f"{step.candidates[step.winner].trials}, by a tie of"
    assert trials in files["report/report.md"]
    assert f"| yes, by a tie of {step.tied} |" in files["report/report.md"]
    assert f"✓, by a tie of {step.tied}" in files["report/report.html"]


# -- studies that are not whole ------------------------------------------------------------------


def test_a_half_done_study_leaves_out_what_is_not_there_yet(whole: Agenda) -> None:
    found = analyse(without(whole, before_tiny_met_mse))
    assert row(found.figure_2, "t_ll over t_hs").n == 2
    for rows, label in ((found.figure_2, "MSE over CE"), (found.figure_1, "best over worst")):
        assert row(rows, label).n == 1
        assert row(rows, label).left_out == {LeftOut.UNFINISHED: 1}


def test_a_half_done_study_says_which_case_waits_for_what(whole: Agenda) -> None:
    found = analyse(without(whole, before_tiny_met_mse))
    assert not found.status.complete
    assert [case.state for case in found.cases] == [State.UNFINISHED] * 2
    assert "second phase" in str(found.cases[0].reason)
    assert "distance" in str(found.cases[1].reason)


def test_before_the_second_phase_the_stable_configuration_is_provisional(whole: Agenda) -> None:
    stable = analyse(without(whole, before_tiny_met_mse)).stable
    assert stable is not None
    assert (stable.provisional, stable.traversals) == (True, 1)


def test_a_study_without_any_result_has_no_numbers(whole: Agenda) -> None:
    found = analyse(Agenda(whole.resolved, {}))
    assert found.stable is None
    every = (*found.figure_1, *found.figure_2, *found.figure_3)
    assert {each.n for each in every} == {0}
    assert {each.deciles for each in every} == {None}
    assert all(each.left_out == {LeftOut.UNFINISHED: 2} for each in every)


def test_every_case_is_in_a_row_or_left_out_at_any_moment(whole: Agenda) -> None:
    keys = list(whole.results)
    for count in range(0, len(keys) + 1, 7):
        some = Agenda(whole.resolved, {key: whole.results[key] for key in keys[:count]})
        found = analyse(some)
        for each in (*found.figure_1, *found.figure_2, *found.figure_3):
            assert each.n + sum(each.left_out.values()) == 2


def test_a_failed_teacher_blocks_its_case_and_no_other(tmp_path: Path) -> None:
    found = analyse(searched(tmp_path, failing_teacher, blocked_study())[1])
    assert [case.state for case in found.cases] == [State.FINISHED, State.BLOCKED]
    assert found.status.complete
    assert found.status.failed == 1
    assert [failure.state for failure in found.cases[1].failures] == ["failed"]
    assert row(found.figure_1, "best over worst").left_out == {LeftOut.BLOCKED: 1}


def test_students_that_diverged_are_reported_and_the_scored_ones_compared(tmp_path: Path) -> None:
    found = analyse(searched(tmp_path, diverging)[1])
    states = [failure.state for failure in found.cases[1].failures]
    assert states == ["diverged"] * found.status.diverged
    # At τ_t = 1 a student of τ_s = 1 has a score, so its side of the flip has one.
    assert gains(found.figure_2, "τ_s = 1 over τ_s = τ_t")[1] == pytest.approx(0.30 / 0.55 - 1)


def test_a_choice_none_of_whose_students_has_a_score_is_left_out(tmp_path: Path) -> None:
    def look(training: Training) -> Outcome:
        tiny: Scores = {**TINY, ("mse", LL, None, 1.0): None}
        return by_hand(training, tiny=tiny)

    found = analyse(searched(tmp_path, look)[1])
    flipped = row(found.figure_2, "MSE over CE")
    assert (flipped.n, flipped.left_out) == (1, {LeftOut.UNSCORED: 1})
    assert next(r for r in found.table_3.rows if r.label == "MSE over CE").unscored == 1
    assert [f.state for f in found.cases[1].failures] == ["diverged"]
    # Figure 1 keeps the case, with the candidates that have a score.
    assert row(found.figure_1, "best over worst").n == 2


def test_failed_outputs_leave_a_case_without_any_score(tmp_path: Path) -> None:
    def look(training: Training) -> Outcome | None:
        failing = isinstance(training, OutputsTraining) and training.split == "train"
        return None if failing else by_hand(training)

    found = analyse(searched(tmp_path, look)[1])
    assert row(found.figure_1, "best over worst").left_out == {LeftOut.UNSCORED: 2}
    assert row(found.figure_3, "best over stable").left_out == {LeftOut.UNSCORED: 2}
    assert found.cost[1].failed == 2


def test_a_checkpoint_that_was_not_kept_has_no_score(tmp_path: Path) -> None:
    def look(training: Training) -> Outcome:
        return by_hand(training).model_copy(update={"lowest_loss_epoch": None})

    found = analyse(searched(tmp_path, look)[1])
    assert row(found.figure_2, "t_ll over t_hs").left_out == {LeftOut.UNSCORED: 2}
    assert [t.checkpoint for t in found.cases[0].teachers] == ["t_hs"]


def test_a_given_teacher_of_one_checkpoint_has_no_comparison_of_checkpoints(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    labels = {str(i): name for i, name in enumerate(LABELS)}
    (model / "config.json").write_text(json.dumps({"id2label": labels}))
    (model / "model.safetensors").write_bytes(b"weights")
    raw = two_cases(teachers={"t": {"checkpoint": "given"}})
    raw["models"]["given"] = {"path": str(model)}
    tables: Scores = {}
    look = lambda t: by_hand(t, small=tables, tiny=tables)  # noqa: E731
    found = analyse(searched(tmp_path / "study", look, raw)[1])
    assert row(found.figure_2, "t_ll over t_hs").left_out == {LeftOut.ABSENT: 2}
    assert found.stable is not None
    assert found.stable.choice.get("teacher") is Checkpoint.GIVEN
    assert found.cost[0].trainings == 0


def test_a_comparison_that_a_case_cannot_have_is_absent(tmp_path: Path) -> None:
    raw = two_cases()
    raw["search"]["order"] = ["distance", "teacher", "student_temperature"]
    look = lambda t: by_hand(  # noqa: E731
        t, small={("mse", HS, None, 1.0): (0.9, 0.9)}, tiny={("mse", HS, None, 1.0): (0.9, 0.9)}
    )
    found = analyse(searched(tmp_path, look, raw)[1])
    flipped = row(found.figure_2, "τ_s = 1 over τ_s = τ_t")
    assert (flipped.n, flipped.left_out) == (0, {LeftOut.ABSENT: 2})


# -- the paper's numbers -------------------------------------------------------------------------


def test_the_papers_deciles_ascend() -> None:
    assert all(len(r.percent) == 11 and list(r.percent) == sorted(r.percent) for r in ROWS)


def test_the_papers_rows_stand_beside_the_same_comparison(analysis: Analysis) -> None:
    every = (*analysis.figure_1, *analysis.figure_2, *analysis.figure_3)
    assert [each.paper for each in every if each.paper] == list(ROWS)
    assert paper_row(1, "MSE over CE") is None
    assert {r.label: r.paper for r in analysis.table_3.rows} == REWARDS
