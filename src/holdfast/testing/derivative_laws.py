"""Laws of derivatives, and of the tools that trace through a map."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.func import grad, hessian, jacrev, jvp, vmap

from ..errors import LawError
from .case import Case, Host, Shape, forward
from .law import exact, law, need_close

# From this many entries on, finite differences go along random directions, and the
# Jacobian and the Hessian, of which each has as many entries squared, are left out.
_LARGE = 100


@law(
    "gradient",
    "the gradient of finite differences",
    "Leave derivatives to autograd, or correct `backward`.",
)
def gradient(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The gradient is that of finite differences, in double precision."""
    _differences(gradcheck, case, shape, dtype)


@law(
    "second_derivative",
    "the second derivative of finite differences",
    "Write `backward` in operations that can be differentiated themselves.",
)
def second_derivative(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The second derivative is that of finite differences, in double precision."""
    _differences(gradgradcheck, case, shape, dtype)


def _differences(
    compare: Callable[..., bool], case: Case, shape: Shape, dtype: torch.dtype
) -> None:
    chain = case.bound(shape, exact(dtype))
    originals = [x.requires_grad_() for x in case.draw(shape, exact(dtype))]
    fast = sum(x.numel() for x in originals) > _LARGE
    try:
        compare(lambda *x: forward(chain, *x), originals, fast_mode=fast)  # pyright: ignore[reportUnknownLambdaType]
    except GradcheckError as error:
        # what comes after that are tensors
        raise LawError(str(error).partition("numerical:")[0].strip(" ,\n")) from error


@law(
    "transforms",
    "vmap, grad, jvp, jacrev and hessian to agree with autograd",
    "Read no number from a tensor (`.item()`, `float`), and write into none.",
)
def transforms(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The function transforms of `torch.func` go through, and agree with autograd."""
    dtype = exact(dtype)
    chain, originals = case.bound(shape, dtype), case.draw(shape, dtype)
    tangents, weights = case.draw(shape, dtype), torch.randn(shape, dtype=dtype)

    def value(*x: Tensor) -> Tensor:
        return forward(chain, *x)

    def loss(*x: Tensor) -> Tensor:
        total = (weights * value(*x) ** 2).sum()
        return total.real if total.is_complex() else total

    _vectorizes(value, originals)
    _differentiates(loss, originals, tangents)
    entries = sum(x.numel() for x in originals)
    if 0 < entries <= _LARGE and not dtype.is_complex:
        _has_matrices(value, loss, originals, tangents)


def _vectorizes(value: Callable[..., Tensor], originals: tuple[Tensor, ...]) -> None:
    stacked = [torch.stack([x, -x, 2 * x]) for x in originals]
    loop = [value(*xs) for xs in zip(*stacked, strict=True)]
    _need_near(vmap(value)(*stacked), torch.stack(loop), "vmap is")


def _differentiates(
    loss: Callable[..., Tensor],
    originals: tuple[Tensor, ...],
    tangents: tuple[Tensor, ...],
) -> None:
    which = tuple(range(len(originals)))
    leaves = [x.clone().requires_grad_() for x in originals]
    slopes = torch.autograd.grad(loss(*leaves), leaves)
    for mine, slope in zip(grad(loss, which)(*originals), slopes, strict=True):
        _need_near(mine, slope, "grad is")
    along = jvp(loss, originals, tangents)[1]
    products = [(g.conj() * t).sum() for g, t in zip(slopes, tangents, strict=True)]
    total = torch.stack(products).sum()
    _need_near(along, total.real if total.is_complex() else total, "jvp is")


def _has_matrices(
    value: Callable[..., Tensor],
    loss: Callable[..., Tensor],
    originals: tuple[Tensor, ...],
    tangents: tuple[Tensor, ...],
) -> None:
    which = tuple(range(len(originals)))
    along = jvp(value, originals, tangents)[1]
    products = [
        J.reshape(*along.shape, t.numel()) @ t.flatten()
        for J, t in zip(jacrev(value, which)(*originals), tangents, strict=True)
    ]
    _need_near(along, torch.stack(products).sum(0), "jvp beside jacrev is")
    n = originals[-1].numel()
    H = hessian(loss, which[-1])(*originals).reshape(n, n)
    _need_near(H, H.mT, "the Hessian beside its transpose is")


def _need_near(actual: Tensor, expected: Tensor, what: str) -> None:
    # double precision throughout: what differs is the order of operations
    need_close(actual, expected, what, 1e-7)


@law(
    "compile",
    "the same value and gradient under torch.compile, in one graph",
    "Read no number from a tensor, and do not ask whether code is compiled.",
)
def compiles(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """A compiled module has the same value and the same gradient, and no break."""
    host = case.registered(torch.randn(shape, dtype=dtype)).eval()
    x = torch.randn(shape, dtype=dtype)
    expected, slopes = _with_slopes(host, host, x)
    compiled = torch.compile(_fresh(host), backend="aot_eager", fullgraph=True)
    value, mine = _with_slopes(compiled, host, x)
    need_close(value, expected, "the compiled value is")
    for slope, other in zip(slopes, mine, strict=True):
        need_close(other, slope, "the compiled gradient is")


def _with_slopes(
    function: Callable[[Tensor], Tensor], host: Host, x: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    value = function(x)
    scalar = value.real if value.is_complex() else value
    return value, torch.autograd.grad(scalar, [*host.parameters()])


def _fresh(host: Host) -> Callable[[Tensor], Tensor]:
    """Return the call of a module as code that was never compiled before.

    What torch has compiled is kept with the code object, up to a limit. A code object
    of our own leaves the user's alone, and needs no reset.
    """

    def call(x: Tensor) -> Tensor:
        return (host.weight * x).sum()

    function: Any = call
    return types.FunctionType(
        function.__code__.replace(co_name="fresh"),
        function.__globals__,
        closure=function.__closure__,
    )


DERIVATIVE_LAWS = (gradient, second_derivative, transforms, compiles)
