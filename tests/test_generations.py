"""Students that teach: self-distillation, and generations of it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import portion
from fakes import (
    World,
    a_study,
    memory_ledger,
    random_study,
    resolved_of,
    search_through,
    uniform,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from models import begin, run_study, tiny_study
from safetensors.torch import load_file

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
    case_counts,
    left,
    unneeded,
)
from kdsearch.analysis import analyse
from kdsearch.cli.look import stage_of
from kdsearch.cli.watching import stages_of
from kdsearch.distill import run_training
from kdsearch.driver import Dispatcher
from kdsearch.driver.keep import Keep
from kdsearch.engine import TabulatedEngine
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.report.document import document
from kdsearch.search import Checkpoint
from kdsearch.study import Resolved, TestCase, parse_study


def generations(count: int = 3, **first: Any) -> dict[str, Any]:
    """The teachers of so many generations: g1, and the students that teach."""
    later = {f"g{i}": {"student_of": f"g{i - 1}"} for i in range(2, count + 1)}
    return {"g1": first or a_study()["teachers"]["big"], **later}


def case(teacher: str, student: str = "small") -> TestCase:
    return TestCase(dataset="sentences", teacher=teacher, student=student)


SMALL = a_study()["students"]


def with_depths(resolved: Resolved) -> Resolved:
    """The study as if its models had been looked at: four layers, and one."""
    depths = {"big": 4, "small": 1}
    known = {n: m.model_copy(update={"depth": depths[n]}) for n, m in resolved.models.items()}
    return resolved.model_copy(update={"models": known})


# -- the order of things -----------------------------------------------------------------------


class Waits:
    """A watch that looks whether a generation began before the one before it had chosen."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.begun: set[TestCase] = set()

    def started(self, request: Any) -> None:
        views = {view.case: view for view in self.agenda.views()}
        for before in views[request.case].before:
            assert views[before].chosen is not None
        self.begun.add(request.case)

    def finished(self, request: Any, outcome: Outcome) -> None: ...

    def failed(self, request: Any, attempt: object, *, for_good: bool) -> None: ...

    def tick(self) -> None: ...


@settings(max_examples=portion(200, 6))
@given(seed=st.integers(0, 2**32 - 1), slots=st.integers(1, 8))
def test_a_generation_begins_once_the_one_before_has_chosen_in_whatever_order_trainings_end(
    seed: int, slots: int
) -> None:
    draw = random.Random(seed)
    raw = random_study(draw)
    raw["teachers"] = generations(**raw["teachers"]["t0"])
    resolved, world = resolved_of(raw), World(seed=seed, failing=draw.choice([0, 0.05]))
    found = []
    for order in (0, 1):
        agenda, ledger = Agenda(resolved), memory_ledger(resolved)
        waits = Waits(agenda)
        TabulatedEngine(
            look_up=lambda training, ledger=ledger: world.commit(ledger, training),
            seconds=lambda training, order=order: uniform(order, training.key),
            slots=slots,
        ).run(Dispatcher(agenda, ledger, (waits,)))
        assert waits.begun
        found.append(agenda.views())
    assert found[0] == found[1]


def test_the_teacher_of_a_generation_is_what_the_one_before_chose_under_the_first_seed() -> None:
    resolved = resolved_of(a_study(teachers=generations(2), seeds=[4, 5]))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    before, view = agenda.views()
    assert before.chosen is not None
    chosen = agenda.trainings(before, before.chosen)
    assert [training.seed for training in chosen] == [4, 5]
    assert list(view.outputs) == [Checkpoint.WINNER]
    for outputs in view.outputs[Checkpoint.WINNER]:
        assert outputs.checkpoint.training == chosen[0].key
        assert outputs.checkpoint.epoch is None
        assert outputs.checkpoint.model == chosen[0].model


def test_a_student_has_a_line_of_generations_of_its_own() -> None:
    students = {"small": {"model": "small"}, "big": {"model": "big", "layers": None}}
    resolved = resolved_of(a_study(teachers=generations(2), students=students))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=2))
    for view in agenda.views():
        for before in view.before:
            assert before.student == view.case.student
            [outputs] = view.outputs.values()
            assert outputs[0].checkpoint.model.name == view.case.student


def test_each_search_has_a_line_of_generations_of_its_own() -> None:
    own = {"strategy": "exhaustive", "objective": "ce", "temperature": [1], "learning_rate": [1e-5]}
    searches = {"ce": own, "mse": {**own, "objective": "mse"}}
    searches["mse"].pop("temperature")
    raw = a_study(teachers=generations(2), searches=searches)
    del raw["search"]
    resolved = resolved_of(raw)
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=2))
    taught = {
        (view.case.search, outputs[0].checkpoint.training)
        for view in agenda.views()
        for outputs in view.outputs.values()
        if view.before
    }
    assert len(taught) == 2
    assert len({training for _, training in taught}) == 2


def test_of_cases_alike_those_that_others_wait_for_come_first() -> None:
    grammar = {"train": 4, "validation": 2, "test": 2}
    datasets = {name: {"grammar": {**grammar, "seed": i}} for i, name in enumerate("ab")}
    blocks = [{"dataset": "a", "teacher": "g1"}, {"dataset": "b"}]
    agenda = Agenda(
        resolved_of(a_study(datasets=datasets, teachers=generations(2), test_cases=blocks))
    )
    assert [request.case.dataset for request in agenda.requests()] == ["b", "a"]


def test_a_generation_whose_predecessor_is_blocked_is_blocked_and_says_why() -> None:
    resolved = resolved_of(a_study(teachers=generations()))
    agenda = Agenda(resolved)
    for request in agenda.requests():
        agenda.add(request.training.key, None)
    assert agenda.complete
    first, second, third = agenda.views()
    assert first.blocked == "no training of its teacher succeeded"
    assert second.blocked == "sentences/g1/small, which its teacher comes from, is blocked"
    assert third.blocked == "sentences/g2/small, which its teacher comes from, is blocked"


def test_a_generation_after_one_without_any_score_is_blocked_and_says_why() -> None:
    resolved = resolved_of(a_study(teachers=generations(2)))
    agenda, ledger = Agenda(resolved), memory_ledger(resolved)
    world = World(seed=1)
    while requests := agenda.requests():
        training = requests[0].training
        world.commit(ledger, training)
        failed = isinstance(training, StudentTraining)
        agenda.add(training.key, None if failed else ledger.results()[training.key])
    assert agenda.views()[1].blocked == (
        "no student of sentences/g1/small has a score, so none can teach"
    )


def test_what_a_generation_waits_for_is_said() -> None:
    agenda = Agenda(resolved_of(a_study(teachers=generations())))
    _, second, third = agenda.views()
    assert stage_of(second) == "waits for sentences/g1/small, whose choice is its teacher"
    assert stage_of(third) == "waits for sentences/g2/small, whose choice is its teacher"
    stages = [stages_of(agenda, view, ())["teacher_training"] for view in (second, third)]
    assert stages == ["after g1", "after g2"]
    reasons = [each.reason for each in analyse(agenda).cases[1:]]
    assert reasons == [
        f"its teacher is what sentences/g{i}/small chooses, whose search is not finished"
        for i in (1, 2)
    ]


def test_later_generations_count_from_the_start() -> None:
    resolved = resolved_of(a_study(teachers=generations()))
    agenda = Agenda(resolved)
    counts = [case_counts(resolved.study, each) for each in agenda.cases]
    assert [each.teachers for each in counts] == [1, 0, 0]
    assert counts[1].outputs.fewest == counts[1].outputs.most == 3
    before = left(agenda)
    assert before.fewest >= 1 + sum(each.outputs.fewest + each.students.fewest for each in counts)
    done = search_through(resolved, memory_ledger(resolved), World(seed=3))
    assert before.fewest <= len(done.results) <= before.most
    assert left(done).most == 0


def test_what_a_later_generation_trained_may_be_needed_again_while_the_first_is_searched() -> None:
    raw = a_study(teachers=generations(2))
    resolved = resolved_of(raw)
    results = dict(search_through(resolved, memory_ledger(resolved), World(seed=3)).results)
    wider = resolved_of({**raw, "search": {**raw["search"], "learning_rate": [1e-5, 2e-5, 3e-5]}})
    agenda = Agenda(wider, results)
    assert not agenda.views()[1].ready
    taught = {
        key
        for key, o in results.items()
        if o is not None and isinstance(o.training, OutputsTraining | StudentTraining)
    }
    assert taught.isdisjoint(unneeded(agenda))


def test_what_may_be_needed_again_of_terms_is_of_the_layers_of_a_students_own_line() -> None:
    raw = a_study(teachers=generations(2), students={"deep": {"model": "big"}, **SMALL})
    raw["search"]["attention"] = [1]
    resolved = with_depths(resolved_of(raw))
    results = dict(search_through(resolved, memory_ledger(resolved), World(seed=1)).results)
    searched = [o for o in results.values() if o and isinstance(o.training, StudentTraining)]
    again = {o.key for o in searched if o.training.seed == 0 and o.training.learning_rate == 1e-5}
    agenda = Agenda(resolved, {key: o for key, o in results.items() if key not in again})
    assert not all(view.ready for view in agenda.views())
    assert unneeded(agenda) == set()


@pytest.mark.parametrize(
    "terms",
    [
        {"attention": [1], "hint": [1], "relations": [1]},
        {"targets": ["data", "beam"], "attention": [0, 1], "layer_mapping": ["uniform", "last"]},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_counts_what_terms_compare_and_nothing_twice(
    seed: int, terms: dict[str, Any]
) -> None:
    raw = a_study(teachers=generations(2))
    few = {"distance": ["mse"], "teacher": ["t_hs"], "alpha": [1], "learning_rate": [1e-5]}
    raw["search"] = {**few, **terms}
    resolved = with_depths(resolved_of(raw))
    end = search_through(resolved, memory_ledger(resolved), World(seed=seed))
    draw, agenda = random.Random(seed), Agenda(resolved)
    while not agenda.complete:
        if draw.random() < 0.2 or not agenda.results:
            bounds, to_come = left(agenda), len(end.results) - len(agenda.results)
            assert bounds.fewest <= to_come <= bounds.most
        key = draw.choice(agenda.requests()).training.key
        agenda.add(key, end.results[key])
    assert left(agenda).most == 0


# -- what a study file may say -----------------------------------------------------------------


def problems(**sections: Any) -> list[str]:
    with pytest.raises(InputError) as refused:
        parse_study(a_study(**sections), place="study.yaml")
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"student_of": "gone"}, "teachers.second.student_of: gone is not a teacher"),
        ({"student_of": "second"}, "goes round in a circle: second → second"),
        ({"student_of": "first", "model": "big"}, "give exactly one of model, checkpoint"),
        (
            {"student_of": "first", "fine_tune": {"epochs": 2}},
            "a student that teaches is not fine-tuned; remove fine_tune",
        ),
        ({"student_of": "first", "layers": 2}, "a student that teaches is used whole"),
        ({"student_of": "first", "labels": ["a", "b"]}, "labels name the outputs of a given"),
        (
            {"student_of": "first", "training": {"epochs": 2}},
            "a student that teaches is not trained again; remove epochs from training",
        ),
    ],
)
def test_a_student_that_cannot_teach_is_refused(second: dict[str, Any], words: str) -> None:
    first = a_study()["teachers"]["big"]
    [problem] = problems(teachers={"first": first, "second": second})
    assert words in problem


def test_teachers_that_are_students_of_each_other_are_refused() -> None:
    pair = {"second": {"student_of": "third"}, "third": {"student_of": "second"}}
    found = problems(teachers={"first": a_study()["teachers"]["big"], **pair})
    assert any("second → third → second" in each for each in found)
    assert any("third → second → third" in each for each in found)


def test_a_generation_whose_predecessor_is_no_test_case_is_refused() -> None:
    [problem] = problems(teachers=generations(), test_cases=[{"teacher": ["g1", "g3"]}])
    assert "sentences/g3/small learns from what sentences/g2/small chooses, which is no" in problem


@pytest.mark.parametrize("name", ["epoch 0", "epoch 01", "epoch", "epoch 1.5", "given", "winner"])
def test_what_is_no_checkpoint_of_a_teacher_is_refused(name: str) -> None:
    [problem] = problems(search={"teacher": ["t_hs", name]})
    assert "is not a checkpoint of a teacher" in problem
    assert "available: t_hs, t_ll, or epoch N" in problem


def test_an_epoch_that_a_teacher_does_not_come_to_is_refused() -> None:
    teacher = {"big": {"model": "big", "fine_tune": {"epochs": 3}}}
    parse_study(a_study(teachers=teacher, search={"teacher": ["epoch 3"]}), place="study.yaml")
    [problem] = problems(teachers=teacher, search={"teacher": ["t_hs", "epoch 4"]})
    assert "epoch 4 is beyond the 3 of big on sentences (teachers.big.fine_tune.epochs)" in problem


def test_a_given_pair_has_no_epochs() -> None:
    models = {**a_study()["models"], "tuned": {"path": "/models/tuned"}}
    pair = {"models": models, "teachers": {"pair": {"t_hs": "tuned", "t_ll": "tuned"}}}
    [problem] = problems(**pair, search={"teacher": ["epoch 1"]})
    assert "pair is given as t_hs and t_ll, and no epoch of it is" in problem
    both = parse_study(a_study(**pair, search={"teacher": ["epoch 1", "t_hs"]}), place="s")
    [view] = Agenda(resolved_of(both)).views()
    assert view.space.values("teacher") == (Checkpoint.HIGHEST_SCORE,)


# -- keys --------------------------------------------------------------------------------------


def teacher_of(**sections: Any) -> Training:
    return Agenda(resolved_of(a_study(**sections))).requests()[0].training


def test_a_teachers_key_changes_with_the_epochs_that_it_keeps_and_with_nothing_else_here() -> None:
    plain = teacher_of()
    assert isinstance(plain, TeacherTraining)
    assert plain.kept_epochs == ()
    first = teacher_of(search={"teacher": ["t_hs", "epoch 3", "epoch 1"]})
    second = teacher_of(search={"teacher": ["epoch 1", "epoch 3"]})
    assert isinstance(first, TeacherTraining)
    assert first.kept_epochs == (1, 3)
    assert first.key == second.key != plain.key
    assert teacher_of(teachers=generations()).key == plain.key


def test_trainings_with_epochs_and_with_students_that_teach_are_read_as_written() -> None:
    study = a_study(teachers=generations(2), search={"teacher": ["t_hs", "epoch 1"], "alpha": [1]})
    resolved = resolved_of(study)
    ledger = memory_ledger(resolved)
    agenda = search_through(resolved, ledger, World(seed=4))
    read = Ledger(ledger.folder, ledger.disk).results()
    assert {key: outcome.training for key, outcome in read.items() if outcome} == {
        key: outcome.training for key, outcome in agenda.results.items() if outcome
    }
    assert Agenda(resolved, read).views() == agenda.views()


# -- real trainings ----------------------------------------------------------------------------


def small_search(**axes: Any) -> dict[str, Any]:
    return {"strategy": "exhaustive", "objective": "mse", "alpha": [1], **axes}


def born_again(**sections: Any) -> dict[str, Any]:
    """Two generations of the student's own architecture."""
    teachers = generations(2, model="small", fine_tune={"learning_rate": [1e-2], "epochs": 2})
    search = small_search(learning_rate=[1e-2, 5e-3])
    return tiny_study(**{"teachers": teachers, "search": search, **sections})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two generations that was searched to its end."""
    ledger, agenda = begin(tmp_path_factory.mktemp("born") / "run", born_again())
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    return ledger.folder


def reopened(folder: Path, finished: Path, **sections: Any) -> tuple[Ledger, Agenda]:
    shutil.copytree(finished, folder)
    return begin(folder, born_again(**sections))


def test_a_student_that_teaches_says_what_it_scored(finished: Path) -> None:
    ledger = Ledger(finished)
    agenda = Agenda(ledger.resolved(), ledger.results())
    first, second = agenda.views()
    assert first.chosen is not None
    student = agenda.results[agenda.training(first, first.chosen).key]
    outputs = {t.split: agenda.results[t.key] for t in second.outputs[Checkpoint.WINNER]}
    assert student is not None
    assert second.chosen is not None
    assert outputs["validation"].validation == pytest.approx(student.validation)
    assert outputs["test"].test == pytest.approx(student.test)
    assert outputs["test"].parameters == student.parameters


def test_of_a_teacher_of_the_students_own_architecture_the_report_says_no_more_than_is_so(
    finished: Path,
) -> None:
    ledger = Ledger(finished)
    agenda = Agenda(ledger.resolved(), ledger.results())
    text = document(analyse(agenda), agenda, {})
    assert "100 % of its parameters" in text
    assert "## Generations" in text
    [line] = analyse(agenda).generations
    assert [each.number for each in line.generations] == [1, 2]
    one, two = line.generations
    assert one.test is not None
    assert two.test is not None
    assert two.over_before == pytest.approx(100 * (two.test - one.test))
    assert one.over_before is None
    for each in line.generations:
        row = next(part for part in text.splitlines() if part.startswith(f"| {each.case} | "))
        assert f"{each.test:.{line.digits}f}" in row


def test_a_student_whose_weights_are_gone_is_trained_again_before_it_teaches(
    tmp_path: Path, finished: Path
) -> None:
    ledger, agenda = reopened(tmp_path / "run", finished, keep_students="none")
    view = agenda.views()[1]
    outputs = view.outputs[Checkpoint.WINNER]
    shutil.rmtree(ledger.folder / layout.STUDENTS)
    train = outputs[0]
    before = ledger.outcome(train.key)
    assert before is not None
    again = run_training(train, ledger.folder)
    assert again.digests == before.digests
    assert ledger.kept_students() == {train.checkpoint.training}


def test_with_keep_students_none_the_weights_stay_until_they_have_taught(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path / "run", born_again(keep_students="none"))
    keep = Keep(ledger, agenda)
    seen = []
    while requests := agenda.requests():
        training = requests[0].training
        ledger.write_outcome(run_training(training, ledger.folder))
        agenda.add(training.key, ledger.outcome(training.key))
        keep.remove()
        seen.append((training, set(ledger.kept_students())))
    first, second = agenda.views()
    assert first.chosen is not None
    winner = agenda.training(first, first.chosen).key
    began = [isinstance(training, OutputsTraining) for training, _ in seen].index(True, 4)
    assert all(winner in kept for _, kept in seen[began:-1])
    assert second.finished
    assert seen[-1][1] == set()


def test_an_epoch_that_a_search_names_is_kept_and_is_what_so_many_epochs_give(
    tmp_path: Path,
) -> None:
    search = small_search(teacher=["t_hs", "epoch 1", "epoch 2"], learning_rate=[1e-2])
    training = {**tiny_study()["training"], "schedule": "constant", "warmup": 0}
    teachers = {
        f"for {epochs}": {
            "model": "small",
            "fine_tune": {"learning_rate": [1e-2], "epochs": epochs},
        }
        for epochs in (3, 2)
    }
    study = tiny_study(teachers=teachers, search=search, training=training)
    ledger, agenda = begin(tmp_path / "run", study)
    run_study(ledger, agenda, run_training)
    longer, shorter = agenda.views()
    assert longer.teacher_training is not None
    assert shorter.teacher_training is not None

    def weights(training: TeacherTraining, epoch: int) -> dict[str, torch.Tensor]:
        folder = ledger.path(layout.checkpoint(training.key, epoch))
        return load_file(folder / "model.safetensors")

    last = weights(shorter.teacher_training, 2)
    kept = weights(longer.teacher_training, 2)
    assert all(torch.equal(kept[name], value) for name, value in last.items())
    first = weights(longer.teacher_training, 1)
    assert any(not torch.equal(first[name], value) for name, value in last.items())
    taught = longer.outputs[Checkpoint("epoch 1")][0]
    assert taught.checkpoint.epoch == 1
    [decision] = longer.progress.decisions
    assert {str(each.choice) for each in decision.candidates} == {
        f"MSE {name} α=1" for name in ("t_hs", "epoch 1", "epoch 2")
    }
