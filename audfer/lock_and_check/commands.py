"""Lock and Check on the command line: ``au train-lac``, and the extractor ``au extract --backend lac``."""

from __future__ import annotations

from pathlib import Path

from .. import data_folder
from ..errors import InputError
from ..facs import ACTION_UNITS


def lac_extractor(options):
    """The back-end with the weights that the options name, or the profile's."""
    from ..study.study import open_study
    from ..training.loop import resolve_device, resolve_precision
    from .backend import LAC
    from .training import Recogniser

    folder = Path(options.weights) if options.weights else open_study(options.profile).work / "lac"
    if not (folder / "recogniser.json").is_file():
        raise InputError(
            folder,
            "weights of Lock and Check",
            "none there",
            "those that audfer reproduce -n A3_lock_and_check or audfer au train-lac leaves; another folder with "
            "--weights",
        )
    print(_trained_on(Recogniser.load(folder)), flush=True)
    device = resolve_device(options.device)
    batch = (32 if device == "cuda" else 8) if options.batch is None else options.batch
    return LAC(str(folder.absolute()), device, resolve_precision(options.precision, device), batch)


def _trained_on(recogniser) -> str:
    """One line about what faces weights are for, and another where they lack AUs."""
    trained_on = recogniser.description.get("trained_on", "rendered faces")
    real = " (not for real ones before au train-lac)" if trained_on == "rendered faces" else ""
    known = [name for name in ACTION_UNITS if name in recogniser.action_units]
    lacking = [name for name in ACTION_UNITS if name not in known]
    said, named = ("unknown to them", lacking) if len(lacking) <= len(known) else ("all that they know", known)
    return f"weights trained on {trained_on}{real}" + (f"\n{said}: {', '.join(named)}" if lacking else "")


def au_train_lac(options) -> None:
    """Train on annotated frames and judge on held-out subjects."""
    from ..evaluation import f1_intervals, presence_counts
    from ..training.loop import resolve_device, resolve_precision
    from .finetuning import train_on
    from .training import Recogniser

    device = resolve_device(options.device)
    root = options.root or data_folder()
    if not root:
        raise InputError("command line", "--root", "nothing", "the dataset's folder (or set AUDFER_DATA)")
    out = options.out or f"lac_{options.dataset}"
    record = train_on(
        options.dataset,
        root,
        out,
        **{name: getattr(options, name) for name in ("weights", "size", "epochs", "fold", "seed", "openface")},
        align=not options.no_align,
        device=device,
        precision=resolve_precision(options.precision, device),
    )
    counts = presence_counts(record.labels, record.presence(), record.subjects)
    print(_trained_on(Recogniser.load(out)))
    people = f"{len(record.rows)} frames of {len(counts)} held-out subjects"
    print(f"mean F1 {f1_intervals(counts)[-1].percent()} (95 %) on {people}")
    print(f"{out}: next, audfer au extract DATASET --backend lac --weights {out}")
