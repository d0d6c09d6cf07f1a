from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study.cells import listed
from kdsearch.study.parsers import parse_rows
from kdsearch.study.rows import digest_rows
from kdsearch.study.tasks import SPECS, Columns, Row

COLUMNS = {
    "classification": Columns(
        task="classification",
        text=("first", "second"),
        label="class",
        labels=("no", "yes"),
        metric="f1",
    ),
    "ner": Columns(
        task="ner", text=("words",), label="tags", labels=("O", "B-PER", "I-PER"), metric="f1"
    ),
    "qa": Columns(task="qa", text=("question", "context"), label="answers", labels=(), metric="f1"),
    "translation": Columns(
        task="translation",
        text=("translation.de",),
        label="translation.en",
        labels=(),
        metric="bleu",
    ),
    "lm": Columns(task="lm", text=("ask",), label="say", labels=(), metric="likelihood"),
}
CONTEXT = "Ada wrote it, and Ada kept it."
GOOD: dict[str, list[Row]] = {
    "classification": [
        {"first": "a", "second": "", "class": "no"},
        {"first": "c", "second": "d", "class": 1},
    ],
    "ner": [{"words": ["Ada", "wrote"], "tags": ["B-PER", "O"]}],
    "qa": [
        {
            "question": "Who?",
            "context": CONTEXT,
            "answers": {"text": ["Ada"], "answer_start": [18]},
        }
    ],
    "translation": [{"translation": {"de": "Er sagte es .", "en": "He said so ."}}],
    "lm": [
        {"ask": "2 + 3 =", "say": " 5"},
        {"ask": [{"role": "user", "content": "2 + 3?", "name": "Ada"}], "say": "5"},
    ],
}
PARSED: dict[str, list[Row]] = {
    "classification": [{"texts": ["a", ""], "label": 0}, {"texts": ["c", "d"], "label": 1}],
    "ner": [{"words": ["Ada", "wrote"], "tags": [1, 0]}],
    "qa": [{"question": "Who?", "context": CONTEXT, "answers": [{"text": "Ada", "start": 18}]}],
    "translation": [{"source": "Er sagte es .", "target": "He said so ."}],
    "lm": [
        {"prompt": "2 + 3 =", "completion": " 5"},
        {"prompt": [{"role": "user", "content": "2 + 3?"}], "completion": "5"},
    ],
}
TASKS = tuple(COLUMNS)


def parse(task: str, *rows: Row, labelled: bool = True) -> list[Row]:
    return parse_rows("here", list(rows), COLUMNS[task], labelled=labelled)


def problems(task: str, *rows: Row, labelled: bool = True) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse(task, *rows, labelled=labelled)
    return [str(problem) for problem in caught.value.problems]


def changed(task: str, **fields: Any) -> Row:
    """The first good row with other fields."""
    return {**GOOD[task][0], **fields}


# -- any task ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("labelled", [True, False])
def test_good_rows_take_the_form_of_their_task(task: str, labelled: bool) -> None:
    assert parse(task, *GOOD[task], labelled=labelled) == PARSED[task]


@pytest.mark.parametrize("task", TASKS)
def test_parsed_rows_can_be_written_as_json(task: str) -> None:
    assert json.loads(json.dumps(parse(task, *GOOD[task]))) == PARSED[task]


@pytest.mark.parametrize("task", TASKS)
def test_a_split_without_rows_is_refused(task: str) -> None:
    assert problems(task) == ["here: has no rows (a split needs at least one row)"]


@pytest.mark.parametrize("task", TASKS)
def test_every_missing_column_is_named_beside_those_that_are_there(task: str) -> None:
    columns = COLUMNS[task]
    assert problems(task, {"x": 1, "y": 2}) == [
        f"here: has no column {column} (available: x, y)"
        for column in (*columns.text, columns.label)
    ]


@pytest.mark.parametrize(
    ("there", "near"),
    [("Class", "Class"), ("klass", "klass"), (" class", "' class'"), ("classes", "classes")],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_column_of_nearly_the_name_is_suggested(there: str, near: str, labelled: bool) -> None:
    row = {"first": "a", "second": "b", there: 1}
    assert problems("classification", row, labelled=labelled) == [
        f"here: has no column class (available: first, second, {near}; did you mean {near}?)"
    ]


def test_a_column_that_the_study_names_otherwise_is_not_suggested() -> None:
    row = {"translation": {"de": "Ja .", "fr": "Oui ."}}
    assert problems("translation", row) == [
        "here: has no column translation.en (available: translation)"
    ]


def test_a_missing_field_of_a_column_is_named() -> None:
    row = {"translation": {"fr": "Il le dit .", "en": "He said so ."}}
    assert problems("translation", row) == [
        "here: has no column translation.de (available: translation)"
    ]


def test_a_column_whose_own_name_has_a_point_is_read() -> None:
    row = {"translation.de": "Er sagte es .", "translation.en": "He said so ."}
    assert parse("translation", row) == PARSED["translation"]


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
@pytest.mark.parametrize("missing", [None, "", " ", float("nan"), "no such column"])
def test_a_missing_label_is_none_in_training_and_refused_elsewhere(
    task: str, missing: object
) -> None:
    label = COLUMNS[task].label
    rows = [*GOOD[task], changed(task, **{label: missing})]
    if missing == "no such column":
        del rows[-1][label]
    found = parse(task, *rows, labelled=False)
    assert [row[SPECS[task].gold] is None for row in found] == [False] * len(GOOD[task]) + [True]
    [problem] = problems(task, *rows)
    assert problem == f"here: row {len(rows)}: its {label} is missing"


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_training_split_needs_no_labels_at_all_but_their_column(task: str) -> None:
    label = COLUMNS[task].label
    rows = [{name: value for name, value in row.items() if name != label} for row in GOOD[task]]
    empty = [{**row, label: None} for row in rows]
    assert {row[SPECS[task].gold] for row in parse(task, *empty, labelled=False)} == {None}
    assert f"has no column {label}" in problems(task, *rows)[0]
    [problem] = problems(task, *rows, labelled=False)
    assert f"has no column {label}" in problem
    assert "; leave it empty in rows without a label)" in problem


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_labels_may_come_after_many_rows_that_lack_them(task: str) -> None:
    label = COLUMNS[task].label
    bare = {name: value for name, value in GOOD[task][0].items() if name != label}
    found = parse(task, *[bare] * 500, GOOD[task][0], labelled=False)
    assert [row[SPECS[task].gold] is None for row in found] == [True] * 500 + [False]


@pytest.mark.parametrize("target", [None, "", "  "])
def test_a_translation_is_needed_in_training_too(target: object) -> None:
    row = {"translation": {"de": "Er sagte es .", "en": target}}
    what = "missing or not text" if target is None else "empty (leave the row out)"
    assert problems("translation", row, labelled=False) == [
        f"here: row 1: its translation.en is {what}"
    ]


@pytest.mark.parametrize(
    ("task", "column"),
    [("classification", "first"), ("ner", "words"), ("qa", "context"), ("qa", "question")],
)
def test_a_text_with_half_a_character_is_refused(task: str, column: str) -> None:
    text = "half \ud83d"
    row = changed(task, **{column: [text, text] if task == "ner" else text})
    assert f"here: row 1: its {column} holds half a surrogate pair" in problems(task, row)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bad", [1, 2, 3])
def test_of_published_rows_one_in_a_hundred_may_be_bad(task: str, bad: int) -> None:
    empty = dict.fromkeys(GOOD[task][0], "")
    rows = [*[empty] * bad, *GOOD[task] * (200 // len(GOOD[task]) - bad)]
    while len(rows) < 200:
        rows.append(GOOD[task][0])
    if bad <= 2:
        found = parse_rows("here", rows, COLUMNS[task], labelled=True, published=True)
        assert len(found) == 200 - bad
        assert found[0] == PARSED[task][0]
    else:
        with pytest.raises(InputError, match="here: row 1: "):
            parse_rows("here", rows, COLUMNS[task], labelled=True, published=True)
    assert len(problems(task, *rows)) == bad


def test_at_most_five_bad_rows_are_listed_and_the_others_counted() -> None:
    found = problems("ner", *[changed("ner", tags=["O"])] * 100)
    assert len(found) == 6
    assert found[-1] == "here: 95 more rows like these"
    assert problems("ner", *[changed("ner", tags=["O"])] * 6)[-1] == "here: 1 more row like these"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["O", "B-PER", "0", "1", '{"text": 1, "answer_start": 2}', "[", "Ada", CONTEXT]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "answer_start", "de", "en"]), inner, max_size=3)
        | st.fixed_dictionaries({"text": inner, "answer_start": inner})
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data(), labelled=st.booleans())
def test_whatever_the_rows_hold_nothing_but_an_input_error_comes_of_it(
    task: str, data: st.DataObject, labelled: bool
) -> None:
    columns = COLUMNS[task]
    names = sorted({"translation", "other", *columns.text, columns.label})
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(names), JSON), max_size=3))
    if data.draw(st.booleans()):  # only one thing is wrong
        rows = [{**GOOD[task][0], **row} for row in rows]
    with contextlib.suppress(InputError):
        for row in parse(task, *rows, labelled=labelled):
            assert not labelled or row[SPECS[task].gold] is not None
            json.dumps(row, ensure_ascii=False).encode()
            assert SPECS[task].output_rows(row, False) > 0


PINNED: list[tuple[str, dict[str, Any], list[tuple[Any, Any]], str]] = [
    (
        "classification",
        {"labels": ("no", "yes")},
        [
            ("[ 1 ] The film", "yes"),
            (" a\u00a0b ", 0),
            ("c", 1.0),
            ("d", "1"),
            ("e", ""),
            ("f", None),
        ],
        "28ffee0754c30fa6046200df3a681872",
    ),
    (
        "classification",
        {"labels": ("1", "2", "3")},
        [("a", "1"), ("b", 2.0), ("c", "3")],
        "0d3fb31468c3a65b92f7df464d6b5013",
    ),
    (
        "classification",
        {"labels": ("False", "True")},
        [("a", True), ("b", "False")],
        "2c13b91c47f70c550f597194f5320806",
    ),
    (
        "ner",
        {"labels": ("O", "B-PER", "I-PER")},
        [
            (["Ada", "\u200b", "wrote"], ["B-PER", "I-PER", "O"]),
            ("[ Applause ]", "O O O"),
            ('["a","b"]', "[1, 0]"),
            ("Ada [1] it", "1 0 0"),
            ("[1] Ada", [0, 1.0]),
            (np.array(["x", "y z"], dtype=object), np.array([0, 2])),
            ("a\u00a0b c", None),
            ("( Reuters )", "O O O"),
            ("(1, 2)", "O O"),
        ],
        "b0bbac58a6b34fb6cdb5fa2b4e13c139",
    ),
]


@pytest.mark.parametrize(("task", "fields", "cells", "digest"), PINNED)
def test_rows_have_the_digests_that_folders_of_earlier_versions_know(
    task: str, fields: dict[str, Any], cells: list[tuple[Any, Any]], digest: str
) -> None:
    columns = replace(COLUMNS[task], text=("x",), label="y", **fields)
    rows = [{"x": text, "y": label} for text, label in cells]
    assert digest_rows(parse_rows("here", rows, columns, labelled=False)) == digest


# -- classification ----------------------------------------------------------------------------


def test_a_pair_of_empty_sentences_is_refused_and_one_empty_one_is_not() -> None:
    rows = [*GOOD["classification"], {"first": " ", "second": "", "class": 1}]
    assert problems("classification", *rows) == [
        "here: row 3: first and second are empty (leave the row out)"
    ]


def labelled(labels: str, *values: object) -> list[int]:
    """The numbers that values have as labels."""
    columns = replace(COLUMNS["classification"], labels=tuple(labels.split()))
    rows: list[Row] = [{"first": "a", "second": "b", "class": value} for value in values]
    return [row["label"] for row in parse_rows("here", rows, columns, labelled=True)]


def test_a_csv_cell_1_0_is_the_label_1() -> None:
    assert labelled("no yes", "1.0", "0.0", "1", 1.0, "1.00") == [1, 0, 1, 1, 1]
    assert labelled("1 2 3", "1.0", "3.0", 2.0, "2") == [0, 2, 1, 1]


def test_a_label_that_is_called_1_0_is_that_label() -> None:
    assert labelled("1.0 0.0", "1.0", 1.0, "0.0", 0, "1") == [0, 0, 1, 1, 0]
    assert labelled("1 1.0", "1", "1.0", 1, 1.0) == [0, 1, 0, 1]


def test_numbers_of_a_scale_are_names_and_not_places_in_the_list() -> None:
    assert labelled("1.0 2.0 3.0", 1, "2", 3.0) == [0, 1, 2]
    with pytest.raises(InputError, match="unknown label 0 "):
        labelled("1.0 2.0 3.0", 0)


@pytest.mark.parametrize("labels", ["false true", "False True", "FALSE TRUE", "false True"])
def test_true_and_false_are_labels_of_these_names(labels: str) -> None:
    assert labelled(labels, True, False, "true", "False", "TRUE") == [1, 0, 1, 0, 1]


def test_true_is_the_label_of_just_this_name_where_there_are_two() -> None:
    assert labelled("true True", True, "true", "True") == [1, 0, 1]
    with pytest.raises(InputError, match="unknown label 'TRUE'"):
        labelled("true True", "TRUE")


@pytest.mark.parametrize("value", [True, "Yes", "YES", None])
def test_other_labels_are_matched_as_they_are_written(value: object) -> None:
    with pytest.raises(InputError, match=r"unknown label|class is missing"):
        labelled("no yes", value)


@pytest.mark.parametrize("value", [[0, 1, 0], ["no"], np.array([0, 1]), "[0, 1]", "['no']", []])
def test_several_labels_of_a_row_are_told_to_be_no_task(value: object) -> None:
    with pytest.raises(InputError, match="is a list: kdsearch does not handle multi-label data"):
        labelled("no yes", value)


@pytest.mark.parametrize("value", [0.37, "0.37", " -1.5 ", "2.5e-3"])
def test_a_number_with_a_fraction_is_told_to_be_no_task(value: object) -> None:
    with pytest.raises(InputError, match="kdsearch does not do regression"):
        labelled("no yes", value)


# -- ner ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "O"],
        [1, 0],
        [1.0, 0.0],
        "B-PER O",
        "1 0",
        np.array(["B-PER", "O"], dtype=object),
        np.array([1, 0]),
        ("B-PER", "O"),
    ],
)
def test_tags_are_lists_arrays_or_text_of_names_or_numbers(tags: object) -> None:
    assert parse("ner", changed("ner", tags=tags)) == PARSED["ner"]


@pytest.mark.parametrize("words", ["Ada wrote", np.array(["Ada", "wrote"], dtype=object)])
def test_words_are_lists_arrays_or_text(words: object) -> None:
    assert parse("ner", changed("ner", words=words)) == PARSED["ner"]


@pytest.mark.parametrize("tags", [["B-PER"], ["B-PER", "O", "O"], [], "O"])
def test_tags_that_do_not_match_the_words_are_counted(tags: list[str]) -> None:
    count = 1 if isinstance(tags, str) else len(tags)
    assert problems("ner", *GOOD["ner"], changed("ner", tags=tags)) == [
        f"here: row 2: has 2 words in words and {count} tags in tags (each word needs one tag)"
    ]


@pytest.mark.parametrize("tag", ["B-LOC", 3, -1, None, ["O"], True, 0.5])
def test_a_tag_outside_the_list_is_named_beside_the_known_ones(tag: object) -> None:
    assert problems("ner", changed("ner", tags=["B-PER", tag])) == [
        f"here: row 1: unknown tag {tag!r} (available: 0 O, 1 B-PER, 2 I-PER)"
    ]


def test_tags_that_are_no_list_are_refused() -> None:
    assert problems("ner", changed("ner", tags={"B-PER": 1})) == [
        "here: row 1: its tags is not a list (give a list, or text with spaces between words)"
    ]


@pytest.mark.parametrize("words", [[], "", "  "])
def test_a_sentence_without_words_is_refused(words: object) -> None:
    assert problems("ner", changed("ner", words=words, tags=[])) == [
        "here: row 1: has no words (leave the row out)"
    ]


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\u2003", "\t"])
def test_a_blank_word_keeps_its_place_and_its_tag(blank: str) -> None:
    row = changed("ner", words=["Ada", blank, "Byron"], tags=["B-PER", "I-PER", "O"])
    assert parse("ner", row) == [{"words": ["Ada", blank, "Byron"], "tags": [1, 2, 0]}]


@pytest.mark.parametrize("words", [[" "], ["", "\u00a0"]])
def test_a_sentence_of_blank_words_has_none(words: list[str]) -> None:
    assert problems("ner", changed("ner", words=words, tags=["O"] * len(words))) == [
        "here: row 1: has no words (leave the row out)"
    ]


# -- lists in a cell ---------------------------------------------------------------------------

CELL_WORDS = st.lists(
    st.text("ab \"'\\,[]()é\n\u200b😀", max_size=5) | st.sampled_from(["np.str_('a')", "…", "1"]),
    min_size=1,
    max_size=8,
)


@given(words=CELL_WORDS)
def test_a_list_is_read_from_what_python_makes_of_it(words: list[str]) -> None:
    for text in (str(words), f" {words}\n", str([np.str_(word) for word in words])):
        assert listed(text) == words
    assert listed(str(tuple(words))) == words


@given(words=CELL_WORDS)
def test_a_list_is_read_from_what_numpy_makes_of_it(words: list[str]) -> None:
    assert listed(str(np.array(words, dtype=object))) == words
    with np.printoptions(linewidth=20):
        assert listed(str(np.array(words, dtype=object))) == words


@given(numbers=st.lists(st.integers(-20, 2000), min_size=1, max_size=50))
def test_numbers_are_read_from_what_numpy_and_python_make_of_them(numbers: list[int]) -> None:
    assert listed(str(np.array(numbers))) == numbers
    assert listed(str(numbers)) == numbers
    assert listed(str([np.int64(number) for number in numbers])) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "[ 1 ] The film",
        "[1] The film",
        "[ Applause ]",
        "[laughs] I see [pause]",
        "[1] the film [2]",
        "[",
        "The film [ 1 ]",
        "(1, 2)",
        "( Reuters )",
        "('tis true)",
        '("so ?")',
        "['a'",
    ],
)
def test_brackets_among_words_are_words(text: str) -> None:
    assert listed(text) == text.split()


@pytest.mark.parametrize(
    "text",
    [
        "[laughter]",
        "['a', None]",
        "['a' 'b', 'c']",  # Python would make one word of the first two
        "['a''b']",
        "['a', 0.5]",
        "['a' ... 'b']",
        "[['a'], 'b']",
        "[__import__('os')]",
        "['a'), 'b']",
        "[]]",
        "[" + "1" * 5000 + "]",
        "[" + "(" * 5000 + "]",
        "[" + "'a' " * 5000 + "...]",
    ],
)
@pytest.mark.parametrize("column", ["words", "tags"])
def test_what_only_looks_like_a_list_is_refused_with_its_row(text: str, column: str) -> None:
    [problem] = problems("ner", *GOOD["ner"], changed("ner", **{column: text}))
    what = f"here: row 2: its {column} is in brackets, but neither JSON nor a Python list: "
    assert problem.startswith(what)
    assert len(problem) < 300


def test_tags_are_read_from_cells_as_pandas_writes_them() -> None:
    for words, tags in (("['Ada', 'wrote']", "['B-PER', 'O']"), ("['Ada' 'wrote']", "[1 0]")):
        assert parse("ner", changed("ner", words=words, tags=tags)) == PARSED["ner"]


# -- qa ----------------------------------------------------------------------------------------

TWO = [{"text": "Ada", "start": 18}, {"text": "it", "start": 10}]


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Ada", "it"], "answer_start": [18, 10]},
        {"text": np.array(["Ada", "it"], dtype=object), "answer_start": np.array([18, 10])},
        [{"text": "Ada", "answer_start": 18}, {"text": "it", "answer_start": 10.0}],
        np.array(
            [{"text": "Ada", "answer_start": 18}, {"text": "it", "answer_start": 10}], dtype=object
        ),
        '{"text": ["Ada", "it"], "answer_start": [18, 10]}',
        '[{"text": "Ada", "answer_start": 18}, {"text": "it", "answer_start": 10}]',
    ],
)
def test_answers_are_read_in_each_of_their_forms(answers: object) -> None:
    assert parse("qa", changed("qa", answers=answers))[0]["answers"] == TWO


def answered(text: object, start: object) -> Row:
    return changed("qa", answers={"text": [text], "answer_start": [start]})


def test_a_wrong_offset_is_told_with_where_the_answer_is() -> None:
    assert problems("qa", answered("it", 11)) == [
        "here: row 1: its answer 'it' is not at the offset 11, where 't,' is "
        "(the context has it at 10)"
    ]


@pytest.mark.parametrize("start", [-20, -1, 29, 1000])
def test_an_offset_outside_the_context_is_wrong(start: int) -> None:
    [problem] = problems("qa", answered("it", start))
    assert f"is not at the offset {start}" in problem
    assert "the context has it at 10" in problem


def test_an_answer_that_is_nowhere_in_the_context_is_told() -> None:
    assert "(it is nowhere in the context)" in problems("qa", answered("Bob", 0))[0]


@pytest.mark.parametrize("start", [None, "18", 1.5, True, [18]])
def test_an_offset_that_is_no_whole_number_is_refused(start: object) -> None:
    assert problems("qa", answered("Ada", start)) == [
        f"here: row 1: the offset of its answer 'Ada' is {start!r} (give a whole number)"
    ]


NO_ANSWERS = [
    [],
    {"text": [], "answer_start": []},
    "[]",
    {"text": [""], "answer_start": [-1]},
    {"text": ["", " "], "answer_start": [0, 3]},
]


@pytest.mark.parametrize("answers", NO_ANSWERS)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_question_without_an_answer_is_left_out(answers: object, labelled: bool) -> None:
    rows = [changed("qa", answers=answers), *GOOD["qa"]]
    assert parse("qa", *rows, labelled=labelled) == PARSED["qa"]


@pytest.mark.parametrize("answers", NO_ANSWERS)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_question_without_an_answer_is_kept_where_questions_are_unanswerable(
    answers: object, labelled: bool
) -> None:
    columns = replace(COLUMNS["qa"], unanswerable=True)
    rows = [changed("qa", answers=answers), *GOOD["qa"]]
    assert parse_rows("here", rows, columns, labelled=labelled) == [
        {"question": "Who?", "context": CONTEXT, "answers": []},
        *PARSED["qa"],
    ]


def test_a_split_none_of_whose_questions_has_an_answer_is_refused() -> None:
    assert problems("qa", changed("qa", answers=[]), changed("qa", answers=[])) == [
        "here: none of its questions has an answer (set unanswerable: true to keep them)"
    ]


def test_an_empty_text_among_answers_is_none() -> None:
    answers = {"text": ["", "Ada", " "], "answer_start": [0, 18, 3]}
    assert parse("qa", changed("qa", answers=answers)) == PARSED["qa"]


@pytest.mark.parametrize("answers", [[], {"text": ["Ada", ""], "answer_start": [18, 0]}])
def test_published_questions_without_an_answer_stay_bad_rows(answers: object) -> None:
    rows = [changed("qa", answers=answers), *GOOD["qa"] * 99]
    found = parse_rows("here", rows, COLUMNS["qa"], labelled=True, published=True)
    assert found == PARSED["qa"] * 99
    with pytest.raises(InputError, match=r"row 2: .* answer"):
        parse_rows("here", rows[::-1][-2:], COLUMNS["qa"], labelled=True, published=True)


@pytest.mark.parametrize("unanswerable", [True, False])
def test_an_answer_that_is_wrong_is_an_error_beside_those_that_are_none(unanswerable: bool) -> None:
    columns = replace(COLUMNS["qa"], unanswerable=unanswerable)
    rows = [changed("qa", answers=[]), answered("Bob", 0), *GOOD["qa"]]
    with pytest.raises(InputError, match="row 2: its answer 'Bob'"):
        parse_rows("here", rows, columns, labelled=True)


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ("Ada", "its answers are text: 'Ada'"),
        ("[" * 100_000, f"its answers are text: '{'[' * 40}'"),
        ({"text": ["Ada"], "answer_start": []}, "has 1 answers and 0 offsets"),
        ({"text": ["Ada"]}, "its answers are not in SQuAD's form"),
        ({"text": "Ada", "answer_start": 18}, "its answers are not in SQuAD's form"),
        ({"text": None, "answer_start": None}, "its answers are not in SQuAD's form"),
        (["Ada"], "its answers are not in SQuAD's form"),
        (18, "its answers are not in SQuAD's form"),
    ],
)
def test_answers_of_another_form_are_refused_with_the_form_they_need(
    answers: object, what: str
) -> None:
    remedy = 'give {"text": [...], "answer_start": [...]}'
    assert problems("qa", changed("qa", answers=answers)) == [f"here: row 1: {what} ({remedy})"]


@pytest.mark.parametrize("column", ["question", "context"])
def test_an_empty_question_or_context_is_refused(column: str) -> None:
    assert problems("qa", changed("qa", **{column: " \n"})) == [
        f"here: row 1: its {column} is empty (leave the row out)"
    ]


def test_an_answer_in_another_unicode_form_is_told() -> None:
    row = {**changed("qa"), "context": "Jose\u0301 wrote it", "answers": None}
    row["answers"] = {"text": ["Jos\u00e9"], "answer_start": [0]}
    assert (
        "(the context has it in another Unicode form (NFD): write both in the same one)"
        in (problems("qa", row)[0])
    )


def test_answers_are_read_as_pandas_writes_them_into_a_cell() -> None:
    answers = str({"text": ["Ada", "it"], "answer_start": [18, 10]})
    assert parse("qa", changed("qa", answers=answers))[0]["answers"] == TWO


@given(context=st.text(min_size=1), data=st.data())
@example(context="ẞ İ \U0001f600", data=None)
def test_every_stretch_of_a_context_is_an_answer_at_its_offset(
    context: str, data: st.DataObject | None
) -> None:
    start = 0 if data is None else data.draw(st.integers(0, len(context) - 1))
    end = len(context) if data is None else data.draw(st.integers(start + 1, len(context)))
    text = context[start:end]
    row = {
        "question": "?",
        "context": context,
        "answers": {"text": [text], "answer_start": [start]},
    }
    if text.strip():
        assert parse("qa", row)[0]["answers"] == [{"text": text, "start": start}]
    else:
        assert problems("qa", row)
