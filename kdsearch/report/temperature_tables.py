"""The tables of a temperature study as files, and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdsearch.analysis.temperature import Temperatures
from kdsearch.analysis.temperature_paired import Paired, Verdict
from kdsearch.report.temperature import ENTROPIES
from kdsearch.report.temperature_words import teacher_in_words, where_in_words

if TYPE_CHECKING:
    import pandas as pd


def temperature_tables(found: Temperatures | None) -> dict[str, pd.DataFrame]:
    """A row per line and temperature, per teacher, split and temperature, and per difference."""
    if found is None:
        return {}
    import pandas as pd

    return {
        "temperature": pd.DataFrame(_point_rows(found)),
        "temperature_teachers": pd.DataFrame(_teacher_rows(found), columns=_TEACHER_COLUMNS),
        "temperature_claims": pd.DataFrame(_claim_rows(found), columns=_CLAIM_COLUMNS),
    }


def _point_rows(found: Temperatures) -> Iterator[dict[str, object]]:
    always = ("dataset", "teacher", "checkpoint", "student", "objective", "optimizer", "epochs")
    names = tuple(dict.fromkeys((*always, *found.varied)))
    for line in found.lines:
        for point in line.points:
            measured = point.entropies or {}
            yield {
                **{name: line.factors.get(name) for name in names},
                "search": line.case.search,
                "temperature": point.temperature,
                "learnt_temperature": point.learnt_temperature,
                "learning_rate": point.learning_rate,
                "trials": point.trials,
                "state": point.state,
                "validation": point.validation,
                "test": point.test,
                "spread": point.spread,
                "best": line.best is point,
                **{n: each.mean if (each := measured.get(n)) else None for n in ENTROPIES},
                "key": point.key,
            }


_TEACHER_COLUMNS = ["dataset", "teacher", "checkpoint", "origin", "split", "temperature"]
_TEACHER_COLUMNS += ["relative_entropy", "relative_entropy_without_top", "highest", "lowest"]


def _teacher_rows(found: Temperatures) -> Iterator[dict[str, object]]:
    for teacher in found.teachers:
        for split, softmax in teacher.splits:
            for at in softmax:
                yield {
                    "dataset": teacher.dataset,
                    "teacher": teacher.teacher,
                    "checkpoint": teacher.checkpoint,
                    "origin": teacher_in_words(teacher.origin),
                    "split": split,
                    "temperature": at.temperature,
                    "relative_entropy": at.relative_entropy,
                    "relative_entropy_without_top": at.relative_entropy_without_top,
                    "highest": at.ranks[0],
                    "lowest": at.lowest,
                }


_CLAIM_COLUMNS = ["claim", "where", "verdict", "why", "difference", "mean", "low", "high", "seeds"]


def _claim_rows(found: Temperatures) -> Iterator[dict[str, object]]:
    """Of each claim its differences over all comparisons, then those of each comparison."""
    for finding in found.findings:
        every: list[tuple[str, Verdict | None, str | None, Sequence[Paired]]] = [
            ("all", finding.verdict, finding.why or None, finding.pooled)
        ]
        for each in finding.comparisons:
            verdict = each.verdict if each.parts else None
            every.append((where_in_words(each, found.varied), verdict, each.missing, each.parts))
        for where, verdict, why, differences in every:
            row: dict[str, object] = {"claim": str(finding.claim), "where": where}
            row |= {"verdict": verdict, "why": why}
            if not differences:
                yield row
            for part in differences:
                yield row | _difference_columns(part)


def _difference_columns(part: Paired) -> dict[str, object]:
    low, high = part.interval or (None, None)
    seeds = len(part.by_seed)
    return {"difference": part.what, "mean": part.mean, "low": low, "high": high, "seeds": seeds}
