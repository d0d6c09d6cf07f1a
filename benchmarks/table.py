"""The results of benchmarks as a table: in the terminal, and in docs/performance.md.

    python benchmarks/table.py [FILE.jsonl …] [--publish]

Of runs/benchmarks.jsonl by default. Of each measure the last result counts. `--publish` puts them
into benchmarks/results.json and the document, in place of those of the same measures, and leaves
the others as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pairs import RESULTS, ROOT, goal, judgement, spread
from rich.console import Console
from rich.table import Column, Table

Record = Mapping[str, Any]
PUBLISHED = ROOT / "benchmarks/results.json"
DOCUMENT = ROOT / "docs/performance.md"
BEGIN, END = "<!-- results: benchmarks/table.py writes them -->", "<!-- end of results -->"


def read(files: Iterable[Path]) -> list[Record]:
    """The records of some files, in their order."""
    lines = (line for path in files for line in path.read_text().split("\n"))
    return [json.loads(line) for line in lines if line]


def last(records: Iterable[Record]) -> list[Record]:
    """The last record of each measure, in the order in which these came first."""
    found: dict[str, Record] = {}
    for record in records:
        found[record["measure"]] = record
    return list(found.values())


def answer(record: Record) -> str:
    """Whether what was to be reached is."""
    if record["met"] is None:
        return ""
    return f"{goal(record)}: {judgement(record)}"


def figure(record: Record) -> str:
    """With its spread, and a word where other work disturbed it."""
    disturbed = " (disturbed)" if record["quiet"] is False else ""
    return spread(record) + disturbed


def by_cpu(record: Record) -> str:
    """The median of the ratio of processor times, where there is one."""
    if not record["cpu"]:
        return ""
    return spread({**record["cpu"], "unit": record["unit"], "rounds": 1})


def is_figure(record: Record) -> bool:
    """Whether it is one number, and no parts or table of them."""
    return "parts" not in record and "table" not in record


def grid(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table's lines, and an empty one."""
    cells = [["" if cell is None else f"{cell}" for cell in row] for row in (columns, *rows)]
    head, *others = (f"| {' | '.join(row)} |" for row in cells)
    return [head, "|---" * len(columns) + "|", *others, ""]


def in_terminal(records: Sequence[Record]) -> None:
    """Print the figures."""
    records = list(filter(is_figure, records))
    name = Column(
        "measure", no_wrap=True, min_width=max((len(r["measure"]) for r in records), default=0)
    )
    table = Table(name, "figure", "by processor time", "to reach")
    for record in records:
        table.add_row(record["measure"], figure(record), by_cpu(record), answer(record))
    Console().print(table)


def markdown(records: Sequence[Record]) -> str:
    """The figures, then where the time goes, each with the machine they are of."""
    text = []
    for where in dict.fromkeys(map(surroundings, records)):
        here = [record for record in records if surroundings(record) == where]
        text += [where, ""]
        plain = list(filter(is_figure, here))
        if plain:
            text += [
                "| measure | figure | by processor time | to reach |",
                "|---|---|---|---|",
            ]
            text += [
                f"| `{record['measure']}`: {record['words']} | {figure(record)} | "
                f"{by_cpu(record)} | {answer(record)} |"
                for record in plain
            ]
            text.append("")
        for record in here:
            if "parts" in record:
                parts = (f"{name} {share:.1f} %" for name, share in record["parts"].items())
                text += [f"`{record['measure']}`, {record['words']}: {'; '.join(parts)}.", ""]
            elif "table" in record:
                text += [f"`{record['measure']}`, {record['words']}:", "", *grid(**record["table"])]
    return "\n".join(text)


def surroundings(record: Record) -> str:
    """The machine, the versions and the commit, in words."""
    machine, versions = record["machine"], record["versions"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    flags = f" ({', '.join(machine['bf16'])})" if machine["bf16"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    changed = " with changes" if record["dirty"] else ""
    return (
        f"{machine['cpu']}{flags}, {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; "
        f"{packages}; "
        f"commit {(record['commit'] or 'unknown')[:10]}{changed}; {record['date'][:10]}."
    )


def publish(records: Sequence[Record]) -> None:
    """Put the records in the published file and the document."""
    before = json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else []
    every = last([*before, *records])
    PUBLISHED.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n")
    head, rest = DOCUMENT.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n{markdown(every)}{END}{tail}")
    print(f"written: {PUBLISHED.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")


def main() -> None:
    """Print the table, and publish it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", default=[RESULTS])
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    records = last(read(given.files))
    in_terminal(records)
    if given.publish:
        publish(records)


if __name__ == "__main__":
    main()
