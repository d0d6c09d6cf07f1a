from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from fakes import World, a_study, paper_space, resolved_of, search_through, uniform, walk
from hypothesis import given
from hypothesis import strategies as st
from test_cli import kdsearch, refused

from kdsearch.agenda import TestScore
from kdsearch.analysis import Recorded, Table, regrouped, replay
from kdsearch.api import open_folder
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.search import (
    Axis,
    Checkpoint,
    Exhaustive,
    Greedy,
    Random,
    Space,
    Trial,
    ValidationScore,
)

HS, LL = Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS


def grid(**changes: Any) -> Space:
    """A grid of 48 trials, as an exhaustive search records them."""
    values = {"temperature": (1.0, 2.0, 4.0), "learning_rate": (1e-5, 2e-5), "alpha": (1.0, 0.5)}
    return replace(paper_space(**{**values, **changes}), refined=None)


def trials_of(space: Space) -> list[Trial]:
    return list(dict.fromkeys(t for choice in space.choices() for t in space.trials(choice)))


def table_of(
    space: Space,
    validation: Mapping[Trial, float | None],
    test: Mapping[Trial, float] | None = None,
    keys: Mapping[Trial, tuple[str, ...]] | None = None,
) -> Table:
    return {
        trial: Recorded(
            validation=None if score is None else ValidationScore(score),
            test=TestScore(test[trial]) if test else None,
            keys=keys[trial] if keys else (str(trial),),
        )
        for trial in trials_of(space)
        for score in [validation[trial]]
    }


def made_up(space: Space, seed: int, levels: int = 1000, failing: float = 0.0) -> Table:
    """A table at random, with ties where the levels are few; test is drawn by itself."""
    trials = trials_of(space)
    return table_of(
        space,
        {
            trial: None
            if uniform(seed, "fails", trial) < failing
            else round(uniform(seed, trial) * levels) / levels
            for trial in trials
        },
        {trial: uniform(seed, "test", trial) for trial in trials},
    )


worlds = {
    "seed": st.integers(0, 2**32),
    "levels": st.sampled_from((3, 1000)),
    "failing": st.sampled_from((0.0, 0.3)),
}


@given(**worlds)
def test_an_exhaustive_search_has_no_regret(seed: int, levels: int, failing: float) -> None:
    table = made_up(grid(), seed, levels, failing)
    found = replay(Exhaustive(), grid(), table)
    assert (found.validation_regret, found.test_regret) == (0, 0)
    assert found.trainings == len(table)
    assert len(found.rounds) == 1


@given(trials=st.integers(1, 60), **worlds)
def test_random_trials_never_beat_the_grid_on_validation(
    trials: int, seed: int, levels: int, failing: float
) -> None:
    table = made_up(grid(), seed, levels, failing)
    found = replay(Random(trials=trials, seed=seed), grid(), table)
    if found.chosen is None:
        assert {table[trial].validation for trial in found.rounds[0]} == {None}
        assert found.validation_regret is None
        return
    scores = [row.validation for row in table.values() if row.validation is not None]
    assert found.validation is not None
    assert found.validation_regret == max(scores) - found.validation >= 0
    assert found.trainings == len(set(found.rounds[0])) <= trials


@given(order=st.permutations(("teacher", "student_temperature", "distance")), **worlds)
def test_a_replay_comes_to_what_the_strategy_itself_comes_to(
    order: list[str], seed: int, levels: int, failing: float
) -> None:
    space = grid(order=tuple(order))
    table = made_up(space, seed, levels, failing)
    found = replay(Greedy(), space, table)
    progress, asked = walk(space, lambda trial: table[trial].validation)
    assert found.progress == progress
    assert {trial for trials in found.rounds for trial in trials} == asked.keys()
    assert found.trainings == len(asked)


def four_trials() -> tuple[Space, list[Trial]]:
    """A grid of two axes of two values each, and its trials, the default first."""
    space = Space(
        compared=(
            Axis(name="teacher", values=(HS, LL)),
            Axis(name="distance", values=("mse",)),
            Axis(name="alpha", values=(1.0, 0.5)),
        ),
        tuned=(Axis(name="learning_rate", values=(1e-5,)),),
    )
    return space, trials_of(space)


def test_regrets_worked_by_hand_of_a_greedy_search_that_is_lucky_on_test() -> None:
    space, trials = four_trials()
    names = [(trial.checkpoint, trial.get("alpha")) for trial in trials]
    assert names == [(HS, 1.0), (HS, 0.5), (LL, 1.0), (LL, 0.5)]
    validation = dict(zip(trials, (0.7, 0.75, 0.6, 0.9), strict=True))
    test = dict(zip(trials, (0.5, 0.875, 0.99, 0.75), strict=True))
    found = replay(Greedy(), space, table_of(space, validation, test))
    # t_hs beats t_ll at α = 1; at t_hs α = 0.5 wins. The grid's best is t_ll at α = 0.5.
    assert found.chosen == trials[1]
    assert found.rounds == ((trials[0], trials[2]), (trials[1],))
    assert (found.validation, found.test) == (0.75, 0.875)
    assert found.validation_regret == pytest.approx(0.15)
    assert found.test_regret == -0.125
    assert found.trainings == 3


def test_a_training_counts_under_each_seed_and_once_for_checkpoints_that_coincide() -> None:
    space, trials = four_trials()
    keys = {trial: (f"{trial.get('alpha')} a", f"{trial.get('alpha')} b") for trial in trials}
    table = table_of(space, dict.fromkeys(trials, 0.5), keys=keys)
    assert replay(Exhaustive(), space, table).trainings == 4


def test_where_nothing_has_a_score_there_is_no_choice_and_no_regret() -> None:
    space, trials = four_trials()
    found = replay(Exhaustive(), space, table_of(space, dict.fromkeys(trials)))
    assert (found.chosen, found.validation, found.test) == (None, None, None)
    assert (found.validation_regret, found.test_regret) == (None, None)


def test_a_choice_without_a_test_score_has_a_regret_on_validation_alone() -> None:
    space, trials = four_trials()
    found = replay(Exhaustive(), space, table_of(space, dict.fromkeys(trials, 0.5)))
    assert (found.validation_regret, found.test_regret) == (0, None)


# -- the axes that are tuned -------------------------------------------------------------------


def test_axes_regrouped_span_the_same_trials() -> None:
    for tuned in ((), ("learning_rate",), ("temperature", "learning_rate"), ("alpha", "teacher")):
        space = regrouped(grid(), tuned)
        assert {axis.name for axis in space.tuned} == set(tuned)
        assert set(trials_of(space)) == set(trials_of(grid()))


def test_alpha_comes_last_and_the_others_keep_their_order() -> None:
    space = regrouped(grid(), ("learning_rate",))
    names = [axis.name for axis in space.compared]
    assert names == ["teacher", "student_temperature", "distance", "temperature", "alpha"]
    names = [axis.name for axis in regrouped(grid(), ("alpha",)).compared]
    assert names[-2:] == ["temperature", "learning_rate"]


def refining(*broad: float) -> Space:
    axis = Axis(name="temperature", values=broad)
    return regrouped(grid(temperature=RECORDED), ("temperature", "learning_rate"), axis)


RECORDED = (1.0, 1.6, 2.0, 2.2, 2.8, 3.0, 3.4, 4.0, 8.0, 12.0)
"""1 and 4, with the neighbourhood of each."""


@given(seed=st.integers(0, 2**32))
def test_a_refined_temperature_is_found_in_a_grid_that_has_its_neighbourhoods(seed: int) -> None:
    space, table = refining(1.0, 4.0), made_up(grid(temperature=RECORDED), seed)
    found = replay(Greedy(), space, table)
    assert found.progress == walk(space, lambda trial: table[trial].validation)[0]
    assert found.trainings < len(table)


def test_a_trial_outside_the_table_is_named() -> None:
    space = refining(1.0, 2.0)
    with pytest.raises(InputError) as raised:
        replay(Greedy(), space, made_up(grid(temperature=RECORDED), 0))
    [problem] = raised.value.problems
    local = (1.2, 1.4, 1.8, 1.33333, 1.66667, 2.66667, 3.33333)
    assert any(f"τ_t={value:g}" in problem.place for value in local)
    assert "outside the recorded grid" in problem.what


def test_broad_values_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        refining(4.0, 1.0)


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["gredy"], ["--strategy: 'gredy' is not a strategy (did you mean greedy?)"]),
        (["bayes"], ["available: exhaustive, greedy, random"]),
        (["random"], ["--trials: random needs it"]),
        (
            ["random", "--tuned", "alpha"],
            ["--trials: random", "--tuned: random has no such option"],
        ),
        (
            ["greedy", "--trials", "3", "--seed", "1", "--seeds", "2"],
            ["--trials: greedy has no", "--seed: greedy has no", "--seeds: greedy has no"],
        ),
        (["exhaustive", "--refine", "temperature=1,4"], ["--refine: exhaustive has no"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    refused(kdsearch("replay", tmp_path, "--strategy", *options), *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study with two grids, whose test scores are 1 minus those on validation."""
    return searched(tmp_path_factory.mktemp("replay") / "run")


def searched(folder: Path, **sections: Any) -> Path:
    """A study is searched to its end; `sections` take the place of its own."""
    kd = {
        "strategy": "exhaustive",
        "objective": ["ce", "mse"],
        "teacher": ["t_hs", "t_ll"],
        "temperature": [1, 2, 4],
        "alpha": [1, 0.5, 0.25],
    }
    study = {
        "seeds": [1, 2],
        "searches": {"kd": kd},
        "erm": True,
        "learning_rate": [1e-5, 2e-5],
        **sections,
    }
    content = a_study(**study)
    del content["search"]
    resolved = resolved_of(content)
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    search_through(resolved, ledger, World(seed=2))
    return folder


def told(folder: Path, *options: str) -> dict[str, Any]:
    """What the command tells other programs."""
    result = kdsearch("replay", folder, "--json", *options)
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_greedy_in_a_folder_is_greedy_on_its_outcomes(folder: Path) -> None:
    found = told(folder, "--strategy", "greedy")
    kd, erm = found["cases"]
    assert (kd["case"], erm["case"]) == ("sentences/big/small/kd", "sentences/small/erm")
    _, agenda = open_folder(folder)
    view = agenda.views()[0]
    best, asked = walk(
        regrouped(view.space, ("temperature", "learning_rate")), agenda.scores(view).__getitem__
    )
    [greedy] = kd["replays"]
    assert greedy["choice"] == str(best.winner.best)
    assert greedy["validation"] == best.winner.score
    assert greedy["trainings"] == 2 * len(asked)  # two seeds
    assert sum(greedy["trials"]) == len(asked)
    assert kd["grid"]["trainings"] == 2 * 48
    assert greedy["regret"]["validation"] > 0
    assert greedy["regret"]["test"] == pytest.approx(-greedy["regret"]["validation"])


def test_an_exhaustive_replay_chooses_as_the_study_did_at_the_cost_of_its_grid(
    folder: Path,
) -> None:
    _, agenda = open_folder(folder)
    for case, view in zip(
        told(folder, "--strategy", "exhaustive")["cases"], agenda.views(), strict=True
    ):
        [found] = case["replays"]
        assert view.progress is not None
        assert found["choice"] == case["grid"]["choice"] == str(view.progress.winner.best)
        students = {t.key for each in agenda.students(view.case).values() for t in each}
        assert found["trainings"] == case["grid"]["trainings"] == len(students)
        assert found["regret"] == {"validation": 0, "test": 0}


def test_draws_of_several_seeds_have_a_mean_regret_and_its_spread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    options = ["--strategy", "random", "--trials", "3", "--cases", "kd"]
    [case] = told(folder, *options, "--seed", "5", "--seeds", "4")["cases"]
    assert [each["seed"] for each in case["replays"]] == [5, 6, 7, 8]
    [alone] = told(folder, *options, "--seed", "7")["cases"]
    assert alone["replays"] == [case["replays"][2]]
    for split in ("validation", "test"):
        regrets = [each["regret"][split] for each in case["replays"]]
        assert case["regret"][split] == {"mean": fmean(regrets), "spread": stdev(regrets), "of": 4}
    text = kdsearch("replay", folder, *options, "--seed", "5", "--seeds", "4").out
    regret = case["regret"]["validation"]
    assert f"{regret['mean']:.4f} ± {regret['spread']:.4f}" in text
    assert "6 of 96" in text


def test_where_more_trials_are_asked_for_than_a_grid_has_it_is_said_that_all_are_drawn(
    folder: Path,
) -> None:
    lines = kdsearch("replay", folder, "--strategy", "random", "--trials", "30").out.splitlines()
    drawn = [line for line in lines if "are drawn" in line]
    assert drawn == ["sentences/small/erm: all 2 trials of its grid are drawn"]


def test_an_axis_that_was_just_refused_is_not_offered(folder: Path) -> None:
    options = ("--strategy", "greedy", "--tuned", "foo,alpha", "--refine", "temperature=1,4")
    problems = kdsearch("replay", folder, *options).err
    assert "--refine: 'temperature' is not an axis that is tuned (available: alpha)" in problems


def test_a_folder_shows_a_row_for_each_test_case(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    [kd, erm] = told(folder, "--strategy", "greedy")["cases"]
    lines = kdsearch("replay", folder, "--strategy", "greedy").out.splitlines()
    for case in (kd, erm):
        [row] = [line for line in lines if case["case"] in line]
        [found] = case["replays"]
        for shown in (
            found["choice"],
            f"{found['trainings']} of {case['grid']['trainings']}",
            f"{found['regret']['validation']:.4f}",
            f"{found['regret']['test']:.4f}",
        ):
            assert shown in row


def test_the_axes_to_tune_and_to_refine_are_those_of_the_study(folder: Path) -> None:
    greedy = ["replay", folder, "--strategy", "greedy"]
    [kd] = told(folder, "--strategy", "greedy", "--tuned", "", "--cases", "kd")["cases"]
    assert len(kd["replays"][0]["trials"]) == 5  # one axis after the other
    refused(
        kdsearch(*greedy, "--tuned", "learning_rat,distance"),
        "--tuned: 'learning_rat' is not an axis that can be tuned (did you mean learning_rate?)",
        "--tuned: 'distance' is not an axis that can be tuned",
    )
    refused(
        kdsearch(*greedy, "--refine", "temprature"),
        "--refine: 'temprature' is not an axis that is tuned (did you mean temperature?)",
        "--refine: 'temprature' is not AXIS=VALUE,...",
    )
    refused(
        kdsearch(*greedy, "--refine", "temperature=0,2,nan"),
        "--refine: 0, nan is not among the recorded values of temperature (available: 1, 2, 4)",
    )
    refused(kdsearch(*greedy, "--refine", "temperature=4,1"), "--refine", "ascend")
    refused(
        kdsearch(*greedy, "--refine", "temperature=1,4", "--cases", "kd"),
        "lr=1e-05",
        "outside the recorded grid",
    )


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """Of a study with a whole grid, one that lacks a trial, and a search that has none."""
    kd = {"objective": ["ce"], "temperature": [1, 2], "strategy": "exhaustive"}
    few = {"objective": ["ce"], "temperature": [1, 2], "strategy": "random", "trials": 1}
    folder = searched(tmp_path / "run", searches={"kd": kd, "few": few})
    ledger, agenda = open_folder(folder)
    [erm] = [view for view in agenda.views() if view.case.search == "erm"]
    for training in next(iter(agenda.students(erm.case).values())):
        ledger.path(layout.outcome(training.key)).unlink()
    return folder


LACKING = {
    "sentences/big/small/few": "its search is random: not all of its grid is trained",
    "sentences/small/erm": "is not complete: it lacks the results of 1 trial",
}


def test_cases_without_their_whole_grid_are_left_out_and_why_is_said(partly: Path) -> None:
    found = told(partly, "--strategy", "greedy")
    assert [each["case"] for each in found["cases"]] == ["sentences/big/small/kd"]
    assert {each["case"]: each["why"] for each in found["left_out"]} == LACKING
    lines = kdsearch("replay", partly, "--strategy", "greedy").out.splitlines()
    for case, why in LACKING.items():
        assert f"left out: {case}: {why}" in lines


def test_cases_are_named_whole_or_in_part_and_several_may_be(partly: Path, folder: Path) -> None:
    def cases(run: Path, *names: str) -> list[str]:
        options = [part for name in names for part in ("--cases", name)]
        return [case["case"] for case in told(run, "--strategy", "greedy", *options)["cases"]]

    kd, erm = "sentences/big/small/kd", "sentences/small/erm"
    assert cases(folder, "/kd", "erm") == cases(folder, erm, kd) == [kd, erm]
    assert cases(folder, erm) == [erm]
    greedy = ["replay", partly, "--strategy", "greedy"]
    refused(
        kdsearch(*greedy, "--cases", "few", "--cases", "erm"),
        *(f"{case}: {why}" for case, why in LACKING.items()),
    )
    refused(
        kdsearch(*greedy, "--cases", "nothing", "--cases", "kd", "--cases", "nobody"),
        "--cases: no test case matches nothing (available: sentences/big/small/kd",
        "--cases: no test case matches nobody",
    )


def test_a_case_whose_teacher_lacks_results_is_named(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run")
    ledger, agenda = open_folder(folder)
    teacher = agenda.views()[0].teacher_training
    assert teacher is not None
    ledger.path(layout.outcome(teacher.key)).unlink()
    refused(
        kdsearch("replay", folder, "--strategy", "exhaustive", "--cases", "kd"),
        "sentences/big/small/kd: is not complete: it lacks its teacher's results",
    )
