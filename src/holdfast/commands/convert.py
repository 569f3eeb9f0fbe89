"""The command ``holdfast convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import click

from ..model.conversion import SPELLINGS, Converted, Spelling, convert_file
from ..model.showing import aligned
from .progress import busy


@click.command(short_help="Translate a checkpoint into another spelling.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(SPELLINGS), required=True, help="The spelling.")
@click.option("as_json", "--json", is_flag=True, help="Print the table as JSON.")
def convert(source: Path, target: Path, to: str, *, as_json: bool) -> None:
    """Translate the checkpoint IN into another spelling, and write it to OUT.

    plain: the weights. torch: the keys of torch.nn.utils.parametrizations. legacy:
    those of torch.nn.utils.weight_norm and spectral_norm. holdfast: torch's keys, and
    the maps in the header.

    IN is a safetensors file, the index of several, or a file of torch.save, of which
    only tensors are read. A table tells what became of each tensor.
    """
    with busy(f"converting {source.name}"):
        report = convert_file(source, target, cast("Spelling", to))
    if as_json:
        click.echo(json.dumps([each.data() for each in report], indent=1))
        return
    head = ("tensor", "maps", "from", "to", "keys")
    click.echo(aligned([head, *map(_row, report)]))


def _row(each: Converted) -> tuple[str, ...]:
    kept = each.source == each.target == "plain"
    done = ("kept", "") if kept else (each.source, each.target)
    return each.tensor, each.maps, *done, ", ".join(each.keys)
