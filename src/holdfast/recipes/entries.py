"""Recipes for the entries of a weight, and for slices of it."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from ..core.checks import check_module
from ..core.deferral import once_initialized
from ..core.registration import register_parametrization
from ..errors import path_of
from ..maps.ball import ClipNorm
from ..maps.half_line import Exponential, Softplus, Square
from ..maps.simplex import Softmax
from ..maps.sparse import NMSparsity, TopK
from ..maps.sphere import Normalize
from ..maps.transport import Sinkhorn
from .torch_names import TRANSPOSED, tensor_of

PositiveMap = Literal["softplus", "exponential", "square"]

_POSITIVE = {"softplus": Softplus, "exponential": Exponential, "square": Square}


def positive(
    module: nn.Module,
    name: str = "weight",
    bound: float = 0.0,
    *,
    positive_map: PositiveMap = "softplus",
) -> nn.Module:
    r"""Keep the entries of a weight above a bound.

    .. math::
        W = b + \mathrm{softplus}(X), \quad b + e^X \quad \text{or} \quad b + X^2

    Args:
        module: the module that owns the weight.
        name: its name.
        bound: b.
        positive_map: ``"softplus"``, linear for large entries; ``"exponential"``, whose
            steps are relative; ``"square"``, which reaches the bound.

    Returns:
        The module. See `maps.Softplus`, `maps.Exponential` and `maps.Square`.

    Raises:
        UnknownTensorError: the module has no such tensor.
        ValueError: ``positive_map`` is none of the three.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.positive(torch.nn.Linear(2, 3))
        >>> bool((layer.weight > 0).all())
        True
    """
    check_module(module, "positive", name)
    if positive_map not in get_args(PositiveMap):
        names = ", ".join(f'"{known}"' for known in get_args(PositiveMap))
        raise ValueError(
            f"`{path_of(module, name)}`: positive_map has to be one of {names}. "
            f"Got: {positive_map}."
        )
    return register_parametrization(module, name, _POSITIVE[positive_map](bound))


def simplex(module: nn.Module, name: str = "weight", dim: int = -1) -> nn.Module:
    r"""Make the slices along a dimension probabilities, by the softmax.

    .. math::
        w_i = e^{x_i} / \textstyle\sum_j e^{x_j}

    Args:
        module: the module that owns the weight.
        name: its name.
        dim: the dimension along which the entries sum to 1.

    Returns:
        The module. See `maps.Softmax`, and `maps.IsometricLogRatio` for coordinates
        that are unique.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.simplex(torch.nn.Linear(4, 2))
        >>> torch.allclose(layer.weight.sum(-1), torch.ones(2))
        True
    """
    check_module(module, "simplex", name)
    return register_parametrization(module, name, Softmax(dim))


def stochastic(module: nn.Module, name: str = "weight", dim: int = -1) -> nn.Module:
    """Make a matrix row-stochastic, or column-stochastic with ``dim=-2``.

    It is `simplex` under the name that matrices have.

    Args:
        module: the module that owns the weight.
        name: its name.
        dim: -1 for rows that sum to 1, -2 for columns.

    Returns:
        The module. See `maps.Softmax`.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.stochastic(torch.nn.Linear(4, 2), dim=-2)
        >>> torch.allclose(layer.weight.sum(-2), torch.ones(4))
        True
    """
    check_module(module, "stochastic", name)
    return register_parametrization(module, name, Softmax(dim))


def doubly_stochastic(module: nn.Module, name: str = "weight") -> nn.Module:
    """Make all rows and all columns of a matrix sum to 1.

    A matrix that is not square has rows of sum 1 and columns of equal sums.

    Args:
        module: the module that owns the weight.
        name: its name.

    Returns:
        The module. See `maps.Sinkhorn`, and `maps.NorthwestCorner` for coordinates that
        are unique.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.doubly_stochastic(torch.nn.Linear(3, 3))
        >>> torch.allclose(layer.weight.sum(0), torch.ones(3), atol=1e-6)
        True
    """
    check_module(module, "doubly_stochastic", name)
    return register_parametrization(module, name, Sinkhorn())


def sphere(
    module: nn.Module,
    name: str = "weight",
    radius: float = 1.0,
    *,
    dim: int | tuple[int, ...] | None = -1,
) -> nn.Module:
    r"""Keep the slices along a dimension at a norm.

    .. math::
        w = r\, x / \|x\|

    Args:
        module: the module that owns the weight.
        name: its name.
        radius: r.
        dim: the dimension that the slices run along, or several; ``None`` makes the
            whole tensor one slice.

    Returns:
        The module. See `maps.Normalize`, and `maps.SphereExp` for great circles.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.sphere(torch.nn.Linear(4, 2))
        >>> torch.allclose(layer.weight.norm(dim=-1), torch.ones(2))
        True
    """
    check_module(module, "sphere", name)
    return register_parametrization(module, name, Normalize(radius, dim))


@once_initialized
def max_norm(
    module: nn.Module,
    name: str = "weight",
    bound: float = 2.0,
    *,
    dim: int | tuple[int, ...] | None = None,
) -> nn.Module:
    r"""Shorten the weights of each output that are longer than a bound.

    .. math::
        w = x \min(1, c / \|x\|)

    Args:
        module: the module that owns the weight.
        name: its name.
        bound: c.
        dim: the dimension that the slices run along, or several. By default all but
            that of the outputs: the first of a linear or convolutional layer, the
            second of a transposed convolution.

    Returns:
        The module. See `maps.ClipNorm`, which also takes other norms and a lower bound.

    Raises:
        UnknownTensorError: the module has no such tensor.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.max_norm(torch.nn.Conv2d(8, 2, 3), bound=0.1)
        >>> bool((layer.weight.flatten(1).norm(dim=1) <= 0.1001).all())
        True
    """
    if dim is None:
        ndim = tensor_of(module, name).ndim
        transposed = isinstance(module, TRANSPOSED) and ndim > 1
        dim = tuple(d for d in range(ndim) if d != int(transposed)) or None
    return register_parametrization(module, name, ClipNorm(bound, dim=dim))


@once_initialized
def sparse(
    module: nn.Module,
    name: str = "weight",
    amount: float = 0.5,
    *,
    pattern: tuple[int, int] | None = None,
) -> nn.Module:
    """Keep the entries of largest modulus; the gradient passes straight through.

    Args:
        module: the module that owns the weight.
        name: its name.
        amount: the share of the entries that becomes zero, from 0 up to less than 1.
        pattern: (N, M) keeps N of every M entries along the last dimension instead, as
            hardware wants it with (2, 4).

    Returns:
        The module. See `maps.TopK`, `maps.NMSparsity`, and `maps.GradualTopK` with
        `Sparsify` for sparsity that rises while a model trains.

    Raises:
        UnknownTensorError: the module has no such tensor.
        ValueError: ``amount`` is not in [0, 1).

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.sparse(torch.nn.Linear(10, 10), amount=0.9)
        >>> layer.weight.count_nonzero().item()
        10
    """
    if pattern is not None:
        return register_parametrization(module, name, NMSparsity(*pattern))
    if not 0 <= amount < 1:
        raise ValueError(
            f"`{path_of(module, name)}`: amount has to be at least 0 and less than 1. "
            f"Got: {amount}."
        )
    count = round((1 - amount) * tensor_of(module, name).numel())
    return register_parametrization(module, name, TopK(max(1, count)))
