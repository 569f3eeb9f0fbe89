"""Matrices with given row and column sums: doubly stochastic ones, and couplings."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.entrywise import lift
from ..linalg.northwest import northwest, northwest_inverse
from ..linalg.precision import double, full_precision
from ..linalg.scaling import sinkhorn
from ..sets.transport import TransportPolytope, check_marginals, marginals
from .bounds import MARGIN, keep


class Coupling(Parametrization):
    """What the maps onto given row and column sums share: all but the way there."""

    rows: float | Tensor
    columns: float | Tensor | None
    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(
        self, rows: float | Tensor = 1.0, columns: float | Tensor | None = None
    ) -> None:
        super().__init__()
        keep(self, "rows", rows)
        keep(self, "columns", columns)

    @property
    def codomain(self) -> TransportPolytope:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with these sums."""
        return TransportPolytope(self.rows, self.columns, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Check that there are such matrices."""
        check_marginals(weight, self.rows, self.columns)


class Sinkhorn(Coupling):
    r"""Scale rows and columns of the exponential until their sums are right.

    .. math::
        X \mapsto e^{x_{ij} + f_i + g_j}, \qquad \mathbb{R}^{n \times k} \to
        \{W : w_{ij} > 0,\ \textstyle\sum_j w_{ij} = r_i,\ \sum_i w_{ij} = c_j\}

    To convergence, by Newton's method in double precision: ten to twenty-five steps for
    logits up to a hundred, each a solve of size min(n, k). The host looks at the error
    of each; where it may not, as in a compiled function or a captured graph, there are
    24. The sums are right to rounding whatever the logits are. The gradient is that of
    the limit: one solve, and all that is kept for it is one matrix.

    What is added to a row or a column of X changes nothing. Zeros are not reached, but
    by underflow: an entry of zero that is assigned becomes a rounding of the mean. The
    right inverse is the logarithm, exact for positive entries. All entries are treated
    alike; `NorthwestCorner` has no redundant coordinates and takes sums of zero, but
    prefers the first entries.

    Args:
        rows: the sum of each row, positive; a tensor gives each its own.
        columns: the sum of each column, likewise. Both have to add up to the same;
            ``None`` makes them equal, and fit.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> W = maps.Sinkhorn()(10 * torch.randn(8, 8, dtype=torch.float64))
        >>> ones = torch.ones(8, dtype=torch.float64)
        >>> torch.allclose(W.sum(0), ones, 1e-12), torch.allclose(W.sum(1), ones, 1e-12)
        (True, True)

    References:
        Sinkhorn, Diagonal Equivalence to Matrices with Prescribed Row and Column Sums,
        1967, https://doi.org/10.2307/2314570

        Luise et al., Differential Properties of Sinkhorn Approximation for Learning
        with Wasserstein Distance, 2018, https://arxiv.org/abs/1805.11897
    """

    def bind(self, weight: Tensor) -> None:
        """Check that there are such matrices, with positive entries."""
        super().bind(weight)
        for sums in (self.rows, self.columns):
            positive = torch.as_tensor(1.0 if sums is None else sums) > 0
            if not positive.is_meta and not bool(positive.all()):
                raise InvalidTensorError(
                    "Expected positive row and column sums: no exponential is zero. "
                    "`NorthwestCorner` takes any."
                )

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the scaled exponential."""
        return sinkhorn(X, *marginals(double(X), self.rows, self.columns))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the logarithm."""
        W = lift(double(weight), torch.finfo(weight.dtype).eps)
        return W.log().to(weight.dtype)


class NorthwestCorner(Coupling):
    r"""Fill in entry by entry, each between the bounds that those before it leave.

    .. math::
        w_{ij} = l_{ij} + \sigma(x_{ij}) (h_{ij} - l_{ij}), \qquad
        \mathbb{R}^{(n-1) \times (k-1)} \to
        \{W : w_{ij} \ge 0,\ \textstyle\sum_j w_{ij} = r_i,\ \sum_i w_{ij} = c_j\}

    where h is what is left of row or column, and l is what the columns after j have no
    room for. Exact for any sums, zeros included, with as many coordinates as the set
    has dimensions. Onto the interior and one to one there; continuous, and smooth but
    for where two of the bounds meet. Entries on a bound are not reached, but by
    rounding: one that is assigned is moved inside by a rounding of its interval. The
    right inverse is exact, in closed form. Costs n + k steps of up to min(n, k) entries
    each.

    Args:
        rows: the sum of each row; a tensor gives each its own.
        columns: the sum of each column, likewise. Both have to add up to the same;
            ``None`` makes them equal, and fit.

    Shape:
        ``(*batch, n - 1, k - 1) -> (*batch, n, k)``, real.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, corner = torch.nn.Linear(3, 2), maps.NorthwestCorner()
        >>> layer = holdfast.register_parametrization(layer, "weight", corner)
        >>> layer.weight = torch.tensor([[0.5, 0.25, 0.25], [1 / 6, 5 / 12, 5 / 12]])
        >>> layer.weight.detach()
        tensor([[0.5000, 0.2500, 0.2500],
                [0.1667, 0.4167, 0.4167]])
        >>> tuple(layer.parametrizations.weight.original.shape)
        (1, 2)

    References:
        Dantzig, Application of the Simplex Method to a Transportation Problem, 1951,
        for the rule of the north-west corner, which takes all upper bounds.
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix with the coordinates X."""
        shape = (*X.shape[:-2], X.shape[-2] + 1, X.shape[-1] + 1)
        return northwest(X, *marginals(X.new_empty(shape), self.rows, self.columns))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates."""
        X = northwest_inverse(double(weight), torch.finfo(weight.dtype).eps)
        return X.to(weight.dtype).contiguous()
