"""The study: its file, its data sets and models, and what they resolve to. No torch here."""

from kdsearch.study.catalogue import CATALOGUE, Entry
from kdsearch.study.given import given_labels
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
from kdsearch.study.preflight import (
    SAMPLE,
    DatasetFacts,
    Doubt,
    Preflight,
    Reading,
    SplitFacts,
    TeacherSample,
    preflight_digest,
)
from kdsearch.study.resolve import (
    FORMAT,
    READABLE,
    Record,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    resolve,
    weight_files,
)
from kdsearch.study.rows import (
    columns_of,
    digest_rows,
    known_rows,
    label_count,
    read_dataset,
    source_paths,
    task_of,
    units_per_row,
)
from kdsearch.study.schema import (
    LATER,
    SPLITS,
    Adam,
    Dataset,
    Model,
    Study,
    Teacher,
    TestCases,
    TrainingSettings,
    largest_score,
)
from kdsearch.study.sizes import cache_bytes, passed_weights, readable_size
from kdsearch.study.sources import changed_sources, digest_model
from kdsearch.study.survey import survey
from kdsearch.study.travel import travelling_files
from kdsearch.study.versions import installed_versions

__all__ = [
    "CATALOGUE",
    "FORMAT",
    "GOLD",
    "LATER",
    "READABLE",
    "SAMPLE",
    "SPLITS",
    "Adam",
    "Dataset",
    "DatasetFacts",
    "Doubt",
    "Entry",
    "Model",
    "Preflight",
    "Reading",
    "Record",
    "Resolved",
    "ResolvedDataset",
    "ResolvedModel",
    "ResolvedSplit",
    "Row",
    "SplitFacts",
    "Study",
    "Teacher",
    "TeacherSample",
    "TestCase",
    "TestCases",
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
    "installed_versions",
    "known_rows",
    "label_count",
    "largest_score",
    "load_study",
    "parse_study",
    "passed_weights",
    "preflight_digest",
    "reachable",
    "read_dataset",
    "readable_size",
    "resolve",
    "shipped_studies",
    "source_paths",
    "space_of",
    "survey",
    "task_of",
    "test_cases",
    "travelling_files",
    "units_per_row",
    "weight_files",
]
