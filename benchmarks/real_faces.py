"""Frames a second of every stage between a real video and an answer: ``python benchmarks/real_faces.py VIDEO...``.

One process, one thread, pictures decoded beforehand; processor time, which does not grow where others work too. Stages:
decoding; dlib's points (``audfer data landmarks``); faces cut out (``data pack --align``, here of every frame);
blendshapes, with ``--task-file``; the matrix alone with its 200 shuffled controls, which ``audfer predict`` asks once a
clip.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse  # noqa: E402
import datetime  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from audfer.companion.predict import read_clip  # noqa: E402
from audfer.datasets import alignment  # noqa: E402
from audfer.datasets.landmarks import dlib_model, face_points  # noqa: E402
from audfer.datasets.manifest import video_frames  # noqa: E402
from audfer.knowledge import KnowledgeMatrix  # noqa: E402
from audfer.openface import AUTrack  # noqa: E402


def timed(work) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(path: Path, task_file: str) -> dict:
    """Milliseconds per frame of every stage."""
    decoding, pictures = timed(lambda: [picture for _, picture in video_frames(path)])
    count = len(pictures)
    finding, found = timed(lambda: face_points(pictures))
    stages = {"decoding": decoding, "points": finding}
    ok = found.confidence > 0
    if ok.any():
        unknown = np.full((count, 17), np.nan), np.full((count, 18), np.nan)
        times = np.full(count, np.nan)
        track = AUTrack(*unknown, ok, np.arange(1, count + 1), times, found.points.astype(np.float32))
        stages["cutting"] = timed(lambda: alignment.align(track, np.arange(count)).cut(pictures, 112))[0]
    if task_file:
        from audfer.action_units.blendshapes import blendshapes

        next(blendshapes(pictures[:1], task_file))  # opened before the clock runs
        stages["blendshapes"] = timed(lambda: list(blendshapes(pictures, task_file)))[0]
    stages["matrix and controls, a clip"] = (
        count * timed(lambda: read_clip(KnowledgeMatrix.published(), np.ones(17)))[0]
    )
    height, width = pictures[0].shape[:2]
    per_frame = {name: round(1000 * seconds / count, 2) for name, seconds in stages.items()}
    return {"video": path.name, "frames": count, "size": f"{width}x{height}", "ms_per_frame": per_frame}


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("video", nargs="*", type=Path, help="without any, as in make bench, nothing is measured")
parser.add_argument("--task-file", default="", help="MediaPipe's face_landmarker.task")
parser.add_argument("--save", action="store_true", help="write a record to benchmarks/records")
options = parser.parse_args()
if not options.video:
    parser.exit(0, "real_faces: no video given, nothing measured\n")
dlib_model()
face_points([np.zeros((64, 64, 3), np.uint8)])  # the models are read before the clock runs
rows = [measure(path, options.task_file) for path in options.video]
for row in rows:
    print(f"{row['video']}, {row['frames']} frames of {row['size']}: {row['ms_per_frame']}")
record = {
    "date": datetime.date.today().isoformat(),
    "machine": platform.processor() or platform.machine(),
    "rows": rows,
}
if options.save:
    file = Path(__file__).parent / "records" / f"{record['date']}_real_faces.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(file)
