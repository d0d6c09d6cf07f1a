"""From a training to its outcome: the worker's entry."""

from __future__ import annotations

import logging
import platform
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from kdsearch.agenda import (
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
from kdsearch.distill.batch_loss import BatchLoss, batch_loss
from kdsearch.distill.models import (
    build_model,
    check_head,
    known_inputs,
    load_checkpoint,
    load_model,
    load_tokenizer,
    model_folder,
)
from kdsearch.distill.outputs import read_outputs, sync_and_digest, write_outputs
from kdsearch.distill.progress import DiskCheckpoints
from kdsearch.distill.training import History, State, evaluate, train
from kdsearch.errors import InputError, MemoryExhaustedError, first_line
from kdsearch.ledger import Ledger, put, storage_error
from kdsearch.search import Labels, ValidationScore
from kdsearch.study import GOLD, installed_versions
from kdsearch.tasks import TASKS, Encoded, Settings, Task, has_languages

_log = logging.getLogger(__name__)


def run(training: Training, folder: Path, *, keep: bool = False) -> Outcome:
    """Run a training with the files of the study's `folder`; its outcome is not yet committed.

    Kept on disk: a teacher's checkpoints, a checkpoint's outputs, and a student where the study
    says so, or `keep`. Raises what the work raises.
    """
    started = time.monotonic()
    torch.set_num_threads(training.settings.cpu_threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ledger = Ledger(folder)
    attempts = ledger.attempts_of(training.key)
    # With half of it, a single longer batch may be too much again.
    parts = 4 if any(attempt.failure == "gpu_oom" for attempt in attempts) else 1
    worker = _Worker(ledger, keep=keep, parts=parts)
    try:
        if isinstance(training, TeacherTraining):
            outcome = worker.teacher(training)
        elif isinstance(training, OutputsTraining):
            outcome = worker.outputs(training)
        else:
            outcome = worker.student(training)
    except torch.OutOfMemoryError as error:
        raise MemoryExhaustedError(first_line(error), gpu=True) from error
    except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise MemoryExhaustedError(first_line(error), gpu=False) from error
        raise
    seconds = round(time.monotonic() - started, 3)
    return outcome.model_copy(update={"cost": outcome.cost.model_copy(update={"seconds": seconds})})


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
        task = TASKS[training.data.task]
        model, _, history = self._train(
            training, lambda model, examples: batch_loss(task, model, Labels())
        )
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        assert history.lowest_loss is not None
        epochs = (history.best, history.lowest_loss)
        kept = {f"epoch-{epoch.epoch}": state for epoch, state in epochs}
        folder = self._ledger.path(f"checkpoints/{training.key}")
        digests, size = self._save(folder, training, model, kept)
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
        """Score a checkpoint on a split; on the training split, keep what it says instead."""
        data, settings, checkpoint = training.data, training.settings, training.checkpoint
        task = TASKS[data.task]
        tokenizer = self._tokenizer(checkpoint.model, data)
        model = self._teacher(checkpoint, task, data, tokenizer).to(self._device)
        order = [checkpoint.labels.index(label) for label in data.labels]
        examples = self._encoded(model, checkpoint.model, data, training.split, settings)
        if training.split == "train":
            return self._keep_outputs(training, model, examples, order)
        scored = evaluate(
            model, task, tokenizer, examples, data, settings, order=order, parts=self._parts
        )
        outcome = self._outcome(training, model, None)
        if scored.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        if training.split == "validation":
            return outcome.model_copy(update={"validation": ValidationScore(scored.score)})
        cost = self._cost(0, speed=scored.examples_per_second)
        return outcome.model_copy(update={"test": TestScore(scored.score), "cost": cost})

    def student(self, training: StudentTraining) -> Outcome:
        """Train a student, with a teacher's cached outputs or without; score its best epoch."""
        data, settings = training.data, training.settings
        task = TASKS[data.task]
        taught = training.teaching
        if taught is not None:  # before the seed: it may run a training
            self._ensure(taught.outputs, "outputs", checkpoint=taught.teacher)

        def batch_loss_of(model: Any, examples: Encoded) -> BatchLoss:
            teacher = None
            if taught is not None:
                path = self._ledger.path(f"outputs/{taught.outputs}.npy")
                teacher = read_outputs(path, training, len(examples.labels), self._device)
            return batch_loss(task, model, training.objective, teacher)

        model, tokenizer, history = self._train(training, batch_loss_of)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        epoch, state = history.best
        model.load_state_dict(state)
        test = self._encoded(model, training.model, data, "test", settings)
        found = evaluate(model, task, tokenizer, test, data, settings, parts=self._parts)
        if found.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        digests: dict[str, str] = {}
        size = 0
        if taught is not None and (self._keep or self._is_kept(training)):
            folder = self._ledger.path(f"students/{training.key}")
            digests, size = self._save(folder, training, model, {"": state})
        return outcome.model_copy(
            update={
                "validation": epoch.validation,
                "test": TestScore(found.score),
                "best_epoch": epoch.epoch,
                "digests": digests,
                "cost": self._cost(size, speed=found.examples_per_second),
            }
        )

    def _is_kept(self, training: StudentTraining) -> bool:
        """Whether the study keeps the student; `best` is for export, which gives the first seed."""
        study = self._resolved.study
        first = training.seed == study.student_seeds[0]
        return study.keep_students == "all" or (study.keep_students == "best" and first)

    def _train(
        self,
        training: TeacherTraining | StudentTraining,
        batch_loss_of: Callable[[Any, Encoded], BatchLoss],
    ) -> tuple[Any, Any, History]:
        """Build the model and train it: it, its tokenizer, how it went.

        Without a teacher, rows that have a label are learnt from. Everything random comes after
        the seed, and in the same order in every process.
        """
        data, settings = training.data, training.settings
        task = TASKS[data.task]
        teacher = isinstance(training, TeacherTraining)
        labelled = isinstance(training, TeacherTraining) or training.teaching is None
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(training.model, task, data.labels, tokenizer, self._resolved)
        model.to(self._device)
        examples = self._encoded(model, training.model, data, "train", settings, labelled=labelled)
        if task.wide:
            check_head(model, task, examples)
        history = train(
            model,
            task,
            tokenizer,
            data,
            examples,
            self._encoded(model, training.model, data, "validation", settings),
            batch_loss_of(model, examples),
            settings=settings,
            learning_rate=training.learning_rate,
            seed=training.seed,
            keep_lowest_loss=teacher,
            parts=self._parts,
            checkpoints=DiskCheckpoints(
                self._ledger,
                training.key,
                self._resolved.study.resources.checkpoint_minutes,
            ),
        )
        return model, tokenizer, history

    # -- inputs ---------------------------------------------------------------------------------

    def _tokenizer(self, spec: ModelSpec, data: DataSpec) -> Any:
        return _cached_tokenizer(spec, data, self._ledger.folder)

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
        wanted = _Split(
            spec=spec,
            data=data,
            split=split,
            settings=settings,
            labelled=labelled,
            folder=self._ledger.folder,
            device=str(self._device),
        )
        return known_inputs(model, _encoded(_Hashed(wanted.key, wanted)))

    def _teacher(
        self, checkpoint: CheckpointSpec, task: Task, data: DataSpec, tokenizer: Any
    ) -> Any:
        spec = checkpoint.model
        if checkpoint.training is None:
            folder = model_folder(spec.name, spec.weights, self._resolved)
            return load_model(folder, spec.name, task, tokenizer)
        key, where = (
            checkpoint.training,
            f"checkpoints/{checkpoint.training}/epoch-{checkpoint.epoch}",
        )

        def load() -> Any:
            self._ensure(key, where, model=spec)
            folder = self._ledger.path(where)
            return load_checkpoint(folder, spec, task, data.labels, tokenizer, self._resolved)

        try:
            return load()
        except OSError:  # another worker that made it again too was putting its own in the place
            return load()

    def _ensure(self, key: str, where: str, **names: ModelSpec | CheckpointSpec) -> None:
        """See that what the training `key` kept in `where` is whole, or run that training again.

        On a CPU that gives the same bytes. A GPU may give others: then their digests stand beside
        the outcome, which is not written again. `names` is the part of the training that says what
        the study calls its models now. Several workers may be at it at once.
        """
        outcome = self._ledger.outcome(key)
        if outcome is None or self._ledger.intact(outcome, where):
            return
        training = outcome.training.model_copy(update=names)
        _log.warning("key=%s: %s is damaged or gone; made again: %s", key, where, training)
        again = run(training, self._ledger.folder)
        if not self._ledger.intact(outcome, where):
            self._ledger.write_digests(key, again.digests)
        if not self._ledger.intact(outcome, where):  # another epoch was the best this time
            raise InputError.one(
                self._ledger.folder / where,
                "is damaged or gone, and training it again did not give it back",
                f"bring it back from a copy of the folder; or remove outcomes/{key}.json and "
                "launch again, to train it and what learns from it anew",
            )

    # -- what is kept ---------------------------------------------------------------------------

    def _save(
        self,
        final: Path,
        training: TeacherTraining | StudentTraining,
        model: Any,
        kept: dict[str, State],
    ) -> tuple[dict[str, str], int]:
        """Write states as Hugging Face folders below `final`: their files' digests, and bytes."""
        data, root = training.data, self._ledger.folder
        # A new one: the cached one also carries how other trainings cut with it.
        tokenizer = load_tokenizer(
            training.model,
            TASKS[data.task],
            partial(self._ledger.rows, data.train),
            self._resolved,
        )
        if data.languages is not None and has_languages(tokenizer):
            tokenizer.src_lang, tokenizer.tgt_lang = data.languages
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._ledger.make_folder(temporary)
            for name, state in kept.items():
                model.load_state_dict(state)
                model.save_pretrained(temporary / name)
                tokenizer.save_pretrained(temporary / name)
            files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
            digests = {
                str((final / path.relative_to(temporary)).relative_to(root)): sync_and_digest(path)
                for path in files
            }
            size = sum(path.stat().st_size for path in files)
            outcome = self._ledger.outcome(training.key)
            if outcome and self._ledger.intact(outcome, str(final.relative_to(root))):
                shutil.rmtree(temporary)  # another worker made it again at the same time
            else:
                put(root, temporary, final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise storage_error(final, error) from None
        return digests, size

    def _keep_outputs(
        self, training: OutputsTraining, model: Any, examples: Encoded, order: Sequence[int]
    ) -> Outcome:
        """Write what a model says of the training split."""
        task = TASKS[training.data.task]
        if task.wide:
            check_head(model, task, examples)
        root = self._ledger.folder
        path = self._ledger.path(f"outputs/{training.key}.npy")
        written = write_outputs(
            path, model, task, examples, training.settings, order, parts=self._parts
        )
        outcome = self._outcome(training, model, None)
        if written is None:
            return outcome.model_copy(update={"state": "diverged"})
        digests = {str(file.relative_to(root)): digest for file, digest in written.items()}
        size = sum(file.stat().st_size for file in written)
        return outcome.model_copy(update={"digests": digests, "cost": self._cost(size)})

    def _outcome(self, training: Training, model: nn.Module, history: History | None) -> Outcome:
        return Outcome(
            key=training.key,
            training=training,
            state="diverged" if history is not None and history.diverged else "scored",
            epochs=tuple(history.epochs) if history else (),
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


# A worker process serves many trainings: what they share is read and encoded once.


class _Hashed:
    """A cache key that carries the values it was made from."""

    def __init__(self, key: tuple[object, ...], *values: Any) -> None:
        self.key = key
        self.values = values

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.key == other.key


def _cached_tokenizer(spec: ModelSpec, data: DataSpec, folder: Path) -> Any:
    return _tokenizer(_Hashed(_tokenizer_key(spec, data), spec, data, folder))


def _tokenizer_key(spec: ModelSpec, data: DataSpec) -> tuple[object, ...]:
    return spec.tokenizer, data.train if spec.tokenizer_name is None else ""


@lru_cache(maxsize=8)
def _tokenizer(wanted: _Hashed) -> Any:
    spec, data, folder = wanted.values
    ledger = Ledger(folder)
    train = partial(ledger.rows, data.train)
    return load_tokenizer(spec, TASKS[data.task], train, ledger.resolved())


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A split as tensors on a device: all that they depend on."""

    spec: ModelSpec
    data: DataSpec
    split: str
    settings: Settings
    labelled: bool
    folder: Path
    device: str

    @property
    def digest(self) -> str:
        digest: str = getattr(self.data, self.split)
        return digest

    @property
    def key(self) -> tuple[object, ...]:
        settings = self.settings
        return (
            *_tokenizer_key(self.spec, self.data),
            (self.data.task, self.data.languages, self.data.unanswerable),
            (self.digest, self.split, self.labelled),
            (settings.max_length, settings.stride, self.device),
        )


@lru_cache(maxsize=6)
def _encoded(wanted: _Hashed) -> Encoded:
    (split,) = wanted.values
    task, gold = TASKS[split.data.task], GOLD[split.data.task]
    rows = Ledger(split.folder).rows(split.digest)
    if split.labelled:
        rows = [row for row in rows if row[gold] is not None]
    tokenizer = _cached_tokenizer(split.spec, split.data, split.folder)
    encoded = task.encode(
        rows, tokenizer, split.data, split.settings, training=split.split == "train"
    )
    return encoded.to(split.device)
