"""Extractive question answering.

A row: {"question": "Who wrote it?", "context": "Ada wrote it.", "answers": [{"text": "Ada",
"start": 0}]}

A long context is read in windows that overlap. The teacher's outputs are a row per token of the
context: the logits of an answer that starts and of one that ends there. Each window has two units,
the distribution of the start and that of the end over the window's context. The first answer is
what is learnt; a window that does not hold it whole has no label. Of all windows of a question the
span with the highest sum of logits is the prediction, of at most 30 tokens. Scored by SQuAD's
token-overlap F1 or exact match, the best over the answers (Rajpurkar et al. 2016).

Where questions may be unanswerable, as in SQuAD 2 (Rajpurkar et al. 2018), a row's answers may be
empty, and the first token of a window, [CLS], is its first row, a class of both units: the label of
a window that does not hold the answer (Devlin et al. 2019). A question is answered with nothing
where the lowest sum of the logits there, over its windows, is above that of the best span: as
transformers' run_qa does it, with its threshold of 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForQuestionAnswering

from kdsearch.agenda import DataSpec
from kdsearch.errors import InputError
from kdsearch.tasks.base import IGNORED, Batch, Encoded, Settings, model_inputs
from kdsearch.tasks.heads import said_by

_LONGEST_ANSWER = 30
"""In tokens, as in BERT's and SQuAD's own code."""

Offsets = Sequence[tuple[int, int]]


class Span(NamedTuple):
    """The best answer that a window's context holds."""

    score: float
    """The sum of its logits."""
    first: int
    """The number of its first token among the window's `offsets`."""
    last: int
    null: float = float("-inf")
    """The sum of the logits at [CLS], for no answer."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What the prediction for an example is scored against."""

    question: int
    """Its number in the split: windows of one question compete."""
    context: str
    offsets: np.ndarray[Any, Any]
    """[positions, 2]: where each begins and ends in the context, in characters. As numbers rather
    than pairs: a large split has tens of millions of rows."""
    answers: Sequence[str]


class QuestionAnswering:
    """See `Task`."""

    head = AutoModelForQuestionAnswering
    reads_pixels = False
    per_token = True
    wide = False

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """Question and context."""
        return row["question"], row["context"]

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """The question and a window of the context; questions are cut to a quarter of it."""
        assert settings.max_length is not None
        assert settings.stride is not None
        questions = [row["question"] for row in rows]
        encoding = tokenizer(
            _cut_questions(questions, tokenizer, settings.max_length // 4),
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=settings.max_length,
            stride=settings.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        _see_that_windows_reach_the_end(encoding, [row["context"] for row in rows], tokenizer)
        inputs = model_inputs(encoding, tokenizer)
        counted = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
        labels: list[Tensor] = []
        references = []
        for index, question in enumerate(encoding["overflow_to_sample_mapping"]):
            row = rows[question]
            sequences = encoding.sequence_ids(index)
            positions = [token for token, sequence in enumerate(sequences) if sequence == 1]
            offsets = [tuple(encoding["offset_mapping"][index][token]) for token in positions]
            counted[index, positions] = True
            if data.unanswerable:
                counted[index, 0] = True
            labels.append(_labels(row["answers"], offsets, unanswerable=data.unanswerable))
            if not training:
                references.append(_window(question, row, offsets))
        return Encoded(
            inputs=inputs,
            lengths=torch.tensor([len(ids) for ids in encoding["input_ids"]]),
            counted=counted,
            labels=torch.cat(labels),
            references=references,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[positions of contexts, 2]; of unanswerable questions, that of [CLS] before them."""
        found = said_by(model, batch.arguments)
        return torch.stack([found.start_logits, found.end_logits], dim=-1)[batch.counted]

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """[2 × windows, positions]: the starts of all windows, then the ends."""
        return _by_window(values_RW, batch).flatten(0, 1), _real(batch).repeat(2, 1)

    def labels(self, batch: Batch) -> Tensor:
        """[2 × windows]: the positions of the starts, then of the ends."""
        marks = _by_window(batch.labels, batch).flatten(0, 1)
        return torch.where(marks.any(dim=1), marks.argmax(dim=1), IGNORED)

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[Span]:
        """The best span of each window."""
        starts_BP, ends_BP = _by_window(values_RW.float(), batch)
        real_BP = _real(batch)
        size = real_BP.shape[1]
        sums_BPP = starts_BP[:, :, None] + ends_BP[:, None, :]
        allowed_PP = torch.ones(size, size, dtype=torch.bool, device=sums_BPP.device)
        allowed_PP = allowed_PP.triu().tril(_LONGEST_ANSWER - 1)
        nulls = [float("-inf")] * len(real_BP)
        before = 0
        if data.unanswerable:  # [CLS] is the first row, before the context
            nulls = sums_BPP[:, 0, 0].tolist()
            allowed_PP[0] = False
            before = 1
        allowed_BPP = allowed_PP & real_BP[:, :, None] & real_BP[:, None, :]
        best = sums_BPP.masked_fill(~allowed_BPP, float("-inf")).flatten(1).max(dim=1)
        return [
            Span(score, index // size - before, index % size - before, null)
            for score, index, null in zip(
                best.values.tolist(), best.indices.tolist(), nulls, strict=True
            )
        ]

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """The mean over the questions."""
        name = "exact_match" if data.metric == "exact_match" else "f1"
        scores = self.statistics(predictions, references, data)[name]
        return sum(scores) / len(scores)

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """The exact match and the F1 of each question, the best over its answers."""
        best: dict[int, tuple[Span, Window]] = {}
        nulls: dict[int, float] = {}
        for span, window in zip(predictions, references, strict=True):
            question = window.question
            nulls[question] = min(span.null, nulls.get(question, span.null))
            if question not in best or span.score > best[question][0].score:
                best[question] = (span, window)
        scores: dict[str, list[float]] = {"exact_match": [], "f1": []}
        measures = ((scores["exact_match"], exact_match), (scores["f1"], token_f1))
        for question, (span, window) in best.items():
            text = "" if nulls[question] > span.score else _text(span, window)
            answers = window.answers
            if data.unanswerable:  # as SQuAD 2's script has it: "the" is no answer
                answers = [answer for answer in answers if _normalised(answer)]
            for found, measure in measures:
                if answers:
                    found.append(max(measure(text, answer) for answer in answers))
                else:
                    found.append(float(not _normalised(text)))
        return scores

    def signature(self, data: DataSpec) -> str:
        """Which of the two, of SQuAD 1 or 2."""
        measure = "exact match" if data.metric == "exact_match" else "token-overlap F1"
        if data.unanswerable:
            return f"SQuAD 2 {measure}, no-answer threshold 0"
        return f"SQuAD {measure}"


def token_f1(prediction: str, answer: str) -> float:
    """The F1 of the words that two answers share."""
    found, wanted = _normalised(prediction).split(), _normalised(answer).split()
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def exact_match(prediction: str, answer: str) -> float:
    """1 if two answers are the same but for case, punctuation, articles and spaces."""
    return float(_normalised(prediction) == _normalised(answer))


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _normalised(text: str) -> str:
    """As SQuAD's official evaluation does it."""
    text = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION))
    return " ".join(text.split())


def _text(span: Span, window: Window) -> str:
    if not len(window.offsets):
        return ""
    return window.context[window.offsets[span.first][0] : window.offsets[span.last][1]]


def _cut_questions(questions: list[str], tokenizer: Any, tokens: int) -> list[str]:
    """Questions of at most so many tokens, so that the context has room beside them."""
    encoding = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        # a letter may be several tokens, of which no part is kept
        question[: min(offsets[tokens - 1][1], offsets[tokens][0])]
        if len(offsets) > tokens
        else question
        for question, offsets in zip(questions, encoding["offset_mapping"], strict=True)
    ]


def _window(question: int, row: Mapping[str, Any], offsets: list[tuple[int, int]]) -> Window:
    packed = np.array(offsets, dtype=np.int32).reshape(-1, 2)
    answers = [answer["text"] for answer in row["answers"]]
    return Window(question=question, context=row["context"], offsets=packed, answers=answers)


def _see_that_windows_reach_the_end(encoding: Any, contexts: Sequence[str], tokenizer: Any) -> None:
    """Raise `InputError` where the longest context's last window does not hold its last token.

    tokenizers 0.23.1 and 0.23.2 give the first windows alone. pip takes neither with kdsearch, but
    they may be there by other ways.
    """
    longest = max(range(len(contexts)), key=lambda number: len(contexts[number]))
    whole = tokenizer(
        contexts[longest], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    windows = encoding["overflow_to_sample_mapping"]
    last = max(index for index, question in enumerate(windows) if question == longest)
    offsets = zip(encoding["offset_mapping"][last], encoding.sequence_ids(last), strict=True)
    reached = max((end for (_, end), sequence in offsets if sequence == 1), default=0)
    if reached < max((end for _, end in whole["offset_mapping"]), default=0):
        what = f"{version('tokenizers')} only gives the first windows of a long context"
        raise InputError.one("tokenizers", what, "pip install -U tokenizers, on every node")


def _labels(
    answers: Sequence[Mapping[str, Any]] | None, offsets: Offsets, *, unanswerable: bool
) -> Tensor:
    """[rows, 2]: where the first answer starts and ends, if the window holds it whole.

    Else at [CLS], the first row where a question may be `unanswerable`; nowhere without such a row,
    or where the answers are not known.
    """
    marks = torch.zeros(unanswerable + len(offsets), 2, dtype=torch.long)
    held = False
    if answers and offsets:
        text = answers[0]["text"]
        start = answers[0]["start"] + len(text) - len(text.lstrip())
        end = start + len(text.strip())  # the space behind it may belong to the next token
        held = offsets[0][0] <= start and end <= offsets[-1][1]
    if held:
        first = next(i for i, (_, behind) in enumerate(offsets) if behind > start)
        last = max(i for i, (before, _) in enumerate(offsets) if before < end)
        if first <= last:  # else none of its letters has a token
            marks[unanswerable + first, 0] = marks[unanswerable + last, 1] = 1
    elif unanswerable and answers is not None:
        marks[0] = 1
    return marks


def _by_window(values_RW: Tensor, batch: Batch) -> Tensor:
    """[2, windows, positions]: starts and ends, 0 behind the last position of a window."""
    real_BP = _real(batch)
    values_BPW = values_RW.new_zeros(*real_BP.shape, 2)
    values_BPW[real_BP] = values_RW
    return values_BPW.permute(2, 0, 1)


def _real(batch: Batch) -> Tensor:
    """[windows, positions]: which positions are there."""
    real_BP = torch.arange(max(1, int(batch.counts.max()))) < batch.counts[:, None]
    return real_BP.to(batch.labels.device)
