"""Texts that a teacher writes, and students that learn on them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from fakes import outcome_of
from models import (
    SEQ2SEQ,
    begin,
    data_of,
    encode,
    everything,
    objective_of,
    rows_of,
    run_study,
    save_model,
    task_study,
    task_texts,
    without_cost,
)
from test_lm import bytes_tokenizer, model_of
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    WritingSettings,
    WrittenRows,
    case_counts,
    left,
)
from kdsearch.analysis import Level, analyse
from kdsearch.distill import run_training
from kdsearch.distill.models import word_tokenizer
from kdsearch.driver.watch import Log
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, verify
from kdsearch.report.document import document
from kdsearch.report.levels import levels_section
from kdsearch.report.page import page
from kdsearch.search import SequenceKd
from kdsearch.study import SPECS
from kdsearch.study import test_cases as cases_of
from kdsearch.tasks import TASKS, Gumbel, Writer, prompts_and_completions
from kdsearch.tasks.answers import Reference

WORDS = {task: word_tokenizer(task_texts(task)) for task in ("lm", "translation")}
WAYS = ("greedy", "beam", "sample")


def writing(how: str, **changes: Any) -> WritingSettings:
    usual: dict[str, Any] = {
        "batch_size": 8,
        "max_length": 24,
        "stride": None,
        "beams": 3 if how == "beam" else None,
        "hidden_dtype": None,
        "samples": 1 if how == "sample" else None,
        "temperature": 0.7 if how == "sample" else None,
        "precision": "fp32",
        "cpu_threads": 1,
    }
    return WritingSettings(**{**usual, **changes})


@cache
def model_for(task: str) -> Any:
    """A tiny model at random, whose texts differ, and end or do not end."""
    words = WORDS[task]
    if task == "lm":
        model, seed, deviation = model_of("llama"), 3, 0.6
    else:
        seed, deviation = 22, 0.5
        depths, _, fields = SEQ2SEQ["bart"]
        ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
        ends |= dict.fromkeys(("pad_token_id", "decoder_start_token_id"), words.pad_token_id)
        shape = {**fields, **dict.fromkeys(depths, 2), "vocab_size": len(words)}
        config = AutoConfig.for_model("bart", **{**shape, **ends})
        model = AutoModelForSeq2SeqLM.from_config(config).eval()
        model.final_logits_bias[0, words.eos_token_id] = 2.0
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=deviation)
    return model


def written(task: str, how: str, numbers: list[int], length: int = 24) -> list[str | None]:
    """What the model writes for these rows as one batch."""
    rows = [rows_of(task)[number] for number in numbers]
    batch = everything(encode(task, rows, WORDS[task], training=False, max_length=2 * length))
    settings = writing(how, max_length=length)
    noise = Gumbel(0.7, numbers, torch.device("cpu")) if how == "sample" else None
    with torch.no_grad():
        return cast(Writer, TASKS[task]).write(
            model_for(task), WORDS[task], batch, data_of(task), settings, noise
        )


def alone(task: str, how: str, number: int, length: int = 24) -> str | None:
    """The same of one row, by transformers alone: nothing is padded, and nothing cut."""
    row, words, model = rows_of(task)[number], WORDS[task], model_for(task)
    room = length
    if task == "lm":
        [(prompt, _)] = prompts_and_completions([row], words)
        room = min(length // 2, length - len(prompt))
        if room <= 0:
            return None
    else:
        prompt = words(row["source"])["input_ids"]
    config = GenerationConfig(
        num_beams=3 if how == "beam" else 1,
        max_new_tokens=room,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        decoder_start_token_id=words.pad_token_id,
        suppress_tokens=[words.pad_token_id] if task == "translation" else None,
    )
    noise = [Gumbel(0.7, [number], torch.device("cpu"))] if how == "sample" else []
    tokens = model.generate(
        torch.tensor([prompt]), generation_config=config, logits_processor=noise
    )[0]
    tokens = tokens[len(prompt) :] if task == "lm" else tokens[1:]
    if words.eos_token_id not in tokens:
        return None
    said = tokens[: tokens.tolist().index(words.eos_token_id)]
    text = str(words.decode(said, skip_special_tokens=True))
    return f" {text}" if task == "lm" and text else text


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("task", ["lm", "translation"])
def test_a_teacher_writes_for_a_row_among_others_what_it_writes_for_it_alone(
    task: str, how: str
) -> None:
    numbers = [*range(14)]
    together = written(task, how, numbers)
    assert together == [alone(task, how, number) for number in numbers]
    assert None in together  # some have not ended within the most tokens
    assert len({*together}) > 2
    some = [11, 2, 7]  # drawn for a row is the same wherever it stands
    assert written(task, how, some) == [together[number] for number in some]


def test_what_is_drawn_has_the_models_probabilities_at_the_temperature() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    noise = Gumbel(1.5, range(4000), torch.device("cpu"))
    drawn = noise.noisy(logits.expand(4000, 4), range(4000)).argmax(dim=1)
    found = torch.bincount(drawn, minlength=4) / 4000
    expected = (logits / 1.5).softmax(dim=0)
    assert (found - expected).abs().max() < 4 * 0.5 / 4000**0.5


# -- a study whose teacher writes ---------------------------------------------------------------


SEARCHES: dict[str, Any] = {
    "token": {
        "objective": ["ce"],
        "targets": ["data", "greedy", "rejection"],
        "temperature": [2],
        "alpha": [0.5],
        "learning_rate": [1e-2],
        "strategy": "exhaustive",
    },
    "texts": {
        "objective": ["sequence"],
        "targets": ["greedy", "sample"],
        "learning_rate": [1e-2],
        "strategy": "exhaustive",
    },
}


def sums(numbers: range) -> list[dict[str, str]]:
    """Rows that are quickly learnt, and whose answers are now and then right."""
    pairs = [divmod(37 * number % 100, 10) for number in numbers]
    return [{"prompt": f"{a} and {b} :", "completion": f" #### {(a + b) % 2}"} for a, b in pairs]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of a language model that writes for its students."""
    folder = tmp_path_factory.mktemp("sequences")
    model = save_model(folder / "m", "llama", task="lm", tokenizer=bytes_tokenizer())
    files = {"train": range(56), "validation": range(56, 70), "test": range(70, 100)}
    for name, numbers in files.items():
        lines = map(json.dumps, sums(numbers))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    study = task_study(
        "lm",
        datasets={"data": data_in({name: folder / f"{name}.jsonl" for name in files})},
        models={"m": str(model)},
        teachers={"t": {"model": "m", "fine_tune": {"learning_rate": [1e-2], "epochs": 8}}},
        students={"s": {"model": "m", "layers": 1}},
        training={"sequences": {"samples": 4}, "max_length": 32, "epochs": 3},
        keep_students="all",
        erm=True,
        learning_rate=[1e-2],
    )
    del study["search"]
    ledger, agenda = begin(folder / "run", {**study, "searches": SEARCHES})
    taken = left(agenda)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    assert taken.fewest <= len(agenda.results) <= taken.most
    return ledger.folder


def data_in(files: dict[str, Path]) -> dict[str, Any]:
    paths = {name: str(path) for name, path in files.items()}
    return {"task": "lm", "files": paths, "text": "prompt", "label": "completion"}


def answer(row: dict[str, Any]) -> object:
    """What stands behind the last mark of a row's completion, a number where it is one."""
    found = str(row["completion"]).rpartition("####")[2].strip()
    return int(found) if found.isdigit() else found


def outcomes(ledger: Ledger, kind: type[Any]) -> list[Outcome]:
    return [outcome for outcome in ledger.outcomes() if isinstance(outcome.training, kind)]


def of(ledger: Ledger, how: str) -> Outcome:
    [found] = [
        outcome
        for outcome in outcomes(ledger, SequencesTraining)
        if cast(SequencesTraining, outcome.training).how == how
    ]
    return found


def student(ledger: Ledger, kind: str, **parameters: Any) -> StudentTraining:
    found = [
        cast(StudentTraining, outcome.training) for outcome in outcomes(ledger, StudentTraining)
    ]
    [only] = [
        each
        for each in found
        if each.objective.kind == kind and parameters.items() <= each.objective.parameters.items()
    ]
    return only


def test_the_rows_that_a_teacher_wrote_are_those_of_the_data_with_its_texts(finished: Path) -> None:
    ledger = Ledger(finished)
    data = ledger.rows(ledger.resolved().datasets["data"].splits["train"].digest)
    outcome = of(ledger, "greedy")
    assert outcome.wrote is not None
    rows = ledger.sequences(outcome.key)
    assert len(rows) == outcome.wrote.rows > len(data) / 2
    assert outcome.wrote.texts == len(data)
    prompts = [row["prompt"] for row in data]
    assert [prompts.index(row["prompt"]) for row in rows] == sorted(
        prompts.index(row["prompt"]) for row in rows
    )
    assert {frozenset(row) for row in rows} == {frozenset({"prompt", "completion"})}


def test_rejection_keeps_each_different_text_whose_answer_is_right_and_no_other(
    finished: Path,
) -> None:
    ledger = Ledger(finished)
    drawn, kept = of(ledger, "sample"), of(ledger, "rejection")
    assert drawn.wrote is not None
    assert kept.wrote is not None
    data = ledger.rows(ledger.resolved().datasets["data"].splits["train"].digest)
    right: dict[str, Any] = {row["prompt"]: answer(row) for row in data}
    assert len(right) == len(data)  # so that a row is told by its prompt
    expected: list[dict[str, Any]] = []
    wrong = repeated = 0
    for row in ledger.sequences(drawn.key):  # the same draws, of the same seed
        if answer(row) != right[row["prompt"]]:
            wrong += 1
        elif row in expected:
            repeated += 1
        else:
            expected.append(row)
    assert ledger.sequences(kept.key) == expected
    assert 0 < len(expected) == kept.wrote.rows
    assert (kept.wrote.wrong, kept.wrote.repeated) == (wrong, repeated)
    assert kept.wrote.without == len(data) - len({row["prompt"] for row in expected})


def test_a_student_on_its_teachers_texts_is_one_on_data_with_these_texts(
    finished: Path, tmp_path: Path
) -> None:
    ledger = Ledger(finished)
    training = student(ledger, "sequence", targets="greedy")
    data = ledger.resolved().datasets["data"]
    files = {
        name: ledger.folder / f"data/{split.digest}.jsonl" for name, split in data.splits.items()
    }
    files["train"] = ledger.folder / f"sequences/{training.taught.sequences}.jsonl"
    model = ledger.resolved().study.models["m"].path
    study = task_study(
        "lm",
        datasets={"texts": data_in(files)},
        models={"m": model},
        teachers={"t": {"model": "m"}},
        students={"s": {"model": "m", "layers": 1}},
        training={"max_length": 32, "epochs": 3},
        keep_students="all",
    )
    study["search"] = {"objective": "labels", "learning_rate": [1e-2], "strategy": "exhaustive"}
    other, agenda = begin(tmp_path / "run", study)
    run_study(other, agenda, run_training)
    [plain] = outcomes(other, StudentTraining)
    same = ledger.outcome(training.key)
    assert same is not None
    weights = [
        (each.folder / f"students/{key}/model.safetensors").read_bytes()
        for each, key in ((ledger, training.key), (other, plain.key))
    ]
    assert weights[0] == weights[1]
    assert (same.validation, same.test) == (plain.validation, plain.test)
    assert "agreement" in same.measures  # it has a teacher to be compared with


def test_the_outputs_on_texts_are_what_the_teacher_says_of_their_words(finished: Path) -> None:
    ledger = Ledger(finished)
    training = student(ledger, "ce", targets="greedy")
    outputs = ledger.outcome(training.taught.outputs)
    assert outputs is not None
    passed = cast(OutputsTraining, outputs.training)
    assert passed.sequences == training.taught.sequences
    found = np.load(ledger.folder / f"outputs/{outputs.key}.npy")
    checkpoint = passed.checkpoint
    folder = ledger.folder / f"checkpoints/{checkpoint.training}/epoch-{checkpoint.epoch}"
    task, tokenizer = TASKS["lm"], bytes_tokenizer()
    teacher = task.head.from_pretrained(folder).eval()
    rows = ledger.sequences(of(ledger, "greedy").key)
    examples = encode("lm", rows, tokenizer, max_length=32)
    with torch.no_grad():
        said = task.outputs(teacher, everything(examples))
    kept = torch.from_numpy(found).view(torch.bfloat16).float()
    torch.testing.assert_close(kept, said, rtol=0.02, atol=0.02)


def test_texts_that_are_gone_are_written_again_before_a_student_learns_on_them(
    finished: Path, tmp_path: Path
) -> None:
    ledger = Ledger(shutil.copytree(finished, tmp_path / "run"))
    training = student(ledger, "ce", targets="greedy")
    before = ledger.outcome(training.key)
    assert before is not None
    path = ledger.folder / f"sequences/{training.taught.sequences}.jsonl"
    content = path.read_bytes()
    path.unlink()
    assert without_cost(run_training(training, ledger.folder)) == without_cost(before)
    assert path.read_bytes() == content
    assert not verify(ledger).problems


def test_outputs_on_texts_that_were_written_otherwise_are_computed_again(
    finished: Path, tmp_path: Path
) -> None:
    ledger = Ledger(shutil.copytree(finished, tmp_path / "run"))
    training = student(ledger, "ce", targets="greedy")
    key, outputs = training.taught.sequences, training.taught.outputs
    assert key is not None
    rows = ledger.sequences(key)
    ledger.write_digests(key, {f"sequences/{key}.jsonl": ledger.write_sequences(key, rows[::-1])})
    before = np.load(ledger.folder / f"outputs/{outputs}.npy")
    run_training(training, ledger.folder)
    after = np.load(ledger.folder / f"outputs/{outputs}.npy")
    assert before.shape == after.shape
    assert not np.array_equal(before, after)


def test_a_teacher_whose_texts_never_end_wrote_nothing_to_learn_from(finished: Path) -> None:
    training = cast(SequencesTraining, of(Ledger(finished), "greedy").training)
    short = training.settings.model_copy(update={"max_length": 6})
    outcome = run_training(training.model_copy(update={"settings": short}), finished)
    assert outcome.state == "diverged"
    assert outcome.wrote is not None
    assert outcome.wrote.unfinished == outcome.wrote.texts == outcome.wrote.without
    assert outcome.wrote_nothing == (
        f"none of its {outcome.wrote.texts} texts ended under a max_length of 6; raise it, or "
        "train the teacher longer"
    )
    assert not outcome.digests


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({"wrong": 8}, "none of its 8 texts had the right answer; train the teacher longer"),
        (
            {"wrong": 5, "unfinished": 2, "empty": 1},
            "none of its 8 texts can be learnt from (2 unfinished, 1 empty, 5 wrong)",
        ),
        ({"wrong": 7}, None),
    ],
)
def test_what_became_of_the_texts_is_said_wherever_their_teacher_has_none_to_learn_from(
    counts: dict[str, int], why: str | None, finished: Path, tmp_path: Path
) -> None:
    ledger = Ledger(finished)
    agenda = Agenda(ledger.resolved(), {})
    wrote = WrittenRows(texts=8, without=8, **counts)
    nothing = {"state": "diverged" if why else "scored", "wrote": wrote, "validation": None}
    log = Log(tmp_path)
    while requests := agenda.requests():
        for request in requests:
            training = request.training
            made = nothing if isinstance(training, SequencesTraining) else {"validation": 0.5}
            outcome = outcome_of(training, **made)
            agenda.add(training.key, outcome)
            if made is nothing:
                log.finished(request, outcome)
    log.close()
    analysis = analyse(agenda)
    found = " ".join(document(analysis, agenda, {}).replace("\\", "").split())
    for text in ((tmp_path / "launch.log").read_text(), found, page(analysis, agenda, {})):
        assert text.count("none of its 8 texts") == text.count(why or "none of its") >= bool(why)


def test_the_report_says_what_each_level_brings_and_what_was_written(finished: Path) -> None:
    ledger = Ledger(finished)
    analysis = analyse(Agenda(ledger.resolved(), ledger.results()))
    [found] = analysis.levels.students
    assert [(row.level, row.targets) for row in found.rows] == [
        (Level.NONE, "data"),
        (Level.TOKEN, "data"),
        (Level.SEQUENCE, "greedy"),
        (Level.SEQUENCE, "sample"),
        (Level.BOTH, "greedy"),
        (Level.BOTH, "rejection"),
    ]
    scores = {row.level: row.test for row in found.rows if row.targets == "greedy"}
    tokens = student(ledger, "ce", targets="data")
    baseline = ledger.outcome(tokens.key)
    assert baseline is not None
    assert baseline.test is not None
    [gain] = [row.gain for row in found.rows if row.level is Level.BOTH and row.targets == "greedy"]
    tested = scores[Level.BOTH]
    assert tested is not None
    assert gain == pytest.approx(tested / baseline.test - 1)
    text = "\n".join(levels_section(analysis))
    of_texts = analysis.levels.comparisons[-1]  # on greedy ones, the only ones that both have
    sequence = scores[Level.SEQUENCE]
    assert sequence is not None
    assert [each.gain for each in of_texts.gains] == [pytest.approx(tested / sequence - 1)]
    texts, train = of(ledger, "greedy").wrote, ledger.resolved().datasets["data"].splits["train"]
    assert texts is not None
    assert f"| both levels | greedy | {texts.rows} | 1 |" in text
    assert f"| token level | data | {train.rows} | 1 |" in text
    wrote = of(ledger, "rejection").wrote
    assert wrote is not None
    assert f"| {wrote.texts} | {wrote.rows} | " in text


def test_the_texts_of_a_teacher_are_counted_once_for_all_of_its_searches(finished: Path) -> None:
    ledger = Ledger(finished)
    kinds = Counter(outcome.training.kind for outcome in ledger.outcomes())
    assert kinds["sequences"] == 3
    assert kinds["outputs"] == 3 + 2  # on each split; on the texts whose tokens are learnt
    study = ledger.resolved().study
    token, texts = (case_counts(study, case) for case in cases_of(study)[:2])
    assert (token.sequences.most, token.outputs.most) == (2, 5)
    assert (texts.sequences.most, texts.outputs.most) == (2, 3)


# -- what is refused before a search ------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "search", "said"),
    [
        (
            "classification",
            {"targets": ["data", "greedy"]},
            "search.targets: greedy has students learn on texts that their teacher writes, and "
            "data is for classification, whose models write none",
        ),
        (
            "ner",
            {"objective": ["sequence"], "alpha": None, "temperature": None},
            "search.distance: sequence has students learn on texts",
        ),
        (
            "translation",
            {"targets": ["rejection"]},
            "rejection keeps texts whose answer is right, and translation of data has no such",
        ),
        (
            "lm",
            {"objective": ["sequence"], "targets": ["data"]},
            "must be what the teacher writes; the data’s own texts are learnt by `labels`, not",
        ),
        ("lm", {"targets": ["best"]}, "must be data or greedy, beam, sample or rejection"),
    ],
)
def test_texts_that_no_teacher_can_write_are_refused(
    task: str, search: dict[str, Any], said: str, tmp_path: Path
) -> None:
    study = task_study(task)
    usual = {"objective": ["ce"], "teacher": ["t_hs"], "learning_rate": [1e-2], "temperature": [1]}
    found = {**usual, "strategy": "exhaustive", **search}
    study["search"] = {name: value for name, value in found.items() if value is not None}
    with pytest.raises(InputError) as error:
        begin(tmp_path / "run", study)
    assert said in str(error.value)


def test_settings_of_texts_that_nobody_writes_are_refused(tmp_path: Path) -> None:
    study = task_study("lm", training={"sequences": {"samples": 4}})
    with pytest.raises(InputError, match=r"training\.sequences: is for texts that teachers write"):
        begin(tmp_path / "run", study)


def test_every_task_says_whether_its_models_write_and_can_if_so() -> None:
    for name, spec in SPECS.items():
        assert spec.writes == hasattr(TASKS[name], "write")
        assert spec.writes or not spec.answers


def test_an_objective_on_texts_is_told_by_them() -> None:
    ce = objective_of("ce", temperature=4, alpha=0.5)
    assert str(ce) == str(type(ce)(**{**ce.parameters, "targets": "data"}))
    assert "targets=beam" in str(type(ce)(**{**ce.parameters, "targets": "beam"}))
    assert str(SequenceKd()) == "SeqKD"
    assert json.dumps(SequenceKd(targets="sample").parameters["targets"]) == '"sample"'


def test_a_message_is_learnt_without_what_its_template_writes_around_it() -> None:
    writer, around = cast(Writer, TASKS["lm"]), Reference("7", "<think></think>", "<end>")
    asked = {"prompt": [{"role": "user", "content": "3 + 4"}], "completion": "7"}
    found = writer.written(asked, "<think></think>\n\n8 <end>\n", around)
    assert found == {**asked, "completion": "8"}
    assert writer.written(asked, "<think></think> <end>", around) is None
    plain = {"prompt": "3 + 4 =", "completion": " 7"}
    assert writer.written(plain, " 8", Reference(" 7")) == {**plain, "completion": " 8"}
