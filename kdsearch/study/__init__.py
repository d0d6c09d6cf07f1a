"""The study: its file, its data sets and models, and what they resolve to. No torch here."""

from kdsearch.study.catalogue import CATALOGUE, Entry
from kdsearch.study.hub import hub_model, hub_rows, reachable
from kdsearch.study.load import (
    TestCase,
    differences,
    load_study,
    parse_study,
    shipped_studies,
    space_of,
    test_cases,
)
from kdsearch.study.parsers import GOLD, Row
from kdsearch.study.resolve import (
    FORMAT,
    READABLE,
    Record,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    given_labels,
    resolve,
    weight_files,
)
from kdsearch.study.rows import (
    columns_of,
    digest_rows,
    known_rows,
    label_count,
    read_dataset,
    task_of,
    units_per_row,
)
from kdsearch.study.schema import SPLITS, Adam, Dataset, Model, Study, Teacher, TrainingSettings
from kdsearch.study.sizes import cache_bytes, readable_size
from kdsearch.study.sources import changed_sources, digest_model

__all__ = [
    "CATALOGUE",
    "FORMAT",
    "GOLD",
    "READABLE",
    "SPLITS",
    "Adam",
    "Dataset",
    "Entry",
    "Model",
    "Record",
    "Resolved",
    "ResolvedDataset",
    "ResolvedModel",
    "ResolvedSplit",
    "Row",
    "Study",
    "Teacher",
    "TestCase",
    "TrainingSettings",
    "cache_bytes",
    "changed_sources",
    "columns_of",
    "differences",
    "digest_model",
    "digest_rows",
    "given_labels",
    "hub_model",
    "hub_rows",
    "known_rows",
    "label_count",
    "load_study",
    "parse_study",
    "reachable",
    "read_dataset",
    "readable_size",
    "resolve",
    "shipped_studies",
    "space_of",
    "task_of",
    "test_cases",
    "units_per_row",
    "weight_files",
]
