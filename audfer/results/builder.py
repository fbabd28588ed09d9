"""A table or figure as a ``Result``, how a file registers one, and all of them from a store of run records.

A new table or figure is one new file: here, or in a wing (its module or package ``results``); nothing else names it::

    @output("table9", "05_visualisations", cells=lambda study: [study.cell("m3dfel", "DFEW")])
    def table9(study, records, protocol="last"):
        frame = pd.DataFrame(...)  # tidy numbers, one row each: the csv
        return Result("table9_epochs", frame, "Epochs. " + study.caption, draw=bars, digests=digests_of(records))

    study.results("table9", protocol="last")  # Result: .frame, .caption, .plot(), .save(); or a tuple of them

``needs=("table1",)`` instead of ``cells`` takes another output's cells. An output with neither is called without
records, ``table9(study)``; ``elsewhere=True`` says that its notebook alone makes it, as it needs clips or networks.

``draw(frame)`` returns a ``Figure`` or ``Axes``; ``Result.plot`` draws under the package's style. With ``display`` (the
numbers as text, wide) instead of ``draw`` it is a table; ``picture`` is a table drawn, a second ``Result``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..errors import AudferError, InputError
from ..files import atomic_file, read_csv
from ..study.outputs import OUTPUTS, SAVED, Output, RecordSource, output_named
from ..study.profiles import profile_from
from ..training.records import RunRecord, RunStore
from .captions import first_sentence
from .long import write_results
from .provenance import read_sidecars, write_sidecar
from .readings import reading

DASH = "—"
STYLE = Path(__file__).with_name("audfer.mplstyle")
#: cells without a record that a caption names
_NAMED = 12
SHOWN_DPI = 100  # in a notebook; files have more, so that dense screens and paper are sharp


def output(
    name: str, notebook: str, *, cells: Callable | None = None, needs: Sequence[str] = (), elsewhere: bool = False
):
    """Register the function below it as the maker of a table or figure; arguments as the fields of ``Output``."""

    def register(make: Callable) -> Callable:
        OUTPUTS.add(name, Output(name, notebook, make, cells, tuple(needs), elsewhere), make.__module__)
        return make

    return register


def digests_of(*records: Sequence) -> tuple[str, ...]:
    """Names of the folders of run records, and of the parts of those that are joined from folds, sorted."""
    parts = (part for some in records for record in some for part in getattr(record, "parts", (record,)))
    return tuple(sorted({getattr(part.path, "name", str(part.path)) for part in parts}))


def markdown_table(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table; missing values are em dashes, bars in text are escaped."""

    def cell(value) -> str:
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            return DASH
        return str(value).replace("|", "\\|")

    lines = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False, name=None)]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


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
    html: str = field(default="", repr=False)

    def _repr_html_(self) -> str:
        names = escape(f"{self.paths[0].parent.name}/: {', '.join(path.name for path in self.paths)}")
        return f"{self.html}<p style='font-size:smaller;color:gray'>{names}</p>"

    def __repr__(self) -> str:
        return f"{self.name}: {', '.join(path.name for path in self.paths)}"


@dataclass(frozen=True)
class Result:
    """A table or a figure with its numbers; the last line of a notebook cell shows it.

    Saving gives the same bytes for the same inputs: no dates, fixed identifiers in SVG, fixed digits in csv, so that
    ``git diff`` on ``figures/`` shows changed results and nothing else.

    Attributes:
        name: stem of its files. frame: tidy numbers, one row each.
        caption: what was measured, on what, how.
        display: of a table, the same numbers as text, wide; ``None`` formats ``frame``.
        draw: of a figure, ``frame`` -> ``Figure`` or ``Axes``.
        notes: lettered remarks that ``display`` points at.
        digests: names of the run records behind it (``digests_of``).
        picture: a table drawn, with files of its own.
        nothing: what the figure says where ``frame`` has no rows.
        folder: where ``save`` writes unless told otherwise.
        about: what made it, for its sidecar (``RecordSource.results`` fills it in).
        kept: whether its files were read and lie in ``folder``; ``save`` there leaves them as they are.
    """

    name: str
    frame: pd.DataFrame
    caption: str
    display: pd.DataFrame | None = None
    draw: Callable[[pd.DataFrame], Figure | Axes] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] = field(default=(), repr=False)
    picture: Result | None = field(default=None, repr=False)
    nothing: str = "no records"
    folder: Path | None = field(default=None, repr=False)
    about: dict = field(default_factory=dict, repr=False, compare=False)
    kept: bool = field(default=False, repr=False)

    def placed(self, folder: Path, about: dict | None = None) -> Result:
        """The same, saved in ``folder`` unless told otherwise, with what made it."""
        about = about or {}
        made = {**about.get("made", {}), "picture_of": self.name}
        picture = self.picture and self.picture.placed(folder, about and {**about, "made": made})
        return replace(self, folder=folder, picture=picture, about=about)

    @property
    def reading(self) -> str:
        """What its numbers say, in a sentence or two."""
        return reading(self.name, self.frame)

    @property
    def shown(self) -> pd.DataFrame:
        """What a table shows: ``display``, or the numbers with three digits."""
        if self.display is not None:
            return self.display
        shown = self.frame.copy()
        for column in shown.select_dtypes("float"):
            shown[column] = [format(value, ".3g") if pd.notna(value) else DASH for value in shown[column]]
        return shown

    def plot(self) -> Figure:
        """The figure, or the table drawn, under the package's style whatever the caller's settings are.

        Raises:
            AudferError: a table that nobody draws.
        """
        if self.draw is None and self.picture is None:
            raise AudferError(f"{self.name} is a table without a picture")
        if self.draw is None:
            return self.picture.plot()
        with plt.style.context(STYLE):
            if len(self.frame):
                return self.draw(self.frame).figure
            figure, axes = plt.subplots(figsize=(5, 1.2))
            axes.set_axis_off()
            axes.text(0.5, 0.5, self.nothing, ha="center", va="center", color="gray", transform=axes.transAxes)
            return figure

    def to_markdown(self) -> str:
        """A table's caption, rows and notes as Markdown."""
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        said = [self.reading, ""] if self.reading else []
        return "\n".join([self.caption, "", *said, markdown_table(self.shown), *notes, ""])

    def _repr_html_(self) -> str:
        if self.draw:
            return escape(repr(self))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"{_caption(self.caption, self.reading)}{self.shown.to_html(index=False, border=0, justify='left')}" + (
            f"<ul style='font-size:smaller'>{notes}</ul>" if notes else ""
        )

    def __repr__(self) -> str:
        return f"{self.caption}\n\n{self.shown.to_string(index=False)}"

    def save(self, folder: str | Path | None = None) -> Saved:
        """Write ``name.csv`` (the numbers), ``name.json`` (what made them), and a table's ``name.md`` or a figure's
        ``name.png`` and ``name.svg``; not those of ``picture``.

        Args:
            folder: made if missing; ``None`` = ``self.folder``.
        """
        kinds = (".png", ".svg", ".csv", ".json") if self.draw else (".csv", ".md", ".json")
        folder = Path(folder or self.folder or ".")
        paths = {kind: folder / f"{self.name}{kind}" for kind in kinds}
        if self.kept and folder == self.folder:
            with plt.style.context(STYLE):
                html = (
                    self._picture_html(paths[".png"], plt.rcParams["figure.dpi"]) if self.draw else self._repr_html_()
                )
            return Saved(self.name, tuple(paths.values()), self.caption, html)
        html = self._save_pictures(paths) if self.draw else self._repr_html_()
        with atomic_file(paths[".csv"]) as temporary:
            self.frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        if not self.draw:
            with atomic_file(paths[".md"]) as temporary:
                temporary.write_text(self.to_markdown(), encoding="utf-8")
        about = {"name": self.name, "caption": self.caption, **self.about}
        *written, sidecar = paths.values()
        write_sidecar(sidecar, about, self.digests, written)
        return Saved(self.name, tuple(paths.values()), self.caption, html)

    def _save_pictures(self, paths: dict[str, Path]) -> str:
        """Write png and svg; returns what a notebook shows."""
        figure = self.plot()
        # matplotlib writes a date and random identifiers unless told otherwise
        with matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}):
            for kind, information in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                with atomic_file(paths[f".{kind}"]) as temporary:
                    figure.savefig(temporary, format=kind, dpi=figure.dpi, metadata=information)
                figure.set_layout_engine("none")  # laid out once, for both: half of the time goes there
        plt.close(figure)  # so that a notebook does not show it twice
        return self._picture_html(paths[".png"], figure.dpi)

    def _picture_html(self, path: Path, dpi: float) -> str:
        kind, content, width = _for_readers(path)
        text = escape(self.caption, quote=True)
        return (
            f"<img style='width:{width * SHOWN_DPI / dpi:.0f}px;max-width:100%' alt='{text}' "
            f"src='data:image/{kind};base64,{b64encode(content).decode()}'/>{_caption(self.caption, self.reading)}"
        )


def _for_readers(path: Path) -> tuple[str, bytes, int]:
    """A png as a notebook shows it, a fifth of the bytes: 128 colours for lines and text, JPEG where faces are smaller
    so. The file itself stays.

    Returns:
        Kind, content, width in pixels.
    """
    with Image.open(path, formats=("PNG",)) as file:
        picture = file.convert("RGB")
    plain, lossy = BytesIO(), BytesIO()
    picture.quantize(128, dither=Image.Dither.NONE).save(plain, "PNG", optimize=True)
    picture.save(lossy, "JPEG", quality=85, optimize=True)
    kind, made = min(("png", plain), ("jpeg", lossy), key=lambda one: one[1].tell())
    return kind, made.getvalue(), picture.width


def _caption(caption: str, said: str) -> str:
    """A caption as HTML: its first sentence, what the numbers say, the rest behind "method"."""
    begin = first_sentence(caption)
    head = caption[: caption.find(begin) + len(begin) + 1] if begin in caption else f"{begin}"
    rest = caption if head not in caption else caption[len(head) :].strip()
    more = f"<details><summary>method</summary><p>{escape(rest)}</p></details>" if rest else ""
    return f"<p><b>{escape(head)}</b> {escape(said)}</p>{more}"


def _read_saved(folder: Path, name: str, settings: str) -> Result | tuple[Result, ...] | None:
    """An output as its files have it: what ``save`` wrote; ``None`` where they are not those of these settings.

    Args:
        settings: digest of the profile that they have to be of.
    """
    found = read_sidecars(folder, name)
    if not found or any(about.get("made", {}).get("settings") != settings for about in found.values()):
        return None
    results, pictures = [], {}
    for stem, about in found.items():
        frame, made = read_csv(folder / f"{stem}.csv"), about["made"]
        words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        frame[words] = frame[words].fillna("")  # a csv tells no empty text from none
        more = {"digests": tuple(about["records"]), "folder": folder, "kept": True}
        if (text := folder / f"{stem}.md").is_file():
            display, notes = _read_markdown(text.read_text(encoding="utf-8"))
            results.append(Result(stem, frame, about["caption"], display, notes=notes, **more))
            continue
        figure = Result(stem, frame, about["caption"], draw=partial(_show, folder / f"{stem}.png"), **more)
        if "picture_of" in made:
            pictures[made["picture_of"]] = figure
        else:
            results.append(figure)
    results = [replace(result, picture=pictures.get(result.name)) for result in results]
    return results[0] if len(results) == 1 else tuple(results) or None


SAVED.add("saved", _read_saved)


def _read_markdown(text: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table's rows and notes, from ``Result.to_markdown``."""
    lines = text.splitlines()
    rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|")
    ]
    notes = tuple(line.removeprefix("- ") for line in lines if line.startswith("- "))
    return pd.DataFrame(rows[2:], columns=rows[0]), notes


def _show(path: Path, _) -> Figure:
    """A saved picture as a figure of its size."""
    picture, dpi = plt.imread(path), plt.rcParams["figure.dpi"]
    figure = plt.figure(figsize=(picture.shape[1] / dpi, picture.shape[0] / dpi))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.set_axis_off()
    return figure


# ------------------------------------------------------------------------------------------------ from records alone
class StoredStudy(RecordSource):
    """A study of which there are only run records: no clips, no AU tables, no training. See ``open_records``.

    Attributes:
        missing: output -> text -> why, for every cell that it lacks, as far as outputs were asked for.
    """

    def __init__(self, store: RunStore, grid: dict, figures: Path):
        self.profile = profile_from(grid["profile"], store.grid_path)
        self.store, self.grid = store, grid
        self.figures = Path(figures).resolve() / self.profile.name
        self.missing: dict[str, dict[str, str]] = {}
        self._loaded: dict[str, RunRecord] = {}

    def records(self, *outputs: str) -> list[RunRecord]:
        """The records that there are for the named outputs; others are noted in ``missing``."""
        chosen = {}
        for name in dict.fromkeys(source for one in outputs for source in output_named(one).sources):
            if name not in self.grid["outputs"]:
                raise InputError(
                    self.store.grid_path, "outputs", f"no {name!r}", f"one of {', '.join(self.grid['outputs'])}"
                )
            lacks = self.missing.setdefault(name, {})
            for number in self.grid["outputs"][name]:
                entry = self.grid["cells"][number]
                try:
                    chosen[number] = self._record(entry["key"])
                except AudferError as error:
                    lacks[entry["label"]] = str(error)
        return list(chosen.values())

    def _record(self, key: str | None) -> RunRecord:
        if key not in self._loaded:
            if not key or not self.store.has(key, weights=False):
                raise AudferError(self.store.state(key) if key else "no record: not trained yet")
            self._loaded[key] = RunRecord.load(self.store.path(key))
        return self._loaded[key]

    def results(self, name: str, **options):
        """As ``RecordSource.results``.

        Raises:
            AudferError: an output that its notebook alone makes.
        """
        if output_named(name).elsewhere:
            where = output_named(name).notebook
            raise AudferError(f"{self.store.folder}: run records alone; what is asked for needs the clips ({where})")
        return super().results(name, **options)

    def __repr__(self) -> str:
        place = f"records in {self.store.folder}; figures in {self.figures}"
        return f"profile {self.profile.name}: {self.profile.summary}\n{place}"


def open_records(store: str | Path, figures: str | Path = "figures") -> StoredStudy:
    """The study that left a store of run records behind, on any machine.

    Args:
        store: the ``runs`` folder of a study's work, or a copy of it, which may be without the networks' weights.
        figures: folder for tables and figures; a folder with the profile's name is made inside.

    Raises:
        InputError: no such folder, or no study has left its ``grid.json`` in it; or another version's.
    """
    store = RunStore(store)
    return StoredStudy(store, store.read_grid(), Path(figures))


@dataclass(frozen=True)
class Rebuilt:
    """What ``rebuild`` made, and what it could not.

    Attributes:
        saved: what was written. incomplete: names of files, or of outputs that are not made -> cells missing, needed.
        missing: text of a cell -> (why, the outputs that lack it).
    """

    folder: Path
    saved: list[Saved]
    incomplete: dict[str, tuple[int, int]]
    missing: dict[str, tuple[str, list[str]]]

    def __str__(self) -> str:
        made = {saved.name: "made" for saved in self.saved}
        states = made | {name: made.get(name, "not made") for name in self.incomplete}
        width = max(map(len, states), default=0)
        lines = [
            f"{name:{width}}  {state}" + ("" if name not in self.incomplete else _lacking(*self.incomplete[name]))
            for name, state in states.items()
        ]
        if self.missing:
            lines.append("\nmissing cells:")
            for cell, (why, outputs) in self.missing.items():
                lines += [_wrapped(f"{cell} ({', '.join(outputs)})"), _wrapped(why, 4, break_long_words=False)]
        lines.append("\nnot from run records, the notebooks make them:")
        elsewhere: dict[str, list[str]] = {}
        for name, one in OUTPUTS.items():
            if one.elsewhere:
                elsewhere.setdefault(one.notebook, []).append(name)
        lines += [_wrapped(f"{notebook}: {', '.join(names)}") for notebook, names in sorted(elsewhere.items())]
        return "\n".join([*lines, f"\n{self.folder}"])


def _gaps(lacks: Iterable[str], there: int) -> str:
    """What a caption says of cells that have no record: how many, and the first of them by name."""
    names = list(lacks)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"Incomplete: no record of {len(names)} of {len(names) + there} cells: {'; '.join(names[:_NAMED])}{more}."


def _lacking(missing: int, needed: int) -> str:
    return f", {missing} of {needed} cells missing"


def _wrapped(text: str, indent: int = 2, **options) -> str:
    return fill(text, 79, initial_indent=" " * indent, subsequent_indent="    ", **options)


def rebuild(study: StoredStudy, protocol: str = "last") -> Rebuilt:
    """Every table and figure that a store of run records allows, into ``study.figures``.

    One that lacks some of its cells is made from the others, with gaps; one that lacks all is not made. The long table
    of all results (``long.write_results``) goes with them.
    """
    saved, incomplete, missing = [], {}, {}
    for name, one in sorted(OUTPUTS.items(), key=lambda item: item[1].notebook):
        if one.elsewhere:
            continue
        records, lacks = study.records(*one.sources), {}
        for source in one.sources:
            lacks |= study.missing[source]
            for cell, why in study.missing[source].items():
                needed_by = missing.setdefault(cell, (why, []))[1]
                if source not in needed_by:
                    needed_by.append(source)
        if one.sources and not records:
            incomplete[name] = len(lacks), len(lacks)
            continue
        made = study.results(name, **({"protocol": protocol} if one.has_protocol else {}))
        for result in made if isinstance(made, tuple) else (made,):
            for part in filter(None, (result, result.picture)):
                if lacks:
                    incomplete[part.name] = len(lacks), len(lacks) + len(records)
                    part = replace(part, caption=f"{part.caption} {_gaps(lacks, len(records))}")
                saved.append(part.save())
    write_results(study.figures, study.store)
    return Rebuilt(study.figures, saved, incomplete, missing)
