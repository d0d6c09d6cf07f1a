"""Models with Python code of their own: which they are, and whether it is what was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from kdsearch.distill import preflight, trusting
from kdsearch.driver import Look
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, Resolved, Study, hub_model


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
        model, found, here = resolved.study.models[name], resolved.models[name], f"{place}: models"
        mend = "launch into another --folder, or give the path in the study file"
        if model.path is not None:
            said = Path(os.path.expanduser(model.path))
        else:
            said = hub_model(str(model.hub), model.revision, f"{here}.{name}", code=True)
            mend = "launch into another --folder, or give the commit that you mean as `revision`"
        if model.hub is not None and not (found.path and os.path.isdir(found.path)):
            right = found.revision == said.name
        else:
            right = os.path.realpath(found.path or "") == os.path.realpath(said)
        if not right:
            where = code_place(resolved, name)
            what = f"its code would be that of {where}, as the study's folder says"
            problems.append(Problem(place=f"{here}.{name}", what=what, mend=mend))
    if problems:
        raise InputError(problems)


def code_place(resolved: Resolved, name: str) -> str:
    """Where the code of the model `name` would come from, if its study's folder is believed.

    Raises `InputError` for what is no commit: a branch, or anyone's pull request, can change.
    """
    found, hub = resolved.models[name], resolved.study.models[name].hub
    if hub is None or (found.path is not None and os.path.isdir(found.path)):
        return str(found.path)
    if re.fullmatch("[0-9a-f]{40}", found.revision or "") is None:
        what = f"its code would be that of {hub} at {found.revision}, which is no commit"
        raise InputError.one(f"models.{name}", what, "launch the study again, which names one")
    return f"{hub} at {found.revision}"


def preflight_trusting(study: Study) -> Look:
    """A preflight in which code runs as the study file says, from where it says: see `preflight`.

    It raises `InputError` as `check_code` does, before any of it runs.
    """

    def look(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
        check_code(resolved, place)
        with trusting(own_code(study)):
            return preflight(resolved, ledger, place, digest)

    return look
