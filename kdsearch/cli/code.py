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
        say(f"models.{name}: runs its own Python code, from {where}, as {place} allows")


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
            where, remedy = found.path, f"{remedy}give this path in the study file"
        else:
            said = hub_model(model.hub, model.revision, f"{here}.{name}", code=True)
            right = found.revision == said.name
            where = f"{model.hub} at {found.revision}"
            remedy += (
                f"set `revision: {found.revision}` in the study file, if that is the one you mean"
            )
            models[name] = found.model_copy(update={"path": str(said)})
        if not right:
            what = f"its code would come from {where}, as the study's folder says"
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
        what = f"its code would come from {hub} at {found.revision}, which is not a commit"
        raise InputError.one(f"models.{name}", what, "launch the study again, which pins one")
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
