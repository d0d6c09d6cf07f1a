from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    KEY,
    MemoryDisk,
    World,
    a_study,
    attempt_at,
    memory_ledger,
    outcome_of,
    resolved_of,
    search_through,
)
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.agenda import Agenda, Cost, Epoch, TestScore, Training
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import Disk, Ledger, OsDisk, driver_lock, driver_of, layout
from kdsearch.ledger import files_in as all_files_in
from kdsearch.ledger.lock import HEARTBEAT_SECONDS
from kdsearch.search import ValidationScore
from kdsearch.study import Row, digest_rows

RESOLVED = resolved_of(a_study(tries=2))
TRAINING: Training = Agenda(RESOLVED).requests()[0].training


def ready(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(RESOLVED)
    return ledger


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- what killed workers left ------------------------------------------------------------------


def test_what_workers_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    ledger.write_outcome(outcome_of(TRAINING))
    outputs, checkpoints = tmp_path / "outputs", tmp_path / "checkpoints"
    for path in (
        outputs / "a.npy",
        outputs / "a.head.safetensors",
        checkpoints / "b" / "epoch-1" / "model.safetensors",
        checkpoints / "b" / ".c.tmp",
        outputs / ".0.tmp",
        tmp_path / "data" / ".d.tmp",
        tmp_path / ".e.tmp",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"kept")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (outputs / f".{'0' * 32}.tmp").write_bytes(b"left")
    (outputs / f".{'0' * 32}.head.tmp").write_bytes(b"left")
    half = checkpoints / f".{KEY}.4567abcd.tmp" / "epoch-2"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"left")
    ledger.sweep()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert files_in(checkpoints) == ["b"]
    ledger.sweep()
    assert files_in(outputs) == [".0.tmp", "a.head.safetensors", "a.npy"]


@pytest.mark.parametrize("disk", [OsDisk, MemoryDisk])
def test_there_may_be_nothing_to_sweep(tmp_path: Path, disk: type[Disk]) -> None:
    ledger = Ledger(tmp_path / "run", disk())
    ledger.sweep()
    ledger.prepare()
    ledger.sweep()


@pytest.mark.parametrize("disk", [OsDisk, MemoryDisk])
def test_what_was_made_again_takes_the_place_of_what_was_there(
    tmp_path: Path, disk: type[Disk]
) -> None:
    ledger = Ledger(tmp_path, disk())
    ledger.prepare()
    final = ledger.path(layout.student(KEY))
    for content in (b"first", b"second"):
        written = final.with_name(layout.aside(KEY))
        ledger.make_folder(written)
        ledger.disk.write(written / "config.json", content)
        ledger.put(written, final)
    assert list(all_files_in(ledger.disk, tmp_path, layout.STUDENTS)) == [
        f"students/{KEY}/config.json"
    ]
    assert ledger.disk.read(final / "config.json") == b"second"
    assert ledger.remove(layout.student(KEY))
    assert list(ledger.disk.names(tmp_path / layout.STUDENTS)) == []


@pytest.mark.parametrize("disk", [OsDisk, MemoryDisk])
def test_a_half_written_folder_goes_and_a_damaged_outcome_is_set_aside(
    tmp_path: Path, disk: type[Disk]
) -> None:
    ledger = Ledger(tmp_path, disk())
    ledger.prepare()
    half = ledger.path(layout.checkpoints(KEY)).with_name(layout.aside(KEY)) / "epoch-1"
    ledger.make_folder(half)
    ledger.disk.write(half / "model.safetensors", b"half")
    ledger.disk.write(ledger.path(layout.outcome(KEY)), b"{")
    ledger.sweep()
    assert list(all_files_in(ledger.disk, tmp_path)) == [f"outcomes/.{KEY}.json.torn"]


class CountingDisk(OsDisk):
    """The real disk, which remembers what was read of it."""

    def __init__(self) -> None:
        self.read_paths: list[Path] = []

    def read(self, path: Path) -> bytes:
        self.read_paths.append(path)
        return super().read(path)


def test_what_a_sweep_read_is_not_read_again(tmp_path: Path) -> None:
    ready(tmp_path).write_outcome(outcome_of(TRAINING))
    disk = CountingDisk()
    ledger, path = Ledger(tmp_path, disk), tmp_path / "outcomes" / f"{TRAINING.key}.json"
    ledger.sweep()
    late = type(TRAINING).model_validate({**TRAINING.model_dump(), "seed": 99})
    Ledger(tmp_path).write_outcome(outcome_of(late))  # by a worker that was left over
    assert {outcome.key for outcome in ledger.outcomes()} == {TRAINING.key, late.key}
    assert disk.read_paths.count(path) == 1
    ledger.sweep()
    path.unlink()
    assert {outcome.key for outcome in ledger.outcomes()} == {late.key}


def test_of_students_behind_a_link_nothing_is_read_to_leave_them_there(tmp_path: Path) -> None:
    ready(tmp_path).write_outcome(outcome_of(TRAINING))
    (tmp_path / "students").rename(tmp_path / "scratch")
    (tmp_path / "students").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / TRAINING.key).mkdir()
    disk = CountingDisk()
    assert Ledger(tmp_path, disk).remove_student(TRAINING.key) is False
    assert disk.read_paths == []


# -- outcomes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [OsDisk, MemoryDisk])
def test_an_outcome_is_written_once_and_the_first_stands(tmp_path: Path, disk: type[Disk]) -> None:
    ledger = Ledger(tmp_path, disk())
    ledger.prepare()
    assert ledger.outcome(TRAINING.key) is None
    assert ledger.write_outcome(outcome_of(TRAINING, 0.25)) is True
    assert ledger.write_outcome(outcome_of(TRAINING, 0.75)) is False
    assert ledger.outcome(TRAINING.key) == outcome_of(TRAINING, 0.25)
    assert list(ledger.outcomes()) == [outcome_of(TRAINING, 0.25)]


finite = st.floats(allow_nan=False, allow_infinity=False)
score = st.floats(-1e6, 1e6)


@given(
    validation=st.none() | score,
    test=st.none() | score,
    losses=st.lists(st.none() | finite, max_size=3),
    seconds=st.floats(0, 1e10),
    host=st.text(st.characters(codec="utf-8"), max_size=9),
    ended=st.none()
    | st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)).filter(
        lambda time: time.year < 3000
    ),
)
def test_an_outcome_comes_back_as_it_was_written(
    validation: float | None,
    test: float | None,
    losses: list[float | None],
    seconds: float,
    host: str,
    ended: datetime | None,
) -> None:
    epochs = tuple(
        Epoch(epoch=i + 1, train_loss=loss, validation=None, validation_loss=loss)
        for i, loss in enumerate(losses)
    )
    outcome = outcome_of(TRAINING, 0.5).model_copy(
        update={
            "validation": None if validation is None else ValidationScore(validation),
            "test": None if test is None else TestScore(test),
            "epochs": epochs,
            "digests": {"checkpoints/a": host},
            "cost": Cost(seconds=seconds, ended=ended, device=host, host=host),
        }
    )
    ledger = memory_ledger(RESOLVED)
    ledger.write_outcome(outcome)
    assert ledger.outcome(TRAINING.key) == outcome


@pytest.mark.parametrize("year", [1970, 3500])
def test_an_outcome_of_a_worker_whose_clock_is_wrong_loses_its_times_alone(year: int) -> None:
    outcome, wrong = outcome_of(TRAINING, 0.5), datetime(year, 1, 1, tzinfo=UTC)
    # As a worker tells it, unchecked.
    cost = outcome.cost.model_copy(update={"started": wrong, "ended": wrong})
    ledger = memory_ledger(RESOLVED)
    ledger.write_outcome(outcome.model_copy(update={"cost": cost}))
    assert ledger.outcome(TRAINING.key) == outcome


def race(folder: Path, name: str, keys: int, start: Any, results: Any) -> None:
    """Commit an outcome under each of `keys` names at the same time as another process."""
    ledger = Ledger(folder)
    won = []
    for number in range(keys):
        cost = Cost(seconds=1, device="cpu", host=name)
        outcome = outcome_of(TRAINING, 0.5, cost=cost).model_copy(update={"key": f"{number:024x}"})
        start.wait()
        won.append(ledger.write_outcome(outcome))
    results.put((name, won))


def test_of_two_processes_that_commit_at_once_exactly_one_wins(tmp_path: Path) -> None:
    ready(tmp_path)
    keys = 200
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=race, args=(tmp_path, name, keys, start, results))
        for name in ("one", "two")
    ]
    for racer in racers:
        racer.start()
    won = dict(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    for number in range(keys):
        winners = [name for name in won if won[name][number]]
        assert len(winners) == 1
        stands = json.loads((tmp_path / "outcomes" / f"{number:024x}.json").read_text())
        assert stands["cost"]["host"] == winners[0]
    assert len(files_in(tmp_path / "outcomes")) == keys  # and no temporary file is left


def test_files_that_a_crash_left_behind_are_no_outcomes(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    ledger.write_outcome(outcome_of(TRAINING))
    torn = tmp_path / "outcomes" / f".{KEY}.json.host-1-0123abcd.tmp"
    torn.write_bytes(b'{"key": "abc", "trai')
    (tmp_path / "attempts" / KEY).mkdir()
    (tmp_path / "attempts" / KEY / ".1.json.host-1-0123abcd.tmp").write_bytes(b"{")
    (tmp_path / "attempts" / ".stray").write_bytes(b"")
    assert set(ledger.results()) == {TRAINING.key}
    assert ledger.attempts() == {}
    assert ledger.write_outcome(outcome_of(TRAINING).model_copy(update={"key": KEY}))


def test_an_outcome_of_another_kdsearch_is_named_and_no_launch_goes_on_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = ready(tmp_path)
    path = tmp_path / "outcomes" / f"{KEY}.json"
    path.write_text("{}")
    assert list(ledger.outcomes()) == []
    assert f"outcomes/{KEY}.json: has an unknown form: key: Field required" in caplog.text
    path.write_text('{"of_tomorrow": 1}')
    for read in (lambda: list(ledger.outcomes()), ledger.sweep):
        with pytest.raises(InputError, match=rf"outcomes/{KEY}\.json: is not an outcome of this"):
            read()


class Crash(BaseException):
    """The process ends here."""


class CrashingDisk(OsDisk):
    """The real disk, on which the process dies at the call number `at`, before or after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self._left = at
        self._after = after

    def write(self, path: Path, content: bytes) -> None:
        self._step(lambda: super(CrashingDisk, self).write(path, content))

    def link(self, source: Path, target: Path) -> bool:
        return bool(self._step(lambda: super(CrashingDisk, self).link(source, target)))

    def remove(self, path: Path) -> None:
        self._step(lambda: super(CrashingDisk, self).remove(path))

    def _step(self, call: Any) -> object:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise Crash  # also for what would follow: a dead process does nothing
        result = call()
        if self._left == 0:
            raise Crash
        return result


class SyncedDisk(OsDisk):
    """The real disk, and which folders' names were made durable on it."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync(self, folder: Path) -> None:
        self.synced.append(folder)
        super().sync(folder)


def test_a_name_that_another_process_gave_is_made_durable_too(tmp_path: Path) -> None:
    ready(tmp_path)
    Ledger(tmp_path).write_outcome(outcome_of(TRAINING, 0.25))
    disk = SyncedDisk()
    assert not Ledger(tmp_path, disk).write_outcome(outcome_of(TRAINING, 0.75))
    assert tmp_path / "outcomes" in disk.synced


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_at_any_call_leaves_a_whole_outcome_or_none(
    tmp_path: Path, at: int, after: bool
) -> None:
    ready(tmp_path)
    with pytest.raises(Crash):
        Ledger(tmp_path, CrashingDisk(at, after=after)).write_outcome(outcome_of(TRAINING, 0.25))
    committed = (at, after) in [(2, True), (3, False), (3, True)]
    ledger = Ledger(tmp_path)
    assert ledger.outcome(TRAINING.key) == (outcome_of(TRAINING, 0.25) if committed else None)
    assert ledger.write_outcome(outcome_of(TRAINING, 0.75)) is not committed


# -- attempts ----------------------------------------------------------------------------------


def test_attempts_are_numbered_in_their_order(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    for message in "first", "second", "third":
        ledger.write_attempt(attempt_at(KEY, message))
    found = ledger.attempts_of(KEY)
    assert [(a.number, a.message) for a in found] == [(1, "first"), (2, "second"), (3, "third")]
    assert ledger.attempts() == {KEY: found}
    assert files_in(tmp_path / "attempts" / KEY) == ["1.json", "2.json", "3.json"]


@pytest.mark.parametrize("told", ["1970-01-01T00:00:00Z", "2026-05-01T12:00:00", "soon", 1e300])
def test_a_try_at_a_time_that_cannot_be_read_is_read_without_it(
    tmp_path: Path, told: object
) -> None:
    ledger = ready(tmp_path)
    ledger.write_attempt(attempt_at(KEY))
    [attempt] = ledger.attempts_of(KEY)
    path = tmp_path / "attempts" / KEY / "1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": told}))
    assert ledger.attempts_of(KEY) == [attempt.model_copy(update={"ended": None})]


def test_a_training_has_failed_for_good_after_as_many_tries_as_the_study_says(
    tmp_path: Path,
) -> None:
    ledger = ready(tmp_path)
    ledger.write_attempt(attempt_at(KEY))
    assert ledger.results() == {}
    ledger.write_attempt(attempt_at(KEY))
    assert ledger.results() == {KEY: None}


def test_a_later_outcome_overrules_failed_attempts(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    for _ in range(2):
        ledger.write_attempt(attempt_at(TRAINING.key))
    ledger.write_outcome(outcome_of(TRAINING))
    assert ledger.results() == {TRAINING.key: outcome_of(TRAINING)}


# -- the study and its rows ----------------------------------------------------------------------


def test_the_study_comes_back_as_it_was_written_and_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.prepare()
    assert not ledger.exists
    ledger.write_resolved(RESOLVED)
    ledger.write_resolved(resolved_of(a_study(seed=9)))
    assert ledger.exists
    assert ledger.resolved() == RESOLVED


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        Ledger(tmp_path).resolved()


def test_a_study_that_was_damaged_is_refused(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    (tmp_path / "resolved.json").write_text('{"format": 1')
    with pytest.raises(InputError, match=r"resolved\.json: cannot be read"):
        ledger.resolved()


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5))
def test_rows_come_back_as_they_were_written_whatever_their_text(texts: list[str]) -> None:
    ledger = memory_ledger(RESOLVED)
    rows = [{"texts": [text, "a\u2028b\x85c\x0bd"], "label": 1} for text in texts]
    ledger.write_rows(digest_rows(rows), rows)
    assert ledger.rows(digest_rows(rows)) == rows


@pytest.mark.parametrize(
    "damage", [b"", b'{"label": 1}\n', b'{"label": NaN}\n', b"\xff\n", b"[" * 9999]
)
def test_rows_that_are_not_those_of_their_digest_are_not_read(
    tmp_path: Path, damage: bytes
) -> None:
    ledger = ready(tmp_path)
    rows: list[Row] = [{"label": 0}, {"label": 1}]
    digest = digest_rows(rows)
    ledger.write_rows(digest, rows)
    path = tmp_path / "data" / f"{digest}.jsonl"
    path.write_bytes(damage)
    with pytest.raises(InputError, match=f"{path}: (has the digest|holds no rows)"):
        ledger.rows(digest)


def test_a_derived_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    ledger.write("report/index.html", "old")
    ledger.write("report/index.html", "new")
    assert (tmp_path / "report" / "index.html").read_text() == "new"
    assert files_in(tmp_path / "report") == ["index.html"]


def test_a_whole_search_on_a_real_disk_is_that_in_memory(tmp_path: Path) -> None:
    world = World(seed=1, failing=0.05)
    on_disk = search_through(RESOLVED, ready(tmp_path), world)
    in_memory = search_through(RESOLVED, memory_ledger(RESOLVED), world)
    assert on_disk.views() == in_memory.views()
    assert Ledger(tmp_path).results() == in_memory.results


# -- disks that cannot hold it -------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 KiB of its own."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to `path` for as long as there is room."""
    with path.open("wb") as file:
        while True:
            file.write(bytes(1024))
            file.flush()


def test_a_full_disk_is_named_with_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        ledger = ready(tmp_path)
        ledger.write_outcome(outcome_of(TRAINING))
        with pytest.raises(OSError, match="No space"):
            fill(tmp_path / "ballast")
        late = outcome_of(TRAINING, digests={str(i): "x" * 100 for i in range(100)})
        with pytest.raises(StorageError, match="the disk is full; make room and launch again"):
            ledger.write_outcome(late.model_copy(update={"key": KEY}))
        assert ledger.results() == {TRAINING.key: outcome_of(TRAINING)}
        assert files_in(tmp_path / "outcomes") == [f"{TRAINING.key}.json"]
        (tmp_path / "ballast").unlink()
        assert ledger.write_outcome(late.model_copy(update={"key": KEY}))


def test_a_read_only_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        ledger = ready(tmp_path)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        advice = "the disk is read-only; give a writable folder: --folder DIR"
        with pytest.raises(StorageError, match=advice):
            ledger.prepare()
        with pytest.raises(StorageError, match=advice):
            ledger.write_outcome(outcome_of(TRAINING))
        with pytest.raises(StorageError, match=advice):
            Ledger(tmp_path / "new").prepare()
        with pytest.raises(StorageError, match=advice), driver_lock(tmp_path):
            pass


class DiskWithoutLinks(OsDisk):
    """A disk on which files have one name only, as an object store that is mounted."""

    def link(self, source: Path, target: Path) -> bool:
        from kdsearch.ledger import storage_error

        raise storage_error(target, PermissionError(1, "Operation not permitted"))


def test_storage_without_hard_links_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"has no hard links.*use a local disk, NFS, Lustre"):
        Ledger(tmp_path, DiskWithoutLinks()).prepare()
    assert not [name for name in files_in(tmp_path) if name.startswith(".probe")]


# -- one driver --------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from kdsearch.ledger import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that drives the study."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.undisturbed
def test_a_second_driver_is_refused_by_name_and_a_dead_one_frees_the_folder_at_once(
    tmp_path: Path,
) -> None:
    with another_driver(tmp_path) as holder:
        words = f"driven by process {holder.pid} on {socket.gethostname()} since "
        with pytest.raises(InputError, match=words), driver_lock(tmp_path):
            pass
        found = driver_of(tmp_path)
        assert found is not None
        assert found["pid"] == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert driver_of(tmp_path) is None
        start = time.monotonic()
        with driver_lock(tmp_path):
            found = driver_of(tmp_path)
            assert found is not None
            assert found["pid"] == os.getpid()
        assert time.monotonic() - start < 2


def test_a_driver_that_ends_leaves_the_folder_free(tmp_path: Path) -> None:
    for _ in range(2):
        with driver_lock(tmp_path):
            assert driver_of(tmp_path) is not None
        assert driver_of(tmp_path) is None


def note_of_elsewhere(folder: Path, beat: int = 0) -> None:
    note = {"host": "elsewhere", "pid": 7, "since": "2024-01-12T10:00:00", "beat": beat}
    temporary = folder / "note"
    temporary.write_text(json.dumps(note))
    temporary.replace(folder / "driver.json")


def test_a_driver_elsewhere_whose_heart_stands_still_is_relieved_after_the_lease(
    tmp_path: Path,
) -> None:
    note_of_elsewhere(tmp_path)
    start = time.monotonic()
    with driver_lock(tmp_path, lease=0.5):
        assert time.monotonic() - start >= 0.5
        found = driver_of(tmp_path)
        assert found is not None
        assert found["host"] == socket.gethostname()


def test_a_driver_elsewhere_whose_heart_beats_keeps_the_folder(tmp_path: Path) -> None:
    note_of_elsewhere(tmp_path)
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.05):
            count += 1
            note_of_elsewhere(tmp_path, count)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        words = "driven by process 7 on elsewhere since 2024-01-12T10:00:00"
        with pytest.raises(InputError, match=words), driver_lock(tmp_path, lease=5):
            pass
    finally:
        stop.set()
        heart.join()


@pytest.mark.undisturbed
def test_a_driver_elsewhere_that_ends_frees_the_folder_before_the_lease(tmp_path: Path) -> None:
    note_of_elsewhere(tmp_path)
    end = threading.Timer(0.3, (tmp_path / "driver.json").unlink)
    end.start()
    start = time.monotonic()
    with driver_lock(tmp_path, lease=30):
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"host": "elsewhere"}', '{"pid": 1}'])
def test_a_damaged_note_keeps_nobody_out(tmp_path: Path, note: str) -> None:
    (tmp_path / "driver.json").write_text(note)
    driver_of(tmp_path)
    with driver_lock(tmp_path, lease=0.2):
        assert driver_of(tmp_path) is not None
    assert driver_of(tmp_path) is None


def test_a_beat_that_a_full_disk_does_not_take_leaves_nothing(tmp_path: Path) -> None:
    with driver_lock(tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # every write fails
        try:
            time.sleep(HEARTBEAT_SECONDS + 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.glob("*.tmp"))
        assert not list(tmp_path.glob(".*.tmp"))


def test_the_heart_of_a_driver_beats(tmp_path: Path) -> None:
    with driver_lock(tmp_path):
        first = driver_of(tmp_path)
        deadline = time.monotonic() + 10
        while driver_of(tmp_path) == first and time.monotonic() < deadline:
            time.sleep(0.1)
        assert driver_of(tmp_path) != first


@pytest.mark.undisturbed
def test_a_driver_that_was_relieved_while_it_was_silent_is_told_and_leaves_the_others_note(
    tmp_path: Path,
) -> None:
    told = threading.Event()
    with driver_lock(tmp_path, taken_over=told.set):
        note = json.loads((tmp_path / "driver.json").read_text())
        other = {**note, "host": "elsewhere", "id": "another"}
        (tmp_path / "driver.json").write_text(json.dumps(other))
        assert told.wait(timeout=15)
    assert json.loads((tmp_path / "driver.json").read_text()) == other


def test_whether_a_driver_elsewhere_lives_does_not_hang_on_anyones_clock(tmp_path: Path) -> None:
    note = {"host": "elsewhere", "pid": 1, "since": "2001-01-01T00:00:00", "id": "x"}
    over = threading.Event()

    def live(folder: Path, jump: int, beats: bool) -> None:
        count = 0
        while not over.is_set():
            count += beats
            temporary = folder / "new"
            temporary.write_text(json.dumps({**note, "beat": count}))
            os.utime(temporary, (time.time() + jump, time.time() + jump))
            temporary.replace(folder / "driver.json")
            over.wait(1)

    cases = list(product((-3600, 3600), (True, False)))
    with ThreadPoolExecutor(2 * len(cases)) as pool:
        seen = {}
        for jump, beats in cases:
            folder = tmp_path / f"{jump} {beats}"
            folder.mkdir()
            pool.submit(live, folder, jump, beats)
            while not (folder / "driver.json").exists():
                time.sleep(0.01)
            seen[jump, beats] = pool.submit(driver_of, folder)
        found = {case: there.result() for case, there in seen.items()}
        over.set()
    assert {case for case, driver in found.items() if driver} == {(-3600, True), (3600, True)}
