"""Which run records a table or figure is about, and the cells that it asks for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import EVALUATION_DATASETS
from ..models import NETWORKS

WITHOUT, WITH = "without AU", "with AU"
#: cell settings that tell cells of one model and dataset apart, in the order in which ``select`` settles them
_SETTINGS = ("weights", "au_ratio", "strategy", "knowledge")
#: what a record holds of each test clip
_ARRAYS = ("expressions", "scores", "best_scores", "validated_scores", "au_scores", "au_labels", "features", "groups")


def cells_of(study, wanted: Iterable[tuple], every_fold: bool = False, seeds: Sequence[int] = ()) -> list:
    """Cells with the profile's seeds, or other ones.

    Args:
        wanted: model, dataset, AU ratio and, where it is not the profile's, strategy of each.
        every_fold: every fold of the profile instead of its first.
    """
    return [
        study.cell(model, dataset, *settings, seed=seed, fold=fold)
        for model, dataset, *settings in wanted
        for fold in study.folds(dataset)[: None if every_fold else 1]
        for seed in seeds or study.profile.training.seeds
    ]


def select(records: Sequence, **settings) -> list:
    """The records of one cell (one per seed) that has these settings; an empty list if there is none.

    Args:
        records: run records.
        settings: required values of ``record.cell``, for example ``model="m3dfel", dataset="DFEW", au_ratio=0.25``; a
            function is called with the value. What is left open is settled by what is commonest among all the records
            that have an AU head, so that one odd cell of an ablation does not slip into a table.
    """

    def fits(record) -> bool:
        values = ((record.cell.get(key), wanted) for key, wanted in settings.items())
        return all(wanted(value) if callable(wanted) else value == wanted for value, wanted in values)

    chosen = [record for record in records if fits(record)]
    with_head = [record for record in records if record.cell.get("au_ratio", 0) > 0]
    others = sorted({key for record in chosen for key in record.cell} - {*_SETTINGS, "seed"})
    for key in (*_SETTINGS, *others):
        values = Counter(repr(record.cell.get(key)) for record in chosen)
        if len(values) > 1:
            overall = Counter(repr(record.cell.get(key)) for record in with_head)
            commonest = max(values, key=lambda value: (overall[value], values[value]))
            chosen = [record for record in chosen if repr(record.cell.get(key)) == commonest]
    unique = {record.cell.get("seed", 0): record for record in chosen}
    return [unique[seed] for seed in sorted(unique)]


def no_head(ratio) -> bool:
    """Whether an AU ratio means that there is no AU head."""
    return not ratio


def has_head(ratio) -> bool:
    """Whether an AU ratio means that there is an AU head."""
    return bool(ratio) and ratio > 0


def _default(choice) -> bool:
    return not choice


def baseline_records(records: Sequence, model: str, dataset: str) -> list:
    """The network alone (AU ratio 0), one record per seed."""
    return select(records, model=model, dataset=dataset, au_ratio=no_head, variant=_default)


def au_records(
    records: Sequence, model: str, dataset: str, strategy: str | None = None, au_ratio: float | None = None
) -> list:
    """The network with the AU head and knowledge weights, one record per seed; open settings as in ``select``."""
    return select(
        records,
        model=model,
        dataset=dataset,
        au_ratio=has_head if au_ratio is None else au_ratio,
        weights=lambda weights: weights in (None, "knowledge"),
        reading=lambda reading: reading in (None, "paper"),
        variant=_default,
        au_source=_default,
        **({} if strategy is None else {"strategy": strategy}),
    )


def without_and_with(
    records: Sequence, model: str, dataset: str, strategy: str | None = None, au_ratio: float | None = None
) -> dict[str, list]:
    """The network's cells ``WITHOUT`` and ``WITH`` the AU head, those alone that have records."""
    cells = {
        WITHOUT: baseline_records(records, model, dataset),
        WITH: au_records(records, model, dataset, strategy, au_ratio),
    }
    return {variant: cell for variant, cell in cells.items() if cell}


def ordered(values: Iterable[str], order: Iterable[str]) -> list[str]:
    """Distinct values: those of ``order`` first, in that order, then others by name."""
    seen, order = set(values), list(order)
    return [name for name in order if name in seen] + sorted(seen - set(order))


def models_of(records: Sequence) -> list[str]:
    """The networks of the records, in the order in which they are registered."""
    return ordered((record.cell["model"] for record in records), NETWORKS)


def datasets_of(records: Sequence) -> list[str]:
    """The datasets of the records, in the paper's order."""
    return ordered((record.cell["dataset"] for record in records), EVALUATION_DATASETS)


def model_name(model: str) -> str:
    """A network's name as the papers print it."""
    return NETWORKS[model].title if model in NETWORKS else model


# ------------------------------------------------------------------------------------------------------------ folds
def pooled(records: Sequence) -> list:
    """Records with the folds of each cell joined: every clip judged by the network that has not seen it.

    Args:
        records: run records; those of cells with one fold stay as they are.

    Returns:
        Record-like objects. A joined one has the clips of all its folds one after the other, ``cell["fold"]`` as text
        ("1, 2, 3"), the mean history, and its ``parts``.

    Raises:
        InputError: a clip is a test clip of two folds.
    """
    cells = defaultdict(dict)
    for record in records:
        key = repr(sorted((name, value) for name, value in record.cell.items() if name != "fold"))
        cells[key][record.cell.get("fold", 1)] = record
    return [
        _joined([folds[k] for k in sorted(folds)]) if len(folds) > 1 else next(iter(folds.values()))
        for folds in cells.values()
    ]


def _joined(parts: list):
    clips = Counter(clip for part in parts for clip in part.clip_ids)
    twice = next((clip for clip, times in clips.items() if times > 1), None)
    if twice:
        raise InputError(
            parts[0].path,
            "test clips of the folds",
            f"{twice} in several of them",
            "every clip in one fold's test split",
        )
    whole = copy(parts[0])
    whole.parts, whole.clip_ids = tuple(parts), list(clips)
    whole.cell = {**parts[0].cell, "fold": ", ".join(str(part.cell.get("fold", 1)) for part in parts)}
    for name in _ARRAYS:
        arrays = [getattr(part, name, None) for part in parts]
        setattr(whole, name, None if any(array is None for array in arrays) else np.concatenate(arrays))
    whole.history = pd.concat([part.history for part in parts]).groupby("epoch", as_index=False).mean()
    whole.best_epoch = int(np.median([part.best_epoch for part in parts]))
    whole.seconds = sum(part.seconds for part in parts)
    return whole


def parts_of(record) -> tuple:
    """The folds that a record was joined from; itself if it was not."""
    return getattr(record, "parts", (record,))


def of_fold(records: Sequence, fold: int | None) -> list:
    """The records of one fold (of all datasets that have it), or for ``None`` all folds ``pooled``."""
    if fold is None:
        return pooled(records)
    several = {r.cell["dataset"] for r in records if r.cell.get("fold", 1) != 1}
    return [r for r in records if r.cell["dataset"] not in several or r.cell.get("fold", 1) == fold]


def joined(cells: Sequence[list]) -> list:
    """One cell's records on several datasets, or of several networks, as if their clips were of one, a record per seed
    that all have. What several networks say of a clip is one group, unless its subject or video is one already.

    Args:
        cells: for each dataset and network, one record per seed.
    """
    by_seed = [{record.cell["seed"]: record for record in cell} for cell in cells]
    common = sorted(set.intersection(*map(set, by_seed)))
    several = len({record.cell["model"] for cell in cells for record in cell}) > 1
    return [_joined([_named(records[seed], several) for records in by_seed]) for seed in common]


def _named(record, several: bool):
    """A record whose clips and groups bear their dataset's name; of ``several`` networks, its own as well."""
    named, dataset = copy(record), record.cell["dataset"]
    groups = getattr(record, "groups", None)
    named.clip_ids = [f"{dataset}/{clip}" for clip in record.clip_ids]
    if several:
        groups = record.clip_ids if groups is None else groups
        named.clip_ids = [f"{record.cell['model']}/{clip}" for clip in named.clip_ids]
        named.features = None  # each network has its own number of them
    named.groups = None if groups is None else np.array([f"{dataset}/{group}" for group in groups])
    return named
