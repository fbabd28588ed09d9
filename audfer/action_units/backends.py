"""What can measure action units in a clip: OpenFace, py-feat, audfer's baseline estimator; wings add others.

A backend is a frozen dataclass with three methods (``Backend``). Their ``extract`` runs wherever a clip is worked on:
in a thread of this process or of a Dask worker. OpenFace is a program and gets a process for every clip; Python
packages run in a process of their own (``processes.PythonChild``) that keeps the model. So a clip that hangs or crashes
its extractor costs that clip only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from .. import __version__
from ..datasets.landmarks import FacePoints, dlib_model, face_points, frame_seconds, write_points
from ..datasets.manifest import is_video, list_frames, read_image, video_frames
from ..errors import AudferError, InputError
from ..facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from ..files import DiskFull, atomic_file, digest, file_digest, read_csv
from ..jobs.processes import ONE_THREAD, ChildEnded, OutOfTime, how_it_ended, own_child, run_limited
from ..openface import DETAILS, FACE_RULES, LANDMARK_COLUMNS, PRESENCE_COLUMNS, AUTrack, extraction_command
from ..plugins import versions
from .clips import Clip
from .importing import ImportOptions, read_clip_file

ENGINES = ("docker", "podman", "apptainer")
#: frames that audfer's estimator is given at once: a long video is never in memory as a whole
_CHUNK_FRAMES = 256


class ExtractionFailed(AudferError):
    """A clip gave no action units. ``again``: whether another attempt may help."""

    def __init__(self, reason: str, again: bool):
        self.again = again
        super().__init__(reason)

    def __reduce__(self):
        return type(self), (str(self), self.again)


@contextmanager
def failures():
    """Whatever an extractor raises about one clip, as ``ExtractionFailed``: the others go on."""
    try:
        yield
    except (ExtractionFailed, DiskFull):
        raise
    except AudferError as error:
        raise ExtractionFailed(str(error), again=False) from None
    except OutOfTime as error:
        raise ExtractionFailed(f"{error}: killed with its process group", again=True) from None
    except ChildEnded as error:
        raise ExtractionFailed(f"the extractor's process ended: {error}", again=True) from None
    except (MemoryError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # somebody else's package may raise anything
        raise ExtractionFailed(f"{type(error).__name__}: {str(error)[:300]}", again=True) from None


def in_child(function: Callable, *arguments, seconds: float):
    """``function(*arguments)`` in this thread's own Python process; anything but an answer is ``ExtractionFailed``."""
    with failures():
        return own_child().call(function, *arguments, seconds=seconds)


def written(folder: str) -> tuple[int, ...]:
    """When the weights in a folder were written: a process that keeps a model notices new ones."""
    return tuple(path.stat().st_mtime_ns for path in sorted(Path(folder).glob("*.*")))


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


# ------------------------------------------------------------------------------------------------------------ OpenFace


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
        program = self.executable or "FeatureExtraction"
        if self.container:
            self._engine()
        elif shutil.which(program) is None:
            expected = "OpenFace's FeatureExtraction on PATH, its path, or an image with --container"
            raise InputError("command line", "--executable", repr(program), expected)

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        with tempfile.TemporaryDirectory(prefix="audfer_openface_") as folder, failures():
            command, end = self.command(clip, Path(folder))
            try:
                status, printed = run_limited(command, seconds, end)
            except OSError as error:
                raise ExtractionFailed(f"{command[0]} cannot be started: {error.strerror}", again=False) from None
            if status:
                last = (printed.splitlines() or ["nothing printed"])[-1]
                raise ExtractionFailed(f"FeatureExtraction: {how_it_ended(status)} ({last[:200]})", again=True)
            file = Path(folder, "out", "clip.csv")
            track = self._read(file, clip)
            if self.csvs:
                name = clip.clip_ids[0].split(":")[0]  # windows of one video share its file
                for made, kept in ((file, f"{name}.csv"), (file.with_name(f"clip{DETAILS}"), f"{name}{DETAILS}")):
                    if made.is_file():
                        with atomic_file(Path(self.csvs, kept)) as temporary:
                            shutil.copyfile(made, temporary)
        return clip.cut(track)

    def _read(self, file: Path, clip: Clip) -> AUTrack:
        if not file.is_file():
            raise ExtractionFailed("FeatureExtraction ended without writing a file (an unreadable clip)", again=True)
        try:
            track = read_clip_file(file, self.reading)
        except InputError as error:
            problem = f"what FeatureExtraction wrote: {error.field}: found {error.found}, expected {error.expected}"
            if error.field == "rows":
                problem = "no face found: a header without rows"
            raise ExtractionFailed(problem, again=False) from None
        pictures = 0 if is_video(clip.path) else len(list_frames(clip.path))
        if track.report["truncated_rows"] or (pictures and len(track) != pictures):
            compared = f" for {pictures} pictures" if pictures else " and a cut one"
            raise ExtractionFailed(f"FeatureExtraction wrote {len(track)} whole rows{compared}", again=True)
        return track

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
            raise InputError(clip.path, error.field, error.found, error.expected) from None
        if not self.container:
            return command, None
        # every folder has the same path inside as outside, so that links and arguments mean the same
        engine, name, inside = self._engine(), f"audfer-{uuid.uuid4().hex[:12]}", clip.path.resolve()
        environment = [f"--env={key}={value}" for key, value in ONE_THREAD.items()]
        if engine == "apptainer":
            folders = [f"--bind={inside}:{inside}:ro", f"--bind={folder}:{folder}"]
            return ["apptainer", "exec", "--containall", *environment, *folders, self.container, *command], None
        # where algebr/openface has it, from its working folder
        program = self.executable or "build/bin/FeatureExtraction"
        return [
            *(engine, "run", "--rm", "--init", "--network=none", f"--name={name}"),
            f"--user={os.getuid()}:{os.getgid()}",
            *environment,
            f"--mount=type=bind,source={inside},target={inside},readonly",
            f"--mount=type=bind,source={folder},target={folder}",
            f"--entrypoint={program}",
            self.container,
            *command[1:],
        ], lambda: subprocess.run([engine, "kill", name], capture_output=True, timeout=60)

    def _engine(self) -> str:
        names = (self.engine,) if self.engine else ENGINES
        for name in names:
            if shutil.which(name):
                return name
        raise InputError("command line", "--container", f"none of {', '.join(names)} on PATH", "a container engine")


# ----------------------------------------------------------------------------------------------------- Python packages


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
    name, packed, group, trained_on = "audfer", True, 1, "rendered faces"

    def settings(self) -> dict:
        weights = digest([path.read_bytes().hex() for path in sorted(Path(self.folder).glob("estimator.*"))])
        return {"backend": self.name, "weights": weights, "size": self.size, "precision": self.precision}

    def check(self) -> None:
        if not Path(self.folder, "estimator.json").is_file():
            raise InputError(self.folder, "AU estimator", "none there", "estimator.json and estimator.safetensors")

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return in_child(_estimate, self, clip, seconds=seconds)


@lru_cache(maxsize=2)
def _loaded(folder: str, when: tuple[int, ...]):
    import torch

    from .estimator import ActionUnitEstimator

    torch.set_num_threads(1)
    return ActionUnitEstimator.load(folder)


def _estimate(backend: Estimator, clip: Clip) -> dict[str, AUTrack]:
    from .estimator import predict

    estimator = _loaded(backend.folder, written(backend.folder))
    rows = defaultdict(list)
    frames = clip.stream(backend.size)
    while piece := list(islice(frames, _CHUNK_FRAMES)):
        pictures = np.stack([picture for _, _, picture in piece])
        judged = predict(estimator, pictures, device=backend.device, precision=backend.precision)
        for (name, number, _), *values in zip(piece, *judged, strict=True):
            rows[name].append((*values, number))
    return {name: estimated_track(*map(np.array, zip(*parts, strict=True))) for name, parts in rows.items()}


@dataclass(frozen=True)
class Landmarks:
    """dlib's 68 points of a clip's face: no action units, but what faces are cut out by.

    Its results are arrow tables (frame, timestamp, confidence, ok, x_0 .. y_67), which ``write`` brings into the form
    of OpenFace's files (``running.extract_landmarks``).

    Attributes:
        model_file: as in ``datasets.landmarks.dlib_model``.
        face: which of several, as in ``datasets.landmarks.face_points``.
    """

    model_file: str = ""
    face: str = "longest"
    name, packed, group = "landmarks", False, 1

    def settings(self) -> dict:
        model = file_digest(dlib_model(self.model_file))
        return {"backend": self.name, "model": model, "face": self.face, "code": versions("landmarks")}

    def check(self) -> None:
        dlib_model(self.model_file)
        if self.face not in FACE_RULES:
            raise InputError("command line", "--face", repr(self.face), f"one of {', '.join(FACE_RULES)}")

    def extract(self, clip: Clip, seconds: float) -> pa.Table:
        return in_child(_find_points, self, clip, seconds=seconds)

    def write(self, folder: Path, clip: Clip, stored: Path) -> None:
        """A stored result as ``<clip_id>.csv`` in a folder, unless it is there already; windows of a take share it."""
        file, when = folder / f"{clip.clip_ids[0].split(':')[0]}.csv", stored.stat().st_mtime_ns
        if file.is_file() and file.stat().st_mtime_ns == when:  # of this very result: see below
            return
        table = {name: column.to_numpy() for name, column in zip(*_columns(stored), strict=True)}
        points = np.stack([table[name] for name in LANDMARK_COLUMNS], axis=1).reshape(-1, 2, 68).transpose(0, 2, 1)
        with atomic_file(file) as temporary:
            write_points(temporary, FacePoints(points, table["confidence"], 0, 0), table["frame"], table["timestamp"])
            os.utime(temporary, ns=(when, when))


def _columns(stored: Path) -> tuple[list[str], list]:
    table = parquet.read_table(stored)
    return table.column_names, table.columns


def _find_points(backend: Landmarks, clip: Clip) -> pa.Table:
    if is_video(clip.path):
        pictures = (picture for _, picture in video_frames(clip.path))
    else:
        names = list_frames(clip.path)
        if not names:
            raise InputError(clip.path, "clip folder", "no frames", "pictures")
        pictures = (read_image(clip.path / name) for name in names)
    found = face_points(pictures, backend.model_file, backend.face)
    count = len(found.confidence)
    if not found.confidence.any():
        raise InputError(clip.path, "faces that dlib finds", f"one in none of {count} frames", "a face in a frame")
    spans = any(row["stop"] >= 0 for row in clip.rows)  # numbered as annotations are, by the pictures' names
    numbers = clip.own_numbers() if spans and not is_video(clip.path) else np.arange(1, count + 1)
    flat = found.points.transpose(0, 2, 1).reshape(count, -1).astype(np.float32)
    columns = {"frame": numbers, "timestamp": frame_seconds(clip.path, count), "confidence": found.confidence}
    about = {"ok": found.confidence > 0, "faces": np.full(count, found.faces), "crowded": np.full(count, found.crowded)}
    return pa.table({**columns, **about, **dict(zip(LANDMARK_COLUMNS, flat.T, strict=True))})


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
        return clip.cut(in_child(_detect, self, clip, seconds=seconds))


@lru_cache(maxsize=1)
def _detector(au_model: str):
    from feat import Detector

    return Detector(au_model=au_model)


def _detect(backend: PyFeat, clip: Clip) -> AUTrack:
    video = is_video(clip.path)
    pictures = None if video else [str(clip.path / name) for name in list_frames(clip.path)]
    given, kind = (str(clip.path), "video") if video else (pictures, "image")
    return read_pyfeat(_detector(backend.au_model).detect(given, data_type=kind), pictures, backend.threshold)


def read_pyfeat(output, pictures: list[str] | None = None, threshold: float = 0.5) -> AUTrack:
    """A track from what py-feat's detector gives.

    py-feat's AU outputs lie on 0 to 1: how sure the model is that the AU is there, or 0 and 1. They are no intensities,
    which stay unknown (NaN); an AU is present from ``threshold`` on. py-feat has no AU45 (its AU43, closed eyes, is not
    a blink), which stays unknown; its AU11, AU24 and AU43 are not among the 18. Of several faces in a frame the one
    with the largest box is taken: the order of py-feat's rows is not stable.

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
            output = read_csv(output)
        except OSError as error:
            raise InputError(where, "file", error.strerror, "a CSV that py-feat wrote") from error
    table = pd.DataFrame(output).reset_index(drop=True)
    shared = [au for au in ACTION_UNITS if au in table]
    missing = [name for name in ("FaceScore", "input" if pictures else "frame") if name not in table]
    if missing or len(shared) < len(ACTION_UNITS) - 1:
        missing += [au for au in ACTION_UNITS if au not in table and au != "AU45"]
        raise InputError(where, "columns", f"no {', '.join(missing)}", "the output of py-feat's detector")
    if pictures:
        frame = table["input"].astype(str).map({name: number for number, name in enumerate(pictures, 1)})
    else:
        frame = pd.to_numeric(table["frame"], errors="coerce") + 1
    values = table[shared].apply(pd.to_numeric, errors="coerce")
    seen = table["FaceScore"].notna() & values.notna().any(axis=1) & frame.notna()
    if (values[seen].lt(0) | values[seen].gt(1)).any(axis=None):
        raise InputError(where, "columns AU*", f"{values[seen].max(axis=None):g}", "numbers from 0 to 1")
    length = len(pictures) if pictures else int(frame.max()) if frame.notna().any() else 0
    if not length:
        raise InputError(where, "rows", "none", "one row per frame")
    boxes = {"FaceRectWidth", "FaceRectHeight"} <= set(table)
    area = table["FaceRectWidth"] * table["FaceRectHeight"] if boxes else pd.Series(0.0, index=table.index)
    largest = area[seen].groupby(frame[seen]).idxmax().astype(int) if seen.any() else pd.Series(dtype=int)
    at = largest.index.to_numpy(np.int64) - 1
    chosen = values.loc[largest].reindex(columns=ACTION_UNITS).to_numpy()
    presence = np.full((length, len(ACTION_UNITS)), np.nan, np.float32)
    presence[at] = np.where(np.isnan(chosen), np.nan, chosen >= threshold)
    try:
        made_by = version("py-feat")
    except PackageNotFoundError:
        made_by = "unknown"
    return AUTrack(
        np.full((length, len(INTENSITY_ACTION_UNITS)), np.nan, np.float32),
        presence,
        np.isin(np.arange(length), at),
        np.arange(1, length + 1),
        np.full(length, np.nan),
        report={
            "rows": len(table),
            "missing_presence": [name for name in PRESENCE_COLUMNS if name[:-2] not in shared],
            "tool": "py-feat",
            "version": made_by,
            "mode": "frame by frame",
        },
    )
