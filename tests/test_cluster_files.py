"""The files of cluster/ as a whole, and those for clouds."""

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import (
    _default_utilization_scorer,
    get_nodes_for,
)
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
CLOUDS = ["ray-up-aws.yaml", "ray-up-gcp.yaml"]


def read(name: str) -> dict[str, Any]:
    # YAML anchors make one object of several: a test that changes one must not change the others.
    return json.loads(json.dumps(yaml.safe_load((CLUSTER / name).read_text())))


def kuberay() -> dict[str, Any]:
    """What Ray's autoscaler makes of the RayJob's cluster."""
    spec = read("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "kdsearch", "namespace": "default"}, "spec": spec}
    )


def scripts() -> list[Path]:
    return [*sorted(CLUSTER.glob("*.sh")), ROOT / ".ci" / "run"]


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_each_file_has_its_command_on_top_and_a_word_in_the_readme(path: Path) -> None:
    if path.name == "README.md":
        return
    assert f"`{path.name}`" in (CLUSTER / "README.md").read_text()
    if path.suffix == ".json":  # which has no comments
        return
    head = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    assert any(f"cluster/{path.name}" in line for line in head)


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"cluster/([\w.-]+\w)", (CLUSTER / "README.md").read_text())
    assert named
    assert all((CLUSTER / name).exists() for name in named)


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_own_validation_accepts_the_files_for_clouds(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_own_validation_refuses_a_misspelt_key_of_a_node_type(name: str) -> None:
    config = read(name)
    config["available_node_types"]["gpu"]["max_worker"] = 8
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_a_head_in_a_cloud_has_nothing_to_train_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(name)
    head = config["available_node_types"][config["head_node_type"]]
    # As `ray up` hands it to `ray start`.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(head["resources"]))
    spec = ResourceAndLabelSpec().resolve(is_head=True, node_ip_address="127.0.0.1")
    assert spec.num_cpus == 0


def with_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """On AWS Ray takes a machine's sizes from its type, which it asks AWS for."""
    types = config["available_node_types"]
    if config["provider"]["type"] == "aws":
        assert types["gpu"]["resources"] == {}
        types["gpu"]["resources"] = {"CPU": 8, "GPU": 1}
    return config


@pytest.mark.parametrize("name", [*CLOUDS, "kuberay-rayjob.yaml"])
@pytest.mark.parametrize("training", [{"GPU": 1}, {"CPU": 4, "GPU": 1}])
def test_a_cluster_of_a_head_alone_grows_by_a_gpu_worker_for_each_training(
    name: str, training: dict[str, int]
) -> None:
    config = kuberay() if name.startswith("kuberay") else with_sizes(prepare_config(read(name)))
    types, head = config["available_node_types"], config["head_node_type"]
    assert {key: kind["min_workers"] for key, kind in types.items()} == {head: 0, "gpu": 0}
    scorer = partial(
        _default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({})
    )
    added, left = get_nodes_for(
        types, {head: 1}, head, config["max_workers"], [training] * 3, scorer
    )
    assert added == {"gpu": 3}
    assert not left


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_in_a_cloud_are_spot_machines_and_the_head_is_none(name: str) -> None:
    types = read(name)["available_node_types"]
    assert "SPOT" in json.dumps(types["gpu"]["node_config"]).upper()
    assert "SPOT" not in json.dumps(types["head"]["node_config"]).upper()


@pytest.mark.parametrize("name", CLOUDS)
def test_every_machine_in_a_cloud_mounts_the_shared_folder_for_its_container(name: str) -> None:
    config = read(name)
    (mount,) = [line for line in config["initialization_commands"] if "mount -t" in line]
    assert mount.endswith(" /shared")
    assert "-v /shared:/shared" in config["docker"]["run_options"]
    # A node type's own commands would stand in place of these.
    assert not any("initialization_commands" in t for t in config["available_node_types"].values())


@pytest.mark.parametrize("name", CLOUDS)
def test_every_container_in_a_cloud_has_the_token_and_no_memory_monitor(name: str) -> None:
    config = read(name)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    options = config["docker"]["run_options"]
    assert {"-e RAY_AUTH_MODE=token", "-e RAY_memory_monitor_refresh_ms=0"} <= set(options)


def test_the_image_has_the_ray_that_the_files_and_the_pins_say() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    versions = set(re.findall(r"(?:ray:|tune\]==)(\d+\.\d+\.\d+)", text))
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert versions == {pinned[1]}
    assert read("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_the_image_copies_all_that_the_package_is_built_from() -> None:
    copied = [
        source
        for line in (CLUSTER / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for source in line.split()[2:-1]
    ]
    project = (ROOT / "pyproject.toml").read_text()
    assert all((ROOT / source).exists() for source in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "kdsearch", "search_spaces"} == set(copied)
    assert all(f'"{name}"' in project for name in copied if name != "pyproject.toml")


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
