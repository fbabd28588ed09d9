"""Lock and Check among the components; its back-end, AU source and command are added here as well."""

from __future__ import annotations

from ..versions import COMPONENTS, Component

COMPONENTS.add("lock and check", Component(1, ("lock_and_check.training",)))
COMPONENTS.add("trunk maps", Component(1, ("lock_and_check.trunk_maps",)))
