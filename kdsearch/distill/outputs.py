"""A teacher's outputs on the training split: written once, read by every student."""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdsearch.agenda import ForwardSettings, StudentTraining
from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.training import predict
from kdsearch.errors import InputError
from kdsearch.ledger import put, storage_error
from kdsearch.tasks import TASKS, Encoded, Task, head_weights

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
) -> dict[Path, str] | None:
    """Write what a model says of the training split to `path`, and beside it its head if wide.

    Returns the digests of what was written, None where the model says something that is not
    finite. `order`, `parts`: see `predict`. Raises `StorageError`.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    files = {path: temporary}
    if task.wide:
        files[head_path(path)] = temporary.with_suffix(".head.tmp")
    try:
        with temporary.open("wb") as file:
            if not _write_rows(file, model, task, examples, settings, order, parts):
                return None
        if task.wide:
            weight, bias = head_weights(model)
            head = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
            save_file(plain, files[head_path(path)])
        digests = {final: sync_and_digest(written) for final, written in files.items()}
        for final, written in files.items():
            put(path.parents[1], written, final)
    except (OSError, SafetensorError) as error:
        raise storage_error(path, error) from None
    finally:
        for written in files.values():
            written.unlink(missing_ok=True)
    return digests


def read_outputs(
    path: Path, training: StudentTraining, rows: int, device: torch.device
) -> CachedOutputs:
    """What `write_outputs` wrote, for `rows` rows; wide outputs stay on the disk."""
    task = TASKS[training.data.task]
    mend = f"remove outcomes/{training.taught.outputs}.json and launch again to compute it anew"
    try:
        array = np.load(
            path, mmap_mode="c", allow_pickle=False
        )  # torch wants to be able to write; it stays here
        head = load_file(head_path(path), device=str(device)) if task.wide else None
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError.one(path, f"cannot be read: {error}", mend) from None
    if len(array) != rows:
        raise InputError.one(path, f"has {len(array)} rows, not {rows}", mend)
    width = array.shape[1] if head is None else head["weight"].shape[1]
    stored = _STORED[training.settings.hidden_dtype or "fp32"]
    if (array.dtype, array.shape[1]) != (stored, width):
        raise InputError.one(path, f"holds {array.dtype} × {array.shape[1]}", mend)
    values = torch.from_numpy(array)
    if head is None:
        return CachedOutputs(values=values.to(device), head=None)
    if stored == "int16":
        values = values.view(torch.bfloat16)
    # Once, not at every batch: mixed precision would bring the weights to its type each time.
    dtype = torch.bfloat16 if training.settings.precision == "bf16" else torch.float32
    weights = {name: tensor.to(dtype) for name, tensor in head.items()}
    return CachedOutputs(values=values, head=(weights["weight"], weights.get("bias")))


def head_path(outputs: Path) -> Path:
    """Beside a teacher's wide outputs: the head that makes logits of them."""
    return outputs.with_name(outputs.stem + ".head.safetensors")


def sync_and_digest(path: Path) -> str:
    """Bring a file's content to the disk, with the mode of any new file; its SHA-256.

    Some libraries write files that nobody else may read, whatever the umask.
    """
    with path.open("rb") as file:
        mode = 0o666 & ~_umask()
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
            os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """That of this process. Asking `os.umask` would change it, for the other threads too."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1], 8) for line in status.splitlines() if line[:6] == "Umask:")


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
