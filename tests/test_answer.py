"""The practitioner's answer: is distilling worth it, and how to get the student."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

import pytest
from fakes import a_study, memory_ledger, outcome_of, resolved_of

from kdsearch.agenda import Agenda, Cost, StudentTraining, TeacherTraining, Training
from kdsearch.analysis import CaseAnswer, Take, Verdict, analyse
from kdsearch.cli.options import print_answer
from kdsearch.report import answer
from kdsearch.report.choices import OBJECTIVES, PARAMETERS, SETTINGS, in_words
from kdsearch.report.page import page
from kdsearch.report.plain import to_json
from kdsearch.report.practice import export_line
from kdsearch.report.write import report_files
from kdsearch.search import Checkpoint, Choice, Objective, parameters_of
from kdsearch.study.settings import AXES

Scores = tuple[float, float]
"""On validation, and on test."""
SEARCHES: dict[str, Any] = {
    "kd": {"strategy": "greedy", "temperature": {"broad": [1, 4]}},
    "ls": {"strategy": "exhaustive", "objective": "label_smoothing", "smoothing": [0.1, 0.2]},
    "erm": {"strategy": "exhaustive", "objective": "labels"},
}


def study(
    taught: Scores = (0.7, 0.7),
    plain: Scores = (0.6, 0.6),
    *,
    teacher: float = 0.9,
    until: int = 1000,
    fails: Callable[[Training], bool] = lambda training: False,
    scores: Callable[[StudentTraining], Scores] | None = None,
    **sections: Any,
) -> Agenda:
    """A small study, until so many trainings have ended; by default CE is a little better."""
    raw = a_study(**({"erm": True} | sections))
    if "searches" in raw:
        del raw["search"], raw["erm"]
    agenda = Agenda(resolved_of(raw))

    def score(training: StudentTraining) -> Scores:
        if training.teaching is None:
            return plain
        return taught[0] + 0.01 * (training.objective.kind == "ce"), taught[1]

    while requests := agenda.requests():
        for training in (request.training for request in requests):
            if len(agenda.results) == until:
                return agenda
            if fails(training):
                agenda.add(training.key, None)
            elif isinstance(training, StudentTraining):
                validation, test = (scores or score)(training)
                agenda.add(training.key, made(training, validation, test, 100, 30.0))
            else:
                agenda.add(training.key, made(training, teacher, teacher, 400, 10.0))
    return agenda


def made(training: Training, validation: float, test: float, size: int, speed: float) -> Any:
    cost = Cost(seconds=1.0, device="none", host="here", examples_per_second=speed)
    sizes = {"parameters": size, "model_bytes": 4 * size}
    return outcome_of(training, validation, test=test, cost=cost, **sizes)


def only(agenda: Agenda) -> CaseAnswer:
    [case] = analyse(agenda).answer.cases
    return case


def command(text: str) -> str:
    found = re.search(r"^```\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


# -- one case --------------------------------------------------------------------------------------


def test_a_student_is_compared_with_the_one_on_labels_and_with_its_teacher() -> None:
    case = only(study((0.7, 0.72), (0.6, 0.63)))
    assert (case.points, case.verdict) == (pytest.approx(9.0), Verdict.BETTER)
    assert (case.kept, case.kept_points) == (pytest.approx(0.8), pytest.approx(-18.0))
    assert (case.size, case.speed, case.bytes) == (0.25, 3.0, 400)
    assert (case.erm_trials, case.take) == (2, Take.CHOSEN)


LORA = {"small": {"model": "small", "training": {"lora": {"r": 4}}}}


@pytest.mark.parametrize(
    ("students", "axis", "mine", "plain"),
    [
        (LORA, {"lora_rank": ["none"]}, "lora_rank=none", "lora_rank=4"),
        ({"small": {"model": "small"}}, {"lora_rank": [8]}, "lora_rank=8", "lora_rank=none"),
        ({"small": {"model": "small"}}, {"clip": [2]}, "clip=2", "clip=none"),
        (
            {"small": {"model": "small"}},
            {"optimizer": ["sgd"], "momentum": [0.8]},
            "optimizer=sgd momentum=0.8 nesterov=false weight_decay=0",
            "optimizer=adamw weight_decay=0.01",
        ),
    ],
)
def test_the_answer_says_what_else_differs_from_the_student_on_labels(
    students: dict[str, Any], axis: dict[str, Any], mine: str, plain: str
) -> None:
    search = {"strategy": "exhaustive", "objective": "mse", "learning_rate": [1e-5], **axis}
    agenda = study(students=students, search=search)
    found = analyse(agenda)
    [case] = found.answer.cases
    assert case.verdict is Verdict.BETTER
    text = answer(found).replace("\\", "")
    assert f"trained with {mine}, its student on the labels alone with {plain}" in text
    other = "settings" if len(axis) > 1 else next(iter(axis))
    assert f"better, noise not known, other {other}" in text
    assert f"other {other}" in page(found, agenda, {})


def test_the_learning_rate_alone_is_no_other_setting() -> None:
    rates = {"strategy": "exhaustive", "objective": "mse", "learning_rate": [3e-5]}
    erm = {"strategy": "exhaustive", "objective": "labels", "learning_rate": [1e-5]}
    found = analyse(study(searches={"kd": rates, "erm": erm}))
    assert "More than the teacher differs" not in answer(found)
    assert not found.answer.cases[0].other_settings


def test_the_trials_are_those_that_the_search_compared() -> None:
    agenda = study()
    [view] = [view for view in agenda.views() if view.case.teacher is not None]
    compared = {t for each in view.progress.candidates() for t in each.trials}
    keys = {agenda.training(view, trial).key for trial in compared}
    assert only(agenda).trials == len(keys)


def test_the_trials_of_the_student_on_labels_count_once_under_several_seeds() -> None:
    found = analyse(study(seeds=[0, 1]))
    [erm] = [case.erm for case in found.cases if case.erm is not None]
    [answered] = found.answer.cases
    assert (erm.trials, answered.erm_trials) == (2, 2)


def with_layers() -> Agenda:
    """A study of students that are the better the more layers they keep, and the larger."""

    def scores(training: StudentTraining) -> Scores:
        return (0.5, 0.5) if training.teaching is None else (0.5 + layers_of(training) / 100, 0.5)

    kd = {"strategy": "exhaustive", "objective": "ce", "temperature": [1], "layers": [1, 2, 3]}
    searches = {"kd": kd, "erm": SEARCHES["erm"]}
    models = a_study()["models"] | {"small": {"path": "small"}}
    agenda = study(scores=scores, models=models, searches=searches, learning_rate=[1e-3])
    for key, outcome in agenda.results.items():
        if outcome is not None and isinstance(outcome.training, StudentTraining):
            sized = {"parameters": 100 * layers_of(outcome.training)}
            agenda.add(key, outcome.model_copy(update=sized))
    return agenda


def layers_of(training: StudentTraining) -> int:
    """How many layers a student keeps; of all it has 12."""
    assert isinstance(training.model.layers, int | None)
    return training.model.layers or 12


def test_the_size_of_a_case_that_is_being_searched_is_that_of_its_best_student() -> None:
    whole = with_layers()
    best = analyse(whole).cases[0].winner
    assert best is not None
    results = {key: outcome for key, outcome in whole.results.items() if key != best.key}
    case = analyse(Agenda(whole.resolved, results)).cases[0]
    assert case.winner is None
    assert case.size is not None
    assert case.size.parameters == 200


def test_each_student_of_a_case_has_its_own_size() -> None:
    case = analyse(with_layers()).cases[0]
    assert case.winner is not None
    assert case.erm is not None
    sizes = [size and size.parameters for size in (case.size, case.winner.size, case.erm.size)]
    assert sizes == [300, 300, 1200]


def test_the_answer_begins_with_the_verdict_and_its_size() -> None:
    text = answer(analyse(study((0.7, 0.72), (0.6, 0.63))))
    assert text.startswith(
        "**Distilling beats training on the labels alone** in sentences/big/small: +9.0 points "
        "(of 100) on test, noise not known.\n\n"
        "The student has 80 % of its teacher’s test score, 25 % of its parameters and 3.0 times "
        "its speed. "
    )


def test_with_seeds_the_noise_of_the_points_is_that_between_them() -> None:
    def scores(training: StudentTraining) -> Scores:
        if training.teaching:
            return 0.7, 0.7 + 0.04 * training.seed
        return 0.6, 0.5 + 0.03 * training.seed

    case = only(study(scores=scores, seeds=[0, 1]))
    differences = [0.7 - 0.5, 0.74 - 0.53]
    assert case.points == pytest.approx(100 * fmean(differences))
    assert case.noise == pytest.approx(100 * stdev(differences) / 2**0.5)
    assert case.spread == pytest.approx(stdev([0.7, 0.74]))
    assert "| +20.5 ± 0.5 | 0.7 ± 0.0 | 0.5 ± 0.0 |" in answer(
        analyse(study(scores=scores, seeds=[0, 1]))
    )


# -- which student ---------------------------------------------------------------------------------


def test_the_student_without_a_teacher_is_exported_where_it_is_better() -> None:
    agenda = study((0.6, 0.6), (0.7, 0.7))
    assert only(agenda).take is Take.ERM
    line = "kdsearch export runs/small sentences/big/small --erm --to PATH"
    assert command(answer(analyse(agenda))) == line


def test_the_choice_follows_validation_and_a_test_score_that_disagrees_is_named() -> None:
    agenda = study((0.7, 0.6), (0.65, 0.7))
    assert only(agenda).take is Take.CHOSEN
    text = answer(analyse(agenda))
    assert text.startswith("**Without a teacher the student is better in 1 of 1 case**")
    assert "**Validation and test disagree** in sentences/big/small: " in text
    assert command(text).splitlines() == [
        "kdsearch export runs/small sentences/big/small --to PATH  # by validation",
        "kdsearch export runs/small sentences/big/small --erm --to PATH  # better on test",
    ]


def test_of_equal_validation_scores_what_was_searched_for_is_taken() -> None:
    assert only(study((0.69, 0.7), (0.7, 0.7))).take is Take.CHOSEN


@pytest.mark.parametrize("name", ["a b", "it's $HOME;`ls`", "-x", "<b>", "بيانات", "n" * 60])
def test_a_command_can_be_pasted_whatever_the_names_hold(name: str) -> None:
    data = a_study()["datasets"]["sentences"]
    case = only(study(datasets={name: data}))
    words = shlex.split(export_line(case, Take.ERM, "/a b/runs"))
    assert words[:2] == ["kdsearch", "export"]
    assert "--erm" in words
    assert words[words.index("--to") + 1] == "PATH"
    arguments = [word for word in words[2:] if word not in ("--erm", "--to", "PATH", "--")]
    assert arguments == ["/a b/runs", f"{name}/big/small"]
    assert not name.startswith("-") or words.index("--") == len(words) - 2


@pytest.mark.parametrize(
    ("task", "what"), [("classification", "sentences"), ("image_classification", "images")]
)
def test_generated_rows_are_called_what_they_are(task: str, what: str) -> None:
    resolved = resolved_of(
        a_study(datasets={"made": {"grammar": {"train": 9, "validation": 9, "test": 9}}})
    )
    made = resolved.datasets["made"].model_copy(update={"task": task})
    resolved = resolved.model_copy(update={"datasets": {"made": made}})
    agenda = Agenda(resolved)
    for request in agenda.requests():
        agenda.add(request.training.key, outcome_of(request.training))
    text = report_files(memory_ledger(resolved), agenda)["report/report.md"]
    assert f"The rows are generated {what}, which say nothing" in text


# -- over several cases ----------------------------------------------------------------------------


def two(better: float, worse: float) -> Agenda:
    """Two students: of points more, and of points less, than without a teacher."""
    models = a_study()["models"]
    models["poor"] = {"config": {"model_type": "bert", "num_hidden_layers": 2}}

    def scores(training: StudentTraining) -> Scores:
        gain = better if training.model.name == "small" else worse
        return (0.5, 0.5 + gain / 100) if training.teaching else (0.4, 0.5)

    students = {name: {"model": name} for name in ("small", "poor")}
    return study(scores=scores, models=models, students=students)


def test_over_all_cases_the_verdicts_the_median_and_the_worst_are_said() -> None:
    found = analyse(two(3, -1)).answer
    assert found.verdicts == {Verdict.BETTER: 1, Verdict.WORSE: 1}
    assert (found.points, found.least_points) == (pytest.approx(1), pytest.approx(-1))
    text = answer(analyse(two(3, -1)))
    first, second, _ = text.split("\n\n", 2)
    assert first.startswith("**Without a teacher the student is better in 1 of 2 cases**")
    assert second == (
        "**Distilling beats training on the labels alone in 1 of 2 test cases**; it loses in 1; "
        "the noise is not known in 2. In the median it brings +1.0 points (of 100) on test, at "
        "worst −1.0 (sentences/big/poor)."
    )


def test_a_verdict_that_is_no_more_than_noise_names_both_sides() -> None:
    def scores(training: StudentTraining) -> Scores:
        away = 0.1 * training.seed
        return (0.7, 0.61 + away) if training.teaching else (0.6, 0.7 - away)

    models = a_study()["models"]
    models["other"] = {"config": {"model_type": "bert", "num_hidden_layers": 2}}
    students = {name: {"model": name} for name in ("small", "other")}
    found = analyse(study(scores=scores, models=models, students=students, seeds=[0, 1]))
    text = answer(found)
    same = "**Distilling cannot be told from training on the labels alone in 2 of 2 test cases**"
    assert same in text


@pytest.mark.parametrize(("plain", "verdict"), [(0.0, "equal"), (0.003, "worse")])
def test_a_case_at_the_floor_speaks_neither_for_nor_against_distilling(
    plain: float, verdict: str
) -> None:
    def scores(training: StudentTraining) -> Scores:
        if training.model.name == "poor":
            return 0.0, 0.0 if training.teaching else plain
        return (0.7, 0.7) if training.teaching else (0.6, 0.6)

    models = a_study()["models"]
    models["poor"] = {"config": {"model_type": "bert", "num_hidden_layers": 2}}
    students = {name: {"model": name} for name in ("small", "poor")}
    found = analyse(study(scores=scores, models=models, students=students))
    assert (found.answer.compared, found.answer.points) == (1, pytest.approx(10))
    text = answer(found)
    assert "1 case at the floor, where no score says anything, is left out." in text
    [row] = [line for line in text.split("\n") if line.startswith("| sentences/big/poor |")]
    assert f"| {verdict}, " in row
    assert "at the floor |" in row
    assert text.startswith("**Distilling beats training on the labels alone** in sentences/big/sm")
    assert "poor" not in command(text)


@pytest.mark.parametrize("score", [0.0, 0.01])
def test_at_the_floor_no_student_is_recommended_and_a_configuration_with_doubt(
    score: float,
) -> None:
    text = answer(analyse(study(scores=lambda training: (score, score))))
    assert "every test case that could say so is at the floor" in text
    assert "kdsearch export" not in text
    assert ("nothing was learnt, so there is no configuration to name" in text) == (score == 0)
    assert ("is at the floor, so that its scores say nothing" in text) == (score > 0)


def test_without_a_student_on_labels_the_key_that_brings_it_is_named() -> None:
    text = answer(analyse(study(erm=False)))
    assert text.startswith("**Whether distilling is worth it is not known**")
    assert "`erm: true` in the study file" in text
    assert "against labels alone" not in text


def test_several_searches_are_ranked_by_validation_for_each_student() -> None:
    def scores(training: StudentTraining) -> Scores:
        kinds = {"labels": (0.5, 0.6), "label_smoothing": (0.9, 0.8)}
        return kinds.get(training.objective.kind, (0.7, 0.7))

    text = answer(analyse(study(scores=scores, searches=SEARCHES, learning_rate=[1e-5])))
    assert (
        "- sentences/small/ls: cross-entropy to smoothed labels, without a teacher, 10 % of each "
        "label spread over all classes (**LS smoothing=0.1**), validation 0.9, test 0.8. Behind "
        "it: sentences/big/small/kd, validation 0.7, test 0.7" in text
    )
    assert "Best by validation" not in answer(analyse(study()))
    again = study(scores=scores, searches=SEARCHES, learning_rate=[1e-5], winner_seeds=[0, 1])
    text = answer(analyse(again))
    assert "Over the seeds 0, 1 its test score is 0.8 ± 0.0. Behind it: sentences" in text


def test_another_alpha_that_validation_prefers_is_said_beside_what_test_says_of_it() -> None:
    def scores(training: StudentTraining) -> Scores:
        mixed = training.objective.parameters.get("alpha", 1) < 1
        return (0.8, 0.6) if mixed else (0.7, 0.7)

    text = answer(analyse(study(scores=scores)))
    assert "validation prefers another in 1 case; on test the other is better in 0." in text


def test_of_many_cases_each_has_a_row_and_one_command_stands_for_all() -> None:
    data = a_study()["datasets"]["sentences"]
    text = answer(analyse(study(datasets={f"data {i}": data for i in range(9)})))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 9 + 2
    assert command(text) == "kdsearch export runs/small 'data 0/big/small' --to PATH"
    assert "The others go like the first of their kind, by their names in quotes:" in text


# -- studies that are not whole --------------------------------------------------------------------


def best_known(agenda: Agenda) -> float:
    scores = [
        outcome.validation
        for outcome in agenda.results.values()
        if outcome is not None
        and isinstance(outcome.training, StudentTraining)
        and outcome.training.teaching is not None
    ]
    return max(score for score in scores if score is not None)


@pytest.mark.parametrize("until", [11, 15, 21])
def test_of_a_study_half_done_the_answer_is_of_the_best_so_far(until: int) -> None:
    def scores(training: StudentTraining) -> Scores:
        rate = 1000 * training.learning_rate
        return (0.5 + rate, 0.7) if training.teaching else (0.4, 0.6)

    agenda = study(scores=scores, until=until)
    case = only(agenda)
    assert (case.so_far, case.take) == (True, Take.BEST_SO_FAR)
    assert case.validation == best_known(agenda)
    text = answer(analyse(agenda))
    assert text.startswith("**This is the answer so far**: 1 of 2 test cases finished")
    assert "\n**So far, distilling beats training on the labels alone** in " in text
    assert "| so far better, noise not known |" in text
    assert command(text) == "kdsearch export runs/small sentences/big/small --best-so-far --to PATH"


def test_at_any_moment_of_a_search_there_is_an_answer() -> None:
    for until in range(1, 44, 6):
        assert "**The study is" in answer(analyse(study(until=until)))


def test_before_anything_is_trained_the_answer_says_so() -> None:
    text = answer(analyse(study(until=0)))
    assert text.startswith(
        "**Nothing has been trained yet**, so there is no answer.\n\n**The study"
    )


def test_a_blocked_case_has_a_row_and_the_student_without_a_teacher() -> None:
    agenda = study(fails=lambda training: isinstance(training, TeacherTraining))
    text = answer(analyse(agenda))
    assert "| sentences/big/small | blocked | 0.6 | labels alone |" in text
    assert "no test case has a test score of both students." in text
    assert command(text).endswith(" --erm --to PATH")


def test_a_case_none_of_whose_trainings_has_a_score_has_a_row_and_no_command() -> None:
    text = answer(analyse(study(fails=lambda training: isinstance(training, StudentTraining))))
    assert "| sentences/big/small | no score |" in text
    assert "kdsearch export" not in text


def test_a_student_above_its_teacher_is_said_to_be_that() -> None:
    text = answer(analyse(study(teacher=0.5)))
    assert "The student has 140 % of its teacher’s test score" in text
    assert "In 1 of 1 case the student’s test score is higher than its teacher’s." in text


# -- where it stands -------------------------------------------------------------------------------


def test_json_has_the_answer_as_data() -> None:
    agenda = study((0.7, 0.72), (0.6, 0.63))
    found = json.loads(to_json(analyse(agenda), agenda, {}))["answer"]
    [case] = found["cases"]
    assert (case["verdict"], case["take"]) == ("better", "chosen")
    assert case["points"] == pytest.approx(9.0)
    assert case["export"] == "kdsearch export runs/small sentences/big/small --to PATH"
    assert case["in_words"] == (
        "cross-entropy to the teacher checkpoint of the highest validation score, the student at "
        "the teacher’s temperature, human labels unused"
    )
    assert found["verdicts"] == {"better": 1}


def test_the_page_has_the_table_with_a_link_to_each_case_and_to_the_searches() -> None:
    agenda = study(searches=SEARCHES, learning_rate=[1e-5])
    html = page(analyse(agenda), agenda, {})
    table = html[html.index('<table id="answers">') :].split("</table>")[0]
    table = re.sub("</?bdi>", "", table)
    assert re.findall(r'<a href="#case-(\d)">(.*?)</a>', table) == [
        ("0", "sentences/<wbr>big/<wbr>small/<wbr>kd"),
        ("1", "sentences/<wbr>small/<wbr>ls"),
    ]
    assert '<a href="#searches">What each search chose</a>' in html


def test_a_terminal_has_each_command_on_a_line_and_names_the_studys_own_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "n" * 60
    agenda = study(datasets={name: a_study()["datasets"]["sentences"]})
    ledger = memory_ledger(agenda.resolved)
    print_answer(agenda, ledger)
    out = capsys.readouterr().out
    assert f"  kdsearch export {ledger.folder} {name}/big/small --to PATH\n" in out
    assert " • " in out
    assert "─" not in out  # the cases are a list, a table has no room


# -- configurations in words -----------------------------------------------------------------------


def test_every_objective_parameter_and_setting_has_words() -> None:
    assert OBJECTIVES.keys() == Objective.kinds.keys()
    assert PARAMETERS.keys() == set().union(*map(parameters_of, Objective.kinds))
    assert SETTINGS.keys() == AXES.keys()


SAMPLES = {
    "layers": [3, "first 3", "last 3", "0+2"],
    "gradient_scale": ["none", "tau_squared"],
    "temperature_unit": ["none", "logit_scale"],
    "lora_rank": ["none", 8, 32],
    "targets": ["data", "greedy", "beam", "sample", "rejection"],
    "attention_heads": ["each", "mean"],
    "relation_heads": ["teacher", 2, 12],
    "layer_mapping": ["uniform", "first", "last", "0+2"],
    "standardise": [False, True],
    "supervision": ["softmax", "smoothed", "smoothed each", "permuted after 1", "permuted after 5"],
    "entropy_bound": ["log_classes", "published"],
    "class_of": ["label", "teacher"],
    "two_views": [False, True],
}


@pytest.mark.parametrize("name", [*PARAMETERS, *SETTINGS])
def test_every_value_of_an_axis_has_words_of_its_own(name: str) -> None:
    schema = AXES[name].json_schema() if name in AXES and name != "layers" else {}
    options = [schema, *schema.get("anyOf", [])]
    values = [v for each in options for v in (*each.get("enum", ()), each.get("const"))]
    values = [value for value in values if value is not None] or [0.25, 0.5, 1]
    values = SAMPLES.get(name, [True, False] if name == "nesterov" else values)
    texts = [in_words(Choice.of(distance="labels", **{name: value})) for value in values]
    assert len(set(texts)) == len(values)
    assert not any("_" in text.replace("τ_s", "") or "True" in text for text in texts)


@pytest.mark.parametrize("checkpoint", Checkpoint)
def test_every_checkpoint_has_words(checkpoint: Checkpoint) -> None:
    text = in_words(Choice.of(distance="mse", teacher=checkpoint, alpha=0.7))
    assert text.startswith("squared difference between the logits and those of the ")
    assert text.endswith(", human labels with 30 % of the weight")
