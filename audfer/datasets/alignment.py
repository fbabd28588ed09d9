"""Faces cut out of raw video with OpenFace's landmarks: a similarity transform a frame onto a template of eyes and
mouth.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ..errors import InputError
from ..openface import AUTrack, measured_size, read_openface

#: where the centres of both eyes and the corners of the mouth come to lie, as shares of the side: brows and chin stay
#: in
TEMPLATE = np.array([[0.35, 0.38], [0.65, 0.38], [0.376, 0.727], [0.624, 0.727]])
#: distance of the eyes in the source below which a face is too small to be aligned, in pixels
SMALLEST = 4.0
#: root mean square distance from the template, as a share of the side, above which landmarks are no face
LARGEST_RESIDUAL = 0.25


@dataclass(frozen=True)
class Alignment:
    """How the frames of a clip are cut out.

    Attributes:
        scale_turn: complex (n,); a source point x + iy lies at ``scale_turn * point + shift`` in the unit square.
        shift: complex (n,).
        found: (n,) bool; False where the frame has no landmarks and borrows the nearest frame's transform.
        residual: (n,) root mean square distance of the four points from the template, as a share of the side.
        eyes: (n,) distance of the eyes in the source, pixels.
    """

    scale_turn: np.ndarray
    shift: np.ndarray
    found: np.ndarray
    residual: np.ndarray
    eyes: np.ndarray

    def move(self, points: np.ndarray) -> np.ndarray:
        """Source points (n, ..., 2) in the unit square."""
        turned = self.scale_turn[:, None] * (points[..., 0] + 1j * points[..., 1]) + self.shift[:, None]
        return np.stack([turned.real, turned.imag], axis=-1)

    def cut(self, pictures: np.ndarray, size: int) -> np.ndarray:
        """The faces in pictures (n, H, W, 3), uint8 (n, size, size, 3)."""
        return np.stack([cut(*each, size) for each in zip(pictures, self.scale_turn, self.shift, strict=True)])

    def quality(self) -> dict:
        """One row about the clip: frames, without_landmarks, eye_distance (median, pixels), residual (median)."""
        return {
            "frames": len(self.found),
            "without_landmarks": int((~self.found).sum()),
            "eye_distance": round(float(np.median(self.eyes)), 2),
            "residual": round(float(np.median(self.residual)), 4),
        }


def track_names(clip_id: str) -> list[str]:
    """What OpenFace's file of a clip may be called, without its ending; windows of one take share one.

    Slashes of the id are folders or underscores. RAVDESS publishes each trial with sound (01-) and without (02-): the
    pictures are the same, and so are their landmarks and action units.
    """
    stem = clip_id.split(":")[0]
    trial = re.fullmatch(r"(.*/)?0[12]((?:-\d\d){6})", stem)
    stems = [stem, *(f"{trial[1] or ''}{modality}{trial[2]}" for modality in ("01", "02") if trial)]
    return list(dict.fromkeys(name for stem in stems for name in (stem, stem.replace("/", "_"))))


def track_file(folder: str | os.PathLike, clip_id: str) -> Path | None:
    """OpenFace's file of a clip: one of ``track_names``, or the last part of the id."""
    names = dict.fromkeys((*track_names(clip_id), *track_names(clip_id.split("/")[-1])))
    files = (Path(folder, name + suffix) for name in names for suffix in (".csv", ".txt"))
    return next((file for file in files if file.is_file()), None)


def find_track(folder: str | os.PathLike, clip_id: str) -> Path:
    """``track_file``, or a sentence.

    Raises:
        InputError: there is none.
    """
    if (file := track_file(folder, clip_id)) is None:
        raise InputError(folder, f"OpenFace file of clip {clip_id}", "none", f"{clip_id.split(':')[0]}.csv")
    return file


def points_of(track: AUTrack, numbers: np.ndarray, where: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Which of the frames a track has, bool (n,), and their landmarks, float32 (known, 68, 2) in pixels.

    Args:
        numbers: (n,) 0-based; OpenFace counts from 1.
        where: for the error sentence.

    Raises:
        InputError: no landmark columns.
    """
    if track.landmarks is None:
        raise InputError(where, "columns x_0 .. y_67", "none", "landmarks: run FeatureExtraction with -2Dfp")
    place = np.asarray(numbers) + 1 - track.frame[0]
    known = (place >= 0) & (place < len(track))
    return known, track.landmarks[place[known]]


def fitted(track: AUTrack, sizes: np.ndarray, where: str | os.PathLike) -> AUTrack:
    """A track with its landmarks in pixels of these pictures, where OpenFace measured them on another copy and noted
    its size beside the file (``measured_size``).

    Without a note they are taken for those of the pictures as they are, and so are those of pictures of several sizes,
    of which OpenFace notes the first one's. Landmarks of a smaller copy are then not told from those of a smaller face.

    Args:
        sizes: (width, height) of the pictures, (2,) or (n, 2).
        where: the file.

    Raises:
        InputError: the other copy has another shape, so that it is another cut of the scene.
    """
    noted, sizes = measured_size(where), np.unique(np.reshape(sizes, (-1, 2)), axis=0)
    if track.landmarks is None or noted is None or len(sizes) > 1 or np.abs(sizes[0] - noted).max() <= 1:
        return track
    factor = sizes[0] / noted
    if abs(factor[0] - factor[1]) > 0.01 * factor.max() + 1 / min(noted):
        found = f"those of pictures of {noted[0]:g}x{noted[1]:g} (OpenFace's note beside it)"
        raise InputError(where, "landmarks", found, f"those of these pictures, {sizes[0][0]}x{sizes[0][1]}")
    # OpenFace's whole numbers are the centres of pixels
    return replace(track, landmarks=((track.landmarks + 0.5) * factor - 0.5).astype(np.float32))


def require_inside(points: np.ndarray, sizes: np.ndarray, where: str | os.PathLike) -> None:
    """Refuse landmarks of larger pictures than these: eyes or mouth outside in more than half of the frames.

    A chin may well leave the picture.

    Args:
        points: (n, 68, 2), pixels; NaN unknown.
        sizes: (width, height) of the pictures, (2,) or (n, 1, 2).

    Raises:
        InputError: naming the sizes.
    """
    known = np.isfinite(points).all((1, 2))
    outside = ((points < -1) | (points > np.asarray(sizes) + 1))[known, 36:].any((1, 2))
    if outside.sum() > known.sum() / 2:
        width, height = np.asarray(sizes).reshape(-1, 2).max(0)
        right, bottom = points[known].max((0, 1))
        found = f"points up to x={right:.0f}, y={bottom:.0f} in pictures of {width}x{height}"
        raise InputError(where, "landmarks", found, "those of these pictures, not of a larger copy")


def align(
    track: AUTrack, numbers: np.ndarray, where: str | os.PathLike = "", sizes: np.ndarray | None = None
) -> Alignment:
    """Least-squares similarity transforms (turn, scale, shift; no shear, no mirror) onto ``TEMPLATE``.

    Args:
        track: with landmarks; its frames count from 1, as OpenFace's do.
        numbers: (n,) 0-based numbers of the frames wanted. Frames without landmarks take the nearest frame's transform.
        where: for the error sentence.
        sizes: (width, height) of these frames' pictures (n, 2), in which the landmarks must lie.

    Raises:
        InputError: no landmark columns, no frame with usable ones, or ``require_inside``.
    """
    points = points_of(track, track.frame - 1, where)[1].astype(np.float64)
    # eye centres and mouth corners, in iBUG's order
    four = [points[:, 36:42].mean(1), points[:, 42:48].mean(1), points[:, 48], points[:, 54]]
    source = np.stack(four, axis=1) @ np.array([1, 1j])
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        centred, wanted = source - source.mean(1, keepdims=True), target - target.mean()
        # the best turn and scale is one complex number: the regression of the template on the points
        scale_turn = (centred.conj() * wanted).sum(1) / (np.abs(centred) ** 2).sum(1)
        shift = target.mean() - scale_turn * source.mean(1)
        residual = np.sqrt((np.abs(scale_turn[:, None] * centred - wanted) ** 2).mean(1))
        eyes = np.abs(source[:, 1] - source[:, 0])
        good = track.ok & np.isfinite(scale_turn) & (eyes >= SMALLEST) & (residual <= LARGEST_RESIDUAL)
    if not good.any():
        raise InputError(where, "landmarks", f"none usable in {len(good)} frames", "a face in at least one frame")
    tracked = track.frame[good] - 1
    nearest = np.abs(np.asarray(numbers)[:, None] - tracked).argmin(1)
    chosen = np.flatnonzero(good)[nearest]
    if sizes is not None:
        require_inside(points[chosen], sizes[:, None], where)
    return Alignment(scale_turn[chosen], shift[chosen], tracked[nearest] == numbers, residual[chosen], eyes[chosen])


def cut(picture: np.ndarray, scale_turn: complex, shift: complex, size: int) -> np.ndarray:
    """The aligned face, uint8 (size, size, 3); black where the source ends.

    The face is drawn at the source's resolution and then averaged down, so that small sides do not alias.
    """
    factor = max(1, math.ceil(1 / (abs(scale_turn) * size)))
    side = factor * size
    inverse = 1 / (scale_turn * side)
    origin = -shift / scale_turn
    matrix = (inverse.real, -inverse.imag, origin.real, inverse.imag, inverse.real, origin.imag)
    drawn = Image.fromarray(picture).transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(drawn.reduce(factor) if factor > 1 else drawn)


def clip_alignment(
    folder: str | os.PathLike, clip_id: str, numbers: np.ndarray, sizes: np.ndarray | None = None
) -> Alignment:
    """``align`` for a clip whose OpenFace file lies in ``folder``."""
    path = find_track(folder, clip_id)
    track = read_openface(path, face="longest", require_presence=False, require_aus=False)
    return align(track if sizes is None else fitted(track, sizes, path), numbers, path, sizes)


def contact_sheet(rows: list[tuple[str, np.ndarray, np.ndarray, Alignment]], cell: int = 112) -> Image.Image:
    """Before and after, a pair of rows per clip, one column per frame.

    Args:
        rows: (title, source frames uint8 (n, H, W, 3), cut faces uint8 (n, size, size, 3), their alignment).
        cell: side of a picture on the sheet, pixels. The cut is outlined in the source, red where it was borrowed.
    """
    columns = max(len(before) for _, before, _, _ in rows)
    line, gap, top = 16, 4, 4
    # wide pictures need less than a square
    tall = [round(cell * before.shape[1] / max(before.shape[1:3])) for _, before, _, _ in rows]
    height = gap + sum(line + high + cell + 3 * gap for high in tall)
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, height), "white")
    draw = ImageDraw.Draw(sheet)
    for (title, before, after, alignment), high in zip(rows, tall, strict=True):
        draw.text((gap, top), title[: columns * cell // 6], fill="black")
        corners = np.array([0, 1, 1 + 1j, 1j, 0]) - alignment.shift[:, None]
        corners /= alignment.scale_turn[:, None]
        for column, (source, face) in enumerate(zip(before, after, strict=True)):
            left, shown = gap + column * (cell + gap), Image.fromarray(source)
            factor = cell / max(shown.size)
            shown = shown.resize([max(1, round(side * factor)) for side in shown.size])
            outline = [(factor * corner.real, factor * corner.imag) for corner in corners[column]]
            ImageDraw.Draw(shown).line(outline, fill="lime" if alignment.found[column] else "red", width=2)
            sheet.paste(shown, (left, top + line))
            sheet.paste(Image.fromarray(face).resize((cell, cell)), (left, top + line + high + gap))
        top += line + high + cell + 3 * gap
    return sheet


def quality_table(rows: list[dict]) -> pd.DataFrame:
    """``Alignment.quality`` of many clips, the worst first."""
    table = pd.DataFrame(rows, columns=["clip_id", "frames", "without_landmarks", "eye_distance", "residual"])
    return table.sort_values(["residual", "clip_id"], ascending=[False, True], ignore_index=True)
