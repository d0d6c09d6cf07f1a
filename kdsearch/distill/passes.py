"""What a teacher's checkpoint does for students: its outputs, its signals, the texts it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from kdsearch.agenda import (
    Outcome,
    OutputsTraining,
    SequencesTraining,
    TestScore,
)
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.models import (
    check_head,
)
from kdsearch.distill.outputs import write_outputs, write_signal
from kdsearch.distill.scale import logit_scale, written_logits, written_outputs
from kdsearch.distill.sequences import write_sequences
from kdsearch.distill.softmax import TEMPERATURES, SoftmaxTally
from kdsearch.distill.tokens import token_rows
from kdsearch.distill.worker import Worker
from kdsearch.ledger import layout
from kdsearch.search import ValidationScore
from kdsearch.study import HIDDEN, SPLITS
from kdsearch.tasks import TASKS, Encoded


class Passes(Worker):
    """The kinds of training that pass a checkpoint over the data."""

    def outputs(self, training: OutputsTraining) -> Outcome:
        """Score a checkpoint on a split; for the training split, keep what it says instead.

        Or what it computes inside of it.
        """
        data, settings, checkpoint = training.data, training.settings, training.checkpoint
        task = TASKS[data.task]
        if training.sequences:
            self._ensure_sequences(training.sequences, checkpoint)
        tokenizer = self._tokenizer(checkpoint.model, data)
        model = self._teacher(checkpoint, task, data, tokenizer).to(self._device)
        if training.signal is not None:
            return self._keep_signal(training, model)
        order = [checkpoint.labels.index(label) for label in data.labels]
        if training.split == "train":
            return self._with_scale(self._keep_outputs(training, model, order), model)
        examples = self._encoded(model, checkpoint.model, data, training.split, settings)
        read_first_alone(model, task, examples)
        scored = evaluate(
            *(model, task, tokenizer, examples, data, settings),
            order=order,
            parts=self._parts,
            also=data.also if training.split == "test" else (),
            timed=training.split == "test",
            cold=training.split == "test",
            temperatures=TEMPERATURES,
        )
        outcome = self._outcome(training, model, None)
        if scored.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        if training.split == "validation":
            score: dict[str, Any] = {"validation": ValidationScore(scored.score)}
        else:
            score = {
                "test": TestScore(scored.score),
                "digests": self._keep_rows(training, scored, examples),
                "cost": self._cost(0, speed=scored.examples_per_second),
            }
        found = {"measures": scored.measures, "softmax": scored.softmax}
        return outcome.model_copy(update={**found, **score})

    def _keep_signal(self, training: OutputsTraining, model: Any) -> Outcome:
        """Write what a model computes inside of it on the training split."""
        assert training.signal is not None
        settings, task = training.settings, TASKS[training.data.task]
        outcome = self._outcome(training, model, None)
        examples = self._passed(training, model, "train")
        path = self._ledger.path(layout.outputs(training.key))
        parts = self._parts
        written = write_signal(
            *(path, model, task, examples, settings, training.signal), parts=parts
        )
        if written is None:
            return outcome.model_copy(update={"state": "diverged"})
        return self._with_files(training, outcome, written)

    def _keep_outputs(self, training: OutputsTraining, model: Any, order: Sequence[int]) -> Outcome:
        """Write what a model says: of the training split to learn from, of the others to measure.

        A head lies beside the former alone.
        """
        settings, task = training.settings, TASKS[training.data.task]
        outcome = self._outcome(training, model, None)
        files: dict[Path, str] = {}
        for split in SPLITS:
            examples = self._passed(training, model, split)
            if split == "train":
                examples = replace(examples, views=self._views(settings, settings.views_seed))
            if task.wide:
                check_head(model, task, examples)
            if split == "train":
                read_first_alone(model, task, examples)
            path = self._ledger.path(layout.outputs(training.key, split))
            learnt = split == "train"
            tokens = token_rows(training, model, examples.classes) if learnt else None
            written = write_outputs(
                *(path, model, task, examples, settings, order),
                parts=self._parts,
                with_head=learnt,
                tokens=tokens,
            )
            if written is None and learnt:
                return outcome.model_copy(update={"state": "diverged"})
            if tokens is not None:
                outcome = outcome.model_copy(update={"measures": tokens.measures})
            files |= written or {}
        return self._with_files(training, outcome, files)

    def _passed(self, training: OutputsTraining, model: nn.Module, split: str) -> Encoded:
        """A split, or what the checkpoint wrote in the place of the training split."""
        return self._encoded(
            *(model, training.checkpoint.model, training.data, split, training.settings),
            sequences=training.sequences if split == "train" else None,
        )

    def _with_files(
        self, training: OutputsTraining, outcome: Outcome, written: Mapping[Path, str]
    ) -> Outcome:
        """An outcome with the digests of files that were written, and their size.

        And with the digest of the rows, where the checkpoint wrote these: on others it is no more
        whole.
        """
        digests = {str(file.relative_to(self._ledger.folder)): d for file, d in written.items()}
        if training.sequences:
            digests |= self._ensure_sequences(training.sequences, training.checkpoint)
        size = sum(file.stat().st_size for file in written)
        return outcome.model_copy(update={"digests": digests, "cost": self._cost(size)})

    def _with_scale(self, outcome: Outcome, model: Any) -> Outcome:
        """The outcome of a teacher's outputs with their logit scale, and their softmax."""
        training = outcome.training
        assert isinstance(training, OutputsTraining)
        if outcome.state == "diverged" or training.settings.cache != HIDDEN:
            return outcome
        task, data = TASKS[training.data.task], training.data
        examples = self._encoded(
            *(model, training.checkpoint.model, data, "train", training.settings),
            sequences=training.sequences,
        )
        written = written_outputs(self._ledger.path(layout.outputs(training.key)), model, task)
        found: dict[str, Any] = {"logit_scale": logit_scale(task, written, examples)}
        if not task.wide:
            softmax = SoftmaxTally(TEMPERATURES)
            for logits, real in written_logits(task, written, examples):
                softmax.add(logits.to(self._device), real)
            found["softmax"] = softmax.values()
        return outcome.model_copy(update=found)

    def sequences(self, training: SequencesTraining) -> Outcome:
        """Have a checkpoint write the rows that students learn on."""
        data, checkpoint = training.data, training.checkpoint
        tokenizer = self._tokenizer(checkpoint.model, data)
        model = self._teacher(checkpoint, TASKS[data.task], data, tokenizer).to(self._device)
        rows, wrote = write_sequences(
            *(model, tokenizer, self._ledger.rows(data.train), training, self._device),
            parts=self._parts,
        )
        outcome = self._outcome(training, model, None).model_copy(update={"wrote": wrote})
        if not rows:
            return outcome.model_copy(update={"state": "diverged"})
        digest = self._ledger.write_sequences(training.key, rows)
        name = layout.sequences(training.key)
        size = self._ledger.path(name).stat().st_size
        return outcome.model_copy(update={"digests": {name: digest}, "cost": self._cost(size)})
