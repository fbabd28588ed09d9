"""What a table or figure says, in a sentence made from its numbers. The sentences are in ``readings.toml``, with gaps
``{COLUMN:VERB}`` or ``{COLUMN:highest:WORDS}`` (or ``lowest``), the row with that value: of its words those that name
columns are replaced by the row's values, and the value with its interval follows.

A column may be an expression of columns, as pandas evaluates it; a verb is a method of its values.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from .selection import model_name

READINGS: dict[str, list] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_GAP = re.compile(r"\{([^{}:]+)(?::(\w+))?(?::([^{}]+))?\}")


def reading(name: str, frame: pd.DataFrame) -> str:
    """What to read from an output.

    Args:
        name: its stem. frame: its numbers.

    Returns:
        The sentences whose rows are there; "" of an output without any.
    """
    said = []
    parts = (READINGS[stems] for stems in READINGS if any(fnmatchcase(name, stem) for stem in stems.split()))
    for rows, text in next(parts, ()):
        with suppress(pd.errors.UndefinedVariableError):  # files that another version has saved
            part = (frame.query(rows, engine="python") if rows else frame).reset_index(drop=True)
            if len(part):
                said.append(_GAP.sub(lambda gap, part=part: _filled(part, *gap.groups()), text))
    return " ".join(said)


def _filled(rows: pd.DataFrame, column: str, verb: str | None, words: str | None) -> str:
    values = rows[column] if column in rows else rows.eval(column, engine="python")
    if not words:
        return _text(getattr(values, verb)() if verb else values)
    values = pd.to_numeric(values).dropna()
    if values.empty:
        return "none"
    row = rows.loc[values.idxmax() if verb == "highest" else values.idxmin()]
    named = re.sub(r"\w+", lambda word: _text(row.get(word[0], word[0])), words)
    ends = list(rows)[list(rows).index(column) + 1 :][:2]
    known = ends and ends[0] in ("low", f"{column}_low") and pd.notna(row[ends[0]])
    return f"{named} ({_text(row[column])}{f' [{_text(row[ends[0]])}, {_text(row[ends[1]])}]' if known else ''})"


def _text(value) -> str:
    """A number with three digits, counts in full; a network by its title."""
    if isinstance(value, str):
        return model_name(value)
    if pd.isna(value):
        return "none"
    return f"{value:,.0f}" if value == round(value, 0) or abs(value) >= 100 else f"{value:.3g}"
