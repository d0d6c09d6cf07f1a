"""The metadata that the Hugging Face Hub reads at the top of a model card."""

from __future__ import annotations

import re
from typing import Any

from kdsearch.agenda import Agenda, Outcome, StudentTraining, TestScore
from kdsearch.study import CATALOGUE, SPECS, TestCase
from kdsearch.study.entry import Entry

METRICS = {
    ("classification", "f1"): "f1",
    ("classification", "accuracy"): "accuracy",
    ("image_classification", "accuracy"): "accuracy",
    ("image_classification", "f1"): "f1",
    ("ner", "f1"): "seqeval",
    ("ner", "accuracy"): "accuracy",
    ("qa", "f1"): "squad",
    ("qa", "exact_match"): "squad",
    ("lm", "likelihood"): "likelihood",
    ("lm", "exact_match"): "exact_match",
    ("lm", "multiple_choice"): "accuracy",
    ("lm", "rouge_l"): "rouge",
    ("translation", "bleu"): "sacrebleu",
    ("translation", "chrf"): "chrf",
}
"""What the Hub calls a task's metric."""


def metadata(agenda: Agenda, case: TestCase, outcome: Outcome, test: TestScore) -> dict[str, Any]:
    """What is known of the student of `outcome`, whose test score is `test`, and nothing else."""
    training = outcome.training
    assert isinstance(training, StudentTraining)
    data, model = training.data, training.model
    source = agenda.resolved.study.models[model.name]
    entry = _entry(agenda, case.dataset)
    metric = METRICS[data.task, data.metric]
    if data.unanswerable:
        metric += "_v2"
    found = {
        "library_name": "transformers",
        "pipeline_tag": SPECS[data.task].pipeline,
        "language": [code for each in data.languages or () if (code := _language(each))],
        "base_model": source.hub,
        "base_model_relation": "finetune" if source.hub and model.layers is None else None,
        "datasets": list(dict.fromkeys(p.hub for ps in entry.parts.values() for p in ps))
        if entry
        else [],
        "metrics": [metric],
        "tags": [*(["knowledge-distillation"] if training.teaching else []), "kdsearch"],
        "model-index": [
            {
                "name": str(case),
                "results": [
                    {
                        "task": {"type": SPECS[data.task].pipeline},
                        "dataset": _test_set(agenda, case.dataset, entry),
                        "metrics": [
                            {
                                "type": metric if data.task == "translation" else data.metric,
                                "value": float(test),
                                "name": outcome.metric,
                            }
                        ],
                    }
                ],
            }
        ],
    }
    return {name: value for name, value in found.items() if value}


def _entry(agenda: Agenda, name: str) -> Entry | None:
    """The catalogue's, of a data set that is one of its."""
    dataset = agenda.resolved.study.datasets[name]
    if dataset.files is not None or dataset.grammar is not None:
        return None
    return CATALOGUE[dataset.catalogue or name]


def _test_set(agenda: Agenda, name: str, entry: Entry | None) -> dict[str, str]:
    """The Hub's name of it, where the test rows are exactly a split of the Hub."""
    read = agenda.resolved.datasets[name]
    parts = entry.parts.get("test", ()) if entry else ()
    limited = agenda.resolved.study.datasets[name].limit.test is not None
    if len(parts) != 1 or parts[0].keep or limited or "test" in read.left_out or read.files:
        return {"name": name, "type": name, "split": "test"}
    [part] = parts
    config = {"config": part.config} if part.config else {}
    return {"name": name, "type": part.hub, **config, "split": part.split}


def _language(code: str) -> str | None:
    """That of a tokenizer's code for it, such as de_DE, __de__ or deu_Latn."""
    found = code.strip("_").split("_")[0]
    return found if re.fullmatch("[a-z]{2,3}", found) else None
