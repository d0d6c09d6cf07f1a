"""Students that are trained in one pass learn what each learns alone."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from models import ENCODERS, begin, settings_of, spread, task_study, tiny
from test_resume import DeadError, MemoryCheckpoints
from test_training import DATA, TASK, TOKENIZER, bert, encoded

from kdsearch.agenda import Graph, StudentTraining
from kdsearch.distill import run_together, run_training
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.together import Together, UnlikeError, fusing_pays, train_together
from kdsearch.distill.training import History, TrainingState, train
from kdsearch.engine import Worker
from kdsearch.ledger import Ledger
from kdsearch.search import Ce, Labels, Mse, Objective
from kdsearch.study import Sgd
from kdsearch.study import test_cases as cases_of

torch.manual_seed(7)
TEACHER = CachedOutputs(values=2 * torch.randn(40, 2), head=None)
TAUGHT = (
    (Ce(temperature=2.0, student_temperature=2.0, alpha=1.0), 1e-3),
    (Mse(alpha=0.5), 3e-3),
    (Ce(temperature=8.0, student_temperature=1.0, alpha=0.3), 1e-3),
)
"""Of each student the objective and the learning rate."""
Student = tuple[Objective, float]


def model_of(dropout: float, kind: str = "bert", *, cut: bool = True) -> Any:
    model = bert(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    if cut:
        read_first_alone(model, TASK, encoded(40))
    return model


def state_of(model: Any, student: Student, **changes: Any) -> TrainingState:
    objective, rate = student
    teacher = None if isinstance(objective, Labels) else TEACHER
    settings = settings_of(**{"epochs": 2, **changes})
    loss = batch_loss(TASK, model, objective, teacher)
    return TrainingState(model, TASK, encoded(40), loss, settings, learning_rate=rate)


def validation_of(state: TrainingState) -> Any:
    return partial(evaluate, state.model, TASK, TOKENIZER, encoded(24), DATA, state.settings)


class Nowhere(MemoryCheckpoints):
    """Nothing is saved."""

    def __init__(self) -> None:
        super().__init__(due=False)


def alone(
    student: Student, model: Any, checkpoints: MemoryCheckpoints | None = None, **changes: Any
) -> tuple[Any, History]:
    torch.manual_seed(1)
    state = state_of(model, student, **changes)
    history = train(state, validation_of(state), seed=1, checkpoints=checkpoints)
    return model, history


def together(
    students: Sequence[Student],
    model: Any,
    checkpoints: Sequence[MemoryCheckpoints] = (),
    **changes: Any,
) -> list[tuple[Any, History]]:
    torch.manual_seed(1)
    states = [state_of(deepcopy(model), student, **changes) for student in students]
    histories = train_together(
        states,
        TASK,
        [validation_of(state) for state in states],
        seed=1,
        checkpoints=checkpoints or [Nowhere() for _ in states],
    )
    return [(state.model, history) for state, history in zip(states, histories, strict=True)]


def assert_equal(
    one: tuple[Any, History], other: tuple[Any, History], tolerance: float = 5e-6
) -> None:
    """To rounding. The gradient of key biases is none but for it, and Adam makes much of it."""
    (model, history), (same, again) = one, other
    for name, value in model.state_dict().items():
        if "key.bias" not in name and "k_lin.bias" not in name:
            assert (value - same.state_dict()[name]).abs().max() < tolerance, name
    assert len(history.epochs) == len(again.epochs)
    for epoch, too in zip(history.epochs, again.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(too.train_loss, rel=1e-6)
        assert epoch.validation_loss == pytest.approx(too.validation_loss, rel=1e-5)
        assert epoch.validation == too.validation
        assert epoch.measures == pytest.approx(too.measures, abs=1e-5)
    assert history.curve is not None
    assert again.curve is not None
    assert history.curve.posterior_entropy == pytest.approx(again.curve.posterior_entropy, abs=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("cut", [True, False])
def test_each_learns_what_it_learns_alone(dropout: float, cut: bool) -> None:
    found = together(TAUGHT, model_of(dropout, cut=cut))
    for student, fused in zip(TAUGHT, found, strict=True):
        assert_equal(alone(student, model_of(dropout, cut=cut)), fused)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine", "warmup": 0.2, "clip": 0.05},
        {"clip": 0.01, "clip_per": "layer"},
        {"optimizer": "sgd", "sgd": Sgd(momentum=0.8, nesterov=True, weight_decay=0.1)},
    ],
)
def test_clipping_schedule_and_optimizer_are_each_students_own(changes: dict[str, Any]) -> None:
    found = together(TAUGHT, model_of(0.0), **changes)
    for student, fused in zip(TAUGHT, found, strict=True):
        assert_equal(alone(student, model_of(0.0), **changes), fused)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "modernbert"])
def test_students_of_other_families_learn_what_they_learn_alone(kind: str) -> None:
    found = together(TAUGHT[:2], model_of(0.0, kind), epochs=1)
    for student, fused in zip(TAUGHT, found, strict=False):
        assert_equal(alone(student, model_of(0.0, kind), epochs=1), fused)


def test_padding_that_attends_to_nothing_disturbs_no_student() -> None:
    """In ModernBERT's layers a token sees those near it; padding far behind a text sees none."""

    def model() -> Any:
        found = model_of(0.0, "modernbert")
        for module in found.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.2
        return found

    for student, fused in zip(TAUGHT[:2], together(TAUGHT[:2], model(), epochs=1), strict=True):
        assert_equal(alone(student, model(), epochs=1), fused, 5e-5)


def test_students_without_a_teacher_are_trained_in_one_pass_too() -> None:
    students = [(Labels(), 1e-3), (Labels(), 1e-2)]
    for student, fused in zip(students, together(students, model_of(0.1)), strict=True):
        assert_equal(alone(student, model_of(0.1)), fused, 5e-5)


def test_one_that_diverges_disturbs_no_other() -> None:
    students = (TAUGHT[0], (Mse(alpha=1.0), 1e30), TAUGHT[1])
    found = together(students, model_of(0.1), epochs=3)
    diverged, own = found[1][1], alone(students[1], model_of(0.1), epochs=3)[1]
    assert diverged.diverged
    assert diverged.best is None
    assert len(diverged.epochs) == len(own.epochs) < 3
    for number in (0, 2):
        assert_equal(alone(students[number], model_of(0.1), epochs=3), found[number])


def test_a_pass_ends_once_all_of_it_have_diverged() -> None:
    students = ((Mse(alpha=1.0), 1e30), (Mse(alpha=0.5), 1e31))
    checkpoints = [MemoryCheckpoints(), MemoryCheckpoints()]
    found = together(students, model_of(0.0), checkpoints, epochs=9)
    assert [history.diverged for _, history in found] == [True, True]
    assert max(checkpoints[0].steps) < 45


def test_each_keeps_the_weights_of_its_own_best_epoch() -> None:
    students = [(Labels(), 1e-4), (Labels(), 1e-3)]
    found = together(students, _spread(), epochs=3)
    for student, (_, history) in zip(students, found, strict=True):
        _, own = alone(student, _spread(), epochs=3)
        assert own.best is not None
        assert history.best is not None
        assert history.best[0].epoch == own.best[0].epoch
        assert_equal((_of(own.best[1]), own), (_of(history.best[1]), history))
    assert [history.best[0].epoch for _, history in found if history.best] == [1, 2]


def _spread() -> Any:
    model = model_of(0.0)
    torch.manual_seed(4)
    spread(model)
    return model


def _of(state: dict[str, torch.Tensor]) -> Any:
    model = model_of(0.0)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("step", [4, 5])
def test_a_pass_and_a_training_alone_go_on_from_one_anothers_checkpoints(step: int) -> None:
    changes: dict[str, Any] = {"epochs": 2, "schedule": "linear", "clip": 1.0}  # 10 steps
    whole = [alone(student, model_of(0.2), **changes) for student in TAUGHT]
    own = [MemoryCheckpoints(dies_after=step) for _ in TAUGHT]
    for student, checkpoints in zip(TAUGHT, own, strict=True):
        with pytest.raises(DeadError):
            alone(student, model_of(0.2), checkpoints, **changes)
        checkpoints.dies_after = None
    torch.manual_seed(99)
    for one, fused in zip(whole, together(TAUGHT, model_of(0.2), own, **changes), strict=True):
        assert_equal(one, fused)
    assert all(each.steps == list(range(1, 10)) for each in own)  # none was taken twice

    shared = [MemoryCheckpoints() for _ in TAUGHT]
    shared[-1].dies_after = step  # once all have theirs
    with pytest.raises(DeadError):
        together(TAUGHT, model_of(0.2), shared, **changes)
    for student, one, checkpoints in zip(TAUGHT, whole, shared, strict=True):
        checkpoints.dies_after = None
        assert_equal(one, alone(student, model_of(0.2), checkpoints, **changes))
        assert checkpoints.steps == list(range(1, 10))


def test_checkpoints_of_different_steps_are_passed_over() -> None:
    ahead = MemoryCheckpoints(dies_after=4)
    with pytest.raises(DeadError):
        alone(TAUGHT[0], model_of(0.1), ahead)
    ahead.dies_after = None
    checkpoints = [ahead, MemoryCheckpoints()]
    found = together(TAUGHT[:2], model_of(0.1), checkpoints)
    assert checkpoints[1].steps[0] == 1
    assert_equal(alone(TAUGHT[0], model_of(0.1)), found[0])


def test_one_that_diverged_before_a_checkpoint_is_not_trained_on() -> None:
    students = ((Mse(alpha=1.0), 1e30), TAUGHT[0])
    checkpoints = [MemoryCheckpoints(), MemoryCheckpoints(dies_after=12)]
    with pytest.raises(DeadError):
        together(students, model_of(0.0), checkpoints, epochs=3)
    checkpoints[1].dies_after = None
    undisturbed = [alone(student, model_of(0.0), epochs=3) for student in students]
    _, gone_on = alone(students[0], model_of(0.0), checkpoints[0], epochs=3)
    assert gone_on.epochs == undisturbed[0][1].epochs
    found = together(students, model_of(0.0), checkpoints, epochs=3)
    assert found[0][1].epochs == undisturbed[0][1].epochs
    assert_equal(undisturbed[1], found[1])


@pytest.mark.parametrize("why", ["weights of its own", "random numbers of its own"])
def test_a_model_that_would_learn_something_else_is_refused(why: str) -> None:
    model = model_of(0.0, cut=False)
    if why == "weights of its own":
        model.classifier = torch.nn.Sequential(torch.nn.PReLU(), model.classifier)
    else:
        model.classifier = torch.nn.Sequential(torch.nn.AlphaDropout(0.5), model.classifier)
    states = [state_of(deepcopy(model), student) for student in TAUGHT]
    with pytest.raises(UnlikeError):
        Together(states, TASK).stack.check(TASK, encoded(8).batch(torch.arange(8)))


class Distances(torch.nn.Module):
    """A number by how far a token is from the first, looked up for all examples at once."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 2)

    def forward(self, hidden_BH: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table(torch.arange(12)).sum(dim=0)
        return hidden_BH[:, :2] + found


@pytest.mark.parametrize("students", [2, 3, 5])
def test_a_table_that_is_not_looked_up_by_examples_is_refused(students: int) -> None:
    model = model_of(0.0, cut=False)
    model.classifier = Distances()
    states = [state_of(deepcopy(model), TAUGHT[0]) for _ in range(students)]
    weights = deepcopy(states[1].model.state_dict())
    for examples in (4, 8):  # of 4, three students have 12 rows: as many as there are distances
        stack, batch = Together(states, TASK).stack, encoded(8).batch(torch.arange(examples))
        with pytest.raises(UnlikeError):
            stack.check(TASK, batch)
    for name, value in states[1].model.state_dict().items():
        assert torch.equal(value, weights[name])


# -- with the files of a study -------------------------------------------------------------------


def begun(tmp_path: Path, task: str, **sections: Any) -> tuple[Ledger, list[StudentTraining]]:
    """A study whose teacher is trained and has said what it says; its students."""
    rates = {"learning_rate": [3e-3, 1e-2]}
    ledger, agenda = begin(tmp_path, task_study(task, search=rates, **sections))
    while not any(r.training.kind == "student" for r in agenda.requests()):
        training = agenda.requests()[0].training
        Worker(folder=tmp_path, run_training=run_training)(training)
        agenda.add(training.key, ledger.outcome(training.key))
    students = [r.training for r in agenda.requests() if isinstance(r.training, StudentTraining)]
    return ledger, students


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_the_outcomes_of_a_pass_are_those_of_each_alone(tmp_path: Path, task: str) -> None:
    ledger, students = begun(tmp_path, task, keep_students="all")
    trainings = students[:3]
    fused = run_together(trainings, tmp_path)
    seconds = fused[0].cost.seconds
    assert {outcome.cost.seconds for outcome in fused} == {seconds}
    for training, outcome in zip(trainings, fused, strict=True):
        kept = {ledger.path(name): digest for name, digest in outcome.digests.items()}
        assert all(path.exists() for path in kept)
        started, ended = outcome.cost.started, outcome.cost.ended
        assert started is not None
        assert ended is not None
        assert (ended - started).total_seconds() > 2.5 * seconds
        ledger.write_outcome(outcome)
        own = run_training(training, tmp_path)
        assert (outcome.fused, own.fused) == (3, 1)
        assert outcome.digests.keys() == own.digests.keys()
        assert outcome.test == pytest.approx(own.test)
        assert outcome.validation == pytest.approx(own.validation)
        assert outcome.measures == pytest.approx(own.measures, abs=1e-4)
        assert outcome.best_epoch == own.best_epoch
        assert outcome.parameters == own.parameters


def test_the_probe_takes_a_number_that_is_asked_for_and_no_model_that_learns_otherwise(
    tmp_path: Path,
) -> None:
    models = {
        "big": {"config": tiny(2, hidden_size=32)},
        "small": {"config": tiny(1)},
        "deberta": {"config": {**tiny(1), **ENCODERS["deberta-v2"][2], "model_type": "deberta-v2"}},
    }
    students = {name: {"model": name} for name in ("small", "deberta")}
    ledger, agenda = begin(tmp_path, task_study("classification", models=models, students=students))
    graph = Graph(agenda.resolved)
    before = torch.get_rng_state()
    found = {}
    for case in cases_of(agenda.resolved.study):
        probe = (graph.student(case), graph.data(case), graph.settings(case))
        found[case.student] = fusing_pays(*probe, tmp_path, asked=3, device="cpu")
        half = probe[2].model_copy(update={"precision": "fp16"})
        assert fusing_pays(*probe[:2], half, tmp_path, device="cpu") == 1
    assert found == {"small": 3, "deberta": 1}
    assert torch.equal(torch.get_rng_state(), before)
    assert list(ledger.outcomes()) == []


def test_the_probe_answers_with_a_number_of_students(tmp_path: Path) -> None:
    _, agenda = begin(tmp_path, task_study("classification"))
    graph, (case, *_) = Graph(agenda.resolved), cases_of(agenda.resolved.study)
    probe = (graph.student(case), graph.data(case), graph.settings(case))
    assert fusing_pays(*probe, tmp_path, device="cpu") in (1, 4, 8, 16)


def test_of_a_wide_vocabulary_each_student_is_trained_alone(tmp_path: Path) -> None:
    _, agenda = begin(tmp_path, task_study("translation"))
    graph, (case, *_) = Graph(agenda.resolved), cases_of(agenda.resolved.study)
    probe = (graph.student(case), graph.data(case), graph.settings(case))
    assert fusing_pays(*probe, tmp_path, asked=4) == 1
