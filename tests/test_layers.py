"""Which of its donor's layers a student starts from, as an axis of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import a_study
from hypothesis import given
from hypothesis import strategies as st
from models import begin, kind_for, run_study, save_model, task_study
from pydantic import TypeAdapter
from test_cli import kdsearch
from test_study import resolve_here

from kdsearch.agenda import StudentTraining
from kdsearch.distill import run_training
from kdsearch.study import Layers, equal_layers, fewest_layers, kept_layers

LAYERS: TypeAdapter[int | str] = TypeAdapter(Layers)


@pytest.mark.parametrize(
    ("written", "name"),
    [("even 3", 3), ("0+1+2", "first 3"), ("last 3", "last 3"), ("0+2+5", "0+2+5")],
)
def test_layers_have_one_name_however_they_are_written(written: str, name: int | str) -> None:
    assert LAYERS.validate_python(written) == name


@given(total=st.integers(1, 40), data=st.data())
def test_the_first_and_the_last_layers_are_at_the_ends_and_as_many_as_asked_for(
    total: int, data: Any
) -> None:
    count = data.draw(st.integers(1, total))
    every = tuple(range(total))
    assert kept_layers(f"first {count}", total) == every[:count]
    assert kept_layers(f"last {count}", total) == every[-count:]
    assert fewest_layers(f"first {count}") == fewest_layers(f"last {count}") == count


@pytest.mark.parametrize("task", ["translation", "lm"])  # two stacks and one
def test_a_search_finds_out_which_layers_to_start_from_and_the_report_says_what_each_brings(
    task: str, tmp_path: Path
) -> None:
    donor = save_model(tmp_path / "donor", kind_for(task), layers=4, task=task)
    evenly = 4 if task == "translation" else 2
    study = task_study(
        task,
        models={"donor": str(donor)},
        teachers={"big": {"checkpoint": "donor"}},
        students={"small": {"model": "donor"}},
        search={
            "distance": ["mse"],
            "teacher": None,
            "alpha": [1],
            "learning_rate": [3e-3],
            "layers": [evenly, "first 2", "last 2", "0+2"],
        },
        training={"epochs": 1, **({"beams": 1} if task == "translation" else {})},
    )
    ledger, agenda = begin(tmp_path / "run", study)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    students = [
        outcome
        for outcome in agenda.results.values()
        if outcome is not None and isinstance(outcome.training, StudentTraining)
    ]
    assert {o.training.model.layers for o in students} == {evenly, "first 2", "last 2", "0+2"}
    assert len({o.epochs[0].train_loss for o in students}) == 4
    assert len({o.parameters for o in students}) == 1
    result = kdsearch("report", ledger.folder)
    assert result.code == 0, result
    text = (ledger.folder / "report/report.md").read_text()
    for other in ("first 2", "last 2", "0+2"):
        assert f"| layers = {other} over layers = {evenly} |" in text


# -- one set of layers under two names -------------------------------------------------------------


def doubts_of(folder: Path, layers: list[int | str], depth: int, **fields: Any) -> list[str]:
    donor = save_model(folder / "donor", num_hidden_layers=depth, **fields)
    found = resolve_here(
        a_study(
            models={"big": {"config": {"model_type": "bert"}}, "donor": str(donor)},
            students={"small": {"model": "donor"}},
            search={**a_study()["search"], "layers": layers},
        )
    )
    return [str(doubt) for doubt in equal_layers(found.study, found.models, "x.yaml")]


def test_two_names_of_the_same_layers_of_a_model_are_said_to_be_so(tmp_path: Path) -> None:
    doubts = doubts_of(tmp_path, [3, "first 3", "1+3+5", "last 6", 6], depth=6)
    assert doubts == [
        f"x.yaml: search.layers: of donor, {one} and {other} are the same layers: each student is "
        "trained twice (leave one of them out)"
        for one, other in ((3, "1+3+5"), ("last 6", 6))
    ]


def test_of_a_deeper_model_the_same_names_are_two_sets(tmp_path: Path) -> None:
    assert doubts_of(tmp_path, [3, "1+3+5", "last 6", 6], depth=12) == []


def test_an_encoder_decoder_keeps_the_same_if_each_side_does(tmp_path: Path) -> None:
    sides = {"is_encoder_decoder": True, "encoder_layers": 4, "decoder_layers": 4}
    [doubt] = doubts_of(tmp_path, [4, "1+3", 2], depth=4, **sides)
    assert "of donor, 4 and 1+3 are the same layers" in doubt
