"""Definite matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import rooms, surely_definite
from ..linalg.decompositions import hermitian_eigenvalues
from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, inside, is_square, relative, sizes


class SymmetricPositiveDefinite(Constraint):
    r"""Symmetric matrices with positive eigenvalues; Hermitian where complex.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : W = W^T,\ \lambda_{\min}(W) > 0\}

    The residual is the larger of the skew part, relative to the norm, and of how far
    the smallest eigenvalue lies below zero, relative to the largest one in modulus. No
    finite precision tells an eigenvalue of zero from a tiny positive one, so the
    semidefinite matrices other than zero count as inside.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> definite = sets.SymmetricPositiveDefinite()
        >>> definite.contains(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        True
        >>> definite.residual(torch.diag(torch.tensor([2.0, -1.0])))
        tensor(0.5000, dtype=torch.float64)
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the matrix is from symmetric, or from nonnegative spectrum."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if not W.shape[-1]:
            return filled(weight, 0.0)
        H = (W + W.mH) / 2
        skew, below = relative(W - H, W), _lacking(H, weight)
        if below is None:
            values = hermitian_eigenvalues(H)
            largest = values.abs().amax(-1)
            below = torch.where(largest > 0, (-values[..., 0]).relu() / largest, 1)
        return torch.maximum(skew, below)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one whose condition is at most that of rounding."""
        require_square(weight)
        W = double(weight)
        values, V = torch.linalg.eigh((W + W.mH) / 2)
        largest = values[..., -1:]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        P = (V * torch.maximum(values, floor).unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the exponential of a symmetric normal matrix, of condition ~ 20."""
        require_square(normal)
        G = double(normal)
        values, V = torch.linalg.eigh((G + G.mH) / 2 / max(1, G.shape[-1]) ** 0.5)
        P = (V * values.exp().unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n + 1)/2`, or :math:`n^2` for Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n if dtype.is_complex else n * (n + 1) // 2)


class SpectrumIn(Constraint):
    r"""Symmetric matrices with eigenvalues in an interval; Hermitian where complex.

    .. math::
        \{W : W = W^T,\ a \le \lambda_{\min}(W),\ \lambda_{\max}(W) \le b\}

    For a > 0 the condition is at most b/a. The residual is the larger of the skew part,
    relative to the norm, and of how far eigenvalues lie outside, relative to the larger
    of \|a\| and \|b\|.

    Args:
        low: a.
        high: b > a.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SpectrumIn(1.0, high=2.0).project(torch.diag(torch.tensor([0.0, 3.0])))
        tensor([[1., 0.],
                [0., 2.]])
    """

    def __init__(self, low: float, *, high: float) -> None:
        self.low = low
        self.high = high

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the matrix is from symmetric, or its spectrum outside."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if not W.shape[-1]:
            return filled(weight, 0.0)
        H, size = (W + W.mH) / 2, max(-self.low, self.high)
        for room in rooms(weight):
            more = room * size
            if surely_definite(H, more - self.low) and surely_definite(
                -H, self.high + more
            ):
                return torch.maximum(relative(W - H, W), inside(weight) + room)
        values = hermitian_eigenvalues(H)
        below, above = self.low - values[..., 0], values[..., -1] - self.high
        outside = torch.maximum(below, above).relu() / max(-self.low, self.high)
        return torch.maximum(relative(W - H, W), outside)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: eigenvalues outside become the nearer end."""
        require_square(weight)
        W = double(weight)
        values, V = torch.linalg.eigh((W + W.mH) / 2)
        return self._composed(values.clamp(self.low, self.high), V, weight)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the eigenvectors of a normal matrix, its values pushed inside."""
        require_square(normal)
        G = double(normal)
        values, V = torch.linalg.eigh((G + G.mH) / 2 / max(1, G.shape[-1]) ** 0.5)
        inside = torch.sigmoid(2 * values)
        return self._composed(self.low + (self.high - self.low) * inside, V, normal)

    def _composed(self, values: Tensor, V: Tensor, weight: Tensor) -> Tensor:
        P = (V * values.unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(weight.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n + 1)/2`, or :math:`n^2` for Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n if dtype.is_complex else n * (n + 1) // 2)


class PositiveSemidefinite(Constraint):
    r"""Symmetric matrices without negative eigenvalues, of bounded rank.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : W = W^T,\ \lambda_{\min}(W) \ge 0,\
        \mathrm{rank}\, W \le r\}

    Those of rank exactly r are most of them: no finite precision tells an eigenvalue of
    zero from a tiny positive one. The residual is the largest of the skew part,
    relative to the norm, and of how far the smallest eigenvalue lies below zero, and
    the one after the r largest from zero, relative to the largest one in modulus.

    Args:
        rank: r; by default any.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> W = torch.diag(torch.tensor([3.0, 2.0, -1.0]))
        >>> sets.PositiveSemidefinite(1).project(W)
        tensor([[3., 0., 0.],
                [0., 0., 0.],
                [0., 0., 0.]])
    """

    def __init__(self, rank: int | None = None) -> None:
        self.rank = rank

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far from symmetric, from nonnegative spectrum, or from rank r."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if not W.shape[-1]:
            return filled(weight, 0.0)
        H = (W + W.mH) / 2
        skew = relative(W - H, W)
        off = _lacking(H, weight) if self._is_free(W) else None
        if off is None:
            values = hermitian_eigenvalues(H)
            off = torch.maximum((-values[..., 0]).relu(), self._spare(values))
            largest = values.abs().amax(-1)
            off = torch.where(largest > 0, off / largest, off)
        return torch.maximum(skew, off)

    def _is_free(self, W: Tensor) -> bool:
        return self.rank is None or self.rank >= W.shape[-1]

    def _spare(self, values: Tensor) -> Tensor:
        """Return the modulus of the value after the largest ones, in rising order."""
        n = values.shape[-1]
        if self.rank is None or self.rank >= n:
            return torch.zeros_like(values[..., 0])
        return values[..., n - self.rank - 1].abs()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the r largest eigenvalues, if they are positive."""
        require_square(weight)
        W = double(weight)
        n = W.shape[-1]
        values, V = torch.linalg.eigh((W + W.mH) / 2)
        kept = torch.arange(n, device=W.device) >= n - (self.rank or n)
        values = values.relu() * kept
        P = (V * values.unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a random definite matrix, cut off at rank r."""
        return self.project(SymmetricPositiveDefinite().from_normal(normal))

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`nr - r(r - 1)/2`, or :math:`2nr - r^2` for Hermitian ones."""
        count, n, _ = sizes(shape)
        r = n if self.rank is None else min(n, self.rank)
        return count * (
            2 * n * r - r * r if dtype.is_complex else r * (2 * n - r + 1) // 2
        )


def _lacking(H: Tensor, weight: Tensor) -> Tensor | None:
    """Return how far below zero the smallest eigenvalue is at most, if that is little.

    It is relative to an entry of the diagonal, and so to what is no larger than the
    largest eigenvalue.
    """
    size = H.diagonal(dim1=-2, dim2=-1).real.abs().amax(-1)
    for room in rooms(weight):
        if surely_definite(H, room * size):
            return inside(weight) + room
    return None
