"""What differs between two versions of a study."""

from __future__ import annotations

import re

from kdsearch.study.schema import Study

_SEARCH = r"search|searches\.[^.]+"


def differences(old: Study, new: Study) -> list[str]:
    """What differs between two studies, as lines `path: old → new`.

    What a training takes of the cluster and what stays on disk may change: no result depends on it.
    """

    def leaves(value: object, path: str) -> dict[str, object]:
        if isinstance(value, dict):
            if re.fullmatch(_SEARCH, path):  # what a search gathers is written beside the rest
                value = {**value.pop("axes"), **value.pop("parameters"), **value}
            parts = ((f"{path}.{key}" if path else key, inner) for key, inner in value.items())
        elif isinstance(value, list) and value:
            parts = ((f"{path}[{index}]", inner) for index, inner in enumerate(value))
        else:
            return {path: value}
        return {k: v for name, inner in parts for k, v in leaves(inner, name).items()}

    before, after = (
        leaves(study.model_dump(mode="json", exclude={"resources", "keep_students"}), "")
        for study in (old, new)
    )
    named = (old.searches or {}).keys() ^ (new.searches or {}).keys()
    if old.searches and new.searches:  # of one that is there once, all differs
        before, after = (
            {path: value for path, value in each.items() if _search_of(path) not in named}
            | {f"searches.{name}": "a search" for name in named if name in (study.searches or {})}
            for each, study in ((before, old), (after, new))
        )
    return [
        f"{path}: {before.get(path, 'absent')} → {after.get(path, 'absent')}"
        for path in dict.fromkeys((*before, *after))
        if before.get(path, "absent") != after.get(path, "absent")
    ]


def _search_of(path: str) -> str | None:
    found = re.match(r"searches\.([^.]+)\.", path)
    return found[1] if found else None
