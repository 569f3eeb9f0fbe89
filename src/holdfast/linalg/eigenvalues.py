r"""Functions of the eigenvalues of symmetric matrices.

Note [Daleckii and Krein]
    For :math:`S = V \Lambda V^H` let :math:`f(S) = V f(\Lambda) V^H`. In the basis of
    eigenvectors, where :math:`\hat H = V^H H V`, the derivatives are

    .. math::
        (\hat D_1 H)_{ij} = f[\lambda_i, \lambda_j]\, \hat H_{ij}, \qquad
        (\hat D_2 (H, E))_{ij} = \sum_k f[\lambda_i, \lambda_k, \lambda_j]
        (\hat H_{ik} \hat E_{kj} + \hat E_{ik} \hat H_{kj}),

    with divided differences, which are smooth where eigenvalues meet, although the
    eigenvectors are not. So these are constants to the derivatives of derivatives, and
    S is what those are taken by. :math:`D_1` is its own adjoint, and the adjoint of
    :math:`D_2(H, \cdot)` is :math:`D_2(H^H, \cdot)`. The second costs n³ in memory. A
    third is not there: it would cost as much as n⁴.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .divided import (
    Differences,
    Logistic,
    Softplus,
    first_differences,
    second_differences,
)
from .precision import double
from .structure import require_square


def _hermitian(X: Tensor) -> Tensor:
    return (X + X.mH) / 2


def _second(f: Differences) -> Callable[..., Tensor]:
    """Return the function D_2 of S, H, E, the eigenvalues and the eigenvectors."""

    class Second:
        @staticmethod
        def forward(
            S: Tensor, H: Tensor, E: Tensor, values: Tensor, V: Tensor
        ) -> tuple[Tensor]:
            H, E = V.mH @ H @ V, V.mH @ E @ V
            slopes = second_differences(f, values)
            H, E = (
                H.unsqueeze(-1) * E.unsqueeze(-3),
                E.unsqueeze(-1) * H.unsqueeze(-3),
            )
            return (V @ (slopes * (H + E)).sum(-2) @ V.mH,)

        @staticmethod
        def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
            return inputs

        @staticmethod
        def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
            S, H, E, values, V = kept
            if needs[0]:
                raise NotImplementedError(_THIRD)
            gH, gE = (second(S, X.mH, G, values, V) for X in (E, H))
            return None, gH, gE, None, None

        @staticmethod
        def jvp(
            kept: Any,  # noqa: ANN401
            dS: Tensor | None,
            dH: Tensor | None,
            dE: Tensor | None,
            dvalues: None,
            dV: None,
        ) -> Tensors:
            S, H, E, values, V = kept
            if dS is not None:
                raise NotImplementedError(_THIRD)
            parts = [(dH, E), (H, dE)]
            terms = [second(S, *p, values, V) for p in parts if None not in p]
            return (sum(terms[1:], terms[0]),)

    second = closed_form(Second)
    return second


_THIRD = "Third derivatives of eigenvalue functions are not implemented."


def _first(f: Differences) -> Callable[..., Tensor]:
    """Return the function D_1 of S, H, the eigenvalues and the eigenvectors."""
    second = _second(f)

    class First:
        @staticmethod
        def forward(S: Tensor, H: Tensor, values: Tensor, V: Tensor) -> tuple[Tensor]:
            return (V @ (first_differences(f, values) * (V.mH @ H @ V)) @ V.mH,)

        @staticmethod
        def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
            return inputs

        @staticmethod
        def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
            S, H, values, V = kept
            gS = _hermitian(second(S, H.mH, G, values, V)) if needs[0] else None
            return gS, first(S, G, values, V), None, None

        @staticmethod
        def jvp(
            kept: Any,  # noqa: ANN401
            dS: Tensor | None,
            dH: Tensor | None,
            dvalues: None,
            dV: None,
        ) -> Tensors:
            S, H, values, V = kept
            value = torch.zeros_like(H) if dH is None else first(S, dH, values, V)
            if dS is not None:
                value = value + second(S, H, _hermitian(dS), values, V)
            return (value,)

    first = closed_form(First)
    return first


def eigenvalue_function(f: Differences) -> Callable[[Tensor], Tensor]:
    """Return the function of symmetric matrices that f is of their eigenvalues.

    Its argument is made symmetric first. See Note [Daleckii and Krein].

    Example:
        >>> import torch
        >>> eigenvalue_function(Softplus)(torch.zeros(2, 2))
        tensor([[0.6931, 0.0000],
                [0.0000, 0.6931]])
    """
    first = _first(f)

    class Value:
        @staticmethod
        def forward(S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            values, V = torch.linalg.eigh(_hermitian(S))
            W = (V * f.value(values).unsqueeze(-2)) @ V.mH
            return _hermitian(W), values, V

        @staticmethod
        def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
            return inputs[0], outputs[1], outputs[2]

        @staticmethod
        def vjp(kept: Any, needs: Any, *grads: Any) -> Tensors:  # noqa: ANN401
            S, values, V = kept
            return (first(S, _hermitian(grads[0]), values.detach(), V.detach()),)

        @staticmethod
        def jvp(kept: Any, dS: Tensor) -> Tensors:  # noqa: ANN401
            S, values, V = kept
            value = first(S, _hermitian(dS), values.detach(), V.detach())
            # to the derivatives, which alone see them, the others are constants
            return value, torch.zeros_like(values), torch.zeros_like(V)

    value = closed_form(Value)

    def function(S: Tensor) -> Tensor:
        require_square(S)
        return value(double(S)).to(S.dtype)

    return function


_softplus = eigenvalue_function(Softplus)
_logistic = eigenvalue_function(Logistic)


def symmetric_softplus(S: Tensor) -> Tensor:
    r"""Return :math:`\log(I + e^S)` of a symmetric or Hermitian matrix.

    By one eigendecomposition, in double precision. The first two derivatives are those
    of Daleckii and Krein, finite and exact where eigenvalues meet.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``, of single or double precision.

    Example:
        >>> import torch
        >>> symmetric_softplus(torch.zeros(2, 2))
        tensor([[0.6931, 0.0000],
                [0.0000, 0.6931]])

    References:
        Higham, Functions of Matrices, 2008, section 3.2,
        https://doi.org/10.1137/1.9780898717778
    """
    return _softplus(S)


def symmetric_logistic(S: Tensor) -> Tensor:
    r"""Return :math:`(I + e^{-S})^{-1}` of a symmetric or Hermitian matrix.

    Its eigenvalues are between 0 and 1. See `symmetric_softplus`.

    Example:
        >>> import torch
        >>> symmetric_logistic(torch.zeros(2, 2))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    return _logistic(S)
