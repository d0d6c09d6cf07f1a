"""Schemes of tags for spans of words: which one some tags are in, their entities, and IOB2.

    IOB2    B-X begins an entity of the kind X, I-X continues it, O is none
    BILOU   also L-X, the last word of several, and U-X, the only one
    BIOES   the same with E-X and S-X
    IO      X itself, or I-X: each run of a kind is one entity

An entity is read wherever a tag lets one begin, as conlleval and seqeval do: an I-X that continues
no X begins one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

OUTSIDE = "O"
Scheme = Literal["IOB2", "BILOU", "BIOES", "IO"]
Entity = tuple[str, int, int]
"""Its kind, its first word and the word behind its last."""

_PREFIXED = re.compile(r"([BILUES])-", re.A)
_ODDLY_PREFIXED = re.compile(r"[BILOUESMW]([-_/:.|].*)?|.*[-_/:.|][BILOUESMW]", re.A | re.S)
"""Tags that say where in an entity they stand, but not as B-X does: B, B_PER, PER-B, M-PER."""
_ENDING: dict[Scheme, tuple[str, str]] = {
    "BILOU": ("L", "U"),
    "BIOES": ("E", "S"),
}
"""Of the schemes that mark an entity's end: how one of several words ends, and one of one word."""


def scheme_of(tags: Iterable[str]) -> Scheme | None:
    """The scheme that all of `tags` are in, the one that says least; None if there is none.

    Plain tags are IO only beside the tag O: without it they are no entities but, say, parts of
    speech.
    """
    kinds = set(tags) - {OUTSIDE}
    prefixes = {found[1] for tag in kinds if (found := _PREFIXED.match(tag))}
    if not prefixes:
        plain = bool(kinds) and OUTSIDE in tags and not any(map(_ODDLY_PREFIXED.fullmatch, kinds))
        return "IO" if plain else None if kinds else "IOB2"
    if not all(map(_PREFIXED.match, kinds)):
        return None
    known: tuple[tuple[Scheme, str], ...] = (("IOB2", "BI"), ("BILOU", "BILU"), ("BIOES", "BIES"))
    return next((scheme for scheme, letters in known if prefixes <= set(letters)), None)


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of a sentence in any scheme of tags with prefixes, in their order."""
    kind, start = None, 0
    for position, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        if kind is not None and (prefix not in ("I", "L", "E") or name != kind):
            yield kind, start, position
            kind = None
        if kind is None and tag != OUTSIDE:
            kind, start = name, position
        if kind is not None and prefix in ("L", "E", "U", "S"):
            yield kind, start, position + 1
            kind = None


def scored_entities(tags: Sequence[str], scheme: Scheme) -> Iterator[Entity]:
    """The entities that count in a score.

    Where a scheme marks ends, only those that it allows do, as in seqeval's strict mode.
    """
    for entity in entities(_in_prefixes(tags) if scheme == "IO" else tags):
        if _whole(tags[entity[1] : entity[2]], scheme):
            yield entity


def follows(tags: Sequence[str], scheme: Scheme) -> bool:
    """Whether all entities in the tags of a sentence end as `scheme` says, where it says how."""
    ends = scheme in _ENDING
    return not ends or all(_whole(tags[start:end], scheme) for _, start, end in entities(tags))


def _whole(tags: Sequence[str], scheme: Scheme) -> bool:
    """Whether the tags of an entity are those that `scheme` has for one of so many words."""
    if scheme not in _ENDING:
        return True
    last, only = _ENDING[scheme]
    first = only if len(tags) == 1 else "B"
    return tags[0][0] == first and (len(tags) == 1 or tags[-1][0] == last)


def to_iob2(tags: Sequence[str]) -> list[str]:
    """The tags of a sentence in any of the schemes as IOB2, with exactly the same entities."""
    converted = [OUTSIDE] * len(tags)
    for kind, start, end in entities(_in_prefixes(tags)):
        converted[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return converted


def _in_prefixes(tags: Sequence[str]) -> list[str]:
    """Plain tags as I-X, others as they are."""
    return [tag if tag == OUTSIDE or _PREFIXED.match(tag) else f"I-{tag}" for tag in tags]


def expand_tags(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of ner: as they are, or made of the kinds of entity: PER → O, B-PER, I-PER."""
    if OUTSIDE in labels or any(label.startswith(("B-", "I-")) for label in labels):
        return labels
    return _iob2_of(labels)


def iob2_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """O, and B-X and I-X of each kind that the tags in `labels` are of, whatever their scheme."""
    kinds = (tag.partition("-")[2] for tag in _in_prefixes(labels) if tag != OUTSIDE)
    return _iob2_of(dict.fromkeys(kinds))


def _iob2_of(kinds: Iterable[str]) -> tuple[str, ...]:
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))


def in_order(tags: Collection[str]) -> tuple[str, ...]:
    """The labels of a data set whose study does not name them: O first, then by kind."""
    return (OUTSIDE, *sorted({*tags} - {OUTSIDE}, key=lambda tag: (tag[2:], tag)))
