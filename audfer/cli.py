"""The ``audfer`` command. Each subcommand calls one function of a room and prints what it gave.

Exit codes: 0 done; 1 a notebook failed; 2 wrong input (one sentence on standard error); 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sys
from pathlib import Path

from .errors import AudferError, InputError

DATASETS = ("DFEW", "FERV39k", "MAFW", "AffWild2", "RAVDESS", "DISFA")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        options.run(options)
        return 0
    except AudferError as error:
        print(f"audfer: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("audfer: interrupted; what was finished is kept, run the same command again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _formatter(prog: str) -> argparse.HelpFormatter:
    formatter = argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=79)
    formatter._action_max_length = 14  # argparse forgets the indent of subcommands and would break their lines
    return formatter


def build_parser() -> argparse.ArgumentParser:
    """All subcommands with their options."""
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="audfer", formatter_class=_formatter,
        description="Regenerate the tables and figures of AU-DFER, and its steps one by one.",
        epilog="environment:\n"
               "  AUDFER_WORK       folder of generated work (default: work/)\n"
               "  AUDFER_FIGURES    folder of tables and figures (default: figures/)\n"
               "  AUDFER_DATA       folder of the real datasets, one folder each\n"
               "  AUDFER_PROGRESS   bar, lines or off (default: bar on a terminal)\n\n"
               "exit codes: 0 done, 1 a notebook failed, 2 wrong input, 130 interrupted")
    parser.add_argument("--version", action="version", version=f"audfer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(commands, "reproduce", _reproduce, "run notebooks 01 to 05 and write report.html")
    _profile(command)
    command.add_argument("-n", "--notebook", action="append", metavar="NAME",
                         help="run only this notebook (repeat for several), for example 03_training")
    command.add_argument("-p", "--parameter", action="append", default=[], nargs=2, metavar=("NAME", "VALUE"),
                         help="value for a notebook's parameter; refused if no notebook declares it")
    command.add_argument("--minutes", type=float, help="wall-clock limit of each notebook (default: 60 with "
                         "tiny networks, none otherwise)")
    command.add_argument("--work", help="folder of generated work")
    command.add_argument("--figures", help="folder of tables and figures")
    command.add_argument("--update-notebooks", action="store_true",
                         help="copy the executed notebooks back to notebooks/, for committing")

    command = _command(commands, "report", _report, "write report.html again from the last run's notebooks")
    _profile(command)
    command.add_argument("--work", help="folder of generated work")
    command.add_argument("--figures", help="folder of tables and figures")

    group = _group(commands, "data", "check, pack or render clips")
    command = _command(group, "check", _data_check, "read a dataset and compare its counts with the published ones")
    _dataset(command)
    command = _command(group, "pack", _data_pack, "store a dataset's clips as one memory-mapped array")
    _dataset(command)
    command.add_argument("out", help="folder to write")
    command.add_argument("--frames", type=int, default=16, help="frames kept of each clip (default: 16)")
    command.add_argument("--size", type=int, default=112, help="side of a frame in pixels (default: 112)")
    command = _command(group, "synth", _data_synth, "render the embedded benchmark in the datasets' own layouts")
    command.add_argument("out", help="folder to write")
    _profile(command)

    group = _group(commands, "au", "action units of every frame")
    command = _command(group, "extract", _au_extract, "run the AU estimator on a dataset's frames")
    _dataset(command)
    command.add_argument("out", help="AU table to write (.parquet)")
    _profile(command, "whose estimator is taken, and trained first if it is not there")
    command = _command(group, "import", _au_import, "gather OpenFace's CSVs of a dataset, one a clip")
    _dataset(command)
    command.add_argument("csvs", help="folder with <clip_id>.csv")
    command.add_argument("out", help="AU table to write (.parquet)")
    command.add_argument("--min-confidence", type=float, help="frames below it count as unknown")

    group = _group(commands, "knowledge", "the AU-expression knowledge matrix (section 3.1)")
    command = _command(group, "build", _knowledge_build, "build the matrix from a profile's AU tables")
    command.add_argument("out", help="matrix to write (.json)")
    _profile(command)
    command.add_argument("--variant", choices=("paper", "release"), default="", help="reading of section 3.1 "
                         "(default: the profile's)")
    command.add_argument("--openface", metavar="FOLDER", help="build it from real OpenFace CSVs with a labels.csv "
                         "beside them instead")
    command.add_argument("--theta", type=float, default=0.0, help="threshold of Eq. 3 (default: 0, no filter)")
    command.add_argument("--au28", choices=("grand_mean", "row_mean", "presence"), default="grand_mean",
                         help="what stands for AU28's missing intensity (default: grand_mean)")

    command = _command(commands, "train", _train, "train one cell, or find its record")
    _profile(command)
    command.add_argument("--model", default="m3dfel", help="m3dfel, former_dfer or mae_dfer (default: m3dfel)")
    command.add_argument("--dataset", default="DFEW", help="DFEW, FERV39k or MAFW (default: DFEW)")
    command.add_argument("--au-ratio", type=float, default=0.0, help="lambda of Eq. 10 (default: 0, no AU head)")
    command.add_argument("--strategy", default="", help="global, distinct or minor (default: the profile's)")
    command.add_argument("--weights", choices=("knowledge", "none"), default="knowledge",
                         help="what weighs the AUs in the loss (default: knowledge)")
    command.add_argument("--seed", type=int, help="default: the profile's first")
    return parser


def _command(parent, name: str, run, summary: str) -> argparse.ArgumentParser:
    command = parent.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                formatter_class=_formatter)
    command.set_defaults(run=run)
    return command


def _group(parent, name: str, summary: str):
    group = parent.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                              formatter_class=_formatter)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _profile(command: argparse.ArgumentParser, what: str = "") -> None:
    default = os.environ.get("AUDFER_PROFILE") or "laptop"
    command.add_argument("--profile", default=default,
                         help=f"smoke, laptop, gpu, paper or a .toml file (default: {default})"
                              + (f"; {what}" if what else ""))


def _dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    command.add_argument("root", help="the dataset's folder")
    command.add_argument("--fold", type=int, default=1, help="fold, where the dataset has several (default: 1)")


def _parameters(pairs: list[list[str]]) -> dict[str, object]:
    """Names and texts as names and values; a value that is no Python literal is text."""
    values = {}
    for name, text in pairs:
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _manifest(options):
    from . import datasets

    if options.dataset == "DISFA":
        raise InputError("command line", "DATASET", "'DISFA'", "a dataset of expression clips; DISFA's annotated "
                         "frames are read by audfer.datasets.read_disfa")
    return datasets.read_dataset(options.dataset, Path(options.root), fold=options.fold)


def _reproduce(options) -> None:
    from .reproduce import NOTEBOOKS, reproduce

    names = tuple(Path(name).stem for name in options.notebook) if options.notebook else NOTEBOOKS
    reproduce(options.profile, names, _parameters(options.parameter), work=options.work, figures=options.figures,
              minutes=options.minutes, update_notebooks=options.update_notebooks)


def _report(options) -> None:
    from .reproduce import rewrite_report

    print(rewrite_report(options.profile, work=options.work, figures=options.figures))


def _data_check(options) -> None:
    manifest = _manifest(options)
    print(manifest.check().astype(object).fillna("").to_string(index=False))


def _data_pack(options) -> None:
    from . import datasets

    packed = datasets.pack(_manifest(options), Path(options.out), options.frames, options.size)
    print(f"{options.out}: {packed.frames.shape[0]} clips of {options.frames} frames, {options.size} pixels")


def _data_synth(options) -> None:
    from . import synth
    from .study import open_study

    study = open_study(options.profile)
    if not study.profile.embedded:
        raise InputError("command line", "--profile", repr(options.profile),
                         "a profile with the embedded benchmark, for example laptop")
    synth.write_benchmark(Path(options.out), study.synth_config)
    print(options.out)


def _au_extract(options) -> None:
    from .action_units.extraction import extract
    from .study import open_study

    manifest = _manifest(options)
    study = open_study(options.profile)
    table = extract(manifest, study.estimator, study.profile.data.render_size, device=study.device,
                    precision=study.precision)
    table.save(Path(options.out))
    print(f"{options.out}: {len(table.frames)} frames of {manifest.name}")


def _au_import(options) -> None:
    from .action_units.extraction import import_openface

    table = import_openface(_manifest(options), Path(options.csvs), options.min_confidence)
    table.save(Path(options.out))
    print(f"{options.out}: {len(table.frames)} frames of {table.frames['clip_id'].nunique()} clips")


def _knowledge_build(options) -> None:
    if options.openface:
        from .action_units.table import table_from_openface_folder
        from .knowledge import KnowledgeMatrix

        if options.theta:
            raise InputError("command line", "--theta with --openface", options.theta,
                             "0: the filter of Eq. 3 needs expression scores of the clips' own frames")
        table, labels = table_from_openface_folder(options.openface)
        frames = table.labelled(Path(options.openface).name, labels.set_index("clip_id")["expression"])
        matrix = KnowledgeMatrix.from_frames(frames, variant=options.variant or "paper", au28=options.au28)
    else:
        from .study import open_study

        matrix = open_study(options.profile).knowledge(options.variant, options.theta, options.au28)
    matrix.save(Path(options.out))
    print(matrix.to_frame().round(2).to_string())
    print(options.out)


def _train(options) -> None:
    from .evaluation import summary
    from .study import open_study

    study = open_study(options.profile)
    cell = study.cell(options.model, options.dataset, options.au_ratio, options.strategy, options.weights,
                      options.seed)
    (record,) = study.run([cell])
    result = summary(record)
    print(f"{cell.label}, last epoch, 95 % interval: WAR {result.war}, UAR {result.uar}\nrecord: {record.path}")


if __name__ == "__main__":
    sys.exit(main())
