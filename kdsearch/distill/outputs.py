"""A teacher's outputs: written once, read by every student."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdsearch.agenda import ForwardSettings, OutputsTraining, Signal, StudentTraining
from kdsearch.distill.batch_loss import CachedOutputs, TeacherOutputs
from kdsearch.distill.evaluation import autocast, predict, predicted_together
from kdsearch.distill.signals import watch
from kdsearch.distill.terms import KeptSignal
from kdsearch.distill.tokens import (
    DRAW,
    PLACE,
    CachedDraws,
    CachedTop,
    DrawnRows,
    TopRows,
    top_row,
)
from kdsearch.distill.wide import Head
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, discard, layout, put, storage_error, sync_and_digest
from kdsearch.study import HIDDEN, SAMPLED, kept_tokens
from kdsearch.tasks import TASKS, Batch, Encoded, Task, head_weights

_Read = TypeVar("_Read")
_Array = np.ndarray[Any, Any]
_STORED = {"fp32": "float32", "bf16": "int16"}
"""numpy's types by the study's: it has no bfloat16, of which these are the bits."""
_OF_VIEWS = "fp16"
"""The type of outputs on views, which are many: to 11 bits, logits beyond 65,504 left out."""
_ON_DEVICE = 2**31
"""Bytes of narrow outputs, of which more stay on the disk."""
_Passed = Iterator[tuple[Tensor, Sequence[int], _Array | None]]
"""Of each pass the numbers of its examples, how many rows each has, and what is kept of all these
rows, [R, …]; None where one is not finite."""


def write_outputs(
    path: Path,
    model: Any,
    task: Task,
    examples: Encoded,
    settings: ForwardSettings,
    order: Sequence[int],
    *,
    parts: int = 1,
    with_head: bool = True,
    tokens: TopRows | DrawnRows | None = None,
) -> dict[Path, str] | None:
    """Write what a model says of a split to `path`, and beside it its head if wide.

    Of examples in views, of all views one after another. Returns the digests of what was written,
    None where the model says something that is not finite. `order`, `parts`: see `predict`.
    `tokens` makes the rows where not all is kept. Raises `StorageError`.
    """
    dtype = _OF_VIEWS if examples.views else settings.hidden_dtype or "fp32"
    keep = tokens or partial(_whole_rows, dtype=dtype)
    views = len(examples.views[0]) if examples.views else 1

    def passed() -> _Passed:
        for view in range(views):
            for indices, batch, values in predict(
                model, task, examples, settings, order=order, parts=parts, epoch=view + 1
            ):
                whole = values.half() if dtype == _OF_VIEWS else values
                finite = bool(torch.isfinite(whole).all())
                numbers = indices + view * len(examples)
                yield numbers, batch.counts.tolist(), keep(whole, batch) if finite else None

    head = head_weights(model) if with_head and task.wide else None
    first, rows = examples.offsets[:1], examples.offsets[1:]
    offsets = torch.cat([first, *(rows + view * rows[-1] for view in range(views))])
    return _write(path, passed(), offsets, head, tokens)


def write_signal(
    path: Path,
    model: Any,
    task: Task,
    examples: Encoded,
    settings: ForwardSettings,
    signal: Signal,
    *,
    parts: int = 1,
) -> dict[Path, str] | None:
    """Write what a model computes inside of it to `path`, in bfloat16: see `KeptSignal`.

    Returns and raises as `write_outputs` does; `InputError` for a model that does not show it.
    """

    def passed() -> _Passed:
        model.eval()
        for indices in predicted_together(model, examples, settings, parts):
            batch = examples.batch(indices)
            with torch.no_grad(), autocast(examples.labels.device, settings.precision):
                said = partial(task.outputs, model, batch)
                _, seen = watch(model, [signal], said)
                values = seen[signal]
            counts = [1] * len(indices)
            if signal.name != "cls_states":
                values = values[batch.arguments["attention_mask"].bool()]
                counts = examples.lengths[indices].tolist()
            finite = bool(torch.isfinite(values).all())
            yield indices, counts, _stored(values, "bf16") if finite else None

    return _write(path, passed(), _offsets(signal, examples))


def _offsets(signal: Signal, examples: Encoded) -> Tensor:
    """[N + 1]: the number of each example's first row of a signal, and that of all rows."""
    counts = torch.ones_like(examples.lengths)
    if signal.name != "cls_states":
        counts = examples.lengths
    return torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])


def _write(
    path: Path,
    passed: _Passed,
    offsets: Tensor,
    head: tuple[Tensor, Tensor | None] | None = None,
    tokens: TopRows | DrawnRows | None = None,
) -> dict[Path, str] | None:
    """Write rows, and the head if there is one."""
    temporary = path.with_name(layout.half_file())
    files = {path: temporary}
    if head is not None:
        files[_head_path(path)] = temporary.with_suffix(".head.tmp")
    try:
        if tokens is not None:
            files |= tokens.beside(path, temporary)
        with temporary.open("wb") as file:
            if not _write_rows(file, passed, offsets):
                return None
        if tokens is not None:
            tokens.finish()
        if head is not None:
            weight, bias = head
            named = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
            save_file(plain, files[_head_path(path)])
        digests = {final: sync_and_digest(written) for final, written in files.items()}
        for final, written in files.items():
            put(path.parents[1], written, final)
    except (OSError, SafetensorError) as error:
        raise storage_error(path, error) from None
    finally:
        for written in files.values():
            discard(written)
    return digests


class KeptOutputs:
    """What the teacher of a student says of each split, on the disk."""

    def __init__(self, ledger: Ledger, training: StudentTraining, device: torch.device) -> None:
        self._ledger, self._training, self._device = ledger, training, device
        self._key = training.taught.outputs
        self._remedy = f"remove {layout.outcome(self._key)} and launch again to recompute it"

    def on(self, split: str, rows: int) -> TeacherOutputs | None:
        """Those on a split with so many rows; wide ones stay on the disk.

        Where some tokens are kept, that is on the training split; elsewhere all is, to measure.

        None where they were not kept: an earlier version kept those on the training split alone.
        """
        name = layout.outputs(self._key, split)
        outcome = self._ledger.outcome(self._key)
        if split != "train" and (outcome is None or name not in self._ledger.digests(outcome)):
            return None
        if split == "train" and self._training.settings.augmentation is not None:
            return self._on_views(rows)
        path, array = self._array(name)
        if len(array) != rows:
            raise InputError.one(path, f"has {len(array)} rows, not {rows}", self._remedy)
        if split == "train" and self._training.settings.cache != HIDDEN:
            return self._tokens(path, array)
        head = self._head if TASKS[self._training.data.task].wide else None
        width = array.shape[1] if head is None else head[0].shape[1]
        stored = _STORED[self._training.settings.hidden_dtype or "fp32"]
        if (array.dtype, array.shape[1]) != (stored, width):
            raise InputError.one(path, f"holds {array.dtype} × {array.shape[1]}", self._remedy)
        values = torch.from_numpy(array)
        if head is None:
            values = values.to(self._device)
        elif stored == "int16":
            values = values.view(torch.bfloat16)
        return CachedOutputs(values=values, head=head)

    def _on_views(self, rows: int) -> CachedOutputs:
        """Those on all views of so many rows, and on the weak ones where each example has two."""
        settings, weak = self._training.settings, self._training.taught.weak
        assert settings.augmentation is not None
        found = []
        for key in (self._key, *([weak] if weak else [])):
            path, array = self._array(layout.outputs(key))
            wanted = rows * settings.augmentation.views
            if array.dtype != np.float16 or len(array) != wanted:
                what = f"holds {array.dtype} × {len(array)}, not {wanted} rows of views"
                remedy = f"remove {layout.outcome(key)} and launch again to recompute it"
                raise InputError.one(path, what, remedy)
            values = torch.from_numpy(array)
            found.append(values if array.nbytes > _ON_DEVICE else values.to(self._device))
        return CachedOutputs(values=found[0], head=None, weak=found[1] if weak else None)

    def signals(self, examples: Encoded) -> dict[str, KeptSignal]:
        """Those that the student's terms compare, by term, of the `examples` of training."""
        return {
            term: self._signal(key, examples)
            for term, key in (self._training.taught.signals or {}).items()
        }

    def _signal(self, key: str, examples: Encoded) -> KeptSignal:
        outcome = self._ledger.outcome(key)
        assert outcome is not None
        assert isinstance(outcome.training, OutputsTraining)
        signal = outcome.training.signal
        assert signal is not None
        offsets = _offsets(signal, examples)
        path, array = self._array(layout.outputs(key))
        if array.dtype != "int16" or array.ndim != 3 or len(array) != int(offsets[-1]):
            what = f"holds {array.dtype} × {array.shape}, not {int(offsets[-1])} rows of a signal"
            remedy = f"remove {layout.outcome(key)} and launch again to recompute it"
            raise InputError.one(path, what, remedy)
        values = torch.from_numpy(array).view(torch.bfloat16)
        return KeptSignal(signal=signal, values=values, offsets=offsets)

    def _array(self, name: str) -> tuple[Path, _Array]:
        """A file, whose values stay on the disk."""
        path = self._ledger.path(name)
        # torch wants to be able to write; it stays here
        return path, self._read(path, lambda: np.load(path, mmap_mode="c", allow_pickle=False))

    def _tokens(self, path: Path, array: _Array) -> TeacherOutputs:
        kind, count = kept_tokens(self._training.settings.cache)
        wanted = PLACE if kind == SAMPLED else top_row(min(count, *_kept(array)))
        if array.dtype != wanted:
            raise InputError.one(path, f"holds {array.dtype}", self._remedy)
        if kind != SAMPLED:
            return CachedTop(rows=array)
        path, draws = self._array(layout.draws(self._key))
        if draws.dtype != DRAW:
            raise InputError.one(path, f"holds {draws.dtype}", self._remedy)
        return CachedDraws(places=array, draws=draws)

    @cached_property
    def _head(self) -> Head:
        path = self._ledger.path(layout.head(self._key))
        tensors = self._read(path, lambda: load_file(path, device=str(self._device)))
        # Once, not at every batch: mixed precision would bring the weights to its type each time.
        dtype = torch.bfloat16 if self._training.settings.precision == "bf16" else torch.float32
        weights = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        return weights["weight"], weights.get("bias")

    def _read(self, path: Path, read: Callable[[], _Read]) -> _Read:
        try:
            return read()
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError.one(path, f"cannot be read: {error}", self._remedy) from None


def _kept(array: _Array) -> tuple[int, ...]:
    """How many tokens each row has, of the likeliest ones."""
    return array.dtype["tokens"].shape if array.dtype.names == top_row(1).names else (0,)


def _head_path(outputs: Path) -> Path:
    """Where the head of a teacher's wide outputs lies, beside those on the training split."""
    return outputs.with_name(Path(layout.head(outputs.stem)).name)


def _write_rows(file: BinaryIO, passed: _Passed, offsets: Tensor) -> bool:
    """Write the rows of all examples in their order as a `.npy`; False where one is not finite."""
    start = None
    for indices, counts, stored in passed:
        if stored is None:
            return False
        if start is None:
            header = {"descr": np.lib.format.dtype_to_descr(stored.dtype), "fortran_order": False}
            shape = (int(offsets[-1]), *stored.shape[1:])
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            start = file.tell()
        row_bytes = stored[:1].nbytes
        begin = 0
        for first, count in zip(offsets[indices].tolist(), counts, strict=True):
            file.seek(start + first * row_bytes)
            file.write(stored[begin : begin + count].tobytes())
            begin += count
    return True


def _whole_rows(values: Tensor, batch: Batch, *, dtype: str) -> _Array:
    """[R, W]: all of a batch's outputs."""
    return _stored(values, dtype)


def _stored(values: Tensor, dtype: str) -> _Array:
    if dtype == "bf16":
        values = values.to(torch.bfloat16).view(torch.int16)
    elif dtype == "fp32":
        values = values.float()
    stored: _Array = values.cpu().numpy()
    return stored
