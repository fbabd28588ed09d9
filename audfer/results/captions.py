"""The first sentence of a caption, for lists, and the rest for those who ask."""

from __future__ import annotations

import re


def first_sentence(caption: str) -> str:
    """What a caption says first, without "Table 1. " before it and without its full stop; at most 160 characters."""
    text = re.sub(r"^(Table|Figure|Fig\.) \w+[.:] ", "", caption.strip())
    sentence = re.split(r"(?<!\bFig)(?<!\bEq)(?<!\bEqs)(?<!\bsec)(?<!\bvs)\. ", text, maxsplit=1)[0].rstrip(".")
    return sentence if len(sentence) <= 160 else sentence[:157].rsplit(" ", 1)[0] + " ..."
