"""Connecting to Ray: a running cluster, or a local one of our own."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from kdsearch.errors import InputError, first_line

_PROBE_SECONDS = 5.0
_SETTLING_SECONDS = 5.0
_JOINING_SECONDS = 600.0
_TMP = "/tmp"
_LONGEST_TMPDIR = 39
"""In bytes. A socket's path has 107 at most, and Ray's lie up to 68 below this folder:
/ray/session_2026-12-24_08-00-00_123456_1234567/sockets/plasma_store."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster we are connected to."""

    dashboard: str | None
    token: str | None
    """How to get the dashboard's token; None where it asks for none."""
    resources: Mapping[str, float]
    """What one training takes: CPU and GPU."""
    slots: int
    """How many trainings run at once."""


@contextmanager
def connect(
    address: str | None,
    *,
    cpus: float | None,
    gpus: float | None,
    threads: int,
    say: Callable[[str], None] = print,
) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (`auto` or HOST:PORT), or start a local one.

    A training takes `cpus` and `gpus`; by default a GPU if the cluster has any, and a CPU per
    thread. Nodes of a cluster that are still joining are waited for; `say` is told so. Raises
    `InputError` where there is no cluster, or none of its nodes has room for one.
    """
    context = _init(address, say)
    try:
        wanted, slots = _room_for(cpus, gpus, threads)
        if address is not None:
            wanted, slots = _settled(cpus, gpus, threads, say)
        if slots == 0:
            where = "no node of the cluster has" if address else "this machine does not have"
            raise InputError.one(
                "resources",
                f"a training asks for {words(wanted)}; {where} that",
                "ask for less, or give --address of a cluster that has it",
            )
        url = context.dashboard_url
        yield Cluster(
            dashboard=f"http://{url}" if url else None,
            token=_token(),
            resources=wanted,
            slots=slots,
        )
    finally:
        ray.shutdown()


def _init(address: str | None, say: Callable[[str], None]) -> Any:
    """Ray's context of a connection to `address`, or to a local Ray that is started."""
    if address not in (None, "auto"):
        _probe(address)
    if address is None:
        _shorten_tmpdir(say)
    # Ray's memory monitor would end the whole run, where the kernel's ends one worker.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Its errors are the tracebacks of trainings that failed: they lie in attempts/. What ends Tune
    # itself is raised.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        return ray.init(
            address=address or "local",
            include_dashboard=None if address else True,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError.one(
            f"--address {address}" if address else "Ray",
            f"no Ray could be reached: {first_line(error)}",
            "start one with `ray start --head`, or leave --address out for a local one; a cluster "
            "that asks for a token wants RAY_AUTH_MODE=token and the token in ~/.ray/auth_token",
        ) from None


def _shorten_tmpdir(say: Callable[[str], None]) -> None:
    """Leave TMPDIR, for this process and those it starts, where Ray's sockets have room.

    Raises `InputError` where that cannot be.
    """
    if _too_long("RAY_TMPDIR"):
        raise _no_room("RAY_TMPDIR")
    if _too_long("TMPDIR"):
        if not os.access(_TMP, os.W_OK | os.X_OK):
            raise _no_room("TMPDIR")
        say(f"TMPDIR is too long for Ray's sockets: {_TMP} in its place")
        os.environ["TMPDIR"] = _TMP


def _too_long(name: str) -> bool:
    return len(os.fsencode(os.environ.get(name, ""))) > _LONGEST_TMPDIR


def _no_room(name: str) -> InputError:
    what = f"is too long for Ray's sockets: {os.environ[name]}"
    mend = f"give it a folder whose path has {_LONGEST_TMPDIR} bytes at most"
    return InputError.one(name, what, mend)


def _probe(address: str) -> None:
    """See that something listens at `address`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise InputError.one(
            f"--address {address}",
            "no Ray could be reached: "
            + (str(error) if isinstance(error, OSError) else "this is not HOST:PORT"),
            "give auto, or the HOST:PORT that `ray start --head` printed; leave it out for a local "
            "Ray",
        ) from None


def _resources(cpus: float | None, gpus: float | None, threads: int) -> dict[str, float]:
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) > 0 else 0
    wanted = {"CPU": cpus or float(threads)}
    return wanted | ({"GPU": gpus} if gpus else {})


def _room_for(cpus: float | None, gpus: float | None, threads: int) -> tuple[dict[str, float], int]:
    """What a training takes, and how many of them fit the nodes that are there."""
    wanted = _resources(cpus, gpus, threads)
    return wanted, sum(_room(n["Resources"], wanted) for n in ray.nodes() if n["Alive"])


def _settled(
    cpus: float | None, gpus: float | None, threads: int, say: Callable[[str], None]
) -> tuple[dict[str, float], int]:
    """As `_room_for`, once there is room and no further node joins.

    Right after a cluster's start its workers are not there yet, nor are their GPUs.
    """
    deadline = time.monotonic() + _JOINING_SECONDS
    wanted, slots = _room_for(cpus, gpus, threads)
    while time.monotonic() < deadline:
        if slots == 0:
            say(f"waiting for nodes that have room for {words(wanted)}")
        before = slots
        time.sleep(_SETTLING_SECONDS)
        wanted, slots = _room_for(cpus, gpus, threads)
        if slots == before > 0:
            break
    return wanted, slots


def _room(node: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How many trainings fit a node at once; 1 GPU has room for five that take 0.2."""
    return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items())


def words(wanted: Mapping[str, float]) -> str:
    """Resources as a person says them: `1 CPU and 1 GPU`."""
    return " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())


def _token() -> str | None:
    """Where the token lies that Ray asks for since its local clusters have authentication."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the value of RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))
    return f"cat {path}" if path.expanduser().exists() else None
