"""Action units: the table that everything downstream reads, and the estimators that can fill it.

``table`` holds the table, importing of OpenFace folders and the interpolation of section 3.1. ``estimator`` estimates
action units from images, ``extraction`` runs it over a manifest; both are imported only by who needs them.
"""

from __future__ import annotations

from .table import AUTable, clip_presence, interpolate_zeros, table_from_openface_folder

__all__ = ["AUTable", "clip_presence", "interpolate_zeros", "table_from_openface_folder"]
