"""A recogniser for other faces: Lock and Check trained on DISFA or BP4D as they lie on disk, from scratch or given
weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..datasets import DATASETS, annotated_datasets, read_annotated
from ..datasets.annotated_frames import is_rendered, pack_annotated
from ..datasets.common import known_name
from ..errors import AudferError, InputError
from ..files import atomic_folder, file_digest
from ..synth import drawn_landmarks
from ..training.records import run_cells
from .network import LAC_SIZES
from .training import (
    RECIPES,
    Recogniser,
    RecognitionCell,
    RecognitionInputs,
    RecognitionRecord,
    RecognitionStore,
)


def train_on(
    dataset: str,
    root: str | Path,
    out: str | Path,
    *,
    weights: str | Path = "",
    size: str = "",
    epochs: int = 0,
    fold: int = 1,
    seed: int = 0,
    align: bool = True,
    openface: str | Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> RecognitionRecord:
    """Train all of Lock and Check on an annotated set, with the paper's switches; a killed call goes on from its last
    epoch.

    Args:
        dataset: "DISFA" or "BP4D". root: its folder or the one above it.
        out: folder of the recogniser, for ``audfer au extract --weights``. Beside it ``<out>_training`` keeps the
            packed frames and the run record.
        weights: folder of a recogniser to start from; the network is its, for the AUs that this set has. "" = from
            scratch.
        size: of a network from scratch, one of ``RECIPES`` ("" = "paper").
        epochs: 0 = the size's recipe's.
        fold: whose subjects (a third) are not trained on, but judge the result.
        align: cut the faces out of the pictures with OpenFace's landmarks, which the regions of L_loc and L_act need
            anyway; ``False``: the pictures are faces. The embedded set's are, and its landmarks are known.
        openface: folder of OpenFace's CSVs (default: ``openface/<dataset>`` beside the dataset).

    Returns:
        The record: what the held-out subjects show, and what was said of them.

    Raises:
        InputError: no such dataset, weights of another kind, no landmarks. AudferError: the training failed.
    """
    out, name = Path(out), known_name(dataset, annotated_datasets(), "train-lac")
    if fold not in range(1, DATASETS[name].folds + 1):
        raise InputError("command line", "fold", fold, f"1 to {DATASETS[name].folds}")
    cell, start = _cell(weights, size)
    recipe = cell.training_recipe if not weights and not size else RECIPES[cell.size][0]
    cell = replace(cell, epochs=epochs or recipe.epochs, fold=fold, seed=seed, device=device, precision=precision)
    work = out.with_name(f"{out.name}_training")
    data = pack_annotated(
        read_annotated(name, root),
        root,
        work / "annotated",
        cell.image_size or LAC_SIZES[cell.size].get("image_size", 224),
        align=align and not is_rendered(root, name),
        openface=openface,
        drawn=drawn_landmarks,
    )
    fingerprint = data.meta["fingerprint"]
    inputs = RecognitionInputs(str(work / "annotated"), fingerprint)
    if start is not None:
        about, file = start.description, Path(weights, "recogniser.safetensors")
        # the same subjects: the same fold has to be held out
        seen = about["cell"]["fold"] if about["data"]["fingerprint"] == fingerprint else 0
        inputs = replace(inputs, initial_weights=str(file), initial_fingerprint=file_digest(file), initial_fold=seen)
    store = RecognitionStore(work / "recognition")
    table = run_cells([cell], {cell.source: inputs}, store, workers=1, desc=f"LAC {name}")
    if isinstance(error := table["error"].iloc[0], str):
        raise AudferError(f"{name}: training failed: {error}")
    record = RecognitionRecord.load(table["path"].iloc[0])
    with atomic_folder(out) as temporary:
        Recogniser.load(record.path).save(temporary)
    return record


def _cell(weights: str | Path, size: str) -> tuple[RecognitionCell, Recogniser | None]:
    """The cell with its network's sizes, and the recogniser to start from."""
    if not weights:
        chosen = size or "paper"
        if chosen not in RECIPES:
            raise InputError("command line", "size", repr(size), f"one of {', '.join(RECIPES)}")
        return RecognitionCell(size=chosen, batch=RECIPES[chosen][0].batch_size), None
    start = Recogniser.load(weights)
    if size and size != start.description.get("cell", {}).get("size"):
        raise InputError("command line", "size with weights", repr(size), "nothing: the network is that of the weights")
    try:
        before = RecognitionCell(**start.description["cell"])
        start.description["data"]["fingerprint"]
    except (KeyError, TypeError) as error:
        raise InputError(
            weights, "recogniser.json", f"no word of its training ({error})", "a recogniser that audfer trained"
        ) from None
    return replace(before, initialisation="recogniser"), start
