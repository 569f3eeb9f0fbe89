"""Invertible matrices by factors: permuted triangular ones, or singular values."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.invertible_factors import (
    plu,
    plu_inverse,
    singular_factors,
    size_coordinate,
    with_unit_product,
)
from ..linalg.precision import double, full_precision
from ..linalg.structure import positive_signs, require_square
from ..sets.constraint import Constraint
from ..sets.invertible import GeneralLinear, PositiveDeterminant, SpecialLinear
from ..sets.linear import SquareMatrices

Determinant = Literal["nonzero", "positive", "one"]

_CODOMAINS: dict[Determinant, Constraint] = {
    "nonzero": GeneralLinear(),
    "positive": PositiveDeterminant(),
    "one": SpecialLinear(),
}


class PLU(Parametrization):
    r"""A permuted product of triangular matrices, as elimination finds it.

    .. math::
        X \mapsto P\, (I + \mathrm{tril}_{-1} X)\,
        (\mathrm{triu}_1 X + D\, \mathrm{diag}(e^{\ell_1}, \ldots, e^{\ell_n})), \qquad
        \ell_i = \mathrm{arsinh}(x_{ii} / 2)

    with a permutation P and signs :math:`D = \mathrm{diag}(\pm 1)` in buffers, so that
    :math:`\log |\det W| = \sum \ell_i`, which is finite for all X. Where the
    determinant has to be one, the mean of the :math:`\ell_i` is subtracted. The
    imaginary part of a complex :math:`x_{ii}` is the phase of its pivot.

    The right inverse is exact on all invertible matrices: it chooses P and D. Training
    stays among those with the same P and D: an open set of GL(n) that reaches to its
    boundary, a whole component only for n = 1. With P and D given, the map is injective
    (up to the mean, where the determinant is one). Costs one product of size n, the
    gradient two.

    Args:
        determinant: ``"nonzero"``; ``"positive"``, which refuses to be assigned a
            negative one, and complex matrices; or ``"one"``.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, plu = torch.nn.Linear(2, 2), maps.PLU("one")
        >>> layer = holdfast.register_parametrization(layer, "weight", plu)
        >>> f"{torch.linalg.det(layer.weight).item():.3f}"
        '1.000'

    References:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions,
        2018, https://arxiv.org/abs/1807.03039
    """

    permutation: Tensor | None
    signs: Tensor | None
    domain = SquareMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, determinant: Determinant = "nonzero") -> None:
        super().__init__()
        self.determinant: Determinant = determinant
        self.register_buffer("permutation", None)
        self.register_buffer("signs", None)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with such a determinant."""
        return _CODOMAINS[self.determinant]

    def bind(self, weight: Tensor) -> None:
        """Start with the identity as permutation, and all signs +1."""
        _check(weight, self.determinant)
        self.signs = positive_signs(weight)
        order = torch.arange(weight.shape[-1], device=weight.device)
        self.permutation = order.expand(weight.shape[:-1]).contiguous()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the factors."""
        assert self.permutation is not None
        assert self.signs is not None
        return plu(X, self.permutation, self.signs, unit=self.determinant == "one")

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the factors' coordinates, and set the permutation and the signs."""
        _check(weight, self.determinant)
        unit = self.determinant == "one"
        X, self.permutation, self.signs = plu_inverse(double(weight), unit=unit)
        return X.to(weight.dtype).contiguous()


class InvertibleSVD(Parametrization):
    r"""Orthogonal factors and singular values that are never zero.

    .. math::
        X \mapsto U\, \mathrm{diag}(e^{\ell_1}, \ldots, e^{\ell_n})\, V^H, \qquad
        \ell_i = \mathrm{arsinh}(x_{ii} / 2)

    U and V are Cayley transforms of what X has below and above its diagonal, around
    base points in the buffers ``left`` and ``right``, as in `Orthogonal`. So
    :math:`\log |\det W| = \sum \ell_i`, which is finite for all X; where the
    determinant has to be one, the mean of the :math:`\ell_i` is subtracted. No
    decomposition is differentiated, and equal singular values are as good as others.

    The right inverse is exact on all invertible matrices: it moves the base points.
    Around any of them, all matrices of the component but a set of measure zero are
    reached; not injective, since singular values can be permuted. Costs two
    Cayley transforms and a product. `PLU` costs a quarter; its pivots say less about
    the condition than singular values do.

    Args:
        determinant: ``"nonzero"``; ``"positive"``, which refuses to be assigned a
            negative one, and complex matrices; or ``"one"``, for real matrices.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, svd = torch.nn.Linear(2, 2), maps.InvertibleSVD()
        >>> layer = holdfast.register_parametrization(layer, "weight", svd)
        >>> bool(torch.linalg.det(layer.weight) > 0)
        True

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """

    left: Tensor | None
    right: Tensor | None
    domain = SquareMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, determinant: Determinant = "positive") -> None:
        super().__init__()
        self.determinant: Determinant = determinant
        self.register_buffer("left", None)
        self.register_buffer("right", None)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with such a determinant."""
        return _CODOMAINS[self.determinant]

    def bind(self, weight: Tensor) -> None:
        """Start with the identity as base points."""
        self._check(weight)
        n = weight.shape[-1]
        identity = torch.eye(n, dtype=weight.dtype, device=weight.device)
        self.left = identity.expand_as(weight).contiguous()
        self.right = self.left.clone()

    def _check(self, weight: Tensor) -> None:
        _check(weight, self.determinant)
        if weight.is_complex() and self.determinant == "one":
            raise InvalidTensorError(
                "Expected a real matrix for a determinant of one: complex orthogonal "
                f"factors have any phase. Got {weight.dtype}. Use `PLU`."
            )

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the factors."""
        assert self.left is not None
        assert self.right is not None
        bases = self.left.to(X.dtype), self.right.to(X.dtype)
        return singular_factors(X, *bases, unit=self.determinant == "one")

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates of the singular values, and move the base points."""
        self._check(weight)
        U, values, Vh = torch.linalg.svd(double(weight))
        self.left = U.to(weight.dtype).contiguous()
        self.right = Vh.mH.to(weight.dtype).resolve_conj().contiguous()
        values = values.clamp_min(torch.finfo(values.dtype).tiny)
        if self.determinant == "one":
            values = with_unit_product(values)
        return torch.diag_embed(size_coordinate(values)).to(weight.dtype)


def _check(weight: Tensor, determinant: Determinant) -> None:
    """Refuse what is not square, unknown words, and an order of complex numbers."""
    require_square(weight)
    if determinant not in get_args(Determinant):
        raise ValueError(
            'determinant has to be one of "nonzero", "positive", "one". '
            f"Got: {determinant}."
        )
    if weight.is_complex() and determinant == "positive":
        raise InvalidTensorError(
            "Expected a real matrix for a positive determinant. "
            f'Got {weight.dtype}. Use determinant="nonzero".'
        )
