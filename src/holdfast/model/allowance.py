"""A bound on what a file may make: no operation may give an absurdly large tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError

# A map makes a few tensors as large as the weight, and the norm of a convolution takes
# one for each point of the input.
_LEAST, _TIMES = 2**28, 2**10
_PARTS = 2**3  # what is made without the help of an integer, in weights


def allowance(
    maps: Sequence[Parametrization], tensors: Sequence[Tensor]
) -> AbstractContextManager[object]:
    """Return a context that refuses results beyond 256 MiB and 1024 of these tensors.

    Which of a map's arguments are sizes, only the map knows. So every operation is done
    on the meta device first, which tells the size of its result. Where the integers of
    the maps are too small for a large one, nothing is watched.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> with allowance([maps.LoRA(10**9)], [torch.ones(2)]):
        ...     torch.ones(2, 10**9)
        Traceback (most recent call last):
        ...
        holdfast.errors.InvalidTensorError: Expected no tensor of more than ...
    """
    size, limit = sum(tensor.nbytes for tensor in tensors), limit_for(tensors)
    factor = math.prod(n for map_ in maps for n in _integers(map_.spec()))
    ndim = max((tensor.ndim for tensor in tensors), default=1)
    # an integer is a size of a result in as many dimensions as there are
    small = _PARTS * size * factor ** max(1, ndim) <= limit
    return nullcontext() if small else _Allowance(limit)


def limit_for(tensors: Sequence[Tensor]) -> int:
    """Return how many bytes a tensor may have on the way from these to a weight."""
    return max(_LEAST, _TIMES * sum(tensor.nbytes for tensor in tensors))


def _integers(data: object) -> Iterator[int]:
    """Yield the moduli of the integers of a spec, other than 0."""
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _integers(value)
    elif isinstance(data, int):
        yield max(1, abs(data))


class _Allowance(TorchDispatchMode):
    """Asks for the size of each result before there is one."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # torch's signature
        """Run an operation, if its results are not too large."""
        given = dict(kwargs or {})
        size = _bytes_of_results(func, args, given)
        if size > self.limit:
            raise InvalidTensorError(
                f"Expected no tensor of more than {self.limit} bytes on the way to a "
                f"weight of a file. The arguments of a map ask for {size}. If the file "
                "is to be trusted, parametrize the model by the same maps, and load "
                "the file into that."
            )
        return func(*args, **given)


def _bytes_of_results(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:  # noqa: ANN401
    """Return the bytes of what is new in the results, as far as it can be known."""
    schema = func._schema
    if any(each.alias_info is not None for each in schema.returns):
        return 0  # a view, or one of the arguments
    there = {"device": torch.device("meta"), "generator": None}
    names = {argument.name for argument in schema.arguments}
    fixed = {key: value for key, value in there.items() if key in names}
    inputs, keywords = tree_map_only(Tensor, _without_values, (args, kwargs))
    try:
        results = func(*inputs, **{**keywords, **fixed})
    except (RuntimeError, TypeError):  # it depends on values, and has few or none
        return 0
    tensors = tree_leaves(results)
    return sum(x.nbytes for x in tensors if isinstance(x, Tensor))


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
    )
