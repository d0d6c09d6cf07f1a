"""Teachers and students: pretrained, truncated to evenly spaced layers, or at random."""

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
from kdsearch.errors import InputError
from kdsearch.study import Resolved, Row, digest_model, find_model
from kdsearch.tasks import Encoded, Task, head_weights

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_MOST_WORDS = 30_000
_MOST_WEIGHTS = 3


def build_model(
    spec: ModelSpec, task: Task, labels: Sequence[str], tokenizer: Any, resolved: Resolved
) -> nn.Module:
    """The model that `spec` describes, with the task's head for `labels`.

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
        names = {"num_labels": 2}  # of qa, start and end; translation has no use for it
    if spec.config is not None:
        config = random_config(spec.config, names)
        config.vocab_size = len(tokenizer)
        if hasattr(config, "decoder_vocab_size"):  # Marian's
            config.decoder_vocab_size = len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        if config.is_encoder_decoder:
            config.decoder_start_token_id = tokenizer.pad_token_id  # as Marian's and T5's
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
        model: nn.Module = task.head.from_config(config, trust_remote_code=False)
        return model
    folder = model_folder(spec.name, spec.weights, resolved)
    model, drawn = _read(task.head, folder, trusted=trusts(spec.name), **names)
    others = [text for weight, text in drawn if not _of_the_head(model, weight)]
    _refuse(f"models.{spec.name}", others, "give the model as save_pretrained writes it")
    if spec.layers is not None:
        truncate(model, spec.layers)
    _pad(model, task, tokenizer)
    return model


def load_model(folder: Path, name: str, task: Task, tokenizer: Any) -> Any:
    """The model in `folder` as it was fine-tuned for a task: the study's model `name`.

    Raises `InputError` where any of its weights is not in the files.
    """
    model, drawn = _read(task.head, folder, trusted=trusts(name))
    mend = "give a model that was fine-tuned for what it is to teach"
    _refuse(folder, [text for _, text in drawn], mend)
    _pad(model, task, tokenizer)
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
    _pad(model, task, tokenizer)
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


def _refuse(place: object, weights: Sequence[str], mend: str) -> None:
    if weights:
        shown = ", ".join(weights[:_MOST_WEIGHTS])
        rest = len(weights) - _MOST_WEIGHTS
        more = f" and {rest} more" if rest > 0 else ""
        raise InputError.one(place, f"lacks the weights {shown}{more}", mend)


def _of_the_head(model: Any, weight: str) -> bool:
    """Whether a weight is one that fine-tuning begins anew: the pooler's is, in many files."""
    return not weight.startswith(f"{model.base_model_prefix}.") or ".pooler." in weight


def _pad(model: Any, task: Task, tokenizer: Any) -> None:
    """Tell a decoder's head for classification what padding is: it reads the last other token.

    Inputs are padded by the tokenizer, whatever the configuration says.
    """
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
    rest = {name: value for name, value in fields.items() if name != "model_type"}
    return AutoConfig.for_model(fields["model_type"], **rest, **(names or {}))


def truncate(model: Any, layers: int) -> None:
    """Keep `layers` evenly spaced layers of a model, in place (skip-layer strategy, §3).

    An encoder-decoder keeps half of them in its encoder and half in its decoder (§4). The layers
    are found by the configuration's count, not by a model's name.
    """
    if not model.config.is_encoder_decoder:
        _truncate_stack(model, model.config, _depth(model.config, _DEPTHS), layers)
        return
    if layers % 2:
        raise InputError.one(
            type(model).__name__,
            f"{layers} layers cannot be halved between its encoder and its decoder",
            "give an even number: 6 is 3 of each",
        )
    fields = _depth(model.config, _ENCODER_DEPTHS), _depth(model.config, _DECODER_DEPTHS)
    # Both counts are read before any is changed: some models have one for the two.
    depths = [getattr(model.config, field) for field in fields]
    for stack, field, depth in zip(
        (model.get_encoder(), model.get_decoder()), fields, depths, strict=True
    ):
        _truncate_stack(stack, model.config, field, layers // 2, depth)


_DEPTHS = ("num_hidden_layers",)
_ENCODER_DEPTHS = ("encoder_layers", "num_encoder_layers", "num_layers")
_DECODER_DEPTHS = ("decoder_layers", "num_decoder_layers", "num_layers")


def _depth(config: Any, fields: Sequence[str]) -> str:
    """The field of a configuration that has the number of layers."""
    return next(field for field in fields if getattr(config, field, None) is not None)


def _truncate_stack(
    stack: Any, config: Any, field: str, layers: int, total: int | None = None
) -> None:
    total = getattr(config, field) if total is None else total
    kept = evenly_spaced(total, layers)
    holder, name = _layer_list(stack, total)
    every = getattr(holder, name)
    setattr(holder, name, nn.ModuleList(every[i] for i in kept))
    _hand_on_positions(every[0], every[kept[0]])
    for number, layer in enumerate(getattr(holder, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # by which attention finds its cache
                module.layer_idx = number
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kinds[i] for i in kept]
    # A stack may have a configuration of its own, and the whole model the same field.
    for own in (config, getattr(stack, "config", config)):
        for alike in (field, "num_hidden_layers", "num_layers"):
            if getattr(own, alike, None) == total:
                setattr(own, alike, layers)


def _hand_on_positions(first: nn.Module, kept: nn.Module) -> None:
    """Give the first layer that is kept what only the first of all has.

    T5's first layer of each stack holds the relative positions for all of them.
    """
    for path, module in first.named_modules():
        if getattr(module, "has_relative_attention_bias", False):
            heir = kept.get_submodule(path)
            heir.has_relative_attention_bias = True  # type: ignore[assignment]
            heir.relative_attention_bias = module.relative_attention_bias


def evenly_spaced(total: int, kept: int) -> tuple[int, ...]:
    """`kept` of the indices 0 … total − 1, evenly spaced, the last among them."""
    return tuple(round((i + 1) * total / kept) - 1 for i in range(kept))


def _layer_list(stack: nn.Module, total: int) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name there.

    A layer may be a list of as many parts (T5's is of 2 or 3): lists within a list are none.
    """
    within = {
        part
        for each in stack.modules()
        if isinstance(each, nn.ModuleList) and len(each) == total
        for layer in each
        for part in layer.modules()
    }
    found = [
        (holder, name)
        for holder in stack.modules()
        if holder not in within
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(found) != 1:
        raise InputError.one(
            type(stack).__name__,
            f"has {len(found)} lists of {total} layers; which to cut cannot be told",
            "use the whole model, or a smaller pretrained one",
        )
    return found[0]


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
            "its logits are no linear map of its last hidden states, which the cache keeps",
            "use a model whose head is one linear layer, such as BART, Marian, mBART or T5",
        )


def load_tokenizer(
    spec: ModelSpec, task: Task, train: Callable[[], Iterable[Row]], resolved: Resolved
) -> Any:
    """The tokenizer of a model: its own, another's, or the words of the rows of `train`."""
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
            "put the files back, or launch again to train with them as they are",
        )
    return folder


@lru_cache(maxsize=16)
def _digest(folder: Path, *, code: bool) -> str:
    return digest_model(folder, code=code)
