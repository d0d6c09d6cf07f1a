"""Which slots end so that one of another kind of resources, which is needed more, finds room."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ray.exceptions import RayError

from kdsearch.agenda import Bundle
from kdsearch.engine.ray_tune.room import Needs

_SECONDS_TO_PLACE = 10.0
"""How long Ray may take to place a slot once there is room. After that something else has it."""
_MOST_CLAIMS = 16
"""At a time: what comes of some is seen before there are more."""
_MOST_ASKED = 50
"""Of how many slots it is asked at a look whether they have found room: Tune's loop waits for each
answer. Who is asked later only seems to wait, and its own room to be free."""
_LITTLE = 1e-6


@dataclass
class Held:
    """A slot as the driver sees it."""

    name: str
    kind: str
    """Of resources."""
    group: str
    """The name of its placement group."""
    without: tuple[str, ...]
    node: str | None = None
    """None while it waits for room on a node, or its process starts."""
    node_id: str | None = None
    gpus: Sequence[str] = ()
    """The ids of those that it has, on its node."""
    address: str | None = None
    bundle: Bundle = ()
    since: float = field(default_factory=time.monotonic)
    """When it was asked for; once it is up, when it came up or its last training ended."""
    ends: bool = False
    asked: float = 0.0
    """When it was last asked whether it has found room."""
    tried: set[str] = field(default_factory=set)
    """The nodes where room was made for it in vain."""

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return self.node is not None and not self.bundle and not self.ends

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the trainings that it has in hand."""
        return tuple(request.training.key for request in self.bundle)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is taken of a node."""

    name: str
    resources: Mapping[str, float]
    gpus: Sequence[str] = ()
    busy: bool = False


@dataclass(frozen=True)
class _Claim:
    """Room on a node for a slot that waits."""

    needs: Needs
    node: str
    ends: frozenset[str]
    """The slots that have it now."""
    clears: bool
    """Whether any had it when it was claimed."""
    cleared: float | None
    """Since when none of those slots is there any more."""
    blocks: frozenset[str] = frozenset()
    """The kinds of which no slot is asked for meanwhile: it would take what gets free."""


class MakingRoom:
    """Claims room for slots that wait while slots of less urgent kinds have it.

    The slots that are in the way end, all of them on one node and by whole GPUs, each as soon as
    its training ends. So what became urgent starts after one training of those that were running.
    A training is not ended for another. Where room stays taken that nothing here has, as by
    another search, a claim goes on to another node.
    """

    def __init__(
        self,
        needs: Mapping[str, Needs],
        nodes: Callable[[], list[dict[str, Any]]],
        placed: Callable[[Collection[str]], Mapping[str, str]],
    ) -> None:
        """`nodes` are those on which Ray places slots; `placed`: see `pool.Placed`."""
        self._needs = needs
        self._nodes = nodes
        self._placed = placed
        self._claims: dict[str, _Claim] = {}
        """By the name of the slot that waits."""
        self._there: Sequence[Mapping[str, Any]] = ()
        self.starting: dict[str, str] = {}
        """The slots that have found room and are not up yet, each with the id of its node."""

    @property
    def ending(self) -> frozenset[str]:
        """The slots that get no further training."""
        return frozenset(name for claim in self._claims.values() for name in claim.ends)

    @property
    def blocked(self) -> frozenset[str]:
        """The kinds of which no slot is asked for now."""
        return frozenset(kind for claim in self._claims.values() for kind in claim.blocks)

    def look(self, slots: Collection[Held], ready: Sequence[str]) -> None:
        """See what has found room, and decide anew.

        `ready` are the kinds of the trainings that could start, the most urgent first.
        """
        if len({slot.kind for slot in slots}) > 1 and ready:
            with suppress(RayError, RuntimeError):  # it is asked again in a second
                self._ask({slot.group: slot for slot in slots if slot.node is None})
        else:
            self.starting = {}
        self.decide(slots, ready)

    def _ask(self, down: Mapping[str, Held]) -> None:
        """Ask Ray for the nodes, and which slots have found room, by their groups."""
        self._there = self._nodes()
        alive, names = {node["NodeID"] for node in self._there}, {s.name for s in down.values()}
        known = self.starting.items()
        self.starting = {n: node for n, node in known if n in names and node in alive}
        unknown = [group for group, slot in down.items() if slot.name not in self.starting]
        unknown.sort(key=lambda group: (down[group].name not in self._claims, down[group].asked))
        asked = unknown[:_MOST_ASKED]
        for group in asked:
            down[group].asked = time.monotonic()
        for group, node in self._placed(asked).items():
            self.starting[down[group].name] = node

    def decide(self, slots: Collection[Held], ready: Sequence[str]) -> None:
        """Claim room for the slots that wait, in the order in which they are needed."""
        before, self._claims = self._claims, {}
        if len({slot.kind for slot in slots}) < 2 or not ready:
            return
        down = [slot for slot in slots if slot.node is None]
        coming = Counter(slot.kind for slot in down if slot.name in self.starting)
        waiting: dict[str, list[Held]] = defaultdict(list)
        for slot in sorted(down, key=lambda slot: slot.name not in before):
            if slot.name not in self.starting:
                waiting[slot.kind].append(slot)
        passed: set[str] = set()
        """The kinds of what is more urgent."""
        for kind in ready:
            passed.add(kind)
            if coming[kind]:
                coming[kind] -= 1
            elif waiting[kind] and kind not in self.blocked:
                slot = waiting[kind].pop(0)
                may_end = frozenset(s.name for s in slots if s.kind not in passed) - self.ending
                claim = self._claim(slot, before.get(slot.name), slots, may_end)
                if claim is None:  # nor is there room for another
                    waiting[kind].clear()
                    continue
                blocks = frozenset(self._needs.keys() - passed if claim.clears else ())
                self._claims[slot.name] = replace(claim, blocks=blocks)
                if len(self._claims) >= _MOST_CLAIMS:
                    return
            elif not any(waiting.values()):
                return

    def _claim(
        self,
        slot: Held,
        before: _Claim | None,
        slots: Collection[Held],
        may_end: frozenset[str],
    ) -> _Claim | None:
        """Claim room for a slot: where it was claimed before, if there is hope."""
        now = time.monotonic()
        if before and before.cleared and now - before.cleared > _SECONDS_TO_PLACE:
            slot.tried.add(before.node)
        out = slot.tried.union(slot.without)
        there = [node for node in self._there if node["NodeID"] not in out]
        same = [node for node in there if before and node["NodeID"] == before.node]
        needs, taken = self._needs[slot.kind], self._taken(slots)
        found = make_room(needs, same, taken, may_end) or make_room(needs, there, taken, may_end)
        if found is None:
            slot.tried.clear()
            return None
        node, ends = found
        if before is None or before.node != node:
            return _Claim(needs, node, ends, bool(ends), None if ends else now)
        cleared = None if ends else before.cleared or now
        return _Claim(needs, node, ends, bool(ends) or before.clears, cleared)

    def _taken(self, slots: Collection[Held]) -> dict[str, list[Part]]:
        """What is taken of each node once every claim is settled."""
        taken: dict[str, list[Part]] = defaultdict(list)
        ending = self.ending
        for slot in slots:
            node = slot.node_id or self.starting.get(slot.name)
            if node is None or slot.ends or slot.name in ending:
                continue
            resources, busy = self._needs[slot.kind].resources, bool(slot.bundle)
            taken[node].append(Part(name=slot.name, resources=resources, gpus=slot.gpus, busy=busy))
        for name, claim in self._claims.items():
            taken[claim.node].append(Part(name=name, resources=claim.needs.resources))
        return taken


def make_room(
    needs: Needs,
    nodes: Iterable[Mapping[str, Any]],
    taken: Mapping[str, Sequence[Part]],
    may_end: Collection[str],
) -> tuple[str, frozenset[str]] | None:
    """Where the fewest trainings are in the way of one more of `needs`: the node, and what ends.

    Nothing ends where there is room. None where there is none, whatever ends.
    """
    found: list[tuple[int, int, str, frozenset[str]]] = []
    for node in nodes:
        parts = taken.get(node["NodeID"], ())
        ends = _ends(needs, node["Resources"], parts, may_end) if needs.room(node) else None
        if ends is not None:
            busy = sum(part.busy for part in parts if part.name in ends)
            found.append((busy, len(ends), node["NodeID"], ends))
    if not found:
        return None
    *_, node_id, fewest = min(found, key=lambda each: each[:3])
    return node_id, fewest


def _ends(
    needs: Needs, there: Mapping[str, float], parts: Sequence[Part], may_end: Collection[str]
) -> frozenset[str] | None:
    """The parts of one node that end, by the GPUs that are got free the soonest."""
    on_gpu: dict[tuple[str, ...], list[Part]] = defaultdict(list)
    for part in parts:
        on_gpu[tuple(part.gpus)].append(part)

    def effort(part: Part) -> tuple[bool, int, int, tuple[str, ...], bool, str]:
        gpus = tuple(part.gpus)
        others = on_gpu[gpus]
        stays = any(other.name not in may_end for other in others)
        busy = sum(other.busy for other in others)
        return stays, busy, len(others), gpus, part.busy, part.name

    candidates = sorted((part for part in parts if part.name in may_end), key=effort)
    ends: list[Part] = []
    while not _fits(needs, there, [part for part in parts if part not in ends]):
        if not candidates:
            return None
        ends.append(candidates.pop(0))
    for part in list(ends):  # what was not in the way after all
        without = [other for other in ends if other is not part]
        if _fits(needs, there, [other for other in parts if other not in without]):
            ends = without
    return frozenset(part.name for part in ends)


def _fits(needs: Needs, there: Mapping[str, float], parts: Sequence[Part]) -> bool:
    for name, amount in needs.resources.items():
        taken = sum(part.resources.get(name, 0.0) for part in parts)
        if there.get(name, 0.0) - taken < amount - _LITTLE:
            return False
    free = _free_gpus(there.get("GPU", 0.0), parts)
    return not needs.gpus or _take(free, needs.gpus)


def _free_gpus(total: float, parts: Sequence[Part]) -> list[float]:
    """What is free of each GPU. Of what starts it is not known yet which it has: the worst."""
    used: dict[str, float] = defaultdict(float)
    unknown: list[float] = []
    for part in parts:
        amount = part.resources.get("GPU", 0.0)
        for gpu in part.gpus:
            used[gpu] += min(amount, 1.0)
        if amount and not part.gpus:
            unknown.append(amount)
    free = [1.0 - each for each in used.values()]
    free += [1.0] * (round(total) - len(free))
    for amount in sorted(unknown, reverse=True):
        _take(free, amount, largest=True)
    return free


def _take(free: list[float], amount: float, *, largest: bool = False) -> bool:
    """Take whole GPUs, or a part of the one with the least, or the most, left; if there are."""
    part, count = min(amount, 1.0), max(1, round(amount))
    fitting = sorted((each for each in free if each >= part - _LITTLE), reverse=largest)
    for each in fitting[:count]:
        free.remove(each)
        free.append(each - part)
    return len(fitting) >= count
