"""Answers of language models: found by a pattern, chosen among given ones, compared by ROUGE-L."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import resolved_of
from hypothesis import given
from hypothesis import strategies as st
from models import (
    DECODERS,
    begin,
    data_of,
    run_study,
    save_model,
    settings_of,
    task_study,
)
from pydantic import TypeAdapter
from test_lm import TASK, WORDS, bytes_tokenizer, chat, decoded, encode, logits_alone, model_of
from test_reading import Found, files, read
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from kdsearch.agenda import Agenda, Measures
from kdsearch.analysis import analyse, floor_of
from kdsearch.analysis.measures import over_seeds
from kdsearch.analysis.row_scores import row_scores
from kdsearch.distill import run_training
from kdsearch.distill.check import check_models
from kdsearch.distill.evaluation import evaluate
from kdsearch.errors import InputError
from kdsearch.report.write import report_files
from kdsearch.study import SPECS, Row, parse_study
from kdsearch.study.known import columns_of
from kdsearch.study.parsers import parse_rows
from kdsearch.study.schema import Dataset
from kdsearch.study.survey import survey
from kdsearch.study.yaml_file import read_yaml
from kdsearch.tasks import prompts_and_completions
from kdsearch.tasks.answers import Reference, final_answer, is_right, rouge_l

FILES = {"train": "rows.jsonl"}


def dataset(**fields: Any) -> Dataset:
    return Dataset.model_validate({"task": "lm", "files": FILES, "label": "right", **fields})


def parsed(row: Row, **fields: Any) -> Row:
    [found] = parse_rows("here", [row], columns_of("data", dataset(**fields)), labelled=True)
    return found


def problems_of(**fields: Any) -> str:
    """What is wrong with a study whose data set has these fields."""
    study = task_study("lm", datasets={"data": {"task": "lm", "files": FILES, **fields}})
    with pytest.raises(InputError) as caught:
        parse_study(study, place="study.yaml")
    return str(caught.value)


# -- choices -------------------------------------------------------------------------------------

ARC = {"text": ["ice", "snow", "steam"], "label": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (ARC, "2"),
        (json.dumps(ARC), "2"),
        (["ice", "snow", "steam"], "snow"),
        (["ice", "snow", "steam"], 1),
        (["ice", "snow", "steam"], 1.0),
        (["ice", "snow", "steam"], "B"),
        ("['ice', 'snow', 'steam']", "1"),
        (["A)ice", "B)snow", "C)steam"], "B"),
        (["(A) ice", "(B) snow", "(C) steam"], "snow"),
        (["ice", "snow", "ice", "steam"], "snow"),
    ],
)
def test_the_right_choice_is_told_by_its_text_its_label_its_letter_or_its_number(
    offered: Any, said: Any
) -> None:
    row = parsed({"ask": "What is white?", "of": offered, "right": said}, text="ask", choices="of")
    assert row == {
        "prompt": "What is white?",
        "completion": " snow",
        "choices": [" ice", " snow", " steam"],
    }


@pytest.mark.filterwarnings("error")
def test_a_data_set_with_lists_in_it_is_written_and_read_without_a_warning() -> None:
    files = {"train": ["a.jsonl", "b.jsonl"]}
    found = dataset(text="ask", choices=["no", "yes"], files=files)
    assert Dataset.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("said", "right"), [(True, " yes"), (False, " no"), ("true", " yes")])
@pytest.mark.parametrize("choices", [["no", "yes"], ["yes", "no"]])
def test_true_and_false_mean_yes_and_no_in_whatever_order_these_stand(
    said: object, right: str, choices: list[str]
) -> None:
    row = parsed({"ask": "is it?", "right": said}, text="ask", choices=choices)
    assert row["completion"] == right


def test_choices_of_every_row_are_the_words_that_stand_in_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("choices: [no, yes]\n")
    assert read_yaml(tmp_path / "study.yaml") == {"choices": ["no", "yes"]}


@pytest.mark.parametrize(
    ("offered", "said", "what"),
    [
        (["a", "b"], "c", "its right, 'c', is none of its 2 of"),
        (["a", "b"], 2, "its right, 2, is none of its 2 of"),
        (["a", "b"], True, "its right, True, is none of its 2 of"),
        (["a", "b"], None, "its right is missing"),
        (["a"], "a", "its of: there is only one"),
        ([], "a", "its of: there are none"),
        (["a", " "], "a", "its of: one is empty"),
        (["a", "b", "a"], "a", "the right one of its of is there twice"),
        (["B", "A"], "A", "is the text of one of its of and stands for another"),
        (["2", "0", "1"], "0", "is the text of one of its of and stands for another"),
        ("a, b", "a", "its of are no list of texts"),
        (None, "a", "its of are no list of texts"),
        ([["a"], "b"], "b", "one of its of is no text"),
        ({"text": ["a", "b"], "label": ["A"]}, "A", "has 2 of and 1 labels for them"),
    ],
)
def test_choices_that_leave_the_right_one_open_are_refused_with_their_row(
    offered: Any, said: Any, what: str
) -> None:
    with pytest.raises(InputError, match="here: row 1") as caught:
        parsed({"ask": "?", "of": offered, "right": said}, text="ask", choices="of")
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "multiple_choice"}, "multiple_choice needs choices"),
        ({"also": "multiple_choice"}, "multiple_choice needs choices"),
        ({"choices": ["a"]}, "choices: there is only one"),
        ({"choices": ["a", "a"]}, "choices: one is there twice"),
        ({"choices": 3}, "expected the name of a column, or a list of texts"),
        ({"task": "classification", "choices": "of"}, "choices only goes with the task lm"),
        ({"also": "accuracy"}, "also names further metrics of lm, each once: exact_match"),
        ({"also": ["rouge_l", "rouge_l"]}, "also names further metrics of lm, each once"),
        ({"answer": "(a"}, "answer: is not a regular expression: missing )"),
        ({"answer": "(a)(b)"}, "answer: has 2 groups; keep one"),
        ({"answer": r"\d*"}, "answer: matches an empty text"),
        ({"answer": r"\d+"}, "answer says what exact_match compares"),
        ({"prompt": "{a}"}, "prompt and text both say what a model reads; keep one"),
        ({"prompt": "a"}, "prompt: names no column"),
        ({"prompt": "{}"}, "prompt: a column stands in it as {column}"),
    ],
)
def test_what_does_not_go_together_is_said_of_the_study_file(
    fields: dict[str, Any], said: str
) -> None:
    assert said in problems_of(**{"text": "ask", "label": "right", **fields})


# -- prompts of several columns ------------------------------------------------------------------


def test_a_prompt_is_made_of_several_columns_and_stands_apart_from_the_completion() -> None:
    row = {"about": "It rains.", "ask": {"text": "Is it wet {now}?"}, "right": "yes"}
    found = parsed(row, prompt="{about}\nQuestion {{1}}: {ask.text}\nAnswer:")
    prompt = "It rains.\nQuestion {1}: Is it wet {now}?\nAnswer:"
    assert found == {"prompt": prompt, "completion": " yes"}
    apart = parsed(row, prompt="{about}\n")
    assert apart == {"prompt": "It rains.\n", "completion": "yes"}


def test_a_prompt_that_only_looks_like_messages_is_text_in_a_template() -> None:
    text = '[{"role": and so on'
    with pytest.raises(InputError, match=r'prompt: "\{ask\}" in place of text'):
        parsed({"ask": text, "right": "yes"}, text="ask")
    assert parsed({"ask": text, "right": "yes"}, prompt="{ask}")["prompt"] == text


def test_a_list_in_a_prompt_is_written_an_item_a_line() -> None:
    found = parsed({"ask": ["A)1", 2, "C)3"], "right": "yes"}, prompt="Q:\n{ask}\nA:")
    assert found["prompt"] == "Q:\nA)1\n2\nC)3\nA:"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, r"ask is missing \(leave the row out\)"),
        ([], "ask is a list, not text"),
        (["a", None], "item of ask is missing"),
        ([["a"]], "item of ask is a list, not text"),
        ({"text": ["a"]}, "ask is an object, not text"),
        (True, "ask is true or false, not text"),
    ],
)
def test_a_column_of_a_prompt_that_holds_no_text_is_refused(value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"row 1: its {said}"):
        parsed({"ask": value, "right": "yes"}, prompt="{ask}?")


@pytest.mark.parametrize("prompt", ["{ask", "ask}", "{ask} {"])
def test_a_brace_that_stands_alone_in_a_prompt_is_refused_with_how_to_write_it(
    prompt: str,
) -> None:
    found = problems_of(prompt=prompt, label="right")
    assert "prompt: a column stands in it as {column}; write {{ and }} for braces" in found


def test_a_missing_completion_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"its right is missing \(leave the row out\)"):
        parsed({"ask": "a", "right": None}, text="ask")


# -- final answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"answer is (.+?)\.", "The answer is 3. No, the answer is 1,200.", 1200),
        (r"[A-E]\b", "A? or rather C", "C"),
        (r"####\s*(\S+)", "#### 3,14", "3,14"),
        (r"####\s*(\S+)", "so it is 3", None),
        (r"so (\d+)?", "so it is", None),
    ],
)
def test_a_pattern_finds_the_last_answer_by_its_group_or_as_a_whole(
    pattern: str, text: str, answer: object
) -> None:
    assert final_answer(text, pattern) == answer


@pytest.mark.parametrize("text", ["3,14", "1,2345", "12,34,567", "1234,567"])
def test_commas_that_part_no_thousands_make_no_number(text: str) -> None:
    assert final_answer(text, None) == text


def test_an_answer_without_the_pattern_is_refused_where_it_is_right_and_else_is_wrong() -> None:
    fields = {"text": "ask", "metric": "exact_match", "answer": "so (.+)"}
    with pytest.raises(InputError, match="here: row 1: nothing in its right is an answer by the"):
        parsed({"ask": "?", "right": "it is 3"}, **fields)
    row = parsed({"ask": "?", "right": "so 3"}, **fields)
    right = Reference(row["completion"])
    assert is_right("so 3.0", right, "so (.+)")
    assert not is_right("3", right, "so (.+)")


THINKING = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_what_a_template_writes_around_an_answer_is_no_part_of_it() -> None:
    tokenizer = bytes_tokenizer(THINKING)
    rows = [{"prompt": chat("2 + 3?"), "completion": "1,000"}]
    [right] = encode(rows, tokenizer).references
    assert right.said("<think>\n\n</think>\n\n1000<|end|>\n<user>and") == "1000"
    assert is_right("<think>\n\n</think>\n\n1000.0<|end|>\n", right, None)
    [plain] = encode([{"prompt": "2 + 3?", "completion": "<think>"}], tokenizer).references
    assert plain.said("<think><|end|>") == "<think><|end|>"


# -- multiple choice -----------------------------------------------------------------------------

CHOICES: list[Row] = [
    {"prompt": "the dog will sleep =", "completion": " lo tarok", "choices": [" vu", " lo tarok"]},
    {
        "prompt": "the big dog can often see a king =",
        "completion": " ken vidar",
        "choices": [" ken vidar", " ra belun vu ne onda", " ogru", " lo vod lo"],
    },
    {"prompt": "a bird =", "completion": " lo", "choices": [" im sipa vu ken", " lo", " kanti"]},
]


def score_alone(model: Any, row: Row, choice: str) -> float:
    """The log-likelihood of a choice by its characters, nothing padded."""
    [(prompt, tokens)] = prompts_and_completions([{**row, "completion": choice}], WORDS)
    tokens = tokens[:-1]
    logits = logits_alone(model, prompt, tokens).double().log_softmax(-1)
    return float(logits[range(len(tokens)), tokens].sum()) / len(choice.strip())


@pytest.mark.parametrize("kind", DECODERS)
def test_a_choice_is_likeliest_by_the_sum_over_its_tokens_and_its_characters(kind: str) -> None:
    right = []
    for _ in range(2):
        model = model_of(kind)
        order = [2, 0, 1]
        found = decoded(model, encode(CHOICES), order, "multiple_choice")
        for number, sums in zip(order, found, strict=True):
            row = CHOICES[number]
            wrong = [choice for choice in row["choices"] if choice != row["completion"]]
            [reference] = encode([row]).references
            each = [score_alone(model, row, choice) for choice in (row["completion"], *wrong)]
            counted = [s / n for s, n in zip(sums, reference.characters, strict=False)]
            assert counted == pytest.approx(each, rel=1e-4)
            assert reference.likeliest(sums) == (each[0] > max(each[1:]))
            right.append(reference.likeliest(sums))
    data = data_of("lm", metric="multiple_choice")
    references = [encode(CHOICES).references[number] for number in order]
    assert TASK.score(found, references, data) == pytest.approx(sum(right[:3]) / 3)


def test_of_a_tie_nothing_is_chosen() -> None:
    right = Reference("a", characters=(2, 4, 1))
    assert right.likeliest([-2.0, -5.0, -1.5])
    assert not right.likeliest([-2.0, -4.0, -3.0])
    assert not right.likeliest([-math.inf, -math.inf, -math.inf])
    assert right.likeliest([-2.0, -5.0, -1.5, -0.1])  # beyond the choices of its row


def test_a_choice_is_cut_as_completions_are() -> None:
    rows = [{"prompt": " the" * 9, "completion": " lo", "choices": [" lo", " vu" * 30]}]
    examples = encode(rows, max_length=10)
    [wrong] = examples.choices
    assert examples.lengths.tolist() == [10]
    assert wrong.lengths.tolist() == [10]
    assert wrong.counted.sum().item() == 5


def test_the_loss_of_a_row_with_choices_is_that_of_the_right_one() -> None:
    without = [{name: row[name] for name in ("prompt", "completion")} for row in CHOICES]
    found, plain = (encode(rows) for rows in (CHOICES, without))
    assert found.labels.tolist() == plain.labels.tolist()
    assert torch.equal(found.inputs["input_ids"], plain.inputs["input_ids"])


def test_what_takes_no_learning_is_a_draw_or_always_the_same_choice(tmp_path: Path) -> None:
    def floor(*right: int) -> float:
        rows = [
            {"ask": f"{n}?", "of": ["no", "yes", "perhaps"], "right": r}
            for n, r in enumerate(right)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "rows.jsonl"))
        fields = {"files": files, "text": "ask", "choices": "of", "label": "right"}
        data = {"task": "lm", "metric": "multiple_choice", **fields}
        ledger, _ = begin(tmp_path / str(right), task_study("lm", datasets={"data": data}))
        facts, _, _ = survey(ledger.resolved(), ledger.rows, "study.yaml")
        return floor_of(ledger.resolved().datasets["data"], facts["data"])

    assert floor(0, 1, 2) == pytest.approx(1 / 3)
    assert floor(1, 1, 2, 1) == pytest.approx(3 / 4)


def chosen(folder: Path, model: str, rows: Sequence[Row]) -> Found:
    """How a model in a folder reads rows with choices."""
    columns = {"text": "ask", "label": "right", "choices": "of", "metric": "multiple_choice"}
    same = {"teachers": {"t": {"model": "m"}}, "students": {"s": {"model": "m"}}}
    data = {**files(folder, train=rows), **columns}
    return read(folder / "study", "lm", data, models={"m": model}, **same)


def test_tokens_of_wrong_choices_that_a_model_has_no_embedding_for_are_refused(
    tmp_path: Path,
) -> None:
    tokenizer = bytes_tokenizer()
    folder = save_model(tmp_path / "m", "llama", task="lm", tokenizer=tokenizer)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(folder)
    rows = [{"ask": f"what is {n}?", "of": ["so", "zzz"], "right": "so"} for n in range(3)]
    _, _, problems = chosen(tmp_path, str(folder), rows)
    assert [problem.what for problem in problems] == [
        "its tokenizer has 401 tokens, its embeddings 400: 6 rows of data use zzz"
    ]


def test_a_wrong_choice_that_is_cut_is_counted_but_in_training(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "llama", task="lm", tokenizer=bytes_tokenizer())
    rows = [{"ask": f"what is {n}?", "of": ["so", "x y" * 40], "right": "so"} for n in range(3)]
    found, _, _ = chosen(tmp_path, str(folder), rows)
    assert {each.split: each.cut for each in found} == {"train": 0, "validation": 1, "test": 1}


# -- ROUGE-L -------------------------------------------------------------------------------------


@cache
def longest(some: str, others: str) -> int:
    """The length of the longest common subsequence, by its definition."""
    if not some or not others:
        return 0
    if some[0] == others[0]:
        return 1 + longest(some[1:], others[1:])
    return max(longest(some[1:], others), longest(some, others[1:]))


@given(some=st.text("abc", max_size=9), others=st.text("abc", max_size=9))
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(some: str, others: str) -> None:
    common = longest(some, others)
    precision, recall = (common / max(1, len(each)) for each in (some, others))
    expected = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(" ".join(some), " ".join(others)) == pytest.approx(expected)


def test_rouge_l_counts_words_of_any_alphabet_without_case_and_punctuation() -> None:
    assert rouge_l("Schön, ist_das!", "das ist schön.") == pytest.approx(1 / 3)
    assert rouge_l("Schön; ist das", "SCHÖN ist, das") == 1
    assert rouge_l("", "") == 0


@pytest.mark.parametrize(
    ("metric", "predictions", "references"),
    [
        ("multiple_choice", [[-1.0, -2.0], [-3.0, -2.0]], [Reference("", characters=(1, 1))] * 2),
        ("rouge_l", ["a b", "c"], [Reference("a c b"), Reference("d")]),
    ],
)
def test_scores_follow_from_what_is_kept_of_each_test_row(
    metric: str, predictions: list[Any], references: list[Any]
) -> None:
    data = data_of("lm", metric=metric)
    rows = TASK.statistics(predictions, references, data)
    scores = row_scores(rows, data).of_sums(torch.eye(2).numpy())
    one_by_one = [
        TASK.score([said], [right], data)
        for said, right in zip(predictions, references, strict=True)
    ]
    assert scores.tolist() == pytest.approx(one_by_one)
    assert one_by_one[0] > one_by_one[1] == 0


# -- what a model writes -------------------------------------------------------------------------


def test_a_model_that_never_ends_writes_half_of_the_most_tokens() -> None:
    model = model_of("llama")
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(WORDS)))
    with torch.no_grad():
        model.lm_head.bias[WORDS.all_special_ids] = -1e9  # the end is one of them
    examples = encode([{"prompt": "the dog =", "completion": " lo"}])
    [text] = decoded(model, examples, [0], "rouge_l", max_length=20)
    assert len(text.split()) == 10


def rwkv() -> Any:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2}
    config = AutoConfig.for_model("rwkv", vocab_size=len(WORDS), context_length=64, **size)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_a_model_that_reads_padding_is_given_none_to_write_behind() -> None:
    model = rwkv()
    rows = [{"prompt": " the dog" * n + " =", "completion": " lo"} for n in (1, 3, 1, 6)]
    together = decoded(model, encode(rows, max_length=24), [0, 1, 2, 3], "rouge_l", max_length=24)
    alone = [
        decoded(model, encode([row], max_length=24), [0], "rouge_l", max_length=24)[0]
        for row in rows
    ]
    assert together == alone
    assert len({*together}) > 1


def test_what_a_pretrained_model_writes_by_stays_its_own() -> None:
    model = model_of("llama")
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6)
    decoded(model, encode(CHOICES), [0], "exact_match")
    assert model.generation_config.do_sample
    assert model.generation_config.temperature == 0.6


# -- chat templates ------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [True, False])
def test_different_chat_templates_are_refused_where_one_is_read(
    messages: bool, tmp_path: Path
) -> None:
    tokenizer = bytes_tokenizer()
    save_model(tmp_path / "big", "llama", task="lm", tokenizer=tokenizer)
    tokenizer.chat_template = THINKING
    save_model(tmp_path / "small", "llama", task="lm", tokenizer=tokenizer)
    row = {"ask": chat("2 + 3?") if messages else "2 + 3?", "right": "5"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "rows.jsonl"))
    ledger, _ = begin(
        tmp_path / "study",
        task_study(
            "lm",
            datasets={"data": {"task": "lm", "files": files, "text": "ask", "label": "right"}},
            models={name: str(tmp_path / name) for name in ("big", "small")},
            teachers={"t": {"model": "big"}},
            students={"s": {"model": "small"}},
        ),
    )
    if not messages:
        check_models(ledger.resolved(), "study.yaml")
        return
    with pytest.raises(InputError, match="have different chat templates, so that they would read"):
        check_models(ledger.resolved(), "study.yaml")


# -- further metrics -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", SPECS)
def test_the_score_by_every_metric_can_stand_among_an_outcomes_measures(task: str) -> None:
    names = dict.fromkeys(SPECS[task].metrics, 0.5)
    assert TypeAdapter(Measures).validate_python(names) == names


def test_no_key_covers_a_further_metric_and_each_covers_the_pattern_of_answers() -> None:
    agenda = Agenda(resolved_of(parse_study(task_study("lm"), place="study.yaml")))
    training = agenda.requests()[0].training

    def key(**fields: Any) -> str:
        return training.model_copy(update={"data": training.data.model_copy(update=fields)}).key

    assert key(also=("rouge_l",)) == key() == training.key
    assert key(answer="so (.+)") != key()


def test_what_was_trained_before_a_further_metric_was_named_is_not_measured_by_it() -> None:
    seeds = [{"posterior_entropy": 1.0}]
    assert over_seeds(seeds, ["rouge_l"], taught=True, further=["rouge_l"]) == {"rouge_l": None}
    assert over_seeds(seeds, ["rouge_l"], taught=True) == {}


def test_a_further_metric_is_measured_on_test_and_shown_and_decides_nothing(
    tmp_path: Path,
) -> None:
    grammar = {"train": 48, "validation": 12, "test": 12}
    data = {"task": "lm", "grammar": grammar, "also": ["rouge_l", "exact_match"]}
    ledger, agenda = begin(
        tmp_path,
        task_study(
            "lm",
            datasets={"data": data},
            search={"distance": ["ce"], "temperature": [1], "alpha": [1], "learning_rate": [1e-2]},
        ),
    )
    run_study(ledger, agenda, run_training)
    outcomes = [outcome for outcome in agenda.results.values() if outcome and outcome.test]
    student, teacher = sorted(outcomes, key=lambda o: o.training.kind, reverse=True)
    for outcome in (student, teacher):
        assert {"rouge_l", "exact_match"} <= outcome.measures.keys()
        assert 0 < outcome.measures["rouge_l"] < 1
    assert all("rouge_l" not in epoch.measures for epoch in student.epochs)
    text = report_files(ledger, agenda)["report/report.md"]
    assert "ROUGE-L" in text
    assert f"| {student.measures['rouge_l']:.3f} |" in text
    assert student.test is not None
    assert f"perplexity is {1 / student.test:.4g}" in text
    [case] = analyse(agenda).cases
    assert case.digits == 4


def test_a_model_writes_once_for_all_metrics_of_what_it_writes() -> None:
    model, settings = model_of("llama"), settings_of("lm")
    examples = encode([{"prompt": f"the dog {n} =", "completion": " vu"} for n in range(6)])
    passes: list[object] = []
    model.register_forward_pre_hook(lambda *given: passes.append(given))

    def scored(metric: str, *also: str) -> tuple[dict[str, float], int]:
        passes.clear()
        data = data_of("lm", metric=metric)
        found = evaluate(model, TASK, WORDS, examples, data, settings, also=also)
        assert found.score is not None
        return {**found.measures, metric: found.score}, len(passes)

    (matches, alone), (rouge, _) = scored("exact_match"), scored("rouge_l")
    for metric, *also in (("exact_match", "rouge_l"), ("likelihood", "rouge_l", "exact_match")):
        found, passed = scored(metric, *also)
        assert found["rouge_l"] == rouge["rouge_l"]
        assert found["exact_match"] == matches["exact_match"]
        assert passed == alone


# -- in other programs ---------------------------------------------------------------------------


def test_lm_evaluation_harness_gives_the_same_score(tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.tasks import TaskManager

    tokenizer = bytes_tokenizer()
    folder = save_model(tmp_path / "m", "llama", task="lm", tokenizer=tokenizer)
    rows = [
        {"prompt": f"the dog {n} =", "completion": choices[n % 3], "choices": choices}
        for n, choices in enumerate([[" lo vod", " vu", " ken vidar onda"]] * 12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    docs = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    [task] = re.findall(r"^```yaml\n(task: .*?)^```", docs, re.M | re.S)
    (tmp_path / "task.yaml").write_text(task.replace("rows.jsonl", str(tmp_path / "rows.jsonl")))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},dtype=float32",
        tasks=["my_choices"],
        task_manager=manager,
        device="cpu",
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    data, settings = data_of("lm", metric="multiple_choice"), settings_of("lm")
    examples = TASK.encode(rows, tokenizer, data, settings, training=False)
    score = evaluate(model, TASK, tokenizer, examples, data, settings).score
    assert score is not None
    assert found["results"]["my_choices"]["acc_norm,none"] == pytest.approx(score)
    assert 0 < score < 1
