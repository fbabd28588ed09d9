"""What each command does: one function per command, which calls the package and prints what it gave.

Modules are imported where they are used, so that a command loads only what it needs.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from textwrap import fill

from .. import data_folder
from ..errors import AudferError, InputError, harmless
from ..files import checkout
from .extractors import extractor, given, reading


def _wrong(field: str, found, expected: str) -> InputError:
    return InputError("command line", field, found, expected)


def _root(options, default: str | None = None) -> str:
    root = options.root or data_folder() or default
    if not root:
        raise _wrong("--root", "nothing", "the dataset's folder (or set AUDFER_DATA)")
    return root


def _study(options, **more):
    from ..study.study import open_study

    return open_study(options.profile, **more)


def parameters(pairs: list[list[str]]) -> dict[str, object]:
    """Names and texts as names and values; a value that is no Python literal is text."""
    values = {}
    for name, text in pairs:
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def reproduce(options) -> None:
    from . import reproduce as runner

    runner.reproduce(
        options.profile,
        tuple(options.notebook or runner.NOTEBOOKS),
        parameters(options.parameter),
        work=options.work,
        figures=options.figures,
        minutes=options.minutes,
        update_notebooks=options.update_notebooks,
    )


def _folder(given: str | None, name: str) -> Path:
    """Folder of all profiles' generated work, or of their tables and figures."""
    home = checkout() or Path.cwd()
    return Path(given or os.environ.get(f"AUDFER_{name.upper()}") or home / name).expanduser()


def report(options) -> int | None:
    if options.why:
        from ..results.provenance import why
        from ..study.profiles import load_profile

        print(why(_folder(options.figures, "figures") / load_profile(options.profile).name, options.why))
        return None
    if options.store:
        from ..results.builder import open_records, rebuild

        if options.work:
            raise _wrong("--work with --store", repr(options.work), "--store alone: nothing is worked on")
        figures = options.figures or os.environ.get("AUDFER_FIGURES") or "figures"
        made = rebuild(open_records(options.store, figures), options.protocol)
        print(made)
        return 1 if made.missing else 0
    from .reproduce import rewrite_report

    print(rewrite_report(options.profile, work=options.work, figures=options.figures))


def verify(options) -> int:
    from contextlib import ExitStack

    from ..results.provenance import read_sidecars
    from ..study.profiles import load_profile
    from .verify import committed
    from .verify import verify as compared

    profile, work = load_profile(options.profile).name, _folder(options.work, "work")
    made, fresh = None, _folder(options.figures, "figures") / profile
    with ExitStack() as stack:
        if options.store:
            from ..results.builder import open_records, rebuild

            again = stack.enter_context(tempfile.TemporaryDirectory(prefix="audfer-verify-"))
            study = open_records(options.store, again)
            rebuilt, fresh, profile = rebuild(study), study.figures, study.profile.name
            made = {about["made"]["notebook"] for about in read_sidecars(rebuilt.folder).values()}
        elif (summary := work / profile / "reproduce.json").is_file():
            made = {run["name"] for run in json.loads(summary.read_text())["notebooks"]}
        reference, against = Path(options.reference or ""), options.reference
        if not options.reference:
            reference, against = stack.enter_context(committed(profile)), f"figures/{profile} of the last commit"
        elif (reference / profile).is_dir():
            reference = reference / profile
        certificate = compared(fresh, reference, against, made)
    place = certificate.save(Path(options.out or work / profile))
    for verdict in certificate.verdicts:
        if not verdict.passed:
            print(f"{verdict.name}: {verdict.verdict}: {verdict.why}")
    counts = Counter(verdict.verdict for verdict in certificate.verdicts)
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    print(f"{'confirmed' if certificate.passed else 'NOT confirmed'}: {place}")
    return 0 if certificate.passed else 1


def completion(options) -> None:
    from .cli import completion_script

    print(completion_script(options.shell))


def compare(options) -> int:
    from .compare import compare_runs, records_of

    work = _folder(options.work, "work")
    result = compare_runs(*(records_of(run, work) for run in options.runs), options.protocol)
    print(result)
    if options.csv:
        result.frame.to_csv(options.csv, index=False, float_format="%.6g")
    return 0 if len(result.frame) else 1


# ---------------------------------------------------------------------------------------------------- data


def data_fetch(options) -> None:
    from ..datasets import download

    todo = download.plan(options.what, _root(options, "data"), song=options.song, base_url=options.base_url)
    print(harmless(todo.describe()), flush=True)
    if todo.missing and not options.yes:
        if not sys.stdin.isatty():
            raise _wrong("--yes", "nothing, and nobody to ask", "--yes to download what is listed above")
        if input("\nDownload? [y/N] ").strip().lower() not in ("y", "yes"):
            raise AudferError("nothing was downloaded")
    for what, count in download.fetch(todo).items():
        print(f"{todo.root / download.SOURCES[what].folder.split('/Actor')[0]}: {count} files")
    if options.what != "videos":
        tables = todo.root / download.SOURCES["tracking"].folder
        print(f"\nnow, for example:\n  audfer reproduce -n 01_au_extraction -p openface_folder {tables}")


def _clips(options, annotated: bool = False) -> dict[str, object]:
    """Which clips of which dataset, as the readers take it; ``annotated``: frames annotated with AUs may be meant."""
    from ..datasets import annotated_datasets

    named = next((name for name in annotated_datasets() if name.lower() == options.dataset.lower()), None)
    root = _root(options)
    if named and not annotated:
        raise _wrong(
            "DATASET",
            repr(named),
            "a dataset of expression clips; frames annotated with AUs are looked at by audfer data check and read by "
            "audfer.datasets.read_annotated",
        )
    return {"name": options.dataset, "root": root, **given(options, "splits", "clips", "classes", "channel")}


def data_check(options) -> int:
    from .. import datasets

    folds = None if options.fold is None else (options.fold,)
    check = datasets.check_dataset(**_clips(options, True), folds=folds, deep=options.deep, workers=options.workers)
    print(json.dumps(check.to_json(), indent=1) if options.json else harmless(str(check)))
    return 0 if check.as_published else 1


def data_landmarks(options) -> int:
    from .. import datasets
    from ..datasets.common import any_clips

    named = options.clips_of.lower() in map(str.lower, datasets.clip_datasets())
    if named and not Path(options.clips_of).exists():
        chosen = given(options, "clips", "channel")
        manifest = datasets.read_dataset(options.clips_of, _root(options), missing="keep", **chosen)
    else:
        manifest = any_clips(options.clips_of)
    name = manifest.name if named else Path(os.path.abspath(options.clips_of)).stem
    return _landmarks(manifest, Path(options.out or f"{name}_landmarks"), options)


def _landmarks(manifest, out: Path, options) -> int:
    """Make the landmarks of a manifest in a folder, with a sheet to look at; the exit code."""
    from ..action_units.backends import Landmarks
    from ..action_units.running import extract_landmarks
    from ..datasets.landmarks import points_sheet
    from ..files import atomic_file

    chosen = given(options, "workers", *(name for name in ("seconds", "retries", "again") if name in options))
    backend = Landmarks(str(getattr(options, "model_file", "")), getattr(options, "face", "longest"))
    clips = extract_landmarks(manifest, out, backend, **chosen)
    done = clips["state"] == "done"
    sheet = out.with_name(f"{out.name}_sheet.png")
    with atomic_file(sheet) as temporary:
        points_sheet(manifest, out).save(temporary)
    print(f"{out}: a face in {clips['ok'].sum()} of {clips['frames'].sum()} frames of {done.sum()} clips")
    print(f"{sheet}: look whether the points sit well")
    _not_read(manifest, out)
    return _refused(out.with_name(f"{out.name}.csv"), ~done, clips["reason"], "clips")


def _not_read(manifest, out: Path) -> None:
    """Say how many files among the clips were taken for none; ``<out>_quarantine.csv`` names them all."""
    if manifest.not_read:
        first, reason = next(iter(manifest.not_read.items()))
        listed = out.with_name(f"{out.stem if out.suffix == '.parquet' else out.name}_quarantine.csv")
        print(f"{listed}: {len(manifest.not_read)} files not read, the first: {first} ({reason})", file=sys.stderr)


def data_pack(options) -> None:
    import pandas as pd

    from .. import datasets

    manifest = datasets.read_dataset(**_clips(options), fold=options.fold, missing="keep")
    out = Path(options.out)
    if options.align == "":
        options.align = f"{options.out.rstrip('/')}_landmarks"
        _landmarks(manifest, Path(options.align), options)
    packed = datasets.pack(manifest, out, options.frames, options.size, workers=options.workers, align=options.align)
    for note in manifest.notes:
        print(harmless(note))
    if dropped := ", ".join(f"{what} {count}" for what, count in manifest.dropped.items() if count):
        print(harmless(f"not taken: {dropped}"))
    lost = packed.quarantine
    all_clips = manifest.table.groupby(["split", "expression"]).size()
    for (split, expression), part in lost.groupby(["split", "expression"]):
        before = all_clips[split, expression]
        name = manifest.classes[expression]
        print(f"left out: {len(part)} of {before} {split} clips of {name}, now {before - len(part)}")
    if len(lost):
        print(f"{out / 'quarantine.csv'}: why {len(lost)} clips could not be packed")
    if options.align:
        print(f"{out / 'contact_sheet.png'}: look whether the faces are cut well")
    if manifest.not_read:
        rows = pd.DataFrame(manifest.not_read.items(), columns=["path", "reason"])
        rows.to_csv(out.with_name(f"{out.name}_quarantine.csv"), index=False)
        _not_read(manifest, out)
    print(f"{options.out}: {packed.frames.shape[0]} clips of {options.frames} frames, {options.size} pixels")


def predict(options) -> None:
    from .predict import predict as predict_video
    from .predict import to_json, write_html

    chosen = {name: getattr(options, name) for name in ("aus", "au_weights", "weights", "face", "landmarks")}
    extractor = {name: getattr(options, name) for name in ("executable", "container", "engine", "static", "device")}
    frames = predict_video(options.video, **chosen, baseline=options.baseline, **extractor)
    about = frames.attrs["about"]
    if options.csv:
        frames.to_csv(options.csv, index=False)
    if options.html:
        write_html(frames, options.video, options.html)
    if options.json:
        print(json.dumps(to_json(frames), indent=1))
        return
    print(f"{about['video']}: {about['answer']}" + ", undecided" * about["undecided"])
    print(*(f"  {name:9}{score:.2f}" for name, score in about["scores"].items()), sep="\n")
    print(*about["words"], *(f"look out: {flag}" for flag in about["flags"]), sep="\n")


def data_synth(options) -> None:
    from .. import synth

    study = _study(options)
    if not study.profile.embedded:
        raise _wrong("--profile", repr(options.profile), "a profile with the embedded benchmark, for example laptop")
    synth.write_benchmark(Path(options.out), study.synth_config)
    print(options.out)


# ---------------------------------------------------------------------------------------------------- action units


def au_import(options) -> int:
    from .. import datasets
    from ..action_units.importing import SCALES, import_folder, say_coverage

    folder = Path(options.dir)
    # "." and "csv/.." have no name of their own
    out = Path(options.out or f"{os.path.abspath(folder)}.parquet")
    if (options.dataset is None) != (options.root is None) and not (options.dataset and data_folder()):
        raise _wrong("--dataset and --root", "one of them", "both or neither (or AUDFER_DATA)")
    manifest = datasets.read_dataset(options.dataset, _root(options), missing="drop") if options.dataset else None
    chosen = reading(
        options,
        face=int(options.face) if options.face.isdigit() else options.face,
        mode=options.au_mode,
        require_presence=not options.without_presence,
        scale=SCALES[options.intensity_scale] if options.intensity_scale else None,
    )
    files = import_folder(folder, out, chosen, manifest=manifest, workers=options.workers)
    read = files[files["status"] == "read"]
    print(
        f"{out}: {read['frames'].sum()} frames of {read['clips'].sum()} clips; {read['failed'].sum()} failed, "
        f"{read['low_confidence'].sum()} of low confidence, {read['contaminated'].sum()} beside failed ones, "
        f"{read['gaps'].sum()} gaps; {(read['faces'] > 1).sum()} files with several faces"
    )
    if lost := read["left_out"].sum():
        blind = ((read["faces"] > 1) & read["hand_overs"].isna()).sum()
        why = f", {blind} of them with neither landmarks nor pose to follow a face by where its number changes"
        print(
            f"{(read['left_out'] > 0).sum()} files lose {lost} frames of other faces than the kept one"
            + why * bool(blind)
        )
    refused = _refused(out, files["status"] == "refused", files["reason"], "files")
    if manifest is not None:
        say_coverage(out, files.attrs["coverage"])
    return refused


def au_extract(options) -> int:
    from ..action_units.running import extract_manifest
    from ..jobs.executors import slurm_options

    manifest, name = _extracted_clips(options)
    backend = extractor(options)
    out = Path(options.out or f"{name}_{backend.name}.parquet")
    slurm = slurm_options(options.slurm) if options.slurm else None
    running = given(options, "workers", "seconds", "retries", "again")
    with _cluster(options.scheduler, slurm, out.absolute().parent / "slurm_logs") as client:
        clips = extract_manifest(manifest, out, backend, **running, client=client)
    done = (clips["state"] == "done").sum()
    print(f"{out}: {clips['frames'].sum()} frames of {done} clips; {clips['ok'].sum()} with a face")
    return _refused(out, clips["state"] == "refused", clips["reason"], "clips")


def _cluster(scheduler: str, slurm: dict[str, object] | None, log: Path):
    from ..jobs.executors import dask_client

    return dask_client(scheduler, slurm, str(log)) if scheduler or slurm else nullcontext()


def _refused(out: Path, refused, reasons, what: str) -> int:
    """Say how many were refused and why the first was; the exit code."""
    if not refused.any():
        return 0
    listed = out.with_name(f"{out.stem}_quarantine.csv")
    count = f"{refused.sum()} of {len(refused)} {what}"
    print(harmless(f"{listed}: {count} refused, the first: {reasons[refused].iloc[0]}"), file=sys.stderr)
    return 1


def _extracted_clips(options):
    """The dataset on disk or, where the folder holds one, the packed store; and its name."""
    from .. import datasets

    chosen = _clips(options)
    name, root = datasets.dataset_name(chosen["name"]), Path(chosen["root"])
    for folder in (root, root / name):
        if not all((folder / file).is_file() for file in ("frames.npy", "meta.json")):
            continue
        packed = datasets.open_packed(folder)
        if packed.meta["dataset"] != name:
            raise InputError(folder, "packed store", f"clips of {packed.meta['dataset']}", f"clips of {name}")
        for key in ("splits", "clips", "classes", "channel"):
            if chosen.get(key):
                expected = "nothing with a packed store: which clips it holds was chosen when it was packed"
                raise _wrong(f"--{key}", repr(chosen[key]), expected)
        return packed, name
    return datasets.read_dataset(**chosen, fold=options.fold, missing="keep"), name


# ---------------------------------------------------------------------------------------------------- matrix, weights


def knowledge_build(options) -> int:
    if options.openface:
        from ..action_units.table import table_from_openface_folder
        from ..knowledge import KnowledgeMatrix

        if options.theta:
            expected = "0: the filter of Eq. 3 needs expression scores of the clips' own frames"
            raise _wrong("--theta with --openface", options.theta, expected)
        face = int(options.face) if options.face.isdigit() else options.face
        table, labels = table_from_openface_folder(options.openface, face=face)
        frames = table.labelled(Path(options.openface).name, labels.set_index("clip_id")["expression"])
        choices = {"variant": options.variant or "paper", "au28": options.au28, "scaled": options.scaled}
        matrix, refused = KnowledgeMatrix.from_frames(frames, **choices), labels.attrs["refused"]
    else:
        study, refused = _study(options), {}
        matrix = study.knowledge(options.variant, options.theta, options.au28, scaled=options.scaled)
    matrix.save(Path(options.out))
    print(matrix.to_frame().round(2).to_string())
    print(options.out)
    if matrix.flat:
        print(matrix.flat, file=sys.stderr)
    return 1 if refused else 0


def weights_inspect(options) -> None:
    from ..models import inspect_checkpoint

    checkpoint = inspect_checkpoint(options.file, options.model)
    print(harmless(str(checkpoint)))
    if options.model and not checkpoint.fits:
        raise AudferError(f"{options.file}: these weights do not fit {options.model}")


# ---------------------------------------------------------------------------------------------------- records


def records_list(options) -> None:
    from ..training.records import RunStore

    for record in RunStore(options.store).records():
        cell = record.cell
        named = {name: cell[name] for name in ("model", "dataset", "fold", "au_ratio", "strategy", "seed", "epochs")}
        print(record.path.name, *(f"{name}={value}" for name, value in named.items()))


def records_export(options) -> None:
    from ..training.parcels import export_records
    from ..training.records import RunStore

    for file in export_records(RunStore(options.store), options.out):
        print(f"{file}: {file.stat().st_size} bytes")


def records_import(options) -> None:
    from ..training.parcels import import_records
    from ..training.records import RunStore

    taken, present = import_records(RunStore(options.store), options.file)
    print(f"{options.store}: {len(taken)} records taken over, {len(present)} were there")


def records_migrate(options) -> int:
    from ..training.migration import migrate_store

    table = migrate_store(options.old, options.new)
    refused = table[table["key"] == ""]
    print(f"{options.new}: {len(table) - len(refused)} of {len(table)} records taken over")
    for name, reason in zip(refused["record"], refused["reason"], strict=True):
        print(f"refused: {name}: {reason}", file=sys.stderr)
    return 1 if len(refused) else 0


# ---------------------------------------------------------------------------------------------------- training


def pretrained(options) -> None:
    from ..study.pretrained import EXTRACTOR, FOLDER, PROFILE, make_extractor, make_start
    from ..study.study import open_study

    study, out = open_study(PROFILE, options.work or ""), Path(options.out or FOLDER)
    makers = {EXTRACTOR: lambda: make_extractor(study, out)}
    makers |= {model: lambda model=model: make_start(study, model, out) for model in study.profile.grid.models}
    for part in options.part or makers:
        if part not in makers:
            raise _wrong("PART", repr(part), f"one of {', '.join(makers)}")
        print(f"written: {makers[part]()}")


def needed_first(cells: list, models: Sequence[str]) -> list:
    """Cells in the order in which tables need them: all of one seed before those of the next, in the order given, and
    networks of appendices alone after the tables' own.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return sorted(cells, key=lambda cell: (cell.model not in models, seeds.index(cell.seed)))


def grid(options) -> int:
    begun = time.time()
    if options.budget is not None and not options.budget > 0:
        raise _wrong("--budget", options.budget, "seconds, more than 0")
    from ..jobs.executors import job_script, slurm_cluster, slurm_options
    from ..study.outputs import with_cells
    from ..training.records import LEFT

    slurm = slurm_options(options.slurm) if options.slurm else None
    if options.dry_run and slurm is not None:
        print(job_script(slurm))
        return 0
    study = _study(options, work=options.work or "", anywhere=options.dry_run)
    outputs = tuple(options.output) or with_cells()
    if options.dry_run:
        print(study.grid_summary(*outputs, dry=True).to_string(index=False), end="\n\n")
        networks, said = study.plan(*outputs)
        print(networks.to_string(index=False, float_format="{:,.3g}".format, na_rep="unknown"))
        print(*(fill(sentence, 79) for sentence in said), sep="\n")
        return 0
    cells = study.noted_cells(*outputs)
    log = study.work / "slurm_logs"
    with _cluster(options.scheduler, slurm and slurm_cluster(slurm, str(log)), log) as client:
        until = None if options.budget is None else begun + options.budget
        cells = cells if until is None else needed_first(cells, study.profile.grid.models)
        table = study.train(cells, "grid", executor=client, until=until)
    without = table[table["error"].notna()]
    waits = without["error"].str.startswith(LEFT)
    left, failed = without[waits], without[~waits]
    count, trained = f"{len(table) - len(without)} of {len(table)} cells", table["trained"].sum()
    print(f"{study.store.folder}: {count}, {trained} of them trained now")
    for position, error in left["error"].items():
        print(f"{cells[position].label}, seed {cells[position].seed}: {error}")
    for position, error in failed["error"].items():
        print(f"failed: {cells[position].label}, seed {cells[position].seed}: {error}", file=sys.stderr)
    return 1 if len(failed) else 0


def train(options) -> int | None:
    from ..training import distributed

    study = _study(options)
    wanted, started = options.processes, distributed.launched()
    if wanted is not None and (wanted < 1 or wanted != (started or wanted)):
        raise _wrong("--processes", wanted, f"{started}, as torchrun started" if started else "at least 1")
    if options.objective == "mae":
        if (wanted or started) > 1:
            raise _wrong("--processes with --objective mae", wanted or started, "1")
        return _pretrain(study, options)
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
    from ..evaluation import PROTOCOLS, summary

    for name, value in given(options, "data", "mask_ratio", "out").items():
        raise _wrong(f"--{name.replace('_', '-')}", repr(value), "nothing, unless with --objective mae")
    named = ("au_ratio", "strategy", "weights", "reading", "au_source", "fold", "seed", "recipe", "variant")
    start = "weights" if options.initial_weights else options.initialisation
    cell = study.cell(options.model or "m3dfel", options.dataset, initialisation=start, **given(options, *named))
    if options.landmarks and not cell.uses_landmarks:
        raise _wrong("--landmarks", repr(options.landmarks), f"nothing for {cell.model}: it looks at no landmarks")
    study.landmark_source = options.landmarks
    cell = replace(cell, **given(options, "epochs", "accumulate", "evaluate_every", "validation"))
    (record,) = study.run([cell], initial_weights=options.initial_weights or "")
    print(f"{cell.label}: WAR and UAR, 95 % intervals")
    for protocol in PROTOCOLS:
        if protocol != "best-on-validation" or cell.validation:
            result = summary(record, protocol)
            print(f"  {protocol}, epoch {result.epochs[0]}: {result.war}, {result.uar}")
    costs = record.costs
    gpu = f", {costs['peak_gpu_memory_mb']:.0f} MB of the GPU" if study.device == "cuda" else ""
    waiting = f"{costs['bound']}-bound ({100 * costs['input_share']:.0f} % of the time waiting for clips)"
    print(f"{costs['clips_per_second']:.3g} clips/s, {waiting}, {costs['peak_memory_mb']:.0f} MB{gpu}")
    print(f"record: {record.path}")


def _pretrain(study, options) -> None:
    from ..training.pretraining import pretrain

    if options.model not in ("", "mae_dfer"):
        raise _wrong("--model with --objective mae", repr(options.model), "mae_dfer")
    chosen = given(options, "epochs", "mask_ratio", "seed")
    if options.out:
        out, start = Path(options.out), f"--initial-weights {options.out}"
        pretrain(replace(study.pretraining, **chosen), options.data or study.pretraining_stores(), out)
    elif options.data or chosen:
        expected = "a .safetensors file to write: the profile's own is made from its own clips and settings"
        raise _wrong("--out", "nothing", expected)
    else:
        out, start = study.pretrained_weights, "--initialisation mae"
    last = json.loads(out.with_suffix(".json").read_text())["history"][-1]
    errors = f"of appearance {last['loss_appearance']:.3f}, of motion {last['loss_motion']:.3f}"
    print(f"{out}: after epoch {last['epoch']}, mean squared error {errors}")
    print(f"next: audfer train --model mae_dfer {start}")
