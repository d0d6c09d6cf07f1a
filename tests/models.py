"""Tiny real models and studies that the tests of the training layer share."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoTokenizer,
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
)

from kdsearch.agenda import Agenda, DataSpec, ModelSpec, Outcome, Training, written_outcome
from kdsearch.distill.models import load_model, word_tokenizer
from kdsearch.driver import Dispatcher, open_study
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.ledger import Ledger
from kdsearch.search import Ce, GradientScale, Mse, Objective
from kdsearch.study import Row, TrainingSettings, parse_study
from kdsearch.study.grammar import LABELS, TAGS, generate
from kdsearch.study.grammar_images import SHAPES, SIDE
from kdsearch.study.images import encoded, pixels
from kdsearch.study.known import columns_of
from kdsearch.study.rows import read_dataset
from kdsearch.study.schema import Dataset
from kdsearch.tasks import TASKS, Encoded, ImageProcessor

torch.set_num_threads(1)  # as trainings do: more threads only get in each other's way here

WORKERS = multiprocessing.get_context("forkserver")
"""Of processes that train: each is forked from one that has imported what takes seconds."""
WORKERS.set_forkserver_preload(["models", "kdsearch.distill.run"])

LABEL_NAMES = tuple(LABELS)
SENTENCES = tuple(str(row["sentence"]) for row in generate(200, "words"))
TASK_LABELS = {
    "classification": LABEL_NAMES,
    "ner": TAGS,
    "qa": (),
    "translation": (),
    "lm": (),
    "image_classification": SHAPES,
}

_USUAL: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("num_hidden_layers", "bert.encoder.layer", _USUAL),
    "roberta": ("num_hidden_layers", "roberta.encoder.layer", {**_USUAL, **_SPECIAL}),
    "distilbert": (
        "n_layers",
        "distilbert.transformer.layer",
        {"dim": 16, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    ),
    "xlm-roberta": ("num_hidden_layers", "roberta.encoder.layer", {**_USUAL, **_SPECIAL}),
    "electra": ("num_hidden_layers", "electra.encoder.layer", {**_USUAL, "embedding_size": 16}),
    "modernbert": (
        "num_hidden_layers",
        "model.layers",
        {
            **_USUAL,
            **_SPECIAL,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "global_attn_every_n_layers": 2,
            "local_attention": 4,
        },
    ),
    "deberta-v2": (
        "num_hidden_layers",
        "deberta.encoder.layer",
        {**_USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
}
"""By model type: the field of its depth, where its layers are, and the rest of a tiny one."""
PROCESSOR = ImageProcessor(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=SIDE)
"""Of pretrained models of images; each channel has its own numbers."""

_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
}
_T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
_SIDES = ("encoder_layers", "decoder_layers")
SEQ2SEQ: dict[str, tuple[tuple[str, str], tuple[str, str], dict[str, Any]]] = {
    "bart": (_SIDES, ("model.encoder.layers", "model.decoder.layers"), _BART),
    "mbart": (_SIDES, ("model.encoder.layers", "model.decoder.layers"), _BART),
    "marian": (_SIDES, ("model.encoder.layers", "model.decoder.layers"), _BART),
    "m2m_100": (_SIDES, ("model.encoder.layers", "model.decoder.layers"), _BART),
    "t5": (("num_layers", "num_decoder_layers"), ("encoder.block", "decoder.block"), _T5),
}
"""By model type: the fields of its depths, where its layers are, and the rest of a tiny one."""

DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("num_hidden_layers", "model.layers", {**_USUAL, **_SPECIAL}),
    "gpt2": (
        "n_layer",
        "transformer.h",
        {"n_embd": 16, "n_head": 2, "n_positions": 64, **_SPECIAL},
    ),
}
"""By model type: the field of its depth, where its layers are, and the rest of a tiny one."""


DISTANCES = ("ce", "mse")


def objective_of(
    distance: str,
    temperature: float | None = 4.0,
    student_temperature: float | None = 4.0,
    alpha: float = 1.0,
    gradient_scale: GradientScale = "none",
) -> Objective:
    """What a student minimises under `distance`: MSE has nothing but α."""
    if distance == "mse":
        return Mse(alpha=alpha)
    assert temperature is not None
    assert student_temperature is not None
    return Ce(
        temperature=temperature,
        student_temperature=student_temperature,
        alpha=alpha,
        gradient_scale=gradient_scale,
    )


def tiny(layers: int = 1, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny BERT."""
    return {"model_type": "bert", "num_hidden_layers": layers, **_USUAL, **fields}


def tiny_seq2seq(layers: int = 1, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny BART with so many layers on each side."""
    return {"model_type": "bart", **dict.fromkeys(_SIDES, layers), **_BART, **fields}


def tiny_decoder(layers: int = 1, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny Llama."""
    return {"model_type": "llama", "num_hidden_layers": layers, **_USUAL, **fields}


def tiny_cnn(*widths: int, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny ResNet, with a block of each width."""
    return {
        "model_type": "resnet",
        "embedding_size": widths[0],
        "hidden_sizes": [*widths],
        "depths": [1] * len(widths),
        "layer_type": "basic",
        **fields,
    }


def tiny_vit(layers: int = 1, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny ViT for the images of the grammar."""
    usual = {name: value for name, value in _USUAL.items() if name != "max_position_embeddings"}
    sizes = {"image_size": SIDE, "patch_size": SIDE // 2}
    return {"model_type": "vit", "num_hidden_layers": layers, **usual, **sizes, **fields}


def kind_for(task: str) -> str:
    """A model type that can do a task."""
    others = {"translation": "bart", "lm": "llama", "image_classification": "vit"}
    return others.get(task, "bert")


def save_model(
    folder: Path,
    kind: str = "bert",
    *,
    layers: int = 2,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    texts: Sequence[str] | None = None,
    task: str = "classification",
    tokenizer: Any = None,
    **fields: Any,
) -> Path:
    """Write a tiny model at random with its own tokenizer, as `save_pretrained` does.

    An encoder-decoder has so many layers on each side. Its labels and its words are by default
    those of the task's data in these tests.
    """
    names = TASK_LABELS[task] if labels is None else labels
    if tokenizer is None:
        tokenizer = PROCESSOR if task == "image_classification" else None
        tokenizer = tokenizer or word_tokenizer(texts or task_texts(task))
    rest: dict[str, Any]
    if kind in SEQ2SEQ:
        depths, _, rest = SEQ2SEQ[kind]
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        rest = {**rest, **dict.fromkeys(depths, layers), **ends}
        rest["pad_token_id"] = rest["decoder_start_token_id"] = tokenizer.pad_token_id
    elif task == "image_classification":
        rest = tiny_vit(layers) if kind == "vit" else tiny_cnn(*[8] * layers)
        rest = {name: value for name, value in rest.items() if name != "model_type"}
    else:
        depth, _, rest = (ENCODERS | DECODERS).get(kind, ("num_hidden_layers", "", _USUAL))
        rest = {**rest, depth: layers}
    if names:
        rest["id2label"] = dict(enumerate(names))
        rest["label2id"] = {label: number for number, label in enumerate(names)}
    torch.manual_seed(seed)
    words = {} if task == "image_classification" else {"vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(kind, **{**rest, **words, **fields})
    model = TASKS[task].head.from_config(config)
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reader_in(task: str, folder: Path) -> Any:
    """The tokenizer that `save_model` wrote, or what stands in its place."""
    return PROCESSOR if task == "image_classification" else AutoTokenizer.from_pretrained(folder)


def model_in(task: str, folder: Path) -> Any:
    """The model that `save_model` wrote, as the worker loads one."""
    return load_model(folder, "model", TASKS[task], reader_in(task, folder)).eval()


def spread(model: Any) -> None:
    """Draw a tiny model's weights far apart: as drawn, it says the same to everything."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if hasattr(model, "final_logits_bias"):  # a buffer, of BART and its kin
        torch.nn.init.normal_(model.final_logits_bias)


def multilingual(kind: str, folder: Path) -> Any:
    """A tokenizer with language codes (mbart, mbart50, m2m_100) and the words of translations.

    M2M-100's needs a file in `folder`.
    """
    words = sorted({word for text in task_texts("translation") for word in text.split()})
    if kind == "m2m_100":
        corpus, model = folder / "corpus.txt", folder / "sentencepiece"
        corpus.write_text("\n".join(task_texts("translation")))
        SentencePieceTrainer.Train(
            input=str(corpus), model_prefix=str(model), vocab_size=70, minloglevel=2
        )
        processor = SentencePieceProcessor(model_file=f"{model}.model")
        every = [processor.IdToPiece(number) for number in range(3, 70)]
        names = ["<s>", "<pad>", "</s>", "<unk>", *every]
        vocabulary = folder / "vocab.json"
        vocabulary.write_text(json.dumps({name: number for number, name in enumerate(names)}))
        return M2M100Tokenizer(str(vocabulary), f"{model}.model")
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [*special, *((f"▁{word}", -1.0) for word in words), ("▁", -2.0)]
    return {"mbart": MBartTokenizer, "mbart50": MBart50Tokenizer}[kind](vocab=pieces)


def tiny_study(**sections: Any) -> dict[str, Any]:
    """The mapping of a study whose trainings take a fraction of a second."""
    return {
        "name": "tiny",
        "seed": 3,
        "datasets": {"sentences": {"grammar": {"train": 96, "validation": 24, "test": 20}}},
        "models": {
            "big": {"config": tiny(2, hidden_size=32)},
            "small": {"config": tiny(1)},
        },
        "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 12}}},
        "students": {"small": {"model": "small"}},
        "search": {
            "distance": ["ce", "mse"],
            "teacher": ["t_hs", "t_ll"],
            "student_temperature": ["tied"],
            "alpha": [1, 0.5],
            "temperature": {"broad": [1, 4]},
            "learning_rate": [1e-2],
        },
        "training": {"epochs": 2, "batch_size": 8, "max_length": 32, "precision": "fp32"},
        "resources": {"fuse": 1},  # nothing to measure at a launch
        **sections,
    }


def begin(folder: Path, study: dict[str, Any]) -> tuple[Ledger, Agenda]:
    """A study in `folder`, as `launch` begins it or goes on with it."""
    ledger = Ledger(folder)
    place = "study.yaml"
    return ledger, open_study(ledger, parse_study(study, place=place), data_dir=None, place=place)


def run_study(ledger: Ledger, agenda: Agenda, run_training: Any) -> None:
    """Run what is left of a study in this process."""
    worker = Worker(folder=ledger.folder, run_training=run_training)
    InProcessEngine(worker=worker).run(Dispatcher(agenda, ledger))


def task_study(task: str, **sections: Any) -> dict[str, Any]:
    """The mapping of a study on generated data of a task; few trainings, all of them short."""
    sizes = {"train": 96, "validation": 24, "test": 20}
    models = {"big": {"config": tiny(2, hidden_size=32)}, "small": {"config": tiny(1)}}
    if task == "translation":
        models = {
            "big": {"config": tiny_seq2seq(2, d_model=32)},
            "small": {"config": tiny_seq2seq()},
        }
    if task == "lm":
        models = {
            "big": {"config": tiny_decoder(2, hidden_size=32)},
            "small": {"config": tiny_decoder()},
        }
    if task == "image_classification":
        models = {"big": {"config": tiny_cnn(16, 32)}, "small": {"config": tiny_cnn(8)}}
    usual = tiny_study()
    beams = {"beams": 2} if task == "translation" else {}
    search = {**usual["search"], "teacher": ["t_hs"], **sections.pop("search", {})}
    training = {**usual["training"], "max_length": 64, **beams, **sections.pop("training", {})}
    return tiny_study(
        **{
            "datasets": {"data": {"task": task, "grammar": sizes}},
            "models": models,
            "teachers": {
                "big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 4}}
            },
            "search": search,
            "training": training,
            **sections,
        }
    )


def settings_of(task: str = "classification", **changes: Any) -> TrainingSettings:
    """The settings of short trainings in single precision, with the defaults of a task."""
    usual = {"epochs": 1, "batch_size": 8, "max_length": 64, "precision": "fp32", "beams": 2}
    return TrainingSettings(**{**usual, **changes}).for_task(task)


def data_of(task: str = "classification", **changes: Any) -> DataSpec:
    """The data of a task, for what is not told by rows."""
    return DataSpec(
        **{
            "task": task,
            "metric": columns_of("data", _dataset(task, 1)).metric,
            "labels": TASK_LABELS[task],
            "train": "",
            "validation": "",
            "test": "",
            **changes,
        }
    )


@cache
def rows_of(task: str, count: int = 96) -> tuple[Row, ...]:
    """Generated rows in the form in which a study keeps them."""
    if task == "image_classification":
        drawn = generate(count, "images", task=task)
        return tuple(
            {"pixels": pixels(encoded(row["image"], "image"), SIDE), "label": row["label"]}
            for row in drawn
        )
    rows = read_dataset("data", _dataset(task, count), data_dir=None, seed=0).splits["train"]
    return tuple(rows)


def _dataset(task: str, count: int) -> Dataset:
    grammar = {"train": count, "validation": 20, "test": 20}
    return Dataset.model_validate({"task": task, "grammar": grammar})


@cache
def task_texts(task: str) -> tuple[str, ...]:
    """The texts of the rows of a task."""
    if task == "classification":
        return SENTENCES
    return tuple(text for row in rows_of(task) for text in TASKS[task].texts(row))


def encode(
    task: str, rows: Sequence[Row], tokenizer: Any, *, training: bool = True, **changes: Any
) -> Encoded:
    """Rows as their task encodes them."""
    data = data_of(task, languages=changes.pop("languages", None))
    return TASKS[task].encode(
        list(rows), tokenizer, data, settings_of(task, **changes), training=training
    )


def everything(examples: Encoded) -> Any:
    """All examples as one batch."""
    return examples.batch(torch.arange(len(examples)))


def spec_of(ledger: Ledger, name: str, layers: int | str | None = None) -> ModelSpec:
    """The pretrained model `name` of a study, or some layers of it."""
    digest = ledger.resolved().models[name].digest
    return ModelSpec(
        name=name,
        weights=digest,
        config=None,
        tokenizer=str(digest),
        tokenizer_name=name,
        layers=layers,
    )


def first(agenda: Agenda, kind: str) -> Training:
    """The first training of a kind that can run now."""
    return next(r.training for r in agenda.requests() if r.training.kind == kind)


def without_cost(outcome: Outcome) -> str:
    """An outcome's JSON without what differs between equal runs."""
    return json.dumps({**written_outcome(outcome), "cost": None})


@torch.no_grad()
def one_by_one(model: Any, tokenizer: Any, rows: Sequence[Any], max_length: int = 32) -> Tensor:
    """The logits of a model for each row on its own, so that nothing is padded."""
    model.eval()
    wanted = ("input_ids", "attention_mask")
    parts = []
    for row in rows:
        encoding = tokenizer(
            *row["texts"], truncation=True, max_length=max_length, return_tensors="pt"
        )
        parts.append(model(**{name: encoding[name] for name in wanted}).logits)
    return torch.cat(parts)


def macro_f1(predicted: Sequence[int], gold: Sequence[int], classes: int) -> float:
    """The mean over the classes of 2·hits / (2·hits + false alarms + misses)."""
    scores = []
    for label in range(classes):
        hits = sum(p == label == g for p, g in zip(predicted, gold, strict=True))
        wrong = sum((p == label) != (g == label) for p, g in zip(predicted, gold, strict=True))
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return float(np.mean(scores))


def cross_entropy(logits_NC: np.ndarray[Any, Any], labels: Sequence[int]) -> float:
    """−log softmax at the labels, the mean over the rows."""
    logits = logits_NC.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_probabilities[np.arange(len(labels)), list(labels)].mean())


class Largest(TorchDispatchMode):
    """Sees how many numbers the largest tensor has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result
