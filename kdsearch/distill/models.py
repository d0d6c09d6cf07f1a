"""Teachers and students: pretrained, truncated to evenly spaced layers, or at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study import digest_model, hub_model
from kdsearch.tasks import Task

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_MOST_WORDS = 30_000


def build_model(
    spec: ModelSpec, task: Task, labels: Sequence[str], tokenizer: Any, ledger: Ledger
) -> nn.Module:
    """The model that `spec` describes, with the task's head for `labels`.

    What is not pretrained is drawn from torch's global generator: seed it first. The weights are
    read from safetensors only, and no code from a model's repository is run.
    """
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if spec.config is not None:
        config = random_config(spec.config, names)
        config.vocab_size = len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        model: nn.Module = task.head.from_config(config)
        return model
    folder = model_folder(spec.name, spec.weights, ledger)
    model = task.head.from_pretrained(
        folder,
        **names,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # a head for other labels is drawn anew
    )
    if spec.layers is not None:
        truncate(model, spec.layers)
    return model


def random_config(fields: dict[str, Any], names: dict[str, Any] | None = None) -> Any:
    """The transformers configuration with these fields, `model_type` among them."""
    rest = {name: value for name, value in fields.items() if name != "model_type"}
    return AutoConfig.for_model(fields["model_type"], **rest, **(names or {}))


def truncate(model: Any, layers: int) -> None:
    """Keep `layers` evenly spaced layers of an encoder, in place (skip-layer strategy, §3).

    The layers are found by the configuration's count, not by a model's name.
    """
    kept = evenly_spaced(model.config.num_hidden_layers, layers)
    holder, name = _layer_list(model)
    setattr(holder, name, nn.ModuleList(getattr(holder, name)[i] for i in kept))
    for number, layer in enumerate(getattr(holder, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # by which attention finds its cache
                module.layer_idx = number
    kinds = getattr(model.config, "layer_types", None)
    if kinds is not None:
        model.config.layer_types = [kinds[i] for i in kept]
    model.config.num_hidden_layers = layers


def evenly_spaced(total: int, kept: int) -> tuple[int, ...]:
    """`kept` of the indices 0 … total − 1, evenly spaced, the last among them."""
    return tuple(round((i + 1) * total / kept) - 1 for i in range(kept))


def _layer_list(model: Any) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name there."""
    total = model.config.num_hidden_layers
    found = [
        (holder, name)
        for holder in model.modules()
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(found) != 1:
        raise InputError.one(
            type(model).__name__,
            f"has {len(found)} lists of {total} layers; which to cut cannot be told",
            "use the whole model, or a smaller pretrained one",
        )
    return found[0]


def load_tokenizer(spec: ModelSpec, train_digest: str, ledger: Ledger) -> Any:
    """The tokenizer of a model: its own, another's, or the words of the training split."""
    if spec.tokenizer_name is not None:
        return AutoTokenizer.from_pretrained(
            model_folder(spec.tokenizer_name, spec.tokenizer, ledger)
        )
    return word_tokenizer(text for row in ledger.rows(train_digest) for text in row["texts"])


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
        model_input_names=["input_ids", "attention_mask"],
    )


def model_folder(name: str, digest: str | None, ledger: Ledger) -> Path:
    """Where the study's model `name` lies on this host, its content checked against `digest`."""
    resolved = ledger.resolved()
    found = resolved.models[name].path
    hub = resolved.study.models[name].hub
    if found is not None and Path(found).is_dir():
        folder = Path(found)
    elif hub is not None:
        folder = hub_model(hub, resolved.models[name].revision, f"models.{name}")
    else:
        raise InputError.one(
            f"models.{name}", f"{found} is not on this host", "put it on storage that all nodes see"
        )
    if _digest(folder) != digest:
        raise InputError.one(
            f"models.{name}",
            f"{folder} has changed since the study began",
            "put the files back, or begin a study in another folder",
        )
    return folder


@lru_cache(maxsize=16)
def _digest(folder: Path) -> str:
    return digest_model(folder)
