"""`kdsearch check`: what it shows, what it keeps, how it ends; and what others say of doubts."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import yaml
from models import begin
from test_cli import here, kdsearch, refused, tiny

from kdsearch.ledger import Ledger
from kdsearch.study import Doubt, Preflight, Reading, TeacherSample

__all__ = ["here"]  # a fixture

LABELS = ["bad", "fine", "[red]good[/red]", ":smile:"]


def sentences(split: str, labels: list[str]) -> list[dict[str, str]]:
    return [
        {"t": f"it is {label} {n} as people say of it here in {split}", "l": label}
        for label in labels
        for n in range(3)
    ]


def study_file(folder: Path, *, shared: int = 0, **sections: Any) -> Path:
    """A study of sentences with odd labels; validation lacks the last, test has rows of train."""
    splits = {
        "train": sentences("train", LABELS),
        "validation": sentences("validation", LABELS[:-1]),
        "test": [*sentences("test", LABELS), *sentences("train", LABELS)[:shared]],
    }
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    data = {"mine": {"files": files, "text": "t", "label": "l", "labels": LABELS}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(**{"datasets": data, **sections})))
    return path


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_rows_labels_and_doubts_are_shown_and_it_ends_well(here: Path) -> None:
    result = kdsearch("check", study_file(here, shared=2))
    assert (result.code, result.err) == (0, "")
    shown = lines(result.out)
    assert ["rows", "12", "9", "14"] in shown
    assert ["in", "train", "too", "0", "0", "2"] in shown
    assert ["fine", "3", "3", "3"] in shown
    where = f"doubtful: {here}/tiny.yaml: datasets.mine: "
    assert f"{where}2 of 14 test rows are in train too (leave them out of train)" in result.out
    assert f"{where}validation has no row of :smile:: its F1 is 0 there" in result.out
    assert result.out.endswith(f"{here}/tiny.yaml: 2 doubts\n")


def test_labels_are_shown_as_they_are(here: Path) -> None:
    shown = lines(kdsearch("check", study_file(here)).out)
    assert ["[red]good[/red]", "3", "3", "3"] in shown
    assert [":smile:", "3", "0", "3"] in shown


def test_a_study_without_a_doubt_is_fine(here: Path) -> None:
    (here / "tiny.yaml").write_text(yaml.safe_dump(tiny()))
    assert kdsearch("check", "tiny.yaml").out.endswith("\ntiny.yaml: fine\n")


def test_nothing_is_written_unless_a_folder_is_given(here: Path) -> None:
    study = study_file(here)
    before = sorted(here.rglob("*"))
    kdsearch("check", study)
    assert sorted(here.rglob("*")) == before


def test_json_holds_what_was_found(here: Path) -> None:
    facts = json.loads(kdsearch("check", study_file(here, shared=1), "--json").out)
    assert facts["datasets"]["mine"]["splits"]["validation"]["labels"][":smile:"] == 0
    assert facts["datasets"]["mine"]["shared"]["test in train"] == 1
    assert [doubt["place"] for doubt in facts["doubts"]] == [f"{here}/tiny.yaml: datasets.mine"] * 2


def test_bad_data_is_refused(here: Path) -> None:
    study = study_file(here)
    (here / "test.jsonl").write_text('{"t": "a word", "l": "maybe"}\n')
    refused(kdsearch("check", study), f"{here}/test.jsonl: row 1: unknown label 'maybe'")


def test_models_that_cannot_be_built_are_refused_together(here: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 15, "num_attention_heads": 2}
    models = {"big": {"config": config}, "small": {"config": {**config, "hidden_size": 17}}}
    study = study_file(here, models=models)
    refused(kdsearch("check", study), f"{study}: models.big: ", f"{study}: models.small: ")


# -- with a folder ---------------------------------------------------------------------------------


def test_what_is_kept_in_a_folder_is_not_looked_for_again_by_a_launch(here: Path) -> None:
    study = study_file(here)
    assert "checking the data" in kdsearch("check", study, "--folder", "run").out
    assert not Ledger(here / "run").exists
    assert "checking the data" not in kdsearch("check", study, "--folder", "run").out
    result = kdsearch("launch", study, "--in-process", "--folder", "run")
    assert result.code == 0
    assert "checking the data" not in result.out
    assert "doubtful: " in result.out


def test_a_folder_that_was_launched_shows_its_own_rows(here: Path) -> None:
    study = study_file(here)
    kdsearch("launch", study, "--in-process", "--folder", "run")
    for split in ("train", "validation", "test"):
        (here / f"{split}.jsonl").unlink()
    result = kdsearch("check", study, "--folder", "run")
    assert (result.code, "checking the data" in result.out) == (0, False)
    assert ["rows", "12", "9", "12"] in lines(result.out)


def test_a_folder_of_another_study_is_refused_and_stays_as_it_is(here: Path) -> None:
    study = study_file(here)
    kdsearch("launch", study, "--in-process", "--folder", "run")
    before = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    other = study_file(here, training={"epochs": 2, "max_length": 32})
    result = kdsearch("check", other, "--folder", "run")
    refused(result, "run: holds a different version: ", "training.", "leave out --folder")
    renamed = study.rename(here / "renamed.yaml")
    refused(
        kdsearch("check", renamed, "--folder", "run"), "run: holds a different study: name: tiny"
    )
    after = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    assert after == before


def test_a_folder_of_other_files_is_refused(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "thesis.tex").write_text("")
    refused(kdsearch("check", study_file(here), "--folder", "run"), "such as thesis.tex")
    assert [path.name for path in (here / "run").iterdir()] == ["thesis.tex"]


def test_a_folder_whose_disk_cannot_hold_the_study_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1, 1, 0))
    assert kdsearch("check", study_file(here)).code == 0  # it may be launched elsewhere
    result = kdsearch("check", study_file(here), "--folder", here / "run")
    refused(result, "but 0 kB is free")
    assert "Tokenizers" in result.out  # what was found is said all the same


def test_a_full_disk_is_no_trouble_to_a_study_that_was_begun(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file(here)
    begin(here / "run", {**yaml.safe_load(study.read_text()), "name": "tiny"})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1, 1, 0))
    assert kdsearch("check", study, "--folder", here / "run").code == 0


# -- what models make of rows ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, beside which a folder has what was found."""
    study = study_file(tmp_path_factory.mktemp("looked at"))
    kdsearch("check", study, "--folder", study.parent / "run")
    return study


@pytest.fixture
def kept(looked_at: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A study and a folder with a kept result that has readings and a teacher's sample."""
    long = "a-model-with-a-name-of-more-than-thirty-letters"
    shutil.copytree(looked_at.parent / "run", tmp_path / "run")
    ledger = Ledger(tmp_path / "run")
    found = ledger.preflight()
    assert found is not None
    reading = Reading(
        dataset="mine", model=long, split="train", rows=2000, unknown=0.0004, cut=0.25, beyond=None
    )
    entities = reading.model_copy(update={"split": "test", "rows": 12, "beyond": 1.0})
    sample = TeacherSample(
        teacher="big", model=long, dataset="mine", rows=64, score=None, chance=0.5
    )
    doubt = Doubt(place="models.big", what="says \x1b[31mnothing")
    changed = {"readings": (reading, entities), "samples": (sample,), "doubts": (doubt,)}
    ledger.write_preflight(Preflight.model_validate(found.model_copy(update=changed).model_dump()))
    return looked_at, ledger.folder


@pytest.mark.parametrize("columns", [80, 120])
def test_what_the_models_make_of_rows_fits_the_terminal(
    kept: tuple[Path, Path], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = kdsearch("check", kept[0], "--folder", kept[1])
    tables = result.out[: result.out.index("doubtful: ")]
    assert max(map(len, tables.splitlines())) <= columns
    text = " ".join(tables.split())
    assert "< 0.1 / < 0.1 25.0 / 25.0 – / 100.0" in text
    assert ["64", "–", "0.5000"] in [row[-3:] for row in lines(tables)]
    assert "in at most 2,000 rows per split, drawn by the seed" in text


def test_a_doubt_moves_no_cursor(kept: tuple[Path, Path]) -> None:
    result = kdsearch("check", kept[0], "--folder", kept[1])
    assert r"doubtful: models.big: says \x1b[31mnothing" in result.out
    assert "\x1b" not in result.out


def test_models_that_were_not_run_here_are_said_to_be_left_to_a_worker(
    kept: tuple[Path, Path],
) -> None:
    ledger = Ledger(kept[1])
    found = ledger.preflight()
    assert found is not None
    ledger.write_preflight(found.model_copy(update={"forward": False}))
    said = "too large to run here: a worker will run them first"
    assert said in kdsearch("check", kept[0], "--folder", kept[1]).out


# -- other commands --------------------------------------------------------------------------------


def test_each_launch_and_the_status_tell_of_doubts(here: Path) -> None:
    study = study_file(here)
    first = kdsearch("launch", study, "--in-process", "--folder", "run")
    again = kdsearch("launch", study, "--in-process", "--folder", "run")
    for result in (first, again):
        assert f"doubtful: {study}: datasets.mine: validation has no row of :smile:" in result.out
    assert "1 doubt about data and models: see the report" in kdsearch("status", "run").out
    assert json.loads(kdsearch("status", "run", "--json").out)["doubts"] == 1
    assert "validation has no row of :smile:" in (here / "run/report/report.md").read_text()
    shutil.rmtree(here / "run" / "report")
    kdsearch("report", "run")
    assert "validation has no row of :smile:" in (here / "run/report/report.html").read_text()
