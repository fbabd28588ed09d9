"""Nothing of the user's is ever deleted: the Makefile in a path with blanks, and folders that commands are told to
write.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

from audfer import datasets, synth
from audfer.errors import AudferError
from audfer.files import atomic_folder, remove_tree, replace_folder

TARGETS = (
    "help",
    "env",
    "reproduce",
    "appendices",
    "pretrained",
    "verify",
    "all",
    "test",
    "lab",
    "bench",
    "clean",
    "distclean",
)


@pytest.fixture
def checkout(tmp_path):
    """A checkout below a folder with blanks, a bracket and an umlaut, with neighbours to lose."""
    home = tmp_path / "My Work" / "ü (1)" / "audfer"
    home.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, home / name)
    shutil.copytree(ROOT / ".ci", home / ".ci")
    for name in ("audfer", "tests", "notebooks", "benchmarks", "work/make-test"):
        (home / name / "__pycache__").mkdir(parents=True)
    (home / "benchmarks" / "speed.py").touch()
    # an environment that is made already, whose programs only say how they were called
    binaries = home / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (home / ".venv" / "pyvenv.cfg").touch()
    for name in ("python", "audfer"):
        (binaries / name).write_text('#!/bin/sh\necho "$0 $* [$AUDFER_WORK]"\n')
        (binaries / name).chmod(0o755)
    for stamp in (".installed", ".installed-dev"):
        (home / ".venv" / stamp).touch()
    for neighbour in (
        tmp_path / "My",
        tmp_path / "My Work" / "ü",
        tmp_path / "My Work" / "(1)",
        home.with_name("audfer 2"),
        home / "figures",
    ):
        neighbour.mkdir()
        (neighbour / "thesis.tex").write_text("years of work")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years of work")
    return home


def neighbours(home: Path) -> list[str]:
    return sorted(str(path) for path in home.parents[2].rglob("thesis.tex"))


def make(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=home, capture_output=True, text=True)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_leaves_the_neighbours_of_a_path_with_blanks_alone(checkout, target):
    before = neighbours(checkout)
    done = make(checkout, target)
    assert done.returncode == 0, done.stderr
    assert neighbours(checkout) == before
    assert (checkout / ".venv").exists() == (target != "distclean")
    assert (checkout / "work").exists() == (target not in ("clean", "distclean"))
    assert target not in ("clean", "distclean") or not list(checkout.rglob("__pycache__"))


def test_the_tests_work_below_the_checkout_whatever_its_name(checkout):
    (checkout / "work" / "make-test" / "old").touch()
    done = make(checkout, "test")
    assert f"[{checkout}/work/make-test]" in done.stdout
    assert not (checkout / "work" / "make-test").exists()


def test_a_work_folder_that_is_a_link_keeps_what_else_lies_where_it_leads(checkout, tmp_path):
    (tmp_path / "scratch" / "test").mkdir(parents=True)
    (tmp_path / "scratch" / "test" / "thesis.tex").write_text("years of work")
    shutil.rmtree(checkout / "work")
    (checkout / "work").symlink_to(tmp_path / "scratch")
    before = neighbours(checkout)
    for target in ("test", "clean", "distclean"):
        assert make(checkout, target).returncode == 0
    assert neighbours(checkout) == before and not (checkout / "work").is_symlink()


@pytest.mark.parametrize("name", ["O'Brien & Söhne", "$HOME #1", "a;rm -rf b", '"quoted" %', "-rf", "tab\tand\nline"])
def test_whatever_the_folder_of_the_checkout_is_called(checkout, name, tmp_path):
    (tmp_path / name).mkdir()
    home = checkout.rename(tmp_path / name / "audfer")
    before = sorted(tmp_path.rglob("thesis.tex"))
    for target in ("test", "clean", "distclean"):
        done = make(home, target)
        assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("thesis.tex")) == before and not (home / ".venv").exists()


def test_continuous_integration_runs_in_a_path_with_blanks(checkout):
    before = neighbours(checkout)
    done = subprocess.run(["bash", checkout / ".ci" / "run"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert neighbours(checkout) == before


def test_every_target_is_tried_here():
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert set(TARGETS) >= set(phony.split()[1:])


def test_a_virtual_environment_with_a_blank_in_its_name_is_refused(checkout):
    done = make(checkout, "distclean", "VENV=my env")
    assert done.returncode == 2
    assert "VENV is 'my env': expected a path without blanks" in done.stderr


@pytest.mark.parametrize("place", ["..", "../../..", "/", ".", "figures", "link"])
def test_distclean_deletes_only_a_virtual_environment_inside_the_checkout(checkout, place, tmp_path):
    before = neighbours(checkout)
    (checkout / "link").symlink_to(tmp_path / "My", target_is_directory=True)
    done = make(checkout, "distclean", f"VENV={place}")
    assert done.returncode == 2
    assert "not deleted" in done.stderr
    assert neighbours(checkout) == before


# ------------------------------------------------------------------------------------------------------- the package


@pytest.mark.parametrize("path", ["..", ".", "inside/..", "../beside", "/", "inside/../../beside"])
def test_a_folder_that_is_not_inside_the_one_worked_in_is_not_deleted(tmp_path, path):
    (tmp_path / "work" / "inside").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    with pytest.raises(AudferError, match="not ours to delete"):
        remove_tree(tmp_path / "work" / path, tmp_path / "work")
    assert (tmp_path / "work" / "inside").is_dir()
    assert (tmp_path / "beside").is_dir()


def test_of_a_link_only_the_link_is_deleted(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "data")
    remove_tree(tmp_path / "work" / "link", tmp_path / "work")
    assert not (tmp_path / "work" / "link").is_symlink()
    assert (tmp_path / "data").is_dir()


def test_a_folder_with_somebodys_files_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(AudferError, match="holds 'thesis.tex', which this command did not write; nothing was deleted"):
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "frames.npy").touch()
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_a_link_is_not_replaced_by_a_folder(tmp_path, kind):
    (tmp_path / "new").mkdir()
    (tmp_path / "data").mkdir()
    if kind == "file":
        (tmp_path / "out").write_text("years of work")
    else:
        (tmp_path / "out").symlink_to(tmp_path / "data")
    with pytest.raises(AudferError, match=f"a {kind}, where a new or empty folder is expected"):
        replace_folder(tmp_path / "new", tmp_path / "out")
    assert (tmp_path / "out").exists()
    assert (tmp_path / "data").is_dir()


def test_rendering_does_not_replace_a_real_dataset(tmp_path):
    """The embedded DFEW has the real one's layout, so its file names do not tell them apart; its stamp does."""
    (tmp_path / "DISFA" / "Video_LeftCamera").mkdir(parents=True)
    (tmp_path / "DISFA" / "Video_LeftCamera" / "LeftVideoSN001_comp.avi").write_bytes(b"gigabytes")
    with pytest.raises(AudferError, match="nothing was deleted"):
        synth.write_benchmark(
            tmp_path, synth.SynthConfig(disfa_subjects=2, disfa_frames=10), ("DISFA",), progress=False
        )
    assert (tmp_path / "DISFA" / "Video_LeftCamera" / "LeftVideoSN001_comp.avi").read_bytes() == b"gigabytes"


def test_packing_into_a_folder_with_somebodys_files_is_refused_before_any_work(tmp_path, study):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    (out / "meta.json").write_text("{}")  # somebody's own file of that name
    with pytest.raises(AudferError, match="nothing was deleted"):
        datasets.pack(study.manifest("DFEW"), out, 4, 32)
    assert os.listdir(tmp_path) == ["home"]
    assert (out / "thesis.tex").read_text() == "years of work"


def test_folders_are_deleted_in_one_place_only():
    """``remove_tree`` is the one way; a second one would not refuse what it refuses."""
    users = [path.relative_to(ROOT) for path in (ROOT / "audfer").rglob("*.py") if "rmtree" in path.read_text()]
    assert users == [Path("audfer/files.py")]
