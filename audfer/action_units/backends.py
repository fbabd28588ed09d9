"""What can measure action units in a clip: OpenFace, py-feat, Lock and Check, audfer's baseline estimator.

A backend is a frozen dataclass with three methods (``Backend``); ``BACKENDS`` names them for the command line. Their
``extract`` runs wherever a clip is worked on: in a thread of this process or of a Dask worker. OpenFace is a program
and gets a process for every clip; Python packages run in a process of their own (``processes.PythonChild``) that keeps
the model. So a clip that hangs or crashes its extractor costs that clip only. Lock and Check takes several clips at
once (``extract_group``), because a forward pass over windows of several clips is faster.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from .. import __version__
from ..datasets.manifest import Manifest, frame_number, is_video, list_frames, resized, stream_frames
from ..datasets.packing import PackedClips, open_packed
from ..errors import AudferError, InputError
from ..facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from ..files import atomic_file, digest, file_digest
from ..jobs.processes import ONE_THREAD, ChildEnded, OutOfTime, PythonChild, how_it_ended, run_limited
from ..openface import PRESENCE_COLUMNS, AUTrack, extraction_command
from .importing import DETAILS, ImportOptions, read_clip_file

ENGINES = ("docker", "podman", "apptainer")
#: frames that audfer's estimator is given at once
_CHUNK_FRAMES = 256


class ExtractionFailed(AudferError):
    """A clip gave no action units. ``again``: whether another attempt may help."""

    def __init__(self, reason: str, again: bool):
        self.again = again
        super().__init__(reason)

    def __reduce__(self):
        return type(self), (str(self), self.again)


@dataclass(frozen=True)
class Clip:
    """One video or folder of pictures, and the manifest's rows that are cut from it (several windows of one take).

    Attributes:
        dataset, root: of the manifest.
        rows: the manifest's rows of this source, as dicts; all have the same ``path``.
    """

    dataset: str
    root: Path
    rows: tuple[dict, ...]

    @property
    def path(self) -> Path:
        """The video file or the folder."""
        return self.root / self.rows[0]["path"]

    @property
    def clip_ids(self) -> list[str]:
        """The manifest's names."""
        return [row["clip_id"] for row in self.rows]

    def manifest(self) -> Manifest:
        """The rows as a manifest of their own, for ``frame_numbers`` and ``load_frames``."""
        return Manifest(self.dataset, self.root, pd.DataFrame(self.rows))

    def stream(self, size: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """(clip_id, frame number, picture uint8 (size, size, 3)) of every frame of the rows, one at a time."""
        names = self.clip_ids
        return ((names[row], number, picture) for row, number, picture in stream_frames(self.manifest(), size))

    def state(self) -> list:
        """Names and sizes of the files: what a result depends on."""
        if not self.path.is_dir():
            return [self.path.stat().st_size] if self.path.is_file() else []
        return [[name, os.path.getsize(self.path / name)] for name in list_frames(self.path)]

    def cut(self, track: AUTrack) -> dict[str, AUTrack]:
        """A track of the whole source, its frames counted from 1 in the order of the pictures, as the rows' tracks.

        Frames are numbered as ``datasets.frame_numbers`` does, from 0; those that the track lacks are left out.
        """
        pictures = None if is_video(self.path) else list_frames(self.path)
        tracks = {}
        for row in self.manifest().table.itertuples(index=False):
            if pictures is None:
                numbers = np.arange(row.start, track.frame[-1] if row.stop < 0 else row.stop)
                places = numbers + 1
            elif row.stop < 0:
                numbers, places = np.arange(len(pictures)), np.arange(1, len(pictures) + 1)
            else:
                last = np.array([(frame_number(name)[0] or (i + 1,))[-1] for i, name in enumerate(pictures)]) - 1
                inside = (last >= row.start) & (last < row.stop)
                numbers, places = last[inside], np.flatnonzero(inside) + 1
            here = np.isin(places, track.frame)
            at = places[here] - track.frame[0]
            tracks[row.clip_id] = AUTrack(
                track.intensity[at],
                track.presence[at],
                track.ok[at],
                numbers[here],
                track.timestamp[at],
                report=track.report,
            )
        return tracks


@dataclass(frozen=True)
class PackedClip(Clip):
    """One clip of a packed store: the frames that were stored of it.

    A store keeps some frames of every clip, spread over it, and a short clip's more than once; each is judged once.

    Attributes:
        position: in the store, whose folder is ``root``.
    """

    position: int = 0

    @property
    def path(self) -> Path:
        """The store's array."""
        return self.root / "frames.npy"

    def state(self) -> list:
        store = _store(str(self.root))
        return [digest(store.meta), store.frame_numbers[self.position].tolist()]

    def stream(self, size: int) -> Iterator[tuple[str, int, np.ndarray]]:
        store = _store(str(self.root))
        numbers, places = np.unique(store.frame_numbers[self.position], return_index=True)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            yield self.clip_ids[0], number, resized(store.frames[self.position, place], size)


@lru_cache(maxsize=4)
def _store(folder: str) -> PackedClips:
    return open_packed(folder)


def sources(clips: Manifest | PackedClips) -> list[Clip]:
    """The single sources of a dataset on disk (videos, folders) or of a packed store (its clips), in order."""
    if isinstance(clips, PackedClips):
        folder = Path(clips.frames.filename).parent.absolute()
        return [
            PackedClip(clips.meta["dataset"], folder, (row,), position)
            for position, row in enumerate(clips.manifest.to_dict("records"))
        ]
    found: dict[str, list[dict]] = {}
    for row in clips.table.to_dict("records"):
        found.setdefault(row["path"], []).append(row)
    root = Path(clips.root).absolute()
    return [Clip(clips.name, root, tuple(rows)) for rows in found.values()]


class Backend(Protocol):
    """What ``running.extract_manifest`` needs of an extractor.

    Attributes:
        name: its own.
        packed: whether it can read the clips of a packed store; a program that opens videos itself cannot.
        group: clips that it works on together; from 2 on it has ``extract_group``.
    """

    name: str
    packed: bool
    group: int

    def settings(self) -> dict:
        """Everything that decides the result: part of each clip's key, and recorded in the table."""

    def check(self) -> None:
        """Refuse at once, with a sentence, if it cannot run on this machine."""

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        """Tracks by clip_id. Raises ``ExtractionFailed``."""

    def extract_group(self, clips: Sequence[Clip], seconds: float) -> Iterator[tuple[int, dict[str, AUTrack]]]:
        """(position, tracks by clip_id) of each clip as it is done, without those that gave nothing.

        Raises ``ExtractionFailed`` when none of the rest will come; ``seconds`` are for each.
        """


# --------------------------------------------------------------------------------------------------------------
# OpenFace


@dataclass(frozen=True)
class OpenFace:
    """OpenFace's ``FeatureExtraction``, from PATH or in a container.

    Attributes:
        executable: program name or path (in the container, if there is one); "" takes ``FeatureExtraction`` on PATH, or
            ``build/bin/FeatureExtraction`` of a docker image.
        container: image name (docker, podman) or file (apptainer).
        engine: which of ``ENGINES``; "" takes the first on PATH.
        landmarks: also have the 68 points written (kept in ``csvs`` only).
        csvs: folder in which OpenFace's own file of each clip is kept as ``<clip>.csv``, for ``audfer data pack``.
        reading: how the file is read; its mode says whether ``-au_static`` is given.
    """

    executable: str = ""
    container: str = ""
    engine: str = ""
    landmarks: bool = True
    csvs: str = ""
    reading: ImportOptions = field(default_factory=lambda: ImportOptions(mode="calibrated"))
    name, packed, group = "openface", False, 1

    def settings(self) -> dict:
        # where the program and the kept files lie does not change the result
        return {"backend": self.name, "container": self.container, "landmarks": self.landmarks, **asdict(self.reading)}

    def check(self) -> None:
        if self.container:
            self._engine()
        elif shutil.which(self.executable or "FeatureExtraction") is None:
            raise InputError(
                "command line",
                "--executable",
                repr(self.executable or "FeatureExtraction"),
                "OpenFace's FeatureExtraction on PATH, its path, or an image with --container",
            )

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        with tempfile.TemporaryDirectory(prefix="audfer_openface_") as folder:
            command, end = self.command(clip, Path(folder))
            try:
                status, printed = run_limited(command, seconds, end)
            except OutOfTime as error:
                raise ExtractionFailed(f"{error}: killed with its process group", again=True) from None
            except OSError as error:
                raise ExtractionFailed(f"{command[0]} cannot be started: {error.strerror}", again=False) from None
            file = Path(folder, "out", "clip.csv")
            if status:
                last = (printed.splitlines() or ["nothing printed"])[-1]
                raise ExtractionFailed(f"FeatureExtraction: {how_it_ended(status)} ({last[:200]})", again=True)
            if not file.is_file():
                raise ExtractionFailed(
                    "FeatureExtraction ended without writing a file (an unreadable clip)", again=True
                )
            try:
                track = read_clip_file(file, self.reading)
            except InputError as error:
                if error.field == "rows":
                    raise ExtractionFailed("no face found: a header without rows", again=False) from None
                raise ExtractionFailed(
                    f"what FeatureExtraction wrote: {error.field}: found {error.found}, expected {error.expected}",
                    again=False,
                ) from None
            pictures = 0 if is_video(clip.path) else len(list_frames(clip.path))
            if track.report["truncated_rows"] or (pictures and len(track) != pictures):
                raise ExtractionFailed(
                    f"FeatureExtraction wrote {len(track)} whole rows"
                    + (f" for {pictures} pictures" if pictures else " and a cut one"),
                    again=True,
                )
            if self.csvs:
                self._keep(file, clip)
        return clip.cut(track)

    def command(self, clip: Clip, folder: Path) -> tuple[list[str], Callable[[], object] | None]:
        """The command for one clip, and what ends it where killing the command is not enough.

        Pictures are offered as links with padded numbers: OpenFace reads names in plain string order (10 before 2).
        """
        source, out = clip.path.resolve(), folder / "out"
        out.mkdir()
        if not is_video(source):
            source = folder / "frames"
            source.mkdir()
            for number, name in enumerate(list_frames(clip.path), 1):
                (source / f"{number:06d}{Path(name).suffix.lower()}").symlink_to((clip.path / name).resolve())
        program = self.executable or "FeatureExtraction"
        try:
            command = extraction_command(
                source, out, "clip", executable=program, static=self.reading.mode == "static", landmarks=self.landmarks
            )
        except InputError as error:
            raise ExtractionFailed(
                f"{clip.path}: {error.field}: found {error.found}, expected {error.expected}", again=False
            ) from None
        if not self.container:
            return command, None
        # every folder has the same path inside as outside, so that links and arguments mean the same
        engine, name = self._engine(), f"audfer-{uuid.uuid4().hex[:12]}"
        if engine == "apptainer":
            return [
                "apptainer",
                "exec",
                "--containall",
                *(f"--env={key}={value}" for key, value in ONE_THREAD.items()),
                f"--bind={clip.path.resolve()}:{clip.path.resolve()}:ro",
                f"--bind={folder}:{folder}",
                self.container,
                *command,
            ], None
        program = (
            self.executable or "build/bin/FeatureExtraction"
        )  # where algebr/openface has it, from its working folder
        return [
            engine,
            "run",
            "--rm",
            "--init",
            "--network=none",
            f"--name={name}",
            f"--user={os.getuid()}:{os.getgid()}",
            *(f"--env={key}={value}" for key, value in ONE_THREAD.items()),
            f"--mount=type=bind,source={clip.path.resolve()},target={clip.path.resolve()},readonly",
            f"--mount=type=bind,source={folder},target={folder}",
            f"--entrypoint={program}",
            self.container,
            *command[1:],
        ], lambda: subprocess.run([engine, "kill", name], capture_output=True, timeout=60)

    def _keep(self, file: Path, clip: Clip) -> None:
        name = clip.clip_ids[0].split(":")[0]  # windows of one video share its file
        for found, kept in ((file, f"{name}.csv"), (file.with_name(f"clip{DETAILS}"), f"{name}{DETAILS}")):
            if found.is_file():
                with atomic_file(Path(self.csvs, kept)) as temporary:
                    shutil.copyfile(found, temporary)

    def _engine(self) -> str:
        names = (self.engine,) if self.engine else ENGINES
        for name in names:
            if shutil.which(name):
                return name
        raise InputError("command line", "--container", f"none of {', '.join(names)} on PATH", "a container engine")


# ------------------------------------------------------------------------------------------------------- Python
# packages

_local = threading.local()


def _in_child(function: Callable, *arguments, seconds: float):
    """``function(*arguments)`` in this thread's own Python process.

    Anything but an answer is an ``ExtractionFailed``.
    """
    with _failures():
        return _child().call(function, *arguments, seconds=seconds)


def _child() -> PythonChild:
    if not hasattr(_local, "child"):
        _local.child = PythonChild()
    return _local.child


@contextmanager
def _failures():
    """Whatever a child's call raises, as ``ExtractionFailed``."""
    try:
        yield
    except ExtractionFailed:
        raise
    except AudferError as error:
        raise ExtractionFailed(str(error), again=False) from None
    except OutOfTime as error:
        raise ExtractionFailed(f"{error}: killed with its process group", again=True) from None
    except ChildEnded as error:
        raise ExtractionFailed(f"the extractor's process ended: {error}", again=True) from None
    except (MemoryError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # somebody else's package may raise anything about one clip; the others go on
        raise ExtractionFailed(f"{type(error).__name__}: {str(error)[:300]}", again=True) from None


@dataclass(frozen=True)
class Estimator:
    """audfer's own estimator. It is trained on rendered faces and is not for real ones.

    Attributes:
        folder: where ``ActionUnitEstimator.save`` put it.
        size: side in pixels that it was trained on.
        device, precision: as in ``estimator.predict``.
    """

    folder: str
    size: int
    device: str = "cpu"
    precision: str = "float32"
    name, packed, group = "audfer", True, 1

    def settings(self) -> dict:
        return {"backend": self.name, "weights": self._weights(), "size": self.size, "precision": self.precision}

    def _weights(self) -> str:
        return digest([path.read_bytes().hex() for path in sorted(Path(self.folder).glob("estimator.*"))])

    def check(self) -> None:
        if not Path(self.folder, "estimator.json").is_file():
            raise InputError(self.folder, "AU estimator", "none there", "estimator.json and estimator.safetensors")

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return _in_child(_estimate, self, clip, seconds=seconds)


def _written(folder: str) -> tuple[int, ...]:
    """When the weights in a folder were written: a process that keeps a model notices new ones."""
    return tuple(path.stat().st_mtime_ns for path in sorted(Path(folder).glob("*.*")))


@lru_cache(maxsize=2)
def _loaded(folder: str, written: tuple[int, ...]):
    import torch

    from .estimator import ActionUnitEstimator

    torch.set_num_threads(1)
    return ActionUnitEstimator.load(folder)


def _estimate(backend: Estimator, clip: Clip) -> dict[str, AUTrack]:
    from .estimator import predict

    estimator = _loaded(backend.folder, _written(backend.folder))
    numbers: dict[str, list[int]] = {}
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    frames = clip.stream(backend.size)
    while piece := list(islice(frames, _CHUNK_FRAMES)):  # a long video is never in memory as a whole
        names = [name for name, _, _ in piece]
        judged = predict(
            estimator,
            np.stack([picture for _, _, picture in piece]),
            device=backend.device,
            precision=backend.precision,
        )
        for name in dict.fromkeys(names):
            rows = [row for row, other in enumerate(names) if other == name]
            numbers.setdefault(name, []).extend(piece[row][1] for row in rows)
            values.setdefault(name, []).append(tuple(part[rows] for part in judged))
    return {
        name: estimated_track(
            *(np.concatenate(parts) for parts in zip(*values[name], strict=True)), np.array(numbers[name])
        )
        for name in values
    }


def estimated_track(
    intensity: np.ndarray, presence: np.ndarray, numbers: np.ndarray, tool: str = "audfer", mode: str = "frame by frame"
) -> AUTrack:
    """The track of frames that a network of ours judged.

    A value for every frame and, unlike OpenFace, no confidence.
    """
    return AUTrack(
        intensity.astype(np.float32),
        presence.astype(np.float32),
        np.ones(len(numbers), bool),
        numbers,
        np.full(len(numbers), np.nan),
        report={"tool": tool, "version": __version__, "mode": mode},
    )


@dataclass(frozen=True)
class LAC:
    """Lock and Check's recogniser. What faces it is for, its weights decide (``Recogniser.description``).

    Frames are judged in the windows of ``Recogniser.predict``, while the clip is decoded (``streaming``).

    Attributes:
        folder: where ``Recogniser.save`` put it.
        device, precision: as in ``Recogniser.judge``.
        batch: windows a forward pass, of several clips where they are short.
    """

    folder: str
    device: str = "cpu"
    precision: str = "float32"
    batch: int = 8
    name, packed = "lac", True

    @property
    def group(self) -> int:
        """Clips of one job: enough short ones for some full batches, few enough that a kill costs little."""
        return 4 * self.batch

    def settings(self) -> dict:
        # where it runs and how many windows at a time does not change the result
        return {"backend": self.name, "weights": self._weights(), "precision": self.precision}

    def _weights(self) -> str:
        return digest([file_digest(path) for path in sorted(Path(self.folder).glob("recogniser.*"))])

    def check(self) -> None:
        from ..lock_and_check.training import Recogniser

        if self.batch < 1:
            raise InputError("command line", "--batch", self.batch, "at least one window")
        units = Recogniser.load(self.folder).action_units
        if strange := [name for name in units if name not in ACTION_UNITS]:
            raise InputError(
                Path(self.folder, "recogniser.json"),
                "action_units",
                ", ".join(strange),
                f"those of an AU table: {', '.join(ACTION_UNITS)}",
            )

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return _in_child(_recognise_one, self, clip, seconds=seconds)

    def extract_group(self, clips: Sequence[Clip], seconds: float) -> Iterator[tuple[int, dict[str, AUTrack]]]:
        with _failures():
            yield from _child().stream(_recognise, self, list(clips), seconds=seconds)


@lru_cache(maxsize=2)
def _recogniser(folder: str, written: tuple[int, ...]):
    import torch

    from ..lock_and_check.training import Recogniser

    torch.set_num_threads(1)
    return Recogniser.load(folder)


def _recognise_one(backend: LAC, clip: Clip) -> dict[str, AUTrack]:
    return next(_recognise(backend, [clip], refuse=True))[1]


def _recognise(backend: LAC, clips: list[Clip], refuse: bool = False) -> Iterator[tuple[int, dict[str, AUTrack]]]:
    """Tracks of each clip as it is done; a clip that cannot be read is left out, or with ``refuse`` its error is
    raised.
    """
    from ..lock_and_check.streaming import judge_streams

    recogniser = _recogniser(backend.folder, _written(backend.folder))
    streams = ((position, clip.stream(recogniser.image_size)) for position, clip in enumerate(clips))
    for position, found in judge_streams(
        recogniser, streams, device=backend.device, precision=backend.precision, batch=backend.batch
    ):
        if isinstance(found, InputError):
            if refuse:
                raise found
            continue
        tracks = {}
        for name, (numbers, values) in found.items():
            intensity, presence, _ = recogniser.calibrated(values)
            tracks[name] = estimated_track(
                intensity, presence, numbers, "LAC", f"windows of {recogniser.window} frames"
            )
        yield position, tracks


@dataclass(frozen=True)
class PyFeat:
    """py-feat's detector, where the user has installed it. It gives presence, no intensity (``read_pyfeat``).

    Attributes:
        threshold: an AU is present from this output on.
        au_model: py-feat's name of the AU model.
    """

    threshold: float = 0.5
    au_model: str = "xgb"
    name, packed, group = "pyfeat", False, 1

    def settings(self) -> dict:
        return {"backend": self.name, **asdict(self)}

    def check(self) -> None:
        if importlib.util.find_spec("feat") is None:
            raise InputError(
                "command line",
                "--backend",
                "'pyfeat', and no package feat here",
                "py-feat, which is not a part of audfer: install it in this environment (pip install py-feat)",
            )

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return clip.cut(_in_child(_detect, self, clip, seconds=seconds))


@lru_cache(maxsize=1)
def _detector(au_model: str):
    from feat import Detector

    return Detector(au_model=au_model)


def _detect(backend: PyFeat, clip: Clip) -> AUTrack:
    detector = _detector(backend.au_model)
    if is_video(clip.path):
        found = detector.detect(str(clip.path), data_type="video")
        return read_pyfeat(found, threshold=backend.threshold)
    pictures = [str(clip.path / name) for name in list_frames(clip.path)]
    found = detector.detect(pictures, data_type="image")
    return read_pyfeat(found, pictures, threshold=backend.threshold)


def read_pyfeat(output, pictures: list[str] | None = None, threshold: float = 0.5) -> AUTrack:
    """A track from what py-feat's detector gives.

    py-feat's AU outputs lie on 0 to 1: how sure the model is that the AU is there, or 0 and 1. They are no intensities,
    which stay unknown (NaN); an AU is present from ``threshold`` on. py-feat has no AU45 (its AU43, closed eyes, is not
    a blink), which stays unknown; its AU11, AU24 and AU43 are not among the 18. Of several faces in a frame the one
    with
    the largest box is taken: the order of py-feat's rows is not stable.

    Args:
        output: the table (a DataFrame with ``frame``, ``FaceScore``, ``FaceRect*`` and ``AU*`` columns), or the CSV it
            was saved in.
        pictures: the pictures that were given, in order; then frames are found by the ``input`` column. ``None``: a
            video, numbered by ``frame`` from 0.

    Returns:
        An ``AUTrack`` numbered from 1, without gaps; frames without a face are not ``ok`` and unknown.

    Raises:
        InputError: unreadable, or columns missing.
    """
    where = "py-feat"
    if not isinstance(output, pd.DataFrame):
        where = output
        try:
            output = pd.read_csv(output)
        except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
            raise InputError(where, "file", str(error).splitlines()[0], "a CSV that py-feat wrote") from error
    table = pd.DataFrame(output).reset_index(drop=True)
    shared = [au for au in ACTION_UNITS if au in table]
    missing = [name for name in ("FaceScore", "input" if pictures else "frame") if name not in table]
    if missing or len(shared) < len(ACTION_UNITS) - 1:
        missing += [au for au in ACTION_UNITS if au not in table and au != "AU45"]
        raise InputError(where, "columns", f"no {', '.join(missing)}", "the output of py-feat's detector")
    if pictures:
        place = {name: number for number, name in enumerate(pictures, 1)}
        frame = table["input"].astype(str).map(place)
    else:
        frame = pd.to_numeric(table["frame"], errors="coerce") + 1
    values = table[shared].apply(pd.to_numeric, errors="coerce")
    seen = table["FaceScore"].notna() & values.notna().any(axis=1) & frame.notna()
    if (values[seen].lt(0) | values[seen].gt(1)).any(axis=None):
        raise InputError(where, "columns AU*", f"{values[seen].max(axis=None):g}", "numbers from 0 to 1")
    boxes = {"FaceRectWidth", "FaceRectHeight"} <= set(table)
    area = table["FaceRectWidth"] * table["FaceRectHeight"] if boxes else pd.Series(0.0, index=table.index)
    largest = area[seen].groupby(frame[seen]).idxmax().astype(int) if seen.any() else pd.Series(dtype=int)
    length = len(pictures) if pictures else int(frame.max()) if frame.notna().any() else 0
    if not length:
        raise InputError(where, "rows", "none", "one row a frame")
    presence = np.full((length, len(ACTION_UNITS)), np.nan, np.float32)
    at = largest.index.to_numpy(np.int64) - 1
    chosen = values.loc[largest].to_numpy()
    presence[np.ix_(at, [ACTION_UNITS.index(au) for au in shared])] = np.where(
        np.isnan(chosen), np.nan, chosen >= threshold
    )
    ok = np.zeros(length, bool)
    ok[at] = True
    rows = {"rows": len(table), "missing_presence": [c for c in PRESENCE_COLUMNS if c[:-2] not in shared]}
    return AUTrack(
        np.full((length, len(INTENSITY_ACTION_UNITS)), np.nan, np.float32),
        presence,
        ok,
        np.arange(1, length + 1),
        np.full(length, np.nan),
        report={**rows, "tool": "py-feat", "version": _version_of("py-feat"), "mode": "frame by frame"},
    )


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


#: --backend -> what measures; another extractor is one more dataclass here
BACKENDS: dict[str, type] = {"openface": OpenFace, "lac": LAC, "audfer": Estimator, "pyfeat": PyFeat}
