"""The packed store: every layout, resumed after a kill, two at once, quarantine, alignment."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_layouts as small
import torch
from PIL import Image

from audfer import datasets, sampling
from audfer.companion import cli
from audfer.datasets import alignment, packing
from audfer.errors import AudferError, InputError
from audfer.files import locked
from audfer.openface import AUTrack
from audfer.synth import face as face_renderer


def content(store: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(store.iterdir())}


@pytest.mark.parametrize("name", small.WRITERS)
def test_every_layout_is_packed(name, tmp_path, capsys):
    root = small.WRITERS[name](tmp_path / name)
    arguments = ["data", "pack", name, str(tmp_path / "out"), "--root", str(root), "--frames", "5", "--size", "8"]
    assert cli.main([*arguments, "--workers", "1"]) == 0
    packed, manifest = datasets.open_packed(tmp_path / "out"), datasets.read_dataset(name, root)
    assert f"{len(manifest)} clips of 5 frames" in capsys.readouterr().out
    assert packed.clip_ids == manifest.table["clip_id"].tolist() and not len(packed.quarantine)
    assert packed.meta["format"] == packing.FORMAT and packed.meta["rule"] == packing.RULE
    for position in (0, len(manifest) - 1):
        numbers = datasets.frame_numbers(manifest, position)
        chosen = sampling.uniform_indices(len(numbers), 5)
        assert np.array_equal(packed.frame_numbers[position], numbers[chosen])
        assert np.array_equal(packed.frames[position], datasets.load_frames(manifest, position, chosen, 8))


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    found = datasets.read_dataset("folder", small.folder(tmp_path / "clips", count=8))
    datasets.pack(found, tmp_path / "one", 3, 8, progress=False)
    datasets.pack(found, tmp_path / "two", 3, 8, progress=False, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two") and len(found) > 2 * packing.CHUNK


_SLOW = """
import sys, time
from audfer import datasets, sampling
from audfer.datasets import packing
load, packing.CHUNK = packing.load_frames, 2
def slowly(manifest, row, *rest):
    time.sleep(0.02)
    with open(sys.argv[3], "a") as log: log.write(row.clip_id + "\\n")
    return load(manifest, row, *rest)
packing.load_frames = slowly
datasets.pack(datasets.read_dataset("folder", sys.argv[1]), sys.argv[2], 3, 8, progress=False)
"""


def test_a_killed_pack_goes_on_and_loses_only_its_chunk_and_two_at_once_do_not_meet(tmp_path):
    root, out, log = small.folder(tmp_path / "clips", count=8), tmp_path / "out", tmp_path / "log"
    found = datasets.read_dataset("folder", root)
    command = [sys.executable, "-c", _SLOW, str(root), str(out), str(log)]
    process = subprocess.Popen(command)
    done = tmp_path / ".out.packing" / "done"
    while process.poll() is None and not (done.is_dir() and len(list(done.glob("0*.json"))) >= 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    read, marked = log.read_text().split("\n")[:-1], len(list(done.glob("0*.json")))
    assert 5 <= marked < 24
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert 0 in [code for _, code in ends]
    assert all(code == 0 or "another process is using this packed store" in error for error, code in ends)
    again = log.read_text().split("\n")[len(read) : -1]
    # what was marked is not read again, the rest once (threads of a chunk take turns)
    assert sorted(again) == sorted(found.table["clip_id"].tolist()[2 * marked :])
    datasets.pack(found, tmp_path / "whole", 3, 8, progress=False)
    assert content(out) == content(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips", "log", "out", "whole"]


def test_a_store_that_another_process_writes_is_left_alone(tmp_path):
    found = datasets.read_dataset("folder", small.folder(tmp_path / "clips"))
    with (
        locked(tmp_path / ".out.packing"),
        pytest.raises(AudferError, match="another process is using this packed store"),
    ):
        datasets.pack(found, tmp_path / "out", 2, 8, progress=False)
    assert not (tmp_path / "out").exists()


def test_unreadable_clips_are_quarantined_with_a_reason_and_the_rest_goes_on(tmp_path, capsys):
    root = small.dfew(tmp_path / "DFEW", count=20)
    clips = root / "Clip" / "clip_224x224"
    shutil.rmtree(clips / "00002")
    (clips / "00104" / "2.jpg").write_bytes(b"no picture")
    arguments = ["data", "pack", "DFEW", str(tmp_path / "out"), "--root", str(root), "--frames", "3", "--size", "8"]
    assert cli.main([*arguments, "--workers", "1"]) == 0
    text, packed = capsys.readouterr().out, datasets.open_packed(tmp_path / "out")
    assert "left out: 1 of 3 train clips of sad, now 2" in text and "quarantine.csv" in text
    assert packed.quarantine["clip_id"].tolist() == ["00002", "00104"]
    assert (
        "no such folder" in packed.quarantine["reason"][0]
        and "2.jpg: image: found unreadable" in packed.quarantine["reason"][1]
    )
    assert len(packed) == 38 and packed.meta["quarantined"] == 2 and "00002" not in packed.clip_ids
    manifest = datasets.read_dataset("DFEW", root, missing="keep")
    for clip_id in ("00001", "00003", "00103", "00105", "00120"):
        expected = datasets.load_frames(manifest, clip_id, [0, 1, 2], 8)
        assert np.array_equal(packed.frames[packed.clip_ids.index(clip_id)], expected)


def test_a_root_without_any_readable_clip_is_refused(tmp_path):
    root = small.dfew(tmp_path / "DFEW")
    for path in (root / "Clip" / "clip_224x224").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of 14 can be read"):
        datasets.pack(datasets.read_dataset("DFEW", root), tmp_path / "out", 3, 8, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["DFEW"]


def test_a_folder_that_is_no_store_is_never_overwritten(tmp_path):
    found = datasets.read_dataset("folder", small.folder(tmp_path / "clips"))
    with pytest.raises(InputError, match="something else than a packed store"):
        datasets.pack(found, tmp_path / "clips", 2, 8, progress=False)
    assert len(datasets.read_dataset("folder", tmp_path / "clips")) == len(found)


def _permuted(column: str):
    def permute(path: Path) -> None:
        table = pd.read_parquet(path)
        table[column] = table[column].to_numpy()[::-1]
        table.to_parquet(path, index=False)

    return permute


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "file, harm",
    [
        ("manifest.parquet", _permuted("expression")),
        ("manifest.parquet", _permuted("split")),
        ("manifest.parquet", _permuted("clip_id")),
        *((name, _cut) for name in ("manifest.parquet", "frames.npy", "frame_numbers.npy")),
        ("frame_numbers.npy", lambda path: np.save(path, np.load(path)[:, ::-1])),
        ("meta.json", lambda path: path.write_text("[" * 100_000)),
        ("meta.json", lambda path: path.write_text(path.read_text().replace('"rule"', '"rul"'))),
        ("meta.json", lambda path: path.write_text(path.read_text().replace('"happy"', '"hbppy"'))),
        (
            "meta.json",
            lambda path: path.write_text(path.read_text().replace('"digest"', '"dig"').replace('"rule"', '"r"')),
        ),
        ("manifest.parquet", Path.unlink),
    ],
)
def test_a_damaged_store_is_refused_where_it_is_opened_and_made_again_where_it_is_packed(tmp_path, file, harm, capsys):
    clips = datasets.read_dataset("folder", small.folder(tmp_path / "clips", count=2))
    before = datasets.pack(clips, tmp_path / "out", 3, 8, progress=False).content
    assert datasets.open_packed(tmp_path / "out").content == before
    harm(tmp_path / "out" / file)
    with pytest.raises(InputError, match="packed clips: found "):
        datasets.open_packed(tmp_path / "out")
    assert datasets.pack(clips, tmp_path / "out", 3, 8, progress=False).content == before
    assert file == "meta.json" or "it is made again" in capsys.readouterr().err


def test_stores_of_other_formats_are_opened_or_refused(tmp_path):
    found = datasets.read_dataset("folder", small.folder(tmp_path / "clips"))
    packed = datasets.pack(found, tmp_path / "out", 2, 8, progress=False)
    path = tmp_path / "out" / "meta.json"
    first = {key: value for key, value in packed.meta.items() if key not in ("format", "quarantined", "alignment")}
    path.write_text(json.dumps(first))  # as format 1 was
    (tmp_path / "out" / "quarantine.csv").unlink()
    assert np.array_equal(datasets.open_packed(tmp_path / "out").frames, packed.frames)
    path.write_text(json.dumps({**packed.meta, "format": packing.FORMAT + 1}))
    with pytest.raises(InputError, match="meta.json: format: found 3, expected 1 to 2"):
        datasets.open_packed(tmp_path / "out")
    for broken in ("", "[]", "{"):
        path.write_text(broken)
        with pytest.raises(InputError):
            datasets.open_packed(tmp_path / "out")


# ---------------------------------------------------------------------------------------------------------- alignment


def track(landmarks: np.ndarray, ok=None) -> AUTrack:
    n = len(landmarks)
    return AUTrack(
        np.zeros((n, 17), np.float32),
        np.zeros((n, 18), np.float32),
        np.ones(n, bool) if ok is None else np.array(ok),
        np.arange(1, n + 1),
        np.full(n, np.nan),
        landmarks.astype(np.float32),
    )


def face(points: np.ndarray) -> np.ndarray:
    """68 landmarks whose eye centres and mouth corners are the four points."""
    out = np.zeros((68, 2))
    out[36:42], out[42:48], out[48], out[54] = points
    return out


@pytest.mark.parametrize("angle, scale, shift", [(0, 100, (0, 0)), (0.5, 80, (40, -3)), (-1.2, 300, (500, 200))])
def test_a_turned_scaled_and_moved_template_is_put_back(angle, scale, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = scale * alignment.TEMPLATE @ turn.T + shift
    cuts = alignment.align(track(face(source)[None]), np.array([0]))
    assert cuts.residual[0] < 1e-6 and cuts.found.all()
    assert abs(cuts.scale_turn[0]) == pytest.approx(1 / scale) and np.angle(cuts.scale_turn[0]) == pytest.approx(-angle)
    moved = cuts.scale_turn[0] * (source[:, 0] + 1j * source[:, 1]) + cuts.shift[0]
    assert np.stack([moved.real, moved.imag], 1) == pytest.approx(alignment.TEMPLATE, abs=1e-4)


def test_frames_without_landmarks_take_the_nearest_and_clips_without_any_are_refused():
    faces = np.stack([face(scale * alignment.TEMPLATE) for scale in (50, 60, 70, 80, 90)])
    cuts = alignment.align(track(faces, [False, True, False, False, True]), np.arange(7))
    assert 1 / np.abs(cuts.scale_turn) == pytest.approx([60, 60, 60, 90, 90, 90, 90], abs=1e-3)
    assert cuts.found.tolist() == [False, True, False, False, True, False, False]
    assert cuts.quality() == {"frames": 7, "without_landmarks": 5, "eye_distance": 27.0, "residual": 0.0}
    with pytest.raises(InputError, match="none usable in 5 frames"):
        alignment.align(track(faces, [False] * 5), np.arange(5))
    with pytest.raises(InputError, match="none usable"):
        alignment.align(track(np.stack([face(2 * alignment.TEMPLATE)])), np.arange(1))  # eyes half a pixel apart


def test_a_cut_shows_the_face_where_the_template_says():
    picture = np.zeros((200, 300, 3), np.uint8)
    source = 100 * alignment.TEMPLATE + (150, 60)
    for x, y in source.round().astype(int):
        picture[y - 2 : y + 2, x - 2 : x + 2] = 255
    cuts = alignment.align(track(face(source)[None]), np.array([0]))
    for size in (50, 100, 200):
        out = alignment.cut(picture, cuts.scale_turn[0], cuts.shift[0], size)
        assert out.shape == (size, size, 3)
        for x, y in (size * alignment.TEMPLATE).round().astype(int):
            assert out[y - 1 : y + 1, x - 1 : x + 1].mean() > 150
        assert out.mean() < 10


def write_openface(path: Path, landmarks: np.ndarray, ok: np.ndarray) -> None:
    from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS

    n = len(landmarks)
    columns = {"frame": np.arange(1, n + 1), "confidence": np.where(ok, 0.98, 0.0), "success": ok.astype(int)}
    columns |= {f"{axis}_{i}": landmarks[:, i, k].round(1) for k, axis in enumerate("xy") for i in range(68)}
    columns |= {name: np.zeros(n) for name in (*INTENSITY_COLUMNS, *PRESENCE_COLUMNS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture(scope="module")
def moving_faces(tmp_path_factory) -> Path:
    """Rendered faces that turn, move and grow in a wider picture, a folder a clip, with the renderer's landmarks."""
    root = tmp_path_factory.mktemp("faces")
    frames, side, width = 6, 64, 120
    scene = face_renderer.neutral_scene(frames)
    scene.roll = torch.linspace(-0.4, 0.4, frames)
    for clip, label in enumerate(("happy", "sad", "fear")):
        people = face_renderer.sample_identities(3, seed=1)[[clip] * frames]
        images, landmarks = face_renderer.render(people, torch.zeros(frames, 18), scene, side)
        folder = root / "clips" / label / f"c{clip}"
        folder.mkdir(parents=True)
        moved = landmarks.numpy() + np.array([[10 * n, 20] for n in range(frames)])[:, None]
        for n, image in enumerate(images.numpy()):
            wide = np.full((width, width, 3), 90, np.uint8)
            wide[20 : 20 + side, 10 * n : 10 * n + side] = image
            Image.fromarray(wide).save(folder / f"{n + 1}.png")
        ok = np.ones(frames, bool) if clip < 2 else np.zeros(frames, bool)
        ok[2] = False
        write_openface(root / "openface" / f"{label}_c{clip}.csv", moved, ok)
    return root


def test_rendered_faces_are_aligned_packed_and_shown(moving_faces, tmp_path, capsys):
    arguments = [
        "data",
        "pack",
        "folder",
        str(tmp_path / "out"),
        "--root",
        str(moving_faces / "clips"),
        "--frames",
        "6",
        "--size",
        "48",
        "--align",
        str(moving_faces / "openface"),
        "--workers",
        "1",
    ]
    assert cli.main(arguments) == 0
    packed = datasets.open_packed(tmp_path / "out")
    assert "look whether the faces are cut well" in capsys.readouterr().out
    assert packed.quarantine["clip_id"].tolist() == ["fear/c2"] and "none usable" in packed.quarantine["reason"][0]
    quality = pd.read_csv(tmp_path / "out" / "alignment.csv").set_index("clip_id")
    assert quality.loc["happy/c0", ["frames", "without_landmarks"]].tolist() == [6, 1]
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > 6 * 112
    # the head turns and wanders in the picture; cut out, the eyes stay: frames differ less than they did
    manifest = datasets.read_dataset("folder", moving_faces / "clips")
    before = datasets.load_frames(manifest, "happy/c0", size=48).astype(float)
    after = packed.frames[packed.clip_ids.index("happy/c0")].astype(float)
    centre = slice(12, 40)
    spread = lambda clip: clip[[0, 1, 3, 4, 5], centre, centre].std(axis=0).mean()  # noqa: E731
    assert spread(after) < 0.5 * spread(before)


def test_alignment_is_part_of_what_a_store_is_made_from(moving_faces, tmp_path):
    manifest = datasets.read_dataset("folder", moving_faces / "clips")
    plain = datasets.pack(manifest, tmp_path / "out", 2, 16, progress=False)
    cut = datasets.pack(manifest, tmp_path / "out", 2, 16, progress=False, align=moving_faces / "openface")
    assert len(plain) == 3 and len(cut) == 2 and cut.meta["alignment"]["template"] == alignment.TEMPLATE.tolist()
    with pytest.raises(InputError, match="folder of OpenFace's CSVs"):
        datasets.pack(manifest, tmp_path / "out", 2, 16, progress=False, align=tmp_path / "nowhere")
    with pytest.raises(InputError, match="none of 3 can be read.*OpenFace file of clip"):
        datasets.pack(manifest, tmp_path / "none", 2, 16, progress=False, align=tmp_path)


def test_reading_ahead_keeps_the_order_and_raises_in_place():
    from audfer.jobs.workers import ahead

    begun = []

    def read(item: int) -> int:
        begun.append(item)
        time.sleep(0.001 * (item % 3))
        if item == 30:
            raise InputError("clip", "frames", item, "another")
        return 2 * item

    results = ahead(read, range(1000))
    assert [next(results) for _ in range(30)] == [2 * item for item in range(30)]
    with pytest.raises(InputError, match="found 30"):
        next(results)
    assert len(begun) < 100  # only a few clips are in memory at a time
    assert list(ahead(read, [])) == []
