r"""Norms of slices and rescaling to them, with finite values and slopes at zero.

Note [Lengths and directions]
    A slice V that is given the length g is :math:`W = g U`, :math:`U = V / \|V\|`. So

    .. math::
        dW = \frac{g}{\|V\|} (dV - U \langle U, dV \rangle) + U\, dg, \qquad
        d\|V\| = \langle U, dV \rangle,

    and g gets :math:`\langle U, G \rangle` of a gradient G of W. A slice of zeros
    counts as one of norm 1 here. What belongs to a slice is told by the shape of g: the
    dimensions in which that has one entry.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .closed_form import Tensors, closed_form
from .kernels import checked, kernel_takes, usual, weight_norm, weight_norm_backward
from .precision import double, full_precision
from .tracing import dual, traced, transforming


def axis(dim: int, ndim: int) -> int:
    """Return a dimension counted from the front; a negative one counts from the back.

    Example:
        >>> axis(-1, 3)
        2
    """
    if not -ndim <= dim < ndim:
        raise IndexError(
            "Dimension out of range (expected to be in range of "
            f"[{-ndim}, {ndim - 1}], but got {dim})."
        )
    return dim % ndim


def norm_except(V: Tensor, dim: int | None) -> Tensor:
    """Return the norm over all dimensions but ``dim``, or over all for ``None``.

    The derivatives of every order are zero, not NaN, where a slice is zero.

    Shape: ``(d_0, ..., d_m) -> (1, ..., d_dim, ..., 1)``, or ``()`` for ``None``.

    Example:
        >>> import torch
        >>> norm_except(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 0)
        tensor([[5.],
                [0.]])
    """
    norm = usual_norms(V, dim)
    if norm is not None:
        return norm
    like = V.real.new_zeros(()).expand(_shape_of_norms(V.shape, dim))
    norm = _norm(V, like)
    return norm.reshape(()) if dim is None else norm


def usual_norms(V: Tensor, dim: int | None) -> Tensor | None:
    """Return the norms over all dimensions but ``dim`` where a kernel is good for them.

    They are positive, finite, and those that `rescale` divides by. It is quicker than
    `norm_except`, and returns ``None`` where that is needed: for derivatives, for
    zeros, for layouts that the kernel does not take.

    Example:
        >>> import torch
        >>> usual_norms(torch.tensor([[3.0, 4.0]]), 0)
        tensor([[5.]])
        >>> usual_norms(torch.tensor([[0.0, 0.0]]), 0)
    """
    if not V.is_cpu or (V.requires_grad and torch.is_grad_enabled()) or dual():
        return None
    # only the norms count, so that lengths may be anything
    found = checked(V, V.new_empty(_shape_of_norms(V.shape, dim)))
    if found is None:
        return None
    return found[1].reshape(()) if dim is None else found[1]


def rescale(V: Tensor, length: Tensor, dim: int | None) -> Tensor:
    """Return V with its slices along ``dim`` rescaled to ``length``; zero stays zero.

    A slice that is zero counts as one of norm 1, which gives it a finite slope. See
    Note [Lengths and directions]. A stack of tensors comes with a stack of lengths.

    Example:
        >>> import torch
        >>> V = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> rescale(V, torch.tensor([[10.0], [1.0]]), 0)
        tensor([[6., 8.],
                [0., 0.]])
    """
    g = _lengths(V, length, dim)
    W = _by_kernel(V, g)
    return _by_rule(V, g) if W is None else W


def _lengths(V: Tensor, length: Tensor, dim: int | None) -> Tensor:
    """Return lengths in the shape that tells the slices."""
    shape = _shape_of_norms(V.shape, dim)
    if length.shape == shape:
        return length
    one = V.shape[1:]
    if dim is None and length.shape == V.shape[:1]:
        return length.view(-1, *shape[1:])  # a stack
    if (
        dim is not None
        and -len(one) <= dim < len(one)
        and length.shape == (*V.shape[:1], *_shape_of_norms(one, dim))
    ):
        return length  # also a stack
    return length.expand(shape)


def divide(W: Tensor, norm: Tensor, eps: float) -> Tensor:
    """Return W over its norm, or W itself where that is below ``eps``.

    Example:
        >>> import torch
        >>> divide(torch.zeros(2), torch.tensor(0.0), 1e-12)
        tensor([0., 0.])
    """
    return W / torch.where(norm.abs() > eps, norm, 1)


def _shape_of_norms(shape: torch.Size, dim: int | None) -> tuple[int, ...]:
    """Return a shape with one entry in each dimension but ``dim``."""
    ones = (1,) * len(shape)
    if dim is None:
        return ones
    kept = axis(dim, len(shape))
    return *ones[:kept], shape[kept], *ones[kept + 1 :]


def _norms(V: Tensor, like: Tensor) -> Tensor:
    """Return the norms of slices, of a shape like theirs; those too small are zero."""
    found = checked(V, torch.ones(like.shape, dtype=V.dtype, device=V.device))
    if found is not None:
        return found[1]
    if V.is_cpu and not traced(V) and like.numel():
        norm = _norms_as_is(V, like)
        if usual(norm):
            return norm
    norm = _norms_as_is(double(V), like).to(V.real.dtype)
    return norm.masked_fill(norm < torch.finfo(norm.dtype).tiny, 0)


def _norms_as_is(V: Tensor, like: Tensor) -> Tensor:
    """Return the norms of slices in the precision that they are in."""
    if V.is_complex():  # of these torch takes 25 times as long
        return _sum_like((V * V.conj()).real, like).sqrt()
    dims = [dim for dim, size in enumerate(like.shape) if size == 1]
    if dims and dims[0] == V.ndim - len(dims):
        return torch.linalg.vector_norm(V, dim=dims, keepdim=True)
    return _sum_like(V * V, like).sqrt()


def _sum_like(X: Tensor, like: Tensor) -> Tensor:
    """Sum a tensor to the shape of another one, dimensions side by side at once.

    Over the first and the last dimensions at once it takes torch eight times as long.
    """
    run: list[int] = []
    for dim, size in enumerate(like.shape):
        if size == 1:
            run.append(dim)
        elif run:
            X, run = X.sum(run, keepdim=True), []
    return X.sum(run, keepdim=True) if run else X


def _by_kernel(V: Tensor, g: Tensor) -> Tensor | None:
    """Return the rescaled slices if torch's kernels are good for them."""
    if dual():
        return None
    if torch.is_grad_enabled() and (V.requires_grad or g.requires_grad):
        return _apply_kernel(V, g) if kernel_takes(V, g) else None  # pyright: ignore[reportReturnType]
    found = checked(V, g)
    return None if found is None else found[0]


class _Kernel(Function):
    """Slices of lengths g by torch's kernels; None if some norm is not usual."""

    @staticmethod
    def forward(ctx: Any, V: Tensor, g: Tensor) -> Tensor | None:  # noqa: ANN401
        W, norm = weight_norm(V, g)
        if not usual(norm):
            return None
        ctx.save_for_backward(V, g, norm)
        return W

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        V, g, norm = ctx.saved_tensors
        if _ordinary(G):
            return weight_norm_backward(G, V, g, norm)
        if torch.is_grad_enabled():
            norm = _norm(V, g)
        return _Rescaled.vjp((V, g, norm), None, G, None)


def _ordinary(G: Tensor) -> bool:
    """Tell whether what is made of a gradient will not be differentiated or mapped."""
    recorded = torch.is_grad_enabled() or transforming() or dual()
    return type(G) is Tensor and not recorded


# without what Python does in front of it, which takes as long as a small kernel
_apply_kernel = super(Function, _Kernel).apply  # pyright: ignore[reportAttributeAccessIssue]


@full_precision
def _by_rule(V: Tensor, g: Tensor) -> Tensor:
    return _rescaled(V, g)


def _inverse(norm: Tensor, at_zero: float) -> Tensor:
    zero = norm == 0
    return norm.masked_fill(zero, 1).reciprocal().masked_fill(zero, at_zero)


def _inner(U: Tensor, V: Tensor, like: Tensor) -> Tensor:
    """Return the real inner products of slices, in the shape of a tensor."""
    product = (U.conj() * V).real if U.dtype.is_complex else U * V
    return _sum_like(product, like)


class _Norm:
    """The norms of slices, of the shape of ``like``."""

    @staticmethod
    def forward(V: Tensor, like: Tensor) -> tuple[Tensor]:
        return (_norms(V, like),)

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs[0], outputs[0]

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        V, norm = kept
        return V * (_inverse(norm, 0) * G), None

    @staticmethod
    def jvp(kept: Any, dV: Tensor, _: Tensor | None) -> Tensors:  # noqa: ANN401
        V, norm = kept
        return (_inner(V * _inverse(norm, 0), dV, norm),)


class _Rescaled:
    """Slices of V of the lengths g, and behind them their norms."""

    @staticmethod
    def forward(V: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        found = checked(V, g)
        if found is not None:
            return found
        norm = _norms(V, g)
        # a quotient, which is exactly 1 where the length is the norm
        return V * (g / norm.masked_fill(norm == 0, 1)), norm

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return *inputs, outputs[1]

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor, dnorm: Tensor | None) -> Tensors:  # noqa: ANN401
        V, g, norm = kept
        if dnorm is None and _ordinary(G) and kernel_takes(V, g) and usual(norm):
            return weight_norm_backward(G, V, g, norm)
        inverse = _inverse(norm, 1)
        U = V * inverse
        inner = _inner(U, G, g)
        gradient = (g * inverse) * (G - inner * U)
        if dnorm is not None:
            gradient = gradient + V * (_inverse(norm, 0) * dnorm)
        return gradient, inner

    @staticmethod
    def jvp(kept: Any, dV: Tensor | None, dg: Tensor | None) -> Tensors:  # noqa: ANN401
        V, g, norm = kept
        inverse = _inverse(norm, 1)
        U = V * inverse
        dV = torch.zeros_like(V) if dV is None else dV
        dg = torch.zeros_like(g) if dg is None else dg
        inner = _inner(U, dV, g)
        return (g * inverse) * (dV - inner * U) + U * dg, inner


_norm = closed_form(_Norm)
_rescaled = closed_form(_Rescaled)
