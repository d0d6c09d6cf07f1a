from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    SEQ2SEQ,
    Largest,
    encode,
    everything,
    objective_of,
    rows_of,
    save_model,
    spread,
    task_texts,
)
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.evaluation import autocast
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.models import word_tokenizer
from kdsearch.search import Labels
from kdsearch.tasks import IGNORED, TASKS, Batch, Encoded, head_weights

TASK = TASKS["translation"]
TOKENIZER = word_tokenizer(task_texts("translation"))
KINDS = ("bart", "marian", "t5")
CASES = [
    ("ce", 1.0, 1.0, 1.0),
    ("ce", 8.0, 8.0, 1.0),
    ("ce", 4.0, 1.0, 0.3),
    ("mse", None, None, 1.0),
    ("mse", None, None, 0.3),
]
"""Distance, τ_t, τ_s and α."""


def model_of(kind: str, seed: int, width: int = 16) -> Any:
    """A tiny encoder-decoder at random, without dropout."""
    torch.manual_seed(seed)
    depths, _, rest = SEQ2SEQ[kind]
    extra = {"decoder_vocab_size": len(TOKENIZER)} if kind == "marian" else {}
    config = AutoConfig.for_model(
        kind,
        **{
            **rest,
            **extra,
            **dict.fromkeys(depths, 2),
            "d_model": width,
            "vocab_size": len(TOKENIZER),
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    )
    model = TASK.head.from_config(config)
    spread(model)
    return model.eval()


def translations(count: int = 7) -> Encoded:
    return encode("translation", rows_of("translation", 96)[:count], TOKENIZER)


def logits_of(model: Any, batch: Batch) -> Tensor:
    """What the whole model says of each target token, [R, V]: by itself, in one go."""
    assert batch.targets is not None
    found: Tensor = model(**batch.arguments, labels=batch.targets.contiguous()).logits
    return found[batch.counted]


@torch.no_grad()
def cached(model: Any, examples: Encoded, dtype: torch.dtype = torch.float32) -> CachedOutputs:
    """A teacher's hidden states of all rows, and its head, as they are stored."""
    weight, bias = head_weights(model)
    head = weight.detach(), None if bias is None else bias.detach()
    return CachedOutputs(values=TASK.outputs(model, everything(examples)).to(dtype), head=head)


def expected_loss(student: Any, teacher: Any, batch: Batch, case: Any) -> Tensor:
    """L_KD of the logits that both models compute directly."""
    with torch.no_grad():
        teachers = logits_of(teacher, batch)
    units = Units(student=logits_of(student, batch), teacher=teachers, labels=batch.labels)
    return compute(objective_of(*case), units)


# -- wide outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_loss_of_hidden_states_is_the_loss_of_both_models_own_logits(
    kind: str, case: Any
) -> None:
    student, teacher, examples = model_of(kind, 1), model_of(kind, 2, width=24), translations()
    loss_of = batch_loss(TASK, student, objective_of(*case), cached(teacher, examples))
    batch = examples.batch(torch.tensor([4, 0, 6]))
    found = loss_of(TASK.outputs(student, batch), batch)
    expected = expected_loss(student, teacher, batch, case)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_is_that_of_the_loss_of_both_models_own_logits(kind: str, case: Any) -> None:
    student, teacher, examples = model_of(kind, 1), model_of(kind, 2, width=24), translations()
    loss_of = batch_loss(TASK, student, objective_of(*case), cached(teacher, examples))
    batch = examples.batch(torch.tensor([4, 0, 6]))
    gradients = []
    for loss in (
        loss_of(TASK.outputs(student, batch), batch),
        expected_loss(student, teacher, batch, case),
    ):
        student.zero_grad()
        loss.backward()
        gradients.append(
            {n: p.grad.clone() for n, p in student.named_parameters() if p.requires_grad}
        )
    for name, expected in gradients[1].items():
        scale = max(1.0, float(expected.abs().max()))
        assert float((gradients[0][name] - expected).abs().max()) < 1e-5 * scale, name


# Half precision keeps 8 or 11 bits of a number: each of a hidden state's is off by 2⁻⁸ or 2⁻¹¹ of
# itself at most, and so a logit by that share of Σ |w·h|.
@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hidden_states_kept_in_half_precision_cost_a_logit_no_more_than_their_rounding(
    kind: str, dtype: torch.dtype, share: float
) -> None:
    teacher, examples = model_of(kind, 2), translations()
    kept = cached(teacher, examples, dtype)
    batch = everything(examples)
    assert kept.head is not None
    found = torch.nn.functional.linear(kept.of(batch).float(), *kept.head)
    exact = TASK.outputs(teacher, batch)
    bound = share * (exact.abs() @ kept.head[0].abs().T) + 1e-5
    assert ((found - logits_of(teacher, batch)).abs() <= bound).all()


@pytest.mark.parametrize(("dtype", "off"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
@pytest.mark.parametrize("case", CASES)
def test_hidden_states_kept_in_half_precision_hardly_change_the_loss(
    dtype: torch.dtype, off: float, case: Any
) -> None:
    student, teacher, examples = model_of("bart", 1), model_of("bart", 2), translations()
    kept = cached(teacher, examples, dtype)
    loss_of = batch_loss(TASK, student, objective_of(*case), kept)
    batch = everything(examples)
    found = float(loss_of(TASK.outputs(student, batch), batch).detach())
    exact = float(expected_loss(student, teacher, batch, case).detach())
    assert found == pytest.approx(exact, rel=off)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("case", CASES)
def test_the_batch_loss_is_close_in_mixed_precision(precision: str, case: Any) -> None:
    student, teacher, examples = model_of("bart", 1), model_of("bart", 2), translations()
    kept = cached(teacher, examples, torch.bfloat16)
    if precision == "bf16":  # as a run prepares the teacher's head
        assert kept.head is not None
        weight, bias = kept.head
        assert bias is not None
        kept = CachedOutputs(values=kept.values, head=(weight.bfloat16(), bias.bfloat16()))
    loss_of = batch_loss(TASK, student, objective_of(*case), kept)
    batch = everything(examples)
    with autocast(torch.device("cpu"), precision):
        found = loss_of(TASK.outputs(student, batch), batch)
    found.backward()
    exact = float(expected_loss(student, teacher, batch, case).detach())
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(exact, rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, examples = model_of("bart", 1), model_of("bart", 2), translations()
    kept = cached(teacher, examples)
    batch = everything(examples)
    batch_loss(TASK, student, objective_of(*CASES[0]), kept)(
        TASK.outputs(student, batch), batch
    ).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert kept.head is not None
    assert not kept.values.requires_grad
    assert not kept.head[0].requires_grad


def test_a_student_that_is_its_teacher_has_no_gradient() -> None:
    student, examples = model_of("bart", 1), translations()
    batch = everything(examples)
    for case in (CASES[0], CASES[3]):
        loss_of = batch_loss(TASK, student, objective_of(*case), cached(student, examples))
        student.zero_grad()
        loss_of(TASK.outputs(student, batch), batch).backward()
        assert (
            max(float(p.grad.abs().max()) for p in student.parameters() if p.requires_grad) < 1e-4
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_loss_of_a_translation_is_the_models_own_loss(kind: str) -> None:
    model, batch = model_of(kind, 1), everything(translations())
    assert batch.targets is not None
    expected = model(**batch.arguments, labels=batch.targets.contiguous()).loss
    found = batch_loss(TASK, model, Labels())(TASK.outputs(model, batch), batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


# -- memory --------------------------------------------------------------------------------------


def test_the_logits_of_a_wide_vocabulary_are_made_for_some_rows_at_a_time() -> None:
    vocabulary, width, rows = 250_027, 4, 128  # a vocabulary as mBART's
    fields = {**SEQ2SEQ["bart"][2], "d_model": width, "encoder_layers": 1, "decoder_layers": 1}
    student = TASK.head.from_config(
        AutoConfig.for_model("bart", **{**fields, "vocab_size": vocabulary})
    )
    batch = Batch(
        arguments={},
        counted=torch.ones(1, rows, dtype=torch.bool),
        counts=torch.full((1,), rows),
        rows=torch.zeros(rows, dtype=torch.long),
        labels=torch.zeros(rows, dtype=torch.long),
        targets=None,
    )
    kept = CachedOutputs(values=torch.zeros(9, width), head=(torch.zeros(vocabulary, width), None))
    values = torch.zeros(rows, width, requires_grad=True)
    loss_of = batch_loss(TASK, student, objective_of("ce", alpha=0.5), kept)
    with Largest() as largest:
        loss_of(values, batch).backward()
    assert values.grad is not None
    assert vocabulary * 48 < largest.numbers <= 2**24 < rows * vocabulary / 1.9


# -- narrow outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("task", ["classification", "ner"])
def test_the_batch_loss_of_kept_logits_is_the_loss_of_each_units_own(
    task: str, case: Any, tmp_path: Path
) -> None:
    student, teacher, tokenizer = pair(task, tmp_path)
    examples = encode(task, rows_of(task)[:9], tokenizer)
    batch = examples.batch(torch.tensor([7, 2, 5]))
    with torch.no_grad():
        every = TASKS[task].outputs(teacher, everything(examples))
        teachers = TASKS[task].outputs(teacher, batch)
    loss_of = batch_loss(
        TASKS[task], student, objective_of(*case), CachedOutputs(values=every, head=None)
    )
    values = TASKS[task].outputs(student, batch)
    units = Units(student=values, teacher=teachers, labels=batch.labels)
    expected = compute(objective_of(*case), units)
    found = float(loss_of(values, batch).detach())
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_batch_loss_of_qa_is_the_mean_over_the_starts_and_ends_of_windows(
    case: Any, tmp_path: Path
) -> None:
    student, teacher, tokenizer = pair("qa", tmp_path)
    task = TASKS["qa"]
    examples = encode("qa", rows_of("qa")[:9], tokenizer, max_length=24, stride=4)
    assert len(examples) > 9  # some contexts have several windows
    indices = torch.tensor([7, 2, 5, len(examples) - 1])
    batch = examples.batch(indices)
    distance, temperature, own, alpha = case
    parts, labels = [], []
    with torch.no_grad():
        for index in indices.tolist():
            one = examples.batch(torch.tensor([index]))
            own_values, teachers = task.outputs(student, one), task.outputs(teacher, one)
            for side in range(2):
                marks = one.labels[:, side]
                label = int(marks.argmax()) if marks.any() else IGNORED
                labels.append(label)
                parts.append((own_values[None, :, side], teachers[None, :, side], label))
        every = task.outputs(teacher, everything(examples))
        loss_of = batch_loss(
            task, student, objective_of(*case), CachedOutputs(values=every, head=None)
        )
        found = float(loss_of(task.outputs(student, batch), batch))
        each = [
            compute(
                objective_of(distance, temperature, own),
                Units(student=one, teacher=other, labels=torch.tensor([label])),
            )
            for one, other, label in parts
        ]
        on_labels = [
            torch.nn.functional.cross_entropy(one, torch.tensor([label]))
            for one, _, label in parts
            if label != IGNORED
        ]
    expected = alpha * float(torch.stack(each).mean())
    expected += (1 - alpha) * float(torch.stack(on_labels).mean())
    assert found == pytest.approx(expected, rel=1e-5)


def pair(task: str, folder: Path) -> tuple[Any, Any, Any]:
    """A student, a teacher and their tokenizer."""
    models = []
    for seed in (1, 2):
        save_model(folder / str(seed), task=task, seed=seed)
        models.append(TASKS[task].head.from_pretrained(folder / str(seed)).eval())
    return models[0], models[1], AutoTokenizer.from_pretrained(folder / "1")
