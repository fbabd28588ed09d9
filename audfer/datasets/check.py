"""Whether what is on disk is what the papers used: counts, files, labels, duplicates.

Nothing is trained before this.
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .. import published as paper
from ..errors import InputError
from ..facs import EXPRESSIONS
from ..files import require_plain
from ..jobs.workers import chunks, each
from ..progress import progress as progress_bar
from .annotated import action_units_of, annotated_labels, read_annotated
from .common import check_fold, dataset_folder, dataset_name, known_name, read_dataset
from .manifest import (
    IMAGE_ERRORS,
    RENDERED_STAMP,
    Manifest,
    frame_number,
    is_video,
    list_frames,
    open_image,
    published_counts,
    read_image,
    upright_size,
    video_shape,
)
from .registry import DATASETS, Finding, annotated_datasets

#: clips with fewer frames have to repeat some for the papers' 16
SHORT = 16
#: clips that a process looks at in one go, and single images
_CHUNK, _CHUNK_OF_IMAGES = 32, 500
_ABBREVIATED = 4
_WIDTH = 79
_RENDERED = "the embedded benchmark: rendered faces, not the real dataset"


@dataclass
class DatasetCheck:
    """The result of ``check_dataset``.

    Attributes:
        name, root: the dataset.
        counts: of clips one row per fold, split and class: published (NA where nothing is), listed, usable (on disk and
            readable), verdict ("as published", "differs", "nothing published"); of annotated frames one row for frames
            and one for subjects: quantity, published, found, verdict.
        deviations: why this is not, or cannot be shown to be, what the papers used. Empty means that it is.
        notes: what is worth knowing and no deviation.
        facts: how much there is, image sizes, label order or fold rule, what was left out.
        text: the counts and facts as lines to read.
        rates: of annotated frames one row per fold (0: all) and AU: subjects, frames, known (frames where it is coded),
            present (of those), rate (present / known, 0..1, NaN where nothing is known).
    """

    name: str
    root: Path
    counts: pd.DataFrame
    deviations: list[Finding]
    notes: list[Finding]
    facts: dict
    text: list[str]
    rates: pd.DataFrame | None = None

    @property
    def as_published(self) -> bool:
        """Whether this is what the papers used."""
        return not self.deviations

    def to_json(self) -> dict:
        """Everything, as JSON types."""
        records = lambda table: table.astype(object).where(table.notna(), None).to_dict("records")  # noqa: E731
        return {
            "dataset": self.name,
            "root": str(self.root),
            "as_published": self.as_published,
            "counts": records(self.counts),
            "deviations": [asdict(finding) for finding in self.deviations],
            "notes": [asdict(finding) for finding in self.notes],
            **self.facts,
            **({} if self.rates is None else {"rates": records(self.rates)}),
        }

    def __str__(self) -> str:
        lines = [f"{self.name}, {self.root}", "", *self.text]
        if self.facts["dropped"]:
            lines += _paragraph("left out: " + ", ".join(f"{k} {v}" for k, v in self.facts["dropped"].items()))
        for title, findings in (("notes", self.notes), ("deviations", self.deviations)):
            if findings:
                lines += ["", f"{title}:", *(line for finding in findings for line in _paragraph(f"- {finding}"))]
        verdict = "this is what the papers used"
        if count := len(self.deviations):
            verdict = f"not shown to be what the papers used: {count} deviation{'s' * (count > 1)}"
        return "\n".join([*lines, "", f"{self.name}: {verdict}"])


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

    Raises:
        InputError: as ``read_dataset``, if no fold can be read.
    """
    look = {"deep": deep, "workers": workers, "progress": progress}
    if name.lower() in map(str.lower, annotated_datasets()):
        return _check_annotated(known_name(name, annotated_datasets(), "check_dataset"), root, folds, choices, look)
    name = dataset_name(name)
    dataset, everything = DATASETS[name], folds is None
    wanted = tuple(range(1, dataset.folds + 1) if everything and dataset.published_folds else folds or (1,))
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
    review = _Review(manifests, look, deviations)
    return DatasetCheck(name, review.root, review.counts, deviations, review.notes, review.facts(), review.text())


# --------------------------------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class Scan:
    """What a look at one clip's files found.

    Attributes:
        path: relative to the dataset's folder.
        numbers: int32 (n,), the frames' numbers as named (a video: 0 .. n-1).
        size: bytes of all frames.
        shapes: (width, height) -> frames.
        bad: (file, reason) of frames that cannot be read.
        absent: there is no such folder or file.
    """

    path: str
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    size: int = 0
    shapes: dict = field(default_factory=dict)
    bad: tuple = ()
    absent: bool = False

    @property
    def gaps(self) -> int:
        """Numbers that the sequence of frame names leaves out, given its usual step."""
        steps = np.diff(np.unique(self.numbers))
        if len(self.numbers) < 3 or not len(steps):
            return 0
        usual = int(np.bincount(np.minimum(steps, 1000)).argmax())
        return int(sum(step // usual - 1 for step in steps if step > usual))

    def frames_of(self, row) -> int:
        """How many of the frames belong to a clip, which may be a span of a take."""
        if row.stop < 0:
            return len(self.numbers)
        return int(((self.numbers > row.start) & (self.numbers <= row.stop)).sum())


def _scan_all(base: Path, paths: list[str], desc: str, unit: str, chunk: int, deep: bool, workers: int, progress: bool):
    """path -> its scan"""
    scans: dict[str, Scan] = {}
    tasks = [(str(base), part, deep) for part in chunks(paths, chunk)]
    with progress_bar(total=len(paths), desc=f"check {desc}", unit=unit, disable=not progress) as bar:
        for found in each(_scan_chunk, tasks, workers if len(tasks) > workers else 1):
            scans.update((scan.path, scan) for scan in found)
            bar.update(len(found))
    return {path: scans[path] for path in paths}


def _scan_chunk(task: tuple[str, list[str], bool]) -> list[Scan]:
    root, paths, deep = task
    return [_scan(root, path, deep) for path in paths]


def _scan(root: str, path: str, deep: bool) -> Scan:
    full = os.path.join(root, path)
    if is_video(path) or not os.path.isdir(full):
        if not os.path.isfile(full):
            return Scan(path, absent=True)
        files, numbers = [path], [1]
    else:
        names = list_frames(full)
        files, named = [os.path.join(path, name) for name in names], [frame_number(name)[0] for name in names]
        numbers = [min(number[-1], 2**31 - 1) if number else place for place, number in enumerate(named, 1)]
    size, shapes, bad = 0, Counter(), []
    for file in files:
        try:
            length, frames, shape = _measure(os.path.join(root, file), deep)
        except IMAGE_ERRORS as error:
            bad.append((file, str(getattr(error, "found", error))))
            continue
        size += length
        shapes[shape] += frames
    if is_video(path):
        numbers = range(shapes.total())
        size = os.path.getsize(full)
    return Scan(path, np.array(numbers, np.int32), size, dict(shapes), tuple(bad))


def _measure(file: str, deep: bool) -> tuple[int, int, tuple[int, int]]:
    """(bytes, frames, (width, height)) of a video or an image; unless ``deep``, of an image's first and last bytes.

    Raises:
        OSError: empty, no image, or without an end; as ``video_shape`` and ``read_image``.
    """
    if is_video(file):
        return os.path.getsize(file), *video_shape(file, deep)
    if deep:
        return os.path.getsize(file), 1, read_image(file).shape[1::-1]
    require_plain(file)
    with open(file, "rb") as handle:
        length = os.fstat(handle.fileno()).st_size
        if not length:
            raise OSError("an empty file")
        handle.seek(max(0, length - 32))
        tail = handle.read()
        handle.seek(0)
        with open_image(handle) as image:
            end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(image.format, b"")
            if end not in tail:
                raise OSError(f"{image.format} without its end marker: truncated")
            return length, 1, upright_size(image, quick=True)


def _digest(task: tuple[str, str]) -> tuple[str, str]:
    """(path, digest of the bytes of all its frames in order)."""
    root, path = task
    full = os.path.join(root, path)
    hasher = hashlib.sha256()
    for file in [full] if is_video(path) else [os.path.join(full, name) for name in list_frames(full)]:
        with open(file, "rb") as handle:
            hasher.update(hashlib.file_digest(handle, "sha256").digest())
    return path, hasher.hexdigest()


def _unreadable(bad: list[tuple[str, str]], base: Path) -> list[Finding]:
    if not bad:
        return []
    file, reason = bad[0]
    sentence = f"{len(bad)} files cannot be read ({reason})"
    return [Finding("unreadable", sentence, len(bad), os.path.join(base, file))]


def _image_sizes(shapes: Counter) -> dict[str, int]:
    return {f"{width}x{height}": count for (width, height), count in shapes.most_common()}


# ------------------------------------------------------------------------------------------------------- the findings


class _Review:
    """Everything about the clips of one or more folds: ``notes``, ``counts``, and ``deviations``, which it extends."""

    def __init__(self, manifests: list[Manifest], look: dict, deviations: list[Finding]):
        self.manifests, self.look, self.deviations = manifests, look, deviations
        first = self.first = manifests[0]
        self.root, self.dataset = first.root, DATASETS[first.name]
        self.notes = [Finding("choice", note) for note in dict.fromkeys(n for m in manifests for n in m.notes)]
        paths = list(dict.fromkeys(path for m in manifests for path in m.table["path"]))
        self.scans = _scan_all(first.root, paths, first.name, "clip", _CHUNK, **look)
        self.rows = {row.clip_id: row for m in manifests for row in m.table.itertuples()}
        self.lengths = {clip: self.scans[row.path].frames_of(row) for clip, row in self.rows.items()}
        self.shapes = sum((Counter(scan.shapes) for scan in self.scans.values()), Counter())
        self.counts = self._counts()
        deviations += dict.fromkeys(self._labels())
        self._files()
        self._duplicates()
        deviations += self.dataset.look(first) if self.dataset.look else []
        self._published()

    def _note(self, *finding) -> None:
        self.notes.append(Finding(*finding))

    def _deviation(self, *finding) -> None:
        self.deviations.append(Finding(*finding))

    def _parts(self) -> Iterator[tuple[Manifest, str, pd.DataFrame, str]]:
        """(manifest, split, its counts, what lists its clips) of every fold and split."""
        for manifest in self.manifests:
            for split in ("train", "test"):
                part = self.counts[(self.counts["fold"] == manifest.fold) & (self.counts["split"] == split)]
                yield manifest, split, part, str(manifest.lists.get(split, self.root))

    def _counts(self) -> pd.DataFrame:
        rows = []
        for manifest in self.manifests:
            listed, usable = Counter(), Counter()
            for row in manifest.table.itertuples():
                scan, place = self.scans[row.path], (row.split, row.expression)
                listed[place] += 1
                usable[place] += not scan.absent and not scan.bad and scan.frames_of(row) > 0
            for row in manifest.check().itertuples():
                place = row.split, manifest.classes.index(row.expression)
                differs = row.verdict == "as published" and usable[place] != listed[place]
                verdict = "differs" if differs else row.verdict
                counted = row.expected, listed[place], usable[place], verdict
                rows.append((manifest.fold, row.split, row.expression, *counted))
        table = pd.DataFrame(rows, columns=["fold", "split", "expression", "published", "listed", "usable", "verdict"])
        return table.astype({"published": "Float64"})

    def _labels(self) -> Iterator[Finding]:
        for manifest in self.manifests:
            for note in manifest.notes:
                if note.startswith("labels that contradict"):
                    yield Finding("label order", note)
        for manifest, split, part, where in self._parts():
            published = published_counts(manifest.name, split, manifest.fold, manifest.classes)
            if published is None or manifest.embedded:
                continue
            named = {count: name for name, count in published.items()}
            moved = [
                f"{row.expression} has {named[row.listed]}'s"
                for row in part.itertuples()
                if row.listed
                and row.listed != published[row.expression]
                and named.get(row.listed, row.expression) != row.expression
            ]
            if len(moved) >= 3:
                sentence = (
                    f"fold {manifest.fold} {split}: the counts are the published ones of other classes "
                    f"({', '.join(moved[:4])} ...): the labels are in another order or count from another number"
                )
                yield Finding("label order", sentence, len(moved), where)

    def _clips(self, kind: str, sentence: str, clips: list, report) -> None:
        if clips:
            example = os.path.join(self.root, clips[0].path)
            report(kind, f"{len(clips)} of {len(self.rows)} {sentence}", len(clips), example)

    def _files(self) -> None:
        scan_of, rows, lengths = lambda row: self.scans[row.path], self.rows.values(), self.lengths
        lacking = [row for row in rows if scan_of(row).absent]
        self._clips("missing clip", "listed clips are not on disk", lacking, self._deviation)
        empty = [r for r in rows if not scan_of(r).absent and not scan_of(r).bad and not lengths[r.clip_id]]
        self._clips("empty clip", "clips have no frames", empty, self._deviation)
        self.deviations += _unreadable([bad for scan in self.scans.values() for bad in scan.bad], self.root)
        if not self.dataset.skips_frames:
            gaps = [row for row in rows if scan_of(row).gaps]
            total = sum(self.scans[path].gaps for path in {row.path for row in gaps})
            explained = self._frames_as_published()
            why = ", as the published frame counts have" if explained else ""
            sentence = f"clips have gaps in their frame numbers ({total} frames){why}"
            self._clips("missing frame", sentence, gaps, self._note if explained else self._deviation)
        short = [row for row in rows if 0 < lengths[row.clip_id] < SHORT]
        self._clips("short clip", f"clips have fewer than {SHORT} frames: frames are repeated", short, self._note)
        promised = {clip: count for m in self.manifests for clip, count in m.listed_frames.items()}
        other = [
            self.rows[clip]
            for clip, count in promised.items()
            if clip in self.rows and not scan_of(self.rows[clip]).absent and lengths[clip] != count
        ]
        self._clips("frame count", "clips have another number of frames than their list says", other, self._note)
        if len(self.shapes) > 1:
            usual = self.shapes.most_common(1)[0][0]
            odd = next(path for path, scan in self.scans.items() if set(scan.shapes) - {usual})
            example = os.path.join(self.root, odd)
            self._note("image size", f"images have {len(self.shapes)} sizes", len(self.shapes), example)
        elif self.shapes and "224" in next(iter(self.scans)) and (224, 224) not in self.shapes:
            ((width, height),) = self.shapes
            self._note("image size", f"the folder is called 224, its images are {width} x {height}")

    def _frames_as_published(self) -> bool:
        """Whether the frames of every class are as many as published; a note where they are not."""
        agree, path = True, self.first.table["path"].iloc[0]
        if self.first.embedded or is_video(path) or "16f" in path:  # the interpolated copy has frames of its own
            return False
        for manifest, split, _, _ in self._parts():
            try:
                published = paper.frame_counts(manifest.name, split, manifest.fold)
            except InputError:
                return False
            found = Counter()
            for row in manifest.table[manifest.table["split"] == split].itertuples():
                found[EXPRESSIONS[row.expression]] += len(self.scans[row.path].numbers)
            if any(found[name] != count for name, count in published.items()):
                agree, total = False, sum(published.values())
                sentence = f"{found.total()} frames here, {total} in Former-DFER's extraction"
                self._note("frame count", f"fold {manifest.fold} {split}: {sentence}")
        return agree

    def _duplicates(self) -> None:
        for manifest in self.manifests:
            if repeated := manifest.repeated:
                clip, first, second = repeated[0]
                across = sum(one != other for _, one, other in repeated)
                sentence = f"{len(repeated)} clips listed twice, {across} of them in both splits"
                where = f"{clip} ({first}, {second})"
                self._deviation("duplicate", f"fold {manifest.fold}: {sentence}", len(repeated), where)
        # only clips with as many frames and bytes as another can have the same content: the rest need not be read
        splits = [dict(zip(m.table["path"], m.table["split"], strict=True)) for m in self.manifests]
        crossing = lambda paths: any(len({s.get(p) for p in paths} - {None}) > 1 for s in splits)  # noqa: E731
        alike, same = defaultdict(list), defaultdict(list)
        for scan in self.scans.values():
            if scan.size:
                alike[len(scan.numbers), scan.size].append(scan.path)
        tasks = [(str(self.root), path) for paths in alike.values() if crossing(paths) for path in paths]
        digests = each(_digest, tasks, self.look["workers"] if len(tasks) > 200 else 1)
        hidden = not (tasks and self.look["progress"])
        for path, digest in progress_bar(
            digests, total=len(tasks), desc="compare contents", unit="clip", disable=hidden
        ):
            same[digest].append(path)
        if groups := [sorted(paths) for paths in same.values() if crossing(paths)]:
            sentence = f"{len(groups)} groups of clips with identical files in training and test"
            self._deviation("duplicate", sentence, len(groups), " = ".join(min(groups)[:2]))

    def _published(self) -> None:
        if self.first.embedded:
            self._deviation("rendered", _RENDERED, 1, str(self.root))
        elif (self.counts["verdict"] == "nothing published").all():
            sentence = "no counts are published for these clips: nothing to compare with"
            self._deviation("unconfirmed", sentence, 1, str(self.root))
        else:
            for manifest, split, part, where in self._parts():
                off = part[part["verdict"] == "differs"]
                named = [
                    f"{row.expression} {row.usable} (published {int(row.published)}"
                    + (f", listed {row.listed})" if row.listed != row.usable else ")")
                    for row in off.itertuples()
                ]
                more = f" and {len(off) - 3} more classes" if len(off) > 3 else ""
                if named or part.empty:
                    sentence = f"fold {manifest.fold} {split}: {', '.join(named[:3]) or 'no clips'}{more}"
                    self._deviation("counts", sentence, len(off), where)

    def facts(self) -> dict:
        lengths = sorted(self.lengths.values())
        return {
            "clips": len(self.rows),
            "folders": len(self.scans),
            "frames": sum(len(scan.numbers) for scan in self.scans.values()),
            "frames_a_clip": [lengths[0], int(np.median(lengths)), lengths[-1]],
            "image_sizes": _image_sizes(self.shapes),
            "label_order": self.dataset.labels.order() if self.dataset.labels else "none",
            "classes": list(self.first.classes),
            "dropped": dict(self.first.dropped),
        }

    def text(self) -> list[str]:
        facts = self.facts()
        shortest, median, longest = facts["frames_a_clip"]
        return [
            *_count_table(self.counts),
            "",
            *_paragraph(
                f"clips: {facts['clips']} in {facts['folders']} folders or videos, {facts['frames']} frames "
                f"({shortest} to {longest} a clip, median {median})"
            ),
            *_paragraph("image sizes: " + _size_list(facts["image_sizes"])),
            *_paragraph(f"labels on disk: {facts['label_order']}"),
            *_paragraph(f"classes here: {', '.join(f'{i} {c}' for i, c in enumerate(facts['classes']))}"),
        ]


# --------------------------------------------------------------------------------------------------- annotated frames


def _check_annotated(name: str, root, folds, choices: dict, look: dict) -> DatasetCheck:
    shown = tuple(range(1, DATASETS[name].folds + 1)) if folds is None else tuple(folds)
    for fold in shown:
        check_fold(name, fold, DATASETS[name].folds)
    table, annotation = read_annotated(name, root, missing="drop", **choices), DATASETS[name].annotation
    base, rule, dropped = dataset_folder(root, name), table.attrs["folds"], table.attrs["dropped"]
    rendered = (base / RENDERED_STAMP).is_file()
    claims = paper.load("lac_text_claims").set_index("quantity")["printed"]
    rows = [
        ("frames", int(claims[f"{name} {annotation.frames}"]), len(table)),
        ("subjects", int(claims[f"{name} subjects"].split()[0]), table["subject"].nunique()),
    ]
    counts = pd.DataFrame(rows, columns=["quantity", "published", "found"])
    counts["verdict"] = np.where(counts["published"] == counts["found"], "as published", "differs")
    deviations, notes = [], [Finding("choice", table.attrs["clips"])]
    if rendered:
        deviations.append(Finding("rendered", _RENDERED, 1, str(base)))
    elif not rule.startswith("the subjects tested"):
        deviations.append(Finding("fold", f"the folds are not the field's: {rule}", 1, str(base)))
    else:
        sentence = "LAC's paper names three folds and not their subjects: these are the field's usual ones"
        notes.append(Finding("fold", sentence))
    for row in counts[(counts["verdict"] == "differs") & (not rendered)].itertuples():
        sentence = f"{row.found} {row.quantity}, published are {row.published}"
        deviations.append(Finding("counts", sentence, abs(row.found - row.published), str(base)))
    for reason, count in dropped.items():
        deviations.append(Finding("missing frame", f"{count} annotated {reason}", count, table.attrs["absent"][0][0]))
    annotated = table["path"].value_counts(sort=False)
    chunk = 1 if is_video(annotated.index[0]) else _CHUNK_OF_IMAGES
    scans = _scan_all(base, list(annotated.index), name, "file", chunk, **look)
    shapes = Counter()
    for path, scan in scans.items():
        shapes.update({shape: int(annotated[path]) for shape in scan.shapes})
    deviations += _unreadable(sorted(bad for scan in scans.values() for bad in scan.bad), base)
    sentence = "OpenFace's AU models were trained on DISFA and BP4D: do not judge it here as on unseen faces"
    notes.append(Finding("training set", sentence))
    same = table["sequence"].to_numpy()[1:] == table["sequence"].to_numpy()[:-1]
    gaps = np.flatnonzero(same & (np.diff(table["frame"]) != 1))
    if len(gaps):
        example = f"{table['sequence'][gaps[0]]} after frame {table['frame'][gaps[0]]}"
        sentence = f"{len(gaps)} gaps in the frame numbers: windows of frames end there"
        notes.append(Finding("missing frame", sentence, len(gaps), example))
    if len(shapes) > 1:
        notes.append(Finding("image size", f"images have {len(shapes)} sizes", len(shapes), str(base)))
    rates, judged = _rates(table, shown), list(annotation.evaluated)
    silent = rates[(rates["fold"] == 0) & (rates["present"] == 0) & rates["action_unit"].isin(judged)]
    if len(silent):
        names = ", ".join(silent["action_unit"])
        notes.append(Finding("labels", f"{len(silent)} AUs are never present", len(silent), names))
    lengths = table.groupby("sequence", sort=False).size()
    spread = [int(lengths.min()), int(lengths.median()), int(lengths.max())]
    facts = {
        "frames": len(table),
        "sequences": len(lengths),
        "folds": rule,
        "judged": judged,
        "frames_a_sequence": spread,
        "image_sizes": _image_sizes(shapes),
        "dropped": dict(dropped),
    }
    differs = bool((counts["verdict"] == "differs").any())
    text = [
        f"{'':<12}{'published':>10}{'here':>10}",
        *(
            f"{r.quantity:<12}{r.published:>10}{r.found:>10}{' *' * (r.verdict == 'differs')}"
            for r in counts.itertuples()
        ),
        *["* differs from the published count"] * differs,
        "",
        "per cent of the coded frames in which each AU is present",
        *_rate_table(rates, judged),
        "",
        *_paragraph(
            f"sequences: {len(lengths)} ({spread[0]} to {spread[2]} frames, median {spread[1]}); "
            f"image sizes: {_size_list(facts['image_sizes'])}"
        ),
        *_paragraph(f"folds: {rule}"),
    ]
    return DatasetCheck(name, base, counts, deviations, notes, facts, text, rates)


def _rates(table: pd.DataFrame, folds: tuple[int, ...]) -> pd.DataFrame:
    units = action_units_of(table)
    labels, rows = annotated_labels(table, units), []
    for fold in (0, *folds):
        here = (table["fold"] == fold).to_numpy() | (not fold)
        known, present = (~np.isnan(labels[here])).sum(0), np.nansum(labels[here], 0)
        size = table["subject"][here].nunique(), int(here.sum())
        rows += [
            (fold, unit, *size, int(k), int(p), p / k if k else np.nan)
            for unit, k, p in zip(units, known, present, strict=True)
        ]
    return pd.DataFrame(rows, columns=["fold", "action_unit", "subjects", "frames", "known", "present", "rate"])


# ----------------------------------------------------------------------------------------------------------- the text


def _count_table(counts: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(counts["expression"]))
    cell = lambda value: "-" if pd.isna(value) else f"{value:.0f}"  # noqa: E731
    kinds = ["published", "listed", "usable"]
    widest = counts.assign(width=counts[kinds].map(cell).map(len).max(axis=1)).groupby("expression")["width"].max()
    row = lambda cells: " ".join(f"{c:>{max(_ABBREVIATED, widest[n])}}" for n, c in zip(names, cells, strict=True))  # noqa: E731
    lines = [f"{'fold split':<22}{row(name[:_ABBREVIATED] for name in names)}  total"]
    for (fold, split), part in counts.groupby(["fold", "split"], sort=False):
        part = part.set_index("expression").loc[names]
        head, differs = f"{fold:<5}{split:<7}", bool((part["verdict"] == "differs").any())
        for kind in kinds:
            if kind == "listed" and (part["listed"] == part["usable"]).all():
                continue
            total = part[kind].sum() if part[kind].notna().all() else pd.NA
            star = " *" * (kind == "usable" and differs)
            lines.append(f"{head:<12}{kind:<10}{row(map(cell, part[kind]))} {cell(total):>6}{star}")
            head = ""
    if (counts["verdict"] == "differs").any():
        lines.append("* differs from the published counts")
    return lines


def _rate_table(rates: pd.DataFrame, judged: list[str]) -> list[str]:
    lines = [f"{'fold':<5}{'people':>6}{'frames':>8} " + " ".join(f"{unit:>4}" for unit in judged)]
    for fold, part in rates.groupby("fold", sort=False):
        part = part.set_index("action_unit")
        cells = (part["rate"].get(unit, np.nan) for unit in judged)
        shown = " ".join(f"{'-' if np.isnan(rate) else format(100 * rate, '.1f'):>4}" for rate in cells)
        lines.append(f"{fold or 'all':<5}{part['subjects'].iloc[0]:>6}{part['frames'].iloc[0]:>8} {shown}")
    return lines


def _size_list(sizes: dict[str, int]) -> str:
    text = ", ".join(f"{size} ({count} frames)" for size, count in list(sizes.items())[:6])
    return text + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or [""]
