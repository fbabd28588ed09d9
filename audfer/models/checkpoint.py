"""Checkpoint files of anybody: opened without running code from them, and the weights found inside.

A ``torch.save`` file is a pickle, and a pickle may name any function and have it called. Files are therefore opened
with ``weights_only=True``: torch's reader makes tensors and plain values only. The released checkpoints also hold
objects of their training scripts (Former-DFER a recorder, M3DFEL and MAE-DFER their options), which that reader
refuses. Classes known to be plain data are replaced by inert stand-ins while reading: nothing that the file names is
imported, called or kept.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import AudferError, InputError
from ..files import UNREADABLE, require_plain

#: top-level entries under which the releases keep their weights, tried in this order
CONTAINERS = ("state_dict", "model", "module", "model_state_dict")
#: entries of the exponential moving average of the weights (timm, the MAE family, torch.optim.swa_utils)
EMA_CONTAINERS = ("model_ema", "ema", "state_dict_ema", "ema_state_dict")
#: wrappers that put their name in front of every key: data-parallel training and torch.compile
PREFIXES = ("module.", "_orig_mod.")

# how files begin that stand in a checkpoint's place: what it is, and how to get the file itself
_STAND_INS = {
    b"version http": ("a Git LFS pointer instead of the file", "the file itself: git lfs pull"),
    b"/annex/objec": ("a git-annex pointer instead of the file", "the file itself: git annex get"),
    b"<!doctype ht": ("a web page instead of the file", "the file itself: download it again"),
}

# objects that training scripts save beside the weights. NumPy's are stand-ins too, not rebuilt: nobody needs a
# recorder's curve
_PLAIN_DATA = {
    "argparse.Namespace",
    "types.SimpleNamespace",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"pathlib{local}.{name}" for local in ("", "._local") for name in ("PosixPath", "WindowsPath")),
}


class Unopened:
    """Stands for an object of a checkpoint that was not opened.

    Takes any arguments and any state, and keeps nothing.
    """

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state) -> None:
        pass

    def __repr__(self) -> str:
        module = type(self).__module__
        return (
            "a NumPy value, not opened"
            if module.startswith("numpy")
            else f"{module}.{type(self).__qualname__}, not opened"
        )


def read_checkpoint(path: str | os.PathLike, *, mmap: bool = False) -> dict:
    """Open a checkpoint without running any code from it (``weights_only=True``); safetensors files too.

    Args:
        path: written by ``torch.save`` (the zip format since torch 1.6 or the one before it) or by safetensors.
        mmap: leave tensors on the disk until they are used, for a look at a large file. Do not write to the file
            meanwhile.

    Returns:
        What the file holds, tensors on the CPU. Objects of the training script's own classes, option namespaces, NumPy
        values and paths are :class:`Unopened` stand-ins.

    Raises:
        InputError: not a checkpoint, a damaged one, or one that can only be opened by running code.
    """
    path = Path(path)
    try:
        require_plain(path)
        with open(path, "rb") as stream:
            start = stream.read(12)
    except OSError as error:
        raise InputError(path, "checkpoint", error.strerror.lower(), "a .pth, .pt or .safetensors file") from error
    if start.lower() in _STAND_INS:
        raise InputError(path, "checkpoint", *_STAND_INS[start.lower()])
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except UNREADABLE as error:
            raise InputError(path, "checkpoint", _first_line(error), "a whole safetensors file") from error
    try:
        zipped = zipfile.is_zipfile(path)
        foreign = _other_format(path, zipped, start)
        spoilt = "" if mmap or foreign or not zipped else _spoilt(path)
    except UNREADABLE as error:
        raise InputError(path, "checkpoint", f"damage ({_first_line(error)})", "a whole file of torch.save") from error
    if spoilt:
        raise InputError(path, "checkpoint", f"{spoilt} with another checksum", "a whole file of torch.save")
    if foreign:
        raise InputError(path, "checkpoint", foreign, "a file of torch.save (or of safetensors, and so named)")
    try:
        with torch.serialization.safe_globals([_stand_in(*name) for name in _plain_data_of(path, zipped)]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.<>]+)", str(error))
        reason = _first_line(str(error).rpartition("WeightsUnpickler error: ")[2])
        raise InputError(
            path,
            "checkpoint",
            f"the object {named[1]}" if named else f"a pickle that the safe reader does not follow ({reason})",
            "a file of torch.save with tensors and plain values only: opening anything "
            "else would mean running code from the file (save its state_dict alone where that package is)",
        ) from error
    except Exception as error:  # a damaged pickle can fail anywhere in the reader, with any type of error
        raise InputError(path, "checkpoint", f"damage ({_first_line(error)})", "a whole file of torch.save") from error
    if not isinstance(content, dict):
        raise InputError(
            path, "checkpoint", f"one object ({type(content).__name__})", "a dictionary: save model.state_dict()"
        )
    return content


def _other_format(path: Path, zipped: bool, start: bytes) -> str:
    """What a file is that ``torch.load`` need not be asked about; "" for a pickle, bare or in a zip archive."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
        if any(entry.endswith("/constants.pkl") for entry in entries):
            return "a TorchScript program"
        return "" if any(entry.endswith("/data.pkl") for entry in entries) else "another zip archive"
    if tarfile.is_tarfile(path):
        return "a tar archive (of torch before 0.4, perhaps)"
    if start.startswith(b"PK"):
        return "a zip archive without its end (a download that broke off, perhaps)"
    return "" if start.startswith(b"\x80") else f"something that begins with {start!r}" if start else "an empty file"


def _spoilt(path: Path) -> str:
    """An entry of the zip archive that is not what was written, which torch does not notice; "" if there is none.

    Where every checksum is wrong nobody has made any (``torch.serialization.set_crc32_options``).
    """

    def wrong(archive: zipfile.ZipFile, entry: str) -> bool:
        try:
            with archive.open(entry) as stream:
                while stream.read(1 << 20):
                    pass
        except UNREADABLE:
            return True
        return False

    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        found = [entry for entry in entries if wrong(archive, entry)]
    return found[0] if 0 < len(found) < len(entries) else ""


def _plain_data_of(path: Path, zipped: bool) -> set[tuple[str, str]]:
    """(module, name) of the plain-data classes that the file's pickles name, read off without executing them.

    This only decides which stand-ins torch's reader is given; what it refuses it refuses whatever is found here.
    """
    names: set[tuple[str, str]] = set()

    def look(stream) -> None:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.add(tuple(argument.split(" ", 1)))

    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if entry.endswith("/data.pkl"):
                        look(archive.open(entry))
        else:
            with open(path, "rb") as stream:
                for _ in range(4):  # the format before 1.6: magic number, version, machine and then the content
                    look(stream)
    except Exception:  # not a pickle: torch.load then says so
        pass
    return {(module, name) for module, name in names if module == "__main__" or f"{module}.{name}" in _PLAIN_DATA}


def _stand_in(module: str, name: str) -> type:
    return type(name, (Unopened,), {"__slots__": (), "__module__": module, "__qualname__": name})


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass
class Weights:
    """The weights inside a checkpoint, under their networks' own names.

    Attributes:
        tensors: key -> tensor, without wrappers' prefixes.
        container: entry of the file that they were under; "" for a bare dictionary.
        prefix: what was taken off every key, for example "module."; "" where nothing was.
        ema: entry with an exponential moving average of the weights; "" where there is none.
        others: entries beside the weights -> what they are, in a few words.
    """

    tensors: dict[str, Tensor]
    container: str = ""
    prefix: str = ""
    ema: str = ""
    others: dict[str, str] = field(default_factory=dict)


def find_weights(content: dict, which: str = "model") -> Weights:
    """The weights inside what :func:`read_checkpoint` gave.

    Args:
        content: tensors, bare or under one of ``CONTAINERS`` or ``EMA_CONTAINERS``.
        which: "model", or "ema" for the moving average that some training scripts save beside it.

    Raises:
        AudferError: no weights, or not the kind asked for.
    """
    if which not in ("model", "ema"):
        raise AudferError(f"unknown weights {which!r}, expected model or ema")
    ema = next((name for name in EMA_CONTAINERS if _weights_of(content.get(name))), "")
    container = next((name for name in CONTAINERS if _weights_of(content.get(name))), "")
    bare = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if which == "ema" and not ema:
        raise AudferError(
            f"no moving average of the weights found, expected it under one of {', '.join(EMA_CONTAINERS)}"
        )
    if which == "model" and not container and ema:
        raise AudferError(f'only a moving average of the weights found, under {ema!r}: which="ema" takes it')
    chosen = ema if which == "ema" else container
    tensors = _weights_of(content[chosen]) if chosen else bare
    if not tensors:
        raise AudferError(
            f"no weights found: expected a dictionary of tensors, bare or under one of {', '.join(CONTAINERS)}, "
            f"found the entries {some(list(map(_name, content))) or '(none)'}"
        )
    wrong = [key for key, value in tensors.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if wrong:
        raise AudferError(
            f"not only tensors among the weights: {some([f'{_name(key)} ({describe(tensors[key])})' for key in wrong])}"
        )

    others = {
        _name(key): describe(value) for key, value in content.items() if key != chosen and (chosen or key not in bare)
    }
    if "n_averaged" in tensors:  # torch.optim.swa_utils.AveragedModel counts its updates in its state
        tensors = dict(tensors)
        others["n_averaged"] = describe(tensors.pop("n_averaged"))
    prefix = ""
    while wrapper := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(wrapper): value for key, value in tensors.items()}
        prefix += wrapper
    return Weights(dict(tensors), chosen, prefix, ema, others)


def _weights_of(value) -> dict | None:
    """The innermost dictionary with tensors, behind one container or several; ``None`` if there is none."""
    waiting, seen = [value], set()
    while waiting:  # a file may nest them without end, and hold one many times, or itself
        inner = waiting.pop()
        if isinstance(inner, dict) and id(inner) not in seen:
            seen.add(id(inner))
            if any(isinstance(entry, Tensor) for entry in inner.values()):
                return inner
            waiting += [inner.get(name) for name in reversed(CONTAINERS)]
    return None


def _name(key: object) -> str:
    return key if isinstance(key, str) else describe(key)


def describe(value) -> str:
    """An entry of a checkpoint in a few words."""
    if isinstance(value, Tensor):
        return f"{value.item():.6g}" if value.numel() == 1 else f"tensor {tuple(value.shape)}"
    if isinstance(value, dict | list | tuple | set):
        return f"{len(value)} entries" if len(value) != 1 else "1 entry"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def some(names: list[str], limit: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def counted(groups: dict[str, list[str]]) -> list[str]:
    """What the list of names of each title holds, "3 missing: a, b, c"; nothing for an empty one."""
    return [f"{len(names)} {title}: {some(names)}" for title, names in groups.items() if names]
