"""What damaged, hostile and merely odd files do to the readers: ``python benchmarks/fuzzing.py``, seven minutes.

Small whole files of every kind are changed at random (bits, bytes, words, lines; pieces copied, cut or moved) and read
by audfer: OpenFace's CSVs, tables of labels, split lists, checkpoints, Zenodo's listing, its archives, profiles,
knowledge matrices, packed stores and records that travel. A reader may refuse with one of audfer's sentences. Anything
else that it raises is a traceback, and so is being at it for more than ``SECONDS``. What it accepts is compared with a
second reading of the same bytes, written here with the standard library alone: a value that differs is silently wrong,
a row or file that is missing is lost, one that comes twice is doubled. Each kind has a process of its own, so that a
crash is counted, too (as a traceback).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import functools
import hashlib
import http.server
import io
import json
import math
import os
import platform
import re
import signal
import tempfile
import threading
import time
import tomllib
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from audfer.action_units.table import EXPRESSION_WORDS, table_from_openface_folder
from audfer.datasets import download
from audfer.datasets.lists import read_list
from audfer.errors import AudferError
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS, SUCCESS_BOUNDARY, read_openface

#: a reader that takes longer for one small file has hung, however busy the machine is
SECONDS = 120
WRONGS = ("tracebacks", "silently_wrong", "lost", "doubled")
WORDS = [
    *(b"nan inf -1 1e999 0 5.01 0,5 1_0 0x10 \xc2\xb2 \xff \xef\xbb\xbf \0 \r \r\n \n \x85 \xe2\x80\xa8".split(b" "))
]
WORDS += [
    b"\n",
    b"\t",
    b'"',
    b'""',
    b"'",
    b",",
    b";",
    b" ",
    b"#",
    b"=",
    b"[",
    b"]]",
    b"{",
    b"}",
    b"../",
    b"/",
    b"\\",
    b"=1+1",
]
WORDS += [b"9" * 400, b"-0", b"1e-400", b"true", b"None", b"frame", b"AU01_r", b"happy", b"calm", b"", b"PK\x05\x06"]


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with one change, two or three."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, other = sorted(int(i) for i in rng.integers(0, len(raw) + 1, 2))
        short = min(other, at + int(rng.integers(1, 40)))
        match rng.integers(0, 10):
            case 0 if at < len(raw):
                raw[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(raw):
                raw[at] = int(rng.integers(256))
            case 2:
                del raw[at:short]
            case 3:
                raw[other:other] = raw[at:short]
            case 4:
                del raw[at:]
            case 5:
                raw[at:short] = WORDS[rng.integers(len(WORDS))]
            case 6:
                raw[at:at] = WORDS[rng.integers(len(WORDS))]
            case 7:  # a number's place, because most random places are not one
                numbers = list(re.finditer(rb"[0-9.]+", bytes(raw[:20_000])))
                if numbers:
                    number = numbers[rng.integers(len(numbers))]
                    raw[number.start() : number.end()] = WORDS[rng.integers(len(WORDS))]
            case _:
                lines = bytes(raw).split(b"\n")
                one, two = rng.integers(0, len(lines), 2)
                match rng.integers(0, 4):
                    case 0:
                        lines[one], lines[two] = lines[two], lines[one]
                    case 1:
                        lines.insert(two, lines[one])
                    case 2:
                        del lines[one]
                    case _:
                        lines[one] += WORDS[rng.integers(len(WORDS))]
                raw = bytearray(b"\n".join(lines))
    return bytes(raw)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        seeds: whole files to change.
        read: raw bytes and an empty folder -> what audfer makes of them.
        judge: the same bytes, the folder and the result -> what is wrong with it, each of ``WRONGS`` with an example.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    judge: Callable[[bytes, Path, object], Iterator[tuple[str, str]]]


# ---------------------------------------------------------------------------------------------------- OpenFace's CSVs


def csv_seeds() -> list[bytes]:
    """Dialects: plain, spaced, semicolons with decimal commas, without bookkeeping, two faces, failed frames."""
    rng, files = np.random.default_rng(5), []
    columns = ["frame", "face_id", "timestamp", "confidence", "success", "x_0", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]
    for dialect in range(6):
        lines = [columns if dialect != 3 else columns[6:]]
        for frame in range(1, 9):
            lost = dialect == 5 and frame in (3, 8)
            values = [f"{0 if lost else x:.2f}" for x in rng.uniform(0, 5, 17)] + [f"{int(not lost)}.00"] * 18
            row = [str(frame), "0", f"{frame / 25:.3f}", "0.10" if lost else "0.98", str(int(not lost)), "1.5", *values]
            lines.append(row if dialect != 3 else row[6:])
            if dialect == 4:
                lines.append([row[0], "1", *row[2:]])
        separator = (",", ", ", ";", "\t", ", ", ",")[dialect]
        text = "\n".join(separator.join(line) for line in lines) + "\n"
        files.append(text.replace(".", ",").encode() if dialect == 2 else text.encode())
    return files


def read_csv(raw: bytes, folder: Path):
    """As a video's file, the face that is seen longest, nothing masked beside failed frames."""
    (folder / "clip.csv").write_bytes(raw)
    return read_openface(folder / "clip.csv", face="longest", mask_neighbours=0, require_presence=False)


def judge_csv(raw: bytes, folder: Path, track) -> Iterator[tuple[str, str]]:
    """Every known value stands in the row of its frame, and every good row of the face is there."""
    lines = [line for line in raw.decode("utf-8-sig").splitlines() if line.strip()]
    separator = max(",;\t", key=lines[0].count)
    header = [name.strip().strip("\"'").strip() for name in lines[0].split(separator)]
    rows = [[cell.strip().strip("\"'").strip() for cell in line.split(separator)] for line in lines[1:]]
    rows = [row for row in rows if len(row) >= len([name for name in header if name])]  # the last may be cut

    def number(row: list[str], name: str) -> float:
        with contextlib.suppress(ValueError, IndexError):
            return float(row[header.index(name)].replace(",", "."))
        return math.nan

    faces = track.report["face"]
    of_face = [r for r in rows if "face_id" not in header or not faces or number(r, "face_id") in (*faces, math.nan)]
    own = "frame" in header and track.report["frame"] == "file"
    by_frame: dict[int, list[list[str]]] = {}
    for position, row in enumerate(of_face, 1):
        frame = number(row, "frame") if own else position
        if not math.isnan(frame):
            by_frame.setdefault(int(frame), []).append(row)
    if len(set(track.frame.tolist())) < len(track.frame):
        yield "doubled", "a frame number twice"
    for name, values in (
        *zip(INTENSITY_COLUMNS, track.intensity.T, strict=True),
        *zip(PRESENCE_COLUMNS, track.presence.T, strict=True),
    ):
        for frame, value in zip(track.frame.tolist(), values.tolist(), strict=True):
            given = [number(row, name) for row in by_frame.get(frame, ())]
            if not math.isnan(value) and not any(math.isclose(value, one, rel_tol=1e-6, abs_tol=1e-6) for one in given):
                yield "silently_wrong", f"{name} of frame {frame} is {value}, the file says {given}"
                return
    known = set(track.frame[track.ok].tolist())
    for frame, some in by_frame.items():
        row = some[0]
        seen = "success" not in header or number(row, "success") == 1
        sure = "confidence" not in header or number(row, "confidence") >= SUCCESS_BOUNDARY
        if seen and sure and frame not in known and all(not math.isnan(number(row, n)) for n in INTENSITY_COLUMNS):
            yield "lost", f"frame {frame}"
            return


# ------------------------------------------------------------------------------------------- labels, lists of splits

LABELS = [
    b"file,expression,subject\nclip0.csv,happy,a\nclip1.csv,Sadness,b\nclip2.csv, calm ,c\n",
    b'\xef\xbb\xbf"file","expression"\r\n"clip0.csv","anger"\r\n"clip1.csv","neutral"\r\n"clip2.csv","fear"\r\n',
]


def read_labels(raw: bytes, folder: Path):
    """A folder of three small CSVs and this labels.csv."""
    for number, content in enumerate(csv_seeds()[:3]):
        (folder / f"clip{number}.csv").write_bytes(content)
    (folder / "labels.csv").write_bytes(raw)
    return table_from_openface_folder(folder)[1]


def judge_labels(raw: bytes, folder: Path, labels) -> Iterator[tuple[str, str]]:
    """One row per line, with the words of its columns."""
    rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), skipinitialspace=True))
    rows = [row for row in rows if row and any(cell.strip() for cell in row)]
    header = [name.strip() for name in rows[0]]
    given = []
    for row in rows[1:]:
        cells = dict(zip(header, row, strict=False))
        given.append((Path(cells.get("file", "").strip()).stem, cells.get("expression", "").strip().lower()))
    taken = list(zip(labels["clip_id"], labels["expression"], strict=True))
    yield from _compared([(clip, EXPRESSION_WORDS.get(word)) for clip, word in given], taken)


def _compared(given: list[tuple], taken: list[tuple]) -> Iterator[tuple[str, str]]:
    if len(taken) != len(given):
        yield ("lost" if len(taken) < len(given) else "doubled"), f"{len(taken)} of {len(given)} rows"
    elif wrong := [pair for pair in zip(given, taken, strict=True) if pair[0] != pair[1]]:
        yield "silently_wrong", f"{wrong[0][1]}, the file says {wrong[0][0]}"


LISTS = [
    b"happy/001 1\nsad/002 2\nfear/003 7\n",
    b"path frames label\na/001 16 1\nb/002 20 2\n",
    b"a/1.mp4,3\nb/2.mp4,4\n",
]


def read_split_list(raw: bytes, folder: Path):
    """One list of clips and labels."""
    (folder / "train.txt").write_bytes(raw)
    return read_list(folder / "train.txt", "train")


def judge_list(raw: bytes, folder: Path, entries) -> Iterator[tuple[str, str]]:
    """One entry per line, but for a first one that names the columns, and its label is the line's last word."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", raw.decode("utf-8-sig")) if line.strip()]
    words = [re.split(r"[,;\s]+", line.strip(",; \t"))[-1] for line in lines]
    if len(entries) == len(words) - 1:
        words = words[1:]
    yield from _compared([(word,) for word in words], [(entry.label,) for entry in entries])


# --------------------------------------------------------------------------------------------------------- checkpoints


def checkpoint_seeds() -> list[bytes]:
    """A network's weights as safetensors and torch's two formats, the last with options and optimizer beside them."""
    import torch
    from safetensors.torch import save

    torch.manual_seed(0)
    state = {"stem.weight": torch.rand(3, 4), "stem.bias": torch.rand(3), "fc.weight": torch.rand(7, 3)}
    whole = {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: state}}}
    files = [save(state)]
    for content, zipped in ((state, True), (state, False), (whole, True), (whole, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        files.append(stream.getvalue())
    return files


def read_weights(raw: bytes, folder: Path):
    """Opened and looked at as ``audfer weights inspect`` does."""
    from audfer.models import find_weights, read_checkpoint

    path = folder / ("weights.safetensors" if raw[8:10] == b'{"' else "weights.pth")
    path.write_bytes(raw)
    return find_weights(read_checkpoint(path))


def judge_weights(raw: bytes, folder: Path, weights) -> Iterator[tuple[str, str]]:
    """Tensors under names; where the file has checksums (zip), its members are those that were written."""
    import torch

    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.tensors.items()):
        yield "silently_wrong", "not names and tensors"
    if (folder / "ran").exists():
        yield "silently_wrong", "the file's own code was run"
    if raw[:2] == b"PK":
        with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if (bad := archive.testzip()) and ("/data" in bad):
                yield "silently_wrong", f"{bad} is not what was written"


# ------------------------------------------------------------------------------------------------ listings, archives


def archive_seeds() -> list[bytes]:
    """Zip archives of three trials, stored and packed, with what a Mac leaves in them."""
    files = []
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", packing) as archive:
            for trial in range(1, 4):
                name = f"01-01-0{trial}-01-01-01-01.csv"
                archive.writestr(name, f"frame, AU01_r\n1, 0.{trial}\n" * 5)
            archive.writestr("__MACOSX/._01-01-01-01-01-01-01.csv", b"\0\1")
        files.append(stream.getvalue())
    return files


def read_archive(raw: bytes, folder: Path) -> dict[str, int]:
    """Unpacked below the folder, as after a download whose checksum is right."""
    checksum = "md5:" + hashlib.md5(raw).hexdigest()
    file = download.RemoteFile("tracking", "FacialTracking.zip", len(raw), checksum, "", folder / "root")
    file.part.parent.mkdir(parents=True)
    file.part.write_bytes(raw)
    return download._unpack(file, song=False)


def judge_archive(raw: bytes, folder: Path, placed: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every trial is there once and holds what a whole archive holds; nothing lies elsewhere."""
    whole = {f"0{trial}": f"frame, AU01_r\n1, 0.{trial}\n".encode() * 5 for trial in range(1, 4)}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    outside = {name for name in there if not name.startswith(("root/.fetch/", "root/openface/RAVDESS/"))}
    if outside or len(there) - 1 - len(outside) != len(placed):
        yield "silently_wrong", f"{sorted(there)} for {sorted(placed)}"
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        wanted = [name for name in archive.namelist() if re.fullmatch(r"([^_.].*/)?01-01-[\d-]+\.csv", name)]
    if len(placed) < len(wanted):
        yield "lost", f"{len(placed)} of {wanted}"
    for name in placed:
        if (folder / "root" / name).read_bytes() not in whole.values():
            yield "silently_wrong", f"{name} is none of the files"


LISTING = {
    "metadata": {"title": "Tracking", "license": {"id": "cc-by-nc-sa-4.0"}},
    "files": [
        {
            "key": "FacialTracking_Actors_01-24.zip",
            "size": 1234,
            "checksum": "md5:" + "0" * 32,
            "links": {"self": "https://zenodo.org/api/records/3255102/files/FacialTracking_Actors_01-24.zip/content"},
        }
    ],
}


def read_listing(raw: bytes, folder: Path):
    """Served on loopback, planned from."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
        thread.start()
        try:
            return download.plan("tracking", folder, base_url=f"http://127.0.0.1:{server.server_port}", wait=0)
        finally:
            server.shutdown()
            thread.join()


def judge_listing(raw: bytes, folder: Path, plan) -> Iterator[tuple[str, str]]:
    """The archives that are listed, with the listed size and checksum."""
    listed = [file for file in json.loads(raw)["files"] if re.fullmatch(r"FacialTracking[\w-]*\.zip", file["key"])]
    given = sorted((str(file["key"]), int(file["size"]), file["checksum"]) for file in listed)
    yield from _compared(given, [(file.key, file.size, file.checksum) for file in plan.files])
    if list(folder.iterdir()):
        yield "silently_wrong", "something was written"


# ------------------------------------------------------------------------------------------------------------ profiles


def profile_seeds() -> list[bytes]:
    """The profiles that come with the package."""
    from audfer.study.profiles import FOLDER

    return [path.read_bytes() for path in sorted(FOLDER.glob("*.toml"))]


def read_profile(raw: bytes, folder: Path):
    """A profile of the user's own."""
    from audfer.study.profiles import load_profile

    (folder / "mine.toml").write_bytes(raw)
    return load_profile(str(folder / "mine.toml"))


def judge_profile(raw: bytes, folder: Path, profile) -> Iterator[tuple[str, str]]:
    """Every value of the file is the profile's."""
    text = raw.decode().replace("\r\n", "\n").replace("\r", "\n")  # as any text is read, from old machines too
    for section, values in tomllib.loads(text).items():
        own = getattr(profile, section)
        for name, value in values.items() if isinstance(values, dict) else ((None, values),):
            there = own if name is None else getattr(own, name)
            if json.loads(json.dumps(there)) != json.loads(json.dumps(value)):
                yield "silently_wrong", f"{section}.{name} is {there!r}, the file says {value!r}"
                return


# ----------------------------------------------------------------------------------------- matrices, arrays, records


def matrix_seeds() -> list[bytes]:
    """A matrix as the package saves it."""
    from audfer.knowledge import KnowledgeMatrix

    with tempfile.TemporaryDirectory() as folder:
        KnowledgeMatrix.published().save(Path(folder) / "k.json")
        plain = (Path(folder) / "k.json").read_bytes()
    return [plain, json.dumps(json.loads(plain) | {"medians": {"DFEW": [[0.5] * 17] * 7}}).encode()]


def read_matrix(raw: bytes, folder: Path):
    """Loaded as ``--knowledge`` loads it."""
    from audfer.knowledge import KnowledgeMatrix

    (folder / "k.json").write_bytes(raw)
    return KnowledgeMatrix.load(folder / "k.json")


def judge_matrix(raw: bytes, folder: Path, matrix) -> Iterator[tuple[str, str]]:
    """The file's own numbers, in rows and columns that the file names as the package does."""
    content = json.loads(raw)
    if matrix.values.tolist() != np.array(content["values"], float).tolist():
        yield "silently_wrong", "other values than the file's"


@functools.cache
def a_store() -> dict[str, bytes]:
    """The files of a small packed store."""
    from PIL import Image

    from audfer import datasets

    with tempfile.TemporaryDirectory() as folder:
        for clip in ("happy/a", "sad/b", "fear/c"):
            (Path(folder) / "clips" / clip).mkdir(parents=True)
            for number in range(1, 5):
                Image.new("L", (8, 8), 20 * number).save(Path(folder) / "clips" / clip / f"{number}.png")
        clips = datasets.read_dataset("folder", Path(folder) / "clips")
        datasets.pack(clips, Path(folder) / "out", 4, 8, workers=1, progress=False)
        return {path.name: path.read_bytes() for path in (Path(folder) / "out").iterdir()}


#: by how a file begins: which of a store's it is
STORED = {b"\x93NU": "frame_numbers.npy", b"PAR": "manifest.parquet", b'{\n "': "meta.json"}


def store_seeds() -> list[bytes]:
    """Numbers of frames, clips and what is said of them."""
    return [a_store()[name] for name in STORED.values()]


def read_store(raw: bytes, folder: Path):
    """A store of which one file is this one."""
    from audfer import datasets

    for name, content in a_store().items():
        (folder / name).write_bytes(raw if STORED.get(raw[:3], "meta.json") == name else content)
    return datasets.open_packed(folder)


def judge_store(raw: bytes, folder: Path, packed) -> Iterator[tuple[str, str]]:
    """Numbers and clips are those that were written: the store has a digest of them."""
    if (folder / "meta.json").read_bytes() != raw:
        numbers = np.load(io.BytesIO(a_store()["frame_numbers.npy"]))
        if not np.array_equal(packed.frame_numbers, numbers):
            yield "silently_wrong", "other numbers of frames"
        if sorted(packed.clip_ids) != ["fear/c", "happy/a", "sad/b"]:
            yield "silently_wrong", f"clips {packed.clip_ids}"


def parcel_seeds() -> list[bytes]:
    """A file of ``audfer records export``."""
    stream, arrays = io.BytesIO(), io.BytesIO()
    np.savez_compressed(arrays, clip_ids=np.array(["a"]), scores=np.ones((1, 7)))
    record = {"format": 1, "best_epoch": 1, "cell": {}, "flops": {}, "seconds": 1.0, "environment": {}}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as parcel:
        for name, content in (("record.json", json.dumps(record)), ("history.csv", "epoch,loss\n1,2\n")):
            parcel.writestr(f"a1/{name}", content)
        parcel.writestr("a1/test.npz", arrays.getvalue())
    return [stream.getvalue()]


def read_parcel(raw: bytes, folder: Path):
    """Taken into an empty store."""
    from audfer.training.parcels import import_records
    from audfer.training.records import RunStore

    (folder / "records-000.zip").write_bytes(raw)
    return import_records(RunStore(folder / "runs"), [folder / "records-000.zip"])[0]


def judge_parcel(raw: bytes, folder: Path, taken: list[str]) -> Iterator[tuple[str, str]]:
    """What was taken is what a whole file holds, and lies in the store alone."""
    with zipfile.ZipFile(io.BytesIO(parcel_seeds()[0])) as parcel:
        whole = {parcel.read(name) for name in parcel.namelist()}
    for path in folder.rglob("*"):
        if path.is_file() and path.name in ("record.json", "history.csv", "test.npz"):
            if path.parent.parent != folder / "runs":
                yield "silently_wrong", f"{path} was written"
            if path.name != "test.npz" and path.read_bytes() not in whole:
                yield "silently_wrong", f"{path.name} is not what was exported"
    if len(set(taken)) < len(taken):
        yield "doubled", f"{taken}"


KINDS: dict[str, Kind] = {
    "openface csv": Kind(csv_seeds, read_csv, judge_csv),
    "labels": Kind(lambda: LABELS, read_labels, judge_labels),
    "split list": Kind(lambda: LISTS, read_split_list, judge_list),
    "checkpoint": Kind(checkpoint_seeds, read_weights, judge_weights),
    "archive": Kind(archive_seeds, read_archive, judge_archive),
    "listing": Kind(lambda: [json.dumps(LISTING).encode()], read_listing, judge_listing),
    "profile": Kind(profile_seeds, read_profile, judge_profile),
    "matrix": Kind(matrix_seeds, read_matrix, judge_matrix),
    "store": Kind(store_seeds, read_store, judge_store),
    "records": Kind(parcel_seeds, read_parcel, judge_parcel),
}


# -------------------------------------------------------------------------------------------------------------- trying


class Hung(Exception):
    """A reader did not end."""


def _alarm(*_) -> None:
    raise Hung(f"not done after {SECONDS} s")


def attempt(kind: Kind, raw: bytes) -> tuple[str, list[tuple[str, str]]]:
    """One file: "read" or "refused", and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="audfer_fuzzing_") as folder:
        before = signal.signal(signal.SIGALRM, _alarm)
        signal.alarm(SECONDS)
        try:
            result = kind.read(raw, Path(folder))
        except AudferError as error:
            sentence = str(error)
            return "refused", [] if sentence.strip() else [("tracebacks", "an error that says nothing")]
        except Exception:
            return "refused", [("tracebacks", traceback.format_exc(limit=-3))]
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        try:
            return "read", list(kind.judge(raw, Path(folder), result))
        except Exception:  # audfer has read what the second reading cannot
            return "read", [("silently_wrong", traceback.format_exc(limit=-3))]


def run(name: str, inputs: int, seconds: float, seed: int = 0) -> dict:
    """Try files of one kind until there were so many, or the processor's seconds are over; the whole ones first."""
    kind, counts, examples = KINDS[name], Counter(), {}
    os.environ["AUDFER_PROGRESS"] = "off"
    warnings.simplefilter("ignore")  # torch's, about odd pickles
    rng, seeds = np.random.default_rng([seed, *name.encode()]), kind.seeds()
    attempt(kind, seeds[0])  # imports take their time once
    start = time.process_time()  # others' work takes nothing away
    for number in range(inputs):
        raw = seeds[number] if number < len(seeds) else changed(seeds[rng.integers(len(seeds))], rng)
        state, wrongs = attempt(kind, raw)
        if number < len(seeds) and state != "read":
            wrongs.append(("silently_wrong", "a whole file is refused"))
        counts[state] += 1
        for wrong, example in wrongs:
            counts[wrong] += 1
            examples.setdefault(wrong, {"input": raw[:2000].decode("latin-1"), "what": example})
        if time.process_time() - start > seconds:
            break
    return {"tried": number + 1, **{key: counts[key] for key in ("read", "refused", *WRONGS)}, "examples": examples}


def main() -> None:
    """Try every kind, each in a process of its own; print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="of each kind")
    parser.add_argument("--seconds", type=float, default=40, help="of the processor for each kind, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--out", type=Path, help="record (default: benchmarks/records, with the date)")
    arguments = parser.parse_args()
    kinds = {}
    for name in arguments.kind or KINDS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                kinds[name] = pool.submit(run, name, arguments.inputs, arguments.seconds, arguments.seed).result()
            except BrokenProcessPool:
                kinds[name] = dict.fromkeys(("tried", "read", "refused", *WRONGS), 0) | {
                    "tracebacks": 1,
                    "examples": {},
                }
        print(name, {key: value for key, value in kinds[name].items() if key != "examples"}, flush=True)
        for wrong, example in kinds[name].pop("examples").items():
            print(f"  {wrong}: {example['what']}\n  of {example['input'][:400]!r}", flush=True)
    record = {
        "benchmark": "fuzzing",
        "date": datetime.date.today().isoformat(),
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "seed": arguments.seed,
        "processor_seconds_each": arguments.seconds,
        "kinds": kinds,
        "total": {key: sum(kind[key] for kind in kinds.values()) for key in ("tried", "read", "refused", *WRONGS)},
    }
    out = arguments.out or Path(__file__).with_name("records") / f"{record['date']}_fuzzing.json"
    out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["total"]))


if __name__ == "__main__":
    main()
