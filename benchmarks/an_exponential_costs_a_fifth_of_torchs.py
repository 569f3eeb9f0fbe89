"""Orthogonal weights by the exponential cost a fifth of torch's, gradients included."""

from __future__ import annotations

from .reporting import Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report

SHAPES = ((128, 128), (256, 256), (512, 512), (64, 32, 32))


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="matrix_exp")` of square weights."""
    report = reading_report("An exponential costs at most a fifth of torch's")
    made = {**makers("matrix_exp"), **geotorchs("expm")}
    for shape in ((8, 8), (2, 4, 4)) if effort.quick else SHAPES:
        reading(report, f"{shape}", made, shape, effort, target=0.2)
    return report


if __name__ == "__main__":
    main(measure)
