"""Whether a model's files hold its weights: `weight_problems`, and files that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import PROCESSOR, begin, save_model, task_study, tiny, tiny_seq2seq, tiny_vit
from safetensors.torch import load_file, save_file
from test_trust import with_code
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from kdsearch.distill import check_models, trusting
from kdsearch.distill.weights import weight_problems
from kdsearch.errors import InputError

_USUAL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SIDES: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 2,
    "vocab_size": 50,
    "decoder_start_token_id": 0,
}
ENCODERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "camembert", "xlm-roberta", "mpnet", "layoutlm"), _USUAL),
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50},
    "electra": {**_USUAL, "embedding_size": 8},
    "albert": {**_USUAL, "embedding_size": 8},
    "deberta-v2": {**_USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {**_USUAL, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "vocab_size": 50},
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "pad_token_id": 0},
    "qwen2": {**_USUAL, "num_key_value_heads": 2},
    "llama": {**_USUAL, "num_key_value_heads": 2},
}
SEQ2SEQ: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bart", "mbart", "marian", "m2m_100", "pegasus"), _SIDES),
    "t5": _T5,
    "mt5": {**_T5, "tie_word_embeddings": False},
}


def written(folder: Path, head: Any, kind: str, **fields: Any) -> Path:
    """A model at random, as its authors would have saved it."""
    head.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(folder)
    return folder


def problems(tmp_path: Path, model: Path, task: str, *, given: bool = False) -> list[str]:
    """What is said of a study whose teacher `big` is the model in a folder."""
    smalls = {"translation": tiny_seq2seq(), "image_classification": tiny_vit()}
    small = smalls.get(task, tiny())
    teacher = {"checkpoint": "big"} if given else {"model": "big"}
    study = task_study(
        task,
        models={"big": str(model), "small": {"config": small}},
        teachers={"t": teacher},
        students={"s": {"model": "small"}},
    )
    ledger, _ = begin(tmp_path / f"{task} {given}", study)
    return [str(problem) for problem in weight_problems(ledger.resolved(), "study.yaml")]


def renamed(folder: Path, name: Callable[[str], str]) -> Path:
    """The weights of a folder under other names; those without name are left out."""
    weights = folder / "model.safetensors"
    found = {name(old): value for old, value in load_file(weights).items()}
    save_file({new: value for new, value in found.items() if new}, weights, {"format": "pt"})
    return folder


# -- what is whole is accepted -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_body_without_head_is_accepted_as_a_base(kind: str, tmp_path: Path) -> None:
    fields = (ENCODERS | DECODERS)[kind]
    model = written(tmp_path / "model", AutoModel, kind, **fields)
    assert problems(tmp_path, model, "classification") == []
    assert problems(tmp_path, model, "ner") == []


@pytest.mark.parametrize("kind", ENCODERS.keys() - {"xlnet"})  # whose language model is no such
@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_masked_language_model_is_accepted_as_a_base(
    kind: str, task: str, tmp_path: Path
) -> None:
    model = written(tmp_path / "model", AutoModelForMaskedLM, kind, **ENCODERS[kind])
    assert problems(tmp_path, model, task) == []


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_classifier_of_other_labels_is_accepted_as_a_base(kind: str, tmp_path: Path) -> None:
    fields = (ENCODERS | DECODERS)[kind]
    head = AutoModelForSequenceClassification
    model = written(tmp_path / "model", head, kind, **fields, num_labels=7)
    assert problems(tmp_path, model, "classification") == []


@pytest.mark.parametrize("kind", SEQ2SEQ)
@pytest.mark.parametrize("given", [False, True])
def test_a_whole_encoder_decoder_is_accepted_for_translation(
    kind: str, given: bool, tmp_path: Path
) -> None:
    model = written(tmp_path / "model", AutoModelForSeq2SeqLM, kind, **SEQ2SEQ[kind])
    assert problems(tmp_path, model, "translation", given=given) == []


@pytest.mark.parametrize("kind", ["bart", "t5", "mt5"])
def test_an_encoder_decoder_without_head_is_accepted_as_a_base(kind: str, tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, kind, **SEQ2SEQ[kind])
    assert problems(tmp_path, model, "translation") == []


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "gpt2", "qwen2", "bart", "t5"])
def test_a_whole_classifier_is_accepted_as_a_given_teacher(kind: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "bert")  # for its labels
    fields = {**json.loads((model / "config.json").read_text())}
    labels = {name: fields[name] for name in ("id2label", "label2id")}
    every = ENCODERS | DECODERS | SEQ2SEQ
    written(model, AutoModelForSequenceClassification, kind, **{**every[kind], **labels})
    assert problems(tmp_path, model, "classification", given=True) == []


def test_the_old_names_of_norms_are_accepted(tmp_path: Path) -> None:
    def old(name: str) -> str:
        bias = name.replace("LayerNorm.bias", "LayerNorm.beta")
        return bias.replace("LayerNorm.weight", "LayerNorm.gamma")

    model = renamed(written(tmp_path / "model", AutoModelForMaskedLM, "bert", **_USUAL), old)
    assert any("gamma" in name for name in load_file(model / "model.safetensors"))
    assert problems(tmp_path, model, "classification") == []


def test_weights_in_torchs_own_format_are_compared_too(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "bert", **_USUAL)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    assert problems(tmp_path, model, "classification") == []
    torch.save({f"module.{name}": value for name, value in weights.items()}, *model.glob("*.bin"))
    (said,) = problems(tmp_path, model, "ner")
    assert "begin with module., as DataParallel" in said


def test_weights_in_shards_are_compared_as_one(tmp_path: Path) -> None:
    model = AutoModel.from_config(AutoConfig.for_model("bert", **_USUAL))
    model.save_pretrained(tmp_path / "model", max_shard_size="5KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    assert problems(tmp_path, tmp_path / "model", "classification") == []


def test_a_model_with_code_of_its_own_is_compared_too(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "own", tmp_path / "ran")
    big = {"path": str(folder), "trust_remote_code": True}
    study = task_study(
        "classification",
        models={"big": big, "small": {"config": tiny()}},
        teachers={"t": {"model": "big"}},
        students={"s": {"model": "small"}},
    )
    ledger, _ = begin(tmp_path / "study", study)
    with trusting(["big"]):
        assert list(weight_problems(ledger.resolved(), "study.yaml")) == []
        renamed(folder, lambda name: f"_orig_mod.{name}")
        (said,) = weight_problems(ledger.resolved(), "study.yaml")
    assert "_orig_mod." in said.what


# -- what is not there is said -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("_orig_mod.", ", as torch.compile leaves them (save the module itself"),
        ("module.", ", as DataParallel and DistributedDataParallel leave them (save the module"),
        ("model.", ", as PyTorch Lightning leaves them (save the model within its module"),
        ("encoder.", " (rename them)"),
    ],
)
def test_a_prefix_before_all_names_is_said_with_who_leaves_it(
    prefix: str, what: str, tmp_path: Path
) -> None:
    model = written(tmp_path / "model", AutoModelForMaskedLM, "bert", **_USUAL)
    renamed(model, lambda name: prefix + name)
    (said,) = problems(tmp_path, model, "classification")
    assert said.startswith("study.yaml: models.big: its file has none of the 37 weights of bert; ")
    assert f"all its names begin with {prefix}{what}" in said


def test_a_body_under_another_name_is_said_with_its_own(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModelForMaskedLM, "bert", **_USUAL)
    renamed(model, lambda name: name.replace("bert.", "backbone."))
    (said,) = problems(tmp_path, model, "classification")
    assert "37 of its names begin with backbone. in place of bert. (rename them)" in said


def test_weights_of_another_kind_of_model_are_refused(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "distilbert", **ENCODERS["distilbert"])
    AutoConfig.for_model("bert", **_USUAL).save_pretrained(model)
    (said,) = problems(tmp_path, model, "classification")
    assert "models.big: its file" in said
    assert "of the 37 weights of bert" in said
    assert "take config.json and the weights from the same model" in said


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "bert", **_USUAL)
    save_file({}, model / "model.safetensors")
    (said,) = problems(tmp_path, model, "classification")
    assert "its file has none of the 37 weights of bert; it is empty" in said


def test_a_layer_that_is_missing_is_counted_with_an_example(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "bert", **_USUAL)
    renamed(model, lambda name: "" if name.startswith("encoder.layer.1.") else name)
    (said,) = problems(tmp_path, model, "classification")
    assert "its file lacks 16 of the 37 weights of bert, such as bert.encoder.layer.1." in said


def test_a_missing_layer_is_seen_where_the_parts_of_a_body_stand_beside_its_head(
    tmp_path: Path,
) -> None:
    t5 = written(tmp_path / "t5", AutoModelForSeq2SeqLM, "t5", **SEQ2SEQ["t5"])
    renamed(t5, lambda name: "" if name.startswith("decoder.block.1.") else name)
    (said,) = problems(tmp_path, t5, "translation")
    assert "its file lacks 13 of the 47 weights of t5, such as decoder.block.1." in said
    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    seen = {**sides, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    fields = {"vision_config": seen, "text_config": {**sides, "num_hidden_layers": 1}}
    clip = written(tmp_path / "clip", AutoModelForImageClassification, "clip", **fields)
    PROCESSOR.save_pretrained(clip)
    assert problems(tmp_path, clip, "image_classification") == []
    renamed(clip, lambda name: "" if ".layers.1." in name else name)
    (said,) = problems(tmp_path, clip, "image_classification")
    assert "its file lacks 16 of the 39 weights of clip, such as vision_model.encoder." in said


def test_weights_of_another_shape_are_counted_with_an_example(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "bert", **_USUAL)
    AutoConfig.for_model("bert", **{**_USUAL, "vocab_size": 60}).save_pretrained(model)
    (said,) = problems(tmp_path, model, "classification")
    assert "has 1 of the 37 weights of bert in another shape than its config.json says" in said
    assert "bert.embeddings.word_embeddings.weight: [50, 16], not [60, 16]" in said


def test_a_given_teacher_needs_its_head_and_its_pooler(tmp_path: Path) -> None:
    model = renamed(save_model(tmp_path / "model"), lambda n: "" if "classifier" in n else n)
    (said,) = problems(tmp_path, model, "classification", given=True)
    assert "its file lacks the head's classifier.bias, classifier.weight" in said
    assert "give a model that was fine-tuned for classification" in said
    model = renamed(save_model(tmp_path / "another"), lambda n: "" if "pooler" in n else n)
    (said,) = problems(tmp_path / "2", model, "classification", given=True)
    assert "its file lacks 2 of the 41 weights of bert, such as bert.pooler.dense." in said


def test_a_given_teachers_head_of_another_size_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(7, 16)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    (said,) = problems(tmp_path, model, "classification", given=True)
    labels = len(json.loads((model / "config.json").read_text())["id2label"])
    assert f"classifier.weight: [7, 16], not [{labels}, 16]" in said
    assert problems(tmp_path, model, "classification") == []


def test_a_model_in_two_tasks_is_named_once(tmp_path: Path) -> None:
    model = written(tmp_path / "model", AutoModel, "bert", **_USUAL)
    renamed(model, lambda name: f"module.{name}")
    grammar = {"train": 96, "validation": 24, "test": 20}
    study = task_study(
        "ner",
        datasets={task: {"task": task, "grammar": grammar} for task in ("ner", "classification")},
        models={"big": str(model), "small": {"config": tiny()}},
        teachers={"t": {"model": "big"}},
        students={"s": {"model": "small"}, "cut": {"model": "big", "layers": 1}},
    )
    ledger, _ = begin(tmp_path / "study", study)
    assert len(list(weight_problems(ledger.resolved(), "study.yaml"))) == 1


# -- files that cannot be read -------------------------------------------------------------------


def refusal(tmp_path: Path, model: Path) -> str:
    """What is said of a study with the model, before its weights are compared."""
    study = task_study(
        "classification",
        models={"big": str(model), "small": {"config": tiny()}},
        teachers={"t": {"model": "big"}},
        students={"s": {"model": "small"}, "cut": {"model": "big", "layers": 1}},
    )
    with pytest.raises(InputError) as error:
        check_models(begin(tmp_path / "study", study)[0].resolved(), "study.yaml")
    assert len(error.value.problems) == 1
    return str(error.value)


def in_torchs_own_format(folder: Path, weights: dict[str, Tensor]) -> Path:
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("left", [0, 4, 8, 100, 2_000, -10])
@pytest.mark.parametrize("torchs_own", [False, True])
def test_weights_whose_end_is_missing_are_cut_off(
    left: int, torchs_own: bool, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model")
    file = model / "model.safetensors"
    if torchs_own:
        file = in_torchs_own_format(model, load_file(file))
    file.write_bytes(file.read_bytes()[:left])
    said = refusal(tmp_path, model)
    assert f"models.big: {file.name} is cut off (fetch it again, or wait until it is" in said


def test_a_checkpoint_of_a_training_is_no_file_of_weights(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    weights: Any = {"state_dict": load_file(model / "model.safetensors"), "epoch": 3}
    in_torchs_own_format(model, weights)
    assert "pytorch_model.bin is a training checkpoint" in refusal(tmp_path, model)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    AutoModel.from_pretrained(model).save_pretrained(model, max_shard_size="10KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(model.glob("*.safetensors"))
    shards[1].unlink()
    said = refusal(tmp_path, model)
    assert f"lacks {shards[1].name}, of {len(shards)} weight files (fetch them, or wait" in said


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        ("\n<!DOCTYPE html>\n<html><body>Not Found</body></html>", "is a web page"),
    ],
)
def test_what_came_in_place_of_a_models_file_is_said(
    name: str, content: str, what: str, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model")
    (model / name).write_text(content)
    said = refusal(tmp_path, model)
    assert f"{model / name}: is a" in said
    assert what in said


@pytest.mark.parametrize(
    ("section", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"load_in_8bit": True}, "bitsandbytes"),
    ],
)
def test_quantised_weights_are_refused_in_words(
    section: dict[str, Any], method: str, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": section}))
    assert f"models.big: is quantised ({method}), which is not supported" in refusal(
        tmp_path, model
    )
