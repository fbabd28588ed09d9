"""Folders of OpenFace files into one table.

Every real file, quarantine, resume, order, provenance, the command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from paths import SHARED
from pyarrow import parquet

from audfer.action_units import AUTable, importing
from audfer.action_units.importing import ImportOptions, import_folder, import_openface
from audfer.action_units.table import table_from_openface_folder
from audfer.companion import cli
from audfer.datasets.manifest import Manifest
from audfer.errors import AudferError, InputError
from audfer.files import files_below
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, read_details, read_openface
from audfer.study.action_units import extracted_table

REAL_FILES = SHARED / "data"
HEAD = ["frame", "face_id", "timestamp", "confidence", "success"]


def openface_file(path: Path, frames: int = 6, value: float = 1.5, **changes) -> Path:
    """A small file as OpenFace 2.x writes it; ``changes``: column -> texts."""
    columns = [*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]
    lines = [", ".join(columns)]
    for i in range(frames):
        cells = dict.fromkeys(columns, "0.00") | {
            "frame": str(i + 1),
            "face_id": "0",
            "timestamp": f"{i / 25:.3f}",
            "confidence": "0.98",
            "success": "1",
            "AU12_r": f"{value:.2f}",
        }
        lines.append(", ".join((cells | {name: texts[i] for name, texts in changes.items()})[name] for name in columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    """Ten good files, one without a row, one of another program."""
    for number in range(10):
        openface_file(tmp_path / "csvs" / f"{number // 5}" / f"clip{number}.csv", frames=4 + number, value=number / 2)
    header = (tmp_path / "csvs/0/clip0.csv").read_text().splitlines()[0]
    (tmp_path / "csvs/0/noface.csv").write_text(header + "\n")
    (tmp_path / "csvs/1/other.txt").write_text("a,b\n1,2\n")
    (tmp_path / "csvs/1/clip9_of_details.txt").write_text("Input:/videos/clip9.mp4\nVersion: 2.2.0\n")
    (tmp_path / "csvs/labels.csv").write_text("file,expression\n")
    return tmp_path / "csvs"


# ---- real files

#: rows of the files that shared/data/README.md calls OpenFace's own; RAVDESS is counted in its labels.csv
REAL = {
    "amhuse_openface/10_3_au.txt": 496,
    "amhuse_openface/19_2_au.txt": 1369,
    "amhuse_openface/19_3_au.txt": 301,
    "amhuse_openface/P21_au.txt": 7193,
    "opendbm_openface/subj01_timepoint01.csv": 158,
    "opendbm_openface/subj01_timepoint02.csv": 161,
    "edge_cases/facsvatar_demo_face_id_crlf.csv": 490,
    "edge_cases/facsvatar_head_test_no_face_id.csv": 715,
    "edge_cases/facsvatar_jt_constant_frame.csv": None,
    "edge_cases/pyfeat_openface_test_old_version.csv": 100,
}
#: file -> what the reason has to say (the README's "what is odd")
REFUSED = {
    "edge_cases/facsvatar_demo_scaled_0_1_no_success.csv": "no AU presence column",
    "edge_cases/facsvatar_au_without_suffix.csv": "without suffix",
    "edge_cases/greta_no_frame_no_confidence.csv": "no AU presence column",
    "edge_cases/pyfeat_detector_output.csv": "py-feat",
}


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the shared data folder is not here")
def test_every_real_file_is_read_with_the_right_counts_or_refused_for_its_reason(tmp_path):
    files = import_folder(REAL_FILES, tmp_path / "au.parquet", workers=1).set_index("file")
    labels = pd.read_csv(REAL_FILES / "ravdess_openface/labels.csv")
    expected = REAL | {
        f"ravdess_openface/clips/{name}": frames for name, frames in zip(labels["file"], labels["frames"], strict=True)
    }
    # "cases" holds datasets of a few clips each, for the readers' tests
    assert {name for name in files.index if not name.startswith("cases/")} == {*expected, *REFUSED}
    table = AUTable.load(tmp_path / "au.parquet")
    assert len(table.frames) == files["frames"].sum()
    for name, frames in expected.items():
        row = files.loc[name]
        assert row["status"] == "read" and row["reason"] == "" and row["ok"] == row["frames"] - row["failed"]
        assert frames is None or row["frames"] == row["rows"] == frames
    assert (
        files.loc["amhuse_openface/19_2_au.txt", "failed"] == 8
        and files.loc["amhuse_openface/P21_au.txt", "failed"] == 802
    )
    assert files.loc["edge_cases/facsvatar_jt_constant_frame.csv", "truncated_rows"] == 1
    assert files.loc[[n for n in expected if n.startswith("ravdess")], "frames"].sum() == 6241
    for name, reason in REFUSED.items():
        assert files.loc[name, "status"] == "refused" and reason in files.loc[name, "reason"]
    assert dict(files.loc[list(REAL), "version"]) == {
        name: "2.x"
        if name.startswith("opendbm")
        or name in ("edge_cases/facsvatar_demo_face_id_crlf.csv", "edge_cases/facsvatar_jt_constant_frame.csv")
        else "before 2.x"
        for name in REAL
    }
    # the same values as reading one file
    one = read_openface(REAL_FILES / "amhuse_openface/19_2_au.txt")
    track = table.clip("amhuse_openface/19_2_au")
    assert np.array_equal(track.intensity, one.intensity, equal_nan=True) and np.array_equal(track.ok, one.ok)


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the shared data folder is not here")
def test_rescaled_and_presenceless_real_files_are_read_when_it_is_said(tmp_path):
    for name in ("facsvatar_demo_scaled_0_1_no_success.csv", "facsvatar_demo_face_id_crlf.csv"):
        (tmp_path / "csvs").mkdir(exist_ok=True)
        (tmp_path / "csvs" / name).write_bytes((REAL_FILES / "edge_cases" / name).read_bytes())
    arguments = ["au", "import", str(tmp_path / "csvs"), "--without-presence", "--workers", "1"]
    assert cli.main(arguments) == 1  # rescaled, and nobody said so
    assert "rescaled to 0 to 1" in (tmp_path / "csvs_quarantine.csv").read_text()
    (tmp_path / "csvs" / "facsvatar_demo_face_id_crlf.csv").rename(tmp_path / "raw.csv")
    assert cli.main([*arguments, "--intensity-scale", "0-1"]) == 0 and not (tmp_path / "csvs_quarantine.csv").exists()
    scaled = AUTable.load(tmp_path / "csvs.parquet").clip("facsvatar_demo_scaled_0_1_no_success")
    assert len(scaled) == len(read_openface(tmp_path / "raw.csv")) and scaled.intensity[0, 0] == pytest.approx(0.88)
    (tmp_path / "raw.csv").rename(tmp_path / "csvs" / "raw.csv")
    assert cli.main([*arguments, "--intensity-scale", "0-1"]) == 1  # five times what is on 0 to 5 already
    assert "expected a number from 0 to 5" in (tmp_path / "csvs_quarantine.csv").read_text()


# ---- one folder


def test_good_files_are_read_and_the_others_listed(folder, tmp_path, capsys):
    assert (
        cli.main(
            [
                "au",
                "import",
                str(folder),
                "--out",
                str(tmp_path / "au.parquet"),
                "--workers",
                "2",
                "--au-mode",
                "static",
            ]
        )
        == 1
    )
    printed = capsys.readouterr()
    assert "85 frames of 10 clips" in printed.out and "2 of 12 files refused" in printed.err
    quarantine = pd.read_csv(tmp_path / "au_quarantine.csv").set_index("file")["reason"]
    assert set(quarantine.index) == {"0/noface.csv", "1/other.txt"}
    assert "finds no face" in quarantine["0/noface.csv"] and "no AU column" in quarantine["1/other.txt"]
    table = AUTable.load(tmp_path / "au.parquet")
    assert table.clip_ids() == [f"{n // 5}/clip{n}" for n in range(10)]  # sorted, whoever was ready first
    assert [table.clip(f"{n // 5}/clip{n}").intensity[0, 8] for n in range(10)] == [n / 2 for n in range(10)]
    made = table.provenance()
    assert made["version"].to_dict() == {f"{n // 5}/clip{n}": "2.2.0" if n == 9 else "2.x" for n in range(10)}
    assert (
        set(made["mode"]) == {"static"} and set(made["tool"]) == {"OpenFace"} and np.allclose(made["threshold"], 0.725)
    )
    about = json.loads(parquet.read_schema(tmp_path / "au.parquet").metadata[b"audfer"])
    assert (
        about["import"]["mask_neighbours"] == [1, 3] and about["import"]["face"] == "longest" and about["refused"] == 2
    )
    assert [p.name for p in tmp_path.iterdir() if "parts" in p.name] == []


def test_details_beside_a_file_are_read(folder):
    assert read_details(folder / "1" / "clip9.csv")["input"] == "/videos/clip9.mp4"
    assert read_details(folder / "0" / "clip0.csv") == {}


def test_workers_and_chunks_make_no_difference(folder, tmp_path, monkeypatch):
    import_folder(folder, tmp_path / "one.parquet", workers=1)
    monkeypatch.setattr(importing, "_CHUNK_FILES", 3)
    import_folder(folder, tmp_path / "many.parquet", workers=2)
    pd.testing.assert_frame_equal(
        AUTable.load(tmp_path / "one.parquet").frames, AUTable.load(tmp_path / "many.parquet").frames
    )
    assert (tmp_path / "one_files.csv").read_text() == (tmp_path / "many_files.csv").read_text()


def test_an_import_goes_on_from_its_finished_chunks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "_CHUNK_FILES", 3)
    done, real = [], importing.read_clip_file

    def stopping(path, options):
        done.append(path.name)
        if len(done) == 8:
            raise KeyboardInterrupt
        return real(path, options)

    monkeypatch.setattr(importing, "read_clip_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_folder(folder, tmp_path / "au.parquet", workers=1)
    assert not (tmp_path / "au.parquet").exists()
    openface_file(folder / "0" / "clip1.csv", frames=30)  # a finished chunk whose file changed is read again
    first = done[:3]
    done.clear()
    done += ["x"] * 10
    import_folder(folder, tmp_path / "au.parquet", workers=1)
    assert len(done) == 10 + 12 - 3 and "clip1.csv" in first and "clip4.csv" not in done
    assert len(AUTable.load(tmp_path / "au.parquet").frames) == 85 - 5 + 30


def test_a_killed_import_leaves_no_process_and_no_half_table(tmp_path):
    content = openface_file(tmp_path / "csvs" / "0.csv", frames=150).read_bytes()
    for number in range(1, 1200):
        (tmp_path / "csvs" / f"{number}.csv").write_bytes(content)
    command = [sys.executable, "-m", "audfer.companion.cli", "au", "import", str(tmp_path / "csvs"), "--workers", "2"]
    parts = lambda: list((tmp_path / ".csvs.parts").glob("*.parquet"))  # noqa: E731
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not parts() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "csvs.parquet").exists() and parts()
    until = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    kept = {path: path.stat().st_mtime_ns for path in parts()}
    assert kept and len(kept) < 10
    files = import_folder(tmp_path / "csvs", tmp_path / "csvs.parquet", workers=1)
    assert (files["status"] == "read").all() and files["frames"].sum() == 1200 * 150


def test_wrong_folders_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match="no such folder"):
        import_folder(tmp_path / "absent", tmp_path / "au.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no .csv or .txt file"):
        import_folder(tmp_path / "empty", tmp_path / "au.parquet")
    (tmp_path / "empty" / "x.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="all 1 refused"):
        import_folder(tmp_path / "empty", tmp_path / "au.parquet")
    assert (tmp_path / "au_quarantine.csv").is_file() and not (tmp_path / "au.parquet").exists()
    (folder / "0" / "clip0.txt").write_text("x")
    files = import_folder(folder, tmp_path / "au.parquet").set_index("file")
    assert "every clip once" in files.loc["0/clip0.txt", "reason"]
    for wrong in (
        {"face": "nicest"},
        {"min_confidence": 2.0},
        {"scale": 0.0},
        {"mode": "fast"},
        {"mask_neighbours": (1, -1)},
    ):
        with pytest.raises(InputError, match=f"options: {next(iter(wrong))}"):  # once, not once a file
            ImportOptions(**wrong)


def test_a_whole_folder_on_0_to_1_is_refused_even_if_each_file_could_be_a_calm_face(tmp_path):
    for number in range(25):
        openface_file(tmp_path / "csvs" / f"{number}.csv", frames=100, value=0.9)
    with pytest.raises(InputError, match="no intensity above 0.9 in 2500 frames of 25 files.*--intensity-scale"):
        import_folder(tmp_path / "csvs", tmp_path / "au.parquet", workers=1)
    import_folder(tmp_path / "csvs", tmp_path / "au.parquet", ImportOptions(scale=1.0), workers=1)
    assert np.nanmax(AUTable.load(tmp_path / "au.parquet").frames["AU12_r"]) == pytest.approx(0.9)


# ---- datasets


def windows(tmp_path, first: int = 1) -> Manifest:
    (tmp_path / "take").mkdir()
    for number in (1, 2, 3, 4, 6, 7, 8):
        (tmp_path / "take" / f"{number - 1 + first:05d}.jpg").touch()
    rows = [
        {
            "clip_id": f"take:{start}",
            "path": "take",
            "start": start,
            "stop": start + 4,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
        for start in (0, 4)
    ]
    return Manifest("AffWild2", tmp_path, pd.DataFrame(rows))


def test_windows_are_cut_from_one_file_and_missing_pictures_stay_missing(tmp_path):
    openface_file(tmp_path / "csvs" / "take.csv", frames=8)
    table = import_openface(windows(tmp_path), tmp_path / "csvs")
    assert table.clip("take:0").frame.tolist() == [0, 1, 2, 3] and table.clip("take:4").frame.tolist() == [5, 6, 7]


@pytest.mark.parametrize("rows, of_pictures", [(8, [1, 2, 3, 4, 6, 7, 8]), (7, [1, 2, 3, 4, 5, 6, 7])])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_of_windows_meet_their_pictures_whatever_these_are_numbered_from(tmp_path, first, rows, of_pictures):
    manifest, smile = windows(tmp_path, first), [f"{row / 100:.2f}" for row in range(1, rows + 1)]
    openface_file(tmp_path / "csvs" / "take.csv", rows, AU12_r=smile, **({} if rows == 8 else {"timestamp": ["0"] * 7}))
    table = import_openface(manifest, tmp_path / "csvs")
    clips = [table.clip(name) for name in manifest.table["clip_id"]]
    assert [clip.frame.tolist() for clip in clips] == [[0, 1, 2, 3], [5, 6, 7]]
    seen = np.concatenate([clip.intensity[:, 8] for clip in clips])
    np.testing.assert_allclose(seen, np.array(of_pictures) / 100, atol=1e-6)


def test_a_ready_table_beside_the_folder_is_taken_and_bad_files_stop_a_study(tmp_path):
    manifest = windows(tmp_path)
    (tmp_path / "csvs").mkdir()
    (tmp_path / "csvs" / "take.csv").write_text("nothing,useful\n1,2\n")
    with pytest.raises(AudferError, match="all 1 refused"):
        import_openface(manifest, tmp_path / "csvs")
    openface_file(tmp_path / "good" / "take.csv", frames=8)
    import_folder(tmp_path / "good", tmp_path / "csvs.parquet", manifest=manifest)
    assert import_openface(manifest, tmp_path / "csvs").clip_ids() == ["take:0", "take:4"]
    os.utime(tmp_path / "csvs" / "take.csv", ns=(time.time_ns() + 10**9,) * 2)  # OpenFace has run again
    with pytest.raises(InputError, match="a table older than 1 of the CSVs .* for example take.csv"):
        import_openface(manifest, tmp_path / "csvs")
    os.utime(tmp_path / "csvs.parquet", ns=(time.time_ns() + 2 * 10**9,) * 2)
    manifest.table["clip_id"] = ["x", "y"]
    with pytest.raises(InputError, match="none of AffWild2's"):
        import_openface(manifest, tmp_path / "csvs")


# ---- rows and frames


def one_clip(tmp_path, names) -> Manifest:
    for name in names:
        picture = tmp_path / "data" / "clip" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    row = {"clip_id": "clip", "path": "clip", "start": 0, "stop": -1, "split": "train", "expression": 0, "subject": ""}
    return Manifest("folder", tmp_path / "data", pd.DataFrame([row]))


def padded(*numbers) -> list[str]:
    return [f"{number:05d}.jpg" for number in numbers]


def plain(*numbers) -> list[str]:
    return [f"{number}.jpg" for number in numbers]


IMAGES = {"timestamp": ["0.000"] * 40}  # what OpenFace writes for folders of pictures
HOLES = padded(1, 2, 3, 7, 8, 9, 10)
#: pictures, rows, what else the file or OpenFace's note says -> row (from 1) of each picture, 0: none; None: refused
MATCHES = {
    "as many": (padded(*range(1, 6)), 5, {}, [1, 2, 3, 4, 5]),
    "pictures from 0": (padded(*range(5)), 5, {}, [1, 2, 3, 4, 5]),
    "rows from 0": (padded(*range(1, 6)), 5, {"frame": list("01234")}, [1, 2, 3, 4, 5]),
    "one row more": (padded(*range(1, 6)), 6, {}, [1, 2, 3, 4, 5]),
    "one row fewer": (padded(*range(1, 6)), 4, {}, [1, 2, 3, 4, 0]),
    "twice the rate": (padded(*range(1, 11)), 20, {}, None),
    "half the rate": (padded(*range(1, 21)), 10, {}, None),
    "25 for 24 a second": (padded(*range(1, 121)), 125, {}, None),
    "a rest of a killed run": (padded(*range(1, 21)), 5, {}, None),
    "holes, rows of the pictures": (HOLES, 7, {}, [1, 2, 3, 4, 5, 6, 7]),
    "holes, rows of the video": (HOLES, 10, {}, [1, 2, 3, 7, 8, 9, 10]),
    "holes, neither": (HOLES, 15, {}, None),
    "holes, rows of one picture more": (HOLES, 9, IMAGES, None),
    "numbered from 100": (padded(*range(100, 105)), 5, {}, [1, 2, 3, 4, 5]),
    "numbered from 100, rows of the take": (padded(*range(100, 105)), 104, {}, [100, 101, 102, 103, 104]),
    "rows left out": (padded(*range(1, 7)), 4, {"frame": list("1256")}, [1, 2, 0, 0, 5, 6]),
    "rows left out, at the end, too": (padded(*range(1, 7)), 2, {"frame": list("14")}, [1, 0, 0, 4, 0, 0]),
    "rows left out, and half of the rate": (padded(*range(1, 13)), 5, {"frame": list("12456")}, None),
    "unpadded, order unknown": (plain(*range(1, 13)), 12, {}, None),
    "unpadded, below ten": (plain(*range(1, 6)), 5, {}, [1, 2, 3, 4, 5]),
    "unpadded, a folder by its time": (plain(*range(8, 12)), 4, IMAGES, [3, 4, 1, 2]),
    "unpadded, a folder by its note": (plain(*range(8, 12)), 4, {"note": "/far/clip"}, [3, 4, 1, 2]),
    "unpadded, a video by its note": (plain(*range(8, 12)), 4, {"note": "/far/clip.mp4"}, [1, 2, 3, 4]),
    "unpadded, our own links": (plain(*range(8, 12)), 4, {"note": "/tmp/audfer_openface_x/frames"}, [1, 2, 3, 4]),
    "unpadded, rows of one picture more": (plain(*range(8, 12)), 5, IMAGES, None),
}


@pytest.mark.parametrize("case", MATCHES)
def test_rows_are_matched_with_pictures_or_refused(case, tmp_path):
    names, rows, said, expected = MATCHES[case]
    said, manifest = dict(said), one_clip(tmp_path, names)
    if note := said.pop("note", ""):
        (tmp_path / "csvs").mkdir()
        (tmp_path / "csvs" / "clip_of_details.txt").write_text(f"Input:{note}\n")
    numbers = said.get("frame", [str(row) for row in range(1, rows + 1)])
    shift = numbers[0] == "0"
    said["AU12_r"] = [f"{(int(number) + shift) / 100:.2f}" for number in numbers]
    openface_file(tmp_path / "csvs" / "clip.csv", rows, **said)
    if expected is None:
        with pytest.raises(InputError, match="clip.csv: rows: found "):
            import_folder(tmp_path / "csvs", tmp_path / "au.parquet", manifest=manifest, workers=1)
        return
    options = ImportOptions(mask_neighbours=(0, 0))
    files = import_folder(tmp_path / "csvs", tmp_path / "au.parquet", options, manifest=manifest, workers=1)
    clip = AUTable.load(tmp_path / "au.parquet").clip("clip")
    seen = dict(zip(clip.frame.tolist(), np.nan_to_num(clip.intensity[:, 8] * 100).round().astype(int), strict=True))
    assert [seen.get(frame, 0) for frame in range(len(names))] == expected
    assert files.loc[0, "clip_frames"] == len(names) and files.loc[0, "partly"] == (len(seen) < len(names))


def test_clips_with_partly_without_and_refused_are_counted_and_too_few_are_an_error(tmp_path, capsys):
    manifest = one_clip(tmp_path, padded(*range(1, 6)))
    names = ("whole", "part", "lost", "other", "none", *(f"absent{number}" for number in range(3)))
    manifest.table = pd.DataFrame([{**manifest.table.iloc[0], "clip_id": name} for name in names])
    for name, frames in (("whole", 5), ("part", 4), ("other", 15)):
        openface_file(tmp_path / "csvs" / f"{name}.csv", frames)
    openface_file(tmp_path / "csvs" / "lost.csv", 5, success=["0"] * 5)
    counts = {"clips": 8, "with": 1, "partly": 1, "without": 5, "refused": 1}
    counts["no_file"] = "4 without a file, the first none"
    files = import_folder(tmp_path / "csvs", tmp_path / "au.parquet", manifest=manifest, workers=1)
    assert files.attrs["coverage"] == {"dataset": "folder", **counts}
    about = json.loads(parquet.read_schema(tmp_path / "au.parquet").metadata[b"audfer"])
    assert about["coverage"] == files.attrs["coverage"]
    (tmp_path / "csvs" / "other.csv").unlink()
    import_openface(manifest, tmp_path / "csvs")
    assert (
        "1 of 8 clips of folder with action units, 1 partly, 6 without (5 without a file, the first other), 0 refused"
        in capsys.readouterr().err
    )
    # a ready table is counted alike, though nothing is read for it
    (tmp_path / "csvs" / "lost.csv").write_text("of another program\n1\n")
    import_folder(tmp_path / "csvs", tmp_path / "csvs.parquet", manifest=manifest, workers=1)
    about = import_openface(manifest, tmp_path / "csvs").about["coverage"]
    assert [about[name] for name in ("with", "partly", "without", "refused")] == [1, 1, 5, 1]
    (tmp_path / "csvs.parquet").unlink()
    (tmp_path / "csvs" / "lost.csv").unlink()
    (tmp_path / "csvs" / "part.csv").unlink()
    with pytest.raises(InputError, match="7 without .* expected at most 75% of them without"):
        import_openface(manifest, tmp_path / "csvs")


# ---- folders as people have them


def test_linked_folders_are_read_once_and_dead_links_refused_alone(tmp_path, capsys):
    openface_file(tmp_path / "csvs" / "a" / "1.csv")
    openface_file(tmp_path / "elsewhere" / "2.csv")
    for link, target in {"b": "../elsewhere", "c": "../elsewhere", "a/up": "..", "0": "a", "dead": "nowhere"}.items():
        (tmp_path / "csvs" / link).symlink_to(target)
    (tmp_path / "csvs" / "a" / "dead.csv").symlink_to("../.git/annex/objects/none")
    below = [path.relative_to(tmp_path / "csvs").as_posix() for path in files_below(tmp_path / "csvs")]
    assert below == ["dead", "a/1.csv", "a/dead.csv", "b/2.csv"]
    assert cli.main(["au", "import", str(tmp_path / "csvs"), "--workers", "1"]) == 1
    assert "1 of 3 files refused" in capsys.readouterr().err
    assert AUTable.load(tmp_path / "csvs.parquet").clip_ids() == ["a/1", "b/2"]


@pytest.mark.parametrize("named", [".", "..", "../csvs", "./"])
def test_a_folder_without_a_name_of_its_own_gets_its_table_beside_it(named, tmp_path, monkeypatch):
    openface_file(tmp_path / "csvs" / "inner" / "1.csv")
    monkeypatch.chdir(tmp_path / "csvs" / "inner" if named == ".." else tmp_path / "csvs")
    for _ in range(2):  # the lists beside a table are no clips
        assert cli.main(["au", "import", named, "--workers", "1"]) == 0
        assert cli.main(["au", "import", named, "--workers", "1", "--out", str(tmp_path / "csvs" / "o.parquet")]) == 0
    assert AUTable.load(tmp_path / "csvs.parquet").clip_ids() == ["inner/1"]


def test_what_openface_and_we_leave_beside_files_needs_no_label(tmp_path):
    for number, name in enumerate(("one.csv", "two.txt")):
        openface_file(tmp_path / name, value=number)
    for name in ("one_of_details.txt", ".~one.csv", "au_files.csv", "au_quarantine.csv", "one.hog"):
        (tmp_path / name).write_text("Input:/v/one.mp4\n")
    (tmp_path / "au.parquet").touch()
    (tmp_path / "labels.csv").write_text("file,expression\none.csv,happy\ntwo.txt,sad\n")
    table, labels = table_from_openface_folder(tmp_path)
    assert table.clip_ids() == labels["clip_id"].tolist() == ["one", "two"]
    openface_file(tmp_path / "other_files.csv")  # nothing says that this is a list of ours
    with pytest.raises(InputError, match="no row for other_files.csv"):
        table_from_openface_folder(tmp_path)


def test_a_studys_table_is_made_again_when_anything_that_it_was_made_of_changes(tmp_path):
    manifest = one_clip(tmp_path, padded(*range(1, 6)))
    study = SimpleNamespace(
        manifest=lambda name: manifest,
        profile=SimpleNamespace(embedded=False),
        data_root=tmp_path,
        work=tmp_path / "work",
    )
    csvs = tmp_path / "openface" / "folder"
    value = lambda: extracted_table(study, "folder").clip("clip").intensity[0, 8]  # noqa: E731
    openface_file(tmp_path / "elsewhere" / "clip.csv", 5, 1.0)
    csvs.mkdir(parents=True)
    (csvs / "clip.csv").symlink_to("../../elsewhere/clip.csv")
    assert value() == 1.0
    state = (tmp_path / "work/action_units/folder/frames.parquet").stat().st_mtime_ns
    assert value() == 1.0 and (tmp_path / "work/action_units/folder/frames.parquet").stat().st_mtime_ns == state
    openface_file(tmp_path / "elsewhere" / "clip.csv", 5, 2.0)  # as long as before
    assert value() == 2.0
    import_folder(csvs, csvs.with_suffix(".parquet"), ImportOptions(scale=0.5), manifest=manifest, workers=1)
    assert value() == 1.0
    openface_file(tmp_path / "elsewhere" / "clip.csv", 5, 4.0)
    with pytest.raises(InputError, match="older than 1 of the CSVs"):
        value()
    csvs.with_suffix(".parquet").unlink()
    assert value() == 4.0
    (csvs / "clip.csv").unlink()
    (csvs / "clip.csv").mkdir()
    openface_file(csvs / "part" / "clip.csv")
    with pytest.raises(InputError, match="no CSV whose name is a clip's"):
        value()
