"""The searches of a study file: the axes of each, and the strategy that walks them."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Annotated, Any, Final, Literal, Self, get_type_hints

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from kdsearch.search import (
    ALPHA,
    CHECKPOINT,
    DECIDES,
    OBJECTIVE,
    TERMS,
    TIED,
    Axis,
    Checkpoint,
    Features,
    Inner,
    Objective,
    Space,
    Strategy,
    Value,
    is_active,
    parameters_of,
    significant,
)
from kdsearch.study.axes import (
    LISTED,
    again,
    axis_values,
    is_range,
    quoted,
    twice,
    wrong,
)
from kdsearch.study.refused import LARGEST, needed, refused
from kdsearch.study.section import (
    VALUES,
    Place,
    PlacedProblem,
    Positive,
    Section,
    detail_of,
    without,
)
from kdsearch.study.settings import AXES, Optimizer
from kdsearch.study.temperatures import StudentTemperatures, Temperature

Rates = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)]
RATES = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5)
"""The paper's learning rates of students (Table 2)."""
_PAPER: Mapping[str, tuple[Value, ...]] = {
    CHECKPOINT: ("t_hs", "t_ll"),
    "student_temperature": (TIED, 1.0),
    "alpha": (1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
"""Table 2: the values of what a greedy search leaves out. Another one has the first alone."""
_KINDS = ("ce", "mse")
_ON_POLICY = ("gkd", "minillm", "on_policy")
_ORDERED = (CHECKPOINT, "student_temperature", OBJECTIVE)
AS_FAR_AS_READ: Final = {"as far as read": True}
"""The context in which a search with problems is made without what they concern."""
_FIXED = ("gradient_scale", "temperature_unit")
"""The parameters of objectives that are one for a whole search."""
_GREEDY = ("order", "inner")
"""What only a strategy that flips axes has."""
_LARGEST_GREEDY = 5_000
"""The most choices of a greedy one, whose every way is counted."""


def _one_of(names: Iterable[str], what: str, value: str) -> str:
    names = list(names)
    if value not in names:
        raise ValueError(_is_not(value, what, names))
    return value


def _is_not(value: str, what: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"available: {', '.join(names)}"
    return f"{value} is not {what} ({remedy})"


def _all_at_0(title: str, weights: Sequence[str]) -> str:
    """Of a grid whose weights are above 0, but not at every point."""
    listed = " and ".join(weights)
    where = f"at a point where {listed} {'are all' if len(weights) > 1 else 'is'} 0"
    return (
        f"{title}: nothing would be distilled {where}; give it a search of its own without that "
        f"point, or leave 0 out of {f'one of {listed}' if len(weights) > 1 else listed}"
    )


def _kind(value: str) -> str:
    if value in _ON_POLICY:
        raise ValueError(
            f"{value} is out of scope: its students learn from texts of their own, of which no "
            "teacher's outputs can be kept beforehand (reverse_kl and jsd on the data's texts are "
            "objectives)"
        )
    return _one_of(Objective.kinds, "an objective", value)


def _strategy(value: str) -> str:
    return _one_of(Strategy.named, "a strategy", value)


def _checkpoint(value: str) -> str:
    with suppress(ValueError):
        if Checkpoint(value).epoch is not None:
            return value
    names = [*map(str, _PAPER[CHECKPOINT])]
    known = f"available: {', '.join(names)}, or epoch N"
    if value not in names:
        near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
        # How many epochs a teacher has is not known here, so that none of them is proposed.
        remedy = f"did you mean {near[0]}?" if near else known
        raise ValueError(f"{value} is not a checkpoint of a teacher ({remedy})")
    return value


_Alphas = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=100)
]


class Search(Section):
    """The axes of a search, the first value of each its default, and how it walks them.

    The parameters of its objectives and the settings of a training (`AXES`) may each be an axis: a
    key with its values, a list or a range {from: 0.1, to: 0.9, count: 9}. Left out, an axis has
    what the objective or the study says. A greedy search without any is the paper's (Table 2).
    """

    strategy: Annotated[str, AfterValidator(_strategy)] = "greedy"
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the strategy; written beside it."""
    distance: Annotated[tuple[Annotated[str, AfterValidator(_kind)], ...], Field(min_length=1)] = (
        _KINDS
    )
    """The objectives' kinds; `objective` is another name of it."""
    teacher: (
        Annotated[tuple[Annotated[str, AfterValidator(_checkpoint)], ...], Field(min_length=1)]
        | None
    ) = None
    """Its checkpoints: t_hs, t_ll, and `epoch 3` for one of its own training."""
    student_temperature: Annotated[StudentTemperatures | None, LISTED] = None
    alpha: Annotated[_Alphas | None, LISTED] = None
    order: tuple[str, ...] = _ORDERED
    """In which a greedy search flips its axes; α comes last, what is not named before it."""
    temperature: Temperature | None = None
    """Of the search in two rounds. A list of values is an axis without a second round."""
    learning_rate: Annotated[Rates, LISTED] = RATES
    """Or as many for each optimizer that is compared: {adamw: [1e-3, 3e-3], sgd: [0.03, 0.1]}."""
    rates: dict[Optimizer, Rates] = Field(default_factory=dict)
    """These; `learning_rate` then has them all."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Further axes; written beside the others."""
    tuned: tuple[str, ...] | None = None
    """What is tuned anew under every choice of the others: the learning rate, and in a greedy
    search the temperature."""
    inner: Literal["joint", "coordinate"] = "joint"
    """joint: each τ_t with every learning rate. coordinate: the rate first, then τ_t at that."""
    gradient_scale: Literal["none", "tau_squared"] = "none"
    """tau_squared multiplies the CE term by τ_s² (Hinton et al.); the paper prints no factor."""
    temperature_unit: Literal["none", "logit_scale"] = "none"
    """logit_scale: every temperature is one of the teacher's logits, so that teachers whose logits
    are of different sizes can share a grid."""

    @model_validator(mode="wrap")
    @classmethod
    def _checked(
        cls, content: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Say all that is wrong at once: what cannot be read is set aside for the rest."""
        if not isinstance(content, dict) or any(
            not isinstance(content.get(name, {}), dict) for name in ("axes", "parameters")
        ):
            return handler(content)
        found, unread, problems = _gathered(content)
        try:
            search = handler(found)
        except ValidationError as error:
            unread += error.errors()
            read = found.keys() - {detail["loc"][0] for detail in error.errors()}
            search = handler({name: found[name] for name in read})
        aside = {str(detail["loc"][0]) for detail in unread}
        keys = search_keys(None if "strategy" in aside else search.strategy)
        for name in aside - {*keys, OBJECTIVE}:
            aside.update(difflib.get_close_matches(name, keys, n=1, cutoff=0.5))
        written = {**content, **content.get("axes", {})}
        ranges = {name for name, value in written.items() if is_range(value)}
        problems += [*search._own_problems(aside), *search._axis_problems(aside, ranges)]
        aside |= {str(place[0]) for place, _ in problems if place}
        problems += search._refused(aside)
        if not unread and not problems:
            return search
        if info.context is AS_FAR_AS_READ:
            search._give_up(aside)
            return search
        details = [*map(detail_of, problems), *again(unread, keys)]
        raise ValidationError.from_exception_data(cls.__name__, details)

    def _own_problems(self, aside: Collection[str]) -> Iterator[PlacedProblem]:
        """Of the strategy's parameters, and of the order; none that is due to what is `aside`."""
        if "strategy" in aside:
            return
        kind = Strategy.named[self.strategy]
        fields = _fields(kind)
        for name, adapter in fields.items():
            if name in self.parameters:
                yield from wrong(adapter, self.parameters[name], (name,))
        for name in sorted(needed(kind) - self.parameters.keys() - {*aside}):
            yield (name,), f"{self.strategy} needs it"
        for name in sorted(self.parameters.keys() - fields.keys()):
            yield (name,), f"is not a parameter of {self.strategy}; remove it"
        if self.temperature is not None and not kind.flips:
            yield ("temperature",), f"{self.strategy} has no second round; list the values: [1, 4]"
        default = type(self).model_fields
        for name in _GREEDY:
            if not kind.flips and getattr(self, name) != default[name].default:
                yield (name,), f"{self.strategy} has none; remove it"
        tuned, named = {*self._tuned}, {*self.order}
        missing = {*default["order"].default} - tuned - named
        doubled = len(named) < len(self.order)
        if (
            kind.flips
            and {*aside} <= _OWN - {"order", "tuned"}
            and (doubled or missing or named - {*_ORDERED, *self.axes})
        ):
            words = "must name teacher, student_temperature and objective (or distance) once each"
            yield ("order",), words

    def _axis_problems(
        self, aside: Collection[str], ranges: Collection[str]
    ) -> Iterator[PlacedProblem]:
        """Of axes that no objective has, of values of the wrong type, and of what is tuned.

        None that is due to what is `aside`. The values of those in `ranges` come from a range.
        """
        nothing = f"{self.distance[0]} has no such parameter"
        if len(self.distance) > 1:
            *others, last = self.distance
            nothing = f"neither {', '.join(others)} nor {last} has such a parameter"
        papers = {*self.distance} <= {*_KINDS}
        types = further_axes()
        known = OBJECTIVE not in aside
        for name, values in self._values().items():
            if known and not _active(name, self.distance) and (name in self.axes or not papers):
                why = "there is no teacher" if name == CHECKPOINT else nothing
                yield (name,), f"{why}; remove it"
            if name in self.axes and name not in types:
                yield (name,), "is not an axis"
            elif name in self.axes:
                if not values:
                    yield (name,), "needs at least 1, has 0"
                for i, value in enumerate(values):
                    found = [*wrong(types[name], value, (name, i))]
                    if found and name in ranges:  # its further values are no better
                        shown = quoted(value)
                        what = found[0][1].removesuffix(f", not {shown}")
                        yield (name,), f"the range gives {shown}: {what}"
                        break
                    yield from found
        for name in _FIXED:
            active = _active(name, self.distance) or papers
            if known and getattr(self, name) != "none" and not active:
                yield (name,), f"{nothing}; remove it"
        tunable = [n for n in (*self._values(), "learning_rate") if n not in (OBJECTIVE, ALPHA)]
        for i, name in enumerate(self.tuned or ()):
            if name not in {*tunable, *aside} - {OBJECTIVE, ALPHA}:
                what = "an axis of this search that can be tuned"
                yield ("tuned", i), _is_not(name, what, tunable)
        yield from twice(self.tuned or (), "tuned")
        if self.rates and not {"tuned", DECIDES} & {*aside}:
            yield from self._rate_problems()
        for kind in self.distance if known else ():
            for name in sorted(needed(Objective.kinds[kind]) - {*self._values(), *aside}):
                yield (name,), f"{kind} needs it: list its values"

    def _rate_problems(self) -> Iterator[PlacedProblem]:
        """Of learning rates by optimizer."""
        name = "learning_rate"
        compared = self.axes.get(DECIDES, ())
        if DECIDES in self._tuned or name not in self._tuned:
            yield (name,), f"goes by {DECIDES}, so that it is tuned and {DECIDES} is not"
        elif {*compared} != self.rates.keys():
            listed = ", ".join(compared) or "none"
            yield (name,), f"has {', '.join(self.rates)}, and {DECIDES} {listed}: list the same"
        elif len({*map(len, self.rates.values())}) > 1:
            counts = ", ".join(f"{len(some)} for {which}" for which, some in self.rates.items())
            yield (name,), f"must be as many for each {DECIDES}, not {counts}"
        for which, some in self.rates.items():
            yield from twice(some, name, which)

    def rates_of(self, optimizer: Optimizer) -> tuple[float, ...]:
        """The learning rates under an optimizer."""
        return self.rates.get(optimizer, self.learning_rate)

    def _refused(self, aside: Collection[str]) -> list[PlacedProblem]:
        """Values that the strategy or an objective refuses, of those that are not `aside`."""
        found: dict[PlacedProblem, None] = {}
        strategy = Strategy.named[self.strategy]
        of_strategy = {n: (v,) for n, v in self.parameters.items() if n in _fields(strategy)}
        grids: list[tuple[str, type[Objective | Strategy], Any]] = []
        if "strategy" not in aside:
            grids.append((self.strategy, strategy, of_strategy))
        for name, listed in (*self._values().items(), ("learning_rate", self.learning_rate)):
            if name not in aside:
                found |= dict.fromkeys(twice(listed, name))
        for kind in self.distance if OBJECTIVE not in aside else ():
            active = parameters_of(kind)
            of_kind = {n: v for n, v in self._values().items() if n in active}
            grids.append((kind, Objective.kinds[kind], of_kind))
        for title, kind_of, grid in grids:
            sound = {name: values for name, values in grid.items() if name not in aside}
            for name, value, what in refused(kind_of, sound):
                place: Place = (name,) if name else ()
                if name in self._values():
                    place = (name, self._values()[name].index(value))
                words = f"{what}, not {quoted(value)}" if name else f"{title}: {what}"
                weighed = [term for term in TERMS if any(sound.get(term, ()))]
                if kind_of is Features and not name and weighed:
                    words = _all_at_0(title, weighed)
                found[place, words] = None
        return list(found)

    def _give_up(self, aside: Collection[str]) -> None:
        """Leave out the fields that do not hold what the file means, as these parts are `aside`."""
        lost = {OBJECTIVE if name == "objective" else name for name in aside} & _OWN
        if {*aside} & (AXES.keys() - _OWN):
            lost.add("axes")
        for name in self.axes.keys() & {*aside}:
            del self.axes[name]
        without(self, lost | {"parameters", "tuned"})  # without which no grid of it is walked

    @property
    def walk(self) -> Strategy:
        """The strategy."""
        return Strategy.named[self.strategy](**self.parameters)

    @property
    def taught(self) -> bool:
        """Whether any of its objectives has a teacher."""
        return any(Objective.kinds[kind].taught for kind in self.distance)

    @property
    def in_logit_scales(self) -> bool:
        """Whether its temperatures are in units of the teacher's logit scale."""
        return self.temperature_unit != "none" and _active("temperature_unit", self.distance)

    @property
    def learns_labels(self) -> bool:
        """Whether anything of it learns from labels."""
        return any(map(self.learns_labels_by, self.distance))

    def learns_labels_by(self, kind: str) -> bool:
        """Whether an objective of its own, of this kind, learns from labels."""
        free, values = Objective.kinds[kind].unlabelled_at, self._values()
        defaults = {f.name: f.default for f in dataclasses.fields(Objective.kinds[kind])}  # type: ignore[arg-type]
        return free is None or any(
            value != without
            for name, without in free
            for value in values.get(name, (defaults[name],))
        )

    @property
    def _tuned(self) -> tuple[str, ...]:
        if self.tuned is not None:
            return self.tuned
        return ("temperature", "learning_rate") if self.flips else ("learning_rate",)

    @property
    def flips(self) -> bool:
        """Whether its strategy flips axes one by one."""
        return Strategy.named[self.strategy].flips

    def _values(self) -> dict[str, tuple[Value, ...]]:
        """The values of each axis but the learning rate, as objectives hold them."""
        values = {
            CHECKPOINT: self.teacher,
            "student_temperature": self.student_temperature,
            OBJECTIVE: self.distance,
            "temperature": self.temperature and self.temperature.broad,
            **self.axes,
            ALPHA: self.alpha,
        }
        return {
            name: tuple(map(_rounded, found)) if name == "temperature" else found
            for name, found in values.items()
            if found is not None
        }

    def space(
        self, there: tuple[Checkpoint, ...] = (), rates: tuple[float, ...] | None = None
    ) -> Space:
        """The space of a test case at its own `rates`, its teacher's checkpoints as they are.

        `there` are those of one that is not fine-tuned here: of a single one nothing is chosen.
        """
        values = self._values() | {"learning_rate": rates or self.learning_rate}
        if self.teacher is not None:
            asked = tuple(map(Checkpoint, self.teacher))
            own = tuple(name for name in asked if name in there) or asked
            values[CHECKPOINT] = there if len(there) == 1 else own
        compared = [name for name in values if name not in self._tuned and name != ALPHA]
        compared.sort(key=lambda name: (*self.order, name).index(name))
        compared += [ALPHA] * (ALPHA in values)
        refined = "temperature" if self.temperature and "temperature" in self._tuned else None

        def axis(name: str) -> Axis:
            under = tuple(self.rates.items()) if name == "learning_rate" and not rates else ()
            return Axis(name=name, values=values[name], under=under)

        def axes(names: Iterable[str]) -> tuple[Axis, ...]:
            return tuple(map(axis, names))

        return Space(
            compared=axes(compared),
            tuned=axes(name for name in self._tuned if name in values),
            refined=refined,
            inner=Inner(self.inner),
            fixed=tuple((name, getattr(self, name)) for name in _FIXED),
        )

    @property
    def too_large(self) -> tuple[str, str] | None:
        """What is wrong with so large a grid, and the remedy; None where it can be walked."""
        values = {name: len(v) for name, v in self._values().items()}
        values["learning_rate"] = len(next(iter(self.rates.values()), self.learning_rate))
        if self.flips:
            size = math.prod(n for name, n in values.items() if name not in self._tuned)
            if size > _LARGEST_GREEDY:
                what = f"its axes make {size:,} choices, more than {_LARGEST_GREEDY:,}"
                return what, "leave values out"
            return None
        size = math.prod(values.values())
        asked = self.walk.asks(size)
        if asked <= LARGEST:
            return None
        if asked != size:
            return f"asks for {asked:,} trials, more than {LARGEST:,}", "ask for fewer"
        what = f"has a grid of {size:,} trials, more than {LARGEST:,}"
        return what, "leave values out, or take strategy: random"


def _gathered(content: dict[str, Any]) -> tuple[dict[str, Any], list[Any], list[PlacedProblem]]:
    """`content` with further axes and the strategy's parameters where they belong, and Table 2.

    Beside it what could not be read, as pydantic tells it, and what else is wrong.
    """
    found, unread = dict(content), list[Any]()
    problems: list[PlacedProblem] = []
    if "objective" in found:
        kinds = found.pop("objective")
        if OBJECTIVE in found:
            problems.append((("objective",), f"is another name of {OBJECTIVE}; keep one"))
        else:
            found[OBJECTIVE] = (kinds,) if isinstance(kinds, str) else kinds
    if isinstance(found.get("order"), list | tuple):
        found["order"] = [OBJECTIVE if name == "objective" else name for name in found["order"]]
    by_optimizer = found.get("learning_rate")
    if isinstance(by_optimizer, dict) and not is_range(by_optimizer):
        del found["learning_rate"]
        try:
            found["rates"] = rates = _RATES.validate_python(_tuples(by_optimizer))
            found["learning_rate"] = tuple(dict.fromkeys(chain.from_iterable(rates.values())))
        except ValidationError as error:
            unread += [{**each, "loc": ("learning_rate", *each["loc"])} for each in error.errors()]
    strategy = Strategy.named.get(_text(found.get("strategy")), Strategy.named["greedy"])
    own = {name for each in Strategy.named.values() for name in _fields(each)} & found.keys()
    found["parameters"] = found.get("parameters", {}) | {name: found.pop(name) for name in own}
    found["axes"] = {**found.get("axes", {})}
    for name, adapter in further_axes().items():
        if name in found and (name not in _OWN or _is_listed(found[name])):
            found["axes"][name] = found.pop(name)
        if name in found["axes"]:
            try:
                found["axes"][name] = axis_values(found["axes"][name], adapter)
            except ValidationError as error:
                del found["axes"][name]
                unread += [{**each, "loc": (name, *each["loc"])} for each in error.errors()]
    kinds = _known_kinds(found.get(OBJECTIVE, _KINDS))
    # Of the paper's search with one distance, what is inactive is said and without effect.
    papers = strategy.flips and {*kinds} <= {*_KINDS}
    for name, values in _PAPER.items():
        if found.get(name) is None and (_active(name, kinds) or papers):
            found[name] = values if strategy.flips else values[:1]
    unsaid = found.get("temperature") is None and "temperature" not in found["axes"]
    if strategy.flips and unsaid and (_active("temperature", kinds) or papers):
        found["temperature"] = Temperature()
    # What comes from JSON has lists, which a strict tuple does not take from here.
    return {name: _tuples(value) for name, value in found.items()}, unread, problems


def search_keys(strategy: str | None = None) -> tuple[str, ...]:
    """What a search may say; None: under any strategy."""
    kinds = [Strategy.named[strategy]] if strategy else list(Strategy.named.values())
    left_out = {"axes", "parameters", "rates"}
    if not any(kind.flips for kind in kinds):
        left_out |= {*_GREEDY}
    own = [name for name in Search.model_fields if name not in left_out]
    parameters = [name for kind in kinds for name in _fields(kind)]
    return tuple(dict.fromkeys([*own[:1], *parameters, "objective", *own[1:], *further_axes()]))


def further_axes() -> dict[str, TypeAdapter[Any]]:
    """The types of the values of every axis that has no field of its own in `Search`."""
    return _further_axes(tuple(Objective.kinds.values()))


@cache
def _further_axes(kinds: tuple[type[Objective], ...]) -> dict[str, TypeAdapter[Any]]:
    found: dict[str, Any] = {
        name: TypeAdapter(hint, config=VALUES)
        for kind in kinds
        for name, hint in get_type_hints(kind).items()
        if name in parameters_of(kind.kind)
    }
    return {n: t for n, t in {**found, **AXES}.items() if n == "temperature" or n not in _OWN}


_OWN = frozenset(Search.model_fields)
_RATES: TypeAdapter[dict[Optimizer, tuple[float, ...]]] = TypeAdapter(
    Annotated[dict[Optimizer, Annotated[Rates, LISTED]], Field(min_length=1)], config=VALUES
)


@cache
def _fields(strategy: type[Strategy]) -> dict[str, TypeAdapter[Any]]:
    """The types of a strategy's parameters."""
    hints = get_type_hints(strategy)
    names = [field.name for field in dataclasses.fields(strategy)]  # type: ignore[arg-type]
    return {name: TypeAdapter(hints[name], config=VALUES) for name in names}


def _rounded(value: Value) -> Value:
    """A temperature as objectives hold it, so that the best one is found again among these."""
    return significant(value) if isinstance(value, float) else value


def _active(name: str, kinds: Iterable[str]) -> bool:
    return any(is_active(name, kind) for kind in kinds)


def _known_kinds(value: Any) -> list[str]:
    listed = value if isinstance(value, list | tuple) else [value]
    return [kind for kind in listed if isinstance(kind, str) and kind in Objective.kinds]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_listed(value: Any) -> bool:
    """Whether these are values of an axis, not the section of the search in two rounds."""
    if isinstance(value, dict):
        return is_range(value)
    return value is not None and not isinstance(value, Temperature)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
