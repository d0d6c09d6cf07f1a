from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import SEQ2SEQ, spread
from torch import Tensor
from torch.nn.functional import linear
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    MBart50Tokenizer,
    MBartTokenizer,
    PreTrainedTokenizerFast,
)

from kdsearch.agenda import DataSpec
from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.models import check_head, word_tokenizer
from kdsearch.errors import InputError
from kdsearch.search import Labels
from kdsearch.study import TrainingSettings
from kdsearch.study.grammar import generate
from kdsearch.tasks import Batch, Encoded, Translation, has_languages, head_weights
from kdsearch.tasks.translation import greedy

TASK = Translation()
ROWS = generate(30, "translation", task="translation")
WORDS = sorted({word for row in ROWS for text in row.values() for word in text.split()})
FAMILIES = tuple(SEQ2SEQ)
LANGUAGES = ("en_XX", "ro_RO")
CODES = ["de_DE", "en_XX", "ro_RO"]

# -- tokenizers and models ---------------------------------------------------------------------


@cache
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer(text for row in ROWS for text in row.values())


def pieces() -> list[tuple[str, float]]:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    scored = [(piece, -float(number)) for number, piece in enumerate(f"▁{w}" for w in WORDS)]
    every = [*CODES, "<mask>"]
    return [(piece, 0.0) for piece in specials] + scored + [(piece, 0.0) for piece in every]


def mbart() -> MBartTokenizer:
    """Codes behind the texts, as of mBART's first models."""
    return MBartTokenizer(vocab=pieces(), src_lang="de_DE", tgt_lang="de_DE")


def mbart50() -> MBart50Tokenizer:
    """Codes before the texts, as of mBART-50, M2M100 and NLLB."""
    return MBart50Tokenizer(vocab=pieces(), src_lang="de_DE", tgt_lang="de_DE")


def model_of(family: str, tokenizer: Any, start: str | None = None, width: int = 16) -> Any:
    """A tiny model; its decoder starts with the token `start`, by default the padding."""
    depths, _, fields = SEQ2SEQ[family]
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
    config = AutoConfig.for_model(
        family,
        **{
            **fields,
            **dict.fromkeys(depths, 2),
            **ids,
            "d_model": width,
            "bos_token_id": tokenizer.bos_token_id,
            "vocab_size": len(tokenizer),
            "decoder_start_token_id": tokenizer.convert_tokens_to_ids(start or tokenizer.pad_token),
            **dict.fromkeys(("dropout", "dropout_rate"), 0.0),
        },
    )
    return AutoModelForSeq2SeqLM.from_config(config).eval()


def random_model(family: str, tokenizer: Any, start: str | None = None) -> Any:
    model = model_of(family, tokenizer, start)
    spread(model)
    return model


def data_of(metric: str = "bleu", languages: tuple[str, str] | None = None) -> DataSpec:
    return DataSpec(
        task="translation",
        metric=metric,
        labels=(),
        languages=languages,
        train="",
        validation="",
        test="",
    )


def settings_of(max_length: int = 40, beams: int = 1) -> TrainingSettings:
    return TrainingSettings(max_length=max_length, beams=beams)


def encode(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any = None,
    languages: tuple[str, str] | None = None,
    max_length: int = 40,
    training: bool = False,
) -> Encoded:
    data, settings = data_of(languages=languages), settings_of(max_length)
    return TASK.encode(rows, tokenizer or words(), data, settings, training=training)


def everything(encoded: Encoded) -> Batch:
    return encoded.batch(torch.arange(len(encoded)))


def decode(
    model: Any,
    tokenizer: Any,
    batch: Batch,
    beams: int = 1,
    languages: tuple[str, str] | None = None,
    max_length: int = 40,
) -> list[str]:
    data, settings = data_of(languages=languages), settings_of(max_length, beams)
    return TASK.decode(model, tokenizer, batch, torch.zeros(0), data, settings)


def decoder_inputs(model: Any, batch: Batch) -> Tensor:
    """What the decoder is really given."""
    seen: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"])

    hook = model.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        TASK.outputs(model, batch)
    hook.remove()
    return seen[0]


@torch.no_grad()
def logits_alone(model: Any, tokenizer: Any, row: dict[str, Any]) -> Tensor:
    """[target tokens, vocabulary]: the model's own logits of one pair, nothing padded."""
    source = tokenizer(row["source"], return_tensors="pt")["input_ids"]
    target = tokenizer(text_target=row["target"], return_tensors="pt")["input_ids"]
    logits: Tensor = model(input_ids=source, labels=target).logits[0]
    return logits


# -- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_through_the_head_are_the_models_own_logits(family: str) -> None:
    model = random_model(family, words())
    encoded = encode(ROWS[:6])
    order = [4, 0, 5, 2]
    batch = encoded.batch(torch.tensor(order))
    with torch.no_grad():
        found = linear(TASK.outputs(model, batch), *head_weights(model))
    expected = torch.cat([logits_alone(model, words(), ROWS[index]) for index in order])
    assert len({int(count) for count in batch.counts}) > 1  # some of it is padding
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05
    check_head(model, TASK, encoded)


def test_a_bias_of_the_logits_is_part_of_the_head() -> None:
    model = random_model("marian", words())
    assert model.final_logits_bias.abs().max() > 1
    weight, bias = head_weights(model)
    assert bias is not None
    assert bias.shape == (len(words()),)
    assert torch.equal(bias, model.final_logits_bias[0])
    assert weight.shape == (len(words()), 16)


@pytest.mark.parametrize("tied", [True, False])
def test_the_scaling_of_a_t5_whose_head_is_its_embedding_is_in_the_rows(tied: bool) -> None:
    model = random_model("t5", words())
    model.config.scale_decoder_outputs = tied
    encoded = encode(ROWS[:1])
    with torch.no_grad():
        found = linear(TASK.outputs(model, everything(encoded)), *head_weights(model))
    torch.testing.assert_close(found, logits_alone(model, words(), ROWS[0]), rtol=1e-4, atol=1e-4)


def test_a_model_is_as_it_was_after_its_outputs() -> None:
    model = random_model("bart", words())
    before = logits_alone(model, words(), ROWS[0])
    with torch.no_grad():
        TASK.outputs(model, everything(encode(ROWS[:2])))
    assert torch.equal(logits_alone(model, words(), ROWS[0]), before)


def test_gradients_of_the_rows_reach_the_model() -> None:
    model = random_model("bart", words())
    batch = everything(encode(ROWS[:2]))
    linear(TASK.outputs(model, batch), *head_weights(model)).sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in model.model.decoder.parameters()
    )


def test_there_is_a_row_for_every_target_token_and_none_for_padding() -> None:
    encoded = encode(ROWS[:8])
    targets = [words()(row["target"])["input_ids"] for row in ROWS[:8]]
    assert encoded.labels.tolist() == [token for target in targets for token in target]
    batch = encoded.batch(torch.tensor([5, 1]))
    assert batch.labels.tolist() == targets[5] + targets[1]
    assert batch.counts.tolist() == [len(targets[5]), len(targets[1])]
    assert batch.targets is not None
    assert batch.targets.shape[1] == max(batch.counts.tolist())
    assert torch.equal(encoded.labels[batch.rows], batch.labels)
    values = torch.zeros(len(batch.labels), 3)
    assert TASK.units(values, batch) == (values, None)
    assert torch.equal(TASK.labels(batch), batch.labels)


def test_a_source_is_padded_and_masked_by_its_own_length() -> None:
    encoded = encode(ROWS[:8])
    batch = encoded.batch(torch.tensor([5, 1]))
    expected = words()([ROWS[5]["source"], ROWS[1]["source"]], padding=True)
    assert batch.arguments["input_ids"].tolist() == expected["input_ids"]
    assert batch.arguments["attention_mask"].tolist() == expected["attention_mask"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_reads_the_targets_one_to_the_right(family: str) -> None:
    start = "[PAD]" if family in ("t5", "marian") else "[SEP]"
    model = random_model(family, words(), start)
    batch = everything(encode(ROWS[:4]))
    assert batch.targets is not None
    found = decoder_inputs(model, batch)
    assert found.shape == batch.targets.shape
    if family == "mbart":  # whose decoder starts with the target's last token, the language code
        start = "[SEP]"
    assert set(found[:, 0].tolist()) == {words().convert_tokens_to_ids(start)}
    for read, target, count in zip(found, batch.targets, batch.counts.tolist(), strict=True):
        assert torch.equal(read[1:count], target[: count - 1])
    assert (found >= 0).all()


def test_a_model_that_does_not_shift_labels_itself_is_given_them_shifted() -> None:
    assert not hasattr(random_model("m2m_100", words()), "prepare_decoder_input_ids_from_labels")


# -- lengths -----------------------------------------------------------------------------------

LENGTHS = [
    {"source": "see " * sources, "target": "vidar " * targets}
    for sources, targets in [(3, 3), (9, 3), (3, 9), (8, 8), (9, 9)]
]


def test_training_pairs_with_a_side_that_is_too_long_are_left_out() -> None:
    encoded = encode(LENGTHS, max_length=10, training=True)  # with two special tokens
    assert encoded.lengths.tolist() == [5, 10]
    assert encoded.offsets.tolist() == [0, 5, 15]
    kept = encode([LENGTHS[0], LENGTHS[3]])
    assert torch.equal(encoded.inputs["input_ids"], kept.inputs["input_ids"])
    assert torch.equal(encoded.labels, kept.labels)


def test_elsewhere_too_long_pairs_are_cut_and_scored_against_the_whole() -> None:
    encoded = encode(LENGTHS, max_length=10)
    assert encoded.lengths.tolist() == [5, 10, 5, 10, 10]
    assert everything(encoded).counts.tolist() == [5, 5, 10, 10, 10]
    assert list(encoded.references) == [row["target"] for row in LENGTHS]
    end = words().eos_token_id
    assert all(
        encoded.inputs["input_ids"][index, length - 1] == end
        for index, length in enumerate(encoded.lengths.tolist())
    )


def test_training_pairs_that_are_all_too_long_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        encode(LENGTHS, max_length=4, training=True)
    assert str(caught.value) == (
        "max_length: every training pair has more than 4 tokens (raise it)"
    )


# -- languages ---------------------------------------------------------------------------------


def test_tokenizers_with_and_without_languages_are_told_apart() -> None:
    assert has_languages(mbart())
    assert has_languages(mbart50())
    assert not has_languages(words())


def test_codes_of_mbart_stand_behind_the_texts_and_start_the_decoder() -> None:
    tokenizer = mbart()
    encoded = encode(ROWS[:4], tokenizer, LANGUAGES)
    source, target = tokenizer.convert_tokens_to_ids(list(LANGUAGES))
    end = tokenizer.eos_token_id
    for index, length in enumerate(encoded.lengths.tolist()):
        ids = encoded.inputs["input_ids"][index, :length].tolist()
        assert ids[-2:] == [end, source]
        assert tokenizer.convert_ids_to_tokens(ids[:-2]) == [
            f"▁{word}" for word in ROWS[index]["source"].split()
        ]
    batch = everything(encoded)
    for row, labels in zip(ROWS, batch.labels.split(batch.counts.tolist()), strict=False):
        assert labels[-2:].tolist() == [end, target]
        assert len(labels) == len(row["target"].split()) + 2
    model = random_model("mbart", tokenizer)
    assert set(decoder_inputs(model, batch)[:, 0].tolist()) == {target}


def test_generation_of_mbart_starts_with_the_code_of_the_target() -> None:
    tokenizer = mbart()
    batch = everything(encode(ROWS[:4], tokenizer, LANGUAGES))
    model = random_model("mbart", tokenizer)
    decode(model, tokenizer, batch, 3, LANGUAGES, max_length=9)
    tokens = model.generate(**batch.arguments)  # as decode has set it up
    assert set(tokens[:, 0].tolist()) == {tokenizer.convert_tokens_to_ids("ro_RO")}
    assert tokens.shape[1] <= 10


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["mbart", "m2m_100"])
def test_where_codes_stand_before_the_texts_the_first_word_is_the_targets(
    family: str, beams: int
) -> None:
    tokenizer = mbart50()
    encoded = encode(ROWS[:4], tokenizer, LANGUAGES)
    source, target = tokenizer.convert_tokens_to_ids(list(LANGUAGES))
    end = tokenizer.eos_token_id
    assert set(encoded.inputs["input_ids"][:, 0].tolist()) == {source}
    batch = everything(encoded)
    assert batch.targets is not None
    assert set(batch.targets[:, 0].tolist()) == {target}
    model = random_model(family, tokenizer, start="</s>")
    assert decoder_inputs(model, batch)[:, :2].tolist() == [[end, target]] * 4
    decode(model, tokenizer, batch, beams, LANGUAGES, max_length=9)
    tokens = model.generate(**batch.arguments)
    assert tokens[:, :2].tolist() == [[end, target]] * 4
    assert tokens.shape[1] <= 10


def test_a_generated_text_has_no_code() -> None:
    tokenizer = mbart50()
    batch = everything(encode(ROWS[:4], tokenizer, LANGUAGES))
    texts = decode(random_model("mbart", tokenizer), tokenizer, batch, 1, LANGUAGES)
    assert not any(code in text for text in texts for code in CODES)


def test_the_codes_of_one_data_set_do_not_stay_for_another() -> None:
    tokenizer = mbart()
    encode(ROWS[:2], tokenizer, LANGUAGES)
    encoded = encode(ROWS[:2], tokenizer, ("de_DE", "en_XX"))
    last = encoded.inputs["input_ids"][0, encoded.lengths[0] - 1]
    assert int(last) == tokenizer.convert_tokens_to_ids("de_DE")
    assert int(encoded.labels[-1]) == tokenizer.convert_tokens_to_ids("en_XX")


# -- generation --------------------------------------------------------------------------------


@cache
def half_trained(family: str) -> Any:
    """A model that says other things to other sources, most of them wrong."""
    model = model_of(family, words())
    trained(model, encode(ROWS[:10]), 60)
    return model


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_of_a_batch_is_that_of_each_source_alone(family: str, beams: int) -> None:
    model = half_trained(family)
    encoded = encode(ROWS[20:25], max_length=20)
    order = [3, 0, 4, 1, 2]
    together = decode(model, words(), encoded.batch(torch.tensor(order)), beams, max_length=20)
    alone = [
        decode(model, words(), encoded.batch(torch.tensor([index])), beams, max_length=20)[0]
        for index in order
    ]
    assert together == alone
    assert len(set(alone)) > 1


def test_what_a_pretrained_model_says_of_generation_does_not_count() -> None:
    model, other = random_model("bart", words()), random_model("bart", words())
    other.generation_config.forced_bos_token_id = 7
    other.generation_config.min_length = 15
    other.generation_config.no_repeat_ngram_size = 1
    other.generation_config.do_sample = True
    batch = everything(encode(ROWS[:3]))
    assert decode(model, words(), batch, 2) == decode(other, words(), batch, 2)


@torch.no_grad()
def test_greedy_generation_takes_the_likeliest_token_until_the_end() -> None:
    model = random_model("t5", words())
    [found] = decode(model, words(), everything(encode(ROWS[:1])), max_length=12)
    source = words()(ROWS[0]["source"], return_tensors="pt")["input_ids"]
    tokens = [words().pad_token_id]
    while len(tokens) <= 12 and tokens[-1] != words().eos_token_id:
        logits = model(input_ids=source, decoder_input_ids=torch.tensor([tokens])).logits
        tokens.append(int(logits[0, -1].argmax()))
    assert found == words().decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8)
@given(
    rows=st.lists(st.integers(0, 29), min_size=1, max_size=9),
    seed=st.integers(0, 3),
    most=st.integers(1, 14),
    first=st.sampled_from([None, 5]),
    ends=st.floats(-1, 4),
)
def test_the_likeliest_tokens_are_those_of_generate(
    family: str, rows: list[int], seed: int, most: int, first: int | None, ends: float
) -> None:
    model = random_model(family, words())
    torch.manual_seed(seed)
    spread(model)
    pad, end = words().pad_token_id, words().eos_token_id
    shift = torch.zeros(len(words()))
    shift[end] = ends  # some texts end early, others late
    shift[pad] = 9.0
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + shift)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        decoder_start_token_id=pad,
        forced_bos_token_id=first,
        eos_token_id=end,
        pad_token_id=pad,
        suppress_tokens=[pad],
    )
    batch = everything(encode([ROWS[index] for index in rows]))
    expected = model.generate(**batch.arguments)
    found = greedy(model, batch)
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == pad).all()


@pytest.mark.parametrize("beams", [1, 3])
def test_padding_is_never_generated(beams: int) -> None:
    model = random_model("marian", words())
    with torch.no_grad():
        model.final_logits_bias[0, words().pad_token_id] = 1e3  # what it would always say
    batch = everything(encode(ROWS[:3]))
    texts = decode(model, words(), batch, beams, max_length=6)
    assert all(texts)
    tokens = model.generate(**batch.arguments)  # as decode has set it up
    assert not (tokens[:, 1] == words().pad_token_id).any()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_translation_may_be_as_long_as_the_most_tokens_however_short_its_source(
    beams: int,
) -> None:
    model = random_model("marian", words())
    with torch.no_grad():
        model.final_logits_bias[0, words().eos_token_id] = -1e9  # it never ends by itself
    encoded = encode([{"source": "see", "target": "vidar"}], max_length=60)
    [text] = decode(model, words(), everything(encoded), beams, max_length=60)
    assert model.generation_config.max_new_tokens == 60
    tokens = model.generate(**everything(encoded).arguments)
    assert tokens.shape[1] == 1 + 60  # what the decoder starts with
    assert text


def trained(model: Any, encoded: Encoded, steps: int) -> float:
    """Fit a model to a whole split; the last loss."""
    loss_of = batch_loss(TASK, model, Labels())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch, loss = everything(encoded), torch.zeros(())
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        loss = loss_of(TASK.outputs(model, batch), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    return loss.item()


@pytest.mark.parametrize(
    ("family", "tokenizer", "start"),
    [
        ("bart", words, "[SEP]"),
        ("marian", words, "[PAD]"),
        ("t5", words, "[PAD]"),
        ("mbart", mbart, None),
        ("m2m_100", mbart50, "</s>"),
    ],
)
def test_a_model_that_has_learnt_some_pairs_generates_them(
    family: str, tokenizer: Any, start: str | None
) -> None:
    tokens = tokenizer()
    languages = LANGUAGES if has_languages(tokens) else None
    encoded = encode(ROWS[:8], tokens, languages)
    model = model_of(family, tokens, start, width=32)
    assert trained(model, encoded, 120) < 0.1
    for beams in (1, 3):
        found = decode(model, tokens, everything(encoded), beams, languages)
        assert found == [row["target"] for row in ROWS[:8]]
        assert TASK.score(found, encoded.references, data_of()) == pytest.approx(100)


# -- scores ------------------------------------------------------------------------------------

TEXT = st.lists(st.sampled_from(WORDS[:6]), max_size=8).map(" ".join)


@given(pairs=st.lists(st.tuples(TEXT, TEXT.filter(bool)), min_size=1, max_size=5))
def test_scores_are_those_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    predicted, gold = map(list, zip(*pairs, strict=True))
    assert TASK.score(predicted, gold, data_of()) == sacrebleu.corpus_bleu(predicted, [gold]).score
    expected = sacrebleu.corpus_chrf(predicted, [gold]).score
    assert TASK.score(predicted, gold, data_of("chrf")) == expected


def test_bleu_follows_from_its_ngrams() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; no shorter than the reference
    found = TASK.score(["a b c d x f"], ["a b c d e f"], data_of())
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_a_signature_names_the_version_and_the_number_of_references() -> None:
    version = sacrebleu.__version__
    for metric in ("bleu", "chrf"):
        found = TASK.signature(data_of(metric))
        assert found.startswith(f"{metric.upper()} nrefs:1|")
        assert found.endswith(f"|version:{version}")
    assert "|tok:13a|" in TASK.signature(data_of())


def test_chinese_is_split_into_its_characters() -> None:
    data = data_of(languages=("en_XX", "zh_CN"))
    predicted, gold = ["他今天不来了。"], ["他今天来了。"]
    expected = sacrebleu.corpus_bleu(predicted, [gold], tokenize="zh").score
    assert 0 < expected < 100
    assert TASK.score(predicted, gold, data) == expected
    assert "|tok:zh|" in TASK.signature(data)


@pytest.mark.parametrize(
    ("code", "tokens"),
    [
        *(("zh_CN", "zh"), ("zh", "zh"), ("__zh__", "zh"), ("zho_Hans", "zh"), ("zho_Hant", "zh")),
        *(("ja_XX", "ja-mecab"), ("jpn_Jpan", "ja-mecab"), ("ja", "ja-mecab")),
        *(("ko_KR", "ko-mecab"), ("kor_Hang", "ko-mecab")),
        *(("en_XX", "13a"), ("ron_Latn", "13a"), ("jav_Latn", "13a"), ("kon_Latn", "13a")),
    ],
)
def test_the_words_of_bleu_follow_from_the_language(
    code: str, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def remembered(name: str) -> Any:
        asked.append(name)
        return _get_tokenizer("13a")  # the splitters of Japanese and Korean are not installed

    from sacrebleu.metrics import bleu

    _get_tokenizer = bleu._get_tokenizer
    monkeypatch.setattr(bleu, "_get_tokenizer", remembered)
    TASK.signature(data_of(languages=("en_XX", code)))
    assert set(asked) == {tokens}
