"""Householder reflections cost an eighth of torch's, gradients included."""

from __future__ import annotations

from .reporting import Report, main
from .timing import Effort
from .weights import makers, reading, reading_report


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="householder")` of square weights."""
    report = reading_report("Reflections cost at most an eighth of torch's")
    n = 8 if effort.quick else 256
    for case, based in (("with a base", True), ("without", False)):
        made = makers("householder", use_trivialization=based)
        reading(report, f"{(n, n)} {case}", made, (n, n), effort, target=1 / 8)
    return report


if __name__ == "__main__":
    main(measure)
