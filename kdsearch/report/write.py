"""Writing a report into the study's folder."""

from __future__ import annotations

import re
from pathlib import Path

from kdsearch.agenda import Agenda, Attempt, asked
from kdsearch.analysis import Analysis, analyse
from kdsearch.analysis.measures import case_measures
from kdsearch.analysis.noise import Noises
from kdsearch.analysis.smoothing import smoothing
from kdsearch.analysis.temperature import temperatures
from kdsearch.errors import shown
from kdsearch.ledger import Ledger, files_in, is_half, is_ours, layout
from kdsearch.ledger.tested import Tested
from kdsearch.report.document import document
from kdsearch.report.measures import measures_tables
from kdsearch.report.page import page
from kdsearch.report.plain import to_json
from kdsearch.report.smoothing import smoothing_tables
from kdsearch.study import Doubt

_PATH = re.compile(
    r"(?P<quote>['\"])~?/(?:[^'\"/\n]+/)+(?P<quoted>[^'\"/\n]*)(?P=quote)"
    r"|(?<![\w./])(?:file://)?~?/(?:[^\s'\":,;()/]+/)+(?P<bare>[^\s'\":,;()/]*)"
)
"""An absolute path with a folder in it; within quotes it may hold spaces."""


_SHORTEST_HOST = 4
"""Of a host's name without its domain; a shorter one may be a word, such as gpu."""


def write_report(ledger: Ledger, agenda: Agenda) -> Path:
    """Write report/report.html, .md and .json, and tables/*.csv and .tex; the path of the first.

    Tables that the study has no more, since it was changed, are removed.
    """
    files = report_files(ledger, agenda)
    for name, content in files.items():
        ledger.write(name, content)
    for name in files_in(ledger.disk, ledger.folder, layout.REPORT):
        if name not in files and is_ours(name) and not is_half(name):
            ledger.remove(name)
    return ledger.path(layout.report("html"))


def analyse_folder(ledger: Ledger, agenda: Agenda) -> Analysis:
    """The analysis of a study, with the noise of its gains as far as its folder has test rows."""
    return analyse(agenda, noises_of(ledger, agenda), ledger.facts)


def noises_of(ledger: Ledger, agenda: Agenda) -> Noises:
    """The noise of a study's gains as far as its folder has test rows."""
    return Noises(agenda, Tested(ledger.folder, ledger.disk).rows, ledger.kept_rows)


def report_files(ledger: Ledger, agenda: Agenda) -> dict[str, str]:
    """The files of a report, by their names in the study's folder; the page is the last."""
    # They import pandas, which takes as long as many a command.
    from kdsearch.report.latex import latex
    from kdsearch.report.tables import tables, to_csv
    from kdsearch.report.temperature_tables import temperature_tables

    analysis = analyse_folder(ledger, agenda)
    messages = failure_messages(ledger, analysis)
    preflight = ledger.preflight()
    doubts = tuple(map(_public_doubt, preflight.doubts)) if preflight else ()
    measured = case_measures(agenda, analysis.cases)
    smoothed = smoothing(agenda, analysis.cases)
    tempered = temperatures(agenda)
    frames = tables(analysis) | measures_tables(measured) | smoothing_tables(smoothed)
    frames |= temperature_tables(tempered)
    files = {}
    for name, frame in frames.items():
        files[layout.table(name, "csv")] = to_csv(frame)
        files[layout.table(name, "tex")] = latex(frame)
    more = (measured, smoothed, tempered)
    files[layout.report("json")] = to_json(analysis, agenda, messages, doubts, *more)
    files[layout.report("md")] = document(analysis, agenda, messages, doubts, *more)
    keys = asked(agenda)
    attempts = {key: tries for key, tries in ledger.attempts().items() if key in keys}
    public_tries = {
        key: [each.model_copy(update={"message": public(each)}) for each in tries]
        for key, tries in attempts.items()
    }
    files[layout.report("html")] = page(analysis, agenda, public_tries, doubts, *more)
    return files


def failure_messages(ledger: Ledger, analysis: Analysis) -> dict[str, str]:
    """Why each training that failed for good failed last, by key."""
    failed = {f.key for case in analysis.cases for f in case.failures if f.state == "failed"}
    tries = {key: ledger.attempts_of(key) for key in sorted(failed)}
    return {key: public(found[-1]) for key, found in tries.items() if found}


def public(attempt: Attempt) -> str:
    """What is said of a failed try where others may read it: without hosts, users and paths.

    The study's folder has the whole message, in `attempts/`.
    """
    text = _without_paths(attempt.message)
    hosts, short = [attempt.host], attempt.host.partition(".")[0]
    if len(short) >= _SHORTEST_HOST and not short.isdigit():
        hosts.append(short)
    for host in filter(None, hosts):
        text = re.sub(rf"\b{re.escape(host)}\b", "HOST", text)
    return shown(text)


def _public_doubt(doubt: Doubt) -> Doubt:
    return Doubt(
        place=_without_paths(doubt.place),
        what=_without_paths(doubt.what),
        remedy=_without_paths(doubt.remedy),
    )


def _without_paths(text: str) -> str:
    """`text` with the absolute paths in it cut to their names."""

    def name(path: re.Match[str]) -> str:
        quote = path["quote"] or ""
        return f"{quote}…/{path['quoted'] if quote else path['bare']}{quote}"

    return _PATH.sub(name, text)
