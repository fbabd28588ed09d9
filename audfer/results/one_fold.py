"""Tables 1 to 3 from the profile's first fold alone: the paper's own rows mix folds."""

from __future__ import annotations

from dataclasses import replace

from .builder import Result, output

TABLES = ("table1", "table2", "table3")


@output("one_fold", "03_training", needs=TABLES)
def one_fold(study, records, protocol: str = "last") -> tuple[Result, ...]:
    """The three tables; nothing where the profile has only one fold."""
    folds = study.profile.grid.folds
    if len(folds) < 2:
        return ()
    return tuple(
        replace(study.results(name, protocol=protocol, fold=folds[0]), name=f"{name}_one_fold", picture=None)
        for name in TABLES
    )
