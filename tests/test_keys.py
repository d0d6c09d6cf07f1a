"""Keys are pinned: a change of them makes every outcome of every existing folder worthless.

A change on purpose raises `agenda.VERSION`. A new field that a key would cover is marked `LATER`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from kdsearch.agenda import VERSION, Graph, StudentTraining, Training
from kdsearch.agenda.training import DataSpec, Keyed, parse_training, written
from kdsearch.search import (
    Ce,
    Checkpoint,
    Ctkd,
    Dist,
    Dkd,
    EaDkd,
    EaKd,
    Jsd,
    Labels,
    Mlkd,
    Mse,
    Objective,
    ReverseKl,
    Rld,
    TotalVariation,
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


def resolved(study: dict[str, Any] = STUDY, version: int = VERSION) -> Resolved:
    return Resolved(
        training_version=version,
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


def trainings(version: int = VERSION) -> dict[str, Training]:
    graph = Graph(resolved(version=version))
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
    2: {
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
    },
    3: {
        "sentiment: teacher": "fcfd30940549522b37db47fa",
        "sentiment: outputs": "f3a4cf86faca2a3f3d6c97f6",
        "sentiment: scored": "1c32a98d8682f7ef59046af5",
        "sentiment: CE": "a3ae355f1ed88e4813905770",
        "sentiment: CE, second seed": "14e629d8759e9016bf212020",
        "sentiment: MSE": "5374ec6d54c8e55c4a5a6376",
        "sentiment: ERM": "9298071eb3e0d7571a013bc5",
        "names: teacher": "32e8d30d6ac8e00974996596",
        "names: outputs": "d1dd579cd8876f06a2ff4954",
        "names: scored": "3167eb465f7145da4f13cad1",
        "names: CE": "74aa56efb3ece8291810dbd8",
        "names: CE, second seed": "e1c8a9f6b1f3fe80207d2eed",
        "names: MSE": "1aaee0e386a519cef4c9474c",
        "names: ERM": "55b0739f1a530120465a1bb8",
        "questions: teacher": "9527495d67ef62fc842e95b4",
        "questions: outputs": "2d08c310d2aea98c1666dcad",
        "questions: scored": "477076352879ffa2cab70b87",
        "questions: CE": "1d2998e06e17feef67e9c4c9",
        "questions: CE, second seed": "3b6d4297a0a0c6659e1375d1",
        "questions: MSE": "402898dbef2da833aca49fbe",
        "questions: ERM": "36a0fa4276425038244f8345",
        "pairs: teacher": "0ded863857e4b23f77e2a3ef",
        "pairs: outputs": "aed956358f3b7db6848bbcdb",
        "pairs: scored": "aaaa81a355e571600e0770dd",
        "pairs: CE": "c016d74e88bc619a4b4d6bfb",
        "pairs: CE, second seed": "b7269e31c892d93121e15826",
        "pairs: MSE": "68097e500369b61131d4aac0",
        "pairs: ERM": "9bacf8f9da744eb465de9d31",
        "given teacher's outputs": "9bea8a8e62b3fdc5a33d171e",
        "student random of a given teacher": "4bc686b4bd52117b0ebb1f9d",
        "student borrowed of a given teacher": "6d3af464d6661820eb7869e6",
    },
}
"""By the version of the training code. Folders of all of them are read."""


@pytest.mark.parametrize("version", PINNED)
@pytest.mark.parametrize("name", trainings())
def test_a_key_is_what_it_was_in_every_folder_there_is(name: str, version: int) -> None:
    assert max(PINNED) == VERSION
    training = trainings(version)[name]
    assert training.key == PINNED[version][name]
    assert parse_training(written(training)) == training


def test_a_training_that_does_not_say_so_is_of_training_code_2() -> None:
    found = trainings(2)["sentiment: CE"]
    plain = written(found)
    del plain["version"]
    assert parse_training(plain) == found


# -- settings that came later ---------------------------------------------------------------------

LATER_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("bffcb4e873a0e77f329b21be", {"training": {"optimizer": "sgd"}}),
    "sgd with its own settings": (
        "fe5be5b6f7b38f2149504982",
        {
            "training": {
                "optimizer": "sgd",
                "sgd": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
            }
        },
    ),
    "dropout": ("f6b2269f622d405e7e69f6ef", {"training": {"dropout": 0.2}}),
    "stops": (
        "1cbf3f1b9890a631d23127bd",
        {"training": {"stops": [1, 2], "schedule": "constant", "warmup": 0}},
    ),
    "first layers": ("192305b89e0f76a0dac0fe18", {"layers": "first 2"}),
    "lora": ("273f3be813c1200e317529b5", {"training": {"lora": {"r": 4, "modules": ["query"]}}}),
    "last layers": ("9187a4400ef5e5f57422e8b8", {"layers": "last 2"}),
    "named layers": ("241da4c324118f1edf785a81", {"layers": "0+2"}),
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
    assert outputs.key == PINNED[VERSION]["sentiment: outputs"]


CACHES = {
    "hidden": ("aed956358f3b7db6848bbcdb", "c016d74e88bc619a4b4d6bfb"),
    "sampled 64": ("fe0142b0541dbf0e72a1fcad", "c7e17bd320bc1a22c819fb39"),
    "top_k 128": ("a7462aff1b7b9207bd016091", "498e199bb3d7c18507f0ee22"),
}


@pytest.mark.parametrize("cache", CACHES)
def test_a_key_of_what_is_kept_of_a_teachers_outputs_is_pinned_too(cache: str) -> None:
    data = {**STUDY["datasets"]["pairs"], "training": {"cache": cache}}
    search = {"strategy": "exhaustive", "distance": ["ce"], "temperature": [4]}
    datasets = {**STUDY["datasets"], "pairs": data}
    graph = Graph(resolved({**STUDY, "datasets": datasets, "search": search}))
    case = TestCase(dataset="pairs", teacher="large", student="cut")
    outputs, scored, _ = graph.outputs(case, graph.checkpoint(graph.teachers(case)[0], 2))
    student = graph.students(case, CE, outputs)[0]
    assert (outputs.key, student.key) == CACHES[cache]
    assert parse_training(written(outputs)) == outputs
    assert parse_training(written(student)) == student
    assert scored.key == PINNED[VERSION]["pairs: scored"]


# -- teachers that came later ---------------------------------------------------------------------


def test_the_keys_of_named_epochs_and_of_students_that_teach_are_pinned_too() -> None:
    search = {**STUDY["search"], "teacher": ["t_hs", "epoch 3", "epoch 2"]}
    teachers = {**STUDY["teachers"], "second": {"student_of": "large"}}
    graph = Graph(resolved({**STUDY, "search": search, "teachers": teachers}))
    case = TestCase(dataset="sentiment", teacher="large", student="cut")
    (teacher,) = graph.teachers(case)
    first, *_ = graph.students(case, CE, graph.outputs(case, graph.checkpoint(teacher, 2))[0])
    second = replace(case, teacher="second")
    outputs, *_ = graph.outputs(second, graph.winner(first))
    trial = replace(CE, checkpoint=Checkpoint.WINNER)
    student, *_ = graph.students(second, trial, outputs)
    named = replace(CE, checkpoint=Checkpoint("epoch 2"))
    by_epoch, *_ = graph.students(case, named, graph.outputs(case, graph.checkpoint(teacher, 2))[0])
    assert by_epoch.key == first.key
    found = (teacher, first, outputs, student)
    assert [training.key for training in found] == [
        "3982a0d99bf95ff9d1980292",
        "751d18579c172122d07a2af9",
        "a3a88348af2c0c0a30741079",
        "a0e99049c21c6972063ebbd4",
    ]
    assert graph.teachers(second) == ()
    for training in (*found, by_epoch):
        assert parse_training(written(training)) == training


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

OTHERS: list[Any] = [
    ReverseKl(temperature=4, student_temperature=2, alpha=1),
    Jsd(temperature=4, student_temperature=2, alpha=1, beta=0.5),
    TotalVariation(temperature=4, student_temperature=2, alpha=1),
    Dkd(temperature=4, target=1, non_target=8, warmup_epochs=20),
    EaKd(temperature=4, alpha=1),
    EaDkd(temperature=4, target=1, non_target=8),
    Ctkd(alpha=1),
    Rld(temperature=4, masked_correlation=8),
    Dist(temperature=4),
    Mlkd(temperature=4, two_views=True),
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


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """CE and JSD as of a later version, by kind: with a parameter more."""
    for kind in ("ce", "jsd"):  # what follows is undone
        monkeypatch.setitem(Objective.kinds, kind, Objective.kinds[kind])

    @dataclass(frozen=True, kw_only=True)
    class LaterCe(Ce, kind="ce"):
        sparse = Ce.sparse | {"later"}
        later: float = 0.0

    @dataclass(frozen=True, kw_only=True)
    class LaterJsd(Jsd, kind="jsd"):
        sparse = Jsd.sparse | {"later"}
        later: float = 0.0

    values = {"temperature": 4, "student_temperature": 2, "alpha": 1}
    return {
        "ce": (Ce(**values), partial(LaterCe, **values)),
        "jsd": (Jsd(**values, beta=0.5), partial(LaterJsd, **values, beta=0.5)),
    }


@pytest.mark.parametrize("kind", ["ce", "jsd"])
def test_a_parameter_that_came_later_is_in_the_key_once_it_differs(
    kind: str, later: dict[str, Any]
) -> None:
    student = trainings()["names: CE"]
    before, now = later[kind]
    plain, same, other = (
        student.model_copy(update={"objective": each}) for each in (before, now(), now(later=2))
    )
    assert same.key == plain.key
    assert other.key != plain.key
    assert [parse_training(written(each)) for each in (same, other)] == [same, other]


def test_a_control_and_standardised_logits_are_in_a_key_and_what_is_usual_is_in_none() -> None:
    student = trainings()["names: CE"]
    usual = Ce(temperature=4, student_temperature=2, alpha=1)
    dkd = Dkd(temperature=4, target=1, non_target=8)
    others: list[Objective] = [
        usual,
        replace(usual, standardise=True),
        replace(usual, supervision="smoothed"),
        replace(usual, supervision="permuted after 2"),
        dkd,
        replace(dkd, standardise=True),
        replace(dkd, class_of="teacher"),
    ]
    every = [student.model_copy(update={"objective": each}) for each in others]
    assert len({each.key for each in every}) == len(every)
    assert [parse_training(written(each)) for each in every] == every
    for plain in (written(every[0]), written(every[4])):
        assert not {"standardise", "supervision", "class_of"} & {
            *plain,
            *plain.get("objective", {}),
        }


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
