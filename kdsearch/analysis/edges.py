"""Where a search or a teacher ended at an end of what was tried: of an axis, or of the epochs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from kdsearch.agenda import Agenda, CaseView
from kdsearch.search import DECIDES, OBJECTIVE, Trial, ValidationScore, Value, is_active
from kdsearch.study import TestCase, axis_key, epochs_key

End = Literal["largest", "smallest"]
SHARES = ("alpha", "beta", "smoothing", "dropout", "warmup", "momentum")
"""The axes whose values lie between 0 and 1."""
FROM_1 = (
    "temperature",
    "student_temperature",
    "batch_size",
    "epochs",
    "lora_rank",
    "relation_heads",
)
"""Those that end naturally at 1: τ there leaves probabilities as they are."""
_NO_TUNING = "layers"
"""More of them make another student."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An axis whose best value is, in some test cases, the last that was tried."""

    axis: str
    end: End
    key: str
    """Where the study file has its values."""
    cases: tuple[TestCase, ...]
    of: int
    """In how many cases several of its values were tried."""
    fewest: int
    """How many of its values were tried, at least; of two, one is always an end."""


@dataclass(frozen=True, kw_only=True)
class Unconverged:
    """Students of which at least half have their best epoch last."""

    key: str
    """Where the study file has their epochs."""
    cases: tuple[TestCase, ...]
    every: bool
    """Whether these are all of the cases that have their epochs from there."""
    last: int
    students: int


@dataclass(frozen=True, kw_only=True)
class TeacherEdge:
    """A teacher whose best learning rate, or best epoch, is the last that was tried."""

    teacher: str
    end: End | Literal["last"]
    """Of its learning rates; `last`: of its epochs."""
    key: str
    """Where the study file has them."""
    datasets: tuple[str, ...]
    of: int
    """On how many data sets it was trained with several of them."""


def edges(agenda: Agenda) -> tuple[Edge, ...]:
    """The axes that end where the best values lie, over the cases that have decided something."""
    study = agenda.resolved.study
    at: dict[tuple[str, End, str], list[TestCase]] = defaultdict(list)
    of: dict[tuple[str, str], int] = defaultdict(int)
    fewest: dict[tuple[str, End, str], int] = {}
    for view in agenda.views():
        for axis, tried in _tried(agenda, view):
            key = axis_key(study, view.case, axis)
            of[axis, key] += 1
            end = end_of(axis, tried)
            if end is not None:
                at[axis, end, key].append(view.case)
                fewest[axis, end, key] = min(len(tried), fewest.get((axis, end, key), len(tried)))
    return tuple(
        Edge(
            axis=axis,
            end=end,
            key=key,
            cases=tuple(cases),
            of=of[axis, key],
            fewest=fewest[axis, end, key],
        )
        for (axis, end, key), cases in at.items()
    )


def teacher_edges(agenda: Agenda) -> tuple[TeacherEdge, ...]:
    """The teachers trained here that were best at an end: of the rates, or at their last epoch.

    A single epoch tells nothing, nor does a learning rate that falls to 0 at the end.
    """
    at: dict[tuple[str, End | Literal["last"], str], list[str]] = defaultdict(list)
    of: dict[tuple[str, str], int] = defaultdict(int)
    chosen = {
        (view.case.dataset, view.case.taught): view
        for view in agenda.views()
        if view.teacher_training is not None
    }
    for (dataset, teacher), view in chosen.items():
        best = view.teacher_training
        assert best is not None
        found: dict[str, End | Literal["last"] | None] = {}
        tried = _by_rate(agenda, view)
        if len(tried) > 1:
            found["learning_rate"] = end_of("learning_rate", tried)
        if best.settings.epochs > 1 and best.settings.schedule == "constant":
            outcome = agenda.results[best.key]
            last = outcome is not None and outcome.best_epoch == best.settings.epochs
            found["epochs"] = "last" if last else None
        for name, end in found.items():
            key = f"teachers.{teacher}.fine_tune.{name}"
            of[teacher, key] += 1
            if end is not None:
                at[teacher, end, key].append(dataset)
    return tuple(
        TeacherEdge(teacher=teacher, end=end, key=key, datasets=tuple(names), of=of[teacher, key])
        for (teacher, end, key), names in at.items()
    )


def _by_rate(agenda: Agenda, view: CaseView) -> Mapping[Value, ValidationScore | None]:
    """The validation score of a case's teacher at each of its learning rates."""
    outcomes = {t.learning_rate: agenda.results[t.key] for t in agenda.graph.teachers(view.case)}
    return {rate: found.validation if found else None for rate, found in outcomes.items()}


def end_of(axis: str, tried: Mapping[Value, ValidationScore | None]) -> End | None:
    """At which end of the values that were `tried`, each with its highest score, the best lies.

    None where a value beyond it was tried, though it has no score; where another is as good; and
    where it is a natural end: of a share, that nearer to 0 or 1 than to its neighbour, else 0 or 1.
    """
    scores = [score for score in tried.values() if score is not None]
    if len(tried) < 2 or not scores or scores.count(max(scores)) > 1:
        return None
    [best] = [value for value, score in tried.items() if score == max(scores)]
    ordered = sorted(tried)
    ends: dict[Value, tuple[End, Value]] = {
        ordered[0]: ("smallest", ordered[1]),
        ordered[-1]: ("largest", ordered[-2]),
    }
    if best not in ends:
        return None
    end, neighbour = ends[best]
    if axis in SHARES:
        natural = round(min(best, 1 - best), 9) < round(abs(best - neighbour), 9)
    else:
        natural = best == (1 if axis in FROM_1 else 0)
    return None if natural else end


def _tried(
    agenda: Agenda, view: CaseView
) -> Iterator[tuple[str, Mapping[Value, ValidationScore | None]]]:
    """The numeric axes that the best choice so far was tuned over, with all that was tried.

    Where nothing is flipped, whole choices are compared: then these are all of the axes, over the
    choices of its objective.
    """
    if not view.progress.decisions:
        return
    decision, space = view.progress.decisions[-1], view.space
    choice = decision.winner.choice
    trials, axes = decision.winner.trials, space.tunes(choice)
    if not view.search.flips:
        kind = choice.get(OBJECTIVE)
        alike = (c for c in decision.candidates if c.choice.get(OBJECTIVE) == kind)
        trials = tuple(trial for candidate in alike for trial in candidate.trials)
        every = (*space.compared, *space.tuned)
        axes = tuple(axis for axis in every if is_active(axis.name, kind))
    scores = agenda.scores(view)
    for axis in axes:
        if axis.under:
            axis = axis.given(dict(choice.values))
            trials = tuple(t for t in trials if t.get(DECIDES) == choice.get(DECIDES))
        if axis.name != _NO_TUNING and len(axis.values) > 1 and all(map(_is_number, axis.values)):
            yield axis.name, _best_by_value(axis.name, trials, scores)


def _best_by_value(
    axis: str, trials: tuple[Trial, ...], scores: Mapping[Trial, ValidationScore | None]
) -> Mapping[Value, ValidationScore | None]:
    found: dict[Value, ValidationScore | None] = {}
    for trial in trials:
        value, score = trial.get(axis), scores[trial]
        before = found.setdefault(value, score)
        if score is not None and (before is None or score > before):
            found[value] = score
    return found


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unconverged(agenda: Agenda) -> tuple[Unconverged, ...]:
    """Where at least half of the students had their best epoch last: of a study, else of cases.

    Of the cases that have decided something. Students of a single epoch tell nothing, nor do those
    whose learning rate falls to 0 at the end, nor cases that compare numbers of epochs.
    """
    study = agenda.resolved.study
    groups: dict[str, dict[TestCase, dict[str, bool]]] = defaultdict(dict)
    for view in agenda.views():
        if view.progress.decisions and "epochs" not in view.space.names:
            ends = _best_at_the_end(agenda, view.case)
            groups[epochs_key(study, view.case)][view.case] = ends
    found = []
    for key, cases in groups.items():
        named = cases
        if not _mostly(_together(cases)):
            named = {case: ends for case, ends in cases.items() if _mostly(ends)}
        ends = _together(named)
        if _mostly(ends):
            found.append(
                Unconverged(
                    key=key,
                    cases=tuple(named),
                    every=named is cases,
                    last=sum(ends.values()),
                    students=len(ends),
                )
            )
    return tuple(found)


def _best_at_the_end(agenda: Agenda, case: TestCase) -> dict[str, bool]:
    """By the key of each student that can tell: whether its last epoch was its best."""
    trainings = (training for seeds in agenda.students(case).values() for training in seeds)
    return {
        training.key: outcome.best_epoch == training.settings.epochs
        for training in trainings
        if training.settings.epochs > 1 and training.settings.schedule == "constant"
        if (outcome := agenda.results.get(training.key)) is not None and outcome.state == "scored"
    }


def _together(cases: Mapping[TestCase, Mapping[str, bool]]) -> dict[str, bool]:
    """Those of all cases, what they share once."""
    return {key: last for ends in cases.values() for key, last in ends.items()}


def _mostly(ends: Mapping[str, bool]) -> bool:
    return bool(ends) and 2 * sum(ends.values()) >= len(ends)
