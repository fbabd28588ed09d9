"""Datasets as users have them on disk: one reader each, one manifest for all, packing, and the choice of frames."""

from __future__ import annotations

from .annotated import annotated_labels, annotated_landmarks, load_annotated_frames, read_annotated
from .check import DatasetCheck, check_dataset
from .common import dataset_name, read_dataset
from .manifest import Manifest, frame_numbers, list_frames, load_frames
from .packing import PackedClips, open_packed, pack
from .registry import DATASETS, Annotation, Dataset, Finding, annotated_datasets, clip_datasets

__all__ = [
    "DATASETS",
    "Annotation",
    "Dataset",
    "DatasetCheck",
    "Finding",
    "Manifest",
    "PackedClips",
    "annotated_datasets",
    "annotated_labels",
    "annotated_landmarks",
    "check_dataset",
    "clip_datasets",
    "dataset_name",
    "frame_numbers",
    "list_frames",
    "load_annotated_frames",
    "load_frames",
    "open_packed",
    "pack",
    "read_annotated",
    "read_dataset",
]
