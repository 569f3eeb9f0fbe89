"""Functions with derivatives of their own, in every mode of torch's.

Note [Rules]
    A rule says how a function is computed and differentiated, in pure functions of
    tensors. `closed_form` makes of it what autograd, `torch.func` and the compiler can
    use. Derivatives are written in differentiable operations on what is kept, and only
    inputs and outputs are kept: so derivatives of every order are right. What a
    derivative would like to reuse is an output too, behind the value, that nobody but
    the derivatives sees.

    In a derivative nothing is written in place: under `vmap` one factor may have a
    batch that another lacks. And parts are taken by `split`, since `vmap` as gradcheck
    uses it has no rule for a slice that is the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .precision import coarse, exactly
from .tracing import forward_mode, transforming

Tensors = tuple[Tensor | None, ...]


class Rule(Protocol):
    """What `closed_form` needs to know of a function: four static methods.

    `forward(*inputs)` returns the value, and behind it what the derivatives reuse. The
    inputs have the same number of batch dimensions; optional ones may be None.

    `keep(inputs, outputs)` returns those of them that the derivatives need.

    `vjp(kept, needs, *grads)` returns the gradients of the inputs; those not needed may
    be None. The gradient of the value is there; those of other outputs may be None.

    `jvp(kept, *tangents)` returns the tangents of all outputs. The tangent of an input
    that is constant is None.
    """

    @property
    def __name__(self) -> str: ...
    @property
    def forward(self) -> Callable[..., tuple[Tensor, ...]]: ...  # noqa: D102
    @property
    def keep(self) -> Callable[..., Tensors]: ...  # noqa: D102
    @property
    def vjp(self) -> Callable[..., Tensors]: ...  # noqa: D102
    @property
    def jvp(self) -> Callable[..., Tensors]: ...  # noqa: D102


class _Batched(Function):
    """The rule of `vmap` for functions of batches: the mapped dimension comes first."""

    @classmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        *inputs: Tensor | None,
    ) -> tuple[Sequence[Tensor], tuple[int, ...]]:
        moved = [
            x
            if x is None
            else x.expand(info.batch_size, *x.shape)
            if dim is None
            else x.movedim(dim, 0)
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        outputs: Any = cls.apply(*moved)
        return outputs, (0,) * len(outputs)


def closed_form(rule: Rule) -> Callable[..., Tensor]:
    """Return the function that a rule describes. See Note [Rules].

    Example:
        >>> import torch
        >>> class Square:
        ...     @staticmethod
        ...     def forward(X):
        ...         return (X * X,)
        ...
        ...     @staticmethod
        ...     def keep(inputs, outputs):
        ...         return inputs
        ...
        ...     @staticmethod
        ...     def vjp(kept, needs, G):
        ...         return (2 * kept[0] * G,)
        ...
        ...     @staticmethod
        ...     def jvp(kept, dX):
        ...         return (2 * kept[0] * dX,)
        >>> torch.func.jacfwd(torch.func.grad(closed_form(Square)))(torch.tensor(3.0))
        tensor(2.)
    """
    plain, transformed = _eager(rule)
    traced = _traced(rule)

    def function(*inputs: Tensor | None) -> Tensor:
        first = inputs[0]
        assert first is not None
        if coarse(first):  # autocast would cast some factors of a product, not all
            with exactly(first):
                return function(*inputs)
        if torch.compiler.is_compiling():
            if torch.is_grad_enabled() and any(
                x is not None and x.requires_grad for x in inputs
            ):
                return traced.apply(*inputs)  # pyright: ignore[reportReturnType]
            return rule.forward(*inputs)[0]
        eager = transformed if transforming() else plain
        return eager.apply(*inputs)[0]  # pyright: ignore[reportReturnType, reportOptionalSubscript]

    return function


def _eager(rule: Rule) -> tuple[type[Function], type[Function]]:
    """Return the function without transforms of `torch.func`, and under them.

    Those ask for a context that is set up apart, which takes longer than some maps.
    """

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401
        kept = rule.keep(inputs, output)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        ctx.set_materialize_grads(False)
        ctx.like = output[0].shape, output[0].dtype, output[0].device

    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # noqa: ANN401
        G, *others = grads
        if G is None:
            shape, dtype, device = ctx.like
            G = torch.zeros(shape, dtype=dtype, device=device)
        with exactly(G):
            return rule.vjp(ctx.saved_tensors, ctx.needs_input_grad, G, *others)

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:  # noqa: ANN401
        with forward_mode():  # see Note [Derivatives of derivatives]
            kept = [
                None if x is None else forward_ad.unpack_dual(x).primal
                for x in ctx.saved_tensors
            ]
            return rule.jvp(kept, *tangents)

    def forward(*inputs: Tensor | None) -> tuple[Tensor, ...]:
        return rule.forward(*inputs)

    def forward_and_keep(ctx: Any, *inputs: Tensor | None) -> tuple[Tensor, ...]:  # noqa: ANN401
        outputs = rule.forward(*inputs)
        setup_context(ctx, inputs, outputs)
        return outputs

    both = {"backward": staticmethod(backward), "jvp": staticmethod(jvp)}
    apart = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
    }
    plain = {"forward": staticmethod(forward_and_keep)}
    return (
        type(rule.__name__, (Function,), {**both, **plain}),
        type(rule.__name__, (_Batched,), {**both, **apart}),
    )


def _traced(rule: Rule) -> type[Function]:
    """Return the function for the compiler, which refuses `jvp` and `vmap`.

    It differentiates once, so that nothing but the value need be an output.
    """

    def forward(ctx: Any, *inputs: Tensor | None) -> Tensor:  # noqa: ANN401
        outputs = rule.forward(*inputs)
        kept = rule.keep(inputs, outputs)
        ctx.present = [x is not None for x in kept]
        ctx.save_for_backward(*[x for x in kept if x is not None])
        ctx.others = len(outputs) - 1
        return outputs[0]

    # of a name in small letters: torch 2.6 takes G for a tensor that is kept as g
    def backward(ctx: Any, grad_output: Tensor) -> Any:  # noqa: ANN401
        saved = iter(ctx.saved_tensors)
        kept = tuple(next(saved) if there else None for there in ctx.present)
        unused = [None] * ctx.others
        with exactly(grad_output):
            return rule.vjp(kept, ctx.needs_input_grad, grad_output, *unused)

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(rule.__name__, (Function,), members)
