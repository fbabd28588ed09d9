"""Versions of the components that results depend on: what keys of records and stamps of cached steps hold.

A component's version is a whole number, raised by hand when its behaviour changes, so that formatting, moving and
documenting code never trains anything again. ``tests/test_versions.py`` keeps a digest of the syntax trees of all that
a component imports; when one changes it asks whether a number may depend on it: then the version is raised here,
otherwise the digest is renewed (``CONTRIBUTING.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

from .plugins import Registry


@dataclass(frozen=True)
class Component:
    """A part of the package with a version of its own.

    Attributes:
        version: raised when the same input gives other numbers.
        modules: of the package, relative to it, in which it begins; what they import belongs to it as well.
    """

    version: int
    modules: tuple[str, ...]


#: name -> component; networks have their own version (``models.registry.Network``), wings add theirs
COMPONENTS = Registry()
for _name, _version, *_modules in (
    ("rendering", 1, "synth.layouts"),
    ("reading", 1, "datasets"),
    ("packing", 1, "datasets.packing"),
    ("annotated frames", 1, "datasets.annotated"),
    ("landmarks", 1, "datasets.landmarks"),
    ("import", 1, "openface", "action_units.importing", "action_units.table"),
    ("estimator", 1, "action_units.estimator"),
    ("extraction", 1, "action_units.extraction", "action_units.table"),
    ("training", 1, "training.loop"),
    ("au loss", 1, "losses", "knowledge"),
    ("pretraining", 1, "training.pretraining", "models.mae_pretraining"),
    ("frame scores", 1, "study.frame_scores"),
):
    COMPONENTS.add(_name, Component(_version, tuple(_modules)))


def versions(*names: str) -> dict[str, int]:
    """Name -> version of some components, for a key or a stamp."""
    return {name: COMPONENTS[name].version for name in names}
