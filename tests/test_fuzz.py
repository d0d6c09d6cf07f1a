"""Malformed studies and data files, from seeds: success, or words that name the place.

20,500 in `make test-all`, a tenth of them otherwise.
"""

from __future__ import annotations

import copy
import gzip
import json
import lzma
import math
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import portion
from fakes import a_study
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import case_counts
from kdsearch.errors import InputError
from kdsearch.study import Study, load_study, parse_study, shipped_studies, space_of
from kdsearch.study import test_cases as cases_of
from kdsearch.study.rows import digest_rows, read_dataset
from kdsearch.study.schema import Dataset

TREES, TEXTS, GENERATED = portion(4_000, 400), portion(4_000, 400), portion(500, 50)
"""Malformed studies: of changed trees, of changed text, and of what hypothesis makes up."""
FILES, BYTES = portion(6_500, 650), portion(5_500, 550)
"""Malformed data files: of changed rows, and of changed bytes."""
SECONDS = 20
"""For one input, on a machine however busy: what takes longer hangs."""


@contextmanager
def no_hang() -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        pytest.fail(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_words(error: InputError, *places: str) -> None:
    """Whether every problem names one of `places`, in words of a bearable length."""
    assert error.problems
    for problem in error.problems:
        assert any(place in problem.place for place in places), problem
        assert problem.what.strip(), problem
        assert len(str(problem)) < 5_000, str(problem)[:1_000]


# -- studies -----------------------------------------------------------------------------------


class Raw(str):
    """Text that stands in the file as it is: an alias, a tag, a date."""


def written(value: object) -> str:
    """A tree as YAML in flow style, which says exactly what the tree holds."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        escaped = (
            c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}"
            for c in value
        )
        return f'"{"".join(escaped)}"'
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return repr(value)


def own_files(task: str, **fields: Any) -> dict[str, Any]:
    return {"task": task, "files": {"train": "a.csv", "test": "b.jsonl"}, **fields}


SHIPPED = {name: path.read_text() for name, path in shipped_studies().items()}
BASES: list[dict[str, Any]] = [
    a_study(),
    a_study(
        seeds=[1, 2],
        winner_seeds=[1, 3],
        erm=True,
        keep_students="all",
        tries=3,
        resources={"cpus": 2, "gpus": 1},
    ),
    a_study(
        datasets={
            "c": own_files("classification", text=["a", "b"], label="l", labels=["x", "y"]),
            "n": own_files("ner", text="words", label="tags", metric="accuracy"),
            "q": own_files("qa", max_length=64, limit={"train": 10}),
            "t": own_files("translation", text="de", label="en", languages=["de_DE", "en_XX"]),
            "mrpc": {"limit": {"train": 5, "validation": 5, "test": 5}},
        },
        models={
            "big": "./big",
            "small": {"hub": "google/small", "revision": "0123abcd"},
            "tiny": {"config": {"model_type": "bert", "layers": [1, 2]}, "tokenizer": "big"},
        },
        teachers={
            "given": {"checkpoint": "big", "labels": ["y", "x"]},
            "two": {"t_hs": "big", "t_ll": "small"},
            "big": {"model": "big", "fine_tune": {"learning_rate": [1e-5], "epochs": 2}},
        },
        students={"half": {"model": "small", "layers": 3}, "tiny": {"model": "tiny"}},
        test_cases=[
            {"dataset": ["c", "n"], "teacher": "given"},
            {"dataset": "t", "student": "tiny"},
        ],
        training={
            "epochs": 1,
            "stride": 8,
            "beams": 2,
            "hidden_dtype": "bf16",
            "cache": "hidden",
            "adam": {"betas": [0.9, 0.99], "epsilon": 1e-6},
            "schedule": "linear",
            "warmup": 0.1,
            "clip": 1.0,
        },
    ),
]


NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, -0.0, 1e-320, 1e308),
    *(math.nan, math.inf, -math.inf, Raw("1e400"), Raw("1" * 10_000), Raw("0x" + "f" * 900)),
    *("", " ", "x" * 5_000, "\x00", "a\nb", "\u202e", "\ud800", "\udfff", "\U0001f600", "é" * 90),
    *("..", ".", "/etc/passwd", "../../x", "C:\\x", "a/b", "~nobody-here/x", "nan", "1e-5", "<b>"),
    *([], {}, [[]], [None], [[[[1]]]], {"a": {"b": []}}, [1, "a", None], ["a", "a"], {"": ""}),
    *(Raw(text) for text in ("2024-01-01", "2024-01-01 10:00:00", "0b11", "010", "1_000", "1:30")),
    *(Raw(text) for text in ("~", "yes", "off", "=", "<<", "*base", "*nowhere", "!!binary aGk=")),
    *(Raw(text) for text in ("!!set {a, b}", "!!bool x", '!!int ""', '!!float ""', "!!int x")),
    *(Raw(text) for text in ("!!timestamp x", "!!python/name:os.system", "!!omap [a: 1]", "!x y")),
    *(
        Raw(text)
        for text in ("&a [*a]", "{<<: *base}", "{<<: [*base, *base]}", "{<<: 1}", "{? [a]}")
    ),
    *(Raw("[" * depth + "]" * depth) for depth in (20, 400)),
    *(Raw("{a: " * depth + "1" + "}" * depth) for depth in (20,)),
    *([number] * 300 for number in (1, "big")),
    list(range(1, 400)),
]
NAMES = [
    "",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a\nb",
    "x" * 300,
    "\x00",
    "\ud800",
    "\u202e",
    "1",
    "Ж" * 100,
]


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree: a container, and the key or index in it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += spots(value)
    return found


def misspelt(key: str, draw: random.Random) -> str:
    at = draw.randrange(len(key))
    swapped = key[:at] + key[at + 1 : at + 2] + key[at] + key[at + 2 :]
    return draw.choice(
        [key[:at] + key[at + 1 :], key + "s", key.upper(), swapped, f"{key} ", "zzz"]
    )


def change(tree: dict[str, Any], draw: random.Random) -> None:
    """One change of a tree, in place."""
    container, key = draw.choice(spots(tree) or [(tree, "name")])
    kind = draw.randrange(8)
    if kind <= 3 or (isinstance(container, list) and kind in (5, 6)):
        container[key] = copy.deepcopy(draw.choice(NASTY))
    elif kind == 4:
        del container[key]
    elif kind == 5:
        new = draw.choice(NAMES) if draw.random() < 0.4 else misspelt(key or "name", draw)
        container[new] = container.pop(key)
    elif kind == 6:
        container[draw.choice(["zzz", "name", "seed", "model", "files", "<<"])] = container[key]
    else:
        other, its = draw.choice(spots(tree))
        container[key] = copy.deepcopy(other[its])


def covers(given: Any, found: Any) -> bool:
    """Whether `found` says all that was `given`, whose short forms may be spelt out."""
    if given is None:  # the absence of a value, which has a default
        return True
    single = not isinstance(given, list)
    if single and isinstance(found, list):  # one value instead of a list of one
        return covers([given], found)
    if isinstance(given, dict):
        if not isinstance(found, dict):
            return False
        found = {**found, **found.get("axes", {})}  # which are written beside the rest of a search
        return all(key in found and covers(value, found[key]) for key, value in given.items())
    if isinstance(given, list):
        return (
            isinstance(found, list) and len(given) == len(found) and all(map(covers, given, found))
        )
    if isinstance(given, str) and isinstance(found, dict):  # a model by its folder or its Hub id
        return given in (found["path"], found["hub"])
    if isinstance(given, float) and math.isnan(given):
        return False
    if isinstance(found, str) and not isinstance(given, str):  # a name as it is written
        return found == written(given)
    return bool(given == found) and isinstance(given, bool) == isinstance(found, bool)


def check_study(path: Path) -> Study | None:
    """Load a study file; what loads can be planned."""
    with no_hang():
        try:
            study = load_study(path)
        except InputError as error:
            check_words(error, str(path))
            return None
        for case in cases_of(study):
            space_of(study, case)
        case_counts(study, cases_of(study)[0])
    return study


def test_studies_with_changed_trees_load_with_all_they_say_or_are_refused(tmp_path: Path) -> None:
    draw = random.Random(1)
    path = tmp_path / "study.yaml"
    small = [
        *BASES,
        load_study(shipped_studies()["mrpc"]).model_dump(exclude_unset=True, mode="json"),
    ]
    loaded = 0
    for _ in range(TREES):
        tree = copy.deepcopy(draw.choice(small))
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            change(tree, draw)
        base = "search: &base " if draw.random() < 0.1 and "search" in tree else ""
        rest = {key: value for key, value in tree.items() if key != "search" or not base}
        head = f"{base}{written(tree['search'])}\n" if base else ""
        lines = [f"{written(key)}: {written(value)}\n" for key, value in rest.items()]
        path.write_text(head + "".join(lines))
        study = check_study(path)
        if study is None:
            continue
        loaded += 1
        if not any(isinstance(c[k], Raw) or k == "<<" for c, k in spots(tree)):
            found = study.model_dump(mode="json")
            assert covers(tree, found), (tree, found)
    assert loaded > TREES // 20  # or nothing was looked at beyond the parser


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """One change of a file's bytes: flipped, cut off, doubled, put in, moved, coded otherwise."""
    at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    odd = [
        b"\t",
        b"\xef\xbb\xbf",
        b"\x00",
        b"\r",
        b"\xff\xfe",
        b"{",
        b"]",
        b'"',
        b"&a ",
        b"*a",
        b"<<: ",
    ]
    odd += [
        b"- ",
        b"---\n",
        b"%YAML 9.9\n",
        b"!!x ",
        b"#",
        b"|",
        b"? ",
        b": ",
        b"\xe2\x80\xa8",
        b"'",
    ]
    lines = content.splitlines(keepends=True)
    line = draw.randrange(len(lines)) if lines else 0
    match draw.randrange(8):
        case 0 if content:
            flipped = content[at - 1] ^ 1 << draw.randrange(8)
            return content[: at - 1] + bytes([flipped]) + content[at:] if at else content[1:]
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[min(to, at + 20) :]
        case 3:
            return b"".join([*lines[:line], *lines[line : line + 1] * 2, *lines[line + 1 :]])
        case 4:
            return b"".join([*lines[:line], *lines[line + 1 :]])
        case 5:
            return content[:to] + content[at : at + 20] + content[to:]
        case 6 if draw.random() < 0.05:
            return content.decode("utf-8", "ignore").encode(draw.choice(["utf-16", "utf-32"]))
        case _:
            return content[:at] + draw.choice(odd) * draw.choice([1, 1, 1, 40]) + content[at:]


def test_studies_with_changed_text_load_or_are_refused(tmp_path: Path) -> None:
    draw = random.Random(2)
    path = tmp_path / "study.yaml"
    texts = [text.encode() for text in SHIPPED.values()]
    texts += [re.sub(rb"(?m)^#.*\n", b"", texts[0])] * 4  # the smallest one more often
    loaded = 0
    for _ in range(TEXTS):
        content = draw.choice(texts)
        for _ in range(draw.choice([1, 1, 2, 4])):
            content = changed_bytes(content, draw)
        path.write_bytes(content)
        loaded += check_study(path) is not None
    assert TEXTS // 20 < loaded < TEXTS


YAML_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=GENERATED, derandomize=True, database=None)
@given(data=st.data())
def test_studies_with_made_up_sections_load_with_all_they_say_or_are_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = copy.deepcopy(data.draw(st.sampled_from(BASES)))
    section = data.draw(st.sampled_from([*Study.model_fields]))
    tree[section] = data.draw(YAML_LIKE)
    path = tmp_path_factory.getbasetemp() / "made-up.yaml"
    path.write_text(written(tree))
    study = check_study(path)
    assert study is None or covers(tree, study.model_dump(mode="json"))


def sections(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings of a study whose keys are not names, each with its path."""
    yield "", tree
    for name in ("search", "training", "resources"):
        if name in tree:
            yield name, tree[name]
    for name in ("datasets", "models", "teachers", "students"):
        for key, section in tree[name].items():
            if isinstance(section, dict):
                yield f"{name}.{key}", section
    for i, block in enumerate(tree.get("test_cases", ())):
        yield f"test_cases[{i}]", block
    inner = [("temperature", "search"), ("adam", "training")]
    yield from ((f"{of}.{name}", tree[of][name]) for name, of in inner if name in tree.get(of, {}))
    for kind, parts in (("datasets", ("grammar", "files", "limit")), ("teachers", ("fine_tune",))):
        for key, section in tree[kind].items():
            yield from ((f"{kind}.{key}.{p}", section[p]) for p in parts if p in section)


@pytest.mark.parametrize("number", range(len(BASES)))
def test_a_key_that_is_unknown_is_refused_by_its_name_wherever_it_stands(number: int) -> None:
    draw = random.Random(number)
    for i, (where, _) in enumerate(sections(BASES[number])):
        for key in ("zzz", "seeed", "Name", "model ", "learning-rate", "epoch"):
            tree = copy.deepcopy(BASES[number])
            _, section = [*sections(tree)][i]
            section[key] = draw.choice([1, None, "x", [], {}])
            with pytest.raises(InputError) as caught:
                parse_study(tree, place="x.yaml")
            place = f"x.yaml: {where}.{key}" if where else f"x.yaml: {key}"
            assert any(
                problem.place == place and f"{key} is not a key" in problem.what
                for problem in caught.value.problems
            ), caught.value


@pytest.mark.parametrize("depth", [10, 100])
@pytest.mark.parametrize("part", ["[*{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}, *{0}, *{0}]}}"])
def test_aliases_that_stand_for_far_more_than_the_file_holds_are_refused(
    tmp_path: Path, part: str, depth: int
) -> None:
    path = tmp_path / "x.yaml"
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{i}: &a{i} {part.format(f'a{i - 1}')}" for i in range(1, depth)
    ]
    path.write_text("\n".join(lines))
    with no_hang(), pytest.raises(InputError, match=r"x\.yaml:\d+:\d+: .* more than 50,000 values"):
        load_study(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "&a [*a]"])
def test_what_is_nested_too_deeply_or_holds_itself_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with no_hang(), pytest.raises(InputError, match=r"nested too deeply|an alias is inside"):
        load_study(path)


def test_a_file_too_large_for_a_study_is_not_read_to_its_end() -> None:
    with no_hang(), pytest.raises(InputError, match="/dev/zero: is larger than 2 MB"):
        load_study(Path("/dev/zero"))


def test_test_cases_without_end_are_refused() -> None:
    block = {"dataset": ["sentences"] * 300, "teacher": ["big"] * 300, "student": ["small"] * 300}
    with (
        no_hang(),
        pytest.raises(InputError, match="test_cases: 27,000,000 test cases are more than 10,000"),
    ):
        parse_study(a_study(test_cases=[block]), place="x.yaml")


@pytest.mark.parametrize("text", ["010", "1:30", "!!int x", "!!binary aGk=", "!!python/tuple [1]"])
def test_what_yaml_would_silently_make_into_something_else_is_refused(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("{seed: " + text + ", " + written(a_study())[1:])
    with pytest.raises(InputError, match=r"seed: must be a whole number|:1:8: not YAML: the tag"):
        load_study(path)


@pytest.mark.parametrize(
    "name", ["..", ".", "...", "a/b", "/a", "a\\b", "a\nb", "\x00", "\x9b", "é" * 61]
)
@pytest.mark.parametrize("section", ["datasets", "models", "teachers", "students"])
def test_a_name_that_could_lead_out_of_a_folder_is_refused(section: str, name: str) -> None:
    tree = a_study()
    tree[section][name] = next(iter(tree[section].values()))
    with pytest.raises(InputError, match=rf"x[.]yaml: {section}"):
        parse_study(tree, place="x.yaml")


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a/b", "a\nb", "a\x00", "-x", "x" * 101])
def test_a_studys_name_stays_below_runs(name: str) -> None:
    with pytest.raises(InputError, match=r"x[.]yaml: name"):
        parse_study(a_study(name=name), place="x.yaml")


@pytest.mark.parametrize("source", [{"hub": "../../x"}, {"hub": "a/b/c"}, {"hub": "C:\\x"}])
def test_a_models_source_cannot_lead_out_of_the_hubs_cache(source: Any) -> None:
    with pytest.raises(InputError, match=r"x[.]yaml: models[.]new"):
        parse_study(a_study(models={**a_study()["models"], "new": source}), place="x.yaml")
    new = {"hub": "a/b", "revision": "../../x"}
    with pytest.raises(InputError, match=r"x[.]yaml: models[.]new[.]revision"):
        parse_study(a_study(models={**a_study()["models"], "new": new}), place="x.yaml")


# -- data files --------------------------------------------------------------------------------

KINDS = ("jsonl", "jsonl.gz", "csv", "parquet", "json", "tsv", "csv.xz")


def rows_for(task: str, kind: str = "jsonl") -> list[dict[str, Any]]:
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "classification": lambda i: {"a": f"one {i}", "b": f"two {i}", "y": i % 2},
        "ner": lambda i: {"w": ["in", "Rome", f"{i}"], "t": ["O", "B-LOC", "O"]},
        "qa": lambda i: {
            "question": f"who {i}?",
            "context": f"Ann did {i}",
            "answers": {"text": ["Ann"], "answer_start": [0]},
        },
        "translation": lambda i: (
            {"pair.de": f"eins {i}", "pair.en": f"one {i}"}
            if kind in ("csv", "tsv", "csv.xz")
            else {"pair": {"de": f"eins {i}", "en": f"one {i}"}}
        ),
        "lm": lambda i: {"ask": f"{i} + 1 =", "say": f" {i + 1}"},
    }
    return [kinds[task](i) for i in range(5)]


SAYS: dict[str, dict[str, Any]] = {
    "classification": {"text": ["a", "b"], "label": "y", "labels": ["no", "yes"]},
    "ner": {"text": "w", "label": "t"},
    "qa": {},
    "translation": {"text": "pair.de", "label": "pair.en"},
    "lm": {"text": "ask", "label": "say"},
}
CELLS: list[Any] = [
    *(None, True, 0, 1, 2, -1, 0.0, 1.0, 0.5, 10**30, 10**4_000, 1e308, math.nan, math.inf),
    *("", " ", "\x00", "a\nb", "\ud800", "\u2028", "\U0001f600", "x" * 5_000, "no", "yes", "1"),
    *("O", "[", '["a"]', '{"text": ["Ann"], "answer_start": [0]}', "[" * 3_000, "<script>", "None"),
    *([], {}, [None], [[]], [1, "a", None], ["O", "\ud800", "O"], ["O", 1, "B-X"], ["", "a", "b"]),
    *({"text": "Ann"}, {"text": ["Ann"], "answer_start": ["0"]}, {"text": [], "answer_start": []}),
    *({"text": [None], "answer_start": [0]}, {"text": ["Ann"], "answer_start": [10**30]}),
    *({"text": ["Ann"], "answer_start": [-3]}, {"text": ["Ann"], "answer_start": [0.5]}),
    *(
        [{"text": "Ann", "answer_start": 0}],
        [{"text": {}, "answer_start": []}],
        {"de": 1, "en": "x"},
    ),
]


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def change_rows(rows: list[dict[str, Any]], draw: random.Random) -> list[Any]:
    """Rows with one change: of a cell, a column, a row or its order."""
    kind = draw.randrange(10)
    row = draw.choice(rows)
    container, key = draw.choice(spots(row))
    if kind <= 5:
        container[key] = copy.deepcopy(draw.choice(CELLS))
    elif kind == 6:
        del container[key]
    elif kind == 7:
        column = draw.choice([*row, "zzz"])
        for each in rows:
            each[draw.choice(["zzz", "", column + " "])] = each.pop(column, None)
    elif kind == 8:
        column = draw.choice([*row, "zzz"])
        for each in rows:
            each[column] = copy.deepcopy(draw.choice(CELLS))
    else:
        return draw.choice([[], rows * 40, rows[:1], [*rows, {}], [*rows, 1], [*rows, None]])
    return rows


def as_bytes(rows: list[Any], kind: str, path: Path) -> bytes | None:
    """A file's content; None where this kind of file cannot hold such rows."""
    if kind == "parquet":
        try:
            pd.DataFrame(rows).to_parquet(path)
        except Exception:
            return None
        return path.read_bytes()
    if kind in ("csv", "tsv", "csv.xz"):
        comma = "\t" if kind == "tsv" else ","
        head = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        lines = [head] + [[cell(row.get(k)) for k in head] for row in rows if isinstance(row, dict)]
        quoted = (
            comma.join(f'"{c.replace(chr(34), chr(34) * 2)}"' for c in line) for line in lines
        )
        content = "\r\n".join(quoted).encode(errors="surrogatepass")
        return lzma.compress(content, preset=0) if kind == "csv.xz" else content
    try:
        lines = [json.dumps(row) for row in rows]
    except (ValueError, RecursionError):
        return None
    if kind == "json":
        return f"[{','.join(lines)}]".encode()
    content = "\n".join(map(str, lines)).encode()
    return gzip.compress(content, 1) if kind == "jsonl.gz" else content


def cell(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError):
        return ""


def check_data(folder: Path, task: str, kind: str, content: bytes) -> bool:
    """Whether a data set can be read whose training split has this content."""
    path = folder / f"train.{kind}"
    path.write_bytes(content)
    good = str(folder / f"good-{task}.jsonl")
    dataset = Dataset.model_validate_json(
        json.dumps(
            {
                "task": task,
                "files": {"train": str(path), "validation": good, "test": good},
                **SAYS[task],
            }
        )
    )
    with no_hang():
        try:
            found = read_dataset("mine", dataset, data_dir=None, seed=0)
        except InputError as error:
            check_words(error, str(path), "datasets.mine")
            return False
        for rows in found.splits.values():
            assert digest_rows(rows)
        json.dumps(found.labels, ensure_ascii=False).encode()
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task in SAYS:
        lines = "".join(json.dumps(row) + "\n" for row in rows_for(task))
        (tmp_path / f"good-{task}.jsonl").write_text(lines)
    return tmp_path


def test_data_files_with_changed_rows_are_read_or_refused(folder: Path) -> None:
    draw = random.Random(3)
    tried = loaded = 0
    while tried < FILES:
        task, kind = draw.choice([*SAYS]), draw.choice(KINDS)
        rows: list[Any] = rows_for(task, kind)
        for _ in range(draw.choice([1, 1, 2])):
            rows = change_rows([r for r in rows if r and isinstance(r, dict)] or [{"a": 1}], draw)
        if draw.random() < 0.05 and isinstance(rows[0] if rows else None, dict):
            rows[0][draw.choice([*rows[0], "zzz"])] = nested(draw.randrange(1_200))
        content = as_bytes(rows, kind, folder / "made.parquet")
        if content is not None:
            tried += 1
            loaded += check_data(folder, task, kind, content)
    assert FILES // 20 < loaded < FILES


def test_data_files_with_changed_bytes_are_read_or_refused(folder: Path) -> None:
    draw = random.Random(4)
    loaded = 0
    made = {
        (task, kind): as_bytes(rows_for(task, kind), kind, folder / "made.parquet")
        for task in SAYS
        for kind in KINDS
    }
    for _ in range(BYTES):
        task, kind = draw.choice([*made])
        content = made[task, kind]
        assert content is not None
        for _ in range(draw.choice([1, 1, 3])):
            content = changed_bytes(content, draw)
        loaded += check_data(folder, task, kind, content)
    assert BYTES // 20 < loaded < BYTES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [*SAYS])
def test_a_data_file_that_was_not_changed_is_read(folder: Path, task: str, kind: str) -> None:
    content = as_bytes(rows_for(task, kind), kind, folder / "made.parquet")
    assert content is not None
    assert check_data(folder, task, kind, content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [*SAYS])
def test_an_empty_file_and_a_folder_in_its_place_are_refused(
    folder: Path, task: str, kind: str
) -> None:
    assert not check_data(folder, task, kind, b"")
    path = folder / f"train.{kind}"
    path.unlink()
    path.mkdir()
    files = {"files": {"train": str(path)}, "task": task, **SAYS[task]}
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_dataset("mine", Dataset.model_validate_json(json.dumps(files)), data_dir=None, seed=0)


def test_a_row_that_says_a_column_twice_is_refused(folder: Path) -> None:
    content = b'{"a": "x", "b": "y", "y": 0, "y": 1}\n'
    assert not check_data(folder, "classification", "jsonl", content)
