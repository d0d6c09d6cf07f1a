"""`kdsearch status --watch`: what it shows, from a folder's files alone, while they change."""

from __future__ import annotations

import io
import json
import queue
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import World, a_study, random_study, resolved_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from kdsearch.agenda import Agenda, Request
from kdsearch.api import open_folder
from kdsearch.cli.look import _status
from kdsearch.cli.watching import Reader, follow, print_view, stages_of
from kdsearch.driver import note_launch
from kdsearch.driver.watch import Note
from kdsearch.engine import Fleet, Queue, Slot
from kdsearch.ledger import Ledger, driver_lock
from kdsearch.study import Resolved

GRAMMAR = {"train": 20, "validation": 10, "test": 10}
TWO_CASES = {"apples": {"grammar": GRAMMAR}, "pears": {"grammar": {**GRAMMAR, "seed": 1}}}


class Standing:
    """An engine that stands still, with these trainings in its slots."""

    def __init__(self, requests: list[Request], waiting: int = 0) -> None:
        given = [*((request.training.key,) for request in requests), ()]
        self.room = 1
        self.fleet = Fleet(
            slots=tuple(
                Slot(name=f"slot-{number}", node=f"node{number % 2}", keys=keys)
                for number, keys in enumerate(given, 1)
            ),
            waiting=waiting,
            left_out={"node9": "it does not see /shared"},
        )

    def run(self, queue: Queue) -> None:
        raise AssertionError


class Search:
    """A study in a folder, in which trainings end one by one."""

    def __init__(self, folder: Path, resolved: Resolved | None = None, seed: int = 0) -> None:
        self.ledger = Ledger(folder)
        self.ledger.prepare()
        self.ledger.write_resolved(resolved or resolved_of(a_study(datasets=TWO_CASES)))
        self.agenda = Agenda(self.ledger.resolved())
        self.world = World(seed=seed)

    def train(self, number: int = 1) -> None:
        for _ in range(number):
            if self.agenda.complete:
                return
            training = self.agenda.requests()[0].training
            self.world.commit(self.ledger, training)
            self.agenda.add(training.key, self.ledger.outcome(training.key))

    def note(self, running: int) -> None:
        requests = list(self.agenda.requests()[:running])
        note = Note(self.ledger, Standing(requests, waiting=2))
        for request in requests:
            note.started(request)
        note.close()


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "run")


def blocks(folder: Path, *options: str) -> tuple[subprocess.Popen[str], queue.Queue[str]]:
    """`status --watch` in a pipe, and its lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "status", str(folder), "--watch", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    return process, lines


def test_in_a_pipe_there_is_a_line_of_json_per_change_until_the_search_ends(
    search: Search,
) -> None:
    folder = search.ledger.folder
    search.train(3)
    with driver_lock(folder):
        process, lines = blocks(folder, "--json")
        first = json.loads(lines.get(timeout=60))
        assert (first["state"], first["students"]["done"]) == ("running", 0)
        while not any(map(search.agenda.trained, search.agenda.cases)):
            search.train()
        while not (found := json.loads(lines.get(timeout=60)))["students"]["done"]:
            pass
        assert found["state"] == "running"
    while json.loads(lines.get(timeout=60))["state"] == "running":
        pass
    assert process.wait(timeout=60) == 0
    assert lines.empty()


def test_a_block_shows_cases_by_stages_and_nodes_by_slots(search: Search) -> None:
    folder = search.ledger.folder
    while not search.agenda.trained(search.agenda.cases[1]):
        search.train()
    search.note(running=3)
    [request, *_] = search.agenda.requests()
    with driver_lock(folder):
        process, lines = blocks(folder)
        shown = [lines.get(timeout=60)]
        while shown[-1] != "\n":
            shown.append(lines.get(timeout=60))
        process.terminate()
        process.wait(timeout=60)
    text = "".join(shown)
    assert request.stage == "teacher"  # the comparison of its checkpoints, as in the table
    assert f"{request.case} · checkpoint · {request.training}" in text
    [heading] = [line for line in shown if line.startswith("test case")]
    assert heading.split()[2:] == [
        *("students", "best", "teacher", "outputs", "checkpoint", "τ_s", "distance", "α"),
        *("stable", "lazy"),
    ]
    [row] = [line for line in shown if line.startswith("apples/big/small ") and " of " in line]
    assert "done" in row
    nodes = [line.split()[:2] for line in shown if "slot-" in line]
    assert nodes == [
        ["node0", "slot-2"],
        ["slot-4", "-"],
        ["node1", "slot-1"],
        ["slot-3", nodes[3][1]],
    ]
    assert "2 more slots asked for, waiting for room\n" in shown
    assert "node node9 is left out: it does not see /shared\n" in shown
    assert " left\n" in text


def test_a_terminal_shows_it_in_one_place_and_in_its_width(search: Search) -> None:
    search.train(12)
    search.note(running=1)
    reader, count = Reader(search.ledger.folder), 0

    def read() -> dict[str, Any]:
        nonlocal count
        count += 1
        facts = _status(*reader.read())
        return {**facts, "state": "running" if count < 2 else "complete"}

    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    follow(read, console, print, live=True)
    assert isinstance(console.file, io.StringIO)
    frames = console.file.getvalue().split("\x1b[?25l")[-1]
    assert "\x1b[1A" in frames  # the second frame stands over the first
    lines = [line.rpartition("\x1b[2K")[2] for line in frames.splitlines()]
    assert max(map(len, lines)) <= 100
    assert any("apples/big/small" in line for line in lines)


def test_a_terminal_cuts_off_no_hint(search: Search) -> None:
    facts = {**_status(search.ledger, search.agenda), "hints": ["try larger values " * 12]}
    out = Console(file=io.StringIO(), force_terminal=True, width=80, soft_wrap=True)
    print_view(facts, out)
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().split().count("larger") == 12


def first_frame(facts: dict[str, Any], width: int, height: int) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None
    )
    ends = iter([{**facts, "state": "running"}, {**facts, "state": "complete"}])
    follow(lambda: next(ends), console, print, live=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().partition("\r\x1b[2K")[0]


def test_a_terminal_that_is_too_narrow_for_the_stages_shows_those_at_work(search: Search) -> None:
    while not search.agenda.trained(search.agenda.cases[1]):
        search.train()
    search.note(running=1)
    with driver_lock(search.ledger.folder):
        facts = _status(search.ledger, search.agenda)
    wide, narrow = first_frame(facts, 150, 20), first_frame(facts, 90, 20)
    assert "distance" in wide
    assert "distance" not in narrow
    assert "checkpoint 1 run, " in narrow
    assert "…" not in narrow
    for named in (*facts["cases"], *facts["running"]):
        named["case"] += "x" * 20
    cut = first_frame(facts, 90, 20)
    assert re.search(r"x+ +1 of \d+-\d+ +0\.\d{4}  checkpoint 1 run.*…", cut)
    assert re.search(r" slot-1  .*… +\d+ s", cut)


def test_a_terminal_with_room_for_every_test_case_shows_them_all(search: Search) -> None:
    facts = _status(search.ledger, search.agenda)
    assert not any(row["students"] for row in facts["cases"])
    assert all(f"\n{case} " in first_frame(facts, 100, 20) for case in search.agenda.cases)


def test_a_terminal_shows_what_matters_of_a_search_that_is_higher_than_it(search: Search) -> None:
    [done, _] = _status(search.ledger, search.agenda)["cases"]
    stages = {**done["stages"], "distance": "mse"}
    runs = [{**done, "case": f"run/{i}", "stage": "alpha", "stages": stages} for i in range(20)]
    begun = [{**row, "case": f"begun/{i}", "students": 7} for i, row in enumerate(runs[:6])]
    facts = _status(search.ledger, search.agenda) | {
        "state": "running",
        "cases": [
            *({**done, "case": f"done/{i}", "stage": "done", "students": 9} for i in range(4)),
            *({**done, "case": f"new/{i}", "students": 0} for i in range(8)),
            *(
                {**done, "case": f"bad/{i}", "stage": "blocked: its teacher failed"}
                for i in range(7)
            ),
            *begun,
            *runs,
        ],
        "running": [
            {"case": f"run/{i}", "stage": "alpha", "training": "x", "since": 0} for i in range(20)
        ],
        "left_out": {f"node{i}": "it does not see /shared" for i in range(9, 15)},
        "failed": [
            {"tries": 3, "key": f"k{i}", "message": "out", "what": "why", "file": "f"}
            for i in range(9)
        ],
    }
    facts["slots"] = [
        {"node": f"n{i // 4:02}", "name": f"slot-{i}", "run": run, "more": []}
        for i, run in enumerate(facts["running"])
    ]
    ends = iter([facts, {**facts, "state": "complete"}])
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=40, color_system=None
    )
    follow(lambda: next(ends), console, print, live=True)
    assert isinstance(console.file, io.StringIO)
    first, _, last = console.file.getvalue().partition("\r\x1b[2K")
    assert len(first.splitlines()) <= 40
    for words in (
        "node node9 is left out",
        "bad/2: blocked: its teacher failed",
        "4 more test cases blocked",
        "3 more nodes left out",
        "failed 3×: k2",
        "6 more trainings failed for good",
        "run/9 · α · x",
        "10 more slots, 10 busy",
        "4 test cases done, 8 without a student",
    ):
        assert words in first
    table = first.partition("test case ")[2]
    assert "run/0 " in table
    assert not any(row in table for row in ("begun/0", "done/0", "new/0", "bad/0"))
    assert all(
        f"\n{case}/{i} " in last.replace("\x1b[2K", "") for case, i in (("new", 7), ("run", 19))
    )


def test_a_training_that_is_being_given_out_is_in_the_only_slot_that_is_free(
    search: Search,
) -> None:
    search.train(3)
    first, second, *_ = search.agenda.requests()
    note = Note(search.ledger, Standing([first]))
    for request in (first, second):
        note.started(request)
    note.close()
    with driver_lock(search.ledger.folder):
        slots = _status(search.ledger, search.agenda)["slots"]
    assert [slot["run"]["training"] for slot in slots] == [
        str(first.training),
        str(second.training),
    ]


def test_what_a_launch_waits_for_is_shown_until_its_search_begins(search: Search) -> None:
    waits = "waiting for a node with room for 1 CPU and 1 rare"
    note_launch(search.ledger, waits)
    with driver_lock(search.ledger.folder):
        facts = _status(search.ledger, search.agenda)
        assert f"not started yet: {waits}\n" in first_frame(facts, 100, 20)
        search.note(running=1)
        facts = _status(search.ledger, search.agenda)
        assert "not started yet" not in first_frame(facts, 100, 20)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_read_bit_by_bit_is_what_is_read_at_once(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = random.Random(seed)
    folder = tmp_path_factory.mktemp("read")
    search = Search(folder / "run", resolved_of({**random_study(draw), "tries": 1}), seed)
    search.world.failing = 0.1
    reader = Reader(search.ledger.folder)
    for _ in range(8):
        search.train(draw.randint(0, 6))
        failed = [key for key, result in search.agenda.results.items() if result is None]
        if failed and draw.random() < 0.5:
            search.ledger.forgive(failed[0])
            search.agenda = Agenda(search.agenda.resolved, search.ledger.results())
            search.world.failing = 0.0
        _, found = reader.read()
        _, whole = open_folder(search.ledger.folder)
        assert found.results == whole.results
        assert found.requests() == whole.requests()
        for one, other in zip(found.views(), whole.views(), strict=True):
            assert stages_of(found, one, ()) == stages_of(whole, other, ())


def test_what_was_chosen_is_a_stage_of_its_own_under_winner_seeds(tmp_path: Path) -> None:
    search = Search(tmp_path / "run", resolved_of(a_study(winner_seeds=[0, 1, 2])))
    found: dict[str, None] = {}
    while "done" not in found:
        [view] = search.agenda.views()
        found[stages_of(search.agenda, view, ())["winner"]] = None
        search.train()
    assert list(found) == ["", "2 wait", "1 wait", "done"]


def test_the_stages_of_a_search_that_has_ended_are_decided(tmp_path: Path) -> None:
    search = Search(tmp_path, resolved_of(a_study(erm=True)))
    search.world.coinciding = 0
    while not search.agenda.complete:
        search.train()
    view, without_teacher = search.agenda.views()
    assert stages_of(search.agenda, without_teacher, ()) == {"comparison": "done"}
    found = stages_of(search.agenda, view, ())
    decided = {name: found[name] for name in ("teacher", "distance", "alpha")}
    assert decided["teacher"] in ("t_hs", "t_ll")
    assert decided["distance"] in ("ce", "mse")
    assert decided["alpha"] in ("1.0", "0.5")
    rest = found.keys() - decided.keys() - {"student_temperature"}  # MSE has none
    assert {found[name] for name in rest} == {"done"}
