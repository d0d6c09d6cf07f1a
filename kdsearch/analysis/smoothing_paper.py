"""The numbers of “Knowledge Distillation ≈ Label Smoothing: Fact or Fallacy?”, beside a study's.

Tables 2 to 5 and 7 at τ = 1, and 8 to 12 where τ is searched, of one run each; Table 6 has the rows
of its splits. Three rows of Table 7 (self-KD) are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.analysis.smoothing_claims import (
    TAUGHT,
    Finding,
    Found,
    Group,
    Kind,
    Role,
    Seen,
    claims,
)

SOURCE = "arXiv 2301.12609, Tables 2–12"
DATASETS = ("mrpc", "qnli", "sst2", "mnli")
"""By their names in the catalogue, in the order of the tables."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of posterior entropies on test, in nats, or of accuracies there, in percent."""

    number: int
    student: Role
    hot: bool
    """Whether τ was searched."""
    rows: dict[Kind, tuple[float, float, float, float]]
    """A value for each of `DATASETS`."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A row of Table 7 or 12: what was best on validation."""

    table: int
    alpha: float | None
    temperature: float | None
    learning_rate: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper has of a method."""

    tables: tuple[int, int]
    entropy: float
    score: float
    """Accuracy, as a fraction."""
    chosen: Chosen | None
    """None where it is not known."""


ENTROPIES = (
    Table(
        number=2,
        student=Role.SMALL,
        hot=False,
        rows={
            Kind.ERM: (0.1123, 0.1419, 0.1101, 0.2698),
            Kind.LS: (0.6896, 0.6752, 0.4447, 0.8103),
            Kind.KD: (0.0548, 0.1210, 0.0594, 0.1887),
            Kind.SELF: (0.0738, 0.1341, 0.0977, 0.2758),
        },
    ),
    Table(
        number=4,
        student=Role.LARGE,
        hot=False,
        rows={
            Kind.ERM: (0.0678, 0.1218, 0.0124, 0.1845),
            Kind.LS: (0.5162, 0.6528, 0.4376, 0.4770),
            Kind.REVERSE: (0.0954, 0.0834, 0.0954, 0.2041),
        },
    ),
    Table(
        number=8,
        student=Role.SMALL,
        hot=True,
        rows={
            Kind.ERM: (0.1123, 0.1419, 0.1101, 0.2698),
            Kind.LS: (0.6916, 0.2949, 0.6802, 0.5095),
            Kind.KD: (0.1067, 0.1024, 0.0107, 0.1481),
            Kind.SELF: (0.0927, 0.1179, 0.0853, 0.2476),
        },
    ),
    Table(
        number=10,
        student=Role.LARGE,
        hot=True,
        rows={
            Kind.ERM: (0.0678, 0.1218, 0.0124, 0.1844),
            Kind.LS: (0.3778, 0.6512, 0.4891, 0.4770),
            Kind.REVERSE: (0.1058, 0.1140, 0.0995, 0.2163),
        },
    ),
)
ACCURACIES = (
    Table(
        number=3,
        student=Role.SMALL,
        hot=False,
        rows={
            Kind.ERM: (81.0, 88.5, 93.8, 81.3),
            Kind.LS: (80.3, 88.4, 95.0, 81.0),
            Kind.KD: (82.0, 89.2, 94.6, 81.8),
            Kind.SELF: (82.3, 89.0, 94.7, 82.2),
        },
    ),
    Table(
        number=5,
        student=Role.LARGE,
        hot=False,
        rows={
            Kind.ERM: (84.0, 91.0, 94.5, 83.7),
            Kind.LS: (84.1, 89.8, 94.6, 83.7),
            Kind.REVERSE: (83.4, 91.3, 94.9, 83.9),
        },
    ),
    Table(
        number=9,
        student=Role.SMALL,
        hot=True,
        rows={
            Kind.ERM: (81.0, 88.5, 93.8, 81.3),
            Kind.LS: (78.4, 88.8, 95.2, 80.8),
            Kind.KD: (80.2, 89.6, 94.6, 82.7),
            Kind.SELF: (82.1, 89.5, 94.8, 82.6),
        },
    ),
    Table(
        number=11,
        student=Role.LARGE,
        hot=True,
        rows={
            Kind.ERM: (84.0, 91.0, 94.5, 83.7),
            Kind.LS: (83.9, 90.8, 94.5, 83.7),
            Kind.REVERSE: (84.3, 91.3, 94.9, 84.0),
        },
    ),
)

_Row = tuple[float | None, float | None, float, int] | None
_CHOSEN: dict[tuple[Role, Kind], tuple[_Row, _Row, _Row, _Row]] = {
    # of each data set: α, τ, learning rate × 1e5, epochs
    (Role.LARGE, Kind.ERM): (
        (None, None, 7, 4),
        (None, None, 4, 2),
        (None, None, 1, 9),
        (None, None, 3, 3),
    ),
    (Role.LARGE, Kind.LS): (
        (0.4, None, 7, 7),
        (0.7, None, 2, 3),
        (0.3, None, 2, 3),
        (0.1, None, 3, 2),
    ),
    (Role.LARGE, Kind.REVERSE): ((0.1, 1, 4, 5), (0.3, 1, 2, 10), (0.7, 1, 1, 7), (0.4, 1, 3, 7)),
    (Role.SMALL, Kind.ERM): (
        (None, None, 5, 4),
        (None, None, 3, 3),
        (None, None, 1, 2),
        (None, None, 3, 3),
    ),
    (Role.SMALL, Kind.LS): (
        (0.9, None, 4, 4),
        (0.8, None, 2, 8),
        (0.3, None, 6, 2),
        (0.8, None, 3, 3),
    ),
    (Role.SMALL, Kind.KD): ((0.1, 1, 6, 7), (0.8, 1, 3, 5), (0.6, 1, 6, 2), (0.7, 1, 3, 6)),
    (Role.SMALL, Kind.SELF): (None, None, None, (0.9, 1, 3, 9)),
}
"""Table 7."""
_CHOSEN_HOT: dict[tuple[Role, Kind], tuple[_Row, _Row, _Row, _Row]] = {
    **_CHOSEN,
    (Role.LARGE, Kind.LS): (
        (0.2332, None, 7, 6),
        (0.6994, None, 4, 3),
        (0.3664, None, 2, 3),
        (0.1, None, 3, 2),
    ),
    (Role.LARGE, Kind.REVERSE): ((1, 1, 4, 6), (0.25, 64, 4, 2), (0.75, 1, 1, 5), (0.5, 4, 2, 7)),
    (Role.SMALL, Kind.LS): (
        (0.9325, None, 3, 5),
        (0.1333, None, 3, 4),
        (0.8326, None, 5, 3),
        (0.1666, None, 3, 5),
    ),
    (Role.SMALL, Kind.KD): ((1, 16, 3, 3), (0.75, 64, 3, 9), (0.5, 1, 2, 9), (1, 4, 4, 10)),
    (Role.SMALL, Kind.SELF): ((0.25, 2, 7, 7), (0.5, 64, 3, 8), (0.25, 8, 5, 6), (0.75, 64, 5, 9)),
}
"""Table 12, whose ERM is that of Table 7."""


ROWS = {
    "train": (3_668, 99_743, 65_549, 382_887),
    "validation": (408, 5_000, 872, 9_815),
    "test": (1_725, 5_463, 1_800, 9_815),
}
"""Table 6: of each split, for each of `DATASETS`."""


def published_rows(dataset: str) -> dict[str, int] | None:
    """The rows of a data set's splits, by its name; None of one that the paper does not have."""
    column = column_of(dataset)
    return None if column is None else {split: rows[column] for split, rows in ROWS.items()}


def column_of(dataset: str) -> int | None:
    """Where the tables have a data set, by its name; None of one that they do not have."""
    name = dataset.lower().replace("-", "")
    return DATASETS.index(name) if name in DATASETS else None


def published(dataset: str, group: Group, kind: Kind, *, hot: bool) -> Published | None:
    """What the paper has of a method of a student with the methods of `group`; None of others.

    `hot` says of one that is taught whether temperatures other than 1 were searched.
    """
    column = column_of(dataset)
    role = Role.LARGE if kind is Kind.REVERSE else Role.SMALL if kind in TAUGHT else group.role
    hot = hot if kind in TAUGHT else group.hot
    for entropies, accuracies in zip(ENTROPIES, ACCURACIES, strict=True):
        same = (entropies.student, entropies.hot) == (role, hot)
        if column is not None and role is not None and same and kind in entropies.rows:
            return Published(
                tables=(entropies.number, accuracies.number),
                entropy=entropies.rows[kind][column],
                score=_fraction(accuracies.rows[kind][column]),
                chosen=_chosen(role, hot, kind, column),
            )
    return None


def published_finding(dataset: str, found: Found) -> Finding | None:
    """Which way the paper's own numbers went on the same claim; None where it has none."""
    column = column_of(dataset)
    if column is None:
        return None
    wanted = (found.claim, found.kinds, found.role)
    paper = claims(_groups(column, found.hot))
    return next((f.finding for f in paper if (f.claim, f.kinds, f.role) == wanted), None)


def _groups(column: int, hot: bool) -> tuple[Group, ...]:
    """The paper's students on one data set; a teacher is the ERM of its own model."""
    erm = {t.student: t.rows[Kind.ERM][column] for t in ENTROPIES if t.hot is hot}
    return tuple(
        Group(
            dataset=DATASETS[column],
            student=entropies.student,
            methods=tuple(
                Seen(
                    kind=kind,
                    name="",
                    scores=(_fraction(accuracies.rows[kind][column]),),
                    entropies=(values[column],),
                    teacher=erm[_TEACHERS[kind]] if kind in TAUGHT else None,
                    taught_by=_TEACHERS.get(kind),
                    hot=hot and kind in TAUGHT,
                )
                for kind, values in entropies.rows.items()
            ),
        )
        for entropies, accuracies in zip(ENTROPIES, ACCURACIES, strict=True)
        if entropies.hot is hot
    )


_TEACHERS = {Kind.KD: Role.LARGE, Kind.SELF: Role.SMALL, Kind.REVERSE: Role.SMALL}


def _chosen(role: Role, hot: bool, kind: Kind, column: int) -> Chosen | None:
    row = (_CHOSEN_HOT if hot else _CHOSEN)[role, kind][column]
    if row is None:
        return None
    alpha, temperature, rate, epochs = row
    return Chosen(
        table=12 if hot else 7,
        alpha=alpha,
        temperature=temperature,
        learning_rate=rate / 1e5,
        epochs=epochs,
    )


def _fraction(percent: float) -> float:
    return round(percent / 100, 3)
