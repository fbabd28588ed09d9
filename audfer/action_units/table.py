"""The AU table: one row per frame, the same columns whoever measured the action units.

Columns: ``clip_id`` (str), ``frame`` (int), 17 intensities ``AU01_r`` ... (float32, 0 to 5), 18 presences ``AU01_c``
... (float32, 0 or 1), ``ok`` (bool: the face was seen). NaN means unknown; a zero means that the AU was looked for
and not found. Four more columns say where a row comes from: ``tool``, ``version``, ``mode`` and ``threshold`` (the
confidence below which frames count as unknown; NaN where the tool gives none).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..errors import AudferError, InputError, refuse
from ..facs import EXPRESSIONS
from ..files import atomic_file, for_spreadsheets, read_csv
from ..openface import DETAILS, INTENSITY_COLUMNS, PRESENCE_COLUMNS, AUTrack, read_openface
from ..progress import progress

COLUMNS: tuple[str, ...] = ("clip_id", "frame", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS, "ok")
#: what made a clip's rows, and what stands there where nobody said
PROVENANCE: dict[str, object] = {"tool": "unknown", "version": "unknown", "mode": "unknown", "threshold": float("nan")}
#: rows a parquet row group has at least, so that a table of many clips is read in large pieces
_GROUP_ROWS = 65_536

#: words for an expression in a labels file; -1 = a known state outside the seven
EXPRESSION_WORDS: dict[str, int] = {
    **{name: index for index, name in enumerate(EXPRESSIONS)},
    **dict.fromkeys(("happiness", "joy"), EXPRESSIONS.index("happy")),
    "sadness": EXPRESSIONS.index("sad"),
    "anger": EXPRESSIONS.index("angry"),
    "surprised": EXPRESSIONS.index("surprise"),
    "disgusted": EXPRESSIONS.index("disgust"),
    "fearful": EXPRESSIONS.index("fear"),
    **dict.fromkeys(("calm", "contempt", "anxiety", "helplessness", "disappointment", "other", "none"), -1),
}


@dataclass(frozen=True)
class AUTable:
    """Action units of many clips.

    Attributes:
        frames: the DataFrame described at the top of this module; rows of a clip are together and in order.
        about: what is kept with the table in its file: options, and as ``coverage`` how many clips it knows.

    Raises:
        InputError: columns are missing, or a clip's rows are scattered or out of order.
    """

    frames: pd.DataFrame
    about: dict = field(default_factory=dict)

    def __post_init__(self):
        missing = [name for name in COLUMNS if name not in self.frames]
        if missing:
            raise InputError("AU table", "columns", f"no {', '.join(missing)}", "all columns of an AU table")
        clip, frame = self.frames["clip_id"].to_numpy(), self.frames["frame"].to_numpy()
        names = pd.Series(clip[_spans(clip)[0]])
        if names.duplicated().any():
            twice = names[names.duplicated()].iloc[0]
            raise InputError("AU table", "rows", f"clip {twice} in several places", "a clip's rows together")
        for row in np.flatnonzero((np.diff(frame) <= 0) & (clip[1:] == clip[:-1]))[:1]:
            expected = "rising frame numbers"
            raise InputError(
                "AU table", f"frames of clip {clip[row]}", f"{frame[row + 1]} after {frame[row]}", expected
            )

    @classmethod
    def from_tracks(cls, tracks: Mapping[str, AUTrack]) -> AUTable:
        """A table from clip_id -> track, in the mapping's order."""
        lengths = [len(track) for track in tracks.values()]
        if not sum(lengths):
            return cls(schema().empty_table().to_pandas()[list(COLUMNS)])
        values = np.concatenate([np.hstack((track.intensity, track.presence)) for track in tracks.values()])
        table = pd.DataFrame(values.astype(np.float32, copy=False), columns=[*INTENSITY_COLUMNS, *PRESENCE_COLUMNS])
        table.insert(0, "clip_id", np.repeat(np.array(list(tracks), dtype=object), lengths).astype(str))
        table.insert(1, "frame", np.concatenate([track.frame for track in tracks.values()]))
        table["ok"] = np.concatenate([track.ok for track in tracks.values()])
        for name, unknown in PROVENANCE.items():
            said = pd.Series([track.report.get(name, unknown) for track in tracks.values()])
            said = said.astype(np.float32 if name == "threshold" else "category")
            table[name] = said.repeat(lengths).array
        return cls(table)

    def provenance(self) -> pd.DataFrame:
        """One row per clip: ``tool``, ``version``, ``mode``, ``threshold``.

        "unknown" (NaN) where the table does not say.
        """
        first = _with_provenance(self.frames).drop_duplicates("clip_id").set_index("clip_id")[list(PROVENANCE)]
        return first.astype({name: "str" for name in PROVENANCE if name != "threshold"})

    def clip_ids(self) -> list[str]:
        """The clips in the order of the table."""
        return list(self.frames["clip_id"].unique())

    def clip(self, clip_id: str) -> AUTrack:
        """One clip as an ``AUTrack`` (timestamps and landmarks are not kept in the table: NaN and ``None``).

        Raises:
            InputError: the table has no such clip.
        """
        rows = self.frames[self.frames["clip_id"] == clip_id]
        if rows.empty:
            raise InputError("AU table", "clip_id", repr(clip_id), f"one of its {len(self.clip_ids())} clips")
        return AUTrack(
            intensity=rows[list(INTENSITY_COLUMNS)].to_numpy(np.float32),
            presence=rows[list(PRESENCE_COLUMNS)].to_numpy(np.float32),
            ok=rows["ok"].to_numpy(bool),
            frame=rows["frame"].to_numpy(np.int64),
            timestamp=np.full(len(rows), np.nan),
        )

    def labelled(self, dataset: str, expressions: Mapping[str, int]) -> pd.DataFrame:
        """The frames with ``dataset`` and ``expression`` columns, as ``KnowledgeMatrix.from_frames`` takes them.

        Args:
            dataset: name written in every row.
            expressions: clip_id -> index in ``EXPRESSIONS``, or -1. A mapping or a Series indexed by clip_id.

        Raises:
            InputError: a clip of the table has no label.
        """
        expression = self.frames["clip_id"].map(dict(expressions))
        if expression.isna().any():
            unlabelled = self.frames["clip_id"][expression.isna()].iloc[0]
            raise InputError("AU table", "labels", f"none for clip {unlabelled}", "an expression for every clip")
        return self.frames.assign(dataset=dataset, expression=expression.astype(np.int64))

    def save(self, path) -> None:
        """Write as parquet, whole or not at all."""
        with table_writer(path, json.dumps(self.about, sort_keys=True) if self.about else "") as write:
            write(to_arrow(self.frames))

    @classmethod
    def load(cls, path) -> AUTable:
        """Read what ``save`` or ``table_writer`` wrote.

        Raises:
            InputError: no such file, or not an AU table.
        """
        path = Path(path)
        try:
            table = parquet.read_table(path, read_dictionary=[n for n in PROVENANCE if n != "threshold"])
            about = json.loads((table.schema.metadata or {}).get(b"audfer", b"{}"))
        except Exception as error:  # pyarrow has no common base for "missing", "truncated" and "not parquet"
            raise InputError(path, "file", str(error).splitlines()[0], "an AU table in parquet") from error
        return cls(table.to_pandas(), about)


def schema() -> pa.Schema:
    """The columns of a stored AU table."""
    kinds = {"clip_id": pa.string(), "frame": pa.int64(), "ok": pa.bool_()}
    return pa.schema(
        [(name, kinds.get(name, pa.float32())) for name in COLUMNS]
        + [(name, pa.float32() if name == "threshold" else pa.string()) for name in PROVENANCE]
    )


def _with_provenance(frames: pd.DataFrame) -> pd.DataFrame:
    return frames.assign(**{name: unknown for name, unknown in PROVENANCE.items() if name not in frames})


def to_arrow(frames: pd.DataFrame) -> pa.Table:
    """Frames of an ``AUTable`` as they are stored."""
    table = pa.Table.from_pandas(_with_provenance(frames)[schema().names], preserve_index=False)
    return table.cast(schema()).combine_chunks().replace_schema_metadata(None)


@contextmanager
def table_writer(path, about: str = "") -> Iterator[Callable[[pa.Table], None]]:
    """Write an AU table piece by piece: the file is there when the ``with`` block ends well, and not before.

    Args:
        path: the parquet file.
        about: JSON text kept in the file's metadata under ``audfer`` (the options of an import or an extraction).

    Yields:
        A function that appends an arrow table with the columns of ``schema()``: whole clips, in the table's order.

    Example:
        with table_writer("au.parquet") as write:
            for piece in pieces:
                write(piece)
    """
    waiting: list[pa.Table] = []
    kinds = schema().with_metadata({"audfer": about} if about else None)
    with atomic_file(path) as temporary, parquet.ParquetWriter(temporary, kinds, compression="zstd") as writer:

        def flush() -> None:
            group = pa.concat_tables(waiting).combine_chunks()
            writer.write_table(group.replace_schema_metadata(kinds.metadata), row_group_size=max(len(group), 1))
            waiting.clear()

        def write(piece: pa.Table) -> None:
            waiting.append(piece.select(kinds.names).replace_schema_metadata(None))
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                flush()

        yield write
        if waiting:
            flush()


def write_lists(out: Path, kind: str, every: pd.DataFrame, refused: pd.DataFrame) -> None:
    """``<out>_<kind>.csv`` beside an AU table, and where something was refused ``<out>_quarantine.csv``."""
    for name, rows in ((kind, every), ("quarantine", refused)):
        path = out.with_name(f"{out.stem}_{name}.csv")
        if rows.empty:
            path.unlink(missing_ok=True)
        else:
            with atomic_file(path) as temporary:
                for_spreadsheets(rows).to_csv(temporary, index=False)


def _spans(clip) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last row of each run of equal values."""
    clip = np.asarray(clip)
    if not len(clip):
        return np.zeros(0, int), np.zeros(0, int)
    starts = np.concatenate([[0], np.flatnonzero(clip[1:] != clip[:-1]) + 1])
    return starts, np.append(starts[1:], len(clip))


def clip_presence(table: AUTable, clip_ids: Iterable[str], unknown: str = "ignored") -> np.ndarray:
    """Eq. 4 for many clips.

    Args:
        table: where the presences are.
        clip_ids: the clips wanted, in the order wanted. A clip that the table does not hold is unknown.
        unknown: as in ``losses.clip_au_labels``.

    Returns:
        (N, 18) float32: 1, 0, or NaN where the clip has no known frame.
    """
    from ..losses import clip_au_labels  # here, because it brings torch, which importing tables does without

    presence = table.frames[list(PRESENCE_COLUMNS)].to_numpy(np.float32)
    names = table.frames["clip_id"].to_numpy()
    starts, stops = _spans(names)
    labels = {names[a]: clip_au_labels(presence[a:b], unknown) for a, b in zip(starts, stops, strict=True)}
    nothing = np.full(len(PRESENCE_COLUMNS), np.nan, np.float32)
    rows = [labels.get(clip_id, nothing) for clip_id in clip_ids]
    return np.stack(rows) if rows else np.zeros((0, len(PRESENCE_COLUMNS)), np.float32)


# --------------------------------------------------------------------------------------------------- OpenFace folders


def openface_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Those that may be OpenFace's CSVs, by their names: no labels, hidden files, notes, lists of ours."""
    for path in paths:
        name, kind = path.name, path.stem.rpartition("_")
        beside = (name == "labels.csv", name.startswith("."), name.endswith(DETAILS))
        ours = kind[2] in ("files", "clips", "quarantine") and path.with_name(f"{kind[0]}.parquet").is_file()
        if path.suffix.lower() in (".csv", ".txt") and not any(beside) and not ours:
            yield path


def table_from_openface_folder(folder, **options) -> tuple[AUTable, pd.DataFrame]:
    """Read a folder of OpenFace files and its labels, or the AU table that ``audfer au import`` made of it.

    The folder holds ``labels.csv`` with the columns ``file`` and ``expression`` (a word such as "happy", "happiness",
    "anger", in any capitals; "calm", "contempt", "other" ... are known and lie outside the seven), and the files
    themselves in ``clips/`` or beside labels.csv (.csv or .txt). Further columns of labels.csv are kept. A folder of
    files named as RAVDESS names its trials needs no labels.csv: the names say expression, actor and channel.

    A file that cannot be read is left out and named on standard error.

    Args:
        folder: the folder; or ``<folder>.parquet``, whose labels.csv lies in that folder or beside the table.
        **options: for ``read_openface`` (min_confidence, require_presence, scale, face ...), the same for every file.
            Of several faces the longest seen is taken unless ``face`` says another.

    Returns:
        The table (clip_id = file name without its ending), and labels: one row per clip with ``clip_id``,
        ``expression`` (index in ``EXPRESSIONS``, -1 outside the seven) and the further columns.
        ``table.labelled("RAVDESS", labels.set_index("clip_id")["expression"])`` joins the two. ``labels.attrs`` has
        under "refused" the files that could not be read, with the reasons.

    Raises:
        InputError: no folder, no labels.csv, a missing column, an unknown word, a label without its file or a file
            without its label; every file is one that ``read_openface`` refuses. Labels are looked at before any file.
    """
    folder = Path(folder)
    made = folder.suffix == ".parquet"
    if not made and not folder.is_dir():
        expected = "a folder with OpenFace's CSVs and a labels.csv, or the .parquet that audfer au import made of it"
        raise InputError(folder, "folder of OpenFace files", "no such folder", expected)
    home = folder.with_suffix("") if made and folder.with_suffix("").is_dir() else folder.parent if made else folder
    label_file, ready = home / "labels.csv", AUTable.load(folder) if made else None
    place = home / "clips" if (home / "clips").is_dir() else home
    if ready is None:
        files = {path.name: path for path in sorted(openface_files(place.iterdir()))}
    else:  # named as the files were below the folder that was imported
        files = {f"{clip.removeprefix('clips/')}.csv": clip for clip in ready.clip_ids()}
    labels = _read_labels(label_file) if label_file.is_file() else _ravdess_labels(label_file, list(files))
    refused: dict[str, str] = {}
    if ready is not None:
        labels["file"] = labels["file"].str.strip().str.replace(r"\.(csv|txt)$", "", case=False, regex=True) + ".csv"
        refused = {name: f"not in {folder}" for name in labels["file"] if name not in files}
        labels = labels[~labels["file"].isin(refused)].reset_index(drop=True)
    named, words = labels.pop("file").str.strip(), labels["expression"].str.strip().str.lower()
    refuse(label_file, _label_checks(named, labels["expression"], words, files, folder if made else place))
    labels["expression"] = words.map(EXPRESSION_WORDS).astype(np.int64)
    labels.insert(0, "clip_id", [Path(name).with_suffix("").as_posix() for name in named])
    if labels["clip_id"].duplicated().any():
        raise AudferError(f"{place}: two files differ only in their ending; a clip is named by the rest: rename one")
    if ready is not None:
        names = {clip: name.removesuffix(".csv") for name, clip in files.items()}
        table = AUTable(ready.frames.assign(clip_id=ready.frames["clip_id"].map(names).astype(str)), ready.about)
    else:
        options, tracks = {"landmarks": False, "face": "longest", **options}, {}  # the table keeps no landmarks
        every = progress(list(zip(labels["clip_id"], named, strict=True)), desc=f"OpenFace {folder.name}", unit="file")
        for clip_id, name in every:
            try:
                tracks[clip_id] = read_openface(files[name], **options)
            except InputError as error:
                refused[name] = str(error)
        if not tracks:
            found = f"none of {len(refused)} can be read (the first: {next(iter(refused.values()))})"
            raise InputError(place, "OpenFace CSVs", found, "OpenFace's own output")
        table = AUTable.from_tracks(tracks)
        labels = labels[labels["clip_id"].isin(tracks)].reset_index(drop=True)
    if refused:
        first = next(iter(refused.values()))
        print(f"{folder}: {len(refused)} labelled files left out, the first: {first}", file=sys.stderr)
    labels.attrs["refused"] = refused
    return table, labels


def _label_checks(named: pd.Series, given: pd.Series, words: pd.Series, files: dict, place: Path) -> Iterator[tuple]:
    for row, name in enumerate(named):
        line = f"row {row + 1}, column"
        yield name not in files, f"{line} file", repr(name), f"a file in {place}"
        expected = f"one of {', '.join(EXPRESSION_WORDS)}"
        yield words[row] not in EXPRESSION_WORDS, f"{line} expression", repr(given[row]), expected
    for name in named[named.duplicated()]:
        yield True, "column file", f"{name} twice", "every file once"
    if unlabelled := [name for name in files if name not in set(named)]:
        problem = f"no row for {unlabelled[0]} (and {len(unlabelled) - 1} more)"
        yield True, "column file", problem, f"a label for every file in {place}"
    yield named.empty, "rows", "none", "one row per clip"


def _read_labels(path: Path) -> pd.DataFrame:
    try:
        labels = read_csv(path, dtype=str, keep_default_na=False, na_values=[""], skipinitialspace=True).fillna("")
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a comma-separated table") from error
    labels.columns = labels.columns.str.strip()
    columns = ", ".join(labels.columns)
    refuse(path, [(name not in labels, "columns", columns, f"a column {name}") for name in ("file", "expression")])
    return labels


def _ravdess_labels(path: Path, names: list[str]) -> pd.DataFrame:
    """What labels.csv would hold, from file names; ``path`` is where it was looked for."""
    from ..datasets.readers.ravdess import parse_name

    try:
        trials = [parse_name(name) for name in names]
    except InputError:
        trials = []
    if not trials:
        raise InputError(
            path,
            "file",
            "no such file",
            "a table with the columns file and expression, or files that are all named as RAVDESS's trials",
        )
    channels = {"01": "speech", "02": "song"}
    return pd.DataFrame(
        {
            "file": names,
            "expression": ["calm" if trial.expression is None else EXPRESSIONS[trial.expression] for trial in trials],
            "actor": [trial.actor for trial in trials],
            "channel": [channels.get(trial.channel, trial.channel) for trial in trials],
        }
    )
