"""Every reader of arrays, zip files, weights and csv tables, given bytes that are not what was written: a sentence."""

import json
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_layouts
import torch
from paths import ROOT
from safetensors.torch import save_file

from audfer import datasets
from audfer.action_units.backends import read_pyfeat
from audfer.action_units.estimator import ActionUnitEstimator
from audfer.action_units.table import table_from_openface_folder
from audfer.datasets.annotated_frames import open_annotated
from audfer.errors import AudferError, InputError
from audfer.files import atomic_file, read_csv, read_json, readable, write_json
from audfer.knowledge import KnowledgeMatrix
from audfer.models import read_checkpoint
from audfer.results.long import COLUMNS, read_results
from audfer.results.provenance import read_sidecars
from audfer.study.steps import cached_step
from audfer.training.parcels import _read, _write
from audfer.training.records import RunRecord

sys.path.append(str(ROOT / "benchmarks"))  # last: one is called statistics
import fuzzing  # noqa: E402

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def _checkpoint(folder: Path):
    torch.save(STATE, folder / "weights.pth")
    return folder / "weights.pth", lambda: read_checkpoint(folder / "weights.pth")


def _safetensors(folder: Path):
    save_file(STATE, folder / "weights.safetensors")
    return folder / "weights.safetensors", lambda: read_checkpoint(folder / "weights.safetensors")


def _estimator(folder: Path):
    ActionUnitEstimator(32, (4, 4, 4, 4)).save(folder)
    return folder / "estimator.safetensors", lambda: ActionUnitEstimator.load(folder)


def _store(file: str):
    def write(folder: Path):
        clips = datasets.read_dataset("folder", small_layouts.folder(folder / "clips", count=1))
        datasets.pack(clips, folder / "out", 2, 8, progress=False, workers=1)
        return folder / "out" / file, lambda: datasets.open_packed(folder / "out")

    return write


def _annotated(folder: Path):
    np.save(folder / "frames.npy", np.zeros((2, 4, 4, 3), np.uint8))
    np.save(folder / "landmarks.npy", np.zeros((2, 68, 2), np.float32))
    pd.DataFrame({"subject": ["a", "b"]}).to_parquet(folder / "table.parquet")
    (folder / "meta.json").write_text("{}")
    return folder / "landmarks.npy", lambda: open_annotated(folder)


def _record(file: str):
    """A record of the first format, which has no digests of its files."""

    def write(folder: Path):
        path = folder / "key"
        path.mkdir()
        known = {"best_epoch": 1, "cell": {}, "flops": {}, "seconds": 1.0, "environment": {}}
        (path / "record.json").write_text(json.dumps(known))
        (path / "history.csv").write_text("epoch,loss\n1,2.0\n2,1.5\n")
        arrays = dict.fromkeys(("expressions", "scores", "best_scores"), np.arange(6.0))
        np.savez_compressed(path / "test.npz", clip_ids=np.array(["a"]), **arrays)
        return path / file, lambda: RunRecord.load(path).history

    return write


def _parcel(folder: Path):
    _write(folder / "records-000.zip", {"grid.json": b"{}", "a1/record.json": b"{}", "a1/history.csv": b"epoch\n1\n"})
    return folder / "records-000.zip", lambda: _read(folder / "records-000.zip")


def _archive(folder: Path):
    (folder / "a.zip").write_bytes(fuzzing.archive_seeds()[1])
    places = iter(range(10**6))

    def read():
        place = folder / str(next(places))
        place.mkdir()
        fuzzing.read_archive((folder / "a.zip").read_bytes(), place)

    return folder / "a.zip", read


def _matrix(folder: Path):
    KnowledgeMatrix(np.full((7, 18), 0.5), {"DFEW": np.ones((7, 17))}, np.ones((7, 17))).save(folder / "matrix.json")
    return folder / "matrix.json", lambda: KnowledgeMatrix.load(folder / "matrix.json")


def _sidecar(folder: Path):
    write_json(folder / "table1.json", {"caption": "Table 1", "made": {"output": "table1"}})
    return folder / "table1.json", lambda: read_sidecars(folder)


READERS = {
    "matrix": _matrix,
    "sidecar": _sidecar,
    "checkpoint": _checkpoint,
    "safetensors": _safetensors,
    "estimator": _estimator,
    "packed frames": _store("frames.npy"),
    "numbers of packed frames": _store("frame_numbers.npy"),
    "annotated landmarks": _annotated,
    "record": _record("test.npz"),
    "parcel": _parcel,
    "archive": _archive,
}


#: fields of two bytes or more in a zip's headers, directory and its three ends: sizes, methods, disks, places
_ZIP = {
    b"PK\x03\x04": (6, 8, 18, 22, 26, 28),
    b"PK\x01\x02": (8, 10, 16, 20, 24, 28, 30, 42),
    b"PK\x06\x06": (4, 12, 16, 20, 24, 32, 40, 48),
    b"PK\x06\x07": (4, 8, 12, 16),
    b"PK\x05\x06": (4, 6, 8, 10, 12, 16, 20),
}


def damaged(raw: bytes):
    """Cuts; zero bytes and changed ones in headers; every field of a zip's directory with other values."""
    yield from (raw[:end] for end in np.linspace(0, len(raw) - 1, 12).astype(int))
    for place in range(0, min(len(raw), 140), 3):
        yield raw[:place] + b"\0" + raw[place + 1 :]
        yield raw[:place] + bytes([raw[place] ^ 0x55]) + raw[place + 1 :]
    for mark, fields in _ZIP.items():
        start = raw.find(mark)
        while start >= 0:
            for field in fields:
                for value in (0, 1, 8, 12, 14, 99, 0xFFFF):
                    yield raw[: start + field] + struct.pack("<H", value) + raw[start + field + 2 :]
            start = raw.find(mark, start + 1)
    if raw.startswith(b"{"):
        yield from (
            b"[]",
            b"[" * 100_000,
            b"null",
            b"\xff",
            raw.replace(b"0.5", b"[0.5]", 1),
            raw.replace(b"1.0", b'"a"', 1),
        )


@pytest.mark.parametrize("write", READERS.values(), ids=list(READERS))
def test_damage_is_a_sentence_or_does_not_matter(write, tmp_path):
    path, read = write(tmp_path)
    read()
    raw, refused = path.read_bytes(), 0
    for number, bad in enumerate(damaged(raw)):
        path.write_bytes(bad)
        try:
            read()
        except AudferError as error:
            refused += 1
            assert str(error).strip(), number
    assert refused > 5


# ------------------------------------------------------------------------------------------------------------- tables


def _labels(folder: Path):
    for clip in ("a", "b"):
        (folder / f"{clip}.csv").write_bytes(fuzzing.csv_seeds()[0])
    path = folder / "labels.csv"
    path.write_text("file,expression,subject\na.csv,happy,x\nb.csv,sad,y\n")
    return path, lambda: table_from_openface_folder(folder)[1]


def _pyfeat(folder: Path):
    units = [f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)]
    table = pd.DataFrame(0.5, index=range(3), columns=["FaceScore", *units])
    table.insert(0, "frame", range(3))
    table.to_csv(folder / "fex.csv", index=False)
    return folder / "fex.csv", lambda: read_pyfeat(folder / "fex.csv").presence


def _results(folder: Path):
    row = dict.fromkeys(COLUMNS, "x") | dict.fromkeys(("seed", "fold", "n"), 1)
    pd.DataFrame([row | dict.fromkeys(("value", "low", "high"), 0.5)] * 2).to_csv(folder / "results.csv", index=False)
    return folder / "results.csv", lambda: read_results(folder / "results.csv")


TABLES = {"labels": _labels, "py-feat": _pyfeat, "long table": _results, "history": _record("history.csv")}


@pytest.mark.parametrize("more", [",z", ",z,w", ",1", ",,"])
@pytest.mark.parametrize("rows", ["first", "all", "last"])
@pytest.mark.parametrize("write", TABLES.values(), ids=list(TABLES))
def test_rows_longer_than_the_header_are_a_sentence_and_no_index(write, rows, more, tmp_path):
    path, read = write(tmp_path)
    read()
    header, *lines = path.read_text().splitlines()
    longer = {"first": [0], "all": range(len(lines)), "last": [len(lines) - 1]}[rows]
    lines = [line + more * (number in longer) for number, line in enumerate(lines)]
    path.write_text("\n".join([header, *lines, ""]))
    with pytest.raises(InputError, match=f"{path.name}: .*more cells in a row than in the header"):
        read()


@pytest.mark.parametrize("write", TABLES.values(), ids=list(TABLES))
def test_an_empty_cell_at_the_end_of_every_row_as_spreadsheets_leave_it_changes_nothing(write, tmp_path):
    path, read = write(tmp_path)
    before = read()
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{line}," for line in lines), ""]))
    pd.testing.assert_frame_equal(pd.DataFrame(read()), pd.DataFrame(before))


@pytest.mark.parametrize(
    "content, options",
    [
        (b"", {}),
        (b"a,b\n\xff\xfe,1\n", {}),
        (b'a,b\n"1,2\n', {}),
        (b"a\nx\n", {"dtype": {"a": "Int64"}}),
        (b"a\n1.5\n", {"dtype": {"a": "Int64"}}),  # pandas: a TypeError
    ],
)
def test_what_is_no_table_is_a_sentence(content, options, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match="a.csv: file: found .*, expected a comma-separated table"):
        read_csv(tmp_path / "a.csv", **options)


def test_pandas_reads_csvs_in_one_place_but_for_those_of_the_package_itself():
    """Elsewhere rows longer than the header would become an index again."""
    files = {path.relative_to(ROOT / "audfer").as_posix(): path for path in (ROOT / "audfer").rglob("*.py")}
    users = {name for name, path in files.items() if "pd.read_csv(" in path.read_text()}
    assert users == {"files.py", "published/__init__.py", "lock_and_check/regions.py"}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["matrix", "checkpoint", "safetensors", *TABLES])
def test_nobody_waits_for_a_pipe(name, kind, tmp_path):
    path, read = (READERS | TABLES)[name](tmp_path)
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(30)
    try:
        with pytest.raises(InputError, match=path.name if name != "history" else "run record"):
            read()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------------------------------ what is kept and made again


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink])
def test_a_step_of_which_a_file_was_cut_or_lost_is_made_again(harm, tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "a.npy").write_bytes(b"12345")

    def step() -> Path:
        return cached_step(tmp_path / "w" / "p" / "step", str(tmp_path), make)

    assert step() == step() and len(made) == 1
    harm(step() / "deep" / "a.npy")
    assert (step() / "deep" / "a.npy").read_bytes() == b"12345" and len(made) == 2
    assert step() and len(made) == 2


def test_arrays_beside_a_store_are_whole_or_made_again(tmp_path):
    with atomic_file(tmp_path / "a.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.arange(100))
    np.savez_compressed(tmp_path / "b.npz", x=np.arange(1000))
    assert readable(tmp_path / "a.npy") and readable(tmp_path / "b.npz") and not readable(tmp_path / "c.npy")
    for name in ("a.npy", "b.npz"):
        raw = (tmp_path / name).read_bytes()
        for end in (0, 1, 60, len(raw) - 2):
            (tmp_path / name).write_bytes(raw[:end])
            assert not readable(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"a": 1', b"3"])
def test_what_is_noted_beside_files_counts_only_where_it_is_whole(content, tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1} and read_json(tmp_path / "none.json") == {}
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") == {}
