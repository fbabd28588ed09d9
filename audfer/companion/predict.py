"""What expression a real video shows: action units of every frame, scores of a named model, and what speaks for them.

Action units come from where the user says: a CSV or table of them, OpenFace's program, Lock and Check with weights of
the user's, blendshapes. The scores come from a trained network of the user's, or from the knowledge matrix itself
without any training: then each AU's part in the answer is known, and so is what the answer would be without it.

No part of this is trained on rendered faces: such weights are refused.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..action_units.clips import Clip
from ..action_units.importing import ImportOptions, read_clip_file
from ..action_units.table import AUTable
from ..datasets import alignment
from ..datasets.common import any_clips
from ..datasets.landmarks import dlib_model, face_points, frame_seconds
from ..datasets.manifest import frame_numbers, is_video, list_frames, read_image, video_frames
from ..errors import AudferError, InputError, refuse
from ..evaluation import mean_recall_interval
from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS, INTENSITY_INDEX
from ..files import atomic_file
from ..knowledge import KnowledgeMatrix, control_matrix
from ..openface import FACE_RULES, INTENSITY_COLUMNS, AUTrack, read_openface
from ..sampling import uniform_indices
from .extractors import EXTRACTORS

#: what is said of the matrix that nobody has to name
FIGURE = "the paper's knowledge matrix (Fig. 4), without any training"
#: shuffled matrices that an answer is compared with
DRAWS = 200
#: of a clip's own intensities, taken for its face at rest
REST = 0.1
#: how often the matrix alone is right on real clips, by tool and baseline: ``benchmarks/knowledge_alone.py`` writes it
ALONE = Path(__file__).with_name("knowledge_alone.json")
#: an answer whose score exceeds the next one's by less is called undecided
_MARGIN = 0.1
#: seconds of video that a network sees at once, and from one such window to the next; a shorter clip is one window
_WINDOW, _STRIDE, _WHOLE = 4.0, 1.0, 6.0
#: a face is small below so many pixels between its eyes
_SMALL = 25
#: how to come by action units of real faces
_REAL_AUS = "audfer au train-lac DISFA --weights ... fine-tunes Lock and Check"
#: what every extractor of ``audfer au extract`` may be asked, where nobody says
_EXTRACTOR = dict(
    executable="", container="", engine="", csvs="", static=False, min_confidence=None, mask_neighbours=None,
    openface_version="", profile="", device="auto", precision="auto", batch=None,
)  # fmt: skip


def predict(
    video: str | os.PathLike,
    aus: str | os.PathLike = "",
    *,
    au_weights: str | os.PathLike = "",
    weights: str | os.PathLike = "",
    baseline: str | list = "none",
    face: str = "longest",
    landmarks: str | os.PathLike = "",
    **extractor,
) -> pd.DataFrame:
    """Expression scores and action units of every frame of a video.

    Args:
        video: a file, or a folder with the pictures of one clip.
        aus: where action units come from: OpenFace's CSV of this video; an AU table (.parquet) that holds it; or an
            extractor of ``audfer au extract``: "openface", "lac", "blendshapes". "" = none, for a network.
        au_weights: of "lac" the folder of a recogniser, of "blendshapes" MediaPipe's ``face_landmarker.task``.
        weights: a run record's folder or a checkpoint: a network judges the face's pictures. A knowledge matrix
            (.json): it reads the AUs. "" = the paper's matrix, Fig. 4.
        baseline: what is subtracted from the AUs before a matrix reads them: "none"; "clip", the lowest tenth of each
            AU in this clip; or CSVs or tables of other clips of the same person, whose mean it is.
        face: which of several faces, "longest", "largest" or "confident".
        landmarks: a CSV with the face's points; "" = the AUs' CSV if it has them, else dlib where it is installed.
        extractor: further options of the extractor (executable, container, device ...).

    Returns:
        One row per frame: frame (from 0), seconds, ok (the AUs of the frame are known, or of a network: there is a
        face), AU01_r .. AU45_r (0 to 5, as measured), a score for each of ``EXPRESSIONS`` (they sum to 1; NaN where not
        ok), expression (the highest; "" where not ok). ``attrs["about"]``, a dict of plain values: the clip's answer
        and scores, what it was made from, AUs for and against, counterfactuals, the shuffled control, flags.

    Raises:
        InputError: nothing to predict from, or a file that is not this video's.
        AudferError: weights trained on rendered faces; a needed package is not installed.

    Example:
        >>> frames = audfer.predict("clip.mp4", aus="clip.csv")                                   # doctest: +SKIP
        >>> frames.attrs["about"]["answer"]                                                       # doctest: +SKIP
    """
    if face not in FACE_RULES:
        raise InputError("predict", "face", repr(face), f"one of {', '.join(FACE_RULES)}")
    clip = _one_clip(video)
    network = _open_network(weights) if weights and Path(weights).suffix != ".json" else None
    if not aus and network is None:
        expected = "OpenFace's CSV of the video (--aus FILE), or openface, lac or blendshapes"
        raise InputError(video, "action units", "no source named, which a knowledge matrix needs", expected)
    numbers = frame_numbers(clip.manifest(), 0)
    options = Namespace(**{**_EXTRACTOR, **extractor})
    options.weights, options.face = str(au_weights), face
    points = _points(clip, landmarks or (aus if os.path.isfile(aus) else ""), face, needed=network is not None)
    track, source = _action_units(clip, aus, points, options, face) if aus else (None, "none")
    intensity = np.full((len(numbers), len(INTENSITY_ACTION_UNITS)), np.nan)
    if track is not None:
        inside = np.isin(track.frame, numbers)
        intensity[track.frame[inside]] = track.intensity[inside]
    seconds = frame_seconds(clip.path, len(numbers))
    if network is None:
        matrix = KnowledgeMatrix.load(weights) if weights else KnowledgeMatrix.published()
        named = str(weights) or FIGURE
        rest, said = _at_rest(intensity, baseline, face)
        ok = ~np.isnan(intensity).all(1)
        if not ok.any():
            raise InputError(video, f"AU intensities from {source}", "none in any frame", "a face in some frames")
        scores = matrix.expression_scores(_all_aus(intensity - rest))
        mean = pd.DataFrame(intensity - rest).mean().to_numpy()  # of known frames; NaN where an AU has none
        about = read_clip(matrix, mean) | {"baseline": said}
    else:
        named, (scores, of_clip) = f"{network.name}, {weights}", _judge(network, clip, points, numbers, seconds)
        ok, about = np.isfinite(scores).all(1), {"scores": dict(zip(EXPRESSIONS, of_clip.tolist(), strict=True))}
    scores = np.where(ok[:, None], scores, np.nan)
    frames = pd.DataFrame({"frame": numbers, "seconds": seconds, "ok": ok})
    frames = frames.join(pd.DataFrame(intensity, columns=list(INTENSITY_COLUMNS)))
    frames = frames.join(pd.DataFrame(scores, columns=list(EXPRESSIONS)))
    frames["expression"] = [EXPRESSIONS[row.argmax()] if np.isfinite(row).all() else "" for row in scores]
    about |= {"video": str(video), "model": named, "action_units": source, "frames": len(numbers), "ok": int(ok.sum())}
    about["tool"] = "none" if track is None else track.report.get("tool", "unknown")
    about |= {"flags": _flags(clip, frames, points), **_words(about)}
    frames.attrs["about"] = json.loads(json.dumps(about))
    return frames


# ------------------------------------------------------------------------------------------------- the matrix alone


def _all_aus(intensity: np.ndarray) -> np.ndarray:
    """(..., 17) intensities among the 18 AUs; AU28, which has none, is NaN."""
    every = np.full((*intensity.shape[:-1], len(ACTION_UNITS)), np.nan)
    every[..., list(INTENSITY_INDEX)] = intensity
    return every


def read_clip(matrix: KnowledgeMatrix, intensity: np.ndarray) -> dict:
    """What a matrix says of a clip, and why.

    Args:
        intensity: (17,) mean over the clip's known frames, less a baseline; NaN where an AU is unknown.

    Returns:
        scores (expression -> share), evidence (a dict for each AU: its value, and what it adds to the logit of the
        answer beside the other expressions' mean; strongest first), counterfactuals (AU -> the answer without it),
        control (of shuffled matrices: how many give the same answer).
    """
    values = _all_aus(intensity)
    scores = matrix.expression_scores(values)
    answer = int(scores.argmax())
    share = np.log(matrix.values / matrix.values.sum(axis=1, keepdims=True))
    others = np.delete(share, answer, axis=0).mean(0)
    parts = np.nan_to_num(values) * (share[answer] - others)
    evidence = [
        {"au": au, "name": ACTION_UNIT_NAMES[au], "value": float(value), "part": float(part)}
        for au, value, part in zip(ACTION_UNITS, values, parts, strict=True)
        if np.isfinite(value)
    ]
    evidence.sort(key=lambda row: -abs(row["part"]))
    without = {}
    for row in evidence:
        left = values.copy()
        left[ACTION_UNITS.index(row["au"])] = np.nan
        without[row["au"]] = EXPRESSIONS[int(matrix.expression_scores(left).argmax())]
    shuffled = [
        control_matrix("shuffled-aus", matrix, seed).expression_scores(values).argmax() for seed in range(DRAWS)
    ]
    return {
        "scores": dict(zip(EXPRESSIONS, scores.tolist(), strict=True)),
        "evidence": evidence,
        "counterfactuals": without,
        "control": {"draws": DRAWS, "same": int(sum(np.array(shuffled) == answer))},
    }


def accuracy_alone(
    clips: pd.DataFrame, expressions: np.ndarray, people: np.ndarray, matrix: KnowledgeMatrix | None = None
) -> pd.DataFrame:
    """How often a matrix alone is right on labelled clips: mean recall (UAR) by baseline, and of shuffled matrices.

    Args:
        clips: a clip's frames together: clip_id and the 17 intensities. expressions, people: of each clip, in order of
            appearance; clips with expression -1 are left out.
        matrix: default Fig. 4.

    Returns:
        One row per baseline ("none", "clip", "person": each person's mean over all clips): uar with its 95 % interval
        (low, high) over clips, shuffled (mean over ``DRAWS`` matrices with shuffled AU columns), clips, people.
    """
    matrix = matrix or KnowledgeMatrix.published()
    grouped = clips.groupby("clip_id", sort=False)[list(INTENSITY_COLUMNS)]
    mean, rest = grouped.mean().to_numpy(), grouped.quantile(REST).to_numpy()
    kept = expressions >= 0
    mean, rest, truth, people = mean[kept], rest[kept], expressions[kept], np.asarray(people)[kept]
    own = pd.DataFrame(mean).groupby(people).transform("mean").to_numpy()
    every, rows = np.bincount(truth, minlength=len(EXPRESSIONS)), []
    for name, values in (("none", mean), ("clip", mean - rest), ("person", mean - own)):

        def hits(some: KnowledgeMatrix, values=values) -> np.ndarray:
            right = some.expression_scores(_all_aus(values)).argmax(1) == truth
            return np.bincount(truth, weights=right, minlength=len(EXPRESSIONS))

        uar = mean_recall_interval(hits(matrix), every)
        chance = [(hits(control_matrix("shuffled-aus", matrix, seed)) / every).mean() for seed in range(DRAWS)]
        counts = {"clips": len(truth), "people": len(set(people))}
        row = {"uar": uar.value, "low": uar.low, "high": uar.high, "shuffled": np.mean(chance), **counts}
        rows.append({"baseline": name, **row})
    return pd.DataFrame(rows)


def _at_rest(intensity: np.ndarray, baseline: str | list, face: str) -> tuple[np.ndarray, str]:
    """What is subtracted from every frame, (17,), and in a word what it is."""
    given = [baseline] if isinstance(baseline, str | os.PathLike) else list(baseline)
    if given == ["none"]:
        return np.zeros(intensity.shape[1]), "none"
    if given == ["clip"]:
        known = ~np.isnan(intensity).all(0)
        rest = np.zeros(intensity.shape[1])
        rest[known] = np.nanquantile(intensity[:, known], REST, axis=0)
        return rest, "clip"
    means = []
    for path in given:
        if Path(path).suffix == ".parquet":
            table = AUTable.load(path).frames
            means += list(table.groupby("clip_id")[list(INTENSITY_COLUMNS)].mean().to_numpy())
        else:
            track = read_clip_file(path, ImportOptions(face=face, require_presence=False))
            means.append(pd.DataFrame(track.intensity).mean().to_numpy())
    return np.nan_to_num(pd.DataFrame(means).mean().to_numpy()), "person"


# ------------------------------------------------------------------------------------------------- faces and AUs


def _one_clip(video: str | os.PathLike) -> Clip:
    manifest = any_clips(video)
    if len(manifest) > 1:
        raise InputError(video, "clips", len(manifest), "one video, or a folder with the pictures of one")
    return Clip(manifest.name, Path(manifest.root), (manifest.table.iloc[0].to_dict(),))


def _pictures(clip: Clip, wanted: list[int] | None = None):
    """(number, picture) of some of a clip's frames, in order, as they lie there."""
    if is_video(clip.path):
        yield from video_frames(clip.path, wanted)
        return
    names = list_frames(clip.path)
    for number in range(len(names)) if wanted is None else sorted(set(wanted)):
        yield number, read_image(clip.path / names[number])


def _points(clip: Clip, file: str | os.PathLike, face: str, needed: bool) -> AUTrack | None:
    """The face's points as a track, from a CSV that has them or by dlib; ``None`` where neither is to be had."""
    if file and Path(file).suffix != ".parquet":
        track = read_openface(file, face=face, require_presence=False, require_aus=False)
        if track.landmarks is not None:
            return track
    try:
        dlib_model()
    except AudferError:
        if needed:
            raise
        return None
    found = face_points((picture for _, picture in _pictures(clip)), face=face)
    count, seen = len(found.confidence), found.confidence > 0
    unknown = np.full((count, 17), np.nan, np.float32), np.full((count, 18), np.nan, np.float32)
    about = {"faces": list(range(found.faces)), "crowded": found.crowded, "path": str(clip.path)}
    stamps = np.full(count, np.nan)
    return AUTrack(*unknown, seen, np.arange(1, count + 1), stamps, found.points.astype(np.float32), about)


def _action_units(clip: Clip, aus, points: AUTrack | None, options: Namespace, face: str) -> tuple[AUTrack, str]:
    """The clip's track, numbered from 0, and where it comes from."""
    name = clip.clip_ids[0]
    if os.path.isfile(aus):
        if Path(aus).suffix == ".parquet":
            table = AUTable.load(aus)
            names = [one for one in table.clip_ids() if one in alignment.track_names(name)] or table.clip_ids()
            refuse(aus, [(len(names) > 1, "clips", f"{len(names)}, none called {name}", "this video's among them")])
            if table.provenance().loc[names[0], "tool"] == "audfer":
                raise _rendered(f"{aus}, made by the estimator of rendered faces", _REAL_AUS)
            track = table.clip(names[0])
            track.report["tool"] = table.provenance().loc[names[0], "tool"]
            return track, str(aus)
        track = read_clip_file(aus, ImportOptions(face=face, require_presence=False))
        return clip.cut(track, clip.rows_of_frames(track)[0])[name], str(aus)
    if aus not in EXTRACTORS:
        expected = f"a CSV, an AU table (.parquet) or one of {', '.join(EXTRACTORS)}"
        raise InputError("predict", "aus", repr(str(aus)), expected)
    with redirect_stdout(sys.stderr):  # what extractors say of themselves; answers go to the other one
        backend = None if aus == "audfer" else EXTRACTORS[aus](options)
    trained_on = getattr(backend, "trained_on", "" if backend else "rendered faces")
    if trained_on == "rendered faces":
        raise _rendered(options.weights or aus, _REAL_AUS)
    backend.check()
    said = f"{aus}, {trained_on}" if trained_on else str(aus)
    if not backend.packed:
        return next(iter(backend.extract(clip, 3600.0).values())), said
    with _cut_faces(clip, points, 224) as faces:
        return next(iter(backend.extract(faces, 3600.0).values())), said


@contextmanager
def _cut_faces(clip: Clip, points: AUTrack | None, size: int):
    """The clip as a folder of its face's pictures, one for each frame, for extractors that find no faces."""
    if points is None:
        dlib_model()  # says what to install
    numbers = frame_numbers(clip.manifest(), 0)
    cuts = alignment.align(points, numbers, clip.path)
    with tempfile.TemporaryDirectory(prefix="audfer_faces_") as folder:
        for number, picture in _pictures(clip):
            face = alignment.cut(picture, cuts.scale_turn[number], cuts.shift[number], size)
            Image.fromarray(face).save(Path(folder, f"{number + 1:06d}.png"), compress_level=1)
        yield Clip(clip.dataset, Path(folder), ({**clip.rows[0], "path": "."},))


def _rendered(what, instead: str) -> AudferError:
    return AudferError(
        f"{what}: these weights were trained on rendered faces and say nothing about real ones; take weights trained "
        f"on real faces instead ({instead}), or AUs from OpenFace and the knowledge matrix"
    )


# ------------------------------------------------------------------------------------------------------ a network


class _Network(Namespace):
    """name, model, frames (of a clip that it sees)."""


def _open_network(weights: str | os.PathLike) -> _Network:
    """A run record's network, or the one that a checkpoint fits.

    Raises:
        AudferError: trained on rendered faces, or it fits no network with the seven expressions.
    """
    from ..models import NETWORKS, build_model, inspect_checkpoint, load_official_state_dict
    from ..models.checkpoint import read_checkpoint
    from ..training.loop import Cell, network_of
    from ..training.records import RunRecord, read_meta

    path = Path(weights)
    folder = path if path.is_dir() else path.parent
    recorded = (folder / "record.json").is_file()
    if _was_rendered(folder, read_meta(folder) if recorded else {}):
        raise _rendered(weights, "audfer train --profile ravdess or paper, on real clips")
    if recorded:
        record = RunRecord.load(folder)
        cell = Cell(**record.cell)
        model = network_of(cell)
        model.load_state_dict(record.load_weights())
        return _Network(name=f"{NETWORKS[cell.model].title} trained on {cell.dataset}", model=model.eval())
    report = inspect_checkpoint(path)
    if not report.fits or report.num_classes != len(EXPRESSIONS):
        found = f"{report.kind}, {report.num_classes or 'no'} expressions"
        raise InputError(path, "weights", found, "a network of audfer with the seven expressions")
    call = ast.parse(report.fits, mode="eval").body
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    model = build_model(ast.literal_eval(call.args[0]), **{"num_aus": report.num_aus, **given})
    load_official_state_dict(model, read_checkpoint(path))
    return _Network(name=report.kind, model=model.eval())


def _was_rendered(folder: Path, meta: dict) -> bool:
    """Whether weights are of rendered clips: a record's store or packed clips say so, where they are still there, or
    the card of those that ship.
    """
    profile, packed = ("profile", "data", "source"), meta.get("inputs", {}).get("packed")
    places = [(folder / "card.json", profile), (folder.parent / "grid.json", profile)]
    for file, keys in [*places, *([(Path(packed, "meta.json"), ("embedded",))] if packed else [])]:
        try:
            value = json.loads(file.read_text())
            for key in keys:
                value = value[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return value in ("embedded", True)
    return False


def _judge(network: _Network, clip: Clip, points: AUTrack, numbers: np.ndarray, seconds: np.ndarray):
    """Scores (n, 7) of the frames, each the mean of the windows that show it (NaN without a face), and (7,) of all."""
    import torch

    model = network.model
    cuts = alignment.align(points, numbers, clip.path)
    rate = (len(numbers) - 1) / (seconds[-1] - seconds[0]) if len(numbers) > 1 and np.isfinite(seconds).all() else 25.0
    width, step = (max(1, round(rate * length)) for length in (_WINDOW, _STRIDE))
    starts = [0] if len(numbers) <= rate * _WHOLE else [*range(0, len(numbers) - width, step), len(numbers) - width]
    width = min(width, len(numbers)) if len(starts) > 1 else len(numbers)
    chosen = [start + uniform_indices(width, model.num_frames) for start in starts]
    faces = {}
    for number, picture in _pictures(clip, np.unique(chosen).tolist()):
        faces[number] = alignment.cut(picture, cuts.scale_turn[number], cuts.shift[number], model.image_size)
    places = np.full((len(numbers), 68, 2), np.nan, np.float32)
    known, found = alignment.points_of(points, numbers, clip.path)
    places[known] = found + 0.5
    places = cuts.move(places)
    judged = []
    with torch.inference_mode():
        for window in chosen:
            batch = torch.from_numpy(np.stack([faces[number] for number in window.tolist()])).permute(0, 3, 1, 2)[None]
            marks = torch.from_numpy(places[window][None].astype(np.float32)) if model.uses_landmarks else None
            judged.append(model(batch, marks).expression_logits.float().softmax(1)[0].numpy())
    total, count = np.zeros((len(numbers), len(EXPRESSIONS))), np.zeros((len(numbers), 1))
    for start, scores in zip(starts, judged, strict=True):
        total[start : start + width] += scores
        count[start : start + width] += 1
    return np.where(cuts.found[:, None], total / count, np.nan), np.mean(judged, axis=0)


# ------------------------------------------------------------------------------------------------- what is said


def _words(about: dict) -> dict:
    """The answer in words that claim no more than was measured."""
    order = sorted(about["scores"], key=about["scores"].get, reverse=True)
    first, second = order[:2]
    gap = about["scores"][first] - about["scores"][second]
    words = f"undecided between {first} and {second}" if gap < _MARGIN else f"{first}, then {second}"
    said = [f"A network's reading of the face, not a finding about the person: {words}."]
    if "control" in about:
        rows = {(row["tool"], row["baseline"]): row for row in json.loads(ALONE.read_text())}
        row = rows.get((about["tool"], about["baseline"])) if about["model"] == FIGURE else None
        known = f"how often this matrix is right with AUs of {about['tool']} was not measured"
        if row:
            known = (
                f"with AUs of {row['tool']}, on {row['clips']} acted clips of {row['people']} people, its mean recall "
                f"was {row['uar']:.2f} [{row['low']:.2f}, {row['high']:.2f}] (over clips), where guessing gives "
                f"{1 / len(EXPRESSIONS):.2f} and matrices with shuffled AUs {row['shuffled']:.2f}"
            )
        said = [
            f"The matrix reads this clip as {words}. It was not trained; {known}. A hint, no finding about the person.",
            "Of {draws} matrices with shuffled AU columns {same} give the same answer here.".format(**about["control"]),
        ]
        changed = [
            f"without {au} it would be {other}" for au, other in about["counterfactuals"].items() if other != first
        ]
        said.append(f"Take one AU away: {', '.join(changed[:4]) or 'no single one decides it'}.")
        if about["baseline"] == "clip":
            said.append(
                "The clip's own lowest tenth was taken as rest: a face that holds one expression throughout "
                "loses it that way; other clips of the same person are better (--baseline FILES)."
            )
    return {"answer": first, "undecided": bool(gap < _MARGIN), "words": said}


def _flags(clip: Clip, frames: pd.DataFrame, points: AUTrack | None) -> list[str]:
    """What speaks against trusting the answer, a sentence each."""
    lost, known = int((~frames["ok"]).sum()), frames[frames["ok"]]
    checks = [
        (lost > len(frames) / 10, f"no face or no AUs in {lost} of {len(frames)} frames"),
        (len(known) < 10, f"only {len(known)} frames to go by"),
        (known[list(INTENSITY_COLUMNS)].max().max() < 1, "the face hardly moves: no AU reaches intensity 1"),
    ]
    unknown = [column[:4] for column in INTENSITY_COLUMNS if frames[column].isna().all()]
    checks.append((0 < len(unknown) < 17, f"not measured: {', '.join(unknown)}"))
    if points is None:
        checks.append((True, "no landmarks (pip install audfer[landmarks]): size, light and turn of the face unknown"))
    elif not points.ok.any():
        checks.append((True, "no face found"))
    else:
        marks, faces, crowded = points.landmarks[points.ok], points.report["faces"], points.report.get("crowded", 0)
        left, right = marks[:, 36:42].mean(1), marks[:, 42:48].mean(1)
        size = np.linalg.norm(right - left, axis=1)
        turned = np.abs(marks[:, 30, 0] - (left + right)[:, 0] / 2) / size
        light = _light(clip, points)
        checks += [
            (np.median(size) < _SMALL, f"a small face: {np.median(size):.0f} pixels between the eyes"),
            ((turned > 0.35).mean() > 0.3, "the head is turned away in a third of the frames or more"),
            (crowded > 0, f"several faces in {crowded} frames"),
            (len(faces) > 1, f"{len(faces)} faces in the clip: one was chosen"),
            (light < 50, f"a dark face (mean grey {light:.0f} of 255)"),
            (light > 225, f"an overexposed face (mean grey {light:.0f} of 255)"),
        ]
    return [sentence for wrong, sentence in checks if wrong]


def _light(clip: Clip, points: AUTrack) -> float:
    """Mean grey of the face in the middle of the frames that show it."""
    row = np.flatnonzero(points.ok)[points.ok.sum() // 2]
    marks = points.landmarks[row]
    ((_, picture),) = _pictures(clip, [int(points.frame[row]) - 1])
    left, top, right, bottom = (int(edge) for edge in (*np.maximum(marks.min(0), 0), *marks.max(0) + 1))
    face = picture[top:bottom, left:right]
    return float(face.mean()) if face.size else 127.0


def to_json(frames: pd.DataFrame) -> dict:
    """What ``predict`` gave, as plain values: about, and frames as rows without unknown numbers."""
    rows = frames.astype(object).where(frames.notna(), None).to_dict("records")
    return json.loads(json.dumps({**frames.attrs["about"], "rows": rows}, default=lambda value: value.item()))


def write_html(frames: pd.DataFrame, video: str | os.PathLike, path: str | os.PathLike) -> None:
    """What ``predict`` gave as a page without scripts: the answer, pictures over scores and AUs over time, reasons."""
    about = frames.attrs["about"]
    changed = {au: other for au, other in about.get("counterfactuals", {}).items() if other != about["answer"]}
    largest = max([abs(row["part"]) for row in about.get("evidence", [])] or [1]) or 1
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
    page = environment.get_template("predict.html.j2").render(
        about=about,
        changed=changed,
        evidence=[{**row, "width": 50 * abs(row["part"]) / largest} for row in about.get("evidence", [])],
        scores=sorted(about["scores"].items(), key=lambda pair: -pair[1]),
        picture=traces(frames, video),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def clip_pictures(video: str | os.PathLike, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, picture) of some frames of a video or of a folder with the pictures of one clip, in order."""
    return _pictures(_one_clip(video), wanted)


def traces(frames: pd.DataFrame, video: str | os.PathLike, shown: int = 9) -> str:
    """Thumbnails, scores and AUs over time as a PNG in base64."""
    import matplotlib.pyplot as plt

    from ..results.builder import STYLE
    from ..results.drawing import EXPRESSION_COLOURS

    time = frames["seconds"].to_numpy()
    unit = "seconds" if np.isfinite(time).all() else "frame"
    time = time if unit == "seconds" else frames["frame"].to_numpy()
    measured = [column for column in INTENSITY_COLUMNS if frames[column].notna().any()]
    with plt.style.context(STYLE):
        heights = [1.1, 2.2, *([0.2 * len(measured)] if measured else [])]
        figure, axes = plt.subplots(
            len(heights), 1, sharex=True, figsize=(10, sum(heights) + 0.8), height_ratios=heights
        )
        wanted = np.unique(np.linspace(0, len(frames) - 1, shown).round().astype(int))
        span = max(time[-1] - time[0], 1e-9)
        for number, picture in clip_pictures(video, wanted.tolist()):
            place = (time[number] - time[0]) / span * (1 - 1 / shown)
            inset = axes[0].inset_axes([place, 0, 0.98 / shown, 1])
            inset.imshow(picture)
            inset.set_axis_off()
        axes[0].set_axis_off()
        for name in EXPRESSIONS:
            axes[1].plot(time, frames[name], label=name, color=EXPRESSION_COLOURS[name])
        axes[1].set(ylim=(0, 1), ylabel="score")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        if measured:
            edges = (time[0], time[-1] if time[-1] > time[0] else time[0] + 1, len(measured), 0)
            colours = {"cmap": "cividis", "vmin": 0, "vmax": 5, "aspect": "auto", "interpolation": "nearest"}
            image = axes[2].imshow(frames[measured].to_numpy().T, extent=edges, **colours)
            axes[2].set_yticks(np.arange(len(measured)) + 0.5, [column[:4] for column in measured], fontsize=7)
            figure.colorbar(image, ax=axes[2], label="intensity", pad=0.01)
        axes[-1].set_xlabel(unit)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
