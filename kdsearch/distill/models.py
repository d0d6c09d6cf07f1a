"""Teachers and students: pretrained, truncated to some layers, or at random."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from kdsearch.agenda import ModelSpec
from kdsearch.distill.consent import trusts
from kdsearch.distill.images import draw_as_timm, fit_images, processor_at_random, processor_in
from kdsearch.distill.layers import text_config, truncate
from kdsearch.errors import InputError
from kdsearch.study import Resolved, Row, digest_model, find_model
from kdsearch.tasks import Encoded, Task, head_weights

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_MOST_WORDS = 30_000
_MOST_WEIGHTS = 3
_RECOMPUTE = ("activation_checkpointing_enable", "gradient_checkpointing_enable")


def build_model(
    spec: ModelSpec,
    task: Task,
    labels: Sequence[str],
    tokenizer: Any,
    resolved: Resolved,
    *,
    dropout: float | None = None,
) -> nn.Module:
    """The model that `spec` describes, with the task's head for `labels`.

    `dropout` is that of all its parts, in place of what its configuration says.
    What is not pretrained is drawn from torch's global generator: seed it first. The weights are
    read from safetensors, or from torch's own files with `weights_only`; no code from a model's
    repository is run unless whoever runs this says so of the model: see `consent`. Raises
    `InputError` where weights other than the head's are not in the files.
    """
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if not labels:
        names = {"num_labels": 2}  # of qa, start and end; others have no use for it
    elif task.reads_pixels:  # timm's configuration counts labels by itself
        names["num_labels"] = len(labels)
    if spec.config is not None:
        config = random_config(spec.config, names)
        config.update(_dropouts(spec, config, dropout))
        if not task.reads_pixels:
            _give_vocabulary(config, task, tokenizer)
        model: nn.Module = task.head.from_config(config, trust_remote_code=False)
        draw_as_timm(model)
        if task.reads_pixels:
            fit_images(model, tokenizer)
        return model
    folder = model_folder(spec.name, spec.weights, resolved)
    trusted = trusts(spec.name)
    if dropout is not None:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        names |= _dropouts(spec, config, dropout)
    if spec.random:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted, **names)
        model = task.head.from_config(config, trust_remote_code=trusted, dtype=torch.float32)
        draw_as_timm(model)
    else:
        model, drawn = _read(task.head, folder, trusted=trusted, **names)
        others = [text for weight, text in drawn if not of_the_head(model, weight)]
        _refuse(f"models.{spec.name}", others, "give the model as save_pretrained writes it")
    if spec.layers is not None:
        truncate(model, spec.layers)
    _fit(model, task, tokenizer)
    return model


def recompute(model: Any) -> None:
    """Have activations within a model's layers computed again for the gradient, and not kept.

    Raises `ValueError` where transformers knows no layers of it to do that for.
    """
    # Transformers had it under another name first.
    name = next(n for n in _RECOMPUTE if hasattr(model, n))
    getattr(model, name)({"use_reentrant": False})


def dropout_fields(config: Any) -> tuple[str, ...]:
    """The fields of a configuration that are shares of dropout, by their names.

    BERT and RoBERTa: hidden_dropout_prob, attention_probs_dropout_prob, and classifier_dropout if
    it is a number (else it follows the first); DistilBERT: dropout, attention_dropout, qa_dropout,
    seq_classif_dropout; BART and mBART: dropout, attention_dropout, activation_dropout,
    classifier_dropout; T5: dropout_rate, classifier_dropout; GPT-2: those in pdrop and
    summary_first_dropout. Whole layers that are dropped (layerdrop) are another thing.
    """
    return tuple(
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    )


def _dropouts(spec: ModelSpec, config: Any, dropout: float | None) -> dict[str, float]:
    if dropout is None:
        return {}
    fields = dropout_fields(config)
    if not fields:
        what = f"the configuration of {config.model_type} has no dropout"
        raise InputError.one(f"models.{spec.name}", what, "leave training.dropout out")
    return dict.fromkeys(fields, dropout)


def load_model(folder: Path, name: str, task: Task, tokenizer: Any) -> Any:
    """The model in `folder` as it was fine-tuned for a task: the study's model `name`.

    Raises `InputError` where any of its weights is not in the files.
    """
    model, drawn = _read(task.head, folder, trusted=trusts(name))
    remedy = "give a model that was fine-tuned for what it is to teach"
    _refuse(folder, [text for _, text in drawn], remedy)
    _fit(model, task, tokenizer)
    return model


def load_checkpoint(
    folder: Path,
    spec: ModelSpec,
    task: Task,
    labels: Sequence[str],
    tokenizer: Any,
    resolved: Resolved,
) -> Any:
    """The epoch in `folder`, a study's own, of a teacher that was fine-tuned as `spec` says.

    The folder may come from someone else, with code beside the weights: code of the model's own is
    that of the study's model, never the folder's. Raises `InputError` as `load_model` does.
    """
    kind: Any = task.head
    if trusts(spec.name):
        kind = type(build_model(spec, task, labels, tokenizer, resolved))
    model, drawn = _read(kind, folder, trusted=False)
    _refuse(folder, [text for _, text in drawn], "remove the folder, and launch again")
    _fit(model, task, tokenizer)
    return model


def _read(
    kind: Any, folder: Path, *, trusted: bool, **fields: Any
) -> tuple[nn.Module, list[tuple[str, str]]]:
    """A model, and the weights that were drawn at random: their names, and in words.

    `kind` is its class, or the auto class that finds it.
    """
    model, found = kind.from_pretrained(
        folder,
        **fields,
        dtype=torch.float32,
        weights_only=True,
        # It must be said either way: left out, transformers asks on the terminal.
        trust_remote_code=trusted,
        ignore_mismatched_sizes=True,  # a head for other labels is drawn anew
        output_loading_info=True,
    )
    missing = [(weight, weight) for weight in found["missing_keys"]]
    resized = [
        (weight, f"{weight} (of the shape {list(wanted)}, not {list(there)})")
        for weight, there, wanted in found["mismatched_keys"]
    ]
    return model, sorted(missing + resized)


def _refuse(place: object, weights: Sequence[str], remedy: str) -> None:
    if weights:
        shown = ", ".join(weights[:_MOST_WEIGHTS])
        rest = len(weights) - _MOST_WEIGHTS
        more = f" and {rest} more" if rest > 0 else ""
        raise InputError.one(place, f"lacks the weights {shown}{more}", remedy)


def of_the_head(model: Any, weight: str) -> bool:
    """Whether a weight is one that fine-tuning begins anew: the pooler's is, in many files."""
    within = getattr(model, "timm_model", None)  # has its head among its own parts
    if within is not None:
        heads = within.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        return any(weight.startswith(f"timm_model.{head}.") for head in heads)
    if model.base_model is model:  # as CLIP's, T5's: the parts of the body stand beside the head
        *_, head = (name for name, part in model.named_children() if [*part.parameters()])
        return weight.startswith(f"{head}.")
    return not weight.startswith(f"{model.base_model_prefix}.") or ".pooler." in weight


def _give_vocabulary(config: Any, task: Task, tokenizer: Any) -> None:
    """Tell a configuration at random what its tokenizer knows."""
    text = text_config(config)
    text.vocab_size = len(tokenizer)
    if hasattr(text, "decoder_vocab_size"):  # Marian's
        text.decoder_vocab_size = len(tokenizer)
    text.pad_token_id = tokenizer.pad_token_id
    if text.is_encoder_decoder:
        text.decoder_start_token_id = tokenizer.pad_token_id  # as Marian's and T5's
    if text.is_encoder_decoder or task.wide:
        text.bos_token_id = tokenizer.bos_token_id
        text.eos_token_id = tokenizer.eos_token_id


def _fit(model: Any, task: Task, tokenizer: Any) -> None:
    """Tell a decoder's head for classification what padding is: it reads the last other token.

    Inputs are padded by the tokenizer, whatever the configuration says. Models of images: see
    `fit_images`.
    """
    if task.reads_pixels:
        fit_images(model, tokenizer)
        return
    config = model.config.get_text_config()
    if not task.per_token and (config.pad_token_id is None or not config.is_encoder_decoder):
        config.pad_token_id = tokenizer.pad_token_id


def known_inputs(model: Any, examples: Encoded) -> Encoded:
    """The examples without token types that a model has no embeddings for, or no argument."""
    types = examples.inputs.get("token_type_ids")
    if types is None:
        return examples
    arguments = inspect.signature(model.forward).parameters
    taken = "token_type_ids" in arguments or any(
        argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values()
    )
    known = getattr(model.config, "type_vocab_size", None)
    if taken and (known is None or int(types.max()) < known):
        return examples
    inputs = {name: ids for name, ids in examples.inputs.items() if name != "token_type_ids"}
    return replace(examples, inputs=inputs)


def random_config(fields: dict[str, Any], names: dict[str, Any] | None = None) -> Any:
    """The transformers configuration with these fields, `model_type` among them."""
    # What has several classes for one head (DeiT) is looked up by a list, which None is not.
    rest: dict[str, Any] = {"architectures": []}
    rest |= {name: value for name, value in fields.items() if name != "model_type"}
    return AutoConfig.for_model(fields["model_type"], **rest, **(names or {}))


@torch.no_grad()
def check_head(model: Any, task: Task, examples: Encoded) -> None:
    """Raise `InputError` unless a model's logits are a linear map of its last hidden states."""
    model.eval()
    batch = examples.batch(torch.zeros(1, dtype=torch.long))
    found = nn.functional.linear(task.outputs(model, batch), *head_weights(model))
    expected = model(**batch.arguments, labels=batch.targets).logits[batch.counted]
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise InputError.one(
            type(model).__name__,
            "its logits are not a linear map of its last hidden states, which are what is cached",
            "use a model whose head is one linear layer, as that of BART, T5, Llama and Qwen is",
        )


def load_tokenizer(
    spec: ModelSpec, task: Task, train: Callable[[], Iterable[Row]], resolved: Resolved
) -> Any:
    """The tokenizer of a model: its own, another's, or the words of the rows of `train`.

    Of images what stands in its place, an `ImageProcessor`.
    """
    if task.reads_pixels:
        size = len(next(iter(train()))["pixels"])
        if spec.tokenizer_name is None:
            return processor_at_random(size)
        folder = model_folder(spec.tokenizer_name, spec.tokenizer, resolved)
        return processor_in(folder, size, trusted=trusts(spec.tokenizer_name))
    if spec.tokenizer_name is not None:
        return AutoTokenizer.from_pretrained(
            model_folder(spec.tokenizer_name, spec.tokenizer, resolved),
            trust_remote_code=trusts(spec.tokenizer_name),
        )
    return word_tokenizer(text for row in train() for text in task.texts(row))


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the words in `texts`, the most frequent 30,000 of them."""
    split = Whitespace().pre_tokenize_str
    counts = Counter(word for text in texts for word, _ in split(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:_MOST_WORDS]
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )


def model_folder(name: str, digest: str | None, resolved: Resolved) -> Path:
    """Where the study's model `name` lies on this host, its content checked against `digest`."""
    folder = find_model(name, resolved)
    if _digest(folder, code=resolved.study.models[name].trust_remote_code) != digest:
        raise InputError.one(
            f"models.{name}",
            f"{folder} has changed since the study began",
            "restore the files, or launch again to train with them as they are",
        )
    return folder


@lru_cache(maxsize=16)
def _digest(folder: Path, *, code: bool) -> str:
    return digest_model(folder, code=code)
