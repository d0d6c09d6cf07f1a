"""Caches of some tokens of a teacher's outputs: `sampled: n` and `top_k: k`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import a_study
from hypothesis import given, settings
from hypothesis import strategies as st
from models import LABEL_NAMES, begin, run_study, task_study
from torch import Tensor
from typer.testing import CliRunner

from kdsearch.agenda import Agenda, Outcome, OutputsTraining, StudentTraining, cached_bytes
from kdsearch.analysis import analyse
from kdsearch.analysis.kept import every_kept
from kdsearch.cli.app import app
from kdsearch.distill import run_training
from kdsearch.distill.losses import KeptClasses, Units, compute
from kdsearch.distill.tokens import CachedDraws, CachedTop, DrawnRows, TopRows
from kdsearch.distill.wide import Hidden, Room, WideUnits, wide_loss
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.report import write_report
from kdsearch.report.card import card
from kdsearch.search import Ce
from kdsearch.study import effective_settings, parse_study, row_bytes, taught_cases
from kdsearch.tasks import IGNORED, Batch

CLASSES, WIDTH = 50, 6
TEMPERATURE = 1.5


def batch_of(rows: Tensor) -> Batch:
    """A batch with these rows of a split, each of an example of its own."""
    return Batch(
        arguments={},
        counted=torch.ones(len(rows), 1, dtype=torch.bool),
        counts=torch.ones(len(rows), dtype=torch.long),
        rows=rows,
        labels=torch.full((len(rows),), IGNORED),
        targets=None,
    )


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEAD = numbers(CLASSES, WIDTH, seed=1), numbers(CLASSES, seed=2)


def softened(states: Tensor) -> Tensor:
    """The probabilities that the head gives at the temperature, in double precision."""
    weight, bias = (each.double() for each in HEAD)
    logits: Tensor = (states.double() @ weight.T + bias) / TEMPERATURE
    exps = (logits - logits.amax(dim=1, keepdim=True)).exp()
    return exps / exps.sum(dim=1, keepdim=True)


def drawn(folder: Path, states: Tensor, count: int, *parts: Tensor, seed: int = 7) -> CachedDraws:
    """The draws of rows, written in batches of these `parts` of them, as they are read."""
    rows = DrawnRows(HEAD, TEMPERATURE, count, seed)
    folder.mkdir(exist_ok=True)
    (path,) = rows.beside(folder / f"{'0' * 24}.npy", folder / ".half.tmp").values()
    places = None
    for part in parts or (torch.arange(len(states)),):
        found = rows(states[part], batch_of(part))
        places = np.zeros(len(states), found.dtype) if places is None else places
        places[part.numpy()] = found
    rows.finish()
    assert places is not None
    return CachedDraws(places=places, draws=np.load(path, mmap_mode="c"))


def dense(kept: KeptClasses, classes: int = CLASSES) -> Tensor:
    """The shares of all classes, [N, C]."""
    return torch.zeros(len(kept.classes), classes).scatter_add(1, kept.classes, kept.shares)


# -- drawn tokens ---------------------------------------------------------------------------------


def test_what_is_drawn_of_a_row_does_not_depend_on_the_others_of_its_batch(tmp_path: Path) -> None:
    states = numbers(23, WIDTH)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(3))
    together = drawn(tmp_path / "a", states, 9)
    apart = drawn(tmp_path / "b", states, 9, order[:1], order[1:8], order[8:])
    rows = batch_of(torch.arange(23))
    assert torch.equal(dense(together.kept(rows)), dense(apart.kept(rows)))
    some = batch_of(torch.tensor([20, 3]))
    assert torch.equal(dense(apart.kept(some)), dense(together.kept(rows))[[20, 3]])


def test_another_seed_draws_others_and_so_does_another_row(tmp_path: Path) -> None:
    states = numbers(1, WIDTH).expand(6, WIDTH)
    found = dense(drawn(tmp_path / "a", states, 30).kept(batch_of(torch.arange(6))))
    assert len({tuple(row.tolist()) for row in found}) == 6
    other = dense(drawn(tmp_path / "b", states, 30, seed=8).kept(batch_of(torch.arange(6))))
    assert not torch.equal(found, other)


@pytest.mark.parametrize("count", [1, 5, 64])
def test_each_row_has_as_many_draws_as_were_asked_for_each_token_once(
    count: int, tmp_path: Path
) -> None:
    found = drawn(tmp_path, numbers(17, WIDTH), count)
    assert found.places["distinct"].sum() == len(found.draws)
    for first, distinct in found.places.tolist():
        own = found.draws[first : first + distinct]
        assert own["count"].sum() == count
        assert (np.diff(own["token"].astype(int)) > 0).all()


def test_the_loss_of_drawn_tokens_is_on_average_the_exact_cross_entropy(tmp_path: Path) -> None:
    rows, count = 3000, 8
    states = numbers(1, WIDTH).expand(rows, WIDTH)
    kept = drawn(tmp_path, states, count).kept(batch_of(torch.arange(rows)))
    p, log_q = softened(states[:1])[0], numbers(CLASSES, seed=4).log_softmax(dim=0)
    found = kept.cross_entropy(log_q.expand(rows, CLASSES)).double()
    exact = -(p * log_q.double()).sum()
    # The variance of one draw's −log q under p, over all draws; off by 5 σ once in 2 million.
    sigma = ((p * log_q.double() ** 2).sum() - exact**2).sqrt() / math.sqrt(rows * count)
    assert abs(found.mean() - exact) < 5 * sigma
    # Of each row alone it is far off: the mean is what is right.
    assert found.std() == pytest.approx(float(sigma) * math.sqrt(rows), rel=0.1)


# -- the likeliest tokens ------------------------------------------------------------------------


def top(states: Tensor, count: int) -> tuple[TopRows, CachedTop]:
    made = TopRows(HEAD, TEMPERATURE, count)
    return made, CachedTop(rows=made(states, batch_of(torch.arange(len(states)))))


@pytest.mark.parametrize("count", [1, 7, CLASSES - 1, 3 * CLASSES])
def test_the_likeliest_tokens_are_kept_with_their_probabilities_and_what_the_rest_has(
    count: int,
) -> None:
    states = numbers(11, WIDTH)
    made, found = top(states, count)
    kept = found.kept(batch_of(torch.arange(11)))
    p, most = softened(states), min(count, CLASSES - 1)
    expected, order = p.sort(dim=1, descending=True)
    assert torch.equal(kept.classes, order[:, :most])
    # fp16 keeps 11 bits of each
    torch.testing.assert_close(kept.shares.double(), expected[:, :most], rtol=2e-3, atol=1e-7)
    assert kept.rest is not None
    rest = expected[:, most:].sum(dim=1)
    torch.testing.assert_close(kept.rest.double(), rest, rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(kept.shares.sum(dim=1) + kept.rest, torch.ones(11))
    assert made.measures["kept_mass"] == pytest.approx(float(1 - rest.mean()), abs=1e-6)


def test_how_others_share_the_rest_is_not_learnt() -> None:
    p = softened(numbers(4, WIDTH)).float()
    shares, classes = p.topk(5, dim=1)
    kept = KeptClasses(classes=classes, shares=shares, rest=1 - shares.sum(dim=1))
    rest = torch.rand(4, CLASSES, generator=torch.Generator().manual_seed(5)).scatter(1, classes, 0)
    assert kept.rest is not None
    other = (rest / rest.sum(dim=1, keepdim=True) * kept.rest[:, None]).scatter(1, classes, shares)
    logits = other.log().requires_grad_()
    kept.cross_entropy(logits.log_softmax(dim=1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_the_rest_is_one_class_and_not_left_out() -> None:
    log_p = numbers(3, CLASSES).log_softmax(dim=1)
    classes = torch.tensor([[4, 9], [0, 1], [49, 3]])
    shares, rest = torch.tensor([[0.5, 0.2]] * 3), torch.tensor([0.3] * 3)
    kept = KeptClasses(classes=classes, shares=shares, rest=rest)
    for row, loss in enumerate(kept.cross_entropy(log_p)):
        p = log_p[row].exp().double()
        a, b = classes[row].tolist()
        others = sum(float(p[i]) for i in range(CLASSES) if i not in (a, b))
        expected = -(0.5 * math.log(p[a]) + 0.2 * math.log(p[b]) + 0.3 * math.log(others))
        assert float(loss) == pytest.approx(expected, rel=1e-5)


# -- the loss of a batch ------------------------------------------------------------------------


@given(
    rest=st.booleans(),
    alpha=st.sampled_from([1.0, 0.3]),
    rows=st.integers(1, 9),
    scale=st.sampled_from(["none", "tau_squared"]),
    scored=st.sampled_from([1, 400, 2**20]),
)
@settings(max_examples=20, deadline=None)
def test_one_pass_gives_the_loss_of_dense_probabilities_with_all_of_its_gradients(
    rest: bool, alpha: float, rows: int, scale: Any, scored: int
) -> None:
    objective = Ce(temperature=1.5, student_temperature=2, alpha=alpha, gradient_scale=scale)
    p = softened(numbers(rows, WIDTH, seed=9)).float()
    shares, classes = p.topk(4, dim=1)
    if rest:
        kept = KeptClasses(classes=classes, shares=shares, rest=1 - shares.sum(dim=1))
    else:
        shares = shares / shares.sum(dim=1, keepdim=True)
        kept = KeptClasses(classes=classes, shares=shares)
    labels = torch.randint(0, CLASSES, (rows,), generator=torch.Generator().manual_seed(1))
    labels[::3] = IGNORED
    results = []
    for way in ("wide", "dense"):
        leaves = [numbers(rows, WIDTH, seed=3), *HEAD]
        states, weight, bias = (each.clone().requires_grad_() for each in leaves)
        if way == "wide":
            units = WideUnits(
                student=Hidden(states=states, head=(weight, bias)),
                labels=labels,
                kept=kept,
                room=Room(made=4 * scored, scored=scored),
            )
            loss = wide_loss(objective, units)
        else:
            loss = by_hand(states @ weight.T + bias, kept, labels, objective)
        loss.backward()
        results.append([loss.detach(), *(each.grad for each in (states, weight, bias))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def by_hand(logits: Tensor, kept: KeptClasses, labels: Tensor, objective: Ce) -> Tensor:
    """The same from a whole matrix of the teacher's, without gathering; Eq. 1."""
    teacher, tau = dense(kept), float(objective.student_temperature)
    p = (logits / tau).softmax(dim=1)
    loss = -(teacher * p.log()).sum(dim=1)
    if kept.rest is not None:
        loss = loss - kept.rest * (p * (teacher == 0)).sum(dim=1).log()
    factor = tau**2 if objective.gradient_scale == "tau_squared" else 1
    labelled = labels != IGNORED
    own = torch.zeros(())
    if labelled.any():
        own = torch.nn.functional.cross_entropy(logits[labelled], labels[labelled])
    return (1 - objective.alpha) * own + objective.alpha * factor * loss.mean()


def test_the_loss_of_all_tokens_as_kept_is_that_of_the_teachers_logits() -> None:
    objective = Ce(temperature=TEMPERATURE, student_temperature=TEMPERATURE, alpha=1)
    states, student = numbers(5, WIDTH), numbers(5, CLASSES, seed=6)
    units = Units(student=student, labels=torch.full((5,), IGNORED))
    _, found = top(states, CLASSES)
    kept = compute(objective, replace(units, kept=found.kept(batch_of(torch.arange(5)))))
    weight, bias = HEAD
    whole = compute(objective, replace(units, teacher=states @ weight.T + bias))
    assert float(kept) == pytest.approx(float(whole), rel=1e-3)  # of fp16


# -- a study ------------------------------------------------------------------------------------


def some(cache: Any, task: str = "lm", **search: Any) -> dict[str, Any]:
    rows = {"train": 24, "validation": 8, "test": 8}
    usual = {"temperature": [1.5], "distance": ["ce"], "alpha": [0.5], "student_temperature": [1]}
    usual |= {"strategy": "exhaustive"}  # a greedy search has a lazy baseline, at 1
    return task_study(
        task,
        datasets={"data": {"task": task, "grammar": rows}},
        teachers={"big": {"model": "big", "fine_tune": {"learning_rate": [3e-3], "epochs": 1}}},
        training={"epochs": 1, "cache": cache},
        search={**usual, **search},
    )


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A study that was run, with its outcomes: outputs by their split, others by their kind."""

    cache: str
    ledger: Ledger
    found: dict[str, Outcome]

    @property
    def outputs(self) -> OutputsTraining:
        training = self.found["train"].training
        assert isinstance(training, OutputsTraining)
        return training


@pytest.fixture(
    scope="module",
    params=[("lm", "sampled 6"), ("lm", "top_k 5"), ("translation", "sampled 6")],
    ids=" ".join,
)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    task, cache = request.param
    ledger, agenda = begin(tmp_path_factory.mktemp("run") / "study", some(cache, task))
    run_study(ledger, agenda, run_training)
    found = {}
    for outcome in ledger.outcomes():
        training = outcome.training
        found[training.split if isinstance(training, OutputsTraining) else training.kind] = outcome
    return Ran(cache=cache, ledger=ledger, found=found)


def test_students_learn_from_some_tokens_and_are_measured_against_all(ran: Ran) -> None:
    student = ran.found["student"]
    assert student.state == "scored"
    assert 0 <= student.measures["agreement"] <= 1
    assert (ran.outputs.settings.cache, ran.outputs.settings.temperature) == (ran.cache, 1.5)
    names = {name.partition(".")[2] for name in ran.found["train"].digests}
    sampled = ran.cache.startswith("sampled")
    usual = {"npy", "head.safetensors", "validation.npy", "test.npy"}
    assert names == usual | ({"draws.npy"} if sampled else set())
    assert all(layout.is_ours(name) for name in ran.found["train"].digests)
    assert ("kept_mass" in ran.found["train"].measures) is not sampled
    validation = np.load(ran.ledger.path(layout.outputs(ran.outputs.key, "validation")))
    assert validation.ndim == 2  # hidden states


def test_what_is_kept_of_a_study_takes_no_more_than_foretold(ran: Ran) -> None:
    resolved = ran.ledger.resolved()
    (case,) = taught_cases(resolved.study)
    train = np.load(ran.ledger.path(layout.outputs(ran.outputs.key)))
    model = resolved.study.models["big"]
    data = resolved.datasets["data"]
    settings = effective_settings(resolved.study, case, "outputs")
    each = row_bytes(settings, data.task, model, 0)
    written = train.nbytes
    if ran.cache.startswith("sampled"):
        draws = np.load(ran.ledger.path(layout.draws(ran.outputs.key)))
        assert (draws["count"] > 1).any()
        assert train.nbytes + 6 * 6 * len(train) == each * len(train)
        written += draws.nbytes
        assert written < each * len(train)
    else:
        assert written == each * len(train)
    assert ran.found["train"].cost.bytes_written <= cached_bytes(resolved, case)


def test_status_report_and_model_card_say_what_is_kept(ran: Ran) -> None:
    agenda = Agenda(ran.ledger.resolved(), ran.ledger.results())
    (kept,) = every_kept(agenda).values()
    mass = ran.found["train"].measures.get("kept_mass")
    shown = "sampled: 6" if mass is None else f"top_k: 5, {mass:.1%} of the probability"
    assert str(kept).startswith(shown)
    written = write_report(ran.ledger, agenda)
    text = (written.parent / "report.md").read_text()
    assert f"Kept of the teacher’s outputs: t_hs: {kept}." in text
    assert f"t_hs: {kept}." in written.read_text()
    [case] = analyse(agenda).cases
    assert f"| kept of its outputs | {str(kept)[:8]}" in card(agenda, case, ran.found["student"])
    status = CliRunner().invoke(app, ["status", str(ran.ledger.folder)]).output
    assert f"kept of the outputs of data/big t_hs: {kept}" in " ".join(status.split())


def test_tokens_that_are_kept_again_are_the_same_to_the_byte(ran: Ran) -> None:
    before = dict(ran.found["train"].digests)
    assert run_training(ran.outputs, ran.ledger.folder).digests == before


def test_a_cache_of_another_kind_than_the_student_reads_is_an_input_error(ran: Ran) -> None:
    student = ran.found["student"].training
    assert isinstance(student, StudentTraining)
    other = {"sampled 6": "top_k 5", "top_k 5": "sampled 6"}[ran.cache]
    settings = student.settings.model_copy(update={"cache": other})
    with pytest.raises(InputError, match=r"holds .*launch again to recompute it"):
        run_training(student.model_copy(update={"settings": settings}), ran.ledger.folder)


def keys_of(folder: Path, cache: Any) -> tuple[str, ...]:
    """Of the outputs on each split."""
    _, agenda = begin(folder, some(cache))
    (case,) = agenda.cases
    graph = agenda.graph
    given = graph.checkpoint(graph.teachers(case)[0], 1)
    return tuple(outputs.key for outputs in graph.outputs(case, given))


def test_the_outputs_of_other_splits_are_the_same_training_whatever_is_kept(
    tmp_path: Path,
) -> None:
    hidden, top, sampled = (
        keys_of(tmp_path / name, cache)
        for name, cache in (("h", "hidden"), ("t", {"top_k": 5}), ("s", {"sampled": 5}))
    )
    assert len({hidden[0], top[0], sampled[0]}) == 3
    assert hidden[1:] == top[1:] == sampled[1:]


# -- what is refused ----------------------------------------------------------------------------


def problems(**sections: Any) -> list[str]:
    study = a_study(
        **{
            "datasets": {"d": {"task": "lm", "grammar": {"train": 9, "validation": 9, "test": 9}}},
            "search": {"temperature": [1], "distance": ["ce"]},
            **sections,
        }
    )
    if "searches" in study:
        del study["search"]
    try:
        parse_study(study, place="s.yaml")
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return []


SAMPLED: dict[str, Any] = {"training": {"cache": {"sampled": 64}}}


@pytest.mark.parametrize("cache", ["hidden", {"sampled": 1}, {"top_k": 10_000}, "top_k 128"])
def test_a_study_may_keep_what_its_search_can_use(cache: Any) -> None:
    assert problems(training={"cache": cache}) == []


def test_an_objective_that_reads_no_outputs_does_with_any_cache() -> None:
    search = {"temperature": [1], "distance": ["ce", "sequence", "features"], "attention": [1]}
    assert problems(search=search, **SAMPLED) == []


@pytest.mark.parametrize(
    "cache",
    [
        *("none", "sampled 064", "sampled", 7, None, {}, []),
        *({"sampled": 0}, {"top_k": 10_001}, {"sampled": 2.5}, {"sampled": True}),
        *({"sampled": 1, "top_k": 1}, {"hidden": 1}),
    ],
)
def test_what_is_no_cache_is_refused(cache: Any) -> None:
    (found,) = problems(training={"cache": cache})
    assert found.startswith("s.yaml: training.cache: must be hidden, {sampled: 64}")


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ({"sampled": 20_000}, "20,000 is more than the 10,000 that are possible"),
        ({"topk": 128}, "topk is none of these, did you mean top_k?"),
        ({"top_k": "many"}, "top_k takes a whole number from 1 to 10,000"),
    ],
)
def test_what_is_wrong_with_a_cache_is_said(cache: Any, said: str) -> None:
    (found,) = problems(training={"cache": cache})
    assert found.endswith(f"; {said}")


@pytest.mark.parametrize(
    ("search", "place"),
    [
        ({"temperature": [1, 2], "distance": ["ce"]}, "search.temperature: tries several"),
        ({"temperature": {"broad": [1, 2]}, "distance": ["ce"]}, "search.temperature: tries"),
        ({"distance": ["ce"]}, "search.temperature: tries several"),
        (
            {"temperature": [2], "distance": ["ce"]},
            "search.temperature: tries several temperatures (its lazy baseline has 1), but",
        ),
        ({"temperature": [1], "distance": ["ce", "mse"]}, "search.distance: mse needs all"),
        ({"temperature": [1], "distance": ["reverse_kl"]}, "search.distance: reverse_kl needs"),
        (
            {"temperature": [1], "distance": ["ce"], "temperature_unit": "logit_scale"},
            "search.temperature_unit: the teacher's logit scale is known once",
        ),
        (
            {"temperature": [1], "distance": ["ce"], "standardise": [False, True]},
            "search.standardise: standardised logits need all of the teacher's outputs",
        ),
    ],
)
def test_another_temperature_or_objective_is_refused_with_hidden_named(
    search: Any, place: str
) -> None:
    (found,) = problems(search=search, **SAMPLED)
    assert found.startswith(f"s.yaml: {place}")
    assert "training.cache keeps {sampled: 64} of d/" in found
    assert "set cache: hidden (training.cache), which is exact for every objective" in found


def test_searches_that_share_a_teachers_outputs_have_one_temperature() -> None:
    both = {
        "one": {"strategy": "exhaustive", "temperature": [1], "distance": ["ce"]},
        "two": {"strategy": "exhaustive", "temperature": [2], "distance": ["ce"]},
        "labels": {"distance": ["labels"]},
    }
    study: dict[str, Any] = {"searches": both, **SAMPLED}
    found = problems(**study)
    assert [each.split(": ")[1] for each in found] == [
        "searches.one.temperature",
        "searches.two.temperature",
    ]
    assert all("has another temperature than other searches" in each for each in found)
    both["two"]["temperature"] = [1.0]
    assert problems(**study) == []


def test_outputs_that_are_small_are_all_kept() -> None:
    narrow = {"d": {"grammar": {"train": 9, "validation": 9, "test": 9}}}
    (found,) = problems(datasets=narrow, **SAMPLED)
    assert found.startswith("s.yaml: training.cache: d is for classification")
    wide = {"w": {"task": "lm", "grammar": {"train": 9}, "training": {"cache": {"top_k": 8}}}}
    wide["w"]["grammar"] = narrow["d"]["grammar"]
    assert problems(datasets={**narrow, **wide}) == []


def test_a_student_keeps_no_cache_of_its_own() -> None:
    students = {"small": {"model": "small", "training": {"cache": "hidden"}}}
    (found,) = problems(students=students)
    assert "students.small.training.cache: cache is not a key here" in found


# -- what plan says ------------------------------------------------------------------------------


def planned(folder: Path, *more: str, **training: Any) -> str:
    """What `plan` says of a study with a language model 576 wide and a classifier of 6 labels."""
    rows = {"train": 9, "validation": 9, "test": 9}
    study = a_study(
        datasets={
            "text": {"task": "lm", "grammar": rows, "training": training},
            "class": {"grammar": rows},
        },
        search={"temperature": [1], "distance": ["ce"]},
    )
    study["models"]["big"]["config"] |= {"hidden_size": 576, "vocab_size": 49_152}
    file = folder / "s.yaml"
    file.write_text(json.dumps(study))
    return CliRunner().invoke(app, ["plan", str(file), *more]).output


@pytest.mark.parametrize(
    ("training", "each", "ways"),
    [
        ({}, 1152, {"hidden": 1152, "sampled 64": 394, "top_k 128": 770}),
        ({"hidden_dtype": "fp32"}, 2304, {"hidden": 2304, "sampled 64": 394, "top_k 128": 770}),
        (
            {"cache": {"sampled": 12}},
            82,
            {"hidden": 1152, "sampled 12": 82, "top_k 128": 770},
        ),
    ],
)
def test_plan_says_what_a_token_takes_as_it_is_kept_and_in_other_ways(
    training: Any, each: int, ways: dict[str, int], tmp_path: Path
) -> None:
    text, classes = json.loads(planned(tmp_path, "--json", **training))["caches"]
    assert (text["each"], text["bytes_each"], text["ways"]) == ("token", each, ways)
    assert (classes["each"], classes["ways"]) == ("row", {})
    assert classes["bytes_each"] == 4 * len(LABEL_NAMES)
    # Of 9 rows of each split, 16 tokens each; elsewhere hidden states are kept, and the head.
    hidden, head = ways["hidden"], 49_152 * 576 * 4
    assert text["bytes"] == 2 * (9 * 16 * each + 18 * 16 * hidden + head)
    words = " ".join(planned(tmp_path, **training).split())
    chosen = next(way for way, size in ways.items() if size == each).replace(" ", ": ")
    assert f"(bytes a row: class {4 * len(LABEL_NAMES)})" in words
    most = " at most" * chosen.startswith("sampled")
    assert "bytes a token of text/big, by training.cache: hidden" in words
    assert f"{chosen} (chosen){most} {each:,};" in words
