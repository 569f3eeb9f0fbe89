"""Invertible matrices."""

from __future__ import annotations

import math
from math import inf

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.certificates import certain, surely_between, worth_asking
from ..linalg.decompositions import singular_values
from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, inside, is_square, sizes

# Below it a rounding unit is that of double precision, whose square nothing resolves.
_SMALLEST = 1e-10

# Determinants that are further from 1 than a float can say take most.
_STEPS = 40
_TINY = 1e-300


class GeneralLinear(Constraint):
    r"""Invertible matrices, :math:`GL(n) = \{W : \det W \ne 0\}`.

    The set is open, and its complement has no volume: all but the matrices that are
    singular to rounding count as inside. The residual is 1 for a singular matrix and
    falls to 0 where :math:`\sigma_{\min}/\sigma_{\max}` reaches the rounding unit.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.GeneralLinear().contains(torch.eye(3))
        True
        >>> sets.GeneralLinear().contains(torch.ones(3, 3))
        False
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how singular the matrix is, from 0 to 1."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if _surely_invertible(W, weight.dtype):
            return inside(weight)
        values = singular_values(W)
        smallest, largest = values[..., -1], values[..., 0]
        ratio = torch.where(largest > 0, smallest / largest, 0)
        return (1 - ratio / torch.finfo(weight.dtype).eps).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one whose condition is at most that of rounding."""
        require_square(weight)
        U, values, Vh = torch.linalg.svd(double(weight))
        largest = values[..., :1]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        values = torch.maximum(values, floor)
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the normal matrix: it is invertible with probability 1."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`, twice that for complex matrices."""
        sizes(shape)
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class PositiveDeterminant(Constraint):
    r"""Real matrices of positive determinant, :math:`GL^+(n) = \{W : \det W > 0\}`.

    One of the two components of GL(n). The set is open; the residual is that of
    `GeneralLinear`, with the smallest singular value counted as negative where the
    determinant is. Complex matrices are outside: their determinants have no sign.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.PositiveDeterminant().contains(torch.diag(torch.tensor([-1.0, -2.0])))
        True
        >>> sets.PositiveDeterminant().contains(torch.diag(torch.tensor([1.0, -2.0])))
        False
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how singular the matrix is, from 0 to 1; more on the other side."""
        if not is_square(weight.shape) or weight.is_complex():
            return filled(weight, math.inf)
        W = double(weight)
        sign = torch.linalg.slogdet(W).sign
        if _surely_invertible(W, weight.dtype) and bool((sign > 0).all()):
            return inside(weight)
        values = singular_values(W)
        smallest, largest = sign * values[..., -1], values[..., 0]
        ratio = torch.where(largest > 0, smallest / largest, 0)
        return (1 - ratio / torch.finfo(weight.dtype).eps).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Return it with the smallest singular direction reversed, if it has to be.

        Not the nearest one, which would be as good as singular; where the matrix itself
        is, singular values are raised to what rounding can tell from zero.
        """
        require_square(weight)
        if weight.is_complex():
            raise InvalidTensorError(
                "Expected a real matrix, whose determinant has a sign. "
                f"Got {weight.dtype}. Use `GeneralLinear`."
            )
        U, values, Vh = _signed(double(weight))
        largest = values[..., :1].abs()
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        values = torch.maximum(values.abs(), floor)
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the normal matrix, with its smallest singular direction as needed."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`."""
        sizes(shape)
        return math.prod(shape)


class SpecialLinear(Constraint):
    r"""Matrices of determinant 1, :math:`SL(n) = \{W : \det W = 1\}`.

    The residual is the distance to the set over the norm of the matrix, to first order
    :math:`|\log \det W| / (\|W\| \|W^{-1}\|)` in Frobenius norms. Of a determinant that
    is much too small it is about the distance that the smallest singular values have to
    go, and of a singular matrix 1.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SpecialLinear().project(torch.diag(torch.tensor([2.0, 8.0])))
        tensor([[0.5000, 0.0000],
                [0.0000, 2.0000]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the determinant is from 1, over its sensitivity."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if not W.shape[-1]:
            return inside(weight)
        sign, logdet = torch.linalg.slogdet(W)
        off = torch.hypot(logdet, sign.angle())
        if worth_asking(W) and bool((off < 1).all()):
            inverse = torch.linalg.inv_ex(W)[0]
            norms = (torch.linalg.matrix_norm(X) for X in (W, inverse))
            bound = off.expm1() / math.prod(norms)
            if certain(bound, tolerance(weight), W):
                return bound
        return _to_unit_determinant(singular_values(W), sign.angle())

    def project(self, weight: Tensor) -> Tensor:
        """Return the multiple of determinant 1, with singular values as needed.

        Not the nearest one: singular values of zero to rounding are raised, and where
        the determinant is negative, the smallest one's vector is reversed.
        """
        require_square(weight)
        U, values, Vh = torch.linalg.svd(double(weight))
        largest = values[..., :1]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        logs = torch.maximum(values, floor).log()
        values = (logs - logs.mean(-1, keepdim=True)).exp()
        phase = torch.linalg.det(U) * torch.linalg.det(Vh)
        if weight.is_complex():
            turn = torch.exp(-1j * phase.angle() / max(1, U.shape[-1]))
            U = U * turn[..., None, None]
        else:
            U = _last_column_times(U, phase.sign())
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the normal matrix, made to have determinant 1."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2 - 1`, twice that for complex matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n - 1) * (2 if dtype.is_complex else 1)


def _surely_invertible(W: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether no singular value is below rounding, relative to the largest."""
    eps = torch.finfo(dtype).eps
    if eps < _SMALLEST or not worth_asking(W):  # the squares would be lost in rounding
        return False
    return surely_between(W / torch.linalg.matrix_norm(W)[..., None, None], eps, inf)


def _to_unit_determinant(values: Tensor, phase: Tensor) -> Tensor:
    r"""Return how far singular values have to go, over their norm.

    In the direction of the gradient of the determinant: by :math:`t / \sigma_i`, for
    the t that makes it 1, if it is too small; to first order if it is too large.
    """
    singular = values[..., -1] <= 0
    safe = torch.where(singular.unsqueeze(-1), 1, values)
    norm, inverse = (torch.linalg.vector_norm(x, dim=-1) for x in (safe, 1 / safe))
    lacking = -safe.log().sum(-1)
    off = torch.where(lacking > 0, _step_of(lacking, safe), -lacking / inverse.square())
    off = torch.hypot(off * inverse, phase / inverse)
    return torch.where(singular, 1, off / norm)


def _step_of(lacking: Tensor, values: Tensor) -> Tensor:
    r"""Return t with :math:`\sum_i \log(1 + t / \sigma_i^2)` as given.

    By Newton's method, for :math:`\log t`, in which the sum is convex.
    """
    squares = values.square().clamp_min(_TINY)
    lacking = lacking.unsqueeze(-1)
    x = (lacking.clamp_min(_TINY) / (1 / squares).sum(-1, keepdim=True)).log()
    for _ in range(_STEPS):
        share = x.exp() / squares
        slope = (share / (1 + share)).sum(-1, keepdim=True)
        x = x + (lacking - share.log1p().sum(-1, keepdim=True)) / slope
    return torch.where(lacking > 0, x.exp(), 0).squeeze(-1)


def _signed(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors of determinants with a positive product; the last value signed."""
    U, values, Vh = torch.linalg.svd(W)
    sign = (torch.linalg.det(U) * torch.linalg.det(Vh)).sign()
    values = torch.cat([values[..., :-1], values[..., -1:] * sign.unsqueeze(-1)], -1)
    return _last_column_times(U, sign), values, Vh


def _last_column_times(U: Tensor, sign: Tensor) -> Tensor:
    last = U[..., -1:] * sign[..., None, None]
    return torch.cat([U[..., :-1], last], -1)
