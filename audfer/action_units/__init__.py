"""Action units: the table that everything downstream reads, and the estimators that can fill it.

``table`` holds the table and the interpolation of section 3.1, ``importing`` makes one of a folder of OpenFace files.
``backends`` are the extractors (OpenFace, py-feat, audfer's own) and ``running`` runs one over a manifest, in processes
or on a Dask cluster. ``estimator`` is audfer's own, ``extraction`` runs it in this process. What brings torch is
imported only by who needs it.
"""

from __future__ import annotations

from .table import AUTable, clip_presence, table_from_openface_folder

__all__ = ["AUTable", "clip_presence", "table_from_openface_folder"]
