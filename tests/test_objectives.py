"""Studies of objectives that match a teacher's outputs: on the way, and in words."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from models import begin, run_study, settings_of, spread, task_study
from test_resume import DeadError, MemoryCheckpoints
from test_together import assert_equal, model_of
from test_training import DATA, TASK, TOKENIZER, bert, encoded
from typer.testing import CliRunner

from kdsearch.agenda import Agenda, Outcome, StudentTraining
from kdsearch.cli.app import app
from kdsearch.distill import run_training
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.learnt_temperature import LearntTemperature
from kdsearch.distill.together import Together, train_together
from kdsearch.distill.training import History, TrainingState, steps_per_epoch, train
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.report import write_report
from kdsearch.search import Ce, Ctkd, Dist, Mlkd, Objective

# -- a temperature that is learnt, on the way ------------------------------------------------------

torch.manual_seed(7)
TEACHER = CachedOutputs(values=2 * torch.randn(40, 2), head=None)
CTKD = Ctkd(alpha=0.9, adversary_epochs=2, adversary_rate=3.0)
SETTINGS: dict[str, Any] = {"epochs": 3, "schedule": "cosine", "warmup": 0.2, "clip": 1.0}


def state_of(model: Any, objective: Ctkd = CTKD, **changes: Any) -> TrainingState:
    settings = settings_of(**{**SETTINGS, **changes})
    examples = encoded(40)
    steps = settings.epochs * steps_per_epoch(examples, settings)
    learnt = LearntTemperature(objective, settings, steps)
    loss = batch_loss(TASK, model, objective, TEACHER, learnt)
    return TrainingState(
        *(model, TASK, examples, loss, settings), learning_rate=3e-3, temperature=learnt
    )


def learns(
    state: TrainingState, checkpoints: MemoryCheckpoints | None = None
) -> tuple[Any, History]:
    model = state.model
    validate = partial(evaluate, model, TASK, TOKENIZER, encoded(24), DATA, state.settings)
    return model, train(state, validate, seed=1, checkpoints=checkpoints)


@pytest.mark.parametrize("changes", [{}, {"precision": "fp16"}], ids=str)
def test_a_training_with_a_learnt_temperature_goes_on_to_the_bit(changes: dict[str, Any]) -> None:
    whole, history = learns(state_of(bert(), **changes))
    temperatures = [epoch.learnt_temperature for epoch in history.epochs]
    assert None not in temperatures
    assert len({*temperatures, 15.621172}) == 4  # it moves, from where it starts
    for step in (5, 13) if not changes else (7,):
        checkpoints = MemoryCheckpoints(dies_after=step)
        with pytest.raises(DeadError):
            learns(state_of(bert(), **changes), checkpoints)
        checkpoints.dies_after = None
        model, resumed = learns(state_of(bert(seed=step), **changes), checkpoints)
        assert resumed.epochs == history.epochs
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (step, name)


def test_the_temperature_decays_by_its_own_rate_and_not_by_the_students() -> None:
    still = Ctkd(alpha=0.9, adversary_rate=0)
    _, history = learns(state_of(bert(), still))
    found = [epoch.learnt_temperature for epoch in history.epochs]
    assert found == pytest.approx([1 + 20 / (1 + math.exp(-1))] * 3)
    settings = settings_of(schedule="constant", warmup=0.0)
    objective = Ctkd(alpha=0.9, adversary_rate=0.1, adversary_decay=0.5)
    learnt = LearntTemperature(objective, settings, steps=5)
    theta, momentum = 1.0, 0.0
    for _ in range(3):
        learnt.theta.grad = torch.tensor(0.25)
        learnt.learn(torch.amp.GradScaler("cpu", enabled=False))
        momentum = 0.9 * momentum + 0.25 + 0.5 * theta
        theta -= 0.1 * momentum
        assert float(learnt.theta.detach()) == pytest.approx(theta, rel=1e-5)


def test_temperatures_that_are_learnt_in_one_pass_are_those_of_each_alone() -> None:
    slow = Ctkd(alpha=1.0, adversary_epochs=1, adversary_rate=0.5)
    states = [state_of(deepcopy(model_of(0.0)), each) for each in (CTKD, slow)]
    validates = [
        partial(evaluate, state.model, TASK, TOKENIZER, encoded(24), DATA, state.settings)
        for state in states
    ]
    nowhere = [MemoryCheckpoints(due=False) for _ in states]
    torch.manual_seed(1)
    histories = train_together(states, TASK, validates, seed=1, checkpoints=nowhere)
    for objective, state, history in zip((CTKD, slow), states, histories, strict=True):
        torch.manual_seed(1)
        own = learns(state_of(model_of(0.0), objective))
        assert_equal((state.model, history), own)
        for epoch, too in zip(history.epochs, own[1].epochs, strict=True):
            assert epoch.learnt_temperature == pytest.approx(too.learnt_temperature, rel=1e-5)


def spread_model() -> Any:
    """One whose outputs differ from example to example, so that no rounding decides."""
    model = model_of(0.0)
    torch.manual_seed(4)
    spread(model)
    return model


@pytest.mark.parametrize(
    "objective", [Dist(temperature=4, inter_class=0), Mlkd(temperature=4)], ids=str
)
def test_what_compares_a_whole_batch_is_the_same_in_parts_and_in_one_pass_with_others(
    objective: Objective,
) -> None:
    ce = Ce(temperature=2.0, student_temperature=2.0, alpha=1.0)

    def begun(objective: Objective, parts: int = 1) -> TrainingState:
        model = spread_model()
        loss = batch_loss(TASK, model, objective, TEACHER)
        settings = settings_of(optimizer="sgd")
        return TrainingState(
            *(model, TASK, encoded(40), loss, settings), learning_rate=0.0, parts=parts
        )

    indices = torch.arange(16)
    whole, in_parts, fused = begun(objective), begun(objective, parts=3), begun(objective)
    every = Together([fused, begun(ce)], TASK)
    for each in (whole, in_parts, every):
        each.begin(1)
        each.step(indices, 1)
    for other in (in_parts, fused):
        # What a tiny model says hardly differs between examples: correlations show its rounding.
        assert float(other.total) == pytest.approx(float(whole.total), rel=1e-4)
        own, theirs = gradient(whole), gradient(other)
        assert float((theirs - own).norm()) < 1e-3 * float(own.norm())


def gradient(state: TrainingState) -> torch.Tensor:
    found = [each.grad for each in state.model.parameters()]
    return torch.cat([each.flatten() for each in found if each is not None])


# -- a study ---------------------------------------------------------------------------------------

GRID: dict[str, Any] = {"strategy": "exhaustive", "learning_rate": [3e-3]}
SEARCHES: dict[str, Any] = {
    "levels": {
        **GRID,
        "objective": ["rld", "dist", "mlkd", "ea_kd", "ea_dkd", "dkd"],
        "alpha": 1,
        "temperature": 4,
        "masked_correlation": 8,
        "confidence_temperature": "tied",
        "target": 1,
        "non_target": 8,
        "class_of": "teacher",
        "label_weight": 0,
        "standardise": True,
    },
    "learnt": {**GRID, "objective": "ctkd", "alpha": 1},
    "controls": {
        **GRID,
        "objective": "ce",
        "temperature": 4,
        "alpha": 1,
        "supervision": ["softmax", "smoothed", "smoothed each", "permuted after 1"],
    },
}


def study_of(task: str = "ner", **searches: Any) -> dict[str, Any]:
    teachers = {"big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 1}}}
    study = task_study(task, searches=searches, teachers=teachers, training={"epochs": 1})
    del study["search"]
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Agenda]:
    ledger, agenda = begin(tmp_path_factory.mktemp("study") / "run", study_of(**SEARCHES))
    run_study(ledger, agenda, run_training)
    write_report(ledger, agenda)
    return ledger, agenda


def students_of(ledger: Ledger) -> list[tuple[Objective, Outcome]]:
    return [
        (outcome.training.objective, outcome)
        for outcome in ledger.outcomes()
        if isinstance(outcome.training, StudentTraining)
    ]


def test_every_one_of_them_trains_and_what_it_learnt_or_found_is_in_its_outcome(
    study: Any,
) -> None:
    found = students_of(study[0])
    assert len(found) == 11
    for objective, outcome in found:
        assert outcome.state == "scored"
        assert (outcome.learnt_temperature is not None) == isinstance(objective, Ctkd)
        assert outcome.learnt_temperature == outcome.epochs[-1].learnt_temperature
        control = getattr(objective, "supervision", "softmax")
        assert (outcome.smoothing is not None) == control.startswith("smoothed")
    shares = [outcome.smoothing for _, outcome in found if outcome.smoothing is not None]
    assert all(0 < share < 1 for share in shares)


def test_reports_and_explain_have_words_for_all_of_them_and_the_temperature_that_was_learnt(
    study: Any,
) -> None:
    ledger, _ = study
    [learnt] = [
        outcome.learnt_temperature
        for objective, outcome in students_of(ledger)
        if isinstance(objective, Ctkd)
    ]
    texts = [(ledger.folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html")]
    for words in ("CTKD", "MLKD", "permuted after 1", "supervision", "standardise"):
        assert words in texts[0]
    assert all(f"learnt: {learnt:.3g}" in text for text in texts)
    explained = CliRunner().invoke(app, ["explain", str(ledger.folder), "--json"]).output
    found = json.loads(explained)[1]["decisions"][0]["candidates"][0]
    assert found["effective_temperature"] == pytest.approx(learnt, rel=1e-5)


def test_a_mirror_takes_all_of_their_parameters(study: Any, tmp_path: Path) -> None:
    ledger, _ = study
    url = f"sqlite:///{tmp_path}/mirror.db"
    ended = CliRunner().invoke(app, ["mirror", str(ledger.folder), url])
    assert ended.exit_code == 0, ended.output
    names = [name for name in optuna.get_all_study_names(url) if name.endswith("levels")]
    trials = [
        trial for name in names for trial in optuna.load_study(study_name=name, storage=url).trials
    ]
    [rld] = [trial.params for trial in trials if trial.params["distance"] == "rld"]
    assert rld["confidence_temperature"] == "tied"
    assert rld["standardise"] is True


def test_a_model_card_says_what_temperature_was_learnt(study: Any, tmp_path: Path) -> None:
    ledger, _ = study
    case = "data/big/small/learnt"
    ended = CliRunner().invoke(
        app, ["export", str(ledger.folder), case, "--to", str(tmp_path / "student")]
    )
    assert ended.exit_code == 0, ended.output
    card = (tmp_path / "student" / "README.md").read_text()
    assert "| temperature that was learnt | 1" in card


# -- what cannot be --------------------------------------------------------------------------------

RLD = {**GRID, "objective": "rld", "temperature": 4, "masked_correlation": 8}
CE = {**GRID, "objective": "ce", "temperature": 4, "alpha": 1}
DIST = {**GRID, "objective": "dist", "temperature": 4}
OTHER = "give it other data sets by test_cases"
LIKE = "give it data of classification or ner by test_cases"


def data_of(folder: Path, *labels: str, unlabelled: int = 0) -> dict[str, Any]:
    """A data set of rows with these labels, of which some of the training split have none."""
    files = {}
    for split in ("train", "validation", "test"):
        names = [labels[i % len(labels)] for i in range(12)]
        missing = unlabelled if split == "train" else 0
        rows = [
            {"sentence": f"{split} {i} b", "label": None if i < missing else name}
            for i, name in enumerate(names)
        ]
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("\n".join(map(json.dumps, rows)))
    return {"files": files, "text": "sentence", "label": "label", "labels": [*labels]}


@pytest.mark.parametrize(
    ("task", "search", "problem"),
    [
        (
            "two classes",
            RLD,
            f"distance: rld needs at least 3 classes, and data has 2 (leave rld out, or {OTHER})",
        ),
        (
            "two classes",
            DIST,
            f"distance: dist needs at least 3 classes, and data has 2 (leave dist out, or {OTHER})",
        ),
        (
            "two classes",
            {**CE, "standardise": [False, True]},
            "standardise: standardised logits of 2 classes are always the same, up to their "
            f"order; it needs at least 3, and data has 2 (leave it out, or {OTHER})",
        ),
        (
            "two classes",
            {**CE, "supervision": ["softmax", "permuted after 1"]},
            "supervision: permuted after 1 permutes nothing, since data has 2 classes "
            "(leave it out)",
        ),
        (
            "ner",
            {**CE, "supervision": ["permuted after 3", "permuted after 4"]},
            "supervision: permuted after 4 permutes nothing, since data has 5 classes "
            "(give at most permuted after 3, or leave it out)",
        ),
        (
            "qa",
            DIST,
            "distance: dist compares the units of a batch class by class, and data is for qa, "
            f"whose units have no common labels (leave it out, or {LIKE})",
        ),
        (
            "lm",
            {**CE, "supervision": ["softmax", "smoothed"]},
            "supervision: smoothed: known where all units have the same labels, and data is for "
            f"lm (leave only softmax, or {LIKE})",
        ),
        (
            "translation",
            {**GRID, "objective": "ctkd"},
            "distance: ctkd learns its temperature of a whole batch, and data is for translation, "
            "of whose vocabulary only some units’ logits are there at once "
            f"(leave it out, or {LIKE})",
        ),
        (
            "classification",
            {**GRID, "objective": "mlkd", "temperature": 4, "batch_size": [16, 19]},
            "distance: mlkd compares the units of a batch with one another, and of the 96 "
            "training rows of data in batches of 19 the last is alone "
            "(take another batch_size, or leave a row out)",
        ),
        (
            "classification",
            {**GRID, "objective": "mlkd", "temperature": 4, "two_views": [False, True]},
            "two_views: data is for classification, of whose examples there is one view "
            "(leave it out)",
        ),
    ],
)
def test_what_an_objective_cannot_do_with_the_data_is_said_before_anything_starts(
    task: str, search: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    study = study_of("classification" if task == "two classes" else task, one=search)
    if task == "two classes":
        study["datasets"] = {"data": data_of(tmp_path, "no", "yes")}
    with pytest.raises(InputError) as raised:
        begin(tmp_path / "run", study)
    assert [f"study.yaml: searches.one.{problem}"] == str(raised.value).splitlines()


def test_a_control_of_standardised_logits_is_refused_in_the_study_file(tmp_path: Path) -> None:
    search = {**CE, "supervision": ["softmax", "smoothed"], "standardise": [False, True]}
    words = "searches.one.supervision\\[1\\]: must be softmax where logits are standardised"
    with pytest.raises(InputError, match=words):
        begin(tmp_path, study_of(one=search))


def test_rows_without_labels_can_be_learnt_where_no_label_is_needed(tmp_path: Path) -> None:
    datasets = {"data": data_of(tmp_path, "x", "y", "z", unlabelled=1)}
    without = {"class_of": "teacher", "label_weight": 0}
    begin(tmp_path / "a", {**study_of(one={**RLD, **without}), "datasets": datasets})
    for search in (RLD, {**RLD, "class_of": "teacher"}, {**RLD, "label_weight": 0}):
        with pytest.raises(InputError) as raised:
            begin(tmp_path / "b", {**study_of(one=search), "datasets": datasets})
        assert str(raised.value) == (
            "study.yaml: datasets.data: 1 of 12 training rows have no label, and rld needs them "
            "(set label_weight: 0 and class_of: teacher in searches.one, or leave these rows out)"
        )
