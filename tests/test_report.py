from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_analysis import (
    LL,
    TINY,
    before_tiny_met_mse,
    blocked_study,
    by_hand,
    failing_teacher,
    searched,
    two_cases,
    without,
)
from test_edges import study

from kdsearch.agenda import Agenda, Outcome, StudentTraining, TestScore, Training
from kdsearch.analysis import Analysis, LeftOut, Verdict, analyse
from kdsearch.analysis.answer import verdict as verdict_of
from kdsearch.ledger import Ledger
from kdsearch.report import answer, card, write_report
from kdsearch.report.document import document
from kdsearch.report.markdown import (
    duration,
    escape,
    megabytes,
    metric_in_words,
    percent,
    score,
    table,
)
from kdsearch.report.markdown import points as signed
from kdsearch.report.page import page
from kdsearch.report.plain import plain
from kdsearch.study import Doubt, Preflight

Study = tuple[Ledger, Agenda]
CSV = ["best_worst_random", "parameters", "stable", "erm", "rewards", "cases", "path"]
CSV += ["steps", "sizes", "trends"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    ledger, agenda = searched(tmp_path_factory.mktemp("whole"))
    write_report(ledger, agenda)
    return ledger, agenda


@pytest.fixture(scope="module")
def analysis(whole: Study) -> Analysis:
    return analyse(whole[1])


def markdown(study: Study) -> str:
    return (study[0].folder / "report" / "report.md").read_text()


def written(ledger: Ledger, agenda: Agenda) -> str:
    return write_report(ledger, agenda).with_suffix(".md").read_text()


def content(ledger: Ledger) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (ledger.folder / "report" / "report.json").read_text()
    return json.loads(text, parse_constant=refuse)


def frame(ledger: Ledger, name: str) -> pd.DataFrame:
    path = ledger.folder / "report" / "tables" / f"{name}.csv"
    return pd.read_csv(path, float_precision="round_trip")


# -- small pieces --------------------------------------------------------------------------------


def test_a_table_has_as_many_cells_in_every_line() -> None:
    assert table(["a", "b"], [("x|y", None), ("z", 1)]).splitlines() == [
        "| a | b |",
        "| :-- | --: |",
        "| x\\|y | – |",
        "| z | 1 |",
    ]


def test_markup_in_a_name_is_escaped() -> None:
    assert escape("<b>&|`*\n[x]") == "&lt;b&gt;&amp;\\|\\`\\* \\[x\\]"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, "–"),
        (42_345, "0.042"),
        (1_000_000, "1.0"),
        (9_940_000, "9.9"),
        (9_960_000, "10"),
        (437_900_000, "438"),
        (1_234_500_000, "1,234"),
    ],
)
def test_bytes_are_printed_in_megabytes_with_two_digits_at_least(
    size: int | None, shown: str
) -> None:
    assert megabytes(size) == shown


def test_a_gain_is_printed_in_percent_with_one_decimal_and_no_negative_zero() -> None:
    assert [percent(value) for value in (0.0164, -0.05, -0.0001, None)] == [
        "1.6",
        "−5.0",
        "0.0",
        "–",
    ]


def test_a_score_has_four_decimals() -> None:
    assert [score(value) for value in (0.5, None)] == ["0.5000", "–"]


def test_durations_are_read_easily() -> None:
    assert [duration(s) for s in (2.5, 61, 3720, 59.7)] == [
        "2.5 s",
        "1 min 1 s",
        "1 h 2 min",
        "1 min 0 s",
    ]


def test_a_number_that_json_does_not_have_becomes_null() -> None:
    assert plain({"a": (float("nan"), float("inf"), 1.0)}) == {"a": [None, None, 1.0]}


# -- a complete study ----------------------------------------------------------------------------


def test_every_file_is_written(whole: Study) -> None:
    folder = whole[0].folder / "report"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {f"tables/{name}.{kind}" for name in CSV for kind in ("csv", "tex")}
    assert files == {"report.html", "report.md", "report.json", *tables}


def test_the_report_says_that_a_study_is_complete(whole: Study) -> None:
    assert "**The study is complete**: 2 of 2 test cases finished" in markdown(whole)


def test_the_answer_has_the_stable_configuration_in_words_and_its_gains(whole: Study) -> None:
    top = markdown(whole).split("##")[0]
    assert (
        "the stable configuration is cross-entropy to the teacher checkpoint of the lowest "
        "validation loss, the student at the teacher’s temperature, human labels unused "
        "(**CE t_ll τ_s=τ_t α=1**), with the teacher’s temperature (τ_t) and the learning rate "
        "tuned in each case" in top
    )
    # (.84 / .30 − 1 and .55 / .44 − 1: the median of two is their mean)
    assert "gains 102.5 % against the lazy baseline" in top
    assert " over 2 cases (at worst 25.0 %: g/t/tiny)" in top
    assert "above it in the median (at worst 20.0 %: g/t/tiny)" in top
    assert "1 of 2 cases (the paper: 40 % of 39)" in top


def test_the_papers_rows_stand_after_the_studys(whole: Study) -> None:
    lines = markdown(whole).splitlines()
    position = next(i for i, line in enumerate(lines) if line.startswith("| best over worst"))
    found = lines[position].split(" | ")[1:5]  # .84 / .60 − 1 and .66 / .40 − 1
    assert found == ["2", "52.5", "40.0 (g/t/small)", "65.0 (g/t/tiny) |"]
    assert lines[position + 1].startswith("| best over worst (paper, 39 cases) | 39 | 1.6 | 0.3 |")


def test_the_gains_of_every_case_stand_below_each_figure(whole: Study) -> None:
    cost = markdown(whole).partition("## The cost of a bad choice")[2].partition("\n## ")[0]
    header, _, *rows = [line for line in cost.splitlines() if line.startswith("| ")][-4:]
    assert header.startswith("| test case | best over worst | best over random (first draw) |")
    assert [row.split(" | ")[0:2] for row in rows] == [
        ["| g/t/small", "40.0 (+24.0)"],
        ["| g/t/tiny", "65.0 (+26.0)"],
    ]


def test_json_holds_the_numbers_of_the_analysis(whole: Study, analysis: Analysis) -> None:
    found = content(whole[0])
    for name in ("figure_1", "figure_2", "figure_3"):
        for row, comparison in zip(found[name], getattr(analysis, name), strict=True):
            assert (row["label"], row["n"]) == (comparison.label, comparison.n)
            assert row["deciles"] == list(comparison.deciles)
            assert [each["gain"] for each in row["gains"]] == [g.gain for g in comparison.gains]
    assert [row["reward"] for row in found["table_3"]["rows"]] == [2, 0, 0]
    assert found["stable"]["choice"]["teacher"] == "t_ll"
    assert found["complete"] is True


@pytest.mark.parametrize(
    ("name", "part"),
    [("best_worst_random", "figure_1"), ("parameters", "figure_2"), ("stable", "figure_3")],
)
def test_csv_and_json_hold_the_same_deciles(whole: Study, name: str, part: str) -> None:
    rows = frame(whole[0], name)
    own = rows[rows.source == "this study"].set_index(["figure", "comparison"])
    for expected in content(whole[0])[part]:
        found = own.loc[(expected["figure"], expected["label"])]
        assert [found[f"D{k}"] for k in range(11)] == expected["deciles"]
        assert found["n"] == expected["n"]


def test_csv_and_json_hold_the_same_paths(whole: Study) -> None:
    found = frame(whole[0], "path")
    expected = [
        (case["case"]["student"], candidate["value"], candidate["validation"], candidate["test"])
        for case in content(whole[0])["cases"]
        for step in case["path"]
        for candidate in step["candidates"]
    ]
    rows = found[["student", "value", "validation", "test"]].itertuples(index=False, name=None)
    assert list(rows) == expected


def test_csv_and_json_hold_the_same_cases_and_rewards(whole: Study) -> None:
    found = content(whole[0])
    cases = frame(whole[0], "cases")
    assert list(cases.winner_test) == [case["winner"]["test"] for case in found["cases"]]
    assert list(cases.stable_test) == [case["stable"]["test"] for case in found["cases"]]
    rewards = frame(whole[0], "rewards")
    assert list(rewards.R) == [row["reward"] for row in found["table_3"]["rows"]]
    assert list(rewards.paper_R) == [row["paper"] for row in found["table_3"]["rows"]]


def test_writing_a_report_again_gives_the_same_bytes(whole: Study) -> None:
    folder = whole[0].folder / "report"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(*whole)
    assert {path: path.read_bytes() for path in before} == before


# -- studies that are not whole ------------------------------------------------------------------


def test_the_report_says_that_a_study_is_partial_and_which_cases_wait(
    whole: Study, tmp_path: Path
) -> None:
    text = written(Ledger(tmp_path), without(whole[1], before_tiny_met_mse))
    top = text.split("##")[0]
    assert "**The study is partial**: 0 of 2 test cases finished, 2 unfinished" in top
    assert "complete" not in top
    assert "- g/t/tiny is unfinished: " in top
    assert "So far, over 1 of 2 traversals, the stable configuration would be" in top


def test_a_study_without_results_has_a_report_and_valid_files(whole: Study, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    text = written(ledger, Agenda(whole[1].resolved, {}))
    assert text.split("\n\n")[1] == "**Nothing has been trained yet**, so there is no answer."
    assert content(ledger)["figure_1"][0]["deciles"] is None
    assert frame(ledger, "stable")["D5"].dropna().size == 3  # the paper's
    assert frame(ledger, "path").empty


def test_a_blocked_case_is_named_with_its_reason_and_the_failures_message(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path, failing_teacher, blocked_study())
    text = written(ledger, agenda)
    assert "**The study is complete, with failures**: 1 of 2 test cases finished, 1 blocked" in text
    assert "- g/u/small is blocked: no training of its teacher succeeded" in text
    assert "(RuntimeError: no &lt;room&gt; \\| left)" in text
    assert content(ledger)["cases"][1]["failures"][0]["state"] == "failed"


def test_doubts_of_the_preflight_stand_below_the_answer_of_every_file(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path, failing_teacher, blocked_study())
    assert "Doubtful" not in written(ledger, agenda)
    doubts = [Doubt(place="datasets.a", what="is <small>"), Doubt(place="models.b", what="is old")]
    ledger.write_preflight(Preflight(digest="", doubts=tuple(doubts)))
    text = written(ledger, agenda)
    assert text.index("**The study is") < text.index("## Doubtful") < text.index("## How to read")
    assert "- datasets.a: is &lt;small&gt;\n- models.b: is old\n" in text
    expected = {"place": "datasets.a", "what": "is <small>", "remedy": ""}
    assert content(ledger)["doubts"][0] == expected
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.index('id="answer"') < html.index('id="doubtful"') < html.index('id="figure-1"')
    assert "<li>datasets.a: is &lt;small&gt;</li>\n<li>models.b: is old</li>" in html
    assert '<a href="#doubtful">' in html


def test_hostile_names_do_not_break_the_tables(tmp_path: Path) -> None:
    raw = two_cases()
    raw["datasets"] = {"a|<b> # c": raw["datasets"]["g"]}
    ledger, agenda = searched(tmp_path, by_hand, raw)
    text = written(ledger, agenda)
    command = r"kdsearch export runs/by-hand 'a|<b> # c/t/small' --to PATH"
    assert f"```\n{command}\n" in text
    assert "<b>" not in re.sub("^```$.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert next(csv.DictReader((tmp_path / "report/tables/cases.csv").open()))["dataset"] == (
        "a|<b> # c"
    )


def test_a_level_median_is_called_level(analysis: Analysis) -> None:
    from kdsearch.report.answer import answer

    none = replace(analysis.stable_over_lazy, deciles=(0.0,) * 11)
    assert "is level with the lazy baseline" in answer(replace(analysis, stable_over_lazy=none))


def losing(training: Training) -> Outcome:
    """As by hand, but that t_ll, which both cases vote for, is bad for tiny on test."""
    tiny = {**TINY, ("ce", LL, "tied", 1.0): (0.65, 0.352)}
    return by_hand(training, tiny=tiny)


def test_a_case_in_which_stable_is_below_the_default_is_named_and_marked(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path, losing)
    text = written(ledger, agenda)
    lost = "In 1 of 2 cases its test score is below that of the default, in points of 100: "
    assert f"{lost}g/t/tiny (−14.8)." in text.split("##")[0]
    assert "The stable configuration scores 14.8 points of 100 less than the default." in text
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.count("stable 14.8 points below the default</td>") == 1
    found = frame(ledger, "cases").stable_over_default_points
    assert list(found) == pytest.approx([4.0, -14.8])


def test_where_stable_is_nowhere_below_the_default_nothing_is_marked(whole: Study) -> None:
    html = (whole[0].folder / "report" / "report.html").read_text()
    assert "below the default</td>" not in html
    assert "below that of the default" not in markdown(whole)


def test_where_the_student_without_a_teacher_is_better_the_answer_begins_with_that(
    tmp_path: Path,
) -> None:
    _, agenda = searched(tmp_path, by_hand, two_cases(erm=True))
    first = written(Ledger(tmp_path), agenda).split("\n\n")[1]
    assert first == (
        "**Without a teacher the student is better in 1 of 2 cases**, by test score: g/t/tiny "
        "(0.8 against 0.4)."
    )
    html = (tmp_path / "report" / "report.html").read_text()
    state = "complete, better without a teacher in 1 case"
    assert f'<span class="badge warn" id="state">{state}</span>' in html


def test_where_distillation_is_better_the_answer_begins_with_that(tmp_path: Path) -> None:
    def worse(training: Training) -> Outcome:
        plain = isinstance(training, StudentTraining) and training.teaching is None
        outcome = by_hand(training)
        return outcome.model_copy(update={"test": TestScore(0.1)}) if plain else outcome

    _, agenda = searched(tmp_path, worse, two_cases(erm=True))
    begin = "**Distilling beats training on the labels alone in 2 of 2 test cases**"
    assert written(Ledger(tmp_path), agenda).split("\n\n")[1].startswith(begin)
    html = (tmp_path / "report" / "report.html").read_text()
    assert '<span class="badge good" id="state">complete</span>' in html


def over_plain(plain: float) -> Agenda:
    """A study with ten rows to test on; the teacher has 0.9, taught students 0.8."""
    return study(lambda t: 0.8 if t.teaching else plain, erm=True)


@pytest.mark.parametrize(
    ("plain", "gain", "points", "gap", "why"),
    [
        (0.5, 0.6, 30, 0.75, []),
        (
            *(0.85, -1 / 17, -5, None),
            [
                "the gap, since the teacher is not clearly better on the test rows: "
                "0.90 against 0.85"
            ],
        ),
        (
            *(0.05, None, 75, 15 / 17),
            ["the gain over ERM, whose 0.05 is less than one row is worth"],
        ),
    ],
)
def test_a_ratio_has_at_least_one_rows_worth_below_it_and_points_beside_it(
    plain: float, gain: float | None, points: float, gap: float | None, why: list[str]
) -> None:
    agenda = over_plain(plain)
    analysis = analyse(agenda)
    case = analysis.cases[0]
    found = (case.over_erm, case.over_erm_points, case.gap_closed)
    assert found == pytest.approx((gain, points, gap))
    text = document(analysis, agenda, {})
    section = text.split("## What distillation brings")[1]
    row = next(line for line in section.splitlines() if line.startswith("| sentences/big/small |"))
    digits = case.digits
    chosen = f"{percent(gain)} ({signed(points)})"
    stable = "–" if gain is None else chosen  # stable is what was chosen
    cells = [score(plain, digits), score(0.8, digits), score(0.9, digits), chosen, stable]
    assert row == f"| sentences/big/small | {' | '.join([*cells, percent(gap)])} |"
    for line in why:
        assert f"- sentences/big/small: {line}\n" in text
    assert ("Left blank:" in text) == bool(why)
    html = page(analysis, agenda, {})
    assert [f"<p>Left blank: {line}.</p>" in html for line in why] == [True] * len(why)


@pytest.mark.parametrize(
    ("noise", "verdict"),
    [(None, Verdict.WORSE), (2.4, Verdict.WORSE), (2.6, Verdict.WITHIN_NOISE)],
)
def test_a_loss_of_less_than_two_deviations_is_within_the_noise(
    noise: float | None, verdict: Verdict
) -> None:
    analysis = analyse(over_plain(0.85))
    [case] = analysis.answer.cases
    assert case.points == pytest.approx(-5)
    assert verdict_of(case.points, noise) is verdict
    case = replace(case, noise=noise, verdict=verdict)
    text = answer(replace(analysis, answer=replace(analysis.answer, cases=(case,))))
    first = {
        Verdict.WORSE: "**Without a teacher the student is better in 1 of 1 case**",
        Verdict.WITHIN_NOISE: "**Distilling cannot be told from training on the labels alone** in ",
    }
    assert text.startswith(first[verdict])


def test_a_gain_over_less_than_a_row_is_counted_among_what_is_left_out() -> None:
    analysis = analyse(over_plain(0.05))
    assert analysis.best_over_erm.left_out == {LeftOut.SMALL_BASELINE: 1}
    assert "1 over less than a row’s worth" in document(analysis, over_plain(0.05), {})


# -- what was chosen, under winner seeds -----------------------------------------------------------


def by_seed(training: Training) -> Outcome:
    """As by hand; a student's test score falls by a tenth with each seed, tiny diverges at 2."""
    outcome = by_hand(training)
    if not isinstance(training, StudentTraining) or outcome.test is None or training.seed == 0:
        return outcome
    if (training.model.name, training.seed) == ("tiny", 2):
        nothing = {"state": "diverged", "validation": None, "test": None, "best_epoch": None}
        return outcome.model_copy(update=nothing)
    return outcome.model_copy(update={"test": TestScore(outcome.test - training.seed / 10)})


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("seeded")
    ledger, agenda = searched(folder, by_seed, two_cases(winner_seeds=[0, 1, 2]))
    write_report(ledger, agenda)
    return ledger, agenda


def test_what_a_case_chose_has_its_mean_and_spread_over_the_winner_seeds(seeded: Study) -> None:
    small, tiny = analyse(seeded[1]).cases
    assert small.winner is not None
    assert small.winner_under_seeds is not None
    assert small.winner.test is not None
    first = small.winner.test
    assert small.winner_under_seeds.by_seed == {0: first, 1: first - 0.1, 2: first - 0.2}
    assert small.winner_under_seeds.test == pytest.approx(first - 0.1)
    assert small.winner_under_seeds.spread == pytest.approx(0.1)
    assert tiny.winner_under_seeds is not None
    assert tiny.winner_under_seeds.test is None
    assert tiny.winner_under_seeds.missing == (2,)


def test_every_file_has_the_mean_and_says_where_there_is_none(seeded: Study) -> None:
    small, _ = analyse(seeded[1]).cases
    assert small.winner is not None
    assert small.winner.test is not None
    mean = f"{small.winner.test - 0.1:.1f} ± 0.1"
    over = f"Over the seeds 0, 1, 2 its test score is {mean}."
    none = "There is no mean over the seeds 0, 1, 2: it has no test score under 2."
    html = (seeded[0].folder / "report" / "report.html").read_text()
    for text in (markdown(seeded), html):
        assert text.count(over) == text.count(none) == 1
        assert text.count(" seed=2: diverged") == 1
    assert f"<td>{mean}</td>" in html
    section = markdown(seeded).split("## What each search chose")[1]
    lines = [line for line in section.splitlines() if line.startswith("| g/t/")]
    assert [f"| {mean} |" in line for line in lines[:2]] == [True, False]
    frames = frame(seeded[0], "cases")
    assert frames.winner_seeds_test.round(4).isna().tolist() == [False, True]
    cases = content(seeded[0])["cases"]
    assert list(cases[1]["winner_under_seeds"]["by_seed"]) == ["0", "1", "2"]


def test_winner_seeds_change_nothing_else_that_is_said_of_the_cases(
    seeded: Study, whole: Study
) -> None:
    for name in ("best_worst_random", "parameters", "stable", "rewards", "path"):
        assert frame(seeded[0], name).equals(frame(whole[0], name))
    dropped = ["winner_seeds_test", "winner_seeds_spread", "failures", "student_seconds"]
    own, others = (frame(study[0], "cases") for study in (seeded, whole))
    assert own.drop(columns=dropped).equals(others.drop(columns=dropped[2:]))


def test_without_winner_seeds_no_file_speaks_of_them(whole: Study) -> None:
    folder = whole[0].folder / "report"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert "winner_seeds" not in path.read_text()
        assert "under_seeds" not in path.read_text()


def test_a_model_card_has_the_mean_over_the_winner_seeds_of_what_was_chosen(seeded: Study) -> None:
    _, agenda = seeded
    [small, _] = analyse(agenda).cases
    assert small.winner is not None
    assert small.winner.key is not None
    outcome = agenda.results[small.winner.key]
    assert outcome is not None
    assert small.digits == 1
    mean = f"| students like it, under the seeds 0, 1, 2 | – | {outcome.test - 0.1:.1f} ± 0.1 |"
    assert mean in card(agenda, small, outcome, stable=False, again=None)
    assert "under the seeds" not in card(agenda, small, outcome, stable=True, again=None)


def test_a_pattern_of_answers_stands_as_code_as_it_was_written() -> None:
    plain = metric_in_words(r"exact match, found by is (\d+)\.")
    assert plain == r"exact match, found by `is (\d+)\.`"
    assert metric_in_words("exact match, found by `(.)`") == "exact match, found by `` `(.)` ``"
    assert metric_in_words("F1 *") == r"F1 \*"
