"""Language modelling: a causal model goes on from a prompt.

A row: {"prompt": "2 + 3 =", "completion": " 5"}, or with messages for a prompt, which the
tokenizer's chat template writes.

A unit is a token of the completion, its end-of-text token among them; the prompt is read and not
learnt. As in translation, the teacher's outputs are what its head is given: exact for every
temperature and objective, where a list of the likeliest tokens is not. A training row of more than
the most tokens is left out; elsewhere what is beyond half of them is cut, of a completion at its
end, of a prompt at its beginning. Scored by the likelihood of the completion, or by the final
answer of what the model itself writes, one likeliest token after another: at most half of the most
tokens, behind a prompt in the other half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import starmap
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from kdsearch.agenda import DataSpec
from kdsearch.errors import InputError, first_line
from kdsearch.study.tasks.lm import texts_of
from kdsearch.tasks.base import Batch, Encoded, Settings, padded
from kdsearch.tasks.heads import head_weights, hidden_states

_LOGITS = 2**25
"""So many are there at once."""
_NUMBER = re.compile(r"\$?[-+]?\$?[\d,]*\.?\d+\.?")


class LanguageModelling:
    """See `Task`."""

    head = AutoModelForCausalLM
    per_token = True
    wide = True

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """Prompt and completion."""
        return *texts_of(dict(row)), row["completion"]

    def encode(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        data: DataSpec,
        settings: Settings,
        *,
        training: bool,
    ) -> Encoded:
        """Prompts with their completions behind them."""
        longest = settings.max_length
        assert longest is not None
        pairs = prompts_and_completions(rows, tokenizer)
        if training:
            pairs = [pair for pair in pairs if sum(map(len, pair)) <= longest]
            if not pairs:
                what = f"every training row has more than {longest} tokens"
                raise InputError.one("max_length", what, "raise it")
        else:
            pairs = list(starmap(_cutting(longest), pairs))
        counted = padded([[0] * (len(p) - 1) + [1] * len(c) + [0] for p, c in pairs], 0) == 1
        return Encoded(
            inputs={"input_ids": padded([[*p, *c] for p, c in pairs], padding_of(tokenizer))},
            lengths=torch.tensor([len(p) + len(c) for p, c in pairs]),
            counted=counted,
            labels=torch.tensor([token for _, completion in pairs for token in completion]),
            references=() if training else [_up_to_the_end(row, tokenizer) for row in rows],
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[completion tokens, width of the model]: what its head is given in front of each."""
        return hidden_states(model, **batch.arguments, use_cache=False)[batch.counted]

    def units(self, values_RW: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A completion's token each."""
        return values_RW, None

    def labels(self, batch: Batch) -> Tensor:
        """[completion tokens]."""
        return batch.labels

    def decode(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        values_RW: Tensor,
        data: DataSpec,
        settings: Settings,
    ) -> list[Any]:
        """The log-likelihood of each completion and its tokens; or what the model writes."""
        if data.metric == "likelihood":
            sums = [each.sum() for each in _of_each(model, batch, values_RW)]
            return list(zip(torch.stack(sums).tolist(), batch.counts.tolist(), strict=True))
        assert settings.max_length is not None
        prompts, mask = _prompts(batch, settings.max_length, padding_of(tokenizer))
        generator: Any = model
        # The model's own, since those of a pretrained one would fill in what this one leaves out.
        generator.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=settings.max_length // 2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_of(tokenizer),
        )
        tokens = generator.generate(input_ids=prompts, attention_mask=mask)
        written: list[str] = tokenizer.batch_decode(
            tokens[:, prompts.shape[1] :], skip_special_tokens=True
        )
        return written

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """One over the perplexity of the completions, or the share of right answers: 0 to 1."""
        columns = self.statistics(predictions, references, data)
        if data.metric == "likelihood":
            return math.exp(sum(columns["log_likelihood"]) / sum(columns["tokens"]))
        return sum(columns["right"]) / len(columns["right"])

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """Of each completion, its log-likelihood and its tokens; or whether the answer is right."""
        if data.metric == "likelihood":
            sums, tokens = zip(*predictions, strict=True)
            return {"log_likelihood": list(sums), "tokens": list(map(float, tokens))}
        pairs = zip(predictions, references, strict=True)
        return {
            "right": [float(final_answer(said) == final_answer(right)) for said, right in pairs]
        }

    def signature(self, data: DataSpec) -> str:
        """How it is computed."""
        if data.metric == "likelihood":
            return "likelihood of a completion's token, geometric mean (1/perplexity)"
        return "exact match of the final answer, greedy, zero-shot"


def final_answer(text: str) -> str | Decimal:
    """What stands behind the last `####` of a text, as in GSM8K, or all of it; without spaces.

    A number where it is one, with thousands separators or dollars too. Tokenizers of words write
    spaces into both (`- 5 . 0`).
    """
    _, mark, answer = text.rpartition("####")
    if mark:  # what goes on in the next line is no part of it
        answer = answer.strip().partition("\n")[0]
    answer = "".join(answer.split())
    if not _NUMBER.fullmatch(answer):
        return answer
    return Decimal(re.sub("[$,]", "", answer).rstrip("."))


def padding_of(tokenizer: Any) -> int:
    """The token to fill up with: any will do, since nothing reads it."""
    found = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if found is None else found)


def prompts_and_completions(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    """The tokens of both, of each row; a completion ends with the end-of-text token.

    Raises `InputError` where messages cannot be written by the tokenizer's chat template.
    """
    texts = [_texts(row, tokenizer) for row in rows]
    end = tokenizer.eos_token_id
    befores = _ids([prompt for prompt, _, _ in texts], tokenizer)
    wholes = _ids([prompt + completion for prompt, completion, _ in texts], tokenizer)
    alone = _ids([completion for _, completion, _ in texts], tokenizer)
    start = tokenizer("a")["input_ids"][:1]
    begins = start if start == [tokenizer.bos_token_id] else []
    found = []
    for before, whole, after, (_, _, written) in zip(befores, wholes, alone, texts, strict=True):
        # Where a token reaches over the border, each side is read by itself.
        completion = whole[len(before) :] if whole[: len(before)] == before else after
        if end in completion:  # a template or a text writes it, and may go on
            completion = completion[: completion.index(end)]
        # A template writes what a text begins with. Something must stand before the first token.
        prompt = before if written else [*begins, *before]
        found.append((prompt or [end], [*completion, end]))
    return found


def _texts(row: Mapping[str, Any], tokenizer: Any) -> tuple[str, str, bool]:
    """Prompt, completion, and whether a template has written them."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        return prompt, completion, False
    if not tokenizer.chat_template:
        what = "has no chat template, by which messages become text"
        raise InputError.one("its tokenizer", what, "give prompts as text")
    answered = [*prompt, {"role": "assistant", "content": completion}]
    try:
        before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # whatever a template does
        if type(error) is TemplateError:  # as templates themselves raise it
            roles = ", ".join(dict.fromkeys(message["role"] for message in answered))
            what, remedy = f"refuses messages of the roles {roles}: {error}", "leave such rows out"
        else:
            what, remedy = f"fails: {first_line(error)}", "mend it in the model's folder"
        raise InputError.one("its chat template", what, remedy) from None
    after = whole[len(before) :] if whole.startswith(before) else completion
    return before, after, True


def _up_to_the_end(row: Mapping[str, Any], tokenizer: Any) -> str:
    """A completion, up to the end-of-text token where it is spelt out."""
    return str(row["completion"].partition(tokenizer.eos_token)[0])


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    found: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return found


def _cutting(longest: int) -> Any:
    def cut(prompt: list[int], completion: list[int]) -> tuple[list[int], list[int]]:
        completion = completion[: max(longest - len(prompt), longest // 2)]
        return prompt[-(longest - len(completion)) :], completion

    return cut


def _of_each(model: nn.Module, batch: Batch, values_RW: Tensor) -> Sequence[Tensor]:
    """The log-likelihoods of the tokens of each completion."""
    weight, bias = head_weights(model)
    rows = max(1, _LOGITS // len(weight))
    found = [
        -F.cross_entropy(F.linear(some, weight, bias).float(), labels, reduction="none")
        for some, labels in zip(values_RW.split(rows), batch.labels.split(rows), strict=True)
    ]
    parts: Sequence[Tensor] = torch.cat(found).double().split(batch.counts.tolist())
    return parts


def _prompts(batch: Batch, longest: int, padding: int) -> tuple[Tensor, Tensor]:
    """[B, P] twice: the prompts, padded at the beginning, and which of the tokens are theirs.

    They have what generation leaves of the `longest` input.
    """
    ids_BL = batch.arguments["input_ids"]
    ends_B1 = batch.counted.int().argmax(dim=1, keepdim=True) + 1
    lengths_B1 = ends_B1.clamp(max=longest - longest // 2)
    width = int(lengths_B1.max())
    behind_P = torch.arange(width, device=ids_BL.device) - width  # -1 is the last token
    mask_BP = -behind_P <= lengths_B1
    tokens_BP = ids_BL.gather(1, (ends_B1 + behind_P).clamp(min=0))
    return tokens_BP.masked_fill(~mask_BP, padding), mask_BP.long()
