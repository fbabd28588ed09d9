"""What the part of a network that is not trained makes of the annotated frames, computed once for all cells.

Size "estimator" of Lock and Check leaves all but the last stage of the estimator of notebook 01 as they are. Their maps
of a frame never change
then, so they are stored: one of the frame as it is, and one of its mirror image, the only augmentation that such cells
    have.
A training step costs less than half of one from pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.annotated_frames import AnnotatedFrames
from ..errors import InputError
from ..files import UNREADABLE, atomic_folder, digest, new_array, write_json
from ..plugins import versions
from ..progress import progress
from ..recipes import Augmentation
from ..training.augmentation import augment_with_points, resize
from ..training.engine import same_threads
from .network import LAC

_MIRROR = Augmentation("mirror", flip=1.0)
_BATCH = 128


@dataclass(frozen=True)
class TrunkMaps:
    """Maps behind the frozen part of a network.

    Attributes:
        maps: float16 (2, n, h, w, N), memory-mapped: of every frame as it is, and mirrored. The 11 bits of its mantissa
            hold what bf16 gives exactly, except for values below 6e-5, which lose bits.
        landmarks: float32 (2, n, 68, 2) of the same pictures, in 0..1 of the side, NaN unknown or outside.
        dtype: that networks are given them in.
    """

    maps: np.ndarray
    landmarks: Tensor
    dtype: torch.dtype

    def take(self, windows: np.ndarray, mirrored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps (B, t, N, h, w) and landmarks (B, t, 68, 2) of the frames of windows (B, t).

        Args:
            mirrored: bool (B,), the windows whose mirror image is wanted; ``None`` = none.
        """
        side = np.zeros(len(windows), int) if mirrored is None else mirrored.numpy().astype(int)
        maps = torch.from_numpy(self.maps[side[:, None], windows]).to(self.dtype)
        return maps.permute(0, 1, 4, 2, 3), self.landmarks[torch.from_numpy(side)[:, None], torch.from_numpy(windows)]


@torch.inference_mode()
def trunk_maps(
    network: LAC,
    data: AnnotatedFrames,
    folder: str | Path,
    weights: str,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> TrunkMaps:
    """The maps of all annotated frames, made if they are not there; about 8 KB a frame and side at 64 pixels.

    Args:
        network: with a backbone that has a ``trunk``. folder: where the maps go. weights: fingerprint of the trunk's
            weights.
        device, precision: that the trunk runs with.

    Raises:
        InputError: the folder's files are not whole.
    """
    folder = Path(folder)
    stamp = digest(
        [
            data.meta["fingerprint"],
            weights,
            network.image_size,
            len(network.backbone.frozen),
            precision,
            versions("trunk maps"),
        ]
    )
    meta = folder / "meta.json"
    if not meta.is_file() or stamp not in meta.read_text():
        _make(network, data, folder, stamp, device, precision)
    try:
        return TrunkMaps(
            np.load(folder / "maps.npy", mmap_mode="r"),
            torch.from_numpy(np.load(folder / "landmarks.npy")),
            torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    except UNREADABLE as error:
        raise InputError(
            folder,
            "stored maps",
            f"{type(error).__name__}: {error}",
            "maps.npy, landmarks.npy and meta.json; delete the folder to make them again",
        ) from None


def _make(network: LAC, data: AnnotatedFrames, folder: Path, stamp: str, device: str, precision: str) -> None:
    count, generator = len(data.frames), torch.Generator()
    network.to(device, memory_format=torch.channels_last).eval()
    points = torch.from_numpy(data.landmarks)[:, None]
    with (
        same_threads(),
        atomic_folder(folder) as temporary,
        progress(total=count, desc="maps of the frozen stages", unit="frame") as bar,
    ):
        stored, landmarks = None, torch.stack((points, points))
        for start in range(0, count, _BATCH):
            part = slice(start, min(start + _BATCH, count))
            pictures = torch.from_numpy(np.array(data.frames[part])).to(device).permute(0, 3, 1, 2)[:, None]
            if pictures.shape[-1] != network.image_size:
                pictures = resize(pictures[:, 0].float(), network.image_size).round().to(torch.uint8)[:, None]
            mirror, landmarks[1, part] = augment_with_points(pictures, points[part], _MIRROR, generator)
            for side, shown in enumerate((pictures.float() / 255, mirror)):
                with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
                    maps = network.backbone.trunk(shown[:, 0]).permute(0, 2, 3, 1).half().cpu().numpy()
                if stored is None:
                    stored = new_array(temporary / "maps.npy", (2, count, *maps.shape[1:]), np.float16)
                stored[side, part] = maps
            bar.update(part.stop - start)
        stored.flush()
        np.save(temporary / "landmarks.npy", landmarks[:, :, 0].numpy())
        write_json(temporary / "meta.json", {"stamp": stamp})
