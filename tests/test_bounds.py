from __future__ import annotations

import random
from itertools import product

import pytest
from fakes import paper_space, uniform, walk
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.search import (
    DIFFER,
    LAZY_VALUES,
    NOTHING,
    TIED,
    Bounds,
    Candidate,
    Checkpoint,
    Coincidence,
    Inner,
    Space,
    Trial,
    ValidationScore,
    coincidences,
    count_bounds,
    lazy_choice,
    stable_choice,
    tune,
)

HS, LL = Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS
FLIPS = ("teacher", "student_temperature", "distance")
seeds = st.integers(0, 2**32 - 1)


def random_space(draw: random.Random, checkpoints: tuple[Checkpoint, ...] = (HS, LL)) -> Space:
    """A small grid of any shape."""

    def some(values: list[object]) -> tuple[object, ...]:
        return tuple(draw.sample(values, draw.randint(1, len(values))))

    return paper_space(
        distance=some(["ce", "mse"]),
        teacher=some([*checkpoints]),
        student_temperature=some([TIED, 1.0, 3.0]),
        alpha=some([1.0, 0.5, 0.1]),
        temperature=tuple(sorted(draw.sample([0.5, 1.0, 3.0, 5.0], draw.randint(2, 3)))),
        learning_rate=some([1e-5, 2e-5]),
        inner=draw.choice(list(Inner)),
        order=tuple(draw.sample(FLIPS, 3)),
    )


def named(trial: Trial, coincide: Coincidence) -> str:
    """The trial's name, where some of the teacher's checkpoints are one."""
    text = str(trial)
    for name, one in coincide:
        text = text.replace(name, one)
    return text


def score_by(
    seed: int, levels: int, failing: float = 0.0, coincide: Coincidence = DIFFER
) -> object:
    """Made-up scores; those of checkpoints that `coincide` are equal."""

    def score(trial: Trial) -> float | None:
        name = named(trial, coincide)
        if uniform(seed, "fails", name) < failing:
            return None
        return round(uniform(seed, name) * levels) / levels

    return score


def second_phase(space: Space, seed: int, score: object, known: dict[Trial, object]) -> set[Trial]:
    """The trials of a lazy choice and of some choice as the stable one."""
    draw = random.Random(seed)
    values = {p: draw.choice(space.values(p)) for p in FLIPS}
    scores: dict[Trial, ValidationScore | None] = dict(known)  # type: ignore[arg-type]
    for choice, fixed in (
        (stable_choice(space, values), NOTHING),
        (lazy_choice(space, "seed"), LAZY_VALUES),
    ):
        while not isinstance(found := tune(choice, space, scores, fixed=fixed), Candidate):
            for trial in found:
                scores[trial] = score(trial)  # type: ignore[operator]
    return set(scores)


# With the paper's grid, by hand. Joint: a CE choice takes (7 + 4)·7 = 77 trainings; tied and 1
# share the 7 at τ_t = 1; MSE takes 7. Two teachers 2·77, τ_s one more less what it shares 70,
# MSE 7, and nine more values of α at 7 each if MSE won or 77 each if CE did.
# Coordinate: 7 rates, then 6 broad and 4 local temperatures: 17. Tied and 1 share the one at
# τ_t = 1 if both tune to the same rate.
JOINT_START = 2 * 77 + 70 + 7
COORDINATE_START = 2 * 17 + 17 + 7


@pytest.mark.parametrize(
    ("inner", "fewest", "most"),
    [
        (Inner.JOINT, JOINT_START + 9 * 7, JOINT_START + 9 * 77),
        (Inner.COORDINATE, COORDINATE_START - 1 + 9 * 7, COORDINATE_START + 9 * 17),
    ],
)
def test_the_papers_grid_takes_as_many_students_as_counted_by_hand(
    inner: Inner, fewest: int, most: int
) -> None:
    assert count_bounds(paper_space(inner=inner)) == Bounds(fewest=fewest, most=most)
    by_hand = {Inner.JOINT: (294, 924), Inner.COORDINATE: (120, 211)}
    assert (fewest, most) == by_hand[inner]


def test_what_is_decided_narrows_the_bounds() -> None:
    mse = count_bounds(paper_space(), decided={"distance": "mse"})
    ce = count_bounds(paper_space(), decided={"distance": "ce"})
    assert mse == Bounds(fewest=294, most=294)
    assert ce == Bounds(fewest=924, most=924)


def test_coinciding_checkpoints_spare_the_second_teacher() -> None:
    # One teacher: 77 + 70 + 7, then 63 or 693 for the other values of α.
    assert count_bounds(paper_space(), coincide=coincidences((HS, LL))) == Bounds(
        fewest=154 + 63, most=924
    )


def test_the_second_phase_adds_what_no_traversal_visited() -> None:
    # At the most: the stable choice is τ_s = 1 with the teacher that lost, which shares the 7 at
    # τ_t = 1 with the tied one, and lazy is MSE with that teacher. A lazy CE choice has τ_t = 1,
    # where every teacher was tried.
    lazy = lazy_choice(paper_space(), "0")
    assert count_bounds(paper_space(), lazy=lazy).most == 924 + 70 + (
        7 if lazy.get("distance") == "mse" else 0
    )


@settings(max_examples=200)
@given(seed=seeds, levels=st.sampled_from([1, 2, 1000]))
def test_every_traversal_lies_within_the_bounds(seed: int, levels: int) -> None:
    space = random_space(random.Random(seed))
    bounds = count_bounds(space)
    traversal, scores = walk(space, score_by(seed, levels))  # type: ignore[arg-type]
    assert bounds.fewest <= len(scores) <= bounds.most
    decided = {d.axis: d.winner.value for d in traversal.decisions}
    known = count_bounds(space, decided=decided)
    assert bounds.fewest <= known.fewest <= len(scores) <= known.most <= bounds.most


@settings(max_examples=50)
@given(seed=seeds)
def test_failures_only_make_a_traversal_shorter(seed: int) -> None:
    space = random_space(random.Random(seed))
    _, scores = walk(space, score_by(seed, 10, failing=0.5))  # type: ignore[arg-type]
    assert len(scores) <= count_bounds(space).most


@settings(max_examples=100)
@given(seed=seeds, levels=st.sampled_from([2, 1000]))
def test_the_second_phase_lies_within_the_bounds_however_checkpoints_coincide(
    seed: int, levels: int
) -> None:
    draw = random.Random(seed)
    space = random_space(draw, (HS, LL, Checkpoint("epoch 1"), Checkpoint("epoch 2")))
    ways = coincidences(space.values("teacher"))
    coincide = draw.choice(ways)
    score = score_by(seed, levels, coincide=coincide)
    _, scores = walk(space, score)  # type: ignore[arg-type]
    every = second_phase(space, seed, score, dict(scores))
    count = len({named(trial, coincide) for trial in every})
    for known in (ways, (coincide,)):
        bounds = count_bounds(space, lazy=lazy_choice(space, "seed"), coincide=known)
        assert bounds.fewest <= count <= bounds.most


def test_an_epoch_is_no_other_and_may_be_that_of_the_highest_score_or_the_lowest_loss() -> None:
    first, third = Checkpoint("epoch 1"), Checkpoint("epoch 3")
    assert coincidences((first, third)) == (DIFFER,)
    assert set(coincidences((HS, LL, first))) == {
        DIFFER,
        frozenset({(HS, first)}),
        frozenset({(LL, first)}),
        frozenset({(LL, HS)}),
        frozenset({(HS, first), (LL, first)}),
    }


def small_spaces() -> list[Space]:
    return [
        paper_space(
            distance=("ce", "mse"),
            teacher=teachers,
            student_temperature=student_temperatures,
            alpha=(1.0, 0.5),
            temperature=(1.0, 3.0),
            learning_rate=(1e-5, 2e-5),
            inner=inner,
            order=order,
        )
        for inner, teachers, student_temperatures, order in product(
            Inner,
            [(HS,), (HS, LL)],
            [(TIED,), (TIED, 1.0)],
            [FLIPS, FLIPS[::-1]],
        )
    ]


@pytest.mark.parametrize("space", small_spaces())
def test_both_bounds_are_reached(space: Space) -> None:
    bounds = count_bounds(space)
    sizes = set()
    for seed in range(400):
        _, scores = walk(space, score_by(seed, 1000))  # type: ignore[arg-type]
        sizes.add(len(scores))
        if {bounds.fewest, bounds.most} <= sizes:
            break
    assert (min(sizes), max(sizes)) == (bounds.fewest, bounds.most)


def test_bounds_add_up() -> None:
    total = Bounds(fewest=1, most=3) + Bounds(fewest=2, most=5)
    assert total == Bounds(fewest=3, most=8)
