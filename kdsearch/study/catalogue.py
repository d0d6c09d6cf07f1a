"""The data sets that kdsearch knows by name: where they are, their columns, labels and metric."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set of the Hugging Face Hub at a pinned revision."""

    hub: str
    config: str
    revision: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metric: str
    rows: dict[str, int]
    """The published counts."""
    task: str = "classification"


CATALOGUE = {
    # Dolan & Brockett 2005, as in GLUE; its test labels are public.
    # {"sentence1": "He said …", "sentence2": "… , he said .", "label": 1, "idx": 0}
    "mrpc": Entry(
        hub="nyu-mll/glue",
        config="mrpc",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        text=("sentence1", "sentence2"),
        label="label",
        labels=("not_equivalent", "equivalent"),
        metric="f1",
        rows={"train": 3668, "validation": 408, "test": 1725},
    ),
}
