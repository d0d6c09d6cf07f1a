from __future__ import annotations

import gzip
import json
import logging
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import KEY, World, a_study, outcome_of, resolved_of, search_through
from hypothesis import given
from hypothesis import strategies as st
from models import data_of, settings_of

from kdsearch.agenda import (
    Agenda,
    DataSpec,
    ModelSpec,
    Outcome,
    OutputsTraining,
    StudentTraining,
    TestScore,
    Training,
)
from kdsearch.analysis import CaseResult, TestScores, analyse
from kdsearch.analysis.noise import Noise, NoiseOf, Noises
from kdsearch.analysis.row_scores import Columns, row_scores
from kdsearch.distill import run_training
from kdsearch.driver.garbage import garbage
from kdsearch.engine.base import Worker
from kdsearch.ledger import Ledger, verify
from kdsearch.ledger.tested import Tested as TestedRows
from kdsearch.report.markdown import percent
from kdsearch.report.write import noises_of, report_files
from kdsearch.search import Labels
from kdsearch.study import Resolved, ResolvedSplit, parse_study, resolve
from kdsearch.tasks import TASKS
from kdsearch.tasks.answers import Reference
from kdsearch.tasks.ner import Sentence
from kdsearch.tasks.qa import Span, Window

WORDS = ("the cat sat", "the cat sat on a mat .", "a dog , a cat", "", "on the mat", "cat")


def recomputed(columns: Columns, data: DataSpec) -> float:
    found = row_scores(columns, data)
    return float(found.of_sums(np.ones(found.terms.shape[0])))


def both_ways(
    task: str, predictions: Sequence[Any], references: Sequence[Any], data: DataSpec
) -> tuple[float, float]:
    """The score from the rows' statistics as a file keeps them, and the task's own."""
    columns = json.loads(json.dumps(TASKS[task].statistics(predictions, references, data)))
    return recomputed(columns, data), TASKS[task].score(predictions, references, data)


# -- the score follows from the rows ------------------------------------------------------------


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
@pytest.mark.parametrize("labels", [2, 3, 7])
@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1))
def test_a_score_of_labels_follows_from_their_sums(
    metric: str, labels: int, pairs: list[tuple[int, int]]
) -> None:
    data = data_of(metric=metric, labels=tuple("abcdefg"[:labels]))
    predicted, gold = zip(*((p % labels, g % labels) for p, g in pairs), strict=True)
    found, score = both_ways("classification", predicted, gold, data)
    assert found == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
@given(
    sentences=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6),
        min_size=1,
        max_size=6,
    )
)
def test_a_score_of_entities_follows_from_their_sums(
    metric: str, sentences: list[list[tuple[int, int]]]
) -> None:
    data = data_of("ner", metric=metric, labels=("O", "B-A", "I-A", "B-B", "I-B"))
    predictions = [[tag for tag, _ in tags] for tags in sentences]
    references = [
        Sentence(tags=[tag for _, tag in tags], words=range(len(tags))) for tags in sentences
    ]
    found, score = both_ways("ner", predictions, references, data)
    assert found == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("metric", ["f1", "exact_match"])
@pytest.mark.parametrize("unanswerable", [False, True])
@given(data=st.data())
def test_a_score_of_answers_follows_from_their_sums(
    metric: str, unanswerable: bool, data: st.DataObject
) -> None:
    of = data_of("qa", metric=metric, unanswerable=unanswerable)
    context = "Ada wrote the first program in London"
    words = [(m, m + len(word)) for m, word in _placed(context)]
    predictions, references = [], []
    for question in range(data.draw(st.integers(1, 5))):
        answers = data.draw(st.lists(st.sampled_from(["Ada", "the", "in London"]), max_size=2))
        for _ in range(data.draw(st.integers(1, 2))):
            first = data.draw(st.integers(0, len(words) - 1))
            last = data.draw(st.integers(first, len(words) - 1))
            score, null = data.draw(st.integers(-3, 3)), data.draw(st.integers(-3, 3))
            predictions.append(Span(score, first, last, null if unanswerable else -math.inf))
            references.append(
                Window(
                    question=question,
                    context=context,
                    offsets=np.array(words),
                    answers=answers or ([] if unanswerable else ["program"]),
                )
            )
    found, score = both_ways("qa", predictions, references, of)
    assert found == pytest.approx(score, abs=1e-12)


def _placed(text: str) -> list[tuple[int, str]]:
    starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == " ")]
    return list(zip(starts, text.split(), strict=True))


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(WORDS), st.sampled_from([w for w in WORDS if w])),
        min_size=1,
        max_size=8,
    )
)
def test_a_score_of_translations_follows_from_their_sums(
    metric: str, pairs: list[tuple[str, str]]
) -> None:
    data = data_of("translation", metric=metric)
    predictions, references = zip(*pairs, strict=True)
    found, score = both_ways("translation", predictions, references, data)
    assert found == pytest.approx(score, abs=1e-10)


def test_a_score_of_completions_follows_from_their_sums() -> None:
    sums = [(-3.25, 4), (-0.125, 1), (-11.5, 7)]
    found, score = both_ways("lm", sums, (), data_of("lm", metric="likelihood"))
    assert found == pytest.approx(score, abs=1e-12)
    right = [*map(Reference, "456")]
    found, score = both_ways("lm", ("4", "6", "#### 6"), right, data_of("lm", metric="exact_match"))
    assert found == pytest.approx(score, abs=1e-12)


# -- what a training keeps ----------------------------------------------------------------------


Copy = Callable[[str, Path], Path]


@pytest.fixture
def searched(copy_of_searched: Copy, tmp_path: Path) -> Ledger:
    return Ledger(copy_of_searched("classification", tmp_path / "run"))


@pytest.mark.parametrize("task", TASKS)
def test_the_score_of_every_training_follows_from_what_is_kept_of_its_rows(
    task: str, copy_of_searched: Copy, tmp_path: Path
) -> None:
    ran = Ledger(copy_of_searched(task, tmp_path / "run"))
    tested = TestedRows(ran.folder)
    scored = [outcome for outcome in ran.outcomes() if outcome.test is not None]
    kinds = {type(outcome.training) for outcome in scored}
    assert kinds == {StudentTraining, OutputsTraining}
    for outcome in scored:
        columns = tested.rows(outcome)
        assert columns is not None
        assert recomputed(columns, outcome.training.data) == pytest.approx(outcome.test, abs=1e-10)


@pytest.mark.parametrize("task", ["classification", "image_classification"])
def test_the_noise_of_every_gain_of_a_real_study_is_known(
    task: str, copy_of_searched: Copy, tmp_path: Path
) -> None:
    ran = Ledger(copy_of_searched(task, tmp_path / "run"))
    agenda = Agenda(ran.resolved(), ran.results())
    found = analyse(agenda, noises_of(ran, agenda))
    gains = [gain for row in found.figure_1 for gain in row.gains]
    assert gains
    for gain in gains:
        assert gain.noise is not None
        assert gain.noise.of is NoiseOf.ROWS


def test_a_report_has_the_noise_beside_each_gain(searched: Ledger) -> None:
    files = report_files(searched, Agenda(searched.resolved(), searched.results()))
    [case] = json.loads(files["report/report.json"])["cases"]
    gain, deviation = case["over_teacher"], case["over_teacher_noise"]["deviation"]
    noise = percent(deviation) if gain or deviation else "identical"
    row = f"| chosen over its teacher | {percent(gain)} | {noise} "
    assert f"{row}| rows |" in files["report/report.md"]


def test_a_folder_with_rows_is_verified(searched: Ledger) -> None:
    found = verify(searched)
    assert found.problems == []
    assert found.notes == []


def test_rows_that_are_gone_are_a_problem_and_not_known(searched: Ledger) -> None:
    [gone, *_] = sorted((searched.folder / "tested").iterdir())
    gone.unlink()
    assert [problem.place for problem in verify(searched).problems] == [str(gone)]
    outcome = searched.outcome(gone.name.partition(".")[0])
    assert outcome is not None
    assert TestedRows(searched.folder).rows(outcome) is None


def test_rows_of_another_try_are_garbage_and_others_are_not(searched: Ledger) -> None:
    key = next(outcome.key for outcome in searched.outcomes() if outcome.test is not None)
    [name] = TestedRows(searched.folder).keep(key, {"label": [1]}, None)
    gone, left = garbage(searched, Agenda(searched.resolved(), searched.results()))
    assert [each.name for each in gone if each.name.startswith("tested/")] == [name]
    assert left == []
    found = verify(searched)
    assert found.problems == []
    assert [note.place for note in found.notes] == [str(searched.folder / name)]


def test_rows_of_an_outcome_that_has_none_are_those_of_another_try(tmp_path: Path) -> None:
    resolved = resolved_of(a_study())
    ledger = Ledger(tmp_path)
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = search_through(resolved, ledger, World(seed=1))
    students = (each for seeds in agenda.students(agenda.cases[0]).values() for each in seeds)
    key = next(students).key
    [name] = TestedRows(tmp_path).keep(key, COLUMNS, None)
    gone, _ = garbage(ledger, agenda)
    assert [each.name for each in gone] == [name]
    (tmp_path / "outcomes" / f"{key}.json").write_bytes(b"{")  # of which nothing is known
    gone, _ = garbage(ledger, Agenda(resolved, ledger.results()))
    assert name not in [each.name for each in gone]


def test_a_training_that_is_repeated_brings_its_rows_back(searched: Ledger) -> None:
    outcome = next(o for o in searched.outcomes() if isinstance(o.training, StudentTraining))
    [name] = [name for name in outcome.digests if name.startswith("tested/")]
    before = TestedRows(searched.folder).rows(outcome)
    (searched.folder / name).unlink()
    run_training(outcome.training, searched.folder)
    assert TestedRows(searched.folder).rows(outcome) == before


def test_a_training_whose_rows_cannot_be_written_is_not_lost(
    searched: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kdsearch.distill.worker")
    outcome = next(o for o in searched.outcomes() if isinstance(o.training, StudentTraining))
    shutil.rmtree(searched.folder / "tested")
    (searched.folder / "tested").write_text("in the way")
    (searched.folder / "outcomes" / f"{outcome.key}.json").unlink()
    Worker(folder=searched.folder, run_training=run_training)(outcome.training)
    again = searched.outcome(outcome.key)
    assert again is not None
    assert again.test == outcome.test
    assert not any(name.startswith("tested/") for name in again.digests)
    assert TestedRows(searched.folder).rows(again) is None
    assert f"key={outcome.key}: its test rows are not kept" in caplog.text


# -- files of rows ------------------------------------------------------------------------------

COLUMNS = {"label": [0, 1, 1], "predicted": [0, 1, 0]}
MODEL = ModelSpec(
    name="m", weights="w", config=None, tokenizer="w", tokenizer_name="m", layers=None
)


def outcome_with(name: str, seed: int = 0, data: DataSpec | None = None, **fields: Any) -> Outcome:
    """That of a student of its own, on labels alone."""
    training = StudentTraining(
        data=data or data_of(),
        model=MODEL.model_copy(update={"weights": name}),
        teaching=None,
        objective=Labels(),
        learning_rate=1e-3,
        settings=settings_of(),
        seed=seed,
    )
    return outcome_of(training, **fields)


def test_rows_that_were_kept_are_read_again(tmp_path: Path) -> None:
    tested = TestedRows(tmp_path)
    digests = tested.keep(KEY, COLUMNS, None)
    assert tested.rows(outcome_with("m", digests=digests)) == COLUMNS


def test_an_outcome_of_an_earlier_version_has_no_rows(tmp_path: Path) -> None:
    assert TestedRows(tmp_path).rows(outcome_with("m")) is None


@pytest.mark.parametrize("content", [b"", b"{}", gzip.compress(b"[1]"), gzip.compress(b"{")])
def test_a_damaged_file_of_rows_is_not_known(content: bytes, tmp_path: Path) -> None:
    tested = TestedRows(tmp_path)
    [(name, digest)] = tested.keep(KEY, COLUMNS, None).items()
    (tmp_path / name).write_bytes(content)
    assert tested.rows(outcome_with("m", digests={name: digest})) is None


def test_another_try_writes_over_nothing(tmp_path: Path) -> None:
    tested = TestedRows(tmp_path)
    first = tested.keep(KEY, COLUMNS, None)
    other = tested.keep(KEY, {**COLUMNS, "predicted": [1, 1, 1]}, None)
    assert tested.rows(outcome_with("m", digests=first)) == COLUMNS
    assert first.keys() != other.keys()


def test_a_training_that_is_repeated_with_other_rows_keeps_none(tmp_path: Path) -> None:
    tested = TestedRows(tmp_path)
    recorded = outcome_with("m", digests=tested.keep(KEY, COLUMNS, None))
    assert tested.keep(KEY, {**COLUMNS, "predicted": [1, 1, 1]}, recorded) == {}
    assert len([*(tmp_path / "tested").iterdir()]) == 1


def test_forty_thousand_rows_take_a_hundred_kilobytes(tmp_path: Path) -> None:
    draw = random.Random(0)
    label = [draw.randrange(3) for _ in range(40_000)]
    predicted = [y if draw.random() < 0.87 else draw.randrange(3) for y in label]
    [name] = TestedRows(tmp_path).keep(KEY, {"label": label, "predicted": predicted}, None)
    assert (tmp_path / name).stat().st_size < 100_000


# -- noise --------------------------------------------------------------------------------------


class Study:
    """Students whose labels are right or wrong as told, of a study of such rows."""

    def __init__(
        self,
        rights: dict[str, list[list[int]]],
        groups: list[int] | None = None,
        named: list[int] | None = None,
    ) -> None:
        """`rights`: by name, of each seed of a student and each row whether it is right.

        `groups`: the text of each row; `named`: what its study's own column puts together.
        """
        data = data_of(metric="accuracy", labels=("no", "yes"), test="rows")
        self.columns: dict[str, Columns] = {}
        self.tested: dict[str, TestScores] = {}
        results = {}
        for name, by_seed in rights.items():
            outcomes = [
                outcome_with(name, seed, data, test=TestScore(float(np.mean(right))))
                for seed, right in enumerate(by_seed)
            ]
            for outcome, right in zip(outcomes, by_seed, strict=True):
                self.columns[outcome.key] = {"label": [1] * len(right), "predicted": right}
                results[outcome.key] = outcome
            self.tested[name] = TestScores(
                by_seed=tuple(o.test for o in outcomes if o.test is not None),
                keys=tuple((o.key,) for o in outcomes),
            )
        texts = range(len(right)) if groups is None else groups
        self.rows: dict[str, list[Any]] = {
            "rows": [{"texts": [str(text)], "label": 1} for text in texts],
            "groups": [{"group": number} for number in named or ()],
        }
        resolved = resolved_of(a_study())
        [(name, mine)] = resolved.datasets.items()
        test = {"test": ResolvedSplit(digest="rows", rows=len(right))}
        of_mine = {"splits": {**mine.splits, **test}, "test_groups": "groups" if named else None}
        datasets = {name: mine.model_copy(update=of_mine)}
        self.agenda = Agenda(resolved.model_copy(update={"datasets": datasets}), results)

    def noise(self, target: str = "a", baseline: str = "b") -> Noise | None:
        found = Noises(
            self.agenda, lambda outcome: self.columns.get(outcome.key), self.rows.__getitem__
        )
        return found.of_gain(self.tested[target], self.tested[baseline])

    def deviation(self) -> float:
        found = self.noise()
        assert found is not None
        return found.deviation


def coins(share: float, count: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [int(draw.random() < share) for _ in range(count)]


def test_the_noise_of_a_difference_is_that_of_the_rows_differences() -> None:
    a, b = coins(0.8, 2000, 1), coins(0.7, 2000, 2)
    b = [y if index % 2 else x for index, (x, y) in enumerate(zip(a, b, strict=True))]
    mean_a, mean_b = np.mean(a), np.mean(b)
    # Of a/b to first order: the variance of a row's (a − gain·b − b) over rows and b.
    differences = np.array(a) - mean_a / mean_b * np.array(b)
    exact = differences.std() / math.sqrt(2000) / mean_b
    study = Study({"a": [a], "b": [b]})
    assert study.noise() == Noise(deviation=pytest.approx(exact, rel=0.1), of=NoiseOf.ROWS)


def test_the_noise_in_points_is_that_of_the_rows_plain_differences() -> None:
    a, b = coins(0.8, 2000, 1), coins(0.0, 2000, 2)  # over 0 there is no relative gain
    study = Study({"a": [a], "b": [b]})
    found = Noises(study.agenda, lambda o: study.columns.get(o.key), study.rows.__getitem__)
    exact = (np.array(a) - np.array(b)).std() / math.sqrt(2000)
    noise = found.of_difference(study.tested["a"], study.tested["b"])
    assert noise == Noise(deviation=pytest.approx(exact, rel=0.1), of=NoiseOf.ROWS)


def test_two_models_that_err_on_the_same_rows_are_told_apart_better_than_unpaired_ones() -> None:
    a = coins(0.8, 1000, 1)
    b = [0, *a[1:]] if a[0] else [1, *a[1:]]
    paired = Study({"a": [a], "b": [b]}).deviation()
    unpaired = Study({"a": [a], "b": [random.Random(0).sample(b, len(b))]}).deviation()
    assert paired < unpaired / 5


def test_the_noise_of_a_model_against_itself_is_none() -> None:
    assert Study({"a": [coins(0.5, 100, 1)], "b": [coins(0.5, 100, 1)]}).deviation() == 0.0


def test_rows_that_go_together_count_as_one() -> None:
    a, b = coins(0.8, 300, 1), coins(0.6, 300, 2)
    each_alone = Study({"a": [a], "b": [b]}).deviation()
    four_times = {"a": [a * 4], "b": [b * 4]}
    assert Study(four_times).deviation() == pytest.approx(each_alone / 2, rel=0.1)
    assert Study(four_times, groups=[*range(300)] * 4).deviation() == pytest.approx(each_alone)


def test_rows_of_a_studys_own_group_count_as_one() -> None:
    rights = {"a": [coins(0.8, 300, 1) * 4], "b": [coins(0.6, 300, 2) * 4]}
    by_row, together = Study(rights), Study(rights, named=[*range(300)] * 4)
    assert together.deviation() == Study(rights, groups=[*range(300)] * 4).deviation()
    assert together.deviation() > 1.5 * by_row.deviation()


@pytest.mark.parametrize("groups", [None, "others"])
def test_where_data_sets_group_the_same_rows_differently_the_noise_is_unknown(
    groups: str | None,
) -> None:
    study = Study({"a": [coins(0.8, 60, 1)], "b": [coins(0.6, 60, 2)]}, named=[*range(30)] * 2)
    assert study.noise() is not None
    resolved = study.agenda.resolved
    [(name, mine)] = resolved.datasets.items()
    datasets = {name: mine, "other": mine.model_copy(update={"test_groups": groups})}
    several = resolved.model_copy(update={"datasets": datasets})
    study.agenda = Agenda(several, study.agenda.results)
    assert study.noise() is None


@pytest.mark.parametrize("rows", [[{"group": []}] * 3, [{"texts": ["a"]}] * 3, [{"group": 1}]])
def test_groups_that_are_damaged_leave_the_noise_unknown(rows: list[Any]) -> None:
    study = Study({"a": [[1, 1, 0]], "b": [[1, 0, 0]]}, named=[0, 1, 1])
    study.rows["groups"] = rows
    assert study.noise() is None


def test_a_studys_own_groups_are_in_no_key_and_are_kept_as_its_rows_are(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "y": "ab"[i % 2], "who": i // 2} for i in range(20)]
    for split in ("train", "validation", "test"):
        text = "".join(json.dumps({**row, "text": f"{split} {row['text']}"}) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    mine = {"files": files, "text": "text", "label": "y", "labels": ["a", "b"]}
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()

    def resolved(**fields: str) -> Resolved:
        raw = a_study(datasets={"mine": {**mine, **fields}})
        study = parse_study(raw, place="s")
        return resolve(study, data_dir=None, store=ledger.write_rows, place="s")

    plain, grouped = resolved(), resolved(group="who")
    assert plain.content == grouped.content  # so that no key knows
    groups = grouped.datasets["mine"].test_groups
    assert groups is not None
    assert [row["group"] for row in ledger.rows(groups)] == [i // 2 for i in range(20)]
    ledger.write_resolved(grouped)
    agenda = Agenda(grouped, {})
    assert garbage(ledger, agenda) == ([], [])
    assert [each.name for each in garbage(ledger, Agenda(plain, {}))[0]] == [f"data/{groups}.jsonl"]
    (ledger.folder / "data" / f"{groups}.jsonl").unlink()
    assert [problem.what for problem in verify(ledger).problems] == ["is not there"]


def test_equal_results_have_equal_noise() -> None:
    rights = {"a": [coins(0.8, 50, 1)], "b": [coins(0.6, 50, 2)]}
    assert Study(rights).noise() == Study(rights).noise()


def test_over_seeds_the_noise_holds_that_between_the_seeds_too() -> None:
    # On the same rows for all seeds: every second row of b's is wrong, and of a's what a seed says.
    shares = [0.70, 0.76, 0.82, 0.88]
    count = 4_000  # so that rows say little
    a = [[int(i < share * count) for i in range(count)] for share in shares]
    b = [[int(i < 0.5 * count) for i in range(count)] for _ in shares]
    study = Study({"a": a, "b": b})
    between = np.std(np.array(shares) / 0.5, ddof=1) / math.sqrt(len(shares))
    assert study.noise() == Noise(deviation=pytest.approx(between, rel=0.1), of=NoiseOf.BOTH)


def test_what_rows_and_seeds_have_together_counts_once() -> None:
    # Rows are right or wrong by a coin of their own under each seed: S · N coins in all.
    seeds, count = 4, 500
    a = [coins(0.7, count, seed) for seed in range(seeds)]
    b = [coins(0.5, count, seed) for seed in range(seeds, 2 * seeds)]
    study = Study({"a": a, "b": b})
    base = float(np.mean(b))
    ratio = float(np.mean(a)) / base
    one = 0.7 * 0.3 + ratio**2 * 0.5 * 0.5
    assert study.deviation() == pytest.approx(math.sqrt(one / (seeds * count)) / base, rel=0.25)


def test_without_rows_the_noise_is_that_between_seeds() -> None:
    study = Study({"a": [[1, 1, 0], [1, 1, 1]], "b": [[1, 0, 0], [1, 1, 0]]})
    study.columns.clear()
    gains = [1.0, 0.5]
    expected = np.std(gains, ddof=1) / math.sqrt(2)
    assert study.noise() == Noise(deviation=pytest.approx(expected), of=NoiseOf.SEEDS)


def test_without_rows_and_seeds_the_noise_is_not_known() -> None:
    study = Study({"a": [[1, 1, 0]], "b": [[1, 0, 0]]})
    study.columns.popitem()
    assert study.noise() is None


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"label": [1, 1, 1]},
        {"label": [1, 1, 1], "predicted": [1, 1]},
        {"label": [1, 1, 1], "predicted": [1, 1, 7]},
        {"label": [1, 1, 1], "predicted": [1, 1, "x"]},
        {"label": [1, 1, 1], "predicted": {}},
        {"label": [1, 1], "predicted": [1, 0]},
        {"label": [1, 1, 1], "predicted": [1, 1, 1]},  # which is another score
    ],
)
def test_rows_that_do_not_give_the_score_are_not_known(columns: Any) -> None:
    study = Study({"a": [[1, 1, 0]], "b": [[1, 0, 0]]})
    study.columns[study.tested["a"].keys[0][0]] = columns
    assert study.noise() is None


def test_the_noise_of_an_expectation_is_that_of_the_mean_of_its_students() -> None:
    a, b, c = coins(0.8, 500, 1), coins(0.6, 500, 2), coins(0.7, 500, 3)
    study = Study({"a": [a], "b": [b], "c": [c]})
    parts = [study.tested[name] for name in "bc"]
    study.tested["mean"] = TestScores(
        by_seed=(TestScore(sum(part.mean for part in parts) / 2),),
        keys=(tuple(key for part in parts for keys in part.keys for key in keys),),
    )
    mean = (np.array(b) + np.array(c)) / 2
    differences = np.array(a) - np.mean(a) / mean.mean() * mean
    exact = differences.std() / math.sqrt(500) / mean.mean()
    found = study.noise("a", "mean")
    assert found is not None
    assert found.deviation == pytest.approx(exact, rel=0.1)


def test_a_few_hundred_pairs_on_ten_thousand_rows_take_seconds() -> None:
    names = [str(number) for number in range(20)]
    study = Study({name: [coins(0.8, 10_000, int(name))] for name in names})
    found = Noises(study.agenda, lambda outcome: study.columns[outcome.key], study.rows.__getitem__)
    started = time.process_time()
    for target, baseline in zip(names * 15, names[1:] * 15, strict=False):
        assert found.of_gain(study.tested[target], study.tested[baseline]) is not None
    assert time.process_time() - started < 30


# -- the gap that is closed ---------------------------------------------------------------------


def of_share(study: Study) -> Noise:
    """That of a student `s` between the plain `e` and the teacher `t`."""
    found = Noises(
        study.agenda, lambda outcome: study.columns[outcome.key], study.rows.__getitem__
    ).of_share(*(study.tested[name] for name in "set"))
    assert found is not None
    return found


def a_gap(count: int, seed: int = 0) -> dict[str, list[int]]:
    """A student that closes about half of a gap, row by row; all three err on hard rows."""
    draw = random.Random(seed)
    ease = [draw.random() for _ in range(count)]
    shares = {"s": 0.7, "e": 0.6, "t": 0.8}
    return {
        name: [int(draw.gauss(each, 0.2) < share) for each in ease]
        for name, share in shares.items()
    }


def test_the_noise_of_a_share_is_that_of_shares_drawn_one_by_one() -> None:
    rights = a_gap(3000)
    found = of_share(Study({name: [right] for name, right in rights.items()}))
    draw = np.random.default_rng(7)
    shares = []
    for _ in range(1000):
        rows = draw.integers(3000, size=3000)
        s, e, t = (np.mean(np.array(rights[name])[rows]) for name in "set")
        shares.append((s - e) / (t - e))
    assert found == Noise(deviation=pytest.approx(np.std(shares), rel=0.15), of=NoiseOf.ROWS)


def test_the_seeds_of_students_are_in_the_noise_of_a_share_and_a_teacher_has_one() -> None:
    count, plain, taught = 4_000, [0.5, 0.52, 0.48, 0.5], [0.7, 0.74, 0.7, 0.66]

    def first(share: float) -> list[int]:
        return [int(row < share * count) for row in range(count)]

    study = Study({"s": [*map(first, taught)], "e": [*map(first, plain)], "t": [first(0.9)]})
    # Of a share of 1/2: what the seeds give of (s - e/2 - t/2) / 0.4.
    parts = [(s - e / 2) / 0.4 for s, e in zip(taught, plain, strict=True)]
    between = float(np.std(parts, ddof=1)) / math.sqrt(len(parts))
    assert of_share(study) == Noise(deviation=pytest.approx(between, rel=0.1), of=NoiseOf.BOTH)


TEN = range(10)


def case_with(erm: range, teacher: range, *, known: bool) -> CaseResult:
    """A case whose ten test rows plain students, and the teacher, have right as told.

    Its taught students have the first six right.
    """
    resolved = resolved_of(a_study(erm=True))
    [(name, data)] = resolved.datasets.items()
    datasets = {name: data.model_copy(update={"metric": "accuracy"})}
    agenda = Agenda(resolved.model_copy(update={"datasets": datasets}))

    def right(training: Training) -> range:
        if isinstance(training, StudentTraining):
            return range(6) if training.teaching else erm
        return teacher

    while requests := agenda.requests():
        for request in requests:
            test = len(right(request.training)) / 10
            found = outcome_of(request.training, 0.5, test=test, best_epoch=1, lowest_loss_epoch=1)
            agenda.add(request.training.key, found)

    def columns(outcome: Outcome) -> Columns | None:
        predicted = [int(row in right(outcome.training)) for row in TEN]
        return {"label": [1] * 10, "predicted": predicted} if known else None

    rows = [{"texts": [str(row)], "label": 1} for row in TEN]
    return analyse(agenda, Noises(agenda, columns, lambda digest: rows)).cases[0]


@pytest.mark.parametrize(
    ("erm", "teacher", "known", "share"),
    [
        (range(2), range(10), True, 0.5),
        (range(2), range(10), False, 0.5),
        # One row more, which is the noise √(0.09/10) = 0.095 of that difference once, not twice.
        (range(5), range(6), True, None),
        # Three rows more are twice √(0.21/10) = 0.145, which is the standard error of 0.3 as well.
        (range(3), range(6), True, 1.0),
        (range(3), range(6), False, 1.0),
        # The same, where all that is known is 0.5 and its standard error √(0.25/10) = 0.16.
        (range(5), range(6), False, None),
        # One row more, where nine differ: √(0.89/10) = 0.30.
        (range(5), range(4, 10), True, None),
        (range(6), range(6), True, None),
        (range(9), range(5), True, None),
    ],
)
def test_a_share_is_told_of_a_gap_beyond_its_noise(
    erm: range, teacher: range, known: bool, share: float | None
) -> None:
    case = case_with(erm, teacher, known=known)
    assert case.gap_closed == pytest.approx(share)
    assert case.stable_gap_closed == pytest.approx(share)  # all taught students are alike
    assert (case.gap_closed_noise is None) == (share is None or not known)


def test_a_student_that_is_its_teacher_closes_the_gap_for_certain() -> None:
    noise = case_with(range(2), range(6), known=True).gap_closed_noise
    assert noise == Noise(deviation=pytest.approx(0.0, abs=1e-12), of=NoiseOf.ROWS)


def test_without_rows_a_teacher_of_one_seed_goes_with_every_seed_of_its_student() -> None:
    resolved = resolved_of(a_study())
    teacher = TestScores(by_seed=(TestScore(0.9),), keys=(("t",),))
    erm = TestScores(by_seed=(TestScore(0.5), TestScore(0.7)), keys=(("a",), ("b",)))
    for sides in ((teacher, erm), (erm, teacher)):
        found = Noises(Agenda(resolved)).of_difference(*sides)
        # The deviation of 0.5 and 0.7 is 0.2 / √2, that of their mean 0.2 / 2.
        assert found == Noise(deviation=pytest.approx(0.1), of=NoiseOf.SEEDS)
