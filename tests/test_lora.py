"""Students of which adapters alone are trained, and a head that their task draws anew."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from models import begin, everything, kind_for, run_study, save_model, settings_of, task_study
from peft import PeftModel
from test_cli import kdsearch
from test_resume import DeadError, MemoryCheckpoints
from test_training import TASK, bert, encoded, trained
from torch import Tensor
from transformers import AutoConfig

from kdsearch.agenda import Outcome
from kdsearch.distill import run_training
from kdsearch.distill.lora import TASK_TYPES, adapt, adapted_layers, is_adapter, merged
from kdsearch.distill.optimizer import optimizer_of
from kdsearch.distill.training import learnt
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, layout
from kdsearch.study import Lora
from kdsearch.tasks import TASKS

SETTINGS = {"epochs": 3, "batch_size": 8, "clip": 1.0}


def adapted(seed: int = 0, kind: str = "bert", **changes: Any) -> Any:
    model = bert(kind, seed=0)
    torch.manual_seed(seed)
    adapt(model, Lora(**{"r": 4, "dropout": 0.1, **changes}), TASK)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def said(model: Any) -> Tensor:
    return TASK.outputs(model.eval(), everything(encoded(12)))


# -- what learns --------------------------------------------------------------------------------


def test_a_model_says_with_fresh_adapters_what_it_said() -> None:
    assert torch.equal(said(adapted()), said(bert()))


def test_adapters_and_the_new_head_learn_and_all_else_stays_as_it_was() -> None:
    model = adapted()
    before = weights(model)
    trained(model, **SETTINGS)
    changed = {
        name for name, value in weights(model).items() if not torch.equal(value, before[name])
    }
    heads = {n for n in before if n.startswith("classifier.") or ".pooler." in n}
    assert changed == {name for name in before if ".lora_" in name} | heads


def test_of_a_model_whose_body_is_several_parts_the_head_alone_learns_beside_adapters() -> None:
    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    sides["num_hidden_layers"] = 1
    seen = {**sides, "image_size": 16, "patch_size": 8}
    config = AutoConfig.for_model("clip", vision_config=seen, text_config=sides)
    images = TASKS["image_classification"]
    model = images.head.from_config(config)
    adapt(model, Lora(r=4), images)
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name in learns if ".lora_" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_of_one_of_timms_models_the_new_head_learns_beside_adapters() -> None:
    pytest.importorskip("timm")
    arguments = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
    fields = {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "num_labels": 3}
    images = TASKS["image_classification"]
    model = images.head.from_config(AutoConfig.for_model("timm_wrapper", **fields))
    adapt(model, Lora(r=2), images)
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name in learns if ".lora_" not in name} == {
        "timm_model.head.weight",
        "timm_model.head.bias",
    }


def test_all_linear_layers_of_the_blocks_are_adapted_or_those_that_are_named() -> None:
    blocks = {"query", "key", "value", "dense"}
    every = adapted_layers(bert(), None)
    assert len(every) == 2 * 6
    assert {name.rpartition(".")[2] for name in every} == blocks
    some = adapted_layers(bert(), ("query", "value"))
    assert [name.rpartition(".")[2] for name in some] == ["query", "value"] * 2


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError) as raised:
        adapted_layers(bert(), ("q_proj", "query"))
    [problem] = raised.value.problems
    assert problem.what.endswith(" has no linear layers called q_proj in its blocks")
    assert problem.remedy == "available: query, key, value, dense"


def test_the_optimizer_holds_no_more_than_what_learns_and_decays_none_of_its_biases() -> None:
    model = adapted()
    decaying, others = optimizer_of(model, settings_of(), 1e-3).param_groups
    held = {id(p) for group in (decaying, others) for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in others["params"]} == {"classifier.bias", "bert.pooler.dense.bias"}


def test_what_is_kept_of_an_epoch_is_what_learns() -> None:
    model = adapted()
    history = trained(model, **SETTINGS)
    assert history.best is not None
    kept = history.best[1]
    assert kept.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert kept.keys() == learnt(model).keys()


@pytest.mark.parametrize("step", [5, 11])
def test_a_training_with_adapters_that_died_ends_as_if_it_had_not(step: int) -> None:
    whole = adapted()
    history = trained(whole, checkpoints=None, **SETTINGS)
    checkpoints = MemoryCheckpoints(dies_after=step)
    with pytest.raises(DeadError):
        trained(adapted(), checkpoints=checkpoints, **SETTINGS)
    checkpoints.dies_after = None
    torch.manual_seed(step)
    model = adapted(seed=step)  # whose adapters are drawn otherwise
    assert trained(model, checkpoints=checkpoints, **SETTINGS).epochs == history.epochs
    for name, value in weights(whole).items():
        assert torch.equal(weights(model)[name], value), name


# -- merging ------------------------------------------------------------------------------------


def test_merged_weights_are_w_and_alpha_over_r_times_b_and_a() -> None:
    model = adapted(alpha=12.0)
    trained(model, **SETTINGS)
    state = weights(model)
    stem = "bert.encoder.layer.1.attention.self.query"
    a_RH, b_HR = (state[f"{stem}.lora_{part}.default.weight"].double() for part in "AB")
    expected = state[f"{stem}.base_layer.weight"].double() + 12 / 4 * b_HR @ a_RH
    with merged(model):
        found = model.state_dict()[f"{stem}.weight"].clone()
    assert torch.allclose(found.double(), expected, atol=1e-7)
    assert not torch.equal(found, state[f"{stem}.base_layer.weight"])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "deberta-v2"])
def test_a_merged_model_is_a_plain_one_that_says_the_same_and_adapters_return(kind: str) -> None:
    model = adapted(kind=kind)
    trained(model, **SETTINGS)
    before, own = said(model), weights(model)
    with merged(model):
        assert model.state_dict().keys() == bert(kind).state_dict().keys()
        assert torch.allclose(said(model), before, atol=1e-5)
    for name, value in weights(model).items():
        assert torch.equal(own[name], value)
    assert torch.equal(said(model), before)


# -- in a study ---------------------------------------------------------------------------------


def finished(
    folder: Path, task: str, kind: str = "", layers: int | str | None = 2, **training: Any
) -> tuple[Path, Ledger, list[Outcome]]:
    """The donor, the folder of a finished study of its students, and their outcomes."""
    donor = save_model(folder / "donor", kind or kind_for(task), layers=3, task=task)
    study = task_study(
        task,
        models={"donor": str(donor)},
        teachers={"big": {"checkpoint": "donor"}},
        students={"small": {"model": "donor", "layers": layers, "training": training}},
        search={
            "strategy": "exhaustive",
            "distance": ["ce"],
            "teacher": None,
            "student_temperature": ["tied"],
            "alpha": [0.5],
            "temperature": [2.0],
            "learning_rate": [1e-2],
        },
        keep_students="all",
    )
    ledger, agenda = begin(folder / "run", study)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    found = [o for o in agenda.results.values() if o is not None and o.training.kind == "student"]
    return donor, ledger, found


MODULES = {"llama": ["q_proj", "v_proj"], "electra": ["query"]}


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("classification", "bert"),
        ("classification", "electra"),
        ("ner", "roberta"),
        ("qa", "modernbert"),
        ("translation", "t5"),
        ("lm", "llama"),
        ("lm", "gpt2"),
    ],
)
def test_the_merged_student_and_its_adapter_on_the_donor_say_the_same(
    task: str, kind: str, tmp_path: Path
) -> None:
    lora = {"r": 2, "modules": MODULES.get(kind)}
    donor, ledger, [outcome] = finished(tmp_path, task, kind, layers=None, lora=lora)
    folder = ledger.path(layout.student(outcome.key))
    head: Any = TASKS[task].head
    plain = head.from_pretrained(folder)
    names = {"id2label": plain.config.id2label, "label2id": plain.config.label2id}
    base = head.from_pretrained(donor, **names)
    before = deepcopy(base)
    adapter = PeftModel.from_pretrained(base, folder / "adapter")
    config = adapter.peft_config["default"]
    assert (config.task_type, config.base_model_name_or_path) == (TASK_TYPES[task], "donor")
    tokens = torch.tensor([[2, 5, 6, 7, 8, 3]])
    inputs = {"input_ids": tokens}
    if task == "translation":
        inputs["decoder_input_ids"] = tokens
    with torch.no_grad():
        found = [m.eval()(**inputs)[0] for m in (plain, adapter, before)]
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    assert outcome.parameters == sum(p.numel() for p in plain.parameters())
    learnt = sum(p.numel() for n, p in adapter.named_parameters() if _learns(n))
    assert outcome.trained_parameters == learnt < outcome.parameters


def _learns(name: str) -> bool:
    return ".lora_" in name or "modules_to_save" in name


def test_a_fine_tuned_teacher_may_have_adapters_and_teaches_as_it_was_merged(
    tmp_path: Path,
) -> None:
    donor = save_model(tmp_path / "donor", layers=2)
    study = task_study(
        "classification",
        models={"donor": str(donor)},
        teachers={
            "big": {
                "model": "donor",
                "fine_tune": {"learning_rate": [1e-2], "epochs": 2},
                "training": {"lora": {}},
            }
        },
        students={"small": {"model": "donor", "layers": "first 1"}},
        search={"distance": ["mse"], "alpha": [1.0]},
    )
    ledger, agenda = begin(tmp_path / "run", study)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    by_kind = {o.training.kind: o for o in agenda.results.values() if o is not None}
    teacher, student = by_kind["teacher"], by_kind["student"]
    assert teacher.trained_parameters is not None
    assert student.trained_parameters is None
    assert teacher.best_epoch is not None
    kept = ledger.path(layout.checkpoint(teacher.key, teacher.best_epoch))
    model: Any = TASKS["classification"].head.from_pretrained(kept)
    assert not any(is_adapter(name) for name, _ in model.named_parameters())
    assert (kept / "adapter" / "adapter_config.json").is_file()


# -- handing over -------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "layers"), [("classification", None), ("lm", "last 2")])
def test_an_exported_student_is_a_plain_model_and_its_card_puts_the_adapter_on_the_donor(
    task: str, layers: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor, ledger, [outcome] = finished(tmp_path, task, layers=layers, lora={"r": 2})
    to = tmp_path / "student"
    result = kdsearch("export", ledger.folder, "small", "--to", to)
    assert result.code == 0, result
    card = (to / "README.md").read_text()
    assert f"| weights trained | {outcome.trained_parameters:,} |" in card
    [code] = re.findall(r"```python\n(from peft.*?)```", card, re.DOTALL)
    monkeypatch.chdir(to)
    found: dict[str, Any] = {}
    exec(code.replace('"donor"', repr(str(donor))), found)
    plain = TASKS[task].head.from_pretrained(to)
    tokens = torch.tensor([[2, 5, 6, 7, 8, 3]])
    with torch.no_grad():
        merged_logits, adapted_logits = (m.eval()(tokens)[0] for m in (plain, found["model"]))
    assert torch.allclose(merged_logits, adapted_logits, atol=1e-4)
