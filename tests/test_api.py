from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_analysis import before_tiny_met_mse, by_hand, diverging, searched, two_cases
from test_cli import kdsearch as command

import kdsearch
from kdsearch.agenda import StudentTraining, Training
from kdsearch.analysis import Comparison, State
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger

PAGE = Path(__file__).parent.parent / "docs/report.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("study"))[0].folder


@pytest.fixture(scope="module")
def study(folder: Path) -> kdsearch.StudyResults:
    return kdsearch.open(folder)


def half_done(folder: Path) -> Path:
    """A study whose case of tiny has not met MSE."""
    ledger, agenda = searched(folder)
    for key, outcome in agenda.results.items():
        if outcome is not None and before_tiny_met_mse(outcome.training):
            (ledger.folder / "outcomes" / f"{key}.json").unlink()
    return folder


def with_searches(**searches: dict[str, Any]) -> dict[str, Any]:
    raw = two_cases(searches=searches, learning_rate=[1e-5])
    del raw["search"]
    return raw


def is_mse(training: Training) -> bool:
    return isinstance(training, StudentTraining) and training.objective.kind == "mse"


# -- one line each ---------------------------------------------------------------------------------


def test_a_study_is_opened_by_its_folder(folder: Path, study: kdsearch.StudyResults) -> None:
    assert study.name == "by-hand"
    assert study.status.complete
    assert repr(kdsearch.open(str(folder))) == "<study by-hand: 2 of 2 test cases finished>"


def test_a_case_is_found_by_its_name_or_a_part_of_it(study: kdsearch.StudyResults) -> None:
    assert [str(each.case) for each in study.cases] == ["g/t/small", "g/t/tiny"]
    assert study.case("small") is study.case("g/t/small") is study.cases[0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("big", "case: no test case matches big (available: g/t/small, g/t/tiny)"),
        ("g/t", "case: several test cases match g/t (available: g/t/small, g/t/tiny)"),
    ],
)
def test_a_name_that_is_not_one_cases_is_refused_with_those_there_are(
    study: kdsearch.StudyResults, name: str, problem: str
) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        study.case(name)


def test_the_table_of_cases_has_the_scores_of_the_typed_ones(study: kdsearch.StudyResults) -> None:
    table = study.tables.cases.set_index("case")
    for case in study.cases:
        assert case.winner is not None
        row = table.loc[str(case.case)]
        assert (row.winner, row.winner_test) == (str(case.winner.choice), case.winner.test)
    assert table.loc["g/t/small", "winner_validation"] == 0.74


def test_each_student_is_a_trial_with_its_scores(
    folder: Path, study: kdsearch.StudyResults
) -> None:
    outcomes = {o.key: o for o in Ledger(folder).outcomes() if o.training.kind == "student"}
    trials = study.tables.trials
    assert set(trials.key) == set(outcomes)
    for trial in trials.itertuples():
        outcome = outcomes[trial.key]
        assert (trial.validation, trial.test) == (outcome.validation, outcome.test)
        assert (trial.epoch, trial.seconds) == (outcome.best_epoch, outcome.cost.seconds)
        assert trial.objective == outcome.training.objective.kind
        assert trial.student == outcome.training.model.name


def test_a_parameter_that_is_inactive_in_a_trial_is_empty(study: kdsearch.StudyResults) -> None:
    trials = study.tables.trials
    assert (trials.temperature.isna() == (trials.objective == "mse")).all()
    assert {1.0, 4.0} < set(trials.temperature.dropna())
    assert trials.alpha.notna().all()


def test_a_trial_under_several_seeds_has_their_means(tmp_path: Path) -> None:
    def look(training: Training) -> Any:
        outcome = by_hand(training)
        seed = getattr(training, "seed", 0)
        tests = {"validation": 0.5 + seed / 10, "test": 0.6 + seed / 10}
        return outcome.model_copy(update=tests) if training.kind == "student" else outcome

    searched(tmp_path, look, two_cases(seeds=[0, 2]))
    for trial in kdsearch.open(tmp_path).trials:
        assert trial.validation == pytest.approx(0.6)
        assert trial.test == pytest.approx(0.7)
        assert trial.spread == pytest.approx(0.2 / 2**0.5)
        assert trial.seconds == 4.0  # two seconds under each seed


def test_the_decisions_say_which_candidate_won(study: kdsearch.StudyResults) -> None:
    decisions = study.tables.decisions
    won = decisions[decisions.won].pivot(index="case", columns="parameter", values="value")
    assert won.loc["g/t/small"].to_dict() == {
        "alpha": "α = 1",
        "distance": "CE",
        "student_temperature": "τ_s = 1",
        "teacher": "t_ll",
    }
    assert won.loc["g/t/tiny", "distance"] == "MSE"


def test_comparisons_and_gains_have_the_rows_of_the_figures(study: kdsearch.StudyResults) -> None:
    own = study.tables.comparisons.query("source == 'this study'")
    assert own.comparison.tolist() == [row.label for row in study.comparisons]
    gains = study.tables.gains
    worst = gains[gains.comparison == "best over worst"].set_index("case").gain
    assert worst["g/t/small"] == pytest.approx(0.4)  # 0.84 over 0.60


def test_the_figures_of_a_search_have_every_comparison_of_it(study: kdsearch.StudyResults) -> None:
    (search,) = study.searches
    found = [value for value in vars(search).values() if isinstance(value, Comparison)]
    found += [*search.figure_1, *search.figure_2, *search.figure_3]
    assert sorted(row.label for row in search.comparisons) == sorted(row.label for row in found)


def test_the_stable_configuration_has_its_rewards(study: kdsearch.StudyResults) -> None:
    assert study.stable is not None
    assert str(study.stable.choice) == "CE t_ll τ_s=τ_t α=1"
    assert study.tables.rewards.set_index("comparison").R["t_ll over t_hs"] == 2


# -- several searches, and studies that are not whole ----------------------------------------------


def test_each_search_that_flips_has_rows_of_its_own(tmp_path: Path) -> None:
    greedy = {"temperature": {"broad": [1.0, 4.0]}}
    alphas, other = greedy | {"alpha": [1.0, 0.5]}, greedy | {"alpha": 1.0}
    erm = {"strategy": "exhaustive", "objective": "labels"}
    searched(tmp_path, by_hand, with_searches(alphas=alphas, other=other, erm=erm))
    study = kdsearch.open(tmp_path)
    for table in (study.tables.comparisons, study.tables.gains, study.tables.rewards):
        assert table.search.unique().tolist() == ["alphas", "other"]
    trials = study.tables.trials
    assert set(trials.search) == {"alphas", "other", "erm"}
    assert trials[trials.search == "erm"].temperature.isna().all()


def test_a_study_that_flips_nothing_has_no_comparisons(
    tmp_path: Path, study: kdsearch.StudyResults
) -> None:
    erm = {"strategy": "exhaustive", "objective": "labels"}
    searched(tmp_path, by_hand, with_searches(erm=erm))
    found = kdsearch.open(tmp_path)
    assert found.searches == found.comparisons == ()
    assert found.stable is None
    for name in ("comparisons", "gains", "rewards"):
        table, usual = getattr(found.tables, name), getattr(study.tables, name)
        assert (len(table), table.columns.tolist()) == (0, usual.columns.tolist())
    assert found.tables.cases.winner.tolist() == ["ERM", "ERM"]


def test_a_trial_says_what_became_of_it(tmp_path: Path) -> None:
    searched(tmp_path, lambda training: None if is_mse(training) else diverging(training))
    trials = kdsearch.open(tmp_path).tables.trials
    states = trials.groupby("state").objective.unique()
    assert states["failed"].tolist() == ["mse"]
    assert states["diverged"].tolist() == states["scored"].tolist() == ["ce"]
    assert (trials.validation.notna() == (trials.state == "scored")).all()


def test_a_study_that_is_not_finished_has_what_it_knows(tmp_path: Path) -> None:
    study = kdsearch.open(half_done(tmp_path))
    assert not study.status.complete
    assert study.case("tiny").state is State.UNFINISHED
    assert study.case("tiny").winner is None
    waiting = study.tables.trials.query("state == 'unfinished'")
    assert set(waiting.student) == {"tiny"}
    assert set(waiting.objective) == {"mse"}
    assert waiting[["validation", "test"]].isna().all(axis=None)
    assert study.stable is not None
    assert study.stable.provisional


def test_a_study_that_has_not_begun_has_no_trials(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "resolved.json").write_bytes((folder / "resolved.json").read_bytes())
    study = kdsearch.open(tmp_path)
    assert study.trials == ()
    assert study.stable is None
    assert study.tables.trials.empty
    assert len(study.tables.cases) == 2


# -- what is no study ------------------------------------------------------------------------------


def newer(folder: Path) -> None:
    path = searched(folder)[0].folder / "resolved.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


@pytest.mark.parametrize("spoil", [Path.rmdir, Path.resolve, newer], ids=["none", "empty", "newer"])
def test_what_is_no_study_is_refused_in_the_words_of_the_command(
    tmp_path: Path, spoil: Any
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(InputError) as caught:
        kdsearch.open(folder)
    assert str(caught.value) in command("status", folder).err


# -- what it takes ---------------------------------------------------------------------------------


def test_importing_kdsearch_waits_for_nothing_and_opening_a_study_not_for_torch(
    folder: Path,
) -> None:
    code = f"""
import sys, kdsearch
heavy = {{"numpy", "pandas", "pydantic", "ray", "scipy", "torch"}}
print(sorted(heavy & sys.modules.keys()))
kdsearch.open({str(folder)!r}).tables.trials
print(sorted({{"ray", "torch", "transformers"}} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n[]\n"


def test_what_is_public_is_all_there() -> None:
    assert set(kdsearch.__all__) <= set(dir(kdsearch))
    assert all(getattr(kdsearch, name).__doc__ for name in kdsearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'opened'"):
        kdsearch.opened  # noqa: B018


def test_the_lines_of_the_page_on_reports_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    raw = two_cases(students={"small": {"model": "small"}})
    raw |= {"datasets": {"sentiment": raw["datasets"]["g"]}}
    raw |= {"teachers": {"encoder": raw["teachers"]["t"]}}
    searched(tmp_path / "runs/quickstart", by_hand, raw)
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_importing_all_that_is_public_leaves_pythons_own_open_alone() -> None:
    names: dict[str, Any] = {}
    exec("from kdsearch import *", names)
    assert names["StudyResults"] is kdsearch.StudyResults
    assert "open" not in names
