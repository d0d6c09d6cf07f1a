"""Where teachers and students come from: smoothed labels, durations, and other trainings."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import portion
from fakes import World, a_study, memory_ledger, resolved_of, search_through, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from models import begin, run_study, save_model, tiny_study
from safetensors.torch import load_file
from torch import Tensor, nn

from kdsearch.agenda import (
    Agenda,
    CheckpointSpec,
    Kind,
    Outcome,
    StudentTraining,
    TeacherTraining,
    Training,
    asked,
    case_counts,
    guessed_seconds,
    kinds_of,
    left,
    parse_training,
    unneeded,
    written,
)
from kdsearch.agenda.simulation import Simulation
from kdsearch.analysis import analyse, start_found, student_origin, teacher_origin
from kdsearch.cli.explain import explain
from kdsearch.cli.look import stage_of
from kdsearch.cli.watching import stages_of
from kdsearch.distill import run_together, run_training
from kdsearch.distill.trainings import Trainings
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.report.card import card
from kdsearch.report.document import document
from kdsearch.search import Labels, LabelSmoothing
from kdsearch.study import TestCase, parse_study
from kdsearch.study import test_cases as cases_of

GRID = {"strategy": "exhaustive", "objective": "ce", "temperature": [1, 4]}


def started(**sections: Any) -> dict[str, Any]:
    """A study whose student starts from what was fine-tuned at the better of two rates."""
    usual = a_study()
    own = {"model": "small", "fine_tune": {"learning_rate": [1e-3, 2e-3], "epochs": 3}}
    return a_study(
        **{
            "teachers": {**usual["teachers"], "own": own},
            "students": {"small": {"model": "small", "start": "own"}},
            "test_cases": [{"teacher": "big"}],
            "search": {**GRID, "learning_rate": [1e-5, 2e-5]},
            "erm": True,
            **sections,
        }
    )


# -- the order of things -----------------------------------------------------------------------


class Waits:
    """A watch that looks whether a student began before what it starts from had ended."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda, self.begun = agenda, 0

    def started(self, request: Any) -> None:
        if isinstance(training := request.training, StudentTraining):
            rates = self.agenda.graph.starts(request.case)
            scores = {each.key: self.agenda.results[each.key] for each in rates}
            best = max(
                (outcome for outcome in scores.values() if outcome and outcome.validation),
                key=lambda outcome: outcome.validation or 0.0,
            )
            assert training.start is not None
            assert training.start.training in scores
            assert scores[training.start.training].validation == best.validation  # type: ignore[union-attr]
            assert training.start.epoch == scores[training.start.training].best_epoch  # type: ignore[union-attr]
            self.begun += 1

    def finished(self, request: Any, outcome: Outcome) -> None: ...

    def failed(self, request: Any, attempt: object, *, for_good: bool) -> None: ...

    def tick(self) -> None: ...


@settings(max_examples=portion(200, 6))
@given(seed=st.integers(0, 2**32 - 1), slots=st.integers(1, 8))
def test_a_student_begins_once_the_best_of_what_it_starts_from_is_known_in_whatever_order(
    seed: int, slots: int
) -> None:
    draw = random.Random(seed)
    raw = started(
        search={**a_study()["search"]} if draw.random() < 0.5 else started()["search"],
        test_cases=[{"teacher": draw.choice(["big", "own", ["big", "own"]])}],
    )
    resolved, world = resolved_of(raw), World(seed=seed, failing=draw.choice([0, 0.1]))
    found = []
    for order in (0, 1):
        agenda, ledger = Agenda(resolved), memory_ledger(resolved)
        waits, before = Waits(agenda), left(agenda)
        TabulatedEngine(
            look_up=lambda training, ledger=ledger: world.commit(ledger, training),
            seconds=lambda training, order=order: uniform(order, training.key),
            slots=slots,
        ).run(Dispatcher(agenda, ledger, (waits,)))
        assert waits.begun or all(view.blocked for view in agenda.views())
        assert not unneeded(agenda)
        assert agenda.results.keys() == asked(agenda)
        assert left(agenda).most == 0
        assert before.fewest * (not world.failing) <= len(agenda.results) <= before.most
        found.append(agenda.views())
    assert found[0] == found[1]


def test_what_a_student_starts_from_is_trained_beside_its_teacher_and_is_a_stage_of_its_own() -> (
    None
):
    agenda = Agenda(resolved_of(started()))
    assert [(r.stage, r.training.kind) for r in agenda.requests()] == [
        ("teacher_training", "teacher"),
        ("start", "teacher"),
        ("start", "teacher"),
    ]
    taught, erm = agenda.views()
    assert stages_of(agenda, taught, ())["start"] == "2 wait"
    assert stage_of(erm) == "start"


def test_cases_whose_student_has_nothing_to_start_from_are_blocked_and_say_why() -> None:
    resolved = resolved_of(started())
    agenda, ledger = Agenda(resolved), memory_ledger(resolved)
    world = World(seed=1)
    for request in agenda.requests():
        if request.stage == "start":
            agenda.add(request.training.key, None)
        else:
            world.commit(ledger, request.training)
            agenda.add(request.training.key, ledger.outcome(request.training.key))
    for view in agenda.views():
        assert view.blocked == "no training of own, which its student starts from, succeeded"
        assert stages_of(agenda, view, ())["start"] == "failed"
    assert agenda.complete


def test_generations_start_where_their_first_does() -> None:
    teachers = {**started()["teachers"], "second": {"student_of": "big"}}
    raw = started(teachers=teachers, test_cases=[{"teacher": ["big", "second"]}], erm=False)
    agenda = search_through(resolved_of(raw), memory_ledger(resolved_of(raw)), World(seed=5))
    first, second = agenda.views()
    assert first.start is not None
    assert second.start == first.start
    assert second.chosen is not None
    training = agenda.training(second, second.chosen)
    assert training.start == first.start
    assert training.taught.teacher.training != first.start.training


# -- keys, and what is counted -----------------------------------------------------------------


def trained(raw: dict[str, Any]) -> Agenda:
    resolved = resolved_of(raw)
    return search_through(resolved, memory_ledger(resolved), World(seed=3))


def test_where_a_student_starts_is_in_its_key_and_is_read_as_written() -> None:
    agenda, plain = trained(started()), trained(started(students=a_study()["students"]))
    mine, other = (
        next(
            outcome.training
            for outcome in each.results.values()
            if outcome and isinstance(outcome.training, StudentTraining)
        )
        for each in (agenda, plain)
    )
    assert isinstance(mine, StudentTraining)
    assert isinstance(other, StudentTraining)
    assert mine.start is not None
    assert mine.key not in {other.key, mine.model_copy(update={"start": None}).key}
    later = mine.start.model_copy(update={"epoch": 9})
    assert mine.model_copy(update={"start": later}).key != mine.key
    renamed = mine.start.model.model_copy(update={"name": "another"})
    start = mine.start.model_copy(update={"model": renamed})
    assert mine.model_copy(update={"start": start}).key == mine.key
    read = parse_training(json.loads(json.dumps(written(mine))))
    assert read == mine
    assert read.key == mine.key


def test_a_started_student_of_the_grid_is_needed_while_its_study_is_searched() -> None:
    agenda = trained(started())
    students = {
        key: outcome
        for key, outcome in agenda.results.items()
        if outcome and isinstance(outcome.training, StudentTraining)
    }
    others = {}
    for outcome in students.values():
        assert isinstance(outcome.training, StudentTraining)
        strange = CheckpointSpec(**{**vars(outcome.training.start), "training": "0" * 24})  # type: ignore[arg-type]
        training = outcome.training.model_copy(update={"start": strange})
        others[training.key] = outcome.model_copy(
            update={"key": training.key, "training": training}
        )
    # Before the start is known, as after a change of the study file.
    begun = {key: r for key, r in agenda.results.items() if r and r.training.kind != "teacher"}
    assert unneeded(Agenda(agenda.resolved, {**begun, **others})) == others.keys()


def test_plan_counts_what_students_start_from_once_and_the_simulation_waits_for_it() -> None:
    study = parse_study(started(), place="study.yaml")
    agenda = trained(started())
    rows = {"sentences": {"train": 20, "validation": 10, "test": 10}}
    took = guessed_seconds(study, rows, {}, seconds=1.0)
    sizes = {k: 1.0 for case in took for k in kinds_of(study, case, case.dataset).values()}
    found = Simulation(study, 100, lambda job: 1.0, sizes).run()
    assert found.trainings == len(agenda.results)
    # Teacher or start, outputs, students.
    assert found.makespan == 3.0
    assert case_counts(study, agenda.views()[0].case).teachers == 1


def test_without_a_teacher_the_time_of_what_it_starts_from_is_that_of_its_own_epochs() -> None:
    study = parse_study(started(), place="study.yaml")
    [alone] = (case for case in cases_of(study) if case.teacher is None)
    assert kinds_of(study, alone, "rows")["teacher"] == Kind("teacher", "rows", "small", None, 3)


# -- what is refused ---------------------------------------------------------------------------


def problems(**sections: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        parse_study(started(**sections), place="study.yaml")
    return [str(problem).removeprefix("study.yaml: ") for problem in error.value.problems]


def student(**fields: Any) -> dict[str, Any]:
    return {"students": {"small": {"model": "small", "start": "own", **fields}}}


GIVEN = {
    "models": {**a_study()["models"], "tuned": "/tuned"},
    "teachers": {**started()["teachers"], "given": {"checkpoint": "tuned"}},
}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (student(start="owm"), "students.small.start: owm is not a teacher of this study"),
        (
            student(start="big"),
            "students.small.start: big has the model big, and the student small (give both",
        ),
        (
            {**GIVEN, **student(start="given")},
            "students.small.start: given is not fine-tuned here, so that no training of it can",
        ),
        (
            {"search": {**GRID, "layers": [1]}},
            "search.layers: small starts from a training of own, which has the layers that it has",
        ),
        (
            student(training={"lora": {}}),
            "students.small.training.lora: small starts from a training of own, and its adapters",
        ),
        (
            {"search": {**GRID, "lora_rank": ["none", 4]}},
            "search.lora_rank: small starts from a training of own, and its adapters",
        ),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_a_search(
    sections: dict[str, Any], words: str
) -> None:
    assert any(each.startswith(words) for each in problems(**sections)), problems(**sections)


def test_settings_that_do_not_go_together_are_said_of_a_started_student_once() -> None:
    training = {"clip_per": "layer", "lora": None}
    [found] = problems(**student(training=training))
    assert found.startswith("students.small.training: clip_per: layer needs a clip")


def test_the_layers_of_a_start_must_be_the_students() -> None:
    models = {**a_study()["models"], "small": "/small"}
    teachers = {**started()["teachers"]}
    teachers["own"] = {**teachers["own"], "layers": 2}
    [found] = problems(models=models, teachers=teachers)
    assert found.startswith(
        "students.small.start: own has the model small with the layers 2, and the student small"
    )
    same = student(layers=2)
    assert parse_study(started(models=models, teachers=teachers, **same), place="study.yaml")


def test_students_that_differ_in_their_start_alone_are_two() -> None:
    students = {"small": {"model": "small", "start": "own"}, "plain": {"model": "small"}}
    assert len(parse_study(started(students=students), place="study.yaml").students) == 2


# -- real trainings ----------------------------------------------------------------------------


BRIEF = {"learning_rate": [3e-3], "epochs": 4}


def tiny_started(**sections: Any) -> dict[str, Any]:
    own = {"model": "small", "fine_tune": {"learning_rate": [1e-2, 3e-3], "epochs": 3}}
    return tiny_study(
        **{
            "teachers": {"big": {"model": "big", "fine_tune": BRIEF}, "own": own},
            "students": {"tuned": {"model": "small", "start": "own"}, "small": {"model": "small"}},
            "test_cases": [{"teacher": "big"}],
            "search": {**GRID, "temperature": [4], "learning_rate": [1e-2, 1e-3]},
            "erm": True,
            **sections,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with a started student that was searched to its end."""
    ledger, agenda = begin(tmp_path_factory.mktemp("started") / "run", tiny_started())
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    return ledger.folder


def opened(folder: Path) -> tuple[Ledger, Agenda]:
    ledger = Ledger(folder)
    return ledger, Agenda(ledger.resolved(), ledger.results())


def student_of(agenda: Agenda, name: str, search: str | None = None) -> StudentTraining:
    """The training at the larger rate."""
    view = next(
        view
        for view in agenda.views()
        if view.case.student == name and (view.case.search == search)
    )
    every = [t for seeds in agenda.students(view.case).values() for t in seeds]
    return max(every, key=lambda training: training.learning_rate)


def weights_before(ledger: Ledger, training: Training) -> dict[str, Tensor]:
    """Of a training's model before its first step."""
    assert isinstance(training, StudentTraining | TeacherTraining)
    model: nn.Module = Trainings(ledger, run_training)._built(training)
    return {name: value.cpu() for name, value in model.state_dict().items()}


def checkpoint(ledger: Ledger, start: CheckpointSpec) -> dict[str, Tensor]:
    assert start.training is not None
    assert start.epoch is not None
    folder = ledger.folder / layout.checkpoint(start.training, start.epoch)
    return load_file(folder / "model.safetensors")


def test_a_student_begins_with_the_weights_of_the_checkpoint_whatever_its_seed(
    finished: Path,
) -> None:
    ledger, agenda = opened(finished)
    training = student_of(agenda, "tuned")
    assert training.start is not None
    kept = checkpoint(ledger, training.start)
    for seed in (3, 4):
        found = weights_before(ledger, training.model_copy(update={"seed": seed}))
        assert found.keys() >= kept.keys()
        for name, value in kept.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    plain = weights_before(ledger, student_of(agenda, "small"))
    assert any(not torch.equal(plain[name], value) for name, value in kept.items())


def test_without_a_teacher_it_starts_there_too_and_what_the_checkpoint_scores_is_known(
    finished: Path,
) -> None:
    _, agenda = opened(finished)
    views = {(view.case.student, view.case.search): view for view in agenda.views()}
    erm = student_of(agenda, "tuned", "erm")
    assert erm.start == student_of(agenda, "tuned").start
    start = start_found(agenda, views["tuned", None])
    assert start is not None
    assert start == start_found(agenda, views["tuned", "erm"])
    outcome = agenda.results[start.key]
    assert outcome is not None
    assert (start.teacher, start.epoch) == ("own", outcome.best_epoch)
    assert start.validation == outcome.validation
    assert start.test is not None
    assert start_found(agenda, views["small", None]) is None


def test_where_a_student_starts_is_told_by_the_report_the_card_and_explain(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, agenda = opened(finished)
    results = {case.case: case for case in analyse(agenda).cases}
    found = next(c for each, c in results.items() if each.student == "tuned" and each.teacher)
    assert found.start is not None
    assert found.start.validation is not None
    assert found.start.test is not None
    epoch, digits = found.start.epoch, found.digits
    validation = f"{found.start.validation:.{digits}f}"
    test = f"{found.start.test:.{digits}f}"
    said = f"Its student starts from epoch {epoch} of own: {validation} on validation, {test} on"
    assert document(analyse(agenda), agenda, {}).count(said) == 2  # and the one without a teacher
    outcome = agenda.results[student_of(agenda, "tuned").key]
    assert outcome is not None
    text = card(agenda, found, outcome)
    assert f"| own, where this student starts | {validation} | {test} |" in text
    assert f"epoch {epoch} of small fine-tuned on the same data: training {found.start.key}" in text
    explain(finished, "big/tuned")
    said = " ".join(capsys.readouterr().out.split())
    assert f"the student starts from epoch {epoch} of own (learning rate" in said
    assert f"validation {validation}, test {test}" in said
    teaching = (case for each, case in results.items() if each.student == "small")
    assert all(case.start is None for case in teaching)


def test_a_damaged_checkpoint_is_made_again_before_a_student_starts_from_it(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    ledger, agenda = opened(tmp_path / "run")
    training = student_of(agenda, "tuned")
    assert training.start is not None
    assert training.start.training is not None
    shutil.rmtree(ledger.folder / layout.checkpoints(training.start.training))
    before = ledger.outcome(training.key)
    assert before is not None
    again = run_training(training, ledger.folder)
    assert again.epochs == before.epochs
    assert again.test == before.test
    assert (ledger.folder / layout.checkpoints(training.start.training)).is_dir()


def test_students_of_one_pass_start_from_the_same_checkpoint(finished: Path) -> None:
    ledger, agenda = opened(finished)
    view = next(v for v in agenda.views() if v.case.student == "tuned" and v.case.teacher)
    every = [t for seeds in agenda.students(view.case).values() for t in seeds]
    assert len(every) == 2
    for outcome in run_together(every, ledger.folder):
        alone = ledger.outcome(outcome.key)
        assert alone is not None
        for epoch, other in zip(outcome.epochs, alone.epochs, strict=True):
            assert epoch.train_loss == pytest.approx(other.train_loss, rel=1e-4)


def test_what_teachers_and_students_come_from_is_told(finished: Path) -> None:
    _, agenda = opened(finished)
    by_student = {view.case.student: view for view in agenda.views() if view.case.teacher}
    teacher = teacher_origin(agenda, by_student["small"])
    assert teacher is not None
    assert (teacher.model, teacher.weights, teacher.epochs) == ("big", "random", 4)
    assert student_origin(agenda, by_student["small"]).name == "random"
    assert student_origin(agenda, by_student["tuned"]).name == "random, then trained on the labels"
    erm = next(view for view in agenda.views() if view.case.teacher is None)
    assert teacher_origin(agenda, erm) is None


# -- teachers ----------------------------------------------------------------------------------


def teacher_training(**fine_tune: Any) -> TeacherTraining:
    teachers = {"big": {"model": "big", "fine_tune": {"learning_rate": [1e-5], **fine_tune}}}
    agenda = Agenda(resolved_of(a_study(teachers=teachers)))
    (training,) = agenda.graph.teachers(agenda.views()[0].case)
    return training


def test_a_teacher_may_learn_on_smoothed_labels_which_is_another_training() -> None:
    plain, smooth = teacher_training(), teacher_training(smoothing=0.1)
    assert plain.objective == Labels()
    assert smooth.objective == LabelSmoothing(smoothing=0.1)
    assert teacher_training(smoothing=0.0).key == plain.key
    assert smooth.key != plain.key
    assert str(smooth) == "teacher big lr=1e-05 smoothing=0.1"
    assert parse_training(written(smooth)) == smooth


@pytest.mark.parametrize("smoothing", [1.0, -0.1])
def test_a_teacher_must_be_left_some_of_its_labels(smoothing: float) -> None:
    with pytest.raises(InputError, match=r"teachers.big.fine_tune.smoothing: must be"):
        teacher_training(smoothing=smoothing)


def test_one_teacher_at_several_durations_is_so_many_trainings_and_equal_ones_are_one() -> None:
    teachers = {
        f"{epochs} epochs": {"model": "big", "fine_tune": {"learning_rate": [1e-5], **own}}
        for epochs, own in {1: {"epochs": 1}, 10: {}, 20: {"epochs": 20}}.items()
    }
    agenda = Agenda(resolved_of(a_study(teachers=teachers, training={"schedule": "cosine"})))
    found = [teacher_origin(agenda, view) for view in agenda.views()]
    assert [each.epochs for each in found if each] == [1, 10, 20]
    keys = {t.key for view in agenda.views() for t in agenda.graph.teachers(view.case)}
    assert len(keys) == 3
    case = TestCase(dataset="sentences", teacher="10 epochs", student="small")
    (usual,) = agenda.graph.teachers(case)
    assert usual.key == teacher_training_at("cosine").key


def teacher_training_at(schedule: str) -> TeacherTraining:
    agenda = Agenda(resolved_of(a_study(training={"schedule": schedule})))
    (training,) = agenda.graph.teachers(agenda.views()[0].case)
    return training


def test_a_teacher_on_smoothed_labels_learns_what_their_objective_teaches(tmp_path: Path) -> None:
    fine_tune = {"learning_rate": [1e-2], "epochs": 2, "smoothing": 0.4}
    raw = tiny_study(teachers={"big": {"model": "small", "fine_tune": fine_tune}})
    ledger, agenda = begin(tmp_path / "run", raw)
    (training,) = agenda.graph.teachers(agenda.views()[0].case)
    own = ("version", "data", "model", "learning_rate", "settings", "seed")
    same = {name: getattr(training, name) for name in own}
    found = {
        objective: run_training(
            StudentTraining(**same, teaching=None, objective=objective), ledger.folder
        ).epochs
        for objective in (LabelSmoothing(smoothing=0.4), Labels())
    }
    losses = {which: [each.train_loss for each in epochs] for which, epochs in found.items()}
    mine = [each.train_loss for each in run_training(training, ledger.folder).epochs]
    assert mine == losses[LabelSmoothing(smoothing=0.4)] != losses[Labels()]


# -- a pretrained model's architecture -----------------------------------------------------------


def at_random(folder: Path, **sections: Any) -> dict[str, Any]:
    """A study of a pretrained model, and of the same one with weights that are drawn."""
    models = {"own": str(folder), "drawn": {"path": str(folder), "weights": "random"}}
    own = {"model": "drawn", "fine_tune": {"learning_rate": [1e-2], "epochs": 1}}
    return tiny_study(
        **{
            "models": models,
            "teachers": {"big": {**own, "model": "own"}, "own": own},
            "students": {
                "drawn": {"model": "drawn"},
                "pretrained": {"model": "own"},
                "trained": {"model": "drawn", "start": "own"},
            },
            "test_cases": [{"teacher": "big"}],
            "search": {**GRID, "temperature": [4], "learning_rate": [1e-2]},
            **sections,
        }
    )


def test_a_pretrained_models_architecture_may_be_drawn_at_random_by_the_seed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    save_model(folder, "bert", layers=2)
    ledger, agenda = begin(tmp_path / "run", at_random(folder))
    run_study(ledger, agenda, run_training)
    by_student = {view.case.student: view for view in agenda.views()}
    names = {name: student_origin(agenda, view).name for name, view in by_student.items()}
    assert names == {
        "drawn": "random",
        "pretrained": "pretrained",
        "trained": "random, then trained on the labels",
    }
    drawn, own = (student_of(agenda, name) for name in ("drawn", "pretrained"))
    assert drawn.key != own.key
    assert drawn.model.tokenizer == own.model.tokenizer
    first, again, other = (
        weights_before(ledger, drawn.model_copy(update={"seed": seed})) for seed in (3, 3, 4)
    )
    body = "bert.embeddings.word_embeddings.weight"
    kept = load_file(folder / "model.safetensors")[body]
    assert first[body].shape == kept.shape
    assert first[body].dtype == torch.float32
    assert torch.equal(first[body], again[body])
    assert not torch.equal(first[body], other[body])
    assert not torch.equal(first[body], kept)
    assert torch.equal(weights_before(ledger, own)[body], kept)
    assert agenda.complete
    assert all(view.best_has_score for view in agenda.views())


def test_a_model_of_timm_at_random_is_drawn_as_timm_draws_it(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    folder = tmp_path / "model"
    pretrained = timm.create_model("test_resnet", num_classes=7)
    timm.models.save_for_hf(pretrained, str(folder))
    config = json.loads((folder / "config.json").read_text())
    del config["model_args"]  # which those on the Hub do not have
    (folder / "config.json").write_text(json.dumps(config))
    data = {"task": "image_classification", "grammar": {"train": 32, "validation": 8, "test": 8}}
    drawn = at_random(folder, datasets={"images": data}, training={"precision": "fp32"})
    drawn["models"]["config"] = {
        "config": {"model_type": "timm_wrapper", "architecture": "test_resnet"}
    }
    drawn["teachers"]["config"] = {**drawn["teachers"]["own"], "model": "config"}
    ledger, agenda = begin(tmp_path / "run", drawn)
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet", num_classes=3).state_dict()
    case = agenda.views()[0].case
    for name in ("own", "config"):
        (training,) = agenda.graph.teachers(replace(case, teacher=name))
        found = weights_before(ledger, training)
        for weight, value in expected.items():
            if value.dim() > 1:
                own = float(found[f"timm_model.{weight}"].std())
                assert own == pytest.approx(float(value.std()), rel=0.2), weight


def test_a_config_at_random_takes_no_weights_and_a_random_model_is_no_checkpoint() -> None:
    config = {"config": {"model_type": "bert"}, "weights": "random"}
    models = {**a_study()["models"], "other": config}
    assert "models.other: a config has no weights but random ones; remove weights" in problems(
        models=models
    )
    models["other"] = {"path": "/other", "weights": "random"}
    teachers = {**started()["teachers"], "given": {"checkpoint": "other"}}
    [found] = problems(models=models, teachers=teachers)
    assert "other is randomly initialised, so it cannot be fine-tuned already" in found


# -- choices of the training -----------------------------------------------------------------------


CROSSED = {
    "objective": "ce",
    "optimizer": ["adamw", "sgd"],
    "batch_size": [8, 32],
    "epochs": [1, 2],
    "alpha": [1],
    "learning_rate": {"adamw": [1e-3, 3e-3], "sgd": [0.03, 0.1]},
}
BY_COSINE = {"schedule": "cosine", "sgd": {"momentum": 0.9, "weight_decay": 1e-4}}


def crossed(strategy: str, **sections: Any) -> dict[str, Any]:
    temperatures: Any = [1, 4] if strategy != "greedy" else {"broad": [1, 4]}
    search = {**CROSSED, "strategy": strategy, "temperature": temperatures}
    return a_study(search={**search, **sections}, training=BY_COSINE)


@pytest.mark.parametrize("strategy", ["exhaustive", "greedy"])
def test_each_optimizer_has_learning_rates_of_its_own_in_a_crossed_search(strategy: str) -> None:
    resolved = resolved_of(crossed(strategy))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=4))
    (view,) = agenda.views()
    assert view.finished
    tried: dict[tuple[Any, ...], set[float]] = {}
    for training in (t for seeds in agenda.students(view.case).values() for t in seeds):
        own = training.settings
        where = (own.optimizer, own.batch_size, own.epochs, training.objective)
        tried.setdefault(where, set()).add(training.learning_rate)
    for (optimizer, *_), rates in tried.items():
        assert rates == set(CROSSED["learning_rate"][optimizer])
    if strategy == "exhaustive":
        assert len(tried) == 2 * 2 * 2 * 2
        assert view.space.size == 2 * len(tried)
        points = [view.space.point(i)[1] for i in range(view.space.size)]
        asked_for = agenda.students(view.case)
        assert {*points} == {*asked_for}
    counts = case_counts(resolved.study, view.case)
    assert counts.students.fewest <= agenda.trained(view.case) <= counts.students.most
    assert parse_study(resolved.study.model_dump(mode="json"), place="x") == resolved.study


def test_a_random_search_draws_rates_of_each_optimizer() -> None:
    resolved = resolved_of(crossed("random", trials=20))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=4))
    (view,) = agenda.views()
    for training in (t for seeds in agenda.students(view.case).values() for t in seeds):
        assert training.learning_rate in CROSSED["learning_rate"][training.settings.optimizer]


def test_a_students_own_rates_are_those_under_every_optimizer() -> None:
    raw = crossed("exhaustive")
    raw["students"] = {"small": {"model": "small", "learning_rate": [5e-3]}}
    agenda = Agenda(resolved_of(raw))
    (view,) = agenda.views()
    assert view.space.values("learning_rate") == (5e-3,)
    assert view.space.size == 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"learning_rate": {"adamw": [1e-3], "sgd": [0.1, 0.3]}},
            "search.learning_rate: must be as many for each optimizer, not 1 for adamw, 2 for sgd",
        ),
        (
            {"learning_rate": {"adamw": [1e-3]}},
            "search.learning_rate: has adamw, and optimizer adamw, sgd: list the same",
        ),
        (
            {"tuned": ["optimizer", "learning_rate"]},
            "search.learning_rate: goes by optimizer, so that it is tuned and optimizer is not",
        ),
        (
            {"learning_rate": {"adamw": [1e-3, 1e-3], "sgd": [0.1, 0.3]}},
            "search.learning_rate.adamw[1]: 0.001 appears twice",
        ),
        ({"learning_rate": {"adamw": [0], "sgd": [0.1]}}, "search.learning_rate.adamw[0]: must be"),
        ({"learning_rate": {"adam": [1e-3], "sgd": [0.1]}}, "search.learning_rate.adam"),
        ({"learning_rate": {}}, "search.learning_rate: "),
    ],
)
def test_rates_by_optimizer_that_cannot_be_are_refused(
    sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as error:
        parse_study(crossed("exhaustive", **sections), place="study.yaml")
    found = [str(each).removeprefix("study.yaml: ") for each in error.value.problems]
    assert len(found) == 1, found
    assert found[0].startswith(words), found
