"""What holdfast raises, and how it names a tensor.

HoldfastError
├── UnknownTensorError    (ValueError)    no tensor of that name, or a plain one
├── InvalidTensorError    (ValueError)    wrong shape, dtype, device, layout or type
├── NonFiniteError        (ValueError)    a right inverse produced NaN or infinity
├── NotInSetError         (ValueError)    an assigned tensor lies outside the codomain
├── SharedMapError        (ValueError)    one stateful map on two tensors
├── TiedTensorError       (ValueError)    a tensor that has other names
├── SpecError             (ValueError)    data that does not describe a map
├── PlanError             (ValueError)    rules that cannot be read or followed
├── CheckpointError       (ValueError)    a file that cannot be written, read or used
├── UnknownLawError       (ValueError)    no law of that name to be exempt from
├── LawError              (AssertionError)  a map breaks a law
├── ConstraintLostError   (RuntimeError)  a weight is no longer in its set
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
    """Base of all errors that holdfast raises on purpose.

    Example:
        >>> import torch, holdfast
        >>> try:
        ...     holdfast.orthogonal(torch.nn.Linear(2, 2), "bais")
        ... except holdfast.errors.HoldfastError as error:
        ...     print("Did you mean `bias`?" in str(error))
        True
    """


class UnknownTensorError(HoldfastError, ValueError):
    """The module has no tensor of that name, or the tensor is not parametrized.

    Example:
        >>> import torch, holdfast
        >>> holdfast.remove_parametrizations(torch.nn.Linear(2, 2), "weight")
        Traceback (most recent call last):
        ...
        holdfast.errors.UnknownTensorError: ...
    """


class InvalidTensorError(HoldfastError, ValueError):
    """A tensor of the wrong shape, dtype, device, layout or type.

    Example:
        >>> import torch, holdfast
        >>> holdfast.linalg.require_square(torch.zeros(2, 3))
        Traceback (most recent call last):
        ...
        holdfast.errors.InvalidTensorError: Expected a square matrix ...
    """


class NonFiniteError(HoldfastError, ValueError):
    """A right inverse turned finite values into NaN or infinity.

    Example:
        >>> import torch, holdfast
        >>> class Exp(torch.nn.Module):
        ...     def forward(self, X):
        ...         return X.exp()
        ...
        ...     def right_inverse(self, W):
        ...         return W.log()
        >>> layer = torch.nn.LayerNorm(2)
        >>> layer = holdfast.register_parametrization(layer, "weight", Exp())
        >>> layer.weight = torch.zeros(2)
        Traceback (most recent call last):
        ...
        holdfast.errors.NonFiniteError: `LayerNorm.weight`: the right inverse ...
    """


class NotInSetError(HoldfastError, ValueError):
    """A tensor lies outside the set that a map can reach.

    Example:
        >>> import torch, holdfast
        >>> layer = torch.nn.Linear(2, 2)
        >>> map_ = holdfast.maps.Symmetric()
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> layer.weight = torch.ones(2, 2).triu()
        Traceback (most recent call last):
        ...
        holdfast.errors.NotInSetError: `Linear.weight` is not in SymmetricMatrices...
    """


class SharedMapError(HoldfastError, ValueError):
    """One map instance with state of its own was given to two tensors.

    Example:
        >>> import torch, holdfast
        >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> map_ = holdfast.maps.SpectralNorm()
        >>> first = holdfast.register_parametrization(first, "weight", map_)
        >>> holdfast.register_parametrization(second, "weight", map_)
        Traceback (most recent call last):
        ...
        holdfast.errors.SharedMapError: ...
    """


class TiedTensorError(HoldfastError, ValueError):
    """A tensor that is registered under other names too was to be parametrized.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        >>> model[1].weight = model[0].weight
        >>> holdfast.orthogonal(model[0])
        Traceback (most recent call last):
        ...
        holdfast.errors.TiedTensorError: `0.weight` is tied: ... is also `1.weight`...
    """


class PlanError(HoldfastError, ValueError):
    """Rules that cannot be read, or a plan that cannot be carried out.

    Example:
        >>> import torch, holdfast
        >>> rules = {"wieght": holdfast.maps.Symmetric()}
        >>> holdfast.plan(torch.nn.Linear(2, 2), rules).apply()
        Traceback (most recent call last):
        ...
        holdfast.errors.PlanError: The plan has problems:
        The rule `wieght` names no tensor.
    """


class SpecError(HoldfastError, ValueError):
    """Data that does not describe a map, or a map that data cannot describe.

    Example:
        >>> from holdfast import maps
        >>> maps.from_spec({"map": "Symetric"})
        Traceback (most recent call last):
        ...
        holdfast.errors.SpecError: ... Did you mean `Symmetric`?
    """


class CheckpointError(HoldfastError, ValueError):
    """A checkpoint that cannot be written, cannot be read, or does not fit.

    Example:
        >>> import torch, holdfast
        >>> holdfast.load("nowhere.safetensors", torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        ...
        holdfast.errors.CheckpointError: There is no file nowhere.safetensors.
    """


class UnknownLawError(HoldfastError, ValueError):
    """There is no law of that name.

    Example:
        >>> from holdfast import maps
        >>> from holdfast.testing import check_parametrization
        >>> check_parametrization(maps.Symmetric(), (2, 2), exempt=["comple"])
        Traceback (most recent call last):
        ...
        holdfast.errors.UnknownLawError: ... Did you mean `compile`?
    """


class LawError(HoldfastError, AssertionError):
    """A map breaks a law of the library.

    Example:
        >>> import holdfast
        >>> from holdfast.testing import check_parametrization
        >>> class Nothing(holdfast.Parametrization):
        ...     codomain = holdfast.sets.SymmetricMatrices()
        ...
        ...     def forward(self, X):
        ...         return X
        ...
        ...     def right_inverse(self, weight):
        ...         return weight
        >>> check_parametrization(Nothing(), (2, 2), exempt=["compile"])
        Traceback (most recent call last):
        ...
        holdfast.errors.LawError: ...
    """


class ConstraintLostError(HoldfastError, RuntimeError):
    """A weight is no longer in its set, or not finite, while a model trains.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.orthogonal(torch.nn.Linear(2, 2))
        >>> with torch.no_grad():
        ...     _ = layer.parametrizations.weight[0].base.mul_(2)
        >>> holdfast.Watch(layer, lost="stop").after_step(1)
        Traceback (most recent call last):
        ...
        holdfast.errors.ConstraintLostError: A constraint was lost by step 1: ...
    """


class NoRightInverseError(HoldfastError, RuntimeError):
    """Assignment went through a map that has no right inverse.

    Example:
        >>> import torch, holdfast
        >>> class Exp(torch.nn.Module):
        ...     def forward(self, X):
        ...         return X.exp()
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", Exp())
        >>> layer.weight = torch.ones(2, 2)
        Traceback (most recent call last):
        ...
        holdfast.errors.NoRightInverseError: `Linear.weight` cannot be assigned: ...
    """


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
