from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import portion
from fakes import paper_space, uniform, walk
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsearch
from kdsearch.search import (
    LAZY_VALUES,
    TIED,
    Candidate,
    Ce,
    Checkpoint,
    Choice,
    Decision,
    Exhaustive,
    Greedy,
    Inner,
    Mse,
    Progress,
    Random,
    Remembered,
    Reward,
    Space,
    Strategy,
    Trial,
    ValidationScore,
    lazy_choice,
    local_temperatures,
    middle,
    rewards,
    stable_choice,
    stable_values,
    tune,
)
from kdsearch.study.search import Search, Temperature

HS, LL = Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS
CE, MSE = "ce", "mse"
ORDER = ("teacher", "student_temperature", "distance")
PAPER = paper_space()
START = Choice.of(distance=CE, teacher=HS, student_temperature=TIED, alpha=1.0)


def small(**changes: object) -> Space:
    """The paper's grid, but two broad temperatures, one learning rate and two values of α."""
    values = {"temperature": (1.0, 4.0), "learning_rate": (1e-5,), "alpha": (1.0, 0.5), **changes}
    return paper_space(**values)


def at(choice: Choice, temperature: float) -> Trial:
    return PAPER.trial(choice, {"temperature": temperature, "learning_rate": 1e-5})


def tune_fully(choice: Choice, space: Space, score: object) -> Candidate:
    scores: dict[Trial, ValidationScore | None] = {}
    while not isinstance(found := tune(choice, space, scores), Candidate):
        for trial in found:
            scores[trial] = score(trial)  # type: ignore[operator]
    return found


def made_up(seed: int, levels: int = 1000) -> object:
    return lambda trial: round(uniform(seed, trial) * levels) / levels


# -- trials ------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", PAPER.values("temperature"))
def test_the_papers_grid_has_440_trials_at_one_learning_rate_whatever_broad_temperature_is_best(
    best: float,
) -> None:
    every = {t for choice in PAPER.choices() for t in PAPER.trials(choice, best)}
    points = {(trial.objective, trial.checkpoint) for trial in every}
    counts = Counter(type(objective) for objective, _ in points)
    assert counts == {Ce: 420, Mse: 20}


def test_under_mse_choices_that_differ_in_the_student_temperature_are_one() -> None:
    mse = [choice for choice in PAPER.choices() if choice.get("distance") == MSE]
    assert {choice.get("student_temperature") for choice in mse} == {None}
    assert len(mse) == 2 * 10


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
def test_ce_has_two_positive_temperatures(bad: float) -> None:
    for temperature, own in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            Ce(temperature=temperature, student_temperature=own, alpha=1.0)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_alpha_lies_above_0_and_at_most_at_1(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Mse(alpha=alpha)
    with pytest.raises(ValueError, match="alpha"):
        Ce(temperature=1.0, student_temperature=1.0, alpha=alpha)


def test_tied_and_1_are_one_configuration_at_temperature_1_and_two_elsewhere() -> None:
    tied, one = START, START.but(student_temperature=1.0)
    assert at(tied, 1.0) == at(one, 1.0)
    assert at(tied, 2.0) != at(one, 2.0)
    assert at(tied, 2.0).objective == Ce(temperature=2.0, student_temperature=2.0, alpha=1.0)
    assert at(one, 2.0).objective == Ce(temperature=2.0, student_temperature=1.0, alpha=1.0)


def test_temperatures_have_six_significant_digits() -> None:
    third = Ce(temperature=1.33333, student_temperature=1.33333, alpha=1.0)
    assert Ce(temperature=4 / 3, student_temperature=TIED, alpha=1.0) == third
    assert at(START, 4 / 3).objective == third
    assert at(START, 123456.7).get("temperature") == 123457.0


def test_broad_temperatures_of_more_digits_are_searched_like_any_other() -> None:
    search = Search(temperature=Temperature(broad=(1.0, 10 ** (1 / 3), 10 ** (2 / 3))))
    space = small(temperature=search.space().values("temperature"))
    tuned = tune_fully(START, space, lambda t: -abs(t.get("temperature") - 2.15443))
    assert tuned.best is not None
    assert tuned.best.get("temperature") == 2.15443
    assert len(tuned.trials) == 7


# -- temperatures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broad", "best", "local"),
    [
        ((1, 2, 4, 8, 16, 32, 64), 8, (5.33333, 6.66667, 10.6667, 13.3333)),
        ((1, 2, 4, 8, 16, 32, 64), 1, (1.2, 1.4, 1.6, 1.8)),  # the first: all four above
        ((1, 2, 4, 8, 16, 32, 64), 64, (42.6667, 53.3333, 85.3333, 106.667)),  # up to 128
        ((1, 4), 1, (1.6, 2.2, 2.8, 3.4)),
        ((1, 4), 4, (2, 3, 8, 12)),  # up to 16
        ((2, 5, 8), 5, (3, 4, 6, 7)),
    ],
)
def test_local_temperatures_worked_by_hand(
    broad: tuple[float, ...], best: float, local: tuple[float, ...]
) -> None:
    assert local_temperatures(broad, best) == local


@given(
    first=st.floats(0.01, 10),
    ratio=st.floats(1.1, 10),
    count=st.integers(2, 8),
    position=st.integers(0, 7),
)
def test_four_local_temperatures_lie_between_the_neighbours_and_are_none_of_the_broad(
    first: float, ratio: float, count: int, position: int
) -> None:
    broad = tuple(float(f"{first * ratio**i:.6g}") for i in range(count))
    best = broad[position % count]
    found = local_temperatures(broad, best)
    index = broad.index(best)
    low = broad[max(index - 1, 0)]
    high = broad[index + 1] if index + 1 < count else best * broad[-1] / broad[-2]
    assert len(set(found)) == 4
    assert list(found) == sorted(found)
    assert all(low < value < high * (1 + 1e-5) for value in found)
    assert not set(found) & set(broad)
    below = [value for value in found if value < best]
    assert len(below) == (2 if index else 0)


@pytest.mark.parametrize(
    ("broad", "value"), [((1, 2, 4, 8, 16, 32, 64), 8), ((1, 4), 1), ((1, 2, 3, 4), 2)]
)
def test_the_middle_of_the_broad_values(broad: tuple[float, ...], value: float) -> None:
    assert middle(broad) == value


# -- tuning a choice ---------------------------------------------------------------------------


@given(st.integers())
def test_a_ce_configuration_takes_77_trainings_jointly_17_by_coordinates_and_mse_7(
    seed: int,
) -> None:
    mse = Choice.of(distance=MSE, teacher=HS, alpha=1.0)
    for inner, count in ((Inner.JOINT, 77), (Inner.COORDINATE, 17)):
        space = paper_space(inner=inner)
        for choice, expected in ((START, count), (mse, 7)):
            tuned = tune_fully(choice, space, made_up(seed))
            assert len(tuned.trials) == len(set(tuned.trials)) == expected


def test_coordinate_tuning_fixes_the_rate_at_the_middle_temperature() -> None:
    def score(trial: Trial) -> float:
        if trial.get("temperature") == 8:
            return trial.get("learning_rate") * 1e4  # the highest rate is best there
        return 10 - trial.get("learning_rate") * 1e4  # elsewhere the lowest is, but never asked for

    tuned = tune_fully(START, paper_space(inner=Inner.COORDINATE), score)
    assert tuned.best is not None
    away = [t for t in tuned.trials if t.get("temperature") != 8]
    assert {t.get("learning_rate") for t in away} == {PAPER.values("learning_rate")[-1]}


def test_under_joint_tuning_the_neighbourhood_is_that_of_the_best_pair() -> None:
    def score(trial: Trial) -> float:
        pair = (trial.get("temperature"), trial.get("learning_rate"))
        return {(2.0, 3e-5): 0.9, (32.0, 1e-5): 0.8}.get(pair, 0.1)  # type: ignore[arg-type]

    rates = (1e-5, 2e-5, 3e-5)
    tuned = tune_fully(START, paper_space(learning_rate=rates), score)
    local = {t.get("temperature") for t in tuned.trials} - set(PAPER.values("temperature"))
    assert local == {1.33333, 1.66667, 2.66667, 3.33333}


@pytest.mark.parametrize("inner", Inner)
def test_where_all_scores_are_equal_the_first_trial_is_kept(inner: Inner) -> None:
    tuned = tune_fully(START, paper_space(inner=inner), lambda _: 0.5)
    assert tuned.best is not None
    first = 1.0 if inner is Inner.JOINT else 8.0
    assert tuned.best.get("temperature") == first
    assert tuned.best.get("learning_rate") == 1e-5


def test_scores_below_zero_are_scores_and_zero_is_one() -> None:
    tuned = tune_fully(START, small(), lambda t: -(t.get("temperature") or 0))
    assert tuned.best is not None
    assert tuned.best.get("temperature") == 1.0
    zero = tune_fully(START, small(), lambda t: 0.0 if t.get("temperature") == 4 else None)
    assert zero.best is not None
    assert zero.score == 0.0


@pytest.mark.parametrize(("inner", "count"), [(Inner.JOINT, 49), (Inner.COORDINATE, 7)])
def test_a_round_without_any_score_ends_the_tuning(inner: Inner, count: int) -> None:
    tuned = tune_fully(START, paper_space(inner=inner), lambda _: None)
    assert tuned.best is None
    assert tuned.score is None
    assert len(tuned.trials) == count


def test_a_failed_trial_loses_to_every_scored_one() -> None:
    tuned = tune_fully(START, small(), lambda t: -5.0 if t.get("temperature") == 3.0 else None)
    assert tuned.best is None  # 3 is a local value: no broad one has a score
    tuned = tune_fully(START, small(), lambda t: -5.0 if t.get("temperature") == 4.0 else None)
    assert tuned.score == -5.0


def test_a_given_temperature_is_kept_and_the_rate_alone_is_tuned() -> None:
    wanted = tune(START, PAPER, {}, fixed=LAZY_VALUES)
    assert not isinstance(wanted, Candidate)
    assert {t.get("temperature") for t in wanted} == {1.0}
    assert [t.get("learning_rate") for t in wanted] == list(PAPER.values("learning_rate"))
    scores = dict.fromkeys(wanted, ValidationScore(1.0))
    tuned = tune(START, PAPER, scores, fixed=LAZY_VALUES)
    assert isinstance(tuned, Candidate)


# -- the traversal -----------------------------------------------------------------------------


def of(traversal: Progress, axis: str) -> Decision:
    decision = traversal.decision(axis)
    assert decision is not None
    return decision


def scored_by(**scores: float | None) -> object:
    """A score by the choice's values, the first name that is one of them; else 0.5."""

    def score(trial: Trial) -> float | None:
        values = trial.objective.parameters
        alpha = f"a{values['alpha']:g}".replace(".", "_")
        names = [trial.objective.kind, str(trial.checkpoint), alpha]
        if "temperature" in values:
            tied = values["student_temperature"] == values["temperature"]
            names.append("tied" if tied else "one")
        return next((scores[name] for name in names if name in scores), 0.5)

    return score


def test_the_traversal_visits_four_of_the_eight_choices_and_then_each_alpha() -> None:
    traversal, _ = walk(small(), made_up(3))  # type: ignore[arg-type]
    visited = [c.choice for c in traversal.candidates()]
    assert len([choice for choice in visited if choice.get("alpha") == 1.0]) == 4
    assert len(visited) == 5
    order = [decision.axis for decision in traversal.decisions]
    assert order == ["teacher", "student_temperature", "distance", "alpha"]


@given(seed=st.integers(), order=st.permutations(ORDER))
def test_alpha_is_always_last_and_each_stage_starts_at_what_is_held(
    seed: int, order: list[str]
) -> None:
    traversal, _ = walk(small(order=tuple(order)), made_up(seed, 3))  # type: ignore[arg-type]
    assert traversal.decisions[-1].axis == "alpha"
    assert [d.axis for d in traversal.decisions if d.axis in order] == [
        p for p in order if traversal.decision(p)
    ]
    for before, after in zip(traversal.decisions, traversal.decisions[1:], strict=False):
        assert after.candidates[0].choice == before.winner.choice


@given(st.integers())
def test_no_winner_scores_below_its_rivals(seed: int) -> None:
    traversal, _ = walk(small(), made_up(seed, 4))  # type: ignore[arg-type]
    for decision in traversal.decisions:
        scores = [c.score for c in decision.candidates]
        assert decision.winner.score == max(scores)  # type: ignore[type-var]
        assert scores.index(decision.winner.score) == decision.candidates.index(decision.winner)


def test_ties_keep_the_value_held() -> None:
    traversal, _ = walk(small(), lambda _: 0.5)
    assert traversal.winner.choice == START


def test_a_higher_score_takes_over() -> None:
    traversal, _ = walk(small(), scored_by(t_ll=0.6))  # type: ignore[arg-type]
    assert of(traversal, "teacher").winner.value == LL
    assert {c.choice.get("teacher") for c in of(traversal, "alpha").candidates} == {LL}


def test_a_value_without_any_score_loses_to_a_scored_one_also_from_the_held_side() -> None:
    traversal, _ = walk(small(), scored_by(t_hs=None, t_ll=-3.0))  # type: ignore[arg-type]
    assert of(traversal, "teacher").winner.value == LL
    traversal, _ = walk(small(), scored_by(t_ll=None, t_hs=-3.0))  # type: ignore[arg-type]
    assert of(traversal, "teacher").winner.value == HS


def test_where_everything_failed_the_held_values_are_kept_and_the_search_ends() -> None:
    traversal, _ = walk(small(), lambda _: None)
    assert traversal.finished
    assert traversal.winner.choice == START
    assert traversal.winner.score is None


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        ({"teacher": (Checkpoint.GIVEN,)}, "teacher"),
        ({"student_temperature": (1.0,)}, "student_temperature"),
        ({"distance": (MSE,)}, "distance"),
    ],
)
def test_a_parameter_of_one_value_has_no_stage(change: dict[str, object], skipped: str) -> None:
    traversal, _ = walk(small(**change), made_up(1))  # type: ignore[arg-type]
    assert traversal.decision(skipped) is None
    assert traversal.finished


def test_alpha_of_one_value_is_evaluated_all_the_same() -> None:
    space = small(teacher=(HS,), student_temperature=(TIED,), distance=(CE,), alpha=(1.0,))
    traversal, scores = walk(space, made_up(1))  # type: ignore[arg-type]
    assert [d.axis for d in traversal.decisions] == ["alpha"]
    assert len(scores) == 6


@pytest.mark.parametrize(("mse", "stage"), [(0.9, False), (0.1, True)])
def test_after_mse_won_there_is_no_stage_of_the_student_temperature(
    mse: float, stage: bool
) -> None:
    order = ("distance", "teacher", "student_temperature")
    traversal, _ = walk(small(order=order), scored_by(mse=mse))  # type: ignore[arg-type]
    assert (traversal.decision("student_temperature") is not None) == stage


def test_a_student_temperature_held_from_before_counts_again_when_ce_comes_back() -> None:
    order = ("student_temperature", "distance", "teacher")
    space = small(order=order, distance=(MSE, CE), student_temperature=(1.0, TIED))
    traversal, _ = walk(space, scored_by(ce=0.9))  # type: ignore[arg-type]
    assert traversal.decision("student_temperature") is None  # MSE was held
    assert traversal.winner.choice.get("student_temperature") == 1.0


def test_a_traversal_asks_for_every_candidate_of_a_stage_at_once() -> None:
    traversal = Greedy()(small(), {})
    assert {t.checkpoint for t in traversal.wanted} == {HS, LL}
    assert len(traversal.wanted) == 4


@given(seed=st.integers(), cut=st.integers(0, 40))
def test_a_traversal_with_some_scores_has_made_the_first_of_its_decisions(
    seed: int, cut: int
) -> None:
    space = small(learning_rate=(1e-5, 2e-5))
    whole, scores = walk(space, made_up(seed))  # type: ignore[arg-type]
    partial = Greedy()(space, dict(list(scores.items())[:cut]))
    assert partial.decisions == whole.decisions[: len(partial.decisions)]
    assert partial.finished == (cut >= len(scores))


# -- rewards, stable and lazy ------------------------------------------------------------------


def traversals(*scores: Mapping[str, float | None]) -> list[Progress]:
    return [walk(small(), scored_by(**by_name))[0] for by_name in scores]  # type: ignore[arg-type]


def reward(found: tuple[Reward, ...], axis: str) -> Reward:
    [one] = [r for r in found if r.axis == axis]
    return one


def test_a_reward_is_the_cases_won_less_the_cases_lost() -> None:
    found = traversals({"t_ll": 0.9}, {"t_ll": 0.8}, {"t_ll": 0.7}, {"t_ll": 0.1}, {})
    teacher = reward(rewards(found, ORDER), "teacher")
    assert (teacher.default, teacher.alternative) == (HS, LL)
    assert (teacher.better, teacher.worse, teacher.equal, teacher.unscored) == (3, 1, 1, 0)
    assert teacher.reward == 2
    assert stable_values([teacher]) == {"teacher": LL}


def test_a_reward_of_0_keeps_the_default() -> None:
    found = rewards(traversals({"mse": 0.9}, {"mse": 0.1}), ORDER)
    assert reward(found, "distance").reward == 0
    assert stable_values(found) == {}


def test_comparisons_without_a_score_on_a_side_are_left_out_and_counted() -> None:
    found = rewards(traversals({"t_ll": None}, {"t_hs": None}, {"t_ll": 0.9}), ORDER)
    teacher = reward(found, "teacher")
    assert (teacher.better, teacher.worse, teacher.equal, teacher.unscored) == (1, 0, 0, 2)


def test_a_comparison_that_does_not_exist_has_no_reward() -> None:
    found = rewards([walk(small(distance=(CE,)), made_up(1))[0]], ORDER)  # type: ignore[arg-type]
    assert "distance" not in {r.axis for r in found}
    assert "alpha" not in {r.axis for r in found}


def test_of_several_alternatives_the_one_of_the_highest_reward_is_stable() -> None:
    def case(one: float, two: float) -> Progress:
        space = small(student_temperature=(TIED, 1.0, 2.0), distance=(CE,), teacher=(HS,))

        def score(trial: Trial) -> float:
            objective = trial.objective
            assert isinstance(objective, Ce)
            if objective.student_temperature == objective.temperature:
                return 0.5
            return {1.0: one, 2.0: two}.get(objective.student_temperature, 0.5)

        return walk(space, score)[0]

    found = rewards([case(0.9, 0.9), case(0.1, 0.9), case(0.9, 0.9)], ORDER)
    assert [(r.alternative, r.reward) for r in found] == [(1.0, 2), (2.0, 3)]
    assert stable_values(found) == {"student_temperature": 2.0}


def test_the_stable_choice_takes_the_default_where_the_space_lacks_the_value() -> None:
    values = {"teacher": LL, "student_temperature": 1.0}
    space = paper_space(teacher=(Checkpoint.GIVEN,))
    assert stable_choice(PAPER, values) == Choice.of(
        distance=CE, teacher=LL, student_temperature=1.0, alpha=1.0
    )
    assert stable_choice(space, values) == Choice.of(
        distance=CE, teacher=Checkpoint.GIVEN, student_temperature=1.0, alpha=1.0
    )


def test_the_stable_choice_under_mse_has_no_student_temperature() -> None:
    values = {"distance": MSE, "student_temperature": 1.0}
    assert stable_choice(PAPER, values).get("student_temperature") is None


def test_the_lazy_choice_is_the_same_for_the_same_seed() -> None:
    assert [lazy_choice(PAPER, f"{i}") for i in range(50)] == [
        lazy_choice(PAPER, f"{i}") for i in range(50)
    ]


def test_the_lazy_choice_draws_each_value_about_as_often() -> None:
    drawn = [lazy_choice(PAPER, f"0/case {i}") for i in range(4000)]
    assert {choice.get("alpha") for choice in drawn} == {1.0}
    ce = [choice for choice in drawn if choice.get("distance") == CE]
    for share in (
        sum(c.get("teacher") is HS for c in drawn) / 4000,
        len(ce) / 4000,
        sum(c.get("student_temperature") == TIED for c in ce) / len(ce),
    ):
        assert abs(share - 0.5) < 0.05  # more than four standard deviations


# -- types -------------------------------------------------------------------------------------

SNIPPET = """
from kdsearch.agenda import Outcome, TestScore
from kdsearch.search import Greedy, Space, Trial, ValidationScore


def search(space: Space, trial: Trial, outcome: Outcome) -> None:
    score = outcome.{field}
    scores: dict[Trial, {kind} | None] = {{trial: score}}
    Greedy()(space, scores)
"""


def test_the_type_checker_refuses_a_search_by_test_scores(tmp_path: Path) -> None:
    right, wrong = tmp_path / "by_validation.py", tmp_path / "by_test.py"
    right.write_text(SNIPPET.format(kind="ValidationScore", field="validation"))
    wrong.write_text(SNIPPET.format(kind="TestScore", field="test"))
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(right), str(wrong)],
        cwd=Path(kdsearch.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    [error] = [line for line in run.stdout.splitlines() if "error:" in line]
    assert f"{wrong.name}:9: " in error  # by name: its cache may remember another folder
    assert 'to "__call__" of "Greedy" has incompatible type' in error
    assert run.returncode == 1


# -- spaces ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": (1.0,)},
        {"temperature": (2.0, 1.0)},
        {"temperature": (1.0, 1.0)},
        {"teacher": ()},
        {"learning_rate": ()},
    ],
)
def test_a_space_that_cannot_be_searched_cannot_be_built(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="value"):
        paper_space(**change)


def test_a_random_walk_never_asks_for_a_trial_outside_of_the_grid() -> None:
    draw = random.Random(0)
    for _ in range(20):
        traversal, scores = walk(PAPER, lambda _: draw.random())
        assert traversal.finished
        inside = {
            trial
            for best in PAPER.values("temperature")
            for choice in PAPER.choices()
            for trial in PAPER.trials(choice, best)
        }
        assert scores.keys() <= inside


# -- other strategies --------------------------------------------------------------------------


def a_walk(draw: random.Random) -> tuple[Space, Strategy]:
    """A small space of any shape, and a strategy that walks it."""

    def some(values: list[Any], least: int = 1) -> tuple[Any, ...]:
        return tuple(draw.sample(values, draw.randint(least, len(values))))

    space = paper_space(
        distance=some(["ce", "mse"]),
        teacher=some([HS, LL]),
        student_temperature=some([TIED, 1.0, 2.0]),
        alpha=some([1.0, 0.5, 0.1]),
        temperature=tuple(sorted(some([0.5, 1.0, 2.0, 4.0], least=2))),
        learning_rate=some([1e-5, 2e-5]),
        inner=draw.choice([*Inner]),
        order=tuple(draw.sample(ORDER, 3)),
    )
    strategies = [
        Greedy(),
        Exhaustive(),
        Random(trials=draw.randint(1, 30), seed=draw.randint(0, 9)),
    ]
    return space, draw.choice(strategies)


class Arriving(Remembered):
    """Scores that come one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Trial, ValidationScore | None] = {}

    def __getitem__(self, trial: Trial) -> ValidationScore | None:
        return self.known[trial]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


@settings(max_examples=portion(5000, 60))
@given(seed=st.integers(0, 2**32 - 1))
def test_a_walk_that_remembers_the_ones_before_it_comes_to_what_a_walk_anew_does(seed: int) -> None:
    draw = random.Random(seed)
    space, strategy = a_walk(draw)
    levels, failing, scores = draw.choice([1, 2, 1000]), draw.choice([0, 0, 0.3, 0.9]), Arriving()
    before = strategy(space, scores)
    while before.wanted:
        trial = draw.choice([*before.wanted])
        failed = uniform(seed, trial, "fails") < failing
        score = ValidationScore(round(uniform(seed, trial) * levels))
        scores.known[trial] = None if failed else score
        anew = strategy(space, dict(scores))
        if draw.random() < 0.7:  # not every score is looked at by itself
            remembered = strategy(space, scores)
            assert remembered == anew
            assert [*remembered.wanted] == [*anew.wanted]
        if all(trials - scores.keys() for trials in before.open_rounds):
            wanted = {t: left for t, left in before.wanted.items() if t != trial}
            assert replace(before, wanted=wanted, open_rounds=anew.open_rounds) == anew
        before = anew
    assert strategy(space, scores) == before


def test_an_exhaustive_search_chooses_the_best_of_all_choices() -> None:
    space, score = small(), made_up(7)
    scores: dict[Trial, ValidationScore | None] = {}
    while not (progress := Exhaustive()(space, scores)).finished:
        scores |= {trial: score(trial) for trial in progress.wanted}  # type: ignore[operator]
    [decision] = progress.decisions
    assert len(decision.candidates) == len(set(space.choices())) == 2 * 2 * 2 + 2 * 2
    assert progress.winner.score == max(score for score in scores.values() if score)


@given(trials=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_random_search_takes_as_many_trials_as_it_may_and_the_best_of_them(
    trials: int, seed: int
) -> None:
    space, score = small(), made_up(seed)
    search = Random(trials=trials, seed=seed)
    wanted = search(space, {}).wanted
    grid = {trial for choice in space.choices() for trial in space.trials(choice)}
    assert wanted.keys() <= grid
    scores = {trial: score(trial) for trial in wanted}  # type: ignore[operator]
    progress = search(space, scores)
    assert progress.finished
    assert progress.winner.score == max(scores.values())
