from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    DECODERS,
    begin,
    data_of,
    everything,
    rows_of,
    save_model,
    settings_of,
    spread,
    task_study,
    task_texts,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from kdsearch.distill.check import check_models
from kdsearch.distill.models import check_head, word_tokenizer
from kdsearch.errors import InputError
from kdsearch.study import Row
from kdsearch.study.parsers import parse_rows
from kdsearch.study.tasks import Columns
from kdsearch.tasks import Encoded, LanguageModelling, head_weights, prompts_and_completions
from kdsearch.tasks.answers import Reference, final_answer

TASK = LanguageModelling()
ROWS = rows_of("lm", 30)
WORDS = word_tokenizer(task_texts("lm"))
TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('only user and assistant') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def bytes_tokenizer(chat_template: str | None = TEMPLATE) -> Any:
    """Byte-level BPE as of GPT-2: no token begins a text, none pads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*task_texts("lm"), "the answer is 42 ."] * 3, trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    found.chat_template = chat_template
    return found


def model_of(kind: str, tokenizer: Any = WORDS) -> Any:
    depth, _, fields = DECODERS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**fields, depth: 2, "vocab_size": len(tokenizer)})
    model = AutoModelForCausalLM.from_config(config).eval()
    spread(model)
    return model


def encode(
    rows: Sequence[Row], tokenizer: Any = WORDS, max_length: int = 64, training: bool = False
) -> Encoded:
    settings = settings_of("lm", max_length=max_length)
    return TASK.encode(rows, tokenizer, data_of("lm"), settings, training=training)


def decoded(
    model: Any, examples: Encoded, order: Sequence[int], metric: str, max_length: int = 64
) -> list[Any]:
    batch = examples.batch(torch.tensor(order))
    data, settings = data_of("lm", metric=metric), settings_of("lm", max_length=max_length)
    with torch.no_grad():
        return TASK.decode(model, WORDS, batch, TASK.outputs(model, batch), data, settings)


@torch.no_grad()
def logits_alone(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """[completion tokens, vocabulary]: the model's own logits in front of each, nothing padded."""
    logits: Tensor = model(torch.tensor([[*prompt, *completion]])).logits[0]
    return logits[len(prompt) - 1 : -1]


# -- what is read and what is learnt -------------------------------------------------------------


def test_the_tokens_of_a_completion_and_its_end_are_learnt_and_no_others() -> None:
    examples = encode(ROWS[:6])
    batch = examples.batch(torch.tensor([4, 1]))
    ids = [WORDS(ROWS[n]["completion"], add_special_tokens=False)["input_ids"] for n in (4, 1)]
    ends = [[*each, WORDS.eos_token_id] for each in ids]
    assert batch.labels.tolist() == [*ends[0], *ends[1]]
    assert batch.counts.tolist() == [len(each) for each in ends]
    assert torch.equal(examples.labels[batch.rows], batch.labels)
    # Each is learnt where the token before it is read.
    tokens = batch.arguments["input_ids"]
    behind = tokens.roll(-1, dims=1)[batch.counted]
    assert torch.equal(behind, batch.labels)


def test_a_prompt_begins_as_the_tokenizer_begins_texts() -> None:
    [(prompt, _)] = prompts_and_completions(ROWS[:1], WORDS)
    assert prompt == WORDS(ROWS[0]["prompt"])["input_ids"][:-1]  # [CLS] …, without its [SEP]
    tokenizer = bytes_tokenizer()
    [(prompt, _)] = prompts_and_completions(ROWS[:1], tokenizer)
    assert tokenizer.decode(prompt) == ROWS[0]["prompt"]


@given(cut=st.integers(1, 17))
def test_what_is_read_is_the_text_wherever_prompt_and_completion_meet(cut: int) -> None:
    text, tokenizer = "the answer is 42 .", bytes_tokenizer()
    row = {"prompt": text[:cut], "completion": text[cut:]}
    [(prompt, completion)] = prompts_and_completions([row], tokenizer)
    assert tokenizer.decode(prompt) == text[:cut]
    assert tokenizer.decode(completion) == text[cut:] + "</s>"


def test_rows_through_the_head_are_the_models_own_logits() -> None:
    pairs = prompts_and_completions(ROWS[:6], WORDS)
    for kind in DECODERS:
        model, examples = model_of(kind), encode(ROWS[:6])
        order = [4, 0, 5, 2]
        batch = examples.batch(torch.tensor(order))
        with torch.no_grad():
            found = linear(TASK.outputs(model, batch), *head_weights(model))
        expected = torch.cat([logits_alone(model, *pairs[number]) for number in order])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        check_head(model, TASK, examples)


def test_an_end_that_a_text_spells_out_is_the_end() -> None:
    tokenizer = bytes_tokenizer()
    examples = encode([{"prompt": "2 + 3 =", "completion": " 5</s>\n"}], tokenizer)
    assert tokenizer.decode(examples.labels) == " 5</s>"
    assert [right.text for right in examples.references] == [" 5"]


# -- lengths -------------------------------------------------------------------------------------

LONG = [{"prompt": "the " * p, "completion": " vidar" * c} for p, c in [(3, 3), (9, 3), (3, 12)]]


def test_training_rows_that_are_too_long_are_left_out() -> None:
    examples = encode(LONG, max_length=10, training=True)
    assert examples.lengths.tolist() == [8]  # with [CLS] and the end


def test_training_rows_that_are_all_too_long_are_refused() -> None:
    with pytest.raises(InputError, match="every training row has more than 7 tokens"):
        encode(LONG, max_length=7, training=True)


def test_elsewhere_a_prompt_loses_its_beginning_and_a_completion_its_end() -> None:
    examples = encode(LONG, max_length=10)
    assert examples.lengths.tolist() == [8, 10, 10]
    assert everything(examples).counts.tolist() == [4, 4, 6]
    assert [right.text for right in examples.references] == [row["completion"] for row in LONG]


def test_what_a_model_writes_does_not_depend_on_how_long_the_right_completion_is() -> None:
    model = model_of("llama")
    for row in ROWS[:5]:
        short, long = (
            decoded(model, encode([told], max_length=16), [0], "exact_match", max_length=16)
            for told in (row, {**row, "completion": " vidar" * 30})
        )
        assert short == long


# -- messages ------------------------------------------------------------------------------------


def chat(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def test_messages_are_written_by_the_chat_template_up_to_the_end_that_it_writes() -> None:
    tokenizer = bytes_tokenizer()
    row = {"prompt": chat("hi", "yes?", "2 + 3?"), "completion": "5"}
    [(prompt, completion)] = prompts_and_completions([row], tokenizer)
    before = "<user>hi<assistant>yes?</s><user>2 + 3?<assistant>"
    assert tokenizer.decode(prompt) == before
    assert tokenizer.decode(completion) == "5</s>"


def test_a_chat_template_that_writes_the_day_writes_the_same_one_every_day() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}:" + TEMPLATE
    [(prompt, _)] = prompts_and_completions([{"prompt": chat("hi"), "completion": "5"}], tokenizer)
    assert tokenizer.decode(prompt) == "26 July 2024:<user>hi<assistant>"


UNANSWERED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no answers') }}"
    "{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "prompt", "said"),
    [
        (None, chat("hi"), "has no chat template"),
        (TEMPLATE, [{"role": "system", "content": "Be kind."}], "of the roles system, in its own"),
        (UNANSWERED, chat("hi"), "of the roles user, assistant, in its own words: no answers"),
        ("{{ 'a' + 1 }}", chat("hi"), "its chat template: fails: can only concatenate"),
        ("{% for %}", chat("hi"), "its chat template: fails: Expected an expression"),
    ],
)
def test_messages_that_no_template_writes_are_refused(
    template: str | None, prompt: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prompts_and_completions([{"prompt": prompt, "completion": "5"}], bytes_tokenizer(template))


def parse(*cells: tuple[Any, Any], label: str = "say") -> list[Row]:
    rows = [{"ask": ask, "say": say} for ask, say in cells]
    columns = Columns(task="lm", text=("ask",), label=label, labels=(), metric="likelihood")
    return parse_rows("here", rows, columns, labelled=True)


def test_the_last_of_a_column_of_messages_is_the_completion() -> None:
    [row] = parse((chat("2 + 3?", "5"), None), label="ask")
    assert row == {"prompt": chat("2 + 3?"), "completion": "5"}


@pytest.mark.parametrize("written", [json.dumps, repr, lambda rows: json.dumps(rows, indent=2)])
def test_messages_in_a_cell_of_text_are_read(written: Any) -> None:
    [row] = parse((written(chat("2 + 3?")), "5"))
    assert row == {"prompt": chat("2 + 3?"), "completion": "5"}


def test_a_prompt_that_begins_like_a_list_stays_text() -> None:
    for text in ("[{ is no list", '[{"a": 1}]'):
        [row] = parse((text, "5"))
        assert row["prompt"] == text


@pytest.mark.parametrize(
    ("ask", "say", "label", "said"),
    [
        ("a", " ", "say", "its say is empty"),
        ("a", None, "say", "its say is missing"),
        (" ", "b", "say", "its ask is empty"),
        ([], "b", "say", "its ask has no messages"),
        ([{"role": "user"}], "b", "say", "its ask is not a list of messages"),
        ([{"role": "user", "content": 3}], "b", "say", "its message's content is missing"),
        (chat("a"), None, "ask", "its ask do not end with an answer of the assistant"),
        (chat("a", "b"), "c", "say", "its ask end with an answer of the assistant"),
        ("[{'role': 'user' 'content'}", "b", "say", "looks like messages and cannot be read"),
        ("a", None, "ask", "its ask is text, but stands for both sides"),
    ],
)
def test_rows_without_both_sides_are_refused(ask: Any, say: Any, label: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse((ask, say), label=label)


# -- scores --------------------------------------------------------------------------------------


def test_the_likelihood_is_one_over_the_perplexity_of_the_completions() -> None:
    model, order = model_of("gpt2"), [3, 0, 4, 1, 2]
    pairs = prompts_and_completions(ROWS[:5], WORDS)
    found = decoded(model, encode(ROWS[:5]), order, "likelihood")
    losses = [
        -logits_alone(model, prompt, completion)
        .double()
        .log_softmax(-1)[range(len(completion)), completion]
        for prompt, completion in pairs
    ]
    score = TASK.score(found, (), data_of("lm", metric="likelihood"))
    assert score == pytest.approx(1 / math.exp(torch.cat(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_what_is_written_is_the_likeliest_token_after_another_however_a_batch_is_padded(
    kind: str,
) -> None:
    model, examples = model_of(kind), encode(ROWS[:5], max_length=24)
    found = decoded(model, examples, [3, 0, 4, 1, 2], "exact_match", max_length=24)
    for number, text in zip([3, 0, 4, 1, 2], found, strict=True):
        [(prompt, _)] = prompts_and_completions([ROWS[number]], WORDS)
        tokens = prompt[-12:]
        for _ in range(12):
            with torch.no_grad():
                tokens = [*tokens, int(model(torch.tensor([tokens])).logits[0, -1].argmax())]
            if tokens[-1] == WORDS.eos_token_id:
                break
        assert text == WORDS.decode(tokens[len(prompt[-12:]) :], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 3 + 4 = 7.\n#### 7", 7),
        ("#### 1,234", 1234),
        ("#### $70,000.00", 70000),
        ("#### -0.50", -0.5),
        ("-0", 0),
        ("007", 7),
        ("18.", 18),
        ("#### 5\n#### 6", 6),
        (" the  cat\nslept ", "thecatslept"),
        ("- 5 . 0", -5),
        ("$-5", -5),
        ("#### 1 , 200\n\nQuestion: 3", 1200),
        ("1.2.3", "1.2.3"),
        ("50 %", "50%"),
        ("1e5", "1e5"),
        ("$", "$"),
        (",", ","),
        ("", ""),
    ],
)
def test_a_final_answer_stands_behind_the_last_mark_and_may_be_a_number(
    text: str, answer: object
) -> None:
    assert final_answer(text, None) == answer


@pytest.mark.parametrize("digits", [30, 2_000_000])
def test_no_digit_of_a_long_number_is_lost(digits: int) -> None:
    one, other = (final_answer("9" * digits + last, None) for last in "12")
    assert one != other


def test_an_answer_without_the_mark_is_compared_whole_and_is_wrong() -> None:
    data = data_of("lm", metric="exact_match")
    said = ["so it is 18", "#### 18", "18"]
    right = [Reference("9 + 9 = 18\n#### 18")] * 3
    assert TASK.statistics(said, right, data) == {"right": [0, 1, 1]}
    assert TASK.score(said, right, data) == pytest.approx(2 / 3)


# -- what is refused before a search -------------------------------------------------------------


def check(folder: Path, model: Any) -> None:
    """Look at a study whose teacher and student are one model, without training."""
    same: dict[str, Any] = {"teachers": {"t": {"model": "m"}}, "students": {"s": {"model": "m"}}}
    ledger, _ = begin(folder, task_study("lm", models={"m": model}, **same))
    check_models(ledger.resolved(), "study.yaml")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bert", "bert does not read from left to right, which lm needs"),
        ("xlnet", "xlnet does not read from left to right, which lm needs"),
        ("bart", "bart is an encoder-decoder; lm needs a decoder"),
    ],
)
def test_a_model_that_sees_what_it_is_to_say_is_refused(
    kind: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        check(tmp_path, {"config": {"model_type": kind}})


def test_a_tokenizer_without_padding_does_and_one_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    save_model(tmp_path / "m", "llama", task="lm", tokenizer=tokenizer)
    check(tmp_path / "study", str(tmp_path / "m"))
    tokenizer.eos_token = None
    save_model(tmp_path / "n", "llama", task="lm", tokenizer=tokenizer)
    with pytest.raises(InputError, match="no end-of-text token"):
        check(tmp_path / "other", str(tmp_path / "n"))


def test_a_teacher_and_a_student_that_end_texts_differently_are_refused(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<end>"})
    save_model(tmp_path / "big", "llama", task="lm", tokenizer=tokenizer)
    tokenizer.eos_token = "<end>"
    save_model(tmp_path / "small", "llama", task="lm", tokenizer=tokenizer)
    models = {name: str(tmp_path / name) for name in ("big", "small")}
    same = {"teachers": {"t": {"model": "big"}}, "students": {"s": {"model": "small"}}}
    ledger, _ = begin(tmp_path / "study", task_study("lm", models=models, **same))
    with pytest.raises(InputError, match="have different end-of-text tokens, so that they would"):
        check_models(ledger.resolved(), "study.yaml")
