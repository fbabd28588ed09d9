"""What is planted in the embedded benchmark: which AUs go with which expression, and how they move in time.

Two published sources fix the truth. How *often* an AU is present in frames of an expression follows what OpenFace
found on DFEW and FERV39k (rates implied by the released positive weights). How *strong* it is at the median follows
the order of the paper's Fig. 4. Both hold in the written frames exactly, whatever the dynamics are: latent scores
decide only *which* frames are high, then each score becomes its rank within the expression and goes through a
quantile function that has the wanted median and the wanted share of frames at or above ``PRESENT``.

The joint of AUs, clips and time is ours: clips are more or less expressive, AUs that characterise the expression rise
and fall with a common envelope, some clips are ambiguous, mouths speak, eyes blink, and clips begin and end with
frames that do not show their label. How much of an AU's variation lies between clips rather than within them sets how
hard a dataset is.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from .. import published
from ..errors import InputError
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_INDEX

#: an AU counts as present from this planted intensity on (0..5): what DISFA's integer code 2 is after rounding
PRESENT = 1.5
#: how far from one half a rate is kept, so that presence and median never contradict each other
MARGIN = 0.005
DATASETS: tuple[str, ...] = ("DFEW", "FERV39k", "MAFW", "AffWild2", "RAVDESS")

_AU = {name: index for index, name in enumerate(ACTION_UNITS)}
_NEUTRAL = EXPRESSIONS.index("neutral")


@dataclass(frozen=True)
class Style:
    """How one dataset looks and moves.

    Attributes:
        between: share (0..1) of a characteristic AU's latent variance that lies between clips; larger is harder,
            because then a clip says less about its class than its frames suggest.
        indifferent: the same for AUs that do not characterise the expression.
        weak: share of clips that hardly show their label: their characteristic AUs stay low together, so that they
            look like other expressions (inexact labels).
        envelope: strength of the common rise and fall of characteristic AUs inside a clip, in latent standard
            deviations.
        ambiguous: share of clips that blend with a second expression.
        speech: share of clips whose mouth speaks.
        yaw: standard deviation of a clip's mean yaw, rad; pitch and roll follow from it.
        motion: standard deviation of head motion inside a clip, rad.
        light: 0 frontal and even .. 1 any direction, strength and tint.
        blur: largest blur, sigma in pixels at 64 px image side.
        noise: largest pixel noise, standard deviation on 0..1.
        occluded: share of clips with something in front of the face.
        quality: JPEG quality, lowest and highest.
    """

    between: float
    indifferent: float
    weak: float
    envelope: float
    ambiguous: float
    speech: float
    yaw: float
    motion: float
    light: float
    blur: float
    noise: float
    occluded: float
    quality: list[int]


#: dataset -> how its counterpart looks and is written
COUNTERPARTS: dict[str, dict] = tomllib.loads(Path(__file__).with_name("counterparts.toml").read_text())
STYLES: dict[str, Style] = {name: Style(**content["style"]) for name, content in COUNTERPARTS.items()}


# ------------------------------------------------------------------------------------------ planted rates and medians


def _known(dataset: str) -> str:
    if dataset not in DATASETS:
        raise InputError("audfer.synth", "dataset", repr(dataset), f"one of {', '.join(DATASETS)}")
    return dataset


def source_presence_rates(dataset: str) -> np.ndarray:
    """Presence rates before they are reconciled with the planted medians.

    DFEW and FERV39k: implied by the release's "distinct" weights (``published.presence_rates``; DFEW's contaminated
    fear row is FERV39k's). The other sets: the mean of both in logits, perturbed per cell with a fixed seed (standard
    deviation 0.25).

    Returns:
        (7, 18) float64 in (0, 1).
    """
    if _known(dataset) in ("DFEW", "FERV39k"):
        return published.presence_rates(dataset)
    logits = np.mean([_logit(published.presence_rates(name)) for name in ("DFEW", "FERV39k")], axis=0)
    generator = np.random.default_rng([39, DATASETS.index(dataset)])
    return 1 / (1 + np.exp(-(logits + generator.normal(0, 0.25, logits.shape))))


def _logit(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


def _fig4_order() -> np.ndarray:
    """(7, 17) positions among the 17 intensity AUs, most to least characteristic, by Fig. 4 in full precision."""
    return np.argsort(-published.knowledge("K1")[:, INTENSITY_INDEX], axis=1, kind="stable")


@lru_cache(maxsize=None)
def _planted(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    rates = source_presence_rates(dataset)
    medians = np.full((len(EXPRESSIONS), len(ACTION_UNITS)), np.nan)
    knowledge = _logit(published.knowledge("K1"))[:, INTENSITY_INDEX]
    strength = (knowledge - knowledge.min()) / (knowledge.max() - knowledge.min())
    columns = np.array(INTENSITY_INDEX)
    # each capture style is a little more or less vivid; the order within an expression is the same everywhere
    vivid = 1 + 0.06 * np.random.default_rng([4, DATASETS.index(dataset)]).uniform(-1, 1)
    for expression, order in enumerate(_fig4_order()):
        row = rates[expression, columns[order]]
        # A median at or above PRESENT and a rate of at least one half are the same thing, so the AUs with such a rate
        # must be the first ones of Fig. 4's order. Cut where the published rates have to change least.
        costs = [
            np.maximum(0, 0.5 + MARGIN - row[:cut]).sum() + np.maximum(0, row[cut:] - 0.5 + MARGIN).sum()
            for cut in range(len(order) + 1)
        ]
        cut = int(np.argmin(costs))
        rates[expression, columns[order[:cut]]] = np.maximum(row[:cut], 0.5 + MARGIN)
        rates[expression, columns[order[cut:]]] = np.minimum(row[cut:], 0.5 - MARGIN)
        for rank, au in enumerate(order):
            level = strength[expression, au]
            if rank < cut:
                value = 1.8 + 0.4 * (cut - 1 - rank) + 0.3 * level
            else:
                # half by the published strength, half by rank: cells that Fig. 4 separates only in the third decimal
                # would otherwise be planted closer than any estimator could tell apart
                value = min(0.2 + 1.2 * vivid * (0.5 * level + 0.5 * (1 - rank / len(order))), PRESENT - 0.04)
            medians[expression, columns[au]] = value
    rates.setflags(write=False)
    medians.setflags(write=False)
    return rates, medians


def planted_presence_rates(dataset: str) -> np.ndarray:
    """Share of frames of each expression with each AU present in the embedded counterpart of ``dataset``.

    ``source_presence_rates`` with the few cells moved to the other side of one half that contradict Fig. 4's order
    (``rate_adjustments`` lists them).

    Returns:
        (7, 18) float64 in (0, 1), a copy.

    Raises:
        InputError: not one of the five counterparts.
    """
    return _planted(_known(dataset))[0].copy()


def planted_medians(dataset: str) -> np.ndarray:
    """Median intensity (0..5) over the frames of each expression, as written into the counterpart of ``dataset``.

    Within every expression the 17 medians are strictly ordered as Fig. 4 orders the AUs.

    Returns:
        (7, 18) float64, a copy; NaN for AU28, which has no intensity in OpenFace and none in Fig. 4.

    Raises:
        InputError: not one of the five counterparts.
    """
    return _planted(_known(dataset))[1].copy()


def rate_adjustments(dataset: str) -> pd.DataFrame:
    """The rates that were changed so that rates and medians agree: expression, au, source, planted, change."""
    source, planted = source_presence_rates(dataset), planted_presence_rates(dataset)
    rows = [
        (EXPRESSIONS[e], ACTION_UNITS[a], source[e, a], planted[e, a], planted[e, a] - source[e, a])
        for e, a in zip(*np.nonzero(source != planted), strict=True)
    ]
    return pd.DataFrame(rows, columns=["expression", "au", "source", "planted", "change"])


def quantile(ranks: np.ndarray, rate: float, median: float, peak: float = 4.0, fullness: float = 0.0) -> np.ndarray:
    """Intensity of a frame from its rank within its expression.

    Q(0) = 0, Q(1 - rate) = 1.5, Q(1/2) = median, Q(1) = peak.

    Args:
        ranks: any shape, in (0, 1), uniform.
        rate: share of frames to be at or above ``PRESENT``, in (0, 1).
        median: wanted median, below ``PRESENT`` exactly if ``rate`` is below one half; NaN leaves it free (mostly
            zero).
        peak: strongest intensity; at least 0.4 above ``PRESENT`` and ``median`` is kept.
        fullness: 0 spreads the frames above the last knot evenly up to the peak; larger values gather them near the
            peak.

    Returns:
        Same shape, in 0..5: exact zeros first, then a rise to ``PRESENT`` and on to the peak.
    """
    peak = min(5.0, max(peak, PRESENT + 0.4, 0 if np.isnan(median) else median + 0.4))
    if np.isnan(median):
        knots, values = [0, max(0.5, 1 - 2.5 * rate), 1 - rate, 1], [0, 0, PRESENT, peak]
    else:
        zeros = float(np.clip(0.28 - 0.2 * median, 0.04, 0.25))
        pairs = sorted([(0.5, median), (1 - rate, PRESENT)])
        knots, values = [0, zeros, pairs[0][0], pairs[1][0], 1], [0, 0, pairs[0][1], pairs[1][1], peak]
    top = 1 - (1 - np.clip((ranks - knots[-2]) / (1 - knots[-2]), 0, 1)) ** (1 + fullness)
    return np.where(ranks > knots[-2], values[-2] + (values[-1] - values[-2]) * top, np.interp(ranks, knots, values))


# ------------------------------------------------------------------------------------------------------ latent scores


@lru_cache(maxsize=None)
def _loadings(dataset: str) -> np.ndarray:
    """(7, 18) how far each AU follows (positive) or avoids (negative) the apex: from rates and medians alike."""
    rates, medians = _planted(dataset)
    parts = []
    for values in (_logit(rates), np.where(np.isnan(medians), 0.0, np.log(0.3 + np.nan_to_num(medians)))):
        centred = values - values.mean(axis=0)
        # scaled mostly per AU: AU01 or AU26 differ less between expressions than AU12 does, but what they have they
        # should say
        parts.append(centred / (0.15 * centred.std() + 0.85 * centred.std(axis=0)))
    loadings = 0.3 * parts[0] + 0.7 * parts[1]
    # every expression's four most telling AUs carry equal weight; in the raw numbers happy drowns the others
    strongest = np.sort(loadings, axis=1)[:, -4:].mean(axis=1, keepdims=True)
    loadings = np.clip(loadings * np.where(loadings > 0, 1.7 / strongest, 1.0), -1.5, 2.0)
    loadings[_NEUTRAL] *= 0.3  # a neutral face has no apex
    loadings[:, _AU["AU28"]] = 0
    loadings[:, _AU["AU45"]] *= 0.5
    return loadings


def _peaks(dataset: str) -> np.ndarray:
    """(7, 18) strongest intensity.

    Neither rates nor medians fix it, so the AUs that characterise an expression get the strong apexes.
    """
    peaks = np.clip(2.0 + 2.0 * np.maximum(_loadings(dataset), 0), 2.0, 5.0)
    peaks[:, [_AU["AU28"], _AU["AU45"]]] = 4.5
    return peaks


def _envelope(length: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Onset, apex, offset of one clip: (strength 0..1, whether a frame shows the label), both of ``length``."""
    position = (np.arange(length) + 0.5) / length
    start, stop = generator.uniform(-0.1, 0.22), generator.uniform(0.8, 1.12)
    onset = generator.uniform(0.12, 0.35)
    rise = np.clip((position - start) / onset, 0, 1)
    fall = np.clip((stop - position) / generator.uniform(0.12, 0.3), 0, 1)
    strength = 0.5 - 0.5 * np.cos(np.pi * np.minimum(rise, fall))
    return strength, strength > 0.05


def _smooth_noise(length: int, channels: int, memory: float, generator: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) noise (length, channels) of unit variance."""
    shocks = generator.standard_normal((length, channels))
    out = np.empty_like(shocks)
    out[0] = shocks[0]
    scale = np.sqrt(1 - memory**2)
    for index in range(1, length):
        out[index] = memory * out[index - 1] + scale * shocks[index]
    return out


def sample_intensities(
    dataset: str, expressions, lengths, generator: np.random.Generator, *, second=None, groups=None
) -> tuple[np.ndarray, np.ndarray]:
    """AU intensities of all frames of all clips of one dataset.

    Rates and medians hold within every group of clips together, so a whole dataset must be drawn in one call.

    Args:
        dataset: one of ``DATASETS``; decides rates, medians and ``Style``.
        expressions: (N,) index in ``EXPRESSIONS`` whose statistics each clip follows.
        lengths: (N,) frames of each clip.
        generator: source of randomness.
        second: (N,) expression that the clip blends with, or -1 (default: none).
        groups: (N,) clips ranked together; default ``expressions``. Labels outside the seven get their own group, so
            that they do not disturb the statistics of the expression whose pattern they borrow.

    Returns:
        (intensities (sum of lengths, 18) float32 in 0..5, shown (sum of lengths,) bool: the frame shows the clip's
        label).
    """
    style, loadings = STYLES[_known(dataset)], _loadings(dataset)
    (rates, medians), peaks = _planted(dataset), _peaks(dataset)
    expressions, lengths = np.asarray(expressions), np.asarray(lengths)
    second = np.full(len(expressions), -1) if second is None else np.asarray(second)
    groups = expressions if groups is None else np.asarray(groups)
    # AUs that say nothing about the expression differ from clip to clip (that is how this person or this moment is),
    # those that characterise it run through their range in every clip
    shares = style.between + (style.indifferent - style.between) * np.clip(1 - loadings, 0, 1)
    scores, shown = [], []
    for expression, length, other in zip(expressions, lengths, second, strict=True):
        pattern = loadings[expression]
        if other >= 0:
            # the second expression's own signs stand out against what is usual for the label
            weight = generator.uniform(0.45, 0.75)
            pattern = pattern + weight * (2.0 * loadings[other] - loadings[expression])
        expressive = generator.normal(-3.0 if generator.random() < style.weak else 0.4, 0.5)
        strength, visible = _envelope(length, generator)
        between, within = np.sqrt(shares[expression]), np.sqrt(1 - shares[expression])
        clip = generator.standard_normal(len(ACTION_UNITS)) + expressive * pattern / np.maximum(between, 0.3)
        if other >= 0:
            clip = clip + 0.8 * (pattern - loadings[expression])
        frames = _smooth_noise(length, len(ACTION_UNITS), 0.7, generator)
        frames = frames + style.envelope * np.outer(strength - 0.6, pattern)
        if generator.random() < style.speech:
            _add_speech(frames, generator)
        # A clip runs through its expression's whole range (onset, apex, offset), so how much clips differ is set by
        # ``between`` alone and not by how long the noise happens to remember.
        frames = (frames - frames.mean(axis=0)) / (frames.std(axis=0) + 1e-6)
        score = between * clip + within * frames
        # lips that are sucked in are not apart
        score[:, _AU["AU28"]] -= 0.7 * score[:, _AU["AU25"]]
        blinks = _blinks(length, rates[expression, _AU["AU45"]], generator)
        score[:, _AU["AU45"]] = blinks + 0.25 * score[:, _AU["AU45"]]
        scores.append(score)
        shown.append(visible)
    score, shown = np.concatenate(scores), np.concatenate(shown)
    out = np.empty(score.shape, np.float32)
    frame_group = np.repeat(groups, lengths)
    for group in np.unique(groups):
        frames = np.nonzero(frame_group == group)[0]
        expression = int(expressions[groups == group][0])
        ranks = (np.argsort(np.argsort(score[frames], axis=0), axis=0) + 0.5) / len(frames)
        for au in range(len(ACTION_UNITS)):
            out[frames, au] = quantile(
                ranks[:, au],
                rates[expression, au],
                medians[expression, au],
                peaks[expression, au],
                1.5 * max(0.0, loadings[expression, au]),
            )
    return out, shown


def _add_speech(frames: np.ndarray, generator: np.random.Generator) -> None:
    """Syllables on the lips and jaw, and the little lip shapes that go with them, added in place."""
    time = np.arange(len(frames))
    wave = np.sin(generator.uniform(0.8, 1.8) * time + generator.uniform(0, 6.28))
    wave = wave + 0.5 * generator.standard_normal(len(frames))
    for name, amount in (("AU25", 1.2), ("AU26", 1.0), ("AU20", 0.4), ("AU17", -0.4), ("AU23", -0.3)):
        frames[:, _AU[name]] += amount * wave


def _blinks(length: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Latent score of AU45: spikes of two or three frames at about ``rate``, else a little below zero."""
    score = np.full(length, -1.0)
    for _ in range(generator.poisson(rate * length / 2.5)):
        start = generator.integers(0, length)
        score[start : start + generator.integers(2, 4)] = generator.uniform(0.4, 3.0)
    return score


# ----------------------------------------------------------------------------------------- the annotated set's frames


def sample_annotated(frames: int, generator: np.random.Generator) -> np.ndarray:
    """AU intensities of one subject of the annotated set: (frames, 18) float32 in 0..5.

    Short episodes in which each AU takes part on its own, so that every AU occurs alone and in company, at every
    intensity, and an estimator cannot learn the embedded expressions by heart. AU28 excludes AU25.
    """
    out = np.zeros((frames, len(ACTION_UNITS)))
    start = 0
    while start < frames:
        length = int(generator.integers(10, 19))
        stop = min(start + length, frames)
        strength, _ = _envelope(length, generator)
        active = generator.random(len(ACTION_UNITS)) < 0.32
        active[_AU["AU45"]] = False
        if active[_AU["AU28"]] and generator.random() < 0.5:
            active[_AU["AU28"]] = False
        peaks = np.where(active, generator.uniform(0.8, 5.0, len(ACTION_UNITS)), 0)
        if active[_AU["AU28"]]:
            peaks[_AU["AU25"]] = 0
        # a faint overlay of everything else, as faces have it
        peaks += np.where(active, 0, 0.9 * generator.random(len(ACTION_UNITS)) ** 2)
        wobble = 1 + 0.12 * _smooth_noise(length, len(ACTION_UNITS), 0.7, generator)
        delay = generator.integers(0, 3, len(ACTION_UNITS))
        shifted = np.stack([np.roll(strength, d) for d in delay], axis=1)
        out[start:stop] = (peaks * shifted * wobble)[: stop - start]
        start = stop
    blink = _blinks(frames, 0.2, generator)
    out[:, _AU["AU45"]] = np.where(blink > 0, np.clip(blink, 0, 3) / 3 * 5, 0)
    return np.clip(out, 0, 5).astype(np.float32)


def codes(intensities: np.ndarray) -> np.ndarray:
    """Integer FACS codes 0..5 of intensities, halves rounded up: uint8, same shape."""
    return np.floor(np.asarray(intensities) + 0.5).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------- scenes


#: how far a head moves within a clip, in units of ``Style.motion``, and the limits of pose and place
_MOTION = (
    ("yaw", 1.0, -0.5, 0.5),
    ("pitch", 0.6, -0.3, 0.3),
    ("roll", 0.6, -0.3, 0.3),
    ("shift_x", 0.1, -0.06, 0.06),
    ("shift_y", 0.1, -0.06, 0.04),
)


def sample_scenes(style: Style, lengths, generator: np.random.Generator, *, places=None) -> dict[str, np.ndarray]:
    """Pose, light, background, occluder and image quality of every frame, clip after clip.

    Args:
        style: how the dataset was filmed.
        lengths: (N,) frames of each clip.
        generator: source of randomness.
        places: (N,) clips with the same number share light and background (parts of one take); default: all
            different.

    Returns:
        Arrays over frames (first axis: sum of lengths, float32), with the names of ``face.Scene``'s fields, and
        ``quality`` (N,) int, the JPEG quality of each clip.
    """
    lengths = np.asarray(lengths)
    places = np.arange(len(lengths)) if places is None else np.asarray(places)
    memory: dict[int, dict] = {}
    parts: list[dict] = []
    quality = np.empty(len(lengths), int)
    for clip, (length, place) in enumerate(zip(lengths, places, strict=True)):
        if place not in memory:
            memory[place] = _place(style, generator)
        fixed = memory[place]
        quality[clip] = fixed["quality"]
        move = _smooth_noise(length, 8, 0.93, generator)
        frame = {
            name: np.clip(fixed[name] + amount * style.motion * move[:, channel], low, high)
            for channel, (name, amount, low, high) in enumerate(_MOTION)
        }
        frame["scale"] = fixed["scale"] * (1 + 0.15 * style.motion * move[:, 5])
        frame["gaze"] = np.clip(fixed["gaze"] + 0.12 * move[:, 6:8], -0.5, 0.5)
        for name in ("light", "light_colour", "ambient", "background", "blur", "noise"):
            frame[name] = np.broadcast_to(fixed[name], (length, *np.shape(fixed[name])))
        frame["occluder"] = np.broadcast_to(_occluder(style, generator), (length, 5)).copy()
        if frame["occluder"][0, 0] > 0:
            frame["occluder"][:, 1:3] += 0.02 * _smooth_noise(length, 2, 0.9, generator)
        parts.append(frame)
    out = {name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in parts[0]}
    out["quality"] = quality
    return out


def _place(style: Style, generator: np.random.Generator) -> dict:
    """What stays the same during one take."""
    even = np.array([0.0, -0.35, 1.0])
    light = even + style.light * np.array([generator.uniform(-0.9, 0.9), generator.uniform(-0.5, 0.35), 0])
    warm = style.light * generator.uniform(-0.12, 0.12)
    strength = 1 + 0.25 * style.light * generator.uniform(-1, 0.6)
    # rooms and streets are greyish: one brightness, a little colour
    wild = style.light > 0.2
    grey, tint = (generator.uniform(0.15, 0.8), 0.12) if wild else (0.8, 0.01)
    top = np.clip(grey * (1 + tint * generator.standard_normal(3)), 0, 1)
    bottom = np.clip(top + style.light * (generator.normal(0, 0.15) + generator.normal(0, 0.04, 3)), 0, 1)
    spread, limits = style.yaw * np.array([1.0, 0.45, 0.35]), np.array([0.4, 0.2, 0.2])
    pose = np.clip(generator.normal(0, spread), -limits, limits)
    shift = generator.uniform(-0.02, 0.02, 2) * (1 + style.light)
    return {
        **dict(zip(("yaw", "pitch", "roll", "shift_x", "shift_y"), [*pose, *shift], strict=True)),
        "scale": 1.27 + 0.07 * style.light * generator.uniform(-1, 1),  # a face crop: hair cut off, chin inside
        "gaze": generator.normal(0, 0.12, 2) * (0.3 + style.light),
        "light": light / np.linalg.norm(light),
        "light_colour": strength * np.array([1 + warm, 1.0, 1 - warm]),
        "ambient": np.float64(0.42 + 0.12 * style.light * generator.uniform(-1, 1)),
        "background": np.stack([top, bottom]),
        "blur": np.float64(style.blur * generator.random() ** 1.5),
        "noise": np.float64(style.noise * generator.random()),
        "quality": int(generator.integers(style.quality[0], style.quality[1] + 1)),
    }


def _occluder(style: Style, generator: np.random.Generator) -> np.ndarray:
    """Kind (0 = none), centre x, y and width, height as fractions of the image side."""
    if generator.random() >= style.occluded:
        return np.zeros(5)
    kind = generator.integers(1, 4)
    # every kind's place is drawn, so that the stream of random numbers does not depend on the kind
    hand = generator.uniform(0.25, 0.75), generator.uniform(0.72, 0.9), 0.3, 0.22
    bar = generator.choice([0.08, 0.92]), 0.5, generator.uniform(0.12, 0.25), 1.0
    microphone = generator.uniform(0.35, 0.65), generator.uniform(0.85, 0.95), 0.12, 0.25
    return np.array([kind, *(hand, bar, microphone)[kind - 1]])


# -------------------------------------------------------------------------------------------------- class frequencies


def scaled_counts(counts, total: int, minimum: int) -> tuple[list[int], int]:
    """Split ``total`` over classes in the proportions ``counts`` (largest remainder), at least ``minimum`` each.

    Returns:
        (clips of each class, how many were added beyond ``total`` to reach the minimum).

    Example:
        >>> scaled_counts([50, 30, 20], 11, 0)
        ([6, 3, 2], 0)
    """
    counts = np.asarray(counts, float)
    exact = counts / counts.sum() * total
    out = np.floor(exact).astype(int)
    for index in np.argsort(-(exact - out), kind="stable")[: total - out.sum()]:
        out[index] += 1
    plus = int(np.maximum(0, minimum - out).sum())
    return np.maximum(out, minimum).tolist(), plus


def frame_columns() -> tuple[list[str], list[str]]:
    """Names of the truth's 18 intensity and 18 presence columns ("AU01_r" .. and "AU01_c" ..)."""
    return [f"{au}_r" for au in ACTION_UNITS], [f"{au}_c" for au in ACTION_UNITS]
