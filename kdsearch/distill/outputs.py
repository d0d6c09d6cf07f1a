"""A teacher's outputs: written once, read by every student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdsearch.agenda import ForwardSettings, StudentTraining
from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.evaluation import predict
from kdsearch.distill.wide import Head
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, discard, layout, put, storage_error, sync_and_digest
from kdsearch.tasks import TASKS, Encoded, Task, head_weights

_Read = TypeVar("_Read")
_STORED = {"fp32": "float32", "bf16": "int16"}
"""numpy's types by the study's: it has no bfloat16, of which these are the bits."""


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
) -> dict[Path, str] | None:
    """Write what a model says of a split to `path`, and beside it its head if wide.

    Returns the digests of what was written, None where the model says something that is not
    finite. `order`, `parts`: see `predict`. Raises `StorageError`.
    """
    temporary = path.with_name(layout.half_file())
    files = {path: temporary}
    with_head = with_head and task.wide
    if with_head:
        files[_head_path(path)] = temporary.with_suffix(".head.tmp")
    try:
        with temporary.open("wb") as file:
            if not _write_rows(file, model, task, examples, settings, order, parts):
                return None
        if with_head:
            weight, bias = head_weights(model)
            head = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
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

    def on(self, split: str, rows: int) -> CachedOutputs | None:
        """Those on a split with so many rows; wide ones stay on the disk.

        None where they were not kept: an earlier version kept those on the training split alone.
        """
        name = layout.outputs(self._key, split)
        outcome = self._ledger.outcome(self._key)
        if split != "train" and (outcome is None or name not in self._ledger.digests(outcome)):
            return None
        path = self._ledger.path(name)
        # torch wants to be able to write; it stays here
        array = self._read(path, lambda: np.load(path, mmap_mode="c", allow_pickle=False))
        if len(array) != rows:
            raise InputError.one(path, f"has {len(array)} rows, not {rows}", self._remedy)
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


def _head_path(outputs: Path) -> Path:
    """Where the head of a teacher's wide outputs lies, beside those on the training split."""
    return outputs.with_name(Path(layout.head(outputs.stem)).name)


def _write_rows(
    file: BinaryIO,
    model: Any,
    task: Task,
    examples: Encoded,
    settings: ForwardSettings,
    order: Sequence[int],
    parts: int,
) -> bool:
    """Write the rows of all examples in their order as a `.npy`; False where one is not finite."""
    dtype = settings.hidden_dtype or "fp32"
    start = None
    for indices, batch, values in predict(
        model, task, examples, settings, order=order, parts=parts
    ):
        if not torch.isfinite(values).all():
            return False
        if start is None:
            shape = (len(examples.labels), values.shape[1])
            np.lib.format.write_array_header_1_0(
                file,
                {"descr": np.dtype(_STORED[dtype]).str, "fortran_order": False, "shape": shape},
            )
            start = file.tell()
        stored = _bits(values) if dtype == "bf16" else values.float().cpu().numpy()
        firsts = examples.offsets[indices].tolist()
        ends = batch.counts.cumsum(dim=0).tolist()
        row_bytes = stored.dtype.itemsize * stored.shape[1]
        for first, begin, end in zip(firsts, [0, *ends], ends, strict=False):
            file.seek(start + first * row_bytes)
            file.write(stored[begin:end].tobytes())
    return True


def _bits(values: Tensor) -> np.ndarray[Any, Any]:
    bits: np.ndarray[Any, Any] = values.to(torch.bfloat16).cpu().view(torch.int16).numpy()
    return bits
