"""How near slots come to the rate that trainings of a known length allow, and how many start.

    python benchmarks/slots.py [--slots 8 32] [--seconds 0 0.1 0.5] [--trainings 800] [--waiting]
                                [--study | --steady]

A queue that asks for nothing but sleep takes agenda and ledger out of the picture. The rate is that
of the middle half of the trainings; the ideal is slots over seconds. With `--study` they are in it,
with the 39 cases of scale.py, and the profile of the driver is printed too. With `--steady`, a real
study of one case, its models trained on two slots: the share of the time from the first moment both
are up to the last training in which they were busy, beside the share that simulated slots reach
with the same durations.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import os
import platform
import pstats
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import ray
import scale

from kdsearch.agenda import Agenda, Bundle, Failure, Outcome, Request, Training
from kdsearch.driver import Dispatcher, Watch
from kdsearch.engine import TabulatedEngine, Worker
from kdsearch.engine.ray_tune import Cluster, Needs, RayTuneEngine
from kdsearch.ledger import Ledger
from kdsearch.study import (
    ROLES,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    Role,
    parse_study,
)

STEADY = """
name: steady
datasets:
  sentiment:
    grammar: {train: 1000, validation: 200, test: 200, noise: 0.1}
models:
  encoder:
    config: &encoder {model_type: bert, num_hidden_layers: 2, hidden_size: 64,
      num_attention_heads: 4, intermediate_size: 128, max_position_embeddings: 64}
  small:
    config: {<<: *encoder, num_hidden_layers: 1, hidden_size: 32, num_attention_heads: 2,
      intermediate_size: 64}
teachers:
  encoder: {model: encoder, fine_tune: {learning_rate: [1.0e-3], epochs: 2}}
students:
  small: {model: small}
search:
  inner: joint
  temperature: {broad: [1, 2, 4, 8]}
  learning_rate: [1e-3, 2e-3, 3e-3]
  alpha: [1, 0.5]
training: {epochs: 4, batch_size: 32, max_length: 32, precision: fp32}
"""


@dataclass(frozen=True, kw_only=True)
class _Sleeper(Worker):
    """Sleeps, and commits nothing."""

    seconds: float

    def __call__(self, training: Training) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True)
class _Counted:
    """The check of a node, which counts the processes that come up."""

    folder: Path

    def __call__(self) -> tuple[str, ...]:
        (self.folder / str(os.getpid())).touch()
        return ()


NEEDED = dict.fromkeys(ROLES, Needs(resources={"CPU": 1}))


@dataclass
class _Stub:
    """A queue of as many trainings as it is told, all ready at once."""

    left: list[Request]
    running: set[str] = field(default_factory=set)
    ends: list[float] = field(default_factory=list)

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        if not self.left:
            return ()
        request = self.left.pop()
        self.running.add(request.training.key)
        return (request,)

    def done(self, key: str) -> None:
        self.running.discard(key)
        self.ends.append(time.monotonic())

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        raise RuntimeError(message)

    def release(self, key: str) -> None:
        raise RuntimeError("a process died at its start")

    @property
    def finished(self) -> int:
        return len(self.ends)

    @property
    def complete(self) -> bool:
        return not self.left and not self.running

    @property
    def wanted(self) -> int:
        return len(self.left) + len(self.running)

    @property
    def ready(self) -> Iterable[Role]:
        return (request.role for request in reversed(self.left))


def requests(count: int) -> list[Request]:
    """Trainings that differ in their seed."""
    [first] = Agenda(resolved()).requests()
    return [
        Request(
            training=first.training.model_copy(update={"seed": seed}),
            case=first.case,
            stage=first.stage,
        )
        for seed in range(count)
    ]


def resolved() -> Resolved:
    """A small study, resolved to made-up digests."""
    rows = {"train": 100, "validation": 20, "test": 20}
    study = parse_study(
        {
            "name": "slots",
            "datasets": {"data": {"grammar": rows}},
            "models": {"big": {"config": {"model_type": "bert", "num_hidden_layers": 1}}},
            "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [1e-5]}}},
            "students": {"small": {"model": "big"}},
        },
        place="slots.yaml",
    )
    data = ResolvedDataset(
        task="classification",
        metric="f1",
        labels=("no", "yes"),
        splits={name: ResolvedSplit(digest=name, rows=count) for name, count in rows.items()},
    )
    models = {name: ResolvedModel(path=None, digest=None, labels=None) for name in study.models}
    return Resolved(study=study, datasets={"data": data}, models=models, versions={})


def rate(slots: int, seconds: float, trainings: int, *, waiting: bool) -> None:
    """Print what `trainings` of `seconds` each come to on `slots`."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-slots-") as name:
        folder, pids = Path(name) / "study", Path(name) / "pids"
        pids.mkdir()
        Ledger(folder).prepare()
        queue = _Stub(requests(trainings))
        RayTuneEngine(
            worker=_Sleeper(folder=folder, run_training=never, seconds=seconds),
            cluster=Cluster(
                dashboard=None,
                token=None,
                needed=NEEDED,
                slots=slots,
            ),
            max_slots=None if waiting else slots,
            check=_Counted(pids),
        ).run(queue)
        started = len(list(pids.iterdir()))
    middle = queue.ends[trainings // 4 : trainings * 3 // 4]
    reached = (len(middle) - 1) / (middle[-1] - middle[0])
    ideal = f"{slots / seconds:.1f}" if seconds else "-"
    ratio = f"{reached * seconds / slots:.3f}" if seconds else "-"
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{slots:5d} {seconds:7.2f} {ideal:>8} {reached:8.1f} {ratio:>6} {started / slots:9.2f} "
        f"{used.ru_maxrss / 1024:10.0f}",
        flush=True,
    )


@dataclass
class _Enough(Watch):
    """Has a search end after so many trainings, and notes when each ended."""

    ledger: Ledger
    trainings: int
    ends: list[float] = field(default_factory=list)

    def finished(self, request: Request, outcome: Outcome) -> None:
        self.ends.append(time.monotonic())
        if len(self.ends) == self.trainings:
            self.ledger.ask_to_stop(drain=True, person=False)


def slept(seconds: float, training: Training, folder: Path) -> Outcome:
    """A training that takes `seconds`."""
    time.sleep(seconds)
    return scale.made_up(training)


def with_agenda(slots: int, seconds: float, trainings: int) -> None:
    """Print what the first `trainings` of a study come to, and where the driver's time goes."""
    ray.cloudpickle.register_pickle_by_value(scale)
    with tempfile.TemporaryDirectory(prefix="kdsearch-slots-") as name:
        ledger = Ledger(Path(name))
        ledger.prepare()
        ledger.write_resolved(scale.resolved())
        enough = _Enough(ledger, trainings)
        engine = RayTuneEngine(
            worker=Worker(folder=ledger.folder, run_training=partial(slept, seconds)),
            cluster=Cluster(dashboard=None, token=None, needed=NEEDED, slots=slots),
            max_slots=slots,
        )
        with cProfile.Profile() as profile:
            engine.run(Dispatcher(Agenda(ledger.resolved()), ledger, (enough,)))
    middle = enough.ends[trainings // 4 : trainings * 3 // 4]
    reached = (len(middle) - 1) / (middle[-1] - middle[0])
    ideal = f", ideal {slots / seconds:.1f}" if seconds else ""
    print(f"{slots} slots, {seconds} s: {reached:.1f} trainings a second{ideal}")
    pstats.Stats(profile).sort_stats("cumulative").print_stats("kdsearch|tune/", 25)


Interval = tuple[float, float]


def steady() -> None:
    """Print how busy two slots are in a real study, and in a simulation with its durations."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-slots-") as name:
        study, folder = Path(name) / "steady.yaml", Path(name) / "run"
        study.write_text(STEADY)
        command = [sys.executable, "-m", "kdsearch", "launch", str(study), "--folder", str(folder)]
        command += ["--address", "local"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ledger = Ledger(folder)
        known = {outcome.key: outcome for outcome in ledger.outcomes()}
        log = (folder / "launch.log").read_text()
        real = []
        for moment, millis, key in re.findall(r"(?m)^(.+),(\d+) INFO .*key=(\w+) finished", log):
            end = datetime.fromisoformat(moment).timestamp() + int(millis) / 1000
            real.append((end - known[key].cost.seconds, end))
        fleet = json.loads((folder / "running.json").read_text())["fleet"]["slots"]
        ideal = simulated(ledger.resolved(), known, Path(name) / "simulated")
    reached, best = busy(real), busy(ideal)
    print(f"{len(real)} trainings on 2 slots, at the end {[slot['name'] for slot in fleet]}")
    print(f"busy {reached:.3f}, simulated {best:.3f}, ratio {reached / best:.3f}")


def simulated(study: Resolved, known: dict[str, Outcome], folder: Path) -> list[Interval]:
    """When each training runs on two simulated slots."""
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(study)
    found: list[Interval] = []

    def look_up(training: Training) -> None:
        outcome = known[training.key]
        ledger.write_outcome(outcome)
        found.append((engine.clock - outcome.cost.seconds, engine.clock))

    engine = TabulatedEngine(
        look_up=look_up, seconds=lambda training: known[training.key].cost.seconds, slots=2
    )
    engine.run(Dispatcher(Agenda(study), ledger))
    return found


def busy(found: list[Interval]) -> float:
    """The busy share of two slots, from when both work first to the last end."""
    ordered = sorted(found)
    both = next(b[0] for a, b in pairwise(ordered) if b[0] < a[1] - 0.05)
    last = max(end for _, end in ordered)
    worked = sum(max(0.0, end - max(begin, both)) for begin, end in ordered)
    return worked / 2 / (last - both)


def never(training: Training, folder: Path) -> Outcome:
    """Not called: a `_Sleeper` only sleeps."""
    raise NotImplementedError


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument("--trainings", type=int, default=800)
    parser.add_argument("--waiting", action="store_true", help="with 200 slots that wait for room")
    parser.add_argument("--study", action="store_true", help="with agenda and ledger")
    parser.add_argument("--steady", action="store_true")
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, Ray {version('ray')}, {os.cpu_count()} cores")
    if given.steady:
        steady()
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not given.study:
        print("slots seconds  ideal/s reached/s  ratio processes  driver MB")
    for slots in given.slots:
        ray.init("local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
        for seconds in given.seconds:
            if given.study:
                with_agenda(slots, seconds, given.trainings)
            else:
                rate(slots, seconds, given.trainings, waiting=given.waiting)
        ray.shutdown()


if __name__ == "__main__":
    main()
