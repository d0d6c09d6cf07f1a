"""What a training takes of a cluster, and waiting until there is room for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.util import placement_group, remove_placement_group

from kdsearch.errors import InputError, Problem
from kdsearch.study import ROLES, SHARES, Resources, Role, Share

_SETTLING_SECONDS = 5.0
_JOINING_SECONDS = 600.0
_ANSWER_SECONDS = 60.0
"""How long an autoscaler, which looks every 5 s, may take to say what it makes of a request."""
_BETWEEN_SECONDS = 1.0
NODE_LABEL = "ray.io/node-id"
"""A label that Ray gives every node: its id."""
_NODE_GROUP = "ray.io/node-group"
"""A label that Ray gives the nodes of a cluster with an autoscaler."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a training takes of a node."""

    resources: Mapping[str, float]
    """By Ray's names: CPU, GPU, …"""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of the node: each is to be one of these."""

    def __str__(self) -> str:
        taken = " and ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
        labels = (f"{name} {' or '.join(values)}" for name, values in self.labels.items())
        return " with ".join([taken, *filter(None, [" and ".join(labels)])])

    @property
    def gpus(self) -> float:
        """How many GPUs it takes."""
        return self.resources.get("GPU", 0.0)

    def where(self, without: Collection[str] = ()) -> dict[str, str]:
        """The labels as Ray wants them; they hold for none of the nodes `without`, by their ids."""
        found = {
            name: values[0] if len(values) == 1 else f"in({','.join(values)})"
            for name, values in self.labels.items()
        }
        return found | ({NODE_LABEL: f"!in({','.join(sorted(without))})"} if without else {})

    def room(self, node: Mapping[str, Any]) -> int:
        """How many such trainings fit a node at once.

        1 GPU has room for two that take 0.4, and 2 GPUs for four: none has parts of two.
        """
        if any(node["Labels"].get(name) not in values for name, values in self.labels.items()):
            return 0
        there = node["Resources"]
        return min(
            int(there.get(name, 0)) * int(1 / n + 1e-9)
            if name == "GPU" and n < 1
            else int(there.get(name, 0) / n + 1e-9)
            for name, n in self.resources.items()
        )


Needed = Mapping[Role, Needs]
"""What a training of each role takes."""


def kinds(needed: Needed) -> dict[str, tuple[Role, ...]]:
    """The kinds of resources, each with those roles whose trainings take just that."""
    found: dict[str, tuple[Role, ...]] = {}
    for role, needs in needed.items():
        found[str(needs)] = (*found.get(str(needs), ()), role)
    return found


def local_room(resources: Resources, threads: int) -> Needed:
    """What trainings take of this machine. Raises `InputError` where it has no room for one."""
    needed = _needed(resources, threads, 1 if _has_gpu() else 0)
    problems = [
        Problem(
            place=_place(needed, roles),
            what=f"{_asks(needed, roles)}; this machine does not have that",
            remedy="ask for less, or give --address of a cluster that has it",
        )
        for roles in kinds(needed).values()
        if room(needed[roles[0]]) == 0
    ]
    if problems:
        raise InputError(problems)
    return needed


def cluster_room(resources: Resources, threads: int, say: Say) -> Needed:
    """The same of a cluster, whose nodes may be still to come.

    Right after a cluster's start its workers are not there yet. An autoscaler is asked for a node
    if none has room, by a placement group that goes with this process. Where GPUs are not spoken
    of, a training takes one if a node has one or the autoscaler can bring one. Raises `InputError`
    for what the autoscaler can never bring, and where nothing came.
    """
    _settle()
    gpus = 1
    said = {role: resources.of(role).gpus for role in ROLES}
    if not any(said.values()) and (open_ := [role for role in ROLES if said[role] is None]):
        asked = _needed(resources, threads, 1)[open_[0]]
        gpus = 1 if _has_gpu() else _gpus_to_come(asked, say)
    needed = _needed(resources, threads, gpus)
    _wait_for_room(needed, say)
    return needed


def room(needs: Needs, left_out: Collection[str] = ()) -> int:
    """How many trainings fit the nodes that are there now, without those left out."""
    return sum(needs.room(node) for node in _alive() if node["NodeID"] not in left_out)


def words(roles: Sequence[Role]) -> str:
    """Roles as a study names them: `teachers and outputs`."""
    return " and ".join(dict.fromkeys(SHARES[role] for role in roles))


def slots(needed: Needed, left_out: Collection[str] = ()) -> int:
    """The same of those trainings of which the most fit."""
    return max(room(needs, left_out) for needs in needed.values())


def _needed(resources: Resources, threads: int, gpus: int) -> Needed:
    """What trainings take; those that do not speak of GPUs take `gpus`, or as others do, some."""
    shares = {role: resources.of(role) for role in ROLES}
    default = 1 if any(share.gpus for share in shares.values()) else gpus
    return {role: _needs(share, threads, default) for role, share in shares.items()}


def _needs(share: Share, threads: int, default: int) -> Needs:
    gpus = default if share.gpus is None else share.gpus
    taken = {"CPU": share.cpus or float(threads)} | ({"GPU": float(gpus)} if gpus else {})
    return Needs(resources=taken | (share.custom or {}), labels=share.labels or {})


def _place(needed: Needed, roles: Sequence[Role]) -> str:
    """Where the study says what trainings of these roles take."""
    return "resources" if len(roles) == len(needed) else f"resources.{SHARES[roles[0]]}"


def _asks(needed: Needed, roles: Sequence[Role]) -> str:
    of = "" if len(roles) == len(needed) else f" of {words(roles)}"
    return f"a training{of} asks for {needed[roles[0]]}"


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _has_gpu() -> bool:
    return any(node["Resources"].get("GPU", 0) > 0 for node in _alive())


def _settle() -> None:
    """Wait until no node has joined for a while."""
    before = -1
    while before != (now := len(_alive())):
        before = now
        time.sleep(min(max(_SETTLING_SECONDS - _youngest(), 0), _SETTLING_SECONDS))


def _youngest() -> float:
    """The seconds since the last node joined, by its own clock."""
    worker: Any = ray._private.worker.global_worker
    nodes = worker.gcs_client.get_all_node_info().values()
    joined: int = max(node.start_time_ms for node in nodes)
    return time.time() - joined / 1000


def _gpus_to_come(needs: Needs, say: Say) -> int:
    """1 if trainings are to wait for a GPU of a cluster that has none now, 0 if for none."""
    if not autoscaled():
        say(
            "this cluster has no GPU: trainings run on CPUs "
            "(resources.gpus in the study: 1 waits for one, 0 uses none)"
        )
        return 0
    say("this cluster has no GPU now: asking its autoscaler for one")
    deadline = time.monotonic() + _ANSWER_SECONDS
    with _asked(needs) as request:
        while time.monotonic() < deadline:
            time.sleep(_BETWEEN_SECONDS)
            answer = request.answer()
            if answer.feasible or room(needs):
                return 1
            if answer.feasible is False:
                say("the autoscaler has no nodes with a GPU: trainings run on CPUs")
                return 0
    raise InputError.one(
        "resources.gpus",
        "this cluster has no GPU now, and its autoscaler does not say whether it can bring one",
        "set it in the study: gpus: 1 waits for GPUs, gpus: 0 trains on CPUs",
    )


def _wait_for_room(needed: Needed, say: Say) -> None:
    """Wait for nodes that are to come.

    Where an autoscaler can bring what other trainings need, those that have room may begin.
    """
    scaled, said = autoscaled(), ""
    deadline = time.monotonic() + _JOINING_SECONDS
    with ExitStack() as stack:
        requests = {
            roles: stack.enter_context(_asked(needed[roles[0]]))
            for roles in kinds(needed).values()
            if room(needed[roles[0]]) == 0
        }
        while lacking := [roles for roles in requests if room(needed[roles[0]]) == 0]:
            answers = {r: requests[r].answer() if scaled else _Answer() for r in lacking}
            _refuse(needed, answers, late=time.monotonic() >= deadline)
            able = all(answer.feasible for answer in answers.values())
            if able and len(lacking) < len(kinds(needed)):
                return
            first = lacking[0]
            if (state := answers[first].state if scaled else _nodes_there()) != said:
                say(f"waiting for a node with room for {needed[first[0]]}: {state}")
                said = state
            time.sleep(_BETWEEN_SECONDS)


def _refuse(needed: Needed, answers: Mapping[tuple[Role, ...], _Answer], *, late: bool) -> None:
    """Raise `InputError` for what no node can ever have, or none had when it was late."""
    problems = []
    for roles, answer in answers.items():
        what, remedy = "", ""
        if answer.feasible is False:
            what = "no node that this cluster's autoscaler can start has that"
            remedy = "ask for less, or add such a kind of node to the cluster"
        elif answer.feasible is None and late:
            minutes = f"{_JOINING_SECONDS / 60:.0f} minutes"
            what = f"no node of the cluster has that, and none joined within {minutes}"
            remedy = "ask for less, or give --address of a cluster that has it"
        if what:
            asks = f"{_asks(needed, roles)}; {what}"
            problems.append(Problem(place=_place(needed, roles), what=asks, remedy=remedy))
    if problems:
        raise InputError(problems)


def _nodes_there() -> str:
    number = len(_alive())
    return f"{number} node{'' if number == 1 else 's'} so far, without that room"


def autoscaled() -> bool:
    """Whether nodes of the cluster come and go as they are needed."""
    return any(_NODE_GROUP in node["Labels"] for node in _alive())


@contextmanager
def _asked(needs: Needs) -> Iterator[_Request]:
    """Have the autoscaler see that a training waits.

    What `request_resources` asks for would outlive this process, and all studies share it.
    """
    labels = [needs.where()] if needs.labels else None
    group = placement_group([dict(needs.resources)], bundle_label_selector=labels)
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
        worker: Any = ray._private.worker.global_worker
        reply = GetClusterStatusReply.FromString(worker.gcs_client.get_cluster_status())
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
