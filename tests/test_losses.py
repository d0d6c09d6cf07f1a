from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from models import DISTANCES, objective_of
from torch import Tensor

from kdsearch.distill.losses import LOSSES, Units, compute, label_loss
from kdsearch.search import (
    TIED,
    Ce,
    Dkd,
    EaDkd,
    EaKd,
    Jsd,
    Labels,
    LabelSmoothing,
    Mse,
    Objective,
    ReverseKl,
    Rld,
    TotalVariation,
)
from kdsearch.tasks import IGNORED

N, C = 5, 4
LABELS = torch.tensor([0, 3, 1, 1, 2])
LOGITS = st.lists(
    st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=2, max_size=2
).map(torch.tensor)
TEMPERATURES = st.floats(0.5, 64)


def drawn(seed: int) -> Tensor:
    """Logits [N, C]."""
    return 3 * torch.randn(N, C, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = drawn(1), drawn(2)


def softmax(logits: Tensor, temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """exp(z / τ) / Σ exp(z / τ), in double precision."""
    powers = np.exp(logits.detach().double().numpy() / temperature)
    shares: np.ndarray[Any, Any] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def by_hand_ce(student: Tensor, teacher: Tensor, temperature: float, own: float) -> float:
    """The cross-entropy of softened distributions."""
    terms = softmax(teacher, temperature) * np.log(softmax(student, own))
    return float(-terms.sum(axis=1).mean())


def loss(student: Tensor = STUDENT, teacher: Tensor = TEACHER, **changes: Any) -> Tensor:
    """L_KD, by default CE with both temperatures 2 at α = 1."""
    units = Units(
        student=student,
        teacher=teacher,
        labels=changes.pop("labels", LABELS),
        real=changes.pop("real", None),
    )
    values = {"distance": "ce", "temperature": 2.0, "student_temperature": 2.0, **changes}
    return compute(objective_of(**values), units)


def ce(student: Tensor, teacher: Tensor, temperature: float, own: float) -> Tensor:
    """CE alone."""
    return loss(student, teacher, temperature=temperature, student_temperature=own)


@pytest.mark.parametrize(("temperature", "own"), [(1.0, 1.0), (4.0, 4.0), (4.0, 1.0), (0.5, 3.0)])
def test_ce_is_the_cross_entropy_of_the_softened_distributions(
    temperature: float, own: float
) -> None:
    expected = by_hand_ce(STUDENT, TEACHER, temperature, own)
    assert float(ce(STUDENT, TEACHER, temperature, own)) == pytest.approx(expected, rel=1e-5)


def test_mse_is_the_mean_over_units_and_classes_of_the_squared_difference() -> None:
    expected = ((STUDENT - TEACHER).numpy() ** 2).sum() / (N * C)
    assert float(loss(distance="mse")) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_alpha_mixes_the_labels_cross_entropy_with_the_distance(
    distance: str, alpha: float
) -> None:
    own = -np.log(softmax(STUDENT)[np.arange(N), LABELS.numpy()]).mean()
    kd = by_hand_ce(STUDENT, TEACHER, 2, 3)
    if distance == "mse":
        kd = float(((STUDENT - TEACHER) ** 2).mean())
    found = loss(distance=distance, alpha=alpha, student_temperature=3.0)
    assert float(found) == pytest.approx((1 - alpha) * own + alpha * kd, rel=1e-5)


@pytest.mark.parametrize(("temperature", "own"), [(1.0, 1.0), (8.0, 8.0), (8.0, 1.0)])
def test_the_gradient_of_ce_is_the_difference_of_the_distributions_over_the_students_temperature(
    temperature: float, own: float
) -> None:
    student = STUDENT.clone().requires_grad_()
    loss(student, temperature=temperature, student_temperature=own).backward()
    expected = (softmax(STUDENT, own) - softmax(TEACHER, temperature)) / own / N
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-6)


def test_the_gradient_of_ce_is_that_of_the_kl_divergence() -> None:
    student, other = (STUDENT.clone().requires_grad_() for _ in range(2))
    loss(student, temperature=4.0).backward()
    kl = torch.nn.KLDivLoss(reduction="batchmean")
    kl((other / 2).log_softmax(dim=1), (TEACHER / 4).softmax(dim=1)).backward()
    torch.testing.assert_close(student.grad, other.grad)


def test_tau_squared_multiplies_ce_by_the_square_of_the_students_temperature() -> None:
    plain = loss(temperature=4.0, student_temperature=3.0)
    scaled = loss(temperature=4.0, student_temperature=3.0, gradient_scale="tau_squared")
    assert float(scaled) == pytest.approx(9 * float(plain), rel=1e-6)


def test_tau_squared_leaves_the_labels_cross_entropy_as_it_is() -> None:
    scaled = loss(alpha=0.25, student_temperature=3.0, gradient_scale="tau_squared")
    labels = -np.log(softmax(STUDENT)[np.arange(N), LABELS.numpy()]).mean()
    expected = 0.75 * labels + 0.25 * 9 * by_hand_ce(STUDENT, TEACHER, 2, 3)
    assert float(scaled) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_at_alpha_1_the_labels_do_not_matter_even_where_they_are_none(distance: str) -> None:
    nothing = torch.full((N,), -100)
    assert torch.equal(loss(distance=distance), loss(distance=distance, labels=nothing))


@pytest.mark.parametrize("distance", DISTANCES)
def test_no_step_leads_below_the_loss_of_equal_logits(distance: str) -> None:
    student = TEACHER.clone().requires_grad_()
    least = loss(student, distance=distance)
    least.backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-7
    for seed in range(20):
        assert loss(TEACHER + 0.1 * drawn(seed), distance=distance) > least


def test_at_a_huge_temperature_all_classes_are_alike() -> None:
    student = STUDENT.clone().requires_grad_()
    found = loss(student, temperature=1e6, student_temperature=1e6)
    found.backward()
    assert float(found.detach()) == pytest.approx(np.log(C), rel=1e-5)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_logits_are_compared_in_single_precision(
    dtype: torch.dtype, distance: str
) -> None:
    student, teacher = STUDENT.to(dtype), TEACHER.to(dtype)
    found = loss(student, teacher, distance=distance, alpha=0.5)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), teacher.float(), distance=distance, alpha=0.5))


def test_logits_far_apart_give_a_finite_loss_in_half_precision() -> None:
    far = torch.tensor([[300.0, -300.0]], dtype=torch.float16)
    found = loss(far, -far, labels=torch.tensor([0]), distance="mse")
    assert float(found) == pytest.approx(600.0**2)


@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES, own=TEMPERATURES)
def test_ce_is_no_less_than_the_teachers_entropy(
    student: Tensor, teacher: Tensor, temperature: float, own: float
) -> None:
    found = float(ce(student, teacher, temperature, own))
    entropy = by_hand_ce(teacher, teacher, temperature, temperature)
    assert found >= entropy - 1e-4 * (1 + abs(entropy))


@given(student=LOGITS, teacher=LOGITS, shifts=st.tuples(*[st.floats(-50, 50, width=32)] * 2))
def test_ce_is_the_same_for_logits_that_a_constant_is_added_to(
    student: Tensor, teacher: Tensor, shifts: tuple[float, float]
) -> None:
    before = float(ce(student, teacher, 2, 4))
    after = float(ce(student + shifts[0], teacher + shifts[1], 2, 4))
    assert after == pytest.approx(before, rel=1e-3, abs=1e-4)


@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_the_gradient_of_ce_sums_to_nothing_over_the_classes(
    student: Tensor, teacher: Tensor, temperature: float
) -> None:
    student = student.clone().requires_grad_()
    ce(student, teacher, temperature, temperature).backward()
    assert student.grad is not None
    assert float(student.grad.sum(dim=1).abs().max()) < 1e-6


def test_each_objective_has_a_function_that_computes_it() -> None:
    assert LOSSES.keys() == set(Objective.kinds.values())


# -- other objectives ----------------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())
"""What public code computes; see `about` in it."""


def published(objective: Objective) -> tuple[float, Tensor]:
    """The loss of the vectors' logits, and its gradient."""
    student = torch.tensor(VECTORS["student_logits"], requires_grad=True)
    teacher, labels = (torch.tensor(VECTORS[name]) for name in ("teacher_logits", "labels"))
    value = compute(objective, Units(student=student, teacher=teacher, labels=labels))
    value.backward()
    assert student.grad is not None
    return float(value.detach()), student.grad


def vectors(name: str) -> list[Any]:
    return [
        pytest.param(case, id=case["name"])
        for case in VECTORS["cases"]
        if case["name"].startswith(name)
    ]


@pytest.mark.parametrize("case", vectors("kd"))
def test_ce_with_tau_squared_has_the_gradient_of_published_kd(case: Any) -> None:
    temperature = case["params"]["temperature"]
    loss, gradient = published(
        Ce(
            temperature=temperature,
            student_temperature=TIED,
            alpha=1,
            gradient_scale="tau_squared",
        )
    )
    torch.testing.assert_close(gradient, torch.tensor(case["grad_student"]), atol=1e-5, rtol=1e-5)
    teacher = torch.tensor(VECTORS["teacher_logits"])
    entropy = by_hand_ce(teacher, teacher, temperature, temperature)
    assert loss == pytest.approx(case["loss"] + temperature**2 * entropy, rel=1e-5)


@pytest.mark.parametrize("case", vectors("dkd"))
def test_dkd_is_the_published_one_with_its_gradient(case: Any) -> None:
    given = case["params"]
    loss, gradient = published(
        Dkd(
            temperature=given["temperature"],
            target=given["alpha"],
            non_target=given["beta"],
            label_weight=0,
        )
    )
    assert loss == pytest.approx(case["loss"], rel=1e-5)
    torch.testing.assert_close(gradient, torch.tensor(case["grad_student"]), atol=1e-5, rtol=1e-5)


def test_dkd_adds_the_labels_cross_entropy_by_its_weight() -> None:
    bare = Dkd(temperature=4, target=1, non_target=8, label_weight=0)
    units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS)
    own = float(label_loss(units))
    found = float(compute(replace(bare, label_weight=0.5), units))
    assert found == pytest.approx(float(compute(bare, units)) + 0.5 * own, rel=1e-6)


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.25), (3, 0.75), (4, 1), (9, 1)])
def test_the_distillation_of_dkd_warms_up_over_epochs(epoch: int, share: float) -> None:
    whole = Dkd(temperature=4, target=1, non_target=8, label_weight=0)
    units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS, epoch=epoch)
    found = float(compute(replace(whole, warmup_epochs=4), units))
    assert found == pytest.approx(share * float(compute(whole, units)), rel=1e-6)


def test_dkd_leaves_out_units_without_a_label() -> None:
    some = LABELS.clone()
    some[1] = IGNORED
    objective, rest = Dkd(temperature=4, target=1, non_target=8), torch.tensor([0, 2, 3, 4])
    found = compute(objective, Units(student=STUDENT, teacher=TEACHER, labels=some))
    alone = Units(student=STUDENT[rest], teacher=TEACHER[rest], labels=LABELS[rest])
    assert float(found) == pytest.approx(float(compute(objective, alone)), rel=1e-6)


def test_dkd_is_finite_where_the_student_is_certain_of_the_label() -> None:
    student = torch.tensor([[200.0, 0.0, -1.0]], requires_grad=True)
    teacher, labels = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0])
    value = compute(
        Dkd(temperature=1, target=1, non_target=8),
        Units(student=student, teacher=teacher, labels=labels),
    )
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def kl(of: Any, against: Any) -> float:
    """The KL divergence of probabilities, the mean over units."""
    return float((of * np.log(of / against)).sum(axis=1).mean())


def test_reverse_kl_is_the_divergence_of_the_student_from_the_teacher() -> None:
    units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS)
    found = float(compute(ReverseKl(temperature=4, student_temperature=2, alpha=1), units))
    assert found == pytest.approx(kl(softmax(STUDENT, 2), softmax(TEACHER, 4)), rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_weighs_the_divergences_of_both_from_their_mixture(beta: float) -> None:
    student, teacher = softmax(STUDENT, 2), softmax(TEACHER, 4)
    mixture = beta * teacher + (1 - beta) * student
    units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS)
    found = compute(Jsd(temperature=4, student_temperature=2, alpha=1, beta=beta), units)
    expected = beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_total_variation_is_the_largest_difference_of_the_probability_of_any_event() -> None:
    student, teacher = softmax(STUDENT, 2), softmax(TEACHER, 4)
    units = Units(student=STUDENT, teacher=TEACHER, labels=LABELS)
    found = compute(TotalVariation(temperature=4, student_temperature=2, alpha=1), units)
    events = itertools.product((0, 1), repeat=student.shape[1])  # which classes are in it
    largest = np.max([(teacher - student) @ np.array(event) for event in events], axis=0)
    assert float(found) == pytest.approx(largest.mean(), rel=1e-5)


@pytest.mark.parametrize("objective", ["reverse KL", "JSD", "TVD"])
def test_its_gradient_is_that_of_the_formula_in_double_precision(objective: str) -> None:
    def formula(student: Tensor) -> Tensor:
        p, q = (TEACHER.double() / 4).softmax(-1), (student / 2).softmax(-1)
        if objective == "reverse KL":
            return (q * (q / p).log()).sum(-1).mean()
        if objective == "TVD":
            return (p - q).clamp(min=0).sum(-1).mean()
        m = 0.3 * p + 0.7 * q
        return (0.3 * p * (p / m).log() + 0.7 * q * (q / m).log()).sum(-1).mean()

    exact, student = STUDENT.double().requires_grad_(), STUDENT.clone().requires_grad_()
    formula(exact).backward()
    masked_loss(objective, student, TEACHER, LABELS, None).backward()
    assert exact.grad is not None
    torch.testing.assert_close(student.grad, exact.grad.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"beta": 0}, "beta"),
        ({"beta": 1}, "beta"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"alpha": 0}, "alpha"),
    ],
)
def test_a_jsd_out_of_range_is_refused(values: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Jsd(**{"temperature": 1, "student_temperature": TIED, "alpha": 1, "beta": 0.5, **values})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"target": 0, "non_target": 0}, "nothing would be distilled"),
        ({"label_weight": -1}, "must be at least 0 and finite"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
    ],
)
def test_a_dkd_out_of_range_is_refused(values: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Dkd(**{"temperature": 1, "target": 1, "non_target": 8, **values})


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_smoothed_labels_differ_from_torchs_by_the_uniform_entropy(smoothing: float) -> None:
    units = Units(student=STUDENT, labels=LABELS)
    found = float(compute(LabelSmoothing(smoothing=smoothing), units))
    torchs = F.cross_entropy(STUDENT, LABELS, label_smoothing=smoothing)
    assert found == pytest.approx(float(torchs) - smoothing * np.log(C), rel=1e-5)


def test_units_without_a_label_do_not_count_among_smoothed_ones() -> None:
    objective, rest = LabelSmoothing(smoothing=0.3), torch.tensor([0, 2, 3, 4])
    some = LABELS.clone()
    some[1] = IGNORED
    found = compute(objective, Units(student=STUDENT, labels=some))
    alone = compute(objective, Units(student=STUDENT[rest], labels=LABELS[rest]))
    assert float(found) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0, 1, -0.1, float("nan")])
def test_a_smoothing_that_is_none_or_all_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing must lie between"):
        LabelSmoothing(smoothing=smoothing)


# -- units of different classes ------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4)
"""How many classes each unit has."""
OBJECTIVES: dict[str, Objective] = {
    "CE": Ce(temperature=4, student_temperature=2, alpha=1),
    "CE and labels": Ce(temperature=4, student_temperature=2, alpha=0.5),
    "MSE": Mse(alpha=1),
    "MSE and labels": Mse(alpha=0.5),
    "reverse KL": ReverseKl(temperature=4, student_temperature=2, alpha=1),
    "JSD": Jsd(temperature=4, student_temperature=2, alpha=1, beta=0.3),
    "TVD": TotalVariation(temperature=4, student_temperature=2, alpha=1),
    "DKD": Dkd(temperature=4, target=1, non_target=8),
    "DKD, standardised": Dkd(temperature=4, target=1, non_target=8, standardise=True),
    "EA-KD": EaKd(temperature=4, alpha=1),
    "EA-DKD": EaDkd(temperature=4, target=1, non_target=8),
    "RLD": Rld(temperature=4, masked_correlation=8),
    "labels": Labels(),
    "smoothed labels": LabelSmoothing(smoothing=0.3),
}


def padded_units(counts: list[int], seed: int, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [U, width] of students and teachers, of which each unit has its first few."""
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(len(counts), width, generator=draw) for _ in range(2))
    return student, teacher, torch.arange(width) < torch.tensor(counts)[:, None]


def masked_loss(
    which: str, student: Tensor, teacher: Tensor, labels: Tensor, real: Tensor | None
) -> Tensor:
    return compute(
        OBJECTIVES[which], Units(student=student, teacher=teacher, labels=labels, real=real)
    )


@pytest.mark.parametrize("which", OBJECTIVES)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_a_loss_of_units_of_different_classes_is_the_mean_of_each_ones_own(
    which: str, counts: list[int], seed: int
) -> None:
    student, teacher, real = padded_units(counts, seed)
    labels = torch.tensor([seed % count for count in counts])
    each = [
        masked_loss(which, student[i : i + 1, :n], teacher[i : i + 1, :n], labels[i : i + 1], None)
        for i, n in enumerate(counts)
    ]
    found = masked_loss(which, student, teacher, labels, real)
    assert float(found) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("which", OBJECTIVES)
@pytest.mark.parametrize("strange", [1e4, -1e30, float("inf"), float("-inf"), float("nan")])
def test_what_stands_where_a_class_is_not_real_changes_neither_loss_nor_gradient(
    which: str, strange: float
) -> None:
    student, teacher, real = padded_units([2, 5, 1], 0)
    labels = torch.tensor([1, 4, 0])
    found = []
    for filling in (0.0, strange):
        leaf = student.masked_fill(~real, filling).requires_grad_()
        value = masked_loss(which, leaf, teacher.masked_fill(~real, filling), labels, real)
        value.backward()
        assert leaf.grad is not None
        assert torch.equal(leaf.grad[~real], torch.zeros(int((~real).sum())))
        assert torch.isfinite(leaf.grad).all()
        found.append((value.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_classes_that_are_not_real_give_finite_gradients_in_half_precision(
    dtype: torch.dtype, distance: str
) -> None:
    student, teacher, real = padded_units([2, 5, 1], 0)
    student = student.to(dtype).requires_grad_()
    labels = torch.tensor([1, IGNORED, 0])
    value = loss(student, teacher.to(dtype), labels=labels, distance=distance, alpha=0.5, real=real)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert not student.grad[~real].any()


@pytest.mark.parametrize("which", OBJECTIVES)
def test_a_unit_without_any_class_has_no_gradient(which: str) -> None:
    student, teacher, real = padded_units([3, 0], 0)
    leaf = student.requires_grad_()
    value = masked_loss(which, leaf, teacher, torch.tensor([1, IGNORED]), real)
    value.backward()
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert not leaf.grad[1].any()
    assert leaf.grad[0, :3].all()


# -- labels --------------------------------------------------------------------------------------


def test_units_without_a_label_do_not_count_in_the_labels_loss() -> None:
    some = torch.tensor([0, IGNORED, 1, IGNORED, 2])
    expected = F.cross_entropy(STUDENT[[0, 2, 4]], some[[0, 2, 4]])
    assert float(label_loss(Units(student=STUDENT, labels=some))) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_the_labels_loss_of_units_without_labels_is_nothing() -> None:
    student = STUDENT.clone().requires_grad_()
    value = label_loss(Units(student=student, labels=torch.full((N,), IGNORED)))
    value.backward()
    assert float(value.detach()) == 0
    assert student.grad is not None
    assert not student.grad.any()
