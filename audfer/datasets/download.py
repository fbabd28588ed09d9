"""The open data: RAVDESS and its OpenFace tracking, downloaded from Zenodo and laid out as the readers expect.

Zenodo's REST API lists a record (``/api/records/ID``): licence, and every file with name, size and checksum. Nothing is
taken on trust but that listing: a download is whole when it has the listed size and checksum, and an archive is opened
only then. What is downloaded goes to ``ROOT/.fetch`` and is taken up again after a break; files reach their place one
by one, each whole or not there; a receipt of what was unpacked makes a second run do nothing.

Written against Zenodo's documented listing and tested on loopback; the live server could not be reached from where
this was written.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import quote

import requests

from .. import __version__
from ..errors import AudferError, InputError
from ..files import atomic_folder, locked, remove_tree, write_json
from ..progress import progress
from .ravdess import parse_name

ZENODO = "https://zenodo.org"
#: seconds before the second, third, ... attempt; counted anew whenever an attempt brought something
WAITS: tuple[float, ...] = (1, 2, 4, 8, 16)
#: seconds to wait for a connection, and for the next bytes
TIMEOUT = (15, 60)
#: an archive that says it unpacks to more than this many times its own size is refused (a CSV of 714 columns: 3.7)
MOST_TIMES = 50
#: bytes read at once; a chunk that the connection breaks in is lost, so it is small
_CHUNK = 1 << 14
_MEGABYTE = 1_000_000

CAUTION = (
    "RAVDESS is CC BY-NC-SA 4.0 (Livingstone and Russo 2018, PLoS ONE 13(5):\n"
    "e0196391): name the source, no commercial use without a licence of its authors,\n"
    "the same licence for what is made from it. The tracking is made from it: look\n"
    "at its record before you pass on even one CSV."
)


@dataclass(frozen=True)
class Source:
    """One Zenodo record and what is wanted of it.

    Attributes:
        record: number of the record.
        archives: pattern of the names of the archives wanted; ``{channel}`` is Speech or Song where they are apart.
        suffix: ending of the wanted files in them.
        folder: where one trial's file goes, below the root; ``{actor}`` is its actor, two digits.
    """

    record: int
    archives: str
    suffix: str
    folder: str


SOURCES: dict[str, Source] = {
    "tracking": Source(3255102, r"FacialTracking[\w-]*\.zip", ".csv", "openface/RAVDESS"),
    "videos": Source(1188976, r"Video_{channel}_Actor_\d\d\.zip", ".mp4", "RAVDESS/Actor_{actor}"),
}


@dataclass(frozen=True)
class RemoteFile:
    """A file as the record lists it: ``checksum`` is the algorithm and the hexadecimal digest, ``md5:...``."""

    key: str
    size: int
    checksum: str
    url: str


@dataclass(frozen=True)
class Record:
    """A Zenodo record's listing; ``licence`` is "" where it names none."""

    number: int
    title: str
    licence: str
    page: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Plan:
    """What a fetch would do, and what is there already.

    Attributes:
        root: target folder.
        wanted: (what, its record, the archives of it) in order.
        done: keys of the archives whose files are all there.
        song: whether song trials are taken beside speech.
    """

    root: Path
    wanted: tuple[tuple[str, Record, tuple[RemoteFile, ...]], ...]
    done: frozenset[str]
    song: bool = False

    @property
    def missing(self) -> list[tuple[str, RemoteFile]]:
        """(what, archive) still to be fetched, in order."""
        return [(what, file) for what, _, files in self.wanted for file in files if file.key not in self.done]

    def describe(self) -> str:
        """Size, licence and target folder, to read before anything is downloaded; at most 80 columns."""
        lines = []
        for what, record, files in self.wanted:
            here = [file for file in files if file.key not in self.done]
            lines += [
                f"{what}: {record.title}"[:79],
                f"  {record.page}",
                f"  licence: {record.licence or 'none named in the listing'}",
                f"  {len(files)} archive{'s' * (len(files) > 1)}, {_size(sum(file.size for file in files))}; to "
                f"download: "
                f"{_size(sum(_left(self.root, file) for file in here)) if here else 'nothing, all is there'}",
            ]
        return "\n".join([*lines, f"into {self.root}", "", CAUTION])


# ---------------------------------------------------------------------------------------------------------- listing


def plan(
    what: str, root: str | os.PathLike, *, song: bool = False, base_url: str = ZENODO, waits: tuple[float, ...] = WAITS
) -> Plan:
    """Read the records' listings and compare them with what is in ``root``; nothing is written.

    Args:
        what: "tracking" (OpenFace's CSVs), "videos", or "all".
        root: folder that holds (or will hold) ``RAVDESS/`` and ``openface/``, as ``AUDFER_DATA`` does.
        song: take the song trials too (six expressions only; speech has all).
        base_url: another server that answers like Zenodo, for mirrors and tests. Links to zenodo.org in its listings
            are taken to be below it.
        waits: seconds between attempts.

    Raises:
        InputError: unknown ``what``, or a listing that is not Zenodo's or lacks the archives.
        AudferError: the server cannot be reached or answers with an error.
    """
    if what not in (*SOURCES, "all"):
        raise InputError("fetch", "what", repr(what), f"one of {', '.join(SOURCES)} or all")
    root = Path(root).resolve()
    if root.exists() and not root.is_dir():
        raise InputError(root, "--root", "a file", "a folder, or a name for a new one")
    wanted = []
    for name in SOURCES if what == "all" else (what,):
        record = read_record(SOURCES[name].record, base_url, waits)
        wanted.append((name, record, _archives(record, SOURCES[name], song)))
    done = frozenset(file.key for _, _, files in wanted for file in files if _is_unpacked(root, file, song))
    return Plan(root, tuple(wanted), done, song)


def read_record(number: int, base_url: str = ZENODO, waits: tuple[float, ...] = WAITS) -> Record:
    """A record's listing from ``base_url/api/records/number``.

    Raises:
        InputError: the answer is not a listing of files with names, sizes and checksums.
        AudferError: no answer, or an error.
    """
    base = base_url.rstrip("/")
    url = f"{base}/api/records/{number}"
    try:
        content = _attempts(
            lambda: _listing(url), waits, url, "is this machine on the internet? nothing was downloaded"
        )
        metadata = content.get("metadata", {})
        licence = metadata.get("license") or {}
        files = tuple(
            RemoteFile(str(f["key"]), int(f["size"]), str(f["checksum"]), _link(f, number, base))
            for f in content["files"]
        )
        title = str(metadata.get("title") or content.get("title") or f"record {number}")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            url,
            "listing",
            f"{type(error).__name__}: {str(error)[:80]}",
            "Zenodo's JSON with key, size and checksum of every file",
        ) from error
    for file in files:
        if file.size < 0 or not re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})", file.checksum):
            raise InputError(
                url,
                f"checksum and size of {file.key!r}",
                f"{file.checksum!r}, {file.size}",
                "md5 or sha256 and its digits, and a size of 0 or more",
            )
    return Record(
        number,
        title,
        str(licence.get("id", "") if isinstance(licence, dict) else licence),
        f"{base}/records/{number}",
        files,
    )


def _listing(url: str):
    answer = _get(url)
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError:
        raise
    except requests.exceptions.RequestException as error:
        raise _Broken(f"no answer ({type(error).__name__})") from error


def _link(file: dict, number: int, base: str) -> str:
    link = str(
        file.get("links", {}).get("self") or f"{base}/api/records/{number}/files/{quote(str(file['key']))}/content"
    )
    if link.startswith(ZENODO + "/"):
        link = base + link[len(ZENODO) :]
    if not link.startswith(base + "/"):
        raise InputError(f"{base}/api/records/{number}", f"link of {file['key']!r}", link[:80], f"a link below {base}")
    return link


def _archives(record: Record, source: Source, song: bool) -> tuple[RemoteFile, ...]:
    pattern = re.compile(source.archives.replace("{channel}", "(Speech|Song)" if song else "Speech"))
    found = tuple(sorted((file for file in record.files if pattern.fullmatch(file.key)), key=lambda file: file.key))
    if not found:
        names = ", ".join(file.key for file in record.files[:5]) or "no files"
        raise InputError(record.page, "archives", names, f"names like {source.archives.replace('{channel}', 'Speech')}")
    return found


# ---------------------------------------------------------------------------------------------------------- fetching


def fetch(todo: Plan, *, waits: tuple[float, ...] = WAITS) -> dict[str, int]:
    """Download, verify and unpack what the plan misses.

    Layout: ``root/openface/RAVDESS/<trial>.csv`` and ``root/RAVDESS/Actor_NN/<trial>.mp4``. Of the videos the copy with
    sound (01) is kept: the pictures are the same and the tracking's CSVs carry its name. An archive is removed once it
    is unpacked.

    Returns:
        what -> number of files in place.

    Raises:
        AudferError: no room, no answer, a download that stays broken, or another process fetches into the same root.
        InputError: a wrong checksum or size, or an archive that would write outside its folder, says it is larger than
            it may be, or holds something else than RAVDESS.
    """
    stage = _stage(todo.root)
    try:
        stage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(stage, "--root", error.strerror or str(error), "a folder that can be written") from error
    with locked(stage, "download folder", "with --root"):
        for left in stage.glob(".*.unpacked.*"):  # of a run that was killed while it unpacked
            remove_tree(left, stage)
        _room(todo.root, sum(_left(todo.root, file) for _, file in todo.missing), "the downloads")
        for what, file in todo.missing:
            archive = _download(file, stage, waits)
            placed = _unpack(archive, SOURCES[what], todo.root, file.key, todo.song)
            write_json(stage / f"{file.key}.json", {"checksum": file.checksum, "song": todo.song, "files": placed})
            archive.unlink()
    return {what: sum(len(_receipt(todo.root, file)["files"]) for file in files) for what, _, files in todo.wanted}


def _stage(root: Path) -> Path:
    return root / ".fetch"


def _receipt(root: Path, file: RemoteFile) -> dict:
    try:
        content = json.loads((_stage(root) / f"{file.key}.json").read_text())
        return content if content["checksum"] == file.checksum and isinstance(content["files"], dict) else {"files": {}}
    except (OSError, ValueError, KeyError, TypeError):
        return {"files": {}}


def _is_unpacked(root: Path, file: RemoteFile, song: bool) -> bool:
    """Whether all files of this archive are in place, with the sizes that they had when they were unpacked."""
    receipt = _receipt(root, file)
    if not receipt["files"] or (song and not receipt.get("song")):
        return False
    try:
        return all((root / path).stat().st_size == size for path, size in receipt["files"].items())
    except OSError:
        return False


def _part(root: Path, file: RemoteFile) -> Path:
    # the checksum is part of the name: what is left of another version of the file is never continued
    return _stage(root) / f"{file.key}.{file.checksum.split(':')[1][:12]}.part"


def _left(root: Path, file: RemoteFile) -> int:
    part = _part(root, file)
    return max(0, file.size - (part.stat().st_size if part.is_file() else 0))


def _room(root: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise AudferError(
            f"{root}: {what} need {_size(needed)} and {_size(free)} are free; "
            "free some space or choose another folder with --root"
        )


def _size(count: int) -> str:
    value, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{value:.2f} {unit}"


# ------------------------------------------------------------------------------------------------------- downloading


class _Broken(Exception):
    """An attempt that may be made again; ``moved`` says that it brought something."""

    def __init__(self, reason: str, moved: bool = False):
        super().__init__(reason)
        self.moved = moved


def _attempts(attempt: Callable, waits: tuple[float, ...], where: str, advice: str):
    """Call ``attempt`` until it does not break, at most ``len(waits) + 1`` times in a row without anything gained."""
    failures = 0
    while True:
        try:
            return attempt()
        except _Broken as broken:
            failures = 1 if broken.moved else failures + 1
            if failures > len(waits):
                raise AudferError(f"{where}: {broken} ({failures} attempts); {advice}") from broken
            time.sleep(waits[failures - 1])


def _get(url: str, start: int = 0) -> requests.Response:
    """One answered request; errors that may pass (no connection, 429, 5xx) are ``_Broken``, others final."""
    headers = {"User-Agent": f"audfer/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
    ) as error:
        raise InputError(url, "address", str(error)[:80], "an address such as https://zenodo.org") from error
    except requests.exceptions.RequestException as error:
        raise _Broken(f"no answer ({type(error).__name__})") from error
    if answer.status_code == 429 or answer.status_code >= 500:
        answer.close()
        raise _Broken(f"the server answers {answer.status_code} {answer.reason}")
    if answer.status_code not in (200, 206, 416):
        answer.close()
        raise AudferError(f"{url}: the server answers {answer.status_code} {answer.reason}")
    return answer


def _download(file: RemoteFile, stage: Path, waits: tuple[float, ...]) -> Path:
    """The file, whole and verified, continued from what an earlier run left."""
    part = _part(stage.parent, file)
    for fresh in (False, True):
        resumed, reached = part.is_file() and part.stat().st_size > 0, [0]
        with progress(total=-(-file.size // _MEGABYTE), desc=file.key, unit="MB") as bar:
            if not part.is_file() or part.stat().st_size != file.size:
                _attempts(
                    lambda bar=bar, reached=reached: _attempt(file, part, bar, reached),
                    waits,
                    file.url,
                    "what was downloaded is kept, run the same command again to resume",
                )
            bar.update(bar.total - bar.n)
        found = _digest(part, file.checksum)
        if found == file.checksum:
            return part
        part.unlink()
        if fresh or not resumed:
            raise InputError(
                file.url, "checksum of the download", found, f"{file.checksum} as the record lists it; nothing was kept"
            )
        # a beginning left by an earlier run may be at fault: once more from the start


def _attempt(file: RemoteFile, part: Path, bar, reached: list[int]) -> None:
    """One request; appends to ``part`` until it has the listed size, or breaks.

    ``reached`` holds how far the attempts have come: one that starts anew and breaks no later than those before it
    brought nothing, so that a server which ignores Range and always cuts does not hold us for ever.
    """
    start = part.stat().st_size if part.is_file() else 0
    if start > file.size:
        part.unlink()
        start = 0
    answer = _get(file.url, start)
    with answer:
        if answer.status_code == 416 or (answer.status_code == 206 and not _continues(answer, start, file.size)):
            # what is here does not fit what is there
            part.unlink(missing_ok=True)
            raise _Broken("the server cannot continue the download where it broke")
        if answer.status_code == 200 and start:
            start = 0  # the server ignores Range: from the beginning
        _check_length(answer, file, start)
        count = start
        try:
            with open(part, "r+b" if start else "wb") as out:
                out.seek(start)
                for chunk in answer.iter_content(_CHUNK):
                    count += len(chunk)
                    if count > file.size:
                        break
                    out.write(chunk)
                    bar.update(count // _MEGABYTE - bar.n)
        except requests.exceptions.RequestException:
            pass  # cut off: what came is on disk
        except OSError as error:
            raise AudferError(
                f"{part}: cannot be written ({error.strerror or error}); "
                "free some space and run the same command again to resume"
            ) from error
    if count > file.size:
        part.unlink()
        raise InputError(
            file.url, "size of the download", f"more than {file.size:,} bytes", f"{file.size:,} as the record lists it"
        )
    moved = count > max(start, reached[0])
    reached[0] = max(count, reached[0])
    if count < file.size:
        raise _Broken(f"the connection was cut after {count:,} of {file.size:,} bytes", moved)


def _continues(answer: requests.Response, start: int, size: int) -> bool:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    return bool(found) and int(found[1]) == start and found[3] in ("*", str(size))


def _check_length(answer: requests.Response, file: RemoteFile, start: int) -> None:
    """Refuse before the first byte what announces another size than the listing."""
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and start + int(length) != file.size:
        raise InputError(
            file.url,
            "size that the server announces",
            f"{start + int(length):,} bytes",
            f"{file.size:,} as the record lists it",
        )


def _digest(path: Path, like: str) -> str:
    algorithm = like.split(":")[0]
    with open(path, "rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


# --------------------------------------------------------------------------------------------------------- unpacking


def _unpack(archive: Path, source: Source, root: Path, name: str, song: bool) -> dict[str, int]:
    """Put the wanted members in their places; path below ``root`` -> size."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = _members(content, source, name, archive.stat().st_size, song)
            _room(root, sum(member.file_size for member in members.values()), f"the files of {name}")
            with atomic_folder(archive.with_suffix(".unpacked")) as temporary:
                for target, member in progress(members.items(), desc=f"unpack {name}", unit="file"):
                    inside = temporary / Path(target).name
                    with content.open(member) as source_stream, open(inside, "wb") as out:
                        shutil.copyfileobj(source_stream, out)  # zipfile compares the checksum at the end
            # all members are whole: now, and only now, files appear in their places
            for target in members:
                (root / target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(archive.with_suffix(".unpacked") / Path(target).name, root / target)
            remove_tree(archive.with_suffix(".unpacked"), archive.parent)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            name, "archive", str(error)[:100], "a zip file without password; nothing of it was unpacked"
        ) from error
    return {target: member.file_size for target, member in members.items()}


def _members(
    content: zipfile.ZipFile, source: Source, name: str, packed: int, song: bool
) -> dict[str, zipfile.ZipInfo]:
    """Target below the root -> member, after looking at every member of the archive.

    Targets are made from the trial's parsed name, never from a member's path; a path that points elsewhere is refused
    all the same, with the whole archive, because whoever wrote it meant harm.
    """
    total, members = 0, {}
    for member in content.infolist():
        _safe(member, name)
        total += member.file_size
        base = member.filename.rsplit("/", 1)[-1]
        if member.is_dir() or base.startswith(".") or not base.lower().endswith(source.suffix):
            continue
        trial = parse_name(f"{name}/{base}")
        if trial.modality != "01" or (trial.channel != "01" and not song):
            continue
        target = f"{source.folder.format(actor=trial.actor)}/{base[: -len(source.suffix)]}{source.suffix}"
        if target in members:
            raise InputError(name, f"member {member.filename!r}", "a second file of this trial", "every trial once")
        members[target] = member
    if total > MOST_TIMES * packed:
        raise InputError(
            name,
            "size that the members announce",
            _size(total),
            f"at most {MOST_TIMES} times the archive's {_size(packed)}",
        )
    if not members:
        raise InputError(name, "members", f"none named like 01-01-06-01-02-01-12{source.suffix}", "RAVDESS trials")
    return members


def _safe(member: zipfile.ZipInfo, name: str) -> None:
    # orig_filename: zipfile itself already turns backslashes into slashes on Windows and cuts at a zero byte
    path = member.orig_filename
    windows = PureWindowsPath(path)
    if path.startswith(("/", "\\")) or windows.drive or ".." in windows.parts or "\0" in path:
        raise InputError(
            name,
            f"member {path[:80]!r}",
            "a path that leaves the target folder",
            "paths inside it; nothing of the archive was unpacked",
        )
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(
            name,
            f"member {path[:80]!r}",
            "a link or device",
            "plain files and folders; nothing of the archive was unpacked",
        )
