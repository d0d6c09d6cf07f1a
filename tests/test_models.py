from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    ENCODERS,
    LABEL_NAMES,
    SENTENCES,
    SEQ2SEQ,
    begin,
    encode,
    everything,
    rows_of,
    save_model,
    spec_of,
    task_study,
    tiny,
    tiny_study,
)
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartForConditionalGeneration,
)

from kdsearch.agenda import ModelSpec, TeacherTraining
from kdsearch.distill.layers import truncate
from kdsearch.distill.models import (
    build_model,
    check_head,
    dropout_fields,
    load_tokenizer,
    model_folder,
    word_tokenizer,
)
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study.layers import Layers, evenly_spaced, kept_layers
from kdsearch.tasks import TASKS, Task

TASK = TASKS["classification"]
ROWS = [{"texts": [text], "label": 0} for text in SENTENCES[:6]]


def study_of(folder: Path, donor: Path, layers: int | str | None = None) -> Ledger:
    """A study with the pretrained model `donor`, of whose layers a student has some."""
    models = {"big": {"config": tiny()}, "donor": {"path": str(donor)}}
    students = {"small": {"model": "donor", "layers": layers}}
    return begin(folder, tiny_study(models=models, students=students))[0]


def build(
    ledger: Ledger,
    spec: ModelSpec,
    labels: tuple[str, ...] = LABEL_NAMES,
    task: Task = TASK,
    dropout: float | None = None,
) -> Any:
    tokenizer = load_tokenizer(spec, task, list, ledger.resolved())
    return build_model(spec, task, labels, tokenizer, ledger.resolved(), dropout=dropout).eval()


@torch.no_grad()
def logits(model: nn.Module, tokenizer: Any) -> Tensor:
    """A model's logits for a few sentences of different lengths."""
    return TASK.outputs(model, everything(encode("classification", ROWS, tokenizer)))


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


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (3, (1, 3, 5)),
        ("first 3", (0, 1, 2)),
        ("last 2", (4, 5)),
        ("0+2+4", (0, 2, 4)),
        ("0+5", (0, 5)),
    ],
)
def test_layers_are_so_many_the_first_the_last_or_those_named(
    layers: int | str, kept: tuple[int, ...]
) -> None:
    assert kept_layers(layers, 6) == kept


@given(numbers=st.sets(st.integers(0, 30), min_size=2, max_size=8))
def test_layers_that_are_named_are_read_as_they_are_written_and_have_one_name(
    numbers: set[int],
) -> None:
    ascending = tuple(sorted(numbers))
    name = TypeAdapter(Layers).validate_python("+".join(map(str, ascending)))
    assert kept_layers(name, 31) == ascending
    assert name.startswith("first") == (ascending == tuple(range(len(ascending))))
    assert TypeAdapter(Layers).validate_python(name) == name


# -- truncation --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_model_of_every_layer_says_what_its_donor_says(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", kind, layers=4)
    ledger = study_of(tmp_path / "study", folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = build(ledger, spec_of(ledger, "donor", layers=4))
    assert torch.equal(logits(found, tokenizer), logits(donor, tokenizer))


@pytest.mark.parametrize(
    ("layers", "kept"),
    [(2, (1, 3)), ("first 2", (0, 1)), ("last 2", (2, 3)), ("0+2", (0, 2))],
)
@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_truncated_model_has_the_weights_of_the_layers_it_keeps(
    kind: str, layers: int | str, kept: tuple[int, ...], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "donor", kind, layers=4)
    ledger = study_of(tmp_path / "study", folder)
    donor = AutoModelForSequenceClassification.from_pretrained(folder)
    found = build(ledger, spec_of(ledger, "donor", layers=layers))
    place = ENCODERS[kind][1]
    there, donors = found.get_submodule(place), donor.get_submodule(place)
    assert len(there) == found.config.num_hidden_layers == 2
    for layer, index in zip(there, kept, strict=True):
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
    tokenizer = load_tokenizer(spec, TASK, list, ledger.resolved())
    output = TASK.outputs(found, everything(encode("classification", ROWS, tokenizer)))
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


# -- truncation of encoder-decoders ------------------------------------------------------------

TRANSLATION = TASKS["translation"]
PAIRS = rows_of("translation")[:6]
KINDS = sorted(SEQ2SEQ)


def seq2seq(ledger: Ledger, layers: int | str | None) -> Any:
    """The donor of a study, or some of its layers."""
    return build(ledger, spec_of(ledger, "donor", layers), (), TRANSLATION)


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Ledger]]:
    """By kind, an encoder-decoder with six layers on each side, and a study that has it."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        save_model(folder / "donor", kind, layers=6, task="translation")
        found[kind] = folder / "donor", study_of(folder / "study", folder / "donor")
    return found


@torch.no_grad()
def translation_logits(model: Any, tokenizer: Any) -> Tensor:
    """What a model says of each token of a few translations."""
    batch = everything(encode("translation", PAIRS, tokenizer))
    found: Tensor = model.eval()(**batch.arguments, labels=batch.targets).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_decoder_of_every_layer_says_what_its_donor_says(
    donors: dict[str, tuple[Path, Ledger]], kind: str
) -> None:
    folder, ledger = donors[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    donor = AutoModelForSeq2SeqLM.from_pretrained(folder)
    expected = translation_logits(donor, tokenizer)
    assert torch.equal(translation_logits(seq2seq(ledger, 12), tokenizer), expected)


@pytest.mark.parametrize(
    ("layers", "kept"),
    [(6, (1, 3, 5)), (4, (2, 5)), (2, (5,)), ("first 3", (0, 1, 2)), ("1+4", (1, 4))],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_decoder_keeps_half_of_the_layers_or_those_named_on_each_side(
    donors: dict[str, tuple[Path, Ledger]], kind: str, layers: int | str, kept: tuple[int, ...]
) -> None:
    folder, ledger = donors[kind]
    donor, found = AutoModelForSeq2SeqLM.from_pretrained(folder), seq2seq(ledger, layers)
    depths, places, _ = SEQ2SEQ[kind]
    for depth, place in zip(depths, places, strict=True):
        cut, whole = found.get_submodule(place), donor.get_submodule(place)
        assert len(cut) == getattr(found.config, depth) == len(kept)
        for layer, index in zip(cut, kept, strict=True):
            expected = whole[index].state_dict()
            found_there = layer.state_dict()
            assert expected.keys() <= found_there.keys()
            assert all(torch.equal(found_there[name], value) for name, value in expected.items())
    rest = {n: v for n, v in found.state_dict().items() if not n.startswith(places)}
    assert all(torch.equal(value, donor.state_dict()[name]) for name, value in rest.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_encoder_decoder_says_what_the_donor_says_when_it_skips_the_other_layers(
    donors: dict[str, tuple[Path, Ledger]], kind: str
) -> None:
    folder, ledger = donors[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    donor: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    if kind == "t5":  # the first layer's bias is needed where the first layer is skipped
        skip_t5_layers(donor, (0, 1, 3, 4))
    else:
        for place in SEQ2SEQ[kind][1]:
            for skipped in (0, 1, 3, 4):
                layer = donor.get_submodule(f"{place}.{skipped}")
                layer.register_forward_hook(
                    lambda module, inputs, output: (
                        (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]
                    )
                )
    expected = translation_logits(donor, tokenizer)
    found = translation_logits(seq2seq(ledger, 4), tokenizer)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def skip_t5_layers(model: Any, skipped: tuple[int, ...]) -> None:
    """Make layers of T5 add nothing to what they are given; they still make the position bias.

    Each of a layer's parts adds to what it is given the result of one last linear map.
    """
    for stack in (model.encoder, model.decoder):
        for index in skipped:
            for part in stack.block[index].layer:
                for name in ("SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo"):
                    if hasattr(part, name.split(".")[0]):
                        nn.init.zeros_(part.get_submodule(name).weight)


def test_the_first_layer_that_t5_keeps_is_given_the_position_bias(
    donors: dict[str, tuple[Path, Ledger]],
) -> None:
    folder, ledger = donors["t5"]
    donor: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    found = seq2seq(ledger, 4)
    for cut, whole in ((found.encoder, donor.encoder), (found.decoder, donor.decoder)):
        heirs = [block.layer[0].SelfAttention.has_relative_attention_bias for block in cut.block]
        assert heirs == [True, False]
        weights = [
            block.layer[0].SelfAttention.relative_attention_bias.weight
            for block in (cut.block[0], whole.block[0])
        ]
        assert torch.equal(*weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_encoder_decoder_reads_back_as_it_was_saved(
    donors: dict[str, tuple[Path, Ledger]], kind: str, tmp_path: Path
) -> None:
    folder, ledger = donors[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = seq2seq(ledger, 6)
    found.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert [config[depth] for depth in SEQ2SEQ[kind][0]] == [3, 3]
    again, loading = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    before, after = (translation_logits(model, tokenizer) for model in (found, again))
    assert torch.equal(before, after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_encoder_decoder_generates_as_well_with_a_cache_as_without(
    donors: dict[str, tuple[Path, Ledger]], kind: str
) -> None:
    folder, ledger = donors[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = seq2seq(ledger, 4)
    arguments = everything(encode("translation", PAIRS, tokenizer)).arguments
    texts = [
        found.generate(**arguments, max_new_tokens=12, do_sample=False, use_cache=cached).tolist()
        for cached in (True, False)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_encoder_decoder_learns_in_all_of_its_layers(
    donors: dict[str, tuple[Path, Ledger]], kind: str
) -> None:
    folder, ledger = donors[kind]
    found = seq2seq(ledger, 6)
    batch = everything(encode("translation", PAIRS, AutoTokenizer.from_pretrained(folder)))
    found(**batch.arguments, labels=batch.targets).loss.backward()
    for place in SEQ2SEQ[kind][1]:
        for layer in found.get_submodule(place):
            assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_sides_of_different_depths_are_each_cut_evenly(tmp_path: Path) -> None:
    sizes = {"encoder_layers": 8, "decoder_layers": 4}
    folder = save_model(tmp_path / "donor", task="translation", kind="marian", **sizes)
    donor: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    found = seq2seq(study_of(tmp_path / "study", folder), 4)
    for place, kept in zip(SEQ2SEQ["marian"][1], ((3, 7), (1, 3)), strict=True):
        for layer, index in zip(found.get_submodule(place), kept, strict=True):
            for name, value in donor.get_submodule(f"{place}.{index}").state_dict().items():
                assert torch.equal(layer.state_dict()[name], value)


@pytest.mark.parametrize("each", [2, 3])
def test_a_t5_with_as_many_layers_as_a_layer_has_parts_is_cut_too(
    each: int, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "donor", "t5", layers=each, task="translation")
    found = seq2seq(study_of(tmp_path / "study", folder), 2)
    assert len(found.encoder.block) == len(found.decoder.block) == 1
    assert len(found.encoder.block[0].layer) == 2
    assert len(found.decoder.block[0].layer) == 3


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_an_odd_number_of_layers_of_an_encoder_decoder_is_refused(
    donors: dict[str, tuple[Path, Ledger]], layers: int
) -> None:
    _, ledger = donors["bart"]
    with pytest.raises(InputError, match=f"{layers} layers cannot be split evenly") as error:
        seq2seq(ledger, layers)
    assert "give an even number" in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_more_layers_than_an_encoder_decoder_has_are_refused(
    donors: dict[str, tuple[Path, Ledger]], kind: str, tmp_path: Path
) -> None:
    folder, _ = donors[kind]
    study_of(tmp_path / "as many", folder, 12)
    with pytest.raises(InputError, match="asks for 14 layers of donor, which has 12"):
        study_of(tmp_path / "more", folder, 14)


def test_more_layers_than_twice_those_of_the_shorter_side_are_refused(tmp_path: Path) -> None:
    sizes = {"encoder_layers": 6, "decoder_layers": 2}
    folder = save_model(tmp_path / "donor", "bart", task="translation", **sizes)
    study_of(tmp_path / "as many", folder, 4)
    with pytest.raises(InputError, match="asks for 6 layers of donor, which has 4"):
        study_of(tmp_path / "more", folder, 6)


def test_a_cut_modernbert_keeps_the_kind_of_attention_of_each_layer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", "modernbert", layers=6, global_attn_every_n_layers=3)
    ledger = study_of(tmp_path / "study", folder)
    donor: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    found = build(ledger, spec_of(ledger, "donor", layers=3))
    kinds = [donor.config.layer_types[i] for i in (1, 3, 5)]
    assert kinds == ["sliding_attention", "full_attention", "sliding_attention"]
    assert found.config.layer_types == kinds
    assert [layer.attention_type for layer in found.get_submodule("model.layers")] == kinds


# -- dropout -----------------------------------------------------------------------------------

FIELDS = {
    "bert": {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    "roberta": {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    "distilbert": {"dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"},
    "bart": {"dropout", "attention_dropout", "activation_dropout", "classifier_dropout"},
    "mbart": {"dropout", "attention_dropout", "activation_dropout", "classifier_dropout"},
    "t5": {"dropout_rate", "classifier_dropout"},
}


@pytest.mark.parametrize("kind", FIELDS)
def test_the_shares_of_dropout_of_the_usual_models_are_known(kind: str) -> None:
    assert set(dropout_fields(AutoConfig.for_model(kind))) == FIELDS[kind]


def shares_of(model: nn.Module) -> set[float]:
    """The shares of every layer of dropout, and of what attention drops by a number alone."""
    found = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    names = ("dropout", "attention_dropout", "activation_dropout", "dropout_prob")
    every = (getattr(module, name, None) for module in model.modules() for name in names)
    return found | {share for share in every if isinstance(share, float)}


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "bart", "mbart", "t5"])
def test_dropout_reaches_every_part_of_a_pretrained_model(kind: str, tmp_path: Path) -> None:
    task = "translation" if kind in SEQ2SEQ else "classification"
    folder = save_model(tmp_path / "donor", kind, layers=2, task=task)
    ledger = study_of(tmp_path / "study", folder)
    spec, labels = spec_of(ledger, "donor"), () if kind in SEQ2SEQ else LABEL_NAMES
    assert 0.375 not in shares_of(build(ledger, spec, labels, TASKS[task]))
    model = build(ledger, spec, labels, TASKS[task], dropout=0.375)
    assert shares_of(model) == {0.375}
    donor = build(ledger, spec, labels, TASKS[task]).base_model.state_dict()
    for name, value in model.base_model.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(value, donor[name])


def test_dropout_reaches_a_model_at_random(tmp_path: Path) -> None:
    ledger, agenda = begin(tmp_path / "study", tiny_study(training={"dropout": 0.375}))
    training = agenda.requests()[0].training
    assert isinstance(training, TeacherTraining)
    assert training.settings.dropout == 0.375
    spec = training.model
    tokenizer = load_tokenizer(
        spec, TASK, partial(ledger.rows, training.data.train), agenda.resolved
    )
    for dropout, shares in ((0.375, {0.375}), (0.0, {0.0}), (None, {0.1})):
        model = build_model(spec, TASK, LABEL_NAMES, tokenizer, agenda.resolved, dropout=dropout)
        assert shares_of(model) == shares


# -- a linear head -----------------------------------------------------------------------------


class Squashed(BartForConditionalGeneration):
    """A BART whose logits are squashed."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        found = super().forward(*arguments, **named)
        found.logits = 30 * torch.tanh(found.logits / 30)
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_every_usual_encoder_decoder_is_linear(
    donors: dict[str, tuple[Path, Ledger]], kind: str
) -> None:
    folder, _ = donors[kind]
    examples = encode("translation", PAIRS, AutoTokenizer.from_pretrained(folder))
    check_head(AutoModelForSeq2SeqLM.from_pretrained(folder), TRANSLATION, examples)


def test_a_model_whose_logits_are_not_linear_in_its_hidden_states_is_refused(
    donors: dict[str, tuple[Path, Ledger]],
) -> None:
    folder, _ = donors["bart"]
    examples = encode("translation", PAIRS, AutoTokenizer.from_pretrained(folder))
    squashed = Squashed.from_pretrained(folder)
    with pytest.raises(InputError, match="Squashed: its logits are not a linear map") as error:
        check_head(squashed, TRANSLATION, examples)
    assert "as that of BART" in str(error.value)


# -- at random ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_decoder_at_random_has_the_vocabulary_and_the_special_tokens_of_its_words(
    kind: str, tmp_path: Path
) -> None:
    config = {"model_type": kind, **SEQ2SEQ[kind][2]}
    config |= dict.fromkeys(SEQ2SEQ[kind][0], 1)
    study = task_study("translation", models={"m": {"config": config}}, **same_model("m"))
    ledger, agenda = begin(tmp_path, study)
    training = agenda.requests()[0].training
    assert training.kind == "teacher"
    train = partial(ledger.rows, training.data.train)
    tokenizer = load_tokenizer(training.model, TRANSLATION, train, agenda.resolved)
    found: Any = build_model(training.model, TRANSLATION, (), tokenizer, agenda.resolved)
    logits = translation_logits(found, tokenizer)
    assert logits.shape[-1] == len(tokenizer) == found.get_output_embeddings().out_features
    assert found.get_input_embeddings().num_embeddings == len(tokenizer)
    assert found.config.pad_token_id == found.config.decoder_start_token_id == 0
    assert found.config.eos_token_id == tokenizer.eos_token_id


def same_model(name: str) -> dict[str, Any]:
    """The sections of a study whose one teacher and one student have the same model."""
    return {"teachers": {"big": {"model": name}}, "students": {"small": {"model": name}}}


@pytest.mark.parametrize("total", [3, 4, 6])
@pytest.mark.parametrize("kind", sorted({*ENCODERS, *SEQ2SEQ}))
def test_cutting_needs_no_weights(kind: str, total: int) -> None:
    depths = SEQ2SEQ[kind][0] if kind in SEQ2SEQ else (ENCODERS[kind][0],)
    rest = SEQ2SEQ[kind][2] if kind in SEQ2SEQ else ENCODERS[kind][2]
    config = AutoConfig.for_model(kind, **{**rest, **dict.fromkeys(depths, total)})
    task = TRANSLATION if kind in SEQ2SEQ else TASK
    with torch.device("meta"):
        model = task.head.from_config(config)
    truncate(model, 2)
    assert [getattr(model.config, depth) for depth in depths] == [2 // len(depths)] * len(depths)


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


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_a_model_for_questions_has_two_outputs_whatever_its_donor_had(
    labels: int, tmp_path: Path
) -> None:
    task = TASKS["qa"]
    folder = save_model(tmp_path / "donor", task="qa", num_labels=labels)
    study = task_study("qa", models={"donor": str(folder)}, **same_model("donor"))
    ledger, _ = begin(tmp_path / "study", study)
    found = build(ledger, spec_of(ledger, "donor"), (), task)
    assert found.qa_outputs.out_features == found.config.num_labels == 2
    donor = task.head.from_pretrained(folder)
    for name, value in found.bert.state_dict().items():
        assert torch.equal(value, donor.bert.state_dict()[name])
    kept = torch.equal(found.qa_outputs.weight, donor.qa_outputs.weight)
    assert kept == (labels == 2)


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
    train = partial(ledger.rows, training.data.train)
    tokenizer = load_tokenizer(training.model, TASK, train, agenda.resolved)
    words = {w for row in ledger.rows(training.data.train) for w in row["texts"][0].split()}
    found: Any = build_model(training.model, TASK, LABEL_NAMES, tokenizer, agenda.resolved)
    assert set(tokenizer.get_vocab()) == words | {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}
    assert found.get_input_embeddings().num_embeddings == len(words) + 4


def test_weights_are_read_in_single_precision(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "half")
    half = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
    half.save_pretrained(folder)
    ledger = study_of(tmp_path / "study", folder)
    found = build(ledger, spec_of(ledger, "donor"))
    assert {p.dtype for p in found.parameters()} == {torch.float32}


def test_weights_in_torchs_own_format_are_read_where_there_are_no_others(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    expected = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(expected, folder / "pytorch_model.bin")
    ledger = study_of(tmp_path / "study", folder)
    found = build(ledger, spec_of(ledger, "donor")).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


class Stranger:
    """What runs something of its own when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def test_weights_that_would_run_something_are_refused_and_run_nothing(tmp_path: Path) -> None:
    folder, witness = save_model(tmp_path / "donor"), tmp_path / "ran"
    state = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({**state, "more": Stranger(witness)}, folder / "pytorch_model.bin")
    ledger = study_of(tmp_path / "study", folder)
    with pytest.raises(Exception, match="Weights only load failed"):
        build(ledger, spec_of(ledger, "donor"))
    assert not witness.exists()


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
    assert model_folder("donor", spec.weights, ledger.resolved()) == folder


def test_a_model_that_is_gone_is_named_with_its_folder(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    ledger = study_of(tmp_path / "study", folder)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"models\.donor: .*donor is not on this host"):
        build(ledger, spec_of(ledger, "donor"))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "encoder."])
def test_a_pretrained_model_of_which_more_than_the_head_would_be_drawn_is_refused(
    prefix: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "donor")
    weights = load_file(folder / "model.safetensors")
    renamed = {prefix + name: weight for name, weight in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    ledger = study_of(tmp_path / "study", folder)
    with pytest.raises(InputError, match=r"models\.donor: lacks the weights bert\.") as error:
        build(ledger, spec_of(ledger, "donor"))
    others = [n for n in weights if n.startswith("bert.") and ".pooler." not in n]
    assert f"and {len(others) - 3} more" in str(error.value)


def test_a_pretrained_model_with_embeddings_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor")
    path = folder / "config.json"
    words = json.loads(path.read_text())["vocab_size"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": words + 1}))
    ledger = study_of(tmp_path / "study", folder)
    what = rf"word_embeddings\.weight \(of the shape \[{words + 1}, 16\], not \[{words}, 16\]\)"
    with pytest.raises(InputError, match=what):
        build(ledger, spec_of(ledger, "donor"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "electra", "deberta-v2"])
def test_a_pretrained_model_without_this_head_is_accepted(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "donor", kind)
    config = AutoConfig.from_pretrained(folder)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    ledger = study_of(tmp_path / "study", folder)
    build(ledger, spec_of(ledger, "donor"))


def test_an_adapter_in_place_of_a_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"is an adapter, such as LoRA makes.*merge_and_unload"):
        study_of(tmp_path / "study", folder)


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
