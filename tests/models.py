"""Tiny real models and studies that the tests of the training layer share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsearch.agenda import Agenda, ModelSpec, Outcome, Training
from kdsearch.distill.models import word_tokenizer
from kdsearch.driver import Dispatcher, open_study
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.ledger import Ledger
from kdsearch.study import parse_study
from kdsearch.study.grammar import LABELS, generate

torch.set_num_threads(1)  # as trainings do: more threads only get in each other's way here

LABEL_NAMES = tuple(LABELS)
SENTENCES = tuple(str(row["sentence"]) for row in generate(200, "words"))

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


def tiny(layers: int = 1, **fields: Any) -> dict[str, Any]:
    """A study's `config` of a tiny BERT."""
    return {"model_type": "bert", "num_hidden_layers": layers, **_USUAL, **fields}


def save_model(
    folder: Path,
    kind: str = "bert",
    *,
    layers: int = 2,
    labels: Sequence[str] = LABEL_NAMES,
    seed: int = 0,
    texts: Sequence[str] = SENTENCES,
    **fields: Any,
) -> Path:
    """Write a tiny model at random with its own tokenizer, as `save_pretrained` does."""
    depth, _, rest = ENCODERS.get(kind, ("num_hidden_layers", "", _USUAL))
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind,
        **{
            **rest,
            depth: layers,
            "vocab_size": len(tokenizer),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            **fields,
        },
    )
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():  # as drawn, a tiny model says the same to everything
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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


def spec_of(ledger: Ledger, name: str, layers: int | None = None) -> ModelSpec:
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
    return outcome.model_dump_json(exclude={"cost"})


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
