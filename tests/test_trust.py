"""Models that bring code: what is loaded runs nothing, unless the study trusts it by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from models import begin, run_study, save_model, tiny_study
from safetensors.torch import load_file
from test_cli import kdsearch, refused

from kdsearch.distill import (
    check_models,
    forward_preflight,
    preflight,
    run_training,
    run_trusting,
    trusting,
)
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, digest_model, parse_study

CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({marker!r}).touch()

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


def with_code(folder: Path, marker: Path) -> Path:
    """A model whose architecture is in a Python file beside it, which leaves `marker`."""
    save_model(folder)
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "own", "architectures": ["OwnModel"]}
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForSequenceClassification": "own.OwnModel",
    }
    path.write_text(json.dumps(config))
    return folder


def study_of(source: dict[str, Any], **sections: Any) -> dict[str, Any]:
    usual = tiny_study()
    fine_tune = {"learning_rate": [1e-2], "epochs": 2}
    search = {"distance": ["mse"], "teacher": ["t_hs"], "student_temperature": ["tied"]}
    return tiny_study(
        **{
            "models": {**usual["models"], "big": source},
            "teachers": {"big": {"model": "big", "fine_tune": fine_tune}},
            "students": {"small": {"model": "big", "layers": 1}},
            "search": {**usual["search"], **search, "alpha": [1]},
            "training": {**usual["training"], "epochs": 1},
            **sections,
        }
    )


def test_a_models_own_code_does_not_run_unless_the_study_says_so(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = with_code(tmp_path / "own", marker)
    ledger, _ = begin(tmp_path / "study", study_of({"path": str(folder)}))
    with pytest.raises(InputError, match=r"models\.big: needs Python code .* not run") as error:
        check_models(ledger.resolved(), "study.yaml")
    assert "models.big.trust_remote_code: true" in str(error.value)
    assert not marker.exists()


def test_a_worker_does_not_run_a_models_own_code_either(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = with_code(tmp_path / "own", marker)
    _, agenda = begin(tmp_path / "study", study_of({"path": str(folder)}))
    with pytest.raises(ValueError, match="custom code"):
        run_training(agenda.requests()[0].training, tmp_path / "study")
    assert not marker.exists()


def test_a_study_that_trusts_a_models_code_runs_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = with_code(tmp_path / "own", marker)
    source = {"path": str(folder), "trust_remote_code": True}
    ledger, agenda = begin(tmp_path / "study", study_of(source))
    with trusting(["big"]):
        check_models(ledger.resolved(), "study.yaml")
    assert marker.exists()
    run_study(ledger, agenda, partial(run_trusting, ["big"], run_training))
    assert not ledger.attempts()
    assert all(result is not None for result in agenda.results.values())


def test_a_folder_that_says_that_a_models_code_is_trusted_is_not_believed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = with_code(tmp_path / "own", marker)
    source = {"path": str(folder), "trust_remote_code": True}
    ledger, agenda = begin(tmp_path / "study", study_of(source))
    run_study(ledger, agenda, partial(run_trusting, ["big"], run_training))
    shutil.rmtree(ledger.folder / "students")
    marker.unlink()
    asked = ("export", ledger.folder, "small", "--to", tmp_path / "student")
    refused(kdsearch(*asked), f"models.big: would run its own Python code, from {folder}")
    refused(kdsearch(*asked, "--trust-remote-code", "small"), "small is not a model of the study")
    assert not marker.exists()
    result = kdsearch(*asked, "--trust-remote-code", "big")
    assert result.code == 0, result
    assert f"models.big: runs its own Python code, from {folder}" in result.out
    assert 'model=".", trust_remote_code=True)' in (tmp_path / "student" / "README.md").read_text()


def test_code_does_not_run_from_where_a_folder_says_that_a_model_lies(tmp_path: Path) -> None:
    marker, mine = tmp_path / "ran", tmp_path / "mine"
    with_code(mine, tmp_path / "ran mine")
    theirs = with_code(tmp_path / "theirs", marker)
    study = study_of({"path": str(mine), "trust_remote_code": True})
    ledger, _ = begin(tmp_path / "study", study)
    path = ledger.folder / "resolved.json"
    content = json.loads(path.read_text())
    content["models"]["big"] |= {"path": str(theirs), "digest": digest_model(theirs, code=True)}
    path.write_text(json.dumps(content))
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    result = kdsearch("launch", file, "--folder", ledger.folder, "--in-process")
    refused(result, f"its code would come from {theirs}")
    assert f"models.big: runs its own Python code, from {mine}" in result.out
    assert not marker.exists()


def test_code_that_lies_in_a_folders_checkpoints_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran theirs"
    folder = with_code(tmp_path / "own", tmp_path / "ran mine")
    study = study_of({"path": str(folder), "trust_remote_code": True})
    ledger, agenda = begin(tmp_path / "study", study)
    run_study(ledger, agenda, partial(run_trusting, ["big"], run_training))
    for file in ledger.folder.glob("checkpoints/*/*/own.py"):
        file.write_text(CODE.format(marker=str(marker)))
        outcome = ledger.folder / "outcomes" / f"{file.parts[-3]}.json"
        changed = json.loads(outcome.read_text())
        name = str(file.relative_to(ledger.folder))
        changed["digests"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
        outcome.write_text(json.dumps(changed))
    shutil.rmtree(ledger.folder / "students")
    for outputs in ledger.folder.glob("outputs/*.npy"):  # computed again, from the checkpoints
        outputs.unlink()
    asked = ("export", ledger.folder, "small", "--to", tmp_path / "student")
    assert kdsearch(*asked, "--trust-remote-code", "big").code == 0
    for kind in ("student", "outputs"):
        for outcome in list(ledger.outcomes()):
            if outcome.training.kind == kind:
                (ledger.folder / "outcomes" / f"{outcome.key}.json").unlink()
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    result = kdsearch("launch", file, "--folder", ledger.folder, "--in-process")
    assert result.code == 0, result
    assert not marker.exists()


CHECKS = """
import json, sys
from pathlib import Path
from kdsearch.cli import main
path, each = json.load(sys.stdin)
codes = []
for content in each:
    Path(path).write_text(content)
    try:
        main()
    except SystemExit as ended:
        codes.append(ended.code)
print(*codes, sep="\\n")
"""
"""A command on one content of a file after another, in a process with a cache of its own."""


def test_code_of_a_model_of_the_hub_is_that_of_the_revision_that_is_meant(tmp_path: Path) -> None:
    marker, cache = tmp_path / "ran theirs", tmp_path / "hub" / "models--good--model"
    meant, other = "a" * 40, "b" * 40
    mine = with_code(cache / "snapshots" / meant, tmp_path / "ran mine")
    theirs = with_code(cache / "snapshots" / other, marker)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(meant)
    source = {"hub": "good/model", "trust_remote_code": True}
    ledger, _ = begin(tmp_path / "study", study_of({"path": str(mine), "trust_remote_code": True}))
    file, path = tmp_path / "study.yaml", ledger.folder / "resolved.json"
    file.write_text(yaml.safe_dump(study_of(source)))
    sent = json.loads(path.read_text())
    sent["study"]["models"]["big"] |= {"path": None, **source}
    around = f"{tmp_path}/hub/../hub/models--good--model/snapshots/{other}"
    digest = digest_model(theirs, code=True)
    each: list[str] = []
    for found in (
        {"path": str(theirs)},
        {"path": around},
        {"path": None, "revision": other},
        {"path": str(theirs), "revision": meant, "digest": digest_model(mine, code=True)},
    ):
        sent["models"]["big"] |= {"digest": digest, **found}
        each.append(json.dumps(sent))
    result = subprocess.run(
        [sys.executable, "-c", CHECKS, "check", str(file), "--folder", ledger.folder],
        input=json.dumps([str(path), each]),
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result
    assert result.stdout.splitlines()[-4:] == ["2", "2", "2", "0"]
    assert result.stderr.count("its code would come from") == 3
    assert not marker.exists()


def test_a_preflight_runs_a_models_code_by_consent_alone(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = with_code(tmp_path / "own", marker)
    source = {"path": str(folder), "trust_remote_code": True}
    ledger, _ = begin(tmp_path / "study", study_of(source))
    looked_at = (ledger.resolved(), ledger, "study.yaml")
    with pytest.raises(InputError, match=r"models\.big: needs Python code"):
        preflight(*looked_at, "0" * 32)
    with pytest.raises(InputError, match=r"models\.big: "):
        forward_preflight(Preflight(digest=""), *looked_at[:2], "study.yaml")
    assert not marker.exists()
    with trusting(["big"]):
        assert preflight(*looked_at, "0" * 32).forward
    assert marker.exists()


def test_check_names_a_model_with_code_and_launch_runs_it(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "own", tmp_path / "ran")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study_of({"path": str(folder), "trust_remote_code": True})))
    named = f"models.big: runs its own Python code, from {folder}, as {file} allows"
    run = ("--folder", tmp_path / "run")
    assert kdsearch("check", file, *run).out.startswith(named)
    result = kdsearch("check", file, *run, "--json")
    assert (result.code, result.err) == (0, f"{named}\n")
    json.loads(result.out)
    ledger = Ledger(tmp_path / "run")
    found = ledger.preflight()
    assert found is not None
    ledger.write_preflight(found.model_copy(update={"forward": False}))
    result = kdsearch("launch", file, *run, "--in-process")
    assert result.code == 0, result
    assert result.out.startswith(named)
    assert "running each model on two rows, in this process" in result.out


def test_check_takes_code_from_where_the_study_file_says(tmp_path: Path) -> None:
    marker, mine = tmp_path / "ran", tmp_path / "mine"
    save_model(mine)
    theirs = with_code(tmp_path / "theirs", marker)
    study = study_of({"path": str(mine)})
    ledger, _ = begin(tmp_path / "study", study)
    file, path = tmp_path / "study.yaml", ledger.folder / "resolved.json"
    sent = json.loads(path.read_text())
    sent["models"]["big"] |= {"path": str(theirs), "digest": digest_model(theirs, code=True)}
    for theirs_says in (False, True):
        sent["study"]["models"]["big"]["trust_remote_code"] = theirs_says
        path.write_text(json.dumps(sent))
        for mine_says in (False, True):
            study["models"]["big"]["trust_remote_code"] = mine_says
            file.write_text(yaml.safe_dump(study))
            result = kdsearch("check", file, "--folder", ledger.folder)
            refused(result, "models.")
            assert not marker.exists()
    assert f"its code would come from {theirs}" in result.err


def test_the_code_that_runs_is_part_of_a_models_digest_and_other_code_is_not(
    tmp_path: Path,
) -> None:
    folder = with_code(tmp_path / "own", tmp_path / "ran")
    before = digest_model(folder), digest_model(folder, code=True)
    (folder / "own.py").write_text("")
    after = digest_model(folder), digest_model(folder, code=True)
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_code_can_be_trusted_of_a_model_with_a_repository_only() -> None:
    raw = tiny_study()
    raw["models"]["big"]["trust_remote_code"] = True
    with pytest.raises(InputError, match="a config comes without code"):
        parse_study(raw, place="x.yaml")


class Evil:
    """Pickled, it says what to run when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, protocol=2))]
)
def test_weights_that_would_run_code_are_refused_and_run_nothing(
    tmp_path: Path, write: Any
) -> None:
    marker = tmp_path / "ran"
    folder = save_model(tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    write({"weight": Evil(marker)}, folder / "pytorch_model.bin")
    ledger, agenda = begin(tmp_path / "study", study_of({"path": str(folder)}))
    with pytest.raises(InputError, match=r"models\.big: pytorch_model.bin holds no plain weights"):
        check_models(ledger.resolved(), "study.yaml")
    with pytest.raises(pickle.UnpicklingError):
        run_training(agenda.requests()[0].training, tmp_path / "study")
    assert not marker.exists()


def test_plain_weights_in_torchs_own_format_are_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "plain")
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    ledger, _ = begin(tmp_path / "study", study_of({"path": str(folder)}))
    check_models(ledger.resolved(), "study.yaml")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "[" * 5_000, "{", "\x00", '{"id2label": 3}', '{"id2label": {"x": "y"}}', "1e999"],
)
def test_a_models_configuration_that_is_broken_is_refused(tmp_path: Path, content: str) -> None:
    folder = save_model(tmp_path / "broken")
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: "):
        begin(tmp_path / "study", study_of({"path": str(folder)}))
