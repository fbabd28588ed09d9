"""Every kind of video and picture that people have, written by real encoders: taken as it is shown, or named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_layouts import video as write_video

from audfer import datasets
from audfer.companion import cli
from audfer.datasets import manifest
from audfer.datasets.common import any_clips
from audfer.datasets.landmarks import frame_seconds
from audfer.errors import InputError

COUNT, STEP = 20, 10
#: shown at these milliseconds
UNEVEN = np.cumsum([0, *[20, 60, 40, 33, 100] * 4])[:COUNT].tolist()


def encode(path: Path, codec: str, pixels: str, size=(64, 48), stamps: list[int] | None = None, **options) -> Path:
    """A video whose frame n is grey, ``STEP * n``; ``stamps`` in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={key: str(value) for key, value in options.items()})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if stamps:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(COUNT):
            picture = np.full((size[1], size[0], 3), STEP * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stamps:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path, cover: bool = False) -> Path:
    """A file with sound and no video; with a picture of the cover, which FFmpeg takes for a video stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 16
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover:
            grey = np.zeros((16, 16, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(picture.encode())
    return path


def covered(path: Path) -> Path:
    return sound(path, cover=True)


def shown(path: Path, first: int = 0, count: int = COUNT, size=(64, 48), tolerance: float = 4.0) -> None:
    """All ways to read a video give the same frames, the right ones."""
    clips = datasets.read_dataset("folder", path.parents[1])
    assert manifest.video_shape(path) == manifest.video_shape(path, True) == (count, size)
    frames = datasets.load_frames(clips, 0)
    assert frames.shape == (count, size[1], size[0], 3) and frames.flags.c_contiguous
    np.testing.assert_allclose(frames.mean((1, 2, 3)), STEP * np.arange(first, first + count), atol=tolerance)
    streamed = [picture for _, _, picture in manifest.stream_frames(clips)]
    assert np.array_equal(np.stack(streamed), frames)
    assert np.array_equal(datasets.load_frames(clips, 0, [count - 1])[0], frames[-1])


@pytest.mark.parametrize(
    "name, codec, pixels, size",
    [
        ("a.mp4", "libx264", "yuv420p", (64, 48)),
        ("ten_bits.mkv", "libx264", "yuv420p10le", (64, 48)),
        ("ten_bits.mp4", "libx265", "yuv420p10le", (64, 64)),
        ("ten_bits.mov", "prores_ks", "yuv422p10le", (64, 48)),
        ("odd.mp4", "libx264", "yuv444p", (65, 47)),
        ("odd.avi", "mpeg4", "yuv420p", (65, 47)),
        ("padded_rows.mp4", "libx264", "yuv420p", (1080, 70)),
        ("grey.avi", "ffv1", "gray", (64, 48)),
        ("full_range.mov", "mjpeg", "yuvj420p", (64, 48)),
        ("vp9.WEBM", "libvpx-vp9", "yuv420p", (64, 48)),
        ("av1.mp4", "libsvtav1", "yuv420p", (64, 64)),
        ("moving.gif", "gif", "rgb8", (64, 48)),
        ("old.wmv", "wmv2", "yuv420p", (64, 48)),
    ],
)
def test_videos_of_every_kind_give_all_their_frames(tmp_path, name, codec, pixels, size):
    path = encode(tmp_path / "happy" / name, codec, pixels, size)
    shown(path, size=size, tolerance=20 if pixels == "rgb8" else 4)
    np.testing.assert_allclose(frame_seconds(path, COUNT), np.arange(COUNT) / 25, atol=2e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_a_variable_frame_rate_loses_no_frame_and_keeps_its_times(tmp_path, name):
    path = encode(tmp_path / "happy" / name, "libx264", "yuv420p", stamps=UNEVEN)
    shown(path)
    np.testing.assert_allclose(frame_seconds(path, COUNT), np.array(UNEVEN) / 1000, atol=2e-3)


def test_an_edit_list_hides_frames_from_every_way_to_read(tmp_path):
    """A clip cut without encoding: the file holds frames that the decoder needs and nobody shows."""
    whole = encode(tmp_path / "whole.mp4", "libx264", "yuv420p", bf=2, g=12)
    path = tmp_path / "happy" / "cut.mp4"
    path.parent.mkdir()
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            packet.stream, back = stream, int(0.2 / packet.time_base)
            packet.pts, packet.dts = packet.pts - back, packet.dts - back
            target.mux(packet)
    shown(path, first=5, count=15)
    np.testing.assert_allclose(frame_seconds(path, 15), np.arange(15) / 25, atol=2e-3)
    packed = datasets.pack(datasets.read_dataset("folder", tmp_path), tmp_path / "out", 4, 16, progress=False)
    assert packed.frame_numbers[0].max() < 15 and packed.quarantine.empty


def broken(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no video")
    return path


@pytest.mark.parametrize(
    "write, sentence", [(sound, "no video stream in it, only sound"), (covered, "only sound"), (broken, "unreadable")]
)
def test_what_gives_no_frame_is_named_in_the_quarantine_and_the_rest_is_packed(tmp_path, write, sentence):
    write_video(tmp_path / "data" / "happy" / "good.mp4")
    write(tmp_path / "data" / "happy" / "bad.mp4")
    clips = datasets.read_dataset("folder", tmp_path / "data")
    packed = datasets.pack(clips, tmp_path / "out", 2, 16, progress=False)
    assert packed.clip_ids == ["happy/good"] and packed.quarantine["clip_id"].tolist() == ["happy/bad"]
    assert sentence in packed.quarantine["reason"].iloc[0]


PICTURE = np.linspace(0, 255, 24 * 32).reshape(24, 32)


def still(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray((PICTURE * 257).astype(np.uint16))
    grey = Image.fromarray(PICTURE.astype(np.uint8))
    if mode == "P":
        return grey.quantize(256)
    return grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr") else grey.convert(mode)


@pytest.mark.parametrize(
    "suffix, mode",
    [(".png", mode) for mode in ("L", "LA", "I;16", "RGB", "RGBA", "P")]
    + [(".jpg", mode) for mode in ("L", "RGB", "CMYK")]
    + [(".tiff", mode) for mode in ("L", "I;16", "RGB", "CMYK")]
    + [(".webp", "RGB"), (".bmp", "L"), (".JPEG", "YCbCr")],
)
def test_pictures_of_every_kind_show_the_same(tmp_path, suffix, mode):
    path = tmp_path / f"1{suffix}"
    still(mode).save(path, quality=95)
    read = manifest.read_image(path)
    assert read.shape == (24, 32, 3) and np.abs(read.mean(-1) - PICTURE).mean() < 4


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_animated_pictures_are_refused_as_frames(tmp_path, suffix):
    """Which of them the frame would be is not said; as a clip of their own, GIFs are videos (see above)."""
    first, *others = (Image.new("RGB", (24, 16), (40 * n,) * 3) for n in range(3))
    (tmp_path / "happy" / "clip").mkdir(parents=True)
    first.save(tmp_path / "happy" / "clip" / f"1{suffix}", save_all=True, append_images=others)
    with pytest.raises(InputError, match="3 pictures in one file"):
        datasets.load_frames(datasets.read_dataset("folder", tmp_path), 0)


def test_a_phones_jpeg_with_a_second_picture_is_its_first(tmp_path):
    first, second = Image.new("RGB", (24, 16), "white"), Image.new("RGB", (24, 16), "black")
    first.save(tmp_path / "1.jpg", "MPO", save_all=True, append_images=[second])
    assert manifest.read_image(tmp_path / "1.jpg").min() > 250


def test_files_that_nobody_reads_are_named_one_by_one(tmp_path, capsys):
    write_video(tmp_path / "data" / "happy" / "good.mp4")
    for name in ("happy/a.braw", "happy/b.braw", "happy/notes.txt"):
        (tmp_path / "data" / name).write_text("")
    out = tmp_path / "out"
    assert cli.main(["data", "pack", "folder", str(out), "--root", str(tmp_path / "data"), "--size", "16"]) == 0
    assert "3 files not read, the first: happy/a.braw (neither a video" in capsys.readouterr().err
    named = pd.read_csv(tmp_path / "out_quarantine.csv")
    assert named["path"].tolist() == ["happy/a.braw", "happy/b.braw", "happy/notes.txt"]
    assert list(any_clips(tmp_path / "data").not_read) == named["path"].tolist()


def test_a_class_folder_of_which_nothing_is_read_is_an_error(tmp_path):
    write_video(tmp_path / "happy" / "good.mp4")
    (tmp_path / "sad").mkdir()
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "form.pdf").write_text("")
    assert len(datasets.read_dataset("folder", tmp_path)) == 1  # an empty class and a folder of another kind
    (tmp_path / "sad" / "a.braw").write_text("")
    with pytest.raises(
        InputError, match=r"sad: clips: found none, and files that are not read \(the first: sad/a.braw"
    ):
        datasets.read_dataset("folder", tmp_path)
