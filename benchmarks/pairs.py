"""What the benchmarks share: sides that take turns on the same work, and the record of it.

    rounds = take_turns({"kdsearch": ours, "plain": theirs}, rounds=3)
    report("step.fp32", "examples a second, kdsearch ÷ plain", rounds.speedup("kdsearch", "plain"),
           unit="×", at_least=2.9)

A side is a function that does the work once; it is timed as a whole, unless it returns a `Taken`
of its own, of a part of the work or of a child process (`child`). Sides alternate, so that each
ratio is one of neighbours. Every figure is printed, and appended to `runs/benchmarks.jsonl` (or the
file that KDSEARCH_BENCHMARKS names), with the machine, the versions and whether other work
disturbed it; benchmarks/table.py makes tables of that file.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("KDSEARCH_BENCHMARKS", ROOT / "runs/benchmarks.jsonl"))
PACKAGES = ("torch", "transformers", "ray")
QUIET = 0.25
"""So many cores, in the mean, may be at other work before a turn."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one turn took."""

    seconds: float
    cpu: float
    """Seconds of processor time, of all threads."""
    more: Mapping[str, float] = field(default_factory=dict)
    """What else was seen: `peak_mb`, `loss`, …"""


Work = Callable[[], Taken | None]


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The turns of each side, in order, and how busy other work kept the machine before them."""

    turns: Mapping[str, Sequence[Taken]]
    others: Sequence[float]

    def ratios(self, over: str, under: str, of: str = "seconds") -> list[float]:
        """`over` ÷ `under`, round by round: of seconds, of `cpu`, or of one of `more`."""
        pairs = zip(self.of(over, of), self.of(under, of), strict=True)
        return [one / other for one, other in pairs]

    def of(self, side: str, what: str = "seconds") -> list[float]:
        """A side's figures, round by round."""
        return [
            getattr(turn, what) if what in ("seconds", "cpu") else turn.more[what]
            for turn in self.turns[side]
        ]

    def speedup(self, fast: str, slow: str) -> Figure:
        """How many times as much work `fast` does in the same time."""
        return self.ratio(slow, fast, "seconds")

    def ratio(self, over: str, under: str, of: str = "seconds") -> Figure:
        """`over` ÷ `under`, with the ratio of processor times beside a ratio of seconds."""
        cpu = self.ratios(over, under, "cpu") if of == "seconds" else []
        others = self._disturbing(of)
        return Figure(values=self.ratios(over, under, of), cpu=cpu, others=others, turns=self.turns)

    def figure(self, side: str, what: str = "seconds") -> Figure:
        """A side's own figure."""
        others = self._disturbing(what)
        return Figure(values=self.of(side, what), others=others, turns=self.turns)

    def _disturbing(self, what: str) -> Sequence[float]:
        """The other work beside a figure; none beside memory."""
        return () if what.endswith("_mb") else self.others


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as often as it was measured."""

    values: Sequence[float]
    cpu: Sequence[float] = ()
    """The same by processor time, which other work on the machine disturbs less."""
    others: Sequence[float] = ()
    turns: Mapping[str, Sequence[Taken]] = field(default_factory=dict)


def take_turns(sides: Mapping[str, Work], rounds: int, *, warm_up: bool = True) -> Rounds:
    """Have each side do its work `rounds` times, in turns; once more before, which is not kept.

    Every second round goes the other way round, so that no side always follows the same one.
    """
    turns: dict[str, list[Taken]] = {name: [] for name in sides}
    others: list[float] = []
    if warm_up:
        for work in sides.values():
            work()
    for number in range(rounds):
        order = list(sides.items())
        for name, work in order if number % 2 == 0 else reversed(order):
            others.append(busy_cores())
            turns[name].append(timed(work))
    return Rounds(turns=turns, others=others)


def timed(work: Work) -> Taken:
    """What the work took, by its own account if it gives one."""
    cpu, started = time.process_time(), time.perf_counter()
    own = work()
    seconds = time.perf_counter() - started
    return own or Taken(seconds=seconds, cpu=time.process_time() - cpu)


def child(command: Sequence[str | Path], **how: Any) -> Taken:
    """Run a command: its wall and processor time, with its children's.

    If the last line that it prints is a JSON object, its numbers are in `more`, and its `seconds`
    and `cpu`, if it has them, in place of the command's. (Its memory it must say itself: what the
    system says of a child counts what its parent held at its start.)
    """
    started = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, **how) as run:
        assert run.stdout is not None
        lines = run.stdout.read().splitlines()
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {run.returncode}")
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    cpu = said.pop("cpu", used.ru_utime + used.ru_stime)
    return Taken(seconds=said.pop("seconds", seconds), cpu=cpu, more=said)


def peak_mb() -> float:
    """The largest memory that this process has had since it was started."""
    status = dict(each.split(":", 1) for each in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def busy_cores(seconds: float = 0.3) -> float:
    """How many cores are at work while this process sleeps; 0 where the system does not say."""
    before = _busy()
    time.sleep(seconds)
    return max(0.0, (_busy() - before) / seconds)


def _busy() -> float:
    """Seconds that all cores have worked since the machine started."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def report(
    measure: str,
    words: str,
    figure: Figure | Iterable[float],
    *,
    unit: str,
    at_least: float | None = None,
    at_most: float | None = None,
    **conditions: Any,
) -> dict[str, Any]:
    """Print a figure and append it to the results.

    Args:
        measure: Its short name, by which tables find it, such as `step.fp32.trainer`.
        words: What it is, for a reader.
        figure: What was measured, or plain numbers.
        unit: `×`, `s`, `ms`, `%`, …
        at_least: What is to be reached, of a figure that should be high.
        at_most: The same of one that should be low.
        conditions: What else a reader must know: rows, precision, device, …
    """
    if not isinstance(figure, Figure):
        figure = Figure(values=list(figure))
    middle = statistics.median(figure.values)
    met = None
    if at_least is not None or at_most is not None:
        met = (at_least is None or middle >= at_least) and (at_most is None or middle <= at_most)
    others = statistics.mean(figure.others) if figure.others else None
    record = {
        "measure": measure,
        "words": words,
        "unit": unit,
        **_spread(figure.values),
        "cpu": _spread(figure.cpu) if figure.cpu else None,
        "at_least": at_least,
        "at_most": at_most,
        "met": met,
        "quiet": None if others is None else others <= QUIET,
        "others": others,
        "conditions": conditions,
        "sides": {
            side: [{"seconds": t.seconds, "cpu": t.cpu, **t.more} for t in turns]
            for side, turns in figure.turns.items()
        },
    }
    print(line(record), flush=True)
    return _append(record)


def report_parts(
    measure: str, words: str, parts: Mapping[str, float], **conditions: Any
) -> dict[str, Any]:
    """Print where a time goes, the share of each part in percent, and append it to the results."""
    print(f"{measure}: {words}", flush=True)
    for part, share in parts.items():
        print(f"  {share:5.1f} %  {part}", flush=True)
    return _append(
        {"measure": measure, "words": words, "parts": dict(parts), "conditions": conditions}
    )


def report_table(
    measure: str,
    words: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    **conditions: Any,
) -> dict[str, Any]:
    """Print figures that are read beside one another, and append them to the results."""
    print(f"{measure}: {words}", flush=True)
    for row in (columns, *rows):
        print("  " + " | ".join("" if cell is None else str(cell) for cell in row), flush=True)
    table = {"columns": list(columns), "rows": list(map(list, rows))}
    return _append({"measure": measure, "words": words, "table": table, "conditions": conditions})


def _append(record: dict[str, Any]) -> dict[str, Any]:
    record = {
        **record,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        # Of folders and files their names: where they lie is nobody else's concern.
        "command": " ".join(re.sub(r"[^\s=]*/", "", argument) for argument in sys.argv),
        **surroundings(),
        "threads": _threads(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return record


def line(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    text = f"{record['measure']}: {spread(record)}"
    if record["cpu"]:
        text += f"; by processor time {spread({**record['cpu'], 'unit': record['unit']})}"
    if record["met"] is not None:
        text += f"; to reach {goal(record)}: {judgement(record)}"
    if record["quiet"] is False:
        text += f"; DISTURBED, {record['others']:.1f} cores were at other work"
    return f"{text}  ({record['words']})"


def spread(record: Mapping[str, Any]) -> str:
    """The median with the lowest and the highest value."""
    unit = record["unit"]
    gap = "" if unit in ("×", "%") else " "
    text = f"{_number(record['median'])}{gap}{unit}"
    if record["rounds"] > 1:
        text += f" ({_number(record['lowest'])}–{_number(record['highest'])})"
    return text


def judgement(record: Mapping[str, Any]) -> str:
    """Whether what was to be reached is; a disturbed figure does not say."""
    if record["quiet"] is False:
        return "not judged"
    return "met" if record["met"] else "NOT met"


def goal(record: Mapping[str, Any]) -> str:
    """What is to be reached."""
    low, high = record["at_least"], record["at_most"]
    return f"≥ {_number(low)}" if low is not None else f"≤ {_number(high)}"


def _number(value: float) -> str:
    if value and abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:,.2f}" if abs(value) < 20 else f"{value:,.0f}"


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "rounds": len(values),
        "values": list(values),
    }


@cache
def surroundings() -> dict[str, Any]:
    """The machine, the versions and the commit."""
    return {
        "machine": {
            "cpu": _cpu("model name") or platform.processor() or platform.machine(),
            "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in _cpu("flags").split()],
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "gpu": _gpu(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()}
        | {name: found for name in ("kdsearch", *PACKAGES) if (found := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _cpu(what: str) -> str:
    """What Linux says of the first core."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = (each.split(":", 1)[1].strip() for each in lines if each.startswith(what))
    return next(found, "")


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    run = subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else None
