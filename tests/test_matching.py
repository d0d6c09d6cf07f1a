"""Objectives that match a teacher's outputs, beside public code of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import settings_of
from test_losses import VECTORS, published
from torch import Tensor

from kdsearch.distill.learnt_temperature import LearntTemperature, adversary
from kdsearch.distill.losses import Units, compute, label_loss
from kdsearch.distill.losses.units import standardised
from kdsearch.search import (
    TIED,
    Ce,
    Ctkd,
    Dist,
    Dkd,
    EaDkd,
    EaKd,
    Jsd,
    Mlkd,
    Objective,
    ReverseKl,
    Rld,
    Tempered,
    TotalVariation,
)
from kdsearch.tasks import IGNORED

STRONG = tuple(torch.tensor(VECTORS[f"{who}_logits_strong"]) for who in ("student", "teacher"))
STUDENT, TEACHER = (torch.tensor(VECTORS[f"{who}_logits"]) for who in ("student", "teacher"))
LABELS = torch.tensor(VECTORS["labels"])


def case(name: str) -> Any:
    return next(each for each in VECTORS["cases"] if each["name"] == name)


def objective_of(name: str, given: dict[str, Any]) -> Objective:
    """What a case of the vectors computes, without the labels' loss where it has none."""
    temperature = given.get("temperature", given.get("tau"))
    standardise = "logit_std" in name or given.get("logit_stand", False)
    common: dict[str, Any] = {"temperature": temperature, "standardise": standardise}
    decoupled = {**common, "label_weight": 0}
    bound: dict[str, Any] = {
        "entropy_temperature": given.get("t"),
        "entropy_bound": "published" if given.get("H_ub") == 100 else "log_classes",
    }
    if name.startswith("mlkd"):
        weights = {"label_weight": given["ce_weight"], "kd_weight": given["kd_weight"]}
        return Mlkd(**common, **weights, two_views="whole" in name)
    if name.startswith("dist"):
        return Dist(**decoupled, inter_class=given["beta"], intra_class=given["gamma"])
    if name.startswith("ea kd"):
        return EaKd(**common, **bound, alpha=1)
    parts: dict[str, Any] = {"target": given.get("alpha"), "non_target": given.get("beta")}
    if name.startswith("ea dkd"):
        return EaDkd(**decoupled, **bound, **parts)
    if name.startswith("rld"):
        return Rld(
            **decoupled,
            sample_confidence=given["alpha"],
            masked_correlation=given["beta"],
            confidence_temperature=given["alpha_temperature"],
        )
    if "dkd" in name:
        return Dkd(**decoupled, **parts)
    return Ce(**common, student_temperature=TIED, alpha=1, gradient_scale="tau_squared")


def of_vectors(objective: Objective) -> tuple[float, Tensor]:
    if not (isinstance(objective, Mlkd) and objective.two_views):
        return published(objective)
    student = STUDENT.clone().requires_grad_()
    units = Units(
        student=torch.cat([student, STRONG[0]]),
        teacher=torch.cat([TEACHER, STRONG[1]]),
        labels=LABELS.repeat(2),
    )
    value = compute(objective, units)
    value.backward()
    assert student.grad is not None
    return float(value.detach()), student.grad


@pytest.mark.parametrize(
    "name",
    [
        each["name"]
        for each in VECTORS["cases"]
        if not each["name"].startswith(("kd", "dkd", "logit_std kd"))
    ],
)
def test_an_objective_has_the_loss_and_the_gradient_of_public_code(name: str) -> None:
    expected = case(name)
    loss, gradient = of_vectors(objective_of(name, expected["params"]))
    assert loss == pytest.approx(expected["loss"], rel=2e-5)
    wanted = torch.tensor(expected["grad_student"])
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_ce_of_standardised_logits_is_the_published_kd_and_the_teachers_entropy(
    temperature: float,
) -> None:
    expected = case(f"logit_std kd T={temperature:g}")
    loss, gradient = published(objective_of("logit_std", {"temperature": temperature}))
    log_p = (standardised(TEACHER.double(), None) / temperature).log_softmax(dim=1)
    entropy = -float((log_p.exp() * log_p).sum(dim=1).mean())
    assert loss - temperature**2 * entropy == pytest.approx(expected["loss"], rel=2e-5)
    wanted = torch.tensor(expected["grad_student"])
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


# -- a temperature that is learnt ----------------------------------------------------------------


@pytest.mark.parametrize("expected", VECTORS["ctkd"]["cases"], ids=lambda each: each["lambda_"])
def test_a_learnt_temperature_has_the_published_gradient_and_the_student_its_own(
    expected: Any,
) -> None:
    epoch = {-0.5: 5, -1.0: 10}[expected["lambda_"]]
    objective = Ctkd(alpha=1, first_theta=expected["raw_parameter"])
    learnt = LearntTemperature(objective, settings_of("classification"), steps=1)
    student = STUDENT.clone().requires_grad_()
    units = Units(student=student, teacher=TEACHER, labels=LABELS, temperature=learnt(epoch))
    loss = compute(objective, units)
    loss.backward()
    assert learnt.value == pytest.approx(expected["temperature"], rel=1e-6)
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-5)
    wanted = torch.tensor(expected["grad_student"])
    torch.testing.assert_close(student.grad, wanted, atol=1e-5, rtol=1e-4)
    assert learnt.theta.grad is not None
    assert float(learnt.theta.grad) == pytest.approx(expected["grad_raw_parameter"], rel=1e-4)


def test_the_gradient_against_the_student_grows_along_a_cosine() -> None:
    objective = Ctkd(alpha=1, adversary_epochs=10)
    for epoch, factor in VECTORS["ctkd"]["lambda_by_epoch_over_10"].items():
        assert adversary(objective, int(epoch)) == pytest.approx(factor, rel=1e-9)


def test_a_temperature_makes_the_loss_larger_step_by_step_within_its_bounds() -> None:
    objective = Ctkd(alpha=1, adversary_epochs=0, adversary_rate=5.0)
    trained = settings_of("classification", schedule="constant", warmup=0.0)
    learnt = LearntTemperature(objective, trained, steps=200)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    losses = []
    for _ in range(200):
        units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS, temperature=learnt(1))
        loss = compute(objective, units)
        loss.backward()
        losses.append(float(loss.detach()))
        learnt.learn(scaler)
    assert losses[-1] > losses[0]
    assert 1 < learnt.value < 21


# -- what standardising, weights and classes do ----------------------------------------------------

STANDARDISED: dict[str, Tempered | Mlkd] = {
    "CE": Ce(temperature=2, student_temperature=1, alpha=1, standardise=True),
    "reverse KL": ReverseKl(temperature=2, student_temperature=TIED, alpha=1, standardise=True),
    "JSD": Jsd(temperature=2, student_temperature=TIED, alpha=1, beta=0.4, standardise=True),
    "TVD": TotalVariation(temperature=2, student_temperature=TIED, alpha=1, standardise=True),
    "DKD": Dkd(temperature=2, target=1, non_target=8, label_weight=0, standardise=True),
    "RLD": Rld(temperature=2, masked_correlation=8, label_weight=0, standardise=True),
    "EA-KD": EaKd(temperature=2, alpha=1, standardise=True),
    "EA-DKD": EaDkd(temperature=2, target=1, non_target=8, label_weight=0, standardise=True),
    "DIST": Dist(temperature=2, label_weight=0, standardise=True),
    "CTKD": Ctkd(alpha=1, standardise=True),
}
"""Without the labels' loss, which takes logits as they are. MLKD's correlations do too."""


def loss_of(objective: Objective, student: Tensor, teacher: Tensor, **more: Any) -> Tensor:
    units = {"labels": LABELS[: len(student)], "temperature": torch.tensor(3.0), **more}
    return compute(objective, Units(student=student, teacher=teacher, **units))


@pytest.mark.parametrize("which", STANDARDISED)
@settings(max_examples=15)
@given(
    scales=st.tuples(*[st.floats(0.0625, 20, width=32)] * 2),
    shifts=st.tuples(*[st.floats(-20, 20, width=32)] * 2),
    seed=st.integers(0, 99),
)
def test_standardised_logits_may_have_any_scale_and_any_mean(
    which: str, scales: tuple[float, float], shifts: tuple[float, float], seed: int
) -> None:
    student, teacher = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(seed))
    before = loss_of(STANDARDISED[which], student, teacher)
    moved = (each * a + b for each, a, b in zip((student, teacher), scales, shifts, strict=True))
    after = loss_of(STANDARDISED[which], *moved)
    assert float(after) == pytest.approx(float(before), rel=2e-3, abs=2e-4)


def test_the_labels_loss_takes_logits_as_they_are() -> None:
    objective = Dkd(temperature=2, target=1, non_target=8, standardise=True)
    bare = replace(objective, label_weight=0)
    difference = loss_of(objective, STUDENT, TEACHER) - loss_of(bare, STUDENT, TEACHER)
    own = label_loss(Units(student=STUDENT, labels=LABELS))
    assert float(difference) == pytest.approx(float(own), rel=1e-5)


def test_standardised_logits_have_their_own_scale_for_a_unit_of_temperatures() -> None:
    in_scales = Ce(
        temperature=2,
        student_temperature=1,
        alpha=1,
        standardise=True,
        temperature_unit="logit_scale",
    )
    assert in_scales == replace(in_scales, temperature_unit="none")


@given(
    logits=st.lists(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4), min_size=1),
    counts=st.lists(st.integers(1, 4), min_size=1),
)
def test_only_the_classes_that_a_unit_has_are_standardised(
    logits: list[list[float]], counts: list[int]
) -> None:
    size = min(len(logits), len(counts))
    values, own = torch.tensor(logits[:size]), torch.tensor(counts[:size])
    found = standardised(values, torch.arange(4) < own[:, None])
    for row, each, count in zip(found, values, own.tolist(), strict=True):
        alone = standardised(each[None, :count], None)[0]
        torch.testing.assert_close(row[:count], alone, atol=1e-4, rtol=1e-4)


ALL: dict[str, Objective] = {
    **STANDARDISED,
    **{f"{n}, raw": replace(each, standardise=False) for n, each in STANDARDISED.items()},
    "EA-KD as published": EaKd(temperature=2, alpha=0.5, entropy_bound="published"),
    "MLKD": Mlkd(temperature=4),
    "MLKD of two views": Mlkd(temperature=4, two_views=True),
    "MLKD, standardised": Mlkd(temperature=4, standardise=True),
    "DKD of the teacher's class": Dkd(temperature=2, target=1, non_target=8, class_of="teacher"),
    "RLD of the teacher's class": Rld(temperature=2, masked_correlation=8, class_of="teacher"),
}
LARGE = st.sampled_from([0.0, 1.0, -1.0, 30.0, -200.0, 1e4, -1e4])


@pytest.mark.parametrize("which", ALL)
@settings(max_examples=15)
@given(logits=st.lists(LARGE, min_size=24, max_size=24), labelled=st.booleans())
def test_logits_of_any_size_have_a_finite_loss_and_gradient(
    which: str, logits: list[float], labelled: bool
) -> None:
    student, teacher = torch.tensor(logits).view(2, 4, 3)
    student.requires_grad_()
    labels = torch.tensor([0, 1, 2, 0]) if labelled else torch.full((4,), IGNORED)
    temperature = torch.tensor(3.0, requires_grad=True)
    value = loss_of(ALL[which], student, teacher, labels=labels, temperature=temperature)
    assert torch.isfinite(value)
    value.backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    if temperature.grad is not None:
        assert torch.isfinite(temperature.grad)


@pytest.mark.parametrize(
    "objective",
    [
        Dkd(temperature=4, target=1, non_target=8, label_weight=0, class_of="teacher"),
        Rld(temperature=4, masked_correlation=8, label_weight=0, class_of="teacher"),
        EaDkd(temperature=4, target=1, non_target=8, label_weight=0, class_of="teacher"),
    ],
    ids=str,
)
def test_of_the_teachers_class_no_label_is_needed_and_its_likeliest_is_taken(
    objective: Any,
) -> None:
    unlabelled = torch.full_like(LABELS, IGNORED)
    found = loss_of(objective, STUDENT, TEACHER, labels=unlabelled)
    labelled = replace(objective, class_of="label")
    expected = loss_of(labelled, STUDENT, TEACHER, labels=TEACHER.argmax(dim=1))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss_of(labelled, STUDENT, TEACHER, labels=unlabelled)) == 0


def test_units_count_by_half_the_teachers_entropy_and_up_to_twice_by_the_students() -> None:
    flat, sure = torch.zeros(1, 5), torch.tensor([[1000.0, 0, 0, 0, 0]])
    teacher, labels = TEACHER[:1], LABELS[:1]
    log_p = (teacher.double() / 3).log_softmax(dim=1)
    entropy = -float((log_p.exp() * log_p).sum())
    for student, factor in ((flat, 1.0), (sure, 0.5)):
        kd = Ce(temperature=4, student_temperature=4, alpha=1, gradient_scale="tau_squared")
        divergence = loss_of(kd, student, teacher, labels=labels) - loss_of(
            kd, teacher, teacher, labels=labels
        )
        found = loss_of(EaKd(temperature=4, alpha=1), student, teacher, labels=labels)
        assert float(found) == pytest.approx(entropy * factor * float(divergence), rel=1e-4)


def test_an_objective_that_takes_the_labels_too_adds_them_by_their_weight() -> None:
    own = float(label_loss(Units(student=STUDENT, labels=LABELS)))
    for objective in (Dist(temperature=4), Rld(temperature=4, masked_correlation=8)):
        bare = replace(objective, label_weight=0)
        more = loss_of(objective, STUDENT, TEACHER) - loss_of(bare, STUDENT, TEACHER)
        assert float(more) == pytest.approx(own, rel=1e-4)
    kd = Ctkd(alpha=1)
    mixed = loss_of(replace(kd, alpha=0.9), STUDENT, TEACHER)
    expected = 0.1 * own + 0.9 * float(loss_of(kd, STUDENT, TEACHER))
    assert float(mixed) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "word"),
    [
        (Rld, {"temperature": 1, "masked_correlation": 0, "sample_confidence": 0}, "nothing would"),
        (Rld, {"temperature": 1, "masked_correlation": 8, "confidence_temperature": 0}, "positive"),
        (EaKd, {"temperature": 1, "alpha": 1, "entropy_temperature": 0}, "entropy_temperature"),
        (EaKd, {"temperature": 1, "alpha": 0}, "alpha"),
        (Ctkd, {"alpha": 1, "temperature_start": 0}, "temperature_start must be positive"),
        (Ctkd, {"alpha": 1, "first_theta": math.inf}, "first_theta must be finite"),
        (Ctkd, {"alpha": 1, "adversary_rate": -1}, "adversary_rate"),
        (Dist, {"temperature": 1, "inter_class": 0, "intra_class": 0}, "nothing would"),
        (Mlkd, {"temperature": 4, "kd_weight": 0}, "nothing would be distilled"),
        (Mlkd, {"temperature": -4}, "temperature must be positive"),
    ],
)
def test_a_parameter_out_of_range_is_refused(kind: Any, values: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        kind(**values)


def test_temperatures_in_units_of_the_logit_scale_are_all_multiplied() -> None:
    unit: Any = {"temperature_unit": "logit_scale"}
    rld = Rld(temperature=2, masked_correlation=8, confidence_temperature=TIED, **unit)
    assert rld.at_scale(2.5) == Rld(
        temperature=5, masked_correlation=8, confidence_temperature=TIED
    )
    assert EaKd(temperature=2, alpha=1, **unit).at_scale(2) == EaKd(
        temperature=4, alpha=1, entropy_temperature=6
    )
    assert Ctkd(alpha=1, **unit).at_scale(2) == Ctkd(
        alpha=1, temperature_start=2, temperature_span=40
    )


def test_losses_are_of_single_precision_under_mixed_precision_too() -> None:
    objective = Mlkd(temperature=4.0, label_weight=0.0)  # whose correlations are products
    torch.manual_seed(0)
    teacher = torch.randn(16, 10)
    student = teacher + 0.01 * torch.randn(16, 10)
    units = Units(student=student, teacher=teacher, labels=torch.zeros(16, dtype=torch.long))
    alone = compute(objective, units)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compute(objective, units), alone)
