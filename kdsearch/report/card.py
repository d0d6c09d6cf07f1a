"""The model card of an exported student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

import kdsearch
from kdsearch.agenda import Agenda, Outcome, StudentTraining, TestScore
from kdsearch.analysis import CaseResult, TeacherScore
from kdsearch.report.choices import TARGETS
from kdsearch.report.hub import metadata
from kdsearch.report.markdown import NOTHING, escape, metric_in_words, percent, score, table
from kdsearch.report.marks import perplexity
from kdsearch.report.snippets import adapter, reproduce, use
from kdsearch.report.under_seeds import mean, named
from kdsearch.search import CHECKPOINT, DATA, SYMBOLS, Checkpoint, Labels
from kdsearch.study import HIDDEN, SPECS, TestCase, TrainingSettings, shown_cache


@dataclass(frozen=True, kw_only=True)
class Again:
    """A student that was trained again for its export, since its weights were not kept."""

    test: TestScore
    allowed: float
    """The difference to the search's score that another machine, or training alone, may make."""


def card(
    agenda: Agenda,
    case: CaseResult,
    outcome: Outcome,
    *,
    stable: bool = False,
    so_far: int | None = None,
    again: Again | None = None,
    distilled: Sequence[CaseResult] = (),
) -> str:
    """The content of README.md in the folder of the student that `outcome` is about.

    It is the best of `so_far` configurations where the search of its test case is not finished.
    Those of `distilled` are measured against it; see `distilled_from`.
    """
    training = outcome.training
    assert isinstance(training, StudentTraining)
    test = again.test if again else outcome.test
    assert test is not None
    front = metadata(agenda, case.case, outcome, test)
    scores = _scores(case, outcome, distilled, stable=stable)
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(case.case)}",
        f"A student {_how(training)} by kdsearch {kdsearch.__version__} in the study "
        f"“{escape(agenda.resolved.study.name)}”, with the {_which(so_far, stable=stable)}.",
        "## Use",
        use(agenda, case.case.dataset, outcome),
        *(["## The adapter alone", adapter(agenda, outcome)] if training.settings.lora else []),
        "## Scores",
        f"Scored by {metric_in_words(outcome.metric)}.{perplexity(outcome.metric, test)}",
        table(["model", "validation", "test", "parameters"], scores),
        *_gap_closed(agenda, case, stable=stable),
        *(text for each in distilled for text in _gap_closed(agenda, each, of=each)),
        *_again(outcome, again),
        "## Training",
        table(["setting", "value"], _settings(training, outcome)),
        "## Data",
        _data(agenda, case, training),
        "## Reproduce the score",
        reproduce(agenda, case.case.dataset, outcome, test),
    ]
    return "\n\n".join(sections) + "\n"


def distilled_from(agenda: Agenda, case: TestCase, cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Of `cases` those of the same student with a teacher whose student without one is `case`'s."""
    return [
        each
        for each in cases
        if each.winner is not None
        and each.winner.choice.get(CHECKPOINT) is not None
        and (erm := agenda.without_teacher(each.case)) is not None
        and erm.case == case
    ]


def _how(training: StudentTraining) -> str:
    if training.teaching is not None:
        return "distilled"
    erm = ", on the labels alone (ERM)," if isinstance(training.objective, Labels) else ""
    return f"trained without a teacher{erm}"


def _which(so_far: int | None, *, stable: bool) -> str:
    if stable:
        return "stable configuration"
    best = "best configuration by validation"
    if so_far is None:
        return best
    return f"{best} of {so_far} so far, before the search of its test case was finished"


def _scores(
    case: CaseResult, outcome: Outcome, distilled: Sequence[CaseResult], *, stable: bool
) -> list[tuple[str, ...]]:
    size, digits = _count(outcome.parameters), case.digits
    # The score of this student with all decimals: its reader reproduces it.
    rows: list[tuple[str, ...]] = [
        ("this student", score(outcome.validation), score(outcome.test), size)
    ]
    if (found := case.winner_under_seeds) is not None and not stable:
        seeds = f"students like it, under the seeds {named(tuple(found.by_seed))}"
        rows.append((seeds, NOTHING, mean(found, digits), size))
    rows += [_teacher_score(f"teacher {t.checkpoint}", t, digits) for t in case.teachers]
    if (start := case.start) is not None:
        scores = (score(start.validation, digits), score(start.test, digits))
        rows.append((f"{start.teacher}, where this student starts", *scores, size))
    if (erm := case.erm) is not None:
        name = "the same student without a teacher (ERM)"
        scores = (score(erm.validation, digits), score(erm.test, digits))
        rows.append((name, *scores, _count(erm.size.parameters if erm.size else None)))
    for each in distilled:
        if (winner := each.winner) is not None:
            of = _count(each.size.parameters if each.size else None)
            name = f"the same student, distilled: {each.case}"
            scores = (score(winner.validation, each.digits), score(winner.test, each.digits))
            rows.append((name, *scores, of))
    taught_by = [
        _teacher_score(f"teacher {each.case.teacher} {t.checkpoint}", t, each.digits)
        for each in distilled
        for t in each.teachers
    ]
    return [*rows, *dict.fromkeys(taught_by)]


def _teacher_score(name: str, teacher: TeacherScore, digits: int) -> tuple[str, ...]:
    size = _count(teacher.size.parameters if teacher.size else None)
    return (name, score(teacher.validation, digits), score(teacher.test, digits), size)


def _gap_closed(
    agenda: Agenda, case: CaseResult, *, of: CaseResult | None = None, stable: bool = False
) -> list[str]:
    """How far the student comes from the one without a teacher to its teacher, on test.

    The card is about the student, or about the one without a teacher where `of` names the case.
    Not said where the test split cannot tell that the teacher is ahead.
    """
    chosen = case.stable if stable else case.winner
    if chosen is None or case.erm is None or case.erm.test is None:
        return []
    name = chosen.choice.get(CHECKPOINT)
    teacher = case.teacher(name)
    if teacher is None or teacher.test is None:
        return []
    closed, noise = case.gap_closed, case.gap_closed_noise
    if stable:
        closed, noise = case.stable_gap_closed, case.stable_gap_closed_noise
    rows = agenda.resolved.datasets[case.case.dataset].splits["test"].rows
    whose = f"Gap closed by {escape(of.case)}" if of else "Gap closed"
    student = "this student" if of else "the same student without a teacher"
    if closed is not None:
        around = f" ± {percent(noise.deviation)}" if noise else ""
        over = f" ± is a standard deviation over {noise.of}." if noise else ""
        return [
            f"{whose}: {percent(closed)}{around} % of the way from {student} to the teacher "
            f"{name}, on test.{over}"
        ]
    return [
        f"{whose}: {NOTHING}. The teacher {name} is not clearly better than {student}: not on "
        f"{rows:,} test rows."
    ]


def _again(outcome: Outcome, again: Again | None) -> list[str]:
    if again is None or outcome.test is None:
        return []
    difference = abs(again.test - outcome.test)
    text = "These weights were trained again for the export. Their test score is "
    if difference == 0:
        return [f"{text}exactly that of the search."]
    within = "within" if difference <= again.allowed else "beyond"
    return [
        f"{text}{score(again.test)}, {score(difference)} away from the search's: {within} "
        f"the tolerance of {again.allowed:g} for {made_otherwise(outcome)}."
    ]


def made_otherwise(outcome: Outcome) -> str:
    """Where the same training may give other bytes."""
    alone = f"a student that was one of {outcome.fused} in a pass and is now trained alone"
    return "another machine" if outcome.fused == 1 else alone


def _settings(training: StudentTraining, outcome: Outcome) -> list[tuple[str, object]]:
    settings, cache = training.settings, training.settings.cache
    layers = training.model.layers
    kept = f"{layers}, evenly spaced" if isinstance(layers, int) else layers or "all"
    return [
        ("student", training.model.name),
        ("layers kept of it", kept),
        *_start(training),
        ("parameters", _count(outcome.parameters)),
        *_adapters(outcome, settings),
        ("teacher", _teacher(training)),
        *([] if cache == HIDDEN else [("kept of its outputs", shown_cache(cache))]),
        ("distance", training.objective.title),
        *(
            (SYMBOLS.get(name, name.replace("_", " ")), value)
            for name, value in training.objective.parameters.items()
            if name not in training.objective.spared
        ),
        *_logit_scale(outcome),
        *_found(outcome),
        *([("texts learnt on", TARGETS[targets])] if (targets := _targets(training)) else []),
        ("learning rate", f"{training.learning_rate:g}"),
        ("epochs", f"{settings.epochs}, of which {outcome.best_epoch} is kept"),
        *([("augmentation", str(settings.augmentation))] if settings.augmentation else []),
        ("batch size", settings.batch_size),
        ("optimizer", _optimizer(settings)),
        ("dropout", "the model's own" if settings.dropout is None else f"{settings.dropout:g}"),
        *(
            [("most tokens", settings.max_length)]
            if SPECS[training.data.task].reads == "text"
            else []
        ),
        ("precision", settings.precision),
        ("seed", training.seed),
        ("key of the training", training.key),
    ]


def _start(training: StudentTraining) -> list[tuple[str, object]]:
    start = training.start
    if start is None:
        return []
    where = f"epoch {start.epoch} of {start.model.name} fine-tuned on the same data"
    return [("starts from", f"{where}: training {start.training}")]


def _adapters(outcome: Outcome, settings: TrainingSettings) -> list[tuple[str, object]]:
    lora = settings.lora
    if lora is None:
        return []
    where = ", ".join(lora.modules) if lora.modules else "all linear layers of its blocks"
    dropout = f", dropout {lora.dropout:g}" if lora.dropout else ""
    return [
        ("weights trained", _count(outcome.trained_parameters)),
        ("adapters", f"LoRA of rank {lora.r}, α {lora.alpha:g}{dropout}, of {where}; merged"),
    ]


def _logit_scale(outcome: Outcome) -> list[tuple[str, object]]:
    """Where temperatures are in units of it."""
    scale = outcome.logit_scale
    return [] if scale is None else [("logit scale of the teacher", f"{scale:g}")]


def _found(outcome: Outcome) -> list[tuple[str, object]]:
    """What an objective learnt of itself, or found of its teacher."""
    found = {
        "temperature that was learnt": outcome.learnt_temperature,
        "share of a label that was spread": outcome.smoothing,
    }
    return [(name, f"{value:g}") for name, value in found.items() if value is not None]


def _targets(training: StudentTraining) -> str | None:
    """How its teacher wrote what it learnt on; None of the data's own texts."""
    targets: str = training.objective.parameters.get("targets", DATA)
    return None if targets == DATA else targets


def _count(parameters: int | None) -> str:
    return NOTHING if parameters is None else f"{parameters:,}"


def _teacher(training: StudentTraining) -> str:
    taught = training.teaching
    if taught is None:
        return "none"
    epoch = taught.teacher.epoch
    if taught.checkpoint_name is Checkpoint.WINNER:
        return f"{taught.teacher.model.name}, a student itself: training {taught.teacher.training}"
    of = f", epoch {epoch}" if epoch is not None else ""
    return f"{taught.teacher.model.name}, {taught.checkpoint_name}{of}"


def _optimizer(settings: TrainingSettings) -> str:
    if settings.sgd is None:
        return f"AdamW, weight decay {settings.adam.weight_decay:g}"
    sgd = settings.sgd
    nesterov = "Nesterov " if sgd.nesterov else ""
    return f"SGD, {nesterov}momentum {sgd.momentum:g}, weight decay {sgd.weight_decay:g}"


def _data(agenda: Agenda, case: CaseResult, training: StudentTraining) -> str:
    resolved = agenda.resolved.datasets[case.case.dataset]
    rows = [(name, f"{s.rows:,}", s.digest[:16]) for name, s in resolved.splits.items()]
    text = f"“{escape(case.case.dataset)}”, for {training.data.task}."
    if training.data.labels:
        text += f" Labels: {', '.join(map(escape, training.data.labels))}."
    return f"{text}\n\n{table(['split', 'rows', 'fingerprint'], rows)}"
