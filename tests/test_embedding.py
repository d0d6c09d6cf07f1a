"""A training without the rows of the embedding that nothing uses gives the whole one's weights."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models import encode, everything, rows_of, save_model, settings_of, task_texts
from test_first_token import classifier
from test_training import DATA, TASK, TOKENIZER, encoded
from torch import Tensor

from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.embedding import rows_in_use
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.optimizer import schedule_of
from kdsearch.distill.training import History, TrainingState, train
from kdsearch.search import Labels
from kdsearch.tasks import TASKS, Encoded

MANY = 2**20 // 16 + 100
"""So many rows of 16 numbers that those out of use are left out."""
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"adam": {"weight_decay": 0.3}, "schedule": "linear", "warmup": 0.1},
    "adamw without decay": {"adam": {"weight_decay": 0.0}},
    "sgd": {"optimizer": "sgd", "sgd": {"momentum": 0.9, "weight_decay": 0.05}, "clip": 1.0},
    "nesterov": {
        "optimizer": "sgd",
        "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        "precision": "bf16",
    },
}


def model_of(kind: str = "bert", **fields: Any) -> Any:
    return classifier(kind, vocab_size=MANY, **fields)


def state_of(model: Any, validation: Encoded | None, **changes: Any) -> TrainingState:
    settings = settings_of(**{"epochs": 3, **changes})
    rate = 0.05 if settings.optimizer == "sgd" else 3e-3
    loss_of = batch_loss(TASK, model, Labels())
    others = None if validation is None else (validation,)
    examples = encoded(40)
    return TrainingState(
        model, TASK, examples, loss_of, settings, learning_rate=rate, evaluated_on=others
    )


def finished(model: Any, state: TrainingState, checkpoints: Any = None) -> History:
    scored = partial(evaluate, model, TASK, TOKENIZER, encoded(60), DATA, state.settings)
    return train(state, scored, seed=1, keep_lowest_loss=True, checkpoints=checkpoints)


def table(model: Any) -> Tensor:
    found: Tensor = model.get_input_embeddings().weight
    return found


@pytest.mark.parametrize("changes", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_weight_is_what_a_training_of_all_rows_gives(changes: dict[str, Any]) -> None:
    whole = model_of()
    cut = deepcopy(whole)
    state = state_of(cut, encoded(60), **changes)
    assert len(table(cut)) < 40  # 34 words, and the row of ones
    found, expected = finished(cut, state), finished(whole, state_of(whole, None, **changes))
    assert [e.validation for e in found.epochs] == [e.validation for e in expected.epochs]
    for kept, other in (
        (found.best, expected.best),
        (found.lowest_loss, expected.lowest_loss),
        ((None, cut.state_dict()), (None, whole.state_dict())),
    ):
        assert kept is not None
        assert other is not None
        assert kept[0] is None or kept[0].epoch == other[0].epoch  # type: ignore[union-attr]
        assert kept[1].keys() == other[1].keys()
        for name, value in kept[1].items():
            torch.testing.assert_close(value, other[1][name], rtol=1e-5, atol=1e-7)


def test_rows_out_of_use_decay_with_the_learning_rate() -> None:
    model = model_of()
    before = table(model).detach().clone()
    state = state_of(model, encoded(60), **OPTIMIZERS["adamw"])
    finished(model, state)
    steps = 3 * state.steps_per_epoch
    factor = schedule_of(state.settings, steps)
    left = torch.tensor([1 - 3e-3 * factor(step) * 0.3 for step in range(steps)]).double().prod()
    assert left < 0.995
    torch.testing.assert_close(table(model)[-50:], before[-50:] * left.float())


def test_a_training_goes_on_with_the_rows_that_it_had() -> None:
    class Half:
        """Keeps the state after five steps, in the middle of an epoch."""

        due = True
        kept: tuple[int, Any] | None = None

        def save(self, steps: int, state: dict[str, Any]) -> None:
            if self.kept is None and steps == 7:
                self.kept = (steps, deepcopy(state))

        def load(self) -> tuple[int, Any] | None:
            return self.kept

    whole, checkpoints = model_of(), Half()
    again = deepcopy(whole)
    expected = finished(whole, state_of(whole, encoded(60)), checkpoints)
    assert checkpoints.kept is not None
    assert finished(again, state_of(again, encoded(60)), checkpoints).epochs == expected.epochs
    assert torch.equal(table(again), table(whole))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("roberta", {}),  # tells positions by the number of the padding token
        ("gpt2", {"n_embd": 16, "n_head": 2, "pad_token_id": 0}),  # finds the last token by it
        ("distilbert", {}),
    ],
)
def test_models_that_look_at_numbers_of_tokens_see_the_true_ones(
    kind: str, fields: dict[str, Any]
) -> None:
    model = model_of(kind, **fields).eval()
    examples = encoded(40)
    before = TASK.outputs(model, everything(examples))
    weights = deepcopy(model.state_dict())
    rows = rows_in_use(model, TASK, (examples,))
    assert rows is not None
    assert len(table(model)) < 40
    assert torch.equal(TASK.outputs(model, everything(examples)), before)
    rows.put_back()
    assert torch.equal(TASK.outputs(model, everything(examples)), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_row_of_padding_learns_nothing() -> None:
    model = model_of("roberta")
    before = table(model)[0].detach().clone()
    assert model.get_input_embeddings().padding_idx == 0
    finished(model, state_of(model, encoded(60), adam={"weight_decay": 0.0}))
    assert model.get_input_embeddings().padding_idx == 0
    assert torch.equal(table(model)[0], before)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_embeddings_of_both_sides_keep_all_rows(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind, task="translation", vocab_size=MANY)
    translation = TASKS["translation"]
    for task in (translation, TASK):
        model = task.head.from_pretrained(folder)
        examples = encode("translation", rows_of("translation", 8), TOKENIZER)
        examples = examples if task is translation else encoded(8)
        weights = deepcopy(model.state_dict())
        assert rows_in_use(model, task, (examples,)) is None
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_model_that_reads_what_it_has_written_keeps_all_rows(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(task_texts("lm"))
    sizes = {"tokenizer": tokenizer, "vocab_size": MANY, "tie_word_embeddings": False}
    task, folder = TASKS["lm"], save_model(tmp_path, "llama", task="lm", **sizes)
    examples = encode("lm", rows_of("lm", 8), tokenizer)
    assert rows_in_use(task.head.from_pretrained(folder), task, (examples,)) is None


def test_an_embedding_of_few_rows_keeps_them_all() -> None:
    model = classifier("bert")
    assert rows_in_use(model, TASK, (encoded(40),)) is None


def test_weights_that_a_model_reads_itself_keep_all_rows() -> None:
    model = model_of()
    embeddings = model.bert.embeddings
    whole = embeddings.word_embeddings
    embeddings.forward = lambda input_ids, **_: F.embedding(input_ids, whole.weight)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(len(whole.weight)))
    assert rows_in_use(model, TASK, (encoded(40),)) is None
    assert set(seen) == {MANY}  # on a GPU, a number beyond the rows ends the process
