"""Many small rotations cost a fifteenth of torch's, gradients included."""

from __future__ import annotations

from .reporting import Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report


def measure(effort: Effort) -> Report:
    """Time a batch of rotations of 3-space by the exponential."""
    report = reading_report(
        "Ten thousand rotations cost at most a fifteenth of torch's"
    )
    shape = (10 if effort.quick else 10_000, 3, 3)
    made = {**makers("matrix_exp"), **geotorchs("orthogonal", triv="expm")}
    reading(report, f"{shape}", made, shape, effort, target=1 / 15)
    return report


if __name__ == "__main__":
    main(measure)
