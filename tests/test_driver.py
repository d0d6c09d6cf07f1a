from __future__ import annotations

import io
import json
import re
import resource
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    FailingTraining,
    a_study,
    attempt_at,
    made_up_training,
    memory_ledger,
    outcome_of,
    resolved_of,
)
from rich.console import Console

from kdsearch.agenda import Agenda, Cost, Outcome, StudentTraining, Training, sizes
from kdsearch.agenda.outcome import LOST_WITHOUT_PROGRESS
from kdsearch.driver import (
    Deadline,
    Dispatcher,
    Estimate,
    Watch,
    duration,
    estimate,
    open_study,
    run_search,
)
from kdsearch.driver.watch import Display, Log, Note
from kdsearch.engine import Engine, Fleet, InProcessEngine, Queue, TabulatedEngine, Worker
from kdsearch.ledger import Ledger
from kdsearch.search import Bounds, Mse
from kdsearch.study import Resolved, parse_study


@dataclass
class CatchingEngine:
    """One slot, in which an exception ends a training and not the search, as in a Ray slot."""

    worker: Worker
    tells: bool = True
    """Whether the slot commits a failed attempt; else it dies without a word."""
    tried: list[str] = field(default_factory=list)
    fleet: Fleet = field(default_factory=Fleet)

    def run(self, queue: Queue) -> None:
        while not queue.complete:
            (request,) = queue.take()
            self.tried.append(request.training.key)
            try:
                self.worker(request.training)
            except Exception as error:
                if self.tells:
                    self.worker.fail(error, request.training)
                queue.lost(request.training.key, "its process ended", node="kdw7")
            else:
                queue.done(request.training.key)


def ready(folder: Path, resolved: Resolved) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    return ledger


def paper() -> Console:
    """Somewhere to print that is no terminal."""
    return Console(file=io.StringIO(), highlight=False, markup=False, soft_wrap=True)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False)


def text_on(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def requests(**sections: Any) -> tuple[Agenda, Ledger]:
    resolved = resolved_of(a_study(**sections))
    return Agenda(resolved), memory_ledger(resolved)


def seconds_of(training: Training) -> float:
    """What a made-up training takes: the students of the two models at different speeds."""
    if not isinstance(training, StudentTraining):
        return 100.0
    return {"small": 2.0, "big": 6.0}[training.model.name]


def timed(training: Training, folder: Path) -> Outcome:
    cost = Cost(seconds=seconds_of(training), device="none", host="here")
    return made_up_training(training, folder).model_copy(update={"cost": cost})


# -- durations and the estimate -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (3.4, "3 s"),
        (44, "40 s"),
        (89, "90 s"),
        (90, "2 min"),
        (44 * 60, "44 min"),
        (90 * 60, "1.5 h"),
        (47.9 * 3600, "47.9 h"),
        (50.4 * 3600, "2.1 days"),
        (123.6 * 86400, "124 days"),
        (9.4 * 365.25 * 86400, "9.4 years"),
    ],
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "estimating the time left"),
        ((180.0, 300.0), "about 3 to 5 min left"),
        ((40.0, 300.0), "about 40 s to 5 min left"),
        ((69_904_512.0, 321_400_000.0), "about 2.2 to 10 years left"),
        ((2_160_000.0, 4_320_000.0), "about 25 to 50 days left"),
        ((180.0, 181.0), "about 3 min left"),
    ],
)
def test_an_estimate_is_in_words(seconds: tuple[float, float] | None, words: str) -> None:
    assert Estimate(done=1, left=Bounds(fewest=1, most=2), seconds=seconds).in_words() == words


_ROWS = {"train": 20, "validation": 10, "test": 10}
TWO_DATASETS = {"apples": {"grammar": _ROWS}, "pears": {"grammar": {**_ROWS, "seed": 1}}}
TWO_STUDENTS = {
    "students": {"one": {"model": "small"}, "other": {"model": "big"}},
    "search": {
        "distance": ["ce"],
        "teacher": ["t_hs"],
        "student_temperature": ["tied"],
        "alpha": [1, 0.5],
        "temperature": {"broad": [1, 4]},
        "learning_rate": [1e-5],
    },
}


def test_an_estimate_multiplies_what_is_left_by_each_students_mean_and_shares_the_slots() -> None:
    agenda, _ = requests(**TWO_STUDENTS)
    # Two α, each with 2 broad and 4 further temperatures; what phase 2 adds is known at the end.
    start = estimate(agenda, 2)
    assert (start.done, start.seconds) == (0, None)
    assert start.in_words() == "estimating the time left"

    while not all(agenda.trained(case) for case in agenda.cases):
        training = agenda.requests()[0].training
        cost = Cost(seconds=seconds_of(training), device="none", host="here")
        agenda.add(training.key, outcome_of(training, 0.5, cost=cost))
        if not isinstance(training, StudentTraining):
            assert estimate(agenda, 2).seconds is None  # a teacher tells nothing of a student

    found = estimate(agenda, 2)
    done = sum(agenda.trained(case) for case in agenda.cases)
    left = {case.student: 12 - agenda.trained(case) for case in agenda.cases}
    assert (found.done, found.left) == (done, Bounds(fewest=24 - done, most=24 - done))
    took = (left["one"] * 2.0 + left["other"] * 6.0) / 2
    assert found.seconds == pytest.approx((took, took))


def test_a_student_of_unknown_speed_is_taken_to_be_as_fast_as_another_for_its_size() -> None:
    agenda, _ = requests(**TWO_STUDENTS)
    while not (trained := [c for c in agenda.cases if agenda.trained(c)]):
        training = agenda.requests()[0].training
        cost = Cost(seconds=seconds_of(training), device="none", host="here")
        agenda.add(training.key, outcome_of(training, 0.5, cost=cost))
    took = {"one": 2.0, "other": 6.0}[trained[0].student]
    size = {k.model: size for k, size in sizes(agenda.resolved).items() if k.role == "student"}
    own, another = {"one": ("small", "big"), "other": ("big", "small")}[trained[0].student]
    expected = 11 * took + 12 * took * size[another] / size[own]
    assert estimate(agenda, 1).seconds == pytest.approx((expected, expected))


def test_the_estimate_shrinks_to_nothing(tmp_path: Path) -> None:
    ledger = ready(tmp_path, resolved_of(a_study()))
    agenda = Agenda(ledger.resolved())
    bounds: list[Bounds] = []

    def look_up(training: Training) -> None:
        found = estimate(agenda, 2)
        bounds.append(found.left)
        assert found.left.fewest <= found.left.most
        ledger.write_outcome(timed(training, tmp_path))

    engine = TabulatedEngine(look_up=look_up, seconds=seconds_of, slots=2)
    run_search(agenda, ledger, engine, console=paper())
    assert [b.most for b in bounds] == sorted((b.most for b in bounds), reverse=True)
    end = estimate(agenda, 2)
    assert (end.left, end.in_words()) == (Bounds(fewest=0, most=0), "done")
    assert end.seconds == (0, 0)
    assert bounds[0].fewest <= end.done <= bounds[0].most


# -- the log, the note and the display ------------------------------------------------------------


def test_every_line_of_the_log_has_case_stage_and_key(tmp_path: Path) -> None:
    ledger = ready(tmp_path, resolved_of(a_study()))
    agenda = Agenda(ledger.resolved())
    engine = InProcessEngine(worker=Worker(folder=tmp_path, run_training=made_up_training))
    run_search(agenda, ledger, engine, console=paper())
    lines = (tmp_path / "launch.log").read_text().splitlines()
    pattern = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO case=sentences/big/small stage=\w+ "
        r"key=([0-9a-f]{24}) (started: .+|finished in 1\.0 s: validation=[01]\.\d{4}.*)"
    )
    matches = [re.fullmatch(pattern, line) for line in lines]
    assert all(matches), lines
    keys = [match[1] for match in matches if match]
    assert sorted(keys) == sorted([*agenda.results, *agenda.results])
    assert re.search(
        r"stage=student_temperature key=\w+ started: CE t_hs τ_t=4 τ_s=1", "\n".join(lines)
    )


def test_a_test_score_without_its_rows_is_logged_as_that(tmp_path: Path) -> None:
    agenda, _ = requests()
    (request,) = agenda.requests()
    log = Log(tmp_path)
    kept = {f"tested/{request.training.key}.{'a' * 64}.json.gz": "a" * 64}
    log.finished(request, outcome_of(request.training, digests=kept))
    log.finished(request, outcome_of(request.training))
    log.close()
    kept_line, other = (tmp_path / "launch.log").read_text().splitlines()
    assert kept_line.endswith("validation=0.5000")
    assert other.endswith("0.5000, but no test rows are kept, so that its noise is not known")


def test_a_score_of_0_is_logged_as_a_score_and_divergence_as_such(tmp_path: Path) -> None:
    agenda, _ = requests()
    (request,) = agenda.requests()
    log = Log(tmp_path)
    log.finished(request, outcome_of(request.training, 0.0, test=None))
    log.finished(request, outcome_of(request.training, None))
    log.failed(request, attempt_at(request.training.key, "no memory"), for_good=False)
    log.failed(request, attempt_at(request.training.key, "no memory"), for_good=True)
    log.close()
    lines = (tmp_path / "launch.log").read_text().splitlines()
    file = f"attempts/{request.training.key}/0.json"
    assert [line.split(f"{request} ")[1] for line in lines] == [
        "finished in 1.0 s: validation=0.0000",
        "finished in 1.0 s: diverged",
        f"failed, will be tried again (error on here): no memory; see {file}",
        f"failed for good (error on here): no memory; see {file}",
    ]
    assert "ERROR" in lines[2]


def test_nothing_in_the_log_controls_the_terminal_that_shows_it(tmp_path: Path) -> None:
    (request,) = requests()[0].requests()
    log = Log(tmp_path)
    log.failed(request, attempt_at(request.training.key, "\x1b[2J\u202e\x9b31m"), for_good=True)
    log.close()
    assert ": \\x1b[2J\\u202e\\x9b31m; see attempts/" in (tmp_path / "launch.log").read_text()


def test_a_search_that_goes_on_adds_to_the_log(tmp_path: Path) -> None:
    (request,) = requests()[0].requests()
    for _ in range(2):
        log = Log(tmp_path)
        log.started(request)
        log.close()
    assert len((tmp_path / "launch.log").read_text().splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_log_that_cannot_be_written_is_no_reason_to_stop_or_to_shout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (request,) = requests()[0].requests()
    log = Log(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # every write fails
    try:
        log.started(request)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "launch.log").read_text() == ""
    assert capfd.readouterr() == ("", "")


def slots(count: int) -> Engine:
    """An engine with so many slots."""
    return TabulatedEngine(look_up=lambda _: None, seconds=lambda _: 1.0, slots=count)


def noted(folder: Path) -> Any:
    return json.loads((folder / "running.json").read_text())


def test_the_note_says_what_runs_and_is_emptied(tmp_path: Path) -> None:
    (request,) = requests()[0].requests()
    training = request.training
    note = Note(Ledger(tmp_path), slots(1))
    assert (noted(tmp_path)["slots"], noted(tmp_path)["running"]) == (1, {})
    slot = {"name": "slot-1", "node": "simulated", "keys": []}
    assert noted(tmp_path)["fleet"]["slots"] == [slot]
    for end in ("finished", "failed"):
        note.started(request)
        (entry,) = noted(tmp_path)["running"].values()
        assert entry.pop("since") > 0
        assert entry == {
            "case": "sentences/big/small",
            "stage": "teacher_training",
            "training": "teacher big lr=1e-05",
        }
        if end == "finished":
            note.finished(request, outcome_of(training))
        else:
            note.failed(request, attempt_at(training.key), for_good=False)
        for _ in range(2):
            note.tick()
        assert noted(tmp_path)["running"] == {}


def test_what_ended_leaves_the_note_with_what_begins_in_its_place(tmp_path: Path) -> None:
    agenda, _ = requests(datasets=TWO_DATASETS)
    first, second = agenda.requests()
    note = Note(Ledger(tmp_path), slots(3))
    note._due = 0.0  # a second later
    note.started(first)
    note.finished(first, outcome_of(first.training))
    note._due = 0.0
    note.tick()
    assert list(noted(tmp_path)["running"]) == [first.training.key]
    note.started(second)
    assert list(noted(tmp_path)["running"]) == [second.training.key]


def test_with_many_slots_the_note_is_written_once_a_second_at_most_and_then_as_time_passes(
    tmp_path: Path,
) -> None:
    (request,) = requests()[0].requests()
    note = Note(Ledger(tmp_path), slots(3))
    note.started(request)
    note.tick()
    assert noted(tmp_path)["running"] == {}
    note._due = 0.0  # a second later
    note.tick()
    assert list(noted(tmp_path)["running"]) == [request.training.key]
    note.finished(request, outcome_of(request.training))
    assert list(noted(tmp_path)["running"]) == [request.training.key]
    note.close()
    assert noted(tmp_path)["running"] == {}


@dataclass
class Ticks(Watch):
    """Counts how often it is told that time has passed."""

    count: int = 0

    def tick(self) -> None:
        self.count += 1


def test_watches_are_told_that_time_passes_though_nothing_happens() -> None:
    agenda, ledger = requests()
    ticks = Ticks()
    dispatcher = Dispatcher(agenda, ledger, (ticks,))
    assert dispatcher.wanted == 1
    assert ticks.count == 0
    dispatcher._ticked -= 1.0  # a second later
    for _ in range(3):
        assert dispatcher.wanted == 1
    assert ticks.count == 1


def test_a_search_that_is_to_drain_wants_no_more_slots_though_all_are_busy() -> None:
    agenda, ledger = requests(erm=True)
    dispatcher = Dispatcher(agenda, ledger)
    assert dispatcher.take()
    before = dispatcher.wanted
    ledger.ask_to_stop(drain=True, person=True)
    dispatcher._ticked -= 1.0  # a second later
    assert dispatcher.wanted < before
    assert dispatcher.wanted == 1


def test_a_search_that_its_deadline_ends_is_not_stopped_by_a_person() -> None:
    agenda, ledger = requests()
    dispatcher = Dispatcher(agenda, ledger, deadline=Deadline(at=time.monotonic()))
    assert dispatcher.take() == ()
    assert ledger.stop_asked() == "drain"
    assert not ledger.stopped_by_person()


def test_before_a_deadline_students_are_trained_where_a_teacher_would_take_too_long() -> None:
    agenda, ledger = requests(datasets=TWO_DATASETS)

    def look_up(training: Training) -> None:
        cost = Cost(seconds=3600.0 if training.kind == "teacher" else 1.0, device="", host="")
        outcome = made_up_training(training, Path()).model_copy(update={"cost": cost})
        assert ledger.write_outcome(outcome)

    engine = TabulatedEngine(look_up=look_up, seconds=lambda training: 1.0)
    engine.run(Dispatcher(agenda, ledger, deadline=Deadline(at=time.monotonic() + 600)))
    assert sorted(view.traversed for view in agenda.views()) == [False, True]
    assert ledger.stop_asked() == "drain"


def test_a_search_leaves_an_empty_note(tmp_path: Path) -> None:
    ledger = ready(tmp_path, resolved_of(a_study()))
    worker = Worker(folder=tmp_path, run_training=made_up_training)
    agenda = Agenda(ledger.resolved())
    run_search(agenda, ledger, InProcessEngine(worker=worker), console=paper())
    assert json.loads((tmp_path / "running.json").read_text())["running"] == {}


def test_where_there_is_no_terminal_a_line_tells_how_far_the_search_is() -> None:
    agenda, _ = requests(**TWO_STUDENTS)
    console = paper()
    (request,) = agenda.requests()
    with Display(agenda, slots(2), console) as display:
        display.started(request)
        display.finished(request, outcome_of(request.training))
        display.started(request)  # less than ten seconds later: not a line of its own
    assert text_on(console) == (
        "0 of 24 students · 1 running · estimating the time left · sentences/big/other · "
        "teacher_training\n"
    )


def test_a_range_is_shown_while_the_number_of_students_is_not_known() -> None:
    agenda, _ = requests()
    console = paper()
    (request,) = agenda.requests()
    with Display(agenda, slots(2), console) as display:
        display.started(request)
    left = estimate(agenda, 2).left
    assert left.fewest < left.most
    assert text_on(console).startswith(f"0 of {left.fewest} to {left.most} students · ")


def test_in_a_terminal_there_is_a_bar() -> None:
    agenda, _ = requests(**TWO_STUDENTS)
    console = terminal()
    (request,) = agenda.requests()
    with Display(agenda, slots(2), console) as display:
        display.started(request)
    assert "0 of 24 students" in text_on(console)
    assert "sentences/big/other · teacher_training" in text_on(console)


# -- trainings that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tells", "granted", "tries"),
    [(True, 1, 1), (True, 3, 3), (False, 1, LOST_WITHOUT_PROGRESS)],
    ids=["raises", "raises thrice", "dies"],
)
def test_a_training_that_fails_is_shown_tried_again_and_left_out(
    tmp_path: Path, tells: bool, granted: int, tries: int
) -> None:
    def run_training(training: Training, folder: Path) -> Outcome:
        mse = isinstance(training, StudentTraining) and isinstance(training.objective, Mse)
        return FailingTraining(kind="student" if mse else "none")(training, folder)

    ledger = ready(tmp_path, resolved_of(a_study(tries=granted)))
    agenda = Agenda(ledger.resolved())
    engine = CatchingEngine(Worker(folder=tmp_path, run_training=run_training), tells)
    console = paper()
    run_search(agenda, ledger, engine, console=console)

    assert agenda.complete
    failed = [key for key, result in agenda.results.items() if result is None]
    assert failed
    assert all(engine.tried.count(key) == tries for key in failed)
    assert all(engine.tried.count(key) == 1 for key in agenda.results if key not in failed)
    assert all(view.phase2 is not None for view in agenda.views())

    message = (
        f"(error on {socket.gethostname()}): RuntimeError: cannot train a student"
        if tells
        else "(worker_lost on kdw7): its process ended"
    )
    shown = text_on(console)
    assert shown.count(f"failed for good {message}; see attempts/") == len(failed)
    assert shown.count("failed, will be tried again") == (tries - 1) * len(failed)
    assert (tmp_path / "launch.log").read_text().count(f"failed for good {message}") == len(failed)
    for key in failed:
        assert f"see attempts/{key}/1.{'txt' if tells else 'json'}\n" in shown
        attempts = ledger.attempts_of(key)
        assert {a.host for a in attempts} == {socket.gethostname() if tells else "kdw7"}
        assert [a.number for a in attempts] == list(range(1, tries + 1))
        assert {a.failure for a in attempts} == {"error" if tells else "worker_lost"}

    # Another driver knows of it, and has nothing left to do.
    assert Agenda(ledger.resolved(), ledger.results()).complete


def test_a_failure_is_shown_in_a_terminal_with_what_looks_like_markup() -> None:
    agenda, _ = requests()
    console = terminal()
    (request,) = agenda.requests()
    attempt = attempt_at(request.training.key, "shape [red] and [/nothing]")
    with Display(agenda, slots(1), console) as display:
        display.started(request)
        display.failed(request, attempt, for_good=True)
    assert "failed for good (error on here): shape [red] and [/nothing]" in text_on(console)


def test_a_failure_is_one_line_however_much_it_has_to_say(tmp_path: Path) -> None:
    agenda, _ = requests()
    (request,) = agenda.requests()
    message = "ValueError: no\nTraceback (most recent call last):\n" + "  weights missing\n" * 200
    attempt = attempt_at(request.training.key, message)
    console, log = paper(), Log(tmp_path)
    Display(agenda, slots(1), console).failed(request, attempt, for_good=True)
    log.failed(request, attempt, for_good=True)
    log.close()
    for text in (text_on(console), (tmp_path / "launch.log").read_text()):
        [line] = text.splitlines()
        assert "failed for good (error on here): ValueError: no Traceback" in line
        assert len(line) < 600
    assert f"see attempts/{request.training.key}/" in text_on(console)


def test_a_teacher_that_fails_for_good_blocks_its_cases_and_ends_the_search(
    tmp_path: Path,
) -> None:
    ledger = ready(tmp_path, resolved_of(a_study()))
    agenda = Agenda(ledger.resolved())
    engine = CatchingEngine(Worker(folder=tmp_path, run_training=FailingTraining(kind="teacher")))
    run_search(agenda, ledger, engine, console=paper())
    assert agenda.complete
    assert [view.blocked for view in agenda.views()] == ["no training of its teacher succeeded"]
    assert estimate(agenda, 1).left == Bounds(fewest=0, most=0)


# -- opening a study ------------------------------------------------------------------------------


def test_a_study_is_resolved_once(tmp_path: Path) -> None:
    study = parse_study(a_study(), place="study.yaml")
    ledger = Ledger(tmp_path)
    agenda = open_study(ledger, study, data_dir=None, place="study.yaml")
    before = (tmp_path / "resolved.json").stat().st_mtime_ns
    (request,) = agenda.requests()
    ledger.write_outcome(outcome_of(request.training))
    again = open_study(Ledger(tmp_path), study, data_dir=Path("gone"), place="study.yaml")
    assert list(again.results) == [request.training.key]
    assert (tmp_path / "resolved.json").stat().st_mtime_ns == before


def test_a_driver_sweeps_up_what_killed_workers_left(tmp_path: Path) -> None:
    study = parse_study(a_study(), place="study.yaml")
    open_study(Ledger(tmp_path), study, data_dir=None, place="study.yaml")
    left = [
        tmp_path / "outputs" / f".{'a' * 32}.tmp",
        tmp_path / "checkpoints" / f".{'b' * 24}.0123abcd.tmp" / "epoch-1" / "config.json",
        tmp_path / f".probe-{'c' * 32}",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (tmp_path / "outputs" / "whole.npy").write_bytes(b"whole")
    open_study(Ledger(tmp_path), study, data_dir=None, place="study.yaml")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["whole.npy"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert list(tmp_path.glob(".probe-*")) == []


def open_small(folder: Path, **sections: Any) -> Agenda:
    study = parse_study(a_study(**sections), place="x")
    return open_study(Ledger(folder), study, data_dir=None, place="new.yaml")


def test_a_study_that_has_not_begun_makes_way_for_another(tmp_path: Path) -> None:
    open_small(tmp_path)
    assert open_small(tmp_path, seed=1).resolved.study.seed == 1
    assert Ledger(tmp_path).resolved().study.seed == 1
