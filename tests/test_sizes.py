from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from models import begin, run_study, save_model, tiny_decoder, tiny_study

from kdsearch.agenda import cached_bytes, checkpoint_bytes
from kdsearch.distill import run_training
from kdsearch.errors import InputError
from kdsearch.study import cache_bytes, parse_study, readable_size

SEQ2SEQ = {
    "model_type": "bart",
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
}


def study_of(task: str, **width: int) -> dict[str, Any]:
    """A tiny study of `task` whose teacher has one checkpoint."""
    grammar = {"train": 40, "validation": 12, "test": 12}
    study = tiny_study(datasets={"d": {"task": task, "max_length": 48, "grammar": grammar}})
    if task == "translation":
        model = {"config": {**SEQ2SEQ, **width}}
        study["models"] = {"big": model, "small": model}
    if task == "lm":
        study["models"] = {"big": {"config": tiny_decoder(2)}, "small": {"config": tiny_decoder()}}
    study["search"] |= {"teacher": ["t_hs"], "distance": ["mse"], "alpha": [1]}
    study["teachers"]["big"]["fine_tune"]["epochs"] = 1
    study["training"] |= {"epochs": 1, "beams": 1}
    return study


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "translation", "lm"])
def test_the_outputs_on_disk_are_no_larger_than_foretold(tmp_path: Path, task: str) -> None:
    ledger, agenda = begin(tmp_path, study_of(task, d_model=16))
    foretold = cached_bytes(agenda.resolved, agenda.cases[0])
    run_study(ledger, agenda, run_training)
    kept = sum(path.stat().st_size for path in (tmp_path / "outputs").glob("*.npy"))
    header = 128 * 3  # a file for each split
    assert 0 < kept <= foretold + header
    if task in ("classification", "ner"):  # where the number of rows needs no tokenizer
        assert kept == foretold + header


def test_a_study_whose_outputs_no_disk_can_hold_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        InputError, match=r"outputs need about .* TB and their checkpoints 0 kB, but"
    ):
        begin(tmp_path, study_of("translation", d_model=10**12))
    assert not (tmp_path / "resolved.json").exists()


def pretrained_study(folder: Path) -> dict[str, Any]:
    """Two teachers of two checkpoints and three rates in all, of a model on the disk."""
    donor = save_model(folder, labels=("no", "yes"))
    return tiny_study(
        models={"big": str(donor), "small": {"config": {"model_type": "bert"}}},
        teachers={
            "one": {"model": "big", "fine_tune": {"learning_rate": [1e-3, 2e-3], "epochs": 2}},
            "other": {"model": "big", "fine_tune": {"learning_rate": [1e-3], "epochs": 3}},
        },
    )


def test_the_kept_epochs_are_as_large_as_the_model_they_are_of(tmp_path: Path) -> None:
    study = pretrained_study(tmp_path / "donor")
    _, agenda = begin(tmp_path / "run", study)
    weights = (tmp_path / "donor" / "model.safetensors").stat().st_size
    assert checkpoint_bytes(agenda.resolved) == 2 * 3 * weights  # t_hs and t_ll of three rates


def test_a_model_at_random_or_given_needs_no_checkpoints_that_could_be_foretold(
    tmp_path: Path,
) -> None:
    given = save_model(tmp_path / "tuned")
    study = tiny_study(
        models={"tuned": str(given), "small": {"config": {"model_type": "bert"}}},
        teachers={"given": {"checkpoint": "tuned"}},
    )
    assert checkpoint_bytes(begin(tmp_path / "run", study)[1].resolved) == 0


def test_a_study_whose_checkpoints_the_disk_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = pretrained_study(tmp_path / "donor")
    needed = 6 * (tmp_path / "donor" / "model.safetensors").stat().st_size
    usual = shutil.disk_usage(tmp_path)
    free = usual._replace(free=needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    size, there = readable_size(needed), readable_size(needed)
    what = rf"need about .* kB and their checkpoints {size}, but {there} is free"
    with pytest.raises(InputError, match=what):
        begin(tmp_path / "run", study)
    assert not (tmp_path / "run" / "resolved.json").exists()


def test_hidden_states_take_their_width_in_the_studys_precision_and_the_head_once() -> None:
    study = study_of("translation", d_model=1024, vocab_size=1000)
    head = 1000 * 1024 * 4
    for dtype, size in (("bf16", 2), ("fp32", 4)):
        study["training"]["hidden_dtype"] = dtype
        parsed = parse_study(study, place="s.yaml")
        found = cache_bytes(parsed.training, "translation", parsed.models["big"], 500, 0)
        assert found == 500 * 1024 * size + head


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (128, "0.128 kB"),
        (58_700, "58.7 kB"),
        (9.19e6, "9.19 MB"),
        (57.3e9, "57.3 GB"),
        (2e12, "2 TB"),
    ],
)
def test_a_size_is_said_with_three_digits(count: float, words: str) -> None:
    assert readable_size(count) == words
