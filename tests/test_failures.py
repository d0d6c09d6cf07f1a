"""What becomes of a training that fails: the policy, and Ray's traps on a real local Ray."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import ray
from fakes import (
    KEY,
    SMALL_GRID,
    a_study,
    attempt_at,
    made_up_training,
    memory_ledger,
    outcome_of,
    resolved_of,
)
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import OutOfMemoryError, RaySystemError
from test_cli import fill, small_disk

from kdsearch.agenda import (
    Agenda,
    Attempt,
    Bundle,
    Failure,
    Outcome,
    Training,
    failed_for_good,
)
from kdsearch.driver import Dispatcher
from kdsearch.engine import EngineError, RunTraining, Worker
from kdsearch.engine.ray_tune import Cluster, Needs, RayTuneEngine
from kdsearch.errors import InputError, MemoryExhaustedError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Role

pytestmark = pytest.mark.undisturbed

NEEDED = dict.fromkeys(ROLES, Needs(resources={"CPU": 1}))

FAILURES: tuple[Failure, ...] = get_args(Failure)


def ready(folder: Path, **sections: Any) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved_of(a_study(search=SMALL_GRID, **sections)))
    return ledger


def search(
    ledger: Ledger, run_training: RunTraining, cluster: Cluster, seconds: float = 3600
) -> Agenda:
    agenda = Agenda(ledger.resolved(), ledger.results())
    worker = Worker(folder=ledger.folder, run_training=run_training)
    RayTuneEngine(worker=worker, cluster=cluster, seconds=seconds).run(Dispatcher(agenda, ledger))
    return agenda


def failures_of(ledger: Ledger) -> list[Failure]:
    return [attempt.failure for tried in ledger.attempts().values() for attempt in tried]


# -- the policy --------------------------------------------------------------------------------


def tried(*failures: Failure, steps: Sequence[int] = ()) -> list[Attempt]:
    counts = steps or [0] * len(failures)
    return [
        Attempt(key=KEY, number=n, failure=failure, message="", host="here", steps=count)
        for n, (failure, count) in enumerate(zip(failures, counts, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("failures", "tries", "for_good"),
    [
        ((), 1, False),
        (("error",), 1, True),
        (("error",), 2, False),
        (("error", "timeout"), 2, True),
        (("host_oom", "host_oom"), 2, True),
        (("gpu_oom",), 1, False),
        (("gpu_oom", "gpu_oom"), 9, True),
        (("worker_lost",) * 2, 1, False),
        (("worker_lost",) * 3, 9, True),
        (("preempted",) * 9, 1, False),
        (("preempted",) * 10, 1, True),
        (("storage", "input") * 9, 1, False),
    ],
)
def test_each_class_of_failure_has_its_number_of_tries(
    failures: tuple[Failure, ...], tries: int, for_good: bool
) -> None:
    assert failed_for_good(tried(*failures), tries) is for_good


@pytest.mark.parametrize("failure", FAILURES)
def test_a_try_in_one_pass_with_others_counts_for_nothing(failure: Failure) -> None:
    together = [each.model_copy(update={"fused": 8}) for each in tried(failure, steps=[9])]
    assert not failed_for_good(together, 1)
    alone = tried(*["worker_lost"] * 3)
    assert failed_for_good([*together, *alone], 1)


def test_a_lost_worker_does_not_count_while_the_checkpoints_get_on() -> None:
    lost = tried(*["worker_lost"] * 5, steps=[0, 0, 7, 7, 9])
    assert not failed_for_good(lost, 1)
    assert failed_for_good([*lost, *tried("worker_lost", "worker_lost", steps=[9, 9])], 1)


@given(st.lists(st.tuples(st.sampled_from(FAILURES), st.integers(0, 3))), st.integers(1, 4))
def test_a_training_that_has_failed_for_good_stays_so_and_no_failure_repeats_for_ever(
    seen: list[tuple[Failure, int]], tries: int
) -> None:
    steps = sorted(count for _, count in seen)  # a checkpoint is never taken back
    attempts = tried(*(failure for failure, _ in seen), steps=steps)
    decided = [failed_for_good(attempts[:n], tries) for n in range(len(attempts) + 1)]
    stuck = len(set(steps)) <= 1
    if stuck:
        assert decided == sorted(decided)
    for failure in FAILURES:
        again = [*attempts, *tried(*[failure] * 20, steps=[99] * 20)]
        assert failed_for_good(again, tries) or failure in ("storage", "input")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RuntimeError("no"), "error"),
        (MemoryExhaustedError("CUDA out of memory", gpu=True), "gpu_oom"),
        (MemoryExhaustedError("no memory", gpu=False), "host_oom"),
        (StorageError("full"), "storage"),
        (InputError.one("x", "is wrong"), "input"),
    ],
)
def test_a_worker_tells_the_class_of_its_failure_with_the_traceback_in_a_file(
    tmp_path: Path, error: Exception, failure: Failure
) -> None:
    ledger = ready(tmp_path)
    training = Agenda(ledger.resolved()).requests()[0].training
    try:
        raise error
    except Exception as caught:
        Worker(folder=tmp_path, run_training=made_up_training).fail(caught, training)
    [attempt] = ledger.attempts_of(training.key)
    assert attempt.failure == failure
    text = (tmp_path / "attempts" / training.key / "1.txt").read_text()
    assert text.startswith("Traceback (most recent call last)")
    assert str(error) in text


def test_what_is_forgiven_counts_no_more_and_stays_on_the_disk() -> None:
    ledger = memory_ledger(resolved_of(a_study(tries=1)))
    ledger.write_attempt(attempt_at(KEY, "first"))
    assert ledger.results() == {KEY: None}
    ledger.forgive(KEY)
    assert ledger.results() == {}
    assert ledger.attempts() == {}
    ledger.write_attempt(attempt_at(KEY, "second"))
    assert [(a.number, a.message) for a in ledger.attempts_of(KEY)] == [(2, "second")]


# -- Ray's traps -------------------------------------------------------------------------------


@dataclass(frozen=True)
class HangingTraining:
    """The teacher's training hangs."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        if training.kind == "teacher":
            time.sleep(3600)
        return made_up_training(training, folder)


def test_a_training_that_hangs_is_ended_and_says_where_it_hung(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path, tries=1)
    agenda = search(ledger, HangingTraining(), cluster, seconds=2)
    assert agenda.complete
    [[attempt]] = ledger.attempts().values()
    assert attempt.failure == "timeout"
    assert "resources.hours" in attempt.message
    assert "test_failures.py" in attempt.traceback
    assert "in __call__" in attempt.traceback


@dataclass(frozen=True)
class KilledForMemory:
    """The first try of each teacher's training ends as Ray's memory monitor ends a process."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        mark = folder / "attempts" / f".{training.key}.mark"
        if training.kind == "teacher" and not mark.exists():
            mark.touch()
            held = []
            while True:  # until the monitor of a small share of the memory sees it
                held.append(b"x" * 2**26)
                time.sleep(0.02)  # as fast as may be, and the kernel could be first
        return made_up_training(training, folder)


MONITORED = """
import sys
from pathlib import Path
import ray
from test_failures import NEEDED, KilledForMemory, ready, search
from kdsearch.engine.ray_tune import Cluster
threshold = float(sys.argv[2])
ray.init("local", num_cpus=1, include_dashboard=False, _system_config={
    "memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100})
cluster = Cluster(dashboard=None, token=None, needed=NEEDED, slots=1)
agenda = search(ready(Path(sys.argv[1]), tries=2), KilledForMemory(), cluster)
assert agenda.complete and all(agenda.results.values())
"""


def test_what_rays_memory_monitor_kills_is_a_failed_try_and_not_the_end_of_the_run(
    tmp_path: Path,
) -> None:
    psutil = pytest.importorskip("psutil")
    memory = psutil.virtual_memory()
    # The second try is to live, whatever the tests take meanwhile that run beside this one.
    threshold = (memory.total - memory.available + 5 * 2**30) / memory.total
    if threshold > 0.9:
        pytest.skip("this machine has too little free memory to let some run out")
    found = subprocess.run(
        [sys.executable, "-c", MONITORED, str(tmp_path), f"{threshold:.3f}"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert failures_of(Ledger(tmp_path)) == ["host_oom"]


def test_the_error_of_rays_memory_monitor_is_not_one_that_tune_understands() -> None:
    # When this fails, Tune has learnt it, and `_every_loss_is_an_actors` need not translate it.
    assert not issubclass(OutOfMemoryError, ray.exceptions.RayActorError)
    assert not issubclass(OutOfMemoryError, ray.exceptions.RayTaskError)


@dataclass(frozen=True)
class DeadlyTraining:
    """A training that cannot even be brought to a worker process: it dies as it comes up."""

    driver: int

    def __call__(self, training: Training, folder: Path) -> Outcome:
        raise AssertionError("no process comes up to run it")

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in, (self.driver,)


def _only_in(driver: int) -> DeadlyTraining:
    if os.getpid() != driver:
        os._exit(1)
    return DeadlyTraining(driver)


def test_worker_processes_that_die_at_their_start_end_the_search_and_are_no_tries(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path)
    with pytest.raises(EngineError, match="worker processes die on start"):
        search(ledger, DeadlyTraining(os.getpid()), cluster)
    assert ledger.attempts() == {}
    assert search(ledger, made_up_training, cluster).complete


@pytest.mark.timeout(60)
def test_a_search_with_nothing_left_to_do_ends(tmp_path: Path, cluster: Cluster) -> None:
    ledger = ready(tmp_path)
    agenda = Agenda(ledger.resolved())
    while requests := agenda.requests():
        outcome = outcome_of(requests[0].training, 0.5)
        ledger.write_outcome(outcome)
        agenda.add(outcome.key, outcome)
    assert search(ledger, HangingTraining(), cluster).complete
    ledger.ask_to_stop(drain=True, person=True)
    search(ready(tmp_path / "other"), made_up_training, cluster)


@dataclass(frozen=True)
class WaitingTraining:
    """The first try of the teacher's training waits until its node is taken from under it."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        mark = folder / "attempts" / f".{training.key}.mark"
        if training.kind == "teacher" and not mark.exists():
            mark.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(3600)
        return made_up_training(training, folder)


NODES = """
import sys, threading, time
from contextlib import suppress
from pathlib import Path
from kdsearch.engine.ray_tune import Cluster  # before Ray, which reads a setting of ours
from kdsearch.engine.ray_tune.pool import draining
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster as Nodes
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.exceptions import RayError
from test_failures import NEEDED, WaitingTraining, ready, search
folder = Path(sys.argv[1])
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=nodes.address)
others = [nodes.add_node(num_cpus=1) for _ in range(2)]
drained = {}

def take_away():
    while not (marks := list((folder / "attempts").glob(".*.mark"))):
        time.sleep(0.1)
    time.sleep(1)
    [node] = [node for node in others if node.node_id == marks[0].read_text()]
    if sys.argv[2] == "preempted":
        why = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        until = int(time.time() * 1000) + 500
        accepted, _ = GcsClient(address=nodes.address).drain_node(node.node_id, why, "", until)
        assert accepted
        while not drained:
            with suppress(RayError):  # it gave no answer in time
                drained[node.node_id] = list(draining())
        time.sleep(1)
    nodes.remove_node(node, allow_graceful=False)

ledger = ready(folder, tries=1)
threading.Thread(target=take_away, daemon=True).start()
cluster = Cluster(dashboard=None, token=None, needed=NEEDED, slots=1)
agenda = search(ledger, WaitingTraining(), cluster)
assert agenda.complete and all(agenda.results.values())
assert bool(drained) == (sys.argv[2] == "preempted")
assert all(said == [node] for node, said in drained.items())
"""


@pytest.mark.parametrize("how", ["killed", pytest.param("preempted", marks=pytest.mark.slow)])
def test_a_training_whose_node_went_away_is_tried_again_and_that_is_no_try_of_it(
    tmp_path: Path, how: str
) -> None:
    command = [sys.executable, "-c", NODES, str(tmp_path), how]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stdout + found.stderr
    assert failures_of(Ledger(tmp_path)) == ["preempted"]
    assert "is being restarted" not in found.stderr
    assert "(raylet)" not in found.stdout + found.stderr  # Ray's own words of it


class FlickeringQueue(Dispatcher):
    """A queue of which one question is not answered the second time that it is asked."""

    def __init__(self, agenda: Agenda, ledger: Ledger, question: str, error: Exception) -> None:
        super().__init__(agenda, ledger)
        self._question = question
        self._error = error
        self._asked = Counter[str]()

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        self._ask("take")
        return super().take(roles)

    @property
    def complete(self) -> bool:
        self._ask("complete")
        return super().complete

    def _ask(self, question: str) -> None:
        self._asked[question] += 1
        if question == self._question and self._asked[question] == 2:
            raise self._error


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("take", RaySystemError("no answer")),
        ("complete", KeyError("trial")),  # asked for by Tune, in whose loop it is raised
    ],
)
def test_a_passing_error_of_rays_or_tunes_does_not_end_a_search(
    tmp_path: Path,
    cluster: Cluster,
    question: str,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = ready(tmp_path)
    agenda = Agenda(ledger.resolved())
    worker = Worker(folder=tmp_path, run_training=made_up_training)
    queue = FlickeringQueue(agenda, ledger, question, error)
    RayTuneEngine(worker=worker, cluster=cluster).run(queue)
    assert agenda.complete
    assert all(agenda.results.values())
    assert ledger.attempts() == {}
    [line] = [r.getMessage() for r in caplog.records if "is being restarted" in r.getMessage()]
    assert str(error) in line


def test_a_full_disk_under_tunes_notes_ends_a_search_with_words_that_name_it(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ready(tmp_path / "run")
    worker = Worker(folder=ledger.folder, run_training=made_up_training)
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        fill(disk)
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(StorageError, match=f"^{re.escape(str(disk))}: the disk is full"):
            RayTuneEngine(worker=worker, cluster=cluster).run(
                Dispatcher(Agenda(ledger.resolved()), ledger)
            )


@dataclass(frozen=True)
class UnluckyTraining:
    """The first training of a student raises an error, and the process of the second is lost."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        if training.kind == "student":
            if self._is_first(folder / "attempts" / ".raised"):
                raise RuntimeError("cannot train a student")
            if self._is_first(folder / "attempts" / ".lost"):
                os.kill(os.getpid(), signal.SIGKILL)
        return made_up_training(training, folder)

    def _is_first(self, mark: Path) -> bool:
        with suppress(FileExistsError):
            mark.touch(exist_ok=False)
            return True
        return False


SHOWN = """
import sys
from pathlib import Path
from rich.console import Console
from kdsearch.engine.ray_tune import RayTuneEngine, connect
from kdsearch.study import Resources
from kdsearch.driver import run_search
from test_failures import *
ledger = ready(Path(sys.argv[1]), tries=1)
with connect(sys.argv[2], resources=Resources(cpus=1, gpus=0), threads=1) as cluster:
    agenda = Agenda(ledger.resolved(), ledger.results())
    worker = Worker(folder=ledger.folder, run_training=UnluckyTraining())
    engine = RayTuneEngine(worker=worker, cluster=cluster)
    run_search(agenda, ledger, engine, console=Console(soft_wrap=True))
"""


def test_each_failed_try_is_one_line_and_rays_tracebacks_are_not_shown(
    tmp_path: Path, there: str
) -> None:
    command = [sys.executable, "-c", SHOWN, str(tmp_path), there]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    attempts = [each for tried in Ledger(tmp_path).attempts().values() for each in tried]
    assert {each.failure for each in attempts} == {"error", "worker_lost"}
    lines = found.stdout.splitlines()
    for attempt in attempts:
        of_it = [line for line in lines if attempt.key in line]
        assert len(of_it) == sum(each.key == attempt.key for each in attempts)
        what = f"({attempt.failure} on {socket.gethostname()}): {attempt.message}; see attempts/"
        assert all(what in line for line in of_it)
    for words in ("Traceback", "Trials did not complete", "A worker died", "ERROR"):
        assert words not in found.stdout + found.stderr
    errors = [each.key for each in attempts if each.failure == "error"]
    for key in errors:
        assert "Traceback" in (tmp_path / "attempts" / key / "1.txt").read_text()
