"""Functions of one entry, with the inverses that keep every digit."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # torch's own name for it
from torch import Tensor

from ..errors import InvalidTensorError
from .closed_form import Tensors, closed_form

# Above it, softplus is the identity to double precision; torch's 20 leaves 2e-9.
_LINEAR = 40.0


def require_real(X: Tensor) -> None:
    """Raise for complex tensors, whose entries have no order."""
    if X.is_complex():
        raise InvalidTensorError(
            f"Expected a real tensor, whose entries have an order. Got {X.dtype}."
        )


def softplus(X: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return :math:`\log(1 + e^{\beta x}) / \beta`, right to the last digits.

    Example:
        >>> import torch
        >>> softplus(torch.tensor([-200.0, 0.0, 200.0], dtype=torch.float64))
        tensor([1.3839e-87, 6.9315e-01, 2.0000e+02], dtype=torch.float64)
    """
    return F.softplus(X, beta, _LINEAR)


def softplus_inverse(Y: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return :math:`y + \log(1 - e^{-\beta y}) / \beta` for positive y.

    Example:
        >>> import torch
        >>> softplus_inverse(softplus(torch.tensor([-30.0, 0.0, 60.0])))
        tensor([-30.,   0.,  60.])
    """
    return Y + (-torch.expm1(-beta * Y)).log() / beta


def below_overflow(X: Tensor) -> Tensor:
    """Return X with no entry whose exponential would be infinite in its type.

    Example:
        >>> import torch
        >>> below_overflow(torch.tensor([0.0, 1e18])).exp().isfinite()
        tensor([True, True])
    """
    # the distance covers the rounding of the logarithm itself, in all types
    return X.clamp(max=math.log(torch.finfo(X.dtype).max) - 0.1)


def lift(Y: Tensor, eps: float) -> Tensor:
    """Return Y with the entries that are not positive ``eps`` above zero.

    In units of the mean of the matrix: what lies on the boundary of a set, where no
    finite original leads, is moved inside by less than a rounding of its neighbours.

    Example:
        >>> import torch
        >>> lift(torch.tensor([4.0, 0.0]), 0.25)
        tensor([4.0000, 0.5000])
    """
    dims = tuple(range(max(0, Y.ndim - 2), Y.ndim))
    mean = Y.relu().mean(dims, keepdim=True)
    return torch.where(Y <= 0, eps * torch.where(mean > 0, mean, 1), Y)


def logit(Y: Tensor, rest: Tensor, eps: float) -> Tensor:
    r"""Return :math:`\log(y / z)`, finite where one of the two parts is zero.

    Such a part counts as ``eps`` of the sum; where both are zero, so is the logarithm.

    Example:
        >>> import torch
        >>> logit(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]), 1e-3)
        tensor([ 0.0000, -6.9078,  0.0000])
    """
    whole = Y + rest
    floor = eps * torch.where(whole == 0, 1, whole)
    above, below = (torch.where(part <= 0, floor, part) for part in (Y, rest))
    return above.log() - below.log()


class _FakeQuantize:
    @staticmethod
    def forward(X: Tensor, step: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor]:
        return (step * (X / step).round().clamp(low, high),)

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        X, step, low, high = kept
        level = (X / step).detach().round()
        return torch.where((low <= level) & (level <= high), G, 0), None, None, None

    @staticmethod
    def jvp(kept: Any, dX: Tensor, *others: None) -> Tensors:  # noqa: ANN401
        return _FakeQuantize.vjp(kept, None, dX)[:1]


_fake_quantize = closed_form(_FakeQuantize)


def fake_quantize(X: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round to the nearest of the levels ``step * (low, ..., high)``.

    The derivative passes straight through, and is zero where X lies beyond the levels.

    Example:
        >>> import torch
        >>> bounds = torch.tensor(-2), torch.tensor(2)
        >>> fake_quantize(torch.tensor([0.4, 9.0]), torch.tensor(0.5), *bounds)
        tensor([0.5000, 1.0000])

    References:
        Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons,
        2013, https://arxiv.org/abs/1308.3432
    """
    parts = (step.to(X.dtype), low.to(X.dtype), high.to(X.dtype))
    return _fake_quantize(X, *(part.expand_as(X) for part in parts))
