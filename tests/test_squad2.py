from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import torch
from test_ner import word_pieces
from test_qa import LONG, row
from torch import nn

from kdsearch.agenda import DataSpec
from kdsearch.study import TrainingSettings
from kdsearch.study.parsers import Columns, parse_rows
from kdsearch.study.rows import digest_rows
from kdsearch.tasks import QuestionAnswering

TASK = QuestionAnswering()


class Arithmetic(nn.Module):
    """A model whose logits are whole numbers, made of token and position."""

    def forward(self, input_ids: Any, **_: Any) -> SimpleNamespace:
        places = torch.arange(input_ids.shape[1])
        return SimpleNamespace(
            start_logits=(input_ids * 7 + places * 3) % 31,
            end_logits=(input_ids * 5 + places * 11) % 29,
        )


# -- where every question has an answer nothing changed -----------------------------------------


def test_rows_encodings_outputs_and_predictions_of_plain_questions_are_what_they_were() -> None:
    raw = [
        {
            "question": each["question"],
            "context": each["context"],
            "answers": {
                "text": [answer["text"] for answer in each["answers"]],
                "answer_start": [answer["start"] for answer in each["answers"]],
            },
        }
        for each in (row(LONG, LONG.split()[7]), row("Ada did, not Bob.", "Bob", "Ada"))
    ]
    columns = Columns(
        task="qa", text=("question", "context"), label="answers", labels=(), metric="f1"
    )
    rows = parse_rows("here", raw, columns, labelled=True)
    data = DataSpec(task="qa", metric="f1", labels=(), train="", validation="", test="")
    settings = TrainingSettings(max_length=40, stride=12)
    encoded = TASK.encode(rows, word_pieces(), data, settings, training=False)
    batch = encoded.batch(torch.arange(len(encoded)))
    values = TASK.outputs(Arithmetic(), batch)
    logits, real = TASK.units(values.float(), batch)
    assert real is not None
    model = Arithmetic()
    spans = TASK.decode(model, None, batch, values, data, settings)
    found = {
        "rows": digest_rows(rows),
        "inputs": {name: ids.tolist() for name, ids in encoded.inputs.items()},
        "lengths": encoded.lengths.tolist(),
        "counted": encoded.counted.tolist(),
        "labels": encoded.labels.tolist(),
        "references": [
            [window.question, window.context, window.offsets.tolist(), list(window.answers)]
            for window in encoded.references
        ],
        "values": values.tolist(),
        "units": [logits.tolist(), real.tolist(), TASK.labels(batch).tolist()],
        "spans": [list(span)[:3] for span in spans],
        "score": TASK.score(spans, encoded.references, data),
        "signature": TASK.signature(data),
    }
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert digest[:24] == "583ee812cd2e28b9d5fda511"
