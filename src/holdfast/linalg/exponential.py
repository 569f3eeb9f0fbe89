"""The matrix exponential: of skew, of symmetric and of any matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .chebyshev import derivative, evaluate
from .portable import portable_exponential
from .precision import double, exactly
from .products import add_product, add_to_diagonal, product
from .rotation import plane_rotation, space_rotation, turned
from .structure import (
    difference_,
    lower,
    lower_skew,
    require_square,
    skew_of_lower,
)
from .sweeping import sweep
from .tracing import dual, exported_to_onnx, traced


def skew_exponential(A: Tensor) -> Tensor:
    r"""Return :math:`\exp(A)` of a skew matrix, an orthogonal one.

    Unitary, where A is skew-Hermitian. The gradient is that on skew matrices, a skew
    one. Real 2 x 2 and 3 x 3 matrices have closed forms. All others take Chebyshev
    polynomials and squarings, see `linalg/programs.py`. In single precision that is 2
    products of size n for tiny norms, 3 up to a norm of about one and 4 up to one of
    two to three, and 3, 5 (4 below a norm of a third) and 6 for the gradient; in double
    5 and 7. Each doubling adds one squaring, and two products for the gradient. From
    the second squaring on, single precision takes two products more, for a step of
    Newton and Schulz that undoes what they have made of rounding.

    Where the host may not look at the norm (on another device than the CPU, and while
    tracing) there are always 10 squarings: 15 or 16 products, and 26 or 27 for the
    gradient. The norm may be 1000. What is too large gives NaN there.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``, of single or double precision.

    Example:
        >>> import torch
        >>> A = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) * torch.pi / 2
        >>> skew_exponential(A).round().abs()
        tensor([[0., 1.],
                [1., 0.]])

    References:
        Bader, Blanes, Casas and Seydaoğlu, An Efficient Algorithm to Compute the
        Exponential of Skew-Hermitian Matrices, 2021, https://arxiv.org/abs/2103.10132
    """
    require_square(A)
    n = A.shape[-1]
    if n < 2:
        return ((A - A.mH) / 2).exp()
    if n < 4 and not A.is_complex():
        return plane_rotation(A) if n == 2 else space_rotation(A)
    if A.ndim > 3:  # fused products take one batch dimension
        return skew_exponential(A.flatten(0, -3)).unflatten(0, A.shape[:-2])
    if traced(A):
        return add_to_diagonal(evaluate(A, fixed=True).value, 1)
    return _SkewExponential.apply(A)


def skew_exponential_lower(X: Tensor, base: Tensor | None = None) -> Tensor:
    r"""Return :math:`B \exp(L - L^H)` for the lower triangle L of X.

    That is `skew_exponential` of `lower_skew`, times a base if there is one, in fewer
    passes. The base costs a product in each direction.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``; the base may lack leading dimensions.

    Example:
        >>> import torch
        >>> X = torch.tensor([[5.0, 5.0], [torch.pi / 2, 5.0]])
        >>> skew_exponential_lower(X, 2 * torch.eye(2)).round().abs()
        tensor([[0., 2.],
                [2., 0.]])
    """
    require_square(X)
    if X.shape[-1] == 3 and base is not None and not X.is_complex():
        return turned(X, base)
    plain = X.shape[-1] > 3 and X.ndim < 4 and not (traced(X) or dual())
    if plain and (base is None or not (base.requires_grad or traced(base))):
        return _LowerExponential.apply(X, base if base is None else base.expand_as(X))
    E = skew_exponential(lower_skew(X))
    return E if base is None else product(base, E)


class _SkewExponential(torch.autograd.Function):
    """The exponential with a sweep back over what the way forward left.

    Derivatives of derivatives, and in forward mode, are ordinary operations.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:  # noqa: ANN401
        """Evaluate, and keep the factors of the products."""
        return add_to_diagonal(_evaluated(ctx, A, A, None), 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401
        """Return the skew gradient; the fast way unless it is differentiated again."""
        _, A, _, halvings, *tensors = ctx.saved_tensors
        with exactly(A):
            if torch.is_grad_enabled():
                slope = derivative(A.mH, grads[0], ctx.plan, halvings)
            else:
                slope = sweep(A, grads[0], ctx.plan, halvings, tensors)
            return difference_(slope) / 2

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        """Return the derivative in a skew direction."""
        A, _, halvings = ctx.saved_tensors
        return derivative(A, tangents[0], ctx.plan, halvings)


class _LowerExponential(torch.autograd.Function):
    """The same of a lower triangle, times a constant base."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, base: Tensor | None) -> Tensor:  # noqa: ANN401
        """Evaluate, and add the base with its product."""
        D = _evaluated(ctx, X, skew_of_lower(X), base)
        return add_to_diagonal(D, 1) if base is None else add_product(base, base, D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Return the lower gradient."""
        X, A, base, halvings, *tensors = ctx.saved_tensors
        with exactly(A):
            G = grads[0] if base is None else product(base.mH, grads[0])
            if torch.is_grad_enabled():
                slope = derivative(lower_skew(X).mH, G, ctx.plan, halvings)
            else:
                slope = sweep(A, G, ctx.plan, halvings, tensors)
            return lower(difference_(slope)), None


def _evaluated(ctx: Any, X: Tensor, A: Tensor, base: Tensor | None) -> Tensor:  # noqa: ANN401
    """Return exp(A) - I, and keep what the derivatives need."""
    fixed = A.device.type != "cpu"
    value, ctx.plan, halvings, tensors = evaluate(A, fixed=fixed)
    ctx.save_for_backward(X, A, base, halvings, *tensors)
    ctx.save_for_forward(X, base, halvings)
    return value


def matrix_exponential(A: Tensor) -> Tensor:
    r"""Return :math:`\exp(A) = \sum_j A^j / j!` of any square matrix.

    Note [A batch of two]
        For a single matrix of norm about 0.05 to 0.6 (0.0003 to 0.05 in double
        precision), `torch.matrix_exp` evaluates a polynomial of degree 8 with a wrong
        coefficient, which is right to order 4 only (pytorch #196592). Batches always
        take another polynomial, so a single matrix goes there as a batch of two.

        Single precision is computed in double, which costs as much: the rounding of
        some squarings would show in the fifth digit for n = 64, whereas the wrong
        coefficient is off by at most 3e-10, and vanishes in the cast.

    On CUDA it is made of products alone, without a wait of the host, for norms up to
    1000; see `linalg/portable.py`.

    Example:
        >>> import torch
        >>> matrix_exponential(torch.zeros(2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    require_square(A)
    if A.is_cuda or exported_to_onnx():
        return portable_exponential(A)
    return _by_torch(A) if traced(A) else _Exponential.apply(A)


def _by_torch(A: Tensor) -> Tensor:
    """Return torch's exponential. See Note [A batch of two]."""
    wide = double(A)
    if wide.dtype != A.dtype:
        return torch.matrix_exp(wide).to(A.dtype)
    if A.numel() == A.shape[-1] ** 2:
        # a copy: no forward mode for a function whose value is a view
        return torch.matrix_exp(torch.stack([A, A]))[0].clone()
    return torch.matrix_exp(A)


class _Exponential(torch.autograd.Function):
    """torch's exponential, whose own gradient loses digits for large losses."""

    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(A)
        ctx.save_for_forward(A)
        return _by_torch(A)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401
        (A,) = ctx.saved_tensors
        with exactly(A):
            return exponential_derivative(A.mH, grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        (A,) = ctx.saved_tensors
        return exponential_derivative(A, tangents[0])


def exponential_derivative(A: Tensor, H: Tensor) -> Tensor:
    """Return the derivative of the exponential at A in any direction H.

    It is a block of the exponential of [[A, H], [0, A]], with H scaled to norm one so
    that a large gradient costs no digits. Its adjoint is the same function at ``A.mH``.

    Example:
        >>> import torch
        >>> exponential_derivative(torch.zeros(1, 1), torch.full((1, 1), 3.0))
        tensor([[3.]])
    """
    n = A.shape[-1]
    with torch.no_grad():  # the value does not depend on it
        size = torch.linalg.matrix_norm(double(H), keepdim=True)  # of 1e-30 and 1e30
        size = size.to(H.real.dtype).clamp_min(torch.finfo(H.dtype).tiny)
    upper = torch.cat([A, H / size], -1)
    lower = torch.cat([torch.zeros_like(A), A], -1)
    return matrix_exponential(torch.cat([upper, lower], -2))[..., :n, n:] * size
