from __future__ import annotations

import json
import random
import re
import uuid
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from conftest import portion
from fakes import (
    RecordedTraining,
    World,
    a_study,
    at_times_written,
    attempt_at,
    memory_ledger,
    outcome_of,
    random_study,
    resolved_of,
    search_through,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import Agenda, StudentTraining, left, unneeded, used
from kdsearch.analysis import analyse
from kdsearch.driver import Dispatcher, open_study
from kdsearch.driver.keep import Keep
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, OsDisk
from kdsearch.report import write_report
from kdsearch.study import parse_study

SEARCH = a_study()["search"]


class Launched:
    """A study that was launched in a folder, and what was said and run."""

    def __init__(self, folder: Path, *, run: bool = True, **sections: Any) -> None:
        self.said: list[str] = []
        study = parse_study(a_study(**sections), place="x")
        self.ledger = Ledger(folder)
        self.agenda = open_study(
            self.ledger, study, data_dir=None, place="study.yaml", say=self.said.append
        )
        self.opened = dict(self.agenda.results)
        log = folder.parent / f"{uuid.uuid4().hex}.log"
        work = RecordedTraining(log=log)
        if run:
            worker = Worker(folder=folder, run_training=work)
            InProcessEngine(worker=worker).run(Dispatcher(self.agenda, self.ledger))
        self.runs = work.runs()

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Kept, perhaps kept, new at least and at most, no longer needed."""
        found = re.match(
            r"kept (\d+)(?: \(and perhaps (\d+) more\))?, "
            r"new (\d+)(?: to (\d+))?, no longer needed (\d+)",
            self.said[-1],
        )
        assert found, self.said
        kept, perhaps, fewest, most, dropped = found.groups()
        return int(kept), int(perhaps or 0), int(fewest), int(most or fewest), int(dropped)


def with_search(**changes: Any) -> dict[str, Any]:
    return {"search": {**SEARCH, **changes}}


def outcomes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()}


# -- a changed study ------------------------------------------------------------------------------


def test_a_further_value_keeps_every_outcome_and_trains_only_what_is_new(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run")
    before = outcomes_in(tmp_path / "run")
    again = Launched(tmp_path / "run", **with_search(alpha=[1, 0.5, 0.2]))
    assert again.said[:-1] == [
        "study.yaml has changed since this folder was launched:",
        "  search.alpha[2]: absent → 0.2",
    ]
    kept, perhaps, fewest, most, dropped = again.counts
    assert kept + perhaps == len(first.runs)
    assert dropped == 0
    assert fewest <= len(again.runs) <= most
    assert again.runs
    assert set(again.runs).isdisjoint(first.runs)
    assert before.items() <= outcomes_in(tmp_path / "run").items()
    assert again.agenda.complete


def test_winner_seeds_that_are_asked_for_later_are_all_that_is_trained(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run")
    again = Launched(tmp_path / "run", winner_seeds=[0, 1, 2])
    assert again.counts == (len(first.runs), 0, 2, 2, 0)
    [case] = again.agenda.cases
    assert set(again.runs) == {training.key for training in again.agenda.further(case)}
    others = Launched(tmp_path / "run", winner_seeds=[0, 1, 3])
    assert others.counts == (len(first.runs) + 1, 0, 1, 1, 1)


def test_a_value_that_is_left_out_is_no_longer_needed_and_nothing_is_deleted(
    tmp_path: Path,
) -> None:
    first = Launched(tmp_path / "run")
    before = outcomes_in(tmp_path / "run")
    again = Launched(tmp_path / "run", **with_search(alpha=[1]))
    halves = {
        key
        for key, outcome in first.agenda.results.items()
        if outcome and isinstance(outcome.training, StudentTraining)
        if outcome.training.objective.parameters["alpha"] == 0.5
    }
    assert halves
    assert again.counts[-1] == len(halves)
    assert "nothing is deleted: see `kdsearch gc`" in again.said[-1]
    assert before.items() <= outcomes_in(tmp_path / "run").items()
    assert again.agenda.complete
    assert halves <= unneeded(again.agenda)


def test_a_study_that_is_changed_back_runs_nothing(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run")
    changed = Launched(tmp_path / "run", seed=7)
    assert changed.counts[0] == 0
    back = Launched(tmp_path / "run")
    assert back.runs == []
    assert back.counts == (len(first.runs), 0, 0, 0, len(changed.runs))
    assert Launched(tmp_path / "run").said == []


def test_the_earlier_studies_stay_beside_the_new_one(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        Launched(tmp_path / "run", seed=seed)
    files = ("resolved-1.json", "resolved-2.json", "resolved.json")
    studies = [json.loads((tmp_path / "run" / name).read_text())["study"] for name in files]
    assert [study["seed"] for study in studies] == [1, 2, 3]


class Crash(BaseException):
    """The process ends here."""


class DyingDisk(OsDisk):
    """The real disk, on which the process dies once `calls` calls that change it were done."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash

    def write(self, path: Path, content: bytes) -> None:
        self._count()
        super().write(path, content)

    def link(self, source: Path, target: Path) -> bool:
        self._count()
        return super().link(source, target)

    def replace(self, source: Path, target: Path) -> bool:
        self._count()
        return super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)


@pytest.mark.parametrize("calls", range(5))
def test_a_driver_that_dies_at_any_call_of_a_change_leaves_one_study_or_the_other(
    tmp_path: Path, calls: int
) -> None:
    first = Launched(tmp_path / "run")
    old, new = first.agenda.resolved, resolved_of(a_study(**with_search(alpha=[1])))
    with pytest.raises(Crash):
        Ledger(tmp_path / "run", DyingDisk(calls)).replace_resolved(new)
    assert first.ledger.resolved() == old
    again = Launched(tmp_path / "run", **with_search(alpha=[1, 0.5, 0.2]))
    assert set(again.runs).isdisjoint(first.runs)
    assert again.agenda.complete


def test_at_most_six_changed_lines_are_shown(tmp_path: Path) -> None:
    Launched(tmp_path / "run")
    changes = with_search(alpha=[1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    said = Launched(tmp_path / "run", run=False, **changes).said
    assert len(said) == 1 + 6 + 1 + 1
    assert said[-2] == "  1 more differences"


def test_a_study_of_another_name_is_refused(tmp_path: Path) -> None:
    Launched(tmp_path / "run")
    before = (tmp_path / "run" / "resolved.json").read_bytes()
    with pytest.raises(InputError) as refused:
        Launched(tmp_path / "run", name="other")
    assert [problem.what for problem in refused.value.problems] == [
        "name: small → other",
        "holds a different study from study.yaml",
    ]
    assert (tmp_path / "run" / "resolved.json").read_bytes() == before


def test_a_changed_study_that_cannot_be_used_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    Launched(tmp_path / "run")
    before = (tmp_path / "run" / "resolved.json").read_bytes()
    models = {**a_study()["models"], "big": {"path": "/nowhere"}}
    with pytest.raises(InputError, match="/nowhere is not a folder"):
        Launched(tmp_path / "run", models=models)
    assert (tmp_path / "run" / "resolved.json").read_bytes() == before


def test_a_further_data_set_leaves_those_before_it_as_they_were_read(tmp_path: Path) -> None:
    rows = [{"text": f"word{i} more{i}", "label": i % 2} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {
        "files": {"train": str(path)},
        "text": ["text"],
        "label": "label",
        "labels": ["no", "yes"],
    }
    first = Launched(tmp_path / "run", datasets={"own": own})
    path.unlink()
    other = {"grammar": {"train": 20, "validation": 10, "test": 10}}
    again = Launched(tmp_path / "run", datasets={"own": own, "other": other})
    assert set(again.runs).isdisjoint(first.runs)
    assert again.agenda.complete


def test_what_the_study_no_longer_asks_for_is_in_no_figure(tmp_path: Path) -> None:
    Launched(tmp_path / "run")
    changed = Launched(tmp_path / "run", **with_search(alpha=[1], teacher=["t_hs"]))
    alone = Launched(tmp_path / "alone", **with_search(alpha=[1], teacher=["t_hs"]))
    assert set(used(changed.agenda)) == set(alone.agenda.results)
    assert analyse(changed.agenda) == analyse(alone.agenda)
    reports = [write_report(each.ledger, each.agenda).read_text() for each in (changed, alone)]
    assert reports[0] == reports[1]


def test_a_failure_of_an_earlier_version_of_the_study_is_none_of_this_one(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run", run=False, tries=1)
    [request] = first.agenda.requests()
    first.ledger.write_attempt(attempt_at(request.training.key))
    again = Launched(tmp_path / "run", tries=1, seed=9)
    assert request.training.key in again.agenda.results
    assert request.training.key not in used(again.agenda)
    assert not any(view.blocked for view in again.agenda.views())


def test_more_tries_have_a_failed_training_tried_again(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run", run=False, tries=1)
    [request] = first.agenda.requests()
    first.ledger.write_attempt(attempt_at(request.training.key))
    again = Launched(tmp_path / "run", tries=2)
    assert request.training.key in again.runs


def test_the_weights_of_students_that_are_not_asked_for_stay(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run")
    students = {
        key
        for key, outcome in first.agenda.results.items()
        if outcome is not None and outcome.training.kind == "student"
    }
    changed = Launched(tmp_path / "run", seed=4)
    for key in students:
        (tmp_path / "run" / "students" / key).mkdir()
    Keep(changed.ledger, changed.agenda).remove()
    assert changed.ledger.kept_students() == students
    Keep(first.ledger, first.agenda).remove()
    assert len(first.ledger.kept_students()) < len(students)


def test_the_free_disk_need_hold_only_what_is_still_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Launched(tmp_path / "run", run=False)
    for _ in range(2):
        for request in first.agenda.requests():
            cost = outcome_of(request.training).cost.model_copy(update={"bytes_written": 10**9})
            outcome = outcome_of(request.training, cost=cost)
            first.ledger.write_outcome(outcome)
            first.agenda.add(outcome.key, outcome)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1, 1, 0))
    assert Launched(tmp_path / "run", run=False, **with_search(alpha=[1])).said
    with pytest.raises(InputError, match="0 kB is free"):
        Launched(tmp_path / "run", run=False, seed=5)


# -- what a study asks for ------------------------------------------------------------------------


@settings(max_examples=portion(60, 10))
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_a_study_will_ask_for_is_never_called_unneeded(seed: int) -> None:
    draw = random.Random(seed)
    resolved = resolved_of(at_times_written(draw, random_study(draw)))
    world = World(seed=seed, failing=draw.choice([0, 0.05]), diverging=draw.choice([0, 0.1]))
    end = search_through(resolved, memory_ledger(resolved), world)
    assert used(end) == end.results
    assert unneeded(end) == set()
    gone = set(draw.sample(sorted(end.results), draw.randint(1, len(end.results))))
    known = {key: result for key, result in end.results.items() if key not in gone}
    agenda = Agenda(resolved, known)
    assert unneeded(agenda) == set()
    assert left(agenda).most >= len(gone)


def test_what_a_failed_teacher_taught_before_is_not_unneeded_since_it_may_be_tried_again() -> None:
    resolved = resolved_of(a_study())
    end = search_through(resolved, memory_ledger(resolved), World(seed=1))
    results = {k: None if r and r.training.kind == "teacher" else r for k, r in end.results.items()}
    agenda = Agenda(resolved, results)
    assert agenda.complete
    assert [view.blocked is not None for view in agenda.views()] == [True]
    assert unneeded(agenda) == set()


def test_what_another_study_trained_is_unneeded_at_any_time() -> None:
    one, other = resolved_of(a_study()), resolved_of(a_study(seed=8))
    end = search_through(one, memory_ledger(one), World(seed=1))
    students = {k: r for k, r in end.results.items() if r and r.training.kind == "student"}
    assert unneeded(Agenda(other, students)) == set(students)
    assert unneeded(Agenda(one, students)) == set()


def test_the_trainings_left_are_counted_from_the_first_to_the_last() -> None:
    resolved = resolved_of(a_study())
    end = search_through(resolved, memory_ledger(resolved), World(seed=1))
    agenda = Agenda(resolved)
    total = len(end.results)
    while not agenda.complete:
        bounds = left(agenda)
        assert bounds.fewest <= total - len(agenda.results) <= bounds.most
        request = agenda.requests()[0]
        agenda.add(request.training.key, end.results[request.training.key])
    assert (left(agenda).fewest, left(agenda).most) == (0, 0)
