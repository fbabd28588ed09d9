"""What is said of tables and figures: from the numbers, with intervals, and of every output."""

import pandas as pd
import pytest
from paths import ROOT

from audfer.files import read_csv
from audfer.results import readings
from audfer.results.builder import Result
from audfer.results.provenance import read_sidecars
from audfer.results.readings import READINGS, reading
from audfer.study.outputs import NotShown

STEMS = sorted(
    (folder.name, stem) for folder in (ROOT / "figures").iterdir() if folder.is_dir() for stem in read_sidecars(folder)
)


@pytest.fixture
def sentence(monkeypatch):
    def says(frame, text, rows=""):
        monkeypatch.setattr(readings, "READINGS", {"other": [["", "No."]], "x ta*": [[rows, text]]})
        return reading("table9", pd.DataFrame(frame))

    return says


def test_a_sentence_names_the_rows_with_the_most_and_the_least_and_their_intervals(sentence):
    frame = {
        "model": ["m3dfel", "mae_dfer", "former_dfer"],
        "dataset": ["DFEW", "MAFW", "MAFW"],
        "value": [61.26, 58.0, None],
        "low": [59.1, None, None],
        "high": [63.44, None, None],
    }
    said = sentence(frame, "Best {value:highest:model on dataset}, worst {value:lowest:model}.")
    assert said == "Best M3DFEL on DFEW (61.3 [59.1, 63.4]), worst MAE-DFER (58)."
    # columns that follow by chance are no interval
    assert sentence({"value": [1.5], "below": [2]}, "{value:highest:it}") == "it (1.5)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{a:sum} of {a:count}", "7 of 2"),
        ("{(a > 3) & (b > 0):sum}", "1"),
        ("{abs(a - b):max}, {a - b:min}", "4,002, -4,002"),
        ("{a.rank().corr(b.rank())}", "1"),
        ("{a:highest:a b}", "4 4,006 (4)"),
        ("{c:highest:a}", "none"),
    ],
)
def test_gaps_are_filled_from_columns_and_expressions_of_them(sentence, text, said):
    assert sentence({"a": [3, 4], "b": [10, 4006], "c": [None, None]}, text) == said


def test_sentences_whose_rows_or_columns_are_missing_are_left_out(sentence):
    assert sentence({"a": [1, 2]}, "{a:sum}", "a > 5") == ""
    assert sentence({"a": [1, 2]}, "{newer:sum}") == "" == sentence({"a": [1]}, "{a:sum}", "newer == 1")
    assert sentence({"a": []}, "{a:sum}") == "" == reading("of no output", pd.DataFrame({"a": [1]}))


def test_a_verdict_follows_from_the_corrected_test():
    rows = [("WAR", 1.5, 0.2, 2.8, 0.2), ("UAR", 2.5, 1.2, 3.8, 0.01), ("WAR", -3.0, -4.0, -2.0, 0.03)]
    frame = pd.DataFrame(rows, columns=["metric", "difference", "difference_low", "difference_high", "p_holm"])
    frame = frame.assign(model="m3dfel", dataset="DFEW", variant="with AU")
    said = reading("table1_war_uar", frame)
    assert "Of 3 differences" in said and "(Holm-corrected p < 0.05): 1, certain losses: 1;" in said
    assert "least: WAR of M3DFEL on DFEW, with AU (-3 [-4, -2])" in said


@pytest.mark.parametrize(("folder", "stem"), STEMS)
def test_something_is_said_of_every_committed_output(folder, stem):
    frame = read_csv(ROOT / "figures" / folder / f"{stem}.csv")
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    frame[words] = frame[words].fillna("")
    if "question" in frame:  # sentences already
        return
    said = reading(stem, frame)
    assert said.endswith((".", "]")) and "{" not in said and "nan" not in said.split(), said
    assert 20 < len(said) < 420, said


def test_a_reader_meets_the_sentence_below_the_output_and_in_its_file(tmp_path):
    frame = pd.DataFrame({"frames": [3, 4], "clip_id": ["a", "b"], "failed": [0, 1], "unknown": [0, 1]})
    result = Result("au_coverage", frame, "Coverage. How it was made.")
    said = "Of 7 frames in 2 clips 1 failed and 1 are unknown."
    assert result.reading == said and f"<b>Coverage.</b> {said}" in result.save(tmp_path).html
    assert f"\n{said}\n" in (tmp_path / "au_coverage.md").read_text()


def test_what_is_not_made_says_why_wherever_it_is_asked():
    nothing = NotShown("No folder.")
    assert not nothing and repr(nothing.save()) == repr(nothing.picture.save()) == "No folder."
    assert nothing.placed("there", {}) is nothing


def test_the_first_fitting_pattern_is_meant_and_no_later_one_is_dead():
    patterns = [stem for stems in READINGS for stem in stems.split()]
    assert len(patterns) == len(set(patterns))
