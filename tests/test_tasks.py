from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import SENTENCES, macro_f1, one_by_one, rows_of, save_model, task_texts
from models import encode as encode_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import DataSpec
from kdsearch.distill.models import word_tokenizer
from kdsearch.study import TrainingSettings
from kdsearch.tasks import IGNORED, TASKS, Encoded

TASK = TASKS["classification"]
TOKENIZER = word_tokenizer([*SENTENCES, "first second third"])


def data_of(metric: str = "f1", classes: int = 2) -> DataSpec:
    labels = tuple(f"label {number}" for number in range(classes))
    return DataSpec(
        task="classification", metric=metric, labels=labels, train="", validation="", test=""
    )


def encode(
    some: Sequence[dict[str, Any]],
    tokenizer: Any = TOKENIZER,
    max_length: int = 100,
    *,
    training: bool = False,
) -> Encoded:
    settings = TrainingSettings(max_length=max_length)
    return TASK.encode(some, tokenizer, data_of(), settings, training=training)


def score(metric: str, predicted: Sequence[int], gold: Sequence[int], classes: int) -> float:
    """The score of predictions, decoded from logits whose largest is the predicted class's."""
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), classes).float() * 3 - 7
    examples = encode([{"texts": ["first"], "label": label} for label in gold])
    batch = examples.batch(torch.arange(len(gold)))
    data = data_of(metric, classes)
    settings = TrainingSettings(max_length=100)
    decoded = TASK.decode(torch.nn.Identity(), TOKENIZER, batch, logits, data, settings)
    return TASK.score(decoded, examples.references, data)


def rows(*texts: list[str]) -> list[dict[str, Any]]:
    return [{"texts": text, "label": number % 2} for number, text in enumerate(texts)]


# -- scores ------------------------------------------------------------------------------------


def test_f1_of_two_labels_is_that_of_the_second() -> None:
    # 2 hits, 1 false alarm, 1 miss: 2·2 / (2·2 + 1 + 1); of the first label it were 4/5.
    assert score("f1", [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], 2) == pytest.approx(4 / 6)
    assert score("f1", [1, 0, 0, 0], [1, 1, 0, 0], 2) == pytest.approx(2 / 3)


def test_f1_of_three_labels_is_the_mean_of_theirs() -> None:
    # label 0: 1 hit, 1 false alarm, 1 miss; label 1: 2 hits, 1 miss; label 2: 1 hit, 1 false alarm
    found = score("f1", [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], 3)
    assert found == pytest.approx((2 / 4 + 4 / 5 + 2 / 3) / 3)


def test_a_label_that_neither_occurs_nor_is_predicted_counts_as_nothing() -> None:
    assert score("f1", [0, 1], [0, 1], 3) == pytest.approx(2 / 3)


def test_f1_without_a_hit_is_nothing() -> None:
    assert score("f1", [0, 0], [0, 1], 2) == 0
    assert score("f1", [0, 0], [0, 0], 2) == 0


def test_accuracy_is_the_share_of_hits() -> None:
    assert score("accuracy", [0, 1, 2, 2], [0, 1, 1, 2], 3) == 0.75
    assert score("accuracy", [0, 1, 1], [0, 1, 0], 2) == pytest.approx(2 / 3)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_macro_f1_follows_from_hits_false_alarms_and_misses(pairs: list[tuple[int, int]]) -> None:
    predicted, gold = zip(*pairs, strict=True)
    assert score("f1", predicted, gold, 4) == pytest.approx(macro_f1(predicted, gold, 4))


@pytest.mark.parametrize(
    ("metric", "classes", "expected"),
    [
        ("f1", 2, "binary F1 of label 1"),
        ("f1", 3, "macro F1 of 3 labels"),
        ("accuracy", 3, "accuracy"),
    ],
)
def test_a_signature_says_which_score_it_is(metric: str, classes: int, expected: str) -> None:
    assert TASK.signature(data_of(metric, classes)) == expected


# -- encoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2])
def test_an_example_is_encoded_as_the_tokenizer_does(columns: int) -> None:
    texts = [list(SENTENCES[i : i + columns]) for i in range(20)]
    examples = encode(rows(*texts))
    for index, text in enumerate(texts):
        expected = TOKENIZER(*text)
        length = int(examples.lengths[index])
        assert length == len(expected["input_ids"])
        for name, values in examples.inputs.items():
            assert values[index, :length].tolist() == expected[name]


def test_rows_keep_their_order_and_labels() -> None:
    examples = encode(rows(["third"], ["first second third"], ["first"]))
    assert examples.labels.tolist() == [0, 1, 0]
    assert examples.lengths.tolist() == [3, 5, 3]
    assert len(examples) == 3


def test_every_example_has_one_row_and_a_batch_those_of_its_examples() -> None:
    examples = encode(rows(["third"], ["first second third"], ["first"], ["second"]))
    assert examples.offsets.tolist() == [0, 1, 2, 3, 4]
    batch = examples.batch(torch.tensor([3, 1]))
    assert batch.rows.tolist() == [3, 1]
    assert batch.counts.tolist() == [1, 1]
    assert batch.labels.tolist() == TASK.labels(batch).tolist() == [1, 1]


def test_a_row_without_a_label_is_ignored_by_the_loss() -> None:
    some: list[dict[str, Any]] = [
        {"texts": ["first"], "label": 1},
        {"texts": ["second"], "label": None},
    ]
    examples = encode(some, training=True)
    assert examples.labels.tolist() == [1, IGNORED]


def test_what_a_model_says_of_a_batch_is_what_it_says_of_each_alone(tmp_path: Path) -> None:
    save_model(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    some = rows(*([sentence] for sentence in SENTENCES[:8]))
    examples = encode(some, AutoTokenizer.from_pretrained(tmp_path), 50)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    batch = examples.batch(order)
    with torch.no_grad():
        found = TASK.outputs(model, batch)
    expected = one_by_one(model, AutoTokenizer.from_pretrained(tmp_path), some, 50)
    torch.testing.assert_close(found, expected[order], rtol=1e-4, atol=1e-4)
    logits, real = TASK.units(found, batch)
    assert real is None
    assert logits is found


def test_examples_on_another_device_are_the_same() -> None:
    examples = encode(rows(["first"], ["first second third"]))
    moved = examples.to("meta")
    tensors = (moved.counted, moved.labels, *moved.inputs.values())
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.references == examples.references


def test_where_the_rows_of_examples_are_stays_on_the_cpu() -> None:
    examples = encode(rows(["first"], ["first second third"]))
    moved = examples.to("meta")
    assert torch.equal(moved.lengths, examples.lengths)
    batch = replace(moved, counted=examples.counted).batch(torch.tensor([1, 0]))
    there = [batch.counted, batch.labels, *batch.arguments.values()]
    assert {tensor.device.type for tensor in (batch.counts, batch.rows)} == {"cpu"}
    assert {tensor.device.type for tensor in there} <= {"meta", "cpu"}
    assert batch.labels.device.type == "meta"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_only_what_is_scored_is_kept_for_its_score(task: str) -> None:
    tokenizer = word_tokenizer(task_texts(task))
    some = rows_of(task)[:5]
    scored, learnt = (
        encode_task(task, some, tokenizer, training=training) for training in (False, True)
    )
    assert len(scored.references) == len(scored)
    assert len(learnt.references) == 0
    assert torch.equal(scored.labels, learnt.labels)


def test_what_lies_behind_an_example_is_padding() -> None:
    examples = encode(rows(["first"], ["first second third"]))
    assert examples.inputs["input_ids"][0, 3:].tolist() == [TOKENIZER.pad_token_id] * 2


def test_a_longer_sentence_is_cut_to_the_most_tokens() -> None:
    examples = encode(rows(["first second third"]), max_length=4)
    tokens = TOKENIZER.convert_ids_to_tokens(examples.inputs["input_ids"][0].tolist())
    assert tokens == ["[CLS]", "first", "second", "[SEP]"]


def test_of_a_pair_the_longer_text_is_cut() -> None:
    examples = encode(rows(["first second third first second", "third"]), max_length=6)
    tokens = TOKENIZER.convert_ids_to_tokens(examples.inputs["input_ids"][0].tolist())
    assert tokens == ["[CLS]", "first", "second", "[SEP]", "third", "[SEP]"]


@pytest.mark.parametrize("text", [[""], ["", ""], [" \n"]])
def test_an_empty_text_has_its_special_tokens_alone(text: list[str]) -> None:
    examples = encode(rows(text))
    assert examples.lengths.tolist() == [1 + len(text)]


def test_a_batch_is_as_wide_as_its_longest_example_and_masks_the_rest() -> None:
    texts = (["first"], ["first second third second first"], ["first second"])
    examples = encode(rows(*texts))
    batch = examples.batch(torch.tensor([2, 0]))
    assert batch.arguments["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    expected = TOKENIZER([texts[2][0], texts[0][0]], padding=True)["input_ids"]
    assert batch.arguments["input_ids"].tolist() == expected


def test_a_model_is_given_no_more_than_its_tokenizer_says_it_takes(tmp_path: Path) -> None:
    save_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, model_input_names=["input_ids"])
    examples = encode(rows(["first second"]), tokenizer)
    assert set(examples.batch(torch.tensor([0])).arguments) == {"input_ids", "attention_mask"}
