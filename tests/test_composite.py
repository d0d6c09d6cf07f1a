"""Models of several parts, of which one reads text: Gemma 3's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import begin, everything, save_model, spread, task_study
from test_lm import ROWS, TASK, WORDS, encode
from transformers import AutoConfig, AutoModelForCausalLM

from kdsearch.distill import check_models
from kdsearch.distill.layers import text_config, truncate
from kdsearch.distill.models import check_head
from kdsearch.distill.reading import readings
from kdsearch.errors import InputError
from kdsearch.study import Model
from kdsearch.study.sizes import Shape, shape_of

TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "vocab_size": len(WORDS),
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 28,
    "patch_size": 14,
}


def gemma(**text: Any) -> dict[str, Any]:
    """A study's `config` of a tiny one."""
    part = {"model_type": "gemma3_text", **TEXT, **text}
    return {
        "model_type": "gemma3",
        "text_config": part,
        "vision_config": VISION,
        "mm_tokens_per_image": 1,
    }


def model_of(**text: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**gemma(**text))).eval()
    spread(model)
    return model


def test_the_part_that_reads_text_is_cut_and_no_other() -> None:
    model, cut = model_of(), model_of()
    truncate(cut, 2)
    assert text_config(cut.config).num_hidden_layers == 2
    assert len(text_config(cut.config).layer_types) == 2
    assert cut.config.vision_config.num_hidden_layers == 4
    kept = cut.get_decoder().layers
    for layer, old in zip(kept, model.get_decoder().layers[1::2], strict=True):
        torch.testing.assert_close(dict(layer.named_parameters()), dict(old.named_parameters()))
    check_head(cut, TASK, encode(ROWS[:3]))


def test_its_rows_through_the_head_are_its_logits() -> None:
    model, examples = model_of(), encode(ROWS[:4])
    batch = everything(examples)
    with torch.no_grad():
        found = TASK.outputs(model, batch) @ model.get_output_embeddings().weight.T
        expected = model(**batch.arguments).logits[batch.counted]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def look(folder: Path, models: dict[str, Any], **sections: Any) -> Any:
    same: dict[str, Any] = {"teachers": {"t": {"model": "m"}}, "students": {"s": {"model": "n"}}}
    ledger, _ = begin(folder, task_study("lm", models=models, **{**same, **sections}))
    check_models(ledger.resolved(), "study.yaml")
    return readings(ledger.resolved(), ledger.rows, "study.yaml")


def test_it_teaches_a_student_that_only_reads_text(tmp_path: Path) -> None:
    model_of(vocab_size=len(WORDS) + 7).save_pretrained(tmp_path / "m")
    WORDS.save_pretrained(tmp_path / "m")
    save_model(tmp_path / "n", "gemma3_text", task="lm", layers=4, head_dim=8, sliding_window=8)
    models = {name: str(tmp_path / name) for name in "mn"}
    _, _, problems = look(tmp_path / "study", models)
    assert not problems


def test_tokens_that_it_has_no_embedding_for_and_inputs_too_long_for_it_are_found(
    tmp_path: Path,
) -> None:
    model_of(vocab_size=len(WORDS) - 9).save_pretrained(tmp_path / "m")
    WORDS.save_pretrained(tmp_path / "m")
    models = {name: str(tmp_path / "m") for name in "mn"}
    _, _, problems = look(tmp_path / "study", models)
    assert f"{len(WORDS)} tokens, its embeddings {len(WORDS) - 9}" in problems[0].what
    with pytest.raises(InputError, match="has 64 positions; data is read 65 tokens at a time"):
        look(tmp_path / "other", models, training={"max_length": 65})


def test_its_size_is_that_of_the_part_that_reads_text() -> None:
    assert shape_of(Model(config=gemma())) == Shape(4, 16, len(WORDS))
