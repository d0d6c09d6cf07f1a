"""What a training takes of a cluster, and waiting until there is room for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.util import placement_group, remove_placement_group

from kdsearch.errors import InputError

_SETTLING_SECONDS = 5.0
_JOINING_SECONDS = 600.0
_ANSWER_SECONDS = 60.0
"""How long an autoscaler, which looks every 5 s, may take to say what it makes of a request."""
_BETWEEN_SECONDS = 1.0
_NODE_GROUP = "ray.io/node-group"
"""A label that Ray gives the nodes of a cluster with an autoscaler."""

Say = Callable[[str], None]


def local_room(
    cpus: float | None, gpus: float | None, threads: int
) -> tuple[dict[str, float], int]:
    """What a training takes, and how many of them this machine has room for.

    Raises `InputError` where that is none.
    """
    wanted = _wanted(cpus, (1 if _has_gpu() else 0) if gpus is None else gpus, threads)
    slots = room(wanted)
    if slots == 0:
        raise InputError.one(
            "resources",
            f"a training asks for {words(wanted)}; this machine does not have that",
            "ask for less, or give --address of a cluster that has it",
        )
    return wanted, slots


def cluster_room(
    cpus: float | None, gpus: float | None, threads: int, say: Say
) -> tuple[dict[str, float], int]:
    """The same of a cluster, whose nodes may be still to come.

    Right after a cluster's start its workers are not there yet. An autoscaler is asked for a node
    if none has room, by a placement group that goes with this process. Where `gpus` is not said, a
    training takes a GPU if a node has one or the autoscaler can bring one. Raises `InputError` for
    what the autoscaler can never bring, and where nothing came.
    """
    _settle()
    if gpus is None:
        gpus = 1 if _has_gpu() else _gpus_to_come(_wanted(cpus, 1, threads), say)
    wanted = _wanted(cpus, gpus, threads)
    if room(wanted) == 0:
        _wait_for_room(wanted, say)
    return wanted, room(wanted)


def room(wanted: Mapping[str, float], left_out: Collection[str] = ()) -> int:
    """How many trainings fit the nodes that are there now, without those left out."""
    return sum(_room(n["Resources"], wanted) for n in _alive() if n["NodeID"] not in left_out)


def has_room(node: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    """Whether a training fits a node with these resources."""
    return _room(node, wanted) > 0


def words(wanted: Mapping[str, float]) -> str:
    """Resources as a person says them: `1 CPU and 1 GPU`."""
    return " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())


def _wanted(cpus: float | None, gpus: float, threads: int) -> dict[str, float]:
    return {"CPU": cpus or float(threads)} | ({"GPU": gpus} if gpus else {})


def _room(node: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How many trainings fit a node at once; 1 GPU has room for five that take 0.2."""
    return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items())


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _has_gpu() -> bool:
    return any(node["Resources"].get("GPU", 0) > 0 for node in _alive())


def _settle() -> None:
    """Wait until no node has joined for a while."""
    before = -1
    while before != (now := len(_alive())):
        before = now
        time.sleep(_SETTLING_SECONDS)


def _gpus_to_come(wanted: Mapping[str, float], say: Say) -> int:
    """1 if trainings are to wait for a GPU of a cluster that has none now, 0 if for none."""
    if not _autoscaled():
        say("this cluster has no GPU: trainings run on CPUs (to wait for one: resources.gpus: 1)")
        return 0
    say("this cluster has no GPU now: asking its autoscaler for one")
    deadline = time.monotonic() + _ANSWER_SECONDS
    with _asked(wanted) as request:
        while time.monotonic() < deadline:
            time.sleep(_BETWEEN_SECONDS)
            answer = request.answer()
            if answer.feasible or room(wanted):
                return 1
            if answer.feasible is False:
                say("the autoscaler has no nodes with a GPU: trainings run on CPUs")
                return 0
    raise InputError.one(
        "resources.gpus",
        "this cluster has no GPU now, and its autoscaler does not say whether it can bring one",
        "say it in the study: gpus: 1 waits for GPUs, gpus: 0 trains on CPUs",
    )


def _wait_for_room(wanted: Mapping[str, float], say: Say) -> None:
    scaled = _autoscaled()
    deadline = time.monotonic() + _JOINING_SECONDS
    said = ""
    with _asked(wanted) as request:
        while room(wanted) == 0:
            answer = request.answer() if scaled else _Answer()
            if answer.feasible is False:
                raise InputError.one(
                    "resources",
                    f"a training asks for {words(wanted)}; no node that this cluster's autoscaler "
                    "may start has that",
                    "ask for less, or give the cluster such a kind of node",
                )
            if answer.feasible is None and time.monotonic() >= deadline:
                raise InputError.one(
                    "resources",
                    f"a training asks for {words(wanted)}; no node of the cluster has that, and "
                    f"none came in {_JOINING_SECONDS / 60:.0f} minutes",
                    "ask for less, or give --address of a cluster that has it",
                )
            if (state := answer.state if scaled else _nodes_there()) != said:
                say(f"waiting for a node with room for {words(wanted)}: {state}")
                said = state
            time.sleep(_BETWEEN_SECONDS)


def _nodes_there() -> str:
    number = len(_alive())
    return f"{number} node{' is' if number == 1 else 's are'} there, none has it"


def _autoscaled() -> bool:
    return any(_NODE_GROUP in node["Labels"] for node in _alive())


@contextmanager
def _asked(wanted: Mapping[str, float]) -> Iterator[_Request]:
    """Have the autoscaler see that a training waits.

    What `request_resources` asks for would outlive this process, and all studies share it.
    """
    group = placement_group([dict(wanted)])
    try:
        yield _Request(group.id.hex())
    finally:
        remove_placement_group(group)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What an autoscaler makes of a request."""

    feasible: bool | None = None
    """None while it has not looked."""
    state: str = "its autoscaler was asked for one"


class _Request:
    """A request that an autoscaler may see."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._since: int | None = None
        """The first version of the cluster's state that has the request in it."""

    def answer(self) -> _Answer:
        """What the autoscaler says of it. The first version of autoscalers says nothing."""
        client = ray._private.worker.global_worker.gcs_client
        reply = GetClusterStatusReply.FromString(client.get_cluster_status())
        scaler, cluster = reply.autoscaling_state, reply.cluster_resource_state
        if self._since is None and self._in(cluster.pending_gang_resource_requests):
            self._since = cluster.cluster_resource_state_version
        looked = scaler.last_seen_cluster_resource_state_version
        if self._since is None or looked < self._since:
            return _Answer()
        if self._in(scaler.infeasible_gang_resource_requests):
            return _Answer(feasible=False)
        starting = sum(each.count for each in scaler.pending_instance_requests)
        starting += len(scaler.pending_instances)
        failed = [each.reason for each in scaler.failed_instance_requests]
        if starting:
            nodes = "1 node" if starting == 1 else f"{starting} nodes"
            return _Answer(feasible=True, state=f"its autoscaler is starting {nodes}")
        if failed:
            return _Answer(feasible=True, state=f"its autoscaler could not start one: {failed[-1]}")
        return _Answer(feasible=True)

    def _in(self, requests: Iterable[Any]) -> bool:
        return any(self._group in each.details for each in requests)
