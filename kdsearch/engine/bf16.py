"""Whether a CPU computes in bf16: one that does not takes many times as long for it as for fp32."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kdsearch.study import (
    Role,
    Study,
    TestCase,
    effective_settings,
    place_of,
    search_of,
    source_of,
    start_cases,
    taught_cases,
    test_cases,
)

_FLAGS = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)
_COMPUTE = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "bf16"})
"""By which torch's kernels for x86 (with AVX-512 alone at half of the speed) and ARM do."""


def lacks_bf16(cpuinfo: str) -> bool:
    """Whether a machine that says this of its CPUs does; false where it does not say."""
    found = _FLAGS.search(cpuinfo)
    return found is not None and not _COMPUTE & set(found[1].split())


def lacks_bf16_here() -> bool:
    """The same of this machine."""
    with suppress(OSError):
        return lacks_bf16(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return False


def bf16_places(study: Study, roles: Collection[Role]) -> list[str]:
    """Where a study says that trainings of these roles compute in bf16, or where it might."""
    taught = (*taught_cases(study), *start_cases(study))
    found = (
        _bf16_place(study, case, role)
        for role in roles
        for case in (test_cases(study) if role == "student" else taught)
    )
    return [*dict.fromkeys(filter(None, found))]


def _bf16_place(study: Study, case: TestCase, role: Role) -> str | None:
    values = search_of(study, case).axes.get("precision") if role == "student" else None
    if values is not None:
        return f"{place_of(case)}.precision" if "bf16" in values else None
    settings = effective_settings(study, case, role)
    return source_of(study, case, role, "precision") if settings.precision == "bf16" else None


def slow_bf16(places: Collection[str]) -> str:
    """What is said of a machine whose CPUs lack bf16, where these places ask for it."""
    return (
        "has a CPU that computes bf16 in software, many times slower than fp32; say fp32 in "
        f"{' and '.join(places)}"
    )
