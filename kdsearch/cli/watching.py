"""What `status` shows, once or again and again: test cases × stages, nodes × slots."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from kdsearch.agenda import (
    AHEAD,
    BLOCKED,
    COMPARES,
    DONE,
    LAZY,
    STARTS,
    TRAINS_TEACHER,
    WINNER,
    Agenda,
    CaseView,
)
from kdsearch.api import open_folder
from kdsearch.cli.options import count
from kdsearch.driver import duration
from kdsearch.errors import shown
from kdsearch.ledger import Ledger
from kdsearch.search import Decision

Facts = dict[str, Any]
"""What `status --json` prints."""

_SECONDS_BETWEEN = 1.0
_MOST_OF_A_CORE = 0.1
_WIDTH = 240
"""Of a table that no terminal bounds."""
_RUN, _WAIT = " run", " wait"
_PLAIN: dict[str, Any] = {"box": None, "padding": (0, 2, 0, 0)}
_HEADINGS = {
    TRAINS_TEACHER: "teacher",
    "teacher": "checkpoint",
    "student_temperature": "τ_s",
    "alpha": "α",
}


class Reader:
    """Reads a study's folder again and again, each outcome once."""

    def __init__(self, folder: Path) -> None:
        """Raises `InputError` for a folder without a study."""
        self._ledger, self._agenda = open_folder(folder)

    def read(self) -> tuple[Ledger, Agenda]:
        """The folder's ledger, and its agenda as it is now."""
        resolved, before = self._ledger.resolved(), self._agenda.results
        outcomes = [outcome for outcome in before.values() if outcome is not None]
        outcomes += self._ledger.outcomes({outcome.key for outcome in outcomes})
        results = self._ledger.results_with(outcomes)
        new = [key for key in results if key not in before]
        again = any(key not in results or results[key] is not before[key] for key in before)
        if again or resolved != self._agenda.resolved:
            self._agenda = Agenda(resolved, results)
        else:
            for key in new:
                self._agenda.add(key, results[key])
        return self._ledger, self._agenda


def follow(
    read: Callable[[], Facts], out: Console, tell: Callable[[Facts], None], *, live: bool
) -> None:
    """Show what `read` says until the search does not run any more: `live` on the terminal `out`.

    Else `tell` is called with it, and again whenever it has changed.
    """
    if live:
        with Live(console=out, auto_refresh=False) as shown_now:
            for facts in _facts(read):
                runs = facts["state"] == "running"
                # The last one stays, whatever its height.
                shown_now.update(_live_view(facts, out) if runs else view(facts), refresh=True)
        return
    before = None
    for facts in _facts(read):
        now = {name: value for name, value in facts.items() if name != "driver"}  # its heart beats
        if now != before:
            before = now
            tell(facts)


def _facts(read: Callable[[], Facts]) -> Iterator[Facts]:
    while True:
        began = time.monotonic()
        facts = read()
        took = time.monotonic() - began
        yield facts
        if facts["state"] != "running":
            return
        time.sleep(max(_SECONDS_BETWEEN, took / _MOST_OF_A_CORE))


def print_block(facts: Facts, out: Console) -> None:
    """Print what is known now, with the time, where there is no terminal."""
    out.print(time.strftime("%Y-%m-%d %H:%M:%S"))
    print_view(facts, out)
    out.print()


def print_view(facts: Facts, out: Console) -> None:
    """Print what is known now."""
    if not out.is_terminal:
        out.width = _WIDTH
    out.print(view(facts))


def view(facts: Facts) -> RenderableType:
    """What is known, for a person."""
    return Group(*_parts(facts))


def _live_view(facts: Facts, out: Console) -> RenderableType:
    """The same for the terminal `out`, with what matters least at its lower end.

    There it is cut off. Where the test cases have no room it has those that are under way.
    """
    parts: list[RenderableType] = [*_summary(facts), *_troubles(facts, most=out.height // 12)]
    if facts["slots"]:
        parts.append(_slots(facts, most=out.height // 4))
    parts += _unplaced(facts)
    if len(facts["cases"]) < out.height:
        every = Group(*parts, _cases(facts, facts["cases"]))
        if len(out.render_lines(every)) <= out.height:
            return every
    at_work = {run["case"] for run in facts["running"]}
    done = [row for row in facts["cases"] if row["stage"] == DONE]
    others = [row for row in facts["cases"] if row not in done and row not in _blocked(facts)]
    cases = [row for row in others if row["students"] or row["case"] in at_work]
    cases.sort(key=lambda row: row["case"] not in at_work)
    without = len(others) - len(cases)
    parts.append(_line(f"{count(len(done), 'test case')} done, {without} without a student yet"))
    if cases:
        parts.append(_cases(facts, cases))
    return Group(*parts)


def _parts(facts: Facts) -> Iterator[RenderableType]:
    yield from _summary(facts)
    yield _cases(facts, facts["cases"])
    if facts["slots"]:
        yield _slots(facts)
    yield from _unplaced(facts)
    yield from _troubles(facts)


def _summary(facts: Facts) -> Iterator[Text]:
    yield _line(
        f"{facts['name']}: {facts['state']}; {count(facts['students']['done'], 'student')} trained"
    )
    if facts["launching"]:
        yield _line(f"not started yet: {facts['launching']}")
    elif not facts["state"].startswith("complete"):
        yield _line(facts["left"])
        if facts["fused"]:
            yield _line(f"students in one pass: {facts['fused']}")
    for name, kept in facts["kept"].items():
        yield _line(f"kept of the outputs of {name}: {kept}")
    if driver := facts["driver"]:
        yield _line(
            f"driven by process {driver['pid']} on {driver['host']} since {driver['since']}"
        )


def _unplaced(facts: Facts) -> Iterator[Text]:
    """What the table of slots does not have."""
    ahead = sum(run["stage"] == AHEAD for run in facts["running"])
    if ahead:
        yield _line(f"{count(ahead, 'training')} of these ahead of a decision that may ask for it")
    if facts["slots_waiting"]:
        yield _line(f"{count(facts['slots_waiting'], 'more slot')} asked for, waiting for room")
    placed = [run for slot in facts["slots"] for run in (slot["run"], *slot["more"])]
    for run in facts["running"]:
        if run not in placed:
            yield _line(f"running for {_took(run)}: {_what(run)}")


def _troubles(facts: Facts, most: int | None = None) -> Iterator[Text]:
    """What is wrong; of each kind at most so many, the others as a number."""
    blocked = [f"{row['case']}: {row['stage']}" for row in _blocked(facts)]
    yield from _first(blocked, most, "test case", "blocked")
    nodes = [f"node {name} is left out: {why}" for name, why in facts["left_out"].items()]
    yield from _first(nodes, most, "node", "left out")
    if diverged := facts["diverged"] - len(facts["wrote_nothing"]):
        yield _line(f"{count(diverged, 'training')} diverged, without a score")
    yield from _first(facts["wrote_nothing"], most, "teacher", "without a text to learn from")
    if facts["doubts"]:
        yield _line(f"{count(facts['doubts'], 'doubt')} about data and models: see the report")
    yield from _first(facts["hints"], most, "hint", "to change the study")
    failed = [
        f"failed {failure['tries']}×: {failure['key']}: {failure['message']} "
        f"({failure['what']}; see {failure['file']})"
        for failure in facts["failed"]
    ]
    yield from _first(failed, most, "training", "failed for good")


def _first(lines: Sequence[str], most: int | None, noun: str, what: str) -> Iterator[Text]:
    yield from map(_line, lines[:most])
    if most is not None and len(lines) > most:
        yield _line(f"{count(len(lines) - most, f'more {noun}')} {what}")


def _blocked(facts: Facts) -> list[Facts]:
    return [row for row in facts["cases"] if row["stage"].startswith(BLOCKED)]


def _line(text: str) -> Text:
    return Text(shown(text), overflow="fold", no_wrap=False)  # else a soft wrap cuts it off


@dataclass(frozen=True)
class _FirstThatFits:
    """The first table that fits in; else the last, its first column at half the width at most."""

    tables: tuple[Table, ...]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        boundless = options.update(max_width=10 * _WIDTH)
        for table in self.tables:
            if Measurement.get(console, boundless, table).maximum <= options.max_width:
                yield table
                return
        table.columns[0].max_width = options.max_width // 2
        table.expand = Measurement.get(console, boundless, table).maximum > options.max_width
        yield table  # in which `_rest` gives way


def _cases(facts: Facts, rows: Sequence[Facts]) -> RenderableType:
    """With a column for each stage; where that is too wide, with one for those at work."""
    stages = list(dict.fromkeys(stage for each in facts["cases"] for stage in each["stages"]))
    wide = Table("test case", "students", "best", *map(_heading, stages), **_PLAIN)
    case = Column("test case", no_wrap=True)
    narrow = Table(case, "students", "best", _rest("stages"), **_PLAIN)
    for row in rows:
        students = f"{row['students']}{_of(row['students'], row['left'])}"
        best = "" if row["best"] is None else f"{row['best']:.4f}"
        known = row["stages"]
        wide.add_row(row["case"], students, best, *(known.get(stage, "") for stage in stages))
        at_work = [f"{_heading(s)} {v}" for s, v in known.items() if v.endswith((_RUN, _WAIT))]
        narrow.add_row(row["case"], students, best, "; ".join(at_work) or row["stage"])
    return _FirstThatFits((wide, narrow))


def _rest(heading: str) -> Column:
    """One that is cut to the width that the others leave, where the table is to expand."""
    return Column(heading, no_wrap=True, ratio=1)


def _heading(stage: str) -> str:
    return _HEADINGS.get(stage, stage)


def _of(done: int, left: dict[str, int]) -> str:
    """How many students there will be, while some are left."""
    if left["most"] == 0:
        return ""
    fewest, most = done + left["fewest"], done + left["most"]
    return f" of {most}" if fewest == most else f" of {fewest}-{most}"


def _slots(facts: Facts, most: int | None = None) -> RenderableType:
    """Of each node; of more than `most`, a line each, the others as a number."""
    runs = "runs" if most is None else _rest("runs")
    table = Table("node", "slot", runs, "for", **_PLAIN)
    by_node = sorted(facts["slots"], key=lambda slot: (slot["node"], _number(slot["name"])))
    rest = by_node[most:] if most is not None else []
    for node, slots in groupby(by_node[:most], key=lambda slot: str(slot["node"])):
        for number, slot in enumerate(slots):
            run = slot["run"]
            what, took = (_what(run), _took(run)) if run else ("-", "")
            if more := len(slot["more"]):
                what += f", and {more} more in the same pass"
            table.add_row("" if number else node, slot["name"], what, took)
    if rest:
        busy = sum(slot["run"] is not None for slot in rest)
        table.add_row("…", "", f"{count(len(rest), 'more slot')}, {busy} busy", "")
    return table if most is None else _FirstThatFits((table,))


def _number(slot: str) -> tuple[int, str]:
    """What slots are sorted by: slot-2 comes before slot-10."""
    number = slot.rpartition("-")[2]
    return (int(number) if number.isascii() and number.isdigit() else 0), slot


def _what(run: dict[str, Any]) -> str:
    return f"{run['case']} · {_heading(run['stage'])} · {run['training']}"


def _took(run: dict[str, Any]) -> str:
    return duration(time.time() - run["since"])


def _decided(decision: Decision) -> str:
    return DONE if decision.winner.value is None else str(decision.winner.value)


def stages_of(agenda: Agenda, view: CaseView, running: Collection[str]) -> dict[str, str]:
    """What has become of each stage of a test case, in words; nothing before it begins.

    `running` are the keys of the trainings that run.
    """
    starts = [STARTS] * bool(agenda.graph.starts(view.case))
    of_teacher = [TRAINS_TEACHER, *starts, "outputs"] if view.case.teacher else starts
    flips = view.search.flips
    axes = [axis.name for axis in view.space.compared]
    of_search = [*axes, "stable", LAZY] if flips else [COMPARES]
    of_winner = [WINNER] if agenda.resolved.study.further_seeds else []
    found = dict.fromkeys([*of_teacher, *of_search, *of_winner], "")
    if view.ready:
        found |= dict.fromkeys(of_teacher, "done")
        for decision in view.progress.decisions:
            found[decision.axis or COMPARES] = _decided(decision)
    if view.traversed and flips:
        found["stable"] = "waits"
    if view.phase2:
        found["stable"] = found[LAZY] = "done"
    if view.chosen is not None:
        found |= dict.fromkeys(of_winner, "done")
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for request in view.wanted:  # two of them are one training where checkpoints coincide
        wanted[request.stage].add(request.training.key)
    for stage, keys in wanted.items():
        runs = len(keys.intersection(running))
        words = ((runs, _RUN), (len(keys) - runs, _WAIT))
        found[stage] = ", ".join(f"{number}{what}" for number, what in words if number)
    if view.waits_for is not None:
        found[TRAINS_TEACHER] = f"after {view.waits_for.teacher}"
    if view.blocked:
        found[view.blocked_at] = "failed"
    return found
