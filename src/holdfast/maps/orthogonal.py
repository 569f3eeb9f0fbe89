"""Orthogonal matrices, and those with orthonormal columns or rows."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.cayley import cayley_inverse, cayley_transform
from ..linalg.exponential import skew_exponential
from ..linalg.householder import diagonal_signs, reflections, reflectors
from ..linalg.orthonormal import complete, polish, positive_qr
from ..linalg.precision import double, full_precision
from ..linalg.structure import require_square
from ..sets.linear import SkewMatrices
from ..sets.orthogonal import Stiefel

OrthogonalMap = Literal["matrix_exp", "cayley", "householder"]


class Cayley(Parametrization):
    r"""The Cayley transform of a skew matrix, times fixed signs.

    .. math::
        A \mapsto (I - A/2)^{-1} (I + A/2)\, D, \qquad
        \mathfrak{so}(n) \to O(n), \quad D = \mathrm{diag}(\pm 1)

    Unitary for skew-Hermitian A. The right inverse is exact on all of O(n): assigning
    chooses the buffer ``signs`` such that the value is reached, whatever its
    determinant and eigenvalues; training then stays in its component. Costs one solve
    of size n. `MatrixExp` takes the same inputs and reaches each rotation with finite
    coordinates, at several times the cost.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Skew())
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Cayley())
        >>> layer.weight = -torch.eye(3)
        >>> torch.dist(layer.weight, -torch.eye(3)).item()
        0.0

    References:
        Helfrich, Willmott and Ye, Orthogonal Recurrent Neural Networks with Scaled
        Cayley Transform, 2018, https://arxiv.org/abs/1707.09520
    """

    signs: Tensor | None
    domain = SkewMatrices()
    codomain = Stiefel()
    deterministic = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    def bind(self, weight: Tensor) -> None:
        """Start with all signs +1."""
        require_square(weight)
        self.signs = torch.ones(
            weight.shape[:-1], dtype=torch.int8, device=weight.device
        )

    @full_precision
    def forward(self, A: Tensor) -> Tensor:
        """Return the orthogonal matrix with the coordinates ``A``."""
        Q = cayley_transform(A)
        return Q if self.signs is None else Q * self.signs.unsqueeze(-2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates, and set the signs."""
        require_square(weight)
        self.codomain.require(weight)
        A, self.signs = cayley_inverse(polish(double(weight)), self.signs)
        return A.to(weight.dtype)


class Householder(Parametrization):
    r"""A product of k reflections, times fixed signs.

    .. math::
        X \mapsto H_1 \cdots H_k\, E\, D, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k), \quad D = \mathrm{diag}(\pm 1)

    The vector of :math:`H_j` is a one in position j followed by the entries of column j
    below the diagonal; the rest of X is not used. Wide matrices are transposed. Real
    ones only: complex reflectors do not parametrize the unitary matrices. The right
    inverse is exact, and makes a matrix that is not orthonormal so by QR. Costs about
    4nk² operations, less than any other map for k much smaller than n.

    The signs are a buffer, not part of the original, where weight decay would eat them.
    ``right_inverse`` also writes them on the diagonal of the original, and a checkpoint
    without the buffer, such as torch's, is read from there.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> householder, W = maps.Householder(), torch.eye(3, 2)
        >>> X = householder.right_inverse(W)
        >>> torch.equal(householder(X), W)
        True

    References:
        Mhammedi et al., Efficient Orthogonal Parametrisation of Recurrent Neural
        Networks Using Householder Reflections, 2017, https://arxiv.org/abs/1612.00188
    """

    signs: Tensor | None
    codomain = Stiefel()
    deterministic = True
    outside = "project"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    def bind(self, weight: Tensor) -> None:
        """Start with all signs -1, which make zero coordinates the identity."""
        _check(weight, "householder")
        self.signs = -torch.ones(
            (*weight.shape[:-2], min(weight.shape[-2:])),
            dtype=torch.int8,
            device=weight.device,
        )

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the reflections."""
        tall = _tall(X)
        signs = diagonal_signs(tall) if self.signs is None else self.signs
        return _like(reflections(tall) * signs.unsqueeze(-2), X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the reflectors of the weight, and set the signs."""
        _check(weight, "householder")
        X, self.signs = reflectors(double(_tall(weight)))
        return _like(X, weight).to(weight.dtype).contiguous()

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Read the signs of torch's checkpoints off the diagonal, in place."""
        if index == 0:
            _read_signs(state, f"{prefix}parametrizations.{name}.")

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001  # as nn.Module
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.signs is not None and not keep_vars:
            _write_signs(destination, prefix, self.signs)


class Orthogonal(Parametrization):
    r"""Orthonormal columns or rows of any matrix, around a base point.

    .. math::
        X \mapsto B\, \varphi(\mathrm{tril}(X) - \mathrm{tril}(X)^H)\, E, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k)

    with :math:`\varphi` the matrix exponential or the Cayley transform on n x n
    matrices, of which E takes the first k columns; or
    :math:`X \mapsto B\, H_1 \cdots H_k\, E\, D` with reflections as in `Householder`.
    Wide matrices are transposed, complex ones become unitary.

    The right inverse is exact: B becomes the weight, completed to a square matrix, and
    X becomes zero but for a diagonal of -1, which only torch reads. A weight that is
    not orthonormal is made so by QR first. Without a base it exists for the
    reflections only. Costs O(n³) in time and n² in memory.

    Args:
        orthogonal_map: ``"matrix_exp"``, ``"cayley"`` or ``"householder"``, which is
            for real matrices.
        use_trivialization: keep a base point B, as the buffer ``base``.

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
    codomain = Stiefel()
    deterministic = True
    outside = "project"

    def __init__(
        self,
        orthogonal_map: OrthogonalMap = "matrix_exp",
        *,
        use_trivialization: bool = True,
    ) -> None:
        super().__init__()
        self.orthogonal_map: OrthogonalMap = orthogonal_map
        self.use_trivialization = use_trivialization
        self.register_buffer("base", None)
        # torch keeps them on the diagonal of the original, and so does a state dict
        self.register_buffer("signs", None, persistent=False)

    def bind(self, weight: Tensor) -> None:
        """Start at the identity."""
        _check(weight, self.orthogonal_map)
        batch, (n, k) = weight.shape[:-2], weight.shape[-2:]
        if self.use_trivialization:
            identity = torch.eye(max(n, k), dtype=weight.dtype, device=weight.device)
            self.base = identity.expand(*batch, -1, -1).contiguous()
        elif self.orthogonal_map == "householder":
            signs = torch.full((*batch, min(n, k)), -1, dtype=torch.int8)
            self.signs = signs.to(weight.device)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix with the coordinates ``X`` around the base."""
        tall = _tall(X)
        if self.orthogonal_map == "householder":
            Q = reflections(tall)
            Q = -Q if self.signs is None else Q * self.signs.unsqueeze(-2)
        else:
            Q = self._rotation(tall)
        if self.base is not None:
            Q = self.base.to(Q.dtype) @ Q
        return _like(Q, X)

    def _rotation(self, X: Tensor) -> Tensor:
        """Return the first k columns of the exponential or the Cayley transform."""
        n, k = X.shape[-2:]
        lower = pad(X.tril(), (0, n - k))  # (*batch, n, n)
        A = lower - lower.mH
        if self.orthogonal_map == "cayley":
            return cayley_transform(A)[..., :k]
        return skew_exponential(A)[..., :k]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Move the base, or set the signs, and return the coordinates."""
        _check(weight, self.orthogonal_map)
        W = _tall(weight)
        if self.use_trivialization:
            if not self.codomain.contains(weight):
                W = positive_qr(double(W)).to(weight.dtype)
            base = complete(double(W)).to(weight.dtype)
            self.base = base.clone(memory_format=torch.contiguous_format)
            X = -torch.eye(*W.shape[-2:], dtype=W.dtype, device=W.device).expand_as(W)
        elif self.orthogonal_map == "householder":
            X, self.signs = reflectors(double(W))
        else:
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "transform when use_trivialization=False. Register `maps.Skew()` and "
                "`maps.MatrixExp()` or `maps.Cayley()` instead."
            )
        return _like(X, weight).to(weight.dtype).contiguous()

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Read the signs of torch's checkpoints off the diagonal, in place."""
        original = state.get(f"{prefix}parametrizations.{name}.original")
        if index == 0 and self.signs is not None and original is not None:
            signs = diagonal_signs(_tall(original))
            if signs.shape == self.signs.shape and not signs.is_meta:
                self.signs = signs.to(self.signs.device)

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001  # as nn.Module
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.orthogonal_map == "householder" and not keep_vars:
            _write_signs(destination, prefix, self.signs)


def _check(weight: Tensor, orthogonal_map: str) -> None:
    """Refuse what is no matrix, no map, and complex reflections."""
    if weight.ndim < 2:
        raise InvalidTensorError(
            "Expected a matrix or batch of matrices. "
            f"Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map not in get_args(OrthogonalMap):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". '
            f"Got: {orthogonal_map}."
        )
    if weight.is_complex() and orthogonal_map == "householder":
        raise InvalidTensorError(
            "The householder parametrization does not support complex tensors. "
            'Use "matrix_exp" or "cayley".'
        )


def _read_signs(state: dict[str, Tensor], chain: str) -> None:
    """Make the signs out of the diagonal of the original, where they are missing."""
    signs, original = f"{chain}0.signs", f"{chain}original"
    if signs not in state and original in state:
        state[signs] = diagonal_signs(_tall(state[original]))


def _write_signs(state: dict[str, Any], prefix: str, signs: Tensor | None) -> None:
    """Renew the diagonal of the original, of which torch takes the integer part.

    Weight decay leaves -0.99 of a -1 there, and torch would make 0 of it.
    """
    original = state.get(f"{prefix.removesuffix('0.')}original")
    if type(original) is not Tensor or original.is_meta or original.ndim < 2:
        return
    diagonal = original.diagonal(dim1=-2, dim2=-1)
    expected = torch.full_like(diagonal, -1) if signs is None else signs.to(diagonal)
    if not torch.equal(diagonal, expected):
        original = original.clone()
        original.diagonal(dim1=-2, dim2=-1).copy_(expected)
        state[f"{prefix.removesuffix('0.')}original"] = original


def _tall(X: Tensor) -> Tensor:
    return X.mT if X.shape[-2] < X.shape[-1] else X


def _like(Q: Tensor, X: Tensor) -> Tensor:
    """Turn a tall matrix into the orientation of ``X``."""
    return Q.mT if X.shape[-2] < X.shape[-1] else Q
