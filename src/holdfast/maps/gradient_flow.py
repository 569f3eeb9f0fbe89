"""Maps around one map: what becomes of the gradient."""

from __future__ import annotations

from torch import Tensor

from ..core.calling import call
from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError, describe
from .around import Around


class Frozen(Around):
    r"""A map whose originals do not train.

    .. math::
        X \mapsto \varphi(\mathrm{sg}(X))

    with the value of the map and no gradient. For a part of a weight: a factor of a
    `Product`, say. The originals of the part get no gradient, so that optimizers leave
    them alone, weight decay included; they still can be assigned, and are saved as any
    others are. To freeze a whole weight, ``requires_grad_(False)`` on its originals
    does the same. The right inverse is that of the map.

    Args:
        map: the map.

    Shape:
        as the map's.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> X = torch.ones(2, 2, requires_grad=True)
        >>> maps.Frozen(maps.Symmetric())(X).requires_grad
        False
    """

    foreach = "stack"

    def __init__(self, map: Parametrization) -> None:
        super().__init__()
        self.map = map

    def _value(self, originals: tuple[Tensor, ...]) -> Tensor:
        return call(self.map, tuple(tensor.detach() for tensor in originals))


class StraightThrough(Around):
    r"""The value of a map, with the gradient of the identity.

    .. math::
        X \mapsto \varphi(X), \qquad \frac{\partial}{\partial X} := I

    For maps whose own gradient is zero almost everywhere, such as rounding, or to train
    as if a projection were not there. It takes maps with one original of the weight's
    shape. The value is the map's, bit for bit; the right inverse is the map's. The
    derivatives are not those of the value, so that second-order methods see zero
    curvature. Costs three passes beside the map.

    Args:
        map: the map.

    Shape:
        ``(d_0, ..., d_m) -> (d_0, ..., d_m)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> X = torch.tensor([[0.0, 4.0], [-2.0, 0.0]], requires_grad=True)
        >>> W = maps.StraightThrough(maps.Polar())(X)
        >>> W.detach()
        tensor([[ 0.,  1.],
                [-1.,  0.]])
        >>> torch.autograd.grad(W.sum(), X)[0]
        tensor([[1., 1.],
                [1., 1.]])

    References:
        Bengio, Léonard and Courville, Estimating or Propagating Gradients Through
        Stochastic Neurons for Conditional Computation, 2013,
        https://arxiv.org/abs/1308.3432
    """

    foreach = "stack"

    def __init__(self, map: Parametrization) -> None:
        super().__init__()
        self.map = map

    def _value(self, originals: tuple[Tensor, ...]) -> Tensor:
        return call(self.map, tuple(tensor.detach() for tensor in originals))

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        X = originals[0]
        if len(originals) > 1 or (X.shape, X.dtype) != (value.shape, value.dtype):
            raise InvalidTensorError(
                "A gradient passes straight through a map of one original of the "
                f"weight's shape and type. `{type(self.map).__name__}` makes "
                f"{describe(value)} of {len(originals)}, the first {describe(X)}."
            )
        return value.detach() + (X - X.detach())  # zero: the value stays as it is
