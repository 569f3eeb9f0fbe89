"""Products of reflections, and their signs, which torch keeps in the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.householder import diagonal_signs, reflections, reflectors
from ..linalg.precision import double, full_precision
from ..linalg.structure import positive_signs, require_matrix, tall, turned_like
from ..sets.orthogonal import Stiefel


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
    foreach = "stack"
    decays = False
    outside = "project"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    def bind(self, weight: Tensor) -> None:
        """Start with all signs -1, which make zero coordinates the identity."""
        require_real(weight)
        self.signs = -positive_signs(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the reflections."""
        V = tall(X)
        signs = diagonal_signs(V) if self.signs is None else self.signs
        return turned_like(reflections(V) * signs.unsqueeze(-2), X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the reflectors of the weight, and set the signs."""
        require_real(weight)
        X, self.signs = reflectors(double(tall(weight)))
        return turned_like(X, weight).to(weight.dtype).contiguous()

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Read the signs of torch's checkpoints off the diagonal, in place."""
        if index == 0:
            read_signs(state, f"{prefix}parametrizations.{name}.")

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001  # as nn.Module
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.signs is not None and not keep_vars:
            write_signs(destination, prefix, self.signs)


def require_real(weight: Tensor) -> None:
    """Raise for what is no matrix, or complex."""
    require_matrix(weight)
    if weight.is_complex():
        raise InvalidTensorError(
            "The householder parametrization does not support complex tensors. "
            'Use "matrix_exp" or "cayley".'
        )


def read_signs(state: dict[str, Tensor], chain: str) -> None:
    """Make the signs out of the diagonal of the original, where they are missing."""
    signs, original = f"{chain}0.signs", f"{chain}original"
    if signs not in state and original in state:
        state[signs] = diagonal_signs(tall(state[original]))


def write_signs(state: dict[str, Any], prefix: str, signs: Tensor | None) -> None:
    """Renew the diagonal of the original, of which torch takes the integer part.

    Weight decay leaves -0.99 of a -1 there, and torch would make 0 of it. They are
    written into the original itself, because a state dict shares memory with the
    module: averages of weights are kept up to date through it. The value never reads
    the diagonal, so that no version needs to move.
    """
    original = state.get(f"{prefix.removesuffix('0.')}original")
    if type(original) is not Tensor or original.is_meta or original.ndim < 2:
        return
    diagonal = original.data.diagonal(dim1=-2, dim2=-1)
    expected = torch.full_like(diagonal, -1) if signs is None else signs.to(diagonal)
    if not torch.equal(diagonal, expected):
        with torch.inference_mode(original.is_inference()):
            diagonal.copy_(expected)
