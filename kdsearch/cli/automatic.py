"""Who runs a command: a person, or a scheduler, which may run it again by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import kdsearch
from kdsearch.agenda import VERSION
from kdsearch.errors import InputError

_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray gives to the command of a job, and to nothing else."""
_BATCH = "KDSEARCH_BATCH"
"""Set by cluster/slurm.sh: Slurm's own variables are there in somebody's terminal, too."""
INCOMPLETE = 1
INTERRUPTED = 130

Environment = Mapping[str, str]


def versions() -> dict[str, str]:
    """What must be the same where a job is submitted and where it runs."""
    return {"kdsearch_version": kdsearch.__version__, "kdsearch_training": str(VERSION)}


def check_versions(environment: Environment) -> None:
    """See that a job that another kdsearch submitted was meant for this one.

    Raises `InputError`.
    """
    wanted = {k: v for k, v in (_metadata(environment) or {}).items() if k in versions()}
    if wanted and wanted != versions():
        raise InputError.one(
            "this cluster",
            f"has {_words(versions())}; the job was submitted by {_words(wanted)}",
            "install the same version on both",
        )


def in_job(environment: Environment) -> bool:
    """Whether what runs here is looked after by a scheduler, which goes by exit codes."""
    return _RAY_JOB in environment or _BATCH in environment


def launched_by_person(environment: Environment) -> bool:
    """Whether somebody wants a search to go on, and not the retry of a scheduler.

    Of a Ray job that `kdsearch launch` did not submit itself there is no telling: it may be a
    retry of KubeRay's.
    """
    metadata = _metadata(environment)
    if metadata is not None:
        return "kdsearch_version" in metadata
    return _BATCH not in environment or environment.get("SLURM_RESTART_COUNT", "0") == "0"


def stopped_by_person(environment: Environment) -> bool:
    """Whether somebody wants a search to stop, and not the script of a job that is nearly over."""
    return _metadata(environment) is not None or _BATCH not in environment


def exit_code(*, complete: bool, flawless: bool, stopped: bool, job: bool) -> int:
    """How a launch that was not cut off ends.

    `flawless`: nothing of what the study asks for is missing. In a `job` the code says whether
    the same command again would change anything: not where a person `stopped` the search, nor
    where what is missing has failed for good.
    """
    if complete and (flawless or job):
        return 0
    return 0 if job and stopped else INCOMPLETE


def _metadata(environment: Environment) -> dict[str, Any] | None:
    """What the Ray job that runs this command was submitted with; None outside of one."""
    text = environment.get(_RAY_JOB)
    return None if text is None else json.loads(text).get("metadata", {})


def _words(known: Mapping[str, str]) -> str:
    version, training = known.get("kdsearch_version"), known.get("kdsearch_training")
    return f"kdsearch {version} with training code {training}"
