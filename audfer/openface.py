"""OpenFace's output: its CSV dialects and its command line.

``read_openface`` takes any file that OpenFace 2.x (or the versions before it) wrote and gives an ``AUTrack``: one row
a frame, no frame missing, and NaN wherever the action units are not known. Spaces, separators, line ends, missing
bookkeeping columns and a truncated last row are dealt with and counted in ``AUTrack.report``; files that only look
like OpenFace output (other toolkits, rescaled intensities) are refused with a sentence.

OpenFace itself is not part of this project (its licence is academic, non-commercial): ``extraction_command`` gives
the command to run where it is installed.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import InputError
from .facs import ACTION_UNITS, INTENSITY_ACTION_UNITS

#: the boundary above which OpenFace itself writes success = 1 (its sources; the author's rule of thumb is 0.7)
SUCCESS_BOUNDARY = 0.725
INTENSITY_COLUMNS: tuple[str, ...] = tuple(f"{au}_r" for au in INTENSITY_ACTION_UNITS)
PRESENCE_COLUMNS: tuple[str, ...] = tuple(f"{au}_c" for au in ACTION_UNITS)
MAX_INTENSITY = 5.0

_LANDMARK_COLUMNS = tuple(f"{axis}_{i}" for axis in "xy" for i in range(68))
_BOOKKEEPING = ("frame", "face_id", "face", "timestamp", "confidence", "success")
_WANTED = {*INTENSITY_COLUMNS, *PRESENCE_COLUMNS, *_LANDMARK_COLUMNS, *_BOOKKEEPING}
_MISSING_TEXT = ("", "nan", "-nan", "+nan", "nan(ind)", "-nan(ind)", "na", "n/a", "null", "none", "inf", "-inf")


@dataclass
class AUTrack:
    """The action units of one clip, one row a frame, n consecutive frames.

    Attributes:
        intensity: (n, 17) float32, 0 to 5 in ``INTENSITY_ACTION_UNITS`` order; NaN where unknown.
        presence: (n, 18) float32, 0 or 1 in ``ACTION_UNITS`` order; NaN where unknown.
        ok: (n,) bool; False where the face was not tracked, the confidence too low, or the frame not in the file.
        frame: (n,) int64, consecutive; as numbered in the file, or from 1 where it has no usable numbers.
        timestamp: (n,) float64 seconds; NaN where the file has no usable time (image folders get constant zeros).
        landmarks: (n, 68, 2) float32 pixels x, y (NaN rows where not ``ok``), or ``None`` where not written.
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


def read_openface(path, min_confidence: float = SUCCESS_BOUNDARY, *, face: int | None = None,
                  mask_neighbours: int = 0, require_presence: bool = True, scale: float | None = None) -> AUTrack:
    """Read one OpenFace CSV (or .txt) of any dialect.

    Accepted: separators comma, semicolon and tab, spaces anywhere, LF or CRLF, a byte-order mark, quoted names,
    decimal commas (where cells are not separated by commas), 431 or 714 columns or the AU columns alone, files
    without frame, face_id, timestamp, confidence or success, ``nan``-like cells, a truncated last row (dropped),
    unsorted frames, gaps (filled with unknown rows) and a constant frame column (live capture: rows are numbered
    instead).

    Args:
        path: the file.
        min_confidence: frames below it are unknown, in 0 to 1. The default is the boundary of OpenFace's own success
            flag, so a file that has the flag loses nothing more, and one without it is treated the same. Files
            without a confidence column cannot be filtered (``report["confidence"]`` says so).
        face: which face to keep where a frame holds several (multi-face tool, still images).
        mask_neighbours: also treat as unknown this many frames on either side of a failed one. OpenFace smooths over
            failed frames (3-frame mean of intensities, 7-frame vote of presences), so 1 removes contaminated
            intensities and 3 contaminated presences.
        require_presence: refuse files without any AU*_c column; False leaves their presence unknown (NaN).
        scale: factor on the intensities, for derived files (5.0 for intensities divided by 5). ``None`` takes them as
            they are and refuses files that were evidently rescaled to 0 to 1.

    Returns:
        An ``AUTrack``. Its report holds: path, separator, rows (read), frames (returned), truncated_rows, failed
        (success 0), low_confidence (success, but below the threshold), gaps (frames absent from the file),
        contaminated (masked neighbours), unknown_cells (nan-like AU cells in good frames), ok (frames), faces (ids
        seen), min_confidence, missing_presence (AU*_c columns that the file lacks); and the source of
        frame ("file", "row number"), timestamp ("file", "absent", "unusable"), confidence ("file", "absent").

    Raises:
        InputError: unreadable or empty file, no rows, missing AU columns (named), text in a number cell, intensities
            outside 0 to 5, presences other than 0 and 1, duplicated frames, not OpenFace output.

    Example:
        >>> track = read_openface("clip.csv")                                           # doctest: +SKIP
        >>> track.intensity.shape, track.report["failed"]                               # doctest: +SKIP
        ((98, 17), 0)
    """
    if not 0.0 <= min_confidence <= 1.0:
        raise InputError(path, "min_confidence", min_confidence, "a number from 0 to 1")
    path = Path(path)
    text = _read_text(path)
    header, separator, body, truncated = _split(path, text)
    _require_openface(path, header, require_presence)
    columns = _parse(path, header, separator, body)
    rows = len(columns["row"])
    report = {"path": str(path), "separator": separator, "rows": rows, "truncated_rows": truncated,
              "min_confidence": float(min_confidence),
              "missing_presence": [name for name in PRESENCE_COLUMNS if name not in header]}

    keep = _choose_face(path, columns, face, report)
    columns = {name: values[keep] for name, values in columns.items()}
    frame = _frame_numbers(path, columns, report)
    order = np.argsort(frame, kind="stable")
    columns, frame = {name: values[order] for name, values in columns.items()}, frame[order]

    tracked, confident = _tracked(path, columns, min_confidence, report)
    good = tracked & confident
    intensity = np.stack([columns[name] for name in INTENSITY_COLUMNS], axis=1)
    presence = np.stack([columns.get(name, np.full(len(frame), np.nan)) for name in PRESENCE_COLUMNS], axis=1)
    intensity = _scaled(path, intensity, scale, good, looks_raw="success" in header and PRESENCE_COLUMNS[0] in header)
    _check_range(path, INTENSITY_COLUMNS, intensity, good, columns["row"], 0.0, MAX_INTENSITY)
    _check_range(path, PRESENCE_COLUMNS, presence, good, columns["row"], 0.0, 1.0, whole=True)
    have = [i for i, name in enumerate(PRESENCE_COLUMNS) if name in header]
    report["unknown_cells"] = int(np.isnan(intensity[good]).sum() + np.isnan(presence[good][:, have]).sum())
    good &= ~np.isnan(intensity).all(axis=1)

    # from here on one row a frame of the whole range
    position = frame - frame[0]
    length = int(position[-1]) + 1
    if length > 1000 * len(frame) + 1000:
        raise InputError(path, "column frame", f"{len(frame)} rows numbered {frame[0]} to {frame[-1]}",
                         "frame numbers of one clip")
    ok = np.zeros(length, bool)
    ok[position] = good
    report["gaps"] = length - len(frame)
    report["contaminated"] = 0
    if mask_neighbours:
        failed = np.flatnonzero(~ok)
        spread = failed[:, None] + np.arange(-mask_neighbours, mask_neighbours + 1)
        spread = spread[(spread >= 0) & (spread < length)]
        report["contaminated"] = int(ok[np.unique(spread)].sum())
        ok[spread] = False
    track = AUTrack(
        intensity=_spread(intensity, position, ok), presence=_spread(presence, position, ok), ok=ok,
        frame=np.arange(frame[0], frame[0] + length, dtype=np.int64),
        timestamp=_timestamps(columns, position, length, report),
        landmarks=_landmarks(columns, position, ok), report=report)
    report["frames"], report["ok"] = length, int(ok.sum())
    return track


# ---------------------------------------------------------------------------------------------------- text to numbers

def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", error.strerror or str(error), "a readable OpenFace CSV") from error
    if not raw.strip():
        raise InputError(path, "file", "no content (an empty file)", "an OpenFace CSV")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise InputError(path, "file", "bytes that are not UTF-8 text", "an OpenFace CSV")
    return text


def _split(path: Path, text: str) -> tuple[list[str], str, list[str], int]:
    """Header names, separator, data lines, and how many truncated last lines were dropped (0 or 1)."""
    lines = [line for line in text.splitlines() if line.strip()]
    counts = {candidate: lines[0].count(candidate) for candidate in (",", ";", "\t")}
    separator = max(counts, key=counts.get)
    header = [name.strip().strip("\"'").strip() for name in lines[0].split(separator)]
    while header and not header[-1]:  # a separator at the end of the header line
        header.pop()
    body, truncated = lines[1:], 0
    for number, line in enumerate(body):
        cells = line.count(separator) + 1
        if cells == len(header) + 1 and line.rstrip(" ").endswith(separator):
            body[number], cells = line.rstrip(" ")[:-1], len(header)
        if cells > len(header):
            raise InputError(path, f"data row {number + 1}", f"{cells} cells", f"{len(header)}, as in the header")
        if cells < len(header):
            if number != len(body) - 1:
                raise InputError(path, f"data row {number + 1}", f"{cells} cells", f"{len(header)}, as in the header")
            truncated = 1  # the program was stopped while writing: only ever the last row
    body = body[:len(body) - truncated]
    repeated = sorted({name for name in header if header.count(name) > 1 and name in _WANTED})
    if repeated:
        raise InputError(path, "header", f"column {repeated[0]} twice", "every column once")
    return header, separator, body, truncated


def _require_openface(path: Path, header: list[str], require_presence: bool) -> None:
    missing = [name for name in INTENSITY_COLUMNS if name not in header]
    if len(missing) == len(INTENSITY_COLUMNS):
        bare = [name for name in header if re.fullmatch(r"AU\d{1,2}", name)]
        if "FaceScore" in header or {"AU11", "AU24", "AU43"} <= set(bare):
            found = "py-feat detector output (AU columns on 0 to 1 without suffix)"
        elif bare:
            found = f"AU columns without suffix ({', '.join(bare[:3])} ...): a derived file whose scale is unknown"
        else:
            found = f"no AU column ({len(header)} columns, the first {header[0]!r})"
        raise InputError(path, "header", found,
                         "OpenFace's own output, with AU01_r ... AU45_r on 0 to 5 (run it with -aus)")
    if missing:
        raise InputError(path, "header", f"no column {', '.join(missing)}", "all 17 AU intensity columns AU*_r")
    absent = [name for name in PRESENCE_COLUMNS if name not in header]
    if require_presence and len(absent) == len(PRESENCE_COLUMNS):
        raise InputError(path, "header", "no AU presence column AU*_c (a derived file)",
                         "AU01_c ... AU45_c, or require_presence=False to leave presence unknown")
    if require_presence and set(absent) - {"AU28_c"}:
        raise InputError(path, "header", f"no column {', '.join(absent)}",
                         "all 18 AU presence columns, or require_presence=False to leave those unknown")


def _parse(path: Path, header: list[str], separator: str, body: list[str]) -> dict[str, np.ndarray]:
    """Wanted columns as float64 (nan-like text is NaN, other text an error), plus "row", the 1-based data row."""
    if not body:
        raise InputError(path, "rows", "none after the header (OpenFace writes that when it finds no face)",
                         "one row a frame")
    wanted = [i for i, name in enumerate(header) if name in _WANTED]
    # decimal commas appear where a spreadsheet re-saved the file, which then cannot use commas between cells
    decimal = "," if separator != "," and any("," in line for line in body[:50]) else "."
    table = pd.read_csv(io.StringIO("\n".join(body)), sep=separator, header=None, index_col=False, usecols=wanted,
                        names=list(range(len(header))), skipinitialspace=True, decimal=decimal,
                        na_values=list(_MISSING_TEXT), low_memory=False, quoting=csv.QUOTE_NONE)
    columns = {"row": np.arange(1, len(table) + 1)}
    for i in wanted:
        cells = table[i]
        if not pd.api.types.is_numeric_dtype(cells):
            stripped = cells.astype("string").str.strip().str.strip("\"'").str.strip()
            empty = (stripped.isna() | stripped.str.lower().isin(_MISSING_TEXT)).to_numpy(bool)
            numbers = pd.to_numeric(stripped.mask(empty), errors="coerce")
            bad = np.flatnonzero(numbers.isna().to_numpy(bool) & ~empty)
            if len(bad):
                raise InputError(path, f"data row {bad[0] + 1}, column {header[i]}", repr(str(cells.iloc[bad[0]])),
                                 "a number")
            cells = numbers
        values = cells.to_numpy(np.float64, na_value=np.nan)
        columns[header[i]] = np.where(np.isfinite(values), values, np.nan)
    return columns


# ------------------------------------------------------------------------------------------- which rows, which frames

def _choose_face(path: Path, columns: dict, face: int | None, report: dict) -> np.ndarray:
    ids = columns.get("face_id", columns.get("face"))
    report["faces"] = [] if ids is None else sorted({int(i) for i in ids[~np.isnan(ids)]})
    if face is None:
        if "frame" not in columns and "timestamp" not in columns and len(report["faces"]) > 1:
            raise InputError(path, "column face", f"several faces ({report['faces']}) and no frame column",
                             "one face a file, or face=... to choose one")
        return np.ones(len(columns["row"]), bool)
    if face not in report["faces"]:
        raise InputError(path, "face", face, f"one of the file's faces {report['faces']}")
    return ids == face


def _frame_numbers(path: Path, columns: dict, report: dict) -> np.ndarray:
    count = len(columns["row"])
    numbered = np.arange(1, count + 1, dtype=np.int64)  # OpenFace counts frames from 1
    report["frame"] = "row number"
    frame = columns.get("frame")
    if frame is None:
        return numbered
    bad = np.flatnonzero(np.isnan(frame) | (frame != np.round(frame)))
    if len(bad):
        raise InputError(path, f"data row {int(columns['row'][bad[0]])}, column frame", frame[bad[0]],
                         "a whole number")
    if count > 1 and len(report["faces"]) < 2 and (frame == frame[0]).all():
        return numbered  # live capture writes the same number in every row
    report["frame"] = "file"
    frame = frame.astype(np.int64)
    values, counts = np.unique(frame, return_counts=True)
    if counts.max() > 1:
        several = len(report["faces"]) > 1
        raise InputError(path, "column frame", f"frame {values[counts.argmax()]} {counts.max()} times"
                         + (f" (faces {report['faces']})" if several else ""),
                         "every frame once" + (", or face=... to choose one face" if several else ""))
    return frame


def _tracked(path: Path, columns: dict, min_confidence: float, report: dict) -> tuple[np.ndarray, np.ndarray]:
    everything = np.ones(len(columns["row"]), bool)
    success, confidence = columns.get("success"), columns.get("confidence")
    if success is not None:
        _check_range(path, ("success",), success[:, None], everything, columns["row"], 0.0, 1.0, whole=True)
    if confidence is not None:
        _check_range(path, ("confidence",), confidence[:, None], everything, columns["row"], 0.0, 1.0)
    tracked = everything if success is None else success == 1  # a missing flag (NaN) is not a success
    confident = everything if confidence is None else confidence >= min_confidence
    report["confidence"] = "absent" if confidence is None else "file"
    report["failed"] = int((~tracked).sum())
    report["low_confidence"] = int((tracked & ~confident).sum())
    return tracked, confident


def _check_range(path, names, values, rows_used, row_numbers, low, high, whole=False) -> None:
    wrong = (values < low - 1e-6) | (values > high + 1e-6)
    if whole:
        wrong |= (values != np.round(values)) & ~np.isnan(values)
    wrong &= rows_used[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(path, f"data row {int(row_numbers[row])}, column {names[column]}",
                         f"{values[row, column]:g}",
                         f"{low:g} or {high:g}" if whole else f"a number from {low:g} to {high:g}")


def _scaled(path, intensity, scale, good, looks_raw) -> np.ndarray:
    """Apply ``scale``; without one, refuse intensities that were evidently divided by five."""
    if scale is not None:
        return intensity * scale
    seen = intensity[good]
    seen = seen[~np.isnan(seen)]
    if len(seen) and seen.max() > 0 and seen.max() <= 1.0:
        # OpenFace 2 writes multiples of 0.01; a fifth of one is a multiple of 0.002. A calm face may stay below 1, so
        # the range alone is no evidence in a file that is otherwise as OpenFace writes it.
        def on_lattice(step):
            return np.abs(seen / step - np.round(seen / step)).max() < 1e-4

        if not on_lattice(0.01) and (not looks_raw or on_lattice(0.002)):
            raise InputError(path, "columns AU*_r", f"intensities of at most {seen.max():g}, not in steps of 0.01 "
                             "(a derived file, rescaled to 0 to 1)",
                             "OpenFace's 0 to 5; scale=5 undoes a division by 5, scale=1 takes them as they are")
    return intensity


# ----------------------------------------------------------------------------------------------------- rows to frames

def _spread(values: np.ndarray, position: np.ndarray, ok: np.ndarray) -> np.ndarray:
    result = np.full((len(ok), *values.shape[1:]), np.nan, np.float32)
    result[position] = values
    result[~ok] = np.nan
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


def _landmarks(columns: dict, position: np.ndarray, ok: np.ndarray) -> np.ndarray | None:
    if any(name not in columns for name in _LANDMARK_COLUMNS):
        return None
    flat = np.stack([columns[name] for name in _LANDMARK_COLUMNS], axis=1)
    return _spread(flat.reshape(-1, 2, 68).transpose(0, 2, 1), position, ok)


# ------------------------------------------------------------------------------------------------------- command line

def extraction_command(source, out_dir, name: str, *, executable: str = "FeatureExtraction", static: bool = False,
                       landmarks: bool = True) -> list[str]:
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
        by_number = sorted(images, key=lambda image: [int(n) for n in re.findall(r"\d+", image)])
        if by_number != images:
            raise InputError(source, "frame names", f"{images[0]} ... read before {images[1]}",
                             "numbers padded with zeros: OpenFace reads names in string order")
    command = [executable, "-fdir" if source.is_dir() else "-f", str(source), "-out_dir", str(out_dir), "-of", name,
               "-aus", "-pose", "-q"]
    return command + ["-2Dfp"] * landmarks + ["-au_static"] * static
