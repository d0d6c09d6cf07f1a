"""The layout of a study's folder: what every file in it is called. Names, and no disk.

study.yaml            the study as it was launched
resolved.json         the study with the digests of its data and models
resolved-<n>.json     what it was before the study file was changed
preflight.json        what was found out about its rows and models before anything was trained
data/<digest>.jsonl   the rows of each split; of images, <digest>.npy has the pixels, uint8
                      [rows, size, size, 3]
outcomes/<key>.json   what became of each training
attempts/<key>/<n>.json   tries that failed, with their traceback in <n>.txt; <n>.retried: forgiven
attempts/.<key>.watchdog  is there while a training runs; holds where it hung
progress/<key>/<steps>-<digest>.pt   where a training that runs goes on if its worker dies
stop.json             what `kdsearch stop` asks the driver
nodes.json            what the nodes of the cluster have, and what those lack that are left out
running.json          the slots, and what runs on them
driver.json, driver.lock   who drives the search
launch.log            a line for each event of the search
digests/<key>.json    of files that were made again, where they differ from the outcome's
checkpoints/<key>/    a teacher's kept epochs
outputs/<key>.npy     a checkpoint's outputs on the training split; of translation and lm hidden
                      states, with the head that makes logits of them in <key>.head.safetensors;
                      beside it those on validation and test, <key>.validation.npy and
                      <key>.test.npy; where tokens are drawn, where those of a row are, and all of
                      them in <key>.draws.npy; of a signal (`agenda.Signal`) in bfloat16, [rows,
                      vectors, width]
sequences/<key>.jsonl   what a checkpoint wrote: rows as those of the training split
students/<key>/       a student's best epoch, as a Hugging Face folder
tested/<key>.<digest>.json.gz   what a model made of each row of the test split
report/               what `kdsearch report` wrote
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Literal

from kdsearch.agenda import Attempt
from kdsearch.errors import InputError, shown

OUTCOMES = "outcomes"
ATTEMPTS = "attempts"
DIGESTS = "digests"
DATA = "data"
CHECKPOINTS = "checkpoints"
OUTPUTS = "outputs"
SEQUENCES = "sequences"
STUDENTS = "students"
TESTED = "tested"
PROGRESS = "progress"
REPORT = "report"
KEPT = (CHECKPOINTS, OUTPUTS, SEQUENCES, STUDENTS, TESTED)
"""Of files that outcomes have digests of."""
FOLDERS = (OUTCOMES, ATTEMPTS, DIGESTS, DATA, *KEPT, PROGRESS, REPORT)

RESOLVED = "resolved.json"
PREFLIGHT = "preflight.json"
STOP = "stop.json"
NODES = "nodes.json"
RUNNING = "running.json"
LOG = "launch.log"
LOCK = "driver.lock"
DRIVER = "driver.json"
TABLES = f"{REPORT}/tables"

_KEY = "[0-9a-f]{24}"
_ASIDE = rf"(?:{_KEY}|\.{_KEY}\.[0-9a-f]{{8}}\.tmp)"
"""A training's folder, and what it is called while it is written or removed."""
_SAVED = (
    r"(?:(?:(?:generation_|tokenizer_|preprocessor_)?config|tokenizer|special_tokens_map|added_tokens"
    r"|(?:target_)?vocab|vocab-(?:src|tgt)|entity_vocab|emoji|byte_maps|normalizer"
    r"|word_(?:shape|pronunciation)|model\.safetensors\.index)\.json"
    r"|model(?:-\d+-of-\d+)?\.safetensors|(?:vocab|merges|dict)\.txt|bpe\.codes"
    r"|(?:spiece|sentencepiece(?:\.bpe)?|tokenizer|spm(?:_char)?|bpe)\.model|prophetnet\.tokenizer"
    r"|(?:source|target)\.spm|chat_template\.jinja"
    r"|additional_chat_templates/[\w.-]+\.jinja)"
)
"""What `save_pretrained` writes of a model and a tokenizer."""
_KEYED = re.compile(
    rf"(?:{'|'.join(name for name in FOLDERS if name not in (DATA, REPORT))})/\.?([^/.]*)"
)
_OURS = re.compile(
    "|".join(
        (
            r"resolved(?:-\d+)?\.json",
            r"(?:preflight|running|stop|nodes)\.json",
            r"launch\.log",
            r"driver\.(?:lock|json|tmp)",
            rf"outcomes/(?:{_KEY}\.json|\.{_KEY}\.json\.torn)",
            rf"attempts/{_ASIDE}/(?:\d+\.(?:json|txt|retried)|\.\d+\.json\.torn)",
            rf"attempts/\.{_KEY}\.watchdog",
            rf"digests/{_KEY}\.json",
            r"data/(?:[0-9a-f]{32}\.(?:jsonl|npy)|\.[0-9a-f]{32}\.tmp)",
            rf"checkpoints/{_ASIDE}/epoch-\d+/{_SAVED}",
            rf"students/{_ASIDE}/{_SAVED}",
            rf"outputs/(?:{_KEY}\.(?:(?:validation\.|test\.|draws\.)?npy|head\.safetensors)|\.[0-9a-f]{{32}}(?:\.head|\.draws)?\.tmp)",
            rf"sequences/{_KEY}\.jsonl",
            rf"tested/{_KEY}\.[0-9a-f]{{64}}\.json\.gz",
            rf"progress/{_ASIDE}/(?:\d+-[0-9a-f]{{64}}\.pt|\.[0-9a-f]{{32}}\.tmp)",
            r"report/report\.(?:html|md|json)",
            r"report/tables/[a-z_0-9]+\.(?:csv|tex)",
            r"\.probe-[0-9a-f]{32}(?:\.linked)?",
        )
    ),
    re.ASCII,
)


_WRITTEN = re.compile(
    r"(?P<folder>(?:[^/]+/)*)\.(?P<name>[^/]+?\.(?:jsonl?|json\.gz|txt|html|md|csv|tex))"
    r"\.[^/]+-\d+-[0-9a-f]{8}\.tmp",
    re.ASCII,
)
"""What a file of ours is called while `Ledger.write` and its like write it."""


def earlier_study(number: int) -> str:
    """What the study was before it was changed, the first time with the number 1."""
    return f"resolved-{number}.json"


def rows(digest: str) -> str:
    """The rows of a split."""
    return f"{DATA}/{digest}.jsonl"


def pixels(digest: str) -> str:
    """The pixels of a split's images, in the order of its rows."""
    return f"{DATA}/{digest}.npy"


def outcome(key: str) -> str:
    """What became of a training."""
    return f"{OUTCOMES}/{key}.json"


def attempts(key: str) -> str:
    """The folder of a training's failed tries."""
    return f"{ATTEMPTS}/{key}"


def attempt(key: str, number: int, kind: Literal["json", "txt", "retried"] = "json") -> str:
    """A failed try; `txt`: its traceback; `retried`: one that counts no more."""
    return f"{ATTEMPTS}/{key}/{number}.{kind}"


def file_of(attempt: Attempt) -> str:
    """Where an attempt's traceback lies, or what else is known of it."""
    return f"{ATTEMPTS}/{attempt.key}/{attempt.number}.{'txt' if attempt.traceback else 'json'}"


def watchdog(key: str) -> str:
    """What is there while a training runs."""
    return f"{ATTEMPTS}/.{key}.watchdog"


def progress(key: str) -> str:
    """The folder of a running training's own checkpoints."""
    return f"{PROGRESS}/{key}"


def saved(key: str, steps: int, digest: str) -> str:
    """One of them, after so many steps."""
    return f"{PROGRESS}/{key}/{steps}-{digest}.pt"


def digests(key: str) -> str:
    """The digests of what a training made again."""
    return f"{DIGESTS}/{key}.json"


def checkpoints(key: str) -> str:
    """The folder of a teacher's kept epochs."""
    return f"{CHECKPOINTS}/{key}"


def checkpoint(key: str, epoch: int) -> str:
    """The Hugging Face folder of one of them."""
    return f"{CHECKPOINTS}/{key}/epoch-{epoch}"


def outputs(key: str, split: str = "train") -> str:
    """A checkpoint's outputs on a split; `key` is that of those on the training split."""
    return f"{OUTPUTS}/{key}.npy" if split == "train" else f"{OUTPUTS}/{key}.{split}.npy"


def head(key: str) -> str:
    """The head that makes logits of them, where they are hidden states."""
    return f"{OUTPUTS}/{key}.head.safetensors"


def draws(key: str) -> str:
    """The tokens that were drawn of them, where only such are kept."""
    return f"{OUTPUTS}/{key}.draws.npy"


def sequences(key: str) -> str:
    """What a checkpoint wrote: rows as those of the training split."""
    return f"{SEQUENCES}/{key}.jsonl"


def student(key: str) -> str:
    """The Hugging Face folder of a student."""
    return f"{STUDENTS}/{key}"


def tested(key: str, digest: str) -> str:
    """What a model made of the rows of the test split; a file with this SHA-256."""
    return f"{TESTED}/{key}.{digest}.json.gz"


def is_tested(name: str) -> bool:
    """Whether it is such a file."""
    return name.startswith(f"{TESTED}/")


def report(kind: Literal["html", "md", "json"]) -> str:
    """The report: the page, the document, the numbers."""
    return f"{REPORT}/report.{kind}"


def table(name: str, kind: Literal["csv", "tex"]) -> str:
    """One of the report's tables."""
    return f"{TABLES}/{name}.{kind}"


def probe(*, linked: bool = False) -> str:
    """A new name for a file that shows what a disk can do; `linked`, for a further name of it."""
    return f".probe-{uuid.uuid4().hex}" + ".linked" * linked


def half_file() -> str:
    """A new name for a file in `outputs` or `progress` while it is written."""
    return f".{uuid.uuid4().hex}.tmp"


def aside(key: str) -> str:
    """A new name for a training's folder, or a file of it, while it is written or removed."""
    return f".{key}.{uuid.uuid4().hex[:8]}.tmp"


def is_key(text: str) -> bool:
    """Whether `text` is a training's key: 24 hexadecimal digits."""
    return re.fullmatch(_KEY, text) is not None


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in a study's folder; `InputError` for a name that leads out of it."""
    if "\0" in name or not all(part.strip(".") for part in name.split("/")):
        raise InputError.one(
            folder, f"{shown(name)!r} is not a name in it", "a file in it is damaged"
        )
    return folder / name


def below(folder: Path, name: str) -> Path:
    """The same; and where a key belongs there must be one.

    Every path that is made of a key, or of a name in a file, goes through here. Raises
    `InputError`.
    """
    keyed = _KEYED.match(name)
    if keyed and not is_key(keyed[1]):
        what = f"{shown(name)!r} has no key, which is 24 hexadecimal digits"
        raise InputError.one(folder, what, "a file in it is damaged")
    return inside(folder, name)


def is_ours(name: str) -> bool:
    """Whether a file with this name in a study's folder is one that kdsearch writes."""
    written = _WRITTEN.fullmatch(name)
    return _OURS.fullmatch(written["folder"] + written["name"] if written else name) is not None


def is_aside(name: str) -> bool:
    """Whether it is a training's folder that was being written or removed."""
    return is_trainings(name) and name.endswith(".tmp")


def is_trainings(name: str) -> bool:
    """Whether a folder with this name is one that kdsearch makes for a training."""
    return re.fullmatch(rf"(?:attempts|checkpoints|students|progress)/{_ASIDE}", name) is not None


def is_half(name: str) -> bool:
    """Whether it is one that a process was writing, removing or setting aside."""
    ends = (".tmp", ".torn", ".linked")
    hidden = [part for part in name.split("/") if part.startswith(".")]
    left = any(part.endswith(ends) or part.startswith(".probe-") for part in hidden)
    return left and is_ours(name)
