"""SGD worked out by hand, and trainings of which only some epochs are kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_training import GRADIENTS, SLOPE, Linear, assert_values, bert, encoded, trained
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from kdsearch.distill.optimizer import clip_gradients, optimizer_of
from kdsearch.study import Sgd, TrainingSettings

# -- the optimizer ---------------------------------------------------------------------------------


def slope(logits: Tensor, *_: Any, **__: Any) -> Tensor:
    """A loss of constant gradient."""
    return (logits * SLOPE).sum(dim=1).mean()


def after_steps(
    count: int, rate: float, momentum: float, decay: float, *, nesterov: bool
) -> list[np.ndarray[Any, Any]]:
    """W and b after steps of SGD as torch documents it; b does not decay.

    d = g + λw and v ← μv + d; then w ← w − ηv, of Nesterov's w ← w − η(d + μv).
    """
    found = []
    starts = (np.array([[0.5, -1.0], [2.0, 0.25]]), np.array([0.1, -0.2]))
    for start, gradient in zip(starts, GRADIENTS, strict=True):
        value, velocity = start, np.zeros_like(start)
        for _ in range(count):
            direction = gradient + decay * (value.ndim > 1) * value
            velocity = momentum * velocity + direction
            value = value - rate * (direction + momentum * velocity if nesterov else velocity)
        found.append(value)
    return found


def stepped(count: int, **changes: Any) -> Linear:
    """The linear model after so many steps at a rate of 0.1, each an epoch of one batch."""
    model = Linear()
    trained(
        model,
        slope,
        examples=encoded(8),
        learning_rate=0.1,
        epochs=count,
        optimizer="sgd",
        **changes,
    )
    return model


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_gathers_momentum_and_weights_alone_decay(nesterov: bool, precision: str) -> None:
    sgd = Sgd(momentum=0.75, nesterov=nesterov, weight_decay=0.5)
    model = stepped(3, sgd=sgd, precision=precision)
    expected = after_steps(3, 0.1, 0.75, 0.5, nesterov=nesterov)
    tolerance = 1e-5 if precision == "fp32" else 1e-3  # a gradient in fp16 has 3 digits
    for found, value in zip((model.weight, model.bias), expected, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), value, rtol=tolerance)


def test_sgd_without_momentum_goes_down_the_gradient() -> None:
    model = stepped(2, sgd=Sgd(momentum=0.0))
    assert_values(model, after_steps(2, 0.1, 0.0, 0.0, nesterov=False))


def test_the_gradient_is_clipped_before_sgd_takes_its_step() -> None:
    norm = math.sqrt(sum(float((g**2).sum()) for g in GRADIENTS))
    model = stepped(1, sgd=Sgd(momentum=0.0), clip=norm / 2)
    start = Linear()
    for name, gradient in zip(("weight", "bias"), GRADIENTS, strict=True):
        moved = (getattr(start, name) - getattr(model, name)).detach().numpy()
        np.testing.assert_allclose(moved, 0.1 * gradient / 2, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("clip", [0.05, 0.3, 5.0])
def test_each_layers_gradient_may_be_clipped_by_its_own_norm(clip: float, precision: str) -> None:
    sgd = Sgd(momentum=0.0)
    model = stepped(1, sgd=sgd, clip=clip, clip_per="layer", precision=precision)
    start, shares = Linear(), []
    for name, gradient in zip(("weight", "bias"), GRADIENTS, strict=True):
        shares.append(min(1.0, clip / math.sqrt(float((gradient**2).sum()))))
        moved = (getattr(start, name) - getattr(model, name)).detach().numpy()
        tolerance = 1e-4 if precision == "fp32" else 3e-3
        np.testing.assert_allclose(moved, 0.1 * gradient * shares[-1], rtol=tolerance)
    assert (shares[0] != shares[1]) == (clip < 5)


def test_a_layer_without_a_gradient_is_left_alone_when_each_is_clipped() -> None:
    model = Linear()
    model.weight.grad = torch.full_like(model.weight, 3.0)
    clip_gradients(model.parameters(), 1.0, per_layer=True)
    torch.testing.assert_close(model.weight.grad, torch.full_like(model.weight, 0.5))
    assert model.bias.grad is None


@pytest.mark.parametrize(("name", "kind"), [("adamw", AdamW), ("sgd", SGD)])
def test_each_optimizer_has_every_weight_once_and_decays_none_of_biases_and_norms(
    name: str, kind: type
) -> None:
    sections = {"adam": {"weight_decay": 0.5}, "sgd": {"weight_decay": 0.5}}
    settings = TrainingSettings().but({"optimizer": name}, sections).for_task("classification")
    model = bert()
    optimizer = optimizer_of(model, settings, 1e-3)
    assert type(optimizer) is kind
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(decays) == len(list(model.parameters()))
    for weight, parameter in model.named_parameters():
        plain = weight.endswith("bias") or "LayerNorm" in weight
        assert decays[id(parameter)] == (0.0 if plain else 0.5)


@pytest.mark.parametrize(
    "settings",
    [
        TrainingSettings(),
        TrainingSettings(optimizer="sgd", sgd=Sgd(momentum=0.9, weight_decay=0.1)),
        TrainingSettings(optimizer="sgd", sgd=Sgd(momentum=0.9, nesterov=True)),
        TrainingSettings(optimizer="sgd", sgd=Sgd(momentum=0.0)),
    ],
)
def test_a_fused_step_is_the_plain_one_to_round_off(settings: TrainingSettings) -> None:
    fused, plain = bert(), bert()
    plain.load_state_dict(fused.state_dict())
    steppers = [optimizer_of(model, settings, 1e-2) for model in (fused, plain)]
    for group in steppers[1].param_groups:
        group["fused"] = False
    drawn = torch.Generator().manual_seed(1)
    for _ in range(10):
        for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=drawn)
            other.grad = one.grad.clone()
        for stepper in steppers:
            stepper.step()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


# -- the epochs of which one is kept ---------------------------------------------------------------

SETTINGS: dict[str, Any] = {"epochs": 5, "learning_rate": 1e-2}


def test_only_epochs_at_which_a_training_may_stop_are_kept() -> None:
    whole = trained(bert(), **SETTINGS)
    assert whole.best is not None
    # The best of all is passed over by some of these.
    for stops in ((5,), (1, 5), (2, 3, 5), (1, 2, 3, 4, 5)):
        found = trained(bert(), stops=stops, **SETTINGS)
        assert found.epochs == whole.epochs
        among = [epoch for epoch in whole.epochs if epoch.epoch in stops]
        assert found.best is not None
        assert found.best[0] == max(among, key=lambda epoch: epoch.validation or 0.0)
        assert found.lowest_loss is not None
        assert found.lowest_loss[0] == min(among, key=lambda epoch: epoch.validation_loss or 9.0)


@pytest.mark.parametrize("stops", [(1, 2, 5), (3, 5), None])
def test_a_training_that_diverges_keeps_the_stops_before(stops: tuple[int, ...] | None) -> None:
    def loss(logits: Tensor, batch: Any, epoch: int = 1, *_: Any, **__: Any) -> Tensor:
        value = nn.functional.cross_entropy(logits.float(), batch.labels)
        return value * (math.nan if epoch == 3 else 1.0)

    history = trained(bert(), loss, stops=stops, **SETTINGS)
    assert [epoch.train_loss is None for epoch in history.epochs] == [False, False, True]
    usable = [1, 2] if stops == (1, 2, 5) else []
    assert history.diverged == (not usable)
    if usable:
        assert history.best is not None
        assert history.best[0].epoch in usable
        assert all(bool(v.isfinite().all()) for v in history.best[1].values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_first_epochs_of_a_training_are_a_training_of_that_many_epochs(optimizer: str) -> None:
    whole = trained(bert(), epochs=3, stops=(2, 3), optimizer=optimizer)
    short = trained(bert(), epochs=2, optimizer=optimizer)
    assert whole.epochs[:2] == short.epochs
