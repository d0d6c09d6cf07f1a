"""Which nodes of a cluster may work, and what the others lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import COST, a_study, attempt_at, outcome_of, resolved_of
from nodes import machines
from test_change import with_search
from test_cli import kdsearch
from test_ray import TINY, ready
from test_settings import study_of

from kdsearch.agenda import Agenda, Outcome, written_outcome
from kdsearch.driver import version_changes
from kdsearch.engine.bf16 import bf16_places, lacks_bf16, lacks_bf16_here
from kdsearch.engine.ray_tune import Cluster, Expected, watch_nodes
from kdsearch.engine.ray_tune.nodes import (
    SAME,
    Facts,
    doubts,
    lacks,
    lacks_here,
    look_here,
    models_here,
    none_left,
)
from kdsearch.engine.ray_tune.room import Needs
from kdsearch.errors import StorageError
from kdsearch.ledger import Ledger, driver_lock
from kdsearch.study import ROLES, Resolved, hub

pytestmark = pytest.mark.undisturbed

VERSIONS = dict.fromkeys(SAME, "1.0") | {"cuda": "12.6"}
PLAIN = resolved_of(a_study(training={"precision": "fp32"}))
EXPECTED = Expected(
    folder=Path("/shared/run"),
    mark=".probe-0",
    versions=VERSIONS,
    gpu=True,
    resolved=PLAIN,
    models=(),
)
SOUND = Facts(host="one", trouble="", models=(), versions=VERSIONS, gpus=(), free={})


# -- what counts --------------------------------------------------------------------------------


def test_a_node_like_the_drivers_lacks_nothing() -> None:
    assert lacks(SOUND, EXPECTED) == []


@pytest.mark.parametrize("name", SAME)
def test_a_node_with_another_version_than_the_driver_says_both(name: str) -> None:
    [found] = lacks(replace(SOUND, versions=VERSIONS | {name: "2.0"}), EXPECTED)
    assert (
        found == f"has {'training code' if name == 'training' else name} 2.0 (the driver has 1.0)"
    )


@pytest.mark.parametrize("name", SAME)
def test_a_node_without_a_package_lacks_it(name: str) -> None:
    there = {each: version for each, version in VERSIONS.items() if each != name}
    assert lacks(replace(SOUND, versions=there), EXPECTED)[0].startswith(f"has no {name}")


def test_a_node_needs_peft_where_the_study_has_adapters_and_nowhere_else() -> None:
    expected = replace(EXPECTED, versions=VERSIONS | {"peft": "1.0"})
    assert lacks(SOUND, expected) == []
    adapted = replace(expected, resolved=resolved_of(a_study(training={"lora": {}})))
    assert lacks(SOUND, adapted) == ["has no peft (the driver has 1.0)"]
    assert lacks(replace(SOUND, versions=expected.versions), adapted) == []


def test_how_a_package_was_built_and_other_packages_do_not_count() -> None:
    other = VERSIONS | {"torch": "1.0+cu126", "numpy": "0.1", "python": "3.11.9"}
    assert lacks(replace(SOUND, versions=other), EXPECTED) == []


def test_a_torch_for_cpus_is_a_lack_where_trainings_take_gpus_alone() -> None:
    there = {name: version for name, version in VERSIONS.items() if name != "cuda"}
    facts = replace(SOUND, versions=there)
    assert lacks(facts, EXPECTED) == ["has a torch built only for CPUs"]
    assert lacks(facts, replace(EXPECTED, gpu=False)) == []


def test_all_that_a_node_lacks_is_said_at_once() -> None:
    bad = replace(SOUND, trouble="does not see /shared", models=("has no a", "has no b"))
    assert len(lacks(replace(bad, versions={}), EXPECTED)) == 3 + len(SAME)


def test_only_a_node_with_hardly_any_disk_or_memory_left_is_doubtful() -> None:
    enough = replace(SOUND, free={"disk": 2**30, "memory": 2**30})
    assert doubts(enough, ["training.precision"]) == []
    short = replace(SOUND, free={"disk": 5 * 10**8, "memory": 2 * 10**8})
    assert doubts(short, ["training.precision"]) == [
        "has only 500 MB of disk for temporary files left",
        "has only 200 MB of memory left",
    ]


def test_a_cpu_without_bf16_is_doubtful_to_a_study_that_computes_in_it_on_cpus() -> None:
    slow = replace(SOUND, lacks_bf16=True)
    assert doubts(slow, ()) == []
    assert "say fp32 in a and b" in doubts(slow, ("a", "b"))[0]


def test_bf16_is_named_where_the_study_says_so() -> None:
    fp32 = {"training": {"precision": "fp32"}}
    bf16 = {"training": {"precision": "bf16"}}
    assert bf16_places(study_of(), ROLES) == ["training.precision"]
    assert bf16_places(study_of(**fp32), ROLES) == []
    teacher = {**a_study()["teachers"]["big"], **bf16}
    mixed = study_of(**fp32, teachers={"big": teacher})
    assert bf16_places(mixed, ["outputs"]) == ["teachers.big.training.precision"]
    assert bf16_places(mixed, ["student"]) == []
    axis = with_search(precision=["fp32", "bf16"])
    assert bf16_places(study_of(**fp32, **axis), ["student"]) == ["search.precision"]
    assert bf16_places(study_of(**with_search(precision=["fp32"])), ["student"]) == []


@pytest.mark.parametrize(
    ("cpuinfo", "lacks"),
    [
        ("model name\t: EPYC\nflags\t\t: fpu avx avx2\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd i8mm bf16\n", False),
        ("Features\t: fp asimd\n", True),
        ("", False),
    ],
)
def test_what_a_machine_says_of_its_cpus_tells_whether_they_have_bf16(
    cpuinfo: str, *, lacks: bool
) -> None:
    assert lacks_bf16(cpuinfo) is lacks


def test_nodes_are_none_left_when_those_for_one_role_are_all_left_out() -> None:
    needed = {"student": Needs(resources={"CPU": 1}), "teacher": Needs(resources={"GPU": 1})}
    cpus, gpus = ({"Resources": {name: 4.0}, "Labels": {}} for name in ("CPU", "GPU"))
    nodes = {"a": cpus, "b": cpus, "c": gpus}
    assert none_left(needed, nodes, {"a"}) == []
    assert none_left(needed, nodes, {"a", "b"}) == ["a", "b"]
    assert none_left(needed, nodes, {"c"}) == ["c"]
    assert none_left(needed, {}, set()) == []  # they are still to come


# -- the folder -----------------------------------------------------------------------------------


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".probe-1").touch()
    return Expected(
        folder=folder, mark=".probe-1", versions={}, gpu=False, resolved=PLAIN, models=()
    )


def test_a_node_that_sees_the_folder_lacks_nothing_and_leaves_nothing_there(
    expected: Expected,
) -> None:
    assert lacks_here(expected) == []
    assert os.listdir(expected.folder) == [expected.mark]


def test_a_node_that_does_not_see_the_folder_says_so_and_does_not_make_it(
    expected: Expected, tmp_path: Path
) -> None:
    away = replace(expected, folder=tmp_path / "away")
    assert lacks_here(away) == [f"does not see {away.folder}"]
    assert not away.folder.exists()


def test_a_node_with_another_folder_at_that_place_is_told_apart(expected: Expected) -> None:
    (expected.folder / expected.mark).unlink()
    [found] = lacks_here(expected)
    assert found.startswith(f"sees a different folder at {expected.folder}")


def test_a_folder_that_cannot_be_read_is_a_lack_in_words(
    expected: Expected, tmp_path: Path
) -> None:
    unreadable = tmp_path / ("x" * 300)  # also by root
    assert lacks_here(replace(expected, folder=unreadable)) == [
        f"cannot read {unreadable}: File name too long"
    ]


HANGS = """
import pathlib, time
from kdsearch.engine.ray_tune.slot import watched
class Hanging(type(pathlib.Path())):
    def is_symlink(self):
        time.sleep(60)
with watched([Hanging("begun")], 0.5):
    print("got through")
"""


def test_a_process_whose_storage_hangs_before_a_training_ends_and_says_where(
    tmp_path: Path,
) -> None:
    found = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert found.returncode == 1
    assert "Timeout" in found.stderr
    assert "is_symlink" in found.stderr
    assert "got through" not in found.stdout


# -- models -------------------------------------------------------------------------------------


def with_model(**source: str) -> Resolved:
    models = a_study()["models"] | {"big": source}
    return resolved_of(a_study(models=models))


def test_a_models_folder_that_is_gone_here_too_is_asked_of_no_node(tmp_path: Path) -> None:
    assert models_here(with_model(path=str(tmp_path))) == {"big"}
    assert models_here(with_model(path=str(tmp_path / "gone"))) == set()
    assert models_here(with_model(hub="someone/model")) == {"big"}


def test_a_node_that_does_not_see_a_models_folder_says_so(
    expected: Expected, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    wanted = replace(expected, resolved=with_model(path=str(folder)), models={"big"})
    assert lacks(look_here(wanted), wanted) == [f"has no models.big: {folder} is not on this host"]
    folder.mkdir()
    assert lacks_here(wanted) == []


def test_a_node_that_cannot_fetch_a_model_of_the_hub_says_so(
    expected: Expected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    resolved = with_model(hub="someone/model")
    wanted = replace(expected, resolved=resolved, models={"big"})
    hub.reachable.cache_clear()
    [found] = lacks_here(wanted)
    hub.reachable.cache_clear()
    assert found.startswith(
        "has no models.big (someone/model): not on this machine, and the Hugging"
    )
    cached = {"big": resolved.models["big"].model_copy(update={"path": str(tmp_path)})}
    there = resolved.model_copy(update={"models": resolved.models | cached})
    assert lacks_here(replace(expected, resolved=there, models={"big"})) == []


WRITES: tuple[Callable[[Ledger], None], ...] = (
    lambda ledger: ledger.write("stop.json", "{}"),
    lambda ledger: ledger.write("report/report.md", ""),
    lambda ledger: ledger.write_attempt(attempt_at("0" * 24)),
    lambda ledger: ledger.write_digests("0" * 24, {}),
)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mounted", [True, False])
def test_no_write_makes_a_studys_folder_that_is_not_there(
    tmp_path: Path, write: Callable[[Ledger], None], mounted: bool
) -> None:
    ledger = Ledger(tmp_path / "run" if mounted else tmp_path / "away" / "run")
    with pytest.raises((StorageError, FileNotFoundError), match="No such file"):
        write(ledger)
    assert os.listdir(tmp_path) == []


# -- a real Ray ---------------------------------------------------------------------------------


def test_the_nodes_of_a_search_are_looked_at_and_noted(cluster: Cluster, tmp_path: Path) -> None:
    ledger = ready(tmp_path)
    said: list[str] = []
    with watch_nodes(cluster, PLAIN, ledger, said.append) as looked:
        assert looked.slots == cluster.slots
        assert looked.expected is not None
        assert lacks_here(looked.expected) == []
    [node] = json.loads((tmp_path / "nodes.json").read_text())["nodes"]
    assert node["lacks"] == []
    assert node["versions"]["torch"]
    assert node["free"]["memory"] > 0
    assert (said, looked.left_out) == ([], set())
    assert not list(tmp_path.glob(".probe-*"))


def test_a_node_without_bf16_is_named_to_a_study_that_computes_in_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    said: list[str] = []
    with watch_nodes(cluster, resolved_of(a_study()), ready(tmp_path), said.append):
        pass
    assert len(said) == lacks_bf16_here()
    assert all("say fp32 in training.precision" in line for line in said)


def test_status_names_the_nodes_that_are_left_out_while_a_search_runs(tmp_path: Path) -> None:
    ready(tmp_path)
    bad = {"name": "two (10.0.0.2)", "lacks": ["does not see /shared/run", "has no torch"]}
    note = {"nodes": [{"name": "one (10.0.0.1)", "lacks": []}, bad, {"name": 7}, "torn"]}
    (tmp_path / "nodes.json").write_text(json.dumps(note))
    line = "node two (10.0.0.2) is left out: it does not see /shared/run, and has no torch\n"
    with driver_lock(tmp_path):
        shown = kdsearch("status", tmp_path).out
    assert line in shown
    assert "10.0.0.1" not in shown
    assert line not in kdsearch("status", tmp_path).out


# -- several machines ---------------------------------------------------------------------------


def test_a_cluster_of_nodes_without_the_folder_ends_in_words_for_each(tmp_path: Path) -> None:
    shared, empty = tmp_path / "shared", tmp_path / "empty"
    shared.mkdir()
    empty.mkdir()
    study, log = shared / "tiny.yaml", tmp_path / "launch.log"
    study.write_text(TINY)
    with machines(tmp_path) as made:
        made.start("blind", hidden={shared: empty})
        launch = (sys.executable, "-m", "kdsearch", "launch", str(study))
        options = ("--folder", str(shared / "run"), "--address", made.ray)
        process = made.run("blind", *launch, *options, log=log)
        assert process.wait(timeout=240) == 2, log.read_text()
    assert f"does not see {shared / 'run'}" in log.read_text()
    assert os.listdir(empty) == []


PLACED = """
import platform, sys
import ray
from ray.util import placement_group_table, remove_placement_group
from kdsearch.engine import Worker
from kdsearch.engine.ray_tune import connect, run_on_worker
from kdsearch.engine.ray_tune.slot import config, no_check, slot_class
from kdsearch.study import Resources
worker = Worker(folder=None, run_training=None)
slot = slot_class(worker, None, 1.0, no_check)
with connect(sys.argv[1], resources=Resources(cpus=1, gpus=0), threads=1) as cluster:
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
    for node, name in names.items():
        cluster.left_out.clear()
        cluster.left_out.update({node, "f" * 56})
        print("task", name, run_on_worker(cluster, platform.node))
        wanted = config("slot-1", f"group-{name}", cluster.needed["student"], cluster.left_out)
        group = slot.default_resource_request(wanted).to_placement_group()
        assert group.wait(60)
        [there] = placement_group_table(group)["bundles_to_node_id"].values()
        print("slot", name, names[there])
        remove_placement_group(group)
"""


def test_neither_a_task_nor_a_slot_is_placed_on_a_node_that_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "placed.log"
    with machines(tmp_path) as made:
        made.start("one")
        made.start("two")
        process = made.run("one", sys.executable, "-c", PLACED, made.ray, log=log)
        assert process.wait(timeout=120) == 0, log.read_text()
    assert sorted(log.read_text().splitlines()) == [
        "slot one two",
        "slot two one",
        "task one two",
        "task two one",
    ]


# -- versions -----------------------------------------------------------------------------------


def outcomes_with(*versions: dict[str, str]) -> list[Outcome]:
    [request, *_] = Agenda(resolved_of(a_study()), {}).requests()
    costs = [COST.model_copy(update={"versions": each}) for each in versions]
    return [outcome_of(request.training, cost=cost) for cost in costs]


def test_other_versions_than_those_of_the_outcomes_are_said_and_the_same_are_not() -> None:
    there = outcomes_with({"torch": "2.12.1"}, {"torch": "2.13.0"})
    [line] = version_changes({"torch": "2.13.0"}, there, {})
    assert line.startswith("1 training was made with torch 2.12.1, further ones will be with 2.13")
    assert version_changes({"torch": "2.13.0"}, there[1:], {}) == []


def test_outcomes_that_do_not_tell_versions_have_those_of_the_folders_beginning() -> None:
    lines = version_changes({"torch": "2.13.0"}, outcomes_with({}, {}), {"torch": "2.12.1"})
    assert len(lines) == 1
    assert lines[0].startswith("2 trainings were made with torch 2.12.1")
    assert version_changes({"torch": "2.13.0"}, [None], {"torch": "2.12.1"}) == []


def test_an_outcome_without_versions_is_read() -> None:
    [outcome] = outcomes_with({})
    plain = written_outcome(outcome)
    del plain["cost"]["versions"]
    assert Outcome.model_validate_json(json.dumps(plain)) == outcome
