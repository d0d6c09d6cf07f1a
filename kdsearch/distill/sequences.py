"""A teacher writes a text in the place of each training row's label (Kim & Rush, EMNLP 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from kdsearch.agenda import SequencesTraining, WrittenRows
from kdsearch.distill.evaluation import autocast, predicted_together
from kdsearch.distill.models import known_inputs
from kdsearch.study import Row
from kdsearch.tasks import TASKS, Encoded, Gumbel, Writer


@torch.no_grad()
def write_sequences(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Row],
    training: SequencesTraining,
    device: torch.device,
    *,
    parts: int = 1,
) -> tuple[list[Row], WrittenRows]:
    """The rows that students learn on, and what became of all that the teacher wrote.

    In the order of the data's `rows`. Of a row that several texts are drawn for there are as many
    rows, under `rejection` one for each different text whose answer is right (as in rejection
    sampling fine-tuning, Yuan et al., 2023, arXiv 2308.01825). What has not ended within the most
    tokens is left out: a student would learn to break off. `parts`: see `evaluation.predict`.
    """
    task, settings = _writer(training), training.settings
    # No prompt is cut that a training row has room for, and none that is longer seems to fit.
    wide = settings.model_copy(update={"max_length": 2 * settings.max_length})
    examples = task.encode(rows, tokenizer, training.data, wide, training=False)
    examples = known_inputs(model, examples.to(device))
    drawn = _texts(model, tokenizer, examples, training, device, parts)
    found: list[Row] = []
    counts = dict.fromkeys(WrittenRows.model_fields, 0)
    for row, right, texts in zip(rows, examples.references, drawn, strict=True):
        kept: list[Row] = []
        for text in texts:
            counts["texts"] += 1
            what = _fault(task, training, row, right, text, kept)
            if what is not None:
                counts[what] += 1
                continue
            assert text is not None
            written = task.written(row, text, right)
            assert written is not None
            kept.append(written)
        counts["without"] += not kept
        found += kept
    return found, WrittenRows(**counts)


def _writer(training: SequencesTraining) -> Writer:
    return cast(Writer, TASKS[training.data.task])  # other tasks are refused before a search


def _fault(
    task: Writer,
    training: SequencesTraining,
    row: Row,
    right: Any,
    text: str | None,
    before: list[Row],
) -> str | None:
    """Why a text is not learnt from, a field of `WrittenRows`; None where it is."""
    if text is None:
        return "unfinished"
    written = task.written(row, text, right)
    if written is None:
        return "empty"
    if training.how != "rejection":
        return None
    if not task.is_right(text, right, training.data):
        return "wrong"
    return "repeated" if written in before else None


def _texts(
    model: nn.Module,
    tokenizer: Any,
    examples: Encoded,
    training: SequencesTraining,
    device: torch.device,
    parts: int,
) -> Iterator[tuple[str | None, ...]]:
    """The texts of each row, those of similar length written together."""
    task, data, settings = _writer(training), training.data, training.settings
    model.eval()
    samples: list[list[str | None]] = []
    for sample in range(settings.samples or 1):
        texts: list[str | None] = [None] * len(examples)
        for indices in predicted_together(model, examples, settings, parts):
            batch, numbers = examples.batch(indices), indices.tolist()
            noise = None
            if settings.temperature is not None:
                names = [(training.seed, number, sample) for number in numbers]
                noise = Gumbel(settings.temperature, names, device)
            with autocast(device, settings.precision):
                said = task.write(model, tokenizer, batch, data, settings, noise)
            for number, text in zip(numbers, said, strict=True):
                texts[number] = text
        samples.append(texts)
    return zip(*samples, strict=True)
