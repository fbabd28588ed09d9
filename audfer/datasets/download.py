"""The open data: RAVDESS and its OpenFace tracking, downloaded from Zenodo and laid out as the readers expect.

Zenodo's REST API lists a record (``/api/records/ID``): licence, and every file with name, size and checksum. Nothing is
taken on trust but that listing: a download is whole when it has the listed size and checksum, and an archive is opened
only then. What is downloaded goes to ``ROOT/.fetch`` and is taken up again after a break; files reach their place one
by one, each whole or not there; a receipt of what was unpacked makes a second run do nothing.

Written against Zenodo's documented listing and tested on loopback; the live server could not be reached from where
this was written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema, RequestException
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from .. import __version__
from ..errors import AudferError, InputError, harmless
from ..files import UNREADABLE, atomic_folder, locked, read_json, remove_tree, write_json
from ..progress import progress
from .readers.ravdess import parse_name

ZENODO = "https://zenodo.org"
#: attempts after the first that may bring nothing; the waits between them double, beginning with a second
RETRIES = 5
#: seconds that a server may ask us to wait before the next attempt (Retry-After)
PATIENCE = 120
#: seconds to wait for a connection, and for the next bytes
TIMEOUT = (15, 60)
#: an archive that says it unpacks to more than this many times its own size is refused (a CSV of 714 columns: 3.7)
MOST_TIMES = 50
#: bytes that a listing may have; Zenodo's have some ten thousand
MOST_LISTED = 1_000_000
#: bytes read at once; a chunk that the connection breaks in is lost, so it is small
_CHUNK = 1 << 14
_MEGABYTE = 1_000_000
_OFFLINE = "is this machine on the internet? nothing was downloaded"
_LATER = "too many requests: run the same command again later, what was downloaded is kept"
_KEPT = "what was downloaded is kept, run the same command again to resume"

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
    """An archive of a record, and where it is put.

    Attributes:
        what: key of ``SOURCES``.
        key, size, checksum, url: as the record lists it; the checksum is ``md5:`` or ``sha256:`` and its digits.
        root: target folder.
    """

    what: str
    key: str
    size: int
    checksum: str
    url: str
    root: Path

    @property
    def part(self) -> Path:
        """What has been downloaded; named by the checksum too, so that another version's is never continued."""
        return self.root / ".fetch" / f"{self.key}.{self.checksum.split(':')[1][:12]}.part"

    @property
    def received(self) -> int:
        """Bytes that have been downloaded."""
        return self.part.stat().st_size if self.part.is_file() else 0

    @property
    def receipt(self) -> Path:
        """The note of what was unpacked."""
        return self.root / ".fetch" / f"{self.key}.json"

    def unpacked(self, song: bool = False) -> dict[str, int]:
        """Path below the root -> size of the files that were unpacked; empty unless all (``song``: of song, too) are
        in place.
        """
        try:
            note = read_json(self.receipt)
            whole = note["checksum"] == self.checksum and (note.get("song") or not song)
            whole = whole and all((self.root / path).stat().st_size == size for path, size in note["files"].items())
            return note["files"] if whole else {}
        except UNREADABLE:
            return {}


@dataclass(frozen=True)
class Plan:
    """What a fetch would do, and what is there already.

    Attributes:
        root: target folder.
        files: the archives wanted, in order.
        titles: what -> three lines about its record.
        song: whether song trials are taken beside speech.
    """

    root: Path
    files: tuple[RemoteFile, ...]
    titles: dict[str, list[str]]
    song: bool = False

    @property
    def missing(self) -> list[RemoteFile]:
        """Archives still to be fetched, in order."""
        return [file for file in self.files if not file.unpacked(self.song)]

    def describe(self) -> str:
        """Size, licence and target folder, to read before anything is downloaded; at most 80 columns."""
        lines, missing = [], self.missing
        for what, title in self.titles.items():
            files = [file for file in self.files if file.what == what]
            left = [file.size - min(file.size, file.received) for file in files if file in missing]
            todo = _size(sum(left)) if left else "nothing, all is there"
            total = f"{len(files)} archive{'s' * (len(files) > 1)}, {_size(sum(file.size for file in files))}"
            lines += [*title, f"  {total}; to download: {todo}"]
        return "\n".join([*lines, f"into {self.root}", "", CAUTION])


# ---------------------------------------------------------------------------------------------------------- listing


def plan(what: str, root: str | os.PathLike, *, song: bool = False, base_url: str = ZENODO, wait: float = 1) -> Plan:
    """Read the records' listings and compare them with what is in ``root``; nothing is written.

    Args:
        what: "tracking" (OpenFace's CSVs), "videos", or "all".
        root: folder that holds (or will hold) ``RAVDESS/`` and ``openface/``, as ``AUDFER_DATA`` does.
        song: take the song trials too (six expressions only; speech has all).
        base_url: another server that answers like Zenodo, for mirrors and tests. Links to zenodo.org in its listings
            are taken to be below it.
        wait: seconds before the second attempt, doubled for every further one.

    Raises:
        InputError: unknown ``what``, or a listing that is not Zenodo's or lacks the archives.
        AudferError: the server cannot be reached or answers with an error.
    """
    if what not in (*SOURCES, "all"):
        raise InputError("fetch", "what", repr(what), f"one of {', '.join(SOURCES)} or all")
    root, base = Path(root).resolve(), base_url.rstrip("/")
    if root.exists() and not root.is_dir():
        raise InputError(root, "--root", "a file", "a folder, or a name for a new one")
    files, titles = [], {}
    for name in SOURCES if what == "all" else (what,):
        source, number = SOURCES[name], SOURCES[name].record
        page, url = f"{base}/records/{number}", f"{base}/api/records/{number}"
        try:
            content = _listing(url, wait)
            metadata = content.get("metadata", {})
            listed = [RemoteFile(name, *_listed(file, url, base), root) for file in content["files"]]
            licence = metadata.get("license") or {}
            licence = licence.get("id") if isinstance(licence, dict) else licence
            title = metadata.get("title") or content.get("title") or f"record {number}"
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"{type(error).__name__}: {str(error)[:80]}"
            expected = "Zenodo's JSON with key, size and checksum of every file"
            raise InputError(url, "listing", found, expected) from error
        pattern = source.archives.replace("{channel}", "(Speech|Song)" if song else "Speech")
        wanted = sorted((file for file in listed if re.fullmatch(pattern, file.key)), key=lambda file: file.key)
        if not wanted:
            names = ", ".join(file.key for file in listed[:5]) or "no files"
            expected = f"names like {source.archives.replace('{channel}', 'Speech')}"
            raise InputError(page, "archives", names, expected)
        files += wanted
        titles[name] = [f"{name}: {title}"[:79], f"  {page}", f"  licence: {licence or 'none named in the listing'}"]
    return Plan(root, tuple(files), titles, song)


def _listing(url: str, wait: float) -> dict:
    """What the server answers, read to a limit of size and of time."""
    text, until = bytearray(), time.monotonic() + PATIENCE
    with _get(url, wait, _OFFLINE, stream=True) as answer:
        try:
            for piece in answer.iter_content(64):  # a large one is waited for as long as bytes of it drip
                text += piece
                if len(text) > MOST_LISTED or time.monotonic() > until:
                    found = f"no end after {_size(len(text))}"
                    raise InputError(url, "listing", found, f"at most {_size(MOST_LISTED)} within {PATIENCE} s")
        except RequestException as error:
            raise AudferError(f"{url}: the listing broke off ({type(error).__name__}); {_OFFLINE}") from error
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested without end") from None


def _listed(file: dict, url: str, base: str) -> tuple[str, int, str, str]:
    """Key, size, checksum and link of a file in a record's listing."""
    key, size, checksum = str(file["key"]), int(file["size"]), str(file["checksum"])
    link = str(file.get("links", {}).get("self") or f"{url}/files/{quote(key)}/content")
    link = re.sub(f"^{re.escape(ZENODO)}/", f"{base}/", link)
    if not link.startswith(base + "/"):
        raise InputError(url, f"link of {key!r}", link[:80], f"a link below {base}")
    if size < 0 or not re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum):
        expected = "md5 or sha256 and its digits, and a size of 0 or more"
        raise InputError(url, f"checksum and size of {key!r}", f"{checksum!r}, {size}", expected)
    return key, size, checksum, link


# ---------------------------------------------------------------------------------------------------------- fetching


def fetch(todo: Plan, *, wait: float = 1) -> dict[str, int]:
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
    stage = todo.root / ".fetch"
    try:
        stage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(stage, "--root", error.strerror or str(error), "a folder that can be written") from error
    with locked(stage, "download folder", "with --root"):
        missing = todo.missing
        _require_room(todo.root, sum(max(0, file.size - file.received) for file in missing), "the downloads")
        for file in missing:
            _download(file, wait)
            placed = _unpack(file, todo.song)
            write_json(file.receipt, {"checksum": file.checksum, "song": todo.song, "files": placed})
            file.part.unlink()
    return {what: sum(len(f.unpacked()) for f in todo.files if f.what == what) for what in todo.titles}


def _require_room(root: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise AudferError(
            f"{root}: {what} need {_size(needed)} and {_size(free)} are free; "
            "free some space or choose another folder with --root"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


class _Patient(Retry):
    """Waits as long as the server asks for (Retry-After), says so, and refuses to wait for hours."""

    def get_retry_after(self, response) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None
        if seconds and seconds > PATIENCE:
            raise AudferError(f"the server answers {response.status} and asks to wait {seconds:,.0f} s; {_LATER}")
        if seconds:
            print(f"the server answers {response.status} and asks to wait {seconds:.0f} s", file=sys.stderr, flush=True)
        return seconds


class _Session(requests.Session):
    """Says where a server sends us on to; a listing is taken from nobody else, and nothing without encryption after
    it.

    Of a file it does no harm: its checksum is that of the listing.
    """

    def __init__(self, listing: bool):
        super().__init__()
        self.listing = listing

    def get_redirect_target(self, answer) -> str | None:
        target = super().get_redirect_target(answer)
        here, there = urlsplit(answer.url), urlsplit(urljoin(answer.url, target or ""))
        if there.hostname != here.hostname or (here.scheme, there.scheme) == ("https", "http"):
            said = harmless(f"{here.hostname} sends us on to {there.scheme}://{there.netloc}")
            if self.listing or there.scheme != here.scheme:
                raise AudferError(f"{said}, which is not followed; nothing was downloaded")
            print(said, file=sys.stderr, flush=True)
        return target


def _get(url: str, wait: float, advice: str, start: int = 0, stream: bool = False) -> requests.Response:
    """One answered request; what may pass (no connection, 429, 5xx) is tried again, other answers are final."""
    retry = _Patient(RETRIES, backoff_factor=wait, status_forcelist=(429, *range(500, 600)), raise_on_status=False)
    headers = {"User-Agent": f"audfer/{__version__}", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    session = _Session(listing=advice == _OFFLINE)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    try:
        answer = session.get(url, headers=headers, stream=stream, timeout=TIMEOUT)
    except AudferError as error:
        raise AudferError(f"{url}: {error}") from None
    except (InvalidURL, MissingSchema, InvalidSchema) as error:
        raise InputError(url, "address", str(error)[:80], "an address such as https://zenodo.org") from error
    except RequestException as error:
        reason = f"no answer ({type(error).__name__}, {RETRIES + 1} attempts)"
        raise AudferError(f"{url}: {reason}; {advice}") from error
    if answer.status_code not in (200, 206, 416):
        answer.close()
        advice = _LATER if answer.status_code == 429 else advice
        raise AudferError(f"{url}: the server answers {answer.status_code} {answer.reason}; {advice}")
    return answer


def _download(file: RemoteFile, wait: float) -> None:
    """The file, whole and verified, continued from what an earlier run left.

    An attempt that brings the download no farther than any before it counts as failed, so that a server which ignores
    Range and always cuts does not hold us for ever.
    """
    for fresh in (False, True):
        resumed, reached, failures = file.received > 0, 0, 0
        with progress(total=-(-file.size // _MEGABYTE), desc=file.key, unit="MB") as bar:
            while (start := file.received) != file.size:
                count = _continue(file, start, wait, bar)
                failures = 0 if count > max(start, reached) else failures + 1
                reached = max(reached, count)
                if failures > RETRIES:
                    found = f"the connection was cut after {count:,} of {file.size:,} bytes ({failures} attempts)"
                    raise AudferError(f"{file.url}: {found}; {_KEPT}")
                if count < file.size:
                    time.sleep(wait * 2**failures)
            bar.update(bar.total - bar.n)
        algorithm = file.checksum.split(":")[0]
        with open(file.part, "rb") as stream:
            found = f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"
        if found == file.checksum:
            return
        file.part.unlink()
        if fresh or not resumed:
            expected = f"{file.checksum} as the record lists it; nothing was kept"
            raise InputError(file.url, "checksum of the download", found, expected)
        # a beginning left by an earlier run may be at fault: once more from the start


def _continue(file: RemoteFile, start: int, wait: float, bar) -> int:
    """One request that appends to what is there; the bytes that are there afterwards."""
    if start > file.size:
        file.part.unlink()
        start = 0
    with _get(file.url, wait, _KEPT, start, stream=True) as answer:
        begins = re.fullmatch(rf"bytes {start}-\d+/(\*|{file.size})", answer.headers.get("Content-Range", "").strip())
        if answer.status_code == 416 or (answer.status_code == 206 and not begins):
            file.part.unlink(missing_ok=True)  # what is here does not fit what is there
            return 0
        if answer.status_code == 200:
            start = 0  # the server ignores Range: from the beginning
        expected, length = f"{file.size:,} as the record lists it", answer.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != file.size:
            announced = f"{start + int(length):,} bytes"
            raise InputError(file.url, "size that the server announces", announced, expected)
        count = start
        try:
            with open(file.part, "r+b" if start else "wb") as out:
                out.seek(start)
                for chunk in answer.iter_content(_CHUNK):
                    count += len(chunk)
                    if count > file.size:
                        break
                    out.write(chunk)
                    bar.update(count // _MEGABYTE - bar.n)
        except RequestException:
            pass  # cut off: what came is on disk
        except OSError as error:
            reason = f"cannot be written ({error.strerror or error})"
            advice = "free some space and run the same command again to resume"
            raise AudferError(f"{file.part}: {reason}; {advice}") from error
    if count > file.size:
        file.part.unlink()
        raise InputError(file.url, "size of the download", f"more than {file.size:,} bytes", expected)
    return count


# --------------------------------------------------------------------------------------------------------- unpacking


def _unpack(file: RemoteFile, song: bool) -> dict[str, int]:
    """Put the wanted members in their places; path below the root -> size."""
    whole = file.part.with_suffix(".unpacked")
    try:
        with zipfile.ZipFile(file.part) as content:
            members = _members(content, file, song)
            _require_room(file.root, sum(member.file_size for member in members.values()), f"the files of {file.key}")
            with atomic_folder(whole) as temporary:
                for target, member in progress(members.items(), desc=f"unpack {file.key}", unit="file"):
                    with content.open(member) as source, open(temporary / Path(target).name, "wb") as out:
                        shutil.copyfileobj(source, out)  # zipfile compares the checksum at the end
    except AudferError:
        raise
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not of an offset
            raise
        expected = "a zip file without password; nothing of it was unpacked"
        raise InputError(file.key, "archive", str(error)[:100], expected) from error
    # all members are whole: now, and only now, files appear in their places
    for target in members:
        (file.root / target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(whole / Path(target).name, file.root / target)
    remove_tree(whole, whole.parent)
    return {target: member.file_size for target, member in members.items()}


def _members(content: zipfile.ZipFile, file: RemoteFile, song: bool) -> dict[str, zipfile.ZipInfo]:
    """Target below the root -> member, after looking at every member of the archive.

    Targets are made from the trial's parsed name, never from a member's path; a path that points elsewhere is refused
    all the same, with the whole archive, because whoever wrote it meant harm.
    """
    members, source = {}, SOURCES[file.what]
    for member in content.infolist():
        _require_safe(member, file.key)
        name = member.filename.rsplit("/", 1)[-1]
        if member.is_dir() or name.startswith(".") or not name.lower().endswith(source.suffix):
            continue
        trial = parse_name(f"{file.key}/{name}")
        if trial.modality != "01" or (trial.channel != "01" and not song):
            continue
        target = f"{source.folder.format(actor=trial.actor)}/{Path(name).stem}{source.suffix}"
        if target in members:
            found = "a second file of this trial"
            raise InputError(file.key, f"member {member.filename!r}", found, "every trial once")
        members[target] = member
    total, packed = sum(member.file_size for member in content.infolist()), file.part.stat().st_size
    if total > MOST_TIMES * packed:
        expected = f"at most {MOST_TIMES} times the archive's {_size(packed)}"
        raise InputError(file.key, "size that the members announce", _size(total), expected)
    if not members:
        found = f"none named like 01-01-06-01-02-01-12{source.suffix}"
        raise InputError(file.key, "members", found, "RAVDESS trials")
    return members


def _require_safe(member: zipfile.ZipInfo, name: str) -> None:
    # orig_filename: zipfile itself already turns backslashes into slashes on Windows and cuts at a zero byte
    path = member.orig_filename
    windows, kind = PureWindowsPath(path), stat.S_IFMT(member.external_attr >> 16)
    if path.startswith(("/", "\\")) or windows.drive or ".." in windows.parts or "\0" in path:
        found, expected = "a path that leaves the target folder", "paths inside it"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        found, expected = "a link or device", "plain files and folders"
    else:
        return
    raise InputError(name, f"member {path[:80]!r}", found, f"{expected}; nothing of the archive was unpacked")
