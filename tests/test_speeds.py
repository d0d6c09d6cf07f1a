"""How large models are and how fast, and which of them no other outdoes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from fakes import COST, World, a_study, memory_ledger, outcome_of, resolved_of, search_through
from hypothesis import given
from hypothesis import strategies as st
from models import data_of, settings_of
from test_analysis import searched

from kdsearch.agenda import (
    Agenda,
    CheckpointSpec,
    Cost,
    ForwardSettings,
    ModelSpec,
    Outcome,
    OutputsTraining,
    StudentTraining,
)
from kdsearch.analysis import ModelSpeeds, analyse
from kdsearch.analysis.sizes import front
from kdsearch.report.page import page
from kdsearch.report.sizes import sizes_charts, sizes_section, timed
from kdsearch.report.tables import sizes as sizes_table
from kdsearch.search import Labels

LARGE, SMALL = (
    ModelSpec(name=name, weights=name, config=None, tokenizer="t", tokenizer_name=None, layers=None)
    for name in ("large", "small")
)
FORWARD = {
    name: value
    for name, value in settings_of().model_dump().items()
    if name in ForwardSettings.model_fields
}


def cost(speed: float | None, device: str = "cpu") -> Cost:
    return COST.model_copy(update={"examples_per_second": speed, "device": device})


def checkpoint(epoch: int, speed: float | None, device: str = "cpu") -> Outcome:
    """A teacher's outputs on the test split."""
    training = OutputsTraining(
        data=data_of(),
        checkpoint=CheckpointSpec(model=LARGE, training="t", epoch=epoch, labels=()),
        split="test",
        settings=ForwardSettings(**FORWARD),
    )
    return outcome_of(training, parameters=100, cost=cost(speed, device))


def student(
    seed: int, speed: float | None, device: str = "cpu", parameters: int = 10, **settings: Any
) -> Outcome:
    training = StudentTraining(
        data=data_of(),
        model=SMALL,
        teaching=None,
        objective=Labels(),
        learning_rate=1e-3,
        settings=settings_of(**settings),
        seed=seed,
    )
    return outcome_of(training, parameters=parameters, cost=cost(speed, device))


def speed_of(outcome: Outcome, every: list[Outcome]) -> float | None:
    size = ModelSpeeds(every).size([outcome])
    assert size is not None
    return size.examples_per_second


# -- speeds --------------------------------------------------------------------------------------


def test_a_teachers_two_checkpoints_have_one_speed() -> None:
    every = [checkpoint(1, 1226), checkpoint(2, 546)]
    assert [speed_of(each, every) for each in every] == [886, 886]


@given(speeds=st.lists(st.floats(1, 1e6), min_size=1, max_size=9))
def test_a_students_speed_is_the_median_over_its_trainings(speeds: list[float]) -> None:
    every = [student(seed, speed) for seed, speed in enumerate(speeds)]
    assert {speed_of(each, every) for each in every} == {median(speeds)}


def test_a_model_under_other_settings_or_of_another_depth_is_timed_for_itself() -> None:
    every = [student(0, 100), student(1, 50, batch_size=1), student(2, 300, parameters=5)]
    assert [speed_of(each, every) for each in every] == [100, 50, 300]


def test_speeds_of_two_devices_are_never_compared() -> None:
    teacher, slow, fast = checkpoint(1, 50), student(0, 100), student(1, 9000, "gpu")
    every = [teacher, slow, fast]
    assert speed_of(teacher, every) == 50
    assert speed_of(fast, every) == 100  # the same model, on the device of the teacher
    size = ModelSpeeds([student(0, 9000, "gpu"), student(1, 9000, "gpu"), teacher, slow]).size(
        [slow]
    )
    assert size is not None
    assert (size.examples_per_second, size.device) == (100, "cpu")


def test_a_model_that_was_not_timed_on_the_device_of_most_has_a_size_alone() -> None:
    alone = checkpoint(1, 50, "gpu")
    every = [alone, student(0, 100), student(1, 200, parameters=5)]
    size = ModelSpeeds(every).size([alone])
    assert size is not None
    assert (size.parameters, size.examples_per_second, size.device) == (100, None, None)


def test_a_name_is_no_part_of_a_model() -> None:
    renamed = student(1, 300)
    model = renamed.training.model.model_copy(update={"name": "tiny"})  # type: ignore[union-attr]
    renamed = renamed.model_copy(
        update={"training": renamed.training.model_copy(update={"model": model})}
    )
    every = [student(0, 100), renamed]
    assert [speed_of(each, every) for each in every] == [200, 200]


def test_what_was_never_timed_has_no_speed_and_what_has_no_parameters_no_size() -> None:
    assert speed_of(student(0, None), [student(0, None)]) is None
    nothing = student(0, 100).model_copy(update={"parameters": None})
    assert ModelSpeeds([nothing]).size([nothing, None]) is None


# -- the front -------------------------------------------------------------------------------------


@given(
    points=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), max_size=12),
)
def test_the_front_is_what_no_other_outdoes(points: list[tuple[int, int]]) -> None:
    found = front(points)
    # By a sweep from the smallest: the best of its size, and better than every smaller one.
    best: dict[int, int] = {}
    for size, score in points:
        best[size] = max(score, best.get(size, score))
    expected = [
        score == best[size] and all(score > best[other] for other in best if other < size)
        for size, score in points
    ]
    assert list(found) == expected
    assert any(found) or not points


# -- in a study ----------------------------------------------------------------------------------


def sized(agenda: Agenda) -> Agenda:
    """The same study, its teachers large and slow, its students small and fast."""
    results: dict[str, Outcome | None] = {}
    for number, (key, outcome) in enumerate(agenda.results.items()):
        assert outcome is not None
        taught = isinstance(outcome.training, StudentTraining)
        tested = outcome.test is not None
        speed = (1000.0 if taught else 100.0) + number if tested else None
        results[key] = outcome.model_copy(
            update={"parameters": 10 if taught else 80, "model_bytes": 40, "cost": cost(speed)}
        )
    return Agenda(agenda.resolved, results)


def study(**sections: Any) -> Agenda:
    resolved = resolved_of(a_study(**sections))
    return sized(search_through(resolved, memory_ledger(resolved), World(seed=1, coinciding=0)))


def test_a_data_set_has_its_teachers_and_its_students_each_once() -> None:
    found = analyse(study(erm=True))
    (of_sentences,) = found.sizes
    names = [model.name for model in of_sentences.models]
    assert names[0] in ("teacher big, t_hs", "teacher big, t_hs and t_ll")
    assert "small, ERM" in names
    assert sum("small, chosen" in name for name in names) == 1
    assert len(set(names)) == len(names)
    parameters = [model.size.parameters for model in of_sentences.models]
    assert parameters == sorted(parameters, reverse=True)
    assert of_sentences.device == "cpu"
    tests = {model.name: model.test for model in of_sentences.models}
    (case, _) = found.cases
    assert case.erm is not None
    assert tests["small, ERM"] == case.erm.test


def test_a_configuration_that_is_chosen_and_stable_is_one_model() -> None:
    study = analyse(sized(search_through(*_paired(), World(seed=1, levels=1))))
    names = [model.name for model in study.sizes[0].models]
    assert "small, chosen and stable" in names


def _paired() -> tuple[Any, Any]:
    resolved = resolved_of(a_study())
    return resolved, memory_ledger(resolved)


def test_students_of_several_teachers_say_whose_they_are() -> None:
    tuned = {"learning_rate": [1e-5]}
    found = analyse(
        study(
            teachers={
                "big": {"model": "big", "fine_tune": tuned},
                "other": {"model": "small", "fine_tune": tuned},
            }
        )
    )
    names = " | ".join(model.name for model in found.sizes[0].models)
    assert "small of big, " in names
    assert "small of other, " in names


def test_a_study_whose_models_have_no_size_has_no_such_section(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    found = analyse(agenda)
    assert found.sizes == ()
    assert sizes_section(found) == []
    text = page(found, agenda, {})
    assert 'id="sizes"' not in text
    assert 'href="#sizes"' not in text
    assert sizes_table(found).empty


def test_the_page_report_md_and_the_table_hold_the_same_models() -> None:
    agenda = study(erm=True)
    found = analyse(agenda)
    (of_sentences,) = found.sizes
    text, markdown = page(found, agenda, {}), "\n".join(sizes_section(found))
    assert '<a href="#sizes">Size, speed and score</a>' in text
    for model in of_sentences.models:
        assert f'<th scope="row">{model.name}</th>' in text
        assert f"| {model.name} |" in markdown
    table: pd.DataFrame = sizes_table(found)
    assert list(table.model) == [model.name for model in of_sentences.models]
    assert list(table.on_front) == [model.on_front for model in of_sentences.models]


def test_a_point_is_labelled_without_the_students_name_where_there_is_only_one() -> None:
    def labels(agenda: Agenda) -> list[str]:
        [chart, *_] = sizes_charts(analyse(agenda))
        return [model["label"] for model in chart["models"] if model["kind"] != "teacher"]

    assert "ERM" in labels(study(erm=True))
    several = {"one": {"model": "small"}, "two": {"model": "small"}}
    found = labels(study(erm=True, students=several))
    assert all(label.startswith(("one, ", "two, ")) for label in found)


def test_a_model_of_another_device_is_said_to_have_no_speed() -> None:
    (found,) = analyse(study()).sizes
    assert "was not timed" not in timed(found)
    first, *others = found.models
    untimed = replace(first, size=replace(first.size, examples_per_second=None, device=None))
    assert "was not timed on that device" in timed(replace(found, models=(untimed, *others)))
    assert "No model was timed" in timed(replace(found, models=(untimed,)))
