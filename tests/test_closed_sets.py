"""Every map over a closed set covers all of it, so that a new member cannot be forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from test_analysis import searched
from test_cli import kdsearch

from kdsearch.agenda import FAILURES, Attempt, Failure, Training
from kdsearch.analysis import Take, Verdict
from kdsearch.analysis.cost import KINDS
from kdsearch.analysis.edges import FROM_1, SHARES
from kdsearch.analysis.gains import LeftOut
from kdsearch.analysis.sizes import Kind
from kdsearch.distill import memory
from kdsearch.distill.lora import TASK_TYPES
from kdsearch.distill.measures import MEASURES
from kdsearch.distill.outputs import _STORED
from kdsearch.report import glossary, practice
from kdsearch.report.figures import LEFT_OUT
from kdsearch.report.hub import METRICS
from kdsearch.report.marks import AGAINST_ERM
from kdsearch.report.snippets import AUTO_CLASSES
from kdsearch.search import CHECKPOINT, OBJECTIVE, Checkpoint, Objective, Strategy, parameters_of
from kdsearch.study import SPECS, TrainingSettings, largest_score, settings
from kdsearch.study.grammar import GRAMMARS
from kdsearch.study.refused import needed
from kdsearch.study.sizes import _ITEM_BYTES
from kdsearch.study.tasks import TaskName
from kdsearch.tasks import TASKS

BY_TASK = {
    "study.SPECS": SPECS,
    "tasks.TASKS": TASKS,
    "lora.TASK_TYPES": TASK_TYPES,
    "snippets.AUTO_CLASSES": AUTO_CLASSES,
}


@pytest.mark.parametrize("name", BY_TASK)
def test_a_map_by_task_has_every_task(name: str) -> None:
    assert set(BY_TASK[name]) == set(get_args(TaskName))


def test_the_grammar_makes_rows_of_every_task_whose_columns_it_has() -> None:
    assert set(GRAMMARS) == {name for name, spec in SPECS.items() if spec.generated is not None}


def test_both_sides_of_a_task_say_what_its_models_read() -> None:
    for name, spec in SPECS.items():
        assert (spec.reads == "pixels") == TASKS[name].reads_pixels


def test_a_metric_has_one_largest_score_whatever_the_task() -> None:
    for spec in SPECS.values():
        assert {largest_score(metric) for metric in spec.metrics} == {spec.largest_score}


def test_the_hub_has_a_name_of_every_metric() -> None:
    assert set(METRICS) == {(task, metric) for task in SPECS for metric in SPECS[task].metrics}


def test_the_glossary_has_every_objective_and_parameter_and_axis() -> None:
    assert set(glossary.OBJECTIVES) == set(Objective.kinds)
    parameters = {name for kind in Objective.kinds for name in parameters_of(kind)}
    assert set(glossary.AXES) == parameters | set(settings.AXES) | {OBJECTIVE}
    assert CHECKPOINT in {term.name for term in glossary.TEACHING}


def test_the_glossary_has_every_checkpoint_strategy_measure_and_metric() -> None:
    assert set(glossary.CHECKPOINTS) == set(Checkpoint)
    assert set(glossary.STRATEGIES) == set(Strategy.named)
    assert set(glossary.MEASURES) == set(MEASURES)
    assert set(glossary.METRICS) == {name for spec in SPECS.values() for name in spec.metrics}


def test_every_verdict_on_the_student_without_a_teacher_has_words() -> None:
    assert set(AGAINST_ERM) == set(Verdict)
    assert set(practice.FIRST) == set(practice.FURTHER) == set(Verdict)


def test_every_student_that_may_be_taken_has_words_and_options() -> None:
    assert set(practice.TAKES) == set(practice.OPTIONS) == set(Take)


def test_the_picture_of_sizes_draws_every_kind_of_model() -> None:
    script = files("kdsearch.report.page").joinpath("sizes.js").read_text(encoding="utf-8")
    drawn = re.search(r"const KINDS = (\[.*?\]);", script)
    assert drawn is not None
    assert sorted(json.loads(drawn[1])) == sorted(Kind)


def test_every_class_of_failure_has_words() -> None:
    assert set(FAILURES) == set(get_args(Failure))
    assert len(set(FAILURES.values())) == len(FAILURES)


def test_every_reason_to_leave_a_gain_out_has_words() -> None:
    assert set(LEFT_OUT) == set(LeftOut)


def test_costs_are_summed_over_every_kind_of_training() -> None:
    kinds = {training.model_fields["kind"].default for training in get_args(Training)}
    assert set(KINDS) == kinds


def test_every_type_of_hidden_states_has_a_size_and_a_form_on_disk() -> None:
    field = TrainingSettings.model_fields["hidden_dtype"].annotation
    found = {value for part in get_args(field) for value in get_args(part)}
    assert found
    assert found == set(_STORED) == set(_ITEM_BYTES)


def test_every_optimizer_has_a_section_and_a_share_of_memory() -> None:
    every = set(get_args(settings.Optimizer))
    assert set(settings.SECTIONS) == set(memory._COPIES) == every


def test_every_setting_of_a_training_is_an_axis_or_said_to_be_none() -> None:
    sections = {section for section, _ in settings.SECTIONS.values()}
    none = {"max_length", "stride", "beams", "hidden_dtype", "cache", "cpu_threads", "stops"}
    none |= {"lora", "gradient_checkpointing", "sequences"}
    fields = {*settings.TrainingSettings.model_fields}
    assert fields - sections - none == settings.AXES.keys() & fields
    of_sections = {n for _, kind in settings.SECTIONS.values() for n in kind.model_fields}
    assert settings.AXES.keys() - fields - of_sections == {"learning_rate", "layers", "lora_rank"}


def test_every_axis_that_ends_at_1_is_known_to_the_edges() -> None:
    makers: dict[str, Callable[[Any], object]] = {
        name: kind.validate_python for name, kind in settings.AXES.items()
    }
    for kind in Objective.kinds.values():
        names = [field.name for field in fields(cast(Any, kind))]
        for name in names:
            others = dict.fromkeys(needed(kind), 0.5)
            makers[name] = partial(made_with, kind, others, name)
    taken = {
        name: [accepts(make, value) for value in (0, 0.5, 1, 1.5)] for name, make in makers.items()
    }
    assert set(SHARES) == {name for name, (_, half, _, more) in taken.items() if half and not more}
    counts = {n for n, (zero, half, one, _) in taken.items() if one and not zero and not half}
    assert counts
    assert counts - {"layers"} <= set(FROM_1) <= taken.keys()  # those are left out of it


def made_with(kind: Any, others: dict[str, float], name: str, value: Any) -> object:
    return kind(**{**others, name: value})


def accepts(make: Callable[[Any], object], value: float) -> bool:
    try:
        make(value)
    except (TypeError, ValueError):  # of what takes words
        return False
    return True


def test_a_try_of_any_class_is_told_by_every_command(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path / "study")
    for failure, key in zip(get_args(Failure), agenda.results, strict=False):
        tried = Attempt(key=key, number=0, failure=failure, message="once", host="here")
        ledger.write_attempt(tried)

    for command in ("report", "status", "explain"):
        ended = kdsearch(command, ledger.folder)
        assert ended.code == 0, ended
    assert kdsearch("mirror", ledger.folder, f"sqlite:///{tmp_path}/mirror.db").code == 0
    page = (ledger.folder / "report" / "report.html").read_text()
    for words in FAILURES.values():
        assert words.replace("'", "&#39;") in page
