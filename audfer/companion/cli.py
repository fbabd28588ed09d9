"""The ``audfer`` command: its arguments come from ``commands.toml``, what it does from ``commands.py`` beside that.

Exit codes: 0 done; 1 a notebook failed, a dataset is not the papers' or some files were refused (the rest is done); 2
wrong input (one sentence on standard error); 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .. import __version__, data_folder
from ..errors import AudferError, InputError, harmless

_TYPES = {"int": int, "float": float, "lower": str.lower}
_COMMANDS = dict(title="commands", metavar="COMMAND", required=True)
_OTHERS = "another with AUDFER_WORK, AUDFER_FIGURES, --work, --figures or --out"
#: error of the operating system -> what would do
_EXPECTED = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), f"one that this user may use: choose {_OTHERS}"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), f"a folder and no file or dead link in its place: choose {_OTHERS}"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"free space: make some, or choose {_OTHERS}"),
    **dict.fromkeys((errno.ENOENT, errno.ELOOP), "something that is there, and no dead link"),
}
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
    speaks = os.environ.get("RANK", "0") == "0"  # under torchrun all processes meet an error
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):  # no terminal is too old for somebody's file names
            sys.stdout.reconfigure(errors="backslashreplace")
        options = build_parser().parse_args(arguments)
        options.given = sys.argv[1:] if arguments is None else arguments
        if changes := getattr(options, "set", None):
            from ..study.profiles import with_changes

            options.profile = with_changes(options.profile, changes)
        data_folder()
        return command_of(options)(options) or 0
    except AudferError as error:
        if speaks:
            print(harmless(f"audfer: error: {error}"), file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        if speaks:
            said = "interrupted; what was finished is kept, run the same command again to resume"
            print(f"audfer: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:  # not of the operating system
            raise
        if speaks:
            print(f"audfer: error: {_sentence(error)}", file=sys.stderr)
        return 2


def _sentence(error: OSError) -> InputError:
    """What the operating system refused, as a sentence with a way out."""
    expected = _EXPECTED.get(error.errno, "a file or folder that can be read and written")
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "this machine"
    return InputError(where, "file or folder", (error.strerror or str(error)).lower(), expected)


def interrupt(_, frame) -> None:
    """Raise ``KeyboardInterrupt``, but not amid an import: torch, for one, swallows what is raised while it imports
    NumPy, and the run would go on. It is then raised by the next thing that the importing function does.
    """
    importing = None
    while frame and frame.f_code is not main.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            importing = frame.f_back
        frame = frame.f_back
    if not importing:
        raise KeyboardInterrupt
    importing.f_trace = _raise
    sys.settrace(lambda *_: None)


def _raise(*_) -> None:
    sys.settrace(None)
    raise KeyboardInterrupt


def command_of(options: argparse.Namespace) -> Callable[[argparse.Namespace], int | None]:
    """The function that a parsed command line asks for; its module is only now imported."""
    return getattr(import_module(options.module), options.function)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    tables = _tables()
    shared = tables.pop("shared")
    description = "Regenerate the tables and figures of AU-DFER, and its steps one by one."
    examples = "".join(f"  {table['example']}\n" for table in tables.values() if "example" in table)
    parser = argparse.ArgumentParser(
        "audfer", description=description, epilog=f"examples:\n{examples}\n{_EPILOG}", formatter_class=_formatter
    )
    parser.add_argument("--version", action="version", version=f"audfer {__version__}")
    levels = {"": parser.add_subparsers(**_COMMANDS)}
    for name, table in tables.items():
        module, summary, more = table.pop("module"), table.pop("summary"), table.pop("more", "")
        example = table.pop("example", "")
        level, _, last = name.rpartition(" ")
        command = levels[level].add_parser(
            last,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n{more}".strip(),
            epilog=example and f"example:\n  {example}",
            formatter_class=_formatter,
        )
        if table:
            command.set_defaults(module=module, function=name.replace(" ", "_").replace("-", "_"))
            _add_arguments(command, table, shared)
        else:
            levels[name] = command.add_subparsers(**_COMMANDS)
    return parser


def completion_script(shell: str) -> str:
    """A script that completes commands and options in bash, or in zsh by way of its bash completion."""
    words: dict[str, list[str]] = {}

    def add(parser: argparse.ArgumentParser, path: str) -> None:
        known: list[str] = []
        for action in parser._actions:
            known += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                known += action.choices
                for name, command in action.choices.items():
                    add(command, f"{path} {name}".strip())
        words[path] = known

    add(build_parser(), "")
    cases = "\n".join(
        f'    "{path}") words="{" ".join(known)}" ;;'
        for path, known in sorted(words.items(), key=lambda item: -len(item[0].split()))
        if path
    )
    return f"""{"autoload -U +X bashcompinit && bashcompinit" if shell == "zsh" else "# audfer"}
_audfer_words() {{
  words=""
  case "$1" in
{cases}
  esac
}}
_audfer() {{
  local words current="${{COMP_WORDS[COMP_CWORD]}}"
  _audfer_words "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
  [ -n "$words" ] || _audfer_words "${{COMP_WORDS[1]}}"
  [ "$COMP_CWORD" -gt 1 ] && [ -n "$words" ] || words="{" ".join(words[""])}"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _audfer audfer"""


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
        for key in ("clip_datasets", "annotated_datasets", "profiles"):  # for %(clip_datasets)s in help texts
            setattr(action, key, _Names(key))


class _Names:
    """Names of datasets or profiles, asked for only where a help text is printed: their imports take seconds."""

    def __init__(self, which: str):
        self.which = which

    def __str__(self) -> str:
        from .. import datasets
        from ..study.profiles import available_profiles

        names = available_profiles if self.which == "profiles" else getattr(datasets, self.which)
        return ", ".join(names())


def _metavar(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _formatter(prog: str) -> argparse.HelpFormatter:
    formatter = argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=79)
    formatter._action_max_length = 14  # argparse forgets the indent of subcommands and would break their lines
    return formatter


if __name__ == "__main__":
    sys.exit(main())
