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
from functools import partial
from pathlib import Path
from typing import Any

from pairs import Figure, Taken, child, report, take_turns
from scale import PAPER, made_up, resolved

from kdsearch.agenda import Agenda, Outcome, Request, Training, written_outcome
from kdsearch.driver import Dispatcher
from kdsearch.ledger import Ledger, layout
from kdsearch.study import Resolved

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
        "search": {**PAPER, **GRID, "strategy": "random", "trials": 120},
    },
    "study": {},
    "files": {},
}
LARGE = ("study", "files")
"""The 39 cases."""
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

    def attempts(self) -> dict[str, list[object]]:
        """See `Ledger`."""
        return {}

    def attempts_of(self, key: str) -> list[object]:
        """See `Ledger`."""
        return []

    def stop_asked(self) -> None:
        """See `Ledger`."""

    def forget_watchdog(self, key: str) -> None:
        """See `Ledger`."""


class Files(Ledger):
    """A ledger whose outcomes are not brought to the disk: a worker waits for that, no driver."""

    def write_outcome(self, outcome: Outcome) -> bool:
        """See `Ledger`."""
        content = json.dumps(written_outcome(outcome), indent=1, ensure_ascii=False)
        self.path(layout.outcome(outcome.key)).write_text(content)
        return True


class Slots:
    """The slots: they take what can start, and end one training after the other."""

    def __init__(self, study: Resolved, ledger: Any) -> None:
        self.agenda = Agenda(study)
        self.took: list[float] = []
        """The milliseconds of each decision."""
        self.cpu = 0.0
        self.asked = hashlib.sha256()
        self._queue = Dispatcher(self.agenda, ledger)
        self._ledger = ledger
        self._running: list[tuple[float, int, Training]] = []
        self._clock = 0.0
        self._ended: Training | None = None

    def decide(self) -> bool:
        """Take in what ended, and take what can start; whether anything runs."""
        started: list[Request] = []
        began, began_cpu = time.perf_counter(), time.process_time()
        if self._ended is not None:
            self._queue.done(self._ended.key)
        while len(self._running) + len(started) < SLOTS:
            bundle: Any = self._queue.take()
            if not bundle:
                break
            started += bundle if isinstance(bundle, tuple) else [bundle]  # one before version 3
        self.cpu += time.process_time() - began_cpu
        self.took.append(1000 * (time.perf_counter() - began))
        for request in started:
            self.asked.update(f"{request.case} {request.stage} {request.training}\n".encode())
            ends = self._clock + made_up(request.training).cost.seconds
            order = len(self.took) * SLOTS + len(self._running)
            heapq.heappush(self._running, (ends, order, request.training))
        return bool(self._running)

    def end_one(self) -> None:
        """Have the training end whose turn it is."""
        self._clock, _, self._ended = heapq.heappop(self._running)
        self._ledger.write_outcome(made_up(self._ended))


def walk(work: str, folder: Path, check_every: int) -> dict[str, float]:
    """Search; the milliseconds of a decision, by parts of the results, and what was asked for.

    Now and then the agenda is compared with one that is built anew; 0 for never.
    """
    study, ledger = resolved(**WORKS[work]), Files(folder) if work == "files" else Memory()
    if isinstance(ledger, Ledger):
        ledger.prepare()
        ledger.write_resolved(study)
    slots = Slots(study, ledger)
    while slots.decide():
        if check_every and len(slots.took) % check_every == 0:
            anew = Agenda(study, slots.agenda.results)
            assert anew.requests() == slots.agenda.requests()
            assert anew.views() == slots.agenda.views()
        slots.end_one()
    took = slots.took
    size = len(took) / PARTS
    parts = [took[round(i * size) : round((i + 1) * size)] for i in range(PARTS)]
    return {
        "seconds": sum(took) / 1000,
        "cpu": slots.cpu,
        "decisions": len(took),
        "mean": statistics.mean(took),
        "p95": statistics.quantiles(took, n=20)[-1],
        "asked": int(slots.asked.hexdigest()[:12], 16),
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


def side(work: str, source: Path, check_every: int = 0) -> Taken:
    """One walk in a process of its own, with the kdsearch in `source`."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-decide-") as folder:
        paths = os.pathsep.join([str(source), str(Path(__file__).parent)])
        command = [sys.executable, __file__, "--walk", work, folder, str(check_every)]
        return child(command, env={**os.environ, "PYTHONPATH": paths})


def compare(work: str, sides: Mapping[str, Path], rounds: int) -> None:
    """Walk with each side in turns, print and record."""
    turns = {name: partial(side, work, source) for name, source in sides.items()}
    found = take_turns(turns, rounds, warm_up=False)
    asked = {turn.more["asked"] for side in found.turns.values() for turn in side}
    assert len(asked) == 1, "the sides asked for different trainings"
    decisions = int(found.of("kdsearch", "decisions")[0])
    for name in sides:
        print(f"{work}, {name}: ms by tenths of {decisions} decisions, mean (95 % below):")
        means, most = (
            [statistics.median(found.of(name, f"part{i}{of}")) for i in range(PARTS)]
            for of in ("", "_p95")
        )
        print("  " + "  ".join(f"{m:.2f} ({w:.2f})" for m, w in zip(means, most, strict=True)))
    record = partial(report, decisions=decisions, slots=SLOTS)
    mean = found.figure("kdsearch", "mean")
    record(f"decide.{work}", "a decision, in the mean", mean, unit="ms", at_most=MOST_MS)
    cpu = [turn.cpu * 1000 / decisions for turn in found.turns["kdsearch"]]
    record(f"decide.{work}.cpu", "its processor time", Figure(values=cpu), unit="ms")
    below = found.figure("kdsearch", "p95")
    record(f"decide.{work}.p95", "95 % of the decisions take less", below, unit="ms")
    first, last = (found.of("kdsearch", part) for part in ("part1", f"part{PARTS - 1}"))
    growth = [late / early for late, early in zip(last, first, strict=True)]
    words = "a decision in the last tenth ÷ in the second"
    record(f"decide.{work}.growth", words, Figure(values=growth, others=found.others), unit="×")
    for other in [*sides][1:]:
        words = f"decisions a second, kdsearch ÷ kdsearch at {other}"
        record(f"decide.{work}.before", words, found.speedup("kdsearch", other), unit="×")


def main() -> None:
    """Walk each study, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="compare with kdsearch as it was")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--walk", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.walk:
        work, folder, check_every = given.walk
        print(json.dumps(walk(work, Path(folder), int(check_every))))
        return
    with tempfile.TemporaryDirectory(prefix="kdsearch-decide-") as folder:
        sides = {"kdsearch": ROOT}
        if given.against:
            sides[given.against] = at_commit(given.against, Path(folder))
        for work in given.works:
            if not given.against:
                side(work, ROOT, check_every=9_000 if work in LARGE else 30)
            compare(work, sides, given.rounds)


if __name__ == "__main__":
    main()
