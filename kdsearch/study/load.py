"""Reading a study file: every problem at once, each with its path in the file."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsearch.errors import InputError, Problem
from kdsearch.study.references import reference_problems
from kdsearch.study.schema import Study
from kdsearch.study.section import as_far_as_read
from kdsearch.study.shape import sections, sound, spelt_out
from kdsearch.study.wording import place_in, problems_of, unknown
from kdsearch.study.yaml_file import read_yaml


def load_study(path: Path, *, models: Mapping[str, str] | None = None) -> Study:
    """The study in the file `path`; `models` replaces where models come from, by name.

    Raises `InputError` with every problem found.
    """
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        shipped = ", ".join(shipped_studies())
        remedy = f"`kdsearch new NAME` copies a shipped one: {shipped}"
        raise InputError.one(path, "no such study file", remedy) from None
    if not isinstance(raw, dict):
        raise InputError.one(
            path, "is not a mapping of keys to values", "start with `kdsearch new NAME`"
        )
    letters = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    if name := re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", letters).strip("-"):
        raw.setdefault("name", name)
    return parse_study(raw, place=str(path), models=models)


def parse_study(
    raw: dict[str, Any], *, place: str, models: Mapping[str, str] | None = None
) -> Study:
    """The study in the mapping `raw`, read from `place`; raises `InputError`."""
    known = raw.get("models")
    problems = []
    for name, location in (models or {}).items():
        if not isinstance(known, dict) or name not in known:
            names = known if isinstance(known, dict) else ()
            problems.append(unknown("--model", name, names, "a model of this study"))
        else:
            known[name] = location
    try:
        spelt = spelt_out(raw, Study)
        seeds = spelt.get("seeds")
        if isinstance(seeds, list) and seeds and isinstance(seeds[0], int):
            spelt = {"seed": seeds[0], **spelt}
        spelt = _with_rates(spelt)
        study, found = _read(spelt, raw, place)
    except (TypeError, ValueError, RecursionError) as error:  # of a mapping from elsewhere
        raise InputError.one(place, f"cannot be read: {error}") from None
    problems += found
    problems += reference_problems(study, raw, place)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return study


def _read(content: dict[str, Any], raw: dict[str, Any], place: str) -> tuple[Study, list[Problem]]:
    """The study, or what is right of it, and the problems that sections have in themselves."""
    text = json.dumps(content)
    try:
        return Study.model_validate_json(text), []
    except ValidationError as error:
        problems = problems_of(error, place, raw)
        if error.errors()[0]["type"] == "json_invalid":
            raise InputError(problems) from None
        wrong = {detail["loc"] for detail in error.errors()}
    study = sound(Study, content, wrong)
    for location, section in sections(study):
        where = place_in(raw, location, place)
        found = as_far_as_read(section.problems())
        problems += [Problem(place=where, what=what) for what in found]
    return study, problems


def _with_rates(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` with the study's learning rates in each search that has none of its own."""
    if raw.get("learning_rate") is None:
        return raw

    def of(search: Any) -> Any:
        shared = {"learning_rate": raw["learning_rate"]}
        return {**shared, **search} if isinstance(search, dict) else search

    named = raw.get("searches")
    if isinstance(named, dict):
        return {**raw, "searches": {name: of(search) for name, search in named.items()}}
    return {**raw, "search": of(raw.get("search", {}))}


def shipped_studies() -> dict[str, Path]:
    """The study files that come with kdsearch, by name: in a checkout and in a wheel."""
    package = Path(str(resources.files("kdsearch")))
    folders = (package / "search_spaces", package.parent / "search_spaces")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
