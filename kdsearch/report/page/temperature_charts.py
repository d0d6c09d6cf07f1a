"""What the page's script draws of a temperature study."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from kdsearch.analysis.temperature import Temperatures
from kdsearch.analysis.temperature_finding import Plain
from kdsearch.analysis.temperature_lines import (
    OF_OBJECTIVE,
    SUPERVISION,
    TemperatureLine,
    longest,
    over_datasets,
)
from kdsearch.analysis.temperature_paired import less
from kdsearch.report.temperature_words import factor_in_words, label, teacher_in_words

Charts = dict[str, list[dict[str, Any]]]


def temperature_charts(found: Temperatures | None) -> Charts:
    """The charts by what they are of; empty where there is no such study."""
    if found is None:
        return {}
    own = [line for line in found.lines if not line.control]
    return {
        "lines": _panels(own, found, {*OF_OBJECTIVE, "epochs"}),
        "controls": _controls(found),
        "softmax": _softmax(found),
        "datasets": _datasets(own, found),
    }


def _groups(
    lines: Iterable[TemperatureLine], within: Iterable[str], names: Sequence[str]
) -> list[list[TemperatureLine]]:
    """Lines by the factors that vary, but those that differ within a panel."""
    apart = [name for name in names if name not in {*within}]
    groups: dict[tuple[Any, ...], list[TemperatureLine]] = {}
    for line in lines:
        groups.setdefault(tuple(line.factors.get(n) for n in apart), []).append(line)
    return list(groups.values())


def _panels(
    lines: Sequence[TemperatureLine], found: Temperatures, within: Collection[str]
) -> list[dict[str, Any]]:
    """A panel for each combination of what differs between lines, but what differs `within` it.

    Of each objective the line of the most epochs is the main one, which looks alike in all panels.
    Lines without a score yet make no panel.
    """
    told_apart = [name for name in found.varied if name in within and name != "epochs"]
    kinds = dict.fromkeys(tuple(line.factors.get(n) for n in told_apart) for line in lines)
    looks = {kind: look for look, kind in enumerate(kinds)}
    groups = [
        group
        for group in _groups(lines, within, found.varied)
        if any(line.scored for line in group)
    ]
    panels = []
    for group in groups:
        names = [n for n in found.varied if len({line.factors.get(n) for line in group}) > 1]
        longest: dict[Any, int] = {}
        for line in group:
            kind, epochs = line.without(["epochs"]), int(line.factors["epochs"])
            longest[kind] = max(epochs, longest.get(kind, 0))
        first = group[0]
        alone = [
            each
            for each in found.plain
            if "student" not in names
            and (each.dataset, each.student) == (first.factors["dataset"], first.factors["student"])
        ]
        panels.append(
            {
                "title": label(first.factors, [n for n in found.varied if n not in names]),
                "dataset": first.factors["dataset"],
                "digits": first.digits,
                "alone": _alone(alone[0], first, found.varied) if alone else None,
                "series": [
                    _series(
                        line,
                        names,
                        main=line.factors["epochs"] == longest[line.without(["epochs"])],
                        look=looks[tuple(line.factors.get(n) for n in told_apart)],
                    )
                    for line in group
                ],
            }
        )
    _share_ranges(panels)
    return panels


def _alone(plain: Plain, line: TemperatureLine, names: Sequence[str]) -> list[Any]:
    """The score of a student on the labels alone, and how it was trained."""
    trained = label(
        plain.settings, [n for n in names if n in ("optimizer", "batch_size", "epochs")]
    )
    name = f"labels alone: {trained}" if trained else "labels alone (ERM)"
    if not plain.sees_alike(line):
        name += f"<br>{label(plain.settings, ['augmentation'])}"
    return [_short(fmean(plain.tests) * line.largest / 100), name]


def _series(
    line: TemperatureLine, names: Sequence[str], *, main: bool, look: int
) -> dict[str, Any]:
    """A line; where it has no temperature, its one score."""
    points = [
        [
            p.temperature,
            _short(p.test),
            _short(p.spread),
            p.learning_rate,
            line.best is p,
        ]
        for p in line.points
        if p.test is not None
    ]
    name = label(line.factors, names) or factor_in_words("objective", line.factors["objective"])
    return {
        "name": name,
        "main": main,
        "look": look,
        "epochs": line.factors["epochs"],
        "points": points,
    }


def _share_ranges(panels: Sequence[dict[str, Any]]) -> None:
    """Panels of one data set have one range, so that their heights compare."""
    for name in {panel["dataset"] for panel in panels}:
        some = [panel for panel in panels if panel["dataset"] == name]
        every = [p for panel in some for series in panel["series"] for p in series["points"]]
        alone = [panel["alone"][0] for panel in some if panel["alone"] is not None]
        low = min([*alone, *(p[1] - (p[2] or 0) for p in every)], default=0)
        high = max([*alone, *(p[1] + (p[2] or 0) for p in every)], default=1)
        for panel in some:
            panel["range"] = [low, high]


def _controls(found: Temperatures) -> list[dict[str, Any]]:
    """Panels of the controls, with the line of the teacher's softmax that each is compared with."""
    kept = []
    for group in _groups(found.lines, [SUPERVISION], found.varied):
        if any(line.control for line in group):
            kept += group
    panels = _panels(kept, replace(found, plain=()), [SUPERVISION])
    for panel in panels:
        for series in panel["series"]:
            if len(panel["series"]) > 1 and series["name"] == "CE":
                series["name"] = "softmax"
    return panels


def _softmax(found: Temperatures) -> list[dict[str, Any]]:
    """Of each teacher its mean sorted softmax on the training split, as students see it, at every τ
    of the study."""
    charts = []
    for teacher in found.teachers:
        for split, softmax in teacher.splits[:-1]:
            at = [s for s in softmax if s.temperature in found.swept]
            if not at:
                continue
            name = "/".join((teacher.dataset, teacher.teacher, teacher.checkpoint))
            seen = [] if split == "train" else [f"on {split}"]
            charts.append(
                {
                    "title": ", ".join([name, teacher_in_words(teacher.origin), *seen]),
                    "classes": at[0].classes,
                    "curves": [[s.temperature, list(s.ranks), s.lowest] for s in at],
                }
            )
    return charts


def _datasets(lines: Sequence[TemperatureLine], found: Temperatures) -> list[dict[str, Any]]:
    """Data sets side by side: what each τ has more than the lowest one."""
    charts = []
    for group in over_datasets(line for line in lines if len(line.temperatures) > 1):
        some = longest(*group.values())
        alike = len({line.factors["epochs"] for line in some}) == 1
        left_out = {"dataset"} if alike else {"dataset", "epochs"}
        charts.append(
            {
                "title": label(some[0].factors, [n for n in found.varied if n not in left_out]),
                "series": [
                    {"name": f"{name}, {found.classes[name]} classes", "points": _gains(line)}
                    for name, line in zip(group, some, strict=True)
                ],
            }
        )
    return charts


def _gains(line: TemperatureLine) -> list[list[float | None]]:
    """What each temperature has more than the lowest, in points: the mean, and the spread."""
    scored = [point for point in line.points if point.tests and point.temperature is not None]
    found = []
    for point in scored:
        gains = less(line.on_points(point), line.on_points(scored[0]))
        spread = stdev(gains) if len(gains) > 1 else None
        found.append([point.temperature, _short(fmean(gains)), _short(spread)])
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
