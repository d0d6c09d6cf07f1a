"""The Ray engine on a real local Ray: what holds for it alone. See test_engines.py for the rest."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import SLOTS, TOKEN
from fakes import SMALL_GRID, FailingTraining, a_study, listening, made_up_training, resolved_of

from kdsearch.agenda import Agenda, Bundle, Failure, Outcome, Training
from kdsearch.driver import Dispatcher
from kdsearch.engine import RunTraining, Worker
from kdsearch.engine.ray_tune import Cluster, RayTuneEngine, connect
from kdsearch.engine.ray_tune.room import local_room
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Resources, Role

pytestmark = pytest.mark.undisturbed


TWO_STUDENTS = {"one": {"model": "small"}, "other": {"model": "big"}}


def ready(folder: Path, study: dict[str, Any] | None = None) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved_of(study or a_study(search=SMALL_GRID)))
    return ledger


def search(ledger: Ledger, run_training: RunTraining, cluster: Cluster) -> Agenda:
    agenda = Agenda(ledger.resolved(), ledger.results())
    worker = Worker(folder=ledger.folder, run_training=run_training)
    RayTuneEngine(worker=worker, cluster=cluster).run(Dispatcher(agenda, ledger))
    return agenda


@dataclass(frozen=True)
class TimedTraining:
    """Takes a while, and writes down when and where it ran."""

    seconds: float

    def __call__(self, training: Training, folder: Path) -> Outcome:
        begin = time.monotonic()
        time.sleep(self.seconds)
        note = {"pid": os.getpid(), "begin": begin, "end": time.monotonic()}
        (folder / f"{training.key}.{training.kind}.time").write_text(json.dumps(note))
        return made_up_training(training, folder)


@dataclass(frozen=True)
class DyingTraining:
    """The first try of each teacher's training kills its own process."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        mark = folder / f"{training.key}.died"
        if training.kind == "teacher" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made_up_training(training, folder)


def test_every_slot_is_busy_while_there_is_work_for_it(tmp_path: Path, cluster: Cluster) -> None:
    assert cluster.slots == SLOTS
    # Shorter than the start of a worker process: with Tune's own scheduler one slot does it all.
    search_space = {"alpha": [1, 0.5], "temperature": {"broad": [1, 4]}, "learning_rate": [1e-5]}
    study = a_study(students=TWO_STUDENTS, search=search_space)
    search(ready(tmp_path, study), TimedTraining(seconds=0.5), cluster)
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("*.student.time")]
    assert len({note["pid"] for note in notes}) >= SLOTS
    # At the middle of each student's training, how many trainings run? Rounds end with a few
    # alone, when what is left of a grid does not fill all slots.
    middles = [(note["begin"] + note["end"]) / 2 for note in notes]
    running = [sum(n["begin"] <= middle <= n["end"] for n in notes) for middle in middles]
    assert max(running) == SLOTS
    assert sum(count == SLOTS for count in running) > len(running) / 2


def test_workers_are_reused_from_training_to_training(tmp_path: Path, cluster: Cluster) -> None:
    agenda = search(ready(tmp_path), TimedTraining(seconds=0.0), cluster)
    pids = {json.loads(path.read_text())["pid"] for path in tmp_path.glob("*.time")}
    assert len(pids) < len(agenda.results) / 3


def test_a_worker_that_dies_is_an_attempt_and_its_training_is_tried_again(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path)
    agenda = search(ledger, DyingTraining(), cluster)
    [attempts] = ledger.attempts().values()
    assert [attempt.failure for attempt in attempts] == ["worker_lost"]
    assert agenda.complete
    assert all(agenda.results.values())


def test_a_training_that_fails_is_tried_as_often_as_the_study_says_and_keeps_its_traceback(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path)
    agenda = search(ledger, FailingTraining(kind="teacher"), cluster)
    [attempts] = ledger.attempts().values()
    assert [attempt.failure for attempt in attempts] == ["error"] * ledger.resolved().study.tries
    assert "cannot train a teacher" in attempts[0].traceback
    assert agenda.complete
    assert [view.blocked for view in agenda.views()] == ["no training of its teacher succeeded"]


@dataclass(frozen=True)
class TrainingOnFullDisk:
    """The disk has no room for the outputs of the teacher."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        if training.kind == "outputs":
            raise StorageError("outputs: the disk is full")
        return made_up_training(training, folder)


def test_a_full_disk_stops_the_search_and_is_no_try_of_the_training(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path, a_study(search=SMALL_GRID, tries=1))
    with pytest.raises(StorageError, match="the disk is full"):
        search(ledger, TrainingOnFullDisk(), cluster)
    agenda = search(ledger, made_up_training, cluster)
    assert agenda.complete
    assert all(agenda.results.values())


@dataclass
class BrokenQueue:
    """A queue whose disk fills up when it is told of a result."""

    queue: Dispatcher

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        return self.queue.take(roles)

    def done(self, key: str) -> None:
        raise StorageError("the disk is full")

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        raise StorageError("the disk is full")

    def release(self, key: str) -> None:
        self.queue.release(key)

    @property
    def finished(self) -> int:
        return self.queue.finished

    @property
    def complete(self) -> bool:
        return self.queue.complete

    @property
    def wanted(self) -> int:
        return self.queue.wanted

    @property
    def ready(self) -> Iterable[Role]:
        return self.queue.ready

    @property
    def ahead(self) -> Collection[str]:
        return self.queue.ahead


def test_an_error_in_a_hook_ends_the_search_with_that_error_and_repeats_nothing(
    tmp_path: Path, cluster: Cluster
) -> None:
    ledger = ready(tmp_path)
    queue = BrokenQueue(Dispatcher(Agenda(ledger.resolved()), ledger))
    worker = Worker(folder=tmp_path, run_training=TimedTraining(seconds=0.0))
    with pytest.raises(StorageError, match="the disk is full"):
        RayTuneEngine(worker=worker, cluster=cluster).run(queue)
    assert len(list(tmp_path.glob("*.time"))) == 1


# -- the whole command, killed ------------------------------------------------------------------

TINY = """
name: tiny
datasets:
  grammar: {grammar: {train: 200, validation: 60, test: 60}}
models:
  tiny:
    config: {model_type: bert, num_hidden_layers: 1, hidden_size: 16, num_attention_heads: 2,
             intermediate_size: 16, max_position_embeddings: 32}
teachers:
  tiny: {model: tiny, fine_tune: {learning_rate: [1e-3]}}
students:
  tiny: {model: tiny}
search:
  inner: coordinate
  temperature: {broad: [1, 4]}
  learning_rate: [1e-3, 2e-3]
  alpha: [1, 0.5]
training: {epochs: 2, max_length: 32, precision: fp32}
"""


SHORT = (
    TINY.replace("[1e-3, 2e-3]", "[1e-3]")
    .replace("alpha: [1, 0.5]", "alpha: [1]")
    .replace(
        "search:", "search:\n  distance: [ce]\n  teacher: [t_hs]\n  student_temperature: [tied]"
    )
)
"""Six students in all."""
ONE_SLOT = f"resources: {{cpus: {os.cpu_count()}, fuse: 1}}\n"
"""Of a Ray on this machine, whose one process imports torch."""


def launch(folder: Path, *options: str, study: str = TINY) -> subprocess.Popen[str]:
    path = folder / "tiny.yaml"
    path.write_text(study)
    command = [sys.executable, "-m", "kdsearch", "launch", str(path)]
    command += [] if "--address" in options else ["--address", "local"]
    return subprocess.Popen(
        [*command, "--folder", str(folder / "run"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | (TOKEN if options else {}),
    )


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """What a command says until, and with, the line that has these words."""
    assert process.stdout is not None
    lines: list[str] = []
    while words not in (lines or [""])[-1]:
        lines.append(process.stdout.readline())
        assert process.poll() is None, "".join(lines)
    return lines


def wait_for_outcomes(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list((folder / "run" / "outcomes").glob("*.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "run" / "outcomes").glob("*.json")}


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A folder such as some clusters have for temporary files."""
    found = tmp_path / "slurm_jobdir" / "project-distillation" / "user" / "1355700" / "scratch"
    found.mkdir(parents=True)
    return found


def test_a_ray_tmpdir_too_long_for_sockets_is_refused(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    words = f"^RAY_TMPDIR: is too long for Ray's sockets: {long}"
    local = connect(None, resources=Resources(cpus=1, gpus=0), threads=1)
    with pytest.raises(InputError, match=words), local:
        pass


LOCAL = """
from kdsearch.engine.ray_tune import connect
from kdsearch.study import Resources
with connect(None, resources=Resources(cpus=1, gpus=0), threads=1):
    print("connected")
"""


def test_a_tmpdir_too_long_for_sockets_is_gone_around(long: Path) -> None:
    command = [sys.executable, "-c", LOCAL]
    environment = os.environ | {"TMPDIR": str(long)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [
        "TMPDIR is too long for Ray's sockets: using /tmp instead",
        "connected",
    ]


@dataclass(frozen=True)
class Killed:
    """A search that was killed on a Ray of its own, and went on to its end on one at an address."""

    folder: Path
    kept: dict[str, bytes]
    output: str


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, address: str) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    one_slot = ONE_SLOT.replace("fuse: 1", "fuse: 4")
    first = launch(folder, study=SHORT + one_slot)
    wait_for_outcomes(folder, 4, first)
    first.kill()
    first.communicate(timeout=60)
    kept = contents(folder)
    second = launch(folder, "--address", address, study=f"{SHORT}resources: {{fuse: 4}}\n")
    output, _ = second.communicate(timeout=400)
    assert second.returncode == 0, output
    return Killed(folder, kept, output)


def test_a_search_that_was_killed_goes_on_and_repeats_no_finished_training(killed: Killed) -> None:
    found = re.search(r"resuming: (\d+) trainings already done", killed.output)
    assert found is not None
    assert int(found[1]) >= len(killed.kept)  # a worker may have outlived its driver by a moment
    assert killed.kept.items() <= contents(killed.folder).items()
    ledger = Ledger(killed.folder / "run")
    assert Agenda(ledger.resolved(), ledger.results()).complete
    assert not ledger.attempts()
    assert "measuring" not in killed.output  # the first launch did
    assert max(outcome.fused for outcome in ledger.outcomes()) > 1


def test_a_search_uses_the_ray_at_the_address_it_is_given(killed: Killed) -> None:
    assert "1 training at once" in killed.output
    assert "The study is complete" in killed.output
    assert "Trial" not in killed.output  # Tune tells nobody of its own affairs


def home_with_token(folder: Path, token: str) -> dict[str, str]:
    """The environment of someone who has that token in their home."""
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text(token)
    return os.environ | {"HOME": str(folder)}


def test_without_an_address_ray_address_decides_and_a_token_that_lies_ready_is_used(
    tmp_path: Path, address: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "launch", "tiny.yaml"],
        cwd=tmp_path,
        env=home_with_token(tmp_path, TOKEN["RAY_AUTH_TOKEN"]) | {"RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = lines_until(process, f"Ray: the cluster at {address} (RAY_ADDRESS);")
    assert "InvalidAuthToken" not in "".join(lines)
    process.terminate()
    process.communicate(timeout=20)


CONNECT = """
import sys
from kdsearch.engine.ray_tune import connect
from kdsearch.errors import InputError
from kdsearch.study import Resources
try:
    with connect(sys.argv[1], resources=Resources(gpus=0), threads=1, source="RAY_ADDRESS"):
        pass
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(("token", "more"), [("f" * 64, {}), ("", {"RAY_AUTH_MODE": "token"})])
def test_a_token_that_a_cluster_does_not_take_is_said_in_words(
    tmp_path: Path, address: str, token: str, more: dict[str, str]
) -> None:
    environment = home_with_token(tmp_path, token) | more
    command = [sys.executable, "-c", CONNECT, address]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    words = f"RAY_ADDRESS {address}: asks for a token, and accepts none"
    assert found.stdout.startswith(words), found
    assert "InvalidAuthToken" not in found.stdout + found.stderr


def test_a_launch_that_waits_for_room_says_so_once_and_stops_in_words(
    tmp_path: Path, address: str
) -> None:
    process = launch(tmp_path, "--address", address, study=TINY + "resources: {cpus: 7}\n")
    lines_until(process, "waiting for a node with room for 7 CPU: 1 node so far")
    time.sleep(2.5)  # looked at again and again
    process.terminate()
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "waiting" not in rest
    assert "stopped; what was finished is kept" in rest
    assert "SIGTERM" not in rest


DEMAND = """
import sys, time
import ray
from ray.util import placement_group_table
ray.init(address=sys.argv[1], logging_level="ERROR")
while {each["state"] for each in placement_group_table().values()} - {"REMOVED"} != {*sys.argv[2:]}:
    time.sleep(0.2)
"""


def test_a_launch_that_was_killed_while_it_waits_leaves_no_demand(
    tmp_path: Path, address: str
) -> None:
    def wait_for(*states: str) -> None:
        command = [sys.executable, "-c", DEMAND, address, *states]
        subprocess.run(command, timeout=180, env=os.environ | TOKEN, check=True)

    process = launch(tmp_path, "--address", address, study=TINY + "resources: {cpus: 7}\n")
    wait_for("PENDING")
    process.kill()
    process.communicate(timeout=20)
    wait_for()


@pytest.mark.parametrize("wrong", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999999"])
def test_an_address_without_a_ray_is_refused_in_words(wrong: str) -> None:
    with (
        pytest.raises(InputError, match="cannot reach a Ray"),
        connect(wrong, resources=Resources(cpus=1, gpus=0), threads=1),
    ):
        pass


OTHERS = """
import json, sys
from kdsearch.engine.ray_tune import connect
from kdsearch.errors import InputError
from kdsearch.study import Resources
from ray._common.usage import usage_constants, usage_lib
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster as Nodes
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
client = GcsClient(address=nodes.address)
there = usage_lib.get_cluster_metadata(client)
for other in [{"ray_version": "1.2.3"}, {"python_version": "3.0.1"}]:
    plain = json.dumps(there | other).encode()
    client.internal_kv_put(usage_constants.CLUSTER_METADATA_KEY, plain, True, KV_NAMESPACE_CLUSTER)
    try:
        with connect(nodes.address, resources=Resources(cpus=1, gpus=0), threads=1):
            pass
    except InputError as error:
        print(error)
"""


def test_a_ray_that_says_it_is_of_another_version_or_on_another_python_is_refused_with_both() -> (
    None
):
    command = [sys.executable, "-c", OTHERS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    ray_line, python_line = found.stdout.splitlines()
    here = platform.python_version()
    assert f": runs Ray 1.2.3, but this machine has Ray {ray.__version__} " in ray_line
    assert f": runs Python 3.0.1, but this machine has Python {here} " in python_line
    assert found.stdout.count("(install exactly the same versions of Ray and Python on both") == 2


def test_a_ray_that_takes_connections_and_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_py_gcs_connect_timeout_s", "RAY_gcs_rpc_server_connect_timeout_s"):
        monkeypatch.setenv(name, "1")
    with listening() as url:
        address = url.removeprefix("http://")
        connection = connect(address, resources=Resources(cpus=1, gpus=0), threads=1)
        with pytest.raises(InputError, match=r"cannot reach a Ray: .*Timed out"), connection:
            pass


def test_a_training_that_asks_for_more_than_the_machine_has_is_refused_in_words(
    cluster: Cluster,
) -> None:
    words = "a training asks for 1000 CPU; this machine does not have that"
    with pytest.raises(InputError, match=words):
        local_room(Resources(cpus=1000), threads=1)
