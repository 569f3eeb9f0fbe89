"""A frozen base turned by orthogonal blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.cayley import cayley_inverse, cayley_transform_lower
from ..linalg.orthonormal import polish
from ..linalg.precision import double, full_precision
from ..linalg.turned_blocks import (
    column_blocks,
    lower_triangle_size,
    nearest_turn,
    packed_lower,
    turn_columns,
    unpacked_lower,
)
from ..sets.around import Isometric, Side, side_of
from ..sets.constraint import Constraint
from ..sets.linear import Real
from .delta import kept, same


class OFT(Parametrization):
    r"""A frozen base times a block-diagonal orthogonal matrix.

    .. math::
        (x_1, \ldots, x_g) \mapsto W_0\, \mathrm{diag}(R_1, \ldots, R_g), \qquad
        R_i = (I - A_i/2)^{-1} (I + A_i/2)\, D_i

    with skew :math:`A_i` of size b, of which :math:`x_i` has the entries below the
    diagonal (for complex matrices the diagonal too), and fixed signs :math:`D_i` in
    the buffer ``signs``. The base :math:`W_0` is the value at registration, which is
    kept: x starts at zero, and R at the identity. R is orthogonal to rounding, as no
    truncated series is; so all angles between the rows of a block, and their lengths,
    are those of the base. On the left, :math:`R\, W_0`, it is those of the columns.

    A row of torch's weights is a neuron, a column in the paper: there R stands left.

    The right inverse is exact on all W that are so turned: R is the polar factor of
    :math:`W_0^T W` in each block, found in such a way that the condition of the block
    does not matter. It sets the signs, which training keeps. Other W are refused, or
    moved to the nearest with ``outside="project"``. Injective where the blocks of the
    base have full column rank. Costs nkb multiply-adds and 2kb² for the transforms,
    the gradient as much again, and k(b - 1)/2 parameters.

    Args:
        block_size: b, which divides the side that is turned; by default all of it.
        side: ``"right"`` or ``"left"``.

    Shape:
        ``(*batch, g, b (b - 1) / 2) -> (*batch, n, k)`` with g b = k, or n on the left.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, oft = torch.nn.Linear(6, 4), maps.OFT(block_size=3)
        >>> lengths = layer.weight.norm(dim=1)
        >>> layer = holdfast.register_parametrization(layer, "weight", oft)
        >>> _ = torch.nn.init.normal_(layer.parametrizations.weight.original)
        >>> torch.allclose(layer.weight.norm(dim=1), lengths, atol=1e-6)
        True

    References:
        Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning, 2023,
        https://arxiv.org/abs/2306.07280
    """

    base: Tensor | None
    signs: Tensor | None
    deterministic = True
    foreach = "stack"

    def __init__(self, block_size: int | None = None, *, side: Side = "right") -> None:
        super().__init__()
        self.block_size = block_size
        self.side: Side = side
        self.register_buffer("base", None)
        self.register_buffer("signs", None)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base with its blocks turned."""
        if self.base is None:
            return Real()
        return Isometric(self.base, block_size=self.block_size, side=self.side)

    def bind(self, weight: Tensor) -> None:
        """Keep the base, and start at the identity."""
        if self.side not in ("left", "right"):
            raise ValueError(f'side has to be "left" or "right". Got: {self.side}.')
        *batch, blocks, _, size = column_blocks(*self._turned(weight)).shape
        self.base = kept(weight)
        self.signs = torch.ones(
            (*batch, blocks, size), dtype=torch.int8, device=weight.device
        )

    def _turned(self, weight: Tensor) -> tuple[Tensor, int]:
        """Return the matrix with what is turned as its columns, and the block size."""
        W = side_of(weight, self.side)
        return W, W.shape[-1] if self.block_size is None else self.block_size

    def forward(self, x: Tensor) -> Tensor:
        """Return the base, turned."""
        assert self.base is not None
        assert self.signs is not None
        return self._value(self.base, x, self.signs)

    @full_precision
    def _value(self, base: Tensor, x: Tensor, signs: Tensor) -> Tensor:
        W, size = self._turned(base)
        lower = unpacked_lower(x, size, strict=not x.is_complex())
        R = cayley_transform_lower(lower) * signs.unsqueeze(-2)
        return side_of(turn_columns(W, R), self.side)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates of the blocks, and set the signs."""
        if self.base is None:
            self.bind(weight)  # torch's registration does not
        assert self.base is not None
        assert self.signs is not None
        W, size = self._turned(weight)
        strict = not weight.is_complex()
        if same(weight, self.base):
            self.signs = torch.ones_like(self.signs)
            m = lower_triangle_size(size, strict=strict)
            return weight.new_zeros(*self.signs.shape[:-1], m)
        R = nearest_turn(double(W), double(self._turned(self.base)[0]), size)
        A, self.signs = cayley_inverse(polish(R), self.signs)
        half = torch.diag_embed(A.diagonal(dim1=-2, dim2=-1) / 2)
        return packed_lower(A - half, strict=strict).to(weight.dtype).contiguous()
