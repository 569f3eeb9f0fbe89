"""Whether maps fit a tensor and one another: what registration asks of them."""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from ..errors import InvalidTensorError, NotInSetError, SharedMapError
from ..linalg.tolerances import tolerance
from ..sets.linear import Real
from .calling import call
from .chain import ParametrizationList
from .checks import Where, check_finite
from .inversion import says_there_is_none
from .parametrization import Outside, Parametrization
from .sharing import notes_of
from .torch_state import no_gradients
from .transaction import Snapshot

# Parts of a map that another tensor has too, with what they note of that
Shared = list[tuple[nn.Module, dict[str, object]]]


def check_arguments(map_: object, outside: str | None, where: Where) -> None:
    """Refuse what is no map, and no policy."""
    if not isinstance(map_, nn.Module):
        raise InvalidTensorError(
            f"`{where()}`: a parametrization is an instance of `nn.Module` with a "
            f"`forward`. Got {map_!r:.80}."
        )
    if outside is not None and outside not in get_args(Outside):
        raise InvalidTensorError(
            f'`{where()}`: outside has to be one of "error", "warn", "project" or '
            f"None. Got {outside!r}."
        )


def has_state(map_: nn.Module) -> bool:
    """Tell whether a map has tensors of its own."""
    return any(True for _ in map_.parameters()) or any(True for _ in map_.buffers())


def check_domain(map_: nn.Module, original: Tensor, where: Where) -> None:
    """Refuse a first map whose domain the optimizer would leave."""
    if not isinstance(map_, Parametrization) or type(map_.domain) is Real:
        return
    if map_.domain.dim(original.shape) < original.numel():
        raise NotInSetError(
            f"`{where()}`: `{type(map_).__name__}` takes {map_.domain}, and a free "
            "tensor does not stay there while it trains. Register the map that leads "
            "there first, or use a recipe such as `holdfast.orthogonal`."
        )


def check_links(chain: ParametrizationList, where: Where) -> None:
    """Refuse a map whose domain does not contain what those before it make."""
    if len(chain._modules) == 1:
        return
    first, *others = chain._modules.values()
    with no_gradients():
        value = call(first, chain.first_originals())
        for map_ in others:
            if isinstance(map_, Parametrization):
                check_member(map_, value, where)
            value = call(map_, (value,))


def check_member(map_: Parametrization, value: Tensor, where: Where) -> None:
    """Refuse a later map whose domain does not contain what it gets."""
    if not map_.domain.contains(value):
        raise NotInSetError(
            f"`{where()}`: `{type(map_).__name__}` takes {map_.domain}, and the value "
            f"of the maps before it has residual "
            f"{float(map_.domain.residual(value).max()):.1e}, tolerance "
            f"{tolerance(value):.1e} ({value.dtype}). Register the map that leads "
            "there first."
        )


def check_inverse(map_: nn.Module, image: Tensor, where: Where) -> None:
    """Refuse a later map whose right inverse does not give a tensor like its value."""
    right_inverse = getattr(map_, "right_inverse", None)
    if right_inverse is None:
        return
    snapshot = Snapshot([map_])
    with snapshot:
        try:
            back = right_inverse(image)
        except NotImplementedError as error:
            if not says_there_is_none(error, map_):
                raise
            return
    snapshot.restore()  # it was only a trial
    if not isinstance(back, Tensor):
        raise InvalidTensorError(
            f"`{where()}`: parametrization.right_inverse must return a tensor. "
            f"Got: {type(back).__name__}"
        )
    check_finite(map_, back, image, where)
    for what in ("dtype", "shape", "device"):
        if getattr(back, what) != getattr(image, what):
            raise InvalidTensorError(
                f"`{where()}`: The tensor returned by parametrization.right_inverse "
                f"must have the same {what} as the value, unless the `unsafe` flag is "
                f"enabled.\n{what}: {getattr(image, what)}\n"
                f"returned {what}: {getattr(back, what)}"
            )


def check_notes(before: Shared, where: Where) -> None:
    """Refuse a map whose notes on another tensor have been written over."""
    for part, notes in before:
        now = notes_of(part)
        changed = [key for key in notes if now.get(key, notes[key]) != notes[key]]
        if changed:
            raise SharedMapError(
                f"`{type(part).__name__}` notes `{changed[0]}` of the tensor that it "
                f"parametrizes already, and that of `{where()}` is another. Pass a "
                "copy: `copy.deepcopy(parametrization)`."
            )
