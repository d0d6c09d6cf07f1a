from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from kdsearch.agenda import Agenda
from kdsearch.distill import run_training
from kdsearch.driver import open_study
from kdsearch.ledger import Ledger
from kdsearch.study import parse_study
from kdsearch.study.grammar import (
    FEMININE,
    FORENAMES,
    LEXICON,
    MASCULINE,
    SURNAMES,
    TAGS,
    generate,
)


def bert(layers: int, width: int) -> dict[str, object]:
    return {
        "config": {
            "model_type": "bert",
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": width // 16,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 32,
            "initializer_range": 0.1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    }


@pytest.mark.slow
def test_a_bigger_model_labels_the_grammar_better_than_a_smaller_one(tmp_path: Path) -> None:
    scores = {}
    for name, model in {"small": bert(1, 16), "big": bert(2, 64)}.items():
        study = parse_study(
            {
                "name": name,
                "datasets": {
                    "grammar": {"grammar": {"train": 2000, "validation": 500, "test": 10}}
                },
                "models": {name: model},
                "teachers": {name: {"model": name, "fine_tune": {"learning_rate": [1e-3]}}},
                "students": {name: {"model": name}},
                "training": {"epochs": 10, "max_length": 32, "precision": "fp32"},
            },
            place="a study",
        )
        ledger = Ledger(tmp_path / name)
        ledger.prepare()
        agenda: Agenda = open_study(ledger, study, data_dir=None, place="a study")
        [request] = agenda.requests()
        scores[name] = run_training(request.training, ledger.folder).validation or 0.0
    assert scores["big"] > scores["small"] + 0.1


# -- all tasks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "translation", "lm"])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(task: str) -> None:
    first, again, other = (
        generate(100, seed, noise=0.2, task=task) for seed in ("0/train", "0/train", "0/test")
    )
    assert first == again
    assert first != other
    assert len({json.dumps(row) for row in first + other}) > 150


def test_the_sentences_of_a_seed_stay_those_that_earlier_studies_were_trained_on() -> None:
    rows = json.dumps(generate(500, "0/train", noise=0.3)).encode()
    assert hashlib.sha256(rows).hexdigest()[:16] == "6f794a7872b32291"


@pytest.mark.parametrize("task", ["ner", "qa", "translation", "lm"])
def test_noise_leaves_what_is_read_as_it_is(task: str) -> None:
    labels = {"ner": "ner_tags", "qa": "answers", "translation": "target", "lm": "completion"}
    clean, noisy = (generate(200, "read", noise=noise, task=task) for noise in (0.0, 1.0))
    for rows in (clean, noisy):
        for row in rows:
            row.pop(labels[task])
    assert clean == noisy


# -- ner ---------------------------------------------------------------------------------------

# Verbs by what stands before them and what behind.
BEFORE = {
    "PER": {"laughed", "slept", "met", "thanked", "visited", "left"},
    "LOC": {"flooded", "grew", "attracted", "sheltered", "bordered", "outgrew"},
}
BEHIND = {
    "PER": {"met", "thanked", "attracted", "sheltered", "with", "like"},
    "LOC": {"visited", "left", "bordered", "outgrew", "in", "near"},
}


def names(tags: list[str]) -> list[tuple[int, int, str]]:
    """Where each name begins and ends, and its kind."""
    found: list[tuple[int, int, str]] = []
    for at, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((at, at + 1, tag[2:]))
        elif tag != "O":
            start, end, kind = found[-1]
            assert (end, kind) == (at, tag[2:]), tags
            found[-1] = (start, at + 1, kind)
    return found


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_tags_are_as_many_as_tokens_and_valid_iob2(noise: float) -> None:
    rows = generate(1000, "tags", noise=noise, task="ner")
    assert {tag for row in rows for tag in row["ner_tags"]} == set(TAGS)
    for row in rows:
        assert len(row["tokens"]) == len(row["ner_tags"]) <= 30
        assert names(row["ner_tags"])[-1:] or "the" in row["tokens"]


def kind_of(tokens: list[str], start: int, end: int) -> str:
    """What the nearest verb or preposition says of a name: the one before it, if there is any."""
    said = {word for words in (*BEFORE.values(), *BEHIND.values()) for word in words}
    for word in reversed(tokens[:start]):
        if word == "while":
            break
        if word in said:
            return next(kind for kind in BEHIND if word in BEHIND[kind])
    verb = next(word for word in tokens[end:] if word in said)
    return next(kind for kind in BEFORE if verb in BEFORE[kind])


def test_a_name_is_what_its_verb_or_preposition_says() -> None:
    for row in generate(1000, "verbs", task="ner"):
        for start, end, kind in names(row["ner_tags"]):
            assert kind == kind_of(row["tokens"], start, end), row


def test_every_name_occurs_as_a_person_as_a_place_and_inside_a_name() -> None:
    seen = {
        pair
        for row in generate(2000, "ambiguous", task="ner")
        for pair in zip(row["tokens"], row["ner_tags"], strict=True)
    }
    for name in (*FORENAMES, *SURNAMES):
        assert {(name, "B-PER"), (name, "B-LOC")} <= seen
    for name in SURNAMES:
        assert {(name, "I-PER"), (name, "I-LOC"), (name, "O")} <= seen


def test_noise_draws_the_kind_of_its_share_of_the_names() -> None:
    rows = generate(4000, "noisy", noise=0.3, task="ner")
    wrong = [
        kind != kind_of(row["tokens"], start, end)
        for row in rows
        for start, end, kind in names(row["ner_tags"])
    ]
    assert abs(sum(wrong) / len(wrong) - 0.3 / 2) < 0.03  # half of those come out right


# -- qa ----------------------------------------------------------------------------------------

FACT = re.compile(
    r"(?P<person>\w+) (?P<verb>is|has|eats) (?:not .*? but )?(?:in )?the (?P<thing>[^.]+) \."
)


def answer(question: str, context: str) -> list[str]:
    """What a reader of the context answers."""
    facts = [match.groupdict() for match in FACT.finditer(context)]
    if match := re.fullmatch(r"(?:where|what) (\w+) (\w+) \?", question):
        verb, person = match.groups()
        return [f["thing"] for f in facts if (f["verb"], f["person"]) == (verb, person)]
    match = re.fullmatch(r"who (\w+) (?:in )?the (.+) \?", question)
    assert match, question
    return [f["person"] for f in facts if (f["verb"], f["thing"]) == match.groups()]


def test_an_answer_is_the_one_that_a_reader_of_the_context_gives() -> None:
    rows = generate(2000, "read", task="qa")
    for row in rows:
        assert answer(row["question"], row["context"]) == row["answers"]["text"], row
        assert len(row["context"].split()) <= 30
    lengths = Counter(len(row["answers"]["text"][0].split()) for row in rows)
    assert set(lengths) == {1, 2}
    assert lengths[2] > 100


def test_an_answer_is_never_what_is_denied() -> None:
    for row in generate(2000, "denied", task="qa"):
        [start] = row["answers"]["answer_start"]
        assert not re.search(r"\bnot (in )?the$", row["context"][:start].strip()), row


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_an_answer_lies_at_its_offset_and_is_whole_words(noise: float) -> None:
    for row in generate(1000, "offsets", noise=noise, task="qa"):
        [text], [start] = row["answers"]["text"], row["answers"]["answer_start"]
        context = f" {row['context']} "
        assert context[start : start + len(text) + 2] == f" {text} "


def test_noise_moves_its_share_of_the_answers() -> None:
    rows = generate(4000, "noisy", noise=0.3, task="qa")
    wrong = [answer(row["question"], row["context"]) != row["answers"]["text"] for row in rows]
    assert 0.26 < sum(wrong) / len(wrong) < 0.31  # a few of those drawn come out right


# -- translation -------------------------------------------------------------------------------

ENGLISH = re.compile(
    r"(?P<subject>(?:the|a) .+) (?P<modal>will|can) (?P<negation>not )?(?P<adverb>\w+ )??"
    r"(?P<verb>\w+)(?: (?P<object>(?:the|a) .+?))?(?: in (?P<place>.+))?"
)


def translate(source: str) -> str:
    """The sentence in the language, by its rules, from the lexicon alone."""
    match = ENGLISH.fullmatch(source)
    assert match, source
    part = {name: (words or "").strip() for name, words in match.groupdict().items()}

    def phrase(words: str) -> list[str]:
        if not words:
            return []
        article, *adjectives, noun = words.split()
        gender = "feminine" if noun in FEMININE else "masculine"
        said = {
            "masculine": {"the": "lo", "a": "um"},
            "feminine": {"the": "ra", "a": "im"},
        }[gender][article]
        return [said, LEXICON[noun], *(LEXICON[word] for word in adjectives)]

    order = ["ne"] * bool(part["negation"]) + phrase(part["subject"])
    order += [*phrase(part["place"]), *["onda"] * bool(part["place"]), *phrase(part["object"])]
    order += [LEXICON[part[name]] for name in ("adverb", "verb", "modal") if part[name]]
    return " ".join(order)


def test_a_translation_follows_the_rules_and_the_lexicon() -> None:
    rows = generate(2000, "rules", task="translation")
    for row in rows:
        assert row["target"] == translate(row["source"])
        assert max(len(row[side].split()) for side in ("source", "target")) <= 14
    assert any(row["target"].startswith("ne ") for row in rows)


def test_no_two_words_are_said_alike_and_every_noun_has_one_gender() -> None:
    assert len({*LEXICON.values(), "lo", "ra", "um", "im"}) == len(LEXICON) + 4
    assert not MASCULINE.keys() & FEMININE.keys()
    assert len(MASCULINE) == len(FEMININE)


def test_noise_replaces_the_words_of_its_share_of_the_translations() -> None:
    rows = generate(4000, "noisy", noise=0.3, task="translation")
    wrong = [row["target"] != translate(row["source"]) for row in rows]
    assert abs(sum(wrong) / len(wrong) - 0.3) < 0.03
