"""A temperature study: students over the temperature, what teachers say at it, and the claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kdsearch.agenda import Agenda, CaseView, Softmax, StudentTraining, TestScore
from kdsearch.analysis.erm import tuned_erm
from kdsearch.analysis.origins import TeacherOrigin
from kdsearch.analysis.temperature_claims import temperature_findings
from kdsearch.analysis.temperature_finding import Finding, Plain
from kdsearch.analysis.temperature_lines import (
    OF_OBJECTIVE,
    OF_OPTIMIZER,
    TemperatureLine,
    origin_at,
    plain_settings,
    temperature_lines,
)
from kdsearch.search import Checkpoint
from kdsearch.study import SPECS


@dataclass(frozen=True, kw_only=True)
class SoftTeacher:
    """A teacher's checkpoint on a data set, and its softmax at several temperatures."""

    dataset: str
    teacher: str
    checkpoint: str
    origin: TeacherOrigin
    test: TestScore | None
    digits: int
    """How many decimals its score is shown with."""
    taught: Mapping[str, tuple[Softmax, ...]]
    """On the training split, as students see it, by its augmentation, which may be none; empty
    where it was not measured."""
    on_test: tuple[Softmax, ...]

    @property
    def splits(self) -> list[tuple[str, tuple[Softmax, ...]]]:
        """What was measured, by the name of the split; the training split at least."""
        plain = "none"
        taught = self.taught or {plain: ()}
        names = {n: "train" if n == plain else f"train, {n.replace(';', ',')}" for n in taught}
        return [*((names[name], found) for name, found in taught.items()), ("test", self.on_test)]


@dataclass(frozen=True, kw_only=True)
class Temperatures:
    """What a temperature study has found so far."""

    lines: tuple[TemperatureLine, ...]
    varied: tuple[str, ...]
    """The factors in which lines differ."""
    teachers: tuple[SoftTeacher, ...]
    plain: tuple[Plain, ...]
    """Their students on the labels alone, as far as there are such."""
    findings: tuple[Finding, ...]
    seeds: tuple[int, ...]
    classes: Mapping[str, int]
    """How many each data set has; 0 where that is not known."""

    @property
    def swept(self) -> tuple[float, ...]:
        """Every temperature of any line, ascending."""
        return tuple(sorted({t for line in self.lines for t in line.temperatures}))


def temperatures(agenda: Agenda) -> Temperatures | None:
    """The analysis, as far as results reach; None of a study that sweeps no temperature."""
    lines = temperature_lines(agenda)
    if not lines:
        return None
    plain = tuple(_plain(agenda))
    datasets = {line.case.dataset: agenda.resolved.datasets[line.case.dataset] for line in lines}
    return Temperatures(
        lines=lines,
        varied=varied(lines),
        teachers=tuple(_teachers(agenda, lines)),
        plain=plain,
        findings=temperature_findings(lines, plain),
        seeds=agenda.resolved.study.student_seeds,
        classes={name: len(found.labels) for name, found in datasets.items()},
    )


def varied(lines: Sequence[TemperatureLine]) -> tuple[str, ...]:
    """The factors in which lines differ, also one that some of them lack.

    Not what goes with the objective or the optimizer, if each of these has one value of it.
    """
    names = dict.fromkeys(name for line in lines for name in line.factors)
    found = (n for n in names if len({line.factors.get(n) for line in lines}) > 1)
    return tuple(name for name in found if not _goes_with(name, lines))


def _goes_with(name: str, lines: Sequence[TemperatureLine]) -> bool:
    for main, others in (("objective", OF_OBJECTIVE), ("optimizer", OF_OPTIMIZER)):
        if name in others and name != main:
            pairs = {(line.factors[main], line.factors.get(name)) for line in lines}
            return len(pairs) == len({value for value, _ in pairs})
    return False


def _plain(agenda: Agenda) -> Iterator[Plain]:
    found = set()
    for view in agenda.views():
        case = view.case
        erm = tuned_erm(agenda, view)
        if erm is None or not erm.by_seed or (case.dataset, case.student) in found:
            continue
        found.add((case.dataset, case.student))
        largest = SPECS[agenda.resolved.datasets[case.dataset].task].largest_score
        tests = tuple(100 * test / largest for test in erm.by_seed)
        outcome = agenda.results[erm.key or ""]
        assert outcome is not None  # it has a score
        assert isinstance(outcome.training, StudentTraining)
        yield Plain(
            dataset=case.dataset,
            student=case.student,
            settings=plain_settings(outcome.training),
            trials=erm.trials,
            tests=tests,
        )


def _teachers(agenda: Agenda, lines: Sequence[TemperatureLine]) -> Iterator[SoftTeacher]:
    """Those that the lines have, in their order."""
    views = {view.case: view for view in agenda.views()}
    groups = defaultdict[tuple[str, ...], list[TemperatureLine]](list)
    for line in lines:
        groups[line.case.dataset, line.case.taught, line.factors["checkpoint"]].append(line)
    for group in groups.values():
        checkpoint = Checkpoint(group[0].factors["checkpoint"])
        yield _soft(agenda, views[group[0].case], checkpoint, group)


def _soft(
    agenda: Agenda, view: CaseView, checkpoint: Checkpoint, lines: Sequence[TemperatureLine]
) -> SoftTeacher:
    by_split = {each.split: agenda.results.get(each.key) for each in view.outputs[checkpoint]}
    test = by_split["test"]
    learnt = {line.factors["augmentation"]: agenda.results.get(line.outputs) for line in lines}
    return SoftTeacher(
        dataset=view.case.dataset,
        teacher=view.case.taught,
        checkpoint=str(checkpoint),
        origin=origin_at(agenda, view, checkpoint),
        test=test.test if test else None,
        digits=lines[0].digits,
        taught={name: found.softmax for name, found in learnt.items() if found and found.softmax},
        on_test=test.softmax if test else (),
    )
