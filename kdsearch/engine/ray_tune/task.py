"""A single task on a worker, before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from kdsearch.engine.base import EngineError
from kdsearch.engine.ray_tune.cluster import Cluster
from kdsearch.errors import InputError, StorageError, first_line
from kdsearch.study import Role

Result = TypeVar("Result")


def run_on_worker(
    cluster: Cluster, function: Callable[..., Result], *arguments: Any, role: Role = "teacher"
) -> Result:
    """What `function` gives for the arguments on a worker with what a training of `role` takes.

    All of them must be picklable. It runs on no node that is left out. An `InputError` or a
    `StorageError` of the function is raised here as it was raised there; whatever else becomes of
    it is an `EngineError`.
    """
    needs = cluster.needed[role]
    named = ("CPU", "GPU", "memory")
    task = ray.remote(_call).options(
        num_cpus=needs.resources["CPU"],
        num_gpus=needs.gpus,
        memory=needs.resources.get("memory"),
        resources={name: n for name, n in needs.resources.items() if name not in named},
        label_selector=needs.where(cluster.left_out),
        max_retries=1,
    )
    try:
        result: Result = ray.get(task.remote(function, *arguments))
    except RayTaskError as error:
        if isinstance(error.cause, InputError | StorageError):
            raise error.cause from None
        raise EngineError(f"a worker failed: {first_line(error.cause)}") from None
    except RayError as error:
        raise EngineError(f"a worker was lost: {first_line(error)}") from None
    return result


def _call(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function` itself may be a partial one, which Ray takes for no function."""
    return function(*arguments)
