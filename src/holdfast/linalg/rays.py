r"""Slices of a tensor along some of its dimensions: their norms, and maps along rays.

Note [Along rays]
    Both the projection onto the sphere and a smooth bijection onto the ball are

    .. math::
        U = \rho V, \qquad \rho = (a + \|V\|^2)^{-1/2},

    for a = 0 and a = 1. So their derivatives are the same in U and :math:`\rho`:

    .. math::
        dU = \rho\, (dV - U \langle U, dV \rangle), \qquad
        d\rho = -\rho^2 \langle U, dV \rangle.

    This map is its own adjoint. Nothing cancels, and no square of a small or large
    number is taken but in double precision. A slice of zeros has no direction; it gets
    a fixed one, and the derivative of a slice of norm 1 in it, along which training
    leaves.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .closed_form import Rule, Tensors, closed_form
from .kernels import usual
from .norms import axis
from .precision import double
from .tracing import traced

Dims = int | tuple[int, ...] | None


def positions(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Return dimensions counted from the front, in order; ``None`` means all.

    Example:
        >>> positions((-1, 0), 3), positions(None, 2)
        ((0, 2), (0, 1))
    """
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else dim
    found = tuple(sorted(axis(d, ndim) for d in dims))
    if not found and ndim:
        raise InvalidTensorError(
            f"Expected at least one of {ndim} dimensions. Got {dim}. `None` means all."
        )
    if len(set(found)) < len(found):
        raise InvalidTensorError(
            f"Expected each dimension once. Got {dim} for {ndim} dimensions."
        )
    return found


def slice_size(shape: tuple[int, ...], dim: Dims) -> int:
    """Return the number of entries of a slice.

    Example:
        >>> slice_size((2, 3, 5), (-2, -1))
        15
    """
    return math.prod([shape[i] for i in positions(dim, len(shape))])


def require_slices(shape: tuple[int, ...], dim: Dims, least: int = 1) -> None:
    """Raise unless slices have so many entries.

    Example:
        >>> require_slices((3, 2), -1, 2)
    """
    if slice_size(shape, dim) < least:
        raise InvalidTensorError(
            f"Expected slices of at least {least} entries along dimension {dim}. "
            f"Got shape {tuple(shape)}."
        )


def slices(V: Tensor, dim: Dims) -> Tensor:
    """Return the tensor with its slices along one last dimension.

    Example:
        >>> import torch
        >>> slices(torch.zeros(2, 3, 5), (0, 2)).shape
        torch.Size([3, 10])
    """
    if V.ndim == 0:
        return V.reshape(1)
    inside = positions(dim, V.ndim)
    if inside == (V.ndim - 1,):
        return V
    return V.permute(_order(inside, V.ndim)).flatten(V.ndim - len(inside))


def from_slices(X: Tensor, shape: tuple[int, ...], dim: Dims) -> Tensor:
    """Return the tensor of a shape that `slices` makes ``X`` of.

    Example:
        >>> import torch
        >>> from_slices(torch.zeros(3, 10), (2, 3, 5), (0, 2)).shape
        torch.Size([2, 3, 5])
    """
    if not shape:
        return X.reshape(shape)
    inside = positions(dim, len(shape))
    if inside == (len(shape) - 1,):
        return X
    order = _order(inside, len(shape))
    back = [order.index(i) for i in range(len(shape))]
    return X.reshape([shape[i] for i in order]).permute(back)


def _order(inside: tuple[int, ...], ndim: int) -> list[int]:
    return [*(i for i in range(ndim) if i not in inside), *inside]


def slice_norm(V: Tensor, p: float = 2.0) -> Tensor:
    """Return the p-norms along the last dimension, in double precision.

    There the squares of all numbers of single precision are far from over- and
    underflow.

    Shape: ``(*, n) -> (*, 1)``.

    Example:
        >>> import torch
        >>> slice_norm(torch.tensor([3e30, 4e30]))
        tensor([5.0000e+30], dtype=torch.float64)
    """
    return torch.linalg.vector_norm(double(V), p, -1, keepdim=True)


def spread(V: Tensor, *, balanced: bool) -> Tensor | float:
    """Return the direction that slices of zeros get: of norm 1, and of sum 0 if asked.

    Example:
        >>> import torch
        >>> spread(torch.zeros(4), balanced=False)
        0.5
        >>> spread(torch.zeros(2), balanced=True)
        tensor([-0.7071,  0.7071])
    """
    n = V.shape[-1]
    if not balanced:
        return 1 / math.sqrt(max(1, n))
    ramp = torch.arange(n, device=V.device, dtype=V.real.dtype) - (n - 1) / 2
    return ramp / (math.sqrt(n * (n * n - 1) / 12) or 1.0)


class _AlongRays:
    """What the rules of Note [Along rays] share."""

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return outputs

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor, g: Tensor | None) -> Tensors:  # noqa: ANN401
        U, ratio = kept
        value = ratio * (G - real_inner(U, G) * U)
        return (value if g is None else value - ratio * ratio * g * U,)

    @staticmethod
    def jvp(kept: Any, dV: Tensor) -> Tensors:  # noqa: ANN401
        U, ratio = kept
        inner = real_inner(U, dV)
        return ratio * (dV - inner * U), -ratio * ratio * inner


def real_inner(U: Tensor, V: Tensor) -> Tensor:
    """Return the real parts of the inner products along the last dimension.

    Shape: ``(*, n), (*, n) -> (*, 1)``.

    Example:
        >>> import torch
        >>> real_inner(torch.tensor([1.0, 1j]), torch.tensor([2.0, 1j]))
        tensor([3.])
    """
    product = (U.conj() * V).real if U.dtype.is_complex else U * V
    return product.sum(-1, keepdim=True)


def _onto_sphere(*, balanced: bool) -> Rule:
    class OntoSphere(_AlongRays):
        @staticmethod
        def forward(V: Tensor) -> tuple[Tensor, Tensor]:
            quick = _usual_norms(V)
            if quick is not None:
                ratio = quick.reciprocal_()
                return V * ratio, ratio
            norm, real = slice_norm(V), V.real.dtype
            zero = norm < torch.finfo(real).tiny
            ratio = norm.masked_fill(zero, 1).reciprocal().to(real)
            return V * ratio + zero.to(real) * spread(V, balanced=balanced), ratio

    return OntoSphere


def _usual_norms(V: Tensor) -> Tensor | None:
    """Return the norms if none needs any care, as far as the host may look."""
    if V.device.type != "cpu" or traced(V) or V.numel() == 0:
        return None
    norm = torch.linalg.vector_norm(V, dim=-1, keepdim=True)
    return norm if usual(norm) else None


class _IntoBall(_AlongRays):
    @staticmethod
    def forward(V: Tensor) -> tuple[Tensor, Tensor]:
        norm = slice_norm(V)
        ratio = torch.hypot(norm, torch.ones_like(norm)).reciprocal().to(V.real.dtype)
        return V * ratio, ratio


_normalized = closed_form(_onto_sphere(balanced=False))
_normalized_balanced = closed_form(_onto_sphere(balanced=True))
_into_ball = closed_form(_IntoBall)


def normalized(V: Tensor, *, balanced: bool = False) -> Tensor:
    r"""Return the slices along the last dimension over their norms.

    Zeros get a fixed direction, one of sum zero if ``balanced``; see Note [Along rays].

    Example:
        >>> import torch
        >>> normalized(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.7071, 0.7071]])
    """
    return _normalized_balanced(V) if balanced else _normalized(V)


def into_ball(V: Tensor) -> Tensor:
    r"""Return :math:`v / \sqrt{1 + \|v\|^2}` for slices v along the last dimension.

    Example:
        >>> import torch
        >>> into_ball(torch.tensor([3.0, 4.0]))
        tensor([0.5883, 0.7845])
    """
    return _into_ball(V)


def into_ball_inverse(U: Tensor, eps: float) -> Tensor:
    r"""Return :math:`u / \sqrt{1 - \|u\|^2}`; norms above 1 - eps count as that.

    Example:
        >>> import torch
        >>> into_ball_inverse(torch.tensor([0.6, 0.0]), 1e-7)
        tensor([0.7500, 0.0000])
    """
    norm = slice_norm(U)
    inside = norm.clamp_max(1 - eps)
    kept = inside / torch.where(norm > 0, norm, 1)
    ratio = kept / ((1 - inside) * (1 + inside)).sqrt()
    return U * torch.where(norm > 0, ratio, 1).to(U.real.dtype)
