"""Inputs of other people that once failed, one folder each with a README; what each of them calls right.

The mechanisms have tests of their own, on other members of each kind.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from paths import ROOT, SHARED

from audfer import data_folder
from audfer.action_units.table import AUTable, table_from_openface_folder
from audfer.companion import cli
from audfer.errors import InputError
from audfer.knowledge import KnowledgeMatrix
from audfer.losses import AULoss, positive_class_weight

CASES = SHARED / "data" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared data folder is not here")


class Case:
    """A copy of a case's folder, stood in, and what commands say there."""

    def __init__(self, folder: Path, capsys, monkeypatch):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch

    def run(self, words: str, code: int = 0) -> str:
        assert cli.main(words.split()) == code, self.capsys.readouterr()
        return " ".join(" ".join(self.capsys.readouterr()).split())

    def packed(self, *options: str, code: int = 0) -> tuple[str, np.ndarray]:
        said = self.run(" ".join(["data pack folder out --root data --frames 2 --size 16 --workers 1", *options]), code)
        return said, np.load("out/frames.npy").astype(float)


@pytest.fixture
def case(request, tmp_path, capsys, monkeypatch):
    name = request.node.name.removeprefix("test_").replace("_", "-")
    shutil.copytree(CASES / name, tmp_path / "case")
    monkeypatch.chdir(tmp_path / "case")
    for variable in ("AUDFER_DATA", "AUDFER_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("AUDFER_PROGRESS", "off")
    return Case(tmp_path / "case", capsys, monkeypatch)


def test_every_case_is_tried_here():
    tried = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert {path.name for path in CASES.iterdir() if path.is_dir()} <= tried


def test_abaw_batch_faces(case):
    assert "clips: 6 in 2 folders or videos, 40 frames" in case.run("data check AffWild2 --root data --workers 1", 1)


def test_abaw_classification_challenge(case):
    assert "clips: 6 in 2 folders or videos, 40 frames" in case.run("data check AffWild2 --root data --workers 1", 1)


def test_abaw_fdir_csv(case):
    case.run("au import data/openface/AffWild2 --dataset AffWild2 --root data --out a.parquet --workers 1")
    given = pd.read_csv("data/openface/AffWild2/v1.csv", skipinitialspace=True)["AU12_r"].tolist()
    table = AUTable.load("a.parquet").frames
    taken = table[table["clip_id"].astype(str).str.startswith("v1:")]
    pictures = sorted(os.listdir("data/AffWild2/cropped_aligned/v1"))
    np.testing.assert_allclose(taken["AU12_r"], given, rtol=1e-6)
    assert [f"{frame + 1:05d}.jpg" for frame in taken["frame"]] == pictures


def test_align_resized(case):
    said, frames = case.packed("--align openface")
    assert "why 2 clips could not be packed" in said and (frames.mean((1, 2, 3, 4)) > 50).all()
    reasons = pd.read_csv("out/quarantine.csv").set_index("clip_id")["reason"]
    assert "points up to x=504, y=476 in pictures of 160x160" in reasons["happy/clip1"]


def test_au_labels_minus_one(case):
    labels, expressions = torch.zeros(14, 18), torch.arange(14) % 7
    labels[::2, 3] = 1
    loss = AULoss(KnowledgeMatrix.published(), positive_class_weight(labels.numpy(), expressions.numpy(), "global"))
    for wrong in (-1.0, 9.0, 3.0):
        labels[0, 0] = wrong
        with pytest.raises(InputError, match="expected 0.* 1 or NaN"):
            loss(torch.zeros(14, 18), labels, expressions)
        with pytest.raises(InputError, match="expected 0.* 1 or NaN"):
            positive_class_weight(labels.numpy(), expressions.numpy(), "global")


def test_checkpoint_prefixes_and_pointers(case):
    assert "prefix model. (taken off every key)" in case.run("weights inspect lightning_model.ckpt")
    assert "a Git LFS pointer instead of the file" in case.run("weights inspect lfs.safetensors", 2)
    assert "save its state_dict alone where that package is" in case.run("weights inspect easydict.pth", 2)


def test_ctrl_c_lost_at_start(case):
    command = [sys.executable, "-m", "audfer", "reproduce", "--profile", "smoke", "-n", "A1_published_audit"]
    process = subprocess.Popen(
        [*command, "--figures", str(case.folder)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(0.7)  # amid imports, on most machines
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said and "audfer: interrupted" in said


def test_env_profile_beats_flag(case):
    from audfer.companion import commands

    case.monkeypatch.setenv("AUDFER_PROFILE", "smoke")
    for words, profile in ((["--profile", "laptop"], "laptop"), ([], "smoke")):
        options = cli.build_parser().parse_args(["data", "synth", "x", *words])
        assert commands._study(options).profile.name == profile


def test_folder_class_webm(case):
    said, frames = case.packed()
    assert len(frames) == 10 and "happ sad" in case.run("data check folder --root data --workers 1", 1)


def test_folder_eadir(case):
    assert "clips: 6 in 6 folders or videos" in case.run("data check folder --root data --workers 1", 1)


def test_folder_latin1(case):
    os.rename(b"data/happy/josE.mp4", b"data/happy/jos\xe9.mp4")
    said, frames = case.packed()
    assert len(frames) == 1 and "happy/jos\\udce9.mp4" in said and "not taken: name is no UTF-8 1" in said
    assert "left out: name is no UTF-8 1" in case.run("data check folder --root data --workers 1", 1)


def test_folder_not_writable(case):
    """Commands of the case on a checkout that is read only; all commands are in companion/test_bad_machines."""
    read_only = f'mount --bind "{ROOT}" "{ROOT}" && mount -o remount,bind,ro "{ROOT}" && cd "{ROOT}" && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", read_only, "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDFER_")}
    command = [sys.executable, "-m", "audfer", "data", "pack", "folder", str(ROOT / "xp"), "--frames", "2"]
    done = subprocess.run(
        [*before, *command, "--size", "16", "--root", str(CASES / "image-exif" / "data"), "--workers", "1"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"audfer: error: {ROOT}/" in done.stderr and "--out" in done.stderr


def test_folder_openface_processed(case):
    said, frames = case.packed()
    assert len(frames) == 6 and "OpenFace's pictures of other clips 12" in said


def test_framewise_classifier(case):
    done = subprocess.run(
        [sys.executable, "run.py"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    first = done.stdout.splitlines()[0]
    assert "sees 20 vectors for 4 clips" in first and "pool='mean'" in first


def test_image_exif(case):
    upright = case.packed()[1].mean((1, 4))
    assert len(upright) == 4 and (upright[:, 0].mean(1) > upright[:, 8].mean(1) + 90).all()


def test_import_broken_link(case):
    os.symlink("../.git/annex/objects/none", "csv/b.csv")
    said = case.run("au import csv --out o.parquet --workers 1", 1)
    assert "10 frames of 1 clips" in said and "1 of 2 files refused, the first: csv/b.csv" in said


def test_import_dot(case):
    case.monkeypatch.chdir("csv")
    case.run("au import . --workers 1")
    assert Path("../csv.parquet").is_file() and not Path("csv.parquet").exists()


def test_import_half(case):
    said = case.run("au import openface --dataset folder --root data --out o.parquet --workers 1", 2)
    assert (
        "2 of 12 clips of folder with action units, 0 partly, 10 without (10 without a file, the first happy/clip1"
        in said
    )


def test_import_linked_folder(case):
    os.symlink("../elsewhere", "csv/s2")
    assert "20 frames of 2 clips" in case.run("au import csv --out o.parquet --workers 1")


def test_import_other_fps(case):
    said = case.run("au import openface --dataset folder --root data --out o.parquet --workers 1", 1)
    assert "rows numbered up to 20, expected 10" in said and "2 of 4 clips" in said
    assert "clip_frames" in pd.read_csv("o_files.csv")


def test_import_unpadded(case):
    said = case.run("au import openface --dataset folder --root data --out o.parquet --workers 1", 2)
    assert "10.jpg the second in string order, and nothing says which order they were read in" in said


def test_make_test_path_with_space(case):
    script = (case.folder / "run.sh").read_text().replace("PATH/TO/audfer", str(ROOT))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert "My/thesis.txt" in done.stdout.splitlines()[-1] and "is gone" not in done.stdout


def test_of_details_beside(case):
    assert len(table_from_openface_folder("csv")[1]) == 2


def test_pip_install_work_in_site_packages(case):
    site, empty = case.folder / "site", case.folder / "empty"
    empty.mkdir()
    shutil.copytree(ROOT / "audfer", site / "audfer")
    code = "from audfer.study.study import open_study; print(open_study('smoke').work)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDFER_")}
    command, environment = [sys.executable, "-c", code], environment | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(empty / "work" / "smoke")


def test_ravdess_both_modalities(case):
    said = case.run("au import data/openface/RAVDESS --dataset RAVDESS --root data --out o.parquet --workers 1")
    assert "14 of 14 clips of RAVDESS with action units" in said


def test_relative_audfer_data(case):
    case.monkeypatch.setenv("AUDFER_DATA", "data")
    data_folder()
    assert os.environ["AUDFER_DATA"] == str(case.folder / "data")


def test_stale_au_table(case):
    case.monkeypatch.setenv("AUDFER_DATA", str(case.folder / "data"))
    build = "knowledge build {}.json --profile ravdess"
    case.run(build.format("one"))
    case.run(build.format("same"))
    for path in Path("data/openface/RAVDESS").glob("*.csv"):
        table = pd.read_csv(path, skipinitialspace=True)
        table["AU06_r"] = 4.0
        table.to_csv(path, index=False)
    case.run(build.format("other"))
    case.monkeypatch.setenv("AUDFER_WORK", str(case.folder / "fresh"))
    case.run(build.format("fresh"))
    one, same, other, fresh = (Path(f"{name}.json").read_bytes() for name in ("one", "same", "other", "fresh"))
    assert one == same != other == fresh


def test_video_rotated(case):
    upright = case.packed()[1].mean((1, 4))
    assert len(upright) == 4 and (upright[:, 0].mean(1) > upright[:, 8].mean(1) + 90).all()


def test_zenodo_429(case):
    server = subprocess.Popen([sys.executable, "server.py", "429", "8762"])
    try:
        for _ in range(200):  # until it listens
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", 8762)).close()
                break
            time.sleep(0.05)
        waits = []
        case.monkeypatch.setattr(time, "sleep", waits.append)
        said = case.run("data fetch ravdess --yes --root z --base-url http://127.0.0.1:8762", 2)
    finally:
        server.kill()
        server.wait()
    assert "too many requests" in said and 60 in waits
