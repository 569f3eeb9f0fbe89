"""A report on a checkpoint, without the model that it is from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..core.sources import ChainSource
from ..errors import CheckpointError
from ..model.evaluating import NotFiniteError
from ..model.noting import UnknownShapeError
from ..model.restoring import StoredChain, stored_chains
from ..reporting.measuring import Computed, promise_of, tells_matrices
from ..reporting.summary import Report, TensorReport, line_of
from .progress import shown


def report_of(checkpoint: Path, *, spectra: bool) -> Report:
    """Return what a file of `holdfast.save` says of its tensors.

    A file does not tell which tensors of more than two dimensions are kernels of
    convolutions and which are batches: these have singular values where their set is
    about such.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{checkpoint} is a folder. Name a file in it, or the index of several."
        )
    with stored_chains(checkpoint) as chains:
        what = f"reading {checkpoint.name}"
        return Report(
            tuple(_line(chain, spectra=spectra) for chain in shown(chains, what))
        )


def _line(stored: StoredChain, *, spectra: bool) -> TensorReport:
    try:
        chain = stored.restored()
    except (NotFiniteError, UnknownShapeError) as error:  # of the others all is known
        return TensorReport(stored.path, stored.maps, "holdfast", problem=str(error))
    source = ChainSource(nn.ModuleDict(), stored.path.rpartition(".")[2], chain)
    links = chain.links()
    set_ = promise_of(links[-1] if links else None).set
    told = len(chain.shape) == 2 or tells_matrices(set_)
    computed = Computed(stored.path, nn.Module(), source)
    return line_of(computed, spectra=spectra and told)
