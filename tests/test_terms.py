"""Terms that are added to an objective: their formulas, what is kept of a teacher, projections."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import SENTENCES, begin, run_study, save_model, settings_of, spread, task_study, tiny
from test_resume import DeadError, MemoryCheckpoints
from test_training import DATA, TASK, TOKENIZER, bert, encoded
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from kdsearch.agenda import (
    Agenda,
    OutputsTraining,
    Signal,
    StudentTraining,
    resolved_signal_bytes,
)
from kdsearch.agenda.fusing import alike
from kdsearch.cli.app import app
from kdsearch.distill import preflight, run_training
from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.models import recompute
from kdsearch.distill.signals import watch
from kdsearch.distill.term_losses import attention_loss, cls_loss, hidden_loss, relation_loss
from kdsearch.distill.terms import KeptSignal, Terms
from kdsearch.distill.training import TrainingState, train
from kdsearch.driver import open_study
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.search import TERMS, Features, Labels, Mse
from kdsearch.study import parse_study
from kdsearch.study.mapping import mapped_layers

Array = np.ndarray[Any, Any]
LENGTHS = (3, 5, 2)
ALONE: dict[str, Any] = {
    "strategy": "exhaustive",
    "objective": ["mse"],
    "distance": None,
    "teacher": ["t_hs"],
    "alpha": [0.5],
    "student_temperature": None,
    "temperature": None,
    "learning_rate": [1e-2],
}
"""A search whose grid is that of its terms."""


# -- the formulas ------------------------------------------------------------------------------


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real() -> Tensor:
    return torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def pairs(*, causal: bool) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Which pairs of tokens there are, as a mask and one by one."""
    every = [
        (b, i, j)
        for b, length in enumerate(LENGTHS)
        for i, j in product(range(length), range(length))
        if not causal or j <= i
    ]
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), max(LENGTHS), dtype=torch.bool)
    for place in every:
        mask[place] = True
    return mask, every


def test_hidden_states_differ_by_their_mean_square_over_tokens_layers_and_width() -> None:
    student, teacher = drawn(3, 5, 2, 4), drawn(3, 5, 2, 4, seed=1)
    squares = [
        float((student[b, i, k, w] - teacher[b, i, k, w]) ** 2)
        for b, length in enumerate(LENGTHS)
        for i, k, w in product(range(length), range(2), range(4))
    ]
    found = hidden_loss(student, teacher, real(), sum(LENGTHS))
    assert float(found) == pytest.approx(sum(squares) / len(squares))


def test_cls_states_differ_by_twice_one_less_their_cosine() -> None:
    student, teacher = drawn(3, 2, 4).numpy(), drawn(3, 2, 4, seed=1).numpy()
    distances = [
        2 - 2 * float(s @ t) / math.sqrt(float(s @ s) * float(t @ t))
        for s, t in zip(student.reshape(-1, 4), teacher.reshape(-1, 4), strict=True)
    ]
    found = cls_loss(torch.tensor(student), torch.tensor(teacher), 3)
    assert float(found) == pytest.approx(np.mean(distances), rel=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_attention_differs_by_the_mean_square_of_its_scores(*, mean: bool, causal: bool) -> None:
    layers, heads = 2, 3
    own, theirs = drawn(3, 5, 12, 4).double(), drawn(3, 5, 12, 7, seed=1).double()
    mask, every = pairs(causal=causal)

    def score(parts: Tensor, layer: int, head: int, b: int, i: int, j: int) -> float:
        first_of_layer = layer * 2 * heads
        query, key = parts[b, i, first_of_layer + head], parts[b, j, first_of_layer + heads + head]
        return float(query @ key)

    squares = []
    for layer, place in product(range(layers), every):
        s, t = (
            [score(parts, layer, head, *place) for head in range(heads)] for parts in (own, theirs)
        )
        if mean:
            s, t = [sum(s) / heads], [sum(t) / heads]
        squares += [(a - b) ** 2 for a, b in zip(s, t, strict=True)]
    found = attention_loss(own, theirs, mask, len(every), layers=layers, mean=mean)
    assert float(found) == pytest.approx(sum(squares) / len(squares))


@pytest.mark.parametrize("causal", [False, True])
def test_relations_differ_by_the_divergence_of_three_softmaxes(*, causal: bool) -> None:
    # The student is 2 heads of 4, the teacher 3 of 8; both are divided into 4.
    own, theirs = drawn(3, 5, 6, 4).double(), drawn(3, 5, 9, 8, seed=1).double()
    mask, _ = pairs(causal=causal)
    heads, total = 4, 0.0

    def relation(parts: Tensor, which: int, head: int, b: int, i: int) -> Array:
        vectors = parts[b].numpy().reshape(5, 3, -1)[:, which].reshape(5, heads, -1)[:, head]
        last = i + 1 if causal else LENGTHS[b]
        scores = vectors[:last] @ vectors[i] / math.sqrt(vectors.shape[-1])
        weights: Array = np.exp(scores - scores.max())
        weights /= weights.sum()
        return weights

    for b, length in enumerate(LENGTHS):
        for i, which, head in product(range(length), range(3), range(heads)):
            q, p = (relation(parts, which, head, b, i) for parts in (own, theirs))
            total += float((p * np.log(p / q)).sum())
    found = relation_loss(own, theirs, real(), mask, sum(LENGTHS), heads=heads)
    assert float(found) == pytest.approx(total / (heads * sum(LENGTHS)))


@pytest.mark.parametrize(
    ("mapping", "teacher", "student", "layers"),
    [
        ("uniform", 12, 4, (2, 5, 8, 11)),  # TinyBERT: g(m) = 3m
        ("last", 12, 4, (8, 9, 10, 11)),
        ("first", 12, 4, (0, 1, 2, 3)),
        ("1+3+5", 6, 3, (1, 3, 5)),
        ("5", 6, 4, (5,)),
    ],
)
def test_a_mapping_names_a_teachers_layers(
    mapping: str, teacher: int, student: int, layers: tuple[int, ...]
) -> None:
    assert mapped_layers(mapping, teacher, student) == layers


# -- what is seen of a model -------------------------------------------------------------------


SHARED = {"num_attention_heads": 4, "num_key_value_heads": 2}
"""Two heads of queries have one of keys and values."""


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("bert", {}),
        ("gpt2", {"n_inner": 16}),
        ("llama", SHARED),
        ("qwen2", SHARED),
        ("qwen3", {**SHARED, "head_dim": 8}),
    ],
)
def test_what_is_seen_gives_the_attention_that_a_model_itself_tells(
    kind: str, fields: dict[str, Any]
) -> None:
    usual = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 40}
    usual |= {"num_attention_heads": 4, "max_position_embeddings": 16}
    config = AutoConfig.for_model(kind, **{**usual, **fields})
    model = AutoModel.from_config(config).eval()
    spread(model)
    eager = AutoModel.from_config(deepcopy(config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    ids = torch.randint(40, (2, 7), generator=torch.Generator().manual_seed(0))
    real = torch.arange(7) < torch.tensor([[7], [4]])
    given = {"input_ids": ids, "attention_mask": real.long()}
    layers = Signal(name="attention", layers=(0, 1))
    with torch.no_grad():
        _, seen = watch(model, [layers], lambda: model(**given)[0])
        told = eager(**given, output_attentions=True).attentions
    assert seen.causal == (kind != "bert")
    pairs = (real[:, None] & real[:, :, None])[:, None]
    if kind != "bert":
        pairs = pairs.tril()
    for parts, expected in zip(seen[layers].chunk(2, dim=2), told, strict=True):
        queries, keys = parts.transpose(1, 2).chunk(2, dim=1)
        scores = (queries @ keys.transpose(-1, -2)).masked_fill(~pairs, -1e9)
        torch.testing.assert_close(scores.softmax(dim=-1) * pairs, expected * pairs)


# -- a training with terms ---------------------------------------------------------------------


def every_term(student: Any, teacher: Any, examples: Any) -> Terms:
    """All terms of a student, on what a teacher in memory computes."""
    weights: dict[str, Any] = dict.fromkeys(TERMS, 0.5)
    objective = Features(**weights, attention_heads="mean")
    signals = {
        "hint": Signal(name="hidden_states", layers=(0,)),
        "hidden_states": Signal(name="hidden_states", layers=(0, 1)),
        "cls_states": Signal(name="cls_states", layers=(0, 1)),
        "attention": Signal(name="attention", layers=(1,)),
        "relations": Signal(name="relations", layers=(1,)),
    }
    batch = examples.batch(torch.arange(len(examples)))
    with torch.no_grad():
        run = partial(TASK.outputs, teacher.eval(), batch)
        _, seen = watch(teacher, [*signals.values()], run)
    mask = batch.arguments["attention_mask"].bool()
    kept = {}
    for term, signal in signals.items():
        whole = signal.name == "cls_states"
        counts = torch.ones_like(examples.lengths) if whole else examples.lengths
        kept[term] = KeptSignal(
            signal=signal,
            values=(seen[signal] if whole else seen[signal][mask]).bfloat16(),
            offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        )
    return Terms(objective, kept, student, examples)


def state_of(*, parts: int = 1, seed: int = 0) -> TrainingState:
    examples, model = encoded(40), bert(seed=seed)
    teacher = bert("roberta", seed=5)
    return TrainingState(
        model,
        TASK,
        examples,
        batch_loss(TASK, model, Labels()),
        settings_of(epochs=2, clip=1.0),
        learning_rate=3e-3,
        parts=parts,
        terms=every_term(model, teacher, examples),
    )


def moved(state: TrainingState) -> dict[str, Tensor]:
    found = {**state.model.state_dict()}
    assert state._terms is not None
    return found | {f"terms.{name}": value for name, value in state._terms.state_dict().items()}


def run_of(state: TrainingState, checkpoints: MemoryCheckpoints | None = None) -> Any:
    settings = state.settings
    validate = partial(evaluate, state.model, TASK, TOKENIZER, encoded(24), DATA, settings)
    return train(state, validate, seed=1, checkpoints=checkpoints)


def test_a_training_with_projections_that_died_ends_as_if_it_had_not() -> None:
    whole = state_of()  # its dropout goes on from what its weights were drawn from
    run_of(whole)
    checkpoints, begun = MemoryCheckpoints(dies_after=7), state_of()
    with pytest.raises(DeadError):
        run_of(begun, checkpoints)
    checkpoints.dies_after = None
    resumed = state_of()
    run_of(resumed, checkpoints)
    expected = moved(whole)
    assert {name.split(".")[2] for name in expected if name.startswith("terms")} == {
        "hint",
        "hidden_states",
    }
    for name, value in moved(resumed).items():
        assert torch.equal(value, expected[name]), name
    assert not all(torch.equal(value, expected[name]) for name, value in moved(begun).items())


def test_what_a_training_keeps_of_its_best_epoch_is_the_model_alone() -> None:
    state = state_of()
    history = run_of(state)
    assert history.best[1].keys() == bert().state_dict().keys()


def test_a_batch_in_parts_adds_the_same_and_moves_the_weights_the_same() -> None:
    whole, in_parts = state_of(), state_of(parts=3)
    for state in (whole, in_parts):
        state.model.eval()  # dropout draws otherwise in parts
        state.step(torch.arange(8), 1)
    assert float(in_parts.total) == pytest.approx(float(whole.total), rel=1e-5)
    expected = moved(whole)
    for name, value in moved(in_parts).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=0)


@pytest.mark.parametrize("parts", [1, 3])
def test_activations_that_are_computed_again_have_the_same_gradients(parts: int) -> None:
    whole, again = state_of(parts=parts), state_of(parts=parts)
    recompute(again.model)
    gradients = []
    for state in (whole, again):
        for module in state.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        state.model.train()  # else nothing is computed again
        state.step(torch.arange(8), 1)
        every = (*state.model.parameters(), *state._terms.parameters())
        gradients.append([parameter.grad for parameter in every])
    assert again.model.is_gradient_checkpointing
    for own, expected in zip(*gradients[::-1], strict=True):
        torch.testing.assert_close(own, expected)


def test_each_term_is_what_its_weight_says_of_the_loss() -> None:
    examples, student, teacher = encoded(8), bert().eval(), bert("roberta", seed=5)
    terms, indices = every_term(student, teacher, examples), torch.arange(8)
    run = partial(TASK.outputs, student, examples.batch(indices))
    every = float(terms.added(student, run, indices, indices)[1])
    alone = []
    for term in TERMS:
        changes: dict[str, Any] = {term: 0.5, **heads_of(term)}
        terms._objective = Mse(alpha=1.0, **changes)
        alone.append(float(terms.added(student, run, indices, indices)[1]))
    assert every == pytest.approx(sum(alone), rel=1e-5)
    assert min(alone) > 0


def heads_of(term: str) -> dict[str, Any]:
    return {"attention_heads": "mean"} if term == "attention" else {}


# -- in a study --------------------------------------------------------------------------------


def terms_study(task: str = "classification", **terms: Any) -> dict[str, Any]:
    """A narrower student than its teacher, and a grid of terms."""
    search = {name: value for name, value in {**ALONE, **terms}.items() if value is not None}
    study = task_study(task, seeds=[3])
    study.pop("seed", None)
    study["teachers"]["big"]["fine_tune"]["epochs"] = 1
    study["training"]["epochs"] = 1
    return {**study, "search": search}


def trained(folder: Path, study: dict[str, Any]) -> tuple[Ledger, Agenda]:
    ledger, agenda = begin(folder, study)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    return ledger, agenda


EVERY: dict[str, Any] = {
    "hint": [0, 1],
    "hidden_states": [1],
    "cls_states": [0.5],
    "attention": [1],
    "relations": [1],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Agenda]:
    return trained(tmp_path_factory.mktemp("terms") / "study", terms_study(**EVERY))


def signals_of(ledger: Ledger) -> dict[str, Any]:
    found = [o for o in ledger.outcomes() if isinstance(o.training, OutputsTraining)]
    return {o.training.signal.name: o for o in found if o.training.signal}  # type: ignore[union-attr]


def test_what_is_kept_is_what_the_teacher_computes(finished: tuple[Ledger, Agenda]) -> None:
    ledger, agenda = finished
    kept = signals_of(ledger)
    assert kept.keys() == {"hidden_states", "cls_states", "attention", "relations"}
    checkpoint = kept["relations"].training.checkpoint
    folder = ledger.folder / f"checkpoints/{checkpoint.training}/epoch-{checkpoint.epoch}"
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = ledger.rows(agenda.resolved.datasets["data"].splits["train"].digest)
    tables = {
        name: torch.from_numpy(np.load(ledger.folder / f"outputs/{outcome.key}.npy"))
        .view(torch.bfloat16)
        .float()
        for name, outcome in kept.items()
    }
    model.eval()
    begin_of = 0
    for number, row in enumerate(rows[:12]):
        inputs = tokenizer(*row["texts"], return_tensors="pt")
        with torch.no_grad():
            said = model(**inputs, output_hidden_states=True, output_attentions=True)
        end = begin_of + inputs["input_ids"].shape[1]
        close = partial(torch.testing.assert_close, rtol=2e-2, atol=2e-2)
        close(tables["cls_states"][number, 0], said.hidden_states[2][0, 0])
        # The student's one layer is mapped to the last; the hint is the first of two.
        of_hidden = kept["hidden_states"].training.signal.layers
        close(tables["hidden_states"][begin_of:end, 0], said.hidden_states[of_hidden[0] + 1][0])
        queries, keys = tables["attention"][begin_of:end].chunk(2, dim=1)
        scores = torch.einsum("ihw,jhw->hij", queries, keys)
        close(scores.softmax(dim=-1), said.attentions[1][0])
        begin_of = end
    layer = model.bert.encoder.layer[1].attention.self
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[1][0]
        expected = torch.cat([part(states) for part in (layer.query, layer.key, layer.value)], -1)
    last = tables["relations"][begin_of - len(states) : begin_of].flatten(1)
    torch.testing.assert_close(last, expected, rtol=2e-2, atol=2e-2)


def students_of(ledger: Ledger) -> list[Any]:
    found = [o for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    return sorted(found, key=lambda outcome: str(outcome.training))


def test_no_projection_is_part_of_a_student(finished: tuple[Ledger, Agenda]) -> None:
    ledger, _ = finished
    students = students_of(ledger)
    assert [outcome.state for outcome in students] == ["scored", "scored"]
    kept, *_ = sorted((ledger.folder / "students").iterdir())
    model, found = AutoModelForSequenceClassification.from_pretrained(
        kept, output_loading_info=True
    )
    assert not found["unexpected_keys"]
    assert not found["missing_keys"]
    assert {o.parameters for o in students} == {sum(p.numel() for p in model.parameters())}


def test_terms_that_are_added_to_a_study_train_what_has_them_alone(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    ledger, agenda = trained(folder, terms_study())
    before = {outcome.key for outcome in ledger.outcomes()}
    ledger, agenda = begin(folder, terms_study(hidden_states=[0, 1]))
    [request] = agenda.requests()
    assert isinstance(request.training, OutputsTraining)
    assert request.training.signal == Signal(name="hidden_states", layers=(1,))
    run_study(ledger, agenda, run_training)
    after = {outcome.key: outcome for outcome in ledger.outcomes()}
    new = [after[key].training for key in after.keys() - before]
    assert sorted(training.kind for training in new) == ["outputs", "student"]
    assert agenda.complete


@pytest.mark.parametrize("task", ["ner", "qa", "lm"])
def test_every_task_of_one_stack_has_terms(task: str, tmp_path: Path) -> None:
    terms = {"objective": ["features"], "alpha": None, "hidden_states": [1], "relations": [1]}
    ledger, _ = trained(tmp_path / "study", terms_study(task, **terms, attention=[1]))
    [student] = students_of(ledger)
    assert student.state == "scored"
    assert student.training.teaching.signals.keys() == {"hidden_states", "relations", "attention"}


# -- what is refused, and what is counted before a search --------------------------------------


def looked_at(folder: Path, study: dict[str, Any]) -> None:
    """A study is opened, and its models are looked at."""
    parsed, ledger = parse_study(study, place="study.yaml"), Ledger(folder / "study")
    open_study(ledger, parsed, data_dir=None, place="study.yaml", look=preflight)


def with_models(
    study: dict[str, Any], big: dict[str, Any], small: dict[str, Any]
) -> dict[str, Any]:
    models = {"big": {"config": big}, "small": {"config": small}}
    return {**study, "models": models}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a mapping of more layers than there are": (
        with_models(terms_study(hidden_states=[1]), tiny(1, hidden_size=32), tiny(2)),
        "uniform maps the student's 2 layers to the teacher's 1",
    ),
    "a layer that the teacher lacks": (
        terms_study(hidden_states=[1], layer_mapping=["2"]),
        "2 names layer 2, and the teacher has 2, 0 to 1",
    ),
    "a mapping of more layers than the student has": (
        terms_study(hidden_states=[1], layer_mapping=["uniform", "0+1"]),
        "0+1 names 2 layers, and the student has 1",
    ),
    "a mapping that is none": (
        terms_study(hidden_states=[1], layer_mapping=["top"]),
        "search.layer_mapping[0]: must be uniform, first, last, or layers of the teacher",
    ),
    "layers out of order": (
        terms_study(hidden_states=[1], layer_mapping=["3+1"]),
        "must name its layers in ascending order, once each",
    ),
    "a negative weight": (terms_study(hint=[-1]), "search.hint[0]: must be at least 0"),
    "terms alone without any": (
        terms_study(objective=["features"], alpha=None, hint=[0]),
        "features: needs a weight above 0 of one of them",
    ),
    "terms alone at a point without any": (
        terms_study(objective=["ce", "features"], temperature=[1], hidden_states=[0, 1]),
        "features: nothing would be distilled at a point where hidden_states is 0; give it a "
        "search of its own without that point, or leave 0 out of hidden_states",
    ),
    "terms alone at a point where two are 0": (
        terms_study(objective=["features"], alpha=None, hint=[0, 1], cls_states=[0, 1]),
        "where hint and cls_states are all 0; give it a search of its own without that point, or "
        "leave 0 out of one of hint and cls_states",
    ),
    "relation heads that do not divide": (
        terms_study(relations=[1], relation_heads=[3]),
        "3 relation heads do not divide the widths of both, 16 and 32",
    ),
    "other heads than the teacher's": (
        with_models(
            terms_study(attention=[1]), tiny(2, hidden_size=32, num_attention_heads=4), tiny(1)
        ),
        "attention compares head by head, and the student has 2 heads, the teacher 4",
    ),
    "a depth that is not said": (
        with_models(
            terms_study(hidden_states=[1]),
            tiny(2, hidden_size=32),
            {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2},
        ),
        "models.small: does not say how many layers it has",
    ),
    "translation": (
        terms_study("translation", hidden_states=[1]),
        "hidden_states: of translation no terms are known",
    ),
    "[CLS] of lm": (
        terms_study("lm", cls_states=[1]),
        "search.cls_states: data has no [CLS], whose states it compares",
    ),
    "a model whose attention is its own": (
        with_models(
            terms_study(attention=[1]),
            tiny(2, hidden_size=32),
            {**tiny(1), "model_type": "deberta-v2", "relative_attention": True},
        ),
        "shows the queries and keys of 0 of its 1 layers",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_terms_that_cannot_be_are_refused_before_a_search(what: str, tmp_path: Path) -> None:
    study, words = REFUSED[what]
    with pytest.raises(InputError) as error:
        looked_at(tmp_path, study)
    assert words in str(error.value)


def tuned(folder: Path, texts: tuple[str, ...], seed: int) -> str:
    return str(save_model(folder, layers=2, texts=texts, seed=seed))


@pytest.mark.parametrize("term", ["hidden_states", "cls_states"])
def test_other_tokens_than_the_teachers_have_no_term_but_cls_states(
    term: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {term: [1]}
    study = terms_study(**changes)
    models = {
        "big": tuned(tmp_path / "big", SENTENCES, 1),
        "small": tuned(tmp_path / "small", (*SENTENCES, "word", "more"), 2),
    }
    study = {**study, "models": models}
    if term == "cls_states":
        looked_at(tmp_path, study)
        return
    words = "have different tokenizers, and hidden_states compares them token by token"
    with pytest.raises(InputError, match=words):
        looked_at(tmp_path, study)


def lengths(ledger: Ledger, agenda: Agenda) -> list[list[int]]:
    """The tokens of the training rows."""
    rows = ledger.rows(agenda.resolved.datasets["data"].splits["train"].digest)
    return [TOKENIZER(*row["texts"])["input_ids"] for row in rows]


def test_plan_counts_what_terms_compare(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path / "study", terms_study(**EVERY))
    [case] = agenda.cases
    tokens = agenda.resolved.datasets["data"].tokens
    assert 0.5 < tokens / sum(map(len, lengths(ledger, agenda))) < 2
    assert resolved_signal_bytes(agenda.resolved, case) == {
        "hidden_states of layers 0": tokens * 32 * 2,
        "hidden_states of layers 1": tokens * 32 * 2,
        "cls_states of layers 1": 96 * 32 * 2,
        "attention of layers 1": tokens * 2 * 32 * 2,
        "relations of layers 1": tokens * 3 * 32 * 2,
    }


def test_signals_that_no_disk_can_hold_are_refused_with_ways_to_shrink_them(
    tmp_path: Path,
) -> None:
    study = terms_study(hidden_states=[1])
    study = with_models(study, tiny(2, hidden_size=10**12), tiny(1))
    words = (
        r"outputs need about .* TB \(what terms compare .* TB\) and their checkpoints 0 kB, but .* "
        r"free \(give a --folder with more room, name fewer layers in layer_mapping, lower max_le"
    )
    with pytest.raises(InputError, match=words):
        begin(tmp_path / "study", study)


def test_plan_tells_of_what_terms_compare(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(terms_study(hidden_states=[0, 1])))
    said = CliRunner().invoke(app, ["plan", str(file)]).output
    assert "for what terms compare of data/big, a pass each, about 369 kB" in said
    assert "hidden_states of layers 1 369 kB" in said


def test_students_with_terms_are_trained_alone(finished: tuple[Ledger, Agenda]) -> None:
    ledger, _ = finished
    assert [alike(outcome.training) for outcome in students_of(ledger)] == [None, None]


def test_a_student_that_teaches_has_terms_of_its_own_layers(tmp_path: Path) -> None:
    study = terms_study(relations=[1], hidden_states=[1])
    study["models"]["small"] = {"config": tiny(2)}
    study["teachers"]["next"] = {"student_of": "big"}
    ledger, _ = trained(tmp_path / "study", study)
    first, second = students_of(ledger)
    assert {first.state, second.state} == {"scored"}
    [taught] = [o for o in (first, second) if o.training.teaching.teacher.model.name == "small"]
    assert taught.training.teaching.teacher.training in {first.key, second.key} - {taught.key}
