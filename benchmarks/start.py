"""How long `kdsearch launch` takes until it trains, and what a command takes that only reads.

    python benchmarks/start.py [--against CHECKOUT] [--study FILE] [--rounds N]

The study, the quickstart if none is given, is launched into an empty folder on a Ray of its own and
is interrupted when its first training has ended. Of each launch: the seconds until the study is
resolved (rows and models have been looked at), until Ray is up, until the first training has a
worker process, and until that computes, which is when the training ended less the seconds that
it says it took. `--against` names another checkout of kdsearch with a virtual environment in
.venv: its launches alternate with these, on the same study.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pairs import ROOT, Taken, child, report, take_turns

LONGEST = 180.0
_REST = 4.0
"""Until what it has started is gone, too, and does not disturb the next one."""
STAGES = {
    "resolved": "until the study is resolved",
    "ray": "until Ray is up",
    "started": "until the first training has a process",
    "computes": "until the first training computes",
}
TO_REACH = 11.0
BRIEF: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "version": ("kdsearch --version", ["--version"], {}),
    "tab": (
        "a TAB after `kdsearch ex`",
        [],
        {"_KDSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": "kdsearch ex", "COMP_CWORD": "1"},
    ),
}
"""Commands that only read: their words, arguments and environment."""


def command(checkout: Path) -> str:
    """The `kdsearch` of a checkout; of this one, that of the Python which runs this."""
    own = Path(sys.executable) if checkout == ROOT else checkout / ".venv/bin/python"
    return str(own.with_name("kdsearch"))


@contextmanager
def launched(checkout: Path, study: Path, folder: Path) -> Iterator[queue.Queue[str]]:
    """A launch in `folder`, and the lines that it prints; interrupted at the end."""
    run = subprocess.Popen(
        [command(checkout), "launch", study, "--folder", folder, "--address", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert run.stdout is not None
    lines: queue.Queue[str] = queue.Queue()

    def read(stream: Any = run.stdout) -> None:
        for line in stream:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield lines
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()
        time.sleep(_REST)


def launch(checkout: Path, study: Path, seen: dict[Path, str]) -> Taken:
    """Launch the study, until its first training has ended."""
    # A worker that the interrupt has found at work may write once more while the folder goes.
    with tempfile.TemporaryDirectory(prefix="start-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "study"
        found: dict[str, float] = {}
        began = time.time()
        with launched(checkout, study, folder) as lines:
            while "computes" not in found:
                time.sleep(0.005)
                if time.time() - began > LONGEST:
                    sys.exit(f"no training has ended: {''.join(lines.queue)}")
                stages(found, folder, lines, began)
        seen[checkout] = json.dumps(json.loads((folder / "resolved.json").read_text())["datasets"])
    return Taken(seconds=found["computes"], cpu=0.0, more=found)


def stages(found: dict[str, float], folder: Path, lines: queue.Queue[str], began: float) -> None:
    """Note the stages that a launch has come to since it was last looked at."""
    now = time.time() - began
    if (folder / "resolved.json").exists():
        found.setdefault("resolved", now)
    if any("Ray dashboard" in line for line in list(lines.queue)):
        found.setdefault("ray", now)
    if any((folder / "attempts").glob(".*.watchdog")):
        found.setdefault("started", now)
    for path in (folder / "outcomes").glob("[!.]*.json"):
        seconds = json.loads(path.read_text())["cost"]["seconds"]
        found["computes"] = path.stat().st_mtime - seconds - began
        return


def brief(checkout: Path, arguments: list[str], environment: Mapping[str, str]) -> Taken:
    """A command that ends by itself."""
    return child([command(checkout), *arguments], env=os.environ | environment)


def main() -> None:
    """Launch in turns, print the stages, then the brief commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--study", type=Path, default=ROOT / "search_spaces/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sides = {"kdsearch": ROOT} | ({"other": given.against.resolve()} if given.against else {})
    seen: dict[Path, str] = {}
    turns = take_turns(
        {side: partial(launch, where, given.study, seen) for side, where in sides.items()},
        given.rounds,
    )
    if len(set(seen.values())) != 1:
        sys.exit("the sides have read different rows")
    for stage, words in STAGES.items():
        reach = TO_REACH if stage == "computes" else None
        figure = turns.figure("kdsearch", stage)
        report(f"start.{stage}", f"launch {words}", figure, unit="s", at_most=reach)
        if given.against:
            ratio = turns.ratio("other", "kdsearch", stage)
            report(f"start.{stage}.other", f"{given.against} ÷ this checkout", ratio, unit="×")
    for name, (words, arguments, environment) in BRIEF.items():
        turns = take_turns(
            {side: partial(brief, where, arguments, environment) for side, where in sides.items()},
            5,
        )
        report(f"start.{name}", words, turns.figure("kdsearch"), unit="s")
        if given.against:
            ratio = turns.speedup("kdsearch", "other")
            report(f"start.{name}.other", f"{given.against} ÷ this checkout", ratio, unit="×")


if __name__ == "__main__":
    main()
