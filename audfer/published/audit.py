"""Is a printed results table consistent with itself, with other tables and with the number of clips behind it?

The checks are generic: they take ``Sheet``s (a table as printed, which columns average to which, and how many clips
each class has under each possible protocol) and return findings, one row each, with the columns of ``FINDING``. They
know nothing about any paper. ``audit`` runs them all; ``printed.sheets`` makes the sheets of the transcribed tables.

``beyond`` says by how much a printed number is further from the expected one than rounding to the printed digits can
explain, in the printed unit (percentage points for accuracies); NaN where a finding is not about a distance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from . import integer_count

FINDING: tuple[str, ...] = ("kind", "table", "row", "column", "printed", "expected", "beyond", "why")
#: an average over folds differs from the mean weighted by pooled counts; points
FOLD_SLACK = 0.03
#: largest probability that a row (a column) fits a number of clips by accident while it counts as proven
BY_ACCIDENT = 1e-4
_TINY = 1e-6


# ------------------------------------------------------------------------------------------------------------- sheets
@dataclass(frozen=True)
class Sheet:
    """One printed results table, or the part of one that is about one dataset.

    Attributes:
        name: "AU-DFER Table 2".
        rows: text exactly as printed, columns in the printed order; index: the rows' labels, unique. Cells without a
            number ("", "-") are passed over.
        classes: columns whose mean is ``mean`` and whose mean weighted by the clips is ``weighted``.
        mean, weighted: "UAR" and "WAR"; "" where the table has no such column.
        counts: protocol -> clips a class, in the order of ``classes``, or the clips in all where there are no classes:
            what an accuracy in this table could have been measured on. Empty: not known, nothing is checked.
        stated: protocols that the paper states; empty: not stated, then rows are compared with each other.
        dataset: "DFEW", or "" where it does not apply.
        methods: method of each row, for comparisons between tables; ``None``: the labels.
        baselines: row -> row that the paper says it surpasses in ``weighted`` and ``mean``.
        ranks: (row, column) -> rank that is printed for the cell, 1 = best.
        own: labels of the rows that the paper's authors measured themselves.
        costs: columns that hold parameters, operations or times.
    """

    name: str
    rows: pd.DataFrame
    classes: tuple[str, ...] = ()
    mean: str = "UAR"
    weighted: str = "WAR"
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stated: tuple[str, ...] = ()
    dataset: str = ""
    methods: Sequence[str] | None = None
    baselines: Mapping[str, str] = field(default_factory=dict)
    ranks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()

    @cached_property
    def values(self) -> pd.DataFrame:
        """The numbers, NaN where none is printed."""
        return self.rows.apply(pd.to_numeric, errors="coerce")

    @cached_property
    def half(self) -> pd.DataFrame:
        """Half a unit of each cell's last printed digit: how far rounding can move it."""
        return self.rows.map(lambda text: 0.5 * 10.0 ** -_digits(text))

    @cached_property
    def method(self) -> dict[str, str]:
        """Row label -> method's name in a spelling that tables share."""
        names = self.rows.index if self.methods is None else self.methods
        return {label: plain_method(name) for label, name in zip(self.rows.index, names, strict=True)}

    @cached_property
    def totals(self) -> dict[str, int]:
        """Protocol -> clips in all."""
        return {name: int(np.sum(numbers)) for name, numbers in self.counts.items()}

    def has(self, column: str) -> bool:
        """Whether the table prints this column."""
        return column != "" and column in self.rows


_ALIASES = {
    "reslstm": "resnet18+lstm",
    "r(2+1)d": "r(2+1)d18",
    "nrdfer": "nrdfernet",
    "dense161": "densenet161",
    "reslstm18": "resnet18+lstm",
    "res+lstm": "resnet18+lstm",
}


def plain_method(name: str) -> str:
    """A method's name without year, authors, capitals and punctuation, so that two papers' spellings agree.

    Example:
        >>> plain_method("Res+LSTM (Zhao and Liu, 2021)"), plain_method("R(2+1)D")
        ('resnet18+lstm', 'r(2+1)d18')
    """
    short = re.sub(r"\s*\([^()]*\d{4}[a-z]?\)$", "", name)
    plain = re.sub(r"[^a-z0-9+()]", "", short.lower())
    return _ALIASES.get(plain, plain)


def _frame(findings: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(findings, columns=list(FINDING))
    return frame.astype({"beyond": float})


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _interior(value: float) -> bool:
    """0 and 100 fit any number of clips and occur in many rows: they say nothing."""
    return np.isfinite(value) and 0 < value < 100


# ---------------------------------------------------------------------------------------------------- within a row
def recomputed(sheet: Sheet) -> pd.DataFrame:
    """Mean and weighted mean of each row's classes beside the printed ones.

    Returns:
        One row a printed row with all its classes: row, mean_printed, mean_recomputed, mean_beyond, weighted_printed,
        weighted_recomputed, weighted_beyond, protocol (whose counts come nearest). ``beyond`` is 0 where rounding and,
        for the weighted mean, the average over folds explain the difference; NaN where nothing is printed.
    """
    rows, columns = [], list(sheet.classes)
    shares = {name: np.asarray(counts, float) / np.sum(counts) for name, counts in sheet.counts.items()}
    slack = FOLD_SLACK if len(shares) > 1 else 0.0
    table = zip(
        sheet.rows.index, sheet.values[columns].to_numpy(float), sheet.half[columns].to_numpy(float), strict=True
    )
    for label, accuracy, half in table if columns else ():
        if np.isnan(accuracy).any():
            continue
        mean, mean_beyond = _total(sheet, label, sheet.mean, accuracy.mean(), half.mean())
        options = {
            name: (*_total(sheet, label, sheet.weighted, accuracy @ share, half @ share + slack), accuracy @ share)
            for name, share in shares.items()
        }
        nearest = min(options, key=lambda name: np.nan_to_num(options[name][1])) if options else ""
        weighted, weighted_beyond, value = options.get(nearest, (np.nan, np.nan, np.nan))
        rows.append((label, mean, accuracy.mean(), mean_beyond, weighted, value, weighted_beyond, nearest))
    return pd.DataFrame(
        rows,
        columns=[
            "row",
            "mean_printed",
            "mean_recomputed",
            "mean_beyond",
            "weighted_printed",
            "weighted_recomputed",
            "weighted_beyond",
            "protocol",
        ],
    )


def _total(sheet: Sheet, label: str, column: str, expected: float, tolerance: float) -> tuple[float, float]:
    """A row's printed total and how far beyond rounding it is from ``expected``."""
    if not sheet.has(column) or np.isnan(sheet.values.at[label, column]):
        return np.nan, np.nan
    printed = sheet.values.at[label, column]
    return printed, max(abs(printed - expected) - tolerance - sheet.half.at[label, column] - _TINY, 0.0)


def check_sums(sheet: Sheet) -> pd.DataFrame:
    """Mean of the classes = UAR, and their mean weighted by the clips = WAR (whatever the protocol)."""
    findings = []
    for row in recomputed(sheet).itertuples():
        for kind, column, _printed, expected, beyond in (
            ("mean of classes", sheet.mean, row.mean_printed, row.mean_recomputed, row.mean_beyond),
            ("count-weighted mean", sheet.weighted, row.weighted_printed, row.weighted_recomputed, row.weighted_beyond),
        ):
            if beyond > 0:
                findings.append(
                    (
                        kind,
                        sheet.name,
                        row.row,
                        column,
                        sheet.rows.loc[row.row, column],
                        _number(expected),
                        beyond,
                        f"the row's classes give {expected:.3f}"
                        + (f" with the counts of {row.protocol}" if column == sheet.weighted else ""),
                    )
                )
    return _frame(findings)


def check_cells(sheet: Sheet) -> pd.DataFrame:
    """A misprint in one class: a digit changed, lost or added in one cell explains why the row's sums are off.

    Tried on rows whose UAR is not the mean of their classes. The cell must be the only one for which some value one
    digit away mends both sums and, where the table's counts are known, makes the row whole clips of one protocol.
    """
    findings = []
    for row in recomputed(sheet).itertuples():
        if not row.mean_beyond > 0:
            continue
        label, classes = row.row, len(sheet.classes)
        mended: dict[str, tuple[str, str]] = {}
        for column in sheet.classes:
            printed, half = sheet.values.loc[label, column], sheet.half.loc[label, column]
            centre = printed + classes * (row.mean_printed - row.mean_recomputed)
            reach = classes * (sheet.half.loc[label, sheet.mean] + half)
            unit = 2 * half
            for value in np.arange(np.floor((centre - reach) / unit), np.ceil((centre + reach) / unit) + 1) * unit:
                text = f"{value:.{_digits(sheet.rows.loc[label, column])}f}"
                if not 0 <= value <= 100 or not _one_digit(sheet.rows.loc[label, column], text):
                    continue
                one = _replace(sheet, label, {column: text})
                sums = recomputed(one).iloc[0]
                whole = [name for name in sheet.counts if _fits(one, label, name) == classes]
                if sums["mean_beyond"] == 0 and not sums["weighted_beyond"] > 0 and (whole or not sheet.counts):
                    mended[column] = (text, whole[0] if whole else "")
        if len(mended) == 1:
            ((column, (text, protocol)),) = mended.items()
            printed = sheet.values.loc[label, column]
            findings.append(
                (
                    "misprinted cell",
                    sheet.name,
                    label,
                    column,
                    sheet.rows.loc[label, column],
                    text,
                    abs(printed - float(text)) - 2 * sheet.half.loc[label, column],
                    "the only digit that mends the row's sums"
                    + (f", with whole clips of {protocol}" if protocol else ""),
                )
            )
    return _frame(findings)


def _digits(text: str) -> int:
    return len(str(text).partition(".")[2])


def _one_digit(first: str, second: str) -> bool:
    """Whether one character changed, lost or added leads from one text to the other."""
    if len(first) == len(second):
        return sum(a != b for a, b in zip(first, second, strict=True)) == 1
    short, long = sorted((first, second), key=len)
    return len(long) - len(short) == 1 and any(long[:k] + long[k + 1 :] == short for k in range(len(long)))


def _replace(sheet: Sheet, label: str, cells: Mapping[str, str]) -> Sheet:
    """A sheet of one row with some cells changed."""
    row = sheet.rows.loc[[label]].copy()
    for column, text in cells.items():
        row.loc[label, column] = text
    return Sheet(sheet.name, row, sheet.classes, sheet.mean, sheet.weighted, sheet.counts, sheet.stated)


def check_swaps(sheet: Sheet) -> pd.DataFrame:
    """Two columns of one row changed places: WAR and UAR, or two classes; the sums and whole clips say which.

    Where the mean of the classes is off, WAR and UAR are exchanged; where only the weighted mean is off, every pair of
    classes is. It must be the only pair that mends both sums and, for classes, turns all of them into whole clips.
    """
    findings = []
    for row in recomputed(sheet).itertuples():
        if (
            not (row.mean_beyond > 0 or row.weighted_beyond > 0)
            or not sheet.has(sheet.mean)
            or not sheet.has(sheet.weighted)
        ):
            continue
        label, totals = row.row, row.mean_beyond > 0
        share = np.asarray(sheet.counts[row.protocol], float) / np.sum(sheet.counts[row.protocol])
        accuracy = sheet.values.loc[label, list(sheet.classes)].to_numpy(float)
        missing = row.weighted_printed - row.weighted_recomputed
        pairs = (
            [(sheet.mean, sheet.weighted)]
            if totals
            else [
                (sheet.classes[i], sheet.classes[j])
                for i, j in combinations(range(len(sheet.classes)), 2)
                # a first look, so that the rest is rarely needed; half a point covers rounding and other protocols
                if abs((accuracy[j] - accuracy[i]) * (share[i] - share[j]) - missing) < 0.5
            ]
        )
        mended = []
        for first, second in pairs:
            one = _replace(sheet, label, {first: sheet.rows.at[label, second], second: sheet.rows.at[label, first]})
            sums = recomputed(one).iloc[0]
            whole = totals or any(_fits(one, label, name) == len(sheet.classes) for name in sheet.counts)
            if sums["mean_beyond"] == 0 and sums["weighted_beyond"] == 0 and whole:
                mended.append((first, second))
        if len(mended) == 1:
            first, second = mended[0]
            a, b = sheet.rows.at[label, first], sheet.rows.at[label, second]
            findings.append(
                (
                    "swapped columns",
                    sheet.name,
                    label,
                    f"{first} / {second}",
                    f"{a} / {b}",
                    f"{b} / {a}",
                    abs(float(a) - float(b)),
                    "only with the two exchanged do the row's sums agree",
                )
            )
    return _frame(findings)


def check_shifts(sheet: Sheet) -> pd.DataFrame:
    """A class value got lost and the row slipped left by one: solve it from UAR and from WAR, and compare.

    Tried on rows whose sums are both off. The numbers after the gap are moved right by one; the last printed cell drops
    out. Two equations for one unknown: they agree by accident in about one try of a thousand.
    """
    findings = []
    if not sheet.has(sheet.mean) or not sheet.has(sheet.weighted):
        return _frame(findings)
    columns = [c for c in sheet.rows.columns if c in (*sheet.classes, sheet.mean, sheet.weighted)]
    for row in recomputed(sheet).itertuples():
        if not (row.mean_beyond > 0 and row.weighted_beyond > 0):
            continue
        text, solved = sheet.rows.loc[row.row, columns].tolist(), []
        for gap in range(len(sheet.classes)):
            moved = pd.Series([*text[:gap], np.nan, *text[gap:-1]], index=columns)
            lost, numbers = columns[gap], pd.to_numeric(moved)
            accuracy = numbers[list(sheet.classes)].to_numpy(float)
            place, classes = sheet.classes.index(lost), len(sheet.classes)
            others = np.delete(np.arange(classes), place)
            half = 0.5 * 10.0 ** -_digits(text[0])
            from_mean = classes * numbers[sheet.mean] - accuracy[others].sum()
            if not 0 <= from_mean <= 100:
                continue
            for protocol, counts in sheet.counts.items():
                share = np.asarray(counts, float) / np.sum(counts)
                from_weighted = (numbers[sheet.weighted] - accuracy[others] @ share[others]) / share[place]
                rounding = half * (2 - share[place]) + FOLD_SLACK * (len(sheet.counts) > 1)
                slack = half * (2 * classes - 1) + rounding / share[place]
                if abs(from_mean - from_weighted) <= slack and abs(from_mean - float(text[gap])) > slack:
                    one = _replace(sheet, row.row, moved.dropna().to_dict() | {lost: _number(from_weighted)})
                    whole = _fits(one, row.row, protocol)
                    solved.append((whole, -gap, lost, from_mean, from_weighted))
        if solved:
            _, gap, lost, from_mean, from_weighted = max(solved)
            findings.append(
                (
                    "shifted row",
                    sheet.name,
                    row.row,
                    f"{lost} to {columns[-1]}",
                    " ".join(text[-gap:]),
                    " ".join([_number(from_weighted), *text[-gap:-1]]),
                    np.nan,
                    f"with {lost} lost and the rest moved right, UAR asks for {from_mean:.2f} there and WAR for "
                    f"{from_weighted:.2f}",
                )
            )
    return _frame(findings)


# -------------------------------------------------------------------------------------------------------- whole clips
def _chance(value: float, half: float, count: int) -> float:
    """Probability that an arbitrary percentage is a whole number of ``count`` clips at the printed digits."""
    return min(1.0, 2 * half * count / 100) if _interior(value) else 1.0


def _whole(sheet: Sheet, label: str, column: str, count: int) -> bool:
    return integer_count(sheet.values.at[label, column], int(count), _digits(sheet.rows.at[label, column])) is not None


def _fits(sheet: Sheet, label: str, protocol: str) -> int:
    return sum(
        _whole(sheet, label, column, count) for column, count in zip(sheet.classes, sheet.counts[protocol], strict=True)
    )


def protocols(sheet: Sheet) -> pd.DataFrame:
    """Which protocol turns the accuracies of each row into whole numbers of clips?

    Returns:
        One row a printed row with all its classes: row; ``proven``, the protocol that fits all classes but at most one,
        where the fitting ones would do so by accident with a probability below ``BY_ACCIDENT`` (protocols with equal
        counts are joined, "1 or 2"), or ""; ``best``, the protocol with the most fitting classes; ``fits``, how many;
        ``classes``; ``misfit``, the class that does not fit the proven protocol, or ""; ``by_accident``.
    """
    merged: dict[tuple, list[str]] = {}
    for name, counts in sheet.counts.items():
        merged.setdefault(tuple(counts), []).append(name)
    rows = []
    for label in sheet.rows.index if sheet.classes else ():
        values = sheet.values.loc[label, list(sheet.classes)]
        if values.isna().any():
            continue
        options = []
        for counts, names in merged.items():
            fit = [_whole(sheet, label, c, n) for c, n in zip(sheet.classes, counts, strict=True)]
            chance = np.prod(
                [
                    _chance(values[c], sheet.half.at[label, c], n)
                    for c, n, ok in zip(sheet.classes, counts, fit, strict=True)
                    if ok
                ]
            )
            options.append((-sum(fit), chance, " or ".join(names), fit))
        if not options:
            continue
        missed, chance, name, fit = min(options)
        proven = -missed >= len(sheet.classes) - 1 and chance < BY_ACCIDENT
        misfit = sheet.classes[fit.index(False)] if proven and not all(fit) else ""
        rows.append((label, name if proven else "", name, -missed, len(sheet.classes), misfit, chance))
    return pd.DataFrame(rows, columns=["row", "proven", "best", "fits", "classes", "misfit", "by_accident"])


def check_clips(sheet: Sheet) -> pd.DataFrame:
    """Granularity: k / n against the known class sizes.

    Kinds: "not whole clips" (one cell of a row whose other cells prove the protocol), "no protocol fits" (a row that is
    whole clips of none: an average of folds, other clips, or misprints) and "other protocol" (a row proven on other
    clips than the paper states or, where it states nothing, than most of the table's proven rows).
    """
    findings = []
    rows = protocols(sheet) if sheet.counts else pd.DataFrame(columns=["proven"])
    usual = Counter(rows["proven"][rows["proven"] != ""]).most_common(1)
    expected = " or ".join(sheet.stated) or (usual[0][0] if usual else "")
    for row in rows.itertuples():
        if row.misfit:
            count = sheet.counts[row.proven.split(" or ")[0]][sheet.classes.index(row.misfit)]
            value = sheet.values.loc[row.row, row.misfit]
            nearest = 100 * round(value * count / 100) / count
            findings.append(
                (
                    "not whole clips",
                    sheet.name,
                    row.row,
                    row.misfit,
                    sheet.rows.loc[row.row, row.misfit],
                    _number(nearest),
                    abs(value - nearest) - sheet.half.loc[row.row, row.misfit],
                    f"not k of {count}, while the row's other cells are whole clips of {row.proven}",
                )
            )
        if not row.proven and row.fits < row.classes:
            findings.append(
                (
                    "no protocol fits",
                    sheet.name,
                    row.row,
                    "all classes",
                    "",
                    "",
                    np.nan,
                    f"an average of folds, other clips or misprints; at best {row.fits} of {row.classes} cells "
                    f"({row.best})",
                )
            )
        if row.proven and expected and row.proven != expected:
            stated = "the paper states" if sheet.stated else f"most of the table's proven rows ({usual[0][1]}) are"
            findings.append(
                (
                    "other protocol",
                    sheet.name,
                    row.row,
                    "all classes",
                    row.proven,
                    expected,
                    np.nan,
                    f"{row.fits} of {row.classes} cells are whole clips of {row.proven} (by accident: "
                    f"{row.by_accident:.0e}); {stated} {expected}",
                )
            )
    return _frame(findings)


def check_total(sheet: Sheet) -> pd.DataFrame:
    """Are the overall accuracies of a table without classes whole clips of another test set than the stated one?

    One value alone proves nothing; a column of different values that all fit one total does, if that would happen by
    accident with a probability below 0.01 over all the totals that are tried.
    """
    findings = []
    if sheet.classes or not sheet.counts or not sheet.has(sheet.weighted):
        return _frame(findings)
    column = sheet.rows[sheet.weighted][sheet.values[sheet.weighted].map(_interior)].drop_duplicates()
    options = []
    for name, total in sheet.totals.items():
        fit = [_whole(sheet, label, sheet.weighted, total) for label in column.index]
        chance = np.prod(
            [
                _chance(sheet.values.loc[label, sheet.weighted], sheet.half.loc[label, sheet.weighted], total)
                for label in column.index
            ]
        )
        options.append((-sum(fit), chance, name, total))
    if not options or not len(column):
        return _frame(findings)
    missed, chance, name, total = min(options)
    if -missed == len(column) and chance * len(options) < 0.01 and sheet.stated and name not in sheet.stated:
        findings.append(
            (
                "other protocol",
                sheet.name,
                "all rows",
                sheet.weighted,
                f"{len(column)} values",
                " or ".join(sheet.stated),
                np.nan,
                f"all {len(column)} different values are whole clips of {total} "
                f"({name}; by accident: {chance:.0e}); the paper states {' or '.join(sheet.stated)}",
            )
        )
    return _frame(findings)


# -------------------------------------------------------------------------------------------------------- between rows
def check_copies(sheet: Sheet, run: int = 3) -> pd.DataFrame:
    """Numbers that occur twice: ``run`` neighbouring cells of two methods, WAR = UAR in one row, or a cost of three or
    more digits printed for several methods."""
    findings = []
    accuracies = [c for c in sheet.rows.columns if c in (*sheet.classes, sheet.mean, sheet.weighted)]
    text = sheet.rows[accuracies].to_numpy()
    telling = sheet.values[accuracies].map(_interior).to_numpy()
    for (i, first), (j, second) in combinations(enumerate(sheet.rows.index), 2):
        if sheet.method[first] == sheet.method[second]:
            continue
        same = (text[i] == text[j]) & telling[j]
        start = 0
        for end in range(len(same) + 1):
            if end == len(same) or not same[end]:
                if end - start >= run:
                    columns = accuracies[start:end]
                    findings.append(
                        (
                            "copied cells",
                            sheet.name,
                            f"{second} = {first}",
                            f"{columns[0]} to {columns[-1]}",
                            " ".join(sheet.rows.loc[second, columns]),
                            "",
                            np.nan,
                            f"{end - start} neighbouring cells of two methods are equal",
                        )
                    )
                start = end + 1
    if sheet.has(sheet.mean) and sheet.has(sheet.weighted):
        for label in sheet.rows.index:
            mean, weighted = sheet.rows.loc[label, [sheet.mean, sheet.weighted]]
            if mean == weighted and _interior(sheet.values.loc[label, sheet.mean]):
                findings.append(
                    (
                        "copied cells",
                        sheet.name,
                        label,
                        f"{sheet.mean} = {sheet.weighted}",
                        mean,
                        "",
                        np.nan,
                        "one number in both columns",
                    )
                )
    for column in sheet.costs:
        by_text: dict[str, list[str]] = {}
        for label in sheet.rows.index:
            text = sheet.rows.loc[label, column]
            if len(re.sub(r"\D", "", text).lstrip("0")) >= 3:
                by_text.setdefault(text, []).append(label)
        for text, labels in by_text.items():
            names = {sheet.method[label] for label in labels}
            if len(names) > 1:
                findings.append(
                    (
                        "copied cells",
                        sheet.name,
                        ", ".join(labels),
                        column,
                        text,
                        "",
                        np.nan,
                        f"one cost for {len(names)} methods",
                    )
                )
    return _frame(findings)


def check_order(sheets: Sequence[Sheet]) -> pd.DataFrame:
    """WAR below UAR where nearly all rows have it above: columns that changed places in a table without classes.

    With more clips in the classes that are easy, WAR exceeds UAR. Rows are compared with all rows of the given sheets;
    nothing is said unless at least four fifths of them agree on the sign.
    """
    findings, gaps = [], []
    for sheet in sheets:
        if sheet.has(sheet.mean) and sheet.has(sheet.weighted):
            gap = (sheet.values[sheet.weighted] - sheet.values[sheet.mean]).dropna()
            gaps += [
                (sheet, label, value)
                for label, value in gap.items()
                if abs(value) > 2 * sheet.half.loc[label, sheet.mean]
            ]
    above = np.array([value > 0 for *_, value in gaps])
    if not len(above) or max(above.mean(), 1 - above.mean()) < 0.8:
        return _frame(findings)
    usual = above.mean() > 0.5
    for (sheet, label, value), up in zip(gaps, above, strict=True):
        if up != usual and not sheet.classes:
            weighted, mean = sheet.rows.loc[label, [sheet.weighted, sheet.mean]]
            findings.append(
                (
                    "swapped columns",
                    sheet.name,
                    label,
                    f"{sheet.weighted} / {sheet.mean}",
                    f"{weighted} / {mean}",
                    f"{mean} / {weighted}",
                    abs(value),
                    f"{sheet.weighted} is {'below' if usual else 'above'} "
                    f"{sheet.mean}; in {max(above.sum(), (~above).sum())} of {len(above)} rows it is the other way",
                )
            )
    return _frame(findings)


def check_claims(sheet: Sheet) -> pd.DataFrame:
    """Rows that the text says surpass another row in WAR and UAR, and do not."""
    findings = []
    for label, other in sheet.baselines.items():
        for column in (sheet.weighted, sheet.mean):
            printed, expected = sheet.values.loc[label, column], sheet.values.loc[other, column]
            if printed <= expected:
                findings.append(
                    (
                        "claim contradicted",
                        sheet.name,
                        label,
                        column,
                        sheet.rows.loc[label, column],
                        f"above {sheet.rows.loc[other, column]}",
                        expected - printed,
                        f"not above {other}",
                    )
                )
    return _frame(findings)


def check_ranks(sheet: Sheet) -> pd.DataFrame:
    """Printed ranks (bold, underlined, bracketed) against the column's order; equal numbers share a rank."""
    findings = []
    for (label, column), rank in sheet.ranks.items():
        better = sorted({v for v in sheet.values[column].dropna() if v > sheet.values.loc[label, column]}, reverse=True)
        if len(better) + 1 != rank:
            findings.append(
                (
                    "wrong rank",
                    sheet.name,
                    label,
                    column,
                    f"{sheet.rows.loc[label, column]} (rank {rank})",
                    f"rank {len(better) + 1}",
                    np.nan,
                    "higher: " + ", ".join(f"{v:g}" for v in better),
                )
            )
    return _frame(findings)


# ------------------------------------------------------------------------------------------------------ between tables
def check_agreement(sheets: Sequence[Sheet]) -> pd.DataFrame:
    """One method, dataset and column in two tables with two numbers.

    Kinds: "disagreement"; "number of another dataset" where the odd one is printed for that method and another dataset
    elsewhere; "swapped columns" where WAR and UAR are each other's. Rows that the authors measured themselves are
    compared with each other only.
    """
    findings, seen = [], {}
    for sheet in sheets:
        for label in sheet.rows.index:
            for column in sheet.rows.columns:
                value = sheet.values.loc[label, column]
                if np.isfinite(value):
                    # parameters and operations belong to a method, accuracies to a method on a dataset
                    where = "" if column in sheet.costs else sheet.dataset
                    who = (label if label in sheet.own else sheet.method[label]).casefold()
                    key = (label in sheet.own, who, where, column)
                    seen.setdefault(key, []).append((sheet, label, value, sheet.half.loc[label, column]))
    for (own, who, dataset, column), cells in seen.items():
        done = set()
        for (sheet, label, value, half), (other, row, theirs, width) in combinations(cells, 2):
            # one number printed twice to the same digits is the same text; to other digits, it is rounded
            beyond = abs(value - theirs) - (max(half, width) if half != width else 0)
            if sheet is other or beyond <= _TINY or (value, theirs) in done:
                continue
            done.add((value, theirs))
            partner = {sheet.weighted: sheet.mean, sheet.mean: sheet.weighted}.get(column)
            crossed = (
                partner
                and other.has(partner)
                and (
                    abs(other.values.loc[row, partner] - value) + abs(theirs - sheet.values.loc[label, partner]) < _TINY
                )
            )
            elsewhere = sorted(
                {
                    f"{s.name} ({key[2]})"
                    for key, group in seen.items()
                    for s, _, v, _ in group
                    if key[:2] == (own, who) and key[2] not in ("", dataset) and abs(v - value) < _TINY
                }
            )
            kind = "swapped columns" if crossed else "number of another dataset" if elsewhere else "disagreement"
            if crossed:
                why = f"{other.name} prints this number under {partner}"
            else:
                why = f"{other.name} prints {other.rows.loc[row, column]}" + (
                    f"; the number itself stands in {', '.join(elsewhere)}" if elsewhere else ""
                )
            findings.append(
                (
                    kind,
                    sheet.name,
                    label,
                    column,
                    sheet.rows.loc[label, column],
                    other.rows.loc[row, column],
                    beyond,
                    why,
                )
            )
    return _frame(findings)


def check_misplaced(sheets: Sequence[Sheet], run: int = 2) -> pd.DataFrame:
    """Neighbouring numbers of a method that another table prints under other headings."""
    findings = []
    for sheet, other in combinations(sheets, 2):
        for label in sheet.rows.index:
            for row in other.rows.index:
                if sheet.method[label] != other.method[row]:
                    continue
                findings += _moved(sheet, label, other, row, run)
    return _frame(findings)


def _moved(sheet: Sheet, label: str, other: Sheet, row: str, run: int) -> list[tuple]:
    findings = []
    a, b = sheet.rows.loc[label], other.rows.loc[row]
    x, y = (
        np.array(
            [
                text if _interior(number) else None
                for text, number in zip(part.rows.loc[name], part.values.loc[name], strict=True)
            ]
        )
        for part, name in ((sheet, label), (other, row))
    )
    for offset in range(-len(x) + 1, len(y)):
        end, length = min(len(x), len(y) - offset), 0
        for i in range(max(0, -offset), end + 1):
            same = i < end and x[i] is not None and x[i] == y[i + offset]
            if same and (a.index[i] != b.index[i + offset] or sheet.dataset != other.dataset):
                length += 1
                continue
            if length >= run:
                here, there = a.index[i - length : i], b.index[i - length + offset : i + offset]
                findings.append(
                    (
                        "misplaced cells",
                        other.name,
                        row,
                        f"{there[0]} to {there[-1]}",
                        " ".join(b.loc[there]),
                        "",
                        np.nan,
                        f"{sheet.name} prints the same {length} numbers under {', '.join(here)}"
                        + (f" of {sheet.dataset}" if sheet.dataset != other.dataset else ""),
                    )
                )
            length = 0
    return findings


def check_origin(sheets: Sequence[Sheet], origins: Sequence[Sheet]) -> pd.DataFrame:
    """Improved rows of the authors' own that do not surpass what the baseline's authors print for the baseline.

    Args:
        sheets: with ``baselines`` (improved row -> local baseline).
        origins: tables of the baselines' own authors, one protocol each; rows are methods.
    """
    findings = []
    for sheet in sheets:
        for origin in (o for o in origins if o.dataset == sheet.dataset):
            for label, baseline in sheet.baselines.items():
                rows = [r for r in origin.rows.index if origin.method[r] == sheet.method[label]]
                for row in rows:
                    for column in (sheet.weighted, sheet.mean):
                        theirs = origin.values.loc[row, column] if origin.has(column) else np.nan
                        printed = sheet.values.loc[label, column]
                        if printed <= theirs:
                            findings.append(
                                (
                                    "not above the original baseline",
                                    sheet.name,
                                    label,
                                    column,
                                    sheet.rows.loc[label, column],
                                    f"above {origin.rows.loc[row, column]}",
                                    theirs - printed,
                                    f"{origin.name} prints {origin.rows.loc[row, column]} for the baseline, this table "
                                    f"{sheet.rows.loc[baseline, column]}",
                                )
                            )
    return _frame(findings)


#: checks of one sheet
CHECKS = (
    check_sums,
    check_cells,
    check_swaps,
    check_shifts,
    check_clips,
    check_total,
    check_copies,
    check_claims,
    check_ranks,
)
#: checks of several sheets together
CROSS_CHECKS = (check_agreement, check_misplaced)


def audit(sheets: Sequence[Sheet], origins: Sequence[Sheet] = ()) -> pd.DataFrame:
    """Every check on every sheet.

    Args:
        sheets: tables, see ``sheets``.
        origins: see ``check_origin``.

    Returns:
        Findings (``FINDING``), in the order of the sheets.
    """
    papers: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        papers.setdefault(sheet.name.split(" Table")[0], []).append(sheet)
    parts = [check(sheet) for sheet in sheets for check in CHECKS]
    parts += [check_order(group) for group in papers.values()]
    parts += [check(sheets) for check in CROSS_CHECKS] + [check_origin(sheets, origins)]
    found = pd.concat([part for part in parts if len(part)] or [_frame([])], ignore_index=True)
    order = {sheet.name: k for k, sheet in enumerate(sheets)}
    # one fact can be seen from two sides (WAR and UAR of a swapped pair, both tables of a disagreement)
    found = found.drop_duplicates(["kind", "table", "row", "column", "printed", "expected"])
    return found.sort_values("table", key=lambda names: names.map(order), kind="stable", ignore_index=True)
