"""What is kept of a wide teacher's outputs on the training split: all of them, or some tokens.

`hidden`: its last hidden states, from which its head makes the logits. `sampled 64`: so many draws
of a token, by the probabilities at the one temperature of the study (Anshumann et al., ACL 2025,
arXiv 2503.16870). `top_k 128`: the so many likeliest tokens, with their probabilities at that
temperature and what all others have together.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import PlainValidator

HIDDEN = "hidden"
SAMPLED = "sampled"
TOP_K = "top_k"
MOST = 10_000
"""Tokens of a position."""
_SOME = re.compile(rf"({SAMPLED}|{TOP_K}) ([1-9][0-9]{{0,4}})")


def _canonical(value: Any) -> str:
    """`{sampled: 64}` as `sampled 64`. Raises `ValueError`."""
    wrong = ""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, count),) = value.items()
        if kind not in (SAMPLED, TOP_K):
            near = get_close_matches(str(kind), (SAMPLED, TOP_K), n=1, cutoff=0.5)
            wrong = f"; {kind} is none of these" + "".join(f", did you mean {n}?" for n in near)
        elif type(count) is int and count > MOST:
            wrong = f"; {count:,} is more than the {MOST:,} that are possible"
        elif type(count) is not int or count < 1:
            wrong = f"; {kind} takes a whole number from 1 to {MOST:,}"
        value = f"{kind} {count}"
    if isinstance(value, str):
        some = _SOME.fullmatch(value)
        if value == HIDDEN or (some and int(some[2]) <= MOST):
            return value
    raise ValueError(f"must be hidden, {{sampled: 64}} or {{top_k: 128}}{wrong}")


Cache = Annotated[str, PlainValidator(_canonical)]


def kept_tokens(cache: str) -> tuple[str, int]:
    """The kind of a cache of some tokens, and how many of each position."""
    kind, _, count = cache.partition(" ")
    return kind, int(count)


def shown_cache(cache: str) -> str:
    """As a study file has it."""
    return cache.replace(" ", ": ")
