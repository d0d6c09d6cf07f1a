"""Whether the models of a study fit the memory of a machine, or their part of a GPU's."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kdsearch.errors import InputError, Problem
from kdsearch.study import (
    SHARES,
    Resolved,
    Role,
    Sgd,
    TestCase,
    effective_settings,
    kept_layers,
    lora_place,
    readable_size,
    start_cases,
    taught_cases,
    test_cases,
    weight_files,
)

_ITEM_BYTES = 4
"""Of a weight: all are read in single precision."""
_COPIES: Mapping[str, int] = {"adamw": 4, "sgd": 2}
"""Of a model's weights that lie on a GPU in a training: with their gradient and Adam's moments.
SGD has one more with momentum."""
_CONTEXT_BYTES = 600_000_000
"""What CUDA takes of a GPU for each process, about, and torch does not count."""
_LAYER = re.compile(r".*?\.\d+\.")
"""What the names of the weights of a layer begin with."""


def fits_memory(resolved: Resolved, root: Path = Path("/")) -> bool:
    """Whether twice the weights of the study's largest model fit this machine's free memory.

    Where a limit cannot be read there is none. `root` is where /proc and /sys lie.
    """
    paths = {model.path for model in resolved.models.values() if model.path is not None}
    largest = max((_weight_bytes(Path(path)) for path in paths), default=0)
    return 2 * largest <= min(_free(root), default=math.inf)


def limit_gpu(gpus: float) -> None:
    """Hold this process to its part of a GPU's memory: `gpus` below 1. The rest is others'.

    More than that is a GPU whose memory has run out.
    """
    if not 0 < gpus < 1:
        return
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(0.01, gpus - _CONTEXT_BYTES / total))


def tight(
    resolved: Resolved,
    place: str,
    taken: Mapping[Role, float],
    gpus: Mapping[Role, Sequence[int]],
) -> list[str]:
    """What is doubtful of the part of a GPU that each role takes, by the bytes of those there are.

    Counted are weights, gradients and what an optimizer holds, which no training does without;
    what the batches take comes on top. Raises `InputError` where that does not fit any of the GPUs.
    """
    problems, doubts = [], []
    for role, (name, least) in _least(resolved).items():
        part = min(taken[role], 1.0)
        small = [size for size in gpus[role] if part * size - _CONTEXT_BYTES < least]
        if not small or not part:
            continue
        what = (
            f"{role} {name} takes at least {readable_size(least)} of a GPU, and "
            f"{part:g} of one with {readable_size(min(small))} is less"
        )
        if len(small) == len(gpus[role]):
            remedy = "give it a larger share of a GPU, or select larger GPUs with labels"
            where = f"{place}: resources.{SHARES[role]}.gpus"
            problems.append(Problem(place=where, what=what, remedy=remedy))
        else:
            doubts.append(f"{what}; select the larger ones with labels")
    if problems:
        raise InputError(problems)
    return doubts


def _least(resolved: Resolved) -> dict[Role, tuple[str, int]]:
    """Of each role the largest of the study's models that have weights, and its bytes on a GPU."""
    study = resolved.study
    used: set[tuple[Role, str, str, int | str | None, int]] = set()
    for case in test_cases(study):
        student = study.students[case.student]
        copies = _copies(resolved, case, "student")
        used.add(("student", case.student, student.model, student.layers, copies))
    for case in (*taught_cases(study), *start_cases(study)):
        teacher = study.teachers[case.taught]
        if teacher.model is not None:
            copies = _copies(resolved, case, "teacher")
            used.add(("teacher", case.taught, teacher.model, teacher.layers, copies))
            used.add(("outputs", case.taught, teacher.model, teacher.layers, 1))
        used |= {("outputs", case.taught, model, None, 1) for model in teacher.given.values()}
        if teacher.student_of is not None:
            student = study.students[case.student]
            used.add(("outputs", case.taught, student.model, student.layers, 1))
    found: dict[Role, tuple[str, int]] = {}
    for role, name, model, layers, copies in sorted(used, key=str):
        path = resolved.models[model].path
        if path is not None:
            taken = copies * _weight_bytes(Path(path), layers)
            found[role] = max(found.get(role, ("", 0)), (name, taken), key=lambda each: each[1])
    return found


def _copies(resolved: Resolved, case: TestCase, role: Role) -> int:
    if lora_place(resolved.study, case, role) is not None:
        return 1  # adapters are small
    settings = effective_settings(resolved.study, case, role)
    momentum = settings.optimizer == "sgd" and (settings.sgd or Sgd()).momentum > 0
    return _COPIES[settings.optimizer] + momentum


def _weight_bytes(folder: Path, kept: int | str | None = None) -> int:
    """The bytes of a model's weights; of some of its layers, and all that is in none."""
    total, in_layers = 0, 0
    layers: set[str] = set()
    for file in weight_files(folder):
        try:
            with file.open("rb") as content:
                header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                size = _ITEM_BYTES * math.prod(entry["shape"])
                total += size
                if layer := _LAYER.match(name):
                    layers.add(layer[0])
                    in_layers += size
        except (OSError, ValueError, KeyError, OverflowError, MemoryError):  # not safetensors
            total += file.stat().st_size
    if kept is None or not layers:
        return total
    stacks = Counter(name.rsplit(".", 2)[0] for name in layers)
    count = kept if isinstance(kept, int) else _on_each_side(kept, stacks.values())
    return total - round(in_layers * (1 - min(1.0, count / len(layers))))


def _on_each_side(kept: str, sides: Iterable[int]) -> int:
    return sum(len(kept_layers(kept, total)) for total in sides)


def _free(root: Path) -> Iterator[int]:
    """The bytes that are free by each of the limits there are: the machine's, and its groups'."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        pass
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            top, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = Path(path.lstrip("/"))
        for part in (group, *group.parents):  # a limit of any of them holds for what is below
            free = _free_of(root / top / part, *names)
            if free is not None:
                yield free


def _free_of(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What a control group may still use. Files that are cached make room for what is needed."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / usage).read_text()) - int(stat[reclaimable])
        return int((group / limit).read_text()) - used
    except (OSError, ValueError, KeyError):  # `max`, where there is no limit
        return None
