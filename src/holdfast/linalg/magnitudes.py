"""The largest entries of a tensor, and gradients that pass by those left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .closed_form import Tensors, closed_form
from .norms import axis
from .tracing import traced


def largest(X: Tensor, count: int | Tensor, dim: int | None = None) -> Tensor:
    """Return true at the ``count`` entries of largest modulus.

    There are exactly so many, or all; equal ones are taken in any order. A number in
    a tensor on an accelerator, or while operations are recorded, is not looked at: that
    costs a sort instead of a selection.

    Args:
        X: a tensor of any shape.
        count: how many entries are marked.
        dim: the dimension along which they are counted; ``None`` counts them all.

    Example:
        >>> import torch
        >>> largest(torch.tensor([[3.0, -4.0], [1.0, 2.0]]), 1, dim=1)
        tensor([[False,  True],
                [False,  True]])
    """
    if dim is None:
        return largest(X.flatten(), count, 0).reshape(X.shape)
    if X.ndim == 0:
        return largest(X.reshape(1), count, 0).reshape(())
    sizes = X.detach().abs()
    if isinstance(count, Tensor) and count.device.type == "cpu" and not traced(count):
        count = int(count)
    if isinstance(count, int):
        marked = torch.topk(sizes, min(count, X.shape[dim]), dim, sorted=False).indices
        return torch.zeros_like(sizes, dtype=torch.bool).scatter(dim, marked, True)
    order = sizes.movedim(dim, -1).argsort(-1, descending=True)
    first = torch.arange(order.shape[-1], device=X.device) < count
    none = torch.zeros_like(order, dtype=torch.bool)
    return none.scatter(-1, order, first.expand_as(order)).movedim(-1, dim)


def largest_of_groups(X: Tensor, n: int, m: int, dim: int = -1) -> Tensor:
    """Return true at the n entries of largest modulus of every m along ``dim``.

    Raises:
        InvalidTensorError: the length of the dimension is no multiple of m.

    Example:
        >>> import torch
        >>> largest_of_groups(torch.tensor([3.0, -4.0, 1.0, 2.0]), 1, 2)
        tensor([False,  True, False,  True])
    """
    require_groups(X.shape, m, dim)
    place = axis(dim, X.ndim)
    groups = X.unflatten(place, (X.shape[place] // m, m))
    return largest(groups, n, place + 1).flatten(place, place + 1)


def require_groups(shape: torch.Size | tuple[int, ...], m: int, dim: int) -> None:
    """Raise unless the dimension can be cut into groups of m.

    Example:
        >>> require_groups((3, 8), 4, -1)
    """
    length = shape[axis(dim, len(shape))]
    if length % m:
        raise InvalidTensorError(
            f"Expected dimension {dim} to be a multiple of {m}. Got {length}, of shape "
            f"{tuple(shape)}. Choose another `axis`, or `maps.TopK`."
        )


class _StraightThrough:
    @staticmethod
    def forward(X: Tensor, mask: Tensor, pull: Tensor | None) -> tuple[Tensor]:
        return (torch.where(mask, X, 0),)

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return (inputs[2],)

    @staticmethod
    def vjp(kept: Tensors, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        (pull,) = kept
        return G if pull is None else G + pull, None, None

    @staticmethod
    def jvp(kept: Any, dX: Tensor, *constant: Any) -> Tensors:  # noqa: ANN401
        return (dX,)


_straight_through = closed_form(_StraightThrough)


def keep_masked(X: Tensor, mask: Tensor) -> Tensor:
    """Return ``X`` with zeros where the mask is false, and no gradient there.

    Example:
        >>> import torch
        >>> keep_masked(torch.ones(2), torch.tensor([True, False]))
        tensor([1., 0.])
    """
    return torch.where(mask, X, 0)


def keep_straight_through(X: Tensor, mask: Tensor, decay: float = 0.0) -> Tensor:
    r"""Return ``X`` with zeros where the mask is false; the gradient ignores them.

    .. math::
        \partial X = G + \lambda\, (1 - M) \odot X

    Args:
        X: a tensor.
        mask: true where an entry is kept.
        decay: λ, which pulls the entries left out towards zero. It is added once to
            every gradient that is taken, whatever the loss; forward derivatives, and
            those of derivatives, have no part in it.

    Example:
        >>> import torch
        >>> X = torch.tensor([2.0, 1.0], requires_grad=True)
        >>> keep_straight_through(X, torch.tensor([True, False])).sum().backward()
        >>> X.grad
        tensor([1., 1.])

    References:
        Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
        Scratch, 2021, https://arxiv.org/abs/2102.04010
    """
    pull = torch.where(mask, 0, X.detach()) * decay if decay else None
    return _straight_through(X, mask, pull)


def cubic_sparsity(
    step: Tensor, *, initial: float, final: float, start: int, steps: int
) -> Tensor:
    r"""Return the sparsity after ``step`` steps, rising fast and then slowly.

    .. math::
        s_t = s_f + (s_i - s_f) (1 - (t - t_0)/T)^3,
        \qquad t_0 \le t \le t_0 + T,

    the initial one before and the final one after.

    Example:
        >>> import torch
        >>> step = torch.tensor([0, 5, 10, 20])
        >>> cubic_sparsity(step, initial=0.0, final=0.8, start=0, steps=10)
        tensor([0.0000, 0.7000, 0.8000, 0.8000], dtype=torch.float64)

    References:
        Zhu and Gupta, To Prune, or Not to Prune, 2017,
        https://arxiv.org/abs/1710.01878
    """
    # float64 on every device that has it: counts of large tensors need the digits
    kind = torch.float32 if step.device.type == "mps" else torch.float64
    left = 1 - ((step.to(kind) - start) / max(1, steps)).clamp(0, 1)
    return final + (initial - final) * left**3
