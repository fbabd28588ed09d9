"""Extractors over a manifest: every way a clip can fail, kills and resumes, two machines' worth of Dask workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paths import DATA, ROOT, SHARED

from audfer.action_units import AUTable
from audfer.action_units.backends import Estimator, OpenFace, PyFeat, read_pyfeat
from audfer.action_units.clips import Clip
from audfer.action_units.importing import ImportOptions
from audfer.action_units.running import extract_manifest
from audfer.companion import cli
from audfer.datasets.manifest import Manifest
from audfer.errors import InputError
from audfer.jobs.executors import dask_client

STANDIN = DATA / "openface" / "FeatureExtraction"
needs_slurm = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed")
PYFEAT_OUTPUT = SHARED / "data" / "edge_cases" / "pyfeat_detector_output.csv"


def make_clips(root: Path, behaviours: dict[str, str], frames: int = 12) -> Manifest:
    """Clips of unpadded pictures ("2.jpg" after "10.jpg" in string order), each holding its number."""
    for name, behaviour in behaviours.items():
        folder = root / "happy" / name
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            (folder / f"{number}.jpg").write_text(f"{behaviour} {number}")
    rows = [
        {
            "clip_id": f"happy/{name}",
            "path": f"happy/{name}",
            "start": 0,
            "stop": -1,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
        for name in behaviours
    ]
    return Manifest("folder", root, pd.DataFrame(rows))


@pytest.fixture
def log(tmp_path, monkeypatch):
    """What the stand-in noted: a list of (what, pid, parent, clip)."""
    path = tmp_path / "log"
    monkeypatch.setenv("STANDIN_LOG", str(path))
    return lambda: [line.split() for line in path.read_text().splitlines()] if path.is_file() else []


def ends(log) -> Counter:
    return Counter(clip for what, _, _, clip in log() if what == "end")


def alive(pid) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


# ---- OpenFace


def test_every_clip_ends_in_the_table_or_in_quarantine_with_its_reason(tmp_path, log):
    manifest = make_clips(
        tmp_path / "clips",
        {name: name for name in ("good", "nothing", "header", "crash", "exit", "hang", "short", "once")},
    )
    (tmp_path / "clips" / "happy" / "empty").mkdir()
    table = pd.concat(
        [manifest.table, manifest.table.iloc[:2].assign(clip_id=["a", "b"], path=["happy/absent", "happy/empty"])]
    )
    manifest = Manifest("folder", manifest.root, table)
    backend = OpenFace(str(STANDIN), csvs=str(tmp_path / "csvs"), reading=ImportOptions(version="2.2.0", mode="static"))
    states = extract_manifest(manifest, tmp_path / "au.parquet", backend, workers=3, seconds=4.0, retries=1)
    states = states.set_index(states["path"].str.split("/").str[1])
    assert states["state"].to_dict() == {
        "good": "done",
        "once": "done",
        **dict.fromkeys(("nothing", "header", "crash", "exit", "hang", "short", "absent", "empty"), "refused"),
    }
    for name, reason in {
        "nothing": "without writing a file",
        "header": "no face found",
        "crash": "killed by SIGSEGV",
        "exit": r"exit status 3 \(ERROR: the models cannot be read\)",
        "hang": "no end after 4 s",
        "short": "11 whole rows for 12 pictures",
        "absent": "nothing there",
        "empty": "no image",
    }.items():
        assert pd.Series([states.loc[name, "reason"]]).str.contains(reason).all(), states.loc[name, "reason"]
    assert states["attempts"].to_dict() == {
        "good": 1,
        "once": 2,
        "nothing": 2,
        "header": 1,
        "crash": 2,
        "exit": 2,
        "hang": 2,
        "short": 2,
        "absent": 1,
        "empty": 1,
    }
    quarantine = pd.read_csv(tmp_path / "au_quarantine.csv")
    assert set(quarantine["clips"]) == {
        f"happy/{n}" for n in ("nothing", "header", "crash", "exit", "hang", "short")
    } | {"a", "b"}
    assert not any(alive(pid) for what, pid, _, _ in log() if what == "start")
    assert not any(alive(child) for what, _, _, child in log() if what == "child")  # what the hanging one started

    table = AUTable.load(tmp_path / "au.parquet")
    assert table.clip_ids() == ["happy/good", "happy/once"]
    good = table.clip("happy/good")
    assert good.frame.tolist() == list(range(12)) and good.ok.all()
    np.testing.assert_allclose(
        good.intensity[:, 0], np.arange(1, 13) / 100, atol=1e-6
    )  # pictures in the order of numbers
    assert (good.presence[:, 0] == 1).all()  # -au_static was given
    made = table.provenance().loc["happy/good"]
    assert (made["tool"], made["version"], made["mode"], round(made["threshold"], 3)) == (
        "OpenFace",
        "2.2.0",
        "static",
        0.725,
    )
    assert (tmp_path / "csvs" / "happy" / "good.csv").is_file() and (
        tmp_path / "csvs/happy/good_of_details.txt"
    ).is_file()


def test_a_second_run_does_nothing_and_a_changed_clip_or_option_is_done_again(tmp_path, log):
    manifest = make_clips(tmp_path / "clips", {"a": "good", "b": "good", "c": "crash"})
    run = lambda **more: extract_manifest(  # noqa: E731
        manifest, tmp_path / "au.parquet", OpenFace(str(STANDIN), reading=ImportOptions(**more)), retries=0
    )
    run()
    before = (tmp_path / "au.parquet").read_bytes()
    run()
    assert ends(log) == {"a": 1, "b": 1} and [w for w, *_ in log()].count("start") == 3
    assert (tmp_path / "au.parquet").read_bytes() == before
    extract_manifest(
        manifest, tmp_path / "au.parquet", OpenFace(str(STANDIN), reading=ImportOptions()), retries=0, again=True
    )
    assert [w for w, *_ in log()].count("start") == 4  # the refused one only
    (tmp_path / "clips" / "happy" / "a" / "3.jpg").write_text("good 333")
    run()
    assert ends(log) == {"a": 2, "b": 1}
    run(mode="static")
    assert ends(log) == {"a": 3, "b": 2}


def test_windows_of_one_take_share_one_extraction_and_keep_their_numbers(tmp_path, log):
    folder = tmp_path / "take"
    folder.mkdir()
    for number in (1, 2, 3, 5, 6, 8, 9, 10, 11):  # 4 and 7 are missing on disk
        (folder / f"{number:05d}.jpg").write_text(f"good {number}")
    rows = [
        {
            "clip_id": f"take:{start}",
            "path": "take",
            "start": start,
            "stop": start + 6,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
        for start in (0, 6)
    ]
    manifest = Manifest("AffWild2", tmp_path, pd.DataFrame(rows))
    extract_manifest(manifest, tmp_path / "au.parquet", OpenFace(str(STANDIN)))
    table = AUTable.load(tmp_path / "au.parquet")
    assert table.clip("take:0").frame.tolist() == [0, 1, 2, 4, 5] and table.clip("take:6").frame.tolist() == [
        7,
        8,
        9,
        10,
    ]
    np.testing.assert_allclose(table.clip("take:6").intensity[:, 0], [0.08, 0.09, 0.10, 0.11], atol=1e-6)
    assert ends(log) == {"take": 1}


def test_a_video_is_given_whole_and_numbered_from_0(tmp_path, log):
    (tmp_path / "a clip.mp4").write_text("good 5")
    rows = [
        {
            "clip_id": "a clip",
            "path": "a clip.mp4",
            "start": 0,
            "stop": -1,
            "split": "train",
            "expression": 0,
            "subject": "",
        }
    ]
    extract_manifest(Manifest("folder", tmp_path, pd.DataFrame(rows)), tmp_path / "au.parquet", OpenFace(str(STANDIN)))
    track = AUTable.load(tmp_path / "au.parquet").clip("a clip")
    assert track.frame.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(track.intensity[:, 0], np.arange(5) / 100, atol=1e-6)


def test_the_table_equals_the_import_of_the_kept_files(tmp_path, log):
    from audfer.action_units.importing import import_openface

    manifest = make_clips(tmp_path / "clips", {"a": "good", "b": "good"})
    extract_manifest(manifest, tmp_path / "au.parquet", OpenFace(str(STANDIN), csvs=str(tmp_path / "csvs")))
    imported, extracted = (
        import_openface(manifest, tmp_path / "csvs").frames,
        AUTable.load(tmp_path / "au.parquet").frames,
    )
    columns = [name for name in imported if name != "mode"]  # no OpenFace file tells it
    pd.testing.assert_frame_equal(imported[columns], extracted[columns], check_categorical=False)


def test_a_container_gets_the_clip_and_ends_with_its_time(tmp_path, log, monkeypatch):
    image = tmp_path / "image"
    image.mkdir()
    shutil.copy(STANDIN, image / "FeatureExtraction")
    monkeypatch.setenv("PATH", f"{STANDIN.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_IMAGE", str(image))
    manifest = make_clips(tmp_path / "clips", {"good": "good", "hang": "hang"})
    backend = OpenFace(container="openface:test", engine="docker")
    states = extract_manifest(manifest, tmp_path / "au.parquet", backend, seconds=4.0, retries=0)
    assert states["state"].tolist() == ["done", "refused"]
    assert len(AUTable.load(tmp_path / "au.parquet").clip("happy/good")) == 12
    wait_for(lambda: not any(alive(pid) for what, pid, _, clip in log() if what == "start"), 5)
    for what, _, _, child in log():
        if what == "child":
            os.kill(
                int(child), signal.SIGKILL
            )  # a real container ends with its first process; the stand-in's child does not
    (image / "apptainer").symlink_to(STANDIN)
    monkeypatch.setenv("PATH", f"{image}:{os.environ['PATH']}")
    command, _ = OpenFace(container="of.sif", engine="apptainer").command(
        Clip("folder", manifest.root, (manifest.table.iloc[0].to_dict(),)), image
    )
    assert (
        command[:3] == ["apptainer", "exec", "--containall"]
        and command[command.index("of.sif") + 1] == "FeatureExtraction"
    )


def test_an_extractor_that_is_not_there_is_refused_before_any_clip(tmp_path):
    manifest = make_clips(tmp_path / "clips", {"a": "good"})
    for backend, message in (
        (OpenFace("no-such-program"), "--container"),
        (PyFeat(), "install it"),
        (OpenFace(container="x", engine="podman"), "podman"),
        (Estimator(str(tmp_path), 64), "none there"),
    ):
        with pytest.raises(InputError, match=message):
            extract_manifest(manifest, tmp_path / "au.parquet", backend)
    with pytest.raises(InputError, match="nothing from all 1"):
        extract_manifest(
            make_clips(tmp_path / "bad", {"a": "nothing"}), tmp_path / "bad.parquet", OpenFace(str(STANDIN))
        )
    assert not (tmp_path / "bad.parquet").exists() and (tmp_path / "bad_quarantine.csv").is_file()


# ---- kills


def test_a_killed_run_goes_on_where_it_was_and_does_nothing_twice(tmp_path, log):
    make_clips(tmp_path / "clips", {f"clip{i}": "slow" for i in range(8)})
    arguments = [
        "au",
        "extract",
        "folder",
        "--root",
        str(tmp_path / "clips"),
        "--backend",
        "openface",
        "--executable",
        str(STANDIN),
        "--workers",
        "2",
        "--out",
        str(tmp_path / "au.parquet"),
    ]
    with open(tmp_path / "printed", "w") as printed:
        first = subprocess.Popen(
            [sys.executable, "-m", "audfer.companion.cli", *arguments], stdout=printed, stderr=printed
        )
        seen = lambda: [what for what, *_ in log()]  # noqa: E731
        # right after a clip was begun: what ended before is stored, what runs now has not ended
        wait_for(lambda: seen().count("end") >= 3 and seen()[-1] == "start")
        time.sleep(0.1)
        first.kill()
        first.wait()
    begun = [pid for what, pid, _, _ in log() if what == "start"]
    wait_for(lambda: not any(map(alive, begun)), 5)  # the extractors went with it
    assert 3 <= sum(ends(log).values()) < 8 and not (tmp_path / "au.parquet").exists()
    assert cli.main(arguments) == 0
    assert ends(log) == {f"clip{i}": 1 for i in range(8)}
    assert len(AUTable.load(tmp_path / "au.parquet").frames) == 8 * 12


def test_an_interrupted_run_blames_no_clip(tmp_path, log):
    manifest = make_clips(tmp_path / "clips", {f"clip{i}": "slow" for i in range(6)})
    backend = OpenFace(str(STANDIN))

    class Interrupting:
        def __init__(self):
            self.__dict__.update(vars(backend))

        def __getattr__(self, name):
            return getattr(backend, name)

        def extract(self, clip, seconds):
            if clip.clip_ids == ["happy/clip3"]:
                wait_for(lambda: sum(ends(log).values()) == 3)
                time.sleep(0.1)  # let the third one's process end
                os.kill(os.getpid(), signal.SIGINT)
            return backend.extract(clip, seconds)

    with pytest.raises(KeyboardInterrupt):
        extract_manifest(manifest, tmp_path / "au.parquet", Interrupting(), workers=2)
    assert not list((tmp_path / "au_clips").rglob("*.json"))
    states = extract_manifest(manifest, tmp_path / "au.parquet", backend, workers=2)
    assert (states["state"] == "done").all() and set(ends(log).values()) == {1}


def test_a_dask_worker_killed_in_the_middle_loses_nothing_and_nothing_is_done_twice(tmp_path, log):
    distributed = pytest.importorskip("distributed")
    manifest = make_clips(tmp_path / "clips", {**{f"clip{i:02d}": "slow" for i in range(10)}, "bad": "nothing"})
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        dask_client(cluster.scheduler_address) as client,
    ):
        workers = set(client.run(os.getpid).values())
        result = {}
        run = threading.Thread(
            target=lambda: result.update(
                states=extract_manifest(
                    manifest, tmp_path / "au.parquet", OpenFace(str(STANDIN)), client=client, retries=0
                )
            )
        )
        run.start()
        wait_for(lambda: sum(ends(log).values()) >= 4 and log()[-1][0] == "start")
        time.sleep(0.1)
        _, begun, worker, clip = log()[-1]
        assert int(worker) in workers
        os.kill(int(worker), signal.SIGKILL)
        wait_for(lambda: not alive(begun), 5)
        assert clip not in ends(log)  # it was in the middle of this one
        run.join(60)
    states = result["states"]
    assert states["state"].value_counts().to_dict() == {"done": 10, "refused": 1}
    assert ends(log) == {**{f"clip{i:02d}": 1 for i in range(10)}, "bad": 1}
    assert len(AUTable.load(tmp_path / "au.parquet").clip_ids()) == 10


@needs_slurm
def test_a_slurm_job_works_for_the_command_line(tmp_path, log, monkeypatch):
    """With a stand-in ``sbatch`` that runs the job's script at once."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(
        f'#!/bin/sh\ncp "$1" {tools}/job.sh\nsetsid bash {tools}/job.sh >{tools}/out 2>&1 </dev/null &\n'
        f"echo $! > {tools}/pid\necho Submitted batch job 17\n"
    )
    (tools / "scancel").write_text(f"#!/bin/sh\nkill -9 -- -$(cat {tools}/pid)\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    make_clips(tmp_path / "clips", {"a": "good", "b": "good"})
    assert (
        cli.main(
            [
                "au",
                "extract",
                "folder",
                "--root",
                str(tmp_path / "clips"),
                "--backend",
                "openface",
                "--executable",
                str(STANDIN),
                "--out",
                str(tmp_path / "au.parquet"),
                "--slurm",
                "jobs=1",
                "queue=cpu",
                "memory=1GB",
                "walltime=00:10:00",
            ]
        )
        == 0
    )
    job = (tools / "job.sh").read_text()
    assert "#SBATCH -p cpu" in job and "#SBATCH -t 00:10:00" in job and ends(log) == {"a": 1, "b": 1}
    assert {parent for _, _, parent, _ in log()} != {str(os.getpid())}
    assert len(AUTable.load(tmp_path / "au.parquet").clip_ids()) == 2


# ---- py-feat


@pytest.mark.skipif(not PYFEAT_OUTPUT.is_file(), reason="the shared data folder is not here")
def test_pyfeats_output_gives_presence_of_17_aus_and_no_intensity():
    track = read_pyfeat(PYFEAT_OUTPUT)
    assert len(track) == 40 and track.ok.all() and track.frame.tolist() == list(range(1, 41))
    assert np.isnan(track.intensity).all() and np.isnan(track.presence[:, 17]).all()  # AU45: AU43 is not a blink
    raw = pd.read_csv(PYFEAT_OUTPUT)
    assert (track.presence[:, 8] == (raw["AU12"] >= 0.5)).all() and (
        track.presence[:, 16] == (raw["AU28"] >= 0.5)
    ).all()
    assert not np.isnan(track.presence[:, :17]).any()


def test_pyfeat_frames_without_a_face_several_faces_and_wrong_tables():
    aus = {
        f"AU{n:02d}": [0.9, 0.1, 0.2, np.nan]
        for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
    }
    table = pd.DataFrame(
        {
            "frame": [0, 0, 2, 1],
            "FaceScore": [0.9, 0.9, 0.9, np.nan],
            "FaceRectWidth": [10, 90, 50, 0],
            "FaceRectHeight": [10, 90, 50, 0],
            "input": ["a", "a", "c", "b"],
            **aus,
        }
    )
    track = read_pyfeat(table)
    assert track.ok.tolist() == [True, False, True] and track.presence[0, 0] == 0  # the larger face
    assert read_pyfeat(table, ["c", "b", "a"]).ok.tolist() == [True, False, True]
    for wrong, message in (
        (table.drop(columns="AU12"), "AU12"),
        (table.drop(columns="FaceScore"), "FaceScore"),
        (table.assign(AU01=5.0), "0 to 1"),
        (table.iloc[:0], "none"),
    ):
        with pytest.raises(InputError, match=message):
            read_pyfeat(wrong)


def test_pyfeat_runs_in_its_own_process_where_it_is_installed(tmp_path, monkeypatch):
    """With a stand-in package ``feat`` that answers as py-feat's Detector does."""
    package = tmp_path / "packages" / "feat"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, pandas as pd\n"
        "class Detector:\n"
        "    def __init__(self, au_model): assert au_model == 'xgb'\n"
        "    def detect(self, inputs, data_type):\n"
        "        print('progress that must not mix with the answer')\n"
        "        text = [open(i).read() for i in inputs]\n"
        "        if 'crash' in text[0]: os.abort()\n"
        "        aus = ['AU%02d' % n for n in (1,2,4,5,6,7,9,10,11,12,14,15,17,20,23,24,25,26,28,43)]\n"
        "        rows = [{'input': i, 'frame': 0, 'FaceScore': 1.0, **dict.fromkeys(aus, int(t.split()[1]) / 12)}\n"
        "                for i, t in zip(inputs, text)]\n"
        "        return pd.DataFrame(rows[::-1])\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{ROOT}")
    manifest = make_clips(tmp_path / "clips", {"a": "good", "b": "crash"})
    states = extract_manifest(manifest, tmp_path / "au.parquet", PyFeat(), workers=1, retries=0, seconds=60)
    assert states["state"].tolist() == ["done", "refused"] and "SIGABRT" in states["reason"][1]
    track = AUTable.load(tmp_path / "au.parquet").clip("happy/a")
    assert track.presence[:, 0].tolist() == [0.0] * 5 + [1.0] * 7 and np.isnan(track.intensity).all()
