"""The report of a run as a small site: ``report.html``, and beside it ``report/`` with its other pages.

Pages are read from disk, without a server and without the network. No page has a script, and none may run one: each
forbids it (Content-Security-Policy), and what notebooks show is cleaned of everything but text, tables and pictures.
Pictures lie in ``report/files``, once each; formulas are MathML. Tables and figures are linked where they lie
(csv, md, svg). How pages look stands in ``templates/``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

import bleach
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from ..errors import InputError
from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, EXPRESSIONS
from ..files import UNREADABLE, atomic_file, atomic_folder, read_csv
from ..progress import clock
from ..results.captions import first_sentence
from .notebooks import clean_notebook, read_notebook

_TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")
#: what a cell begins with in a page
_CELL = '<details class="code">'
#: file in the site's folder by which it is known as ours
_STAMP = ".site"
_TAGS = (
    *("a", "abbr", "b", "blockquote", "br", "code", "col", "colgroup", "dd", "del", "details", "div", "dl", "dt", "em"),
    *("figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "q"),
    *("s", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr"),
    *("tt", "u", "ul"),
)
_ATTRIBUTES = {
    "*": ["class", "id", "title"],
    "a": ["href"],
    "img": ["src", "alt", "width"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "ol": ["start"],
}
#: bytes from which a picture is worth making smaller
_LARGE = 250_000
_DATA = re.compile(r"data:image/(png|jpeg|gif|svg\+xml);base64,([A-Za-z0-9+/=\s]+)")
_IMAGE = re.compile(r'<img\b[^>]*? alt="([^"]+)"')
_NUMBER = re.compile(r"[<≤≥~±+−-]?\s*[\d.,]+(e[+-]?\d+)?\s*%?(\s*[\[(][^\])]*[\])])?|—|nan|", re.IGNORECASE)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", re.DOTALL)


@dataclass
class _Entry:
    """A table or figure: the files with one stem, by suffix; ``page`` is where it is shown, "" before that is known."""

    stem: str
    files: dict[str, Path] = field(default_factory=dict)
    page: str = ""

    @property
    def order(self) -> tuple:
        """The paper's tables, then its figures by number (fig8 before fig10), then the rest by name."""
        numbered = re.match(r"(table|fig)(\d+)", self.stem)
        return (int(numbered[1] == "fig"), int(numbered[2]), self.stem) if numbered else (2, 0, self.stem)

    @cached_property
    def picture(self) -> bytes:
        """The figure's png; empty for a table."""
        return self.files["png"].read_bytes() if "png" in self.files else b""

    @property
    def width(self) -> int:
        """In pixels: saved at 200 dpi and shown at 100, sharp on every screen."""
        return int.from_bytes(self.picture[16:20], "big") // 2

    @cached_property
    def caption(self) -> str:
        """What made the files says what they show (``<stem>.json``); without it a table's first line, else the stem."""
        if "json" in self.files:
            try:
                about = json.loads(self.files["json"].read_text(encoding="utf-8"))
            except UNREADABLE as error:
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

    @property
    def link(self) -> str:
        """Where it is shown, from a page in ``report/``."""
        return f"{quote(self.page)}#r-{_slug(self.stem)}"

    def links(self, folder: Path) -> list[tuple[str, str]]:
        """Kind and relative address of each file, for a page in a folder."""
        kinds = sorted(self.files.keys() - {"json"})
        return [(kind, quote(os.path.relpath(self.files[kind], folder))) for kind in kinds]


@dataclass
class _Page:
    """One page of ``report/``."""

    name: str
    title: str
    short: str
    body: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}.html"

    @property
    def headings(self) -> list[tuple[str, str]]:
        """Identifier and text of its second-level headings, for its table of contents."""
        found = re.findall(r'<h2[^>]* id="([^"]+)"[^>]*>(.*?)</h2>', self.body, re.DOTALL)
        return [(name, unescape(re.sub(r"<a [^>]*>.*?</a>|<[^>]+>", "", text)).strip()) for name, text in found]


def write_report(path: str | os.PathLike, notebooks: list[Path], figures: Path, summary: dict) -> Path:
    """Write the site and return the path of its first page.

    Args:
        path: its first page; the others go into the folder with that name and no suffix, which is replaced as a whole.
        notebooks: executed notebooks, in reading order.
        figures: folder of this run's tables (``.md`` and ``.csv``) and figures (``.png``, ``.svg``, ``.csv``); files
            with one stem are one entry. May be empty or missing.
        summary: what ``reproduce`` recorded: profile, seconds, versions, one entry per notebook.

    Raises:
        InputError: a notebook is missing or unreadable.
    """
    path, entries = Path(path), _entries(figures)
    site = path.with_suffix("")
    environment = Environment(loader=_TEMPLATES, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(clock=clock, slug=_slug, address=quote)
    with atomic_folder(site, _STAMP) as folder:
        (folder / _STAMP).touch()
        pictures = _Pictures(folder / "files")
        pages = [_page(notebook, pictures) for notebook in notebooks]
        for page in pages:
            page.body = _linked(page.body, {page.name for page in pages})
        shown = _anchor(entries, pages)
        explored = explorer(figures)
        further = [entry for entry in entries if not shown[entry.stem]]
        for entry in further:
            entry.page = "further.html"
        common = {
            "summary": summary,
            "entries": entries,
            "notebooks": pages,
            "runs": {run["name"]: run for run in summary["notebooks"]},
            "explored": explored is not None,
            "further": further,
            "code_style": HtmlFormatter().get_style_defs(".highlight"),
            "pictures": pictures,
            "folder": site,
        }

        def write(name: str, template: str, **more) -> None:
            page = environment.get_template(template).render(**common, here=name, **more)
            (folder / name).write_text(page, encoding="utf-8")

        for number, page in enumerate(pages):
            beside = {"before": pages[number - 1] if number else None, "after": (pages[number + 1 :] or [None])[0]}
            write(page.file, "page.html.j2", page=page, **beside)
        write("gallery.html", "gallery.html.j2")
        if explored is not None:
            write("fig4.html", "fig4.html.j2", matrices=explored, picture=_named(entries, "fig4_knowledge"))
        if further:
            tables = {entry.stem: _table(entry) for entry in further if "md" in entry.files}
            write("further.html", "further.html.j2", tables=tables)
        first = environment.get_template("index.html.j2").render(
            **common,
            here="",
            answers=_answers(figures),
            lead=_named(entries, "table1_plot"),
            results=[entry for entry in entries if entry.order[0] < 2],
        )
    with atomic_file(path) as temporary:
        temporary.write_text(first, encoding="utf-8")
    return path


def _entries(folder: Path) -> list[_Entry]:
    """In the order of the index; only those with something to show."""
    entries: dict[str, _Entry] = {}
    for file in folder.glob("*"):
        if file.suffix in (".csv", ".md", ".png", ".svg", ".json"):
            entries.setdefault(file.stem, _Entry(file.stem)).files[file.suffix[1:]] = file
    shown = (entry for entry in entries.values() if {"png", "md"} & entry.files.keys())
    return sorted(shown, key=lambda entry: entry.order)


def _named(entries: Iterable[_Entry], stem: str) -> _Entry | None:
    return next((entry for entry in entries if entry.stem == stem), None)


def _anchor(entries: list[_Entry], pages: list[_Page]) -> dict[str, bool]:
    """Put an anchor where a notebook shows an entry; returns which of them one does."""
    shown = dict.fromkeys((entry.stem for entry in entries), False)
    for entry in entries:
        for page in pages:
            if entry.picture:  # a notebook's copy of it has fewer bytes and the same words
                places = (found.start() for found in _IMAGE.finditer(page.body) if unescape(found[1]) == entry.caption)
                place = next(places, -1)
            else:  # a saved table names its files below it
                place = page.body.find(f"{entry.stem}.md")
            if place >= 0:
                cell = max(0, page.body.rfind(_CELL, 0, place))
                page.body = f'{page.body[:cell]}<span id="r-{_slug(entry.stem)}"></span>{page.body[cell:]}'
                entry.page, shown[entry.stem] = page.file, True
                break
    return shown


def _slug(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", text)


def _answers(figures: Path) -> list[tuple[str, str]]:
    """Questions and what the tables answer, in sentences: the verdict."""
    answers = []
    for name in ("conclusions", "ablation_conclusions"):
        path = figures / f"{name}.csv"
        if path.is_file():
            answers += read_csv(path)[["question", "answer"]].fillna("").itertuples(index=False, name=None)
    return list(dict.fromkeys(answers))  # what both say stands there once


# ------------------------------------------------------------------------------------------------------------ notebooks


class _Pictures:
    """Pictures of the site, each written once under a name made of its content; large ones as WebP."""

    def __init__(self, folder: Path):
        self.folder = folder
        #: digest of a picture's content, and whether it is the small copy -> its address from a page in ``report/``
        self.known: dict[tuple[str, bool], str] = {}

    def add(self, content: bytes, kind: str = "png", small: bool = False) -> str:
        """Keep a picture, or a small copy of it; returns its address."""
        digest = hashlib.sha256(content).hexdigest()
        if (digest, small) not in self.known:
            if small or len(content) > _LARGE:
                content, kind = _webp(content, kind, small)
            self.known[digest, small] = f"files/{digest[:16]}{'s' * small}.{kind}"
            self.folder.mkdir(exist_ok=True)
            (self.folder.parent / self.known[digest, small]).write_bytes(content)
        return self.known[digest, small]

    def taken_out(self, html: str) -> str:
        """HTML whose embedded pictures lie in files."""
        return _DATA.sub(
            lambda found: self.add(
                base64.b64decode(found[2]), {"jpeg": "jpg", "svg+xml": "svg"}.get(found[1], found[1])
            ),
            html,
        )


def _webp(content: bytes, kind: str, small: bool) -> tuple[bytes, str]:
    """A picture as WebP, if that is smaller and it can be read; a small copy is at most 640 pixels wide."""
    from ..datasets.manifest import IMAGE_ERRORS, open_image

    target = io.BytesIO()
    try:
        with open_image(io.BytesIO(content)) as picture:
            picture = picture.convert("RGB")
            if small:
                picture.thumbnail((640, 640))
            picture.save(target, "webp", quality=80 if small else 88, method=2)
    except IMAGE_ERRORS:
        return content, kind
    return (target.getvalue(), "webp") if target.tell() < len(content) else (content, kind)


def _page(path: Path, pictures: _Pictures) -> _Page:
    """One executed notebook: results open, code folded, progress lines left out, nothing in it that could run."""
    content = clean_notebook(read_notebook(path))
    words = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    title = re.search(r"^# +(.*)", words, re.MULTILINE)
    formulas = _Formulas()
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas.taken_out(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = pictures.taken_out(data["text/html"])
            elif "image/png" in data:
                address = pictures.add(base64.b64decode(data.pop("image/png")))
                data["text/html"] = f'<img src="{address}" alt="{escape(str(data.get("text/plain", "")), quote=True)}">'
    exporter = HTMLExporter(extra_loaders=[_TEMPLATES], template_file="notebook.html.j2", sanitize_html=False)
    body, _ = exporter.from_notebook_node(content)
    body = formulas.put_back(_tables(_cleaned(body)))
    return _Page(path.stem, title[1].strip() if title else path.stem, path.stem.split("_")[0], body)


def _cleaned(html: str) -> str:
    """HTML without anything that could run, load or restyle; a picture's width in its style becomes an attribute."""
    html = re.sub(r"""(<img\b[^>]*?)style=['"]width:(\d+)px[^'"]*['"]""", r'\1width="\2"', html)
    html = re.sub(r"<(script|style)\b.*?</\1\s*>", "", html, flags=re.DOTALL | re.IGNORECASE)
    clean = bleach.clean(html, _TAGS, _ATTRIBUTES, ["http", "https", "mailto"], strip=True)
    return re.sub(r'<img\b(?![^>]* src="files/)[^>]*>', "", clean)  # pictures of elsewhere cannot be shown


def _linked(html: str, names: set[str]) -> str:
    """Links to notebooks lead to their pages; what leads to other files of the repository is plain text here."""

    def address(found: re.Match) -> str:
        target = unescape(found[1])
        if re.match(r"\w+:|#", target):
            return found[0]
        stem = Path(target.partition("#")[0]).stem
        return f' href="{quote(stem)}.html"' if stem in names else ""

    return re.sub(r'(?<=<a) href="([^"]*)"', address, html)


class _Formulas:
    """LaTeX in Markdown, set aside before anything reads it, and put back as MathML."""

    def __init__(self):
        self.made: list[str] = []

    def taken_out(self, markdown: str) -> str:
        """Markdown with a mark for each formula; code stays as it is."""
        parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
        return "".join(part if part.startswith("`") else _MATH.sub(self._mark, part) for part in parts)

    def _mark(self, found: re.Match) -> str:
        latex, display = (found[1], "block") if found[1] else (found[2], "inline")
        try:
            made = mathml(latex.strip(), display=display)
        except Exception:  # of many kinds: what it cannot read is shown as it was written
            made = f"<code>{escape(latex)}</code>"
        self.made.append(made)
        return f"auformula{len(self.made) - 1}x"

    def put_back(self, html: str) -> str:
        """HTML with the formulas."""
        return re.sub(r"auformula(\d+)x", lambda found: self.made[int(found[1])], html)


def _tables(html: str) -> str:
    """Tables that scroll by themselves, their columns of numbers to the right and never broken."""
    return re.sub(
        r"<table\b.*?</table>", lambda found: f'<div class="scroll">{_aligned(found[0])}</div>', html, flags=re.DOTALL
    )


def _aligned(table: str) -> str:
    rows = re.findall(r"<tr\b.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<(t[dh])\b[^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    width = max(map(len, cells), default=0)
    texts = [
        [
            unescape(re.sub("<[^>]+>", "", row[column][1])).strip()
            for row in cells
            if len(row) == width and row[column][0] == "td"
        ]
        for column in range(width)
    ]
    numeric = [any(column) and all(_NUMBER.fullmatch(text) for text in column) for column in texts]
    kinds = [
        "n" if numbers else "t" if max(map(len, column), default=99) <= 16 else ""
        for numbers, column in zip(numeric, texts, strict=True)
    ]
    if not any(kinds):
        return table

    def row(found: re.Match) -> str:
        number = iter(range(width))

        def cell(one: re.Match) -> str:
            at = next(number, width)
            return f'<{one[1]} class="{kinds[at]}"{one[2]}>' if at < width and kinds[at] else one[0]

        return re.sub(r"<(t[dh])\b([^>]*)>", cell, found[0])

    return re.sub(r"<tr\b.*?</tr>", row, table, flags=re.DOTALL)


def _table(entry: _Entry) -> str:
    """A table's Markdown as HTML, without its caption."""
    return _tables(_cleaned(markdown2html(entry.files["md"].read_text(encoding="utf-8"))))


# -------------------------------------------------------------------------------------------------------- Fig. 4


def explorer(figures: Path) -> list[dict] | None:
    """The matrices of Fig. 4 to look into, each with its cells and what lies behind them; ``None`` without its numbers.

    Args:
        figures: with ``fig4_knowledge.csv`` and, for what lies behind a cell, ``knowledge_by_dataset.csv`` (medians of
            intensity) and ``class_frequencies.csv`` (clips).
    """
    from ..knowledge import KnowledgeMatrix  # brings torch, which no other page needs

    try:
        values = read_csv(figures / "fig4_knowledge.csv")
        medians = read_csv(figures / "knowledge_by_dataset.csv")
        counts = read_csv(figures / "class_frequencies.csv").set_index(["dataset", "expression"])["clips"]
        names = list(dict.fromkeys(values["source"]))
        matrices = [{"name": name, "rows": values[values["source"] == name]} for name in names]
        release = KnowledgeMatrix.release().to_frame().reset_index().melt("expression", var_name="action_unit")
        matrices.append({"name": "release", "rows": release})
        for path in sorted(figures.glob("real*knowledge.csv")):
            own = read_csv(path)
            matrices.append({"name": f"your own ({path.stem})", "rows": own[own["source"] == "ours"]})
        matrices += [
            {"name": f"{name} alone", "rows": medians[medians["source"] == name]}
            for name in dict.fromkeys(medians["source"])
        ]
        for matrix in matrices:
            table = matrix.pop("rows").pivot_table(
                index="expression", columns="action_unit", values="value", sort=False
            )
            units = [au for au in ACTION_UNITS if au in table]
            low, high = float(table.min().min()), float(table.max().max())
            matrix["units"] = [(au, ACTION_UNIT_NAMES[au]) for au in units]
            matrix["lines"] = [
                (
                    expression,
                    [_looked(expression, au, table.loc[expression, au], (low, high), medians, counts) for au in units],
                )
                for expression in EXPRESSIONS
                if expression in table.index
            ]
            matrix["id"] = _slug(matrix["name"])
    except (OSError, ValueError, KeyError):
        return None
    return matrices


def _looked(expression: str, au: str, value: float, span: tuple, medians: pd.DataFrame, counts: pd.Series) -> dict:
    """A cell: its text, its shade from 0 to 8, and what lies behind it."""
    if pd.isna(value):
        return {"text": "", "shade": 0, "behind": f"{au} with {expression}: no intensity known"}
    share = (value - span[0]) / ((span[1] - span[0]) or 1.0)
    own = medians[(medians["expression"] == expression) & (medians["action_unit"] == au)]
    behind = [f"{au} {ACTION_UNIT_NAMES[au]}, {expression}: {value:.2f}"]
    for row in own.itertuples():
        clips = counts.get((row.source, expression))
        behind.append(f"{row.source}: {row.value:.2f}" + (f" from {clips:.0f} clips" if clips is not None else ""))
    return {"text": f"{value:.2f}", "shade": round(8 * share), "behind": "; ".join(behind)}
