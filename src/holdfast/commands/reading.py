"""A report on a checkpoint, without the model that it is from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..core.sources import ChainSource
from ..model.restoring import StoredChain, stored_chains
from ..reporting.measuring import Computed
from ..reporting.summary import Report, TensorReport, line_of
from .progress import shown


def report_of(checkpoint: Path, *, spectra: bool) -> Report:
    """Return what a file of `holdfast.save` says of its tensors.

    A file does not tell which tensors of more than two dimensions are kernels of
    convolutions and which are batches: these have no singular values here.
    """
    with stored_chains(checkpoint) as chains:
        what = f"reading {checkpoint.name}"
        return Report(
            tuple(_line(chain, spectra=spectra) for chain in shown(chains, what))
        )


def _line(stored: StoredChain, *, spectra: bool) -> TensorReport:
    chain = stored.restored()
    source = ChainSource(nn.ModuleDict(), stored.path.rpartition(".")[2], chain)
    is_matrix = len(chain.shape) == 2
    computed = Computed(stored.path, nn.Module(), source)
    return line_of(computed, spectra=spectra and is_matrix)
