"""Recipes for weights as matrices."""

from __future__ import annotations

import re
from typing import Literal, get_args

from torch import nn

from ..core.checks import check_module, check_type
from ..core.parametrization import Parametrization
from ..core.registration import register_parametrization
from ..errors import InvalidTensorError, path_of
from ..maps.chain import Chain
from ..maps.definite import Cholesky
from ..maps.exponential import MatrixExp
from ..maps.orthogonal import Orthogonal
from ..maps.per_block import PerBlock
from ..maps.spectrum import SpectralSoftplus
from ..maps.stable import Lyapunov, Stein
from ..maps.structured import Symmetric
from .torch_names import tensor_of

SpdMap = Literal["cholesky", "matrix_exp", "softplus"]

_GATES = {
    nn.LSTM: 4,
    nn.LSTMCell: 4,
    nn.GRU: 3,
    nn.GRUCell: 3,
    nn.RNN: 1,
    nn.RNNCell: 1,
    nn.MultiheadAttention: 3,
}
# What stacks them; a projection, as `weight_hr_l0` and `q_proj_weight`, is one matrix.
_STACKED = re.compile(r"(weight|bias)_(ih|hh)|in_proj")


def spd(
    module: nn.Module, name: str = "weight", spd_map: SpdMap = "cholesky"
) -> nn.Module:
    r"""Keep a weight symmetric and positive definite, or Hermitian where complex.

    .. math::
        W = L L^H, \quad \exp(S) \quad \text{or}
        \quad V\, \mathrm{softplus}(\lambda) V^H

    Args:
        module: the module that owns the weight.
        name: its name.
        spd_map: ``"cholesky"``, the cheapest, `maps.Cholesky`; ``"matrix_exp"`` of a
            symmetric matrix, whose steps are relative; ``"softplus"`` of its
            eigenvalues, which is linear for large ones.

    Returns:
        The module.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: it is not square.
        ValueError: ``spd_map`` is none of the three.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.spd(torch.nn.Linear(3, 3))
        >>> bool((torch.linalg.eigvalsh(layer.weight) > 0).all())
        True
    """
    check_module(module, "spd", name)
    if spd_map not in get_args(SpdMap):
        names = ", ".join(f'"{known}"' for known in get_args(SpdMap))
        raise ValueError(
            f"`{path_of(module, name)}`: spd_map has to be one of {names}. "
            f"Got: {spd_map}."
        )
    map_: Parametrization = Cholesky()
    if spd_map != "cholesky":
        of_symmetric = MatrixExp() if spd_map == "matrix_exp" else SpectralSoftplus()
        map_ = Chain(Symmetric(), of_symmetric)
    return register_parametrization(module, name, map_)


def hurwitz(module: nn.Module, name: str = "weight", alpha: float = 0.0) -> nn.Module:
    r"""Keep a matrix stable in continuous time: all eigenvalues left of a line.

    .. math::
        \mathrm{Re}\, \lambda < -\alpha

    Args:
        module: the module that owns the weight.
        name: its name.
        alpha: the rate that everything decays with at least.

    Returns:
        The module. See `maps.Lyapunov`.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: it is not square.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.hurwitz(torch.nn.Linear(3, 3))
        >>> bool((torch.linalg.eigvals(layer.weight).real < 0).all())
        True
    """
    check_module(module, "hurwitz", name)
    return register_parametrization(module, name, Lyapunov(alpha))


def schur_stable(
    module: nn.Module, name: str = "weight", rho: float = 1.0
) -> nn.Module:
    r"""Keep a matrix stable in discrete time: all eigenvalues inside of a circle.

    .. math::
        |\lambda| < \rho

    Args:
        module: the module that owns the weight.
        name: its name.
        rho: the radius.

    Returns:
        The module. See `maps.Stein`.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: it is not square.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.schur_stable(torch.nn.Linear(3, 3), rho=0.9)
        >>> bool((torch.linalg.eigvals(layer.weight).abs() < 0.9).all())
        True
    """
    check_module(module, "schur_stable", name)
    return register_parametrization(module, name, Stein(rho))


def per_gate(
    module: nn.Module,
    name: str = "weight_hh_l0",
    map: Parametrization | None = None,
    *,
    gates: int | None = None,
) -> nn.Module:
    """Give each gate of a recurrent weight, or query, key and value, a map of its own.

    Args:
        module: the module that owns the weight.
        name: its name.
        map: the map of one gate's matrix; by default `maps.Orthogonal`.
        gates: how many there are. By default what the type of the module says: 4 for
            ``LSTM``, 3 for ``GRU`` and ``MultiheadAttention``, 1 for ``RNN``; for their
            ``weight_ih*``, ``weight_hh*``, biases and ``in_proj*`` only.

    Returns:
        The module. See `maps.PerBlock`: the gates are computed as one batch.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: ``gates`` is not given, and the module is of another type or
            the tensor another one; or it does not divide the rows.

    Example:
        >>> import torch, holdfast
        >>> rnn = holdfast.per_gate(torch.nn.LSTM(2, 3))
        >>> Q = rnn.weight_hh_l0[:3]
        >>> torch.allclose(Q @ Q.T, torch.eye(3), atol=1e-6)
        True
    """
    check_module(module, "per_gate", name)
    map = Orthogonal() if map is None else map
    check_type(map, Parametrization, "per_gate", "a map")
    if gates is None:
        gates = _gates(module, name)
    return register_parametrization(module, name, PerBlock(map, gates))


def _gates(module: nn.Module, name: str) -> int:
    """Return how many gates a tensor of a module stacks."""
    tensor_of(module, name)
    found = [count for kind, count in _GATES.items() if isinstance(module, kind)]
    if found and _STACKED.match(name):
        return found[0]
    raise InvalidTensorError(
        f"`{path_of(module, name)}`: how many gates it has is not known of this tensor "
        f"of a {type(module).__name__}. Give `gates` a number."
    )
