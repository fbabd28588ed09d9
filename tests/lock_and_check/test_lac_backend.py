"""Lock and Check as extractor: streams equal whole clips, groups equal single clips, and what goes wrong costs one
clip.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from paths import DATA
from PIL import Image

from audfer import datasets
from audfer.action_units import AUTable
from audfer.action_units.backends import Estimator, ExtractionFailed, estimated_track
from audfer.action_units.estimator import ActionUnitEstimator, predict
from audfer.action_units.running import extract_manifest
from audfer.action_units.table import COLUMNS
from audfer.companion import cli, commands
from audfer.datasets.manifest import load_frames, stream_frames
from audfer.errors import InputError
from audfer.jobs.processes import ChildEnded, OutOfTime, PythonChild
from audfer.lock_and_check.backend import LAC
from audfer.lock_and_check.network import build_lac
from audfer.lock_and_check.streaming import WindowCutter, judge_streams
from audfer.lock_and_check.training import Recogniser
from audfer.lock_and_check.windows import covering_windows
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from audfer.synth import rendered_clips

STANDIN = DATA / "openface" / "FeatureExtraction"
WINDOW, SIDE = 6, 32
#: frames of the clips: shorter than a window, whole windows, one more, many
LENGTHS = {"happy/short": 4, "happy/whole": 12, "sad/more": 13, "sad/long": 31}


def write_video(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Rendered frames of one person after the other, uint8 (64, 48, 48, 3)."""
    return rendered_clips(4, 16, 48)[0].flatten(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def clips(pictures, tmp_path_factory) -> Path:
    """Own clips, a folder a class: half of them videos, half folders of pictures."""
    root, first = tmp_path_factory.mktemp("clips"), 0
    for number, (name, length) in enumerate(LENGTHS.items()):
        frames = pictures[first : first + length]
        first += length
        if number % 2:
            write_video(root / f"{name}.mp4", frames)
            continue
        (root / name).mkdir(parents=True)
        for place, frame in enumerate(frames):
            Image.fromarray(frame).save(root / name / f"{place + 1}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny network with fresh weights, not calibrated, as a recogniser saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "lac"
    Recogniser(build_lac("tiny", image_size=SIDE, window=WINDOW)).save(folder)
    return folder


@pytest.fixture(scope="module")
def recogniser(weights) -> Recogniser:
    return Recogniser.load(weights)


def values(table: AUTable, clip: str) -> np.ndarray:
    return table.frames.loc[table.frames["clip_id"] == clip, [*INTENSITY_COLUMNS, *PRESENCE_COLUMNS]].to_numpy()


# ---- windows and streams


@pytest.mark.parametrize("length", (1, 4, 16))
def test_a_stream_is_cut_into_the_windows_that_cover_a_whole_clip(length):
    for count in range(1, 50):
        table = pd.DataFrame({"subject": "a", "sequence": "b", "frame": range(count)})
        rows, keep = covering_windows(table, length)
        cutter = WindowCutter(length)
        found = [window for number in range(count) if (window := cutter.push(number))]
        found += [window for window in (cutter.end(),) if window]
        assert [window for window, _ in found] == rows.tolist()
        assert [window[counts] for window, counts in found] == [
            row[kept].tolist() for row, kept in zip(rows, keep, strict=True)
        ]


@pytest.mark.parametrize("batch", (1, 3, 8))
def test_streams_in_any_batch_give_what_predict_gives_for_whole_clips(clips, recogniser, batch):
    manifest = datasets.read_dataset("folder", clips)
    names = manifest.table["clip_id"].tolist()
    sources = []
    for position in range(len(manifest)):
        part = datasets.Manifest("folder", manifest.root, manifest.table.iloc[[position]])
        sources.append((names[position], stream_frames(part, SIDE)))
    found = dict(judge_streams(recogniser, sources, batch=batch))
    assert set(found) == set(LENGTHS)
    for position, name in enumerate(names):
        ((numbers, raw),) = found[name].values()
        assert numbers.tolist() == list(range(LENGTHS[name]))
        expected = recogniser.predict(load_frames(manifest, position, size=SIDE))
        for mine, theirs in zip(recogniser.calibrated(raw), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5, equal_nan=True)
    assert np.ptp(found["sad/long"][0][1], axis=0).max() > 1e-3  # the network does tell frames apart


def test_few_frames_are_alive_however_long_a_clip_is(recogniser):
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames(count: int):
        nonlocal alive, most
        generator = np.random.default_rng(0)
        for number in range(count):
            picture = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            weakref.finalize(picture, gone)
            alive += 1
            most = max(most, alive)
            yield 0, number, picture

    ((_, found),) = judge_streams(recogniser, [("long", frames(1000))], batch=4)
    assert len(found[0][0]) == len(found[0][1]) == 1000
    assert most <= (4 + 2) * WINDOW and alive <= 2 * WINDOW


def test_a_stream_that_breaks_ends_alone(recogniser, pictures):
    small = pictures[:, :SIDE, :SIDE]

    def broken():
        yield from ((0, number, small[number]) for number in range(8))
        raise InputError("clip", "frame 8", "noise", "a picture")

    sources = [
        ("a", ((0, number, small[number]) for number in range(9))),
        ("b", broken()),
        ("c", ((0, number, small[number]) for number in range(5))),
    ]
    found = dict(judge_streams(recogniser, sources, batch=8))
    assert isinstance(found["b"], InputError) and [len(found[name][0][1]) for name in "ac"] == [9, 5]


def test_clips_cut_from_one_video_are_streamed_in_one_pass_with_their_numbers(clips):
    rows = [
        {
            "clip_id": f"part:{start}",
            "path": "sad/long.mp4",
            "start": start,
            "stop": stop,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
        for start, stop in ((20, 40), (0, 12), (8, 16))
    ]
    manifest = datasets.Manifest("folder", clips, pd.DataFrame(rows))
    found: dict[int, list] = {0: [], 1: [], 2: []}
    for row, number, picture in stream_frames(manifest, SIDE):
        found[row].append((number, picture))
    for row, parts in found.items():
        assert [number for number, _ in parts] == datasets.frame_numbers(manifest, row).tolist()
        np.testing.assert_array_equal(
            np.stack([picture for _, picture in parts]), load_frames(manifest, row, size=SIDE)
        )
    with pytest.raises(InputError, match="none from 90 on"):
        list(stream_frames(datasets.Manifest("folder", clips, pd.DataFrame([{**rows[0], "start": 90, "stop": 99}]))))


# ---- the whole extraction


def test_videos_folders_and_packed_stores_give_a_table_with_the_baselines_columns(clips, weights, recogniser, tmp_path):
    manifest = datasets.read_dataset("folder", clips)
    states = extract_manifest(manifest, tmp_path / "au.parquet", LAC(str(weights), batch=4), workers=1)
    assert states["frames"].tolist() == states["ok"].tolist() == [LENGTHS[name] for name in states["clips"]]
    table = AUTable.load(tmp_path / "au.parquet")
    ActionUnitEstimator(32).save(tmp_path / "baseline")
    extract_manifest(manifest, tmp_path / "baseline.parquet", Estimator(str(tmp_path / "baseline"), 32), workers=1)
    baseline = AUTable.load(tmp_path / "baseline.parquet")
    assert list(table.frames) == list(baseline.frames) and set(COLUMNS) < set(table.frames)
    assert table.frames["frame"].tolist() == baseline.frames["frame"].tolist() and table.frames["ok"].all()
    assert set(table.frames["tool"]) == {"LAC"} and set(table.frames["mode"]) == {f"windows of {WINDOW} frames"}
    for position, name in enumerate(manifest.table["clip_id"]):
        images = load_frames(manifest, position, size=SIDE)
        np.testing.assert_allclose(values(table, name), np.hstack(recogniser.predict(images)[:2]), atol=1e-5)
        np.testing.assert_allclose(
            values(baseline, name),
            np.hstack(predict(ActionUnitEstimator.load(tmp_path / "baseline"), images)),
            atol=1e-5,
        )

    packed = datasets.pack(
        manifest, tmp_path / "packed", 8, 48, progress=False
    )  # "short" has 4 frames, each stored twice
    extract_manifest(packed, tmp_path / "packed.parquet", LAC(str(weights), batch=4), workers=1)
    stored = AUTable.load(tmp_path / "packed.parquet")
    for position, name in enumerate(packed.clip_ids):
        numbers, places = np.unique(packed.frame_numbers[position], return_index=True)
        assert stored.clip(name).frame.tolist() == numbers.tolist()
        images = np.stack(
            [
                np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
                for frame in packed.frames[position, places]
            ]
        )
        np.testing.assert_allclose(values(stored, name), np.hstack(recogniser.predict(images)[:2]), atol=1e-5)


def test_clips_that_cannot_be_read_are_refused_alone(clips, weights, tmp_path):
    manifest = datasets.read_dataset("folder", clips)
    (tmp_path / "angry" / "empty").mkdir(parents=True)
    (tmp_path / "angry" / "noise.mp4").write_bytes(b"no video" * 50)
    (tmp_path / "angry" / "cut.mp4").write_bytes((clips / "sad" / "long.mp4").read_bytes()[:3000])
    for name in ("happy", "sad"):
        (tmp_path / name).symlink_to(clips / name)
    rows = [
        {
            "clip_id": f"angry/{name.split('.')[0]}",
            "path": f"angry/{name}",
            "start": 0,
            "stop": -1,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
        for name in ("empty", "noise.mp4", "cut.mp4", "absent.mp4")
    ]
    table = pd.concat([pd.DataFrame(rows[:2]), manifest.table, pd.DataFrame(rows[2:])], ignore_index=True)
    states = extract_manifest(
        datasets.Manifest("folder", tmp_path, table), tmp_path / "au.parquet", LAC(str(weights)), workers=1
    )
    refused = states[states["state"] == "refused"].set_index("clips")
    assert set(refused.index) == {"angry/empty", "angry/noise", "angry/cut", "angry/absent"} and set(
        refused["attempts"]
    ) == {1}
    for name, reason in {"empty": "no frames", "noise": "unreadable", "absent": "nothing there"}.items():
        assert reason in refused.loc[f"angry/{name}", "reason"]
    assert set(AUTable.load(tmp_path / "au.parquet").clip_ids()) == set(LENGTHS)


@dataclass(frozen=True)
class Fragile:
    """An extractor by hand: a group ends after two clips, and one clip is to blame."""

    log: Path
    name, packed, group = "fragile", False, 3

    def settings(self) -> dict:
        return {"backend": self.name}

    def check(self) -> None:
        pass

    def _track(self, clip):
        return {clip.clip_ids[0]: estimated_track(np.zeros((2, 17)), np.zeros((2, 18)), np.arange(2))}

    def extract(self, clip, seconds):
        with self.log.open("a") as log:
            log.write(f"{clip.clip_ids[0]}\n")
        if clip.clip_ids[0] == "sad/more":
            raise ExtractionFailed("crashed", again=True)
        return self._track(clip)

    def extract_group(self, clips, seconds):
        for position, clip in enumerate(clips[:2]):
            yield position, self._track(clip)
        raise ExtractionFailed("crashed", again=True)


def test_what_a_broken_group_left_is_done_clip_by_clip_and_one_clip_is_blamed(clips, tmp_path):
    manifest = datasets.read_dataset("folder", clips)
    states = extract_manifest(manifest, tmp_path / "au.parquet", Fragile(tmp_path / "log"), workers=1, retries=1)
    order = manifest.table["clip_id"].tolist()
    done_alone = (tmp_path / "log").read_text().split()
    blamed = states.set_index("clips").loc["sad/more"]
    assert states.loc[states["state"] == "refused", "clips"].tolist() == ["sad/more"] and blamed["attempts"] == 2
    assert set(done_alone) == set(order[2:]) | {"sad/more"}  # the first two of the group were kept


def test_a_killed_run_keeps_the_clips_of_a_group_that_were_done(pictures, weights, tmp_path):
    for number in range(12):
        write_video(tmp_path / "clips" / "happy" / f"{number}.mp4", np.tile(pictures, (3, 1, 1, 1)))
    arguments = [
        "au",
        "extract",
        "folder",
        "--root",
        str(tmp_path / "clips"),
        "--backend",
        "lac",
        "--weights",
        str(weights),
        "--workers",
        "1",
        "--batch",
        "3",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "au.parquet"),
    ]
    store = tmp_path / "au_clips"
    process = subprocess.Popen(
        [sys.executable, "-m", "audfer", *arguments], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    until = time.monotonic() + 60
    while len(list(store.glob("*/[!.]*.parquet"))) < 3:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # its child dies with it
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/[!.]*.parquet")}  # no half-written ones
    assert 3 <= len(before) < 12  # all 12 are one group
    assert cli.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(AUTable.load(tmp_path / "au.parquet").clip_ids()) == 12


def test_a_child_answers_with_a_stream():
    child = PythonChild()
    try:
        assert list(child.stream(range, 3, seconds=20)) == [0, 1, 2]
        first = child.call(os.getpid, seconds=20)
        found = child.stream(map, int, ["1", "x"], seconds=20)
        assert next(found) == 1
        with pytest.raises(ValueError, match="invalid literal"):
            next(found)
        assert child.call(os.getpid, seconds=20) == first  # it lives, and nothing is left unread
        with pytest.raises(ChildEnded, match="exit status 3"):
            list(child.stream(map, os._exit, [3], seconds=20))
        with pytest.raises(OutOfTime):
            list(child.stream(map, time.sleep, [0, 60], seconds=0.5))
        second = child.call(os.getpid, seconds=20)
        next(given_up := child.stream(range, 1000, seconds=20))
        given_up.close()
        assert child.call(os.getpid, seconds=20) not in (first, second)
    finally:
        child.close()


# ---- the commands


def said(capsys) -> tuple[str, str]:
    found = capsys.readouterr()
    assert all(len(line) <= 80 for line in found.out.splitlines() if "/" not in line), found.out
    return found.out, found.err


def test_openface_is_taken_where_it_is_found_else_lac(clips, weights, tmp_path, monkeypatch, capsys):
    from audfer.action_units.backends import OpenFace

    arguments = ["au", "extract", "folder", "--root", str(clips), "--weights", str(weights)]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    chosen = lambda *more: commands.extractor(cli.build_parser().parse_args([*arguments, *more]))  # noqa: E731
    assert chosen("--batch", "5", "--device", "cpu", "--precision", "bf16") == LAC(str(weights), "cpu", "bf16", 5)
    out, _ = said(capsys)
    assert "extractor: lac (no FeatureExtraction on PATH, no --container)" in out
    assert "trained on rendered faces (not for real ones before au train-lac)" in out
    assert isinstance(chosen("--container", "openface:test"), OpenFace) and "container openface:test" in said(capsys)[0]
    monkeypatch.setenv("PATH", f"{STANDIN.parent}:/usr/bin:/bin")
    assert isinstance(chosen(), OpenFace) and f"extractor: openface ({STANDIN})" in said(capsys)[0]
    assert isinstance(chosen("--backend", "lac"), LAC) and "extractor" not in said(capsys)[0]

    other = tmp_path / "disfa"
    other.mkdir()
    for path in weights.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    described = json.loads((other / "recogniser.json").read_text())
    (other / "recogniser.json").write_text(json.dumps({**described, "trained_on": "DISFA"}))
    chosen("--backend", "lac", "--weights", str(other))
    assert said(capsys)[0] == "weights trained on DISFA\n"


def test_wrong_weights_are_sentences_before_any_clip(clips, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "work"))
    arguments = [
        "au",
        "extract",
        "folder",
        "--root",
        str(clips),
        "--backend",
        "lac",
        "--out",
        str(tmp_path / "au.parquet"),
    ]
    assert cli.main(arguments) == 2
    assert "lac: weights of Lock and Check: found none there, expected those that audfer reproduce" in said(capsys)[1]
    broken = tmp_path / "broken"
    broken.mkdir()
    described = json.loads((weights / "recogniser.json").read_text())
    for content, words in (("no JSON", "recogniser"), (json.dumps(described), "No such file")):
        (broken / "recogniser.json").write_text(content)
        assert cli.main([*arguments, "--weights", str(broken)]) == 2
        assert words in (found := said(capsys)[1]) and "Traceback" not in found and found.count("\n") == 1
    assert (
        cli.main([*arguments, "--weights", str(weights), "--batch", "0"]) == 2
        and "at least one window" in said(capsys)[1]
    )
    Recogniser(build_lac("tiny", action_units=("AU01", "AU24"))).save(tmp_path / "bp4d")
    assert cli.main([*arguments, "--weights", str(tmp_path / "bp4d")]) == 2
    out, err = said(capsys)
    assert "all that they know: AU01\n" in out and "action_units: found AU24, expected those of an AU table" in err
    assert not (tmp_path / "au.parquet").exists() and not (tmp_path / "au_clips").exists()


def test_a_packed_store_is_for_extractors_that_can_read_it(clips, weights, tmp_path, capsys):
    datasets.pack(datasets.read_dataset("folder", clips), tmp_path / "folder", 6, SIDE, progress=False)
    arguments = [
        "au",
        "extract",
        "folder",
        "--root",
        str(tmp_path),
        "--out",
        str(tmp_path / "au.parquet"),
        "--device",
        "cpu",
    ]
    assert cli.main([*arguments, "--backend", "openface", "--executable", str(STANDIN)]) == 2
    assert "found a packed store, expected videos or folders of pictures" in said(capsys)[1]
    lac = [*arguments, "--backend", "lac", "--weights", str(weights)]
    assert cli.main([*lac, "--classes", "all"]) == 2 and "--classes" in said(capsys)[1]
    assert cli.main(["au", "extract", "DFEW", "--root", str(tmp_path / "folder"), "--backend", "lac"]) == 2
    assert "found clips of folder, expected clips of DFEW" in said(capsys)[1]
    assert cli.main([*lac, "--workers", "1"]) == 0
    assert f"{tmp_path / 'au.parquet'}: 22 frames of 4 clips; 22 with a face" in said(capsys)[0]  # 4, 6, 6 and 6


def test_weights_are_trained_on_an_annotated_set_and_extract_takes_them(study, weights, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = [
        "au",
        "train-lac",
        "DISFA",
        "--root",
        str(study.data_root),
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--precision",
        "float32",
    ]
    assert cli.main([*arguments, "--size", "tiny", "--out", str(first)]) == 0
    out, _ = said(capsys)
    assert (
        "trained on rendered faces" in out and "20 frames of 1 held-out subjects" in out and f"--weights {first}" in out
    )
    assert cli.main([*arguments, "--weights", str(first), "--out", str(second)]) == 0
    before, after = (Recogniser.load(folder) for folder in (first, second))
    assert (after.window, after.image_size, after.action_units) == (
        before.window,
        before.image_size,
        before.action_units,
    )
    fresh = Recogniser(build_lac("tiny", window=before.window))
    away = [
        sum(
            (mine - theirs).abs().sum()
            for mine, theirs in zip(after.network.parameters(), other.network.parameters(), strict=True)
        )
        for other in (before, fresh)
    ]
    assert 0 < away[0] < 0.5 * away[1]  # it went on from the first one's weights
    said(capsys)
    assert cli.main([*arguments, "--weights", str(first), "--fold", "2", "--out", str(tmp_path / "leak")]) == 2
    assert "have not seen its subjects" in said(capsys)[1]  # they trained on fold 2's subjects
    for more, words in (
        (["--weights", str(weights)], "no word of its training"),
        (["--fold", "4"], "1 to 3"),
        (["--weights", str(first), "--size", "small"], "network is that of the weights"),
    ):
        assert cli.main([*arguments, *more, "--out", str(tmp_path / "no")]) == 2 and words in said(capsys)[1]
    assert (
        cli.main(
            [
                "au",
                "extract",
                "FERV39k",
                "--root",
                str(study.data_root),
                "--backend",
                "lac",
                "--weights",
                str(second),
                "--device",
                "cpu",
                "--workers",
                "1",
                "--out",
                str(tmp_path / "au.parquet"),
            ]
        )
        == 0
    )
    assert set(AUTable.load(tmp_path / "au.parquet").clip_ids()) == set(study.manifest("FERV39k").table["clip_id"])


def test_weights_are_lent_au_by_au():
    torch.manual_seed(1)
    given = Recogniser(build_lac("tiny", action_units=("AU01", "AU02", "AU12")))
    network = build_lac("tiny", action_units=("AU12", "AU24", "AU01"))
    fresh = network.check.weight[1].clone()
    given.lend_to(network)
    torch.testing.assert_close(network.classifier.weight[[0, 2]], given.network.classifier.weight[[2, 0]])
    torch.testing.assert_close(network.check.weight[[0, 2]], given.network.check.weight[[2, 0]])
    torch.testing.assert_close(network.check.weight[1], fresh)  # AU24 is nobody's
    torch.testing.assert_close(network.backbone.conv1.weight, given.network.backbone.conv1.weight)
    with pytest.raises(InputError, match="as in the network that is to be trained"):
        given.lend_to(build_lac("tiny", dim=16))
