"""Links of a chain inserted, replaced and removed, with a word on the value (A10)."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..errors import InvalidTensorError, UnknownTensorError, did_you_mean, path_of
from .chain import ParametrizationList
from .checks import Where, check_module
from .classes import chain_of
from .relinking import Keep, links_of, relink


def insert_link(
    module: nn.Module,
    tensor_name: str,
    index: int,
    parametrization: nn.Module,
    *,
    keep: Keep = "value",
    unsafe: bool = False,
) -> nn.Module:
    """Put a map into the chain of a parametrized tensor, before the link at a place.

    Args:
        module: the module that owns the tensor.
        tensor_name: its name.
        index: the place, as for ``list.insert``.
        parametrization: the map.
        keep: what stays. ``"value"``: the tensor, whose originals are computed through
            the new chain, and which is refused if that cannot reach it. ``"nearest"``:
            the tensor as far as the new chain reaches it. ``"originals"``: these, so
            that the tensor changes, as when a second map is registered.
        unsafe: let the map change the tensor's shape and dtype.

    Returns:
        The module. A failed call leaves it as it was.

    Raises:
        UnknownTensorError: the tensor is not parametrized.
        NotInSetError: the new chain cannot reach the value, or a map gets what is not
            in its domain.
        NoRightInverseError: a map has no right inverse, and originals are not kept.
        InvalidTensorError: the chain is torch's, or the maps do not fit.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> layer = holdfast.register_parametrization(
        ...     layer, "weight", maps.Exponential()
        ... )
        >>> S = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> layer.weight = S
        >>> layer = holdfast.insert_link(layer, "weight", 0, maps.Symmetric())
        >>> len(layer.parametrizations.weight), torch.allclose(layer.weight, S)
        (2, True)
    """
    check_module(module, "insert_link", tensor_name)
    where = partial(path_of, module, tensor_name)
    chain = chain_to_operate_on(module, tensor_name, where)
    links = links_of(chain)
    if not -len(links) <= index <= len(links):
        raise IndexError(
            f"`{where()}` has {len(links)} maps, so a place for another one is from "
            f"{-len(links)} to {len(links)}. Got {index}."
        )
    links.insert(index, parametrization)
    return relink(module, chain, links, keep, where, unsafe=unsafe)


def replace_link(
    module: nn.Module,
    tensor_name: str,
    link: int | nn.Module,
    parametrization: nn.Module,
    *,
    keep: Keep = "value",
    unsafe: bool = False,
) -> nn.Module:
    """Put a map in the place of another one in the chain of a parametrized tensor.

    Args:
        module: the module that owns the tensor.
        tensor_name: its name.
        link: the map to replace, or its place.
        parametrization: the map that takes its place.
        keep: ``"value"``, ``"nearest"`` or ``"originals"``, see `insert_link`, which
            also tells what is raised.
        unsafe: let the map change the tensor's shape and dtype.

    Returns:
        The module. A failed call leaves it as it was.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> for map_ in (maps.Skew(), maps.MatrixExp()):
        ...     _ = holdfast.register_parametrization(layer, "weight", map_)
        >>> Q = layer.weight.detach()
        >>> layer = holdfast.replace_link(layer, "weight", 1, maps.Cayley())
        >>> torch.allclose(layer.weight, Q, atol=1e-6)
        True
    """
    check_module(module, "replace_link", tensor_name)
    where = partial(path_of, module, tensor_name)
    chain = chain_to_operate_on(module, tensor_name, where)
    links = links_of(chain)
    links[place_of(chain, link, where)] = parametrization
    return relink(module, chain, links, keep, where, unsafe=unsafe)


def remove_link(
    module: nn.Module,
    tensor_name: str,
    link: int | nn.Module,
    *,
    keep: Keep = "value",
) -> nn.Module:
    """Take one map out of the chain of a parametrized tensor.

    Args:
        module: the module that owns the tensor.
        tensor_name: its name.
        link: the map, or its place. The only one is removed by
            `remove_parametrizations`.
        keep: ``"value"``, ``"nearest"`` or ``"originals"``, see `insert_link`, which
            also tells what is raised.

    Returns:
        The module. A failed call leaves it as it was.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> for map_ in (maps.Symmetric(), maps.MatrixExp()):
        ...     _ = holdfast.register_parametrization(layer, "weight", map_)
        >>> W = layer.weight.detach()
        >>> layer = holdfast.remove_link(layer, "weight", 1)
        >>> torch.allclose(layer.weight, W, atol=1e-6)
        True
    """
    check_module(module, "remove_link", tensor_name)
    where = partial(path_of, module, tensor_name)
    chain = chain_to_operate_on(module, tensor_name, where)
    links = links_of(chain)
    del links[place_of(chain, link, where)]
    if not links:
        raise InvalidTensorError(
            f"`{where()}` has one map, and a chain without any is none. Call "
            "`remove_parametrizations`."
        )
    return relink(module, chain, links, keep, where)


def reparametrize(
    module: nn.Module,
    tensor_name: str,
    *parametrizations: nn.Module,
    keep: Keep = "value",
    unsafe: bool = False,
) -> nn.Module:
    """Write the same tensor in the coordinates of other maps.

    This goes from one parametrization of a set to another: between the exponential,
    the Cayley transform and reflections for orthogonal matrices, or between weight
    norm and none.

    Args:
        module: the module that owns the tensor.
        tensor_name: its name.
        *parametrizations: the maps of the new chain, in order.
        keep: ``"value"``, ``"nearest"`` or ``"originals"``, see `insert_link`, which
            also tells what is raised.
        unsafe: let the maps change the tensor's shape and dtype.

    Returns:
        The module. A failed call leaves it as it was. A single original stays the same
        parameter where the new chain has one too; otherwise, or for the momenta, see
        `swap_parameters`.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = holdfast.orthogonal(torch.nn.Linear(3, 3), orthogonal_map="cayley")
        >>> Q, map_ = layer.weight.detach(), maps.Orthogonal("householder")
        >>> layer = holdfast.reparametrize(layer, "weight", map_)
        >>> torch.allclose(layer.weight, Q, atol=1e-6)
        True
    """
    check_module(module, "reparametrize", tensor_name)
    where = partial(path_of, module, tensor_name)
    chain = chain_to_operate_on(module, tensor_name, where)
    if not parametrizations:
        raise InvalidTensorError(
            f"`{where()}`: a chain has at least one map. To have none, call "
            "`remove_parametrizations`."
        )
    return relink(module, chain, [*parametrizations], keep, where, unsafe=unsafe)


def chain_to_operate_on(
    module: nn.Module, name: str, where: Where
) -> ParametrizationList:
    """Return the chain that is to be operated on."""
    chain = chain_of(module, name)
    if isinstance(chain, ParametrizationList):
        return chain
    if chain is not None:
        raise InvalidTensorError(
            f"`{where()}` was parametrized by torch's own function, whose chains have "
            "no operations. Register its maps with holdfast."
        )
    known = getattr(module._modules.get("parametrizations"), "_modules", {})
    raise UnknownTensorError(
        f"`{where()}` is not parametrized.{did_you_mean(name, known)}"
    )


def place_of(chain: ParametrizationList, link: int | nn.Module, where: Where) -> int:
    """Return the place of a link that is given by it, or by itself."""
    links = links_of(chain)
    places = [i for i, each in enumerate(links) if each is link]
    if isinstance(link, int) and -len(links) <= link < len(links):
        places = [link % len(links)]
    if not places:
        names = ", ".join(f"{i}: {type(each).__name__}" for i, each in enumerate(links))
        what = link if isinstance(link, int) else f"another {type(link).__name__}"
        raise IndexError(
            f"`{where()}` has these maps: {names}. Got {what}. Pass the place of one, "
            "or the very instance."
        )
    return places[0]
