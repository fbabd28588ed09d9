"""The workflows of a fork call commands that exist, and nothing needs more than reading the repository."""

import re

import pytest
import yaml
from paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole(path):
    content = yaml.safe_load(path.read_text())
    assert content["permissions"] == {"contents": "read"} and content[True]  # YAML reads "on" as true
    targets = set(re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = {name for line in targets for name in line.split()}
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            assert set(re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE)) <= targets


def test_there_are_tests_a_wheel_links_and_a_weekly_reproduction_with_its_verification():
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    for command in ("make test", "python -m build", "lychee", "make reproduce", "make verify"):
        assert command in text
    assert 'python: ["3.11", "3.12", "3.13"]' in text
