"""`gradient_checkpointing`: less memory, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    DECODERS,
    encode,
    everything,
    model_in,
    reader_in,
    rows_of,
    save_model,
    settings_of,
)
from test_training import bert, trained
from transformers import AutoTokenizer

from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.lora import adapt
from kdsearch.distill.models import recompute
from kdsearch.distill.training import TrainingState
from kdsearch.search import Labels
from kdsearch.study import Lora
from kdsearch.tasks import TASKS


def gradients(
    task_name: str, model: Any, examples: Any, parts: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """A loss with dropout, its gradients, and the bytes of activations that it holds."""
    task = TASKS[task_name]
    model.train()
    torch.manual_seed(5)
    held = 0

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        loss_of = batch_loss(task, model, Labels())
        state = TrainingState(
            *(model, task, examples, loss_of, settings_of(task_name)), learning_rate=1, parts=parts
        )
        batch = everything(examples)
        values, _ = state._said(torch.arange(len(examples)), batch, 1)
        loss = loss_of(values, batch, 1, None)
    model.zero_grad()
    loss.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, found, held


KINDS = [
    *(("classification", kind) for kind in ("bert", "modernbert", "deberta-v2", "t5")),
    *(("translation", kind) for kind in ("bart", "t5")),
    *(("lm", kind) for kind in DECODERS),
]


@pytest.mark.parametrize("kind", ["bart", "t5", "gpt2", "llama", "bert"])
@torch.no_grad()
def test_a_classifier_keeps_no_keys_and_values_for_a_next_token(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind)
    model, task = model_in("classification", folder), TASKS["classification"]
    batch = everything(
        encode("classification", rows_of("classification")[:6], reader_in("classification", folder))
    )
    said: list[Any] = []
    model.register_forward_hook(lambda module, given, found: said.append(found))
    task.outputs(model, batch)
    assert getattr(said[0], "past_key_values", None) is None


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_recomputed_activations_give_the_same_gradients_to_the_bit(
    task: str, kind: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, kind, task=task, layers=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = encode(task, rows_of(task)[:6], tokenizer)
    model: Any = TASKS[task].head.from_pretrained(folder)
    read_first_alone(model, TASKS[task], examples)
    for lora in (None, Lora(r=2, dropout=0.2)):
        if lora is not None:
            adapt(model, lora, TASKS[task])
            spread_adapters(model)
        for parts in (1, 2):
            loss, expected, held = gradients(task, model, examples, parts)
            recompute(model)
            again, found, less = gradients(task, model, examples, parts)
            model.gradient_checkpointing_disable()
            assert torch.equal(again, loss)
            assert found.keys() == expected.keys() != set()
            assert all(torch.equal(found[name], expected[name]) for name in found)
            if parts == 1:
                assert less < held / 2


def spread_adapters(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)


def test_a_training_that_recomputes_ends_as_one_that_does_not() -> None:
    plain, recomputed = bert(), bert()
    recompute(recomputed)
    histories = []
    for model in (plain, recomputed):
        torch.manual_seed(1)
        histories.append(trained(model, epochs=2))
    assert histories[0].epochs == histories[1].epochs
    for name, value in plain.state_dict().items():
        assert torch.equal(recomputed.state_dict()[name], value), name
