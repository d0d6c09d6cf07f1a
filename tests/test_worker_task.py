"""A task on a worker of a real local Ray, before any training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOKEN
from models import LABEL_NAMES, begin, save_model, tiny, tiny_study
from safetensors.torch import load_file, save_file
from test_cli import kdsearch, refused

from kdsearch.distill import forward_preflight
from kdsearch.driver import open_study
from kdsearch.engine import EngineError
from kdsearch.engine.ray_tune import Cluster, run_on_worker
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, load_study, preflight_digest

pytestmark = pytest.mark.undisturbed

BEFORE = Preflight(digest="")


def study_with(tuned: Path) -> dict[str, Any]:
    return tiny_study(
        models={"small": {"config": tiny()}, "tuned": str(tuned)},
        teachers={"given": {"checkpoint": "tuned", "labels": list(LABEL_NAMES)}},
    )


def with_nan(folder: Path) -> Path:
    """A model that says NaN to everything."""
    save_model(folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = torch.full((3,), float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_worker_runs_the_models_and_says_what_it_found(tmp_path: Path, cluster: Cluster) -> None:
    tuned = save_model(tmp_path / "tuned")
    ledger, agenda = begin(tmp_path / "study", study_with(tuned))
    found = run_on_worker(cluster, forward_preflight, BEFORE, agenda.resolved, ledger, "s.yaml")
    assert found.forward
    assert [sample.model for sample in found.samples] == ["tuned"]


def test_the_problems_that_a_worker_found_are_raised_here(tmp_path: Path, cluster: Cluster) -> None:
    ledger, agenda = begin(tmp_path / "study", study_with(with_nan(tmp_path / "tuned")))
    with pytest.raises(InputError) as error:
        run_on_worker(cluster, forward_preflight, BEFORE, agenda.resolved, ledger, "s.yaml")
    [problem] = error.value.problems
    assert problem.place == "s.yaml: models.tuned"
    assert "outputs NaN or infinity for every row" in problem.what


def full() -> None:
    raise StorageError("the disk is full")


def wrong() -> None:
    raise LookupError("no such thing\nat all")


def dies() -> None:
    os._exit(1)


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (full, StorageError, "the disk is full"),
        (wrong, EngineError, "a worker failed: no such thing$"),
        (dies, EngineError, "a worker was lost"),
    ],
)
def test_what_ends_a_task_on_a_worker_is_said_in_words(
    function: Any, kind: type[Exception], message: str, cluster: Cluster
) -> None:
    with pytest.raises(kind, match=message):
        run_on_worker(cluster, function)


def begun(folder: Path, tuned: Path) -> tuple[Path, Ledger]:
    """A study's file, and its folder as where the models did not fit the memory."""
    study = folder / "study.yaml"
    study.write_text(STUDY.format(path=tuned))
    ledger = Ledger(folder / "run")
    agenda = open_study(ledger, load_study(study), data_dir=None, place="study.yaml")
    ledger.write_preflight(Preflight(digest=preflight_digest(agenda.resolved)))
    return study, ledger


def test_a_launch_whose_models_were_not_run_has_a_worker_run_them_first(
    tmp_path: Path, address: str
) -> None:
    study, ledger = begun(tmp_path, save_model(tmp_path / "tuned"))
    command = [sys.executable, "-m", "kdsearch", "launch", study, "--folder", ledger.folder]
    command += ["--address", address]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=os.environ | TOKEN
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "running each model on two rows, on a worker" in ended.stdout
    found = ledger.preflight()
    assert found is not None
    assert found.forward
    assert len(found.samples) == 1


def test_a_launch_ends_with_what_running_the_models_found(tmp_path: Path) -> None:
    study, ledger = begun(tmp_path, with_nan(tmp_path / "tuned"))
    ended = kdsearch("launch", study, "--folder", ledger.folder, "--in-process")
    refused(ended, f"{study}: models.tuned: outputs NaN or infinity for every row")
    assert not ledger.begun


STUDY = """
datasets: {{words: {{grammar: {{train: 32, validation: 16, test: 16}}}}}}
models:
  tuned: {path}
  tiny: {{config: {{model_type: bert, num_hidden_layers: 1, hidden_size: 16,
                    num_attention_heads: 2, intermediate_size: 32}}}}
teachers: {{given: {{checkpoint: tuned, labels: [negative, neutral, positive]}}}}
students: {{tiny: {{model: tiny}}}}
search:
  distance: [ce]
  student_temperature: [1]
  temperature: {{broad: [1, 4]}}
  learning_rate: [1e-3]
  alpha: [1]
training: {{epochs: 1, max_length: 32, precision: fp32}}
"""
