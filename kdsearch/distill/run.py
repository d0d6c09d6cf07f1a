"""From a training to its outcome: the worker's entry."""

from __future__ import annotations

import logging
import platform
import socket
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from kdsearch.agenda import (
    VERSION,
    CheckpointSpec,
    Cost,
    DataSpec,
    ModelSpec,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
)
from kdsearch.distill.artifacts import ensure, save_models
from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.caches import Split, encoded, tokenizer_of
from kdsearch.distill.evaluation import Evaluation, evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.models import (
    build_model,
    check_head,
    known_inputs,
    load_checkpoint,
    load_model,
    model_folder,
)
from kdsearch.distill.outputs import KeptOutputs, write_outputs
from kdsearch.distill.progress import DiskCheckpoints
from kdsearch.distill.together import train_together
from kdsearch.distill.training import History, TrainingState, train
from kdsearch.errors import InputError, MemoryExhaustedError, StorageError, first_line
from kdsearch.ledger import Ledger, layout
from kdsearch.ledger.tested import Tested
from kdsearch.search import Labels, Objective, ValidationScore
from kdsearch.study import SPLITS, installed_versions
from kdsearch.tasks import TASKS, Encoded, Settings, Task

_log = logging.getLogger(__name__)


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
    worker = _Worker(ledger, keep=keep, parts=parts)

    def work() -> tuple[Outcome, ...]:
        if isinstance(training, TeacherTraining):
            return (worker.teacher(training),)
        if isinstance(training, OutputsTraining):
            return (worker.outputs(training),)
        return (worker.student(training),)

    (outcome,) = _timed(work, training.settings.cpu_threads)
    return outcome


def run_together(trainings: Sequence[StudentTraining], folder: Path) -> tuple[Outcome, ...]:
    """Train two or more students in one pass; their outcomes, in order, are not yet committed.

    They are of one model, data, settings and seed, all with a teacher or all without one; they may
    differ in the learning rate, the objective, and whose outputs they learn from. Each learns what
    it learns alone, to rounding. One that diverges does not disturb the others. The seconds of
    each are those of the pass by their number. Kept on disk is what `run` keeps.
    """
    worker = _Worker(Ledger(folder), keep=False, parts=1)
    return _timed(lambda: worker.students(trainings), trainings[0].settings.cpu_threads)


def _timed(work: Callable[[], tuple[Outcome, ...]], threads: int) -> tuple[Outcome, ...]:
    """Do some work: its outcomes, each with its share of the seconds."""
    started, began = datetime.now(UTC), time.monotonic()
    torch.set_num_threads(threads)
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


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A training before its first step, and what it needs on its way."""

    state: TrainingState
    validate: Callable[[], Evaluation]
    checkpoints: DiskCheckpoints


class _Worker:
    """The three kinds of training, on one device."""

    def __init__(self, ledger: Ledger, *, keep: bool, parts: int) -> None:
        self._ledger = ledger
        self._resolved = ledger.resolved()
        self._keep = keep
        self._parts = parts
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def teacher(self, training: TeacherTraining) -> Outcome:
        """Fine-tune a teacher, and keep its best and its lowest-loss epoch."""
        model, history = self._train(training, Labels())
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        assert history.lowest_loss is not None
        epochs = (history.best, history.lowest_loss)
        kept = {f"epoch-{epoch.epoch}": state for epoch, state in epochs}
        folder = self._ledger.path(layout.checkpoints(training.key))
        digests, size = save_models(self._ledger, self._resolved, folder, training, model, kept)
        return outcome.model_copy(
            update={
                "validation": history.best[0].validation,
                "best_epoch": history.best[0].epoch,
                "lowest_loss_epoch": history.lowest_loss[0].epoch,
                "digests": digests,
                "cost": self._cost(size),
            }
        )

    def outputs(self, training: OutputsTraining) -> Outcome:
        """Score a checkpoint on a split; for the training split, keep what it says instead."""
        data, settings, checkpoint = training.data, training.settings, training.checkpoint
        task = TASKS[data.task]
        tokenizer = self._tokenizer(checkpoint.model, data)
        model = self._teacher(checkpoint, task, data, tokenizer).to(self._device)
        order = [checkpoint.labels.index(label) for label in data.labels]
        if training.split == "train":
            return self._keep_outputs(training, model, order)
        examples = self._encoded(model, checkpoint.model, data, training.split, settings)
        read_first_alone(model, task, examples)
        scored = evaluate(
            *(model, task, tokenizer, examples, data, settings),
            order=order,
            parts=self._parts,
            timed=training.split == "test",
            cold=training.split == "test",
        )
        outcome = self._outcome(training, model, None)
        if scored.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        if training.split == "validation":
            score: dict[str, Any] = {"validation": ValidationScore(scored.score)}
        else:
            score = {
                "test": TestScore(scored.score),
                "digests": self._keep_rows(training, scored, examples),
                "cost": self._cost(0, speed=scored.examples_per_second),
            }
        return outcome.model_copy(update={"measures": scored.measures, **score})

    def _keep_outputs(self, training: OutputsTraining, model: Any, order: Sequence[int]) -> Outcome:
        """Write what a model says: of the training split to learn from, of the others to measure.

        A head lies beside the former alone.
        """
        data, settings, task = training.data, training.settings, TASKS[training.data.task]
        outcome = self._outcome(training, model, None)
        digests: dict[str, str] = {}
        for split in SPLITS:
            examples = self._encoded(model, training.checkpoint.model, data, split, settings)
            if task.wide:
                check_head(model, task, examples)
            if split == "train":
                read_first_alone(model, task, examples)
            path = self._ledger.path(layout.outputs(training.key, split))
            learnt = split == "train"
            written = write_outputs(
                *(path, model, task, examples, settings, order),
                parts=self._parts,
                with_head=learnt,
            )
            if written is None and learnt:
                return outcome.model_copy(update={"state": "diverged"})
            for file, digest in (written or {}).items():
                digests[str(file.relative_to(self._ledger.folder))] = digest
        size = sum(self._ledger.path(name).stat().st_size for name in digests)
        return outcome.model_copy(update={"digests": digests, "cost": self._cost(size)})

    def student(self, training: StudentTraining) -> Outcome:
        """Train a student, with a teacher's cached outputs or without; score its best epoch."""
        kept = self._kept(training)
        model, history = self._train(training, training.objective, kept)
        return self._scored(training, model, history, kept)

    def students(self, trainings: Sequence[StudentTraining]) -> tuple[Outcome, ...]:
        """Train several students in one pass; score the best epoch of each, one after another."""
        kept = [self._kept(training) for training in trainings]
        first = trainings[0]
        model = self._built(first)
        models = [model, *(deepcopy(model) for _ in trainings[1:])]
        begun = [
            self._begun(training, student, training.objective, taught_by)
            for training, student, taught_by in zip(trainings, models, kept, strict=True)
        ]
        histories = train_together(
            [each.state for each in begun],
            TASKS[first.data.task],
            [each.validate for each in begun],
            seed=first.seed,
            checkpoints=[each.checkpoints for each in begun],
        )
        fused = {"fused": len(trainings)}
        return tuple(
            self._scored(*each).model_copy(update=fused)
            for each in zip(trainings, models, histories, kept, strict=True)
        )

    def _kept(self, training: StudentTraining) -> KeptOutputs | None:
        """What its teacher says; called before anything is seeded, since it may run a training."""
        taught = training.teaching
        if taught is None:
            return None
        ensure(self._ledger, taught.outputs, layout.OUTPUTS, run, checkpoint=taught.teacher)
        return KeptOutputs(self._ledger, training, self._device)

    def _scored(
        self,
        training: StudentTraining,
        model: nn.Module,
        history: History,
        kept: KeptOutputs | None,
    ) -> Outcome:
        """Score the best epoch of a student that was trained, and keep it where that is asked."""
        data, settings = training.data, training.settings
        task, tokenizer = TASKS[data.task], self._tokenizer(training.model, data)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        epoch, state = history.best
        model.load_state_dict(state)
        test = self._encoded(model, training.model, data, "test", settings)
        teacher = kept.on("test", len(test.labels)) if kept else None
        found = evaluate(
            *(model, task, tokenizer, test, data, settings),
            parts=self._parts,
            teacher=teacher,
            timed=True,
        )
        if found.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        digests: dict[str, str] = {}
        size = 0
        if self._keep or self._is_kept(training):
            folder = self._ledger.path(layout.student(training.key))
            digests, size = save_models(
                self._ledger, self._resolved, folder, training, model, {"": state}
            )
        return outcome.model_copy(
            update={
                "validation": epoch.validation,
                "test": TestScore(found.score),
                "measures": found.measures,
                "best_epoch": epoch.epoch,
                "digests": digests | self._keep_rows(training, found, test),
                "cost": self._cost(size, speed=found.examples_per_second),
            }
        )

    def _keep_rows(
        self, training: Training, found: Evaluation, examples: Encoded
    ) -> dict[str, str]:
        """Keep what was made of each test row; the digest of that, by its file's name.

        What goes wrong is logged, and told by the driver: the training is done and scored, and only
        its noise is not known.
        """
        data = training.data
        try:
            rows = TASKS[data.task].statistics(found.predictions, examples.references, data)
            recorded = self._ledger.outcome(training.key)
            return Tested(self._ledger.folder).keep(training.key, rows, recorded)
        except Exception as error:  # whatever it is, it would cost the whole training
            # A disk that takes nothing more will end the search in words of its own.
            level = logging.INFO if isinstance(error, StorageError) else logging.WARNING
            _log.log(level, "key=%s: its test rows are not kept", training.key, exc_info=True)
            return {}

    def _is_kept(self, training: StudentTraining) -> bool:
        """Whether the study keeps the student; `best` is for export, which gives the first seed."""
        study = self._resolved.study
        first = training.seed == study.student_seeds[0]
        return study.keep_students == "all" or (study.keep_students == "best" and first)

    def _train(
        self,
        training: TeacherTraining | StudentTraining,
        objective: Objective,
        kept: KeptOutputs | None = None,
    ) -> tuple[nn.Module, History]:
        """Build the model and train it."""
        model = self._built(training)
        begun = self._begun(training, model, objective, kept)
        history = train(
            begun.state,
            begun.validate,
            seed=training.seed,
            keep_lowest_loss=isinstance(training, TeacherTraining),
            checkpoints=begun.checkpoints,
        )
        return model, history

    def _built(self, training: TeacherTraining | StudentTraining) -> nn.Module:
        """A training's model before its first step.

        Everything random comes after the seed, and in the same order in every process.
        """
        data = training.data
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(
            *(training.model, TASKS[data.task], data.labels, tokenizer, self._resolved),
            dropout=training.settings.dropout,
        )
        return model.to(self._device)

    def _begun(
        self,
        training: TeacherTraining | StudentTraining,
        model: nn.Module,
        objective: Objective,
        kept: KeptOutputs | None,
    ) -> _Begun:
        """A training before its first step.

        Without a teacher, whose outputs are `kept`, rows that have a label are learnt from.
        """
        data, settings = training.data, training.settings
        task, tokenizer = TASKS[data.task], self._tokenizer(training.model, data)
        examples = self._encoded(model, training.model, data, "train", settings, labelled=not kept)
        if task.wide:
            check_head(model, task, examples)
        read_first_alone(model, task, examples)
        validation = self._encoded(model, training.model, data, "validation", settings)
        taught_by = kept.on("train", len(examples.labels)) if kept else None
        state = TrainingState(
            *(model, task, examples, batch_loss(task, model, objective, taught_by), settings),
            learning_rate=training.learning_rate,
            parts=self._parts,
            evaluated_on=(validation,),
        )
        validate = partial(
            evaluate,
            *(model, task, tokenizer, validation, data, settings),
            parts=self._parts,
            teacher=kept.on("validation", len(validation.labels)) if kept else None,
        )
        minutes = self._resolved.study.resources.checkpoint_minutes
        checkpoints = DiskCheckpoints(self._ledger, training.key, minutes)
        return _Begun(state=state, validate=validate, checkpoints=checkpoints)

    # -- inputs ---------------------------------------------------------------------------------

    def _tokenizer(self, spec: ModelSpec, data: DataSpec) -> Any:
        return tokenizer_of(spec, data, self._ledger.folder)

    def _encoded(
        self,
        model: nn.Module,
        spec: ModelSpec,
        data: DataSpec,
        split: str,
        settings: Settings,
        *,
        labelled: bool = False,
    ) -> Encoded:
        wanted = Split(
            spec=spec,
            data=data,
            split=split,
            settings=settings,
            labelled=labelled,
            folder=self._ledger.folder,
            device=str(self._device),
        )
        return known_inputs(model, encoded(wanted))

    def _teacher(
        self, checkpoint: CheckpointSpec, task: Task, data: DataSpec, tokenizer: Any
    ) -> Any:
        spec = checkpoint.model
        if checkpoint.training is None:
            folder = model_folder(spec.name, spec.weights, self._resolved)
            return load_model(folder, spec.name, task, tokenizer)
        assert checkpoint.epoch is not None
        key = checkpoint.training
        where = layout.checkpoint(key, checkpoint.epoch)

        def load() -> Any:
            ensure(self._ledger, key, where, run, model=spec)
            folder = self._ledger.path(where)
            return load_checkpoint(folder, spec, task, data.labels, tokenizer, self._resolved)

        try:
            return load()
        except OSError:  # another worker that made it again too was putting its own in the place
            return load()

    def _outcome(self, training: Training, model: nn.Module, history: History | None) -> Outcome:
        return Outcome(
            key=training.key,
            training=training,
            state="diverged" if history is not None and history.diverged else "scored",
            epochs=tuple(history.epochs) if history else (),
            curve=history.curve if history else None,
            parameters=sum(p.numel() for p in model.parameters()),
            model_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
            metric=TASKS[training.data.task].signature(training.data),
            parts=self._parts,
            cost=self._cost(0),
        )

    def _cost(self, size: int, *, speed: float | None = None) -> Cost:
        cuda = self._device.type == "cuda"
        device = torch.cuda.get_device_name() if cuda else platform.machine() + " CPU"
        return Cost(
            seconds=0.0,
            device=device,
            host=socket.gethostname(),
            bytes_written=size,
            examples_per_second=speed,
            versions=_versions(),
        )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """What an outcome says of the software that it was made with."""
    installed = installed_versions()
    names = ("kdsearch", "python", "torch", "transformers", "tokenizers")
    cuda = {"cuda": torch.version.cuda} if torch.version.cuda else {}
    return {name: installed[name] for name in names} | cuda
