"""The tables of a report as data frames: what the CSV files hold. Gains are fractions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import pandas as pd
from pandas.api.types import is_numeric_dtype

from kdsearch.analysis import (
    Analysis,
    CandidateScores,
    CaseResult,
    Comparison,
    Figures,
    LeftOut,
    TrialResult,
    UnderSeeds,
)
from kdsearch.analysis.paper import CASES
from kdsearch.analysis.statistics import Chance

SURE = ("D5_low", "D5_high", "p", "least_p", "blocks", "spread")
"""The median's 95 % interval, Wilcoxon's test, and the spread between seeds."""
DECILES = tuple(f"D{k}" for k in range(11))


def tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Every table by the name of its file."""
    found = figures(analysis)
    for number, further in enumerate(analysis.further, start=2):  # in their order in report.json
        found |= {f"{name}_{number}": each for name, each in figures(further).items()}
    return found | {
        "cases": cases(analysis),
        "path": path(analysis),
        "steps": steps(analysis),
        "sizes": sizes(analysis),
        "trends": trends(analysis),
        **({"generations": generations(analysis)} if analysis.generations else {}),
    }


def figures(found: Figures) -> dict[str, pd.DataFrame]:
    """The paper's figures and Table 3, of one search."""
    over_others = (found.stable_over_lazy, found.stable_over_random)
    return {
        "best_worst_random": comparisons(found.figure_1),
        "parameters": comparisons(found.figure_2),
        "stable": comparisons((*found.figure_3, *over_others)),
        "erm": comparisons((found.best_over_erm, found.stable_over_erm)),
        "rewards": rewards(found),
    }


def to_csv(frame: pd.DataFrame) -> str:
    """A table as CSV. A text that a spreadsheet would take for a formula is quoted with a '."""
    quoted = frame.copy()
    for name, column in frame.items():
        if not is_numeric_dtype(column):
            quoted[name] = column.map(_no_formula)
    return quoted.to_csv(index=False)


def _no_formula(cell: object) -> object:
    formula = isinstance(cell, str) and cell.strip().startswith(("=", "+", "-", "@"))
    return f"'{cell}" if formula else cell


def comparisons(rows: Iterable[Comparison]) -> pd.DataFrame:
    """A row per comparison, and the paper's own row after it."""
    found: list[dict[str, object]] = []
    for row in rows:
        name: dict[str, object] = {"figure": row.figure, "comparison": row.label}
        found.append(
            name
            | {"source": "this study", "n": row.n}
            | dict(zip(DECILES, row.deciles or (None,) * 11, strict=True))
            | dict(zip(("D5_low", "D5_high"), row.interval or (None, None), strict=True))
            | _chance(row.chance)
            | {"spread": row.spread}
            | {f"left_out_{reason}": row.left_out.get(reason, 0) for reason in LeftOut}
        )
        if row.paper is not None:
            fractions = [round(value / 100, 3) for value in row.paper.percent]
            paper: dict[str, object] = {"source": "paper", "n": CASES}
            found.append(name | paper | dict(zip(DECILES, fractions, strict=True)))
    columns = ["figure", "comparison", "source", "n", *DECILES, *SURE]
    columns += [f"left_out_{reason}" for reason in LeftOut]
    whole = {"blocks": "Int64"} | {
        name: "Int64" for name in columns if name.startswith("left_out_")
    }
    return pd.DataFrame(found, columns=columns).astype({"figure": "Int64", **whole})


def _chance(chance: Chance | None) -> dict[str, object]:
    return {
        "p": chance.p if chance else None,
        "least_p": chance.least_p if chance else None,
        "blocks": chance.blocks if chance else None,
    }


def gains(rows: Iterable[Comparison]) -> pd.DataFrame:
    """A row per test case of each comparison."""
    found = [
        (
            row.figure,
            row.label,
            str(each.case),
            each.gain,
            each.points,
            each.spread,
            each.noise.deviation if each.noise else None,
        )
        for row in rows
        for each in row.gains
    ]
    columns = ["figure", "comparison", "case", "gain", "points", "spread", "noise"]
    frame = pd.DataFrame(found, columns=columns)
    return frame.astype({"figure": "Int64", "spread": float, "noise": float})


def rewards(found: Figures) -> pd.DataFrame:
    """Table 3."""
    columns = ["parameter", "comparison", "R", "better", "worse", "equal", "unscored"]
    columns += ["p", "least_p", "blocks", "told_from_chance", "paper_R"]
    rows = [
        (
            *(r.parameter, r.label, r.reward, r.better, r.worse, r.equal, r.unscored),
            *(*_chance(r.chance).values(), r.chance.told_apart, r.paper),
        )
        for r in found.table_3.rows
    ]
    return pd.DataFrame(rows, columns=columns).astype({"paper_R": "Int64"})


def cases(analysis: Analysis) -> pd.DataFrame:
    """A row per test case."""
    rows = [
        _names(case)
        | {"state": str(case.state), "reason": case.reason, "metric": case.metric}
        | {"coinciding": case.coinciding, "at_floor": case.at_floor is not None}
        | _scores("winner", case.winner)
        | (_under_seeds(case.winner_under_seeds) if analysis.winner_seeds else {})
        | {"best_test": case.best_on_test}
        | _scores("stable", case.stable)
        | {"stable_over_default_points": case.stable_over_default}
        | _scores("lazy", case.lazy)
        | _teacher(case)
        | _erm(case)
        | _size(case)
        | {"failures": len(case.failures)}
        | {f"{each.kind}_seconds": each.seconds for each in case.cost}
        for case in analysis.cases
    ]
    return pd.DataFrame(rows)


def generations(analysis: Analysis) -> pd.DataFrame:
    """A row per generation of each line of students that teach students."""
    rows = [
        {
            **asdict(each.case),
            "generation": each.number,
            "teacher_test": each.teacher,
            "validation": each.validation,
            "test": each.test,
            "points_over_before": each.over_before,
            "noise": each.over_before_noise.deviation if each.over_before_noise else None,
        }
        for line in analysis.generations
        for each in line.generations
    ]
    return pd.DataFrame(rows).drop_duplicates()


def path(analysis: Analysis) -> pd.DataFrame:
    """A row per candidate of each decision of each test case."""
    columns = ["dataset", "teacher", "student", "search", "step", "parameter", "value", "choice"]
    columns += [
        "validation",
        "test",
        "spread",
        "temperature",
        "learning_rate",
        "trials",
        "won",
        "key",
    ]
    rows = [
        _names(case)
        | {"step": number, "parameter": decision.parameter, "value": each.value}
        | {"choice": str(each), "validation": each.validation, "test": each.test}
        | {"spread": each.spread}
        | {"temperature": each.temperature, "learning_rate": each.learning_rate}
        | {"trials": each.trials, "won": position == decision.winner, "key": each.key}
        for case in analysis.cases
        for number, decision in enumerate(case.path, start=1)
        for position, each in enumerate(decision.candidates)
    ]
    return pd.DataFrame(rows, columns=columns)


def steps(analysis: Analysis) -> pd.DataFrame:
    """A row per step of each test case, from the default to what is chosen; gains as scores are."""
    columns = ["dataset", "teacher", "student", "search", "step", "parameter", "value", "kept"]
    columns += ["validation", "test", "validation_gain", "test_gain", "noise", "spread"]
    rows = [
        _names(case)
        | {"step": number, "parameter": step.parameter, "value": step.value, "kept": step.kept}
        | {"validation": step.validation, "test": step.test}
        | {"validation_gain": step.gain.validation, "test_gain": step.gain.test}
        | {"noise": step.gain.noise.deviation if step.gain.noise else None}
        | {"spread": step.gain.spread}
        for case in analysis.cases
        for number, step in enumerate(case.steps, start=1)
    ]
    return pd.DataFrame(rows, columns=columns).astype({"noise": float, "spread": float})


def sizes(analysis: Analysis) -> pd.DataFrame:
    """A row per model of each data set."""
    columns = ["dataset", "metric", "model", "kind", "test", "spread", "on_front"]
    columns += ["parameters", "bytes", "examples_per_second", "device"]
    rows = [
        {"dataset": found.dataset, "metric": found.metric, "model": model.name}
        | {"kind": str(model.kind), "test": model.test, "spread": model.spread}
        | {"on_front": model.on_front}
        | asdict(model.size)
        for found in analysis.sizes
        for model in found.models
    ]
    return pd.DataFrame(rows, columns=columns).astype({"spread": float})


def trends(analysis: Analysis) -> pd.DataFrame:
    """A row per test case of each trend; agreement is a fraction, all else in points."""
    rows = [
        {"trend": str(trend.of)} | asdict(point.case) | {"x": point.x, "y": point.y}
        for trend in analysis.trends
        for point in trend.points
    ]
    columns = ["trend", "dataset", "teacher", "student", "search", "x", "y"]
    return pd.DataFrame(rows, columns=columns)


def trials(found: Sequence[TrialResult]) -> pd.DataFrame:
    """A row per trial of each test case; a parameter that is inactive in it is empty."""
    names = ["case", "dataset", "teacher", "student", "search", "state", "objective", "checkpoint"]
    objectives = [each.trial.objective for each in found]
    told = {name for each in objectives for name in each.parameters.keys() - each.spared}
    axes = [
        {name: value for name, value in each.trial.objective.parameters.items() if name in told}
        | dict(each.trial.settings)
        for each in found
    ]
    columns = [*names, *dict.fromkeys(name for values in axes for name in values)]
    columns += ["validation", "test", "spread", "epoch", "seconds", "key"]
    rows = [
        {"case": str(each.case), **asdict(each.case), "state": each.state}
        | {"objective": each.trial.objective.kind, "checkpoint": each.trial.checkpoint}
        | values
        | {"validation": each.validation, "test": each.test, "spread": each.spread}
        | {"epoch": each.epoch, "seconds": each.seconds, "key": each.key}
        for each, values in zip(found, axes, strict=True)
    ]
    return pd.DataFrame(rows, columns=columns).astype({"epoch": "Int64", "spread": float})


def _names(case: CaseResult) -> dict[str, object]:
    names = case.case
    return asdict(names)


def _scores(name: str, result: CandidateScores | None) -> dict[str, object]:
    return {
        name: str(result) if result else None,
        f"{name}_validation": result.validation if result else None,
        f"{name}_test": result.test if result else None,
        f"{name}_spread": result.spread if result else None,
    }


def _under_seeds(found: UnderSeeds | None) -> dict[str, object]:
    return {
        "winner_seeds_test": found.test if found else None,
        "winner_seeds_spread": found.spread if found else None,
    }


def _erm(case: CaseResult) -> dict[str, object]:
    erm = case.erm
    return {
        "erm_validation": erm.validation if erm else None,
        "erm_test": erm.test if erm else None,
        "over_erm": case.over_erm,
        "over_erm_points": case.over_erm_points,
        "over_erm_noise": case.over_erm_noise.deviation if case.over_erm_noise else None,
        "gap_closed": case.gap_closed,
        "gap_closed_noise": case.gap_closed_noise.deviation if case.gap_closed_noise else None,
    }


def _size(case: CaseResult) -> dict[str, object]:
    size = case.size
    return {
        "parameters": size.parameters if size else None,
        "bytes": size.bytes if size else None,
        "examples_per_second": size.examples_per_second if size else None,
    }


def _teacher(case: CaseResult) -> dict[str, object]:
    columns: dict[str, object] = {}
    for each in case.teachers:
        columns[f"{each.checkpoint}_epoch"] = each.epoch
        columns[f"{each.checkpoint}_validation"] = each.validation
        columns[f"{each.checkpoint}_test"] = each.test
    return columns
