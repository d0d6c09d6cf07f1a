"""`replay`: what a strategy would have cost and found in an exhaustive study. No Ray, no torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Annotated, Any

import typer
from rich.table import Table

from kdsearch.agenda import Agenda, CaseView
from kdsearch.analysis import Replayed, recorded, regrouped, replay
from kdsearch.api import open_folder
from kdsearch.cli.options import Json, StudyFolder, console, count, example
from kdsearch.errors import InputError, Problem
from kdsearch.search import OBJECTIVE, Axis, Exhaustive, Space, Strategy, shown_value

_TUNED = ("temperature", "learning_rate")
_REGRET = (
    "regret: on validation, the grid's best score minus that of the choice; on test, the score of "
    "the grid's best by validation minus that of the choice, which may be negative"
)


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    text = example("kdsearch replay runs/grid --strategy random --trials 20 --seeds 100")
    app.command("replay", epilog=text)(replay_strategy)


def replay_strategy(
    folder: StudyFolder,
    strategy: Annotated[str, typer.Option(metavar="NAME", help="greedy, exhaustive or random.")],
    cases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help="Only this test case, or those with this in their names. May be given several "
            "times.",
        ),
    ] = None,
    tuned: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS,...",
            help="Of greedy: the axes that it tunes under each choice. Default: those of "
            "temperature and learning_rate that there are.",
        ),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=VALUE,...",
            help="Of greedy: search a tuned axis at these values, then in the neighbourhood of the "
            "best, which the grid must have.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Of random: how many trials it draws.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of random: the seed of its draw. [0]")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Of random: draw so often, at this seed and the next ones. [1]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a strategy on an exhaustive study's results: what it costs, chooses and misses."""
    kind = _kind(strategy)
    walks = _walks(kind, trials=trials, seed=seed, seeds=seeds, tuned=tuned, refine=refine)
    _, agenda = open_folder(folder)
    views, left_out = _complete_views(agenda, cases or [""])
    spaces = [view.space for view in views]
    if kind.flips:
        spaces = _regrouped(spaces, tuned, refine)
    found = {
        "name": agenda.resolved.study.name,
        "strategy": strategy,
        "cases": [
            _facts(agenda, view, space, walks) for view, space in zip(views, spaces, strict=True)
        ],
        "left_out": [{"case": each.place, "why": each.what} for each in left_out],
    }
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    _show(found)
    for view in views:
        size = view.space.size
        if trials is not None and trials > size:
            console().print(f"{view.case}: all {size:,} trials of its grid are drawn")


def _kind(name: str) -> type[Strategy]:
    if name not in Strategy.named:
        raise InputError([_unknown("--strategy", name, "a strategy", list(Strategy.named))])
    return Strategy.named[name]


def _walks(
    kind: type[Strategy],
    *,
    trials: int | None,
    seed: int | None,
    seeds: int | None,
    tuned: str | None,
    refine: str | None,
) -> dict[int | None, Strategy]:
    """The strategy by its seed; one without a seed stands under None.

    Raises `InputError` for options that it does not have, and for one that it lacks.
    """
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    options = (
        ("--trials", trials, "trials" in fields),
        ("--seed", seed, "seed" in fields),
        ("--seeds", seeds, "seed" in fields),
        ("--tuned", tuned, kind.flips),
        ("--refine", refine, kind.flips),
    )
    problems = [
        Problem(place=option, what=f"{kind.name} has no such option", remedy="remove it")
        for option, value, has in options
        if value is not None and not has
    ]
    if "trials" in fields and trials is None:
        what, remedy = f"{kind.name} needs it: how many it draws", "such as --trials 20"
        problems.append(Problem(place="--trials", what=what, remedy=remedy))
    if problems:
        raise InputError(problems)
    own: dict[str, Any] = {} if trials is None else {"trials": trials}
    if "seed" not in fields:
        return {None: kind(**own)}
    first = seed or 0
    return {n: kind(**{**own, "seed": n}) for n in range(first, first + (seeds or 1))}


def _unknown(place: str, name: str, what: str, known: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"available: {', '.join(known) or 'none'}"
    return Problem(place=place, what=f"{name!r} is not {what}", remedy=remedy)


def _complete_views(agenda: Agenda, names: Sequence[str]) -> tuple[list[CaseView], list[Problem]]:
    """Of the test cases named, or with one of `names` in theirs: those with their whole grid.

    And why the others are left out. Raises `InputError` for a name that is in none, and where none
    has its grid.
    """
    every = agenda.views()
    known = {str(view.case) for view in every}
    parts = [name for name in names if name not in known]
    there = f"available: {', '.join(map(str, agenda.cases))}"
    unknown = [
        Problem(place="--cases", what=f"no test case matches {part}", remedy=there)
        for part in parts
        if not any(part in name for name in known)
    ]
    if unknown:
        raise InputError(unknown)
    named = [v for v in every if str(v.case) in names or any(p in str(v.case) for p in parts)]
    lacking = [(view, _problem(view)) for view in named]
    left_out = [problem for _, problem in lacking if problem is not None]
    views = [view for view, problem in lacking if problem is None]
    if not views:
        raise InputError(left_out)
    return views, left_out


def _problem(view: CaseView) -> Problem | None:
    """What keeps a test case from having the outcomes of its whole grid."""
    place, walk = str(view.case), view.search.walk
    if not isinstance(walk, Exhaustive):
        what = f"its search is {walk.name}: not all of its grid is trained"
        return Problem(place=place, what=what, remedy="one of strategy: exhaustive has them all")
    if view.blocked:
        return Problem(place=place, what=view.blocked)
    if view.traversed:
        return None
    lacks = "its teacher's results"
    if view.ready:
        lacks = f"the results of {count(len(view.progress.wanted), 'trial')}"
    return Problem(
        place=place,
        what=f"is not complete: it lacks {lacks}",
        remedy="`kdsearch launch` resumes it",
    )


def _regrouped(spaces: Sequence[Space], tuned: str | None, refine: str | None) -> list[Space]:
    """The spaces of a strategy that flips axes. Raises `InputError`."""
    axes = [{axis.name for axis in (*space.compared, *space.tuned)} for space in spaces]
    known = sorted(set().union(*axes) - {OBJECTIVE})
    names = [name for name in _TUNED if name in known]
    problems = []
    if tuned is not None:
        names = [name for name in tuned.split(",") if name]
        problems = [
            _unknown("--tuned", name, "an axis that can be tuned", known)
            for name in names
            if name not in known
        ]
    refined = None
    if refine is not None:
        name, _, written = refine.partition("=")
        try:
            refined = Axis(name=name, values=tuple(map(float, written.split(","))))
        except ValueError:
            what, remedy = f"{refine!r} is not AXIS=VALUE,...", "such as temperature=1,4,16"
            problems.append(Problem(place="--refine", what=what, remedy=remedy))
        if name not in names:
            there = [each for each in names if each in known]
            problems.append(_unknown("--refine", name, "an axis that is tuned", there))
    if problems:
        raise InputError(problems)
    return [
        _space(space, names, refined if refined and refined.name in each else None)
        for space, each in zip(spaces, axes, strict=True)
    ]


def _space(space: Space, tuned: Sequence[str], refined: Axis | None) -> Space:
    if refined is not None:
        recorded_values = space.values(refined.name)
        if others := [f"{value:g}" for value in refined.values if value not in recorded_values]:
            there = ", ".join(map(shown_value, recorded_values))
            what = f"{', '.join(others)} is not among the recorded values of {refined.name}"
            raise InputError.one("--refine", what, f"available: {there}")
    try:
        return regrouped(space, tuned, refined)
    except ValueError as error:
        raise InputError.one("--refine", str(error)) from None


def _facts(
    agenda: Agenda, view: CaseView, space: Space, walks: Mapping[int | None, Strategy]
) -> dict[str, Any]:
    """What a strategy comes to in a test case, under each of its seeds."""
    table = recorded(agenda, view)
    grid = replay(Exhaustive(), view.space, table)
    found = {seed: replay(strategy, space, table) for seed, strategy in walks.items()}
    return {
        "case": str(view.case),
        "metric": agenda.resolved.datasets[view.case.dataset].metric,
        "grid": {"trainings": grid.trainings, **_choice(grid)},
        "replays": [
            {
                "seed": seed,
                "trainings": each.trainings,
                "trials": list(map(len, each.rounds)),
                **_choice(each),
                "regret": {"validation": each.validation_regret, "test": each.test_regret},
            }
            for seed, each in found.items()
        ],
        "regret": {
            "validation": _summary(each.validation_regret for each in found.values()),
            "test": _summary(each.test_regret for each in found.values()),
        },
    }


def _choice(found: Replayed) -> dict[str, Any]:
    return {
        "choice": str(found.chosen) if found.chosen else None,
        "validation": found.validation,
        "test": found.test,
    }


def _summary(values: Iterable[float | None]) -> dict[str, Any]:
    """Of the replays that have a value: the mean, the standard deviation and how many they are."""
    known = [value for value in values if value is not None]
    return {
        "mean": fmean(known) if known else None,
        "spread": stdev(known) if len(known) > 1 else None,
        "of": len(known),
    }


def _show(found: Mapping[str, Any]) -> None:
    out = console()
    draws = len(found["cases"][0]["replays"])
    times = f", {draws} draws, means ± standard deviations" if draws > 1 else ""
    table = Table(title=f"{found['strategy']} in {found['name']}{times}", box=None)
    for column in ("test case", "choice"):
        table.add_column(column, overflow="fold")
    for column in ("trainings", "rounds", "regret", "on test"):
        table.add_column(column, justify="right")
    for case in found["cases"]:
        replays = case["replays"]
        trainings = fmean(each["trainings"] for each in replays)
        table.add_row(
            case["case"],
            replays[0]["choice"] or "none has a score" if draws == 1 else f"{draws} draws",
            f"{trainings:,.10g} of {case['grid']['trainings']:,}",
            f"{fmean(len(each['trials']) for each in replays):g}",
            *(_written(case["regret"][split], draws) for split in ("validation", "test")),
        )
    out.print(table)
    out.print(_REGRET)
    for each in found["left_out"]:
        out.print(f"left out: {each['case']}: {each['why']}")


def _written(summary: Mapping[str, Any], draws: int) -> str:
    if summary["mean"] is None:
        return "—"
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.4f}"
    some = "" if summary["of"] == draws else f" ({summary['of']} of {draws})"
    return f"{summary['mean']:.4f}{spread}{some}"
