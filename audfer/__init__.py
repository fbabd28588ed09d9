"""From face clips to every table and figure of "Action Unit Enhance Dynamic Facial Expression Recognition".

Importing the package is cheap: a part of it (``audfer.facs``, ``audfer.knowledge``, ...) is loaded when it is first
named, and so are ``audfer.open_study`` and ``audfer.predict``.
"""

from __future__ import annotations

import os
from importlib import import_module

__version__ = "0.1.0"


def data_folder() -> str:
    """Where ``AUDFER_DATA`` says that the real datasets are, "" if nowhere; absolute from the first time that anybody
    asks, because notebooks' kernels and other processes run in other folders.
    """
    if root := os.environ.get("AUDFER_DATA", ""):
        root = os.environ["AUDFER_DATA"] = os.path.abspath(os.path.expanduser(root))
    return root


def __dir__() -> list[str]:
    """What can be named: all parts, loaded or not."""
    from pkgutil import iter_modules

    return sorted({*globals(), "open_study", "predict", *(part.name for part in iter_modules(__path__))})


def __getattr__(name: str):
    """Load a part of the package on first use, so that ``import audfer`` does not import torch."""
    from importlib.util import find_spec

    if name == "predict":
        return import_module(f"{__name__}.companion.predict").predict
    if name == "open_study":
        return import_module(f"{__name__}.study.study").open_study
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
