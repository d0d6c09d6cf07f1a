"""Folders that come from others, are shared with others, or link to a disk that others use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes import KEY
from models import begin, run_study, task_study
from test_cli import kdsearch, refused

from kdsearch.agenda import Agenda
from kdsearch.distill import run_training
from kdsearch.driver.keep import Keep
from kdsearch.driver.watch import Log
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import MARKER, Ledger, driver_lock
from kdsearch.report import write_report

SEARCH = task_study("classification")["search"]
LINKED = ("checkpoints", "outputs", "students", "progress")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was really trained; the tests change copies of it."""
    ledger, agenda = begin(tmp_path_factory.mktemp("sent") / "run", task_study("classification"))
    run_study(ledger, agenda, run_training)
    Keep(ledger, agenda).remove()
    write_report(ledger, agenda)
    return ledger.folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by its path; links are not followed."""
    found = {}
    for where, _, names in os.walk(folder):
        for path in (Path(where) / name for name in names):
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path.relative_to(folder))] = digest
    return found


def gc(folder: Path, *options: str) -> Any:
    result = kdsearch("gc", folder, "--json", *options)
    assert result.code == 0, result
    return json.loads(result.out)


# -- links, and files of others --------------------------------------------------------------------


def study_on(scratch: Path, folder: Path, **search: Any) -> tuple[Ledger, Agenda]:
    """A study that was run to its end, whose large sub-folders are links to `scratch`."""
    folder.mkdir()
    for name in LINKED:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(scratch / name)
    ledger, agenda = begin(folder, task_study("classification", search={**SEARCH, **search}))
    run_study(ledger, agenda, run_training)
    Keep(ledger, agenda).remove()
    write_report(ledger, agenda)
    return ledger, agenda


def test_two_studies_with_a_teacher_and_a_student_in_common_share_a_scratch_disk(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "scratch"
    one, in_one = study_on(scratch, tmp_path / "one")
    other_run = scratch / "progress" / KEY / f"120-{hashlib.sha256(b'x').hexdigest()}.pt"
    other_run.parent.mkdir()
    other_run.write_bytes(b"x")
    half = scratch / "outputs" / f".{'0' * 32}.tmp"
    half.write_bytes(b"of a worker of the other study that runs")
    before = contents(scratch)
    two, in_two = study_on(scratch, tmp_path / "two", alpha=[1])
    both = in_one.results.keys() & in_two.results.keys()
    kinds = {in_one.results[key].training.kind for key in both if in_one.results[key]}
    assert {"teacher", "outputs", "student"} <= kinds
    assert before.items() <= contents(scratch).items()

    # The second study changes, so that it needs nothing of what lies there any more.
    changed = {**task_study("classification", search={**SEARCH, "alpha": [1]}), "seed": 9}
    begin(two.folder, changed)
    before = contents(scratch)
    listed = gc(two.folder)
    deleted = gc(two.folder, "--delete")
    assert contents(scratch) == before
    left = {each["name"]: each["why"] for each in deleted["left"]}
    assert not {each["name"].split("/")[0] for each in listed["found"]} & set(LINKED)
    teacher = next(o.key for o in in_one.results.values() if o and o.training.kind == "teacher")
    assert f"echo {two.folder} > " in left[f"checkpoints/{teacher}"]
    assert kdsearch("verify", one.folder).code == 0
    [student] = one.kept_students() & {view_best(in_one)}
    assert kdsearch("export", one.folder, "", "--to", tmp_path / "x").code == 0
    assert student

    # Who says that no other study uses a folder may have it cleaned.
    (scratch / "checkpoints" / MARKER).write_text(f"{two.folder}\n")
    gone = gc(two.folder, "--delete")["found"]
    assert f"checkpoints/{teacher}" in {each["name"] for each in gone}
    assert not (scratch / "checkpoints" / teacher).exists()
    assert (scratch / "checkpoints" / MARKER).exists()
    kept = {name: digest for name, digest in before.items() if not name.startswith("checkpoints")}
    assert kept.items() <= contents(scratch).items()


def view_best(agenda: Agenda) -> str:
    [view] = agenda.views()
    assert view.traversal is not None
    best = view.traversal.winner.tuned.best
    assert best is not None
    return agenda.training(view, best).key


def test_a_marker_of_another_study_or_of_a_copy_of_this_one_gives_no_leave(
    folder: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    shutil.move(folder / "students", scratch)
    (folder / "students").symlink_to(scratch)
    (scratch / KEY).mkdir()
    (scratch / KEY / "model.safetensors").touch()
    for said in ("", str(tmp_path / "other"), f"{folder} and more"):
        (scratch / MARKER).write_text(said)
        assert gc(folder, "--delete")["found"] == []
    (scratch / MARKER).write_text(str(folder))
    assert [each["name"] for each in gc(folder, "--delete")["found"]] == [f"students/{KEY}"]


def test_files_of_others_are_named_and_stay_whatever_they_are_called(folder: Path) -> None:
    mine = [
        "data/notes.txt",
        "data/mine.jsonl",
        "students/thesis/model.safetensors",
        f"students/{KEY}/README.md",
        f"checkpoints/.{KEY}.0123abcd.tmp/notes.txt",
        "outputs/.mine.tmp",
        "outputs/.0.tmp",
        "progress/foo.pt",
        "outcomes/.x.torn",
    ]
    for name in mine:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "outputs" / f"{KEY}.npy").symlink_to(folder / "data" / "notes.txt")
    (folder / "students" / "empty").mkdir()
    before = {name: digest for name, digest in contents(folder).items() if "/" in name}
    shown = kdsearch("gc", folder)
    deleted = gc(folder, "--delete")
    assert deleted["found"] == []
    left = [each["name"] for each in deleted["left"]]
    for name in [*mine, f"outputs/{KEY}.npy"]:
        assert any(name == each or name.startswith(f"{each}/") for each in left), name
    assert "data/notes.txt" in shown.out
    begin(folder, task_study("classification"))  # a launch sweeps
    assert before.items() <= contents(folder).items()


def test_a_report_behind_a_link_is_added_and_not_replaced(folder: Path, tmp_path: Path) -> None:
    web = tmp_path / "web"
    shutil.move(folder / "report", web)
    (folder / "report").symlink_to(web)
    (web / "report.md").write_text("another study's")
    with pytest.raises(InputError, match=r"it may be another study's.*echo .* > .*kdsearch-only"):
        Ledger(folder).prepare()
    refused(kdsearch("report", folder), "it may be another study's")
    assert (web / "report.md").read_text() == "another study's"
    (web / MARKER).write_text(str(folder))
    assert kdsearch("report", folder).code == 0
    assert (web / "report.md").read_text() != "another study's"


def test_what_was_damaged_behind_a_link_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    shutil.move(folder / "outputs", scratch)
    (folder / "outputs").symlink_to(scratch)
    [path] = scratch.glob("*.npy")
    path.write_bytes(b"another's")
    shutil.rmtree(folder / "students")
    (folder / "students").mkdir()
    result = kdsearch("export", folder, "", "--to", tmp_path / "student")
    assert result.code == 3
    assert "not replaced, since it may be another study's" in result.err
    assert path.read_bytes() == b"another's"


@pytest.mark.parametrize("key", ["../../x", "..", "x", "", "A" * 24, f"{KEY}/../../x", f"{KEY}\0"])
def test_a_key_that_is_none_leads_nowhere(folder: Path, tmp_path: Path, key: str) -> None:
    outside = tmp_path / "x"
    outside.mkdir()
    (outside / "file").touch()
    ledger = Ledger(folder)
    outcome = next(ledger.outcomes()).model_copy(update={"key": key})
    for use in (
        ledger.outcome,
        ledger.progress,
        ledger.watchdog,
        ledger.remove_student,
        lambda key: ledger.write_outcome(outcome),
    ):
        with pytest.raises(InputError, match=r"no key|no name"):
            use(key)
    path = folder / "outcomes" / f"{KEY}.json"
    path.write_text(outcome.model_dump_json())
    assert outcome.key not in ledger.results()
    ledger.remove_progress(key.replace("\0", ""))
    gc(folder, "--delete")
    ledger.sweep()
    assert (outside / "file").exists()


@pytest.mark.parametrize("name", ["launch.log", "driver.lock"])
def test_no_log_and_no_lock_is_written_through_a_link(folder: Path, name: str) -> None:
    private = folder.parent / "private"
    private.write_text("private")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(private)
    open_it = {"launch.log": Log, "driver.lock": lambda where: driver_lock(where).__enter__()}
    with pytest.raises(StorageError, match="is a link or no plain file"):
        open_it[name](folder)
    assert private.read_text() == "private"


def test_a_note_of_a_driver_is_not_written_through_a_link(folder: Path) -> None:
    private = folder.parent / "private"
    private.write_text("private")
    for name in ("driver.tmp", "driver.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(private)
    with driver_lock(folder):
        assert private.read_text() == "private"
