"""Orthonormal columns or rows around a base point, in torch's coordinates."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.parametrization import Outside, Parametrization
from ..errors import InvalidTensorError
from ..linalg.cayley import cayley_transform_lower
from ..linalg.exponential import skew_exponential_lower
from ..linalg.householder import diagonal_signs, reflections, reflectors
from ..linalg.orthonormal import complete, polish, positive_qr
from ..linalg.polar_factor import unit_determinant
from ..linalg.precision import double, full_precision
from ..linalg.stiefel_exponential import thin_exponential_lower
from ..linalg.structure import (
    positive_signs,
    require_matrix,
    tall,
    traceless,
    turned_like,
)
from ..linalg.thin import thin_cayley_lower
from ..linalg.trivialization import around_base, lower_slope, lower_triangle
from ..sets.constraint import Constraint
from ..sets.groups import SpecialOrthogonal, SpecialUnitary
from ..sets.orthogonal import Stiefel
from .householder import require_real, write_signs

OrthogonalMap = Literal["matrix_exp", "cayley", "householder"]


class Orthogonal(Parametrization):
    r"""Orthonormal columns or rows of any matrix, around a base point.

    .. math::
        X \mapsto B\, \varphi(\mathrm{tril}(X) - \mathrm{tril}(X)^H)\, E, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k)

    with :math:`\varphi` the matrix exponential or the Cayley transform on n x n
    matrices (X is filled up with zeros), of which E takes the first k columns; or
    :math:`X \mapsto B\, H_1 \cdots H_k\, E\, D` with reflections as in `Householder`.
    Wide matrices are transposed, complex ones become unitary.

    The right inverse is exact: B becomes the weight, completed to a square matrix, and
    X becomes zero but for a diagonal of -1, which only torch reads. A weight that is
    not orthonormal is made so by QR first. Without a base it exists for the
    reflections only. Costs n² in memory and 2n²k operations for the base, and a few
    products of size n for square matrices, see `Cayley` and `MatrixExp`.
    `ThinOrthogonal` makes no square matrix, and costs less the thinner it is.

    Args:
        orthogonal_map: ``"matrix_exp"``, ``"cayley"`` or ``"householder"``, which is
            for real matrices.
        use_trivialization: keep a base point B, as the buffer ``base``.
        special: only matrices of determinant 1, which are square. Registration moves
            the value to such a one; others cannot be assigned. Complex ones need
            ``"matrix_exp"``, of which the skew matrix then has no trace.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps, sets
        >>> layer, Q = torch.nn.Linear(3, 5), sets.Stiefel().sample((5, 3))
        >>> map_ = maps.Orthogonal("cayley")
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> layer.weight = Q
        >>> torch.allclose(layer.weight, Q, atol=1e-6)
        True

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """

    base: Tensor | None
    signs: Tensor | None
    deterministic = True
    foreach = "stack"
    decays = False

    # which of the two groups `special` means: `bind` sees the tensor
    unitary = False

    def __init__(
        self,
        orthogonal_map: OrthogonalMap = "matrix_exp",
        *,
        use_trivialization: bool = True,
        special: bool = False,
    ) -> None:
        super().__init__()
        self.orthogonal_map: OrthogonalMap = orthogonal_map
        self.use_trivialization = use_trivialization
        self.special = special
        self.register_buffer("base", None)
        # torch keeps them on the diagonal of the original, and so does a state dict
        self.register_buffer("signs", None, persistent=False)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Orthonormal columns or rows, or one of the groups of determinant 1."""
        if self.special:
            return SpecialUnitary() if self.unitary else SpecialOrthogonal()
        return Stiefel()

    @property
    def outside(self) -> Outside:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Other matrices are made orthonormal, but not of another determinant."""
        return "error" if self.special else "project"

    def bind(self, weight: Tensor) -> None:
        """Start at the identity."""
        _check(weight, self.orthogonal_map, special=self.special)
        self.unitary = weight.is_complex()
        batch, (n, k) = weight.shape[:-2], weight.shape[-2:]
        if self.use_trivialization:
            identity = torch.eye(max(n, k), dtype=weight.dtype, device=weight.device)
            self.base = identity.expand(*batch, -1, -1).contiguous()
        elif self.orthogonal_map == "householder":
            self.signs = -positive_signs(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix with the coordinates ``X`` around the base."""
        return turned_like(self._value(tall(X)), X)

    def _value(self, X: Tensor) -> Tensor:
        """Return the value, which is at hand for coordinates zero."""
        base = None if self.base is None else self.base.to(X.dtype)
        X = traceless(X) if self.special and self.unitary else X
        if base is None or self.orthogonal_map == "householder":
            return self._around(X, base)
        return around_base(X, base, self._around, lower_slope, lower_triangle)

    def _around(self, X: Tensor, base: Tensor | None) -> Tensor:
        square = X.shape[-2] == X.shape[-1]
        if self.orthogonal_map == "cayley" and square:
            return cayley_transform_lower(X, base)
        if self.orthogonal_map == "matrix_exp" and square:
            return skew_exponential_lower(X, base)
        if self.orthogonal_map == "householder" and base is not None:
            return reflections(X, -base)
        Q = self._around_identity(X)
        return Q if base is None else base @ Q

    def _around_identity(self, X: Tensor) -> Tensor:
        if self.orthogonal_map == "cayley":
            return thin_cayley_lower(X)
        if self.orthogonal_map == "matrix_exp":
            return thin_exponential_lower(X)
        Q = reflections(X)
        return -Q if self.signs is None else Q * self.signs.unsqueeze(-2)

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether there is a base point."""
        return self.base is not None

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base to the value, completed to a square matrix."""
        (X,) = originals
        assert self.base is not None
        self.base.copy_(self._completed(X, repair=repair))
        X.copy_(turned_like(_zero(tall(X)), X))

    @full_precision
    def _completed(self, X: Tensor, *, repair: bool) -> Tensor:
        """Return the square matrix of which the value is a part."""
        X = tall(X)
        Q = self._value(pad(X, (0, X.shape[-2] - X.shape[-1])))
        Q = polish(Q, 1) if repair else Q
        # the phases of many rounded factors add up as their lengths do
        return unit_determinant(Q) if repair and self.special and self.unitary else Q

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Move the base, or set the signs, and return the coordinates."""
        _check(weight, self.orthogonal_map, special=self.special)
        if self.special:
            self.unitary = weight.is_complex()
            self.codomain.require(weight)
        W = tall(weight)
        if self.use_trivialization:
            if not self.codomain.contains(weight):
                W = positive_qr(double(W)).to(weight.dtype)
            base = complete(double(W)).to(weight.dtype)
            self.base = base.clone(memory_format=torch.contiguous_format)
            X = _zero(W)
        elif self.orthogonal_map == "householder":
            X, self.signs = reflectors(double(W))
        else:
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "transform when use_trivialization=False. Register `maps.Skew()` and "
                "`maps.MatrixExp()` or `maps.Cayley()` instead."
            )
        return turned_like(X, weight).to(weight.dtype).contiguous()

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Read the signs of torch's checkpoints off the diagonal, in place."""
        original = state.get(f"{prefix}parametrizations.{name}.original")
        if index == 0 and self.signs is not None and original is not None:
            signs = diagonal_signs(tall(original))
            if signs.shape == self.signs.shape and not signs.is_meta:
                meta = self.signs.is_meta  # as originals that are about to be assigned
                self.signs = signs if meta else signs.to(self.signs.device)

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001  # as nn.Module
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.orthogonal_map == "householder" and not keep_vars:
            write_signs(destination, prefix, self.signs)


def _zero(X: Tensor) -> Tensor:
    """Return the coordinates of the base, with the diagonal that torch reads."""
    return -torch.eye(*X.shape[-2:], dtype=X.dtype, device=X.device).expand_as(X)


def _check(weight: Tensor, orthogonal_map: str, *, special: bool) -> None:
    """Refuse what is no matrix, no map, and complex reflections."""
    require_matrix(weight)
    if orthogonal_map not in get_args(OrthogonalMap):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". '
            f"Got: {orthogonal_map}."
        )
    if orthogonal_map == "householder":
        require_real(weight)
    if special:
        _check_special(weight, orthogonal_map)


def _check_special(weight: Tensor, orthogonal_map: str) -> None:
    """Refuse what has no determinant, and the map that does not keep it."""
    if weight.shape[-2] != weight.shape[-1]:
        raise InvalidTensorError(
            "special=True asks for determinant 1, which only square matrices have. Got "
            f"shape {tuple(weight.shape)}. Leave it out: other matrices with "
            "orthonormal columns or rows are all connected."
        )
    if weight.is_complex() and orthogonal_map == "cayley":
        raise InvalidTensorError(
            "The Cayley transform of a complex matrix without trace does not have "
            'determinant 1. Use "matrix_exp" for special=True.'
        )
