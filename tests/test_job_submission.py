"""A search on a cluster that is met through the dashboard of a real Ray alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import TOKEN
from fakes import free_ports, until
from test_ray import SHORT, TINY, wait_for_outcomes

from kdsearch.cli.automatic import versions
from kdsearch.cli.job import _MOST_SHORT_JOBS, _forget_old
from kdsearch.cli.submission import is_search, job_names
from kdsearch.engine.ray_tune.jobs import Job, Jobs

pytestmark = pytest.mark.undisturbed

BIN = Path(sys.executable).parent
GENERATED = "grammar: {grammar: {train: 200, validation: 60, test: 60}}"
READ = "grammar: {files: {train: data/rows.csv}, text: text, label: label, labels: ['no', 'yes']}"
STUDY = TINY.replace(GENERATED, READ).replace("alpha: [1, 0.5]", "alpha: [1, 0.8, 0.6, 0.4, 0.2]")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a Ray of two slots that asks for a token and has kdsearch in its PATH."""
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    gcs, page, agent, client = free_ports(4)
    command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=true"]
    command += [f"--port={gcs}", f"--dashboard-port={page}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}"]
    path = f"{BIN}:{os.environ['PATH']}"
    environment = os.environ | TOKEN | {"PATH": path, "RAY_memory_monitor_refresh_ms": "0"}
    # Short, as sockets lie in it.
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        command += [f"--temp-dir={scratch}"]
        with log.open("wb") as file:
            head = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            until(lambda: head.poll() is not None or b"will now block" in log.read_bytes())
            assert head.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{page}"
        finally:
            head.terminate()
            head.wait(timeout=30)


@dataclass(frozen=True)
class Laptop:
    """A machine that has the study and its data, and knows the dashboard and the token."""

    folder: Path
    dashboard: str

    def started(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kdsearch", *arguments, "--address", self.dashboard],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            # Ray's own client would follow RAY_ADDRESS, whatever address it is given.
            env=os.environ | TOKEN | {"RAY_ADDRESS": "127.0.0.1:1"} | environment,
        )

    def kdsearch(self, *arguments: str) -> str:
        process = self.started(*arguments)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        return output

    @property
    def run(self) -> str:
        return str(self.folder / "run")

    def launch(self, *options: str) -> tuple[str, ...]:
        return ("launch", "tiny.yaml", "--folder", self.run, *options)

    def jobs(self, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
        header = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
        monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps(header))
        return Jobs(self.dashboard, "--address").named("kdsearch-")


@pytest.fixture
def laptop(tmp_path: Path, dashboard: str) -> Laptop:
    rows = [f"word {number},{'yes' if number % 2 else 'no'}" for number in range(320)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("\n".join(["text,label", *rows, ""]))
    (tmp_path / "data" / "other.csv").write_text("not for the cluster")
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return Laptop(tmp_path, dashboard)


def test_a_search_is_submitted_and_followed_and_its_report_brought_home(laptop: Laptop) -> None:
    (laptop.folder / "tiny.yaml").write_text(SHORT.replace(GENERATED, READ))
    output = laptop.kdsearch(*laptop.launch())
    assert f"submitting {job_names(laptop.run)}1" in output
    assert "data/rows.csv" in output
    assert "other.csv" not in output
    assert "The study is complete" in output
    assert "downloaded: home/report.html" in laptop.kdsearch("report", laptop.run, "--to", "home")
    for name in ("report.html", "report.json"):
        there = (laptop.folder / "run" / "report" / name).read_bytes()
        assert (laptop.folder / "home" / name).read_bytes() == there


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_is_submitted_left_joined_stopped_gone_on_with_and_brought_home(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = job_names(laptop.run)

    said = laptop.kdsearch(*laptop.launch("--detach", "--max-slots", "1"))
    assert f"submitting {start}1" in said
    assert "data/rows.csv" in said
    assert "other.csv" not in said
    assert f"kdsearch stop {laptop.run} --address {laptop.dashboard}" in said

    joined = laptop.started(*laptop.launch())
    wait_for_outcomes(laptop.folder, 2, joined)
    assert "asked process" in laptop.kdsearch("stop", laptop.run, "--drain")
    output, _ = joined.communicate(timeout=120)
    assert joined.returncode == 0, output  # to try it again would change nothing
    assert f"joining {start}1" in output
    assert "its study, data or options differ from those given now" in output  # --max-slots
    assert "it was asked to stop" in output
    assert "stopped; launch it again to go on" in laptop.kdsearch("status", laptop.run)

    output = laptop.kdsearch(*laptop.launch())
    assert f"submitting {start}2" in output
    assert re.search(r"resuming: \d+ trainings already done", output)
    assert "The study is complete" in output
    assert "Running entrypoint" not in output

    found = {job.name: job for job in laptop.jobs(monkeypatch) if is_search(job.name)}
    assert set(found) == {f"{start}1", f"{start}2"}
    for job in found.values():
        facts = {"kdsearch_study": "tiny", "kdsearch_cases": "1", "kdsearch_folder": laptop.run}
        assert {**facts, **versions(), "job_name": "kdsearch tiny"}.items() <= job.metadata.items()
        assert "study" not in job.metadata
        assert job.state == "SUCCEEDED"
        assert TOKEN["RAY_AUTH_TOKEN"] not in repr(job)

    assert "The study is complete" in laptop.kdsearch("logs", laptop.run)
    assert "downloaded: home/report.html" in laptop.kdsearch("report", laptop.run, "--to", "home")
    for name in ("report.html", "report.json"):
        there = (laptop.folder / "run" / "report" / name).read_bytes()
        assert (laptop.folder / "home" / name).read_bytes() == there

    output = laptop.kdsearch("export", laptop.run, "grammar", "--best-so-far", "--to", "student")
    assert output.endswith("downloaded to student\n")
    assert "written to" not in output  # where it was for a moment, on the cluster
    kept = (laptop.folder / "run" / "students").glob("*/model.safetensors")
    exported = (laptop.folder / "student" / "model.safetensors").read_bytes()
    assert exported in [path.read_bytes() for path in kept]
    assert (laptop.folder / "student" / "README.md").exists()


def test_of_the_jobs_that_looked_at_a_folder_the_newest_stay_in_the_list(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
    monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps(header))
    jobs, start = Jobs(laptop.dashboard, "--address"), job_names(laptop.run)
    names = [f"{start}status-{number:08x}" for number in range(_MOST_SHORT_JOBS + 2)]
    for name in [f"{start}1", *names]:
        jobs.submit("true", name, {})
    for name in names:
        until(lambda name=name: jobs.job(name).ended, 60)
    _forget_old(jobs, start)
    kept = {job.name for job in jobs.named(start)}
    assert kept == {f"{start}1", *names[2:]}


def test_a_command_that_fails_on_the_cluster_fails_here_with_its_words(laptop: Laptop) -> None:
    process = laptop.started("status", "/nowhere")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == (
        "kdsearch: /nowhere: is not a folder (give the folder that `kdsearch launch` printed)\n"
    )


def test_a_cluster_that_asks_for_a_token_says_so(laptop: Laptop) -> None:
    process = laptop.started("status", laptop.run, RAY_AUTH_MODE="disabled")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"--address {laptop.dashboard}: asks for a token" in output
    assert "ray get-auth-token" in output
