"""Whether a CPU computes in bf16: one that does not takes many times as long for it as for fp32."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from kdsearch.engine.ray_tune.room import Needed
from kdsearch.study import Resolved, effective_settings, start_cases, taught_cases, test_cases

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


def wants_bf16(resolved: Resolved, needed: Needed) -> bool:
    """Whether a study trains in bf16 on CPUs; values of a search's axes are not looked at."""
    study = resolved.study
    taught = (*taught_cases(study), *start_cases(study))
    return any(
        effective_settings(study, case, role).precision == "bf16"
        for role, needs in needed.items()
        if not needs.gpus
        for case in (test_cases(study) if role == "student" else taught)
    )


SLOW_BF16 = (
    "has a CPU that computes bf16 in software, many times slower than fp32; set "
    "training.precision: fp32"
)
