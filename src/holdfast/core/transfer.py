"""Transfer: the same parametrization, with the same values, on another module."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import Tensor, nn

from ..errors import (
    InvalidTensorError,
    UnknownTensorError,
    describe,
    did_you_mean,
    path_of,
)
from .chain import ParametrizationList
from .checks import check_module
from .classes import chain_of, is_parametrized
from .placement import Prepared, attach, undone_on_failure
from .transaction import write


def transfer_parametrizations_and_params(
    from_module: nn.Module, to_module: nn.Module, tensor_name: str | None = None
) -> nn.Module:
    """Give a module copies of another module's parametrizations, values included.

    The source stays as it is, and the two share nothing afterwards.

    Args:
        from_module: where to copy from; nothing happens if it is not parametrized.
        to_module: where to copy to. A tensor that it does not have is made.
        tensor_name: copy this one only.

    Returns:
        ``to_module``.

    Raises:
        UnknownTensorError: the source has no such parametrized tensor.
        InvalidTensorError: the target's tensor has another shape, dtype or device, or
            is parametrized already.

    Example:
        >>> import torch, holdfast
        >>> source = holdfast.orthogonal(torch.nn.Linear(3, 3))
        >>> target = torch.nn.Linear(3, 3)
        >>> target = holdfast.transfer_parametrizations_and_params(source, target)
        >>> torch.equal(source.weight, target.weight)
        True
    """
    asked = () if tensor_name is None else (tensor_name,)
    for module in (from_module, to_module):
        check_module(module, "transfer_parametrizations_and_params", *asked)
    if not is_parametrized(from_module):
        return to_module
    known: Any = from_module._modules["parametrizations"]
    names = [*known._modules] if tensor_name is None else [tensor_name]
    copies: dict[str, ParametrizationList] = {}
    for name in names:
        if not is_parametrized(from_module, name):
            raise UnknownTensorError(
                f"`{path_of(from_module, name)}` is not parametrized."
                f"{did_you_mean(name, known._modules)}"
            )
        copies[name] = _fitting_copy(from_module, to_module, name)
    with undone_on_failure(to_module):
        values = [_place(to_module, name, chain) for name, chain in copies.items()]
        for target, value in filter(None, values):
            write(target, value)
    return to_module


def _fitting_copy(
    from_module: nn.Module, to_module: nn.Module, name: str
) -> ParametrizationList:
    """Return a copy of the source's chain that fits the target's tensor."""
    chain = cast("nn.ModuleList", chain_of(from_module, name))
    target = _plain(to_module, name)
    if is_parametrized(to_module, name):
        raise InvalidTensorError(
            f"`{path_of(to_module, name)}` is parametrized already. Call "
            "`remove_parametrizations` on it first."
        )
    value = getattr(from_module, name)
    if target is not None and (
        target.shape != value.shape
        or target.dtype != value.dtype
        or target.device != value.device
    ):
        raise InvalidTensorError(
            f"`{path_of(to_module, name)}` is {describe(target)}, and the source's "
            f"value is {describe(value)}. Transfer needs equal ones."
        )
    twin = copy.deepcopy(chain)
    if isinstance(twin, ParametrizationList):
        return twin
    return ParametrizationList.of_torchs(twin, value.shape)


def _plain(module: nn.Module, name: str) -> Tensor | None:
    tensor = module._parameters.get(name)
    return module._buffers.get(name) if tensor is None else tensor


def _place(
    module: nn.Module, name: str, chain: ParametrizationList
) -> tuple[Tensor, Tensor] | None:
    """Attach a chain; return a parameter that stays, and the value it is to have."""
    target = _plain(module, name)
    original = chain._parameters.get("original")
    if target is None:
        empty = nn.Parameter(chain().detach())
        module.__dict__["_parameters"] = {**module._parameters, name: empty}
    elif isinstance(target, nn.Parameter) and original is not None:
        # the target's parameter stays the object that its optimizer knows
        chain._parameters["original"] = target
        attach([Prepared(module, name, chain)])
        return target, original
    attach([Prepared(module, name, chain, target)])
    return None
