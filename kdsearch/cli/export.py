"""`export`: a student as a Hugging Face folder, with a model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kdsearch.agenda import Agenda, CaseView, Outcome, StudentTraining
from kdsearch.api import open_folder
from kdsearch.cli.code import code_place, own_code
from kdsearch.cli.job import Dashboard, bring_student
from kdsearch.cli.options import StudyFolder, case_names, console, count, example
from kdsearch.distill import run_training, trusting
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger, layout, open_plain
from kdsearch.report import Again, analyse_folder, card, distilled_from, made_otherwise
from kdsearch.search import Candidate, best_trial, shown_at
from kdsearch.study import largest_score

TOLERANCE = 0.02
"""Of a score, as a share of the largest it can be: what another machine, or training alone, may
change."""

_Case = Annotated[
    str,
    typer.Argument(
        help="A test case, or part of its name.", metavar="CASE", autocompletion=case_names
    ),
]
_To = Annotated[Path, typer.Option(help="A new or empty folder.", metavar="PATH")]
_Stable = Annotated[
    bool, typer.Option("--stable", help="The stable configuration's student. Default: the best.")
]
_Erm = Annotated[
    bool, typer.Option("--erm", help="The same student trained without a teacher (ERM).")
]
_BestSoFar = Annotated[
    bool,
    typer.Option(
        "--best-so-far",
        help="While its case is being searched: the best by validation of those trained so far.",
    ),
]
_Trusted = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-remote-code",
        metavar="MODEL",
        help="Allow this model's own Python code to run if the student is trained again. May be "
        "given several times.",
    ),
]
_Kept = Annotated[
    bool, typer.Option("--kept", hidden=True, help="Train nothing: in a job without a GPU.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=example("kdsearch export runs/quickstart sentiment/encoder/small --to my-student")
    )(export)


@dataclass(frozen=True, kw_only=True)
class _Student:
    """A student that can be handed over."""

    view: CaseView
    shown: str
    """Its configuration."""
    outcome: Outcome
    stable: bool = False
    so_far: int | None = None
    """Of so many configurations it is the best; None where the search of its case is finished."""

    @property
    def training(self) -> StudentTraining:
        """What made it."""
        assert isinstance(self.outcome.training, StudentTraining)
        return self.outcome.training


def export(
    folder: StudyFolder,
    case: _Case,
    to: _To,
    stable: _Stable = False,
    erm: _Erm = False,
    best_so_far: _BestSoFar = False,
    trust_remote_code: _Trusted = None,
    address: Dashboard = None,
    kept: _Kept = False,
) -> None:
    """Write a student as a Hugging Face folder: the best by validation, unless another is named.

    If its weights were not kept, it is trained again, except with --address.
    """
    asked = {"--stable": stable, "--erm": erm, "--best-so-far": best_so_far}
    options = [name for name, given in asked.items() if given]
    trusted = trust_remote_code or []
    _check(to, options, trusted, address)
    if address is not None:
        bring_student(address, folder, case, to, options)
        console().print(f"downloaded to {to}")
        return
    ledger, agenda = open_folder(folder)
    view = _case(agenda, case, erm=erm)
    student = _best_so_far(agenda, view) if best_so_far else None
    student = student or _chosen(agenda, view, stable=stable)
    out = console()
    _write(ledger, agenda, student, to, kept=kept, trusted=trusted, out=out)
    outcome, of = student.outcome, student.so_far
    out.print(f"{view.case}: {student.shown}")
    if of is not None:
        out.print(f"  the best of {count(of, 'configuration')} so far; its search is not finished")
    out.print(f"  validation {outcome.validation:.4f}, test {outcome.test:.4f} ({outcome.metric})")
    if not kept:  # else it is brought from there
        out.print(f"written to {to}")


def _check(to: Path, options: list[str], trusted: Sequence[str], address: str | None) -> None:
    """Refuse what is wrong with the command line itself."""
    problems = []
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        remedy = "give a new or empty folder"
        problems.append(Problem(place=f"--to {to}", what="already exists", remedy=remedy))
    if "--stable" in options and len(options) > 1:
        what = f"does not go with {' and '.join(options[1:])}: that is another student"
        problems.append(Problem(place="--stable", what=what, remedy="leave one of them out"))
    if address is not None and trusted:
        what = "does not go with --address: nothing is trained there, and no such code is run"
        problems.append(Problem(place="--trust-remote-code", what=what, remedy="leave it out"))
    if problems:
        raise InputError(problems)


def _case(agenda: Agenda, name: str, *, erm: bool) -> CaseView:
    """The test case that is named; with `erm` that of its student without a teacher."""
    named = bool(name.strip("/"))
    found = [v for v in agenda.views() if name == str(v.case)]
    found = found or [v for v in agenda.views() if name in str(v.case)]
    if erm and named and found:
        twins = {t.case: t for v in found if (t := agenda.without_teacher(v.case)) is not None}
        if not twins:
            names = ", ".join(str(view.case) for view in found)
            remedy = "add `erm: true` to the study file, and launch it again"
            raise InputError.one(names, "has no student without a teacher", remedy)
        found = list(twins.values())
    elif len(found) == 2:  # of a student with and without a teacher, the one that was distilled
        taught = [view for view in found if not agenda.is_erm(view.case)]
        alike = len({(view.case.dataset, view.case.student) for view in found}) == 1
        found = taught if alike and len(taught) == 1 else found
    if named and len(found) == 1:
        return found[0]
    what = f"{name} matches {len(found)} test cases" if found else f"no test case matches {name}"
    if not named:
        what = f"{json.dumps(name)} names no test case"
    names = ", ".join(str(view.case) for view in found or agenda.views())
    raise InputError.one("CASE", what, f"available: {names}")


def _chosen(agenda: Agenda, view: CaseView, *, stable: bool) -> _Student:
    """The best student of what was chosen, or of the stable configuration."""
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
        what = f"has no student to export yet: {why}"
        remedy = "wait for its search, or launch it again if that has ended"
        if view.traversed:
            remedy = "for the best by validation, leave --stable out"
        elif tried := _tried(agenda, view):
            remedy = f"for the best of {count(tried, 'configuration')} so far: --best-so-far"
            remedy += " without --stable" if stable else ""
        elif view.blocked:
            remedy = "kdsearch retry has what failed for good tried again at the next launch"
            if agenda.without_teacher(view.case) is not None:
                remedy += "; for the student on the labels alone: --erm"
        raise InputError.one(view.case, what, remedy)
    best = candidate.best
    if best is None:
        raise InputError.one(view.case, "has no student with a score")
    outcome = agenda.results[agenda.training(view, best).key]
    assert outcome is not None
    shown = shown_at(candidate.choice, view.space.tuned_values(best))
    return _Student(view=view, shown=shown, outcome=outcome, stable=stable)


def _best_so_far(agenda: Agenda, view: CaseView) -> _Student | None:
    """The best student that is trained; None where nothing is, or the search has chosen one."""
    scored = agenda.scored(view)
    best = best_trial(scored, scored)
    if best is None or view.traversed:
        return None
    outcome = agenda.results[agenda.training(view, best).key]
    assert outcome is not None
    return _Student(view=view, shown=str(best), outcome=outcome, so_far=_tried(agenda, view))


def _tried(agenda: Agenda, view: CaseView) -> int:
    """How many configurations have a score; two that are one training count once."""
    return len({agenda.training(view, trial).key for trial in agenda.scored(view)})


def _write(
    ledger: Ledger,
    agenda: Agenda,
    student: _Student,
    to: Path,
    *,
    kept: bool,
    trusted: Sequence[str],
    out: Console,
) -> None:
    """Write the student's folder; it is trained again if its weights are not there."""
    case, outcome, training = student.view.case, student.outcome, student.training
    again, digests = None, ledger.digests(outcome)
    if not ledger.intact(outcome, layout.student(training.key)):
        if kept:
            raise _not_kept(student.view)
        _consent(agenda, training, trusted, out)
        with trusting(trusted):
            again, digests = _train_again(ledger, training, outcome, out)
    _copy(ledger, digests, training.key, to)
    cases = analyse_folder(ledger, agenda).cases
    [result] = [each for each in cases if each.case == case]
    text = card(
        agenda,
        result,
        outcome,
        stable=student.stable,
        so_far=student.so_far,
        again=again,
        distilled=() if student.stable else distilled_from(agenda, case, cases),
    )
    (to / "README.md").write_text(text, encoding="utf-8")


def _not_kept(view: CaseView) -> InputError:
    what = "the student's weights were not kept, and this job cannot train it again"
    remedy = "run kdsearch export without --address, on a machine with a GPU that sees the folder"
    return InputError.one(view.case, what, remedy)


def _copy(ledger: Ledger, digests: Mapping[str, str], key: str, to: Path) -> None:
    """Copy the student's files that have a digest, and no others: those are its training's."""
    start = f"{layout.student(key)}/"
    files = {name: digest for name, digest in digests.items() if name.startswith(start)}
    targets = [to / name.removeprefix(start) for name in files]
    try:
        for (name, digest), target in zip(files.items(), targets, strict=True):
            _copy_file(ledger.path(name), target, digest)
    except InputError:
        for target in targets:
            target.unlink(missing_ok=True)
        raise


def _copy_file(source: Path, target: Path, digest: str) -> None:
    if source.is_symlink():
        raise InputError.one(source, "is a link, which is not followed", "replace it with the file")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_plain(source) as read, target.open("wb") as written:
            shutil.copyfileobj(read, written)
    except FileNotFoundError:
        what = "was removed meanwhile, as a search does that has found a better student"
        raise InputError.one(source, what, "export it again") from None
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
    # A pass of several, of which each has its share of the time, takes longer than each alone.
    takes, about = outcome.cost.seconds * outcome.fused, "about" if outcome.fused == 1 else "up to"
    out.print("its weights were not kept: training it again, which takes ", end="")
    out.print(f"{about} {takes:.0f} s on the machine of the search")
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
            f"{verdict} the tolerance of {allowed:g} for {made_otherwise(outcome)}"
        )
    return Again(test=found.test, allowed=allowed), found.digests
