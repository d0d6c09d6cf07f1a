"""The batch script under a real Slurm of two nodes, with stand-ins for Ray and kdsearch."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from kdsearch.ledger import Ledger

pytestmark = pytest.mark.undisturbed

SCRIPT = Path(__file__).resolve().parents[1] / "cluster" / "slurm.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo")

# As `ray symmetric-run` does: the command on the first node, and the others until it has ended.
RAY = """#!/bin/bash
[ "$1" = symmetric-run ] || exit 0
printf '%s\\n' "$@" > "$CALLS/ray-$SLURMD_NODENAME"
over=$CALLS/over-${SLURM_RESTART_COUNT:-0}
if [ "$SLURM_NODEID" = 0 ]; then
  until [ "$1" = -- ]; do shift; done
  shift
  [ -e "$CALLS/no-ray" ] && exit 0
  [ -e "$CALLS/killed" ] && kill -USR1 $$
  "$@"
  status=$?
  touch "$over"
  exit "$status"
fi
until [ -e "$over" ]; do sleep 0.1; done
"""

# A launch ends as $CALLS/end says, as soon as that is there, or when it is asked to stop, unless
# $CALLS/slow is there; its code says then whether it would go on if it were tried again.
KDSEARCH = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS/kdsearch"
case $1 in
  stop) cp "$CALLS/drain.json" "$2/stop.json" ;;
  launch)
    until [ -e "$CALLS/end" ] || [ -e "$FOLDER/stop.json" ]; do sleep 0.1; done
    until [ -e "$CALLS/end" ] || [ ! -e "$CALLS/slow" ]; do sleep 0.1; done
    grep -qs '"person": true' "$FOLDER/stop.json" && exit 0
    [ -e "$FOLDER/stop.json" ] && exit 1
    . "$CALLS/end" ;;
esac
"""


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Returns when `what` holds."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment for commands of a Slurm of two nodes with four GPUs each, or so it thinks."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)}")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons are started by root")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    for number in range(4):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={folder}/gpu[0-3]\n")
    (folder / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 Gres=gpu:4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 Gres=gpu:4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
    daemons = [
        [
            "munged",
            "--foreground",
            "--force",
            *(f"--{option}={folder}/munge.{name}" for option, name in files.items()),
            f"--seed-file={folder}/munge.seed",
        ],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "n1"],
        ["slurmd", "-D", "-N", "n2"],
    ]
    running = []
    try:
        for command in daemons:
            with (folder / f"daemon{len(running)}.out").open("w") as out:
                running.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
                )
            if command[0] == "munged":
                wait_for(lambda: (folder / "munge.socket").exists())
        try:
            idle = ("sinfo", "--noheader", "--format=%D %T")
            wait_for(lambda: ask(environment, *idle) == "2 idle\n", seconds=30)
        except AssertionError:
            said = "".join(path.read_text() for path in sorted(folder.glob("daemon*.out")))
            pytest.skip(f"Slurm does not start here: {said[-2000:]}")
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(20)


def ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout


@dataclass
class Job:
    """A submitted job and what its stand-ins are called with."""

    environment: dict[str, str]
    calls: Path
    folder: Path
    number: str

    def show(self, field: str) -> str:
        """A field of `scontrol show job`."""
        text = ask(self.environment, "scontrol", "show", "job", self.number)
        return dict(word.partition("=")[::2] for word in text.split())[field]

    def launches(self) -> list[list[str]]:
        path = self.calls / "kdsearch"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split() for line in lines if line.startswith("launch")]

    def ends(self, commands: str) -> None:
        """Have the launch that runs, and later ones, end so."""
        (self.calls / "end").write_text(commands)

    def started(self, launches: int) -> None:
        wait_for(lambda: len(self.launches()) == launches)

    def in_state(self, state: str) -> None:
        wait_for(lambda: self.show("JobState") == state)

    def signal(self) -> None:
        """As Slurm does when the time is nearly up."""
        ask(self.environment, "scancel", "--batch", "--signal=USR1", self.number)

    def goes_on_soon(self) -> None:
        """For an hour. Slurm lets a requeued job wait for two minutes; a few seconds it must."""
        self.in_state("PENDING")
        changes = ("StartTime=now+5", "TimeLimit=60")
        ask(self.environment, "scontrol", "update", f"JobId={self.number}", *changes)


@pytest.fixture
def submit(slurm: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Job]]:
    programs, calls, folder = tmp_path / "bin", tmp_path / "calls", tmp_path / "study"
    for made in (programs, calls, folder / "outcomes"):
        made.mkdir(parents=True)
    for name, script in (("ray", RAY), ("kdsearch", KDSEARCH)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    Ledger(calls).ask_to_stop(drain=True, person=False)
    (calls / "stop.json").rename(calls / "drain.json")
    environment = {
        **slurm,
        "PATH": f"{programs}:{slurm['PATH']}",
        "CALLS": str(calls),
        "FOLDER": str(folder),
    }
    jobs = []

    def submit(*options: str) -> Job:
        command = ["sbatch", "--parsable", f"--output={tmp_path}/log", *options]
        words = [str(SCRIPT), "my-study.yaml", str(folder), "--data-dir", "/shared/data"]
        done = subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, check=True
        )
        jobs.append(Job(environment, calls, folder, done.stdout.strip()))
        return jobs[-1]

    yield submit
    for job in jobs:
        ask(environment, "scancel", job.number)
        wait_for(lambda job=job: job.show("JobState") in ("COMPLETED", "FAILED", "CANCELLED"))


def test_a_job_starts_ray_on_every_node_and_launches_until_a_minute_before_its_end(
    submit: Callable[..., Job],
) -> None:
    job = submit()
    job.started(1)
    (words,) = job.launches()
    assert words[:2] == ["launch", "my-study.yaml"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    left = datetime.fromisoformat(job.show("EndTime")) - datetime.fromisoformat(given["--deadline"])
    assert left.total_seconds() == 60
    assert given["--folder"] == str(job.folder)
    assert given["--address"] == "auto"
    assert given["--data-dir"] == "/shared/data"
    wait_for(lambda: len(list(job.calls.glob("ray-n*"))) == 2)
    first, second = ((job.calls / f"ray-{node}").read_text().splitlines() for node in ("n1", "n2"))
    assert first == second
    assert first[:5] == ["symmetric-run", "--address", "n1:6379", "--min-nodes", "2"]
    assert curate_and_validate_ray_start_args(first[1:]) == first[first.index("--") + 1 :]


@pytest.mark.parametrize(
    "minutes",
    [
        17,
        # Slurm sends the script's own signal, since there are fewer than the 900 seconds left. It
        # looks twice a minute.
        pytest.param(10, marks=pytest.mark.slow),
    ],
)
def test_a_job_whose_time_is_nearly_up_drains_and_goes_on_when_requeued(
    submit: Callable[..., Job], minutes: int
) -> None:
    job = submit(f"--time={minutes}")
    job.started(1)
    if minutes > 15:
        job.signal()
    job.goes_on_soon()
    assert f"stop {job.folder} --drain" in (job.calls / "kdsearch").read_text()
    job.started(2)
    assert not (job.folder / "stop.json").exists()
    first, second = job.launches()
    assert first[: first.index("--deadline")] == second[: second.index("--deadline")]
    job.ends("exit 0")
    job.in_state("COMPLETED")
    assert job.show("Restarts") == "1"


def test_a_search_that_leaves_before_the_deadline_is_requeued(submit: Callable[..., Job]) -> None:
    job = submit()
    job.started(1)
    job.ends('echo "{}" > "$FOLDER/outcomes/one.json"; exit 1')
    job.in_state("PENDING")
    assert job.show("Restarts") == "1"


def test_a_launch_that_fails_without_having_finished_anything_is_not_requeued(
    submit: Callable[..., Job],
) -> None:
    job = submit()
    job.ends("exit 2")
    job.in_state("FAILED")
    assert job.show("ExitCode") == "2:0"
    assert len(job.launches()) == 1


@pytest.mark.parametrize("drain", [True, False])
def test_a_search_that_somebody_has_stopped_is_not_requeued(
    submit: Callable[..., Job], drain: bool
) -> None:
    job = submit()
    job.started(1)
    (job.folder / "outcomes" / "one.json").write_text("{}")
    Ledger(job.folder).ask_to_stop(drain=drain, person=True)
    job.in_state("COMPLETED")
    assert len(job.launches()) == 1
    assert (job.folder / "stop.json").exists()


def test_what_a_person_has_asked_to_drain_is_waited_for_past_the_signal(
    submit: Callable[..., Job],
) -> None:
    job = submit("--time=17")
    job.started(1)
    (job.calls / "slow").touch()
    (job.folder / "outcomes" / "one.json").write_text("{}")
    Ledger(job.folder).ask_to_stop(drain=True, person=True)
    job.signal()
    time.sleep(3)  # if it were not waited for, the job would be over or requeued
    assert (job.show("JobState"), job.show("Restarts")) == ("RUNNING", "0")
    job.ends("exit 0")
    job.in_state("COMPLETED")
    assert (job.folder / "stop.json").exists()


def test_a_ray_that_does_not_start_is_a_failure(submit: Callable[..., Job]) -> None:
    job = submit("--hold", "--nodes=1")
    (job.calls / "no-ray").touch()
    ask(job.environment, "scontrol", "release", job.number)
    job.in_state("FAILED")
    assert job.launches() == []


def test_a_step_that_the_signal_of_the_script_kills_does_not_keep_the_nodes(
    submit: Callable[..., Job],
) -> None:
    job = submit("--hold", "--nodes=1")
    (job.calls / "killed").touch()
    ask(job.environment, "scontrol", "release", job.number)
    job.in_state("FAILED")
