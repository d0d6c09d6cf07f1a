"""Looking at a cluster from outside: Tune's `fit()` may block for minutes when Ray has died."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

_SECONDS_BETWEEN = 3.0
_FAILURES = 3
_TIMEOUT = 5.0


@contextmanager
def watch_health(dead: Callable[[str], None]) -> Iterator[None]:
    """Call `dead` from a thread, with what has died, when the cluster does not answer any more.

    Asked are the cluster's head and the node of this process; others may come and go. Nothing of
    Ray is called for it, which could block as `fit()` does.
    """
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    doors = {
        "Ray's head": _door(ray.get_runtime_context().gcs_address),
        "Ray on this machine (its raylet)": (node["NodeManagerAddress"], node["NodeManagerPort"]),
    }
    stop = threading.Event()

    def watch() -> None:
        failures = dict.fromkeys(doors, 0)
        while not stop.wait(_SECONDS_BETWEEN):
            for name, door in doors.items():
                failures[name] = 0 if _answers(door) else failures[name] + 1
                if failures[name] == _FAILURES and not stop.is_set():
                    dead(f"{name} has died")
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _door(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(door: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(door, timeout=_TIMEOUT):
            return True
    except OSError:
        return False
