"""Symmetric matrices through a function of their eigenvalues."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.eigenvalues import symmetric_logistic, symmetric_softplus
from ..linalg.entrywise import softplus_inverse
from ..linalg.precision import double, full_precision
from ..linalg.structure import require_square
from ..sets.definite import SpectrumIn, SymmetricPositiveDefinite
from ..sets.linear import SymmetricMatrices


class SpectralSoftplus(Parametrization):
    r"""The softplus function of the eigenvalues of a symmetric matrix.

    .. math::
        S = V \Lambda V^H \mapsto V \log(I + e^{\Lambda})\, V^H, \qquad
        \mathrm{Sym}(n) \to \mathrm{Sym}^{+}(n)

    A bijection, and the right inverse is exact; semidefinite matrices are at infinity,
    and one that is assigned is reached up to rounding. Unlike `MatrixExp`, which gets
    there as well, it grows linearly and nowhere overflows. It turns with its argument:
    :math:`f(Q S Q^H) = Q f(S) Q^H`, which `Cholesky` does not. The derivatives are
    exact and finite where eigenvalues meet; a third one is not there. Costs one
    eigendecomposition in double precision, the gradient four products.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``, from `Symmetric`.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, softplus = torch.nn.Linear(2, 2), maps.SpectralSoftplus()
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Symmetric())
        >>> layer = holdfast.register_parametrization(layer, "weight", softplus)
        >>> bool((torch.linalg.eigvalsh(layer.weight) > 0).all())
        True

    References:
        Higham, Functions of Matrices, 2008, section 3.2,
        https://doi.org/10.1137/1.9780898717778
    """

    domain = SymmetricMatrices()
    codomain = SymmetricPositiveDefinite()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square."""
        require_square(weight)

    @full_precision
    def forward(self, S: Tensor) -> Tensor:
        """Return the function of ``S``."""
        return symmetric_softplus(S)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the symmetric matrix with the inverse function's eigenvalues."""
        require_square(weight)
        values, V = _eigen(weight)
        floor = torch.finfo(weight.dtype).eps * values[..., -1:]
        values = torch.maximum(values, floor).clamp_min(torch.finfo(weight.dtype).tiny)
        return _composed(softplus_inverse(values), V, weight)


class SpectralLogistic(Parametrization):
    r"""The logistic function of the eigenvalues, onto an interval.

    .. math::
        S = V \Lambda V^H \mapsto
        V \Big(a + \frac{b - a}{1 + e^{-\Lambda}}\Big) V^H, \qquad
        \mathrm{Sym}(n) \to \{W : W = W^T,\ a < \lambda(W) < b\}

    A bijection onto the open set; eigenvalues a and b are at infinity, and a matrix
    that has them and is assigned is reached up to rounding, where the slope is that
    small too. For a > 0 the condition is below b/a. The derivatives are exact and
    finite where eigenvalues meet; a third one is not there. Costs one
    eigendecomposition in double precision, the gradient four products.

    Args:
        low: a.
        high: b > a.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``, from `Symmetric`.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.SpectralLogistic(1.0, high=3.0)(torch.zeros(2, 2))
        tensor([[2., 0.],
                [0., 2.]])

    References:
        Higham, Functions of Matrices, 2008, section 3.2,
        https://doi.org/10.1137/1.9780898717778
    """

    domain = SymmetricMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, low: float, *, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    @property
    def codomain(self) -> SpectrumIn:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with eigenvalues in the interval."""
        return SpectrumIn(self.low, high=self.high)

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square, and that the interval is one."""
        require_square(weight)
        if not self.low < self.high:
            raise ValueError(
                f"Expected low < high. Got low={self.low} and high={self.high}."
            )

    @full_precision
    def forward(self, S: Tensor) -> Tensor:
        """Return the function of ``S``."""
        identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        return self.low * identity + (self.high - self.low) * symmetric_logistic(S)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the symmetric matrix with the inverse function's eigenvalues."""
        require_square(weight)
        values, V = _eigen(weight)
        eps = torch.finfo(weight.dtype).eps
        inside = ((values - self.low) / (self.high - self.low)).clamp(eps, 1 - eps)
        return _composed(torch.logit(inside), V, weight)


def _eigen(weight: Tensor) -> tuple[Tensor, Tensor]:
    W = double(weight)
    values, V = torch.linalg.eigh((W + W.mH) / 2)
    return values, V


def _composed(values: Tensor, V: Tensor, weight: Tensor) -> Tensor:
    S = (V * values.unsqueeze(-2)) @ V.mH
    return ((S + S.mH) / 2).to(weight.dtype).contiguous()
