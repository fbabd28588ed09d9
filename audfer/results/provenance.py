"""What a table or figure was made of: written beside it as ``<name>.json``, told in words by ``audfer report --why``.

A sidecar names the run records with their configurations, the code, the digests of what went in and came out, hardware
and seconds. It is written again only when the results, their records or the packages change: commit, hardware and
seconds are those of the run that first gave these very files.
"""

from __future__ import annotations

import json
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from textwrap import fill

import torch

from .. import __version__
from ..errors import InputError
from ..files import UNREADABLE, file_digest, read_json, write_json
from ..models import NETWORKS
from ..plugins import COMPONENTS, versions
from ..progress import clock
from ..training.records import environment

_PACKAGES = ("numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "torch")
#: what may differ between two runs that gave the same files
_VOLATILE = ("code", "hardware", "seconds")
_CODE = Path(__file__).resolve().parents[1]


@cache
def code_commit() -> str:
    """The commit that this package's code is of, with "+" where the code has been changed since; "" outside git."""
    if not (_CODE.parent / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(_CODE.parent), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "audfer"))
    except (OSError, subprocess.CalledProcessError):
        return ""


def hardware(environment: dict) -> str:
    """Processor and device of a record's or this process's ``environment``, in words."""
    device = environment.get("device", "cpu")
    processor = f"{environment.get('machine', 'unknown')} {environment.get('cpu', '')}".strip()
    return processor if device == "cpu" else f"{device}, {processor}"


@cache
def this_machine() -> str:
    """``hardware`` of this process, with the processor's name where the system tells it."""
    name = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ", ".join(filter(None, (hardware(environment(device)), name)))


def cell_words(cell: dict) -> str:
    """The configuration of a cell, from its fields, as a reader would say it."""
    if "model" not in cell:  # another task's
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in cell.items() if value not in ("", None))
    model = cell["model"]
    name = NETWORKS[model].title if model in NETWORKS else model
    variant = f" ({cell['variant']})" if cell.get("variant") else ""
    head = "without an AU head"
    if cell["au_ratio"]:
        settings = [f"lambda {cell['au_ratio']:g}", f"{cell['strategy']} positive weights"]
        settings.append({"none": "no matrix", "knowledge": "knowledge matrix"}.get(cell["weights"], cell["weights"]))
        settings += [f"reading {cell['reading']}"] * (cell.get("reading", "paper") != "paper")
        settings += [f"AUs {cell['au_source']}"] * bool(cell.get("au_source"))
        head = f"with an AU head ({', '.join(settings)})"
    start = cell.get("initialisation", "scratch")
    numbers = [f"{cell['size']} size", f"{cell['epochs']} epochs"]
    if "num_frames" in cell:
        numbers.append(f"{cell['num_frames']} frames of {cell['image_size']} pixels")
        numbers.append(f"recipe {cell['recipe'] or model + '-' + cell['size']}")
        numbers.append(cell["precision"])
    return (
        f"{name}{variant} on {cell['dataset']}, fold {cell.get('fold', 1)}, seed {cell['seed']}, {head}: "
        f"{', '.join(numbers)}{f', starting from {start}' if start != 'scratch' else ''}"
    )


def record_about(folder: Path) -> dict:
    """What a sidecar says of one run record; {} where there is none to read."""
    if not (meta := read_json(folder / "record.json")):
        return {}
    inputs = {name: value for name, value in meta.get("inputs", {}).items() if "fingerprint" in name and value}
    return {
        "configuration": cell_words(meta["cell"]),
        "inputs": inputs,
        "hardware": hardware(meta.get("environment", {})),
        "torch": meta.get("environment", {}).get("torch", ""),
        "seconds": round(meta.get("seconds", 0.0), 1),
        "status": "trained to the end",
    }


def write_sidecar(path: Path, about: dict, digests: tuple[str, ...], outputs: list[Path]) -> None:
    """Write what made some files beside them, unless what is there says the same but for another run's clock.

    Args:
        about: name, caption and ``made`` (see ``RecordSource``), and where records lie (``below``).
        digests: names of the run records. outputs: the files.
    """
    about = dict(about)
    below, seconds = about.pop("below", None), about.pop("seconds", None)
    found = {key: next(iter(below.glob(f"*/{key}/record.json")), None) if below else None for key in digests}
    records = {key: record_about(place.parent) if place else {} for key, place in found.items()}
    content = {
        **about,
        "records": records,
        "outputs": {file.name: file_digest(file) for file in outputs},
        "components": versions(*COMPONENTS),
        "versions": _versions(),
        "code": {"audfer": __version__, "commit": code_commit()},
        "hardware": this_machine(),
        "seconds": {
            "making": None if seconds is None else round(seconds, 1),
            "training": round(sum(record.get("seconds", 0.0) for record in records.values()), 1),
        },
    }
    if _lasting(read_json(path)) != _lasting(json.loads(json.dumps(content))):
        write_json(path, content)


def _lasting(content: dict) -> dict:
    return {name: value for name, value in content.items() if name not in _VOLATILE}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_sidecars(folder: Path, output: str = "") -> dict[str, dict]:
    """Stem -> sidecar of a profile's tables and figures, in the order in which each output gives them.

    Args:
        output: only those of this output (``study.results``' name), or the one with this stem.

    Raises:
        InputError: a sidecar that is no JSON.
    """
    sidecars = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except UNREADABLE as error:
            raise InputError(path, "content", error, "JSON") from None
        if isinstance(about, dict) and "caption" in about:
            sidecars[path.stem] = about
    named = {stem: about for stem, about in sidecars.items() if about.get("made", {}).get("output") == output}
    chosen = (named or {stem: about for stem, about in sidecars.items() if stem == output}) if output else sidecars
    return dict(sorted(chosen.items(), key=lambda item: item[1].get("made", {}).get("place", 0)))


def why(folder: Path, name: str) -> str:
    """What made a table or figure, as text.

    Args:
        folder: a profile's tables and figures.
        name: what ``study.results`` calls it, or the stem of its files.

    Raises:
        InputError: nothing of that name there.
    """
    found = read_sidecars(folder, name)
    if not found:
        every = read_sidecars(folder)
        known = sorted({about.get("made", {}).get("output", stem) for stem, about in every.items()})
        raise InputError(folder, "table or figure", repr(name), f"one of {', '.join(known) or '(none there)'}")
    return "\n\n".join(_told(about) for about in found.values())


def _told(about: dict) -> str:
    made, code = about.get("made", {}), about.get("code", {})
    seconds, records = about.get("seconds", {}), about.get("records", {})
    times = [f"{clock(seconds['training'])} of training"] if seconds.get("training") else []
    times += [f"{clock(seconds['making'])} for the table or figure itself"] if seconds.get("making") else []
    components = ", ".join(f"{name} {number}" for name, number in about.get("components", {}).items())
    facts = {
        "made by": made.get("command", ""),
        "judged at": made.get("protocol", ""),
        "code": ", ".join(filter(None, (f"audfer {code['audfer']}" if code else "", code.get("commit", "")))),
        "components": components,
        "packages": ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items()),
        "hardware": about.get("hardware", ""),
        "time": ", ".join(times),
        "files": ", ".join(f"{name} {digest}" for name, digest in about.get("outputs", {}).items()),
    }
    lines = [about["name"], _indented(about["caption"], 2), ""]
    lines += [_indented(f"{name:<11}{text}", 2, 13) for name, text in facts.items() if text]
    lines.append(f"\n  {len(records)} run records" + ":" * bool(records))
    for key in records:
        record = records[key] if isinstance(records, dict) else {}
        inputs = ", ".join(f"{name.replace('_fingerprint', '')} {x}" for name, x in record.get("inputs", {}).items())
        lines.append(_indented(f"{key}  {record.get('configuration', 'its folder is not here')}", 2, 4))
        if record:
            lines.append(
                _indented(f"{record['status']}, {clock(record['seconds'])} on {record['hardware']}; {inputs}", 4)
            )
    return "\n".join(lines)


def _indented(text: str, first: int, rest: int | None = None) -> str:
    return fill(
        text,
        79,
        initial_indent=" " * first,
        subsequent_indent=" " * (first if rest is None else rest),
        break_long_words=False,
        break_on_hyphens=False,
    )
