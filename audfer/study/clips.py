"""Clips of a study: rendered or on disk, read by their dataset's reader, packed. Methods of ``Study``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from .. import data_folder, datasets, synth
from ..datasets import Manifest, PackedClips
from ..datasets.alignment import track_file
from ..datasets.manifest import is_video
from ..datasets.packing import made, rows_digest
from ..errors import InputError
from ..files import atomic_file, atomic_folder, digest, write_sealed
from ..synth.layouts import TRUTH
from .steps import borrow, link


def data_root(study) -> Path:
    """Folder with one folder per dataset; renders the embedded benchmark first if it is not there."""
    if study.profile.embedded:
        root = study.work / "data"
        for name in ("DISFA", *study.dataset_names):
            _take_over(root, name, study.synth_config)
        synth.write_benchmark(root, study.synth_config, ("DISFA", *study.dataset_names), device=study.device)
        return root
    root = data_folder()
    if not root or not Path(root).is_dir():
        expected = "an existing folder that holds DFEW, FERV39k, ... (README, section Real data)"
        raise InputError("AUDFER_DATA", "folder of the real datasets", repr(root), expected)
    return Path(root).resolve()


def _take_over(root: Path, name: str, config: synth.SynthConfig) -> None:
    """Take a rendered dataset from another profile that has the same one, with the truth that lies beside it."""
    other = borrow(root / name, lambda folder: synth.is_written(folder.parent, name, config), synth.STAMP)
    for path in (other.parent / TRUTH).glob(f"{name}[._]*") if other else ():
        (root / TRUTH).mkdir(exist_ok=True)
        with atomic_file(root / TRUTH / path.name) as temporary:
            temporary.unlink()
            link(path, temporary)


def dataset_names(study) -> tuple[str, ...]:
    """All datasets of the profile: those that networks are judged on and those that the knowledge comes from."""
    return tuple(dict.fromkeys((*study.profile.grid.datasets, *study.profile.grid.knowledge_datasets)))


def synth_config(study) -> synth.SynthConfig:
    """What the embedded benchmark of this profile consists of."""
    data = study.profile.data
    same = ("seed", "test_frames", "ravdess_actors", "affwild2_videos", "affwild2_frames", "disfa_subjects")
    return synth.SynthConfig(
        image_size=data.render_size,
        frames=data.clip_frames,
        minimum=data.minimum_clips,
        counts={name: {"train": count, "test": data.test_clips[name]} for name, count in data.train_clips.items()},
        **{name: getattr(data, name) for name in (*same, "disfa_frames")},
    )


def folds(study, name: str) -> tuple[int, ...]:
    """The profile's folds of a dataset; (1,) where the dataset has one split."""
    return study.profile.grid.folds if datasets.DATASETS[name].folds > 1 else (1,)


def manifest(study, name: str, fold: int = 0) -> Manifest:
    """All clips of a dataset that carry one of the seven expressions, as its reader finds them on disk.

    Args:
        fold: 0 = the profile's first.
    """

    def read() -> Manifest:
        every = datasets.read_dataset(name, study.data_root / name, fold)
        return replace(every, table=every.table[every.table["expression"] >= 0])

    fold = fold or study.folds(name)[0]
    return study.once(("manifest", name, fold), read)


def packed(study, name: str, fold: int = 0) -> PackedClips:
    """A dataset's clips as one memory-mapped array, made on first use.

    The folds of a dataset hold the same clips, so only the first fold's are read; the others share its frames.

    Args:
        fold: 0 = the profile's first.
    """
    clips, folder, training = study.manifest(name, fold), study.packed_folder(name, fold), study.profile.training
    first = study.packed_folder(name)
    if folder != first:
        base, rows = study.packed(name), clips.table.set_index("clip_id")
        if set(rows.index) == set(base.clip_ids) | set(base.quarantine["clip_id"]):
            fingerprint = digest([base.meta["fingerprint"], clips.fingerprint()])
            meta = {**base.meta, "fold": fold, "notes": list(clips.notes), "fingerprint": fingerprint}
            table = rows.loc[base.clip_ids].reset_index()[list(base.manifest)]
            meta["rows"] = rows_digest(table, base.frame_numbers)
            if not made(folder, meta):
                with atomic_folder(folder) as temporary:
                    for file in ("frames.npy", "frame_numbers.npy"):
                        (temporary / file).symlink_to(Path("..") / first.name / file)
                    table.to_parquet(temporary / "manifest.parquet")
                    write_sealed(temporary / "meta.json", meta)
            return datasets.open_packed(folder)
    size = {"num_frames": training.stored_frames, "size": training.image_size}
    wanted = {"fingerprint": clips.fingerprint(), **size}
    borrow(folder, lambda other: made(other, wanted) is not None, "meta.json")
    return datasets.pack(clips, folder, **size, align=None if study.profile.embedded else _tracks(study, name, clips))


def _tracks(study, name: str, clips: Manifest) -> Path | None:
    """The CSVs that cut the faces out of raw videos, where the data folder has them with landmarks; else that is said.

    Clips that are folders of pictures are faces already, as the releases give them.
    """
    folder, rows = study.data_root / "openface" / name, clips.table
    videos = rows[[is_video(path) for path in rows["path"]]]
    if videos.empty:
        return None
    file = next(filter(None, (track_file(folder, clip) for clip in videos["clip_id"])), None)
    if file is not None and "x_67" in file.open(errors="replace").readline():
        return folder
    print(
        f"{name}: whole pictures, no faces: its clips are raw videos and {folder} has no CSVs with landmarks "
        "(audfer data landmarks makes some)",
        file=sys.stderr,
    )
    return None


def packed_folder(study, name: str, fold: int = 0) -> Path:
    """Where ``packed`` puts a dataset's clips."""
    return study.work / "packed" / (name if fold in (0, study.folds(name)[0]) else f"{name}-fold{fold}")
