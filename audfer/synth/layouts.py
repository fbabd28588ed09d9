"""Writers of the embedded benchmark: rendered clips in the directory layouts that users of the real datasets have.

Each dataset is drawn as a whole (``plans``, ``population``), rendered frame by frame (``face``) and written to
``root/<dataset>`` in the layout of that dataset's own release (``counterparts.toml``), so that the readers, checks and
packing of a real user are the ones that run by default. What was planted goes to ``root/truth`` and nowhere else; only
``read_truth`` and ``read_truth_landmarks`` open it.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import files
from ..errors import AudferError, InputError, refuse
from ..facs import ACTION_UNITS, EXPRESSIONS
from ..jobs.workers import IO_THREADS
from ..plugins import versions
from ..progress import progress as progress_bar
from ..sampling import uniform_indices
from . import population
from .plans import ALL, COUNTED, SynthConfig, plan
from .population import COUNTERPARTS, PRESENT, STYLES

#: file at the root of a written dataset that says it is rendered and from which settings
STAMP = "audfer_synth.json"
TRUTH = "truth"
_BATCH = 256


@dataclass
class _Drawn:
    """Everything about one dataset's frames but the pixels.

    Attributes:
        clips: of ``plans.plan``; people: how many.
        clip: (frames,) row of ``clips`` that each frame belongs to.
        frames: the first columns of the table that ``read_truth`` returns, one row per frame.
        intensities: (frames, 18).
        scenes: of ``population.sample_scenes``.
        people, seed: how many people, and of which draw.
    """

    clips: pd.DataFrame
    clip: np.ndarray
    frames: pd.DataFrame
    intensities: np.ndarray
    scenes: dict[str, np.ndarray]
    people: int
    seed: int

    def truth(self) -> pd.DataFrame:
        """The table that ``read_truth`` returns."""
        intensity_names, presence_names = population.frame_columns()
        intensities = pd.DataFrame(self.intensities, columns=intensity_names)
        presence = pd.DataFrame(self.intensities >= PRESENT, columns=presence_names)
        return pd.concat([self.frames, intensities, presence], axis=1)


def _draw(name: str, config: SynthConfig) -> _Drawn:
    generator = np.random.default_rng([config.seed, ALL.index(name)])
    clips, people = plan(name, config, generator)
    clip = np.repeat(clips.index, clips["length"])
    column = {key: values.to_numpy() for key, values in clips.items()}
    if name == "DISFA":
        intensities = np.concatenate([population.sample_annotated(length, generator) for length in clips["length"]])
        shown = np.ones(len(intensities), bool)
    else:
        # clips outside the seven get groups of their own beyond the seven
        groups = np.where(column["expression"] < 0, len(EXPRESSIONS) + column["pattern"], column["expression"])
        intensities, shown = population.sample_intensities(
            name, column["pattern"], column["length"], generator, second=column["second"], groups=groups
        )
    scenes = population.sample_scenes(STYLES[name], column["length"], generator, places=column["take"])
    people_seed = int(generator.integers(2**31))
    if name in COUNTED and config.test_frames:
        kept = _kept_frames(clips, config.test_frames)
        clip, intensities, shown = clip[kept], intensities[kept], shown[kept]
        scenes = {key: values if key == "quality" else values[kept] for key, values in scenes.items()}
        clips = clips.assign(length=np.bincount(clip, minlength=len(clips)))
    take = pd.Series(column["take"][clip])
    frames = pd.DataFrame(
        {
            "clip_id": column["clip_id"][clip],
            # frames of a long take count through all its runs
            "frame": take.groupby(take).cumcount().to_numpy(np.int32),
            "split": column["split"][clip],
            "expression": column["expression"][clip].astype(np.int8),
            "subject": column["subject"][clip],
            "ambiguous": column["second"][clip] >= 0,
            "second": column["second"][clip].astype(np.int8),
            "shown": shown,
        }
    )
    return _Drawn(clips, clip, frames, intensities, scenes, people, people_seed)


def _kept_frames(clips: pd.DataFrame, count: int) -> np.ndarray:
    """Numbers, among all frames of all clips, of those that are rendered: of a test clip ``count``, those that
    ``sampling.uniform_indices`` shows; of the others all.
    """
    starts = np.cumsum(clips["length"]) - clips["length"]
    return np.concatenate(
        [
            start + (np.unique(uniform_indices(length, count)) if split == "test" else np.arange(length))
            for start, length, split in zip(starts, clips["length"], clips["split"], strict=True)
        ]
    )


def _write_lists(name: str, drawn: _Drawn, folder: Path) -> list[Path | None]:
    """Write the text files of a dataset's layout; returns where each frame goes, ``None`` for one that is left out."""
    layout, label = COUNTERPARTS[name], drawn.clips["label"].to_numpy()
    frames = drawn.frames.assign(number=drawn.frames["frame"] + 1, label=label[drawn.clip])
    frames["part"] = frames["split"].map(layout.get("parts", {}))
    per = layout.get("per", "")
    if per == "clip":
        rows = drawn.clips.assign(clip_number=drawn.clips.index + 1)
    elif per == "action unit":
        codes = population.codes(drawn.intensities)
        rows = pd.concat([frames.assign(au=int(au[2:]), code=codes[:, k]) for k, au in enumerate(ACTION_UNITS)])
    else:
        rows = frames
    texts = defaultdict(lambda: list(layout.get("header", [])))
    for row in rows.to_dict("records") if per else ():
        texts[layout["list"].format(**row)].append(layout["line"].format(**row))
    for place, lines in texts.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text("".join(f"{line}\n" for line in lines))
    missing = np.random.default_rng(len(frames)).random(len(frames)) < layout.get("missing", 0)
    missing &= frames["number"] > 1
    places = [folder / layout["frame"].format(**row) for row in frames.to_dict("records")]
    return [None if lacks else place for lacks, place in zip(missing, places, strict=True)]


def _write_clip(paths: list[Path | None], images: np.ndarray, quality: int) -> None:
    """Write the frames of one clip (n, H, W, 3): pictures, or one video where all go to the same file."""
    import av
    from PIL import Image

    # a stretch of a long take may begin with a frame that is left out
    kept = [(path, image) for path, image in zip(paths, images, strict=True) if path is not None]
    for folder in {path.parent for path, _ in kept}:
        folder.mkdir(parents=True, exist_ok=True)
    suffix = kept[0][0].suffix if kept else ".jpg"
    if suffix in (".jpg", ".png"):
        options = {".jpg": {"quality": quality, "subsampling": 0}, ".png": {"compress_level": 1}}[suffix]
        for path, image in kept:
            Image.fromarray(image).save(path, **options)
        return
    codec, rate, pixels, options = {
        ".avi": ("mjpeg", 20, "yuvj444p", {"qmin": "2", "qmax": "2"}),
        ".mp4": ("libx264", 30, "yuv420p", {"crf": "14", "preset": "veryfast", "threads": "1"}),
    }[suffix]
    with av.open(str(kept[0][0]), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = pixels
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _render_all(drawn: _Drawn, paths: list[Path | None], config: SynthConfig, bar, device: str) -> np.ndarray:
    """Render every frame in order, and write each clip while the next ones are rendered.

    Returns:
        landmarks (frames, 68, 2) float32, pixels.
    """
    import torch

    from . import face

    count, ends = len(paths), np.cumsum(drawn.clips["length"])
    # RAVDESS and DISFA subjects, DFEW's train and DFEW's test pool: every dataset has people of its own
    people = face.sample_identities(drawn.people, seed=drawn.seed).to(device)
    person = torch.from_numpy(drawn.clips["person"].to_numpy()[drawn.clip]).to(device)
    # contiguous, as the order in memory decides how sums are rounded
    scenes = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in drawn.scenes.items() if name != "quality"}
    scene, intensities = face.Scene(**scenes, seed=torch.arange(count)), torch.from_numpy(drawn.intensities)
    landmarks = np.empty((count, 68, 2), np.float32)
    kept, writing, clip = np.empty((0, config.image_size, config.image_size, 3), np.uint8), [], 0
    with ThreadPoolExecutor(IO_THREADS) as pool:
        for start in range(0, count, _BATCH):
            frames = slice(start, min(start + _BATCH, count))
            images, points = face.render(
                people[person[frames]], intensities[frames], scene[frames].to(device), size=config.image_size
            )
            landmarks[frames] = points.cpu().numpy()
            for future in writing:
                future.result()
            kept, writing = np.concatenate([kept, images.cpu().numpy()]), []
            first = frames.stop - len(kept)
            while clip < len(ends) and ends[clip] <= frames.stop:
                quality = int(drawn.scenes["quality"][clip])
                pictures = kept[: ends[clip] - first]
                writing.append(pool.submit(_write_clip, paths[first : ends[clip]], pictures, quality))
                kept, first, clip = kept[len(pictures) :], ends[clip], clip + 1
            bar.update(frames.stop - frames.start)
        for future in writing:
            future.result()
    return landmarks


# ------------------------------------------------------------------------------------------------------------- public


def _signature(name: str, config: SynthConfig) -> dict:
    used = (*COUNTERPARTS[name]["settings"], "seed", "image_size")
    content = {key: value for key, value in asdict(config).items() if key in used}
    if "counts" in content:
        content["counts"] = content["counts"].get(name)
    return {
        "dataset": name,
        "rendered": True,
        "config": content,
        "code": versions("rendering"),
    }


def is_written(root: str | os.PathLike, name: str, config: SynthConfig) -> bool:
    """Whether ``root`` already holds this dataset, whole, as these settings and this code would write it."""
    root = Path(root)
    wanted = json.loads(json.dumps(_signature(name, config)))
    return files.read_json(root / name / STAMP) == wanted and all(path.is_file() for path in _truth_paths(root, name))


def write_benchmark(
    root: str | os.PathLike, config: SynthConfig, datasets=ALL, progress: bool = True, device: str = "cpu"
) -> None:
    """Render the embedded benchmark into ``root``: one folder per dataset in its own layout, and the truth beside.

    Each dataset appears whole or not at all (an interrupted run leaves nothing behind and a later one goes on with
    the next dataset); one that is already there from the same settings and code is left alone. The same seed writes
    the same bytes on one device; a GPU rounds otherwise, which changes single pixels by a step.

    Args:
        root: made if missing.
        config: sizes and seed.
        datasets: names from ``ALL``.
        progress: show a bar, in frames.
        device: that faces are rendered on, "cpu" or "cuda".

    Raises:
        InputError: an unknown dataset, or one without counts in ``config``.
        AudferError: the disk is full.
    """
    root = Path(root)
    expected = f"names from {', '.join(ALL)}"
    refuse("write_benchmark", ((name not in ALL, "datasets", repr(name), expected) for name in datasets))
    for name in datasets:
        if name in COUNTED and name not in config.counts:
            raise InputError("SynthConfig", "counts", f"nothing for {name}", f'{{"{name}": {{"train": n, "test": n}}}}')
    for name in ALL:
        if name not in datasets or is_written(root, name, config):
            continue
        drawn = _draw(name, config)
        with (
            files.atomic_folder(root / name, STAMP) as folder,
            progress_bar(total=len(drawn.clip), desc=f"render {name}", unit="frame", disable=not progress) as bar,
        ):
            landmarks = _render_all(drawn, _write_lists(name, drawn, folder), config, bar, device)
            # The truth first: a stamped dataset always has its own truth beside it.
            table, points = _truth_paths(root, name)
            with files.atomic_file(table) as path:
                drawn.truth().to_parquet(path, index=False)
            with files.atomic_file(points) as path, open(path, "wb") as handle:
                np.savez(handle, landmarks=landmarks)
            files.write_json(folder / STAMP, _signature(name, config))


def _truth_paths(root: Path, dataset: str) -> tuple[Path, Path]:
    """Where the table and the landmarks lie."""
    return root / TRUTH / f"{dataset}.parquet", root / TRUTH / f"{dataset}_landmarks.npz"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise AudferError(
            f"{path}: there is no planted truth here: write the embedded benchmark first (audfer data synth)"
        )
    return path


def read_truth(root: str | os.PathLike, dataset: str) -> pd.DataFrame:
    """What was planted, one row per frame. For evaluating recovery, and for cells that ask for planted action units by
    name.

    Args:
        root: where ``write_benchmark`` wrote.
        dataset: a name from ``ALL``.

    Returns:
        Columns ``clip_id`` (the manifest's; for Aff-Wild2 the video, that is the manifest's up to the colon, and for
        DISFA the subject), ``frame`` (0-based in the clip or video), ``split``, ``expression`` (-1: outside the
        seven), ``subject``, ``ambiguous``, ``second`` (the expression blended in, or -1), ``shown`` (the frame shows
        its label), 18 intensities "AU01_r" .. (0..5) and 18 presences "AU01_c" .. (bool, intensity at or above 1.5).

    Raises:
        AudferError: no truth there.
    """
    return pd.read_parquet(_existing(_truth_paths(Path(root), dataset)[0]))


def read_truth_landmarks(root: str | os.PathLike, dataset: str) -> np.ndarray:
    """(frames, 68, 2) float32 x, y in pixels of the written size, rows as in ``read_truth``.

    What a landmark detector would find without error; they may lie outside the picture.

    Raises:
        AudferError: no truth there.
    """
    with np.load(_existing(_truth_paths(Path(root), dataset)[1])) as content:
        return content["landmarks"]
