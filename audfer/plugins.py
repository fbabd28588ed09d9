"""Things by name that may live in other files: networks, datasets, action unit back-ends, tables and figures, commands.

Whoever adds one calls ``add`` of its registry at import. Files of this package that add something are found without
being named by anybody: every sub-package with a module ``register`` (the wings ``keypoint_gcn`` and
``lock_and_check``; without them everything else still works), and every module that another installed package
announces under the entry point group ``audfer``.

Components have versions: whole numbers that keys of records and stamps of cached steps hold. A version is raised by
hand when behaviour changes, so that formatting, moving and documenting code never trains anything again.
``tests/test_versions.py`` keeps a digest of the syntax trees of all that a component imports; when one changes it asks
whether a number may depend on it (``CONTRIBUTING.md``).
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module, metadata
from importlib.machinery import PathFinder
from pathlib import Path


def _modules(pattern: str) -> Iterator[str]:
    """Full names of the modules that a pattern stands for: "a.b", "a.*" (all of a) or "*.b" (every sub-package's)."""
    first, _, last = pattern.rpartition(".")
    if "*" not in pattern:
        yield f"{__package__}.{pattern}"
    elif last == "*":
        package = import_module(f"{__package__}.{first}")
        yield from (found.name for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."))
    else:
        for folder in import_module(__package__).__path__:
            for found in pkgutil.iter_modules([folder]):  # looked for without importing the sub-packages
                if found.ispkg and PathFinder.find_spec(last, [str(Path(folder, found.name))]):
                    yield f"{__package__}.{found.name}.{last}"


@lru_cache(maxsize=1)
def load_plugins() -> None:
    """Import everything that adds to a registry; only the first call does anything."""
    for module in _modules("*.register"):
        import_module(module)
    for point in metadata.entry_points(group=__package__):
        point.load()


class Registry(Mapping):
    """A mapping from names to things, which looks for plug-ins the first time that it is read.

    Args:
        own: modules of this package, relative to it, that add to the registry themselves: ``("models.m3dfel",)``;
            ``"results.*"`` stands for all modules of a sub-package, ``"*.results"`` for that module of every one.
            Their things come first, in this order, whatever is imported first.
    """

    def __init__(self, *own: str):
        self._entries: dict = {}
        self._modules: dict[str, str] = {}
        self._own = own

    def add(self, name: str, thing, module: str = ""):
        """Enter a thing under a name, in the place of one that had it; returns the thing.

        Args:
            module: that it is from; "" = the one that calls this.
        """
        self._entries[name] = thing
        self._modules[name] = module or sys._getframe(1).f_globals["__name__"]
        return thing

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Own module, imported -> its place."""
        own = dict.fromkeys(module for pattern in self._own for module in _modules(pattern))
        for module in own:
            import_module(module)
        load_plugins()
        return {module: place for place, module in enumerate(own)}

    def _read(self) -> dict:
        ranks = self._ranks
        order = sorted(self._entries, key=lambda name: ranks.get(self._modules[name], len(ranks)))
        return {name: self._entries[name] for name in order}

    def __getitem__(self, name):
        return self._entries[name] if name in self._entries else self._read()[name]

    def __iter__(self) -> Iterator:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


# ------------------------------------------------------------------------------------------------------------ versions


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
for _name, _version, *_begins in (
    ("rendering", 1, "synth.layouts"),
    ("reading", 1, "datasets"),
    ("packing", 1, "datasets.packing"),
    ("annotated frames", 1, "datasets.annotated_frames"),
    ("landmarks", 1, "datasets.landmarks"),
    ("import", 1, "openface", "action_units.importing", "action_units.table"),
    ("estimator", 3, "action_units.estimator"),
    ("extraction", 1, "action_units.extraction", "action_units.table"),
    ("training", 3, "training.loop"),
    ("au loss", 1, "losses", "knowledge"),
    ("pretraining", 1, "training.pretraining", "models.mae_pretraining"),
    ("frame scores", 1, "study.scores"),
):
    COMPONENTS.add(_name, Component(_version, tuple(_begins)))


def versions(*names: str) -> dict[str, int]:
    """Name -> version of some components, for a key or a stamp."""
    return {name: COMPONENTS[name].version for name in names}
