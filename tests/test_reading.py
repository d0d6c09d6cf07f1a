"""How tokenizers read the rows of a study: `readings`, on files that the tests write."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from models import begin, encode, save_model, task_study, tiny
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.distill import check_models
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.reading import readings
from kdsearch.errors import InputError, Problem
from kdsearch.study import Doubt, Reading
from kdsearch.study.preflight import SAMPLE

WORDS = [f"word{number}" for number in range(40)]
Found = tuple[Sequence[Reading], Sequence[Doubt], Sequence[Problem]]


def read(folder: Path, task: str, data: dict[str, Any], **sections: Any) -> Found:
    """The readings of a study on the data set `data`."""
    study = task_study(task, datasets={"data": {"task": task, **data}}, **sections)
    ledger, _ = begin(folder, study)
    return readings(ledger.resolved(), ledger.rows, "study.yaml")


def files(folder: Path, **splits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows as .jsonl files; a split that is not given is that of validation."""
    paths = {}
    for split in ("train", "validation", "test"):
        rows = splits.get(split, splits.get("validation", splits["train"]))
        paths[split] = folder / f"{split}.jsonl"
        paths[split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"files": {split: str(path) for split, path in paths.items()}}


def sentences(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"text": text, "label": number % 2} for number, text in enumerate(texts)]


CLASSES = {"text": "text", "label": "label", "labels": ["no", "yes"]}


def of(found: Found, split: str, model: str = "small") -> Reading:
    (reading,) = [r for r in found[0] if (r.split, r.model) == (split, model)]
    return reading


# -- unknown words -------------------------------------------------------------------------------


def test_the_share_of_unknown_tokens_is_counted_without_special_ones(tmp_path: Path) -> None:
    train = sentences(["a b c d"] * 20)
    validation = sentences(["a b x y", "a b c d"] * 10)
    data = files(tmp_path, train=train, validation=validation)
    found = read(tmp_path / "study", "classification", {**data, **CLASSES})
    assert (of(found, "train").unknown, of(found, "validation").unknown) == (0.0, 0.25)
    (doubt,) = found[1]
    assert str(doubt).startswith("study.yaml: models.big, models.small: 25% of the tokens of the v")
    assert not found[2]


def test_a_vocabulary_that_knows_nothing_of_the_validation_split_is_refused(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path / "model", texts=["quite other words"], labels=["no", "yes"])
    data = files(tmp_path, train=sentences(WORDS))
    models = {"big": {"config": tiny()}, "small": str(folder)}
    found = read(tmp_path / "study", "classification", {**data, **CLASSES}, models=models)
    (problem,) = found[2]
    assert problem.place == "study.yaml: models.small"
    assert "100% of the tokens of the validation split of data are unknown" in problem.what


def test_a_text_without_any_token_is_unknown_to_the_last_word(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", texts=["a b"], labels=["no", "yes"])
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"] = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    content["added_tokens"] = []
    content["post_processor"] = None
    file.write_text(json.dumps(content))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "a"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(folder)("xy z")["input_ids"] == []
    data = files(tmp_path, train=sentences(["xy z", "a b"] * 10))
    models = {"big": {"config": tiny()}, "small": str(folder)}
    found = read(tmp_path / "study", "classification", {**data, **CLASSES}, models=models)
    assert of(found, "train").unknown == 0.5


def test_at_most_so_many_rows_are_read_the_same_ones_each_time(tmp_path: Path) -> None:
    draw = random.Random(0)
    train = sentences([" ".join(draw.sample(WORDS, 3)) for _ in range(SAMPLE + 500)])
    data = {**files(tmp_path, train=train, validation=train[:50]), **CLASSES}
    training = {"max_length": 8, "epochs": 1}
    first = read(tmp_path / "a", "classification", data, training=training)
    again = read(tmp_path / "b", "classification", data, training=training)
    assert (of(first, "train").rows, of(first, "validation").rows) == (SAMPLE, 50)
    assert first == again


# -- what is cut ---------------------------------------------------------------------------------


def test_entities_beyond_the_longest_input_are_counted(tmp_path: Path) -> None:
    tags = ["O"] * 40 + ["B-LOC", "I-LOC", "O", "B-PER", "O"]
    row = {"tokens": [*WORDS, "New", "York", "saw", "Ada", "."], "tags": tags}
    short = {"tokens": ["Ada"], "tags": ["B-PER"]}
    data = {**files(tmp_path, train=[row] * 48, validation=[short] * 6)}
    columns = {"text": "tokens", "label": "tags", "metric": "f1"}
    found = read(tmp_path / "study", "ner", {**data, **columns}, training={"max_length": 32})
    assert (of(found, "train").cut, of(found, "train").beyond) == (1.0, 1.0)
    assert (of(found, "validation").cut, of(found, "validation").beyond) == (0.0, 0.0)
    (doubt,) = found[1]
    assert doubt.place == "study.yaml: datasets.data"
    what = "48 of 48 training rows are longer than 32 tokens; 96 of 96 entities are beyond the cut"
    assert doubt.what.startswith(what)
    assert "training.max_length" in doubt.remedy


def test_an_entity_that_is_cut_in_two_lies_beyond(tmp_path: Path) -> None:
    # [CLS], 30 words and [SEP] are read: of the entities one whole, and the first word of another
    tags = ["B-PER", *["O"] * 28, "B-LOC", "I-LOC", *["O"] * 9]
    data = files(tmp_path, train=[{"tokens": WORDS, "tags": tags}] * 10)
    columns = {"text": "tokens", "label": "tags"}
    found = read(tmp_path / "study", "ner", {**data, **columns}, training={"max_length": 32})
    assert of(found, "train").beyond == 0.5


def question(answer: str, words: Sequence[str] = WORDS) -> dict[str, Any]:
    context = " ".join(words)
    start = context.index(answer)
    return {
        "question": "which word",
        "context": context,
        "answers": {"text": [answer], "answer_start": [start]},
    }


def test_answers_that_no_window_holds_are_counted(tmp_path: Path) -> None:
    long = question(" ".join(WORDS[5:38]))  # more than the windows of 32 have room for
    rows = [question("word3"), long, question("word39"), question("word7", WORDS[:10])]
    data = files(tmp_path, train=rows * 5)
    training = {"max_length": 32, "stride": 8}
    found = read(tmp_path / "study", "qa", data, training=training)
    assert of(found, "train").beyond == 0.25
    assert "5 of 20 answers are in no window as a whole" in found[1][0].what


def test_answers_of_any_length_and_place_are_counted_as_their_windows_have_it(
    tmp_path: Path,
) -> None:
    letters = [chr(ord("a") + number % 26) + str(number // 26) for number in range(60)]
    raw = [
        question(" ".join(letters[start : start + length]), letters)
        for length in (1, 3, 7, 8, 9, 12, 20, 26)
        for start in range(0, 60 - length, 5)
    ]
    data = files(tmp_path, train=raw)
    training = {"max_length": 32, "stride": 8}
    study = task_study("qa", datasets={"data": {"task": "qa", **data}}, training=training)
    ledger, _ = begin(tmp_path / "study", study)
    found = readings(ledger.resolved(), ledger.rows, "study.yaml")
    rows = ledger.rows(ledger.resolved().datasets["data"].splits["train"].digest)
    tokenizer = word_tokenizer(text for row in rows for text in (row["question"], row["context"]))
    lost = sum(
        not bool(encode("qa", [row], tokenizer, max_length=32, stride=8).labels.any())
        for row in rows
    )
    assert 0 < lost < len(rows)
    assert of(found, "train").beyond == pytest.approx(lost / len(rows))


def test_questions_longer_than_a_quarter_are_counted_as_cut(tmp_path: Path) -> None:
    longer = {**question("word3"), "question": " ".join(WORDS[:9])}
    data = files(tmp_path, train=[question("word3"), longer] * 10)
    training = {"max_length": 32, "stride": 8}
    found = read(tmp_path / "study", "qa", data, training=training)
    assert of(found, "train").cut == 0.5
    assert "10 of 20 training questions are longer than 8 tokens" in found[1][0].what


def test_training_pairs_that_are_left_out_are_counted(tmp_path: Path) -> None:
    pairs = [{"de": "a b", "en": " ".join(WORDS[:15])}, {"de": "a b", "en": "c d"}]
    data = {**files(tmp_path, train=pairs * 10), "text": "de", "label": "en"}
    found = read(tmp_path / "study", "translation", data, training={"max_length": 16})
    assert of(found, "train").cut == 0.5
    what = "10 of 20 training pairs have a side of more than 16 tokens and are left out"
    assert found[1][0].what.startswith(what)


def test_a_longest_input_that_leaves_no_training_pair_is_refused(tmp_path: Path) -> None:
    pairs = [{"de": "a b", "en": " ".join(WORDS[:15])}]
    data = {**files(tmp_path, train=pairs * 20), "text": "de", "label": "en"}
    _, doubts, (problem,) = read(
        tmp_path / "study", "translation", data, training={"max_length": 16}
    )
    assert "20 of 20 training pairs have a side of more than 16 tokens" in problem.what
    assert not doubts


@pytest.mark.parametrize(("metric", "cut"), [("likelihood", 0.0), ("exact_match", 1.0)])
def test_prompts_that_leave_no_room_to_write_count_as_cut(
    metric: str, cut: float, tmp_path: Path
) -> None:
    rows = [{"ask": " ".join(WORDS[:12]), "say": f"{word}"} for word in WORDS[:20]]
    data = {"text": "ask", "label": "say", "metric": metric, **files(tmp_path, train=rows)}
    found = read(tmp_path / "study", "lm", data, training={"max_length": 20})
    assert of(found, "train").cut == 0.0  # 13 tokens and 2: nothing generated there
    assert of(found, "validation").cut == cut


def test_messages_that_no_template_writes_are_a_problem_of_the_model(tmp_path: Path) -> None:
    rows = [{"ask": [{"role": "user", "content": "the cat"}], "say": f"sat {n}"} for n in range(9)]
    data = {"text": "ask", "label": "say", **files(tmp_path, train=rows)}
    _, _, [problem] = read(tmp_path / "study", "lm", data)
    assert problem.place == "study.yaml: models.big, models.small"
    assert problem.what.startswith("its tokenizer has no chat template")


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "translation", "lm"])
def test_what_fits_and_is_known_raises_no_doubt(task: str, tmp_path: Path) -> None:
    grammar = {"grammar": {"train": 96, "validation": 24, "test": 20}}
    found, doubts, problems = read(tmp_path, task, grammar)
    assert {(r.model, r.split) for r in found} == {
        (model, split) for model in ("big", "small") for split in ("train", "validation", "test")
    }
    assert not any(r.cut or r.beyond or r.unknown > 0.1 for r in found)
    assert all(
        (r.beyond is None) == (task in ("classification", "translation", "lm")) for r in found
    )
    assert (list(doubts), list(problems)) == ([], [])


# -- tokens without embedding --------------------------------------------------------------------


def with_added_token(folder: Path) -> tuple[Path, int]:
    """A model whose tokenizer has a token more than it has embeddings, and how many these are."""
    save_model(folder, texts=WORDS, labels=["no", "yes"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["<num>"])
    tokenizer.save_pretrained(folder)
    return folder, size


def test_tokens_of_the_data_without_embedding_are_named_with_their_rows(tmp_path: Path) -> None:
    model, size = with_added_token(tmp_path / "model")
    # in rows that no sample need hold
    train = sentences([*WORDS * 60, "word1 <num>", "<num> <num>"])
    data = {**files(tmp_path, train=train, validation=sentences(WORDS)), **CLASSES}
    models = {"big": {"config": tiny()}, "small": str(model)}
    _, _, problems = read(tmp_path / "study", "classification", data, models=models)
    (problem,) = problems
    what = f"its tokenizer has {size + 1} tokens, its embeddings {size}: 2 rows of data use <num>"
    assert (problem.place, problem.what) == ("study.yaml: models.small", what)


def test_a_longer_tokenizer_is_accepted_where_the_data_do_not_use_it(tmp_path: Path) -> None:
    model, _ = with_added_token(tmp_path / "model")
    cut_off = " ".join([*WORDS, "<num>"])  # which is behind the longest input
    data = {**files(tmp_path, train=sentences([*WORDS, cut_off])), **CLASSES}
    models = {"big": {"config": tiny()}, "small": str(model)}
    found = read(
        tmp_path / "study", "classification", data, models=models, training={"max_length": 32}
    )
    assert not found[2]


# -- no tokenizer --------------------------------------------------------------------------------

_SMALL = {"vocab_size": 50, "pad_token_id": 0}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "xlm-roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "deberta-v2": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2},
    "electra": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "modernbert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "mpnet": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1},
    "qwen2": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "llama": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
}


@pytest.mark.parametrize("kind", [*KINDS, "t5", "bart", "mbart", "marian", "m2m_100"])
def test_a_folder_without_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    task = "classification"
    if kind in KINDS:
        config = AutoConfig.for_model(kind, **{**_SMALL, **KINDS[kind]})
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    else:
        task = "translation"
        save_model(folder, kind, task=task)
        for file in folder.glob("tokenizer*"):
            file.unlink()
    models = {"big": str(folder), "small": str(folder)}
    study = task_study(task, models=models, training={"max_length": 32})
    ledger, _ = begin(tmp_path / "study", study)
    with pytest.raises(InputError) as error:
        check_models(ledger.resolved(), "study.yaml")
    what = "its folder has no tokenizer (copy tokenizer.json from the model it was trained from)"
    assert f"study.yaml: models.big: {what}" in str(error.value)


def test_a_model_at_random_is_told_whose_folder_has_no_tokenizer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    models = {"big": str(folder), "small": {"config": tiny(), "tokenizer": "big"}}
    ledger, _ = begin(tmp_path / "study", task_study("classification", models=models))
    with pytest.raises(InputError, match=r"models\.small: big's folder has no tokenizer"):
        check_models(ledger.resolved(), "study.yaml")


def test_a_tokenizer_that_is_newer_or_cut_off_is_said(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    models = {"big": str(folder), "small": {"config": tiny()}}
    for text, what in (
        (
            json.dumps({**content, "model": {"type": "Next", "vocab": {}}}),
            "by a newer version of tokenizers",
        ),
        (file.read_text()[:-100], r"its tokenizer\.json is cut off or damaged \(fetch it again"),
    ):
        file.write_text(text)
        ledger, _ = begin(tmp_path / what[:5], task_study("classification", models=models))
        with pytest.raises(InputError, match=what):
            check_models(ledger.resolved(), "study.yaml")


def test_a_tokenizer_without_padding_is_told_how_to_get_one(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    del content["pad_token"]
    file.write_text(json.dumps(content))
    models = {"big": str(folder), "small": {"config": tiny()}}
    ledger, _ = begin(tmp_path / "study", task_study("classification", models=models))
    with pytest.raises(InputError, match="has no padding token") as error:
        check_models(ledger.resolved(), "study.yaml")
    assert 'add "pad_token": "[SEP]" to its tokenizer_config.json' in str(error.value)
    file.write_text(json.dumps({**content, "pad_token": "[SEP]"}))
    ledger, _ = begin(tmp_path / "again", task_study("classification", models=models))
    check_models(ledger.resolved(), "study.yaml")
