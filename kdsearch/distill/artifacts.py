"""What a training keeps on disk, and making it again where it is damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kdsearch.agenda import (
    CheckpointSpec,
    ModelSpec,
    Outcome,
    StudentTraining,
    TeacherTraining,
    Training,
)
from kdsearch.distill.lora import FOLDER, merged, write_adapter
from kdsearch.distill.models import load_tokenizer
from kdsearch.distill.training import State, put_back
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, discard, layout, storage_error, sync_and_digest
from kdsearch.study import Resolved
from kdsearch.tasks import TASKS, has_languages

_log = logging.getLogger(__name__)


def save_models(
    ledger: Ledger,
    resolved: Resolved,
    final: Path,
    training: TeacherTraining | StudentTraining,
    model: Any,
    kept: dict[str, State],
) -> tuple[dict[str, str], int]:
    """Write states as Hugging Face folders below `final`: their files' digests, and bytes."""
    data, root = training.data, ledger.folder
    # A new one: the cached one also carries how other trainings cut with it.
    rows = partial(ledger.rows, data.train)
    tokenizer = load_tokenizer(training.model, TASKS[data.task], rows, resolved)
    if data.languages is not None and has_languages(tokenizer):
        tokenizer.src_lang, tokenizer.tgt_lang = data.languages
    temporary = final.with_name(layout.aside(final.name))
    try:
        ledger.make_folder(temporary)
        for name, state in kept.items():
            put_back(model, state)
            with merged(model):
                model.save_pretrained(temporary / name)
            tokenizer.save_pretrained(temporary / name)
            if training.settings.lora is not None:
                spec, source = training.model, resolved.study.models[training.model.name]
                folder = temporary / name / FOLDER
                write_adapter(folder, model, state, spec.name, source, data.task)
        files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
        digests = {
            str((final / path.relative_to(temporary)).relative_to(root)): sync_and_digest(path)
            for path in files
        }
        size = sum(path.stat().st_size for path in files)
        outcome = ledger.outcome(training.key)
        if outcome and ledger.intact(outcome, str(final.relative_to(root))):
            discard(temporary)  # another worker made it again at the same time
        else:
            ledger.put(temporary, final)
    except (OSError, SafetensorError) as error:
        discard(temporary)
        raise storage_error(final, error) from None
    return digests, size


def ensure(
    ledger: Ledger,
    key: str,
    where: str,
    run: Callable[[Training, Path], Outcome],
    **names: ModelSpec | CheckpointSpec,
) -> None:
    """See that what the training `key` kept in `where` is whole, or `run` that training again.

    On a CPU that gives the same bytes. A GPU may give others, and so does a student that was
    trained with others in one pass, since it is now trained alone: then their digests stand beside
    the outcome, which is not written again. `names` is the part of the training that says what
    the study calls its models now. Several workers may be at it at once.
    """
    outcome = ledger.outcome(key)
    if outcome is None or ledger.intact(outcome, where):
        return
    training = outcome.training.model_copy(update=names)
    _log.warning("key=%s: %s is damaged or gone; made again: %s", key, where, training)
    again = run(training, ledger.folder)
    known = ledger.digests(outcome).keys()  # one of an earlier version kept fewer files
    if not (ledger.intact(outcome, where) and again.digests.keys() <= known):
        ledger.write_digests(key, again.digests)
    if not ledger.intact(outcome, where):  # another epoch was the best this time
        raise InputError.one(
            ledger.folder / where,
            "is damaged or gone, and training it again did not restore it",
            f"restore it from a copy of the folder; or remove {layout.outcome(key)} and "
            "launch again, to retrain it and what learns from it",
        )
