from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Largest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdsearch.distill.losses import Units, compute
from kdsearch.distill.measures import mean_entropy
from kdsearch.distill.wide import Hidden, Room, WideUnits, wide_loss
from kdsearch.search import (
    Ce,
    Dkd,
    EaDkd,
    EaKd,
    Features,
    Jsd,
    Labels,
    LabelSmoothing,
    Mse,
    Objective,
    ReverseKl,
    Rld,
    SequenceKd,
    TotalVariation,
)
from kdsearch.tasks import IGNORED

CE = Ce(temperature=4, student_temperature=2, alpha=0.3, gradient_scale="tau_squared")
OBJECTIVES = [
    CE,
    Mse(alpha=1),
    Mse(alpha=0.3),
    ReverseKl(temperature=2, student_temperature=2, alpha=0.7),
    Jsd(temperature=2, student_temperature=3, alpha=0.5, beta=0.3),
    TotalVariation(temperature=2, student_temperature=1, alpha=0.5),
    Dkd(temperature=2, target=1, non_target=3, label_weight=0.5, warmup_epochs=4),
    Dkd(temperature=2, target=1, non_target=3, class_of="teacher", standardise=True),
    EaKd(temperature=2, alpha=0.7),
    EaDkd(temperature=2, target=1, non_target=3, entropy_bound="published"),
    Rld(temperature=2, masked_correlation=3, confidence_temperature=1.5),
    Labels(),
    LabelSmoothing(smoothing=0.2),
    Features(hint=1),
    SequenceKd(),
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What student, teacher and labels say of some units, as numbers."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None
    teacher: Hidden
    labels: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        """Copies of what has a gradient."""
        tensors = (self.states, self.weight, self.bias)
        return [each.clone().requires_grad_() for each in tensors if each is not None]

    def units(self, objective: Objective, leaves: list[Tensor], room: Room | None) -> WideUnits:
        states, weight, *bias = leaves
        return WideUnits(
            student=Hidden(states=states, head=(weight, bias[0] if bias else None)),
            teacher=self.teacher if objective.taught else None,
            labels=self.labels,
            epoch=2,
            room=room,
        )


def drawn(
    rows: int = 24,
    classes: int = 40,
    width: int = 6,
    *,
    seed: int = 0,
    bias: bool = True,
    unlabelled: float = 0.0,
) -> Case:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    labels = torch.randint(classes, (rows,), generator=draw)
    without = torch.rand(rows, generator=draw) < unlabelled
    return Case(
        states=normal(rows, width),
        weight=normal(classes, width),
        bias=normal(classes) if bias else None,
        teacher=Hidden(states=normal(rows, 5), head=(normal(classes, 5), normal(classes))),
        labels=labels.masked_fill(without, IGNORED),
    )


def in_one_pass(
    objective: Objective, case: Case, room: Room | None = None, **more: Any
) -> tuple[Tensor, list[Tensor]]:
    """The loss with the gradients of states, weight and bias."""
    leaves = case.leaves
    loss = wide_loss(objective, case.units(objective, leaves, room), **more)
    return loss.detach(), gradients_of(loss, leaves)


def directly(objective: Objective, case: Case) -> tuple[Tensor, list[Tensor]]:
    """The same of all logits at once, by autograd alone."""
    leaves = case.leaves
    loss = compute(objective, all_units(objective, case, leaves))
    return loss.detach(), gradients_of(loss, leaves)


def all_units(objective: Objective, case: Case, leaves: list[Tensor]) -> Units:
    units = Units(student=F.linear(*leaves), labels=case.labels, epoch=2)
    if not objective.taught:
        return units
    return replace(units, teacher=F.linear(case.teacher.states, *case.teacher.head))


def gradients_of(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    loss.backward()
    found = [leaf.grad for leaf in leaves]
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def off(found: Tensor, exact: Tensor) -> float:
    """How far a tensor is from another, by the size of the other."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def test_each_objective_is_tried() -> None:
    narrow = {kind for kind in Objective.kinds.values() if kind.across_units}
    narrow |= {kind for kind in Objective.kinds.values() if kind.learns_temperature}
    assert {type(each) for each in OBJECTIVES} == set(Objective.kinds.values()) - narrow


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@settings(max_examples=15)
@given(
    rows=st.integers(1, 23),
    made=st.integers(1, 30),
    scored=st.integers(1, 30),
    unlabelled=st.sampled_from([0.0, 0.4, 1.0]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_one_pass_gives_the_loss_of_all_logits_with_all_of_its_gradients(
    objective: Objective,
    rows: int,
    made: int,
    scored: int,
    unlabelled: float,
    bias: bool,
    seed: int,
) -> None:
    case = drawn(rows, seed=seed, bias=bias, unlabelled=unlabelled)
    room = Room(made=made * 40 * 4, scored=scored * 40 * 4)
    expected, exact = directly(objective, case)
    found, gradients = in_one_pass(objective, case, room)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, exact, strict=True):
        assert off(one, other) < 1e-5 or (not other.any() and not one.any())


def test_a_label_weighs_the_same_wherever_others_lack_one() -> None:
    case = drawn(6)
    labels = case.labels.clone()
    labels[:3] = IGNORED
    labels[4] = IGNORED
    case = replace(case, labels=labels)
    found, _ = in_one_pass(Labels(), case, Room(made=3 * 40 * 4, scored=2 * 40 * 4))
    assert case.bias is not None
    logits = F.linear(case.states, case.weight, case.bias)
    expected = F.cross_entropy(logits[[3, 5]], labels[[3, 5]])
    torch.testing.assert_close(found, expected)


def test_what_watches_is_told_the_mean_entropy_over_all_units() -> None:
    case, told = drawn(11, unlabelled=0.3), list[tuple[Tensor, int]]()
    room = Room(made=4 * 40 * 8, scored=3 * 40 * 4)
    in_one_pass(CE, case, room, watch=lambda *what: told.append(what))
    ((entropy, count),) = told
    expected = mean_entropy(all_units(CE, case, case.leaves))
    assert count == 11
    assert not entropy.requires_grad
    torch.testing.assert_close(entropy, expected)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_its_own(frozen: int) -> None:
    case = drawn()
    _, exact = directly(CE, case)
    leaves = case.leaves
    leaves[frozen].requires_grad_(False)
    wide_loss(CE, case.units(CE, leaves, None)).backward()
    assert leaves[frozen].grad is None
    for number in {0, 1, 2} - {frozen}:
        torch.testing.assert_close(leaves[number].grad, exact[number])


def test_a_loss_that_is_scaled_and_added_to_has_scaled_gradients_that_add_up() -> None:
    case = drawn()
    _, exact = directly(CE, case)
    leaves = case.leaves
    for factor in (3.0, 2.0):
        (factor * wide_loss(CE, case.units(CE, leaves, None))).backward()
    for leaf, gradient in zip(leaves, exact, strict=True):
        torch.testing.assert_close(leaf.grad, 5 * gradient)


def test_a_head_that_embeds_as_well_has_the_gradient_of_both() -> None:
    case = drawn(bias=False)
    tokens = torch.arange(len(case.labels)) % 40
    gradients = []
    for one_pass in (True, False):
        weight = case.weight.clone().requires_grad_()
        both = [F.embedding(tokens, weight).tanh(), weight]
        if one_pass:
            wide_loss(CE, case.units(CE, both, None)).backward()
        else:
            compute(CE, all_units(CE, case, both)).backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients)


# -- lower precision -----------------------------------------------------------------------------


def mixed(
    what: Callable[[Objective, Case], Any],
    objective: Objective,
    case: Case,
    dtype: torch.dtype = torch.bfloat16,
) -> Any:
    with torch.autocast("cpu", dtype=dtype):
        return what(objective, case)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_in_bf16_one_pass_is_no_further_from_single_precision_than_the_direct_way(
    objective: Objective,
) -> None:
    room = Room(made=32 * 300 * 4, scored=8 * 300 * 4)
    ours, others = [], []
    for seed in range(4):  # which of two is nearer by chance does not count
        case = drawn(400, 300, 32, seed=seed)
        loss, exact = directly(objective, case)
        direct_loss, direct = mixed(directly, objective, case)
        found, gradients = mixed(
            lambda objective, case: in_one_pass(objective, case, room), objective, case
        )
        assert abs(found - loss) <= abs(direct_loss - loss) + 1e-5 * loss
        ours.append([off(each, own) for each, own in zip(gradients, exact, strict=True)])
        others.append([off(each, own) for each, own in zip(direct, exact, strict=True)])
    assert (torch.tensor(ours).mean(dim=0) <= 1.001 * torch.tensor(others).mean(dim=0)).all()


@pytest.mark.parametrize("objective", [replace(CE, alpha=1), Mse(alpha=1)], ids=str)
def test_in_fp16_gradients_below_its_range_are_not_lost(objective: Objective) -> None:
    case = drawn(200, 5000, 8, seed=1, bias=False)
    weight, bias = case.teacher.head
    assert bias is not None
    alike = replace(case.teacher, head=(weight * 0.001, bias * 0.001))
    case = replace(case, weight=case.weight * 0.001, teacher=alike)
    _, exact = directly(objective, case)
    _, direct = mixed(directly, objective, case, torch.float16)
    assert off(direct[0], exact[0]) > 0.1  # those are
    _, gradients = mixed(in_one_pass, objective, case, torch.float16)
    for one, expected in zip(gradients, exact, strict=True):
        assert off(one, expected) < 0.01


# -- memory --------------------------------------------------------------------------------------


class Storages(TorchDispatchMode):
    """Keeps the memories of at least so many numbers that any operation makes."""

    def __init__(self, numbers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers, self.found = numbers, dict[int, Any]()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.numel() >= self.numbers:
                storage = tensor.untyped_storage()
                self.found[storage.data_ptr()] = storage
        return result


def test_there_is_one_gradient_as_large_as_the_head_and_the_head_gets_it() -> None:
    case = drawn(20, 500, 30, bias=False)
    leaves = case.leaves
    room = Room(made=4 * 500 * 8, scored=2 * 500 * 4)
    with Storages(500 * 30) as storages:
        (2 * wide_loss(CE, case.units(CE, leaves, room))).backward()
    gradient = leaves[1].grad
    assert gradient is not None
    weights = {leaves[1].data_ptr()}
    assert storages.found.keys() - weights == {gradient.data_ptr()}


@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_logits_are_made_for_as_many_rows_as_there_is_room_for(rows: int, taught: bool) -> None:
    case, objective = drawn(40, 300, 4), CE if taught else Labels()
    room = Room(made=rows * 300 * 4 * (1 + taught), scored=4)
    with Largest() as largest:
        in_one_pass(objective, case, room)
    assert largest.numbers == max(rows * 300, 300 * (5 if taught else 4))  # or a head's weights


@torch.no_grad()
def test_where_nothing_is_learnt_no_gradient_is_made() -> None:
    case = drawn(8, 50, 60, bias=False)
    leaves = case.leaves
    with Storages(50 * 60) as storages:
        loss = wide_loss(CE, case.units(CE, leaves, None))
    assert not loss.requires_grad
    assert storages.found.keys() == {leaves[1].data_ptr()}
    torch.testing.assert_close(loss, compute(CE, all_units(CE, case, leaves)))


def test_all_units_come_some_at_a_time() -> None:
    case = drawn(11)
    units = case.units(CE, case.leaves, Room(made=4 * 40 * 8, scored=3 * 40 * 4))
    some = list(units.some())
    assert [len(each.labels) for each in some] == [3, 1, 3, 1, 3]
    expected = all_units(CE, case, case.leaves)
    for name in ("student", "teacher", "labels"):
        parts = torch.cat([getattr(each, name) for each in some])
        torch.testing.assert_close(parts, getattr(expected, name))
