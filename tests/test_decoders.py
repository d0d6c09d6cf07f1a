"""Decoders and encoder-decoders as classifiers: their heads read a row's last token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import (
    LABEL_NAMES,
    SENTENCES,
    begin,
    encode,
    everything,
    macro_f1,
    run_study,
    save_model,
    spec_of,
    tiny,
    tiny_seq2seq,
    tiny_study,
)
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer,
    BartForSequenceClassification,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2ForSequenceClassification,
    T5ForSequenceClassification,
)

from kdsearch.agenda import Outcome, OutputsTraining
from kdsearch.distill import check_models, run_training
from kdsearch.distill.models import build_model, load_tokenizer
from kdsearch.ledger import Ledger
from kdsearch.tasks import TASKS

CLASSES: dict[str, type[PreTrainedModel]] = {
    "gpt2": GPT2ForSequenceClassification,
    "qwen2": Qwen2ForSequenceClassification,
    "llama": LlamaForSequenceClassification,
    "bart": BartForSequenceClassification,
    "t5": T5ForSequenceClassification,
}
DECODERS = ("gpt2", "qwen2", "llama")
FEW = {"distance": ["ce"], "teacher": ["t_hs"], "alpha": [1]}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer as decoders have it: one token ends texts and pads them, and none is added."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    end = "<|endoftext|>"
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=[end],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=end, eos_token=end)


def save(folder: Path, kind: str) -> Path:
    """A classifier of a kind; of decoders one whose configuration has no padding token."""
    if kind not in DECODERS:
        return save_model(folder, kind)
    fields = {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return save_model(folder, kind, tokenizer=byte_tokenizer(), **fields)


@torch.no_grad()
def alone(kind: str, folder: Path, rows: list[Any]) -> np.ndarray[Any, Any]:
    """What transformers' own class says of each row, one at a time."""
    model, tokenizer = CLASSES[kind].from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.eval()
    said = [model(**tokenizer(*row["texts"], return_tensors="pt")).logits for row in rows]
    logits: np.ndarray[Any, Any] = torch.cat(said).numpy()
    return logits


@pytest.mark.parametrize("kind", CLASSES)
def test_a_given_teachers_outputs_and_score_are_those_of_its_own_class(
    kind: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "tuned", kind)
    ledger, agenda = begin(
        tmp_path / "study",
        tiny_study(
            models={"tuned": str(folder), "small": {"config": tiny()}},
            teachers={"given": {"checkpoint": "tuned"}},
            search={**tiny_study()["search"], **FEW},
        ),
    )
    check_models(agenda.resolved, "study.yaml")
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    data = agenda.resolved.datasets["sentences"]
    order = [LABEL_NAMES.index(label) for label in data.labels]
    outputs = {o.training.split: o for o in ledger.outcomes() if _is_outputs(o)}
    cached = np.load(ledger.folder / "outputs" / f"{outputs['train'].key}.npy")
    rows = ledger.rows(data.splits["train"].digest)
    np.testing.assert_allclose(cached, alone(kind, folder, rows)[:, order], atol=1e-4)
    rows = ledger.rows(data.splits["test"].digest)
    predicted = alone(kind, folder, rows)[:, order].argmax(axis=1).tolist()
    expected = macro_f1(predicted, [row["label"] for row in rows], len(LABEL_NAMES))
    assert outputs["test"].test == pytest.approx(expected)


def _is_outputs(outcome: Outcome) -> bool:
    return isinstance(outcome.training, OutputsTraining)


def study_of(folder: Path, model: object) -> Ledger:
    models = {"big": {"config": tiny()}, "m": model}
    study = tiny_study(models=models, students={"small": {"model": "m"}})
    return begin(folder, study)[0]


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("pad", [None, 7])  # where the configuration has another than its tokenizer
@torch.no_grad()
def test_a_decoder_says_the_same_of_a_row_in_a_batch_of_1_and_of_16(
    kind: str, pad: int | None, tmp_path: Path
) -> None:
    folder = save(tmp_path / "m", kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": pad}))
    ledger = study_of(tmp_path / "study", str(folder))
    resolved, spec, task = ledger.resolved(), spec_of(ledger, "m"), TASKS["classification"]
    tokenizer = load_tokenizer(spec, task, list, resolved)
    model = build_model(spec, task, LABEL_NAMES, tokenizer, resolved).eval()
    texts = [f"{SENTENCES[number]} {' good' * number}" for number in range(16)]
    examples = encode("classification", [{"texts": [t], "label": 0} for t in texts], tokenizer)
    assert len(set(examples.lengths.tolist())) > 8
    together = task.outputs(model, everything(examples))
    for number in range(16):
        one = task.outputs(model, examples.batch(torch.tensor([number])))
        torch.testing.assert_close(together[number], one[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_was_trained_is_saved_with_its_padding_token(
    kind: str, tmp_path: Path
) -> None:
    ledger = study_of(tmp_path / "study", str(save(tmp_path / "m", kind)))
    resolved, spec, task = ledger.resolved(), spec_of(ledger, "m"), TASKS["classification"]
    tokenizer = load_tokenizer(spec, task, list, resolved)
    model: Any = build_model(spec, task, LABEL_NAMES, tokenizer, resolved)
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["pad_token_id"] == tokenizer.pad_token_id


def test_an_encoder_decoder_can_be_fine_tuned_and_distilled_for_classification(
    tmp_path: Path,
) -> None:
    donor = save_model(tmp_path / "donor", "bart", layers=2)
    ledger, agenda = begin(
        tmp_path / "study",
        tiny_study(
            datasets={"words": {"grammar": {"train": 192, "validation": 24, "test": 20}}},
            models={
                "big": {"config": tiny_seq2seq(d_model=32)},
                "small": {"config": tiny_seq2seq()},
                "donor": str(donor),
            },
            students={"small": {"model": "small"}, "cut": {"model": "donor", "layers": 2}},
            search={**tiny_study()["search"], **FEW},
        ),
    )
    check_models(agenda.resolved, "study.yaml")
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    assert all(outcome.state == "scored" for outcome in ledger.outcomes())
    (teacher,) = (o for o in ledger.outcomes() if o.training.kind == "teacher")
    assert teacher.validation is not None
    assert teacher.validation > 0.5
