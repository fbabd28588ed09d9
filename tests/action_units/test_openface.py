"""OpenFace's dialects: small made-up files for each rule, and every real file that is at hand."""

from __future__ import annotations

import numpy as np
import pytest
from paths import SHARED

from audfer.errors import InputError
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, extraction_command, read_openface

REAL = SHARED / "data"
HEAD = ["frame", "face_id", "timestamp", "confidence", "success"]
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="the shared data folder is not here")


def rows(count=4, first=1, **changes):
    """``count`` good rows as lists of text: AU01_r is 0.10 * frame, AU02_r 1.50, the other AUs 0, AU04_c 1."""
    result = []
    for i in range(count):
        cells = dict.fromkeys((*INTENSITY_COLUMNS, *PRESENCE_COLUMNS), "0.00")
        cells |= {
            "frame": str(first + i),
            "face_id": "0",
            "timestamp": f"{i / 25:.3f}",
            "confidence": "0.98",
            "success": "1",
            "AU01_r": f"{0.1 * (first + i):.2f}",
            "AU02_r": "1.50",
            "AU04_c": "1.00",
        }
        cells |= {name: values[i] for name, values in changes.items()}
        result.append(cells)
    return result


@pytest.fixture
def write(tmp_path):
    def write(
        content,
        columns=(*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS),
        separator=",",
        end="\n",
        tail="\n",
        name="clip.csv",
    ):
        lines = [separator.join(columns), *(separator.join(row[c] for c in columns) for row in content)]
        path = tmp_path / name
        path.write_bytes((end.join(lines) + tail).encode())
        return path

    return write


# ---- dialects


def test_a_plain_file(write):
    track = read_openface(write(rows()))
    assert track.intensity.shape == (4, 17) and track.presence.shape == (4, 18) and len(track) == 4
    assert track.intensity.dtype == np.float32 and track.presence.dtype == np.float32 and track.ok.dtype == bool
    assert np.allclose(track.intensity[:, 0], [0.1, 0.2, 0.3, 0.4]) and (track.intensity[:, 1] == 1.5).all()
    assert (track.presence[:, 2] == 1).all() and track.presence.sum() == 4
    assert track.frame.tolist() == [1, 2, 3, 4] and np.allclose(track.timestamp, [0, 0.04, 0.08, 0.12])
    assert track.ok.all() and track.landmarks is None and track.report["ok"] == 4


@pytest.mark.parametrize("separator", [", ", ",  ", ";", "; ", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_spaces_and_line_ends_make_no_difference(write, separator, end):
    plain = read_openface(write(rows()))
    other = read_openface(write(rows(), separator=separator, end=end, name="other.txt"))
    assert np.array_equal(plain.intensity, other.intensity) and np.array_equal(plain.presence, other.presence)


def test_header_and_cells_may_be_spaced_differently(write):
    path = write(rows())
    first, rest = path.read_text().split("\n", 1)
    path.write_text(first.replace(",", ", ") + "\n" + rest.replace(",", " ,  "))
    assert np.allclose(read_openface(path).intensity[:, 0], [0.1, 0.2, 0.3, 0.4])


def test_byte_order_mark_quotes_and_trailing_separators(write):
    path = write(rows())
    lines = path.read_text().splitlines()
    lines[0] = ",".join(f'"{name}"' for name in lines[0].split(","))
    path.write_text("\ufeff" + "\n".join([lines[0], *(line + "," for line in lines[1:])]))
    assert np.allclose(read_openface(path).intensity[:, 0], [0.1, 0.2, 0.3, 0.4])


def test_decimal_commas_of_a_spreadsheet(write):
    path = write(rows(), separator=";")
    path.write_text(path.read_text().replace(".", ","))
    assert np.allclose(read_openface(path).intensity[:, 0], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("absent", [["face_id"], ["frame"], ["timestamp"], ["confidence"], ["success"], HEAD])
def test_bookkeeping_columns_may_be_missing(write, absent):
    columns = [name for name in (*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS) if name not in absent]
    track = read_openface(write(rows(), columns))
    assert np.allclose(track.intensity[:, 0], [0.1, 0.2, 0.3, 0.4]) and track.frame.tolist() == [1, 2, 3, 4]
    assert np.isnan(track.timestamp).all() == ("timestamp" in absent)
    assert track.report["frame"] == ("row number" if "frame" in absent else "file")


def test_column_order_and_lookalike_columns_do_not_matter(write):
    content = [row | {"p_rx": "9.9", "AU01": "9", "pose_Rx": "9"} for row in rows()]
    track = read_openface(write(content, ["p_rx", *PRESENCE_COLUMNS[::-1], "AU01", *INTENSITY_COLUMNS, "pose_Rx"]))
    assert np.allclose(track.intensity[:, 0], [0.1, 0.2, 0.3, 0.4])


def test_landmarks_are_pairs_of_x_and_y(write):
    names = [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    content = [
        row | {name: str(100 * (name[0] == "y") + int(name[2:])) for name in names}
        for row in rows(success=["1", "0", "1", "1"])
    ]
    track = read_openface(write(content, (*HEAD, *names, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS)))
    assert track.landmarks.shape == (4, 68, 2) and track.landmarks[0, 5].tolist() == [5, 105]
    assert np.isnan(track.landmarks[1]).all()


def test_quoted_cells_and_a_stray_quote(write):
    path = write(rows())
    path.write_text(path.read_text().replace(",0.98,", ',"0.98",'))
    assert np.allclose(read_openface(path).intensity[:, 0], [0.1, 0.2, 0.3, 0.4])
    path.write_text(path.read_text().replace("3,0,0.080", '3,"0,0.080'))
    assert read_openface(path).report["rows"] == 4


# ---- unknown frames


def test_failed_and_unsure_frames_are_unknown(write):
    track = read_openface(write(rows(success=["1", "0", "1", "1"], confidence=["0.98", "0.98", "0.70", "0.73"])))
    assert track.ok.tolist() == [True, False, False, True]
    assert np.isnan(track.intensity[1:3]).all() and np.isnan(track.presence[1:3]).all()
    assert (track.report["failed"], track.report["low_confidence"]) == (1, 1)


def test_the_confidence_threshold_is_a_recorded_choice(write):
    path = write(rows(confidence=["0.98", "0.50", "0.90", "0.10"]))
    track = read_openface(path, min_confidence=0.95)
    assert track.ok.tolist() == [True, False, False, False] and track.report["threshold"] == 0.95
    # OpenFace zeroes what it did not track, and smooths over that only: unsure frames spoil no neighbour
    assert not np.isnan(track.presence[0]).any()
    assert read_openface(path, min_confidence=0).ok.all()


def test_what_openface_smoothed_over_a_failed_frame_is_unknown_too(write):
    path = write(rows(10, success=["1"] * 5 + ["0"] + ["1"] * 4))
    track = read_openface(path)
    assert track.ok.tolist() == [True] * 5 + [False] + [True] * 4  # ok: the face was seen
    assert np.flatnonzero(np.isnan(track.intensity[:, 0])).tolist() == [4, 5, 6]  # a mean of 3 frames
    assert np.flatnonzero(np.isnan(track.presence[:, 0])).tolist() == [2, 3, 4, 5, 6, 7, 8]  # a vote of 7
    assert track.report["contaminated"] == 6 and track.report["mask_neighbours"] == [1, 3]
    kept = read_openface(path, mask_neighbours=0)
    assert np.flatnonzero(np.isnan(kept.presence[:, 0])).tolist() == [5] and kept.report["contaminated"] == 0
    assert np.isnan(read_openface(path, mask_neighbours=2).intensity[:, 0]).sum() == 5
    with pytest.raises(InputError, match="mask_neighbours"):
        read_openface(path, mask_neighbours=-1)


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN", "-nan(ind)", "", "inf"])
def test_nan_like_cells_are_unknown(write, text):
    track = read_openface(write(rows(AU06_r=["1.00", text, "1.00", "1.00"])))
    assert np.isnan(track.intensity[1, 4]) and track.ok.all() and track.report["unknown_cells"] == 1


def test_gaps_become_unknown_rows(write):
    content = rows(6)
    track = read_openface(write([content[0], content[1], content[5]]), mask_neighbours=0)
    assert track.frame.tolist() == [1, 2, 3, 4, 5, 6] and track.ok.tolist() == [True, True, False, False, False, True]
    assert track.report["gaps"] == 3 and np.isnan(track.intensity[2:5]).all()
    assert track.intensity[5, 0] == pytest.approx(0.6)


def test_rows_are_put_in_the_order_of_their_numbers(write):
    track = read_openface(write(rows(12)[::-1]))
    assert track.frame.tolist() == list(range(1, 13)) and np.allclose(track.intensity[:, 0], 0.1 * np.arange(1, 13))


def test_a_truncated_last_row_is_dropped_and_counted(write):
    path = write(rows())
    path.write_text(path.read_text().rstrip("\n") + "\n5,0,0.160,0.98,1")
    track = read_openface(path)
    assert len(track) == 4 and track.report["truncated_rows"] == 1


def test_a_constant_frame_column_is_replaced_by_row_numbers(write):
    track = read_openface(write(rows(frame=["0"] * 4)))
    assert track.frame.tolist() == [1, 2, 3, 4] and track.report["frame"] == "row number"


def test_the_zero_timestamps_of_image_folders_are_not_times(write):
    track = read_openface(write(rows(timestamp=["0"] * 4)))
    assert np.isnan(track.timestamp).all() and track.report["timestamp"] == "unusable"


# ---- faces


def test_several_faces_need_a_choice(write):
    content = rows() + [row | {"face_id": "1", "AU02_r": "3.00"} for row in rows()]
    path = write(content)
    with pytest.raises(InputError, match=r"frame 1 2 times \(faces \[0, 1\]\).*face="):
        read_openface(path)
    assert (read_openface(path, face=1).intensity[:, 1] == 3).all() and len(read_openface(path, face=0)) == 4
    with pytest.raises(InputError, match=r"one of the file's faces \[0, 1\]"):
        read_openface(path, face=2)


def test_a_still_image_with_several_faces_needs_a_choice(write):
    content = [row | {"face": str(i)} for i, row in enumerate(rows(2))]
    path = write(content, ["face", "confidence", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS])
    with pytest.raises(InputError, match="several faces"):
        read_openface(path)
    assert len(read_openface(path, face=1)) == 1


def people(spans, moved=0.0, size=100.0):
    """Rows of several faces: (id, frames, x of its place, AU02_r), with 68 landmarks in a square around the place."""
    names = [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    content = []
    for face, frames, place, value, *more in spans:
        side = more[0] if more else size
        for frame in frames:
            points = {f"x_{i}": f"{place + moved * frame + (i % 2) * side:.1f}" for i in range(68)}
            points |= {f"y_{i}": f"{100 + (i // 34) * side:.1f}" for i in range(68)}
            content += [
                row | points | {"frame": str(frame), "face_id": str(face), "AU02_r": f"{value:.2f}"} for row in rows(1)
            ]
    return sorted(content, key=lambda row: int(row["frame"])), (*HEAD, *names, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS)


def test_a_face_is_chosen_by_a_named_rule(write):
    # face 0 is seen longest, face 1 is the largest, face 2 the surest
    content, columns = people(
        [(0, range(1, 21), 0, 1.0), (1, range(1, 11), 500, 2.0, 200.0), (2, range(5, 15), 1000, 3.0)]
    )
    for row in content:
        row["confidence"] = "0.99" if row["face_id"] == "2" else "0.90"
    path = write(content, columns)
    for rule, value, frames in (("longest", 1.0, 20), ("largest", 2.0, 10), ("confident", 3.0, 10)):
        track = read_openface(path, face=rule, landmarks=False)
        assert (track.intensity[track.ok, 1] == value).all() and track.ok.sum() == frames and len(track) == 20
        assert track.report["left_out"] == 20 - frames and track.report["gaps"] == 0
        assert track.report["face_rule"] == rule and track.report["faces"] == [0, 1, 2]
    with pytest.raises(InputError, match="longest, largest, confident"):
        read_openface(path, face="nicest")


def test_a_face_whose_number_changes_is_followed_by_its_place(write):
    # the person at 0 is tracker 0, lost for two frames, then tracker 2; the other one is tracker 1, then again 0
    content, columns = people(
        [
            (0, range(1, 10), 0, 1.0),
            (2, range(12, 25), 20, 1.5),
            (1, range(1, 16), 900, 4.0),
            (0, range(30, 36), 880, 4.5),
        ]
    )
    track = read_openface(write(content, columns), face="longest", mask_neighbours=0)
    assert track.report["face"] == [0, 2] and track.report["hand_overs"] == 1
    # all of the file's frames: of 25 to 29 it has no row, in 10, 11 and from 30 on it has the other person
    assert track.frame.tolist() == list(range(1, 36)) and track.report["gaps"] == 5
    assert track.frame[track.ok].tolist() == [*range(1, 10), *range(12, 25)] and track.report["left_out"] == 8
    assert set(track.intensity[track.ok, 1]) == {1.0, 1.5}
    other = read_openface(write(content, columns), face="confident", mask_neighbours=0)  # a tie: the one seen first
    assert other.report["face"] == [0, 2]


def test_without_places_a_face_is_its_number(write):
    content = rows(6) + [row | {"face_id": "1", "AU02_r": "3.00"} for row in rows(4)]
    track = read_openface(write(content), face="longest")
    assert (track.intensity[:, 1] == 1.5).all() and len(track) == 6
    assert track.report["hand_overs"] is None and track.report["left_out"] == 0  # can't be followed
    with pytest.raises(InputError, match="neither landmarks"):
        read_openface(write(content), face="largest")


def test_frames_before_a_face_comes_and_after_it_goes_are_unknown_and_spoil_nothing(write):
    """Without places; a hand-over loses the good frames of the other number, which is said."""
    late = [row | {"face_id": "1", "AU02_r": "3.00"} for row in rows(20)[4:17]]
    path = write([*rows(20)[:6], *late, *rows(20)[18:]])
    track = read_openface(path, face="longest")
    assert track.frame.tolist() == list(range(1, 21)) and np.flatnonzero(track.ok).tolist() == list(range(4, 17))
    assert (track.intensity[4:17, 1] == 3).all() and not np.isnan(track.presence[4:17]).any()
    assert track.report["left_out"] == 6 and track.report["gaps"] == 1 and track.report["hand_overs"] is None


@pytest.mark.parametrize("also, kept", [([], [0, 2]), (["timestamp"], []), (["frame"], [])])
def test_still_pictures_are_no_neighbours_in_time(write, also, kept):
    """OpenFace's image tool: three pictures, the one in the middle uncertain."""
    content = rows(3)
    content[1] |= {"confidence": "0.2", "success": "0"}
    for number, row in enumerate(content):
        row["timestamp"] = f"{number / 25:.3f}"
    track = read_openface(write(content, [*also, "confidence", "success", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]))
    known = np.flatnonzero(~np.isnan(track.intensity).any(1) & ~np.isnan(track.presence).any(1))
    assert known.tolist() == kept and track.ok.tolist() == [True, False, True]
    assert track.report["mask_neighbours"] == ([1, 3] if also else [0, 0])


def test_two_rows_of_one_face_in_a_frame_and_faces_without_frames_are_refused(write):
    with pytest.raises(InputError, match="frame 1 twice for face 0"):
        read_openface(write(rows(3) + rows(3) + [row | {"face_id": "1"} for row in rows(3)]), face="longest")
    content = rows(2) + [row | {"face_id": "1"} for row in rows(2)]
    with pytest.raises(InputError, match="no frame column"):
        read_openface(write(content, [c for c in (*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS) if c != "frame"]))


# ---- the fast reader


def variants(write):
    """Files of the same table in many dialects."""
    plain = write(rows(), name="plain.csv")
    yield plain
    text = plain.read_text()
    for number, changed in enumerate(
        (
            text.replace(",", ", "),
            text.replace(",", " ,  "),
            text.replace(",", ";"),
            text.replace("\n", "\r\n"),
            text.replace("\n", "\r"),
            text.replace(",", "\t"),
            text.replace(",", ";").replace(".", ","),
            "\ufeff" + text,
            text.replace(",0.98,", ',"0.98",'),
            text.rstrip("\n"),
            text + "\n\n",
            "\n" + text,
            text.replace("1.00", "1"),
            text.replace("1.00", "1.0"),
            text.replace("0.00", "+0."),
            text.replace("0.00", "0e0"),
            text.replace("\n", ",\n"),
            "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(text.splitlines())),
            text + "5,0,0.160,0.98",
            text.replace("1.50", "nan"),
            text.replace("1.50", "-nan(ind)"),
            text.replace("1.50", ""),
            text.replace("1.50", " "),
            text.replace("1.50", "inf"),
            text.replace("frame", "Frame", 1),
        )
    ):
        path = plain.with_name(f"variant{number}.csv")
        path.write_bytes(changed.encode())
        yield path


def outcome(path):
    try:
        track = read_openface(path)
    except InputError as error:
        return str(error)
    report = {key: value for key, value in track.report.items() if key != "path"}
    return [
        np.nan_to_num(v, nan=-1).tolist() for v in (track.intensity, track.presence, track.ok, track.timestamp)
    ], report


def test_the_fast_and_the_tolerant_reader_agree_on_every_dialect(write, monkeypatch):
    import audfer.openface as module

    real = [REAL / "opendbm_openface/subj01_timepoint01.csv", *sorted((REAL / "edge_cases").glob("*.csv"))]
    paths = [*variants(write), *(path for path in real if path.is_file())]
    taken = [module._parse_plain(path.read_bytes(), module._WANTED) is not None for path in paths]
    assert taken[0] and 9 < sum(taken) < len(paths) - 5  # both ways are really taken
    fast = [outcome(path) for path in paths]
    monkeypatch.setattr(module, "_parse_plain", lambda raw, wanted: None)
    for path, expected in zip(paths, fast, strict=True):
        assert outcome(path) == expected, path


# ---- refusals


def test_unreadable_empty_and_rowless_files(tmp_path, write):
    (tmp_path / "empty.csv").write_text(" \n")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\x00\xff")
    for path, message in [
        (tmp_path / "absent.csv", "No such file"),
        (tmp_path, "a folder"),
        (tmp_path / "empty.csv", "empty file"),
        (tmp_path / "picture.csv", "not UTF-8"),
        (write([]), "finds no face"),
    ]:
        with pytest.raises(InputError, match=message):
            read_openface(path)


def test_missing_action_units_are_named(write):
    columns = [c for c in (*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS) if c not in ("AU06_r", "AU45_r")]
    with pytest.raises(InputError, match="no column AU06_r, AU45_r"):
        read_openface(write(rows(), columns))
    columns = [c for c in (*HEAD, *INTENSITY_COLUMNS, *PRESENCE_COLUMNS) if c != "AU12_c"]
    with pytest.raises(InputError, match="no column AU12_c"):
        read_openface(write(rows(), columns))
    assert np.isnan(read_openface(write(rows(), columns), require_presence=False).presence[:, 8]).all()


def test_files_without_presence_are_refused_unless_asked_for(write):
    path = write(rows(), [*HEAD, *INTENSITY_COLUMNS])
    with pytest.raises(InputError, match="require_presence=False"):
        read_openface(path)
    track = read_openface(path, require_presence=False)
    assert np.isnan(track.presence).all() and len(track.report["missing_presence"]) == 18


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(AU06_r=["0", "5.20", "0", "0"]), "data row 2, column AU06_r: found 5.2, expected a number from 0 to 5"),
        (dict(AU06_r=["0", "0", "-0.10", "0"]), "data row 3, column AU06_r: found -0.1"),
        (dict(AU06_c=["0", "0", "0", "0.5"]), "data row 4, column AU06_c: found 0.5, expected 0 or 1"),
        (dict(confidence=["98"] * 4), "column confidence: found 98"),
        (dict(AU06_r=["0", "high", "0", "0"]), "data row 2, column AU06_r: found 'high', expected a number"),
        (dict(frame=["1", "2", "2", "3"]), "frame 2 2 times"),
        (dict(frame=["1", "2", "nan", "3"]), "data row 3, column frame"),
        (dict(frame=["1", "2", "3", "900000000"]), "4 rows numbered 1 to 900000000"),
    ],
)
def test_wrong_values_are_named_by_row_and_column(write, change, message):
    with pytest.raises(InputError) as caught:
        read_openface(write(rows(**change)))
    assert message in str(caught.value) and "clip.csv" in str(caught.value)


def test_values_of_failed_frames_are_not_judged(write):
    assert read_openface(write(rows(success=["1", "0", "1", "1"], AU06_r=["0", "99", "0", "0"]))).ok.sum() == 3


def test_a_short_row_in_the_middle_is_an_error(write):
    path = write(rows())
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:30]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="data row 2"):
        read_openface(path)


def test_rescaled_intensities_are_refused_or_undone(write):
    content = rows(AU02_r=["0.176", "0.134", "0.002", "0.318"])  # 0.88, 0.67, 0.01 and 1.59 divided by five
    path = write(content)
    with pytest.raises(InputError, match="scale=5"):
        read_openface(path)
    assert np.allclose(read_openface(path, scale=5).intensity[:, 1], [0.88, 0.67, 0.01, 1.59])
    assert np.allclose(read_openface(path, scale=1).intensity[:, 1], [0.176, 0.134, 0.002, 0.318])


def test_a_calm_face_is_not_mistaken_for_a_rescaled_one(write):
    calm = write(rows(AU02_r=["0.17", "0.13", "0.02", "0.31"]))
    assert read_openface(calm).intensity.max() < 1
    old_version = write(rows(AU02_r=["0.176213", "0.134671", "0.0021", "0.318"]))  # six digits before 2.0
    assert read_openface(old_version).intensity.max() < 1


# ---- the command line


def test_the_extraction_command_names_input_output_and_choices(tmp_path):
    video = tmp_path / "a.mp4"
    video.touch()
    assert extraction_command(video, "out", "a") == [
        "FeatureExtraction",
        "-f",
        str(video),
        "-out_dir",
        "out",
        "-of",
        "a",
        "-aus",
        "-pose",
        "-q",
        "-2Dfp",
    ]
    assert extraction_command(video, "out", "a", static=True, landmarks=False)[-2:] == ["-q", "-au_static"]


def test_frames_that_openface_would_read_in_the_wrong_order_are_refused(tmp_path):
    for number in (2, 10):
        (tmp_path / f"{number}.jpg").touch()
    with pytest.raises(InputError, match="padded with zeros"):
        extraction_command(tmp_path, "out", "a")
    (tmp_path / "2.jpg").rename(tmp_path / "02.jpg")
    assert "-fdir" in extraction_command(tmp_path, "out", "a")
    with pytest.raises(InputError, match="nothing there"):
        extraction_command(tmp_path / "absent", "out", "a")


# ---- real files: counts of shared/data/README.md


@needs_data
@pytest.mark.parametrize(
    "name, frames, failed",
    [
        ("amhuse_openface/10_3_au.txt", 496, 0),
        ("amhuse_openface/19_2_au.txt", 1369, 8),
        ("amhuse_openface/19_3_au.txt", 301, 0),
        ("amhuse_openface/P21_au.txt", 7193, 802),
        ("opendbm_openface/subj01_timepoint01.csv", 158, 0),
        ("opendbm_openface/subj01_timepoint02.csv", 161, 0),
        ("edge_cases/facsvatar_demo_face_id_crlf.csv", 490, 0),
        ("edge_cases/facsvatar_head_test_no_face_id.csv", 715, 0),
        ("edge_cases/pyfeat_openface_test_old_version.csv", 100, 0),
    ],
)
def test_real_files_are_read_whole(name, frames, failed):
    track = read_openface(REAL / name)
    assert len(track) == frames and track.report["failed"] == failed and track.ok.sum() == frames - failed
    assert track.report["low_confidence"] == 0  # the default threshold is the boundary of OpenFace's own flag
    assert np.nanmin(track.intensity) >= 0 and np.nanmax(track.intensity) <= 5
    assert set(np.unique(track.presence[~np.isnan(track.presence)])) <= {0, 1}
    assert not np.isnan(read_openface(REAL / name, mask_neighbours=0).presence[track.ok][:, 0]).any()


@needs_data
def test_a_stricter_threshold_drops_the_frames_the_readme_counts():
    report = read_openface(REAL / "amhuse_openface/19_2_au.txt", min_confidence=0.8).report
    assert report["failed"] + report["low_confidence"] == 18


@needs_data
def test_the_real_landmarks_lie_in_the_picture():
    for name in ("opendbm_openface/subj01_timepoint01.csv", "edge_cases/pyfeat_openface_test_old_version.csv"):
        landmarks = read_openface(REAL / name).landmarks
        assert landmarks.shape[1:] == (68, 2) and landmarks.min() > 0 and landmarks.max() < 2000
        assert (landmarks[:, 8, 1] > landmarks[:, 27, 1]).all()  # the chin below the root of the nose


@needs_data
def test_the_live_capture_with_a_constant_frame_and_a_cut_last_row():
    report = read_openface(REAL / "edge_cases/facsvatar_jt_constant_frame.csv").report
    assert report["frame"] == "row number" and report["truncated_rows"] == 1 and report["timestamp"] == "file"


@needs_data
@pytest.mark.parametrize(
    "name, message",
    [
        ("facsvatar_au_without_suffix.csv", "without suffix"),
        ("pyfeat_detector_output.csv", "py-feat detector output"),
        ("greta_no_frame_no_confidence.csv", "require_presence=False"),
        ("facsvatar_demo_scaled_0_1_no_success.csv", "require_presence=False"),
    ],
)
def test_derived_files_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        read_openface(REAL / "edge_cases" / name)


@needs_data
def test_derived_files_are_accepted_when_the_choice_is_explicit():
    greta = read_openface(REAL / "edge_cases/greta_no_frame_no_confidence.csv", require_presence=False)
    assert len(greta) == 45 and greta.intensity[0, 1] == pytest.approx(2.24)
    scaled = REAL / "edge_cases/facsvatar_demo_scaled_0_1_no_success.csv"
    with pytest.raises(InputError, match="rescaled"):
        read_openface(scaled, require_presence=False)
    original = read_openface(REAL / "edge_cases/facsvatar_demo_face_id_crlf.csv")
    undone = read_openface(scaled, require_presence=False, scale=5)
    assert undone.frame[0] == 0 and np.abs(undone.intensity[0, 0] - 0.88) < 1e-6 and len(undone) == len(original)


@needs_data
def test_every_clip_of_the_ravdess_sample_is_read():
    tracks = [read_openface(path) for path in sorted((REAL / "ravdess_openface/clips").glob("*.csv"))]
    assert len(tracks) == 56 and sum(map(len, tracks)) == 6241 and all(track.ok.all() for track in tracks)
