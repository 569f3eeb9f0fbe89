"""Cayley transforms cost half of torch's, gradients included."""

from __future__ import annotations

from .reporting import Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="cayley")` with a base and without."""
    report = reading_report("A Cayley transform costs at most half of torch's")
    for n in (8,) if effort.quick else (256, 512):
        based = {**makers("cayley"), **geotorchs("orthogonal", triv="cayley")}
        free = makers("cayley", use_trivialization=False)
        for kind, made in (("with a base", based), ("without", free)):
            case = f"{(n, n)} {kind}"
            most = None if effort.quick else 8
            reading(report, case, made, (n, n), effort, target=0.5, products=most)
    return report


if __name__ == "__main__":
    main(measure)
