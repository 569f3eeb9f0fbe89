"""Tensors of equal chains in stacks, and what computes with them.

Note [Backward passes of a batch]
    Two losses may use two weights of one batch, and be differentiated one after the
    other. The first backward pass would free the graph that the second one needs. So
    `_Kept` keeps the graph of the maps to itself while any value is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .chain import ParametrizationList
from .entry import PLAIN, Registry, tensors_of
from .kinds import Kind
from .lost_writes import BATCH_NAME
from .torch_state import gradients

# What an `Entry` has of the tensors of a chain
Row = tuple[tuple[Registry, str, Tensor, int, bool], ...]
Rows = list[Row]


def rows_of(kinds: Sequence[Kind]) -> Rows | None:
    """Return the tensors of each chain as an `Entry` has them, if all have versions."""
    columns: list[list[Any]] = []
    for places in zip(*(kind.places for kind in kinds), strict=True):
        tensors: list[Any] = [registry[name] for registry, name in places]
        if not _PLAIN.issuperset(map(type, tensors)):
            return None
        try:
            columns.append(
                [
                    (registry, name, tensor, tensor._version, tensor.requires_grad)
                    for (registry, name), tensor in zip(places, tensors, strict=True)
                ]
            )
        except RuntimeError:  # tensors of the inference mode
            return None
    return [*zip(*columns, strict=True)] or None


_PLAIN = frozenset(PLAIN)


def stacked(rows: Rows) -> list[Tensor] | None:
    """Stack the tensors in each place, if they are as alike as they were."""
    stacks: list[Tensor] = []
    for column in zip(*rows, strict=True):
        tensors = [place[2] for place in column]
        # written through `.data`, or frozen apart
        if len({t.dtype for t in tensors}) > 1 or len({p[4] for p in column}) > 1:
            return None
        try:
            with torch.no_grad():
                stacks.append(torch.stack(tensors))
        except RuntimeError:  # the same, in shape or device
            return None
    return stacks


def batched(kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of the tensors of one chain take stacks of them."""
    return function if kind.foreach == "stack" else torch.func.vmap(function)


def twin_of(chain: ParametrizationList, tensors: tuple[Tensor, ...]) -> Any:
    """Return a chain like another one, with these tensors for its own."""
    twin: Any = _hollow(chain)
    for (registry, name, _), tensor in zip(
        list(tensors_of(twin)), tensors, strict=True
    ):
        cast("dict[str, Tensor]", registry)[name] = tensor
    return twin


def _hollow(module: nn.Module) -> nn.Module:
    """Copy a tree of modules whose tensors can be replaced."""
    twin = module.__new__(type(module))
    state = module.__dict__
    twin.__dict__.update(
        state,
        _parameters=state["_parameters"].copy(),
        _buffers=state["_buffers"].copy(),
        _modules={
            name: None if child is None else _hollow(child)
            for name, child in state["_modules"].items()
        },
    )
    return twin


def keeping(
    compute: Callable[..., Tensor], stacks: list[Tensor], rows: Rows
) -> tuple[Tensor, ...]:
    """Compute values that any number of backward passes can go through."""
    wanted = [place[4] for place in rows[0]]
    leaves = [
        stack.requires_grad_(want) for stack, want in zip(stacks, wanted, strict=True)
    ]
    value = compute(*leaves)
    if not value.requires_grad:
        return value.unbind()
    places = [place for row in rows for place in row if place[4]]
    graph = compute, leaves, value, wanted, places
    return _apply_kept(graph, *[place[2] for place in places])


class _Kept(torch.autograd.Function):
    """The values of a graph that stays. See Note [Backward passes of a batch].

    A value that has no gradient gives none to what it was computed from.
    """

    @staticmethod
    def forward(ctx: Any, graph: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.graph = graph
        ctx.set_materialize_grads(False)
        return graph[2].detach().unbind()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        compute, leaves, value, wanted, places = ctx.graph
        again = torch.is_grad_enabled()  # for derivatives of derivatives
        if again:
            columns = iter(_columns(places, sum(wanted)))
            pairs = zip(leaves, wanted, strict=True)
            leaves = [next(columns) if want else leaf for leaf, want in pairs]
            value = compute(*leaves)
        absent = any(grad is None for grad in grads)
        zero = torch.zeros_like(value[0]) if absent else None
        G: Any = [zero if grad is None else grad for grad in grads] if absent else grads
        found = gradients(
            value,
            [leaf for leaf, want in zip(leaves, wanted, strict=True) if want],
            torch.stack(G),
            create_graph=again,
        )
        if not absent and len(found) == 1 and found[0] is not None:
            return None, *found[0].unbind()  # nearly always
        nothing = [None] * len(grads)
        rows = zip(*(nothing if g is None else g.unbind() for g in found), strict=True)
        return None, *(
            None if grad is None else g
            for grad, row in zip(grads, rows, strict=True)
            for g in row
        )


# Who writes to a value reads this name
cast("Any", _Kept)._backward_cls.__name__ = BATCH_NAME

# without a look at each of the tensors, for wrappers of transforms that are over
_apply_kept: Any = super(torch.autograd.Function, _Kept).apply  # pyright: ignore[reportAttributeAccessIssue]


def _columns(places: Sequence[Any], count: int) -> list[Tensor]:
    """Stack tensors that lie row by row, if they are what they were."""
    if any(tensor._version != version for _, _, tensor, version, _ in places):
        raise RuntimeError(
            "A tensor that a weight was computed from was modified in place after the "
            "weight was read. Take derivatives of derivatives before that."
        )
    tensors = [place[2] for place in places]
    return [torch.stack(tensors[place::count]) for place in range(count)]
