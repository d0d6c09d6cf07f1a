"""The model card of an exported student."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

import kdsearch
from kdsearch.agenda import Agenda, Outcome, StudentTraining, TestScore
from kdsearch.analysis import CaseResult
from kdsearch.report.markdown import NOTHING, escape, score, table
from kdsearch.report.under_seeds import mean, named
from kdsearch.search import SYMBOLS
from kdsearch.study import SPECS, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Again:
    """A student that was trained again for its export, since its weights were not kept."""

    test: TestScore
    allowed: float
    """The difference to the search's score that another machine may make."""


def card(
    agenda: Agenda, case: CaseResult, outcome: Outcome, *, stable: bool, again: Again | None
) -> str:
    """The content of README.md in the folder of the student that `outcome` is about."""
    training = outcome.training
    assert isinstance(training, StudentTraining)
    data = training.data
    front = {
        "library_name": "transformers",
        "pipeline_tag": SPECS[data.task].pipeline,
        "tags": [*(["knowledge-distillation"] if training.teaching else []), "kdsearch"],
        "metrics": [data.metric],
    }
    source = agenda.resolved.study.models[training.model.name]
    if source.hub is not None:
        front["base_model"] = source.hub
    which = "stable configuration" if stable else "best configuration by validation"
    how = "distilled" if training.teaching else "trained"
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(case.case)}",
        f"A student {how} by kdsearch {kdsearch.__version__} in the study "
        f"“{escape(agenda.resolved.study.name)}”, with the {which}.",
        "## Use",
        _use(training),
        "## Scores",
        f"Scored by {escape(outcome.metric)}.",
        table(["model", "validation", "test"], _scores(case, outcome, stable=stable)),
        *_again(outcome, again),
        "## Training",
        table(["setting", "value"], _settings(training, outcome)),
        "## Data",
        _data(agenda, case, training),
    ]
    return "\n\n".join(sections) + "\n"


def _use(training: StudentTraining) -> str:
    spec = SPECS[training.data.task]
    if spec.auto_class is None:
        code = f"""from transformers import pipeline

student = pipeline("{spec.pipeline}", model="PATH OF THIS FOLDER")"""
    else:
        code = f"""from transformers import AutoTokenizer, {spec.auto_class}

tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
student = {spec.auto_class}.from_pretrained("PATH OF THIS FOLDER")"""
    text = f"```python\n{code}\n```"
    if training.data.unanswerable:
        text += (
            "\n\nA question has no answer where start_logits + end_logits of the first token "
            "(of a context read in several windows, the lowest such sum) are above those of the "
            "best span of the context."
        )
    return text


def _scores(case: CaseResult, outcome: Outcome, *, stable: bool) -> list[tuple[str, str, str]]:
    rows = [("this student", score(outcome.validation), score(outcome.test))]
    if (found := case.winner_under_seeds) is not None and not stable:
        seeds = f"students like it, under the seeds {named(tuple(found.by_seed))}"
        rows.append((seeds, NOTHING, mean(found)))
    rows += [
        (f"teacher {each.checkpoint}", score(each.validation), score(each.test))
        for each in case.teachers
    ]
    if case.erm is not None:
        erm = case.erm
        rows.append(("the same student without a teacher", score(erm.validation), score(erm.test)))
    return rows


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
        f"the tolerance of {again.allowed:g} for another machine."
    ]


def _settings(training: StudentTraining, outcome: Outcome) -> list[tuple[str, object]]:
    settings = training.settings
    parameters = None if outcome.parameters is None else f"{outcome.parameters:,}"
    layers = training.model.layers
    kept = f"{layers}, evenly spaced" if isinstance(layers, int) else layers or "all"
    return [
        ("student", training.model.name),
        ("layers kept of it", kept),
        ("parameters", parameters),
        ("teacher", _teacher(training)),
        ("distance", training.objective.title),
        *(
            (SYMBOLS.get(name, name.replace("_", " ")), value)
            for name, value in training.objective.parameters.items()
        ),
        ("learning rate", f"{training.learning_rate:g}"),
        ("epochs", f"{settings.epochs}, of which {outcome.best_epoch} is kept"),
        ("batch size", settings.batch_size),
        ("optimizer", _optimizer(settings)),
        ("dropout", "the model's own" if settings.dropout is None else f"{settings.dropout:g}"),
        ("most tokens", settings.max_length),
        ("precision", settings.precision),
        ("seed", training.seed),
        ("key of the training", training.key),
    ]


def _teacher(training: StudentTraining) -> str:
    taught = training.teaching
    if taught is None:
        return "none"
    epoch = taught.teacher.epoch
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
