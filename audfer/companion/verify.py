"""Whether a run gives what is published: ``audfer verify``, its certificate, and the manifest ``codecheck.yml``.

Each table and figure of a run is compared, number by number, with a reference: the committed files, or a folder. How
depends on what can be expected:

- *exact*: printed numbers, counts and texts anywhere, and every number where both were made by the same code on the
  same kind of machine. Equal means equal in all digits that the files have.
- *equivalence*: networks that were trained on another processor. No number may differ from the reference beyond chance
  (two-sided z test from the printed intervals, Holm-corrected at 1 %), and it is said whether all of them together are
  shown to be equal within ``MARGIN`` (two one-sided tests at 5 %).
- *tolerance*: numbers without an interval from another processor: within ``TOLERANCE`` of their column's range on
  average, and none beyond ``FARTHEST`` of it.

Files have to be what was made, too: their digests stand in their sidecars.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from .. import __version__
from ..errors import AudferError, InputError
from ..evaluation import LEVEL, holm
from ..files import atomic_file, checkout, file_digest, read_csv, write_json
from ..progress import clock
from ..results.captions import first_sentence
from ..results.provenance import code_commit, read_sidecars, this_machine

#: outputs (stems) that no training and no rendering enters
EXACT = ("a1_*", "a2_table4_*", "a2_key_points", "a3_regions")
#: columns that are exact whatever stands beside them: printed numbers and what is counted
_SURE = ("paper*", "printed", "clips", "frames", "folds", "seeds", "seed", "epoch", "n", "fold", "parameters")
#: columns that another processor may change at will: places in a t-SNE, chances
_FREE = ("x", "y", "p", "p_holm", "*_p", "*_p_holm", "detectable", "worst", "best")
#: points of a percentage by which all numbers of an output together may be off
MARGIN = 5.0
#: level of the test that a number differs, after Holm's correction
ALPHA = 0.01
#: shares of a column's range, on average and at most
TOLERANCE, FARTHEST = 0.1, 0.6
_DIGITS = 2e-5  # files have six
_RULES = (
    "- exact: equal in all digits of the files. Equivalence (training on another processor): no number differs beyond "
    f"chance (z test from the printed {100 * LEVEL:.0f} % intervals, Holm at {100 * ALPHA:g} %); “equivalent” where "
    f"all together are shown equal within {MARGIN:g} points, “compatible” where that is open. Tolerance (no interval): "
    f"within {100 * TOLERANCE:g} % of the column's range on average, none beyond {100 * FARTHEST:g} %."
)
PASSED = ("identical", "exact", "equivalent", "compatible", "within tolerance", "not made again")


@dataclass(frozen=True)
class Verdict:
    """What became of one table or figure.

    Attributes:
        name: its stem. how: "exact", "equivalence" or "tolerance".
        verdict: one of ``PASSED``, or "differs", "altered", "missing".
        numbers: compared. why: in words.
    """

    name: str
    how: str
    verdict: str
    numbers: int
    why: str

    @property
    def passed(self) -> bool:
        return self.verdict in PASSED


@dataclass(frozen=True)
class Certificate:
    """What ``verify`` found."""

    profile: str
    against: str
    verdicts: tuple[Verdict, ...]
    about: dict

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict:
        own = {"profile": self.profile, "against": self.against, "passed": self.passed, **self.about}
        return {**own, "verdicts": [asdict(verdict) for verdict in self.verdicts]}

    def to_markdown(self) -> str:
        """One page: the answer, what was compared with what, how, and a row for each table and figure."""
        counts = pd.Series([verdict.verdict for verdict in self.verdicts]).value_counts(sort=False)
        failed = [verdict.name for verdict in self.verdicts if not verdict.passed]
        answer = f"**Not confirmed**: {', '.join(failed)}." if failed else "**Confirmed.**"
        lines = [
            f"# Certificate: {self.profile} profile",
            "",
            f"{answer} {len(self.verdicts)} tables and figures: "
            + ", ".join(f"{count} {name}" for name, count in counts.items())
            + ".",
            "",
            f"- compared with: {self.against}",
            *(f"- {name.replace('_', ' ')}: {value}" for name, value in self.about.items() if value),
            _RULES,
            "",
            "| table or figure | how | verdict | numbers | why |",
            "| --- | --- | --- | ---: | --- |",
        ]
        for verdict in sorted(self.verdicts, key=lambda verdict: (verdict.passed, verdict.name)):
            words = verdict.why.replace("|", "\\|")
            lines.append(f"| {verdict.name} | {verdict.how} | {verdict.verdict} | {verdict.numbers} | {words} |")
        return "\n".join([*lines, ""])

    def save(self, folder: Path) -> Path:
        """Write ``certificate.md`` and ``certificate.json``; returns the first."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "certificate.json", self.to_json())
        with atomic_file(folder / "certificate.md") as temporary:
            temporary.write_text(self.to_markdown(), encoding="utf-8")
        return folder / "certificate.md"


@contextmanager
def committed(profile: str) -> Iterator[Path]:
    """The folder of a profile's tables and figures as the last commit has it.

    Raises:
        AudferError: no git, no checkout, or the profile's figures are not committed.
    """
    root, path = checkout(), f"figures/{profile}"
    try:
        done = subprocess.run(["git", "-C", str(root), "archive", "HEAD", path], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise AudferError(
            f"{path}: no committed files to compare with ({said.decode(errors='replace').strip()}); name a folder with "
            "--reference"
        ) from None
    with tempfile.TemporaryDirectory(prefix="audfer-reference-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / path


def verify(fresh: Path, reference: Path, against: str = "", made: set[str] | None = None) -> Certificate:
    """Compare a run's tables and figures with a reference.

    Args:
        fresh, reference: folders of one profile's tables and figures.
        against: what the reference is, in words.
        made: notebooks that the run went through; ``None`` = not known. What other notebooks make is not missed.

    Raises:
        InputError: the reference has no tables and figures.
    """
    old, new = read_sidecars(reference), read_sidecars(fresh)
    if not old:
        raise InputError(reference, "tables and figures", "none", "those of a finished run, with their .json files")
    verdicts = [
        *(_judged(stem, fresh, new.get(stem), reference, about, made) for stem, about in old.items()),
        *(
            Verdict(stem, "exact", "not made again", 0, "only in the run, the reference has no such output")
            for stem in new.keys() - old.keys()
        ),
    ]
    about = {
        "checked": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": this_machine(),
        "code": " ".join(filter(None, (f"audfer {__version__}", code_commit()))),
        "reference_machine": _common(old, "hardware"),
        "run_machine": _common(new, "hardware"),
    }
    return Certificate(fresh.name, against or str(reference), tuple(verdicts), about)


def _common(sidecars: dict[str, dict], name: str) -> str:
    return "; ".join(sorted({str(about[name]) for about in sidecars.values() if about.get(name)}))


def _judged(stem: str, fresh: Path, new: dict | None, reference: Path, old: dict, made: set[str] | None) -> Verdict:
    notebook = (new or old).get("made", {}).get("notebook")
    again = made is None or notebook is None or notebook in made
    how = _how(stem, old, new or {})
    if new is None or not (fresh / f"{stem}.csv").is_file():
        state = ("missing", "the run did not make it") if again else ("not made again", f"{notebook} was not run")
        return Verdict(stem, how, state[0], 0, state[1])
    for place, folder, about in (("run", fresh, new), ("reference", reference, old)):
        for name, digest in about.get("outputs", {}).items():
            if not (folder / name).is_file() or file_digest(folder / name) != digest:
                return Verdict(stem, how, "altered", 0, f"{name} of the {place} is not the file that was made")
    if (fresh / f"{stem}.csv").read_bytes() == (reference / f"{stem}.csv").read_bytes():
        if not again:
            return Verdict(stem, how, "not made again", 0, f"{notebook} was not run; the files are the reference's")
        return Verdict(stem, how, "identical", _size(fresh / f"{stem}.csv"), "the same numbers in all digits")
    return compare_frames(stem, how, read_csv(reference / f"{stem}.csv"), read_csv(fresh / f"{stem}.csv"))


def _size(path: Path) -> int:
    return int(read_csv(path).select_dtypes("number").notna().to_numpy().sum())


def _how(stem: str, old: dict, new: dict) -> str:
    """What can be expected of an output; see the module."""
    same = all(old.get(name) == new.get(name) for name in ("hardware", "components", "versions"))
    known = set(old.get("records", {})) == set(new.get("records", {})) and "components" in old
    if _named(stem, EXACT) or (same and known):
        return "exact"
    return "equivalence" if old.get("records") else "tolerance"


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def compare_frames(name: str, how: str, old: pd.DataFrame, new: pd.DataFrame) -> Verdict:
    """The verdict on one output's numbers.

    Args:
        how: "exact", or another word: what can be exact is asked to be, the rest by its intervals or a tolerance.
    """
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        found = f"{len(new)} rows of {new.shape[1]} columns instead of {len(old)} of {old.shape[1]}"
        return Verdict(name, how, "differs", 0, found)
    numeric = [column for column in old if all(pd.api.types.is_numeric_dtype(frame[column]) for frame in (old, new))]
    sure = [column for column in numeric if how == "exact" or _named(column, _SURE)]
    if how == "exact" or "question" not in old:  # sentences follow from numbers
        texts = [
            column for column in old if column not in numeric and (how == "exact" or column not in ("test", "answer"))
        ]
        for column in texts:
            if (different := old[column].fillna("").astype(str) != new[column].fillna("").astype(str)).any():
                return _different(name, how, column, old, new, int(np.argmax(different)))
    for column in sure:
        first, second = (frame[column].to_numpy(float) for frame in (old, new))
        if (different := ~np.isclose(first, second, rtol=_DIGITS, atol=1e-12, equal_nan=True)).any():
            return _different(name, how, column, old, new, int(np.argmax(different)))
    if how == "exact":
        return Verdict(name, how, "exact", int(old[numeric].notna().to_numpy().sum()), "equal in all digits")
    intervals = _intervals(numeric, sure)
    ends = {end for pair in intervals.values() for end in pair}
    plain = [c for c in numeric if c not in {*sure, *ends, *intervals} and not _named(c, _FREE)]
    return _by_intervals(name, old, new, intervals) if intervals else _by_tolerance(name, old, new, plain)


def _different(name: str, how: str, column: str, old: pd.DataFrame, new: pd.DataFrame, row: int) -> Verdict:
    words = f"row {row + 1}, {column}: {new[column].iloc[row]} instead of {old[column].iloc[row]}"
    return Verdict(name, how, "differs", len(old), words)


def _intervals(numeric: list[str], sure: list[str]) -> dict[str, tuple[str, str]]:
    """Column -> those of its ends."""
    found = {c: (f"{c}_low", f"{c}_high") for c in numeric if {f"{c}_low", f"{c}_high"} <= set(numeric)}
    if {"low", "high"} <= set(numeric) and (at := numeric.index("low")):
        found[numeric[at - 1]] = ("low", "high")
    return {column: ends for column, ends in found.items() if column not in sure}


def _by_intervals(name: str, old: pd.DataFrame, new: pd.DataFrame, intervals: dict[str, tuple[str, str]]) -> Verdict:
    change, error, places = [], [], []
    half = norm.ppf((1 + LEVEL) / 2)
    for column, (low, high) in intervals.items():
        scale = 1.0 if max(old[column].abs().max(), new[column].abs().max()) > 1.5 else 100.0
        widths = [(frame[high] - frame[low]).to_numpy(float) / (2 * half) for frame in (old, new)]
        both = (new[column] - old[column]).to_numpy(float)
        if (np.isfinite(old[column].to_numpy(float)) != np.isfinite(new[column].to_numpy(float))).any():
            return Verdict(name, "equivalence", "differs", len(old), f"{column}: other rows have a number")
        known = np.isfinite(both) & np.isfinite(widths[0]) & np.isfinite(widths[1])
        change.append(scale * both[known])
        error.append(scale * np.hypot(*widths)[known])
        places += [(column, int(row)) for row in np.flatnonzero(known)]
    change, error = np.concatenate(change), np.concatenate(error)
    if not len(change):
        return Verdict(name, "equivalence", "compatible", 0, "no number has an interval")
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(change == 0, 0.0, np.abs(change) / error)
    chance = holm(2 * norm.sf(z))
    worst = int(np.argmax(z))
    column, row = places[worst]
    farthest = f"{column} in row {row + 1}: {new[column].iloc[row]:.4g} instead of {old[column].iloc[row]:.4g}"
    if chance[worst] < ALPHA:
        return Verdict(name, "equivalence", "differs", len(change), f"{farthest}, p {chance[worst]:.2g} after Holm")
    mean, spread = change.mean(), np.sqrt((error**2).sum()) / len(change)
    bound = abs(mean) + norm.ppf(0.95) * spread
    shown = f"mean change {mean:+.2f} points, at most {bound:.2f} at 95 %; farthest: {farthest}"
    return Verdict(name, "equivalence", "equivalent" if bound < MARGIN else "compatible", len(change), shown)


def _by_tolerance(name: str, old: pd.DataFrame, new: pd.DataFrame, columns: list[str]) -> Verdict:
    count, off = 0, 0.0
    for column in columns:
        first, second = (frame[column].to_numpy(float) for frame in (old, new))
        span = np.nanmax(first) - np.nanmin(first) if np.isfinite(first).any() else 0.0
        shares = np.abs(second - first)[np.isfinite(first) & np.isfinite(second)] / (span or 1.0)
        count += len(shares)
        if len(shares) and (shares.mean() > TOLERANCE or shares.max() > FARTHEST):
            mean, most = (f"{100 * share:.0f} %" for share in (shares.mean(), shares.max()))
            words = f"{column}: off by {mean} of its range on average, {most} at most"
            return Verdict(name, "tolerance", "differs", count, words)
        off = max(off, shares.mean() if len(shares) else 0.0)
    return Verdict(
        name, "tolerance", "within tolerance", count, f"off by {100 * off:.1f} % of a column's range on average"
    )


# ------------------------------------------------------------------------------------------------------- codecheck.yml


def codecheck(figures: Path, minutes: float | None = None) -> str:
    """The manifest ``codecheck.yml`` (CODECHECK configuration file 2.0) of a profile's tables and figures.

    Args:
        figures: the profile's folder of the repository.
        minutes: of the whole run, as measured; ``None`` = only the times that the sidecars know.
    """
    paper = {
        "title": "Action Unit Enhance Dynamic Facial Expression Recognition",
        "authors": [
            {"name": "Feng Liu", "ORCID": "0000-0002-5289-5761"},
            {"name": "Lingna Gu"},
            {"name": "Chen Shi"},
            {"name": "Xiaolan Fu", "ORCID": "0000-0002-6944-1037"},
        ],
        "reference": "https://doi.org/10.48550/arXiv.2507.07678",
    }
    lines = [
        "---",
        "# Written by `python -m audfer.companion.readme` from the sidecars in figures/; not by hand.",
        "paper:",
    ]
    lines += [f"  title: {_quoted(paper['title'])}", "  authors:"]
    for author in paper["authors"]:
        lines.append(f"    - name: {_quoted(author['name'])}")
        lines += [f"      ORCID: {author[name]}" for name in author if name == "ORCID"]
    lines += [f"  reference: {paper['reference']}", "manifest:"]
    for stem, about in read_sidecars(figures).items():
        made = about.get("made", {})
        kind = "png" if (figures / f"{stem}.png").is_file() else "md"
        seconds = sum(value or 0.0 for value in about.get("seconds", {}).values())
        how = (
            "exact on every machine"
            if _named(stem, EXACT)
            else "exact on the same kind of machine, else by `audfer verify`"
        )
        lines += [
            f"  - file: figures/{figures.name}/{stem}.{kind}",
            f"    comment: {_quoted(first_sentence(about['caption']))}",
            f"    numbers: figures/{figures.name}/{stem}.csv",
            f"    command: {_quoted(made.get('command', f'audfer reproduce --profile {figures.name}'))}",
            f"    time: {_quoted(clock(seconds) + ', training included' if seconds else 'seconds')}",
            "    resources: 2 CPU cores, 4 GB of memory, no GPU, no network",
            f"    reproducible: {_quoted(how)}",
        ]
    whole = f" ({minutes:.0f} minutes on two cores)" if minutes else ""
    lines += [
        "codechecker:",
        '  - name: "none yet; `audfer verify` is the authors\' own check"',
        f"summary: {_quoted(f'make reproduce{whole}, then make verify: every number beside the committed files.')}",
        "repository: .",
        f"check_command: {_quoted('make reproduce && make verify')}",
        'certificate: "not assigned: no independent check has been made"',
        "report: work/" + figures.name + "/certificate.md",
        "version: https://codecheck.org.uk/spec/config/2.0/",
    ]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON is YAML
