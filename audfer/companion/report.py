"""``report.html``: all executed notebooks in one self-contained page, with an index of tables and figures on top.

No scripts and nothing from the network: pictures are embedded, code is folded behind a ``details`` element, and the
page prints. Files beside the page (csv, md, svg) are linked relatively: it reads alone and can be followed in place.
How it looks stands in ``templates/``.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from ..errors import InputError
from ..files import atomic_file
from ..progress import clock
from ..results.provenance import first_sentence
from .notebooks import clean_notebook, read_notebook

_TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")
#: what a cell begins with in the page
_CELL = '<details class="code">'


@dataclass
class _Entry:
    """A table or figure: the files with one stem, by suffix."""

    stem: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def order(self) -> tuple:
        """The paper's tables, then its figures by number (fig8 before fig10), then the rest by name."""
        numbered = re.match(r"(table|fig)(\d+)", self.stem)
        return (int(numbered[1] == "fig"), int(numbered[2]), self.stem) if numbered else (2, 0, self.stem)

    @cached_property
    def picture(self) -> str:
        """The figure as base64; "" for a table."""
        return base64.b64encode(self.files["png"].read_bytes()).decode() if "png" in self.files else ""

    @property
    def width(self) -> int:
        """In pixels: saved at 200 dpi and shown at 100, sharp on every screen."""
        return int.from_bytes(self.files["png"].read_bytes()[16:20], "big") // 2

    @cached_property
    def caption(self) -> str:
        """What made the files says what they show (``<stem>.json``); without it a table's first line, else the stem."""
        if "json" in self.files:
            try:
                about = json.loads(self.files["json"].read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(self.files["json"], "content", error, "JSON") from None
            if isinstance(about, dict) and about.get("caption"):
                return about["caption"]
        if "md" in self.files:
            lines = re.sub(r"[*`]", "", self.files["md"].read_text(encoding="utf-8")).splitlines()
            first = next((words for line in lines if (words := line.strip("# "))), "|")
            if not first.startswith("|"):
                return first
        return self.stem.replace("_", " ")

    @property
    def first_sentence(self) -> str:
        return first_sentence(self.caption)

    def links(self, folder: Path) -> list[tuple[str, str]]:
        """Kind and relative address of each file, for a page in a folder."""
        kinds = sorted(self.files.keys() - {"json"})
        return [(kind, quote(os.path.relpath(self.files[kind], folder))) for kind in kinds]


def write_report(path: str | os.PathLike, notebooks: list[Path], figures: Path, summary: dict) -> Path:
    """Write the page and return its path.

    Args:
        path: where to write it, atomically.
        notebooks: executed notebooks, in reading order.
        figures: folder of this run's tables (``.md`` and ``.csv``) and figures (``.png``, ``.svg``, ``.csv``); files
            with one stem are one entry. May be empty or missing.
        summary: what ``reproduce`` recorded: profile, seconds, versions, one entry per notebook.

    Raises:
        InputError: a notebook is missing or unreadable.
    """
    path, entries = Path(path), _entries(figures)
    sections = {notebook.stem: _section(notebook) for notebook in notebooks}
    further = [entry for entry in entries if not _anchor(entry, sections)]
    environment = Environment(loader=_TEMPLATES, autoescape=True)
    environment.filters.update(clock=clock, slug=_slug, markdown=markdown2html)
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        entries=entries,
        further=further,
        folder=path.parent,
        notebooks=[(name, *section) for name, section in sections.items()],
        runs={run["name"]: run for run in summary["notebooks"]},
        code_style=HtmlFormatter().get_style_defs(".highlight"),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _entries(folder: Path) -> list[_Entry]:
    """In the order of the index; only those with something to show."""
    entries: dict[str, _Entry] = {}
    for file in folder.glob("*"):
        if file.suffix in (".csv", ".md", ".png", ".svg", ".json"):
            entries.setdefault(file.stem, _Entry(file.stem)).files[file.suffix[1:]] = file
    shown = (entry for entry in entries.values() if {"png", "md"} & entry.files.keys())
    return sorted(shown, key=lambda entry: entry.order)


def _anchor(entry: _Entry, sections: dict[str, tuple[str, str]]) -> bool:
    """Put an anchor where a notebook shows an entry, so that it is embedded once; returns whether one does."""
    for name, (title, body) in sections.items():
        # a saved table names its files below it, a saved figure is in the page byte for byte
        place = body.find(entry.picture or f"{entry.stem}.md")
        if place >= 0:
            cell = max(0, body.rfind(_CELL, 0, place))
            sections[name] = title, f'{body[:cell]}<span id="r-{_slug(entry.stem)}"></span>{body[cell:]}'
            return True
    return False


def _slug(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", text)


def _section(path: Path) -> tuple[str, str]:
    """Title and HTML of one executed notebook: results open, code folded, progress lines left out."""
    content = clean_notebook(read_notebook(path))
    words = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    title = re.search(r"^# +(.*)", words, re.MULTILINE)
    exporter = HTMLExporter(extra_loaders=[_TEMPLATES], template_file="notebook.html.j2", sanitize_html=False)
    body, _ = exporter.from_notebook_node(content)
    return title[1].strip() if title else path.stem, body
