"""README.md: its numbers are those of figures/laptop, its links lead somewhere."""

import re

from paths import ROOT

from audfer.companion.readme import results

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_are_those_of_the_laptop_tables():
    block = re.search("<!-- results:begin -->\n(.*?)\n<!-- results:end -->", TEXT, re.DOTALL)[1]
    assert block == results(ROOT / "figures" / "laptop"), "run: python -m audfer.companion.readme"


def test_links_and_pictures_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
