"""Files that are whole or not there: atomic writes, digests, locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import lzma
import math
import os
import pickle
import re
import shutil
import stat
import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import AudferError, InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAYS_NO_ROOM = re.compile(
    r"os error (28|122|27)\b|No space left on device|PytorchStreamWriter failed writing"
    # torch's writer notices a full disk only where the file is shorter than what it has written
    r"|enforce fail at inline_container\.cc:\d+\] \. unexpected pos"
)
#: what a process is writing: the name it will have, eight characters, an ending
_UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}(\.\w+)?")
#: what a spreadsheet takes for a formula, and what has been kept from being taken for one
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
#: what readers of JSON, weights, NumPy's arrays and zip files raise where the bytes are not those that were written
UNREADABLE = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError, MemoryError),
    *(RuntimeError, SyntaxError, tokenize.TokenError, struct.error),  # nesting without end, passwords; array headers
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, SafetensorError, pickle.UnpicklingError),
)
#: descriptors of the locks that this process holds; its children keep them, so that none is free while they write
held_locks: set[int] = set()


class DiskFull(AudferError):
    """There is no room for a file."""


@contextmanager
def atomic_file(path: str | os.PathLike):
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any failure.

    A reader sees the old file or the new one, never half of one. A full disk is reported as a sentence.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path, lambda folder, prefix: _new_file(folder, prefix, path.suffix)) as temporary:
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except Exception as error:
            _raise_disk_error(path, error)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike, stamp: str = ""):
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, on any failure it is removed.

    Args:
        stamp: name of the file by which an older folder of ours is known; "" = by holding nothing that the new one has
            not.

    Raises:
        AudferError: ``path`` holds somebody else's files, so that replacing it would lose them.
    """
    path = Path(path)
    if stamp and not (path / stamp).is_file():
        require_replaceable(path, ())
    with scratch_folder(path) as temporary:
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            ours = [entry.name for entry in path.iterdir()] if (path / stamp).is_file() else ()
            replace_folder(temporary, path, ours)
        except Exception as error:
            _raise_disk_error(path, error)


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder beside ``path`` that only this user may enter and that is gone after the block; those that killed
    processes left there go first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path, lambda folder, prefix: tempfile.mkdtemp(dir=folder, prefix=prefix)) as temporary:
        try:
            yield temporary
        finally:
            remove_tree(temporary, path.parent)


@contextmanager
def _unfinished(path: Path, make: Callable[[Path, str], str]) -> Iterator[Path]:
    """A new temporary file or folder beside ``path``, held by a lock that goes with this process, however it ends.

    What is not held there under such a name was left by a process that is dead, and is removed first.
    """
    for left in _left_beside(path.parent).pop(path.name, ()):
        if (handle := _hold(left)) is not None:
            if left.is_dir():
                remove_tree(left, left.parent)
            else:
                left.unlink(missing_ok=True)
            os.close(handle)
    while True:
        try:
            temporary = Path(make(path.parent, f".{path.name}."))
        except OSError as error:
            _raise_disk_error(path, error)
        handle = _hold(temporary, -1)
        if handle is not None and temporary.exists():  # not swept by another process before it was held
            break
    try:
        yield temporary
    finally:
        if handle >= 0:
            os.close(handle)


def _new_file(folder: Path, prefix: str, suffix: str) -> str:
    handle, name = tempfile.mkstemp(suffix, prefix, folder)
    os.close(handle)
    return name


@lru_cache(maxsize=1024)
def _left_beside(folder: Path) -> dict[str, list[Path]]:
    """Name -> what was unfinished of it when this process first wrote into the folder."""
    left: dict[str, list[Path]] = {}
    for name in os.listdir(folder):
        if match := _UNFINISHED.fullmatch(name):
            left.setdefault(match[1], []).append(folder / name)
    return left


def _hold(path: Path, otherwise: int | None = None) -> int | None:
    """A descriptor that locks a file or folder, ``None`` if another process holds it; ``otherwise`` where the file
    system has no such locks or the path is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return otherwise
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        return None if isinstance(error, BlockingIOError) else otherwise
    return handle


def new_array(path: str | os.PathLike, shape: tuple[int, ...], dtype) -> np.memmap:
    """A .npy file of zeros, mapped into memory, of which every byte has its place on the disk.

    Writing to a map of a file without room kills the process, without a word (SIGBUS); this fails before.

    Raises:
        DiskFull: there is no room.
    """
    path = Path(path)
    try:
        if math.prod(shape) * np.dtype(dtype).itemsize > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, "")  # before anything is taken
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
            else:  # macOS
                file.seek(array.offset)
                for start in range(0, array.nbytes, 1 << 24):
                    file.write(bytes(min(1 << 24, array.nbytes - start)))
    except OSError as error:
        path.unlink(missing_ok=True)
        _raise_disk_error(path, error)
    return array


def replace_folder(new: Path, path: Path, names: Collection[str] = ()) -> None:
    """Put the finished folder ``new`` in the place of ``path``, which stays whole until the last moment.

    Args:
        names: further file names that an older version of the folder may hold.

    Raises:
        AudferError: ``path`` is a file, or holds files that are not of our making.
    """
    require_replaceable(path, {*names, *(entry.name for entry in new.iterdir())})
    older = new.with_name(f"{new.name}.older")
    if path.exists():
        os.replace(path, older)
    os.replace(new, path)
    remove_tree(older, older.parent)


def require_replaceable(path: Path, names: Collection[str]) -> None:
    """Refuse to replace a folder that holds anything but ``names``: it is somebody's, not ours.

    Raises:
        AudferError: ``path`` is a file or a link, or holds something else.
    """
    if path.is_symlink() or path.is_file():
        raise AudferError(
            f"{path}: a {'link' if path.is_symlink() else 'file'}, where a new or empty folder is expected; "
            "nothing was deleted"
        )
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in names) if path.is_dir() else []
    if others:
        raise AudferError(
            f"{path}: holds {others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''}, which this command "
            "did not write; nothing was deleted: name a new or empty folder"
        )


def remove_tree(path: str | os.PathLike, inside: str | os.PathLike) -> None:
    """Delete the folder ``path``, the one way in which this package deletes folders; no folder there is fine.

    Args:
        inside: the folder that the caller works in. A link is removed, never what it leads to.

    Raises:
        AudferError: ``path`` is not strictly inside ``inside``.
    """
    path = Path(path)
    place, root = path.parent.resolve() / path.name, Path(inside).resolve()
    if path.name in ("", "..") or root not in place.parents:
        raise AudferError(f"{path}: is not inside {root}, so it is not ours to delete")
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def files_below(folder: str | os.PathLike) -> Iterator[Path]:
    """Every file below a folder, links that lead nowhere too. Linked folders are entered, each folder once."""
    waiting, seen = [Path(folder)], set()
    while waiting:  # links last, so that a file is named by where it really lies if that is below the folder, too
        for place, folders, names in os.walk(waiting.pop(0)):
            state = os.stat(place)
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders.sort()
            waiting += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            yield from (Path(place, name) for name in sorted(names))


def require_plain(path: str | os.PathLike) -> None:
    """Refuse what is there and no plain file, before it is opened: reading a pipe may wait for ever.

    Raises:
        OSError: a pipe, socket or device; or nothing is there.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a plain file but a folder, pipe or device", os.fspath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def disk_error(path: Path, error: Exception) -> Exception:
    """The sentence (``DiskFull``) for a full disk, quota or file-size limit; any other error as it is."""
    # torch and safetensors write by themselves, and say so in errors of their own
    if not (error.errno in _NO_ROOM if isinstance(error, OSError) else _SAYS_NO_ROOM.search(str(error))):
        return error
    limited = getattr(error, "errno", 0) == errno.EFBIG or "os error 27" in str(error)
    free = shutil.disk_usage(path.parent).free / 1e6
    return DiskFull(
        f"{path}: {'a file may not be that large here' if limited else 'the disk is full'} ({free:.0f} MB free in "
        f"{path.parent}); nothing was half-written: free some space and run the same command again"
    )


def _raise_disk_error(path: Path, error: Exception) -> NoReturn:
    found = disk_error(path, error)
    if found is error:
        raise error
    raise found from error


def checkout() -> Path | None:
    """The repository that holds ``notebooks/``, around the package or else around the current folder; or ``None``."""
    around = (Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents)
    return next((x for x in around if (x / "notebooks").is_dir() and (x / "pyproject.toml").is_file()), None)


def write_json(path: str | os.PathLike, content) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """The object that a JSON file holds; {} where nothing whole is there, or something else."""
    try:
        return read_sealed(path)
    except UNREADABLE:
        return {}


def write_sealed(path: str | os.PathLike, content: dict) -> None:
    """Write an object as ``write_json`` does, its field "digest" a digest of the others."""
    content = json.loads(json.dumps({name: value for name, value in content.items() if name != "digest"}))
    write_json(path, {**content, "digest": digest(content, 64)})


def read_sealed(path: str | os.PathLike, formats: range | None = None, expected: str = "") -> dict:
    """What ``write_sealed`` wrote, without its digest; files from before there was one have none.

    Args:
        formats: that its field "format" may have; looked at first, since others may be sealed in another way.
        expected: what to say of them.

    Raises:
        InputError: another format. Any of ``UNREADABLE``: no such file, no object, or not what was written.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{Path(path).name} holds no JSON object")
    if formats and (number := content.get("format", formats.start)) not in formats:
        raise InputError(path, "format", number, expected)
    if content.pop("digest", None) not in (None, digest(content, 64)):
        raise ValueError(f"{Path(path).name} is not what was written")
    return content


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def for_spreadsheets(frame):
    """A table of which no text is a formula to a spreadsheet: one that begins like one gets an apostrophe before it."""
    return frame.map(lambda value: f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value)


def from_spreadsheets(frame):
    """A table as it was before ``for_spreadsheets``."""
    return frame.map(lambda value: value[1:] if isinstance(value, str) and _FORMULA.match(value) else value)


def read_csv(path: str | os.PathLike, **options):
    """A table of cells separated by commas, read by pandas; the one way in which this package reads one of its own or
    of a user's.

    In rows with more cells than the header pandas takes the first ones for an index, and every other for its
    neighbour's column. Here they are an error, unless what is too much is empty: spreadsheets leave that.

    Args:
        options: of ``pandas.read_csv``.

    Raises:
        InputError: not such a table. OSError: no such file, or not to be read.
    """
    import pandas as pd

    expected = "a comma-separated table, with no more cells in a row than in the header"
    require_plain(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, index_col=False, compression=None, **options)
    except pd.errors.ParserWarning:
        raise InputError(path, "rows", "more cells than in the header", expected) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(path, "file", str(error).splitlines()[0], expected) from error


def readable(path: str | os.PathLike) -> bool:
    """Whether there is a whole .npy or .npz file of ours."""
    try:
        arrays = np.load(path, mmap_mode="r")
        for _ in arrays.values() if hasattr(arrays, "values") else ():
            pass
    except UNREADABLE:
        return False
    return True


def digest(content, length: int = 16) -> str:
    """Hexadecimal digest of any JSON-serialisable content; equal content gives the same digest on every machine."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: str | os.PathLike, length: int = 16) -> str:
    """Hexadecimal digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


@contextmanager
def locked(folder: str | os.PathLike, purpose: str = "run store", how: str = "with AUDFER_WORK"):
    """Hold ``folder`` for this process and the children that it starts meanwhile, or refuse with a sentence if another
    process holds it; ``how`` another is chosen.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(folder / ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise AudferError(
            f"{folder}: another process is using this {purpose} (lock file {folder / '.lock'}); "
            f"wait until it has ended, or choose another folder {how}"
        ) from None
    handle = os.dup(lock._context.lock_file_fd)  # filelock closes its own in forked children
    held_locks.add(handle)
    try:
        yield
    finally:
        held_locks.discard(handle)
        os.close(handle)
        lock.release()
