"""A tokenizer at a data set, as the trainings use it: what it makes of the rows, in numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from kdsearch.agenda import DataSpec
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.vocabulary import tokenizer_of, tokenizer_source
from kdsearch.study import SAMPLE, Reading, Resolved, Row, TrainingSettings
from kdsearch.study.tags import Entity, scheme_of, scored_entities
from kdsearch.tasks import (
    GENERATING,
    TASKS,
    Encoded,
    has_languages,
    prompts_and_completions,
)


@dataclass(frozen=True, kw_only=True)
class Count:
    """How a tokenizer reads some rows of a split."""

    rows: int
    cut: int
    tokens: int
    unknown: int
    parts: int | None
    """Entities, or answers; None of tasks that have neither."""
    beyond: int

    @property
    def unknown_share(self) -> float:
        """Of the tokens: those that stand for anything."""
        return self.unknown / max(1, self.tokens)

    @property
    def cut_share(self) -> float:
        """Of the rows."""
        return self.cut / max(1, self.rows)

    @property
    def beyond_share(self) -> float:
        """Of the entities or answers."""
        return self.beyond / max(1, self.parts or 0)

    def reading(self, dataset: str, model: str, split: str) -> Reading:
        """The same as shares."""
        return Reading(
            dataset=dataset,
            model=model,
            split=split,
            rows=self.rows,
            unknown=self.unknown_share,
            cut=self.cut_share,
            beyond=None if self.parts is None else self.beyond_share,
        )


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A row as a tokenizer reads it, without the special tokens."""

    ids: Sequence[int]
    cut: bool
    """Whether it, a question, or a side of a pair is longer than it may be."""
    long: bool
    """Whether a model is given less than all of it at a time."""


class Reader:
    """A tokenizer, as the trainings on a data set use it."""

    def __init__(
        self,
        resolved: Resolved,
        dataset: str,
        model: str,
        training: Sequence[Row],
        settings: TrainingSettings,
    ) -> None:
        data = resolved.datasets[dataset]
        self.dataset = dataset
        self.settings = settings
        self._seed = resolved.study.seed
        self._data = DataSpec.of(data)
        self._task = TASKS[data.task]
        tokenizer = tokenizer_of(*tokenizer_source(resolved, model))
        self.of_words = tokenizer is None
        """Whether it knows the words of the training split, as a model at random does."""
        if tokenizer is None:
            texts = (text for row in training for text in self._task.texts(row))
            tokenizer = word_tokenizer(texts)
        if data.languages is not None and has_languages(tokenizer):
            tokenizer.src_lang, tokenizer.tgt_lang = data.languages
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        self.vocabulary: int = max(tokenizer.get_vocab().values()) + 1

    @property
    def task(self) -> str:
        """The data set's."""
        return self._data.task

    @property
    def longest(self) -> int:
        """The most tokens of an input."""
        assert self.settings.max_length is not None
        return self.settings.max_length

    def count(self, split: str, rows: Sequence[Row]) -> Count:
        """Read at most `SAMPLE` rows of a split, drawn by the study's seed."""
        if len(rows) > SAMPLE:
            draw = random.Random(f"{self._seed} {self.dataset} {split}")
            rows = [rows[number] for number in sorted(draw.sample(range(len(rows)), SAMPLE))]
        read = self._read(split, rows)
        total = sum(len(row.ids) for row in read)
        ids = np.fromiter(chain.from_iterable(row.ids for row in read), dtype=np.int64, count=total)
        # Some tokenizers give no token for what they do not know, not even an unknown one.
        words = sum(
            max(0, sum(len(text.split()) for text in self._task.texts(row)) - len(tokens.ids))
            for row, tokens in zip(rows, read, strict=True)
        )
        long = [row for row, tokens in zip(rows, read, strict=True) if tokens.long]
        parts, beyond = self._beyond(rows, long)
        return Count(
            rows=len(rows),
            cut=sum(row.cut for row in read),
            tokens=total + words,
            unknown=int((ids == self._tokenizer.unk_token_id).sum()) + words,
            parts=parts,
            beyond=beyond,
        )

    def outside(self, rows: Sequence[Row], split: str, size: int) -> tuple[int, list[str]]:
        """How many rows have tokens of numbers from `size` on, where not cut, and which."""
        some = [
            row
            for start in range(0, len(rows), SAMPLE)  # a whole split as tokens would be large
            for row, tokens in zip(
                rows[start : start + SAMPLE],
                self._read(split, rows[start : start + SAMPLE]),
                strict=True,
            )
            if max(tokens.ids, default=0) >= size
        ]
        if not some:
            return 0, []
        encoded = self._encode(some, training=split == "train")
        read = [encoded.inputs["input_ids"], *(c.inputs["input_ids"] for c in encoded.choices)]
        if encoded.targets is not None:
            read.append(encoded.targets)
        using = torch.stack([(ids >= size).any(dim=1) for ids in read]).any(dim=0)
        found = torch.cat([ids[ids >= size] for ids in read])
        tokens: list[str] = self._tokenizer.convert_ids_to_tokens(found.unique().tolist())
        return min(int(using.sum()), len(some)), tokens  # a row of qa may be several windows

    def _read(self, split: str, rows: Sequence[Row]) -> list[Tokens]:
        """Rows as tokens, each text by itself."""
        longest = self.longest
        if self.task == "qa":
            most = longest // 4
            beside = self._tokenizer.num_special_tokens_to_add(pair=True)
            questions = self._ids([row["question"] for row in rows])
            contexts = self._ids([row["context"] for row in rows])
            return [
                Tokens(
                    ids=[*question, *context],
                    cut=len(question) > most,
                    long=min(len(question), most) + len(context) + beside > longest,
                )
                for question, context in zip(questions, contexts, strict=True)
            ]
        if self.task == "lm":
            return self._read_lm(split, rows)
        if self.task == "translation":
            beside = self._tokenizer.num_special_tokens_to_add()
            sources = self._ids([row["source"] for row in rows])
            targets = self._ids(text_target=[row["target"] for row in rows])
            read = zip(sources, targets, strict=True)
            lengths = [
                max(map(len, sides)) + beside for sides in zip(sources, targets, strict=True)
            ]
        else:
            texts = [row["texts"] if "texts" in row else [" ".join(row["words"])] for row in rows]
            columns = [self._ids(list(column)) for column in zip(*texts, strict=True)]
            beside = self._tokenizer.num_special_tokens_to_add(pair=len(columns) == 2)
            read = zip(*columns, strict=True)
            lengths = [sum(map(len, sides)) + beside for sides in zip(*columns, strict=True)]
        return [
            Tokens(ids=[*chain(*sides)], cut=length > longest, long=length > longest)
            for sides, length in zip(read, lengths, strict=True)
        ]

    def _read_lm(self, split: str, rows: Sequence[Row]) -> list[Tokens]:
        """Prompts with completions, or with all of their choices."""
        every = [row.get("choices", [row["completion"]]) for row in rows]
        told = [
            {**row, "completion": text}
            for row, texts in zip(rows, every, strict=True)
            for text in texts
        ]
        pairs = iter(prompts_and_completions(told, self._tokenizer))
        room, scored = self.longest, split != "train"
        if scored and not GENERATING.isdisjoint((self._data.metric, *self._data.also)):
            room -= self.longest // 2  # for what is written
        found = []
        for row, texts in zip(rows, every, strict=True):
            own = {text: next(pairs) for text in texts}
            used = own.values() if scored else [own[row["completion"]]]
            long = any(len(p) > room or len(p) + len(c) > self.longest for p, c in used)
            prompt, _ = own[row["completion"]]
            ids = [*prompt, *chain(*(completion for _, completion in own.values()))]
            found.append(Tokens(ids=ids, cut=long, long=long))
        return found

    def _ids(self, texts: list[str] | None = None, **targets: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(
            texts,
            **targets,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def _beyond(self, rows: Sequence[Row], long: Sequence[Row]) -> tuple[int | None, int]:
        """The entities or answers of some rows, and those beyond what is read of the long ones."""
        if self.task == "ner":
            tagged = [row for row in long if row["tags"] is not None]
            total = sum(len(self._entities(row)) for row in rows if row["tags"] is not None)
            read = self._encode(tagged).references if tagged else ()
            beyond = sum(
                not set(range(start, end)) <= set(sentence.words)
                for row, sentence in zip(tagged, read, strict=True)
                for _, start, end in self._entities(row)
            )
            return total, beyond
        if self.task == "qa":
            wide = [
                row for row in long if row["answers"] and self._may_be_beyond(row["answers"][0])
            ]
            held = self._held(self._encode(wide)) if wide else set()
            return sum(bool(row["answers"]) for row in rows), len(wide) - len(held)
        return None, 0

    def _entities(self, row: Row) -> list[Entity]:
        labels = self._data.labels
        tags = [labels[tag] for tag in row["tags"]]
        return list(scored_entities(tags, scheme_of(labels) or "IOB2"))

    def _may_be_beyond(self, answer: Mapping[str, str]) -> bool:
        """Whether an answer may be longer than what windows share: one that is not is in one."""
        assert self.settings.stride is not None
        return len(answer["text"].encode()) >= self.settings.stride  # a token is a byte or more

    def _held(self, encoded: Encoded) -> set[int]:
        """The questions whose answer some window holds."""
        rows = zip(encoded.offsets[:-1].tolist(), encoded.offsets[1:].tolist(), strict=True)
        return {
            window.question
            for window, (first, behind) in zip(encoded.references, rows, strict=True)
            if bool(encoded.labels[first:behind].any())
        }

    def _encode(self, rows: Sequence[Row], *, training: bool = False) -> Encoded:
        return self._task.encode(
            rows, self._tokenizer, self._data, self.settings, training=training
        )
