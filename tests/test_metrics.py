"""The figures of a search: their one table, the dashboard of them, and a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import TOKEN
from fakes import free_ports, until
from ray.util.metrics import Counter
from test_ray import TINY, launch, wait_for_outcomes

from kdsearch.agenda import STAGES, Agenda, best_so_far
from kdsearch.engine.ray_tune.metrics import METRICS, with_zeros
from kdsearch.ledger import Ledger

pytestmark = pytest.mark.undisturbed

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RARE = "ray_kdsearch_tries_failed_total"
"""What a search without a failure does not have."""


def exported(name: str) -> str:
    """The name of a metric in Prometheus."""
    return f"ray_{name}_total" if METRICS[name].kind is Counter else f"ray_{name}"


# -- the table and the dashboard ----------------------------------------------------------------


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(kdsearch_\w+)` \| (\w+) \| (.*?)\| (.+) \|$",
        (ROOT / "docs" / "watching.md").read_text(),
        re.MULTILINE,
    )
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", tags)), what) for name, kind, tags, what in rows
    }
    assert documented == {
        name: (metric.kind.__name__.lower(), metric.tags, metric.what)
        for name, metric in METRICS.items()
    }


def test_the_stages_in_the_docs_and_in_the_dashboard_are_those_of_the_code() -> None:
    text = " ".join((ROOT / "docs" / "watching.md").read_text().split())
    assert f"The stages, from 0: {', '.join(STAGES)}." in text
    [panel] = [panel for panel in DASHBOARD["panels"] if panel["type"] == "state-timeline"]
    [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
    assert mapping["options"] == {
        str(number): {"text": stage} for number, stage in enumerate(STAGES)
    }


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    named = {name for query in QUERIES for name in re.findall(r"ray_\w+", query)}
    assert named == {exported(name) for name in METRICS}
    assert all('study=~"$study"' in query for query in QUERIES)


def test_panels_of_the_dashboard_have_numbers_of_their_own_and_lie_beside_one_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_what_a_gauge_has_no_more_becomes_0_and_a_node_that_has_gone_is_then_forgotten() -> None:
    before = {("n1", "busy"): 2.0, ("n1", "idle"): 0.0, ("n2", "busy"): 1.0}
    once = with_zeros("kdsearch_slots", before, {("n2", "busy"): 1.0})
    assert once == {("n1", "busy"): 0, ("n2", "busy"): 1.0}
    assert with_zeros("kdsearch_slots", once, {("n2", "busy"): 1.0}) == {("n2", "busy"): 1.0}
    running = {("case", "student"): 0.0}
    assert with_zeros("kdsearch_trainings_running", running, {}) == running


# -- a real Prometheus on a real search ---------------------------------------------------------

STUDY = TINY.replace("epochs: 2", "epochs: 12").replace("[1, 0.5]", "[1, 0.8, 0.6, 0.4, 0.2, 0.1]")


@dataclass(frozen=True)
class Running:
    """A search that runs on a Ray cluster, and a Prometheus that looks at it."""

    search: subprocess.Popen[str]
    folder: Path
    dashboard: str
    prometheus: str

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers now: a list of series."""
        asked = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/query?{asked}") as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def number(self, query: str) -> float:
        """The one value that is the answer; -1 while there is none."""
        found = self.ask(query)
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else -1.0

    def of_ray(self, path: str) -> Any:
        """What Ray's dashboard answers."""
        token = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(self.dashboard + path, headers=token)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def agenda(self) -> Agenda:
        ledger = Ledger(self.folder)
        agenda = Agenda(ledger.resolved(), ledger.results())
        agenda.views()  # it knows the students of the steps that it has taken
        return agenda


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not shutil.which("prometheus"):
        pytest.skip("Prometheus is not installed")
    folder = tmp_path_factory.mktemp("metrics")
    ports = free_ports(5)
    stack = ExitStack()
    # Short, as sockets lie in it.
    scratch = stack.enter_context(TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
    head = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    head += ["--node-ip-address=127.0.0.1", f"--port={ports[0]}", "--num-cpus=1"]
    head += [f"--temp-dir={scratch}", "--disable-usage-stats"]
    head += [f"--dashboard-port={ports[1]}", f"--metrics-export-port={ports[2]}"]
    head += [f"--dashboard-agent-listen-port={ports[4]}"]
    config = (ROOT / "cluster" / "prometheus.yml").read_text()
    config = config.replace("/tmp/ray/", f"{scratch}/").replace("interval: 10s", "interval: 1s")
    (folder / "prometheus.yml").write_text(config)
    prometheus = ["prometheus", f"--config.file={folder / 'prometheus.yml'}"]
    prometheus += [f"--storage.tsdb.path={folder / 'figures'}"]
    prometheus += [f"--web.listen-address=127.0.0.1:{ports[3]}"]
    with stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        for name, command in (("head", head), ("prometheus", prometheus)):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | TOKEN)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.terminate)
        until(lambda: b"will now block" in (folder / "head.log").read_bytes())
        search = launch(folder, "--address", f"127.0.0.1:{ports[0]}", study=STUDY)
        stack.callback(search.communicate, timeout=60)
        stack.callback(search.terminate)
        wait_for_outcomes(folder, 2, search)
        found = Running(
            search=search,
            folder=folder / "run",
            dashboard=f"http://127.0.0.1:{ports[1]}",
            prometheus=f"http://127.0.0.1:{ports[3]}",
        )
        until(lambda: found.number("max(ray_kdsearch_best_validation)") >= 0)
        until(lambda: found.number("sum(rate(ray_kdsearch_slot_seconds_total[30s]))") > 0)
        assert search.poll() is None, "the search ended before it was looked at"
        yield found


def test_prometheus_has_the_figures_that_the_folder_has(running: Running) -> None:
    def known() -> tuple[int, float | None, int]:
        agenda = running.agenda()
        [case] = agenda.cases
        finished = sum(outcome is not None for outcome in agenda.results.values())
        return agenda.trained(case), best_so_far(agenda, case), finished

    before = known()
    assert before[1] is not None

    def told() -> tuple[float, float, float]:
        return (
            running.number("sum(ray_kdsearch_students_done)"),
            running.number("max(ray_kdsearch_best_validation)"),
            running.number("sum(ray_kdsearch_trainings_finished_total)"),
        )

    least = (before[0], before[1] - 1e-6, before[2])
    until(lambda: all(a >= b for a, b in zip(told(), least, strict=True)))
    done, best, finished = told()
    after = known()
    assert done <= after[0]
    assert finished <= after[2]
    assert after[1] is not None
    assert best <= after[1] + 1e-6

    [slots] = running.ask("sum by (node, study) (ray_kdsearch_slots)")
    assert slots["metric"] == {"node": socket.gethostname(), "study": "tiny"}
    assert float(slots["value"][1]) == 1
    assert 0 < running.number('max(ray_kdsearch_seconds_left{bound="fewest"})') < 3600
    [stage] = running.ask("ray_kdsearch_stage")
    assert stage["metric"]["case"] == "grammar/tiny/tiny"
    assert STAGES[int(float(stage["value"][1]))] not in ("blocked", "done", "waits")
    busy = 'sum(ray_kdsearch_slot_seconds_total{state="busy"})'
    assert 0 < running.number(f"{busy} / sum(ray_kdsearch_slot_seconds_total)") <= 1


@pytest.mark.parametrize("query", QUERIES)
def test_prometheus_answers_every_query_of_the_dashboard(running: Running, query: str) -> None:
    asked = query.replace("$study", ".*").replace("$__rate_interval", "40s")
    answer = running.ask(asked)
    assert running.search.poll() is None, "the search ended before it was looked at"
    assert answer or RARE in query


def test_there_are_few_series(running: Running) -> None:
    assert running.number('count({__name__=~"ray_kdsearch_.+"})') < 40


def test_rays_dashboard_names_the_job_and_its_slots(running: Running) -> None:
    [job] = [job for job in running.of_ray("/api/jobs/") if job["metadata"]]
    found = job["metadata"]
    assert found["job_name"] == "kdsearch tiny"
    assert found["kdsearch_study"] == "tiny"
    assert found["kdsearch_cases"] == "1"
    assert found["kdsearch_folder"] == str(running.folder)
    actors = running.of_ray("/api/v0/actors?detail=1")["data"]["result"]["result"]
    names = [actor["repr_name"] for actor in actors if actor["class_name"].endswith("Slot")]
    assert names == ["kdsearch[tiny] slot-1"]
