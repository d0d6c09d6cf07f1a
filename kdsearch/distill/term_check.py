"""What is refused of terms before a search: models that do not compute what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdsearch.distill.check import (
    config_of,
    reads_forward,
    teacher_models,
    unlike_lengths,
)
from kdsearch.distill.terms import MEAN, undivided, unlike_heads
from kdsearch.distill.vocabulary import tokenizer_content, tokenizer_of, tokenizer_source
from kdsearch.errors import Problem
from kdsearch.search import TEACHERS
from kdsearch.study import (
    AskedTerms,
    Resolved,
    TestCase,
    asked_terms,
    place_of,
    space_of,
    taught_cases,
)
from kdsearch.tasks import TASKS

_ATTENDS = ("attention", "relations")


def term_problems_of_models(resolved: Resolved, place: str) -> list[Problem]:
    """Terms of a study, read from the file `place`, that a teacher and a student cannot have.

    Their configurations and tokenizers are read, which can be.
    """
    found: dict[Problem, None] = {}
    for case in taught_cases(resolved.study):
        asked = asked_terms(space_of(resolved.study, case))
        if asked is None:
            continue
        where = f"{place}: {place_of(case)}"
        if not TASKS[resolved.datasets[case.dataset].task].per_token:
            found |= dict.fromkeys(_reading_problems(resolved, case, asked, where))
        if "cls_states" in asked.terms:
            found |= dict.fromkeys(_cls_problems(resolved, case, where))
        for teacher in teacher_models(resolved, case):
            found |= dict.fromkeys(_pair_problems(resolved, case, teacher, asked, where))
    return list(found)


def _reading_problems(
    resolved: Resolved, case: TestCase, asked: AskedTerms, where: str
) -> Iterator[Problem]:
    """Where outputs are not compared token by token, and terms are."""
    by_token = [term for term in asked.terms if term != "cls_states"]
    if not by_token:
        return
    yield from unlike_lengths(resolved, case, where)
    student = resolved.study.students[case.student].model
    for teacher in teacher_models(resolved, case):
        contents = (
            tokenizer_content(*tokenizer_source(resolved, name)) for name in (teacher, student)
        )
        if len({*contents}) == 2:
            what = (
                f"{student} and the teacher {teacher} have different tokenizers, and "
                f"{', '.join(by_token)} compare{'s' * (len(by_token) == 1)} them token by token"
            )
            remedy = "take models with the same tokenizer, or of the terms cls_states alone"
            yield Problem(place=where, what=what, remedy=remedy)


def _cls_problems(resolved: Resolved, case: TestCase, where: str) -> Iterator[Problem]:
    """Models that do not begin what they read with [CLS], or know nothing of the rest there."""
    student = resolved.study.students[case.student].model
    for name in (student, *teacher_models(resolved, case)):
        tokenizer = tokenizer_of(*tokenizer_source(resolved, name))
        begins = tokenizer is None or (
            tokenizer.cls_token_id is not None
            and tokenizer("a")["input_ids"][0] == tokenizer.cls_token_id
        )
        if reads_forward(config_of(resolved, name)) or not begins:
            what = f"{name} has no [CLS] at the beginning that stands for what it reads"
            yield Problem(place=f"{where}.cls_states", what=what, remedy="take hidden_states")


def _pair_problems(
    resolved: Resolved, case: TestCase, teacher: str, asked: AskedTerms, where: str
) -> Iterator[Problem]:
    """Two stacks, attention in two directions, and heads that do not go together."""
    student = resolved.study.students[case.student].model
    configs = {name: config_of(resolved, name) for name in (student, teacher)}
    for name, config in configs.items():
        if config.is_encoder_decoder:
            what = f"{name} is an encoder-decoder; terms compare models of one stack"
            yield Problem(place=where, what=what, remedy="leave the terms out")
            return
    attends = [term for term in asked.terms if term in _ATTENDS]
    if not attends:
        return
    if len({*map(reads_forward, configs.values())}) == 2:
        what = f"one of {student} and {teacher} reads from left to right alone"
        remedy = f"leave {' and '.join(attends)} out"
        yield Problem(place=where, what=what, remedy=remedy)
    own, theirs = (_heads(configs[name]) for name in (student, teacher))
    if "attention" in asked.terms and "each" in asked.attention_heads and own[0] != theirs[0]:
        what = f"{case}: attention {unlike_heads(own[0], theirs[0])}"
        yield Problem(place=f"{where}.attention_heads", what=what, remedy=MEAN)
    for heads in asked.relation_heads if "relations" in asked.terms else ():
        count = theirs[0] if heads == TEACHERS else heads
        if problem := undivided(count, own[1], theirs[1]):
            remedy = "list numbers that divide both"
            place, what = f"{where}.relation_heads", f"{case}: {problem}"
            yield Problem(place=place, what=what, remedy=remedy)


def _heads(config: Any) -> tuple[int, int]:
    """How many heads of queries a model has, and how wide they are together."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    own = getattr(text, "head_dim", None)
    return heads, int(own * heads if own else text.hidden_size)
