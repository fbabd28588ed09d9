"""Landmarks of packed clips: from OpenFace's CSVs, dlib and the renderer, on the pictures as packing has left them."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from paths import SHARED
from PIL import Image

from audfer import datasets, synth
from audfer.companion import cli
from audfer.datasets import alignment, landmarks
from audfer.datasets.common import any_clips
from audfer.datasets.landmarks import dlib_points, openface_points, packed_landmarks
from audfer.errors import AudferError, InputError
from audfer.openface import (
    INTENSITY_COLUMNS,
    LANDMARK_COLUMNS,
    PRESENCE_COLUMNS,
    SUCCESS_BOUNDARY,
    read_openface,
)
from audfer.study.study import Study

FRAMES, FAILED, DOT = 8, 4, 30
WIDTH, HEIGHT = 160, 96


def write_openface(path: Path, points: np.ndarray, ok: np.ndarray) -> None:
    """OpenFace's file of a clip: failed frames hold the last points, as OpenFace writes them."""
    count = len(points)
    columns = {"frame": np.arange(1, count + 1), "confidence": np.where(ok, 0.98, 0.0), "success": ok.astype(int)}
    columns |= {f"{axis}_{i}": points[:, i, k] for k, axis in enumerate("xy") for i in range(68)}
    columns |= {name: np.zeros(count) for name in (*INTENSITY_COLUMNS, *PRESENCE_COLUMNS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture(scope="module")
def dotted(tmp_path_factory):
    """Clips with a white dot at landmark 30 of a face that wanders, turns and grows; the second has frames of two
    sizes.
    """
    root = tmp_path_factory.mktemp("dotted")
    shape = np.random.default_rng(0).uniform(-0.45, 0.45, (68, 2))  # about the middle of the face
    shape[36:42], shape[42:48], shape[48], shape[54] = (place - 0.5 for place in alignment.TEMPLATE)
    for clip, label in enumerate(("happy", "sad")):
        points = np.empty((FRAMES, 68, 2))
        folder = root / "clips" / label / "clip"
        folder.mkdir(parents=True)
        for n in range(FRAMES):
            larger = 2 if clip == 1 and n % 2 else 1
            angle, side, middle = 0.1 * (n - 3), 40 + 3 * n, np.array([50 + 6 * n, 44])
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            points[n] = larger * (side * shape @ turn.T + middle)
            picture = np.zeros((larger * HEIGHT, larger * WIDTH), np.float32)
            # a round dot whose middle lies between pixels as the point does
            row, column = np.mgrid[: picture.shape[0], : picture.shape[1]]
            x, y = points[n, DOT]
            picture = 255 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * (2 * larger) ** 2))
            Image.fromarray(picture.round().astype(np.uint8)).convert("RGB").save(folder / f"{n + 1}.png")
        write_openface(root / "openface" / label / "clip.csv", points, np.arange(FRAMES) != FAILED)
    return root


def dots(frames: np.ndarray) -> np.ndarray:
    """Middles of the dots in pictures (n, S, S, 3), in units of the side."""
    light = frames[..., 0].astype(float)
    place = (np.arange(frames.shape[1]) + 0.5) / frames.shape[1]
    return (
        np.stack([(light * place).sum((1, 2)), (light * place[:, None]).sum((1, 2))], -1) / light.sum((1, 2))[:, None]
    )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [64, 40])
def test_the_points_lie_where_packing_has_put_the_picture(dotted, tmp_path, aligned, size):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(
        manifest, tmp_path / "out", 6, size, progress=False, align=dotted / "openface" if aligned else None
    )
    found = packed_landmarks(packed, openface_points(packed, manifest, dotted / "openface"), progress=False)
    assert found.points.shape == (2, 6, 68, 2) and found.points.dtype == np.float32 and not found.without
    failed = packed.frame_numbers == FAILED
    assert (
        failed.sum() == 2
        and np.isnan(found.points[failed]).all()
        and np.isfinite(found.points[0][~failed[0]]).any((1, 2)).all()
    )
    tolerance = 0.35 / size
    if aligned:  # the transform is rounded to OpenFace's pixels, half a pixel of the source away
        tolerance += 0.5 / 40
    for clip in range(2):
        seen = ~failed[clip]
        if clip and aligned:  # packing takes all frames of a clip for as large as the first
            continue
        np.testing.assert_allclose(found.points[clip, seen, DOT], dots(packed.frames[clip][seen]), atol=tolerance)


def test_points_follow_frames_of_another_size_even_where_alignment_does_not(dotted, tmp_path):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(manifest, tmp_path / "out", 8, 64, progress=False, align=dotted / "openface")
    clip = packed.clip_ids.index("sad/clip")
    found = packed_landmarks(packed, openface_points(packed, manifest, dotted / "openface"), progress=False).points[
        clip, :, DOT
    ]
    light = packed.frames[clip][..., 0].sum((1, 2))
    for frame in np.flatnonzero(np.isfinite(found).all(1) & (light > 0.5 * light.max())):
        np.testing.assert_allclose(found[frame], dots(packed.frames[clip][[frame]])[0], atol=0.02)
    assert np.isfinite(found[::2]).all(1).sum() >= 3


def test_an_aligned_store_takes_the_csvs_that_it_was_aligned_with(dotted, tmp_path):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(manifest, tmp_path / "out", 2, 32, progress=False, align=dotted / "openface")
    write_openface(tmp_path / "other" / "happy" / "clip.csv", np.zeros((3, 68, 2)), np.ones(3, bool))
    with pytest.raises(InputError, match="other ones than the clips were aligned with"):
        openface_points(packed, manifest, tmp_path / "other")


def test_clips_without_a_file_and_frames_beyond_its_end_are_unknown(dotted, tmp_path):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(manifest, tmp_path / "out", FRAMES, 32, progress=False)
    write_openface(tmp_path / "csvs" / "happy_clip.csv", np.full((3, 68, 2), 20.0), np.ones(3, bool))
    found = packed_landmarks(packed, openface_points(packed, manifest, tmp_path / "csvs"), progress=False)
    assert (
        np.isfinite(found.points[0, :3]).all()
        and np.isnan(found.points[0, 3:]).all()
        and np.isnan(found.points[1]).all()
    )
    np.testing.assert_allclose(found.points[0, 0, 0], [20.5 / WIDTH, 20.5 / HEIGHT])
    assert list(found.without) == ["sad/clip"] and "OpenFace file of clip sad/clip" in found.without["sad/clip"]


def test_points_outside_the_picture_are_unknown(dotted, tmp_path):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(manifest, tmp_path / "out", 1, 32, progress=False)
    points = np.full((1, 68, 2), 0.5)
    points[0, :4] = (-0.01, 0.5), (0.5, 1.01), (0, 1), (0.2, np.nan)
    found = packed_landmarks(packed, lambda position: points, progress=False).points[0, 0]
    assert np.isnan(found[[0, 1, 3]]).all() and found[2].tolist() == [0, 1] and np.isfinite(found[4:]).all()


# ----------------------------------------------------------------------------------------------- the embedded benchmark


def test_rendered_clips_have_the_renderers_points(study):
    packed = study.packed("DFEW")
    assert packed.frames.shape[2] == 48
    points = np.load(study.landmarks("DFEW")["landmarks"])
    truth, pixels = synth.read_truth(study.data_root, "DFEW"), synth.read_truth_landmarks(study.data_root, "DFEW")
    for clip in (0, 30, len(packed) - 1):
        of_clip = (truth["clip_id"] == packed.clip_ids[clip]).to_numpy()
        for place, number in enumerate(packed.frame_numbers[clip]):
            (row,) = np.flatnonzero(of_clip & (truth["frame"] == number).to_numpy())
            inside = ((pixels[row] >= 0) & (pixels[row] <= 48)).all(1)
            np.testing.assert_allclose(points[clip, place][inside], pixels[row][inside] / 48, rtol=1e-6)
            assert np.isnan(points[clip, place][~inside]).all()


def test_windows_of_a_long_take_share_its_points(study):
    """Aff-Wild2: clips are spans of a video, the truth is the video's."""
    manifest = study.manifest("AffWild2") if "AffWild2" in study.dataset_names else None
    if manifest is None:
        synth.write_benchmark(study.data_root, study.synth_config, ("AffWild2",), progress=False)
        manifest = datasets.read_dataset("AffWild2", study.data_root / "AffWild2")
    packed = datasets.pack(manifest, study.work / "packed" / "AffWild2", 4, 24, progress=False)
    found = packed_landmarks(packed, synth.embedded_points(packed, study.data_root, 48), progress=False)
    assert ":" in packed.clip_ids[-1] and found.known == 1 and not found.without


# ------------------------------------------------------------------------------------------------------------------
# dlib


class _Rectangle:
    def __init__(self, x, y):
        self.x, self.y = x, y


def stand_in(faces=1):
    """A dlib whose detector finds a face where the picture is bright, and whose points lie in its brightest pixel."""

    def detect(picture, enlarged):
        y, x = np.unravel_index(picture[..., 0].argmax(), picture.shape[:2])
        return [_Rectangle(int(x), int(y))] * faces if picture.max() > 100 else []

    def predictor(path):
        return lambda picture, box: SimpleNamespace(part=lambda i: SimpleNamespace(x=box.x, y=box.y))

    return SimpleNamespace(get_frontal_face_detector=lambda: detect, shape_predictor=predictor)


def test_dlib_looks_at_the_stored_pictures(dotted, tmp_path, monkeypatch):
    manifest = datasets.read_dataset("folder", dotted / "clips")
    packed = datasets.pack(manifest, tmp_path / "out", 6, 64, progress=False)
    model = tmp_path / "points.dat"
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(AudferError, match="dlib: not installed"):
        dlib_points(packed, model)
    monkeypatch.setitem(sys.modules, "dlib", stand_in())
    with pytest.raises(
        InputError, match="points.dat: dlib's 68-point model: found no such file, expected shape_predictor_68"
    ):
        dlib_points(packed, model)
    model.touch()
    found = packed_landmarks(packed, dlib_points(packed, model), progress=False)
    np.testing.assert_allclose(found.points[0, :, 5], dots(packed.frames[0]), atol=0.8 / 64)
    monkeypatch.setitem(sys.modules, "dlib", stand_in(faces=2))
    found = packed_landmarks(packed, dlib_points(packed, model), progress=False)
    assert np.isnan(found.points).all() and found.known == 0 and len(found.without) == 2


# ------------------------------------------------------------------------------------------------------------- the
# study


def test_landmarks_are_made_once_and_only_for_networks_that_look_at_them(study, capsys):
    plain, keyed = study.cell("m3dfel", "DFEW"), study.cell("keypoint_gcn", "DFEW")
    assert not study.cell_inputs([plain])["DFEW"].landmarks
    inputs = study.cell_inputs([plain, keyed])["DFEW"]
    assert Path(inputs.landmarks).is_file() and inputs.landmarks_fingerprint
    modified = Path(inputs.landmarks).stat().st_mtime_ns
    again = Study(study.profile, study.work.parent, study.figures.parent)
    assert again.cell_inputs([keyed])["DFEW"].landmarks_fingerprint == inputs.landmarks_fingerprint
    assert Path(inputs.landmarks).stat().st_mtime_ns == modified
    other = replace(inputs, landmarks_fingerprint="another")
    assert study.store.key(plain, inputs) == study.store.key(plain, other)
    assert study.store.key(keyed, inputs) != study.store.key(keyed, other)


def test_real_clips_without_openfaces_files_have_unknown_landmarks_and_that_is_said(
    study, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("AUDFER_DATA", str(study.data_root))
    profile = replace(study.profile, data=replace(study.profile.data, source="disk"))
    real = Study(profile, tmp_path, tmp_path)
    made = real.landmarks("DFEW")
    assert np.isnan(np.load(made["landmarks"])).all()
    said = capsys.readouterr().err
    assert "landmarks of DFEW: from OpenFace's CSVs" in said and "in 0 % of the stored frames" in said
    # files of the first clip, in a folder of the user's own
    packed, folder = real.packed("DFEW"), tmp_path / "mine" / "DFEW"
    write_openface(folder / f"{packed.clip_ids[0].replace('/', '_')}.csv", np.full((9, 68, 2), 24.0), np.ones(9, bool))
    for given in (folder, folder.parent):
        real.landmark_source = str(given)
        found = np.load(real.landmarks("DFEW")["landmarks"])
        np.testing.assert_allclose(found[0], 24.5 / 48)
        assert np.isnan(found[1:]).all()
    assert real.landmarks("DFEW")["landmarks_fingerprint"] != made["landmarks_fingerprint"]
    real.landmark_source = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match="landmarks: found nothing there"):
        real.landmarks("DFEW")
    real.landmark_source = str(tmp_path)  # a folder, but not of these clips
    with pytest.raises(AudferError, match="landmarks of DFEW: found none in any clip, expected those of its clips"):
        real.landmarks("DFEW")


# ------------------------------------------------------------------------------------------ dlib over whole clips


def bright(picture) -> np.ndarray:
    """What the stand-in for dlib finds: (left, top, right, bottom, score) of each of two colours' squares."""
    found = []
    for colour in (0, 1):
        rows, columns = np.nonzero(picture[..., colour] > 128)
        if len(rows):
            score = 0.5 + 0.5 * colour
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, score))
    return np.array(found, float).reshape(-1, 5)


class StandIn:
    """dlib's three parts; counts how often faces are looked for."""

    def __init__(self):
        self.looks = 0

    def run(self, picture, enlarged, threshold):
        self.looks += 1
        boxes = bright(picture)
        box = lambda edge: lambda: int(edge)  # noqa: E731
        faces = [
            SimpleNamespace(left=box(a), top=box(b), right=box(c - 1), bottom=box(d - 1)) for a, b, c, d, _ in boxes
        ]
        return faces, boxes[:, 4].tolist(), [0] * len(boxes)

    def predict(self, picture, box):
        return SimpleNamespace(parts=lambda: [SimpleNamespace(x=(box[0] + box[2]) / 2, y=(box[1] + box[3]) / 2)] * 68)


def moving(frames: int, faces: list[tuple[int, int, int, range]], side: int = 200) -> list[np.ndarray]:
    """Pictures with squares: (colour, side of the square, place at the beginning, the frames that show it); each moves
    by a pixel a frame.
    """
    pictures = np.zeros((frames, side, side, 3), np.uint8)
    for colour, size, place, shown in faces:
        for n in shown:
            pictures[n, place + n : place + n + size, place + n : place + n + size, colour] = 255
    return list(pictures)


def points_of(pictures, monkeypatch, tmp_path, **options):
    dlib, model = StandIn(), tmp_path / "model.dat"
    model.touch()
    monkeypatch.setattr(landmarks, "_dlib", lambda file: (dlib, dlib.predict, lambda *box: box))
    monkeypatch.setattr(landmarks, "dlib_model", lambda file: model)
    return landmarks.face_points(pictures, model, **options), dlib.looks


def test_a_face_is_followed_between_the_frames_that_are_looked_at(monkeypatch, tmp_path):
    found, looks = points_of(moving(30, [(0, 40, 20, range(30))]), monkeypatch, tmp_path)
    np.testing.assert_allclose(found.points[:, 0, 0], 40 + np.arange(30), atol=0.51)
    assert found.faces == 1 and not found.crowded and (found.confidence > SUCCESS_BOUNDARY).all()
    assert looks == 9  # of frames 0, 4, ... 28 and the last


@pytest.mark.parametrize("gone", [range(10, 13), range(9, 11), range(0, 5), range(27, 30), range(12, 13)])
def test_frames_without_the_face_are_unknown_wherever_they_are(gone, monkeypatch, tmp_path):
    """Those that a look misses are found where both ends disagree; a single frame between two looks is not seen."""
    shown = [n for n in range(30) if n not in gone]
    found, _ = points_of(moving(30, [(0, 40, 20, shown)]), monkeypatch, tmp_path)
    known = np.isfinite(found.points).all((1, 2))
    missed = [n for n in gone if n // 4 * 4 not in gone and -(-n // 4) * 4 not in gone]
    assert np.flatnonzero(~known).tolist() == [n for n in gone if n not in missed]
    assert ((found.confidence > 0) == known).all() and found.faces == 1


@pytest.mark.parametrize("rule, colour", [("longest", 0), ("largest", 1), ("confident", 1)])
def test_of_several_faces_the_named_rule_chooses(rule, colour, monkeypatch, tmp_path):
    clip = moving(40, [(0, 30, 5, range(40)), (1, 60, 90, range(8, 33))])
    found, _ = points_of(clip, monkeypatch, tmp_path, face=rule)
    known = np.isfinite(found.points).all((1, 2))
    assert known.sum() == (40, 25)[colour] and found.faces == 2 and found.crowded == 25
    assert found.points[20, 0, 0] == pytest.approx((5 + 20 + 15, 90 + 20 + 30)[colour], abs=0.51)


def test_a_face_that_comes_back_elsewhere_or_late_is_another_one(monkeypatch, tmp_path):
    near, _ = points_of(moving(60, [(0, 30, 5, [*range(20), *range(30, 60)])]), monkeypatch, tmp_path)
    late, _ = points_of(moving(90, [(0, 30, 5, [*range(20), *range(50, 90)])]), monkeypatch, tmp_path)
    far = moving(60, [(0, 30, 5, range(20)), (0, 30, 100, range(24, 60))])
    assert (near.faces, late.faces, points_of(far, monkeypatch, tmp_path)[0].faces) == (1, 2, 2)


def test_no_face_and_no_frame_are_no_error(monkeypatch, tmp_path):
    for count in (0, 7):
        found, _ = points_of(moving(count, []), monkeypatch, tmp_path)
        assert found.points.shape == (count, 68, 2) and np.isnan(found.points).all() and not found.confidence.any()


def test_what_is_written_is_read_back_and_serves_alignment_without_any_action_unit(dotted, tmp_path):
    """The same points with and without AU columns: fast, tolerant and through the packed store."""
    manifest = datasets.read_dataset("folder", dotted / "clips")
    for file in (dotted / "openface").rglob("*.csv"):
        track = read_openface(file)
        plain = tmp_path / "plain" / file.relative_to(dotted / "openface")
        plain.parent.mkdir(parents=True)
        found = landmarks.FacePoints(track.landmarks.astype(float), np.where(track.ok, 0.9, 0), 1, 0)
        landmarks.write_points(plain, found, track.frame, track.frame / 25)
        with pytest.raises(InputError, match="header: found no AU column"):
            read_openface(plain)
        again = read_openface(plain, require_aus=False, require_presence=False)
        odd = plain.with_name("odd.csv")
        odd.write_text(plain.read_text().replace(", ", ";").replace("\n", ";\n", 1))  # through the tolerant reader
        for read in (again, read_openface(odd, require_aus=False, require_presence=False)):
            np.testing.assert_allclose(read.landmarks, track.landmarks, atol=0.051)
            assert read.ok.tolist() == track.ok.tolist() and np.isnan(read.intensity).all()
            np.testing.assert_allclose(read.timestamp, track.frame / 25, atol=6e-4)
        odd.unlink()
    with_aus, without = (
        datasets.pack(manifest, tmp_path / name, 6, 64, progress=False, align=folder)
        for name, folder in (("a", dotted / "openface"), ("b", tmp_path / "plain"))
    )
    assert np.abs(with_aus.frames.astype(int) - without.frames).mean() < 2
    found = packed_landmarks(without, openface_points(without, manifest, tmp_path / "plain"), progress=False)
    assert not found.without and np.isfinite(found.points).any()


@pytest.mark.parametrize("lacks", ["x_67", "success and y_0"])
def test_a_file_with_neither_action_units_nor_all_points_is_refused(tmp_path, lacks):
    names = ["frame", *(name for name in LANDMARK_COLUMNS if name not in lacks.split())]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    with pytest.raises(InputError, match="no AU column"):
        read_openface(tmp_path / "a.csv", require_aus=False, require_presence=False)


REAL = SHARED / "data" / "real_faces"
needs_dlib = pytest.mark.skipif(
    find_spec("dlib") is None, reason="dlib is not installed: pip install audfer[landmarks]"
)
needs_clips = pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")


@needs_dlib
@needs_clips
def test_real_clips_go_to_points_packs_and_a_quarantine_from_the_command_line(tmp_path, monkeypatch, capsys):
    for name in ("happiness/1001_DFA_HAP_XX.flv", "neutral/rav_zoom_neutral.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True)
        (tmp_path / "clips" / name).symlink_to(REAL / name)
    (tmp_path / "clips" / "neutral" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "clips" / "notes.docx").write_bytes(b"no clip")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "landmarks", "clips", "--workers", "1"]) == 1
    said = capsys.readouterr()
    assert "a face in 139 of 139 frames of 2 clips" in said.out
    quarantine = pd.read_csv("clips_landmarks_quarantine.csv").set_index("path")["reason"]
    assert "unreadable" in quarantine["neutral/broken.mp4"] and "by its name" in quarantine["notes.docx"]
    assert Image.open("clips_landmarks_sheet.png").size[0] > 500
    file = Path("clips_landmarks/happiness/1001_DFA_HAP_XX.csv")
    found = read_openface(file, require_aus=False, require_presence=False)
    assert found.ok.all() and len(found) == 56 and found.timestamp[-1] == pytest.approx(55 / 29.97, abs=0.02)
    eyes = found.landmarks[:, 36:42].mean(1) - found.landmarks[:, 42:48].mean(1)
    assert np.median(np.abs(eyes[:, 0])) == pytest.approx(43, abs=3)  # pixels
    # a second run finds everything; another rule for faces writes the files again
    before = file.stat().st_mtime_ns
    assert cli.main(["data", "landmarks", "clips", "--workers", "1"]) == 1 and file.stat().st_mtime_ns == before
    (tmp_path / "clips" / "neutral" / "broken.mp4").unlink()
    # without a folder the points are found first; with one they are taken as they are
    for out, folder in (("packed", []), ("taken", ["clips_landmarks"])):
        assert cli.main(["data", "pack", "folder", out, "--root", "clips", "--workers", "1", "--align", *folder]) == 0
    packed = datasets.open_packed("packed")
    assert np.array_equal(packed.frames, datasets.open_packed("taken").frames)
    made = Path("packed_landmarks/happiness/1001_DFA_HAP_XX.csv")
    assert made.read_bytes() == file.read_bytes() and Path("packed/contact_sheet.png").is_file()
    assert len(packed) == 2 and packed.frames.std() > 20
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "clip.csv").write_text("frame")
    assert cli.main(["data", "landmarks", "clips", "--out", "theirs"]) == 2
    assert "files of another command" in capsys.readouterr().err


def test_landmarks_without_dlib_say_what_to_install(tmp_path, monkeypatch, capsys, dotted):
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert cli.main(["data", "landmarks", str(dotted / "clips"), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "audfer[landmarks]"' in capsys.readouterr().err


def test_any_folder_or_video_names_its_clips_as_the_folder_reader_does(tmp_path, dotted):
    manifest = any_clips(dotted / "clips")
    assert (
        manifest.table["clip_id"].tolist()
        == datasets.read_dataset("folder", dotted / "clips").table["clip_id"].tolist()
    )
    assert not manifest.not_read
    for name in ("a/one.MP4", "a/one.flv", "a/.hidden.mp4", "two.m4v", "a/note.xyz", "a/sound.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    manifest = any_clips(tmp_path)
    assert manifest.table["clip_id"].tolist() == ["two", "a/one.MP4", "a/one.flv"]
    assert sorted(manifest.not_read) == ["a/note.xyz", "a/sound.wav"]
    assert any_clips(tmp_path / "two.m4v").table["path"].tolist() == ["two.m4v"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.xyz").touch()
    for wrong, sentence in (("b", r"none, 1 other files \(the first: x.xyz\)"), ("nowhere", "nothing there")):
        with pytest.raises(InputError, match=sentence):
            any_clips(tmp_path / wrong)
    with pytest.raises(InputError, match="a .xyz file, expected a video"):
        any_clips(tmp_path / "b" / "x.xyz")


def test_landmarks_for_a_network_without_are_refused_on_the_command_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path))
    assert cli.main(["train", "--profile", "smoke", "--model", "m3dfel", "--landmarks", "csvs"]) == 2
    assert "--landmarks: found 'csvs', expected nothing for m3dfel: it looks at no landmarks" in capsys.readouterr().err
