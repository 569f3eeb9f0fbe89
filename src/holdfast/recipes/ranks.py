"""Recipes for weights of low rank, and for changes of low rank to a weight."""

from __future__ import annotations

from torch import nn

from ..core.classes import chain_of
from ..core.deferral import once_initialized
from ..core.parametrization import Parametrization
from ..core.registration import register_parametrization
from ..maps.combinators import Matricized
from ..maps.lora import DoRA, LoRA
from ..maps.low_rank import LowRank
from .torch_names import tensor_of


@once_initialized
def low_rank(
    module: nn.Module,
    name: str = "weight",
    rank: int = 8,
    *,
    axes: int | tuple[int, ...] = 0,
) -> nn.Module:
    r"""Make a weight a product of two thin factors.

    .. math::
        W = A B^H, \qquad A \in \mathbb{R}^{n \times r}

    Args:
        module: the module that owns the weight.
        name: its name.
        rank: r.
        axes: of a tensor of more than two dimensions, those that become the rows of
            one matrix: 0 for the kernel of a convolution.

    Returns:
        The module. See `maps.LowRank`, and `maps.FixedRank` for exactly this rank.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.low_rank(torch.nn.Linear(20, 10), rank=2)
        >>> torch.linalg.matrix_rank(layer.weight).item()
        2
        >>> sum(p.numel() for p in layer.parametrizations.parameters())
        60
    """
    return _as_matrix(module, name, LowRank(rank), axes)


@once_initialized
def lora(
    module: nn.Module,
    name: str = "weight",
    rank: int = 8,
    *,
    alpha: float | None = None,
    rank_stabilized: bool = False,
    axes: int | tuple[int, ...] = 0,
) -> nn.Module:
    r"""Freeze a weight, and train a change of low rank to it.

    .. math::
        W = W_0 + \tfrac{\alpha}{r} A B

    The value stays: one factor is zero. The factors train even where the weight did
    not, so that a model can be frozen first. `remove_parametrizations` merges the
    change.

    Args:
        module: the module that owns the weight.
        name: its name.
        rank: r.
        alpha: by default the rank, and the scale 1.
        rank_stabilized: divide by the root of the rank.
        axes: of a tensor of more than two dimensions, those that become the rows of
            one matrix: 0 for the kernel of a convolution.

    Returns:
        The module. See `maps.LoRA`; its other parameters train as before.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = torch.nn.Linear(20, 10)
        >>> W = layer.weight.detach().clone()
        >>> layer = holdfast.lora(layer, rank=2)
        >>> torch.equal(layer.weight, W)
        True
    """
    map_ = LoRA(rank, alpha=alpha, rank_stabilized=rank_stabilized)
    return _training(_as_matrix(module, name, map_, axes), name)


@once_initialized
def dora(
    module: nn.Module,
    name: str = "weight",
    rank: int = 8,
    *,
    alpha: float | None = None,
    rank_stabilized: bool = False,
    axes: int | tuple[int, ...] = 0,
) -> nn.Module:
    r"""Train the lengths of the rows, and a change of low rank to their directions.

    .. math::
        W = m\, \frac{W_0 + \tfrac{\alpha}{r} A B}{\|W_0 + \tfrac{\alpha}{r} A B\|}

    The value stays, and what is new trains even where the weight did not.
    `remove_parametrizations` merges the change.

    Args:
        module: the module that owns the weight.
        name: its name.
        rank: r.
        alpha: by default the rank, and the scale 1.
        rank_stabilized: divide by the root of the rank.
        axes: as in `lora`.

    Returns:
        The module. See `maps.DoRA`.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.dora(torch.nn.Linear(20, 10), rank=2)
        >>> layer.parametrizations.weight.original0.shape
        torch.Size([10])
    """
    map_ = DoRA(rank, alpha=alpha, rank_stabilized=rank_stabilized)
    return _training(_as_matrix(module, name, map_, axes), name)


def _as_matrix(
    module: nn.Module, name: str, map_: Parametrization, axes: int | tuple[int, ...]
) -> nn.Module:
    """Register a map of matrices, on a tensor of more dimensions as one matrix."""
    if tensor_of(module, name).ndim > 2:
        map_ = Matricized(map_, axes)
    return register_parametrization(module, name, map_)


def _training(module: nn.Module, name: str) -> nn.Module:
    """Let the originals train: those of a frozen weight are frozen as well."""
    chain = chain_of(module, name)
    assert chain is not None
    chain.requires_grad_()
    return module
