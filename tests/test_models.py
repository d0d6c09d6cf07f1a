from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import ENCODERS, LABEL_NAMES, SENTENCES, begin, save_model, spec_of, tiny, tiny_study
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import ModelSpec
from kdsearch.distill.models import (
    build_model,
    evenly_spaced,
    load_tokenizer,
    model_folder,
    word_tokenizer,
)
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.tasks import TASKS

TASK = TASKS["classification"]
ROWS = [{"texts": [text], "label": 0} for text in SENTENCES[:6]]


def study_of(folder: Path, donor: Path) -> Ledger:
    """A study with the pretrained model `donor`."""
    models = {"big": {"config": tiny()}, "donor": {"path": str(donor)}}
    students = {"small": {"model": "donor"}}
    return begin(folder, tiny_study(models=models, students=students))[0]


def build(ledger: Ledger, spec: ModelSpec, labels: tuple[str, ...] = LABEL_NAMES) -> Any:
    tokenizer = load_tokenizer(spec, "", ledger)
    return build_model(spec, TASK, labels, tokenizer, ledger).eval()


@torch.no_grad()
def logits(model: nn.Module, tokenizer: Any) -> Tensor:
    """A model's logits for a few sentences of different lengths."""
    examples = TASK.encode(ROWS, tokenizer, 32)
    return TASK.logits(model, examples.batch(torch.arange(len(ROWS))))


# -- which layers are kept ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "kept"),
    [
        (12, (1, 3, 5, 7, 9, 11)),
        (12, (2, 5, 8, 11)),
        (6, (1, 3, 5)),
        (6, (2, 5)),
        (24, (5, 11, 17, 23)),
        (12, (11,)),
    ],
)
def test_layers_are_kept_at_even_distances(total: int, kept: tuple[int, ...]) -> None:
    assert evenly_spaced(total, len(kept)) == kept


@given(sizes=st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_the_kept_layers_ascend_to_the_last_with_gaps_that_differ_by_one_at_most(
    sizes: tuple[int, int],
) -> None:
    total, kept = sizes
    found = evenly_spaced(total, kept)
    gaps = [after - before for before, after in zip((-1, *found), found, strict=False)]
    assert len(found) == kept
    assert found[-1] == total - 1
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= (total % kept > 0)


@given(total=st.integers(1, 60))
def test_keeping_every_layer_keeps_them_as_they_are(total: int) -> None:
    assert evenly_spaced(total, total) == tuple(range(total))


# -- truncation --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_model_of_every_layer_says_what_its_donor_says(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", kind, layers=4)
    ledger = study_of(tmp_path / "study", folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = build(ledger, spec_of(ledger, "donor", layers=4))
    assert torch.equal(logits(found, tokenizer), logits(donor, tokenizer))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_truncated_model_has_the_weights_of_the_layers_it_keeps(
    kind: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "donor", kind, layers=4)
    ledger = study_of(tmp_path / "study", folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder)
    found = build(ledger, spec_of(ledger, "donor", layers=2))
    place = ENCODERS[kind][1]
    layers, donors = found.get_submodule(place), donor.get_submodule(place)
    assert len(layers) == found.config.num_hidden_layers == 2
    for layer, index in zip(layers, (1, 3), strict=True):
        expected = donors[index].state_dict()
        assert layer.state_dict().keys() == expected.keys()
        for name, value in layer.state_dict().items():
            assert torch.equal(value, expected[name])
    rest = {n: v for n, v in found.state_dict().items() if not n.startswith(place)}
    assert all(torch.equal(value, donor.state_dict()[name]) for name, value in rest.items())


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_truncated_model_learns_in_all_of_its_layers(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", kind, layers=4)
    ledger = study_of(tmp_path / "study", folder)
    spec = spec_of(ledger, "donor", layers=3)
    found = build(ledger, spec)
    examples = TASK.encode(ROWS, load_tokenizer(spec, "", ledger), 32)
    output = TASK.logits(found, examples.batch(torch.arange(len(ROWS))))
    assert output.shape == (len(ROWS), len(LABEL_NAMES))
    output.square().sum().backward()
    for layer in found.get_submodule(ENCODERS[kind][1]):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_a_truncated_model_says_what_the_donor_says_when_it_skips_the_other_layers(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path / "donor", layers=4)
    ledger = study_of(tmp_path / "study", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for skipped in (0, 2):
        layer = donor.get_submodule(f"bert.encoder.layer.{skipped}")
        layer.register_forward_hook(
            lambda module, inputs, output: (
                (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]
            )
        )
    found = build(ledger, spec_of(ledger, "donor", layers=2))
    assert torch.equal(logits(found, tokenizer), logits(donor, tokenizer))


def test_a_model_whose_layers_share_weights_is_not_cut(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", "albert", layers=4, embedding_size=16)
    ledger = study_of(tmp_path / "study", folder)
    with pytest.raises(InputError, match=r"AlbertForSequenceClassification.*which to cut") as error:
        build(ledger, spec_of(ledger, "donor", layers=2))
    assert "use the whole model" in str(error.value)


def test_a_model_of_two_stacks_of_layers_is_not_cut(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2}
    folder = save_model(tmp_path / "donor", "t5", layers=4, **sizes)
    ledger = study_of(tmp_path / "study", folder)
    with pytest.raises(InputError, match="has 2 lists of 4 layers"):
        build(ledger, spec_of(ledger, "donor", layers=2))


# -- heads and weights -------------------------------------------------------------------------


def test_a_head_for_other_labels_is_drawn_anew_and_the_encoder_is_kept(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", labels=("a", "b"))
    ledger = study_of(tmp_path / "study", folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.manual_seed(5)
    found = build(ledger, spec_of(ledger, "donor"))
    assert found.classifier.out_features == len(LABEL_NAMES)
    assert found.config.id2label == dict(enumerate(LABEL_NAMES))
    for name, value in found.bert.state_dict().items():
        assert torch.equal(value, donor.bert.state_dict()[name])


def test_a_new_head_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", labels=("a", "b"))
    ledger = study_of(tmp_path / "study", folder)
    heads = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        heads.append(build(ledger, spec_of(ledger, "donor")).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_model_at_random_has_an_embedding_for_each_word_of_the_training_split(
    tmp_path: Path,
) -> None:
    ledger, agenda = begin(tmp_path / "study", tiny_study())
    training = agenda.requests()[0].training
    assert training.kind == "teacher"
    tokenizer = load_tokenizer(training.model, training.data.train, ledger)
    words = {w for row in ledger.rows(training.data.train) for w in row["texts"][0].split()}
    found: Any = build_model(training.model, TASK, LABEL_NAMES, tokenizer, ledger)
    assert set(tokenizer.get_vocab()) == words | {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}
    assert found.get_input_embeddings().num_embeddings == len(words) + 4


def test_weights_are_read_in_single_precision(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "half")
    half = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
    half.save_pretrained(folder)
    ledger = study_of(tmp_path / "study", folder)
    found = build(ledger, spec_of(ledger, "donor"))
    assert {p.dtype for p in found.parameters()} == {torch.float32}


def test_weights_that_are_no_safetensors_are_not_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds no model.*model\.safetensors"):
        study_of(tmp_path / "study", folder)


def test_safetensors_are_read_where_other_weights_lie_beside_them(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    (folder / "pytorch_model.bin").write_bytes(b"not weights")
    ledger = study_of(tmp_path / "study", folder)
    expected = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    found = build(ledger, spec_of(ledger, "donor"))
    assert torch.equal(found.classifier.weight, expected.classifier.weight)


def test_a_model_that_has_changed_since_the_study_began_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    ledger = study_of(tmp_path / "study", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(InputError, match=r"models\.donor: .*has changed since the study began"):
        build(ledger, spec_of(ledger, "donor"))


def test_a_note_beside_a_model_does_not_change_it(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    ledger = study_of(tmp_path / "study", folder)
    (folder / "README.md").write_text("A model.")
    spec = spec_of(ledger, "donor")
    assert model_folder("donor", spec.weights, ledger) == folder


def test_a_model_that_is_gone_is_named_with_its_folder(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    ledger = study_of(tmp_path / "study", folder)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"models\.donor: .*donor is not on this host"):
        build(ledger, spec_of(ledger, "donor"))


# -- the tokenizer of words --------------------------------------------------------------------


def test_the_same_texts_in_another_order_give_the_same_numbers() -> None:
    forth, back = word_tokenizer(SENTENCES), word_tokenizer(reversed(SENTENCES))
    assert forth.get_vocab() == back.get_vocab()


def test_frequent_words_come_first_and_equally_frequent_ones_by_the_alphabet() -> None:
    vocabulary = word_tokenizer(["b c c", "a c"]).get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    assert words == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "c", "a", "b"]


def test_a_word_that_was_not_in_the_texts_is_unknown() -> None:
    tokenizer = word_tokenizer(["the dog is good"])
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the cat is good")["input_ids"])
    assert tokens == ["[CLS]", "the", "[UNK]", "is", "good", "[SEP]"]


def test_a_pair_of_texts_is_joined_by_a_separator() -> None:
    tokenizer = word_tokenizer(["a b c"])
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a b", "c")["input_ids"])
    assert tokens == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]


def test_a_saved_tokenizer_reads_as_it_did(tmp_path: Path) -> None:
    save_model(tmp_path)
    before, after = word_tokenizer(SENTENCES), AutoTokenizer.from_pretrained(tmp_path)
    strange = ["", "the dog is not new", "The DOG , isn't [SEP] [PAD]", "日本 ünïcode\n\ttabs"]
    for text in (*SENTENCES[:50], *strange):
        assert after(text) == before(text)
    assert (after.pad_token_id, after.unk_token_id) == (before.pad_token_id, before.unk_token_id)
    assert len(after) == len(before)
