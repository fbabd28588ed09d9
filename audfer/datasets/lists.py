"""Split lists as other projects keep them: MAE-DFER's ``path label`` and Former-DFER's ``path frames label``.

Their paths are those of somebody else's machine, so a reader finds each clip again by the end of its path. Their labels
are numbers whose order is told from what is known about the same clips: the folder names in the path, the dataset's own
lists, the published counts.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .common import Listing, OwnLists, read_lines, safe_name
from .manifest import published_counts
from .registry import DATASETS

_SUFFIXES = (".txt", ".csv")
#: datasets of which we have no reader and others keep lists
_STRANGERS = ("crema", "enterface")
_TEST = ("test", "val", "valid", "validation", "eval")
_FOLD = re.compile(r"(?:split|set|fold)[_-]?0*(\d{1,3})")


@dataclass(frozen=True)
class Entry:
    """One line of a split list: ``clip`` is its path as written, ``frames`` their number where the list has it."""

    split: str
    clip: str
    label: str
    frames: int | None
    file: Path
    line: int

    @property
    def parts(self) -> list[str]:
        """The path's parts, whichever way its slashes lean."""
        return re.split(r"[/\\]", self.clip)

    @property
    def name(self) -> str:
        """The path's last part."""
        return self.parts[-1]

    def wrong(self, expected: str, field: str = "", found=None) -> InputError:
        """The error about this line."""
        return InputError(self.file, f"line {self.line}{field}", repr(self.clip) if found is None else found, expected)


def _words(path: Path | str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", str(path).lower())


def _split_of(path: Path) -> str | None:
    words = _words(path.stem)
    return "train" if "train" in words else "test" if set(words) & set(_TEST) else None


def find_lists(where: str | os.PathLike, dataset: str, fold: int) -> dict[str, Path]:
    """Split -> its list, from a folder of lists or from one list (the other split's is looked for beside it).

    A folder may hold several folds and datasets (``dfew/org/split01/train.csv``, ``DFEW_set_1_train.txt``): those of
    this dataset and fold are taken. ``val`` stands for test where there is no test list.

    Raises:
        InputError: nothing there, a name that does not say which split it is, or several lists for one split.
    """
    where = Path(where)
    if (told := _FOLD.findall(where.name.lower())) and int(told[-1]) != fold:
        raise InputError(where, "fold of the split lists", int(told[-1]), f"{fold}, the fold asked for")
    if where.is_file():
        return _with_sibling(where)
    if not where.is_dir():
        raise InputError(where, "split lists", "no such file or folder", "a list, or a folder of lists")
    candidates, what = defaultdict(list), f"{dataset}, fold {fold}"
    for path in sorted(path for path in where.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()):
        relative = str(path.relative_to(where)).lower()
        plain = re.sub(r"[^a-z0-9]", "", relative)
        named = {name for name in (*map(str.lower, DATASETS), *_STRANGERS) if name in plain} - {"folder"}
        folds = _FOLD.findall(relative)
        if (named and dataset.lower() not in named) or (folds and int(folds[-1]) != fold):
            continue
        if (split := _split_of(path)) is not None:
            candidates[split].append(path)
    if not candidates:
        raise InputError(where, f"split lists of {what}", "none", "train and test lists (.txt or .csv)")
    if exact := [path for path in candidates["test"] if "test" in _words(path.stem)]:
        candidates["test"] = exact
    for split, paths in candidates.items():
        if len(paths) > 1:
            first = ", ".join(str(path.relative_to(where)) for path in paths[:3])
            raise InputError(where, f"{split} list of {what}", f"{len(paths)} ({first})", "one: name its folder")
    return {split: candidates[split][0] for split in ("train", "test") if candidates[split]}


def _with_sibling(path: Path) -> dict[str, Path]:
    """A list and the other split's, whose name differs in the word for the split."""
    split = _split_of(path)
    if split is None:
        raise InputError(path, "name of a split list", path.name, "a name with train, test or val in it")
    plain = lambda other: re.sub("train|validation|valid|val|test|eval", "*", other.name.lower())  # noqa: E731
    alike = sorted((other for other in path.parent.iterdir() if plain(other) == plain(path)), reverse=True)
    # "test" comes last in this order and takes the place of "val"
    both = {_split_of(other): other for other in alike if other.is_file()} | {split: path}
    return {name: both[name] for name in ("train", "test") if name in both}


def read_list(path: Path, split: str) -> list[Entry]:
    """The entries of one list; a first line that names the columns is passed over.

    Raises:
        InputError: unreadable, or a line that is neither "path label" nor "path frames label".
    """
    parsed = []
    for position, (number, line) in enumerate(read_lines(path, "split list")):
        plain = re.sub(r"[,;\s]", " ", line)  # as long as the line: what is left of a cut can be taken from it
        rest, _, label = plain.rpartition(" ")
        rest = rest.rstrip()
        before, _, middle = rest.rpartition(" ")
        before = before.rstrip()
        good = bool(rest) and re.fullmatch(r"-?[0-9]+|[A-Za-z]+", label)
        if position == 0 and (not good or label.lower() in ("label", "labels", "emotion", "class")):
            continue
        if not good:
            raise InputError(path, f"line {number}", repr(line[:80]), '"path label" or "path frames label"')
        counts = bool(before) and re.fullmatch(r"[0-9]{1,9}", middle) is not None
        parsed.append((number, label, line[: len(rest)], line[: len(before)], int(middle) if counts else None))
    if not parsed:
        raise InputError(path, "split list", "no clips", "at least one line")
    # a path may end in a number of its own: the middle column counts frames only if every line has one
    counted = all(frames is not None for *_, frames in parsed)
    return [
        Entry(
            split,
            safe_name(shorter if counted else whole, path, number),
            label,
            frames if counted else None,
            path,
            number,
        )
        for number, label, whole, shorter, frames in parsed
    ]


def read_lists(where: str | os.PathLike, dataset: str, fold: int) -> list[Entry]:
    """All entries of a dataset's lists, training first; see ``find_lists`` and ``read_list``."""
    return [entry for split, path in find_lists(where, dataset, fold).items() for entry in read_list(path, split)]


# ---------------------------------------------------------------------------------------------------- clips from lists


def add_clips(
    listing: Listing,
    own: OwnLists,
    splits: str | os.PathLike | None,
    place: Callable[[str], Path],
    known: Callable[[str], int | None] | None = None,
) -> None:
    """The clips that the dataset's own lists name, or those of another project's lists.

    Args:
        place: clip_id -> where the clip lies.
        known: clip_id -> the class that its name tells; default: the class in the dataset's own lists, if they are
            there.
    """
    if splits is None:
        for split, path, clip, label in own.entries(listing):
            listing.lists[split] = path
            listing.add(clip, place(clip), split, label)
        return
    if known is None:
        told: dict[str, int | None] = {}
        try:
            told.update((clip, label) for _, _, clip, label in own.entries(listing))
        except InputError:
            pass  # only to tell the label order; the lists given are enough
        known = told.get
    clip_of = lambda entry: own.clip(entry.clip, entry.file, entry.line)  # noqa: E731
    add_from_lists(listing, splits, clip_of, known, lambda clip, entry: {"path": place(clip)})


def add_from_lists(
    listing: Listing,
    splits: str | os.PathLike,
    clip_of: Callable[[Entry], str],
    known: Callable[[str], int | None],
    place: Callable[[str, Entry], dict],
    on_disk: Collection[str] = (),
) -> None:
    """The clips that another project's lists name.

    Args:
        clip_of: entry -> clip_id; raises ``InputError`` for a path that no clip can have.
        known: clip_id -> class that is known without the list, or ``None``.
        place: (clip_id, entry) -> ``path`` and perhaps ``subject``.
        on_disk: clips of which those in no list are counted in ``dropped``.
    """
    entries = read_lists(splits, listing.name, listing.fold)
    clips = [clip_of(entry) for entry in entries]
    labels, how = expressions(listing, entries, [known(clip) for clip in clips])
    listing.notes.append(how)
    for entry, clip, label in zip(entries, clips, labels, strict=True):
        listing.lists[entry.split] = entry.file
        listing.add(clip, split=entry.split, label=label, frames=entry.frames, **place(clip, entry))
    if on_disk:
        listing.dropped["on disk, in no list"] += len(set(on_disk) - set(clips))


def expressions(listing: Listing, entries: list[Entry], known: list[int | None]) -> tuple[list[int], str]:
    """The class of every entry, and a sentence about how its label was understood.

    Args:
        known: of each entry the class (7 and up beyond the seven) that its path or the dataset's own list tells.

    Raises:
        InputError: a label that is no class, or labels that contradict what is known under every known order.
    """
    dataset, classes = listing.dataset, listing.every_class
    if not dataset.orders:  # the classes are known from the names alone: any consistent numbering will do
        return _by_names(entries, known)
    if not any(re.fullmatch(r"-?\d+", entry.label) for entry in entries):
        parse = listing.labels.parse
        return [parse(e.label, e.file, f"line {e.line}, label", every=True) for e in entries], "classes by name"
    for entry in entries:
        if not re.fullmatch(r"\d{1,4}", entry.label):
            raise entry.wrong("a class number, as in the other lines", ", label", repr(entry.label))
    numbers = [int(entry.label) for entry in entries]
    orders = {
        project: [classes.index(name) if name else -1 for name in names] for project, names in dataset.orders.items()
    }
    fitting = [p for p, order in orders.items() if all(n < len(order) and order[n] >= 0 for n in numbers)]
    if not fitting:
        highest = max(len(order) for order in orders.values()) - 1
        entry = entries[max(range(len(numbers)), key=numbers.__getitem__)]
        raise entry.wrong(f"0 to {highest}", ", label", int(entry.label))
    told = [(e, n, label) for e, n, label in zip(entries, numbers, known, strict=True) if label is not None]
    if told:
        wrong = {p: [t for t in told if orders[p][t[1]] != t[2]] for p in fitting}
        best = min(fitting, key=lambda p: len(wrong[p]))
        if len(wrong[best]) > 0.5 * len(told):
            entry, number, label = wrong[best][0]
            raise entry.wrong(
                f"{classes[label]}, as the clip's folder or the dataset's own list says "
                f"({len(wrong[best])} of {len(told)} lines disagree: another label order?)",
                ", label",
                f"{number}, which is {classes[orders[best][number]]} in {best}'s order",
            )
        how = f"{len(told) - len(wrong[best])} of {len(told)} agree with folder names or own lists"
    else:
        best, how = _by_counts(listing, entries, {p: [orders[p][n] for n in numbers] for p in fitting})
    order = ", ".join(f"{n} {classes[c]}" for n, c in enumerate(orders[best]) if c >= 0)
    return [orders[best][number] for number in numbers], f"classes numbered as in {best} ({how}): {order}"


def _by_names(entries: list[Entry], known: list[int | None]) -> tuple[list[int], str]:
    meaning: dict[str, int] = {}
    for entry, label in zip(entries, known, strict=True):
        if label is None:
            raise entry.wrong("a name that tells the class")
        if meaning.setdefault(entry.label.lower(), label) != label:
            raise entry.wrong("the same class as in the lines before", ", label", repr(entry.label))
    return known, "classes told from the clips' names, the list's labels agree"


def _by_counts(listing: Listing, entries: list[Entry], labels: dict[str, list[int]]) -> tuple[str, str]:
    """The order under which the lists' class counts are the published ones; else the usual one."""
    for project, found in labels.items():
        counts = Counter((e.split, listing.every_class[label]) for e, label in zip(entries, found, strict=True))
        wanted = {split: published_counts(listing.name, split, listing.fold) for split in {e.split for e in entries}}
        if all(w and all(counts[split, name] == count for name, count in w.items()) for split, w in wanted.items()):
            return project, "the class counts are the published ones"
    if columns := listing.dataset.order_by_columns:
        project = columns[entries[0].frames is not None]
        if project in labels:
            return project, "assumed from the number of columns: nothing here confirms it"
    return next(iter(labels)), "assumed: nothing here confirms it"
