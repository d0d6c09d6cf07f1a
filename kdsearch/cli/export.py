"""`export`: a student as a Hugging Face folder, with a model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kdsearch.agenda import Agenda, CaseView, Outcome, StudentTraining
from kdsearch.analysis import analyse
from kdsearch.api import open_folder
from kdsearch.cli.code import code_place, own_code
from kdsearch.cli.job import Dashboard, bring_student
from kdsearch.cli.options import StudyFolder, console, example
from kdsearch.distill import run_training, trusting
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout, open_plain
from kdsearch.report import Again, card
from kdsearch.search import Candidate, Trial, shown_at
from kdsearch.study import ERM, TestCase, largest_score

TOLERANCE = 0.02
"""Of a score, as a share of the largest it can be: what another machine may change."""


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=example("kdsearch export runs/quickstart sentiment/encoder/small --to my-student")
    )(export)


def export(
    folder: StudyFolder,
    case: Annotated[str, typer.Argument(help="A test case, or part of its name.", metavar="CASE")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="PATH")],
    stable: Annotated[
        bool,
        typer.Option("--stable", help="The stable configuration's student. Default: the best."),
    ] = False,
    trust_remote_code: Annotated[
        list[str] | None,
        typer.Option(
            "--trust-remote-code",
            metavar="MODEL",
            help="Allow this model's own Python code to run if the student is trained again. May "
            "be given several times.",
        ),
    ] = None,
    address: Dashboard = None,
    kept: Annotated[
        bool, typer.Option("--kept", hidden=True, help="Train nothing: in a job without a GPU.")
    ] = False,
) -> None:
    """Write a student as a Hugging Face folder: the best by validation, or the stable one.

    If its weights were not kept, it is trained again, except with --address.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError.one(f"--to {to}", "already exists", "give a new or empty folder")
    if address is not None:
        if trust_remote_code:
            what = "does not go with --address: nothing is trained there, and no such code is run"
            raise InputError.one("--trust-remote-code", what, "leave it out")
        bring_student(address, folder, case, to, ["--stable"] * stable)
        console().print(f"downloaded to {to}")
        return
    ledger, agenda = open_folder(folder)
    view = _case(agenda, case)
    candidate, best = _chosen(view, stable=stable)
    training = agenda.training(view, best)
    outcome = agenda.results[training.key]
    assert outcome is not None
    out = console()
    again, digests = None, ledger.digests(outcome)
    if not ledger.intact(outcome, layout.student(training.key)):
        if kept:
            raise _not_kept(view)
        _consent(agenda, training, trust_remote_code or [], out)
        with trusting(trust_remote_code or []):
            again, digests = _train_again(ledger, training, outcome, out)
    _copy(ledger, digests, training.key, to)
    [result] = [each for each in analyse(agenda).cases if each.case == view.case]
    text = card(agenda, result, outcome, stable=stable, again=again)
    (to / "README.md").write_text(text, encoding="utf-8")
    out.print(f"{view.case}: {shown_at(candidate.choice, view.space.tuned_values(best))}")
    out.print(f"  validation {outcome.validation:.4f}, test {outcome.test:.4f} ({outcome.metric})")
    if not kept:  # else it is brought from there
        out.print(f"written to {to}")


def _not_kept(view: CaseView) -> InputError:
    what = "the student's weights were not kept, and this job cannot train it again"
    remedy = "run kdsearch export without --address, on a machine with a GPU that sees the folder"
    return InputError.one(view.case, what, remedy)


def _case(agenda: Agenda, name: str) -> CaseView:
    found = [v for v in agenda.views() if name == str(v.case)]
    found = found or [v for v in agenda.views() if name in str(v.case)]
    if len(found) == 2:  # of a student with and without a teacher, the one that was distilled
        taught = [view for view in found if not _is_twin(agenda, view.case)]
        alike = len({(view.case.dataset, view.case.student) for view in found}) == 1
        found = taught if alike and len(taught) == 1 else found
    named = bool(name.strip("/"))
    if named and len(found) == 1:
        return found[0]
    what = f"{name} matches {len(found)} test cases" if found else f"no test case matches {name}"
    if not named:
        what = f"{json.dumps(name)} names no test case"
    names = ", ".join(str(view.case) for view in found or agenda.views())
    raise InputError.one("CASE", what, f"available: {names}")


def _is_twin(agenda: Agenda, case: TestCase) -> bool:
    """Whether it is there because of `erm: true`."""
    return agenda.resolved.study.erm and case.search == ERM


def _chosen(view: CaseView, *, stable: bool) -> tuple[Candidate, Trial]:
    """What was chosen, or the stable configuration, and its best trial."""
    candidate: Candidate | None = None
    if stable and not view.search.flips:
        what = f"has no stable configuration: {view.search.strategy} flips no axes"
        raise InputError.one(view.case, what, "leave --stable out")
    if stable:
        candidate = view.phase2.stable_tuned if view.phase2 else None
    elif view.traversed:
        candidate = view.progress.winner
    if candidate is None:
        why = view.blocked or "the search has not got that far"
        raise InputError.one(view.case, f"has no student to export yet: {why}", "launch it again")
    if candidate.best is None:
        raise InputError.one(view.case, "has no student with a score")
    return candidate, candidate.best


def _copy(ledger: Ledger, digests: Mapping[str, str], key: str, to: Path) -> None:
    """Copy the student's files that have a digest, and no others: those are its training's."""
    start = f"{layout.student(key)}/"
    for name, digest in digests.items():
        if not name.startswith(start):
            continue
        source, target = ledger.path(name), to / name.removeprefix(start)
        if source.is_symlink():
            raise InputError.one(
                source, "is a link, which is not followed", "replace it with the file"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_plain(source) as read, target.open("wb") as written:
            shutil.copyfileobj(read, written)
        with open_plain(target) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise InputError.one(source, "changed while it was copied", "export it again")


def _consent(
    agenda: Agenda, training: StudentTraining, trusted: Sequence[str], out: Console
) -> None:
    """Refuse to run code that comes with a model, unless the person at the command named it.

    That the folder says so is not enough: it may come from someone else.
    """
    code = own_code(agenda.resolved.study)
    unknown = [name for name in trusted if name not in code]
    if unknown:
        what = f"{unknown[0]} is not a model of the study with its own code"
        raise InputError.one("--trust-remote-code", what, f"available: {', '.join(code) or 'none'}")
    taught = training.teaching
    specs = (training.model, *([taught.teacher.model] if taught else []))
    for name in dict.fromkeys(n for s in specs for n in (s.name, s.tokenizer_name)):
        if name not in code:
            continue
        where = code_place(agenda.resolved, name)
        if name not in trusted:
            what = f"would run its own Python code, from {where}, to train the student again"
            remedy = f"if you trust it with this machine: --trust-remote-code {name}"
            raise InputError.one(f"models.{name}", what, remedy)
        out.print(f"models.{name}: runs its own Python code, from {where}")


def _train_again(
    ledger: Ledger, training: StudentTraining, outcome: Outcome, out: Console
) -> tuple[Again, dict[str, str]]:
    """Train a student whose weights are not there."""
    out.print("its weights were not kept: training it again, which takes about ", end="")
    out.print(f"{outcome.cost.seconds:.0f} s on the machine of the search")
    found = run_training(training, ledger.folder, keep=True)
    if not ledger.intact(outcome, layout.student(training.key)):
        ledger.write_digests(training.key, {**ledger.digests_again(training.key), **found.digests})
    if found.test is None or outcome.test is None or found.validation is None:
        raise InputError.one(training, "diverges on this machine", "export it on another")
    difference = abs(found.test - outcome.test)
    allowed = TOLERANCE * largest_score(training.data.metric)
    if difference == 0:
        out.print("its test score is exactly that of the search")
    else:
        verdict = "within" if difference <= allowed else "BEYOND"
        out.print(
            f"its test score is {found.test:.4f}, {difference:.4f} away from the search's: "
            f"{verdict} the tolerance of {allowed:g} for another machine"
        )
    return Again(test=found.test, allowed=allowed), found.digests
