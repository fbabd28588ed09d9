"""The ``audfer`` command. Each subcommand calls one function of a room and prints what it gave.

Exit codes: 0 done; 1 a notebook failed, a dataset is not the papers' or some files were refused (the rest is done); 2
    wrong input
(one sentence on standard error); 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import AudferError, InputError

DATASETS = ("DFEW", "FERV39k", "MAFW", "AFEW", "AffWild2", "RAVDESS", "folder", "DISFA")
#: frames annotated with action units: only ``data check`` takes these
ANNOTATED = ("DISFA", "BP4D")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        return options.run(options) or 0
    except AudferError as error:
        if os.environ.get("RANK", "0") == "0":  # under torchrun all processes meet it
            print(f"audfer: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(
                "audfer: interrupted; what was finished is kept, run the same command again to resume", file=sys.stderr
            )
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
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="audfer",
        formatter_class=_formatter,
        description="Regenerate the tables and figures of AU-DFER, and its steps one by one.",
        epilog="environment:\n"
        "  AUDFER_WORK       folder of generated work (default: work/)\n"
        "  AUDFER_FIGURES    folder of tables and figures (default: figures/)\n"
        "  AUDFER_DATA       folder of the real datasets, one folder each\n"
        "  AUDFER_PROGRESS   bar, lines or off (default: bar on a terminal)\n"
        "  AUDFER_SCHEDULER  address of a Dask scheduler to train cells on\n\n"
        "exit codes: 0 done, 1 a notebook or a cell failed, a cell is missing or a\n"
        "            dataset differs, 2 wrong input, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"audfer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(commands, "reproduce", _reproduce, "run all notebooks and write report.html")
    _profile(command)
    command.add_argument(
        "-n",
        "--notebook",
        action="append",
        metavar="NAME",
        help="run only this notebook (repeat for several), for example 03_training",
    )
    command.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        nargs=2,
        metavar=("NAME", "VALUE"),
        help="value for a notebook's parameter; refused if no notebook declares it",
    )
    command.add_argument(
        "--minutes",
        type=float,
        help="wall-clock limit of each notebook (default: 60 with tiny networks, none otherwise)",
    )
    command.add_argument("--work", help="folder of generated work")
    command.add_argument("--figures", help="folder of tables and figures")
    command.add_argument(
        "--update-notebooks", action="store_true", help="copy the executed notebooks back to notebooks/, for committing"
    )

    command = _command(
        commands,
        "report",
        _report,
        "tables and figures from run records alone, or report.html again",
        "With --store every table and figure that training stands behind is made\n"
        "again from a folder of run records, on any machine: no clips, no training.\n"
        "Missing cells are named with the reason (exit code 1). Without it report.html\n"
        "is written again from the last run's notebooks.",
    )
    command.add_argument("--store", metavar="RUNS", help="folder of run records, work/<profile>/runs or a copy of it")
    command.add_argument(
        "--protocol",
        choices=("last", "best-on-validation", "best-on-test"),
        default="last",
        metavar="NAME",
        help="with --store: last, best-on-validation or best-on-test epoch (default: last)",
    )
    _profile(command, "without --store")
    command.add_argument("--work", help="without --store: folder of generated work")
    command.add_argument(
        "--figures",
        metavar="DIR",
        help="folder of tables and figures; <profile>/ is made in it (default: AUDFER_FIGURES, else figures/)",
    )

    group = _group(commands, "data", "fetch, check, pack or render clips")
    command = _command(group, "fetch", _data_fetch, "download RAVDESS and its OpenFace tracking from Zenodo")
    command.add_argument("dataset", choices=("ravdess",), type=str.lower, metavar="DATASET", help="ravdess")
    command.add_argument(
        "--what",
        choices=("tracking", "videos", "all"),
        default="tracking",
        help="OpenFace's CSVs, the videos, or both (default: tracking)",
    )
    command.add_argument("--root", help="folder to put them in (default: AUDFER_DATA, else data/ here)")
    command.add_argument("--song", action="store_true", help="the song trials too; they have six expressions only")
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--base-url", default="https://zenodo.org", metavar="URL", help="a mirror that answers like Zenodo"
    )
    command = _command(
        group,
        "check",
        _data_check,
        "look at every clip of a dataset and compare it with what is published",
        "Exit code 0 only if it is what the papers used; otherwise 1, and every\ndeviation is named with an example.",
    )
    _clips(command, annotated=True)
    command.add_argument("--fold", type=int, help="only this fold (default: all of DFEW, MAFW, DISFA, BP4D)")
    command.add_argument(
        "--deep", action="store_true", help="decode every frame; otherwise headers and ends of files are read"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command = _command(group, "pack", _data_pack, "store a dataset's clips as one memory-mapped array")
    _clips(command)
    command.add_argument("out", help="folder to write")
    command.add_argument("--fold", type=int, default=1, help="fold, where the dataset has several (default: 1)")
    command.add_argument("--frames", type=int, default=16, help="frames kept of each clip (default: 16)")
    command.add_argument("--size", type=int, default=112, help="side of a frame in pixels (default: 112)")
    command.add_argument(
        "--align",
        metavar="FOLDER",
        help="cut faces out of raw video with the landmarks of OpenFace's CSVs there, <clip_id>.csv",
    )
    command = _command(group, "synth", _data_synth, "render the embedded benchmark in the datasets' own layouts")
    command.add_argument("out", help="folder to write")
    _profile(command)

    group = _group(commands, "au", "action units of every frame")
    command = _command(group, "import", _au_import, "gather OpenFace's CSVs of any dialect into one AU table")
    command.add_argument("dir", metavar="DIR", help="folder of .csv or .txt files, one a clip, sub-folders too")
    command.add_argument("--out", metavar="TABLE", help="AU table to write (default: DIR.parquet)")
    command.add_argument("--dataset", metavar="NAME", help="name clips and number frames as this dataset does")
    command.add_argument("--root", help="its folder, or the one that holds it (default: AUDFER_DATA)")
    command.add_argument(
        "--face",
        default="longest",
        metavar="RULE",
        help="where frames hold several: longest, largest, confident, or a face's number (default: longest)",
    )
    command.add_argument(
        "--intensity-scale",
        choices=("0-5", "0-1"),
        help="of the intensities, for files that were rescaled (default: files that look rescaled are refused)",
    )
    command.add_argument(
        "--without-presence", action="store_true", help="take files without AU*_c too; their presences are unknown"
    )
    command.add_argument(
        "--au-mode",
        choices=("calibrated", "static", "unknown"),
        default="unknown",
        help="static if OpenFace ran with -au_static; no file tells (default: unknown)",
    )
    _openface(command)
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    command = _command(
        group,
        "extract",
        _au_extract,
        "run an AU extractor over the clips of a dataset",
        "The dataset as it lies on disk or, for lac and audfer, packed clips (audfer\n"
        "data pack): --root is their folder then, and the table has the stored frames.\n"
        "lac and audfer find no faces: the pictures have to be faces, or packed with\n"
        "--align. Run it again to go on after a kill.",
    )
    _clips(command)
    command.add_argument("--fold", type=int, default=1, help="fold, where the dataset has several (default: 1)")
    command.add_argument("--out", metavar="TABLE", help="AU table to write (default: DATASET_BACKEND.parquet here)")
    command.add_argument(
        "--backend",
        choices=("openface", "lac", "audfer", "pyfeat"),
        default="",
        help="openface; lac: Lock "
        "and Check's recogniser, as it was trained; audfer: the baseline estimator, for rendered faces; pyfeat "
        "(default: openface where it is found, else lac)",
    )
    _profile(command, "of lac and audfer: whose weights are taken; audfer's are trained first if they are not there")
    command.add_argument(
        "--weights",
        default="",
        metavar="DIR",
        help="of lac: a folder that au train-lac or audfer reproduce left (default: lac/ of the profile's work folder)",
    )
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of lac (default: auto, the GPU where there is one)",
    )
    command.add_argument(
        "--precision",
        choices=("auto", "bf16", "float32"),
        default="auto",
        help="of lac (default: auto, bf16 where the processor computes in it)",
    )
    command.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="of lac: windows of as many frames as it was trained with in a "
        "forward pass, from several clips (default: 8, on a GPU 32)",
    )
    command.add_argument(
        "--executable", default="", metavar="PATH", help="of openface: FeatureExtraction (default: the one on PATH)"
    )
    command.add_argument(
        "--container", default="", metavar="IMAGE", help="of openface: run it in this docker, podman or apptainer image"
    )
    command.add_argument(
        "--engine",
        choices=("docker", "podman", "apptainer"),
        default="",
        help="which of the three (default: the first on PATH)",
    )
    command.add_argument("--static", action="store_true", help="of openface: -au_static, no calibration over the clip")
    command.add_argument("--csvs", default="", metavar="DIR", help="of openface: keep its own files there")
    _openface(command)
    command.add_argument("--seconds", type=float, default=600, help="time limit of a clip (default: 600)")
    command.add_argument(
        "--retries", type=int, default=1, help="further attempts after a crash, a hang or no output (default: 1)"
    )
    command.add_argument("--again", action="store_true", help="try clips again that an earlier run refused")
    command.add_argument("--scheduler", default="", metavar="ADDRESS", help="run on this Dask cluster, tcp://host:8786")
    command.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="run on a Dask cluster started under SLURM: "
        "jobs=8 queue=cpu cores=4 processes=4 memory=16GB walltime=04:00:00 ...",
    )

    command = _command(
        group,
        "train-lac",
        _au_train_lac,
        "train Lock and Check on annotated frames, for au extract --weights",
        "With --weights it goes on from another recogniser's, for other faces\n"
        "(fine-tuning). A third of the subjects is held out and judged. A killed run\n"
        "goes on from its last epoch.",
    )
    command.add_argument("dataset", metavar="DATASET", help="DISFA or BP4D")
    command.add_argument("--root", help="the dataset's folder, or the one that holds it (default: AUDFER_DATA)")
    command.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the recogniser (default: lac_DATASET here); DIR_training beside it keeps frames and record",
    )
    command.add_argument(
        "--weights", default="", metavar="DIR", help="start from this recogniser (default: from scratch)"
    )
    command.add_argument(
        "--size", default="", metavar="NAME", help="network without --weights: paper, small or tiny (default: paper)"
    )
    command.add_argument("--epochs", type=int, default=0, help="default: the size's recipe's")
    command.add_argument("--fold", type=int, default=1, help="whose subjects are held out, 1 to 3 (default: 1)")
    command.add_argument("--seed", type=int, default=0, help="default: 0")
    command.add_argument(
        "--openface",
        metavar="DIR",
        help="OpenFace's CSVs with landmarks, one a video (default: openface/DATASET beside the dataset)",
    )
    command.add_argument("--no-align", action="store_true", help="the pictures are faces already: cut none out")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    command.add_argument("--precision", choices=("auto", "bf16", "float32"), default="auto", help="default: auto")

    group = _group(commands, "knowledge", "the AU-expression knowledge matrix (section 3.1)")
    command = _command(group, "build", _knowledge_build, "build the matrix from a profile's AU tables")
    command.add_argument("out", help="matrix to write (.json)")
    _profile(command)
    command.add_argument(
        "--variant", choices=("paper", "release"), default="", help="reading of section 3.1 (default: the profile's)"
    )
    command.add_argument(
        "--openface", metavar="FOLDER", help="build it from real OpenFace CSVs with a labels.csv beside them instead"
    )
    command.add_argument("--theta", type=float, default=0.0, help="threshold of Eq. 3 (default: 0, no filter)")
    command.add_argument(
        "--au28",
        choices=("grand_mean", "row_mean", "presence"),
        default="grand_mean",
        help="what stands for AU28's missing intensity (default: grand_mean)",
    )

    group = _group(commands, "weights", "checkpoints of the networks")
    command = _command(
        group, "inspect", _weights_inspect, "say what a checkpoint is and what it fits, without running code from it"
    )
    command.add_argument("file", help=".pth, .pt or .safetensors file of anybody")
    command.add_argument(
        "--model",
        default="",
        choices=("m3dfel", "former_dfer", "mae_dfer"),
        metavar="NAME",
        help="does it fit this network? m3dfel, former_dfer or mae_dfer (default: whichever it resembles)",
    )

    command = _command(commands, "train", _train, "train one cell or find its record, or pre-train on unlabelled clips")
    _profile(command)
    command.add_argument(
        "--model",
        default="",
        help="m3dfel, former_dfer, mae_dfer or keypoint_gcn (default: m3dfel; to pre-train: mae_dfer, the only one)",
    )
    command.add_argument(
        "--variant",
        default="",
        metavar="NAME",
        help='of keypoint_gcn, for ablations: A, "mean fusion", '
        '"heads 6" ... (audfer.models.VARIANTS; default: the network itself)',
    )
    command.add_argument(
        "--landmarks",
        default="",
        metavar="PATH",
        help="for keypoint_gcn: folder of OpenFace's CSVs of the clips, "
        "or dlib's 68-point model file (default: AUDFER_DATA/openface/<dataset>; of rendered clips they are known)",
    )
    command.add_argument("--dataset", default="DFEW", help="DFEW, FERV39k or MAFW (default: DFEW)")
    command.add_argument("--au-ratio", type=float, default=0.0, help="lambda of Eq. 10 (default: 0, no AU head)")
    command.add_argument("--strategy", default="", help="global, distinct, minor or plain (default: the profile's)")
    command.add_argument(
        "--weights",
        default="knowledge",
        metavar="NAME",
        help="what weighs the AUs in the loss: knowledge, none, "
        "uniform, shuffled-aus ... (audfer.knowledge.WEIGHTS; default: knowledge)",
    )
    command.add_argument(
        "--reading",
        default="paper",
        metavar="NAME",
        help="of Eq. 4 and the positive class weights (audfer.losses.READINGS; default: paper)",
    )
    command.add_argument(
        "--au-source",
        choices=("lac", "planted"),
        default="",
        help="labels and knowledge from Lock and Check's "
        "action units, or from the truth of rendered clips (default: the profile's extractor)",
    )
    command.add_argument("--fold", type=int, default=0, help="default: the profile's first")
    command.add_argument(
        "--recipe",
        default="",
        metavar="NAME",
        help="how it is trained, for example m3dfel-release or "
        "mae_dfer-release-dfew (default: the profile's, else <model>-paper or <model>-tiny)",
    )
    command.add_argument("--seed", type=int, help="default: the profile's first")
    command.add_argument("--epochs", type=int, help="default: the profile's")
    command.add_argument(
        "--accumulate",
        type=int,
        metavar="N",
        help="cut every batch into N micro-batches, for a network that "
        "does not fit the GPU otherwise (default: the profile's, 1)",
    )
    command.add_argument(
        "--evaluate-every",
        type=int,
        metavar="EPOCHS",
        help="look at the test clips only every so many epochs, and after the last (default: the profile's)",
    )
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="hold out this share of the training clips, whole "
        "subjects where known, and choose an epoch by it (default: the profile's, 0)",
    )
    command.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="train with N processes of this machine, one a GPU; for "
        "several machines: torchrun ... -m audfer train ... (default: 1)",
    )
    command.add_argument(
        "--initialisation",
        choices=("scratch", "mae"),
        default="scratch",
        help="mae: start from the profile's pre-trained weights, made if they are not there (default: scratch)",
    )
    command.add_argument(
        "--initial-weights", metavar="FILE", help="start from this checkpoint: official, or of --objective mae"
    )
    command.add_argument(
        "--objective",
        choices=("expression", "mae"),
        default="expression",
        help="mae: self-supervised "
        "pre-training of MAE-DFER, masked appearance and motion; reads no labels (default: expression)",
    )
    group = command.add_argument_group("with --objective mae")
    group.add_argument(
        "--data",
        nargs="+",
        metavar="FOLDER",
        help="packed clips (audfer data pack) without their test splits (default: the profile's datasets)",
    )
    group.add_argument("--mask-ratio", type=float, help="share of each clip that is hidden (default: the profile's)")
    group.add_argument(
        "--out",
        metavar="FILE",
        help="weights to write, .safetensors; for --initial-weights (default: the profile's, for --initialisation mae)",
    )

    command = _command(
        commands,
        "grid",
        _grid,
        "train all cells that tables and figures need, here or on a cluster",
        "Cells whose record is there are not trained again. Several runs may work on\n"
        "one store; each cell is trained once. What is interrupted goes on later.",
    )
    command.add_argument("output", nargs="*", metavar="OUTPUT", help="table1, table2, table3, fig5 ... (default: all)")
    _profile(command)
    command.add_argument("--work", help="folder of generated work; on a disk that all workers share")
    command.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="train on this Dask cluster, tcp://host:8786; "
        "workers with one thread each and, on GPUs, --resources GPU=1 (default: AUDFER_SCHEDULER, else this "
        "machine)",
    )
    command.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="train on a Dask cluster started under SLURM: "
        "jobs=8 gpus=1 queue=gpu cores=8 memory=32GB walltime=12:00:00 ...",
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: print how many cells there are, or with --slurm the script of one job",
    )
    return parser


def _command(parent, name: str, run, summary: str, more: str = "") -> argparse.ArgumentParser:
    command = parent.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n{more}".strip(),
        formatter_class=_formatter,
    )
    command.set_defaults(run=run)
    return command


def _group(parent, name: str, summary: str):
    group = parent.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=_formatter
    )
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _profile(command: argparse.ArgumentParser, what: str = "") -> None:
    default = os.environ.get("AUDFER_PROFILE") or "laptop"
    command.add_argument(
        "--profile",
        default=default,
        help=f"smoke, laptop, gpu, paper, ravdess or a .toml file (default: {default})" + (f"; {what}" if what else ""),
    )


def _openface(command: argparse.ArgumentParser) -> None:
    """How OpenFace's files are read, and who wrote them; ``_reading`` makes options of it."""
    command.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="frames below it are unknown (default: the boundary of OpenFace's own success flag)",
    )
    command.add_argument(
        "--mask-neighbours",
        type=int,
        nargs=2,
        metavar=("R", "C"),
        help="frames beside a failed one whose "
        "intensities, presences are unknown too (default: as far as OpenFace's smoothing reaches, 1 3)",
    )
    command.add_argument(
        "--openface-version",
        default="",
        metavar="V",
        help="recorded, for example 2.2.0 (default: what the columns tell)",
    )


def _reading(options, **more):
    from ..action_units.importing import ImportOptions

    given = {
        "min_confidence": options.min_confidence,
        "version": options.openface_version,
        "mask_neighbours": options.mask_neighbours and tuple(options.mask_neighbours),
    }
    return ImportOptions(**{name: value for name, value in given.items() if value is not None}, **more)


def _clips(command: argparse.ArgumentParser, annotated: bool = False) -> None:
    """A dataset as it lies on disk, and which of its clips; ``annotated``: also frames annotated with AUs."""
    names = [name for name in DATASETS if name not in ANNOTATED]
    command.set_defaults(annotated=annotated)
    command.add_argument(
        "dataset",
        metavar="DATASET",
        help=", ".join(names[:-1])
        + "; or folder: your own clips, a folder a class"
        + (f"; or annotated frames: {', '.join(ANNOTATED)}" if annotated else ""),
    )
    command.add_argument("--root", help="the dataset's folder, or the one that holds it (default: AUDFER_DATA)")
    command.add_argument(
        "--splits",
        metavar="PATH",
        help="split list of MAE-DFER or Former-DFER, or a folder of them, instead of the dataset's own",
    )
    command.add_argument(
        "--clips",
        metavar="KIND",
        default="",
        help="which copy of the clips: frames, 16f, faces, video, video-only ... (default: the first there is)",
    )
    command.add_argument(
        "--classes",
        choices=("seven", "all"),
        default="",
        help="the seven expressions (default), or also MAFW's other four, calm, other",
    )
    command.add_argument(
        "--channel", choices=("speech", "song", "both"), default="", help="of RAVDESS (default: speech)"
    )
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")


def _choices(options) -> dict[str, object]:
    """Root and choices of ``_clips``, as the readers take them."""
    root = options.root or os.environ.get("AUDFER_DATA")
    if not root:
        raise InputError("command line", "--root", "nothing", "the dataset's folder (or set AUDFER_DATA)")
    annotated = next((name for name in ANNOTATED if name.lower() == options.dataset.lower()), None)
    if annotated and not options.annotated:
        raise InputError(
            "command line",
            "DATASET",
            repr(annotated),
            "a dataset of expression clips; frames annotated with "
            "AUs are looked at by audfer data check and read by audfer.datasets.read_annotated",
        )
    return {
        "name": options.dataset,
        "root": root,
        "splits": options.splits,
        "clips": options.clips,
        "classes": options.classes,
        "channel": options.channel,
    }


def _parameters(pairs: list[list[str]]) -> dict[str, object]:
    """Names and texts as names and values; a value that is no Python literal is text."""
    values = {}
    for name, text in pairs:
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _reproduce(options) -> None:
    from .reproduce import NOTEBOOKS, reproduce

    names = tuple(Path(name).stem for name in options.notebook) if options.notebook else NOTEBOOKS
    reproduce(
        options.profile,
        names,
        _parameters(options.parameter),
        work=options.work,
        figures=options.figures,
        minutes=options.minutes,
        update_notebooks=options.update_notebooks,
    )


def _report(options) -> int | None:
    from .reproduce import rewrite_report

    if options.store:
        from ..results.builder import open_records, rebuild

        if options.work:
            raise InputError(
                "command line", "--work with --store", repr(options.work), "--store alone: nothing is worked on"
            )
        figures = options.figures or os.environ.get("AUDFER_FIGURES") or "figures"
        made = rebuild(open_records(options.store, figures), options.protocol)
        print(made)
        return 1 if made.missing else 0
    print(rewrite_report(options.profile, work=options.work, figures=options.figures))


def _data_fetch(options) -> None:
    from ..datasets import download as fetching

    todo = fetching.plan(
        options.what,
        options.root or os.environ.get("AUDFER_DATA") or "data",
        song=options.song,
        base_url=options.base_url,
    )
    print(todo.describe(), flush=True)
    if todo.missing and not options.yes:
        if not sys.stdin.isatty():
            raise InputError(
                "command line", "--yes", "nothing, and nobody to ask", "--yes to download what is listed above"
            )
        if input("\nDownload? [y/N] ").strip().lower() not in ("y", "yes"):
            raise AudferError("nothing was downloaded")
    for what, count in fetching.fetch(todo).items():
        print(f"{todo.root / fetching.SOURCES[what].folder.split('/Actor')[0]}: {count} files")
    if options.what != "videos":
        tables = todo.root / fetching.SOURCES["tracking"].folder
        print(f"\nnow, for example:\n  audfer reproduce -n 01_au_extraction -p openface_folder {tables}")


def _data_check(options) -> int:
    from .. import datasets

    folds = None if options.fold is None else (options.fold,)
    check = datasets.check_dataset(**_choices(options), folds=folds, deep=options.deep, workers=options.workers)
    print(json.dumps(check.to_json(), indent=1) if options.json else check)
    return 0 if check.as_published else 1


def _data_pack(options) -> None:
    from .. import datasets

    manifest = datasets.read_dataset(**_choices(options), fold=options.fold, missing="keep")
    packed = datasets.pack(
        manifest, Path(options.out), options.frames, options.size, workers=options.workers, align=options.align
    )
    for note in manifest.notes:
        print(note)
    lost = packed.quarantine
    for (split, expression), part in lost.groupby(["split", "expression"]):
        before = int(((manifest.table["split"] == split) & (manifest.table["expression"] == expression)).sum())
        print(
            f"left out: {len(part)} of {before} {split} clips of {manifest.classes[expression]}, now "
            f"{before - len(part)}"
        )
    if len(lost):
        print(f"{Path(options.out) / 'quarantine.csv'}: why {len(lost)} clips could not be packed")
    if options.align:
        print(f"{Path(options.out) / 'contact_sheet.png'}: look whether the faces are cut well")
    print(f"{options.out}: {packed.frames.shape[0]} clips of {options.frames} frames, {options.size} pixels")


def _data_synth(options) -> None:
    from .. import synth
    from ..study.study import open_study

    study = open_study(options.profile)
    if not study.profile.embedded:
        raise InputError(
            "command line",
            "--profile",
            repr(options.profile),
            "a profile with the embedded benchmark, for example laptop",
        )
    synth.write_benchmark(Path(options.out), study.synth_config)
    print(options.out)


def _au_import(options) -> int:
    from .. import datasets
    from ..action_units.importing import SCALES, import_folder

    folder = Path(options.dir)
    out = Path(options.out or folder.with_name(f"{folder.resolve().name}.parquet"))
    if (options.dataset is None) != (options.root is None) and not (options.dataset and os.environ.get("AUDFER_DATA")):
        raise InputError("command line", "--dataset and --root", "one of them", "both or neither (or AUDFER_DATA)")
    manifest = None
    if options.dataset:
        manifest = datasets.read_dataset(options.dataset, options.root or os.environ["AUDFER_DATA"], missing="drop")
    reading = _reading(
        options,
        face=int(options.face) if options.face.isdigit() else options.face,
        mode=options.au_mode,
        require_presence=not options.without_presence,
        scale=SCALES[options.intensity_scale] if options.intensity_scale else None,
    )
    files = import_folder(folder, out, reading, manifest=manifest, workers=options.workers)
    read = files[files["status"] == "read"]
    print(
        f"{out}: {read['frames'].sum()} frames of {read['clips'].sum()} clips; {read['failed'].sum()} failed, "
        f"{read['low_confidence'].sum()} of low confidence, {read['contaminated'].sum()} beside failed ones, "
        f"{read['gaps'].sum()} gaps; {(read['faces'] > 1).sum()} files with several faces"
    )
    return _refused(out, files["status"] == "refused", files["reason"], "files")


def _au_extract(options) -> int:
    from contextlib import nullcontext

    from ..action_units.running import dask_client, extract_manifest, slurm_options

    manifest, name = _extracted_clips(options)
    backend = _extractor(options)
    out = Path(options.out or f"{name}_{backend.name}.parquet")
    slurm = slurm_options(options.slurm) if options.slurm else None
    cluster = (
        dask_client(options.scheduler, slurm, str(out.absolute().parent / "slurm_logs"))
        if options.scheduler or slurm is not None
        else nullcontext()
    )
    with cluster as client:
        clips = extract_manifest(
            manifest,
            out,
            backend,
            workers=options.workers,
            seconds=options.seconds,
            retries=options.retries,
            again=options.again,
            client=client,
        )
    print(
        f"{out}: {clips['frames'].sum()} frames of {(clips['state'] == 'done').sum()} clips; {clips['ok'].sum()} with "
        f"a face"
    )
    return _refused(out, clips["state"] == "refused", clips["reason"], "clips")


def _extracted_clips(options):
    """The dataset on disk or, where the folder holds one, the packed store; and its name."""
    from .. import datasets

    choices = _choices(options)
    name, root = datasets.dataset_name(choices["name"]), Path(choices["root"])
    for folder in (root, root / name):
        if (folder / "frames.npy").is_file() and (folder / "meta.json").is_file():
            packed = datasets.open_packed(folder)
            if packed.meta["dataset"] != name:
                raise InputError(folder, "packed store", f"clips of {packed.meta['dataset']}", f"clips of {name}")
            given = [f"--{key}" for key in ("splits", "clips", "classes", "channel") if choices[key]]
            if given:
                raise InputError(
                    "command line",
                    given[0],
                    repr(choices[given[0][2:]]),
                    "nothing with a packed store: which clips it holds was chosen when it was packed",
                )
            return packed, name
    return datasets.read_dataset(**choices, fold=options.fold, missing="keep"), name


def _extractor(options):
    """The extractor that the options name, or the one that is here; says which, where nobody named it."""
    import shutil

    from ..action_units import backends
    from ..study.study import open_study

    chosen = options.backend
    if not chosen:
        found = shutil.which(options.executable or "FeatureExtraction")
        where = f"container {options.container}" if options.container else found
        chosen = "openface" if where or options.executable else "lac"
        print(
            f"extractor: {chosen} ({where or options.executable or 'no FeatureExtraction on PATH, no --container'})",
            flush=True,
        )
    if chosen == "openface":
        reading = _reading(options, mode="static" if options.static else "calibrated")
        return backends.OpenFace(
            options.executable,
            options.container,
            options.engine,
            csvs=options.csvs and str(Path(options.csvs).absolute()),
            reading=reading,
        )
    if chosen == "pyfeat":
        return backends.PyFeat()
    if chosen == "lac":
        return _lac(options)
    study = open_study(options.profile)
    _ = study.estimator  # trained now if it is not there
    return backends.Estimator(
        str(study.work / "estimator"), study.profile.data.render_size, study.device, study.precision
    )


def _lac(options):
    from ..action_units.backends import LAC
    from ..lock_and_check.training import Recogniser
    from ..study.study import open_study
    from ..training.loop import resolve_device, resolve_precision

    folder = Path(options.weights) if options.weights else open_study(options.profile).work / "lac"
    if not (folder / "recogniser.json").is_file():
        raise InputError(
            folder,
            "weights of Lock and Check",
            "none there",
            "those that audfer reproduce -n A3_lock_and_check or "
            "audfer au train-lac leaves; another folder with --weights",
        )
    print(_trained_on(Recogniser.load(folder)), flush=True)
    device = resolve_device(options.device)
    batch = (32 if device == "cuda" else 8) if options.batch is None else options.batch
    return LAC(str(folder.absolute()), device, resolve_precision(options.precision, device), batch)


def _trained_on(recogniser) -> str:
    """One line about what faces weights are for, and another where they lack AUs."""
    from ..facs import ACTION_UNITS

    trained_on = recogniser.description.get("trained_on", "rendered faces")
    real = " (not for real ones before au train-lac)" if trained_on == "rendered faces" else ""
    known = [name for name in ACTION_UNITS if name in recogniser.action_units]
    lacking = [name for name in ACTION_UNITS if name not in known]
    units = (
        f"unknown to them: {', '.join(lacking)}"
        if len(lacking) <= len(known)
        else f"all that they know: {', '.join(known)}"
    )
    return f"weights trained on {trained_on}{real}" + (f"\n{units}" if lacking else "")


def _au_train_lac(options) -> None:
    from ..evaluation.statistics import f1_intervals, presence_counts
    from ..lock_and_check.finetuning import train_on
    from ..lock_and_check.training import Recogniser
    from ..training.loop import resolve_device, resolve_precision

    device = resolve_device(options.device)
    root = options.root or os.environ.get("AUDFER_DATA")
    if not root:
        raise InputError("command line", "--root", "nothing", "the dataset's folder (or set AUDFER_DATA)")
    out = options.out or f"lac_{options.dataset}"
    record = train_on(
        options.dataset,
        root,
        out,
        weights=options.weights,
        size=options.size,
        epochs=options.epochs,
        fold=options.fold,
        seed=options.seed,
        align=not options.no_align,
        openface=options.openface,
        device=device,
        precision=resolve_precision(options.precision, device),
    )
    counts = presence_counts(record.labels, record.presence(), record.subjects)
    print(_trained_on(Recogniser.load(out)))
    print(
        f"mean F1 {f1_intervals(counts)[-1].percent()} (95 %) on {len(record.rows)} frames of {len(counts)} held-out "
        f"subjects"
    )
    print(f"{out}: next, audfer au extract DATASET --backend lac --weights {out}")


def _refused(out: Path, refused, reasons, what: str) -> int:
    """Say how many were refused and why the first was; the exit code."""
    if not refused.any():
        return 0
    print(
        f"{out.with_name(out.stem + '_quarantine.csv')}: {refused.sum()} of {len(refused)} {what} refused, the first: "
        f"{reasons[refused].iloc[0]}",
        file=sys.stderr,
    )
    return 1


def _knowledge_build(options) -> None:
    if options.openface:
        from ..action_units.table import table_from_openface_folder
        from ..knowledge import KnowledgeMatrix

        if options.theta:
            raise InputError(
                "command line",
                "--theta with --openface",
                options.theta,
                "0: the filter of Eq. 3 needs expression scores of the clips' own frames",
            )
        table, labels = table_from_openface_folder(options.openface)
        frames = table.labelled(Path(options.openface).name, labels.set_index("clip_id")["expression"])
        matrix = KnowledgeMatrix.from_frames(frames, variant=options.variant or "paper", au28=options.au28)
    else:
        from ..study.study import open_study

        matrix = open_study(options.profile).knowledge(options.variant, options.theta, options.au28)
    matrix.save(Path(options.out))
    print(matrix.to_frame().round(2).to_string())
    print(options.out)


def _weights_inspect(options) -> None:
    from ..models import inspect_checkpoint

    report = inspect_checkpoint(options.file, options.model)
    print(report)
    if options.model and not report.fits:
        raise AudferError(f"{options.file}: these weights do not fit {options.model}")


def _grid(options) -> int:
    from contextlib import nullcontext

    from ..action_units.running import dask_client, slurm_options
    from ..jobs.executors import job_script, slurm_cluster
    from ..study.study import OUTPUTS, open_study

    slurm = slurm_options(options.slurm) if options.slurm else None
    if options.dry_run and slurm is not None:
        print(job_script(slurm))
        return 0
    study = open_study(options.profile, options.work or "")
    outputs = tuple(options.output or OUTPUTS)
    if options.dry_run:
        print(study.grid_summary(*outputs).to_string(index=False))
        return 0
    cells = study.noted_cells(*outputs)
    cluster = nullcontext()
    if options.scheduler or slurm is not None:
        cluster = dask_client(
            options.scheduler, None if slurm is None else slurm_cluster(slurm, str(study.work / "slurm_logs"))
        )
    with cluster as client:
        table = study.train(cells, "grid", executor=client)
    failed = table[table["error"].notna()]
    print(
        f"{study.store.folder}: {len(table) - len(failed)} of {len(table)} cells, {table['trained'].sum()} of them "
        f"trained now"
    )
    for cell, error in zip((cells[i] for i in failed.index), failed["error"], strict=True):
        print(f"failed: {cell.label}, seed {cell.seed}: {error}", file=sys.stderr)
    return 1 if len(failed) else 0


def _train(options) -> int | None:
    from ..study.study import open_study
    from ..training import distributed

    study = open_study(options.profile)
    wanted, started = options.processes, distributed.launched()
    if wanted is not None and (wanted < 1 or wanted != (started or wanted)):
        raise InputError(
            "command line", "--processes", wanted, f"{started}, as torchrun started" if started else "at least 1"
        )
    if options.objective == "mae":
        if (wanted or started) > 1:
            raise InputError("command line", "--processes with --objective mae", wanted or started, "1")
        _pretrain(study, options)
        return None
    if wanted and wanted > 1 and not started:
        if study.device == "cuda":
            distributed.check_gpus(wanted)
        return distributed.launch(options.given, wanted)
    with distributed.together(study.device) as rank:
        if rank == 0:
            _train_cell(study, options)
        else:
            from ..training.loop import assist

            assist()
    return None


def _train_cell(study, options) -> None:
    from ..evaluation.statistics import PROTOCOLS, summary

    for name in ("data", "mask_ratio", "out"):
        if getattr(options, name) is not None:
            raise InputError(
                "command line",
                f"--{name.replace('_', '-')}",
                repr(getattr(options, name)),
                "nothing, unless with --objective mae",
            )
    cell = study.cell(
        options.model or "m3dfel",
        options.dataset,
        options.au_ratio,
        options.strategy,
        options.weights,
        options.seed,
        options.recipe,
        "weights" if options.initial_weights else options.initialisation,
        options.fold,
        options.reading,
        options.variant,
        options.au_source,
    )
    if options.landmarks and not cell.uses_landmarks:
        raise InputError(
            "command line",
            "--landmarks",
            repr(options.landmarks),
            f"nothing for {cell.model}: it looks at no landmarks",
        )
    study.landmark_source = options.landmarks
    chosen = {name: getattr(options, name) for name in ("epochs", "accumulate", "evaluate_every", "validation")}
    cell = replace(cell, **{name: value for name, value in chosen.items() if value is not None})
    (record,) = study.run([cell], initial_weights=options.initial_weights or "")
    print(f"{cell.label}: WAR and UAR, 95 % intervals")
    for protocol in PROTOCOLS:
        if protocol != "best-on-validation" or cell.validation:
            result = summary(record, protocol)
            print(f"  {protocol}, epoch {result.epochs[0]}: {result.war}, {result.uar}")
    costs = record.costs
    gpu = f", {costs['peak_gpu_memory_mb']:.0f} MB of the GPU" if study.device == "cuda" else ""
    print(
        f"{costs['clips_per_second']:.3g} clips/s, {costs['bound']}-bound ({100 * costs['input_share']:.0f} % of the "
        f"time "
        f"waiting for clips), {costs['peak_memory_mb']:.0f} MB{gpu}\nrecord: {record.path}"
    )


def _pretrain(study, options) -> None:
    from ..training.pretraining import pretrain

    if options.model not in ("", "mae_dfer"):
        raise InputError("command line", "--model with --objective mae", repr(options.model), "mae_dfer")
    chosen = {
        name: getattr(options, name) for name in ("epochs", "mask_ratio", "seed") if getattr(options, name) is not None
    }
    if not (options.out or options.data or chosen):
        out = study.pretrained_weights
    elif not options.out:
        raise InputError(
            "command line",
            "--out",
            "nothing",
            "a .safetensors file to write: the profile's own is made from its own clips and settings",
        )
    else:
        out = Path(options.out)
        pretrain(replace(study.pretraining, **chosen), options.data or study.pretraining_stores(), out)
    last = json.loads(out.with_suffix(".json").read_text())["history"][-1]
    print(
        f"{out}: after epoch {last['epoch']}, mean squared error of appearance {last['loss_appearance']:.3f}, of "
        f"motion "
        f"{last['loss_motion']:.3f}"
    )
    print(
        "next: audfer train --model mae_dfer " + (f"--initial-weights {out}" if options.out else "--initialisation mae")
    )


if __name__ == "__main__":
    sys.exit(main())
