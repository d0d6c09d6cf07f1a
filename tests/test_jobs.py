"""What a launch on a cluster far away is made of, and what its exit code says to schedulers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer
from fakes import FakeDashboard, listening, until
from hypothesis import given
from hypothesis import strategies as st
from ray.job_submission import JobStatus
from test_analysis import blocked_study, failing_teacher, searched
from test_cli import Ended, ended, kdsearch, refused, started, tiny

from kdsearch.cli.automatic import (
    exit_code,
    in_job,
    launched_by_person,
    stopped_by_person,
    versions,
)
from kdsearch.cli.deliver import Delivery, delivery, packed, received
from kdsearch.cli.job import _exit_as
from kdsearch.cli.submission import (
    NextJob,
    cluster_path,
    job_names,
    next_job,
    options_there,
    package,
)
from kdsearch.engine.ray_tune.jobs import ENDED, Job, Jobs
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_lock
from kdsearch.study import Study, parse_study, travelling_files

DASHBOARD = "http://127.0.0.1:1"
NUMBERS = st.dictionaries(st.integers(1, 99), st.booleans(), max_size=6)


# -- which job -------------------------------------------------------------------------------------


def test_every_state_of_a_ray_job_is_known_as_ended_or_not() -> None:
    assert {str(status): status.is_terminal() for status in JobStatus} == ENDED


@given(NUMBERS)
def test_a_launch_joins_a_job_that_is_alive_and_else_submits_under_a_new_number(
    ended: dict[int, bool],
) -> None:
    start = job_names("/shared/runs/x")
    found = next_job(start, {f"{start}{number}": over for number, over in ended.items()})
    alive = {f"{start}{number}" for number, over in ended.items() if not over}
    if alive:
        assert found.joins
        assert found.name in alive
    else:
        assert found == NextJob(f"{start}{max(ended, default=0) + 1}", joins=False)


def test_a_command_that_looks_at_a_folder_is_no_search_to_join() -> None:
    start = job_names("/shared/runs/x")
    assert next_job(start, {f"{start}status-0a1b2c3d": False}) == NextJob(f"{start}1", joins=False)


def test_the_names_of_jobs_go_by_the_folder() -> None:
    assert job_names("/shared/runs/x/") == job_names("/shared//runs/./x")
    assert job_names("/shared/runs/x") != job_names("/shared/runs/y")


# -- what goes along -------------------------------------------------------------------------------


def study_of(files: dict[str, Any], **sections: Any) -> Study:
    dataset = {"files": files, "text": "text", "label": "label", "labels": ["no", "yes"]}
    return parse_study({"name": "x", **tiny(datasets={"d": dataset}, **sections)}, place="x.yaml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("a.csv", "b-1.csv", "b-2.csv", "secret.env"):
        (tmp_path / "data" / name).write_text("text,label\nx,no\n")
    return tmp_path


def test_the_files_that_a_study_names_relatively_go_along_and_no_others(here: Path) -> None:
    files = {
        "train": ["./data/a.csv", "data/b-*.csv"],
        "validation": "/shared/data/dev.csv",
        "test": {"text": "~/test.txt", "label": "data/a.csv"},
    }
    (here / "x.yaml").write_text("what it says")
    found = package(here / "x.yaml", study_of(files))
    assert set(found.files) == {"x.yaml", "data/a.csv", "data/b-1.csv", "data/b-2.csv"}
    found.write(here / "first.zip")
    with zipfile.ZipFile(here / "first.zip") as file:
        assert set(file.namelist()) == set(found.files)
        assert file.read("data/a.csv") == (here / "data" / "a.csv").read_bytes()


def test_a_package_is_the_same_to_the_byte_until_what_is_in_it_changes(here: Path) -> None:
    (here / "x.yaml").write_text("what it says")
    study = study_of({"train": "data/a.csv"})
    package(here / "x.yaml", study).write(here / "first.zip")
    before = package(here / "x.yaml", study).digest
    os.utime(here / "data" / "a.csv", (1, 1))
    package(here / "x.yaml", study).write(here / "second.zip")
    assert (here / "first.zip").read_bytes() == (here / "second.zip").read_bytes()
    assert package(here / "x.yaml", study).digest == before
    (here / "data" / "a.csv").write_text("text,label\ny,no\n")
    assert package(here / "x.yaml", study).digest != before


def test_a_folder_that_datasets_saved_goes_along_with_its_notes(here: Path) -> None:
    saved = here / "saved"
    saved.mkdir()
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    for name in ("d.arrow", "dataset_info.json", "notes.txt"):
        (saved / name).touch()
    found = travelling_files(study_of({"train": "saved"}), "x.yaml")
    assert {path.name for path in found} == {"d.arrow", "state.json", "dataset_info.json"}


@pytest.mark.parametrize("name", ["../b-1.csv", "/etc/passwd", "more/rows.arrow"])
def test_a_saved_folder_takes_nothing_along_that_is_not_its_own(here: Path, name: str) -> None:
    saved = here / "data" / "saved"
    saved.mkdir()
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match=f"state.json: names {name}, which is not a file in this"):
        travelling_files(study_of({"train": "data/saved"}), "x.yaml")


def test_what_cannot_go_along_is_said_all_at_once_with_what_to_give(here: Path) -> None:
    with (here / "data" / "large.csv").open("wb") as file:
        file.truncate(51_000_000)
    files = {"train": ["data/large.csv", "data/gone.csv"], "test": "../test.csv"}
    models = {**tiny()["models"], "big": "./models/big"}
    with pytest.raises(InputError) as error:
        travelling_files(study_of(files, models=models), "x.yaml")
    words = [str(problem) for problem in error.value.problems]
    assert len(words) == 4
    for place, what in (
        ("models.big", "models are not sent along"),
        ("gone.csv", "no such file here"),
        ("../test.csv", "lies outside"),
        ("data/large.csv", "has 51 MB.*at most 50 MB is sent along.*give its absolute path"),
    ):
        with pytest.raises(InputError, match=f"{place}.*{what}"):
            raise error.value


@pytest.mark.parametrize("path", [None, Path("runs/x"), Path("../x")])
def test_a_folder_of_the_cluster_is_given_by_an_absolute_path(path: Path | None) -> None:
    with pytest.raises(InputError, match=r"--folder.*absolute path on storage that every node"):
        cluster_path(path, "--folder")


def given_options(**options: Any) -> list[str]:
    none: dict[str, Any] = {
        "data_dir": None,
        "models": [],
        "max_slots": None,
        "optuna": None,
        "deadline": None,
        "accept_changes": False,
    }
    return options_there(**{**none, **options})


def test_the_options_of_a_launch_are_those_of_its_job() -> None:
    assert given_options() == []
    assert given_options(
        data_dir=Path("/shared/data"),
        models=["a=/shared/a", "b=org/b"],
        max_slots=8,
        optuna="sqlite:////shared/x.db",
        deadline="11h",
        accept_changes=True,
    ) == [
        "--data-dir=/shared/data",
        "--model=a=/shared/a",
        "--model=b=org/b",
        "--max-slots=8",
        "--optuna=sqlite:////shared/x.db",
        "--deadline=11h",
        "--accept-changes",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data_dir": Path("data")}, "--data-dir data: is a path on this machine"),
        ({"optuna": "postgresql://me:hush@host/db"}, "has a password"),
        ({"optuna": "sqlite:///x.db"}, "--optuna x.db: is a path on this machine"),
        ({"optuna": "@url.txt"}, "--optuna url.txt: is a path on this machine"),
        ({"models": ["a"]}, "is not NAME=PATH"),
    ],
)
def test_an_option_that_means_this_machine_or_holds_a_secret_is_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        given_options(**options)
    assert "hush" not in str(error.value)


# -- what comes home -------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [7, 10**6])
def test_a_folder_comes_home_as_it_was_in_parts_and_without_links(
    tmp_path: Path, part_bytes: int
) -> None:
    there, scratch, home = tmp_path / "there", tmp_path / "scratch", tmp_path / "home"
    (there / "tables").mkdir(parents=True)
    (there / "report.html").write_bytes(b"page" * 20)
    (there / "tables" / "a.csv").write_bytes(b"1,2")
    (there / "empty").touch()
    (there / "link").symlink_to("/etc/hostname")
    scratch.mkdir()
    found = packed(there, scratch, part_bytes)
    assert delivery(found.line()) == found
    sizes = [(tmp_path / name).stat().st_size for name in found.parts]
    assert all(size == part_bytes for size in sizes[:-1])
    received(found, fetch_from(tmp_path), home)
    names = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert names == {"report.html", "tables/a.csv", "empty"}
    assert (home / "report.html").read_bytes() == b"page" * 20


def fetch_from(folder: Path) -> Callable[[str, Any], None]:
    return lambda name, to: to.write((folder / name).read_bytes())


def test_what_was_damaged_on_its_way_home_is_not_taken(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("report.html", "page")
    (tmp_path / "part").write_bytes(content.getvalue())
    found = Delivery(parts=["part"], sha256=hashlib.sha256(b"another").hexdigest())
    with pytest.raises(InputError, match="damaged"):
        received(found, fetch_from(tmp_path), tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_part_that_breaks_on_its_way_home_is_fetched_again(tmp_path: Path) -> None:
    there, scratch, home = tmp_path / "there", tmp_path / "scratch", tmp_path / "home"
    there.mkdir()
    (there / "report.html").write_bytes(b"page" * 20)
    scratch.mkdir()
    found = packed(there, scratch, 50)
    tries: list[str] = []

    def fetch(name: str, to: Any) -> None:
        content = (tmp_path / name).read_bytes()
        tries.append(name)
        if tries.count(name) < 3:
            to.write(content[:9])
            raise InputError.one(name, "broke")
        to.write(content)

    received(found, fetch, home, between=0)
    assert (home / "report.html").read_bytes() == b"page" * 20


def test_a_part_that_never_comes_ends_a_delivery_in_its_words(tmp_path: Path) -> None:
    def fetch(name: str, to: Any) -> None:
        raise InputError.one(name, "broke")

    with pytest.raises(InputError, match="part: broke"):
        received(Delivery(parts=["part"], sha256=""), fetch, tmp_path, between=0)


def test_a_delivery_that_is_stopped_while_it_packs_leaves_nothing(tmp_path: Path) -> None:
    there, logs = tmp_path / "there", tmp_path / "logs"
    there.mkdir()
    logs.mkdir()
    with (there / "model.safetensors").open("wb") as file:
        file.truncate(400_000_000)
    with (logs / "job.log").open("wb") as log:
        command = [sys.executable, "-m", "kdsearch", "deliver", str(there)]
        process = subprocess.Popen(command, stdout=log)
    until(lambda: any(logs.glob("kdsearch-*")))
    process.terminate()
    process.wait(timeout=60)
    assert not any(logs.glob("kdsearch-*"))


def test_a_line_of_a_log_is_no_delivery() -> None:
    assert delivery("kdsearch-delivery? no") is None


def test_outside_of_a_job_there_is_nobody_to_deliver_to(tmp_path: Path) -> None:
    refused(ended(started("deliver", tmp_path)), "is for jobs")


# -- following -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("skip", [0, 3, 8])
def test_a_log_is_followed_over_a_connection_that_breaks_and_nothing_is_said_twice(
    cut: int, skip: int
) -> None:
    shown: list[str] = []

    def show(text: str) -> bool:
        shown.append(text)
        return True

    ray = FakeDashboard(log=["one\n", "two\n", "three\n"], cut=cut, lasts=1)
    with ray.serving() as address:
        job = Jobs(address, "--address").follow("x", show, skip=skip)
    assert "".join(shown) == "one\ntwo\nthree\n"[skip:]
    assert (job.state, job.code, job.ended) == ("SUCCEEDED", 0, True)
    assert ray.connections == 2


def test_a_quiet_job_is_followed_over_one_connection_until_it_has_ended() -> None:
    shown: list[str] = []

    def show(text: str) -> bool:
        shown.append(text)
        return True

    ray = FakeDashboard(log=["one\n", "two\n", "three\n"], silent=True, lasts=4)
    with ray.serving() as address:
        job = Jobs(address, "--address").follow("x", show, quiet=0.05)
    assert "".join(shown) == "one\ntwo\nthree\n"
    assert job.ended
    assert ray.connections == 1


def test_what_has_seen_enough_of_a_log_is_told_no_more() -> None:
    shown: list[str] = []

    def show(text: str) -> bool:
        shown.append(text)
        return False

    with FakeDashboard(log=["one\n", "two\n"]).serving() as address:
        Jobs(address, "--address").follow("x", show)
    assert shown == ["one\n"]


def test_a_job_that_the_cluster_has_forgotten_is_not_followed_any_more() -> None:
    with FakeDashboard(gone=True).serving() as address:
        jobs = Jobs(address, "--address")
        with pytest.raises(InputError, match="no longer knows this job"):
            jobs.follow("x", lambda text: True)


def test_a_character_that_is_half_written_is_waited_for(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path / "run")
    log = ledger.folder / "launch.log"
    log.write_bytes("one\nα".encode()[:-1])
    with driver_lock(ledger.folder):
        process = started("logs", ledger.folder, "--follow")
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        with log.open("ab") as file:
            file.write("α\n".encode()[1:])
    assert ended(process).out == "α\n"


# -- what is said of an address --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("status",), ("stop",), ("report",), ("logs",), ("export", "case", "--to", "new")]
)
def test_a_dashboard_that_does_not_answer_is_named(command: tuple[str, ...], here: Path) -> None:
    name, *rest = command
    result = kdsearch(name, "/shared/runs/x", *rest, "--address", DASHBOARD)
    refused(result, f"--address {DASHBOARD}: does not answer like the dashboard of a Ray cluster")
    assert not (here / "new").exists()


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with listening() as address, pytest.raises(InputError, match="timed out"):
        Jobs(address, "--address")


def test_a_server_that_speaks_no_http_is_named_without_what_it_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x00\x00\x12\x04\x00\xff\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match="cluster: what answers does not speak HTTP "):
            Jobs(f"http://127.0.0.1:{server.getsockname()[1]}", "--address")


def test_a_server_that_answers_no_more_is_not_waited_for() -> None:
    with FakeDashboard().serving() as address:
        jobs = Jobs(address, "--address", patience=2)
        with pytest.raises(InputError, match="timed out"):
            jobs.named("kdsearch-")


def test_what_a_cluster_cannot_do_is_said_in_the_last_line_of_its_words() -> None:
    with FakeDashboard().serving() as address:
        jobs = Jobs(address, "--address")
        with pytest.raises(InputError, match="failed: RuntimeError: no agent is there ") as e:
            jobs.stop("x")
    assert "Traceback" not in str(e.value)


@pytest.mark.parametrize("headers", ["secret", '["secret"]', '{"secret": 1}'])
def test_headers_that_are_none_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, headers: str
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", headers)
    with pytest.raises(InputError, match=r"^RAY_JOB_HEADERS: ") as error:
        Jobs(DASHBOARD, "--address")
    assert "secret" not in str(error.value)


def job_that(**facts: Any) -> Job:
    none: dict[str, Any] = {"code": None, "message": "", "node": None}
    return Job(name="x", entrypoint="", metadata={}, **{**none, **facts})


@pytest.mark.parametrize(
    ("facts", "code", "words"),
    [
        ({"state": "SUCCEEDED", "code": 0}, 0, ""),
        ({"state": "FAILED", "code": 2}, 2, ""),
        ({"state": "FAILED", "code": -9}, 137, ""),
        ({"state": "STOPPED"}, 130, "kdsearch: x: was stopped"),
        (
            {
                "state": "FAILED",
                "message": "runtime_env setup failed: Traceback:\n  …\nNo space.\n",
            },
            1,
            "kdsearch: x: did not run: No space.",
        ),
        (
            {"state": "FAILED", "node": "a1", "message": "The actor died:\n\tIts node has died."},
            1,
            "kdsearch: x: ended without an exit code: Its node has died.",
        ),
    ],
)
def test_a_command_exits_as_its_job_did(
    facts: dict[str, Any], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Any = 0
    try:
        _exit_as(job_that(**facts))
    except typer.Exit as ended:
        found = ended.exit_code
    except SystemExit as ended:
        found = ended.code
    assert found == code
    assert capsys.readouterr().err.strip() == words


@pytest.mark.parametrize("address", ["auto", "head", "head:6379"])
def test_a_command_that_runs_on_a_cluster_wants_its_dashboard(address: str) -> None:
    result = kdsearch("status", "/x", "--address", address)
    refused(result, f"--address {address}: is not a dashboard's address", "give http://HEAD:8265")


def test_a_student_is_not_trained_by_a_job_that_brings_it(here: Path) -> None:
    code = ("--trust-remote-code", "big")
    result = kdsearch("export", "/x", "c", "--to", "new", "--address", DASHBOARD, *code)
    refused(result, "--trust-remote-code: does not go with --address")


def test_a_folder_of_this_machine_is_refused_before_the_cluster_is_asked() -> None:
    refused(kdsearch("report", "runs/x", "--address", DASHBOARD), "FOLDER runs/x")


def test_only_a_submitted_launch_can_be_left(here: Path) -> None:
    refused(kdsearch("launch", "x.yaml", "--address", "local", "--detach"), "--detach")


# -- what an exit code says ------------------------------------------------------------------------

RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def ray_job(**metadata: str) -> dict[str, str]:
    return {RAY_JOB: json.dumps({"metadata": {"job_submission_id": "x", **metadata}})}


@pytest.mark.parametrize(
    ("environment", "job", "launched", "stopped"),
    [
        ({}, False, True, True),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, False, True, True),  # a terminal there
        (ray_job(), True, False, True),  # as KubeRay submits it, for the first or the fourth time
        (ray_job(kdsearch="yes", training="mine"), True, False, True),  # anyone's own words
        (ray_job(**versions()), True, True, True),  # `kdsearch launch --address http://…`
        ({"KDSEARCH_BATCH": "1"}, True, True, False),
        ({"KDSEARCH_BATCH": "1", "SLURM_RESTART_COUNT": "1"}, True, False, False),
        # A Ray that was started in a job of Slurm's hands its environment on.
        ({"KDSEARCH_BATCH": "1", "SLURM_RESTART_COUNT": "1", **ray_job(**versions())}, *[True] * 3),
    ],
)
def test_who_launches_and_who_stops_is_told_by_the_environment(
    environment: dict[str, str], job: bool, launched: bool, stopped: bool
) -> None:
    assert in_job(environment) == job
    assert launched_by_person(environment) == launched
    assert stopped_by_person(environment) == stopped


@pytest.mark.parametrize(
    ("complete", "flawless", "stopped"), list(product([True, False], repeat=3))
)
def test_in_a_job_the_code_says_whether_the_same_command_would_change_anything(
    complete: bool, flawless: bool, stopped: bool
) -> None:
    facts = {"complete": complete, "flawless": flawless, "stopped": stopped}
    assert bool(exit_code(job=True, **facts)) == (not complete and not stopped)
    assert bool(exit_code(job=False, **facts)) == (not complete or not flawless)


def retried(folder: Path, study: Path, limit: int) -> list[Ended]:
    """What a scheduler does that retries what failed."""
    ends: list[Ended] = []
    while len(ends) <= limit and not (ends and ends[-1].code == 0):
        ends.append(kdsearch("launch", study, "--folder", folder, "--in-process"))
    return ends


def study_in(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "x.yaml"
    path.write_text(json.dumps(content))
    return path


def test_a_search_whose_trainings_failed_for_good_is_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, agenda = searched(tmp_path / "run", failing_teacher, blocked_study())
    assert agenda.complete
    study = study_in(tmp_path, {"name": "x", **blocked_study()})
    assert kdsearch("launch", study, "--folder", ledger.folder, "--in-process").code == 1
    monkeypatch.setenv(RAY_JOB, ray_job()[RAY_JOB])
    [once] = retried(ledger.folder, study, limit=3)
    assert "could not be searched" in once.err
    assert "report: " in once.out


def test_what_a_person_stopped_stays_stopped_through_retries_until_a_person_launches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = study_in(tmp_path, tiny(name="x")), tmp_path / "run"
    ledger = Ledger(run)
    ledger.prepare()
    ledger.ask_to_stop(drain=True, person=True)
    for environment in (ray_job(), {"KDSEARCH_BATCH": "1", "SLURM_RESTART_COUNT": "2"}):
        with monkeypatch.context() as job:
            for name, value in environment.items():
                job.setenv(name, value)
            [once] = retried(run, study, limit=3)
            assert "was asked to stop" in once.err
            assert ledger.stop_asked() == "drain"
    assert not ledger.exists
    monkeypatch.setenv(RAY_JOB, ray_job(**versions())[RAY_JOB])
    assert kdsearch("launch", study, "--folder", run, "--in-process").code == 0
    assert ledger.stop_asked() is None


def test_what_a_job_itself_stopped_goes_on_when_it_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = study_in(tmp_path, tiny(name="x")), tmp_path / "run"
    ledger = Ledger(run)
    ledger.prepare()
    ledger.ask_to_stop(drain=True, person=False)
    monkeypatch.setenv("KDSEARCH_BATCH", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    [once] = retried(run, study, limit=3)
    assert "nothing" not in once.err
    assert ledger.exists


def test_a_job_of_another_kdsearch_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RAY_JOB, ray_job(kdsearch_version="9.9", kdsearch_training="99")[RAY_JOB])
    refused(
        kdsearch("status", tmp_path),
        "submitted by kdsearch 9.9 with training code 99",
        "install the same version on both",
    )
