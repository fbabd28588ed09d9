"""Facial landmarks of packed clips: the 68 iBUG points of every stored frame, for networks that look at key points.

Points are float32 (N, T, 68, 2), rows and frames as in the packed store, in units of the side of the stored (square)
picture: x to the right, y down, 0 is its left or upper border and 1 the other one. NaN is unknown: the face was not
found, or the point lies outside the picture. They come from OpenFace's CSVs, from dlib where the user has it, or from
the renderer of the embedded benchmark (``synth.embedded_points``); each source follows what ``datasets.pack`` did to
the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import AudferError, InputError
from ..openface import read_openface
from ..progress import progress as progress_bar
from . import alignment
from .manifest import Manifest, picture_sizes
from .packing import PackedClips, tracks_of

#: dlib's file, by the name that it is given out under
DLIB_MODEL = "shape_predictor_68_face_landmarks.dat"
#: doublings of the picture before dlib looks for faces, which it does not find below 80 pixels
_DLIB_ENLARGED = 1

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
    read = lru_cache(maxsize=1)(lambda path: read_openface(path, face="longest", require_presence=False))

    def points_of_clip(position: int) -> np.ndarray:
        row, numbers = rows.loc[packed.clip_ids[position]], packed.frame_numbers[position]
        path = alignment.find_track(folder, row.clip_id)
        track = read(path)
        known, found = alignment.points_of(track, numbers, path)
        points = np.full((len(numbers), 68, 2), np.nan)
        # OpenFace's whole numbers are the centres of pixels, ours their borders
        points[known] = found + 0.5
        shapes = picture_sizes(manifest, row, numbers)
        alignment.require_inside(points, shapes[:, None], path)
        points /= shapes[:, None]
        if aligned:
            # frames are brought to the size of the clip's first one before faces are cut out
            points = alignment.align(track, numbers, path).move(points * shapes[0])
        return points

    return points_of_clip


def dlib_points(packed: PackedClips, model_file: str | os.PathLike) -> PointsOfClip:
    """dlib's landmarks, found on the stored pictures themselves; a frame without a face, or with several, has none.

    Args:
        model_file: dlib's 68-point model, ``DLIB_MODEL``.

    Raises:
        AudferError: dlib is not installed, or there is no such file.
    """
    try:
        import dlib
    except ImportError:
        raise AudferError(
            "dlib: not installed; pip install dlib, or give a folder of OpenFace's CSVs instead"
        ) from None
    if not os.path.isfile(model_file):
        raise InputError(model_file, "dlib's 68-point model", "no such file", f"{DLIB_MODEL} (dlib.net/files)")
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
