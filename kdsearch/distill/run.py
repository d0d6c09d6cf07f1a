"""From a training to its outcome: the worker's entry."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

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
from kdsearch.distill.losses import kd_loss
from kdsearch.distill.models import build_model, load_tokenizer, model_folder
from kdsearch.distill.training import History, Loss, State, predict, train
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, storage_error, sync_folder
from kdsearch.search import ValidationScore
from kdsearch.tasks import TASKS, Encoded, Task

_log = logging.getLogger(__name__)


def run(training: Training, folder: Path) -> Outcome:
    """Run a training with the files of the study's `folder`; its outcome is not yet committed.

    Kept on disk: a teacher's checkpoints, a checkpoint's outputs. Raises what the work raises.
    """
    started = time.monotonic()
    torch.set_num_threads(training.settings.cpu_threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    worker = _Worker(Ledger(folder))
    if isinstance(training, TeacherTraining):
        outcome = worker.teacher(training)
    elif isinstance(training, OutputsTraining):
        outcome = worker.outputs(training)
    else:
        outcome = worker.student(training)
    seconds = round(time.monotonic() - started, 3)
    _log.info("key=%s %s: %s in %.1f s", training.key, training, outcome.state, seconds)
    return outcome.model_copy(update={"cost": outcome.cost.model_copy(update={"seconds": seconds})})


class _Worker:
    """The three kinds of training, on one device."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def teacher(self, training: TeacherTraining) -> Outcome:
        """Fine-tune a teacher, and keep its best and its lowest-loss epoch."""

        def loss_on(examples: Encoded) -> Loss:
            return lambda logits, indices: F.cross_entropy(logits.float(), examples.labels[indices])

        model, tokenizer, history = self._train(training, loss_on)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        assert history.lowest_loss is not None
        kept = {epoch.epoch: state for epoch, state in (history.best, history.lowest_loss)}
        digests, size = self._save(training.key, model, tokenizer, kept)
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
        """Compute a checkpoint's logits on a split, in the order of the data's labels."""
        data, settings, checkpoint = training.data, training.settings, training.checkpoint
        task = TASKS[data.task]
        source = self._checkpoint_folder(checkpoint)
        model, loading = task.head.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        if loading["missing_keys"]:
            missing = ", ".join(sorted(loading["missing_keys"]))
            mend = f"give a model that was fine-tuned for {data.task}"
            raise InputError.one(source, f"lacks the weights {missing}", mend)
        model.to(self._device)
        digest: str = getattr(data, training.split)
        examples = self._encoded(checkpoint.model, data, digest, settings.max_length)
        logits = predict(
            model, task, examples, batch_size=settings.batch_size, precision=settings.precision
        )
        logits = logits[:, [checkpoint.labels.index(label) for label in data.labels]]
        outcome = self._outcome(training, model, None)
        if not torch.isfinite(logits).all():
            return outcome.model_copy(update={"state": "diverged"})
        name = f"outputs/{training.key}.npy"
        file_digest, size = self._write_array(name, logits.numpy())
        score = task.score(data.metric, logits, examples.labels.cpu(), data.labels)
        update: dict[str, Any] = {"digests": {name: file_digest}, "cost": self._cost(size)}
        if training.split == "validation":
            update["validation"] = ValidationScore(score)
        if training.split == "test":
            update["test"] = TestScore(score)
        return outcome.model_copy(update=update)

    def student(self, training: StudentTraining) -> Outcome:
        """Distil a student from the teacher's cached outputs; score its best epoch on test."""
        data, settings = training.data, training.settings
        task = TASKS[data.task]

        def loss_on(examples: Encoded) -> Loss:
            teacher = self._read_outputs(training.outputs, len(examples)).to(self._device)
            return lambda logits, indices: kd_loss(
                logits,
                teacher[indices],
                examples.labels[indices],
                distance=training.distance,
                alpha=training.alpha,
                temperature=training.temperature,
                student_temperature=training.student_temperature,
                gradient_scale=training.gradient_scale,
            )

        model, _, history = self._train(training, loss_on)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        epoch, state = history.best
        model.load_state_dict(state)
        test = self._encoded(training.model, data, data.test, settings.max_length)
        logits = predict(
            model, task, test, batch_size=settings.batch_size, precision=settings.precision
        )
        score = task.score(data.metric, logits, test.labels.cpu(), data.labels)
        return outcome.model_copy(
            update={
                "validation": epoch.validation,
                "test": TestScore(score),
                "best_epoch": epoch.epoch,
            }
        )

    def _train(
        self,
        training: TeacherTraining | StudentTraining,
        loss_on: Callable[[Encoded], Loss],
    ) -> tuple[Any, Any, History]:
        """Build the model and train it with a loss on its examples: it, its tokenizer, how it went.

        Everything random comes after the seed, and in the same order in every process.
        """
        data, settings = training.data, training.settings
        task = TASKS[data.task]
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(training.model, task, data.labels, tokenizer, self._ledger)
        model.to(self._device)
        examples = self._encoded(training.model, data, data.train, settings.max_length)
        history = train(
            model,
            task,
            data,
            examples,
            self._encoded(training.model, data, data.validation, settings.max_length),
            loss_on(examples),
            settings=settings,
            learning_rate=training.learning_rate,
            seed=training.seed,
            keep_lowest_loss=isinstance(training, TeacherTraining),
        )
        return model, tokenizer, history

    # -- inputs ---------------------------------------------------------------------------------

    def _tokenizer(self, spec: ModelSpec, data: DataSpec) -> Any:
        return _cached_tokenizer(spec, data.train, self._ledger.folder)

    def _encoded(self, spec: ModelSpec, data: DataSpec, digest: str, max_length: int) -> Encoded:
        return _cached_split(spec, data, digest, max_length, self._ledger.folder, str(self._device))

    def _checkpoint_folder(self, checkpoint: CheckpointSpec) -> Path:
        if checkpoint.training is None:
            return model_folder(checkpoint.model.name, checkpoint.model.weights, self._ledger)
        root = self._ledger.folder / "checkpoints"
        return root / checkpoint.training / f"epoch-{checkpoint.epoch}"

    def _read_outputs(self, key: str, rows: int) -> Tensor:
        path = self._ledger.folder / "outputs" / f"{key}.npy"
        try:
            array = np.load(path, mmap_mode="c")  # torch wants to be able to write; it stays here
        except (OSError, ValueError) as error:
            mend = f"remove outcomes/{key}.json and launch again to compute it anew"
            raise InputError.one(path, f"cannot be read: {error}", mend) from None
        if len(array) != rows:
            raise InputError.one(path, f"has {len(array)} rows for {rows} examples", "remove it")
        return torch.from_numpy(array)

    # -- what is kept ---------------------------------------------------------------------------

    def _save(
        self, key: str, model: Any, tokenizer: Any, kept: dict[int, State]
    ) -> tuple[dict[str, str], int]:
        """Write the kept epochs as Hugging Face folders; their digests and size in bytes."""
        final = self._ledger.folder / "checkpoints" / key
        temporary = final.with_name(f".{key}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            for epoch, state in kept.items():
                model.load_state_dict(state)
                model.save_pretrained(temporary / f"epoch-{epoch}")
                tokenizer.save_pretrained(temporary / f"epoch-{epoch}")
            files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
            digests = {
                f"checkpoints/{key}/{path.relative_to(temporary)}": _sync_and_digest(path)
                for path in files
            }
            size = sum(path.stat().st_size for path in files)
            shutil.rmtree(final, ignore_errors=True)  # of a try that was killed before it ended
            temporary.rename(final)
            sync_folder(final.parent)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise storage_error(final, error) from None
        return digests, size

    def _write_array(self, name: str, array: np.ndarray[Any, Any]) -> tuple[str, int]:
        final = self._ledger.folder / name
        temporary = final.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                np.save(file, array)
            digest = _sync_and_digest(temporary)
            size = temporary.stat().st_size
            temporary.replace(final)
            sync_folder(final.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise storage_error(final, error) from None
        return digest, size

    def _outcome(self, training: Training, model: nn.Module, history: History | None) -> Outcome:
        return Outcome(
            key=training.key,
            training=training,
            state="diverged" if history is not None and history.diverged else "scored",
            epochs=tuple(history.epochs) if history else (),
            parameters=sum(p.numel() for p in model.parameters()),
            cost=self._cost(0),
        )

    def _cost(self, size: int) -> Cost:
        cuda = self._device.type == "cuda"
        device = torch.cuda.get_device_name() if cuda else platform.machine() + " CPU"
        return Cost(seconds=0.0, device=device, host=socket.gethostname(), bytes_written=size)


def _sync_and_digest(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _cached_tokenizer(spec: ModelSpec, train: str, folder: Path) -> Any:
    words = spec.tokenizer_name is None
    return _tokenizer(_Hashed((spec.tokenizer, train if words else ""), spec, train, folder))


@lru_cache(maxsize=8)
def _tokenizer(wanted: _Hashed) -> Any:
    spec, train_digest, folder = wanted.values
    return load_tokenizer(spec, train_digest, Ledger(folder))


def _cached_split(
    spec: ModelSpec, data: DataSpec, digest: str, max_length: int, folder: Path, device: str
) -> Encoded:
    words = spec.tokenizer_name is None
    key = (spec.tokenizer, data.train if words else "", data.task, digest, max_length, device)
    return _split(_Hashed(key, spec, data, digest, max_length, folder, device))


@lru_cache(maxsize=12)
def _split(wanted: _Hashed) -> Encoded:
    spec, data, digest, max_length, folder, device = wanted.values
    task: Task = TASKS[data.task]
    tokenizer = _cached_tokenizer(spec, data.train, folder)
    encoded = task.encode(Ledger(folder).rows(digest), tokenizer, max_length)
    return Encoded(
        inputs={name: values.to(device) for name, values in encoded.inputs.items()},
        lengths=encoded.lengths.to(device),
        labels=encoded.labels.to(device),
    )
