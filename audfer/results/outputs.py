"""Saving tables and figures: the thing itself, the numbers behind it, and what made them, under one name.

The same inputs give the same bytes: no dates, fixed identifiers in SVG, fixed digits in csv. So ``git diff`` on
``figures/`` shows changed results and nothing else.
"""

from __future__ import annotations

import platform
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import metadata
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ..files import atomic_file, write_json
from .tables import Table, digests_of

SHOWN_DPI = 100  # in a notebook; files have more, so that dense screens and paper are sharp
_PACKAGES = ("numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "torch")
_FLOATS = "%.6g"


@dataclass(frozen=True)
class Saved:
    """What was written; a notebook shows the picture or table with its caption and the file names.

    Attributes:
        name: common stem of the files.
        paths: the files.
        caption: shown below.
    """

    name: str
    paths: tuple[Path, ...]
    caption: str
    _html: str = ""

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return f"{self.name}: {', '.join(path.name for path in self.paths)}"


@dataclass(frozen=True)
class Result:
    """A table or a figure, not saved yet.

    Attributes:
        name: stem of its files. content: the ``Table`` or the figure.
        data: the numbers that a figure draws; a table has its own.
        caption: of a figure. records: behind a figure.
    """

    name: str
    content: Table | Figure
    data: pd.DataFrame | None = None
    caption: str = ""
    records: Sequence = field(default=(), repr=False)

    def save(self, folder: str | Path) -> Saved:
        """Write its files; as the last line of a notebook cell it shows the table or picture."""
        if isinstance(self.content, Table):
            return save_table(self.content, self.name, folder)
        return save_figure(self.content, self.name, self.data, folder, self.caption, self.records)


def save_table(
    table: Table | pd.DataFrame, name: str, folder: str | Path, caption: str = "", records: Sequence = ()
) -> Saved:
    """Write ``name.csv`` (tidy numbers), ``name.md`` (to read, with caption) and ``name.json`` (what made it).

    Args:
        table: a ``Table``, or a frame (then it is both the numbers and what is shown).
        name: file stem, for example ``"table1"``.
        folder: made if missing.
        caption: for a bare frame; a ``Table`` brings its own.
        records: run records behind a bare frame.

    Returns:
        ``Saved``; as the last line of a notebook cell it shows the table.
    """
    if not isinstance(table, Table):
        shown = table.copy()
        for column in shown.select_dtypes("float"):
            shown[column] = [format(value, ".3g") if pd.notna(value) else "—" for value in shown[column]]
        table = Table(table, shown, caption, (), digests_of(records))
    folder = Path(folder)
    paths = tuple(folder / f"{name}{suffix}" for suffix in (".csv", ".md", ".json"))
    _write_csv(paths[0], table.tidy)
    with atomic_file(paths[1]) as temporary:
        temporary.write_text(table.to_markdown(), encoding="utf-8")
    _write_provenance(paths[2], name, table.caption, table.digests)
    return Saved(name, paths, table.caption, table._repr_html_() + _files_line(paths))


def save_figure(
    figure: Figure, name: str, data: pd.DataFrame, folder: str | Path, caption: str, records: Sequence = ()
) -> Saved:
    """Write ``name.png``, ``name.svg``, ``name.csv`` (the numbers drawn) and ``name.json`` (what made it).

    Args:
        figure: closed afterwards, so that a notebook does not show it twice.
        data: the tidy numbers that are drawn.
        caption: what is shown, on what, how.
        records: run records behind it; their digests go into the json.

    Returns:
        ``Saved``; as the last line of a notebook cell it shows the picture and its caption.
    """
    import matplotlib.pyplot as plt

    folder = Path(folder)
    paths = tuple(folder / f"{name}{suffix}" for suffix in (".png", ".svg", ".csv", ".json"))
    # matplotlib writes a date and random identifiers unless told otherwise
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        for path in paths[:2]:
            with atomic_file(path) as temporary:
                kind = path.suffix[1:]
                information = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
                figure.savefig(temporary, format=kind, dpi=figure.dpi, metadata=information)
            figure.set_layout_engine("none")  # laid out once, for both: half of the time goes there
    _write_csv(paths[2], data)
    _write_provenance(paths[3], name, caption, digests_of(records))
    plt.close(figure)
    return Saved(name, paths, caption, _figure_html(paths[0], caption, figure.dpi) + _files_line(paths))


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=_FLOATS, lineterminator="\n")


def _write_provenance(path: Path, name: str, caption: str, digests: Sequence[str]) -> None:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    write_json(path, {"name": name, "caption": caption, "records": list(digests), "versions": versions})


def _figure_html(png: Path, caption: str, dpi: float) -> str:
    import struct

    content = png.read_bytes()
    width = struct.unpack(">I", content[16:20])[
        0
    ]  # pixels; shown at 100 dpi, so that screens of either density are sharp
    return (
        f"<img style='width:{width * SHOWN_DPI / dpi:.0f}px;max-width:100%' alt='{escape(caption, quote=True)}' "
        f"src='data:image/png;base64,{b64encode(content).decode()}'/><p>{escape(caption)}</p>"
    )


def _files_line(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths)
    return f"<p style='font-size:smaller;color:gray'>{escape(str(paths[0].parent.name))}/: {escape(names)}</p>"
