"""What Tables 1 and 2 say about AU-DFER, in words: did it help, which expressions, and how sure is that?"""

from __future__ import annotations

from ..facs import EXPRESSIONS
from .builder import Result, output
from .controls import together, verdict
from .rows import TOTALS
from .words import answers, certainty, changes, compared, pairs

WHOLE = "And on the clips of all datasets together?"


@output("conclusions", "03_training", needs=("table1", "table2", "controls"))
def conclusions(study, records, protocol: str = "last") -> Result:
    """The conclusions from every comparison of WAR and UAR, and of the expressions, behind what the controls say."""
    tables = (study.results(name, protocol=protocol) for name in ("table1", "table2"))
    controls = study.results("controls", protocol=protocol).frame
    return in_words(*tables, study.profile.embedded, verdict(controls), together(controls))


def in_words(table: Result, classes: Result, embedded: bool = True, gate: str = "", whole: str = "") -> Result:
    """The conclusions from a table like Table 1 and one with rows for the expressions.

    Args:
        gate: what the controls say (``controls.verdict``); "" where there are none.
        whole: what AU-DFER does on the clips of all datasets together (``controls.together``); "" where nothing does.
    """
    rows, own = compared(table.frame, TOTALS), compared(classes.frame, EXPRESSIONS)
    where = "On the embedded benchmark (rendered faces)" if embedded else "On these clips"
    questions = [("Can this run tell?", gate)] if gate else []
    questions += [("Did the AU head with knowledge help?", f"{where}: {changes(rows, 'differences of WAR and UAR')}")]
    if len(rows):
        questions.append(("How many networks and datasets?", pairs(rows)))
    questions += [(WHOLE, whole)] if whole else []
    questions.append(("Which expressions?", changes(own, "differences of single expressions")))
    questions.append(("How sure is what Tables 1 and 2 say?", certainty(rows)))
    return answers("conclusions", questions, "What the numbers say about AU-DFER", table, classes)
