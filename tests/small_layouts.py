"""The seven layouts on disk, a few clips each with tiny pictures: what the readers, the check and the packer are tried
on.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

FERV = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
MAFW = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt")


@lru_cache(maxsize=None)
def jpeg(value: int, side: int = 12) -> bytes:
    """A grey picture whose every pixel is ``value``."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value % 256,) * 3).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def clip(folder: Path, value: int = 100, count: int = 3, name: str = "{}.jpg", side: int = 12) -> Path:
    """A folder of ``count`` frames from 1; frame n is grey ``value + n``. Bytes differ from clip to clip."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        # bytes after the end of a JPEG are ignored by decoders: same picture, another file
        (folder / name.format(number)).write_bytes(
            jpeg(value + number, side) + str(folder).encode()[-20:] + b"\xff\xd9"
        )
    return folder


def video(path: Path, count: int = 5, side: int = 32, value: int = 0) -> Path:
    """A video of grey frames, 40 apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            picture = np.full((side, side, 3), (value + 40 * number) % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def lines(path: Path, *text: str) -> Path:
    """A text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")
    return path


def dfew(
    root: Path, clips: str = "Clip/clip_224x224", split: str = "{}(single-labeled)", folds=(1,), count: int = 7
) -> Path:
    """``count`` training and test clips, one label after the other."""
    for part, first in (("train", 1), ("test", 101)):
        for fold in folds:
            lines(
                root / "EmoLabel_DataSplit" / split.format(part) / f"set_{fold}.csv",
                "video_name,label",
                *[f"{first + i},{i % 7 + 1}" for i in range(count)],
            )
        for i in range(count):
            if clips.endswith("original"):
                video(root / clips / f"{first + i:05d}.mp4", value=i)
            else:
                clip(root / clips / f"{first + i:05d}", first + i)
    return root


def ferv39k(root: Path, clips: str = "2_ClipsforFaceCrop") -> Path:
    for part, number in (("train", "0001"), ("test", "0002")):
        lines(root / "4_setups" / "All_scenes" / f"{part}_All.csv", *[f"Action/{e}/{number} {e}" for e in FERV])
        for position, emotion in enumerate(FERV):
            clip(root / clips / "Action" / emotion / number, 10 * position)
    return root


def mafw(root: Path, top: str = "Train & Test Set", clips: str = "data/faces", folds=(1,)) -> Path:
    for part, first in (("train", 1), ("test", 51)):
        for fold in folds:
            lines(
                root / top / "single" / "no_caption" / f"set_{fold}" / f"{part}.txt",
                *[f"{first + i:05d}.mp4 {label}" for i, label in enumerate(MAFW)],
            )
        for i in range(len(MAFW)):
            if clips.endswith("clips"):
                video(root / clips / f"{first + i:05d}.mp4", value=i)
            else:
                clip(root / clips / f"{first + i:05d}", first + i, name="{:05d}.png")
    return root


AFEW_NAMES = {
    "Happiness": "Happy",
    "Sadness": "Sad",
    "Neutral": "Neutral",
    "Anger": "Angry",
    "Surprise": "Surprise",
    "Disgust": "Disgust",
    "Fear": "Fear",
}


def afew(root: Path, form: str = "former-dfer", counts: dict | None = None) -> Path:
    """Former-DFER's form or EmotiW's (``faces``, ``video``); ``counts``: part -> emotion -> clips, default one each."""
    for part, short, first in (("train", "Train", 0), ("validation", "Val", 500_000)):
        number = first
        for long, brief in AFEW_NAMES.items():
            for _ in range(1 if counts is None else counts[part][long]):
                number += 1
                name = f"{number:09d}"
                if form == "former-dfer":
                    clip(root / part / long / name, number % 90, 1 if counts else 3)
                    continue
                path = root / f"{short}_AFEW" / brief / f"{name}.avi"
                if form == "faces":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"not looked at")
                    points = "AlignedFaces_LBPTOP_Points" + ("_Val" if short == "Val" else "")
                    clip(root / f"{short}_AFEW" / points / points / "Faces" / name, number % 90, name="{:03d}.jpg")
                else:
                    video(path, value=number)
    return root


HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def affwild2(root: Path, labels=(0,) * 20 + (-1,) * 2 + (4,) * 7 + (7,), missing=(3, 25), header: str = HEADER) -> Path:
    for part, name, top in (
        ("Train_Set", "video1", "cropped_aligned"),
        ("Train_Set", "9_left", "cropped_aligned"),
        ("Validation_Set", "2-right", "cropped_aligned_new_50_vids"),
    ):
        lines(
            root / "5th ABAW Annotations" / "EXPR_Recognition_Challenge" / part / f"{name}.txt",
            header,
            *map(str, labels),
        )
        folder = clip(root / top / name, len(name), len(labels), "{:05d}.jpg")
        for number in missing:
            (folder / f"{number:05d}.jpg").unlink()
    return root


def ravdess(root: Path, actors=("01", "02"), emotions=("01", "02", "03", "08"), channel: str = "01") -> Path:
    for actor in actors:
        for position, emotion in enumerate(emotions):
            name = f"02-{channel}-{emotion}-01-01-01-{actor}"
            video(root / f"Actor_{actor}" / f"{name}.mp4", value=9 * int(actor) + position)
    return root


def folder(root: Path, tops=("train", "test"), classes=("happy", "Anger", "sadness"), count: int = 2) -> Path:
    for top in tops or ("",):
        for position, name in enumerate(classes):
            for number in range(count):
                clip(root / top / name / f"clip{number}", 20 * position + number)
    return root


#: dataset -> writes it into an empty folder and returns that
WRITERS = {
    "DFEW": dfew,
    "FERV39k": ferv39k,
    "MAFW": mafw,
    "AFEW": afew,
    "AffWild2": affwild2,
    "RAVDESS": ravdess,
    "folder": folder,
}
