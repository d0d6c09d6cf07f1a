from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    ENCODERS,
    SENTENCES,
    cross_entropy,
    data_of,
    encode,
    everything,
    kind_for,
    macro_f1,
    model_in,
    reader_in,
    rows_of,
    save_model,
    settings_of,
)
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsearch.distill.batch_loss import BatchLoss, batch_loss
from kdsearch.distill.evaluation import evaluate, passes, predict
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.training import Checkpoints, History, TrainingState, batches, train
from kdsearch.search import Labels
from kdsearch.study import Adam
from kdsearch.tasks import TASKS, Batch, Encoded

TASK = TASKS["classification"]
TOKENIZER = word_tokenizer(SENTENCES)
DATA = data_of(metric="accuracy", labels=("no", "yes"))


def encoded(count: int) -> Encoded:
    """Sentences that ask for `good`, or not."""
    rows = [{"texts": [text], "label": int("good" in text)} for text in SENTENCES[:count]]
    return encode("classification", rows, TOKENIZER, training=False)


def bert(kind: str = "bert", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    depth, _, fields = ENCODERS[kind]
    names = {"vocab_size": len(TOKENIZER), "num_labels": 2, depth: 2}
    config = AutoConfig.for_model(kind, **{**fields, **names})
    return AutoModelForSequenceClassification.from_config(config)


def on_labels(values: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
    return nn.functional.cross_entropy(values.float(), batch.labels)


def trained(
    model: nn.Module,
    loss_of: BatchLoss | None = None,
    *,
    examples: Encoded | None = None,
    learning_rate: float = 3e-3,
    seed: int = 1,
    parts: int = 1,
    checkpoints: Checkpoints | None = None,
    **changes: Any,
) -> History:
    settings = settings_of(**changes)
    state = TrainingState(
        model,
        TASK,
        examples or encoded(40),
        loss_of or batch_loss(TASK, model, Labels()),
        settings,
        learning_rate=learning_rate,
        parts=parts,
    )
    validate = partial(evaluate, model, TASK, TOKENIZER, encoded(24), DATA, settings, parts=parts)
    return train(state, validate, seed=seed, keep_lowest_loss=True, checkpoints=checkpoints)


# -- batches -----------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    size=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_batches_hold_every_example_once(lengths: list[int], size: int, seed: int) -> None:
    found = list(batches(torch.tensor(lengths), size, seed, 1))
    assert sorted(torch.cat(found).tolist()) == list(range(len(lengths)))
    assert len(found) == math.ceil(len(lengths) / size)
    assert max(map(len, found)) <= size


def test_the_members_of_a_batch_are_of_similar_length() -> None:
    lengths = torch.arange(1, 81).repeat(5)[torch.randperm(400)]
    spans = [int(lengths[b].max() - lengths[b].min()) for b in batches(lengths, 8, 0, 1)]
    assert max(spans) <= 3


def test_batches_come_in_no_order_of_length() -> None:
    lengths = torch.arange(100)
    firsts = [int(b[0]) for b in batches(lengths, 5, 0, 1)]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))


def test_batches_follow_from_the_seed_and_the_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        torch.manual_seed(epoch)
        return [b.tolist() for b in batches(torch.arange(100) % 7, 8, seed, epoch)]

    usual = drawn(1, 2)
    torch.rand(3)
    assert drawn(1, 2) == usual
    assert drawn(1, 3) != usual
    assert drawn(2, 2) != usual


# -- prediction --------------------------------------------------------------------------------


def said(model: nn.Module, examples: Encoded, **changes: Any) -> Tensor:
    """What a model says of each example of one row, in their order."""
    parts = list(predict(model, TASK, examples, settings_of(**changes)))
    order = torch.cat([indices for indices, _, _ in parts])
    assert sorted(order.tolist()) == list(range(len(examples)))
    return torch.cat([values for _, _, values in parts])[order.argsort()]


@pytest.mark.parametrize("kind", sorted(ENCODERS))
@torch.no_grad()
def test_predictions_are_those_of_each_example_alone(kind: str) -> None:
    model, examples = bert(kind).eval(), encoded(16)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    found = said(model, examples, batch_size=1)
    for index, text in enumerate(SENTENCES[:16]):
        alone = TOKENIZER(text, return_tensors="pt")
        expected = model(input_ids=alone["input_ids"]).logits[0]
        torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=1e-4)


def test_predicting_switches_dropout_off() -> None:
    model, examples = bert().train(), encoded(12)
    once, twice = (said(model, examples, batch_size=4) for _ in range(2))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_predictions_in_half_precision_are_close(precision: str) -> None:
    model, examples = bert(), encoded(12)
    exact = said(model, examples, batch_size=4)
    found = said(model, examples, batch_size=4, precision=precision).float()
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_predictions_come_with_the_batch_they_were_made_of(task: str, tmp_path: Path) -> None:
    model, tokenizer = saved(task, tmp_path)
    examples = encode(task, rows_of(task, 21), tokenizer)
    rows = []
    for indices, batch, values in predict(model, TASKS[task], examples, settings_of(task)):
        expected = examples.batch(indices)
        for name, values_read in expected.arguments.items():
            assert torch.equal(batch.arguments[name], values_read)
        assert torch.equal(batch.rows, expected.rows)
        assert len(values) == len(batch.rows) == len(batch.labels)
        rows += batch.rows.tolist()
    assert sorted(rows) == list(range(len(examples.labels)))


@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=300),
    size=st.integers(1, 4),
    beams=st.integers(1, 4),
    parts=st.sampled_from([1, 4]),
    tokens=st.sampled_from([None, 1, 2048]),
)
def test_evaluation_takes_groups_in_order_and_each_by_length(
    lengths: list[int], size: int, beams: int, parts: int, tokens: int | None
) -> None:
    settings = settings_of("translation", batch_size=size, beams=beams)
    given_lengths = torch.tensor(lengths)
    found = [indices.tolist() for indices in passes(given_lengths, settings, parts, tokens)]
    most = max(1, 4 * size // (beams * parts))  # four times a training batch
    order = [index for batch in found for index in batch]
    for start in range(0, len(lengths), 50 * most):  # fifty batches
        group = order[start : start + 50 * most]
        assert sorted(group) == list(range(start, min(start + 50 * most, len(lengths))))
        assert [lengths[i] for i in group] == sorted(lengths[i] for i in group)
    if tokens is None:
        assert all(len(batch) <= most for batch in found)
        return
    for batch in found:
        assert len(batch) == 1 or len(batch) * lengths[batch[-1]] * beams * parts <= tokens
    ends = set(range(0, len(lengths), 50 * most))
    seen = 0
    for batch, after in pairwise(found):  # no batch had room for the first example of the next
        seen += len(batch)
        taken = (len(batch) + 1) * lengths[after[0]] * beams * parts
        assert taken > tokens or seen in ends


def test_the_columns_of_predictions_can_be_put_in_another_order() -> None:
    model, examples = bert(), encoded(12)
    usual, swapped = (
        [values for _, _, values in predict(model, TASK, examples, settings_of(), order=order)]
        for order in ((), (1, 0))
    )
    for before, after in zip(usual, swapped, strict=True):
        assert torch.equal(after, before.flip(1))


# -- evaluation --------------------------------------------------------------------------------


def saved(task: str, folder: Path) -> tuple[Any, Any]:
    """A tiny model at random for a task, and its tokenizer or what stands in its place."""
    save_model(folder, kind_for(task), task=task, max_position_embeddings=128)
    return model_in(task, folder), reader_in(task, folder)


@torch.no_grad()
def test_a_model_is_scored_by_what_it_says_of_each_example() -> None:
    model, examples = bert().eval(), encoded(37)
    logits = model(**everything(examples).arguments).logits.numpy()
    gold = examples.labels.tolist()
    data = DATA.model_copy(update={"labels": ("a", "b", "c"), "metric": "f1"})
    found = evaluate(model, TASK, TOKENIZER, examples, data, settings_of())
    assert found.score == pytest.approx(macro_f1(logits.argmax(axis=1).tolist(), gold, 3))
    assert found.loss == pytest.approx(cross_entropy(logits, gold), rel=1e-5)


@pytest.mark.parametrize("task", sorted(TASKS))
@torch.no_grad()
def test_the_loss_of_a_split_is_the_mean_over_its_units_however_they_are_batched(
    task: str, tmp_path: Path
) -> None:
    model, tokenizer = saved(task, tmp_path)
    examples = encode(task, rows_of(task, 21), tokenizer, training=False)
    batch = everything(examples)
    model.eval()
    whole = batch_loss(TASKS[task], model, Labels())(TASKS[task].outputs(model, batch), batch)
    for size in (1, 4, 21):
        settings = settings_of(task, batch_size=size)
        found = evaluate(model, TASKS[task], tokenizer, examples, data_of(task), settings)
        assert found.loss == pytest.approx(float(whole), rel=1e-4)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_score_of_a_split_does_not_depend_on_its_batches(task: str, tmp_path: Path) -> None:
    model, tokenizer = saved(task, tmp_path)
    examples = encode(task, rows_of(task, 21), tokenizer, training=False)
    scores = {
        evaluate(
            model,
            TASKS[task],
            tokenizer,
            examples,
            data_of(task),
            settings_of(task, batch_size=size),
        ).score
        for size in (1, 3, 21)
    }
    assert len(scores) == 1


def test_a_model_whose_loss_is_not_finite_has_no_score() -> None:
    model = bert()
    model.classifier.bias.data[0] = math.nan
    assert evaluate(model, TASK, TOKENIZER, encoded(9), DATA, settings_of()).score is None


# -- one step, worked out by hand --------------------------------------------------------------


class Linear(nn.Module):
    """Says W·[1, 2] + b whatever it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
        self.bias = nn.Parameter(torch.tensor([0.1, -0.2]))

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        features = torch.tensor([1.0, 2.0]).expand(len(input_ids), 2)
        return SimpleNamespace(logits=features @ self.weight.T + self.bias)


SLOPE = torch.tensor([0.3, -0.4])
# of `slope`: the gradient of b is SLOPE, that of W is SLOPE times [1, 2]
GRADIENTS = (np.array([[0.3, 0.6], [-0.4, -0.8]]), np.array([0.3, -0.4]))


def slope(logits: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
    """A loss of constant gradient."""
    return (logits * SLOPE).sum(dim=1).mean()


def after_a_step(
    gradients: Sequence[np.ndarray[Any, Any]], rate: float, decay: float, epsilon: float
) -> list[np.ndarray[Any, Any]]:
    """W and b after AdamW's first step, in which m̂ = g and v̂ = g²; b does not decay."""
    start = [np.array([[0.5, -1.0], [2.0, 0.25]]), np.array([0.1, -0.2])]
    return [
        value * (1 - rate * decay * (value.ndim > 1)) - rate * g / (np.abs(g) + epsilon)
        for value, g in zip(start, gradients, strict=True)
    ]


def one_step(**changes: Any) -> Linear:
    model = Linear()
    trained(model, slope, examples=encoded(8), learning_rate=0.1, **changes)
    return model


def assert_values(model: Linear, expected: Sequence[np.ndarray[Any, Any]]) -> None:
    np.testing.assert_allclose(model.weight.detach().numpy(), expected[0], rtol=1e-5)
    np.testing.assert_allclose(model.bias.detach().numpy(), expected[1], rtol=1e-5)


def test_weights_decay_and_biases_do_not() -> None:
    model = one_step(adam=Adam(weight_decay=0.5, epsilon=0.25))
    assert_values(model, after_a_step(GRADIENTS, 0.1, 0.5, 0.25))


@pytest.mark.parametrize("clip", [0.2, 5.0])
def test_the_norm_of_the_gradient_is_clipped(clip: float) -> None:
    norm = math.sqrt(sum((g**2).sum() for g in GRADIENTS))  # 1.22
    clipped = [g * min(1.0, clip / norm) for g in GRADIENTS]
    model = one_step(clip=clip, adam=Adam(weight_decay=0.0, epsilon=0.25))
    assert_values(model, after_a_step(clipped, 0.1, 0.0, 0.25))


def test_the_gradient_is_not_clipped_unless_the_study_says_so() -> None:
    model = one_step(adam=Adam(weight_decay=0.0, epsilon=0.25))
    assert_values(model, after_a_step(GRADIENTS, 0.1, 0.0, 0.25))


def test_in_fp16_the_clipped_gradient_is_that_of_the_unscaled_loss() -> None:
    model = one_step(clip=0.2, precision="fp16", adam=Adam(weight_decay=0.0, epsilon=0.25))
    expected = one_step(clip=0.2, adam=Adam(weight_decay=0.0, epsilon=0.25))
    torch.testing.assert_close(model.weight, expected.weight)


# -- schedules ---------------------------------------------------------------------------------


def rates(**changes: Any) -> list[float]:
    """The learning rate at each of ten steps as a share of its highest, seen in what moves.

    The gradient is constant, so that each of Adam's steps is the rate times a constant.
    """
    model = Linear()
    seen: list[float] = []

    def loss(logits: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
        seen.append(float(model.bias[0].detach()))
        return slope(logits, batch)

    adam = Adam(weight_decay=0.0, epsilon=1e-12)
    trained(
        model,
        loss,
        examples=encoded(40),
        learning_rate=0.5,
        epochs=2,
        batch_size=8,
        adam=adam,
        **changes,
    )
    seen.append(float(model.bias[0].detach()))
    return [(a - b) / 0.5 for a, b in pairwise(seen)]


def test_a_constant_rate_stays() -> None:
    assert rates() == pytest.approx([1.0] * 10, abs=1e-4)


def test_a_linear_schedule_falls_to_nothing_after_the_last_step() -> None:
    expected = [1 - step / 10 for step in range(10)]
    assert rates(schedule="linear") == pytest.approx(expected, abs=1e-4)


def test_a_cosine_schedule_falls_along_half_a_wave() -> None:
    expected = [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]
    assert rates(schedule="cosine") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rest"),
    [
        ("constant", [1.0] * 6),
        ("linear", [1 - step / 6 for step in range(6)]),
        ("cosine", [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
    ],
)
def test_the_rate_first_rises_over_the_steps_of_the_warmup(
    schedule: str, rest: list[float]
) -> None:
    expected = [0.25, 0.5, 0.75, 1.0, *rest]
    assert rates(schedule=schedule, warmup=0.4) == pytest.approx(expected, abs=1e-4)


def test_a_batch_loss_is_told_the_epoch() -> None:
    told = []

    def telling(values: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
        told.append(epoch)
        return on_labels(values, batch)

    trained(bert(), telling, epochs=3, batch_size=20)
    assert told == [1, 1, 2, 2, 3, 3]


# -- which epochs are kept ---------------------------------------------------------------------


class Scripted(nn.Module):
    """Gets a number of validation examples right that its script says for each epoch."""

    epoch: Tensor

    def __init__(self, right: Sequence[int], sureness: Sequence[float]) -> None:
        super().__init__()
        self._right, self._sureness = right, sureness
        self.bias = nn.Parameter(torch.zeros(2))
        self.register_buffer("epoch", torch.tensor(0))

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        if self.training:
            self.epoch += 1
            return SimpleNamespace(logits=self.bias.expand(len(input_ids), 2))
        number = int(self.epoch) - 1
        sure = torch.full((len(input_ids),), self._sureness[number])
        sure[self._right[number] :] *= -1
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(sure), sure], dim=1))


def kept(right: Sequence[int], sureness: Sequence[float]) -> History:
    """The history of as many epochs of one batch, all validation examples being `yes`."""
    examples = encoded(8)
    rows = [{"texts": ["good"], "label": 1}] * 4
    validation = encode("classification", rows, TOKENIZER, training=False)
    model = Scripted(right, sureness)
    settings = settings_of(epochs=len(right))
    state = TrainingState(model, TASK, examples, on_labels, settings, learning_rate=1e-3)
    validate = partial(evaluate, model, TASK, TOKENIZER, validation, DATA, settings)
    return train(state, validate, seed=0, keep_lowest_loss=True)


def test_the_epoch_of_the_highest_score_is_kept_with_its_weights() -> None:
    history = kept([1, 3, 2], [1.0, 1.0, 1.0])
    assert [e.validation for e in history.epochs] == [0.25, 0.75, 0.5]
    assert history.best is not None
    assert history.best[0].epoch == int(history.best[1]["epoch"]) == 2


def test_of_equal_scores_the_first_epoch_is_kept() -> None:
    history = kept([1, 3, 3, 3], [1.0] * 4)
    assert history.best is not None
    assert history.best[0].epoch == int(history.best[1]["epoch"]) == 2


def test_the_epoch_of_the_lowest_loss_is_kept_with_its_weights() -> None:
    history = kept([2, 3, 2, 2], [1.0, 9.0, 0.1, 0.1])
    losses = [e.validation_loss for e in history.epochs]
    share = np.array([2, 3, 2, 2]) / 4
    sure = np.array([1.0, 9.0, 0.1, 0.1])
    expected = share * np.log1p(np.exp(-sure)) + (1 - share) * np.log1p(np.exp(sure))
    assert losses == pytest.approx(list(expected), rel=1e-5)
    assert history.best is not None
    assert history.best[0].epoch == 2
    assert history.lowest_loss is not None
    assert history.lowest_loss[0].epoch == int(history.lowest_loss[1]["epoch"]) == 3


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_examples() -> None:
    examples = encoded(11)  # the last batch has three

    def number(logits: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
        return batch.rows.float().mean() + 0 * logits.sum()

    history = trained(Linear(), number, examples=examples)
    assert history.epochs[0].train_loss == pytest.approx(sum(range(11)) / 11)


# -- whole trainings ---------------------------------------------------------------------------


def test_a_tiny_model_learns_what_is_easy() -> None:
    history = trained(bert(), epochs=8, learning_rate=1e-2)
    assert history.best is not None
    assert history.best[0].validation is not None
    assert history.best[0].validation >= 0.9
    losses = [e.train_loss for e in history.epochs]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision_gives_finite_scores(precision: str) -> None:
    history = trained(bert(), epochs=2, precision=precision)
    assert not history.diverged
    for epoch in history.epochs:
        assert epoch.validation is not None
        assert epoch.train_loss is not None
        assert epoch.validation_loss is not None


def test_the_weights_stay_in_single_precision_in_mixed_training() -> None:
    history = trained(bert(), precision="bf16")
    assert history.best is not None
    assert {v.dtype for v in history.best[1].values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_learning_rate_far_too_large_makes_a_training_diverge(precision: str) -> None:
    history = trained(bert(), learning_rate=1e30, epochs=3, precision=precision)
    assert history.diverged
    assert len(history.epochs) < 3
    assert history.epochs[-1].validation is None


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_ends_a_training(value: float) -> None:
    seen = []

    def loss(logits: Tensor, batch: Batch, epoch: int = 1, watch: Any = None) -> Tensor:
        seen.append(len(batch.rows))
        return logits.sum() * (value if len(seen) == 7 else 1.0)  # in the second epoch

    history = trained(Linear(), loss, epochs=5)
    assert history.diverged
    assert len(history.epochs) == 2
    assert history.epochs[-1].train_loss is None
    assert history.epochs[-1].validation is None


def test_equal_seeds_give_equal_epochs_and_weights() -> None:
    one, other = (trained(bert(seed=4), epochs=2, seed=4) for _ in range(2))
    assert one.epochs == other.epochs
    assert one.best is not None
    assert other.best is not None
    assert all(torch.equal(v, other.best[1][n]) for n, v in one.best[1].items())


def test_the_order_of_the_examples_follows_the_seed() -> None:
    one, other = (trained(bert(seed=4), epochs=1, seed=seed) for seed in (4, 5))
    assert one.epochs != other.epochs
