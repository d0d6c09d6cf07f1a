"""What is claimed of label smoothing beside distillation, and which way each claim went.

The claims are those of arXiv 2301.12609. They are found in the same way in a study's results and in
the paper's own tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from statistics import fmean, stdev

from kdsearch.analysis.measures import Measured


class Kind(StrEnum):
    """A way to train a student."""

    ERM = "ERM"
    LS = "label smoothing"
    KD = "KD"
    """From a larger teacher."""
    SELF = "self-KD"
    """From a teacher of the student's own size."""
    REVERSE = "reverse KD"
    """From a smaller teacher."""
    UNKNOWN = "KD, sizes not known"


TAUGHT = (Kind.KD, Kind.SELF, Kind.REVERSE, Kind.UNKNOWN)


class Role(StrEnum):
    """Which of the paper's two models a student stands for."""

    SMALL = "DistilBERT"
    """It has standard KD or self-KD."""
    LARGE = "BERT"
    """It has reverse KD alone."""


class Claim(StrEnum):
    """A claim of the paper, in the order in which it makes them."""

    LS_RAISES = "label smoothing raises the entropy over ERM"
    KD_LOWERS = "KD lowers it where the teacher is larger, or equal"
    REVERSE_RAISES = "reverse KD raises it over ERM"
    REVERSE_BELOW_LS = "reverse KD raises it less than label smoothing"
    TOWARDS_TEACHER = "the student moves from ERM to its teacher’s side"
    AS_TEACHERS = "two teachers’ students are ordered as the teachers are"
    KD_OVER_LS = "KD has a higher score than label smoothing"
    SELF_OVER_KD = "self-KD scores at least as high as standard KD"
    REVERSE_GAINS_LESS = "reverse KD gains less over ERM than KD does"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a method's student did on a split at one epoch, under each seed."""

    kind: Kind
    name: str
    scores: tuple[float, ...] | None
    entropies: tuple[float, ...] | None
    """Mean posterior entropies, in nats; None where they were not measured."""
    teacher: float | None = None
    """The entropy of its teacher on the same split."""
    taught_by: str | None = None
    hot: bool = False
    """Whether temperatures other than 1 were searched."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The methods of one student on one data set."""

    dataset: str
    student: str
    methods: tuple[Seen, ...]

    def of(self, *kinds: Kind) -> tuple[Seen, ...]:
        """Its methods of these kinds."""
        return tuple(seen for seen in self.methods if seen.kind in kinds)

    @property
    def role(self) -> Role | None:
        """Which of the paper's models its student stands for; None without a known size."""
        taught = {seen.kind for seen in self.of(*TAUGHT)} - {Kind.UNKNOWN}
        if not taught:
            return None
        return Role.LARGE if taught == {Kind.REVERSE} else Role.SMALL

    @property
    def hot(self) -> bool:
        """Whether all that is taught was searched at temperatures other than 1."""
        return all(seen.hot for seen in self.of(*TAUGHT))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Which way a claim went."""

    values: tuple[tuple[str, float | None], ...]
    """What was compared, means over the seeds, by what it is."""
    difference: Measured | None
    """Of the first two, or of the two gains; None where something was not measured."""
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A claim about methods that a study, or the paper, has."""

    claim: Claim
    dataset: str
    student: str
    compared: tuple[str, ...]
    """The names of the methods."""
    kinds: tuple[Kind, ...]
    role: Role | None
    hot: bool
    finding: Finding


def claims(groups: Sequence[Group]) -> Iterator[Found]:
    """Every claim about the methods that are there; groups of one data set are compared too."""
    for group in groups:
        yield from _of_entropy(group)
        yield from _of_teachers(group)
        yield from _of_scores(group)
    for back, other in product(groups, groups):
        if back.dataset == other.dataset:
            yield from _of_gains(back, other)


def _of_entropy(group: Group) -> Iterator[Found]:
    erms, smoothed, back = group.of(Kind.ERM), group.of(Kind.LS), group.of(Kind.REVERSE)
    for smooth, erm in product(smoothed, erms):
        yield _compared(Claim.LS_RAISES, group, (smooth, erm), _entropies, _above)
    for kd, erm in product(group.of(Kind.KD, Kind.SELF), erms):
        yield _compared(Claim.KD_LOWERS, group, (kd, erm), _entropies, _below)
    for kd, erm in product(back, erms):
        yield _compared(Claim.REVERSE_RAISES, group, (kd, erm), _entropies, _above)
    for kd, smooth in product(back, smoothed):
        yield _compared(Claim.REVERSE_BELOW_LS, group, (kd, smooth), _entropies, _below)


def _of_teachers(group: Group) -> Iterator[Found]:
    """Whether a student's entropy follows its teacher's.

    A teacher of the student's own size is as ERM is, so that it has no side.
    """
    for kd, erm in product(group.of(Kind.KD, Kind.REVERSE), group.of(Kind.ERM)):
        base = _mean(erm.entropies)
        side = _same_side(kd.teacher, base)
        yield _compared(Claim.TOWARDS_TEACHER, group, (kd, erm), _entropies, side, kd)
    for one, other in combinations(group.of(*TAUGHT), 2):
        if one.taught_by != other.taught_by:
            side = _same_side(one.teacher, other.teacher)
            pair = (one, other)
            yield _compared(Claim.AS_TEACHERS, group, pair, _entropies, side, one, other)


def _of_scores(group: Group) -> Iterator[Found]:
    for kd, smooth in product(group.of(Kind.KD, Kind.SELF), group.of(Kind.LS)):
        yield _compared(Claim.KD_OVER_LS, group, (kd, smooth), _scores, _above)
    for own, kd in product(group.of(Kind.SELF), group.of(Kind.KD)):
        yield _compared(Claim.SELF_OVER_KD, group, (own, kd), _scores, _not_below)


def _of_gains(back: Group, other: Group) -> Iterator[Found]:
    """The gains of a reverse KD and of a KD, each over its own student's ERM."""
    pairs = product(back.of(Kind.REVERSE), other.of(Kind.KD, Kind.SELF))
    erms = product(back.of(Kind.ERM), other.of(Kind.ERM))
    for (one, two), (base, base_of_two) in product(pairs, erms):
        gains = (_less(one.scores, base.scores), _less(two.scores, base_of_two.scores))
        names = (f"gain of {one.kind}", f"gain of {two.kind}")
        yield _found(Claim.REVERSE_GAINS_LESS, back, (one, two), names, gains, _below)


_DIGITS = 12
"""Of a difference: one of equal scores is 0, whatever floats make of it."""
_BySeed = tuple[float, ...] | None


def _entropies(seen: Seen) -> _BySeed:
    return seen.entropies


def _scores(seen: Seen) -> _BySeed:
    return seen.scores


def _above(difference: float) -> bool:
    return difference > 0


def _below(difference: float) -> bool:
    return difference < 0


def _not_below(difference: float) -> bool:
    return difference >= 0


def _same_side(one: float | None, other: float | None) -> Callable[[float], bool | None]:
    """Whether a difference has the sign of that of two entropies; None where they are equal."""
    if one is None or other is None or one == other:
        return lambda _: None
    return lambda difference: difference * (one - other) > 0


def _compared(
    claim: Claim,
    group: Group,
    pair: tuple[Seen, Seen],
    what: Callable[[Seen], _BySeed],
    holds: Callable[[float], bool | None],
    *taught: Seen,
) -> Found:
    """The claim about a pair; the teachers of those in `taught` are printed too."""
    one, other = pair
    names = (str(one.kind), str(other.kind))
    teachers = tuple((f"teacher of {seen.kind}", seen.teacher) for seen in taught)
    return _found(claim, group, pair, names, (what(one), what(other)), holds, teachers)


def _found(
    claim: Claim,
    group: Group,
    pair: tuple[Seen, Seen],
    names: tuple[str, str],
    sides: tuple[_BySeed, _BySeed],
    holds: Callable[[float], bool | None],
    more: tuple[tuple[str, float | None], ...] = (),
) -> Found:
    apart = _less(*sides)
    difference = None
    if apart is not None:
        spread = stdev(apart) if len(apart) > 1 else None
        difference = Measured(mean=round(fmean(apart), _DIGITS) + 0.0, spread=spread)
    kinds = tuple(seen.kind for seen in pair)
    taught = [seen for seen in pair if seen.kind in TAUGHT]
    role = group.role
    if taught:
        role = Role.LARGE if Kind.REVERSE in kinds else Role.SMALL
    return Found(
        claim=claim,
        dataset=group.dataset,
        student=group.student,
        compared=tuple(seen.name for seen in pair),
        kinds=kinds,
        role=role,
        hot=any(seen.hot for seen in taught) if taught else group.hot,
        finding=Finding(
            values=(*zip(names, map(_mean, sides), strict=True), *more),
            difference=difference,
            holds=None if difference is None else holds(difference.mean),
        ),
    )


def _less(one: _BySeed, other: _BySeed) -> _BySeed:
    """The differences under each seed."""
    if one is None or other is None:
        return None
    return tuple(a - b for a, b in zip(one, other, strict=True))


def _mean(values: _BySeed) -> float | None:
    return None if values is None else fmean(values)
