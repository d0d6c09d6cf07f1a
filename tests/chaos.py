"""Kills a real search at random moments, resumes it, and compares it with an undisturbed one.

    python tests/chaos.py --kills 27 --seed 0

Killed with SIGKILL are the driver, a worker that trains, the raylet, or all of Ray with the driver.
Only processes that were started here are touched: others may run Ray on the same machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

Kind = Literal["driver", "worker", "raylet", "cluster"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HINT = "to resume, run the same command"
LONGEST_END = 120.0
"""Seconds in which a driver must have ended that has lost its Ray; it promises 90."""
_LONGEST_RUN = 600.0
_SECONDS_BETWEEN = 0.2
_STARTED = re.compile(r"(\S+ \S+) INFO .*\bkey=(\w+) started:")

STUDY = """
name: chaos
seeds: {seeds}
erm: true
datasets:
  grammar: {{grammar: {{train: 600, validation: 200, test: 200}}}}
models:
  big:
    config: {{model_type: bert, num_hidden_layers: 2, hidden_size: 32, num_attention_heads: 2,
             intermediate_size: 64, max_position_embeddings: 32}}
  small:
    config: {{model_type: bert, num_hidden_layers: 1, hidden_size: 16, num_attention_heads: 2,
             intermediate_size: 32, max_position_embeddings: 32}}
teachers:
  big: {{model: big, fine_tune: {{learning_rate: [3.0e-3, 1.0e-2]}}}}
students:
  small: {{model: small}}
search:
  inner: coordinate
  temperature: {{broad: [1, 4]}}
  learning_rate: [3.0e-3, 1.0e-2]
  alpha: [1, 0.5]
training: {{epochs: 3, max_length: 32, precision: fp32}}
"""


# -- processes -----------------------------------------------------------------------------------


class Launch:
    """A `kdsearch launch`, and all processes that come of it."""

    def __init__(self, study: Path, folder: Path, log: Path) -> None:
        self._ray = tempfile.mkdtemp(prefix="kd")  # short: the paths of sockets lie in it
        command = [sys.executable, "-m", "kdsearch", "launch", str(study), "--folder", str(folder)]
        command += ["--address", "local"]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"RAY_TMPDIR": self._ray},
            )
        self.since = time.monotonic()
        self.folder = folder
        self.log = log
        self._driver = psutil.Process(self._process.pid)
        self._family = {self._driver}

    @property
    def code(self) -> int | None:
        """The driver's exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Wait for the driver's end; whether it came."""
        until = time.monotonic() + seconds
        while self.code is None and time.monotonic() < until:
            time.sleep(_SECONDS_BETWEEN)
            self.look()
        return self.code is not None

    def look(self) -> None:
        """Take in processes that are new. Whoever has lost its parent is known already."""
        every = list(psutil.process_iter(["ppid"]))
        while True:
            parents = {process.pid for process in self._alive()}
            new = {p for p in every if p.info["ppid"] in parents} - self._family
            if not new:
                return
            self._family |= new

    def victims(self, kind: Kind, draw: random.Random) -> list[psutil.Process]:
        """Whom to kill; none while there is none such."""
        self.look()
        if kind == "driver":
            return [self._driver]
        if kind == "cluster":
            return self._alive()
        title = "ray::Slot" if kind == "worker" else "raylet"
        found = [p for p in self._alive() if _title(p).startswith(title)]
        return draw.sample(found, min(1, len(found)))

    def left(self) -> str:
        """Who outlives the driver."""
        titles = sorted(_title(p) for p in self._alive() if p != self._driver)
        return ", ".join(f"{titles.count(t)} {t}" for t in dict.fromkeys(titles)) or "nothing"

    def clean(self) -> None:
        """End what is left."""
        self.look()
        kill(self._alive())
        self._process.wait()
        shutil.rmtree(self._ray, ignore_errors=True)

    def _alive(self) -> list[psutil.Process]:
        return [p for p in self._family if _lives(p)]


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, to all of them at once."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _title(process: psutil.Process) -> str:
    """A process's program, or how Ray named it."""
    with suppress(psutil.NoSuchProcess):
        words = process.cmdline() or [process.name()]
        return words[0] if words[0].startswith("ray::") else process.name()
    return "gone"


# -- the kills -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill, and what came of it."""

    run: int
    kind: Kind
    moment: float
    """Seconds since the launch, or since the kill before in the same launch."""
    outcomes: int
    """That were there."""
    left: str = "the driver goes on"
    seconds: float | None = None
    """Until the driver ended."""
    code: int | None = None

    def __str__(self) -> str:
        ended = "" if self.seconds is None else f"{self.seconds:.1f} s, code {self.code}"
        return (
            f"{self.run:3}  {self.kind:8}{self.moment:6.1f} s{self.outcomes:5} outcomes  "
            f"{ended:18}{self.left}"
        )


@dataclass(kw_only=True)
class Chaos:
    """Searches that are killed, and what is wrong with them."""

    folder: Path
    kills: int
    draw: random.Random
    seeds: Sequence[int]
    done: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    started: int = 0
    """How many trainings were handed out in the searches that were killed."""
    repeats: int = 0
    """How many of them had finished before."""
    failures: Counter[str] = field(default_factory=Counter)
    """Of tries: what the ledger says of workers that were killed."""
    _launches: list[Launch] = field(default_factory=list)
    _kinds: list[Kind] = field(default_factory=list)

    def run(self) -> None:
        """The undisturbed search; then as many that are killed as the kills need."""
        self.folder.mkdir(parents=True)
        (self.folder / "chaos.yaml").write_text(STUDY.format(seeds=list(self.seeds)))
        reference = self.folder / "undisturbed"
        with self._cleaning():
            took = self._to_the_end(reference)
        print(f"undisturbed: {took:.0f} s, {len(outcomes(reference))} trainings", flush=True)
        print("run  killed  at        outcomes      driver ended      left", flush=True)
        number = 0
        while len(self.done) < self.kills:
            number += 1
            folder = self.folder / f"run-{number}"
            with self._cleaning():
                while len(self.done) < self.kills:
                    launch = self._launch(folder)
                    self._kill(launch, number, 0.75 * took)
                    if launch.code == 0:
                        break
                self._to_the_end(folder)
            self.problems += differences(reference, folder)
            self._count(folder)

    @contextmanager
    def _cleaning(self) -> Iterator[None]:
        try:
            yield
        finally:
            while self._launches:
                self._launches.pop().clean()

    def _launch(self, folder: Path) -> Launch:
        number = len(list(self.folder.glob("*.log")))
        launch = Launch(self.folder / "chaos.yaml", folder, self.folder / f"launch-{number}.log")
        self._launches.append(launch)
        return launch

    def _to_the_end(self, folder: Path) -> float:
        """Search undisturbed, what was going on there having ended; the seconds it took."""
        for before in self._launches:
            before.wait(_LONGEST_RUN)
        launch = self._launch(folder)
        launch.wait(_LONGEST_RUN)
        if launch.code != 0:
            self.problems.append(f"{launch.log}: ended with {launch.code}")
        return time.monotonic() - launch.since

    def _kill(self, launch: Launch, number: int, longest: float) -> None:
        """Kill at random moments, until the driver has ended."""
        while len(self.done) < self.kills:
            self._kinds = self._kinds or self.draw.sample(KINDS, len(KINDS))
            kind, moment = self._kinds[-1], self.draw.uniform(0, longest)
            launch.wait(moment)
            while not (victims := launch.victims(kind, self.draw)) and launch.code is None:
                launch.wait(_SECONDS_BETWEEN)
            if launch.code is not None:
                if launch.code != 0:
                    self.problems.append(f"{launch.log}: ended by itself with {launch.code}")
                return
            self._kinds.pop()
            known = len(outcomes(launch.folder))
            since = time.monotonic()
            kill(victims)
            found = Kill(run=number, kind=kind, moment=moment, outcomes=known)
            if kind != "worker":
                ended = launch.wait(LONGEST_END)
                seconds = time.monotonic() - since
                time.sleep(1)
                found = replace(found, seconds=seconds, code=launch.code, left=launch.left())
                if not ended:
                    self.problems.append(f"{launch.log}: hung for {LONGEST_END:.0f} s")
                    launch.clean()
                elif launch.code != 0 and kind == "raylet" and HINT not in launch.log.read_text():
                    self.problems.append(f"{launch.log}: does not say how to go on")
            self.done.append(found)
            print(found, flush=True)
            if kind != "worker":
                return

    def _count(self, folder: Path) -> None:
        """Count what was started, and what was started although its outcome was there."""
        for line in (folder / "launch.log").read_text().splitlines():
            if found := _STARTED.match(line):
                at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
                outcome = folder / "outcomes" / f"{found[2]}.json"
                self.started += 1
                self.repeats += at > outcome.stat().st_mtime
        for attempt in folder.glob("attempts/*/*.json"):
            self.failures[json.loads(attempt.read_text())["failure"]] += 1


# -- the comparison ------------------------------------------------------------------------------


def differences(reference: Path, other: Path) -> list[str]:
    """What differs between two searches of one study, what takes time apart."""
    found = []
    expected, got = _content(reference), _content(other)
    for name in sorted(expected.keys() | got.keys()):
        if name not in expected or name not in got:
            found.append(f"{other / name}: is only in one of the two searches")
        elif expected[name] != got[name]:
            found.append(f"{other / name}: differs")
    return found


def outcomes(folder: Path) -> list[Path]:
    return sorted((folder / "outcomes").glob("[!.]*.json"))


def _content(folder: Path) -> dict[str, str]:
    """Outcomes and report. Not the page, which also says when and how often was tried."""
    report = folder / "report"
    tables = [*report.glob("tables/*.csv"), *report.glob("tables/*.tex")]
    files = [*outcomes(folder), report / "report.json", report / "report.md", *tables]
    return {str(path.relative_to(folder)): untimed(path) for path in files}


def untimed(path: Path) -> str:
    """A file's text without what takes time: an outcome's cost, seconds, examples per second."""
    text = path.read_text()
    if path.suffix == ".json":
        return json.dumps(_without(json.loads(text), path.parent.name == "outcomes"), indent=1)
    if path.name == "report.md":
        text = re.sub(r"\d+(\.\d+)? (s|min|h|days)\b( \d+ (s|min|h)\b)?", "TIME", text)
        return re.sub(r"(?m)^(\| (?:teacher|student)\b.* \| )[\d,]+ \|$", r"\1SPEED |", text)
    if path.name == "cases.csv":
        rows = list(csv.DictReader(text.splitlines()))
        return json.dumps([{k: v for k, v in row.items() if not _timed(k)} for row in rows])
    if path.name == "cases.tex":
        names = next(csv.reader(path.with_suffix(".csv").read_text().splitlines()))
        rows = [line.split(" & ") for line in text.splitlines()]
        kept = [i for i, name in enumerate(names) if not _timed(name)]
        return json.dumps([[r[i] for i in kept] if len(r) == len(names) else r for r in rows])
    return text


def _without(value: Any, outcome: bool) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not _timed(k) and (k != "cost" or not outcome)}
        return {name: _without(each, outcome) for name, each in kept.items()}
    return [_without(each, outcome) for each in value] if isinstance(value, list) else value


def _timed(name: str) -> bool:
    return name.endswith(("seconds", "examples_per_second"))


def main() -> int:
    """Kill, resume, compare; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=27)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a new one, for studies and logs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        chaos = Chaos(
            folder=options.folder or Path(scratch) / "chaos",
            kills=options.kills,
            draw=random.Random(options.seed),
            seeds=(0, 1),
        )
        chaos.run()
    kinds = Counter(each.kind for each in chaos.done)
    print(f"{len(chaos.done)} kills: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    print(f"tries that the killed workers left: {dict(chaos.failures)}")
    print(
        f"{chaos.started} trainings were started, {chaos.repeats} of them after they had finished"
    )
    print(*chaos.problems or ["outcomes and reports are those of the undisturbed search"], sep="\n")
    return 1 if chaos.problems or chaos.repeats else 0


if __name__ == "__main__":
    sys.exit(main())
