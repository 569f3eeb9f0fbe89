"""Laws of values: where they lie, there and back, in batches and in every type."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import HoldfastError
from ..sets.constraint import relative
from .case import CLOSE, Case, Chain, Shape, forward, right_inverse
from .law import NotApplicable, largest, law, need, need_close

_HALF_TYPES = (torch.bfloat16, torch.float16)
_POINTS = 4  # at which gradients are compared


@law(
    "image",
    "every value in the codomain",
    "Declare the set that `forward` ends in as `codomain`, or pass `codomain=`.",
)
def image(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The value of random originals lies in the codomain."""
    need_member(case, value_of(case, shape, dtype))


def value_of(case: Case, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Return the value of random originals, which has the weight's shape."""
    value = forward(case.bound(shape, dtype), *case.draw(shape, dtype))
    need(value.shape == shape, f"a value of shape {tuple(value.shape)}")
    return value


def need_member(case: Case, value: Tensor) -> None:
    """Require a value in the codomain."""
    residual = case.codomain(tuple(value.shape)).residual(value)
    limit = CLOSE[value.dtype]
    need(
        bool((residual <= limit).all()),
        f"a residual of {largest(residual):.1e}, where {limit:.1e} is allowed",
    )


@law(
    "right_inverse",
    "`forward(right_inverse(W)) == W` for W in the codomain",
    "Correct `right_inverse`, or raise NotImplementedError in it if there is none.",
)
def inverse(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The right inverse is one, on samples of the codomain."""
    W, chain = case.sample(shape, dtype), case.bound(shape, dtype)
    originals = right_inverse(chain, W)
    value = forward(chain, *originals)
    need(value.shape == shape, f"a value of shape {tuple(value.shape)}")
    wide = W.to(torch.complex128 if dtype.is_complex else torch.float64)
    off, limit = largest(relative(value - wide, wide)), CLOSE[dtype]
    need(off <= limit, f"a relative error of {off:.1e}, where {limit:.1e} is allowed")
    strided = [x.stride() for x in originals if not x.is_contiguous()]
    need(not strided, f"an original with strides {strided}, which is not contiguous")


@law(
    "projection",
    "`codomain.project` idempotent, and in the set",
    "Correct `project` of the set, or its `residual`.",
)
def projection(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Projection lands in the set, and does nothing the second time."""
    constraint = case.codomain(shape)
    P = constraint.project(torch.randn(shape, dtype=dtype))
    need(P.shape == shape, f"a projection of shape {tuple(P.shape)}")
    need(P.dtype == dtype, f"a projection of type {P.dtype} for {dtype}")
    inside = constraint.contains(P)
    need(inside, f"a projection of residual {largest(constraint.residual(P)):.1e}")
    need_close(constraint.project(P), P, "the second projection is")


@law(
    "batch",
    "a batch to be the same as a loop over it",
    "Compute with the last two dimensions only, or exempt the law with the reason.",
)
def batch(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """A batch of three is the same as three times one."""
    single, several = case.bound(shape, dtype), (3, *shape)
    try:
        many, originals = case.bound(several, dtype), case.draw(several, dtype)
        values = forward(many, *originals)
    except HoldfastError as error:
        raise NotApplicable(f"refused: {error}") from error
    stacked = all(x.shape[:1] == (3,) for x in originals)
    need(stacked, "an original that is one for the whole batch")
    loop = [forward(single, *(x[i] for x in originals)) for i in range(3)]
    need_close(values, torch.stack(loop), "the batch is")
    if case.invertible:
        W = case.sample(several, dtype)
        back = forward(many, *right_inverse(many, W))
        loop = [forward(single, *right_inverse(single, w)) for w in W]
        need_close(back, torch.stack(loop), "what comes back for a batch is")


@law(
    "dtype",
    "type and device kept, there and back",
    "Make constants with `dtype=X.dtype, device=X.device`.",
)
def kept_dtype(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Forward keeps type and device; the right inverse may make lengths real."""
    chain, originals = case.bound(shape, dtype), case.draw(shape, dtype)
    value = forward(chain, *originals)
    need(value.dtype == dtype, f"{value.dtype} for {dtype}")
    need(value.device == originals[-1].device, f"a value on {value.device}")
    if case.invertible:
        for back in right_inverse(chain, case.sample(shape, dtype)):
            known = back.dtype in (dtype, dtype.to_real())
            need(known, f"an original of {back.dtype} for {dtype}")


@law(
    "half",
    "half types computed through float32, and rounded once",
    "Cast to float32 inside `forward`, and back at its end.",
)
def half(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Each map rounds once where it is given bfloat16 or float16."""
    if dtype.is_complex:
        raise NotApplicable("complex types have no halves")
    taken = [half for half in _HALF_TYPES if half in case.dtypes]
    for half_type in taken:
        _rounds_once(case, shape, half_type)
    if not taken:
        raise NotApplicable("refused: half types")


def _rounds_once(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    chain, tensors = case.bound(shape, dtype), case.draw(shape, dtype)
    for link in chain:
        wide = copy.deepcopy(link).float()
        expected = wide(*(x.float() for x in tensors)).to(dtype)
        value = link(*tensors)
        need_close(value, expected, f"{dtype} is", torch.finfo(dtype).eps)
        tensors = (value,)


@law(
    "autocast",
    "the same bits under autocast",
    "Turn autocast off inside `forward`.",
)
def autocast(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """Autocast, which is for activations, changes no weight."""
    single = torch.complex64 if dtype.is_complex else torch.float32
    chain, originals = case.bound(shape, single), case.draw(shape, single)
    expected = forward(chain, *originals)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = forward(chain, *originals)
    need_close(value, expected, "under autocast it is", 0.0)


@law(
    "autocast_backward",
    "the gradient under autocast, with the backward pass inside of it",
    "Turn autocast off inside `backward` too, where it casts some factors and not all.",
)
def autocast_backward(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    """The backward pass too may run inside autocast."""
    if dtype.is_complex:
        raise NotApplicable("autocast leaves complex types alone")
    if not shape:
        raise NotApplicable("a number is no factor of a matrix product")
    chain = case.bound(shape, torch.float32)
    mixing = torch.randn(shape[-1], shape[-1], dtype=torch.float32)
    points = [
        [x.requires_grad_() for x in case.draw(shape, torch.float32)]
        for _ in range(_POINTS)
    ]

    def slopes(half: torch.dtype, *, inside: bool) -> list[tuple[Tensor, ...]]:
        return [_autocast_slopes(chain, x, mixing, half, inside) for x in points]

    for half_type in _HALF_TYPES:
        # the loss is the same; what is left are products that autograd differentiates
        outside, inside = (slopes(half_type, inside=x) for x in (False, True))
        pairs = (zip(*each, strict=True) for each in (inside, outside))
        for mine, expected in zip(*pairs, strict=True):
            # of a single slope, terms may cancel that are rounded one by one
            off = _norm([x - y for x, y in zip(mine, expected, strict=True)])
            limit = 5e-2 * _norm(expected)
            need(off <= limit, f"a gradient off by {off:.1e}, where {limit:.1e} may be")


def _autocast_slopes(
    chain: Chain,
    originals: list[Tensor],
    mixing: Tensor,
    half: torch.dtype,
    inside: bool,  # noqa: FBT001
) -> tuple[Tensor, ...]:
    """Return gradients of a loss under autocast; of the backward pass inside of it."""
    # without its cache, which holds what another type was cast to
    with torch.autocast("cpu", dtype=half, cache_enabled=False):
        loss = (forward(chain, *originals) @ mixing).float().sin().sum()
        if inside:
            return torch.autograd.grad(loss, originals)
    return torch.autograd.grad(loss, originals)


def _norm(slopes: Sequence[Tensor]) -> float:
    """Return the root of the sum of the squares of the largest entries."""
    return math.hypot(*map(largest, slopes))


VALUE_LAWS = (
    image,
    inverse,
    projection,
    batch,
    kept_dtype,
    half,
    autocast,
    autocast_backward,
)
