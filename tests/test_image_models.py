"""Models of images: what they are given, how they are trained and kept, and which are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import (
    PROCESSOR,
    begin,
    encode,
    everything,
    first,
    model_in,
    rows_of,
    run_study,
    save_model,
    task_study,
    tiny,
    tiny_cnn,
    tiny_vit,
)
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, pipeline

from kdsearch.agenda import OutputsTraining, StudentTraining
from kdsearch.distill import preflight, run_training
from kdsearch.distill.caches import Split, encoded
from kdsearch.distill.check import check_models
from kdsearch.distill.images import check_parts, fit_images, processor_at_random, processor_in
from kdsearch.distill.layers import truncate
from kdsearch.distill.models import load_model
from kdsearch.distill.single_images import single_image_problems
from kdsearch.distill.together import fusing_pays
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.study import image_products, parse_study
from kdsearch.study.grammar_images import SHAPES, SIDE
from kdsearch.study.schema import Model
from kdsearch.tasks import TASKS
from kdsearch.tasks.images import normalised

IMAGES = "image_classification"
MEAN, STD = np.array(PROCESSOR.mean), np.array(PROCESSOR.std)
"""Of each channel."""
_AS_THEY_ARE = {"do_normalize": False, "do_rescale": False}


def study(**sections: Any) -> dict[str, Any]:
    """Two trainings: a teacher, and a student of it."""
    search = {"distance": ["mse"], "alpha": [1], **sections.pop("search", {})}
    return task_study(IMAGES, search=search, **sections)


def by_hand(model: Any, images: Sequence[np.ndarray[Any, Any]], mean: Any, std: Any) -> Any:
    """The logits of a model for each image on its own, normalised by NumPy in double precision."""
    values = [(image / 255.0 - mean) / std for image in images]
    inputs = [torch.tensor(value.transpose(2, 0, 1)[None], dtype=torch.float32) for value in values]
    with torch.no_grad():
        return torch.cat([model.eval()(pixel_values=one).logits for one in inputs])


def write_processor(folder: Path, kind: str, **fields: Any) -> Path:
    save_model(folder, "vit", task=IMAGES)
    content = {"image_processor_type": kind, **fields}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


# -- what a model is given -----------------------------------------------------------------------


def test_images_stay_bytes_until_a_batch_of_them_is_read() -> None:
    rows = rows_of(IMAGES, 5)
    examples = encode(IMAGES, rows, None)
    batch = examples.batch(torch.tensor([3, 1]))
    assert examples.inputs["pixel_values"].dtype == torch.uint8
    assert list(batch.arguments) == ["pixel_values"]
    expected = np.stack([rows[n]["pixels"].transpose(2, 0, 1) for n in (3, 1)])
    assert np.array_equal(batch.arguments["pixel_values"].numpy(), expected)
    assert batch.labels.tolist() == [rows[3]["label"], rows[1]["label"]]


def test_one_copy_serves_those_who_learn_labels_and_those_who_do_not(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path, study())
    [training] = agenda.graph.teachers(agenda.cases[0])
    every, labelled = (
        encoded(
            Split(
                spec=training.model,
                data=training.data,
                split="train",
                settings=training.settings,
                labelled=labelled,
                folder=ledger.folder,
                device="cpu",
            )
        )
        for labelled in (False, True)
    )
    assert every is labelled


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_pretrained_model_is_given_what_its_folder_says_each_channel_was_normalised_by(
    kind: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", kind, task=IMAGES)
    rows = rows_of(IMAGES, 4)
    model = load_model(
        folder, "model", TASKS[IMAGES], processor_in(folder, SIDE, trusted=False)
    ).eval()
    with torch.no_grad():
        found = TASKS[IMAGES].outputs(model, everything(encode(IMAGES, rows, None)))
    plain = AutoModelForImageClassification.from_pretrained(folder)
    expected = by_hand(plain, [row["pixels"] for row in rows], MEAN, STD)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    other = by_hand(plain, [row["pixels"] for row in rows], 0.5, 0.5)
    assert not torch.allclose(found, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "fields", "mean", "std"),
    [
        ("ViTImageProcessor", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4] * 3}, None, None),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.9}, None, None),
        ("ViTImageProcessor", {"do_normalize": False}, [0.0] * 3, [1.0] * 3),
        ("ViTImageProcessor", _AS_THEY_ARE, [0.0] * 3, [1 / 255] * 3),
    ],
)
def test_normalisation_is_read_off_what_a_processor_makes_of_images_of_one_colour(
    kind: str, fields: dict[str, Any], mean: Any, std: Any, tmp_path: Path
) -> None:
    usual = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder = write_processor(tmp_path / "model", kind, **{**usual, **fields})
    found = processor_in(folder, SIDE, trusted=False)
    said = {**usual, **fields}
    assert found.mean == pytest.approx(mean or said["image_mean"], abs=1e-5)
    assert found.std == pytest.approx(std or said["image_std"], abs=1e-5)


def test_a_model_at_random_is_given_numbers_from_minus_one_to_one(tmp_path: Path) -> None:
    model = model_in(IMAGES, save_model(tmp_path, "vit", task=IMAGES))
    fit_images(model, processor_at_random(SIDE))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    rows = [{"pixels": np.full((SIDE, SIDE, 3), shade, np.uint8), "label": 0} for shade in (0, 255)]
    TASKS[IMAGES].outputs(model, everything(encode(IMAGES, rows, None)))
    assert seen[0].amin(dim=(1, 2, 3)).tolist() == pytest.approx([-1, 1])
    assert seen[0].amax(dim=(1, 2, 3)).tolist() == pytest.approx([-1, 1])


def test_images_that_are_many_stay_where_they_are_and_go_to_the_device_batch_by_batch() -> None:
    few = encode(IMAGES, rows_of(IMAGES, 2), None)
    side = 26_000  # whose pages are never touched
    many = replace(few, inputs={"pixel_values": torch.empty(2, 3, side, side, dtype=torch.uint8)})
    assert few.to("meta").inputs["pixel_values"].is_meta
    assert many.to("meta").labels.is_meta
    assert not many.to("meta").inputs["pixel_values"].is_meta
    model = nn.Module()
    PROCESSOR.attach(model)
    images = few.inputs["pixel_values"]
    assert normalised(model.to("meta"), images).is_meta


def test_how_images_are_normalised_is_no_part_of_a_models_weights(tmp_path: Path) -> None:
    model = model_in(IMAGES, save_model(tmp_path, "resnet", task=IMAGES))
    plain = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert model.state_dict().keys() == plain.state_dict().keys()


# -- how it is trained and kept ------------------------------------------------------------------


CNN = {"big": {"config": tiny_cnn(8, 16)}, "small": {"config": tiny_cnn(8)}}
_APART = {"initializer_range": 0.3}
"""As they are usually drawn, so small models say the same of all images."""
VIT = {"big": {"config": tiny_vit(2, **_APART)}, "small": {"config": tiny_vit(1, **_APART)}}


@pytest.fixture(scope="module", params=["cnn", "vit"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study of images; the tests read it only."""
    models = {"cnn": CNN, "vit": VIT}[request.param]
    ledger, agenda = begin(
        tmp_path_factory.mktemp(request.param), study(models=models, keep_students="all")
    )
    run_study(ledger, agenda, run_training)
    return ledger


def outcomes(ledger: Ledger, kind: type[Any]) -> list[Any]:
    return [o for o in ledger.results().values() if isinstance(o.training, kind)]


def test_a_teachers_outputs_are_its_logits_on_each_image_alone(done: Ledger) -> None:
    kept = next(o for o in outcomes(done, OutputsTraining) if o.training.split == "train")
    checkpoint = kept.training.checkpoint
    folder = done.path(layout.checkpoint(checkpoint.training, checkpoint.epoch))
    teacher = AutoModelForImageClassification.from_pretrained(folder)
    rows = done.rows(kept.training.data.train)
    expected = by_hand(teacher, [row["pixels"] for row in rows], 0.5, 0.5)
    found = torch.from_numpy(np.load(done.path(layout.outputs(kept.key))))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert found.std(dim=0).min() > 1e-3  # it tells images apart


def test_a_kept_student_has_the_score_that_was_recorded_and_says_it_in_a_pipeline(
    done: Ledger,
) -> None:
    [outcome] = outcomes(done, StudentTraining)
    folder = done.path(layout.student(outcome.key))
    rows = done.rows(outcome.training.data.test)
    classify = pipeline("image-classification", model=str(folder))
    said = classify([Image.fromarray(row["pixels"]) for row in rows], top_k=len(SHAPES))
    right = [each[0]["label"] == SHAPES[row["label"]] for each, row in zip(said, rows, strict=True)]
    assert np.mean(right) == outcome.test
    plain = AutoModelForImageClassification.from_pretrained(folder)
    expected = by_hand(plain, [row["pixels"] for row in rows], 0.5, 0.5).softmax(dim=1)
    for each, probabilities in zip(said, expected, strict=True):
        own = {one["label"]: one["score"] for one in each}
        assert [own[name] for name in SHAPES] == pytest.approx(probabilities.tolist(), abs=1e-4)


def test_an_image_of_another_size_is_cut_for_a_student_as_the_data_sets_were(done: Ledger) -> None:
    [outcome] = outcomes(done, StudentTraining)
    classify = pipeline("image-classification", model=str(done.path(layout.student(outcome.key))))
    wide = np.zeros((SIDE * 2, SIDE * 4, 3), np.uint8)
    wide[:, SIDE : SIDE * 3] = 255  # its middle square
    seen = classify.image_processor(Image.fromarray(wide), return_tensors="pt")["pixel_values"]
    assert seen.shape == (1, 3, SIDE, SIDE)
    assert seen.mean() > 0.9


def test_what_batch_normalisation_learnt_of_the_data_is_kept_with_the_weights(
    tmp_path: Path,
) -> None:
    ledger, agenda = begin(tmp_path, study(models=CNN))
    outcome = run_training(first(agenda, "teacher"), ledger.folder)
    folder = ledger.path(layout.checkpoint(outcome.key, outcome.best_epoch or 0))
    model = AutoModelForImageClassification.from_pretrained(folder)
    normals = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    steps = 12 * (outcome.best_epoch or 0)  # 96 images in batches of 8
    assert [int(normal.num_batches_tracked or 0) for normal in normals] == [steps] * len(normals)
    assert all((normal.running_mean != 0).any() for normal in normals)


def test_a_model_that_normalises_by_batches_learns_from_no_parts_of_a_batch(tmp_path: Path) -> None:
    save_model(tmp_path / "resnet", "resnet", task=IMAGES)
    with pytest.raises(InputError, match=r"a batch of 64 does not fit.*make it smaller"):
        check_parts(model_in(IMAGES, tmp_path / "resnet"), 64)
    save_model(tmp_path / "vit", "vit", task=IMAGES)
    check_parts(model_in(IMAGES, tmp_path / "vit"), 64)


@pytest.mark.parametrize("models", [CNN, VIT])
def test_students_of_images_are_trained_one_by_one(models: Any, tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path, study(models=models, erm=True))
    training = first(agenda, "student")
    assert isinstance(training, StudentTraining)
    given = (training.model, training.data, training.settings, ledger.folder)
    assert fusing_pays(*given) == fusing_pays(*given, asked=4) == 1


def test_a_study_of_pretrained_models_of_images_passes_every_check(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "vit", "vit", task=IMAGES, layers=3)
    models = {"big": str(donor), "small": CNN["small"]}
    students = {"small": {"model": "small"}, "cut": {"model": "big", "layers": 2}}
    given = study(
        models=models,
        students=students,
        teachers={"t": {"checkpoint": "big", "labels": list(SHAPES)}},
    )
    ledger, agenda = begin(tmp_path / "study", given)
    found = preflight(agenda.resolved, ledger, "study.yaml", "digest")
    assert found.forward
    assert [(s.teacher, s.rows) for s in found.samples] == [("t", 24)]
    assert found.readings == ()


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2"])
def test_a_model_of_some_layers_is_read_again_as_it_was(kind: str, tmp_path: Path) -> None:
    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    seen = {**sides, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 8}
    parts = {"vision_config": seen, "text_config": {**sides, "num_hidden_layers": 3}}
    config = AutoConfig.for_model(kind, **(parts if kind == "clip" else seen))
    model = AutoModelForImageClassification.from_config(config).eval()
    whole = sum(weight.numel() for weight in model.parameters())
    truncate(model, "0+2")
    assert sum(weight.numel() for weight in model.parameters()) < 0.7 * whole
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        said = [each(pixel_values=images).logits for each in (model, again)]
    assert torch.equal(*said)


# -- what is refused -----------------------------------------------------------------------------


def problems(folder: Path, given: dict[str, Any]) -> list[str]:
    """What checking a study's models says."""
    _, agenda = begin(folder / "study", given)
    with pytest.raises(InputError) as refused:
        check_models(agenda.resolved, "study.yaml")
    return [str(problem) for problem in refused.value.problems]


def single(folder: Path, given: dict[str, Any]) -> list[str]:
    """What is said of batches of one image."""
    resolved = begin(folder / "study", given)[1].resolved
    return [str(problem) for problem in single_image_problems(resolved, "study.yaml")]


# MobileNetV2 ends in maps of 1 × 1 here, so that an image has one value in each channel.
MOBILENET = {"config": {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "min_depth": 8}}


def of_rows(rows: int) -> dict[str, Any]:
    return {"data": {"task": IMAGES, "grammar": {"train": rows, "validation": 20, "test": 20}}}


def test_a_model_at_random_that_reads_another_size_is_refused_by_the_study_file_alone() -> None:
    models = {**VIT, "small": {"config": tiny_vit(image_size=32)}}
    with pytest.raises(InputError) as refused:
        parse_study(study(models=models), place="study.yaml")
    assert str(refused.value) == (
        "study.yaml: models.small: reads images of 32 × 32, and those of data are 16 × 16 "
        "(set models.small.config.image_size: 16)"
    )


def test_a_pretrained_model_that_reads_another_size_is_refused_with_both(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "vit", "vit", task=IMAGES, image_size=32)
    assert problems(tmp_path, study(models={**CNN, "big": str(donor)})) == [
        "study.yaml: models.big: reads images of 32 × 32, and those of data are 16 × 16: "
        "set datasets.data.image_size: 32"
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (tiny(), "bert classifies no images"),
        (tiny_cnn(8, num_channels=1), "reads images of 1 channels, and those of data have 3"),
        (tiny_cnn(8, layer_type="round"), "layer_type"),
        (
            {"model_type": "convnext", "depths": [1, 1], "hidden_sizes": [8, 8]},
            "the fields of its configuration do not fit one another: IndexError",
        ),
        ({"model_type": "mobilevitv2"}, "cannot read images of 16 × 16, as data has them"),
    ],
)
def test_a_model_that_cannot_read_the_images_is_refused_in_words(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    [problem] = problems(tmp_path, study(models={**CNN, "big": {"config": config}}))
    assert problem.startswith("study.yaml: models.big: ")
    assert words in problem


def test_a_folder_that_does_not_say_how_images_are_normalised_is_refused(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "cnn", "resnet", task=IMAGES)
    (donor / "preprocessor_config.json").unlink()
    [problem] = problems(tmp_path, study(models={**CNN, "big": str(donor)}))
    assert "its folder does not say how its images are normalised" in problem
    assert "copy preprocessor_config.json from the model it was trained from" in problem


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"students": {"cut": {"model": "big", "layers": 1}}},
            "students.cut: resnet has no layers of one kind and size, of which to keep some",
        ),
        ({"training": {"dropout": 0.1}}, "resnet has no dropout in its configuration"),
        ({"training": {"gradient_checkpointing": True}}, "cannot recompute them"),
    ],
)
def test_what_a_cnn_does_not_have_is_refused_in_words(
    sections: dict[str, Any], words: str, tmp_path: Path
) -> None:
    donor = save_model(tmp_path / "cnn", "resnet", task=IMAGES)
    found = problems(tmp_path, study(models={**CNN, "big": str(donor)}, **sections))
    assert any(words in problem for problem in found), found


def test_terms_of_models_of_images_are_refused(tmp_path: Path) -> None:
    given = study(models=VIT, search={"hidden_states": [0.1]})
    with pytest.raises(InputError, match="terms compare models of texts, and data has images"):
        begin(tmp_path / "study", given)


@pytest.mark.parametrize(
    ("sections", "where", "size", "which"),
    [
        ({"training": {"batch_size": 8}}, "training.batch_size", 8, "the last batch"),
        ({"search": {"batch_size": [10, 32, 48]}}, "search.batch_size", 32, "the last batch"),
        ({"training": {"batch_size": 1}}, "training.batch_size", 1, "each batch"),
    ],
)
def test_a_last_batch_of_one_that_cannot_be_normalised_is_refused_with_the_arithmetic(
    sections: dict[str, Any], where: str, size: int, which: str, tmp_path: Path
) -> None:
    # MobileNetV2 ends in maps of 1 × 1 here, so that an image has one value in each channel.
    small = {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "min_depth": 8}
    data = {"task": IMAGES, "grammar": {"train": 97, "validation": 20, "test": 20}}
    models = {"big": VIT["big"], "small": {"config": small}}
    assert single(tmp_path, study(models=models, datasets={"data": data}, **sections)) == [
        f"study.yaml: {where}: at a batch_size of {size} {which} of data holds one of its "
        "97 images, and small normalises by batches: one image is none "
        "(take another, or leave a row out: datasets.data.limit.train)"
    ]


def test_and_so_is_one_of_what_a_student_starts_from(tmp_path: Path) -> None:
    own = {"model": "small", "fine_tune": {"learning_rate": [1e-3], "epochs": 1}}
    own["training"] = {"batch_size": 8}
    usual = study(models={"big": VIT["big"], "small": MOBILENET}, datasets=of_rows(25))
    given = {
        **usual,
        "teachers": {**usual["teachers"], "own": own},
        "students": {name: {**each, "start": "own"} for name, each in usual["students"].items()},
        "test_cases": [{"teacher": name} for name in usual["teachers"]],
        "training": {**usual["training"], "batch_size": 4, "epochs": 1},
    }
    found = single(tmp_path, given)
    assert [each.split(": at a")[0] for each in found] == [
        "study.yaml: training.batch_size",
        "study.yaml: teachers.own.training.batch_size",
    ]


# -- how large it is -----------------------------------------------------------------------------


def in_stages(kind: str, width: int, depths: list[int], **fields: Any) -> dict[str, Any]:
    widths = [width * 2**stage for stage in range(len(depths))]
    return {"model_type": kind, "hidden_sizes": widths, "depths": depths, **fields}


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (
            {
                "model_type": "resnet",
                "hidden_sizes": [256, 512, 1024, 2048],
                "depths": [3, 4, 6, 3],
            },
            4.1,
        ),
        (
            {
                "model_type": "resnet",
                "layer_type": "basic",
                "hidden_sizes": [64, 128, 256, 512],
                "depths": [2, 2, 2, 2],
            },
            1.8,
        ),
        ({"model_type": "vit", "hidden_size": 384, "num_hidden_layers": 12}, 4.6),
        (
            {"model_type": "convnext", "hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]},
            4.5,
        ),
        ({"model_type": "timm_wrapper", "architecture": "regnety_064"}, 6.4),
    ],
)
def test_the_multiplications_of_an_image_are_guessed_by_a_configuration(
    config: dict[str, Any], billions: float
) -> None:
    found = image_products(Model(config=config), 224)
    assert found is not None
    assert found == pytest.approx(billions * 1e9, rel=0.2)
    assert image_products(Model(config=config), 112) == pytest.approx(found / 4, rel=0.1)
    assert image_products(Model(hub="somebody/something"), 224) is None
