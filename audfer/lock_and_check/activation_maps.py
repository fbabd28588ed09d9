"""Where a network looks for an action unit, and how much of that lies where the action unit shows.

Two kinds of maps, each the same for all networks (``KINDS``), so that they can be compared:

- *evidence*: what each place adds to the AU's logit: the last feature map times the logit's gradient, summed over
  channels (HiResCAM: Draelos and Carin, arXiv 2011.08891). For global average pooling and a linear layer that is the
  class activation map of Zhou et al. (CVPR 2016). Of Lock and Check, whose logit grows with the features as they do, it
  adds up to the logit as well. The logit is that of a single picture: the first stage's y', whose map Lock shapes; y''
  also depends on other AUs and other frames.
- *similarity*: the cosine between the AU's class weights and the features, M of Lock and Check, which its losses act
  on. Its baseline has class weights too; the estimator of notebook 01 has none.

Negative places are set to 0 in both. *Localisation* is a number: the share of a map's sum inside the AU's two regions
(LAC Table I). Maps are interpolated to one grid of ``GRID`` x ``GRID`` places first, so that coarse and fine maps are
measured alike; the regions' share of that grid
is what a map that is the same everywhere gets, and one that is 0 everywhere: it points nowhere.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..action_units.estimator import ActionUnitEstimator
from ..errors import InputError, refuse
from ..evaluation import DRAWS, LEVEL, SEED, bootstrap, equal_shares, limits, mean_of_known, ratio
from ..facs import ACTION_UNITS
from ..training.augmentation import resize
from .network import LAC

KINDS: tuple[str, ...] = ("evidence", "similarity")
#: places along each side of the grid on which energy is summed
GRID = 56
#: a map that is the same everywhere, in ``localisation``: what looking at nothing gets
FLAT = "the same everywhere"


def activation_maps(
    network: ActionUnitEstimator | LAC,
    frames: np.ndarray,
    kind: str = "evidence",
    *,
    action_units: tuple[str, ...] = ACTION_UNITS,
    batch_size: int = 64,
    device: str = "cpu",
) -> np.ndarray:
    """A map of each AU on each picture, in the network's own resolution.

    Args:
        network: in eval mode.
        frames: (n, H, W, 3) uint8, square; resized where the network wants another side.
        kind: one of ``KINDS``.
        action_units: which maps, in this order; all must be the network's.

    Returns:
        (n, AUs, h, w) float32, 0 and above; all 0 where nothing speaks for the AU. (0, AUs, 1, 1) without pictures.

    Raises:
        InputError: frames of another form, an AU that the network does not know, or a kind that it does not have.
    """
    frames, locks = np.asarray(frames), isinstance(network, LAC)
    known = network.action_units if locks else ACTION_UNITS
    square = frames.ndim == 4 and frames.shape[3] == 3 and frames.shape[1] == frames.shape[2]
    form, unknown = f"{frames.dtype} of the shape {frames.shape}", [unit for unit in action_units if unit not in known]
    kinds = KINDS if locks else KINDS[:1]
    checks = (
        (not square or frames.dtype != np.uint8, "frames", form, "uint8 (n, side, side, 3)"),
        (kind not in kinds, "kind", repr(kind), f"one of {', '.join(KINDS)}; similarity only of Lock and Check"),
        (unknown, "action_units", ", ".join(unknown), f"AUs of the network: {', '.join(known)}"),
    )
    refuse("activation_maps", checks)
    columns = [known.index(name) for name in action_units]
    network.to(device)
    parts = []
    for start in range(0, len(frames), batch_size):
        pictures = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch_size])).to(device)
        pictures = resize(pictures.permute(0, 3, 1, 2).float() / 255, network.image_size)
        parts.append((_evidence if kind == "evidence" else _similarity)(network, pictures, columns).cpu())
    network.cpu()
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(columns), 1, 1), np.float32)


@torch.inference_mode()
def _similarity(network: LAC, pictures: Tensor, columns: list[int]) -> Tensor:
    return network.similarity(network.backbone(pictures))[:, columns].clamp(min=0)


def _evidence(network: ActionUnitEstimator | LAC, pictures: Tensor, columns: list[int]) -> Tensor:
    """(b, len(columns), h, w): feature map times gradient, summed over channels, negative values 0."""
    seen = []
    layer: nn.Module = network.backbone if isinstance(network, LAC) else network.stages
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        with torch.enable_grad():
            # every picture is a sequence of its own: the first stage sees single pictures
            logits = network(pictures[:, None]).first[:, 0] if isinstance(network, LAC) else network.raw(pictures)[0]
    finally:
        hook.remove()
    (features,), maps = seen, []
    for column in columns:
        # pictures do not see each other in eval mode, so the gradient of the sum is each picture's own
        (gradient,) = torch.autograd.grad(logits[:, column].sum(), features, retain_graph=True)
        # what is 0 adds nothing, also where a gradient has no value (that of a length at 0)
        maps.append(torch.where(features == 0, 0, gradient * features).detach().sum(dim=1))
    return torch.stack(maps, dim=1).clamp(min=0).float()


# ------------------------------------------------------------------------------------------------------ localisation
def resized_maps(maps: np.ndarray, size: int = GRID) -> np.ndarray:
    """Maps (n, C, h, w) interpolated (bilinear) to ``size`` x ``size``, each scaled to a sum of 1.

    All 0 stays all 0.
    """
    grown = F.interpolate(torch.from_numpy(np.ascontiguousarray(maps, np.float32)), size=(size, size), mode="bilinear")
    total = grown.sum(dim=(2, 3), keepdim=True)
    return (grown / total.where(total > 0, 1)).numpy()


def region_masks(boxes: np.ndarray, size: int = GRID) -> np.ndarray:
    """Which places of a ``size`` x ``size`` grid lie in at least one of an AU's regions.

    Args:
        boxes: (n, C, R, 4) x0, y0, x1, y1 in units of the picture's side.

    Returns:
        (n, C, size, size) bool; False everywhere where a box is NaN.
    """
    places = (np.arange(size) + 0.5) / size
    x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, float), -1, 0)
    with np.errstate(invalid="ignore"):
        across = (places >= x0[..., None]) & (places < x1[..., None])
        down = (places >= y0[..., None]) & (places < y1[..., None])
    return (down[..., :, None] & across[..., None, :]).any(axis=2)


def energy_shares(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Share (0 to 1) of each map's sum that lies inside the AU's regions.

    Args:
        maps: (n, C, h, w), 0 and above. boxes: (n, C, R, 4) as in ``region_masks``.

    Returns:
        (n, C); NaN where the regions are unknown or outside the picture. A map that is 0 everywhere counts as one that
        is the same everywhere.

    Raises:
        InputError: shapes that do not fit.
    """
    maps, boxes = np.asarray(maps), np.asarray(boxes)
    if maps.ndim != 4 or boxes.ndim != 4 or maps.shape[:2] != boxes.shape[:2] or boxes.shape[3] != 4:
        raise InputError(
            "energy_shares",
            "shapes of maps and boxes",
            f"{maps.shape} and {boxes.shape}",
            "(n, C, h, w) and (n, C, R, 4)",
        )
    shares = np.full(maps.shape[:2], np.nan)
    for start in range(0, len(maps), 64):  # the grown maps of all pictures at once would fill the memory
        here = slice(start, start + 64)
        grown, masks = resized_maps(maps[here]), region_masks(boxes[here])
        places = {"axis": (2, 3)}
        inside = np.where(grown.any(**places), (grown * masks).sum(**places), masks.mean(**places))
        usable = masks.any(**places) & np.isfinite(boxes[here]).all(**places)
        shares[here] = np.where(usable, inside, np.nan)
    return shares


def area_shares(boxes: np.ndarray) -> np.ndarray:
    """(n, C) share of the picture that an AU's regions cover.

    ``energy_shares`` of a map that is the same everywhere.
    """
    boxes = np.asarray(boxes)
    return energy_shares(np.ones((*boxes.shape[:2], 1, 1), np.float32), boxes)


def localisation(
    shares: dict[str, np.ndarray],
    labels: np.ndarray,
    subjects,
    *,
    action_units: tuple[str, ...] = ACTION_UNITS,
    level: float = LEVEL,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """How much of each network's maps lies in the AUs' regions, on pictures that show the AU.

    Args:
        shares: network -> (n, C) from ``energy_shares`` (or ``area_shares``) of the same pictures. A picture counts for
            an AU where all have a share. The first network is the one that the others (but ``FLAT``) are compared with.
        labels: (n, C) 0, 1 or NaN: only pictures with 1 count.
        subjects: (n,) who is on each picture; drawn again as wholes.

    Returns:
        One row per network and AU, and "mean" (of the AUs that have a share): network, action_unit, share, low, high
        (percentile bootstrap), difference, difference_low, difference_high (minus the first network's, paired), p
        (two-sided, approximate randomisation: which of the two looked at a person's pictures is a fair coin),
        pictures, subjects.
    """
    names = list(shares)
    stacked = np.stack([np.asarray(shares[name], float) for name in names])
    counted = (np.asarray(labels, float) == 1) & np.isfinite(stacked).all(axis=0)
    _, person = np.unique(np.asarray(subjects), return_inverse=True)
    people = person.max(initial=-1) + 1
    # sums and numbers of pictures of each person: a resampled mean is a ratio of weighted sums of them
    number, sums = np.zeros((people, counted.shape[1])), np.zeros((people, *stacked.shape[::2]))
    np.add.at(number, person, counted)
    np.add.at(sums, person, np.where(counted, stacked, 0).transpose(1, 0, 2))
    totals = np.concatenate([number[:, None], sums], axis=1)

    def means(totals: np.ndarray) -> np.ndarray:  # (..., 1 + networks, C) -> (..., networks, C + 1)
        by_au = ratio(totals[..., 1:, :], totals[..., :1, :])
        return np.concatenate((by_au, mean_of_known(by_au)[..., None]), axis=-1)

    value, sample = means(totals.sum(axis=0)), bootstrap(means, totals, draws, shares=equal_shares(people))
    signs = np.random.default_rng(SEED + 1).choice((-1.0, 1.0), size=(draws, people))
    seen = number.sum(axis=0) > 0

    def randomised(change: np.ndarray) -> np.ndarray:
        """p-values (C + 1,) of differences summed by person (people, C)."""
        found = np.concatenate((signs, np.ones((1, people)))) @ change[:, seen] / number.sum(axis=0)[seen]
        if seen.any():
            found = np.concatenate((found, found.mean(axis=1, keepdims=True)), axis=1)
        p = np.full(len(seen) + 1, np.nan)
        p[np.append(seen, seen.any())] = (1 + (np.abs(found[:-1]) >= np.abs(found[-1]) - 1e-12).sum(axis=0)) / (
            1 + draws
        )
        return p

    compared = np.array([k > 0 and name != FLAT for k, name in enumerate(names)])
    numbers = dict(zip(("share", "low", "high"), (value, *limits(sample, level)), strict=True))
    changes = (value - value[:1], *limits(sample - sample[:, :1], level))
    p = [randomised(sums[:, k] - sums[:, 0]) for k in range(len(names))]
    for name, values in zip(("difference", "difference_low", "difference_high", "p"), (*changes, p), strict=True):
        numbers[name] = np.where(compared[:, None], values, np.nan)
    shown = {
        "pictures": np.append(counted.sum(axis=0), counted.any(axis=1).sum()),
        "subjects": np.append((number > 0).sum(axis=0), (number > 0).any(axis=1).sum()),
    }
    units = [*action_units, "mean"]
    return pd.DataFrame(
        {
            "network": np.repeat(names, len(units)),
            "action_unit": units * len(names),
            **{name: values.ravel() for name, values in numbers.items()},
            **{name: np.tile(values, len(names)) for name, values in shown.items()},
        }
    )
