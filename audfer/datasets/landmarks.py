"""Facial landmarks of packed clips: the 68 iBUG points of every stored frame, for networks that look at key points.

Points are float32 (N, T, 68, 2), rows and frames as in the packed store, in units of the side of the stored (square)
picture: x to the right, y down, 0 is its left or upper border and 1 the other one. NaN is unknown: the face was not
found, or the point lies outside the picture. They come from OpenFace's CSVs, from dlib where the user has it, or from
the renderer of the embedded benchmark (``synth.embedded_points``); each source follows what ``datasets.pack`` did to
the pictures.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..errors import AudferError, InputError
from ..openface import LANDMARK_COLUMNS, SUCCESS_BOUNDARY, read_openface
from ..progress import progress as progress_bar
from . import alignment
from .manifest import Manifest, frame_numbers, is_video, load_frames, picture_sizes, video_stream
from .packing import PackedClips, tracks_of

#: dlib's file, by the name that it is given out under
DLIB_MODEL = "shape_predictor_68_face_landmarks.dat"
#: doublings of the picture before dlib looks for faces, which it does not find below 80 pixels
_DLIB_ENLARGED = 1
#: a whole picture is looked at with this longest side, and with the second where no face is found; never enlarged more
#: than twice
_SIDES = (480, 960)
#: faces are looked for in every so many frames, and in those between where the two ends disagree
_EVERY = 4
#: share of two boxes' union that is common to both, from which on they are the same face some frames later
_SAME = 0.5
#: frames a face may be lost for, and how far it may move meanwhile, in its own sides, and still be followed
_LOST, _MOVED = 15, 0.75

#: (position of a clip in the store) -> points (T, 68, 2) of its stored frames; raises ``InputError`` if there are none
PointsOfClip = Callable[[int], np.ndarray]


class Landmarks(NamedTuple):
    """What ``packed_landmarks`` found.

    Attributes:
        points: float32 (N, T, 68, 2).
        without: clip_id -> why the clip has no points, as a sentence.
    """

    points: np.ndarray
    without: dict[str, str]

    @property
    def known(self) -> float:
        """Share of frames with at least one point."""
        return float(np.isfinite(self.points).any((2, 3)).mean()) if self.points.size else 0.0


def packed_landmarks(packed: PackedClips, points_of_clip: PointsOfClip, progress: bool = True) -> Landmarks:
    """The landmarks of every stored frame from one of the sources below.

    Points outside the picture become NaN, and so does a clip that the source knows nothing of.

    Args:
        points_of_clip: ``synth.embedded_points``, ``openface_points`` or ``dlib_points``.
        progress: show a bar, in clips.
    """
    points = np.full((*packed.frames.shape[:2], 68, 2), np.nan, np.float32)
    without = {}
    for position, clip_id in enumerate(
        progress_bar(packed.clip_ids, desc=f"landmarks {packed.meta['dataset']}", unit="clip", disable=not progress)
    ):
        try:
            points[position] = points_of_clip(position)
        except InputError as error:
            without[clip_id] = str(error)
    with np.errstate(invalid="ignore"):
        points[~((points >= 0) & (points <= 1)).all(-1)] = np.nan
    return Landmarks(points, without)


# -------------------------------------------------------------------------------------------------------------- sources


def openface_points(packed: PackedClips, manifest: Manifest, folder: str | os.PathLike) -> PointsOfClip:
    """The landmarks in OpenFace's CSVs, moved to where packing has put them.

    Frames are stretched to a square, or, in a store packed with ``align``, cut out by the transform of the same CSVs.

    Args:
        manifest: of the packed clips: OpenFace's pixels are those of its pictures.
        folder: with ``<clip_id>.csv``, slashes of the id as folders or underscores.

    Raises:
        InputError: the store was aligned with other CSVs.
    """
    aligned = packed.meta.get("alignment")
    if aligned and aligned != tracks_of(manifest, folder):
        raise InputError(
            folder,
            "OpenFace's CSVs",
            "other ones than the clips were aligned with",
            "the folder that audfer data pack --align was given",
        )
    rows = manifest.table.set_index("clip_id", drop=False)
    # windows of one long take follow one another
    read = lru_cache(maxsize=1)(
        lambda path: read_openface(path, face="longest", require_presence=False, require_aus=False)
    )

    def points_of_clip(position: int) -> np.ndarray:
        row, numbers = rows.loc[packed.clip_ids[position]], packed.frame_numbers[position]
        path = alignment.find_track(folder, row.clip_id)
        shapes = picture_sizes(manifest, row, numbers)
        track = alignment.fitted(read(path), shapes, path)
        known, found = alignment.points_of(track, numbers, path)
        points = np.full((len(numbers), 68, 2), np.nan)
        # OpenFace's whole numbers are the centres of pixels, ours their borders
        points[known] = found + 0.5
        alignment.require_inside(points, shapes[:, None], path)
        points /= shapes[:, None]
        if aligned:
            # frames are brought to the size of the clip's first one before faces are cut out
            points = alignment.align(track, numbers, path).move(points * shapes[0])
        return points

    return points_of_clip


def dlib_model(file: str | os.PathLike = "") -> Path:
    """dlib's 68-point model: a file of the user's, or the one in the package face-recognition-models.

    Raises:
        AudferError: dlib is not installed. InputError: no such file.
    """
    try:
        import dlib  # noqa: F401
    except ImportError:
        raise AudferError(
            'dlib: not installed; pip install "audfer[landmarks]", or give a folder of OpenFace\'s CSVs instead'
        ) from None
    if not file:
        # importing that package fails where setuptools is new, and its file is all that is wanted
        spec = importlib.util.find_spec("face_recognition_models")
        file = Path(spec.submodule_search_locations[0], "models", DLIB_MODEL) if spec else DLIB_MODEL
    if not os.path.isfile(file):
        expected = f'{DLIB_MODEL}, as pip install "audfer[landmarks]" brings it'
        raise InputError(file, "dlib's 68-point model", "no such file", expected)
    return Path(file)


def dlib_points(packed: PackedClips, model_file: str | os.PathLike) -> PointsOfClip:
    """dlib's landmarks, found on the stored pictures themselves; a frame without a face, or with several, has none.

    Args:
        model_file: dlib's 68-point model, ``DLIB_MODEL``.

    Raises:
        AudferError: dlib is not installed, or there is no such file.
    """
    model_file = dlib_model(model_file)
    import dlib

    detect, predict = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_file))

    def points_of_clip(position: int) -> np.ndarray:
        frames = packed.frames[position]
        points = np.full((len(frames), 68, 2), np.nan)
        for frame, picture in enumerate(frames):
            picture = np.ascontiguousarray(picture)
            faces = detect(picture, _DLIB_ENLARGED)
            if len(faces) == 1:
                shape = predict(picture, faces[0])
                points[frame] = [(shape.part(i).x, shape.part(i).y) for i in range(68)]
        if np.isnan(points).all():
            raise InputError(
                packed.clip_ids[position],
                "faces that dlib finds",
                f"one in none of {len(frames)} frames",
                "one face in a frame",
            )
        return (points + 0.5) / frames.shape[2]

    return points_of_clip


# ------------------------------------------------------------------------------------------------- whole clips, by dlib


class FacePoints(NamedTuple):
    """One face of a clip, followed over its n frames.

    Attributes:
        points: (n, 68, 2) pixels of the very frame, its pixels' centres at whole numbers as in OpenFace's files; NaN
            where the face is not seen.
        confidence: (n,) 0 where it is not seen, else above OpenFace's boundary of success, the more the surer dlib is.
        faces: how many faces the clip shows, one after another or together.
        crowded: frames with several faces at once.
    """

    points: np.ndarray
    confidence: np.ndarray
    faces: int
    crowded: int


class _Seen(NamedTuple):
    """A face in one frame: its box (left, top, right, bottom), dlib's score (0 and above), its points."""

    frame: int
    box: np.ndarray
    score: float
    points: np.ndarray

    @property
    def side(self) -> float:
        return float(np.sqrt(np.prod(self.box[2:] - self.box[:2])))


def face_points(
    pictures: Iterable[np.ndarray], model_file: str | os.PathLike = "", face: str = "longest"
) -> FacePoints:
    """The 68 points of a clip's face in every frame, by dlib.

    Faces are looked for in every fourth frame and followed between: where two looks find the same faces their boxes are
    interpolated, elsewhere the frames between are looked at, too.

    Args:
        pictures: (H, W, 3) uint8 RGB each, of any sizes; few are in memory at a time.
        model_file: as in ``dlib_model``.
        face: which of several: "longest" (seen in most frames), "largest" (median size) or "confident" (mean score).

    Raises:
        AudferError, InputError: as ``dlib_model``.
    """
    chains, counts = [], []
    for seen in _faces_of(pictures, *_dlib(str(dlib_model(model_file)))):
        counts.append(len(seen))
        free = [chain for chain in chains if seen and seen[0].frame - chain[-1].frame <= _LOST]
        for one in sorted(seen, key=lambda one: -one.score):
            apart = [np.linalg.norm((one.box - chain[-1].box).reshape(2, 2).mean(0)) / one.side for chain in free]
            if apart and min(apart) <= _MOVED:
                free.pop(int(np.argmin(apart))).append(one)
            else:
                chains.append([one])
    points, confidence = np.full((len(counts), 68, 2), np.nan), np.zeros(len(counts))
    value = {
        "longest": len,
        "largest": lambda chain: np.median([one.side for one in chain]),
        "confident": lambda chain: np.mean([one.score for one in chain]),
    }[face]
    for one in max(chains, key=value, default=()):
        points[one.frame] = one.points
        confidence[one.frame] = SUCCESS_BOUNDARY + (1 - SUCCESS_BOUNDARY) * (0.1 + 0.9 * min(one.score, 2) / 2)
    return FacePoints(points, confidence, len(chains), sum(count > 1 for count in counts))


@lru_cache(maxsize=1)
def _dlib(model_file: str) -> tuple:
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(model_file), dlib.rectangle


def _faces_of(pictures: Iterable[np.ndarray], detect, predict, rectangle) -> Iterator[list[_Seen]]:
    """The faces of each frame, in order."""

    def look(picture: np.ndarray, sides: tuple[int, ...] = _SIDES) -> np.ndarray:
        for scale in dict.fromkeys(min(2 if side > _SIDES[0] else 1, side / max(picture.shape)) for side in sides):
            size = [max(1, round(scale * length)) for length in picture.shape[1::-1]]
            drawn = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
            boxes, scores, _ = detect.run(drawn, 0, 0.0)
            if len(boxes):
                sizes = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in boxes]
                return np.column_stack([np.array(sizes) / scale, scores])
        return np.zeros((0, 5))

    def fit(number: int, picture: np.ndarray, found: np.ndarray) -> list[_Seen]:
        seen = []
        for *box, score in found:
            shape = predict(np.ascontiguousarray(picture), rectangle(*(round(edge) for edge in box)))
            points = np.array([(point.x, point.y) for point in shape.parts()], float)
            seen.append(_Seen(number, np.array(box), float(score), points))
        return seen

    waiting: list[tuple[int, np.ndarray]] = []
    before = None

    def through() -> Iterator[list[_Seen]]:
        nonlocal before
        after = look(waiting[-1][1])
        pairs = None if before is None else _pairs(before, after)
        for place, (number, picture) in enumerate(waiting, 1):
            if place == len(waiting):
                found = after
            elif pairs is None:
                found = look(picture, _SIDES[:1])
            else:
                share = place / len(waiting)
                found = (1 - share) * before + share * after[pairs]
            yield fit(number, picture, found)
        before = after
        waiting.clear()

    for number, picture in enumerate(pictures):
        waiting.append((number, picture))
        if number % _EVERY == 0:
            yield from through()
    if waiting:
        yield from through()


def _pairs(before: np.ndarray, after: np.ndarray) -> list[int] | None:
    """For each face before the one after that is the same; ``None`` where not every face goes on."""
    if len(before) != len(after) or not len(before):
        return None
    common = np.minimum(before[:, None, 2:4], after[None, :, 2:4]) - np.maximum(before[:, None, :2], after[None, :, :2])
    common = np.prod(np.maximum(common, 0), axis=-1)
    areas = [np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) for boxes in (before, after)]
    overlap = common / (areas[0][:, None] + areas[1] - common)
    best = overlap.argmax(1)
    return best.tolist() if len(set(best)) == len(best) and overlap.max(1).min() >= _SAME else None


def write_points(path: str | os.PathLike, found: FacePoints, frames: np.ndarray, seconds: np.ndarray) -> None:
    """A clip's landmarks as OpenFace writes them: frame (from 1), face_id, timestamp, confidence, success, x_*, y_*.

    Args:
        frames: (n,) numbers, rising. seconds: (n,) from the beginning.
    """
    seen = found.confidence > 0
    rows = np.nan_to_num(found.points).transpose(0, 2, 1).reshape(len(seen), -1)
    header = ", ".join(["frame", "face_id", "timestamp", "confidence", "success", *LANDMARK_COLUMNS])
    kept = np.column_stack([frames, np.zeros(len(seen)), seconds, found.confidence, seen, rows])
    formats = ["%d", "%d", "%.3f", "%.2f", "%d", *["%.1f"] * 136]
    np.savetxt(path, kept, fmt=formats, delimiter=", ", header=header, comments="")


def frame_seconds(path: str | os.PathLike, count: int) -> np.ndarray:
    """When each of a video's frames is shown, seconds from the first, (count,); by the mean rate where the file does
    not say it of each, NaN for a folder of pictures.
    """
    if not is_video(path):
        return np.full(count, np.nan)
    import av

    with av.open(str(path)) as container:
        stream = video_stream(container)
        shown = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
        rate, unit = float(stream.average_rate or stream.guessed_rate or 25), float(stream.time_base or 1)
    if len(stamps) != count or (np.diff(stamps) <= 0).any():
        return np.arange(count) / rate
    return (np.array(stamps) - stamps[0]) * unit


def points_sheet(
    manifest: Manifest, folder: str | os.PathLike, clips: int = 12, moments: int = 6, cell: int = 160
) -> Image.Image:
    """Some clips of a manifest, a row each with some of its frames and their points, to look whether they sit well.

    Args:
        folder: with the clips' CSVs; clips without one are left out.
        cell: longest side of a picture on the sheet, pixels.
    """
    rows = [row for row in manifest.table.itertuples(index=False) if alignment.track_file(folder, row.clip_id)]
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, clips).round().astype(int))]
    drawn = []
    for row in chosen:
        path = alignment.find_track(folder, row.clip_id)
        track, numbers = read_openface(path, require_presence=False, require_aus=False), frame_numbers(manifest, row)
        shown = np.unique(np.linspace(0, len(numbers) - 1, moments).round().astype(int))
        track = alignment.fitted(track, picture_sizes(manifest, row, numbers[shown]), path)
        low, high = (np.nanquantile(track.landmarks, share, axis=(0, 1)) for share in (0.02, 0.98))
        # the face with some of what is around it, the same cut in every frame
        left, top, side = *(low + high - 1.6 * max(high - low)) / 2, 1.6 * max(high - low)
        pictures = []
        for number, picture in zip(numbers[shown], load_frames(manifest, row, shown), strict=True):
            known, points = alignment.points_of(track, np.array([number]), path)
            whole, box = Image.fromarray(picture), (left, top, left + side, top + side)
            pictures.append(whole.transform((cell, cell), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR))
            for x, y in cell * (points[0] - (left, top)) / side if known.all() and np.isfinite(points).all() else ():
                ImageDraw.Draw(pictures[-1]).ellipse((x - 1, y - 1, x + 1, y + 1), fill="lime")
        drawn.append((f"{row.clip_id}: a face in {track.ok.sum()} of {len(track)} frames", pictures))
    sheet = Image.new("RGB", (moments * (cell + 4) + 4, len(drawn) * (cell + 20) + 4), "white")
    for line, (title, pictures) in enumerate(drawn):
        ImageDraw.Draw(sheet).text((4, line * (cell + 20) + 2), title, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (4 + column * (cell + 4), line * (cell + 20) + 16))
    return sheet
