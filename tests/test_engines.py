from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    FailingTraining,
    RecordedTraining,
    a_study,
    attempt_at,
    made_up_training,
    memory_ledger,
    outcome_of,
    resolved_of,
    uniform,
)

from kdsearch.agenda import Agenda, Attempt, Bundle, Cost, Failure, Outcome, Request, Training
from kdsearch.driver import Deadline, Dispatcher
from kdsearch.engine import (
    Engine,
    InProcessEngine,
    Queue,
    RunTraining,
    TabulatedEngine,
    Worker,
)
from kdsearch.engine.ray_tune import RayTuneEngine
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Resolved, Role

pytestmark = pytest.mark.undisturbed

# -- the engines -------------------------------------------------------------------------------


def in_process(worker: Worker, slots: int) -> Engine:
    return InProcessEngine(worker=worker)


def tabulated(worker: Worker, slots: int) -> Engine:
    return TabulatedEngine(look_up=worker, seconds=lambda t: uniform("seconds", t.key), slots=slots)


ENGINES: dict[str, Callable[[Worker, int], Engine]] = {
    "inprocess": in_process,
    "tabulated": tabulated,
}


@pytest.fixture(params=[*sorted(ENGINES), "ray"])
def make_engine(request: pytest.FixtureRequest) -> Callable[[Worker, int], Engine]:
    """Makes an engine of a worker and a number of slots (Ray has its own number of them)."""
    if request.param == "ray":
        cluster = request.getfixturevalue("cluster")
        return lambda worker, slots: RayTuneEngine(worker=worker, cluster=cluster)
    return ENGINES[request.param]


# -- a study to run ----------------------------------------------------------------------------

RESOLVED = resolved_of(
    a_study(
        students={"one": {"model": "small"}, "other": {"model": "big"}},
        search={"alpha": [1, 0.5], "temperature": {"broad": [1, 4]}, "learning_rate": [1e-5]},
    )
)


def ready(folder: Path, resolved: Resolved = RESOLVED) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    return ledger


@dataclass
class Follower:
    """A watch that writes down what it sees."""

    started_keys: list[str] = field(default_factory=list)
    finished_keys: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, bool]] = field(default_factory=list)

    def started(self, request: Request) -> None:
        self.started_keys.append(request.training.key)

    def finished(self, request: Request, outcome: Outcome) -> None:
        self.finished_keys.append(outcome.key)

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        self.failures.append((attempt.key, attempt.failure, for_good))

    def tick(self) -> None: ...


def run(
    make_engine: Callable[[Worker, int], Engine],
    ledger: Ledger,
    run_training: RunTraining = made_up_training,
    slots: int = 2,
    watch: Follower | None = None,
) -> Agenda:
    agenda = Agenda(ledger.resolved(), ledger.results())
    dispatcher = Dispatcher(agenda, ledger, (watch,) if watch else ())
    worker = Worker(folder=ledger.folder, run_training=run_training)
    make_engine(worker, slots).run(dispatcher)
    assert dispatcher.complete
    return agenda


def run_one_by_one(resolved: Resolved) -> Agenda:
    """The study in a plain loop, the least urgent training first."""
    agenda = Agenda(resolved)
    while requests := agenda.requests():
        training = requests[-1].training
        agenda.add(training.key, made_up_training(training, Path()))
    return agenda


# -- what every engine does --------------------------------------------------------------------


def test_an_engine_decides_as_a_plain_loop_does(
    tmp_path: Path, make_engine: Callable[[Worker, int], Engine]
) -> None:
    found = run(make_engine, ready(tmp_path))
    assert found.complete
    assert found.views() == run_one_by_one(RESOLVED).views()


def test_an_engine_runs_every_training_exactly_once(
    tmp_path: Path, make_engine: Callable[[Worker, int], Engine]
) -> None:
    recorded = RecordedTraining(log=tmp_path / "runs.txt")
    ledger, follower = ready(tmp_path), Follower()
    agenda = run(make_engine, ledger, recorded, watch=follower)
    expected = dict.fromkeys(agenda.results, 1)
    assert len(expected) > 20
    assert Counter(recorded.runs()) == expected
    assert Counter(follower.started_keys) == expected
    assert Counter(follower.finished_keys) == expected
    assert {outcome.key for outcome in ledger.outcomes()} == set(expected)


@dataclass
class CarefulQueue:
    """A queue that notes which trainings were called done before the ledger had them."""

    queue: Dispatcher
    ledger: Ledger
    early: list[str] = field(default_factory=list)
    done_keys: list[str] = field(default_factory=list)

    def done(self, key: str) -> None:
        if self.ledger.outcome(key) is None:
            self.early.append(key)
        self.done_keys.append(key)
        self.queue.done(key)

    def take(self, roles: Collection[Role] = ROLES) -> Bundle:
        return self.queue.take(roles)

    def lost(
        self, key: str, message: str, failure: Failure = "worker_lost", node: str = ""
    ) -> None:
        self.queue.lost(key, message, failure, node)

    def release(self, key: str) -> None:
        self.queue.release(key)

    @property
    def finished(self) -> int:
        return self.queue.finished

    @property
    def complete(self) -> bool:
        return self.queue.complete

    @property
    def wanted(self) -> int:
        return self.queue.wanted

    @property
    def ready(self) -> Iterable[Role]:
        return self.queue.ready

    @property
    def ahead(self) -> Collection[str]:
        return self.queue.ahead


def test_an_outcome_is_in_the_ledger_before_its_training_is_called_done(
    tmp_path: Path, make_engine: Callable[[Worker, int], Engine]
) -> None:
    ledger = ready(tmp_path)
    queue: CarefulQueue = CarefulQueue(Dispatcher(Agenda(RESOLVED), ledger), ledger)
    plain: Queue = queue
    make_engine(Worker(folder=tmp_path, run_training=made_up_training), 2).run(plain)
    assert queue.early == []
    assert set(queue.done_keys) == {outcome.key for outcome in ledger.outcomes()}


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_engine_goes_on_where_another_stopped_and_repeats_nothing(
    tmp_path: Path, make_engine: Callable[[Worker, int], Engine], share: float
) -> None:
    whole = run_one_by_one(RESOLVED)
    ledger = ready(tmp_path)
    there = {key for key in whole.results if uniform("kept", key) < share}
    for key in there:
        outcome = whole.results[key]
        assert outcome is not None
        ledger.write_outcome(outcome)
    recorded, follower = RecordedTraining(log=tmp_path / "runs.txt"), Follower()
    resumed = run(make_engine, ledger, recorded, watch=follower)
    left = dict.fromkeys(set(whole.results) - there, 1)
    assert Counter(recorded.runs()) == Counter(follower.started_keys) == left
    assert resumed.views() == whole.views()


def test_an_outcome_that_another_worker_committed_stands(
    tmp_path: Path, make_engine: Callable[[Worker, int], Engine]
) -> None:
    ledger = ready(tmp_path)
    agenda = Agenda(RESOLVED)
    [teacher] = agenda.requests()
    first = outcome_of(teacher.training, 0.125)
    ledger.write_outcome(first)
    # The agenda does not know of it: the engine is asked to train what is done already.
    dispatcher = Dispatcher(agenda, ledger)
    make_engine(Worker(folder=tmp_path, run_training=made_up_training), 1).run(dispatcher)
    assert ledger.outcome(first.key) == agenda.results[first.key] == first


# -- what single engines do --------------------------------------------------------------------


def test_in_process_an_exception_passes_through_and_nothing_is_committed(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    with pytest.raises(RuntimeError, match="cannot train a student"):
        run(in_process, ledger, FailingTraining(kind="student"))
    kinds = Counter(outcome.training.kind for outcome in ledger.outcomes())
    assert kinds["teacher"] == 1
    assert kinds["student"] == 0
    assert ledger.attempts() == {}
    assert run(in_process, ledger).views() == run_one_by_one(RESOLVED).views()


@pytest.mark.parametrize("slots", [1, 3])
def test_the_clock_of_a_tabulated_search_is_that_of_slots_never_idle_without_need(
    slots: int,
) -> None:
    ledger = memory_ledger(RESOLVED)
    engine = TabulatedEngine(
        look_up=lambda training: ledger.write_outcome(made_up_training(training, Path())) and None,
        seconds=lambda _: 2.0,
        slots=slots,
    )
    engine.run(Dispatcher(Agenda(RESOLVED), ledger))
    trained = len(list(ledger.outcomes()))
    assert engine.busy == 2.0 * trained
    if slots == 1:
        assert engine.clock == engine.busy
    else:
        assert engine.busy / slots <= engine.clock < engine.busy


# -- the dispatcher ----------------------------------------------------------------------------


def dispatching(**sections: Any) -> tuple[Agenda, Ledger, Dispatcher, Follower]:
    resolved = resolved_of(a_study(**sections))
    agenda, ledger, follower = Agenda(resolved), memory_ledger(resolved), Follower()
    return agenda, ledger, Dispatcher(agenda, ledger, (follower,)), follower


def take(dispatcher: Dispatcher) -> str:
    (request,) = dispatcher.take()
    return request.training.key


def test_a_training_that_runs_is_not_handed_out_again() -> None:
    _, _, dispatcher, _ = dispatching()
    key = take(dispatcher)
    assert dispatcher.take() == ()
    assert not dispatcher.complete
    assert [request.training.key for request in dispatcher.running] == [key]


def test_a_lost_training_is_an_attempt_and_is_tried_again_until_it_has_failed_for_good() -> None:
    agenda, ledger, dispatcher, follower = dispatching(tries=1)
    key = take(dispatcher)
    dispatcher.lost(key, "killed")
    for _ in range(2):
        assert take(dispatcher) == key
        dispatcher.lost(key, "killed")
    assert dispatcher.complete
    assert agenda.results == {key: None}
    lost = (key, "worker_lost")
    assert follower.failures == [(*lost, False), (*lost, False), (*lost, True)]
    assert [a.message for a in ledger.attempts_of(key)] == ["killed"] * 3


def test_a_search_that_drains_gives_out_nothing_new_and_is_complete_when_nothing_runs() -> None:
    agenda, ledger, dispatcher, _ = dispatching(tries=1)
    key = take(dispatcher)
    ledger.ask_to_stop(drain=True, person=True)
    assert dispatcher.take() == ()
    assert not dispatcher.complete
    ledger.write_outcome(outcome_of(agenda.requests()[0].training))
    dispatcher.done(key)
    assert dispatcher.take() == ()
    assert dispatcher.complete
    assert not agenda.complete


def test_what_a_worker_had_not_begun_when_the_search_drained_is_no_try(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    agenda = Agenda(RESOLVED)
    dispatcher = Dispatcher(agenda, ledger)
    (request,) = dispatcher.take()
    ledger.ask_to_stop(drain=True, person=True)
    recorded = RecordedTraining(log=tmp_path / "runs.txt")
    Worker(folder=tmp_path, run_training=recorded)(request.training)
    dispatcher.done(request.training.key)
    assert recorded.runs() == []
    assert ledger.attempts() == {}
    assert dispatcher.complete


def test_a_role_whose_longest_training_would_end_behind_the_deadline_is_not_in_time() -> None:
    agenda = Agenda(RESOLVED)
    soon, later = (Deadline(at=time.monotonic() + seconds) for seconds in (60, 170))
    assert soon.in_time(agenda) == list(ROLES)  # nothing is known of their length
    request = agenda.requests()[0]
    cost = Cost(seconds=100.0, device="none", host="here")
    agenda.add(request.training.key, outcome_of(request.training, cost=cost))
    assert soon.in_time(agenda) == [role for role in ROLES if role != request.role]
    assert later.in_time(agenda) == list(ROLES)


def test_a_lost_training_that_had_committed_its_outcome_is_done() -> None:
    agenda, ledger, dispatcher, follower = dispatching()
    (request,) = dispatcher.take()
    key = request.training.key
    ledger.write_outcome(outcome_of(request.training))
    dispatcher.lost(key, "the node is gone")
    assert ledger.attempts() == {}
    assert agenda.results[key] == outcome_of(request.training)
    assert follower.finished_keys == [key]


def test_a_lost_training_that_had_told_of_its_failure_is_one_attempt() -> None:
    _, ledger, dispatcher, follower = dispatching(tries=2)
    key = take(dispatcher)
    ledger.write_attempt(attempt_at(key))
    dispatcher.lost(key, "the trial ended")
    assert follower.failures == [(key, "error", False)]
    assert len(ledger.attempts_of(key)) == 1


def test_a_training_that_was_given_up_is_handed_out_again_and_costs_no_try() -> None:
    _, ledger, dispatcher, follower = dispatching(tries=1)
    key = take(dispatcher)
    dispatcher.release(key)
    assert dispatcher.running == ()
    assert ledger.attempts() == {}
    assert take(dispatcher) == key
    assert follower.failures == []


def test_tries_of_an_earlier_driver_count() -> None:
    resolved = resolved_of(a_study(tries=2))
    ledger = memory_ledger(resolved)
    first = Dispatcher(Agenda(resolved), ledger)
    first.lost(take(first), "it hung", "timeout")
    agenda = Agenda(resolved, ledger.results())
    second = Dispatcher(agenda, ledger)
    key = take(second)
    second.lost(key, "it hung", "timeout")
    assert agenda.results == {key: None}


@dataclass(frozen=True)
class DrainingTraining:
    """`made_up_training` during which the search is asked to drain."""

    def __call__(self, training: Training, folder: Path) -> Outcome:
        Ledger(folder).ask_to_stop(drain=True, person=True)
        return made_up_training(training, folder)


def test_an_engine_ends_a_search_that_is_asked_to_drain(
    make_engine: Callable[[Worker, int], Engine], tmp_path: Path
) -> None:
    ledger = ready(tmp_path)
    agenda = run(make_engine, ledger, DrainingTraining())
    assert not agenda.complete
    assert 1 <= len(agenda.results) <= 2
    assert ledger.attempts() == {}
    ledger.forget_stop()
    assert run(make_engine, ledger).complete


# -- the worker --------------------------------------------------------------------------------


def test_a_worker_repeats_nothing_that_has_an_outcome(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    training = Agenda(RESOLVED).requests()[0].training
    recorded = RecordedTraining(log=tmp_path / "runs.txt")
    worker = Worker(folder=tmp_path, run_training=recorded)
    worker(training)
    worker(training)
    assert recorded.runs() == [training.key]
    assert ledger.outcome(training.key) == made_up_training(training, tmp_path)


def test_a_worker_commits_a_failure_with_its_traceback(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    training = Agenda(RESOLVED).requests()[0].training
    worker = Worker(folder=tmp_path, run_training=FailingTraining(kind="teacher"))
    with pytest.raises(RuntimeError) as caught:
        worker(training)
    worker.fail(caught.value, training)
    [attempt] = ledger.attempts_of(training.key)
    assert attempt.message == "RuntimeError: cannot train a teacher"
    assert "in __call__" in attempt.traceback
    assert (attempt.failure, attempt.number) == ("error", 1)
