"""Torch's kernels of weight norm, where they are right.

Note [Kernels of weight norm]
    On the CPU torch has kernels that go over the tensor half as often, for slices along
    the first or the last dimension. Zeros are NaN there, squares of large numbers are
    infinite, and what torch derives from their derivative is wrong. Hence they are used
    for norms that the host has looked at, and where nothing is differentiated again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tracing import traced, weight_norm_interface, weight_norm_interface_backward

# Norms whose squares, and the squares of what adds up to them, single precision has.
_USUAL = (1e-12, 1e18)

_TYPES = (torch.float32, torch.float64)
_SMALL = 1 << 15


def usual(norms: Tensor) -> bool:
    """Tell whether single precision has the squares of all norms; the host looks.

    Example:
        >>> import torch
        >>> usual(torch.tensor([0.1, 3.0])), usual(torch.tensor([0.0, 3.0]))
        (True, False)
    """
    least, most = norms.aminmax()
    return _USUAL[0] < least.item() and most.item() < _USUAL[1]


def kernel_takes(V: Tensor, g: Tensor) -> bool:
    """Tell whether torch's kernels take slices of such lengths.

    Example:
        >>> import torch
        >>> V = torch.ones(3, 2)
        >>> kernel_takes(V, torch.ones(3, 1)), kernel_takes(V.mT, torch.ones(1, 3))
        (True, False)
    """
    return (
        V.dtype in _TYPES
        and g.dtype is V.dtype
        and V.is_cpu
        and V.is_contiguous()
        and _has_rows_or_columns(V, g)
        and not traced(V)
    )


def _has_rows_or_columns(V: Tensor, g: Tensor) -> bool:
    """Tell whether lengths lie along the first dimensions, or along the last one."""
    size, count, lengths = V.numel(), g.numel(), g.shape
    if count < 2:  # to one slice torch gives one thread
        return 0 < size <= _SMALL or (size > 0 and torch.get_num_threads() == 1)
    if count == lengths[0] or count == lengths[-1]:
        return V.ndim > 1 and size > 0
    ndim = V.ndim
    while lengths[ndim - 1] == 1:
        ndim -= 1
    return lengths[:ndim] == V.shape[:ndim] and size > 0


def checked(V: Tensor, g: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return slices of lengths g and their norms, if those are usual.

    Example:
        >>> import torch
        >>> V, g = torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]])
        >>> checked(V, g)
        (tensor([[6., 8.]]), tensor([[5.]]))
        >>> checked(0 * V, g)
    """
    if not kernel_takes(V, g):
        return None
    found = weight_norm(V, g)
    return found if usual(found[1]) else None


def weight_norm(V: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return slices of lengths g and their former norms, by a kernel of torch's.

    V is contiguous, and g has all of the first dimensions, or the last one only; see
    Note [Lengths and directions].

    Example:
        >>> import torch
        >>> V, g = torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]])
        >>> weight_norm(V, g)
        (tensor([[6., 8.]]), tensor([[5.]]))
    """
    dim = _dim(g)
    if dim is not None:
        return weight_norm_interface(V, g.contiguous(), dim)
    n = g.numel()
    W, norm = weight_norm_interface(V.view(n, -1), g.reshape(n, 1), 0)
    return W.view(V.shape), norm.view(g.shape)


def weight_norm_backward(
    G: Tensor, V: Tensor, g: Tensor, norm: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of directions and lengths, by a kernel of torch's.

    Example:
        >>> import torch
        >>> V, g = torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]])
        >>> W, norm = weight_norm(V, g)
        >>> weight_norm_backward(torch.ones_like(W), V, g, norm)
        (tensor([[ 0.3200, -0.2400]]), tensor([[1.4000]]))
    """
    dim, G = _dim(g), G.contiguous()
    if dim is not None:
        return weight_norm_interface_backward(G, V, g.contiguous(), norm, dim)
    n = g.numel()
    rows = G.view(n, -1), V.view(n, -1), g.reshape(n, 1), norm.view(n, 1)
    dV, dg = weight_norm_interface_backward(*rows, 0)
    return dV.view(V.shape), dg.view(g.shape)


def _dim(g: Tensor) -> int | None:
    """Return along which dimension lengths lie, if along the first or the last."""
    shape, count = g.shape, g.numel()
    if count == 1:
        return None
    return 0 if count == shape[0] else len(shape) - 1 if count == shape[-1] else None
