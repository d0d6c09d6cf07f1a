"""What trains, on a GPU: as on a CPU, and what only a GPU does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    begin,
    first,
    objective_of,
    run_study,
    task_study,
    tiny,
    tiny_cnn,
    tiny_decoder,
    tiny_seq2seq,
)
from test_views import EVERY

from kdsearch.agenda import Agenda, Outcome, Training
from kdsearch.distill import limit_gpu, run_training
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.wide import Hidden, Room, WideUnits, wide_loss
from kdsearch.engine import Worker
from kdsearch.errors import MemoryExhaustedError
from kdsearch.ledger import Ledger
from kdsearch.tasks import Views

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

TASKS = ("classification", "ner", "qa", "translation", "lm", "image_classification")

# What is dropped is drawn on the device, from other streams than on a CPU.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS = {
    "big": {"config": tiny(2, hidden_size=32, **NO_DROPOUT)},
    "small": {"config": tiny(1, **NO_DROPOUT)},
}
SEQ2SEQ = {
    "big": {"config": tiny_seq2seq(2, d_model=32, dropout=0.0)},
    "small": {"config": tiny_seq2seq(dropout=0.0)},
}
DECODERS = {
    "big": {"config": tiny_decoder(2, hidden_size=32)},
    "small": {"config": tiny_decoder()},
}

CNNS = {"big": {"config": tiny_cnn(16, 32)}, "small": {"config": tiny_cnn(8)}}


@pytest.fixture
def whole_gpu() -> Iterator[None]:
    """Nothing of earlier tests lies on the GPU, and later ones have all of it."""
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def up_to_the_students(folder: Path, study: dict[str, Any]) -> tuple[Ledger, Agenda]:
    ledger, agenda = begin(folder, study)
    while not any(r.training.kind == "student" for r in agenda.requests()):
        training = agenda.requests()[0].training
        Worker(folder=folder, run_training=run_training)(training)
        agenda.add(training.key, ledger.outcome(training.key))
    return ledger, agenda


def on_a_cpu(training: Training, folder: Path, patch: pytest.MonkeyPatch) -> Outcome:
    """Run a training in a process that sees no GPU."""
    with patch.context() as hidden:
        hidden.setenv("CUDA_VISIBLE_DEVICES", "")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(run_training, (training, folder))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
def test_a_whole_study_of_each_task_runs_there(tmp_path: Path, task: str, precision: str) -> None:
    ledger, agenda = begin(tmp_path, task_study(task, training={"precision": precision}))
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    outcomes = list(ledger.outcomes())
    assert {outcome.state for outcome in outcomes} == {"scored"}
    assert {outcome.cost.device for outcome in outcomes} == {torch.cuda.get_device_name()}


@pytest.mark.parametrize("task", TASKS)
def test_a_student_learns_what_it_learns_on_a_cpu(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"translation": SEQ2SEQ, "lm": DECODERS, "image_classification": CNNS}
    models = others.get(task, ENCODERS)
    _, agenda = up_to_the_students(tmp_path, task_study(task, models=models))
    student = first(agenda, "student")
    there = run_training(student, tmp_path)
    here = on_a_cpu(student, tmp_path, monkeypatch)
    assert (there.cost.device, here.cost.device[-3:]) == (torch.cuda.get_device_name(), "CPU")
    for a, b in zip(there.epochs, here.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)
        assert a.validation_loss == pytest.approx(b.validation_loss, rel=1e-3)


@pytest.mark.usefixtures("whole_gpu")
def test_a_student_that_does_not_fit_is_trained_in_parts_with_the_same_losses(
    tmp_path: Path,
) -> None:
    wide = tiny(2, hidden_size=256, intermediate_size=1024, **NO_DROPOUT)
    study = task_study(
        "classification",
        datasets={"data": {"grammar": {"train": 4096, "validation": 24, "test": 20}}},
        models={"big": {"config": tiny(2, **NO_DROPOUT)}, "small": {"config": wide}},
        training={"batch_size": 4096},
    )
    ledger, agenda = up_to_the_students(tmp_path, study)
    student = first(agenda, "student")
    worker = Worker(folder=tmp_path, run_training=run_training)

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    undisturbed = run_training(student, tmp_path)
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.7 * needed / total)

    with pytest.raises(MemoryExhaustedError) as caught:
        worker(student)
    worker.fail(caught.value, student)
    assert [attempt.failure for attempt in ledger.attempts_of(student.key)] == ["gpu_oom"]
    del caught  # it holds what the failed try held
    worker(student)
    outcome = ledger.outcome(student.key)
    assert outcome is not None
    assert outcome.parts == 4
    for a, b in zip(outcome.epochs, undisturbed.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)


@pytest.mark.usefixtures("whole_gpu")
def test_a_process_is_held_to_its_part_of_the_memory() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    limit_gpu(0.25)
    torch.empty(int(0.2 * total), dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.26 * total), dtype=torch.uint8, device="cuda")


def test_a_wide_loss_in_bf16_is_no_further_from_single_precision_than_all_logits_at_once() -> None:
    draw = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, device="cuda")

    states, weight = normal(400, 32), normal(300, 32)
    teacher = Hidden(states=normal(400, 32), head=(normal(300, 32), None))
    labels = torch.randint(300, (400,), generator=draw, device="cuda")
    objective = objective_of("ce", alpha=0.5)

    def gradient(*, wide: bool, bf16: bool) -> torch.Tensor:
        leaf = weight.clone().requires_grad_()
        student = Hidden(states=states, head=(leaf, None))
        whole = slice(None)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            if wide:
                room = Room(made=64 * 300 * 4, scored=16 * 300 * 4)
                units = WideUnits(student=student, teacher=teacher, labels=labels, room=room)
                loss = wide_loss(objective, units)
            else:
                logits = student.logits(whole), teacher.logits(whole)
                loss = compute(
                    objective, Units(student=logits[0], teacher=logits[1], labels=labels)
                )
        loss.backward()
        assert leaf.grad is not None
        return leaf.grad

    exact = gradient(wide=False, bf16=False)
    torch.testing.assert_close(gradient(wide=True, bf16=False), exact, rtol=1e-4, atol=1e-6)
    direct, found = gradient(wide=False, bf16=True), gradient(wide=True, bf16=True)
    assert float((found - exact).norm()) <= 1.01 * float((direct - exact).norm())


@pytest.mark.parametrize("name", EVERY)
def test_a_view_is_the_same_image_as_on_a_cpu(name: str) -> None:
    augmentation = EVERY[name]
    assert augmentation is not None
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 32, 32), generator=drawn, dtype=torch.uint8)
    views, every = Views(augmentation=augmentation, seed=5), torch.arange(64)
    expected = views.of(images, every, 3)
    assert torch.equal(views.of(images.cuda(), every, 3).cpu(), expected)
    assert torch.equal(views.of(images, every, 3, torch.device("cuda")).cpu(), expected)
