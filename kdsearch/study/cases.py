"""The test cases of a study."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from kdsearch.study.schema import Study, Teacher, TestCases
from kdsearch.study.section import Unread


@dataclass(frozen=True, kw_only=True)
class TestCase:
    """A dataset, a teacher and a student under a search, by their names in the study."""

    dataset: str
    teacher: str | None
    """None in a search without a teacher."""
    student: str
    search: str | None = None
    """None in a study with a single search."""

    @property
    def taught(self) -> str:
        """The teacher of a case that has one."""
        assert self.teacher is not None
        return self.teacher

    def __str__(self) -> str:
        parts = (self.dataset, self.teacher, self.student, self.search)
        return "/".join(part for part in parts if part is not None)


def test_cases(study: Study) -> tuple[TestCase, ...]:
    """The test cases of a study, in the order of its file, those without a teacher last.

    One without a teacher is a single one, whatever its data set's and student's teachers are.
    """
    taught, others = list(_taught(study)), dict.fromkeys(_others(study))
    return (*taught, *others)


def known_cases(study: Study) -> Iterator[TestCase]:
    """Those whose names all stand for something in the study, which may not be one yet."""
    for case in test_cases(study):
        known = case.dataset in study.datasets and case.student in study.students
        if known and (case.teacher is None or case.teacher in study.teachers):
            yield case


def taught_cases(study: Study) -> tuple[TestCase, ...]:
    """Those with a teacher."""
    return tuple(_taught(study))


def teacher_of(study: Study, case: TestCase) -> Teacher | None:
    """The teacher of a test case; None of one without."""
    return None if case.teacher is None else study.teachers[case.teacher]


def start_of(study: Study, case: TestCase) -> TestCase | None:
    """The test case, perhaps none of the study, whose teacher a case's student starts from.

    None of a student that starts from its model's own weights.
    """
    start = study.students[case.student].start
    return None if start is None else replace(case, teacher=start)


def start_cases(study: Study) -> tuple[TestCase, ...]:
    """Of each data set and teacher that a student starts from, one such case, as far as read."""
    found: dict[tuple[str, str | None], TestCase] = {}
    for case in known_cases(study):
        with suppress(Unread):
            start = start_of(study, case)
            if start is not None and start.teacher in study.teachers:
                found.setdefault((start.dataset, start.teacher), start)
    return tuple(found.values())


def cases_before(study: Study, case: TestCase) -> tuple[TestCase, ...]:
    """The test case whose choice teaches this one, the one whose choice teaches that one, …

    None where no student teaches. In a circle, which is refused, each is there once.
    """
    found: dict[TestCase, None] = {}
    while case.teacher in study.teachers and (name := study.teachers[case.teacher].student_of):
        case = replace(case, teacher=name)
        if case in found:
            break
        found[case] = None
    return tuple(found)


def cases_behind(
    study: Study, cases: Collection[TestCase]
) -> dict[TestCase, list[tuple[TestCase, ...]]]:
    """Of each case whose choice teaches, all ways from it: the last of `cases` first."""
    found: dict[TestCase, list[tuple[TestCase, ...]]] = {}
    there = {*cases}
    for last in cases:
        before = cases_before(study, last)
        for place, case in enumerate(before):
            if {*before[: place + 1]} <= there:
                found.setdefault(case, []).append((last, *before[:place]))
    return found


def parts_of(study: Study) -> dict[str | None, list[TestCase]]:
    """The test cases by the part of the study that is the first to have them; None of no part."""
    found: dict[str | None, list[TestCase]] = {}
    seen: set[TestCase] = set()
    for block in study.test_cases:
        for case in (*taught_in(study, block), *_others_in(study, block)):
            if case not in seen:
                seen.add(case)
                found.setdefault(block.part, []).append(case)
    return found


def one_teacher(study: Study, case: TestCase) -> TestCase | tuple[str, str]:
    """What the taught cases have in common that share a teacher's trainings and outputs.

    That is a data set and a teacher; a student that teaches is its own in each case.
    """
    return case if cases_before(study, case) else (case.dataset, case.taught)


def case_count(study: Study) -> int:
    """How many these are at most, without making them."""
    return sum(
        len(block.dataset or study.datasets)
        * len(block.teacher or study.teachers)
        * len(block.student or study.students)
        * len(study.every_search)
        for block in study.test_cases
    )


def _taught(study: Study) -> Iterator[TestCase]:
    for block in study.test_cases:
        yield from taught_in(study, block)


def taught_in(study: Study, block: TestCases) -> Iterator[TestCase]:
    """Those of a block of test cases that have a teacher."""
    for dataset in block.dataset or study.datasets:
        for teacher in block.teacher or study.teachers:
            for student in block.student or study.students:
                for name in searches_of(study, block, taught=True):
                    yield TestCase(dataset=dataset, teacher=teacher, student=student, search=name)


def _others(study: Study) -> Iterator[TestCase]:
    for block in study.test_cases:
        yield from _others_in(study, block)


def _others_in(study: Study, block: TestCases) -> Iterator[TestCase]:
    for dataset in block.dataset or study.datasets:
        for student in block.student or study.students:
            for name in searches_of(study, block, taught=False):
                yield TestCase(dataset=dataset, teacher=None, student=student, search=name)


def searches_of(study: Study, block: TestCases, *, taught: bool) -> Iterator[str | None]:
    """The searches of a block of test cases, with or without a teacher, as far as that is read."""
    for name, search in study.every_search.items():
        with suppress(Unread):
            if search.taught is taught and (block.search is None or name in block.search):
                yield name
