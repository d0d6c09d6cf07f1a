from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from kdsearch.study import Resources

if TYPE_CHECKING:  # what trains is tested on machines without ray too
    from kdsearch.engine.ray_tune import Cluster

SLOTS = 2
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
