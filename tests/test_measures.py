"""What is measured beside the score: against formulas of their own, on masks and missing labels."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    begin,
    data_of,
    encode,
    everything,
    kind_for,
    model_in,
    one_by_one,
    reader_in,
    rows_of,
    run_study,
    save_model,
    settings_of,
    task_study,
    without_cost,
)
from pydantic import TypeAdapter
from scipy.special import softmax as scipy_softmax
from scipy.stats import entropy as scipy_entropy
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import Measures, Outcome, OutputsTraining, StudentTraining, written_outcome
from kdsearch.distill import run_training
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.curve import EntropyCurve
from kdsearch.distill.evaluation import autocast, evaluate
from kdsearch.distill.losses import Units
from kdsearch.distill.measures import MEASURES, Posteriors, Tally, measure
from kdsearch.distill.training import History, TrainingState, train
from kdsearch.ledger import Ledger, verify
from kdsearch.search import Labels, Mse
from kdsearch.tasks import IGNORED, TASKS, Batch, head_weights

Rows = Sequence[Sequence[float]]


# -- formulas of their own -----------------------------------------------------------------------


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]


def calibration(pairs: Sequence[tuple[float, bool]]) -> float:
    """Of (highest probability, whether it is right): 15 bins, each open below."""
    total = 0.0
    for number in range(15):
        inside = [(p, ok) for p, ok in pairs if number / 15 < p <= (number + 1) / 15]
        if inside:
            sure, right = fmean(p for p, _ in inside), fmean(ok for _, ok in inside)
            total += len(inside) / len(pairs) * abs(sure - right)
    return total


def expected(student: Rows, labels: Sequence[int], teacher: Rows | None = None) -> dict[str, float]:
    """Every measure of units that may have different numbers of classes."""
    units = [n for n, label in enumerate(labels) if label != IGNORED]
    p = [softmax(student[n]) for n in units]
    found = {"posterior_entropy": fmean(float(scipy_entropy(each)) for each in p)}
    several = [each for each in p if len(each) > 1]
    if several:
        shares = [float(scipy_entropy(each, base=len(each))) for each in several]
        found["relative_entropy"] = fmean(shares)
    many = [sorted(each)[:-1] for each in p if len(each) > 2]
    if many:  # scipy makes them sum to 1
        shares = [float(scipy_entropy(each, base=len(each))) for each in many]
        found["relative_entropy_without_top"] = fmean(shares)
    right = [int(np.argmax(student[n])) == labels[n] for n in units]
    found["calibration_error"] = calibration([(max(q), ok) for q, ok in zip(p, right, strict=True)])
    if teacher is not None:
        same = [int(np.argmax(student[n])) == int(np.argmax(teacher[n])) for n in units]
        found["agreement"] = fmean(same)
    return found


def padded(rows: Rows) -> tuple[Tensor, Tensor]:
    """Logits [U, C] and which are real; what is behind the end must not matter."""
    width = max(map(len, rows))
    real = torch.tensor([[n < len(row) for n in range(width)] for row in rows])
    values = [[*row, *[99.0] * (width - len(row))] for row in rows]
    return torch.tensor(values, dtype=torch.float64), real


def tallied(
    student: Rows, labels: Sequence[int], teacher: Rows | None = None, chunk: int = 1000
) -> dict[str, float]:
    logits, real = padded(student)
    parts = []
    for indices in torch.arange(len(labels)).split(chunk):
        more = {} if teacher is None else {"teacher": padded(teacher)[0][indices]}
        here = torch.tensor(labels)[indices]
        parts.append(Units(student=logits[indices], labels=here, real=real[indices], **more))
    tally = Tally()
    tally.add(parts)
    return tally.values()


@given(data=st.data(), units=st.integers(1, 12), seed=st.integers(0, 999))
def test_every_measure_is_that_of_its_formula_whatever_is_masked_or_has_no_label(
    data: st.DataObject, units: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    classes = data.draw(st.lists(st.integers(1, 6), min_size=units, max_size=units))
    student = [(4 * draw.normal(size=n)).tolist() for n in classes]
    teacher = [(4 * draw.normal(size=n)).tolist() for n in classes]
    labels = [IGNORED if draw.random() < 0.3 else int(draw.integers(n)) for n in classes]
    labels[0] = 0
    chunk = data.draw(st.integers(1, 13))
    found = tallied(student, labels, teacher, chunk)
    assert found == pytest.approx(expected(student, labels, teacher), rel=1e-9, abs=1e-12)


def test_what_two_classes_do_not_have_is_absent() -> None:
    found = tallied([[0.0, 1.0], [2.0, 0.0]], [0, 1])
    assert "relative_entropy" in found
    assert "relative_entropy_without_top" not in found


def test_of_units_without_a_label_nothing_is_measured() -> None:
    assert tallied([[0.0, 1.0, 2.0]], [IGNORED], [[0.0, 1.0, 2.0]]) == {}


def test_a_model_that_prefers_nothing_has_the_highest_entropies() -> None:
    found = tallied([[0.5] * 4] * 3, [0, 1, 2])
    assert found["posterior_entropy"] == pytest.approx(math.log(4))
    assert found["relative_entropy"] == pytest.approx(1)
    assert found["relative_entropy_without_top"] == pytest.approx(1)


def test_a_model_that_is_sure_has_none_and_its_error_is_how_often_it_is_wrong() -> None:
    found = tallied([[1e4, 0.0, 0.0]] * 4, [0, 0, 0, 1])
    assert found["posterior_entropy"] == 0
    assert found["calibration_error"] == pytest.approx(0.25)


def test_the_calibration_error_worked_out_by_hand() -> None:
    # Sure to 0.9 and right once of twice, sure to 0.6 and right: |0.9 − 0.5|·2/3 + |0.6 − 1|/3.
    logits = [[math.log(9), 0.0], [math.log(9), 0.0], [math.log(1.5), 0.0]]
    assert tallied(logits, [0, 1, 0])["calibration_error"] == pytest.approx(0.4)


def test_half_precision_is_no_coarser_than_its_logits() -> None:
    logits = torch.randn(50, 9).to(torch.bfloat16)
    labels = torch.arange(50) % 9
    tally = Tally()
    with autocast(torch.device("cpu"), "bf16"):
        tally.add([Units(student=logits, labels=labels)])
    exact = expected(logits.double().tolist(), labels.tolist())
    assert tally.values() == pytest.approx(exact, rel=1e-5)


def test_a_measure_has_a_name_that_a_record_takes() -> None:
    assert TypeAdapter(Measures).validate_python(dict.fromkeys(MEASURES, 0.5))


def test_a_new_measure_is_one_function() -> None:
    @measure()
    def probability_of_the_label(said: Posteriors) -> Tensor:
        found = said.probabilities.gather(1, said.units.labels[:, None])
        return torch.stack([found.sum(), torch.tensor(float(len(found)))])

    try:
        found = tallied([[0.0, 0.0], [math.log(3), 0.0]], [0, 0])
        assert found["probability_of_the_label"] == pytest.approx((0.5 + 0.75) / 2)
    finally:
        del MEASURES["probability_of_the_label"]


# -- a split of each task ------------------------------------------------------------------------


def made(task: str, folder: Path, seed: int) -> Any:
    longer = {} if TASKS[task].reads_pixels else {"max_position_embeddings": 128}
    save_model(folder, kind_for(task), task=task, seed=seed, **longer)
    return model_in(task, folder)


@torch.no_grad()
def logits_of(task: str, model: Any, examples: Any) -> tuple[list[list[float]], list[int]]:
    """Of every unit of a split the logits of its real classes, and its label."""
    batch = everything(examples)
    values = TASKS[task].outputs(model, batch)
    if TASKS[task].wide:
        values = torch.nn.functional.linear(values, *head_weights(model))
    units, real = TASKS[task].units(values, batch)
    real = torch.ones_like(units, dtype=torch.bool) if real is None else real
    rows = [row[mask].tolist() for row, mask in zip(units.double(), real, strict=True)]
    return rows, TASKS[task].labels(batch).tolist()


@pytest.mark.parametrize("task", sorted(TASKS))
@torch.no_grad()
def test_a_pass_over_a_split_measures_every_unit_once_beside_the_score(
    task: str, tmp_path: Path
) -> None:
    student, teacher = (made(task, tmp_path / str(n), n) for n in range(2))
    tokenizer = reader_in(task, tmp_path / "0")
    examples = encode(task, rows_of(task, 12), tokenizer, training=False)
    head = head_weights(teacher) if TASKS[task].wide else None
    kept = CachedOutputs(values=TASKS[task].outputs(teacher, everything(examples)), head=head)
    settings = settings_of(task, batch_size=1, beams=1)
    found = evaluate(
        *(student, TASKS[task], tokenizer, examples, data_of(task), settings), teacher=kept
    )
    rows, labels = logits_of(task, student, examples)
    taught, _ = logits_of(task, teacher, examples)
    assert found.measures == pytest.approx(expected(rows, labels, taught), rel=1e-4)
    alone = evaluate(student, TASKS[task], tokenizer, examples, data_of(task), settings)
    assert alone.measures == {k: v for k, v in found.measures.items() if k != "agreement"}
    assert (alone.score, alone.loss) == (found.score, found.loss)
    assert alone.examples_per_second is None


class SlowOutputs(CachedOutputs):
    """A teacher's, from a disk far away."""

    def of(self, batch: Batch) -> Tensor:
        time.sleep(0.2)
        return super().of(batch)


def test_a_models_speed_counts_neither_its_first_steps_nor_what_is_measured(tmp_path: Path) -> None:
    model = made("classification", tmp_path, 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    examples = encode("classification", rows_of("classification", 12), tokenizer, training=False)
    slow = iter([0.5])
    model.register_forward_pre_hook(lambda *_: time.sleep(next(slow, 0.0)))
    kept = SlowOutputs(values=torch.zeros(12, model.config.num_labels), head=None)
    given = (TASKS["classification"], tokenizer, examples, data_of(), settings_of(batch_size=1))
    found = evaluate(model, *given, teacher=kept, timed=True, cold=True)
    assert next(slow, None) is None
    assert found.examples_per_second is not None
    assert found.examples_per_second > 12 / 0.2  # measuring alone took that


# -- along a training ----------------------------------------------------------------------------


def trained(task: str, folder: Path, seen: list[float], **changes: Any) -> History:
    """A training of three epochs; `seen` takes each batch's entropy, by a formula of its own."""
    model = made(task, folder, 0)
    tokenizer = reader_in(task, folder)
    examples = encode(task, rows_of(task, 12), tokenizer)
    settings = settings_of(task, epochs=3, batch_size=5, beams=1, **changes)
    loss_of = batch_loss(TASKS[task], model, Labels())

    def looking(values: Tensor, batch: Any, epoch: int = 1, watch: Any = None) -> Tensor:
        logits = values.detach()
        if TASKS[task].wide:
            logits = torch.nn.functional.linear(logits, *head_weights(model)).detach()
        units, real = TASKS[task].units(logits, batch)
        real = torch.ones_like(units, dtype=torch.bool) if real is None else real
        every = [
            float(scipy_entropy(softmax(row[mask].tolist())))
            for row, mask in zip(units, real, strict=True)
        ]
        seen.append(fmean(every))
        return loss_of(values, batch, epoch, watch)

    state = TrainingState(model, TASKS[task], examples, looking, settings, learning_rate=1e-3)
    validation = encode(task, rows_of(task, 12), tokenizer, training=False)
    validate = partial(evaluate, model, TASKS[task], tokenizer, validation, data_of(task), settings)
    return train(state, validate, seed=1)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_curve_has_the_entropy_of_the_batches_as_they_are_trained_on(
    task: str, tmp_path: Path
) -> None:
    seen: list[float] = []
    curve = trained(task, tmp_path / "model", seen).curve
    assert curve is not None
    assert (curve.steps, curve.every) == (9, 1)
    assert curve.posterior_entropy == pytest.approx(seen, rel=1e-5)


@pytest.mark.parametrize(("steps", "every", "points"), [(1, 1, 1), (100, 1, 100), (101, 2, 51)])
def test_a_long_training_has_a_hundred_points_at_most(steps: int, every: int, points: int) -> None:
    curve = EntropyCurve(steps, torch.device("cpu"))
    for step in range(steps):
        curve.add(step, torch.tensor(float(step)), 3)
    found = curve.points()
    assert (found.steps, found.every, len(found.posterior_entropy)) == (steps, every, points)
    means = [fmean(range(first, min(first + every, steps))) for first in range(0, steps, every)]
    assert found.posterior_entropy == pytest.approx(means)


def test_a_point_is_the_mean_over_units_and_what_was_not_seen_is_none() -> None:
    curve = EntropyCurve(300, torch.device("cpu"))
    curve.add(0, torch.tensor(1.0), 1)
    curve.add(2, torch.tensor(0.25), 2)
    curve.add(3, torch.tensor(math.nan), 2)
    assert curve.points().posterior_entropy == (0.5, *[None] * 99)


# -- whole studies -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A finished study of classification with three labels, whose students are kept."""
    study = task_study("classification", keep_students="all", erm=True)
    ledger, agenda = begin(tmp_path_factory.mktemp("measures") / "run", study)
    run_study(ledger, agenda, run_training)
    return ledger


def outcomes(ledger: Ledger, kind: str, **fields: Any) -> list[Outcome]:
    found = [
        outcome
        for outcome in ledger.outcomes()
        if outcome.training.kind == kind
        and all(getattr(outcome.training, name) == value for name, value in fields.items())
    ]
    assert found
    return found


def kept_logits(ledger: Ledger, folder: Path, digest: str) -> tuple[list[list[float]], list[int]]:
    """What a model that was kept says of each row of a split, and the labels there."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = ledger.rows(digest)
    logits = one_by_one(model, AutoTokenizer.from_pretrained(folder), rows)
    return logits.double().tolist(), [row["label"] for row in rows]


def test_the_measures_of_an_outcome_are_those_of_the_kept_student(ran: Ledger) -> None:
    taught = [o for o in outcomes(ran, "student") if o.training.teaching is not None]  # type: ignore[union-attr]
    for outcome in taught[:2]:
        training = outcome.training
        assert isinstance(training, StudentTraining)
        teacher = training.taught.teacher
        logits, labels = kept_logits(
            ran, ran.folder / f"students/{outcome.key}", training.data.test
        )
        where = ran.folder / f"checkpoints/{teacher.training}/epoch-{teacher.epoch}"
        teachers, _ = kept_logits(ran, where, training.data.test)
        assert outcome.measures == pytest.approx(expected(logits, labels, teachers), rel=1e-4)


def test_a_student_without_a_teacher_agrees_with_none(ran: Ledger) -> None:
    for outcome in outcomes(ran, "student", teaching=None):
        assert set(outcome.measures) == set(MEASURES) - {"agreement"}
        assert all(set(epoch.measures) == set(outcome.measures) for epoch in outcome.epochs)


def test_the_softmax_of_outputs_is_that_of_the_logits_that_were_kept(ran: Ledger) -> None:
    for outcome in outcomes(ran, "outputs", split="train"):
        logits = np.load(ran.folder / f"outputs/{outcome.key}.npy").astype(np.float64)
        [at_4] = [each for each in outcome.softmax if each.temperature == 4]
        ranks = -np.sort(-scipy_softmax(logits / 4, axis=1), axis=1)
        assert at_4.ranks == pytest.approx(ranks.mean(axis=0), rel=1e-4)
        shares = scipy_entropy(ranks, axis=1, base=ranks.shape[1])
        assert at_4.relative_entropy == pytest.approx(shares.mean(), rel=1e-4)


def test_at_a_temperature_of_1_the_softmax_is_that_of_the_other_measures(ran: Ledger) -> None:
    tested = outcomes(ran, "outputs", split="test") + outcomes(ran, "student")
    for outcome in tested:
        [at_1] = [each for each in outcome.softmax if each.temperature == 1]
        for name in ("relative_entropy", "relative_entropy_without_top"):
            assert getattr(at_1, name) == pytest.approx(outcome.measures[name], rel=1e-4)
    assert all(len(outcome.softmax) == 1 for outcome in outcomes(ran, "student"))


def test_a_teachers_measures_are_those_of_its_epoch(ran: Ledger) -> None:
    [teacher] = outcomes(ran, "teacher")
    for outcome in outcomes(ran, "outputs", split="validation"):
        assert isinstance(outcome.training, OutputsTraining)
        epoch = teacher.epochs[(outcome.training.checkpoint.epoch or 0) - 1]
        assert outcome.measures == epoch.measures != {}
    assert all(outcome.measures for outcome in outcomes(ran, "outputs", split="test"))
    assert teacher.curve is not None
    assert None not in teacher.curve.posterior_entropy


def earlier(content: dict[str, Any]) -> dict[str, Any]:
    """An outcome as it was written before anything was measured."""
    for name in ("measures", "curve"):
        del content[name]
    for epoch in content["epochs"]:
        del epoch["measures"]
    return content


def test_an_outcome_of_an_earlier_version_has_no_measures(ran: Ledger) -> None:
    for outcome in ran.outcomes():
        old = Outcome.model_validate_json(json.dumps(earlier(written_outcome(outcome))))
        assert old.measures == {}
        assert old.curve is None
        assert all(epoch.measures == {} for epoch in old.epochs)
        assert (old.validation, old.test) == (outcome.validation, outcome.test)


def aged(ran: Ledger, folder: Path) -> Ledger:
    """A copy of the study with what an earlier version kept of a teacher's outputs."""
    shutil.copytree(ran.folder, folder)
    for path in (folder / "outputs").glob("*.*.npy"):
        path.unlink()
    for path in (folder / "outcomes").iterdir():
        content = json.loads(path.read_text())
        kept = {
            n: d
            for n, d in content["digests"].items()
            if ".validation." not in n and ".test." not in n
        }
        path.write_text(json.dumps(earlier({**content, "digests": kept})))
    return Ledger(folder)


def test_where_the_teachers_outputs_were_not_kept_agreement_is_not_measured(
    ran: Ledger, tmp_path: Path
) -> None:
    ledger = aged(ran, tmp_path / "old")
    assert verify(ledger).problems == []
    student = next(o for o in outcomes(ran, "student") if "agreement" in o.measures)
    found = run_training(student.training, ledger.folder)
    assert "agreement" not in found.measures
    assert (found.validation, found.test) == (student.validation, student.test)
    assert found.measures.items() < student.measures.items()


def test_outputs_of_an_earlier_version_that_are_made_again_are_kept_whole(
    ran: Ledger, tmp_path: Path
) -> None:
    ledger = aged(ran, tmp_path / "old")
    student = next(o for o in outcomes(ran, "student") if "agreement" in o.measures)
    assert isinstance(student.training, StudentTraining)
    (ledger.folder / f"outputs/{student.training.taught.outputs}.npy").unlink()
    found = run_training(student.training, ledger.folder)
    assert verify(ledger).problems == []
    assert without_cost(found) == without_cost(
        student.model_copy(update={"digests": found.digests})
    )


def test_no_key_covers_a_measure(ran: Ledger) -> None:
    for outcome in ran.outcomes():
        assert outcome.training.key == outcome.key
        assert "measures" not in json.dumps(written_outcome(outcome)["training"])


def test_the_entropy_without_labels_is_counted_in_the_curve(tmp_path: Path) -> None:
    model = made("classification", tmp_path / "model", 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = [{**row, "label": None} for row in rows_of("classification", 6)]
    examples = encode("classification", rows, tokenizer)
    batch = everything(examples)
    teacher = CachedOutputs(values=torch.randn(6, 3), head=None)
    told: list[tuple[float, int]] = []
    loss_of = batch_loss(TASKS["classification"], model, Mse(alpha=1), teacher)
    values = TASKS["classification"].outputs(model, batch)
    loss_of(values, batch, 1, lambda mean, units: told.append((float(mean), units)))
    every = [float(scipy_entropy(softmax(row))) for row in values.tolist()]
    assert told == [(pytest.approx(fmean(every), rel=1e-5), 6)]
