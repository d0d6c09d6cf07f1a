"""Token classification of words: named entities, slots.

A row: {"words": ["Ada", "Byron", "wrote", "it"], "tags": [1, 2, 0, 0]}, with O, B-PER, I-PER
The teacher's outputs are a row of logits per word, that of its first sub-word; the others count
neither in the loss nor in the score. Scored by the F1 of whole entities, or by words' accuracy.

Tags are IOB2, or in the scheme of a given teacher (see `study.tags`). A word without a token, or
beyond the most tokens, is predicted to be O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from kdsearch.agenda import DataSpec
from kdsearch.study.tags import OUTSIDE, Scheme, scheme_of, scored_entities
from kdsearch.tasks.base import IGNORED, Batch, Encoded, Settings, model_inputs
from kdsearch.tasks.heads import said_by


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What the prediction for an example is scored against."""

    tags: Sequence[int]
    """Of every word."""
    words: Sequence[int]
    """The words that the rows of the example belong to."""


class Ner:
    """See `Task`."""

    head = AutoModelForTokenClassification
    reads_pixels = False
    per_token = True
    wide = False

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """The words."""
        words: list[str] = row["words"]
        return words

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """The words with spaces between them, without blank ones, cut to the most tokens."""
        spoken = [[i for i, word in enumerate(row["words"]) if word.strip()] for row in rows]
        texts = [[row["words"][i] for i in words] for row, words in zip(rows, spoken, strict=True)]
        encoding = tokenizer(
            [" ".join(words) for words in texts],
            truncation=True,
            max_length=settings.max_length,
            return_offsets_mapping=True,
        )
        inputs = model_inputs(encoding, tokenizer)
        counted = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
        labels: list[int] = []
        references = []
        for index, row in enumerate(rows):
            found = _first_tokens(texts[index], encoding["offset_mapping"][index])
            firsts = {spoken[index][word]: token for word, token in found.items()}
            counted[index, list(firsts.values())] = True
            tags = row["tags"]
            labels += [IGNORED if tags is None else tags[word] for word in firsts]
            if not training:
                references.append(Sentence(tags=tags, words=tuple(firsts)))
        return Encoded(
            inputs=inputs,
            lengths=torch.tensor([len(ids) for ids in encoding["input_ids"]]),
            counted=counted,
            labels=torch.tensor(labels, dtype=torch.long),
            references=references,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[words, tags]."""
        logits: Tensor = said_by(model, batch.arguments).logits
        return logits[batch.counted]

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A word each."""
        return values_RW, None

    def labels(self, batch: Batch) -> Tensor:
        """[words]."""
        return batch.labels

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[list[int]]:
        """The tag of the highest logit of each word that has a row."""
        tags = values_RW.argmax(dim=1).split(batch.counts.tolist())
        return [part.tolist() for part in tags]

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """Entities' micro F1, or the accuracy over words."""
        pairs = _tagged(predictions, references, data)
        return accuracy(pairs) if data.metric == "accuracy" else entity_f1(pairs, _scheme(data))

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """Entities that were hit, false ones and misses; or words and those that are right."""
        pairs = _tagged(predictions, references, data)
        if data.metric == "accuracy":
            right = [sum(map(eq, predicted, gold)) for predicted, gold in pairs]
            return {"right": [*right], "words": [len(gold) for _, gold in pairs]}
        counts = [_counts(predicted, gold, _scheme(data)) for predicted, gold in pairs]
        return {
            "hits": [hits for hits, _, _ in counts],
            "false": [found - hits for hits, found, _ in counts],
            "missed": [wanted - hits for hits, _, wanted in counts],
        }

    def signature(self, data: DataSpec) -> str:
        """Which of the two."""
        if data.metric == "accuracy":
            return "words' accuracy"
        return f"micro F1 of entities, {_scheme(data)}"


Tagged = Sequence[tuple[Sequence[str], Sequence[str]]]
"""Of each sentence the predicted tags and the gold ones."""


def _tagged(
    predictions: Sequence[Sequence[int]], references: Sequence[Sentence], data: DataSpec
) -> Tagged:
    pairs = []
    outside = data.labels.index(OUTSIDE)
    for predicted, sentence in zip(predictions, references, strict=True):
        tags = [outside] * len(sentence.tags)
        for word, tag in zip(sentence.words, predicted, strict=True):
            tags[word] = tag
        gold = [data.labels[tag] for tag in sentence.tags]
        pairs.append(([data.labels[tag] for tag in tags], gold))
    return pairs


def _scheme(data: DataSpec) -> Scheme:
    scheme = scheme_of(data.labels)
    assert scheme is not None  # a study with other tags does not resolve
    return scheme


def entity_f1(sentences: Tagged, scheme: Scheme = "IOB2") -> float:
    """2·hits / (predicted + gold entities); a hit has the same kind, start and end."""
    hits = total = 0
    for predicted, gold in sentences:
        hit, found, wanted = _counts(predicted, gold, scheme)
        hits += hit
        total += found + wanted
    return 2 * hits / total if total else 0.0


def _counts(predicted: Sequence[str], gold: Sequence[str], scheme: Scheme) -> tuple[int, int, int]:
    """The entities of a sentence that are in both, in the prediction, and in the gold tags."""
    found, wanted = (set(scored_entities(tags, scheme)) for tags in (predicted, gold))
    return len(found & wanted), len(found), len(wanted)


def accuracy(sentences: Tagged) -> float:
    """The share of words whose tag is right."""
    pairs = [pair for predicted, gold in sentences for pair in zip(predicted, gold, strict=True)]
    return sum(found == wanted for found, wanted in pairs) / len(pairs)


def _first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The first token of each word that has one, by the word's number.

    Offsets count characters of the words joined by spaces; some tokenizers put the space before a
    word into its first token.
    """
    starts = [0]
    for word in words[:-1]:
        starts.append(starts[-1] + len(word) + 1)
    text = " ".join(words)
    firsts: dict[int, int] = {}
    for token, (start, end) in enumerate(offsets):
        blank = len(text[start:end]) - len(text[start:end].lstrip())
        if start + blank < end:
            firsts.setdefault(bisect_right(starts, start + blank) - 1, token)
    return firsts
