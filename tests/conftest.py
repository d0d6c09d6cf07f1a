from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from fakes import free_ports, until
from hypothesis import HealthCheck, settings

from kdsearch.study import Resources

if TYPE_CHECKING:  # what trains is tested on machines without ray too
    from kdsearch.engine.ray_tune import Cluster

SLOTS = 2
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""Of the Rays that are not this process's own."""
ALL = bool(os.environ.get("KDSEARCH_TEST_ALL"))
"""Whether this is `make test-all`."""


def portion(whole: int, part: int) -> int:
    """How many of what is drawn a test tries: all in `make test-all`, a part otherwise."""
    return whole if ALL else part


# A shell starts background jobs with SIGINT ignored, and so would be the commands that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a machine that is busy with other tests takes says nothing of ours.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Ray would have its workers come after the tests that `make test` runs beside these, niced.
os.environ.setdefault("RAY_worker_niceness", "0")

# Ray's workers import the made-up trainings of fakes.py, as this process does.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real local Ray with two slots, shared by the tests that need one."""
    from kdsearch.engine.ray_tune import connect

    half = Resources(cpus=(os.cpu_count() or SLOTS) / SLOTS, gpus=0)
    with connect(None, resources=half, threads=1) as found:
        yield found


@pytest.fixture(scope="session")
def there(cluster: Cluster) -> str:
    """The address of that Ray, for processes of their own."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray cluster that someone else has started, of one slot."""
    output = tmp_path_factory.mktemp("ray") / "ray.log"
    [port] = free_ports(1)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1"]
    # Short, as sockets lie in it.
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        command += [f"--temp-dir={scratch}", "--include-dashboard=false"]
        with output.open("wb") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | TOKEN)
        try:
            until(lambda: head.poll() is not None or b"will now block" in output.read_bytes())
            assert head.poll() is None, output.read_text()
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(timeout=30)


@pytest.fixture(scope="session")
def copy_of_searched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Makes a copy of the folder of a task's `task_study`, which was searched once for all."""

    @cache
    def searched(task: str) -> Path:
        from models import begin, run_study, task_study

        from kdsearch.distill import run_training

        ledger, agenda = begin(tmp_path_factory.mktemp(task) / "run", task_study(task))
        run_study(ledger, agenda, run_training)
        return ledger.folder

    def copied(task: str, to: Path) -> Path:
        shutil.copytree(searched(task), to)
        return to

    return copied


def pytest_report_header() -> str:
    return f"slow tests and whole property tests: {'yes' if ALL else 'no, make test-all has them'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is slow to `make test-all`."""
    slow = [] if ALL else [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """`make test-all`: a test that is skipped for want of something fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and ALL:
        report.outcome = "failed"
    return report
