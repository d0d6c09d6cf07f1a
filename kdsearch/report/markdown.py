"""A little Markdown: tables, and text that keeps what it says whatever a study's names hold."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from kdsearch.analysis.statistics import Chance
from kdsearch.errors import shown
from kdsearch.search import SYMBOLS

NOTHING = "–"


def escape(text: object) -> str:
    """`text` on one line, with nothing left in it that Markdown or HTML would take as markup."""
    line = shown(" ".join(str(text).split()))
    # An underscore within a word, as in t_hs, is none of Markdown's.
    return re.sub(r"([\\`*|\[\]~$]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(line, quote=False))


def metric_in_words(metric: str) -> str:
    """How a score is computed, a pattern of answers within as code."""
    words, found_by, pattern = metric.partition(", found by ")
    fence = "``" if "`" in pattern else "`"
    space = " " if "`" in pattern else ""
    code = f"{fence}{space}{shown(' '.join(pattern.split()))}{space}{fence}"
    return escape(words) + (found_by + code if pattern else "")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; None is a cell without a value. The first column is text, so it is to the left."""
    lines = [_line(headers), _line([":--", *["--:"] * (len(headers) - 1)], raw=True)]
    lines += [_line(row) for row in rows]
    return "\n".join(lines)


def axes_in_words(names: Sequence[str]) -> str:
    """Such as `τ_t, the learning rate and the optimizer`; `nothing` of none."""
    words = [SYMBOLS.get(name) or f"the {name.replace('_', ' ')}" for name in names]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"


def percent(fraction: float | None) -> str:
    """A gain in percent with one decimal, as the paper prints it."""
    return NOTHING if fraction is None else _minus(_no_negative_zero(f"{100 * fraction:.1f}"))


def score(value: float | None, digits: int = 4) -> str:
    """A score with so many decimals; of a test case, see `CaseResult.digits`."""
    return NOTHING if value is None else _no_negative_zero(f"{value:.{digits}f}")


def number(value: float | None) -> str:
    """A temperature or a learning rate, with three digits."""
    return NOTHING if value is None else f"{value:.3g}"


def temperature(value: float | None, effective: float | None) -> str:
    """A τ_t, and in brackets what it comes to where it is in units of something; or one learnt."""
    if value is None and effective is not None:
        return f"learnt: {number(effective)}"
    return number(value) if effective is None else f"{number(value)} ({number(effective)})"


def change(value: float | None, digits: int) -> str:
    """A difference of scores as they are, with its sign and so many decimals."""
    if value is None:
        return NOTHING
    text = f"{value:+.{digits}f}"
    return _minus(text) if text.strip("+-0.") else text[1:]


def points(value: float | None) -> str:
    """A difference of scores in points, with its sign and one decimal."""
    return change(value, 1)


def signed(number: int | None) -> str:
    """A whole number with its sign, such as a reward."""
    if number is None:
        return NOTHING
    return _minus(f"{number:+d}") if number else "0"


def p_value(p: float | None) -> str:
    """A p with three decimals."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def tie(tied: int) -> str:
    """What stands behind a choice among so many of one score; nothing where there was no tie."""
    return f", by a tie of {tied}" if tied > 1 else ""


def reading(chance: Chance) -> str:
    """What a test says, in words."""
    if chance.told_apart:
        return "can be told from chance"
    blocks = f"{chance.blocks} untied block{'' if chance.blocks == 1 else 's'}"
    return f"cannot be told from chance with {blocks} of cases"


def count(number: int, noun: str) -> str:
    """Such as `1 test case`, `2 test cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int | None) -> str:
    """Bytes in MB; whole ones, of less than 10 two digits."""
    if size is None:
        return NOTHING
    rounded = float(f"{size / 1e6:.2g}")
    return f"{rounded:#.2g}" if rounded < 10 else f"{size / 1e6:,.0f}"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def _line(cells: Iterable[object], *, raw: bool = False) -> str:
    texts = [NOTHING if c is None else str(c) if raw else escape(c) for c in cells]
    return f"| {' | '.join(texts)} |"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _no_negative_zero(text: str) -> str:
    return text.removeprefix("-") if not text.strip("-0.") else text
