from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import SENTENCES
from seqeval.metrics import f1_score
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import BertProcessing, RobertaProcessing, TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from kdsearch.agenda import DataSpec
from kdsearch.study import TrainingSettings
from kdsearch.study.tags import entities
from kdsearch.tasks import IGNORED, Encoded, Ner
from kdsearch.tasks.ner import accuracy, entity_f1

TASK = Ner()
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = (*SENTENCES, "Ada Byron wrote it in London, didn't she?", f"{LETTERS} {LETTERS.upper()}")

# -- tokenizers that split words ---------------------------------------------------------------


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's: pieces of a word carry ##, spaces belong to none, unseen letters are unknown."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "is", "lon", "##don", "by", "##ron"]
    pieces += [*LETTERS, *(f"##{letter}" for letter in LETTERS), *".,?'-"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_pairs(trim_offsets: bool = True, prefix: bool = True) -> PreTrainedTokenizerFast:
    """As RoBERTa's: bytes, the space before a word in its first token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=ROBERTA,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=prefix
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>",
        sep_token="</s>",
    )  # fmt: skip


def sentence_pieces() -> PreTrainedTokenizerFast:
    """As XLM-R's: the space before a word is a letter of its first piece, or a piece itself."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=90, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>",
        sep_token="</s>",
    )  # fmt: skip


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "WordPiece": word_pieces,
    "byte-level BPE": byte_pairs,
    "byte-level BPE with spaces": lambda: byte_pairs(trim_offsets=False, prefix=False),
    "Unigram": sentence_pieces,
}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return KINDS[kind]()


every_kind = pytest.mark.parametrize("kind", KINDS)
WORDS = st.text("abdnorylLB.,'-éß\u200b😀ﬁ", min_size=1, max_size=6)

# -- helpers -----------------------------------------------------------------------------------


def data_of(metric: str = "f1", labels: Sequence[str] = TAGS) -> DataSpec:
    return DataSpec(
        task="ner", metric=metric, labels=tuple(labels), train="", validation="", test=""
    )


def encode(
    sentences: Sequence[Sequence[str]],
    kind: str = "WordPiece",
    tags: Sequence[Sequence[int] | None] | None = None,
    max_length: int = 512,
) -> Encoded:
    """Sentences whose tags count up, if none are given."""
    given_tags = tags or [[i % len(TAGS) for i, _ in enumerate(words)] for words in sentences]
    rows = [{"words": w, "tags": t} for w, t in zip(sentences, given_tags, strict=True)]
    wanted = TrainingSettings(max_length=max_length)
    return TASK.encode(rows, tokenizer_of(kind), data_of(), wanted, training=False)


def first_tokens(words: Sequence[str], kind: str, max_length: int = 512) -> dict[int, int]:
    """By word, its first token: the first of those that hold a letter of it, letter by letter."""
    text = " ".join(words)
    owner = [i for i, word in enumerate(words) for _ in f"{word} "]
    encoding = tokenizer_of(kind)(
        text, return_offsets_mapping=True, truncation=True, max_length=max_length
    )
    firsts: dict[int, int] = {}
    for token, (start, end) in enumerate(encoding["offset_mapping"]):
        for place in range(start, end):
            if not text[place].isspace():
                firsts.setdefault(owner[place], token)
                break
    return firsts


def model_of(kind: str) -> BertForTokenClassification:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer_of(kind)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=len(TAGS),
    )
    model = BertForTokenClassification(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # else biases outweigh what is read
            torch.nn.init.normal_(parameter, std=1)
    return model.eval()


def tags_of(
    model: BertForTokenClassification, encoded: Encoded, indices: list[int], kind: str
) -> list[list[int]]:
    batch = encoded.batch(torch.tensor(indices))
    with torch.no_grad():
        values = TASK.outputs(model, batch)
    wanted = TrainingSettings(max_length=512)
    return TASK.decode(model, tokenizer_of(kind), batch, values, data_of(), wanted)


# -- scores ------------------------------------------------------------------------------------

PAIRS = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)


@given(sentences=PAIRS)
@settings(max_examples=300)
def test_entity_f1_is_that_of_seqeval_also_of_invalid_tags(
    sentences: list[list[tuple[str, str]]],
) -> None:
    predicted = [[tag for tag, _ in pairs] for pairs in sentences]
    gold = [[tag for _, tag in pairs] for pairs in sentences]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no entity at all
        expected = f1_score(gold, predicted)
    assert entity_f1(zip(predicted, gold, strict=True)) == pytest.approx(float(expected))


@given(tags=st.lists(st.sampled_from([*TAGS, "B-a-b", "I-a-b"]), max_size=12))
def test_entities_are_found_word_by_word_from_the_back(tags: list[str]) -> None:
    expected: set[tuple[str, int, int]] = set()
    end = len(tags)
    for start in reversed(range(len(tags))):
        tag, before = tags[start], tags[start - 1] if start else "O"
        if tag == "O":
            end = start
        elif tag.startswith("B-") or before[2:] != tag[2:]:
            expected.add((tag[2:], start, end))
            end = start
    assert set(entities(tags)) == expected


def test_entity_f1_counts_whole_entities() -> None:
    gold = ["B-PER", "I-PER", "O", "B-LOC"]
    assert entity_f1([(gold, gold)]) == 1
    # one of two found, one false alarm: 2·1 / (2 + 2)
    assert entity_f1([(["B-PER", "O", "O", "B-LOC"], gold)]) == 0.5
    assert entity_f1([(["B-LOC", "I-LOC", "O", "O"], gold)]) == 0


def test_entity_f1_without_any_entity_is_nothing() -> None:
    assert entity_f1([(["O", "O"], ["O", "O"])]) == 0


def test_accuracy_is_the_share_of_words_of_all_sentences() -> None:
    pairs = [(["O", "B-PER"], ["O", "B-PER"]), (["O"] * 3, ["O", "B-PER", "I-PER"])]
    assert accuracy(pairs) == pytest.approx(3 / 5)


def test_the_score_is_the_metric_of_the_data() -> None:
    encoded = encode([["ada", "byron"], ["london"]], tags=[[1, 2], [3]])
    predictions = [[1, 0], [3]]
    assert TASK.score(predictions, encoded.references, data_of("f1")) == 0.5
    assert TASK.score(predictions, encoded.references, data_of("accuracy")) == pytest.approx(2 / 3)
    assert TASK.signature(data_of("f1")) == "micro F1 of entities, IOB2"
    assert TASK.signature(data_of("accuracy")) == "words' accuracy"


def test_the_tag_of_no_entity_may_have_any_number() -> None:
    labels = ("B-PER", "I-PER", "O")
    encoded = encode([["ada", "\u200b"]], tags=[[0, 2]])
    assert TASK.score([[0]], encoded.references, data_of("accuracy", labels)) == 1


# -- encoding ----------------------------------------------------------------------------------


@every_kind
@given(words=st.lists(WORDS, min_size=1, max_size=6), max_length=st.sampled_from([6, 12, 512]))
def test_a_row_belongs_to_the_first_token_of_its_word(
    kind: str, words: list[str], max_length: int
) -> None:
    encoded = encode([words], kind, max_length=max_length)
    expected = first_tokens(words, kind, max_length)
    assert list(encoded.references[0].words) == list(expected)
    assert encoded.counted[0].nonzero().flatten().tolist() == list(expected.values())
    assert encoded.labels.tolist() == [word % len(TAGS) for word in expected]


@pytest.mark.parametrize("kind", ["WordPiece", "byte-level BPE"])
@given(words=st.lists(WORDS, min_size=1, max_size=6))
def test_words_are_split_as_the_tokenizer_splits_them_one_by_one(
    kind: str, words: list[str]
) -> None:
    encoded = encode([words], kind)
    expected = tokenizer_of(kind)([words], is_split_into_words=True)
    assert encoded.inputs["input_ids"][0].tolist() == expected["input_ids"][0]
    if kind == "WordPiece":  # of bytes, the space before a word may be its first token there
        owners = expected.word_ids(0)
        firsts = [owners.index(word) for word in range(len(words)) if word in owners]
        assert encoded.counted[0].nonzero().flatten().tolist() == firsts


@every_kind
def test_a_word_of_several_pieces_has_one_row(kind: str) -> None:
    encoded = encode([["the", "unheardof", "byron"]], kind)
    assert int(encoded.lengths[0]) > 6
    assert encoded.counted.sum() == 3
    assert encoded.labels.tolist() == [0, 1, 2]


def test_a_space_that_is_a_piece_is_not_the_word_behind_it() -> None:
    encoding = tokenizer_of("Unigram")("the Z", return_offsets_mapping=True)
    tokens = tokenizer_of("Unigram").convert_ids_to_tokens(encoding["input_ids"])
    assert tokens[-3:-1] == ["▁", "Z"]  # else this test shows nothing
    encoded = encode([["the", "Z"]], "Unigram")
    assert int(encoded.counted[0].nonzero()[-1]) == len(tokens) - 2


def test_a_word_without_a_token_has_no_row_and_is_no_entity() -> None:
    encoded = encode([["ada", "\u200b", "byron"]], tags=[[1, 2, 3]])
    assert encoded.labels.tolist() == [1, 3]
    assert encoded.references[0].words == (0, 2)
    # gold: a person of two words, a place; found: a person of one word, a place
    assert TASK.score([[1, 3]], encoded.references, data_of()) == 0.5
    assert TASK.score([[1, 3]], encoded.references, data_of("accuracy")) == pytest.approx(2 / 3)


BLANKS = ["", " ", "\u00a0", "\u2003 ", "\t", "\x85"]


@every_kind
@given(
    words=st.lists(st.one_of(WORDS, st.sampled_from(BLANKS)), min_size=1, max_size=7).filter(
        lambda words: any(word.strip() for word in words)
    )
)
def test_blank_words_change_nothing_for_the_others(kind: str, words: list[str]) -> None:
    spoken = [i for i, word in enumerate(words) if word.strip()]
    tags = [i % len(TAGS) for i in range(len(words))]
    encoded = encode([words], kind, tags=[tags])
    alone = encode([[words[i] for i in spoken]], kind, tags=[[tags[i] for i in spoken]])
    assert encoded.inputs["input_ids"].tolist() == alone.inputs["input_ids"].tolist()
    assert encoded.counted.tolist() == alone.counted.tolist()
    assert encoded.labels.tolist() == alone.labels.tolist()
    assert encoded.references[0].tags == tags
    assert encoded.references[0].words == tuple(spoken[i] for i in alone.references[0].words)


@every_kind
@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_word_counts_as_no_entity(kind: str, blank: str) -> None:
    encoded = encode([["ada", blank, "byron"]], kind, tags=[[1, 2, 3]])
    assert encoded.labels.tolist() == [1, 3]
    # gold: a person of two words, a place; found: a person of one word, a place
    assert TASK.score([[1, 3]], encoded.references, data_of()) == 0.5
    assert TASK.score([[1, 3]], encoded.references, data_of("accuracy")) == pytest.approx(2 / 3)


def test_entities_are_scored_in_the_scheme_of_the_labels() -> None:
    labels = ("O", "B-PER", "I-PER", "L-PER", "U-PER")
    encoded = encode([["ada", "byron", "and", "ben"]], tags=[[1, 3, 0, 4]])
    assert TASK.score([[1, 3, 0, 4]], encoded.references, data_of(labels=labels)) == 1
    # B-PER I-PER breaks off, so that it is none; the other is a hit: 2·1 / (1 + 2)
    assert TASK.score([[1, 2, 0, 4]], encoded.references, data_of(labels=labels)) == (
        pytest.approx(2 / 3)
    )


@every_kind
def test_words_beyond_the_most_tokens_count_as_misses(kind: str) -> None:
    words, tags = ["a", "b"] * 20, [1, 0] * 20
    encoded = encode([words], kind, tags=[tags], max_length=12)
    kept = len(encoded.references[0].words)
    assert encoded.inputs["input_ids"].shape[1] == 12
    assert encoded.references[0].words == tuple(range(kept))
    assert 3 < kept <= 10
    found = tags[:kept]
    hits = sum(found)
    assert TASK.score([found], encoded.references, data_of()) == pytest.approx(
        2 * hits / (hits + 20)
    )
    assert TASK.score([found], encoded.references, data_of("accuracy")) == pytest.approx(
        (40 - (20 - hits)) / 40
    )


def test_a_sentence_of_which_no_word_is_left_has_no_rows() -> None:
    encoded = encode([["ada", "byron"], ["\u200b"]], tags=[[1, 2], [0]])
    assert encoded.offsets.tolist() == [0, 2, 2]
    assert tags_of(model_of("WordPiece"), encoded, [1], "WordPiece") == [[]]
    assert tags_of(model_of("WordPiece"), encoded, [1, 0], "WordPiece")[0] == []


def test_the_words_of_a_row_without_tags_are_ignored_by_the_loss() -> None:
    encoded = encode([["ada", "byron"], ["london"]], tags=[None, [3]])
    assert encoded.labels.tolist() == [IGNORED, IGNORED, 3]
    batch = encoded.batch(torch.tensor([1, 0]))
    assert TASK.labels(batch).tolist() == [3, IGNORED, IGNORED]


@given(
    sentences=st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_batch_has_the_rows_of_its_examples_in_their_order(
    sentences: list[list[str]], data: st.DataObject
) -> None:
    encoded = encode(sentences, "Unigram")
    indices = data.draw(st.lists(st.integers(0, len(sentences) - 1), min_size=1, max_size=4))
    batch = encoded.batch(torch.tensor(indices))
    labels = [word % len(TAGS) for index in indices for word in encoded.references[index].words]
    assert batch.labels.tolist() == labels
    assert int(batch.counted.sum()) == len(batch.rows) == len(labels)
    assert torch.equal(encoded.labels[batch.rows], batch.labels)
    assert batch.counts.tolist() == [len(encoded.references[index].words) for index in indices]


# -- predictions -------------------------------------------------------------------------------


@every_kind
def test_predictions_of_a_batch_are_those_of_each_sentence_alone(kind: str) -> None:
    sentences = [sentence.split() for sentence in SENTENCES[:12]] + [["Ada", "Byron"], ["Z"]]
    encoded, model = encode(sentences, kind), model_of(kind)
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0)).tolist()
    together = tags_of(model, encoded, order, kind)
    alone = [tags_of(model, encoded, [index], kind)[0] for index in order]
    assert together == alone
    assert len({tag for tags in alone for tag in tags}) > 1  # not the same for everything


@every_kind
def test_outputs_are_the_logits_at_the_first_tokens(kind: str) -> None:
    words = ["Ada", "Byron", "wrote", "it"]
    encoded, model = encode([["the"] * 9, words], kind), model_of(kind)
    with torch.no_grad():
        found = TASK.outputs(model, encoded.batch(torch.tensor([0, 1])))
        encoding: Any = tokenizer_of(kind)(" ".join(words), return_tensors="pt")
        logits = model(
            input_ids=encoding["input_ids"], attention_mask=encoding["attention_mask"]
        ).logits[0]
    expected = logits[list(first_tokens(words, kind).values())]
    assert len(expected) == 4
    torch.testing.assert_close(found[9:], expected, rtol=1e-4, atol=1e-4)
