"""Rows of small grammars, one for each task, that a bigger model really learns better.

Every row follows from the seed; no text is taken from any real data set. Each grammar has an easy
part, which a tiny model learns, and a part that needs more than a word and its neighbours, for
which attention in several layers helps.

classification: the sentiment of a sentence.

    sentence  = clause, or clause "and" sentence, or clause "but" sentence
    clause    = "the" NOUN "is" ["not"] ["very"] ADJECTIVE

An adjective is worth +1 or −1, "very" doubles it, "not" turns it round. "and" adds clauses up;
"but" discards what stands before it. The label is the sign of the whole. A bag of words goes only
so far: "not" acts on its own clause and "but" on all before it.

ner: the people and the places of a sentence.

    sentence  = clause, or clause "while" clause
    clause    = list VERB [list] [PREPOSITION name]
    list      = item, or item "and" item
    item      = name, or "the" SURNAME
    name      = FORENAME, or SURNAME, or FORENAME SURNAME

Every name may be a person's or a place's. A preposition settles it for the name behind it; a
verb settles it for all of its subjects and, often differently, for all of its objects. After
"the" a surname is an ordinary word.

qa: the words of a context that answer a question.

    context   = two or three clauses, each about another person
    clause    = PERSON VERB ["not" thing "but"] thing "."
    thing     = "the" [ADJECTIVE] NOUN, after "is" with "in" before it
    question  = ("where is" or "what has" or "what eats") PERSON "?", or "who" VERB thing "?"

Where one clause only has the verb that is asked for, the verb finds the answer; else the person
or the thing has to be found again. What follows "not" is never the answer.

translation: a sentence in an invented language.

    sentence  = phrase MODAL ["not"] [ADVERB] VERB [phrase] ["in" phrase]
    phrase    = ("the" or "a") [ADJECTIVE] NOUN

The language says the negation first, then subject, place, object, adverb, verb and modal; "in"
stands behind its place, an adjective behind its noun, and an article agrees with the gender of
its noun, which only the noun itself tells.

lm: the same sentence with "=" behind it as a prompt, and its translation as the completion.

image_classification: the shape in a small image; see `grammar_images`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kdsearch.study.grammar_images import any_shape, drawn_shape

Row = dict[str, Any]

LABELS = ("negative", "neutral", "positive")
GOOD = ("good", "kind", "bright", "calm", "clean", "clever", "fresh", "funny")
BAD = ("bad", "cruel", "dull", "noisy", "dirty", "silly", "stale", "boring")
NOUNS = ("dog", "cat", "boy", "girl", "song", "film", "book", "garden")

KINDS = ("PER", "LOC")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
FORENAMES = ("jordan", "paris", "austin", "florence", "chelsea", "georgia", "victoria", "lincoln")
SURNAMES = ("hill", "lake", "park", "stone", "field", "wood")
# What the subjects of a verb are, and its objects if it has any.
VERBS = {
    "laughed": ("PER", None),
    "slept": ("PER", None),
    "flooded": ("LOC", None),
    "grew": ("LOC", None),
    "met": ("PER", "PER"),
    "thanked": ("PER", "PER"),
    "visited": ("PER", "LOC"),
    "left": ("PER", "LOC"),
    "attracted": ("LOC", "PER"),
    "sheltered": ("LOC", "PER"),
    "bordered": ("LOC", "LOC"),
    "outgrew": ("LOC", "LOC"),
}
PREPOSITIONS = {"in": "LOC", "near": "LOC", "with": "PER", "like": "PER"}

PEOPLE = ("anna", "ben", "clara", "david")
# Each verb of a fact and what may follow it.
FACTS = {
    "is": ("garden", "kitchen", "cellar", "tower"),
    "has": ("ball", "lamp", "key", "drum"),
    "eats": ("bread", "soup", "rice", "fish"),
}
LOOKS = ("old", "red", "small", "dark")


def _pairs(words: str, said: str) -> dict[str, str]:
    return dict(zip(words.split(), said.split(), strict=True))


# The words of the translation, each with the language's word for it.
MASCULINE = _pairs("dog farmer river tree", "tarok grend vod lombi")
FEMININE = _pairs("king bird child house", "belun sipa momi kasul")
QUALITIES = _pairs("big small red old young quiet", "ogru miki rosk velt junna shil")
WITH_OBJECT = _pairs("see find love follow carry", "vidar trovi amek segun portu")
WITHOUT_OBJECT = _pairs("sleep sing wait", "dormo kanti esper")
ADVERBS = _pairs("often soon again", "oftal bal rit")
MODALS = _pairs("will can", "vu ken")
PARTICLES = _pairs("not in", "ne onda")
NOUN_WORDS = MASCULINE | FEMININE
VERB_WORDS = WITH_OBJECT | WITHOUT_OBJECT
LEXICON = NOUN_WORDS | QUALITIES | VERB_WORDS | ADVERBS | MODALS | PARTICLES
# The language's articles before a masculine and before a feminine noun.
ARTICLES = {"the": ("lo", "ra"), "a": ("um", "im")}


def generate(rows: int, seed: str, noise: float = 0.0, task: str = "classification") -> list[Row]:
    """`rows` rows of `task` with their labels, the same for the same seed.

    A share `noise` of the rows is labelled at random instead.
    """
    draw = random.Random(seed)
    make, relabel = GRAMMARS[task]
    found = [make(draw) for _ in range(rows)]
    for row in found:
        if draw.random() < noise:
            relabel(row, draw)
    return found


# -- classification ----------------------------------------------------------------------------


def _sentence(draw: random.Random) -> Row:
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


def _any_label(row: Row, draw: random.Random) -> None:
    row["label"] = draw.randrange(len(LABELS))


# -- ner ---------------------------------------------------------------------------------------


def _tagged(draw: random.Random) -> Row:
    pairs: list[tuple[str, str]] = []
    for position in range(draw.randint(1, 2)):
        pairs += [("while", "O")] * (position > 0)
        verb = draw.choice(list(VERBS))
        subject, object_ = VERBS[verb]
        pairs += [*_list(draw, subject), (verb, "O")]
        pairs += _list(draw, object_) if object_ else []
        if draw.random() < 0.3:
            preposition = draw.choice(list(PREPOSITIONS))
            pairs += [(preposition, "O"), *_name(draw, PREPOSITIONS[preposition])]
    return {"tokens": [word for word, _ in pairs], "ner_tags": [tag for _, tag in pairs]}


def _list(draw: random.Random, kind: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for position in range(draw.choice((1, 1, 2))):
        pairs += [("and", "O")] * (position > 0)
        if draw.random() < 0.15:
            pairs += [("the", "O"), (draw.choice(SURNAMES), "O")]
        else:
            pairs += _name(draw, kind)
    return pairs


def _name(draw: random.Random, kind: str) -> list[tuple[str, str]]:
    words = draw.choice(((FORENAMES,), (FORENAMES,), (SURNAMES,), (FORENAMES, SURNAMES)))
    return [(draw.choice(some), f"{'I' if at else 'B'}-{kind}") for at, some in enumerate(words)]


def _any_kinds(row: Row, draw: random.Random) -> None:
    """Every name keeps its words; whether it is a person's or a place's is drawn."""
    kind = ""
    tags: list[str] = row["ner_tags"]
    for at, tag in enumerate(tags):
        if tag != "O":
            kind = draw.choice(KINDS) if tag.startswith("B") else kind
            tags[at] = f"{tag[0]}-{kind}"


# -- qa ----------------------------------------------------------------------------------------


def _asked(draw: random.Random) -> Row:
    words: list[str] = []
    facts: list[tuple[str, str, int, list[str], int]] = []
    people = draw.sample(PEOPLE, draw.choice((2, 2, 3)))
    nouns = {verb: draw.sample(some, len(some)) for verb, some in FACTS.items()}
    verbs = draw.sample(list(FACTS), len(FACTS))
    if draw.random() < 0.2:
        verbs[1] = verbs[0]
    denied = draw.randrange(4)
    for at, person in enumerate(people):
        verb = verbs[at]
        thing = _thing(draw, nouns[verb].pop())
        joint = ["in", "the"] if verb == "is" else ["the"]
        subject = len(words)
        words += [person, verb]
        if at == denied:
            # What is not true of this person may be true of another.
            others = [noun for noun in FACTS[verb] if noun != thing[-1]]
            words += ["not", *joint, *_thing(draw, draw.choice(others)), "but"]
        words += joint
        facts.append((person, verb, subject, thing, len(words)))
        words += [*thing, "."]
    person, verb, subject, thing, object_ = draw.choice(facts)
    if draw.random() < 0.5:
        question = ["where" if verb == "is" else "what", verb, person]
        answer = _span(words, object_, len(thing))
    else:
        question = ["who", verb, *(["in"] * (verb == "is")), "the", *thing]
        answer = _span(words, subject, 1)
    return {
        "question": " ".join([*question, "?"]),
        "context": " ".join(words),
        "answers": answer,
    }


def _thing(draw: random.Random, noun: str) -> list[str]:
    return [draw.choice(LOOKS), noun] if draw.random() < 0.25 else [noun]


def _span(words: list[str], start: int, length: int) -> dict[str, Any]:
    before = sum(len(word) + 1 for word in words[:start])
    return {"text": [" ".join(words[start : start + length])], "answer_start": [before]}


def _any_span(row: Row, draw: random.Random) -> None:
    words = row["context"].split()
    length = draw.randint(1, 2)
    row["answers"] = _span(words, draw.randrange(len(words) - length), length)


# -- translation -------------------------------------------------------------------------------


def _translated(draw: random.Random) -> Row:
    subject, subject_said = _phrase(draw)
    modal = draw.choice(list(MODALS))
    negation = ["not"] * (draw.random() < 0.4)
    adverb = [draw.choice(list(ADVERBS))] * (draw.random() < 0.3)
    verb = draw.choice(list(VERB_WORDS))
    object_, object_said = _phrase(draw) if verb in WITH_OBJECT else ([], [])
    place, place_said = _phrase(draw) if draw.random() < 0.25 else ([], [])
    into = ["in"] * bool(place)
    source = [*subject, modal, *negation, *adverb, verb, *object_, *into, *place]
    target = [*_said(negation), *subject_said, *place_said, *_said(into), *object_said]
    target += _said([*adverb, verb, modal])
    return {"source": " ".join(source), "target": " ".join(target)}


def _phrase(draw: random.Random) -> tuple[list[str], list[str]]:
    """An article, an adjective or none and a noun, here and in the language."""
    article, noun = draw.choice(list(ARTICLES)), draw.choice(list(NOUN_WORDS))
    adjective = [draw.choice(list(QUALITIES))] * (draw.random() < 0.5)
    said = [ARTICLES[article][noun in FEMININE], *_said([noun, *adjective])]
    return [article, *adjective, noun], said


def _said(words: list[str]) -> list[str]:
    return [LEXICON[word] for word in words]


def _any_words(row: Row, draw: random.Random) -> None:
    words = list(LEXICON.values())
    row["target"] = " ".join(draw.choice(words) for _ in row["target"].split())


# -- language modelling ------------------------------------------------------------------------


def _prompted(draw: random.Random) -> Row:
    """A translation, asked for and given."""
    row = _translated(draw)
    return {"prompt": f"{row['source']} =", "completion": f" {row['target']}"}


def _any_completion(row: Row, draw: random.Random) -> None:
    words = list(LEXICON.values())
    row["completion"] = "".join(f" {draw.choice(words)}" for _ in row["completion"].split())


# How a row of each task is made, and how it is labelled at random.
GRAMMARS: dict[str, tuple[Callable[[random.Random], Row], Callable[[Row, random.Random], None]]] = {
    "classification": (_sentence, _any_label),
    "ner": (_tagged, _any_kinds),
    "qa": (_asked, _any_span),
    "translation": (_translated, _any_words),
    "lm": (_prompted, _any_completion),
    "image_classification": (drawn_shape, any_shape),
}
