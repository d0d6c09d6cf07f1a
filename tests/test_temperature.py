"""A temperature study: its lines, what is claimed of it tested on made-up outcomes, its report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import fmean, stdev
from typing import Any

import pytest
from fakes import a_study, memory_ledger, outcome_of, resolved_of, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from test_page import data_of

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    Softmax,
    StudentTraining,
    TestScore,
    Training,
)
from kdsearch.analysis.origins import StudentOrigin, TeacherOrigin
from kdsearch.analysis.temperature import Temperatures, temperatures
from kdsearch.analysis.temperature_claims import temperature_findings
from kdsearch.analysis.temperature_finding import Claim, Finding, Plain
from kdsearch.analysis.temperature_lines import (
    TemperatureLine,
    TemperaturePoint,
    temperature_lines,
)
from kdsearch.analysis.temperature_paired import SEEDS, Paired, Verdict, picked, reach
from kdsearch.report.page.temperature_charts import temperature_charts
from kdsearch.report.temperature import claims_table, parts
from kdsearch.report.temperature_words import teacher_in_words
from kdsearch.report.write import report_files
from kdsearch.study import TestCase

TAUS = (1.0, 2.0, 5.0, 10.0, 20.0)
LARGE = {10.0: 1.0, 20.0: 1.0, 1.0: -1.0, 2.0: -1.0}
"""How much a temperature is a large one."""


# -- lines by hand -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """What made-up lines score: how much each favours large temperatures, and how high it is."""

    favours: Callable[[dict[str, Any]], float] = lambda factors: 0.0
    """In points, from the middle to the large ones."""
    height: Callable[[dict[str, Any]], float] = lambda factors: 0.0
    noise: float = 0.1
    """In points; every training's own."""
    seeds: int = SEEDS

    def line(self, **factors: Any) -> TemperatureLine:
        known = {
            "dataset": "pets",
            "teacher": "light",
            "checkpoint": "t_hs",
            "student": "small",
            "objective": "ce",
            "optimizer": "adamw",
            "batch_size": 64,
            "epochs": 10,
            "trials": 2,
            **factors,
        }
        names = ("dataset", "teacher", "student")
        return TemperatureLine(
            case=TestCase(**{name: known[name] for name in names}, search="crossing"),
            factors=known,
            points=tuple(self.point(known, temperature) for temperature in TAUS),
            teacher=TEACHERS[known["teacher"]],
            outputs="",
            student=StudentOrigin(weights="random", trained=None),
            start=None,
            digits=3,
            largest=1.0,
        )

    def point(self, factors: dict[str, Any], temperature: float) -> TemperaturePoint:
        mean = 50 + self.height(factors) + LARGE.get(temperature, 0.0) * self.favours(factors)
        tests, validations = (
            tuple(
                (
                    mean
                    + 10 * uniform(seed)
                    + self.noise * uniform(split, seed, *factors.values(), t)
                )
                / 100
                for seed in range(self.seeds)
                for t in [temperature]
            )
            for split in ("test", "validation")
        )
        return TemperaturePoint(
            temperature=temperature,
            state="scored",
            trials=2,
            learning_rate=1e-5,
            validation=fmean(validations),
            validations=validations,
            tests=tests,
            key="abc" * 8,
        )


TEACHERS = {
    "light": TeacherOrigin(weights="pretrained", model="pre", epochs=2, smoothing=0),
    "long": TeacherOrigin(weights="pretrained", model="pre", epochs=20, smoothing=0),
    "scratch": TeacherOrigin(weights="random", model="big", epochs=20, smoothing=0),
}


def lines_of(world: World, **axes: Sequence[Any]) -> list[TemperatureLine]:
    """The grid of some factors."""
    grid = product(*axes.values())
    return [world.line(**dict(zip(axes, values, strict=True))) for values in grid]


def found_in(lines: Sequence[TemperatureLine], claim: Claim, *plain: Plain) -> Finding:
    [found] = [each for each in temperature_findings(lines, plain) if each.claim is claim]
    return found


def sgd_crosses(factors: dict[str, Any]) -> float:
    """SGD favours small temperatures at first, and large ones late, later with large batches."""
    if factors["optimizer"] == "adamw":
        return 0.2
    return float(factors["epochs"] - 6 - factors["batch_size"] / 100)


def minus(effect: Callable[[dict[str, Any]], float]) -> Callable[[dict[str, Any]], float]:
    return lambda factors: -effect(factors)


CROSSING: dict[str, Sequence[Any]] = {
    "optimizer": ["adamw", "sgd"],
    "batch_size": [64, 256],
    "epochs": [2, 10],
}
LOSSES: dict[str, Sequence[Any]] = {"dataset": ["pets", "cars"], "objective": ["ce", "dkd"]}


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A claim, the grid that it needs, and worlds in which it holds and in which it does not."""

    claim: Claim
    axes: dict[str, Sequence[Any]]
    holds: World
    fails: World = field(default_factory=World)


def of_teacher(**favours: float) -> Callable[[dict[str, Any]], float]:
    return lambda factors: favours[factors["teacher"]]


CLAIMS = [
    Tested(
        claim=Claim.FLATTER,
        axes=CROSSING,
        holds=World(favours=lambda f: 3.0 if f["optimizer"] == "sgd" else 0.2),
        fails=World(favours=lambda f: 0.2 if f["optimizer"] == "sgd" else 3.0),
    ),
    Tested(
        claim=Claim.CROSSES,
        axes=CROSSING,
        holds=World(favours=sgd_crosses),
        fails=World(favours=minus(sgd_crosses)),
    ),
    Tested(
        claim=Claim.BATCH,
        axes=CROSSING,
        holds=World(favours=sgd_crosses),
        fails=World(favours=minus(sgd_crosses)),
    ),
    Tested(
        claim=Claim.PRETRAINED,
        axes={"teacher": ["light", "long", "scratch"]},
        holds=World(favours=of_teacher(light=3, long=1, scratch=-1)),
        fails=World(favours=of_teacher(light=-3, long=1, scratch=1)),
    ),
    Tested(
        claim=Claim.LONGER_HURTS,
        axes={"teacher": ["light", "long"]},
        holds=World(height=of_teacher(light=2, long=0)),
        fails=World(height=of_teacher(light=0, long=2)),
    ),
    Tested(
        claim=Claim.NO_BEST,
        axes=LOSSES,
        holds=World(height=lambda f: 2.0 * ((f["dataset"] == "pets") == (f["objective"] == "ce"))),
        fails=World(height=lambda f: 2.0 * (f["objective"] == "ce")),
    ),
]
"""Those whose grid is one of factors that every line has."""


@pytest.mark.parametrize("tested", CLAIMS, ids=lambda tested: tested.claim.name)
def test_a_claim_is_held_where_its_effect_is_there_and_not_where_it_is_reversed(
    tested: Tested,
) -> None:
    for world, verdict in ((tested.holds, Verdict.HELD), (tested.fails, Verdict.NOT_HELD)):
        found = found_in(lines_of(world, **tested.axes), tested.claim)
        assert found.verdict is verdict, found


@pytest.mark.parametrize("tested", CLAIMS, ids=lambda tested: tested.claim.name)
def test_of_an_effect_that_is_not_there_next_to_nothing_is_told(tested: Tested) -> None:
    studies = [lines_of(World(noise=1.0), **tested.axes, number=[n]) for n in range(40)]
    findings = [found_in(lines, tested.claim) for lines in studies]
    verdicts = [found.verdict for found in findings]
    assert verdicts.count(Verdict.OPEN) >= 36  # of 40, at 95 %
    assert {f.why for f in findings if f.verdict is Verdict.OPEN} == {
        "not beyond what seeds differ by"
    }


@pytest.mark.parametrize("tested", CLAIMS, ids=lambda tested: tested.claim.name)
def test_nothing_is_told_of_three_seeds_however_large_the_effect(tested: Tested) -> None:
    found = found_in(lines_of(replace(tested.holds, seeds=3), **tested.axes), tested.claim)
    assert (found.verdict, found.why) == (Verdict.OPEN, "3 seeds, and it takes 5")


@pytest.mark.parametrize("tested", CLAIMS, ids=lambda tested: tested.claim.name)
def test_nothing_is_told_while_trials_are_not_finished(tested: Tested) -> None:
    waiting = TemperaturePoint(temperature=40.0, state="unfinished", trials=2)
    lines = lines_of(tested.holds, **tested.axes)
    lines = [replace(line, points=(*line.points, waiting)) for line in lines]
    found = found_in(lines, tested.claim)
    assert found.verdict is Verdict.OPEN
    assert "trials are not finished" in found.why


@pytest.mark.parametrize("tested", CLAIMS, ids=lambda tested: tested.claim.name)
def test_a_claim_cannot_be_tested_without_what_it_compares(tested: Tested) -> None:
    found = found_in([World().line()], tested.claim)
    assert found.verdict is Verdict.UNTESTED
    assert found.why


def study_of(lines: Sequence[TemperatureLine], *, varied: tuple[str, ...]) -> Temperatures:
    """What a study has found that has these lines alone."""
    return Temperatures(
        lines=tuple(lines),
        varied=varied,
        teachers=(),
        plain=(),
        findings=temperature_findings(lines, ()),
        seeds=tuple(range(SEEDS)),
        classes={"pets": 37, "cars": 196},
    )


def test_that_no_objective_is_best_everywhere_is_no_single_setting_s_to_say() -> None:
    world = next(tested.holds for tested in CLAIMS if tested.claim is Claim.NO_BEST)
    lines = lines_of(world, **LOSSES)
    found = study_of(lines, varied=("dataset", "objective"))
    claims, each = (table for part in parts(found) for table in part.tables if table.wraps)
    row = next(row for row in claims.rows if row[0] is Claim.NO_BEST)
    assert (row[1], row[-1]) == (Verdict.HELD, None)
    of_it = [row for row in each.rows if row[0] is Claim.NO_BEST]
    assert len(of_it) == 2
    assert {row[2] for row in of_it} == {None}


def test_what_holds_in_one_comparison_and_not_in_another_is_counted() -> None:
    steep = {("sgd", "pets"), ("adamw", "cars")}
    world = World(favours=lambda f: 3.0 if (f["optimizer"], f["dataset"]) in steep else 0.2)
    found = study_of(lines_of(world, dataset=["pets", "cars"], **CROSSING), varied=("dataset",))
    row = next(row for row in claims_table(found).rows if row[0] is Claim.FLATTER)
    assert (row[1], row[-1]) == (Verdict.OPEN, "4 of 8, not in 4")


def test_of_a_winner_that_sees_two_views_this_is_said() -> None:
    world = World(height=lambda f: 2.0 * (f["objective"] == "mlkd"))
    lines = [
        world.line(objective=kind, dataset=name, **({"two_views": True} if two else {}))
        for name in ("pets", "cars")
        for kind, two in (("ce", False), ("mlkd", True))
    ]
    assert "a second, weaker view" in found_in(lines, Claim.NO_BEST).why
    one_view = [replace(each, factors={**each.factors, "two_views": False}) for each in lines]
    assert found_in(one_view, Claim.NO_BEST).why == "MLKD is ahead of every other everywhere"
    two_views = [replace(each, factors={**each.factors, "two_views": True}) for each in lines]
    assert found_in(two_views, Claim.NO_BEST).why == "MLKD is ahead of every other everywhere"
    worse = World(height=lambda f: 1.0 * (f["objective"] == "mlkd"))
    tried = [worse.line(objective="mlkd", dataset=n, two_views=True) for n in ("pets", "cars")]
    both = [*one_view, *tried]
    assert found_in(both, Claim.NO_BEST).why == "MLKD is ahead of every other everywhere"


def controls(world: World) -> list[TemperatureLine]:
    kinds = ["smoothed", "smoothed each", "permuted after 1"]
    return [world.line(), *(world.line(supervision=kind) for kind in kinds)]


def test_relations_matter_where_the_softmax_beats_its_controls_at_large_temperatures() -> None:
    loses = World(height=lambda f: -2.0 * ("supervision" in f))
    wins = World(height=lambda f: 2.0 * ("supervision" in f))
    only_small = World(favours=lambda f: 2.0 * ("supervision" in f))
    for world, verdict in (
        (loses, Verdict.HELD),
        (wins, Verdict.NOT_HELD),
        (only_small, Verdict.NOT_HELD),
        (World(noise=1.0), Verdict.OPEN),
    ):
        found = found_in(controls(world), Claim.RELATIONS)
        assert found.verdict is verdict
        assert len(found.comparisons) == 3


@pytest.mark.parametrize("worse", ["smoothed", "permuted after 1"])
def test_relations_need_both_smoothed_labels_and_permuted_classes_to_lose(worse: str) -> None:
    world = World(noise=1.0, height=lambda f: -5.0 * (f.get("supervision") == worse))
    kinds = ("smoothed", "permuted after 1")
    found = found_in([world.line(), *(world.line(supervision=k) for k in kinds)], Claim.RELATIONS)
    assert found.verdict is Verdict.OPEN
    assert Verdict.HELD in {part.verdict for part in found.pooled}


def test_half_of_a_claim_is_not_the_claim() -> None:
    world = World(favours=of_teacher(light=3, long=1, scratch=-1))
    for other in ("long", "scratch"):
        found = found_in(lines_of(world, teacher=["light", other]), Claim.PRETRAINED)
        assert found.verdict is Verdict.OPEN
        assert "half of it is not tested" in found.why


def test_lines_are_compared_only_with_what_was_tuned_as_much() -> None:
    world = World(favours=lambda f: 3.0 if f["optimizer"] == "sgd" else 0.2)
    lines = [world.line(optimizer="sgd", trials=3), world.line(optimizer="adamw", trials=1)]
    assert found_in(lines, Claim.FLATTER).verdict is Verdict.UNTESTED


def test_the_more_data_sets_the_more_each_pair_has_to_differ() -> None:
    world = World(favours=lambda f: 3.0 * (f["dataset"] == "pets"))
    two, four = (
        found_in(lines_of(world, dataset=names), Claim.DATASETS)
        for names in (["pets", "cars"], ["pets", "cars", "birds", "cats"])
    )
    [cars] = [part for part in four.pooled if "cars less of pets" in part.what]
    assert cars.mean == two.pooled[0].mean
    ends, wider = two.pooled[0].interval, cars.interval
    assert ends is not None
    assert wider is not None
    assert wider[1] - wider[0] > 1.5 * (ends[1] - ends[0])


def test_data_sets_are_compared_at_as_many_epochs_where_both_have_them() -> None:
    lines = [
        *lines_of(World(), dataset=["pets"], epochs=[2, 10]),
        World().line(dataset="cars", epochs=2),
    ]
    [compared] = found_in(lines, Claim.DATASETS).comparisons
    assert compared.where["epochs"] == 2


def test_controls_are_in_no_other_claim() -> None:
    for claim in Claim:
        if claim is not Claim.RELATIONS:
            assert found_in(controls(World()), claim).verdict is Verdict.UNTESTED


def alone(tests: tuple[float, ...], **otherwise: Any) -> Plain:
    """A student on the labels alone, trained as lines are but for what is said."""
    settings = {"optimizer": "adamw", "batch_size": 64, "epochs": 10, **otherwise}
    student, trials = (settings.pop(n, of) for n, of in (("student", "small"), ("trials", 2)))
    return Plain(dataset="pets", student=student, settings=settings, trials=trials, tests=tests)


def test_kd_is_compared_with_the_same_student_on_the_labels_alone() -> None:
    line = World().line()
    best = line.best
    assert best is not None
    for more, verdict in ((-3, Verdict.HELD), (3, Verdict.NOT_HELD), (0, Verdict.OPEN)):
        tests = tuple(100 * test + more for test in best.tests)
        plain = alone(tests)
        assert found_in([line], Claim.KD_WINS, plain).verdict is verdict


@pytest.mark.parametrize(
    ("augmentation", "said"), [("full, 20 views", ""), ("none", " (of another augmentation)")]
)
def test_it_is_said_where_labels_alone_were_learnt_of_another_augmentation(
    augmentation: str, said: str
) -> None:
    plain = alone((50.0,) * SEEDS, augmentation=augmentation)
    line = World().line(augmentation="full, 20 views")
    [part] = found_in([line], Claim.KD_WINS, plain).pooled
    assert part.what == f"KD less labels alone{said}"


@pytest.mark.parametrize(
    "otherwise", [{"student": "other"}, {"epochs": 20}, {"trials": 1}], ids=str
)
def test_kd_is_not_compared_with_labels_alone_that_were_trained_otherwise(
    otherwise: dict[str, Any],
) -> None:
    plain = alone((50.0,) * SEEDS, **otherwise)
    assert found_in([World().line()], Claim.KD_WINS, plain).verdict is Verdict.UNTESTED


@pytest.mark.parametrize("sign", [1, -1])
def test_data_sets_may_differ_either_way(sign: int) -> None:
    world = World(favours=lambda f: sign * 3.0 * (f["dataset"] == "pets"))
    found = found_in(lines_of(world, dataset=["pets", "cars"]), Claim.DATASETS)
    assert found.verdict is Verdict.HELD
    assert found.pooled[0].mean == pytest.approx(-6 * sign, abs=0.3)  # of cars less of pets
    assert {each.verdict for each in found.comparisons} == {Verdict.HELD}
    alike = found_in(lines_of(World(noise=1.0), dataset=["pets", "cars"]), Claim.DATASETS)
    assert alike.verdict is Verdict.OPEN


def test_what_decides_between_data_sets_is_not_for_a_study_to_tell() -> None:
    found = found_in(lines_of(World(), dataset=["pets", "cars"]), Claim.GRANULARITY)
    assert found.verdict is Verdict.UNTESTED


def test_an_effect_is_the_mean_over_its_comparisons_seed_by_seed() -> None:
    found = found_in(lines_of(CLAIMS[0].holds, **CROSSING), Claim.FLATTER)
    assert len(found.comparisons) == 4
    for seed, value in enumerate(found.pooled[0].by_seed):
        parts = [each.parts[0].by_seed[seed] for each in found.comparisons]
        assert value == pytest.approx(fmean(parts))


def test_a_temperature_without_a_score_is_left_out_of_both_sides() -> None:
    lines = lines_of(CLAIMS[0].holds, optimizer=["adamw", "sgd"])
    lost = TemperaturePoint(temperature=20.0, state="without a score", trials=2)
    lines[1] = replace(lines[1], points=(*lines[1].points[:-1], lost))
    found = found_in(lines, Claim.FLATTER)
    assert found.verdict is Verdict.HELD


def test_the_best_temperature_is_that_of_validation_not_of_test() -> None:
    line = World().line()
    low, high = line.points[0], line.points[-1]
    swapped = (
        replace(low, validation=0.99, tests=(0.1,) * SEEDS),
        *line.points[1:-1],
        replace(high, validation=0.01, tests=(0.9,) * SEEDS),
    )
    best = replace(line, points=swapped).best
    assert best is not None
    assert best.temperature == low.temperature


def test_the_best_temperature_of_pure_noise_is_no_better_than_the_worst() -> None:
    def noisy(number: int) -> TemperatureLine:
        line = World(noise=10.0).line(number=number)
        # As if a training that is lucky on one split were as lucky on the other.
        points = [replace(point, validations=point.tests) for point in line.points]
        return replace(line, points=tuple(points))

    lines = [noisy(number) for number in range(300)]
    reached = [fmean(reach(line, TAUS)) for line in lines]
    error = stdev(reached) / len(reached) ** 0.5
    assert abs(fmean(reached)) < 3 * error
    tests = [[point.test or 0.0 for point in line.points] for line in lines]
    picked_by_all = 100 * fmean(max(each) - min(each) for each in tests)
    assert picked_by_all > 10 * error


def test_what_is_best_is_picked_for_each_seed_by_the_others() -> None:
    line = World().line()
    low, high = line.points[:2]
    low = replace(low, validations=(0.0, 0.5, 0.5), tests=(0.1, 0.2, 0.3))
    high = replace(high, validations=(0.9, 0.4, 0.4), tests=(0.4, 0.5, 0.6))
    # Without the first seed the low one is better; with it the high one.
    assert picked([(line, low), (line, high)]) == pytest.approx((10, 50, 60))


DIFFERENCES = st.lists(st.floats(-50, 50), min_size=2, max_size=8)


@settings(max_examples=50)
@given(DIFFERENCES)
def test_the_interval_is_that_of_a_t_test(values: list[float]) -> None:
    part = Paired(what="", by_seed=tuple(values))
    interval = part.interval
    assert interval is not None
    if max(values) - min(values) > 1e-6:
        expected = ttest_1samp(values, 0).confidence_interval()
        assert interval == pytest.approx((expected.low, expected.high), abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=SEEDS, max_size=8))
def test_a_reversed_difference_has_the_reversed_verdict(values: list[float]) -> None:
    reverse = {Verdict.HELD: Verdict.NOT_HELD, Verdict.NOT_HELD: Verdict.HELD}
    one = Paired(what="", by_seed=tuple(values)).verdict
    other = Paired(what="", by_seed=tuple(-value for value in values)).verdict
    assert other is reverse.get(one, one)


def test_equal_differences_of_0_are_no_effect() -> None:
    assert Paired(what="", by_seed=(0.0,) * SEEDS).verdict is Verdict.OPEN
    assert Paired(what="", by_seed=(1e-15,) * SEEDS).verdict is Verdict.OPEN


# -- studies -----------------------------------------------------------------------------------


def study(**sections: Any) -> dict[str, Any]:
    """A crossing, other losses and a control beside it, two teachers, labels alone."""
    sweep = {"strategy": "exhaustive", "teacher": ["t_hs"], "temperature": [1, 2, 10]}
    content = {
        "datasets": {"sentences": {"grammar": {"train": 20, "validation": 10, "test": 100}}},
        "teachers": {
            "short": {"model": "big", "fine_tune": {"learning_rate": [1e-5], "epochs": 2}},
            "long": {"model": "big", "fine_tune": {"learning_rate": [1e-5], "epochs": 8}},
        },
        "seeds": [0, 1, 2],
        "erm": True,
        "searches": {
            "crossing": {
                **sweep,
                "objective": ["ce"],
                "optimizer": ["adamw", "sgd"],
                "epochs": [2, 4],
            },
            "losses": {**sweep, "objective": ["ce", "mse"]},
            "controls": {**sweep, "objective": ["ce"], "supervision": ["softmax", "smoothed"]},
        },
        "learning_rate": [1e-5, 2e-5],
        "training": {"epochs": 4, "schedule": "cosine"},
        **sections,
    }
    return {name: part for name, part in a_study(**content).items() if name != "search"}


def softmax_at(temperature: float) -> Softmax:
    return Softmax(
        temperature=temperature,
        classes=3,
        relative_entropy=1 - 1 / (1 + temperature),
        relative_entropy_without_top=None,
        ranks=(0.6, 0.3, 0.1),
        lowest=0.1,
    )


def became(training: Training) -> Outcome:
    """The higher rate is better on validation and worse on test."""
    if isinstance(training, OutputsTraining):
        return outcome_of(training, softmax=tuple(map(softmax_at, (1, 2, 10))))
    if not isinstance(training, StudentTraining):
        return outcome_of(training)
    high = training.learning_rate == 2e-5
    temperature = training.objective.parameters.get("temperature", 3.0)
    test = 0.6 - 0.2 * high + 0.01 * training.seed + 0.01 * math.log(temperature)
    return outcome_of(
        training,
        0.5 + 0.1 * high + 0.001 * temperature,
        test=TestScore(test),
        measures={"relative_entropy": 0.4},
    )


def finished(
    content: dict[str, Any] | None = None, became: Callable[[Training], Outcome] = became
) -> Agenda:
    resolved = resolved_of(content or study())
    tasks = {name: data.task for name, data in resolved.study.datasets.items()}
    datasets = {
        name: data.model_copy(update={"task": tasks[name] or data.task})
        for name, data in resolved.datasets.items()
    }
    agenda = Agenda(resolved.model_copy(update={"datasets": datasets}))
    while requests := agenda.requests():
        for request in requests:
            agenda.add(request.training.key, became(request.training))
    return agenda


@pytest.fixture(scope="module")
def agenda() -> Agenda:
    return finished()


@pytest.fixture(scope="module")
def found(agenda: Agenda) -> Temperatures:
    analysed = temperatures(agenda)
    assert analysed is not None
    return analysed


@pytest.fixture(scope="module")
def files(agenda: Agenda) -> dict[str, str]:
    return report_files(memory_ledger(agenda.resolved), agenda)


def test_a_line_is_for_all_that_was_trained_alike_but_for_the_temperature(
    found: Temperatures,
) -> None:
    # Of two teachers: two optimizers at two durations, MSE, and the control. What the losses and
    # the controls have of CE is the crossing's line of AdamW at 4 epochs.
    assert len(found.lines) == 2 * (4 + 1 + 1)
    assert found.swept == (1.0, 2.0, 10.0)
    assert set(found.varied) == {"teacher", "objective", "supervision", "optimizer", "epochs"}
    assert {line.factors.get("supervision") for line in found.lines if line.control} == {"smoothed"}


def test_what_several_searches_have_alike_is_one_line(found: Temperatures) -> None:
    alike = [line.without(()) for line in found.lines]
    assert len(alike) == len(set(alike))


def test_what_was_tuned_over_fewer_trials_is_a_line_of_its_own() -> None:
    whole = study()
    crossing = whole["searches"]["crossing"]
    whole["searches"] = {
        "baseline": {**crossing, "optimizer": ["adamw"], "epochs": [4], "learning_rate": [1e-5]},
        "crossing": crossing,
    }
    lines = [line for line in temperature_lines(finished(whole)) if line.case.teacher == "short"]
    assert len(lines) == 1 + 4
    assert [line.factors["trials"] for line in lines] == [1, 2, 2, 2, 2]
    flatter = found_in(lines, Claim.FLATTER)
    assert {each.where["trials"] for each in flatter.comparisons} == {2}


def test_the_learning_rate_is_the_best_by_validation_at_every_temperature(
    found: Temperatures,
) -> None:
    for line in found.lines:
        for point in line.points:
            assert (point.learning_rate, point.trials) == (2e-5, 2)
            mean = 0.41 + 0.01 * math.log(point.temperature or 3.0)
            assert point.test == pytest.approx(mean)
            assert point.tests == pytest.approx([mean - 0.01, mean, mean + 0.01])
            assert point.spread == pytest.approx(0.01)


def test_an_objective_without_a_temperature_is_a_line_of_one_score(found: Temperatures) -> None:
    mse = [line for line in found.lines if line.factors["objective"] == "mse"]
    assert [[p.temperature for p in line.points] for line in mse] == [[None], [None]]


def test_teachers_have_their_origin_and_softmax(found: Temperatures) -> None:
    assert [teacher_in_words(teacher.origin) for teacher in found.teachers] == [
        "random weights, 2 epochs",
        "random weights, 8 epochs",
    ]
    assert [each.temperature for each in found.teachers[0].taught["none"]] == [1, 2, 10]


def test_the_softmax_of_a_teacher_is_that_on_the_views_that_students_see() -> None:
    def softer_on_views(training: Training) -> Outcome:
        on_views = isinstance(training, OutputsTraining) and training.settings.augmentation
        outcome = became(training)
        return outcome.model_copy(update={"softmax": (softmax_at(9),)}) if on_views else outcome

    whole = study(erm=False)
    crossing = {**whole["searches"]["crossing"], "augmentation": ["none", "light"]}
    whole["searches"] = {"crossing": crossing}
    whole["datasets"]["sentences"]["task"] = "image_classification"
    whole["models"] = {
        name: {"config": {"model_type": "resnet", "hidden_sizes": [8], "depths": [1]}}
        for name in ("big", "small")
    }
    analysed = temperatures(finished(whole, softer_on_views))
    assert analysed is not None
    taught = analysed.teachers[0].taught
    found = {name: [each.temperature for each in some] for name, some in taught.items()}
    assert found == {"none": [1, 2, 10], "light, 20 views": [9]}


def test_a_temperature_is_unfinished_until_every_rate_and_seed_has_ended() -> None:
    last: list[str] = []
    whole = study()
    whole["searches"] = {"crossing": whole["searches"]["crossing"]}
    agenda = Agenda(resolved_of(whole))
    while requests := [r for r in agenda.requests() if r.training.key not in last]:
        for request in requests:
            training = request.training
            if not last and isinstance(training, StudentTraining) and training.teaching:
                last.append(training.key)
            else:
                agenda.add(training.key, became(training))
    states = [p.state for line in temperature_lines(agenda) for p in line.points]
    assert states.count("unfinished") == 1
    analysed = temperatures(agenda)
    assert analysed is not None
    assert {each.verdict for each in analysed.findings} <= {Verdict.OPEN, Verdict.UNTESTED}
    files = report_files(memory_ledger(agenda.resolved), agenda)
    assert "unfinished" in files["report/report.md"]


def test_a_temperature_whose_trainings_all_diverged_says_so() -> None:
    def diverging(training: Training) -> Outcome:
        hot = isinstance(training, StudentTraining) and (
            training.objective.parameters.get("temperature") == 10
        )
        return outcome_of(training, None) if hot else became(training)

    lines = temperature_lines(finished(became=diverging))
    states = {p.temperature: p.state for line in lines for p in line.points}
    assert states == {1: "scored", 2: "scored", 10: "without a score", None: "scored"}


def test_a_folder_of_an_earlier_version_says_that_no_softmax_was_measured() -> None:
    def earlier(training: Training) -> Outcome:
        return became(training).model_copy(update={"softmax": ()})

    whole = study()
    whole["searches"] = {"crossing": whole["searches"]["crossing"]}
    agenda = finished(whole, earlier)
    text = report_files(memory_ledger(agenda.resolved), agenda)["report/report.md"]
    assert "### Teachers at each τ" not in text
    assert "| short | random weights, 2 epochs | 0.5 | not measured |" in text


def test_a_study_that_sweeps_no_temperature_has_no_such_section() -> None:
    two = study()
    for search in two["searches"].values():
        search["temperature"] = [1, 2]
    agenda = finished(two)
    assert temperatures(agenda) is None
    files = report_files(memory_ledger(agenda.resolved), agenda)
    assert 'id="temperature"' not in files["report/report.html"]
    assert "temperature" not in json.loads(files["report/report.json"])
    assert not any("tables/temperature" in name for name in files)


def test_a_greedy_search_makes_no_lines_since_it_does_not_try_every_combination() -> None:
    assert temperature_lines(finished(a_study())) == ()


def test_the_report_has_the_claims_with_their_verdicts(files: dict[str, str]) -> None:
    text = files["report/report.md"]
    for claim in Claim:
        assert f"| {claim} |" in text
    assert "3 seeds, and it takes 5" in text
    for title in ("By teacher", "What is learnt of the teacher", "The numbers of all lines"):
        assert f"### {title}" in text
    assert "### By data set" not in text  # there is one


def test_the_page_draws_what_the_study_has(files: dict[str, str]) -> None:
    page = files["report/report.html"]
    charts = data_of(page)["temperature"]
    # A panel for each teacher and optimizer; the losses are AdamW's.
    assert len(charts["lines"]) == 4
    series = [(s["name"], s["main"]) for s in charts["lines"][0]["series"]]
    assert ("CE, 4 epochs", True) in series
    assert ("CE, 2 epochs", False) in series
    assert charts["softmax"][0]["title"] == "sentences/short/t_hs, random weights, 2 epochs"
    assert {s["name"] for c in charts["controls"] for s in c["series"]} == {"softmax", "smoothed"}
    assert page.count('data-temperature="') == sum(map(len, charts.values()))


def test_lines_without_a_score_make_no_panel() -> None:
    waiting = TemperaturePoint(temperature=1.0, state="unfinished", trials=1)
    begun = World().line()
    still = replace(World().line(dataset="cars"), points=(waiting,))
    found = study_of((begun, still), varied=("dataset",))
    assert [panel["dataset"] for panel in temperature_charts(found)["lines"]] == ["pets"]


def test_an_objective_looks_alike_in_all_panels() -> None:
    of_all = [World().line(objective=kind) for kind in ("ce", "dkd")]
    lines = [*of_all, World().line(objective="dkd", dataset="cars")]
    found = study_of(lines, varied=("dataset", "objective"))
    looks = [[each["look"] for each in p["series"]] for p in temperature_charts(found)["lines"]]
    assert looks == [[0, 1], [1]]


def test_the_tables_have_every_point_and_every_difference(
    found: Temperatures, files: dict[str, str]
) -> None:
    points = files["report/tables/temperature.csv"].splitlines()
    assert len(points) == 1 + sum(len(line.points) for line in found.lines)
    claims = files["report/tables/temperature_claims.csv"]
    assert all(claim in claims for claim in Claim)
    teachers = files["report/tables/temperature_teachers.csv"].splitlines()
    assert len(teachers) == 1 + 2 * 2 * 3


def test_the_json_has_what_follows_from_the_fields_too(files: dict[str, str]) -> None:
    found = json.loads(files["report/report.json"])["temperature"]
    point = found["lines"][0]["points"][0]
    assert point["test"] == pytest.approx(0.41)
    assert found["teachers"][0]["taught"]["none"][0]["ranks"] == [0.6, 0.3, 0.1]
    [crosses] = [each for each in found["findings"] if each["claim"] == Claim.CROSSES]
    assert crosses["pooled"][0]["verdict"] == Verdict.OPEN
    assert len(crosses["pooled"][0]["interval"]) == 2
