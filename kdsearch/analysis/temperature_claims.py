"""What is claimed of temperature in distillation, and whether it held in a study.

The claims are those of "A Unified Revisit of Temperature in Classification-Based Knowledge
Distillation" (arXiv 2603.02430); the statistics are ours. Each is a difference under every seed, of
test scores in points, that is above 0 where the claim holds. What it takes is chosen by validation:
learning rates by all seeds, and what is the best, or the worst, by all but the one that is scored.
Of the temperatures that two lines share and have scores at, the lower half are the small ones and
the upper half the large ones, an odd one in the middle being neither.

Of several comparisons of one thing the difference is the mean over these, seed by seed. It is seen
where its 95 % t interval over the seeds excludes 0, from `SEEDS` of them. Where any of several
differences suffices, intervals are wider, for all of them together (Bonferroni). Teachers and their
outputs are the same under every seed, so that an interval says nothing of other teachers. There is
no correction for the number of claims.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations, product
from typing import Any

from kdsearch.analysis.temperature_finding import (
    WITHIN,
    Claim,
    Finding,
    Held,
    Lines,
    Plain,
    finding,
    too_few,
)
from kdsearch.analysis.temperature_lines import (
    OF_OBJECTIVE,
    OF_OPTIMIZER,
    OF_TEACHER,
    SUPERVISION,
    TemperatureLine,
    TemperaturePoint,
    longest,
    over_datasets,
    validation_of,
)
from kdsearch.analysis.temperature_paired import (
    BySeed,
    Compared,
    Paired,
    Verdict,
    against,
    apart_by,
    at_large,
    by_others,
    compared,
    favour,
    less,
    mean_of,
    picked,
    reach,
)
from kdsearch.search import Objective, permuted_after

_OVER_SCRATCH = "large less small τ, of the pretrained teacher less of one from random weights"
_OVER_LONGER = "large less small τ, of the teacher tuned least less of the one tuned most"


def temperature_findings(
    lines: Sequence[TemperatureLine], plain: Sequence[Plain] = ()
) -> tuple[Finding, ...]:
    """Every claim, tested as far as the lines go."""
    case = Lines(lines=lines, plain=plain)
    return (
        _no_best(case),
        finding(Claim.FLATTER, _flatter(case), "no search has both AdamW and SGD, else alike"),
        finding(Claim.CROSSES, _crosses(case), "no search has SGD at several numbers of epochs"),
        finding(Claim.BATCH, _batches(case), "no search has SGD at several batch sizes"),
        finding(Claim.RELATIONS, _relations(case), "no control of what is learnt was trained"),
        finding(
            Claim.PRETRAINED,
            _needs_pretraining(case),
            "there is no pretrained teacher beside one of random weights, or one tuned longer",
            takes=(_OVER_SCRATCH, _OVER_LONGER),
        ),
        finding(
            Claim.LONGER_HURTS,
            _longer(case),
            "no pretrained teacher was fine-tuned for several numbers of epochs",
        ),
        finding(
            Claim.KD_WINS,
            _over_labels(case),
            "no student learnt from the labels alone (`erm: true`) as long, and alike",
        ),
        _datasets(case),
        Finding(
            claim=Claim.GRANULARITY,
            verdict=Verdict.UNTESTED,
            why="no study says how fine its classes are, nor what a teacher’s pretraining had",
        ),
    )


# -- the claims ----------------------------------------------------------------------------------


def _flatter(case: Lines) -> Iterator[Compared]:
    """What the best τ has more than the worst, under SGD less that under AdamW.

    Both are those of each optimizer's own, as validation of the other seeds has them.
    """
    for group in case.alike(case.swept, OF_OPTIMIZER):
        by = {
            name: [line for line in group if line.factors["optimizer"] == name]
            for name in ("sgd", "adamw")
        }
        for sgd, adamw in product(*by.values()):
            what = "best less worst τ, of SGD less of AdamW"
            where = dict(sgd.without(OF_OPTIMIZER))
            yield compared((sgd, adamw), where, (what, apart_by(reach, sgd, adamw)))


def _crosses(case: Lines) -> Iterator[Compared]:
    """Under SGD, what small τ has more than large at the fewest epochs, and large more than small
    at the most; and how much further the second lies in favour of large τ than the first."""
    for group in case.alike(_under_sgd(case), ["epochs"]):
        few, *_, many = sorted(group, key=lambda line: int(line.factors["epochs"]))
        yield compared(
            (few, many),
            dict(few.without(["epochs"])),
            ("small less large τ, few epochs", partial(against, few)),
            ("large less small τ, many epochs", partial(favour, many)),
            ("large less small τ, of many epochs less of few", apart_by(favour, many, few)),
        )


def _batches(case: Lines) -> Iterator[Compared]:
    """Under SGD, how much more the smallest batch favours large τ than the largest, at as many
    epochs; the mean over all numbers of epochs."""
    by_epochs: dict[Held, list[tuple[TemperatureLine, TemperatureLine]]] = defaultdict(list)
    for group in case.alike(_under_sgd(case), ["batch_size"]):
        small, *_, large = sorted(group, key=lambda line: int(line.factors["batch_size"]))
        by_epochs[small.without(["batch_size", "epochs"])].append((small, large))
    for alike, pairs in by_epochs.items():
        every = [line for pair in pairs for line in pair]
        apart = [apart_by(favour, *pair) for pair in pairs]
        what = "large less small τ, of small batches less of large"
        yield compared(every, dict(alike), (what, mean_of(apart)))


def _under_sgd(case: Lines) -> list[TemperatureLine]:
    return [line for line in case.swept if line.factors["optimizer"] == "sgd"]


def _relations(case: Lines) -> Iterator[Compared]:
    """What the teacher's softmax has more than controls, over the large τ: than smoothed labels,
    and than those that permute some of it."""
    for group in case.alike(case.lines, [SUPERVISION]):
        softmax = next((line for line in group if not line.control), None)
        for control in group:
            if softmax is not None and control is not softmax:
                kind = "permuted" if permuted_after(control.factors[SUPERVISION]) else "smoothed"
                what = f"softmax less {kind}, at large τ"
                apart = apart_by(at_large, softmax, control)
                yield compared((softmax, control), control.factors, (what, apart))


def _needs_pretraining(case: Lines) -> Iterator[Compared]:
    """How much more the pretrained teacher of the fewest epochs favours large τ than one from
    random weights, and than the same one tuned longest."""
    for group in case.alike(case.swept, OF_TEACHER):
        scratch = [line for line in group if line.teacher.weights == "random"]
        for light, *longer in _by_epochs(group):
            others = [(_OVER_SCRATCH, line) for line in scratch]
            others += [(_OVER_LONGER, line) for line in longer[-1:]]
            for what, other in others:
                where = _against_teacher(light, other)
                yield compared((light, other), where, (what, apart_by(favour, light, other)))


def _longer(case: Lines) -> Iterator[Compared]:
    """What the student of the pretrained teacher of the fewest epochs has more than that of the
    most, each at the τ that validation chose."""
    for group in case.alike(case.true, OF_TEACHER):
        for light, *longer in _by_epochs(group):
            for other in longer[-1:]:
                where = _against_teacher(light, other)
                yield _bests("light less long", where, (light,), (other,))


def _by_epochs(lines: Iterable[TemperatureLine]) -> list[list[TemperatureLine]]:
    """Those of pretrained teachers that were fine-tuned: of each model and smoothing, by rising
    epochs."""
    by_model: dict[tuple[str | None, float], dict[int, TemperatureLine]] = defaultdict(dict)
    for line in lines:
        if line.teacher.weights == "pretrained" and line.teacher.epochs is not None:
            alike = by_model[line.teacher.model, line.teacher.smoothing]
            alike.setdefault(line.teacher.epochs, line)
    return [[line for _, line in sorted(each.items())] for each in by_model.values()]


def _against_teacher(one: TemperatureLine, other: TemperatureLine) -> Mapping[str, Any]:
    names = (f"{each.factors['teacher']} {each.factors['checkpoint']}" for each in (one, other))
    return {**dict(one.without(OF_TEACHER)), "teacher": " less ".join(names)}


def _over_labels(case: Lines) -> Iterator[Compared]:
    """What the best line and τ of a student and teacher, by validation, have more than the student
    on the labels alone, trained as long. KD has more objectives and τ to choose from; choices look
    at validation alone."""
    names = ("dataset", "student", "teacher")
    for plain in case.plain:
        by_teacher: dict[str, list[TemperatureLine]] = defaultdict(list)
        for line in filter(plain.beside, case.true):
            by_teacher[line.factors["teacher"]].append(line)
        for teacher, lines in by_teacher.items():
            where = dict(zip(names, (plain.dataset, plain.student, teacher), strict=True))
            alike = all(plain.sees_alike(line) for line in lines)
            what = "KD less labels alone" + ("" if alike else " (of another augmentation)")
            yield _bests(what, where, lines, plain.tests)


def _bests(
    what: str,
    where: Mapping[str, Any],
    one: Sequence[TemperatureLine],
    other: Sequence[TemperatureLine] | BySeed,
) -> Compared:
    """What the best of lines has more than the best of others, or than scores; by validation."""
    sides = [_best_of(side) for side in (one, other)]
    if sides[0] is None or sides[1] is None:
        return Compared(where=where, parts=(), missing="trials are not finished, or have no score")
    return Compared(where=where, parts=(Paired(what=what, by_seed=less(sides[0], sides[1])),))


def _best_of(side: Sequence[TemperatureLine] | BySeed) -> BySeed | None:
    lines = [each for each in side if isinstance(each, TemperatureLine)]
    if not lines:
        return tuple(each for each in side if isinstance(each, float)) or None
    points = [(line, point) for line in lines for point in line.scored.values()]
    return picked(points) if points and not any(line.unfinished for line in lines) else None


def _datasets(case: Lines) -> Finding:
    """How much more one data set favours large τ than another, at the most epochs that both have,
    else the most of each; either way counts. Of two data sets seeds pair little, so that spreads
    are wide."""
    by_pair: dict[tuple[str, str], list[Compared]] = defaultdict(list)
    for by_dataset in over_datasets(case.swept):
        for one, other in combinations(sorted(by_dataset), 2):
            lines = longest(by_dataset[one], by_dataset[other])
            what = f"large less small τ, of {one} less of {other}"
            where = dict(frozenset.intersection(*(line.without(["dataset"]) for line in lines)))
            found = compared(lines, where, (what, apart_by(favour, *lines)))
            parts = tuple(replace(part, two_sided=True) for part in found.parts)
            by_pair[one, other].append(replace(found, parts=parts))
    claim = Claim.DATASETS
    findings = [finding(claim, each, "") for each in by_pair.values()]
    if not findings:
        return finding(claim, (), "no two data sets have students that were trained alike")
    pooled = tuple(
        replace(part, two_sided=True, of=len(findings)) for each in findings for part in each.pooled
    )
    comparisons = tuple(each for found in findings for each in found.comparisons)
    if any(part.verdict is Verdict.HELD for part in pooled):
        return Finding(claim=claim, verdict=Verdict.HELD, pooled=pooled, comparisons=comparisons)
    verdict = Verdict.OPEN
    why = next((f.why for f in findings if f.verdict is verdict and f.why), WITHIN)
    return Finding(claim=claim, verdict=verdict, why=why, pooled=pooled, comparisons=comparisons)


def _no_best(case: Lines) -> Finding:
    """Whether two settings are won by different objectives, each ahead of the other's.

    The winner, at its best parameters and τ, is that of the best validation: of the other seeds,
    where it is ahead of another setting's, for any of all pairs of settings. It did not hold where
    one objective is ahead of every other everywhere.
    """
    claim, settings = Claim.NO_BEST, list(_settings(case))
    if len(settings) < 2:
        return finding(claim, (), "there are no two settings with several objectives")
    if any(line.unfinished for setting in settings for line in setting.lines):
        return Finding(claim=claim, verdict=Verdict.OPEN, why="trials are not finished")
    comparisons = tuple(setting.ahead for setting in settings)
    pairs = [*combinations(settings, 2)]
    for one, other in pairs:
        parts = [one.over_winner_of(other), other.over_winner_of(one)]
        seen = tuple(replace(part, of=len(pairs)) for part in parts if part)
        if len(seen) == 2 and {part.verdict for part in seen} == {Verdict.HELD}:
            held = Verdict.HELD
            return Finding(claim=claim, verdict=held, pooled=seen, comparisons=comparisons)
    winners = {setting.winner for setting in settings}
    if len(winners) == 1 and all(setting.clear for setting in settings):
        winner = winners.pop()
        verdict, why = Verdict.NOT_HELD, f"{winner} is ahead of every other everywhere"
        if all(setting.seeing_more == {winner} for setting in settings):
            why += ", and it alone sees a second, weaker view of each image"
    else:
        seeds = len(next(iter(settings[0].scores.values())))
        verdict, why = Verdict.OPEN, too_few(seeds) or WITHIN
    return Finding(claim=claim, verdict=verdict, why=why, comparisons=comparisons)


_Points = Sequence[tuple[TemperatureLine, TemperaturePoint]]


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """The objectives that were tried in one setting, the best by validation first."""

    where: Mapping[str, Any]
    lines: Sequence[TemperatureLine]
    points: Mapping[str, _Points]

    @cached_property
    def scores(self) -> Mapping[str, BySeed]:
        """Of each objective, at its best by validation of the other seeds."""
        return {kind: picked(points) for kind, points in self.points.items()}

    @property
    def winner(self) -> str:
        return next(iter(self.points))

    @property
    def seeing_more(self) -> set[str]:
        """The objectives that see two views of each image at their best by validation."""
        best = {k: max(each, key=lambda p: validation_of(p[1])) for k, each in self.points.items()}
        return {kind for kind, (line, _) in best.items() if line.factors.get("two_views")}

    @cached_property
    def winners(self) -> tuple[str, ...]:
        """Under each seed that of the others."""
        seeds = range(len(self.scores[self.winner]))
        return tuple(max(self.points, key=partial(self._best, seed=seed)) for seed in seeds)

    def _best(self, kind: str, seed: int) -> float:
        return max(by_others(point, seed) for _, point in self.points[kind])

    def over(self, other: str) -> Paired:
        """What its winner is ahead of another objective."""
        by_seed = less(self.scores[self.winner], self.scores[other])
        return Paired(what=f"{self.winner} less {other}", by_seed=by_seed)

    def over_winner_of(self, setting: _Setting) -> Paired | None:
        """What its winner is here ahead of another setting's; None where that is not tried here."""
        if not {*setting.winners} <= self.scores.keys():
            return None
        mine, theirs = (
            tuple(self.scores[kind][seed] for seed, kind in enumerate(winners))
            for winners in (self.winners, setting.winners)
        )
        what = " less ".join(
            " or ".join(dict.fromkeys(winners)) for winners in (self.winners, setting.winners)
        )
        return Paired(what=what, by_seed=less(mine, theirs))

    @property
    def ahead(self) -> Compared:
        """What its winner is ahead of the second."""
        return Compared(where=self.where, parts=(self.over([*self.points][1]),))

    @property
    def clear(self) -> bool:
        """Whether its winner is ahead of every other."""
        others = (kind for kind in self.points if kind != self.winner)
        return all(self.over(kind).verdict is Verdict.HELD for kind in others)


def _settings(case: Lines) -> Iterator[_Setting]:
    """Those in which several objectives have scores."""
    for group in case.alike(case.true, OF_OBJECTIVE):
        points: dict[str, list[tuple[TemperatureLine, TemperaturePoint]]] = defaultdict(list)
        for line in group:
            kind = Objective.kinds[line.factors["objective"]].title
            kind += ", standardised" if line.factors.get("standardise") else ""
            points[kind] += [(line, point) for point in line.scored.values()]
        best = {
            kind: max(validation_of(point) for _, point in each)
            for kind, each in points.items()
            if each
        }
        if len(best) > 1:
            yield _Setting(
                where=dict(group[0].without(OF_OBJECTIVE)),
                lines=group,
                points={kind: points[kind] for kind in sorted(best, key=lambda k: -best[k])},
            )
