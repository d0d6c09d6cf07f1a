"""The temperatures that a search compares: the teacher's in two rounds, and the student's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, PlainValidator

from kdsearch.search import TIED, Tied, significant
from kdsearch.study.axes import quoted
from kdsearch.study.section import Section

TemperatureValue = Annotated[float, Field(ge=1e-6, le=1e9)]


class Temperature(Section):
    """τ_t of the first round; the second adds four values around the best."""

    broad: Annotated[tuple[TemperatureValue, ...], Field(min_length=2, max_length=16)] = (
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        64.0,
    )

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        rounded = [significant(value) for value in self.broad]
        if rounded != sorted(set(rounded)):
            yield "the broad temperatures must ascend, each once (to 6 digits)"


def _student_temperature(value: object) -> float | Tied:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 1e-6 <= float(value) <= 1e9:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if value == TIED:
        return TIED
    raise ValueError(f"expected tied (τ_s = τ_t) or a number above 0, not {quoted(value)}")


StudentTemperatures = Annotated[
    tuple[Annotated[float | Tied, PlainValidator(_student_temperature)], ...],
    Field(min_length=1, max_length=5),
]
