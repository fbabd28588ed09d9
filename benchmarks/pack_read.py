"""Clips a second at random: from the packed store, and by decoding and resizing the same clips' JPEGs with Pillow.

Both are measured in one run, on one core, one clip after another in the same random order: 16 JPEGs of 224 x 224 pixels
a clip, made by the renderer with film grain so that their files are as large as a face crop's, to 112 x 112. The files
of both are in the page cache. ``packed`` copies the clip out of the memory map; ``pillow`` decodes at full size and
resizes; ``pillow_draft`` lets the JPEG decoder halve the picture while it decodes, as ``load_frames`` does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from audfer import datasets
from audfer.synth import face

CLIPS, FRAMES, SOURCE, SIZE = 96, 16, 224, 112
EXPRESSIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def write_clips(root: Path) -> int:
    """A folder of clips a class; returns the mean size of a JPEG in bytes."""
    generator = np.random.default_rng(0)
    people = face.sample_identities(CLIPS, seed=0)
    scene = face.neutral_scene(CLIPS)
    images, _ = face.render(people, torch.zeros(CLIPS, 18), scene, SOURCE)
    sizes = []
    for clip, image in enumerate(images.numpy()):
        folder = root / EXPRESSIONS[clip % 7] / f"{clip:05d}"
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            noisy = image + generator.normal(0, 4, image.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{frame + 1}.jpg", quality=90)
            sizes.append((folder / f"{frame + 1}.jpg").stat().st_size)
    return int(np.mean(sizes))


def decode(folder: Path, draft: bool) -> np.ndarray:
    """A clip's 16 pictures with Pillow, uint8 (16, 112, 112, 3)."""
    out = []
    for frame in range(1, FRAMES + 1):
        with Image.open(folder / f"{frame}.jpg") as image:
            if draft:
                image.draft("RGB", (SIZE, SIZE))
            out.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    return np.stack(out)


def clips_per_second(read, order: np.ndarray, repeats: int) -> float:
    """Best of three runs over ``order``, ``repeats`` times each."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(repeats):
            for clip in order:
                read(clip)
        best = min(best, time.process_time() - start)
    return repeats * len(order) / best


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="where to write the record (default: benchmarks/records, with the date)"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write_clips(root / "clips")
        manifest = datasets.read_dataset("folder", root / "clips")
        packed = datasets.pack(manifest, root / "packed", FRAMES, SIZE, progress=False)
        paths = [root / "clips" / path for path in manifest.table["path"]]
        assert np.array_equal(packed.frames[5], decode(paths[5], draft=True))  # the same pictures, not only as many
        order = np.random.default_rng(1).permutation(len(packed))
        speeds = {
            "packed": clips_per_second(lambda clip: np.array(packed.frames[clip]), order, 50),
            "pillow": clips_per_second(lambda clip: decode(paths[clip], draft=False), order, 1),
            "pillow_draft": clips_per_second(lambda clip: decode(paths[clip], draft=True), order, 1),
        }
    record = {
        "benchmark": "pack_read",
        "date": datetime.date.today().isoformat(),
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "clips": CLIPS,
        "frames": FRAMES,
        "source_side": SOURCE,
        "side": SIZE,
        "bytes_per_jpeg": size,
        "timing": "processor seconds of one core, best of 3 runs, random order, page cache warm",
        "clips_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "packed_times_faster_than_pillow": round(speeds["packed"] / speeds["pillow"], 1),
        "packed_times_faster_than_pillow_draft": round(speeds["packed"] / speeds["pillow_draft"], 1),
    }
    text = json.dumps(record, indent=2)
    print(text)
    out = arguments.out or Path(__file__).with_name("records") / f"{record['date']}_pack_read.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
