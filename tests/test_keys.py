"""Keys are pinned: a change of them makes every outcome of every existing folder worthless.

A change on purpose raises `agenda.VERSION`. A new field that a key would cover is marked `LATER`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from kdsearch.agenda import VERSION, Graph, StudentTraining, Training
from kdsearch.agenda.training import DataSpec, Keyed, parse_training, written
from kdsearch.search import (
    Ce,
    Checkpoint,
    Dkd,
    Jsd,
    Labels,
    Mse,
    Objective,
    ReverseKl,
    Trial,
)
from kdsearch.study import (
    LATER,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    TestCase,
    TrainingSettings,
    parse_study,
)

TASKS: dict[str, dict[str, Any]] = {
    "sentiment": {"task": "classification", "metric": "f1", "labels": ("bad", "good")},
    "names": {"task": "ner", "metric": "f1", "labels": ("O", "B-PER", "I-PER")},
    "questions": {"task": "qa", "metric": "exact_match", "labels": ()},
    "pairs": {
        "task": "translation",
        "metric": "bleu",
        "labels": (),
        "languages": ("de_DE", "en_XX"),
    },
}
STUDY: dict[str, Any] = {
    "name": "pinned",
    "seeds": [3, 4],
    "erm": True,
    "datasets": {
        name: {"task": facts["task"], "grammar": {"train": 20, "validation": 10, "test": 10}}
        for name, facts in TASKS.items()
    },
    "models": {
        "large": "./large",
        "tuned": "./tuned",
        "random": {"config": {"model_type": "bert", "hidden_size": 16}},
        "borrowed": {"config": {"model_type": "bert"}, "tokenizer": "large"},
    },
    "teachers": {
        "large": {"model": "large", "fine_tune": {"learning_rate": [1e-5], "epochs": 3}},
        "given": {"checkpoint": "tuned"},
    },
    "students": {
        "cut": {"model": "large", "layers": 2},
        "random": {"model": "random"},
        "borrowed": {"model": "borrowed"},
    },
    "search": {"gradient_scale": "tau_squared", "learning_rate": [1e-3, 2e-3]},
    "training": {"epochs": 2, "clip": 1, "warmup": 0.1, "schedule": "linear"},
}
CE = Trial(
    objective=Ce(temperature=4.0, student_temperature=1.0, alpha=0.5, gradient_scale="tau_squared"),
    checkpoint=Checkpoint.HIGHEST_SCORE,
    settings=(("learning_rate", 1e-3),),
)
ERM = Trial(objective=Labels(), checkpoint=None, settings=(("learning_rate", 1e-3),))
MSE = Trial(
    objective=Mse(alpha=1.0),
    checkpoint=Checkpoint.LOWEST_LOSS,
    settings=(("learning_rate", 2e-3),),
)


def resolved(study: dict[str, Any] = STUDY) -> Resolved:
    return Resolved(
        study=parse_study(study, place="study.yaml"),
        datasets={
            name: ResolvedDataset(
                **facts,
                splits={
                    split: ResolvedSplit(digest=f"{name} {split}", rows=20)
                    for split in ("train", "validation", "test")
                },
            )
            for name, facts in TASKS.items()
        },
        models={
            "large": ResolvedModel(path="large", digest="large", labels=None),
            "tuned": ResolvedModel(path="tuned", digest="tuned", labels=("good", "bad")),
            "random": ResolvedModel(path=None, digest=None, labels=None),
            "borrowed": ResolvedModel(path=None, digest=None, labels=None),
        },
        versions={},
    )


def trainings() -> dict[str, Training]:
    graph = Graph(resolved())
    found: dict[str, Training] = {}
    for data in TASKS:
        case = TestCase(dataset=data, teacher="large", student="cut")
        (teacher,) = graph.teachers(case)
        outputs, scored, _ = graph.outputs(case, graph.checkpoint(teacher, 2))
        first, second = graph.students(case, CE, outputs)
        (mse, _) = graph.students(case, MSE, outputs)
        found |= {
            f"{data}: teacher": teacher,
            f"{data}: outputs": outputs,
            f"{data}: scored": scored,
            f"{data}: CE": first,
            f"{data}: CE, second seed": second,
            f"{data}: MSE": mse,
            f"{data}: ERM": graph.students(replace(case, teacher=None), ERM, None)[0],
        }
    case = TestCase(dataset="sentiment", teacher="given", student="random")
    outputs, _, _ = graph.outputs(case, graph.given(case, "tuned"))
    found["given teacher's outputs"] = outputs
    for student in ("random", "borrowed"):
        case = TestCase(dataset="sentiment", teacher="given", student=student)
        trial = CE
        found[f"student {student} of a given teacher"] = graph.students(case, trial, outputs)[0]
    return found


PINNED = {
    "sentiment: teacher": "6086fa95fe704bbf378c05f3",
    "sentiment: outputs": "87b07934860aaff1aaa44232",
    "sentiment: scored": "be706a56d32b02bad93e977f",
    "sentiment: CE": "ed40e2c6dcab2f1a84e2e025",
    "sentiment: CE, second seed": "c39966b9248e64c667cf06bd",
    "sentiment: MSE": "1c029fa5f52b567e44962ea7",
    "sentiment: ERM": "e58f4988f0141642607b115e",
    "names: teacher": "31028ec422ecf8c5c1704171",
    "names: outputs": "9edcda047035c582dc2c9b8a",
    "names: scored": "5f6dd5d3290be792947722e9",
    "names: CE": "cafeb1437d0efa9e9e14d57b",
    "names: CE, second seed": "6f23e954107addcf0cbb8ba7",
    "names: MSE": "48bc9f6574a2e7e3341b96be",
    "names: ERM": "289977e4da2404ad64958061",
    "questions: teacher": "c9be890b9943c0b0da17bcdf",
    "questions: outputs": "5e41f6ddbaf06f6d537595a4",
    "questions: scored": "597b45ab245bf51cc6425be2",
    "questions: CE": "041b8c638b2e55007a0a2645",
    "questions: CE, second seed": "74cd3002f618070e9d5c95ab",
    "questions: MSE": "db11b9b04411a5c9b3c12513",
    "questions: ERM": "6fdbe02b8028ef9d3d8a3bde",
    "pairs: teacher": "480978277158205c895fe505",
    "pairs: outputs": "0b8539e9f1a28d8b026d103d",
    "pairs: scored": "604cccf7d85c7a22984f0b79",
    "pairs: CE": "8d27f61e38366fe00a429fa3",
    "pairs: CE, second seed": "b06077a89e64df76e960eccf",
    "pairs: MSE": "66509947459dc34326937680",
    "pairs: ERM": "35b8aca62faacdfbc2a42701",
    "given teacher's outputs": "73be2eab5f0b2f5323822a73",
    "student random of a given teacher": "d904a9897bc21322bb03ad72",
    "student borrowed of a given teacher": "0f89bf294f7aae8799e1364d",
}


@pytest.mark.parametrize("name", trainings())
def test_a_key_is_what_it_was_in_every_folder_there_is(name: str) -> None:
    assert VERSION == 2
    assert trainings()[name].key == PINNED[name]


# -- settings that came later ---------------------------------------------------------------------

LATER_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("932bcd7bcac53bb365211801", {"training": {"optimizer": "sgd"}}),
    "sgd with its own settings": (
        "a47eca1f635a7d6dacf64d0d",
        {
            "training": {
                "optimizer": "sgd",
                "sgd": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
            }
        },
    ),
    "dropout": ("d6540635d3740dbb3de24e92", {"training": {"dropout": 0.2}}),
    "stops": (
        "26f48ac1261c9715edd6f694",
        {"training": {"stops": [1, 2], "schedule": "constant", "warmup": 0}},
    ),
    "first layers": ("0cc293fd039a0c9a22e778e1", {"layers": "first 2"}),
    "named layers": ("c75fa66b942d919849126a29", {"layers": "0+2"}),
}


@pytest.mark.parametrize("name", LATER_SETTINGS)
def test_a_key_of_a_setting_that_came_later_is_pinned_too(name: str) -> None:
    key, changed = LATER_SETTINGS[name]
    students = {**STUDY["students"], "cut": {"model": "large", "layers": 2, **changed}}
    graph = Graph(resolved({**STUDY, "students": students}))
    case = TestCase(dataset="sentiment", teacher="large", student="cut")
    outputs, *_ = graph.outputs(case, graph.checkpoint(graph.teachers(case)[0], 2))
    student = graph.students(case, CE, outputs)[0]
    assert student.key == key
    assert parse_training(written(student)) == student
    assert outputs.key == PINNED["sentiment: outputs"]


class _Data(DataSpec):
    windows: Annotated[int, LATER] = 1


class _Settings(TrainingSettings):
    momentum: Annotated[float, LATER] = 0.9


class _Student(StudentTraining):
    data: _Data
    settings: _Settings
    warm_start: Annotated[str | None, LATER] = None


def test_a_copy_with_another_value_has_a_key_of_its_own() -> None:
    for training in trainings().values():
        known = training.key
        copied = training.model_copy(
            update={"data": training.data.model_copy(update={"test": "x"})}
        )
        assert copied.key == parse_training(written(copied)).key != known == training.key


def _later(student: StudentTraining, **fields: Any) -> Keyed:
    parts: dict[str, dict[str, Any]] = {"data": {}, "settings": {}, "student": {}}
    for name, value in fields.items():
        parts[name.split("_", 1)[0]][name.split("_", 1)[1]] = value
    return _Student(
        **{
            **{name: getattr(student, name) for name in StudentTraining.model_fields},
            "data": {**student.data.model_dump(), **parts["data"]},
            "settings": {**student.settings.model_dump(), **parts["settings"]},
            **parts["student"],
        }
    )


def test_a_field_that_came_later_leaves_older_keys_alone() -> None:
    student = trainings()["names: CE"]
    assert isinstance(student, StudentTraining)
    assert _later(student).key == student.key


@pytest.mark.parametrize(
    "field", [{"data_windows": 2}, {"settings_momentum": 0.5}, {"student_warm_start": "teacher"}]
)
def test_a_field_that_came_later_is_in_the_key_once_it_differs(field: dict[str, Any]) -> None:
    student = trainings()["names: CE"]
    assert isinstance(student, StudentTraining)
    assert _later(student, **field).key != student.key


# -- objectives -----------------------------------------------------------------------------------

OTHERS = [
    ReverseKl(temperature=4, student_temperature=2, alpha=1),
    Jsd(temperature=4, student_temperature=2, alpha=1, beta=0.5),
    Dkd(temperature=4, target=1, non_target=8, warmup_epochs=20),
]


@pytest.mark.parametrize("name", ["names: CE", "names: MSE"])
def test_ce_and_mse_are_written_as_when_there_was_no_other(name: str) -> None:
    training = trainings()[name]
    plain = written(training)
    assert {"distance", "temperature", "student_temperature", "alpha"} < plain.keys()
    assert "objective" not in plain
    assert parse_training(plain) == training


@pytest.mark.parametrize("objective", OTHERS, ids=lambda objective: objective.kind)
def test_a_student_of_another_objective_is_read_as_it_was_written(objective: Objective) -> None:
    student = trainings()["names: CE"].model_copy(update={"objective": objective})
    found = parse_training(written(student))
    assert found == student
    assert found.key not in PINNED.values()


def test_students_of_different_objectives_have_different_keys() -> None:
    student = trainings()["names: CE"]
    every = [student.model_copy(update={"objective": objective}).key for objective in OTHERS]
    every += [
        student.model_copy(update={"objective": replace(objective, **{name: 3})}).key
        for objective in OTHERS
        for name in ("temperature", "student_temperature", "target")
        if name in objective.parameters
    ]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "nonsense"},
        {"kind": "dkd", "temperature": 4},
        {"kind": "dkd", "temperature": 4, "target": 1, "non_target": 8, "gamma": 2},
        {"kind": "jsd", "temperature": 4, "student_temperature": 2, "alpha": 1, "beta": 3},
        {},
    ],
)
def test_what_is_no_objective_is_refused(wrong: dict[str, Any]) -> None:
    student = trainings()["names: CE"].model_copy(update={"objective": OTHERS[2]})
    with pytest.raises(ValidationError):
        parse_training({**written(student), "objective": wrong})
