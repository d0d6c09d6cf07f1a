"""Which layers of a teacher are mapped to which of a student.

`uniform` maps every layer of the student, at even distances over the teacher's (TinyBERT; PKD's
Skip); `first` and `last` to the teacher's first or last as many (TinyBERT's bottom and top; PKD's
Last). `3+7+11` names layers of the teacher, counted from 0, for as many of the student at even
distances, the last among them: fewer than the student has, where what is kept is to be small.
"""

from __future__ import annotations

from kdsearch.search import MAPPINGS
from kdsearch.study.layers import evenly_spaced


def mapped_layers(mapping: str, teacher: int, student: int) -> tuple[int, ...]:
    """The teacher's layers that are mapped to some of the student's, by the layers of each.

    Those of the student are `evenly_spaced`. Raises `ValueError` in words where a model has too
    few.
    """
    if mapping not in MAPPINGS:
        named = tuple(map(int, mapping.split("+")))
        if named[-1] >= teacher:
            raise ValueError(
                f"names layer {named[-1]}, and the teacher has {teacher}, 0 to {teacher - 1}"
            )
        if len(named) > student:
            raise ValueError(f"names {len(named)} layers, and the student has {student}")
        return named
    if student > teacher:
        raise ValueError(f"maps the student's {student} layers to the teacher's {teacher}")
    if mapping == "uniform":
        return evenly_spaced(teacher, student)
    begin = teacher - student if mapping == "last" else 0
    return tuple(range(begin, begin + student))


def middle_layer(layers: int) -> int:
    """The number of the middle one of so many layers, the lower of two: FitNets' hint, or guided.

    That is counted from 0.
    """
    return (layers + 1) // 2 - 1
