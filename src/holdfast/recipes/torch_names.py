"""The recipes that torch has, with its names and arguments."""

from __future__ import annotations

from typing import cast, get_args

from torch import Tensor, nn

from ..core.checks import check_module
from ..core.classes import chain_of
from ..core.deferral import once_initialized
from ..core.legacy import hint_of_legacy
from ..core.registration import register_parametrization, usable
from ..errors import InvalidTensorError, UnknownTensorError, did_you_mean, path_of
from ..linalg.matricization import matricized_shape
from ..maps.combinators import Matricized
from ..maps.norm import SpectralNorm, WeightNorm
from ..maps.orthogonal import Orthogonal, OrthogonalMap
from ..maps.thin import ThinMap, ThinOrthogonal

_THIN = "thin_"
_ORTHOGONAL_MAPS = (
    *get_args(OrthogonalMap),
    *(_THIN + kind for kind in get_args(ThinMap)),
)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@once_initialized
def orthogonal(
    module: nn.Module,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
    special: bool = False,
    axes: int | tuple[int, ...] | None = None,
) -> nn.Module:
    r"""Give a weight orthonormal columns, or rows where it is wide.

    .. math::
        Q^H Q = I \text{ for } n \ge k, \qquad Q Q^H = I \text{ for } n < k

    A weight that has them already is kept; any other is made so by QR. A tensor of more
    than two dimensions is a batch of matrices, as in torch, unless ``axes`` makes it
    one matrix.

    Args:
        module: the module that owns the weight.
        name: its name.
        orthogonal_map: ``"matrix_exp"``, ``"cayley"`` or ``"householder"``, which are
            torch's, see `maps.Orthogonal`; or ``"thin_cayley"`` or
            ``"thin_matrix_exp"``, see `maps.ThinOrthogonal`. By default
            ``"matrix_exp"`` for square matrices, as in torch, and ``"thin_cayley"`` for
            all others, which is the fastest, and makes no n x n matrix. It loads what
            torch's default saves (``"householder"``, or ``"matrix_exp"`` for complex
            ones), but torch does not load it: for that, name a map of torch's.
        use_trivialization: keep an n x n base point, which makes every such matrix
            assignable to torch's maps; to the thin ones they are anyway.
        special: only determinant 1, of a square matrix and a map of torch's, see
            `maps.Orthogonal`.
        axes: the dimension, or dimensions, that become the rows of one matrix, of which
            all others are the columns: 0 for the kernel of a convolution. See
            `maps.Matricized`.

    Returns:
        The module.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: it is not a matrix, complex with ``"householder"``, or not
            square with ``special``.
        IndexError: ``axes`` is out of range.
        ValueError: ``orthogonal_map`` is none of the five, or a thin one with
            ``special``; or ``axes`` names a dimension twice.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(3, 5))
        >>> torch.allclose(layer.weight.T @ layer.weight, torch.eye(3), atol=1e-6)
        True
    """
    shape = tuple(tensor_of(module, name).shape)
    if axes is not None:
        shape = matricized_shape(shape, axes)
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if special else _choice(module, name, shape)
    if orthogonal_map not in _ORTHOGONAL_MAPS:
        names = ", ".join(f'"{known}"' for known in _ORTHOGONAL_MAPS)
        raise ValueError(
            f"`{path_of(module, name)}`: orthogonal_map has to be one of {names}. "
            f"Got: {orthogonal_map}."
        )
    if orthogonal_map.startswith(_THIN):
        if special:
            raise ValueError(
                f"`{path_of(module, name)}`: special=True takes a map for square "
                f'matrices, such as "matrix_exp". Got: {orthogonal_map}.'
            )
        map_ = ThinOrthogonal(cast("ThinMap", orthogonal_map.removeprefix(_THIN)))
    else:
        kind = cast("OrthogonalMap", orthogonal_map)
        map_ = Orthogonal(kind, use_trivialization=use_trivialization, special=special)
    map_ = map_ if axes is None else Matricized(map_, axes)
    return register_parametrization(module, name, map_)


def weight_norm(
    module: nn.Module, name: str = "weight", dim: int | None = 0
) -> nn.Module:
    r"""Train the length and the direction of each slice of a weight apart.

    .. math::
        W = g\, V / \|V\|

    Args:
        module: the module that owns the weight.
        name: its name.
        dim: the dimension along which the slices lie; negative ones count from the
            end, ``None`` makes the whole tensor one slice. See `maps.WeightNorm`.

    Returns:
        The module. The originals are ``original0``, g, and ``original1``, V: give them
        to the optimizer, or see `swap_parameters`.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(20, 40))
        >>> layer.parametrizations.weight.original0.shape
        torch.Size([40, 1])
    """
    check_module(module, "weight_norm", name)
    return register_parametrization(module, name, WeightNorm(dim))


@once_initialized
def spectral_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> nn.Module:
    r"""Divide a weight by its largest singular value.

    .. math::
        W \mapsto W / \sigma_{\max}(W)

    The value is estimated by power iteration, which advances once in every training
    forward of the module and never when the weight is read. See `maps.SpectralNorm`.

    Args:
        module: the module that owns the weight.
        name: its name.
        n_power_iterations: steps per training forward.
        eps: a norm below it counts as zero.
        dim: the dimension of the outputs. By default 1 for transposed convolutions and
            0 for all others.

    Returns:
        The module.

    Raises:
        UnknownTensorError: the module has no such tensor.
        IndexError: ``dim`` is out of range.
        ValueError: ``n_power_iterations`` is not positive.

    Example:
        >>> import torch, holdfast
        >>> _ = torch.manual_seed(0)
        >>> layer = holdfast.spectral_norm(torch.nn.Linear(20, 40))
        >>> bool(abs(torch.linalg.matrix_norm(layer.weight, 2) - 1) < 0.01)
        True
    """
    tensor_of(module, name)
    if dim is None:
        dim = 1 if isinstance(module, TRANSPOSED) else 0
    map_ = SpectralNorm(n_power_iterations, dim=dim, eps=eps)
    return register_parametrization(module, name, map_)


def _choice(module: nn.Module, name: str, shape: tuple[int, ...]) -> str:
    """Return the map that torch takes for square matrices, the fastest for others."""
    if len(shape) < 2:
        raise InvalidTensorError(
            f"`{path_of(module, name)}`: Expected a matrix or batch of matrices. "
            f"Got a tensor of {len(shape)} dimensions."
        )
    return "matrix_exp" if shape[-2] == shape[-1] else "thin_cayley"


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """Return what is to be parametrized, or say what there is.

    It is not read as an attribute: an `AttributeError` that a map raises would look as
    if there were no such tensor.
    """
    chain = chain_of(module, name)
    if chain is not None:
        return chain()
    weight = module._parameters.get(name, module._buffers.get(name))
    if weight is None:
        known = [*module._parameters, *module._buffers]
        raise UnknownTensorError(
            f"`{path_of(module, name)}`: the {type(module).__name__} has no parameter "
            f"or buffer with name '{name}'."
            f"{hint_of_legacy(module, name) or did_you_mean(name, known)}"
        )
    return usable(weight, lambda: path_of(module, name))
