"""``report.html``: all executed notebooks in one self-contained page, with an index of tables and figures on top.

No scripts and nothing from the network: pictures are embedded, code is folded behind a ``details`` element, and the
page prints. Files beside the page (csv, md, svg) are linked relatively: it reads alone and can be followed in place.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from ..errors import InputError
from ..files import atomic_file
from ..progress import clock
from .reproduce import clean_notebook

_CODE = '<details class="code">'
_CELL = (
    """{% extends 'basic/index.html.j2' %}
{% block input_group %}"""
    + _CODE
    + """<summary>code</summary>{{ super() }}</details>{% endblock input_group %}
{% block output_prompt %}{% endblock output_prompt %}
{% block in_prompt %}{% endblock in_prompt %}
"""
)

_STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --line: #d9dee5; --link: #0b57a4; --ground: #ffffff; --tint: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: var(--ground);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
a { color: var(--link); } h1, h2, h3 { line-height: 1.25; } h1 { font-size: 1.7rem; }
h2 { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); } h3 { margin-top: 2rem; }
section.notebook { margin-top: 3rem; border-top: 3px solid var(--ink); }
section.notebook h1 { font-size: 1.45rem; } section.notebook h2 { border: 0; padding: 0; font-size: 1.15rem; }
p.note { color: var(--soft); } img, svg { max-width: 100%; height: auto; }
.scroll, .jp-OutputArea-output, .output_html { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td[style*="right"], th[style*="right"], table.dataframe td, table.dataframe th { text-align: right; }
table.dataframe tbody th { text-align: left; } thead th { border-bottom: 2px solid var(--soft); }
table.dataframe td:first-child, table.dataframe th:first-child { text-align: left; }
td.files { white-space: nowrap; } td.files a { margin-right: .6rem; } figure { margin: 1rem 0; }
pre { overflow-x: auto; padding: .6rem .8rem; background: var(--tint); font-size: .82rem; line-height: 1.4; }
code { font-size: .88em; } details.code { margin: .35rem 0; color: var(--soft); }
details.code summary { cursor: pointer; font-size: .8rem; } .anchor-link, .prompt { display: none; }
@media print { details.code { display: none; } h2 { break-before: page; } }
"""


def write_report(path: str | os.PathLike, notebooks: list[Path], figures: Path, summary: dict) -> Path:
    """Write the page and return its path.

    Args:
        path: where to write it, atomically.
        notebooks: executed notebooks, in reading order.
        figures: folder of this run's tables (``.md`` and ``.csv``) and figures (``.png``, ``.svg``, ``.csv``); files
            with one stem are one entry. May be empty or missing.
        summary: what ``reproduce`` recorded: profile, seconds, versions, one entry a notebook.

    Raises:
        InputError: a notebook is missing or unreadable.
    """
    path = Path(path)
    entries = _entries(figures)
    sections = [_section(notebook) for notebook in notebooks]
    unseen = _anchor(entries, sections)
    page = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>AU-DFER, {html.escape(summary['profile'])} profile</title>",
            f"<style>{_STYLE}{HtmlFormatter().get_style_defs('.highlight')}</style></head><body>",
            _head(summary),
            _index(entries, path.parent),
            _notebook_list(notebooks, sections, summary),
            *[
                f'<section class="notebook" id="nb-{_slug(notebook.stem)}">\n'
                f'<p class="note">{html.escape(notebook.stem)}</p>\n{body}</section>'
                for notebook, (_, body) in zip(notebooks, sections, strict=True)
            ],
            '<h2 id="further">Further tables and figures</h2>' if unseen else "",
            *[_entry(stem, entries[stem]) for stem in unseen],
            "</body></html>",
        ]
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _entries(folder: Path) -> dict[str, dict[str, Path]]:
    """Stem -> {suffix: file}, in the order of the index; only stems with something to show."""
    files: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.glob("*")) if folder.is_dir() else []:
        if file.suffix in (".csv", ".md", ".png", ".svg", ".json"):
            files.setdefault(file.stem, {})[file.suffix.lstrip(".")] = file
    shown = {stem: kinds for stem, kinds in files.items() if "png" in kinds or "md" in kinds}
    return dict(sorted(shown.items(), key=lambda item: _order(item[0])))


def _anchor(entries: dict[str, dict[str, Path]], sections: list[tuple[str, str]]) -> list[str]:
    """Put an anchor where a notebook shows an entry, so that none is embedded twice; returns stems shown nowhere."""
    unseen = []
    for stem, files in entries.items():
        picture = base64.b64encode(files["png"].read_bytes()).decode() if "png" in files else None
        for number, (title, body) in enumerate(sections):
            # a saved table names its files below it, a saved figure is in the page byte for byte
            place = body.find(picture) if picture else body.find(f"{stem}.md")
            if place >= 0:
                cell = max(0, body.rfind(_CODE, 0, place))
                sections[number] = title, f'{body[:cell]}<span id="r-{_slug(stem)}"></span>{body[cell:]}'
                break
        else:
            unseen.append(stem)
    return unseen


def _order(stem: str) -> tuple:
    """The paper's tables, then its figures by number (fig8 before fig10), then the rest by name."""
    numbered = re.match(r"(table|fig)(\d+)", stem)
    if numbered is None:
        return 2, 0, stem
    return int(numbered[1] == "fig"), int(numbered[2]), stem


def _slug(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "-", text)


def _caption(stem: str, files: dict[str, Path]) -> str:
    """What made the files says what they show (``<stem>.json``); without it a table's first line, else the stem."""
    if "json" in files:
        try:
            about = json.loads(files["json"].read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(files["json"], "content", error, "JSON") from None
        if isinstance(about, dict) and about.get("caption"):
            return about["caption"]
    if "md" in files:
        lines = files["md"].read_text(encoding="utf-8").splitlines()
        lines = [re.sub(r"[*`]", "", line).strip("# ") for line in lines]
        first = next((line for line in lines if line), "|")
        if not first.startswith("|"):
            return first
    return stem.replace("_", " ")


def _first_sentence(text: str) -> str:
    text = re.sub(r"^(Table|Figure|Fig\.) \d+[a-z]?[.:] ", "", text.strip())
    sentence = re.split(r"(?<!\bFig)(?<!\bEq)(?<!\bEqs)(?<!\bsec)(?<!\bvs)\. ", text, maxsplit=1)[0].rstrip(".")
    return sentence if len(sentence) <= 160 else sentence[:157].rsplit(" ", 1)[0] + " ..."


def _head(summary: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    source = (
        "<p><strong>The input is the embedded benchmark: rendered face clips, not DFEW, FERV39k or MAFW."
        "</strong> The paper's printed numbers stand beside ours to show which table is meant; they are not "
        "comparable.</p>"
        if summary.get("embedded")
        else ""
    )
    return (
        f"<h1>Action Unit Enhance Dynamic Facial Expression Recognition: tables and figures</h1>\n{source}\n"
        f'<p class="note">Profile <code>{html.escape(summary["profile"])}</code>: '
        f"{html.escape(summary['profile_summary'])}. Made in {clock(summary['seconds'])}, "
        f"{html.escape(summary['finished'])}, on {html.escape(summary['machine'])}; {html.escape(versions)}.</p>"
    )


def _index(entries: dict[str, dict[str, Path]], base: Path) -> str:
    if not entries:
        return '<h2 id="index">Index</h2><p>This run wrote no tables or figures.</p>'
    rows = []
    for stem, files in entries.items():
        links = " ".join(
            f'<a href="{quote(os.path.relpath(file, base))}">{kind}</a>'
            for kind, file in sorted(files.items())
            if kind != "json"
        )
        rows.append(
            f'<tr><td><a href="#r-{_slug(stem)}">{html.escape(stem)}</a></td>'
            f"<td>{html.escape(_first_sentence(_caption(stem, files)))}</td>"
            f'<td class="files">{links}</td></tr>'
        )
    return (
        '<h2 id="index">Index of tables and figures</h2>\n<div class="scroll"><table><thead><tr><th>name</th>'
        "<th>what it shows</th><th>files</th></tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _notebook_list(notebooks: list[Path], sections: list[tuple[str, str]], summary: dict) -> str:
    runs = {run["name"]: run for run in summary["notebooks"]}
    rows = []
    for notebook, (title, _) in zip(notebooks, sections, strict=True):
        run = runs.get(notebook.stem)
        numbers = [clock(run["seconds"]), len(run["tables"]), len(run["figures"])] if run else ["", "", ""]
        rows.append(
            f'<tr><td><a href="#nb-{_slug(notebook.stem)}">{html.escape(notebook.stem)}</a></td>'
            f"<td>{html.escape(title)}</td>" + "".join(f"<td>{number}</td>" for number in numbers) + "</tr>"
        )
    return (
        '<h2 id="notebooks">Notebooks</h2>\n<div class="scroll"><table><thead><tr><th>notebook</th><th>title</th>'
        "<th>time</th><th>tables</th><th>figures</th></tr></thead><tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _entry(stem: str, files: dict[str, Path]) -> str:
    parts = [f'<h3 id="r-{_slug(stem)}">{html.escape(stem)}</h3>']
    if "png" in files:
        picture = files["png"].read_bytes()
        # saved at 200 dpi, shown at 100: sharp on every screen, and never wider than the page
        width = int.from_bytes(picture[16:20], "big") // 2
        data = base64.b64encode(picture).decode()
        title = html.escape(_caption(stem, files))
        parts.append(
            f'<figure><img alt="{title}" style="width:{width}px" src="data:image/png;base64,{data}">'
            f"<figcaption>{title}</figcaption></figure>"
        )
    if "md" in files:
        parts.append(f'<div class="scroll">{markdown2html(files["md"].read_text(encoding="utf-8"))}</div>')
    return "\n".join(parts)


def _section(notebook: Path) -> tuple[str, str]:
    """Title and HTML of one executed notebook: results open, code folded, progress lines left out."""
    try:
        content = clean_notebook(nbformat.read(notebook, as_version=4))
    except (OSError, nbformat.reader.NotJSONError) as error:
        raise InputError(notebook, "notebook", type(error).__name__, "an executed notebook") from None
    title = next(
        (
            line.lstrip("# ").strip()
            for cell in content.cells
            if cell.cell_type == "markdown"
            for line in cell.source.splitlines()
            if line.startswith("# ")
        ),
        notebook.stem,
    )
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"audfer.html.j2": _CELL})], template_file="audfer.html.j2", sanitize_html=False
    )
    body, _ = exporter.from_notebook_node(content)
    return title, body
