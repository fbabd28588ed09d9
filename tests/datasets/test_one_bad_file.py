"""One bad file is one row in the quarantine, whatever is the matter with it; the others go on."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_layouts import video

from audfer.companion import cli
from audfer.datasets import check, manifest
from audfer.errors import InputError
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, read_openface


def large_png(path, side: int = 13_000) -> None:
    """13,000 x 13,000 grey pixels in half a megabyte, and half a gigabyte as RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def postscript(path) -> None:
    """What would have Ghostscript started; it leaves a note if it is."""
    path.write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({path}.ran) (w) file closefile\nshowpage\n%%EOF\n"
    )


#: what may lie in a picture's or a video's place -> how it gets there
BAD = {
    "a pipe": os.mkfifo,
    "a dead link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "an empty file": lambda path: path.touch(),
    "half a file": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
PICTURES = {**BAD, "too many pixels": large_png, "PostScript": postscript}


@pytest.fixture
def clips(tmp_path):
    """Four good clips of two frames, in the folder layout; two expressions."""
    for number in range(4):
        folder = tmp_path / "clips" / ("happy", "sad")[number % 2] / f"clip{number}"
        folder.mkdir(parents=True)
        for frame in (1, 2):
            Image.fromarray(np.full((8, 8, 3), 20 * number + frame, np.uint8)).save(folder / f"{frame}.png")
    return tmp_path / "clips"


@pytest.mark.parametrize("kind", [f"{suffix} {name}" for suffix in ("png", "mp4") for name in (BAD | PICTURES)])
def test_a_clip_with_one_bad_file_is_one_row_and_the_others_are_packed(clips, tmp_path, kind):
    suffix, _, name = kind.partition(" ")
    if suffix == "mp4":
        if name not in BAD:
            pytest.skip("of pictures")
        bad = clips / "happy" / "bad.mp4"
    else:
        bad = clips / "happy" / "bad" / "2.png"
        bad.parent.mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(bad.with_name("1.png"))
    PICTURES[name](bad)
    arguments = ["folder", "--root", str(clips), "--workers", "1"]
    began = time.monotonic()
    assert cli.main(["data", "pack", arguments[0], str(tmp_path / "out"), *arguments[1:]]) == 0
    lost = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    assert lost["clip_id"].tolist() in ([], ["happy/bad"]), lost
    assert len(pd.read_parquet(tmp_path / "out" / "manifest.parquet")) == 4
    # a link that leads nowhere is no video, and said to be missing; everything else is in the quarantine
    assert len(lost) == 1 or (suffix == "mp4" and "link" in name)
    cli.main(["data", "check", *arguments])
    assert time.monotonic() - began < 20 and not os.path.exists(f"{bad}.ran")


def test_pixels_are_bound_before_any_is_decoded(tmp_path):
    large_png(tmp_path / "1.png")
    assert (tmp_path / "1.png").stat().st_size < 1e6
    for read in (lambda: manifest.read_image(tmp_path / "1.png"), lambda: check._measure(tmp_path / "1.png", False)):
        with pytest.raises((InputError, ValueError), match=r"13000 x 13000 pixels, more than 33,554,432"):
            read()
    video(tmp_path / "1.mp4", side=64)
    most, manifest.MOST_PIXELS = manifest.MOST_PIXELS, 1000
    try:
        with pytest.raises(InputError, match="64 x 64 pixels, more than 1,000"):
            next(manifest.video_frames(tmp_path / "1.mp4"))
    finally:
        manifest.MOST_PIXELS = most


def test_pillow_is_told_wherever_it_opens_a_picture_which_formats_it_may_take():
    """Else an EPS of any name would reach Ghostscript."""
    package = Path(manifest.__file__).parents[1]
    opened = [line for path in package.rglob("*.py") for line in path.read_text().splitlines() if "Image.open(" in line]
    assert opened and all("formats=" in line for line in opened)


def wide(count: int, end: str):
    """A CSV of so many columns more than OpenFace's."""

    def write(path) -> None:
        names = ["frame", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS, *(f"more_{i}" for i in range(count))]
        path.write_text(",".join(names) + end + "\n" + ",".join(["1"] + ["0"] * (len(names) - 1)) + end + "\n")

    return write


TABLES = {**BAD, "30,000 columns and a comma": wide(30_000, ","), "a million columns": wide(1_000_000, "")}


@pytest.mark.parametrize("kind", TABLES)
def test_one_bad_csv_is_one_row_and_the_others_are_imported(tmp_path, kind):
    folder = tmp_path / "csvs"
    folder.mkdir()
    for number in range(3):
        wide(0, "")(folder / f"clip{number}.csv")
    TABLES[kind](folder / "bad.csv")
    began = time.monotonic()
    code = cli.main(["au", "import", str(folder), "--out", str(tmp_path / "aus.parquet"), "--workers", "1"])
    assert code == 1 and time.monotonic() - began < 20
    lost = pd.read_csv(tmp_path / "aus_quarantine.csv")
    assert len(lost) == 1 and "bad.csv" in lost.iloc[0].to_string()
    assert pd.read_parquet(tmp_path / "aus.parquet")["clip_id"].nunique() == 3


def test_names_that_are_no_utf8_are_said_and_the_others_go_on(clips, tmp_path, capsys):
    os.mkdir(os.fsencode(clips / "happy") + b"/caf\xe9")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(clips / "happy" / "caf\udce9" / "1.png")
    assert cli.main(["data", "pack", "folder", str(tmp_path / "out"), "--root", str(clips)]) == 0
    assert "rename clips whose names are no UTF-8" in capsys.readouterr().out
    folder = tmp_path / "csvs"
    folder.mkdir()
    for name in ("clip0", "caf\udce9"):
        wide(0, "")(folder / f"{name}.csv")
    assert cli.main(["au", "import", str(folder), "--out", str(tmp_path / "aus.parquet"), "--workers", "1"]) == 1
    assert pd.read_csv(tmp_path / "aus_quarantine.csv")["file"].tolist() == ["caf\\udce9.csv"]
    assert "clip0" in set(pd.read_parquet(tmp_path / "aus.parquet")["clip_id"])


def test_a_table_as_wide_as_openface_and_much_wider_is_read(tmp_path):
    wide(700, "")(tmp_path / "a.csv")
    wide(9_000, ",")(tmp_path / "b.csv")
    assert len(read_openface(tmp_path / "a.csv")) == len(read_openface(tmp_path / "b.csv")) == 1
