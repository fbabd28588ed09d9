"""Split lists as other projects keep them: MAE-DFER's ``path label`` and Former-DFER's ``path frames label``.

Their paths are those of somebody else's machine, so a reader finds each clip again by the end of its path. Their labels
are numbers whose order is told from what is known about the same clips: the folder names in the path, the dataset's own
lists, the published counts.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import published as paper
from ..errors import InputError
from ..facs import LABEL_SPACES, LIST_ORDERS
from .common import read_lines, safe_name

_SUFFIXES = (".txt", ".csv")
_DATASETS = ("afew", "dfew", "ferv39k", "mafw", "ravdess", "affwild2", "crema", "enterface")
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
    if os.path.isfile(where):
        split = _split_of(where)
        if split is None:
            raise InputError(where, "name of a split list", where.name, "a name with train, test or val in it")
        others = _TEST if split == "train" else ("train",)
        own = "train" if split == "train" else next(w for w in _words(where.stem) if w in _TEST)
        found = {split: where}
        for word in others:
            sibling = where.with_name(re.sub(own, word, where.name, flags=re.IGNORECASE))
            if os.path.isfile(sibling):
                found["test" if split == "train" else "train"] = sibling
                break
        return {s: found[s] for s in ("train", "test") if s in found}
    if not os.path.isdir(where):
        raise InputError(where, "split lists", "no such file or folder", "a list, or a folder of lists")
    candidates = defaultdict(list)
    for folder, below, names in os.walk(where):
        below.sort()
        for path in (Path(folder, name) for name in sorted(names) if Path(name).suffix.lower() in _SUFFIXES):
            relative = str(path.relative_to(where)).lower()
            named = [name for name in _DATASETS if name in re.sub(r"[^a-z0-9]", "", relative)]
            folds = _FOLD.findall(relative)
            if (named and dataset.lower() not in named) or (folds and int(folds[-1]) != fold):
                continue
            if (split := _split_of(path)) is not None:
                candidates[split].append(path)
    if not candidates:
        raise InputError(where, f"split lists of {dataset}, fold {fold}", "none", "train and test lists (.txt or .csv)")
    exact = [path for path in candidates["test"] if "test" in _words(path.stem)]
    candidates["test"] = exact or candidates["test"]
    for split, paths in candidates.items():
        if len(paths) > 1:
            raise InputError(
                where,
                f"{split} list of {dataset}, fold {fold}",
                f"{len(paths)} ({', '.join(str(p.relative_to(where)) for p in paths[:3])})",
                "one: name its folder",
            )
    return {split: candidates[split][0] for split in ("train", "test") if candidates[split]}


def read_list(path: Path, split: str) -> list[Entry]:
    """The entries of one list; a first line that names the columns is passed over.

    Raises:
        InputError: unreadable, or a line that is neither "path label" nor "path frames label".
    """
    out, parsed = [], []
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
    # a path may end in a number of its own: the middle column counts frames only if every line has one
    counted = bool(parsed) and all(frames is not None for *_, frames in parsed)
    for number, label, whole, shorter, frames in parsed:
        clip = safe_name(shorter if counted else whole, path, number)
        out.append(Entry(split, clip, label, frames if counted else None, path, number))
    if not out:
        raise InputError(path, "split list", "no clips", "at least one line")
    return out


def read_lists(where: str | os.PathLike, dataset: str, fold: int) -> list[Entry]:
    """All entries of a dataset's lists, training first; see ``find_lists`` and ``read_list``."""
    return [entry for split, path in find_lists(where, dataset, fold).items() for entry in read_list(path, split)]


def expressions(
    dataset: str, entries: list[Entry], known: Callable[[Entry], int | None], fold: int
) -> tuple[list[int], str]:
    """The class of every entry, and a sentence about how its label was understood.

    Args:
        known: the class (7 and up beyond the seven) that the entry's path or the dataset's own list tells, or ``None``.

    Raises:
        InputError: a label that is no class, or labels that contradict what is known under every known order.
    """
    space = LABEL_SPACES[dataset]
    if not any(re.fullmatch(r"-?\d+", entry.label) for entry in entries):
        return [space.parse(e.label, e.file, f"line {e.line}, label", every=True) for e in entries], "classes by name"
    if not all(re.fullmatch(r"\d{1,4}", entry.label) for entry in entries):
        odd = next(e for e in entries if not re.fullmatch(r"\d{1,4}", e.label))
        raise InputError(odd.file, f"line {odd.line}, label", repr(odd.label), "a class number, as in the other lines")
    numbers = [int(entry.label) for entry in entries]
    orders = {
        project: [space.classes.index(name) for name in names]
        for project, names in LIST_ORDERS.get(dataset, {}).items()
    }
    if dataset == "DFEW":  # its own annotation counts from 1
        orders["DFEW's own, from 1"] = [-1, *range(7)]
    told = [
        (entry, number, label)
        for entry, number in zip(entries, numbers, strict=True)
        if (label := known(entry)) is not None
    ]
    fitting = [
        project
        for project, order in orders.items()
        if all(number < len(order) and order[number] >= 0 for number in numbers)
    ]
    if not orders:  # the classes are known from the names alone: any consistent numbering will do
        return _by_names(entries, told)
    if not fitting:
        longest = max(orders.values(), key=len)
        odd = max(range(len(numbers)), key=numbers.__getitem__)
        raise InputError(
            entries[odd].file, f"line {entries[odd].line}, label", numbers[odd], f"0 to {len(longest) - 1}"
        )
    if told:
        wrong = {p: [t for t in told if orders[p][t[1]] != t[2]] for p in fitting}
        best = min(fitting, key=lambda p: len(wrong[p]))
        if len(wrong[best]) > 0.5 * len(told):
            entry, number, label = wrong[best][0]
            raise InputError(
                entry.file,
                f"line {entry.line}, label",
                f"{number}, which is {space.classes[orders[best][number]]} in {best}'s order",
                f"{space.classes[label]}, as the clip's folder or the dataset's own list says "
                f"({len(wrong[best])} of {len(told)} lines disagree: another label order?)",
            )
        how = f"{len(told) - len(wrong[best])} of {len(told)} agree with folder names or own lists"
    else:
        best, how = _by_counts(dataset, entries, numbers, orders, fitting, fold)
    order = ", ".join(f"{n} {space.classes[c]}" for n, c in enumerate(orders[best]) if c >= 0)
    return [orders[best][number] for number in numbers], f"classes numbered as in {best} ({how}): {order}"


def _by_names(entries: list[Entry], told) -> tuple[list[int], str]:
    meaning: dict[int, int] = {}
    for entry, number, label in told:
        if meaning.setdefault(number, label) != label:
            raise InputError(entry.file, f"line {entry.line}, label", number, "the same class as in the lines before")
    if len(told) != len(entries):
        silent = next(e for e in entries if not any(e is t[0] for t in told))
        raise InputError(silent.file, f"line {silent.line}", repr(silent.clip), "a name that tells the class")
    return [label for _, _, label in told], "classes told from the clips' names, the list's numbers agree"


def _by_counts(dataset, entries, numbers, orders, fitting, fold) -> tuple[str, str]:
    """The order under which the list's class counts are the published ones; else by the number of columns."""
    classes = LABEL_SPACES[dataset].classes
    for project in fitting:
        found: dict[str, Counter] = defaultdict(Counter)
        for entry, number in zip(entries, numbers, strict=True):
            found[entry.split][classes[orders[project][number]]] += 1
        for split, counts in found.items():
            try:
                wanted = paper.class_counts(dataset, split, fold)
            except InputError:
                break
            if any(counts[name] != count for name, count in wanted.items()):
                break
        else:
            return project, "the class counts are the published ones"
    if dataset == "MAFW":
        guess = "DFER-CLIP" if entries[0].frames is not None else "MAE-DFER"
        if guess in fitting:
            return guess, "assumed from the number of columns: nothing here confirms it"
    return fitting[0], "assumed: nothing here confirms it"
