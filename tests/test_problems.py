"""Every problem of a study file in one round, and none that only follows from another."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
from fakes import a_study
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study import parse_study

GRAMMAR = {"train": 20, "validation": 10, "test": 10}
SOUND: dict[str, Any] = {
    "name": "sound",
    "seed": 0,
    "datasets": {
        "sentences": {"grammar": GRAMMAR},
        "mine": {"files": {"train": "a.csv"}, "text": "t", "label": "l", "labels": ["x", "y"]},
        "pairs": {"catalogue": "mrpc"},
    },
    "models": {
        "big": "/big",
        "small": {"config": {"model_type": "bert"}},
        "tiny": {"config": {"model_type": "bert"}},
        "spare": "/spare",
    },
    "teachers": {"tuned": {"model": "big"}, "ready": {"checkpoint": "big"}},
    "students": {"one": {"model": "small"}, "two": {"model": "tiny"}, "three": {"model": "big"}},
    "test_cases": [{"dataset": "sentences"}, {"dataset": ["mine", "pairs"]}],
    "searches": {
        "grid": {"strategy": "exhaustive", "objective": "ce", "temperature": [1, 4]},
        "walk": {"alpha": [1, 0.5]},
        "drawn": {"strategy": "random", "trials": 2, "objective": "ce", "temperature": [1, 4]},
    },
    "training": {"epochs": 3},
    "resources": {"cpus": 1},
}
MISTAKES: dict[str, Any] = {
    # What a section cannot say.
    "seed": "one",
    "tries": -1,
    "name": "a b",
    "erm": "yes",
    "keep_students": "some",
    "winner_seeds": 3,
    "learning_rate": ["fast"],
    "resorces": {},
    "resources.gpus": -1,
    "resources.students.cpus": "many",
    "datasets.sentences.grammar.train": 0,
    "models.spare": 5,
    "teachers.tuned.fine_tune.epochs": 0,
    "students.one.training.batch_size": 0,
    "students.two.modl": "tiny",
    "searches.walk.alpha": [0],
    "searches.drawn.trails": 3,
    # What does not go together in a section.
    "datasets.mine.text": None,
    "datasets.mine.group": ["t"],
    "models.small.revision": "main",
    "teachers.ready.layers": 3,
    "searches.grid.beta": 0.5,
    # What does not go together between sections.
    "datasets.pairs.catalogue": "mprc",
    "models.tiny.tokenizer": "none",
    "teachers.tuned.model": "bigg",
    "students.three.model": "bigger",
    "students.two.layers": 1,
    "test_cases.1.search": "gird",
    "training.sgd": {"momentum": 0.5},
    "students.three.training.stops": [1, 2],
    "searches.walk.momentum": [0.5, 0.9],
}


def with_mistakes(places: Iterable[str]) -> dict[str, Any]:
    """`SOUND` with the mistakes at these places."""
    raw = copy.deepcopy(SOUND)
    for place in places:
        *path, name = place.split(".")
        at: Any = raw
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[name] = MISTAKES[place]
    return raw


def problems(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_study(raw, place="x.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_study_without_mistakes_has_no_problems() -> None:
    assert parse_study(copy.deepcopy(SOUND), place="x.yaml").name == "sound"


@pytest.mark.parametrize("place", MISTAKES)
def test_a_mistake_is_one_problem_in_plain_words(place: str) -> None:
    [problem] = problems(with_mistakes([place]))
    assert problem.startswith("x.yaml: ")
    assert "nput should" not in problem
    assert "alue error" not in problem


@settings(max_examples=30)
@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=2))
def test_a_file_with_several_mistakes_has_the_problems_of_each(places: set[str]) -> None:
    expected = [problem for place in places for problem in problems(with_mistakes([place]))]
    assert sorted(problems(with_mistakes(places))) == sorted(expected)


def test_ten_values_that_cannot_be_and_three_names_of_nothing_are_thirteen_problems() -> None:
    raw = a_study(
        seed="one",
        tries=0,
        erm="yes",
        keep_students="some",
        resources={"gpus": -1, "hours": 0},
        training={"epochs": 1.5, "precision": "fp8"},
        search={"alpha": [0], "student_temperature": [-1]},
        datasets={"sentences": {"grammar": GRAMMAR}, "mprc": {}},
        teachers={"big": {"model": "bigg"}},
        students={"small": {"model": "smal"}},
    )
    found = problems(raw)
    assert len(found) == 13
    assert sum("did you mean" in problem for problem in found) == 3 + len(["some", "fp8"])


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        # Not: that the key is missing which was meant, or what needs it.
        (
            {"students": {"one": {"modle": "small"}}},
            ["students.one.modle: modle is not a key here (did you mean model?)"],
        ),
        (
            {"dataset": SOUND["datasets"], "datasets": None, "test_cases": [{"dataset": "mine"}]},
            ["dataset: dataset is not a key here (did you mean datasets?)"],
        ),
        # Not: in each search that has these rates.
        (
            {"learning_rate": [1e-5, 1e-5]},
            ["learning_rate[1]: 1e-05 appears twice; keep one"],
        ),
        # Not: that nothing is trained under this optimizer; one that cannot be read may be it.
        (
            {"training": {"sgd": {"momentum": 0.5}, "optimizer": "sdg"}},
            ['training.optimizer: must be adamw or sgd, not "sdg" (did you mean sgd?)'],
        ),
        # Not: that exactly one place of a model must be given.
        (
            {"models": {**SOUND["models"], "spare": {"hub": "a b"}}},
            [
                'models.spare.hub: "a b" is not an id of the Hugging Face Hub (use NAME or '
                "OWNER/NAME, of letters, digits and . _ -; a folder begins with / or ./)"
            ],
        ),
        # Not: that the test cases of a search without a teacher have one.
        (
            {
                "searches": {"ls": {"strategy": "exhaustive", "objective": "labls"}},
                "test_cases": [{"search": "ls", "teacher": "tuned"}],
            },
            ["searches.ls.objective: labls is not an objective (did you mean labels?)"],
        ),
    ],
)
def test_what_follows_from_a_problem_is_not_said(
    sections: dict[str, Any], found: list[str]
) -> None:
    raw = {key: value for key, value in {**SOUND, **sections}.items() if value is not None}
    assert problems(copy.deepcopy(raw)) == [f"x.yaml: {problem}" for problem in found]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (
            {"objective": "dkd", "temperature": [-1, 1], "target": -1, "non_target": [2, -2]},
            [
                "temperature[0]: must be positive and finite, not -1.0",
                "target: must be at least 0 and finite, not -1.0",
                "non_target[1]: must be at least 0 and finite, not -2.0",
            ],
        ),
        (
            {"objective": "jsd", "temperature": "hot", "beta": 1},
            [
                'temperature: must be a number, not "hot"',
                "beta: must lie between 0 and 1 (at 0 and at 1 the divergence is 0), not 1.0",
            ],
        ),
    ],
)
def test_every_parameter_that_an_objective_refuses_is_said(
    search: dict[str, Any], found: list[str]
) -> None:
    raw = {**SOUND, "searches": {"one": {"strategy": "exhaustive", **search}}}
    expected = [f"x.yaml: searches.one.{problem}" for problem in found]
    assert sorted(problems(raw)) == sorted(expected)
