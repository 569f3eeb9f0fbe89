"""From a value back to the originals, as a transaction.

`invert` runs the right inverses in reverse order and holds every intermediate value
against the declared sets; nothing is written before all checks have passed, and a
`Snapshot` puts back what the maps themselves moved.
"""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import (
    InvalidTensorError,
    NonFiniteError,
    NoRightInverseError,
    NotInSetError,
    describe,
)
from ..linalg.tolerances import tolerance
from .parametrization import Outside, Parametrization

if TYPE_CHECKING:
    from .chain import ParametrizationList

Where = Callable[[], str]
Originals = Tensor | Sequence[Tensor]


class Snapshot:
    """Put maps back, bit for bit, when the block fails."""

    def __init__(self, maps: Iterable[nn.Module]) -> None:
        self._parts = [part for map_ in maps for part in map_.modules()]

    def __enter__(self) -> None:
        """Copy what may move: attributes, registries and tensors."""
        self._attributes = [dict(part.__dict__) for part in self._parts]
        self._registries = [
            (registry, dict(registry))
            for part in self._parts
            for registry in (part._parameters, part._buffers, part._modules)
        ]
        self._tensors = [
            (tensor, tensor.detach().clone())
            for _, registry in self._registries
            for tensor in registry.values()
            if isinstance(tensor, Tensor)
        ]

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Put everything back if the block failed."""
        if error is not None:
            self.restore()

    def restore(self) -> None:
        """Put everything back."""
        for part, attributes in zip(self._parts, self._attributes, strict=True):
            part.__dict__.clear()
            part.__dict__.update(attributes)
        for registry, entries in self._registries:
            registry.clear()
            registry.update(entries)
        with torch.no_grad():
            for tensor, copy in self._tensors:
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)


def tensors_in(map_: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a map."""
    yield from map_.parameters()
    yield from map_.buffers()


def invert(
    chain: ParametrizationList, value: Tensor, where: Where, *, registering: bool
) -> Originals:
    """Run the right inverses in reverse order."""
    new: Any = value
    for map_ in reversed([*chain._modules.values()]):
        new = _admit(chain, map_, new, where, registering=registering)
        new = _right_inverse(map_, new, where, registering=registering)
        check_finite(map_, new, value, where)
    return new


def check_finite(map_: nn.Module, new: object, value: Tensor, where: Where) -> None:
    """Refuse a right inverse that has turned finite entries into others (A4)."""
    if is_finite(value) and not all(is_finite(t) for t in _tuple(new)):
        raise NonFiniteError(
            f"`{where()}`: the right inverse of `{_name(map_)}` gave NaN or infinity "
            f"for {describe(value)} of finite entries. Assign a value that the map can "
            "reach, away from the boundary of its set."
        )


def _admit(
    chain: ParametrizationList,
    map_: nn.Module,
    value: Any,  # noqa: ANN401  # a user's right_inverse may return anything
    where: Where,
    *,
    registering: bool,
) -> Any:  # noqa: ANN401
    """Refuse or move a value that the map's codomain does not contain."""
    if not isinstance(map_, Parametrization) or not isinstance(value, Tensor):
        return value
    default: Outside = "project" if registering else map_.outside
    policy = chain.outside or default
    if policy == "project" and map_.outside == "project":
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
    value: Any,  # noqa: ANN401
    where: Where,
    *,
    registering: bool,
) -> Any:  # noqa: ANN401
    """Call a map's right inverse; without one, keep the value or refuse (A3)."""
    method = getattr(map_, "right_inverse", None)
    reason: NotImplementedError | None = None
    if method is not None:
        try:
            return method(value)
        except NotImplementedError as error:
            if not says_there_is_none(error, map_):
                raise
            reason = error
    if registering:
        return value
    raise NoRightInverseError(
        f"`{where()}` cannot be assigned: parametrization {_name(map_)} does not "
        "implement right_inverse. Give it a method `right_inverse(self, weight)` "
        "that returns the tensor (or tensors) which `forward` maps to `weight`."
        + (f" It says: {reason}" if str(reason or "") else "")
    ) from reason


def says_there_is_none(error: NotImplementedError, map_: nn.Module) -> bool:
    """Tell ``raise NotImplementedError`` in a right inverse from a missing kernel.

    Both have the same type; only the former is a ``raise`` statement that runs in
    the map's own method of that name.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    frame = trace.tb_frame
    return (
        frame.f_code.co_name == "right_inverse"
        and frame.f_locals.get("self") is map_
        and frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    )


def check_assigned(chain: ParametrizationList, value: object, where: Where) -> Tensor:
    """Refuse a value that is no tensor like the one it is assigned to."""
    original = chain.originals()[0]
    shape = None if chain.unsafe else chain.shape
    dtype = original.dtype if chain.is_tensor and not chain.unsafe else None
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
    return value.detach()


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
    tensors = _tuple(new)
    if len(tensors) != len(originals):
        raise InvalidTensorError(
            f"`{where()}`: 'right_inverse' must return a sequence of tensors of length "
            f"{len(originals)}. Got {len(tensors)}."
        )
    for i, (tensor, original) in enumerate(zip(tensors, originals, strict=True)):
        name = "original" if chain.is_tensor else f"original{i}"
        like = (original.dtype, original.device)
        if not isinstance(tensor, Tensor) or (tensor.dtype, tensor.device) != like:
            raise InvalidTensorError(
                f"`{where()}`: `right_inverse` returned {describe(tensor)} while "
                f"`{name}` has dtype {original.dtype} and device {original.device}."
            )
    return tensors


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
    if not isinstance(new, Sequence):
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


def write(original: Tensor, new: Tensor) -> None:
    """Put a new value into an original, which stays the same object."""
    if not _is_alias(original, new):
        with torch.no_grad():
            same = new.shape == original.shape and new.dtype == original.dtype
            if same and type(original) in _PLAIN:
                original.copy_(new.clone() if _overlap(original, new) else new)
            else:
                _replace(original, new.detach().clone())
    original.grad = None  # it was the slope at another point


_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


def _replace(original: Tensor, new: Tensor) -> None:
    if is_traceable_wrapper_subclass(original):
        if isinstance(original, nn.Parameter):
            new = nn.Parameter(new, requires_grad=original.requires_grad)
        torch.utils.swap_tensors(original, new)
    else:
        original.data = new.contiguous()
        torch.autograd.graph.increment_version(original)


def _overlap(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _is_alias(original: Tensor, new: Tensor) -> bool:
    """Tell whether the new value is the old one, as without a right inverse."""
    return new is original or (
        type(original) in _PLAIN
        and type(new) in _PLAIN
        and new.data_ptr() == original.data_ptr() != 0
        and new.dtype == original.dtype
        and new.shape == original.shape
        and new.stride() == original.stride()
    )


def is_finite(tensor: object) -> bool:
    if not isinstance(tensor, Tensor) or type(tensor) not in _PLAIN:
        return True
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(torch.isfinite(tensor).all())


def _tuple(new: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return tuple(new) if isinstance(new, Sequence) else (new,)


def _name(map_: nn.Module) -> str:
    return type(map_).__name__
