"""Distillation beside label smoothing: what each did to a student's posterior and to its score.

The analysis of arXiv 2301.12609, of every student that a study trains on labels alone (ERM), on
smoothed labels, and with a teacher by CE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdsearch.agenda import Agenda, CaseView, Epoch, Measures, Outcome, TestScore
from kdsearch.analysis.cases import CaseResult
from kdsearch.analysis.comparisons import gain_in
from kdsearch.analysis.gains import NoGainError, Relative
from kdsearch.analysis.measures import ByName, over_seeds
from kdsearch.analysis.scores import TestScores, on_test, score_digits
from kdsearch.analysis.smoothing_claims import (
    TAUGHT,
    Claim,
    Finding,
    Group,
    Kind,
    Seen,
    claims,
)
from kdsearch.analysis.smoothing_paper import (
    Published,
    published,
    published_finding,
    published_rows,
)
from kdsearch.analysis.speeds import Size
from kdsearch.search import Candidate, Ce, Choice, Labels, LabelSmoothing, Trial, ValidationScore
from kdsearch.study import TestCase

ENTROPY = "posterior_entropy"
ENTROPIES = (ENTROPY, "relative_entropy", "relative_entropy_without_top")
"""The measures of how undecided a model is."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method chose by validation for a student, and how that does on test.

    Where nothing is chosen yet, or nothing has a score, its case and its kind alone are known.
    """

    kind: Kind
    case: TestCase
    digits: int
    """How many decimals its scores are shown with."""
    choice: Choice | None = None
    learning_rate: float | None = None
    epochs: tuple[int, ...] = ()
    """The best by validation, under each seed."""
    validation: ValidationScore | None = None
    test: TestScore | None = None
    spread: float | None = None
    """The standard deviation of the test score between the seeds; None of a single one."""
    over_erm: Relative | None = None
    entropies: ByName | None = None
    """Of the student on test, by `ENTROPIES`."""
    teacher: ByName | None = None
    """Of the checkpoint that taught it, on test."""
    key: str | None = None
    """Of its training under the first seed."""
    published: Published | None = None
    """What the paper has of it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which way a claim went."""

    claim: Claim
    dataset: str
    student: str
    compared: tuple[str, ...]
    """The test cases."""
    chosen: Finding
    """On test, at the epochs that validation chose."""
    equal: Finding
    """On validation, at the learning rate and the epochs of ERM."""
    published: Finding | None
    """The paper's own; None where it does not have the data set, or the comparison."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How many rows each split of a data set has."""

    dataset: str
    splits: Mapping[str, int]
    published: Mapping[str, int]
    """Those of the paper's."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The methods of every student that has all three, and the claims about them."""

    methods: tuple[Method, ...]
    verdicts: tuple[Verdict, ...]
    rows: tuple[Rows, ...]
    """Of the data sets that the paper has too."""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """A method with the trainings of what it chose, one under each seed."""

    view: CaseView
    kind: Kind
    candidate: Candidate
    best: Trial
    outcomes: tuple[Outcome, ...]
    on_test: TestScores | None

    @property
    def name(self) -> str:
        return str(self.view.case)


def smoothing(agenda: Agenda, cases: Sequence[CaseResult]) -> Smoothing | None:
    """The analysis, as far as results reach; None of a study without such a student."""
    students = _students(agenda, cases)
    if not students:
        return None
    names = {n: each.catalogue or n for n, each in agenda.resolved.study.datasets.items()}
    methods: list[Method] = []
    chosen_groups, equal_groups = [], []
    for (dataset, student), views in students.items():
        chosen = [found for kind, view in views if (found := _chosen(agenda, view, kind))]
        erm = next((found for found in chosen if found.kind is Kind.ERM), None)
        on_test = tuple(_on_test(agenda, each) for each in chosen)
        on_validation = tuple(_on_validation(agenda, each, erm) for each in chosen)
        group = Group(dataset=dataset, student=student, methods=on_test)
        chosen_groups.append(group)
        equal_groups.append(replace(group, methods=on_validation))
        by_case = {each.view.case: each for each in chosen}
        for kind, view in views:
            found = by_case.get(view.case)
            paper = published(names[dataset], group, kind, hot=_hot(view))
            methods.append(_method(agenda, kind, view, found, erm, paper))
    verdicts = [
        Verdict(
            claim=found.claim,
            dataset=found.dataset,
            student=found.student,
            compared=found.compared,
            chosen=found.finding,
            equal=equally.finding,
            published=published_finding(names[found.dataset], found),
        )
        for found, equally in zip(claims(chosen_groups), claims(equal_groups), strict=True)
    ]
    datasets, order = list(names), list(Claim)
    verdicts.sort(key=lambda each: (datasets.index(each.dataset), order.index(each.claim)))
    rows = [
        Rows(
            dataset=dataset,
            splits={name: split.rows for name, split in found.splits.items()},
            published=paper_rows,
        )
        for dataset, found in agenda.resolved.datasets.items()
        if dataset in {dataset for dataset, _ in students}
        and (paper_rows := published_rows(names[dataset]))
    ]
    return Smoothing(methods=tuple(methods), verdicts=tuple(verdicts), rows=tuple(rows))


def _students(
    agenda: Agenda, cases: Sequence[CaseResult]
) -> Mapping[tuple[str, str], list[tuple[Kind, CaseView]]]:
    """The methods of each data set and student that has all three, in the order of `Kind`."""
    found: dict[tuple[str, str], list[tuple[Kind, CaseView]]] = {}
    for view, case in zip(agenda.views(), cases, strict=True):
        kind = _kind(view, case)
        if kind is not None:
            found.setdefault((view.case.dataset, view.case.student), []).append((kind, view))
    order = list(Kind)
    return {
        student: sorted(views, key=lambda each: order.index(each[0]))
        for student, views in found.items()
        if {Kind.ERM, Kind.LS} <= (kinds := {kind for kind, _ in views}) and kinds & {*TAUGHT}
    }


def _kind(view: CaseView, case: CaseResult) -> Kind | None:
    """What method a case is; None of one that is none of these."""
    match view.search.distance:
        case (Labels.kind,):
            return Kind.ERM
        case (LabelSmoothing.kind,):
            return Kind.LS
        case (Ce.kind,):
            return _kind_of_kd(case.teachers[0].size if case.teachers else None, case.size)
    return None


def _kind_of_kd(teacher: Size | None, student: Size | None) -> Kind:
    if teacher is None or student is None:
        return Kind.UNKNOWN
    if teacher.parameters == student.parameters:
        return Kind.SELF
    return Kind.KD if teacher.parameters > student.parameters else Kind.REVERSE


def _chosen(agenda: Agenda, view: CaseView, kind: Kind) -> _Chosen | None:
    """What a finished search chose; None where nothing has a score."""
    if not view.best_has_score:
        return None
    winner = view.progress.winner
    assert winner.best is not None
    trainings = agenda.trainings(view, winner.best)
    outcomes = tuple(o for each in trainings if (o := agenda.results[each.key]) is not None)
    return _Chosen(
        view=view,
        kind=kind,
        candidate=winner,
        best=winner.best,
        outcomes=outcomes,
        on_test=on_test(agenda, trainings),
    )


def _on_test(agenda: Agenda, found: _Chosen) -> Seen:
    return Seen(
        kind=found.kind,
        name=found.name,
        scores=found.on_test.by_seed if found.on_test else None,
        entropies=_of_all(outcome.measures for outcome in found.outcomes),
        teacher=_teacher(agenda, found, "test").get(ENTROPY),
        taught_by=found.view.case.teacher,
        hot=_hot(found.view),
    )


def _on_validation(agenda: Agenda, found: _Chosen, erm: _Chosen | None) -> Seen:
    """The same choice at ERM's rate, under each seed at the epoch that was ERM's best."""
    epochs = [] if erm is None else list(_at(agenda, found, erm))
    scores = [None if epoch is None else epoch.validation for epoch in epochs]
    known = tuple(score for score in scores if score is not None)
    return Seen(
        kind=found.kind,
        name=found.name,
        scores=known if known and len(known) == len(scores) else None,
        entropies=_of_all({} if epoch is None else epoch.measures for epoch in epochs),
        teacher=_teacher(agenda, found, "validation").get(ENTROPY),
        taught_by=found.view.case.teacher,
        hot=_hot(found.view),
    )


def _at(agenda: Agenda, found: _Chosen, erm: _Chosen) -> Iterator[Epoch | None]:
    """Under each seed the epoch that was ERM's best, of the same choice with ERM's settings."""
    trial = replace(found.best, settings=erm.best.settings)
    if trial not in found.candidate.trials:
        yield None
        return
    for training, of_erm in zip(agenda.trainings(found.view, trial), erm.outcomes, strict=True):
        outcome = agenda.results[training.key]
        epochs = outcome.epochs if outcome else ()
        yield next((epoch for epoch in epochs if epoch.epoch == of_erm.best_epoch), None)


def _of_all(seeds: Iterable[Measures]) -> tuple[float, ...] | None:
    """The entropy under each seed; None where one has none."""
    found = [measures.get(ENTROPY) for measures in seeds]
    known = tuple(entropy for entropy in found if entropy is not None)
    return known if known and len(known) == len(found) else None


def _teacher(agenda: Agenda, found: _Chosen, split: str) -> Measures:
    """What was measured on a split of the checkpoint that taught; nothing where there is none."""
    checkpoint = found.best.checkpoint
    if checkpoint is None or checkpoint not in found.view.outputs:
        return {}
    [training] = [each for each in found.view.outputs[checkpoint] if each.split == split]
    outcome = agenda.results.get(training.key)
    return outcome.measures if outcome else {}


def _hot(view: CaseView) -> bool:
    return view.search.taught and view.space.values("temperature") != (1.0,)


def _method(
    agenda: Agenda,
    kind: Kind,
    view: CaseView,
    found: _Chosen | None,
    erm: _Chosen | None,
    paper: Published | None,
) -> Method:
    digits = score_digits(agenda, view)
    if found is None:
        return Method(kind=kind, case=view.case, digits=digits, published=paper)
    teacher = (_teacher(agenda, found, "test"),) if kind in TAUGHT else ()
    return Method(
        kind=kind,
        case=view.case,
        digits=digits,
        choice=found.candidate.choice,
        learning_rate=found.best.get("learning_rate"),
        epochs=tuple(o.best_epoch for o in found.outcomes if o.best_epoch is not None),
        validation=found.candidate.score,
        test=found.on_test.mean if found.on_test else None,
        spread=found.on_test.spread if found.on_test else None,
        over_erm=_over(agenda, found, erm),
        entropies=over_seeds([o.measures for o in found.outcomes], ENTROPIES, taught=False),
        teacher=over_seeds(teacher, ENTROPIES, taught=False) if teacher else None,
        key=found.outcomes[0].key,
        published=paper,
    )


def _over(agenda: Agenda, found: _Chosen, erm: _Chosen | None) -> Relative | None:
    """The gain over ERM, which has none over itself."""
    if erm is None or found is erm:
        return None
    try:
        return gain_in(agenda, found.view, found.on_test, erm.on_test)
    except NoGainError:
        return None
