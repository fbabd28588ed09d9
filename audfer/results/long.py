"""All results as one long table: ``figures/<profile>/results.csv`` and ``.parquet``, one row per number.

Two kinds of rows. Those of one run record (``record`` is its name) give what that one trained network reaches on its
own test clips; those without a record are the numbers that a table or figure shows, of all seeds together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import AudferError, InputError
from ..evaluation import PROTOCOLS, summary
from ..facs import EXPRESSIONS
from ..files import atomic_file, read_csv
from ..training.records import RunRecord, RunStore
from .provenance import read_sidecars

#: columns of the table; percent where a number is a share of clips, as in the tables
COLUMNS = (
    *("profile", "table", "dataset", "network", "variant", "seed", "fold", "protocol", "metric"),
    *("value", "low", "high", "n", "record", "status"),
)
#: of a saved frame: what a row is about, in other words
_RENAMED = {"model": "network", "classifier": "network"}
#: of a saved frame: what is neither a number to report nor says what a row is about
_LEFT_OUT = {"strategy", "au_ratio", "test", "note", "summary", "seeds", "folds"}
_COUNTS = ("clips", "frames", "pictures", "subjects", "n")


def write_results(figures: Path, store: RunStore | None = None) -> Path | None:
    """Write the table of a profile; returns the path of the csv, ``None`` where the folder holds no results.

    Args:
        figures: the profile's tables and figures with their sidecars.
        store: its run records, if they are there: they add a row for each record, protocol and metric.

    Raises:
        InputError: a sidecar or the csv beside it that is not readable.
    """
    figures = Path(figures)
    rows = [*_of_files(figures), *(_of_records(store) if store and store.grid_path.is_file() else ())]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("seed", "fold", "n"):
        table[name] = table[name].astype("Int64")
    path = figures / "results.csv"
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    with atomic_file(path.with_suffix(".parquet")) as temporary:
        read_results(path).to_parquet(temporary, index=False)  # the very same numbers
    return path


def read_results(path: Path) -> pd.DataFrame:
    """The table of ``write_results``, from its csv: texts are never missing, whole numbers are ``Int64``.

    Raises:
        InputError: no such file, or other columns.
    """
    text = {name: str for name in COLUMNS if name not in ("seed", "fold", "n", "value", "low", "high")}
    try:
        table = read_csv(path, dtype=text | dict.fromkeys(("seed", "fold", "n"), "Int64"), keep_default_na=True)
    except OSError as error:
        raise InputError(path, "long table", type(error).__name__, "what audfer reproduce wrote") from None
    if tuple(table.columns) != COLUMNS:
        raise InputError(path, "columns", ", ".join(table.columns), ", ".join(COLUMNS))
    return table.fillna(dict.fromkeys(text, ""))


# --------------------------------------------------------------------------------------------------------- of records
def _of_records(store: RunStore) -> Iterator[dict]:
    """Every cell that tables and figures need, with what its record reaches."""
    grid, records = store.read_grid(), {}
    for table, numbers in grid["outputs"].items():
        for number in numbers:
            entry = grid["cells"][number]
            if number not in records:
                records[number] = _record(store, entry["key"])
            (record, status), cell = records[number], entry["cell"]
            first = {
                "profile": grid["profile"]["name"],
                "table": table,
                "dataset": cell["dataset"],
                "network": cell["model"],
                "variant": variant_words(cell),
                "seed": cell["seed"],
                "fold": cell["fold"],
                "record": entry["key"] or "",
                "status": status,
            }
            yield from ({**first, **row} for row in (record or [{}]))


def _record(store: RunStore, key: str | None) -> tuple[list[dict], str]:
    try:
        if not key or not store.has(key, weights=False):
            return [], store.state(key) if key else "no record: not trained yet"
        return list(_numbers(RunRecord.load(store.path(key)))), "trained to the end"
    except AudferError as error:
        return [], f"not readable: {error}"


def _numbers(record: RunRecord) -> Iterator[dict]:
    """WAR and UAR by every protocol that the record has, the expressions after the last epoch."""
    for protocol in PROTOCOLS:
        if protocol == "best-on-validation" and record.validated_scores is None:
            continue
        found = summary(record, protocol)
        measured = {"WAR": found.war, "UAR": found.uar}
        if protocol == "last":
            measured |= dict(zip(EXPRESSIONS, found.per_class, strict=True))
        for metric, interval in measured.items():
            ends = (100 * x for x in (interval.value, interval.low, interval.high))
            yield {
                "protocol": protocol,
                "metric": metric,
                **dict(zip(("value", "low", "high"), ends, strict=True)),
                "n": int(interval.count),
            }


def variant_words(cell: dict) -> str:
    """What tells a cell from others of its network and dataset."""
    words = [cell["variant"]] if cell.get("variant") else []
    if not cell["au_ratio"]:
        words.append("without AU")
    else:
        words.append(f"with AU, lambda {cell['au_ratio']:g}, {cell['strategy']}")
        plain = {"weights": "knowledge", "reading": "paper", "au_source": "", "au_loss": ""}
        words += [f"{name} {cell[name]}" for name, usual in plain.items() if cell.get(name, usual) != usual]
    if cell.get("initialisation", "scratch") != "scratch":
        words.append(f"from {cell['initialisation']}")
    return ", ".join(words)


# ----------------------------------------------------------------------------------------------------------- of files
def _of_files(figures: Path) -> Iterator[dict]:
    """The numbers of every table and figure that have an interval or a metric's name; a drawn table's only once."""
    for stem, about in read_sidecars(figures).items():
        made, path = about.get("made", {}), figures / f"{stem}.csv"
        if "picture_of" in made or not path.is_file():
            continue
        frame = read_csv(path)
        first = {
            "profile": made.get("profile", figures.name),
            "table": made.get("output", stem),
            "protocol": made.get("protocol", ""),
            "record": "",
            "status": "",
        }
        yield from ({**first, **row} for row in long_rows(frame))


def long_rows(frame: pd.DataFrame) -> Iterator[dict]:
    """A saved table's numbers, one row each: those between two ends, and those whose metric is named.

    ``x`` with ``x_low`` and ``x_high`` is a number, and so is what stands before a plain ``low``.
    """
    frame = frame.rename(columns=_RENAMED) if "network" not in frame else frame
    names = list(frame.columns)
    values = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= {*names}}
    if "low" in names and names.index("low") > 0:
        values = {names[names.index("low") - 1]: ("low", "high")} | values
    elif "metric" in names and "value" in names:
        values = {"value": ("", "")} | values
    values = {name: ends for name, ends in values.items() if pd.api.types.is_numeric_dtype(frame[name])}
    words = [
        name
        for name in names
        if name not in {"dataset", "network", "variant", "metric"} | _LEFT_OUT
        and not pd.api.types.is_numeric_dtype(frame[name])
    ]
    count = next((name for name in _COUNTS if name in names), "")
    for row in frame.to_dict("records"):
        text = {name: row[name] if isinstance(row.get(name), str) else "" for name in ("dataset", "network", "variant")}
        more = [f"{name.replace('_', ' ')} {row[name]}" for name in words if isinstance(row[name], str) and row[name]]
        text["variant"] = ", ".join(filter(None, [text["variant"], *more]))
        metric = row.get("metric", "")
        for place, (name, ends) in enumerate(values.items()):
            if not np.isfinite(row[name]):
                continue
            known = {end: row.get(column, np.nan) for end, column in zip(("low", "high"), ends, strict=True)}
            yield {
                **text,
                "metric": (metric or name) if place == 0 else f"{metric} {name}".strip(),
                "value": row[name],
                **known,
                "n": int(row[count]) if count and np.isfinite(row[count]) else None,
            }
