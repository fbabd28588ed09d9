"""Is a printed results table consistent with itself, with other tables and with the number of clips behind it?

The checks are generic: they take ``Sheet``s (a table as printed, which columns average to which, and how many clips
each class has under each possible protocol) and return findings, one row each, with the columns of ``FINDING``. They
know nothing about any paper. ``audit`` runs them all; ``printed.sheets`` makes the sheets of the transcribed tables.

``beyond`` says by how much a printed number is further from the expected one than rounding to the printed digits can
explain, in the printed unit (percentage points for accuracies); NaN where a finding is not about a distance.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from itertools import combinations, groupby

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
@dataclass(frozen=True, eq=False)
class Sheet:
    """One printed results table, or the part of one that is about one dataset.

    Attributes:
        name: "AU-DFER Table 2".
        rows: text exactly as printed, columns in the printed order; index: the rows' labels, unique. Cells without a
            number ("", "-") are passed over.
        classes: columns whose mean is ``mean`` and whose mean weighted by the clips is ``weighted``.
        mean, weighted: "UAR" and "WAR"; "" where the table has no such column.
        counts: protocol -> clips of each class, in the order of ``classes``, or the clips in all where there are no
            classes: what an accuracy in this table could have been measured on. Empty: not known, nothing is checked.
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
    def shares(self) -> dict[str, np.ndarray]:
        """Protocol -> share of the clips that each class has."""
        return {name: np.asarray(numbers, float) / np.sum(numbers) for name, numbers in self.counts.items()}

    @cached_property
    def sums(self) -> pd.DataFrame:
        """``recomputed``."""
        return recomputed(self)

    @property
    def totals(self) -> tuple[str, ...]:
        """Which of the weighted mean and the mean the table prints, in this order."""
        return tuple(column for column in (self.weighted, self.mean) if column and column in self.rows)

    def text(self, label: str, column: str) -> str:
        """A cell as printed."""
        return self.rows.at[label, column]

    def with_cells(self, label: str, cells: Mapping[str, str]) -> Sheet:
        """A sheet of this one row with some cells changed."""
        row = self.rows.loc[[label]].assign(**cells)
        return Sheet(self.name, row, self.classes, self.mean, self.weighted, self.counts, self.stated)

    def finding(self, kind, label, column, expected, beyond, why, printed=None) -> tuple:
        """A row of ``FINDING``; ``printed`` is the cell's own text where it is not given."""
        return (
            kind,
            self.name,
            label,
            column,
            self.text(label, column) if printed is None else printed,
            expected,
            beyond,
            why,
        )


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


def _check(function):
    """Turn a generator of findings into a function that returns their table."""

    @wraps(function)
    def check(*arguments) -> pd.DataFrame:
        return pd.DataFrame(list(function(*arguments)), columns=list(FINDING)).astype({"beyond": float})

    return check


def _interior(value: float) -> bool:
    """0 and 100 fit any number of clips and occur in many rows: they say nothing."""
    return np.isfinite(value) and 0 < value < 100


def _digits(text: str) -> int:
    return len(str(text).partition(".")[2])


# ---------------------------------------------------------------------------------------------------- within a row
def recomputed(sheet: Sheet) -> pd.DataFrame:
    """Mean and weighted mean of each row's classes beside the printed ones.

    Returns:
        One row per printed row with all its classes: row, mean_printed, mean_recomputed, mean_beyond, weighted_printed,
        weighted_recomputed, weighted_beyond, protocol (whose counts come nearest). ``beyond`` is 0 where rounding and,
        for the weighted mean, the average over folds explain the difference; NaN where nothing is printed.
    """
    rows, columns = [], list(sheet.classes)
    slack = FOLD_SLACK if len(sheet.shares) > 1 else 0.0
    numbers, halves = (table[columns].to_numpy(float) for table in (sheet.values, sheet.half))
    for label, accuracy, half in zip(sheet.rows.index, numbers, halves, strict=True) if columns else ():
        if np.isnan(accuracy).any():
            continue
        mean, mean_beyond = _total(sheet, label, sheet.mean, accuracy.mean(), half.mean())
        options = {
            name: (*_total(sheet, label, sheet.weighted, accuracy @ share, half @ share + slack), accuracy @ share)
            for name, share in sheet.shares.items()
        }
        nearest = min(options, key=lambda name: np.nan_to_num(options[name][1]), default="")
        weighted, weighted_beyond, value = options.get(nearest, (np.nan, np.nan, np.nan))
        rows.append((label, mean, accuracy.mean(), mean_beyond, weighted, value, weighted_beyond, nearest))
    names = [f"{total}_{what}" for total in ("mean", "weighted") for what in ("printed", "recomputed", "beyond")]
    return pd.DataFrame(rows, columns=["row", *names, "protocol"])


def _total(sheet: Sheet, label: str, column: str, expected: float, tolerance: float) -> tuple[float, float]:
    """A row's printed total and how far beyond rounding it is from ``expected``."""
    if column not in sheet.totals or np.isnan(sheet.values.at[label, column]):
        return np.nan, np.nan
    printed = sheet.values.at[label, column]
    return printed, max(abs(printed - expected) - tolerance - sheet.half.at[label, column] - _TINY, 0.0)


def _mends(sheet: Sheet, label: str, cells: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether a row with changed cells has the right sums, and a protocol whose whole clips all its classes are."""
    one = sheet.with_cells(label, cells)
    sums = one.sums.iloc[0]
    right = sums["mean_beyond"] == 0 and not sums["weighted_beyond"] > 0
    whole = (name for name in sheet.counts if _fits(one, label, name) == len(sheet.classes))
    return right, next(whole, None) if right else None


@_check
def check_sums(sheet: Sheet) -> Iterator[tuple]:
    """Mean of the classes = UAR, and their mean weighted by the clips = WAR (whatever the protocol)."""
    for row in sheet.sums.itertuples():
        for kind, column, expected, beyond, counts in (
            ("mean of classes", sheet.mean, row.mean_recomputed, row.mean_beyond, ""),
            (
                "count-weighted mean",
                sheet.weighted,
                row.weighted_recomputed,
                row.weighted_beyond,
                f" with the counts of {row.protocol}",
            ),
        ):
            if beyond > 0:
                why = f"the row's classes give {expected:.3f}{counts}"
                yield sheet.finding(kind, row.row, column, f"{expected:.2f}", beyond, why)


@_check
def check_cells(sheet: Sheet) -> Iterator[tuple]:
    """A misprint in one class: a digit changed, lost or added in one cell explains why the row's sums are off.

    Tried on rows whose UAR is not the mean of their classes. The cell must be the only one for which some value one
    digit away mends both sums and, where the table's counts are known, makes the row whole clips of one protocol.
    """
    for row in sheet.sums[sheet.sums["mean_beyond"] > 0].itertuples():
        label, classes = row.row, len(sheet.classes)
        mended: dict[str, tuple[str, str]] = {}
        for column in sheet.classes:
            text, half = sheet.text(label, column), sheet.half.at[label, column]
            centre = sheet.values.at[label, column] + classes * (row.mean_printed - row.mean_recomputed)
            reach = classes * (sheet.half.at[label, sheet.mean] + half)
            unit = 2 * half
            for value in np.arange(np.floor((centre - reach) / unit), np.ceil((centre + reach) / unit) + 1) * unit:
                other = f"{value:.{_digits(text)}f}"
                if 0 <= value <= 100 and _one_digit(text, other):
                    right, whole = _mends(sheet, label, {column: other})
                    if right and (whole or not sheet.counts):
                        mended[column] = (other, f", with whole clips of {whole}" if whole else "")
        if len(mended) == 1:
            ((column, (text, clips)),) = mended.items()
            beyond = abs(sheet.values.at[label, column] - float(text)) - 2 * sheet.half.at[label, column]
            why = f"the only digit that mends the row's sums{clips}"
            yield sheet.finding("misprinted cell", label, column, text, beyond, why)


def _one_digit(first: str, second: str) -> bool:
    """Whether one character changed, lost or added leads from one text to the other."""
    if len(first) == len(second):
        return sum(a != b for a, b in zip(first, second, strict=True)) == 1
    short, long = sorted((first, second), key=len)
    return len(long) - len(short) == 1 and any(long[:k] + long[k + 1 :] == short for k in range(len(long)))


@_check
def check_swaps(sheet: Sheet) -> Iterator[tuple]:
    """Two columns of one row changed places: WAR and UAR, or two classes; the sums and whole clips say which.

    Where the mean of the classes is off, WAR and UAR are exchanged; where only the weighted mean is off, every pair of
    classes is. It must be the only pair that mends both sums and, for classes, turns all of them into whole clips.
    """
    for row in sheet.sums.itertuples() if len(sheet.totals) == 2 else ():
        label, pairs = row.row, []
        if row.mean_beyond > 0:
            pairs = [(sheet.mean, sheet.weighted)]
        elif row.weighted_beyond > 0:
            share, accuracy = sheet.shares[row.protocol], sheet.values.loc[label, list(sheet.classes)].to_numpy(float)
            missing = row.weighted_printed - row.weighted_recomputed
            pairs = [
                (sheet.classes[i], sheet.classes[j])
                for i, j in combinations(range(len(sheet.classes)), 2)
                # a first look, so that the rest is rarely needed; half a point covers rounding and other protocols
                if abs((accuracy[j] - accuracy[i]) * (share[i] - share[j]) - missing) < 0.5
            ]
        mended = []
        for first, second in pairs:
            a, b = sheet.text(label, first), sheet.text(label, second)
            right, whole = _mends(sheet, label, {first: b, second: a})
            if right and (whole or row.mean_beyond > 0):
                mended.append((f"{first} / {second}", f"{b} / {a}", abs(float(a) - float(b)), f"{a} / {b}"))
        if len(mended) == 1:
            ((columns, expected, distance, printed),) = mended
            why = "only with the two exchanged do the row's sums agree"
            yield sheet.finding("swapped columns", label, columns, expected, distance, why, printed)


@_check
def check_shifts(sheet: Sheet) -> Iterator[tuple]:
    """A class value got lost and the row slipped left by one: solve it from UAR and from WAR, and compare.

    Tried on rows whose sums are both off. The numbers after the gap are moved right by one; the last printed cell drops
    out. Two equations for one unknown: they agree by accident in about one try of a thousand.
    """
    if len(sheet.totals) < 2:
        return
    columns = [column for column in sheet.rows.columns if column in (*sheet.classes, *sheet.totals)]
    both = (sheet.sums["mean_beyond"] > 0) & (sheet.sums["weighted_beyond"] > 0)
    for label in sheet.sums["row"][both]:
        text, solved = sheet.rows.loc[label, columns].tolist(), []
        half, classes = 0.5 * 10.0 ** -_digits(text[0]), len(sheet.classes)
        for gap in range(classes):
            moved = pd.Series([*text[:gap], np.nan, *text[gap:-1]], index=columns)
            lost, numbers = columns[gap], pd.to_numeric(moved)
            accuracy, place = numbers[list(sheet.classes)].to_numpy(float), sheet.classes.index(lost)
            others = np.delete(np.arange(classes), place)
            from_mean = classes * numbers[sheet.mean] - accuracy[others].sum()
            if not 0 <= from_mean <= 100:
                continue
            for protocol, share in sheet.shares.items():
                from_weighted = (numbers[sheet.weighted] - accuracy[others] @ share[others]) / share[place]
                rounding = half * (2 - share[place]) + FOLD_SLACK * (len(sheet.counts) > 1)
                slack = half * (2 * classes - 1) + rounding / share[place]
                if abs(from_mean - from_weighted) <= slack and abs(from_mean - float(text[gap])) > slack:
                    one = sheet.with_cells(label, moved.dropna().to_dict() | {lost: f"{from_weighted:.2f}"})
                    solved.append((_fits(one, label, protocol), -gap, lost, from_mean, from_weighted))
        if solved:
            _, gap, lost, from_mean, from_weighted = max(solved)
            yield sheet.finding(
                "shifted row",
                label,
                f"{lost} to {columns[-1]}",
                " ".join([f"{from_weighted:.2f}", *text[-gap:-1]]),
                np.nan,
                f"with {lost} lost and the rest moved right, UAR asks for {from_mean:.2f} there and WAR for "
                f"{from_weighted:.2f}",
                " ".join(text[-gap:]),
            )


# -------------------------------------------------------------------------------------------------------- whole clips
def _whole(sheet: Sheet, label: str, column: str, count: int) -> bool:
    return integer_count(sheet.values.at[label, column], int(count), _digits(sheet.text(label, column))) is not None


def _fits(sheet: Sheet, label: str, protocol: str) -> int:
    """How many classes of a row are whole clips of a protocol."""
    return sum(_whole(sheet, label, *cell) for cell in zip(sheet.classes, sheet.counts[protocol], strict=True))


def _tried(sheet: Sheet, cells: Sequence[tuple[str, str, int]]) -> tuple[list[bool], float]:
    """Which of some cells (row, column, clips) are whole clips, and the probability that those are by accident."""
    fit = [_whole(sheet, *cell) for cell in cells]
    chances = [
        # of an arbitrary percentage, at the printed digits
        min(1.0, 2 * sheet.half.at[label, column] * count / 100) if _interior(sheet.values.at[label, column]) else 1.0
        for (label, column, count), whole in zip(cells, fit, strict=True)
        if whole
    ]
    return fit, np.prod(chances)


def protocols(sheet: Sheet) -> pd.DataFrame:
    """Which protocol turns the accuracies of each row into whole numbers of clips?

    Returns:
        One row per printed row with all its classes: row; ``proven``, the protocol that fits all classes but at most
        one, where the fitting ones would do so by accident with a probability below ``BY_ACCIDENT`` (protocols with
        equal counts are joined, "1 or 2"), or ""; ``best``, the protocol with the most fitting classes; ``fits``, how
        many; ``classes``; ``misfit``, the class that does not fit the proven protocol, or ""; ``by_accident``.
    """
    merged: dict[tuple, list[str]] = defaultdict(list)
    for name, counts in sheet.counts.items():
        merged[tuple(counts)].append(name)
    rows, classes = [], len(sheet.classes)
    known = sheet.values[list(sheet.classes)].notna().all(axis=1)
    for label in sheet.rows.index[known] if classes and merged else ():
        options = []
        for counts, names in merged.items():
            fit, chance = _tried(sheet, [(label, *cell) for cell in zip(sheet.classes, counts, strict=True)])
            options.append((-sum(fit), chance, " or ".join(names), fit))
        missed, chance, name, fit = min(options)
        proven = -missed >= classes - 1 and chance < BY_ACCIDENT
        misfit = sheet.classes[fit.index(False)] if proven and not all(fit) else ""
        rows.append((label, name if proven else "", name, -missed, classes, misfit, chance))
    return pd.DataFrame(rows, columns=["row", "proven", "best", "fits", "classes", "misfit", "by_accident"])


@_check
def check_clips(sheet: Sheet) -> Iterator[tuple]:
    """Granularity: k / n against the known class sizes.

    Kinds: "not whole clips" (one cell of a row whose other cells prove the protocol), "no protocol fits" (a row that is
    whole clips of none: an average of folds, other clips, or misprints) and "other protocol" (a row proven on other
    clips than the paper states or, where it states nothing, than most of the table's proven rows).
    """
    rows = protocols(sheet)
    usual = Counter(rows["proven"][rows["proven"] != ""]).most_common(1)
    expected = " or ".join(sheet.stated) or (usual[0][0] if usual else "")
    for row in rows.itertuples():
        if row.misfit:
            count = sheet.counts[row.proven.split(" or ")[0]][sheet.classes.index(row.misfit)]
            value = sheet.values.at[row.row, row.misfit]
            nearest = 100 * round(value * count / 100) / count
            beyond = abs(value - nearest) - sheet.half.at[row.row, row.misfit]
            why = f"not k of {count}, while the row's other cells are whole clips of {row.proven}"
            yield sheet.finding("not whole clips", row.row, row.misfit, f"{nearest:.2f}", beyond, why)
        if not row.proven and row.fits < row.classes:
            why = (
                f"an average of folds, other clips or misprints; at best {row.fits} of {row.classes} cells ({row.best})"
            )
            yield sheet.finding("no protocol fits", row.row, "all classes", "", np.nan, why, "")
        if row.proven and expected and row.proven != expected:
            stated = "the paper states" if sheet.stated else f"most of the table's proven rows ({usual[0][1]}) are"
            why = (
                f"{row.fits} of {row.classes} cells are whole clips of {row.proven} (by accident: "
                f"{row.by_accident:.0e}); {stated} {expected}"
            )
            yield sheet.finding("other protocol", row.row, "all classes", expected, np.nan, why, row.proven)


@_check
def check_total(sheet: Sheet) -> Iterator[tuple]:
    """Are the overall accuracies of a table without classes whole clips of another test set than the stated one?

    One value alone proves nothing; a column of different values that all fit one total does, if that would happen by
    accident with a probability below 0.01 over all the totals that are tried.
    """
    if sheet.classes or not sheet.stated or not sheet.counts or sheet.weighted not in sheet.totals:
        return
    column = sheet.rows[sheet.weighted][sheet.values[sheet.weighted].map(_interior)].drop_duplicates()
    options = []
    for name, numbers in sheet.counts.items():
        total = int(np.sum(numbers))
        fit, chance = _tried(sheet, [(label, sheet.weighted, total) for label in column.index])
        options.append((-sum(fit), chance, name, total))
    missed, chance, name, total = min(options)
    if -missed == len(column) > 0 and chance * len(options) < 0.01 and name not in sheet.stated:
        stated = " or ".join(sheet.stated)
        why = (
            f"all {len(column)} different values are whole clips of {total} ({name}; by accident: {chance:.0e}); the "
            f"paper states {stated}"
        )
        yield sheet.finding("other protocol", "all rows", sheet.weighted, stated, np.nan, why, f"{len(column)} values")


# -------------------------------------------------------------------------------------------------------- between rows
def _runs(same: Sequence[bool], shortest: int) -> Iterator[slice]:
    """Runs of true values that are at least ``shortest`` long."""
    start = 0
    for value, run in groupby(same):
        length = len(list(run))
        if value and length >= shortest:
            yield slice(start, start + length)
        start += length


@_check
def check_copies(sheet: Sheet, run: int = 3) -> Iterator[tuple]:
    """Numbers that occur twice: ``run`` neighbouring cells of two methods, WAR = UAR in one row, or a cost of three or
    more digits printed for several methods."""
    accuracies = [c for c in sheet.rows.columns if c in (*sheet.classes, sheet.mean, sheet.weighted)]
    text, telling = sheet.rows[accuracies].to_numpy(), sheet.values[accuracies].map(_interior).to_numpy()
    for (i, first), (j, second) in combinations(enumerate(sheet.rows.index), 2):
        if sheet.method[first] == sheet.method[second]:
            continue
        for place in _runs((text[i] == text[j]) & telling[j], run):
            columns, copied = accuracies[place], text[j][place]
            why = f"{len(columns)} neighbouring cells of two methods are equal"
            where = f"{columns[0]} to {columns[-1]}"
            yield sheet.finding("copied cells", f"{second} = {first}", where, "", np.nan, why, " ".join(copied))
    if len(sheet.totals) == 2:
        for label in sheet.rows.index:
            mean = sheet.text(label, sheet.mean)
            if mean == sheet.text(label, sheet.weighted) and _interior(sheet.values.at[label, sheet.mean]):
                both, why = f"{sheet.mean} = {sheet.weighted}", "one number in both columns"
                yield sheet.finding("copied cells", label, both, "", np.nan, why, mean)
    for column in sheet.costs:
        for text, rows in sheet.rows.groupby(column, sort=False):
            names = {sheet.method[label] for label in rows.index}
            if len(re.sub(r"\D", "", text).lstrip("0")) >= 3 and len(names) > 1:
                why = f"one cost for {len(names)} methods"
                yield sheet.finding("copied cells", ", ".join(rows.index), column, "", np.nan, why, text)


@_check
def check_order(sheets: Sequence[Sheet]) -> Iterator[tuple]:
    """WAR below UAR where nearly all rows have it above: columns that changed places in a table without classes.

    With more clips in the classes that are easy, WAR exceeds UAR. Rows are compared with all rows of the given sheets;
    nothing is said unless at least four fifths of them agree on the sign.
    """
    gaps = [
        (sheet, label, gap)
        for sheet in sheets
        if len(sheet.totals) == 2
        for label, gap in (sheet.values[sheet.weighted] - sheet.values[sheet.mean]).dropna().items()
        if abs(gap) > 2 * sheet.half.at[label, sheet.mean]
    ]
    above = np.array([gap > 0 for *_, gap in gaps])
    if not len(above) or max(above.mean(), 1 - above.mean()) < 0.8:
        return
    usual = above.mean() > 0.5
    for (sheet, label, gap), up in zip(gaps, above, strict=True):
        if up != usual and not sheet.classes:
            weighted, mean = (sheet.text(label, column) for column in sheet.totals)
            why = (
                f"{sheet.weighted} is {'below' if usual else 'above'} {sheet.mean}; in "
                f"{max(above.sum(), (~above).sum())} of {len(above)} rows it is the other way"
            )
            columns = f"{sheet.weighted} / {sheet.mean}"
            yield sheet.finding(
                "swapped columns", label, columns, f"{mean} / {weighted}", abs(gap), why, f"{weighted} / {mean}"
            )


@_check
def check_claims(sheet: Sheet) -> Iterator[tuple]:
    """Rows that the text says surpass another row in WAR and UAR, and do not."""
    for label, other in sheet.baselines.items():
        for column in (sheet.weighted, sheet.mean):
            beyond = sheet.values.at[other, column] - sheet.values.at[label, column]
            if beyond >= 0:
                expected = f"above {sheet.text(other, column)}"
                yield sheet.finding("claim contradicted", label, column, expected, beyond, f"not above {other}")


@_check
def check_ranks(sheet: Sheet) -> Iterator[tuple]:
    """Printed ranks (bold, underlined, bracketed) against the column's order; equal numbers share a rank."""
    for (label, column), rank in sheet.ranks.items():
        numbers = sheet.values[column]
        better = sorted(set(numbers[numbers > numbers[label]]), reverse=True)
        if len(better) + 1 != rank:
            printed, why = (
                f"{sheet.text(label, column)} (rank {rank})",
                "higher: " + ", ".join(f"{v:g}" for v in better),
            )
            yield sheet.finding("wrong rank", label, column, f"rank {len(better) + 1}", np.nan, why, printed)


# ------------------------------------------------------------------------------------------------------ between tables
@_check
def check_agreement(sheets: Sequence[Sheet]) -> Iterator[tuple]:
    """One method, dataset and column in two tables with two numbers.

    Kinds: "disagreement"; "number of another dataset" where the odd one is printed for that method and another dataset
    elsewhere; "swapped columns" where WAR and UAR are each other's. Rows that the authors measured themselves are
    compared with each other only.
    """
    seen = defaultdict(list)
    for sheet in sheets:
        for (label, column), value in sheet.values.stack().dropna().items():
            # parameters and operations belong to a method, accuracies to a method on a dataset
            where = "" if column in sheet.costs else sheet.dataset
            own = label in sheet.own
            who = (label if own else sheet.method[label]).casefold()
            seen[own, who, where, column].append((sheet, label, value, sheet.half.at[label, column]))
    for (own, who, dataset, column), cells in seen.items():
        done = set()
        for (sheet, label, value, half), (other, row, theirs, width) in combinations(cells, 2):
            # one number printed twice to the same digits is the same text; to other digits, it is rounded
            beyond = abs(value - theirs) - (max(half, width) if half != width else 0)
            if sheet is other or beyond <= _TINY or (value, theirs) in done:
                continue
            done.add((value, theirs))
            partner = {sheet.weighted: sheet.mean, sheet.mean: sheet.weighted}.get(column)
            elsewhere = sorted(
                {
                    f"{s.name} ({key[2]})"
                    for key, group in seen.items()
                    for s, _, v, _ in group
                    if key[:2] == (own, who) and key[2] not in ("", dataset) and abs(v - value) < _TINY
                }
            )
            kind, why = "disagreement", f"{other.name} prints {other.text(row, column)}"
            if (
                partner in other.totals
                and abs(other.values.at[row, partner] - value) + abs(theirs - sheet.values.at[label, partner]) < _TINY
            ):
                kind, why = "swapped columns", f"{other.name} prints this number under {partner}"
            elif elsewhere:
                kind = "number of another dataset"
                why += f"; the number itself stands in {', '.join(elsewhere)}"
            yield sheet.finding(kind, label, column, other.text(row, column), beyond, why)


@_check
def check_misplaced(sheets: Sequence[Sheet], run: int = 2) -> Iterator[tuple]:
    """Neighbouring numbers of a method that another table prints under other headings."""
    for sheet, other in combinations(sheets, 2):
        for label in sheet.rows.index:
            for row in other.rows.index:
                if sheet.method[label] == other.method[row]:
                    yield from _moved(sheet, label, other, row, run)


def _moved(sheet: Sheet, label: str, other: Sheet, row: str, run: int) -> Iterator[tuple]:
    (a, x), (b, y) = (
        (one.rows.columns, one.rows.loc[name].where(one.values.loc[name].map(_interior), None).to_numpy())
        for one, name in ((sheet, label), (other, row))
    )
    elsewhere = sheet.dataset != other.dataset
    for offset in range(-len(x) + 1, len(y)):
        places = range(max(0, -offset), min(len(x), len(y) - offset))
        same = [x[i] is not None and x[i] == y[i + offset] and (elsewhere or a[i] != b[i + offset]) for i in places]
        for part in _runs(same, run):
            here = a[places[part]]
            there = b[[i + offset for i in places[part]]]
            why = f"{sheet.name} prints the same {len(here)} numbers under {', '.join(here)}"
            yield other.finding(
                "misplaced cells",
                row,
                f"{there[0]} to {there[-1]}",
                "",
                np.nan,
                why + (f" of {sheet.dataset}" if elsewhere else ""),
                " ".join(other.rows.loc[row, there]),
            )


@_check
def check_origin(sheets: Sequence[Sheet], origins: Sequence[Sheet]) -> Iterator[tuple]:
    """Improved rows of the authors' own that do not surpass what the baseline's authors print for the baseline.

    Args:
        sheets: with ``baselines`` (improved row -> local baseline).
        origins: tables of the baselines' own authors, one protocol each; rows are methods.
    """
    for sheet in sheets:
        for origin in (one for one in origins if one.dataset == sheet.dataset):
            for label, baseline in sheet.baselines.items():
                for row in (name for name in origin.rows.index if origin.method[name] == sheet.method[label]):
                    for column in (c for c in (sheet.weighted, sheet.mean) if c in origin.rows):
                        beyond = origin.values.at[row, column] - sheet.values.at[label, column]
                        if beyond >= 0:
                            theirs = origin.text(row, column)
                            why = (
                                f"{origin.name} prints {theirs} for the baseline, this table "
                                f"{sheet.text(baseline, column)}"
                            )
                            kind = "not above the original baseline"
                            yield sheet.finding(kind, label, column, f"above {theirs}", beyond, why)


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
    papers: dict[str, list[Sheet]] = defaultdict(list)
    for sheet in sheets:
        papers[sheet.name.split(" Table")[0]].append(sheet)
    parts = [check(sheet) for sheet in sheets for check in CHECKS]
    parts += [check_order(group) for group in papers.values()]
    parts += [check(sheets) for check in CROSS_CHECKS] + [check_origin(sheets, origins)]
    findings = pd.concat([part for part in parts if len(part)] or parts[-1:], ignore_index=True)
    order = {sheet.name: k for k, sheet in enumerate(sheets)}
    # one fact can be seen from two sides (WAR and UAR of a swapped pair, both tables of a disagreement)
    findings = findings.drop_duplicates(["kind", "table", "row", "column", "printed", "expected"])
    return findings.sort_values("table", key=lambda names: names.map(order), kind="stable", ignore_index=True)
