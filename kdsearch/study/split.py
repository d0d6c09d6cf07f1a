"""Drawing validation and test rows off the training rows of one's own files, fairly.

Rows that belong together, such as the questions about one context, come to one side; labels have
about the shares that they have in all rows.
"""

from __future__ import annotations

import random
import warnings
from array import array
from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from itertools import permutations

import numpy as np
import numpy.typing as npt

from kdsearch.errors import InputError
from kdsearch.study.parsers import group_value
from kdsearch.study.tasks import SPECS, Columns, Row

_SHARE = 10
"""A split that is drawn has one row in so many."""
_MOST_GROUPS = 1_000
"""What scikit-learn deals out in a second; more are put together at random first."""
_UNLABELLED = -1


def group_of(columns: Columns, row: Row) -> str:
    """What rows that must not be parted have in common: the context, the premise or the text."""
    return SPECS[columns.task].group(row)


def group_name(columns: Columns) -> str:
    """The column, or columns, by which rows belong together."""
    own = columns.text[SPECS[columns.task].group_column]
    named = columns.group not in (None, own)
    return f"{own} and {columns.group}" if named else own


class Drawing:
    """Of each training row, what a fair draw needs: a number for its label, one for its group."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._labels: dict[Hashable, int] = {}
        self._strata = array("l")
        self._groups = array("Q")
        self._named = array("Q")  # by the column that the study names, if it does
        self._filled = False

    def add(self, raw: Row, row: Row) -> None:
        """Take in the next row, in its raw form and in its task's."""
        own = group_of(self._columns, row)
        self._groups.append(hash_of(own))
        if self._columns.group is not None:
            named = group_value(raw, self._columns)
            self._filled = self._filled or named is not None
            self._named.append(hash_of(f"{own}\0" if named is None else named))
        label = self._label(row)
        number = self._labels.setdefault(label, len(self._labels))
        self._strata.append(_UNLABELLED if label is None else number)

    def _label(self, row: Row) -> Hashable:
        """What is spread evenly; of ner all tags of a row, of which `draw` takes the rarest."""
        spec = SPECS[self._columns.task]
        gold = row[spec.gold]
        return None if gold is None else spec.stratum(gold)

    @property
    def labelled(self) -> Sequence[bool]:
        """Whether each row has its label."""
        return [stratum != _UNLABELLED for stratum in self._strata]

    def groups(self, chosen: Sequence[int]) -> list[int] | None:
        """A number for the group of each of these rows.

        None where none has a group of the study's own: then the rows alone say what they share.
        """
        if not self._filled:
            return None
        numbers = np.asarray(chosen)
        joined = _joined(np.asarray(self._groups)[numbers], np.asarray(self._named)[numbers])
        found: dict[int, int] = {}
        return [found.setdefault(group, len(found)) for group in joined.tolist()]

    @property
    def rule(self) -> str:
        """How rows are drawn, in words."""
        grouped = f"grouped by {group_name(self._columns)}"
        if len(self._labels) < 2:
            return grouped
        return f"stratified by {self._columns.label}, {grouped}"

    def draw(self, missing: Sequence[str], place: str, seed: str) -> dict[str, Sequence[int]]:
        """The numbers of the rows of each split of `missing`, and of `train` without them.

        Rows whose group has one without a label stay in train. Raises `InputError` where there are
        too few groups.
        """
        strata = self._rarest(np.asarray(self._strata))
        groups = np.asarray(self._groups)
        if self._named:
            groups = _joined(groups, np.asarray(self._named))
        held = np.unique(groups[strata == _UNLABELLED])
        free = np.flatnonzero(~np.isin(groups, held))
        numbers = _numbered(groups[free], seed)
        tenth = max(1, len(groups) // _SHARE)
        different = len(np.unique(numbers))
        folds = min(different, max(len(missing) + 1, round(len(free) / tenth)))
        fold_of = _dealt(strata[free], numbers, folds) if folds > 1 else numbers
        if len(np.unique(fold_of)) <= len(missing):
            values = f"{different} value{'s' * (different != 1)} of {group_name(self._columns)}"
            what = f"{len(free)} labelled rows with {values} are too few"
            what = f"{what} to draw {' and '.join(missing)} from"
            raise InputError.one(place, what, f"give a {missing[0]} split")
        chosen = _best(strata[free], fold_of, len(missing), tenth)
        drawn = {split: free[fold_of == fold] for split, fold in zip(missing, chosen, strict=True)}
        rest = np.setdiff1d(np.arange(len(groups)), np.concatenate([*drawn.values()]))
        return {
            split: array("q", numbers.astype("q").tobytes())
            for split, numbers in {"train": rest, **drawn}.items()
        }

    def _rarest(self, strata: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of ner, the rarest tag of each row's set in place of the set."""
        if self._columns.task != "ner":
            return strata
        rows = Counter(strata.tolist())
        tags: Counter[int] = Counter()
        for label, number in self._labels.items():
            if isinstance(label, frozenset):
                tags.update(dict.fromkeys(label, rows[number]))
        names = [0] * (len(self._labels) + 1)
        names[_UNLABELLED] = _UNLABELLED
        for label, number in self._labels.items():
            if isinstance(label, frozenset):
                names[number] = min(label, key=lambda tag: (tags[tag], tag))
        return np.asarray(names)[strata]


def hash_of(text: str) -> int:
    """64 bits of a text's digest."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _joined(
    groups: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """One group for rows that are of one in either way, be it by way of other rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.unique(groups, return_inverse=True)[1]
    second = np.unique(others, return_inverse=True)[1] + first.max() + 1
    size = second.max() + 1
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(size, size))
    number_of: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return number_of[first].astype(np.uint64)


def _numbered(groups: npt.NDArray[np.uint64], seed: str) -> npt.NDArray[np.intp]:
    """Groups as numbers in random order; of very many, several have one number."""
    distinct = np.unique(groups)
    if len(distinct) > _MOST_GROUPS:
        groups = (groups ^ np.uint64(hash_of(seed))) % np.uint64(_MOST_GROUPS)
        distinct = np.unique(groups)
    order = list(range(len(distinct)))
    random.Random(seed).shuffle(order)
    numbers: npt.NDArray[np.intp] = np.asarray(order)[np.searchsorted(distinct, groups)]
    return numbers


def _dealt(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.intp], folds: int
) -> npt.NDArray[np.intp]:
    """The fold of each row, by scikit-learn."""
    # It takes a while to import, which studies with all their splits do not need.
    from sklearn.model_selection import StratifiedGroupKFold

    _, labels, counts = np.unique(strata, return_inverse=True, return_counts=True)
    if max(counts) < folds:
        labels = np.zeros_like(labels)  # no label is frequent enough to be in every fold
    fold_of = np.empty(len(strata), dtype=np.intp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that are rarer than folds, which may be
        dealt = StratifiedGroupKFold(folds).split(labels, labels, groups)
        for fold, (_, rows) in enumerate(dealt):
            fold_of[rows] = fold
    return fold_of


def _best(
    strata: npt.NDArray[np.int64], fold_of: npt.NDArray[np.intp], wanted: int, size: int
) -> tuple[int, ...]:
    """The folds that leave no label out, of train least of all, and whose sizes are near `size`."""
    _, labels = np.unique(strata, return_inverse=True)
    table = np.zeros((fold_of.max() + 1, labels.max() + 1), dtype=int)
    np.add.at(table, (fold_of, labels), 1)

    def faults(chosen: tuple[int, ...]) -> tuple[int, int, int]:
        train = table.sum(axis=0) - table[[*chosen]].sum(axis=0)
        lacking = int((table[[*chosen]] == 0).sum())
        return (
            int((train == 0).sum()),
            lacking,
            int(np.abs(table[[*chosen]].sum(axis=1) - size).sum()),
        )

    filled = np.flatnonzero(table.sum(axis=1)).tolist()
    return min(permutations(filled, wanted), key=faults)
