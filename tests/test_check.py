"""Refusing what cannot be trained, before a search: `check_models`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from models import (
    LABEL_NAMES,
    begin,
    kind_for,
    multilingual,
    save_model,
    task_study,
    task_texts,
    tiny,
    tiny_decoder,
    tiny_seq2seq,
)
from transformers import AutoTokenizer

from kdsearch.distill import check_models
from kdsearch.distill.models import word_tokenizer
from kdsearch.errors import InputError

CASE: dict[str, Any] = {
    "teachers": {"t": {"model": "big"}},
    "students": {"s": {"model": "small"}},
}
PER_TOKEN = ("ner", "qa", "translation", "lm")


def check(folder: Path, task: str, models: dict[str, Any], **sections: Any) -> None:
    """Check a study on generated data of a task, with the teacher `big` and the student `small`."""
    study = task_study(task, **{"models": models, **CASE, **sections})
    ledger, _ = begin(folder, study)
    check_models(ledger.resolved(), "study.yaml")


def config_for(task: str) -> dict[str, Any]:
    return {"translation": tiny_seq2seq, "lm": tiny_decoder}.get(task, tiny)()


def folders(folder: Path, task: str, *texts: tuple[str, ...]) -> dict[str, Any]:
    """A teacher and a student, each with the tokenizer of some texts."""
    usual = task_texts(task)
    return {
        name: str(save_model(folder / name, kind_for(task), task=task, texts=[*usual, *more]))
        for name, more in zip(("big", "small"), texts, strict=True)
    }


# -- one tokenizer -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", PER_TOKEN)
def test_a_pair_of_different_tokenizers_is_refused_where_tokens_are_compared(
    task: str, tmp_path: Path
) -> None:
    models = folders(tmp_path, task, (), ("another word",))
    with pytest.raises(InputError, match="small and the teacher big have different token") as error:
        check(tmp_path / "study", task, models)
    assert f"{task} compares their outputs token by token" in str(error.value)
    assert "study.yaml: students.s" in str(error.value)
    assert "only classification can do without" in str(error.value)


def test_a_pair_of_different_tokenizers_can_learn_to_classify(tmp_path: Path) -> None:
    models = folders(tmp_path, "classification", (), ("another word",))
    check(tmp_path / "study", "classification", models)


@pytest.mark.parametrize("task", PER_TOKEN)
def test_a_pair_of_equal_tokenizers_in_two_folders_is_accepted(task: str, tmp_path: Path) -> None:
    check(tmp_path / "study", task, folders(tmp_path, task, (), ()))


@pytest.mark.parametrize("task", PER_TOKEN)
def test_tokenizers_that_only_pad_and_cut_differently_are_equal(task: str, tmp_path: Path) -> None:
    models = folders(tmp_path, task, (), ())
    tokenizer = AutoTokenizer.from_pretrained(models["small"])
    before = (Path(models["small"]) / "tokenizer.json").read_text()
    tokenizer("a b", truncation=True, max_length=7, padding="max_length")
    tokenizer.save_pretrained(models["small"])
    assert (Path(models["small"]) / "tokenizer.json").read_text() != before
    check(tmp_path / "study", task, models)


@pytest.mark.parametrize("task", PER_TOKEN)
def test_the_training_splits_words_and_a_models_own_tokenizer_are_different(
    task: str, tmp_path: Path
) -> None:
    small = config_for(task)
    big = save_model(tmp_path / "big", kind_for(task), task=task)
    with pytest.raises(InputError, match="have different tokenizers"):
        check(tmp_path / "study", task, {"big": str(big), "small": {"config": small}})
    models = {"big": str(big), "small": {"config": small, "tokenizer": "big"}}
    check(tmp_path / "another", task, models)


def test_models_at_random_with_the_training_splits_words_go_together(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    check(tmp_path, "ner", models)


def test_a_given_teacher_of_another_tokenizer_is_refused_too(tmp_path: Path) -> None:
    models = folders(tmp_path, "ner", (), ("another word",))
    with pytest.raises(InputError, match="different tokenizers"):
        check(tmp_path / "study", "ner", models, teachers={"t": {"checkpoint": "big"}})


def test_a_teacher_and_a_student_of_different_widths_of_vocabulary_are_refused(
    tmp_path: Path,
) -> None:
    models = folders(tmp_path, "translation", (), ())
    words = len(AutoTokenizer.from_pretrained(models["big"]))
    save_model(tmp_path / "small", "bart", task="translation", vocab_size=words + 5)
    what = f"small has {words + 5} outputs, and the teacher big {words}"
    with pytest.raises(InputError, match=what):
        check(tmp_path / "study", "translation", models)


def test_a_model_at_random_has_as_many_outputs_as_its_tokenizer_has_words(tmp_path: Path) -> None:
    big = save_model(tmp_path / "big", "bart", task="translation")
    models = {"big": str(big), "small": {"config": tiny_seq2seq(), "tokenizer": "big"}}
    check(tmp_path / "study", "translation", models)


# -- the kind of model ---------------------------------------------------------------------------


def test_an_encoder_is_refused_for_translation(tmp_path: Path) -> None:
    models = {"big": {"config": tiny_seq2seq()}, "small": {"config": tiny()}}
    what = r"models\.small: bert is not an encoder-decoder model, which translation needs"
    with pytest.raises(InputError, match=what):
        check(tmp_path, "translation", models)


def test_an_encoder_decoder_without_a_head_for_classification_is_refused(tmp_path: Path) -> None:
    marian = {**tiny_seq2seq(), "model_type": "marian"}
    models = {"big": {"config": tiny()}, "small": {"config": marian}}
    what = r"models\.small: marian is an encoder-decoder without a head for classification"
    with pytest.raises(InputError, match=what):
        check(tmp_path, "classification", models)


@pytest.mark.parametrize("task", ["ner", "qa"])
def test_an_encoder_decoder_is_refused_for_what_needs_an_encoder(task: str, tmp_path: Path) -> None:
    models = {"big": {"config": tiny()}, "small": {"config": tiny_seq2seq()}}
    what = rf"models\.small: bart is an encoder-decoder; {task} needs an encoder"
    with pytest.raises(InputError, match=what):
        check(tmp_path, task, models)


def test_an_odd_number_of_layers_of_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    models = folders(tmp_path, "translation", (), ())
    students = {"s": {"model": "small", "layers": 3}}
    with pytest.raises(InputError, match=r"students\.s: 3 layers cannot be split evenly"):
        check(tmp_path / "study", "translation", models, students=students)


def test_an_even_number_of_layers_of_an_encoder_decoder_is_accepted(tmp_path: Path) -> None:
    models = folders(tmp_path, "translation", (), ())
    students = {"s": {"model": "small", "layers": 2}}
    check(tmp_path / "study", "translation", models, students=students)


# -- dropout -------------------------------------------------------------------------------------

NO_DROPOUT = {"model_type": "gemma3"}
"""Of which the parts have dropout, and the whole has none."""
WHERE = {
    "training.dropout": {"training": {"dropout": 0.1}},
    "students.s.training.dropout": {
        "students": {"s": {"model": "small", "training": {"dropout": 0.1}}}
    },
}


@pytest.mark.parametrize("where", WHERE)
def test_a_dropout_for_a_model_without_any_is_refused_with_the_key_that_says_so(
    where: str, tmp_path: Path
) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": NO_DROPOUT}}
    what = rf"models\.small: .* has no dropout in its configuration: remove {where}$"
    with pytest.raises(InputError, match=what):
        check(tmp_path, "classification", models, **WHERE[where])


# -- adapters and activations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"training": {"lora": {"modules": ["q_proj", "query"]}}},
            "study.yaml: training.lora: BertForSequenceClassification has no linear layers called "
            "q_proj in its blocks (available: query, key, value, dense)",
        ),
        (
            {"training": {"lora": {"modules": ["key"]}}, "students": {"s": {"model": "new"}}},
            "study.yaml: training.lora: new is drawn at random, so that adapters would adapt "
            "nothing: give a model",
        ),
        (
            {"search": {"lora_rank": ["none", 8]}, "students": {"s": {"model": "new"}}},
            "study.yaml: search.lora_rank: new is drawn at random, so that adapters would adapt "
            "nothing: give a model",
        ),
        (
            {"students": {"s": {"model": "mp", "training": {"gradient_checkpointing": True}}}},
            "study.yaml: students.s.training.gradient_checkpointing: mpnet keeps its activations: "
            "transformers cannot recompute them",
        ),
    ],
)
def test_what_a_model_cannot_have_is_refused_with_the_key_that_says_so(
    sections: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    models = {**folders(tmp_path, "classification", (), ()), "new": {"config": tiny()}}
    models["mp"] = {"config": {**tiny(), "model_type": "mpnet"}}
    with pytest.raises(InputError) as raised:
        check(tmp_path / "study", "classification", models, **sections)
    assert str(raised.value) == problem


def test_adapters_are_refused_where_peft_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    what = r"training\.lora: adapters need peft, which is not installed: pip install peft"
    models = folders(tmp_path, "classification", (), ())
    with pytest.raises(InputError, match=what):
        check(tmp_path / "study", "classification", models, training={"lora": {}})


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "translation", "lm"])
def test_a_student_of_any_task_may_have_adapters_and_recompute(task: str, tmp_path: Path) -> None:
    models = folders(tmp_path, task, (), ())
    training = {"lora": {"r": 2}, "gradient_checkpointing": True}
    check(tmp_path / "study", task, models, training=training)


# -- lengths -------------------------------------------------------------------------------------


def test_more_tokens_than_positions_are_refused_with_the_key_that_says_so(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    with pytest.raises(InputError, match=r"make training\.max_length at most 64"):
        check(tmp_path, "ner", models, training={"max_length": 65})


def test_the_data_sets_own_length_is_named_where_it_has_one(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    sizes = {"train": 96, "validation": 24, "test": 20}
    datasets = {"data": {"task": "ner", "grammar": sizes, "max_length": 65}}
    with pytest.raises(InputError, match=r"make datasets\.data\.max_length at most 64"):
        check(tmp_path, "ner", models, datasets=datasets)


def test_the_default_length_of_a_task_counts_where_the_study_says_nothing(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    with pytest.raises(InputError, match=r"has 64 positions; data is read 384 tokens at a time"):
        check(tmp_path, "qa", models, training={"max_length": None})


@pytest.mark.parametrize("task", PER_TOKEN)
def test_a_teacher_and_a_student_whose_tokens_are_compared_read_alike(
    task: str, tmp_path: Path
) -> None:
    models = {name: {"config": config_for(task)} for name in ("big", "small")}
    for section, where in (("teachers", "t"), ("students", "s")):
        changed = {**CASE[section][where], "training": {"max_length": 31}}
        what = r"students\.s: its max_length is .* compared token by token"
        with pytest.raises(InputError, match=what):
            check(tmp_path / section, task, models, **{section: {where: changed}})
    both = {
        section: {where: {**CASE[section][where], "training": {"max_length": 31}}}
        for section, where in (("teachers", "t"), ("students", "s"))
    }
    check(tmp_path / "both", task, models, **both)


def test_a_student_that_classifies_may_read_less_than_its_teacher(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    students = {"s": {"model": "small", "training": {"max_length": 16}}}
    check(tmp_path, "classification", models, students=students)
    students["s"]["training"] = {"max_length": 65}
    with pytest.raises(InputError, match=r"make students\.s\.training\.max_length at most 64"):
        check(tmp_path / "long", "classification", models, students=students)


@pytest.mark.parametrize("length", [1, 20, 23])
def test_a_window_too_small_for_a_question_and_a_context_is_refused(
    length: int, tmp_path: Path
) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    what = rf"training\.max_length: data would be read {length} tokens .*make it at least 24"
    with pytest.raises(InputError, match=what):
        check(tmp_path, "qa", models, training={"max_length": length})


@pytest.mark.parametrize(("length", "stride"), [(24, 13), (64, 33), (63, 32)])
def test_windows_that_share_more_than_half_are_refused(
    length: int, stride: int, tmp_path: Path
) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    what = rf"training\.stride: windows of {length} tokens .* make it at most {length // 2}"
    with pytest.raises(InputError, match=what.replace(" make", ".*make")):
        check(tmp_path, "qa", models, training={"max_length": length, "stride": stride})


@pytest.mark.parametrize("task", ["classification", "ner", "translation"])
def test_a_length_that_the_special_tokens_fill_is_refused(task: str, tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    with pytest.raises(InputError, match=r"training\.max_length: .*make it at least 8"):
        check(tmp_path, task, models, training={"max_length": 2})


@pytest.mark.parametrize(
    ("length", "stride"), [(24, None), (24, 12), (25, 12), (64, 32), (64, 1), (64, None)]
)
def test_windows_that_share_half_of_their_tokens_are_accepted(
    length: int, stride: int | None, tmp_path: Path
) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    check(tmp_path, "qa", models, training={"max_length": length, "stride": stride})


def test_only_questions_need_windows(tmp_path: Path) -> None:
    models = {"big": {"config": tiny(2)}, "small": {"config": tiny()}}
    check(tmp_path, "ner", models, training={"max_length": 8})


# -- given teachers ------------------------------------------------------------------------------


def test_a_given_teacher_of_questions_has_two_outputs(tmp_path: Path) -> None:
    teachers = {"t": {"checkpoint": "big"}}
    models = folders(tmp_path, "qa", (), ())
    check(tmp_path / "study", "qa", models, teachers=teachers)
    save_model(tmp_path / "big", task="qa", num_labels=3)
    with pytest.raises(InputError, match="big has 3 outputs for 2 labels"):
        check(tmp_path / "another", "qa", models, teachers=teachers)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("multi_label_classification", "several labels at once"), ("regression", "regression")],
)
def test_a_given_teacher_of_another_problem_is_refused(
    tmp_path: Path, kind: str, words: str
) -> None:
    models = folders(tmp_path, "classification", (), ())
    path = tmp_path / "big" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "problem_type": kind}))
    teachers = {"t": {"checkpoint": "big", "labels": list(LABEL_NAMES)}}
    with pytest.raises(InputError, match=f"big was fine-tuned for {words}"):
        check(tmp_path / "study", "classification", models, teachers=teachers)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_damaged_file_of_a_tokenizer_is_named(tmp_path: Path, name: str) -> None:
    models = folders(tmp_path, "classification", (), ())
    (tmp_path / "big" / name).write_text('{"pad_token": ')
    with pytest.raises(InputError, match=rf"big/{name}: not JSON: .* \(fetch it again\)"):
        check(tmp_path / "study", "classification", models)


# -- languages -----------------------------------------------------------------------------------


def languages_study(
    folder: Path, tokenizer: Any, languages: list[str] | None, kind: str = "mbart"
) -> None:
    """Check a study whose models have this tokenizer, and whose data has these languages."""
    models = {
        name: str(save_model(folder / name, kind, task="translation", tokenizer=tokenizer))
        for name in ("big", "small")
    }
    sizes = {"train": 96, "validation": 24, "test": 20}
    data: dict[str, Any] = {"task": "translation", "grammar": sizes}
    if languages is not None:
        data["languages"] = languages
    check(folder / "study", "translation", models, datasets={"data": data})


@pytest.mark.parametrize(
    ("kind", "languages"),
    [("mbart", ["de_DE", "en_XX"]), ("mbart50", ["de_DE", "en_XX"]), ("m2m_100", ["de", "en"])],
)
def test_languages_that_a_tokenizer_knows_are_accepted(
    kind: str, languages: list[str], tmp_path: Path
) -> None:
    languages_study(tmp_path, multilingual(kind, tmp_path), languages)


def test_an_unknown_language_is_named_with_what_is_like_it(tmp_path: Path) -> None:
    what = r"has no language de, which data names; did you mean .*de_DE"
    with pytest.raises(InputError, match=what):
        languages_study(tmp_path, multilingual("mbart", tmp_path), ["de", "en_XX"])


def test_a_word_is_no_language(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no language ▁dog, which data names"):
        languages_study(tmp_path, multilingual("mbart", tmp_path), ["▁dog", "en_XX"])


def test_the_token_of_a_language_is_not_its_code(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no language __de__, which data names; did you mean .*de"
    ):
        languages_study(tmp_path, multilingual("m2m_100", tmp_path), ["__de__", "en"])


def test_a_multilingual_tokenizer_needs_languages(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs two language codes: datasets\.data\.languages"):
        languages_study(tmp_path, multilingual("mbart", tmp_path), None)


def test_languages_for_a_tokenizer_without_codes_are_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(task_texts("translation"))
    what = r"its tokenizer has no language codes; remove datasets\.data\.languages"
    with pytest.raises(InputError, match=what):
        languages_study(tmp_path, tokenizer, ["de", "en"], "bart")


def test_languages_for_the_words_of_the_training_split_are_refused(tmp_path: Path) -> None:
    sizes = {"train": 96, "validation": 24, "test": 20}
    data = {"task": "translation", "grammar": sizes, "languages": ["de", "en"]}
    models = {name: {"config": tiny_seq2seq()} for name in ("big", "small")}
    models["big"] = {"config": tiny_seq2seq(2)}
    with pytest.raises(InputError, match="words have no language codes; data names some"):
        check(tmp_path, "translation", models, datasets={"data": data})


def test_multilingual_tokenizers_that_were_saved_for_other_languages_are_equal(
    tmp_path: Path,
) -> None:
    models = {}
    for name, language in (("big", "de_DE"), ("small", "fr_XX")):
        tokenizer = multilingual("mbart", tmp_path)
        tokenizer.src_lang, tokenizer.tgt_lang = language, "en_XX"
        folder = save_model(tmp_path / name, "mbart", task="translation", tokenizer=tokenizer)
        models[name] = str(folder)
    sizes = {"train": 96, "validation": 24, "test": 20}
    data = {"task": "translation", "grammar": sizes, "languages": ["de_DE", "en_XX"]}
    check(tmp_path / "study", "translation", models, datasets={"data": data})


# -- tokenizers ----------------------------------------------------------------------------------


def test_a_tokenizer_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    models = folders(tmp_path, "ner", (), ())
    for folder in models.values():
        place = Path(folder) / "tokenizer_config.json"
        config = json.loads(place.read_text())
        del config["pad_token"]
        place.write_text(json.dumps(config))
    with pytest.raises(InputError, match="its tokenizer has no padding token"):
        check(tmp_path / "study", "ner", models)


def test_a_model_that_is_broken_is_named_once_though_students_are_cut_from_it(
    tmp_path: Path,
) -> None:
    models = folders(tmp_path, "classification", (), ())
    for file in Path(models["small"]).glob("tokenizer*"):
        file.unlink()
    students = {"s": {"model": "small", "layers": 1}}
    with pytest.raises(InputError) as error:
        check(tmp_path / "study", "classification", models, students=students)
    assert [problem.place for problem in error.value.problems] == ["study.yaml: models.small"]
