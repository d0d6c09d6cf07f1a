"""Running a study's models on real rows before anything is trained."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    LABEL_NAMES,
    begin,
    data_of,
    encode,
    kind_for,
    save_model,
    task_study,
    task_texts,
    tiny,
    tiny_study,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import Agenda, Graph, OutputsTraining
from kdsearch.distill import run_training
from kdsearch.distill.forward import _is_poor, _tell_apart, forward_passes
from kdsearch.distill.memory import fits_memory
from kdsearch.distill.models import build_model, known_inputs, load_tokenizer
from kdsearch.errors import InputError, Problem
from kdsearch.study import SPECS, Doubt, TeacherSample
from kdsearch.tasks import TASKS
from kdsearch.tasks.ner import Sentence


def given(models: dict[str, Path]) -> dict[str, Any]:
    """A study with a given teacher for each of the models."""
    return tiny_study(
        models={"small": {"config": tiny()}, **{name: str(path) for name, path in models.items()}},
        teachers={name: {"checkpoint": name, "labels": list(LABEL_NAMES)} for name in models},
    )


def look(
    folder: Path, study: dict[str, Any]
) -> tuple[list[TeacherSample], list[Doubt], list[Problem]]:
    ledger, agenda = begin(folder, study)
    samples, doubts, problems = forward_passes(agenda.resolved, ledger, "study.yaml")
    return list(samples), list(doubts), list(problems)


def change(folder: Path, **weights: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **weights}, file, metadata={"format": "pt"})


# -- what is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", SPECS)
def test_nothing_is_found_wrong_with_models_that_can_be_trained(task: str, tmp_path: Path) -> None:
    donor = save_model(tmp_path / "donor", kind_for(task), task=task)
    study = task_study(
        task,
        models={"big": str(donor), "small": task_study(task)["models"]["small"]},
        students={"cut": {"model": "big", "layers": 2}},
    )
    assert look(tmp_path / "study", study) == ([], [], [])


@pytest.mark.parametrize("task", SPECS)
def test_a_given_teacher_of_any_task_is_scored_on_a_sample(task: str, tmp_path: Path) -> None:
    donor = save_model(tmp_path / "donor", kind_for(task), task=task)
    models = {"big": str(donor), "small": {**task_study(task)["models"]["small"]}}
    models["small"]["tokenizer"] = "big"
    study = task_study(task, models=models, teachers={"t": {"checkpoint": "big"}})
    samples, _, problems = look(tmp_path / "study", study)
    assert problems == []
    [sample] = samples
    assert (sample.teacher, sample.model, sample.dataset) == ("t", "big", "data")
    assert sample.rows == min(24, SPECS[task].sample)
    assert sample.score is not None


def test_a_sample_of_all_rows_has_the_score_of_the_validation_split(tmp_path: Path) -> None:
    study = given({"tuned": save_model(tmp_path / "tuned")})
    ledger, agenda = begin(tmp_path / "study", study)
    (sample,), _, _ = forward_passes(agenda.resolved, ledger, "study.yaml")
    validation = next(t for t in outputs(agenda) if t.split == "validation")
    assert run_training(validation, ledger.folder).validation == pytest.approx(sample.score)


def outputs(agenda: Agenda) -> list[OutputsTraining]:
    every = [request.training for request in agenda.requests()]
    return [training for training in every if isinstance(training, OutputsTraining)]


def test_a_teacher_that_always_says_one_label_is_doubted(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tuned")
    change(
        folder,
        **{"classifier.weight": torch.zeros(3, 16), "classifier.bias": torch.tensor([0.0, 1, 0])},
    )
    (sample,), (doubt,), problems = look(tmp_path / "study", given({"tuned": folder}))
    assert problems == []
    assert sample.score is not None
    assert sample.chance is not None
    assert sample.score <= sample.chance
    assert doubt.place == "study.yaml: models.tuned"
    assert f"scores {sample.score:.4f} on 24 validation rows of sentences" in doubt.what
    assert f"one label for all of them scores {sample.chance:.4f}" in doubt.what


@pytest.mark.parametrize(
    ("task", "score", "chance", "poor"),
    [
        ("classification", 0.5, 0.5, True),
        ("classification", 0.51, 0.5, False),
        ("classification", 0.0, None, True),
        ("ner", 0.0152, None, True),
        ("qa", 0.2, None, False),
        ("translation", 0.4, None, True),
        ("translation", 5.0, None, False),
        ("lm", 0.008, None, True),
        ("lm", 0.05, None, False),
    ],
)
def test_a_teacher_that_says_next_to_nothing_is_poor(
    task: str, score: float, chance: float | None, poor: bool
) -> None:
    assert _is_poor(score, chance, data_of(task)) is poor


def test_rows_of_one_label_say_nothing_of_a_teacher() -> None:
    assert not _tell_apart([0, 0, 0], data_of("classification"))
    assert _tell_apart([0, 1, 0], data_of("classification"))
    without = [Sentence(tags=[0, 0], words=(0, 1))]
    assert not _tell_apart(without, data_of("ner"))
    assert _tell_apart([*without, Sentence(tags=[1, 0], words=(0, 1))], data_of("ner"))


def test_a_teacher_with_nan_among_its_weights_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tuned")
    change(folder, **{"classifier.bias": torch.full((3,), float("nan"))})
    samples, doubts, (problem,) = look(tmp_path / "study", given({"tuned": folder}))
    assert (samples, doubts) == ([], [])
    assert str(problem) == (
        "study.yaml: models.tuned: outputs NaN or infinity for every row (not all of its "
        "classifier.bias is finite: fetch it again, or take an earlier checkpoint)"
    )


def test_a_token_beyond_the_embeddings_is_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    word = task_texts("classification")[0].split()[0]
    tokenizer.add_tokens([f"{word} "])
    tokenizer.save_pretrained(folder)
    _, _, (problem,) = look(tmp_path / "study", given({"tuned": folder}))
    embeddings = len(tokenizer) - 1
    assert f"has {embeddings} embeddings, but the token {word} " in problem.what
    assert f"is number {embeddings}" in problem.what


def test_problems_of_all_models_come_at_once_each_with_its_name(tmp_path: Path) -> None:
    broken = save_model(tmp_path / "broken")
    change(broken, **{"classifier.bias": torch.full((3,), float("nan"))})
    headless = save_model(tmp_path / "headless")
    model: Any = AutoModelForSequenceClassification.from_pretrained(headless)
    model.bert.save_pretrained(headless)
    fine = save_model(tmp_path / "fine", seed=1)
    study = given({"broken": broken, "headless": headless, "fine": fine})
    (sample,), _, problems = look(tmp_path / "study", study)
    assert sample.model == "fine"
    places = {problem.place for problem in problems}
    assert places == {"study.yaml: models.broken", "study.yaml: models.headless"}


def test_a_model_whose_padding_is_not_left_out_is_doubted(tmp_path: Path) -> None:
    study = tiny_study(models={"big": {"config": tiny()}, "small": {"config": tiny()}})
    study["models"]["big"] = str(save_model(tmp_path / "fnet", "fnet"))
    _, (doubt,), problems = look(tmp_path / "study", study)
    assert problems == []
    assert "depends on the other rows of the batch" in doubt.what


def test_a_classifier_that_reads_the_end_of_a_text_needs_a_tokenizer_that_writes_one(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path / "tuned", "bart")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    _, _, (problem,) = look(tmp_path / "study", given({"tuned": folder}))
    assert "sentences" in problem.what
    assert "ends every text" in problem.remedy


def test_rows_without_anything_to_say_of_them_are_no_fault_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    first = [{"tokens": ["\u200b" * n], "ner_tags": ["O"]} for n in range(1, 121)]
    later = [{"tokens": ["Ada", str(n)], "ner_tags": ["B-PER", "O"]} for n in range(120)]
    file.write_text("".join(json.dumps(row) + "\n" for row in (*first, *later)))
    tags = {"task": "ner", "files": {"train": str(file)}, "text": "tokens", "label": "ner_tags"}
    donor = save_model(tmp_path / "donor", task="ner")
    study = task_study(
        "ner",
        datasets={"data": {**tags, "labels": ["PER"]}},
        models={"big": str(donor), "small": {"config": tiny(), "tokenizer": "big"}},
    )
    assert look(tmp_path / "study", study) == ([], [], [])


# -- inputs that a model does not know -----------------------------------------------------------


def pairs_study(folder: Path, **fields: Any) -> dict[str, Any]:
    """A student of RoBERTa's kind on pairs, with a tokenizer that tells one text from the other."""
    donor = save_model(folder / "donor", "roberta", **fields)
    path = donor / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    path.write_text(json.dumps(config))
    rows = [{"a": text, "b": text, "label": n % 2} for n, text in enumerate(task_texts("qa")[:40])]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = {"files": {"train": str(file)}, "text": ["a", "b"], "label": "label"}
    return tiny_study(
        datasets={"pairs": {**pairs, "labels": ["no", "yes"]}},
        models={"big": {"config": tiny()}, "m": str(donor)},
        students={"m": {"model": "m"}},
    )


@pytest.mark.parametrize("kinds", [1, 2])
def test_token_types_without_an_embedding_are_not_given_to_a_model(
    kinds: int, tmp_path: Path
) -> None:
    study = pairs_study(tmp_path, type_vocab_size=kinds)
    ledger, agenda = begin(tmp_path / "study", study)
    _, _, problems = forward_passes(agenda.resolved, ledger, "study.yaml")
    assert problems == []
    case, graph = agenda.cases[0], Graph(agenda.resolved)
    task, spec = TASKS["classification"], graph.student(case)
    tokenizer = load_tokenizer(spec, task, list, agenda.resolved)
    model = build_model(spec, task, ("no", "yes"), tokenizer, agenda.resolved)
    examples = encode("classification", [{"texts": ["a b", "c"], "label": 0}], tokenizer)
    assert int(examples.inputs["token_type_ids"].max()) == 1
    assert ("token_type_ids" in known_inputs(model, examples).inputs) == (kinds == 2)


# -- memory --------------------------------------------------------------------------------------


def machine(root: Path, available: int, limit: int | str | None = None) -> Path:
    """A root with the files by which a machine tells its memory."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB")
    if limit is not None:
        (root / "proc" / "self" / "cgroup").write_text("0::/job/step\n")
        group = root / "sys" / "fs" / "cgroup" / "job"
        (group / "step").mkdir(parents=True)
        (group / "memory.max").write_text(str(limit))
        (group / "memory.current").write_text(str(3 << 20))
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {1 << 20}\n")
    return root


@pytest.mark.parametrize(
    ("available", "limit", "fits"),
    [
        (1 << 30, None, True),
        (1 << 12, None, False),
        (1 << 30, "max", True),
        (1 << 30, 4 << 20, True),  # 1 MiB of what is used is cached files
        (1 << 30, (2 << 20) + 100, False),
    ],
)
def test_a_model_is_run_here_if_twice_its_weights_fit_what_is_free(
    available: int, limit: int | str | None, fits: bool, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "tuned")
    _, agenda = begin(tmp_path / "study", given({"tuned": folder}))
    size = sum(weight.numel() for weight in load_file(folder / "model.safetensors").values())
    assert 100 < 8 * size < 2 << 20
    assert fits_memory(agenda.resolved, machine(tmp_path / "root", available, limit)) is fits


def test_weights_in_half_precision_count_as_they_are_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tuned")
    weights = load_file(folder / "model.safetensors")
    numbers = sum(weight.numel() for weight in weights.values())
    save_file({n: w.half() for n, w in weights.items()}, folder / "model.safetensors")
    _, agenda = begin(tmp_path / "study", given({"tuned": folder}))
    free = 8 * numbers // 1024 * 1024
    assert not fits_memory(agenda.resolved, machine(tmp_path / "less", free - 1024))
    assert fits_memory(agenda.resolved, machine(tmp_path / "more", free + 1024))


def test_where_a_machine_does_not_tell_its_memory_there_is_no_limit(tmp_path: Path) -> None:
    _, agenda = begin(tmp_path / "study", given({"tuned": save_model(tmp_path / "tuned")}))
    assert fits_memory(agenda.resolved, tmp_path / "nothing")


# -- errors that cross processes -----------------------------------------------------------------


def test_the_problems_of_an_error_survive_pickling() -> None:
    problems = [Problem(place="a", what="b", remedy="c"), Problem(place="d", what="e")]
    error = pickle.loads(pickle.dumps(InputError(problems)))
    assert isinstance(error, InputError)
    assert error.problems == tuple(problems)
    assert str(error) == "a: b (c)\nd: e"
