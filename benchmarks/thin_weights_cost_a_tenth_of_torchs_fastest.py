"""Tall weights cost a fifth of what the fastest of torch's three maps takes."""

from __future__ import annotations

from functools import partial

import holdfast

from .reporting import OURS, TORCHS, Report, main
from .timing import Effort
from .weights import geotorchs, makers, reading, reading_report

SHAPES = ((256, 64), (512, 128), (1024, 64))
KINDS = ("matrix_exp", "cayley", "householder")


def measure(effort: Effort) -> Report:
    """Time `orthogonal(layer, orthogonal_map="thin_cayley")` and all other maps."""
    report = reading_report("Thin weights cost at most a fifth of torch's fastest map")
    report.setting += (
        " torch is its default here, householder, and holdfast thin_cayley."
    )
    thin = partial(holdfast.orthogonal, orthogonal_map="thin_cayley")
    made = {TORCHS: makers("householder")[TORCHS], OURS: thin}
    for kind in KINDS:
        both = makers(kind)
        made |= {f"{library} {kind}": both[library] for library in both}
    made |= geotorchs("expm")
    for shape in ((8, 2),) if effort.quick else SHAPES:
        comparison = reading(report, f"{shape}", made, shape, effort, target=0.2)
        theirs = [f"{TORCHS} {kind}" for kind in KINDS]
        fastest = min(theirs, key=lambda name: comparison.spread(name).median)
        ratio = comparison.ratios(OURS, fastest).median
        verdict = report.judge(f"{shape}: / {fastest}", ratio, 0.2)
        report.notes.append(f"{shape}: {ratio:.3f} of {fastest}, {verdict}.")
    return report


if __name__ == "__main__":
    main(measure)
