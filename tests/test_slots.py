"""Slots that stay, grow and go: what the pool decides, and what a real cluster makes of it."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from fakes import (
    a_study,
    fused_study,
    made_up_training,
    memory_ledger,
    outcome_of,
    resolved_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import RaySystemError
from test_engines import Follower

from kdsearch.agenda import Agenda, Outcome, Speculation, Training, parse_training
from kdsearch.driver import Dispatcher
from kdsearch.engine import EngineError
from kdsearch.engine.ray_tune import Cluster, Expected, Needs, left_out, losses
from kdsearch.engine.ray_tune import pool as pools
from kdsearch.engine.ray_tune.left_out import LeftOut
from kdsearch.engine.ray_tune.nodes import _Nodes
from kdsearch.engine.ray_tune.pool import Pool
from kdsearch.errors import StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES

pytestmark = pytest.mark.undisturbed

GRID = {"alpha": [1], "temperature": {"broad": [1, 4]}, "learning_rate": [1e-5]}
NEEDED = dict.fromkeys(ROLES, Needs(resources={"CPU": 1}))
DEAD = "The actor died unexpectedly.\n\tip: 10.0.0.1\nThe worker died."
PREEMPTED = """The actor died unexpectedly before finishing this task.
	class_name: Slot
	ip: 10.0.0.1
The actor died because its node has died. Node Id: 0a
	the actor's node was preempted: its time is up
"""


def node(number: int) -> dict[str, Any]:
    return {
        "NodeID": f"id{number}",
        "NodeManagerAddress": f"10.0.0.{number}",
        "NodeManagerHostname": f"host{number}",
        "Alive": True,
        "Resources": {"CPU": 1.0},
        "Labels": {},
    }


@dataclass
class FakePost:
    """Keeps what was put."""

    orders: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, slot: str, order: str | None) -> None:
        self.orders.append((slot, order))

    def check(self) -> None:
        pass


class Ticks(Follower):
    """A watch that counts how often it is told that time passes."""

    count = 0

    def tick(self) -> None:
        self.count += 1


@dataclass
class World:
    """A pool over a small study on two hosts, with the trials that Tune would have."""

    most: int | None = None
    tries: int = 2
    fused: int = 1
    """How many students may be trained in one pass."""
    post: FakePost = field(default_factory=FakePost)
    begun: set[str] = field(default_factory=set)
    trials: list[str] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    """The node of each placement group that has room."""
    draining: set[str] = field(default_factory=set)
    no_word: Exception | None = None
    """Why Ray does not say which nodes are draining."""
    ahead: bool = False
    """Whether idle slots run ahead of decisions."""
    scales: bool = False

    def __post_init__(self) -> None:
        resolved = fused_study(
            self.fused,
            search=GRID,
            tries=self.tries,
            students={"one": {"model": "small"}, "other": {"model": "big"}},
        )
        self.ledger: Ledger = memory_ledger(resolved)
        self.agenda = Agenda(resolved)
        self.ticks = Ticks()
        self.queue = Dispatcher(
            self.agenda,
            self.ledger,
            (self.ticks,),
            room=lambda: self.pool.room,
            speculation=Speculation(self.agenda) if self.ahead else None,
        )
        self.left_out = LeftOut(NEEDED, lambda: [node(1), node(2)])
        self.pool = Pool(
            self.queue,
            self.post,
            self.left_out,
            needed=NEEDED,
            begun=self.begun.__contains__,
            most=self.most,
            placed=lambda groups: {g: self.placed[g] for g in groups if g in self.placed},
            draining=self._told,
            scales=self.scales,
        )
        self._trials = 0

    def _told(self) -> set[str]:
        if self.no_word is not None:
            raise self.no_word
        return set(self.draining)

    def look(self) -> None:
        """Have the pool look around now."""
        self.pool._looked = -math.inf
        self.pool.look()

    def grow(self) -> list[str]:
        """Ask for slots as Tune does, until there are enough; the new ones."""
        new = []
        while self.pool.grow(f"trial{self._trials}") is not None:
            new.append(f"trial{self._trials}")
            self._trials += 1
        self.trials += new
        return new

    def up(self, trial: str, host: int = 1, lacks: tuple[str, ...] = ()) -> None:
        self.pool.reported(
            trial,
            {
                "node": f"host{host}",
                "node_id": f"id{host}",
                "node_ip": f"10.0.0.{host}",
                "gpus": [],
                "lacks": list(lacks),
                "done": bool(lacks),
            },
        )

    def finish(self, trial: str) -> tuple[str, ...]:
        """Have the trainings end that the slot has in hand; their keys."""
        slot = self.pool._slots[trial]
        for request in slot.bundle:
            self.ledger.write_outcome(outcome_of(request.training, 0.5, lowest_loss_epoch=1))
        keys = slot.keys
        self.pool.reported(trial, {"keys": keys, "failed": False})
        return keys

    def until_students(self) -> str:
        """Run what comes before the students on one slot; it."""
        [first] = self.grow()
        self.up(first)
        while self.queue.wanted == 1 and not self.agenda.complete:
            self.finish(first)
        return first


def test_as_many_slots_are_asked_for_as_trainings_could_run_and_all_at_once() -> None:
    world = World()
    assert len(world.grow()) == 1  # the teacher comes first
    world = World()
    world.until_students()
    assert len(world.grow()) == world.queue.wanted - 1 > 1


def test_no_more_slots_are_asked_for_than_the_search_may_have() -> None:
    world = World(most=2)
    world.until_students()
    assert len(world.grow()) == 1


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([None, 1, 3]),
    fused=st.sampled_from([1, 2, 16]),
)
def test_whatever_ends_in_whatever_order_each_training_is_run_once_and_the_search_ends(
    seed: int, most: int | None, fused: int
) -> None:
    draw, world = random.Random(seed), World(most=most, fused=fused)
    pool, done = world.pool, []
    for _ in range(1000):
        world.grow()
        if pool.over:
            break
        up = {slot.name for slot in pool.fleet.slots}
        busy = [t for t, slot in pool._slots.items() if slot.bundle]
        waiting = [t for t, slot in pool._slots.items() if slot.name not in up]
        trial = draw.choice([*busy, *waiting])
        if trial in waiting:
            world.up(trial)
        elif draw.random() < 0.9:
            done += world.finish(trial)
        else:
            pool.gone(trial, PREEMPTED)
    assert pool.error is None
    assert world.agenda.complete
    assert len(done) == len(set(done))
    assert pool.in_hand == ()


def test_a_slot_without_work_waits_and_gets_the_next_training_when_there_is_one() -> None:
    world = World()
    world.until_students()

    def finish_one() -> set[str]:
        """The slots that got an order by it."""
        for trial in world.grow():
            world.up(trial)
        before = len(world.post.orders)
        world.finish(next(t for t, slot in world.pool._slots.items() if slot.bundle))
        return {name for name, _ in world.post.orders[before:]}

    while not (waits := {slot.name for slot in world.pool.fleet.slots if not slot.keys}):
        finish_one()
    while not (given_ := finish_one()):
        pass
    assert waits <= given_
    assert world.pool.error is None


def runs_ahead(world: World, slot: str) -> bool:
    keys = world.pool._slots[slot].keys
    return keys != () and set(keys) <= set(world.queue.ahead)


def running_ahead(world: World) -> str:
    """A slot that runs ahead, while all others run what is asked for."""
    slot = world.until_students()
    while world.queue.running[0].role != "student":
        world.finish(slot)
    for trial in world.grow():
        world.up(trial)
    while not runs_ahead(world, slot):
        world.finish(slot)
    return slot


def test_a_slot_without_work_runs_ahead_and_none_is_asked_for_to_do_so() -> None:
    world = World(ahead=True)
    slot = running_ahead(world)
    assert not any(runs_ahead(world, other) for other in world.trials if other != slot)
    assert len(world.pool.in_hand) == len(world.trials)
    assert world.grow() == []


@pytest.mark.parametrize("scales", [False, True])
def test_only_where_idle_nodes_go_a_slot_without_work_for_long_does_not_run_ahead(
    scales: bool,
) -> None:
    world = World(ahead=True, scales=scales)
    slot = running_ahead(world)
    world.pool._slots[slot].since -= 3600  # what was asked for ended so long ago there
    world.finish(slot)
    assert runs_ahead(world, slot) != scales
    world.look()
    assert world.pool._slots[slot].ends == scales


def test_a_process_that_died_in_its_training_is_a_try_and_one_that_had_not_begun_it_is_none() -> (
    None
):
    world = World(tries=1)
    [first] = world.grow()
    world.up(first)
    [key] = world.pool.in_hand
    world.pool.gone(first, DEAD)
    assert world.ledger.attempts() == {}
    [second] = world.grow()
    world.up(second)
    world.begun.add(key)
    world.pool.gone(second, DEAD)
    assert [(a.failure, a.host) for a in world.ledger.attempts_of(key)] == [
        ("worker_lost", "host1")
    ]


def test_of_a_bundle_whose_process_died_each_training_that_had_begun_is_tried_again_alone() -> None:
    world = World(fused=16, most=1)
    slot = world.until_students()
    while len(bundle := world.pool.in_hand) == 1:
        world.finish(slot)
    assert [s.keys for s in world.pool.fleet.slots] == [bundle]
    world.begun.add(bundle[0])
    world.pool.gone(slot, DEAD)
    assert world.ledger.attempts().keys() == {bundle[0]}
    found = []
    [again] = world.grow()
    world.up(again)
    while not set(bundle) <= {key for keys in found for key in keys}:
        found.append(world.finish(again))
    assert bundle[:1] in found


def test_no_more_slots_are_asked_for_than_there_is_room_for_where_bundles_have_it_all() -> None:
    wanted = {}
    for fused in (1, 16):
        world = World(fused=fused)
        first = world.until_students()
        while {request.role for request in world.queue.running} != {"student"}:
            world.finish(first)
        wanted[fused] = world.queue.wanted
    assert wanted[16] <= 3 < wanted[1]  # two students, on two hosts of one CPU each


def test_a_node_that_lacks_something_is_named_once_and_gets_no_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    for _ in range(2):
        [trial] = world.grow()
        world.up(trial, lacks=("does not see /shared", "has no torch"))
        world.pool.gone(trial)
    assert [r.getMessage() for r in caplog.records] == [
        "node host1 (10.0.0.1) is left out: it does not see /shared, and has no torch"
    ]
    assert world.pool.fleet.left_out == {
        "host1 (10.0.0.1)": "it does not see /shared, and has no torch"
    }
    config = world.pool.grow("next")
    assert config is not None
    assert config["labels"] == {"ray.io/node-id": "!in(id1)"}
    assert world.pool.error is None


def test_slots_that_wait_for_long_are_asked_for_anew_when_a_node_is_left_out() -> None:
    world = World()
    world.until_students()
    bad, *waiting = world.grow()
    assert world.pool.superfluous(waiting) == []
    world.up(bad, lacks=("it has no room",))
    assert world.pool.superfluous(waiting) == []  # they may be starting
    for trial in waiting:
        world.pool._slots[trial].since -= 2 * pools._IDLE_SECONDS
    assert world.pool.superfluous(waiting) == waiting


def expire(world: World, node_id: str) -> float:
    """Have the time pass for which a node is left out; the seconds."""
    entry = world.left_out._entries[node_id]
    world.left_out._entries[node_id] = replace(entry, until=time.monotonic())
    assert world.left_out.ids == ()
    return entry.seconds


def test_a_node_that_is_tried_again_costs_one_slot_of_those_that_wait_and_not_all() -> None:
    world = World()
    world.until_students()
    bad, *_ = world.grow()
    world.up(bad, lacks=("has no room",))
    world.pool.gone(bad)
    old = [t for t, slot in world.pool._slots.items() if slot.node is None]
    for trial in old:
        world.pool.gone(trial)
    waiting = world.grow()
    assert len(waiting) > 1
    for trial in waiting:
        world.pool._slots[trial].since -= 2 * pools._IDLE_SECONDS
    assert world.pool.superfluous(waiting) == []
    expire(world, "id1")
    [tries] = world.pool.superfluous(waiting)
    waiting.remove(tries)
    world.pool.gone(tries)
    [again] = world.grow()
    assert world.pool.superfluous([*waiting, again]) == []
    world.up(again, lacks=("has no room",))
    world.pool.gone(again)
    assert world.pool.superfluous(waiting) == []


def test_a_node_that_is_tried_again_in_vain_is_tried_later_each_time_but_every_day() -> None:
    world = World()
    seconds = []
    for _ in range(12):
        for _ in range(3):  # slots that came up on it at once
            world.left_out.lacks("id1", ("has no room",))
        seconds.append(expire(world, "id1"))
    assert seconds[:4] == [600, 1200, 2400, 4800]
    assert seconds[-1] == 24 * 3600


def test_nodes_of_one_name_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node(number) | {"NodeManagerHostname": "same"} for number in (1, 2, 3)]
    found = LeftOut(NEEDED, lambda: nodes)
    for each in nodes[:2]:
        found.lacks(each["NodeID"], ("has no room",))
    assert found.reasons.keys() == {"same (10.0.0.1)", "same (10.0.0.2)"}
    assert len(caplog.records) == 2


def watched() -> tuple[_Nodes, LeftOut, list[str]]:
    """What looks at nodes, what slots find there, and what the former says."""
    expected = Expected(
        folder=Path(), mark="", versions={}, gpu=False, resolved=resolved_of(a_study()), models=()
    )
    cluster = Cluster(dashboard=None, token=None, needed=NEEDED, slots=1, expected=expected)
    said: list[str] = []
    found = LeftOut(NEEDED, lambda: [node(1), node(2)], cluster.left_out, cluster.told)
    return _Nodes(cluster, World().ledger, said.append), found, said


def test_a_node_that_was_named_already_when_it_was_looked_at_is_not_named_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, found, said = watched()
    watch._enter("id1", node(1), None, ["has no room"])
    found.lacks("id1", ("has no room",))
    assert said == ["node host1 (10.0.0.1) is left out: it has no room"]
    assert caplog.records == []
    assert found.reasons == {"host1 (10.0.0.1)": "it has no room"}


def test_a_node_that_lacks_nothing_any_more_works_whatever_was_told_of_it_before() -> None:
    watch, found, _ = watched()
    found.lacks("id1", ("has no room",))
    for lacking in (["gave no answer"], []):
        watch._enter("id1", node(1), None, lacking)
    assert found.ids == ()


def test_a_node_that_a_slot_has_named_is_named_again_only_once_it_was_sound_meanwhile() -> None:
    watch, found, said = watched()
    found.lacks("id1", ("has no room",))
    for lacking in (["has no room"], ["has no room"], [], ["has no room"]):
        watch._enter("id1", node(1), None, lacking)
        assert found.ids == (("id1",) if lacking else ())
    assert said == [
        "node host1 (10.0.0.1) lacks nothing now and is in use again",
        "node host1 (10.0.0.1) is left out: it has no room",
    ]


def test_after_an_error_nothing_is_waited_for_and_time_goes_on_for_those_who_watch() -> None:
    world = World()
    first = world.until_students()
    waiting = world.grow()
    world.pool.error = StorageError("the disk is full")
    before = world.ticks.count
    for _ in range(2):
        world.pool._looked = world.queue._ticked = -math.inf
        world.pool.look()
    assert world.ticks.count == before + 2
    world.pool.superfluous(waiting)
    world.pool._surplus_since = dict.fromkeys(world.pool._surplus_since, -pools._SURPLUS_SECONDS)
    assert set(world.pool.superfluous(waiting)) == set(waiting)
    assert world.grow() == []
    orders = len(world.post.orders)
    world.finish(first)
    assert len(world.post.orders) == orders
    assert world.pool.over


def test_what_is_asked_for_in_vain_for_a_while_is_asked_for_no_more_and_idle_slots_end() -> None:
    world = World()
    first = world.until_students()
    other, *waiting = world.grow()
    world.up(other)
    world.ledger.ask_to_stop(drain=True, person=True)
    for trial in (first, other):
        world.finish(trial)
    assert world.queue.wanted == 0
    assert world.pool.over
    world.pool.superfluous(waiting)
    world.pool._surplus_since = dict.fromkeys(world.pool._surplus_since, -pools._SURPLUS_SECONDS)
    assert set(world.pool.superfluous(waiting)) == set(waiting)
    world.pool.close()
    assert world.post.orders[-2:] == [("slot-1", None), ("slot-2", None)]


def test_processes_that_die_at_their_start_leave_their_node_out_and_not_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    for _ in range(left_out._MOST_STILLBORN):
        assert world.left_out.ids == ()
        [trial] = world.grow()
        world.pool.gone(trial, DEAD)
    assert world.left_out.ids == ("id1",)
    assert world.pool.error is None
    for _ in range(left_out._MOST_STILLBORN):
        [trial] = world.grow()
        world.pool.gone(trial, DEAD.replace("10.0.0.1", "10.0.0.2"))
    assert isinstance(world.pool.error, EngineError)
    assert "worker processes die on start" in str(world.pool.error)
    assert world.pool.over


def test_a_node_where_trainings_end_is_not_left_out_for_deaths_now_and_then() -> None:
    world = World()
    stays = world.until_students()
    for _ in range(3 * left_out._MOST_STILLBORN):
        world.pool.gone(world.grow()[0], DEAD)
        world.left_out.works("10.0.0.1")
    assert world.left_out.ids == ()
    assert world.pool.error is None
    assert world.pool._slots[stays].bundle


def test_deaths_now_and_then_of_which_no_node_is_known_do_not_end_a_search() -> None:
    world = World()
    world.until_students()
    for _ in range(3 * left_out._MOST_STILLBORN):
        world.pool.gone(world.grow()[0], "no word")
        world.left_out.works("10.0.0.1")
    assert world.pool.error is None
    for _ in range(left_out._MOST_STILLBORN):
        world.pool.gone(world.grow()[0], "no word")
    assert isinstance(world.pool.error, EngineError)


def test_a_node_that_goes_away_gets_no_more_work_and_its_idle_slots_end() -> None:
    world = World()
    [trial] = world.grow()
    world.up(trial)
    world.draining.add("id1")
    world.look()
    world.finish(trial)
    assert world.pool.in_hand == ()
    world.look()
    assert world.post.orders[-1] == ("slot-1", None)
    world.pool.gone(trial)
    [other, *_] = world.grow()
    world.up(other, host=2)
    assert len(world.pool.in_hand) == 1


def test_while_ray_does_not_say_which_nodes_go_away_trainings_go_on_elsewhere() -> None:
    world = World()
    first = world.until_students()
    other, *_ = world.grow()
    world.up(other, host=2)
    world.draining.add("id1")
    world.look()
    world.draining.clear()
    world.no_word = RaySystemError("no answer")
    world.look()
    world.finish(first)
    world.finish(other)
    assert [slot.node for slot in world.pool.fleet.slots if slot.keys] == ["host2"]


def test_what_goes_wrong_where_ray_is_asked_which_nodes_go_away_is_kept_and_ends_the_search() -> (
    None
):
    world = World()
    [trial] = world.grow()
    world.up(trial)
    world.no_word = ValueError("no node's id")
    world.look()
    assert world.pool.error is world.no_word
    world.finish(trial)
    assert world.pool.over


def test_an_order_is_what_the_slot_is_to_train() -> None:
    world = World()
    [trial] = world.grow()
    world.up(trial)
    [(name, text)] = world.post.orders
    assert name == "slot-1"
    assert text is not None
    [given_] = json.loads(text)
    assert parse_training(given_["training"]).key == world.pool.in_hand[0]
    assert world.pool.in_hand[0] in given_["label"]


@pytest.mark.parametrize(
    ("reason", "address"),
    [
        (DEAD, "10.0.0.1"),
        ("ray::Slot.train() (pid=7, ip=10.0.0.2, actor_id=0a, repr=slot)", "10.0.0.2"),
        ("no such thing", None),
    ],
)
def test_the_node_of_a_dead_process_is_read_from_what_ray_says(
    reason: str, address: str | None
) -> None:
    assert losses.address_of(reason) == address


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        (DEAD, "worker_lost"),
        (PREEMPTED, "preempted"),
        ("The actor is temporarily unavailable: no route", "preempted"),
        ("Task was killed due to the node running low on memory.", "host_oom"),
        (
            "ray::Slot.train() (pid=7, ip=10.0.0.2, actor_id=0a, repr=kdsearch[preempt] slot-1)\n"
            '  File "/preempted/node/run.py", line 1, in step\n'
            "OSError: the service is temporarily unavailable",
            "worker_lost",
        ),
    ],
)
def test_what_became_of_a_process_is_read_from_rays_own_words(reason: str, failure: str) -> None:
    assert losses.failure_of(reason) == failure


# -- on a real cluster -------------------------------------------------------------------------


@dataclass(frozen=True)
class PlacedTraining:
    """Writes down on which node and in which process it ran.

    All but the first few wait until the node that is bad was tried, and another works as well.
    """

    def __call__(self, training: Training, folder: Path) -> Outcome:
        node = ray.get_runtime_context().get_node_id()
        (folder / f"{training.key}.{node}.{os.getpid()}.placed").touch()
        deadline = time.monotonic() + 120
        while not self._may_go_on(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        return made_up_training(training, folder)

    def _may_go_on(self, folder: Path) -> bool:
        placed = [path.name.split(".")[1] for path in folder.glob("*.placed")]
        return len(placed) < 6 or (len(set(placed)) > 1 and (folder / "bad.tried").exists())


@dataclass(frozen=True)
class LacksWhereBad:
    """A check of a node that has a resource `bad`."""

    folder: Path

    def __call__(self) -> list[str]:
        here = ray.get_runtime_context().get_node_id()
        [node] = [node for node in ray.nodes() if node["NodeID"] == here]
        if "bad" not in node["Resources"]:
            return []
        (self.folder / "bad.tried").touch()
        return ["is bad"]


GROWING = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster as Nodes
from kdsearch.engine import Worker
from kdsearch.engine.ray_tune import Cluster, RayTuneEngine
from test_slots import *
folder = Path(sys.argv[1])
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=nodes.address)
first = nodes.add_node(num_cpus=1)
ledger = Ledger(folder)
ledger.prepare()
ledger.write_resolved(resolved_of(a_study(students={"one": {"model": "small"}})))
cluster = Cluster(dashboard=None, token=None, needed=NEEDED, slots=1)
agenda = Agenda(ledger.resolved(), ledger.results())
worker = Worker(folder=folder, run_training=PlacedTraining())
engine = RayTuneEngine(worker=worker, cluster=cluster, check=LacksWhereBad(folder))
search = threading.Thread(target=engine.run, args=[Dispatcher(agenda, ledger)], daemon=True)
search.start()
while len(list(folder.glob("*.placed"))) < 4:
    assert search.is_alive()
    time.sleep(0.1)
bad = nodes.add_node(num_cpus=1, resources={"bad": 1})  # by the main thread, as Ray will have it
good = nodes.add_node(num_cpus=1)
search.join()
assert agenda.complete and all(agenda.results.values())
print(json.dumps({"first": first.node_id, "bad": bad.node_id, "good": good.node_id}))
"""


def test_a_node_that_joins_gets_work_and_one_that_lacks_something_gets_none(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", GROWING, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stdout + found.stderr
    nodes = json.loads(found.stdout.splitlines()[-1])
    placed = Counter(path.name.split(".")[1] for path in tmp_path.glob("*.placed"))
    assert placed.keys() == {nodes["first"], nodes["good"]}
    assert len({path.name.split(".")[2] for path in tmp_path.glob("*.placed")}) == 2
    assert found.stderr.count("is left out: it is bad") == 1
    assert Ledger(tmp_path).attempts() == {}


DRIVER = """
import sys
from pathlib import Path
import ray
from kdsearch.engine import Worker
from kdsearch.engine.ray_tune import Cluster, RayTuneEngine
from test_slots import *
folder = Path(sys.argv[1])
ray.init(address=sys.argv[2])
ledger = Ledger(folder)
ledger.prepare()
ledger.write_resolved(resolved_of(a_study(students={"one": {"model": "small"}})))
cluster = Cluster(dashboard=None, token=None, needed=NEEDED, slots=1)
worker = Worker(folder=folder, run_training=PlacedTraining())
agenda = Agenda(ledger.resolved())
RayTuneEngine(worker=worker, cluster=cluster, max_slots=5).run(Dispatcher(agenda, ledger))
"""

KILLED = """
import subprocess, sys, time
from collections import Counter
import ray
from ray.cluster_utils import Cluster as Nodes
from ray.util import placement_group_table
from test_slots import DRIVER
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
ray.init(address=nodes.address)
driver = subprocess.Popen([sys.executable, "-c", DRIVER, sys.argv[1], nodes.address])

def states():
    return Counter(group["state"] for group in placement_group_table().values())

def wait_for(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert driver.poll() is None or driver.returncode < 0
        assert time.monotonic() < deadline, states()
        time.sleep(0.2)

wait_for(lambda: states()["CREATED"] == 1 and states()["PENDING"] == 4)
driver.kill()
driver.wait()
wait_for(lambda: set(states()) == {"REMOVED"})
wait_for(lambda: ray.available_resources().get("CPU") == 1)
"""


def test_slots_that_wait_are_demand_up_to_the_most_and_none_is_left_of_a_killed_driver(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert found.returncode == 0, found.stdout + found.stderr
