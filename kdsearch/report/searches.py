"""What each of a study's searches chose, side by side."""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.agenda import Agenda
from kdsearch.analysis import Analysis, CaseResult, Figures
from kdsearch.report.markdown import percent, points, score, table
from kdsearch.report.under_seeds import mean, named


def flipping(analysis: Analysis) -> Iterator[Figures]:
    """The figures of each search that has any."""
    if analysis.flips:
        yield analysis
        yield from analysis.further


def chosen(analysis: Analysis) -> list[CaseResult]:
    """The cases whose search chose something, those of one student beside one another."""
    return sorted(
        (case for case in analysis.cases if case.winner is not None),
        key=lambda case: (case.case.dataset, case.case.student),
    )


def searches_section(analysis: Analysis, agenda: Agenda) -> list[str]:
    """A section of report.md for a study with several searches, one without figures, or where
    what was chosen is trained under further seeds."""
    winner_seeds = analysis.winner_seeds
    if agenda.resolved.study.searches is None and analysis.flips and not winner_seeds:
        return []
    seeds = len(analysis.seeds) > 1
    rows = []
    for case in chosen(analysis):
        winner = case.winner
        assert winner is not None
        rate = None if winner.learning_rate is None else f"{winner.learning_rate:g}"
        test = score(winner.test, case.digits)
        test += f" ± {score(winner.spread, case.digits)}" if seeds else ""
        under = [mean(case.winner_under_seeds, case.digits)] if winner_seeds else []
        rows.append(
            (
                *(case.case, winner, rate, winner.epoch),
                *(
                    score(winner.validation, case.digits),
                    test,
                    *under,
                    percent(case.over_erm),
                    points(case.over_erm_points),
                ),
            )
        )
    under = [f"test over the seeds {named(winner_seeds)}"] if winner_seeds else []
    headers = ["test case", "chosen", "learning rate", "epoch", "validation", "test", *under]
    return [
        "## What each search chose",
        "Chosen by validation score, as are learning rate and epoch. The gain is over the same "
        "student trained on the labels alone (ERM), on test; points are the difference of the "
        "scores, the largest score being 100.",
        table([*headers, "over ERM, %", "points"], rows),
    ]
