"""Files that are whole or not there: atomic writes, digests, locks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from .errors import AudferError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAYS_NO_ROOM = re.compile(r"os error (28|122|27)\b|No space left on device|PytorchStreamWriter failed writing")


class DiskFull(AudferError):
    """There is no room for a file."""


@contextmanager
def atomic_file(path: str | os.PathLike):
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any failure.

    A reader sees the old file or the new one, never half of one. A full disk is reported as a sentence.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except Exception as error:
        _raise_disk_error(path, error)
    finally:
        Path(name).unlink(missing_ok=True)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        replace_folder(temporary, path, [entry.name for entry in path.iterdir()] if (path / stamp).is_file() else ())
    except Exception as error:
        _raise_disk_error(path, error)
    finally:
        remove_tree(temporary, path.parent)


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
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


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
    """Hold ``folder`` for this process, or refuse with a sentence if another process holds it; ``how`` another is
    chosen.
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
    try:
        yield
    finally:
        lock.release()
