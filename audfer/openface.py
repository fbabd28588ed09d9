"""OpenFace's output: its CSV dialects and its command line.

``read_openface`` takes any file that OpenFace 2.x (or the versions before it) wrote and gives an ``AUTrack``: one row
a frame, no frame missing, and NaN wherever the action units are not known. Spaces, separators, line ends, missing
bookkeeping columns and a truncated last row are dealt with and counted in ``AUTrack.report``; files that only look
like OpenFace output (other toolkits, rescaled intensities) are refused with a sentence.

A file of plain numbers is parsed by pyarrow, which converts only the columns that are wanted; everything else goes
through the tolerant reader, cell by cell. Both give the same numbers, and only the tolerant reader refuses.

OpenFace itself is not part of this project (its licence is academic, non-commercial): ``extraction_command`` gives
the command to run where it is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from .errors import InputError
from .facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from .files import require_plain

#: the boundary above which OpenFace itself writes success = 1 (its sources; the author's rule of thumb is 0.7)
SUCCESS_BOUNDARY = 0.725
#: what OpenFace notes beside a CSV
DETAILS = "_of_details.txt"
#: the folder that it writes to where nobody names one
OUTPUT = "processed"
#: frames on either side that OpenFace's smoothing reaches: a 3-frame mean of intensities, a 7-frame vote of presences
SMOOTHING_RADII = (1, 3)
#: how one face is chosen where a file holds several
FACE_RULES = ("longest", "largest", "confident")
INTENSITY_COLUMNS: tuple[str, ...] = tuple(f"{au}_r" for au in INTENSITY_ACTION_UNITS)
PRESENCE_COLUMNS: tuple[str, ...] = tuple(f"{au}_c" for au in ACTION_UNITS)
MAX_INTENSITY = 5.0
LANDMARK_COLUMNS: tuple[str, ...] = tuple(f"{axis}_{i}" for axis in "xy" for i in range(68))

#: a file of more is not OpenFace's
MOST_COLUMNS = 10_000

_POSE_COLUMNS = ("pose_Tx", "pose_Ty", "pose_Tz")
_BOOKKEEPING = ("frame", "face_id", "face", "timestamp", "confidence", "success")
_WANTED = frozenset((*INTENSITY_COLUMNS, *PRESENCE_COLUMNS, *_BOOKKEEPING))
_EVERYTHING = _WANTED.union(LANDMARK_COLUMNS, _POSE_COLUMNS)
#: of a file without any action unit
_POINTS = _EVERYTHING.difference(INTENSITY_COLUMNS, PRESENCE_COLUMNS)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_MISSING = re.compile(r"|[+-]?(nan(\([a-z0-9_]*\))?|inf(inity)?)|na|n/a|null|none", re.IGNORECASE)
#: these send a file to the tolerant reader: it refuses the first, and ends lines at the others
_ODD_BYTES = (b"\0", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")
#: frames a face may be lost for, and how far it may move meanwhile (in face widths), and still be followed
_FOLLOW_FRAMES, _FOLLOW_DISTANCE = 15, 0.75
#: the same distance where a file has no landmarks but the head's place in millimetres
_FOLLOW_MILLIMETRES = 120.0


@dataclass
class AUTrack:
    """The action units of one clip, one row per frame, n consecutive frames.

    Attributes:
        intensity: (n, 17) float32, 0 to 5 in ``INTENSITY_ACTION_UNITS`` order; NaN where unknown.
        presence: (n, 18) float32, 0 or 1 in ``ACTION_UNITS`` order; NaN where unknown.
        ok: (n,) bool; False where the face was not tracked, the confidence too low, or the frame not in the file.
            A frame beside a failed one may be ``ok`` and its AUs unknown all the same (``mask_neighbours``).
        frame: (n,) int64, consecutive; as numbered in the file, or from 1 where it has no usable numbers.
        timestamp: (n,) float64 seconds; NaN where the file has no usable time (image folders get constant zeros).
        landmarks: (n, 68, 2) float32 pixels x, y (NaN rows where not ``ok``), or ``None`` where not written or not
            asked for.
        report: counts of what was found and dropped (see ``read_openface``).
    """

    intensity: np.ndarray
    presence: np.ndarray
    ok: np.ndarray
    frame: np.ndarray
    timestamp: np.ndarray
    landmarks: np.ndarray | None = None
    report: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)


def read_openface(
    path,
    min_confidence: float = SUCCESS_BOUNDARY,
    *,
    face: int | str | None = None,
    mask_neighbours: int | tuple[int, int] = SMOOTHING_RADII,
    require_presence: bool = True,
    scale: float | None = None,
    landmarks: bool = True,
    require_aus: bool = True,
) -> AUTrack:
    """Read one OpenFace CSV (or .txt) of any dialect.

    Accepted: separators comma, semicolon and tab, spaces anywhere, LF or CRLF, a byte-order mark, quoted names,
    decimal commas (where cells are not separated by commas), 431 or 714 columns or the AU columns alone, files
    without frame, face_id, timestamp, confidence or success, index columns, ``nan``-like cells, a truncated last row
    (dropped), unsorted frames, gaps (filled with unknown rows) and a constant frame column (live capture: rows are
    numbered instead).

    Args:
        path: the file.
        min_confidence: frames below it are unknown, in 0 to 1. The default is the boundary of OpenFace's own success
            flag, so a file that has the flag loses nothing more, and one without it is treated the same. Files
            without a confidence column cannot be filtered (``report["confidence"]`` says so).
        face: which face to keep where frames hold several (multi-face tool, still images): its number in the file, or
            a rule: "longest" (tracked in most frames), "largest" (median size in the image), "confident" (mean
            confidence). A rule follows a face whose number ends and goes on under another one at the same place.
            ``None`` refuses frames with several faces.
        mask_neighbours: frames on either side of a failed one whose AUs are also unknown, (of intensities, of
            presences) or one number for both. OpenFace smooths over failed frames (3-frame mean of intensities,
            7-frame vote of presences), so the default, (1, 3), removes what is contaminated; 0 keeps it. Failed here
            is what OpenFace zeroes: success 0 (without that column: confidence below the boundary of the flag), and
            frames that the file lacks. Still pictures (neither frame nor timestamp, OpenFace's image tool) are not
            smoothed: none of theirs is masked.
        require_presence: refuse files without any AU*_c column; False leaves their presence unknown (NaN).
        scale: factor on the intensities, for derived files (5.0 for intensities divided by 5). ``None`` takes them as
            they are and refuses files that were evidently rescaled to 0 to 1.
        landmarks: False leaves the 68 points out, which is faster.
        require_aus: False takes a file that has landmarks and no AU column at all (``audfer data landmarks``); its AUs
            are unknown.

    Returns:
        An ``AUTrack``. Its report holds: path, separator, columns, rows (read), frames (returned), truncated_rows,
        failed (success 0), low_confidence (success, but below the threshold), gaps (frames that no row of the file,
        of whichever face, is of),
        contaminated (tracked frames with masked AUs), unknown_cells (nan-like AU cells in good frames), ok (frames),
        faces (ids seen), face (ids kept), face_rule, hand_overs (from one id to another, of several faces; ``None``
        where rows say no place and a face can't be followed), left_out (frames in which another face was tracked and
        the kept one was not), mask_neighbours, missing_presence (AU*_c columns that the file
        lacks); tool, version (as far as the columns tell: "2.x", "before 2.x", "unknown"), mode ("unknown": no OpenFace
        file tells whether ``-au_static`` was given) and threshold (``min_confidence``); and the source of frame
        ("file", "row number"), timestamp ("file", "absent", "unusable"), confidence ("file", "absent").

    Raises:
        InputError: unreadable or empty file, no rows, missing AU columns (named), text in a number cell, intensities
            outside 0 to 5, presences other than 0 and 1, duplicated frames, not OpenFace output.

    Example:
        >>> track = read_openface("clip.csv")                                           # doctest: +SKIP
        >>> track.intensity.shape, track.report["failed"]                               # doctest: +SKIP
        ((98, 17), 0)
    """
    radii = check_choices(path, min_confidence, face, mask_neighbours, scale)
    path = Path(path)
    raw = _read_bytes(path)
    pointed = not require_aus and b"AU" not in raw[: raw.find(b"\n")]
    wanted = _POINTS if pointed else _EVERYTHING if landmarks else _WANTED
    header, separator, columns, truncated = _parse(path, raw, wanted, require_presence)
    rows = len(columns["row"])
    report = {
        "path": str(path),
        "separator": separator,
        "columns": len(header),
        "rows": rows,
        "truncated_rows": truncated,
        "mask_neighbours": list(radii),
        "missing_presence": [name for name in PRESENCE_COLUMNS if name not in columns],
        "tool": "OpenFace",
        "version": _version(header),
        "mode": "unknown",
        "threshold": float(min_confidence),
    }

    if pointed:
        columns |= dict.fromkeys(INTENSITY_COLUMNS, np.full(rows, np.nan))
    elif isinstance(face, str) and not landmarks and _face_ids(path, columns).size > 1:  # told apart by place
        columns = _parse(path, raw, _EVERYTHING, require_presence)[2]
    still = "frame" not in columns and "timestamp" not in columns
    radii = (0, 0) if still else radii
    report["mask_neighbours"] = list(radii)
    keep, every = _choose_face(path, columns, face, report), np.zeros(0, np.int64)
    if not keep.all():
        if "frame" in columns:
            every = np.unique(_whole_frames(path, columns))
            seen = columns["success"] == 1 if "success" in columns else np.ones(rows, bool)
            report["left_out"] = len(set(columns["frame"][seen & ~keep]) - set(columns["frame"][seen & keep]))
        columns = {name: values[keep] for name, values in columns.items()}
    frame = _frame_numbers(path, columns, report)
    if (frame[1:] < frame[:-1]).any():
        order = np.argsort(frame, kind="stable")
        columns, frame = {name: values[order] for name, values in columns.items()}, frame[order]

    good, written = _tracked(path, columns, min_confidence, report)
    intensity = np.stack([columns[name] for name in INTENSITY_COLUMNS], axis=1)
    presence = np.stack([columns.get(name, np.full(len(frame), np.nan)) for name in PRESENCE_COLUMNS], axis=1)
    intensity = _scaled(path, intensity, scale, good, looks_raw="success" in columns and PRESENCE_COLUMNS[0] in columns)
    _check_range(path, INTENSITY_COLUMNS, intensity, good, columns["row"], 0.0, MAX_INTENSITY)
    intensity = np.clip(intensity, 0.0, MAX_INTENSITY)  # the check lets the rounding of a scale pass
    _check_range(path, PRESENCE_COLUMNS, presence, good, columns["row"], 0.0, 1.0, whole=True)
    have = [i for i, name in enumerate(PRESENCE_COLUMNS) if name in columns]
    lacking = 0 if pointed else np.isnan(intensity[good]).sum()
    report["unknown_cells"] = int(lacking + np.isnan(presence[good][:, have]).sum())
    good &= pointed | ~np.isnan(intensity).all(axis=1)

    # from here on one row per frame of the whole range, of all faces
    first, last = min([frame[0], *every[:1]]), max([frame[-1], *every[-1:]])
    position = frame - first
    length = int(last - first) + 1
    if length > 1000 * max(len(frame), len(every)) + 1000:
        found = f"{len(frame)} rows numbered {first} to {last}"
        raise InputError(path, "column frame", found, "frame numbers of one clip")
    ok = np.zeros(length, bool)
    ok[position] = good
    report["gaps"] = length - max(len(frame), len(every))
    zeroed = np.ones(length, bool)
    # before a face came and after it went nothing is smoothed over
    zeroed[: position[0]] = zeroed[position[-1] + 1 :] = False
    zeroed[position] = ~written
    near = [ok & ~_within(zeroed, radius) for radius in radii]
    report["contaminated"] = int((ok & ~(near[0] & near[1])).sum())
    track = AUTrack(
        intensity=_spread(intensity, position, near[0]),
        presence=_spread(presence, position, near[1]),
        ok=ok,
        frame=np.arange(first, first + length, dtype=np.int64),
        timestamp=_timestamps(columns, position, length, report),
        landmarks=_landmarks(path, columns, position, ok) if landmarks else None,
        report=report,
    )
    report["frames"], report["ok"] = length, int(ok.sum())
    return track


def check_choices(
    where, min_confidence: float, face: int | str | None, mask_neighbours: int | tuple[int, int], scale: float | None
) -> tuple[int, int]:
    """Refuse choices of ``read_openface`` that cannot be meant; returns ``mask_neighbours`` as a pair.

    Raises:
        InputError: naming ``where``, the choice, and what is allowed.
    """
    if not 0.0 <= min_confidence <= 1.0:
        raise InputError(where, "min_confidence", min_confidence, "a number from 0 to 1")
    if isinstance(face, str) and face not in FACE_RULES:
        raise InputError(where, "face", repr(face), f"a face's number or one of {', '.join(FACE_RULES)}")
    if scale is not None and not 0.0 < scale <= 100.0:
        raise InputError(where, "scale", scale, "a positive number, 5 for intensities from 0 to 1")
    radii = (mask_neighbours, mask_neighbours) if isinstance(mask_neighbours, int) else tuple(mask_neighbours)
    if len(radii) != 2 or min(radii) < 0:
        raise InputError(where, "mask_neighbours", mask_neighbours, "one or two numbers of frames, 0 or more")
    return radii


# ---------------------------------------------------------------------------------------------------- text to numbers


def _read_bytes(path: Path) -> bytes:
    try:
        require_plain(path)
        raw = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, "file", reason, "a readable OpenFace CSV") from error
    if not raw or raw.isspace():
        raise InputError(path, "file", "no content (an empty file)", "an OpenFace CSV")
    head = raw[: raw.find(b"\n") + 1] or raw  # of a file that makes readers slow before they notice what it is
    if (columns := 1 + max(map(head.count, (b",", b";", b"\t")))) > MOST_COLUMNS:
        raise InputError(path, "header", f"{columns:,} columns", f"at most {MOST_COLUMNS:,}; OpenFace writes 714")
    return raw.removeprefix(b"\xef\xbb\xbf")


def _parse(
    path: Path, raw: bytes, wanted: frozenset[str], require_presence: bool
) -> tuple[list[str], str, dict[str, np.ndarray], int]:
    """Header names, separator, wanted columns as float64 (NaN: missing) with "row" (from 1), truncated last rows."""
    parsed = _parse_plain(raw, wanted) or _parse_tolerant(path, raw, wanted, require_presence)
    columns = parsed[2]
    if "face" in columns:  # the still-image tool's name for it
        columns.setdefault("face_id", columns["face"])
    return parsed


def _parse_plain(raw: bytes, wanted: frozenset[str]) -> tuple[list[str], str, dict[str, np.ndarray], int] | None:
    """The fast reader, or ``None`` for a file that is not plain numbers under a complete header."""
    start = raw.find(b"\n") + 1
    layout = _plain_layout(raw[:start], wanted) if start else None
    # "\r" alone and the control characters end a line for the tolerant reader and not for pyarrow
    if (
        layout is None
        or not raw.isascii()
        or any(byte in raw for byte in _ODD_BYTES)
        or (b"\r" in raw and raw.count(b"\r") != raw.count(b"\r\n"))
    ):
        return None
    header, separator, names, read, parse, convert = layout
    if separator != "," and b"," in raw:  # decimal commas
        return None
    try:
        table = arrow_csv.read_csv(pa.BufferReader(pa.py_buffer(raw).slice(start)), read, parse, convert)
    except pa.ArrowInvalid:
        return None
    if not table.num_rows:
        return None
    columns = {"row": np.arange(1, table.num_rows + 1)}
    for index, name in enumerate(names):
        values = table.column(index).to_numpy()
        columns[name] = values if np.isfinite(values).all() else np.where(np.isfinite(values), values, np.nan)
    return header, separator, columns, 0


@lru_cache(maxsize=256)
def _plain_layout(line: bytes, wanted: frozenset[str]):
    """What pyarrow needs to know about files with this header line; ``None`` where the tolerant reader is needed."""
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not line.strip() or not line.isascii():
        return None
    header, separator = _header(line.decode("ascii"))
    known = [name for name in header if name in _EVERYTHING]
    needed = LANDMARK_COLUMNS if wanted is _POINTS else (*INTENSITY_COLUMNS, *PRESENCE_COLUMNS)
    # pandas and pyarrow drop or shift what follows a separator at the end of the header: not here
    if line.rstrip(b" ").endswith(separator.encode()) or len(set(known)) < len(known) or not set(needed) <= set(known):
        return None
    chosen = [i for i, name in enumerate(header) if name in wanted]
    keys = [str(i) for i in range(len(header))]
    return (
        header,
        separator,
        [header[i] for i in chosen],
        arrow_csv.ReadOptions(column_names=keys, use_threads=False),
        arrow_csv.ParseOptions(delimiter=separator, quote_char=False),
        arrow_csv.ConvertOptions(
            include_columns=[keys[i] for i in chosen],
            null_values=[""],
            column_types={keys[i]: pa.float64() for i in chosen},
        ),
    )


def _header(line: str) -> tuple[list[str], str]:
    """Column names and the separator of a header line."""
    counts = {candidate: line.count(candidate) for candidate in (",", ";", "\t")}
    separator = max(counts, key=counts.get)
    names = [name.strip().strip("\"'").strip() for name in line.split(separator)]
    while names and not names[-1]:  # a separator at the end of the header line
        names.pop()
    return names, separator


def _parse_tolerant(
    path: Path, raw: bytes, wanted: frozenset[str], require_presence: bool
) -> tuple[list[str], str, dict[str, np.ndarray], int]:
    """The reader that takes every dialect and refuses what is none, with a sentence."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise InputError(path, "file", "bytes that are not UTF-8 text", "an OpenFace CSV")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(path, "file", "no content (blank lines)", "an OpenFace CSV")
    header, separator = _header(lines[0])
    body, truncated = _body(path, header, separator, lines[1:])
    if wanted is not _POINTS or not set(LANDMARK_COLUMNS) <= set(header):
        _require_openface(path, header, require_presence)
    if not body:
        raise InputError(
            path, "rows", "none after the header (OpenFace writes that when it finds no face)", "one row per frame"
        )
    # decimal commas appear where a spreadsheet re-saved the file, which then cannot use commas between cells
    decimal_comma = separator != ","
    cells = [line.split(separator) for line in body]
    columns = {"row": np.arange(1, len(body) + 1)}
    numbers: dict[str, float] = {}
    for position, name in enumerate(header):
        if name not in wanted:
            continue
        values = columns[name] = np.empty(len(body))
        for row, line in enumerate(cells):
            text = line[position]
            if text not in numbers:
                numbers[text] = _number(path, row, name, text, decimal_comma)
            values[row] = numbers[text]
    return header, separator, columns, truncated


def _body(path: Path, header: list[str], separator: str, body: list[str]) -> tuple[list[str], int]:
    """Data lines with as many cells as the header, and how many truncated last lines were dropped (0 or 1)."""
    truncated = 0
    for number, line in enumerate(body):
        cells = line.count(separator) + 1
        if cells == len(header) + 1 and line.rstrip(" ").endswith(separator):
            body[number], cells = line.rstrip(" ")[:-1], len(header)
        # too few in the last row: the program was stopped while writing
        truncated = int(cells < len(header) and number == len(body) - 1)
        if cells != len(header) and not truncated:
            raise InputError(path, f"data row {number + 1}", f"{cells} cells", f"{len(header)}, as in the header")
    repeated = sorted({name for name in header if name in _EVERYTHING and header.count(name) > 1})
    if repeated:
        raise InputError(path, "header", f"column {repeated[0]} twice", "every column once")
    return body[: len(body) - truncated], truncated


def _number(path: Path, row: int, name: str, text: str, decimal_comma: bool) -> float:
    """A cell's number; NaN for nan-like text and what is too large for a float."""
    plain = text.strip().strip("\"'").strip()
    if decimal_comma:
        plain = plain.replace(",", ".")
    if _NUMBER.fullmatch(plain):
        value = float(plain)
        return value if np.isfinite(value) else np.nan
    if _MISSING.fullmatch(plain):
        return np.nan
    shown = text.strip() if len(text.strip()) <= 40 else text.strip()[:37] + "..."
    raise InputError(path, f"data row {row + 1}, column {name}", repr(shown), "a number")


def _require_openface(path: Path, header: list[str], require_presence: bool) -> None:
    missing = [name for name in INTENSITY_COLUMNS if name not in header]
    if len(missing) == len(INTENSITY_COLUMNS):
        bare = [name for name in header if re.fullmatch(r"AU\d{1,2}", name)]
        if "FaceScore" in header or {"AU11", "AU24", "AU43"} <= set(bare):
            found = "py-feat detector output (AU columns on 0 to 1 without suffix)"
        elif bare:
            found = f"AU columns without suffix ({', '.join(bare[:3])} ...): a derived file whose scale is unknown"
        else:
            found = f"no AU column ({len(header)} columns, the first {header[0][:40]!r})" if header else "no column"
        raise InputError(
            path, "header", found, "OpenFace's own output, with AU01_r ... AU45_r on 0 to 5 (run it with -aus)"
        )
    if missing:
        raise InputError(path, "header", f"no column {', '.join(missing)}", "all 17 AU intensity columns AU*_r")
    absent = [name for name in PRESENCE_COLUMNS if name not in header]
    if require_presence and len(absent) == len(PRESENCE_COLUMNS):
        expected = "AU01_c ... AU45_c, or require_presence=False to leave presence unknown"
        raise InputError(path, "header", "no AU presence column AU*_c (a derived file)", expected)
    if require_presence and set(absent) - {"AU28_c"}:
        expected = "all 18 AU presence columns, or require_presence=False to leave those unknown"
        raise InputError(path, "header", f"no column {', '.join(absent)}", expected)


def _version(header: list[str]) -> str:
    """What the columns say about the version that wrote them: face_id came with 2.x (reference, OPENFACE.md C.1)."""
    if not {"timestamp", "confidence", "success"} <= set(header):
        return "unknown"
    return "2.x" if "face_id" in header else "before 2.x" if "frame" in header else "unknown"


# ------------------------------------------------------------------------------------------- which rows, which frames


def _face_ids(path: Path, columns: dict) -> np.ndarray:
    """The distinct faces of a file, as numbers; empty where it has no such column."""
    ids = columns.get("face_id")
    if ids is None:
        return np.zeros(0, np.int64)
    ids = np.unique(ids[~np.isnan(ids)]) if (ids != ids[0]).any() else ids[:1]
    if (ids != np.round(ids)).any() or (np.abs(ids) > 2**31).any():
        raise InputError(
            path, "column face_id", ids[(ids != np.round(ids)) | (np.abs(ids) > 2**31)][0], "whole numbers"
        )
    return ids.astype(np.int64)


def _choose_face(path: Path, columns: dict, face: int | str | None, report: dict) -> np.ndarray:
    """(rows,) bool: the rows of the face that is kept."""
    faces = report["faces"] = _face_ids(path, columns).tolist()
    report["face"], report["face_rule"] = faces, "none needed" if len(faces) < 2 else str(face)
    everything = np.ones(len(columns["row"]), bool)
    still = "frame" not in columns and "timestamp" not in columns  # one image: a row is a face
    if len(faces) > 1 and "frame" not in columns and not (still and face is not None):
        field = "column face" if still else "header"
        expected = "one face a file, or face=... to choose one" if still else "a frame number for each row"
        raise InputError(path, field, f"several faces ({faces}) and no frame column", expected)
    if isinstance(face, int):
        if face not in faces:
            raise InputError(path, "face", face, f"one of the file's faces {faces}")
        report["face"], report["face_rule"] = [face], "number"
        return columns.get("face_id") == face
    return everything if len(faces) < 2 or face is None else _follow(path, columns, face, still, report)


def _follow(path: Path, columns: dict, rule: str, still: bool, report: dict) -> np.ndarray:
    """Rows of the face that ``rule`` chooses, followed through changes of its number.

    A number's rows are cut where it is lost for long or jumps (trackers are used again for other people); pieces that
    go on at the same place are joined, the nearest first; the rule then chooses among what was joined.
    """
    ids = columns.get("face_id")
    known = np.flatnonzero(~np.isnan(ids))
    moment = np.zeros(len(ids), np.int64) if still else _whole_frames(path, columns)
    place, size, reach = _places(columns)
    tracked = columns["success"] == 1 if "success" in columns else np.ones(len(ids), bool)

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """From rows a to rows b, in reaches: above 1 it is another face; NaN where a place is unknown."""
        with np.errstate(all="ignore"):
            return np.linalg.norm(place[b] - place[a], axis=1) / reach[a]

    pieces: list[np.ndarray] = []
    for number in report["faces"]:
        rows = known[ids[known] == number]
        rows = rows[np.argsort(moment[rows], kind="stable")]
        twice = np.flatnonzero(np.diff(moment[rows]) == 0)
        if len(twice):
            found = f"frame {moment[rows[twice[0]]]} twice for face {number}"
            raise InputError(path, "column frame", found, "one row per frame and face")
        cuts = [] if place is None else np.flatnonzero(distances(rows[:-1], rows[1:]) > 1) + 1
        pieces += np.split(rows, cuts)
    following: dict[int, int] = {}
    if place is not None:
        first, last = np.array([piece[0] for piece in pieces]), np.array([piece[-1] for piece in pieces])
        gap = moment[first][None, :] - moment[last][:, None]
        ends, starts = np.nonzero((gap > 0) & (gap <= _FOLLOW_FRAMES))
        apart = distances(last[ends], first[starts])
        for link in np.argsort(apart, kind="stable"):  # the nearest first; NaN sorts last
            i, j = int(ends[link]), int(starts[link])
            if apart[link] <= 1 and i not in following and j not in following.values():
                following[i] = j
    chains = [[i] for i in range(len(pieces)) if i not in following.values()]
    for chain in chains:
        while chain[-1] in following:
            chain.append(following[chain[-1]])
    if rule == "largest" and size is None:
        raise InputError(
            path,
            "header",
            "several faces and neither landmarks x_*, y_* nor pose_T*",
            'places to measure a face by, or face="longest" or "confident"',
        )

    def score(chain: list[int]) -> tuple:
        rows = np.concatenate([pieces[i] for i in chain])
        seen = rows[tracked[rows]] if tracked[rows].any() else rows
        if rule == "longest":
            value = tracked[rows].sum()
        elif rule == "largest":
            value = np.nanmedian(size[seen]) if np.isfinite(size[seen]).any() else 0
        else:
            value = np.nan_to_num(columns["confidence"][rows]).mean() if "confidence" in columns else 0
        # ties: the one seen first, then the lower number
        return float(np.nan_to_num(value)), -int(moment[rows].min()), -int(ids[rows[0]])

    chosen = max(chains, key=score)
    order = [int(ids[pieces[i][0]]) for i in chosen]
    report["face"] = list(dict.fromkeys(order))
    report["hand_overs"] = None if place is None else sum(a != b for a, b in pairwise(order))
    return np.isin(np.arange(len(ids)), np.concatenate([pieces[i] for i in chosen]))


def _places(columns: dict) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Where a row's face is, how large, and how far away it still counts as the same one.

    ``None`` where not written.
    """
    if all(name in columns for name in LANDMARK_COLUMNS):
        points = np.stack([columns[name] for name in LANDMARK_COLUMNS], axis=1).reshape(-1, 2, 68)
        low, high = points.min(axis=2), points.max(axis=2)
        size = np.sqrt(np.prod(np.maximum(high - low, 0), axis=1))
        return (low + high) / 2, size, _FOLLOW_DISTANCE * size
    if all(name in columns for name in _POSE_COLUMNS):
        place = np.stack([columns[name] for name in _POSE_COLUMNS], axis=1)
        depth = np.where(place[:, 2] > 0, place[:, 2], np.nan)
        return place, 1.0 / depth, np.full(len(place), _FOLLOW_MILLIMETRES)
    return None, None, None


def _whole_frames(path: Path, columns: dict) -> np.ndarray:
    frame = columns["frame"]
    bad = np.flatnonzero(np.isnan(frame) | (frame != np.round(frame)) | (frame < 0) | (frame > 2**31))
    if len(bad):
        raise InputError(
            path, f"data row {int(columns['row'][bad[0]])}, column frame", f"{frame[bad[0]]:g}", "a whole number from 0"
        )
    return frame.astype(np.int64)


def _frame_numbers(path: Path, columns: dict, report: dict) -> np.ndarray:
    count = len(columns["row"])
    numbered = np.arange(1, count + 1, dtype=np.int64)  # OpenFace counts frames from 1
    report["frame"] = "row number"
    if "frame" not in columns:
        return numbered
    frame = _whole_frames(path, columns)
    if count > 1 and len(report["faces"]) < 2 and (frame == frame[0]).all():
        return numbered  # live capture writes the same number in every row
    report["frame"] = "file"
    if (frame[1:] > frame[:-1]).all():
        return frame
    values, counts = np.unique(frame, return_counts=True)
    if counts.max() > 1:
        faces = report["faces"] if len(report["faces"]) > 1 else None
        found = f"frame {values[counts.argmax()]} {counts.max()} times" + (f" (faces {faces})" if faces else "")
        expected = "every frame once" + (", or face=... to choose one face" if faces else "")
        raise InputError(path, "column frame", found, expected)
    return frame


def _tracked(path: Path, columns: dict, min_confidence: float, report: dict) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) bool each: whose AUs can be used; whose AU columns OpenFace did not fill with zeros (face lost)."""
    everything = np.ones(len(columns["row"]), bool)
    for name in ("success", "confidence"):
        if name in columns:
            values, whole = columns[name][:, None], name == "success"
            _check_range(path, (name,), values, everything, columns["row"], 0.0, 1.0, whole)
    confidence = columns.get("confidence", np.ones(len(everything)))
    tracked = columns["success"] == 1 if "success" in columns else everything  # a missing flag (NaN) is not a success
    confident = confidence >= min_confidence
    report["confidence"] = "file" if "confidence" in columns else "absent"
    report["failed"] = int((~tracked).sum())
    report["low_confidence"] = int((tracked & ~confident).sum())
    return tracked & confident, tracked if "success" in columns else confidence >= SUCCESS_BOUNDARY


def _within(marked: np.ndarray, radius: int) -> np.ndarray:
    """(n,) bool: at most ``radius`` frames from a marked one."""
    near = marked.copy()
    for step in range(1, min(radius, len(marked) - 1) + 1):
        near[step:] |= marked[:-step]
        near[:-step] |= marked[step:]
    return near


def _check_range(path, names, values, rows_used, row_numbers, low, high, whole=False) -> None:
    wrong = (values < low - 1e-6) | (values > high + 1e-6)
    if whole:
        wrong |= (values != np.round(values)) & ~np.isnan(values)
    wrong &= rows_used[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            path,
            f"data row {int(row_numbers[row])}, column {names[column]}",
            f"{values[row, column]:g}",
            f"{low:g} or {high:g}" if whole else f"a number from {low:g} to {high:g}",
        )


def _scaled(path, intensity, scale, good, looks_raw) -> np.ndarray:
    """Apply ``scale``; without one, refuse intensities that were evidently divided by five."""
    if scale is not None:
        return intensity * scale
    seen = intensity[good]
    seen = seen[~np.isnan(seen)]
    if len(seen) and seen.min() >= 0 and 0 < seen.max() <= 1.0:
        # OpenFace 2 writes multiples of 0.01; a fifth of one is a multiple of 0.002. A calm face may stay below 1, so
        # the range alone is no evidence in a file that is otherwise as OpenFace writes it.
        def on_lattice(step):
            return np.abs(seen / step - np.round(seen / step)).max() < 1e-4

        if not on_lattice(0.01) and (not looks_raw or on_lattice(0.002)):
            raise InputError(
                path,
                "columns AU*_r",
                f"intensities of at most {seen.max():g}, not in steps of 0.01 (a derived file, rescaled to 0 to 1)",
                "OpenFace's 0 to 5; scale=5 undoes a division by 5, scale=1 takes them as they are",
            )
    return intensity


# ----------------------------------------------------------------------------------------------------- rows to frames


def _spread(values: np.ndarray, position: np.ndarray, ok: np.ndarray) -> np.ndarray:
    result = np.full((len(ok), *values.shape[1:]), np.nan, np.float32)
    known = ok[position]  # values of failed frames are not judged, and may not even fit a float32
    result[position[known]] = values[known]
    return result


def _timestamps(columns: dict, position: np.ndarray, length: int, report: dict) -> np.ndarray:
    result = np.full(length, np.nan)
    stamps = columns.get("timestamp")
    if stamps is None:
        report["timestamp"] = "absent"
    elif len(stamps) > 1 and not (np.diff(stamps) > 0).all():
        report["timestamp"] = "unusable"  # zeros for image folders: no time can be had from them
    else:
        report["timestamp"] = "file"
        result[position] = stamps
    return result


def _landmarks(path: Path, columns: dict, position: np.ndarray, ok: np.ndarray) -> np.ndarray | None:
    if any(name not in columns for name in LANDMARK_COLUMNS):
        return None
    flat = np.stack([columns[name] for name in LANDMARK_COLUMNS], axis=1)
    _check_range(path, LANDMARK_COLUMNS, flat, ok[position], columns["row"], -1e6, 1e6)
    return _spread(flat.reshape(-1, 2, 68).transpose(0, 2, 1), position, ok)


# ------------------------------------------------------------------------------------------------- what lies beside it


def read_details(path) -> dict[str, str]:
    """What OpenFace noted beside a CSV (``<name>_of_details.txt``): lower-case names and values, empty without it."""
    path = Path(path)
    try:
        text = path.with_name(path.stem + DETAILS).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def measured_size(path) -> tuple[float, float] | None:
    """(width, height) of the pictures that a CSV's landmarks are pixels of, where OpenFace noted it beside the file.

    It notes the camera's focal length and centre, which it takes from the size of the (first) picture: 500 at 640 x
    480, and the middle. Of a camera that somebody described to it the size is not known.
    """
    try:
        fx, fy, cx, cy = map(float, read_details(path).get("camera parameters", "").split(","))
    except ValueError:
        return None
    taken = (500 * 2 * cx / 640 + 500 * 2 * cy / 480) / 2
    known = 0 < taken < 1e6 and max(abs(fx - taken), abs(fy - taken)) <= 0.01 * taken
    return (2 * cx, 2 * cy) if known else None


# ------------------------------------------------------------------------------------------------------- command line


def extraction_command(
    source, out_dir, name: str, *, executable: str = "FeatureExtraction", static: bool = False, landmarks: bool = True
) -> list[str]:
    """The lean OpenFace command for one clip: AUs, pose and 2-D landmarks, no images, no video.

    Args:
        source: a video file, or a folder of images. OpenFace reads a folder in plain string order, so its file names
            must be padded with zeros; a folder where that order is not the numeric one is refused.
        out_dir: where the CSV goes.
        name: its name without ``.csv``.
        executable: OpenFace's program.
        static: ``-au_static``, no calibration over the clip (a recorded choice: it changes the intensities).
        landmarks: also write the 68 points.

    Returns:
        The arguments for ``subprocess.run``; start several with ``OMP_NUM_THREADS=1`` each rather than one with many
        threads.

    Raises:
        InputError: the source does not exist, or its frames would be read in the wrong order.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(source, "clip", "nothing there", "a video file or a folder of images")
    if source.is_dir():
        images = sorted(p.name for p in source.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"))
        if not images:
            raise InputError(source, "clip", "no image", "a folder of .jpg, .jpeg, .png or .bmp frames")
        if images != sorted(images, key=lambda image: [int(number) for number in re.findall(r"\d+", image)]):
            expected = "numbers padded with zeros: OpenFace reads names in string order"
            raise InputError(source, "frame names", f"{images[0]} ... read before {images[1]}", expected)
    given = [executable, "-fdir" if source.is_dir() else "-f", str(source), "-out_dir", str(out_dir), "-of", name]
    return [*given, "-aus", "-pose", "-q", *["-2Dfp"] * landmarks, *["-au_static"] * static]
