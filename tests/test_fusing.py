"""Bundles: which trainings may run in one pass, how many a slot is given, what becomes of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import (
    COST,
    RecordedTraining,
    TogetherTraining,
    World,
    a_study,
    attempt_at,
    fused_study,
    made_up_training,
    memory_ledger,
    outcome_of,
    resolved_of,
    uniform,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from models import begin as begin_study
from models import tiny_study
from safetensors.torch import load_file
from test_cli import kdsearch

from kdsearch.agenda import (
    MAY_DIFFER,
    Agenda,
    Bundle,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
    alike,
    most_fused,
    share_of,
)
from kdsearch.distill import run_together, run_training
from kdsearch.driver import Dispatcher, Probe, fused_words, measure, open_study, unmeasured
from kdsearch.engine import InProcessEngine, TabulatedEngine, Worker
from kdsearch.engine.ray_tune import Cluster, RayTuneEngine
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.search import Labels, Mse
from kdsearch.study import Fused, Lora, Resolved, parse_study


def some_student() -> StudentTraining:
    agenda = Agenda(resolved_of(a_study()))
    while True:
        training = agenda.requests()[0].training
        if isinstance(training, StudentTraining):
            return training
        agenda.add(training.key, outcome_of(training))


STUDENT = some_student()
OTHER: dict[str, Any] = {
    "version": 2,
    "kind": None,  # there is one
    "data": STUDENT.data.model_copy(update={"train": "other"}),
    "model": STUDENT.model.model_copy(update={"layers": 2}),
    "teaching": STUDENT.taught.model_copy(update={"outputs": "other"}),
    "objective": Mse(alpha=1.0),
    "learning_rate": 1.0,
    "settings": STUDENT.settings.model_copy(update={"epochs": 99}),
    "seed": 99,
    "start": STUDENT.taught.teacher,
}
"""Another value of each field of a student."""


# -- which trainings --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(StudentTraining.model_fields.keys() - {"kind"}))
def test_students_of_one_pass_differ_in_nothing_but_rate_objective_and_teacher(name: str) -> None:
    changed = STUDENT.model_copy(update={name: OTHER[name]})
    assert changed.key != STUDENT.key
    assert (alike(changed) == alike(STUDENT)) == (name in MAY_DIFFER)


def test_a_student_without_a_teacher_is_not_trained_with_those_that_have_one() -> None:
    alone = STUDENT.model_copy(update={"teaching": None, "objective": Labels()})
    assert alike(alone) not in (None, alike(STUDENT))


def test_teachers_outputs_wide_tasks_and_students_under_fp16_or_in_less_memory_run_alone() -> None:
    agenda, found = Agenda(resolved_of(a_study())), {}
    while len(found) < 2:
        for request in agenda.requests():
            if request.role != "student":
                found[request.role] = request.training
                agenda.add(request.training.key, outcome_of(request.training))
    assert {type(each) for each in found.values()} == {TeacherTraining, OutputsTraining}
    assert [alike(each) for each in found.values()] == [None, None]
    data = STUDENT.data.model_copy(update={"task": "translation"})
    assert alike(STUDENT.model_copy(update={"data": data})) is None
    for change in ({"precision": "fp16"}, {"lora": Lora()}, {"gradient_checkpointing": True}):
        settings = STUDENT.settings.model_copy(update=change)
        assert alike(STUDENT.model_copy(update={"settings": settings})) is None


# -- how many ---------------------------------------------------------------------------------


GRID = {"alpha": [1], "temperature": {"broad": [1, 4]}, "learning_rate": [1e-5, 2e-5]}


def at_students(most: int, room: int, **sections: Any) -> tuple[Agenda, Ledger, Dispatcher]:
    """A search of 4 students at once that may be fused, on machines with so much room."""
    resolved = fused_study(most, **sections)
    agenda, ledger = Agenda(resolved), memory_ledger(resolved)
    while agenda.requests()[0].role != "student":
        for request in agenda.requests():
            if request.role != "student":
                agenda.add(request.training.key, outcome_of(request.training))
    return agenda, ledger, Dispatcher(agenda, ledger, room=lambda: room)


def keys(bundle: Bundle) -> list[str]:
    return [request.training.key for request in bundle]


@pytest.mark.parametrize(
    ("most", "room", "sizes"),
    [
        (1, 1, [1] * 8),
        (4, 1, [4, 4]),
        (16, 1, [8]),
        (16, 2, [4, 4]),
        (16, 3, [3, 3, 2]),
        (3, 2, [3, 3, 2]),
        (16, 8, [1] * 8),
        (16, 100, [1] * 8),
    ],
)
def test_what_could_start_is_shared_out_over_the_machines_and_a_pass_has_no_more_than_pays(
    most: int, room: int, sizes: list[int]
) -> None:
    agenda, _, dispatcher = at_students(
        most, room, search={**GRID, "distance": ["ce"], "teacher": ["t_hs", "t_ll"]}
    )
    wanted = [request.training.key for request in agenda.requests()]
    assert len(wanted) == 8
    assert dispatcher.wanted == len(tuple(dispatcher.ready)) == len(sizes)
    found = []
    for taken, size in enumerate(sizes, 1):
        bundle = dispatcher.take()
        assert len(bundle) == size
        found += keys(bundle)
        assert dispatcher.wanted == len(sizes)
        assert len(tuple(dispatcher.ready)) == len(sizes) - taken
    assert sorted(found) == sorted(wanted)
    assert dispatcher.take() == ()
    assert found[0] == wanted[0]  # the most urgent first


def test_a_study_that_says_so_trains_each_student_alone() -> None:
    _, _, dispatcher = at_students(4, 1, resources={"fuse": 1})
    assert len(dispatcher.take()) == 1


def test_what_was_measured_for_another_number_does_not_hold() -> None:
    asks_for_4 = resolved_of(a_study(resources={"fuse": 4}))
    assert most_fused(asks_for_4.model_copy(update={"fused": fused_study(8).fused})) == {}


def test_students_under_different_seeds_are_in_different_bundles() -> None:
    _, _, dispatcher = at_students(16, 1, search=GRID, seeds=[1, 2])
    seeds = []
    while bundle := dispatcher.take():
        seeds.append({request.training.seed for request in bundle})
    assert seeds == [{1}, {2}]


# -- what becomes of them ---------------------------------------------------------------------


def test_each_of_a_bundle_whose_worker_is_lost_has_a_try_and_runs_alone_from_then_on() -> None:
    _, ledger, dispatcher = at_students(16, 1, search=GRID)
    bundle = keys(dispatcher.take())
    assert len(bundle) > 1
    for key in bundle:
        dispatcher.lost(key, "killed")
    tries = [attempt for key in bundle for attempt in ledger.attempts_of(key)]
    assert [attempt.fused for attempt in tries] == [len(bundle)] * len(bundle)
    assert dispatcher.wanted == len(bundle)
    assert [len(dispatcher.take()) for _ in bundle] == [1] * len(bundle)


def test_what_failed_in_one_pass_has_all_its_tries_alone() -> None:
    agenda, ledger, dispatcher = at_students(16, 1, search=GRID, tries=1)
    bundle = keys(dispatcher.take())
    for key in bundle:
        ledger.write_attempt(attempt_at(key).model_copy(update={"fused": len(bundle)}))
        dispatcher.done(key)
    assert agenda.results.keys().isdisjoint(bundle)
    assert ledger.results(tries=1).keys().isdisjoint(bundle)
    [first] = keys(dispatcher.take())
    ledger.write_attempt(attempt_at(first))
    dispatcher.done(first)
    assert agenda.results[first] is None


def test_what_failed_under_an_earlier_driver_runs_alone() -> None:
    agenda, ledger, dispatcher = at_students(16, 1, search=GRID)
    bundle = keys(dispatcher.take())
    dispatcher.lost(bundle[0], "killed")
    again = Dispatcher(agenda, ledger)
    sizes = Counter(len(again.take()) for _ in range(2))
    assert sizes == {1: 1, len(bundle) - 1: 1}


def test_a_bundle_that_was_given_up_is_handed_out_again_as_it_was() -> None:
    _, ledger, dispatcher = at_students(16, 1, search=GRID)
    bundle = keys(dispatcher.take())
    for key in bundle:
        dispatcher.release(key)
    assert dispatcher.running == ()
    assert ledger.attempts() == {}
    assert keys(dispatcher.take()) == bundle


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.integers(1, 9),
    slots=st.integers(1, 5),
)
def test_however_bundled_a_search_decides_the_same_and_each_training_runs_once(
    seed: int, most: int, slots: int
) -> None:
    seeds = random.Random(seed).choice([[1], [1, 2]])
    resolved = fused_study(most, seeds=seeds, tries=1, search=GRID)
    alone = resolved.model_copy(update={"fused": None})
    found = [through(each, seed, slots) for each in (resolved, alone)]
    for agenda, runs, _ in found:
        assert agenda.complete
        assert runs == Counter(agenda.results.keys())
    for bundle in found[0][2]:
        assert len(bundle) <= most
        if len(bundle) > 1:
            [common] = {alike(request.training) for request in bundle}
            assert common is not None
    assert {len(bundle) for bundle in found[1][2]} == {1}
    assert found[0][0].views() == found[1][0].views()
    assert found[0][0].results == found[1][0].results


def through(resolved: Resolved, seed: int, slots: int) -> tuple[Agenda, Counter[str], list[Bundle]]:
    """A search to its end, how often each training ran, and what was handed out."""
    world, ledger, runs = World(seed=seed, failing=0.1, diverging=0.1), memory_ledger(resolved), []

    def look_up(training: Training) -> None:
        runs.append(training.key)
        world.commit(ledger, training)

    engine = TabulatedEngine(
        look_up=look_up, seconds=lambda t: uniform(seed, t.key), together=max, slots=slots
    )
    agenda = Agenda(resolved)
    queue = Noting(agenda, ledger, room=lambda: engine.room)
    engine.run(queue)
    return agenda, Counter(runs), queue.bundles


class Noting(Dispatcher):
    """A queue that notes what it hands out."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.bundles: list[Bundle] = []

    def take(self, *args: Any) -> Bundle:
        bundle = super().take(*args)
        if bundle:
            self.bundles.append(bundle)
        return bundle


@pytest.mark.parametrize("slots", [1, 2, 4, 8, 32])
def test_passes_that_pay_make_a_search_faster_on_few_slots_and_hardly_slower_on_any(
    slots: int,
) -> None:
    """A pass of k takes k^0.6 trainings' time: 1.7, 2.3 and 3.0 times faster at 4, 8 and 16."""
    took = []
    for most in (1, 16):
        resolved = fused_study(most, search={**GRID, "alpha": [1, 0.5, 0.1]})
        agenda, ledger, world = Agenda(resolved), memory_ledger(resolved), World(seed=1)
        engine = TabulatedEngine(
            look_up=partial(world.commit, ledger),
            seconds=lambda _: 1.0,
            together=lambda each: sum(each) * len(each) ** -0.4,
            slots=slots,
        )
        engine.run(Dispatcher(agenda, ledger, room=partial(getattr, engine, "room")))
        took.append(engine.clock)
    assert took[1] < took[0] * {1: 0.65, 2: 0.8}.get(slots, 1.1)


def test_the_share_of_a_slot_is_that_of_all_trainings() -> None:
    assert [share_of(9, slots) for slots in (0, 1, 2, 4, 9, 100)] == [9, 9, 5, 3, 1, 1]


# -- the worker -------------------------------------------------------------------------------


def alike_students(count: int) -> list[StudentTraining]:
    return [STUDENT.model_copy(update={"learning_rate": float(i)}) for i in range(1, count + 1)]


def ready(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved_of(a_study()))
    return ledger


def test_a_worker_runs_in_one_pass_those_of_a_bundle_that_have_no_outcome(tmp_path: Path) -> None:
    ledger, trainings = ready(tmp_path), alike_students(3)
    together = TogetherTraining(log=tmp_path / "passes.txt")
    worker = Worker(folder=tmp_path, run_training=made_up_training, run_together=together)
    worker(trainings[1])
    worker(*trainings)
    worker(*trainings)
    assert together.passes() == [[trainings[0].key, trainings[2].key]]
    assert [ledger.outcome(t.key).fused for t in trainings] == [2, 1, 2]


def test_without_a_way_to_train_them_together_a_bundle_is_trained_one_after_the_other(
    tmp_path: Path,
) -> None:
    ready(tmp_path)
    trainings = alike_students(2)
    recorded = RecordedTraining(log=tmp_path / "runs.txt")
    Worker(folder=tmp_path, run_training=recorded)(*trainings)
    assert recorded.runs() == [training.key for training in trainings]


def test_an_error_in_a_bundle_is_a_try_of_each_that_has_no_outcome(tmp_path: Path) -> None:
    ledger, trainings = ready(tmp_path), alike_students(3)
    ledger.write_outcome(made_up_training(trainings[1], tmp_path))
    Worker(folder=tmp_path, run_training=made_up_training).fail(RuntimeError("no"), *trainings)
    tried = [[(a.failure, a.fused) for a in ledger.attempts_of(t.key)] for t in trainings]
    assert tried == [[("error", 3)], [], [("error", 3)]]


def test_of_a_search_that_is_to_drain_no_bundle_begins_and_no_checkpoint_is_lost(
    tmp_path: Path,
) -> None:
    ledger, trainings = ready(tmp_path), alike_students(2)
    ledger.ask_to_stop(drain=True, person=True)
    saved = tmp_path / "progress" / trainings[0].key / f"3-{'0' * 64}.pt"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"x")
    Worker(folder=tmp_path, run_training=made_up_training)(*trainings)
    assert [ledger.outcome(training.key) for training in trainings] == [None, None]
    assert saved.exists()


# -- on a real Ray ----------------------------------------------------------------------------


@dataclass(frozen=True)
class DyingTogether:
    """A `run_together` whose first pass kills its own process."""

    log: Path

    def __call__(self, trainings: Sequence[Training], folder: Path) -> list[Outcome]:
        first = not self.log.exists()
        found = TogetherTraining(log=self.log)(trainings, folder)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def test_a_bundle_that_dies_with_its_worker_is_a_try_of_each_and_they_are_trained_alone(
    tmp_path: Path, cluster: Cluster
) -> None:
    resolved = fused_study(16, search=GRID)
    ledger = Ledger(tmp_path)
    ledger.prepare()
    ledger.write_resolved(resolved)
    together = DyingTogether(log=tmp_path / "passes.txt")
    worker = Worker(folder=tmp_path, run_training=made_up_training, run_together=together)
    agenda = Agenda(resolved)
    engine = RayTuneEngine(worker=worker, cluster=cluster)
    engine.run(Dispatcher(agenda, ledger, room=lambda: engine.room))
    assert agenda.complete
    first, *others = TogetherTraining(log=together.log).passes()
    assert others  # what has not failed is trained in one pass still
    assert ledger.attempts().keys() == set(first)
    assert {a.failure for tried in ledger.attempts().values() for a in tried} == {"worker_lost"}
    by_pass = {key: len(keys) for keys in others for key in keys}
    for key, outcome in agenda.results.items():
        assert outcome is not None
        assert outcome.fused == by_pass.get(key, 1)
    assert not list((tmp_path / "attempts").glob(".*.watchdog"))


# -- how many pay -----------------------------------------------------------------------------


@dataclass
class Paying:
    """Says that as many pay as is asked for, else 8; writes down what was measured."""

    most: int = 8
    asked: list[int | None] = field(default_factory=list)
    models: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, probes: Sequence[Probe], asked: int | None) -> list[int]:
        self.asked.append(asked)
        self.models += [(probe.model.name, probe.data.train) for probe in probes]
        return [asked or self.most for _ in probes]


def launched(folder: Path, pays: Paying, **sections: Any) -> Agenda:
    """As a launch opens a study and measures."""
    ledger, study = Ledger(folder), parse_study(a_study(**sections), place="x")
    agenda = open_study(ledger, study, data_dir=None, place="study.yaml")
    if probes := unmeasured(agenda.resolved):
        measure(agenda, probes, ledger, pays)
    assert ledger.resolved() == agenda.resolved
    return agenda


TWO_STUDENTS = {"one": {"model": "small"}, "other": {"model": "big"}}


def test_the_first_launch_measures_and_no_later_one_does_again(tmp_path: Path) -> None:
    pays = Paying()
    agenda = launched(tmp_path, pays, students=TWO_STUDENTS)
    assert most_fused(agenda.resolved) == {("one", "sentences"): 8, ("other", "sentences"): 8}
    again = launched(tmp_path, Paying(most=2), students=TWO_STUDENTS)
    assert again.resolved == agenda.resolved
    assert [name for name, _ in pays.models] == ["small", "big"]
    assert pays.asked == [None]
    assert (
        fused_words(agenda.resolved)
        == "8 at a time of one on sentences; 8 at a time of other on sentences"
    )


def test_that_nothing_pays_is_fixed_too(tmp_path: Path) -> None:
    agenda = launched(tmp_path, Paying(most=1))
    assert agenda.resolved.fused == Fused(asked="auto", most={"small": {"sentences": 1}})
    assert most_fused(agenda.resolved) == {}
    assert fused_words(agenda.resolved) == ""
    pays = Paying()
    launched(tmp_path, pays)
    assert pays.models == []


def test_of_data_sets_that_a_student_is_trained_on_alike_the_longest_is_measured(
    tmp_path: Path,
) -> None:
    short = {"train": 20, "validation": 10, "test": 10}
    datasets = {"short": {"grammar": short}, "more": {"grammar": {**short, "train": 400}}}
    pays = Paying()
    agenda = launched(tmp_path, pays, datasets=datasets)
    assert len(pays.models) == 1
    assert most_fused(agenda.resolved) == {("small", "short"): 8, ("small", "more"): 8}


def test_of_images_those_of_the_most_pixels_are_measured(tmp_path: Path) -> None:
    small = {
        "task": "image_classification",
        "grammar": {"train": 20, "validation": 10, "test": 10},
    }
    pays = Paying()
    agenda = launched(tmp_path, pays, datasets={"large": {**small, "image_size": 32}, "own": small})
    large = agenda.resolved.datasets["large"].splits["train"].digest
    assert [train for _, train in pays.models] == [large]


def test_a_changed_study_measures_what_is_new_and_keeps_what_is_not(tmp_path: Path) -> None:
    agenda = launched(tmp_path, Paying(most=8))
    begin(agenda, tmp_path)
    pays = Paying(most=4)
    changed = launched(
        tmp_path, pays, students={"small": {"model": "small"}, "big": {"model": "big"}}
    )
    assert [name for name, _ in pays.models] == ["big"]
    assert most_fused(changed.resolved) == {("small", "sentences"): 8, ("big", "sentences"): 4}
    pays = Paying(most=2)
    longer = launched(tmp_path, pays, training={"batch_size": 8})
    assert [name for name, _ in pays.models] == ["small"]
    assert most_fused(longer.resolved) == {("small", "sentences"): 2}


def begin(agenda: Agenda, folder: Path) -> None:
    training = agenda.requests()[0].training
    Ledger(folder).write_outcome(outcome_of(training))


def test_a_number_is_asked_for_as_it_is_and_1_is_never_measured(tmp_path: Path) -> None:
    pays = Paying()
    alone = launched(tmp_path, pays, resources={"fuse": 1})
    assert (pays.models, alone.resolved.fused) == ([], None)
    begin(alone, tmp_path)
    agenda = launched(tmp_path, pays, resources={"fuse": 6})
    assert pays.asked == [6]
    assert most_fused(agenda.resolved) == {("small", "sentences"): 6}
    again = launched(tmp_path, pays, resources={"fuse": 1})
    assert (pays.asked, most_fused(again.resolved)) == ([6], {})
    launched(tmp_path, pays)
    assert pays.asked == [6, None]


@pytest.mark.parametrize("wrong", [0, 65, 1.5, "all", True])
def test_what_is_no_number_of_students_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match=r"resources\.fuse: must be auto, or how many students"):
        parse_study(a_study(resources={"fuse": wrong}), place="study.yaml")


def test_a_deadline_counts_with_the_whole_pass() -> None:
    agenda = Agenda(resolved_of(a_study()))
    cost = COST.model_copy(update={"seconds": 3.0})
    agenda.add(STUDENT.key, outcome_of(STUDENT, cost=cost, fused=4))
    assert agenda.longest["student"] == 12.0
    [roles] = agenda.durations().values()
    assert roles["student"] == 3.0


# -- with torch -------------------------------------------------------------------------------

ONE_ROUND = {
    "distance": ["ce"],
    "teacher": ["t_hs"],
    "student_temperature": ["tied"],
    "alpha": [1],
    "temperature": {"broad": [1, 4]},
    "learning_rate": [1e-2, 5e-3],
}


def searched(folder: Path, most: int) -> tuple[Ledger, Agenda]:
    """A search of real trainings in this process, of which so many run in one pass."""
    teacher = {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 3}}
    ledger, agenda = begin_study(
        folder, tiny_study(search=ONE_ROUND, teachers={"big": teacher}, resources={})
    )
    measure(agenda, unmeasured(agenda.resolved), ledger, Paying(most=most))
    worker = Worker(folder=folder, run_training=run_training, run_together=run_together)
    InProcessEngine(worker=worker).run(Dispatcher(agenda, ledger))
    return ledger, agenda


def test_a_search_of_fused_students_finds_what_one_of_students_alone_does(tmp_path: Path) -> None:
    _, alone = searched(tmp_path / "alone", 1)
    ledger, agenda = searched(tmp_path / "study", 8)
    assert agenda.results.keys() == alone.results.keys()
    passes: Counter[int] = Counter()
    for key, outcome in agenda.results.items():
        other = alone.results[key]
        assert outcome is not None
        assert other is not None
        assert other.fused == 1
        passes[outcome.fused] += outcome.training.kind == "student"
        found, expected = ([e.train_loss for e in each.epochs] for each in (outcome, other))
        assert found == pytest.approx(expected, abs=1e-4)
        scores = ("validation", "test", "best_epoch", "parameters", "metric")
        assert [getattr(outcome, n) for n in scores] == [getattr(other, n) for n in scores]
    assert max(passes) > 1
    assert all(number % fused == 0 for fused, number in passes.items())
    assert agenda.views() == alone.views()

    # One that is made again is trained alone, and need not be the same to the bit.
    [view] = agenda.views()
    assert view.chosen is not None
    key = agenda.training(view, view.chosen).key
    outcome = ledger.outcome(key)
    assert outcome is not None
    assert outcome.fused > 1
    weights = ledger.folder / "students" / key / "model.safetensors"
    before = load_file(weights)
    shutil.rmtree(weights.parent)
    result = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "student")
    assert result.code == 0, result
    assert f"which takes up to {outcome.cost.seconds * outcome.fused:.0f} s" in result.out
    after = load_file(tmp_path / "student" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        # A key's bias has no gradient but round-off, which Adam makes steps of.
        tolerance = 0.1 if name.endswith("key.bias") else 1e-4
        assert torch.allclose(after[name], value, atol=tolerance), name
    assert ledger.intact(outcome, f"students/{key}")
    assert kdsearch("verify", ledger.folder).code == 0
