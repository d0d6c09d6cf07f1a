from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from fakes import FakeHub, listening
from test_cli import kdsearch, refused, tiny, written

from kdsearch.study import hub, load_study, shipped_studies
from kdsearch.study import test_cases as cases_of

PAIRS = [
    {"sentence1": f"It is {i} .", "sentence2": f"It was {i} .", "label": i % 2, "idx": i}
    for i in range(30)
]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that cannot be reached: nothing listens on this port."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.reachable.cache_clear()
    yield
    hub.reachable.cache_clear()


@pytest.fixture
def mrpc_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that has MRPC's repository, with a few pairs in every split."""
    fake = FakeHub({"nyu-mll/glue": PAIRS})
    monkeypatch.setattr(datasets, "load_dataset", fake)
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        hub.reachable.cache_clear()
        yield fake
    hub.reachable.cache_clear()


def split_file(folder: Path, name: str, rows: list[dict[str, Any]], split: str = "train") -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name / f"{split}.jsonl").write_text(text)


# -- data check ----------------------------------------------------------------------------------


def test_check_shows_the_rows_beside_the_published_counts(tmp_path: Path) -> None:
    split_file(tmp_path, "mrpc", PAIRS)
    facts = json.loads(kdsearch("data", "check", "mrpc", "--data-dir", tmp_path, "--json").out)
    assert facts["rows"] == {"train": 24, "validation": 3, "test": 3}
    assert facts["published"] == {"train": 3668, "validation": 408, "test": 1725}
    assert facts["limit"] == {}
    assert facts["cut"] == {"validation": 3, "test": 3}
    shown = kdsearch("data", "check", "mrpc", "--data-dir", tmp_path).out
    assert "24" in shown
    assert "3,668" in shown
    assert "drawn from train" in shown


def test_check_shows_the_published_rows_beside_the_usual_limit(tmp_path: Path) -> None:
    rows = [{"translation": {"de": f"Es ist {i}.", "en": f"It is {i}."}} for i in range(30)]
    split_file(tmp_path, "wmt16_de_en", rows)
    command = ("data", "check", "wmt16_de_en", "--data-dir", tmp_path)
    facts = json.loads(kdsearch(*command, "--json").out)
    assert facts["published"]["train"] == 4_490_021
    assert facts["limit"] == {"train": 500_000}
    shown = kdsearch(*command).out
    assert "4,490,021" in shown
    assert "train is limited to 500,000 rows, unless the study sets a limit" in shown


def test_check_says_how_many_rows_of_a_published_data_set_are_left_out(tmp_path: Path) -> None:
    good = [{"sentence": f"It is {i} .", "label": i % 2} for i in range(200)]
    split_file(tmp_path, "sst2", [*good, {"sentence": " ", "label": 0}])
    split_file(tmp_path, "sst2", good, "test")
    shown = kdsearch("data", "check", "sst2", "--data-dir", tmp_path).out
    assert "1 row of train cannot be used and were left out" in shown


def test_more_than_a_bad_row_in_a_hundred_is_refused(tmp_path: Path) -> None:
    split_file(
        tmp_path,
        "sst2",
        [{"sentence": "fine", "label": 7}]
        + PAIRS[:0]
        + [{"sentence": f"It is {i} .", "label": i % 2} for i in range(50)],
    )
    refused(kdsearch("data", "check", "sst2", "--data-dir", tmp_path), "row 1", "unknown label 7")


def test_an_unknown_data_set_is_refused_with_those_there_are() -> None:
    refused(kdsearch("data", "check", "mprc"), "mprc is not in the catalogue", "wmt16_ro_en")


@pytest.mark.usefixtures("no_hub")
def test_a_data_set_that_is_not_public_says_what_its_files_look_like() -> None:
    refused(kdsearch("data", "check", "klue3"), "is not a public data set", "ner_tags")


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_is_said_once_for_all_that_needs_it(tmp_path: Path) -> None:
    paper = shipped_studies()["paper"]
    ended = kdsearch("launch", paper, "--folder", tmp_path / "run", "--address", "local")
    refused(ended, "datasets.mrpc, datasets.mnli", "models.mbart-large", "kdsearch fetch")
    assert ended.err.count("cannot be reached") == 1


# -- fetch ---------------------------------------------------------------------------------------


def mrpc_study(path: Path) -> Path:
    return written(path, tiny(datasets={"mrpc": {"limit": {"train": 20}}}))


def test_fetch_brings_what_a_study_needs_and_the_study_reads_it_without_the_hub(
    tmp_path: Path, mrpc_hub: FakeHub
) -> None:
    study = mrpc_study(tmp_path / "s.yaml")
    ended = kdsearch("fetch", study, "--data-dir", tmp_path / "hub")
    assert ended.code == 0
    assert "--data-dir" in ended.out
    with gzip.open(tmp_path / "hub" / "mrpc" / "test.jsonl.gz", "rt") as lines:
        assert [json.loads(line) for line in lines] == PAIRS
    calls = len(mrpc_hub.calls)
    folder = tmp_path / "run"
    ended = kdsearch(
        "launch", study, "--data-dir", tmp_path / "hub", "--folder", folder, "--in-process"
    )
    assert ended.code == 0, ended
    assert len(mrpc_hub.calls) == calls


def test_fetch_does_not_fetch_again_what_is_there(tmp_path: Path, mrpc_hub: FakeHub) -> None:
    study = mrpc_study(tmp_path / "s.yaml")
    kdsearch("fetch", study, "--data-dir", tmp_path / "hub")
    calls = len(mrpc_hub.calls)
    ended = kdsearch("fetch", study, "--data-dir", tmp_path / "hub")
    assert "1 of 1 already there" in ended.out
    assert len(mrpc_hub.calls) == calls


def test_a_data_set_of_which_a_split_fails_is_not_brought_at_all(
    tmp_path: Path, mrpc_hub: FakeHub
) -> None:
    study = written(tmp_path / "s.yaml", tiny(datasets={"mrpc": {}, "squad": {}}))
    target = tmp_path / "hub"

    def without_test(*args: Any, **options: Any) -> Any:
        if options["split"] == "test":
            raise ConnectionError("the line was cut")
        return mrpc_hub(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", without_test)
        ended = kdsearch("fetch", study, "--data-dir", target)
    refused(ended, "(mrpc): test: cannot be loaded: the line was cut", "mrqa-workshop/mrqa")
    assert not (target / "mrpc").exists()
    assert not (target / "squad").exists()
    assert kdsearch("fetch", mrpc_study(study), "--data-dir", target).code == 0
    assert sorted(path.name for path in (target / "mrpc").iterdir()) == [
        f"{split}.jsonl.gz" for split in ("test", "train", "validation")
    ]
    assert not (target / ".mrpc.part").exists()


def test_a_data_sets_folder_that_is_there_is_not_touched(tmp_path: Path, mrpc_hub: FakeHub) -> None:
    split_file(tmp_path / "hub", "mrpc", PAIRS)
    study = mrpc_study(tmp_path / "s.yaml")
    assert kdsearch("fetch", study, "--data-dir", tmp_path / "hub").code == 0
    assert [path.name for path in (tmp_path / "hub" / "mrpc").iterdir()] == ["train.jsonl"]
    assert not mrpc_hub.calls


@pytest.mark.usefixtures("no_hub")
def test_fetch_without_the_hub_says_where_to_run_it(tmp_path: Path) -> None:
    study = mrpc_study(tmp_path / "s.yaml")
    ended = kdsearch("fetch", study, "--data-dir", tmp_path / "hub")
    refused(ended, "1 are missing", "cannot be reached", "login node")
    assert ended.err.count("cannot be reached") == 1


def test_fetch_asks_for_the_files_of_a_data_set_that_is_not_public(tmp_path: Path) -> None:
    study = written(tmp_path / "s.yaml", tiny(datasets={"klue3": {}}))
    ended = kdsearch("fetch", study, "--data-dir", tmp_path / "hub")
    refused(ended, "datasets.klue3", "is not public", "ner_tags")


# -- the paper's study ---------------------------------------------------------------------------


def test_the_papers_study_has_39_test_cases_of_13_data_sets_and_3_students_each() -> None:
    cases = cases_of(load_study(shipped_studies()["paper"]))
    assert len(cases) == len(set(cases)) == 39
    students: dict[str, set[str]] = {}
    for case in cases:
        students.setdefault(case.dataset, set()).add(case.student)
    assert len(students) == 13
    assert {len(each) for each in students.values()} == {3}


def test_the_small_study_has_the_shape_of_the_papers() -> None:
    small = cases_of(load_study(shipped_studies()["paper-small"]))
    assert len(small) == 39
    assert len({case.dataset for case in small}) == 13


def test_the_study_of_reasoning_has_five_sizes_of_students_and_two_teachers_or_none() -> None:
    study = load_study(shipped_studies()["reasoning"])
    found = cases_of(study)
    sets = {"gsm8k", "arc_easy", "arc_challenge", "openbookqa", "aqua_rat", "logiqa", "boolq"}
    sizes = {"half", "0.5b", "1.5b", "3b", "7b"}
    every = set(itertools.product(sets, ["plain", "tuned"], sizes))
    by_search = {
        search: {
            (case.dataset, case.teacher, case.student) for case in found if case.search == search
        }
        for search in ("tokens", "sequences", "erm")
    }
    assert by_search["tokens"] == every
    assert by_search["sequences"] == {case for case in every if case[0] == "gsm8k"}
    assert by_search["erm"] == {(dataset, None, size) for dataset, _, size in every}
    assert study.teachers["plain"].checkpoint == study.teachers["tuned"].model


def test_the_papers_study_has_the_papers_grid() -> None:
    study = load_study(shipped_studies()["paper"])
    assert study.search == type(study.search)()
    assert study.training == type(study.training)()
    assert study.search.learning_rate == pytest.approx(tuple(i * 1e-5 for i in range(1, 8)))
    assert (study.training.epochs, study.training.batch_size) == (10, 32)


@pytest.mark.usefixtures("no_hub")
def test_plan_shows_the_papers_study_without_network_or_data(tmp_path: Path) -> None:
    facts = json.loads(kdsearch("plan", shipped_studies()["paper"], "--speed", "200", "--json").out)
    assert len(facts["cases"]) == 39
    assert facts["teachers"] == 39
    assert all(cache["bytes"] > 0 for cache in facts["caches"])
    german = next(cache for cache in facts["caches"] if cache["dataset"] == "wmt16_de_en")
    rows, checkpoints = 500_000, 2
    head = 250_027 * 1024 * 4
    # 1,024 numbers of two bytes for each of about 27 target tokens, and the head
    assert german["bytes"] == pytest.approx(checkpoints * (rows * 27 * 1024 * 2 + head), rel=0.01)
    mrpc = next(case for case in facts["cases"] if case["case"].startswith("mrpc/"))
    assert mrpc["seconds"]["fewest"] == mrpc["students"]["fewest"] * 3668 * 10 / 200
