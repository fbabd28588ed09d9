"""Things by name that may live in other files: networks, datasets, action unit back-ends, tables and figures, commands.

Whoever adds one calls ``add`` of its registry at import. Files of this package that add something are found without
being named by anybody: every sub-package with a module ``register`` (the wings ``keypoint_gcn`` and
``lock_and_check``; without them everything else still works), and every module that another installed package
announces under the entry point group ``audfer``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module, metadata
from importlib.util import find_spec


@lru_cache(maxsize=1)
def load_plugins() -> None:
    """Import everything that adds to a registry; only the first call does anything."""
    package = import_module(__package__)
    for found in pkgutil.iter_modules(package.__path__, f"{__package__}."):
        if found.ispkg and find_spec(f"{found.name}.register") is not None:
            import_module(f"{found.name}.register")
    for point in metadata.entry_points(group=__package__):
        point.load()


class Registry(Mapping):
    """A mapping from names to things, which looks for plug-ins the first time that it is read.

    Args:
        own: modules of this package, relative to it, that add to the registry themselves: ``("models.m3dfel",)``.
    """

    def __init__(self, *own: str):
        self._entries: dict = {}
        self._own = own

    def add(self, name: str, thing):
        """Enter a thing under a name, in the place of one that had it; returns the thing."""
        self._entries[name] = thing
        return thing

    def _read(self) -> dict:
        for module in self._own:
            import_module(f"{__package__}.{module}")
        load_plugins()
        return self._entries

    def __getitem__(self, name):
        return self._entries[name] if name in self._entries else self._read()[name]

    def __iter__(self) -> Iterator:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
