"""What became of a claim about temperature, from the comparisons that it rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kdsearch.analysis.temperature_lines import TRIALS, TemperatureLine
from kdsearch.analysis.temperature_paired import (
    SEEDS,
    BySeed,
    Compared,
    Paired,
    Verdict,
    mean_by_seed,
    together,
)
from kdsearch.search import Value

WITHIN = "not beyond what seeds differ by"
Held = frozenset[tuple[str, Any]]


class Claim(StrEnum):
    """A claim, in the order in which the document makes them."""

    NO_BEST = "no objective is the best everywhere"
    FLATTER = "AdamW is flatter over τ than SGD"
    CROSSES = "under SGD small τ wins with few epochs, large τ with many"
    BATCH = "under SGD a larger batch takes more epochs until large τ wins"
    RELATIONS = "relations between the minor classes still matter at large τ"
    PRETRAINED = "large τ needs a pretrained, lightly tuned teacher"
    LONGER_HURTS = "longer fine-tuning of the teacher hurts"
    KD_WINS = "KD beats training on the labels alone"
    DATASETS = "data sets differ in how much they favour large τ"
    GRANULARITY = "granularity and the overlap with pretraining decide that"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of a claim."""

    claim: Claim
    verdict: Verdict
    why: str = ""
    """Why it cannot be told, or not tested; or that comparisons go both ways."""
    pooled: tuple[Paired, ...] = ()
    """Of the comparisons' parts the mean under each seed, over all that are of one thing."""
    comparisons: tuple[Compared, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A student that learnt from labels alone."""

    dataset: str
    student: str
    settings: Mapping[str, Value]
    """Of its training, by name."""
    trials: int
    """Of which it is the best by validation."""
    tests: BySeed
    """Its test scores, in points."""

    def beside(self, line: TemperatureLine) -> bool:
        """Whether it is the student of a line, trained as long and alike, and tuned as much.

        Its augmentation may be another (`sees_alike`): a mixed image has no label.
        """
        names = ("optimizer", "batch_size", "epochs")
        return (
            (self.dataset, self.student) == (line.factors["dataset"], line.factors["student"])
            and all(self.settings[name] == line.factors.get(name) for name in names)
            and self.trials >= line.factors[TRIALS]
        )

    def sees_alike(self, line: TemperatureLine) -> bool:
        """Whether its augmentation is that of a line."""
        return self.settings.get("augmentation") == line.factors.get("augmentation")


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What the claims are found in."""

    lines: Sequence[TemperatureLine]
    plain: Sequence[Plain] = field(default_factory=tuple)

    @property
    def true(self) -> list[TemperatureLine]:
        """Those that learn the teacher's own softmax."""
        return [line for line in self.lines if not line.control]

    @property
    def swept(self) -> list[TemperatureLine]:
        """Those of them that have several temperatures."""
        return [line for line in self.true if len(line.temperatures) > 1]

    def alike(
        self, lines: Iterable[TemperatureLine], but: Iterable[str]
    ) -> list[list[TemperatureLine]]:
        """Lines that differ in these factors alone."""
        groups: dict[Held, list[TemperatureLine]] = defaultdict(list)
        for line in lines:
            groups[line.without(but)].append(line)
        return [group for group in groups.values() if len(group) > 1]


def finding(
    claim: Claim, found: Iterable[Compared], absent: str, takes: Collection[str] = ()
) -> Finding:
    """What becomes of a claim; `absent` is why it is not tested where there is nothing.

    `takes` are the parts without any of which it cannot have held.
    """
    comparisons = tuple(found)
    if not comparisons:
        return Finding(claim=claim, verdict=Verdict.UNTESTED, why=absent)
    whole = [each for each in comparisons if each.parts]
    if not whole:
        why = comparisons[0].missing or ""
        return Finding(claim=claim, verdict=Verdict.OPEN, why=why, comparisons=comparisons)
    pooled = _pooled(whole)
    verdict, why = together(pooled), too_few(len(pooled[0].by_seed))
    missing = [what for what in takes if what not in {part.what for part in pooled}]
    if len(whole) < len(comparisons):
        left = len(comparisons) - len(whole)
        verdict, why = Verdict.OPEN, f"{left} of {len(comparisons)} comparisons lack scores"
    elif verdict is Verdict.HELD and missing:
        verdict, why = Verdict.OPEN, f"half of it is not tested: {missing[0]}"
    elif verdict is Verdict.OPEN:
        why = why or WITHIN
    elif other := sum(each.verdict not in (verdict, Verdict.OPEN) for each in whole):
        why = f"on average; the other way in {other} of {len(whole)} comparisons"
    return Finding(claim=claim, verdict=verdict, why=why, pooled=pooled, comparisons=comparisons)


def _pooled(whole: Iterable[Compared]) -> tuple[Paired, ...]:
    by_what: dict[str, list[BySeed]] = defaultdict(list)
    for each in whole:
        for part in each.parts:
            by_what[part.what].append(part.by_seed)
    return tuple(
        Paired(what=what, by_seed=mean_by_seed(*several)) for what, several in by_what.items()
    )


def too_few(seeds: int) -> str:
    """Why nothing is told of so few; empty where they are enough."""
    return f"{seeds} seed{'' if seeds == 1 else 's'}, and it takes {SEEDS}" if seeds < SEEDS else ""
