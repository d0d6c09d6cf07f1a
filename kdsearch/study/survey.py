"""What the rows of a study's data sets hold: labels, gaps, and texts that stand in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from kdsearch.errors import Problem, shortened_list
from kdsearch.search import OBJECTIVE, TIED, is_active
from kdsearch.study.augmentation import Augmentation
from kdsearch.study.augmenting import seen_views
from kdsearch.study.cases import TestCase, one_teacher, taught_cases, teacher_of, test_cases
from kdsearch.study.effective import (
    EPOCHS,
    effective_settings,
    place_of,
    search_of,
    setting_axes,
    source_of,
    space_of,
)
from kdsearch.study.preflight import DatasetFacts, Doubt, SplitFacts
from kdsearch.study.resolved import Resolved, ResolvedDataset
from kdsearch.study.schema import SPLITS, Study
from kdsearch.study.settings import AUGMENTATION
from kdsearch.study.tags import OUTSIDE, entities, scheme_of, to_iob2
from kdsearch.study.tasks import SPECS, Row

_PAIRS = tuple((later, earlier) for earlier, later in combinations(SPLITS, 2))
_MOST_NAMED = 5
_HOTTEST = 4.0
"""At which the 128 likeliest of 49,152 tokens hold 4 % of the probability (of SmolLM2-135M, on
texts of GSM8K), in place of 96 % at 1."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The facts of a split, and its texts by their hashes, so that no two splits are in memory."""

    digest: str
    facts: SplitFacts
    texts: list[int]
    contexts: list[int]
    """Of qa."""


def survey(
    resolved: Resolved, rows: Callable[[str], list[Row]], place: str
) -> tuple[Mapping[str, DatasetFacts], Sequence[Doubt], Sequence[Problem]]:
    """The facts of each data set; `rows` gives a split's by its digest.

    All rows are looked at. A problem is only that the rows of a study's folder are gone.
    """
    facts: dict[str, DatasetFacts] = {}
    doubts: list[Doubt] = []
    problems: list[Problem] = []
    for name, data in resolved.datasets.items():
        where = f"{place}: datasets.{name}"
        splits: dict[str, _Split] = {}
        for split in SPLITS:
            digest = data.splits[split].digest
            try:
                splits[split] = _split(data, digest, rows(digest))
            except (FileNotFoundError, ValueError):
                what = f"the rows of {split} cannot be read from data/{digest}.jsonl"
                remedy = "bring it back from a copy of the study's folder"
                problems.append(Problem(place=where, what=what, remedy=remedy))
        if len(splits) < len(SPLITS):
            continue
        shared = {f"{a} in {b}": _shared(splits[a].texts, splits[b].texts) for a, b in _PAIRS}
        facts[name] = DatasetFacts(splits={s: splits[s].facts for s in SPLITS}, shared=shared)
        found: tuple[tuple[str, str], ...] = (
            *_left_out(resolved.study, name, data),
            *_grouped(resolved.study, name, data),
            *_unlabelled(resolved.study, name, splits["train"].facts),
            *_unseen_labels(resolved.study, name, data, facts[name].splits),
            *_unscored_labels(data, facts[name].splits),
            *_enlarged(data),
        )
        if resolved.study.datasets[name].grammar is None:  # whose sentences repeat themselves
            found += (*_shared_texts(splits, shared),)
        doubts += [Doubt(place=where, what=what, remedy=remedy) for what, remedy in found]
    doubts += dict.fromkeys((*_hot(resolved, place), *_unseen_views(resolved.study, place)))
    return facts, doubts, problems


_Found = Iterator[tuple[str, str]]
"""What is doubtful, and what to do about it."""


def _split(data: ResolvedDataset, digest: str, rows: list[Row]) -> _Split:
    golds = [gold for row in rows if (gold := row[SPECS[data.task].gold]) is not None]
    labels = dict.fromkeys(_labels(data), 0)
    if SPECS[data.task].one_label:
        labels |= Counter(data.labels[gold] for gold in golds)
    elif data.task == "ner":
        tags = ([data.labels[tag] for tag in gold] for gold in golds)
        labels |= Counter(kind for each in tags for kind in _kinds(each, data))
    return _Split(
        digest=digest,
        facts=SplitFacts(
            rows=len(rows), unlabelled=len(rows) - len(golds), labels=labels, chance=_chance(rows)
        ),
        texts=[hash(SPECS[data.task].texts(row)) for row in rows],
        contexts=[hash(row["context"]) for row in rows] if data.task == "qa" else [],
    )


def _chance(rows: list[Row]) -> float | None:
    """How often one is right who draws a choice, or always takes the text that is most often it."""
    choices = [row["choices"] for row in rows if "choices" in row]
    if not choices:
        return None
    [(_, most)] = Counter(row["completion"] for row in rows).most_common(1)
    return max(fmean(1 / len(each) for each in choices), most / len(rows))


def _labels(data: ResolvedDataset) -> tuple[str, ...]:
    """The labels of classification, the kinds of entity of ner."""
    if data.task != "ner":
        return data.labels
    every = ([label] for label in data.labels)
    return tuple(dict.fromkeys(kind for tags in every for kind in _kinds(tags, data)))


def _kinds(tags: Sequence[str], data: ResolvedDataset) -> Iterator[str]:
    """The kind of each entity of a sentence; where tags are no entities, each one but O."""
    if scheme_of(data.labels) is None:
        return (tag for tag in tags if tag != OUTSIDE)
    prefixed = scheme_of(data.labels) != "IO"
    return (kind for kind, _, _ in entities(tags if prefixed else to_iob2(tags)))


def _shared(texts: list[int], other: list[int]) -> int:
    there = set(other)
    return sum(text in there for text in texts)


def _left_out(study: Study, name: str, data: ResolvedDataset) -> _Found:
    own = study.datasets[name].files is not None
    for split, rows in data.left_out.items():
        why = "they have no answer" if own else "they cannot be used"
        remedy = "unanswerable: true keeps them" if own else ""
        yield f"left out of {split}, since {why}: {_number(rows, 'row')}", remedy


def _grouped(study: Study, name: str, data: ResolvedDataset) -> _Found:
    group = study.datasets[name].group
    if group is None or data.test_groups is not None:
        return
    what = f"its group, {group}, is not known of the test rows, whose noise may come out too small"
    if data.cut:
        yield what, "give them that column too"
    else:
        what = f"{what}, and draws no split: all are given"
        yield what, "check that no group is in two of them; give test that column, or remove group"


def _hot(resolved: Resolved, place: str) -> Iterator[Doubt]:
    """Temperatures at which a whole vocabulary's probabilities are next to uniform."""
    study = resolved.study
    for case in test_cases(study):
        space = space_of(study, case)
        if resolved.datasets[case.dataset].task != "lm" or search_of(study, case).in_logit_scales:
            continue
        for name in ("temperature", "student_temperature"):
            if name not in space.names or not any(
                is_active(name, kind) for kind in space.values(OBJECTIVE)
            ):
                continue
            numbers = [value for value in space.values(name) if value != TIED]
            hot = [f"{value:g}" for value in numbers if value > _HOTTEST]
            if hot:
                what = (
                    f"at {shortened_list(hot)} a model's probabilities of the tokens of its "
                    "vocabulary are next to uniform, so that little is left of what it knows"
                )
                remedy = "0.5 to 3 is the range to try, or temperature_unit: logit_scale"
                where = f"{place}: {place_of(case)}.{name}"
                yield Doubt(place=where, what=what, remedy=remedy)


def _unseen_views(study: Study, place: str) -> Iterator[Doubt]:
    """Numbers of views of which a teacher's students, in their few epochs, see half at most."""
    longest: dict[tuple[object, Augmentation], tuple[int, str]] = {}
    for case in taught_cases(study):
        axes = setting_axes(space_of(study, case))
        epochs = max(axes.get(EPOCHS) or [effective_settings(study, case, "student").epochs])
        where = f"{place}: {source_of(study, case, 'student', AUGMENTATION)}"
        for at in [{AUGMENTATION: name} for name in axes.get(AUGMENTATION, ())] or [{}]:
            for each in seen_views(study, case, at):
                of = one_teacher(study, case), each
                longest[of] = max(longest.get(of, (0, where)), (epochs, where))
    for (_, each), (epochs, where) in longest.items():
        if 2 * epochs <= each.views:
            what = f"what a teacher says is kept of {each.views} views of each image, of which "
            what += f"students of {epochs} epoch{'s' * (epochs > 1)} see {epochs}"
            yield Doubt(place=where, what=what, remedy=f"set views: {epochs}")


def _unlabelled(study: Study, name: str, train: SplitFacts) -> _Found:
    """Rows that only a teacher says anything about, where something learns from labels too."""
    cases = [case for case in test_cases(study) if case.dataset == name]
    teachers = [teacher for case in cases if (teacher := teacher_of(study, case))]
    learners = ["a teacher is fine-tuned"] if any(not teacher.there for teacher in teachers) else []
    learners += [f"{search or 'a student'} learns" for search in _untaught(cases)]
    if train.unlabelled and learners:
        rest = train.rows - train.unlabelled
        what = f"{train.unlabelled:,} of {train.rows:,} training rows have no label"
        yield f"{what}; {' and '.join(learners)} only on the other {rest:,}", ""


def _untaught(cases: Iterable[TestCase]) -> Iterable[str | None]:
    """The searches without a teacher."""
    return dict.fromkeys(case.search for case in cases if case.teacher is None)


def _unseen_labels(
    study: Study, name: str, data: ResolvedDataset, splits: Mapping[str, SplitFacts]
) -> _Found:
    """Labels that no training row has."""
    train, validation, test = (splits[split].labels for split in SPLITS)
    if splits["train"].unlabelled == splits["train"].rows:
        return
    row = "entity" if data.task == "ner" else "row"
    unseen = [label for label in train if not train[label]]
    nowhere = [label for label in unseen if not validation[label] and not test[label]]
    late = [label for label in unseen if not validation[label] and test[label]]
    untaught = [label for label in unseen if validation[label]]
    if nowhere and study.datasets[name].labels is not None:  # else a given teacher has them
        remedy = f"leave {_it(nowhere)} out of datasets.{name}.labels"
        yield f"no split has any {row} of {_named(nowhere)}", remedy
    if late:
        rows = _number(sum(test[label] for label in late), row)
        what = f"only test has {_named(late)} ({rows}): neither training nor selection sees"
        yield f"{what} {_it(late)}", "give train and validation some"
    if untaught:
        counts = {s: sum(splits[s].labels[label] for label in untaught) for s in SPLITS[1:]}
        others = " and ".join(f"{split} has {number:,}" for split, number in counts.items())
        what = f"train has no {row} of {_named(untaught)}, of which {others}"
        yield what, "give train some"


def _unscored_labels(data: ResolvedDataset, splits: Mapping[str, SplitFacts]) -> _Found:
    """Classes that a score is over and that the scored rows do not have, and what that costs."""
    if not SPECS[data.task].one_label:
        return
    lacking: dict[tuple[str, ...], list[str]] = {}
    for split in SPLITS[1:]:
        counts = splits[split].labels
        lacking.setdefault(tuple(x for x in counts if not counts[x]), []).append(split)
    for labels, of in lacking.items():
        if not labels:
            continue
        what = f"{' and '.join(of)} {'has' if len(of) == 1 else 'have'} no row of {_named(labels)}"
        every = len(data.labels)
        if data.metric == "f1" and every > 2:
            most = (every - len(labels)) / every
            its = "its" if len(labels) == 1 else "their"
            what += f": {its} F1 is 0 there, so the macro F1 is at most {most:.3f}"
        yield what, f"give {' and '.join(of)} some"


def _enlarged(data: ResolvedDataset) -> _Found:
    """Images of which more is kept than there is."""
    counts = [
        f"{number:,} of {data.splits[split].rows:,} {split} images"
        for split, number in data.enlarged.items()
        if number
    ]
    if counts:
        what = f"less than half as large as the {data.image_size} pixels that are kept of each"
        remedy = "a smaller image_size loses nothing of them, and trains faster"
        yield f"{what}: {', '.join(counts)}", remedy


def _shared_texts(splits: Mapping[str, _Split], shared: Mapping[str, int]) -> _Found:
    """Rows of a split that another has too; of qa also contexts, which are easily learnt."""
    for earlier in SPLITS[:2]:
        texts, contexts = [], []
        for later in SPLITS[SPLITS.index(earlier) + 1 :]:
            a, b = splits[later], splits[earlier]
            if a.digest == b.digest:
                yield _SAME[later, earlier], f"give other rows for {later}"
                continue
            rows, both = f"{a.facts.rows:,} {later} rows", shared[f"{later} in {earlier}"]
            if both:
                texts.append((both, rows))
            if (number := _shared(a.contexts, b.contexts)) > both:
                contexts.append((number, rows))
        if texts:
            remedy = "leave them out of train" if earlier == "train" else "keep each in one of them"
            yield f"{_of(texts)} {_is(texts, 'is', 'are')} in {earlier} too", remedy
        if contexts:
            have = f"{_of(contexts)} {_is(contexts, 'has its', 'have their')}"
            remedy = "split between contexts, not within them"
            yield f"{have} context in {earlier} too", remedy


def _of(counts: Sequence[tuple[int, str]]) -> str:
    return " and ".join(f"{number:,} of {rows}" for number, rows in counts)


def _is(counts: Sequence[tuple[int, str]], one: str, many: str) -> str:
    return one if [number for number, _ in counts] == [1] else many


_SAME = {
    ("validation", "train"): "train and validation are the same rows, so selection favours what "
    "memorises them",
    ("test", "train"): "train and test are the same rows, so test scores only measure memorisation",
    ("test", "validation"): "validation and test are the same rows, so the test scores are "
    "those by which everything was chosen",
}


def _named(labels: Sequence[str]) -> str:
    first = [x if len(x) <= 50 else f"{x[:50]}…" for x in labels[:_MOST_NAMED]]
    if len(labels) > _MOST_NAMED:
        first.append(f"{len(labels) - _MOST_NAMED} more")
    return " and ".join([", ".join(first[:-1]), first[-1]]) if len(first) > 1 else first[0]


def _number(number: int, noun: str) -> str:
    plural = f"{noun}s" if noun != "entity" else "entities"
    return f"{number:,} {noun if number == 1 else plural}"


def _it(labels: Sequence[str]) -> str:
    return "it" if len(labels) == 1 else "them"
