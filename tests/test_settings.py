"""Settings: the study's, those of a data set, a teacher or a student, and axes of a space."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from fakes import a_study, resolved_of
from pydantic import ValidationError

from kdsearch.agenda import Agenda, Graph, StudentTraining
from kdsearch.agenda.needs import _in_grid
from kdsearch.agenda.training import parse_training, written
from kdsearch.errors import InputError
from kdsearch.search import Axis, Choice, Space, Trial
from kdsearch.study import (
    AXES,
    Adam,
    Lora,
    Sgd,
    Study,
    TestCase,
    TrainingSettings,
    differences,
    effective_settings,
    lora_place,
    parse_study,
    rates,
    source_of,
    space_of,
    uses_lora,
)
from kdsearch.study import (
    test_cases as cases_of,
)

Axes = dict[str, tuple[Any, ...]]


def study_of(**sections: Any) -> Study:
    return parse_study(a_study(**sections), place="x.yaml")


def problems_of(**sections: Any) -> list[str]:
    with pytest.raises(InputError) as raised:
        study_of(**sections)
    return [str(problem).removeprefix("x.yaml: ") for problem in raised.value.problems]


def the_case(study: Study) -> TestCase:
    (case,) = cases_of(study)
    return case


SIZES = {"train": 20, "validation": 10, "test": 10}


def part(kind: str, **changes: Any) -> dict[str, Any]:
    """A section of `a_study` with something more in its one entry."""
    ((name, usual),) = a_study()[kind].items()
    return {kind: {name: {**usual, **changes}}}


# -- whose settings are in effect ------------------------------------------------------------------


def test_a_students_settings_win_over_its_data_sets_and_these_over_the_studys() -> None:
    study = study_of(
        training={"epochs": 2, "batch_size": 8, "clip": 1, "precision": "fp32"},
        **part("datasets", training={"epochs": 3, "batch_size": 4, "clip": None}),
        **part("students", training={"epochs": 5}),
    )
    found = effective_settings(study, the_case(study), "student")
    assert (found.epochs, found.batch_size, found.clip) == (5, 4, None)
    assert found.precision == "fp32"


def test_a_teachers_settings_win_for_its_training_and_its_outputs() -> None:
    study = study_of(
        training={"batch_size": 8, "epochs": 2},
        **part("datasets", training={"batch_size": 4, "epochs": 3}),
        **part("teachers", training={"batch_size": 2}, fine_tune={"epochs": 7}),
        **part("students", training={"batch_size": 1}),
    )
    case = the_case(study)
    graph = Graph(resolved_of(study))
    teacher = graph.teachers(case)[0]
    outputs, *_ = graph.outputs(case, graph.checkpoint(teacher, 1))
    assert (teacher.settings.batch_size, teacher.settings.epochs) == (2, 7)
    assert outputs.settings.batch_size == 2
    assert (graph.settings(case).batch_size, graph.settings(case).epochs) == (1, 3)


def test_a_section_is_changed_field_by_field() -> None:
    study = study_of(
        training={"adam": {"epsilon": 1e-6, "weight_decay": 0.1}},
        **part("students", training={"adam": {"weight_decay": 0.5}}),
    )
    found = effective_settings(study, the_case(study), "student")
    assert found.adam == Adam(epsilon=1e-6, weight_decay=0.5)


def test_the_place_of_a_setting_is_the_innermost_that_says_it() -> None:
    study = study_of(
        training={"epochs": 2},
        **part("datasets", training={"epochs": 3}, max_length=16),
        **part("students", training={"epochs": 5}),
    )
    case = the_case(study)
    assert source_of(study, case, "student", "epochs") == "students.small.training.epochs"
    assert source_of(study, case, "teacher", "epochs") == "datasets.sentences.training.epochs"
    assert source_of(study, case, "teacher", "max_length") == "datasets.sentences.max_length"
    assert source_of(study, case, "outputs", "precision") == "training.precision"


def test_a_students_rates_win_over_its_data_sets_and_these_over_the_searchs() -> None:
    both = (part("datasets", learning_rate=[1e-4]), part("students", learning_rate=[1e-3, 1e-2]))
    for sections, wanted in (
        ({}, (1e-5, 2e-5)),
        (both[0], (1e-4,)),
        (both[0] | both[1], (1e-3, 1e-2)),
    ):
        study = study_of(**sections)
        assert rates(study, the_case(study)) == (wanted if sections else None)
        assert space_of(study, the_case(study)).values("learning_rate") == wanted


def test_a_student_reads_the_hidden_states_that_its_teacher_wrote() -> None:
    datasets = {"data": {"task": "translation", "grammar": SIZES}}
    study = study_of(datasets=datasets, **part("teachers", training={"hidden_dtype": "fp32"}))
    case = the_case(study)
    assert effective_settings(study, case, "student").hidden_dtype == "fp32"
    (problem,) = problems_of(**part("students", training={"hidden_dtype": "fp32"}))
    assert problem.startswith(
        "students.small.training.hidden_dtype: hidden_dtype is not a key here"
    )


def test_a_stored_study_without_any_of_these_is_read_and_one_with_them_too() -> None:
    usual = study_of()
    old = usual.model_dump(mode="json")
    for part_of in ("datasets", "teachers", "students"):
        for section in old[part_of].values():
            del section["training"]
    for name in ("optimizer", "sgd", "dropout", "stops"):
        del old["training"][name]
    assert Study.model_validate(old, strict=False) == usual
    changed = study_of(**part("students", training={"clip": None, "adam": {"betas": [0.8, 0.9]}}))
    assert Study.model_validate_json(changed.model_dump_json()) == changed


def test_one_rate_is_a_list_of_one_and_a_whole_number_may_be_written_with_a_point() -> None:
    study = study_of(**part("students", learning_rate=1e-3, training={"epochs": 3.0, "stops": 3}))
    assert rates(study, the_case(study)) == (1e-3,)
    assert effective_settings(study, the_case(study), "student").stops == (3,)


def test_a_setting_of_a_student_differs_at_its_place() -> None:
    changed = study_of(**part("students", training={"epochs": 3, "adam": {"epsilon": 0.5}}))
    assert differences(study_of(), changed) == [
        "students.small.training.epochs: absent → 3",
        "students.small.training.adam.epsilon: absent → 0.5",
    ]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"training": {"sgd": {"momentum": 0.9}}},
            "training.sgd: belongs to an optimizer that is not used (remove it, or set "
            "optimizer: sgd)",
        ),
        (
            {"training": {"optimizer": "sgd", "adam": {"epsilon": 1e-6}}},
            "training.adam: belongs to an optimizer that is not used (remove it, or "
            "set optimizer: adamw)",
        ),
        (
            part("students", training={"sgd": {"nesterov": True}}),
            "students.small.training.sgd: belongs to an optimizer that is not used (remove it, or "
            "set optimizer: sgd)",
        ),
        (
            {"training": {"optimizer": "sgd", "sgd": {"momentum": 0, "nesterov": True}}},
            "training.sgd: nesterov needs a momentum above 0",
        ),
        (
            {"training": {"epochs": 3, "stops": [1, 5]}},
            "training: the last of stops is 5, but epochs is 3",
        ),
        (
            {"training": {"epochs": 3, "stops": [3, 2, 3]}},
            "training: stops must ascend, without repeats",
        ),
        (
            {"training": {"epochs": 3, "stops": [1, 3], "schedule": "linear"}},
            "training: stops need a constant schedule without warmup",
        ),
        (
            {"training": {"epochs": 3, "stops": [1, 3], "warmup": 0.1}},
            "training: stops need a constant schedule without warmup",
        ),
        (
            {
                "training": {"epochs": 3, "stops": [1, 3]},
                **part("students", training={"epochs": 5}),
            },
            "students.small.training: the last of stops is 3, but epochs is 5",
        ),
        ({"training": {"dropout": 1.0}}, "training.dropout: must be below 1"),
        (
            {"training": {"clip_per": "layer"}},
            "training: clip_per: layer needs a clip, the largest norm of a layer's gradient",
        ),
        (
            {
                "training": {"clip": 1.0, "clip_per": "layer"},
                **part("students", training={"clip": None}),
            },
            "students.small.training: clip_per: layer needs a clip",
        ),
        (
            part("students", training={"epoch": 3}),
            "students.small.training.epoch: epoch is not a key here (did you mean epochs?)",
        ),
        (
            part("datasets", training={"adam": {"epsilonn": 3}}),
            "datasets.sentences.training.adam.epsilonn: epsilonn is not a key here",
        ),
        (
            part("students", training={"batch_size": 0}),
            "students.small.training.batch_size: must be above 0",
        ),
        (part("students", training=3), "students.small.training: must be a section of keys"),
        (
            part("datasets", training={"max_length": 9}, max_length=8),
            "datasets.sentences: max_length is given here and in training; keep one",
        ),
        (
            {
                "models": {**a_study()["models"], "big": "/big"},
                "teachers": {"big": {"checkpoint": "big", "training": {"epochs": 3}}},
            },
            "teachers.big: a given teacher is not trained; remove epochs from training",
        ),
        (
            part("teachers", training={"epochs": 3}, fine_tune={"epochs": 3}),
            "teachers.big: epochs is given in fine_tune and in training; keep one",
        ),
        (
            part("students", learning_rate=[1e-3, 1e-3]),
            "students.small.learning_rate[1]: 0.001 appears twice",
        ),
        (part("students", layers="0+0"), "students.small.layers: expected a number"),
        (part("students", layers="4+2"), "students.small.layers: expected a number"),
        (part("students", layers="middle 3"), "students.small.layers: expected a number"),
        (part("students", layers="first 0"), "students.small.layers: expected a number"),
        (part("students", layers=0), "students.small.layers: expected a number"),
        (
            {
                "models": {**a_study()["models"], "big": "/big"},
                "teachers": {"big": {"checkpoint": "big", "layers": 3}},
            },
            "teachers.big: a given teacher is used whole; remove layers",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_at_its_place(
    sections: dict[str, Any], problem: str
) -> None:
    (found,) = problems_of(**sections)
    assert found.startswith(problem)


def test_a_section_that_one_student_of_several_uses_may_stand_with_all() -> None:
    usual = a_study()["students"]["small"]
    students = {"small": usual, "other": {**usual, "training": {"optimizer": "sgd"}}}
    study = study_of(training={"sgd": {"momentum": 0.5}}, students=students)
    sgd, adam = (
        effective_settings(study, replace(cases_of(study)[0], student=name), "student")
        for name in ("other", "small")
    )
    assert sgd.for_task("qa").sgd == Sgd(momentum=0.5)
    assert adam.for_task("qa").sgd is None


# -- axes ------------------------------------------------------------------------------------------

TWO: Axes = {"optimizer": ("adamw", "sgd"), "batch_size": (16, 32)}


def students_of(axes: Axes, **sections: Any) -> list[StudentTraining]:
    """The training of each trial of a small space with these axes beside the study's."""
    study = study_of(**sections)
    case = the_case(study)
    graph = Graph(resolved_of(study))
    usual = space_of(study, case)
    tuned = [replace(axis, values=axis.values[:1]) for axis in usual.tuned]
    tuned += [Axis(name=name, values=values) for name, values in axes.items()]
    space = Space(compared=usual.compared, tuned=tuple(tuned))
    outputs, *_ = graph.outputs(case, graph.checkpoint(graph.teachers(case)[0], 1))
    choice = space.choice(space.defaults())
    return [graph.students(case, trial, outputs)[0] for trial in space.trials(choice)]


def test_settings_as_axes_give_trainings_with_those_settings() -> None:
    found = students_of(TWO)
    settings = [(each.settings.optimizer, each.settings.batch_size) for each in found]
    assert settings == [("adamw", 16), ("adamw", 32), ("sgd", 16), ("sgd", 32)]
    assert len({each.key for each in found}) == 4
    for each in found:
        assert parse_training(written(each)) == each


def test_a_value_that_is_the_studys_gives_the_training_without_the_axis() -> None:
    training = {"batch_size": 16, "epochs": 2}
    (usual,) = students_of({}, training=training)
    (same,) = students_of(
        {"batch_size": (16,), "optimizer": ("adamw",), "dropout": ("own",), "clip": ("none",)},
        training=training,
    )
    assert same == usual
    assert same.key == usual.key


def test_an_axis_of_another_optimizer_than_the_one_used_makes_no_other_training() -> None:
    axes: Axes = {"optimizer": ("adamw", "sgd"), "momentum": (0.0, 0.9), "nesterov": (False,)}
    found = students_of(axes)
    assert [each.settings.optimizer for each in found] == ["adamw", "adamw", "sgd", "sgd"]
    assert found[0].key == found[1].key
    assert found[2].key != found[3].key
    assert [each.settings.sgd for each in found[2:]] == [Sgd(momentum=0), Sgd(momentum=0.9)]


def test_weight_decay_is_that_of_the_optimizer_in_use() -> None:
    adam, sgd = students_of({"optimizer": ("adamw", "sgd"), "weight_decay": (0.25,)})
    assert adam.settings.adam.weight_decay == 0.25
    assert sgd.settings.sgd == Sgd(weight_decay=0.25)
    assert sgd.settings.adam == Adam()


def test_layers_as_an_axis_are_layers_of_the_students_model() -> None:
    found = students_of({"layers": (1, "first 2", "0+2")})
    assert [each.model.layers for each in found] == [1, "first 2", "0+2"]
    assert len({each.key for each in found}) == 3


EVERY: dict[str, tuple[Any, Any]] = {
    "optimizer": ("sgd", "adam"),
    "momentum": (0.5, 1.0),
    "nesterov": (True, 1),
    "batch_size": (16, 0),
    "epochs": (3, 1.5),
    "schedule": ("linear", "step"),
    "warmup": (0.25, 1.0),
    "weight_decay": (0.5, -1.0),
    "dropout": (0.25, 1.0),
    "clip": (1.0, 0.0),
    "clip_per": ("layer", "tensor"),
    "precision": ("fp32", "fp8"),
    "layers": ("0+2+4", "0+0"),
    "lora_rank": (4, 0),
    "learning_rate": (1e-3, 0.0),
    "augmentation": ("light", "heavy"),
}


@pytest.mark.parametrize("name", AXES)
def test_an_axis_knows_its_values_and_each_is_another_training(name: str) -> None:
    right, wrong = EVERY[name]
    assert AXES[name].validate_python(right) == right
    with pytest.raises(ValidationError):
        AXES[name].validate_python(wrong)
    optimizer = "sgd" if name in ("momentum", "nesterov") else "adamw"
    beside = {"clip": (1.0,)} if name == "clip_per" else {}
    (usual,) = students_of({"optimizer": (optimizer,), **beside})
    # In place of the study's own, where the space has the axis already.
    changed = replace_axis(usual, name, right)
    is_of_texts = name != "augmentation"  # see `test_views_cached`
    assert (changed.key != usual.key) == is_of_texts


def replace_axis(usual: StudentTraining, name: str, value: Any) -> StudentTraining:
    study = study_of()
    case, graph = the_case(study), Graph(resolved_of(study))
    optimizer = usual.settings.optimizer
    outputs, *_ = graph.outputs(case, graph.checkpoint(graph.teachers(case)[0], 1))
    settings = {"learning_rate": usual.learning_rate, "optimizer": optimizer, name: value}
    settings |= {"clip": usual.settings.clip} if name == "clip_per" else {}
    trial = Trial(
        objective=usual.objective,
        checkpoint=usual.taught.checkpoint_name,
        settings=tuple(sorted(settings.items())),
    )
    return graph.students(case, trial, outputs)[0]


@pytest.mark.parametrize(
    ("axes", "problem"),
    [
        (
            {"momentum": (0.5, 0.9)},
            "search.momentum: momentum belongs to an optimizer that is not used",
        ),
        (
            {"optimizer": ("sgd",), "momentum": (0.9, 0.0), "nesterov": (True,)},
            "search: optimizer sgd, momentum 0.0, nesterov True: nesterov needs a momentum above 0",
        ),
        (
            {"clip": ("none",), "clip_per": ("all", "layer")},
            "search: clip none, clip_per layer: clip_per: layer needs a clip",
        ),
    ],
)
def test_axes_that_do_not_go_together_are_refused(axes: Axes, problem: str) -> None:
    (found,) = problems_of(search=axes)
    assert found.startswith(problem)


def test_a_section_may_stand_where_an_axis_takes_its_optimizer() -> None:
    training = {"sgd": {"momentum": 0.5}}
    (found,) = problems_of(training=training)
    assert found.startswith("training.sgd: belongs to an optimizer that is not used")
    assert study_of(training=training, search={"optimizer": "sgd"})
    assert study_of(training=training, search=TWO)


@pytest.mark.parametrize("axes", [{}, TWO, {"momentum": (0.5, 0.9)}, {"layers": (1, "first 2")}])
def test_a_student_of_any_trial_is_in_the_grid_and_one_of_another_value_is_not(axes: Axes) -> None:
    study = study_of()
    case, graph = the_case(study), Graph(resolved_of(study))
    outputs, *_ = graph.outputs(case, graph.checkpoint(graph.teachers(case)[0], 1))
    usual = space_of(study, case)
    tuned = tuple(Axis(name=name, values=values) for name, values in axes.items())
    space = replace(usual, tuned=(*usual.tuned, *tuned))
    (view,) = Agenda(resolved_of(study)).views()
    view = replace(view, space=space)
    for trial in {trial for choice in space.choices() for trial in space.trials(choice)}:
        (student,) = graph.students(case, trial, outputs)
        changes = ({"settings": student.settings.but({"epochs": 77})}, {"learning_rate": 0.5})
        others = [student.model_copy(update=change) for change in changes]
        assert _in_grid(graph, view, outputs, student)
        assert not any(_in_grid(graph, view, outputs, other) for other in others)


# -- what a key covers -----------------------------------------------------------------------------


def test_settings_of_an_optimizer_that_is_not_used_are_in_no_key() -> None:
    usual = TrainingSettings(sgd=Sgd(momentum=0.5)).for_task("ner")
    assert usual == TrainingSettings().for_task("ner")
    sgd = TrainingSettings(optimizer="sgd", adam=Adam(epsilon=1e-3)).for_task("ner")
    assert sgd == TrainingSettings(optimizer="sgd", sgd=Sgd()).for_task("ner")


def test_each_new_setting_is_another_training() -> None:
    some = [
        {},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "sgd": {"momentum": 0.5}},
        {"optimizer": "sgd", "sgd": {"nesterov": True}},
        {"optimizer": "sgd", "sgd": {"weight_decay": 0.5}},
        {"dropout": 0.0},
        {"dropout": 0.5},
        {"epochs": 2, "stops": [1, 2]},
        {"epochs": 2},
        {"lora": {}},
        {"lora": {"r": 4}},
        {"lora": {"alpha": 8}},
        {"lora": {"modules": ["query"]}},
        {"lora": {"dropout": 0.1}},
        {"clip": 1.0},
        {"clip": 1.0, "clip_per": "layer"},
    ]
    found = [students_of({}, training=training)[0].key for training in some]
    assert all(one != other for one, other in combinations(found, 2))


def test_recomputing_activations_is_no_other_training() -> None:
    plain, recomputed = (
        students_of({}, training={"gradient_checkpointing": on})[0] for on in (False, True)
    )
    assert recomputed.settings.gradient_checkpointing
    assert parse_training(written(recomputed)) == recomputed
    assert recomputed.key == plain.key


# -- adapters --------------------------------------------------------------------------------------


def test_a_rank_as_an_axis_is_that_of_the_studys_adapters_or_none() -> None:
    training = {"lora": {"alpha": 32, "modules": ["query"]}}
    found = students_of({"lora_rank": ("none", 4, 32)}, training=training)
    assert [each.settings.lora for each in found] == [
        None,
        Lora(r=4, alpha=32, modules=("query",)),
        Lora(r=32, alpha=32, modules=("query",)),
    ]
    (plain,) = students_of({})
    assert found[0].settings == plain.settings


def test_a_student_may_have_no_adapters_in_a_study_of_which_all_others_have_some() -> None:
    study = study_of(training={"lora": {"r": 4}}, **part("students", training={"lora": None}))
    case = the_case(study)
    assert effective_settings(study, case, "student").lora is None
    assert effective_settings(study, case, "teacher").lora == Lora(r=4)
    assert (lora_place(study, case, "student"), lora_place(study, case, "teacher")) == (
        None,
        "training.lora",
    )


@pytest.mark.parametrize(
    ("lora", "problem"),
    [
        ({"r": 0}, "training.lora.r: must be above 0, not 0"),
        ({"alpha": 0}, "training.lora.alpha: must be above 0, not 0"),
        ({"modules": []}, "training.lora.modules: needs at least 1, has 0"),
        ({"rank": 4}, "training.lora.rank: rank is not a key here"),
    ],
)
def test_adapters_that_cannot_be_are_refused(lora: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(training={"lora": lora})
    assert found.startswith(problem)


def test_a_study_uses_adapters_if_any_training_of_it_has_them() -> None:
    search = a_study()["search"]
    assert not uses_lora(study_of())
    assert uses_lora(study_of(training={"lora": {}}))
    assert uses_lora(study_of(search={**search, "lora_rank": ["none", 8]}))
    none: dict[str, Any] = {
        "models": {**a_study()["models"], "big": "/big"},
        "teachers": {"big": {"checkpoint": "big"}},
        "search": {**search, "teacher": None, "lora_rank": ["none"]},
    }
    assert not uses_lora(study_of(training={"lora": {}}, **none))


def test_a_choice_of_a_setting_says_its_value() -> None:
    assert "layers=first 3" in str(Choice.of(distance="mse", teacher="t_hs", layers="first 3"))
