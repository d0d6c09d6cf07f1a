from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from fakes import FakeHub, a_study, listening

from kdsearch.errors import InputError
from kdsearch.study import hub, parse_study
from kdsearch.study.catalogue import CATALOGUE, UNPINNED, Entry, Part, corrected, from_mrqa
from kdsearch.study.known import columns_of
from kdsearch.study.parsers import parse_rows
from kdsearch.study.rows import DataRows, read_dataset
from kdsearch.study.schema import SPLITS, Dataset
from kdsearch.study.tasks import SPECS, Columns

PUBLISHED = {
    "mrpc": (3_668, 408, 1_725),
    "mnli": (382_887, 9_815, 9_815),
    "paws_x": (345_807, 14_000, 14_000),
    "xnli": (392_702, 37_350, 75_150),
    "squad": (76_081, 10_507, 10_507),
    "natural_questions": (91_235, 12_836, 12_836),
    "mlqa": (76_081, 7_715, 75_712),
    "tydiqa": (44_896, 4_985, 5_077),
    "conll": (39_115, 8_275, 10_395),
    "ontonotes": (82_728, 10_510, 10_396),
    "klue3": (12_467, 8_785, 10_816),
    "wmt16_de_en": (4_490_021, 2_168, 2_998),
    "wmt16_ro_en": (596_163, 1_998, 1_996),
}
OTHERS = {"qnli": (99_743, 5_000, 5_463), "sst2": (65_549, 872, 1_800)}
QUESTIONS = {
    "gsm8k": (6_973, 500, 1_319),
    "arc_challenge": (1_119, 299, 1_172),
    "arc_easy": (2_251, 570, 2_376),
    "openbookqa": (4_957, 500, 500),
    "aqua_rat": (97_467, 254, 254),
    "logiqa": (7_376, 651, 651),
    "boolq": (8_427, 1_000, 3_270),
}
"""Of language models."""
IMAGES = {
    "cifar10": (45_000, 5_000, 10_000),
    "cifar100": (45_000, 5_000, 10_000),
    "pets": (3_312, 368, 3_669),
    "cars": (7_330, 814, 8_041),
    "tiny_imagenet": (90_000, 10_000, 10_000),
}
CLASSES = {"cifar10": 10, "cifar100": 100, "pets": 37, "cars": 196, "tiny_imagenet": 200}
WHOLE_TRAIN = {
    "gsm8k": 7_473,
    "boolq": 9_427,
    "mnli": 392_702,
    "qnli": 104_743,
    "sst2": 67_349,
    "squad": 86_588,
    "natural_questions": 104_071,
    "tydiqa": 49_881,
}
"""Rows of the training split on the Hub, where one is cut."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "classification": {
        "sentence": "a",
        "sentence1": "a",
        "sentence2": "b",
        "question": "c",
        "premise": "d",
        "hypothesis": "e",
        "label": 0,
    },
    "ner": {"tokens": ["Anna", "sings"], "ner_tags": [1, 0], "tags": [1, 0]},
    "qa": {
        "question": "Who?",
        "context": "Ann sings.",
        "answers": {"text": ["Ann"], "answer_start": [0]},
    },
    "translation": {"translation": {"de": "a", "ro": "b", "en": "c"}},
    "image_classification": {
        **dict.fromkeys(("img", "image"), b"P6 1 1 255\n\0\0\0"),
        **dict.fromkeys(("label", "fine_label"), 0),
    },
}
LETTERED = {"text": ["so", "not"], "label": ["A", "B"]}
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gsm8k": (
        {"question": "2 + 3?", "answer": "<<2+3=5>>5\n#### 5"},
        {"prompt": "Question: 2 + 3?\nAnswer:", "completion": " <<2+3=5>>5\n#### 5"},
    ),
    "arc_challenge": (
        {"question": "Why?", "choices": LETTERED, "answerKey": "A"},
        {"prompt": "Question: Why?\nAnswer:", "completion": " so"},
    ),
    "arc_easy": (
        {"question": "Why?", "choices": LETTERED, "answerKey": "B"},
        {"prompt": "Question: Why?\nAnswer:", "completion": " not"},
    ),
    "openbookqa": (
        {"question_stem": "The sun is", "choices": LETTERED, "answerKey": "B"},
        {"prompt": "Question: The sun is\nAnswer:", "completion": " not"},
    ),
    "aqua_rat": (
        {"question": "How many?", "options": ["A)1", "B)2"], "rationale": "…", "correct": "B"},
        {"prompt": "Question: How many?\nAnswer:", "completion": " 2"},
    ),
    "logiqa": (
        {"context": "All sing.", "query": "So?", "options": ["a", "b"], "correct_option": 0},
        {"prompt": "All sing.\nQuestion: So?\nAnswer:", "completion": " a"},
    ),
    "boolq": (
        {"passage": "It is.", "question": "is it so", "answer": True},
        {"prompt": "It is.\nQuestion: is it so?\nAnswer:", "completion": " yes"},
    ),
}
"""Of each data set of questions a row as its repository has it, and what is asked and learnt."""

entries = pytest.mark.parametrize("name", CATALOGUE)


def all_parts() -> Iterable[Part]:
    return (
        part for entry in CATALOGUE.values() for parts in entry.parts.values() for part in parts
    )


# -- the entries -------------------------------------------------------------------------------


def test_there_are_the_thirteen_data_sets_and_others_with_their_published_counts() -> None:
    counts = {name: tuple(entry.rows[s] for s in SPLITS) for name, entry in CATALOGUE.items()}
    assert counts == PUBLISHED | OTHERS | QUESTIONS | IMAGES


@entries
def test_an_entry_fits_its_task(name: str) -> None:
    entry = CATALOGUE[name]
    assert entry.prompt is not None or len(entry.text) in SPECS[entry.task].columns
    asked = {"gsm8k": "exact_match"}.get(name, "multiple_choice")
    assert entry.metric == (asked if entry.task == "lm" else SPECS[entry.task].metrics[0])
    assert len(set(entry.labels)) == len(entry.labels)
    classes = entry.task == "image_classification" and len(entry.labels)
    assert classes in (0, False, CLASSES.get(name))
    if not classes:
        assert bool(entry.labels) == (entry.task in ("classification", "ner") and name != "klue3")
    assert (entry.languages is not None) == (entry.task == "translation")
    assert (entry.output_rows == 1) == SPECS[entry.task].one_label
    assert set(entry.rows) == set(SPLITS)
    assert entry.note


@entries
def test_the_columns_are_those_of_a_row_of_the_task(name: str) -> None:
    entry = CATALOGUE[name]
    if entry.task == "lm":
        raw, row = ASKED[name]
        columns = columns_of(name, Dataset())
        [read] = parse_rows("here", [raw], columns, labelled=True)
        assert {side: read[side] for side in ("prompt", "completion")} == row
        return
    columns = Columns(
        task=entry.task,
        text=entry.text,
        label=entry.label,
        labels=entry.labels or ("O", "B-PERSON"),
        metric=entry.metric,
        languages=entry.languages,
    )
    assert len(parse_rows("here", [EXAMPLES[entry.task]], columns, labelled=True)) == 1


@entries
def test_every_split_has_parts_or_is_cut_off_train(name: str) -> None:
    entry = CATALOGUE[name]
    if not entry.parts:
        assert name == "klue3"
        return
    assert "train" in entry.parts
    if entry.fair:
        assert not entry.cut
        assert {*SPLITS} - {*entry.parts} == {"validation"}
        whole = entry.rows["train"] + entry.rows["validation"]
        assert entry.rows["validation"] == round(whole / 10 - 0.01)
        return
    assert set(entry.parts) | set(entry.cut) == set(SPLITS)
    assert not set(entry.parts) & set(entry.cut)
    assert all(entry.parts.values())
    for split, size in entry.cut.items():
        assert size == entry.rows[split]
        assert entry.rows["train"] == WHOLE_TRAIN[name] - size


def test_a_limit_does_not_exceed_the_rows() -> None:
    limits = {name: dict(entry.limit) for name, entry in CATALOGUE.items() if entry.limit}
    assert limits == {
        "mlqa": {"train": 76_081},
        "wmt16_de_en": {"train": 500_000},
        "wmt16_ro_en": {"train": 100_000},
    }


def test_no_split_is_read_from_a_part_of_another_split() -> None:
    for name, entry in CATALOGUE.items():
        read = [
            (part.hub, part.config, part.split, part.data_files, part.keep)
            for parts in entry.parts.values()
            for part in parts
        ]
        assert len(set(read)) == len(read), name


@pytest.mark.parametrize("name", ["conll", "ontonotes"])
def test_the_tags_are_iob2(name: str) -> None:
    labels = CATALOGUE[name].labels
    assert labels[0] == "O"
    assert all(re.fullmatch(r"O|[BI]-[A-Z_]+", label) for label in labels)
    begun = {label[2:] for label in labels if label.startswith("B-")}
    assert {label[2:] for label in labels if label.startswith("I-")} <= begun


def test_the_tag_counts_are_the_published_ones() -> None:
    assert len(CATALOGUE["conll"].labels) == 9
    assert len(CATALOGUE["ontonotes"].labels) == 37
    assert CATALOGUE["klue3"].label_count == 103


def test_the_numbers_of_the_tags_are_those_of_the_sources() -> None:
    """As the repositories' own cards list them."""
    conll, ontonotes = CATALOGUE["conll"].labels, CATALOGUE["ontonotes"].labels
    assert [conll[number] for number in (5, 6, 0, 3)] == ["B-LOC", "I-LOC", "O", "B-ORG"]
    numbers = (4, 5, 11, 12, 7, 16, 17, 26, 36)
    assert [ontonotes[number] for number in numbers] == [
        *("B-PERSON", "I-PERSON", "B-ORG", "I-ORG", "B-GPE", "B-MONEY", "I-MONEY", "I-NORP"),
        "I-LANGUAGE",
    ]


def test_every_revision_is_a_commit_unless_it_is_listed_as_none() -> None:
    branches = {
        part.hub for part in all_parts() if not re.fullmatch(r"[0-9a-f]{40}", part.revision)
    }
    assert branches == UNPINNED
    assert all(part.revision for part in all_parts())


def test_the_numbers_of_the_classes_of_images_are_those_of_the_sources() -> None:
    """As the repositories' own cards list them; of CIFAR-100 the card misspells crab."""
    numbers = {"cifar10": (3, "cat"), "cifar100": (26, "crab"), "pets": (20, "maine_coon")}
    for name, (number, label) in numbers.items():
        assert CATALOGUE[name].labels[number] == label
    counted = {name: entry.label_count for name, entry in CATALOGUE.items() if name in CLASSES}
    assert {n: c for n, c in counted.items() if c} == {"cars": 196, "tiny_imagenet": 200}


def test_the_languages_of_the_multilingual_sets() -> None:
    """The published counts of a split are those of one language times the languages."""
    parts = {name: {s: len(p) for s, p in CATALOGUE[name].parts.items()} for name in CATALOGUE}
    assert parts["paws_x"] == {"train": 7, "validation": 7, "test": 7}
    assert parts["xnli"] == {"train": 1, "validation": 15, "test": 15}
    assert (PUBLISHED["paws_x"][0], PUBLISHED["xnli"][2]) == (49_401 * 7, 5_010 * 15)
    assert parts["conll"] == {"train": 3, "validation": 3, "test": 3}
    assert parts["mlqa"] == {"train": 1, "validation": 7, "test": 7}


def test_what_a_study_says_of_a_question_takes_the_place_of_what_the_catalogue_says() -> None:
    own = columns_of("boolq", Dataset(prompt="{question}?", metric="likelihood"))
    assert (own.prompt, own.text, own.choices) == ("{question}?", ("question",), ("no", "yes"))
    assert own.metric == "likelihood"
    assert columns_of("gsm8k", Dataset(text=("question",))).prompt is None
    study = {"datasets": {"boolq": {"also": "likelihood"}, "gsm8k": {"answer": r"#### (\d+)"}}}
    assert parse_study(a_study(**study), place="study.yaml").datasets["boolq"].choices is None


# -- bringing rows to SQuAD's form -------------------------------------------------------------


def mrqa_row(context: str, *answers: tuple[str, list[tuple[int, int]]]) -> dict[str, Any]:
    """A row as `datasets` gives MRQA's: lists within dictionaries, a span's end within it."""
    spans = [{"start": [s for s, _ in at], "end": [e for _, e in at]} for _, at in answers]
    return {
        "subset": "SQuAD",
        "context": context,
        "context_tokens": {"tokens": context.split(), "offsets": [0]},
        "qid": "1",
        "question": "Who?",
        "question_tokens": {"tokens": ["Who", "?"], "offsets": [0, 3]},
        "detected_answers": {
            "text": [text for text, _ in answers],
            "char_spans": spans,
            "token_spans": spans,
        },
        "answers": [text for text, _ in answers],
    }


def pairs(row: dict[str, Any]) -> list[tuple[str, int]]:
    answers = row["answers"]
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        assert row["context"][start : start + len(text)] == text
    return list(zip(answers["text"], answers["answer_start"], strict=True))


def test_mrqa_gives_every_place_of_every_answer() -> None:
    context = "Ann met Bob, and Ann won."
    row = mrqa_row(context, ("Ann", [(0, 2), (17, 19)]), ("Bob", [(8, 10)]))
    found = from_mrqa(row)
    assert set(found) == {"question", "context", "answers"}
    assert pairs(found) == [("Ann", 0), ("Ann", 17), ("Bob", 8)]


def test_mrqa_answers_are_spelt_as_the_context_has_them() -> None:
    row = mrqa_row("Red won; the covered prize is Red's.", ("red", [(0, 2)]))
    assert pairs(from_mrqa(row)) == [("Red", 0)]  # not the red of covered
    row = mrqa_row("It took 3 days.", ("three days", [(8, 13)]))
    assert pairs(from_mrqa(row)) == [("3 days", 8)]


def test_offsets_of_a_context_that_lost_its_first_spaces_are_mended() -> None:
    row = mrqa_row("Ann met Bob, and Ann won.", ("Ann", [(19, 21)]))
    assert pairs(from_mrqa(row)) == [("Ann", 17)]
    context = "Ann met Bob, and Ann won."
    answers = {"text": ["Ann", "won", "Bob"], "answer_start": [19, 21, 8]}
    found = corrected({"id": "x", "context": context, "answers": answers})
    assert pairs(found) == [("Ann", 17), ("won", 21), ("Bob", 8)]
    assert found["id"] == "x"
    assert answers["answer_start"] == [19, 21, 8]


def test_an_answer_that_is_nowhere_is_left_to_the_parser_to_refuse() -> None:
    row = {"context": "Ann won.", "answers": {"text": ["Eve"], "answer_start": [3]}}
    assert corrected(row) == row


# -- loading from the Hub ----------------------------------------------------------------------


def rows_of(
    monkeypatch: pytest.MonkeyPatch, entry: Entry, split: str, rows: dict[str, list[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], FakeHub]:
    fake = FakeHub(rows)
    monkeypatch.setattr(datasets, "load_dataset", fake)
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.reachable.cache_clear()
        try:
            return list(hub.hub_rows(entry, split)), fake
        finally:
            hub.reachable.cache_clear()


def test_a_configuration_is_loaded_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Who?", "sentence": "It is he.", "label": 1, "idx": 0}
    entry = CATALOGUE["qnli"]
    found, fake = rows_of(monkeypatch, entry, "test", {"nyu-mll/glue": [row]})
    assert found == [row]
    [(args, options)] = fake.calls
    assert args == ("nyu-mll/glue", "qnli")
    assert options == {"revision": entry.parts["test"][0].revision, "split": "validation"}


def test_parts_are_joined_in_their_order_and_read_by_their_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = "hf://datasets/eriktks/conll{}@refs/convert/parquet/{}/test/*.parquet"
    places = [
        export.format(2003, "conll2003"),
        export.format(2002, "es"),
        export.format(2002, "nl"),
    ]
    rows = [{"id": "0", "tokens": [place[-20:]], "ner_tags": [0]} for place in places]
    files = {place: [row] for place, row in zip(places, rows, strict=True)}
    found, fake = rows_of(monkeypatch, CATALOGUE["conll"], "test", files)
    assert found == rows
    for (args, options), place in zip(fake.calls, places, strict=True):
        assert args == ("parquet",)
        assert options == {"data_files": {"test": place}, "split": "test"}


def test_rows_are_kept_by_a_column_and_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    row = mrqa_row("Ann met Bob.", ("Bob", [(8, 10)]))
    others = [{**row, "subset": subset} for subset in ("NewsQA", "NaturalQuestionsShort")]
    rows = {"mrqa-workshop/mrqa": [others[0], row, others[1], row]}
    found, _ = rows_of(monkeypatch, CATALOGUE["squad"], "train", rows)
    assert [pairs(row) for row in found] == [[("Bob", 8)]] * 2


def read_from(hub_rows: FakeHub, monkeypatch: pytest.MonkeyPatch, name: str) -> DataRows:
    monkeypatch.setattr(datasets, "load_dataset", hub_rows)
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.reachable.cache_clear()
        try:
            return read_dataset(name, Dataset(), data_dir=None, seed=0)
        finally:
            hub.reachable.cache_clear()


def test_pairs_that_lack_a_side_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [(f"Es regnet {i}.", f"It rains {i}.") for i in range(298)]
    pairs = [("Ja.", " "), *good, ("", "Yes.")]
    rows = [{"translation": {"de": german, "en": english}} for german, english in pairs]
    found = read_from(FakeHub({"wmt/wmt16": rows}), monkeypatch, "wmt16_de_en")
    assert found.splits["test"] == [{"source": g, "target": e} for g, e in good]
    assert found.left_out == dict.fromkeys(SPLITS, 2)


def test_a_pair_of_sentences_may_lack_one_but_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("a", ""), ("", " "), *[("b", "c")] * 200]
    rows = [
        {"premise": premise, "hypothesis": hypothesis, "label": i % 3, "idx": 0}
        for i, (premise, hypothesis) in enumerate(pairs)
    ]
    cut = CATALOGUE["mnli"].cut
    monkeypatch.setitem(
        CATALOGUE, "mnli", replace(CATALOGUE["mnli"], cut=dict.fromkeys(cut, 20), limit={})
    )
    found = read_from(FakeHub({"nyu-mll/glue": rows}), monkeypatch, "mnli")
    assert ["a", ""] in [row["texts"] for rows in found.splits.values() for row in rows]
    assert set(found.left_out.values()) == {1}


def test_rows_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Who?", "sentence": "It is he.", "label": 1, "idx": 0}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: itertools.repeat(row))
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.reachable.cache_clear()
        endless = hub.hub_rows(CATALOGUE["qnli"], "test")
        assert [next(endless), next(endless)] == [row, row]
    hub.reachable.cache_clear()


def test_a_part_is_read_from_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "validation"):
        rows = [{"number": i, "kind": "ab"[i % 2], "of": split} for i in range(5)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text(lines)
    part = Part(
        hub=str(tmp_path / "data"),
        split="validation",
        revision="0" * 40,
        keep=("kind", "b"),
        convert=lambda row: {"number": row["number"], "of": row["of"]},
    )
    entry = replace(CATALOGUE["sst2"], parts={"test": (part, part)})
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.reachable.cache_clear()
        found = list(hub.hub_rows(entry, "test"))
    hub.reachable.cache_clear()
    once = [{"number": 1, "of": "validation"}, {"number": 3, "of": "validation"}]
    assert found == once * 2


def test_what_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        rows_of(monkeypatch, CATALOGUE["tydiqa"], "test", {})
    assert str(caught.value) == (
        "google-research-datasets/tydiqa (secondary_task): validation: "
        "cannot be loaded: no google-research-datasets/tydiqa"
    )
