"""Classification of images: {"pixels": the SHA-256 of its pixels, "label": number}.

A worker finds the pixels themselves there, uint8 [S, S, 3] in RGB; see `Ledger.rows`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

from kdsearch.study.grammar_images import SHAPES
from kdsearch.study.images import encoded, image_size
from kdsearch.study.labels import numbers_of
from kdsearch.study.tasks.base import Columns, Parser, Row, TaskSpec, is_missing


def class_name(label: Any) -> Any:
    """A label in the one encoding of its accents; two systems write folders' names in two."""
    return unicodedata.normalize("NFC", label) if isinstance(label, str) else label


def _image_classification(columns: Columns) -> Parser:
    """Of a raw row by its header alone: the digest of its file, until it is decoded, and `size`."""
    number_of = numbers_of(tuple(map(class_name, columns.labels)), "label")

    def parse(images: list[Any], label: Any) -> Row:
        image = encoded(images[0], columns.text[0])
        return {
            "pixels": hashlib.sha256(image.data).hexdigest(),
            "label": None if is_missing(label) else number_of(class_name(label)),
            "size": image_size(image),
        }

    return parse


IMAGE_CLASSIFICATION = TaskSpec(
    reads="pixels",
    metrics=("accuracy", "f1"),
    columns=(1,),
    needed=(),
    usual=(("image",), "label"),
    generated=(("image",), "label", SHAPES),
    fewest_labels=2,
    one_label=True,
    max_length=1,
    tokens=1,
    sample=100,
    gold="label",
    parser=_image_classification,
    texts=lambda row: (row["pixels"],),
    group=lambda row: row["pixels"],
    stratum=lambda label: label,
    output_rows=lambda row, unanswerable: 1,
    width=lambda labels: labels,
    pipeline="image-classification",
)
