from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    SlowDisk,
    VanishingDisk,
    World,
    a_study,
    alpha_of,
    attempt_at,
    memory_ledger,
    resolved_of,
    search_through,
    until,
)
from test_cli import contents, ended, kdsearch, on_a_bad_disk, refused, started, tiny, written

from kdsearch.agenda import VERSION, Agenda
from kdsearch.driver import open_study
from kdsearch.ledger import Ledger, driver_lock
from kdsearch.study import FORMAT, Resolved, parse_study

RESOLVED = resolved_of(a_study())
[TEACHER] = [request.training for request in Agenda(RESOLVED).requests()]


def ready(folder: Path, resolved: Resolved = RESOLVED) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    return ledger


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study file and the folder of its finished search; the tests change copies of it."""
    folder = tmp_path_factory.mktemp("launched")
    study = written(folder / "tiny.yaml", tiny())
    assert kdsearch("launch", study, "--in-process", "--folder", folder / "run").code == 0
    return study, folder / "run"


@pytest.fixture
def copy(launched: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    study, folder = launched
    shutil.copytree(folder, tmp_path / "run")
    return study, tmp_path / "run"


def launch(study: Path, folder: Path) -> Any:
    return kdsearch("launch", study, "--in-process", "--folder", folder)


# -- disks that fail ------------------------------------------------------------------------------


class FailingDisk:
    """A small disk of its own that can be made read-only, as the system does after an error."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder
        folder.mkdir()

    def mount(self) -> None:
        command = ["mount", "-o", "loop", str(self.image), str(self.folder)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")

    def fail(self) -> None:
        """All that was not synced is lost."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.folder)], check=True)

    def repair(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("making a disk needs root and mkfs.ext4")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    found = FailingDisk(image, tmp_path / "disk")
    found.mount()
    try:
        yield found
    finally:
        subprocess.run(["umount", "--lazy", str(found.folder)], check=True)


def test_a_disk_that_fails_while_a_search_runs_loses_nothing_that_was_finished(
    disk: FailingDisk, tmp_path: Path
) -> None:
    study, run = written(tmp_path / "tiny.yaml", tiny()), disk.folder / "run"
    process = started("launch", study, "--in-process", "--folder", run)
    while process.poll() is None and len(list(run.glob("outcomes/*.json"))) < 3:
        time.sleep(0.005)
    # Each is committed when the one after it is begun, so that all but the last are for certain.
    before = contents(run)
    disk.fail()
    on_a_bad_disk(ended(process), "the disk is read-only")
    disk.repair()
    after = contents(run)
    assert len(before.items() & after.items()) >= len(before) - 1
    result = launch(study, run)
    assert result.code == 0
    assert "The study is complete" in result.out
    assert after.items() <= contents(run).items()
    # The launch that failed has left a process that writes a report, which may still be at it.
    until(lambda: kdsearch("verify", run).code == 0)


def test_a_read_only_copy_can_be_looked_at_and_checked(
    launched: tuple[Path, Path], disk: FailingDisk
) -> None:
    study, folder = launched
    run = disk.folder / "run"
    shutil.copytree(folder, run)
    disk.repair()
    disk.fail()
    for command in ("status", "explain", "verify", "gc"):
        assert kdsearch(command, run).code == 0
    for command in (("report", run), ("gc", run, "--delete")):
        on_a_bad_disk(kdsearch(*command), "the disk is read-only")
    on_a_bad_disk(launch(study, run), "the disk is read-only")


def test_on_a_slow_disk_the_decisions_are_those_of_a_fast_one(tmp_path: Path) -> None:
    ready(tmp_path / "study")
    slow = Ledger(tmp_path / "study", SlowDisk(0.002))
    world = World(seed=4, failing=0.05)
    found = search_through(RESOLVED, slow, world, slots=3)
    assert found.views() == search_through(RESOLVED, memory_ledger(RESOLVED), world).views()
    assert Ledger(tmp_path / "study").results() == found.results


@pytest.mark.parametrize("seed", range(5))
def test_files_that_vanish_while_they_are_listed_or_read_count_as_not_there(
    tmp_path: Path, seed: int
) -> None:
    ledger = ready(tmp_path / "study")
    end = search_through(RESOLVED, ledger, World(seed=4, failing=0.2))
    disk = VanishingDisk(0.2, seed)
    found = Ledger(tmp_path / "study", disk).results()
    gone = {path.name.removesuffix(".json") for path in disk.vanished}
    assert disk.vanished
    assert found.items() <= end.results.items()
    assert found == Ledger(tmp_path / "study").results()
    assert not gone & found.keys()


# -- files that a power loss cut off --------------------------------------------------------------


def torn(path: Path, content: str) -> Path:
    """A file as a power loss may leave it on a disk that lies: empty, cut, or full of zeros."""
    whole = path.read_bytes()
    left = {"empty": b"", "cut": whole[: len(whole) // 2], "zeros": bytes(len(whole))}
    path.write_bytes(left[content])
    return path


@pytest.mark.parametrize("content", ["empty", "cut", "zeros"])
def test_a_torn_outcome_is_absent_for_readers_and_trained_again_by_a_driver(
    copy: tuple[Path, Path], content: str, caplog: pytest.LogCaptureFixture
) -> None:
    study, run = copy
    before = contents(run)
    student = next(o for o in Ledger(run).outcomes() if o.training.kind == "student")
    path = torn(run / "outcomes" / f"{student.key}.json", content)
    result = kdsearch("status", run)
    assert result.code == 0
    assert "11 students trained" in result.out
    assert f"{path}: is not JSON" in caplog.text
    assert path.exists()  # a reader moves nothing

    caplog.clear()
    result = launch(study, run)
    assert result.code == 0
    assert f"{path}: is not JSON" in caplog.text
    assert "it is set aside and retrained" in caplog.text
    assert (run / "outcomes" / f".{path.name}.torn").exists()
    names = [name for name in contents(run) if not name.startswith(".")]
    assert sorted(names) == sorted(before)
    assert kdsearch("verify", run).code == 0


def test_a_torn_attempt_is_absent_for_readers_and_set_aside_by_a_driver(tmp_path: Path) -> None:
    study = parse_study(a_study(), place="x")
    ledger = Ledger(tmp_path)
    open_study(ledger, study, data_dir=None, place="x")
    ledger.write_attempt(attempt_at(TEACHER.key))
    ledger.write_attempt(attempt_at(TEACHER.key))
    path = torn(tmp_path / "attempts" / TEACHER.key / "1.json", "cut")
    assert [attempt.number for attempt in ledger.attempts_of(TEACHER.key)] == [2]
    open_study(ledger, study, data_dir=None, place="x")
    assert not path.exists()
    ledger.write_attempt(attempt_at(TEACHER.key))
    assert len(ledger.attempts_of(TEACHER.key)) == 2


def test_an_outcome_of_another_kdsearch_is_refused_and_not_set_aside(
    copy: tuple[Path, Path],
) -> None:
    study, run = copy
    path = sorted((run / "outcomes").iterdir())[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_tomorrow": 1}))
    for result in (launch(study, run), kdsearch("status", run)):
        refused(result, f"{path}: is not an outcome of this kdsearch", "use the one that wrote it")
    assert path.exists()


# -- clocks that jump -----------------------------------------------------------------------------


@pytest.mark.undisturbed
@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_clock_that_jumped_changes_neither_a_status_nor_who_may_drive(
    copy: tuple[Path, Path], ahead: float
) -> None:
    study, run = copy
    when = time.time() + ahead
    since = {"case": "g/big/small", "stage": "alpha", "training": "CE", "since": when}
    with driver_lock(run):
        (run / "running.json").write_text(json.dumps({"slots": 1, "running": {"abc": since}}))
        result = kdsearch("status", run)
        assert result.code == 0
        assert f"running for {'1 s' if ahead > 0 else '60 min'}: g/big/small" in result.out
    for path in run.rglob("*"):
        os.utime(path, (when, when))
    note = {"host": "elsewhere", "pid": 1, "since": "2024-01-12T10:00:00", "beat": 1}
    (run / "driver.json").write_text(json.dumps(note))
    os.utime(run / "driver.json", (when, when))
    start = time.monotonic()
    with driver_lock(run, lease=0.5):
        assert 0.5 <= time.monotonic() - start < 30
    before = contents(run)
    assert "nothing left to run" in launch(study, run).out
    assert contents(run) == before


# -- folders that were moved ----------------------------------------------------------------------


def test_a_folder_that_was_moved_goes_on_where_it_is(
    launched: tuple[Path, Path], tmp_path: Path
) -> None:
    study, folder = launched
    shutil.copytree(folder, tmp_path / "there")
    for outcome in list(Ledger(tmp_path / "there").outcomes()):
        if alpha_of(outcome.training) < 1:
            (tmp_path / "there" / "outcomes" / f"{outcome.key}.json").unlink()
    before = contents(tmp_path / "there")
    shutil.move(tmp_path / "there", tmp_path / "here")
    result = launch(study, tmp_path / "here")
    assert result.code == 0
    assert "resuming: 10 trainings already done" in result.out
    after = contents(tmp_path / "here")
    assert before.items() <= after.items()
    assert len(after) == len(contents(folder))
    assert not (tmp_path / "there").exists()
    assert kdsearch("verify", tmp_path / "here").code == 0


def test_a_folder_that_was_copied_while_a_search_ran_is_not_held_by_that_search(
    launched: tuple[Path, Path], tmp_path: Path
) -> None:
    study, folder = launched
    with driver_lock(folder):
        shutil.copytree(folder, tmp_path / "copy")
        assert (tmp_path / "copy" / "driver.json").exists()
        result = launch(study, tmp_path / "copy")
    assert result.code == 0
    assert "nothing left to run" in result.out


def test_a_folder_whose_models_were_moved_too_keeps_every_outcome(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_bytes(b"weights")
    raw = a_study()
    raw["models"]["small"] = {"path": str(model)}
    ledger = Ledger(tmp_path / "run")
    agenda = open_study(ledger, parse_study(raw, place="x"), data_dir=None, place="x")
    world = World(seed=1)
    end = search_through(agenda.resolved, ledger, world)
    shutil.move(model, tmp_path / "elsewhere")
    raw["models"]["small"] = {"path": str(tmp_path / "elsewhere")}
    said: list[str] = []
    study = parse_study(raw, place="x")
    again = open_study(ledger, study, data_dir=None, place="x", say=said.append)
    assert again.complete
    assert said[-1] == f"kept {len(end.results)}, new 0, no longer needed 0"


# -- folders of another kdsearch ------------------------------------------------------------------


def rewritten(run: Path, **fields: Any) -> None:
    path = run / "resolved.json"
    content = {**json.loads(path.read_text()), **fields}
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


COMMANDS = ("status", "explain", "report", "verify", "gc")


@pytest.mark.parametrize("other", [0, FORMAT + 1])
def test_a_folder_of_another_format_is_refused_with_what_to_do(
    copy: tuple[Path, Path], other: int
) -> None:
    study, run = copy
    before = contents(run)
    rewritten(run, format=other, versions={"kdsearch": "0.0.7"}, a_new_field=1)
    for result in (launch(study, run), *(kdsearch(command, run) for command in COMMANDS)):
        refused(result, f"has format {other}, not {FORMAT}", "use kdsearch 0.0.7, which wrote it")
    assert contents(run) == before


def test_a_folder_of_newer_training_code_is_refused(
    copy: tuple[Path, Path],
) -> None:
    study, run = copy
    before = contents(run)
    rewritten(run, training_version=VERSION + 1, versions={"kdsearch": "9.0.0"})
    for result in (launch(study, run), *(kdsearch(command, run) for command in COMMANDS)):
        refused(
            result,
            f"its outcomes are from training code {VERSION + 1}, but this kdsearch has {VERSION}",
            "use kdsearch 9.0.0, which wrote it, or launch into another --folder",
        )
    assert contents(run) == before


def test_a_folder_of_earlier_training_code_is_read_and_not_trained_again(
    copy: tuple[Path, Path],
) -> None:
    study, run = copy
    rewritten(run, training_version=None, versions={"kdsearch": "0.0.7"})
    before = contents(run)
    refused(
        launch(study, run),
        f"its outcomes are from training code 2, but this kdsearch has {VERSION}",
        "launch into another --folder, or use the kdsearch that wrote it",
    )
    assert contents(run) == before
    for command in COMMANDS:
        assert "training code" not in kdsearch(command, run).err


@pytest.mark.parametrize("content", [b"", b"[]", b"{", bytes(100), b"\xff\xfe"])
def test_a_damaged_study_is_refused_in_words(copy: tuple[Path, Path], content: bytes) -> None:
    study, run = copy
    (run / "resolved.json").write_bytes(content)
    for result in (launch(study, run), *(kdsearch(command, run) for command in COMMANDS)):
        refused(result, f"{run}/resolved.json: cannot be read", "a copy of the folder")


# -- digests --------------------------------------------------------------------------------------


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path) -> None:
    path, ledger = tmp_path / "file", Ledger(tmp_path)
    path.write_bytes(b"one")
    first, stat = ledger.digest("file"), path.stat()
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ledger.digest("file") == first
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert ledger.digest("file") not in (None, first)
    path.unlink()
    assert ledger.digest("file") is None
