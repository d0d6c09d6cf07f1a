"""Models with Python code of their own: which they are, and whether it is what was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

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


def with_meant_code(resolved: Resolved, place: str) -> Resolved:
    """The study with the code that will run where the study file `place` says, of the Hub too.

    A study's folder says where its models were found, and may come from someone else. Raises
    `InputError` where it means other code.
    """
    problems, models = [], dict(resolved.models)
    for name in own_code(resolved.study):
        model, found, here = resolved.study.models[name], resolved.models[name], f"{place}: models"
        remedy = "launch into another --folder, or "
        if model.hub is None:
            right = os.path.realpath(found.path or "") == os.path.realpath(
                os.path.expanduser(model.path or "")
            )
            where, remedy = found.path, f"{remedy}give the path in the study file"
        else:
            said = hub_model(model.hub, model.revision, f"{here}.{name}", code=True)
            right = found.revision == said.name
            where = f"{model.hub} at {found.revision}"
            remedy += f"say `revision: {found.revision}` of it in the study file, if you mean that"
            models[name] = found.model_copy(update={"path": str(said)})
        if not right:
            what = f"its code would be that of {where}, as the study's folder says"
            problems.append(Problem(place=f"{here}.{name}", what=what, remedy=remedy))
    if problems:
        raise InputError(problems)
    return resolved.model_copy(update={"models": models})


def code_place(resolved: Resolved, name: str) -> str:
    """Where the code of the model `name` would come from, if its study's folder is believed.

    Raises `InputError` for what is no commit: a branch, or anyone's pull request, can change.
    """
    found, hub = resolved.models[name], resolved.study.models[name].hub
    if hub is None:
        return str(found.path)
    if re.fullmatch("[0-9a-f]{40}", found.revision or "") is None:
        what = f"its code would be that of {hub} at {found.revision}, which is no commit"
        raise InputError.one(f"models.{name}", what, "launch the study again, which names one")
    return f"{hub} at {found.revision}"


def preflight_trusting(study: Study) -> Look:
    """A preflight in which code runs as the study file says, from where it says: see `preflight`.

    It raises `InputError` as `with_meant_code` does, before any of it runs.
    """

    def look(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
        meant = with_meant_code(resolved, place)
        with trusting(own_code(study)):
            return preflight(meant, ledger, place, digest)

    return look
