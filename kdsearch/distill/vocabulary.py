"""The tokenizers of a study's models: which they are, and whether they fit their data."""

from __future__ import annotations

import difflib
import json
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from kdsearch.distill.consent import trusts
from kdsearch.errors import InputError, shortened_list
from kdsearch.study import Resolved
from kdsearch.tasks import TASKS, has_languages

_FILES = ("*.model", "*.spm", "*.tiktoken", "tokenizer.json", "*vocab*", "merges.txt")
"""What holds the words of a tokenizer."""
_SPACE = {"▁", "Ġ"}


def tokenizer_problem(resolved: Resolved, name: str, dataset: str) -> str | None:
    """A tokenizer that is not there, or cannot pad, point into its text or name languages."""
    data = resolved.datasets[dataset]
    source = tokenizer_name(resolved, name)
    try:
        tokenizer = tokenizer_of(*tokenizer_source(resolved, name))
    except InputError as error:
        whose = "its" if source == name else f"{source}'s"
        return "; ".join(f"{whose} {p.what} ({p.remedy})" for p in error.problems)
    explicit = resolved.study.datasets[dataset].languages
    if tokenizer is None:  # of the training split's words
        return None if explicit is None else f"words have no language codes; {dataset} names some"
    if data.task == "lm":
        if tokenizer.eos_token_id is not None:
            return None
        return (
            "its tokenizer has no end-of-text token, which completions end with "
            "(name one of its tokens as eos_token in its tokenizer_config.json)"
        )
    if tokenizer.pad_token_id is None:
        token = json.dumps(tokenizer.eos_token or "one of its tokens", ensure_ascii=False)
        remedy = f'add "pad_token": {token} to its tokenizer_config.json'
        return f"its tokenizer has no padding token ({remedy})"
    task = TASKS[data.task]
    if task.per_token and not task.wide and not tokenizer.is_fast:
        return f"its tokenizer does not say where a token is in its text; {data.task} needs it"
    if data.unanswerable and tokenizer("?", "a")["input_ids"][0] != tokenizer.cls_token_id:
        return (
            "its tokenizer does not begin inputs with [CLS], which stands for no answer: "
            f"remove datasets.{dataset}.unanswerable, or take another model"
        )
    if not task.wide:
        return None
    if not has_languages(tokenizer):
        if explicit is None:
            return None
        return f"its tokenizer has no language codes; remove datasets.{dataset}.languages"
    if data.languages is None:
        return f"its tokenizer needs two language codes: datasets.{dataset}.languages"
    # A word of the vocabulary is no code: mBART's has the word `de` beside the code `de_DE`.
    known = list(getattr(tokenizer, "lang_code_to_token", tokenizer.all_special_tokens))
    for code in data.languages:
        if code not in known:
            near = difflib.get_close_matches(code, known, n=3, cutoff=0.3)
            advice = f"; did you mean {' or '.join(near)}?" if near else ""
            return f"its tokenizer has no language {code}, which {dataset} names{advice}"
    return None


def tokenizer_name(resolved: Resolved, name: str) -> str:
    """The model whose tokenizer the model `name` has, or `words`: those of the training split."""
    model = resolved.study.models[name]
    return name if model.config is None else model.tokenizer


def tokenizer_source(resolved: Resolved, name: str) -> tuple[str | None, bool]:
    """Where the tokenizer of a model lies, and whether code of its may run.

    None for the words of the training split.
    """
    source = tokenizer_name(resolved, name)
    if source == "words" and resolved.study.models[name].config is not None:
        return None, False
    return resolved.models[source].path, trusts(source)


@lru_cache(maxsize=32)
def tokenizer_content(path: str | None, trusted: bool) -> str:
    """What makes a tokenizer: all of it but how it pads and cuts, and for which languages."""
    tokenizer = tokenizer_of(path, trusted)
    if tokenizer is None:
        return "words"
    if not tokenizer.is_fast:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    state = ("padding", "truncation", *(["post_processor"] * has_languages(tokenizer)))
    rest = {key: value for key, value in content.items() if key not in state}
    return json.dumps(rest, sort_keys=True)


def unlike_tokenizers(resolved: Resolved, student: str, teacher: str) -> tuple[str, str]:
    """In what the tokenizers of two models differ, and what to do about it."""
    remedy = "take models with the same tokenizer; only classification can do without"
    own, theirs = (tokenizer_of(*tokenizer_source(resolved, n)) for n in (student, teacher))
    if own is None or theirs is None:
        return "", remedy
    words, others = own.get_vocab(), theirs.get_vocab()
    found = ""
    for name, more, known in ((teacher, others, words), (student, words, others)):
        if added := sorted(more.keys() - known.keys(), key=more.__getitem__):
            found += f". Only {name} has {shortened_list(added)}"
    moved = [word for word in words if others.get(word, words[word]) != words[word]]
    if moved:
        found += f". Not in the same place: {shortened_list(sorted(moved, key=words.__getitem__))}"
    elif not found:
        found = ". They have the same tokens, and cut texts into them differently"
    elif words.keys() < others.keys() or others.keys() < words.keys():
        fewer, other = (student, teacher) if len(words) < len(others) else (teacher, student)
        remedy += (
            "; or, where no text has these tokens, copy the tokenizer of "
            f"{fewer} into a copy of the folder of {other}"
        )
    return found, remedy


@lru_cache(maxsize=32)
def tokenizer_of(path: str | None, trusted: bool) -> Any:
    """The tokenizer in a model's folder; None without one.

    Raises `InputError`, whose words go on from `its`, where the folder has none or a broken one;
    else whatever transformers raises.
    """
    if path is None:
        return None
    folder = Path(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
    except Exception as error:
        if (found := _in_words(folder, error)) is None:
            raise
        raise found from None
    # Most classes make one of their special tokens where they find no files.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - _SPACE:
        raise _missing(folder)
    return tokenizer


def _in_words(folder: Path, error: Exception) -> InputError | None:
    own_code = "trust_remote_code" in str(error)
    if not own_code and not any(True for pattern in _FILES for _ in folder.glob(pattern)):
        return _missing(folder)
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return InputError.one(file, "tokenizer.json is cut off or damaged", "fetch it again")
    if "untagged enum" in str(error):  # of Rust's deserialiser: a kind it does not know
        here = version("tokenizers")
        what = f"tokenizer.json was written by a newer version of tokenizers than {here}"
        return InputError.one(file, what, "pip install -U tokenizers transformers, on every node")
    return None


def _missing(folder: Path) -> InputError:
    remedy = "copy tokenizer.json from the model it was trained from"
    return InputError.one(folder, "folder has no tokenizer", remedy)
