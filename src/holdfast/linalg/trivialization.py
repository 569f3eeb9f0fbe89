r"""Coordinates around a base point, which cost nothing while they are zero.

Note [At the base]
    Where the base follows the value (dynamic trivialization with K = 1), every read
    finds zero coordinates. The value is the base then, and the derivative is that of
    the map at zero, whatever the map: no exponential and no inverse is computed. This
    is found out by a look at the coordinates, where the host may look. Derivatives of
    derivatives are another matter: at zero too they are the map's own.

References:
    Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds, 2019,
    https://arxiv.org/abs/1909.09501
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .precision import exactly
from .products import add_product
from .structure import difference_, lower
from .tracing import dual, traced

Binary = Callable[[Tensor, Tensor], Tensor]


def around_base(
    X: Tensor,
    base: Tensor,
    around: Binary,
    slope: Binary,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Return ``around(X, base)``, for a function that takes zero to the base.

    Args:
        X: the coordinates.
        base: the base point.
        around: the function.
        slope: takes a cotangent of the value, and the base, to the gradient of ``X`` at
            zero.
        read: returns what the value depends on, if that is not all of ``X``.

    Example:
        >>> import torch
        >>> from holdfast.linalg import thin_cayley_at
        >>> X, base = torch.zeros(2, 2, requires_grad=True), torch.eye(2)
        >>> Q = around_base(X, base, thin_cayley_at, thin_slope)
        >>> Q.trace().backward()
        >>> X.grad
        tensor([[0., 0.],
                [0., 0.]])
    """
    if X.device.type != "cpu" or traced(X) or dual() or base.requires_grad:
        return around(X, base)
    many = X.shape[-2] > 1 and X.shape[-1] > 0
    if many and bool(X.detach()[..., -1, 0].any()):  # a quick look first
        return around(X, base)
    part = X.detach() if read is None else read(X.detach())
    if bool(torch.linalg.vector_norm(part)):
        return around(X, base)
    if not (torch.is_grad_enabled() and X.requires_grad):
        return _at_base(X, base)
    return _AtBase.apply(X, base, around, slope)  # pyright: ignore[reportReturnType]


class _AtBase(torch.autograd.Function):
    """The base, as the value at zero. See Note [At the base]."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, base: Tensor, *rule: Any) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(base)
        ctx.X, ctx.version = X, X._version
        ctx.around, ctx.slope = rule
        return _at_base(X, base)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ANN401
        (base,) = ctx.saved_tensors
        if not torch.is_grad_enabled():  # the slope at zero, whatever X is by now
            with exactly(base):
                return ctx.slope(grads[0], base), None, None, None
        if ctx.X._version != ctx.version:
            raise RuntimeError(
                "The coordinates of an orthogonal weight were modified in place after "
                "it was read. Take derivatives of derivatives before that."
            )
        value = ctx.around(ctx.X, base)
        gX = torch.autograd.grad(value, ctx.X, grads[0], create_graph=True)[0]
        return gX, None, None, None


def _at_base(X: Tensor, base: Tensor) -> Tensor:
    """Return the value at zero, of which a larger base has more columns."""
    return base[..., : X.shape[-1]].clone(memory_format=torch.contiguous_format)


def thin_slope(G: Tensor, base: Tensor) -> Tensor:
    r"""Return :math:`G - B G^H B`, the gradient of `thin_cayley_at` at zero.

    Example:
        >>> import torch
        >>> thin_slope(torch.ones(2, 1), torch.eye(2, 1))
        tensor([[0.],
                [1.]])
    """
    return add_product(G, base, G.mH @ base, alpha=-1)


def lower_triangle(X: Tensor) -> Tensor:
    """Return what `lower_skew` reads of X, and the same of a tall one.

    Example:
        >>> import torch
        >>> lower_triangle(torch.ones(3, 2))
        tensor([[0., 0.],
                [1., 0.],
                [1., 1.]])
    """
    if X.is_complex():  # the diagonal of a skew-Hermitian matrix is imaginary
        return torch.complex(X.real.tril(-1), X.imag.tril())
    return lower(X.clone(memory_format=torch.contiguous_format), -1)


def lower_slope(G: Tensor, base: Tensor) -> Tensor:
    r"""Return the gradient of the lower triangle of a skew A in :math:`B e^A` at zero.

    ``G`` may be a cotangent of the first columns only, and the gradient is one of the
    first columns of a triangle.

    Example:
        >>> import torch
        >>> lower_slope(torch.tensor([[0.0, 1.0], [3.0, 0.0]]), torch.eye(2))
        tensor([[0., 0.],
                [2., 0.]])
    """
    inside = base.mH @ G
    n, k = inside.shape[-2:]
    if n == k:
        return lower(difference_(inside))
    upper, below = inside.split([k, n - k], -2)
    return torch.cat([lower(difference_(upper)), below], -2)
