"""The study: its file, its data sets and models, and what they resolve to. No torch here."""

from kdsearch.study.cases import TestCase, taught_cases, teacher_of, test_cases
from kdsearch.study.catalogue import CATALOGUE, Entry
from kdsearch.study.differences import differences
from kdsearch.study.effective import (
    axis_key,
    checkpoints_of,
    effective_settings,
    epochs_key,
    nested_epochs,
    place_of,
    rates,
    search_of,
    setting_axes,
    source_of,
    space_of,
)
from kdsearch.study.given import given_labels
from kdsearch.study.hub import hub_model, hub_rows, reachable
from kdsearch.study.layers import Layers, kept_layers, named_layers, shown_layers
from kdsearch.study.load import load_study, parse_study, shipped_studies
from kdsearch.study.model_files import weight_files
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
from kdsearch.study.resolve import resolve
from kdsearch.study.resolved import (
    FORMAT,
    READABLE,
    Fused,
    Record,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
)
from kdsearch.study.resources import ROLES, SHARES, Resources, Role, Share
from kdsearch.study.rows import (
    DataRows,
    columns_of,
    digest_rows,
    known_rows,
    label_count,
    output_rows_per_row,
    read_dataset,
    source_paths,
    task_of,
)
from kdsearch.study.schema import (
    ERM,
    SPLITS,
    Dataset,
    Model,
    Study,
    Teacher,
    TestCases,
)
from kdsearch.study.search import Search
from kdsearch.study.section import LATER
from kdsearch.study.settings import AXES, Adam, Sgd, TrainingSettings
from kdsearch.study.sizes import BASE, cache_bytes, passed_weights, readable_size, shape_of
from kdsearch.study.sources import changed_sources, digest_model, find_model
from kdsearch.study.survey import survey
from kdsearch.study.tasks import SPECS, Row, TaskSpec, largest_score
from kdsearch.study.travel import travelling_files
from kdsearch.study.versions import installed_versions

__all__ = [
    "AXES",
    "BASE",
    "CATALOGUE",
    "ERM",
    "FORMAT",
    "LATER",
    "READABLE",
    "ROLES",
    "SAMPLE",
    "SHARES",
    "SPECS",
    "SPLITS",
    "Adam",
    "DataRows",
    "Dataset",
    "DatasetFacts",
    "Doubt",
    "Entry",
    "Fused",
    "Layers",
    "Model",
    "Preflight",
    "Reading",
    "Record",
    "Resolved",
    "ResolvedDataset",
    "ResolvedModel",
    "ResolvedSplit",
    "Resources",
    "Role",
    "Row",
    "Search",
    "Sgd",
    "Share",
    "SplitFacts",
    "Study",
    "TaskSpec",
    "Teacher",
    "TeacherSample",
    "TestCase",
    "TestCases",
    "TrainingSettings",
    "axis_key",
    "cache_bytes",
    "changed_sources",
    "checkpoints_of",
    "columns_of",
    "differences",
    "digest_model",
    "digest_rows",
    "effective_settings",
    "epochs_key",
    "find_model",
    "given_labels",
    "hub_model",
    "hub_rows",
    "installed_versions",
    "kept_layers",
    "known_rows",
    "label_count",
    "largest_score",
    "load_study",
    "named_layers",
    "nested_epochs",
    "output_rows_per_row",
    "parse_study",
    "passed_weights",
    "place_of",
    "preflight_digest",
    "rates",
    "reachable",
    "read_dataset",
    "readable_size",
    "resolve",
    "search_of",
    "setting_axes",
    "shape_of",
    "shipped_studies",
    "shown_layers",
    "source_of",
    "source_paths",
    "space_of",
    "survey",
    "task_of",
    "taught_cases",
    "teacher_of",
    "test_cases",
    "travelling_files",
    "weight_files",
]
