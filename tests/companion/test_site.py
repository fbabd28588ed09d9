"""The report as a site: every link leads somewhere, nothing runs, pages are small, tables and formulas readable."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from paths import ROOT

from audfer.companion.report import _answers, explorer, write_report
from audfer.errors import InputError

SUMMARY = {
    "profile": "laptop+training.epochs=20",
    "profile_summary": "x",
    "embedded": True,
    "finished": "today",
    "seconds": 1,
    "machine": "m",
    "versions": {},
    "notebooks": [],
}
PIXELS = b"\x89PNG\r\n\x1a\n" + bytes(200)


class Reader(HTMLParser):
    """Tags, identifiers, addresses and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.addresses, self.handlers = set(), set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            if name in ("href", "src"):
                self.addresses.append(value)
            if name.startswith("on") or (value or "").lower().startswith("javascript:"):
                self.handlers.append((tag, name, value))


def dead_links(first: Path) -> list[str]:
    """Walk the site from its first page; returns addresses that lead nowhere."""
    dead, todo, seen = [], [first], {}
    while todo:
        page = todo.pop()
        seen[page] = Reader(page.read_text(encoding="utf-8"))
        for address in seen[page].addresses:
            path, _, fragment = address.partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (page.parent / unquote(path)).resolve() if path else page
            if not target.is_file():
                dead.append(f"{page.name}: {address}")
            elif target.suffix == ".html":
                if target not in seen and target not in todo:
                    todo.append(target)
                if fragment:
                    reader = seen.get(target) or Reader(target.read_text(encoding="utf-8"))
                    if not {fragment, unquote(fragment)} & reader.ids:
                        dead.append(f"{page.name}: {address}")
    return dead


def notebook_of(path: Path, *cells) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def html_cell(source: str, html: str):
    return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("display_data", {"text/html": html})])


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The site of the committed notebooks and figures."""
    place = tmp_path_factory.mktemp("work") / "laptop"
    place.mkdir()
    notebooks = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    notebooks = [path for path in notebooks if ".ipynb_checkpoints" not in path.parts]
    return write_report(place / "report.html", notebooks, ROOT / "figures" / "laptop", SUMMARY)


def test_no_link_of_the_committed_site_is_dead_and_no_page_is_large(committed):
    assert dead_links(committed) == []
    pages = [committed, *committed.with_suffix("").glob("*.html")]
    assert len(pages) >= 8 + 3 and max(page.stat().st_size for page in pages) < 1_000_000
    pictures = committed.with_suffix("") / "files"
    for page in pages:  # with the pictures that it shows
        shown = {Path(address).name for address in Reader(page.read_text()).addresses if "files/" in address}
        whole = page.stat().st_size + sum((pictures / name).stat().st_size for name in shown)
        assert whole < 3_000_000, page.name
    assert not (committed.with_suffix("") / "further.html").exists()  # a notebook shows every one


def test_what_two_tables_answer_in_the_same_words_stands_there_once(tmp_path):
    for name, second in (("conclusions", "a"), ("ablation_conclusions", "b")):
        (tmp_path / f"{name}.csv").write_text(f"question,answer\nCan it tell?,Yes.\nHow sure is that?,{second}\n")
    answers = _answers(tmp_path)
    assert answers == [("Can it tell?", "Yes."), ("How sure is that?", "a"), ("How sure is that?", "b")]


def test_every_page_forbids_scripts_and_has_none(committed):
    for page in (committed, *committed.with_suffix("").glob("*.html")):
        text = page.read_text()
        assert "default-src 'none'" in text and "script-src" not in text and "unsafe-eval" not in text
        reader = Reader(text)
        assert not reader.tags & {"script", "iframe", "object", "embed", "form", "base"} and not reader.handlers


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>a</a>",
        "<svg onload=alert(1)></svg>",
        "<iframe src='https://a.example'></iframe>",
        "<style>body{display:none}</style>",
        "</div></main><form action=x><base href='https://a.example/'>",
        "<scr<script>x</script>ipt>alert(1)</script>",
    ],
)
def test_what_a_notebook_shows_cannot_run(tmp_path, evil):
    """As a parameter of a notebook, its output, its Markdown, a caption, a name of the run."""
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "fig5_x.png").write_bytes(PIXELS)
    (figures / "fig5_x.json").write_text(json.dumps({"caption": f"{evil}. More {evil}."}))
    (figures / "table9_x.md").write_text(f"{evil}\n\n| a |\n| --- |\n| {evil} |\n")
    pd.DataFrame({"question": [evil], "answer": [evil]}).to_csv(figures / "conclusions.csv")
    printed = nbformat.v4.new_output("stream", name="stdout", text=evil)
    notebook = notebook_of(
        tmp_path / "n.ipynb",
        nbformat.v4.new_markdown_cell(f"# Title {evil}\n\n## Part {evil}\n\n{evil} and $x {evil}$"),
        nbformat.v4.new_code_cell(f"name = {evil!r}", outputs=[printed]),
        html_cell("show", evil),
    )
    first = write_report(tmp_path / "report.html", [notebook], figures, SUMMARY | {"profile": evil, "machine": evil})
    for page in (first, *first.with_suffix("").glob("*.html")):
        reader = Reader(page.read_text())
        assert not reader.handlers and not reader.tags & {"script", "iframe", "form", "base", "svg"}
        assert not any(address.startswith(("x", "https://a")) for address in reader.addresses)
        assert "display:none}" not in re.sub(
            r"<code>.*?</code>|<pre>.*?</pre>", "", page.read_text(), flags=re.DOTALL
        ) or ("style" in evil)


def test_a_table_or_figure_is_linked_where_a_notebook_shows_it(tmp_path):
    """A figure by its words: a notebook's copy of it has fewer bytes."""
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "fig5_ratio.png").write_bytes(PIXELS)
    caption = "Fig. 5. WAR against lambda of Eq. 10 on Fig. 4. More & 'more'."
    (figures / "fig5_ratio.json").write_text(json.dumps({"caption": caption}))
    copy = base64.b64encode(PIXELS + b"0").decode()
    picture = f"<img style='width:345px;max-width:100%' alt='{escape(caption)}' src='data:image/png;base64,{copy}'/>"
    for name in ("table10_x", "table2_y"):
        (figures / f"{name}.md").write_text(f"**{name}** in words\n\n| a |\n| --- |\n| 1 |\n")
    notebook = notebook_of(
        tmp_path / "n.ipynb",
        nbformat.v4.new_markdown_cell("# Title of it\n\n## Which?\n\n## And how?"),
        nbformat.v4.new_markdown_cell("[it](appendices/n.ipynb), [that](../README.md), [x](https://a.example)"),
        html_cell("show()", "<table></table><p>table2_y.csv, table2_y.md</p>"),
        html_cell("show()", picture),
    )
    first = write_report(tmp_path / "report.html", [notebook], figures, SUMMARY)
    text, page = first.read_text(), (tmp_path / "report/n.html").read_text()
    places = [
        text.index(f'href="report/{place}"')
        for place in ("n.html#r-table2-y", "further.html#r-table10-x", "n.html#r-fig5-ratio")
    ]
    assert places == sorted(places)  # the paper's tables, then its figures
    assert "<td>WAR against lambda of Eq. 10 on Fig. 4</td>" in text and "<td>Title of it</td>" in text
    assert 'href="figures/table2_y.md"' in text and "rendered face clips" in text
    assert page.index('id="r-table2-y"') < page.index("table2_y.csv") < page.index('id="r-fig5-ratio"')
    assert re.search(r'<img (?=[^>]*width="345")[^>]*src="files/\w+\.png"', page) and 'href="#And-how?' in page.replace(
        "%3F", "?"
    )
    kept = sorted(path.name for path in (tmp_path / "report/files").iterdir())
    assert len(kept) == 2 and sum("s.png" in name for name in kept) == 1  # and the small copy of the gallery
    assert '<a href="n.html">it</a>, <a>that</a>, <a href="https://a.example">x</a>' in page
    assert dead_links(first) == []


def test_columns_of_numbers_stand_to_the_right_and_are_not_broken(tmp_path):
    table = "<table><thead><tr><th>Network</th><th>WAR</th></tr></thead><tbody>" + "".join(
        f"<tr><td>{name}</td><td>{value}</td></tr>"
        for name, value in (("M3DFEL", "40.9 [35.7, 46.4]"), ("x", "&lt;0.001"), ("y", "—"), ("z", "+1.2 [-0.1, +3.0]"))
    )
    notebook = notebook_of(tmp_path / "n.ipynb", html_cell("show()", table + "</tbody></table>"))
    write_report(tmp_path / "report.html", [notebook], tmp_path / "none", SUMMARY)
    page = (tmp_path / "report/n.html").read_text()
    assert page.count('<td class="n">') == 4 and '<th class="n">WAR' in page and '<td class="t">M3DFEL' in page
    assert '<div class="scroll"><table>' in page


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        ("$$L = (1 - \\lambda) L_e$$", '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">'),
        ("the share $\\lambda$ of", 'display="inline"><mrow><mi>&#x003BB;'),
        ("`$HOME` and costs $5", "<code>$HOME</code> and costs $5"),
        ("$\\begin{matrix} a$", "<code>\\begin{matrix} a</code>"),
    ],
)
def test_formulas_are_shown_without_a_script(tmp_path, latex, shown):
    notebook = notebook_of(tmp_path / "n.ipynb", nbformat.v4.new_markdown_cell(f"# T\n\n{latex}"))
    write_report(tmp_path / "report.html", [notebook], tmp_path / "none", SUMMARY)
    page = (tmp_path / "report/n.html").read_text()
    # wider than a telephone, they scroll by themselves
    assert shown in page and 'p:has(> math[display="block"]) { overflow: auto hidden; }' in page


def test_the_explorer_of_fig_4_shows_every_matrix_and_what_is_behind_a_cell(committed, tmp_path):
    matrices = {matrix["name"]: matrix for matrix in explorer(ROOT / "figures" / "laptop")}
    assert {"paper", "release"} <= set(matrices) and any(name.endswith(" alone") for name in matrices)
    cells = dict(matrices["paper"]["lines"])["happy"]
    place = [au for au, _ in matrices["paper"]["units"]].index("AU12")
    assert cells[place]["text"] == "0.93" and "DFEW: " in cells[place]["behind"] and " clips" in cells[place]["behind"]
    page = (committed.with_suffix("") / "fig4.html").read_text()
    assert page.count('type="radio"') == len(matrices) and page.count('tabindex="0"') >= 7 * 18 * 2
    assert explorer(tmp_path) is None


def test_a_broken_sidecar_is_named(tmp_path):
    (tmp_path / "fig5_x.png").write_bytes(PIXELS)
    (tmp_path / "fig5_x.json").write_text("{")
    with pytest.raises(InputError, match="fig5_x.json"):
        write_report(tmp_path / "report.html", [], tmp_path, SUMMARY)
