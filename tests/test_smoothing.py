"""Distillation beside label smoothing: methods, claims, the paper's numbers, the shipped study."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import a_study, memory_ledger, outcome_of, resolved_of, uniform
from test_page import Elements, data_of

from kdsearch.agenda import (
    Agenda,
    Epoch,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
    TrainingCurve,
    case_counts,
)
from kdsearch.analysis import analyse
from kdsearch.analysis.measures import Measured
from kdsearch.analysis.smoothing import Method, Smoothing, Verdict, smoothing
from kdsearch.analysis.smoothing_claims import Claim, Group, Kind, Seen, claims
from kdsearch.analysis.smoothing_paper import DATASETS, ROWS
from kdsearch.report.smoothing import holds
from kdsearch.report.write import report_files
from kdsearch.search import ValidationScore
from kdsearch.study import load_study, nested_epochs
from kdsearch.study import test_cases as cases_of

SHIPPED = Path(__file__).parent.parent / "search_spaces" / "label-smoothing.yaml"
SEEDS = [0, 1]
SIZES = {"small": 10, "big": 20}
METHODS = {
    # student, method: rate chosen, best epoch, entropy and its spread by seed, test score
    ("small", "erm"): (2e-5, 2, 0.30, 0.01, 0.80),
    ("small", "ls"): (1e-5, 3, 0.60, 0.02, 0.79),
    ("small", "kd big"): (1e-5, 1, 0.20, 0.01, 0.84),
    ("small", "kd small"): (2e-5, 3, 0.25, 0.01, 0.85),
    ("big", "erm"): (1e-5, 1, 0.10, 0.01, 0.90),
    ("big", "ls"): (1e-5, 3, 0.50, 0.01, 0.91),
    ("big", "kd small"): (2e-5, 2, 0.15, 0.01, 0.91),
}
TEACHERS = {"big": 0.10, "small": 0.30}
"""Their entropies on test; on validation 0.02 more."""


def study(**sections: Any) -> dict[str, Any]:
    """Two models that learn in every way, with a data set of the paper's name."""
    fine_tune = {"learning_rate": [1e-5]}
    exhaustive = {"strategy": "exhaustive"}
    content = {
        "datasets": {"mrpc": {"grammar": {"train": 20, "validation": 10, "test": 10}}},
        "teachers": {name: {"model": name, "fine_tune": fine_tune} for name in SIZES},
        "students": {name: {"model": name} for name in SIZES},
        "seeds": SEEDS,
        "searches": {
            "erm": {**exhaustive, "objective": ["labels"]},
            "ls": {**exhaustive, "objective": ["label_smoothing"], "smoothing": [0.1, 0.5]},
            "kd": {
                **exhaustive,
                "objective": ["ce"],
                "teacher": ["t_hs"],
                "temperature": [1],
                "alpha": [0.5, 0.9],
            },
        },
        "learning_rate": [1e-5, 2e-5],
        "test_cases": [
            {"search": ["erm", "ls"]},
            {"search": "kd", "teacher": "big", "student": "small"},
            {"search": "kd", "teacher": "small", "student": "small"},
            {"search": "kd", "teacher": "small", "student": "big"},
        ],
        **sections,
    }
    return {name: part for name, part in a_study(**content).items() if name != "search"}


def method_of(training: StudentTraining) -> str:
    kinds = {"labels": "erm", "label_smoothing": "ls"}
    if training.teaching is None:
        return kinds[training.objective.kind]
    return f"kd {training.teaching.teacher.model.name}"


def became(training: Training) -> Outcome:
    """What `METHODS` says, of the first smoothing and α; elsewhere worse, and another entropy."""
    match training:
        case TeacherTraining():
            return outcome_of(training, parameters=SIZES[training.model.name])
        case OutputsTraining():
            name = training.checkpoint.model.name
            more = 0.02 if training.split == "validation" else 0.0
            measures = {"posterior_entropy": TEACHERS[name] + more, "relative_entropy": 0.5}
            return outcome_of(training, parameters=SIZES[name], measures=measures)
    name, method = training.model.name, method_of(training)
    rate, best, entropy, spread, test = METHODS[name, method]
    share = training.objective.parameters
    first = {"ls": 0.1, "kd small": 0.5, "kd big": 0.5}.get(method)
    worse = (training.learning_rate != rate) + (first not in share.values() and first is not None)
    entropy += spread * (1 if training.seed else -1)
    other = 0.0 if training.learning_rate == rate else 1.0
    return outcome_of(
        training,
        0.9 - 0.1 * worse,
        test=TestScore(test),
        best_epoch=best,
        parameters=SIZES[name],
        # An epoch has 0.1 more than the one before it, and every other rate 1 more.
        epochs=tuple(
            Epoch(
                epoch=epoch,
                train_loss=1.0,
                validation=ValidationScore(test - 0.01 * abs(epoch - best)),
                validation_loss=1.0,
                measures={"posterior_entropy": entropy + other + 0.1 * epoch},
            )
            for epoch in (1, 2, 3)
        ),
        curve=TrainingCurve(steps=4, every=2, posterior_entropy=(0.6, entropy)),
        measures={"posterior_entropy": entropy, "relative_entropy": entropy / 0.693147},
    )


def finished(
    content: dict[str, Any] | None = None, became: Callable[[Training], Outcome | None] = became
) -> Agenda:
    """The agenda of a study of which every training ended as `became` says."""
    agenda = Agenda(resolved_of(content or study()))
    while requests := agenda.requests():
        for request in requests:
            agenda.add(request.training.key, became(request.training))
    return agenda


def smoothed(agenda: Agenda) -> Smoothing:
    found = smoothing(agenda, analyse(agenda).cases)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole() -> Smoothing:
    return smoothed(finished())


def verdicts(found: Smoothing, claim: Claim) -> dict[tuple[str, ...], Verdict]:
    return {each.compared: each for each in found.verdicts if each.claim is claim}


def verdict(found: Smoothing, claim: Claim) -> Verdict:
    [only] = verdicts(found, claim).values()
    return only


def method(found: Smoothing, case: str) -> Method:
    [only] = [each for each in found.methods if str(each.case) == case]
    return only


# -- methods -----------------------------------------------------------------------------------


def test_methods_are_named_by_the_sizes_of_teacher_and_student(whole: Smoothing) -> None:
    assert {str(each.case): each.kind for each in whole.methods} == {
        "mrpc/small/erm": Kind.ERM,
        "mrpc/small/ls": Kind.LS,
        "mrpc/big/small/kd": Kind.KD,
        "mrpc/small/small/kd": Kind.SELF,
        "mrpc/big/erm": Kind.ERM,
        "mrpc/big/ls": Kind.LS,
        "mrpc/small/big/kd": Kind.REVERSE,
    }


def test_a_method_has_what_validation_chose_and_how_that_does_on_test(whole: Smoothing) -> None:
    found = method(whole, "mrpc/big/small/kd")
    assert found.choice is not None
    assert found.choice.get("alpha") == 0.5
    assert (found.learning_rate, found.epochs) == (1e-5, (1, 1))
    assert (found.test, found.spread) == (pytest.approx(0.84), 0.0)
    assert found.over_erm is not None
    assert found.over_erm.gain == pytest.approx(0.05)  # from 0.80
    assert found.entropies is not None
    assert found.entropies["posterior_entropy"] == Measured(
        mean=pytest.approx(0.20), spread=pytest.approx(0.0141421, rel=1e-5)
    )
    assert found.teacher is not None
    assert found.teacher["posterior_entropy"] == Measured(mean=0.10, spread=None)


def test_of_two_classes_the_relative_entropy_without_top_is_undefined_not_unmeasured(
    whole: Smoothing,
) -> None:
    for each in whole.methods:
        assert each.entropies is not None
        assert "relative_entropy_without_top" not in each.entropies
        assert each.entropies["relative_entropy"] is not None


def test_teachers_of_sizes_that_are_not_known_have_no_claim_that_needs_them() -> None:
    found = smoothed(
        finished(became=lambda training: became(training).model_copy(update={"parameters": None}))
    )
    assert {each.kind for each in found.methods} == {Kind.ERM, Kind.LS, Kind.UNKNOWN}
    assert {each.claim for each in found.verdicts} == {Claim.LS_RAISES, Claim.AS_TEACHERS}


@pytest.mark.parametrize("without", ["erm", "ls", "kd"])
def test_a_study_without_one_of_the_three_ways_has_no_such_analysis(without: str) -> None:
    content = study()
    del content["searches"][without]
    for block in content["test_cases"]:
        named = [block["search"]] if isinstance(block["search"], str) else block["search"]
        block["search"] = [name for name in named if name != without]
    content["test_cases"] = [block for block in content["test_cases"] if block["search"]]
    agenda = finished(content)
    assert smoothing(agenda, analyse(agenda).cases) is None


def test_what_is_not_chosen_yet_is_named_and_claims_nothing() -> None:
    agenda = Agenda(resolved_of(study()))
    found = smoothed(agenda)
    assert len(found.methods) == 7
    assert {each.choice for each in found.methods} == {None}
    assert found.verdicts == ()


# -- claims ------------------------------------------------------------------------------------


def test_label_smoothing_raises_the_entropy_by_the_mean_over_seeds_of_the_differences(
    whole: Smoothing,
) -> None:
    both = verdicts(whole, Claim.LS_RAISES)
    found = both["mrpc/small/ls", "mrpc/small/erm"].chosen
    # 0.58 − 0.29 under the one seed, 0.62 − 0.31 under the other
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.30)
    assert found.difference.spread == pytest.approx(0.0141421, rel=1e-5)
    assert found.values == (("label smoothing", pytest.approx(0.60)), ("ERM", pytest.approx(0.30)))
    assert all(each.chosen.holds for each in both.values())
    assert len(both) == 2


def test_at_equal_rate_and_epochs_a_choice_is_seen_at_what_was_best_for_erm(
    whole: Smoothing,
) -> None:
    # ERM's rate is 2e-5 and its epoch the second. Label smoothing chose 1e-5, so that its own
    # choice at 2e-5 has 1 more.
    found = verdicts(whole, Claim.LS_RAISES)["mrpc/small/ls", "mrpc/small/erm"].equal
    assert dict(found.values) == pytest.approx({"label smoothing": 1.80, "ERM": 0.50})
    # Self-KD chose ERM's rate, and its third epoch.
    lower = verdicts(whole, Claim.KD_LOWERS)
    found = lower["mrpc/small/small/kd", "mrpc/small/erm"].equal
    assert dict(found.values) == pytest.approx({"self-KD": 0.45, "ERM": 0.50})
    # Its score there is that on validation, an epoch before its best.
    scores = verdicts(whole, Claim.KD_OVER_LS)["mrpc/small/small/kd", "mrpc/small/ls"].equal
    assert dict(scores.values) == pytest.approx({"self-KD": 0.84, "label smoothing": 0.78})


def test_kd_lowers_the_entropy_and_the_two_ways_to_look_may_disagree(whole: Smoothing) -> None:
    found = verdicts(whole, Claim.KD_LOWERS)["mrpc/big/small/kd", "mrpc/small/erm"]
    assert found.chosen.holds is True
    assert found.chosen.difference is not None
    assert found.chosen.difference.mean == pytest.approx(-0.10)
    assert found.equal.holds is False  # 1.40 against 0.50, at a rate that it did not choose


def test_reverse_kd_raises_the_entropy_less_than_label_smoothing(whole: Smoothing) -> None:
    raised = verdict(whole, Claim.REVERSE_RAISES)
    assert dict(raised.chosen.values) == pytest.approx({"reverse KD": 0.15, "ERM": 0.10})
    assert raised.chosen.holds is True
    below = verdict(whole, Claim.REVERSE_BELOW_LS)
    assert dict(below.chosen.values) == pytest.approx({"reverse KD": 0.15, "label smoothing": 0.5})
    assert below.chosen.holds is True


def test_the_student_moves_from_erm_to_its_teachers_side(whole: Smoothing) -> None:
    found = verdicts(whole, Claim.TOWARDS_TEACHER)
    down = found["mrpc/big/small/kd", "mrpc/small/erm"].chosen
    assert dict(down.values) == pytest.approx({"KD": 0.20, "ERM": 0.30, "teacher of KD": 0.10})
    up = found["mrpc/small/big/kd", "mrpc/big/erm"].chosen
    assert dict(up.values) == pytest.approx(
        {"reverse KD": 0.15, "ERM": 0.10, "teacher of reverse KD": 0.30}
    )
    assert [down.holds, up.holds] == [True, True]
    assert len(found) == 2  # self-KD has no side


def test_on_validation_a_teacher_has_its_entropy_there(whole: Smoothing) -> None:
    found = verdicts(whole, Claim.TOWARDS_TEACHER)["mrpc/small/big/kd", "mrpc/big/erm"].equal
    assert dict(found.values)["teacher of reverse KD"] == pytest.approx(0.32)


def test_two_teachers_students_are_ordered_as_the_teachers_are(whole: Smoothing) -> None:
    found = verdict(whole, Claim.AS_TEACHERS).chosen
    assert dict(found.values) == pytest.approx(
        {"KD": 0.20, "self-KD": 0.25, "teacher of KD": 0.10, "teacher of self-KD": 0.30}
    )
    assert found.holds is True


def test_scores_and_gains_are_compared_on_test(whole: Smoothing) -> None:
    over = verdicts(whole, Claim.KD_OVER_LS)
    assert {each.chosen.holds for each in over.values()} == {True}
    own = verdict(whole, Claim.SELF_OVER_KD).chosen
    assert dict(own.values) == pytest.approx({"self-KD": 0.85, "KD": 0.84})
    assert own.holds is True
    gains = verdicts(whole, Claim.REVERSE_GAINS_LESS)
    found = gains["mrpc/small/big/kd", "mrpc/big/small/kd"].chosen
    assert dict(found.values) == pytest.approx({"gain of reverse KD": 0.01, "gain of KD": 0.04})
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(-0.03)
    assert {each.chosen.holds for each in gains.values()} == {True}


@pytest.mark.parametrize(
    ("claim", "scores", "entropies", "holds"),
    [
        (Claim.SELF_OVER_KD, (0.5, 0.5), (1.0, 1.0), True),
        (Claim.SELF_OVER_KD, (0.4, 0.5), (1.0, 1.0), False),
        (Claim.AS_TEACHERS, (0.5, 0.5), (0.3, 0.2), True),
        (Claim.AS_TEACHERS, (0.5, 0.5), (0.2, 0.3), False),
        (Claim.AS_TEACHERS, (0.5, 0.5), (0.2, 0.2), False),
    ],
)
def test_a_claim_may_fail_and_equal_scores_are_at_least_as_high(
    claim: Claim, scores: tuple[float, float], entropies: tuple[float, float], holds: bool
) -> None:
    """Of self-KD, whose teacher has the higher entropy, and KD."""
    methods = tuple(
        Seen(
            kind=kind,
            name=str(kind),
            scores=(score,),
            entropies=(entropy,),
            teacher=teacher,
            taught_by=str(kind),
        )
        for kind, score, entropy, teacher in zip(
            (Kind.SELF, Kind.KD), scores, entropies, (0.6, 0.5), strict=True
        )
    )
    found = claims([Group(dataset="d", student="s", methods=methods)])
    assert [each.finding.holds for each in found if each.claim is claim] == [holds]


def test_gains_that_differ_as_floats_alone_are_equal() -> None:
    # 0.3 − 0.1 is less than 0.9 − 0.7 in floats.
    groups = [
        Group(
            dataset="d",
            student=student,
            methods=tuple(
                Seen(kind=kind, name="", scores=(score,), entropies=None)
                for kind, score in ((Kind.ERM, erm), (kd, taught))
            ),
        )
        for student, erm, kd, taught in (
            ("big", 0.1, Kind.REVERSE, 0.3),
            ("small", 0.7, Kind.KD, 0.9),
        )
    ]
    found = claims(groups)
    [finding] = [each.finding for each in found if each.claim is Claim.REVERSE_GAINS_LESS]
    assert finding.difference == Measured(mean=0.0, spread=None)
    assert finding.holds is False


def test_teachers_of_one_entropy_leave_their_claim_undecided() -> None:
    methods = tuple(
        Seen(kind=kind, name="", scores=None, entropies=(e,), teacher=0.5, taught_by=str(kind))
        for kind, e in ((Kind.KD, 0.1), (Kind.SELF, 0.2))
    )
    found = claims([Group(dataset="d", student="s", methods=methods)])
    [finding] = [each.finding for each in found if each.claim is Claim.AS_TEACHERS]
    assert finding.holds is None
    assert finding.difference is not None
    assert holds(finding) == "undecided"


# -- what was not measured ---------------------------------------------------------------------


def unmeasured(role: str, seeds: list[int]) -> Callable[[Training], Outcome]:
    """`became`, but nothing was measured of a student's method, or of teachers."""

    def changed(training: Training) -> Outcome:
        outcome = became(training)
        student = isinstance(training, StudentTraining)
        if student and method_of(training) == role and training.seed in seeds:
            bare = tuple(e.model_copy(update={"measures": {}}) for e in outcome.epochs)
            return outcome.model_copy(update={"measures": {}, "epochs": bare})
        if role == "teachers" and isinstance(training, OutputsTraining):
            return outcome.model_copy(update={"measures": {}})
        return outcome

    return changed


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[1:]])
def test_label_smoothing_that_was_not_measured_has_no_entropy_and_decides_no_claim(
    seeds: list[int],
) -> None:
    found = smoothed(finished(became=unmeasured("ls", seeds)))
    entropies = method(found, "mrpc/small/ls").entropies
    assert entropies is not None
    assert entropies["posterior_entropy"] is None
    for each in verdicts(found, Claim.LS_RAISES).values():
        for finding in (each.chosen, each.equal):
            assert finding.holds is None
            assert finding.difference is None
            assert dict(finding.values)["label smoothing"] is None
            assert holds(finding) == "not measured"
    # Scores were.
    assert {each.chosen.holds for each in verdicts(found, Claim.KD_OVER_LS).values()} == {True}


def test_teachers_that_were_not_measured_leave_open_whether_their_students_follow() -> None:
    found = smoothed(finished(became=unmeasured("teachers", [])))
    teacher = method(found, "mrpc/big/small/kd").teacher
    assert teacher is not None
    assert teacher["posterior_entropy"] is None
    for claim in (Claim.TOWARDS_TEACHER, Claim.AS_TEACHERS):
        for each in verdicts(found, claim).values():
            assert (each.chosen.holds, holds(each.chosen)) == (None, "not measured")
    assert {each.chosen.holds for each in verdicts(found, Claim.KD_LOWERS).values()} == {True}


def test_outcomes_without_epochs_are_not_seen_at_equal_epochs() -> None:
    def bare(training: Training) -> Outcome:
        return became(training).model_copy(update={"epochs": ()})

    found = smoothed(finished(became=bare))
    assert {each.equal.holds for each in found.verdicts} == {None}
    assert None not in {each.chosen.holds for each in found.verdicts}


# -- the paper's numbers -----------------------------------------------------------------------

EXCEPTIONS = {
    (Claim.KD_LOWERS, "mnli", Kind.SELF),
    (Claim.REVERSE_RAISES, "qnli", Kind.REVERSE),
    (Claim.TOWARDS_TEACHER, "qnli", Kind.REVERSE),
    (Claim.KD_OVER_LS, "sst2", Kind.KD),
    (Claim.KD_OVER_LS, "sst2", Kind.SELF),
    (Claim.SELF_OVER_KD, "qnli", Kind.SELF),
}
"""What does not hold in the paper's own tables at τ = 1."""


def papers_verdicts(*, hot: bool) -> set[tuple[Claim, str, Kind, bool | None]]:
    """Of a study with all that the paper has, on each of its data sets."""
    content = study(
        datasets={name: {"grammar": {"train": 2, "validation": 1, "test": 1}} for name in DATASETS}
    )
    if hot:
        content["searches"]["kd"]["temperature"] = [1, 4]
    found = smoothed(finished(content))
    kinds = {str(each.case): each.kind for each in found.methods}
    return {
        (each.claim, each.dataset, kinds[each.compared[0]], each.published.holds)
        for each in found.verdicts
        if each.published is not None
    }


def test_the_papers_own_exceptions_stand_beside_at_temperature_1() -> None:
    found = papers_verdicts(hot=False)
    assert {each[:3] for each in found if each[3] is False} == EXCEPTIONS
    assert {each[0] for each in found} == set(Claim)
    assert {each[1] for each in found} == set(DATASETS)
    assert None not in {each[3] for each in found}


def test_where_temperatures_are_searched_the_tables_of_higher_ones_stand_beside() -> None:
    found = papers_verdicts(hot=True)
    # Table 8: either KD lowers the entropy on every data set.
    assert {each[3] for each in found if each[0] is Claim.KD_LOWERS} == {True}
    # Table 10: .1140 of reverse KD against .1218 of ERM on QNLI.
    assert {each[1] for each in found if each[0] is Claim.REVERSE_RAISES and not each[3]} == {
        "qnli"
    }


def test_a_method_has_the_papers_entropy_accuracy_and_choice(whole: Smoothing) -> None:
    found = method(whole, "mrpc/big/small/kd").published
    assert found is not None
    assert (found.tables, found.entropy, found.score) == ((2, 3), 0.0548, 0.82)
    assert found.chosen is not None
    chosen = found.chosen
    assert (chosen.table, chosen.alpha, chosen.learning_rate, chosen.epochs) == (7, 0.1, 6e-5, 7)
    reverse = method(whole, "mrpc/small/big/kd").published
    assert reverse is not None
    assert (reverse.tables, reverse.entropy, reverse.score) == ((4, 5), 0.0954, 0.834)
    erm = method(whole, "mrpc/big/erm").published
    assert erm is not None
    assert (erm.tables, erm.entropy) == ((4, 5), 0.0678)


def test_what_is_not_known_of_table_7_stays_empty(whole: Smoothing) -> None:
    found = method(whole, "mrpc/small/small/kd").published
    assert found is not None
    assert (found.entropy, found.chosen) == (0.0738, None)


def test_the_rows_of_each_split_stand_beside_the_papers(
    whole: Smoothing, files: dict[str, str]
) -> None:
    [rows] = whole.rows
    assert rows.splits == {"train": 10, "validation": 10, "test": 10}
    assert rows.published == {"train": 3668, "validation": 408, "test": 1725}
    cells = ["mrpc", "10", "10", "10", "3,668", "408", "1,725"]
    assert f"| {' | '.join(cells)} |" in files["report/report.md"]
    assert " ".join(cells) in " ".join(Elements(files["report/report.html"]).text.split())
    [_, row] = files["report/tables/smoothing_rows.csv"].splitlines()
    assert row == "mrpc,10,10,10,3668,408,1725"


def test_the_papers_rows_are_those_in_the_comment_of_the_shipped_study() -> None:
    text = SHIPPED.read_text()
    for name in DATASETS:
        column = DATASETS.index(name)
        numbers = " +".join(f"{rows[column]:,}" for rows in ROWS.values())
        assert re.search(rf"{name}: .* # +{numbers} ", text)


@pytest.mark.parametrize(
    ("name", "there"), [("sst-2", True), ("SST2", True), ("qnli", True), ("reviews", False)]
)
def test_the_paper_stands_beside_a_data_set_of_its_name(name: str, there: bool) -> None:
    grammar = {"grammar": {"train": 2, "validation": 1, "test": 1}}
    found = smoothed(finished(study(datasets={name: grammar})))
    assert all((each.published is not None) is there for each in found.methods)
    assert all((each.published is not None) is there for each in found.verdicts)
    assert [each.dataset for each in found.rows] == [name] * there


# -- the report --------------------------------------------------------------------------------


def files_of(agenda: Agenda) -> dict[str, str]:
    return report_files(memory_ledger(agenda.resolved), agenda)


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return files_of(finished())


def test_every_file_of_the_report_has_the_methods_and_the_claims(files: dict[str, str]) -> None:
    markdown = files["report/report.md"].partition("## Distillation and label smoothing")[2]
    text = Elements(files["report/report.html"]).text
    for words in ("reverse KD", "0.150 ± 0.014", Claim.AS_TEACHERS, "does not hold", "−0.1000"):
        assert words in markdown
        assert words in text
    content = json.loads(files["report/report.json"])["smoothing"]
    assert [each["kind"] for each in content["methods"]].count("ERM") == 2
    assert {each["claim"] for each in content["verdicts"]} == set(Claim)
    rows = files["report/tables/smoothing.csv"].splitlines()
    assert len(rows) == 1 + 7
    assert "report/tables/smoothing_claims.tex" in files


def test_a_row_has_a_dash_for_what_two_classes_do_not_have(files: dict[str, str]) -> None:
    _, _, markdown = files["report/report.md"].partition("## Distillation and label smoothing")
    markdown, _, _ = markdown.partition("\n## ")
    lines = [line.split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    [headers, *_] = lines
    [row] = [line for line in lines if line[0] == "| mrpc/small/ls"]
    assert row[headers.index("relative entropy without top")] == "–"
    assert row[headers.index("posterior entropy")] == "0.600 ± 0.028"
    assert row[headers.index("paper: entropy")] == "0.6896"


def test_a_difference_below_the_spread_between_seeds_is_said_to_be() -> None:
    def noisy(training: Training) -> Outcome:
        outcome = became(training)
        if isinstance(training, StudentTraining) and training.seed:
            measures = {**outcome.measures, "posterior_entropy": uniform(training.key)}
            return outcome.model_copy(update={"measures": measures})
        return outcome

    agenda = finished(became=noisy)
    found = verdicts(smoothed(agenda), Claim.LS_RAISES)
    apart = [each.chosen.difference for each in found.values()]
    small = [abs(each.mean) < (each.spread or 0) for each in apart if each is not None]
    assert len(small) == 2
    lines = files_of(agenda)["report/report.md"].splitlines()
    said = [line.split(" | ")[1] for line in lines if f": {Claim.LS_RAISES} |" in line]
    assert ["within ±" in verdict for verdict in said] == small
    assert True in small


def test_the_page_has_a_curve_of_each_method_of_a_student(files: dict[str, str]) -> None:
    small, big = data_of(files["report/report.html"])["smoothing"]
    assert [run["name"] for run in small["measured"]] == [
        "ERM",
        "label smoothing (ls)",
        "KD (kd)",
        "self-KD (kd)",
    ]
    assert [run["name"] for run in big["measured"]][-1] == "reverse KD (kd)"
    erm = small["measured"][0]
    # Of ten epochs in four steps, the middle of the first two and of the last two.
    assert erm["curve"] == [[2.5, 0.6], [7.5, 0.29]]
    assert [epoch for epoch, _ in erm["epochs"]] == [1, 2, 3]
    page = files["report/report.html"]
    assert len(re.findall(r'data-smoothing="\d"', page)) == 2
    assert len(Elements(page).ids) == len(set(Elements(page).ids))


def test_a_study_that_is_none_of_this_has_the_report_that_it_had() -> None:
    content = study()
    del content["searches"]["ls"]
    content["test_cases"][0] = {"search": "erm"}
    found = files_of(finished(content))
    assert not any("smoothing" in name for name in found)
    assert "moothing" not in found["report/report.md"]
    assert "smoothing" not in json.loads(found["report/report.json"])
    page = found["report/report.html"]
    assert "smoothing" not in data_of(page)
    assert "smoothing" not in Elements(page).ids
    assert "data-smoothing" not in page


# -- the shipped study -------------------------------------------------------------------------


def counts(path: Path) -> dict[str, int]:
    """The students of each test case on MRPC."""
    study = load_study(path)
    bounds = {str(case): case_counts(study, case).students for case in cases_of(study)}
    assert all(each.fewest == each.most for each in bounds.values())
    return {name: each.most for name, each in bounds.items() if name.startswith("mrpc/")}


def test_the_shipped_study_has_the_trainings_of_the_papers_grid() -> None:
    assert counts(SHIPPED) == {
        "mrpc/base/distil/kd": 63,
        "mrpc/distil/distil/kd": 63,
        "mrpc/distil/base/kd": 63,
        "mrpc/base/erm": 7,
        "mrpc/base/ls": 63,
        "mrpc/distil/erm": 7,
        "mrpc/distil/ls": 63,
    }
    study = load_study(SHIPPED)
    cases = cases_of(study)
    assert len(cases) == 28
    assert sum(case_counts(study, case).students.most for case in cases) == 1316
    assert {case_counts(study, case).teachers for case in cases if case.teacher} == {7}
    assert {nested_epochs(study, case) for case in cases} == {tuple(range(1, 11))}


def test_the_searches_in_its_comment_have_the_trainings_of_the_papers_wider_grid(
    tmp_path: Path,
) -> None:
    text = SHIPPED.read_text()
    comment = text.partition("in place of the ls and kd above")[2].splitlines()[1:]
    wider = "\n".join(line[1:] for line in comment if line.startswith("#  "))
    own = re.search(r"  ls:\n.*?(?=\n\n)", text, re.DOTALL)
    assert own is not None
    path = tmp_path / "wider.yaml"
    path.write_text(text.replace(own.group(), wider))
    found = counts(path)
    assert {found[f"mrpc/{case}"] for case in ("distil/ls", "base/ls", "base/distil/kd")} == {196}
    smoothing = load_study(path).every_search["ls"].axes["smoothing"]
    # Some of those in the paper's Table 12.
    assert {0.1, 0.1333, 0.1666, 0.2332, 0.3664, 0.6994, 0.8326, 0.9325} < {*smoothing}


def test_the_shipped_study_is_scored_by_accuracy_and_compares_the_highest_scores() -> None:
    study = load_study(SHIPPED)
    assert {each.metric for each in study.datasets.values()} == {"accuracy"}
    assert study.searches is not None
    assert study.searches["kd"].teacher == ("t_hs",)
    assert study.searches["kd"].gradient_scale == "none"
    assert (study.training.epochs, study.training.schedule) == (10, "constant")
