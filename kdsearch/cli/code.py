"""Models with Python code of their own: which they are, and whether it is what was meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from kdsearch.distill import preflight, trusting
from kdsearch.driver import Look
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, Resolved, Study


def own_code(study: Study) -> dict[str, str]:
    """The models of a study whose code may run, and where each comes from."""
    trusted = {name: model for name, model in study.models.items() if model.trust_remote_code}
    return {name: str(model.path or model.hub) for name, model in trusted.items()}


def name_own_code(study: Study, place: str, say: Callable[[str], None]) -> None:
    """Say which models of the study file `place` run code of their own, before any of it runs."""
    for name, where in own_code(study).items():
        say(f"models.{name}: runs Python code of its own, of {where}: {place} says so")


def check_code(resolved: Resolved, place: str) -> None:
    """See that the code that will run lies where the study file `place` says.

    A study's folder says where its models were found, and may come from someone else. Raises
    `InputError`.
    """
    problems = []
    for name in own_code(resolved.study):
        model, found = resolved.study.models[name], resolved.models[name].path
        if model.path is not None:
            said = Path(os.path.expanduser(model.path)).resolve()
            right = found is not None and Path(found).resolve() == said
        else:
            right = found is None or Path(found).is_relative_to(HF_HUB_CACHE)
        if not right:
            what = f"its code would be that of {found}, as the study's folder says"
            mend = "launch into another --folder, or give the path in the study file"
            problems.append(Problem(place=f"{place}: models.{name}", what=what, mend=mend))
    if problems:
        raise InputError(problems)


def preflight_trusting(study: Study) -> Look:
    """A preflight in which code runs as the study file says, from where it says: see `preflight`.

    It raises `InputError` as `check_code` does, before any of it runs.
    """

    def look(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
        check_code(resolved, place)
        with trusting(own_code(study)):
            return preflight(resolved, ledger, place, digest)

    return look
