"""The three lists of packages agree, nothing brings torchvision or changes torch, and the package holds its data."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

from audfer.companion.reproduce import AFTER, NOTEBOOKS


def constraints() -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> list[Requirement]:
    extras = project()["optional-dependencies"]
    return [Requirement(text) for text in (*project()["dependencies"], *extras["dev"], *extras["dask"])]


def test_every_declared_package_is_pinned_to_a_version_that_the_project_allows():
    pins = constraints()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}: {pins[name]} is not {requirement.specifier}"


def test_environment_yml_names_the_same_packages_and_versions_as_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert dict(line.split("==") for line in pip if "==" in line) == constraints()
    assert [line for line in pip if "==" not in line] == ["-e .[dev,dask]"]
    python = next(item.split("=")[1] for item in plain if item.startswith("python="))
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(project()["requires-python"]).contains(python + ".0")


def test_pins_are_exact_sorted_and_named_once():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert lines == sorted(lines) and len(lines) == len({line.split("==")[0] for line in lines})


def test_torch_is_pinned_and_the_installed_one_is_that_version():
    import torch

    assert constraints()["torch"] == "2.13.0"
    assert torch.__version__.startswith("2.13.0")


def test_no_installed_package_is_or_needs_torchvision():
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        assert name != "torchvision"
        for text in distribution.requires or []:
            requirement = Requirement(text)
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            assert not (needed and canonicalize_name(requirement.name) == "torchvision"), f"{name} needs torchvision"
    assert "torchvision" not in constraints()


def test_no_installed_package_asks_for_another_torch():
    for distribution in distributions():
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) == "torch":
                assert requirement.specifier.contains("2.13.0"), f"{distribution.metadata['Name']}: {text}"


def test_everything_the_package_imports_is_declared():
    normal = {canonicalize_name(Requirement(text).name) for text in project()["dependencies"]}
    extras = project()["optional-dependencies"]
    optional = {canonicalize_name(Requirement(text).name) for name in extras if name != "dev" for text in extras[name]}
    # these come with the package named on the right, and are the same project
    normal |= {"ipython", "jinja2", "pygments"} if {"ipykernel", "nbconvert"} <= normal else set()
    # py-feat brings torchvision, so it is never declared: its back-end is for those who have it installed
    # the package dlib wants a compiler; it and dlib-bin hold the same module
    optional |= {"feat", "dlib"}
    providers = packages_distributions()
    missing = []
    for file in (ROOT / "audfer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"audfer"}:
                packages = {canonicalize_name(p) for p in providers.get(top, [top])}
                if not packages & (normal | optional):
                    missing.append(f"{file.relative_to(ROOT)}: {top}")
    assert not missing


@pytest.mark.parametrize(
    "pattern",
    ["study/profiles/*.toml", "published/*.csv", "results/*.mplstyle", "*/commands.toml", "companion/templates/*.j2"],
)
def test_data_files_are_covered_by_the_package_data_patterns(pattern):
    files = list((ROOT / "audfer").glob(pattern))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["audfer"]
    suffixes = {Path(text).suffix for text in settings}
    assert files and all(file.suffix in suffixes for file in files)


def test_importing_the_package_is_cheap():
    code = "import sys, audfer; print(audfer.__version__, 'torch' in sys.modules, 'pandas' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    version, torch_loaded, pandas_loaded = result.stdout.split()
    assert (torch_loaded, pandas_loaded) == ("False", "False")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_parts_of_the_package_are_loaded_by_name():
    import audfer

    assert len(audfer.facs.ACTION_UNITS) == 18
    assert audfer.open_study is audfer.study.study.open_study
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        audfer.nonsense


def test_citation_names_this_software_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    import audfer

    assert citation["cff-version"] == "1.2.0" and citation["version"] == audfer.__version__
    assert {"message", "title", "authors"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert paper["title"] == "Action Unit Enhance Dynamic Facial Expression Recognition" and paper["year"] == 2025
    assert {"type", "authors"} <= paper.keys()


@pytest.mark.parametrize("target", ["env", "reproduce", "appendices", "verify", "all", "test", "lab", "bench", "clean"])
def test_make_knows_its_targets(target, tmp_path):
    command = ["make", "-n", target, f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_make_checks_a_notebook_after_those_that_reproduce_runs_before_it(name, tmp_path):
    command = ["make", "-n", f"check-{name}", f"VENV={tmp_path / 'venv'}"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checked = re.findall(r"notebooks/(?:appendices/)?(\w+)\.ipynb", shown)
    assert checked == [*AFTER[name], name]


def test_make_refuses_an_old_python_with_a_sentence(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = subprocess.run(
        ["make", "env", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2 and "needs Python 3.11 or newer" in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of a copy of this checkout, and the wheel that is built from the sdist alone."""
    place = tmp_path_factory.mktemp("built")
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "work", "figures", "build", "*.egg-info", "__pycache__", ".*cache"
    )
    shutil.copytree(ROOT, place / "copy", ignore=left_out, symlinks=True)
    code = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    names = []
    for kind in ("sdist", "wheel"):
        where = place / "copy" if kind == "sdist" else next((place / "unpacked").iterdir())
        command = [sys.executable, "-c", code, f"build_{kind}", str(place)]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        names.append(place / done.stdout.splitlines()[-1])
        if kind == "sdist":
            shutil.unpack_archive(names[0], place / "unpacked", filter="data")
    return names


def test_the_wheel_holds_modules_data_and_notebooks_without_outputs(built):
    import zipfile

    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("audfer/")}
        notebooks = [name for name in names if name.endswith(".ipynb")]
        assert {Path(name).stem for name in notebooks} == set(NOTEBOOKS)
        for name in notebooks:
            cells = json.loads(wheel.read(name))["cells"]
            assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    there = subprocess.run(["git", "ls-files", "audfer"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    data = {
        name for name in there if name.endswith((".py", ".toml", ".csv", ".json", ".j2", ".mplstyle", ".safetensors"))
    }
    assert data - names == set() and built[1].stat().st_size < 10e6


def test_an_installed_package_reproduces_in_an_empty_folder_and_writes_nowhere_else(built, tmp_path):
    site, here = tmp_path / "site", tmp_path / "empty"
    here.mkdir()
    shutil.unpack_archive(built[1], site, "zip")
    before = {path for path in site.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDFER_")}
    environment |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "audfer", "reproduce", "--profile", "smoke", "-n", "A1_published_audit"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report: work/smoke/report.html" in done.stdout
    assert (here / "work/smoke/report/A1_published_audit.html").is_file()
    assert len(pd.read_csv(here / "figures/smoke/a1_findings.csv")) > 100
    assert {path for path in site.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"} == before
    assert {path.name for path in here.iterdir()} == {"work", "figures"}


def test_ci_runs_the_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
