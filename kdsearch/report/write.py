"""Writing a report into the study's folder."""

from __future__ import annotations

from pathlib import Path

from kdsearch.agenda import Agenda, asked
from kdsearch.analysis import Analysis, analyse
from kdsearch.ledger import Ledger
from kdsearch.report.document import document
from kdsearch.report.latex import latex
from kdsearch.report.page import page
from kdsearch.report.plain import to_json
from kdsearch.report.tables import tables


def write_report(ledger: Ledger, agenda: Agenda) -> Path:
    """Write report/report.html, .md and .json, and tables/*.csv and .tex; the path of the first."""
    analysis = analyse(agenda)
    messages = failure_messages(ledger, analysis)
    preflight = ledger.preflight()
    doubts = preflight.doubts if preflight else ()
    for name, frame in tables(analysis).items():
        ledger.write(f"report/tables/{name}.csv", frame.to_csv(index=False))
        ledger.write(f"report/tables/{name}.tex", latex(frame))
    ledger.write("report/report.json", to_json(analysis, agenda, messages, doubts))
    ledger.write("report/report.md", document(analysis, agenda, messages, doubts))
    keys = asked(agenda)
    attempts = {key: tries for key, tries in ledger.attempts().items() if key in keys}
    ledger.write("report/report.html", page(analysis, agenda, attempts, doubts))
    return ledger.folder / "report" / "report.html"


def failure_messages(ledger: Ledger, analysis: Analysis) -> dict[str, str]:
    """Why each training that failed for good failed last, by key."""
    failed = {f.key for case in analysis.cases for f in case.failures if f.state == "failed"}
    tries = {key: ledger.attempts_of(key) for key in sorted(failed)}
    return {key: found[-1].message for key, found in tries.items() if found}
