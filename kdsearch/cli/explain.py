"""`explain`: why each value won in a test case, and what that came to, without Ray or torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kdsearch.agenda import COMPARES, Agenda, CaseView, TeacherTraining, used
from kdsearch.analysis import (
    CandidateScores,
    CaseResult,
    DecisionScores,
    ModelSpeeds,
    case_result,
)
from kdsearch.api import open_folder
from kdsearch.cli.job import Dashboard, run_there
from kdsearch.cli.look import stage_of, value_of
from kdsearch.cli.options import Json, StudyFolder, case_names, console, example
from kdsearch.errors import InputError
from kdsearch.report import noises_of
from kdsearch.report.markdown import score, tie
from kdsearch.report.path import path_lines
from kdsearch.report.plain import plain
from kdsearch.search import SYMBOLS, Candidate, Decision, shown_at

_MOST_SHOWN = 20
_Scored = tuple[Candidate, CandidateScores]


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch explain runs/quickstart sentiment/encoder/small"))(explain)


def explain(
    folder: StudyFolder,
    case: Annotated[
        str | None,
        typer.Argument(
            help="A test case, or part of its name.", metavar="[CASE]", autocompletion=case_names
        ),
    ] = None,
    as_json: Json = False,
    address: Dashboard = None,
) -> None:
    """Show why each value won: the decisions of a test case with every candidate's score."""
    if address is not None:
        named = [case] if case else []
        run_there(address, "explain", folder, *named, *["--json"] * as_json)
        return
    ledger, agenda = open_folder(folder)
    views = [view for view in agenda.views() if case is None or case in str(view.case)]
    if not views:
        names = ", ".join(map(str, agenda.cases))
        raise InputError.one("CASE", f"no test case matches {case}", f"available: {names}")
    noises, speeds = noises_of(ledger, agenda), ModelSpeeds(used(agenda).values())
    results = [(v, case_result(agenda, v, noises, ledger.facts, speeds)) for v in views]
    if as_json:
        typer.echo(json.dumps([_explained(agenda, *each) for each in results], indent=1))
        return
    out = console()
    for view, found in results:
        _explain(out, agenda, view, found)


def _explained(agenda: Agenda, view: CaseView, found: CaseResult) -> dict[str, Any]:
    return {
        "case": str(view.case),
        "stage": stage_of(view),
        "metric": agenda.resolved.datasets[view.case.dataset].metric,
        "teacher_checkpoints_coincide": view.coinciding,
        "logit_scales": dict(found.logit_scales),
        "start": plain(found.start),
        "scores": [
            {"model": name, "validation": validation, "test": test}
            for name, validation, test in _scores(found)
        ],
        "steps": plain(found.steps),
        "over_default": plain(found.over_default),
        "decisions": [
            {
                "parameter": decision.axis,
                "winner": value_of(decision.winner),
                "why": _why(decision, scores.tied, found.digits),
                "tied": scores.tied,
                "candidates": [
                    {"value": value_of(candidate), **_candidate(each)}
                    for candidate, each in zip(decision.candidates, scores.candidates, strict=True)
                ],
            }
            for decision, scores in zip(view.progress.decisions, found.path, strict=True)
        ],
    }


def _candidate(found: CandidateScores) -> dict[str, Any]:
    return {
        "choice": str(found.choice),
        "validation": found.validation,
        "test": found.test,
        "temperature": found.temperature,
        "effective_temperature": found.effective_temperature,
        "learning_rate": found.learning_rate,
        "further_tuned": found.further_tuned,
        "trainings": found.trials,
        "tied": found.tied,
        "key": found.key,
    }


def _scores(found: CaseResult) -> list[tuple[str, float | None, float | None]]:
    """The models of a case, each with its validation and its test score."""
    students = {
        "student, as chosen": found.winner,
        "student, stable": found.stable,
        "student, lazy": found.lazy,
        "student, no teacher (ERM)": found.erm,
    }
    return [
        *((f"teacher, {each.checkpoint}", each.validation, each.test) for each in found.teachers),
        *((name, each.validation, each.test) for name, each in students.items() if each),
    ]


def _best_of(decision: Decision, found: DecisionScores) -> Sequence[_Scored]:
    """The candidates to show: of many whole choices those of the highest scores, best first."""
    every = list(zip(decision.candidates, found.candidates, strict=True))
    if decision.axis is None:
        # No score loses to any.
        every.sort(key=lambda pair: math.inf if pair[0].score is None else -pair[0].score)
        every = every[:_MOST_SHOWN]
    return every


def _why(decision: Decision, tied: int, digits: int) -> str:
    """Why a value won; `tied` trainings have its score."""
    held, winner = decision.candidates[0], decision.winner
    if winner.score is None:
        return "no candidate has a score; the current value is kept"
    others = [c for c in decision.candidates if c is not winner]
    scored = [c.score for c in others if c.score is not None]
    if not scored:
        return "the only candidate with a score"
    margin = winner.score - max(scored)
    if margin == 0:
        held_won = winner is held and decision.axis is not None
        won = f"won by a tie of {tied}" if tied > 1 else "one training under several names"
        return f"{won}: {'the current value' if held_won else 'the earlier one'} is kept"
    least = 10**-digits
    by = score(margin, digits) if margin >= least else f"less than {least:.{digits}f}"
    return f"highest validation score, by {by}"


def _explain(out: Console, agenda: Agenda, view: CaseView, found: CaseResult) -> None:
    metric = agenda.resolved.datasets[view.case.dataset].metric
    out.print(f"{view.case}: {stage_of(view)}; scores are {metric}")
    if view.coinciding:
        out.print("  the teacher's two checkpoints are the same epoch: t_hs and t_ll are one value")
    if view.teacher_training is not None:
        outcome = agenda.results[view.teacher_training.key]
        assert outcome is not None
        out.print(
            f"  teacher: {_fine_tuned(view.teacher_training)}, t_hs is epoch "
            f"{outcome.best_epoch}, t_ll epoch {outcome.lowest_loss_epoch}"
        )
    if (start := found.start) is not None:
        said = f"epoch {start.epoch} of {start.teacher} (learning rate {start.learning_rate:g})"
        validation, test = (score(n, found.digits) for n in (start.validation, start.test))
        out.print(f"  the student starts from {said}: validation {validation}, test {test}")
    if models := _scores(found):
        table = Table("", "validation", "test", box=None)
        for name, *both in models:
            table.add_row(f"  {name}", *(score(each, found.digits) for each in both))
        out.print(table)
    for line in path_lines(found):
        out.print(f"  {line}")
    for decision, scores in zip(view.progress.decisions, found.path, strict=True):
        _explain_decision(out, found, decision, scores)


def _fine_tuned(training: TeacherTraining) -> str:
    smoothing = f", labels smoothed by {training.smoothing:g}" if training.smoothing else ""
    return f"learning rate {training.learning_rate:g}{smoothing}"


def _explain_decision(
    out: Console, case: CaseResult, decision: Decision, found: DecisionScores
) -> None:
    title = COMPARES if decision.axis is None else SYMBOLS.get(decision.axis, decision.axis)
    why = _why(decision, found.tied, case.digits)
    out.print(f"  {title}: {value_of(decision.winner)} — {why}")
    table = Table("", "value", "validation", "test", "τ_t", "learning rate", "trials", box=None)
    shown = _best_of(decision, found)
    for candidate, each in shown:
        table.add_row(
            "    →" if candidate is decision.winner else "",
            shown_at(value_of(candidate), each.further_tuned),
            "no score" if each.validation is None else score(each.validation, case.digits),
            "no score" if each.test is None else score(each.test, case.digits),
            _temperature(each),
            "—" if each.learning_rate is None else f"{each.learning_rate:g}",
            f"{each.trials}{tie(each.tied)}",
        )
    out.print(table)
    if rest := len(decision.candidates) - len(shown):
        out.print(f"    and {rest} more, which scored no higher; --json has them all")


def _temperature(found: CandidateScores) -> str:
    """τ_t, and in brackets what it comes to where it is in units of the teacher's logit scale."""
    comes_to = found.effective_temperature
    if found.temperature is None:
        return "—" if comes_to is None else f"learnt: {comes_to:g}"
    return f"{found.temperature:g}" + ("" if comes_to is None else f" ({comes_to:g})")
