"""The notebooks: paired, thin, with parameters that papermill can set, and stored outputs that read well."""

import ast
import re

import jupytext
import nbformat
import pytest
from papermill import inspect_notebook
from paths import ROOT

from audfer.companion.notebooks import declared_parameters
from audfer.study.profiles import PARAMETERS

FOLDER = ROOT / "notebooks"
NAMES = (
    "01_au_extraction",
    "02_knowledge_matrix",
    "03_training",
    "04_strategies",
    "05_visualisations",
    "appendices/A1_published_audit",
    "appendices/A2_keypoint_gcn",
    "appendices/A3_lock_and_check",
)


@pytest.mark.parametrize("kind", [".ipynb", ".py"])
def test_there_are_five_and_the_appendices(kind):
    files = (path.relative_to(FOLDER) for path in FOLDER.rglob(f"*{kind}") if ".ipynb_checkpoints" not in path.parts)
    assert sorted(str(file.with_suffix("")) for file in files) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_says_the_same(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    script = jupytext.read(FOLDER / f"{name}.py")

    def content(nb):
        return [(c.cell_type, c.source.strip(), sorted(c.metadata.get("tags", []))) for c in nb.cells]

    assert content(notebook) == content(script), f"run: jupytext --to ipynb --update notebooks/{name}.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_cell_holds_plain_literals(name):
    cells = [c for c in jupytext.read(FOLDER / f"{name}.py").cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    for statement in ast.parse(cells[0].source).body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant), ast.unparse(statement)


@pytest.mark.parametrize("name", NAMES)
def test_papermill_knows_every_parameter_and_warns_of_none(name):
    path = FOLDER / f"{name}.ipynb"
    assert list(inspect_notebook(str(path))) == list(declared_parameters(path))


def test_what_readers_change_is_a_parameter_where_it_matters_and_empty_unless_they_do():
    """Empty means the profile's own value, so that what is committed is what anybody gets."""
    places = {
        name: [one for one in NAMES if name in declared_parameters(FOLDER / f"{one}.ipynb")] for name in PARAMETERS
    }
    three = ["03_training", "04_strategies", "05_visualisations"]
    assert places["model"] == three and places["au_ratios"] == three[2:]
    assert set(three) <= set(places["dataset"]) & set(places["au_ratio"]) & set(places["epochs"])
    for name in NAMES:
        given = declared_parameters(FOLDER / f"{name}.ipynb")
        assert all(given[parameter] in ("", None) for parameter in PARAMETERS if parameter in given)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_thin(name):
    for cell in jupytext.read(FOLDER / f"{name}.py").cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= 12, cell.source
            assert not any(
                isinstance(node, ast.FunctionDef | ast.ClassDef | ast.While)
                for node in ast.walk(ast.parse(cell.source))
            )


@pytest.mark.parametrize("name", NAMES)
def test_every_code_cell_ran_and_some_numbers_are_checked(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code), "stored outputs are missing: audfer reproduce --update-notebooks"
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    checked = [c for c in code if "nbval-check-output" in c.metadata.get("tags", [])]
    assert checked and all(c.outputs for c in checked)


@pytest.mark.parametrize("name", NAMES)
def test_questions_are_headings_so_that_tables_of_contents_show_them(name):
    words = [c.source for c in jupytext.read(FOLDER / f"{name}.py").cells if c.cell_type == "markdown"]
    assert sum(line.startswith("##") for text in words for line in text.splitlines()) >= 5
    bold = [text for text in words if re.match(r"\*\*[^*]*\?\*\*", text)]
    assert not bold, bold


def test_every_equation_of_the_paper_is_in_one_notebook():
    words = "\n".join(c.source for name in NAMES for c in jupytext.read(FOLDER / f"{name}.py").cells)
    tags = [int(number) for tag in re.findall(r"\\tag\{([\d, ]+)\}", words) for number in tag.split(",")]
    assert sorted(tags) == list(range(1, 11))
