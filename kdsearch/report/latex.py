"""The tables for a paper: LaTeX with booktabs."""

from __future__ import annotations

import pandas as pd


def latex(frame: pd.DataFrame) -> str:
    """`frame` as a tabular; needs the booktabs package. Whatever its names hold is escaped."""
    return frame.map(_cell).rename(columns=_cell).to_latex(index=False)


_ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "[": "{[}",  # with * an argument of the line end before it
    "*": "{*}",
    "^": r"\textasciicircum{}",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "≤": r"$\leq$",
    "−": "$-$",
}


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "--"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return "".join(_ESCAPES.get(character, character) for character in text)
