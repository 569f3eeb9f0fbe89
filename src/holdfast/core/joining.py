"""Several tensors of a module as one, which can be parametrized as a whole.

The whole is a parameter like any other, so that maps, scopes, checkpoints and folding
know nothing of its parts. These are properties of a class that the module gets: one
class for all modules of the same class whose tensors are joined in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ..errors import (
    InvalidTensorError,
    UnknownTensorError,
    describe,
    did_you_mean,
    path_of,
)
from . import recurrent
from .checks import check_module
from .classes import chain_of, original_class
from .joined_classes import joined_class
from .joints import Joint, joints_of
from .placement import note_successors, undone_on_failure
from .reclassing import reclass
from .registration import usable
from .ties import check_untied


def join(
    module: nn.Module, names: Sequence[str], name: str, *, dim: int = 0
) -> nn.Module:
    r"""Keep several parameters of a module as one, to parametrize them together.

    .. math::
        W = (W_1 \; W_2 \; \dots)

    The module has one parameter ``name`` in the place of the ones joined, which are
    read and assigned as before and are slices of it. Whatever is done with parameters
    is done with that one: maps, plans, optimizers, checkpoints. `plain_state_dict`
    still has the parts, and state dicts that have them are loaded.

    Args:
        module: the module that owns the parameters.
        names: those to join, in their order; plain ones, equal in all but ``dim``.
        name: what the whole is called.
        dim: the dimension along which they lie one after the other.

    Returns:
        The module. The new parameter takes the place of the old ones in an optimizer
        by `swap_parameters`.

    Raises:
        UnknownTensorError: the module has no such parameter.
        InvalidTensorError: they are parametrized, do not fit together, or ``name`` is
            taken.
        TiedTensorError: one of them is also in another place.

    Example:
        >>> import torch, holdfast
        >>> rnn = torch.nn.RNN(2, 3)
        >>> rnn = holdfast.join(rnn, ["weight_ih_l0", "weight_hh_l0"], "weight", dim=1)
        >>> rnn = holdfast.orthogonal(rnn, "weight")
        >>> W = torch.cat([rnn.weight_ih_l0, rnn.weight_hh_l0], 1)
        >>> torch.allclose(W @ W.T, torch.eye(3), atol=1e-6)
        True
    """
    check_module(module, "join", name)
    if isinstance(names, str) or not isinstance(names, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`join` takes a list of names. Got {names!r:.80}.")
    check_module(module, "join", *names)
    parts = [_part(module, each) for each in names]
    joint = _joint(module, [*names], parts, name, dim)
    first = parts[0]
    with torch.no_grad():
        whole = nn.Parameter(torch.cat([*parts], joint.dim), first.requires_grad)
    parameters = dict[str, Any]()
    for key, tensor in module._parameters.items():
        if key == names[0]:
            parameters[name] = whole
        if key not in names:
            parameters[key] = tensor
    _become(module, parameters, (*joints_of(type(module)), joint))
    for part in parts:
        note_successors(part, [whole])
    return module


def separate(module: nn.Module, name: str) -> nn.Module:
    """Make parameters of their own again of those that `join` made one.

    Args:
        module: the module.
        name: what the whole is called; it may not be parametrized any more.

    Returns:
        The module.

    Raises:
        UnknownTensorError: the module has no joined parameters of that name.
        InvalidTensorError: the whole is parametrized.

    Example:
        >>> import torch, holdfast
        >>> rnn = torch.nn.RNN(2, 3)
        >>> rnn = holdfast.join(rnn, ["bias_ih_l0", "bias_hh_l0"], "biases")
        >>> [key for key, _ in rnn.named_parameters()]
        ['weight_ih_l0', 'weight_hh_l0', 'biases']
        >>> rnn = holdfast.separate(rnn, "biases")
        >>> "bias_hh_l0" in rnn.state_dict()
        True
    """
    check_module(module, "separate", name)
    joints = {joint.name: joint for joint in joints_of(type(module))}
    if name not in joints:
        raise UnknownTensorError(
            f"`{path_of(module, name)}` is not made of joined parameters."
            f"{did_you_mean(name, joints)}"
        )
    if chain_of(module, name) is not None:
        raise InvalidTensorError(
            f"`{path_of(module, name)}` is parametrized as a whole. Remove that first: "
            f'`holdfast.remove_parametrizations(module, "{name}")`.'
        )
    whole = cast("nn.Parameter", module._parameters[name])
    parts = {
        key: nn.Parameter(part.detach().clone(), whole.requires_grad)
        for key, part in joints[name].split(whole).items()
    }
    parameters = dict[str, Any]()
    for key, tensor in module._parameters.items():
        parameters |= parts if key == name else {key: tensor}
    _become(module, parameters, tuple(j for j in joints.values() if j.name != name))
    note_successors(whole, parts.values())
    return module


def _part(module: nn.Module, name: str) -> nn.Parameter:
    """Return a plain parameter, which no other module has."""
    where = partial(path_of, module, name)
    if chain_of(module, name) is not None:
        raise InvalidTensorError(
            f"`{where()}` is parametrized. Join the parameters first, and register the "
            "map on the whole."
        )
    if any(joint.name == name for joint in joints_of(type(module))):
        raise InvalidTensorError(
            f"`{where()}` is joined itself. Separate it first, and join all at once."
        )
    if name not in module._parameters:
        raise UnknownTensorError(
            f"`{where()}`: {original_class(type(module)).__name__} does not have a "
            f"parameter with name '{name}'.{did_you_mean(name, module._parameters)}"
        )
    parameter = usable(module._parameters[name], where)
    check_untied(module, name, where)
    return cast("nn.Parameter", parameter)


def _joint(
    module: nn.Module, names: list[str], parts: list[nn.Parameter], name: str, dim: int
) -> Joint:
    """Return what the parameters make together, or say why they do not."""
    where = path_of(module, name)
    if len(names) < 2 or len({*names}) < len(names):
        raise InvalidTensorError(
            f"`{where}`: expected two or more names, each once. Got {names}."
        )
    if not name or "." in name:
        raise InvalidTensorError(
            f"`{where}`: expected a name without dots, as state dicts need. "
            f"Got {name!r:.80}."
        )
    if name in names or name == "parametrizations" or hasattr(module, name):
        raise InvalidTensorError(f"`{where}`: the module has a `{name}` already.")
    first = parts[0]
    if not -first.ndim <= dim < first.ndim:
        raise InvalidTensorError(
            f"`{where}`: dim={dim} is out of range for {describe(first)}."
        )
    dim %= first.ndim
    for part in parts[1:]:
        if _kind(part, dim) != _kind(first, dim):
            raise InvalidTensorError(
                f"`{where}`: expected parameters that are equal in all but dimension "
                f"{dim}, in dtype, device and `requires_grad` too. Got "
                f"{describe(first)} and {describe(part)}."
            )
    lengths = [part.shape[dim] for part in parts]
    return Joint(name, dim, tuple(zip(names, lengths, strict=True)))


def _kind(part: nn.Parameter, dim: int) -> tuple[object, ...]:
    shape = [n for d, n in enumerate(part.shape) if d != dim]
    return shape, part.ndim, part.dtype, part.device, part.requires_grad


def _become(
    module: nn.Module, parameters: dict[str, Any], joints: tuple[Joint, ...]
) -> None:
    """Give a module these parameters, and the class that reads them."""
    chains: Any = module._modules.get("parametrizations")
    base = original_class(type(module))
    base = base.__bases__[0] if joints_of(base) else base
    with undone_on_failure(module):
        module.__dict__["_parameters"] = parameters
        names = getattr(chains, "_modules", ())
        reclass(module, names, joined_class(base, joints) if joints else base)
        recurrent.release(module)
