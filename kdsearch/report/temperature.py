"""The section of a temperature study: its tables, in report.md and on the page.

All of it is empty for a study that sweeps no temperature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdsearch.agenda import Softmax
from kdsearch.analysis.temperature import SoftTeacher, Temperatures
from kdsearch.analysis.temperature_finding import Claim, Finding
from kdsearch.analysis.temperature_lines import (
    OF_TEACHER,
    SUPERVISION,
    TemperatureLine,
    TemperaturePoint,
    longest,
    over_datasets,
)
from kdsearch.analysis.temperature_paired import Compared, Paired, Verdict
from kdsearch.report.markdown import NOTHING, change, score, table
from kdsearch.report.measures import NOT_MEASURED, cell
from kdsearch.report.temperature_words import (
    BY_DATASET,
    BY_STUDENT,
    BY_TEACHER,
    CLAIMS,
    CONTROLS,
    HOW,
    NUMBERS,
    TEACHERS,
    TITLE,
    label,
    student_in_words,
    teacher_in_words,
    temperature_in_words,
    where_in_words,
)

_TEXTS = frozenset(
    ("teacher", "student", "origin", "starts from", "claim", "verdict", "why", "split", "held in")
)
"""The headers of columns of words."""


@dataclass(frozen=True, kw_only=True)
class Shade:
    """A cell whose ground is the stronger, the larger its share of the table's range is."""

    text: str
    share: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as both report.md and the page show it; cells are text, or a `Shade`."""

    headers: list[str]
    rows: list[tuple[object, ...]]
    caption: str = ""
    wraps: bool = False
    texts: frozenset[str] = _TEXTS


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some tables, with how to read them."""

    title: str
    note: str
    tables: list[Table]
    folded: bool = False
    """Whether the page shows it when it is asked for."""
    charts: str | None = None
    """Which of the section's charts stand behind its note."""


@dataclass(frozen=True, kw_only=True)
class OnPage:
    """The section of the page."""

    parts: list[Part]
    title: str = TITLE
    charts: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def temperature_section(found: Temperatures | None) -> list[str]:
    """The section of report.md."""
    if found is None:
        return []
    texts = [f"## {TITLE}"]
    for part in parts(found):
        texts += [f"### {part.title}"] if part.title else []
        texts += [part.note] if part.note else []
        for each in part.tables:
            texts += [f"{each.caption}:"] if each.caption else []
            texts.append(table(each.headers, each.rows))
    return texts


def parts(found: Temperatures) -> Iterator[Part]:
    """What the section has, in its order."""
    yield Part(title="", note=f"{HOW}{_at_ends(found)}", tables=[], charts="lines")
    yield Part(title="What is claimed", note=CLAIMS, tables=[claims_table(found)])
    yield Part(title="", note="", tables=_comparisons(found), folded=True)
    if any(teacher.taught or teacher.on_test for teacher in found.teachers):
        tables = [teachers_table(found)]
        yield Part(title="Teachers at each τ", note=TEACHERS, tables=tables, charts="softmax")
    controls = [*_by_supervision(found)]
    if controls:
        yield Part(
            title="What is learnt of the teacher", note=CONTROLS, tables=controls, charts="controls"
        )
    for title, note, tables in (
        ("By teacher", BY_TEACHER, [*_by_teacher(found)]),
        ("By student", BY_STUDENT, [*_by_student(found)]),
    ):
        if tables:
            yield Part(title=title, note=note, tables=tables)
    if tables := _by_dataset(found):
        yield Part(title="By data set", note=BY_DATASET, tables=tables, charts="datasets")
    yield Part(title=NUMBERS, note="", tables=[numbers_table(found)], folded=True)


def _at_ends(found: Temperatures) -> str:
    """What is to be known where a better learning rate may lie beyond those that were tried."""
    points = [p for line in found.lines for p in line.points if p.tests]
    ends = sum(point.at_end for point in points)
    if not ends:
        return ""
    return (
        f" At {ends} of {len(points)} points the learning rate is the lowest or the highest that "
        "was tried: beyond it there may be a better one, and what is said of τ may be said of that."
    )


# -- words ---------------------------------------------------------------------------------------


def _scored(line: TemperatureLine, point: TemperaturePoint | None) -> str | None:
    if point is None:
        return None
    if point.test is None:
        return point.state
    spread = f" ± {score(point.spread, line.digits)}" if point.spread is not None else ""
    best = "*" if line.best is point and len(line.points) > 1 else ""
    return f"{score(point.test, line.digits)}{spread}{best}"


def _cells(
    line: TemperatureLine, temperatures: Sequence[float | None], low: float, high: float
) -> Iterator[object]:
    """The scores of a line at temperatures, shaded from `low` to `high`."""
    points = {point.temperature: point for point in line.points}
    for temperature in temperatures:
        point = points.get(temperature)
        text = _scored(line, point)
        if point is None or point.test is None or text is None:
            yield text
            continue
        share = (point.test - low) / (high - low) if high > low else 0.0
        yield Shade(text=text, share=round(share, 3))


def _columns(lines: Sequence[TemperatureLine]) -> list[float | None]:
    """The temperatures of lines; last None, if any of them has none."""
    found = {point.temperature for line in lines for point in line.points}
    return [*sorted(t for t in found if t is not None), *([None] if None in found else [])]


def _range(lines: Sequence[TemperatureLine]) -> tuple[float, float]:
    tests = [p.test for line in lines for p in line.points if p.test is not None]
    return min(tests, default=0.0), max(tests, default=0.0)


# -- tables --------------------------------------------------------------------------------------


def claims_table(found: Temperatures) -> Table:
    """A row per claim: its verdict, and the differences that it rests on."""
    rows = [_claim(each) for each in found.findings]
    headers = ["claim", "verdict", "why", "difference, points", "held in"]
    texts = _TEXTS | {"difference, points"}
    return Table(headers=headers, rows=rows, wraps=True, texts=texts)


def _claim(found: Finding) -> tuple[object, ...]:
    verdicts = [_verdict(found.claim, each) for each in found.comparisons]
    counts = None
    if any(verdicts):
        against = verdicts.count(Verdict.NOT_HELD)
        counts = f"{verdicts.count(Verdict.HELD)} of {len(verdicts)}"
        counts += f", not in {against}" if against else ""
    differences = "; ".join(map(_difference, found.pooled)) or None
    return found.claim, found.verdict, found.why or None, differences, counts


def _verdict(claim: Claim, each: Compared) -> Verdict | None:
    """Whether a claim held in one comparison; None where that one alone cannot say so.

    That no objective is the best everywhere takes two settings.
    """
    return each.verdict if each.parts and claim is not Claim.NO_BEST else None


def _difference(part: Paired) -> str:
    around = part.interval
    within = f" [{change(around[0], 1)}, {change(around[1], 1)}]" if around else ""
    return f"{part.what}: {change(part.mean, 1)}{within}"


def _comparisons(found: Temperatures) -> list[Table]:
    rows: list[tuple[object, ...]] = [
        (
            finding.claim,
            where_in_words(each, found.varied),
            _verdict(finding.claim, each),
            "; ".join(map(_difference, each.parts)) or each.missing,
        )
        for finding in found.findings
        for each in finding.comparisons
    ]
    headers = ["claim", "where", "verdict", "difference, points"]
    texts = _TEXTS | {"where", "difference, points"}
    caption = "Each comparison"
    return [Table(headers=headers, rows=rows, wraps=True, caption=caption, texts=texts)]


def teachers_table(found: Temperatures) -> Table:
    """The relative entropies of each teacher at the study's temperatures."""
    headers = ["teacher", "origin", "test", "split", *map(temperature_in_words, found.swept)]
    rows: list[tuple[object, ...]] = []
    for teacher in found.teachers:
        for split, softmax in teacher.splits:
            at = {each.temperature: each for each in softmax}
            rows.append(
                (
                    _name(teacher, found),
                    teacher_in_words(teacher.origin),
                    score(teacher.test, teacher.digits),
                    split,
                    *(_entropies(at.get(temperature)) for temperature in found.swept),
                )
            )
    return Table(headers=headers, rows=rows)


def _name(teacher: SoftTeacher, found: Temperatures) -> str:
    parts = [teacher.dataset] if len(found.classes) > 1 else []
    return "/".join([*parts, teacher.teacher, teacher.checkpoint])


def _entropies(at: Softmax | None) -> str:
    if at is None:
        return NOT_MEASURED
    return " / ".join(
        NOTHING if value is None else score(value, 3)
        for value in (at.relative_entropy, at.relative_entropy_without_top)
    )


def _by_teacher(found: Temperatures) -> Iterator[Table]:
    """Table 1: lines that differ in the teacher alone."""
    teachers = {(t.dataset, t.teacher, t.checkpoint): t for t in found.teachers}
    for group in _alike(found, OF_TEACHER):
        columns, (low, high) = _columns(group), _range(group)
        group.sort(key=lambda line: (line.teacher.weights, line.teacher.epochs or 0))
        rows = []
        for line in group:
            names = [str(line.factors[name]) for name in ("dataset", "teacher", "checkpoint")]
            teacher = teachers[names[0], names[1], names[2]]
            taught = teacher.taught.get(line.factors["augmentation"], ())
            at_1 = next((each for each in taught if each.temperature == 1), None)
            name = names[1] if "checkpoint" not in found.varied else f"{names[1]} {names[2]}"
            test = score(teacher.test, teacher.digits)
            cells = _cells(line, columns, low, high)
            rows.append((name, teacher_in_words(line.teacher), test, _entropies(at_1), *cells))
        headers = ["teacher", "origin", "its test", "entropies"]
        headers += [*map(temperature_in_words, columns)]
        caption = label(group[0].factors, [n for n in found.varied if n not in OF_TEACHER])
        yield Table(headers=headers, rows=rows, caption=caption)


def _by_supervision(found: Temperatures) -> Iterator[Table]:
    """Figure 5: lines that differ in what of the teacher is learnt."""
    for group in _groups(found.lines, [SUPERVISION]):
        columns, (low, high) = _columns(group), _range(group)
        rows: list[tuple[object, ...]] = [
            (line.factors.get(SUPERVISION, "softmax"), *_cells(line, columns, low, high))
            for line in group
        ]
        headers = ["learnt", *map(temperature_in_words, columns)]
        caption = label(group[0].factors, [n for n in found.varied if n != SUPERVISION])
        yield Table(headers=headers, rows=rows, caption=caption)


def _by_student(found: Temperatures) -> Iterator[Table]:
    """Table 2: lines that differ in the student alone."""
    for group in _alike(found, ["student"]):
        columns, (low, high) = _columns(group), _range(group)
        rows = []
        for line in group:
            alone = next((each for each in found.plain if each.beside(line)), None)
            tests = [test * line.largest / 100 for test in alone.tests] if alone else []
            labels = score(sum(tests) / len(tests), line.digits) if tests else None
            measured = (line.best.entropies if line.best else None) or {}
            entropies = (cell(measured, name) for name in ENTROPIES)
            cells = _cells(line, columns, low, high)
            start = [student_in_words(line.student), score(line.start, line.digits), labels]
            rows.append((line.factors["student"], *start, *cells, *entropies))
        headers = ["student", "starts from", "test there", "labels alone"]
        headers += [*map(temperature_in_words, columns), "entropy", "without top"]
        caption = label(group[0].factors, [n for n in found.varied if n != "student"])
        yield Table(headers=headers, rows=rows, caption=caption)


ENTROPIES = ("relative_entropy", "relative_entropy_without_top")


def _alike(found: Temperatures, but: Iterable[str]) -> list[list[TemperatureLine]]:
    """Lines that learn the teacher's softmax and differ in these factors alone."""
    return _groups((line for line in found.lines if not line.control), but)


def _groups(lines: Iterable[TemperatureLine], but: Iterable[str]) -> list[list[TemperatureLine]]:
    groups: dict[frozenset[Any], list[TemperatureLine]] = {}
    for line in lines:
        groups.setdefault(line.without(but), []).append(line)
    return [group for group in groups.values() if len(group) > 1]


def _by_dataset(found: Temperatures) -> list[Table]:
    """Figure 6: of lines that differ in the data set alone the best τ, and where the plateau
    begins."""
    names = [name for name in found.varied if name != "dataset"]
    own = [line for line in found.lines if len(line.temperatures) > 1 and not line.control]
    rows: list[tuple[object, ...]] = [
        (
            line.factors["dataset"],
            found.classes[line.factors["dataset"]],
            label(line.factors, names),
            f"{line.best.temperature:g}" if line.best and line.best.temperature else None,
            None if line.plateau is None else f"{line.plateau:g}",
        )
        for group in over_datasets(own)
        for line in longest(*group.values())
    ]
    headers = ["data set", "classes", "students", "best τ", "plateau from τ"]
    return [Table(headers=headers, rows=rows, texts=_TEXTS | {"students"})] if rows else []


def numbers_table(found: Temperatures) -> Table:
    """A row per line: its score at each temperature."""
    columns = _columns(found.lines)
    names = found.varied or ("dataset",)
    learnt = any(point.learnt_temperature for line in found.lines for point in line.points)
    rows: list[tuple[object, ...]] = []
    for line in found.lines:
        points = {point.temperature: point for point in line.points}
        cells = (_scored(line, points.get(temperature)) for temperature in columns)
        more = [_learnt(line)] if learnt else []
        rows.append((label(line.factors, names), *cells, *more))
    headers = ["students", *map(temperature_in_words, columns)]
    headers += ["learnt τ"] if learnt else []
    return Table(headers=headers, rows=rows)


def _learnt(line: TemperatureLine) -> str | None:
    best = line.best
    return f"{best.learnt_temperature:.3g}" if best and best.learnt_temperature else None
