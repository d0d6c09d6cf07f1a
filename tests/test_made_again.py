from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import WORKERS, begin, task_study, tiny, without_cost

from kdsearch.agenda import Outcome, OutputsTraining, StudentTraining
from kdsearch.distill import run_training
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, verify

TASKS = ("classification", "translation")


Finished = Callable[[str, Path], Path]


@pytest.fixture
def finished(copy_of_searched: Finished) -> Finished:
    """Makes a copy of a finished study of a task."""
    return copy_of_searched


def copied(finished: Finished, folder: Path, task: str = "classification") -> Ledger:
    return Ledger(finished(task, folder))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = (flipped, cut, emptied, Path.unlink)


def one(ledger: Ledger, kind: str, split: str = "train") -> Outcome:
    return next(
        outcome
        for outcome in ledger.outcomes()
        if outcome.training.kind == kind and getattr(outcome.training, "split", split) == split
    )


def files(ledger: Ledger, *folders: str) -> dict[str, str]:
    return {
        str(path.relative_to(ledger.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in (ledger.folder / folder).rglob("*")
        if path.is_file()
    }


def as_if_made_on_a_gpu(ledger: Ledger, outcome: Outcome) -> None:
    """Have the outcome say digests that this machine's arithmetic does not give."""
    path = ledger.folder / "outcomes" / f"{outcome.key}.json"
    content = json.loads(path.read_text())
    content["digests"] = dict.fromkeys(content["digests"], "0" * 64)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("task", TASKS)
def test_damaged_outputs_are_computed_again_before_a_student_learns_from_them(
    finished: Finished, tmp_path: Path, task: str, damage: Callable[[Path], None]
) -> None:
    ledger = copied(finished, tmp_path / "run", task)
    before = files(ledger, "outputs", "outcomes")
    for path in list((ledger.folder / "outputs").iterdir()):
        damage(path)
        student = one(ledger, "student")
        assert without_cost(run_training(student.training, ledger.folder)) == without_cost(student)
        assert files(ledger, "outputs", "outcomes") == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_trained_again_before_its_outputs_are_computed(
    finished: Finished, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    ledger = copied(finished, tmp_path / "run")
    before = files(ledger, "checkpoints", "outcomes")
    outputs = one(ledger, "outputs", "test")
    assert isinstance(outputs.training, OutputsTraining)
    checkpoint = outputs.training.checkpoint
    epoch = f"checkpoints/{checkpoint.training}/epoch-{checkpoint.epoch}"
    damage(ledger.folder / epoch / "model.safetensors")
    assert without_cost(run_training(outputs.training, ledger.folder)) == without_cost(outputs)
    assert files(ledger, "checkpoints", "outcomes") == before


def test_all_that_a_student_learns_from_is_made_again_where_it_is_gone(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = copied(finished, tmp_path / "run")
    for folder in ("outputs", "checkpoints"):
        shutil.rmtree(ledger.folder / folder)
        (ledger.folder / folder).mkdir()
    student = one(ledger, "student")
    assert without_cost(run_training(student.training, ledger.folder)) == without_cost(student)
    lines = [record.message for record in caplog.records if "made again" in record.message]
    assert len(lines) == 2
    assert "made again: outputs of big" in lines[0]
    assert "made again: teacher big" in lines[1]
    caplog.clear()
    run_training(student.training, ledger.folder)
    assert "made again" not in caplog.text


def test_what_another_device_makes_again_is_recorded_beside_the_outcome(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = copied(finished, tmp_path / "run")
    for kind in ("outputs", "teacher"):
        as_if_made_on_a_gpu(ledger, one(ledger, kind))
    before = files(ledger, "outcomes")
    assert verify(ledger).problems
    student, test = one(ledger, "student"), one(ledger, "outputs", "test")
    run_training(student.training, ledger.folder)
    run_training(test.training, ledger.folder)
    assert caplog.text.count("made again") == 2
    assert files(ledger, "outcomes") == before
    assert verify(ledger).problems == []
    run_training(student.training, ledger.folder)
    run_training(test.training, ledger.folder)
    assert caplog.text.count("made again") == 2


def test_an_epoch_that_training_again_does_not_keep_is_refused_in_words(
    finished: Finished, tmp_path: Path
) -> None:
    ledger = copied(finished, tmp_path / "run")
    outputs = one(ledger, "outputs").training
    assert isinstance(outputs, OutputsTraining)
    checkpoint = outputs.checkpoint.model_copy(update={"epoch": 99})
    with pytest.raises(InputError, match=r"epoch-99: is damaged or gone.*copy of the folder"):
        run_training(outputs.model_copy(update={"checkpoint": checkpoint}), ledger.folder)


def test_a_model_that_the_study_calls_differently_now_is_found_by_its_new_name(
    finished: Finished, tmp_path: Path
) -> None:
    ledger = copied(finished, tmp_path / "run")
    models = {"grand": {"config": tiny(2, hidden_size=32)}, "small": {"config": tiny(1)}}
    fine_tune = {"learning_rate": [3e-3], "epochs": 4}
    teachers = {"big": {"model": "grand", "fine_tune": fine_tune}}
    study = task_study("classification", models=models, teachers=teachers)
    ledger, agenda = begin(ledger.folder, study)
    assert agenda.complete
    [view] = agenda.views()
    assert view.progress is not None
    assert view.progress.winner.best is not None
    training = agenda.training(view, view.progress.winner.best)
    recorded = agenda.results[training.key]
    assert recorded is not None
    before = files(ledger, "outputs", "checkpoints")
    for name in before:
        (ledger.folder / name).unlink()
    found = run_training(training, ledger.folder)
    assert found.epochs == recorded.epochs
    assert files(ledger, "outputs", "checkpoints") == before


def train(folder: Path, key: str, start: Any, results: Any) -> None:
    outcome = Ledger(folder).outcome(key)
    assert outcome is not None
    start.wait()
    again = run_training(outcome.training, folder)
    results.put((key, without_cost(again) == without_cost(outcome)))


def test_workers_that_make_the_same_again_at_once_do_not_hurt_each_other(
    finished: Finished, tmp_path: Path
) -> None:
    ledger = copied(finished, tmp_path / "run")
    before = files(ledger, "checkpoints", "outputs")
    for name in before:
        flipped(ledger.folder / name)
    students = [o.key for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    keys = [one(ledger, "outputs", "validation").key, one(ledger, "outputs", "test").key]
    keys += students[:2]
    start, results = WORKERS.Barrier(len(keys)), WORKERS.Queue()
    workers = [
        WORKERS.Process(target=train, args=(ledger.folder, key, start, results)) for key in keys
    ]
    for worker in workers:
        worker.start()
    same = dict(results.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    assert same == dict.fromkeys(keys, True)
    assert files(ledger, "checkpoints", "outputs") == before
