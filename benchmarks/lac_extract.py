"""Frames a second of the AU extractors: ``python benchmarks/lac_extract.py``, about four minutes on two quiet cores.

For the baseline estimator (64 pixels), Lock and Check tiny and Lock and Check at paper size (ResNet-50, 224 pixels, 16
frames a window): the network alone, one clip a forward pass ("single") and several ("batched"), in float32 and
bfloat16, with one thread and with two (``--threads`` for another number), all in turns, so that what else the machine
does meets all of them.
Decoding is measured apart: videos (H.264) and folders of JPEGs, read as the extractors read them and resized to the
    network's
side. "streamed" is both together, from videos through ``streaming.judge_streams``, one thread, float32, batched. The
clips are
rendered, the weights fresh: neither changes the time. On a machine that other work shares: ``--threads 1 --clock
    processor``.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from model_speed import Clock, arguments_for, in_turns, prepare, spread, write_record
from PIL import Image

from audfer import datasets
from audfer.action_units.estimator import ActionUnitEstimator, predict
from audfer.datasets.manifest import stream_frames
from audfer.facs import EXPRESSIONS
from audfer.lock_and_check.network import build_lac, lac_flops
from audfer.lock_and_check.streaming import judge_streams
from audfer.lock_and_check.training import Recogniser
from audfer.synth import rendered_clips
from audfer.training.engine import threads

FRAMES = 16
#: network -> clips of a turn, and clips of a batch
CLIPS = {"baseline": (32, 16), "lac tiny": (32, 8), "lac paper": (2, 2)}


def network_for(name: str):
    """(what judges clips (n, 16, side, side, 3) uint8 at once.

    ``judge(clips, device, precision)``, side, the network).
    """
    torch.manual_seed(0)
    if name == "baseline":
        estimator = ActionUnitEstimator(64).eval()

        def judge(clips, device, precision):
            return predict(estimator, clips.reshape(-1, *clips.shape[2:]), 4096, device, precision)

        return judge, 64, estimator
    recogniser = Recogniser(build_lac(name.split()[1], window=FRAMES).eval())
    return recogniser.judge, recogniser.image_size, recogniser


def write_clips(folder: Path, side: int, count: int) -> None:
    """The same rendered clips as videos, ``folder/videos``, and as JPEGs, ``folder/jpegs``, one folder a class."""
    clips = rendered_clips(count, FRAMES, side)[0].permute(0, 1, 3, 4, 2).numpy()
    for number, clip in enumerate(clips):
        place = Path(EXPRESSIONS[number % len(EXPRESSIONS)], f"{number:03d}")
        video = folder / "videos" / place.with_suffix(".mp4")
        video.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(video), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
            for frame in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        jpegs = folder / "jpegs" / place
        jpegs.mkdir(parents=True)
        for frame, picture in enumerate(clip, 1):
            Image.fromarray(picture).save(jpegs / f"{frame}.jpg", quality=90)


def network_speed(name: str, device: str, clock: Clock, repeats: int, counts: tuple[int, ...]) -> list[dict]:
    """Frames a second of the network alone, every combination in turns; ``counts``: of threads, the least first."""
    judge, side, _ = network_for(name)
    count, batch = CLIPS[name]
    clips = rendered_clips(count, FRAMES, side)[0].permute(0, 1, 3, 4, 2).contiguous().numpy()
    works, rows = {}, []
    for precision in ("float32", "bf16"):
        for mode, size in (("single", 1), ("batched", batch)):
            for number in counts:

                def work(_, precision=precision, size=size, number=number):
                    with threads(number):
                        for start in range(0, count, size):
                            judge(clips[start : start + size], device, precision)

                works[precision, mode, number] = work
    seconds, _ = in_turns(works, repeats, clock, warm_up=1)
    slowest = np.array(seconds["float32", "single", counts[0]])
    for (precision, mode, number), spent in seconds.items():
        rows.append(
            {
                "network": name,
                "side": side,
                "precision": precision,
                "mode": mode,
                "clips_a_forward_pass": 1 if mode == "single" else batch,
                "threads": number,
                "frames_per_second": spread([count * FRAMES / value for value in spent]),
                "times_as_fast_as_the_first_row": spread(slowest / np.array(spent)),
            }
        )
    return rows


def pipeline_speed(name: str, device: str, clock: Clock, repeats: int, folder: Path) -> dict:
    """Frames a second of decoding alone, and of decoding and network together, one thread."""
    count, batch = CLIPS[name]
    _, side, network = network_for(name)
    write_clips(folder, side, count)
    manifests = {kind: datasets.read_dataset("folder", folder / kind) for kind in ("videos", "jpegs")}

    def decode(kind: str, _) -> int:
        return sum(1 for _ in stream_frames(manifests[kind], side))

    works = {f"decode_{kind}": partial(decode, kind) for kind in manifests}
    if name != "baseline":
        works["streamed"] = lambda _: list(
            judge_streams(network, [("all", stream_frames(manifests["videos"], side))], device=device, batch=batch)
        )
    with threads(1):
        seconds, results = in_turns(works, repeats, clock, warm_up=1)
    assert results["decode_videos"][0] == results["decode_jpegs"][0] == count * FRAMES
    return {
        "network": name,
        "side": side,
        **{
            f"{key}_frames_per_second": spread([count * FRAMES / value for value in values])
            for key, values in seconds.items()
        },
    }


def main() -> None:
    """Measure; print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=7)
    parser.set_defaults(models=list(CLIPS))
    next(action for action in parser._actions if action.dest == "models").choices = list(CLIPS)
    arguments = parser.parse_args()
    device, clock, where = prepare(arguments)
    counts = (arguments.threads,) if arguments.threads else (1, 2) if device == "cpu" else (1,)
    record = {
        "benchmark": "lac_extract",
        **where,
        "frames_a_clip": FRAMES,
        "timing": "in turns; medians and quartiles; paper size fewer turns",
        "network": [],
        "pipeline": [],
        "gmacs_of_16_frames": {
            name: round(lac_flops(build_lac(name.split()[1]))["gmacs"], 3) for name in CLIPS if name != "baseline"
        },
    }
    start = time.perf_counter()
    for name in arguments.models:
        repeats = max(2, arguments.repeats // 3) if name == "lac paper" else arguments.repeats
        for row in network_speed(name, device, clock, repeats, counts):
            record["network"].append(row)
            print(json.dumps(row), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            record["pipeline"].append(pipeline_speed(name, device, clock, repeats, Path(folder)))
        print(json.dumps(record["pipeline"][-1]), flush=True)
    write_record(record | {"seconds": round(time.perf_counter() - start)}, arguments.out)


if __name__ == "__main__":
    main()
