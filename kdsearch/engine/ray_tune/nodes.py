"""Looking at each node of a cluster before it works: what it lacks, in words."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.agenda import VERSION
from kdsearch.engine.bf16 import bf16_places, lacks_bf16_here, slow_bf16
from kdsearch.engine.ray_tune.cluster import Cluster, Expected
from kdsearch.engine.ray_tune.left_out import it_lacks
from kdsearch.engine.ray_tune.room import Needed, slots
from kdsearch.engine.ray_tune.slot import own_gpus
from kdsearch.errors import InputError, Problem, StorageError, first_line
from kdsearch.ledger import Ledger, OsDisk, layout
from kdsearch.study import (
    Resolved,
    Role,
    find_model,
    installed_versions,
    readable_size,
    uses_lora,
)

SAME = ("kdsearch", "training", "torch", "transformers", "tokenizers")
"""Whose versions must be the driver's: results are to be the same on every node."""
_SECONDS_BETWEEN_LOOKS = 20.0
_LONGEST_LOOK = 120.0
"""A node whose storage hangs does not answer at all."""
_LATE_FILE_SECONDS = 3.0
"""What a network disk may need to show a new file."""
_LEAST_FREE = 2**30
"""Bytes of memory, and of disk for temporary files, with less of which hardly anything trains."""
_MIB = re.compile(r"(\d+) MiB")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is to be known of a node."""

    host: str
    trouble: str
    """With the study's folder, in words; empty if outcomes can be committed from there."""
    models: tuple[str, ...]
    """What it lacks of the study's models that are folders, in words."""
    versions: Mapping[str, str]
    gpus: tuple[str, ...]
    """Each as nvidia-smi says it: name, memory and how much is free, driver."""
    free: Mapping[str, int]
    """Bytes: of memory, and of disk for temporary files."""
    lacks_bf16: bool = False
    """Whether its CPUs compute bf16 in software; a node of older code does not say."""


def lacks(facts: Facts, expected: Expected) -> list[str]:
    """What a node lacks that has these facts; nothing if it can work."""
    found = [*filter(None, [facts.trouble]), *facts.models]
    for name in (*SAME, *(["peft"] if uses_lora(expected.resolved.study) else [])):
        here, there = facts.versions.get(name), expected.versions.get(name)
        if here is None and there is not None:
            found.append(f"has no {name} (the driver has {there})")
        elif here is not None and there is not None and _public(here) != _public(there):
            what = "training code" if name == "training" else name
            found.append(f"has {what} {here} (the driver has {there})")
    if expected.gpu and "torch" in facts.versions and "cuda" not in facts.versions:
        found.append("has a torch built only for CPUs")
    return found


def doubts(facts: Facts, bf16: Collection[str]) -> list[str]:
    """What a node with these facts may fail for, or be slow.

    `bf16` are the places where the study says that what fits its CPUs computes in that.
    """
    slow = [slow_bf16(bf16)] if bf16 and facts.lacks_bf16 else []
    return slow + [
        f"has only {readable_size(free)} of {what} left"
        for kind, what in (("disk", "disk for temporary files"), ("memory", "memory"))
        if (free := facts.free.get(kind, _LEAST_FREE)) < _LEAST_FREE
    ]


def none_left(
    needed: Needed, nodes: Mapping[str, Mapping[str, Any]], left_out: Collection[str]
) -> list[str]:
    """The ids of the nodes with room for trainings of a role, where all of them are left out."""
    for needs in needed.values():
        fitting = sorted(key for key, node in nodes.items() if needs.room(node))
        if fitting and set(fitting) <= set(left_out):
            return fitting
    return []


def _public(version: str) -> str:
    """A version without how it was built: 2.13.0+cpu is 2.13.0."""
    return version.partition("+")[0]


def lacks_here(expected: Expected) -> list[str]:
    """What the node of this process lacks, of what the driver expects.

    Models of the Hub are fetched, if they are not here yet. If Ray gave this process a GPU, torch
    must find it: that takes the seconds of importing torch.
    """
    found = lacks(look_here(expected), expected)
    if not found:
        found += _missing_models(expected, hub=True)
    if not found and own_gpus():
        import torch

        if not torch.cuda.is_available():
            found.append("has a GPU that torch cannot use: its driver may be too old")
    return found


def slot_check(cluster: Cluster) -> Callable[[], list[str]]:
    """What a slot asks of its node before its first training: see `RayTuneEngine.check`."""
    if cluster.expected is None:
        return list
    return partial(lacks_here, cluster.expected)


def look_here(expected: Expected) -> Facts:
    """The facts of the node of this process. Imports neither torch nor transformers."""
    versions = installed_versions() | {"training": str(VERSION)} | _cuda()
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    return Facts(
        host=socket.gethostname(),
        trouble=_trouble(expected.folder, expected.mark),
        models=tuple(_missing_models(expected, hub=False)),
        versions=versions,
        gpus=_gpus(),
        free={"disk": disk, **_memory()},
        lacks_bf16=lacks_bf16_here(),
    )


def _trouble(folder: Path, mark: str) -> str:
    """What is wrong with the study's folder as this node sees it. Makes no folder."""
    deadline = time.monotonic() + _LATE_FILE_SECONDS
    try:
        while not _is_there(folder / mark):
            if time.monotonic() >= deadline:
                if _is_there(folder):
                    return f"sees a different folder at {folder}, without this search"
                return f"does not see {folder}"
            time.sleep(0.5)
    except OSError as error:
        return f"cannot read {folder}: {error.strerror}"
    linked, disk = folder / layout.probe(linked=True), OsDisk()
    try:
        disk.link(folder / mark, linked)
        disk.remove(linked)
    except StorageError as error:
        return f"cannot link files: {error}"
    return ""


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def models_here(resolved: Resolved) -> frozenset[str]:
    """The pretrained models of a study, but for those in folders that are gone here too.

    A search may go on without these: what needs them may be done.
    """
    found = resolved.models
    return frozenset(
        name
        for name, model in resolved.study.models.items()
        if model.config is None and (model.hub is not None or Path(found[name].path or "").is_dir())
    )


def _missing_models(expected: Expected, *, hub: bool) -> list[str]:
    """What this node lacks of the study's folders of models, or of its models of the Hub."""
    found = []
    for name in sorted(expected.models):
        if (expected.resolved.study.models[name].hub is not None) == hub:
            try:
                find_model(name, expected.resolved, fetch=True)
            except InputError as error:
                found += [f"has no {each.place}: {each.what}" for each in error.problems]
    return found


def _cuda() -> dict[str, str]:
    """The CUDA (or ROCm) that torch was built for, if any; from its files."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    with suppress(OSError):
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
        found = re.search(r"^(?:cuda|hip)\b[^=\n]*= *['\"]([^'\"]+)", text, re.MULTILINE)
        return {"cuda": found[1]} if found else {}
    return {}


def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version"]
    try:
        said = subprocess.run(
            [*command, "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(said.stdout.splitlines()) if said.returncode == 0 else ()


def gpu_memory(cluster: Cluster) -> dict[Role, list[int]]:
    """The bytes of each GPU that trainings of a role may get, as far as it is known."""
    known: Mapping[str, Sequence[str]] = cluster.gpus
    if cluster.expected is None and any(needs.gpus for needs in cluster.needed.values()):
        known = {node["NodeID"]: _gpus() for node in ray.nodes()}  # this machine, alone
    nodes = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in cluster.left_out]
    return {
        role: [
            int(size[1]) * 2**20
            for node in nodes
            if needs.room(node)
            for gpu in known.get(node["NodeID"], ())
            if (size := _MIB.search(gpu))
        ]
        for role, needs in cluster.needed.items()
    }


def _memory() -> dict[str, int]:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return {"memory": int(line.split()[1]) * 1024}
    return {}


@contextmanager
def watch_nodes(
    cluster: Cluster, resolved: Resolved, ledger: Ledger, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """Look at the nodes of `cluster` now, and at those that join while the search runs.

    What is given is the cluster with what it needs to look at a node (`expected`) and without the
    nodes that lack something (`left_out`, `slots`), each of which `say` is told once. They are
    looked at again, and taken back once they lack nothing. Raises `InputError` where no node is
    left for trainings of some role. What was found stands in nodes.json.
    """
    mark = layout.probe()
    ledger.disk.write(ledger.path(mark), b"")
    expected = Expected(
        folder=ledger.folder,
        mark=mark,
        versions=installed_versions() | {"training": str(VERSION)},
        gpu=all(needs.gpus for needs in cluster.needed.values()),
        resolved=resolved,
        models=models_here(resolved),
    )
    cluster = replace(cluster, expected=expected)
    nodes = _Nodes(cluster, ledger, say)
    thread = threading.Thread(target=nodes.watch, daemon=True)
    try:
        nodes.look()
        nodes.check()
        thread.start()
        yield replace(cluster, slots=slots(cluster.needed, cluster.left_out))
    finally:
        nodes.over.set()
        if thread.is_alive():
            thread.join()  # what asks Ray once the connection has ended would start another one
        with suppress(StorageError):  # a hidden file that the next launch sweeps
            ledger.disk.remove(ledger.path(mark))


class _Nodes:
    """What is known of the nodes."""

    def __init__(self, cluster: Cluster, ledger: Ledger, say: Callable[[str], None]) -> None:
        assert cluster.expected is not None
        self.over = threading.Event()
        self._expected = cluster.expected
        self._cluster = cluster
        self._ledger = ledger
        self._say = say
        self._known: dict[str, dict[str, Any]] = {}
        self._there: dict[str, dict[str, Any]] = {}

    def watch(self) -> None:
        """Look again and again, until it is over."""
        while not self.over.wait(_SECONDS_BETWEEN_LOOKS):
            with suppress(RayError, RuntimeError, OSError):  # whether Ray lives, `health` sees
                self.look()

    def check(self) -> None:
        """Raise `InputError` if no node is left for trainings of some role."""
        bad = none_left(self._cluster.needed, self._there, self._cluster.left_out)
        if bad:
            raise InputError(
                Problem(place=f"node {node['name']}", what=_and(node["lacks"]))
                for node in map(self._known.__getitem__, bad)
            )

    def look(self) -> None:
        """Look at the nodes that joined, and at those again that are left out."""
        there = {
            node["NodeID"]: node
            for node in ray.nodes()
            if node["Alive"] and any(n.room(node) for n in self._cluster.needed.values())
        }
        self._there = there
        gone = self._known.keys() - there.keys()
        new = {key for key in there if key not in self._known or self._known[key]["lacks"]}
        for key in gone:
            del self._known[key]
        self._cluster.left_out.difference_update(gone)
        found = _look_at(new, self._expected, self.over)
        for key, (facts, lacking) in found.items():
            self._enter(key, there[key], facts, lacking)
        if gone or found:
            self._write()

    def _enter(
        self, key: str, node: Mapping[str, Any], facts: Facts | None, lacking: list[str]
    ) -> None:
        host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
        name = f"{host} ({address})"
        if facts and key not in self._known:
            for doubt in doubts(facts, self._bf16(node)):
                self._say(f"doubtful: node {name} {doubt}")
        before, why = self._known.get(key, {"lacks": []})["lacks"], it_lacks(lacking)
        known = asdict(facts) if facts else {}
        self._known[key] = {"id": key, "name": name, "lacks": lacking, **known}
        self._cluster.gpus[key] = facts.gpus if facts else ()
        if lacking:
            self._cluster.left_out.add(key)
            if lacking != before and (name, why) not in self._cluster.told:
                self._cluster.told.add((name, why))
                self._say(f"node {name} is left out: {why}")
        else:
            self._cluster.left_out.discard(key)
            if before:
                told = {each for each in self._cluster.told if each[0] == name}
                self._cluster.told.difference_update(told)
                self._say(f"node {name} lacks nothing now and is in use again")

    def _bf16(self, node: Mapping[str, Any]) -> list[str]:
        """Where the study says that what fits a node's CPUs computes in bf16."""
        needed = self._cluster.needed
        roles = [role for role, each in needed.items() if not each.gpus and each.room(node)]
        return bf16_places(self._expected.resolved.study, roles)

    def _write(self) -> None:
        nodes = sorted(self._known.values(), key=lambda node: str(node["name"]))
        with suppress(StorageError):  # the outcomes say when the disk is full
            self._ledger.write(layout.NODES, json.dumps({"nodes": nodes}, indent=1))


def _look_at(
    nodes: Collection[str], expected: Expected, over: threading.Event
) -> dict[str, tuple[Facts | None, list[str]]]:
    """What was found on each of the nodes that are there still: its facts, and what it lacks."""
    tasks = {
        ray.remote(look_here)
        .options(
            name="kdsearch-look",
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False),
        )
        .remote(expected): key
        for key in nodes
    }
    waiting = list(tasks)
    deadline = time.monotonic() + _LONGEST_LOOK
    while waiting and not over.is_set() and time.monotonic() < deadline:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
    for task in waiting:
        ray.cancel(task, force=True)
    if over.is_set():
        return {}
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    found: dict[str, tuple[Facts | None, list[str]]] = {}
    for task, key in tasks.items():
        if key not in alive:
            continue
        if task in waiting:
            found[key] = (
                None,
                [f"did not answer within {_LONGEST_LOOK:.0f} s: its storage may hang"],
            )
            continue
        try:
            facts = ray.get(task)
            found[key] = facts, lacks(facts, expected)
        except RayError as error:
            found[key] = None, [_failed(error)]
    return found


def _failed(error: RayError) -> str:
    """Why the look at a node failed, in words."""
    text = str(error.cause) if isinstance(error, RayTaskError) else ""
    missing = _NO_MODULE.search(text)
    if missing and missing[1] == "kdsearch":
        return "has no kdsearch"
    if missing and missing[1].startswith("kdsearch."):
        return "has a different kdsearch from the driver"
    if missing:
        return f"has no Python package {missing[1]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"could not be checked: {lines[-1] if lines else first_line(error)}"


def _and(lacking: list[str]) -> str:
    return ", and ".join(lacking)
