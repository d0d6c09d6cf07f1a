"""Sentences of a small grammar that a bigger model really labels better than a smaller one.

    sentence  = clause, or clause "and" sentence, or clause "but" sentence
    clause    = "the" NOUN "is" ["not"] ["very"] ADJECTIVE

An adjective is worth +1 or −1, "very" doubles it, "not" turns it round. "and" adds clauses up;
"but" discards what stands before it. The label is the sign of the whole. A bag of words goes only
so far: "not" acts on its own clause and "but" on all before it, so that attention in several
layers helps.
"""

from __future__ import annotations

import random

LABELS = ("negative", "neutral", "positive")
GOOD = ("good", "kind", "bright", "calm", "clean", "clever", "fresh", "funny")
BAD = ("bad", "cruel", "dull", "noisy", "dirty", "silly", "stale", "boring")
NOUNS = ("dog", "cat", "boy", "girl", "song", "film", "book", "garden")


def generate(rows: int, seed: str, noise: float = 0.0) -> list[dict[str, object]]:
    """`rows` sentences with their labels, the same for the same seed.

    A share `noise` of the labels is drawn at random instead.
    """
    draw = random.Random(seed)
    found = [_sentence(draw) for _ in range(rows)]
    for row in found:
        if draw.random() < noise:
            row["label"] = draw.randrange(len(LABELS))
    return found


def _sentence(draw: random.Random) -> dict[str, object]:
    words: list[str] = []
    value = 0
    for position in range(draw.randint(1, 3)):
        if position:
            joint = draw.choice(("and", "and", "but"))
            words.append(joint)
            value = 0 if joint == "but" else value
        negated, doubled = draw.random() < 0.4, draw.random() < 0.3
        good = draw.random() < 0.5
        words += ["the", draw.choice(NOUNS), "is"]
        words += ["not"] * negated + ["very"] * doubled + [draw.choice(GOOD if good else BAD)]
        value += (1 if good else -1) * (-1 if negated else 1) * (2 if doubled else 1)
    return {"sentence": " ".join(words), "label": 1 + (value > 0) - (value < 0)}
