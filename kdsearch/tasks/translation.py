"""Translation, and any other task from text to text.

A row: {"source": "Er sagte es .", "target": "He said so ."}

The model reads the reference up to each token (teacher forcing) and says the next one. A
vocabulary is too wide for a teacher's logits to be kept (mBART's has 250,027 tokens), so that the
teacher's outputs are the last hidden state of its decoder, a row per target token, and its head
computes the logits when they are needed. Padding is no row. Scored by sacrebleu's BLEU or chrF of
what beam search generates. A training pair with a side of more than the most tokens is left out
(App. B); elsewhere the source is cut, and scored against the whole reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
)

from kdsearch.agenda import DataSpec, WritingSettings
from kdsearch.errors import InputError
from kdsearch.tasks.base import IGNORED, Batch, Encoded, Settings, padded
from kdsearch.tasks.heads import hidden_states
from kdsearch.tasks.writing import Gumbel

_COUNTS = {
    "bleu": (
        *("words", "reference_words"),
        *(f"{what}_{n}" for what in ("matches", "ngrams") for n in range(1, 5)),
    ),
    "chrf": tuple(
        f"{what}_{n}" for n in range(1, 7) for what in ("ngrams", "reference_ngrams", "matches")
    ),
}
"""What sacrebleu counts for a sentence, in its order."""


class Translation:
    """See `Task`."""

    head = AutoModelForSeq2SeqLM
    reads_pixels = False
    per_token = True
    wide = True

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """Source and target: one vocabulary for both."""
        return row["source"], row["target"]

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """Sources and targets, with their language codes where the tokenizer knows any."""
        if has_languages(tokenizer):
            assert data.languages is not None  # checked before a search
            tokenizer.src_lang, tokenizer.tgt_lang = data.languages
        longest = settings.max_length
        assert longest is not None
        kept = list(rows)
        # In training a pair too long is left out instead of being cut.
        cut = {} if training else {"truncation": True, "max_length": longest}
        sources = tokenizer([row["source"] for row in kept], **cut)["input_ids"]
        targets = tokenizer(text_target=[row["target"] for row in kept], **cut)["input_ids"]
        if training:
            fits = [
                len(source) <= longest and len(target) <= longest
                for source, target in zip(sources, targets, strict=True)
            ]
            sources, targets = list(compress(sources, fits)), list(compress(targets, fits))
            if not sources:
                what = f"every training pair has more than {longest} tokens"
                raise InputError.one("max_length", what, "raise it")
        targets_NT = padded(targets, IGNORED)
        counted = targets_NT != IGNORED
        return Encoded(
            inputs={"input_ids": padded(sources, tokenizer.pad_token_id)},
            lengths=torch.tensor([len(ids) for ids in sources]),
            counted=counted,
            labels=targets_NT[counted],
            references=() if training else [row["target"] for row in kept],
            targets=targets_NT,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[target tokens, width of the decoder]: what the model's head is given."""
        inputs = _decoder_inputs(model, batch)
        return hidden_states(model, **batch.arguments, decoder_input_ids=inputs)[batch.counted]

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A target token each."""
        return values_RW, None

    def labels(self, batch: Batch) -> Tensor:
        """[target tokens]."""
        return batch.labels

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[str]:
        """The translations that beam search finds."""
        tokens = self._said(model, tokenizer, batch, data, settings)
        texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def write(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        data: DataSpec,
        settings: WritingSettings,
        noise: Gumbel | None,
    ) -> list[str | None]:
        """See `Writer`."""
        tokens = self._said(model, tokenizer, batch, data, settings, noise)[:, 1:].tolist()
        texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ended = (tokenizer.eos_token_id in each for each in tokens)
        return [text if done else None for text, done in zip(texts, ended, strict=True)]

    def written(self, row: Mapping[str, Any], text: str, reference: Any) -> dict[str, Any] | None:
        """See `Writer`."""
        return {**row, "target": text} if text.strip() else None

    def is_right(self, text: str, reference: Any, data: DataSpec) -> bool:
        """A translation has no right answer, so that none is asked for (`TaskSpec.answers`)."""
        raise NotImplementedError

    def _said(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        data: DataSpec,
        settings: Settings,
        noise: Gumbel | None = None,
    ) -> Tensor:
        """[B, T]: the tokens of the translations, behind that which the decoder starts with."""
        assert batch.targets is not None
        assert settings.max_length is not None
        beams = settings.beams or 1
        first = None  # a language code that every target begins with, as mBART-50's do
        if data.languages is not None and has_languages(tokenizer):
            to_id = getattr(tokenizer, "get_lang_id", tokenizer.convert_tokens_to_ids)  # M2M-100's
            code = to_id(data.languages[1])
            first = code if bool((batch.targets[:, 0] == code).all()) else None
        # The model's own, since those of a pretrained one would fill in what this one leaves out.
        generator: Any = model
        generator.generation_config = GenerationConfig(
            num_beams=beams,
            do_sample=False,
            early_stopping=False,  # True would end with worse beams, shorter than the best one
            max_new_tokens=settings.max_length,
            decoder_start_token_id=int(_decoder_inputs(model, batch)[0, 0]),
            forced_bos_token_id=first,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=[tokenizer.pad_token_id],  # some models may say it, Marian's among them
        )
        if beams == 1:
            return greedy(model, batch, noise)
        tokens: Tensor = generator.generate(**batch.arguments)
        return tokens

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """BLEU or chrF of the whole split, from 0 to 100."""
        metric = _against(data.metric, _language(data), tuple(references))
        return float(metric.corpus_score(list(predictions), None).score)

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """What sacrebleu counts in each sentence, whose sums over a split it makes the score of."""
        metric = _metric(data.metric, _language(data))
        count = _ngrams if isinstance(metric, CHRF) else _words_and_ngrams
        counts = (count(metric, *pair) for pair in zip(predictions, references, strict=True))
        columns = map(list, zip(*counts, strict=True))
        return dict(zip(_COUNTS[data.metric], columns, strict=True))

    def signature(self, data: DataSpec) -> str:
        """Sacrebleu's own."""
        metric = _metric(data.metric, _language(data))
        metric.corpus_score(["a"], [["a"]])  # it knows the number of references only afterwards
        return f"{data.metric.upper()} {metric.get_signature()}"


def has_languages(tokenizer: Any) -> bool:
    """Whether a tokenizer marks texts with the codes of their languages."""
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")


def _decoder_inputs(model: Any, batch: Batch) -> Tensor:
    """[B, T]: the targets one to the right, behind the token the model's decoder starts with."""
    assert batch.targets is not None
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        inputs: Tensor = model.prepare_decoder_input_ids_from_labels(labels=batch.targets)
        return inputs
    starts = batch.targets.new_full((len(batch.targets), 1), model.config.decoder_start_token_id)
    rest = batch.targets[:, :-1]
    return torch.cat([starts, rest.masked_fill(rest == IGNORED, model.config.pad_token_id)], dim=1)


@torch.no_grad()
def greedy(model: Any, batch: Batch, noise: Gumbel | None = None) -> Tensor:
    """[B, T]: the likeliest tokens, one after another: what `generate` says with one beam.

    With `noise`, those that are drawn by it.
    With a tiny model `generate` takes 1.7 times as long, for what it looks at between the tokens
    and for examples that have ended. The model's generation_config says what begins and ends a
    text, and how long it may be.
    """
    how = model.generation_config
    inputs, mask = batch.arguments["input_ids"], batch.arguments["attention_mask"]
    encoded = model.get_encoder()(input_ids=inputs, attention_mask=mask)
    if model.config._attn_implementation == "sdpa":  # what it would make of it at each token
        mask = mask[:, None, None].bool()
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    said = inputs.new_full((len(inputs), how.max_new_tokens + 1), how.pad_token_id)
    said[:, 0] = how.decoder_start_token_id
    rows = torch.arange(len(inputs), device=inputs.device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for place in range(how.max_new_tokens):
        logits_BC = model(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=said[rows, place, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        logits_BC[:, how.suppress_tokens] = -torch.inf
        if noise is not None:
            logits_BC = noise.noisy(logits_BC, rows.tolist())
        last = logits_BC.argmax(dim=1)
        if place == 0 and how.forced_bos_token_id is not None:
            last[:] = how.forced_bos_token_id
        said[rows, place + 1] = last.masked_fill(ended, how.pad_token_id)
        ended |= last == how.eos_token_id
        going = (~ended).nonzero()[:, 0]
        if not len(going):
            break
        if 2 * len(going) <= len(rows):
            cache.batch_select_indices(going)
            encoded.last_hidden_state = encoded.last_hidden_state[going]
            rows, mask, ended = rows[going], mask[going], ended[going]
    return said


@lru_cache(maxsize=4)
def _against(name: str, language: str, references: tuple[str, ...]) -> Any:
    """A metric that has counted a split's references, which each epoch of each student is scored
    against.
    """
    return _metric(name, language, [references])


def _metric(name: str, language: str, references: Sequence[Sequence[str]] | None = None) -> Any:
    if name == "chrf":
        return CHRF(references=references)
    # By the language BLEU splits texts without spaces: Chinese, Japanese, Korean.
    return BLEU(trg_lang=language, references=references)


def _language(data: DataSpec) -> str:
    """Of the targets, as sacrebleu calls it; empty where none is given."""
    code = data.languages[1].strip("_").split("_")[0] if data.languages else ""
    return {"jpn": "ja", "kor": "ko", "zho": "zh"}.get(code, code)


def _words_and_ngrams(bleu: BLEU, predicted: str, reference: str) -> tuple[int, ...]:
    found = bleu.corpus_score([predicted], [[reference]])
    return found.sys_len, found.ref_len, *found.counts, *found.totals


def _ngrams(chrf: CHRF, predicted: str, reference: str) -> tuple[int, ...]:
    # A score of chrF has no counts. Without a reference's n-grams those predicted do not count.
    hypothesis_and_reference = (
        extract_all_char_ngrams(text, chrf.char_order, chrf.whitespace)
        for text in (predicted, reference)
    )
    return tuple(
        count
        for said, right in zip(*hypothesis_and_reference, strict=True)
        for count in (said.total() if right else 0, right.total(), (said & right).total())
    )
