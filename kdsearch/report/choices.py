"""What a choice means, in words; its symbols stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kdsearch.report.markdown import axes_in_words, escape
from kdsearch.search import (
    ALPHA,
    CHECKPOINT,
    DATA,
    MAPPED,
    MAPPINGS,
    OBJECTIVE,
    SMOOTHED,
    SMOOTHED_EACH,
    SOFTMAX,
    TEACHERS,
    TIED,
    Checkpoint,
    Choice,
    Objective,
    Value,
    permuted_after,
    shown_value,
)
from kdsearch.study import shown_layers

OBJECTIVES: Mapping[str, str] = {
    "ce": "cross-entropy to {}",
    "mse": "squared difference between the logits and those of {}",
    "reverse_kl": "reverse KL divergence from {}",
    "jsd": "generalised Jensen–Shannon divergence from {}",
    "total_variation": "total variation distance from {}",
    "dkd": "decoupled distillation from {}",
    "ea_kd": "KL divergence from {}, weighted by entropy",
    "ea_dkd": "decoupled distillation from {}, weighted by entropy",
    "ctkd": "KL divergence from {} at a temperature that is learnt",
    "rld": "refined logit distillation from {}",
    "dist": "correlation with {}",
    "mlkd": "multi-level distillation from {}",
    "sequence": "cross-entropy to texts of {}",
    "labels": "cross-entropy to the labels alone, without a teacher",
    "features": "cross-entropy to the labels, and what is computed inside of {}",
    "label_smoothing": "cross-entropy to smoothed labels, without a teacher",
}
"""What is minimised, by an objective's kind; {} is who teaches."""

CHECKPOINTS: Mapping[Checkpoint | None, str] = {
    Checkpoint.HIGHEST_SCORE: "the teacher checkpoint of the highest validation score",
    Checkpoint.LOWEST_LOSS: "the teacher checkpoint of the lowest validation loss",
    Checkpoint.GIVEN: "the teacher as it was given",
    Checkpoint.WINNER: "the student that the test case before chose",
    None: "the teacher",
}


def _checkpoint(checkpoint: Checkpoint | None) -> str:
    if checkpoint is not None and checkpoint.epoch is not None:
        return f"the teacher as it was after epoch {checkpoint.epoch}"
    return CHECKPOINTS[checkpoint]


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _is(name: str) -> Callable[[Value], str]:
    return lambda value: f"{name} {shown_value(value)}"


def _one_of(**words: str) -> Callable[[Value], str]:
    return lambda value: words[shown_value(value)]


def _student_temperature(value: Value) -> str:
    if value == TIED:
        return "the student at the teacher’s temperature"
    return f"the student at temperature {shown_value(value)}"


def _alpha(value: Value) -> str:
    if value == 1:
        return "human labels unused"
    return f"human labels with {_percent(1 - value)} of the weight"


def _alpha_of_texts(value: Value) -> str:
    """The same where what stands for labels are the teacher's texts."""
    return "their words as labels " + (
        "unused" if value == 1 else f"with {_percent(1 - value)} of the weight"
    )


def _warmup_epochs(value: Value) -> str:
    if not value:
        return "distillation at its whole weight from the start"
    epochs = f"{value} epochs" if value != 1 else "epoch"
    return f"distillation growing to its whole weight over the first {epochs}"


def _supervision(value: Value) -> str:
    kept = permuted_after(value)
    if kept is None:
        return SUPERVISIONS[value]
    top = "class" if kept == 1 else f"{kept} classes"
    return f"the teacher’s probabilities with those behind its likeliest {top} permuted"


def _weight(what: str) -> Callable[[Value], str]:
    return lambda value: f"{what} with weight {shown_value(value)}" if value else f"no {what}"


def _layer_mapping(value: Value) -> str:
    if value == "uniform":
        return "its layers mapped to the teacher’s at even distances"
    if value in MAPPINGS:
        return f"its layers mapped to the teacher’s {value}"
    return f"its layers mapped to the teacher’s {value}, counted from 0"


def _relation_heads(value: Value) -> str:
    of_teacher = "as many relation heads as the teacher has heads"
    return of_teacher if value == TEACHERS else f"{value} relation heads"


def _clip(value: Value) -> str:
    return "gradients not clipped" if value == "none" else f"gradients clipped at {value:g}"


def _dropout(value: Value) -> str:
    return "the model’s own dropout" if value == "own" else f"dropout {value:g}"


def _lora_rank(value: Value) -> str:
    return "all weights trained" if value == "none" else f"LoRA of rank {value}"


def _augmentation(value: Value) -> str:
    return "images as they are" if value == "none" else f"images augmented: {value}"


TARGETS: Mapping[str, str] = {
    "data": "the data’s own texts",
    "greedy": "texts that the teacher wrote greedily",
    "beam": "texts that the teacher found by beam search",
    "sample": "texts drawn from the teacher",
    "rejection": "texts drawn from the teacher, those with the right answer",
}
"""What a student learns on."""

SUPERVISIONS: Mapping[str, str] = {
    SOFTMAX: "the teacher’s probabilities",
    SMOOTHED: "the teacher’s likeliest class, smoothed alike for all rows",
    SMOOTHED_EACH: "the teacher’s likeliest class, smoothed for each row",
}
"""What is learnt of a teacher, beside what is permuted."""

PARAMETERS: Mapping[str, Callable[[Value], str]] = {
    "targets": TARGETS.__getitem__,
    "temperature": _is("the teacher at temperature"),
    "student_temperature": _student_temperature,
    "standardise": _one_of(true="logits standardised", false="logits as they are"),
    "supervision": _supervision,
    "entropy_temperature": _is("entropies at temperature"),
    "entropy_bound": _one_of(
        log_classes="the student’s entropy as a share of ln C",
        published="the student’s entropy over 100, as in the published code",
    ),
    "confidence_temperature": _is("the highest probability at temperature"),
    "temperature_start": _is("a learnt temperature of at least"),
    "temperature_span": _is("and up to so much more:"),
    "first_theta": _is("θ at first"),
    "adversary_epochs": _is("epochs until it is learnt at its whole rate:"),
    "adversary_rate": _is("its rate"),
    "adversary_decay": _is("its decay"),
    "two_views": _one_of(true="two views of each example", false="one view of each example"),
    "class_of": _one_of(
        label="the label’s class set apart", teacher="the teacher’s likeliest class set apart"
    ),
    "inter_class": _is("correlations over the classes with weight"),
    "intra_class": _is("correlations over the rows with weight"),
    "sample_confidence": _is("the highest probability with weight"),
    "masked_correlation": _is("the less likely classes with weight"),
    "kd_weight": _is("distillation with weight"),
    ALPHA: _alpha,
    "beta": lambda value: f"{_percent(value)} of the mixture from the teacher",
    "target": _is("the label’s class with weight"),
    "non_target": _is("the other classes with weight"),
    "label_weight": _is("human labels with weight"),
    "warmup_epochs": _warmup_epochs,
    "smoothing": lambda value: f"{_percent(value)} of each label spread over all classes",
    "gradient_scale": _one_of(
        none="the loss not scaled by a temperature", tau_squared="the loss multiplied by τ_s²"
    ),
    "hint": _weight("a hint from the teacher’s middle layer"),
    "hidden_states": _weight("hidden states"),
    "attention": _weight("attention scores"),
    "cls_states": _weight("states of [CLS]"),
    "relations": _weight("self-attention relations"),
    "layer_mapping": _layer_mapping,
    "attention_heads": _one_of(each="attention head by head", mean="attention’s mean over heads"),
    "relation_heads": _relation_heads,
    "temperature_unit": _one_of(
        none="temperatures as they are",
        logit_scale="temperatures in units of the teacher’s logit scale",
    ),
}
"""Of a value of an objective's parameter, in the order in which a sentence has them."""

SETTINGS: Mapping[str, Callable[[Value], str]] = {
    "learning_rate": _is("learning rate"),
    "layers": shown_layers,
    "lora_rank": _lora_rank,
    "clip": _clip,
    "clip_per": _one_of(
        all="the gradient clipped as a whole", layer="the gradient clipped layer by layer"
    ),
    "augmentation": _augmentation,
    "dropout": _dropout,
    "optimizer": _one_of(adamw="AdamW", sgd="SGD"),
    "batch_size": _is("batches of"),
    "epochs": _is("epochs:"),
    "schedule": _one_of(
        constant="a constant learning rate",
        linear="a learning rate that falls linearly",
        cosine="a learning rate that falls along a cosine",
    ),
    "warmup": lambda value: f"{_percent(value)} of the steps to warm up",
    "precision": _one_of(fp32="32-bit floats", bf16="bf16 precision", fp16="fp16 precision"),
    "momentum": _is("momentum"),
    "nesterov": _one_of(true="Nesterov’s momentum", false="plain momentum"),
    "weight_decay": _is("weight decay"),
}
"""Of a value of a setting of the training."""


_OF_TERMS = {
    "layer_mapping": MAPPED,
    "attention_heads": ("attention",),
    "relation_heads": ("relations",),
}
"""What is said of terms, if one of them has a weight."""


def _unused(name: str, values: Mapping[str, Value]) -> bool:
    weights = [values[term] for term in _OF_TERMS.get(name, ()) if term in values]
    return bool(weights) and not any(weights)


def in_words(choice: Choice) -> str:
    """Such as `cross-entropy to the teacher checkpoint of the lowest validation loss, the student
    at the teacher’s temperature, human labels unused`."""
    found = dict(choice.values)
    kind, teacher = found.pop(OBJECTIVE), _checkpoint(found.pop(CHECKPOINT, None))
    words = {**PARAMETERS, **SETTINGS}
    if found.get("targets", DATA) != DATA:
        words[ALPHA] = _alpha_of_texts
    # A loss of one's own goes by its title, its parameters by their names.
    words |= {name: _is(name) for name in sorted(found.keys() - words.keys())}
    parts = [OBJECTIVES.get(kind, f"{Objective.kinds[kind].title} to {{}}").format(teacher)]
    parts += [
        say(found[name])
        for name, say in words.items()
        if name in found and not _unused(name, found)
    ]
    return ", ".join(parts)


def with_symbols(choice: Choice) -> str:
    """The words, and the symbols in brackets; Markdown."""
    return f"{escape(in_words(choice))} (**{escape(choice)}**)"


def tuned_in_words(names: tuple[str, ...]) -> str:
    """The axes that are tuned: `the teacher’s temperature (τ_t) and the learning rate`."""
    return axes_in_words(names).replace("τ_t", "the teacher’s temperature (τ_t)")
