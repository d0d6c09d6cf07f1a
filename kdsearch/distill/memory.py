"""Whether the models of a study fit the memory of the machine that looks at them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from kdsearch.study import Resolved, weight_files

_ITEM_BYTES = 4
"""Of a weight: all are read in single precision."""


def fits_memory(resolved: Resolved, root: Path = Path("/")) -> bool:
    """Whether twice the weights of the study's largest model fit this machine's free memory.

    Where a limit cannot be read there is none. `root` is where /proc and /sys lie.
    """
    paths = {model.path for model in resolved.models.values() if model.path is not None}
    largest = max((_weight_bytes(Path(path)) for path in paths), default=0)
    return 2 * largest <= min(_free(root), default=math.inf)


def _weight_bytes(folder: Path) -> int:
    total = 0
    for file in weight_files(folder):
        try:
            with file.open("rb") as content:
                header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            total += _ITEM_BYTES * sum(math.prod(shape) for shape in shapes)
        except (OSError, ValueError, KeyError, OverflowError, MemoryError):  # not safetensors
            total += file.stat().st_size
    return total


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
