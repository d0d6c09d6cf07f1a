from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.agenda import Agenda
from kdsearch.distill import run_training
from kdsearch.driver import open_study
from kdsearch.ledger import Ledger
from kdsearch.study import parse_study


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
