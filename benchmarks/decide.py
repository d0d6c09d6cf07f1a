"""How long the driver takes from the end of a training to the next one, as a study grows.

    python benchmarks/decide.py [--against COMMIT] [--works case files ...] [--rounds N]

Searches with made-up scores on 64 simulated slots: one test case on a coarse grid, on the paper's,
by the other strategies; 39 cases in memory, and with the ledger's files (20,000 outcomes). Each
decision is timed from `Dispatcher.done` to the last `take`; that the worker writes its outcome is
not. Each side walks in a process of its own, in turns. The other side is kdsearch as it was at
COMMIT; both must ask for the same trainings in the same order. Without one, an agenda that is built
anew now and then must want the same.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from pairs import Figure, Taken, child, report, take_turns
from scale import PAPER, made_up, resolved

from kdsearch.agenda import Agenda, Outcome
from kdsearch.driver import Dispatcher
from kdsearch.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
COARSE = {
    "temperature": {"broad": [1, 4, 16, 64]},
    "learning_rate": [1e-5, 3e-5],
    "alpha": [1, 0.5],
}
GRID = {"teacher": ["t_hs", "t_ll"], "temperature": [1, 2, 4, 8, 16], "alpha": [1, 0.5, 0.1]}
WORKS: Mapping[str, Mapping[str, Any]] = {
    "coarse": {"datasets": 1, "students": 1, "search": COARSE},
    "case": {"datasets": 1, "students": 1, "search": PAPER},
    "coordinate": {"datasets": 1, "students": 1, "search": {**PAPER, "inner": "coordinate"}},
    "seeds": {"datasets": 1, "students": 1, "search": PAPER, "seeds": [0, 1, 2]},
    "exhaustive": {
        "datasets": 1,
        "students": 1,
        "search": {**PAPER, **GRID, "strategy": "exhaustive"},
    },
    "random": {
        "datasets": 1,
        "students": 1,
        "search": {**PAPER, **GRID, "strategy": "random", "trials": 150},
    },
    "study": {},
    "files": {},
}
"""`study` and `files` are the 39 cases."""
SLOTS = 64
PARTS = 10
MOST_MS = 1.0


class Memory:
    """What a dispatcher needs of a ledger, without files."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}

    def write_outcome(self, outcome: Outcome) -> None:
        """See `Ledger`."""
        self._outcomes[outcome.key] = outcome

    def outcome(self, key: str) -> Outcome | None:
        """See `Ledger`."""
        return self._outcomes.get(key)

    def attempts_of(self, key: str) -> list[object]:
        """See `Ledger`."""
        return []

    def stop_asked(self) -> None:
        """See `Ledger`."""

    def forget_watchdog(self, key: str) -> None:
        """See `Ledger`."""


def walk(work: str, folder: Path, checks: int) -> dict[str, Any]:
    """Search; the milliseconds of each decision by parts of the results, and what was asked for.

    The agenda is compared with one that is built anew `checks` times, which is not timed.
    """
    study, ledger = resolved(**WORKS[work]), Memory()
    if work == "files":
        ledger = Ledger(folder)  # type: ignore[assignment]
        ledger.prepare()  # type: ignore[attr-defined]
        ledger.write_resolved(study)  # type: ignore[attr-defined]
    agenda = Agenda(study)
    queue = Dispatcher(agenda, ledger)  # type: ignore[arg-type]
    running: list[tuple[float, int, Any]] = []
    clock, order, asked, took = 0.0, count(), hashlib.sha256(), []
    training, cpu = None, 0.0
    while True:
        began, began_cpu = time.perf_counter(), time.process_time()
        if training is not None:
            queue.done(training.key)
        started = []
        while len(running) + len(started) < SLOTS and (request := queue.take()) is not None:
            started.append(request)
        took.append(1000 * (time.perf_counter() - began))
        cpu += time.process_time() - began_cpu
        for request in started:
            asked.update(f"{request.case} {request.stage} {request.training}\n".encode())
            seconds = made_up(request.training).cost.seconds
            heapq.heappush(running, (clock + seconds, next(order), request.training))
        if not running:
            break
        clock, _, training = heapq.heappop(running)
        if checks and len(took) % max(1, 20_000 // checks) == 0:
            anew = Agenda(study, agenda.results)
            assert anew.requests() == agenda.requests()
            assert anew.views() == agenda.views()
        ledger.write_outcome(made_up(training))
    size = len(took) / PARTS
    parts = [took[round(i * size) : round((i + 1) * size)] for i in range(PARTS)]
    return {
        "seconds": sum(took) / 1000,
        "cpu": cpu,
        "decisions": len(took),
        "mean": statistics.mean(took),
        "p95": statistics.quantiles(took, n=20)[-1],
        "asked": int(asked.hexdigest()[:12], 16),
        **{f"part{i}": statistics.mean(part) for i, part in enumerate(parts)},
        **{f"part{i}_p95": statistics.quantiles(part, n=20)[-1] for i, part in enumerate(parts)},
    }


def at_commit(commit: str, folder: Path) -> Path:
    """kdsearch as it was then, in a folder that Python may look in."""
    packed = subprocess.run(
        ["git", "-C", ROOT, "archive", commit, "kdsearch"], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def side(work: str, source: Path, checks: int = 0) -> Taken:
    """One walk in a process of its own, with the kdsearch in `source`."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-decide-") as folder:
        paths = os.pathsep.join([str(source), str(Path(__file__).parent)])
        command = [sys.executable, __file__, "--walk", work, folder, str(checks)]
        return child(command, env={**os.environ, "PYTHONPATH": paths})


def compare(work: str, sides: Mapping[str, Path], rounds: int) -> None:
    """Walk with each side in turns, print and record."""
    found = take_turns(
        {n: lambda s=s: side(work, s) for n, s in sides.items()}, rounds, warm_up=False
    )
    asked = {turn.more["asked"] for turns in found.turns.values() for turn in turns}
    assert len(asked) == 1, "the sides asked for different trainings"
    decisions = int(found.of("kdsearch", "decisions")[0])
    conditions = {"decisions": decisions, "slots": SLOTS, "against": [*sides][1:]}
    for name in sides:
        by_part = [statistics.median(found.of(name, f"part{i}")) for i in range(PARTS)]
        worst = [statistics.median(found.of(name, f"part{i}_p95")) for i in range(PARTS)]
        print(f"{work}, {name}: ms by tenths of {decisions} decisions, mean (95 %):")
        print("  " + "  ".join(f"{m:.2f} ({w:.2f})" for m, w in zip(by_part, worst, strict=True)))
    report(
        f"decide.{work}",
        "a decision, in the mean",
        found.figure("kdsearch", "mean"),
        unit="ms",
        at_most=MOST_MS,
        **conditions,
    )
    growth = [
        last / first
        for first, last in zip(
            found.of("kdsearch", "part1"), found.of("kdsearch", "part9"), strict=True
        )
    ]
    report(
        f"decide.{work}.growth",
        "decisions in the last tenth ÷ in the second",
        Figure(values=growth, others=found.others),
        unit="×",
        **conditions,
    )
    for other in [*sides][1:]:
        report(
            f"decide.{work}.before",
            f"decisions a second, kdsearch ÷ kdsearch at {other}",
            found.speedup("kdsearch", other),
            unit="×",
            **conditions,
        )


def main() -> None:
    """Walk each study, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="compare with kdsearch as it was")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--walk", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.walk:
        work, folder, checks = given.walk
        print(json.dumps(walk(work, Path(folder), int(checks))))
        return
    with tempfile.TemporaryDirectory(prefix="kdsearch-decide-") as folder:
        sides = {"kdsearch": ROOT}
        if given.against:
            sides[given.against] = at_commit(given.against, Path(folder))
        for work in given.works:
            if not given.against:
                side(work, ROOT, checks=20)
            compare(work, sides, given.rounds)


if __name__ == "__main__":
    main()
