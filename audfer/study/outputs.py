"""Tables and figures by name: the notebook that shows each, the cells that it needs and the function that makes it.

Those of the paper are in ``results``, one file each; a plug-in adds its own. Nothing else lists them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path

from ..errors import InputError
from ..files import digest
from ..plugins import Registry
from ..training.loop import Cell
from ..training.records import RunRecord
from .profiles import Profile


@dataclass(frozen=True)
class Output:
    """One table or figure, or several of a kind.

    Attributes:
        name: what ``study.results`` calls it. notebook: that shows it.
        make: ``make(study, records, **options)`` -> one ``results.builder.Result`` or a tuple of them; without cells
            ``make(study, **options)``. The option ``protocol`` is "last" unless said otherwise.
        cells: ``cells(study)`` -> those that it is made from.
        needs: other outputs whose cells it takes, where it has none of its own.
        elsewhere: whether its notebook alone makes it: it needs clips, AU tables or networks, or has nothing to do with
            run records.
    """

    name: str
    notebook: str
    make: Callable
    cells: Callable[..., list[Cell]] | None = None
    needs: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The outputs whose cells it takes: its own name, or ``needs``."""
        return (self.name,) if self.cells else self.needs

    @property
    def has_protocol(self) -> bool:
        """Whether it depends on which epoch is judged."""
        return "protocol" in signature(self.make).parameters


class NotShown:
    """What ``Study.results`` gives where there is nothing to show, with the reason; false."""

    def __init__(self, said: str):
        self.said = said

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return self.said

    @property
    def picture(self) -> NotShown:
        return self

    def placed(self, *_) -> NotShown:
        """Nothing has a place."""
        return self

    def save(self) -> NotShown:
        """Nothing is written."""
        return self


#: "saved" -> ``read(folder, name, settings)``: an output as its files have it
SAVED: Registry = Registry("results.builder")
#: name -> output, in the order in which their files are found: those of ``results`` and of every wing's ``results``
OUTPUTS: Registry = Registry("results.*", "*.results")


def output_named(name: str) -> Output:
    """An output by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in OUTPUTS:
        raise InputError("study", "output", repr(name), f"one of {', '.join(OUTPUTS)}")
    return OUTPUTS[name]


def with_cells() -> tuple[str, ...]:
    """The outputs that have cells of their own, in the order of the notebooks that show them."""
    return tuple(name for name, output in sorted(OUTPUTS.items(), key=lambda item: item[1].notebook) if output.cells)


def cells_of(study, name: str) -> list[Cell]:
    """The cells that an output needs, without repetition.

    Raises:
        InputError: unknown name.
    """
    if not (name in OUTPUTS and OUTPUTS[name].sources):
        raise InputError("cells", "output", repr(name), f"one of {', '.join(with_cells())}")
    cells = (cell for source in OUTPUTS[name].sources for cell in OUTPUTS[source].cells(study))
    return list(dict.fromkeys(cells))


class RecordSource:
    """What tables and figures are made from: a ``Study``, or the records alone that one has left (``StoredStudy``).

    Attributes:
        profile: the study's numbers. figures: folder of its tables and figures.
    """

    profile: Profile
    figures: Path

    def records(self, *outputs: str) -> list[RunRecord]:
        """Records of the cells that the named outputs need, without repetition."""
        raise NotImplementedError

    @property
    def caption(self) -> str:
        """What every table and figure must say about its input."""
        if self.profile.embedded:
            return (
                f"Embedded benchmark (rendered faces, profile {self.profile.name}); "
                "not comparable with numbers on the real datasets."
            )
        return f"Real datasets, profile {self.profile.name}."

    def results(self, name: str, **options):
        """A table or figure by its name in ``OUTPUTS``, trained for if need be.

        In a study that has not been worked on yet (no work folder) it is read from ``figures``, if that holds it as
        made with this profile's numbers; so the published results can be looked at right after installing.

        Args:
            options: of the function that makes it, as ``protocol="best-on-test"``.

        Returns:
            ``results.builder.Result``: ``.frame``, ``.caption``, ``.plot()``, ``.save()``; a tuple of them where the
            output is made for several datasets.
        """
        if not options and self.untouched and (kept := SAVED["saved"](self.figures, name, self.settings)):
            return kept
        output = output_named(name)
        if not output.sources:
            return self._placed(output, options, lambda: output.make(self, **options))
        records = self.records(*output.sources)
        # several results may be about one table, and its intervals take time
        key = name, repr(options), tuple(str(record.path) for record in records)
        if key not in self._made:
            self._made[key] = self._placed(output, options, lambda: output.make(self, records, **options))
        return self._made[key]

    @property
    def untouched(self) -> bool:
        """Whether nothing has been worked on here yet: results are then those that are kept in ``figures``."""
        return False

    @property
    def settings(self) -> str:
        """Digest of the profile's numbers."""
        return digest(self.profile.to_dict())

    @cached_property
    def _made(self) -> dict:
        return {}

    def _placed(self, output: Output, options: dict, make: Callable):
        """What an output's maker gives, each part with its place and what its sidecar is to say."""
        start = time.monotonic()
        made = make()
        store = getattr(self, "store", None)
        about = {
            "seconds": time.monotonic() - start,
            "below": store and store.folder.parent,
            "made": {
                "output": output.name,
                "notebook": output.notebook,
                "command": f"audfer reproduce --profile {self.profile.name} -n {output.notebook}",
                "profile": self.profile.name,
                "settings": self.settings,
                "embedded": self.profile.embedded,
                **({"protocol": options.get("protocol", "last")} if output.has_protocol else {}),
            },
        }

        def placed(part, place: int):
            return part.placed(self.figures, {**about, "made": {**about["made"], "place": place}})

        return tuple(map(placed, made, range(len(made)))) if isinstance(made, tuple | list) else placed(made, 0)
