from __future__ import annotations

import collections
import math
import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import DISTANCES, SENTENCES, objective_of
from test_ner import KINDS, every_kind, tokenizer_of, word_pieces
from torch import Tensor
from transformers import BertConfig, BertForQuestionAnswering

from kdsearch.agenda import DataSpec
from kdsearch.distill.losses import Units, compute, label_loss
from kdsearch.errors import InputError
from kdsearch.study import TrainingSettings
from kdsearch.tasks import IGNORED, Batch, Encoded, QuestionAnswering
from kdsearch.tasks.qa import Span, exact_match, token_f1

TASK = QuestionAnswering()
LONG = ". ".join(SENTENCES[:12]) + "."


def data_of(metric: str = "f1") -> DataSpec:
    return DataSpec(task="qa", metric=metric, labels=(), train="", validation="", test="")


def row(
    context: str, *answers: str, question: str = "who wrote it?", start: int | None = None
) -> dict[str, Any]:
    """A row whose answers are where the context has them first; without any it is not scored."""
    found = [
        {"text": text, "start": context.index(text) if start is None else start} for text in answers
    ]
    return {"question": question, "context": context, "answers": found}


def encode(
    rows: Sequence[dict[str, Any]],
    kind: str = "WordPiece",
    max_length: int = 384,
    stride: int = 128,
    *,
    training: bool = False,
) -> Encoded:
    wanted = TrainingSettings(max_length=max_length, stride=stride)
    return TASK.encode(rows, tokenizer_of(kind), data_of(), wanted, training=training)


def everything(encoded: Encoded) -> Batch:
    return encoded.batch(torch.arange(len(encoded)))


def decode(encoded: Encoded, values_RW: Tensor) -> list[Any]:
    return TASK.decode(
        torch.nn.Identity(),
        None,
        everything(encoded),
        values_RW,
        data_of(),
        TrainingSettings(),
    )


def score(encoded: Encoded, values_RW: Tensor, metric: str = "f1") -> float:
    return TASK.score(decode(encoded, values_RW), encoded.references, data_of(metric))


def text_of(encoded: Encoded, index: int, span: Span) -> str:
    window = encoded.references[index]
    return str(window.context[window.offsets[span.first][0] : window.offsets[span.last][1]])


def letters(text: str, start: int, end: int) -> list[int]:
    """Where they are, without the spaces."""
    return [place for place in range(start, end) if not text[place].isspace()]


def model_of(kind: str) -> BertForQuestionAnswering:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer_of(kind)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = BertForQuestionAnswering(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


# -- the official script's scores --------------------------------------------------------------


def official_normalised(answer: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def remove_punctuation(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punctuation(answer.lower())).split())


def official_f1(prediction: str, truth: str) -> float:
    found, wanted = official_normalised(prediction).split(), official_normalised(truth).split()
    common = collections.Counter(found) & collections.Counter(wanted)
    same = sum(common.values())
    if same == 0:
        return 0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


ANSWERS = st.lists(
    st.sampled_from(["the", "The", "a", "an", "Ada", "ada", "ADA.", "a.", "“it”", "it", "-", "ß"]),
    max_size=6,
).flatmap(lambda words: st.sampled_from([" ", "  ", "-", "\n"]).map(lambda s: s.join(words)))


@given(prediction=ANSWERS | st.text(), answer=ANSWERS | st.text())
def test_f1_and_exact_match_are_those_of_the_official_script(prediction: str, answer: str) -> None:
    assert token_f1(prediction, answer) == pytest.approx(official_f1(prediction, answer))
    same = official_normalised(prediction) == official_normalised(answer)
    assert exact_match(prediction, answer) == float(same)


@pytest.mark.parametrize(
    ("prediction", "answer", "f1", "exact"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1, 1),
        ("Eiffel", "the Eiffel Tower", 2 / 3, 0),
        ("a b c d", "d e", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2), 0),
        ("no", "yes", 0, 0),
        ("", "yes", 0, 0),
        ("so so", "so", 2 / 3, 0),
        ("anthem theory", "them ory", 0, 0),
    ],
)
def test_known_answers_have_their_scores(
    prediction: str, answer: str, f1: float, exact: float
) -> None:
    assert token_f1(prediction, answer) == pytest.approx(f1)
    assert exact_match(prediction, answer) == exact


# -- windows -----------------------------------------------------------------------------------


@every_kind
@given(
    context=st.lists(st.sampled_from(LONG.split()), min_size=1, max_size=60).map(" ".join),
    max_length=st.integers(24, 48),
    stride=st.integers(1, 7),
)
def test_windows_cover_the_context_token_by_token_and_share_the_stride(
    kind: str, context: str, max_length: int, stride: int
) -> None:
    encoded = encode([row(context)], kind, max_length, stride)
    whole = tokenizer_of(kind)(context, add_special_tokens=False, return_offsets_mapping=True)
    read: list[int] = []
    for index in range(len(encoded)):
        length = int(encoded.lengths[index])
        assert length <= max_length
        assert not encoded.counted[index, length:].any()
        tokens = encoded.inputs["input_ids"][index][encoded.counted[index]].tolist()
        shared = stride if index else 0
        assert read[len(read) - shared :] == tokens[:shared]
        read += tokens[shared:]
        begin = len(read) - len(tokens)
        expected = whole["offset_mapping"][begin : len(read)]
        # tokenizers trims the space off a token's offsets in a context's first window alone
        found = encoded.references[index].offsets
        assert [letters(context, *o) for o in found] == [letters(context, *o) for o in expected]
    assert read == whole["input_ids"]
    if len(encoded) > 1:
        assert set(encoded.lengths[:-1].tolist()) == {max_length}


def test_rows_are_neither_of_the_question_nor_special() -> None:
    encoded = encode([row("ada did", question="who is it?")])
    tokenizer = tokenizer_of("WordPiece")
    tokens = tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0].tolist())
    counted = encoded.counted[0].tolist()
    assert [token for token, there in zip(tokens, counted, strict=True) if there] == [
        *("a", "##d", "##a", "d", "##i", "##d")
    ]


def test_token_types_tell_question_and_context_where_a_model_takes_them() -> None:
    tokenizer = word_pieces()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    wanted = TrainingSettings(max_length=64, stride=16)
    rows = [row("ada did", question="is it?"), row("ada", question="is it?")]
    encoded = TASK.encode(rows, tokenizer, data_of(), wanted, training=True)
    batch = encoded.batch(torch.tensor([1, 0]))
    assert set(batch.arguments) == {"input_ids", "attention_mask", "token_type_ids"}
    question = [0] * 6  # [CLS] is i ##t ? [SEP]
    assert batch.arguments["token_type_ids"].tolist() == [
        question + [1] * 4 + [0] * 3,
        question + [1] * 7,
    ]


def test_windows_know_their_questions() -> None:
    encoded = encode([row("ada"), row(LONG, "the"), row("byron")], max_length=40, stride=10)
    questions = [window.question for window in encoded.references]
    assert questions == sorted(questions)
    assert set(questions) == {0, 1, 2}
    assert questions.count(1) > 3
    assert {window.context for window in encoded.references if window.question == 1} == {LONG}


@every_kind
@pytest.mark.parametrize("max_length", [24, 32, 64])
def test_a_very_long_question_leaves_the_context_its_room(kind: str, max_length: int) -> None:
    settings = TrainingSettings(max_length=max_length).for_task("qa")
    assert settings.stride is not None
    long = row("ada wrote it in london and byron did not", "london", question="why is it so? " * 99)
    encoded = encode([long, row("ada did")], kind, max_length, settings.stride)
    assert encoded.inputs["input_ids"].shape[1] <= max_length
    windows = [w for w in encoded.references if w.question == 0]
    assert windows[-1].offsets[-1][1] == len(long["context"])
    if len(windows) > 1:  # of four special tokens at most
        assert int(encoded.counted[0].sum()) >= max_length - max_length // 4 - 4


@every_kind
def test_a_question_that_is_cut_keeps_its_first_tokens(kind: str) -> None:
    question = " ".join(SENTENCES[:20])
    encoded = encode([row("ada did", question=question)], kind, 64, 16)
    tokenizer = tokenizer_of(kind)
    wanted = tokenizer(question, add_special_tokens=False)["input_ids"][:16]
    assert encoded.inputs["input_ids"][0, 1:17].tolist() == wanted


@every_kind
def test_the_defaults_of_a_study_fit_every_length_of_a_window(kind: str) -> None:
    for length in (24, 25, 31, 100, 384):
        settings = TrainingSettings(max_length=length).for_task("qa")
        assert settings.stride is not None
        encoded = encode([row(LONG, question="why " * 50)], kind, length, settings.stride)
        assert encoded.references[-1].offsets[-1][1] == len(LONG)


class Forgetful:
    """Gives the first windows of a context alone, as tokenizers 0.23.1 does."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, texts: Any, others: Any = None, **named: Any) -> Any:
        if others is None:
            return self._tokenizer(texts, **named)
        return self._tokenizer(texts, [other[: len(other) // 2] for other in others], **named)


@every_kind
def test_a_tokenizer_that_loses_the_end_of_a_context_is_refused(kind: str) -> None:
    settings = TrainingSettings(max_length=32, stride=8)
    rows = [row("ada did"), row(LONG)]
    with pytest.raises(
        InputError, match=r"^tokenizers: \S+ only gives the first windows of a long"
    ):
        TASK.encode(rows, Forgetful(tokenizer_of(kind)), data_of(), settings, training=True)


# -- labels ------------------------------------------------------------------------------------


@every_kind
@given(data=st.data())
def test_the_labels_of_an_answer_decode_to_its_text(kind: str, data: st.DataObject) -> None:
    words = data.draw(
        st.lists(st.text("abdnoryLBé,.ß😀", min_size=1, max_size=5), min_size=1, max_size=12)
    )
    begin = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(begin + 1, len(words)))
    context, answer = " ".join(words), " ".join(words[begin:end])
    start = len(" ".join([*words[:begin], ""])) if begin else 0
    encoded = encode([row(context, answer, start=start)], kind)
    marks = encoded.labels.float()
    assert marks.sum(dim=0).tolist() == [1, 1]
    [span] = decode(encoded, marks)
    if span[2] - span[1] < 30 and span[0] == 2:
        assert text_of(encoded, 0, span).strip() == answer
        assert score(encoded, marks, "exact_match") == 1
    else:
        assert len(answer) > 7  # letters of at most four tokens each


@every_kind
@pytest.mark.parametrize("text", [" Ada", "Ada ", " Ada ", " wrote it", " it."])
def test_spaces_around_an_answer_do_not_move_its_labels(kind: str, text: str) -> None:
    context = "so Ada wrote it."
    marks = [
        encode([row(context, answer)], kind).labels.tolist() for answer in (text, text.strip())
    ]
    assert marks[0] == marks[1]
    assert sum(map(sum, marks[0])) == 2


@every_kind
@pytest.mark.parametrize("context", ["  Ada wrote it", "\tAda wrote it", " Ada wrote it "])
def test_spaces_before_a_context_do_not_move_its_offsets(kind: str, context: str) -> None:
    for answer in ("Ada", "wrote it"):
        encoded = encode([row(context, answer)], kind)
        marks = encoded.labels.float()
        assert marks.sum() == 2
        [span] = decode(encoded, marks)
        assert text_of(encoded, 0, span).strip() == answer


def test_an_answer_of_letters_that_have_no_token_has_no_label() -> None:
    encoded = encode([row("ada \u200b did", "\u200b")])
    assert encoded.labels.sum() == 0
    assert TASK.labels(everything(encoded)).tolist() == [IGNORED, IGNORED]


def test_the_first_answer_is_learnt() -> None:
    encoded = encode([row("ada wrote it", "it", "ada")])
    [span] = decode(encoded, encoded.labels.float())
    assert text_of(encoded, 0, span) == "it"


@every_kind
def test_only_windows_that_hold_the_whole_answer_have_labels(kind: str) -> None:
    answer = " ".join(LONG.split()[30:33])
    encoded = encode([row(LONG, answer)], kind, 48, 20)
    start = LONG.index(answer)
    batch = everything(encoded)
    starts, ends = TASK.labels(batch).view(2, -1).tolist()
    held = []
    for window in encoded.references:
        covered = {place for a, b in window.offsets for place in range(a, b)}
        needed = {p for p in range(start, start + len(answer)) if not LONG[p].isspace()}
        held.append(needed <= covered)
    assert 0 < sum(held) < len(held)
    for index, (there, first, last) in enumerate(zip(held, starts, ends, strict=True)):
        assert (first != IGNORED) == (last != IGNORED) == there
        if there:
            text = text_of(encoded, index, Span(0, first, last))
            assert text.strip() == answer


def test_a_training_row_without_answers_has_no_labels() -> None:
    rows = [row("ada wrote it", "it"), {**row("ada wrote it"), "answers": None}]
    encoded = encode(rows, training=True)
    known = TASK.labels(everything(encoded)).view(2, 2) != IGNORED
    assert known.tolist() == [[True, False], [True, False]]


def test_where_a_windows_rows_stand_is_known_where_it_is_scored_alone() -> None:
    rows = [row("ada did", "did"), row(LONG, "the")]
    encoded = encode(rows, max_length=40, stride=10)
    for window, count in zip(encoded.references, everything(encoded).counts, strict=True):
        assert window.offsets.dtype == np.int32
        assert window.offsets.shape == (int(count), 2)
    learnt = encode(rows, max_length=40, stride=10, training=True)
    assert len(learnt.references) == 0
    assert torch.equal(learnt.labels, encoded.labels)


# -- units -------------------------------------------------------------------------------------


def losses(
    student_RW: Tensor, teacher_RW: Tensor, batch: Batch, distance: str
) -> tuple[float, float]:
    """L1 and L2 of a batch."""
    student, real = TASK.units(student_RW, batch)
    teacher, _ = TASK.units(teacher_RW, batch)
    labels = TASK.labels(batch)
    units = Units(student=student, teacher=teacher, labels=labels, real=real)
    kd = compute(objective_of(distance, 4, 2), units)
    return float(label_loss(units)), float(kd)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_loss_with_padding_is_the_mean_of_those_of_each_window_alone(distance: str) -> None:
    rows = [row("ada did", "ada"), row(SENTENCES[0], SENTENCES[0].split()[1]), row("it", "it")]
    encoded = encode(rows)
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(len(encoded.labels), 2, generator=draw) for _ in range(2))
    alone = []
    for index in range(len(encoded)):
        batch = encoded.batch(torch.tensor([index]))
        alone.append(losses(student[batch.rows], teacher[batch.rows], batch, distance))
    together = losses(student, teacher, everything(encoded), distance)
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert found == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_units_are_the_starts_of_all_windows_then_their_ends() -> None:
    encoded = encode([row("ada did", "did"), row("it", "it")])
    values = torch.arange(2.0 * len(encoded.labels)).view(-1, 2)
    batch = everything(encoded)
    logits, real = TASK.units(values, batch)
    assert real is not None
    assert logits[0].tolist() == [0, 2, 4, 6, 8, 10]  # a ##d ##a d ##i ##d
    assert logits[2].tolist() == [1, 3, 5, 7, 9, 11]
    assert logits[1][real[1]].tolist() == [12, 14]
    assert logits[3][real[3]].tolist() == [13, 15]
    assert real.sum(dim=1).tolist() == [6, 2, 6, 2]
    assert TASK.labels(batch).tolist() == [3, 0, 5, 1]


def test_no_gradient_is_lost_on_the_way_to_the_units() -> None:
    encoded = encode([row("ada did", "did"), row("it", "it")])
    values = torch.randn(len(encoded.labels), 2, requires_grad=True)
    batch = everything(encoded)
    logits, real = TASK.units(values, batch)
    assert real is not None
    logits[real].sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 1]] * len(values)


# -- predictions -------------------------------------------------------------------------------


@given(data=st.data())
def test_the_prediction_is_the_best_allowed_span_of_all_windows(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 45))
    context = " ".join(["the", "is"][i % 2] for i in range(count))
    encoded = encode([row(context)], max_length=40, stride=12)
    size = len(encoded.labels)
    seed = data.draw(st.integers(0, 2**32 - 1))
    values = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed))
    spans = decode(encoded, values)
    rows = iter(values.tolist())
    for window, (best, first, last, _) in zip(encoded.references, spans, strict=True):
        logits = [next(rows) for _ in window.offsets]
        scores = {
            (i, j): logits[i][0] + logits[j][1]
            for i in range(len(logits))
            for j in range(i, min(i + 30, len(logits)))
        }
        assert best == pytest.approx(max(scores.values()), rel=1e-5)
        assert scores[first, last] == pytest.approx(best, rel=1e-5)


def test_an_answer_has_at_most_thirty_tokens_and_never_ends_before_it_starts() -> None:
    encoded = encode([row(" ".join(["the"] * 50))])
    values = torch.zeros(50, 2)
    values[5, 0] = values[34, 1] = 10
    assert decode(encoded, values) == [Span(20, 5, 34)]
    values = torch.zeros(50, 2)
    values[5, 0] = values[35, 1] = 10
    [span] = decode(encoded, values)
    assert span.score == 10
    assert 0 <= span.last - span.first < 30
    values = torch.zeros(50, 2)
    values[20, 0], values[10, 1] = 10, 10
    [span] = decode(encoded, values)
    assert span.score == 10
    assert span.first <= span.last


def test_the_best_window_of_a_question_answers_it() -> None:
    encoded = encode([row(LONG, LONG.split()[0]), row("ada did", "ada")], max_length=40, stride=8)
    counts = everything(encoded).counts.tolist()
    assert len(counts) > 3
    values = torch.zeros(len(encoded.labels), 2)
    values[0] = 5  # the first window: the first token, which is the answer's first
    assert score(encoded, values, "exact_match") < 1
    end = encoded.labels[:, 1].nonzero()[0, 0]
    values = torch.zeros(len(encoded.labels), 2)
    values[0, 0] = values[end, 1] = 5
    values[-sum(counts[-1:])] = torch.tensor([1.0, 0])
    values[-sum(counts[-1:]) + 2, 1] = 1
    assert score(encoded, values, "exact_match") == 1
    values[counts[0] + 3] = 6  # another window is surer of another answer
    assert score(encoded, values, "exact_match") == 0.5


def test_the_best_of_several_answers_counts() -> None:
    encoded = encode([row("ada byron wrote", "wrote", "ada byron", "ada")])
    values = torch.zeros(len(encoded.labels), 2)
    values[0, 0] = 5
    values[2, 1] = 5  # a ##d ##a
    assert score(encoded, values, "exact_match") == score(encoded, values) == 1
    values = torch.zeros(len(encoded.labels), 2)
    values[3, 0] = values[4, 1] = 5  # by ##ron
    assert score(encoded, values) == pytest.approx(2 / 3)
    assert score(encoded, values, "exact_match") == 0


def test_the_score_is_the_mean_over_questions_not_windows() -> None:
    encoded = encode([row(LONG, LONG.split()[-1]), row("it", "it")], max_length=40, stride=8)
    values = torch.zeros(len(encoded.labels), 2)
    values[0] = 9
    values[-2, 0] = values[-1, 1] = 9
    assert score(encoded, values, "exact_match") == 0.5


def test_a_context_without_a_token_is_answered_with_nothing() -> None:
    encoded = encode([row("\u200b", "\u200b"), row("ada", "ada")])
    batch = everything(encoded)
    assert batch.counts.tolist() == [0, 3]
    values = torch.zeros(3, 2)
    values[0, 0] = values[2, 1] = 3
    assert score(encoded, values, "exact_match") == 0.5
    for distance in DISTANCES:
        assert all(map(math.isfinite, losses(values, values + 1, batch, distance)))
    alone = encoded.batch(torch.tensor([0]))
    for distance in DISTANCES:
        assert all(map(math.isfinite, losses(values[:0], values[:0], alone, distance)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_says_of_a_batch_is_what_it_says_of_each_window_alone(kind: str) -> None:
    rows = [row(LONG, "the"), row("Ada did", "Ada"), row(SENTENCES[3], "the")]
    encoded, model = encode(rows, kind, 64, 16), model_of(kind)
    with torch.no_grad():
        together = TASK.outputs(model, everything(encoded))
        assert together.shape == encoded.labels.shape
        for index in range(len(encoded)):
            batch = encoded.batch(torch.tensor([index]))
            alone = TASK.outputs(model, batch)
            torch.testing.assert_close(alone, together[batch.rows], rtol=1e-4, atol=1e-4)
        found = model(**everything(encoded).arguments)
    places = everything(encoded).counted
    assert torch.equal(together[:, 0], found.start_logits[places])
    assert torch.equal(together[:, 1], found.end_logits[places])


def test_a_signature_says_which_score_it_is() -> None:
    assert TASK.signature(data_of("f1")) == "SQuAD token-overlap F1"
    assert TASK.signature(data_of("exact_match")) == "SQuAD exact match"
