"""What is kept of a teacher on views of images is what it says of the very images that students
see, and all students of a study share it."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import begin, run_study, settings_of, without_cost
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    ResNetForImageClassification,
)
from typer.testing import CliRunner

from kdsearch.agenda import (
    Kind,
    OutputsTraining,
    Speeds,
    StudentTraining,
    Training,
    case_counts,
    left,
    parse_training,
    resolved_view_bytes,
    written,
)
from kdsearch.cli.app import app
from kdsearch.distill import run_training
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.training import TrainingState, batches
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout, verify
from kdsearch.search import Mlkd
from kdsearch.study import Augmentation, space_of
from kdsearch.study import test_cases as cases_of
from kdsearch.tasks import TASKS, Encoded, ImageProcessor, Views

VIT = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}
ROWS = 20
EPOCHS = 3


def resnet(*widths: int) -> dict[str, Any]:
    return {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [*widths],
        "depths": [1] * len(widths),
        "layer_type": "basic",
    }


def image_study(augmentation: Any, **sections: Any) -> dict[str, Any]:
    usual = {"strategy": "exhaustive", "distance": ["ce"], "alpha": [1.0], "temperature": [4.0]}
    search = {**usual, **sections.pop("search", {})}
    return {
        "name": "views",
        "students": {"small": {"model": "small"}},
        "resources": {"fuse": 1},
        "datasets": {
            "data": {
                "task": "image_classification",
                "grammar": {"train": ROWS, "validation": 8, "test": 8},
            }
        },
        "models": {"big": {"config": resnet(8, 16)}, "small": {"config": resnet(8)}},
        "teachers": {
            "big": {
                "model": "big",
                "fine_tune": {"learning_rate": [3e-3], "epochs": 1},
                "training": {"augmentation": "none"},
            }
        },
        "search": {"learning_rate": [1e-2], "teacher": ["t_hs"], **search},
        "training": {
            "epochs": EPOCHS,
            "batch_size": 8,
            "precision": "fp32",
            "augmentation": augmentation,
            **sections.pop("training", {}),
        },
        **({"seed": 3} if "seeds" not in sections else {}),
        **sections,
    }


@dataclass
class Seen:
    """What models that learn are given, batch by batch: normalised images; and what they say."""

    images: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


@contextmanager
def seen() -> Iterator[Seen]:
    found = Seen()

    def see(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if type(module).__name__ == "ResNetEmbeddings" and module.training:
            found.images.append(arguments[0].clone())

    def hear(module: nn.Module, arguments: tuple[Any, ...], said: Any) -> None:
        if isinstance(module, ResNetForImageClassification) and module.training:
            found.logits.append(said.logits.detach().clone())

    handles = register_module_forward_pre_hook(see), register_module_forward_hook(hear)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def run_watched(folder: Path, study: dict[str, Any]) -> tuple[Ledger, StudentTraining, Seen]:
    """A study of one student: its ledger, that student, and what it saw and said."""
    ledger, agenda = begin(folder, study)
    found: list[tuple[StudentTraining, Seen]] = []

    def watched(training: Any, folder: Path) -> Any:
        with seen() as each:
            outcome = run_training(training, folder)
        if isinstance(training, StudentTraining):
            found.append((training, each))
        return outcome

    run_study(ledger, agenda, watched)
    [(student, each)] = found
    return ledger, student, each


def of_kind(ledger: Ledger, kind: type[Any]) -> list[Any]:
    every = (outcome.training for outcome in ledger.results().values() if outcome is not None)
    return [training for training in every if isinstance(training, kind)]


def on_views(ledger: Ledger) -> dict[str, OutputsTraining]:
    return {
        training.key: training
        for training in of_kind(ledger, OutputsTraining)
        if training.settings.augmentation is not None
    }


def teacher_of(ledger: Ledger, training: StudentTraining) -> Any:
    """Its teacher, read as anyone would."""
    taught = training.taught.teacher
    assert taught.training is not None
    assert taught.epoch is not None
    folder = ledger.path(layout.checkpoint(taught.training, taught.epoch))
    return AutoModelForImageClassification.from_pretrained(folder).eval()


def kept(ledger: Ledger, key: str) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = np.load(ledger.path(layout.outputs(key)))
    return found


def order_of(student: StudentTraining) -> list[tuple[int, Tensor]]:
    """The epoch and the examples of each of its batches."""
    return [
        (epoch, indices)
        for epoch in range(1, EPOCHS + 1)
        for indices in batches(torch.ones(ROWS), 8, student.seed, epoch)
    ]


def train_losses(
    student: StudentTraining, logits: list[Tensor], taught: list[Tensor]
) -> list[float]:
    """Of each epoch the mean over its examples of the cross-entropy at temperature 4."""
    totals = [0.0] * EPOCHS
    for (epoch, indices), own, theirs in zip(order_of(student), logits, taught, strict=True):
        terms = (theirs.double() / 4).softmax(1) * (own.double() / 4).log_softmax(1)
        totals[epoch - 1] -= float(terms.sum(1).mean()) * len(indices)
    return [total / ROWS for total in totals]


@pytest.mark.parametrize("name", ["light", "full"])
def test_a_student_learns_what_the_teacher_says_of_the_very_images_that_it_sees(
    name: str, tmp_path: Path
) -> None:
    views = 2
    study = image_study({"like": name, "views": views})
    ledger, student, found = run_watched(tmp_path, study)
    teacher, outputs = teacher_of(ledger, student), kept(ledger, student.taught.outputs)
    assert outputs.shape == (views * ROWS, 6)
    assert outputs.dtype == np.float16
    with torch.no_grad():
        taught = [teacher(pixel_values=images).logits for images in found.images]
    order = order_of(student)
    for said, (epoch, indices) in zip(taught, order, strict=True):
        rows = (epoch - 1) % views * ROWS + indices.numpy()
        # Half precision keeps 11 bits; batches of another size round otherwise in the last bits.
        np.testing.assert_allclose(outputs[rows], said.numpy(), rtol=2e-3, atol=2e-5)
    outcome = ledger.outcome(student.key)
    assert outcome is not None
    assert [epoch.train_loss for epoch in outcome.epochs] == pytest.approx(
        train_losses(student, found.logits, taught), rel=1e-5
    )
    first, again = torch.cat(found.images[:3]), torch.cat(found.images[6:])
    numbers = [torch.cat([i for e, i in order if e == epoch]).argsort() for epoch in (1, 3)]
    assert torch.equal(first[numbers[0]], again[numbers[1]])  # epoch 3 sees view 0 again


def test_of_two_views_both_are_kept_and_seen_the_weak_ones_first(tmp_path: Path) -> None:
    views = 2
    search = {
        "distance": ["mlkd"],
        "two_views": [True],
        "label_weight": [0.0],
        "temperature": [2.0],
    }
    study = image_study({"like": "full", "views": views}, search=search)
    del study["search"]["alpha"]
    ledger, student, found = run_watched(tmp_path, study)
    every = on_views(ledger)
    assert every.keys() == {student.taught.outputs, student.taught.weak}
    assert [str(every[key].settings.augmentation) for key in student.reads] == [
        "crop, flip; 2 views",
        "crop, RandAugment n=2 m=9, flip, MixUp α=1 or CutMix α=1; 2 views",
    ]
    teacher = teacher_of(ledger, student)
    totals = [0.0] * EPOCHS
    for images, own, (epoch, indices) in zip(
        found.images, found.logits, order_of(student), strict=True
    ):
        rows = (epoch - 1) % views * ROWS + indices.numpy()
        with torch.no_grad():
            said = teacher(pixel_values=images).logits
        both = [kept(ledger, key)[rows] for key in student.reads]
        np.testing.assert_allclose(np.concatenate(both), said.numpy(), rtol=2e-3, atol=2e-5)
        units = Units(student=own, teacher=said, labels=torch.full((len(said),), -100), epoch=epoch)
        totals[epoch - 1] += float(compute(student.objective, units)) * len(indices)
    outcome = ledger.outcome(student.key)
    assert outcome is not None
    assert [epoch.train_loss for epoch in outcome.epochs] == pytest.approx(
        [total / ROWS for total in totals], rel=1e-3
    )


def asked(folder: Path, study: dict[str, Any]) -> dict[str, set[str]]:
    """The keys of the outputs on views that a study's students wait for, by augmentation, and of
    the students."""
    _, agenda = begin(folder, study)
    graph, found = agenda.graph, dict[str, set[str]]()
    for case in cases_of(agenda.resolved.study):
        [teacher] = graph.teachers(case)
        outputs = graph.outputs(case, graph.checkpoint(teacher, 1))[0]
        space = space_of(agenda.resolved.study, case)
        for trial in (trial for choice in space.choices() for trial in space.trials(choice)):
            before = graph.prerequisites(case, trial, outputs)
            for training in before:
                assert isinstance(training, OutputsTraining)
                name = str(training.settings.augmentation)
                found.setdefault(name, set()).add(training.key)
            for student in graph.students(case, trial, outputs):
                assert {*student.reads} == {training.key for training in before}
                found.setdefault("students", set()).add(student.key)
    return found


def test_losses_temperatures_optimizers_batch_sizes_and_durations_share_the_outputs(
    tmp_path: Path,
) -> None:
    search = {
        "distance": ["ce", "mse", "reverse_kl"],
        "temperature": [1.0, 4.0, 16.0],
        "optimizer": ["adamw", "sgd"],
        "batch_size": [4, 8],
        "epochs": [1, 3, 7],
        "schedule": ["cosine"],
        "learning_rate": [1e-3, 1e-2],
        "clip": ["none", 1.0],
        "weight_decay": [0, 0.1],
    }
    found = asked(tmp_path, image_study("full", search=search, seeds=[3, 1]))
    students = found.pop("students")
    assert len(students) == 2 * (3 + 1 + 3) * 2 * 2 * 3 * 2 * 2 * 2
    assert [*map(len, found.values())] == [1]


def test_another_augmentation_asks_for_other_outputs_and_so_does_a_students_own(
    tmp_path: Path,
) -> None:
    students = {
        "small": {"model": "small"},
        "own": {"model": "small", "training": {"augmentation": {"crop": "inception"}}},
        "light": {"model": "small", "training": {"augmentation": "light"}},
        "plain": {"model": "small", "training": {"augmentation": "none"}},
    }
    found = asked(tmp_path, image_study({"like": "full", "views": 5}, students=students))
    del found["students"]
    assert {name: len(keys) for name, keys in found.items()} == {
        "crop, RandAugment n=2 m=9, flip, MixUp α=1 or CutMix α=1; 5 views": 1,
        "inception crop, RandAugment n=2 m=9, flip, MixUp α=1 or CutMix α=1; 5 views": 1,
        "crop, flip; 5 views": 1,
        "None": 1,
    }


def test_a_search_compares_augmentations_and_keeps_its_own_crop_and_number_of_views(
    tmp_path: Path,
) -> None:
    own = {"crop": "inception", "views": 4}
    found = asked(tmp_path, image_study(own, search={"augmentation": ["none", "light", "full"]}))
    assert len(found.pop("students")) == 3
    assert {name: len(keys) for name, keys in found.items()} == {
        "None": 1,
        "inception crop; 4 views": 1,
        "inception crop, RandAugment n=2 m=9, MixUp α=1 or CutMix α=1; 4 views": 1,
    }


def test_the_views_are_of_the_studys_seed_and_not_of_the_students(tmp_path: Path) -> None:
    found = [asked(tmp_path / str(n), image_study("light", seed=n)) for n in (1, 2)]
    first, second = ({key for keys in each.values() for key in keys} for each in found)
    assert not first & second


def test_no_augmentation_is_in_no_key(tmp_path: Path) -> None:
    study = image_study("none")
    without = image_study("none")
    del without["training"]["augmentation"]
    del without["teachers"]["big"]["training"]
    assert asked(tmp_path / "a", study) == asked(tmp_path / "b", without)
    _, agenda = begin(tmp_path / "c", study)
    [case] = cases_of(agenda.resolved.study)
    [teacher] = agenda.graph.teachers(case)
    checkpoint = agenda.graph.checkpoint(teacher, 1)
    trainings: tuple[Training, ...] = (teacher, *agenda.graph.outputs(case, checkpoint))
    for training in trainings:
        old = written(training)
        del old["settings"]["augmentation"]
        old["settings"].pop("views_seed", None)
        assert parse_training(old).key == training.key


# -- what it costs ---------------------------------------------------------------------------------


def test_as_many_passes_and_bytes_are_counted_as_there_are(tmp_path: Path) -> None:
    search = {"augmentation": ["none", "light", "full"], "temperature": [1.0, 4.0]}
    ledger, agenda = begin(tmp_path, image_study("none", search=search, training={"epochs": 1}))
    resolved = agenda.resolved
    [case] = cases_of(resolved.study)
    bytes_of = resolved_view_bytes(resolved, case)
    of_split = {split: found.rows for split, found in resolved.datasets["data"].splits.items()}
    others = (of_split["validation"] + of_split["test"]) * 6 * 4
    assert bytes_of == {
        "crop, flip; 20 views": ROWS * 20 * 6 * 2 + others,
        "crop, RandAugment n=2 m=9, flip, MixUp α=1 or CutMix α=1; 20 views": ROWS * 20 * 6 * 2
        + others,
    }
    expected = case_counts(resolved.study, case).outputs
    assert left(agenda).most == left(agenda).fewest == 1 + 3 + 2 + 6
    run_study(ledger, agenda, run_training)
    done = of_kind(ledger, OutputsTraining)
    assert expected.fewest == expected.most == len(done) == 3 + 2
    assert left(agenda).most == 0
    written_there = [
        outcome.cost.bytes_written
        for outcome in ledger.results().values()
        if outcome is not None and outcome.key in on_views(ledger)
    ]
    headers = 3 * 128
    assert sorted(n - headers for n in written_there) == sorted(bytes_of.values())
    assert verify(ledger).problems == []


def test_what_a_pass_over_a_split_takes_is_learnt_from_those_over_views() -> None:
    one = Kind("outputs", "rows", "big", None)
    speeds = Speeds({one: 5.0})
    assert speeds.learn(one._replace(views=4), 8.0)
    assert (speeds.seconds(one), speeds.longest["outputs"]) == (2.0, 8.0)


def test_views_that_the_disk_cannot_hold_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1, 1, 10**6))
    with pytest.raises(InputError) as caught:
        begin(tmp_path / "a", image_study({"like": "light", "views": 10_000}))
    [problem] = caught.value.problems
    assert "those on views of images 2.4 MB" in problem.what
    assert "set fewer views (training.augmentation.views)" in str(problem.remedy)
    begin(tmp_path / "b", image_study({"like": "light", "views": 100}))


def test_plan_tells_the_bytes_of_views_and_the_time_of_their_passes(tmp_path: Path) -> None:
    def planned(augmentation: Any) -> tuple[dict[str, Any], str]:
        path = tmp_path / "study.yaml"
        path.write_text(json.dumps(image_study(augmentation)), encoding="utf-8")
        command = ["plan", str(path), "--speed", "100"]
        told = [CliRunner().invoke(app, [*command, *more]) for more in ([], ["--json"])]
        assert [each.exit_code for each in told] == [0, 0], told[0].output
        return json.loads(told[1].output), " ".join(told[0].output.split())

    none, _ = planned("none")
    some, said = planned({"like": "light", "views": 40})
    assert none["caches"][0]["views"] == {}
    size = 40 * ROWS * 6 * 2 + 16 * 6 * 4
    assert some["caches"][0]["views"] == {"crop, flip; 40 views": size}
    assert some["caches"][0]["bytes"] == none["caches"][0]["bytes"] + size
    assert "on data in crop, flip; 40 views, each a pass over the training rows" in said
    # A pass over a split is told as the mean of the three; one over a view is of the training rows.
    a_pass = none["caches"][0]["seconds"]["most"] - none["caches"][0]["seconds"]["fewest"]
    assert a_pass == 0
    more = some["teacher_seconds"]["most"] - none["teacher_seconds"]["most"]
    three = none["teacher_seconds"]["most"] - _of_training(none)
    assert more == pytest.approx(40 * three * ROWS / (ROWS + 16), rel=1e-6)


def _of_training(facts: dict[str, Any]) -> float:
    """What the teacher takes that is trained for an epoch: three passes forward over its rows."""
    of_all = facts["teacher_seconds"]["most"]
    return float(of_all * 3 * ROWS / (3 * ROWS + ROWS + 16))


# -- on the way ------------------------------------------------------------------------------------


class DeadError(Exception):
    """The process ends here."""


def test_a_training_that_died_within_an_epoch_goes_on_with_the_same_images(tmp_path: Path) -> None:
    study = image_study(
        {"like": "full", "views": 2}, resources={"checkpoint_minutes": 1e-9, "fuse": 1}
    )
    ledger, agenda = begin(tmp_path, study)
    inputs: list[Tensor] = []
    outcomes = []

    def dies(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if type(module).__name__ == "ResNetEmbeddings" and module.training:
            inputs.append(arguments[0].clone())
            if len(inputs) == 6:
                raise DeadError

    def watched(training: Any, folder: Path) -> Any:
        if not isinstance(training, StudentTraining):
            return run_training(training, folder)
        handle = register_module_forward_pre_hook(dies)
        with pytest.raises(DeadError):
            run_training(training, folder)
        handle.remove()
        with seen() as after:
            outcome = run_training(training, folder)
        Ledger(folder).remove_progress(training.key)
        with seen() as whole:
            outcomes.extend([outcome, run_training(training, folder)])
        # The batch in which it died is seen again; those before it are not.
        assert len(inputs) == 6
        assert len(whole.images) == 9
        assert all(map(torch.equal, [*inputs[:5], *after.images], whole.images))
        return outcome

    run_study(ledger, agenda, watched)
    assert without_cost(outcomes[0]) == without_cost(outcomes[1])


def test_a_batch_of_two_views_in_parts_gives_the_gradient_of_the_whole() -> None:
    strong = Augmentation(crop="pad", flip=True, cutmix=1.0, views=2)
    weak = strong.weak
    assert weak is not None
    task = TASKS["image_classification"]
    settings = settings_of("image_classification", batch_size=ROWS, optimizer="sgd")
    drawn = torch.Generator().manual_seed(1)
    examples = Encoded(
        inputs={
            "pixel_values": torch.randint(
                0, 256, (ROWS, 3, 16, 16), generator=drawn, dtype=torch.uint8
            )
        },
        lengths=torch.ones(ROWS, dtype=torch.long),
        counted=torch.ones(ROWS, 1, dtype=torch.bool),
        labels=torch.zeros(ROWS, dtype=torch.long),
        references=(),
        views=tuple(Views(augmentation=each, seed=1) for each in (weak, strong)),
    )
    values = [torch.randn(2 * ROWS, 6, generator=drawn).half() for _ in range(2)]
    teacher = CachedOutputs(values=values[0], weak=values[1], head=None)
    objective = Mlkd(temperature=2.0, label_weight=0.0, two_views=True)
    found = []
    for parts in (1, 3):
        torch.manual_seed(0)
        config = AutoConfig.for_model("vit", **VIT, num_labels=6)
        model = AutoModelForImageClassification.from_config(config)
        ImageProcessor(mean=[0.5] * 3, std=[0.5] * 3, size=16).attach(model)
        state = TrainingState(
            *(model, task, examples),
            *(batch_loss(task, model, objective, teacher), settings),
            learning_rate=1.0,
            parts=parts,
        )
        state.begin(2)
        state.step(torch.arange(ROWS).flip(0), 2)
        found.append(model.classifier.weight.detach().clone())
        torch.manual_seed(0)
        first = AutoModelForImageClassification.from_config(config).classifier.weight
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert float((found[0] - first).abs().max()) > 1e-3
