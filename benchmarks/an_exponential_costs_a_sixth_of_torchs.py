"""Orthogonal weights by the exponential cost a sixth of torch's, gradients included."""

from __future__ import annotations

from .reporting import Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report

# The most products of the same size that they may cost; None is for small matrices,
# where all that is not a product costs as much.
SHAPES = {
    (128, 128): None,
    (256, 256): 15,
    (512, 512): 15,
    (64, 32, 32): None,
}
QUICK_SHAPES = {(8, 8): None, (2, 4, 4): None}


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="matrix_exp")` of square weights."""
    report = reading_report("An exponential costs at most a sixth of torch's")
    made = {**makers("matrix_exp"), **geotorchs("orthogonal", triv="expm")}
    shapes = QUICK_SHAPES if effort.quick else SHAPES
    for shape, products in shapes.items():
        for norm in (1, None):
            case = f"{shape}, norm {norm or '2 to 3'}"
            reading(
                report, case, made, shape, effort, 1 / 6, products=products, norm=norm
            )
    return report


if __name__ == "__main__":
    main(measure)
