"""What other people's files say is shown, and does nothing."""

import pandas as pd
import pytest

from audfer.errors import InputError, harmless
from audfer.files import for_spreadsheets, from_spreadsheets


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\x00b", "\u202ebackwards", "\x7f"]
)
def test_a_sentence_moves_no_cursor(text):
    shown = str(InputError(f"folder/{text}", "name", repr(text), text))
    assert shown.isascii() and shown.isprintable() and "backwards" not in text or "\\u202e" in shown


def test_names_of_every_language_lines_and_tabs_stay_and_odd_bytes_are_spelled_out():
    for text in ("Zoë, 表情, عربى 👩‍🔬", "two\nlines\tand a tab"):
        assert harmless(text) == text
    assert harmless("caf\udce9") == "caf\\udce9"


def test_no_text_is_a_formula_to_a_spreadsheet_and_none_is_lost():
    names = ["=1+1", "+1", "-clip", "@sum", "\tx", "plain", "'quoted", "'=quoted", "", "a=b"]
    frame = pd.DataFrame({"clip_id": names, "frames": range(len(names)), "score": [-0.5] * len(names)})
    shown = for_spreadsheets(frame)
    assert not shown["clip_id"].str.match(r"[=+\-@\t\r]").any() and shown["score"].equals(frame["score"])
    assert shown["clip_id"].tolist()[:2] == ["'=1+1", "'+1"] and shown["clip_id"][5] == "plain"
    assert from_spreadsheets(shown).equals(frame)
