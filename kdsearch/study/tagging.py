"""The tags of a data set for ner: which labels its rows will have, and what they are made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kdsearch.study.labels import short_label, spelt_as
from kdsearch.study.parsers import named_tags, nameless
from kdsearch.study.tags import OUTSIDE, Scheme, in_order, iob2_labels, scheme_of, to_iob2
from kdsearch.study.tasks import Columns, Row


def settle_tags(
    raw: Sequence[Iterable[Row]], columns: Columns, given: Sequence[tuple[str, ...]] = ()
) -> tuple[Columns, tuple[str, str] | None]:
    """The columns of a data set for ner with its labels; what is wrong with its tags, and a remedy.

    Labels that the study does not name are those of the data, or of its given teachers if these
    agree and have more; `given` are theirs. For the F1 of entities, tags in another scheme than
    IOB2 are to be converted, unless a given teacher has them.
    """
    named = columns.labels
    found = {tag for tags in named_tags(raw, columns) for tag in tags}
    if not named and not found:
        return columns, nameless(raw, columns)
    if named and OUTSIDE not in named:
        what = f"its labels lack the tag {OUTSIDE}"
        return columns, (what, "name every tag: labels: [O, B-PER, ...]")
    columns = replace(columns, labels=named or in_order(found), collected=not named)
    if "f1" in (columns.metric, *columns.also):
        other = not found <= {*columns.labels} and scheme_of(found) not in (None, "IOB2")
        by_name = not named or (other and scheme_of(named) == "IOB2")
        scheme = scheme_of(found if by_name else named)
        if scheme is None:
            return columns, _no_scheme(columns.labels)
        columns = replace(columns, scheme=scheme)
        if scheme != "IOB2" and not any(_has_tags(g, columns, scheme) for g in given):
            written = in_order(found) if by_name else named
            if not named:
                iob2 = {tag for tags in named_tags(raw, columns) for tag in to_iob2(tags)}
                columns = replace(columns, labels=in_order(iob2))
            elif not by_name:
                columns = replace(columns, labels=iob2_labels(named))
            columns = replace(columns, written=written, collected=by_name)
    if not named and given:
        columns = replace(columns, labels=_labels_of_all(given, columns) or columns.labels)
    return columns, None


def _has_tags(given: tuple[str, ...], columns: Columns, scheme: Scheme) -> bool:
    """Whether a given teacher's labels are the data's, of which collected ones may lack some."""
    theirs, ours = {*spelt_as(given, columns.labels)}, {*columns.labels}
    return scheme_of(given) == scheme and (ours <= theirs if columns.collected else ours == theirs)


def _labels_of_all(given: Sequence[tuple[str, ...]], columns: Columns) -> tuple[str, ...] | None:
    """The labels that all given teachers of some data have, if those of the data are among them."""
    one, *others = [{*spelt_as(labels, columns.labels)} for labels in given]
    if any(other != one for other in others) or not one >= {*columns.labels}:
        return None
    of_entities = "f1" in (columns.metric, *columns.also)
    other = of_entities and scheme_of(one) != scheme_of(columns.labels)
    return None if other else in_order(one)


def _no_scheme(labels: Sequence[str]) -> tuple[str, str]:
    other = [tag for tag in labels if tag != OUTSIDE and tag[:2] not in ("B-", "I-")]
    remedy = "write O, B-X and I-X, or set metric: accuracy"
    unlike = ", ".join(map(short_label, other[:5]))
    return f"the F1 of entities needs tags in IOB2, and these are not: {unlike}", remedy
