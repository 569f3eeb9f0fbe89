"""What holdfast raises, and how it names a tensor.

HoldfastError
├── UnknownTensorError    (ValueError)    no tensor of that name, or a plain one
├── InvalidTensorError    (ValueError)    wrong shape, dtype, device, layout or type
├── NonFiniteError        (ValueError)    a right inverse produced NaN or infinity
├── NotInSetError         (ValueError)    an assigned tensor lies outside the codomain
├── SharedMapError        (ValueError)    one stateful map on two tensors
├── SpecError             (ValueError)    data that does not describe a map
├── PlanError             (ValueError)    rules that cannot be read or followed
├── CheckpointError       (ValueError)    a file that cannot be written, read or used
├── UnknownLawError       (ValueError)    no law of that name to be exempt from
├── LawError              (AssertionError)  a map breaks a law
└── NoRightInverseError   (RuntimeError)  a map that cannot be assigned through

Every class also derives from the built-in that torch raises in the same place, so
code that catches torch's errors catches ours.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator

from torch import Tensor, nn


class HoldfastError(Exception):
    """Base of all errors that holdfast raises on purpose."""


class UnknownTensorError(HoldfastError, ValueError):
    """The module has no tensor of that name, or the tensor is not parametrized."""


class InvalidTensorError(HoldfastError, ValueError):
    """A tensor of the wrong shape, dtype, device, layout or type."""


class NonFiniteError(HoldfastError, ValueError):
    """A right inverse turned finite values into NaN or infinity."""


class NotInSetError(HoldfastError, ValueError):
    """A tensor lies outside the set that a map can reach."""


class SharedMapError(HoldfastError, ValueError):
    """One map instance with state of its own was given to two tensors."""


class PlanError(HoldfastError, ValueError):
    """Rules that cannot be read, or a plan that cannot be carried out."""


class SpecError(HoldfastError, ValueError):
    """Data that does not describe a map, or a map that data cannot describe."""


class CheckpointError(HoldfastError, ValueError):
    """A checkpoint that cannot be written, cannot be read, or does not fit."""


class UnknownLawError(HoldfastError, ValueError):
    """There is no law of that name."""


class LawError(HoldfastError, AssertionError):
    """A map breaks a law of the library."""


class NoRightInverseError(HoldfastError, RuntimeError):
    """Assignment went through a map that has no right inverse."""


# So many names are a help, more are a list.
_MOST_NAMES = 12


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean ...?"``, or what there is, or nothing."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean `{close[0]}`?"
    if not known or len(known) > _MOST_NAMES:
        return ""
    return f" It has {', '.join(f'`{k}`' for k in known)}."


def describe(tensor: object) -> str:
    """Return type, shape, dtype and device of a tensor, never its values."""
    if not isinstance(tensor, Tensor):
        return f"`{tensor}`" if tensor is None else f"a {type(tensor).__name__}"
    return f"a {tuple(tensor.shape)} tensor of {tensor.dtype} on {tensor.device}"


def path_of(module: nn.Module, name: str = "") -> str:
    """Return a tensor's path as the caller sees it, such as ``encoder.0.weight``.

    A module does not know its parents, but the code that runs does: the largest
    module among the callers' variables that contains this one gives the path.
    Without one it is ``Linear.weight``. A chain needs no name: it ends in its own.
    """
    best = ""
    for root in {id(root): root for root in _modules_in_sight()}.values():
        for path in _paths(root, module):
            if path.count(".") >= best.count("."):
                best = path
    if not name:
        return best.replace("parametrizations.", "") or "the tensor"
    return f"{best or type(module).__name__.removeprefix('Parametrized')}.{name}"


def _paths(root: nn.Module, module: nn.Module) -> Iterator[str]:
    """Yield where below a root a module is; also in one that is half made."""
    seen, waiting = {id(root)}, [("", root)]
    for path, part in waiting:
        if part is module and path:
            yield path
        for name, below in part.__dict__.get("_modules", {}).items():
            if below is not None and id(below) not in seen:
                seen.add(id(below))
                waiting.append((f"{path}.{name}" if path else name, below))


def _modules_in_sight() -> Iterator[nn.Module]:
    frame = sys._getframe(1)
    while frame is not None:
        for value in list(frame.f_locals.values()):
            if issubclass(type(value), nn.Module):  # a proxy may fail `isinstance`
                yield value
        frame = frame.f_back
