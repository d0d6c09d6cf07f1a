"""From a training to its outcome: the worker's entry."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from kdsearch.agenda import (
    VERSION,
    Outcome,
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    TeacherTraining,
    Training,
)
from kdsearch.distill.passes import Passes
from kdsearch.distill.trainings import Trainings
from kdsearch.errors import InputError, MemoryExhaustedError, first_line
from kdsearch.ledger import Ledger


def run(training: Training, folder: Path, *, keep: bool = False) -> Outcome:
    """Run a training with the files of the study's `folder`; its outcome is not yet committed.

    Kept on disk: a teacher's checkpoints, a checkpoint's outputs, what was made of each test row,
    and a student where the study says so, or `keep`. Raises what the work raises, and `InputError`
    for a training of other training code than this: it would be another.
    """
    if training.version != VERSION:
        what = f"is of training code {training.version}, and this kdsearch has {VERSION}"
        remedy = "use the kdsearch that wrote its folder, to train it again"
        raise InputError.one(training, what, remedy)
    ledger = Ledger(folder)
    attempts = ledger.attempts_of(training.key)
    # With half of it, a single longer batch may be too much again. A pass of several takes more.
    alone = [attempt for attempt in attempts if attempt.fused == 1]
    parts = 4 if any(attempt.failure == "gpu_oom" for attempt in alone) else 1

    def work() -> tuple[Outcome, ...]:
        if isinstance(training, OutputsTraining):
            return (Passes(ledger, run, parts=parts).outputs(training),)
        if isinstance(training, SequencesTraining):
            return (Passes(ledger, run, parts=parts).sequences(training),)
        trainings = Trainings(ledger, run, keep=keep, parts=parts)
        if isinstance(training, TeacherTraining):
            return (trainings.teacher(training),)
        return (trainings.student(training),)

    (outcome,) = _timed(work, training.settings.cpu_threads)
    return outcome


def run_together(trainings: Sequence[StudentTraining], folder: Path) -> tuple[Outcome, ...]:
    """Train two or more students in one pass; their outcomes, in order, are not yet committed.

    They are of one model, data, settings and seed, all with a teacher or all without one; they may
    differ in the learning rate, the objective, and whose outputs they learn from. Each learns what
    it learns alone, to rounding. One that diverges does not disturb the others. The seconds of
    each are those of the pass by their number. Kept on disk is what `run` keeps.
    """
    worker = Trainings(Ledger(folder), run)
    return _timed(lambda: worker.students(trainings), trainings[0].settings.cpu_threads)


def _timed(work: Callable[[], tuple[Outcome, ...]], threads: int) -> tuple[Outcome, ...]:
    """Do some work: its outcomes, each with its share of the seconds."""
    started, began = datetime.now(UTC), time.monotonic()
    torch.set_num_threads(threads)
    # On a GPU torch rounds what convolutions multiply to 10 bits, in what is called fp32 too.
    torch.backends.cudnn.allow_tf32 = False
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        outcomes = work()
    except torch.OutOfMemoryError as error:
        raise MemoryExhaustedError(first_line(error), gpu=True) from error
    except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise MemoryExhaustedError(first_line(error), gpu=False) from error
        raise
    took = {
        "seconds": round((time.monotonic() - began) / len(outcomes), 3),
        "started": started,
        "ended": datetime.now(UTC),
    }
    return tuple(
        outcome.model_copy(update={"cost": outcome.cost.model_copy(update=took)})
        for outcome in outcomes
    )
