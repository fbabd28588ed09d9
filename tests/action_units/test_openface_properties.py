"""Whatever the bytes: a table or a named refusal, never a traceback, never a silently wrong column."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audfer.openface as openface
from audfer.errors import InputError
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, read_openface

FAST = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
AUS = [*INTENSITY_COLUMNS, *PRESENCE_COLUMNS]
HEAD = ["frame", "face_id", "timestamp", "confidence", "success"]
#: columns of a full file that hold no AUs and look a little like some
OTHERS = ["gaze_0_x", "pose_Tx", "pose_Rx", "p_rx", "p_0", "X_0", "AU01", "AU61_r", "AU99_c", "", "Unnamed: 0", "index"]

number = st.one_of(
    st.integers(-2, 7).map(str),
    st.floats(-1, 6).map(lambda x: f"{x:.2f}"),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
)
junk = st.one_of(
    st.sampled_from(
        [
            "nan",
            "-nan(ind)",
            "",
            " ",
            "inf",
            "1_0",
            "0x1",
            "1e999",
            "True",
            "1,5",
            "1 2",
            '"1"',
            "１",
            "1.2.3",
            "--1",
            "NaN ",
            "nan(abc)",
            "infinity",
            "+1",
            ".5",
            "5.",
            "\x1f1",
            "-",
        ]
    ),
    st.text(max_size=4),
)


def read_both(path):
    """The outcome of reading, the same with the fast reader and without.

    Anything but a track or a refusal propagates.
    """
    outcomes = []
    for parse in (openface._parse_plain, lambda raw, wanted: None):
        kept, openface._parse_plain = openface._parse_plain, parse
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcomes.append(read_openface(path, face="longest"))
        except InputError as error:
            outcomes.append(error)
        finally:
            openface._parse_plain = kept
    fast, tolerant = outcomes
    if isinstance(fast, InputError) or isinstance(tolerant, InputError):
        assert str(fast) == str(tolerant)
        assert str(path) in str(fast) and "found" in str(fast) and "expected" in str(fast)
        return fast
    for name in ("intensity", "presence", "ok", "frame", "timestamp", "landmarks"):
        a, b = getattr(fast, name), getattr(tolerant, name)
        assert (a is None and b is None) or np.array_equal(a, b, equal_nan=name != "ok")
    assert fast.report == tolerant.report
    return fast


def check(path, raw):
    """What holds of the outcome, whatever the bytes: a refusal, or a track that keeps its promises."""
    path.write_bytes(raw)
    track = read_both(path)
    if isinstance(track, InputError):
        return
    n = len(track)
    assert n and track.intensity.shape == (n, 17) and track.presence.shape == (n, 18) and track.ok.shape == (n,)
    known, present = track.intensity[~np.isnan(track.intensity)], track.presence[~np.isnan(track.presence)]
    assert ((known >= 0) & (known <= 5)).all() and np.isin(present, (0, 1)).all()
    assert np.isnan(track.intensity[~track.ok]).all() and np.isnan(track.presence[~track.ok]).all()
    assert (np.diff(track.frame) == 1).all() and track.report["ok"] == track.ok.sum() and track.report["frames"] == n


@FAST
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_any_bytes_end_in_a_table_or_in_a_refusal(tmp_path, raw):
    check(tmp_path / "any.csv", raw)


@FAST
@given(st.data())
def test_any_cells_under_any_header_end_in_a_table_or_in_a_refusal(tmp_path, data):
    """Files that are almost right: the AU columns are there most of the time, cells are almost numbers."""
    names = data.draw(st.permutations(data.draw(st.lists(st.sampled_from(HEAD + OTHERS), max_size=8)) + AUS))
    names = names[: len(names) - data.draw(st.sampled_from([0, 0, 0, 0, 1, 2]))]
    separator = data.draw(st.sampled_from([",", ", ", ";", "\t", " ,"]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\x0b"]))
    wrong = data.draw(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, len(names))), junk, max_size=3))
    lines = [separator.join(names)]
    for row in range(data.draw(st.integers(0, 5))):
        cells = [
            wrong.get(
                (row, i),
                str(row)
                if name in ("frame", "index")
                else "1"
                if name in ("confidence", "success")
                else "0"
                if name == "face_id"
                else data.draw(number)
                if (row, i) == (0, 3)
                else "0.5"
                if name.endswith("_r")
                else "1",
            )
            for i, name in enumerate(names)
        ]
        if (row, len(names)) in wrong:
            cells.append(wrong[row, len(names)])
        lines.append(separator.join(cells))
    raw = end.join(lines).encode("utf-8", "surrogatepass")
    check(tmp_path / "almost.csv", raw[: len(raw) - data.draw(st.sampled_from([0, 0, 0, 1, 7]))])


@FAST
@given(st.data())
def test_a_table_written_in_any_dialect_reads_back_equal(tmp_path, data):
    frames = data.draw(st.integers(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # above 1 somewhere: a file whose intensities never exceed 1 may be taken for a rescaled one
    intensity = np.round(5 * rng.random((frames, 17)), 2)
    intensity[0, 0] = 2.34
    presence = (rng.random((frames, 18)) < 0.4).astype(float)
    first = data.draw(st.integers(0, 3))
    values = {
        "frame": np.arange(first, first + frames),
        "face_id": np.zeros(frames, int),
        "timestamp": np.arange(frames) / 25,
        "confidence": np.full(frames, 0.98),
        "success": np.ones(frames, int),
        **dict(zip(INTENSITY_COLUMNS, intensity.T, strict=True)),
        **dict(zip(PRESENCE_COLUMNS, presence.T, strict=True)),
    }
    left_out = data.draw(st.sets(st.sampled_from(HEAD)))
    extra = data.draw(st.lists(st.sampled_from(OTHERS), max_size=4, unique=True))
    names = data.draw(st.permutations([n for n in values if n not in left_out] + extra))
    if not names[-1]:  # a header that ends in a separator has no last column
        names = names[::-1]
    separator = data.draw(st.sampled_from([",", ";", "\t"]))
    space = st.sampled_from(["", " ", "  "])
    heading, cell = separator + data.draw(space), data.draw(space) + separator + data.draw(space)
    decimals = data.draw(st.integers(2, 6))
    comma = separator != "," and data.draw(st.booleans())
    whole = data.draw(st.sampled_from(["0", "0.0", "0.00"]))  # of presences

    def write(name, value):
        if name in ("frame", "face_id", "success"):
            return str(value)
        text = whole.replace("0", str(int(value)), 1) if name.endswith("_c") else f"{value:.{decimals}f}"
        return text.replace(".", ",") if comma else text

    lines = [heading.join(names)] + [
        cell.join(write(n, values[n][i]) if n in values else "7" for n in names) for i in range(frames)
    ]
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    path = tmp_path / f"table{data.draw(st.sampled_from(['.csv', '.txt']))}"
    path.write_bytes((mark + end.join(lines) + data.draw(st.sampled_from(["", end, end + end]))).encode())

    track = read_both(path)
    if isinstance(track, InputError):
        pytest.fail(str(track))
    np.testing.assert_array_equal(track.intensity, intensity.astype(np.float32))
    np.testing.assert_array_equal(track.presence, presence)
    numbered = "frame" in left_out or frames > 1 and len(set(values["frame"])) == 1
    assert track.ok.all() and track.frame[0] == (1 if numbered else first) and len(track) == frames
