"""The benchmarks of one machine without a GPU, one after the other, and a table of them.

    python benchmarks/suite.py [--data FOLDER --model FOLDER] [--only step wide …] [--publish]

What `make bench` runs; it is to take under 20 minutes on two quiet cores. `--data`, `--model`:
for the benchmarks that train, see benchmarks/material.py. `--publish`: see benchmarks/table.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import table
from material import arguments
from pairs import RESULTS, ROOT, busy_cores

SUITE: dict[str, list[str]] = {
    "step": [],
    "shares": ["--rounds", "1"],
    "wide": [],
    "fused": ["--hidden", "32", "384", "--rounds", "2"],
    "decide": ["--works", "case", "files", "--rounds", "1"],
    "speculation": ["--slots", "64"],
    "start": [],
}
"""The scripts, with what keeps them short."""
TRAINING = ("step", "shares")
"""Those that take data and a model."""


def main() -> None:
    """Run them, print the table, say which failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--only", nargs="+", choices=SUITE, default=list(SUITE))
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    RESULTS.unlink(missing_ok=True)
    busy = busy_cores(2)
    if busy > 0.25:
        print(f"WARNING: {busy:.1f} cores are at other work; the figures will be disturbed")
    own = [f"--{name}={getattr(given, name)}" for name in ("data", "model") if getattr(given, name)]
    failed = []
    for name in given.only:
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-W", "ignore", str(ROOT / f"benchmarks/{name}.py")]
        command += [*SUITE[name], *(own if name in TRAINING else ())]
        if subprocess.run(command, cwd=Path.cwd(), check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - started:.0f} s", flush=True)
    records = table.last(table.read([RESULTS])) if RESULTS.exists() else []
    table.in_terminal(records)
    if given.publish:
        table.publish(records)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
