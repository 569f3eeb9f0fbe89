"""Removal: the constrained value stays in a plain tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import UnknownTensorError, did_you_mean, path_of
from .chain import ParametrizationList
from .checks import check_module
from .classes import chain_of, is_parametrized
from .moving import movers
from .placement import detach, note_successors, undone_on_failure
from .sharing import disown, parts_of
from .transaction import write


def remove_parametrizations(
    module: nn.Module,
    tensor_name: str,
    leave_parametrized: bool = True,  # noqa: FBT001, FBT002  # torch's signature
) -> nn.Module:
    """Make a parametrized tensor a plain one again.

    Args:
        module: the module that owns the tensor.
        tensor_name: name of the tensor.
        leave_parametrized: keep the present value; else the original's, where there is
            one original.

    Returns:
        The module. With one original the parameter is that same object, and
        ``module.parameters()`` is in the order that it was in before registration.

    Raises:
        UnknownTensorError: the tensor is not parametrized.
        ValueError: ``leave_parametrized=False`` and there are several originals, or
            one of another shape.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 3))
        >>> layer = holdfast.remove_parametrizations(layer, "weight")
        >>> [name for name, _ in layer.named_parameters()]
        ['weight', 'bias']
    """
    check_module(module, "remove_parametrizations", tensor_name)
    where = partial(path_of, module, tensor_name)
    if not is_parametrized(module, tensor_name):
        known = getattr(module._modules.get("parametrizations"), "_modules", {})
        raise UnknownTensorError(
            f"`{where()}`: Module {type(module).__name__} does not have a "
            f"parametrization on {tensor_name}.{did_you_mean(tensor_name, known)}"
        )
    chain = cast("Any", chain_of(module, tensor_name))
    if not leave_parametrized and not chain.is_tensor:
        raise ValueError(
            f"`{where()}`: Cannot leave unparametrized (`leave_parametrized=False`) a "
            "tensor that is parametrized in terms of a sequence of tensors."
        )
    if not leave_parametrized and isinstance(chain, ParametrizationList):
        _check_shape(chain, where)
    with torch.no_grad():
        value = chain() if leave_parametrized else chain.original
    tensor, originals = _plain_again(chain, value)
    with undone_on_failure(module):
        detach(module, tensor_name, tensor)
        if any(tensor is original for original in originals):
            write(tensor, value)
    if isinstance(chain, ParametrizationList):
        disown(chain)
        moving = [] if chain._shared else movers(chain)
        for part in [part for map_ in moving for part in parts_of(map_)]:
            part.__dict__.pop("advanced_by_host", None)
    for original in () if getattr(chain, "_shared", False) else originals:
        note_successors(original, [tensor])
    return module


def _check_shape(chain: ParametrizationList, where: Callable[[], str]) -> None:
    """Refuse to leave an original that does not have the tensor's shape."""
    shape, expected = tuple(chain.originals()[0].shape), tuple(chain.shape)
    if shape != expected and not chain.unsafe:
        raise ValueError(
            f"`{where()}`: Cannot leave unparametrized (`leave_parametrized=False`) a "
            f"tensor of shape {expected}, whose original has shape {shape}."
        )


def _plain_again(chain: Any, value: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return a plain tensor with the value, or the original that is to have it."""
    originals = [*chain._parameters.values(), *chain._buffers.values()]
    if chain.is_tensor and not getattr(chain, "_shared", False):
        return originals[0], originals
    value = value.detach().clone(memory_format=torch.contiguous_format)
    if not chain._parameters:
        return value, originals
    grad = any(original.requires_grad for original in originals)
    return nn.Parameter(value, requires_grad=grad), originals
