"""The test cases of a study."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.study.schema import Study


@dataclass(frozen=True, kw_only=True)
class TestCase:
    """A dataset, a teacher and a student, by their names in the study."""

    dataset: str
    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.teacher}/{self.student}"


def test_cases(study: Study) -> tuple[TestCase, ...]:
    """The test cases of a study, in the order of its file."""
    return tuple(
        TestCase(dataset=dataset, teacher=teacher, student=student)
        for block in study.test_cases
        for dataset in block.dataset or study.datasets
        for teacher in block.teacher or study.teachers
        for student in block.student or study.students
    )


def case_count(study: Study) -> int:
    """How many these are, without making them."""
    return sum(
        len(block.dataset or study.datasets)
        * len(block.teacher or study.teachers)
        * len(block.student or study.students)
        for block in study.test_cases
    )
