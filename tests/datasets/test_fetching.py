"""RAVDESS from Zenodo: a real HTTP server on loopback that answers like it, and like servers on a bad day."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import re
import stat
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import requests

from audfer.companion import cli
from audfer.datasets import download as fetching
from audfer.errors import AudferError, InputError

TRIALS = [
    f"01-{channel}-0{emotion}-01-01-01-0{actor}"
    for channel in ("01", "02")
    for emotion in (1, 3, 5)
    for actor in (1, 2)
]
SPEECH = [name for name in TRIALS if name[3:5] == "01"]


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in members.items():
            content.writestr(name, data)
    return stream.getvalue()


def noise(name: str, size: int = 40_000) -> bytes:
    """Bytes that do not compress, the same for the same name."""
    return np.random.default_rng(list(name.encode())).bytes(size)


TRACKING = archive(
    {f"{name}.csv": f"frame, AU01_r\n1, {k}.0\n".encode() for k, name in enumerate(TRIALS)}
    | {"__MACOSX/._01-01-01-01-01-01-01.csv": b"?"}
)


def videos(actor: int) -> bytes:
    return archive(
        {
            f"Actor_0{actor}/{modality}{name[2:]}.mp4": noise(modality + name)
            for modality in ("01", "02")
            for name in SPEECH
            if name.endswith(f"-0{actor}")
        }
    )


class Zenodo(http.server.ThreadingHTTPServer):
    """Serves two records; ``misbehave`` maps a file's key to what its handler does on each request in turn."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            3255102: {"FacialTracking_Actors_01-24.zip": TRACKING, "FacialTrackingVideos_Actor_01.avi": b"x"},
            1188976: {f"Video_Speech_Actor_0{k}.zip": videos(k) for k in (1, 2)}
            | {"Audio_Speech_Actors_01-24.zip": b"y"},
        }
        self.listed: dict[str, dict] = {}  # key -> what the listing says instead
        self.misbehave: dict[str, list[str]] = {}
        self.requests: Counter = Counter()
        self.ranges: list[str] = []
        self.licence = {"id": "cc-by-nc-sa-4.0"}
        self.title = ""
        self.url = f"http://127.0.0.1:{self.server_port}"

    def listing(self, record: int) -> dict:
        files = [
            {
                "key": key,
                "size": len(data),
                "checksum": f"md5:{hashlib.md5(data).hexdigest()}",
                "links": {"self": f"https://zenodo.org/api/records/{record}/files/{key}/content"},
            }
            | self.listed.get(key, {})
            for key, data in self.files[record].items()
        ]
        return {
            "id": record,
            "metadata": {"title": self.title or f"Record {record}", "license": self.licence},
            "files": files,
        }


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        found = re.fullmatch(r"/api/records/(\d+)(?:/files/([^/]+)/content)?", self.path)
        record, key = int(found[1]), found[2]
        server: Zenodo = self.server
        server.requests[key or record] += 1
        ways = server.misbehave.get(key or str(record), [])
        way = ways.pop(0) if ways else ""
        if way.startswith("wait "):
            self.send_response(429)
            self.send_header("Retry-After", way[5:])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if way.isdigit():
            return self.send_error(int(way))
        if way.startswith("go to "):
            self.send_response(302)
            self.send_header("Location", way[6:].replace("PORT", str(server.server_port)) + self.path)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if way == "hang up":
            return self.connection.close()
        if key is None and way.startswith("endless"):
            return self._never_end(b" " * 10_000 if way == "endless flood" else b" ")
        if key is None and way.startswith("nested"):
            opening = way.removeprefix("nested ").encode()
            return self._send(opening * 100_000)
        if key is None:
            return self._send(
                b"<html>maintenance</html>" if way == "html" else json.dumps(server.listing(record)).encode()
            )
        data = server.files[record][key]
        start, status, headers = 0, 200, {}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            server.ranges.append(self.headers["Range"])
            if "no range" not in way:
                start, status = int(wanted[1]), 206
                first = start + ("wrong offset" in way)
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if "garbage" in way:
            body = bytes(byte ^ 1 for byte in body[:100]) + body[100:]
        if "longer" in way:
            body += b"!" * 1000
        stop = len(body) // 2 if "cut" in way else 10 if "dribble" in way else 0 if "nothing" in way else len(body)
        if "longer" in way and "announced" not in way:
            headers["no length"] = ""
        self._send(body, status, headers, stop)

    def _never_end(self, piece: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # until the other side has had enough
            while True:
                self.wfile.write(piece)
                time.sleep(0.01 * (len(piece) == 1))

    def _send(self, body: bytes, status: int = 200, headers: dict | None = None, stop: int | None = None):
        headers = dict(headers or {})
        self.send_response(status)
        if headers.pop("no length", None) is None:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:stop])
        self.close_connection = True


@pytest.fixture
def zenodo(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AUDFER_PROGRESS", "off")
    server = Zenodo()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(zenodo, root: Path, what: str = "tracking", **options) -> dict[str, int]:
    return fetching.fetch(fetching.plan(what, root, base_url=zenodo.url, wait=0, **options), wait=0)


def everything(root: Path) -> dict[str, bytes]:
    """Every file outside the download folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".fetch" not in path.parts
    }


CSVS = {
    f"openface/RAVDESS/{name}.csv": f"frame, AU01_r\n1, {k}.0\n".encode()
    for k, name in enumerate(TRIALS)
    if name in SPEECH
}
MP4S = {f"RAVDESS/Actor_{name[-2:]}/{name}.mp4": noise("01" + name) for name in SPEECH}


def test_all_of_it_lands_where_the_readers_look(zenodo, tmp_path):
    from audfer.datasets import read_dataset

    assert fetch(zenodo, tmp_path, "all") == {"tracking": len(SPEECH), "videos": len(SPEECH)}
    assert everything(tmp_path) == CSVS | MP4S
    manifest = read_dataset("RAVDESS", tmp_path)
    # the CSVs carry the names of the clips, so that the AU tables of the disk path are found
    assert all(
        (tmp_path / "openface" / "RAVDESS" / f"{clip_id}.csv").is_file() for clip_id in manifest.table["clip_id"]
    )
    assert not list((tmp_path / ".fetch").glob("*.part"))


def test_a_second_run_downloads_nothing_and_a_deleted_file_comes_back(zenodo, tmp_path):
    fetch(zenodo, tmp_path, "all")
    before = dict(zenodo.requests)
    assert fetch(zenodo, tmp_path, "all") == {"tracking": len(SPEECH), "videos": len(SPEECH)}
    assert {key: count for key, count in zenodo.requests.items() if isinstance(key, str)} == {
        key: count for key, count in before.items() if isinstance(key, str)
    }
    (tmp_path / next(iter(MP4S))).unlink()
    fetch(zenodo, tmp_path, "all")
    assert everything(tmp_path) == CSVS | MP4S
    assert zenodo.requests["Video_Speech_Actor_01.zip"] == 2 and zenodo.requests["Video_Speech_Actor_02.zip"] == 1


def test_song_is_taken_on_request_and_added_to_speech(zenodo, tmp_path):
    fetch(zenodo, tmp_path)
    assert fetch(zenodo, tmp_path, song=True) == {"tracking": len(TRIALS)}
    assert fetch(zenodo, tmp_path) == {"tracking": len(TRIALS)}  # what is there stays


@pytest.mark.parametrize(
    "ways, ranges",
    [
        (["cut"], 1),
        (["cut", "cut", "cut", "cut", "cut", "cut"], 6),
        (["503", "hang up", "cut", "500"], 1),
        (["cut", "no range"], 1),
        (["cut", "wrong offset"], 1),
        (["cut", "416"], 1),
        (["429"], 0),
    ],
)
def test_a_broken_download_is_continued(zenodo, tmp_path, ways, ranges):
    zenodo.misbehave["Video_Speech_Actor_01.zip"] = list(ways)
    fetch(zenodo, tmp_path, "videos")
    assert everything(tmp_path) == MP4S
    if not {"500", "416"} & set(ways):
        assert len(zenodo.ranges) == ranges


def test_an_interrupted_run_is_continued_by_the_next(zenodo, tmp_path):
    zenodo.misbehave["Video_Speech_Actor_01.zip"] = ["cut", *["nothing"] * 9]
    with pytest.raises(AudferError, match="run the same command again to resume"):
        fetch(zenodo, tmp_path, "videos")
    assert everything(tmp_path) == {}
    zenodo.misbehave.clear()
    size = len(zenodo.files[1188976]["Video_Speech_Actor_01.zip"])
    todo = fetching.plan("videos", tmp_path, base_url=zenodo.url, wait=0)
    kept = todo.missing[0].received
    assert 0 <= size // 2 - kept < fetching._CHUNK
    fetch(zenodo, tmp_path, "videos")
    assert zenodo.ranges[-1] == f"bytes={kept}-" and everything(tmp_path) == MP4S


def test_a_spoilt_beginning_is_fetched_again_from_the_start(zenodo, tmp_path):
    zenodo.misbehave["FacialTracking_Actors_01-24.zip"] = ["cut", *["nothing"] * 9]
    with pytest.raises(AudferError):
        fetch(zenodo, tmp_path)
    zenodo.misbehave.clear()
    (part,) = (tmp_path / ".fetch").glob("*.part")
    part.write_bytes(bytes(len(part.read_bytes())))
    fetch(zenodo, tmp_path)
    assert everything(tmp_path) == CSVS


@pytest.mark.parametrize(
    "ways, sentence",
    [
        (["garbage"] * 2, "checksum of the download: found md5:"),
        (["longer"] * 9, "size of the download: found more than"),
        (["longer announced"], "size that the server announces"),
        (["404"], "the server answers 404"),
        (["403"], "the server answers 403"),
        (["500"] * 9, "the server answers 500"),
        (["nothing"] * 9, "the connection was cut after 0"),
        (["hang up"] * 9, "no answer"),
        (["cut no range"] * 20, "the connection was cut after"),
    ],
)
def test_what_cannot_end_well_is_one_sentence_and_leaves_nothing(zenodo, tmp_path, ways, sentence):
    zenodo.misbehave["FacialTracking_Actors_01-24.zip"] = list(ways)
    with pytest.raises(AudferError, match=re.escape(sentence)):
        fetch(zenodo, tmp_path)
    assert everything(tmp_path) == {}
    zenodo.misbehave.clear()
    fetch(zenodo, tmp_path)  # and the next day it works
    assert everything(tmp_path) == CSVS


def test_a_listing_that_lies_about_size_or_checksum(zenodo, tmp_path):
    key = "FacialTracking_Actors_01-24.zip"
    for lie, sentence in (
        ({"size": len(TRACKING) + 5}, "size that the server announces"),
        ({"checksum": "md5:" + "0" * 32}, "checksum of"),
        ({"size": -1}, "checksum and size"),
        ({"checksum": "crc:1"}, "checksum and size"),
        ({"links": {"self": "https://elsewhere.example/x.zip"}}, "link of"),
        ({"size": 10**15}, "GB are free"),
    ):
        zenodo.listed = {key: lie}
        with pytest.raises(AudferError, match=sentence):
            fetch(zenodo, tmp_path)
        assert everything(tmp_path) == {}


@pytest.mark.parametrize("way, sentence", [("html", "Zenodo's JSON"), ("404", "answers 404"), ("410", "answers 410")])
def test_a_listing_that_is_none(zenodo, tmp_path, way, sentence):
    zenodo.misbehave["3255102"] = [way]
    with pytest.raises(AudferError, match=sentence):
        fetch(zenodo, tmp_path)


@pytest.mark.parametrize(
    "way, sentence",
    [
        ("endless flood", "no end after 1.00 MB, expected at most 1.00 MB within 2 s"),
        ("endless drip", "no end after 0.00 MB, expected at most 1.00 MB within 2 s"),
        ("nested [", "ValueError: nested without end"),
        ('nested {"files":', "ValueError: nested without end"),
    ],
)
def test_a_listing_without_an_end_is_refused(zenodo, tmp_path, monkeypatch, way, sentence):
    monkeypatch.setattr("audfer.datasets.download.PATIENCE", 2)
    zenodo.misbehave["3255102"] = [way]
    start = time.monotonic()
    with pytest.raises(AudferError, match=f"listing: found {sentence}"):
        fetch(zenodo, tmp_path)
    assert time.monotonic() - start < 30 and everything(tmp_path) == {}


def test_a_listing_survives_a_bad_moment_and_a_record_without_the_archives_is_named(zenodo, tmp_path):
    zenodo.misbehave["3255102"] = ["503", "hang up"]
    assert fetch(zenodo, tmp_path)
    zenodo.files[3255102] = {"readme.txt": b"moved"}
    with pytest.raises(InputError, match="found readme.txt"):
        fetch(zenodo, tmp_path)


def with_link() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        content.writestr("01-01-01-01-01-01-01.csv", "fine")
        link = zipfile.ZipInfo("01-01-03-01-01-01-01.csv")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(link, "/etc/passwd")
    return stream.getvalue()


def spoilt() -> bytes:
    data = bytearray(archive({f"{SPEECH[0]}.csv": noise("a")}))
    data[2000] ^= 0xFF
    return bytes(data)


GOOD = {f"{SPEECH[0]}.csv": b"fine"}
EVIL = {
    "parent": (archive(GOOD | {f"../{SPEECH[1]}.csv": b"x"}), "leaves the target folder"),
    "deep parent": (archive(GOOD | {f"a/../../../{SPEECH[1]}.csv": b"x"}), "leaves the target folder"),
    "absolute": (archive(GOOD | {f"/tmp/{SPEECH[1]}.csv": b"x"}), "leaves the target folder"),
    "drive": (archive(GOOD | {f"C:/{SPEECH[1]}.csv": b"x"}), "leaves the target folder"),
    "backslash": (archive(GOOD | {f"..\\{SPEECH[1]}.csv": b"x"}), "leaves the target folder"),
    "unwanted file outside": (archive(GOOD | {"../../.bashrc": b"x"}), "leaves the target folder"),
    "link": (with_link(), "a link or device"),
    "bomb": (archive(GOOD | {f"{SPEECH[1]}.csv": bytes(50_000_000)}), "size that the members announce"),
    "other names": (archive({"hello.csv": b"x"}), "seven two-digit fields"),
    "no trials": (archive({"readme.txt": b"x"}), "members"),
    "one trial twice": (
        archive({f"a/{SPEECH[0]}.csv": b"x", f"b/{SPEECH[0]}.csv": b"y"}),
        "a second file of this trial",
    ),
    "no archive": (b"<html>please log in</html>", "a zip file without password"),
    "cut short": (TRACKING[: len(TRACKING) // 2], "a zip file without password"),
    "spoilt member": (spoilt(), "a zip file without password"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_archive_that_means_harm_is_refused_whole(zenodo, tmp_path, kind):
    data, sentence = EVIL[kind]
    zenodo.files[3255102] = {"FacialTracking_Actors_01-24.zip": data}
    root = tmp_path / "a" / "b" / "root"
    with pytest.raises(InputError, match=re.escape(sentence)):
        fetch(zenodo, root)
    assert everything(tmp_path) == {} and not list((root / ".fetch").rglob("*.csv"))


def test_a_listing_is_taken_from_no_other_host_and_a_files_host_is_shown(zenodo, tmp_path, capsys):
    zenodo.misbehave["3255102"] = ["go to http://localhost:PORT"]
    with pytest.raises(AudferError, match=r"127.0.0.1 sends us on to http://localhost:\d+, which is not followed"):
        fetching.plan("tracking", tmp_path, base_url=zenodo.url)
    assert zenodo.requests[3255102] == 1
    todo = fetching.plan("tracking", tmp_path, base_url=zenodo.url)
    zenodo.misbehave["FacialTracking_Actors_01-24.zip"] = ["go to http://localhost:PORT"]
    assert fetching.fetch(todo, wait=0) == {"tracking": len(SPEECH)}
    assert "127.0.0.1 sends us on to http://localhost:" in capsys.readouterr().err


def test_nothing_is_taken_without_encryption_once_there_was_one():
    answer = requests.Response()
    answer.url, answer.status_code, answer.headers["location"] = "https://zenodo.org/a", 302, "http://zenodo.org/a"
    for listing in (True, False):
        with pytest.raises(AudferError, match="sends us on to http://zenodo.org, which is not followed"):
            fetching._Session(listing).get_redirect_target(answer)


def test_a_foreign_title_moves_no_cursor(zenodo, tmp_path, capsys):
    zenodo.title = "safe\x1b[2J\x1b]0;owned\x07\u202egpj.exe\r"
    command = ["data", "fetch", "ravdess", "--root", str(tmp_path), "--base-url", zenodo.url]
    assert cli.main(command) == 2  # nobody to ask
    shown = capsys.readouterr().out
    assert "safe\\x1b[2J" in shown and not set(shown) & set("\x1b\x07\u202e\r")


def test_two_runs_at_once_do_not_mix(zenodo, tmp_path):
    from audfer.files import locked

    with locked(tmp_path / ".fetch"), pytest.raises(AudferError, match="another folder with --root"):
        fetch(zenodo, tmp_path)


def test_the_command_shows_size_and_licence_and_asks(zenodo, tmp_path, capsys, monkeypatch):
    command = ["data", "fetch", "RAVDESS", "--root", str(tmp_path), "--base-url", zenodo.url]
    assert cli.main(command) == 2  # nobody to ask
    captured = capsys.readouterr()
    assert "licence: cc-by-nc-sa-4.0" in captured.out and "0.00 MB" in captured.out and str(tmp_path) in captured.out
    assert (
        "CC BY-NC-SA 4.0" in captured.out and max(map(len, captured.out.replace(str(tmp_path), "").splitlines())) <= 80
    )
    assert captured.err.count("\n") == 1 and "--yes" in captured.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code, count in (("", 2, 0), ("n", 2, 0), ("y", 0, len(SPEECH))):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert cli.main(command) == code and len(everything(tmp_path)) == count
    capsys.readouterr()
    assert cli.main([*command, "--yes"]) == 0  # a second run
    assert "nothing, all is there" in capsys.readouterr().out


def test_the_command_without_a_licence_or_with_a_wrong_address(zenodo, tmp_path, capsys):
    zenodo.licence = None
    assert cli.main(["data", "fetch", "ravdess", "--yes", "--root", str(tmp_path), "--base-url", zenodo.url]) == 0
    assert "licence: none named in the listing" in capsys.readouterr().out
    file = tmp_path / "file"
    file.write_text("")
    for options in (["--base-url", "zenodo.org"], ["--base-url", "ftp://zenodo.org"], ["--root", str(file)]):
        assert (
            cli.main(["data", "fetch", "ravdess", "--yes", "--root", str(tmp_path), "--base-url", zenodo.url, *options])
            == 2
        )
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "asked, waits",
    [("7", [7]), ("120", [120]), ("0", []), ("soon", []), ("-3", []), ("Thu, 01 Jan 1970 00:00:00 GMT", [])],
)
def test_the_wait_that_the_server_asks_for_is_kept(zenodo, tmp_path, monkeypatch, capsys, asked, waits):
    slept = []
    monkeypatch.setattr("time.sleep", lambda seconds: slept.append(seconds))
    zenodo.misbehave["3255102"] = [f"wait {asked}"]
    zenodo.misbehave["FacialTracking_Actors_01-24.zip"] = [f"wait {asked}"]
    fetch(zenodo, tmp_path)
    assert everything(tmp_path) == CSVS and [seconds for seconds in slept if seconds > 1] == 2 * waits
    assert capsys.readouterr().err.count("the server answers 429 and asks to wait") == 2 * len(waits)


@pytest.mark.parametrize("asked", ["121", "86400", "Fri, 01 Jan 2100 00:00:00 GMT"])
@pytest.mark.parametrize("place", ["3255102", "FacialTracking_Actors_01-24.zip"])
def test_a_server_that_asks_for_hours_is_not_waited_for(zenodo, tmp_path, monkeypatch, asked, place):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("slept"))
    zenodo.misbehave[place] = [f"wait {asked}"]
    with pytest.raises(AudferError, match="answers 429 and asks to wait .* s; too many requests: run the same command"):
        fetch(zenodo, tmp_path)


def test_too_many_requests_are_called_that(zenodo, tmp_path):
    zenodo.misbehave["3255102"] = ["429"] * 9
    with pytest.raises(AudferError, match="429 .*: run the same command again later"):
        fetch(zenodo, tmp_path)
