"""What stands in a notebook: its parameters, the question of each cell, and what is the same in every run."""

from __future__ import annotations

import ast
import os
import re
from difflib import get_close_matches
from pathlib import Path

import nbformat

from ..errors import InputError


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file.

    Raises:
        InputError: the file is missing or is no notebook.
    """
    if not path.is_file():
        raise InputError(path, "notebook", "no such file", "an .ipynb file")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for one thing: not a notebook
        raise InputError(path, "notebook", f"{type(error).__name__}: {error}", "a Jupyter notebook") from None


def _tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def declared_parameters(path: Path) -> dict[str, object]:
    """Names and default values of a notebook's parameters cell (the code cell tagged ``parameters``).

    Raises:
        InputError: there is no notebook, it has no such cell, or the cell holds anything but plain ``name = literal``
            lines (papermill puts its values *after* the cell, so anything computed there would keep the old value).
    """
    expected = "plain `name = literal` lines"
    cells = enumerate(read_notebook(path).cells, start=1)
    tagged = [(number, cell) for number, cell in cells if cell.cell_type == "code" and _tagged(cell, "parameters")]
    if not tagged:
        raise InputError(path, "cell tags", "no cell tagged 'parameters'", "one code cell tagged 'parameters'")
    number, cell = tagged[0]
    try:
        statements = ast.parse(cell.source).body
    except SyntaxError as error:
        raise InputError(path, f"cell {number}", f"a syntax error in line {error.lineno}", expected) from None
    parameters = {}
    for statement in statements:
        try:
            (target,) = statement.targets
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError, TypeError):
            line, found = f"cell {number} (parameters), line {statement.lineno}", repr(ast.unparse(statement))
            raise InputError(path, line, found, "a plain `name = literal` line") from None
    return parameters


def check_parameters(notebooks: list[Path], given: dict[str, object]) -> dict[str, dict[str, object]]:
    """Parameters for each notebook, keyed by its stem; a notebook gets those of ``given`` that it declares.

    papermill alone only warns about a misspelt parameter and then reports success.

    Raises:
        InputError: a name that none of the notebooks declares (the nearest one is suggested), or a value whose type
            is not the default's. Whole numbers are accepted for a float, anything where the default is ``None``.
    """
    declared = {path.stem: declared_parameters(path) for path in notebooks}
    known = sorted({name for defaults in declared.values() for name in defaults})
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(", ".join(declared), "parameter", repr(name), f"one of {', '.join(known)}{hint}")
    chosen = {}
    for stem, defaults in declared.items():
        chosen[stem] = {name: _place(name, value) for name, value in given.items() if name in defaults}
        for name in chosen[stem]:
            default = defaults[name]
            if not _fits(given[name], default):
                expected = f"a {type(default).__name__}; the default is {default!r}"
                raise InputError(stem, f"parameter {name}", f"{given[name]!r}", expected)
    return chosen


def _place(name: str, value: object) -> object:
    """Folders and files are meant as seen from here, and notebooks run in their own folder: make them absolute."""
    if not name.endswith(("_folder", "_file")) or not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser().resolve()
    if not path.exists():
        raise InputError("command line", f"parameter {name}", repr(value), "a path that exists")
    return str(path)


def _fits(value: object, default: object) -> bool:
    if default is None:
        return True
    if isinstance(value, bool) != isinstance(default, bool):
        return False
    wider = {float: (int, float), list: (list, tuple), tuple: (list, tuple)}
    return isinstance(value, wider.get(type(default), type(default)))


def question_of(cells: list, index: int) -> str:
    """The question that a code cell answers: the one in the Markdown above it, else its own first line of code."""
    for cell in reversed(cells[:index]):
        if cell.cell_type == "markdown" and cell.source.strip():
            line = re.sub(r"[*_`]", "", cell.source.strip().splitlines()[0].lstrip("# ").strip())
            return line.partition("?")[0] + "?" if "?" in line else line
        if cell.cell_type == "code" and not _tagged(cell, "injected-parameters"):
            break
    lines = [line.strip() for line in cells[index].source.splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what changes from run to run, so that a committed copy changes only when its results do.

    Removes papermill's times, paths and injected cell, execution timestamps, progress lines (standard error), the
    path of this checkout and the interpreter's patch version; keeps results, cell identifiers, tags and jupytext's
    pairing.
    """
    checkout = str(Path(__file__).resolve().parents[2]) + os.sep
    added = ("injected-parameters", "papermill-error-cell-tag")
    notebook.cells = [cell for cell in notebook.cells if not any(_tagged(cell, tag) for tag in added)]
    number = 0
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            for holder, key in ((output, "text"), (output.get("data", {}), "text/plain")):
                if key in holder:
                    holder[key] = holder[key].replace(checkout, "")
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook
