from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import RecordedTraining
from models import (
    DISTANCES,
    LABEL_NAMES,
    SEQ2SEQ,
    TASK_LABELS,
    begin,
    cross_entropy,
    encode,
    first,
    kind_for,
    macro_f1,
    model_in,
    multilingual,
    one_by_one,
    reader_in,
    rows_of,
    run_study,
    save_model,
    settings_of,
    task_study,
    tiny,
    tiny_study,
    without_cost,
)
from safetensors.torch import load_file, save_file
from seqeval.metrics import f1_score
from seqeval.scheme import BILOU
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
    written,
)
from kdsearch.distill import check_models, run_training
from kdsearch.distill.outputs import write_outputs
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.search import Checkpoint, Labels
from kdsearch.study import SPECS, digest_model
from kdsearch.study.rows import digest_rows
from kdsearch.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A tiny study that has run to its end."""

    ledger: Ledger
    agenda: Agenda

    def outcomes(self, kind: str) -> list[Outcome]:
        found = [o for o in self.ledger.outcomes() if o.training.kind == kind]
        assert found
        return found

    @property
    def teacher(self) -> Outcome:
        (outcome,) = self.outcomes("teacher")
        return outcome

    def student(self, distance: str = "ce", alpha: float = 1.0) -> Outcome:
        """A student's outcome, the same one each time."""
        return next(
            o
            for o in self.outcomes("student")
            if isinstance(o.training, StudentTraining)
            and o.training.objective.kind == distance
            and o.training.objective.parameters["alpha"] == alpha
        )

    def copy(self, folder: Path) -> Path:
        """A folder like this study's, to change or to run a training again in."""
        shutil.copytree(self.ledger.folder, folder)
        return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    ledger, agenda = begin(tmp_path_factory.mktemp("study"), tiny_study())
    run_study(ledger, agenda, run_training)
    return Ran(ledger=ledger, agenda=agenda)


def digest_of(training: Training, split: str) -> str:
    found: str = getattr(training.data, split)
    return found


def outputs_of(ledger: Ledger, training: OutputsTraining) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = np.load(ledger.folder / "outputs" / f"{training.key}.npy")
    return found


def recorded_as_it_is(path: Path) -> None:
    """Have a teacher's outputs stand in the folder as what their training wrote."""
    ledger = Ledger(path.parent.parent)
    name = f"outputs/{path.name}"
    digest = ledger.digest(name)
    assert digest is not None
    ledger.write_digests(path.name.partition(".")[0], {name: digest})


# -- a whole study -----------------------------------------------------------------------------


def test_a_study_runs_to_its_end(ran: Ran) -> None:
    assert ran.agenda.complete
    (view,) = ran.agenda.views()
    assert view.traversed
    assert view.blocked is None
    assert all(o.state == "scored" for o in ran.ledger.outcomes())


def test_a_second_launch_trains_nothing(ran: Ran, tmp_path: Path) -> None:
    ledger, agenda = begin(ran.ledger.folder, tiny_study())
    again = RecordedTraining(log=tmp_path / "log")
    run_study(ledger, agenda, again)
    assert agenda.complete
    assert again.runs() == []


def test_every_file_that_is_kept_is_in_an_outcome_with_its_size(ran: Ran) -> None:
    folder = ran.ledger.folder
    named = {name for o in ran.ledger.outcomes() for name in o.digests}
    there = {
        str(path.relative_to(folder))
        for kind in ("checkpoints", "outputs", "students", "tested")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }
    assert named == there
    for outcome in ran.ledger.outcomes():
        kept = [name for name in outcome.digests if not name.startswith("tested/")]
        sizes = [(folder / name).stat().st_size for name in kept]
        assert outcome.cost.bytes_written == sum(sizes)


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_best_epoch_is_the_first_of_the_highest_score(ran: Ran, kind: str) -> None:
    for outcome in ran.outcomes(kind):
        scores = [epoch.validation for epoch in outcome.epochs]
        assert outcome.best_epoch == 1 + int(np.argmax(scores))  # type: ignore[arg-type]
        assert outcome.validation == scores[outcome.best_epoch - 1]


def test_the_lowest_loss_epoch_is_the_first_of_the_lowest_validation_loss(ran: Ran) -> None:
    losses = [epoch.validation_loss for epoch in ran.teacher.epochs]
    assert ran.teacher.lowest_loss_epoch == 1 + int(np.argmin(losses))  # type: ignore[arg-type]


# -- the teacher -------------------------------------------------------------------------------


def test_a_teacher_keeps_its_best_and_its_lowest_loss_epoch(ran: Ran) -> None:
    kept = (ran.ledger.folder / "checkpoints" / ran.teacher.key).iterdir()
    wanted = {ran.teacher.best_epoch, ran.teacher.lowest_loss_epoch}
    assert {path.name for path in kept} == {f"epoch-{epoch}" for epoch in wanted}


@pytest.mark.parametrize("which", ["best_epoch", "lowest_loss_epoch"])
def test_a_kept_checkpoint_loads_by_itself_and_scores_what_is_recorded(
    ran: Ran, which: str
) -> None:
    epoch = getattr(ran.teacher, which)
    folder = ran.ledger.folder / "checkpoints" / ran.teacher.key / f"epoch-{epoch}"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = ran.ledger.rows(digest_of(ran.teacher.training, "validation"))
    logits = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows).numpy()
    gold = [row["label"] for row in rows]
    recorded = ran.teacher.epochs[epoch - 1]
    assert model.config.id2label == dict(enumerate(LABEL_NAMES))
    assert recorded.validation == pytest.approx(macro_f1(logits.argmax(axis=1), gold, 3))
    assert recorded.validation_loss == pytest.approx(cross_entropy(logits, gold), rel=1e-4)


def test_a_teacher_that_diverges_keeps_nothing(tmp_path: Path) -> None:
    study = tiny_study(
        teachers={"big": {"model": "big", "fine_tune": {"learning_rate": [1e30], "epochs": 2}}}
    )
    ledger, agenda = begin(tmp_path, study)
    run_study(ledger, agenda, run_training)
    (outcome,) = ledger.outcomes()
    assert outcome.state == "diverged"
    assert outcome.validation is None
    assert outcome.best_epoch is None
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert agenda.views()[0].blocked == "no training of its teacher succeeded"


# -- a checkpoint's outputs --------------------------------------------------------------------


def outputs_by_split(ran: Ran, split: str) -> list[tuple[Outcome, OutputsTraining]]:
    return [
        (outcome, outcome.training)
        for outcome in ran.outcomes("outputs")
        if isinstance(outcome.training, OutputsTraining) and outcome.training.split == split
    ]


def checkpoint_folder(ledger: Ledger, training: OutputsTraining) -> Path:
    """Where a teacher's checkpoint lies that was fine-tuned here."""
    checkpoint = training.checkpoint
    folder = ledger.folder / "checkpoints" / str(checkpoint.training)
    return folder / f"epoch-{checkpoint.epoch}"


def test_outputs_are_the_checkpoints_logits_in_the_order_of_the_rows(ran: Ran) -> None:
    for _, training in outputs_by_split(ran, "train"):
        folder = checkpoint_folder(ran.ledger, training)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        rows = ran.ledger.rows(training.data.train)
        expected = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows)
        found = outputs_of(ran.ledger, training)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_outputs_on_every_split_are_kept_by_the_training_of_those_to_learn_from(ran: Ran) -> None:
    kept = {path.name for path in (ran.ledger.folder / "outputs").iterdir()}
    keys = [outcome.key for outcome, _ in outputs_by_split(ran, "train")]
    ends = ("npy", "validation.npy", "test.npy")
    assert kept == {f"{key}.{end}" for key in keys for end in ends}
    assert all(not outcome.digests for outcome, _ in outputs_by_split(ran, "validation"))
    for outcome, _ in outputs_by_split(ran, "test"):
        assert all(name.startswith("tested/") for name in outcome.digests)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_outputs_to_measure_against_are_the_checkpoints_logits_too(ran: Ran, split: str) -> None:
    for _, training in outputs_by_split(ran, "train"):
        folder = checkpoint_folder(ran.ledger, training)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        rows = ran.ledger.rows(digest_of(training, split))
        expected = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows)
        found = np.load(ran.ledger.folder / "outputs" / f"{training.key}.{split}.npy")
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_checkpoint_is_scored_by_what_it_says_of_each_row(ran: Ran, split: str) -> None:
    for outcome, training in outputs_by_split(ran, split):
        folder = checkpoint_folder(ran.ledger, training)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        rows = ran.ledger.rows(digest_of(training, split))
        logits = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows)
        score = macro_f1(logits.argmax(dim=1).tolist(), [row["label"] for row in rows], 3)
        assert getattr(outcome, split) == pytest.approx(score)


def test_the_validation_score_of_a_checkpoint_is_that_of_its_epoch(ran: Ran) -> None:
    for outcome, training in outputs_by_split(ran, "validation"):
        assert training.checkpoint.epoch is not None
        recorded = ran.teacher.epochs[training.checkpoint.epoch - 1].validation
        assert outcome.validation == recorded


def test_a_pass_over_a_split_records_no_score_of_another(ran: Ran) -> None:
    for split in ("train", "validation", "test"):
        for outcome, _ in outputs_by_split(ran, split):
            assert (outcome.validation is None) == (split != "validation")
            assert (outcome.test is None) == (split != "test")


# -- students ----------------------------------------------------------------------------------


def test_a_student_learns_without_its_teachers_weights(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    recorded = ran.student()
    assert without_cost(run_training(recorded.training, folder)) == without_cost(recorded)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_same_student_trained_twice_has_the_same_outcome(ran: Ran, distance: str) -> None:
    recorded = ran.student(distance)
    again = run_training(recorded.training, ran.ledger.folder)
    assert without_cost(again) == without_cost(recorded)


def test_a_student_of_another_seed_has_another_outcome(ran: Ran) -> None:
    recorded = ran.student()
    other = run_training(recorded.training.model_copy(update={"seed": 4}), ran.ledger.folder)
    assert other.epochs != recorded.epochs


def with_shuffled_labels(ran: Ran, training: Training, folder: Path) -> Training:
    """The training on the same texts, whose labels stand in another order; kept in `folder`."""
    rows = ran.ledger.rows(digest_of(training, "train"))
    labels = [row["label"] for row in rows]
    random.Random(0).shuffle(labels)
    rows = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
    Ledger(folder).write_rows(digest_rows(rows), rows)
    data = training.data.model_copy(update={"train": digest_rows(rows)})
    return training.model_copy(update={"data": data})


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_student_at_alpha_1_does_not_look_at_the_labels(
    ran: Ran, distance: str, tmp_path: Path
) -> None:
    folder = ran.copy(tmp_path / "copy")
    recorded = ran.student(distance)
    other = run_training(with_shuffled_labels(ran, recorded.training, folder), folder)
    assert other.epochs == recorded.epochs
    assert other.test == recorded.test


def test_a_student_below_alpha_1_looks_at_the_labels(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    recorded = next(
        o
        for o in ran.outcomes("student")
        if isinstance(o.training, StudentTraining)
        and o.training.objective.parameters["alpha"] == 0.5
    )
    other = run_training(with_shuffled_labels(ran, recorded.training, folder), folder)
    assert other.epochs != recorded.epochs


def test_a_student_looks_at_its_teachers_outputs(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    recorded = ran.student()
    assert isinstance(recorded.training, StudentTraining)
    path = folder / "outputs" / f"{recorded.training.taught.outputs}.npy"
    np.save(path, np.load(path)[::-1].copy())
    recorded_as_it_is(path)
    assert run_training(recorded.training, folder).epochs != recorded.epochs


def test_outputs_of_another_number_of_rows_are_refused(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    training = ran.student().training
    assert isinstance(training, StudentTraining)
    path = folder / "outputs" / f"{training.taught.outputs}.npy"
    np.save(path, np.load(path)[:-1])
    recorded_as_it_is(path)
    with pytest.raises(InputError, match="has 95 rows, not 96"):
        run_training(training, folder)


def test_a_student_can_be_some_layers_of_a_pretrained_model(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "donor", layers=3)
    study = tiny_study(
        models={"big": {"config": tiny()}, "donor": str(donor)},
        students={"cut": {"model": "donor", "layers": 1}, "whole": {"model": "donor"}},
        search={**tiny_study()["search"], "distance": ["mse"], "teacher": ["t_hs"], "alpha": [1]},
    )
    ledger, agenda = begin(tmp_path / "study", study)
    run_study(ledger, agenda, run_training)
    sizes = {
        o.training.model.layers: o.parameters
        for o in ledger.outcomes()
        if isinstance(o.training, StudentTraining)
    }
    whole = AutoModelForSequenceClassification.from_pretrained(donor)
    layer = sum(p.numel() for p in whole.bert.encoder.layer[0].parameters())
    assert sizes == {1: whole.num_parameters() - 2 * layer, None: whole.num_parameters()}


# -- given teachers ----------------------------------------------------------------------------


def given_study(teacher: dict[str, Any], **models: Path) -> dict[str, Any]:
    return tiny_study(
        models={
            "small": {"config": tiny()},
            **{name: {"path": str(path)} for name, path in models.items()},
        },
        teachers={"given": teacher},
    )


def run_outputs(ledger: Ledger, agenda: Agenda) -> list[OutputsTraining]:
    """Run the outputs that a study asks for at its start."""
    found = []
    for request in agenda.requests():
        assert isinstance(request.training, OutputsTraining)
        ledger.write_outcome(run_training(request.training, ledger.folder))
        found.append(request.training)
    return found


def test_a_given_teacher_without_a_head_is_refused_and_teaches_nothing(tmp_path: Path) -> None:
    tuned = save_model(tmp_path / "tuned")
    AutoModel.from_pretrained(tuned).save_pretrained(tuned)
    study = given_study({"checkpoint": "tuned", "labels": list(LABEL_NAMES)}, tuned=tuned)
    ledger, agenda = begin(tmp_path / "study", study)
    with pytest.raises(InputError, match=r"lacks the weights classifier\.bias"):
        run_training(agenda.requests()[0].training, ledger.folder)


def test_a_given_teacher_of_another_number_of_outputs_is_refused_before_the_search(
    tmp_path: Path,
) -> None:
    tuned = save_model(tmp_path / "tuned", labels=["one", "two", "three", "four"])
    study = given_study({"checkpoint": "tuned", "labels": list(LABEL_NAMES)}, tuned=tuned)
    ledger, _ = begin(tmp_path / "study", study)
    with pytest.raises(InputError, match="tuned has 4 outputs for 3 labels"):
        check_models(ledger.resolved(), "study.yaml")


def test_a_given_checkpoint_is_not_fine_tuned(tmp_path: Path) -> None:
    tuned = save_model(tmp_path / "tuned")
    ledger, agenda = begin(tmp_path / "study", given_study({"checkpoint": "tuned"}, tuned=tuned))
    run_study(ledger, agenda, run_training)
    kinds = [o.training.kind for o in ledger.outcomes()]
    assert agenda.complete
    assert set(kinds) == {"outputs", "student"}
    assert kinds.count("outputs") == 3
    names = {
        o.training.taught.checkpoint_name
        for o in ledger.outcomes()
        if isinstance(o.training, StudentTraining)
    }
    assert names == {Checkpoint.GIVEN}


def test_the_columns_of_a_given_teacher_stand_in_the_order_of_the_datas_labels(
    tmp_path: Path,
) -> None:
    names = ("positive", "negative", "neutral")
    tuned = save_model(tmp_path / "tuned", labels=names)
    ledger, agenda = begin(tmp_path / "study", given_study({"checkpoint": "tuned"}, tuned=tuned))
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    order = [names.index(label) for label in LABEL_NAMES]
    for training in run_outputs(ledger, agenda):
        rows = ledger.rows(digest_of(training, training.split))
        logits = one_by_one(model, tokenizer, rows).numpy()[:, order]
        if training.split == "train":
            np.testing.assert_allclose(outputs_of(ledger, training), logits, atol=1e-5)
            continue
        outcome = ledger.outcome(training.key)
        score = macro_f1(logits.argmax(axis=1).tolist(), [row["label"] for row in rows], 3)
        assert outcome is not None
        assert getattr(outcome, training.split) == pytest.approx(score)


def test_a_study_can_name_the_outputs_of_a_given_teacher(tmp_path: Path) -> None:
    tuned = save_model(tmp_path / "tuned", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    names = ["neutral", "positive", "negative"]
    study = given_study({"checkpoint": "tuned", "labels": names}, tuned=tuned)
    ledger, agenda = begin(tmp_path / "study", study)
    training = run_outputs(ledger, agenda)[0]
    own = one_by_one(
        AutoModelForSequenceClassification.from_pretrained(tuned),
        AutoTokenizer.from_pretrained(tuned),
        ledger.rows(digest_of(training, training.split)),
    )
    np.testing.assert_allclose(outputs_of(ledger, training), own[:, [2, 0, 1]], atol=1e-5)


def test_a_given_pair_of_checkpoints_teaches_under_both_names(tmp_path: Path) -> None:
    folders = {name: save_model(tmp_path / name, seed=n) for n, name in enumerate(("hs", "ll"))}
    study = given_study({"t_hs": "hs", "t_ll": "ll"}, **folders)
    ledger, agenda = begin(tmp_path / "study", study)
    run_study(ledger, agenda, run_training)
    taught = {
        (o.training.taught.checkpoint_name, o.training.taught.teacher.model.weights)
        for o in ledger.outcomes()
        if isinstance(o.training, StudentTraining)
    }
    assert agenda.complete
    assert taught == {
        (Checkpoint.HIGHEST_SCORE, digest_model(folders["hs"])),
        (Checkpoint.LOWEST_LOSS, digest_model(folders["ll"])),
    }
    assert not any(isinstance(o.training, TeacherTraining) for o in ledger.outcomes())


def test_a_given_teacher_that_changed_since_the_study_began_gives_no_outputs(
    tmp_path: Path,
) -> None:
    tuned = save_model(tmp_path / "tuned")
    ledger, agenda = begin(tmp_path / "study", given_study({"checkpoint": "tuned"}, tuned=tuned))
    save_model(tuned, seed=1)
    with pytest.raises(InputError, match="has changed since the study began"):
        run_training(first(agenda, "outputs"), ledger.folder)


# -- the other tasks ---------------------------------------------------------------------------

OTHERS = ("ner", "qa", "translation", "lm")


# -- students without a teacher, and what every model takes ------------------------------------


def erm_like(teacher: TeacherTraining) -> StudentTraining:
    """The same model, data, rate and seed as a teacher's, as a student without one."""
    shared = {
        name: getattr(teacher, name)
        for name in ("version", "data", "model", "learning_rate", "seed")
    }
    return StudentTraining(settings=teacher.settings, teaching=None, objective=Labels(), **shared)


def test_a_student_without_a_teacher_learns_as_a_teacher_itself_does(ran: Ran) -> None:
    teacher = ran.teacher.training
    assert isinstance(teacher, TeacherTraining)
    outcome = run_training(erm_like(teacher), ran.ledger.folder)
    assert outcome.epochs == ran.teacher.epochs
    assert outcome.validation == ran.teacher.validation
    assert outcome.best_epoch == ran.teacher.best_epoch


def test_a_student_without_a_teacher_is_scored_on_test_at_its_best_epoch(ran: Ran) -> None:
    teacher = ran.teacher.training
    assert isinstance(teacher, TeacherTraining)
    outcome = run_training(erm_like(teacher), ran.ledger.folder)
    outputs = [o for o in ran.outcomes("outputs") if o.test is not None]
    same = [o for o in outputs if o.training.checkpoint.epoch == ran.teacher.best_epoch]
    assert {o.test for o in same} == {outcome.test}


def test_a_student_without_a_teacher_needs_no_teacher_in_the_folder(
    ran: Ran, tmp_path: Path
) -> None:
    folder = ran.copy(tmp_path / "study")
    for name in ("checkpoints", "outputs"):
        shutil.rmtree(folder / name)
    teacher = ran.teacher.training
    assert isinstance(teacher, TeacherTraining)
    assert run_training(erm_like(teacher), folder).test is not None


def test_an_outcome_tells_when_its_training_ran(ran: Ran) -> None:
    for outcome in [ran.teacher, *ran.outcomes("outputs"), *ran.outcomes("student")]:
        started, ended = outcome.cost.started, outcome.cost.ended
        assert started is not None
        assert ended is not None
        assert (ended - started).total_seconds() == pytest.approx(outcome.cost.seconds, abs=0.5)


def test_what_scores_the_test_split_says_its_size_and_its_speed(ran: Ran) -> None:
    tested = [
        o for kind in ("outputs", "student") for o in ran.outcomes(kind) if o.test is not None
    ]
    assert tested
    for outcome in tested:
        assert outcome.model_bytes == 4 * (outcome.parameters or 0)  # float32
        assert outcome.cost.examples_per_second is not None
        assert outcome.cost.examples_per_second > 0
    assert ran.teacher.cost.examples_per_second is None


@pytest.fixture(scope="module", params=OTHERS)
def other(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    copy_of_searched: Callable[[str, Path], Path],
) -> Ran:
    """A tiny study of another task that has run to its end."""
    folder = copy_of_searched(request.param, tmp_path_factory.mktemp("copy") / "run")
    ledger, agenda = begin(folder, task_study(request.param))
    return Ran(ledger=ledger, agenda=agenda)


def task_of(ran: Ran) -> str:
    return ran.teacher.training.data.task


def test_a_study_of_each_task_runs_to_its_end(other: Ran) -> None:
    assert other.agenda.complete
    outcomes = list(other.ledger.outcomes())
    assert all(o.state == "scored" for o in outcomes)
    for outcome in other.outcomes("student"):
        assert outcome.validation is not None
        assert outcome.test is not None


def test_an_outcome_says_how_its_scores_are_computed(other: Ran) -> None:
    starts = {
        "ner": "micro F1",
        "qa": "SQuAD token",
        "translation": "BLEU nrefs:1|",
        "lm": "likelihood of a completion's token",
    }
    for outcome in other.ledger.outcomes():
        assert outcome.metric.startswith(starts[task_of(other)])
        assert ("|version:" in outcome.metric) == (task_of(other) == "translation")


def test_the_default_length_of_a_task_is_part_of_its_trainings(tmp_path: Path) -> None:
    models = {"m": {"config": tiny(max_position_embeddings=512)}}
    study = task_study("qa", models=models, **same("m"), training={"max_length": None})
    _, agenda = begin(tmp_path, study)
    assert first(agenda, "teacher").settings.max_length == 384


def same(model: str) -> dict[str, Any]:
    """The sections of a study whose one teacher and one student have the same model."""
    return {"teachers": {"t": {"model": model}}, "students": {"s": {"model": model}}}


@pytest.mark.parametrize("kind", ["teacher", "outputs", "student"])
def test_each_task_trained_twice_has_the_same_outcome(
    other: Ran, kind: str, tmp_path: Path
) -> None:
    folder = other.copy(tmp_path / "copy")
    recorded = other.outcomes(kind)[0]
    again = run_training(recorded.training, folder)
    assert without_cost(again) == without_cost(recorded)


@torch.no_grad()
def alone_by_row(ledger: Ledger, training: OutputsTraining) -> np.ndarray[Any, Any]:
    """What the saved checkpoint says of each example of the training split on its own."""
    data = training.data
    task = TASKS[data.task]
    folder = checkpoint_folder(ledger, training)
    model = task.head.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parts = []
    for row in ledger.rows(data.train):
        encoded = task.encode([row], tokenizer, data, training.settings, training=True)
        for index in range(len(encoded)):
            batch = encoded.batch(torch.tensor([index]))
            if data.task == "translation":
                found = model(
                    **batch.arguments, labels=batch.targets, output_hidden_states=True
                ).decoder_hidden_states[-1]
            elif data.task == "lm":
                found = model(**batch.arguments, output_hidden_states=True).hidden_states[-1]
            elif data.task == "qa":
                said = model(**batch.arguments)
                found = torch.stack([said.start_logits, said.end_logits], dim=-1)
            else:
                found = model(**batch.arguments).logits
            parts.append(found[batch.counted])
    return torch.cat(parts).numpy()


def bits(stored: np.ndarray[Any, Any]) -> torch.Tensor:
    """Hidden states that were kept in bf16, which numpy does not know."""
    return torch.from_numpy(stored).view(torch.bfloat16).float()


def test_the_outputs_of_each_task_are_what_the_saved_checkpoint_says_of_each_row(
    other: Ran,
) -> None:
    for _, training in outputs_by_split(other, "train"):
        expected, found = alone_by_row(other.ledger, training), outputs_of(other.ledger, training)
        assert found.shape == expected.shape
        if TASKS[task_of(other)].wide:
            np.testing.assert_allclose(bits(found), expected, rtol=2**-7, atol=1e-5)
        else:
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_kept_teacher_of_each_task_has_its_words_and_its_head(other: Ran) -> None:
    task = TASKS[task_of(other)]
    for _, training in outputs_by_split(other, "train"):
        folder = checkpoint_folder(other.ledger, training)
        _, loading = task.head.from_pretrained(folder, output_loading_info=True)
        assert not loading["missing_keys"]
        vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
        for row in other.ledger.rows(training.data.train):
            assert {word for text in task.texts(row) for word in text.split()} <= {
                *vocabulary,
                ".",
                "?",
            }


def test_a_student_of_each_task_learns_without_its_teachers_weights(
    other: Ran, tmp_path: Path
) -> None:
    folder = other.copy(tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    recorded = other.student("mse")
    assert without_cost(run_training(recorded.training, folder)) == without_cost(recorded)


def test_a_student_of_each_task_looks_at_its_teachers_outputs(other: Ran, tmp_path: Path) -> None:
    folder = other.copy(tmp_path / "copy")
    recorded = other.student()
    assert isinstance(recorded.training, StudentTraining)
    path = folder / "outputs" / f"{recorded.training.taught.outputs}.npy"
    np.save(path, np.load(path)[::-1].copy())
    recorded_as_it_is(path)
    assert run_training(recorded.training, folder).epochs != recorded.epochs


def test_a_tiny_tagger_learns_more_than_that_all_words_are_outside(tmp_path: Path) -> None:
    study = task_study("ner", teachers={"big": {"model": "big"}}, training={"epochs": 12})
    study["teachers"]["big"]["fine_tune"] = {"learning_rate": [3e-3]}
    ledger, agenda = begin(tmp_path, study)
    outcome = run_training(first(agenda, "teacher"), ledger.folder)
    assert outcome.validation is not None
    assert outcome.validation > 0.2  # of no entities it were 0


# -- rows without a label ------------------------------------------------------------------------


def with_unlabelled(training: Training, ledger: Ledger) -> tuple[Training, int]:
    """The training, every third of whose training rows has no label; how many have one."""
    data = training.data
    gold = SPECS[data.task].gold
    rows = [
        {**row, gold: None} if number % 3 == 0 else row
        for number, row in enumerate(ledger.rows(data.train))
    ]
    ledger.write_rows(digest_rows(rows), rows)
    changed = data.model_copy(update={"train": digest_rows(rows)})
    return (
        training.model_copy(update={"data": changed}),
        sum(row[gold] is not None for row in rows),
    )


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_teacher_is_fine_tuned_on_the_rows_that_have_a_label(task: str, tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path, task_study(task, models=pretrained(tmp_path, task)))
    training = first(agenda, "teacher")
    partly, labelled = with_unlabelled(training, ledger)
    assert labelled == 64
    gold = SPECS[task].gold
    rows = [row for row in ledger.rows(partly.data.train) if row[gold] is not None]
    ledger.write_rows(digest_rows(rows), rows)
    only = training.data.model_copy(update={"train": digest_rows(rows)})
    expected = run_training(training.model_copy(update={"data": only}), ledger.folder)
    found = run_training(partly, ledger.folder)
    assert found.epochs == expected.epochs
    assert found.epochs != run_training(training, ledger.folder).epochs


def pretrained(folder: Path, task: str) -> dict[str, Any]:
    """Models whose tokenizer does not depend on the training rows."""
    return {name: str(save_model(folder / name, task=task)) for name in ("big", "small")}


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_student_at_alpha_1_learns_from_the_rows_without_a_label_too(
    task: str, tmp_path: Path
) -> None:
    study = task_study(
        task,
        models=pretrained(tmp_path, task),
        teachers={"given": {"checkpoint": "big", "labels": list(TASK_LABELS[task]) or None}},
        search={"alpha": [1], "distance": ["ce"]},
    )
    ledger, agenda = begin(tmp_path / "study", study)
    (outputs,) = [t for t in run_outputs(ledger, agenda) if t.split == "train"]
    agenda = begin(ledger.folder, study)[1]
    training = first(agenda, "student")
    partly, _ = with_unlabelled(training, ledger)
    outcomes = [run_training(each, ledger.folder) for each in (training, partly)]
    assert outcomes[0].epochs == outcomes[1].epochs
    assert outcomes[0].test == outcomes[1].test
    changed, _ = with_unlabelled(outputs, ledger)
    run_training(changed, ledger.folder)
    np.testing.assert_array_equal(
        np.load(ledger.folder / "outputs" / f"{changed.key}.npy"), outputs_of(ledger, outputs)
    )


def test_the_columns_of_a_given_tagger_stand_in_the_order_of_the_datas_labels(
    tmp_path: Path,
) -> None:
    data = TASK_LABELS["ner"]
    names = (*data[2:], *data[:2])
    tuned = save_model(tmp_path / "tuned", task="ner", labels=names)
    study = task_study(
        "ner",
        models={"small": {"config": tiny(), "tokenizer": "tuned"}, "tuned": str(tuned)},
        teachers={"given": {"checkpoint": "tuned"}},
    )
    ledger, agenda = begin(tmp_path / "study", study)
    (training,) = [t for t in run_outputs(ledger, agenda) if t.split == "train"]
    model = TASKS["ner"].head.from_pretrained(tuned).eval()
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    parts = []
    for row in ledger.rows(training.data.train):
        ids = tokenizer(" ".join(row["words"]), return_tensors="pt")
        with torch.no_grad():
            parts.append(model(input_ids=ids["input_ids"]).logits[0, 1:-1])  # a token a word
    expected = torch.cat(parts)[:, [names.index(label) for label in data]]
    np.testing.assert_allclose(outputs_of(ledger, training), expected, atol=1e-5)


def test_a_given_tagger_in_bilou_is_scored_in_bilou_as_seqeval_does(tmp_path: Path) -> None:
    tags = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC") for prefix in "BILU")]
    sentences = [
        (["Ada", "Byron", "saw", "Rome"], ["B-PER", "L-PER", "O", "U-LOC"]),
        (["New", "York", "City", "saw", "Ben"], ["B-LOC", "I-LOC", "L-LOC", "O", "U-LOC"]),
    ]
    rows = [{"w": words, "t": names} for words, names in sentences * 20]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [" ".join(words) for words, _ in sentences]
    tuned = save_model(tmp_path / "tuned", task="ner", labels=tags[::-1], texts=texts, seed=22)
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "a.jsonl"))
    study = task_study(
        "ner",
        datasets={"data": {"task": "ner", "files": files, "text": "w", "label": "t"}},
        models={"small": {"config": tiny(), "tokenizer": "tuned"}, "tuned": str(tuned)},
        teachers={"given": {"checkpoint": "tuned"}},
    )
    ledger, agenda = begin(tmp_path / "study", study)
    assert sorted(ledger.resolved().datasets["data"].labels) == sorted(tags)
    model = TASKS["ner"].head.from_pretrained(tuned).eval()
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    found = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(input_ids=ids["input_ids"]).logits[0, 1:-1]  # a token a word
        found.append([tags[::-1][number] for number in logits.argmax(dim=1).tolist()])
    gold = [names for _, names in sentences]
    expected = f1_score(gold, found, mode="strict", scheme=BILOU)
    [validation] = [t for t in run_outputs(ledger, agenda) if t.split == "validation"]
    outcome = ledger.outcome(validation.key)
    assert outcome is not None
    assert outcome.validation == pytest.approx(float(expected))
    assert 0 < float(expected) < 1


# -- wide outputs --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wide:
    """A translation study whose teacher is given, and its outputs on the training split."""

    ledger: Ledger
    student: StudentTraining
    outputs: OutputsTraining
    tuned: Path

    @property
    def head(self) -> Path:
        return self.ledger.folder / "outputs" / f"{self.outputs.key}.head.safetensors"


def wide(folder: Path, kind: str = "bart", **training: Any) -> Wide:
    tuned = save_model(folder / "tuned", kind, task="translation")
    study = task_study(
        "translation",
        models={"tuned": str(tuned)},
        teachers={"given": {"checkpoint": "tuned"}},
        students={"cut": {"model": "tuned", "layers": 2}},
        training={"epochs": 1, **training},
        search={"alpha": [1], "distance": ["ce"]},
    )
    ledger, agenda = begin(folder / "study", study)
    (outputs,) = [t for t in run_outputs(ledger, agenda) if t.split == "train"]
    student = first(begin(ledger.folder, study)[1], "student")
    assert isinstance(student, StudentTraining)
    return Wide(ledger=ledger, student=student, outputs=outputs, tuned=tuned)


@pytest.mark.parametrize("kind", sorted(SEQ2SEQ))
def test_the_head_beside_the_hidden_states_makes_the_teachers_logits_of_them(
    kind: str, tmp_path: Path
) -> None:
    found = wide(tmp_path, kind, hidden_dtype="fp32")
    head = load_file(found.head)
    values = torch.from_numpy(outputs_of(found.ledger, found.outputs))
    logits = torch.nn.functional.linear(values, head["weight"], head.get("bias"))
    model = TASKS["translation"].head.from_pretrained(found.tuned).eval()
    tokenizer = AutoTokenizer.from_pretrained(found.tuned)
    at = 0
    for row in found.ledger.rows(found.outputs.data.train)[:12]:
        source = tokenizer(row["source"], return_tensors="pt")["input_ids"]
        target = tokenizer(row["target"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(input_ids=source, labels=target).logits[0]
        torch.testing.assert_close(logits[at : at + len(expected)], expected, rtol=1e-4, atol=1e-4)
        at += len(expected)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_hidden_states_are_kept_in_the_type_that_the_study_says(dtype: str, tmp_path: Path) -> None:
    found = wide(tmp_path, hidden_dtype=dtype)
    size = {"fp32": 4, "bf16": 2}[dtype]
    stored = outputs_of(found.ledger, found.outputs)
    assert stored.dtype.itemsize == size
    outcome = run_training(found.student, found.ledger.folder)
    assert outcome.state == "scored"
    assert outcome.epochs[0].train_loss is not None


def nothing_is_left(folder: Path) -> bool:
    return not any(folder.iterdir())


def a_pass(task: str, folder: Path) -> dict[str, Any]:
    """What `write_outputs` needs for a few rows of a task, but for a path."""
    save_model(folder, kind_for(task), task=task, max_position_embeddings=128)
    examples = encode(task, rows_of(task, 40), reader_in(task, folder))
    return {
        "model": model_in(task, folder),
        "task": TASKS[task],
        "examples": examples,
        "settings": settings_of(task, batch_size=1),
        "order": (),
    }


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_was_written_has_the_name_the_digest_and_the_rows(task: str, tmp_path: Path) -> None:
    given = a_pass(task, tmp_path / "model")
    folder = tmp_path / "outputs"
    folder.mkdir()
    written = write_outputs(folder / "key.npy", **given)
    assert written is not None
    wanted = [folder / "key.npy"] + [folder / "key.head.safetensors"] * TASKS[task].wide
    assert sorted(written) == sorted(folder.iterdir()) == sorted(wanted)
    for path, digest in written.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert len(np.load(folder / "key.npy")) == len(given["examples"].labels)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("task", ["classification", "translation"])
def test_a_pass_that_ends_halfway_leaves_no_file(
    task: str, error: type[BaseException], tmp_path: Path
) -> None:
    given = a_pass(task, tmp_path / "model")
    folder = tmp_path / "outputs"
    folder.mkdir()
    passes: list[list[str]] = []

    def fail_at_the_third(*_: Any) -> None:
        passes.append([path.name for path in folder.iterdir()])
        if len(passes) == 3:
            raise error("out of memory")

    given["model"].register_forward_pre_hook(fail_at_the_third)
    if task == "translation":
        given["model"].get_decoder().register_forward_pre_hook(fail_at_the_third)
    with pytest.raises(error):  # of so tiny a model, one pass takes all that is not in parts
        write_outputs(folder / "key.npy", **given, parts=2**12)
    assert [name.endswith(".tmp") for name in passes[-1]] == [True]
    assert nothing_is_left(folder)


@pytest.mark.parametrize("task", ["classification", "translation"])
def test_outputs_that_are_not_finite_leave_no_file(task: str, tmp_path: Path) -> None:
    given = a_pass(task, tmp_path / "model")
    for parameter in given["model"].parameters():
        torch.nn.init.constant_(parameter, math.nan)
    folder = tmp_path / "outputs"
    folder.mkdir()
    assert write_outputs(folder / "key.npy", **given) is None
    assert nothing_is_left(folder)


def test_outputs_that_cannot_be_written_are_a_storage_error(tmp_path: Path) -> None:
    given = a_pass("classification", tmp_path / "model")
    with pytest.raises(StorageError, match="outputs"):
        write_outputs(tmp_path / "outputs" / "key.npy", **given)


def test_a_model_with_three_labels_learns_to_answer_questions(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "donor", task="qa", num_labels=3)
    study = task_study("qa", models={"m": str(donor)}, training={"epochs": 1}, **same("m"))
    study["search"] |= {"alpha": [0.5], "distance": ["ce"]}
    study["teachers"]["t"]["fine_tune"] = {"learning_rate": [3e-3], "epochs": 1}
    ledger, agenda = begin(tmp_path / "study", study)
    check_models(ledger.resolved(), "study.yaml")
    run_study(ledger, agenda, run_training)
    assert {o.training.kind for o in ledger.outcomes()} == {"teacher", "outputs", "student"}
    assert all(outcome.state == "scored" for outcome in ledger.outcomes())


def test_a_head_file_that_was_cut_short_is_an_input_error(tmp_path: Path) -> None:
    found = wide(tmp_path)
    found.head.write_bytes(found.head.read_bytes()[:-40])
    recorded_as_it_is(found.head)
    with pytest.raises(InputError, match=r"cannot be read.*launch again to recompute it"):
        run_training(found.student, found.ledger.folder)


def test_a_head_of_other_shapes_is_an_input_error(tmp_path: Path) -> None:
    found = wide(tmp_path)
    save_file({"weight": torch.zeros(3, 5)}, found.head)
    recorded_as_it_is(found.head)
    with pytest.raises(InputError, match="launch again to recompute it"):
        run_training(found.student, found.ledger.folder)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_hidden_states_of_another_type_are_an_input_error(dtype: str, tmp_path: Path) -> None:
    found = wide(tmp_path)
    path = found.ledger.folder / "outputs" / f"{found.outputs.key}.npy"
    np.save(path, bits(np.load(path)).numpy().astype({"fp32": "f4", "fp16": "f2"}[dtype]))
    recorded_as_it_is(path)
    with pytest.raises(InputError, match="launch again to recompute it"):
        run_training(found.student, found.ledger.folder)


@pytest.mark.parametrize(
    ("kind", "model", "languages"),
    [
        ("mbart", "mbart", ["de_DE", "en_XX"]),
        ("mbart50", "mbart", ["de_DE", "en_XX"]),
        ("m2m_100", "m2m_100", ["de", "en"]),
    ],
)
def test_a_multilingual_model_is_fine_tuned_and_kept_with_its_languages(
    kind: str, model: str, languages: list[str], tmp_path: Path
) -> None:
    tokenizer = multilingual(kind, tmp_path)
    donor = save_model(
        tmp_path / "donor",
        model,
        task="translation",
        tokenizer=tokenizer,
        vocab_size=len(tokenizer) + 110,  # M2M-100's does not count its 100 codes
    )
    sizes = {"train": 96, "validation": 24, "test": 20}
    data = {"task": "translation", "grammar": sizes, "languages": languages}
    study = task_study(
        "translation", datasets={"data": data}, models={"m": str(donor)}, **same("m")
    )
    study["teachers"]["t"]["fine_tune"] = {"learning_rate": [3e-3], "epochs": 1}
    ledger, agenda = begin(tmp_path / "study", study)
    outcome = run_training(first(agenda, "teacher"), ledger.folder)
    kept = AutoTokenizer.from_pretrained(
        ledger.folder / "checkpoints" / outcome.key / f"epoch-{outcome.best_epoch}"
    )
    expected = AutoTokenizer.from_pretrained(donor)
    expected.src_lang, expected.tgt_lang = languages
    (row, *_) = ledger.rows(outcome.training.data.train)
    assert kept(row["source"]) == expected(row["source"])
    assert kept(text_target=row["target"]) == expected(text_target=row["target"])


def test_a_single_beam_searches_too(tmp_path: Path) -> None:
    study = task_study("translation", training={"beams": 1, "epochs": 1})
    ledger, agenda = begin(tmp_path, study)
    assert run_training(first(agenda, "teacher"), ledger.folder).state == "scored"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("task", OTHERS)
def test_each_task_trains_in_mixed_precision(task: str, precision: str, tmp_path: Path) -> None:
    study = task_study(task, training={"precision": precision, "epochs": 1})
    study["search"] = {**study["search"], "alpha": [0.5], "distance": ["ce"]}
    study["teachers"]["big"]["fine_tune"]["epochs"] = 1
    ledger, agenda = begin(tmp_path, study)
    for kind in ("teacher", "outputs", "student"):
        for request in agenda.requests():
            if request.training.kind == kind:
                ledger.write_outcome(run_training(request.training, ledger.folder))
        agenda = begin(tmp_path, study)[1]
    found = list(ledger.outcomes())
    assert {o.training.kind for o in found} == {"teacher", "outputs", "student"}
    assert all(o.state == "scored" for o in found)


def test_what_a_worker_did_before_does_not_change_what_a_teacher_keeps(tmp_path: Path) -> None:
    donor = save_model(tmp_path / "donor")
    models = {"big": str(donor), "small": str(donor)}
    sizes = {"train": 96, "validation": 24, "test": 20}
    study = tiny_study(
        datasets={"a": {"grammar": sizes}, "b": {"grammar": {**sizes, "seed": 1}, "max_length": 9}},
        models=models,
    )
    ledger, agenda = begin(tmp_path / "study", study)
    usual, other = [r.training for r in agenda.requests() if r.training.kind == "teacher"]
    before = run_training(usual, ledger.folder)
    run_training(other, ledger.folder)
    assert without_cost(run_training(usual, ledger.folder)) == without_cost(before)


# -- another process, without ray, optuna and datasets -----------------------------------------

_ALONE = """
import sys

for name in ("ray", "optuna", "datasets"):
    sys.modules[name] = None  # importing it, or looking for it, finds nothing

import json
from pathlib import Path
import kdsearch.distill.run
from kdsearch.agenda import parse_training, written_outcome
from kdsearch.distill import run_training

for line in sys.stdin:
    outcome = run_training(parse_training(json.loads(line)), Path(sys.argv[1]))
    print(json.dumps({**written_outcome(outcome), "cost": None}))
"""


@pytest.fixture(scope="module")
def alone(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outcomes of a teacher, its outputs and a student, from another process."""
    folder = ran.copy(tmp_path_factory.mktemp("alone") / "study")
    for name in ("checkpoints", "outputs"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    student = ran.student().training
    assert isinstance(student, StudentTraining)
    outputs = next(o.training for o in ran.outcomes("outputs") if o.key == student.taught.outputs)
    lines = [json.dumps(written(training)) for training in (ran.teacher.training, outputs, student)]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(folder)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return {json.loads(line)["training"]["kind"]: line for line in done.stdout.splitlines()}


@pytest.mark.parametrize("kind", ["teacher", "outputs", "student"])
def test_trainings_run_where_ray_optuna_and_datasets_cannot_be_imported(
    alone: dict[str, str], kind: str
) -> None:
    assert json.loads(alone[kind])["state"] == "scored"


@pytest.mark.parametrize("kind", ["teacher", "outputs", "student"])
def test_another_process_comes_to_the_same_outcome_byte_for_byte(
    ran: Ran, alone: dict[str, str], kind: str
) -> None:
    recorded = {without_cost(o) for o in ran.outcomes(kind)}
    assert alone[kind] in recorded
