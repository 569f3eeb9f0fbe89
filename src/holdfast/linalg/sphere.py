r"""The exponential map of the unit sphere.

Note [Great circles]
    From a unit vector b, along the tangent vector :math:`v = x - \langle b, x\rangle b`
    of length s,

    .. math::
        w = c\, b + g\, v, \qquad c = \cos s, \quad g = \sin(s) / s.

    All of this is smooth in :math:`s^2`: with :math:`k = (g - c) / s^2` and
    :math:`q = \langle v, dv \rangle`,

    .. math::
        dw = g\, dv - q\, (g\, b + k\, v), \qquad dc = -g q, \quad dg = -k q.

    In the first derivative k stands beside :math:`v q`, and what it loses to
    cancellation is less than a rounding of :math:`g\, dv`. Derivatives of derivatives
    need it right, from a series near zero.

    The part of x along b may be far larger than v. What rounding leaves of it,
    :math:`d = \langle b, v \rangle`, is taken off the coefficient of b.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .rays import real_inner, slice_norm

# Below this squared length, the series has fewer wrong digits than the quotient.
_NEAR = 1e-2
_SERIES = (1 / 3, -1 / 30, 1 / 840, -1 / 45360, 1 / 3991680)


def _tangent(X: Tensor, base: Tensor) -> Tensor:
    return X - real_inner(base, X) * base


def _curvature(v: Tensor, c: Tensor, g: Tensor) -> Tensor:
    """Return k in Note [Great circles], with derivatives."""
    square = real_inner(v, v)
    near = square < _NEAR
    low = square.masked_fill(~near, 0)
    series = torch.full_like(low, _SERIES[-1])
    for coefficient in _SERIES[-2::-1]:
        series = series * low + coefficient
    return torch.where(near, series, (g - c) / square.masked_fill(near, 1))


class _Exponential:
    @staticmethod
    def forward(X: Tensor, base: Tensor) -> tuple[Tensor, ...]:
        v = _tangent(X, base)
        left, length = real_inner(base, v), slice_norm(v)
        c, g = length.cos(), torch.sinc(length / math.pi)
        k = (g - c) / (length * length).clamp_min(torch.finfo(length.dtype).tiny)
        c, g, k = (x.to(left.dtype) for x in (c, g, k))
        return (c - g * left) * base + g * v, v, c, g, k

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs[1], *outputs[1:]

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor, *others: Tensor | None) -> Tensors:  # noqa: ANN401
        base, v, c, g, k = kept
        gv, gc, gg, _ = others
        k = _curvature(v, c, g) if torch.is_grad_enabled() else k
        inner = real_inner(base, G)
        along = g * inner + k * real_inner(v, G)
        along = along if gc is None else along + g * gc
        along = along if gg is None else along + k * gg
        slope = g * (G - inner * base) - along * v
        return slope if gv is None else slope + _tangent(gv, base), None

    @staticmethod
    def jvp(kept: Any, dX: Tensor, dbase: None) -> Tensors:  # noqa: ANN401
        base, v, c, g, k = kept
        dv = _tangent(dX, base)
        q, curvature = real_inner(v, dv), _curvature(v, c, g)
        dw = g * dv - q * (g * base + curvature * v)
        # k is a constant, for first derivatives alone
        return dw, dv, -g * q, -curvature * q, torch.zeros_like(k)


_exponential = closed_form(_Exponential)


def sphere_exponential(X: Tensor, base: Tensor) -> Tensor:
    r"""Return where the great circle from ``base`` in direction X ends.

    Unit vectors lie along the last dimension. The part of X along the base is left out,
    and the length of what remains is the angle. The base is a constant. Derivatives of
    every order are right at zero too. See Note [Great circles].

    Shape: ``(*, n), (*, n) -> (*, n)``.

    Example:
        >>> import math, torch
        >>> sphere_exponential(torch.tensor([5.0, math.pi]), torch.tensor([1.0, 0.0]))
        tensor([-1.0000e+00, -8.7423e-08])
    """
    return _exponential(X, base.expand_as(X))
