"""Slots of several kinds of resources: what trainings take, and who makes room for whom."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from fakes import a_study, made_up_training, resolved_of
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import RaySystemError
from test_ray import SHORT, launch, lines_until
from test_slots import DEAD, PREEMPTED, FakePost

from kdsearch.agenda import (
    Agenda,
    Bundle,
    Failure,
    Outcome,
    Request,
    Training,
    kind_of,
    written,
)
from kdsearch.distill.memory import tight
from kdsearch.engine.ray_tune import Needs, kinds, making_room
from kdsearch.engine.ray_tune.left_out import LeftOut
from kdsearch.engine.ray_tune.making_room import Held, MakingRoom, Part, make_room
from kdsearch.engine.ray_tune.pool import Pool
from kdsearch.engine.ray_tune.slot import own_gpus
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, SHARES, Resolved, Role, Study, differences, parse_study

pytestmark = pytest.mark.undisturbed

# -- what a study says -------------------------------------------------------------------------


def study_with(resources: Mapping[str, Any]) -> Study:
    return parse_study(a_study(resources=resources), place="study.yaml")


def test_a_role_takes_what_all_take_but_for_what_is_said_of_it() -> None:
    labels = {"ray.io/accelerator-type": ["A100", "H100"], "zone": "east"}
    resources = study_with(
        {
            "cpus": 4,
            "gpus": 1,
            "labels": labels,
            "students": {"gpus": 0.25, "cpus": 1},
            "outputs": {"custom": {"licence": 1}, "labels": {"zone": "west"}},
        }
    ).resources
    teacher, outputs, sequences, student = (resources.of(role) for role in ROLES)
    assert (teacher.cpus, teacher.gpus, teacher.custom) == (4, 1, None)
    assert teacher.labels == {"ray.io/accelerator-type": ("A100", "H100"), "zone": ("east",)}
    assert (student.cpus, student.gpus, student.labels) == (1, 0.25, teacher.labels)
    assert (outputs.gpus, outputs.custom, outputs.labels) == (
        1,
        {"licence": 1},
        {"zone": ("west",)},
    )
    assert sequences == outputs


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ({"gpus": 1.5}, "resources.gpus: GPUs above 1 must be a whole number"),
        ({"students": {"gpu": 1}}, "resources.students.gpu: gpu is not a key here"),
        ({"students": {"hours": 1}}, "resources.students.hours: hours is not a key here"),
        ({"teachers": {"custom": {"GPU": 1}}}, "GPU is not a custom resource"),
        ({"labels": {"zone": "!east"}}, "resources.labels.zone: "),
        ({"labels": {"zone": []}}, "resources.labels.zone: needs at least 1"),
        ({"labels": {"ray.io/node-id": "a0"}}, "nodes come and go"),
        ({"cpus": 0.00001}, "resources.cpus: "),
    ],
)
def test_what_cannot_be_taken_of_a_node_is_refused_at_its_place(
    resources: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(InputError) as error:
        study_with(resources)
    [found] = error.value.problems
    assert problem in str(found)


def test_what_a_training_takes_makes_no_other_study() -> None:
    plain = study_with({})
    other = study_with({"teachers": {"gpus": 1}, "students": {"labels": {"zone": "east"}}})
    assert differences(plain, other) == []


def test_every_role_is_named_and_has_the_share_of_its_name() -> None:
    assert set(SHARES) == set(ROLES)
    for key in SHARES.values():
        resources = study_with({key: {"cpus": 7}}).resources
        named = [role for role in ROLES if SHARES[role] == key]
        assert [role for role in ROLES if resources.of(role).cpus == 7] == named


def test_roles_that_take_the_same_are_one_kind() -> None:
    whole, quarter = Needs(resources={"GPU": 1}), Needs(resources={"GPU": 0.25})
    found = kinds({"teacher": whole, "outputs": quarter, "student": quarter})
    assert found == {"1 GPU": ("teacher",), "0.25 GPU": ("outputs", "student")}


def test_a_node_without_the_labels_has_no_room() -> None:
    needs = Needs(resources={"CPU": 1}, labels={"zone": ("east", "west")})
    there = {"Resources": {"CPU": 3.0}, "Labels": {"zone": "west"}}
    assert needs.room(there) == 3
    assert needs.room(there | {"Labels": {"zone": "north"}}) == 0
    assert needs.room(there | {"Labels": {}}) == 0
    assert str(needs) == "1 CPU with zone east or west"


# -- a GPU's memory ----------------------------------------------------------------------------

GB = 10**9


def with_models(folder: Path, layers: int | str | None = None, **training: Any) -> Resolved:
    """A study whose teacher has a billion weights, 24 × 40 million of them in layers."""
    models = {"big": "./big", "small": "./small"}
    students = {"one": {"model": "big", "layers": layers, "training": training}}
    resolved = resolved_of(a_study(models=models, students=students))
    header = {
        f"encoder.layer.{number}.weight": {"dtype": "F32", "shape": [40, 10**6]}
        for number in range(24)
    } | {"embeddings.weight": {"dtype": "F32", "shape": [40, 10**6]}}
    plain = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(plain).to_bytes(8, "little") + plain)
    there = {
        name: model.model_copy(update={"path": str(folder)})
        for name, model in resolved.models.items()
    }
    return resolved.model_copy(update={"models": there})


TAKEN: Mapping[Role, float] = {"teacher": 1.0, "outputs": 0.25, "student": 0.25}


def sizes(*gigabytes: int) -> dict[Role, list[int]]:
    return {role: [size * GB for size in gigabytes] for role in ROLES}


def test_a_part_of_a_gpu_that_cannot_hold_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        tight(with_models(tmp_path), "study.yaml", TAKEN, sizes(24, 40))
    [problem] = error.value.problems
    assert problem.place == "study.yaml: resources.students.gpus"
    assert problem.what == (
        "student one takes at least 16 GB of a GPU, and 0.25 of one with 24 GB is less"
    )


def test_where_some_gpus_are_large_enough_that_is_only_doubtful(tmp_path: Path) -> None:
    [line] = tight(with_models(tmp_path), "study.yaml", TAKEN, sizes(24, 80))
    assert "0.25 of one with 24 GB is less" in line
    assert tight(with_models(tmp_path), "study.yaml", TAKEN, sizes(80)) == []


def test_of_a_truncated_student_the_layers_that_are_kept_count(tmp_path: Path) -> None:
    assert tight(with_models(tmp_path, layers=6), "study.yaml", TAKEN, sizes(24)) == []
    assert tight(with_models(tmp_path, layers="0+5+9"), "study.yaml", TAKEN, sizes(24)) == []
    assert tight(with_models(tmp_path, layers="last 6"), "study.yaml", TAKEN, sizes(24)) == []


def test_sgd_holds_the_momentum_beside_weights_and_gradients_and_less_without(
    tmp_path: Path,
) -> None:
    for training, least in (
        ({}, "16 GB"),
        ({"optimizer": "sgd"}, "12 GB"),
        ({"optimizer": "sgd", "sgd": {"momentum": 0}}, "8 GB"),
    ):
        with pytest.raises(InputError, match=f"student one takes at least {least} of a GPU"):
            tight(with_models(tmp_path, **training), "s", TAKEN, sizes(24, 30))


def test_a_student_with_adapters_holds_its_weights_once(tmp_path: Path) -> None:
    assert tight(with_models(tmp_path, lora={}), "s", TAKEN, sizes(24)) == []
    with pytest.raises(InputError, match="student one takes at least 4 GB of a GPU"):
        tight(with_models(tmp_path, lora={}), "s", {**TAKEN, "student": 0.125}, sizes(24))


def test_where_nothing_is_known_of_gpus_nothing_is_said(tmp_path: Path) -> None:
    assert tight(with_models(tmp_path), "study.yaml", TAKEN, sizes()) == []
    assert tight(with_models(tmp_path), "s", dict.fromkeys(ROLES, 0.0), sizes(1)) == []


# -- who makes room ----------------------------------------------------------------------------

WHOLE = Needs(resources={"CPU": 1, "GPU": 1})
QUARTER = Needs(resources={"CPU": 1, "GPU": 0.25})
HALF = Needs(resources={"CPU": 1, "GPU": 0.5})
NEEDED: Mapping[Role, Needs] = {
    "teacher": WHOLE,
    "outputs": HALF,
    "sequences": HALF,
    "student": QUARTER,
}


def node(name: str, cpus: float = 16, gpus: int = 2) -> dict[str, Any]:
    return {
        "NodeID": name,
        "NodeManagerHostname": name,
        "NodeManagerAddress": name,
        "Alive": True,
        "Resources": {"CPU": cpus, "GPU": float(gpus)},
        "Labels": {},
    }


def quarter(name: str, gpu: str, *, busy: bool = True) -> Part:
    return Part(name=name, resources=QUARTER.resources, gpus=(gpu,), busy=busy)


def test_the_slots_of_one_gpu_end_and_of_that_where_the_fewest_work() -> None:
    first = [quarter("a", "0"), quarter("b", "0"), quarter("c", "1"), quarter("d", "1")]
    second = [
        quarter("e", "0"),
        quarter("f", "0", busy=False),
        quarter("g", "1"),
        quarter("h", "1"),
    ]
    taken = {"one": first, "two": second}
    every = {part.name for parts in taken.values() for part in parts}
    nodes = [node("one"), node("two")]
    assert make_room(WHOLE, nodes, taken, every) == ("two", frozenset("ef"))
    assert make_room(WHOLE, nodes, taken, every - {"e"}) == ("one", frozenset("ab"))
    assert make_room(WHOLE, nodes, {"one": first}, every) == ("two", frozenset())
    assert make_room(WHOLE, nodes, taken, ()) is None


def test_other_resources_than_gpus_get_free_too() -> None:
    taken = {"one": [quarter("a", "0"), quarter("b", "0"), quarter("c", "1")]}
    full = [node("one", cpus=3)]
    assert make_room(Needs(resources={"CPU": 3}), full, taken, "abc") == ("one", frozenset("abc"))
    assert make_room(Needs(resources={"CPU": 4}), full, taken, "abc") is None


def samples() -> dict[Role, Request]:
    """A request of each role."""
    study = a_study()
    agenda = Agenda(resolved_of({**study, "search": {**study["search"], "targets": ["greedy"]}}))
    found: dict[Role, Request] = {}
    while len(found) < len(ROLES):
        requests = agenda.requests()
        assert requests, f"nothing asks for {set(ROLES) - found.keys()}"
        for request in requests:
            found.setdefault(request.role, request)
            agenda.add(request.training.key, made_up_training(request.training, Path()))
    return found


SAMPLES = samples()


@dataclass
class FakeQueue:
    """Trainings in an order of urgency that tests decide."""

    waiting: list[Request] = field(default_factory=list)
    """The most urgent first."""
    running: dict[str, Request] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    _made: int = 0

    def add(self, role: Role, place: int | None = None) -> str:
        """One more training, before so many others; its key."""
        self._made += 1
        sample = SAMPLES[role]
        plain = written(sample.training)
        if role == "outputs":
            plain["settings"]["batch_size"] = self._made
        else:
            plain["seed"] = self._made
        training = type(sample.training).model_validate_json(json.dumps(plain))
        request = Request(training=training, case=sample.case, stage=sample.stage)
        self.waiting.insert(len(self.waiting) if place is None else place, request)
        return training.key

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        request = next((each for each in self.waiting if each.role in roles), None)
        if request is not None:
            self.waiting.remove(request)
            self.running[request.training.key] = request
            self.started.append(request.training.key)
            return (request,)
        return ()

    def done(self, key: str) -> None:
        del self.running[key]

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        self.release(key)

    def release(self, key: str) -> None:
        self.waiting.insert(0, self.running.pop(key))
        self.started.remove(key)

    @property
    def finished(self) -> int:
        return len(self.started) - len(self.running)

    @property
    def complete(self) -> bool:
        return not self.waiting and not self.running

    @property
    def wanted(self) -> int:
        return len(self.waiting) + len(self.running)

    @property
    def ready(self) -> Iterable[Role]:
        return (request.role for request in self.waiting)

    @property
    def ahead(self) -> Collection[str]:
        return ()


@dataclass
class Plant:
    """A pool, and nodes with GPUs on which placement groups find room in an order drawn."""

    nodes: Sequence[Mapping[str, Any]]
    draw: random.Random
    most: int | None = None
    queue: FakeQueue = field(default_factory=FakeQueue)
    waiting: list[str] = field(default_factory=list)
    """Trials without room, as are `starting` ones with it and `up` ones that are told of."""
    placed: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    """The nodes that another search has."""
    draining: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.post = FakePost()
        self.pool = Pool(
            self.queue,
            self.post,
            LeftOut(NEEDED, lambda: [dict(node) for node in self.nodes]),
            needed=NEEDED,
            begun=lambda key: True,
            most=self.most,
            placed=lambda groups: {
                self.slot(t).group: node
                for t, (node, _) in self.placed.items()
                if self.slot(t).group in groups
            },
            draining=self.draining.copy,
        )
        self._trials = 0

    def slot(self, trial: str) -> Any:
        return self.pool._slots[trial]

    def settle(self) -> None:
        """Let Tune and Ray do all that takes them no more than seconds."""
        before = None
        while before != (before := (len(self.waiting), len(self.placed), len(self.post.orders))):
            self.pool._looked = -float("inf")
            self.pool.look()
            for trial in [t for t in self.up if self.slot(t).ends]:
                self._end(trial)
            pending = [*self.waiting, *(t for t in self.placed if t not in self.up)]
            for trial in self.pool.superfluous(pending):
                self._end(trial)
            while self.pool.grow(f"trial{self._trials}") is not None:
                self.waiting.append(f"trial{self._trials}")
                self._trials += 1
            self.draw.shuffle(self.waiting)
            for trial in list(self.waiting):
                if (where := self._room(NEEDS[self.slot(trial).kind])) is not None:
                    self.waiting.remove(trial)
                    self.placed[trial] = where
            assert self.pool.error is None, self.pool.error
            assert len(self.pool._slots) <= (self.most or 10**6)

    def start(self, trial: str) -> None:
        """A process is up."""
        self.up.add(trial)
        name, gpus = self.placed[trial]
        self.pool.reported(
            trial,
            {
                "node": name,
                "node_id": name,
                "node_ip": name,
                "gpus": list(gpus),
                "lacks": [],
                "done": False,
            },
        )
        self.settle()

    def finish(self, trial: str) -> None:
        """The training ends that a slot has in hand."""
        keys = self.slot(trial).keys
        self.pool.reported(trial, {"keys": keys, "failed": False})
        self.settle()

    @property
    def busy(self) -> list[str]:
        return sorted(t for t in self.up if self.slot(t).bundle)

    @property
    def starting(self) -> list[str]:
        return sorted(t for t in self.placed if t not in self.up)

    def lose(self, trial: str) -> None:
        """The process of a slot ends, or with it its node, which is back at once."""
        reason = self.draw.choice([DEAD, PREEMPTED])
        lost = [trial]
        if reason == PREEMPTED:
            lost = [t for t, (name, _) in self.placed.items() if name == self.placed[trial][0]]
        for each in lost:
            self._end(each, reason)
        self.settle()

    def run(self) -> None:
        """Run all to the end, in an order that is drawn, with losses now and then."""
        for _ in range(10_000):
            self.settle()
            if self.pool.over:
                return
            choice = self.draw.choice([*self.busy, *self.starting])
            if self.draw.random() < 0.1:
                self.lose(choice)
            else:
                (self.start if choice in self.starting else self.finish)(choice)
        raise AssertionError("it does not end")

    def _end(self, trial: str, reason: str | None = None) -> None:
        self.pool.gone(trial, reason)
        if trial in self.waiting:
            self.waiting.remove(trial)
        self.placed.pop(trial, None)
        self.up.discard(trial)

    def _room(self, needs: Needs) -> tuple[str, tuple[str, ...]] | None:
        """Where Ray finds room: of a GPU's part that which fits best."""
        for each in self.draw.sample(list(self.nodes), len(self.nodes)):
            if each["NodeID"] in self.foreign | self.draining:
                continue
            cpus = each["Resources"]["CPU"]
            free = dict.fromkeys(map(str, range(int(each["Resources"]["GPU"]))), 1.0)
            for trial, (name, gpus) in self.placed.items():
                if name == each["NodeID"]:
                    taken = NEEDS[self.slot(trial).kind]
                    cpus -= taken.resources["CPU"]
                    for gpu in gpus:
                        free[gpu] -= min(1.0, taken.gpus)
            fitting = sorted((left, gpu) for gpu, left in free.items() if left >= needs.gpus)
            if cpus >= needs.resources["CPU"] and fitting:
                return each["NodeID"], (fitting[0][1],)
        return None


NEEDS = {str(needs): needs for needs in NEEDED.values()}
FLEETS = st.lists(st.integers(1, 3), min_size=1, max_size=3)
"""The GPUs of each node."""


def plant(gpus: Sequence[int], seed: int, most: int | None = None) -> Plant:
    nodes = [node(f"node{number}", gpus=count) for number, count in enumerate(gpus)]
    return Plant(nodes, random.Random(seed), most)


@settings(max_examples=60)
@given(
    gpus=FLEETS,
    roles=st.lists(st.sampled_from(ROLES), min_size=1, max_size=25),
    most=st.sampled_from([None, None, 1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_urgent_when_each_training_of_each_kind_is_run_once_and_the_search_ends(
    gpus: Sequence[int], roles: Sequence[Role], most: int | None, seed: int
) -> None:
    made = plant(gpus, seed, most)
    keys = [made.queue.add(role) for role in roles]
    made.run()
    assert Counter(made.queue.started) == Counter(keys)


@settings(max_examples=60)
@given(gpus=FLEETS, students=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_an_urgent_teacher_starts_after_at_most_one_student_of_those_that_run(
    gpus: Sequence[int], students: int, seed: int
) -> None:
    made = plant(gpus, seed)
    for _ in range(students):
        made.queue.add("student")
    made.settle()
    for _ in range(made.draw.randrange(60)):
        choice = made.draw.choice([*made.busy, *made.starting] or [""])
        if choice:
            (made.start if choice in made.starting else made.finish)(choice)
    teacher = made.queue.add("teacher", place=0)
    made.settle()
    for trial in made.draw.sample(made.busy, len(made.busy)):
        if trial in made.busy:
            made.finish(trial)
        while made.starting:
            made.start(made.starting[0])
    while made.starting:
        made.start(made.starting[0])
    assert teacher in made.queue.started
    made.run()
    assert len(made.queue.started) == students + 1


def test_slots_on_one_gpu_make_room_and_the_others_go_on_working() -> None:
    made = plant([2], seed=0)
    for _ in range(30):
        made.queue.add("student")
    made.settle()
    for trial in made.starting:
        made.start(trial)
    assert len(made.busy) == 8
    teacher = made.queue.add("teacher", place=0)
    made.settle()
    before = set(made.queue.started)
    for trial in list(made.busy):
        made.finish(trial)
    assert len(made.busy) == 4
    assert len(set(made.queue.started) - before) == 4
    [starts] = made.starting
    made.start(starts)
    assert teacher in made.queue.running
    assert Counter(made.slot(trial).kind for trial in made.up) == {str(QUARTER): 4, str(WHOLE): 1}


def test_a_teacher_that_is_less_urgent_waits_for_the_students_and_gets_their_place_then() -> None:
    made = plant([1], seed=0)
    for _ in range(6):
        made.queue.add("student")
    teacher = made.queue.add("teacher")
    made.run()
    assert made.queue.started[-1] == teacher
    assert len(made.queue.started) == 7


def test_a_slot_whose_training_makes_the_next_of_its_kind_urgent_goes_on_with_that() -> None:
    made = plant([1], seed=0)
    made.queue.add("teacher")
    made.settle()
    made.start(made.starting[0])
    made.queue.add("student")
    made.settle()
    assert made.pool._room.ending == {"slot-1"}
    [trial] = made.busy
    second = made.queue.add("teacher", place=0)
    made.finish(trial)
    assert made.busy == [trial]
    assert second in made.queue.running


def teacher_after_students(made: Plant) -> str:
    """All slots have students, and an urgent teacher has become ready: its key."""
    for _ in range(9):
        made.queue.add("student")
    made.settle()
    for trial in made.starting:
        made.start(trial)
    teacher = made.queue.add("teacher", place=0)
    made.settle()
    return teacher


def test_what_another_search_has_on_a_node_is_not_waited_for_for_ever() -> None:
    made = plant([1, 1], seed=0)
    made.foreign.add("node0")
    teacher = teacher_after_students(made)
    assert made.pool._room.ending == frozenset()  # node0 looks as if it were free
    [claim] = made.pool._room._claims.values()
    assert claim.cleared is not None
    long_ago = claim.cleared - 2 * making_room._SECONDS_TO_PLACE
    made.pool._room._claims = dict.fromkeys(
        made.pool._room._claims, replace(claim, cleared=long_ago)
    )
    made.settle()
    assert len(made.pool._room.ending) == 4
    for trial in made.busy:
        made.finish(trial)
    made.start(made.starting[0])
    assert teacher in made.queue.running


def test_room_is_made_on_a_node_that_stays_and_not_on_one_that_goes_away() -> None:
    made = plant([1, 1], seed=0)
    made.draining.add("node0")
    teacher = teacher_after_students(made)
    assert len(made.pool._room.ending) == 4
    for trial in made.busy:
        made.finish(trial)
    made.start(made.starting[0])
    assert teacher in made.queue.running


def test_of_many_slots_that_wait_some_are_asked_for_at_a_time_and_each_in_its_turn() -> None:
    asked: list[list[str]] = []
    nodes_seen = []

    def nodes() -> list[dict[str, Any]]:
        nodes_seen.append(1)
        return [node("one")]

    def placed(groups: Collection[str]) -> dict[str, str]:
        asked.append(list(groups))
        return {group: "one" for group in groups if group == "group199"}

    room = MakingRoom(NEEDS, nodes, placed)
    slots = [Held(f"slot{n}", list(NEEDS)[n % 2], f"group{n}", ()) for n in range(200)]
    ready = [slot.kind for slot in slots]
    most = making_room._MOST_ASKED
    for _ in range(8):
        room.look(slots, ready)
        room.decide(slots, ready)
    assert {len(groups) for groups in asked} == {most}
    assert {group for groups in asked for group in groups} == {slot.group for slot in slots}
    assert room.starting == {"slot199": "one"}
    assert sum("group199" in groups for groups in asked) == 1
    assert len(nodes_seen) == 8


def test_a_slot_that_had_found_room_on_a_node_that_is_gone_waits_again() -> None:
    there = [node("one"), node("two")]
    groups_on = {"group0": "one"}
    room = MakingRoom(
        NEEDS, lambda: there, lambda groups: {g: groups_on[g] for g in groups if g in groups_on}
    )
    slots = [Held(f"slot{n}", list(NEEDS)[n], f"group{n}", ()) for n in range(2)]
    room.look(slots, [slot.kind for slot in slots])
    assert room.starting == {"slot0": "one"}
    there.pop(0)
    groups_on.clear()
    room.look(slots, [slot.kind for slot in slots])
    assert room.starting == {}


def test_where_ray_gives_no_answer_for_a_moment_what_was_known_stays() -> None:
    answers = iter([True, False, True])

    def nodes() -> list[dict[str, Any]]:
        if not next(answers):
            raise RaySystemError("no answer")
        return [node("one")]

    room = MakingRoom(NEEDS, nodes, lambda groups: dict.fromkeys(groups, "one"))
    slots = [Held(f"slot{n}", list(NEEDS)[n], f"group{n}", ()) for n in range(2)]
    for _ in range(3):
        room.look(slots, [slot.kind for slot in slots])
        assert room.starting == {"slot0": "one", "slot1": "one"}


def test_where_no_node_ever_fits_nobody_makes_room() -> None:
    made = plant([0], seed=0)
    made.nodes = [node("none", gpus=0) | {"Resources": {"CPU": 4.0, "GPU": 0.0}}]
    made.queue.add("teacher")
    made.settle()
    assert made.pool.fleet.waiting == 1
    assert made.pool._room.ending == frozenset()


# -- on a real cluster -------------------------------------------------------------------------


@dataclass(frozen=True)
class PlacedTraining:
    """Writes down on which node and in which process it ran."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        role, node = kind_of(training).role, ray.get_runtime_context().get_node_id()
        (folder / f"{role}.{training.key}.{node}.{os.getpid()}.placed").touch()
        return made_up_training(training, folder)


@dataclass(frozen=True)
class NotedLimit:
    """Writes down what part of a GPU a process is held to."""

    folder: Path

    def __call__(self, gpus: float) -> None:
        (self.folder / f"{os.getpid()}.limit").write_text(f"{gpus} {','.join(own_gpus())}")


KINDS = """
import sys
from pathlib import Path
import ray
from fakes import SMALL_GRID
from ray.cluster_utils import Cluster as Nodes
from kdsearch.driver import Dispatcher
from kdsearch.engine import Worker
from kdsearch.engine.ray_tune import Cluster, RayTuneEngine
from test_kinds import *
folder = Path(sys.argv[1])
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=nodes.address)
nodes.add_node(num_cpus=4, num_gpus=1)
east = nodes.add_node(num_cpus=4, num_gpus=1, labels={"zone": "east"})
ledger = Ledger(folder)
ledger.prepare()
ledger.write_resolved(resolved_of(a_study(search=SMALL_GRID, erm=True)))
zone = {"zone": ("east",)}
needed = {role: Needs(resources=needs.resources, labels=zone) for role, needs in NEEDED.items()}
cluster = Cluster(dashboard=None, token=None, needed=needed, slots=4)
agenda = Agenda(ledger.resolved())
worker = Worker(folder=folder, run_training=PlacedTraining(), limit=NotedLimit(folder))
engine = RayTuneEngine(worker=worker, cluster=cluster, max_slots=2)
engine.run(Dispatcher(agenda, ledger))
assert agenda.complete and all(agenda.results.values())
print(east.node_id)
"""


def test_each_role_runs_on_its_part_of_a_gpu_of_a_node_with_the_label(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KINDS, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert found.returncode == 0, found.stdout + found.stderr
    placed = [path.name.split(".") for path in tmp_path.glob("*.placed")]
    assert {node for _, _, node, _, _ in placed} == {found.stdout.splitlines()[-1]}
    limits: dict[str, set[str]] = {role: set() for role in ROLES}
    for role, _, _, process, _ in placed:
        limits[role].add((tmp_path / f"{process}.limit").read_text())
    assert limits == {
        "teacher": {"1 0"},
        "outputs": {"0.5 0"},
        "sequences": set(),  # of which that study has none
        "student": {"0.25 0"},
    }
    assert Ledger(tmp_path).attempts() == {}


def test_a_launch_says_what_each_kind_takes(tmp_path: Path, address: str) -> None:
    resources = "resources: {cpus: 1, gpus: 0, students: {cpus: 0.5}}\n"
    process = launch(tmp_path, "--address", address, study=SHORT + resources)
    teachers, students = lines_until(process, "of students at once")[-2:]
    process.terminate()
    process.communicate(timeout=60)
    assert teachers == "1 training of teachers and outputs at once, each on 1 CPU\n"
    assert students == "2 trainings of students at once, each on 0.5 CPU\n"


@pytest.mark.slow
def test_in_a_launch_slots_of_one_kind_make_room_for_those_of_another(tmp_path: Path) -> None:
    whole = os.cpu_count() or 1
    resources = f"resources: {{cpus: {whole}, gpus: 0, students: {{cpus: {whole / 2}}}}}\n"
    process = launch(tmp_path, study=SHORT + "erm: true\n" + resources)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert Ledger(tmp_path / "run").attempts() == {}
