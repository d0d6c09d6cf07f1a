"""What a language model has written, beside what is right: final answers, and ROUGE."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from kdsearch.study.tasks.lm import answer_of

_NUMBER = re.compile(r"\$?[-+]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+|(?<=[0-9]))\.?")
_WORD = re.compile(r"[^\W_]+")
_TODAY = datetime(2024, 7, 26)
"""For chat templates that write the day, as those of Llama 3.2 and SmolLM3: what a teacher has read
is then what its students read, whenever they do. Without a clock, Llama's write this one."""
_CLOCK = "".join(
    (
        "{% macro strftime_now(how) %}{{ how",
        *(f" | replace('%{c}', '{_TODAY.strftime('%' + c)}')" for c in "aAbBdmyYjHIMSp"),
        " }}{% endmacro %}",
    )
)
_CONTENT = "…"
"""An answer that stands for any, to see what a chat template writes around it."""


def told(messages: Any, tokenizer: Any, *, answer: bool = False) -> str:
    """Messages as the tokenizer's chat template writes them; what begins an `answer` behind them.

    Raises whatever the template raises.
    """
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _CLOCK + template
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=answer
    )
    return text


class Reference(NamedTuple):
    """What is right, and what a chat template writes before and behind an answer."""

    text: str
    opening: str = ""
    ending: str = ""
    characters: tuple[int, ...] = ()
    """Of each choice, the right one first."""

    def said(self, written: str) -> str:
        """An answer as a model has `written` it, without what the template would have written."""
        if self.ending:
            written = written.partition(self.ending)[0]
        if self.opening:
            written = written.lstrip().removeprefix(self.opening).lstrip()
        return written

    def likeliest(self, sums: Sequence[float]) -> bool:
        """Whether of choices with these log-likelihoods the first has the highest by the character.

        There may be more of them, the last ones again. Where another has as high a one, it is not.
        """
        own, *others = (s / count for s, count in zip(sums, self.characters, strict=False))
        return own > max(others)


def reference(row: Any, tokenizer: Any) -> Reference:
    """A completion, up to the end-of-text token where it is spelt out.

    Raises whatever the chat template raises.
    """
    text = row["completion"].partition(tokenizer.eos_token)[0]
    choices = sorted(row.get("choices", ()), key=lambda choice: choice != row["completion"])
    characters = tuple(len(choice.strip()) for choice in choices)
    opening, ending = _around(row["prompt"], tokenizer)
    return Reference(text, opening, ending, characters)


def _around(prompt: Any, tokenizer: Any) -> tuple[str, str]:
    """What a chat template writes before and behind an answer, but for special tokens."""
    if isinstance(prompt, str):
        return "", ""
    answered = [*prompt, {"role": "assistant", "content": _CONTENT}]
    before = told(prompt, tokenizer, answer=True)
    whole = told(answered, tokenizer)
    if not whole.startswith(before):
        return "", ""
    around = whole[len(before) :].partition(tokenizer.eos_token)[0]
    for token in tokenizer.all_special_tokens:  # which are no part of what is decoded
        around = around.replace(token, "")
    opening, _, ending = around.rpartition(_CONTENT)
    return opening.strip(), ending.strip()


def final_answer(text: str, pattern: str | None) -> str | Decimal | None:
    """What a pattern finds in a text, without spaces; a number where it is one.

    Without a pattern, what stands behind the last `####`, as in GSM8K, or all of the text. None
    where the pattern finds nothing. Numbers may have thousands separators or dollars. Tokenizers of
    words write spaces into both (`- 5 . 0`).
    """
    answer: str | None
    if pattern is not None:
        answer = answer_of(text, pattern)
        if answer is None:
            return None
    else:
        _, mark, answer = text.rpartition("####")
        if mark:  # what goes on in the next line is no part of it
            answer = answer.strip().partition("\n")[0]
    answer = "".join(answer.split())
    if not _NUMBER.fullmatch(answer):
        return answer
    return Decimal(re.sub("[$,]", "", answer).rstrip("."))


def is_right(written: str, right: Reference, pattern: str | None) -> bool:
    """Whether the final answer of what was written is the right one."""
    said = final_answer(right.said(written), pattern)
    return said is not None and said == final_answer(right.text, pattern)


def rouge_l(written: str, right: str) -> float:
    """The F-measure of the longest common subsequence of words (Lin 2004), of any alphabet.

    2 l / (m + n) with l words in common of m and n. In lower case, without punctuation; as the
    package rouge-score has it, which knows the letters a to z alone.
    """
    said, told = (_WORD.findall(text.lower()) for text in (written, right))
    return 2 * _in_common(said, told) / max(1, len(said) + len(told))


def _in_common(some: list[str], others: list[str]) -> int:
    """The length of the longest common subsequence, with a bit for each of some (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for place, word in enumerate(some):
        where[word] = where.get(word, 0) | 1 << place
    every = rest = (1 << len(some)) - 1
    for word in others:
        hits = rest & where.get(word, 0)
        rest = ((rest + hits) | (rest - hits)) & every
    return len(some) - rest.bit_count()
