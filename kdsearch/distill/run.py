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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from kdsearch.agenda import (
    CheckpointSpec,
    Cost,
    DataSpec,
    ForwardSettings,
    ModelSpec,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
)
from kdsearch.distill.models import build_model, check_head, load_tokenizer, model_folder
from kdsearch.distill.objective import CachedOutputs, Objective, kd_objective, label_objective
from kdsearch.distill.training import History, State, evaluate, predict, train
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, storage_error, sync_folder
from kdsearch.search import ValidationScore
from kdsearch.study import GOLD
from kdsearch.tasks import TASKS, Encoded, Settings, Task, has_languages, head_weights

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
        task = TASKS[training.data.task]
        model, _, history = self._train(
            training, lambda model, examples: label_objective(task, model)
        )
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        assert history.lowest_loss is not None
        kept = {epoch.epoch: state for epoch, state in (history.best, history.lowest_loss)}
        digests, size = self._save(training, model, kept)
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
        source = self._checkpoint_folder(checkpoint)
        model, loading = task.head.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
        if loading["missing_keys"]:
            missing = ", ".join(sorted(loading["missing_keys"]))
            mend = f"give a model that was fine-tuned for {data.task}"
            raise InputError.one(source, f"lacks the weights {missing}", mend)
        model.to(self._device)
        order = [checkpoint.labels.index(label) for label in data.labels]
        examples = self._encoded(checkpoint.model, data, training.split, settings)
        if training.split == "train":
            return self._keep_outputs(training, model, examples, order)
        tokenizer = self._tokenizer(checkpoint.model, data)
        found = evaluate(model, task, tokenizer, examples, data, settings, order=order)
        outcome = self._outcome(training, model, None)
        if found.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        if training.split == "validation":
            return outcome.model_copy(update={"validation": ValidationScore(found.score)})
        return outcome.model_copy(update={"test": TestScore(found.score)})

    def student(self, training: StudentTraining) -> Outcome:
        """Distil a student from the teacher's cached outputs; score its best epoch on test."""
        data, settings = training.data, training.settings
        task = TASKS[data.task]

        def objective_of(model: Any, examples: Encoded) -> Objective:
            teacher = self._read_outputs(training, len(examples.labels))
            return kd_objective(task, model, teacher, training)

        model, tokenizer, history = self._train(training, objective_of)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        epoch, state = history.best
        model.load_state_dict(state)
        test = self._encoded(training.model, data, "test", settings)
        found = evaluate(model, task, tokenizer, test, data, settings)
        if found.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        return outcome.model_copy(
            update={
                "validation": epoch.validation,
                "test": TestScore(found.score),
                "best_epoch": epoch.epoch,
            }
        )

    def _train(
        self,
        training: TeacherTraining | StudentTraining,
        objective_of: Callable[[Any, Encoded], Objective],
    ) -> tuple[Any, Any, History]:
        """Build the model and train it: it, its tokenizer, how it went.

        A teacher learns from the rows that have a label. Everything random comes after the seed,
        and in the same order in every process.
        """
        data, settings = training.data, training.settings
        task = TASKS[data.task]
        teacher = isinstance(training, TeacherTraining)
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(training.model, task, data.labels, tokenizer, self._ledger)
        model.to(self._device)
        examples = self._encoded(training.model, data, "train", settings, labelled=teacher)
        if task.wide:
            check_head(model, task, examples)
        history = train(
            model,
            task,
            tokenizer,
            data,
            examples,
            self._encoded(training.model, data, "validation", settings),
            objective_of(model, examples),
            settings=settings,
            learning_rate=training.learning_rate,
            seed=training.seed,
            keep_lowest_loss=teacher,
        )
        return model, tokenizer, history

    # -- inputs ---------------------------------------------------------------------------------

    def _tokenizer(self, spec: ModelSpec, data: DataSpec) -> Any:
        return _cached_tokenizer(spec, data, self._ledger.folder)

    def _encoded(
        self,
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
        return _encoded(_Hashed(wanted.key, wanted))

    def _checkpoint_folder(self, checkpoint: CheckpointSpec) -> Path:
        if checkpoint.training is None:
            return model_folder(checkpoint.model.name, checkpoint.model.weights, self._ledger)
        root = self._ledger.folder / "checkpoints"
        return root / checkpoint.training / f"epoch-{checkpoint.epoch}"

    def _read_outputs(self, training: StudentTraining, rows: int) -> CachedOutputs:
        task, key = TASKS[training.data.task], training.outputs
        path = self._ledger.folder / "outputs" / f"{key}.npy"
        mend = f"remove outcomes/{key}.json and launch again to compute it anew"
        try:
            array = np.load(path, mmap_mode="c")  # torch wants to be able to write; it stays here
            head = load_file(_head_path(path), device=str(self._device)) if task.wide else None
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError.one(path, f"cannot be read: {error}", mend) from None
        if len(array) != rows:
            raise InputError.one(path, f"has {len(array)} rows, not {rows}", mend)
        width = array.shape[1] if head is None else head["weight"].shape[1]
        if array.dtype != _STORED[training.settings.hidden_dtype or "fp32"] or (
            array.shape[1] != width
        ):
            raise InputError.one(path, f"holds {array.dtype} × {array.shape[1]}", mend)
        values = torch.from_numpy(array)
        if head is None:
            return CachedOutputs(values=values.to(self._device), head=None)
        if training.settings.hidden_dtype == "bf16":
            values = values.view(torch.bfloat16)
        # Once, not at every batch: mixed precision would bring the weights to its type each time.
        dtype = torch.bfloat16 if training.settings.precision == "bf16" else torch.float32
        weights = {name: tensor.to(dtype) for name, tensor in head.items()}
        return CachedOutputs(values=values, head=(weights["weight"], weights.get("bias")))

    # -- what is kept ---------------------------------------------------------------------------

    def _save(
        self, training: TeacherTraining, model: Any, kept: dict[int, State]
    ) -> tuple[dict[str, str], int]:
        """Write the kept epochs as Hugging Face folders; their digests and size in bytes."""
        key, data = training.key, training.data
        # A new one: the cached one also carries how other trainings cut with it.
        tokenizer = load_tokenizer(training.model, TASKS[data.task], data.train, self._ledger)
        if data.languages is not None and has_languages(tokenizer):
            tokenizer.src_lang, tokenizer.tgt_lang = data.languages
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

    def _keep_outputs(
        self, training: OutputsTraining, model: Any, examples: Encoded, order: Sequence[int]
    ) -> Outcome:
        """Write what a model says of the training split, batch by batch, and its head if wide."""
        task, settings = TASKS[training.data.task], training.settings
        outcome = self._outcome(training, model, None)
        final = self._ledger.folder / "outputs" / f"{training.key}.npy"
        temporary = final.with_name(f".{uuid.uuid4().hex}.tmp")
        if task.wide:
            check_head(model, task, examples)
        try:
            if not self._write_rows(temporary, model, task, examples, order, settings):
                temporary.unlink(missing_ok=True)
                return outcome.model_copy(update={"state": "diverged"})
            files = {final: temporary}
            if task.wide:
                weight, bias = head_weights(model)
                head = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
                files[_head_path(final)] = _head_path(temporary)
                save_file(
                    {n: t.detach().cpu().contiguous() for n, t in head.items()},
                    _head_path(temporary),
                )
            root = self._ledger.folder
            digests = {str(f.relative_to(root)): _sync_and_digest(t) for f, t in files.items()}
            size = sum(path.stat().st_size for path in files.values())
            for path, written in files.items():
                written.replace(path)
            sync_folder(final.parent)
        except (OSError, SafetensorError) as error:
            for path in (temporary, _head_path(temporary)):
                path.unlink(missing_ok=True)
            raise storage_error(final, error) from None
        return outcome.model_copy(update={"digests": digests, "cost": self._cost(size)})

    def _write_rows(
        self,
        path: Path,
        model: Any,
        task: Task,
        examples: Encoded,
        order: Sequence[int],
        settings: ForwardSettings,
    ) -> bool:
        """Write the rows of all examples in their order; False where one is not finite."""
        dtype = _DTYPES[settings.hidden_dtype or "fp32"]
        array: Any = None
        for _, batch, values in predict(model, task, examples, settings, order=order):
            if not torch.isfinite(values).all():
                return False
            stored = values.to(dtype).cpu()
            if not torch.isfinite(stored).all():
                what = "a hidden state of the teacher is too large for fp16"
                raise InputError.one("training.hidden_dtype", what, "choose bf16")
            if dtype is torch.bfloat16:
                stored = stored.view(torch.int16)  # numpy has no bfloat16
            if array is None:
                shape = (len(examples.labels), values.shape[1])
                array = np.lib.format.open_memmap(
                    path, mode="w+", dtype=stored.numpy().dtype, shape=shape
                )
                with path.open("r+b") as file:  # a disk that fills up must not kill the process
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            array[batch.rows.cpu().numpy()] = stored.numpy()
        array.flush()
        return True

    def _outcome(self, training: Training, model: nn.Module, history: History | None) -> Outcome:
        return Outcome(
            key=training.key,
            training=training,
            state="diverged" if history is not None and history.diverged else "scored",
            epochs=tuple(history.epochs) if history else (),
            parameters=sum(p.numel() for p in model.parameters()),
            metric=TASKS[training.data.task].signature(training.data),
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


def _cached_tokenizer(spec: ModelSpec, data: DataSpec, folder: Path) -> Any:
    return _tokenizer(_Hashed(_tokenizer_key(spec, data), spec, data, folder))


def _tokenizer_key(spec: ModelSpec, data: DataSpec) -> tuple[object, ...]:
    return spec.tokenizer, data.train if spec.tokenizer_name is None else ""


@lru_cache(maxsize=8)
def _tokenizer(wanted: _Hashed) -> Any:
    spec, data, folder = wanted.values
    return load_tokenizer(spec, TASKS[data.task], data.train, Ledger(folder))


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
            (self.data.task, self.data.languages, self.digest, self.split, self.labelled),
            (settings.max_length, settings.stride, self.device),
        )


@lru_cache(maxsize=12)
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


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STORED = {"fp32": np.float32, "bf16": np.int16, "fp16": np.float16}  # numpy has no bfloat16


def _head_path(outputs: Path) -> Path:
    """Beside a teacher's wide outputs: the head that makes logits of them."""
    return outputs.with_name(outputs.stem + ".head.safetensors")
