"""README.md: its numbers are those of figures/laptop, its links lead somewhere, its blocks run."""

import ast
import json
import re
import shlex

import pytest
from fake_records import FakeStudy, fake_grid
from paths import ROOT

from audfer.companion import cli
from audfer.companion.readme import results
from audfer.models import NETWORKS
from audfer.study.profiles import load_profile, with_changes

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_are_those_of_the_laptop_tables():
    block = re.search("<!-- results:begin -->\n(.*?)\n<!-- results:end -->", TEXT, re.DOTALL)[1]
    assert block == results(ROOT / "figures" / "laptop"), "run: python -m audfer.companion.readme"


def test_links_and_pictures_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 10
    actions = "../../actions/"  # of the hosting service
    assert [link for link in links if not link.startswith(("http", actions)) and not (ROOT / link).exists()] == []


def test_speeds_are_those_of_the_records():
    text, records = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"), ROOT / "benchmarks" / "records"
    columns = []
    for pattern in ("2026-11-20_model_speed*.json", "2026-11-27_model_speed.json", "2026-11-27_model_speed_gpu.json"):
        rows = [row for path in sorted(records.glob(pattern)) for row in json.loads(path.read_text())["results"]]
        columns.append({row["model"]: row["training"]["ratio"] for row in rows})
    for model in columns[0]:
        cells = ("{:.1f} [{:.1f}, {:.1f}]".format(own[model]["median"], *own[model]["quartiles"]) for own in columns)
        assert f"| {NETWORKS[model].title} | {' | '.join(cells)} |" in text
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts <= set(re.findall(r"`(\w+\.py)`", text.partition("## Speeds")[0]))


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_every_python_block_runs_as_it_is_written(code, monkeypatch):
    """The study of a block is one of plausible records: nothing is rendered or trained for it."""
    monkeypatch.setattr("audfer.study.study.open_study", lambda profile: FakeStudy(fake_grid(models=("m3dfel",))))
    *statements, last = ast.parse(code).body
    space = {}
    exec(compile(ast.Module(statements, []), "README.md", "exec"), space)
    made = eval(compile(ast.Expression(last.value), "README.md", "eval"), space)
    if "loss" in space:
        assert space["network"][1].weight.grad.abs().sum() > 0 and space["out"].au_logits.shape == (16, 18)
    else:
        assert len(made) >= 18 and "metric" in made


COMMANDS = [
    re.split(r"\s+#", line)[0].strip()
    for kind, text in BLOCKS
    if kind == ""
    for line in text.splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_a_block_is_one_that_there_is(line):
    for command in line.split(" && "):
        program, *arguments = shlex.split(command)
        if program == "audfer":
            options = cli.build_parser().parse_args(arguments)
            assert callable(cli.command_of(options))
            if getattr(options, "set", None):
                assert load_profile(with_changes(options.profile, options.set))
        elif program == "make":
            assert re.search(rf"^(\w+ )*{arguments[0]}( \w+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert program in ("git", "cd", "export", "pip")
