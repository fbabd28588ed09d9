"""RAVDESS as it is downloaded, raw videos and their tracking: a study cuts faces out and goes to a trained epoch."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_layouts as small
from paths import SHARED

from audfer.action_units.table import AUTable
from audfer.companion import cli
from audfer.datasets import alignment
from audfer.datasets.landmarks import FacePoints, write_points
from audfer.openface import INTENSITY_COLUMNS, LANDMARK_COLUMNS, PRESENCE_COLUMNS
from audfer.study.outputs import NotShown
from audfer.study.study import Study

REAL = SHARED / "data" / "real_faces"
COUNT, SIDE = 5, 32
EMOTIONS = ("01", "03", "04", "05", "06", "07", "08")


def points(scale: float) -> np.ndarray:
    """68 points of a face that fills a part of the picture, (COUNT, 68, 2) pixels."""
    shape = np.full((68, 2), 0.5)
    shape[36:42], shape[42:48], shape[48], shape[54] = alignment.TEMPLATE
    return np.repeat((SIDE * (0.5 + scale * (shape - 0.5)))[None], COUNT, axis=0)


def tracking(file: Path, level: float, scale: float = 0.6) -> None:
    """What OpenFace wrote of a video, with landmarks."""
    columns = {"frame": np.arange(1, COUNT + 1), "confidence": 0.98, "success": 1}
    columns |= dict(zip(LANDMARK_COLUMNS, points(scale).transpose(0, 2, 1).reshape(COUNT, -1).T, strict=True))
    columns |= dict.fromkeys(INTENSITY_COLUMNS, level) | dict.fromkeys(PRESENCE_COLUMNS, int(level > 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(file, index=False)


@pytest.fixture
def downloaded(tmp_path, monkeypatch, study) -> Study:
    """A study on raw videos of six actors; the tests lay the tracking beside them."""
    small.ravdess(tmp_path / "data" / "RAVDESS", [f"{n:02d}" for n in range(1, 7)], EMOTIONS)
    monkeypatch.setenv("AUDFER_DATA", str(tmp_path / "data"))
    names = {"datasets": ("RAVDESS",), "knowledge_datasets": ("RAVDESS",), "strategy_dataset": "RAVDESS"}
    profile = replace(study.profile, data=replace(study.profile.data, source="disk"))
    return Study(replace(profile, grid=replace(profile.grid, **names)), tmp_path / "work", tmp_path / "figures")


def test_faces_are_cut_out_by_the_tracking_and_an_epoch_runs(downloaded, capsys):
    videos = sorted((downloaded.data_root / "RAVDESS").rglob("*.mp4"))
    for number, video in enumerate(videos):
        # the sound copy's name, as in Zenodo's record of the tracking
        tracking(downloaded.data_root / "openface" / "RAVDESS" / f"01{video.stem[2:]}.csv", 0.5 + number % 5)
    packed = downloaded.packed("RAVDESS")
    assert packed.meta["alignment"] and len(packed) == len(videos) == 42 and packed.quarantine.empty
    assert (downloaded.work / "packed" / "RAVDESS" / "contact_sheet.png").is_file()
    assert "whole pictures" not in capsys.readouterr().err
    assert isinstance(downloaded.au_table("RAVDESS"), AUTable)
    matrix = downloaded.knowledge()
    assert matrix.flat and "1 dataset(s)" in matrix.flat
    assert "LOOK OUT" in downloaded.results("fig4").caption
    (record,) = downloaded.run([replace(downloaded.cell("m3dfel", "RAVDESS", 0.25), epochs=1)])
    assert len(record.scores) == len(packed.split("test"))
    followed = downloaded.results("one_clip")
    assert f"{COUNT} frames" in followed.reading
    assert "pixels on disk, 48 for networks. Real datasets" in followed.caption
    on_disk, *faces = followed.plot().subfigs[0].axes
    assert faces and not on_disk.lines and all(np.isfinite(one.lines[0].get_xdata()).all() for one in faces)


def test_landmarks_alone_serve_faces_and_key_points(downloaded):
    """CSVs of ``audfer data landmarks``: no action units, enough for packing and for a network that sees key points."""
    for video in (downloaded.data_root / "RAVDESS").rglob("*.mp4"):
        file = downloaded.data_root / "openface" / "RAVDESS" / f"{video.stem}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        found = FacePoints(points(0.6), np.full(COUNT, 0.9), 1, 0)
        write_points(file, found, np.arange(1, COUNT + 1), np.arange(COUNT) / 25)
    assert downloaded.packed("RAVDESS").meta["alignment"]
    marks = np.load(downloaded.landmarks("RAVDESS")["landmarks"])
    np.testing.assert_allclose(np.nanmean(marks[:, :, 36:42], axis=(0, 1, 2)), alignment.TEMPLATE[0], atol=0.03)
    (record,) = downloaded.run([replace(downloaded.cell("keypoint_gcn", "RAVDESS"), epochs=1)])
    assert np.isfinite(record.scores).all()


@pytest.mark.skipif(find_spec("dlib") is None, reason="dlib is not installed: pip install audfer[landmarks]")
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")
def test_real_videos_without_openface_train_a_network_that_sees_key_points(tmp_path, monkeypatch, study):
    """Real clips as RAVDESS names them, points by ``audfer data landmarks``, one epoch; actors 01 and 06 are tested."""
    named = {
        "neutral/rav_zoom_neutral": "01-05",
        "anger/rav_zoom_angry": "05-03",
        "surprise/rav_zoom_surprised": "08-01",
    }
    for source, code in named.items():
        clip = tmp_path / "RAVDESS" / f"Actor_{code[3:]}" / f"01-01-{code[:2]}-01-01-01-{code[3:]}.mp4"
        clip.parent.mkdir(parents=True)
        clip.symlink_to(REAL / f"{source}.mp4")
    monkeypatch.setenv("AUDFER_DATA", str(tmp_path))
    points = tmp_path / "openface" / "RAVDESS"
    assert cli.main(["data", "landmarks", "RAVDESS", "--out", str(points), "--workers", "1"]) == 0
    names = {"datasets": ("RAVDESS",), "knowledge_datasets": ("RAVDESS",), "strategy_dataset": "RAVDESS"}
    profile = replace(study.profile, data=replace(study.profile.data, source="disk"))
    real = Study(replace(profile, grid=replace(profile.grid, **names)), tmp_path / "work", tmp_path / "figures")
    marks = np.load(real.landmarks("RAVDESS")["landmarks"])
    assert marks.shape[0] == 3 and np.isfinite(marks).all()
    np.testing.assert_allclose(np.median(marks[:, :, 36:42], axis=(0, 1, 2)), alignment.TEMPLATE[0], atol=0.04)
    (record,) = real.run([replace(real.cell("keypoint_gcn", "RAVDESS"), epochs=1)])
    assert record.scores.shape == (1, 7) and np.isfinite(record.scores).all()


def test_without_landmarks_whole_pictures_are_packed_and_that_is_said(downloaded, capsys):
    assert downloaded.packed("RAVDESS").meta["alignment"] is None
    assert "whole pictures, no faces" in capsys.readouterr().err


def test_only_somebodys_tables_are_looked_at(downloaded, tmp_path):
    """Nothing is rendered, trained or even read of the profile's own clips, and labels are checked at once."""
    folder = tmp_path / "mine"
    for number, (person, word) in enumerate(
        (p, w) for p in "ab" for w in ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    ):
        tracking(folder / "clips" / f"{person}_{word}.csv", 0.3 + number % 7 / 2)
    names = sorted(path.name for path in (folder / "clips").iterdir())
    rows = [f"{name},{name[2:-4]},{name[0]}" for name in names]
    (folder / "labels.csv").write_text("file,expression,subject\n" + "\n".join(rows[:-1]) + "\n")
    with pytest.raises(ValueError, match="no row for b_surprise.csv"):
        downloaded.look_at(str(folder))
    (folder / "labels.csv").write_text("file,expression,subject\n" + "\n".join(rows) + "\n")
    looking = downloaded.look_at(str(folder))
    assert looking is downloaded and not (tmp_path / "work").exists()
    for name in ("contact_sheet_action_units", "class_frequencies", "au_estimator", "presence_rates", "fig4"):
        nothing = looking.results(name)
        assert isinstance(nothing, NotShown) and not nothing and str(folder) in repr(nothing.save())
    aus = looking.au_clips(str(folder))
    assert aus.over == "2 people"
    made = [looking.results(name, aus=aus).name for name in ("au_coverage", "au_presence", "au_baseline")]
    made += [looking.results(name, openface_folder=str(folder)).name for name in ("real_knowledge", "few_labels")]
    assert made == [
        f"real_mine_{name}" for name in ("au_coverage", "au_presence", "au_baseline", "knowledge", "few_labels")
    ]
    assert not (tmp_path / "work").exists()
