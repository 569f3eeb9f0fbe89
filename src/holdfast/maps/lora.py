"""A frozen base and a change of low rank: LoRA, and with lengths of its own, DoRA."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError, NotInSetError
from ..linalg.low_rank import (
    balanced_factors,
    nearest_of_rank,
    rounding_norm,
    row_multiples,
    row_norms,
)
from ..linalg.precision import double, full_precision
from ..linalg.products import add_product
from ..linalg.structure import require_matrix
from ..linalg.tolerances import tolerance
from ..sets.around import shifted
from ..sets.constraint import Constraint, relative
from ..sets.low_rank import LowRankMatrices
from .delta import kept, same
from .low_rank import stored


class LoRA(Parametrization):
    r"""A frozen base plus a scaled product of thin factors.

    .. math::
        (B, A) \mapsto W_0 + \frac{\alpha}{r} B A, \qquad
        \mathbb{R}^{n \times r} \times \mathbb{R}^{r \times k} \to
        \{W_0 + L : \mathrm{rank}\, L \le r\}

    The base :math:`W_0` is the value at registration, which is kept exactly (but for
    the sign of a zero): B starts at zero, and A at random, uniform in
    :math:`\pm 1/\sqrt{k}` (Kaiming, as the authors' code has it), from torch's global
    generator. The right inverse is exact for
    W with :math:`W - W_0` of rank r, and gives factors with :math:`B^T B = A A^T`;
    directions that are lacking start as above. Other W are refused, or with
    ``outside="project"`` moved: the best rank-r part of :math:`W - W_0`. Surjective;
    not injective, as `LowRank`. Costs nkr multiply-adds and one pass over the matrix,
    the gradient twice the former, and r(n + k) parameters.

    Args:
        rank: r; it may exceed the sizes of the matrix.
        alpha: the numerator of the scale; by default the rank, and the scale 1.
        rank_stabilized: divide by the root of the rank instead: then gradients do not
            fade for large ranks. By default the scale is :math:`\sqrt{r}` then.

    Shape:
        ``(*batch, n, r), (*batch, r, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(6, 4)
        >>> W = layer.weight.detach().clone()
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.LoRA(2))
        >>> torch.equal(layer.weight, W)
        True
        >>> [tuple(p.shape) for p in layer.parametrizations.weight.parameters()]
        [(4, 2), (2, 6)]

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021,
        https://arxiv.org/abs/2106.09685; Kalajdzievski, A Rank Stabilization Scaling
        Factor for Fine-Tuning with LoRA, 2023, https://arxiv.org/abs/2312.03732
    """

    base: Tensor | None
    deterministic = True
    foreach = "stack"

    def __init__(
        self,
        rank: int,
        *,
        alpha: float | None = None,
        rank_stabilized: bool = False,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.rank_stabilized = rank_stabilized
        self.register_buffer("base", None)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base plus the matrices of at most this rank."""
        return shifted(LowRankMatrices(self.rank), self.base)

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return _scale(self.rank, self.alpha, rank_stabilized=self.rank_stabilized)

    def bind(self, weight: Tensor) -> None:
        """Keep the base."""
        _check(weight, self.rank, self.alpha)
        self.base = kept(weight)

    def forward(self, B: Tensor, A: Tensor) -> Tensor:
        """Return the base plus the product."""
        assert self.base is not None
        return _affine(self.base, B, A, self.scale)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of what is beyond the base."""
        if self.base is None:
            self.bind(weight)  # torch's registration does not
        assert self.base is not None
        if same(weight, self.base):
            return _start(weight, self.rank)
        change = double(weight) - double(self.base)
        return _factors(change, weight, self.rank, self.scale)


class DoRA(Parametrization):
    r"""Lengths of the rows, and their directions as those of a `LoRA`.

    .. math::
        (m, B, A) \mapsto \mathrm{diag}(m)\, \mathrm{diag}(\|V_i\|)^{-1}\, V, \qquad
        V = W_0 + \frac{\alpha}{r} B A

    The base :math:`W_0` is the value at registration, which is kept exactly: m starts
    as the norms of its rows, B and A as in `LoRA`. The slope is that of the
    formula, norms included, which other implementations take as constants. The lengths
    are free numbers, and may change their sign. A row that is zero stays zero; its
    slope is finite.

    The image has no formula that would tell whether a matrix is in it, so the codomain
    is declared to be all of them. The right inverse finds multiples of the rows of W
    that differ from :math:`W_0` by rank r, in a few damped steps of Newton's from
    several starts, and is exact where there are such; other W are refused. (They can be
    missed in small matrices whose rank-r part is larger than the base.) Not injective.
    Costs nkr multiply-adds and three passes over the matrix, the gradient twice that,
    and r(n + k) + n parameters.

    Args:
        rank: r; it may exceed the sizes of the matrix.
        alpha: the numerator of the scale; by default the rank, and the scale 1.
        rank_stabilized: divide by the root of the rank instead.

    Shape:
        ``(*batch, n), (*batch, n, r), (*batch, r, k) -> (*batch, n, k)``; of the
        lengths, the real part.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer.weight.data = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.DoRA(1))
        >>> layer.parametrizations.weight.original0.data *= 2
        >>> layer.weight.detach()
        tensor([[6., 8.],
                [0., 4.]])

    References:
        Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024,
        https://arxiv.org/abs/2402.09353
    """

    base: Tensor | None
    deterministic = True
    foreach = "stack"
    decays = (True, False, False)

    def __init__(
        self,
        rank: int,
        *,
        alpha: float | None = None,
        rank_stabilized: bool = False,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.rank_stabilized = rank_stabilized
        self.register_buffer("base", None)

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return _scale(self.rank, self.alpha, rank_stabilized=self.rank_stabilized)

    def bind(self, weight: Tensor) -> None:
        """Keep the base."""
        _check(weight, self.rank, self.alpha)
        self.base = kept(weight)

    def forward(self, m: Tensor, B: Tensor, A: Tensor) -> Tensor:
        """Return the rows of the lengths ``m``."""
        assert self.base is not None
        m = m.real
        return _rescaled(self.base, m, B, A, self.scale, m.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lengths, and the factors of what is beyond the base."""
        if self.base is None:
            self.bind(weight)  # torch's registration does not
        assert self.base is not None
        lengths = _lengths(weight)
        if same(weight, self.base):
            return lengths, *_start(weight, self.rank)
        W, base = double(weight), double(self.base)
        W = torch.where(W.any(-1, keepdim=True), W, base)  # length 0, any direction
        t = row_multiples(W, base, self.rank, tolerance(weight))
        change = t.unsqueeze(-1) * W - base
        _require(change, base, weight, self.rank)
        signed = torch.where(t < 0, -lengths, lengths)
        return signed, *_factors(change, weight, self.rank, self.scale)


@full_precision
def _affine(base: Tensor, B: Tensor, A: Tensor, scale: float) -> Tensor:
    return add_product(base, B, A, alpha=scale)


@full_precision
def _rescaled(
    base: Tensor, m: Tensor, B: Tensor, A: Tensor, scale: float, dtype: torch.dtype
) -> Tensor:
    V = _affine(base, B, A, scale)
    # rounded as the lengths are, so that a quotient of equals is 1
    norms = row_norms(V).to(dtype).to(m.dtype)
    return V * (m / norms).unsqueeze(-1)


@full_precision
def _lengths(weight: Tensor) -> Tensor:
    return torch.where(weight.any(-1), row_norms(weight), 0)


def _scale(rank: int, alpha: float | None, *, rank_stabilized: bool) -> float:
    alpha = rank if alpha is None else alpha
    return alpha / (math.sqrt(rank) if rank_stabilized else rank)


def _check(weight: Tensor, rank: int, alpha: float | None) -> None:
    require_matrix(weight)
    if rank < 1:
        raise InvalidTensorError(f"Expected a rank of at least 1. Got {rank}.")
    if alpha is not None and (alpha == 0 or not math.isfinite(alpha)):
        raise ValueError(f"Expected an alpha other than 0, and finite. Got {alpha}.")


def _start(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return B = 0 and a random A: their product is zero, and its slope is not."""
    return weight.new_zeros(*weight.shape[:-1], rank), _uniform(weight, rank)


def _uniform(weight: Tensor, rank: int) -> Tensor:
    """Return what `torch.nn.init.kaiming_uniform_` with a = sqrt(5) draws for A."""
    k = weight.shape[-1]
    A = weight.new_empty(*weight.shape[:-2], rank, k)
    parts = torch.view_as_real(A) if A.is_complex() else A
    parts.uniform_(-1, 1).div_(math.sqrt(max(1, k) * (2 if A.is_complex() else 1)))
    return A


def _factors(
    change: Tensor, weight: Tensor, rank: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return balanced factors of a change, which start as usual where it lacks rank."""
    spare, floor = double(_uniform(weight, rank)), rounding_norm(weight) / abs(scale)
    B, A = balanced_factors(change / scale, rank, floor, spare)
    return stored(B, weight), stored(A, weight)


def _require(change: Tensor, base: Tensor, weight: Tensor, rank: int) -> None:
    """Raise if more than rounding is left of a change beyond its rank."""
    rest = relative(change - nearest_of_rank(change, rank), base)
    if not bool((rest <= tolerance(weight)).all()):
        raise NotInSetError(
            "Expected a matrix whose rows are multiples of those of the base plus a "
            f"matrix of rank {rank}. Those found are {float(rest.max()):.1e} away, "
            f"relative to the base, tolerance {tolerance(weight):.1e} "
            f'({weight.dtype}). `LoRA` takes the nearest with `outside="project"`.'
        )
