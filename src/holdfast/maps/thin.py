"""Orthonormal columns or rows, with nothing larger than the weight."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.householder import diagonal_signs
from ..linalg.orthonormal import polish, positive_qr
from ..linalg.precision import double, full_precision
from ..linalg.stiefel_exponential import thin_exponential_at
from ..linalg.structure import positive_signs, require_matrix, tall, turned_like
from ..linalg.thin import thin_cayley_at, thin_cayley_lower
from ..linalg.thin_coordinates import thin_cayley_lower_inverse
from ..linalg.trivialization import around_base, thin_slope
from ..sets.orthogonal import Stiefel
from .orthogonal import Orthogonal

ThinMap = Literal["cayley", "matrix_exp"]

_AROUND = {"cayley": thin_cayley_at, "matrix_exp": thin_exponential_at}


class ThinOrthogonal(Parametrization):
    r"""Orthonormal columns or rows, in coordinates of the weight's own size.

    Around the identity, which is where ``"cayley"`` starts,

    .. math::
        X \mapsto \left(I - \tfrac12 A\right)^{-1} \left(I + \tfrac12 A\right) E\, D,
        \quad A = \begin{pmatrix} L - L^H & -K^H \\ K & 0 \end{pmatrix}, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k)

    with L the lower triangle of the first k rows of X, K the other rows, E the first k
    columns of the identity, and :math:`D = \mathrm{diag}(\pm 1)`. What X has above its
    diagonal is not used. Around a base point B, which ``"matrix_exp"`` always has, and
    ``"cayley"`` from the first `rebase_` on,

    .. math::
        X \mapsto \varphi(X B^H - B X^H)\, B

    with :math:`\varphi` the Cayley transform or the exponential. Wide matrices are
    transposed, complex ones become unitary.

    No n x n matrix is made: around the identity the value costs about 4nk² operations
    and an inverse of size k, the gradient 6nk²; around a base twice as much, but while
    X is zero, as always after a step with ``Rebase(every=1)``, nothing and 4nk². The
    exponential takes one of size 2k in place of the inverse. For square matrices the
    transform of `Orthogonal` is as fast.

    The right inverse is exact on all matrices with orthonormal columns: assigning sets
    the buffer ``signs``, or moves the buffer ``base``, such that the value is reached.
    Any other matrix is made orthonormal by QR first.

    Args:
        orthogonal_map: ``"cayley"`` or ``"matrix_exp"``.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, thin = torch.nn.Linear(3, 5), maps.ThinOrthogonal("cayley")
        >>> layer = holdfast.register_parametrization(layer, "weight", thin)
        >>> layer.weight = -torch.eye(5, 3)
        >>> torch.dist(layer.weight, -torch.eye(5, 3)).item()
        0.0

    References:
        Wen and Yin, A Feasible Method for Optimization with Orthogonality Constraints,
        2013, https://doi.org/10.1007/s10107-012-0584-1
    """

    signs: Tensor | None
    base: Tensor | None
    codomain = Stiefel()
    deterministic = True
    foreach = "stack"
    decays = False
    outside = "project"
    based = True

    def __init__(self, orthogonal_map: ThinMap = "cayley") -> None:
        super().__init__()
        self.orthogonal_map: ThinMap = orthogonal_map
        self.register_buffer("signs", None)
        self.register_buffer("base", None)

    def bind(self, weight: Tensor) -> None:
        """Start at the identity."""
        require_matrix(weight)
        if self.orthogonal_map not in _AROUND:
            raise ValueError(
                'orthogonal_map has to be "cayley" or "matrix_exp". '
                f"Got: {self.orthogonal_map}."
            )
        self.signs = self.base = None
        if self.orthogonal_map == "cayley":
            self.signs = positive_signs(weight)
        else:
            identity = torch.eye(*weight.shape[-2:], dtype=weight.dtype)
            self.base = identity.to(weight.device).expand_as(weight).contiguous()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix with the coordinates ``X``."""
        return turned_like(self._value(tall(X)), X)

    def _value(self, X: Tensor) -> Tensor:
        if self.base is not None:
            base = tall(self.base).to(X.dtype)
            return around_base(X, base, _AROUND[self.orthogonal_map], thin_slope)
        return thin_cayley_lower(X, self.signs)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates, and set the signs or move the base."""
        require_matrix(weight)
        W = double(tall(weight))
        W = polish(W) if self.codomain.contains(weight) else positive_qr(W)
        if self.base is None:
            X, self.signs = thin_cayley_lower_inverse(W)
            return turned_like(X, weight).to(weight.dtype).contiguous()
        self.base = turned_like(W, weight).to(weight.dtype).contiguous()
        return torch.zeros_like(weight, memory_format=torch.contiguous_format)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base to the value, and the coordinates to zero.

        It is always repaired: around a base that is off by r, the value of coordinates
        of norm s is off by up to (1 + 2s) r. Errors would multiply from move to move.
        """
        (X,) = originals
        Q = self._repaired(X)
        if self.base is None:
            with torch.inference_mode(X.is_inference()):  # others could not be trained
                self.base = torch.empty_like(X, memory_format=torch.contiguous_format)
            self.signs = None
        self.base.copy_(Q)
        X.zero_()

    @full_precision
    def _repaired(self, X: Tensor) -> Tensor:
        return turned_like(polish(self._value(tall(X)), 1), X)

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Turn what torch's default makes into coordinates, with the value kept."""
        chain = f"{prefix}parametrizations.{name}."
        X, base = state.get(f"{chain}original"), state.get(f"{chain}{index}.base")
        if index or X is None or X.ndim < 2 or X.is_meta:
            return
        if f"{chain}0.signs" in state or (base is not None and base.shape == X.shape):
            return
        state.pop(f"{chain}0.base", None)
        state[f"{chain}original"] = self.right_inverse(_torchs_value(X, base))
        state.update(
            {f"{chain}0.{key}": buffer for key, buffer in self.named_buffers()}
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Make room for the buffers of the state: it may have another one than we."""
        present = dict(self.named_buffers())
        loaded = {key: state_dict.get(f"{prefix}{key}") for key in self._buffers}
        if present and any(isinstance(tensor, Tensor) for tensor in loaded.values()):
            device = next(iter(present.values())).device
            for key, tensor in loaded.items():
                if tensor is None:
                    setattr(self, key, None)
                elif key not in present:
                    setattr(self, key, torch.empty_like(tensor, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _torchs_value(X: Tensor, base: Tensor | None) -> Tensor:
    """Return the weight that torch's default map makes of a state."""
    kind = "matrix_exp" if X.is_complex() else "householder"
    map_ = Orthogonal(kind, use_trivialization=base is not None)
    map_.base = None if base is None else double(base)
    map_.signs = diagonal_signs(tall(X)) if base is None else None
    with torch.no_grad():
        return map_(double(X)).to(X.dtype)
