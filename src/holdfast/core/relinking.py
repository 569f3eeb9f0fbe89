"""Giving a chain other maps, as a transaction: what every operation on a chain does."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ..errors import InvalidTensorError, NotInSetError, SharedMapError, path_of
from .adoption import distance
from .calling import call
from .chain import ParametrizationList
from .checks import (
    Originals,
    Where,
    as_tuple,
    check_image,
    check_registered,
    check_takes_one,
)
from .fitting import check_arguments, check_domain, check_member, has_state
from .inversion import invert
from .parametrization import Parametrization
from .placement import note_successors, undone_on_failure
from .refinement import refine_on_forward
from .registration import name_tensor
from .sharing import claim, holder_of, parts_of
from .sources import undisturbed
from .transaction import Snapshot, write

#: What a change of maps leaves as it is, or nearly.
Keep = Literal["value", "nearest", "originals"]


def links_of(chain: ParametrizationList) -> list[nn.Module]:
    """Return the maps of a chain, in order."""
    return [*chain._modules.values()]  # pyright: ignore[reportReturnType]


def relink(
    module: nn.Module,
    chain: ParametrizationList,
    links: list[nn.Module],
    keep: Keep,
    where: Where,
    *,
    unsafe: bool = False,
) -> nn.Module:
    """Give a chain other links; all or nothing."""
    old = links_of(chain)
    _check(chain, old, links, keep, where)
    try:
        with (
            undisturbed(),
            Snapshot([*old, *_missing_from(old, links)]),
            undone_on_failure(module, chain),
        ):
            stages = _stages(old, chain.originals())
            value = stages[-1][0]
            _bind(module, old, links, stages)
            owned = chain._shared and keep != "originals"
            if owned:  # the maps of a shallow copy's origin are not ours to move
                links = [copy.deepcopy(m) if _is_among(m, old) else m for m in links]
                chain.__dict__["_shared"] = False
            _enter(chain, links, unsafe=unsafe)
            new = None if keep == "originals" else _solve(chain, value, where)
            _admit(chain, old, new, value, keep, where)
            if not chain._shared:
                _release(_missing_from(links, old))
            refine_on_forward(module)
            chain.note_special()
            _settle(chain, new, owned=owned)
            chain.forget()
    except Exception as error:
        name_tensor(error, where)
        raise
    return module


def _is_among(link: nn.Module, links: list[nn.Module]) -> bool:
    return any(each is link for each in links)


def _missing_from(links: list[nn.Module], others: list[nn.Module]) -> list[nn.Module]:
    """Return those of the others that are not among the links."""
    return [each for each in others if not _is_among(each, links)]


def _check(
    chain: ParametrizationList,
    old: list[nn.Module],
    links: list[nn.Module],
    keep: str,
    where: Where,
) -> None:
    """Refuse what can be seen to be wrong before anything is tried."""
    if keep not in get_args(Keep):
        names = ", ".join(f'"{name}"' for name in get_args(Keep))
        raise InvalidTensorError(
            f"`{where()}`: keep has to be one of {names}. Got {keep!r}."
        )
    if chain._disabled:
        raise InvalidTensorError(
            f"`{where()}` has a disabled link. Leave the scope of `holdfast.disabled` "
            "first."
        )
    for i, link in enumerate(links):
        check_arguments(link, None, where)
        if i:
            check_takes_one(link, where)
        held = holder_of(link)
        part, home = held or (link, chain)
        others = [below for each in links[:i] for below in parts_of(each)]
        elsewhere = home is not chain and not _is_among(link, old)
        if has_state(link) and (elsewhere or _is_among(part, others)):
            raise SharedMapError(
                f"`{type(link).__name__}` has state and already parametrizes "
                f"`{path_of(home)}`, so it cannot have another place in "
                f"`{where()}`. Pass a copy: `copy.deepcopy(parametrization)`."
            )
    if not chain.is_tensor and links[0] is not old[0] and _is_among(old[0], links):
        raise InvalidTensorError(
            f"`{where()}`: `{type(old[0]).__name__}` takes {chain.ntensors} tensors, "
            "and another map gives one, so it has to be the first."
        )


def _stages(
    links: list[nn.Module], originals: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """Return what each link takes, and last what comes out."""
    stages = [originals]
    for link in links:
        stages.append((call(link, stages[-1]),))
    return stages


def _bind(
    module: nn.Module,
    old: list[nn.Module],
    links: list[nn.Module],
    stages: list[tuple[Any, ...]],
) -> None:
    """Make the state of new links, for what the link after each of them takes."""
    for link, after in zip(links, [*links[1:], None], strict=True):
        if _is_among(link, old):
            continue
        if not module.training:
            link.eval()
        taken = [s for each, s in zip(old, stages, strict=False) if each is after]
        single = taken[0][0] if taken and len(taken[0]) == 1 else stages[-1][0]
        if isinstance(link, Parametrization):
            link.bind(single.detach())


def _enter(chain: ParametrizationList, links: list[nn.Module], *, unsafe: bool) -> None:
    """Put the links into the chain."""
    chain.__dict__["_modules"] = {str(i): link for i, link in enumerate(links)}
    chain.__dict__.update(unsafe=chain.unsafe or unsafe, _refined=None)
    claim(chain)
    chain.forget()


def _solve(chain: ParametrizationList, value: Tensor, where: Where) -> Originals:
    """Return originals for the value, or for one that the chain reaches."""
    outside = chain.outside
    chain.__dict__["outside"] = "project"
    new = invert(chain, value, where, registering=False)
    chain.__dict__["outside"] = outside
    return check_registered(value, new, where)


def _admit(
    chain: ParametrizationList,
    old: list[nn.Module],
    new: Originals | None,
    value: Tensor,
    keep: Keep,
    where: Where,
) -> None:
    """Refuse links that do not fit together, or move a value that was to stay."""
    links = links_of(chain)
    stages = _stages(links, chain.originals() if new is None else as_tuple(new))
    if links[0] is not old[0]:
        check_domain(links[0], value, where)
    for link, stage in zip(links[1:], stages[1:], strict=False):
        if isinstance(link, Parametrization):
            check_member(link, stage[0], where)
    check_image(stages[-1][0], value, where, unsafe=chain.unsafe)
    chain.__dict__["_moved"] = distance(stages[-1][0], value)
    if keep == "value" and chain.moved:
        raise NotInSetError(
            f"`{where()}` would move by {chain.moved:.1e} of its norm: these maps do "
            f'not reach it. Pass `keep="nearest"` to let it move there, or '
            f'`keep="originals"`.'
        )


def _release(links: list[nn.Module]) -> None:
    """Let maps that left a chain advance their state themselves, if they have any."""
    for part in [part for link in links for part in parts_of(link)]:
        part.__dict__.pop("advanced_by_host", None)


def _settle(chain: ParametrizationList, new: Originals | None, *, owned: bool) -> None:
    """Write the originals, which nothing can prevent by now."""
    old = chain.originals()
    if new is None:
        for original in () if chain._shared else old:
            original.grad = None  # it was the slope in other coordinates
    elif isinstance(new, Tensor) and chain.is_tensor and not owned:
        write(old[0], new)
    else:
        chain.replace_originals(new)
        for original in () if owned else old:
            note_successors(original, chain.originals())
