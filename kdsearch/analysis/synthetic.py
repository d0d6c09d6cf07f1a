"""Made-up outcomes of 39 test cases whose figures are the paper's, to the printed digit.

They show that the analysis computes what the paper prints. They are not the paper's outcomes: the
paper gives deciles alone, so whatever lies between two of them, and every score, is made up. One
set has Figures 1 and 3, another has Figure 2, since the paper does not say which gains belong to
one test case; both have Table 3. Pure: no disk, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdsearch.agenda import (
    VERSION,
    Agenda,
    Cost,
    Outcome,
    StudentTraining,
    TestScore,
    Training,
)
from kdsearch.analysis.comparisons import draw_seed
from kdsearch.analysis.paper import (
    CASES,
    MAXIMUM_OVER_ALPHA,
    OVER_ANOTHER_RANDOM,
    OVER_RANDOM,
    paper_row,
)
from kdsearch.analysis.scores import CaseCandidates, TestScores
from kdsearch.search import (
    TIED,
    Checkpoint,
    Choice,
    Mse,
    ValidationScore,
    lazy_choice,
)
from kdsearch.study import (
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    TestCase,
    parse_study,
    space_of,
)

DATASETS = (
    *("MRPC", "MNLI", "PAWS-X", "XNLI", "SQuAD", "Natural Questions", "MLQA", "TyDiQA"),
    *("CoNLL", "OntoNotes", "KLUE3", "WMT16 de-en", "WMT16 ro-en"),
)
STUDENTS = ("12-layer", "6-layer", "4-layer")
BETTER_T_LL, WORSE_MSE = 11, 5
"""Table 3 has R alone; with every other comparison a tie, these many are better, or worse."""
_BEST_ALPHA = 0.5
_BASE, _T_LL, _TAU_1, _MSE, _ALPHA = range(5)
"""The candidates of a traversal, in the order in which it comes to them."""
_COST = Cost(seconds=1.0, device="made up", host="nowhere")


def figures_1_and_3() -> Agenda:
    """A finished study that has the paper's Figures 1 and 3, and Table 3."""
    plans = ((agenda := _study(seed), _assign(agenda)) for seed in count())
    agenda, plan = next((agenda, plan) for agenda, plan in plans if plan is not None)
    better = {case for case, slots in plan.items() if slots.t_ll}
    return _finish(agenda, _winners(agenda, better), lambda case, choice: plan[case].test(choice))


def figure_2() -> Agenda:
    """A finished study that has the paper's Figure 2, and Table 3."""
    agenda = _study(0)
    rows = {
        name: values_with(_percent(2, label))
        for name, label in (
            ("alpha", MAXIMUM_OVER_ALPHA),
            ("mse", "MSE over CE"),
            ("t_ll", "t_ll over t_hs"),
            ("tau", "τ_s = 1 over τ_s = τ_t"),
        )
    }
    winners = _winners(agenda, agenda.cases[:BETTER_T_LL])
    gains = {
        case: {name: values[i] for name, values in rows.items()}
        for i, case in enumerate(agenda.cases)
    }

    def test(case: TestCase, choice: Choice) -> float:
        gain = gains[case]
        score = 0.8
        if choice.get("teacher") is Checkpoint.LOWEST_LOSS:
            score *= 1 + gain["t_ll"]
        mse = choice.get("distance") == "mse"
        if choice.get("student_temperature") == 1.0 or (mse and winners[case].tau_1):
            score *= 1 + gain["tau"]  # what MSE is compared with has it too
        if mse:
            score *= 1 + gain["mse"]
        if choice.get("alpha") == 0.1:  # not what validation chooses: the row is a maximum by test
            score *= 1 + gain["alpha"]
        elif choice.get("alpha") != 1:
            score *= 0.99
        return score

    return _finish(agenda, winners, test)


def values_with(percent: Sequence[float]) -> list[float]:
    """39 ascending gains whose deciles are `percent`, D0 to D10.

    The k-th decile of 39 values lies at position 3.8 k. Both neighbours of it have its value, and
    no value is the neighbour of two; what lies between them is drawn as a straight line.
    """
    at_decile = [divmod((CASES - 1) * k, 10) for k in range(11)]
    positions = [(below, below + (tenths > 0)) for below, tenths in at_decile]
    known = {p: v / 100 for pair, v in zip(positions, percent, strict=True) for p in pair}
    at = sorted(known)
    return [float(v) for v in np.interp(range(CASES), at, [known[p] for p in at])]


def _percent(figure: int, label: str) -> tuple[float, ...]:
    row = paper_row(figure, label)
    assert row is not None
    return row.percent


# -- the study -----------------------------------------------------------------------------------


def _study(seed: int) -> Agenda:
    """The paper's choices on a coarse grid of temperatures and rates, with made-up digests."""
    models = {
        name: {"config": {"model_type": "roberta", "num_hidden_layers": layers}}
        for name, layers in (("teacher", 24), *zip(STUDENTS, (12, 6, 4), strict=True))
    }
    grammar = {"train": 1, "validation": 1, "test": 1}
    raw = {
        "name": "made-up",
        "seed": seed,
        "datasets": {n: {"grammar": {**grammar, "seed": i}} for i, n in enumerate(DATASETS)},
        "models": models,
        "teachers": {"teacher": {"model": "teacher", "fine_tune": {"learning_rate": [1e-5]}}},
        "students": {name: {"model": name} for name in STUDENTS},
        # Without τ_t = 1 neither the two τ_s coincide, nor lazy with what was tuned under CE.
        "search": {
            "temperature": {"broad": [2, 4]},
            "learning_rate": [1e-5],
            "inner": "coordinate",
        },
    }
    study = parse_study(raw, place="made up")
    datasets = {
        name: ResolvedDataset(
            task="classification",
            metric="f1",
            labels=("no", "yes"),
            splits={
                split: ResolvedSplit(digest=f"{name}/{split}", rows=1000)
                for split in ("train", "validation", "test")
            },
        )
        for name in study.datasets
    }
    nothing = ResolvedModel(path=None, digest=None, labels=None)
    return Agenda(
        Resolved(
            training_version=VERSION,
            study=study,
            datasets=datasets,
            models=dict.fromkeys(study.models, nothing),
            versions={},
        )
    )


def _finish(
    agenda: Agenda,
    winners: Mapping[TestCase, _Winners],
    test: Callable[[TestCase, Choice], float],
) -> Agenda:
    """Give every training that the study asks for its outcome."""
    while requests := agenda.requests():
        for request in requests:
            training, case = request.training, request.case
            if not isinstance(training, StudentTraining):
                agenda.add(training.key, _outcome(training, 0.5, 0.5))
                continue
            choice = _choice(training)
            validation = _validation(choice, winners[case])
            if training.objective.parameters.get("temperature") in (2, None):
                validation += 1e-6  # the best temperature of every choice that has one
            agenda.add(training.key, _outcome(training, validation, test(case, choice)))
    return agenda


@dataclass(frozen=True, kw_only=True)
class _Winners:
    """Which alternatives a test case prefers or rejects by validation; all others tie."""

    t_ll: bool
    tau_1: bool
    not_mse: bool


def _winners(agenda: Agenda, better: Collection[TestCase]) -> Mapping[TestCase, _Winners]:
    """Such that R is +11, +1 and −5; t_ll is `better` in these cases."""
    others = [case for case in agenda.cases if case not in better]
    return {
        case: _Winners(
            t_ll=case in better,
            tau_1=case == others[0],
            not_mse=case in others[1 : 1 + WORSE_MSE],
        )
        for case in agenda.cases
    }


def _validation(choice: Choice, winners: _Winners) -> float:
    score = 0.5
    score += 0.1 * (winners.t_ll and choice.get("teacher") is Checkpoint.LOWEST_LOSS)
    score += 0.1 * (winners.tau_1 and choice.get("student_temperature") == 1.0)
    if choice.get("distance") == "mse":
        # τ_s is inactive under MSE, so what τ_s = 1 brought must not make MSE worse.
        score += 0.1 * winners.tau_1 - 0.1 * winners.not_mse
    alpha: float = choice.get("alpha")
    return score + 0.1 * (alpha == _BEST_ALPHA) - 0.1 * (alpha not in (1, _BEST_ALPHA))


def _choice(training: StudentTraining) -> Choice:
    teacher, values = training.taught.checkpoint_name, training.objective.parameters
    if isinstance(training.objective, Mse):
        return Choice.of(distance="mse", teacher=teacher, alpha=values["alpha"])
    # At τ_t = 1 there is lazy alone; it is told from the others by its temperature.
    lazy = values["temperature"] == 1
    student = values["student_temperature"]
    return Choice.of(
        distance="ce",
        teacher=teacher,
        student_temperature=TIED if student == values["temperature"] and not lazy else student,
        alpha=_LAZY if lazy else values["alpha"],
    )


_LAZY = 0.95
"""Stands for the lazy baseline under CE, which is no value of α in the grid."""


def _outcome(training: Training, validation: float, test: float) -> Outcome:
    return Outcome(
        key=training.key,
        training=training,
        state="scored",
        validation=ValidationScore(validation),
        test=TestScore(test),
        best_epoch=2,
        lowest_loss_epoch=1,
        cost=_COST,
    )


# -- figures 1 and 3 in one study ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Slots:
    """The test score of each of a case's five candidates, and of the two second-phase ones."""

    t_ll: bool
    candidates: tuple[float, ...]
    stable: float
    lazy: float

    def test(self, choice: Choice) -> float:
        if choice.get("alpha") == _LAZY:
            return self.lazy
        slot = self._slot(choice)
        if slot is not None:
            return self.candidates[slot]
        if choice.get("distance") == "mse":
            return self.lazy
        return self.stable if choice.get("alpha") == 1 else min(self.candidates)

    def _slot(self, choice: Choice) -> int | None:
        held = Checkpoint.LOWEST_LOSS if self.t_ll else Checkpoint.HIGHEST_SCORE
        if choice.get("distance") == "mse":
            return _MSE if choice.get("teacher") is held and choice.get("alpha") == 1 else None
        if choice.get("alpha") == _BEST_ALPHA:
            return _ALPHA
        if choice.get("alpha") != 1:
            return None
        if choice.get("student_temperature") == 1.0:
            return _TAU_1 if choice.get("teacher") is held else None
        return _T_LL if choice.get("teacher") is Checkpoint.LOWEST_LOSS else _BASE


def _assign(agenda: Agenda) -> dict[TestCase, _Slots] | None:
    """Give each case one rank of all rows, such that its draws are what they must be.

    None where that is impossible under the study's seed, which the draws follow from.
    """
    rows = [
        values_with(_percent(figure, label))
        for figure, label in (
            (1, "best over worst"),
            (1, OVER_RANDOM),
            (3, OVER_ANOTHER_RANDOM),
            (3, "best over stable"),
            (3, "best over lazy"),
        )
    ]
    ranks = list(zip(*rows, strict=True))
    options = {
        (i, j, t_ll): found
        for i, case in enumerate(agenda.cases)
        for j, rank in enumerate(ranks)
        for t_ll in (False, True)
        if (found := _slots(agenda, case, rank, t_ll=t_ll)) is not None
    }
    cost = np.full((CASES, CASES), 1000.0)
    for i, j, t_ll in options:
        cost[i, j] = min(cost[i, j], 0.0 if t_ll else 1.0)
    cases, chosen = linear_sum_assignment(cost)
    pairs = list(zip(cases.tolist(), chosen.tolist(), strict=True))
    able = [pair for pair in pairs if (*pair, True) in options]
    forced = [pair for pair in able if (*pair, False) not in options]
    if any(cost[pair] == 1000.0 for pair in pairs):
        return None
    free = [pair for pair in able if pair not in forced]
    if len(forced) > BETTER_T_LL or len(able) < BETTER_T_LL:
        return None
    winners = {*forced, *free[: BETTER_T_LL - len(forced)]}
    return {agenda.cases[pair[0]]: options[(*pair, pair in winners)] for pair in pairs}


def _slots(agenda: Agenda, case: TestCase, rank: Sequence[float], *, t_ll: bool) -> _Slots | None:
    """The scores of a case that has these gains; None where its draws do not allow them."""
    worst, random_1, random_3, stable, lazy = rank
    pinned: dict[int, float] = {}
    for slot, gain in (
        (_drawn(agenda, case, "figure 1"), random_1),
        (_drawn(agenda, case, "figure 3"), random_3),
        *(((_TAU_1, stable),) if t_ll else ()),  # stable is what the τ_s flip visited
        *(((_MSE, lazy),) if _lazy_was_visited(agenda, case, t_ll=t_ll) else ()),
    ):
        if pinned.setdefault(slot, gain) != gain or not 0 <= gain <= worst:
            return None
    free = [slot for slot in range(5) if slot not in pinned]
    for extreme in (0.0, worst):  # a best and a worst candidate there must be
        if extreme not in pinned.values():
            if not free:
                return None
            pinned[free.pop()] = extreme
    gains = [pinned.get(slot, 0.0) for slot in range(5)]
    best = 0.8
    return _Slots(
        t_ll=t_ll,
        candidates=tuple(best / (1 + gain) for gain in gains),
        stable=best / (1 + stable),
        lazy=best / (1 + lazy),
    )


def _drawn(agenda: Agenda, case: TestCase, purpose: str) -> int:
    """Which of five candidates the analysis draws."""
    scored = tuple(TestScores(by_seed=(TestScore(slot),)) for slot in range(5))
    candidates = CaseCandidates(scored=scored, choices=5, unscored=0)
    found = candidates.drawn(draw_seed(agenda, case, purpose))
    assert found is not None
    return int(found.mean)


def _lazy_was_visited(agenda: Agenda, case: TestCase, *, t_ll: bool) -> bool:
    """Whether lazy is the MSE candidate of the traversal: under CE its τ_t = 1 is its own."""
    lazy = lazy_choice(
        space_of(agenda.resolved.study, case), f"{agenda.resolved.study.seed}/{case}"
    )
    held = Checkpoint.LOWEST_LOSS if t_ll else Checkpoint.HIGHEST_SCORE
    return lazy.get("distance") == "mse" and lazy.get("teacher") is held
