"""The study: its file, its data sets and models, and what they resolve to. No torch here."""

from kdsearch.study.hub import hub_model
from kdsearch.study.load import (
    TestCase,
    differences,
    load_study,
    parse_study,
    shipped_studies,
    space_of,
    test_cases,
)
from kdsearch.study.resolve import (
    Record,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    digest_model,
    given_labels,
    resolve,
)
from kdsearch.study.rows import Row, columns_of, known_rows, label_count
from kdsearch.study.schema import SPLITS, Adam, Study, TrainingSettings

__all__ = [
    "SPLITS",
    "Adam",
    "Record",
    "Resolved",
    "ResolvedDataset",
    "ResolvedModel",
    "ResolvedSplit",
    "Row",
    "Study",
    "TestCase",
    "TrainingSettings",
    "columns_of",
    "differences",
    "digest_model",
    "given_labels",
    "hub_model",
    "known_rows",
    "label_count",
    "load_study",
    "parse_study",
    "resolve",
    "shipped_studies",
    "space_of",
    "test_cases",
]
