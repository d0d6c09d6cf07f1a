from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import BILOU, IOBES

from kdsearch.agenda import DataSpec
from kdsearch.study.parsers import parse_rows
from kdsearch.study.tagging import settle_tags
from kdsearch.study.tags import (
    Scheme,
    entities,
    expand_tags,
    follows,
    scheme_of,
    scored_entities,
    to_iob2,
)
from kdsearch.study.tasks import Columns, Row
from kdsearch.tasks.ner import Ner, entity_f1

KINDS = ("PER", "LOC", "art-music")
Span = tuple[str, int]
"""The kind of some words, empty for none, and how many they are."""

# Of one word, and of the first, the inner and the last of several.
SCHEMES: dict[Scheme, tuple[str, str, str, str]] = {
    "IOB2": ("B", "B", "I", "I"),
    "BILOU": ("U", "B", "I", "L"),
    "BIOES": ("S", "B", "I", "E"),
}
PREFIXES: dict[Scheme, str] = {"BILOU": "BILU", "BIOES": "BIES"}
SPANS = st.lists(
    st.tuples(st.sampled_from(["", *KINDS]), st.integers(1, 4)), min_size=1, max_size=6
)


def written(spans: Sequence[Span], scheme: Scheme) -> list[str]:
    """Spans as tags, each word by where it stands in its own."""
    only, first, inner, last = SCHEMES[scheme]
    tags: list[str] = []
    for kind, length in spans:
        prefixes = [only] if length == 1 else [first, *[inner] * (length - 2), last]
        tags += [f"{prefix}-{kind}" if kind else "O" for prefix in prefixes]
    return tags


def as_entities(spans: Sequence[Span]) -> set[tuple[str, int, int]]:
    start, found = 0, set()
    for kind, length in spans:
        if kind:
            found.add((kind, start, start + length))
        start += length
    return found


# -- schemes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@given(spans=SPANS)
def test_a_conversion_to_iob2_keeps_exactly_the_entities(scheme: Scheme, spans: list[Span]) -> None:
    tags = written(spans, scheme)
    assert to_iob2(tags) == written(spans, "IOB2")
    assert set(entities(to_iob2(tags))) == as_entities(spans)
    assert set(scored_entities(tags, scheme)) == as_entities(spans)
    assert follows(tags, scheme)


@given(st.lists(st.sampled_from(["O", *KINDS]), max_size=12), st.sampled_from(["", "I-"]))
def test_each_run_of_a_plain_tag_is_one_entity(tags: list[str], prefix: str) -> None:
    runs = [(kind, len(list(same))) for kind, same in groupby(tags)]
    spans = [("" if kind == "O" else kind, length) for kind, length in runs]
    plain = [tag if tag == "O" else prefix + tag for tag in tags]
    assert to_iob2(plain) == written(spans, "IOB2")
    assert set(scored_entities(plain, "IO")) == as_entities(spans)


@given(st.lists(st.sampled_from(["O", *(f"{p}-{k}" for p in "BIES" for k in "XY")]), max_size=10))
def test_entities_that_no_scheme_allows_survive_a_conversion_too(tags: list[str]) -> None:
    assert list(entities(to_iob2(tags))) == list(entities(tags))


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-PER I-PER", "IOB2"),
        ("I-PER O", "IOB2"),
        ("O", "IOB2"),
        ("O U-PER", "BILOU"),
        ("B-PER L-PER U-LOC I-PER", "BILOU"),
        ("O S-PER", "BIOES"),
        ("B-PER I-PER E-PER O", "BIOES"),
        ("O PER LOC art-music", "IO"),
        ("PER LOC", None),  # nothing is outside: parts of speech?
        ("NOUN VERB", None),
        ("O B-PER U-PER S-PER", None),
        ("O L-PER E-PER", None),
        ("O B-PER LOC", None),
        ("O M-PER E-PER", None),
        ("O B I", None),
        ("O B_PER I_PER", None),
        ("O PER-B PER-I", None),
    ],
)
def test_the_scheme_of_tags_is_recognised_or_none_is(tags: str, scheme: str | None) -> None:
    assert scheme_of(tags.split()) == scheme


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-X O", "BILOU"),
        ("B-X I-X", "BILOU"),
        ("L-X", "BILOU"),
        ("U-X I-X", "BILOU"),
        ("B-X L-Y", "BILOU"),
        ("B-X E-X E-X", "BIOES"),
        ("S-X E-X", "BIOES"),
    ],
)
def test_tags_that_break_off_do_not_follow_their_scheme(tags: str, scheme: Scheme) -> None:
    assert not follows(tags.split(), scheme)


def test_kinds_of_entity_are_expanded_and_tags_are_not() -> None:
    assert expand_tags(("PER", "LOC")) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert expand_tags(("O", "B-PER")) == ("O", "B-PER")
    assert expand_tags(("B-PER", "I-PER")) == ("B-PER", "I-PER")


# -- scores in a given teacher's scheme --------------------------------------------------------


@pytest.mark.parametrize(("scheme", "theirs"), [("BILOU", BILOU), ("BIOES", IOBES)])
@given(data=st.data())
def test_the_f1_of_a_scheme_is_that_of_seqeval_for_whatever_is_predicted(
    scheme: Scheme, theirs: Any, data: st.DataObject
) -> None:
    tags = ["O", *(f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in ("X", "Y"))]
    pair = st.tuples(st.sampled_from(tags), st.sampled_from(tags))
    sentences = data.draw(st.lists(st.lists(pair, min_size=1, max_size=10), min_size=1, max_size=4))
    predicted = [[tag for tag, _ in pairs] for pairs in sentences]
    gold = [[tag for _, tag in pairs] for pairs in sentences]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no entity at all
        expected = f1_score(gold, predicted, mode="strict", scheme=theirs)
    found = entity_f1(zip(predicted, gold, strict=True), scheme)
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (("O", "B-X", "I-X"), "IOB2"),
        (("O", "B-X", "I-X", "L-X", "U-X"), "BILOU"),
        (("B-X", "I-X", "E-X", "S-X", "O"), "BIOES"),
        (("X", "O"), "IO"),
    ],
)
def test_the_signature_names_the_scheme(labels: tuple[str, ...], scheme: str) -> None:
    data = DataSpec(task="ner", metric="f1", labels=labels, train="", validation="", test="")
    assert Ner().signature(data) == f"micro F1 of entities, {scheme}"


# -- the labels of a data set ------------------------------------------------------------------


def columns_of(labels: str = "", metric: str = "f1") -> Columns:
    known = expand_tags(tuple(labels.split())) if labels else ()
    return Columns(task="ner", text=("w",), label="t", labels=known, metric=metric)


def rows_of(*sentences: str) -> list[Row]:
    return [{"w": ["x"] * len(tags.split()), "t": tags.split()} for tags in sentences]


def read(rows: list[Row], columns: Columns, *given: str) -> tuple[Columns, list[list[str]]]:
    """The columns and the tags of each row by their names."""
    settled, wrong = settle_tags([rows], columns, [tuple(labels.split()) for labels in given])
    assert wrong is None, wrong
    parsed = parse_rows("here", rows, settled, labelled=True)
    return settled, [[settled.labels[tag] for tag in row["tags"]] for row in parsed]


IOB = rows_of("B-PER I-PER O B-LOC", "B-LOC B-LOC O")
OTHERS = {
    "BILOU": rows_of("B-PER L-PER O U-LOC", "U-LOC U-LOC O"),
    "BIOES": rows_of("B-PER E-PER O S-LOC", "S-LOC S-LOC O"),
}


@pytest.mark.parametrize("scheme", OTHERS)
def test_tags_of_another_scheme_give_the_rows_of_iob2(scheme: str) -> None:
    expected, tags = read(IOB, columns_of())
    found, converted = read(OTHERS[scheme], columns_of())
    assert expected.written == ()
    assert (found.labels, converted) == (expected.labels, tags)
    assert (found.scheme, found.written != ()) == (scheme, True)


@pytest.mark.parametrize("scheme", OTHERS)
def test_kinds_that_a_study_names_are_those_of_tags_in_any_scheme(scheme: str) -> None:
    found, tags = read(OTHERS[scheme], columns_of("PER LOC"))
    assert found.labels == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert tags == [row["t"] for row in IOB]


def test_numbers_of_tags_of_another_scheme_are_converted_by_their_names() -> None:
    names = "O B-PER I-PER L-PER U-PER U-LOC"
    rows: list[Row] = [{"w": ["a"] * 4, "t": [1, 3, 0, 5]}, {"w": ["a"] * 2, "t": [5, 5]}]
    found, tags = read(rows, columns_of(names))
    assert found.labels == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert tags == [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC"]]


@pytest.mark.parametrize("labels", ["", "O PER LOC", "PER LOC"])
def test_plain_tags_are_made_into_entities_by_their_runs(labels: str) -> None:
    found, tags = read(rows_of("PER PER O LOC", "LOC PER O"), columns_of(labels))
    assert found.scheme == "IO"
    assert tags == [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-PER", "O"]]


def test_a_kind_that_the_study_does_not_name_is_told() -> None:
    columns, _ = settle_tags([rows_of("U-ORG O")], columns_of("PER"))
    with pytest.raises(Exception, match=r"its tags make B-ORG in IOB2 \(available: O, B-PER"):
        parse_rows("here", rows_of("U-ORG O"), columns, labelled=True)


@pytest.mark.parametrize(
    ("tags", "unlike"),
    [
        ("B-PER U-PER S-PER O", "U-PER, S-PER"),
        ("NOUN VERB", "NOUN, VERB"),
        ("B-PER LOC O", "LOC"),
        ("B_PER O", "B_PER"),
    ],
)
def test_tags_of_no_scheme_are_named(tags: str, unlike: str) -> None:
    _, wrong = settle_tags([rows_of(tags)], columns_of())
    assert wrong is not None
    named = wrong[0].removeprefix("the F1 of entities needs tags in IOB2, and these are not: ")
    assert sorted(named.split(", ")) == sorted(unlike.split(", "))


@pytest.mark.parametrize("tags", ["U-PER O", "PER O", "NOUN VERB", "B-PER LOC"])
def test_for_the_accuracy_over_words_tags_stay_as_they_are(tags: str) -> None:
    found, names = read(rows_of(tags), columns_of(metric="accuracy"))
    assert (names, found.written) == ([tags.split()], ())


# -- a given teacher's labels ------------------------------------------------------------------

NINE = "O B-MISC I-MISC B-PER I-PER B-ORG I-ORG B-LOC I-LOC"


def test_a_given_teachers_labels_are_taken_where_they_include_those_of_the_data() -> None:
    found, tags = read(IOB, columns_of(), NINE, NINE)
    assert sorted(found.labels) == sorted(NINE.split())
    assert tags == [row["t"] for row in IOB]
    converted, same = read(OTHERS["BILOU"], columns_of(), NINE)
    assert (converted.labels, same) == (found.labels, tags)


@pytest.mark.parametrize(
    "given_labels",
    [
        ("O B-PER I-PER",),  # lacks some
        (NINE, "O B-PER I-PER B-LOC I-LOC"),  # do not agree
        ("O B-PER I-PER L-PER U-PER B-LOC I-LOC L-LOC U-LOC",),  # of another scheme
    ],
)
def test_a_given_teachers_labels_are_not_taken_otherwise(given_labels: tuple[str, ...]) -> None:
    expected, _ = read(IOB, columns_of())
    assert read(IOB, columns_of(), *given_labels)[0].labels == expected.labels


def test_labels_that_the_study_names_stay_whatever_a_teacher_has() -> None:
    assert read(IOB, columns_of("PER LOC"), NINE)[0].labels == expand_tags(("PER", "LOC"))


BILOU_TAGS = "O B-PER I-PER L-PER U-PER B-LOC I-LOC L-LOC U-LOC"


@pytest.mark.parametrize("labels", ["", BILOU_TAGS])
def test_tags_stay_in_the_scheme_of_a_given_teacher(labels: str) -> None:
    found, tags = read(OTHERS["BILOU"], columns_of(labels), BILOU_TAGS)
    assert sorted(found.labels) == sorted(BILOU_TAGS.split())
    assert tags == [row["t"] for row in OTHERS["BILOU"]]
    assert found.written == ()


def test_tags_that_are_not_in_the_scheme_of_their_labels_are_refused() -> None:
    columns, wrong = settle_tags([IOB], columns_of(BILOU_TAGS), [tuple(BILOU_TAGS.split())])
    assert wrong is None
    with pytest.raises(Exception, match=r"row 1: its tags are not in BILOU: \['B-PER', 'I-PER'"):
        parse_rows("here", IOB, columns, labelled=True)


def test_a_given_teachers_case_is_that_of_the_data() -> None:
    found, _ = read(IOB, columns_of(), "O B-per I-per B-loc")
    assert found.labels == ("O", "B-LOC", "B-PER", "I-PER")


# -- which tags there are ----------------------------------------------------------------------


def test_tags_are_collected_from_all_splits_with_that_of_no_entity_first() -> None:
    splits: list[list[Row]] = [
        [{"t": ["I-PER", "B-PER"]}, {"t": None}, {}],
        [{"t": "O B-LOC"}, {"t": np.array(["I-LOC"], dtype=object)}],
    ]
    for order in (splits, splits[::-1]):
        columns, wrong = settle_tags(order, columns_of())
        assert (columns.labels, wrong) == (("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), None)


@pytest.mark.parametrize("tags", [[0, 1], "0 1", np.array([0, 1]), np.int64(1), None, 5, ["1"]])
def test_numbers_name_no_tags(tags: object) -> None:
    columns, wrong = settle_tags([[{"t": tags}, {"t": None}]], columns_of())
    assert columns.labels == ()
    assert wrong == ("its tags have no names", "name them in order: labels: [O, B-PER, ...]")
