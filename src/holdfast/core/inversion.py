"""From a value back to the originals, as a transaction.

`invert` runs the right inverses in reverse order and holds every intermediate value
against the declared sets. Nothing is written here.
"""

from __future__ import annotations

import dis
import itertools
import warnings
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import (
    InvalidTensorError,
    NonFiniteError,
    NoRightInverseError,
    NotInSetError,
    describe,
)
from ..linalg.tolerances import tolerance
from ..sets.linear import Real
from .checks import (
    Originals,
    Where,
    check_assigned,
    check_finite,
    check_originals,
    explain,
    is_finite,
    takes_several,
)
from .parametrization import Outside, Parametrization

if TYPE_CHECKING:
    from .chain import ParametrizationList


def inverted(
    chain: ParametrizationList, value: object, where: Where
) -> list[tuple[Tensor, Tensor]]:
    """Return each original with what it has to become; maps may move their state.

    The caller writes, and puts the maps back if anything fails.
    """
    tensor = check_assigned(chain, value, where)
    if chain.__dict__["_emptied"]:
        bind_again(chain, tensor, where)
    new = invert(chain, tensor, where, registering=False)
    originals = chain.originals()
    tensors = check_originals(chain, new, originals, where)
    return [*zip(originals, tensors, strict=True)]


def invert(
    chain: ParametrizationList, value: Tensor, where: Where, *, registering: bool
) -> Originals:
    """Run the right inverses in reverse order, of maps that registering binds."""
    new: Any = value
    links = chain.links()
    for map_ in reversed(links):
        try:
            if registering and isinstance(map_, Parametrization):
                map_.bind(value)
            new = _admit(chain, map_, new, where, registering=registering)
            new = _right_inverse(map_, new, where, registering=registering)
        except Exception as error:
            explain(error, map_, value, where)
            raise
        if map_ is not links[0] and isinstance(new, list | tuple):
            raise takes_several(map_, len(new), where)
        check_finite(map_, new, value, where)
    return new


def bind_again(chain: ParametrizationList, value: Tensor, where: Where) -> None:
    """Start maps anew whose memory has no values, as `to_empty` leaves it.

    What `bind` does not make, an argument or a trained tensor, a weight cannot tell.
    """
    for i, map_ in chain._modules.items():
        assert map_ is not None
        before = dict(itertools.chain(map_.named_parameters(), map_.named_buffers()))
        if isinstance(map_, Parametrization):
            map_.bind(value)
        now = itertools.chain(map_.named_parameters(), map_.named_buffers())
        for name, tensor in now:
            if tensor is before.get(name):
                raise InvalidTensorError(
                    f"`{where()}`: `to_empty` has left `{_name(map_)}` without the "
                    f"values of its tensor `{name}`, which no weight tells. Load the "
                    f"state dict of a parametrized model, which has it as `{i}.{name}`."
                )


def _admit(
    chain: ParametrizationList,
    map_: nn.Module,
    value: Any,
    where: Where,
    *,
    registering: bool,
) -> Any:
    """Refuse or move a value that the map's codomain does not contain."""
    if not isinstance(map_, Parametrization) or not isinstance(value, Tensor):
        return value
    if type(map_.codomain) is Real:
        return value
    default: Outside = "project" if registering else map_.outside
    policy = chain.outside or default
    if policy == "project" and map_.outside == "project":
        if not registering and not is_finite(value):
            raise NonFiniteError(
                f"`{where()}` cannot be assigned {describe(value)} with NaN or "
                f"infinite entries: nothing in {map_.codomain} is near."
            )
        return value  # its right inverse takes any value
    if map_.codomain.contains(value):
        return value
    if policy != "project":
        message = (
            f"`{where()}` is not in {map_.codomain} of `{_name(map_)}`: residual "
            f"{float(map_.codomain.residual(value).max()):.1e}, tolerance "
            f"{tolerance(value):.1e} ({value.dtype})."
        )
        if policy == "error":
            raise NotInSetError(
                f'{message} Register with `outside="project"` to move such values '
                "to the nearest one that is, or assign one."
            )
        warnings.warn(f"{message} It was moved there.", UserWarning, stacklevel=6)
    return map_.codomain.project(value)


def _right_inverse(
    map_: nn.Module,
    value: Any,
    where: Where,
    *,
    registering: bool,
) -> Any:
    """Call a map's right inverse; without one, keep the value or refuse (A3)."""
    method = getattr(map_, "right_inverse", None)
    reason = ""
    if method is not None:
        try:
            return method(value)
        except Exception as error:
            if not says_there_is_none(error, map_):
                error.add_note(f"while computing the right inverse of `{where()}`")
                raise
            reason = f" It says: {error}"  # the error itself would keep the frame
    if registering:
        return value
    raise NoRightInverseError(
        f"`{where()}` cannot be assigned: parametrization {_name(map_)} does not "
        "implement right_inverse. Give it a method `right_inverse(self, weight)` "
        "that returns the tensor (or tensors) which `forward` maps to `weight`."
        + reason.removesuffix(" It says: ")
    )


def says_there_is_none(error: Exception, map_: nn.Module) -> bool:
    """Tell ``raise NotImplementedError`` in a right inverse from a missing kernel.

    Both have the same type; only the former is a ``raise`` statement that runs in
    the map's own method of that name.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, NotImplementedError):
        return False
    frame = trace.tb_frame
    return (
        frame.f_code.co_name == "right_inverse"
        and frame.f_locals.get("self") is map_
        and frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    )


def _name(map_: nn.Module) -> str:
    return type(map_).__name__
