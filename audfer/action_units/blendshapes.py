"""Eight action units from MediaPipe's blendshapes: ``audfer au extract --backend blendshapes``.

The three networks inside Google's ``face_landmarker.task`` (a file of the user's; Apache-2.0) are run by
``ai-edge-litert`` alone: mediapipe itself contacts a host when it is used. They find a face, its 478 points and 52
blendshapes from 0 to 1. Over time eight of those go with OpenFace's AUs; their levels do not agree between people, and
nine AUs have no counterpart. So a clip's own lowest tenth counts as its face at rest, everything else is unknown, and a
table says who made it (``tool`` "blendshapes"): such tables are a source of their own, not to be mixed with OpenFace's.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.manifest import is_video, list_frames, read_image, video_frames
from ..errors import AudferError, InputError
from ..facs import INTENSITY_ACTION_UNITS
from ..files import UNREADABLE, file_digest
from ..openface import MAX_INTENSITY, AUTrack
from .backends import in_child
from .clips import Clip

#: AU -> blendshapes (by number) whose mean it is
UNITS: dict[str, tuple[int, ...]] = {
    "AU01": (3,),  # browInnerUp
    "AU02": (4, 5),  # browOuterUp, left and right
    "AU04": (1, 2),  # browDown
    "AU10": (48, 49),  # mouthUpperUp
    "AU12": (44, 45),  # mouthSmile
    "AU25": (34, 35),  # mouthLowerDown
    "AU26": (25,),  # jawOpen
    "AU45": (9, 10),  # eyeBlink
}
#: of a clip's own values, taken for its face at rest
REST = 0.1
#: of the detector and of the points' network: below, there is no face
_SURE = 0.5
#: side of a face's square, in sides of its box
_ROOM = 1.5
#: the 146 of the 478 points that blendshapes are made from (MediaPipe, face_blendshapes_graph.cc)
_SUBSET = [
    *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80),
    *(81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153),
    *(154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249),
    *(251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311),
    *(312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380),
    *(381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471),
    *(472, 473, 474, 475, 476, 477),
]


@dataclass(frozen=True)
class Blendshapes:
    """The extractor.

    Attributes:
        task_file: ``face_landmarker.task``.
    """

    task_file: str
    name, packed, group = "blendshapes", False, 1

    def settings(self) -> dict:
        return {"backend": self.name, "weights": file_digest(self.task_file), "rest": REST}

    def check(self) -> None:
        _networks(self.task_file)

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return clip.cut(in_child(_measure, self, clip, seconds=seconds))


@lru_cache(maxsize=1)
def _networks(task_file: str):
    """Functions of the three networks: inputs (1, ...) -> outputs."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise AudferError('blendshapes: pip install "audfer[blendshapes]" brings what runs their networks') from None

    def network(content: bytes):
        runs = Interpreter(model_content=content, num_threads=1)
        runs.allocate_tensors()
        (given,), results = runs.get_input_details(), runs.get_output_details()

        def run(values: np.ndarray) -> list[np.ndarray]:
            runs.set_tensor(given["index"], values.astype(np.float32))
            runs.invoke()
            return [runs.get_tensor(result["index"]) for result in results]

        return run

    names = ("face_detector", "face_landmarks_detector", "face_blendshapes")
    try:
        with zipfile.ZipFile(task_file) as archive:
            return [network(archive.read(f"{name}.tflite")) for name in names]
    except UNREADABLE as error:
        expected = "MediaPipe's face_landmarker.task (--task-file; developers.google.com, Face Landmarker)"
        raise InputError(task_file or "blendshapes", "file", str(error) or "no file named", expected) from None


def blendshapes(pictures: Iterable[np.ndarray], task_file: str | os.PathLike) -> Iterator[np.ndarray | None]:
    """The 52 blendshapes of each picture's largest face, (52,) in 0..1; ``None`` without a face.

    Args:
        pictures: (H, W, 3) uint8 RGB, frames of one clip in order: a face that was found is followed.
    """
    detect, find, shape = _networks(str(task_file))
    square = None
    for picture in pictures:
        points = _points(picture, square, find) if square is not None else None
        if points is None and (square := _detected(picture, detect)) is not None:
            points = _points(picture, square, find)
        if points is None:
            square = None
            yield None
            continue
        square = _square(points[:, 0].min() + 1j * points[:, 1].min(), points[:, 0].max() + 1j * points[:, 1].max(),
                         complex(*points[33]), complex(*points[263]))  # fmt: skip
        yield shape(points[None, _SUBSET])[0].ravel()


def _square(low: complex, high: complex, eye: complex, other: complex) -> tuple[complex, complex]:
    """Middle of the turned square around a face, and the step of half its side to the right."""
    size, turn = high - low, (other - eye) / max(abs(other - eye), 1e-6)
    return (low + high) / 2, _ROOM * max(size.real, size.imag) / 2 * turn


def _cut(picture: np.ndarray, middle: complex, right: complex, side: int) -> np.ndarray:
    """A turned square of a picture, (1, side, side, 3) float in 0..1; black outside."""
    step = right / (side / 2)
    origin = middle - right - 1j * right
    matrix = (step.real, -step.imag, origin.real, step.imag, step.real, origin.imag)
    image = Image.fromarray(picture).transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(image)[None] / 255


def _detected(picture: np.ndarray, detect) -> tuple[complex, complex] | None:
    """The square around the largest face that the detector is sure of."""
    height, width = picture.shape[:2]
    half, middle = max(height, width) / 2, complex(width / 2, height / 2)
    boxes, logits = detect(2 * _cut(picture, middle, complex(half), 128) - 1)
    sure = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -50, 50))) >= _SURE
    if not sure.any():
        return None
    # two anchors in each of 16 x 16 cells, then six in each of 8 x 8
    anchors = np.concatenate([
        np.repeat([(x + 0.5) / cells + 1j * (y + 0.5) / cells for y in range(cells) for x in range(cells)], count)
        for cells, count in ((16, 2), (8, 6))
    ])  # fmt: skip
    found = boxes[0, sure] / 128
    place = lambda at: anchors[sure] + found[:, at] + 1j * found[:, at + 1]  # noqa: E731
    largest = int(np.argmax(found[:, 2] * found[:, 3]))
    size = complex(found[largest, 2], found[largest, 3])
    corners = place(0)[largest] - size / 2, place(0)[largest] + size / 2
    corner = middle - half - 1j * half
    low, high, eye, other = (corner + 2 * half * value for value in (*corners, place(4)[largest], place(6)[largest]))
    return _square(low, high, eye, other)


def _points(picture: np.ndarray, square: tuple[complex, complex], find) -> np.ndarray | None:
    """The 478 points in a square, (478, 2) pixels; ``None`` where there is no face."""
    middle, right = square
    marks, *presence = find(_cut(picture, middle, right, 256))
    if 1 / (1 + np.exp(-float(presence[0].ravel()[0]))) < _SURE:
        return None
    marks = marks.reshape(478, 3)
    places = middle + right * ((marks[:, 0] / 128 - 1) + 1j * (marks[:, 1] / 128 - 1))
    return np.stack([places.real, places.imag], axis=1)


def _measure(backend: Blendshapes, clip: Clip) -> AUTrack:
    if is_video(clip.path):
        pictures = (picture for _, picture in video_frames(clip.path))
    else:
        pictures = (read_image(clip.path / name) for name in list_frames(clip.path))
    return track_of(list(blendshapes(pictures, backend.task_file)), Path(clip.path))


def track_of(found: list[np.ndarray | None], where) -> AUTrack:
    """Blendshapes of a clip as action units: 5 times what exceeds the clip's lowest tenth; presences are unknown.

    Raises:
        InputError: no face in any frame.
    """
    ok = np.array([each is not None for each in found], bool)
    if not ok.any():
        raise InputError(where, "faces", f"one in none of {len(found)} frames", "a face in a frame")
    shapes = np.stack([each for each in found if each is not None])
    intensity = np.full((len(found), len(INTENSITY_ACTION_UNITS)), np.nan, np.float32)
    for unit, numbers in UNITS.items():
        values = shapes[:, numbers].mean(1)
        above = np.clip(MAX_INTENSITY * (values - np.quantile(values, REST)), 0, MAX_INTENSITY)
        intensity[ok, INTENSITY_ACTION_UNITS.index(unit)] = above
    return AUTrack(
        intensity,
        np.full((len(found), 18), np.nan, np.float32),
        ok,
        np.arange(1, len(found) + 1),
        np.full(len(found), np.nan),
        report={"tool": "blendshapes", "version": "face_landmarker", "mode": "clip's lowest tenth is rest"},
    )
