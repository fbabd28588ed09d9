"""The ``audfer`` command: its arguments come from ``commands.toml``, what it does from ``commands.py`` beside that.

Exit codes: 0 done; 1 a notebook failed, a dataset is not the papers' or some files were refused (the rest is done); 2
wrong input (one sentence on standard error); 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..errors import AudferError

_TYPES = {"int": int, "float": float, "lower": str.lower}
_COMMANDS = dict(title="commands", metavar="COMMAND", required=True)
_EPILOG = """\
environment:
  AUDFER_PROFILE    profile where --profile names none (default: laptop)
  AUDFER_WORK       folder of generated work (default: work/)
  AUDFER_FIGURES    folder of tables and figures (default: figures/)
  AUDFER_DATA       folder of the real datasets, one folder each
  AUDFER_PROGRESS   bar, lines or off (default: bar on a terminal)
  AUDFER_SCHEDULER  address of a Dask scheduler to train cells on

exit codes: 0 done, 1 a notebook or a cell failed, a cell is missing or a
            dataset differs, 2 wrong input, 130 interrupted"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    speaks = os.environ.get("RANK", "0") == "0"  # under torchrun all processes meet an error
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        return command_of(options)(options) or 0
    except AudferError as error:
        if speaks:
            print(f"audfer: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        if speaks:
            said = "interrupted; what was finished is kept, run the same command again to resume"
            print(f"audfer: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def command_of(options: argparse.Namespace) -> Callable[[argparse.Namespace], int | None]:
    """The function that a parsed command line asks for; its module is only now imported."""
    return getattr(import_module(options.module), options.function)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    tables = _tables()
    shared = tables.pop("shared")
    description = "Regenerate the tables and figures of AU-DFER, and its steps one by one."
    parser = argparse.ArgumentParser("audfer", description=description, epilog=_EPILOG, formatter_class=_formatter)
    parser.add_argument("--version", action="version", version=f"audfer {__version__}")
    levels = {"": parser.add_subparsers(**_COMMANDS)}
    for name, table in tables.items():
        module, summary, more = table.pop("module"), table.pop("summary"), table.pop("more", "")
        level, _, last = name.rpartition(" ")
        command = levels[level].add_parser(
            last,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n{more}".strip(),
            formatter_class=_formatter,
        )
        if table:
            command.set_defaults(module=module, function=name.replace(" ", "_").replace("-", "_"))
            _add_arguments(command, table, shared)
        else:
            levels[name] = command.add_subparsers(**_COMMANDS)
    return parser


def _tables() -> dict[str, dict]:
    """Command -> arguments, from ``commands.toml`` of every sub-package; a later file may add to an earlier's table."""
    package = Path(__file__).parents[1]
    tables: dict[str, dict] = {}
    for file in sorted(package.glob("*/commands.toml")):
        for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
            tables.setdefault(name, {"module": f"{package.name}.{file.parent.name}.commands"}).update(table)
    return tables


def _add_arguments(command: argparse.ArgumentParser, table: dict[str, dict], shared: dict[str, dict]) -> None:
    computed = {"--profile": os.environ.get("AUDFER_PROFILE") or "laptop", "--workers": os.cpu_count() or 1}
    groups: dict[str | None, argparse._ActionsContainer] = {None: command}
    for names, given in table.items():
        if names.startswith("@"):
            _add_arguments(command, shared[names[1:]], shared)
            continue
        settings = dict(given)
        group = settings.pop("group", None)
        if group not in groups:
            groups[group] = command.add_argument_group(group)
        for key, convert in (("type", _TYPES.get), ("metavar", _metavar)):
            if key in settings:
                settings[key] = convert(settings[key])
        if names in computed:
            settings["default"] = computed[names]
        action = groups[group].add_argument(*names.split(), **settings)
        for key in ("clip_datasets", "annotated_datasets"):  # for %(clip_datasets)s in help texts
            setattr(action, key, _Names(key))


class _Names:
    """Names of datasets, asked of their registry only where a help text is printed: importing it takes seconds."""

    def __init__(self, which: str):
        self.which = which

    def __str__(self) -> str:
        from .. import datasets

        return ", ".join(getattr(datasets, self.which)())


def _metavar(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _formatter(prog: str) -> argparse.HelpFormatter:
    formatter = argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=79)
    formatter._action_max_length = 14  # argparse forgets the indent of subcommands and would break their lines
    return formatter


if __name__ == "__main__":
    sys.exit(main())
