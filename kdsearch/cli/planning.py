"""What `plan` shows: the trainings, their hours, and what is assumed of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.table import Column, Table

from kdsearch.cli.options import console, count
from kdsearch.driver import duration, rough, span
from kdsearch.search import Checkpoint, coincidences
from kdsearch.study import BASE, SAMPLED, Study, readable_size, shown_cache

Facts = Mapping[str, Any]
"""What `plan --json` prints."""


class _Unit(NamedTuple):
    """What the times of a study are told in."""

    name: str
    seconds: float

    def words(self, times: Mapping[str, float], to: str = " to ") -> str:
        """From the fewest to the most."""
        low, high = (rough(times[end] / self.seconds) for end in ("fewest", "most"))
        return low if low == high else f"{low}{to}{high}"


_UNITS = (_Unit("hours", 3600), _Unit("minutes", 60), _Unit("seconds", 1))

TRAINING_STATE = 5
"""The weights, Adam's two moments, and those of the best epoch and of the one of lowest loss; more
where a search names epochs."""
_WIDTH = 240
"""Of a table that no terminal bounds."""
_LOOK: dict[str, Any] = {
    "box": None,
    "padding": (0, 2, 0, 0),
    "title_justify": "left",
    "pad_edge": False,
}


def print_plan(study: Study, facts: Facts) -> None:
    """Print a study's plan for a person."""
    out = console()
    if not out.is_terminal:
        out.width = _WIDTH
    out.print(_students_table(facts))
    if facts["caches"]:
        out.print(_teachers_table(facts))
    if facts["parts"]:
        out.print(_parts_table(facts))
    for line in (*_counted(study, facts), *_timed(facts), *_on_disk(study, facts)):
        out.print(line)


def _students_table(facts: Facts) -> Table:
    inner = {row["inner"] for row in facts["cases"] if "inner" in row}
    title = f"Students of {facts['name']}, fewest–most"
    if len(inner) == 1:
        title += f"; its inner tuning is {next(iter(inner))}"
    headings = ["test case", "students"]
    unit = _unit(facts)
    table = _table(title, *headings, *(["one takes", unit.name] if unit else []))
    for row in facts["cases"]:
        cells = [row["case"], _range(row["students"])]
        if unit:
            cells += [duration(row["seconds_each"]), unit.words(row["seconds"], "–")]
        table.add_row(*cells)
    return table


def _teachers_table(facts: Facts) -> Table:
    unit = _unit(facts)
    headings = ("data set / teacher", "trainings", "passes", "rows", "outputs")
    table = _table("Teachers", *headings, *([unit.name] if unit else []))
    for row in facts["caches"]:
        cells = [
            _teacher(row),
            str(row["trainings"]),
            _range(row["passes"]),
            "?" if row["train_rows"] is None else f"{row['train_rows']:,}",
            "?" if row["bytes"] is None else readable_size(row["bytes"]),
        ]
        if unit:
            cells.append(unit.words(row["seconds"], "–"))
        table.add_row(*cells)
    return table


def _parts_table(facts: Facts) -> Table:
    unit = _unit(facts)
    headings = ("part", "test cases", "teachers", "passes", "outputs", "students")
    title = "Parts: what each adds to those before it; a student that parts share is in each"
    table = _table(title, *headings, *([unit.name] if unit else []))
    for row in facts["parts"]:
        cells = [
            row["part"] or "of no part",
            f"{row['cases']:,}",
            f"{row['teachers']:,}",
            _range(row["passes"]),
            "?" if row["bytes"] is None else readable_size(row["bytes"]),
            _range(row["students"]),
        ]
        if unit:
            cells.append("?" if row["seconds"] is None else unit.words(row["seconds"], "–"))
        table.add_row(*cells)
    return table


def _teacher(row: Facts) -> str:
    """On a data set; of a student that teaches also the case that it is of, which is its own."""
    names = (row[name] for name in ("dataset", "teacher", "student", "search"))
    return "/".join(name for name in names if name is not None)


def named_epochs(study: Study) -> int:
    """How many epochs of a teacher's training the study's searches name in all."""
    named = {name for search in study.every_search.values() for name in search.teacher or ()}
    return sum(Checkpoint(name).epoch is not None for name in named)


def _table(title: str, first: str, *others: str) -> Table:
    columns = (Column(name, justify="right", no_wrap=True) for name in others)
    return Table(Column(first, overflow="fold"), *columns, title=title, **_LOOK)


def _counted(study: Study, facts: Facts) -> Iterator[str]:
    cases, further = facts["cases"], len(study.further_seeds)
    yield f"students in all: {_words(facts['students'])}; whole grids have {facts['grid']:,}"
    walks = [row for row in cases if "inner" in row]
    for grid in dict.fromkeys(row["grid"] for row in walks):
        alike = [row["students"] for row in walks if row["grid"] == grid]
        fewest, most = min(row["fewest"] for row in alike), max(row["most"] for row in alike)
        walked = _words({"fewest": fewest - further, "most": most - further})
        yield f"  (a greedy walk trains {walked} students, in a grid of {grid:,})"
    if any(row["students"]["fewest"] < row["students"]["most"] for row in walks):
        yield (
            "  (how many depends on which values win; and on how much of its lazy baseline, which "
            "is drawn at random, a case trains anyway)"
        )
    yield from _other_inner(walks)
    if facts["fused"]:
        yield f"  (students in one pass: {facts['fused']})"
    if study.resources.speculate and facts["students"]["fewest"] < facts["grid"]:
        yield (
            "  (beside these, slots that would be idle train what decisions may ask for, unless "
            "resources.speculate is false)"
        )
    if facts["sharing"]:
        yield "  (the most: a training that searches share is counted for each of them)"
    if further:
        yield f"  (including what each test case chose, under {count(further, 'further seed')})"
    nested = [row["nested_epochs"] for row in cases if row["nested_epochs"]]
    if nested:
        yield (
            "  (at a constant rate, one training covers all of its epochs; otherwise up to "
            f"{max(map(len, nested))} times as many)"
        )
    yield f"teachers to fine-tune: {facts['teachers']}, shared by the cases of a data set"
    yield f"passes of teachers over a split: {_words(facts['outputs'])}"
    if facts["sequences"]["most"]:
        yield (
            f"training splits that teachers write anew: {_words(facts['sequences'])} (passes over "
            "them are among those above)"
        )
    asked = (tuple(map(Checkpoint, s.teacher or ())) for s in study.every_search.values())
    if facts["teachers"] and any(len(coincidences(names)) > 1 for names in asked):
        yield "  (the fewest if checkpoints of a teacher turn out to be the same)"


def _other_inner(walks: list[dict[str, Any]]) -> Iterator[str]:
    """How many students the walks train with the other inner tuning."""
    for inner, other in (("joint", "coordinate"), ("coordinate", "joint")):
        found = [row[f"students_{other}"] for row in walks if row["inner"] == inner]
        if found:
            of = f" of the {len(found)} cases" if len(found) < len(walks) else ""
            yield (
                f"  (with `inner: {other}` these walks{of} train "
                f"{_words({end: sum(row[end] for row in found) for end in found[0]})})"
            )


def _timed(facts: Facts) -> Iterator[str]:
    if facts["slot_seconds"] is None and facts["speed"] is not None:
        names = ", ".join(facts["rows_unknown"])
        yield (
            f"time: the rows of {names} are not known until they are read; give --seconds instead"
        )
        return
    if facts["slot_seconds"] is None:
        yield (
            "time: give --speed, the training examples per second of a student, "
            "or --seconds, how long one takes"
        )
        return
    slots, every, unit = facts["slots"], facts["slot_seconds"], _unit(facts)
    assert unit is not None
    ends = (every[end] / slots for end in ("fewest", "most"))
    yield (
        f"time: {span(*ends)} on {count(slots, 'slot')} if none is ever idle; "
        f"{unit.words(facts['student_seconds'])} slot {unit.name} for students"
        + (f", {unit.words(facts['teacher_seconds'])} for teachers" if facts["caches"] else "")
    )
    yield from _assumed(facts)
    simulated = facts["simulated"]
    path = simulated["longest_path_seconds"]
    enough = math.ceil(simulated["slot_seconds"] / path)
    yield (
        f"simulated, with made-up scores: {duration(simulated['seconds'])} on "
        f"{count(slots, 'slot')}, which are busy {simulated['utilisation']:.0%} of that time; "
        f"at least {duration(path)}, with {count(enough, 'slot')} or more"
    )


def _assumed(facts: Facts) -> Iterator[str]:
    if facts["measured"]:
        yield "  (what this folder's trainings took; others of which none has ended, by their size)"
    else:
        option = "seconds" if facts["speed"] is None else "speed"
        yield (
            f"  (--{option} is that of the student of {facts['reference']}; the others and the "
            "teachers follow from their size: rows × epochs × tokens of a row × weights that each "
            "passes, without embeddings but, in translation and lm, with the output layer, or × "
            "the multiplications of an image; scoring is not counted)"
        )
        if facts["rows_unknown"]:
            yield "  (every data set is taken to be as large, as some are not known until read)"
    if facts["sizes_unknown"]:
        other = ", or of images to be a ResNet-50" if facts["images"] else ""
        yield (
            f"  (of unknown size, taken to have {BASE.layers} layers that are {BASE.width} wide"
            f"{other}: {', '.join(facts['sizes_unknown'])})"
        )


def _on_disk(study: Study, facts: Facts) -> Iterator[str]:
    sizes = [cache["bytes"] for cache in facts["caches"]]
    known = (
        "not known until the data is read"
        if None in sizes
        else f"about {readable_size(sum(sizes))}"
    )
    named = named_epochs(study)
    more = f" and {count(named, 'epoch')} that a search names" if named else ""
    kept = (
        f"checkpoints {readable_size(facts['checkpoint_bytes'])} so far"
        if facts["checkpoint_bytes"]
        else f"up to two checkpoints{more} per teacher training, each of the model's size"
    )
    yield f"disk: teachers' outputs {known}; {kept}"
    for images in facts["images"]:
        yield _pixels(images)
    yield from _each(facts)
    yield from _on_views(facts)
    yield from _compared(facts)
    state = facts["training_state_bytes"]
    yield (
        f"  and while it runs, for each of {count(facts['slots'], 'slot')}, up to "
        f"{TRAINING_STATE + named} times its model in full precision: what a training resumes from "
        f"after a crash{f' ({readable_size(state)} in all)' if state else ''}"
    )


def _pixels(images: Mapping[str, Any]) -> str:
    """What the images of a data set take."""
    what = f"  and for the images of {images['dataset']}"
    if images["bytes"] is None:
        return f"{what}, what is not known until they are read: three bytes for each pixel kept"
    size = f"{images['rows']:,} of {images['image_size']} × {images['image_size']} pixels"
    return (
        f"{what}, {size}, {readable_size(images['bytes'])}; as much again in the memory of each "
        "slot's device"
    )


def _each(facts: Facts) -> Iterator[str]:
    """What a row of data takes; of wide outputs a token, as it is kept and in other ways."""
    small = {
        row["dataset"]: f"{row['bytes_each']:,}"
        for row in facts["caches"]
        if row["each"] == "row" and row["bytes_each"]
    }
    if small:
        yield f"  (bytes a row: {', '.join(f'{name} {size}' for name, size in small.items())})"
    groups: dict[str, list[str]] = {}
    for row in facts["caches"]:
        ways = (
            shown_cache(way)
            + (" (chosen) " if way == row["cache"] else " ")
            + ("at most " if way.startswith(SAMPLED) else "")
            + f"{size:,}"
            for way, size in row["ways"].items()
        )
        if row["ways"]:
            groups.setdefault("; ".join(ways), []).append(_teacher(row))
    for ways_shown, names in groups.items():
        yield (
            f"  (bytes a token of {', '.join(names)}, by training.cache: {ways_shown}; "
            "all but hidden serve ce at one temperature alone)"
        )


def _on_views(facts: Facts) -> Iterator[str]:
    """What of the outputs is of views of images."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row in facts["caches"]:
        for what, size in (row["views"] or {}).items():
            groups.setdefault((row["dataset"], what), []).append(size)
    for (name, what), sizes in groups.items():
        each = "" if len(sizes) == 1 else f" of {len(sizes)} teachers"
        yield (
            f"  (of them {readable_size(sum(sizes))}{each} on {name} in {what}, each a pass over "
            "the training rows; all losses, temperatures, optimizers, batch sizes and durations "
            "share them)"
        )


def _compared(facts: Facts) -> Iterator[str]:
    """What is kept for terms beside the outputs."""
    for row in facts["caches"]:
        if row["signals"]:
            each = (f"{what} {readable_size(size)}" for what, size in row["signals"].items())
            yield (
                f"  and for what terms compare of {_teacher(row)}, a pass each, "
                f"about {readable_size(sum(row['signals'].values()))}: {'; '.join(each)}"
            )


def _unit(facts: Facts) -> _Unit | None:
    """The largest of which the whole study takes ten; None where no time is known."""
    every = facts["slot_seconds"]
    if every is None:
        return None
    return next((unit for unit in _UNITS if every["most"] >= 10 * unit.seconds), _UNITS[-1])


def _range(bounds: Mapping[str, int]) -> str:
    return _words(bounds).replace(" to ", "–")


def _words(bounds: Mapping[str, int]) -> str:
    low, high = bounds["fewest"], bounds["most"]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
