"""Whether what is on disk is what the papers used: counts, files, labels, duplicates.

Nothing is trained before this.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .. import published as paper
from ..errors import InputError
from ..facs import EXPRESSIONS, LABEL_SPACES
from ..jobs.workers import chunks, each
from ..progress import progress as progress_bar
from .common import check_fold, dataset_folder, known_name
from .manifest import (
    IMAGE_ERRORS,
    RENDERED_STAMP,
    Manifest,
    frame_number,
    is_video,
    list_frames,
    published_counts,
    read_image,
    video_shape,
)

#: clips with fewer frames have to repeat some for the papers' 16
SHORT = 16
_CHUNK = 32
_ABBREVIATED = 4
_WIDTH = 79


@dataclass(frozen=True)
class Scan:
    """What a look at one clip's files found.

    Attributes:
        path: relative to the dataset's folder.
        numbers: int32 (n,), the frames' numbers as named (a video: 0 .. n-1).
        size: bytes of all frames.
        shapes: (width, height) -> frames.
        bad: (file, reason) of frames that cannot be read.
        absent: there is no such folder or video.
    """

    path: str
    numbers: np.ndarray
    size: int = 0
    shapes: dict = field(default_factory=dict)
    bad: tuple = ()
    absent: bool = False

    @property
    def gaps(self) -> int:
        """Numbers that the sequence of frame names leaves out, given its usual step."""
        if len(self.numbers) < 3:
            return 0
        steps = np.diff(np.unique(self.numbers))
        if not len(steps):
            return 0
        usual = int(np.bincount(np.minimum(steps, 1000)).argmax())
        return int(sum(step // usual - 1 for step in steps if step > usual))


@dataclass(frozen=True)
class Finding:
    """One thing that is not as expected: its kind, a sentence, how many, and a path that shows it."""

    kind: str
    sentence: str
    count: int = 1
    example: str = ""

    def __str__(self) -> str:
        return self.sentence + (f", for example {self.example}" if self.example else "")


@dataclass
class DatasetCheck:
    """The result of ``check_dataset``.

    Attributes:
        name, root: the dataset.
        counts: one row a fold, split and class: published (NA where nothing is), listed, usable (on disk and readable),
            verdict ("as published", "differs", "nothing published").
        deviations: why this is not, or cannot be shown to be, what the papers used. Empty means that it is.
        notes: what is worth knowing and no deviation.
        facts: clips, frames a clip, image sizes, label order, clips left out.
    """

    name: str
    root: Path
    counts: pd.DataFrame
    deviations: list[Finding]
    notes: list[Finding]
    facts: dict

    @property
    def as_published(self) -> bool:
        """Whether this is what the papers used."""
        return not self.deviations

    def to_json(self) -> dict:
        """Everything, as JSON types."""
        return {
            "dataset": self.name,
            "root": str(self.root),
            "as_published": self.as_published,
            "counts": _records(self.counts),
            "deviations": [asdict(f) for f in self.deviations],
            "notes": [asdict(f) for f in self.notes],
            **self.facts,
        }

    def __str__(self) -> str:
        lines = [f"{self.name}, {self.root}", "", *_count_table(self.counts), ""]
        facts = self.facts
        lines += _paragraph(
            f"clips: {facts['clips']} in {facts['folders']} folders or videos, {facts['frames']} frames "
            f"({facts['frames_a_clip'][0]} to {facts['frames_a_clip'][2]} a clip, "
            f"median {facts['frames_a_clip'][1]})"
        )
        lines += _paragraph("image sizes: " + _size_list(facts["image_sizes"]))
        lines += _paragraph(f"labels on disk: {facts['label_order']}")
        lines += _paragraph(f"classes here: {', '.join(f'{i} {c}' for i, c in enumerate(facts['classes']))}")
        if facts["dropped"]:
            lines += _paragraph("left out: " + ", ".join(f"{k} {v}" for k, v in facts["dropped"].items()))
        return "\n".join(lines + _finding_lines(self.name, self.notes, self.deviations))


@dataclass
class AnnotatedCheck(DatasetCheck):
    """The result of ``check_dataset`` for frames annotated with action units (DISFA, BP4D).

    Attributes:
        counts: one row for frames and one for subjects: published, found, verdict ("as published", "differs").
        facts: sequences, frames a sequence, image sizes, fold rule, the AUs that the papers judge, frames left out.
        rates: one row a fold (0: all) and AU: subjects, frames, known (frames where it is coded), present (of those),
            rate (present / known, 0..1, NaN where nothing is known).
    """

    rates: pd.DataFrame

    def to_json(self) -> dict:
        return {**super().to_json(), "rates": _records(self.rates)}

    def __str__(self) -> str:
        facts = self.facts
        lines = [f"{self.name}, {self.root}", "", f"{'':<12}{'published':>10}{'here':>10}"]
        lines += [
            f"{row.quantity:<12}{row.published:>10}{row.found:>10}" + (" *" if row.verdict == "differs" else "")
            for row in self.counts.itertuples()
        ]
        if (self.counts["verdict"] == "differs").any():
            lines.append("* differs from the published count")
        lines += [
            "",
            "per cent of the coded frames in which each AU is present",
            *_rate_table(self.rates, facts["judged"]),
            "",
        ]
        shortest, median, longest = facts["frames_a_sequence"]
        lines += _paragraph(
            f"sequences: {facts['sequences']} ({shortest} to {longest} frames, median {median}); "
            f"image sizes: {_size_list(facts['image_sizes'])}"
        )
        lines += _paragraph(f"folds: {facts['folds']}")
        if facts["dropped"]:
            lines += _paragraph("left out: " + ", ".join(f"{k} {v}" for k, v in facts["dropped"].items()))
        return "\n".join(lines + _finding_lines(self.name, self.notes, self.deviations))


def check_dataset(
    name: str,
    root: str | os.PathLike,
    folds: Iterable[int] | None = None,
    *,
    deep: bool = False,
    workers: int = 1,
    progress: bool = True,
    **choices,
) -> DatasetCheck:
    """Look at every clip of a dataset and compare it with what is published; of DISFA and BP4D, at every annotated
    frame.

    Args:
        name, root: as for ``read_dataset``, or for ``read_annotated``.
        folds: which folds; ``None``: all five of DFEW and MAFW, all three of DISFA and BP4D, the first of the others
            (whose folds are our own).
        deep: decode every frame. Otherwise the header and the end of every image file are read, and of every video its
            packets: this finds missing, empty and truncated files, not damaged pixels.
        workers: processes.
        progress: show a bar, in clips.
        **choices: as for ``read_dataset``.

    Returns:
        The counts beside the published ones and every deviation, with an example; of annotated frames
        ``AnnotatedCheck``.

    Raises:
        InputError: as ``read_dataset``, if no fold can be read.
    """
    from . import (  # the registry is made from the readers, after this module
        FOLDS,
        annotated,
        dataset_name,
        read_dataset,
    )

    if name.lower() in map(str.lower, annotated.READERS):
        name = known_name(name, annotated.READERS, "check_dataset")
        return _check_annotated(name, root, folds, deep, workers, progress, choices)
    name = dataset_name(name)
    everything = folds is None
    wanted = (
        tuple(folds) if folds is not None else tuple(range(1, FOLDS[name] + 1)) if name in ("DFEW", "MAFW") else (1,)
    )
    manifests, deviations = [], []
    for fold in wanted:
        try:
            manifests.append(read_dataset(name, root, fold, missing="keep", **choices))
        except InputError as error:
            if fold == wanted[-1] and not manifests:
                raise
            deviations.append(Finding("fold", f"fold {fold} cannot be read: {error}"))
        if everything and manifests and manifests[0].embedded:
            break  # the embedded benchmark has one fold
    base = manifests[0].root
    paths = list(dict.fromkeys(path for m in manifests for path in m.table["path"]))
    scans: dict[str, Scan] = {}
    with progress_bar(total=len(paths), desc=f"check {name}", unit="clip", disable=not progress) as bar:
        tasks = [(str(base), part, deep) for part in chunks(paths, _CHUNK)]
        for found in each(_scan_all, tasks, workers if len(tasks) > workers else 1):
            scans.update((scan.path, scan) for scan in found)
            bar.update(len(found))
    counts = _counts(manifests, scans)
    notes = [Finding("choice", note) for note in dict.fromkeys(n for m in manifests for n in m.notes)]
    deviations += _label_findings(manifests, counts)
    deviations += _file_findings(manifests, scans, notes)
    deviations += _duplicates(manifests, scans, workers, progress)
    deviations += _count_findings(manifests, counts)
    return DatasetCheck(name, base, counts, deviations, notes, _facts(manifests, scans))


def _check_annotated(name: str, root, folds, deep: bool, workers: int, progress: bool, choices: dict) -> AnnotatedCheck:
    from . import annotated

    shown = tuple(range(1, annotated.FOLDS[name] + 1)) if folds is None else tuple(folds)
    for fold in shown:
        check_fold(name, fold, annotated.FOLDS[name])
    table = annotated.read_annotated(name, root, missing="drop", **choices)
    base, rule = dataset_folder(root, name), table.attrs["folds"]
    judged = annotated.EVALUATED[name]
    claims = paper.load("lac_text_claims").set_index("quantity")["printed"]
    published = {
        "frames": int(claims[f"{name} {'frames' if name == 'DISFA' else 'images'}"]),
        "subjects": int(claims[f"{name} subjects"].split()[0]),
    }
    found = {"frames": len(table), "subjects": table["subject"].nunique()}
    counts = pd.DataFrame(
        [
            (key, published[key], found[key], "as published" if found[key] == published[key] else "differs")
            for key in published
        ],
        columns=["quantity", "published", "found", "verdict"],
    )
    deviations, notes = [], [Finding("choice", table.attrs["clips"])]
    if (base / RENDERED_STAMP).is_file():
        deviations.append(
            Finding("rendered", "the embedded benchmark: rendered faces, not the real dataset", 1, str(base))
        )
    elif not rule.startswith("the subjects tested"):
        deviations.append(Finding("fold", f"the folds are not the field's: {rule}", 1, str(base)))
    else:
        notes.append(
            Finding("fold", "LAC's paper names three folds and not their subjects: these are the field's usual ones")
        )
    if not (base / RENDERED_STAMP).is_file():
        off = counts[counts["verdict"] == "differs"]
        deviations += [
            Finding(
                "counts",
                f"{row.found} {row.quantity}, published are {row.published}",
                abs(row.found - row.published),
                str(base),
            )
            for row in off.itertuples()
        ]
    for reason, count in table.attrs["dropped"].items():
        deviations.append(Finding("missing frame", f"{count} annotated {reason}", count, table.attrs["absent"][0][0]))
    shapes, bad = _scan_annotated(base, table, deep, workers, progress)
    if bad:
        file, reason = bad[0]
        deviations.append(
            Finding("unreadable", f"{len(bad)} files cannot be read ({reason})", len(bad), str(base / file))
        )
    notes.append(
        Finding(
            "training set",
            "OpenFace's AU models were trained on DISFA and BP4D: do not judge it here as on unseen faces",
        )
    )
    same = table["sequence"].to_numpy()[1:] == table["sequence"].to_numpy()[:-1]
    gaps = same & (np.diff(table["frame"]) != 1)
    if gaps.any():
        first = int(np.argmax(gaps))
        notes.append(
            Finding(
                "missing frame",
                f"{int(gaps.sum())} gaps in the frame numbers: windows of frames end there",
                int(gaps.sum()),
                f"{table['sequence'][first]} after frame {table['frame'][first]}",
            )
        )
    if len(shapes) > 1:
        notes.append(Finding("image size", f"images have {len(shapes)} sizes", len(shapes), str(base)))
    rates = _rates(annotated, table, shown)
    silent = rates[(rates["fold"] == 0) & (rates["present"] == 0) & rates["action_unit"].isin(judged)]
    if len(silent):
        notes.append(
            Finding("labels", f"{len(silent)} AUs are never present", len(silent), ", ".join(silent["action_unit"]))
        )
    lengths = table.groupby("sequence", sort=False).size()
    return AnnotatedCheck(
        name,
        base,
        counts,
        deviations,
        notes,
        {
            "frames": len(table),
            "sequences": len(lengths),
            "folds": rule,
            "judged": list(judged),
            "frames_a_sequence": [int(lengths.min()), int(lengths.median()), int(lengths.max())],
            "image_sizes": {f"{w}x{h}": count for (w, h), count in shapes.most_common()},
            "dropped": dict(table.attrs["dropped"]),
        },
        rates,
    )


def _scan_annotated(base: Path, table: pd.DataFrame, deep: bool, workers: int, progress: bool) -> tuple[Counter, list]:
    """(shape -> annotated frames, (file, reason) of what cannot be read)."""
    counts = table["path"].value_counts(sort=False)
    tasks = [(str(base), part, deep) for part in chunks(list(counts.items()), 1 if is_video(counts.index[0]) else 500)]
    shapes, bad = Counter(), []
    with progress_bar(
        total=len(counts), desc=f"check {table.attrs['dataset']}", unit="file", disable=not progress
    ) as bar:
        for part, wrong, files in each(_glance_all, tasks, workers if len(counts) > 1000 else 1):
            shapes.update(part)
            bad += wrong
            bar.update(files)
    return shapes, sorted(bad)


def _glance_all(task: tuple[str, list[tuple[str, int]], bool]) -> tuple[Counter, list, int]:
    base, files, deep = task
    shapes, bad = Counter(), []
    for path, frames in files:
        file = os.path.join(base, path)
        try:
            if is_video(path):
                shape = video_shape(file, deep)[1]
            else:
                shape = read_image(file).shape[1::-1] if deep else _glance(file)[1]
            shapes[shape] += frames
        except IMAGE_ERRORS as error:
            bad.append((path, str(getattr(error, "found", error))))
    return shapes, bad, len(files)


def _rates(annotated, table: pd.DataFrame, folds: tuple[int, ...]) -> pd.DataFrame:
    units = annotated.action_units_of(table)
    labels, fold_of = annotated.annotated_labels(table, units), table["fold"].to_numpy()
    rows = []
    for fold in (0, *folds):
        here = fold_of == fold if fold else np.ones(len(table), bool)
        known, present = (~np.isnan(labels[here])).sum(0), np.nansum(labels[here], 0)
        rows += [
            (fold, unit, table["subject"][here].nunique(), int(here.sum()), int(k), int(p), p / k if k else np.nan)
            for unit, k, p in zip(units, known, present, strict=True)
        ]
    return pd.DataFrame(rows, columns=["fold", "action_unit", "subjects", "frames", "known", "present", "rate"])


# --------------------------------------------------------------------------------------------------------- the files


def _scan_all(task: tuple[str, list[str], bool]) -> list[Scan]:
    root, paths, deep = task
    return [_scan(root, path, deep) for path in paths]


def _scan(root: str, path: str, deep: bool) -> Scan:
    full = os.path.join(root, path)
    if is_video(path):
        if not os.path.isfile(full):
            return Scan(path, np.empty(0, np.int32), absent=True)
        try:
            count, shape = video_shape(full, deep)
        except InputError as error:
            return Scan(path, np.empty(0, np.int32), os.path.getsize(full), bad=((path, error.found),))
        return Scan(path, np.arange(count, dtype=np.int32), os.path.getsize(full), {shape: count})
    if not os.path.isdir(full):
        return Scan(path, np.empty(0, np.int32), absent=True)
    numbers, size, shapes, bad = [], 0, Counter(), []
    for name in list_frames(full):
        file = os.path.join(full, name)
        named = frame_number(name)[0]
        numbers.append(min(named[-1], 2**31 - 1) if named else len(numbers) + 1)
        try:
            if deep:
                height, width = read_image(file).shape[:2]
                shapes[width, height] += 1
                size += os.path.getsize(file)
            else:
                length, shape = _glance(file)
                shapes[shape] += 1
                size += length
        except IMAGE_ERRORS as error:
            bad.append((os.path.join(path, name), str(getattr(error, "found", error))))
    return Scan(path, np.array(numbers, np.int32), size, dict(shapes), tuple(bad))


def _glance(file: str) -> tuple[int, tuple[int, int]]:
    """(bytes, (width, height)) of an image file from its first and last bytes.

    Raises:
        OSError: empty, no image, or without an end.
    """
    with open(file, "rb") as handle:
        length = os.fstat(handle.fileno()).st_size
        if not length:
            raise OSError("an empty file")
        with Image.open(handle) as image:
            shape, kind = image.size, image.format
            handle.seek(max(0, length - 32))
            tail = handle.read()
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind)
    if end is not None and end not in tail:
        raise OSError(f"{kind} without its end marker: truncated")
    return length, shape


def _digest(task: tuple[str, str]) -> tuple[str, str]:
    """(path, digest of the bytes of all its frames in order)."""
    root, path = task
    full = os.path.join(root, path)
    hasher = hashlib.sha256()
    for file in [full] if is_video(path) else [os.path.join(full, name) for name in list_frames(full)]:
        with open(file, "rb") as handle:
            hasher.update(hashlib.file_digest(handle, "sha256").digest())
    return path, hasher.hexdigest()


# ------------------------------------------------------------------------------------------------------- the findings


def _frames_of(row, scan: Scan) -> int:
    if row.stop < 0:
        return len(scan.numbers)
    return int(((scan.numbers > row.start) & (scan.numbers <= row.stop)).sum())


def _usable(row, scan: Scan) -> bool:
    return not scan.absent and not scan.bad and _frames_of(row, scan) > 0


def _counts(manifests: list[Manifest], scans: dict[str, Scan]) -> pd.DataFrame:
    rows = []
    for manifest in manifests:
        usable = Counter(
            (row.split, row.expression) for row in manifest.table.itertuples() if _usable(row, scans[row.path])
        )
        listed = Counter(zip(manifest.table["split"], manifest.table["expression"], strict=True))
        check = manifest.check().set_index(["split", "expression"])
        for split, name in check.index:
            index = manifest.classes.index(name)
            expected, verdict = check.loc[(split, name), ["expected", "verdict"]]
            if verdict == "as published" and usable[split, index] != listed[split, index]:
                verdict = "differs"
            rows.append((manifest.fold, split, name, expected, listed[split, index], usable[split, index], verdict))
    table = pd.DataFrame(rows, columns=["fold", "split", "expression", "published", "listed", "usable", "verdict"])
    return table.astype({"published": "Float64"})


def _count_findings(manifests: list[Manifest], counts: pd.DataFrame) -> list[Finding]:
    root = str(manifests[0].root)
    if manifests[0].embedded:
        return [Finding("rendered", "the embedded benchmark: rendered faces, not the real dataset", 1, root)]
    if (counts["verdict"] == "nothing published").all():
        return [Finding("unconfirmed", "no counts are published for these clips: nothing to compare with", 1, root)]
    out = _other_clips(manifests[0])
    for manifest in manifests:
        for split in ("train", "test"):
            part = counts[(counts["fold"] == manifest.fold) & (counts["split"] == split)]
            off = part[part["verdict"] == "differs"]
            if len(off) or part.empty:
                named = ", ".join(
                    f"{r.expression} {r.usable} (published {int(r.published)}"
                    + (f", listed {r.listed})" if r.listed != r.usable else ")")
                    for r in off.head(3).itertuples()
                )
                more = f" and {len(off) - 3} more classes" if len(off) > 3 else ""
                out.append(
                    Finding(
                        "counts",
                        f"fold {manifest.fold} {split}: {named or 'no clips'}{more}",
                        len(off),
                        str(manifest.lists.get(split, root)),
                    )
                )
    return out


def _other_clips(manifest: Manifest) -> list[Finding]:
    """Whole copies that are not the ones the papers trained on, whatever their counts."""
    out, first = [], manifest.table["path"].iloc[0]
    example = os.path.join(manifest.root, first)
    if manifest.name == "RAVDESS":
        sung = manifest.table["clip_id"].str[3:5].eq("02").all()
        actors, wanted = manifest.table["subject"].nunique(), 23 if sung else 24  # actor 18 sang nothing
        if actors != wanted:
            out.append(Finding("counts", f"{actors} of {wanted} actors", wanted - actors, str(manifest.root)))
    elif is_video(first):
        out.append(Finding("clips", "raw video: the papers used the face frames of the release", 1, example))
    elif any(note.startswith("not the official face frames") for note in manifest.notes):
        out.append(Finding("clips", "whole frames: the papers used the release's face frames", 1, example))
    return out


def _label_findings(manifests: list[Manifest], counts: pd.DataFrame) -> list[Finding]:
    out = []
    for manifest in manifests:
        out += [Finding("label order", note) for note in manifest.notes if note.startswith("labels that contradict")]
        for split in ("train", "test"):
            published = published_counts(manifest.name, split, manifest.fold, manifest.classes)
            if published is None or manifest.embedded:
                continue
            part = counts[(counts["fold"] == manifest.fold) & (counts["split"] == split)]
            found = dict(zip(part["expression"], part["listed"], strict=True))
            named = {count: name for name, count in published.items()}
            moved = {
                name: named[count]
                for name, count in found.items()
                if count and count != published[name] and named.get(count, name) != name
            }
            if len(moved) >= 3:
                pairs = ", ".join(f"{name} has {theirs}'s" for name, theirs in list(moved.items())[:4])
                out.append(
                    Finding(
                        "label order",
                        f"fold {manifest.fold} {split}: the counts are the published ones of other classes ({pairs} "
                        f"...): "
                        "the labels are in another order or count from another number",
                        len(moved),
                        str(manifest.lists.get(split, manifest.root)),
                    )
                )
    return list({finding.sentence: finding for finding in out}.values())


def _file_findings(manifests: list[Manifest], scans: dict[str, Scan], notes: list[Finding]) -> list[Finding]:
    manifest, out = manifests[0], []
    rows = {row.clip_id: row for m in manifests for row in m.table.itertuples()}
    example = lambda row: os.path.join(manifest.root, row.path)  # noqa: E731

    def found(kind: str, sentence: str, clips: list, where: list[Finding]) -> None:
        if clips:
            where.append(Finding(kind, f"{len(clips)} of {len(rows)} {sentence}", len(clips), example(clips[0])))

    found("missing clip", "listed clips are not on disk", [r for r in rows.values() if scans[r.path].absent], out)
    found(
        "empty clip",
        "clips have no frames",
        [
            r
            for r in rows.values()
            if not scans[r.path].absent and not scans[r.path].bad and not _frames_of(r, scans[r.path])
        ],
        out,
    )
    bad = [(file, reason) for scan in scans.values() for file, reason in scan.bad]
    if bad:
        file, reason = bad[0]
        out.append(
            Finding(
                "unreadable", f"{len(bad)} files cannot be read ({reason})", len(bad), os.path.join(manifest.root, file)
            )
        )
    for m in manifests:
        for dropped in ("videos without images",):
            if m.dropped.get(dropped):
                named = next((note for note in m.notes if note.startswith(dropped)), dropped)
                out.append(Finding("missing clip", f"{m.dropped[dropped]} {named}", m.dropped[dropped]))
    if manifest.name != "AffWild2":  # there a missing image means that no face was found
        gaps = [r for r in rows.values() if scans[r.path].gaps]
        total = sum(scans[path].gaps for path in {r.path for r in gaps})
        explained = _frame_totals(manifests, scans, notes)
        found(
            "missing frame",
            f"clips have gaps in their frame numbers ({total} frames)"
            + (", as the published frame counts have" if explained else ""),
            gaps,
            notes if explained else out,
        )
    short = [r for r in rows.values() if 0 < _frames_of(r, scans[r.path]) < SHORT]
    found("short clip", f"clips have fewer than {SHORT} frames: frames are repeated", short, notes)
    other = [
        c
        for m in manifests
        for c, n in m.listed_frames.items()
        if c in rows and not scans[rows[c].path].absent and _frames_of(rows[c], scans[rows[c].path]) != n
    ]
    other = list(dict.fromkeys(other))
    found("frame count", "clips have another number of frames than their list says", [rows[c] for c in other], notes)
    shapes = Counter()
    for scan in scans.values():
        shapes.update(scan.shapes)
    if len(shapes) > 1:
        usual = shapes.most_common(1)[0][0]
        odd = next(scan.path for scan in scans.values() if set(scan.shapes) - {usual})
        notes.append(
            Finding("image size", f"images have {len(shapes)} sizes", len(shapes), os.path.join(manifest.root, odd))
        )
    elif shapes and "224" in next(iter(scans)) and next(iter(shapes)) != (224, 224):
        width, height = next(iter(shapes))
        notes.append(Finding("image size", f"the folder is called 224, its images are {width} x {height}"))
    return out


def _frame_totals(manifests: list[Manifest], scans: dict[str, Scan], notes: list[Finding]) -> bool:
    """Whether the frames of every class are as many as published; a note where they are not."""
    agree, compared = True, False
    for manifest in manifests:
        first = manifest.table["path"].iloc[0]
        if manifest.embedded or is_video(first) or "16f" in first:  # the interpolated copy has its own number of frames
            return False
        for split in ("train", "test"):
            try:
                published = paper.frame_counts(manifest.name, split, manifest.fold)
            except InputError:
                return False
            rows = manifest.table[manifest.table["split"] == split]
            found = Counter()
            for row in rows.itertuples():
                found[EXPRESSIONS[row.expression]] += len(scans[row.path].numbers)
            compared = True
            if any(found[name] != count for name, count in published.items()):
                agree = False
                notes.append(
                    Finding(
                        "frame count",
                        f"fold {manifest.fold} {split}: {sum(found.values())} frames here, {sum(published.values())} "
                        f"in "
                        "Former-DFER's extraction",
                    )
                )
    return agree and compared


def _duplicates(manifests: list[Manifest], scans: dict[str, Scan], workers: int, progress: bool) -> list[Finding]:
    out = []
    for manifest in manifests:
        if manifest.repeated:
            clip, first, second = manifest.repeated[0]
            across = sum(a != b for _, a, b in manifest.repeated)
            out.append(
                Finding(
                    "duplicate",
                    f"fold {manifest.fold}: {len(manifest.repeated)} clips listed twice, "
                    f"{across} of them in both splits",
                    len(manifest.repeated),
                    f"{clip} ({first}, {second})",
                )
            )
        if manifest.name == "AffWild2":
            sides = defaultdict(set)
            for row in manifest.table.itertuples():
                sides[row.subject.replace("-", "_").removesuffix("_left").removesuffix("_right")].add(row.split)
            both = [video for video, splits in sides.items() if len(splits) > 1]
            if both:
                out.append(Finding("duplicate", f"{len(both)} videos have people in both splits", len(both), both[0]))
    # only clips with as many frames and bytes as another can have the same content: the rest need not be read
    splits = [dict(zip(m.table["path"], m.table["split"], strict=True)) for m in manifests]
    alike = defaultdict(list)
    for scan in scans.values():
        if scan.size:
            alike[len(scan.numbers), scan.size].append(scan.path)
    crossing = lambda paths: any(len({s.get(p) for p in paths} - {None}) > 1 for s in splits)  # noqa: E731
    candidates = [path for paths in alike.values() if len(paths) > 1 and crossing(paths) for path in paths]
    same = defaultdict(list)
    if candidates:
        root = str(manifests[0].root)
        bar = progress_bar(
            each(_digest, [(root, p) for p in candidates], workers if len(candidates) > 200 else 1),
            total=len(candidates),
            desc="compare contents",
            unit="clip",
            disable=not progress,
        )
        for path, digest in bar:
            same[digest].append(path)
    groups = [sorted(paths) for paths in same.values() if len(paths) > 1 and crossing(paths)]
    if groups:
        first = min(groups)
        out.append(
            Finding(
                "duplicate",
                f"{len(groups)} groups of clips with identical files in training and test",
                len(groups),
                " = ".join(first[:2]),
            )
        )
    return out


def _facts(manifests: list[Manifest], scans: dict[str, Scan]) -> dict:
    manifest = manifests[0]
    clips = {row.clip_id: row for m in manifests for row in m.table.itertuples()}
    lengths = sorted(_frames_of(row, scans[row.path]) for row in clips.values())
    shapes = Counter()
    for scan in scans.values():
        shapes.update(scan.shapes)
    return {
        "clips": len(clips),
        "folders": len(scans),
        "frames": sum(len(scan.numbers) for scan in scans.values()),
        "frames_a_clip": [lengths[0], int(np.median(lengths)), lengths[-1]],
        "image_sizes": {f"{w}x{h}": count for (w, h), count in shapes.most_common()},
        "label_order": LABEL_SPACES[manifest.name].order() if manifest.name in LABEL_SPACES else "none",
        "classes": list(manifest.classes),
        "dropped": dict(manifest.dropped),
    }


# ----------------------------------------------------------------------------------------------------------- the text


def _count_table(counts: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(counts["expression"]))
    cell = lambda value: "-" if pd.isna(value) else f"{value:.0f}"  # noqa: E731
    widths = [
        max(
            _ABBREVIATED,
            *(
                len(cell(v))
                for column in ("published", "listed", "usable")
                for v in counts.loc[counts["expression"] == name, column]
            ),
        )
        for name in names
    ]
    lines = [
        f"{'fold split':<12}{'':<10}"
        + " ".join(f"{n[:_ABBREVIATED]:>{w}}" for n, w in zip(names, widths, strict=True))
        + "  total"
    ]
    for (fold, split), part in counts.groupby(["fold", "split"], sort=False):
        part = part.set_index("expression").loc[names]
        shown = ["published", "listed", "usable"]
        if (part["listed"] == part["usable"]).all():
            shown.remove("listed")
        for position, column in enumerate(shown):
            head = f"{fold:<5}{split:<7}" if not position else " " * 12
            total = part[column].sum() if part[column].notna().all() else pd.NA
            lines.append(
                head
                + f"{column:<10}"
                + " ".join(f"{cell(v):>{w}}" for v, w in zip(part[column], widths, strict=True))
                + f" {cell(total):>6}"
                + (" *" if column == "usable" and (part["verdict"] == "differs").any() else "")
            )
    if (counts["verdict"] == "differs").any():
        lines.append("* differs from the published counts")
    return lines


def _rate_table(rates: pd.DataFrame, judged: list[str]) -> list[str]:
    lines = [f"{'fold':<5}{'people':>6}{'frames':>8} " + " ".join(f"{unit:>4}" for unit in judged)]
    for fold, part in rates.groupby("fold", sort=False):
        part = part.set_index("action_unit")
        cells = (part["rate"].get(unit, np.nan) for unit in judged)
        lines.append(
            f"{fold or 'all':<5}{part['subjects'].iloc[0]:>6}{part['frames'].iloc[0]:>8} "
            + " ".join(f"{'-' if np.isnan(rate) else format(100 * rate, '.1f'):>4}" for rate in cells)
        )
    return lines


def _size_list(sizes: dict[str, int]) -> str:
    text = ", ".join(f"{size} ({count} frames)" for size, count in list(sizes.items())[:6])
    return text + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")


def _finding_lines(name: str, notes: list[Finding], deviations: list[Finding]) -> list[str]:
    """Both lists and the verdict, as every check ends."""
    lines = []
    for title, findings in (("notes", notes), ("deviations", deviations)):
        if findings:
            lines += ["", f"{title}:"]
            lines += [line for finding in findings for line in _paragraph(f"- {finding}", "  ")]
    several = f"{len(deviations)} deviations" if len(deviations) > 1 else "1 deviation"
    return [
        *lines,
        "",
        f"{name}: "
        + (f"not shown to be what the papers used: {several}" if deviations else "this is what the papers used"),
    ]


def _records(table: pd.DataFrame) -> list[dict]:
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _paragraph(text: str, indent: str = "  ") -> list[str]:
    import textwrap

    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
