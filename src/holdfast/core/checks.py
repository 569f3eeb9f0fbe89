"""What maps and users may hand in, and what they are told otherwise."""

from __future__ import annotations

import cmath
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import HoldfastError, InvalidTensorError, NonFiniteError, describe
from .entry import PLAIN
from .parametrization import Parametrization
from .sharded import is_sharded

if TYPE_CHECKING:
    from .chain import ParametrizationList

Where = Callable[[], str]
Originals = Tensor | Sequence[Tensor]


def check_module(module: object, function: str, *names: object) -> None:
    """Refuse what is no module where a function takes one, and what names no tensor."""
    check_type(module, nn.Module, function, "a module")
    for name in names:
        check_type(name, str, function, "the name of a tensor")


def check_optimizer(optimizer: object, function: str) -> None:
    """Refuse what has no groups of parameters where a function takes an optimizer."""
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        raise TypeError(f"`{function}` takes an optimizer. Got {_kind(optimizer)}.")


def check_type(thing: object, type_: type, function: str, what: str) -> None:
    """Refuse an argument of another type than a function takes."""
    if not isinstance(thing, type_):
        raise TypeError(f"`{function}` takes {what}. Got {_kind(thing)}.")


def _kind(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class `{thing.__name__}`, not an instance of it"
    return "`None`" if thing is None else f"an object of {type(thing).__name__}"


def check_dense(tensor: Tensor, where: Where) -> None:
    """Refuse a layout that maps cannot compute with."""
    if tensor.layout is torch.strided and not tensor.is_nested:
        return
    if tensor.is_nested:
        found, way = "a nested one", "Pass one tensor on"
    else:
        found, way = f"one of layout {tensor.layout}", "Pass it on as `.to_dense()`"
    raise InvalidTensorError(
        f"`{where()}` has to be a dense tensor. Got {found}. {way}."
    )


def check_assigned(chain: ParametrizationList, value: object, where: Where) -> Tensor:
    """Refuse a value that is no tensor like the one it is assigned to."""
    original = chain.first_original()
    shape = None if chain.unsafe else chain.shape
    dtype = original.dtype if chain.is_tensor and not chain.unsafe else None
    if isinstance(value, Tensor):
        check_dense(value, where)
    if (
        not isinstance(value, Tensor)
        or shape not in (None, value.shape)
        or dtype not in (None, value.dtype)
        or original.device != value.device
    ):
        raise InvalidTensorError(
            f"Cannot assign {describe(value)} to `{where()}`: expected shape "
            f"{tuple(chain.shape)}, dtype {original.dtype}, device {original.device}."
        )
    if is_sharded(original) and not is_sharded(value):
        raise InvalidTensorError(
            f"Cannot assign {describe(value)} to `{where()}`, whose originals are "
            "sharded. Assign it before the model is, or load a sharded state dict."
        )
    return value.detach()


def check_takes_one(map_: nn.Module, where: Where) -> None:
    """Refuse a map of several tensors where the map before it makes one."""
    count = tensors_needed(map_)
    if count > 1:
        raise takes_several(map_, count, where)


def takes_several(map_: nn.Module, count: int, where: Where) -> InvalidTensorError:
    """Return the error of a map that has to be the first one."""
    return InvalidTensorError(
        f"`{where()}`: `{type(map_).__name__}` takes {count} tensors, and the map "
        "before it makes one. Register it first, and once."
    )


def tensors_needed(map_: nn.Module) -> int:
    """Return how many tensors the ``forward`` of a map cannot do without."""
    given = inspect.signature(map_.forward).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(p.kind not in several and p.default is p.empty for p in given)


def check_originals(
    chain: ParametrizationList,
    new: Originals,
    originals: tuple[Tensor, ...],
    where: Where,
) -> tuple[Tensor, ...]:
    """Refuse right inverses that are not like the originals they go into."""
    if chain.is_tensor and not isinstance(new, Tensor):
        raise InvalidTensorError(
            f"`{where()}`: `right_inverse` should return a tensor. "
            f"Got {type(new).__name__}"
        )
    tensors = as_tuple(new)
    if len(tensors) != len(originals):
        raise InvalidTensorError(
            f"`{where()}`: 'right_inverse' must return a sequence of tensors of length "
            f"{len(originals)}. Got {len(tensors)}."
        )
    for i, (tensor, original) in enumerate(zip(tensors, originals, strict=True)):
        if (
            not isinstance(tensor, Tensor)
            or tensor.dtype != original.dtype
            or tensor.device != original.device
            or tensor.layout != original.layout
        ):
            raise InvalidTensorError(
                f"`{where()}`: `right_inverse` returned {describe(tensor)} while "
                f"`{_name(chain, i)}` has dtype {original.dtype}, device "
                f"{original.device} and layout {original.layout}."
            )
        if tensor.shape != original.shape and not chain.unsafe:
            raise InvalidTensorError(
                f"`{where()}`: `right_inverse` returned {describe(tensor)} while "
                f"`{_name(chain, i)}` has shape {tuple(original.shape)}. Register with "
                "`unsafe=True` if shapes are to change."
            )
    return tensors


def _name(chain: ParametrizationList, i: int) -> str:
    return "original" if chain.is_tensor else f"original{i}"


def check_registered(value: Tensor, new: object, where: Where) -> Originals:
    """Refuse what no original can be made of."""
    if isinstance(new, Tensor):
        for what in ("dtype", "device"):
            if getattr(new, what) != getattr(value, what):
                raise InvalidTensorError(
                    f"`{where()}`: When `right_inverse` outputs one tensor, it may not "
                    f"change the {what}.\noriginal.{what}: {getattr(value, what)}\n"
                    f"right_inverse(original).{what}: {getattr(new, what)}"
                )
        return new
    if type(new) is not tuple and not isinstance(new, Sequence):
        raise InvalidTensorError(
            f"`{where()}`: 'right_inverse' must return a Tensor or a Sequence of "
            f"tensors (list, tuple...). Got {type(new).__name__}"
        )
    for i, tensor in enumerate(new):
        if not isinstance(tensor, Tensor):
            raise InvalidTensorError(
                f"`{where()}`: 'right_inverse' must return a Tensor or a Sequence of "
                f"tensors (list, tuple...). Got element {i} of the sequence with type "
                f"{type(tensor).__name__}."
            )
    return new


def check_image(
    image: object, value: Tensor, where: Where, *, unsafe: bool = False
) -> None:
    """Refuse maps that change shape or dtype (T13: unless ``unsafe``)."""
    if not isinstance(image, Tensor):
        raise InvalidTensorError(
            f"`{where()}`: A parametrization must return a tensor. "
            f"Got {type(image).__name__}."
        )
    for what in () if unsafe else ("dtype", "shape", "device"):
        if getattr(image, what) != getattr(value, what):
            raise InvalidTensorError(
                f"`{where()}`: Registering a parametrization may not change the {what} "
                "of the tensor, unless the `unsafe` flag is enabled.\n"
                f"unparametrized {what}: {getattr(value, what)}\n"
                f"parametrized {what}: {getattr(image, what)}"
            )


def check_finite(map_: nn.Module, new: object, value: Tensor, where: Where) -> None:
    """Refuse a right inverse that has turned finite entries into others (A4)."""
    for tensor in as_tuple(new):
        # the value itself is looked at last, where there is something to explain
        if tensor is value or is_finite(tensor) or not is_finite(value):
            continue
        raise NonFiniteError(
            f"`{where()}`: the right inverse of `{type(map_).__name__}` gave NaN or "
            f"infinity for {describe(value)} of finite entries. Assign a value that "
            "the map can reach, away from the boundary of its set."
        )


def explain(error: Exception, map_: nn.Module, value: Tensor, where: Where) -> None:
    """Raise what is wrong with a tensor that a map of ours has failed on in torch."""
    if (
        not isinstance(error, RuntimeError | TypeError | IndexError)
        or isinstance(error, HoldfastError)
        or not isinstance(map_, Parametrization)
    ):
        return
    found = f"`{where()}`: `{type(map_).__name__}` cannot be had of "
    if not (value.is_floating_point() or value.is_complex()):
        raise InvalidTensorError(
            f"{found}{describe(value)}. It takes floating-point and complex "
            "tensors: convert this one first, with `.float()` say."
        ) from error
    if not is_finite(value):
        raise NonFiniteError(
            f"{found}{describe(value)} with NaN or infinite entries. Give it "
            "finite ones first."
        ) from error
    if value.ndim < 2 or not value.numel():
        said = str(error).rstrip(".")
        raise InvalidTensorError(f"{found}{describe(value)}: {said}.") from error


def is_finite(tensor: object) -> bool:
    """Tell whether there is no NaN and no infinity, if that can be told."""
    if not isinstance(tensor, Tensor) or type(tensor) not in PLAIN:
        return True
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # the sum is quicker, and finite sums have finite terms
    return cmath.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def as_tuple(new: Any) -> tuple[Any, ...]:
    """Return one original or several as a tuple."""
    if type(new) is tuple:  # asking for a sequence takes longer
        return new
    return tuple(new) if isinstance(new, Sequence) else (new,)
