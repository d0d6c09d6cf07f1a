"""Controls of distillation: what keeps only some of what a teacher says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.supervision import coefficient, peak, permuted, supervised
from kdsearch.search import Ce

ROWS, CLASSES = 400, 7
LOGITS = 3 * torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(5))


def made(supervision: str, temperature: float, seed: int = 0) -> tuple[Tensor, float | None]:
    """What is learnt in the place of `LOGITS`, as probabilities; the share that is spread."""
    objective = Ce(
        temperature=temperature, student_temperature="tied", alpha=1, supervision=supervision
    )
    outputs = CachedOutputs(values=LOGITS, head=None)
    plain, found, share = supervised(objective, outputs, seed)
    assert plain == Ce(temperature=temperature, student_temperature="tied", alpha=1)
    return (found.values.double() / temperature).softmax(dim=1), share


def entropies(shares: Any) -> Any:
    shares = np.asarray(shares)
    return -(shares * np.log(shares)).sum(axis=-1)


def smoothed(share: Any) -> Any:
    """(1 − share) · one-hot of the teacher's likeliest class + share / C, by hand."""
    one_hot = np.eye(CLASSES)[LOGITS.argmax(dim=1).numpy()]
    share = np.broadcast_to(share, ROWS)[:, None]
    return (1 - share) * one_hot + share / CLASSES


@pytest.mark.parametrize("temperature", [1.0, 4.0, 40.0])
def test_a_label_is_smoothed_until_as_undecided_as_the_teachers_average_sorted_softmax(
    temperature: float,
) -> None:
    found, share = made("smoothed", temperature)
    powers = np.exp(LOGITS.double().numpy() / temperature)
    average = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1).mean(axis=0)
    assert entropies(found.numpy()) == pytest.approx(entropies(average), rel=1e-5)
    assert share is not None
    np.testing.assert_allclose(found.numpy(), smoothed(share), atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 40.0])
def test_each_label_is_smoothed_until_as_undecided_as_the_teacher_is_of_its_row(
    temperature: float,
) -> None:
    found, share = made("smoothed each", temperature)
    powers = np.exp(LOGITS.double().numpy() / temperature)
    theirs = entropies(powers / powers.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(entropies(found.numpy()), theirs, rtol=1e-4, atol=1e-6)
    each = CLASSES * found.numpy().min(axis=1)  # what the other classes have is share / C
    np.testing.assert_allclose(found.numpy(), smoothed(each), atol=1e-6)
    assert share == pytest.approx(each.mean(), rel=1e-4)


@settings(max_examples=50)
@given(share=st.floats(1e-9, 1, exclude_min=True), classes=st.integers(2, 1000))
def test_the_coefficient_of_an_entropy_is_found_to_precision(share: float, classes: int) -> None:
    top, other = 1 - share + share / classes, share / classes
    entropy = -top * math.log(top) - (classes - 1) * other * math.log(other)
    found = coefficient(peak(torch.tensor(entropy, dtype=torch.float64), classes), classes)
    # Near the uniform distribution the entropy says little of the share: it is flat there.
    assert float(found) == pytest.approx(share, rel=1e-6, abs=1e-6)


def test_entropies_at_both_ends_have_a_coefficient_too() -> None:
    ends = torch.tensor([0.0, math.log(5), math.log(5) + 1e-9], dtype=torch.float64)
    assert coefficient(peak(ends, 5), 5).tolist() == pytest.approx([0, 1, 1], abs=1e-6)


@pytest.mark.parametrize("kept", [1, 3])
def test_the_highest_stay_and_the_others_are_permuted_among_their_classes(kept: int) -> None:
    found = permuted(LOGITS, torch.arange(ROWS), kept, seed=1)
    order = LOGITS.argsort(dim=1, descending=True)
    assert torch.equal(found.gather(1, order[:, :kept]), LOGITS.gather(1, order[:, :kept]))
    assert torch.equal(found.sort(dim=1).values, LOGITS.sort(dim=1).values)
    moved = (found != LOGITS).sum(dim=1).double()
    # Of a random permutation of n one place stays on average.
    assert float(moved.mean()) == pytest.approx(CLASSES - kept - 1, abs=0.15)


def test_every_permutation_is_as_likely() -> None:
    rows = 6000
    logits = torch.tensor([9.0, 3, 2, 1]).expand(rows, 4)
    found = permuted(logits, torch.arange(rows), 1, seed=3)
    counts = torch.unique(found, dim=0, return_counts=True)[1]
    assert len(counts) == 6
    # A standard deviation is sqrt(6000 · 1/6 · 5/6), 29.
    assert (counts - 1000).abs().max() < 5 * 29


def test_a_permutation_is_that_of_its_seed_and_row_whatever_stands_beside_it() -> None:
    whole = permuted(LOGITS, torch.arange(ROWS), 1, seed=1)
    some = torch.tensor([5, 399, 17])
    assert torch.equal(permuted(LOGITS[some], some, 1, seed=1), whole[some])
    assert not torch.equal(permuted(LOGITS, torch.arange(ROWS), 1, seed=2), whole)
    other_view = permuted(LOGITS, torch.arange(ROWS) + ROWS, 1, seed=1)
    assert not torch.equal(other_view, whole)
    found, share = made("permuted after 1", temperature=4.0, seed=1)
    torch.testing.assert_close(found, (whole.double() / 4).softmax(dim=1))
    assert share is None


def test_a_control_is_not_taken_for_the_teachers_probabilities() -> None:
    units = Units(student=LOGITS[:2], teacher=LOGITS[:2], labels=torch.tensor([0, 1]))
    control = Ce(temperature=1, student_temperature=1, alpha=1, supervision="smoothed")
    with pytest.raises(AssertionError):
        compute(control, units)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"supervision": "permuted after 0"}, "must be softmax, smoothed, smoothed each, or such"),
        ({"supervision": "smooth"}, "must be softmax, smoothed, smoothed each, or such"),
        ({"supervision": "smoothed", "standardise": True}, "must be softmax where logits are"),
    ],
)
def test_a_control_that_there_is_not_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Ce(temperature=1, student_temperature=1, alpha=1, **values)
