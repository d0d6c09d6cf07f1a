from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import RecordedTraining
from models import (
    LABEL_NAMES,
    begin,
    cross_entropy,
    first,
    macro_f1,
    one_by_one,
    run_study,
    save_model,
    tiny,
    tiny_study,
    without_cost,
)
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
)
from kdsearch.distill import check_models, run_training
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.search import Checkpoint, Distance
from kdsearch.study import digest_model
from kdsearch.study.rows import digest_rows


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

    def student(self, distance: Distance = Distance.CE, alpha: float = 1.0) -> Outcome:
        """A student's outcome, the same one each time."""
        return next(
            o
            for o in self.outcomes("student")
            if isinstance(o.training, StudentTraining)
            and (o.training.distance, o.training.alpha) == (distance, alpha)
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
        for kind in ("checkpoints", "outputs")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }
    assert named == there
    for outcome in ran.ledger.outcomes():
        sizes = [(folder / name).stat().st_size for name in outcome.digests]
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


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_outputs_are_the_checkpoints_logits_in_the_order_of_the_rows(ran: Ran, split: str) -> None:
    for outcome in ran.outcomes("outputs"):
        training = outcome.training
        assert isinstance(training, OutputsTraining)
        if training.split != split:
            continue
        checkpoint = training.checkpoint
        folder = ran.ledger.folder / "checkpoints" / str(checkpoint.training)
        folder = folder / f"epoch-{checkpoint.epoch}"
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        rows = ran.ledger.rows(digest_of(training, split))
        expected = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows)
        found = outputs_of(ran.ledger, training)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_outputs_score_what_their_checkpoint_scored(ran: Ran) -> None:
    for outcome in ran.outcomes("outputs"):
        training = outcome.training
        assert isinstance(training, OutputsTraining)
        rows = ran.ledger.rows(digest_of(training, training.split))
        predicted = outputs_of(ran.ledger, training).argmax(axis=1)
        score = macro_f1(predicted, [row["label"] for row in rows], 3)
        assert training.checkpoint.epoch is not None
        if training.split == "validation":
            recorded = ran.teacher.epochs[training.checkpoint.epoch - 1].validation
            assert outcome.validation == recorded == pytest.approx(score)
        assert (outcome.validation is None) == (training.split != "validation")
        assert (outcome.test is None) == (training.split != "test")
        if training.split == "test":
            assert outcome.test == pytest.approx(score)


# -- students ----------------------------------------------------------------------------------


def test_a_student_learns_without_its_teachers_weights(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    recorded = ran.student()
    assert without_cost(run_training(recorded.training, folder)) == without_cost(recorded)


@pytest.mark.parametrize("distance", list(Distance))
def test_the_same_student_trained_twice_has_the_same_outcome(ran: Ran, distance: Distance) -> None:
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


@pytest.mark.parametrize("distance", list(Distance))
def test_a_student_at_alpha_1_does_not_look_at_the_labels(
    ran: Ran, distance: Distance, tmp_path: Path
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
        if isinstance(o.training, StudentTraining) and o.training.alpha == 0.5
    )
    other = run_training(with_shuffled_labels(ran, recorded.training, folder), folder)
    assert other.epochs != recorded.epochs


def test_a_student_looks_at_its_teachers_outputs(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    recorded = ran.student()
    assert isinstance(recorded.training, StudentTraining)
    path = folder / "outputs" / f"{recorded.training.outputs}.npy"
    np.save(path, np.load(path)[::-1].copy())
    assert run_training(recorded.training, folder).epochs != recorded.epochs


def test_outputs_of_another_number_of_rows_are_refused(ran: Ran, tmp_path: Path) -> None:
    folder = ran.copy(tmp_path / "copy")
    training = ran.student().training
    assert isinstance(training, StudentTraining)
    path = folder / "outputs" / f"{training.outputs}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match="has 95 rows for 96 examples"):
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
    with pytest.raises(InputError, match="tuned has 4 outputs, for 3 labels"):
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
        o.training.checkpoint_name
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
    for training in run_outputs(ledger, agenda):
        own = one_by_one(model, tokenizer, ledger.rows(digest_of(training, training.split)))
        expected = np.stack([own[:, names.index(label)] for label in LABEL_NAMES], axis=1)
        np.testing.assert_allclose(outputs_of(ledger, training), expected, atol=1e-5)


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
        (o.training.checkpoint_name, o.training.teacher.model.weights)
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


# -- another process, without ray, optuna and datasets -----------------------------------------

_ALONE = """
import sys

for name in ("ray", "optuna", "datasets"):
    sys.modules[name] = None  # importing it, or looking for it, finds nothing

import json
from pathlib import Path
import kdsearch.distill.run
from kdsearch.agenda import parse_training
from kdsearch.distill import run_training

for line in sys.stdin:
    outcome = run_training(parse_training(json.loads(line)), Path(sys.argv[1]))
    print(outcome.model_dump_json(exclude={"cost"}))
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
    outputs = next(o.training for o in ran.outcomes("outputs") if o.key == student.outputs)
    lines = [
        json.dumps(training.model_dump(mode="json"))
        for training in (ran.teacher.training, outputs, student)
    ]
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
