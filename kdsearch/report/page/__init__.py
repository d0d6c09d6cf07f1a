"""report.html: one page that needs no network, with the same numbers as the other files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from kdsearch.agenda import FAILURES, Agenda, Attempt, Outcome, used
from kdsearch.analysis import Analysis, CandidateScores, CaseResult
from kdsearch.analysis.measures import CaseMeasures
from kdsearch.analysis.paper import CASES
from kdsearch.analysis.smoothing import Smoothing
from kdsearch.analysis.temperature import Temperatures
from kdsearch.report import trends
from kdsearch.report.answer import below, without_teacher
from kdsearch.report.case import best_on_test, gains_of, kept_sentence, noise_cells
from kdsearch.report.document import (
    DOUBTFUL,
    NOISE,
    TESTS,
    left_blank,
    not_asked_for,
    table_3_table,
    taught_by,
)
from kdsearch.report.figures import BY_CASE, papers_note, too_few, with_deciles
from kdsearch.report.floor import floor_section
from kdsearch.report.generations import generations_charts, generations_section
from kdsearch.report.glossary import Term, glossary
from kdsearch.report.levels import levels_section
from kdsearch.report.markdown import (
    NOTHING,
    duration,
    megabytes,
    number,
    percent,
    points,
    score,
    temperature,
    tie,
)
from kdsearch.report.marks import marks, metric_of, perplexity
from kdsearch.report.measures import MEASURES, cell, measures_charts, model_name, names_of, words
from kdsearch.report.page.figures import figure_charts, figures_on_page
from kdsearch.report.page.temperature_charts import temperature_charts
from kdsearch.report.path import PATH, path_lines
from kdsearch.report.practice import answer_table, lead
from kdsearch.report.row_words import described
from kdsearch.report.searches import flipping, searches_section
from kdsearch.report.sizes import FRONT, HEADERS, TITLE, rows, sizes_charts, timed
from kdsearch.report.smoothing import smoothing_charts, smoothing_on_page
from kdsearch.report.temperature import parts as temperature_parts
from kdsearch.report.temperature_words import TITLE as TEMPERATURE
from kdsearch.report.under_seeds import mean, named, sentence
from kdsearch.search import shown_at
from kdsearch.study import Doubt


@cache
def _environment() -> Environment:
    """Jinja's, which compiles the page once."""
    environment = Environment(
        loader=PackageLoader("kdsearch.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "score": score, "points": points}
    environment.filters |= {"megabytes": megabytes, "number": number, "duration": duration}
    environment.filters |= {"or_nothing": _or_nothing, "parts": _parts}
    environment.globals |= {
        each.__name__: each
        for each in (
            *(described, taught_by, best_on_test, gains_of, kept_sentence, left_blank, noise_cells),
            *(tie, temperature, words, cell, model_name, path_lines, named, mean, sentence),
            shown_at,
        )
    }
    environment.globals |= {
        "term_forms": _term_forms,
        "path_note": PATH,
        "measures": MEASURES,
        "by_case": BY_CASE,
        "doubtful": DOUBTFUL,
        "noise": _html(NOISE),
        "tests": TESTS,
        "paper_cases": CASES,
        "sized": {"title": TITLE, "note": FRONT, "headers": HEADERS, "rows": rows, "timed": timed},
        "trends_of": trends,
        "plotly": Markup(get_plotlyjs()),
    }
    source = environment.loader
    assert source is not None
    for name in (
        *("page.css", "page.js", "terms.js"),
        *("smoothing.js", "sizes.js", "trends.js", "generations.js", "temperature.js"),
    ):
        text, *_ = source.get_source(environment, name)
        environment.globals[name.replace(".", "_")] = Markup(text)
    return environment


def page(
    analysis: Analysis,
    agenda: Agenda,
    attempts: Mapping[str, Sequence[Attempt]],
    doubts: Sequence[Doubt] = (),
    measured: Sequence[CaseMeasures] = (),
    smoothed: Smoothing | None = None,
    tempered: Temperatures | None = None,
) -> str:
    """The content of report.html; `attempts` are the failed tries, by key.

    `doubts` are the preflight's about data and models; `measured` is what was measured beside the
    scores, `smoothed` distillation beside label smoothing, `tempered` students over the
    temperature.
    """
    names = names_of(measured)
    curves = smoothing_charts(agenda, smoothed)
    template = _environment().get_template("page.html.j2")
    return template.render(
        analysis=analysis,
        study=agenda.resolved.study,
        lead=_html("\n\n".join(lead(analysis))),
        answers=answer_table(analysis),
        below=_html("\n\n".join(below(analysis))),
        without_teacher=without_teacher(analysis),
        doubts=doubts,
        figures=figures_on_page(analysis),
        many=with_deciles(analysis),
        papers=any(row.paper for each in flipping(analysis) for row in each.comparisons),
        papers_note=papers_note(analysis),
        searches=_html("\n\n".join(searches_section(analysis, agenda))),
        levels=_html("\n\n".join(levels_section(analysis))),
        generations=_html("\n\n".join(generations_section(analysis))),
        without_floor=_html("\n\n".join(floor_section(analysis))),
        tables_3=[(e.search, e.table_3, *table_3_table(e)) for e in flipping(analysis)],
        too_few=" ".join(too_few(analysis)),
        measured=[case.models for case in measured],
        names=names,
        smoothed=smoothing_on_page(smoothed),
        curves=curves,
        temperature_title=TEMPERATURE,
        tempered=list(temperature_parts(tempered)) if tempered else [],
        seeds=len(analysis.seeds) > 1,
        metric_of=partial(metric_of, agenda),
        perplexity=perplexity,
        marks=partial(marks, analysis),
        not_asked_for=not_asked_for,
        glossary=partial(_glossary, agenda, names),
        erm=any(case.erm is not None for case in analysis.cases),
        data=_charts(analysis, agenda, names)
        | ({"smoothing": curves} if curves else {})
        | ({"temperature": temperature_charts(tempered)} if tempered else {}),
        messages={key: tries[-1].message for key, tries in attempts.items() if tries},
        failures=_failures(attempts),
        devices=_devices(used(agenda).values()),
        study_file=_study_file(agenda),
        resolved=agenda.resolved,
    )


def _html(markdown: str) -> Markup:
    """Markdown as the page has it: a table that is too wide scrolls by itself."""
    found = MarkdownIt("js-default").render(markdown)
    found = found.replace("<table>", '<div class="wide"><table>')
    return Markup(found.replace("</table>", "</table></div>"))


def _parts(name: object) -> Markup:
    """A test case's name, each part in the direction of its own script."""
    parts = (Markup("<bdi>{}</bdi>").format(part) for part in str(name).split("/"))
    return Markup("/<wbr>").join(parts)


def _glossary(
    agenda: Agenda, names: Sequence[str], content: Markup
) -> list[tuple[str, list[Term]]]:
    text = Markup(re.sub(r"<[^>]*>", " ", content)).unescape()
    return glossary(agenda, text, names)


def _term_forms(groups: Iterable[tuple[str, Iterable[Term]]]) -> list[tuple[list[str], str]]:
    """How each term is written, and what it means."""
    return [([*term.forms], term.text) for _, terms in groups for term in terms]


def _charts(analysis: Analysis, agenda: Agenda, names: Sequence[str]) -> dict[str, Any]:
    """The numbers that the page's script draws."""
    return {
        "figures": figure_charts(analysis),
        "cases": [
            _case(agenda, case) | measures_charts(agenda, view, case, names)
            for view, case in zip(agenda.views(), analysis.cases, strict=True)
        ],
        "sizes": sizes_charts(analysis),
        "generations": generations_charts(analysis, agenda),
        "trends": trends.trends_charts(analysis),
        "seed": analysis.seeds[0] if len(analysis.seeds) > 1 else None,
    }


def _or_nothing(value: object) -> object:
    return NOTHING if value is None else value


def _case(agenda: Agenda, case: CaseResult) -> dict[str, Any]:
    """What the charts of a test case show; numbers have six digits at most."""
    roles = (("chosen", case.winner), ("stable", case.stable), ("lazy", case.lazy))
    shown: list[tuple[str | None, CandidateScores]]
    shown = [(role, each) for role, each in roles if each is not None]
    compared = {str(e.choice): e for decision in case.path for e in decision.candidates}
    shown += [(None, each) for each in compared.values()]
    runs = [(role, str(each.choice), each.key) for role, each in shown]
    if case.erm is not None:
        runs.append(("ERM", "labels alone (ERM)", case.erm.key))
    return {
        "digits": case.digits,
        "path": _path(case),
        "choices": [
            {"role": role, "name": str(each.choice), "trials": _trials(each)}
            for role, each in shown
        ],
        "runs": [
            {"role": role, "name": name, "epochs": _epochs(agenda.results[key])}
            for role, name, key in runs
            if key is not None
        ],
    }


def _path(case: CaseResult) -> dict[str, Any] | None:
    """The default's scores, and what each decision brought."""
    if not case.steps:
        return None
    default = case.path[0].candidates[0]
    return {
        "digits": case.digits,
        "default": [_short(default.validation), _short(default.test)],
        "steps": [
            {
                "value": step.value,
                "kept": step.kept,
                "scores": [_short(step.validation), _short(step.test)],
                "gains": [_short(step.gain.validation), _short(step.gain.test)],
                "noise": _short(step.gain.noise.deviation) if step.gain.noise else None,
            }
            for step in case.steps
        ],
    }


def _trials(candidate: CandidateScores) -> list[list[float | None]]:
    return [
        [each.temperature, each.learning_rate, _short(each.validation), _short(each.test)]
        for each in candidate.tried
    ]


def _epochs(outcome: Outcome | None) -> list[list[float | None]]:
    epochs = outcome.epochs if outcome else ()
    return [[e.epoch, _short(e.train_loss), _short(e.validation)] for e in epochs]


def _named(value: Any) -> Any:
    """`value` with the absolute paths in it cut to their names."""
    if isinstance(value, dict):
        return {key: _named(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(each) for each in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f"…/{value.rstrip('/').rpartition('/')[2]}"
    return value


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _failures(attempts: Mapping[str, Sequence[Attempt]]) -> list[tuple[str, int]]:
    """How often a try failed, by class, the most frequent first."""
    count = Counter(attempt.failure for tries in attempts.values() for attempt in tries)
    return [(FAILURES[failure], number) for failure, number in count.most_common()]


def _devices(results: Iterable[Outcome | None]) -> list[tuple[str, int, int, float]]:
    """Device, hosts, trainings and hours; a training's hours count once, whatever it shared."""
    by_device: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in results:
        if outcome is not None:
            by_device[outcome.cost.device].append(outcome)
    return [
        (
            device,
            len({outcome.cost.host for outcome in outcomes}),
            len(outcomes),
            sum(outcome.cost.seconds for outcome in outcomes) / 3600,
        )
        for device, outcomes in sorted(by_device.items())
    ]


def _study_file(agenda: Agenda) -> str:
    """The study as it was resolved, without what has its default, and without its machine.

    Of a path that is absolute, or begins with a user's folder, only the name is left.
    """
    content = _named(agenda.resolved.study.model_dump(mode="json", exclude_defaults=True))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
