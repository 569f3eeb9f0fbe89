"""The command ``holdfast report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..reporting.tables import jsonable
from .reading import report_of


@click.command(short_help="Show what is parametrized in a checkpoint.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--spectra/--no-spectra", default=True, help="Compute singular values.")
@click.option("as_json", "--json", is_flag=True, help="Print the table as JSON.")
def report(checkpoint: Path, *, spectra: bool, as_json: bool) -> None:
    """Show every parametrized tensor of CHECKPOINT, a file of holdfast.save.

    The maps come from the header of the file, so that the model is not needed: which
    they are, how many free parameters they have, the set that the tensor has to be in,
    how far it is from there, the range of its singular values, and the time of one
    evaluation.

    Exit status: 0, also where something is wrong (see `holdfast check`); 1 if the file
    cannot be read; 2 for wrong arguments.
    """
    found = report_of(checkpoint, spectra=spectra)
    if as_json:
        data = {
            "checkpoint": str(checkpoint),
            "holds": found.holds,
            "tensors": [jsonable(record) for record in found.records()],
        }
        click.echo(json.dumps(data, indent=1))
    else:
        click.echo(str(found))
