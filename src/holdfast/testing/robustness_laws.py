"""Laws of the edges: other shapes, degenerate entries, huge and tiny ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import HoldfastError, LawError
from .case import Case, Shape, forward
from .law import NotApplicable, law, need
from .value_laws import need_member, value_of

_HUGE, _TINY = 1e18, 1e-18


@law(
    "shapes",
    "wide, square, single and empty tensors to work, or to be refused",
    "Compute with `shape[-2:]` and `...`, or raise a HoldfastError in `bind`.",
)
def other_shapes(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Other shapes work as well, or are refused with an error of the library."""
    refused = list[Shape]()
    others = _others(shape)
    for other in others:
        try:
            value = value_of(case, other, dtype)
            if "image" not in case.exceptions:
                need_member(case, value)
        except LawError as error:
            raise LawError(f"{error}, for a weight {other}") from error
        except HoldfastError:
            refused.append(other)
        except Exception as error:
            kind = type(error).__name__
            raise LawError(f"{kind}: {error}, for a weight {other}") from error
    if len(refused) == len(others):
        raise NotApplicable("refused: all other shapes")


def _others(shape: Shape) -> list[Shape]:
    if len(shape) < 2:
        return [(1,), (7,), (0,)]
    *batch, n, k = shape
    k, n = sorted((n, k))
    sides = [(n, k), (k, n), (k, k), (n, 1), (1, 1)]
    return [*((*batch, *side) for side in sides), (2, *shape), (0, *shape)]


def _degenerate(like: Tensor) -> dict[str, Tensor]:
    """Return the tensors at which formulas divide by zero."""
    zeros = torch.zeros_like(like)
    patterns = {"zeros": zeros, "-0.0": -zeros}
    if like.ndim:
        patterns["equal entries"] = torch.ones_like(like)
        patterns["zero in the first column"] = torch.randn_like(like)
        patterns["zero in the first column"][..., 0:1] = 0
    if like.ndim > 1:
        identity = torch.eye(*like.shape[-2:], dtype=like.dtype)
        X, zero_row = torch.randn_like(like), torch.randn_like(like)
        zero_row[..., 0:1, :] = 0
        patterns["zero in the first row"] = zero_row
        patterns["of equal singular values"] = identity.expand_as(like)
        patterns["of rank one"] = X[..., :1] * X[..., :1, :]
    return patterns


def _huge(like: Tensor) -> dict[str, Tensor]:
    limit = torch.finfo(like.dtype).max ** 0.5
    size = min(_HUGE, limit)
    return {
        "huge": size * torch.randn_like(like),
        "huge and equal": torch.full_like(like, size),
        "huge and negative": torch.full_like(like, -size),
    }


def _tiny(like: Tensor) -> dict[str, Tensor]:
    limit = torch.finfo(like.dtype).tiny ** 0.5
    return {"tiny": max(_TINY, limit) * torch.randn_like(like)}


@law(
    "degenerate",
    "finite values and gradients at zeros, zero rows, equal singular values, rank one",
    "Guard the division: `torch.where` on the argument, not on the result.",
)
def degenerate(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Values and gradients are finite where formulas tend to divide by zero."""
    _stays_finite(case, shape, dtype, _degenerate)


@law(
    "huge",
    "finite values and gradients at entries of size 1e18",
    "Divide by the largest entry before squares are summed.",
)
def huge(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Values and gradients are finite for huge entries."""
    _stays_finite(case, shape, dtype, _huge)


@law(
    "tiny",
    "finite values and gradients at entries of size 1e-18",
    "Divide by the largest entry before squares are summed.",
)
def tiny(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Values and gradients are finite for tiny entries."""
    _stays_finite(case, shape, dtype, _tiny)


def _stays_finite(
    case: Case,
    shape: Shape,
    dtype: torch.dtype,
    patterns: Callable[[Tensor], dict[str, Tensor]],
) -> None:
    """Require finite values and gradients at originals, and of registered weights."""
    weights = patterns(torch.empty(shape, dtype=dtype))
    originals = [patterns(x) for x in case.templates(shape, dtype)]
    for name, W in weights.items():
        # a number, or a vector, has fewer ways to be degenerate
        inputs = [made.get(name, next(iter(made.values()))) for made in originals]
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = forward(case.bound(shape, dtype), *leaves)
        _need_finite(value, leaves, f"originals that are {name}")
        try:
            host = case.registered(W.clone()).eval()
        except HoldfastError:  # it need not take such weights
            continue
        _need_finite(host.weight, [*host.parameters()], f"a weight that is {name}")


def _need_finite(value: Tensor, leaves: list[Tensor], where: str) -> None:
    need(bool(torch.isfinite(value).all()), f"a value that is not finite, at {where}")
    loss = (torch.randn_like(value) * value).sum()
    loss = loss.real if loss.is_complex() else loss
    slopes = torch.autograd.grad(
        loss, leaves, allow_unused=True, materialize_grads=True
    )
    finite = all(bool(torch.isfinite(slope).all()) for slope in slopes)
    need(finite, f"a gradient that is not finite, at {where}")


ROBUSTNESS_LAWS = (other_shapes, degenerate, huge, tiny)
