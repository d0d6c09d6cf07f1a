"""The last layer at the first token alone gives what the whole layer gives, or is left whole."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from models import ENCODERS, encode, everything, rows_of, save_model, settings_of, spread
from test_training import DATA, TASK, TOKENIZER, bert, encoded
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.training import TrainingState, batches
from kdsearch.search import Labels
from kdsearch.tasks import TASKS, Encoded

_USUAL = ENCODERS["bert"][2]
_GPT2 = {"n_embd": 16, "n_head": 2, "pad_token_id": 0}
CUT = (
    *("bert", "roberta", "distilbert", "xlm-roberta", "electra"),  # queries and all behind them
    *("modernbert", "deberta-v2", "mpnet", "megatron-bert"),  # what is behind attention
)


def classifier(kind: str, **fields: Any) -> Any:
    """A tiny classifier that tells rows apart, without dropout."""
    torch.manual_seed(0)
    other = {} if kind in ("xlnet", "gpt2", "bart") else _USUAL
    depth, _, usual = ENCODERS.get(kind, ("num_hidden_layers", "", other))
    sizes = {"vocab_size": len(TOKENIZER), "num_labels": 2, depth: 2}
    config = AutoConfig.for_model(kind, **{**usual, **sizes, **fields})
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    model = AutoModelForSequenceClassification.from_config(config)
    spread(model)
    return model


def after_steps(model: nn.Module, *, parts: int = 1, precision: str = "fp32") -> dict[str, Tensor]:
    """The weights after an epoch; SGD, since Adam makes steps of round-off where there is no
    gradient (that of keys' biases)."""
    settings = settings_of(optimizer="sgd", precision=precision, clip=1.0)
    examples = encoded(40)
    loss_of = batch_loss(TASK, model, Labels())
    state = TrainingState(model, TASK, examples, loss_of, settings, learning_rate=0.1, parts=parts)
    state.begin(1)
    for indices in batches(examples.lengths, 8, seed=1, epoch=1):
        state.step(indices, 1)
    return model.state_dict()


@pytest.mark.parametrize("kind", CUT)
def test_a_training_at_the_first_token_alone_gives_the_same_weights(kind: str) -> None:
    whole = classifier(kind)
    cut = deepcopy(whole)
    assert read_first_alone(cut, TASK, encoded(40))
    for (name, one), (other_name, other) in zip(
        after_steps(cut).items(), after_steps(whole).items(), strict=True
    ):
        assert name == other_name
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("parts", "precision"), [(2, "fp32"), (3, "bf16")])
def test_so_it_does_in_parts_and_in_half_precision(parts: int, precision: str) -> None:
    whole = classifier("bert")
    cut = deepcopy(whole)
    assert read_first_alone(cut, TASK, encoded(40))
    found = after_steps(cut, parts=parts, precision=precision)
    tolerance = 1e-5 if precision == "fp32" else 1e-2  # bf16 has 2 to 3 digits
    for name, value in after_steps(whole, precision=precision).items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", CUT[:3])
def test_the_last_layer_sees_one_token_behind_its_keys_and_values(kind: str) -> None:
    model = classifier(kind)
    assert read_first_alone(model, TASK, encoded(40))
    seen: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".1." in name:
            module.register_forward_pre_hook(
                lambda _, given, name=name: seen.update({name: given[0].shape[1]})
            )
    batch = everything(encoded(8))
    TASK.outputs(model.eval(), batch)
    whole = {name.rsplit(".", 1)[1] for name, width in seen.items() if width > 1}
    assert whole in ({"key", "value"}, {"k_lin", "v_lin"})
    assert len(seen) == 6


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "gpt2"])
def test_its_weights_are_gone_with_the_model(kind: str) -> None:
    model = classifier(kind, **_GPT2 if kind == "gpt2" else {})
    weights = [weakref.ref(weight) for weight in model.parameters()]
    gc.disable()  # which would find those in a cycle, some time
    try:
        read_first_alone(model, TASK, encoded(40))
        del model
        assert not any(weight() is not None for weight in weights)
    finally:
        gc.enable()


def test_its_dropout_is_that_of_a_training() -> None:
    model = bert()
    assert read_first_alone(model, TASK, encoded(40))
    batch = everything(encoded(8))
    model.train()
    assert not torch.equal(TASK.outputs(model, batch), TASK.outputs(model, batch))
    model.eval()
    assert torch.equal(TASK.outputs(model, batch), TASK.outputs(model, batch))


class Pooled(nn.Module):
    """A head that reads all tokens, but learns only later what for."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.first = nn.Linear(16, 2)
        self.rest = nn.Linear(16, 2)
        nn.init.zeros_(self.rest.weight)

    def forward(self, hidden_BLH: Tensor) -> Tensor:
        said: Tensor = self.first(hidden_BLH[:, 0]) + self.rest(self.pool(hidden_BLH))
        return said


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda hidden_BLH: hidden_BLH.mean(dim=1),
    "maximum": lambda hidden_BLH: hidden_BLH.amax(dim=1),
    "last": lambda hidden_BLH: hidden_BLH[:, -1],
    "second": lambda hidden_BLH: hidden_BLH[:, 1],
}


def parts_of(model: nn.Module) -> dict[str, Any]:
    """What a model's modules have beside weights."""
    return {
        name: (
            type(module),
            sorted(vars(module)),
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
        )
        for name, module in model.named_modules()
    }


def stays_whole(model: Any, examples: Encoded) -> bool:
    before = parts_of(model)
    return not read_first_alone(model, TASK, examples) and parts_of(model) == before


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_may_learn_to_read_other_tokens_keeps_the_whole_layer(head: str) -> None:
    model = classifier("roberta")
    model.classifier = Pooled(HEADS[head])
    assert stays_whole(model, encoded(40))
    model.classifier = Pooled(lambda hidden_BLH: hidden_BLH[:, 0])
    assert read_first_alone(model, TASK, encoded(40))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("modernbert", {"classifier_pooling": "mean"}),
        ("xlnet", {"d_model": 16, "n_head": 2, "d_inner": 32}),
        ("gpt2", _GPT2),
        ("albert", {"embedding_size": 8}),  # each of its layers is the last one
        ("bert", {"is_decoder": True}),
        ("bart", {"d_model": 16, "decoder_start_token_id": 0, "pad_token_id": 0}),
    ],
)
def test_models_that_read_other_tokens_keep_the_whole_layer(
    kind: str, fields: dict[str, Any]
) -> None:
    model = classifier(kind, **fields)
    batch = everything(encoded(8))
    before = TASK.outputs(model.eval(), batch)
    assert stays_whole(model, encoded(8)) or kind == "bert"  # whose first token sees itself alone
    torch.testing.assert_close(TASK.outputs(model.eval(), batch), before)


def test_a_head_for_every_token_keeps_the_whole_layer(tmp_path: Path) -> None:
    task = TASKS["ner"]
    model = task.head.from_pretrained(save_model(tmp_path / "model", task="ner"))
    examples = encode("ner", rows_of("ner", 8), TOKENIZER)
    assert not read_first_alone(model, task, examples)


def test_a_model_that_was_cut_is_scored_and_exported_as_the_whole_one(tmp_path: Path) -> None:
    whole = classifier("bert")
    cut = deepcopy(whole)
    assert read_first_alone(cut, TASK, encoded(40))
    settings = settings_of()
    one, other = (
        evaluate(model, TASK, TOKENIZER, encoded(24), DATA, settings) for model in (cut, whole)
    )
    assert one.predictions == other.predictions
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    cut.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.to_diff_dict() == {
        **whole.config.to_diff_dict(),
        **{name: again.config.to_diff_dict()[name] for name in ("architectures", "dtype")},
    }
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    batch = everything(encoded(8))
    assert torch.equal(TASK.outputs(again.eval(), batch), TASK.outputs(whole.eval(), batch))
