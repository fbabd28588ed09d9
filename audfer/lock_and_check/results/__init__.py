"""Tables and figures of the appendix on Lock and Check (notebook A3), numbered as in its paper.

Ours are percentages of F1 over frames of held-out subjects, with intervals and tests over subjects
(``evaluation.f1_intervals``, ``compare_f1``). Printed numbers stand beside them; they were measured on BP4D and DISFA,
ours on rendered faces.
"""

from . import ablations, better_aus, f1, intensity, maps, method, training  # noqa: F401 - they register
