"""Every command on a disk that nobody may write to and on one that is full, with no HOME and LC_ALL=C: a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_layouts
from paths import ROOT

from audfer.companion import cli
from audfer.facs import EXPRESSIONS, INTENSITY_ACTION_UNITS

#: command -> its arguments, and whether it ends well all the same: it writes nothing. {bad}: on the bad disk
ARGUMENTS: dict[str, tuple[str, bool]] = {
    "reproduce": ("--profile smoke -n A1_published_audit --work {bad}/w --figures {bad}/f", False),
    "report": ("--profile smoke --work {bad}/w --figures {bad}/f", False),
    "verify": ("--profile smoke --work {bad}/w --figures {bad}/f --out {bad}/v", False),
    "predict": ("{good}/clip.mp4 --html {bad}/p.html --aus {good}/csv/clip0.csv", False),
    "compare": ("{bad}/none {bad}/none", False),
    "completion": ("bash", True),
    "data fetch": ("ravdess --yes --root {bad}/d --base-url {server}", False),
    "data check": ("folder --root {good}/data --workers 1", True),
    "data pack": ("folder {bad}/p --root {good}/data --frames 2 --size 16 --workers 1", False),
    "data landmarks": ("folder --root {good}/data --out {bad}/l --workers 1", False),
    "data synth": ("{bad}/s --profile smoke", False),
    "au import": ("{good}/csv --out {bad}/o.parquet --workers 1", False),
    "au extract": ("folder --root {good}/data --backend openface --executable /bin/true --out {bad}/e.parquet", False),
    "au train-lac": ("DISFA --root {good}/data --out {bad}/lac", False),
    "knowledge build": ("{bad}/k.json --openface {good}/csv", False),
    "weights inspect": ("{good}/weights.safetensors", True),
    "train": ("--profile smoke --model m3dfel", False),
    "pretrained": ("au_extractor --out {bad}/x --work {bad}/w", False),
    "grid": ("table1 --profile smoke --work {bad}/w", False),
    "records list": ("{bad}", True),
    "records export": ("{bad}/none {bad}/out", False),
    "records import": ("{bad}/new {bad}/none.zip", False),
    "records migrate": ("{bad}/none {bad}/new", False),
}

_ALL = """
import contextlib, http.server, io, json, sys, threading, traceback, warnings
from audfer.companion import cli
warnings.simplefilter("ignore")
commands, listing = json.loads(sys.argv[1]), sys.argv[2].encode()

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(listing)))
        self.end_headers()
        self.wfile.write(listing)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for command in commands:
    words = [word.replace("{server}", f"http://127.0.0.1:{server.server_port}") for word in command]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main(words)
        except SystemExit as stop:
            code = f"usage: {stop.code}"
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([command, code, said.getvalue()]), flush=True)
"""
_LISTING = {
    "key": "FacialTracking_Actors_01-24.zip",
    "size": 10,
    "checksum": "md5:" + "0" * 32,
    "links": {"self": "https://zenodo.org/x"},
}


def test_every_command_is_tried_here():
    groups = {"data", "au", "knowledge", "weights", "records", "shared"}
    assert set(ARGUMENTS) == set(cli._tables()) - groups


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """What the commands read: clips, CSVs with their labels, weights."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("good")
    for name in ("happy", "sad"):
        small_layouts.clip(root / "data" / name / "clip")
    small_layouts.video(root / "clip.mp4")
    columns = ["frame", "face_id", "timestamp", "confidence", "success"]
    columns += [f"{au}_r" for au in INTENSITY_ACTION_UNITS] + [f"{au}_c" for au in (*INTENSITY_ACTION_UNITS, "AU28")]
    (root / "csv").mkdir()
    for number in range(len(EXPRESSIONS)):
        values = ", ".join([f"{1 + number / 5}"] * 17 + ["1"] * 18)
        rows = [f"{frame}, 0, {frame / 25}, 0.98, 1, {values}" for frame in range(1, 6)]
        (root / "csv" / f"clip{number}.csv").write_text("\n".join([", ".join(columns), *rows, ""]))
    labels = [f"clip{number}.csv,{name}" for number, name in enumerate(EXPRESSIONS)]
    (root / "csv" / "labels.csv").write_text("\n".join(["file,expression", *labels, ""]))
    save_file({"fc.weight": torch.ones(7, 3)}, root / "weights.safetensors")
    return root


@pytest.mark.parametrize("options", ["size=4k", "size=4k,ro"], ids=["full", "read-only"])
def test_every_command_says_in_a_sentence_that_it_cannot_write(options, good, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    mount = f'mount -t tmpfs -o {options} tmpfs "{bad}" && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    try:
        allowed = subprocess.run([*before, "true"], capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("no small file system of this process's own can be mounted here")
    # the trained extractor takes an hour before it writes more than a full disk has
    names = [name for name in ARGUMENTS if name != "pretrained" or "ro" in options]
    words = [
        [*name.split(), *(w.format(bad=bad, good=good, server="{server}") for w in ARGUMENTS[name][0].split())]
        for name in names
    ]
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "LANG", "AUDFER_DATA")}
    environment |= {"LC_ALL": "C", "AUDFER_WORK": f"{bad}/w", "AUDFER_FIGURES": f"{bad}/f", "PYTHONPATH": str(ROOT)}
    listing = json.dumps({"metadata": {"title": "T"}, "files": [_LISTING]})
    done = subprocess.run(
        [*before, sys.executable, "-c", _ALL, json.dumps(words), listing],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=500,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert [line[0] for line in lines] == words, done.stderr[-2000:]
    for name, (command, code, said) in zip(names, lines, strict=True):
        if ARGUMENTS[name][1]:
            assert code in (0, 1), (command, code, said)
        else:
            assert said.strip(), (command, code)
            last = said.strip().splitlines()[-1]
            assert code == 2 and last.startswith("audfer: error: "), (command, code, said)
        assert "Traceback" not in said


def test_figures_that_cannot_be_written_stop_a_run_before_its_first_kernel(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    (tmp_path / "file").touch()
    command = ["reproduce", "--profile", "smoke", "-n", "A1_published_audit", "--work", str(tmp_path / "w")]
    assert cli.main([*command, "--figures", str(tmp_path / "file" / "f")]) == 2
    assert f"audfer: error: {tmp_path}/file/f" in capsys.readouterr().err
