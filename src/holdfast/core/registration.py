"""Registration: all that can fail happens before the module is touched."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import (
    InvalidTensorError,
    SharedMapError,
    UnknownTensorError,
    describe,
    did_you_mean,
    path_of,
)
from .calling import call
from .chain import ParametrizationList
from .checks import (
    Where,
    check_dense,
    check_image,
    check_module,
    check_takes_one,
    explain,
)
from .classes import chain_of, is_parametrized, original_class
from .deferral import defer, is_uninitialized
from .equality import is_equal
from .fitting import (
    Shared,
    check_arguments,
    check_domain,
    check_inverse,
    check_links,
    check_member,
    check_notes,
)
from .legacy import hint_of_legacy
from .parametrization import Outside, Parametrization
from .placement import Prepared, attach, undone_on_failure
from .refinement import refine_on_forward
from .sharing import borrows, claim, holder_of, notes_in_use
from .ties import check_untied
from .torch_state import no_gradients
from .transaction import Snapshot, like


def register_parametrization(
    module: nn.Module,
    tensor_name: str,
    parametrization: nn.Module,
    *,
    unsafe: bool = False,
    outside: Outside | None = None,
    once: bool = False,
) -> nn.Module:
    r"""Compute a tensor of a module through a map from now on.

    ``module.weight`` becomes :math:`\varphi(\text{original})`, computed on reading;
    the original starts at :math:`\psi(W)` for the present value :math:`W`. On a tensor
    that is parametrized already, the map is added after those that are there. A tensor
    of a lazy module that has no shape yet is parametrized in the first forward, when it
    gets one.

    Args:
        module: the module that owns the tensor.
        tensor_name: name of a parameter or buffer.
        parametrization: the map: any module with a ``forward``. A ``right_inverse``
            lets the tensor be assigned to; one that returns a sequence gives the first
            map several originals. The map goes to eval mode if the module is in it.
        unsafe: let the map change the tensor's shape and dtype.
        outside: what becomes of values that a declared codomain does not contain:
            ``"error"``, ``"warn"`` or ``"project"``. By default registration moves
            them, and assignments follow the map's own ``outside``.
        once: do nothing if this map, or one of the same class with equal arguments, is
            on the tensor already.

    Returns:
        The module.

    Raises:
        UnknownTensorError: the module has no such tensor.
        InvalidTensorError: the tensor, or what the map makes of it, cannot be used.
        NotInSetError: the map's domain does not fit, or ``outside="error"`` and the
            value is not in the codomain.
        SharedMapError: the map has state and serves another tensor.
        TiedTensorError: the tensor is also in another place.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Skew())
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Cayley())
        >>> Q = layer.weight
        >>> torch.allclose(Q.T @ Q, torch.eye(3), atol=1e-6)
        True

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """
    check_module(module, "register_parametrization", tensor_name)
    where = partial(path_of, module, tensor_name)
    check_arguments(parametrization, outside, where)
    if is_uninitialized(module, tensor_name):
        choices = {"unsafe": unsafe, "outside": outside, "once": once}
        step = partial(_register_where_it_is, tensor_name, parametrization, choices)
        return defer(module, tensor_name, step)
    if once and _is_there(module, tensor_name, parametrization):
        return module
    notes = notes_in_use(parametrization)
    if notes and (held := holder_of(parametrization)):
        raise SharedMapError(
            f"`{type(parametrization).__name__}` has state and already parametrizes "
            f"`{path_of(held[1])}`, so `{where()}` cannot share it. Pass a copy: "
            "`copy.deepcopy(parametrization)`."
        )
    with Snapshot([parametrization]):
        try:
            if not module.training:
                parametrization.eval()
            if is_parametrized(module, tensor_name):
                _append(
                    module, tensor_name, parametrization, notes, where, unsafe=unsafe
                )
            else:
                prepared = prepare(
                    module,
                    tensor_name,
                    [parametrization],
                    where,
                    unsafe=unsafe,
                    outside=outside,
                )
                check_notes(notes, where)
                attach([prepared])
        except Exception as error:
            name_tensor(error, where)
            raise
    return module


def prepare(
    module: nn.Module,
    name: str,
    maps: Sequence[nn.Module],
    where: Where,
    *,
    unsafe: bool = False,
    outside: Outside | None = None,
) -> Prepared:
    """Make the chain of a plain tensor; the module is not touched."""
    original = _plain_tensor(module, name, where)
    known = False
    if borrows(module, name):
        original = like(original, original)
    else:
        known = check_untied(module, name, where)
    check_domain(maps[0], original, where)
    for later in maps[1:]:
        check_takes_one(later, where)
    chain = ParametrizationList(maps, original, unsafe, outside=outside, where=where)
    check_links(chain, where)
    leaves = known and not chain.is_tensor
    return Prepared(module, name, chain, original if leaves else None)


def name_tensor(error: Exception, where: Where) -> None:
    """Name the tensor in an error that a map raised, which does not know it."""
    if f"`{where()}`" not in str(error) + "".join(getattr(error, "__notes__", [])):
        error.add_note(f"while parametrizing `{where()}`")


def _register_where_it_is(
    name: str, map_: nn.Module, choices: dict[str, Any], module: nn.Module
) -> None:
    """Register a map that was not part of the module when that was moved."""
    chain = chain_of(module, name)
    held = module if chain is None else chain
    map_.to(next(itertools.chain(held.parameters(), held.buffers())).device)
    register_parametrization(module, name, map_, **choices)


def _is_there(module: nn.Module, name: str, map_: nn.Module) -> bool:
    """Tell whether a tensor has this map, or one of the same arguments."""
    chain = chain_of(module, name)
    links = () if chain is None else chain._modules.values()
    return any(link is map_ or is_equal(link, map_) for link in links)


def _append(
    module: nn.Module,
    name: str,
    map_: nn.Module,
    notes: Shared,
    where: Where,
    *,
    unsafe: bool,
) -> None:
    chain: Any = chain_of(module, name)
    with no_gradients():
        value = chain()
        try:
            check_takes_one(map_, where)
            if isinstance(map_, Parametrization):
                check_member(map_, value, where)
                map_.bind(value)
            image = call(map_, (value,))
            check_image(image, value, where, unsafe=unsafe)
            if not unsafe:
                check_inverse(map_, image, where)
        except Exception as error:
            explain(error, map_, value, where)
            raise
        check_notes(notes, where)
    with undone_on_failure(module, chain):
        chain.append(map_)
        chain.unsafe |= unsafe
        if isinstance(chain, ParametrizationList):
            claim(chain)
            for original in () if chain._shared else chain.originals():
                original.grad = None  # it was the slope in other coordinates
            chain.forget()
        refine_on_forward(module)


def _plain_tensor(module: nn.Module, name: str, where: Where) -> Tensor:
    """Return the parameter or buffer to parametrize."""
    chains = module._modules.get("parametrizations")
    if name == "parametrizations" or not _may_hold_chains(module):
        raise InvalidTensorError(
            f"`{where()}`: the chains of a module are its `parametrizations`, and this "
            f"{type(module).__name__} has an attribute of that name already. Rename it."
        )
    for registry in (module._parameters, module._buffers):
        if name in registry:
            return usable(registry[name], where)
    known = {*module._parameters, *module._buffers, *getattr(chains, "_modules", ())}
    path, _, leaf = name.rpartition(".")
    hint = did_you_mean(name, known)
    if path:
        hint = f" Pass the submodule `{path}` itself, and '{leaf}'."
    hint = hint_of_legacy(module, name) or hint
    raise UnknownTensorError(
        f"`{where()}`: {original_class(type(module)).__name__} does not have a "
        f"parameter, a buffer, or a parametrized element with name '{name}'.{hint}"
    )


def _may_hold_chains(module: nn.Module) -> bool:
    """Tell whether ``parametrizations`` is a free name, or holds what it should."""
    found = module._modules.get("parametrizations")
    if found is not None:
        lists = getattr(found, "_modules", {}).values()
        return isinstance(found, nn.ModuleDict) and all(
            isinstance(chain, nn.ModuleList) for chain in lists
        )
    name = "parametrizations"
    return not (
        name in module.__dict__ or name in module._parameters or name in module._buffers
    )


def usable(tensor: Tensor | None, where: Where) -> Tensor:
    """Refuse what cannot be an original."""
    if tensor is None or nn.parameter.is_lazy(tensor):
        raise InvalidTensorError(
            f"`{where()}` is {'None' if tensor is None else 'not initialized yet'}, "
            "so there is no tensor to parametrize. Give the module one first"
            f"{'' if tensor is None else ': run a batch through it'}."
        )
    check_dense(tensor, where)
    if not tensor.is_contiguous() and any(
        n > 1 and step == 0
        for n, step in zip(tensor.shape, tensor.stride(), strict=True)
    ):
        raise InvalidTensorError(
            f"`{where()}` is {describe(tensor)} made by `expand`: several entries "
            "share one place in memory, so they cannot be set. Pass it on as a "
            "`.clone()`."
        )
    return tensor
