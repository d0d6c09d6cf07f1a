"""How long a study of 20,000 outcomes takes to resume, and its status and report; with what memory.

    python benchmarks/scale.py [--folder DIR]

Thirteen data sets and three students on the paper's grid, walked with made-up scores, so that the
trainings are those that a real search would ask for. Each command runs in a process of its own, on
the finished study and on one that lacks the second half of its outcomes.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

from kdsearch.agenda import Agenda, Cost, Outcome, StudentTraining, TestScore, Training
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.ledger import Ledger
from kdsearch.search import ValidationScore
from kdsearch.study import Resolved, ResolvedDataset, ResolvedModel, ResolvedSplit, parse_study

RESUME = """
import gc, sys
from pathlib import Path
from kdsearch.driver import open_study
from kdsearch.ledger import Ledger
gc.set_threshold(100_000, 50, 50)  # as the command does
ledger = Ledger(Path(sys.argv[1]))
agenda = open_study(ledger, ledger.resolved().study, data_dir=None, place="study.yaml")
agenda.requests()
"""
PEAK = """
import runpy, sys
try:
    {body}
finally:
    status = open("/proc/self/status").read()
    print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""
COMMAND = (
    "sys.argv = ['kdsearch', *sys.argv[1:]]; runpy.run_module('kdsearch', run_name='__main__')"
)
SPLITS = ("train", "validation", "test")
PAPER: Mapping[str, Any] = {"learning_rate": [1e-5, 2e-5, 3e-5, 4e-5]}
"""The paper's grid at four learning rates."""


def resolved(
    datasets: int = 13, students: int = 3, search: Mapping[str, Any] = PAPER, **more: Any
) -> Resolved:
    """A study of so many data sets and students, resolved to made-up digests."""
    grammar = {"train": 100, "validation": 20, "test": 20}
    config = {"model_type": "bert", "num_hidden_layers": 1}
    study = parse_study(
        {
            "name": "scale",
            "datasets": {
                f"data{i:02}": {"grammar": {**grammar, "seed": i}} for i in range(datasets)
            },
            "models": {"big": {"config": config}}
            | {f"small{i}": {"config": {**config, "hidden_size": 64 + i}} for i in range(students)},
            "teachers": {"big": {"model": "big"}},
            "students": {f"small{i}": {"model": f"small{i}"} for i in range(students)},
            "search": search,
            **more,
        },
        place="scale.yaml",
    )
    content = {
        name: ResolvedDataset(
            task="classification",
            metric="f1",
            labels=("no", "yes"),
            splits={s: ResolvedSplit(digest=f"{name}-{s}", rows=grammar[s]) for s in SPLITS},
        )
        for name in study.datasets
    }
    models = {name: ResolvedModel(path=None, digest=None, labels=None) for name in study.models}
    return Resolved(study=study, datasets=content, models=models, versions={})


def made_up(training: Training) -> Outcome:
    """An outcome whose scores follow from the training's name, as those of any version do."""
    student = training.model.name if isinstance(training, StudentTraining) else ""
    number = crc32(f"{training.data.train} {student} {training}".encode()) / 2**32
    return Outcome(
        key=training.key,
        training=training,
        state="scored",
        validation=ValidationScore(round(number, 3)),
        test=TestScore(round(1 - number, 3)),
        best_epoch=1,
        lowest_loss_epoch=2,
        cost=Cost(seconds=100 * number, device="none", host="here"),
    )


def walk(folder: Path) -> tuple[int, float]:
    """Search the study on simulated slots: its outcomes, and what deciding took per outcome."""
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved())
    agenda = Agenda(ledger.resolved())
    writing = 0.0

    def look_up(training: Training) -> None:
        nonlocal writing
        begun = time.perf_counter()
        ledger.write_outcome(made_up(training))
        writing += time.perf_counter() - begun

    begun = time.perf_counter()
    engine = TabulatedEngine(look_up=look_up, seconds=lambda t: made_up(t).cost.seconds, slots=64)
    engine.run(Dispatcher(agenda, ledger))
    return len(agenda.results), time.perf_counter() - begun - writing


def measured(body: str, *arguments: str) -> str:
    """Run a command in a process of its own: its seconds and its peak memory."""
    begun = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", PEAK.format(body=body.strip().replace("\n", "\n    ")), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - begun
    assert found.returncode == 0, found.stderr
    return f"{seconds:5.1f} s  {int(found.stderr.split()[-1]) / 1024:5.0f} MB"


def main() -> None:
    """Build the study, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to build the study; kept")
    given = parser.parse_args().folder
    folder = given or Path(tempfile.mkdtemp(prefix="kdsearch-scale-"))
    packages = " ".join(f"{name} {version(name)}" for name in ("kdsearch", "pydantic"))
    cores = os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}")
    if not (folder / "resolved.json").exists():
        outcomes, seconds = walk(folder)
        print(
            f"{outcomes} outcomes; deciding what is next: {1000 * seconds / outcomes:.2f} ms each"
        )
    names = sorted(os.listdir(folder / "outcomes"))
    for count in (len(names), len(names) // 2):
        for name in names[count:]:
            (folder / "outcomes" / name).unlink()
        print(f"{count} outcomes:")
        print("  resume", measured(RESUME, str(folder)))
        print("  status", measured(COMMAND, "status", str(folder)))
        print("  report", measured(COMMAND, "report", str(folder)))
    if given is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
