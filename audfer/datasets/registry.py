"""What the rest of audfer knows of a dataset: its reader, folds, labels, folders, lists and published counts.

A dataset is one file that ends with ``DATASETS.add(name, Dataset(...))``; nothing else names it (``CONTRIBUTING.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..facs import LabelSpace
from ..plugins import Registry


@dataclass(frozen=True)
class Finding:
    """One thing that is not as expected: its kind, a sentence, how many, and a path that shows it."""

    kind: str
    sentence: str
    count: int = 1
    example: str = ""

    def __str__(self) -> str:
        return self.sentence + (f", for example {self.example}" if self.example else "")


@dataclass(frozen=True)
class Annotation:
    """Frames annotated with action units.

    Attributes:
        read: (folder of the dataset, missing, **choices) -> table, as ``annotated.read_annotated`` returns it.
        evaluated: the AUs that the papers judge.
        subjects: who is tested in each fold; source: who published that.
        present_from: the code from which an AU counts as present.
        frames: what LAC's paper calls a frame where it counts them.
        other_camera: word in the names of images that are not meant.
    """

    read: Callable
    evaluated: tuple[str, ...]
    subjects: tuple[tuple[str, ...], ...]
    source: str
    present_from: int = 1
    frames: str = "frames"
    other_camera: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset as it is chosen by name.

    Attributes:
        read: fills a ``common.Listing`` with the clips; its keyword-only arguments are the choices that users have.
            ``None``: it has no clips.
        labels: how it writes its expressions; ``None``: it has none.
        folds: how many; 1 where it has a single split.
        published_folds: whether they are the papers' rather than ours.
        folders: names of its own folder below the one that the user named; ``None``: the dataset's; (): it is always
            the one that the user named.
        clips: kind of clips ("frames", "video", ...) -> folders in which they may lie; the first kind found is taken.
        orders: project -> its classes in the order in which its split lists number them, from 0; "" is no class. The
            first is the usual one.
        order_by_columns: (project to assume for lists of "path label", for lists of "path frames label") where nothing
            else tells the order.
        published_test: the split of the published counts that is our test split.
        expected: (manifest, split) -> class -> clips that a whole copy has, or ``None`` where nothing is published;
            default: the counts in ``published``.
        skips_frames: whether its frames have gaps by design.
        look: (manifest) -> what ``check_dataset`` should know beyond counts and files, as ``Finding``.
        annotation: its frames annotated with action units.
    """

    read: Callable | None = None
    labels: LabelSpace | None = None
    folds: int = 1
    folders: tuple[str, ...] | None = None
    published_folds: bool = False
    clips: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    order_by_columns: tuple[str, str] | None = None
    published_test: str = "test"
    expected: Callable | None = None
    skips_frames: bool = False
    look: Callable | None = None
    annotation: Annotation | None = None


#: name -> dataset
DATASETS: Registry = Registry("datasets.readers.*")


def clip_datasets() -> tuple[str, ...]:
    """Names of the datasets of expression clips."""
    return tuple(name for name, dataset in DATASETS.items() if dataset.labels)


def annotated_datasets() -> tuple[str, ...]:
    """Names of the datasets with frames annotated with action units, those with intensities first."""
    named = {name: dataset.annotation for name, dataset in DATASETS.items() if dataset.annotation}
    return tuple(sorted(named, key=lambda name: -named[name].present_from))
