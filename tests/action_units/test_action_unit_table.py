"""The AU table: round trips, section 3.1's interpolation, Eq. 4 over clips, import of an OpenFace folder."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from paths import SHARED

from audfer.action_units import AUTable, clip_presence, table_from_openface_folder
from audfer.companion import cli
from audfer.errors import AudferError, InputError
from audfer.knowledge import interpolate_zeros
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, AUTrack

NAN = float("nan")
RAVDESS = SHARED / "data" / "ravdess_openface"


def track(frames: int, seed: int = 0) -> AUTrack:
    rng = np.random.default_rng(seed)
    return AUTrack(
        (5 * rng.random((frames, 17))).astype(np.float32),
        (rng.random((frames, 18)) < 0.5).astype(np.float32),
        np.ones(frames, bool),
        np.arange(1, frames + 1),
        np.full(frames, NAN),
    )


# ---- interpolation


def column(values, **options):
    return interpolate_zeros(np.array(values, float)[:, None], **options).ravel()


def test_zeros_between_values_are_filled_linearly():
    assert column([2, 0, 0, 5]).tolist() == [2, 3, 4, 5]


def test_zeros_at_the_ends_take_the_nearest_value():
    assert column([0, 0, 1, 0]).tolist() == [1, 1, 1, 1]


def test_an_all_zero_series_stays_zero():
    assert column([0, 0, 0]).tolist() == [0, 0, 0]


def test_unknown_values_are_filled_like_zeros_and_an_unseen_series_stays_unknown():
    assert column([1, NAN, 0, 4]).tolist() == [1, 2, 3, 4]
    assert column([0, NAN, 0]).tolist() == [0, 0, 0]
    assert np.isnan(column([NAN, NAN])).all()


def test_the_other_reading_keeps_measured_zeros():
    assert column([2, 0, NAN, 4], zeros=False).tolist() == [2, 0, 2, 4]


def test_clips_do_not_leak_into_each_other():
    clip = ["a", "a", "a", "b", "b", "c"]
    assert column([1, 0, 0, 0, 3, 0], clip=clip).tolist() == [1, 1, 1, 3, 3, 0]
    assert np.allclose(column([NAN, 2, 0, NAN, NAN, 0], clip=clip), [2, 2, 2, NAN, NAN, 0], equal_nan=True)


def test_it_equals_numpys_interpolation_series_by_series():
    rng = np.random.default_rng(1)
    values = np.where(rng.random((60, 17)) < 0.5, 0, 5 * rng.random((60, 17)))
    clip = np.repeat([0, 1, 2], [10, 30, 20])
    expected = values.copy()
    for start, stop in ((0, 10), (10, 40), (40, 60)):
        for j in range(17):
            series = values[start:stop, j]
            if (series > 0).any():
                known = np.flatnonzero(series)
                expected[start:stop, j] = np.interp(np.arange(len(series)), known, series[known])
    assert np.allclose(interpolate_zeros(values, clip), expected)
    assert interpolate_zeros(values.astype(np.float32)).dtype == np.float32


def test_the_input_is_not_changed():
    values = np.array([[0.0], [1.0]])
    interpolate_zeros(values)
    assert values[0, 0] == 0


# ---- table


def test_tracks_come_back_out_of_table_and_parquet(tmp_path):
    tracks = {"b": track(3), "a": track(5, 1)}
    tracks["b"].intensity[1] = NAN
    tracks["b"].ok[1] = False
    AUTable.from_tracks(tracks).save(tmp_path / "au.parquet")
    table = AUTable.load(tmp_path / "au.parquet")
    assert table.clip_ids() == ["b", "a"] and len(table.frames) == 8
    assert table.frames["AU01_r"].dtype == np.float32 and table.frames["ok"].dtype == bool
    for name, original in tracks.items():
        clip = table.clip(name)
        for part in ("intensity", "presence", "ok", "frame"):
            assert np.array_equal(getattr(clip, part), getattr(original, part), equal_nan=part != "ok")


def test_an_empty_table_survives_saving(tmp_path):
    AUTable.from_tracks({}).save(tmp_path / "au.parquet")
    assert len(AUTable.load(tmp_path / "au.parquet").frames) == 0


def test_scattered_or_unordered_clips_and_missing_columns_are_refused():
    frames = AUTable.from_tracks({"a": track(2), "b": track(2)}).frames
    with pytest.raises(InputError, match="clip a in several places"):
        AUTable(frames.iloc[[0, 2, 1]])
    with pytest.raises(InputError, match="frames of clip a: found 1 after 2"):
        AUTable(frames.iloc[[1, 0, 2]])
    with pytest.raises(InputError, match="AU28_c"):
        AUTable(frames.drop(columns="AU28_c"))


def test_files_that_are_no_table_are_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    for name in ("a.parquet", "missing.parquet"):
        with pytest.raises(InputError, match=name):
            AUTable.load(tmp_path / name)


def test_an_unknown_clip_is_named():
    with pytest.raises(InputError, match="'z'"):
        AUTable.from_tracks({"a": track(2)}).clip("z")


def test_clip_presence_follows_the_wanted_order_and_leaves_absent_clips_unknown():
    a, b = track(4), track(4)
    a.presence[:] = [[1.0] * 18, [1.0] * 18, [0.0] * 18, [0.0] * 18]
    b.presence[:] = 0
    b.presence[0] = 1
    labels = clip_presence(AUTable.from_tracks({"a": a, "b": b}), ["b", "nowhere", "a"])
    assert labels.shape == (3, 18) and labels.dtype == np.float32
    assert (labels[0] == 0).all() and np.isnan(labels[1]).all() and (labels[2] == 1).all()


def test_labelled_frames_carry_dataset_and_expression():
    table = AUTable.from_tracks({"a": track(2), "b": track(1)})
    frames = table.labelled("X", {"a": 3, "b": -1})
    assert frames["expression"].tolist() == [3, 3, -1] and set(frames["dataset"]) == {"X"}
    with pytest.raises(InputError, match="clip b"):
        table.labelled("X", {"a": 3})


# ---- folders


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("one", "two"):
        table = pd.DataFrame(
            np.round(np.hstack([track(3).intensity, track(3).presence]), 2),
            columns=[*INTENSITY_COLUMNS, *PRESENCE_COLUMNS],
        )
        table.to_csv(tmp_path / "clips" / f"{name}.csv", sep=";", index=False)
    (tmp_path / "labels.csv").write_text("file,expression,actor\none.csv,Happiness,01\ntwo.csv,calm,02\n")
    return tmp_path


def test_a_folder_gives_table_and_labels(folder):
    table, labels = table_from_openface_folder(folder)
    assert table.clip_ids() == ["one", "two"]
    assert labels["expression"].tolist() == [0, -1] and labels["actor"].tolist() == ["01", "02"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("file,expression\none.csv,happy\ntwo.csv,bored\n", "row 2, column expression: found 'bored'"),
        ("file,expression\none.csv,happy\nthree.csv,sad\n", "row 2, column file: found 'three.csv'"),
        ("file,expression\none.csv,happy\n", "no row for two.csv"),
        ("file,expression\none.csv,happy\none.csv,sad\ntwo.csv,sad\n", "one.csv twice"),
        ("file,label\none.csv,happy\n", "a column expression"),
        ("", "labels.csv: file"),
    ],
)
def test_wrong_labels_are_named(folder, content, message):
    (folder / "labels.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        table_from_openface_folder(folder)


def test_one_bad_file_does_not_stop_the_rest_and_is_named(folder, capsys):
    (folder / "clips" / "two.csv").write_text("AU01_r;AU02_r\nx;y\n")
    table, labels = table_from_openface_folder(folder)
    assert table.clip_ids() == labels["clip_id"].tolist() == ["one"]
    assert list(labels.attrs["refused"]) == ["two.csv"] and "two.csv" in labels.attrs["refused"]["two.csv"]
    assert "1 labelled files left out, the first" in capsys.readouterr().err
    assert cli.main(["knowledge", "build", str(folder / "k.json"), "--openface", str(folder)]) == 2  # of one expression
    (folder / "clips" / "one.csv").write_text("AU01_r\n1\n")
    with pytest.raises(InputError, match=r"none of 2 can be read \(the first: .*one.csv"):
        table_from_openface_folder(folder)


def test_labels_are_looked_at_before_any_file_is_opened(folder):
    """A FIFO would hang whoever opens it."""
    os.mkfifo(folder / "clips" / "three.csv")
    with pytest.raises(InputError, match="no row for three.csv"):
        table_from_openface_folder(folder)


@pytest.mark.parametrize("imported", ["", "clips"])
def test_an_imported_table_serves_wherever_the_folder_does(folder, imported):
    """``au import`` of the folder, or of the clips in it; the labels lie where they did."""
    source = folder / imported
    assert cli.main(["au", "import", str(source), "--workers", "1", "--out", str(folder / "made.parquet")]) == 0
    first, labels = table_from_openface_folder(folder)
    second, again = table_from_openface_folder(folder / "made.parquet")
    pd.testing.assert_frame_equal(labels, again)
    columns = ["clip_id", "frame", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS, "ok"]
    pd.testing.assert_frame_equal(first.frames[columns], second.frames[columns], check_dtype=False)
    (folder / "labels.csv").write_text("file,expression\none.csv,happy\ntwo.csv,sad\nthree.csv,fear\n")
    _, labels = table_from_openface_folder(folder / "made.parquet")  # the import had refused one
    assert labels["clip_id"].tolist() == ["one", "two"] and list(labels.attrs["refused"]) == ["three.csv"]
    (folder / "labels.csv").write_text("file,expression\none.csv,happy\n")
    with pytest.raises(InputError, match="no row for two.csv"):
        table_from_openface_folder(folder / "made.parquet")


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(AudferError, match="labels.csv"):
        table_from_openface_folder(tmp_path)


@pytest.mark.skipif(not RAVDESS.is_dir(), reason="the shared RAVDESS sample is not here")
def test_the_real_ravdess_sample_is_read_whole():
    table, labels = table_from_openface_folder(RAVDESS)
    assert len(table.frames) == 6241 and len(labels) == 56  # counts of shared/data/README.md
    assert (labels["expression"] == -1).sum() == 7  # calm
    assert labels["expression"].value_counts().drop(-1).tolist() == [7] * 7
    assert (table.frames.groupby("clip_id", sort=False).size().to_numpy() == labels["frames"].astype(int)).all()
