"""A real video's expression scores: from CSVs by the matrix alone, from pictures by a network; what is refused."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paths import SHARED
from safetensors.torch import save_file
from small_layouts import clip as small_clip
from small_layouts import video as write_video

import audfer
from audfer.action_units.table import AUTable, table_from_openface_folder
from audfer.companion import cli, video_panel
from audfer.companion.predict import ALONE, accuracy_alone, read_clip, to_json, write_html
from audfer.datasets import alignment
from audfer.errors import AudferError, InputError
from audfer.facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from audfer.knowledge import KnowledgeMatrix
from audfer.lock_and_check.network import build_lac
from audfer.lock_and_check.training import Recogniser
from audfer.openface import INTENSITY_COLUMNS, LANDMARK_COLUMNS, PRESENCE_COLUMNS, read_openface

RAVDESS = SHARED / "data" / "ravdess_openface"
REAL = SHARED / "data" / "real_faces"
needs_dlib = pytest.mark.skipif(
    find_spec("dlib") is None, reason="dlib is not installed: pip install audfer[landmarks]"
)
FRAMES, SIDE = 20, 96


def write_csv(path: Path, intensity: dict[str, float], frames: int = FRAMES, failed=(), points: bool = True) -> Path:
    """OpenFace's file of a clip whose AUs do not change, with a face that stands where the template wants it."""
    ok = np.isin(np.arange(frames), failed, invert=True).astype(int)
    columns = {"frame": np.arange(1, frames + 1), "timestamp": np.arange(frames) / 25, "confidence": 0.98 * ok}
    columns |= {"success": ok} | {name: intensity.get(name[:4], 0.0) * ok for name in INTENSITY_COLUMNS}
    columns |= {name: np.zeros(frames, int) for name in PRESENCE_COLUMNS}
    if points:
        shape = np.full((68, 2), 0.5)
        shape[36:42], shape[42:48], shape[48], shape[54] = alignment.TEMPLATE
        columns |= dict(zip(LANDMARK_COLUMNS, (SIDE * shape).T.ravel(), strict=True))
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_video(tmp_path / "clip.mp4", FRAMES, SIDE)


def test_the_matrix_alone_reads_a_table_and_says_why(clip, tmp_path):
    """Scores, parts and counterfactuals by their definitions, worked out here another way."""
    values = {"AU04": 2.0, "AU07": 1.5, "AU12": 1.0}
    frames = audfer.predict(clip, aus=write_csv(tmp_path / "clip.csv", values, failed=(7,)))
    assert frames["frame"].tolist() == list(range(FRAMES)) and frames["seconds"].iloc[-1] == pytest.approx(19 / 25)
    # the failed frame, and those whose intensities OpenFace has smoothed over it
    assert frames.index[~frames["ok"]].tolist() == [6, 7, 8]
    assert frames.loc[7, list(EXPRESSIONS)].isna().all() and frames.loc[7, "expression"] == ""
    known = frames[frames["ok"]]
    np.testing.assert_allclose(known[list(EXPRESSIONS)].sum(axis=1), 1)
    matrix = KnowledgeMatrix.published().to_frame()

    def logits(some: dict) -> pd.Series:
        rows = matrix.div(matrix.sum(axis=1), axis=0)
        return sum(value * np.log(rows[au]) for au, value in some.items())

    about, whole = frames.attrs["about"], logits(values)
    expected = np.exp(whole) / np.exp(whole).sum()
    assert about["scores"] == pytest.approx(expected.to_dict()) and about["answer"] == whole.idxmax()
    assert about["answer"] == known["expression"].iloc[0]
    parts = {row["au"]: row["part"] for row in about["evidence"]}
    assert sum(parts.values()) == pytest.approx(whole.max() - whole.drop(whole.idxmax()).mean())
    for au in values:
        left = logits({name: value for name, value in values.items() if name != au})
        assert about["counterfactuals"][au] == left.idxmax()
    assert {row["au"] for row in about["evidence"]} == set(INTENSITY_ACTION_UNITS)
    assert 0 <= about["control"]["same"] <= about["control"]["draws"] == 200
    assert "mean recall was" in about["words"][0] and "shuffled" in about["words"][0]


def test_a_face_at_rest_is_undecided(clip, tmp_path):
    about = audfer.predict(clip, aus=write_csv(tmp_path / "clip.csv", {})).attrs["about"]
    assert about["undecided"] and set(np.round(list(about["scores"].values()), 6)) == {round(1 / 7, 6)}
    assert any("hardly moves" in flag for flag in about["flags"])


def test_a_baseline_is_subtracted_and_its_warning_said(clip, tmp_path):
    csv = write_csv(tmp_path / "clip.csv", {"AU04": 2.0, "AU12": 1.0})
    other = write_csv(tmp_path / "other.csv", {"AU04": 2.0})
    table = AUTable.from_tracks({"other": read_openface(other)})
    table.save(tmp_path / "other.parquet")
    only = audfer.predict(clip, aus=write_csv(tmp_path / "only.csv", {"AU12": 1.0})).attrs["about"]
    for baseline in ([str(other)], [tmp_path / "other.parquet"]):
        about = audfer.predict(clip, aus=csv, baseline=baseline).attrs["about"]
        assert about["scores"] == pytest.approx(only["scores"]) and about["baseline"] == "person"
    about = audfer.predict(clip, aus=csv, baseline="clip").attrs["about"]
    assert about["undecided"] and "lowest tenth" in about["words"][-1]  # it holds still: nothing is left
    KnowledgeMatrix.published().save(tmp_path / "mine.json")
    about = audfer.predict(clip, aus=csv, weights=tmp_path / "mine.json").attrs["about"]
    assert "how often this matrix is right with AUs of OpenFace was not measured" in about["words"][0]


def test_every_source_of_action_units_gives_the_same_table(clip, tmp_path):
    csv = write_csv(tmp_path / "clip.csv", {"AU12": 2.0}, failed=(3,))
    track = read_openface(csv)
    track.frame -= 1  # a table counts from 0
    AUTable.from_tracks({"clip": track}).save(tmp_path / "one.parquet")
    AUTable.from_tracks({"other": track, "clip": track}).save(tmp_path / "two.parquet")
    first = audfer.predict(clip, aus=csv)
    for name in ("one.parquet", "two.parquet"):
        pd.testing.assert_frame_equal(first, audfer.predict(clip, aus=tmp_path / name))
    AUTable.from_tracks({"a": track, "b": track}).save(tmp_path / "strange.parquet")
    with pytest.raises(InputError, match="2, none called clip"):
        audfer.predict(clip, aus=tmp_path / "strange.parquet")


def test_a_table_of_the_rendered_faces_estimator_is_refused(clip, tmp_path):
    track = read_openface(write_csv(tmp_path / "clip.csv", {"AU12": 2.0}))
    track.report["tool"] = "audfer"
    AUTable.from_tracks({"clip": track}).save(tmp_path / "au.parquet")
    with pytest.raises(AudferError, match="estimator of rendered faces: these weights were trained on rendered faces"):
        audfer.predict(clip, aus=tmp_path / "au.parquet")


def test_openfaces_program_is_run_on_the_video_or_on_pictures(clip, tmp_path):
    """A program that takes OpenFace's arguments and writes what a file beside it holds."""
    write_csv(tmp_path / "made.csv", {"AU12": 2.0, "AU06": 1.0})
    program = tmp_path / "FeatureExtraction"
    program.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -out_dir) out=$2;; -of) name=$2;; esac; shift; done\n"
        f'mkdir -p "$out"; cp "{tmp_path}/made.csv" "$out/$name.csv"\n'
    )
    program.chmod(0o755)
    frames = audfer.predict(clip, aus="openface", executable=str(program))
    assert frames["ok"].all() and (frames["AU12_r"] == 2).all() and frames.attrs["about"]["action_units"] == "openface"
    pictures = small_clip(tmp_path / "pictures", count=FRAMES, side=SIDE)
    of_pictures = audfer.predict(pictures, aus="openface", executable=str(program))
    assert of_pictures["seconds"].isna().all() and (of_pictures["happy"] == frames["happy"]).all()
    write_html(of_pictures, pictures, tmp_path / "page.html")  # over frames, where no time is known
    assert to_json(of_pictures)["rows"][0]["seconds"] is None
    program.write_text("#!/bin/sh\necho no models >&2\nexit 3\n")
    with pytest.raises(AudferError, match="exit status 3"):
        audfer.predict(clip, aus="openface", executable=str(program))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({}, "no source named, which a knowledge matrix needs"),
        ({"aus": "opnface"}, "one of openface"),
        ({"aus": "audfer"}, "trained on rendered faces and say nothing about real ones"),
        ({"aus": "longer.csv"}, "rows numbered up to 40, expected 20"),
        ({"aus": "clip.csv", "baseline": "nowhere.csv"}, "No such file"),
        ({"aus": "clip.csv", "weights": "nowhere.json"}, "a saved knowledge matrix"),
        ({"weights": "nowhere.pth"}, "no such file"),
        ({"aus": "clip.csv", "face": "prettiest"}, "longest, largest, confident"),
        ({"aus": "blendshapes", "face": "nicest"}, "longest, largest, confident"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(wrong, sentence, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "clip.csv", {"AU12": 1.0})
    write_csv(tmp_path / "longer.csv", {"AU12": 1.0}, frames=40)
    with pytest.raises(AudferError, match=sentence):
        audfer.predict(clip, **wrong)


def test_rendered_weights_are_refused_and_others_judge_faces(clip, tmp_path, study, capsys):
    """A record of the embedded benchmark, and the same record in a store of real clips."""
    csv = write_csv(tmp_path / "clip.csv", {"AU12": 1.0})
    (record,) = study.run([study.cell("former_dfer", "DFEW")])
    assert cli.main(["predict", str(clip), "--weights", str(record.path), "--landmarks", str(csv)]) == 2
    assert "trained on rendered faces and say nothing about real ones; take weights" in capsys.readouterr().err
    with pytest.raises(AudferError, match="trained on rendered faces"):
        audfer.predict(clip, weights=record.path / "weights.safetensors", landmarks=csv)
    shutil.copytree(record.path, tmp_path / "runs" / record.path.name)
    (tmp_path / "runs" / "grid.json").write_text(json.dumps({"profile": {"data": {"source": "disk"}}}))
    frames = audfer.predict(clip, weights=tmp_path / "runs" / record.path.name, landmarks=csv)
    np.testing.assert_allclose(frames[list(EXPRESSIONS)].sum(axis=1), 1, rtol=1e-5)
    assert frames["ok"].all() and "DFEW" in frames.attrs["about"]["model"]
    assert frames[list(INTENSITY_COLUMNS)].isna().all(axis=None)


@pytest.mark.parametrize("weights", ["former_dfer", "m3dfel/weights.safetensors"])
def test_weights_that_ship_are_refused_as_rendered_ones(clip, weights):
    with pytest.raises(AudferError, match="trained on rendered faces.*audfer train --profile ravdess"):
        audfer.predict(clip, weights=Path(audfer.__file__).parent / "pretrained" / weights)


def test_a_checkpoint_says_itself_what_network_it_is(tmp_path):
    """A longer clip is judged in windows, of which a frame takes the mean; frames without a face are unknown."""
    import torch

    from audfer.models import build_model

    torch.manual_seed(0)
    model = build_model("m3dfel", size="tiny")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    video = write_video(tmp_path / "long.mp4", 250, SIDE)
    csv = write_csv(tmp_path / "long.csv", {}, frames=250, failed=range(100, 120))
    frames = audfer.predict(video, weights=tmp_path / "mine.safetensors", landmarks=csv)
    assert frames.index[~frames["ok"]].tolist() == list(range(100, 120))
    assert frames[list(EXPRESSIONS)].dropna().drop_duplicates().shape[0] > 3
    assert any("20 of 250" not in flag for flag in frames.attrs["about"]["flags"])
    save_file(build_model("m3dfel", size="tiny", num_classes=8).state_dict(), tmp_path / "eight.safetensors")
    with pytest.raises(InputError, match="8 expressions, expected a network of audfer with the seven"):
        audfer.predict(video, weights=tmp_path / "eight.safetensors", landmarks=csv)


def test_lac_gets_the_face_cut_out_and_its_rendered_weights_are_refused(clip, tmp_path):
    csv = write_csv(tmp_path / "points.csv", {})
    for name, about in (("rendered", {}), ("real", {"trained_on": "DISFA"})):
        Recogniser(build_lac("tiny", image_size=48, window=4), description=about).save(tmp_path / name)
    with pytest.raises(AudferError, match="rendered faces.*audfer au train-lac"):
        audfer.predict(clip, aus="lac", au_weights=tmp_path / "rendered", landmarks=csv)
    frames = audfer.predict(clip, aus="lac", au_weights=tmp_path / "real", landmarks=csv)
    assert frames["ok"].all() and frames.attrs["about"]["action_units"] == "lac, DISFA"


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.pictures, self.texts = [], 0, []

    def handle_starttag(self, tag, attrs):
        self.pictures += tag == "img" and dict(attrs)["src"].startswith("data:image/png;base64,")
        assert tag != "script" and "http" not in str(dict(attrs).get("src", "")), tag
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_command_writes_page_table_and_plain_json(tmp_path, capsys):
    video = write_video(tmp_path / "a <b>.mp4", FRAMES, SIDE)
    csv = write_csv(tmp_path / "a <b>.csv", {"AU12": 3.0, "AU06": 2.0}, failed=(2,))
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    command = ["predict", str(video), "--aus", str(csv), "--html", str(page), "--csv", str(table), "--json"]
    assert cli.main(command) == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert answer["answer"] == "happy" and len(answer["rows"]) == FRAMES and answer["rows"][2]["happy"] is None
    assert len(pd.read_csv(table)) == FRAMES
    reader = _Page()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.open and reader.pictures == 1 and {"happy", "AU12 lip corner puller"} <= set(reader.texts)
    assert "a <b>.mp4" in page.read_text().replace("&lt;", "<").replace("&gt;", ">")
    assert cli.main(command[:4]) == 0
    said = capsys.readouterr().out
    assert "happy" in said and "mean recall" in said and "Take one AU away" in said


def test_the_panel_goes_through_the_frames_and_stands_still_where_nobody_moves_it(clip, tmp_path, monkeypatch):
    frames = audfer.predict(clip, aus=write_csv(tmp_path / "clip.csv", {"AU12": 2.0}, failed=(5,)))
    monkeypatch.setattr(video_panel, "headless", lambda: False)
    panel = video_panel.video_panel(frames, clip)
    first = panel.image.value
    assert "happy" in panel.scores.value and "AU12" in panel.units.value and panel.slider.max == FRAMES - 1
    panel.slider.value = 5
    assert panel.scores.value == "no face in this frame" and panel.image.value != first
    monkeypatch.setattr(video_panel, "headless", lambda: True)
    assert video_panel.video_panel(frames, clip).size[0] > 800


@pytest.mark.skipif(not RAVDESS.is_dir(), reason="RAVDESS's OpenFace tables are not on this machine")
def test_figure_4_alone_on_real_tables_is_what_predict_says_of_it():
    """49 acted clips of two people: three times chance, shuffled AUs at chance; a person's own mean helps, a clip's
    lowest tenth does not.
    """
    table, labels = table_from_openface_folder(RAVDESS)
    found = accuracy_alone(table.frames, labels["expression"].to_numpy(), labels["actor"].to_numpy())
    by = found.set_index("baseline")
    assert by.loc["none", "uar"] == pytest.approx(22 / 49) and by.loc["none", "low"] > 2 / 7
    assert by.loc["person", "uar"] > by.loc["none", "uar"] > by.loc["clip", "uar"]
    assert by["shuffled"].between(0.05, 0.16).all()
    said = pd.DataFrame(json.loads(ALONE.read_text())).query("tool == 'OpenFace'").set_index("baseline")
    pd.testing.assert_frame_equal(by.round(4), said[by.columns], check_dtype=False)
    # the same number, counted clip by clip
    truth = labels.set_index("clip_id")["expression"]
    means = table.frames.groupby("clip_id")[list(INTENSITY_COLUMNS)].mean()
    right = [
        EXPRESSIONS[truth[name]] == max((s := read_clip(KnowledgeMatrix.published(), row)["scores"]), key=s.get)
        for name, row in zip(means.index, means.to_numpy(), strict=True)
        if truth[name] >= 0
    ]
    assert sum(right) == 22


@needs_dlib
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")
def test_a_real_clip_with_its_real_table(tmp_path):
    """OpenFace's CSV without frame numbers or landmarks; the points are dlib's."""
    clip, csv = REAL / "disgust" / "01-01-07-02-02-01-01_1.mp4", RAVDESS / "clips" / "01-01-07-02-02-01-01.csv"
    frames = audfer.predict(clip, aus=csv)
    about = frames.attrs["about"]
    assert about["answer"] == "disgust" and about["ok"] == 120 and not about["flags"]
    assert about["evidence"][0]["au"] in ("AU07", "AU10", "AU04")
    write_html(frames, clip, tmp_path / "page.html")
    assert len(json.dumps(to_json(frames))) > 10_000 and set(ACTION_UNITS) > {row["au"] for row in about["evidence"]}
