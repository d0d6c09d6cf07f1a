"""A small grammar whose sentences are easy for a deep student and hard for a shallow one.

Nested relative clauses pair each noun with a verb, the last opened first: "the dogs that the cat
near the boys sees bark". Each verb agrees with its own noun in number; in two thirds of the
sentences one verb does not, and the label says whether it is an inner or the outermost one. To
tell, a model must match nouns and verbs across what stands between them, distractors included.
"""

from __future__ import annotations

import random

LABELS = ("agrees", "inner_disagrees", "outer_disagrees")
_NOUNS = [("dog", "dogs"), ("cat", "cats"), ("boy", "boys"), ("girl", "girls"), ("bird", "birds")]
_VERBS = [("sees", "see"), ("likes", "like"), ("hears", "hear"), ("follows", "follow")]
_PREPOSITIONS = ["near", "behind", "above"]


def generate(rows: int, seed: str) -> list[dict[str, object]]:
    """`rows` sentences with their labels, the same for the same seed."""
    draw = random.Random(seed)
    return [_sentence(draw) for _ in range(rows)]


def _sentence(draw: random.Random) -> dict[str, object]:
    depth = draw.randint(2, 3)
    numbers = [draw.randrange(2) for _ in range(depth)]
    label = draw.randrange(len(LABELS))
    wrong = {0: None, 1: draw.randrange(1, depth), 2: 0}[label]
    words: list[str] = []
    for i, number in enumerate(numbers):
        words += ["that"] * (i > 0) + ["the", draw.choice(_NOUNS)[number]]
        if draw.random() < 0.3:
            words += [draw.choice(_PREPOSITIONS), "the", draw.choice(_NOUNS)[draw.randrange(2)]]
    for i in reversed(range(depth)):
        words.append(draw.choice(_VERBS)[numbers[i] ^ (i == wrong)])
    return {"sentence": " ".join(words), "label": label}
