"""Reading YAML as a person means it who writes a study: text, with its problems in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from kdsearch.errors import InputError, shortened
from kdsearch.study.sizes import readable_size

_MOST_BYTES = 2_000_000
_MOST_VALUES = 50_000
"""With what aliases stand for, which can be far more than a file holds."""
_NAMED_AS_WRITTEN = ("labels", "languages", "choices")
"""Keys whose values are names, also where YAML has a meaning for them: no, 1.0, null."""


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-5` is a number, a date is text, `010` no number and a key stands once.

    Below `labels`, `languages` and `choices` every value is text as it is written. Tags are
    refused: a study has nothing to say with them.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _marked(
                f"the tag {event.tag} is not allowed in a study; remove it", event.start_mark
            )
        node = super().compose_node(parent, index)
        if node in self._values:  # by an alias
            return node
        if isinstance(event, yaml.AliasEvent):
            raise _marked("an alias is inside what it refers to", event.start_mark)
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        assert node is not None
        self._values[node] = 1 + sum(self._values[each] for each in inner)
        if self._values[node] > _MOST_VALUES:
            raise _marked(f"holds more than {_MOST_VALUES:,} values", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # a number with too many digits
            raise _marked(str(error), node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                what = f"the key {shortened(key)} is not text; put it in quotes"
                raise _marked(what, key_node.start_mark)
            if key in seen:
                raise _marked(f"the key {shortened(key)} appears twice", key_node.start_mark)
            seen.add(key)
        self.flatten_mapping(node)
        node.value = [
            (key, _as_written(value) if key.value in _NAMED_AS_WRITTEN else value)
            for key, value in node.value
        ]
        return super().construct_mapping(node, deep)


def _as_written(node: yaml.Node) -> yaml.Node:
    """A value, or a list of them, as the text that stands in the file.

    A copy: an alias may mean it elsewhere. What is empty stays empty, as does a lone null.
    """
    if isinstance(node, yaml.SequenceNode):
        items = [_text_of(item) for item in node.value]
        return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)
    return node if node.tag == f"{_YAML}null" else _text_of(node)


def _text_of(node: yaml.Node) -> yaml.Node:
    if not isinstance(node, yaml.ScalarNode) or (node.value == "" and node.style is None):
        return node
    return yaml.ScalarNode(f"{_YAML}str", node.value, node.start_mark, node.end_mark, node.style)


def _marked(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_YAML = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in pairs
        if not tag.endswith((":timestamp", ":float", ":int"))
    ]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_YAML}float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9]+[eE][-+]?[0-9]+
            |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.X,
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    f"{_YAML}int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"),  # YAML 1.1 would read 010 as 8 and 1:30 as 90
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Any:
    """What the file `path` holds. Raises `InputError`, or `FileNotFoundError`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            what = f"is larger than {readable_size(_MOST_BYTES)}, so it is hardly a study file"
            raise InputError.one(path, what)
        text = content.decode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError.one(path, f"cannot be read as text: {error}") from None
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise InputError.one(place, f"not YAML: {error.problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not YAML: it has the character {text[error.position]!r}, which text cannot have"
        raise InputError.one(f"{path}:{line}", what) from None
    except RecursionError:
        raise InputError.one(path, "not a study: it is nested too deeply") from None
