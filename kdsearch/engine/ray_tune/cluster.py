"""Connecting to Ray: a running cluster, or a local one of our own."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address
from ray.job_config import JobConfig

from kdsearch.engine.local_ray import LocalRay
from kdsearch.engine.ray_tune.room import Needed, cluster_room, local_room, slots
from kdsearch.errors import InputError, first_line, last_line
from kdsearch.study import Resolved, Resources

WRONG_TOKEN = (
    "asks for a token, and accepts none found here",
    "put the cluster's token into ~/.ray/auth_token; `ray get-auth-token` prints it on the head. "
    "Where RAY_AUTH_MODE is set, it must be token",
)
"""What is wrong, and what to do."""
_OTHER_RAY = re.compile(r"cluster has Ray version (\S+)")
"""What Ray's health check says of a cluster of another version."""
_OTHER_PYTHON = re.compile(r"Version mismatch: The cluster was started with:.*?Python: (\S+)", re.S)
"""What `ray.init` says of a cluster on another Python, of which the health check says nothing."""
_NOT_LET_IN = ("InvalidAuthToken", "couldn't find an authentication token")
"""Ray's words, of a token that is another and of none where RAY_AUTH_MODE asks for one."""
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a node must have to take part in a search."""

    folder: Path
    mark: str
    """A file in the folder that the driver made."""
    versions: Mapping[str, str]
    """The driver's own."""
    gpu: bool
    """Whether all trainings take a GPU."""
    resolved: Resolved
    """The study."""
    models: Collection[str]
    """Which of its models the node is to have, or to get from the Hub."""


_SECONDS_TO_END = 1.5
"""A launch that was stopped ends itself within a second, unless `ray.shutdown` keeps the
interpreter from it: that takes most of a second of its own, longer on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster we are connected to."""

    dashboard: str | None
    token: str | None
    """How to get the dashboard's token; None where it asks for none."""
    needed: Needed
    """What a training of each role takes."""
    slots: int
    """How many trainings run at once; of those that take the least, where they differ."""
    expected: Expected | None = None
    """What its nodes are held against; None where they are not looked at."""
    left_out: set[str] = field(default_factory=set)
    """The ids of the nodes that lack something; `watch_nodes` keeps it while a search runs."""
    told: set[tuple[str, str]] = field(default_factory=set)
    """The nodes of which it was said already that they are left out, by name, and why."""
    gpus: dict[str, Sequence[str]] = field(default_factory=dict)
    """What `watch_nodes` found of the GPUs of each node, by its id."""


@contextmanager
def connect(
    address: str | None,
    *,
    resources: Resources,
    threads: int,
    source: str = "--address",
    say: Callable[[str], None] = print,
    metadata: Mapping[str, str] | None = None,
    local: LocalRay | None = None,
) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (`auto` or HOST:PORT), or to a local one (None).

    A training takes `resources`; by default a GPU if the cluster has any, and a CPU per thread of
    `threads`. Nodes that are still to come are waited for; `say` is told so. `source` says who gave
    the address, and `metadata` what the dashboard shows of this job (`job_name` as its name). A
    local cluster is `local`, which may have been started before, and ends with the connection. The
    handlers of signals stay. Raises `InputError` where there is no cluster, or none of its nodes
    has room for one, and none comes.
    """
    with closing(local or LocalRay()) as own:
        context = _init(address, own, source, say, metadata or {})
        try:
            if address is None:
                needed = local_room(resources, threads)
            else:
                needed = cluster_room(resources, threads, say)
            url = context.dashboard_url
            yield Cluster(
                dashboard=f"http://{url}" if url else None,
                token=_token(),
                needed=needed,
                slots=slots(needed),
            )
        except KeyboardInterrupt:
            time.sleep(_SECONDS_TO_END)
            raise
        finally:
            ray.shutdown()


def _init(
    address: str | None,
    local: LocalRay,
    source: str,
    say: Callable[[str], None],
    metadata: Mapping[str, str],
) -> Any:
    """Ray's context of a connection to `address`, or to `local`."""
    if address == "auto":
        address = _found(source, say)
    place = "Ray" if address is None else f"{source} {address}"
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Its errors are the tracebacks of trainings that failed: they lie in attempts/. What ends Tune
    # itself is raised.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address is None:
            local.start(say)
            there = local.address()
        else:
            there = address
        # By itself Ray does so for `auto` only.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        if address is not None:
            _probe(address, place)
        return ray.init(
            address=there,
            # Of a submitted job, what was submitted with it stands before this.
            job_config=JobConfig(metadata=dict(metadata)),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except KeyboardInterrupt:
        ray.shutdown()  # before what it was connecting to ends
        raise
    except (ConnectionError, ValueError, RuntimeError) as error:
        if other := _OTHER_PYTHON.search(str(error)):
            raise _other(place, "Python", other[1], platform.python_version()) from None
        raise _unreachable(place, first_line(error)) from None
    finally:  # Ray's own would end this process without a word
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _found(source: str, say: Callable[[str], None]) -> str:
    """The address of the Ray on this machine; of several, the one that Ray takes."""
    try:
        address = str(canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        raise _unreachable(f"{source} auto", first_line(error)) from None
    say(f"connecting to the Ray at {address}")
    return address


def _unreachable(place: str, why: str) -> InputError:
    return InputError.one(
        place,
        f"cannot reach a Ray: {why}",
        "start one with `ray start --head` and give the HOST:PORT that it prints; for a local "
        "one: --address local; a cluster that asks for a token needs RAY_AUTH_MODE=token "
        "and the token in ~/.ray/auth_token",
    )


def _other(place: str, name: str, there: str, here: str) -> InputError:
    return InputError.one(
        place,
        f"runs {name} {there}, but this machine has {name} {here}",
        "install exactly the same versions of Ray and Python on both",
    )


def _probe(address: str, place: str) -> None:
    """See that a Ray answers at `address` and lets us in: `ray.init` would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        why = str(error) if isinstance(error, OSError) else "this is not HOST:PORT"
        raise _unreachable(place, why) from None
    # In a process of its own, since no signal is heeded while Ray's client tries.
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check"]
    found = subprocess.run([*command, "--address", address], capture_output=True, text=True)
    if any(words in found.stderr for words in _NOT_LET_IN):
        raise InputError.one(place, *WRONG_TOKEN)
    if other := _OTHER_RAY.search(found.stderr):
        raise _other(place, "Ray", other[1], ray.__version__)
    if found.returncode:
        raise _unreachable(place, last_line(found.stderr))


def _token() -> str | None:
    """Where the token lies that Ray asks for since its local clusters have authentication."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the value of RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))
    return f"cat {path}" if path.expanduser().exists() else None
