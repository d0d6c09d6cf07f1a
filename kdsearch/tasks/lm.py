"""Language modelling: a causal model goes on from a prompt.

A row: {"prompt": "2 + 3 =", "completion": " 5"}, or with messages for a prompt, which the
tokenizer's chat template writes.

A unit is a token of the completion, its end-of-text token among them; the prompt is read and not
learnt. As in translation, the teacher's outputs are what its head is given: exact for every
temperature and objective, where a list of the likeliest tokens is not. A training row of more than
the most tokens is left out; elsewhere what is beyond half of them is cut, of a completion at its
end, of a prompt at its beginning. Scored by the likelihood of the completion; by whether it is the
likeliest of several choices; or by what the model itself writes, one likeliest token after another
(its final answer, or its words): at most half of the most tokens, behind a prompt in the other
half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from kdsearch.agenda import DataSpec, WritingSettings
from kdsearch.errors import InputError, first_line
from kdsearch.study.tasks.lm import texts_of
from kdsearch.tasks.answers import is_right, reference, rouge_l, told
from kdsearch.tasks.base import Batch, Encoded, Settings, padded
from kdsearch.tasks.heads import head_weights, hidden_states
from kdsearch.tasks.writing import Gumbel

_LOGITS = 2**25
"""So many are there at once."""
_SIGNATURES = {
    "likelihood": "likelihood of a completion's token, geometric mean (1/perplexity)",
    "exact_match": "exact match of the final answer, greedy, zero-shot",
    "multiple_choice": "share of rows whose right choice has the highest log-likelihood per "
    "character, zero-shot (acc_norm of lm-evaluation-harness)",
    "rouge_l": "ROUGE-L, F-measure, mean over rows, greedy, zero-shot",
}
GENERATING = frozenset({"exact_match", "rouge_l"})
"""The metrics of what a model writes."""
_IGNORING_THE_MASK = {"rwkv", "xlstm"}
"""Models that read padding, so that each of their prompts is a batch of its own. (RWKV's cached
states also mix up the rows of a batch, as transformers 5.23 has them.)"""


class LanguageModelling:
    """See `Task`."""

    head = AutoModelForCausalLM
    reads_pixels = False
    per_token = True
    wide = True

    def texts(self, row: Mapping[str, Any]) -> Iterable[str]:
        """Prompt and completion, or all choices."""
        return *texts_of(dict(row)), *row.get("choices", (row["completion"],))

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
        references = () if training else [reference(row, tokenizer) for row in rows]
        choices = () if training else tuple(_wrong_choices(rows, tokenizer, longest))
        return _encoded(pairs, tokenizer, references, choices)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """[completion tokens, width of the model]: what its head is given in front of each."""
        return hidden_states(model, **batch.arguments)[batch.counted]

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
        """Of each completion its log-likelihood and its tokens; whether it is the likeliest choice;
        or what the model writes."""
        if data.metric in GENERATING:
            assert settings.max_length is not None
            longest = settings.max_length
            prompts, mask = _prompts(batch, longest - longest // 2, padding_of(tokenizer))
            tokens = _gone_on(model, tokenizer, batch, prompts, mask, longest // 2)
            said: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            return said
        found = _of_each(model, batch, values_RW)
        if data.metric == "multiple_choice":
            return self._of_choices(model, tokenizer, batch, found)
        sums = torch.stack([each.sum() for each in found])
        return list(zip(sums.tolist(), batch.counts.tolist(), strict=True))

    def _of_choices(
        self, model: nn.Module, tokenizer: Any, batch: Batch, right: Sequence[Tensor]
    ) -> list[list[float]]:
        """The log-likelihood of each choice, the right one first, of whose tokens it is given.

        Without the end-of-text token, as lm-evaluation-harness has it.
        """
        last_B = batch.labels.cpu()[batch.counts.cumsum(0) - 1]
        counts_B = batch.counts - (last_B == tokenizer.eos_token_id).long()
        own = [each[:count] for each, count in zip(right, counts_B.tolist(), strict=True)]
        wrong = (_of_each(model, some, self.outputs(model, some)) for some in batch.choices)
        every = (torch.stack([*map(_sum, choice)]).tolist() for choice in (own, *wrong))
        return [list(sums) for sums in zip(*every, strict=True)]

    def write(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch: Batch,
        data: DataSpec,
        settings: WritingSettings,
        noise: Gumbel | None,
    ) -> list[str | None]:
        """See `Writer`: behind whole prompts, as far as a training row has room."""
        longest, end = settings.max_length, tokenizer.eos_token_id
        prompts, mask = _prompts(batch, longest, padding_of(tokenizer))
        lengths_B = mask.sum(dim=1)
        rooms_B = (longest - lengths_B).clamp(max=longest // 2)
        texts: list[str | None] = [None] * len(prompts)
        for room in rooms_B[rooms_B > 0].unique().tolist():  # one, but for long prompts
            rows = (rooms_B == room).nonzero()[:, 0]
            width = int(lengths_B[rows].max())
            some = prompts[rows, -width:], mask[rows, -width:]
            own = noise.some(rows.tolist()) if noise else None
            beams = settings.beams or 1
            tokens = _gone_on(model, tokenizer, batch, *some, room, own, num_beams=beams)
            for row, said in zip(rows.tolist(), tokens, strict=True):
                if end in said:
                    before = prompts[row, mask[row].bool()].tolist()
                    texts[row] = _behind(tokenizer, before, said[: said.index(end)])
        return texts

    def written(self, row: Mapping[str, Any], text: str, reference: Any) -> dict[str, Any] | None:
        """See `Writer`."""
        if not isinstance(row["prompt"], str):
            text = reference.said(text).strip()  # what stands around a message is its template's
        return {**row, "completion": text} if text.strip() else None

    def is_right(self, text: str, reference: Any, data: DataSpec) -> bool:
        """See `Writer`."""
        return is_right(text, reference, data.answer)

    def score(self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec) -> float:
        """One over the perplexity of the completions, or a mean over the rows: 0 to 1."""
        columns = self.statistics(predictions, references, data)
        if data.metric == "likelihood":
            return math.exp(sum(columns["log_likelihood"]) / sum(columns["tokens"]))
        (values,) = columns.values()
        return sum(values) / len(values)

    def statistics(
        self, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
    ) -> dict[str, list[float]]:
        """Of each completion, its log-likelihood and its tokens; whether it is right; its ROUGE."""
        if data.metric == "likelihood":
            sums, tokens = zip(*predictions, strict=True)
            return {"log_likelihood": list(sums), "tokens": list(map(float, tokens))}
        pairs = zip(predictions, references, strict=True)
        if data.metric == "multiple_choice":
            return {"right": [float(right.likeliest(sums)) for sums, right in pairs]}
        if data.metric == "rouge_l":
            return {"rouge_l": [rouge_l(right.said(said), right.text) for said, right in pairs]}
        return {"right": [float(is_right(said, right, data.answer)) for said, right in pairs]}

    def signature(self, data: DataSpec) -> str:
        """How it is computed."""
        pattern = "" if data.answer is None else f", found by {data.answer}"
        return _SIGNATURES[data.metric] + pattern * (data.metric == "exact_match")


def padding_of(tokenizer: Any) -> int:
    """The token to fill up with: any will do, since nothing reads it."""
    found = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if found is None else found)


def known_tokens(tokenizer: Any) -> int:
    """How many tokens there are to choose between; the tables of a model may be longer."""
    return int(max(tokenizer.get_vocab().values())) + 1


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
    read = prompt
    try:
        before = told(prompt, tokenizer, answer=True)
        read = answered
        whole = told(answered, tokenizer)
    except Exception as error:  # whatever a template does
        if type(error) is TemplateError:  # as templates themselves raise it
            roles = ", ".join(dict.fromkeys(message["role"] for message in read))
            what = f"refuses messages of the roles {roles}, in its own words: {error}"
            remedy = "leave such rows out"
        else:
            what, remedy = f"fails: {first_line(error)}", "mend it in the model's folder"
        raise InputError.one("its chat template", what, remedy) from None
    after = whole[len(before) :] if whole.startswith(before) else completion
    return before, after, True


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    found: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return found


def _encoded(
    pairs: Sequence[tuple[list[int], list[int]]],
    tokenizer: Any,
    references: Sequence[Any] = (),
    choices: tuple[Encoded, ...] = (),
) -> Encoded:
    return Encoded(
        inputs={"input_ids": padded([[*p, *c] for p, c in pairs], padding_of(tokenizer))},
        lengths=torch.tensor([len(p) + len(c) for p, c in pairs]),
        counted=padded([[0] * (len(p) - 1) + [1] * len(c) + [0] for p, c in pairs], 0) == 1,
        labels=torch.tensor([token for _, completion in pairs for token in completion]),
        references=references,
        choices=choices,
        classes=known_tokens(tokenizer),
    )


def _wrong_choices(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, longest: int
) -> Iterator[Encoded]:
    """The wrong choices, one of each row at a time, without an end behind them; none without."""
    wrong = [[c for c in row.get("choices", ()) if c != row["completion"]] for row in rows]
    for number in range(max(map(len, wrong))):
        told = [
            {**row, "completion": each[min(number, len(each) - 1)]}
            for row, each in zip(rows, wrong, strict=True)
        ]
        pairs = starmap(_cutting(longest), prompts_and_completions(told, tokenizer))
        end = [tokenizer.eos_token_id]
        yield _encoded([(p, c[:-1] if c[-1:] == end else c) for p, c in pairs], tokenizer)


def _cutting(longest: int) -> Any:
    def cut(prompt: list[int], completion: list[int]) -> tuple[list[int], list[int]]:
        completion = completion[: max(longest - len(prompt), longest // 2)]
        return prompt[-(longest - len(completion)) :], completion

    return cut


def _surplus(model: nn.Module, batch: Batch) -> list[int]:
    """The numbers in a model's head that no token has."""
    width = len(head_weights(model)[0])
    return [*range(width if batch.classes is None else batch.classes, width)]


def _of_each(model: nn.Module, batch: Batch, values_RW: Tensor) -> Sequence[Tensor]:
    """The log-likelihoods of the tokens of each completion."""
    weight, bias = head_weights(model)
    rows = max(1, _LOGITS // len(weight))
    found = [
        -F.cross_entropy(
            F.linear(some, weight, bias)[:, : batch.classes].float(), labels, reduction="none"
        )
        for some, labels in zip(values_RW.split(rows), batch.labels.split(rows), strict=True)
    ]
    parts: Sequence[Tensor] = torch.cat(found).double().split(batch.counts.tolist())
    return parts


def _sum(log_likelihoods: Tensor) -> Tensor:
    """Of a choice; one of which a tokenizer makes nothing has none."""
    none = log_likelihoods.new_tensor(-math.inf)
    return log_likelihoods.sum() if len(log_likelihoods) else none


def _gone_on(
    model: Any,
    tokenizer: Any,
    batch: Batch,
    prompts_BP: Tensor,
    mask_BP: Tensor,
    most: int,
    noise: Gumbel | None = None,
    **how: Any,
) -> list[list[int]]:
    """What the model writes behind each prompt of a batch, at most so many tokens."""
    at_once = 1 if model.config.model_type in _IGNORING_THE_MASK else len(prompts_BP)
    own = model.generation_config
    # Of a pretrained one would fill in what this one leaves out.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=padding_of(tokenizer),
        suppress_tokens=_surplus(model, batch) or None,
        **how,
    )
    written: list[list[int]] = []
    try:
        for rows in torch.arange(len(prompts_BP)).split(at_once):
            prompts, mask = prompts_BP[rows], mask_BP[rows]
            length = int(mask.sum(dim=1).max())
            tokens = model.generate(
                input_ids=prompts[:, -length:],
                attention_mask=mask[:, -length:],
                logits_processor=[noise.some(rows.tolist())] if noise else [],
            )
            written += tokens[:, length:].tolist()
    finally:
        model.generation_config = own
    return written


def _behind(tokenizer: Any, prompt: list[int], completion: list[int]) -> str:
    """The text of a completion as it stands behind its prompt, with the space between them."""
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode(prompt, **plain)
    whole: str = tokenizer.decode([*prompt, *completion], **plain)
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(completion, **plain))


def _prompts(batch: Batch, most: int, padding: int) -> tuple[Tensor, Tensor]:
    """[B, P] twice: the prompts, padded at the beginning, and which of the tokens are theirs.

    Of a prompt the last `most` tokens.
    """
    ids_BL = batch.arguments["input_ids"]
    ends_B1 = batch.counted.int().argmax(dim=1, keepdim=True) + 1
    lengths_B1 = ends_B1.clamp(max=most)
    width = int(lengths_B1.max())
    behind_P = torch.arange(width, device=ids_BL.device) - width  # -1 is the last token
    mask_BP = -behind_P <= lengths_B1
    tokens_BP = ids_BL.gather(1, (ends_B1 + behind_P).clamp(min=0))
    return tokens_BP.masked_fill(~mask_BP, padding), mask_BP.long()
