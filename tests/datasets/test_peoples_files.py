"""Pictures and videos as phones, cameras, drives and other programs leave them, not as our renderer writes them."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from small_layouts import lines, video

from audfer import datasets
from audfer.companion import cli
from audfer.datasets import alignment, manifest
from audfer.datasets.check import _measure
from audfer.errors import InputError
from audfer.openface import INTENSITY_COLUMNS, LANDMARK_COLUMNS, AUTrack, measured_size

RNG = np.random.default_rng(17)
#: wider than high, no symmetry
SCENE = np.array([[0, 40, 80, 120], [160, 200, 240, 255]], np.uint8).repeat(16, 0).repeat(16, 1)


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(9))
def test_pictures_stand_upright_as_pillow_itself_turns_them(tmp_path, orientation, suffix):
    exif, path = Image.Exif(), tmp_path / f"1{suffix}"
    exif[0x0112] = orientation  # 0 is no orientation: as it lies
    Image.fromarray(np.stack([SCENE] * 3, -1)).save(path, exif=exif, quality=100)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(manifest.read_image(path), np.asarray(expected))
    assert manifest.read_image(path, (8, 12)).shape == (12, 8, 3)
    assert _measure(str(path), False)[2] == _measure(str(path), True)[2] == expected.size
    with Image.open(path) as image:
        assert manifest.upright_size(image) == expected.size


def test_damaged_exif_leaves_a_picture_as_it_lies(tmp_path):
    path = tmp_path / "1.jpg"
    Image.fromarray(SCENE).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert manifest.read_image(path).shape == (32, 64, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_shows_the_same_scene(tmp_path, mode):
    if mode.startswith("I"):
        image = Image.fromarray(SCENE.astype(np.uint16) * 257)
        image = image.convert("I") if mode == "I" else image
    else:
        image = Image.fromarray(SCENE)
        image = image.convert(mode) if mode == "P" else image.convert("RGB").convert(mode)
    path = tmp_path / ("1.tif" if mode in ("CMYK", "I") else "1.png")
    image.save(path)
    expected = np.asarray(image.convert("L")) if mode == "1" else SCENE
    assert np.abs(manifest.read_image(path).astype(int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize("values", [np.full((4, 4), 70000, np.int32), np.full((4, 4), 0.5, np.float32)])
def test_pictures_whose_white_nobody_knows_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "1.tif")
    with pytest.raises(InputError, match=r"1\.tif: image: found unreadable \(grey values"):
        manifest.read_image(tmp_path / "1.tif")


def test_a_plain_jpeg_is_decoded_as_ever(tmp_path):
    path = tmp_path / "1.jpg"
    Image.fromarray(RNG.integers(0, 255, (90, 70, 3), np.uint8)).save(path)
    with Image.open(path) as image:
        assert np.array_equal(manifest.read_image(path), np.asarray(image.convert("RGB")))
    with Image.open(path) as image:
        image.draft("RGB", (20, 20))
        small = image.convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)
        assert np.array_equal(manifest.read_image(path, (20, 20)), np.asarray(small))


# -------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0], [0, 1]], lambda p: p),
        ([[0, 1], [-1, 0]], lambda p: np.rot90(p, -1)),  # ffmpeg: (x', y') = (-y, x), a clockwise quarter turn
        ([[-1, 0], [0, -1]], lambda p: np.rot90(p, 2)),
        ([[0, -1], [1, 0]], lambda p: np.rot90(p)),
        ([[-1, 0], [0, 1]], lambda p: p[:, ::-1]),
        ([[1, 0], [0, -1]], lambda p: p[::-1]),
        ([[0, 1], [1, 0]], lambda p: p.transpose(1, 0, 2)),
        ([[0, -1], [-1, 0]], lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
    ],
)
def test_display_matrices_turn_and_mirror(matrix, expected):
    picture = RNG.integers(0, 255, (6, 9, 3), np.uint8)
    turned = manifest._turned(picture, np.array(matrix) * 65536)
    assert np.array_equal(turned, expected(picture))


def lay(path: Path, degrees: int) -> None:
    """Write a rotation into an MP4's track header, as phones do."""
    data, cos, sin = bytearray(path.read_bytes()), *{90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids, layer and volume
    for place, value in zip((0, 1, 3, 4), (cos, sin, -sin, cos), strict=True):
        data[at + 4 * place : at + 4 * place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def scene(path: Path, codec: str = "mpeg4", pixels: str = "yuv420p") -> Path:
    """A video of the scene, as many frames as FFmpeg needs to know a transport stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = SCENE.shape
        stream.pix_fmt = pixels
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.stack([SCENE] * 3, -1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phones_video_stands_upright_in_packs_and_sizes(tmp_path, degrees):
    lying = scene(tmp_path / "data" / "happy" / "clip.mp4")
    as_stored = next(manifest.video_frames(lying))[1]
    lay(lying, degrees)
    upright = np.rot90(as_stored, -degrees // 90)
    assert np.array_equal(next(manifest.video_frames(lying))[1], upright)
    assert manifest.video_shape(lying) == manifest.video_shape(lying, True) == (25, upright.shape[1::-1])
    clips = datasets.read_dataset("folder", tmp_path / "data")
    assert np.array_equal(datasets.load_frames(clips, 0)[0], upright)
    assert np.array_equal(next(manifest.stream_frames(clips))[2], upright)
    assert manifest.picture_sizes(clips, 0, np.arange(2)).tolist() == [list(upright.shape[1::-1])] * 2


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[(name, "mpeg4") for name in ("a.MP4", "a.m4v", "a.mkv", "a.MOV", "a.avi", "a.3gp")],
        *[(name, "mpeg2video") for name in ("a.mpg", "a.MPEG", "a.mts", "a.m2ts", "a.ts", "a.vob")],
        *[("a.webm", "libvpx"), ("a.flv", "flv"), ("a.wmv", "wmv2"), ("a.asf", "wmv2"), ("a.ogv", "libvpx")],
    ],
)
def test_videos_of_every_suffix_are_clips(tmp_path, name, codec):
    scene(tmp_path / "happy" / name, codec)
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.table["clip_id"].tolist() == ["happy/a"] and not clips.dropped
    shown = datasets.load_frames(clips, 0)
    assert shown.shape == (25, *SCENE.shape, 3) and np.abs(shown[..., 0].astype(int) - SCENE).mean() < 12


# ----------------------------------------------------------------------------------------------- what else lies there


@pytest.mark.parametrize(
    "leftover",
    ["@eaDir/clip1.mp4", "__MACOSX/clip1.mp4", "._clip1.mp4", ".AppleDouble/clip1.mp4", "#recycle/clip9.mp4"],
)
@pytest.mark.parametrize("above", ["", "happy/"])
def test_leftovers_of_drives_and_archives_are_no_clips(tmp_path, leftover, above):
    video(tmp_path / "happy" / "clip1.mp4")
    video(tmp_path / above / leftover)
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.table["path"].tolist() == ["happy/clip1.mp4"] and not clips.dropped


def test_what_is_no_clip_is_counted_by_its_kind(tmp_path):
    for name in ("clip1.mp4", "anna/clip1.mp4"):
        video(tmp_path / "happy" / name)
    for name in ("notes.txt", "clip2.braw", "clip3.BRAW", "clip4", "anna/sound.wav"):
        lines(tmp_path / "happy" / name, "")
    (tmp_path / "happy" / "clip5.mp4").mkdir()
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.dropped == {
        "happy: .txt files, not read": 1,
        "happy: .braw files, not read": 2,
        "happy: nameless files, not read": 1,
        "happy: .wav files, not read": 1,
        "happy: folders named like videos": 1,
    }


def test_openface_leaves_copies_of_clips_that_are_none(tmp_path, capsys):
    def openface(place: Path, stem: str) -> None:
        video(place / f"{stem}.avi")
        lines(place / f"{stem}_of_details.txt", f"Input:{stem}.mp4")
        video(place / f"{stem}_aligned" / "x.avi").rename(place / f"{stem}_aligned" / "frame_det_00_000001.bmp")

    for place, stem in (("", "one"), ("", "two"), ("anna", "three")):
        video(tmp_path / "happy" / place / f"{stem}.mp4")
    openface(tmp_path / "happy" / "processed", "one")
    openface(tmp_path / "happy", "two")
    openface(tmp_path / "happy" / "anna", "three")
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.table["path"].tolist() == ["happy/anna/three.mp4", "happy/one.mp4", "happy/two.mp4"]
    assert clips.dropped["OpenFace's pictures of other clips"] == 6
    pack = ["data", "pack", "folder", str(tmp_path / "out"), "--root", str(tmp_path), "--frames", "2", "--size", "16"]
    assert cli.main([*pack, "--workers", "1"]) == 0
    assert "OpenFace's pictures of other clips 6" in capsys.readouterr().out


def test_openfaces_faces_and_folders_are_known_by_what_they_hold(tmp_path):
    def faces(place: str) -> None:
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(SCENE).save(tmp_path / place / "frame_det_00_000001.bmp")

    for clip in ("happy/one.avi", "happy/anna/three.avi", "happy/bob/three.avi", "sad/two.mp4", "processed/two.avi"):
        video(tmp_path / clip)
    for clip in ("happy/one", "happy/anna/three", "happy/bob/three", "processed/two"):  # originals of the same ending
        lines(tmp_path / f"{clip}_of_details.txt", "Input:x")
    for place in ("happy/one_aligned", "sad/two_aligned"):
        faces(place)
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.table["clip_id"].tolist() == ["happy/anna/three", "happy/bob/three", "happy/one", "sad/two"]
    assert clips.dropped["OpenFace's pictures of other clips"] == 2
    assert clips.dropped["OpenFace's folder of what it wrote"] == 1


def test_an_original_beside_openfaces_notes_and_aligned_faces_alone_stay(tmp_path):
    video(tmp_path / "happy" / "one.avi")
    lines(tmp_path / "happy" / "one_of_details.txt", "Input:one.avi")
    (tmp_path / "sad" / "two_aligned").mkdir(parents=True)
    Image.fromarray(SCENE).save(tmp_path / "sad" / "two_aligned" / "frame_det_00_000001.bmp")
    clips = datasets.read_dataset("folder", tmp_path)
    assert clips.table["clip_id"].tolist() == ["happy/one", "sad/two_aligned"]


@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize("fold", range(1, 6))
def test_copies_of_a_clip_are_on_one_side_of_the_split_whatever_their_names(tmp_path, fold, pictures):
    def write(name: str, value: int) -> None:
        if pictures:
            for number in range(2):
                (tmp_path / name).mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), value + number).save(tmp_path / name / f"{number}.png")
        else:
            video(tmp_path / f"{name}.mp4", value=value)

    for number in range(10):
        write(f"happy/{number}", 10 * number)
        for copy in (f"happy/{number} (1)", f"happy/copy of {number}", f"sad/{number}x"):
            write(copy, 10 * number)
    clips = datasets.read_dataset("folder", tmp_path, fold=fold)
    side = clips.table.set_index("clip_id")["split"]
    for number in range(10):
        of_one = {side[f"happy/{number}"], side[f"happy/{number} (1)"], side[f"happy/copy of {number}"]}
        assert of_one == {side[f"sad/{number}x"]}
    assert (side == "test").sum() == 8 and "copies of other clips, on the same side of the split: 30" in clips.notes[0]


@pytest.mark.parametrize("name", [b"jos\xe9.mp4", b"\xff\xfe/clip.mp4"])
def test_names_that_are_no_utf8_are_left_out_and_named(tmp_path, name):
    for clip in (b"good.mp4", name):
        path = os.fsencode(tmp_path / "happy") + b"/" + clip
        os.makedirs(os.path.dirname(path), exist_ok=True)
        video(tmp_path / "clip.mp4").rename(os.fsdecode(path))
    clips = datasets.read_dataset("folder", tmp_path)
    assert len(clips) == 1 and clips.dropped == {"name is no UTF-8": 1}
    "".join((*clips.notes, clips.fingerprint())).encode()
    assert "\\udc" in clips.notes[-1]


def test_a_class_folder_that_is_no_utf8_is_refused_or_left_out(tmp_path):
    video(tmp_path / "happy" / "clip.mp4")
    video(Path(os.fsdecode(os.fsencode(tmp_path) + b"/g\xeane")) / "clip.mp4")
    with pytest.raises(InputError) as error:
        datasets.read_dataset("folder", tmp_path)
    str(error.value).encode()
    clips = datasets.read_dataset("folder", tmp_path, classes="all")
    "".join(clips.classes).encode()
    assert clips.table["clip_id"].tolist() == ["happy/clip"]


# ---------------------------------------------------------------------------------------------------------- landmarks


def track(scale: float = 1, shift: float = 0) -> AUTrack:
    """Ten frames of a face in the middle of a picture of 200 x 200."""
    points = np.zeros((68, 2))
    points[:36] = [100, 130]
    points[36:42], points[42:48], points[48:], points[8] = [80, 80], [120, 80], [100, 120], [100, 160]
    points[48], points[54] = [85, 120], [115, 120]
    landmarks = np.repeat((points * scale + shift)[None], 10, 0).astype(np.float32)
    n = len(landmarks)
    units = np.zeros((n, 17), np.float32), np.zeros((n, 18), np.float32)
    return AUTrack(*units, np.ones(n, bool), np.arange(1, n + 1), np.zeros(n), landmarks)


@pytest.mark.parametrize(("scale", "shift"), [(4, 0), (2, 0), (1, 150), (1, -110)])
def test_landmarks_outside_the_pictures_are_refused(scale, shift):
    with pytest.raises(InputError, match="points up to x=.* in pictures of 200x200"):
        alignment.align(track(scale, shift), np.arange(3), "a.csv", np.full((3, 2), 200))


def test_a_face_that_leaves_the_picture_for_a_while_or_with_its_chin_stays():
    leaving = track()
    leaving.landmarks[:5] += 150
    for face in (track(), track(1, 60), leaving):
        alignment.align(face, np.arange(10), "a.csv", np.full((10, 2), 200))


def note(path: Path, width: float, height: float) -> Path:
    """What OpenFace writes beside a file of pictures of that size."""
    focus = 500 * (width / 640 + height / 480) / 2
    path.with_name(f"{path.stem}_of_details.txt").write_text(
        f"Input:/x.mp4\nCamera parameters:{focus:g},{focus:g},{width / 2:g},{height / 2:g}\n"
    )
    return path


@pytest.mark.parametrize("scale", [0.25, 0.5, 1, 3])
def test_landmarks_of_another_copy_are_scaled_where_openface_noted_its_size(tmp_path, scale):
    file, sizes = note(tmp_path / "a.csv", 200 * scale, 200 * scale), np.full((3, 2), 200)
    other = track(scale, (scale - 1) / 2)  # the same scene: pixels' centres, not their corners, are whole numbers
    points = alignment.fitted(other, sizes, file).landmarks
    np.testing.assert_allclose(points, track().landmarks, atol=1e-3)
    np.testing.assert_array_equal(alignment.fitted(other, sizes, tmp_path / "b.csv").landmarks, other.landmarks)


def test_landmarks_of_another_cut_are_refused_and_pictures_of_several_sizes_keep_theirs(tmp_path):
    file = note(tmp_path / "a.csv", 100, 75)
    with pytest.raises(InputError, match="of pictures of 100x75 .*, expected those of these pictures, 200x200"):
        alignment.fitted(track(0.3), np.full((3, 2), 200), file)
    assert alignment.fitted(track(), np.array([[200, 200], [100, 75]]), file).landmarks is not None
    (tmp_path / "a_of_details.txt").write_text("Camera parameters:900,900,320,240\n")  # somebody's own camera
    assert measured_size(file) is None


@pytest.mark.parametrize("copy", [1, 0.5])
def test_faces_are_cut_out_of_the_right_place_with_landmarks_of_a_smaller_copy(tmp_path, copy):
    clip = tmp_path / "data" / "happy" / "clip"
    clip.mkdir(parents=True)
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[60:140, 60:140] = 255  # around the face
    for number in range(3):
        Image.fromarray(picture).save(clip / f"{number + 1}.png")
    (tmp_path / "csv" / "happy").mkdir(parents=True)
    file, points = note(tmp_path / "csv" / "happy" / "clip.csv", 200 * copy, 200 * copy), track(copy).landmarks[0]
    cells = {"frame": 1, "timestamp": 0.0, "confidence": 0.98, "success": 1, **dict.fromkeys(INTENSITY_COLUMNS, 1.0)}
    cells |= dict(zip(LANDMARK_COLUMNS, points.T.reshape(-1).tolist(), strict=True))
    pd.DataFrame([cells | {"frame": n + 1, "timestamp": n / 25} for n in range(3)]).to_csv(file, index=False)
    manifest = datasets.read_dataset("folder", tmp_path / "data")
    packed = datasets.pack(manifest, tmp_path / "out", 2, 32, align=tmp_path / "csv", workers=1, progress=False)
    assert packed.frames[0, 0, 8:24, 8:24].mean() > 250  # black, were it cut out of the left upper quarter


# ------------------------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize(
    "annotations",
    ["EXPR_Set", "3rd ABAW Annotations/Third ABAW Annotations/EXPR_Classification_Challenge", "annotations/EXPR_Set"],
)
@pytest.mark.parametrize(
    "images",
    [
        "cropped_aligned_images",
        "cropped_aligned/cropped_aligned",
        "batch2/cropped_aligned_new_50_vids",
        "cropped_aligned_images/batch1",
    ],
)
def test_affwild2_is_found_as_its_editions_unpack(tmp_path, annotations, images):
    for part, name in (("Train_Set", "v1"), ("Validation_Set", "v2")):
        lines(
            tmp_path / annotations / part / f"{name}.txt", "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise", "4"
        )
        (tmp_path / images / name).mkdir(parents=True)
        Image.fromarray(SCENE).save(tmp_path / images / name / "00001.jpg")
    assert datasets.read_dataset("AffWild2", tmp_path).table["expression"].tolist() == [0, 0]


@pytest.mark.parametrize("clip", ["01-01-03-01-01-01-01", "02-01-03-01-01-01-01"])
@pytest.mark.parametrize("file", ["01-01-03-01-01-01-01.csv", "02-01-03-01-01-01-01.txt"])
def test_a_ravdess_trial_has_one_track_whichever_copy_was_tracked(tmp_path, clip, file):
    (tmp_path / file).touch()
    assert alignment.track_file(tmp_path, clip) == tmp_path / file
    (tmp_path / f"{clip}.csv").touch()
    assert alignment.track_file(tmp_path, clip).stem == clip  # its own first
    assert alignment.track_file(tmp_path, clip[:-1] + "2") is None
