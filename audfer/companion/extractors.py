"""Which extractor of action units a command line names: ``--backend``, and what ``audfer predict --aus`` takes.

Modules are imported where they are used, so that a command loads only what it needs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import InputError
from ..plugins import Registry

#: --backend -> makes the extractor from the parsed options
EXTRACTORS = Registry()


def given(options, *names: str) -> dict[str, object]:
    """Those of the options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def reading(options, **more):
    """How OpenFace's files are read, and who wrote them."""
    from ..action_units.importing import ImportOptions

    chosen = given(options, "min_confidence", "mask_neighbours")
    if "mask_neighbours" in chosen:
        chosen["mask_neighbours"] = tuple(chosen["mask_neighbours"])
    return ImportOptions(version=options.openface_version, **chosen, **more)


def extractor(options):
    """The extractor that the options name, or the one that is here; says which, where nobody named it."""
    chosen = options.backend
    if not chosen:
        program = shutil.which(options.executable or "FeatureExtraction")
        where = (f"container {options.container}" if options.container else program) or options.executable
        chosen = "openface" if where else "lac" if "lac" in EXTRACTORS else "audfer"
        print(f"extractor: {chosen} ({where or 'no FeatureExtraction on PATH, no --container'})", flush=True)
    if chosen not in EXTRACTORS:
        raise InputError("command line", "--backend", repr(chosen), f"one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[chosen](options)


def _openface(options):
    from ..action_units.backends import OpenFace

    csvs = options.csvs and str(Path(options.csvs).absolute())
    how = reading(options, mode="static" if options.static else "calibrated")
    return OpenFace(options.executable, options.container, options.engine, csvs=csvs, reading=how)


def _estimator(options):
    from ..action_units.backends import Estimator
    from ..study.study import open_study

    study = open_study(options.profile)
    _ = study.estimator  # trained now if it is not there
    return Estimator(str(study.work / "estimator"), study.profile.data.render_size, study.device, study.precision)


def _pyfeat(options):
    from ..action_units.backends import PyFeat

    return PyFeat()


def _blendshapes(options):
    from ..action_units.blendshapes import Blendshapes

    file = getattr(options, "task_file", "") or options.weights
    return Blendshapes(str(file and Path(file).absolute()))


for _name, _make in (
    ("openface", _openface),
    ("audfer", _estimator),
    ("pyfeat", _pyfeat),
    ("blendshapes", _blendshapes),
):
    EXTRACTORS.add(_name, _make)
