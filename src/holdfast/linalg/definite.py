"""The exponential of symmetric matrices, and its inverse on the definite ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .exponential import exponential_derivative, matrix_exponential
from .precision import double, full_precision
from .structure import require_square
from .tracing import traced


def symmetric_exponential(S: Tensor) -> Tensor:
    r"""Return :math:`\exp(S)` of a symmetric or Hermitian matrix, positive definite.

    By one eigendecomposition :math:`S = V \Lambda V^H`. The gradient is that on
    symmetric matrices, a symmetric one, by the formula of Daleckii and Krein,

    .. math::
        V \big(\Phi \circ (V^H G V)\big) V^H, \qquad
        \Phi_{ij} = \frac{e^{\lambda_i} - e^{\lambda_j}}{\lambda_i - \lambda_j},

    in which :math:`\Phi` is smooth where eigenvalues meet. Tracers, which do not know
    this formula, get `matrix_exponential`, and so does CUDA, where a decomposition
    makes the host wait. Single precision is computed in double: a rounding of S in its
    largest eigenvalue would be one of exp(S) in the exponent.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``, of single or double precision.

    Example:
        >>> import torch
        >>> symmetric_exponential(torch.zeros(2, 2))
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Higham, Functions of Matrices, 2008, section 3.2,
        https://doi.org/10.1137/1.9780898717778
    """
    require_square(S)
    if S.is_cuda:
        W = matrix_exponential((S + S.mH) / 2)
        return (W + W.mH) / 2
    if traced(S):
        return matrix_exponential(S)
    return _SymmetricExponential.apply(S)


class _SymmetricExponential(torch.autograd.Function):
    """The exponential with the gradient in the basis of eigenvectors.

    Derivatives of derivatives, and in forward mode, are ordinary operations.
    """

    @staticmethod
    def forward(ctx: Any, S: Tensor) -> Tensor:  # noqa: ANN401
        """Decompose."""
        wide = double(S)
        values, V = torch.linalg.eigh((wide + wide.mH) / 2)
        ctx.save_for_backward(S, values, V)
        ctx.save_for_forward(S)
        W = (V * values.exp().unsqueeze(-2)) @ V.mH
        return ((W + W.mH) / 2).to(S.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401
        """Return the symmetric gradient."""
        S, values, V = ctx.saved_tensors
        if torch.is_grad_enabled():
            slope = exponential_derivative(S.mH, grads[0])
        else:
            inner = V.mH @ grads[0].to(V.dtype) @ V
            slope = (V @ (_quotients(values) * inner) @ V.mH).to(S.dtype)
        return (slope + slope.mH) / 2

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        """Return the derivative in a symmetric direction."""
        (S,) = ctx.saved_tensors
        return exponential_derivative(S, tangents[0])


def _quotients(values: Tensor) -> Tensor:
    """Return the divided differences of exp, ``exp(larger) * (1 - exp(-d)) / d``."""
    larger = torch.maximum(values.unsqueeze(-1), values.unsqueeze(-2))
    gap = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    apart = gap > 0
    gap = torch.where(apart, gap, 1)
    return larger.exp() * torch.where(apart, -torch.expm1(-gap) / gap, 1)


@full_precision
def symmetric_logarithm(W: Tensor, floor: float = 0.0) -> Tensor:
    r"""Return the symmetric logarithm of a symmetric positive definite matrix.

    Args:
        W: the matrix, or a batch.
        floor: eigenvalues count as at least ``floor`` times the largest one.

    Example:
        >>> import torch
        >>> symmetric_logarithm(torch.eye(2))
        tensor([[0., 0.],
                [0., 0.]])
    """
    require_square(W)
    values, V = torch.linalg.eigh((W + W.mH) / 2)
    values = torch.maximum(values, floor * values[..., -1:])
    A = (V * values.log().unsqueeze(-2)) @ V.mH
    return (A + A.mH) / 2
