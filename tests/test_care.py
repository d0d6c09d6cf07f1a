from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import KEY, alpha_of, attempt_at, whole_training
from models import begin, run_study, task_study
from test_cli import Ended, kdsearch, refused

from kdsearch.agenda import Agenda
from kdsearch.driver.keep import Keep
from kdsearch.ledger import Ledger, driver_lock
from kdsearch.report import write_report

SEARCH = task_study("classification")["search"]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, copy_of_searched: Callable[[str, Path], Path]
) -> Path:
    """The folder of a study that was really trained; the tests change copies of it."""
    folder = copy_of_searched("classification", tmp_path_factory.mktemp("care") / "run")
    ledger, agenda = begin(folder, task_study("classification"))
    Keep(ledger, agenda).remove()
    write_report(ledger, agenda)
    return ledger.folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def files_in(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("driver.")
    }


def json_of(result: Ended) -> Any:
    return json.loads(result.out)


def search_on(folder: Path, **search: Any) -> tuple[Ledger, Agenda]:
    """Go on with the study, its search changed, with made-up trainings."""
    study = task_study("classification", search={**SEARCH, **search})
    ledger, agenda = begin(folder, study)
    run_study(ledger, agenda, whole_training)
    return ledger, agenda


def flip(path: Path) -> None:
    """Damage a file, as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


# -- gc -------------------------------------------------------------------------------------------


def test_of_a_study_that_did_not_change_nothing_is_garbage(folder: Path) -> None:
    before = files_in(folder)
    result = kdsearch("gc", folder, "--delete")
    assert (result.code, result.out) == (0, "nothing to delete: the study needs everything here\n")
    assert files_in(folder) == before


def test_what_a_change_left_behind_is_listed_and_deleted_when_asked(folder: Path) -> None:
    ledger, agenda = search_on(folder, alpha=[1])
    write_report(ledger, agenda)
    before = files_in(folder)
    listed = json_of(kdsearch("gc", folder, "--json"))
    assert listed["bytes"] == sum(each["bytes"] for each in listed["found"]) > 0
    assert not listed["deleted"]
    assert files_in(folder) == before

    names = {each["name"] for each in listed["found"]}
    assert "resolved-1.json" in names
    halves = {f"outcomes/{o.key}.json" for o in ledger.outcomes() if alpha_of(o.training) < 1}
    assert halves
    assert {name for name in names if name.startswith("outcomes/")} == halves

    shown = kdsearch("gc", folder)
    assert "from an earlier version of the study" in shown.out
    assert f"`kdsearch gc {folder} --delete` deletes this" in shown.out
    assert files_in(folder) == before

    result = kdsearch("gc", folder, "--delete")
    assert "deleted: " in result.out
    assert not any((folder / name).exists() for name in names)
    assert kdsearch("gc", folder).out.startswith("nothing")
    assert search_on(folder, alpha=[1])[1].complete
    assert kdsearch("verify", folder).code == 0


def test_what_has_no_outcome_and_what_was_left_half_written_is_garbage(folder: Path) -> None:
    stray = [f"outputs/{KEY}.npy", f"students/{KEY}/model.safetensors"]
    stray.append(f"checkpoints/{KEY}/epoch-1/config.json")
    half = [f"outcomes/.{KEY}.json.host-1-0123abcd.tmp", ".resolved.json.host-1-0123abcd.tmp"]
    half += [f".probe-{'0' * 32}", f"outcomes/.{KEY}.json.torn"]
    half.append(f"checkpoints/.{KEY}.0123abcd.tmp/epoch-1/config.json")
    before = files_in(folder)
    for name in (*stray, *half):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    found = json_of(kdsearch("gc", folder, "--delete", "--json"))
    assert found["bytes"] == 5 * len([*stray, *half])
    assert files_in(folder) == before


def test_students_that_cannot_win_any_more_are_garbage_unless_all_are_kept(folder: Path) -> None:
    ledger = Ledger(folder)
    [kept] = ledger.kept_students()
    other = next(o for o in ledger.outcomes() if o.training.kind == "student" and o.key != kept)
    shutil.copytree(folder / "students" / kept, folder / "students" / other.key)
    found = json_of(kdsearch("gc", folder, "--json"))["found"]
    assert [each["name"] for each in found] == [f"students/{other.key}"]
    begin(folder, task_study("classification", keep_students="all"))
    assert json_of(kdsearch("gc", folder, "--json"))["found"] == []


def test_while_a_search_is_not_complete_what_it_may_still_need_is_no_garbage(folder: Path) -> None:
    ledger = Ledger(folder)
    teacher = next(o for o in ledger.outcomes() if o.training.kind == "teacher")
    (folder / "outcomes" / f"{teacher.key}.json").unlink()
    found = json_of(kdsearch("gc", folder, "--json"))["found"]
    assert [each["name"] for each in found] == [f"checkpoints/{teacher.key}"]


def test_nothing_is_deleted_while_a_driver_runs(folder: Path) -> None:
    search_on(folder, alpha=[1])
    before = files_in(folder)
    with driver_lock(folder):
        refused(kdsearch("gc", folder, "--delete"), "is being driven by process")
        assert "a search is running here" in kdsearch("gc", folder).out
    assert files_in(folder) == before


# -- verify ---------------------------------------------------------------------------------------


def problems(folder: Path) -> list[str]:
    """What `verify` finds, as `place: what`; the two ways of printing agree."""
    result, shown = kdsearch("verify", folder, "--json"), kdsearch("verify", folder)
    found = json_of(result)["problems"]
    assert result.code == shown.code == (1 if found else 0)
    for each in found:
        assert f"{each['place']}: {each['what']} ({each['remedy']})" in shown.out
        assert each["remedy"]
    return [f"{Path(each['place']).relative_to(folder)}: {each['what']}" for each in found]


def test_a_sound_folder_is_called_fine(folder: Path) -> None:
    before = files_in(folder)
    result = kdsearch("verify", folder)
    assert result.code == 0
    outcomes = len(list((folder / "outcomes").iterdir()))
    assert f"{outcomes} outcomes and " in result.out
    assert result.out.endswith(": no problems\n")
    assert files_in(folder) == before


@pytest.mark.parametrize("kept", ["checkpoints/*/epoch-*/model.safetensors", "outputs/*.npy"])
def test_a_kept_file_that_is_damaged_or_gone_is_found(folder: Path, kept: str) -> None:
    path = next(folder.glob(kept))
    name = str(path.relative_to(folder))
    flip(path)
    [found] = problems(folder)
    assert found.startswith(f"{name}: has the digest ")
    path.unlink()
    assert problems(folder) == [f"{name}: is not there"]


def test_a_students_weights_may_be_removed_whole_and_not_in_part(folder: Path) -> None:
    [student] = (folder / "students").iterdir()
    flip(student / "model.safetensors")
    assert len(problems(folder)) == 1
    (student / "model.safetensors").unlink()
    assert problems(folder) == [f"students/{student.name}/model.safetensors: is not there"]
    shutil.rmtree(student)
    assert problems(folder) == []


def test_an_outcome_that_was_cut_off_or_has_another_key_is_found(folder: Path) -> None:
    (folder / "report" / "report.json").unlink()
    first, second, third = sorted((folder / "outcomes").iterdir())[:3]
    first.write_bytes(first.read_bytes()[:100])
    content = json.loads(second.read_text())
    second.write_text(json.dumps({**content, "key": KEY}))
    third.rename(third.with_name(f"{KEY}.json"))
    found = problems(folder)
    assert len(found) == 3
    assert any(f"outcomes/{first.name}: is not an outcome" in each for each in found)
    assert f"outcomes/{second.name}: is not an outcome: belongs to the training {KEY}" in found
    assert f"outcomes/{KEY}.json: is not an outcome: belongs to the training {third.stem}" in found


def test_rows_that_were_damaged_or_are_gone_are_found(folder: Path) -> None:
    one, other, *_ = sorted((folder / "data").iterdir())
    one.write_text(one.read_text().replace("a", "b"))
    other.unlink()
    found = problems(folder)
    assert found[0].startswith(f"data/{one.name}: has the digest ")
    assert found[1:] == [f"data/{other.name}: is not there"]


def test_rows_that_were_half_written_by_a_driver_that_was_killed_are_no_problem(
    folder: Path,
) -> None:
    rows = next((folder / "data").iterdir())
    (folder / "data" / f".{rows.name}.host-1-deadbeef.tmp").write_text("{")
    assert problems(folder) == []


def test_an_attempt_that_is_none_is_found(folder: Path) -> None:
    ledger = Ledger(folder)
    ledger.write_attempt(attempt_at(KEY))
    assert problems(folder) == []
    (folder / "attempts" / KEY / "1.json").write_text("{}")
    [found] = problems(folder)
    assert found.startswith(f"attempts/{KEY}/1.json: is not an attempt")


def test_a_checkpoint_of_a_training_that_was_stopped_is_checked_too(folder: Path) -> None:
    content = b"weights and more"
    path = folder / "progress" / KEY / f"120-{hashlib.sha256(content).hexdigest()}.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert problems(folder) == []
    flip(path)
    name = path.relative_to(folder)
    assert problems(folder) == [f"{name}: has a different digest from the one in its name"]


def test_a_decision_of_the_report_that_does_not_follow_from_the_outcomes_is_found(
    folder: Path,
) -> None:
    path = folder / "report" / "report.json"
    report = json.loads(path.read_text())
    step = report["cases"][0]["path"][-1]
    step["winner"] = 1 - step["winner"]
    path.write_text(json.dumps(report))
    name = "data/big/small"
    assert problems(folder) == [
        f"report/report.json: decides alpha of {name} differently from the outcomes"
    ]


def test_an_outcome_that_is_gone_shows_in_the_report(folder: Path) -> None:
    report = json.loads((folder / "report" / "report.json").read_text())
    shutil.rmtree(folder / "students")
    [case] = report["cases"]
    (folder / "outcomes" / f"{case['winner']['key']}.json").unlink()
    first, *rest = problems(folder)
    assert first.endswith("of data/big/small differently from the outcomes")
    assert rest == ["report/report.json: is of a complete study, but outcomes are missing"]


def test_a_report_of_an_earlier_version_of_the_study_is_found(folder: Path) -> None:
    search_on(folder, alpha=[1])
    assert problems(folder) == ["report/report.json: is from an earlier version of the study"]


def test_a_report_that_is_older_than_the_outcomes_is_fine_while_there_is_more_to_come(
    folder: Path,
) -> None:
    ledger = Ledger(folder)
    students = [o for o in ledger.outcomes() if o.training.kind == "student"]
    first = next(o for o in students if alpha_of(o.training) == 1)
    second = next(o for o in students if alpha_of(o.training) < 1)  # decided later
    for outcome in (first, second):
        (folder / "outcomes" / f"{outcome.key}.json").unlink()
    assert kdsearch("report", folder).code == 0
    ledger.write_outcome(first)
    assert problems(folder) == []
    rows, note = json_of(kdsearch("verify", folder, "--json"))["notes"]
    assert rows["place"].startswith(str(folder / "tested" / second.key))
    assert note["place"] == str(folder / "report")
    assert "not what the outcomes give: it is older, edited" in note["what"]
    assert "since the search is not complete" in note["what"]


def test_results_that_the_study_does_not_ask_for_are_a_note(folder: Path) -> None:
    write_report(*search_on(folder, alpha=[1]))
    result = kdsearch("verify", folder)
    assert result.code == 0, result
    assert "the study no longer needs 6 results: see `kdsearch gc" in result.out
