"""What a study file says of augmentation, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import a_study, resolved_of
from test_views_cached import image_study

from kdsearch.errors import InputError
from kdsearch.study import Augmentation, RandAugment, TrainingSettings, parse_study
from kdsearch.study.survey import survey


def of(value: Any) -> Augmentation | None:
    study = parse_study(image_study(value), place="study.yaml")
    return study.training.augmentation


def problems(study: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_study(study, place="study.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_named_augmentations_are_parts() -> None:
    light, strong = {"crop": "pad", "flip": True}, RandAugment(n=2, m=9)
    assert of("none") is None
    assert of("light") == Augmentation(crop="pad", flip=True) == of(light)
    full = Augmentation(crop="pad", flip=True, randaugment=strong, mixup=1.0, cutmix=1.0)
    assert of("full") == full
    assert of({"like": "full", "views": 6}) == full.model_copy(update={"views": 6})
    some = {"like": "full", "crop": "inception", "cutmix": "none", "randaugment": {"m": 4}}
    assert of(some) == Augmentation(
        crop="inception", flip=True, randaugment=RandAugment(n=2, m=4), mixup=1.0
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("heavy", "training.augmentation: must be none, light, full or a section of parts, not"),
        ({"views": 4}, "training.augmentation: changes no image: set augmentation: none, light or"),
        ({"crop": "pad", "views": 0}, "training.augmentation.views: must be above 0"),
        ({"crop": "centre"}, "training.augmentation.crop: must be none, pad or inception"),
        ({"crop": "pad", "mixup": 0}, "training.augmentation.mixup: must be above 0"),
        ({"randaugment": {"m": 31}}, "training.augmentation.randaugment.m: must be at most 30"),
        ({"randaugment": {"p": 1}}, "training.augmentation.randaugment.p: p is not a key here"),
        ({"cutout": True}, "training.augmentation.cutout: cutout is not a key here"),
        ({"like": "heavy"}, "training.augmentation: like must be light or full, not heavy"),
    ],
)
def test_a_value_that_is_none_is_refused_with_its_place(value: Any, problem: str) -> None:
    [found] = problems(image_study(value))
    assert found.startswith(f"study.yaml: {problem}")


def test_texts_have_no_augmentation() -> None:
    study = a_study(training={"augmentation": "light"})
    assert problems(study) == [
        "study.yaml: training.augmentation: sentences is for classification, whose rows have no "
        "images (give it where the task is image_classification: "
        "datasets.NAME.training.augmentation)"
    ]
    study = a_study()
    study["search"]["augmentation"] = ["none", "light"]
    [problem] = problems(study)
    assert problem.startswith("study.yaml: search.augmentation: sentences is for classification")


def test_a_teacher_is_not_fine_tuned_on_mixed_images() -> None:
    study = image_study("full")
    del study["teachers"]["big"]["training"]
    assert problems(study) == [
        "study.yaml: training.augmentation: big is fine-tuned on labels, and a mixed image (mixup, "
        "cutmix) is part of two and has no label (give it its own: "
        "teachers.big.training: {augmentation: light})"
    ]


def test_nor_is_what_students_start_from_which_may_teach_nobody() -> None:
    study = image_study("full")
    study["teachers"]["own"] = {"model": "small"}
    study["students"]["small"]["start"] = "own"
    study["test_cases"] = [{"teacher": "big"}]
    [problem] = problems(study)
    assert problem.startswith("study.yaml: training.augmentation: own is fine-tuned on labels, and")


def test_students_without_a_teacher_are_told_where_they_may_learn_labels() -> None:
    assert problems({**image_study("full"), "erm": True}) == [
        "study.yaml: erm: labels learns from labels, and under training.augmentation a mixed image "
        "(mixup, cutmix) is part of two and has no label (leave it out; a search of labels with "
        "augmentation: [light] is the same)"
    ]


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ({"alpha": [1, 0.5]}, "ce learns from labels, and under training.augmentation a mixed"),
        ({"distance": ["labels"]}, "labels learns from labels"),
        ({"distance": ["label_smoothing"], "smoothing": [0.1]}, "label_smoothing learns from"),
        ({"distance": ["dkd"], "target": [1], "non_target": [2]}, "dkd learns from labels"),
    ],
)
def test_what_learns_from_labels_sees_no_mixed_images(search: Any, problem: str) -> None:
    study = image_study("full", search=search)
    taught = search.get("distance", ["ce"])[0] == "ce"
    if not taught:
        del study["search"]["alpha"]
    if search.get("distance") in (["labels"], ["label_smoothing"]):
        for name in ("temperature", "teacher"):
            del study["search"][name]
    found = [each for each in problems(study) if "search.distance" in each]
    assert len(found) == 1
    assert found[0].startswith(f"study.yaml: search.distance: {problem}")
    assert "augmentation: [light]" in found[0]


def test_labels_are_learnt_from_under_light_and_not_read_at_all_where_that_is_asked() -> None:
    assert of("light")
    parse_study(image_study("light", search={"alpha": [1, 0.5]}), place="study.yaml")
    search = {
        "distance": ["dkd"],
        "target": [1],
        "non_target": [2],
        "label_weight": [0],
        "class_of": ["teacher"],
    }
    study = image_study("full", search=search)
    del study["search"]["alpha"]
    parse_study(study, place="study.yaml")


def two_views(augmentation: Any) -> dict[str, Any]:
    search = {"distance": ["mlkd"], "two_views": [True], "label_weight": [0]}
    study = image_study(augmentation, search=search)
    del study["search"]["alpha"]
    return study


@pytest.mark.parametrize(
    ("augmentation", "which"),
    [
        ("none", "training.augmentation is none"),
        ("light", "training.augmentation is no stronger than crop and flip"),
        ({"randaugment": {}}, "training.augmentation is without crop and flip"),
    ],
)
def test_two_views_need_a_weak_one_and_a_strong_one(augmentation: Any, which: str) -> None:
    [problem] = problems(two_views(augmentation))
    assert problem == (
        "study.yaml: search.two_views: needs a weak view, of crop and flip alone, and a strong one "
        f"of each image, but {which}, so that there are no two (set augmentation: full, or such as "
        "{like: light, randaugment: {n: 2}})"
    )


def test_an_axis_keeps_the_settings_own_crop_flip_and_views() -> None:
    own = TrainingSettings.model_validate(
        {"augmentation": {"crop": "inception", "flip": False, "views": 3}}
    )
    assert own.at({"augmentation": "light"}).augmentation == Augmentation(crop="inception", views=3)
    assert own.at({"augmentation": "none"}).augmentation is None
    assert TrainingSettings().at({"augmentation": "light"}).augmentation == of("light")


def test_a_data_set_that_nobody_knows_is_said_once_and_changes_that_come_to_nothing_too() -> None:
    study = image_study("full")
    study["datasets"] = {"shape": {"training": {"augmentation": "light"}}}
    [problem] = problems(study)
    assert problem.startswith("study.yaml: datasets.shape: ")
    study = image_study("none")
    study["datasets"]["data"]["training"] = {"augmentation": {"views": 3}}
    assert {*problems(study)} == {
        "study.yaml: datasets.data.training: changes no image: set augmentation: none, light or "
        "full, or give it a part"
    }


@pytest.mark.parametrize(("views", "epochs", "doubted"), [(8, [2, 4], True), (8, [5], False)])
def test_views_that_no_student_comes_to_see_are_doubted(
    views: int, epochs: list[int], doubted: bool
) -> None:
    study = image_study({"like": "full", "views": views}, search={"epochs": epochs})
    _, doubts, _ = survey(resolved_of(study), lambda digest: [], "study.yaml")
    found = [each for each in doubts if "views" in each.what]
    assert bool(found) == doubted
    if doubted:
        [doubt] = found
        assert doubt.place == "study.yaml: training.augmentation"
        assert doubt.what.endswith("8 views of each image, of which students of 4 epochs see 4")
