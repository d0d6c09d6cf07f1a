"""Folders that come from others, are shared with others, or link to a disk that others use."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers
from fakes import KEY, attempt_at, whole_training
from models import begin, run_study, task_study
from plotly.offline import get_plotlyjs
from test_cli import Ended, kdsearch, refused

from kdsearch.agenda import Agenda, written_outcome
from kdsearch.distill import run_training
from kdsearch.driver.keep import Keep
from kdsearch.driver.watch import Log
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import MARKER, Ledger, driver_lock, is_ours, put
from kdsearch.report import write_report
from kdsearch.report.tables import to_csv
from kdsearch.study import Doubt, Preflight

EDITED = "is not what the outcomes give: it is older, edited, or from a different kdsearch"
SEARCH = task_study("classification")["search"]
LINKED = ("checkpoints", "outputs", "students", "progress")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, copy_of_searched: Callable[[str, Path], Path]
) -> Path:
    """The folder of a study that was really trained; the tests change copies of it."""
    folder = copy_of_searched("classification", tmp_path_factory.mktemp("sent") / "run")
    ledger, agenda = begin(folder, task_study("classification"))
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
    kinds = {o.training.kind for key in both if (o := in_one.results[key]) is not None}
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
    assert kdsearch("export", one.folder, "small", "--to", tmp_path / "x").code == 0
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
    assert view.progress is not None
    best = view.progress.winner.best
    assert best is not None
    return agenda.training(view, best).key


def test_a_marker_of_another_study_or_of_a_copy_of_this_one_gives_no_leave(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    shutil.move(folder / "students", scratch)
    (folder / "students").symlink_to(scratch)
    (scratch / KEY).mkdir()
    (scratch / KEY / "model.safetensors").touch()
    monkeypatch.chdir(folder)
    for said in ("", ".", str(tmp_path / "other"), f"{folder} and more"):
        (scratch / MARKER).write_text(said)
        assert gc(folder, "--delete")["found"] == []
    (scratch / MARKER).unlink()
    os.mkfifo(scratch / MARKER)
    assert gc(folder, "--delete")["found"] == []
    (scratch / MARKER).unlink()
    (scratch / MARKER).write_text(str(folder))
    assert [each["name"] for each in gc(folder, "--delete")["found"]] == [f"students/{KEY}"]


def test_files_of_others_are_named_and_stay_whatever_they_are_called(folder: Path) -> None:
    mine = [
        "data/notes.txt",
        "data/mine.jsonl",
        "students/thesis/model.safetensors",
        f"students/{KEY}/README.md",
        "outputs/.mine.tmp",
        "outputs/.0.tmp",
        "progress/foo.pt",
        "outcomes/.x.torn",
        f"students/{KEY[::-1]}/word2vec.model",
        "notes/.x.json.host-2-deadbeef.tmp",
        "data/.backup-1-deadbeef.tmp",
        "report/.mine.csv.host-1-deadbeef.tmp",
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


def test_a_half_written_folder_goes_whatever_a_model_writes_into_it(folder: Path) -> None:
    half = folder / "checkpoints" / f".{KEY}.0123abcd.tmp" / "epoch-1"
    half.mkdir(parents=True)
    (half / "own_model.py").touch()
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (half / "link").symlink_to(outside)
    begin(folder, task_study("classification"))  # a launch sweeps
    assert not half.parent.exists()
    assert (outside / "file").exists()


def test_what_transformers_calls_the_files_of_its_tokenizers_is_known() -> None:
    names = {
        name
        for module in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py")
        for table in re.findall(r"VOCAB_FILES_NAMES\s*=\s*\{([^}]*)\}", module.read_text())
        for name in re.findall(r':\s*"([^"]+)"', table)
    }
    assert len(names) > 10
    unknown = {name for name in names if not is_ours(f"students/{KEY}/{name}")}
    assert unknown == set()


def test_of_two_workers_that_write_behind_a_link_the_first_stays(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "run", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    (folder / "students").symlink_to(scratch)
    for name, content in (("first", "of another study"), ("second", "ours")):
        written = folder / "students" / f".{name}"
        written.mkdir()
        (written / "config.json").write_text(content)
        if name == "first":
            put(folder, written, folder / "students" / KEY)
        else:
            with pytest.raises(StorageError, match="not replaced"):
                put(folder, written, folder / "students" / KEY)
            assert not written.exists()
    assert (scratch / KEY / "config.json").read_text() == "of another study"


def test_a_file_of_mine_stays_where_a_student_is_made_again(folder: Path) -> None:
    student = folder / "students" / KEY
    written = folder / "students" / f".{KEY}.0123abcd.tmp"
    for made in (student, written):
        made.mkdir()
        (made / "config.json").touch()
    (student / "results").mkdir()
    (student / "results" / "eval.json").write_text("mine")
    put(folder, written, student)
    Ledger(folder).sweep()
    [mine] = (folder / "students").glob(f"{KEY}-*/results/eval.json")
    assert mine.read_text() == "mine"
    assert [path.name for path in student.iterdir()] == ["config.json"]


def test_what_a_training_kept_is_no_garbage_while_its_outcome_cannot_be_read(folder: Path) -> None:
    for path in (folder / "outcomes").glob("*.json"):
        path.write_text("{")
    assert gc(folder, "--delete")["found"] == []


def test_a_folder_of_another_training_code_is_refused_as_it_is(folder: Path) -> None:
    path = folder / "resolved.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training_version": 99}))
    (folder / "outcomes" / f"{KEY}.json").write_text("{")
    before = contents(folder / "outcomes")
    with pytest.raises(InputError, match="from training code 99"):
        begin(folder, task_study("classification"))
    assert contents(folder / "outcomes") == before


def test_what_the_disk_cannot_read_now_is_said_and_left(folder: Path) -> None:
    path = a_student(folder)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        begin(folder, task_study("classification"))
    assert path.is_symlink()


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
    [path] = scratch.glob("*.test.npy")
    path.write_bytes(b"another's")
    shutil.rmtree(folder / "students")
    (folder / "students").mkdir()
    result = kdsearch("export", folder, "small", "--to", tmp_path / "student")
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
        ledger.remove_student,
        lambda key: ledger.write_outcome(outcome),
    ):
        with pytest.raises(InputError, match=r"has no key|is not a name"):
            use(key)
    path = folder / "outcomes" / f"{KEY}.json"
    path.write_text(json.dumps(written_outcome(outcome)))
    assert outcome.key not in ledger.results()
    gc(folder, "--delete")
    ledger.sweep()
    assert (outside / "file").exists()


@pytest.mark.parametrize("name", ["launch.log", "driver.lock"])
def test_no_log_and_no_lock_is_written_through_a_link(folder: Path, name: str) -> None:
    private = folder.parent / "private"
    private.write_text("private")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(private)
    with (
        pytest.raises(StorageError, match="is a link, or not a regular file"),
        ExitStack() as stack,
    ):
        Log(folder) if name == "launch.log" else stack.enter_context(driver_lock(folder))
    assert private.read_text() == "private"


def test_a_note_of_a_driver_is_not_written_through_a_link(folder: Path) -> None:
    private = folder.parent / "private"
    private.write_text("private")
    for name in ("driver.tmp", "driver.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(private)
    with driver_lock(folder):
        assert private.read_text() == "private"


# -- rows ------------------------------------------------------------------------------------------


def test_rows_that_were_changed_are_not_trained_on(folder: Path) -> None:
    training = next(o.training for o in Ledger(folder).outcomes() if o.training.kind == "student")
    path = folder / "data" / f"{training.data.train}.jsonl"
    path.write_text(path.read_text().partition("\n")[2])
    settings = training.settings.model_copy(update={"max_length": 99})  # this process has read them
    with pytest.raises(InputError, match=f"{path}: has the digest"):
        run_training(training.model_copy(update={"settings": settings}), folder)


# -- export ----------------------------------------------------------------------------------------


def test_an_export_has_what_the_outcome_has_digests_of_and_no_more(
    folder: Path, tmp_path: Path
) -> None:
    key = view_best(Agenda(Ledger(folder).resolved(), Ledger(folder).results()))
    student = folder / "students" / key
    private = tmp_path / "private"
    private.write_text("private")
    (student / "vocab.txt").symlink_to(private)
    (student / "notes.txt").write_text("mine")
    before = kdsearch("verify", folder)
    assert f"{student / 'vocab.txt'}: is not kdsearch's" in before.out
    assert kdsearch("export", folder, "small", "--to", tmp_path / "out").code == 0
    outcome = Ledger(folder).outcome(key)
    assert outcome is not None
    start = f"students/{key}/"
    names = {name.removeprefix(start) for name in outcome.digests if name.startswith(start)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"README.md"}


def test_a_file_of_a_student_that_is_a_link_is_not_exported(folder: Path, tmp_path: Path) -> None:
    [path] = (folder / "students").glob("*/config.json")
    path.rename(tmp_path / "config.json")
    path.symlink_to(tmp_path / "config.json")
    refused(kdsearch("export", folder, "small", "--to", tmp_path / "out"), f"{path}: is a link")


# -- tampering -------------------------------------------------------------------------------------


def a_student(folder: Path) -> Path:
    """The outcome of a student that is no case's best, so that no decision hangs on it."""
    ledger = Ledger(folder)
    best = view_best(Agenda(ledger.resolved(), ledger.results()))
    return next(
        folder / "outcomes" / f"{o.key}.json"
        for o in ledger.outcomes()
        if o.training.kind == "student" and o.key != best
    )


def a_teacher(folder: Path) -> Path:
    [teacher] = [o for o in Ledger(folder).outcomes() if o.training.kind == "teacher"]
    return folder / "outcomes" / f"{teacher.key}.json"


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def verified(folder: Path) -> tuple[list[str], list[str]]:
    """The problems and the notes of `verify`, whose words agree."""
    found = json.loads(kdsearch("verify", folder, "--json").out)
    shown = kdsearch("verify", folder)
    assert shown.code == (1 if found["problems"] else 0)
    assert "not checked: whether scores, epochs and costs are as measured" in shown.out
    problems, notes = (
        [f"{Path(each['place']).relative_to(folder)}: {each['what']}" for each in found[kind]]
        for kind in ("problems", "notes")
    )
    return problems, notes


def test_a_changed_score_does_not_go_with_its_epochs_even_if_the_report_is_written_anew(
    folder: Path,
) -> None:
    path = a_student(folder)
    rewrite(path, validation=0.123)
    assert kdsearch("report", folder).code == 0
    problems, _ = verified(folder)
    name = str(path.relative_to(folder))
    assert problems == [f"{name}: has a different validation score from its best epoch"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"epochs": []}, "does not have the 2 epochs of its training"),
        ({"best_epoch": 7}, "says that epoch 7 is the best, which it is not"),
        ({"test": 1.5}, "has a score that is not between 0 and 1"),
        ({"test": None}, "has no test score"),
        (
            {"digests": {f"students/{KEY}/{'x' * 300}": "0" * 64}},
            f"has a digest of students/{KEY}/{'x' * 46}, which is not one of its files",
        ),
        ({"state": "diverged"}, "diverged, but has a score"),
        (
            {"digests": {"../../x": "0" * 64}},
            "has a digest of ../../x, which is not one of its files",
        ),
        (
            {"digests": {"data/x": "0" * 64}},
            "has a digest of data/x, which is not one of its files",
        ),
    ],
)
def test_parts_of_an_outcome_that_do_not_go_together_are_found(
    folder: Path, changes: dict[str, Any], what: str
) -> None:
    path = a_student(folder)
    rewrite(path, **changes)
    assert f"{path.relative_to(folder)}: {what}" in verified(folder)[0]


def test_a_cost_that_was_changed_shows_beside_the_report(folder: Path) -> None:
    path = a_student(folder)
    rewrite(path, cost={**json.loads(path.read_text())["cost"], "seconds": 1e6})
    problems, _ = verified(folder)
    assert any(
        each.startswith("report/report.json: is not what the outcomes give") for each in problems
    )


def test_a_perfect_score_that_was_rounded_up_is_fine(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path / "run", task_study("translation"))
    run_study(ledger, agenda, whole_training)
    path = next(
        ledger.folder / "outcomes" / f"{o.key}.json"
        for o in ledger.outcomes()
        if o.training.kind == "student"
    )
    for test, problems in ((100.00000000000004, 0), (100.1, 1)):
        rewrite(path, test=test)
        assert len(verified(ledger.folder)[0]) == problems


def test_a_teacher_none_of_whose_epochs_has_a_loss_is_found(folder: Path) -> None:
    path = a_teacher(folder)
    epochs = json.loads(path.read_text())["epochs"]
    rewrite(path, epochs=[{**epoch, "validation_loss": None} for epoch in epochs])
    lowest = json.loads(path.read_text())["lowest_loss_epoch"]
    what = f"says that epoch {lowest} has the lowest loss, which it does not"
    assert f"outcomes/{path.name}: {what}" in verified(folder)[0]


def test_a_digest_of_a_file_whose_name_no_disk_can_hold_is_found(folder: Path) -> None:
    path = a_teacher(folder)
    name = f"checkpoints/{path.stem}/{'x' * 300}"
    rewrite(path, digests={**json.loads(path.read_text())["digests"], name: "0" * 64})
    assert f"{name}: is not there" in verified(folder)[0]


def test_emptied_digests_are_found(folder: Path) -> None:
    path = a_teacher(folder)
    rewrite(path, digests={})
    problems, _ = verified(folder)
    start = f"outcomes/{path.name}: has no digest of checkpoints/{path.stem}/epoch-"
    assert any(each.startswith(start) for each in problems)
    assert any(each.startswith(f"checkpoints/{path.stem}/") for each in problems)


def test_weights_with_a_digest_of_what_was_made_again_are_said_to_be_unknown(
    folder: Path,
) -> None:
    path = a_teacher(folder)
    weights = next((folder / "checkpoints" / path.stem).glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    name = str(weights.relative_to(folder))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    Ledger(folder).write_digests(path.stem, {name: digest})
    problems, notes = verified(folder)
    assert problems == []
    start = f"{name}: matches the digest in "
    assert any(each.startswith(start) for each in notes)


@pytest.mark.parametrize("name", ["report.html", "report.md", "tables/cases.csv", "report.json"])
def test_a_page_or_a_table_that_was_edited_is_found(folder: Path, name: str) -> None:
    path = folder / "report" / name
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    assert verified(folder)[0] == [f"report/{name}: {EDITED}"]


@pytest.mark.parametrize("hidden", [True, False])
def test_an_edited_page_is_found_whatever_is_said_in_the_report_json(
    folder: Path, hidden: bool
) -> None:
    page, facts = folder / "report" / "report.html", folder / "report" / "report.json"
    page.write_text(page.read_text().replace("0.", "0.9", 1))
    if hidden:
        facts.unlink()
        what = "is not there, unlike other files of the report"
    else:
        rewrite(facts, complete=False)
        what = EDITED
    assert verified(folder)[0] == [f"report/report.html: {EDITED}", f"report/report.json: {what}"]


def test_a_table_that_no_report_has_is_found(folder: Path) -> None:
    (folder / "report" / "tables" / "more.csv").write_text("a,b\n")
    problems, _ = verified(folder)
    assert problems == ["report/tables/more.csv: is not a file of the report"]


def test_a_report_of_an_earlier_kdsearch_is_a_note(folder: Path) -> None:
    resolved = folder / "resolved.json"
    versions = json.loads(resolved.read_text())["versions"]
    rewrite(resolved, versions={**versions, "kdsearch": "0.0.9"})
    page = folder / "report" / "report.html"
    page.write_text(page.read_text().replace("0.", "0.9", 1))
    rewrite(folder / "report" / "report.json", format=1)
    problems, [note] = verified(folder)
    assert problems == []
    assert note.startswith("report: report.html, report.json: not what the outcomes give")
    assert "since the study was begun by kdsearch 0.0.9" in note


def test_a_study_file_whose_names_stand_in_another_order_writes_the_same_report(
    tmp_path: Path,
) -> None:
    usual = task_study("classification")
    data = usual["datasets"]["data"]
    usual["datasets"] = {"one": data, "two": {**data, "grammar": {**data["grammar"], "seed": 2}}}
    ledger, agenda = begin(tmp_path / "run", usual)
    run_study(ledger, agenda, whole_training)
    usual["datasets"] = dict(reversed(usual["datasets"].items()))
    write_report(*begin(tmp_path / "run", usual))
    assert verified(tmp_path / "run") == ([], [])


def test_doubts_that_were_taken_out_of_a_report_are_found(folder: Path) -> None:
    doubt = Doubt(place="study.yaml: datasets.x", what="hardly any rows")
    Ledger(folder).write_preflight(Preflight(digest="0" * 32, doubts=(doubt,)))
    assert kdsearch("report", folder).code == 0
    assert verified(folder) == ([], [])
    path = folder / "report" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "doubts": []}, indent=1))
    assert [each.partition(":")[0] for each in verified(folder)[0]] == ["report/report.json"]


def test_an_attempt_of_another_training_is_found_and_does_not_count(folder: Path) -> None:
    other = "d" * 24
    Ledger(folder).write_attempt(attempt_at(other))
    (folder / "attempts" / other).rename(folder / "attempts" / KEY)
    problems, _ = verified(folder)
    what = f"is not an attempt: belongs to the training {other}"
    assert problems == [f"attempts/{KEY}/1.json: {what}"]
    assert Ledger(folder).attempts() == {}


def test_files_that_nothing_is_recorded_of_are_found(folder: Path) -> None:
    path = a_teacher(folder)
    extra = [
        f"checkpoints/{path.stem}/epoch-1/adapter_config.json",
        f"outputs/{path.stem}.npy",
        "data/notes.txt",
        "progress/foo.pt",
        "outcomes/x.json",
    ]
    for name in extra:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "notes.txt").write_text("mine")
    problems, notes = verified(folder)
    assert {each.partition(":")[0] for each in problems} == set(extra)
    assert notes == ["notes.txt: is not kdsearch's, and is not checked"]


def test_files_of_trainings_that_have_no_outcome_are_a_note(folder: Path) -> None:
    """A search that runs has such: a training keeps its files before its outcome is there."""
    for name in (f"outputs/{KEY}.npy", f"students/{KEY}/model.safetensors", f"digests/{KEY}.json"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("{}")
    (folder / "students" / KEY / "config.json").write_text("{}")
    problems, notes = verified(folder)
    assert problems == []
    places = (f"digests/{KEY}.json", f"outputs/{KEY}.npy", f"students/{KEY}")
    what = "is from a training that has no outcome, and is not checked"
    assert notes == [f"{place}: {what}" for place in places]


def test_of_two_outcomes_with_one_key_the_one_of_that_name_is_shown(folder: Path) -> None:
    path = a_student(folder)
    before = kdsearch("explain", folder).out
    copy = {**json.loads(path.read_text()), "validation": 1.0}
    (folder / "outcomes" / f"{'f' * 24}.json").write_text(json.dumps(copy))
    assert kdsearch("explain", folder).out == before


# -- files that are none ---------------------------------------------------------------------------


def nan(path: Path) -> None:
    rewrite(path, validation=float("nan"))


def infinite(path: Path) -> None:
    rewrite(path, validation=float("inf"))


def endless(path: Path) -> None:
    rewrite(path, cost={**json.loads(path.read_text())["cost"], "seconds": float("inf")})


def too_large(path: Path) -> None:
    content = json.loads(path.read_text())
    content["cost"]["seconds"] = "X"
    path.write_text(json.dumps(content).replace('"X"', "1e999"))


def finite_and_endless(path: Path) -> None:
    rewrite(path, cost={**json.loads(path.read_text())["cost"], "seconds": 1.7e308})


def another_training(path: Path) -> None:
    training = json.loads(path.read_text())["training"]
    rewrite(path, training={**training, "seed": training["seed"] + 1})


def list_of_digests(path: Path) -> None:
    rewrite(path, digests=[])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless_zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize(
    "damage",
    [
        nan,
        infinite,
        endless,
        too_large,
        finite_and_endless,
        another_training,
        list_of_digests,
        a_folder,
        a_pipe,
        endless_zeros,
        a_link_to_itself,
        huge,
        deep,
    ],
)
def test_an_outcome_that_is_none_is_named_by_readers_and_trained_again_by_a_launch(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    path = a_student(folder)
    damage(path)
    result = kdsearch("status", folder)
    assert result.code == 0, result
    assert f"{path}: " in caplog.text
    assert "stopped; launch it again" in result.out
    for command in ("explain", "gc"):
        assert kdsearch(command, folder).code == 0
    assert any(each.startswith(f"outcomes/{path.name}: ") for each in verified(folder)[0])
    assert os.path.lexists(path)  # readers move nothing
    ledger, agenda = begin(folder, task_study("classification"))
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    assert Ledger(folder).outcome(path.stem) is not None


def test_numbers_that_nothing_can_have_do_not_break_a_report(folder: Path) -> None:
    keys = [o.key for o in Ledger(folder).outcomes() if o.training.kind == "student"]
    for key in keys:
        path = folder / "outcomes" / f"{key}.json"
        finite_and_endless(path)
        rewrite(path, model_bytes=10**400, test=1.7e308)
    for command in ("status", "explain", "report"):
        assert kdsearch(command, folder).code == 0
    problems, _ = verified(folder)
    for key in keys:
        assert any(each.startswith(f"outcomes/{key}.json: is not an outcome") for each in problems)


def test_an_outcome_of_a_kdsearch_that_was_never_released_is_refused_and_not_set_aside(
    folder: Path,
) -> None:
    path = a_student(folder)
    training = json.loads(path.read_text())["training"]
    del training["learning_rate"]
    rewrite(path, training=training)
    for command in ("status", "report"):
        refused(kdsearch(command, folder), f"{path}: is not an outcome of this kdsearch")
    with pytest.raises(InputError, match=f"{path}: is not an outcome of this kdsearch"):
        begin(folder, task_study("classification"))
    assert path.exists()


@pytest.mark.parametrize("damage", [nan, list_of_digests, another_training])
def test_an_outcome_behind_a_link_that_is_damaged_is_refused_and_not_trained_in_vain(
    folder: Path, tmp_path: Path, damage: Any
) -> None:
    shared = tmp_path / "shared"
    shutil.move(folder / "outcomes", shared)
    (folder / "outcomes").symlink_to(shared)
    path = a_student(folder)
    damage(path)
    before = path.read_bytes()
    words = f"{path}: .*lies behind the link outcomes.*move it away.*echo {folder} > "
    with pytest.raises(InputError, match=words):
        begin(folder, task_study("classification"))
    assert path.read_bytes() == before
    (shared / MARKER).write_text(str(folder))
    begin(folder, task_study("classification"))
    assert not path.exists()


@pytest.mark.parametrize("content", ["{}", "[]", '{"drain": 3}', "NaN", "", "[" * 100_000])
@pytest.mark.parametrize("name", ["stop.json", "running.json", "driver.json", "preflight.json"])
def test_a_note_of_any_content_hinders_no_command(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert kdsearch("status", folder).code == 0
    assert Ledger(folder).stop_asked() is None
    with driver_lock(folder, lease=0.2):
        (folder / name).write_text(content)
        assert kdsearch("status", folder).code == 0


@pytest.mark.parametrize("damage", [a_folder, a_pipe, huge, deep])
def test_a_preflight_that_is_none_is_named_and_hinders_no_command(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    path = folder / "preflight.json"
    path.write_text(Preflight(digest="0" * 32).model_dump_json())
    damage(path)
    assert kdsearch("status", folder).code == 0
    assert f"{path}: cannot be read: " in caplog.text
    [problem] = verified(folder)[0]
    assert problem.startswith("preflight.json: cannot be read: ")


@pytest.mark.parametrize("pid", ["x", -1, 0, 2**70, True, None, 1.5])
def test_a_driver_whose_number_is_none_is_no_driver(folder: Path, pid: Any) -> None:
    note = {"host": os.uname().nodename, "pid": pid, "since": "now"}
    (folder / "driver.json").write_text(json.dumps(note))
    assert kdsearch("status", folder).code == 0


@pytest.mark.parametrize(
    "name", ["stop.json", "running.json", "preflight.json", "resolved-9.json", "launch.log"]
)
def test_a_pipe_hangs_no_command(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for command in ("status", "explain", "verify", "gc"):
        assert kdsearch(command, folder).code in (0, 1)


@pytest.mark.parametrize("content", ["[]", "3", '{"x": 1}', '{"x": "y"}', "NaN", "{"])
def test_digests_that_are_none_are_named_and_count_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = a_teacher(folder)
    (folder / "digests" / path.name).write_text(content)
    assert verified(folder)[0] == []
    assert f"digests/{path.name}: " in caplog.text


# -- other users -----------------------------------------------------------------------------------


def as_another_user(*arguments: str | Path) -> Ended:
    """Run a command as the user 12345, who owns nothing, in a copy of this process.

    A new one could not start where Python itself lies in a folder of root's.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    kdsearch(*arguments[:1], "/nonexistent")  # imports what it needs, as root
    get_plotlyjs()
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        try:
            said = asdict(kdsearch(*arguments))
        except BaseException as error:
            said = {"code": 99, "out": "", "err": f"Traceback: {error!r}"}
        os.write(writes, json.dumps(said).encode()[:60_000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        found = json.loads(pipe.read())
    os.waitpid(process, 0)
    return Ended(**found)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone can reach: pytest's own are its user's alone."""
    made = Path(tempfile.mkdtemp(prefix="kdsearch-shared-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def test_kept_files_have_the_modes_of_the_umask(finished: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    files = [p for name in LINKED for p in (finished / name).rglob("*") if p.is_file()]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}


def test_another_user_can_check_and_export_a_study(finished: Path, open_folder: Path) -> None:
    shutil.copytree(finished, open_folder / "run")
    found = as_another_user("verify", open_folder / "run")
    assert found.code == 0, found
    found = as_another_user("export", open_folder / "run", "small", "--to", open_folder / "student")
    assert found.code == 0, found


def test_what_another_user_may_not_read_or_write_is_said_in_words(
    finished: Path, open_folder: Path
) -> None:
    run = open_folder / "run"
    shutil.copytree(finished, run)
    weights = next(run.glob("checkpoints/*/*/model.safetensors"))
    weights.chmod(0o600)
    found = as_another_user("verify", run)
    assert found.code == 1, found
    assert f"{weights}: you have no permission to read it (its owner can allow it" in found.out
    private = a_student(run)
    private.chmod(0o600)
    for command in (["status"], ["explain"], ["report"], ["gc"]):
        found = as_another_user(*command, run)
        assert found.code == 2, found
        assert "you have no permission to read or write it" in found.err
        assert "Traceback" not in found.err
    private.chmod(0o644)
    found = as_another_user("report", run)
    assert found.code == 3, found
    assert "you have no permission to write to it" in found.err


@pytest.mark.parametrize(
    "name", ["checkpoints", "checkpoints/*", "outputs", "students", "data", "progress", "report"]
)
def test_a_folder_that_another_user_may_not_read_is_one_problem(
    finished: Path, open_folder: Path, name: str
) -> None:
    run = open_folder / "run"
    shutil.copytree(finished, run)
    (run / "progress" / KEY).mkdir()
    barred = next(run.glob(name))
    barred.chmod(0o700)
    found = as_another_user("verify", run, "--json")
    assert found.code == 1, found
    [problem] = json.loads(found.out)["problems"]
    assert problem["place"] == str(barred)
    assert problem["what"] == "you have no permission to read it"


@pytest.mark.parametrize("name", ["outcomes", "attempts", f"attempts/{KEY}"])
@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_where_another_user_may_not_read_the_outcomes_nothing_is_compared_with_them(
    finished: Path, open_folder: Path, name: str, mode: int
) -> None:
    run = open_folder / "run"
    shutil.copytree(finished, run)
    Ledger(run).write_attempt(attempt_at(KEY))
    (run / name).chmod(mode)
    found = as_another_user("verify", run, "--json")
    assert found.code == 1, found
    places = [each["place"] for each in json.loads(found.out)["problems"]]
    assert places == [str(run / name)]


# -- terminals, tables, pages ----------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"


def test_a_name_cannot_look_like_a_line_of_ours(folder: Path) -> None:
    (folder / "students" / "x\n37 outcomes: no problems").touch()
    for command in ("verify", "gc"):
        assert "no problems" not in kdsearch(command, folder).out.splitlines()
        assert "x\\n37 outcomes: no problems" in kdsearch(command, folder).out


def test_no_message_controls_a_terminal(folder: Path) -> None:
    Ledger(folder).write_attempt(attempt_at(KEY, ESCAPE))
    path = folder / "resolved.json"
    content = json.loads(path.read_text())
    content["datasets"]["data"]["metric"] = f"f1{ESCAPE}"
    path.write_text(json.dumps(content))
    (folder / "students" / f"x{ESCAPE.replace('/', '')}").write_text("")
    doubts = [{"place": ESCAPE, "what": ESCAPE, "remedy": ""}]
    (folder / "preflight.json").write_text(json.dumps({"digest": "0" * 32, "doubts": doubts}))
    for command, code in {"status": 0, "explain": 0, "gc": 0, "verify": 1, "report": 0}.items():
        result = kdsearch(command, folder)
        assert result.code == code, result
        assert not set(result.out + result.err) & set("\x1b\x07\u202e\x9b"), command
    written = [p for p in (folder / "report").rglob("*") if p.suffix in (".md", ".tex", ".json")]
    assert any("owned" in path.read_text() for path in written)
    for path in written:
        assert not set(path.read_text()) & set("\x1b\x07\u202e\x9b"), path


def test_doubts_that_an_earlier_version_kept_are_shown(folder: Path) -> None:
    doubt = {"place": "datasets.data", "what": "is small", "mend": "take more rows"}
    (folder / "preflight.json").write_text(json.dumps({"digest": "0" * 32, "doubts": [doubt]}))
    assert kdsearch("report", folder).code == 0
    assert "is small (take more rows)" in (folder / "report" / "report.md").read_text()
    assert kdsearch("verify", folder).code == 0


def test_what_is_sent_around_names_no_machine_no_user_and_no_folder(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "resolved.json"
    content = json.loads(path.read_text())
    content["study"]["models"]["extra"] = {"path": "/home/alice/models/bert", "layers": None}
    content["study"]["models"]["extra"].pop("layers")
    content["models"]["extra"] = {"path": "/home/alice/models/bert", "digest": "0" * 32}
    content["models"]["extra"] |= {"revision": None, "labels": None}
    path.write_text(json.dumps(content))
    student = json.loads(a_student(folder).read_text())
    ledger = Ledger(folder)
    a_student(folder).unlink()
    message = (
        "FileNotFoundError: '/home/alice/data/x.npy' or '/home/alice/my data/y' on node7.lab, "
        "node7:/home/alice/x and file:///home/alice/y"
    )
    for _ in range(2):
        attempt = attempt_at(student["key"], message).model_copy(update={"host": "node7.lab"})
        ledger.write_attempt(attempt)
    place = "/home/alice/studies/study.yaml: models.extra"
    doubt = Doubt(place=place, what="/home/alice/models/bert is gone", remedy="see /home/alice/x")
    ledger.write_preflight(Preflight(digest="0" * 32, doubts=(doubt,)))
    assert kdsearch("report", folder).code == 0
    assert "bert is gone" in (folder / "report" / "report.md").read_text()
    assert kdsearch("export", folder, "small", "--to", tmp_path / "student").code == 0
    files = [p for p in (folder / "report").rglob("*") if p.is_file()]
    files += (tmp_path / "student").glob("README.md")
    for file in files:
        text = file.read_text()
        for name in ("/home/alice", "alice/", "node7", str(folder)):
            assert name not in text, (file, name)


def test_a_text_that_would_be_a_formula_is_quoted_in_csv_and_a_number_is_not() -> None:
    texts = ["=1+1", "+x", "-x", "@x", "\t=x", "plain"]
    frame = pd.DataFrame({"text": texts, "number": [-1.5, -2, 3, None, 0, 1]})
    back = pd.read_csv(io.StringIO(to_csv(frame)))
    assert list(back["text"]) == ["'=1+1", "'+x", "'-x", "'@x", "'\t=x", "plain"]
    assert list(back["number"].dropna()) == [-1.5, -2, 3, 0, 1]


# -- passwords -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@127.0.0.1:1/x",
        "postgresql+psycopg://me:s3cret%20word@127.0.0.1:1/x",
        "postgresql+psycopg://me:s3cret word@127.0.0.1:1/x",
        "postgresql+psycopg://me@127.0.0.1:1/x?password=s3cret",
        "postgresql+psycopg://me@127.0.0.1:1/x?sslpassword=s3cret",
    ],
)
def test_a_password_is_taken_from_the_environment_or_a_file_and_shown_nowhere(
    folder: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(kdsearch("mirror", folder, url), "has a password", "KDSEARCH_OPTUNA")
    monkeypatch.setenv("KDSEARCH_OPTUNA", url)
    by_environment = kdsearch("mirror", folder)
    assert "KDSEARCH_OPTUNA" not in os.environ  # workers would inherit it
    file = tmp_path / "url"
    file.write_text(f"{url}\n")
    file.chmod(0o644)
    refused(kdsearch("mirror", folder, f"@{file}"), "can be read by others", f"chmod 600 {file}")
    file.chmod(0o600)
    by_file = kdsearch("mirror", folder, f"@{file}")
    for result in (by_environment, by_file):
        assert result.code == 2
        assert "cannot be opened" in result.err or "needs a driver" in result.err
        assert "s3cret" not in result.out + result.err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:p@ss/word@host/x", "has one @ too many"),
        ("postgresql+psycopg://me:p@ss:1/word@host/x", "has one @"),
    ],
)
def test_of_a_password_that_was_not_written_for_a_url_nothing_is_shown(
    folder: Path, url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDSEARCH_OPTUNA", url)
    result = kdsearch("mirror", folder)
    refused(result, says)
    assert not re.search("p@|ss|word@", result.out + result.err.replace("password", ""))


def test_the_name_of_a_file_with_passwords_is_no_password(folder: Path) -> None:
    url = "postgresql+psycopg://me@127.0.0.1:1/x?passfile=/home/me/.pgpass"
    assert "has a password" not in kdsearch("mirror", folder, url).err
