from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from models import DISTANCES, begin, everything, first, save_model, task_study, task_texts
from test_cli import Ended, kdsearch
from test_ner import every_kind, tokenizer_of, word_pieces
from test_qa import LONG, losses, official_f1, official_normalised, row
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from kdsearch.agenda import DataSpec, OutputsTraining
from kdsearch.distill import check_models, run_training
from kdsearch.distill.losses import Units, label_loss
from kdsearch.distill.models import word_tokenizer
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study import SPLITS, TrainingSettings, parse_study
from kdsearch.study.parsers import parse_rows
from kdsearch.study.rows import digest_rows
from kdsearch.study.tasks import Columns
from kdsearch.tasks import IGNORED, Encoded, QuestionAnswering
from kdsearch.tasks.qa import Span

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


# -- unanswerable questions ---------------------------------------------------------------------


def spec(metric: str = "f1", *, unanswerable: bool = True) -> DataSpec:
    return DataSpec(
        task="qa",
        metric=metric,
        labels=(),
        train="",
        validation="",
        test="",
        unanswerable=unanswerable,
    )


def encode(
    rows: Sequence[dict[str, Any]],
    kind: str = "WordPiece",
    *,
    unanswerable: bool = True,
    training: bool = False,
) -> Encoded:
    settings = TrainingSettings(max_length=40, stride=12)
    data = spec(unanswerable=unanswerable)
    return TASK.encode(rows, tokenizer_of(kind), data, settings, training=training)


def decode(encoded: Encoded, values_RW: Tensor) -> list[Span]:
    batch = everything(encoded)
    return TASK.decode(nn.Identity(), None, batch, values_RW, spec(), TrainingSettings())


def drawn(encoded: Encoded, seed: int) -> Tensor:
    """Logits at random, equal ones among them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (len(encoded.labels), 2), generator=generator).float()


ANSWER = " ".join(LONG.split()[30:33])
MIXED = [row(LONG, ANSWER), row("ada did"), row("Ada wrote it.", "Ada"), row(LONG)]


@every_kind
def test_the_first_row_of_each_window_is_that_of_its_cls_token(kind: str) -> None:
    encoded, plain = encode(MIXED, kind), encode(MIXED, kind, unanswerable=False)
    assert torch.equal(encoded.inputs["input_ids"], plain.inputs["input_ids"])
    assert encoded.inputs["input_ids"][:, 0].tolist() == [tokenizer_of(kind).cls_token_id] * len(
        encoded
    )
    expected = plain.counted.clone()
    expected[:, 0] = True
    assert torch.equal(encoded.counted, expected)
    batch = everything(encoded)
    values = TASK.outputs(Arithmetic(), batch)
    found = Arithmetic()(encoded.inputs["input_ids"])
    firsts = encoded.offsets[:-1]
    assert torch.equal(values[firsts, 0], found.start_logits[:, 0])
    assert torch.equal(values[firsts, 1], found.end_logits[:, 0])
    context = torch.ones(len(values), dtype=torch.bool)
    context[firsts] = False
    assert torch.equal(values[context], TASK.outputs(Arithmetic(), everything(plain)))


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_a_window_without_the_answer_has_its_label_at_cls(kind: str, training: bool) -> None:
    encoded = encode(MIXED, kind, training=training)
    plain = encode(MIXED, kind, unanswerable=False)
    starts, ends = TASK.labels(everything(encoded)).view(2, -1)
    before = TASK.labels(everything(plain)).view(2, -1)
    expected = torch.where(before == IGNORED, 0, before + 1)
    assert torch.equal(torch.stack([starts, ends]), expected)
    assert (starts == 0).any()
    assert (starts > 0).sum() >= 2


def test_a_row_whose_answers_are_not_known_has_no_label() -> None:
    unknown = {**row(LONG), "answers": None}
    encoded = encode([unknown, row("ada did")], training=True)
    labels = TASK.labels(everything(encoded)).view(2, -1)
    assert labels[:, -1].tolist() == [0, 0]
    assert (labels[:, :-1] == IGNORED).all()


def test_an_answer_without_a_token_is_not_learnt_as_no_answer() -> None:
    encoded = encode([row("ada \u200b did", "\u200b")])
    assert TASK.labels(everything(encoded)).tolist() == [IGNORED, IGNORED]


def test_cls_is_a_class_of_each_softmax() -> None:
    encoded = encode([row("ada", "ada"), row("it")])
    values = torch.tensor([[9.0, 8], [0, 1], [2, 3], [4, 5], [7.0, 6], [1, 1], [2, 2]])
    logits, real = TASK.units(values, everything(encoded))
    assert real is not None
    assert [unit[there].tolist() for unit, there in zip(logits, real, strict=True)] == [
        [9, 0, 2, 4],
        [7, 1, 2],
        [8, 1, 3, 5],
        [6, 1, 2],
    ]
    assert TASK.labels(everything(encoded)).tolist() == [1, 0, 3, 0]
    chosen = [(logits[0], 1), (logits[1][:3], 0), (logits[2], 3), (logits[3][:3], 0)]
    expected = -sum(float(unit.log_softmax(0)[label]) for unit, label in chosen) / 4
    labels = TASK.labels(everything(encoded))
    found = label_loss(Units(student=logits, labels=labels, real=real))
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_loss_with_cls_is_the_mean_of_those_of_each_window_alone(distance: str) -> None:
    encoded = encode(MIXED)
    student, teacher = drawn(encoded, 1), drawn(encoded, 2)
    alone = []
    for index in range(len(encoded)):
        batch = encoded.batch(torch.tensor([index]))
        alone.append(losses(student[batch.rows], teacher[batch.rows], batch, distance))
        if distance == "mse":
            plain = float(((student - teacher)[batch.rows] ** 2).mean())
            assert alone[-1][1] == pytest.approx(plain)
    together = losses(student, teacher, everything(encoded), distance)
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert found == pytest.approx(sum(parts) / len(parts), rel=1e-5)


# -- the official script, and run_qa's choice ---------------------------------------------------


def official(truths: Sequence[str], prediction: str) -> tuple[float, float]:
    """Exact match and F1 of evaluate-v2.0.py: get_raw_scores, compute_exact, compute_f1."""
    golds = [truth for truth in truths if official_normalised(truth)] or [""]

    def f1(gold: str) -> float:
        wanted, found = official_normalised(gold).split(), official_normalised(prediction).split()
        if not wanted or not found:
            return float(wanted == found)
        return official_f1(prediction, gold)

    exact = max(float(official_normalised(g) == official_normalised(prediction)) for g in golds)
    return exact, max(map(f1, golds))


def run_qa(encoded: Encoded, values_RW: Tensor) -> dict[int, str]:
    """The prediction for each question, by every span of every window."""
    spans: dict[int, list[tuple[float, str]]] = {}
    nulls: dict[int, list[float]] = {}
    rows = iter(values_RW.tolist())
    for window in encoded.references:
        start, end = next(rows)
        nulls.setdefault(window.question, []).append(start + end)
        logits = [next(rows) for _ in window.offsets]
        found = spans.setdefault(window.question, [])
        for i, (begins, _) in enumerate(window.offsets):
            for j in range(i, min(i + 30, len(logits))):
                text = window.context[begins : window.offsets[j][1]]
                found.append((logits[i][0] + logits[j][1], text))
    chosen = {}
    for question, every in spans.items():
        best = max(every, key=lambda span: span[0], default=(-math.inf, ""))
        chosen[question] = "" if min(nulls[question]) - best[0] > 0 else best[1]
    return chosen


ARTICLES = row("the the a. the", "the", "a.")
"""Its answers normalise to nothing."""


@given(
    seed=st.integers(0, 2**32 - 1),
    bias=st.integers(-8, 16),
    rows=st.lists(
        st.sampled_from([*MIXED, ARTICLES, row("\u200b"), row("the the"), row("it is", "it", "")]),
        min_size=1,
        max_size=5,
    ),
)
def test_scores_are_those_of_the_official_script(
    seed: int, bias: int, rows: list[dict[str, Any]]
) -> None:
    encoded = encode(rows)
    values = drawn(encoded, seed)
    values[encoded.offsets[:-1]] += bias
    predicted = run_qa(encoded, values)
    truths = [[answer["text"] for answer in each["answers"]] for each in rows]
    expected = [official(truth, predicted[number]) for number, truth in enumerate(truths)]
    spans = decode(encoded, values)
    for metric, scores in zip(("exact_match", "f1"), zip(*expected, strict=True), strict=True):
        found = TASK.score(spans, encoded.references, spec(metric))
        assert found == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize(
    ("null", "answered"), [(2.5, 1.0), (3.0, 1.0), (3.5, 0.0)], ids=["below", "equal", "above"]
)
def test_no_answer_is_said_where_cls_is_above_the_best_span(null: float, answered: float) -> None:
    for context, expected in ((row("ada", "ada"), answered), (row("ada"), 1 - answered)):
        encoded = encode([context])
        values = torch.zeros(4, 2)
        values[0] = null / 2
        values[1, 0], values[3, 1] = 1, 2
        assert TASK.score(decode(encoded, values), encoded.references, spec()) == expected


def test_the_window_that_is_least_sure_of_no_answer_decides() -> None:
    encoded = encode([row(LONG)])
    firsts = encoded.offsets[:-1]
    assert len(firsts) > 2
    values = torch.zeros(len(encoded.labels), 2)
    values[firsts] = 5
    values[2] = 1  # of a word; articles alone are no answer
    assert TASK.score(decode(encoded, values), encoded.references, spec()) == 1
    values[firsts[1]] = -1
    assert TASK.score(decode(encoded, values), encoded.references, spec()) == 0


def test_a_signature_says_that_it_is_squad_2_and_the_threshold() -> None:
    assert TASK.signature(spec()) == "SQuAD 2 token-overlap F1, no-answer threshold 0"
    assert TASK.signature(spec("exact_match")) == "SQuAD 2 exact match, no-answer threshold 0"


# -- studies ------------------------------------------------------------------------------------

NAMES = ("Ada", "Bob", "Cleo", "Dirk", "Eve", "Finn")
CITIES = ("Rome", "Oslo", "Lima", "Bern", "Kyiv", "Cork")


def questions(count: int, *, seed: int = 0, unanswerable: bool = True) -> list[dict[str, Any]]:
    """Every other one, if so asked, is for what the context does not say."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        name, city = draw.choice(NAMES), draw.choice(CITIES)
        context = f"{name} wrote a book in {city} ."
        word, answers = draw.choice([("who", [name]), ("where", [city])])
        if unanswerable and number % 2 == 0:
            word, answers = "when", []
        starts = [context.index(answer) for answer in answers]
        rows.append(
            {
                "question": f"{word} was it ?",
                "context": context,
                "answers": {"text": answers, "answer_start": starts},
            }
        )
    return rows


def write(folder: Path, split: str, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dataset(folder: Path, counts: tuple[int, int, int], **fields: Any) -> dict[str, Any]:
    files = {
        split: write(folder, split, questions(count, seed=seed))
        for seed, (split, count) in enumerate(zip(SPLITS, counts, strict=True))
    }
    return {"task": "qa", "files": files, **fields}


def test_a_tiny_model_learns_when_there_is_no_answer(tmp_path: Path) -> None:
    data = dataset(tmp_path, (160, 60, 60), unanswerable=True)
    study = task_study(
        "qa",
        datasets={"data": data},
        teachers={"big": {"model": "big", "fine_tune": {"learning_rate": [5e-3], "epochs": 12}}},
    )
    ledger, agenda = begin(tmp_path / "study", study)
    outcome = run_training(first(agenda, "teacher"), ledger.folder)
    assert outcome.metric == "SQuAD 2 token-overlap F1, no-answer threshold 0"
    assert outcome.validation is not None
    assert outcome.validation > 0.9  # no answer to any question: 0.5


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A study of the same files twice, and of the rows that one of them leaves once more."""
    folder = tmp_path_factory.mktemp("launched")
    plain = dataset(folder, (40, 20, 10))
    files = {
        split: write(folder, f"answered-{split}", [row for row in rows if row["answers"]["text"]])
        for split, rows in (
            (split, [json.loads(line) for line in Path(path).read_text().splitlines()])
            for split, path in plain["files"].items()
        )
    }
    study = task_study(
        "qa",
        datasets={
            "answered": plain,
            "all": {**plain, "unanswerable": True},
            "same": {**plain, "files": files, "unanswerable": True},
        },
        search={"distance": ["mse"], "alpha": [0.5]},
        erm=True,
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    runs = folder / "runs"
    return runs, kdsearch("launch", folder / "study.yaml", "--folder", runs, "--in-process")


def test_launch_says_how_many_questions_without_an_answer_are_left_out(
    launched: tuple[Path, Ended],
) -> None:
    folder, result = launched
    assert result.code == 0, result
    for split, rows in {"train": 20, "validation": 10, "test": 5}.items():
        what = f"left out of {split}, since they have no answer: {rows} rows"
        assert f"datasets.answered: {what} (unanswerable: true keeps them)\n" in result.out
    assert result.out.count("left out") == 3
    resolved = Ledger(folder).resolved().datasets
    counts = {name: [data.splits[s].rows for s in SPLITS] for name, data in resolved.items()}
    assert counts == {"answered": [20, 10, 5], "all": [40, 20, 10], "same": [20, 10, 5]}
    assert resolved["same"].splits["train"].digest == resolved["answered"].splits["train"].digest


def test_the_cache_holds_a_row_more_for_each_window(launched: tuple[Path, Ended]) -> None:
    folder, _ = launched
    ledger = Ledger(folder)
    for name, data in ledger.resolved().datasets.items():
        rows = ledger.rows(data.splits["train"].digest)
        words = sum(len(each["context"].split()) for each in rows)  # its tokens
        expected = words + len(rows) * (name != "answered")
        [path] = {
            folder / "outputs" / f"{outcome.key}.npy"
            for outcome in ledger.results().values()
            if outcome is not None
            and isinstance(outcome.training, OutputsTraining)
            and outcome.training.split == "train"
            and outcome.training.data.train == data.splits["train"].digest
            and outcome.training.data.unanswerable == data.unanswerable
        }
        assert np.load(path).shape == (expected, 2)


def test_a_training_of_each_kind_is_scored_as_squad_2_is(launched: tuple[Path, Ended]) -> None:
    folder, _ = launched
    seen = set()
    for outcome in Ledger(folder).results().values():
        assert outcome is not None
        two = "SQuAD 2 token-overlap F1, no-answer threshold 0"
        wanted = two if outcome.training.data.unanswerable else "SQuAD token-overlap F1"
        assert outcome.metric == wanted
        alone = getattr(outcome.training, "teaching", ...) is None
        seen.add((outcome.training.kind, alone, outcome.training.data.unanswerable))
    assert len(seen) == 8  # teachers, outputs, students with and without a teacher


def test_an_exported_student_says_how_no_answer_is_told(
    launched: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder, _ = launched
    for case, said in (("all", True), ("answered", False)):
        result = kdsearch("export", folder, f"{case}/big", "--to", tmp_path / case)
        assert result.code == 0, result
        card = (tmp_path / case / "README.md").read_text()
        assert ("no-answer threshold 0" in card) == said
        assert ("A question has no answer, " in card) == said


def test_a_study_with_unanswerable_questions_can_be_verified(
    launched: tuple[Path, Ended],
) -> None:
    result = kdsearch("verify", launched[0])
    assert result.code == 0, result


def test_an_estimate_of_the_cache_counts_cls(tmp_path: Path) -> None:
    both = []
    for unanswerable in (False, True):
        rows = questions(20, unanswerable=False)
        files = {split: write(tmp_path, split, rows) for split in SPLITS}
        data = {"task": "qa", "files": files, "unanswerable": unanswerable}
        ledger, _ = begin(tmp_path / str(unanswerable), task_study("qa", datasets={"data": data}))
        both.append(ledger.resolved().datasets["data"].splits["train"].units)
    assert both[1] - both[0] == 20


@pytest.mark.parametrize("task", ["classification", "ner", "translation"])
def test_only_questions_are_unanswerable(task: str) -> None:
    sizes = {"train": 20, "validation": 10, "test": 10}
    datasets = {"data": {"task": task, "grammar": sizes, "unanswerable": True}}
    with pytest.raises(InputError, match=f"{task} has no unanswerable questions; remove unansw"):
        parse_study(task_study(task, datasets=datasets), place="study.yaml")


@pytest.mark.parametrize("dataset_name", ["mrpc", "conll"])
def test_a_known_data_set_without_questions_has_no_unanswerable_ones(dataset_name: str) -> None:
    datasets = {dataset_name: {"unanswerable": True}}
    with pytest.raises(InputError, match="has no unanswerable questions"):
        parse_study(task_study("qa", datasets=datasets), place="study.yaml")


# -- models that cannot say that there is no answer ---------------------------------------------


def checked(folder: Path, models: dict[str, Any], *, unanswerable: bool) -> None:
    sizes = {"train": 20, "validation": 10, "test": 10}
    data = {"task": "qa", "grammar": sizes, "unanswerable": unanswerable}
    ledger, _ = begin(folder / "study", task_study("qa", models=models, datasets={"data": data}))
    check_models(ledger.resolved(), "study.yaml")


def refusal(folder: Path, models: dict[str, Any]) -> str:
    checked(folder / "plain", models, unanswerable=False)
    with pytest.raises(InputError) as caught:
        checked(folder, models, unanswerable=True)
    return str(caught.value)


def test_a_model_that_reads_from_left_to_right_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 64}
    said = refusal(tmp_path, {name: {"config": config} for name in ("big", "small")})
    assert "models.big: gpt2 reads from left to right" in said
    assert "remove datasets.data.unanswerable" in said


def test_a_tokenizer_that_does_not_begin_with_cls_is_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(task_texts("qa"))
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single="$A [SEP] [CLS]",
        pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[
            (name, tokenizer.convert_tokens_to_ids(name)) for name in ("[SEP]", "[CLS]")
        ],
    )
    models = {
        name: str(save_model(tmp_path / name, task="qa", tokenizer=tokenizer))
        for name in ("big", "small")
    }
    assert "models.big: its tokenizer does not begin inputs with [CLS]" in refusal(tmp_path, models)


def test_an_encoder_is_accepted(tmp_path: Path) -> None:
    for kind in ("bert", "roberta"):
        models = {
            name: str(
                save_model(tmp_path / f"{kind} {name}", kind, task="qa", max_position_embeddings=70)
            )
            for name in ("big", "small")
        }
        checked(tmp_path / kind, models, unanswerable=True)
