"""Distillation beside label smoothing: a section of report.md and of the page, and two tables.

All of it is empty for a study that does not train a student in all three ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from kdsearch.agenda import Agenda
from kdsearch.analysis.measures import Measured
from kdsearch.analysis.smoothing import ENTROPIES, ENTROPY, Method, Rows, Smoothing, Verdict
from kdsearch.analysis.smoothing_claims import TAUGHT, Finding, Kind
from kdsearch.analysis.smoothing_paper import SOURCE, Chosen
from kdsearch.report.markdown import NOTHING, percent, score, table
from kdsearch.report.measures import NOT_MEASURED, cell, run_for_chart, words
from kdsearch.study import SPLITS

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Distillation and label smoothing"
HOW = (
    "What each method chose by validation, and how undecided that made the student: the mean "
    "entropy of its posterior on test, in nats. From a larger teacher it is KD, from one of the "
    "student’s own size self-KD, from a smaller one reverse KD. The teacher’s entropy is that of "
    "the checkpoint that taught."
)
PAPERS = (
    f"The paper’s numbers ({SOURCE}) are for reading: they are of BERT and DistilBERT, on other "
    "rows of these data sets, of one run each."
)
CLAIMS = (
    f"The claims of {SOURCE}. “As chosen” is on test, at the epoch that validation chose for each "
    "method. “At equal rate and epochs” is on validation: each method’s choice at the learning "
    "rate and the epoch that were best for ERM. A difference is the first value less the second, "
    "of entropies in nats or of scores; ± is its standard deviation between seeds, and a "
    "difference smaller than that, “within ±”, may be noise. The paper has exceptions of its own: "
    "self-KD raises the entropy on MNLI, reverse KD lowers it on QNLI, and label smoothing wins on "
    "SST-2."
)
ROWS = (
    "The rows of each split, and the paper’s (its Table 6): what is cut off another split is drawn "
    "by the seed, so that equal numbers need not be equal rows."
)
_CHOSEN, _EQUAL = "as chosen", "at equal rate and epochs"
_TEXTS = frozenset(
    (
        *("method", "chosen", "claim", "compared", "paper"),
        *(text for each in (_CHOSEN, _EQUAL) for text in (each, f"values {each}")),
        "paper’s values",
    )
)
"""The headers of columns of words."""
_HOLDS = {True: "holds", False: "does not hold"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as both report.md and the page show it."""

    headers: list[str]
    rows: list[tuple[object, ...]]
    wraps: bool = False
    """Whether its cells may have several lines on the page."""


def smoothing_section(found: Smoothing | None) -> list[str]:
    """The section of report.md."""
    if found is None:
        return []
    parts = ((note, table(each.headers, each.rows)) for note, each in _parts(found))
    return [f"## {TITLE}", *(text for part in parts for text in part)]


@dataclass(frozen=True, kw_only=True)
class OnPage:
    """The section of the page."""

    parts: list[tuple[str, Table]]
    """A table, and how to read it."""
    title: str = TITLE
    texts: frozenset[str] = _TEXTS
    """The headers of columns of words."""


def smoothing_on_page(found: Smoothing | None) -> OnPage | None:
    """The section of the page; None where there is none."""
    if found is None:
        return None
    return OnPage(parts=list(_parts(found)))


def _parts(found: Smoothing) -> Iterator[tuple[str, Table]]:
    paper = f" {PAPERS}" if any(each.published for each in found.methods) else ""
    yield f"{HOW}{paper}", methods_table(found)
    verdicts = claims_table(found)
    if verdicts.rows:
        yield CLAIMS, verdicts
    if found.rows:
        yield ROWS, rows_table(found)


def methods_table(found: Smoothing) -> Table:
    """A row per method; with the paper's numbers where it has any of the data sets."""
    paper = any(each.published for each in found.methods)
    headers = ["test case", "method", "chosen", "learning rate", "epochs", "validation", "test"]
    headers += ["over ERM, %", *map(words, ENTROPIES), "teacher’s entropy"]
    headers += ["paper: entropy", "paper: accuracy", "paper: chosen"] if paper else []
    return Table(headers=headers, rows=[_row(each, paper) for each in found.methods])


def _row(method: Method, paper: bool) -> tuple[object, ...]:
    rate, over = method.learning_rate, method.over_erm
    shown = partial(score, digits=method.digits)
    spread = f" ± {shown(method.spread)}" if method.spread is not None else ""
    gain = None
    if over is not None:
        gain = percent(over.gain) + (
            f" ± {percent(over.spread)}" if over.spread is not None else ""
        )
    entropies = (
        NOTHING if method.entropies is None else cell(method.entropies, name) for name in ENTROPIES
    )
    teacher = None if method.teacher is None else cell(method.teacher, ENTROPY)
    return (
        *(method.case, method.kind, method.choice, None if rate is None else f"{rate:g}"),
        *(", ".join(map(str, method.epochs)) or None, shown(method.validation)),
        *(shown(method.test) + spread, gain, *entropies, teacher),
        *(_published(method) if paper else ()),
    )


def _published(method: Method) -> tuple[object, ...]:
    found = method.published
    if found is None:
        return None, None, None
    return score(found.entropy), f"{found.score:.3f}", _papers_choice(found.chosen)


def _papers_choice(chosen: Chosen | None) -> str | None:
    if chosen is None:
        return None
    parts = {"α": chosen.alpha, "τ": chosen.temperature, "lr": chosen.learning_rate}
    named = [f"{name}={value:g}" for name, value in parts.items() if value is not None]
    return f"{' '.join(named)}, {chosen.epochs} epochs"


def claims_table(found: Smoothing) -> Table:
    """A row per claim and what it compares: first which way it went, then the values."""
    paper = any(each.published for each in found.verdicts)
    headers = ["claim", _CHOSEN, _EQUAL, *(["paper"] if paper else []), "compared"]
    for each in (_CHOSEN, _EQUAL):
        headers += [f"values {each}", "difference"]
    headers += ["paper’s values"] if paper else []
    return Table(
        headers=headers, rows=[_verdict(each, paper) for each in found.verdicts], wraps=True
    )


def _verdict(found: Verdict, paper: bool) -> tuple[object, ...]:
    own, published = (found.chosen, found.equal), found.published
    papers = [holds(published) if published else None] if paper else []
    return (
        f"{found.dataset}: {found.claim}",
        *(_within(each) for each in own),
        *papers,
        "; ".join(found.compared),
        *(text for each in own for text in (_values(each), _difference(each.difference))),
        *([_values(published) if published else None] if paper else []),
    )


def _within(found: Finding) -> str:
    """Which way a claim went, and whether by no more than seeds differ."""
    apart = found.difference
    noise = apart is not None and apart.spread is not None and abs(apart.mean) < apart.spread
    return f"{holds(found)}, within ±" if noise else holds(found)


def rows_table(found: Smoothing) -> Table:
    """The rows of each split beside the paper's."""
    return Table(
        headers=["data set", *SPLITS, *(f"paper: {split}" for split in SPLITS)],
        rows=[
            (
                each.dataset,
                *(f"{rows[s]:,}" for rows in (each.splits, each.published) for s in SPLITS),
            )
            for each in found.rows
        ],
    )


def _values(found: Finding) -> str:
    return ", ".join(f"{name} {score(value)}" for name, value in found.values)


def _difference(found: Measured | None) -> str:
    if found is None:
        return NOT_MEASURED
    spread = f" ± {score(found.spread)}" if found.spread is not None else ""
    return f"{found.mean:+.4f}{spread}".replace("-", "−")


def holds(found: Finding) -> str:
    """Which way a claim went, in words."""
    if found.holds is not None:
        return _HOLDS[found.holds]
    return NOT_MEASURED if any(value is None for _, value in found.values) else "undecided"


def smoothing_tables(found: Smoothing | None) -> dict[str, pd.DataFrame]:
    """A row per method, and one per claim, by the names of the tables' files."""
    if found is None:
        return {}
    import pandas as pd

    return {
        "smoothing": pd.DataFrame([_columns(each) for each in found.methods]),
        "smoothing_claims": pd.DataFrame(
            [_claim(each) for each in found.verdicts], columns=_CLAIM_COLUMNS
        ),
        **({"smoothing_rows": pd.DataFrame(map(_rows, found.rows))} if found.rows else {}),
    }


def _rows(found: Rows) -> dict[str, object]:
    papers = {f"paper_{split}": rows for split, rows in found.published.items()}
    return {"dataset": found.dataset, **found.splits, **papers}


def _columns(method: Method) -> dict[str, object]:
    over, paper = method.over_erm, method.published
    chosen = paper.chosen if paper else None
    columns: dict[str, object] = {
        **asdict(method.case),
        "method": str(method.kind),
        "choice": None if method.choice is None else str(method.choice),
        "learning_rate": method.learning_rate,
        "epochs": " ".join(map(str, method.epochs)) or None,
        "validation": method.validation,
        "test": method.test,
        "spread": method.spread,
        "over_erm": over.gain if over else None,
        "over_erm_spread": over.spread if over else None,
    }
    for prefix, measures in (("", method.entropies), ("teacher_", method.teacher)):
        for name in ENTROPIES:
            value = (measures or {}).get(name)
            columns[prefix + name] = value.mean if value else None
            if not prefix:
                columns[f"{name}_spread"] = value.spread if value else None
    return columns | {
        "key": method.key,
        "paper_entropy": paper.entropy if paper else None,
        "paper_accuracy": paper.score if paper else None,
        "paper_alpha": chosen.alpha if chosen else None,
        "paper_temperature": chosen.temperature if chosen else None,
        "paper_learning_rate": chosen.learning_rate if chosen else None,
        "paper_epochs": chosen.epochs if chosen else None,
    }


_CLAIM_COLUMNS = ["claim", "dataset", "student", "compared"]
_CLAIM_COLUMNS += [
    f"{where}_{what}"
    for where in ("chosen", "equal", "paper")
    for what in ("values", "difference", "spread", "holds")
]


def _claim(verdict: Verdict) -> dict[str, object]:
    columns: dict[str, object] = {
        "claim": str(verdict.claim),
        "dataset": verdict.dataset,
        "student": verdict.student,
        "compared": "; ".join(verdict.compared),
    }
    for where, found in (
        ("chosen", verdict.chosen),
        ("equal", verdict.equal),
        ("paper", verdict.published),
    ):
        if found is not None:
            columns[f"{where}_values"] = _values(found)
            columns[f"{where}_difference"] = found.difference.mean if found.difference else None
            columns[f"{where}_spread"] = found.difference.spread if found.difference else None
            columns[f"{where}_holds"] = holds(found)
    return columns


def smoothing_charts(agenda: Agenda, found: Smoothing | None) -> list[dict[str, Any]]:
    """Of each student the entropy along training by method, under the first seed (Figures 1–4)."""
    students: dict[str, list[dict[str, Any]]] = {}
    for method in found.methods if found else ():
        outcome = agenda.results.get(method.key) if method.key else None
        runs = students.setdefault(f"{method.case.dataset}: {method.case.student}", [])
        if outcome is not None:
            search = f" ({method.case.search})" if method.kind in (*TAUGHT, Kind.LS) else ""
            role = "ERM" if method.kind is Kind.ERM else None
            runs.append(run_for_chart(f"{method.kind}{search}", outcome, (ENTROPY,), role))
    return [{"title": title, "measured": runs} for title, runs in students.items()]
