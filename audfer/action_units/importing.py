"""Folders of OpenFace CSVs, thousands of them, into one AU table.

The files are read in chunks by several processes; each chunk is a part file, written whole or not at all beside the
table, so that a killed import goes on from what is finished. The parts are joined in the order of the clips. A file
that cannot be read is listed with its reason in ``<table>_quarantine.csv`` and the rest goes on;
``<table>_files.csv`` holds the counts of every file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..datasets.alignment import track_names
from ..datasets.manifest import frame_numbers
from ..errors import AudferError, InputError, legible
from ..files import UNREADABLE, atomic_file, digest, files_below, locked, remove_tree
from ..jobs.workers import each
from ..openface import SMOOTHING_RADII, SUCCESS_BOUNDARY, AUTrack, check_choices, read_details, read_openface
from ..plugins import versions
from ..progress import progress
from .clips import Clip
from .table import AUTable, openface_files, table_writer, to_arrow, write_lists

#: a chunk ends at so many files or bytes: what one process holds at a time stays small whatever the files are like
_CHUNK_FILES, _CHUNK_BYTES = 128, 96_000_000
#: from so many known frames of so many clips on, "no intensity above 1" is a property of the folder, not of the faces
_SCALE_FRAMES, _SCALE_CLIPS = 2_000, 20
SCALES = {"0-5": 1.0, "0-1": 5.0}
MODES = ("calibrated", "static", "unknown")
#: counts of ``read_openface``'s report that are kept for every file
COUNTS = ("rows", "frames", "ok", "failed", "low_confidence", "gaps", "contaminated", "unknown_cells", "truncated_rows")
_FILE_COLUMNS = [
    "file",
    "status",
    "reason",
    "clips",
    *COUNTS,
    "faces",
    "face",
    "hand_overs",
    "left_out",
    "version",
    "mode",
]
_FILE_COLUMNS += ["max_intensity", "source", "clip_frames", "matched", "partly", "without"]
_WHOLE = ["clips", *COUNTS, "faces", "hand_overs", "left_out", "clip_frames", "partly", "without"]
#: a larger share of a dataset's clips without action units is an error
MOST_WITHOUT = 0.75


class FilesRefused(AudferError):
    """Some files were refused and the others read: the command line exits with 1."""

    exit_code = 1


@dataclass(frozen=True)
class ImportOptions:
    """How files are read; recorded in the table.

    Attributes:
        min_confidence, mask_neighbours, face, require_presence, scale: as in ``read_openface``.
        version: of OpenFace, where it is known; "" takes what the columns tell.
        mode: "calibrated" (OpenFace's default for video), "static" (``-au_static``) or "unknown".
    """

    min_confidence: float = SUCCESS_BOUNDARY
    mask_neighbours: tuple[int, int] = SMOOTHING_RADII
    face: int | str = "longest"
    require_presence: bool = True
    scale: float | None = None
    version: str = ""
    mode: str = "unknown"

    def __post_init__(self):
        check_choices("options", self.min_confidence, self.face, self.mask_neighbours, self.scale)
        if self.mode not in MODES:
            raise InputError("options", "mode", repr(self.mode), f"one of {', '.join(MODES)}")


def read_clip_file(path, options: ImportOptions) -> AUTrack:
    """One file as the options say; its report also names version, mode and, where OpenFace noted it, the source.

    Raises:
        InputError: as ``read_openface``.
    """
    given = {name: value for name, value in asdict(options).items() if name not in ("version", "mode")}
    track = read_openface(path, **given, landmarks=False)
    details = read_details(path)
    track.report["source"] = details.get("input", "")
    track.report["version"] = options.version or details.get("version", track.report["version"])
    track.report["mode"] = options.mode
    return track


# -------------------------------------------------------------------------------------------------------- the import


def import_folder(
    folder, out, options: ImportOptions | None = None, *, manifest=None, workers: int | None = None
) -> pd.DataFrame:
    """All OpenFace files below a folder into one AU table.

    Args:
        folder: its .csv and .txt files are read, sub-folders too; ``labels.csv`` and OpenFace's own notes are not.
            A clip is named by the file's path without its ending, and keeps OpenFace's frame numbers.
        out: the table to write (.parquet). ``<out>_files.csv`` (counts of every file) is written beside it, and
            ``<out>_quarantine.csv`` (file, reason) where files were refused.
        options: how to read; default ``ImportOptions()``.
        manifest: name clips and number frames (from 0) as this dataset does: ``<clip_id>.csv``, slashes of the id as
            folders or underscores; one file per video for Aff-Wild2, cut to the frames of each window. Files of no clip
            are left alone; clips without a file are not in the table. Rows are matched with frames by
            ``Clip.rows_of_frames``, and files refused that are not the clip's.
        workers: processes; default one per core.

    Returns:
        One row per file, in the table's order: file, status ("read", "refused"), reason, clips, the counts of
        ``COUNTS``, faces (in the file), face (the numbers kept), hand_overs and left_out (as in ``read_openface``;
        hand_overs is missing where faces can't be followed), version, mode, max_intensity, source
        (what OpenFace was given, where it noted it). With a manifest also clip_frames (pictures or frames of the
        clip), matched (how rows and frames were), partly and without (clips of which some frames have no row, none is
        known). Missing values for refused files. ``attrs["coverage"]``, which the table keeps, too, counts the
        manifest's clips: with, partly, without, refused.

    Raises:
        InputError: no such folder, no file in it, every file refused, or intensities that never exceed 1 in the whole
            folder (rescaled to 0 to 1) without a stated scale.
    """
    folder, out, options = Path(folder), Path(out), options or ImportOptions()
    if not folder.is_dir():
        raise InputError(folder, "folder of OpenFace CSVs", "no such folder", "a folder with one CSV per clip")
    jobs, twice = _jobs(folder, manifest)
    parts = out.with_name(f".{out.stem}.parts")
    with locked(parts, "unfinished import", "with another output"):
        clips = None if manifest is None else manifest.fingerprint()
        common = {"options": asdict(options), "code": versions("import"), "manifest": clips}
        paths, todo = [], []
        for number, chunk in enumerate(_chunks(folder, jobs)):
            key = digest({**common, "files": [_stamp(folder / name, rows) for name, rows in chunk]})
            paths.append(parts / f"{number:05d}-{key}.parquet")
            if not paths[-1].is_file():
                todo.append((chunk, paths[-1]))
        tasks = ((folder, chunk, options, _part_of(manifest, chunk), path) for chunk, path in todo)
        workers = min(workers or os.cpu_count() or 1, max(len(todo), 1))
        with progress(total=sum(len(chunk) for chunk, _ in todo), desc="import", unit="file") as bar:
            for count in each(_import_chunk, tasks, workers):
                bar.update(count)
        files = pd.DataFrame([report for path in paths for report in _reports(path)] + twice, columns=_FILE_COLUMNS)
        files = files.astype(dict.fromkeys(_WHOLE, "Int64"))
        refused = files[files["status"] == "refused"]
        write_lists(out, "files", files, refused[["file", "reason"]])
        if len(refused) == len(files):
            problem = f"all {len(files)} refused, the first: {refused['reason'].iloc[0]}"
            raise InputError(folder, "OpenFace CSVs", problem, "OpenFace's own output")
        _require_scale(folder, files, options)
        about = {"import": asdict(options), "files": len(files), "refused": len(refused)}
        if manifest is not None:
            used = [row for _, rows in jobs for row in rows]
            counts = (int(files[name].sum()) for name in ("partly", "without"))
            lost = sum(len(rows) for name, rows in jobs if name in set(refused["file"]))
            absent = manifest.table["clip_id"].drop(manifest.table.index[used])
            about["coverage"] = files.attrs["coverage"] = _coverage(manifest, absent, *counts, lost)
        with table_writer(out, json.dumps(about, sort_keys=True)) as write:
            for path in paths:
                write(parquet.read_table(path))
    remove_tree(parts, parts.parent)
    return files


def _coverage(manifest, absent: pd.Series, partly: int = 0, without: int = 0, refused: int = 0) -> dict:
    """Clips of a manifest by whether they have action units; ``absent``: the ids of those without a file."""
    clips, without = len(manifest.table), without + len(absent)
    return {
        "dataset": manifest.name,
        "clips": clips,
        "with": clips - partly - without - refused,
        "partly": partly,
        "without": without,
        "refused": refused,
        "no_file": f"{len(absent)} without a file" + "".join(f", the first {clip}" for clip in absent[:1]),
    }


def table_coverage(manifest, table: AUTable) -> dict:
    """``_coverage`` of a finished table; frames of clips in it are counted on disk."""
    clips, by_clip = manifest.table["clip_id"], table.frames.groupby("clip_id", sort=False)["ok"]
    known, rows = by_clip.any(), by_clip.size()
    kept = manifest.table[clips.isin(known.index[known])].itertuples(index=False)
    partly = 0
    for row in kept:
        with suppress(InputError):  # a clip that cannot be read is the packing's to name
            partly += bool(rows[row.clip_id] < len(frame_numbers(manifest, row)))
    absent = clips[~clips.isin(known.index)]
    refused = min(table.about.get("coverage", {}).get("refused", 0), len(absent))
    return _coverage(manifest, absent, partly, int((~known).sum()) - refused, refused)


def coverage_words(about: dict) -> str:
    """A table's ``coverage`` in words."""
    said = "{with} of {clips} clips of {dataset} with action units, {partly} partly, {without} without ({no_file}), "
    return (said + "{refused} refused").format(**about)


def say_coverage(where, about: dict, file=None) -> None:
    """Print how many of a dataset's clips have action units (``about["coverage"]`` of their table).

    Raises:
        InputError: more than ``MOST_WITHOUT`` of the clips have none.
    """
    said = coverage_words(about)
    print(f"{where}: {said}", file=file)
    if about["without"] > MOST_WITHOUT * about["clips"]:
        raise InputError(where, "clips", said, f"at most {MOST_WITHOUT:.0%} of them without")


def import_openface(manifest, folder, min_confidence: float | None = None) -> AUTable:
    """The AU table of a manifest from OpenFace's CSVs, or from the table that was made of them.

    Args:
        manifest: names the clips and numbers their frames (``import_folder``).
        folder: holds the CSVs. ``<folder>.parquet`` beside it, made by ``audfer au import`` or ``audfer au extract``
            for this dataset, is taken instead where it is there. Clips without a file, and frames that a file lacks,
            are left out: their AU labels are unknown, not "all active".
        min_confidence: as in ``read_openface``; ``None`` takes its default.

    Raises:
        InputError: the folder is missing, or holds no file for any clip.
        FilesRefused: a file could not be read; ``audfer au import`` lists them and goes on.
    """
    folder = Path(folder)
    ready = folder.with_name(f"{folder.name}.parquet")
    if ready.is_file():
        whole = AUTable.load(ready)
        frames = whole.frames
        newer = [path for path in files_below(folder) if _state(path)[1] > ready.stat().st_mtime_ns]
        if newer := list(openface_files(newer)):
            found = f"a table older than {len(newer)} of the CSVs in {folder}, for example {newer[0].name}"
            expected = "one made of them: run audfer au import again, or delete the table and the CSVs are read"
            raise InputError(ready, "time of change", found, expected)
        frames = frames[frames["clip_id"].isin(set(manifest.table["clip_id"]))]
        if frames.empty:
            raise InputError(ready, "clips", f"none of {manifest.name}'s", f"an AU table of {manifest.name}")
        table = AUTable(frames.reset_index(drop=True), whole.about)
        table.about["coverage"] = table_coverage(manifest, table)
        say_coverage(ready, table.about["coverage"], sys.stderr)
        return table
    options = ImportOptions() if min_confidence is None else ImportOptions(min_confidence=min_confidence)
    with tempfile.TemporaryDirectory(prefix="audfer_import_") as temporary:
        table = Path(temporary) / "table.parquet"
        files = import_folder(folder, table, options, manifest=manifest)
        refused = files[files["status"] == "refused"]
        if len(refused):
            raise FilesRefused(
                f"{folder}: {len(refused)} of {len(files)} OpenFace CSVs cannot be read, the first: "
                f"{refused['reason'].iloc[0]} (mend or remove them, or let audfer au import list them, go "
                f"on, and write {ready})"
            )
        say_coverage(folder, files.attrs["coverage"], sys.stderr)
        return AUTable.load(table)


def _require_scale(folder: Path, files: pd.DataFrame, options: ImportOptions) -> None:
    """Refuse a folder in which no intensity exceeds 1: a single calm face may stay below, a folder of them does not."""
    read = files[files["status"] == "read"]
    if (
        options.scale is None
        and len(read) >= _SCALE_CLIPS
        and read["ok"].sum() >= _SCALE_FRAMES
        and 0 < read["max_intensity"].max() <= 1.0
    ):
        raise InputError(
            folder,
            "columns AU*_r",
            f"no intensity above {read['max_intensity'].max():g} in "
            f"{int(read['ok'].sum())} frames of {len(read)} files (rescaled to 0 to 1)",
            "OpenFace's 0 to 5, or a stated scale: --intensity-scale 0-1 (times 5) or 0-5 (as they are)",
        )


# ------------------------------------------------------------------------------------------------- which files, chunks


def _jobs(folder: Path, manifest) -> tuple[list[tuple[str, list[int] | None]], list[dict]]:
    """(file relative to the folder, rows of the manifest or ``None``) in table order, and refused files."""
    by_name: dict[str, list[str]] = {}
    for path in openface_files(files_below(folder)):
        name = path.relative_to(folder).as_posix()
        by_name.setdefault(name[: name.rindex(".")], []).append(name)
    if manifest is None:
        if not by_name:
            raise InputError(folder, "files", "no .csv or .txt file", "OpenFace's CSVs, one per clip")
        named = [sorted(paths) for _, paths in sorted(by_name.items())]
        reason = "{}: file name: found the clip name of {}, expected every clip once"
        twice = [
            {"file": other, "status": "refused", "clips": 0, "reason": reason.format(folder / other, first)}
            for first, *others in named
            for other in others
        ]
        return [(first, None) for first, *_ in named], twice
    rows: dict[str, list[int]] = {}
    for row, clip_id in enumerate(manifest.table["clip_id"]):
        name = next((name for name in track_names(clip_id) if name in by_name), None)
        if name is not None:
            rows.setdefault(min(by_name[name]), []).append(row)
    if not rows:
        example = f"for example {manifest.table['clip_id'].iloc[0].split(':')[0]}.csv"
        raise InputError(folder, "clips", "no CSV whose name is a clip's", example)
    return list(rows.items()), []


def _chunks(folder: Path, jobs: list) -> list[list]:
    chunks, size = [[]], 0
    for job in jobs:
        size += _state(folder / job[0])[0]
        if chunks[-1] and (len(chunks[-1]) >= _CHUNK_FILES or size > _CHUNK_BYTES):
            chunks.append([])
            size = 0
        chunks[-1].append(job)
    return chunks


def _stamp(path: Path, rows: list[int] | None) -> list:
    """What the part of a file depends on."""
    return [str(path), *_state(path), rows]


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change; zeros for a link that leads nowhere, which is refused when it is read."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


# ------------------------------------------------------------------------------------------------------------- chunks


def _part_of(manifest, chunk: list):
    """The manifest's rows of one chunk, under their own numbers.

    Not all of it goes to every process with every chunk.
    """
    if manifest is None:
        return None
    small = replace(manifest, table=manifest.table)
    small.table = manifest.table.loc[[row for _, rows in chunk for row in rows]]
    return small


def _import_chunk(task: tuple) -> int:
    """Read a chunk's files and write its part: the rows, and the reports of the files in the metadata."""
    folder, chunk, options, manifest, out = task
    tracks: dict[str, AUTrack] = {}
    reports = []
    for name, rows in chunk:
        report = {"file": legible(name), "status": "read", "reason": ""}
        try:
            if report["file"] != name:  # tables are UTF-8
                raise InputError(folder / name, "name", "bytes that are no UTF-8", "a UTF-8 name (convmv renames)")
            track = read_clip_file(folder / name, options)
            clips, about_clips = _clips(name, track, manifest, rows)
        except AudferError as error:
            reports.append({**report, "status": "refused", "clips": 0, "reason": str(error)})
            continue
        tracks.update(clips)
        about, known = track.report, track.intensity[~np.isnan(track.intensity)]
        reports.append(
            {
                **report,
                "clips": len(clips),
                **{key: about[key] for key in (*COUNTS, "version", "mode", "source")},
                "faces": len(about["faces"]),
                "face": " ".join(map(str, about["face"])),
                "hand_overs": about.get("hand_overs", 0),
                "left_out": about.get("left_out", 0),
                "max_intensity": round(float(known.max()), 4) if len(known) else 0.0,
                **about_clips,
            }
        )
    table = to_arrow(AUTable.from_tracks(tracks).frames)
    with atomic_file(out) as temporary:
        parquet.write_table(table.replace_schema_metadata({"files": json.dumps(reports)}), temporary)
    return len(chunk)


def _clips(name: str, track: AUTrack, manifest, rows: list[int] | None) -> tuple[dict[str, AUTrack], dict]:
    """A file's clips, and how their rows and frames were matched."""
    if manifest is None:
        return {name[: name.rindex(".")]: track}, {}
    clip = Clip(manifest.name, manifest.root, tuple(manifest.table.loc[rows].to_dict("records")))
    if track.frame[0] == 0:  # OpenFace counts from 1
        track.frame += 1
    places, how = clip.rows_of_frames(track)
    clips = clip.cut(track, places)
    known = {clip_id: bool(part.ok.any()) for clip_id, part in clips.items()}
    whole = {row.clip_id: len(frame_numbers(manifest, row)) for row in clip.manifest().table.itertuples(index=False)}
    partly = sum(known[clip_id] and len(part) < whole[clip_id] for clip_id, part in clips.items())
    without = len(known) - sum(known.values())
    return clips, {"clip_frames": len(places), "matched": how, "partly": partly, "without": without}


def _reports(part: Path) -> list[dict]:
    try:
        return json.loads(parquet.read_schema(part).metadata[b"files"])
    except (*UNREADABLE, pa.ArrowException) as error:
        raise AudferError(
            f"{part}: not a part of an import ({error}); delete it and run the same command again"
        ) from error
