"""Inputs that no attack has broken, kept that way: spreadsheets' encodings, appended runs, damaged videos, kernels."""

import sys

import nbformat
import numpy as np
import pytest
from small_layouts import lines, video

from audfer import datasets
from audfer.action_units.table import table_from_openface_folder
from audfer.companion.reproduce import reproduce
from audfer.datasets.lists import read_list
from audfer.errors import InputError
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, read_openface

COLUMNS = ["frame", "timestamp", "confidence", "success", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]


def openface(rows=range(1, 5)) -> str:
    """OpenFace's output, AU01_r the frame's number in tenths."""
    values = [[str(n), f"{n / 25}", "0.98", "1", f"{n / 10}", *["1.00"] * 34] for n in rows]
    return "\n".join(map(",".join, [COLUMNS, *values])) + "\n"


# ----------------------------------------------------------------------------------------------------------- encodings


def _table(path):
    return read_openface(path).intensity[:, 0].tolist()


def _labels(path):
    (path.parent / "clip.csv").write_text(openface())
    return table_from_openface_folder(path.parent)[1]["expression"].tolist()


def _list(path):
    return [(entry.name, entry.label) for entry in read_list(path, "train")]


TEXTS = {
    "clip.csv": (openface(), _table),
    "labels.csv": ("file,expression\nclip.csv,happy\n", _labels),
    "train.txt": ("happy/é 1\nsad/b 2\n", _list),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_byte_order_mark_and_line_ends_of_windows_make_no_difference(name, tmp_path):
    text, read = TEXTS[name]
    (tmp_path / name).write_bytes(text.encode())
    plain = read(tmp_path / name)
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert read(tmp_path / name) == plain


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", TEXTS)
def test_other_encodings_are_named_and_never_read_as_something_else(name, encoding, tmp_path):
    text, read = TEXTS[name]
    (tmp_path / name).write_bytes((text if "é" in text else f"{text}é\n").encode(encoding))
    with pytest.raises(InputError) as refused:
        read(tmp_path / name)
    assert name in str(refused.value) and str(refused.value).isprintable()


# ------------------------------------------------------------------------------------------------------ appended runs


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("second", [range(1, 5), range(3, 7)])
def test_two_runs_appended_to_one_file_are_refused(header, second, tmp_path):
    again = openface(second)
    (tmp_path / "clip.csv").write_text(openface() + (again if header else again.split("\n", 1)[1]))
    with pytest.raises(InputError, match="clip.csv"):
        read_openface(tmp_path / "clip.csv")


def test_a_second_run_without_a_header_that_goes_on_counting_is_one_file(tmp_path):
    (tmp_path / "clip.csv").write_text(openface() + openface(range(5, 9)).split("\n", 1)[1])
    np.testing.assert_allclose(read_openface(tmp_path / "clip.csv").intensity[:, 0], np.arange(1, 9) / 10, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ damaged videos


@pytest.mark.parametrize("harm", ["cut", "zeroed", "noise", "tail"])
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_damaged_video_is_one_row_of_the_quarantine_or_gives_its_frames(suffix, harm, tmp_path):
    for name in ("good", "bad"):
        video(tmp_path / "clips" / "happy" / f"{name}.{suffix}", count=12)
    bad = tmp_path / "clips" / "happy" / f"bad.{suffix}"
    raw = bytearray(bad.read_bytes())
    middle = len(raw) // 2
    if harm == "cut":
        del raw[middle:]
    elif harm == "tail":
        raw += b"\0" * 1000
    else:
        raw[middle : middle + 60] = bytes(60) if harm == "zeroed" else np.random.default_rng(0).bytes(60)
    bad.write_bytes(raw)
    clips = datasets.read_dataset("folder", tmp_path / "clips")
    packed = datasets.pack(clips, tmp_path / "out", 4, 16, workers=1, progress=False)
    lost = set() if packed.quarantine is None else set(packed.quarantine["clip_id"])
    assert set(packed.clip_ids) | lost == {"happy/good", "happy/bad"} and "happy/good" in packed.clip_ids
    assert (packed.frame_numbers >= 0).all() and (packed.frame_numbers < 12).all()


# ------------------------------------------------------------------------------------------------------------- kernels


def test_a_notebook_saved_with_somebodys_kernel_runs_with_this_interpreter(tmp_path, monkeypatch):
    for variable in ("AUDFER_PROFILE", "AUDFER_WORK", "AUDFER_FIGURES"):
        monkeypatch.delenv(variable, raising=False)
    kernel = {"name": "ir", "display_name": "somebody's R", "language": "R"}
    content = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    content.cells = [
        nbformat.v4.new_code_cell('profile = "laptop"', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import sys; print(sys.executable)"),
    ]
    lines(tmp_path / "notebooks" / "a.ipynb", nbformat.writes(content))
    places = {"source": tmp_path / "notebooks", "work": tmp_path / "work", "figures": tmp_path / "figures"}
    reproduce("smoke", ("a",), **places, free_gb=0)
    executed = nbformat.read(tmp_path / "work" / "smoke" / "notebooks" / "a.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text.strip() == sys.executable
