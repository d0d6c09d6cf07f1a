"""What is kept of a language model's outputs: how far it is from the logits, and how large.

    python benchmarks/cache.py --model FOLDER --data FILE [--text question --label answer]
        [--rows 64] [--max-length 256] [--figure FILE.svg]

A teacher's outputs as a study keeps them, made by the study itself and read as its students read
them, beside the logits of the same model online in single precision, at each token of a completion
and each temperature. Beside them what other caches hold: the k likeliest tokens, renormalised, and
n tokens drawn in proportion to their probability (drawn anew at each temperature, since they serve
the one that they were drawn at). The exact cache is not compared with what it was made of: hidden
states come from the file, the logits from another pass of the model.

`--data`: JSON lines, .gz too; the first rows of it. `--figure` draws what was found, into an SVG.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from material import begin, first_student, scratch
from pairs import Figure, busy_cores, report, report_table
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdsearch.agenda import StudentTraining
from kdsearch.distill.batch_loss import CachedOutputs
from kdsearch.distill.outputs import KeptOutputs
from kdsearch.ledger import Ledger
from kdsearch.tasks import TASKS, Encoded

TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
TOP = (16, 50, 128, 512)
DRAWN = (12, 50, 128)
LM = TASKS["lm"]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a cache says of some tokens at a temperature: the probabilities of P places each."""

    probabilities: Tensor
    """[tokens, P]."""
    places: Tensor | None = None
    """[tokens, P]: whose probabilities they are; None of the whole vocabulary's."""
    times: Tensor | float = 1.0
    """[tokens, P]: how often a place stands among a token's."""


Cache = Callable[[float], Kept]


@dataclass
class Distance:
    """What a cache says at a temperature, from what the model says."""

    tokens: int = 0
    variation: float = 0.0
    """Summed over the tokens: half the sum of the differences of the probabilities."""
    divergence: float = 0.0
    """Summed over the tokens: KL(cache ‖ model), in nats."""
    kept: Tensor | float = 0.0
    """[vocabulary]: the probabilities, summed over the tokens."""
    exact: Tensor | float = 0.0

    def add(self, kept: Kept, exact: Tensor) -> None:
        """Some more tokens; `exact` has the model's probabilities, [tokens, vocabulary]."""
        said = kept.probabilities
        there = exact if kept.places is None else exact.gather(-1, kept.places)
        self.tokens += len(exact)
        self.variation += len(exact) - float((torch.minimum(said, there) / kept.times).sum())
        each = said / kept.times
        self.divergence += float((each * (said / there).log()).sum())
        total = each.sum(dim=0)
        if kept.places is not None:
            nothing = torch.zeros_like(exact[0])
            total = nothing.scatter_add_(0, kept.places.flatten(), each.flatten())
        self.kept, self.exact = self.kept + total, self.exact + exact.sum(dim=0)

    @property
    def of_mean(self) -> float:
        """Between the mean probabilities of all tokens: what does not cancel over them."""
        assert isinstance(self.kept, Tensor)
        return float((self.kept - self.exact).abs().sum()) / 2 / self.tokens


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text", default="question")
    parser.add_argument("--label", default="answer")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    name = given.data.parent.name
    with scratch() as folder:
        ledger, student = kept_in(folder / "study", given)
        teacher = Teacher(ledger, student, given.model)
        distances = compared(teacher)
        tell(name, given, teacher, distances)
    if given.figure:
        draw(distances, name, given.model.name, given.figure)


def kept_in(folder: Path, given: argparse.Namespace) -> tuple[Ledger, StudentTraining]:
    """A study in which the model is a given teacher, once its outputs are kept."""
    folder.mkdir()
    end = ".jsonl.gz" if given.data.suffix == ".gz" else ".jsonl"
    source = folder / f"rows{end}"
    source.write_bytes(given.data.read_bytes())
    files = dict.fromkeys(("train", "validation", "test"), str(source))
    limit = {"train": given.rows, "validation": 2, "test": 2}
    texts = {"text": given.text, "label": given.label}
    study = {
        "name": "bench",
        "datasets": {"rows": {"task": "lm", "files": files, "limit": limit, **texts}},
        "models": {"teacher": str(given.model.resolve())},
        "teachers": {"teacher": {"checkpoint": "teacher"}},
        "students": {"student": {"model": "teacher", "layers": 1}},
        "search": {"learning_rate": [1e-4]},
        "training": {"max_length": given.max_length, "precision": "fp32"},
    }
    ledger, agenda = begin(folder / "run", study)
    return ledger, first_student(ledger, agenda)


class Teacher:
    """The model, its kept outputs, and what both say of the training rows."""

    def __init__(self, ledger: Ledger, student: StudentTraining, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        rows = ledger.rows(student.data.train)
        self.examples: Encoded = LM.encode(
            rows, tokenizer, student.data, student.settings, training=True
        )
        found = KeptOutputs(ledger, student, torch.device("cpu"))
        tokens = len(self.examples.labels)
        cached = found.on("train", tokens)
        assert cached is not None
        assert cached.head is not None
        self.cached: CachedOutputs = cached
        self.weight, self.bias = cached.head
        self.bytes = cached.values.element_size() * cached.values.shape[1]
        self.cpu, self.others = 0.0, [busy_cores(1)]

    @property
    def tokens(self) -> int:
        """How many of completions."""
        return len(self.examples.labels)

    def online(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Numbers of rows, and the model's own logits there, in single and in mixed precision."""
        for number in range(len(self.examples)):
            batch = self.examples.batch(torch.tensor([number]))
            started = time.process_time()
            logits = self.model(**batch.arguments, use_cache=False).logits[batch.counted]
            self.cpu += time.process_time() - started
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mixed = self.model(**batch.arguments, use_cache=False).logits[batch.counted]
            yield batch.rows, logits, mixed

    def caches(self, rows: Tensor, logits: Tensor, mixed: Tensor) -> Mapping[str, Cache]:
        """Each by its name; `mixed` are the model's logits in mixed precision."""
        states = self.cached.values[rows]
        single = F.linear(states.float(), self.weight, self.bias)
        bias = None if self.bias is None else self.bias.bfloat16()
        half = F.linear(states, self.weight.bfloat16(), bias)
        return {
            "hidden": partial(whole, single),
            "hidden_bf16": partial(whole, half),
            "online_bf16": partial(whole, mixed),
            **{f"top_{k}": partial(likeliest, logits, k) for k in TOP},
            **{f"drawn_{n}": partial(drawn, logits, n) for n in DRAWN},
        }


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature, in double precision: errors are told in it."""
    return (logits.double() / temperature).softmax(dim=-1)


def whole(logits: Tensor, temperature: float) -> Kept:
    """All of them."""
    return Kept(probabilities=softened(logits, temperature))


def likeliest(logits: Tensor, count: int, temperature: float) -> Kept:
    """Of the likeliest tokens alone, as if there were no others."""
    values, places = logits.topk(count, dim=-1)
    return Kept(probabilities=softened(values, temperature), places=places)


def drawn(logits: Tensor, count: int, temperature: float) -> Kept:
    """The shares of so many tokens, drawn with replacement."""
    places = softened(logits, temperature).multinomial(count, replacement=True)
    times = (places[:, :, None] == places[:, None, :]).sum(dim=-1).double()
    return Kept(probabilities=times / count, places=places, times=times)


@torch.no_grad()
def compared(teacher: Teacher) -> dict[str, dict[float, Distance]]:
    """Of each cache, at each temperature, how far it is."""
    torch.manual_seed(0)
    found: dict[str, dict[float, Distance]] = {}
    for rows, logits, mixed in teacher.online():
        caches = teacher.caches(rows, logits, mixed)
        for temperature in TEMPERATURES:
            exact = softened(logits, temperature)
            for name, kept in caches.items():
                distance = found.setdefault(name, {}).setdefault(temperature, Distance())
                distance.add(kept(temperature), exact)
    return found


def tell(
    name: str,
    given: argparse.Namespace,
    teacher: Teacher,
    distances: Mapping[str, Mapping[float, Distance]],
) -> None:
    """Report sizes and distances."""
    conditions = {"model": given.model.name, "data": name, "tokens": teacher.tokens}
    read = int(teacher.examples.lengths.sum())
    report(
        f"cache.{name}.rate",
        f"tokens of prompt and completion that {given.model.name} reads in a second of processor "
        "time, fp32, row by row",
        Figure(values=[read / teacher.cpu], others=teacher.others),
        unit="tokens/s",
        **conditions,
    )
    what = f"{given.model.name} on {teacher.tokens:,} tokens of {name}"
    columns = ["what is kept", "bytes", *(f"τ {t:g}" for t in TEMPERATURES)]
    measures: dict[str, tuple[str, Callable[[Distance], float]]] = {
        "token": (
            "total variation distance from the exact probabilities, mean over the tokens (of the "
            "likeliest tokens it is the mass that they lack)",
            lambda found: found.variation / found.tokens,
        ),
        "mean": (
            "the same between the mean probabilities of all the tokens: what does not cancel over "
            "them, of drawn ones less the more tokens there are",
            lambda found: found.of_mean,
        ),
        "kl": (
            "KL(kept ‖ exact) in nats, mean over the tokens",
            lambda found: found.divergence / found.tokens,
        ),
    }
    for measure, (words, of) in measures.items():
        rows = [
            [
                words_of(kept),
                bytes_of(kept, teacher.bytes),
                *(f"{of(found):.2g}" for found in by_temperature.values()),
            ]
            for kept, by_temperature in distances.items()
        ]
        report_table(f"cache.{name}.{measure}", f"{what}: {words}", columns, rows, **conditions)


def words_of(kept: str) -> str:
    """What a cache holds."""
    match kept.split("_"):
        case ["top", count]:
            return f"{count} likeliest tokens, renormalised"
        case ["drawn", count]:
            return f"{count} tokens drawn"
        case ["hidden"]:
            return "last hidden state in bf16"
        case ["hidden", _]:
            return "the same, multiplied with its head in bf16"
    return "nothing: the model in mixed precision (bf16), online"


def bytes_of(kept: str, hidden: int) -> int | None:
    """Of a token, as `training.cache` writes it; of drawn ones at most."""
    match kept.split("_"):
        case ["top", count]:
            return 6 * int(count) + 2
        case ["drawn", count]:
            return 6 * int(count) + 10
        case ["hidden", *_]:
            return hidden
    return None


LINES: Sequence[tuple[str, str, str]] = (
    ("top_16", "#c9a227", ":"),
    ("top_50", "#c9a227", "--"),
    ("top_512", "#c9a227", "-"),
    ("drawn_12", "#2a7f8e", ":"),
    ("drawn_50", "#2a7f8e", "--"),
    ("drawn_128", "#2a7f8e", "-"),
    ("hidden", "#8e2a5b", "-"),
)
"""What the figure shows, and how."""


def draw(
    distances: Mapping[str, Mapping[float, Distance]], name: str, model: str, path: Path
) -> None:
    """Both distances against the temperature."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "kdsearch", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True, layout="constrained")
    tokens = next(iter(distances["hidden"].values())).tokens
    sides: Sequence[tuple[str, Callable[[Distance], float]]] = (
        ("of a token’s probabilities", lambda found: found.variation / found.tokens),
        (f"of the mean of {tokens:,} tokens", lambda found: found.of_mean),
    )
    for ax, (title, of) in zip(axes, sides, strict=True):
        for kept, colour, style in LINES:
            found = [of(each) for each in distances[kept].values()]
            ax.plot(TEMPERATURES, found, style, color=colour, label=words_of(kept), marker=".")
        ax.set(title=title, xlabel="temperature", yscale="log", xticks=(0.5, 1, 2, 3, 4))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("total variation distance\nfrom the exact ones")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", frameon=False)
    figure.suptitle(f"What is kept of {model}’s outputs on {name}", fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    print(f"drawn: {path}")


if __name__ == "__main__":
    main()
