"""Models whose tables hold more than the tokens of their tokenizer, or other tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    begin,
    data_of,
    everything,
    rows_of,
    save_model,
    settings_of,
    task_study,
    task_texts,
)
from test_lm import TASK, WORDS, encode, model_of
from torch import Tensor

from kdsearch.agenda import ForwardSettings, OutputsTraining
from kdsearch.distill import check_models
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.evaluation import autocast, evaluate
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.tokens import token_rows
from kdsearch.errors import InputError
from kdsearch.search import Ce, Dkd, Jsd, Labels, LabelSmoothing, Mse, Objective
from kdsearch.tasks import head_weights

KNOWN = len(WORDS)
OBJECTIVES: list[Objective] = [
    Ce(temperature=2, student_temperature=1, alpha=0.5),
    Jsd(temperature=1, student_temperature=1, alpha=1, beta=0.3),
    Dkd(temperature=2, target=1, non_target=3),
    Mse(alpha=0.7),
    Labels(),
    LabelSmoothing(smoothing=0.2),
]


def padded(kind: str, more: int) -> tuple[Any, Any]:
    """A model, and the same with so many rows more in its tables, which say a lot."""
    model, other = (model_of(kind) for _ in range(2))
    other.resize_token_embeddings(KNOWN + more, mean_resizing=False)
    other.load_state_dict(
        {
            name: _longer(weight, other.state_dict()[name])
            for name, weight in model.state_dict().items()
        }
    )
    return model, other


def _longer(weight: Tensor, at_least: Tensor) -> Tensor:
    found = torch.full_like(at_least, 3.0)
    found[tuple(slice(size) for size in weight.shape)] = weight
    return found


def outputs_of(teacher: Any, examples: Any) -> CachedOutputs:
    with torch.no_grad():
        return CachedOutputs(
            values=TASK.outputs(teacher, everything(examples)), head=head_weights(teacher)
        )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_padded_student_learns_what_one_without_padding_learns(objective: Objective) -> None:
    examples = encode(rows_of("lm", 6))
    batch, teachers = everything(examples), padded("gpt2", 5)
    found = []
    for student, teacher in zip(padded("llama", 9), teachers, strict=True):
        taught_by = outputs_of(teacher, examples) if objective.taught else None
        loss = batch_loss(TASK, student, objective, taught_by)(TASK.outputs(student, batch), batch)
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in student.named_parameters()}))
    (loss, gradients), (padded_loss, padded_gradients) = found
    torch.testing.assert_close(padded_loss, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[name][: len(gradient)], gradient)
        assert not padded_gradients[name][len(gradient) :].any(), name


def test_a_token_that_only_one_table_has_room_for_is_no_class_of_either() -> None:
    examples, objective = encode(rows_of("lm", 6)), Mse(alpha=1)
    batch, (teacher, roomy) = everything(examples), padded("gpt2", 5)
    student = model_of("llama")
    values = TASK.outputs(student, batch).detach()
    expected = batch_loss(TASK, student, objective, outputs_of(teacher, examples))(values, batch)
    more = replace(batch, classes=KNOWN + 2)
    found = batch_loss(TASK, student, objective, outputs_of(roomy, examples))(values, more)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_nothing_is_learnt_about_padding_in_mixed_precision(precision: str) -> None:
    batch = everything(encode(rows_of("lm", 6)))
    _, student = padded("llama", 9)
    with autocast(torch.device("cpu"), precision):
        values = TASK.outputs(student, batch)
        batch_loss(TASK, student, Labels())(values, batch).backward()
    gradient = head_weights(student)[0].grad
    assert gradient is not None
    assert gradient[:KNOWN].any(dim=1).all()
    assert not gradient[KNOWN:].any()


def test_scores_and_measures_do_not_depend_on_padding() -> None:
    examples, data = encode(rows_of("lm", 6)), data_of("lm", metric="likelihood")
    settings = settings_of("lm")
    plain, longer = (
        evaluate(model, TASK, WORDS, examples, data, settings) for model in padded("llama", 9)
    )
    assert longer.score == pytest.approx(plain.score)
    assert longer.loss == pytest.approx(plain.loss)
    assert longer.measures == pytest.approx(plain.measures)


def test_a_model_writes_no_token_that_its_tokenizer_does_not_know() -> None:
    examples, data = encode(rows_of("lm", 6)), data_of("lm", metric="exact_match")
    batch = everything(examples)
    said = []
    for model in padded("llama", 9):
        with torch.no_grad():
            found = TASK.outputs(model, batch)
            logits = torch.nn.functional.linear(found, *head_weights(model))
            said.append(TASK.decode(model, WORDS, batch, found, data, settings_of("lm")))
    assert (logits.argmax(dim=1) >= KNOWN).any()
    assert said[0] == said[1]


@pytest.mark.parametrize("cache", ["top_k 4", "sampled 8"])
def test_no_token_is_kept_of_a_teacher_that_does_not_exist(cache: str, tmp_path: Path) -> None:
    batch, teachers = everything(encode(rows_of("lm", 6))), padded("gpt2", 5)
    settings = ForwardSettings(
        batch_size=8,
        max_length=64,
        stride=None,
        beams=None,
        hidden_dtype="fp32",
        precision="fp32",
        cpu_threads=1,
        cache=cache,
        temperature=2.0,
    )
    training = OutputsTraining.model_construct(settings=settings, split="train")
    training.__dict__["key"] = "7"  # of what else it is made nothing is asked
    kept = []
    for number, teacher in enumerate(teachers):
        rows = token_rows(training, teacher, batch.classes)
        assert rows is not None
        rows.beside(tmp_path / f"{number}.npy", tmp_path / f"{number}.tmp")
        kept.append(rows(TASK.outputs(teacher, batch).detach(), batch).tobytes())
        kept += [path.read_bytes() for path in tmp_path.glob(f"{number}.draws.tmp")]
    assert kept[: len(kept) // 2] == kept[len(kept) // 2 :]


# -- before a search -----------------------------------------------------------------------------


def check(folder: Path) -> None:
    models = {name: str(folder / name) for name in ("big", "small")}
    same = {"teachers": {"t": {"model": "big"}}, "students": {"s": {"model": "small"}}}
    ledger, _ = begin(folder / "study", task_study("lm", models=models, **same))
    check_models(ledger.resolved(), "study.yaml")


def test_a_teacher_and_a_student_may_be_padded_differently(tmp_path: Path) -> None:
    for name, more in (("big", 128), ("small", 3)):
        save_model(tmp_path / name, "llama", task="lm", vocab_size=KNOWN + more)
    check(tmp_path)


@pytest.mark.parametrize("added", ["big", "small"])
def test_tokens_that_only_one_of_two_models_has_are_named(added: str, tmp_path: Path) -> None:
    for name in ("big", "small"):
        tokenizer = word_tokenizer(task_texts("lm"))
        if name == added:
            tokenizer.add_tokens(["<think>", "</think>", "<tool>", "<image>"])
        save_model(tmp_path / name, "llama", task="lm", tokenizer=tokenizer)
    other = "small" if added == "big" else "big"
    with pytest.raises(InputError, match=f"Only {added} has <think>, </think>, <tool>, 1 more"):
        check(tmp_path)
    with pytest.raises(InputError, match=f"the tokenizer of {other} into a copy .* of {added}"):
        check(tmp_path)


def test_the_tokens_of_two_models_that_stand_elsewhere_are_named(tmp_path: Path) -> None:
    for name, tokens in (("big", ["<a>", "<b>"]), ("small", ["<b>", "<a>"])):
        tokenizer = word_tokenizer(task_texts("lm"))
        tokenizer.add_tokens(tokens)
        save_model(tmp_path / name, "llama", task="lm", tokenizer=tokenizer)
    with pytest.raises(InputError, match="Not in the same place: <b>, <a>"):
        check(tmp_path)
