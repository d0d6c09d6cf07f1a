"""Scores from what was made of each test row: a metric is a function of sums over the rows.

The columns are those that `kdsearch/tasks` gives, `Task.statistics`; the formulas are of many sums
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.agenda import DataSpec

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Sequence[float]]

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_CHRF_BETA = 2


@dataclass(frozen=True, kw_only=True)
class RowScores:
    """The rows of a test split as numbers whose sums give the score."""

    terms: Any
    """[N, K], dense or sparse."""
    score: Callable[[Floats], Floats]
    """[..., K] sums of them to [...] scores."""

    def of_sums(self, weights: Floats) -> Floats:
        """[D]: the score where row n counts `weights[d, n]` times."""
        return self.score(weights @ self.terms)


def row_scores(columns: Columns, data: DataSpec) -> RowScores:
    """The rows of a model on the test split of `data`.

    Raises `ValueError`, `TypeError` or `KeyError` for columns that are not those of its metric.
    """
    match data.task, data.metric:
        case "classification" | "image_classification", "accuracy":
            label, predicted = _classes(columns, data)
            right = (label == predicted).astype(float)
            return RowScores(terms=_with_ones(right), score=_share)
        case "classification" | "image_classification", _:
            label, predicted = _classes(columns, data)
            return _f1(label, predicted, len(data.labels))
        case "lm", "likelihood":
            terms = _dense(columns, "log_likelihood", "tokens")
            return RowScores(terms=terms, score=lambda sums: np.exp(_share(sums)))
        case "lm", metric:
            name = "rouge_l" if metric == "rouge_l" else "right"
            return RowScores(terms=_with_ones(_dense(columns, name)[:, 0]), score=_share)
        case "qa", metric:
            return RowScores(terms=_with_ones(_dense(columns, metric)[:, 0]), score=_share)
        case "ner", "accuracy":
            return RowScores(terms=_dense(columns, "right", "words"), score=_share)
        case "ner", _:
            return RowScores(terms=_dense(columns, "hits", "false", "missed"), score=_entity_f1)
        case _, "bleu":
            orders = range(1, _BLEU_ORDER + 1)
            counts = (f"{what}_{n}" for what in ("matches", "ngrams") for n in orders)
            return RowScores(
                terms=_dense(columns, "words", "reference_words", *counts), score=_bleu
            )
        case _:
            kinds = ("ngrams", "reference_ngrams", "matches")
            counts = (f"{what}_{n}" for what in kinds for n in range(1, _CHRF_ORDER + 1))
            return RowScores(terms=_dense(columns, *counts), score=_chrf)


def _dense(columns: Columns, *names: str) -> Floats:
    found = np.array([columns[name] for name in names], dtype=np.float64).T
    if not np.isfinite(found).all():
        raise ValueError("a count is not finite")
    return found


def _with_ones(values: Floats) -> Floats:
    return np.stack([values, np.ones(len(values))], axis=1)


def _classes(columns: Columns, data: DataSpec) -> npt.NDArray[np.int64]:
    """[2, N]: the labels that are right, and those predicted."""
    classes = _dense(columns, "label", "predicted").T.astype(np.int64)
    if not ((classes >= 0) & (classes < len(data.labels))).all():
        raise ValueError("a label has no name")
    return classes


def _f1(label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: int) -> RowScores:
    """F1 of the second of two labels, or the mean over all of more; 0 where nothing is there."""
    from scipy.sparse import csr_array

    # Of each label how often it was hit, predicted and right: a row has a few of many columns.
    rows = np.arange(len(label))
    hit = label == predicted
    columns = np.concatenate([3 * label[hit], 3 * predicted + 1, 3 * label + 2])
    where = (np.concatenate([rows[hit], rows, rows]), columns)
    terms = csr_array((np.ones(len(columns)), where), shape=(len(label), 3 * labels))

    def score(sums: Floats) -> Floats:
        by_label = sums.reshape(*sums.shape[:-1], labels, 3)
        f1 = _ratio(2 * by_label[..., 0], by_label[..., 1] + by_label[..., 2])
        return f1[..., 1] if labels == 2 else f1.mean(axis=-1)

    return RowScores(terms=terms, score=score)


def _share(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 1])


def _entity_f1(sums: Floats) -> Floats:
    hits, false, missed = np.moveaxis(sums, -1, 0)
    return _ratio(2 * hits, 2 * hits + false + missed)


def _bleu(sums: Floats) -> Floats:
    """Papineni et al. 2002, smoothed as in mteval-v13a: sacrebleu's default (`exp`)."""
    words, reference_words = sums[..., 0], sums[..., 1]
    matches, ngrams = np.split(sums[..., 2:], 2, axis=-1)
    # The k-th order without a match counts as if 2^-k of one had been there.
    halved = np.exp2(-np.cumsum(matches == 0, axis=-1))
    precisions = _ratio(np.where(matches == 0, halved, matches), ngrams)
    with np.errstate(divide="ignore"):
        mean = np.exp(np.log(precisions).mean(axis=-1))
        brevity = np.exp(np.minimum(0, 1 - _ratio(reference_words, words)))
    return np.where(matches.any(axis=-1), 100 * brevity * mean, 0.0)


def _chrf(sums: Floats) -> Floats:
    """Popović 2015 as in sacrebleu: means over the orders that hypothesis and reference have."""
    ngrams, reference_ngrams, matches = np.split(sums, 3, axis=-1)
    there = (ngrams > 0) & (reference_ngrams > 0)
    orders = there.sum(axis=-1)
    precision = _ratio((_ratio(matches, ngrams) * there).sum(axis=-1), orders)
    recall = _ratio((_ratio(matches, reference_ngrams) * there).sum(axis=-1), orders)
    factor = _CHRF_BETA**2
    return 100 * _ratio((1 + factor) * precision * recall, factor * precision + recall)


def _ratio(part: Any, whole: Any) -> Floats:
    """Their quotient, and 0 where `whole` is."""
    quotient: Floats = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole != 0)
    return quotient
