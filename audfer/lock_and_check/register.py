"""Lock and Check among the components, the sources of action units and the extractors of the command line."""

from __future__ import annotations

from ..companion.extractors import EXTRACTORS
from ..plugins import COMPONENTS, Component
from ..training.loop import AU_SOURCES
from .commands import lac_extractor


def _au_table(study, dataset: str):
    from .study import lac_table  # a study is there by now; importing this file must not ask for one

    return lac_table(study, dataset)


COMPONENTS.add("lock and check", Component(1, ("lock_and_check.training",)))
COMPONENTS.add("trunk maps", Component(1, ("lock_and_check.trunk_maps",)))
AU_SOURCES.add("lac", _au_table)
EXTRACTORS.add("lac", lac_extractor)
