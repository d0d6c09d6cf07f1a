import copy
import gzip
import json
import os
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
SCHEMAS = os.environ.get("KDSEARCH_SCHEMAS")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture
def ray_up() -> dict[str, Any]:
    return read("ray-up.yaml")


@pytest.fixture
def job() -> dict[str, Any]:
    # YAML anchors make one object of several: a test that changes one must not change the others.
    return json.loads(json.dumps(read("kuberay-rayjob.yaml")))


@pytest.fixture(scope="module")
def crd() -> jsonschema.Draft202012Validator:
    if not SCHEMAS:
        pytest.skip("KDSEARCH_SCHEMAS does not say where KubeRay's schemas are")
    with gzip.open(Path(SCHEMAS) / "ray.io_rayjobs.v1.schema.json.gz", "rt") as file:
        return jsonschema.Draft202012Validator(strict(json.load(file)))


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON Schema that refuses keys which Kubernetes would drop in silence."""
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        plain.pop("anyOf", None)
        plain["type"] = ["integer", "string"]
    if plain.pop("nullable", False):
        plain["type"] = [plain["type"], "null"]
    if "properties" in plain:
        plain["properties"] = {key: strict(value) for key, value in plain["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            plain.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in plain:
            plain[key] = strict(plain[key])
    return plain


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}


def shared_mounts(pod: dict[str, Any]) -> set[tuple[str, str]]:
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        (claims[mount["name"]], mount["mountPath"])
        for container in pod["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] in claims
    }


def test_rays_own_validation_accepts_the_ray_up_file(ray_up: dict[str, Any]) -> None:
    validate_config(prepare_config(ray_up))


@pytest.mark.parametrize("typo", ["max_worker", "setup_command", "file_mount"])
def test_rays_validation_refuses_a_misspelt_key_in_the_ray_up_file(
    ray_up: dict[str, Any], typo: str
) -> None:
    ray_up[typo] = []
    with pytest.raises(jsonschema.ValidationError, match=typo):
        validate_config(prepare_config(ray_up))


def test_ray_up_makes_every_listed_machine_a_worker(ray_up: dict[str, Any]) -> None:
    prepared = prepare_config(ray_up)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == len(ray_up["provider"]["worker_ips"])


def test_ray_up_installs_the_checkout_that_it_copies(ray_up: dict[str, Any]) -> None:
    (copied,) = [remote for remote, local in ray_up["file_mounts"].items() if local == "."]
    assert shlex.split(ray_up["setup_commands"][-1])[-1] == copied


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_up_starts_every_node_with_the_token_and_without_the_memory_monitor(
    ray_up: dict[str, Any], role: str
) -> None:
    start = ray_up[f"{role}_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token RAY_memory_monitor_refresh_ms=0" in start
    assert "\n" not in start


def test_kuberays_schema_accepts_the_job(
    crd: jsonschema.Draft202012Validator, job: dict[str, Any]
) -> None:
    crd.validate(job)


def test_kuberays_schema_refuses_a_misspelt_key(
    crd: jsonschema.Draft202012Validator, job: dict[str, Any]
) -> None:
    job["spec"]["entryPoint"] = job["spec"].pop("entrypoint")
    with pytest.raises(jsonschema.ValidationError, match="entryPoint"):
        crd.validate(job)


def test_kuberays_schema_refuses_a_misspelt_key_deep_in_a_pod(
    crd: jsonschema.Draft202012Validator, job: dict[str, Any]
) -> None:
    pods(job)[1]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        crd.validate(job)


def test_kuberays_schema_refuses_a_number_in_quotes(
    crd: jsonschema.Draft202012Validator, job: dict[str, Any]
) -> None:
    job["spec"]["backoffLimit"] = "2"
    with pytest.raises(jsonschema.ValidationError, match="not of type 'integer'"):
        crd.validate(job)


def test_kuberays_schema_takes_quantities_as_numbers_and_as_text(
    crd: jsonschema.Draft202012Validator, job: dict[str, Any]
) -> None:
    for quantity in (1, "1"):
        changed = copy.deepcopy(job)
        pods(changed)[1]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = quantity
        crd.validate(changed)


def test_every_pod_mounts_the_shared_volume_at_the_same_path(job: dict[str, Any]) -> None:
    volume = read("kuberay-volume.yaml")
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    mounts = [shared_mounts(pod) for pod in pods(job)]
    assert mounts == [{(volume["metadata"]["name"], "/shared")}] * len(mounts)


def test_every_path_in_the_jobs_command_lies_on_the_shared_volume(job: dict[str, Any]) -> None:
    paths = [word for word in shlex.split(job["spec"]["entrypoint"]) if "/" in word]
    assert len(paths) == 3
    assert all(path.startswith("/shared/") for path in paths)


def test_the_jobs_command_is_a_launch_of_kdsearch(job: dict[str, Any]) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["kdsearch", "launch"]
    assert words[words.index("--address") + 1] == "auto"
    assert {word for word in words if word.startswith("--")} == {
        "--data-dir",
        "--address",
        "--folder",
    }


def test_a_job_that_failed_is_launched_again_and_a_finished_one_frees_the_gpus(
    job: dict[str, Any],
) -> None:
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_trials_stay_off_the_head_and_workers_have_gpus(job: dict[str, Any]) -> None:
    spec = job["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    head, *workers = pods(job)
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    for worker in workers:
        assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] > 0


def test_no_pod_lets_rays_memory_monitor_end_the_search(job: dict[str, Any]) -> None:
    assert {environment(pod)["RAY_memory_monitor_refresh_ms"] for pod in pods(job)} == {"0"}
