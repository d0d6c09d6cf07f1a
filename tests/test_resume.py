"""A training whose worker died goes on from its last checkpoint, with the same result."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ALL
from fakes import attempt_at
from models import WORKERS, begin, first, run_study, task_study, tiny, tiny_study, without_cost
from test_training import bert, encoded, trained

from kdsearch.agenda import Outcome, Training
from kdsearch.distill import run_training
from kdsearch.engine import Worker
from kdsearch.errors import MemoryExhaustedError
from kdsearch.ledger import Ledger
from kdsearch.study import Sgd

EVERY_STEP: dict[str, Any] = {
    "resources": {"checkpoint_minutes": 1e-9},
    "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 3}}},
}
"""Of a study: a checkpoint at every step, so that there had better be few."""
TASKS = ("classification", "ner", "qa", "translation", "lm", "image_classification")


class DeadError(Exception):
    """The process ends here."""


@dataclass
class MemoryCheckpoints:
    """Checkpoints in memory, each on its way through a file's bytes; dies after `dies_after`."""

    dies_after: int | None = None
    due: bool = True
    kept: tuple[int, bytes] | None = None
    steps: list[int] = field(default_factory=list)

    def save(self, steps: int, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.kept = (steps, buffer.getvalue())
        self.steps.append(steps)
        if steps == self.dies_after:
            raise DeadError

    def load(self) -> tuple[int, dict[str, Any]] | None:
        if self.kept is None:
            return None
        return self.kept[0], torch.load(io.BytesIO(self.kept[1]), weights_only=True)


SETTINGS = {"epochs": 3, "batch_size": 8, "schedule": "cosine", "warmup": 0.2, "clip": 1.0}


NESTEROV = {"optimizer": "sgd", "sgd": Sgd(nesterov=True, weight_decay=0.1)}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, range(1, 15) if ALL else (1, 5, 6, 12, 14)),
        (NESTEROV, (4, 5, 11)),
        ({**NESTEROV, "precision": "fp16"}, (7,)),
    ],
)
def test_a_training_that_died_after_any_step_ends_as_if_it_had_not(
    changes: dict[str, Any], steps: Sequence[int]
) -> None:
    # 40 examples in batches of 8: 5 steps an epoch; nothing is saved behind the last.
    settings = {**SETTINGS, **changes}
    whole = bert()
    history = trained(whole, checkpoints=None, **settings)
    for step in steps:
        checkpoints = MemoryCheckpoints(dies_after=step)
        with pytest.raises(DeadError):
            trained(bert(), checkpoints=checkpoints, **settings)
        assert checkpoints.steps == list(range(1, step + 1))
        checkpoints.dies_after = None
        torch.manual_seed(step)  # another process, whose random state is another
        model = bert(seed=step)
        resumed = trained(model, checkpoints=checkpoints, **settings)
        assert checkpoints.steps == list(range(1, 15))  # and none was done twice
        assert resumed.epochs == history.epochs
        assert resumed.curve == history.curve
        assert [e for e, _ in (resumed.best, resumed.lowest_loss)] == [  # type: ignore[misc]
            e
            for e, _ in (history.best, history.lowest_loss)  # type: ignore[misc]
        ]
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (step, name)


def test_a_checkpoint_of_a_version_that_measured_nothing_and_kept_all_weights_goes_on() -> None:
    history = trained(bert(), checkpoints=None, **SETTINGS)
    checkpoints = MemoryCheckpoints(dies_after=7)
    with pytest.raises(DeadError):
        trained(bert(), checkpoints=checkpoints, **SETTINGS)
    found = checkpoints.load()
    assert found is not None
    steps, state = found
    del state["curve"]
    state["moving"]["model"] = state.pop("model")
    for epoch in (*state["epochs"], state["best"][0], state["lowest_loss"][0]):
        epoch.pop("measures", None)
    checkpoints.dies_after = None
    checkpoints.save(steps, state)
    resumed = trained(bert(), checkpoints=checkpoints, **SETTINGS)
    assert [e.validation for e in resumed.epochs] == [e.validation for e in history.epochs]
    assert [bool(e.measures) for e in resumed.epochs] == [False, True, True]
    assert resumed.curve is not None
    assert history.curve is not None
    seen = resumed.curve.posterior_entropy
    assert seen == (*[None] * 7, *history.curve.posterior_entropy[7:])


def test_a_checkpoint_is_written_only_when_it_is_due() -> None:
    checkpoints = MemoryCheckpoints(due=False)
    trained(bert(), checkpoints=checkpoints, **SETTINGS)
    assert checkpoints.steps == []


def until_killed(training: Training, folder: Path) -> None:
    run_training(training, folder)


def killed(training: Training, ledger: Ledger) -> int:
    """Run a training in a process of its own and kill that: the steps it had behind it."""
    process = WORKERS.Process(target=until_killed, args=(training, ledger.folder))
    process.start()
    while not any(progress.steps >= 7 for progress in ledger.progress(training.key)):
        assert process.is_alive(), "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.join()
    return max(progress.steps for progress in ledger.progress(training.key))


@pytest.mark.parametrize("task", TASKS)
def test_a_student_whose_process_was_killed_has_the_same_outcome_as_one_that_was_not(
    tmp_path: Path, task: str
) -> None:
    study = task_study(task, training={"epochs": 4}, **EVERY_STEP)
    ledger, agenda = begin(tmp_path, study)
    while not any(r.training.kind == "student" for r in agenda.requests()):
        training = agenda.requests()[0].training
        Worker(folder=tmp_path, run_training=run_training)(training)
        agenda.add(training.key, ledger.outcome(training.key))
    student = first(agenda, "student")
    undisturbed = run_training(student, tmp_path)
    ledger.remove_progress(student.key)
    assert 7 <= killed(student, ledger) < 48
    resumed = run_training(student, tmp_path)
    assert without_cost(resumed) == without_cost(undisturbed)


def test_a_teacher_whose_process_was_killed_keeps_the_same_checkpoints(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path / "one", tiny_study(**EVERY_STEP))
    teacher = first(agenda, "teacher")
    killed(teacher, ledger)
    other, _ = begin(tmp_path / "other", tiny_study(teachers=EVERY_STEP["teachers"]))
    resumed = run_training(teacher, ledger.folder)
    assert without_cost(resumed) == without_cost(run_training(teacher, other.folder))


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path, tiny_study(**EVERY_STEP))
    teacher = first(agenda, "teacher")
    undisturbed = without_cost(run_training(teacher, tmp_path))
    [progress] = ledger.progress(teacher.key)
    content = bytearray(progress.path.read_bytes())
    content[len(content) // 2] ^= 1
    progress.path.write_bytes(content)
    assert without_cost(run_training(teacher, tmp_path)) == undisturbed


def test_checkpoints_are_gone_once_the_outcome_is_written(tmp_path: Path) -> None:
    search = {**tiny_study()["search"], "distance": ["ce"], "teacher": ["t_hs"], "alpha": [1]}
    ledger, agenda = begin(tmp_path, tiny_study(search=search, **EVERY_STEP))
    seen: list[int] = []

    def looking(training: Training, folder: Path) -> Outcome:
        outcome = run_training(training, folder)
        seen.append(len(ledger.progress(training.key)))
        return outcome

    run_study(ledger, agenda, looking)
    assert agenda.complete
    assert 1 in seen
    assert list((tmp_path / "progress").iterdir()) == []


def test_a_try_that_ran_out_of_gpu_memory_is_followed_by_one_with_batches_in_parts(
    tmp_path: Path,
) -> None:
    ledger, agenda = begin(tmp_path, tiny_study(teachers=EVERY_STEP["teachers"]))
    teacher = first(agenda, "teacher")
    whole = run_training(teacher, tmp_path)
    ledger.write_attempt(attempt_at(teacher.key).model_copy(update={"failure": "gpu_oom"}))
    in_parts = run_training(teacher, tmp_path)
    assert (whole.parts, in_parts.parts) == (1, 4)
    assert in_parts.validation is not None


@pytest.mark.parametrize("batch_size", [8, 7])
def test_a_gradient_accumulated_over_parts_of_a_batch_is_the_whole_batchs(batch_size: int) -> None:
    settings = {"epochs": 2, "batch_size": batch_size}
    models = [bert().eval() for _ in range(2)]
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # a part draws other units than the whole
    one, four = (trained(m, parts=n, **settings) for m, n in zip(models, (1, 4), strict=True))
    for a, b in zip(one.epochs, four.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.validation_loss == pytest.approx(b.validation_loss, rel=1e-4)


def test_the_activations_of_one_part_only_are_held() -> None:
    held: dict[int, int] = {}
    for parts in (1, 4):
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            trained(bert(), examples=encoded(8), epochs=1, batch_size=8, parts=parts)
        held[parts] = total
    assert held[4] < held[1]


def test_a_host_whose_memory_runs_out_is_told_from_an_error(tmp_path: Path) -> None:
    huge = {"big": {"config": tiny(2, intermediate_size=2**42)}, "small": {"config": tiny(1)}}
    _, agenda = begin(tmp_path, tiny_study(models=huge))
    with pytest.raises(MemoryExhaustedError, match="can't allocate memory") as caught:
        run_training(first(agenda, "teacher"), tmp_path)
    assert not caught.value.gpu
