"""DISFA and BP4D as they lie on disk.

Labels, folds, pictures, landmarks, faults, and what ``data check`` says of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_layouts import jpeg, lines, video

from audfer import datasets, synth
from audfer.companion import cli
from audfer.datasets import DATASETS, annotated
from audfer.datasets.readers import bp4d, disfa
from audfer.errors import InputError
from audfer.facs import ACTION_UNITS

BP4D_HEADER = (1, 2, 4, 5, 6, 7, 10, 12, 14, 15, 17, 23, 24)


def make_bp4d(
    root: Path,
    sequences=("F001_T1", "F001_T2", "M002_T1", "F004_T8"),
    frames=range(98, 103),
    padding: int = 4,
    images: str = "",
    header=BP4D_HEADER,
) -> Path:
    """AU n of frame f is present where f + n is even; AU24 is never coded; images n show the grey 2 n."""
    for name in sequences:
        subject, task = name.split("_")
        lines(
            root / "AUCoding" / "AU_OCC" / f"{name}.csv",
            "0," + ",".join(map(str, header)),
            *[
                f"{frame}," + ",".join("9" if au == 24 else str(1 - (frame + au) % 2) for au in header)
                for frame in frames
            ],
        )
        folder = root / images / subject / task
        folder.mkdir(parents=True)
        for frame in (min(frames) - 1, *frames):  # more images than annotations, as in the release
            (folder / f"{frame:0{padding}d}.jpg").write_bytes(jpeg(2 * frame))
    return root


def make_disfa_images(
    root: Path, subject: str, first: int = 1, count: int = 4, folder: str = "Images", name: str = "left_{:04d}.jpg"
) -> Path:
    for unit in (1, 25):
        lines(root / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt", *[f"{n + 1},{n}" for n in range(count)])
    place = root / folder / subject
    place.mkdir(parents=True)
    for number in range(first, first + count):
        (place / name.format(number)).write_bytes(jpeg(20 * (number - first)))
        (place / f"right_{number:04d}.jpg").write_bytes(jpeg(250))
    return root


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("padding, images", [(1, ""), (3, "2D+3D"), (6, "Sequences(2D+3D)"), (4, "img")])
def test_bp4d_is_read_whatever_the_padding_and_the_folder(padding, images, tmp_path):
    root = make_bp4d(tmp_path / "BP4D", padding=padding, images=images)
    table = datasets.read_annotated("bp4d", tmp_path)
    assert table["sequence"].drop_duplicates().tolist() == ["F001/T1", "F001/T2", "F004/T8", "M002/T1"]
    assert annotated.action_units_of(table) == bp4d.EVALUATED and "AU24" in table and "AU05" not in table
    assert table["frame"].tolist() == list(range(98, 103)) * 4
    assert ((table["AU10"] == 1) == (table["frame"] % 2 == 0)).all() and table["AU24"].isna().all()
    assert table.drop_duplicates("subject").set_index("subject")["fold"].to_dict() == {"F001": 3, "F004": 1, "M002": 2}
    assert "ME-GraphAU" in table.attrs["folds"] and table.attrs["dropped"] == {}
    chosen = table.iloc[[19, 2, 2, 7]]
    pictures = datasets.load_annotated_frames(root, chosen, 8)
    assert pictures.shape == (4, 8, 8, 3)
    assert pictures.mean(axis=(1, 2, 3)) == pytest.approx(2 * chosen["frame"], abs=2)


def test_labels_are_present_from_code_2_on_in_disfa_as_coded_in_bp4d_and_unknown_stays_unknown(tmp_path):
    make_bp4d(tmp_path / "BP4D")
    make_disfa_images(tmp_path / "DISFA", "SN001")
    disfa_table, bp4d_table = (datasets.read_annotated(name, tmp_path) for name in ("DISFA", "BP4D"))
    found = datasets.annotated_labels(disfa_table, ("AU25", "AU24", "AU01"))
    assert found.dtype == np.float32 and np.isnan(found[:, 1]).all()
    assert found[:, 0].tolist() == found[:, 2].tolist() == [0, 0, 1, 1]  # codes 0, 1, 2, 3
    found = datasets.annotated_labels(bp4d_table, ("AU24", "AU01"))
    assert np.isnan(found[:, 0]).all() and found[:5, 1].tolist() == [0, 1, 0, 1, 0]
    # the 18 of the embedded set, asked of a set that has 12: the others are unknown
    assert np.isnan(datasets.annotated_labels(bp4d_table, ACTION_UNITS)).all(axis=0).sum() == 18 - 11
    with pytest.raises(InputError, match="'smile'"):
        datasets.annotated_labels(bp4d_table, ("smile",))
    with pytest.raises(InputError, match="found AU43, expected some of AU01"):
        datasets.annotated_labels(bp4d_table, ("AU43",))


@pytest.mark.parametrize("name, people", [("DISFA", 27), ("BP4D", 41)])
def test_published_folds_hold_every_subject_once(name, people):
    folds = DATASETS[name].annotation.subjects
    everybody = [subject for fold in folds for subject in fold]
    assert len(everybody) == len(set(everybody)) == people
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    if name == "BP4D":
        assert set(everybody) == {f"F{n:03d}" for n in range(1, 24)} | {f"M{n:03d}" for n in range(1, 19)}


def test_subjects_that_nobody_published_get_folds_by_a_named_rule(tmp_path):
    table = datasets.read_annotated("BP4D", make_bp4d(tmp_path, ("F001_T1", "F077_T1", "M001_T1", "M002_T1")))
    assert table.drop_duplicates("subject")["fold"].tolist() == [1, 2, 3, 1]
    assert "audfer's rule" in table.attrs["folds"] and "F077" in table.attrs["folds"]


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "folder, name", [("Images", "{:05d}.jpg"), ("Video_LeftCamera", "SN001_left_{}.jpg"), ("img", "left{}.png")]
)
def test_disfa_images_are_taken_from_the_left_camera_and_count_from_0_or_1(first, folder, name, tmp_path):
    root = make_disfa_images(tmp_path / "DISFA", "SN001", first, folder=folder, name=name)
    table = datasets.read_annotated("DISFA", tmp_path)
    assert table["frame"].tolist() == [0, 1, 2, 3] and not table["path"].str.contains("right").any()
    assert datasets.load_annotated_frames(root, table).mean(axis=(1, 2, 3)) == pytest.approx(
        20.0 * table["frame"], abs=2
    )
    assert datasets.read_dataset("DISFA", tmp_path, fold=3).table["split"].tolist() == ["test"]


def test_disfa_takes_the_pictures_asked_for(tmp_path):
    root = make_disfa_images(tmp_path, "SN001")
    video(root / "Video_LeftCamera" / "LeftVideoSN001_comp.avi", 4)
    taken = lambda **choices: datasets.read_annotated("DISFA", root, **choices)["path"][0]  # noqa: E731
    assert taken() == taken(clips="frames") == "Images/SN001/left_0001.jpg"
    assert taken(clips="video") == "Video_LeftCamera/LeftVideoSN001_comp.avi"
    with pytest.raises(InputError, match="clips of DISFA: found 'faces', expected frames or video"):
        taken(clips="faces")
    with pytest.raises(InputError, match="BP4D offers no such choice"):
        datasets.read_annotated("BP4D", root, clips="video")


def test_frames_without_a_picture_are_refused_or_left_out_and_counted(tmp_path):
    root = make_disfa_images(tmp_path / "DISFA", "SN001")
    make_disfa_images(root, "SN002")
    (root / "Images" / "SN002" / "left_0002.jpg").unlink()
    with pytest.raises(InputError, match='pictures of DISFA: found none for 1 of 8 .*1 of SN002.*missing="drop"'):
        datasets.read_annotated("DISFA", root)
    table = datasets.read_annotated("DISFA", root, missing="drop")
    assert len(table) == 7 and table.attrs["dropped"] == {"frames not on disk": 1}
    assert table.loc[table["subject"] == "SN002", "frame"].tolist() == [0, 2, 3]
    assert table.loc[table["subject"] == "SN002", "AU01"].tolist() == [0, 2, 3]
    with pytest.raises(InputError, match="missing: found 'keep'"):
        datasets.read_annotated("DISFA", root, missing="keep")

    root = make_bp4d(tmp_path / "BP4D")
    (root / "F001" / "T2" / "0100.jpg").unlink()
    with pytest.raises(
        InputError, match="images of BP4D: found none for 1 of 20 annotated frames .first: 1 of F001/T2"
    ):
        datasets.read_annotated("BP4D", root)
    table = datasets.read_annotated("BP4D", root, missing="drop")
    assert table.loc[table["sequence"] == "F001/T2", "frame"].tolist() == [98, 99, 101, 102]


def test_a_video_that_ends_early_counts_as_missing_frames(tmp_path):
    lines(tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au1.txt", *[f"{n},0" for n in range(1, 8)])
    video(tmp_path / "Video_LeftCamera" / "LeftVideoSN001_comp.avi", 5)
    with pytest.raises(InputError, match="none for 2 of 7 annotated frames"):
        datasets.read_annotated("DISFA", tmp_path)
    table = datasets.read_annotated("DISFA", tmp_path, missing="drop")
    assert table["frame"].tolist() == [0, 1, 2, 3, 4]
    table.loc[4, "frame"] = 6
    with pytest.raises(InputError, match="LeftVideoSN001_comp.avi: frames: found 5, fewer than are wanted"):
        datasets.load_annotated_frames(tmp_path, table)


def test_a_video_is_decoded_once_and_pictures_can_go_into_a_given_array(tmp_path, monkeypatch):
    lines(tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au1.txt", *[f"{n},0" for n in range(1, 6)])
    video(tmp_path / "Video_LeftCamera" / "LeftVideoSN001_comp.avi", 5)
    opened = []
    monkeypatch.setattr(annotated, "video_frames", lambda path, wanted: opened.append(path) or original(path, wanted))
    from audfer.datasets.manifest import video_frames as original

    table = datasets.read_annotated("DISFA", tmp_path).iloc[[4, 0, 2, 2]]
    store = np.lib.format.open_memmap(tmp_path / "frames.npy", "w+", np.uint8, (4, 16, 16, 3))
    assert datasets.load_annotated_frames(tmp_path, table, 16, out=store) is store and len(opened) == 1
    assert store.mean(axis=(1, 2, 3)) == pytest.approx([160, 0, 80, 80], abs=4)


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "text, found",
    [
        ("99,1,1,1,1,1,1,1,1,1,1,1,1", "line 3: found '99,1,1"),
        ("99,1,1,1,1,1,1,1,1,1,1,1,1,2", "line 3, AU24: found 2, expected 0, 1 or 9"),
        ("99,1,1,1,1,x,1,1,1,1,1,1,1,1", "line 3: found .*14 whole numbers"),
        ("99,1,1,1,1,1,1,1,1,1,1,1,,1", "line 3: found .*14 whole numbers"),
        ("99,-1,1,1,1,1,1,1,1,1,1,1,1,1", "line 3.*found"),
        ("98,1,1,1,1,1,1,1,1,1,1,1,1,1", "line 3, frame: found 98"),
    ],
)
def test_wrong_lines_of_bp4d_are_named(text, found, tmp_path):
    root = make_bp4d(tmp_path, ("F001_T1",))
    path = root / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    path.write_text("".join([*path.open().readlines()[:2], text + "\n"]))
    with pytest.raises(InputError, match=f"F001_T1.csv: {found}"):
        datasets.read_annotated("BP4D", root)


def test_a_header_without_one_of_the_units_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="F001_T1.csv: header: found 0 columns 24, expected one column for each of 1, 2, 4"
    ):
        datasets.read_annotated("BP4D", make_bp4d(tmp_path, ("F001_T1",), header=BP4D_HEADER[:-1]))


@pytest.mark.parametrize(
    "content, found", [(b"", "an empty file"), (b"0,1,2\n", "frames: found none"), (b"\xff\xfe\x00", "not text")]
)
def test_empty_and_binary_label_files_are_refused(content, found, tmp_path):
    root = make_bp4d(tmp_path, ("F001_T1",))
    (root / "AUCoding" / "AU_OCC" / "F001_T1.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"F001_T1.csv: .*({found})"):
        datasets.read_annotated("BP4D", root)


def test_two_images_of_one_frame_are_refused(tmp_path):
    root = make_bp4d(tmp_path)
    (root / "F001" / "T1" / "100.jpg").write_bytes(jpeg(0))
    with pytest.raises(InputError, match="T1: image 100: found 0100.jpg and 100.jpg, expected one image a frame"):
        datasets.read_annotated("BP4D", root)


@pytest.mark.parametrize(
    "content, found",
    [
        (b"1,0\n1,0\n", "line 2, frame: found 1"),
        (b"0,0\n1,0\n", "line 1, frame: found 0"),
        (b"1,0\r\n2,7\r\n", "line 2, code: found 7"),
        (b"1,0\n\n2,9\n", "line 3, code: found 9"),
        (b"", "an empty file"),
    ],
)
def test_wrong_lines_of_disfa_are_named(content, found, tmp_path):
    root = make_disfa_images(tmp_path, "SN001")
    (root / "ActionUnit_Labels" / "SN001" / "SN001_au25.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"SN001_au25.txt: .*{found}"):
        datasets.read_annotated("DISFA", root)


def test_disfa_lines_mean_the_same_however_they_end(tmp_path):
    path = tmp_path / "au.txt"
    for content in (b"1,0\n2,5\n", b"1,0\r\n2,5\r\n", b"1,0\n2,5", b"1, 0\n\n2,5\n", b"\xef\xbb\xbf1,0\n2,5\n"):
        path.write_bytes(content)
        frames, codes = disfa._codes(path)
        assert frames.tolist() == [1, 2] and codes.tolist() == [0, 5]


def test_an_unreadable_image_is_named(tmp_path):
    root = make_bp4d(tmp_path)
    (root / "F001" / "T1" / "0100.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="0100.jpg: image: found unreadable"):
        datasets.load_annotated_frames(root, datasets.read_annotated("BP4D", root))


def test_unknown_datasets_and_mixed_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="found 'CK', expected one of DISFA, BP4D"):
        datasets.read_annotated("CK", tmp_path)
    table = datasets.read_annotated("BP4D", make_bp4d(tmp_path))
    with pytest.raises(InputError, match="column dataset: found none"):
        datasets.load_annotated_frames(tmp_path, table.drop(columns="dataset"))
    with pytest.raises(InputError, match="an empty table"):
        datasets.load_annotated_frames(tmp_path, table.iloc[:0])


# ---------------------------------------------------------------------------------------------------------- landmarks


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("annotated")
    synth.write_benchmark(
        root, synth.SynthConfig(image_size=64, disfa_subjects=4, disfa_frames=20), ("DISFA",), progress=False
    )
    return root


def test_embedded_landmarks_are_the_drawn_ones_in_any_order(embedded):
    table = datasets.read_annotated("DISFA", embedded)
    assert table.drop_duplicates("subject")["fold"].tolist() == [1, 2, 3, 1] and "audfer's rule" in table.attrs["folds"]
    drawn = synth.read_truth_landmarks(embedded, "DISFA") / 64
    order = np.random.default_rng(0).permutation(len(table))
    found = synth.drawn_landmarks(embedded, table.iloc[order])
    assert found.dtype == np.float32 and np.allclose(found, drawn[order])
    strangers = table.iloc[:2].assign(frame=[0, 99])
    assert np.isnan(synth.drawn_landmarks(embedded / "DISFA", strangers)).all(axis=(1, 2)).tolist() == [False, True]


def openface_csv(path: Path, points: np.ndarray, first: int = 1, lost: tuple[int, ...] = ()) -> None:
    """OpenFace's columns that matter here; ``points`` (n, 68, 2) pixels; frames ``lost`` have success 0."""
    names = [f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
    header = ["frame", "timestamp", "confidence", "success", *[f"{a}_{i}" for a in "xy" for i in range(68)], *names]
    rows = [
        [first + n, 0.04 * n, 0.0 if n in lost else 0.98, int(n not in lost), *p.T.ravel().round(3), *[0.0] * 16, 1.25]
        for n, p in enumerate(points)
    ]
    lines(path, ",".join(header), *[",".join(map(str, row)) for row in rows])


def test_real_landmarks_come_from_openface_beside_the_dataset(tmp_path):
    make_bp4d(tmp_path / "BP4D")
    table = datasets.read_annotated("BP4D", tmp_path)
    assert np.isnan(datasets.annotated_landmarks(tmp_path, table)).all()
    points = np.random.default_rng(0).uniform(0, 12, (6, 68, 2))
    # OpenFace was given the folder: its first frame is image 97, which nobody annotated
    openface_csv(tmp_path / "openface" / "BP4D" / "F001_T1.csv", points, lost=(3,))
    found = datasets.annotated_landmarks(tmp_path, table)
    assert np.isnan(found[5:]).all() and np.isnan(found[2]).all()
    assert np.allclose(found[[0, 1, 3, 4]], points[[1, 2, 4, 5]] / 12, atol=1e-3)
    # twice on another table: another folder, the file named by sequence as folders
    openface_csv(tmp_path / "mine" / "F001" / "T2.csv", points)
    found = datasets.annotated_landmarks(tmp_path, table, openface=tmp_path / "mine")
    assert np.allclose(found[5:10], points[1:] / 12, atol=1e-3) and np.isnan(found[:5]).all()
    with pytest.raises(InputError, match="folder of OpenFace CSVs: found no such folder"):
        datasets.annotated_landmarks(tmp_path, table, openface=tmp_path / "nowhere")


def test_faces_are_cut_out_and_their_landmarks_with_them(embedded, tmp_path):
    table = datasets.read_annotated("DISFA", embedded)
    truth = synth.read_truth_landmarks(embedded, "DISFA")
    for position, subject in enumerate(table["subject"].unique()):  # named by sequence, or by the video
        name = f"LeftVideo{subject}_comp" if position else subject
        openface_csv(tmp_path / f"{name}.csv", truth[(table["subject"] == subject).to_numpy()])
    chosen = table.iloc[::7]
    faces = datasets.load_annotated_frames(embedded, chosen, 32, align=True, openface=tmp_path)
    points = datasets.annotated_landmarks(embedded, chosen, align=True, openface=tmp_path)
    assert faces.shape == (12, 32, 32, 3) and faces.std() > 10
    eyes = np.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], axis=1)
    assert np.abs(eyes - [[0.35, 0.38], [0.65, 0.38]]).max() < 0.06
    plain = datasets.annotated_landmarks(embedded, chosen, openface=tmp_path)
    assert np.allclose(plain, truth[::7] / 64, atol=1e-3) and not np.allclose(plain, points, atol=0.02)
    with pytest.raises(InputError, match="size: found none with align"):
        datasets.load_annotated_frames(embedded, chosen, align=True, openface=tmp_path)
    with pytest.raises(InputError, match="no folder of OpenFace's CSVs"):
        datasets.load_annotated_frames(embedded, chosen, 32, align=True)


# -------------------------------------------------------------------------------------------------------------- check


def test_data_check_puts_counts_folds_and_rates_beside_what_is_published(tmp_path, capsys):
    root = make_bp4d(tmp_path / "BP4D")
    (root / "F001" / "T2" / "0100.jpg").unlink()
    (root / "M002" / "T1" / "0100.jpg").write_bytes(jpeg(5)[:-40])
    assert cli.main(["data", "check", "bp4d", "--root", str(tmp_path), "--workers", "1"]) == 1
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["frames"] == ["frames", "146847", "19", "*"] and rows["subjects"] == ["subjects", "41", "3", "*"]
    assert rows["all"][1:3] == ["3", "19"] and rows["1"][1:3] == ["1", "5"] and rows["3"][1:3] == ["1", "9"]
    # AU01 is present in odd frames: 2 of 5 where none is missing, 2 of 4 in F001/T2; AU24 is coded nowhere
    assert rows["all"][3] == "42.1" and rows["1"][3] == "40.0" and rows["all"][-1] == "-"
    assert "1 annotated frames not on disk, for example F001/T2" in text and "1 files cannot be read" in text
    assert "1 gaps in the frame numbers" in text and "AU24" in text
    assert max(map(len, text.splitlines())) <= 79 or any(len(word) > 60 for word in text.split())
    found = datasets.check_dataset("BP4D", root, folds=(2,), progress=False, deep=True)
    assert not found.as_published and json.loads(json.dumps(found.to_json()))["judged"][-1] == "AU24"
    assert set(found.rates["fold"]) == {0, 2} and found.rates["rate"].isna().sum() == 2


def test_data_check_knows_the_embedded_set_and_the_published_size(embedded, tmp_path, monkeypatch):
    found = datasets.check_dataset("DISFA", embedded, progress=False)
    assert [f.kind for f in found.deviations] == ["rendered"] and len(found.rates) == 4 * 18
    truth = synth.read_truth(embedded, "DISFA")
    here = found.rates.query("fold == 0").set_index("action_unit")["rate"]
    assert here["AU12"] == pytest.approx(truth["AU12_c"].mean())
    with pytest.raises(InputError, match="fold: found 4, expected 1 to 3"):
        datasets.check_dataset("DISFA", embedded, (4,), progress=False)
    # all 27 people with all their frames are what the papers used
    table = datasets.read_annotated("DISFA", make_disfa_images(tmp_path, "SN001"))
    subjects = [subject for fold in DATASETS["DISFA"].annotation.subjects for subject in fold]
    whole = (
        table.iloc[np.zeros(130_815, int)]
        .assign(
            subject=np.repeat(subjects, 4845), sequence=np.repeat(subjects, 4845), frame=np.tile(np.arange(4845), 27)
        )
        .reset_index(drop=True)
    )
    whole.attrs = {**table.attrs, "folds": "the subjects tested in each fold are those of somebody"}
    real = DATASETS["DISFA"]
    reads_whole = replace(real, annotation=replace(real.annotation, read=lambda base, missing: whole))
    monkeypatch.setitem(DATASETS._entries, "DISFA", reads_whole)
    found = datasets.check_dataset("DISFA", tmp_path, progress=False)
    assert found.as_published and "this is what the papers used" in str(found)


def test_commands_for_clips_refuse_annotated_frames(tmp_path, capsys):
    assert cli.main(["data", "pack", "BP4D", "--root", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "audfer data check" in capsys.readouterr().err
