"""What a model card prints, run as it stands, gives the score that it reports."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import SMALL_GRID, World, a_study, resolved_of, search_through
from huggingface_hub import ModelCard
from models import (
    DECODERS,
    ENCODERS,
    SENTENCES,
    SEQ2SEQ,
    begin,
    multilingual,
    run_study,
    save_model,
    task_texts,
    tiny_cnn,
    tiny_study,
    tiny_vit,
)
from PIL import Image
from test_cli import kdsearch
from test_ner import byte_pairs, tokenizer_of
from test_squad2 import questions

from kdsearch.agenda import Agenda, TestScore
from kdsearch.analysis import CaseResult, Erm, analyse
from kdsearch.analysis.noise import Noise, NoiseOf
from kdsearch.distill import run_training
from kdsearch.ledger import Ledger
from kdsearch.report import card, distilled_from
from kdsearch.report.hub import metadata
from kdsearch.study import SPLITS

COUNTS = dict(zip(SPLITS, (200, 20, 60), strict=True))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A student of a task, and what about its data and training matters for a score."""

    task: str
    kind: str = "bert"
    tokenizer: Callable[[Path], Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    rows: Callable[[int], list[dict[str, Any]]] | None = None
    """So many, of a data set that no grammar makes."""
    labels: Sequence[str] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    given: bool = False
    """Whether a model at random is its teacher, so that the tags stay in their scheme."""
    vocabulary: int = 0
    """Of a student from a folder: the rows of its table, some more than there are tokens."""


def pairs(count: int) -> list[dict[str, Any]]:
    draw = random.Random(count)
    found = []
    for _ in range(count):
        first, second = draw.choices(SENTENCES, k=2)
        found.append({"first": first, "second": second, "label": int("not" in second)})
    return found


def tagged(scheme: str) -> Callable[[int], list[dict[str, Any]]]:
    """Sentences of names of one or of two words, tagged in a scheme, and blank words."""
    both, alone = {"BILOU": ("BL", "U"), "BIOES": ("BE", "S"), "IO": ("II", "I")}[scheme]
    words = {"PER": ("Ada", "Ben"), "LOC": ("Rome", "Oslo"), "O": ("saw", "a", " ")}

    def row(draw: random.Random) -> dict[str, Any]:
        said, tags = ["on"], ["O"]
        for kind in draw.choices(tuple(words), k=4):
            letters = "O" if kind == "O" else draw.choice((both, alone))
            said += draw.choices(words[kind], k=len(letters))
            tag = "O" if kind == "O" else kind if scheme == "IO" else ""
            tags += [tag or f"{letter}-{kind}" for letter in letters]
        return {"words": said, "tags": tags}

    return lambda count: [row(draw) for draw in map(random.Random, range(count))]


TAGS = {
    "BILOU": ("O", *(f"{x}-{kind}" for kind in ("PER", "LOC") for x in "BILU")),
    "BIOES": ("O", *(f"{x}-{kind}" for kind in ("PER", "LOC") for x in "BIES")),
    "IO": ("O", "PER", "LOC"),
}
PAIRS: dict[str, Any] = {
    "text": ["first", "second"],
    "label": "label",
    "labels": ["different", "same"],
}
TAGGED = {"text": "words", "label": "tags"}
VARIANTS = {
    "sentences": Variant(task="classification", training={"max_length": 6}),
    "accuracy": Variant(task="classification", data={"metric": "accuracy"}),
    "pairs": Variant(
        task="classification",
        rows=pairs,
        data=PAIRS,
        labels=("different", "same"),
        tokenizer=lambda _: tokenizer_of("WordPiece"),
        training={"max_length": 24, "precision": "bf16"},
    ),
    "words": Variant(task="ner", training={"max_length": 8}),
    "words' accuracy": Variant(
        task="ner", data={"metric": "accuracy"}, training={"precision": "bf16"}
    ),
    "words of byte-level BPE": Variant(
        task="ner",
        kind="roberta",
        tokenizer=lambda _: byte_pairs(trim_offsets=False, prefix=False),
        training={"max_length": 30},
    ),
    **{
        scheme: Variant(
            task="ner", rows=tagged(scheme), data=TAGGED, labels=TAGS[scheme], given=True
        )
        for scheme in TAGS
    },
    "questions": Variant(task="qa", training={"max_length": 20, "stride": 4}),
    "exact match": Variant(
        task="qa", data={"metric": "exact_match"}, training={"precision": "bf16"}
    ),
    "questions without an answer": Variant(
        task="qa",
        rows=lambda count: questions(count, seed=count),
        data={"unanswerable": True},
        training={"max_length": 10, "stride": 2},
    ),
    "translations": Variant(task="translation", kind="bart", training={"max_length": 9}),
    "translations' chrF": Variant(
        task="translation",
        kind="marian",
        data={"metric": "chrf"},
        training={"precision": "bf16"},
    ),
    "continuations": Variant(task="lm", kind="llama", training={"max_length": 12}),
    "continuations of a padded model": Variant(task="lm", kind="llama", vocabulary=500),
    "continuations in bf16": Variant(task="lm", kind="gpt2", training={"precision": "bf16"}),
    "answers in words": Variant(
        task="lm",
        kind="llama",
        rows=lambda count: told(count),
        data={"text": "ask", "label": "say", "metric": "exact_match"},
        training={"max_length": 16},
    ),
    "answers by a pattern": Variant(
        task="lm",
        kind="gpt2",
        rows=lambda count: told(count),
        data={"text": "ask", "label": "say", "metric": "exact_match", "answer": "so ([ab])"},
        training={"max_length": 16},
    ),
    "words in common": Variant(
        task="lm", kind="llama", data={"metric": "rouge_l"}, training={"max_length": 24}
    ),
    "choices": Variant(
        task="lm",
        kind="llama",
        rows=lambda count: told(count),
        data={
            "prompt": "who wrote {ask}",
            "label": "say",
            "choices": ["so a", "so b", "a book"],
            "metric": "multiple_choice",
        },
        training={"max_length": 12},
    ),
    "images": Variant(task="image_classification", kind="resnet"),
    "images' F1": Variant(task="image_classification", kind="vit", data={"metric": "f1"}),
    "multilingual translations": Variant(
        task="translation",
        kind="mbart",
        tokenizer=lambda folder: multilingual("mbart", folder),
        data={"languages": ["de_DE", "en_XX"]},
    ),
}


def told(count: int) -> list[dict[str, Any]]:
    """Questions, most of which have one answer."""
    draw = random.Random(count)
    return [
        {"ask": f"{draw.choice(SENTENCES)} ?", "say": f" so {draw.choice('aaab')}"}
        for _ in range(count)
    ]


def studied(folder: Path, variant: Variant) -> Ledger:
    """A finished study of a variant: one student, with the tokenizer of another model."""
    texts: Sequence[str] = task_texts(variant.task)
    source: dict[str, Any] = {"grammar": COUNTS}
    if variant.rows is not None:
        files = {}
        for split, count in COUNTS.items():
            rows = variant.rows(count)
            files[split] = str(folder / f"{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        texts = [
            *texts,
            *SENTENCES,
            "so a b ?",
            "on Ada Ben Rome Oslo saw a",
            "who where when was it ? wrote a book in",
        ]
        source = {"files": files}
    if variant.task == "image_classification":
        config = tiny_vit() if variant.kind == "vit" else tiny_cnn(8)
    else:
        depths, _, rest = (ENCODERS | SEQ2SEQ | DECODERS)[variant.kind]
        layers = dict.fromkeys(depths if isinstance(depths, tuple) else [depths], 1)
        config = {"model_type": variant.kind, **rest, **layers}
    other = save_model(
        folder / "other",
        variant.kind,
        task=variant.task,
        labels=variant.labels,
        texts=texts,
        tokenizer=variant.tokenizer(folder) if variant.tokenizer else None,
        **({"vocab_size": variant.vocabulary} if variant.vocabulary else {}),
    )
    teacher = {"checkpoint": "other"} if variant.given else {"model": "other"}
    search: dict[str, Any] = {"strategy": "exhaustive", "distance": ["labels"]}
    if variant.given:
        search = {"distance": ["mse"], "alpha": [0.1]}
    study = tiny_study(
        datasets={"data": {"task": variant.task, **source, **variant.data}},
        models={"own": {"config": config, "tokenizer": "other"}, "other": str(other)},
        teachers={"other": teacher},
        students={"own": {"model": "other" if variant.vocabulary else "own"}},
        search={**search, "learning_rate": [1e-2]},
        training={
            **tiny_study()["training"],
            "epochs": 8,
            "max_length": 64,
            **({"beams": 2} if variant.task == "translation" else {}),
            **variant.training,
        },
    )
    ledger, agenda = begin(folder / "study", study)
    run_study(ledger, agenda, run_training)
    return ledger


def printed(path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """What the last line says that a card's code prints in its folder, with the rows beside it."""
    shutil.copy(rows, path.parent)
    if (images := rows.with_suffix(".npy")).exists():
        shutil.copy(images, path.parent)
        Image.fromarray(np.load(images)[0]).save(path.parent / "image.jpg")
    monkeypatch.chdir(path.parent)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S))
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, str(path), "exec"), {})
    return float(said.getvalue().splitlines()[-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_code_of_a_card_gives_the_score_that_it_reports(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = studied(tmp_path, VARIANTS[name])
    path = tmp_path / "student" / "README.md"
    result = kdsearch("export", ledger.folder, "own", "--to", path.parent)
    assert result.code == 0, result
    [reported] = ModelCard.load(path).data.eval_results
    [data] = ledger.resolved().datasets.values()
    rows = ledger.folder / "data" / f"{data.splits['test'].digest}.jsonl"
    found = printed(path, rows, monkeypatch)
    # A likelihood is a sum of many roundings, and in bf16 a batch's are other ones.
    close = {"abs": 1e-9} if reported.metric_type != "likelihood" else {"rel": 1e-5}
    if "bf16" in name:
        close = {"rel": 1e-2}
    assert found == pytest.approx(reported.metric_value, **close)
    assert f"test score, {reported.metric_value:.4f}" in path.read_text()
    assert found > 0


# -- what the Hub reads, and the gap -------------------------------------------------------------

BERT = "google-bert/bert-base-uncased"


def found_of(folder: Path, **sections: Any) -> tuple[Agenda, CaseResult, Any]:
    """A made-up search, its one test case and the outcome of its winner."""
    resolved = resolved_of(a_study(**sections))
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = search_through(resolved, ledger, World(seed=1))
    [case] = analyse(agenda).cases
    assert case.winner is not None
    return agenda, case, agenda.results[str(case.winner.key)]


def front_of(folder: Path, **sections: Any) -> dict[str, Any]:
    """What the Hub reads of the winner's card."""
    agenda, case, outcome = found_of(folder, **sections)
    return ModelCard(card(agenda, case, outcome)).data.to_dict()


def test_a_card_names_the_model_of_the_hub_and_the_split_that_were_used(tmp_path: Path) -> None:
    models = {**a_study()["models"], "small": BERT}
    front = front_of(tmp_path, datasets={"mrpc": {}}, models=models)
    assert front["base_model"] == BERT
    assert front["base_model_relation"] == "finetune"
    assert front["datasets"] == ["nyu-mll/glue"]
    [result] = front["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "mrpc",
        "type": "nyu-mll/glue",
        "config": "mrpc",
        "split": "test",
    }


def test_some_layers_of_a_model_are_no_fine_tuning_of_it(tmp_path: Path) -> None:
    models = {**a_study()["models"], "small": BERT}
    students = {"small": {"model": "small", "layers": 3}}
    front = front_of(tmp_path, models=models, students=students)
    assert front["base_model"] == BERT
    assert "base_model_relation" not in front


@pytest.mark.parametrize(
    "data", [{"limit": {"test": 5}}, {"catalogue": "sst2"}, {"catalogue": "xnli"}]
)
def test_rows_that_are_no_split_of_the_hub_are_not_called_one(
    data: dict[str, Any], tmp_path: Path
) -> None:
    front = front_of(tmp_path, datasets={"mrpc": data})
    [result] = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "mrpc", "type": "mrpc", "split": "test"}


def test_what_is_not_known_of_a_student_is_left_out(tmp_path: Path) -> None:
    front = front_of(tmp_path)
    absent = {"license", "language", "datasets", "base_model", "base_model_relation"}
    assert absent.isdisjoint(front)


@pytest.mark.parametrize(
    ("languages", "codes"),
    [
        (("de_DE", "en_XX"), ["de", "en"]),
        (("deu_Latn", "eng_Latn"), ["deu", "eng"]),
        (("__ro__", "english"), ["ro"]),
    ],
)
def test_languages_are_told_by_the_codes_that_the_hub_knows(
    languages: tuple[str, str], codes: list[str], tmp_path: Path
) -> None:
    agenda, case, outcome = found_of(tmp_path)
    data = outcome.training.data.model_copy(
        update={"task": "translation", "metric": "bleu", "languages": languages}
    )
    training = outcome.training.model_copy(update={"data": data})
    front = metadata(agenda, case.case, outcome.model_copy(update={"training": training}), 1.0)
    assert front["language"] == codes
    assert front["metrics"] == ["sacrebleu"]


@pytest.mark.parametrize(
    ("closed", "noise", "said"),
    [
        (0.5, Noise(deviation=0.123, of=NoiseOf.ROWS), "Gap closed: 50.0 ± 12.3 % of the way"),
        (0.5, None, "Gap closed: 50.0 % of the way"),
        (None, None, "Gap closed: –. The teacher t_hs is not clearly better"),
    ],
)
@pytest.mark.parametrize("stable", [False, True])
def test_a_card_has_the_gap_closed_where_there_is_one(
    closed: float | None, noise: Noise | None, said: str, stable: bool, tmp_path: Path
) -> None:
    agenda, case, outcome = found_of(tmp_path, search={**SMALL_GRID})
    fields: dict[str, Any] = {"gap_closed": closed, "gap_closed_noise": noise}
    if stable:
        fields = {f"stable_{name}": value for name, value in fields.items()}
    case = replace(case, erm=Erm(trials=1, test=TestScore(0.5)), **fields)
    distilled = [] if stable else [case]
    text = card(agenda, case, outcome, stable=stable, distilled=distilled)
    assert said in text
    assert said.replace("closed", f"closed by {case.case}") in text or stable
    assert ("± is a standard deviation over rows." in text) == (noise is not None)


def test_a_student_without_a_teacher_is_not_measured_by_cases_of_another_student(
    tmp_path: Path,
) -> None:
    students = {"a": {"model": "small"}, "b": {"model": "big"}}
    resolved = resolved_of(a_study(students=students, erm=True))
    ledger = Ledger(tmp_path)
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = search_through(resolved, ledger, World(seed=1))
    cases = analyse(agenda).cases
    found = {
        str(case.case): [str(each.case) for each in distilled_from(agenda, case.case, cases)]
        for case in cases
    }
    assert found == {
        "sentences/big/a": [],
        "sentences/big/b": [],
        "sentences/a/erm": ["sentences/big/a"],
        "sentences/b/erm": ["sentences/big/b"],
    }
