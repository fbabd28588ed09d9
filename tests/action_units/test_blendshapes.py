"""Eight AUs from MediaPipe's networks: what they are made of, and real clips beside OpenFace's table of one."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from paths import SHARED

from audfer.action_units.blendshapes import UNITS, Blendshapes, blendshapes, track_of
from audfer.action_units.table import AUTable
from audfer.companion import cli
from audfer.datasets.manifest import video_frames
from audfer.errors import AudferError, InputError
from audfer.facs import INTENSITY_ACTION_UNITS
from audfer.openface import read_openface

TASK = SHARED / "data" / "models" / "face_landmarker.task"
REAL = SHARED / "data" / "real_faces"
OPENFACE = SHARED / "data" / "ravdess_openface" / "clips" / "01-01-07-02-02-01-01.csv"
needs_litert = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed: pip install audfer[blendshapes]"
)
needs_files = pytest.mark.skipif(not TASK.is_file(), reason="face_landmarker.task and clips are not on this machine")


def test_the_rest_of_a_clip_is_subtracted_and_what_has_no_counterpart_is_unknown():
    shapes = np.zeros((20, 52))
    shapes[:, 44] = shapes[:, 45] = 0.2  # a mouth that smiles a little at rest
    shapes[10:, 44], shapes[10:, 45] = 0.6, 0.8
    found = [*shapes[:5], None, *shapes[5:]]
    track = track_of(found, "clip")
    assert track.ok.tolist() == [n != 5 for n in range(21)] and np.isnan(track.intensity[5]).all()
    at = INTENSITY_ACTION_UNITS.index
    np.testing.assert_allclose(track.intensity[0, at("AU12")], 0)
    np.testing.assert_allclose(track.intensity[-1, at("AU12")], 5 * (0.7 - 0.2), rtol=1e-6)
    known = [unit for unit in INTENSITY_ACTION_UNITS if not np.isnan(track.intensity[0, at(unit)])]
    assert known == list(UNITS) and len(known) == 8 and np.isnan(track.presence).all()
    assert AUTable.from_tracks({"clip": track}).provenance()["tool"].tolist() == ["blendshapes"]
    with pytest.raises(InputError, match="one in none of 2 frames"):
        track_of([None, None], "clip")


@needs_litert
def test_no_file_and_another_file_are_one_sentence(tmp_path):
    (tmp_path / "a.task").write_text("no archive")
    for file in ("", str(tmp_path / "nowhere.task"), str(tmp_path / "a.task")):
        with pytest.raises(AudferError, match="expected MediaPipe's face_landmarker.task"):
            Blendshapes(file).check()


@needs_litert
@needs_files
def test_real_clips_go_to_a_table_and_to_an_answer(tmp_path, monkeypatch, capsys):
    """Over time as OpenFace's where the agreement was measured to be good, on the one clip that both have seen."""
    (tmp_path / "clips" / "disgust").mkdir(parents=True)
    (tmp_path / "clips" / "disgust" / "a.mp4").symlink_to(REAL / "disgust" / "01-01-07-02-02-01-01_1.mp4")
    monkeypatch.chdir(tmp_path)
    extract = ["au", "extract", "folder", "--root", "clips", "--backend", "blendshapes", "--workers", "1"]
    assert cli.main([*extract, "--task-file", str(TASK), "--out", "au.parquet"]) == 0
    table = AUTable.load("au.parquet")
    track, other = table.clip("disgust/a"), read_openface(OPENFACE)
    assert track.ok.all() and len(track) == len(other) == 120
    for unit, least in (("AU04", 0.5), ("AU12", 0.8), ("AU25", 0.6), ("AU26", 0.5), ("AU45", 0.4)):
        at = INTENSITY_ACTION_UNITS.index(unit)
        assert np.corrcoef(track.intensity[:, at], other.intensity[:, at])[0, 1] > least, unit
    happy = REAL / "happiness" / "1001_DFA_HAP_XX.flv"
    assert cli.main(["predict", str(happy), "--aus", "blendshapes", "--au-weights", str(TASK), "--csv", "a.csv"]) == 0
    said = capsys.readouterr().out
    assert "not measured: AU05, AU06" in said and "with AUs of blendshapes, on 18 acted clips of 10 people" in said
    frames = pd.read_csv("a.csv")
    assert len(frames) == 56 and frames["AU12_r"].max() > 3 and frames["AU05_r"].isna().all()


@needs_litert
@needs_files
def test_black_pictures_have_no_face_and_the_next_ones_do():
    """The clip is black at both ends."""
    clip = REAL / "anger" / "rav_actor24_angry.mp4"
    pictures = [picture for _, picture in video_frames(clip)]
    seen = [found is not None for found in blendshapes(pictures, TASK)]
    light = [picture.mean() > 20 for picture in pictures]
    assert np.mean(np.array(seen) == light) > 0.9 and 30 < sum(seen) < 42
