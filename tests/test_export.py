from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from models import begin, run_study, task_study
from safetensors.torch import load_file
from test_cli import kdsearch, refused
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    pipeline,
)

from kdsearch.agenda import Agenda
from kdsearch.cli.export import _copy
from kdsearch.distill import run_training
from kdsearch.driver.keep import Keep
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout

TASKS = ("classification", "ner", "qa", "translation", "lm", "image_classification")


def finished(folder: Path, task: str, **sections: Any) -> tuple[Ledger, Agenda]:
    ledger, agenda = begin(folder, task_study(task, **sections))
    run_study(ledger, agenda, run_training)
    Keep(ledger, agenda).remove()
    return ledger, agenda


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished study of each task, one of them with temperatures; the tests read them only."""
    return {
        task: finished(
            tmp_path_factory.mktemp(task),
            task,
            erm=True,
            search={} if task == "classification" else {"distance": ["mse"]},
        )[0].folder
        for task in TASKS
    }


def exported(studies: dict[str, Path], task: str, to: Path, *options: str) -> Path:
    result = kdsearch("export", studies[task], "small", "--to", to, *options)
    assert result.code == 0, result
    return to


def copied(studies: dict[str, Path], task: str, folder: Path) -> Ledger:
    shutil.copytree(studies[task], folder)
    return Ledger(folder)


def best(agenda: Agenda) -> Any:
    [view] = agenda.views_of(None)
    assert view.progress is not None
    assert view.progress.winner.best is not None
    return agenda.results[agenda.training(view, view.progress.winner.best).key]


def agenda_of(ledger: Ledger) -> Agenda:
    return Agenda(ledger.resolved(), ledger.results())


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_student_that_classifies_loads_as_a_pipeline_and_says_the_labels(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    path = exported(studies, "classification", tmp_path / "student")
    student = pipeline("text-classification", model=str(path))
    ledger = Ledger(studies["classification"])
    [data] = ledger.resolved().datasets.values()
    row = ledger.rows(data.splits["test"].digest)[0]
    [said] = student([str(row["text"]) if "text" in row else str(next(iter(row.values())))])
    assert said["label"] in data.labels


def test_a_student_that_tags_loads_as_a_pipeline(studies: dict[str, Path], tmp_path: Path) -> None:
    path = exported(studies, "ner", tmp_path / "student")
    student = pipeline("token-classification", model=str(path), ignore_labels=[])
    found = student("one two three")
    [data] = Ledger(studies["ner"]).resolved().datasets.values()
    assert found
    assert {each["entity"] for each in found} <= set(data.labels)


def test_a_student_that_answers_loads_and_points_into_the_context(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    path = exported(studies, "qa", tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(path)
    student = AutoModelForQuestionAnswering.from_pretrained(path)
    with torch.no_grad():
        said = student(**tokenizer("who", "one two three", return_tensors="pt"))
    assert said.start_logits.shape == said.end_logits.shape
    assert said.start_logits.isfinite().all()


def test_a_student_that_translates_loads_and_generates(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    path = exported(studies, "translation", tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(path)
    student = AutoModelForSeq2SeqLM.from_pretrained(path)
    inputs = tokenizer("one two", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    found = student.generate(**inputs, max_new_tokens=5)
    assert found.shape[1] > 1


@pytest.mark.parametrize("task", TASKS)
def test_the_kept_weights_are_exported_as_they_are(
    studies: dict[str, Path], tmp_path: Path, task: str
) -> None:
    path = exported(studies, task, tmp_path / "student")
    outcome = best(agenda_of(Ledger(studies[task])))
    name = f"students/{outcome.key}/model.safetensors"
    assert sha(path / "model.safetensors") == outcome.digests[name]


def test_exported_files_have_the_modes_of_the_umask(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    ledger = copied(studies, "ner", tmp_path / "study")
    for path in ledger.folder.glob("students/*/*"):
        path.chmod(0o600)
    mask = os.umask(0)
    os.umask(mask)
    result = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "student")
    assert result.code == 0, result
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "student").iterdir()} == {
        0o666 & ~mask
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_student_trained_again_is_the_same_to_the_bit(
    studies: dict[str, Path], tmp_path: Path, task: str
) -> None:
    ledger = copied(studies, task, tmp_path / "study")
    first = exported(studies, task, tmp_path / "first")
    shutil.rmtree(ledger.folder / "students")
    (ledger.folder / "students").mkdir()
    result = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "again")
    assert result.code == 0, result
    assert "training it again" in result.out
    assert "exactly that of the search" in result.out
    old, new = (load_file(path / "model.safetensors") for path in (first, tmp_path / "again"))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert "trained again for the export" in (tmp_path / "again" / "README.md").read_text()


def test_a_job_that_brings_a_student_trains_none(studies: dict[str, Path], tmp_path: Path) -> None:
    ledger = copied(studies, "classification", tmp_path / "study")
    shutil.rmtree(ledger.folder / "students")
    (ledger.folder / "students").mkdir()
    to = tmp_path / "new"
    refused(kdsearch("export", ledger.folder, "small", "--to", to, "--kept"), "were not kept")
    assert not to.exists()


def test_what_the_student_learnt_from_is_made_again_where_it_is_gone(
    studies: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = copied(studies, "classification", tmp_path / "study")
    for name in ("students", "outputs", "checkpoints"):
        shutil.rmtree(ledger.folder / name)
        (ledger.folder / name).mkdir()
    result = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "again")
    assert result.code == 0, result
    assert "made again: teacher" in caplog.text
    assert "made again: outputs" in caplog.text
    assert "exactly that of the search" in result.out


def test_weights_that_were_damaged_are_not_exported(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    ledger = copied(studies, "ner", tmp_path / "study")
    agenda = Agenda(ledger.resolved(), ledger.results())
    damaged = ledger.folder / "students" / best(agenda).key / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(bytes(content))
    result = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "again")
    assert result.code == 0, result
    assert "training it again" in result.out
    outcome = best(agenda_of(ledger))
    name = f"students/{outcome.key}/model.safetensors"
    assert sha(tmp_path / "again" / "model.safetensors") == outcome.digests[name]


@pytest.mark.parametrize("task", TASKS)
def test_the_card_states_teacher_data_configuration_scores_and_version(
    studies: dict[str, Path], tmp_path: Path, task: str
) -> None:
    import kdsearch as package

    text = (exported(studies, task, tmp_path / "student") / "README.md").read_text()
    outcome = best(agenda_of(Ledger(studies[task])))
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "transformers"
    training = outcome.training
    for words in (
        f"kdsearch {package.__version__}",
        f"| teacher | {training.taught.teacher.model.name}, {training.taught.checkpoint_name}",
        f"| distance | {training.objective.kind.upper()} |",
        f"| this student | {outcome.validation:.4f} | {outcome.test:.4f} |",
        "the same student without a teacher",
        training.data.train[:16],
        outcome.key,
    ):
        assert words in text


def test_the_stable_configurations_student_can_be_asked_for(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    path = exported(studies, "classification", tmp_path / "student", "--stable")
    agenda = agenda_of(Ledger(studies["classification"]))
    [view] = agenda.views_of(None)
    assert view.phase2 is not None
    assert view.phase2.stable_tuned is not None
    assert view.phase2.stable_tuned.best is not None
    key = agenda.training(view, view.phase2.stable_tuned.best).key
    assert key in (path / "README.md").read_text()


TWIN = "data/small/erm"


@pytest.mark.parametrize("case", ["small", "data/big/small", TWIN])
def test_the_student_without_a_teacher_can_be_asked_for_by_either_case(
    studies: dict[str, Path], tmp_path: Path, case: str
) -> None:
    study = studies["classification"]
    result = kdsearch("export", study, case, "--erm", "--to", tmp_path / "student")
    assert result.code == 0, result
    agenda = agenda_of(Ledger(study))
    view = agenda.without_teacher(agenda.cases[0])
    assert view is not None
    assert view.chosen is not None
    outcome = agenda.results[agenda.training(view, view.chosen).key]
    assert outcome is not None
    name = f"students/{outcome.key}/model.safetensors"
    assert sha(tmp_path / "student" / "model.safetensors") == outcome.digests[name]
    text = (tmp_path / "student" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["tags"] == ["kdsearch"]
    distilled = best(agenda)
    for words in (
        "A student trained without a teacher, on the labels alone (ERM)",
        "| teacher | none |",
        f"| learning rate | {outcome.training.learning_rate:g} |",
        f"| this student | {outcome.validation:.4f} | {outcome.test:.4f} |",
        f"distilled: data/big/small | {distilled.validation:.2f} | {distilled.test:.2f} |",
        "| teacher big t_hs | ",
        "Gap closed by data/big/small: ",
        outcome.key,
    ):
        assert words in text


def test_a_student_without_a_teacher_is_trained_again_where_its_weights_are_gone(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    ledger = copied(studies, "classification", tmp_path / "study")
    shutil.rmtree(ledger.folder / "students")
    result = kdsearch("export", ledger.folder, "small", "--erm", "--to", tmp_path / "student")
    assert result.code == 0, result
    assert "exactly that of the search" in result.out


def test_the_best_so_far_of_a_case_that_is_finished_is_what_it_chose(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    chosen = exported(studies, "classification", tmp_path / "chosen")
    so_far = exported(studies, "classification", tmp_path / "so-far", "--best-so-far")
    files = sorted(path.name for path in chosen.iterdir())
    assert files == sorted(path.name for path in so_far.iterdir())
    assert all(sha(chosen / name) == sha(so_far / name) for name in files)


def test_of_a_case_that_is_being_searched_the_best_so_far_is_given(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    ledger = copied(studies, "classification", tmp_path / "study")
    agenda = agenda_of(ledger)
    [*_, last] = agenda.views()[0].progress.decisions[-1].candidates
    assert last.best is not None
    (ledger.folder / layout.outcome(agenda.training(agenda.views()[0], last.best).key)).unlink()
    agenda = agenda_of(ledger)
    view = agenda.views()[0]
    keys = {agenda.training(view, trial).key for trial in agenda.students(view.case)}
    scored = [outcome for key in keys if (outcome := agenda.results.get(key)) is not None]
    highest = max(outcome.validation for outcome in scored)
    before = {path: path.stat().st_mtime_ns for path in (ledger.folder / "outcomes").iterdir()}
    asked = ("export", ledger.folder, "data/big/small", "--to", tmp_path / "student")

    assert len(scored) > 3
    refused(kdsearch(*asked), f"for the best of {len(scored)} configurations so far: --best-so-far")
    result = kdsearch(*asked, "--best-so-far")
    assert result.code == 0, result
    assert f"the best of {len(scored)} configurations so far" in result.out
    text = (tmp_path / "student" / "README.md").read_text()
    assert f"of {len(scored)} so far, before the search of its test case was finished" in text
    assert any(outcome.key in text for outcome in scored if outcome.validation == highest)
    assert "Gap closed" not in text
    after = {path: path.stat().st_mtime_ns for path in (ledger.folder / "outcomes").iterdir()}
    assert after == before


def test_a_student_that_the_search_removes_meanwhile_leaves_no_half_of_one(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    ledger = copied(studies, "ner", tmp_path / "study")
    outcome = best(agenda_of(ledger))
    (ledger.folder / "students" / outcome.key / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="was removed meanwhile"):
        _copy(ledger, outcome.digests, outcome.key, tmp_path / "student")
    assert not list((tmp_path / "student").iterdir())


@pytest.mark.parametrize(("policy", "kept"), [("none", 0), ("all", None)])
def test_the_study_says_whose_weights_stay(tmp_path: Path, policy: str, kept: int | None) -> None:
    ledger, agenda = finished(
        tmp_path, "classification", keep_students=policy, search={"distance": ["mse"]}
    )
    scored = [
        o
        for o in agenda.results.values()
        if o and o.training.kind == "student" and o.test is not None
    ]
    assert len(ledger.kept_students()) == (len(scored) if kept is None else kept)


def test_by_default_the_winners_and_the_stable_ones_stay(studies: dict[str, Path]) -> None:
    ledger = Ledger(studies["classification"])
    assert best(agenda_of(ledger)).key in ledger.kept_students()
    assert len(ledger.kept_students()) <= 3  # and the one without a teacher


def test_bad_input_to_export_is_refused_in_words(studies: dict[str, Path], tmp_path: Path) -> None:
    study = studies["classification"]
    refused(
        kdsearch("export", study, "nothing", "--to", tmp_path / "a"), "no test case matches nothing"
    )
    refused(kdsearch("export", study, "", "--to", tmp_path / "a"), '"" names no test case')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused(kdsearch("export", study, "small", "--to", tmp_path / "full"), "--to", "exists")
    refused(kdsearch("export", tmp_path, "small", "--to", tmp_path / "b"), "holds no study")
    for other in ("--erm", "--best-so-far"):
        found = kdsearch("export", study, "small", "--stable", other, "--to", tmp_path / "full")
        refused(found, f"--stable: does not go with {other}", "full: already exists")


def test_an_unfinished_case_has_no_student_yet(tmp_path: Path) -> None:
    ledger, _ = begin(tmp_path / "study", task_study("classification"))
    for options in ((), ("--best-so-far",)):
        found = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "a", *options)
        refused(found, "has not got that far (wait for its search")
    found = kdsearch("export", ledger.folder, "small", "--erm", "--to", tmp_path / "a")
    refused(found, "data/big/small: has no student without a teacher (add `erm: true`")


def test_of_a_student_with_and_without_a_teacher_the_distilled_one_is_meant(tmp_path: Path) -> None:
    searches = {"mine": {"distance": ["mse"]}, "erm": {"objective": "labels"}}
    study = task_study("classification", searches=searches)
    del study["search"]
    ledger, _ = begin(tmp_path / "study", study)
    found = kdsearch("export", ledger.folder, "small", "--to", tmp_path / "a")
    refused(found, "data/big/small/mine: has no student to export yet")
