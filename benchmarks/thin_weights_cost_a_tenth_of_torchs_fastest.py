"""Tall weights cost a tenth of what the fastest of torch's three maps takes."""

from __future__ import annotations

from functools import partial

import holdfast

from .reporting import OURS, TORCHS, Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report

DEFAULT = "householder"
# how many times faster than torch's maps
TARGETS = {
    (256, 64): {DEFAULT: 20, "cayley": 10, "matrix_exp": 80},
    (512, 128): {DEFAULT: 45, "cayley": 15, "matrix_exp": 150},
    (1024, 64): {DEFAULT: 150, "cayley": 150, "matrix_exp": 1000},
}
QUICK = {(8, 2): dict.fromkeys((DEFAULT, "cayley", "matrix_exp"), 1)}


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="thin_cayley")` and all other maps."""
    report = reading_report("Thin weights cost at most a tenth of torch's fastest map")
    report.setting += (
        " torch is its default here, householder, and holdfast thin_cayley."
    )
    thin = partial(holdfast.orthogonal, orthogonal_map="thin_cayley")
    made = {TORCHS: makers(DEFAULT)[TORCHS], OURS: thin}
    for kind in ("matrix_exp", "cayley", DEFAULT):
        both = makers(kind)
        made |= {f"{library} {kind}": both[library] for library in both}
    made |= geotorchs("orthogonal", triv="expm")
    for shape, targets in (QUICK if effort.quick else TARGETS).items():
        target = 1 / targets[DEFAULT]
        comparison = reading(report, f"{shape}", made, shape, effort, target)
        for kind, times in targets.items():
            name = f"{TORCHS} {kind}"
            ratio = comparison.ratios(name, OURS).median
            note = f"{shape}: {name} takes {ratio:.1f} times as long, asked {times}"
            if kind != DEFAULT:  # which has its row in the table
                measured = comparison.ratios(OURS, name).median
                note += f", {report.judge(f'{shape}: / {name}', measured, 1 / times)}"
            report.notes.append(f"{note}.")
    return report


if __name__ == "__main__":
    main(measure)
