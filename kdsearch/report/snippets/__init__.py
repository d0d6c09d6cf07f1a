"""The code of a model card: how a student is used, and how its score is reproduced."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kdsearch.agenda import Agenda, DataSpec, Outcome, StudentTraining, TestScore
from kdsearch.ledger import layout
from kdsearch.report.markdown import score
from kdsearch.study import SPECS, columns_of
from kdsearch.study.tags import scheme_of

AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "ner": "AutoModelForTokenClassification",
    "qa": "AutoModelForQuestionAnswering",
    "translation": "AutoModelForSeq2SeqLM",
    "lm": "AutoModelForCausalLM",
    "image_classification": "AutoModelForImageClassification",
}
_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("kdsearch.report", "snippets"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def use(agenda: Agenda, dataset: str, outcome: Outcome) -> str:
    """The section that says how the student of `outcome`, trained on `dataset`, is used."""
    return _rendered("use", agenda, dataset, outcome)


def reproduce(agenda: Agenda, dataset: str, outcome: Outcome, test: TestScore) -> str:
    """The section whose code, behind that of `use`, computes the student's score `test`."""
    data, settings = outcome.training.data, outcome.training.settings
    text = (
        "In the folder of this card these lines, behind those under “Use”, print the student's "
        f"test score, {score(test)}. They read the test rows as they were scored: copy "
        f"{' and '.join(_files(data))} of the study's folder beside the card."
    )
    if settings.precision != "fp32":
        text += (
            f" They compute in {settings.precision}, as the search did; on another kind of "
            "processor the last digits may differ."
        )
    return f"{text}\n\n{_rendered('score', agenda, dataset, outcome)}"


def _files(data: DataSpec) -> tuple[str, ...]:
    """Those that hold the test rows."""
    rows, pixels = f"`{layout.rows(data.test)}`", f"`{layout.pixels(data.test)}`"
    return (rows,) if SPECS[data.task].reads == "text" else (rows, pixels)


def adapter(agenda: Agenda, outcome: Outcome) -> str:
    """The section that says how the adapter of a student that has one is put on its model."""
    training = outcome.training
    assert isinstance(training, StudentTraining)
    model = training.model
    source = agenda.resolved.study.models[model.name]
    text = (
        f"`adapter/` has what was trained and nothing else, {outcome.trained_parameters or 0:,} "
        f"weights, as peft writes it. It belongs to {source.hub or f'the model {model.name}'}"
    )
    text += "." if model.layers is None else ", cut as the student was: kdsearch does that too."
    context = {
        "auto": AUTO_CLASSES[training.data.task],
        "source": source.hub or model.name,
        "hub": source.hub,
        "revision": f', revision="{source.revision}"' if source.revision else "",
        "trust": ", trust_remote_code=True" if source.trust_remote_code else "",
        "labels": len(training.data.labels),
        "layers": json.dumps(model.layers) if model.layers else "",
    }
    return f"{text}\n\n{_environment().get_template('adapter.md.j2').render(context).strip()}"


def _rendered(name: str, agenda: Agenda, dataset: str, outcome: Outcome) -> str:
    training = outcome.training
    assert isinstance(training, StudentTraining)
    data, settings = training.data, training.settings
    models = agenda.resolved.study.models
    sources = (training.model.name, training.model.tokenizer_name)
    own_code = any(models[each].trust_remote_code for each in sources if each is not None)
    tokenization = re.search(r"\btok:([\w-]+)", outcome.metric)
    context: dict[str, Any] = {
        "trust": ", trust_remote_code=True" if own_code else "",
        "pair": len(columns_of(dataset, agenda.resolved.study.datasets[dataset]).text) == 2,
        "labels": len(data.labels),
        "scheme": scheme_of(data.labels),
        "metric": data.metric,
        "unanswerable": data.unanswerable,
        "answer": None if data.answer is None else repr(data.answer),
        "max_length": settings.max_length,
        "stride": settings.stride,
        "beams": settings.beams,
        "dtype": _DTYPES.get(settings.precision),
        "bleu": tokenization[1] if tokenization else "13a",
        "rows": PurePosixPath(layout.rows(data.test)).name,
        "pixels": PurePosixPath(layout.pixels(data.test)).name,
        "timm": (training.model.config or {}).get("model_type") == "timm_wrapper",
    }
    template = _environment().get_template(f"{data.task}.{name}.md.j2")
    return template.render(context).strip()
