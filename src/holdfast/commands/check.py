"""The command ``holdfast check``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import click

from ..reporting.summary import Report, TensorReport, fault
from ..reporting.tables import jsonable
from .reading import report_of


def _positive(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """Refuse what no residual can be held against."""
    if value is not None and not 0 <= value < math.inf:
        raise click.BadParameter("expected a finite number >= 0", context, parameter)
    return value


@click.command(short_help="Fail if a tensor of a checkpoint is outside its set.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    type=float,
    callback=_positive,
    help="The largest residual; by default by type and size. With it, tensors that "
    "only tend to their sets, as estimates of spectral norms, are judged too.",
)
@click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
def check(checkpoint: Path, tolerance: float | None, *, as_json: bool) -> int:
    """Check that every parametrized tensor of CHECKPOINT is in its set.

    CHECKPOINT is a file of holdfast.save. Each tensor is computed, and its residual
    held against the tolerance. Those that are outside, or not finite, are named.

    Exit status: 0 if all are inside; 1 if one is not, or if the file cannot be read; 2
    for wrong arguments.
    """
    found = report_of(checkpoint, spectra=False)
    if tolerance is not None:
        found = Report(tuple(_held(each, tolerance) for each in found))
    if as_json:
        click.echo(json.dumps(_data(checkpoint, found), indent=1))
    else:
        _print(checkpoint, found)
    return 0 if found.holds else 1


def _held(each: TensorReport, tolerance: float) -> TensorReport:
    """Hold a tensor against another tolerance."""
    return replace(each, tolerance=tolerance) if each.set else each


def _data(checkpoint: Path, found: Report) -> dict[str, object]:
    return {
        "checkpoint": str(checkpoint),
        "holds": found.holds,
        "tensors": [
            jsonable(
                {
                    "tensor": each.tensor,
                    "set": each.set,
                    "residual": each.residual,
                    "tolerance": each.tolerance,
                    "holds": each.holds,
                    "problem": "" if each.holds else fault(each),
                }
            )
            for each in found
        ],
    }


def _print(checkpoint: Path, found: Report) -> None:
    for each in found.violations:
        click.echo(f"`{each.tensor}` {fault(each)}", err=True)
    wrong = len(found.violations)
    open_ = sum(each.holds and each.tolerance is None for each in found)
    unjudged = f"; {open_} only tending to it, not judged" if open_ else ""
    if not len(found):
        click.echo(f"{checkpoint}: nothing is parametrized.")
    elif wrong:
        click.echo(f"{checkpoint}: {wrong} of {len(found)} outside.", err=True)
    else:
        inside = len(found) - open_
        click.echo(f"{checkpoint}: {inside} inside the declared set{unjudged}.")
