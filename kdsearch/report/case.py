"""A test case in report.md: where it stands, its models, its path, its gains and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from kdsearch.analysis import Analysis, CandidateScores, CaseResult, Size, Spent
from kdsearch.analysis.noise import Noise
from kdsearch.report.figures import identical
from kdsearch.report.markdown import (
    duration,
    escape,
    megabytes,
    metric_in_words,
    number,
    percent,
    points,
    score,
    table,
    temperature,
    tie,
)
from kdsearch.report.marks import perplexity
from kdsearch.report.path import path_lines
from kdsearch.report.under_seeds import sentence


def case_section(analysis: Analysis, case: CaseResult, messages: Mapping[str, str]) -> list[str]:
    """A test case as a section of report.md; `messages` says by key why a training failed."""
    sections = [f"### {escape(case.case)}", _standing(case)]
    if case.teachers:
        sections.append(_teachers(case))
    if case.coinciding:
        sections.append("t_hs and t_ll are the same checkpoint.")
    if text := kept_sentence(case):
        sections.append(text)
    if lines := path_lines(case):
        sections.append("\n".join(f"- {escape(line)}" for line in lines))
    if case.path:
        sections.append(_path(case))
    if gains := gains_of(analysis, case):
        rows = [(label, percent(gain), *noise_cells(gain, noise)) for label, gain, noise in gains]
        sections.append(table(["gain on test, %", "gain", "± noise", "noise over"], rows))
    if case.failures:
        sections.append("Without a score:")
        sections.append("\n".join(_failure(case, messages)))
    sections.append("Cost, including what it shares with other cases:")
    sections.append(spent_table(case.cost))
    return sections


def _teachers(case: CaseResult) -> str:
    headers = ["model", "epoch", "validation", "test", "parameters", "MB", "examples/s"]
    shown = partial(score, digits=case.digits)
    rows: list[tuple[object, ...]] = [
        (f"teacher {t.checkpoint}", t.epoch, shown(t.validation), shown(t.test), *_size(t.size))
        for t in case.teachers
    ]
    winner = case.winner
    scores = (shown(winner.validation), shown(winner.test)) if winner else (None, None)
    rows.append(("student", None, *scores, *_size(case.size)))
    return table(headers, rows)


def _size(size: Size | None) -> tuple[object, object, object]:
    if size is None:
        return None, None, None
    speed = size.examples_per_second
    shown = None if speed is None else f"{speed:,.0f}"
    return f"{size.parameters:,}", megabytes(size.bytes), shown


def _standing(case: CaseResult) -> str:
    text = str(case.state).capitalize() + (f": {escape(case.reason)}" if case.reason else "") + "."
    if case.at_floor:
        text += f" At the floor: {escape(case.at_floor)}."
    if case.metric is not None:
        text += f" Scored by {metric_in_words(case.metric)}."
    if case.winner is not None:
        text += perplexity(case.metric, case.winner.test)
        text += f" Its search chose **{escape(case.winner)}**."
        if case.winner.validation is None:
            text += " No candidate of its last decision has a score."
    if case.start is not None:
        start, shown = case.start, partial(score, digits=case.digits)
        text += f" Its student starts from epoch {start.epoch} of {escape(start.teacher)}: "
        text += f"{shown(start.validation)} on validation, {shown(start.test)} on test."
    if case.stable_over_default is not None and case.stable_over_default < 0:
        lost = points(-case.stable_over_default)[1:]
        text += f" The stable configuration scores {lost} points of 100 less than the default."
    if under := sentence(case.winner_under_seeds, case.digits):
        text += f" {under}"
    if best := best_on_test(case):
        text += f" {best}"
    return text


def best_on_test(case: CaseResult) -> str:
    """The highest test score of the candidates of a case, in a sentence; empty where none is."""
    if case.best_on_test is None:
        return ""
    text = "The highest test score among its candidates, which chooses nothing, is "
    text += f"{score(case.best_on_test, case.digits)}."
    if any(decision.parameter == "alpha" for decision in case.path):
        text += " Of the α, the default and what validation chose count here, as in Figure 1."
    return text


def kept_sentence(case: CaseResult) -> str:
    """What its students learnt from, where that is not all of its teacher's outputs."""
    found = dict.fromkeys(f"{t.checkpoint}: {t.kept}" for t in case.teachers if t.kept)
    return f"Kept of the teacher’s outputs: {'; '.join(found)}." if found else ""


def _path(case: CaseResult) -> str:
    headers = ["choice", "decision", "validation", "test", "τ_t", "learning rate", "trials", "won"]
    named: list[tuple[str, CandidateScores, str]] = [
        (
            decision.parameter,
            each,
            f"yes{tie(decision.tied)}" if position == decision.winner else "",
        )
        for decision in case.path
        for position, each in enumerate(decision.candidates)
    ]
    seeds = any(each.spread is not None for _, each, _ in named)
    shown = partial(score, digits=case.digits)
    second = {"stable": case.stable, "lazy": case.lazy}
    named += [(name, each, "") for name, each in second.items() if each is not None]
    rows: list[tuple[object, ...]] = [
        (
            each,
            parameter,
            shown(each.validation),
            shown(each.test) + (f" ± {shown(each.spread)}" if seeds else ""),
            temperature(each.temperature, each.effective_temperature),
            number(each.learning_rate),
            f"{each.trials}{tie(each.tied)}",
            won,
        )
        for parameter, each, won in named
    ]
    if case.erm is not None:
        erm = case.erm
        spread = f" ± {shown(erm.spread)}" if seeds else ""
        scores = (shown(erm.validation), shown(erm.test) + spread)
        rate = number(erm.learning_rate)
        rows.append(("labels alone (ERM)", "erm", *scores, None, rate, erm.trials, ""))
    return table(headers, rows)


def gains_of(analysis: Analysis, case: CaseResult) -> list[tuple[str, float, Noise | None]]:
    """The gains on test in one test case, with their names and noise."""
    found = [
        (row.label, gain.gain, gain.noise)
        for figures in (analysis, *analysis.further)
        for row in figures.comparisons
        for gain in row.gains
        if gain.case == case.case
    ]
    if case.gap_closed is not None:
        found.append(("share of the gap to its teacher", case.gap_closed, case.gap_closed_noise))
    if case.over_teacher is not None:
        found.append(("chosen over its teacher", case.over_teacher, case.over_teacher_noise))
    return found


def noise_cells(gain: float, noise: Noise | None) -> tuple[str, str | None]:
    """The noise of a gain in percent, and what it was drawn over."""
    if noise is None:
        return "not known", None
    return "identical" if identical(gain, noise) else percent(noise.deviation), str(noise.of)


def _failure(case: CaseResult, messages: Mapping[str, str]) -> Iterable[str]:
    for failure in case.failures:
        message = messages.get(failure.key)
        why = f" ({escape(message)})" if message else ""
        yield f"- {escape(failure.training)}: {escape(failure.what)}{why}"


def spent_table(rows: Iterable[Spent]) -> str:
    """What trainings became and took, by their kind."""
    headers = ["trainings", "scored", "diverged", "failed", "time"]
    return table(
        headers,
        [
            (each.kind, each.scored, each.diverged, each.failed, duration(each.seconds))
            for each in rows
        ],
    )
