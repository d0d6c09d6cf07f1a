"""What is kept of wide teachers' outputs, where that is not all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdsearch.agenda import Agenda, Outcome, OutputsTraining
from kdsearch.study import HIDDEN, shown_cache


@dataclass(frozen=True, kw_only=True)
class KeptTokens:
    """Of each token of the training split."""

    cache: str
    """As a study has it."""
    temperature: float
    mass: float | None
    """The mean probability of what is kept; None where tokens are drawn, or it is not known yet."""

    def __str__(self) -> str:
        if self.mass is None:
            return f"{shown_cache(self.cache)}, at temperature {self.temperature:g}"
        return (
            f"{shown_cache(self.cache)}, {self.mass:.1%} of the probability "
            f"at temperature {self.temperature:g}"
        )


def kept_of(
    outputs: Sequence[OutputsTraining], results: Mapping[str, Outcome | None]
) -> KeptTokens | None:
    """What is kept of a checkpoint's outputs, these on each split; None where all is."""
    settings = outputs[0].settings
    if settings.cache == HIDDEN:
        return None
    assert settings.temperature is not None
    outcome = results.get(outputs[0].key)
    mass = outcome.measures.get("kept_mass") if outcome else None
    return KeptTokens(cache=settings.cache, temperature=settings.temperature, mass=mass)


def every_kept(agenda: Agenda) -> dict[str, KeptTokens]:
    """The same by data set, teacher and checkpoint, of all that is kept so far."""
    return {
        f"{view.case.dataset}/{view.case.teacher} {checkpoint}": kept
        for view in agenda.views()
        for checkpoint, outputs in view.outputs.items()
        if outputs[0].key in agenda.results and (kept := kept_of(outputs, agenda.results))
    }
